"""Writes a batch of folded entries and the position after it to one build, in one transaction, or nothing.

Entries and refusals are new by construction; the status of donations replaces what was there. A few rows go in one by one, in one message
to the server. Many go by binary COPY: what replaces into temporary tables first, and from there by one upsert each. That is quicker from
some FEW rows on, and slow below: to empty a temporary table at the commit takes longer than to write one row.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, LiteralString, NamedTuple, cast

import psycopg
from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.postgres import types
from psycopg.pq import Format

from aidtrail import codec
from aidtrail.chain import Head, Tail
from aidtrail.domain.events import Event
from aidtrail.errors import FenceLostError
from aidtrail.views import digest, schema

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "entries": {
        "partition": "int4", "offset": "int8", "outcome": "text", "donation_id": "text", "version": "int8", "event_type": "text",
        "event_id": "uuid", "actor_id": "text", "party_id": "text", "role": "text", "occurred_on": "timestamptz",
        "recorded_at": "timestamptz", "submitted_offset": "int8", "void_reason": "text", "sha256": "bytea", "value": "bytea",
    },
    "refusals": {
        "partition": "int4", "offset": "int8", "donation_id": "text", "recorded_at": "timestamptz", "event_id": "uuid",
        "event_type": "text", "reason": "text", "expected": "text", "found": "text", "submission_sha256": "bytea",
    },
    "donations": {
        "donation_id": "text", "partition": "int4", "version": "int8", "head_sha256": "bytea", "oversight": "text", "contribution": "text",
        "donor": "text", "beneficiary": "text", "parties": "text[]", "legs": "text[]", "mechanisms": "text[]", "terms_sha256": "bytea",
        "purpose": "text", "headline": "text", "pledge": "text", "approval": "text", "disbursement": "text", "receipt": "text",
        "announced_on": "timestamptz", "changed_at": "timestamptz", "next_deadline": "timestamptz", "rows_sha256": "bytea",
    },
    "amounts": {
        "donation_id": "text", "currency": "text", "pledged": "numeric", "approved": "numeric", "in_flight": "numeric",
        "settled": "numeric", "returned": "numeric", "passed_on": "numeric", "held": "numeric", "received": "numeric",
        "acknowledged": "numeric", "utilised": "numeric",
    },
    "approvals": {
        "donation_id": "text", "approval_id": "text", "mechanism_id": "text", "state": "text", "legs": "text[]", "requested": "jsonb",
        "granted": "jsonb", "requested_by": "text", "requested_for": "text", "requested_on": "timestamptz", "approvals_required": "int4",
        "approvals": "int4", "deciders": "text[]", "valid_until": "timestamptz",
    },
    "parked": {"donation_id": "text", "partition": "int4", "offset": "int8", "error": "text"},
}  # fmt: skip
KEYS = {
    "donations": ("donation_id",),
    "amounts": ("donation_id", "currency"),
    "approvals": ("donation_id", "approval_id"),
    "parked": ("donation_id",),
}
"""The tables that are written by upsert, and their primary keys."""

FEW = 20
"""Rows of one table and batch, up to which each is a statement. Measured: one takes a quarter of the time of COPY, 20 take the same."""

Row = tuple[object, ...]


class Claim(NamedTuple):
    """A partition's position in a build, and the fence that this writer holds it with. `rows_sum` is the digest of its status rows
    (`digest`), None where it is not kept."""

    next_offset: int
    tail: Tail
    fence: int
    rows_sum: int | None


@dataclass(slots=True)
class Batch:
    """The rows to write by table, and for each partition the claim they rest on and the position after them."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {table: [] for table in COLUMNS})
    moves: dict[int, tuple[Claim, Claim]] = field(default_factory=dict)


class Stored(NamedTuple):
    """What a build holds of a donation: its admitted events in order with their offsets, its head, whether it is parked, and the digest of
    its status rows."""

    events: list[tuple[int, Event]]
    head: Head
    parked: bool = False
    rows_sha256: bytes | None = None


