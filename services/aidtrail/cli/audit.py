"""`aidtrail audit`: project the log again beside the live views, compare, and choose which build is live."""

import sys
from typing import Annotated, Any

import typer

from aidtrail import config, show
from aidtrail.audit.rebuild import rebuild as build_again
from aidtrail.cli.backends import backends
from aidtrail.cli.donations import Json
from aidtrail.errors import UnavailableError
from aidtrail.views import schema

app = typer.Typer(help="Prove that the views are the fold of the log.", no_args_is_help=True)


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


def _require_views(connection: schema.Connection) -> None:
    if schema.live_build(connection) is None:
        raise UnavailableError("there are no views yet: start 'aidtrail up' or 'aidtrail project' and leave it running")
