"""`aidtrail audit`: rule again and compare, project the log again beside the live views and compare, choose which build is live. What
concerns the past is in `past`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from aidtrail import config, show
from aidtrail.audit import replay as replaying
from aidtrail.audit.findings import Report
from aidtrail.audit.rebuild import rebuild as build_again
from aidtrail.cli import past
from aidtrail.cli.backends import backends
from aidtrail.cli.donations import Json
from aidtrail.config import Settings
from aidtrail.log import Log
from aidtrail.views import schema

app = typer.Typer(help="Prove that the rules were kept, and the views true to the log.", no_args_is_help=True)


@app.command("replay")
def replay(
    cut: Annotated[str | None, typer.Option(help="Up to this cut: a name of 'aidtrail audit cuts', or a .json file.")] = None,
    since: Annotated[str | None, typer.Option(help="From this cut on; entries before it are followed, not ruled again.")] = None,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Share the partitions out among so many processes.")] = 1,
    note: Annotated[bool, typer.Option("--note", help="Note the result in the views' database, for metrics and dashboards.")] = False,
    json_: Json = False,
) -> None:
    """Rule again on every submission, and compare the outcomes. From offset 0 on, byte for byte; exit 1 if any differs.

    With --since, from a cut on: the state there is the fold of the entries before it, of which the last must be the cut's last outcome.

    Proves, for entries of today's rules: each outcome is the one that the rules give for what was submitted, with the parties, actors and
    mechanisms of the registry as it stood; so every admitted event was made in the name of an enrolled actor in his role, and requester,
    approver, preparer and releaser are distinct; and no submission was passed over. With --cut, also that these are the cut's outcomes.

    Does not prove: that the log only grew (who can rewrite submissions, registry and entries together leaves nothing to find); that the
    person wrote the event whose name it bears (that is for access control and signatures); that append times are true; what an earlier
    version of the rules decided ('not re-decidable': only chain, order, bytes, actor, signature and invariants are checked); or that the
    views are right (aidtrail audit rebuild).
    """
    settings = config.load()
    with show.bar("entries") as bar:
        options: Any = {"max_accounts": settings.ledger_accounts, "progress": bar.to}
        with backends(settings) as opened:
            if cut is not None:
                options["extent"] = replaying.extent_of(opened.log, opened.topics, past.load_cut(opened, cut))
            if since is not None:
                extent = options.get("extent") or replaying.extent_now(opened.log, opened.topics)
                starts = replaying.starts_at(opened.log, opened.topics, past.load_cut(opened, since))
                options["extent"] = extent._replace(starts=starts)
            if processes == 1:
                found = replaying.replay(opened.log, opened.topics, **options)
            else:
                found = replaying.replay_in_processes(partial(_open_log, settings), opened.topics, processes, **options)
            if note:
                with schema.connect(opened.views) as connection:
                    schema.note_audit(connection, "replay", found.entries, found.differing)
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
        "extent": found.extent and {name: getattr(found.extent, name) for name in ("recorded", "submitted", "registry")},
        "differences": [difference._asdict() for difference in found.differences],
        "voids": [void._asdict() for void in found.voids],
    }


def _show_report(found: Report) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name in ("submissions", "entries", *(["followed"] if found.followed else []), "equal", "differing"):
        table.add_row(name, f"{getattr(found, name):,}")
    table.add_row("void", f"{found.void.total():,}")
    table.add_row("not re-decidable", f"{found.not_redecidable.total():,}")
    table.add_row("unanswered", f"{found.unanswered:,}")
    table.add_row("registry events", f"{found.registry_events:,}")
    out = show.console()
    out.print(table)
    for version, count in sorted(found.not_redecidable.items()):
        out.print(
            f"not re-decidable: {count:,} entries of rules version {version}; chain, order, bytes, actor, signature and invariants hold"
        )
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
    followed = f", {found.followed:,} before them followed" if found.followed else ""
    replayed = f"{found.submissions:,} submissions and {found.entries - found.followed:,} entries replayed{followed}"
    print(f"{replayed}, {found.differing:,} differences")


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
    """Build the views again, and compare every row. From offset 0, with the live ones at the same cut; exit 1 if any differs."""
    settings = config.load()
    with backends(settings) as opened:
        with show.bar("entries") as bar:
            compared = build_again(opened.log, opened.topics, opened.views, max_accounts=settings.projector_accounts, progress=bar.to)
        with schema.connect(opened.views) as connection:
            connection.autocommit = True
            schema.note_audit(connection, "rebuild", compared.total_rows, compared.total_differences)
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
        before = past.require_views(connection)
        schema.go_live(connection, build)
    print(f"live: {build}; before: {before}")


@app.command("drop")
def drop(build: Annotated[str, typer.Argument(help="A build that 'aidtrail audit builds' lists and that is not live.")]) -> None:
    """Delete a build that nobody wants to go back to."""
    with backends(config.load()) as opened, schema.connect(opened.views) as connection:
        connection.autocommit = True
        schema.require_build(connection, build)
        schema.drop_build(connection, build)
    print(f"dropped: {build}")


@app.command("builds")
def builds(json_: Json = False) -> None:
    """List the builds of the views. With --json one object a line."""
    with backends(config.load()) as opened, schema.connect(opened.views) as connection:
        live = past.require_views(connection)
        found: Any = connection.execute("SELECT name, purpose, created_at FROM aidtrail.builds ORDER BY created_at").fetchall()
    rows = [{"build": name, "live": name == live, "purpose": purpose, "created_at": at} for name, purpose, at in found]
    if json_:
        show.lines(rows)
        return
    shown = [(row["build"], "live" if row["live"] else "", f"{row['created_at']:%Y-%m-%d %H:%M:%S} UTC", row["purpose"]) for row in rows]
    show.table(("build", "", "made", "purpose"), shown)


app.command("cut")(past.cut)
app.command("cuts")(past.list_cuts)
app.command("as-of")(past.as_of)
app.command("diff")(past.diff)
