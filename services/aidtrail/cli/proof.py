"""`aidtrail audit export`, `prove` and `verify`: what an auditor takes home, and the verifier that he need not take from here."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from aidtrail import config, show
from aidtrail.audit import evidence, verifier
from aidtrail.audit.note import VerifierKey
from aidtrail.cli.backends import backends
from aidtrail.errors import NoteError, UsageError

Key = Annotated[str, typer.Option("--key", help="The key that the seal signs with, as 'aidtrail audit seal-key' printed it.")]


def export(
    folder: Annotated[Path, typer.Argument(help="To be made.")],
    key: Key,
    tiles: Annotated[
        Path | None,
        typer.Option("--tiles", help="The seal's folder, AIDTRAIL_HOME/seal if it is there: a verifier then names single records."),
    ] = None,
) -> None:
    """Write the whole log into a folder for an auditor. Raw records of every topic, checkpoints, schemas, rows of the views.

    Proves nothing by itself: 'aidtrail audit verify', or services/aidtrail/audit/verifier.py copied alone, checks all of it. Waits for a
    checkpoint that covers what the views hold.
    """
    settings = config.load()
    sealed_here = settings.home / "seal"
    tiles = tiles or (sealed_here if sealed_here.is_dir() else None)
    with show.bar("records") as bar, backends(settings) as opened:
        count = evidence.export(opened.log, opened.topics, opened.views, _key(key), folder, tiles=tiles, progress=bar.to)
    print(f"{folder}: {count:,} records")


def prove(
    donation_id: Annotated[str, typer.Argument(metavar="DONATION_ID")],
    key: Key,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    since: Annotated[int | None, typer.Option("--since", min=1, help="Size of the checkpoint that the auditor saw last.")] = None,
) -> None:
    """Write what proves the figures of one donation. Its entries, the proofs that they are in the log, the rows of the views.

    Proves, once verified: these figures came from these entries, which are in the log that was signed (C4), each by an enrolled actor, with
    requester, approver, preparer and releaser distinct (C2). Does not prove: that nothing came after it, or that no refusal was left out
    (an export does); that the log only grew, to who has no checkpoint of his own.
    """
    with backends(config.load()) as opened:
        bundle = evidence.prove(opened.log, opened.topics, opened.views, _key(key), donation_id, since=since)
    output.write_text(json.dumps(bundle, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{output}: {len(bundle['entries'])} entries of {donation_id}")


def verify(
    path: Annotated[Path, typer.Argument(help="What 'aidtrail audit export' or 'aidtrail audit prove' made.")],
    key: Annotated[str | None, typer.Option("--key", help="The log's key, as you were told it by another way.")] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="A C2SP tlog-policy: log, witnesses, and how many must have signed.")
    ] = None,
    last: Annotated[Path | None, typer.Option("--last", help="The file that keeps what you saw last; made where it is missing.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check an export or a proof, trusting nobody but the key. The same as running services/aidtrail/audit/verifier.py alone.

    Exit codes: 11 the log did not only grow (C1), 12 rules, people or chains (C2), 13 the views are not the fold of the log (C3), 14 the
    figures did not come from the entries (C4). With --last it also compares with what you saw last, and replaces that only if all holds.
    """
    options = [("--key", key), ("--policy", policy), ("--last", last)]
    words = [f"{name}={value}" for name, value in options if value is not None]
    sys.stdout.flush()
    raise typer.Exit(verifier.main([*words, *(["--json"] if json_ else []), "--", str(path)]))


def _key(text: str) -> VerifierKey:
    try:
        return VerifierKey.parse(text)
    except NoteError as error:
        raise UsageError(f"--key: {error}") from None
