"""The log: topics of partitions of records, append-only, ordered by offset. Three backends keep the same promises.

`kafka` (Apache Kafka through kafka-python), `postgres` (one table; the embedded default) and `memory` (tests and simulation) stand under
one suite of promises: tests/test_log.py. Only `cli` and `embedded` choose a backend; everything else takes a `Log`.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from aidtrail.errors import UnavailableError

FETCH_BYTES = 8 << 20
"""Of a backlog, a fetch brings so much of one partition, not a share of it of each: what is read in a row then concerns few donations.
It also bounds the memory that a poll takes, whatever the size of its records."""
READ_SECONDS = 0.2
"""How long `up_to` waits for records at a time: a reader does not tell that it has come to the end while it waits for more."""


class Record(Protocol):
    """One record of a log, as kafka-python's ConsumerRecord names its parts."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Append time by the log's own clock, milliseconds since 1970 UTC. May step back between records (a leader change)."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Empty but for a trace (`tracing`) and the signature of a manifest (`audit.checkpoints`): each costs every reader time, and none
        is needed to read the value."""


class Draft(NamedTuple):
    """A record to append. The caller chooses the partition: `partition_of(key, log.partitions(topic))`."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


class Appended(NamedTuple):
    """Where a draft came to stand: its offset, and its append time in milliseconds since 1970 UTC."""

    offset: int
    timestamp: int


class Appender(Protocol):
    """Appends records. One thread at a time; not shared between threads."""

    def append(self, drafts: Sequence[Draft]) -> list[Appended]:
        """Append all drafts and wait until the log has acknowledged every one; the answer is in the drafts' order.

        Drafts for one partition stand there in the order given, without others of this appender between them; other writers' records may
        stand between. Raises AppendUnknownError when any is not acknowledged in time: some, all or none may be in the log; and
        UnavailableError when this principal may not append: none is. After either, this appender must be closed. The number of records in
        flight is bounded by the length of `drafts`.
        """

    def close(self) -> None:
        """Free all resources. Never raises, never waits longer than a few seconds."""


class Reader(Protocol):
    """Reads the partitions it was given, each in offset order from where it was told. Offsets may have gaps; nothing is read twice
    unless `assign` says so. Never commits, never joins a group."""

    def assign(self, next_offsets: Mapping[int, int]) -> None:
        """Read exactly these partitions from these offsets on; replaces what was assigned before. Requires 0 <= offset <= end."""

    def poll(self, max_records: int, timeout_seconds: float) -> dict[int, list[Record]]:
        """Up to `max_records` records by partition, fewer if large (FETCH_BYTES), waiting at most `timeout_seconds` for the first.
        Empty when there are none or while the log cannot be reached: an outage is ridden out, not raised. Raises UnavailableError when
        reading is refused for good (no rights, an offset that is no longer in the log)."""

    def positions(self) -> dict[int, int]:
        """For each partition assigned the next offset to be read: past the last record that `poll` returned, and past offsets after it that
        are known to hold no record (a transaction's marker, which is never returned). So this reaches the end, and the last record's offset
        need not. Raises UnavailableError when it cannot be told."""

    def end_offsets(self) -> dict[int, int]:
        """As that of `Log`, for the partitions assigned, over this reader's own connection: one question where that asks several. Raises
        UnavailableError when there is no answer."""

    def close(self) -> None: ...


class Membership(Protocol):
    """This process's share of a topic's partitions, divided among all live members of a group. A hint, never a lock: for a moment two
    members may own one partition, so every effect is guarded by a fence or an expected offset."""

    def owned(self) -> frozenset[int]:
        """The partitions owned now. Call it in every turn of the service's loop: it also keeps the membership alive. During an outage
        it answers what was last known, or nothing where an outage ends the membership (postgres)."""

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        """Publish progress for lag tools. Best effort: never raises, and nothing may rest on it."""

    def close(self) -> None:
        """Leave the group at once, so that others take over without waiting for a time-out."""


class Log(Protocol):
    """Where events are kept. Opening one raises UnavailableError with one clear line when it cannot be reached or lets nobody in."""

    def create_topic(self, topic: str, partitions: int) -> bool:
        """Create a topic with the settings of the contract; False when it is there already (its settings are then checked)."""

    def check_topic(self, topic: str) -> list[str]:
        """What differs from the required settings, one line each: expected, found, and what to do. Empty when all is well."""

    def partitions(self, topic: str) -> int:
        """The number of partitions. Raises UnavailableError when there is no such topic ('run aidtrail topics create')."""

    def end_offsets(self, topic: str) -> dict[int, int]:
        """For every partition the offset that the next record will get (or higher, never lower)."""

    def last_append(self, topic: str) -> int:
        """The latest append time of all partitions, in milliseconds since 1970 UTC, by the log's clock; 0 where there is no record."""

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """For every partition that has one, the next offset last published by `Membership.commit` of that group."""

    def operations(self, topic: str) -> frozenset[str]:
        """What this principal may do with a topic, in Kafka's words: READ, WRITE, DELETE, ALTER, ALTER_CONFIGS... Raises UnavailableError
        when there is no such topic, or when he may not even know."""

    def appender(self) -> Appender: ...

    def reader(self, topic: str, *, follows: bool = True) -> Reader:
        """Who reads up to a known end says `follows=False`: the log need not hold back its answer until there is more."""

    def join(self, group: str, topic: str) -> Membership: ...

    def close(self) -> None: ...


def up_to(reader: Reader, topic: str, partition: int, end: int, *, max_records: int, patience_seconds: float) -> Iterator[list[Record]]:
    """The records of a partition, batch by batch, from where the reader stands until its position has reached `end`; the last batch may go
    beyond. Requires that nothing else is assigned.

    Raises UnavailableError when the position does not advance for so long.
    """
    at = reader.positions()[partition]
    deadline = time.monotonic() + patience_seconds
    while at < end:
        batch = reader.poll(max_records, min(READ_SECONDS, patience_seconds)).get(partition, [])
        before, at = at, reader.positions()[partition]
        if at > before:
            deadline = time.monotonic() + patience_seconds
        elif time.monotonic() > deadline:
            raise UnavailableError(
                f"{topic} partition {partition} could not be read from offset {at} to its end {end}; check the broker and the rights"
            )
        if batch:
            yield batch


@lru_cache(20_000)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: murmur2 as Kafka's JVM clients compute it, so that every client in every language agrees.

    What was computed is kept, since readers ask it of each entry: requires a key no longer than a donation id may be."""
    from kafka.partitioner.default import murmur2

    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
