"""What replays are tried on: a log whose clock is set, an honest ledger, and a forger who has the log in his hands."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from aidtrail import codec
from aidtrail.audit.findings import Difference, Report
from aidtrail.chain import NO_HEAD, NO_TAIL, Head, Tail, read_entry, void_reason
from aidtrail.domain import events as e
from aidtrail.ledger import Ledger
from aidtrail.log import Draft, Log, Record, partition_of
from aidtrail.log.memory import MemoryLog, MemoryRecord
from aidtrail.producer import Producer
from aidtrail.ruling import EPOCH
from aidtrail.topics import Topics
from tests.acts import START, Acts, registry_events

PARTITIONS = 3
TOPICS = Topics.of("donations")
ALIKE = "KRCS-2026-0001"


def milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


class Clock:
    """The append time of a memory log: what it was last set to."""

    def __init__(self) -> None:
        self.now = milliseconds(START)

    def __call__(self) -> int:
        return self.now


def pipeline(log: Log, topics: Topics = TOPICS, registry: Sequence[e.RegistryEvent] | None = None) -> None:
    topics.create(log, PARTITIONS)
    with Producer(log, topics) as producer:
        producer.register(registry_events() if registry is None else registry)


def submit(log: MemoryLog, events: Sequence[e.Event], topics: Topics = TOPICS) -> None:
    """Each at the time that it happened, where the log has a clock to set."""
    with Producer(log, topics) as producer:
        for event in events:
            if isinstance(log.clock, Clock):
                log.clock.now = milliseconds(event.meta.occurred_on)
            producer.submit([event])


def ledger(log: Log, folder: Path, topics: Topics = TOPICS, group: str = "ledger") -> None:
    """Answer all that was submitted."""
    running = Ledger(log, topics, folder / uuid4().hex, group=group)
    due = sum(log.end_offsets(topics.submitted).values()) - sum(log.end_offsets(topics.recorded).values())
    done = 0
    while done < due:
        done += running.turn()
    running.close()


def unlawful(acts: Acts) -> list[e.Event]:
    """A beginning of a donation in which every second event is refused."""
    return [
        acts.announced(),
        acts.confirmed(by="krcs-officer"),
        acts.confirmed(),
        acts.approved(),
        *acts.approval(),
        acts.instructed(by="krcs-allrounder", role="preparer"),
        acts.released(by="krcs-allrounder", role="releaser"),
        acts.released(),
        acts.settled(amount="401"),
        acts.settled(),
        acts.received(),
    ]


def home(donation_id: str) -> int:
    return partition_of(donation_id.encode(), PARTITIONS)


def recorded(log: Log, topics: Topics) -> list[Record]:
    reader = log.reader(topics.recorded)
    ends = log.end_offsets(topics.recorded)
    reader.assign(dict.fromkeys(ends, 0))
    found: list[Record] = []
    while len(found) < sum(ends.values()):
        for records in reader.poll(5000, 5.0).values():
            found += records
    reader.close()
    return found


def entries(log: MemoryLog, partition: int) -> list[Any]:
    return [read_entry(record) for record in log._topics[TOPICS.recorded][partition]]


def stamp_of(event: e.Event | None) -> e.LedgerStamp:
    assert event is not None
    assert event.meta.ledger is not None
    return event.meta.ledger


def uuid4_7() -> Any:
    return codec.event_id_at(milliseconds(START), os.urandom(8))


@dataclass
class Forger:
    """Has the log itself in his hands: changes entries where they stand, and chains what follows anew, so that the fences see nothing."""

    log: MemoryLog
    donation_id: str = ALIKE

    @property
    def partition(self) -> int:
        return home(self.donation_id)

    @property
    def records(self) -> list[Record]:
        return self.log._topics[TOPICS.recorded][self.partition]

    def where(self, matches: Callable[[e.Event], bool]) -> int:
        """The offset of the first entry of the donation of which this holds."""
        found: int = next(
            entry.record.offset
            for entry in entries(self.log, self.partition)
            if entry.donation_id == self.donation_id and matches(entry.event)
        )
        return found

    def event(self, offset: int) -> e.Event:
        event = read_entry(self.records[offset]).event
        assert event is not None
        return event

    def put(self, offset: int, event: e.Event) -> None:
        self.records[offset] = self._record(offset, event)
        self.chain()

    def restamp(self, offset: int, **changes: Any) -> None:
        event = self.event(offset)
        self.put(offset, stamped(event, stamp_of(event).model_copy(update=changes)))

    def admit(self, events: Sequence[e.Event], **changes: Any) -> int:
        """Append them as a ledger would that finds no fault; returns the offset of the last."""
        for event in events:
            last = entries(self.log, self.partition)
            stamp = stamp_of(last[-1].event if last else Forger(self.log).event(0))
            stamp = stamp.model_copy(
                update={
                    "submitted_offset": stamp.submitted_offset + 1 if last else 0,
                    "recorded_at": event.meta.occurred_on,
                    **changes,
                }
            )
            self.records.append(self._record(len(self.records), stamped(event, stamp)))
        self.chain()
        return len(self.records) - 1

    def chain(self) -> None:
        """Each entry that counts to its donation's head and to the partition's last outcome."""
        heads: dict[str, Head] = {}
        tail = codec.GENESIS
        for offset, record in enumerate(self.records):
            entry = read_entry(record)
            event = entry.event
            if entry.fault is not None or event is None:
                continue
            donation_id, refused = event.meta.donation_id, isinstance(event, e.SubmissionRefused)
            head = heads.get(donation_id, NO_HEAD)
            version = head.version if refused else head.version + 1
            stamp = stamp_of(event).model_copy(update={"version": version, "previous_sha256": head.sha256, "previous_outcome_sha256": tail})
            self.records[offset] = written = self._record(offset, stamped(event, stamp))
            tail = codec.sha256(written.value)
            if not refused:
                heads[donation_id] = Head(version, codec.sha256(written.value))

    def _record(self, offset: int, event: e.Event) -> MemoryRecord:
        return MemoryRecord(TOPICS.recorded, self.partition, offset, 0, event.meta.donation_id.encode(), codec.encode(event))


def forge(log: MemoryLog, event: e.Event, partition: int, head: Head | None = None, **stamp: Any) -> int:
    """Append an admission that answers the next submission and chains to the partition's last outcome, and to the donation's head there
    (or to the one given); returns its offset."""
    tail, heads = NO_TAIL, {event.meta.donation_id: NO_HEAD}
    for record in log._topics[TOPICS.recorded][partition]:
        entry = read_entry(record)
        if entry.stamp is None or entry.donation_id is None:
            continue
        if void_reason(entry, tail, heads.get(entry.donation_id, NO_HEAD), log.partitions(TOPICS.recorded)) is None:
            tail = Tail(entry.stamp.submitted_offset, codec.sha256(entry.value))
            if not entry.refused:
                heads[entry.donation_id] = Head(entry.stamp.version, tail.sha256)
    version, sha256 = head or heads[event.meta.donation_id]
    said = {
        "version": version + 1,
        "submitted_offset": tail.submitted_offset + 1,
        "previous_outcome_sha256": tail.sha256,
        "recorded_at": START,
        "previous_sha256": sha256,
        "registry_offset": log.end_offsets(TOPICS.registry)[0] - 1,
        "rules": 1,
    }
    value = codec.encode(stamped(event, e.LedgerStamp.model_construct(**said | stamp)))
    (place,) = log.append([Draft(TOPICS.recorded, partition, event.meta.donation_id.encode(), value)])
    return place.offset


def stamped(event: e.Event, stamp: e.LedgerStamp) -> e.Event:
    return event.model_copy(update={"meta": event.meta.model_copy(update={"ledger": stamp})})


def only(found: Report) -> Difference:
    assert found.differing == 1, found.differences
    (difference,) = found.differences
    return difference


def instruction(event: e.Event) -> bool:
    return isinstance(event, e.DisbursementInstructed)


def restamped(event: e.Event, **changes: Any) -> e.LedgerStamp:
    return stamp_of(event).model_copy(update=changes)
