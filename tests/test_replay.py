"""An auditor rules again: what an honest ledger recorded is equal, and whatever somebody forged, left out or moved is found and named."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from aidtrail import codec
from aidtrail.audit.findings import MAX_NAMED, Difference, Extent, Report
from aidtrail.audit.replay import extent_now, replay, replay_in_processes
from aidtrail.chain import NO_HEAD, Head, read_entry
from aidtrail.demo.story import story
from aidtrail.domain import events as e
from aidtrail.domain.donation import Donation
from aidtrail.domain.fold import apply
from aidtrail.domain.rules import RULES_VERSION
from aidtrail.ledger import Ledger
from aidtrail.log import Draft, Log, Record, partition_of
from aidtrail.log.memory import MemoryLog, MemoryRecord
from aidtrail.log.postgres import PostgresLog
from aidtrail.producer import Producer
from aidtrail.ruling import EPOCH
from aidtrail.topics import Topics
from tests.acts import START, Acts, full_life, money, registry_events
from tests.bench import lives
from tests.test_domain_machine import SEED, Lives

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


@pytest.fixture
def honest(tmp_path: Path) -> MemoryLog:
    """Three donations, lawful and unlawful, ruled by an honest ledger."""
    log = MemoryLog(Clock())
    pipeline(log)
    events = list(full_life(ALIKE)) + unlawful(Acts("KRCS-2026-0002")) + unlawful(Acts("KRCS-2026-0003"))
    submit(log, sorted(events, key=lambda event: event.meta.occurred_on))
    ledger(log, tmp_path)
    found = replay(log, TOPICS)
    assert (found.entries, found.equal, found.differing) == (59, 59, 0)
    return log


# --- what an honest ledger recorded -------------------------------------------------------------------------------------------------


def test_the_story_replays_equal(tmp_path: Path) -> None:
    log = MemoryLog()
    pipeline(log, registry=lives.registry_events())
    now = datetime.now(UTC)
    steps = list(story(now))
    with Producer(log, TOPICS) as producer:
        producer.submit([step.event(number, now) for number, step in enumerate(steps, start=1)])
    ledger(log, tmp_path)

    found = replay(log, TOPICS)

    assert (found.submissions, found.entries, found.equal) == (len(steps),) * 3
    assert (found.differing, found.void, found.not_redecidable, found.unanswered) == (0, {}, {}, 0)
    assert found.registry_events == len(lives.registry_events())
    print(f"the story: {found.submissions} submissions, {found.equal} equal, {found.differing} differing")


def test_lives_replay_equal_on_every_log_also_when_few_donations_are_in_memory(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aidtrail.audit.replay.MAX_BATCH", 50)
    topics = Topics.of(f"replay-{uuid4().hex[:8]}")
    pipeline(log, topics, lives.registry_events())
    appender = log.appender()
    appender.append(list(lives.submissions(topics.submitted, PARTITIONS, 60, active=20)))
    appender.append([Draft(topics.submitted, 1, b"NOT-AVRO", b"\x00nothing"), Draft(topics.submitted, 2, b"\xff", b"")])
    appender.close()
    ledger(log, tmp_path, topics, group=topics.submitted)
    calls: list[tuple[int, int]] = []

    found = replay(log, topics, max_accounts=2, progress=lambda *done: calls.append(done))

    assert found.submissions == found.entries == found.equal == 60 * len(lives.steps()) + 2
    assert (found.differing, found.void, found.unanswered) == (0, {}, 0)
    assert calls[-1] == (found.entries, found.entries)
    print(f"{type(log).__name__}: {found.submissions} submissions, {found.equal} equal, {found.differing} differing")


def test_each_entry_is_ruled_with_the_registry_of_its_time(tmp_path: Path) -> None:
    """An approver is enrolled after his first word, and retired after his second."""
    log = MemoryLog(Clock())
    known = registry_events()
    late = [event for event in known if getattr(event, "actor_id", None) == "mef-approver-2"]
    pipeline(log, registry=[event for event in known if event not in late])
    acts = Acts(ALIKE)
    beginning = [acts.announced(), acts.confirmed(), acts.requested(), acts.approved(), acts.approved(by="mef-approver-2")]
    submit(log, beginning)
    ledger(log, tmp_path)
    with Producer(log, TOPICS) as producer:
        producer.register(late)
        submit(log, [acts.approved(by="mef-approver-2")])
        ledger(log, tmp_path)
        producer.register([e.ActorRetired(event_id=uuid4_7(), occurred_on=START, actor_id="mef-approver-2", reason="left")])
    submit(log, [acts.revoked(by="mef-approver-2")])
    ledger(log, tmp_path)

    found = replay(log, TOPICS)

    verdicts = [(entry.refused, stamp_of(entry.event).registry_offset) for entry in entries(log, home(ALIKE))]
    assert verdicts[-3:] == [(True, len(known) - 2), (False, len(known) - 1), (True, len(known))]
    assert (found.equal, found.differing) == (7, 0)


def test_submissions_after_the_last_answered_are_pending_and_no_difference(honest: MemoryLog) -> None:
    acts = Acts("KRCS-2026-0009", START + timedelta(days=30))
    submit(honest, [acts.announced(), acts.confirmed()])

    found = replay(honest, TOPICS)

    assert (found.unanswered, found.differing, found.submissions, found.entries) == (2, 0, 61, 59)
    assert found.oldest_unanswered == milliseconds(START + timedelta(days=30, minutes=1))


def test_late_entries_of_a_zombie_are_void_and_no_difference(log: Log, tmp_path: Path) -> None:
    topics = Topics.of(f"zombie-{uuid4().hex[:8]}")
    pipeline(log, topics, lives.registry_events())
    appender = log.appender()
    appender.append(list(lives.submissions(topics.submitted, PARTITIONS, 20, active=20)))
    ledger(log, tmp_path, topics, group=topics.submitted)
    late = [Draft(record.topic, record.partition, record.key or b"", record.value or b"") for record in recorded(log, topics)]
    appender.append(random.Random(1).sample(late, len(late)))
    appender.append(list(lives.submissions(topics.submitted, PARTITIONS, 5, active=5, first=1000)))
    appender.close()
    running = Ledger(log, topics, tmp_path / "last", group=topics.submitted)
    while sum(log.end_offsets(topics.recorded).values()) < 2 * len(late) + 5 * len(lives.steps()):
        running.turn()
    running.close()

    found = replay(log, topics)

    assert (found.differing, found.void.total(), found.equal) == (0, len(late), 25 * len(lives.steps()))
    assert found.void == {"its submission was answered before": len(late)}
    assert {void.reason for void in found.voids} == set(found.void)
    assert len(found.voids) == min(len(late), MAX_NAMED)
    print(f"{type(log).__name__}: {found.equal} equal, {found.void.total()} void, {found.differing} differing")


# --- what somebody forged -----------------------------------------------------------------------------------------------------------


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


def stamped(event: e.Event, stamp: e.LedgerStamp) -> e.Event:
    return event.model_copy(update={"meta": event.meta.model_copy(update={"ledger": stamp})})


def only(found: Report) -> Difference:
    assert found.differing == 1, found.differences
    (difference,) = found.differences
    return difference


def instruction(event: e.Event) -> bool:
    return isinstance(event, e.DisbursementInstructed)


def test_an_altered_amount_is_named_even_where_all_that_follows_is_chained_anew(honest: MemoryLog) -> None:
    forger = Forger(honest)
    offset = forger.where(instruction)
    forger.put(offset, forger.event(offset).model_copy(update={"amount": money("701")}))

    found = replay(honest, TOPICS)

    difference = only(found)
    assert difference[:5] == (TOPICS.recorded, forger.partition, offset, ALIKE, "amount.amount")
    assert (difference.expected, difference.found) == ("700.0000", "701.0000")
    assert found.void == {}
    assert found.equal == 58
    assert found.resting == 20, "the entries of the same donation after it"


def test_a_refusal_that_was_turned_into_an_admission_is_named(honest: MemoryLog) -> None:
    forger = Forger(honest, "KRCS-2026-0002")
    offset = forger.where(lambda event: isinstance(event, e.SubmissionRefused) and event.refused_event_type == "DisbursementReleased")
    refusal = forger.event(offset)
    submission = codec.decode(honest._topics[TOPICS.submitted][forger.partition][stamp_of(refusal).submitted_offset].value)
    assert isinstance(submission, e.Event)
    forger.put(offset, stamped(submission, stamp_of(refusal)))

    found = replay(honest, TOPICS)

    first = found.differences[0]
    assert first[:5] == (TOPICS.recorded, forger.partition, offset, "KRCS-2026-0002", "outcome")
    assert first.expected == "refused by releaser_did_not_prepare"
    assert first.found == "DisbursementReleased admitted"
    # The genuine release is now the second one: the rules would refuse it.
    assert [difference.expected for difference in found.differences[1:]] == ["refused by disbursement_awaits_release"]


def test_an_admission_that_was_turned_into_a_refusal_is_named(honest: MemoryLog) -> None:
    forger = Forger(honest)
    offset = forger.where(lambda event: isinstance(event, e.DonationClosed))
    event = forger.event(offset)
    refusal = e.SubmissionRefused(
        meta=event.meta.model_copy(update={"actor": e.Actor(actor_id="ledger", party_id="AIDTRAIL", role="ledger")}),
        refused_event_id=event.meta.event_id,
        refused_event_type=event.type,
        reason="nothing_is_in_flight",
        expected="nothing in flight",
        found="D9 in flight",
        submission_sha256=codec.sha256(codec.encode(event.model_copy(update={"meta": event.meta.model_copy(update={"ledger": None})}))),
    )
    forger.put(offset, refusal)

    difference = only(replay(honest, TOPICS))

    assert difference[:5] == (TOPICS.recorded, forger.partition, offset, ALIKE, "outcome")
    assert (difference.expected, difference.found) == ("DonationClosed admitted", "refused by nothing_is_in_flight")


def test_an_invented_admission_that_chains_and_has_no_submission_is_named(honest: MemoryLog) -> None:
    forger = Forger(honest)
    offset = forger.admit([Acts(ALIKE, START + timedelta(days=2)).reopened()])

    difference = only(replay(honest, TOPICS))

    assert difference[:5] == (TOPICS.recorded, forger.partition, offset, ALIKE, "meta.ledger.submitted_offset")
    assert difference.found == str(offset)


def test_an_invented_admission_in_the_place_of_a_submission_that_was_still_to_come_is_named(honest: MemoryLog) -> None:
    """The genuine submission comes later, and the genuine ledger's entry for it is void for every reader."""
    forger = Forger(honest)
    offset = forger.admit([Acts(ALIKE, START + timedelta(days=2)).reopened()])
    submit(honest, [Acts(ALIKE, START + timedelta(days=3)).closed()])
    genuine = forger.event(offset - 1)
    submitted_offset = stamp_of(genuine).submitted_offset + 1
    value = codec.encode(stamped(genuine, restamped(genuine, submitted_offset=submitted_offset)))
    forger.records.append(MemoryRecord(TOPICS.recorded, forger.partition, offset + 1, 0, ALIKE.encode(), value))

    found = replay(honest, TOPICS)

    difference = only(found)
    assert difference[:5] == (TOPICS.recorded, forger.partition, offset, ALIKE, "outcome")
    assert difference.found == "DonationReopened admitted"
    assert found.void == {"its submission was answered before": 1}


