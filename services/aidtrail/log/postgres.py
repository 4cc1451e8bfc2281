"""The log in PostgreSQL: the embedded default, and enough for a society that runs no Kafka. One table, offsets without gaps.

An append locks the rows of its partitions until it commits, so that records become visible in the order of their offsets, and a reader
never sees a later one before an earlier one. Members of a group divide partitions by advisory locks, which a dead process loses by itself.
"""

import logging
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import psycopg

from aidtrail.connections import CONNECTION
from aidtrail.errors import AppendUnknownError, UnavailableError
from aidtrail.log import FETCH_BYTES, Appended, Draft, Record

logger = logging.getLogger(__name__)

CHANNEL = "aidtrail_log"
REREAD_SECONDS = 0.5
"""How long a reader rests on notifications before it looks by itself."""
OWNED_SECONDS = 0.5
"""How often a member looks for partitions to take or to give up."""

Connection = psycopg.Connection[tuple[Any, ...]]

_ALONE = "SELECT pg_advisory_xact_lock(hashtext('aidtrail.log'))"

_TABLES = """
CREATE SCHEMA IF NOT EXISTS log;
CREATE TABLE IF NOT EXISTS log.partitions (
    topic          text NOT NULL,
    partition      integer NOT NULL,
    next_offset    bigint NOT NULL DEFAULT 0,
    last_timestamp bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, partition)
);
CREATE TABLE IF NOT EXISTS log.records (
    topic          text NOT NULL,
    partition      integer NOT NULL,
    "offset"       bigint NOT NULL,
    appended_at_ms bigint NOT NULL,
    key            bytea,
    value          bytea,
    headers        text[],
    PRIMARY KEY (topic, partition, "offset")
);
CREATE TABLE IF NOT EXISTS log.committed (
    "group"     text NOT NULL,
    topic       text NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY ("group", topic, partition)
);
"""

_COPY = 'COPY log.records (topic, partition, "offset", appended_at_ms, key, value, headers) FROM STDIN (FORMAT binary)'

_HAS_HEADERS = """
SELECT 1 FROM information_schema.columns WHERE table_schema = 'log' AND table_name = 'records' AND column_name = 'headers'
"""


# Records until one of them has reached so many bytes: that one is the last. Lengths are known without reading the values.
_READ = """
SELECT "offset", appended_at_ms, key, value, headers FROM (
    SELECT *, sum(octet_length(value)) OVER (ORDER BY "offset" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before FROM (
        SELECT * FROM log.records WHERE topic = %s AND partition = %s AND "offset" >= %s ORDER BY "offset" LIMIT %s
    ) AS next_records
) AS measured WHERE coalesce(bytes_before, 0) < %s ORDER BY "offset"
"""


