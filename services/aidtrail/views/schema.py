"""Builds of the views: each is a PostgreSQL schema (`views_1`, `views_2`, ...) with the same tables; one of them is live.

SQL clients read the schema `live`: views on the tables of the live build. Going live is one transaction that moves the pointer and these
views; the build that was live stays as it was, for the way back.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg import sql

from aidtrail import connections
from aidtrail.errors import UnavailableError, UsageError

MIGRATIONS = Path(__file__).parent / "migrations"
CONTROL = "aidtrail"
AS_OF = "as of "
"""The purpose of a build that shows the past begins with this."""
BUILD = re.compile(r"views_[0-9]+", re.ASCII)
TABLES = ("positions", "entries", "refusals", "donations", "amounts", "approvals", "parked")

WRITTEN = "aidtrail_written"
"""PostgreSQL's notification at each commit of a batch to the live build."""

TRIES = 10
"""Of going live. In each, readers wait for one second at most: then PostgreSQL looks for a deadlock."""

Connection = psycopg.Connection[tuple[object, ...]]
CONNECTION: dict[str, Any] = {
    **connections.CONNECTION,
    "options": f"{connections.CONNECTION['options']} -c timezone=UTC -c search_path=live",
}
"""A table without a schema is the live build's, until somebody says otherwise."""


def connect(conninfo: str) -> Connection:
    """A connection to the views, in UTC. Raises UnavailableError with one line when the server cannot be reached or lets nobody in."""
    try:
        return psycopg.connect(conninfo, **CONNECTION)
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split())
        raise UnavailableError(f"PostgreSQL cannot be reached: {reason}. Check AIDTRAIL_VIEWS, and that the server is up.") from None


@contextmanager
def outages() -> Iterator[None]:
    """Turns a lost connection into UnavailableError; and a server that takes no writes: after a failover another one is the first."""
    try:
        yield
    except psycopg.errors.ProgramLimitExceeded:  # it is the value: to try again cannot help
        raise
    except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction) as error:
        raise UnavailableError(f"PostgreSQL went away: {' '.join(str(error).split())}") from None


def migrate(connection: Connection, schema: str, folder: str) -> None:
    """Bring `schema` up to the newest migration of `folder` ('control' or 'build'), creating it if need be, in one transaction.

    Raises UsageError when a migration that was applied has since been changed or, for a build, is newer than this release knows.
    """
    files = {int(path.name[:4]): path for path in sorted((MIGRATIONS / folder).glob("*.sql"))}
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('aidtrail.migrate'))")
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(schema)))
        connection.execute("CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL)")
        applied = {number: (name, digest) for number, name, digest in _migrations(connection)}
        for number, (name, digest) in applied.items():
            path = files.get(number)
            if path is None:
                if schema == CONTROL:  # what it holds is only ever added to, so that a release can be gone back to
                    continue
                raise UsageError(f"{schema}: migration {name} is newer than this release; run the release that applied it, or a later one")
            if _digest(path) != digest:
                raise UsageError(
                    f"{schema}: migration {path.name} was changed after it was applied; expected sha256 {digest}, found {_digest(path)}"
                )
        for number, path in files.items():
            if number not in applied:
                connection.execute(path.read_text(encoding="utf-8").encode())
                connection.execute("INSERT INTO migrations VALUES (%s, %s, %s)", (number, path.name, _digest(path)))


def behind(connection: Connection, schema: str, folder: str) -> list[str]:
    """How the migrations of `schema` differ from those of this release, one line each, with what to do. Changes nothing."""
    files = {int(path.name[:4]): path for path in sorted((MIGRATIONS / folder).glob("*.sql"))}
    with connection.transaction():
        connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(schema)))
        applied = {number: digest for number, _, digest in _migrations(connection)}
    found = [
        f"{schema}: {path.name} is not applied; start 'aidtrail project' of this release" for n, path in files.items() if n not in applied
    ]
    for number, digest in applied.items():
        if number not in files:
            found.append(f"{schema}: migration {number} is newer than this release; run the release that applied it, or a later one")
        elif _digest(files[number]) != digest:
            found.append(f"{schema}: {files[number].name} was changed after it was applied; run the release that applied it")
    return found


def prepare(connection: Connection, partitions: int) -> str:
    """Make sure that there is a live build with a position for each partition; returns its name."""
    migrate(connection, CONTROL, "control")
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('aidtrail.prepare'))")
        build = live_build(connection)
        if build is None:
            build = new_build(connection, partitions, "the first")
            go_live(connection, build)
        elif behind(connection, build, "build"):
            _hide(connection)  # PostgreSQL changes no column that a view shows
            migrate(connection, build, "build")
            _show(connection, build)
    _require_partitions(connection, build, partitions)
    return build