def test_submissions_that_an_entry_far_ahead_leaves_without_an_outcome_are_each_named(honest: MemoryLog) -> None:
    forger = Forger(honest)
    far = stamp_of(forger.event(5)).submitted_offset + 10**6
    forger.restamp(5, submitted_offset=far)

    found = replay(honest, TOPICS)

    skipped = [difference for difference in found.differences if difference.topic == TOPICS.submitted]
    submitted = honest.end_offsets(TOPICS.submitted)[forger.partition]
    assert [difference.offset for difference in skipped] == list(range(5, submitted))
    assert all(difference.field == "outcome" and f"answers submission {far}" in difference.found for difference in skipped)
    assert found.without_outcome == len(skipped)
    assert found.differing == len(skipped) + 1
    assert found.differences[-1][:3] == (TOPICS.recorded, forger.partition, 5)
    assert found.differences[-1].field == "meta.ledger.submitted_offset"
    assert found.void.total() == len(forger.records) - 6


def test_a_submission_whose_outcome_was_left_out_is_named(honest: MemoryLog) -> None:
    forger = Forger(honest, "KRCS-2026-0002")
    offset = forger.where(lambda event: isinstance(event, e.SubmissionRefused))
    del forger.records[offset]
    for at, record in enumerate(forger.records):
        forger.records[at] = record._replace(offset=at)  # type: ignore[attr-defined]
    forger.chain()

    found = replay(honest, TOPICS)

    assert only(found)[:5] == (TOPICS.submitted, forger.partition, offset, "KRCS-2026-0002", "outcome")
    later = [entry for entry in entries(honest, forger.partition)[offset:] if entry.donation_id == "KRCS-2026-0002"]
    assert found.resting == len(later) == 11