class Writer:
    """Writes to one build. All methods raise UnavailableError when the database goes away and FenceLostError when the build does; the
    writer must then be closed. `load` and `parked` may be called while another thread is in `write`.

    `follows_live` makes every write check that the build is still the live one.
    """

    def __init__(self, conninfo: str, build: str, *, follows_live: bool = False) -> None:
        self.build = build
        self._follows_live = follows_live
        self._connection = schema.connect(conninfo)
        self._connection.autocommit = True
        # A second connection to load from, so that loading need not wait for the batch that is being written.
        self._loading = schema.connect(conninfo)
        self._loading.autocommit = True
        # A commit that a crash of the server loses is read from the log again, since the position is lost with it.
        self._connection.execute("SET synchronous_commit TO off")
        for connection in (self._connection, self._loading):
            connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(build)))
        _remember(self._connection, types["numeric"].oid, Decimal, Decimal)
        _remember(self._connection, types["text"].array_oid, list, tuple)
        for table in KEYS:
            name = sql.Identifier(table), sql.Identifier(f"new_{table}")
            self._connection.execute(sql.SQL("CREATE TEMPORARY TABLE {1} (LIKE {0}) ON COMMIT DELETE ROWS").format(*name))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is done inside; may be nested."""
        with self._reaching(), self._connection.transaction():
            yield

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """A build that was dropped while nobody wrote to it is held by its writer no more."""
        try:
            with schema.outages():
                yield
        except psycopg.errors.UndefinedTable as error:
            raise FenceLostError(f"{self.build} is no longer there") from error

    def claim(self, partition: int) -> Claim:
        """Take a partition over: from now on every other writer's batch for it is rolled back."""
        with self.transaction():
            row = self._connection.execute(
                "UPDATE positions SET fence = fence + 1 WHERE partition = %s"
                " RETURNING next_offset, last_submitted_offset, last_outcome_sha256, fence, rows_sum",
                (partition,),
            ).fetchone()
        assert row is not None, f"{self.build} has no position for partition {partition}"
        next_offset, submitted_offset, sha256, fence, rows_sum = cast(tuple[int, int, bytes, int, bytes | None], row)
        kept = None if rows_sum is None else int.from_bytes(rows_sum, "big")
        return Claim(next_offset, Tail(submitted_offset, sha256), fence, kept)

    def load(self, donation_ids: Sequence[str]) -> dict[str, Stored]:
        """What the build holds of these donations; those that it does not know are absent."""
        found: dict[str, Stored] = {}
        with self._reaching():
            rows = self._loading.execute(
                "SELECT donation_id, \"offset\", version, sha256, value FROM entries WHERE donation_id = ANY(%s) AND outcome = 'admitted'"
                ' ORDER BY donation_id, partition, "offset"',
                (donation_ids,),
                binary=True,
            )
            for donation_id, offset, version, sha256, value in cast(Iterable[tuple[str, int, int, bytes, bytes]], rows):
                event, _ = codec.read_recorded(value)
                assert isinstance(event, Event)
                events = found[donation_id].events if donation_id in found else []
                events.append((offset, event))
                found[donation_id] = Stored(events, Head(version, sha256))
            if found:
                query = "SELECT donation_id, rows_sha256 FROM donations WHERE donation_id = ANY(%s)"
                for donation_id, sha256 in cast(Iterable[tuple[str, bytes]], self._loading.execute(query, (list(found),), binary=True)):
                    found[donation_id] = found[donation_id]._replace(rows_sha256=sha256)
            for donation_id in self.parked(donation_ids):
                found[donation_id] = found[donation_id]._replace(parked=True)
        return found

    def parked(self, donation_ids: Sequence[str] | None = None) -> dict[str, int]:
        """The partition of each parked donation; of all, or of those given."""
        query = "SELECT donation_id, partition FROM parked WHERE %(ids)s::text[] IS NULL OR donation_id = ANY(%(ids)s) ORDER BY 1"
        with self._reaching():
            return dict(cast(Iterable[tuple[str, int]], self._loading.execute(query, {"ids": donation_ids})))

    def unpark(self, donation_id: str) -> None:
        with self.transaction():
            self._connection.execute("DELETE FROM parked WHERE donation_id = %s", (donation_id,))

    def write(self, batch: Batch) -> None:
        """Write the batch and move its positions.

        Raises FenceLostError, having written nothing, when a position is not what a claim says or another build has gone live.
        """
        with self.transaction(), self._connection.cursor() as cursor:
            self.require_live()
            _move(cursor, batch.moves)
            for table, rows in batch.rows.items():
                if rows:
                    _put(cursor, table, rows)
            if self._follows_live:
                cursor.execute(_NOTIFY)

    def require_live(self) -> None:
        """Raises FenceLostError when another build has gone live. Not while another thread is in `write`."""
        with self._reaching():
            if self._follows_live and schema.live_build(self._connection) != self.build:
                raise FenceLostError(f"{self.build} is no longer the live build")

    def close(self) -> None:
        self._connection.close()
        self._loading.close()