def new_build(connection: Connection, partitions: int, purpose: str) -> str:
    """Create an empty build with the next free name, which no other schema has either."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('aidtrail.new_build'))")
        row = connection.execute(
            "SELECT coalesce(max(substr(name, 7)::integer), 0) + 1 FROM (SELECT name FROM aidtrail.builds UNION SELECT nspname FROM"
            " pg_namespace) taken WHERE name ~ '^views_[0-9]{1,9}$'"
        ).fetchone()
        assert row is not None
        build = f"views_{row[0]}"
        migrate(connection, build, "build")
        connection.execute("INSERT INTO aidtrail.builds (name, purpose) VALUES (%s, %s)", (build, purpose))
        insert = sql.SQL("INSERT INTO {} (partition) SELECT generate_series(0, %s)").format(sql.Identifier(build, "positions"))
        connection.execute(insert, (partitions - 1,))
    return build


def live_build(connection: Connection) -> str | None:
    """The name of the live build; None in a database without one."""
    row = connection.execute("SELECT to_regclass('aidtrail.live')").fetchone()
    if row is None or row[0] is None:
        return None
    row = connection.execute("SELECT build FROM aidtrail.live").fetchone()
    return None if row is None else str(row[0])


def go_live(connection: Connection, build: str) -> None:
    """Make `build` the live one, in one transaction. Projectors notice at their next turn, and go on in it."""
    for left in reversed(range(TRIES)):
        try:
            _go_live(connection, build)
            return
        except psycopg.errors.DeadlockDetected:  # with who reads one table after the other: he has been let through
            if not left:
                raise


def _go_live(connection: Connection, build: str) -> None:
    with connection.transaction():
        found = require_build(connection, build)
        if found.startswith(AS_OF):
            raise UsageError(f"{build} shows the views {found}: it is for reading, and no projector could go on from it")
        connection.execute("INSERT INTO aidtrail.live (build) VALUES (%s) ON CONFLICT (one) DO UPDATE SET build = EXCLUDED.build", (build,))
        connection.execute("CREATE SCHEMA IF NOT EXISTS live")
        _hide(connection)
        _show(connection, build)


def _hide(connection: Connection) -> None:
    """Drop the views of the live build. Within a transaction that makes them anew, readers wait and never see them missing."""
    for table in TABLES:
        connection.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(sql.Identifier("live", table)))


def _show(connection: Connection, build: str) -> None:
    for table in TABLES:
        view, source = sql.Identifier("live", table), sql.Identifier(build, table)
        connection.execute(sql.SQL("CREATE VIEW {} AS SELECT * FROM {}").format(view, source))


def require_build(connection: Connection, build: str) -> str:
    """What a build is for. Raises UsageError when there is no such build."""
    if connection.execute("SELECT to_regclass('aidtrail.builds')").fetchone() == (None,):
        raise UsageError(f"build: there are none in this database, found {build:.80}")
    rows = cast(list[tuple[str, str]], connection.execute("SELECT name, purpose FROM aidtrail.builds ORDER BY created_at").fetchall())
    purposes = dict(rows)
    if build not in purposes:
        raise UsageError(f"build: expected one of {', '.join(purposes)}, found {build:.80}")
    return purposes[build]


def drop_build(connection: Connection, build: str) -> None:
    """Drop a build that is not live."""
    with connection.transaction():
        if live_build(connection) == build:
            raise UsageError(f"build {build} is live: make another one live first ('aidtrail audit rebuild --go-live')")
        if connection.execute("DELETE FROM aidtrail.builds WHERE name = %s", (build,)).rowcount != 1:
            raise UsageError(f"build: expected one that 'aidtrail audit builds' lists, found {build}")
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(build)))


def note_audit(connection: Connection, kind: str, checked: int, differences: int) -> None:
    """Note what a 'replay' or 'rebuild' found, for metrics and dashboards."""
    migrate(connection, CONTROL, "control")
    with connection.transaction():
        connection.execute("INSERT INTO aidtrail.audits (kind, checked, differences) VALUES (%s, %s, %s)", (kind, checked, differences))


def _require_partitions(connection: Connection, build: str, partitions: int) -> None:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(build, "positions"))).fetchone()
    assert row is not None
    if row[0] != partitions:
        raise UsageError(f"{build} was made for {row[0]} partitions and the topic has {partitions}: these views belong to another log")


def _migrations(connection: Connection) -> list[tuple[int, str, str]]:
    return cast(list[tuple[int, str, str]], connection.execute("SELECT number, name, sha256 FROM migrations ORDER BY number").fetchall())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