def test_entries_and_submissions_that_were_deleted_together_leave_a_gap_that_is_named(honest: MemoryLog) -> None:
    forger = Forger(honest, "KRCS-2026-0002")
    offset = forger.where(lambda event: isinstance(event, e.SubmissionRefused))
    del forger.records[offset]
    del honest._topics[TOPICS.submitted][forger.partition][offset]
    honest.end_offsets = lambda topic: {n: (r[-1].offset + 1 if r else 0) for n, r in enumerate(honest._topics[topic])}  # type: ignore[method-assign]

    difference = only(replay(honest, TOPICS))

    assert difference[:3] == (TOPICS.recorded, forger.partition, offset)
    assert (difference.field, difference.expected) == ("offset", "a record")


def test_a_tail_that_is_missing_within_the_extent_is_named(honest: MemoryLog) -> None:
    extent = extent_now(honest, TOPICS)
    forger = Forger(honest)
    end = len(forger.records)
    del forger.records[-3:]

    difference = only(replay(honest, TOPICS, extent=extent, poll_seconds=0.05))

    assert difference[:3] == (TOPICS.recorded, forger.partition, end - 3)
    assert difference.found == f"none before offset {end}"


def test_an_extent_ends_the_replay(honest: MemoryLog) -> None:
    partition = home(ALIKE)
    end = extent_now(honest, TOPICS)
    extent = Extent(dict.fromkeys(end.recorded, 0) | {partition: 4}, dict.fromkeys(end.submitted, 0) | {partition: 6}, end.registry)

    found = replay(honest, TOPICS, extent=extent)

    assert (found.entries, found.equal, found.submissions, found.unanswered, found.differing) == (4, 4, 6, 2, 0)