class PostgresRecord(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


class PostgresLog:
    """The log in the database that `conninfo` names. Creates its tables when they are not there."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection = _connect(conninfo)
        with _outages(), self._connection.transaction():
            self._connection.execute(_ALONE)  # CREATE IF NOT EXISTS fails when two do it at once
            self._connection.execute(_TABLES)
            if self._connection.execute(_HAS_HEADERS).fetchone() is None:  # a log from before there were any
                self._connection.execute("ALTER TABLE log.records ADD COLUMN headers text[]")

    def create_topic(self, topic: str, partitions: int) -> bool:
        with _outages(), self._connected().transaction():
            self._connection.execute(_ALONE)
            found = self._count(topic)
            if found == 0:
                query = "INSERT INTO log.partitions (topic, partition) SELECT %s, generate_series(0, %s)"
                self._connection.execute(query, (topic, partitions - 1))
        if found not in (0, partitions):
            raise UnavailableError(f"{topic}: expected {partitions} partitions, found {found}; use that number")
        return found == 0

    def check_topic(self, topic: str) -> list[str]:
        with _outages():
            return [] if self._count(topic) else [_no_topic(topic)]

    def partitions(self, topic: str) -> int:
        with _outages():
            found = self._count(topic)
        if not found:
            raise UnavailableError(_no_topic(topic))
        return found

    def end_offsets(self, topic: str) -> dict[int, int]:
        query = "SELECT partition, next_offset FROM log.partitions WHERE topic = %s ORDER BY partition"
        with _outages():
            found = self._connected().execute(query, (topic,)).fetchall()
        if not found:
            raise UnavailableError(_no_topic(topic))
        return dict(found)

    def last_append(self, topic: str) -> int:
        with _outages():
            row = self._connected().execute("SELECT max(last_timestamp) FROM log.partitions WHERE topic = %s", (topic,)).fetchone()
        if row is None or row[0] is None:
            raise UnavailableError(_no_topic(topic))
        return int(row[0])

    def committed(self, group: str, topic: str) -> dict[int, int]:
        query = 'SELECT partition, next_offset FROM log.committed WHERE "group" = %s AND topic = %s'
        with _outages():
            return dict(self._connected().execute(query, (group, topic)).fetchall())

    def operations(self, topic: str) -> frozenset[str]:
        self.partitions(topic)
        query = "SELECT has_table_privilege('log.records', 'SELECT'), has_table_privilege('log.records', 'INSERT')"
        with _outages():
            row = self._connected().execute(query).fetchone()
        assert row is not None
        return frozenset(word for word, has in zip(("READ", "WRITE"), row, strict=True) if has)

    def appender(self) -> "PostgresAppender":
        return PostgresAppender(self._conninfo)

    def reader(self, topic: str, *, follows: bool = True) -> "PostgresReader":
        self.partitions(topic)
        return PostgresReader(self._conninfo, topic)

    def join(self, group: str, topic: str) -> "PostgresMembership":
        return PostgresMembership(self._conninfo, group, topic, self.partitions(topic))

    def close(self) -> None:
        self._connection.close()

    def _count(self, topic: str) -> int:
        row = self._connected().execute("SELECT count(*) FROM log.partitions WHERE topic = %s", (topic,)).fetchone()
        return 0 if row is None else int(row[0])

    def _connected(self) -> Connection:
        """The connection, or another one when it was lost."""
        if self._connection.closed:
            self._connection = _connect(self._conninfo)
        return self._connection


class PostgresAppender:
    """One connection; each append is one transaction."""

    def __init__(self, conninfo: str) -> None:
        self._connection = _connect(conninfo)
        self._usable = True

    def append(self, drafts: Sequence[Draft]) -> list[Appended]:
        if not self._usable:
            raise AppendUnknownError("an earlier append of this appender is unknown: close it, read the log's tail and open another")
        if not drafts:
            return []
        self._usable = False
        try:
            with self._connection.transaction():
                appended = self._append(drafts)
        except psycopg.Error as error:
            raise AppendUnknownError(f"{len(drafts)} records were not acknowledged: {_line(error)}") from error
        self._usable = True
        return appended

    def close(self) -> None:
        self._usable = False
        self._connection.close()

    def _append(self, drafts: Sequence[Draft]) -> list[Appended]:
        next_offsets: dict[tuple[str, int], int] = {}
        timestamps: dict[tuple[str, int], int] = {}
        counts = Counter((draft.topic, draft.partition) for draft in drafts)
        for place in sorted(counts):  # in one order everywhere, so that appenders wait for one another and never in a ring
            row = self._connection.execute(
                "UPDATE log.partitions SET next_offset = next_offset + %s,"
                " last_timestamp = greatest(last_timestamp, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)"
                " WHERE topic = %s AND partition = %s RETURNING next_offset, last_timestamp",
                (counts[place], *place),
            ).fetchone()
            if row is None:
                raise psycopg.DataError(f"{place[0]} has no partition {place[1]}")
            next_offsets[place], timestamps[place] = row[0] - counts[place], row[1]
        appended = []
        with (
            self._connection.cursor() as cursor,
            cursor.copy(_COPY) as copy,
        ):
            copy.set_types(["text", "int4", "int8", "int8", "bytea", "bytea", "text[]"])
            for draft in drafts:
                place = (draft.topic, draft.partition)
                copy.write_row((*place, next_offsets[place], timestamps[place], draft.key, draft.value, _flat(draft.headers)))
                appended.append(Appended(next_offsets[place], timestamps[place]))
                next_offsets[place] += 1
        for topic in {draft.topic for draft in drafts}:
            self._connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, topic))
        return appended


class PostgresReader:
    """Reads what is committed. Connects again by itself after an outage."""

    def __init__(self, conninfo: str, topic: str) -> None:
        self._conninfo = conninfo
        self._topic = topic
        self._next_offsets: dict[int, int] = {}
        self._connection: Connection | None = None
        self._connect()

    def assign(self, next_offsets: Mapping[int, int]) -> None:
        self._next_offsets = dict(next_offsets)

    def poll(self, max_records: int, timeout_seconds: float) -> dict[int, list[Record]]:
        deadline = time.monotonic() + timeout_seconds
        self._wait(0)  # forget what was notified while records were read: what it tells of is read now
        while True:
            try:
                if self._connection is None:
                    self._connect()
                batches = self._read(max_records)
            except (psycopg.OperationalError, psycopg.InterfaceError, UnavailableError) as error:
                logger.debug("%s cannot be read: %s", self._topic, error)
                self._drop()
                batches = {}
            except psycopg.Error as error:  # no rights, no such table: waiting does not help
                raise UnavailableError(f"{self._topic} cannot be read: {_line(error)}") from None
            left = deadline - time.monotonic()
            if batches or left <= 0:
                return batches
            self._wait(min(left, REREAD_SECONDS))

    def positions(self) -> dict[int, int]:
        return dict(self._next_offsets)

    def end_offsets(self) -> dict[int, int]:
        query = "SELECT partition, next_offset FROM log.partitions WHERE topic = %s AND partition = ANY(%s) ORDER BY partition"
        if self._connection is None:
            self._connect()
        assert self._connection is not None
        try:
            with _outages():
                return dict(self._connection.execute(query, (self._topic, list(self._next_offsets))).fetchall())
        except UnavailableError:
            self._drop()
            raise

    def close(self) -> None:
        self._drop()

    def _read(self, max_records: int) -> dict[int, list[Record]]:
        assert self._connection is not None
        batches: dict[int, list[Record]] = {}
        left_bytes = FETCH_BYTES
        for partition, offset in list(self._next_offsets.items()):
            if max_records <= 0 or left_bytes <= 0:
                break
            rows = self._connection.execute(_READ, (self._topic, partition, offset, max_records, left_bytes), binary=True).fetchall()
            if rows:
                left_bytes -= sum(len(row[3] or b"") for row in rows)
                batches[partition] = [
                    PostgresRecord(self._topic, partition, at, timestamp, key, value, _pairs(flat))
                    for at, timestamp, key, value, flat in rows
                ]
                max_records -= len(rows)
        for partition, records in batches.items():
            # Asked last the next time, so that a busy partition does not keep others waiting.
            del self._next_offsets[partition]
            self._next_offsets[partition] = records[-1].offset + 1
        return batches

    def _wait(self, seconds: float) -> None:
        """Until a notification comes, or this long; not at all when one came since the last read."""
        if self._connection is None:
            time.sleep(seconds)
            return
        with suppress(psycopg.OperationalError, psycopg.InterfaceError):
            for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                pass

    def _connect(self) -> None:
        self._connection = _connect(self._conninfo)
        with _outages():
            self._connection.execute(f"LISTEN {CHANNEL}")

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class PostgresMembership:
    """Each member holds one lock by which the others count it, and one for each partition it owns. During an outage it owns nothing: its
    locks are gone with its connection."""

    def __init__(self, conninfo: str, group: str, topic: str, partitions: int) -> None:
        self._conninfo = conninfo
        self._group = group
        self._topic = topic
        self._partitions = partitions
        # Advisory locks are pairs of 32-bit numbers: the first says which group of members or of partitions, the second which of them.
        self._members_space = _number(f"{group}/{topic}/members")
        self._partitions_space = _number(f"{group}/{topic}/partitions")
        self._owned: frozenset[int] = frozenset()
        self._looked_at = 0.0
        self._connection: Connection | None = None
        self._enter()

    def owned(self) -> frozenset[int]:
        if time.monotonic() - self._looked_at >= OWNED_SECONDS:
            self._looked_at = time.monotonic()
            try:
                if self._connection is None:
                    self._enter()
                self._look()
            except (psycopg.OperationalError, psycopg.InterfaceError, UnavailableError):
                self._leave()
        return self._owned

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        query = (
            'INSERT INTO log.committed ("group", topic, partition, next_offset) VALUES (%s, %s, %s, %s)'
            ' ON CONFLICT ("group", topic, partition) DO UPDATE SET next_offset = EXCLUDED.next_offset'
        )
        if self._connection is not None:
            with suppress(psycopg.Error), self._connection.cursor() as cursor:
                cursor.executemany(query, [(self._group, self._topic, partition, end) for partition, end in sorted(next_offsets.items())])

    def close(self) -> None:
        self._leave()

    def _enter(self) -> None:
        self._connection = _connect(self._conninfo)
        place = 0
        while not self._lock(self._members_space, place):
            place += 1

    def _leave(self) -> None:
        self._owned = frozenset()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _look(self) -> None:
        """Give up what is above the fair share, and take what is free up to it."""
        assert self._connection is not None
        row = self._connection.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s::bigint::oid AND objsubid = 2 AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            (self._members_space & 0xFFFFFFFF,),
        ).fetchone()
        members = max(1, int(row[0]) if row else 1)
        share = -(-self._partitions // members)
        owned = sorted(self._owned)
        for partition in owned[share:]:
            self._connection.execute("SELECT pg_advisory_unlock(%s, %s)", (self._partitions_space, partition))
        owned = owned[:share]
        for partition in range(self._partitions):
            if len(owned) >= share:
                break
            if partition not in owned and self._lock(self._partitions_space, partition):
                owned.append(partition)
        self._owned = frozenset(owned)

    def _lock(self, space: int, number: int) -> bool:
        assert self._connection is not None
        row = self._connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (space, number)).fetchone()
        return row is not None and bool(row[0])


def _connect(conninfo: str) -> Connection:
    try:
        return psycopg.connect(conninfo, autocommit=True, **CONNECTION)
    except psycopg.OperationalError as error:
        raise UnavailableError(f"PostgreSQL cannot be reached: {_line(error)}. Check AIDTRAIL_LOG, and that the server is up.") from None


@contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise UnavailableError(f"PostgreSQL cannot be reached or refuses: {_line(error)}. Check AIDTRAIL_LOG, and the rights.") from error


def _line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())


def _number(name: str) -> int:
    """A signed 32-bit number for a name."""
    return zlib.crc32(name.encode()) - 2**31


def _no_topic(topic: str) -> str:
    return f"{topic}: there is no such topic; run 'aidtrail topics create'"


def _flat(headers: Sequence[tuple[str, bytes]]) -> list[str] | None:
    return [text for name, value in headers for text in (name, value.decode("latin-1"))] if headers else None


def _pairs(flat: list[str] | None) -> Sequence[tuple[str, bytes]]:
    return [(name, value.encode("latin-1")) for name, value in zip(flat[::2], flat[1::2], strict=True)] if flat else ()
