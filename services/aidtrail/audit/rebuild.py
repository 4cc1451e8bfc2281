"""Rebuild: project the log again, from offset 0, into a build beside the live one, and compare the two row by row at the same cut.

Proves that the live views equal the fold of the log under the code of today. It does not prove that the log is what was once written to it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from aidtrail.audit import cuts
from aidtrail.audit.building import Progress, building, ignore
from aidtrail.domain.fold import apply
from aidtrail.errors import UsageError
from aidtrail.log import Log
from aidtrail.projection import Apply
from aidtrail.topics import Topics
from aidtrail.views import schema
from aidtrail.views.writer import COLUMNS, KEYS

NEAR = 10_000
"""Records behind the live build at which the live build is made to wait for a moment, so that both stand at one cut."""
MAX_NAMED = 20

COMPARED = {table: KEYS.get(table, ("partition", "offset")) for table in COLUMNS}
"""The tables that are compared, with the columns that name a row."""


@dataclass(frozen=True)
class Comparison:
    """What was compared at `cut`: rows of each table in both builds, and the keys of rows that differ (at most MAX_NAMED a table). The
    digests (`audit.cuts`) are equal where nothing differs; `live_sha256` is None where the live build keeps none. `uncompared` are columns
    that only one build has, because another release began it."""

    build: str
    live: str
    cut: dict[int, int]
    rows: dict[str, int]
    differences: dict[str, int]
    named: dict[str, list[str]]
    sha256: bytes
    live_sha256: bytes | None
    uncompared: list[str]

    @property
    def total_rows(self) -> int:
        return sum(self.rows.values())

    @property
    def total_differences(self) -> int:
        return sum(self.differences.values())


def rebuild(
    log: Log,
    topics: Topics,
    conninfo: str,
    *,
    apply: Apply = apply,
    max_accounts: int = 20_000,
    progress: Progress = ignore,
) -> Comparison:
    """Build the views again from offset 0 and compare them with the live ones, which go on. The new build is kept unless an error ends the
    rebuild; `schema.go_live` makes it the live one, `schema.drop_build` drops it."""
    partitions = topics.require(log)
    with schema.connect(conninfo) as control:
        control.autocommit = True
        live = schema.live_build(control)
        if live is None:
            raise UsageError("there are no views to compare with: run 'aidtrail project' or 'aidtrail up' first")
        build = schema.new_build(control, partitions, "rebuild")
        with building(log, topics, conninfo, build, partitions, apply=apply, max_accounts=max_accounts) as (projection, to):
            while sum(_positions(control, live).values()) - sum(map(projection.next_offset, range(partitions))) > NEAR:
                to(_positions(control, live), progress)
            with psycopg.connect(conninfo) as snapshot:
                with _held(control, live) as cut:
                    to(cut, progress)
                    projection.settle()
                    # The snapshot of the second connection is taken while the live build waits: it sees both builds at the cut, for good.
                    snapshot.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                    snapshot.execute("SELECT 1 FROM aidtrail.live")
                return _compare(snapshot, build, live, dict(cut))


@contextmanager
def _held(control: schema.Connection, live: str) -> Iterator[dict[int, int]]:
    """The live build's positions, kept from moving while inside."""
    with control.transaction():
        yield _positions(control, live, "FOR UPDATE")


def _positions(control: schema.Connection, build: str, lock: str = "") -> dict[int, int]:
    query = sql.SQL("SELECT partition, next_offset FROM {} ORDER BY partition {}").format(
        sql.Identifier(build, "positions"), sql.SQL("FOR UPDATE") if lock else sql.SQL("")
    )
    rows: Any = control.execute(query)
    return dict(rows)


def _compare(connection: psycopg.Connection[tuple[object, ...]], build: str, live: str, cut: dict[int, int]) -> Comparison:
    rows: dict[str, int] = {}
    differences: dict[str, int] = {}
    named: dict[str, list[str]] = {}
    uncompared: list[str] = []
    live_sha256 = _kept(connection, live)
    for table, key in COMPARED.items():
        ours, theirs = sql.Identifier(build, table), sql.Identifier(live, table)
        shared = _columns(connection, build, table) & _columns(connection, live, table)
        if live_sha256 is None:
            shared.discard("rows_sha256")
        uncompared += sorted(f"{table}.{column}" for column in COLUMNS[table].keys() - shared)
        (count,) = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(ours)).fetchone() or (0,)
        names = sql.SQL(", ").join(map(sql.Identifier, key))
        query = sql.SQL(
            "SELECT {names} FROM {ours} AS ours FULL JOIN {theirs} AS theirs USING ({names})"
            " WHERE ({of_ours}) IS DISTINCT FROM ({of_theirs}) ORDER BY {names}"
        ).format(names=names, ours=ours, theirs=theirs, of_ours=_of("ours", shared), of_theirs=_of("theirs", shared))
        keys = connection.execute(query).fetchall()
        rows[table] = int(str(count))
        differences[table] = len(keys)
        named[table] = ["/".join(map(str, values)) for values in keys[:MAX_NAMED]]
    return Comparison(build, live, cut, rows, differences, named, cuts.of_build(connection, build).sha256, live_sha256, uncompared)


def _of(side: str, columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(side, column) for column in sorted(columns))


def _columns(connection: schema.Connection, build: str, table: str) -> set[str]:
    query = "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
    return {str(name) for (name,) in connection.execute(query, (build, table))}


def _kept(connection: schema.Connection, build: str) -> bytes | None:
    try:
        return cuts.of_build(connection, build).sha256
    except UsageError:
        return None