@pytest.mark.parametrize("registry_offset", [10**6, -2])
def test_a_registry_offset_that_is_not_in_the_registry_is_named_once(honest: MemoryLog, registry_offset: int) -> None:
    forger = Forger(honest)
    forger.restamp(7, registry_offset=registry_offset)

    difference = only(replay(honest, TOPICS))

    assert difference[1:3] == (forger.partition, 7)
    assert (difference.field, difference.found) == ("meta.ledger.registry_offset", str(registry_offset))


def test_a_registry_offset_that_steps_back_is_named_once(honest: MemoryLog) -> None:
    """The registry had everybody that matters before its last record, a retirement: with it as it stood then the outcome is the same."""
    forger = Forger(honest)
    before = stamp_of(forger.event(6)).registry_offset
    forger.restamp(7, registry_offset=before - 1)

    difference = only(replay(honest, TOPICS))

    assert difference[1:3] == (forger.partition, 7)
    assert (difference.field, difference.found) == ("meta.ledger.registry_offset", str(before - 1))
    assert difference.expected == f"at least {before}, as the entry before it"


def test_a_registry_that_is_kept_from_advancing_is_named(honest: MemoryLog, tmp_path: Path) -> None:
    """An approver is retired; an hour later he still decides, because the entry says that the ledger had not heard of it."""
    clock = honest.clock
    assert isinstance(clock, Clock)
    acts = Acts("KRCS-2026-0005", START + timedelta(days=9))
    clock.now = milliseconds(acts.now) - 3_600_000
    with Producer(honest, TOPICS) as producer:
        producer.register([e.ActorRetired(event_id=uuid4_7(), occurred_on=START, actor_id="mef-approver", reason="left")])
    submit(honest, [acts.announced(), acts.requested(), acts.approved()])
    ledger(honest, tmp_path)
    assert replay(honest, TOPICS).differing == 0
    forger = Forger(honest, "KRCS-2026-0005")
    first = forger.where(lambda event: True)
    submissions = honest._topics[TOPICS.submitted][forger.partition]
    for offset in range(first, len(forger.records)):
        stamp = stamp_of(forger.event(offset))
        event = codec.decode(submissions[stamp.submitted_offset].value)
        assert isinstance(event, e.Event)
        forger.put(offset, stamped(event, stamp.model_copy(update={"registry_offset": stamp.registry_offset - 1})))

    found = replay(honest, TOPICS)

    assert found.differing == 3
    assert {difference.field for difference in found.differences} == {"meta.ledger.registry_offset"}
    assert "appended 3,6" in found.differences[0].expected


