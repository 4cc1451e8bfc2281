"""`aidtrail submit`: events from a file, and what the ledger ruled on each."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, TypeVar
from uuid import UUID

import typer

from aidtrail import codec, config, show
from aidtrail.cli.backends import Backends, backends
from aidtrail.cli.donations import Json
from aidtrail.cli.ndjson import Bad, Line, read
from aidtrail.domain.events import Event
from aidtrail.errors import AppendUnknownError, StoppedError, UnavailableError
from aidtrail.keys import read_actor_key
from aidtrail.producer import MAX_IN_FLIGHT, Producer
from aidtrail.signatures import sign
from aidtrail.views import shapes
from aidtrail.views.reader import Outcome, Reader

PAUSE_SECONDS = 0.05
"""Between two looks at the views."""


T = TypeVar("T")


@dataclass
class Sent:
    """A line that was submitted. `appended` is False where the log did not say whether it has it."""

    line: Line
    event: Event
    appended: bool = True
    repeated: bool = False
    """Whether its event id had been ruled on before."""


def submit(
    file: Annotated[str, typer.Argument(help="Events, one JSON object a line; - for stdin.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the outcomes.")] = 30.0,
    sign_with: Annotated[
        Path | None, typer.Option("--sign-with", help="The actor's key, of 'aidtrail registry key': signs what is not signed yet.")
    ] = None,
    json_: Json = False,
) -> None:
    """Submit events. Prints the outcome of each; lists each line that is no event, and goes on. Exit 1 if any line was bad or refused.

    Submitting a file again is safe: what was ruled on before keeps its first outcome."""
    settings = config.load()
    key = None if sign_with is None else read_actor_key(sign_with)
    failed = False
    with backends(settings, create=True) as opened:
        reader = _reader(opened) if wait else None
        sent: list[Sent] = []
        with stopped_with(sent), Producer(opened.log, opened.topics) as producer, show.bar("submitted") as bar:
            for chunk in chunks(read(file), MAX_IN_FLIGHT):
                good = []
                for line in chunk:
                    bad = line if isinstance(line, Bad) else None
                    if isinstance(line, Line) and isinstance(line.event, Event):
                        good.append(Sent(line, line.event if key is None else sign(line.event, key)))
                    elif isinstance(line, Line):
                        bad = line.bad("type", "an event of a donation", f"{line.event.type}, for 'aidtrail registry load'")
                    if bad is not None:
                        failed = True
                        _print_bad(bad, json_)
                if reader is not None:
                    known = reader.outcomes([one.event.meta.event_id for one in good])
                    for one in good:
                        one.repeated = one.event.meta.event_id in known
                try:
                    producer.submit([one.event for one in good])
                except AppendUnknownError as error:
                    for one in good:
                        one.appended = False
                    numbers = f"{good[0].line.number} to {good[-1].line.number}"
                    typer.echo(f"{file}: lines {numbers}: {error}. They are in the log or not; submit the file again to be sure", err=True)
                    failed = True
                bar.add(len(chunk))
                sent += good
        typer.echo(f"{len(sent):,} submitted", err=True)
        if reader is None and wait and sent:
            typer.echo(f"no views yet, waiting up to {wait:g} s for them: is 'aidtrail up' running?", err=True)
            with stopped_with(sent):
                reader = _reader(opened, wait)
        if reader is not None:
            with stopped_with(sent), show.bar("ruled on", len(sent)) as bar:
                for one, outcome in outcomes(reader, sent, wait, bar.to):
                    outcome = _own(one, outcome)
                    failed |= outcome is not None and outcome.outcome == "refused"
                    _print_outcome(one, outcome, json_)
    if failed:
        raise typer.Exit(1)
    if sent and wait and reader is None:
        raise typer.Exit(UnavailableError.exit_code)


@contextmanager
def stopped_with(sent: Sequence[object]) -> Iterator[None]:
    """Ctrl-C says how many are in the log by then; those that were just being submitted are there or not."""
    try:
        yield
    except KeyboardInterrupt:
        said = f"stopped: {len(sent):,} submitted, and perhaps more that were under way"
        raise StoppedError(f"{said}. To do it again is safe: what is in the log keeps its first outcome") from None


def outcomes(
    reader: Reader, sent: Sequence[Sent], wait_seconds: float, progress: Callable[[float], None]
) -> Iterator[tuple[Sent, Outcome | None]]:
    """The outcome of each, in the order submitted; None for those that are not in the views in time."""
    deadline = time.monotonic() + wait_seconds
    done = 0
    for window in chunks(sent, MAX_IN_FLIGHT):
        ids = [one.event.meta.event_id for one in window]
        found: dict[UUID, Outcome] = {}
        while True:
            found |= reader.outcomes([event_id for event_id in ids if event_id not in found])
            progress(done + len(found))
            if len(found) == len(set(ids)) or time.monotonic() > deadline:
                break
            time.sleep(PAUSE_SECONDS)
        done += len(window)
        for one in window:
            yield one, found.get(one.event.meta.event_id)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while chunk := list(islice(left, size)):
        yield chunk


def _reader(opened: Backends, wait_seconds: float = 0.0) -> Reader | None:
    """The views, which the first projector may be about to make; None, and why if they were waited for, if they are not there."""
    try:
        return opened.reader(wait_seconds=wait_seconds)
    except UnavailableError as error:
        if wait_seconds:
            typer.echo(f"the outcomes cannot be shown: {error}. Submit the file again to see them", err=True)
        return None


def _own(one: Sent, outcome: Outcome | None) -> Outcome | None:
    """The outcome of this very event. Where its id had been used before, the views answer with the first outcome of the id: that is its
    own if it says the same, else it was refused."""
    if outcome is None or outcome.submission_sha256 == codec.sha256(codec.encode(one.event)):
        return outcome
    return outcome._replace(
        outcome="refused", version=None, reason="event_id_reused", expected="an event id of its own", found="the id of another submission"
    )


def _print_bad(bad: Bad, json_: bool) -> None:
    typer.echo(str(bad), err=True)
    if json_:
        show.lines([{"file": bad.file, "line": bad.number, "outcome": "not_submitted", **dict(list(bad._asdict().items())[2:])}])


def _print_outcome(one: Sent, outcome: Outcome | None, json_: bool) -> None:
    if json_:
        said = {"outcome": "not_yet"} if outcome is None else shapes.outcome(outcome)
        meta = one.event.meta
        where = {"file": one.line.file, "line": one.line.number}
        show.lines([{**where, **said, "donation_id": meta.donation_id, "event_id": meta.event_id, "event_type": one.event.type}])
        return
    sys.stdout.write(f"{one.event.meta.donation_id} {one.event.type}: {said_of(outcome, one.appended)}\n")


def said_of(outcome: Outcome | None, appended: bool = True) -> str:
    """An outcome in one line."""
    if outcome is None:
        return "submitted, not ruled on yet: is a ledger running?" if appended else "unknown"
    if outcome.outcome == "admitted":
        return f"admitted, version {outcome.version}"
    return f"REFUSED {outcome.reason}: expected {outcome.expected}, found {outcome.found}"