def _move(cursor: psycopg.Cursor[tuple[object, ...]], moves: Mapping[int, tuple[Claim, Claim]]) -> None:
    """Move positions, guarded by fence and by where they stand: the row lock makes other writers wait, the guard then makes them fail."""
    for partition, (old, new) in sorted(moves.items()):
        rows_sum = None if new.rows_sum is None else digest.to_bytes(new.rows_sum)
        cursor.execute(
            "UPDATE positions SET next_offset = %s, last_submitted_offset = %s, last_outcome_sha256 = %s, rows_sum = %b"
            " WHERE partition = %s AND fence = %s AND next_offset = %s",
            (new.next_offset, *new.tail, rows_sum, partition, old.fence, old.next_offset),
        )
        if cursor.rowcount != 1:
            raise FenceLostError(f"partition {partition}: expected fence {old.fence} at offset {old.next_offset}, found another writer's")


def _put(cursor: psycopg.Cursor[tuple[object, ...]], table: str, rows: Sequence[Row]) -> None:
    if len(rows) <= FEW:
        cursor.executemany(_INSERTS[table], rows)
    elif table in KEYS:
        _copy(cursor, f"new_{table}", table, rows)
        cursor.execute(_UPSERTS[table])
    else:
        _copy(cursor, table, table, rows)


def _copy(cursor: psycopg.Cursor[tuple[object, ...]], into: str, table: str, rows: Sequence[Row]) -> None:
    columns = COLUMNS[table]
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(sql.Identifier(into), names)) as copy:
        copy.set_types(list(columns.values()))
        for row in rows:
            copy.write_row(row)


def _remember(connection: psycopg.Connection[tuple[object, ...]], oid: int, kind: type[Any], key: Callable[[Any], Hashable]) -> None:
    """Let this connection keep the bytes of values that recur in status rows, as amounts and lists of parties do: psycopg takes a third of
    a row's time to write them out anew. `key` tells them apart: 1.0 and 1.00 are one number in a column of four digits."""
    dumper = connection.adapters.get_dumper_by_oid(oid, Format.BINARY)(kind, connection)
    known: dict[Hashable, bytes] = {}

    class Remembering(Dumper):
        format = Format.BINARY

        def dump(self, obj: Any) -> bytes:
            found = known.get(key(obj))
            if found is None:
                if len(known) == 10_000:
                    known.clear()
                found = known[key(obj)] = bytes(dumper.dump(obj) or b"")
            return found

    Remembering.oid = oid
    connection.adapters.register_dumper(kind, Remembering)


def _insert(table: str, source: LiteralString) -> sql.Composed:
    """Insert the rows of `source`; where the table has keys, in place of what is there under them."""
    columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS[table]))
    values = sql.SQL(", ").join([sql.SQL("%b")] * len(COLUMNS[table]))
    rows = sql.SQL(source).format(columns=columns, values=values, copied=sql.Identifier(f"new_{table}"))
    insert = sql.SQL("INSERT INTO {} ({}) {}").format(sql.Identifier(table), columns, rows)
    if table not in KEYS:
        return insert
    keys = sql.SQL(", ").join(map(sql.Identifier, KEYS[table]))
    others = [sql.Identifier(column) for column in COLUMNS[table] if column not in KEYS[table]]
    changes = sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(column) for column in others)
    return insert + sql.SQL(" ON CONFLICT ({}) DO UPDATE SET {}").format(keys, changes)


_INSERTS = {table: _insert(table, "VALUES ({values})") for table in COLUMNS}
_UPSERTS = {table: _insert(table, "SELECT {columns} FROM {copied}") for table in KEYS}
_NOTIFY = sql.SQL("NOTIFY {}").format(sql.Identifier(schema.WRITTEN))