# --- other rules --------------------------------------------------------------------------------------------------------------------


def test_entries_of_other_rules_are_counted_apart(honest: MemoryLog) -> None:
    forger = Forger(honest)
    for offset in range(len(forger.records)):
        forger.restamp(offset, rules=RULES_VERSION - 1 if offset < 9 else RULES_VERSION + 1)

    found = replay(honest, TOPICS)

    assert found.not_redecidable == {RULES_VERSION - 1: 9, RULES_VERSION + 1: len(forger.records) - 9}
    assert (found.differing, found.equal) == (0, 59 - len(forger.records))


def test_an_event_of_past_rules_that_breaks_an_invariant_is_named(honest: MemoryLog) -> None:
    """Who requested the approval decides on it. Its bytes are the submission's own, and its chain is perfect."""
    acts = Acts("KRCS-2026-0006", START + timedelta(days=9))
    events = [acts.announced(), acts.requested(by="krcs-officer-2"), acts.approved(by="krcs-officer-2", role="approver")]
    submit(honest, events)
    forger = Forger(honest, "KRCS-2026-0006")
    forger.admit(events, rules=0)

    found = replay(honest, TOPICS)

    difference = only(found)
    assert difference[1:5] == (forger.partition, len(forger.records) - 1, "KRCS-2026-0006", "invariant")
    assert "decided by who requested it" in difference.found
    assert found.not_redecidable == {0: 2}


@pytest.mark.parametrize(
    ("field", "alter"),
    [
        ("submission", lambda event: event.model_copy(update={"end_to_end_id": "E2E-FORGED"})),
        ("meta.ledger.recorded_at", lambda event: stamped(event, restamped(event, recorded_at=START))),
    ],
)
def test_past_rules_do_not_excuse_other_bytes_or_times(honest: MemoryLog, field: str, alter: Callable[[e.Event], e.Event]) -> None:
    forger = Forger(honest)
    offset = forger.where(instruction)
    event = forger.event(offset)
    forger.put(offset, alter(stamped(event, restamped(event, rules=0))))

    difference = only(replay(honest, TOPICS))

    assert difference[1:5] == (forger.partition, offset, ALIKE, field)


def test_past_rules_do_not_excuse_a_refusal_of_something_else(honest: MemoryLog) -> None:
    forger = Forger(honest, "KRCS-2026-0002")
    offset = forger.where(lambda event: isinstance(event, e.SubmissionRefused))
    event = forger.event(offset).model_copy(update={"refused_event_id": uuid4_7()})
    forger.put(offset, stamped(event, restamped(event, rules=0)))

    assert only(replay(honest, TOPICS))[1:5] == (forger.partition, offset, "KRCS-2026-0002", "refused_event_id")


