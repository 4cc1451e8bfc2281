"""`aidtrail audit seal`, and making the keys of seals and witnesses."""

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from aidtrail import config
from aidtrail.audit.keys import KINDS, make_key, read_key
from aidtrail.audit.note import COSIGNATURE, ED25519, VerifierKey
from aidtrail.audit.witness import Witness
from aidtrail.audit.witness_server import WitnessServer
from aidtrail.cli import services
from aidtrail.errors import NoteError, UsageError
from aidtrail.logs import to_stderr

logger = logging.getLogger(__name__)


def seal() -> None:
    """Sign what is recorded, each second that has something new. With the key in AIDTRAIL_SEAL_KEY.

    Every record of `recorded` is a leaf of its partition's Merkle tree. Checkpoints go to the topic `checkpoints` and, with the trees as
    tlog-tiles, into AIDTRAIL_HOME/seal, which any web server can hand out.

    Proves, to whom keeps a checkpoint: what the log held then is what it holds now; it only grew (C1). Does not prove that what was
    recorded is true, was ruled rightly (audit replay) or is what the views show (audit rebuild); nor that nobody was shown another log: who
    holds the key can sign two histories, and only witnesses, or two auditors who compare, notice.
    """
    services.serve_one("sealer")


def witness(
    key_file: Annotated[Path, typer.Argument(help="The witness's key, as 'aidtrail audit seal-key --for witness' makes it.")],
    log: Annotated[list[str], typer.Option("--log", help="The key to check a log's checkpoints with. May be given several times.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where it keeps what it cosigned. AIDTRAIL_HOME/witness by default.")
    ] = None,
    listen: Annotated[str, typer.Option("--listen", help="host:port. Put a proxy with TLS before it.")] = "127.0.0.1:8090",
) -> None:
    """Cosign a log's checkpoints, as long as the log only grows. Over HTTP (C2SP tlog-witness): each one's tree must begin with that of the
    one before.

    For those who do not trust the operator: the ministry, the donor, the auditor, each with a machine and a key of its own. It needs
    neither the log nor the views. Proves, to whom checks cosignatures: all that this witness cosigned of a log is one history. Does not
    prove that the log's operator signed no other: only that this witness kept its name off it, and kept it as evidence if it saw it.
    """
    settings = config.load()
    to_stderr(settings.log_level)
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise UsageError(f"--listen: expected host:port, found {listen}")
    try:
        logs = [VerifierKey.parse(vkey) for vkey in log]
    except NoteError as error:
        raise UsageError(f"--log: {error}") from None
    if wrong := [key for key in logs if key.type != ED25519]:
        raise UsageError(f"--log: expected the key of a log, found {wrong[0]}")
    opened = Witness(read_key(key_file, COSIGNATURE), logs, folder or settings.home / "witness")
    server = WitnessServer(opened, host, int(port))
    with services.stopping() as stop:
        server.start()
        logger.info("witness: http://%s:%d/add-checkpoint for %s", *server.server_address[:2], ", ".join(key.name for key in logs))
        stop.wait()
    server.close()


def key(
    name: Annotated[str, typer.Argument(help="Of the key, and of what it signs: like a URL without https://, and for ever.")],
    file: Annotated[Path, typer.Argument(help="To be made. Keep it where only its owner can read it, and keep a copy.")],
    kind: Annotated[Literal["seal", "witness"], typer.Option("--for", help="Who signs with it.")] = "seal",
) -> None:
    """Make the secret key of a seal or a witness. Ed25519; prints the key to check with."""
    key_type = {kind: key_type for key_type, kind in KINDS.items()}[kind]
    print(make_key(name, key_type, file).verifier)
