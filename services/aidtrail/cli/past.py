"""`aidtrail audit cut`, `cuts`, `as-of` and `diff`: the views as they were, and what changed since."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from pydantic import TypeAdapter, ValidationError

from aidtrail import config, show
from aidtrail.audit import as_of as past
from aidtrail.audit import changes, cuts
from aidtrail.cli.backends import Backends, backends
from aidtrail.cli.donations import Json
from aidtrail.domain.events import Time
from aidtrail.domain.money import format_money
from aidtrail.errors import AidtrailError, UnavailableError, UsageError
from aidtrail.views import schema

_TIME: TypeAdapter[datetime] = TypeAdapter(Time)


def cut(
    name: Annotated[str | None, typer.Argument(help="To find it by; its digest's first 12 digits if not said.")] = None,
    json_: Json = False,
) -> None:
    """Take a cut of the live views, to compare with later. Where each partition stands, and one SHA-256 over the outcomes and the status
    rows; exit 1 if a row is not what was written.

    Proves, later: that the log up to here and the views of then are still what they were, when 'aidtrail audit as-of --cut' finds no
    difference. So keep what --json prints, or only the digest, where the operator cannot change it. Does not prove that the views are the
    fold of the log: 'aidtrail audit rebuild' and 'as-of' do. Columns with free text or a person's id are not in the digest.
    """
    with backends(config.load()) as opened, schema.connect(opened.views) as connection, show.bar("donations") as bar:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        build = require_views(connection)
        found, recounted = cuts.of_build(connection, build), cuts.recount(connection, build, bar.to)
        connection.rollback()
        named = name or found.sha256.hex()[:12]
        if recounted.holds:
            cuts.keep(connection, named, build, found)
            connection.commit()
    if json_:
        show.lines([{**found.to_json(), "name": named, "build": build, "recount": vars(recounted)}])
    else:
        _show_cut(found)
        for donation_id in recounted.altered:
            print(f"altered: the rows of {donation_id}")
        for partition in recounted.partitions:
            print(f"altered: the sum of partition {partition} is not that of its donations")
        print(f"cut {named}: sha256 {found.sha256.hex()}, {recounted.donations:,} donations recounted, {recounted.differing:,} altered")
    if not recounted.holds:
        print("not kept: the views are not what was written to them; 'aidtrail audit rebuild' names every row", file=sys.stderr)
        raise typer.Exit(1)


def _show_cut(found: cuts.Cut) -> None:
    names = ("partition", "next offset", "last submission", "last outcome", "status rows")
    rows = []
    for partition, place in sorted(found.places.items()):
        numbers = (partition, place.next_offset, place.last_submitted_offset)
        rows.append((*map(str, numbers), place.last_outcome_sha256.hex()[:12], place.rows_sha256.hex()[:12]))
    show.table(names, rows, right=range(3))


def list_cuts(json_: Json = False) -> None:
    """List the cuts that have a name, the oldest first. With --json one object a line."""
    with backends(config.load()) as opened, schema.connect(opened.views) as connection:
        found = cuts.kept(connection)
    if json_:
        show.lines([kept._asdict() for kept in found])
        return
    for kept in found:
        print(f"{kept.name:<24}{kept.taken_at:%Y-%m-%d %H:%M:%S} UTC  {kept.build:<10}sha256 {kept.sha256.hex()}")


def as_of(
    time: Annotated[str | None, typer.Option(help="All that was recorded by this moment, as 2026-09-30T21:00:00Z.")] = None,
    cut: Annotated[str | None, typer.Option(help="All before this cut: a name of 'aidtrail audit cuts', or a .json file.")] = None,
    occurred_by: Annotated[str | None, typer.Option(help="Of that, what by the events' own account had occurred by this moment.")] = None,
    json_: Json = False,
) -> None:
    """Build the views as the log stood, beside the live ones. Prints the build's name; exit 1 if a cut is not what it was.

    Query it with 'aidtrail status ID --build NAME', 'history', 'list', or in SQL as the schema of that name; drop it with 'aidtrail audit
    drop NAME'.

    Proves, with --cut from the auditor's own copy: the log up to there is what it was, and gives the views of then. Does not prove that the
    log was right then, nor anything of what came after; and with --time only what the log of today says: the times are the broker's.
    """
    if time is None and cut is None and occurred_by is None:
        raise UsageError("say as of when: --time, --cut or --occurred-by")
    if time is not None and cut is not None:
        raise UsageError("--time and --cut both say what was recorded: use one")
    with backends(config.load()) as opened:
        found = _build(opened, _moment(opened, time, cut, occurred_by))
    if json_:
        counts = {"later": found.later, "left_out": found.left_out}
        show.lines([{"build": found.build, **found.cut.to_json(), "differences": found.differences, **counts}])
    else:
        _show_cut(found.cut)
        for line in found.differences:
            print(f"differs: {line}")
        if occurred_by is not None:
            print(f"{found.later:,} entries not folded: by their own account they occurred later, or are about what did")
            print(f"{found.left_out:,} events left out: they rest on one that by its own account occurred later")
        compared = f", {len(found.differences):,} differences from the cut" if cut else ""
        print(f"{found.build}: {sum(found.cut.next_offsets.values()) - found.later:,} entries, sha256 {found.cut.sha256.hex()}{compared}")
    if found.differences:
        raise typer.Exit(1)


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A cut, a .json file of one, a moment, a build, or live.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    json_: Json = False,
) -> None:
    """Say what changed between two cuts, moments or builds. Entries, donations, and amounts of each currency. What is not a build yet is
    built from the log, and dropped afterwards; a cut that the log does not give any more is an error."""
    with backends(config.load()) as opened:
        first, second = _asked(opened, before), _asked(opened, after)  # before anything is built, which may take long
        with _readable(opened, first) as a, _readable(opened, second) as b, schema.connect(opened.views) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            found = changes.changes(connection, a, b)
    if json_:
        amounts = [{**amount._asdict(), "change": amount.change} for amount in found.amounts]
        donations = [donation._asdict() for donation in found.donations]
        entries = [count._asdict() for count in found.entries]
        show.lines([{"entries": entries, "differing": found.differing, "donations": donations, "amounts": amounts}])
    else:
        _show_changes(found)


def _show_changes(found: changes.Changes) -> None:
    out = show.console()
    for change in found.donations:
        versions = " -> ".join("none" if at is None else f"version {at}" for at in (change.version_before, change.version_after))
        headlines = " -> ".join((at or "none").replace("_", " ") for at in (change.headline_before, change.headline_after))
        out.print(f"{change.change}: {change.donation_id}, {versions}, {headlines}")
    if found.differing > len(found.donations):
        out.print(f"and {found.differing - len(found.donations):,} more donations")
    rows = []
    for amount in found.amounts:
        sums = (format_money(value, amount.currency) for value in (amount.before, amount.after, amount.change))
        rows.append((amount.oversight, amount.contribution.replace("_", " "), amount.amount.replace("_", " "), *sums))
    if rows:
        show.table(("amounts", "", "", "before", "after", "change"), rows, right=range(3, 6))
    for count in found.entries:
        out.print(f"{count.change} entries: {count.entries:,} {count.outcome} {count.event_type or ''}".rstrip())
    new, gone = (sum(count.entries for count in found.entries if count.change == change) for change in ("new", "gone"))
    print(f"{new:,} new entries, {gone:,} gone, {found.differing:,} donations differ")


def require_views(connection: schema.Connection) -> str:
    """The live build. Raises UnavailableError when there is none."""
    build = schema.live_build(connection)
    if build is None:
        raise UnavailableError("no views yet: start 'aidtrail up' (on Kafka 'aidtrail project') and leave it running")
    return build


def _moment(opened: Backends, time: str | None, cut: str | None, occurred_by: str | None) -> past.Moment:
    found = None if cut is None else load_cut(opened, cut)
    return past.Moment(time=_time(time), cut=found, name=cut or "", occurred_by=_time(occurred_by))


def load_cut(opened: Backends, name: str) -> cuts.Cut:
    """The cut in a .json file, for which no views are needed, or the one of this name in the views."""
    if name.endswith(".json"):
        return cuts.read(Path(name))
    with schema.connect(opened.views) as connection:
        return cuts.find(connection, name)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return _TIME.validate_python(text)
    except ValidationError:
        raise UsageError(f"expected a moment with its zone, as 2026-09-30T21:00:00Z, found {text!r:.80}") from None


def _build(opened: Backends, moment: past.Moment) -> past.AsOf:
    with show.bar("entries") as bar:
        return past.as_of(opened.log, opened.topics, opened.views, moment, max_accounts=opened.settings.projector_accounts, progress=bar.to)


def _asked(opened: Backends, asked: str) -> str | past.Moment:
    """The build that is meant, or the moment that one is to be made of. Raises UsageError for what is neither."""
    if asked != "live" and not schema.BUILD.fullmatch(asked):
        try:
            return _moment(opened, asked, None, None) if ":" in asked else _moment(opened, None, asked, None)
        except UsageError as error:
            raise UsageError(f"{error}; a moment as 2026-09-30T21:00:00Z, a build as views_1 and live can be compared, too") from None
    with schema.connect(opened.views) as connection:
        if asked == "live":
            return require_views(connection)
        schema.require_build(connection, asked)
        return asked


@contextmanager
def _readable(opened: Backends, asked: str | past.Moment) -> Iterator[str]:
    """A build that shows what was asked for; one that is made for it is dropped afterwards."""
    if isinstance(asked, str):
        yield asked
        return
    found = _build(opened, asked)
    try:
        if found.differences:
            raise AidtrailError(f"{asked.name}: the log does not give this cut any more: {found.differences[0]}")
        yield found.build
    finally:
        with schema.connect(opened.views) as connection:
            connection.autocommit = True
            schema.drop_build(connection, found.build)