def test_past_rules_do_not_excuse_a_refusal_in_another_donation(honest: MemoryLog) -> None:
    forger = Forger(honest, "KRCS-2026-0002")
    offset = forger.where(lambda event: isinstance(event, e.SubmissionRefused))
    event = forger.event(offset)
    forger.put(offset, event.model_copy(update={"meta": event.meta.model_copy(update={"donation_id": "KRCS-2026-0003"})}))
    forger.restamp(offset, rules=0)

    difference = only(replay(honest, TOPICS))

    assert difference[1:5] == (forger.partition, offset, "KRCS-2026-0003", "meta.donation_id")


def test_an_event_of_past_rules_that_cannot_be_folded_is_named(honest: MemoryLog) -> None:
    unknown = Acts(ALIKE, START + timedelta(days=2)).released("D77")
    submit(honest, [unknown])
    forger = Forger(honest)
    offset = forger.admit([unknown], rules=0)

    assert only(replay(honest, TOPICS))[1:5] == (forger.partition, offset, ALIKE, "fold")


def restamped(event: e.Event, **changes: Any) -> e.LedgerStamp:
    return stamp_of(event).model_copy(update=changes)


# --- moved, and monstrous -----------------------------------------------------------------------------------------------------------


def test_entries_that_were_copied_to_another_partition_are_void_or_named(honest: MemoryLog) -> None:
    """An admission is void there for every reader. A refusal counts for them, and is a difference."""
    forger = Forger(honest, "KRCS-2026-0002")
    elsewhere = next(number for number in range(PARTITIONS) if number != forger.partition)
    target = honest._topics[TOPICS.recorded][elsewhere]
    admission = forger.event(forger.where(lambda event: True))
    refusal = forger.event(forger.where(lambda event: isinstance(event, e.SubmissionRefused)))
    end = len(target)
    tail = codec.sha256(target[-1].value or b"") if target else codec.GENESIS
    for event in (admission, refusal):
        far = stamped(event, restamped(event, submitted_offset=100 + len(target), previous_outcome_sha256=tail))
        target.append(MemoryRecord(TOPICS.recorded, elsewhere, len(target), 0, b"KRCS-2026-0002", codec.encode(far)))

    found = replay(honest, TOPICS)

    assert [void[:3] for void in found.voids] == [(elsewhere, end, "KRCS-2026-0002")]
    assert found.voids[0].reason == "the donation belongs to another partition"
    assert only(found)[:4] == (TOPICS.recorded, elsewhere, end + 1, "KRCS-2026-0002")


def test_an_entry_under_another_key_is_void_and_its_submission_without_an_outcome(honest: MemoryLog) -> None:
    forger = Forger(honest, "KRCS-2026-0002")
    offset = forger.where(lambda event: isinstance(event, e.SubmissionRefused))
    forger.records[offset] = forger.records[offset]._replace(key=b"KRCS-2026-0003")  # type: ignore[attr-defined]
    forger.chain()

    found = replay(honest, TOPICS)

    assert only(found)[:3] == (TOPICS.submitted, forger.partition, offset)
    assert found.void == {"the key is not the donation": 1}


def test_a_forged_time_is_named_once_though_the_ledger_goes_on_from_it(honest: MemoryLog, tmp_path: Path) -> None:
    forger = Forger(honest)
    offset = len(forger.records) - 1
    forger.restamp(offset, recorded_at=START + timedelta(days=40))
    acts = Acts(ALIKE, START + timedelta(days=2))
    submit(honest, [acts.reopened(), acts.utilised("1"), acts.closed()])
    ledger(honest, tmp_path)

    difference = only(replay(honest, TOPICS))

    assert difference[1:5] == (forger.partition, offset, ALIKE, "meta.ledger.recorded_at")
    assert stamp_of(forger.event(offset + 3)).recorded_at == START + timedelta(days=40)


