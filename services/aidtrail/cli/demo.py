"""`aidtrail demo`: plays the story on an embedded server of its own, then shows status, history and a rebuild."""

import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from threading import Event as Stop
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

import aidtrail.demo
from aidtrail import codec, embedded, logs, show
from aidtrail.audit.rebuild import rebuild
from aidtrail.cli import registry
from aidtrail.cli.backends import Backends, backends
from aidtrail.cli.donations import party_names, submitters
from aidtrail.cli.ndjson import Line, read
from aidtrail.cli.services import Running, makers
from aidtrail.cli.submit import said_of
from aidtrail.config import Settings
from aidtrail.demo.story import DONATION, Step, story
from aidtrail.domain.events import Event, RegistryEvent
from aidtrail.errors import UnavailableError, UsageError
from aidtrail.producer import Producer
from aidtrail.views import schema
from aidtrail.views.reader import Outcome, Reader

REGISTRY = Path(aidtrail.demo.__file__).parent / "registry.ndjson"
MARK = ".aidtrail-demo"
OUTCOME_SECONDS = 30.0
PAUSE_SECONDS = 0.01


def demo(
    home: Annotated[Path, typer.Option(help="Folder to play in. Emptied first, if an earlier demo made it.")] = Path("aidtrail-demo"),
) -> None:
    """Play a donation from pledge to receipt, in ten seconds or so. On the embedded server: who may do what, what is refused and why."""
    home = home.absolute()
    _empty(home)
    logs.to_stderr("WARNING")
    out = show.console()
    failures = 0
    settings = Settings(home=home, log=None, views=None, topic_prefix="donations", metrics_port=None)
    with backends(settings, create=True) as opened:
        events = [event for line in read(str(REGISTRY)) if isinstance(line, Line) and isinstance(event := line.event, RegistryEvent)]
        registry.load(opened.log, opened.topics, [*registry.OPERATOR, *events])
        stop = Stop()
        made = makers(opened)
        running = Running({name: made[name] for name in ("ledger", "projector", "timekeeper")}, stop)
        try:
            running.start()
            failures += _play(opened, out, home / "events.ndjson", stop)
            out.print("\nStatus\n", style="bold")
            reader = opened.reader()
            row = reader.donation(DONATION)
            if row is None:
                raise UnavailableError("the views do not show the donation; try again")
            show.donation(row, reader.amounts([DONATION])[DONATION], party_names(opened))
            out.print("\nHistory\n", style="bold")
            rows = list(reader.history(DONATION))
            show.history(rows, submitters(opened, rows))
            out.print("\nThe views, built again from the log and compared row by row\n", style="bold")
            compared = rebuild(opened.log, opened.topics, opened.views)
            show.comparison(compared)
            out.print(f"{compared.total_rows} rows compared, {compared.total_differences} differences")
            failures += compared.total_differences
            with schema.connect(opened.views) as connection:
                connection.autocommit = True
                schema.drop_build(connection, compared.build)
        finally:
            stop.set()
            running.join()
    out.print("\nWhat to try next\n", style="bold")
    for line in _next(home):
        out.print(line)
    if failures:
        raise typer.Exit(1)


def _play(opened: Backends, out: Console, script: Path, stop: Stop) -> int:
    """Submit each step, wait for its outcome and tell it; returns how many came out otherwise than the story has it."""
    now = datetime.now(UTC)
    steps = [(step, step.event(number, now)) for number, step in enumerate(story(now), start=1)]
    script.write_text("".join(codec.to_json(event) + "\n" for _, event in steps), encoding="utf-8")
    surprises = 0
    reader: Reader | None = None
    with Producer(opened.log, opened.topics) as producer:
        for number, (step, event) in enumerate(steps, start=1):
            producer.submit([event])
            reader = reader or _views(opened, stop)
            outcome = _outcome(reader, event, stop)
            as_told = (outcome.reason if outcome.outcome == "refused" else None) == step.refused_by
            surprises += not as_told
            _tell(out, number, step, outcome, as_told)
    return surprises


def _tell(out: Console, number: int, step: Step, outcome: Outcome, as_told: bool) -> None:
    style = "green" if outcome.outcome == "admitted" else "red"
    told = Text(f"{number:>2}  {step.told} [{step.actor.actor_id}]: ") + Text(said_of(outcome), style=style)
    out.print(told if as_told else told + Text("  (the story has it otherwise)", style="bold red"))


def _views(opened: Backends, stop: Stop) -> Reader:
    """The views, once the projector has made them."""
    deadline = time.monotonic() + OUTCOME_SECONDS
    while True:
        try:
            return opened.reader()
        except UnavailableError:
            if stop.is_set() or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)


def _outcome(reader: Reader, event: Event, stop: Stop) -> Outcome:
    deadline = time.monotonic() + OUTCOME_SECONDS
    while not stop.is_set() and time.monotonic() < deadline:
        if (outcome := reader.outcome(event.meta.event_id)) is not None:
            return outcome
        time.sleep(PAUSE_SECONDS)
    raise UnavailableError(f"no outcome of {event.type} in {OUTCOME_SECONDS:.0f} s; is the machine very busy? Try again")


def _empty(home: Path) -> None:
    """Requires that an earlier demo made the folder, or that it is empty, and that nobody works in it: nobody's data is deleted."""
    try:
        if home.exists():
            if any(home.iterdir()) and not (home / MARK).exists():
                raise UsageError(f"--home {home}: expected an empty folder or one that a demo made, found other files; name another")
            if pids := embedded.users(home):
                raise UsageError(f"--home {home}: in use by process {', '.join(map(str, pids))}; stop it ('aidtrail up'?), or name another")
            shutil.rmtree(home)
        home.mkdir(parents=True)
        (home / MARK).write_text("Made by 'aidtrail demo', and emptied by the next one.\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--home {home}: expected a folder that can be written to: {error.strerror}; name another") from None


def _next(home: Path) -> list[str]:
    here = [] if shutil.which("aidtrail") else [f"  export PATH={Path(sys.argv[0]).absolute().parent}:$PATH"]
    return [
        *here,
        f"  export AIDTRAIL_HOME={home}",
        "  aidtrail up  # the whole pipeline; then in another terminal, exported alike:",
        f"  aidtrail status {DONATION}",
        f"  aidtrail history {DONATION} --json",
        "  aidtrail submit $AIDTRAIL_HOME/events.ndjson  # each keeps its first outcome",
        "  aidtrail audit rebuild --go-live",
        "  aidtrail doctor",
    ]
