"""Rebuild: project the log again, from offset 0, into a build beside the live one, and compare the two row by row at the same cut.

Proves that the live views equal the fold of the log under the code of today. It does not prove that the log is what was once written to it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from aidtrail.audit import cuts
from aidtrail.domain.fold import apply
from aidtrail.errors import UnavailableError, UsageError
from aidtrail.log import Log
from aidtrail.projection import MAX_BATCH, Apply, Projection
from aidtrail.service import young_garbage_only
from aidtrail.topics import Topics
from aidtrail.views import schema
from aidtrail.views.writer import COLUMNS, KEYS, Writer

POLL_SECONDS = 30.0
NEAR = 10_000
"""Records behind the live build at which the live build is made to wait for a moment, so that both stand at one cut."""
MAX_NAMED = 20

Cut = Mapping[int, int]
"""For each partition of `recorded` the next offset: all records before it are in."""

COMPARED = {table: KEYS.get(table, ("partition", "offset")) for table in COLUMNS}
"""The tables that are compared, with the columns that name a row."""


@dataclass(frozen=True)
class Comparison:
    """What was compared at `cut`: rows of each table in both builds, and the keys of rows that differ (at most MAX_NAMED a table). The
    digests (`audit.cuts`) are equal where nothing differs; `live_sha256` is None where the live build keeps none."""

    build: str
    live: str
    cut: dict[int, int]
    rows: dict[str, int]
    differences: dict[str, int]
    named: dict[str, list[str]]
    sha256: bytes
    live_sha256: bytes | None

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
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Build the views again from offset 0 and compare them with the live ones, which go on. `progress` is called with the entries done and
    the entries there are. The new build is kept; `schema.go_live` makes it the live one, `schema.drop_build` drops it."""
    partitions = topics.require(log)
    with schema.connect(conninfo) as control:
        control.autocommit = True
        live = schema.live_build(control)
        if live is None:
            raise UsageError("there are no views to compare with: run 'aidtrail project' or 'aidtrail up' first")
        build = schema.new_build(control, partitions, "rebuild")
        projection = Projection(Writer(conninfo, build), partitions, apply=apply, max_accounts=max_accounts)
        reader = log.reader(topics.recorded)
        try:
            positions = {partition: projection.claim(partition) for partition in range(partitions)}

            def advance(cut: Cut, collect: Callable[[], None] = lambda: None) -> None:
                total = sum(cut.values())
                while behind := {partition: end for partition, end in cut.items() if positions[partition] < end}:
                    reader.assign({partition: positions[partition] for partition in behind})
                    while any(positions[partition] < end for partition, end in behind.items()):
                        records = reader.poll(MAX_BATCH, POLL_SECONDS)
                        within = {p: [record for record in batch if record.offset < cut[p]] for p, batch in records.items()}
                        within = {partition: batch for partition, batch in within.items() if batch}
                        if not records:
                            raise UnavailableError(f"{topics.recorded} could not be read up to the cut; is the broker up?")
                        if within:
                            projection.project(within)
                            positions.update({partition: projection.next_offset(partition) for partition in within})
                            collect()
                            progress(min(sum(positions.values()), total), total)

            with young_garbage_only() as collect:
                while _entries_between(positions, _positions(control, live)) > NEAR:
                    advance(_positions(control, live), collect)
            with psycopg.connect(conninfo) as snapshot:
                with _held(control, live) as cut:
                    advance(cut)
                    projection.settle()
                    # The snapshot of the second connection is taken while the live build waits: it sees both builds at the cut, for good.
                    snapshot.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                    snapshot.execute("SELECT 1 FROM aidtrail.live")
                return _compare(snapshot, build, live, dict(cut))
        finally:
            reader.close()
            projection.close()


@contextmanager
def _held(control: schema.Connection, live: str) -> Iterator[Cut]:
    """The live build's positions, kept from moving while inside."""
    with control.transaction():
        yield _positions(control, live, "FOR UPDATE")


def _positions(control: schema.Connection, build: str, lock: str = "") -> dict[int, int]:
    query = sql.SQL("SELECT partition, next_offset FROM {} ORDER BY partition {}").format(
        sql.Identifier(build, "positions"), sql.SQL("FOR UPDATE") if lock else sql.SQL("")
    )
    rows: Any = control.execute(query)
    return dict(rows)


def _entries_between(positions: Cut, cut: Cut) -> int:
    return sum(cut.values()) - sum(positions.values())


def _compare(connection: psycopg.Connection[tuple[object, ...]], build: str, live: str, cut: dict[int, int]) -> Comparison:
    rows: dict[str, int] = {}
    differences: dict[str, int] = {}
    named: dict[str, list[str]] = {}
    for table, key in COMPARED.items():
        ours, theirs = sql.Identifier(build, table), sql.Identifier(live, table)
        (count,) = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(ours)).fetchone() or (0,)
        names = sql.SQL(", ").join(map(sql.Identifier, key))
        query = sql.SQL(
            "SELECT DISTINCT {names} FROM ((SELECT * FROM {ours} EXCEPT ALL SELECT * FROM {theirs})"
            " UNION ALL (SELECT * FROM {theirs} EXCEPT ALL SELECT * FROM {ours})) AS different ORDER BY {names}"
        ).format(names=names, ours=ours, theirs=theirs)
        keys = connection.execute(query).fetchall()
        rows[table] = int(str(count))
        differences[table] = len(keys)
        named[table] = ["/".join(map(str, values)) for values in keys[:MAX_NAMED]]
    return Comparison(build, live, cut, rows, differences, named, cuts.of_build(connection, build).sha256, _kept(connection, live))


def _kept(connection: schema.Connection, build: str) -> bytes | None:
    try:
        return cuts.of_build(connection, build).sha256
    except UsageError:
        return None