def test_a_fold_that_fails_today_is_a_difference_and_no_end(honest: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(donation: Donation | None, event: e.Event) -> Donation:
        if isinstance(event, e.UtilisationReported):
            raise RuntimeError("a fault in the fold")
        return apply(donation, event)

    monkeypatch.setattr("aidtrail.ruling.apply", broken)

    found = replay(honest, TOPICS)

    assert [difference.found for difference in found.differences] == [
        "they raise RuntimeError: a fault in the fold",
        "DonationClosed admitted",
    ]
    assert found.differences[1].expected == "refused by donation_is_parked"
    assert found.entries == 59


def test_a_forged_state_that_no_rule_foresees_is_a_difference_and_no_end(honest: MemoryLog) -> None:
    """A route whose leg hangs on one that is not there, admitted by 'past rules'; then a genuine submission that asks for that route."""
    acts = Acts("KRCS-2026-0007", START + timedelta(days=9))
    lost = e.Leg(leg_id="L2", parent_leg_id="L0", from_party="CRC", to_party="KBH")
    events = [acts.announced(route=(lost,)), acts.confirmed()]
    submit(honest, events)
    forger = Forger(honest, "KRCS-2026-0007")
    forger.admit(events, rules=0)

    found = replay(honest, TOPICS)

    assert found.differences[0].field == "invariant"
    assert found.differing == 1


def test_no_forgery_writes_to_the_terminal_what_it_likes(honest: MemoryLog) -> None:
    forger = Forger(honest)
    offset = forger.where(lambda event: isinstance(event, e.PledgeConfirmed))
    event = forger.event(offset).model_copy(update={"agreement_reference": "\x1b[2J0 differences"})
    forger.put(offset, event)

    difference = only(replay(honest, TOPICS))

    assert difference.field == "agreement_reference"
    assert difference.found == r"'\x1b[2J0 differences'"


def test_the_first_hundred_differences_are_named_and_all_are_counted(tmp_path: Path) -> None:
    log = MemoryLog()
    pipeline(log, registry=lives.registry_events())
    log.append(list(lives.submissions(TOPICS.submitted, PARTITIONS, 20, active=5)))
    ledger(log, tmp_path)
    forger = Forger(log, "BENCH-00000001")
    forger.restamp(0, submitted_offset=10**6)

    found = replay(log, TOPICS)

    assert found.differing == found.without_outcome + 1 == log.end_offsets(TOPICS.submitted)[forger.partition] + 1 > MAX_NAMED
    assert len(found.differences) == MAX_NAMED


# --- random lives -------------------------------------------------------------------------------------------------------------------


class Replayed(Lives):
    """As people act there; then all of it is submitted, some of it twice, ruled by a ledger and replayed."""

    total = Report()

    def __init__(self) -> None:
        super().__init__()
        self.made_events: list[tuple[datetime, e.Event]] = []

    def submit(self, event: e.Event, before: Donation | None) -> None:
        super().submit(event, before)
        self.made_events.append((self.acts.now, event))

    def teardown(self) -> None:
        chance = random.Random(len(self.made_events))
        clock = Clock()
        log = MemoryLog(clock)
        pipeline(log)
        with temporary_folder() as folder, Producer(log, TOPICS) as producer:
            for number, (moment, event) in enumerate(self.made_events):
                clock.now = milliseconds(moment) - chance.randrange(2) * 90_000  # append times may step back
                producer.submit([event])
                if chance.randrange(8) == 0:
                    producer.submit([chance.choice(self.made_events)[1]])
                if chance.randrange(8) == 0:
                    ledger(log, folder)
                    party = e.PartyRegistered(event_id=uuid4_7(), occurred_on=moment, party_id=f"P{number}", name="A party", kind="society")
                    producer.register([party])
            ledger(log, folder)
        found = replay(log, TOPICS, max_accounts=chance.randrange(2))
        assert found.differences == []
        assert found.equal == found.submissions == found.entries
        Replayed.total.add(found)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_whatever_people_do_replays_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aidtrail.audit.replay.MAX_BATCH", 5)
    run_state_machine_as_test(
        seed(SEED)(Replayed),
        settings=settings(
            max_examples=int(os.environ.get("AIDTRAIL_REPLAYS", "30")),
            stateful_step_count=60,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )

    found = Replayed.total
    assert found.entries > 1000
    print(f"seed {SEED}: {found.submissions} submissions, {found.equal} equal, {found.differing} differing")


# --- processes and the command ------------------------------------------------------------------------------------------------------


@contextmanager
def open_postgres(url: str) -> Iterator[Log]:
    log = PostgresLog(url)
    try:
        yield log
    finally:
        log.close()


def test_processes_share_the_partitions_and_find_the_same(database_url: str, tmp_path: Path) -> None:
    with open_postgres(database_url) as log:
        pipeline(log, TOPICS, lives.registry_events())
        appender = log.appender()
        appender.append(list(lives.submissions(TOPICS.submitted, PARTITIONS, 30, active=10)))
        ledger(log, tmp_path)
        late = [Draft(record.topic, record.partition, record.key or b"", record.value or b"") for record in recorded(log, TOPICS)]
        appender.append(late[:7])
        appender.close()
        alone = replay(log, TOPICS)
    calls: list[tuple[int, int]] = []

    shared = replay_in_processes(partial(open_postgres, database_url), TOPICS, 2, progress=lambda *done: calls.append(done))

    assert shared == alone
    assert (shared.equal, shared.void.total(), shared.differing) == (30 * len(lives.steps()), 7, 0)
    assert calls[-1] == (shared.entries, shared.entries)


def test_the_command_prints_the_counts_and_exits_1_only_for_a_difference(database_url: str, tmp_path: Path) -> None:
    with open_postgres(database_url) as log:
        pipeline(log, TOPICS, lives.registry_events())
        appender = log.appender()
        appender.append(list(lives.submissions(TOPICS.submitted, PARTITIONS, 5, active=5)))
        ledger(log, tmp_path)
        count = 5 * len(lives.steps())

        equal = command(database_url)
        forged = read_entry(recorded(log, TOPICS)[0])
        assert forged.event is not None
        value = codec.encode(stamped(forged.event, restamped(forged.event, submitted_offset=10**6)))
        refusal = next(lives.entries(TOPICS.recorded, PARTITIONS, 1, 1))
        far = invented(refusal, recorded(log, TOPICS))
        appender.append([Draft(TOPICS.recorded, forged.record.partition, forged.record.key or b"", value), far])
        appender.close()
        differing, said = command(database_url), command(database_url, "--json", "--processes", "2")

    assert equal.returncode == 0, equal.stderr
    assert f"{count} submissions and {count} entries replayed, 0 differences" in equal.stdout
    assert [line.split()[-1] for line in equal.stdout.splitlines()[:8]] == [str(n) for n in (count, count, count, 0, 0, 0, 0)] + [
        str(len(lives.registry_events()))
    ]
    assert equal.stderr == ""
    assert (differing.returncode, said.returncode) == (1, 1), differing.stderr + said.stderr
    assert f"differs: {TOPICS.recorded} partition {far.partition} offset" in differing.stdout
    assert "void: partition" in differing.stdout
    assert said.stdout, said.stderr
    (report,) = [json.loads(line) for line in said.stdout.splitlines()]
    assert (report["submissions"], report["equal"], report["differing"]) == (count, count, 1)
    assert report["differences"][0]["field"] == "meta.ledger.submitted_offset"
    assert sum(report["extent"]["recorded"].values()) == count + 2


def invented(draft: Draft, records: Sequence[Record]) -> Draft:
    """The first event of a donation that nobody announced, far ahead, after these records."""
    key = b"BENCH-99999999"[: len(draft.key)]
    event = codec.read_recorded(draft.value.replace(draft.key, key))[0]
    assert isinstance(event, e.Event)
    partition = partition_of(key, PARTITIONS)
    tail = [record.value or b"" for record in records if record.partition == partition][-1]
    value = codec.encode(stamped(event, restamped(event, submitted_offset=10**6, previous_outcome_sha256=codec.sha256(tail))))
    return Draft(draft.topic, partition, key, value)


def command(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIDTRAIL_")} | {"AIDTRAIL_LOG": url}
    return subprocess.run(
        [str(Path(sys.executable).with_name("aidtrail")), "audit", "replay", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
