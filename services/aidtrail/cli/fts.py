"""`aidtrail import fts`: flows of UN OCHA's Financial Tracking Service, as observed donations."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from aidtrail import config, show
from aidtrail.cli import registry
from aidtrail.cli.backends import Backends, backends
from aidtrail.cli.donations import Json
from aidtrail.cli.ndjson import Line
from aidtrail.cli.submit import Sent, outcomes, said_of, stopped_with
from aidtrail.domain.events import Event
from aidtrail.errors import UnavailableError
from aidtrail.importers import fts, fts_totals
from aidtrail.producer import MAX_IN_FLIGHT, Producer
from aidtrail.views.reader import Reader

app = typer.Typer(help="Import what others report.", no_args_is_help=True)


@app.callback()
def _import() -> None:
    """Import what others report, as observed donations."""


@app.command("fts")
def import_fts(
    files: Annotated[list[Path], typer.Argument(help="FTS flows, one JSON object a line.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the outcomes.")] = 300.0,
    json_: Json = False,
) -> None:
    """Import FTS flows as observed donations. Every line is a flow, a repeat or a listed refusal. Exit 1 if a line or an event was
    refused. Importing a file twice changes nothing."""
    with backends(config.load(), create=True) as opened:
        size = sum(path.stat().st_size for path in files if path.is_file())
        with show.bar("bytes read", size) as bar:
            found = fts.translate(fts.read(files, bar.add), _imported(opened))
        loaded = registry.load(opened.log, opened.topics, found.registry)
        for event, reason in loaded.objections:
            typer.echo(f"registry: {event.type} is not loaded: {reason}", err=True)
        sent: list[Event] = []
        with stopped_with(sent), Producer(opened.log, opened.topics) as producer, show.bar("submitted", len(found.events)) as bar:
            for start in range(0, len(found.events), MAX_IN_FLIGHT):
                batch = found.events[start : start + MAX_IN_FLIGHT]
                producer.submit(batch)
                sent += batch
                bar.add(len(batch))
        with stopped_with(sent):
            admitted, refused, pending = _outcomes(opened, found, wait) if wait and found.events else (0, [], len(found.events))
    if json_:
        show.lines([_as_json(found, loaded, admitted, refused, pending)])
    else:
        print(fts_totals.summary(found))
        print(f"\nledger: {admitted:,} admitted, {len(refused):,} refused, {pending:,} not seen in the views yet")
        for refusal in found.refusals:
            print(f"{refusal.file}:{refusal.line}: REFUSED {refusal.reason}: expected {refusal.expected}, found {refusal.found}")
        for donation_id, event_type, said in refused:
            print(f"{donation_id} {event_type}: {said}")
        for note in found.notes:
            print(f"{note.file}:{note.line}: note on {note.field} of FTS-{note.flow_id}: {note.text}")
        for orphan in found.orphans:
            print(f"orphan: FTS-{orphan.flow_id}, its parent {orphan.parent_id} is in no file and not in the log")
    if found.refusals or refused or loaded.objections:
        raise typer.Exit(1)


def _imported(opened: Backends) -> Callable[[str], fts.Imported | None]:
    """What the log holds of a flow, as the views have it; nothing where there are no views yet."""
    try:
        reader = opened.reader()
    except UnavailableError as error:
        print(f"every flow is taken as new: {error}", file=sys.stderr)
        return lambda donation_id: None

    def imported(donation_id: str) -> fts.Imported | None:
        rows = reader.history(donation_id)
        return fts.imported_from([row.event for row in rows if row.outcome == "admitted" and row.event is not None])

    return imported


def _outcomes(opened: Backends, found: fts.Import, wait: float) -> tuple[int, list[tuple[str, str, str]], int]:
    """How many were admitted, which were refused, how many are not in the views yet."""
    try:
        reader: Reader = opened.reader(wait_seconds=wait)
    except UnavailableError as error:
        print(f"the outcomes cannot be shown: {error}", file=sys.stderr)
        return 0, [], len(found.events)
    sent = [Sent(Line("", number, event), event) for number, event in enumerate(found.events, start=1)]
    admitted, pending, refused = 0, 0, []
    with show.bar("ruled on", len(sent)) as bar:
        for one, outcome in outcomes(reader, sent, wait, bar.to):
            if outcome is None:
                pending += 1
            elif outcome.outcome == "admitted":
                admitted += 1
            else:
                refused.append((one.event.meta.donation_id, one.event.type, said_of(outcome)))
    return admitted, refused, pending


def _as_json(
    found: fts.Import, loaded: registry.Loaded, admitted: int, refused: list[tuple[str, str, str]], pending: int
) -> dict[str, Any]:
    changes = [flow.change for flow in found.flows]
    sums = fts_totals.totals(found)
    return {
        "lines": found.lines,
        "flows": {change: changes.count(change) for change in ("new", "amended", "completed", "unchanged")},
        "repeats": len(found.repeats),
        "refusals": [refusal._asdict() for refusal in found.refusals],
        "orphans": [orphan._asdict() for orphan in found.orphans],
        "notes": [note._asdict() for note in found.notes],
        "events": {"submitted": len(found.events), "admitted": admitted, "refused": len(refused), "pending": pending},
        "refused": [{"donation_id": one, "event_type": kind, "said": said} for one, kind, said in refused],
        "registry": {"appended": loaded.appended, "known": loaded.known},
        "totals": [json.loads(json.dumps({**k._asdict(), **v._asdict()}, default=str)) for k, v in sorted(sums.amounts.items())],
    }
