"""`aidtrail audit seal`, and making the keys of seals and witnesses."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aidtrail.audit.keys import KINDS, make_key
from aidtrail.cli import services


def seal() -> None:
    """Sign what is recorded, twice a second as long as there is something new, with the key in AIDTRAIL_SEAL_KEY.

    Every record of `recorded` is a leaf of its partition's Merkle tree. Checkpoints go to the topic `checkpoints` and, with the trees as
    tlog-tiles, into AIDTRAIL_HOME/seal, which any web server can hand out.

    Proves, to whom keeps a checkpoint: what the log held then is what it holds now; it only grew (C1). Does not prove that what was
    recorded is true, was ruled rightly (audit replay) or is what the views show (audit rebuild); nor that nobody was shown another log: who
    holds the key can sign two histories, and only witnesses, or two auditors who compare, notice.
    """
    services.serve_one("sealer")


def key(
    name: Annotated[str, typer.Argument(help="Of the key, and of what it signs: like a URL without https://, and for ever.")],
    file: Annotated[Path, typer.Argument(help="To be made. Keep it where only its owner can read it, and keep a copy.")],
    kind: Annotated[Literal["seal", "witness"], typer.Option("--for", help="Who signs with it.")] = "seal",
) -> None:
    """Make a secret Ed25519 key for a seal or a witness, and print the key to check with."""
    key_type = {kind: key_type for key_type, kind in KINDS.items()}[kind]
    print(make_key(name, key_type, file).verifier)
