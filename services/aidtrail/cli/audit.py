"""`aidtrail audit`: rule again and compare, project the log again beside the live views and compare, choose which build is live."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.table import Table

from aidtrail import config, show
from aidtrail.audit import cuts
from aidtrail.audit import replay as replaying
from aidtrail.audit.findings import Report
from aidtrail.audit.rebuild import rebuild as build_again
from aidtrail.cli.backends import backends
from aidtrail.cli.donations import Json
from aidtrail.config import Settings
from aidtrail.errors import UnavailableError
from aidtrail.log import Log
from aidtrail.views import schema

app = typer.Typer(help="Prove that the rules were kept, and that the views are the fold of the log.", no_args_is_help=True)


@app.command("replay")
def replay(
    processes: Annotated[int, typer.Option("--processes", min=1, help="Share the partitions out among so many processes.")] = 1,
    json_: Json = False,
) -> None:
    """Rule again on every submission, from offset 0, and compare each outcome with the recorded one, byte for byte; exit 1 if any differs.

    Proves, for entries of today's rules: each outcome is the one that the rules give for what was submitted, with the parties, actors and
    mechanisms of the registry as it stood; so every admitted event was made in the name of an enrolled actor in his role, and requester,
    approver, preparer and releaser are distinct; and no submission was passed over.

    Does not prove: that the log only grew (who can rewrite submissions, registry and entries together leaves nothing to find); that the
    person wrote the event whose name it bears (that is for access control and signatures); that append times are true; what another version
    of the rules decided ('not re-decidable': only chain, order, bytes and invariants are checked); or that the views are right (aidtrail
    audit rebuild).
    """
    settings = config.load()
    with show.bar("entries") as bar:
        options: Any = {"max_accounts": settings.ledger_accounts, "progress": bar.to}
        with backends(settings) as opened:
            if processes == 1:
                found = replaying.replay(opened.log, opened.topics, **options)
            else:
                found = replaying.replay_in_processes(partial(_open_log, settings), opened.topics, processes, **options)
    if json_:
        show.lines([_report_json(found)])
    else:
        _show_report(found)
    if found.differing:
        raise typer.Exit(1)


@contextmanager
def _open_log(settings: Settings) -> Iterator[Log]:
    with backends(settings) as opened:
        yield opened.log


def _report_json(found: Report) -> dict[str, Any]:
    return vars(found) | {
        "cut": found.cut and found.cut._asdict(),
        "differences": [difference._asdict() for difference in found.differences],
        "voids": [void._asdict() for void in found.voids],
    }


def _show_report(found: Report) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name in ("submissions", "entries", "equal", "differing"):
        table.add_row(name, f"{getattr(found, name):,}")
    table.add_row("void", f"{found.void.total():,}")
    table.add_row("not re-decidable", f"{found.not_redecidable.total():,}")
    table.add_row("unanswered", f"{found.unanswered:,}")
    table.add_row("registry events", f"{found.registry_events:,}")
    out = show.console()
    out.print(table)
    for version, count in sorted(found.not_redecidable.items()):
        out.print(f"not re-decidable: {count:,} entries of rules version {version}; their chain, order, bytes and invariants hold")
    if found.oldest_unanswered is not None:
        out.print(f"unanswered: the oldest waits since {_utc(found.oldest_unanswered)}")
    for void in found.voids:
        out.print(f"void: partition {void.partition} offset {void.offset} {void.donation_id}: {void.reason}")
    _more(out, "void", found.void.total() - len(found.voids))
    for d in found.differences:
        where = f"{d.topic} partition {d.partition} offset {d.offset} {d.donation_id}"
        out.print(f"differs: {where} {d.field}: expected {d.expected}, found {d.found}")
    _more(out, "differs", found.differing - len(found.differences))
    if found.resting:
        out.print(f"{found.resting:,} of the equal entries follow a difference in their donation, and are equal given what it recorded")
    print(f"{found.submissions:,} submissions and {found.entries:,} entries replayed, {found.differing:,} differences")


def _more(out: Console, what: str, count: int) -> None:
    if count:
        out.print(f"{what}: and {count:,} more")


def _utc(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


@app.command("rebuild")
def rebuild(
    go_live: Annotated[bool, typer.Option("--go-live", help="Make the new build the live one if nothing differs.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the new build beside the live one.")] = False,
    json_: Json = False,
) -> None:
    """Build the views again from offset 0 and compare every row with the live ones at the same cut; exit 1 if any differs."""
    settings = config.load()
    with backends(settings) as opened:
        with show.bar("entries") as bar:
            compared = build_again(opened.log, opened.topics, opened.views, max_accounts=settings.projector_accounts, progress=bar.to)
        with schema.connect(opened.views) as connection:
            connection.autocommit = True
            live = go_live and not compared.total_differences
            if live:
                schema.go_live(connection, compared.build)
            elif not (keep or go_live):
                schema.drop_build(connection, compared.build)
    if json_:
        show.lines([{**show.comparison_json(compared), "went_live": live, "kept": keep or go_live}])
    else:
        show.comparison(compared)
        print(f"{compared.total_rows:,} rows compared, {compared.total_differences:,} differences")
    if live:
        print(f"live: {compared.build}. Back again: aidtrail audit go-live {compared.live}", file=sys.stderr)
    elif keep or go_live:
        print(f"kept: {compared.build}; live: {compared.live}", file=sys.stderr)
    if compared.total_differences:
        raise typer.Exit(1)


@app.command("go-live")
def go_live(build: Annotated[str, typer.Argument(help="A build that 'aidtrail audit builds' lists.")]) -> None:
    """Make another build the live one, in one transaction. Its projector goes on from where that build is."""
    with backends(config.load()) as opened, schema.connect(opened.views) as connection:
        connection.autocommit = True
        _require_views(connection)
        before = schema.live_build(connection)
        schema.go_live(connection, build)
    print(f"live: {build}; before: {before}")


@app.command("drop")
def drop(build: Annotated[str, typer.Argument(help="A build that 'aidtrail audit builds' lists and that is not live.")]) -> None:
    """Delete a build that nobody wants to go back to."""
    with backends(config.load()) as opened, schema.connect(opened.views) as connection:
        connection.autocommit = True
        _require_views(connection)
        schema.drop_build(connection, build)
    print(f"dropped: {build}")


@app.command("builds")
def builds(json_: Json = False) -> None:
    """List the builds of the views. With --json one object a line."""
    with backends(config.load()) as opened, schema.connect(opened.views) as connection:
        _require_views(connection)
        live = schema.live_build(connection)
        found: Any = connection.execute("SELECT name, purpose, created_at FROM aidtrail.builds ORDER BY created_at").fetchall()
    rows = [{"build": name, "live": name == live, "purpose": purpose, "created_at": at} for name, purpose, at in found]
    if json_:
        show.lines(rows)
        return
    for row in rows:
        print(f"{row['build']:<12}{'live' if row['live'] else '':<6}{row['purpose']:<10}{row['created_at']:%Y-%m-%d %H:%M:%S} UTC")


@app.command("cut")
def cut(
    name: Annotated[str | None, typer.Argument(help="To find it by; its digest's first 12 digits if not said.")] = None,
    json_: Json = False,
) -> None:
    """Take a cut of the live views: where each partition stands, and one SHA-256 over the outcomes and the status rows; exit 1 if a row is
    not what was written.

    Proves, later: that the log up to here and the views of then are still what they were, when 'aidtrail audit as-of --cut' gives the same
    digest. So keep what --json prints, or only the digest, where the operator cannot change it. Does not prove that the views are the fold
    of the log: 'aidtrail audit rebuild' and 'as-of' do. Columns with free text or a person's id are not in the digest.
    """
    with backends(config.load()) as opened, schema.connect(opened.views) as connection, show.bar("donations") as bar:
        _require_views(connection)
        connection.rollback()
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        build = schema.live_build(connection) or ""
        found, recounted = cuts.of_build(connection, build), cuts.recount(connection, build, bar.to)
        connection.rollback()
        named = name or found.sha256.hex()[:12]
        if recounted.holds:
            cuts.keep(connection, named, build, found)
            connection.commit()
    if json_:
        show.lines([{**found.to_json(), "name": named, "build": build, "recount": vars(recounted)}])
    else:
        _show_cut(found, named, recounted)
    if not recounted.holds:
        print("not kept: the views are not what was written to them; 'aidtrail audit rebuild' names every row", file=sys.stderr)
        raise typer.Exit(1)


def _show_cut(found: cuts.Cut, name: str, recounted: cuts.Recount) -> None:
    table = Table(
        "partition", "next offset", "last submission", "last outcome", "status rows", box=None, pad_edge=False, header_style="dim"
    )
    for column in table.columns[:3]:
        column.justify = "right"
    for partition, place in sorted(found.places.items()):
        numbers = (partition, place.next_offset, place.last_submitted_offset)
        table.add_row(*map(str, numbers), place.last_outcome_sha256.hex()[:12], place.rows_sha256.hex()[:12])
    out = show.console()
    out.print(table)
    for donation_id in recounted.altered:
        out.print(f"altered: the rows of {donation_id}")
    _more(out, "altered", recounted.differing - len(recounted.altered))
    for partition in recounted.partitions:
        out.print(f"altered: the sum of partition {partition} is not that of its donations")
    print(f"cut {name}: sha256 {found.sha256.hex()}, {recounted.donations:,} donations recounted, {recounted.differing:,} altered")


@app.command("cuts")
def cuts_(json_: Json = False) -> None:
    """List the cuts that have a name, the oldest first. With --json one object a line."""
    with backends(config.load()) as opened, schema.connect(opened.views) as connection:
        found = cuts.kept(connection)
    if json_:
        show.lines([kept._asdict() for kept in found])
        return
    for kept in found:
        print(f"{kept.name:<24}{kept.taken_at:%Y-%m-%d %H:%M:%S} UTC  {kept.build:<10}sha256 {kept.sha256.hex()}")


def _require_views(connection: schema.Connection) -> None:
    if schema.live_build(connection) is None:
        raise UnavailableError("there are no views yet: start 'aidtrail up' or 'aidtrail project' and leave it running")
