"""The log in memory: for tests and simulation. Keeps the promises of the others, in one process, and can fail on demand."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Condition
from typing import Literal, NamedTuple

from aidtrail.errors import AppendUnknownError, UnavailableError
from aidtrail.log import Appended, Draft, Record


class MemoryRecord(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


def wall_clock() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


class MemoryLog:
    """A log that ends with its process. May be shared between threads.

    `clock` gives append times in milliseconds. `fail_next_append` makes the next append raise AppendUnknownError, either 'before' or
    'after' its records came to stand in the log: the appender cannot tell which.
    """

    def __init__(self, clock: Callable[[], int] = wall_clock) -> None:
        self.clock = clock
        self.fail_next_append: Literal["before", "after"] | None = None
        self._changed = Condition()
        self._topics: dict[str, list[list[Record]]] = {}
        self._members: dict[tuple[str, str], list[MemoryMembership]] = defaultdict(list)
        self._committed: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)

    def create_topic(self, topic: str, partitions: int) -> bool:
        with self._changed:
            if topic not in self._topics:
                self._topics[topic] = [[] for _ in range(partitions)]
                return True
        if self.partitions(topic) != partitions:
            raise UnavailableError(f"{topic}: expected {partitions} partitions, found {self.partitions(topic)}; use that number")
        return False

    def check_topic(self, topic: str) -> list[str]:
        return [] if topic in self._topics else [_no_topic(topic)]

    def partitions(self, topic: str) -> int:
        return len(self._of(topic))

    def end_offsets(self, topic: str) -> dict[int, int]:
        with self._changed:
            return {number: len(records) for number, records in enumerate(self._of(topic))}

    def last_append(self, topic: str) -> int:
        with self._changed:
            return max((record.timestamp for records in self._of(topic) for record in records), default=0)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        with self._changed:
            return dict(self._committed[group, topic])

    def operations(self, topic: str) -> frozenset[str]:
        self._of(topic)
        return frozenset(("READ", "WRITE"))

    def appender(self) -> "MemoryAppender":
        return MemoryAppender(self)

    def reader(self, topic: str, *, follows: bool = True) -> "MemoryReader":
        return MemoryReader(self._changed, self._of(topic))

    def join(self, group: str, topic: str) -> "MemoryMembership":
        with self._changed:
            member = MemoryMembership(
                self._changed, self._members[group, topic], self._committed[group, topic], range(self.partitions(topic))
            )
            self._members[group, topic].append(member)
            return member

    def close(self) -> None:
        pass

    def append(self, drafts: Sequence[Draft]) -> list[Appended]:
        """What `MemoryAppender.append` does, in one step under the lock."""
        with self._changed:
            failure, self.fail_next_append = self.fail_next_append, None
            if failure == "before":
                raise AppendUnknownError(f"{len(drafts)} records were not acknowledged: told to fail before the append")
            for draft in drafts:
                if not 0 <= draft.partition < len(self._of(draft.topic)):
                    raise AppendUnknownError(f"{draft.topic} has no partition {draft.partition}")
            timestamp = self.clock()
            appended = []
            for draft in drafts:
                records = self._topics[draft.topic][draft.partition]
                records.append(MemoryRecord(draft.topic, draft.partition, len(records), timestamp, draft.key, draft.value, draft.headers))
                appended.append(Appended(len(records) - 1, timestamp))
            self._changed.notify_all()
            if failure == "after":
                raise AppendUnknownError(f"{len(drafts)} records were not acknowledged: told to fail after the append")
            return appended

    def _of(self, topic: str) -> list[list[Record]]:
        try:
            return self._topics[topic]
        except KeyError:
            raise UnavailableError(_no_topic(topic)) from None


class MemoryAppender:
    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._usable = True

    def append(self, drafts: Sequence[Draft]) -> list[Appended]:
        if not self._usable:
            raise AppendUnknownError("an earlier append of this appender is unknown: close it, read the log's tail and open another")
        self._usable = False
        appended = self._log.append(drafts)
        self._usable = True
        return appended

    def close(self) -> None:
        self._usable = False


class MemoryReader:
    def __init__(self, changed: Condition, partitions: Sequence[list[Record]]) -> None:
        self._changed = changed
        self._partitions = partitions
        self._next_offsets: dict[int, int] = {}

    def assign(self, next_offsets: Mapping[int, int]) -> None:
        self._next_offsets = dict(next_offsets)

    def poll(self, max_records: int, timeout_seconds: float) -> dict[int, list[Record]]:
        with self._changed:
            for number, offset in self._next_offsets.items():
                if offset > len(self._partitions[number]):
                    raise UnavailableError(f"partition {number} has no offset {offset}: it ends at {len(self._partitions[number])}")
            self._changed.wait_for(self._has_news, timeout_seconds)
            batches: dict[int, list[Record]] = {}
            left = max_records
            for number, offset in self._next_offsets.items():
                records = self._partitions[number][offset : offset + left]
                if records:
                    batches[number] = records
                    left -= len(records)
            for number, records in batches.items():
                # Asked last the next time, so that a busy partition does not keep others waiting.
                self._next_offsets[number] = self._next_offsets.pop(number) + len(records)
            return batches

    def positions(self) -> dict[int, int]:
        return dict(self._next_offsets)

    def end_offsets(self) -> dict[int, int]:
        with self._changed:
            return {number: len(self._partitions[number]) for number in sorted(self._next_offsets)}

    def close(self) -> None:
        self._next_offsets = {}

    def _has_news(self) -> bool:
        return any(len(self._partitions[number]) > offset for number, offset in self._next_offsets.items())


class MemoryMembership:
    """Members take turns: the n-th of them has every n-th partition."""

    def __init__(self, changed: Condition, members: list["MemoryMembership"], committed: dict[int, int], partitions: Iterable[int]) -> None:
        self._changed = changed
        self._members = members
        self._committed = committed
        self._partitions = list(partitions)

    def owned(self) -> frozenset[int]:
        with self._changed:
            if self not in self._members:
                return frozenset()
            return frozenset(self._partitions[self._members.index(self) :: len(self._members)])

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        with self._changed:
            self._committed.update(next_offsets)

    def close(self) -> None:
        with self._changed:
            if self in self._members:
                self._members.remove(self)


def _no_topic(topic: str) -> str:
    return f"{topic}: there is no such topic; run 'aidtrail topics create'"
