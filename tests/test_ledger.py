"""The ledger beside others of its kind, step by step, on the memory log."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aidtrail import codec
from aidtrail import ledger as ledger_module
from aidtrail.audit.replay import replay
from aidtrail.chain import read_entry
from aidtrail.domain import events as e
from aidtrail.ledger import Ledger
from aidtrail.log import partition_of
from aidtrail.log.memory import MemoryLog
from aidtrail.producer import Producer
from aidtrail.projection import Projection
from aidtrail.service import drain
from aidtrail.views import schema
from aidtrail.views.writer import Writer
from tests.acts import START, Acts, padded, registry_events, uuid7
from tests.pipeline import TOPICS, Pipeline
from tests.replaying import forge


class Zombie(Ledger):
    """Rules on what it reads, and stops before it appends, until it is woken."""

    held: dict[int, Any] | None = None
    awake = False

    def _append(self, *ruled: Any) -> None:
        if self.awake:
            super()._append(*ruled)
        else:
            self.held = ruled

    def wake(self) -> None:
        assert self.held is not None
        self.awake = True
        self._append(*self.held)


def test_a_zombie_that_ruled_with_an_older_registry_leaves_no_submission_without_an_outcome(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It and its successor rule differently on the first of three submissions. The successor has appended that one when the zombie
    appends all three: without the link from outcome to outcome its third counted, and the second was never answered."""
    log = MemoryLog()
    TOPICS.create(log, 1)
    acts = Acts("KRCS-2026-0001")
    events = [acts.announced(by="krcs-officer"), acts.confirmed(by="krcs-officer-2")]
    events += [Acts(f"KRCS-2026-{number:04d}").announced(by="krcs-officer-2") for number in (2, 3)]
    with Producer(log, TOPICS) as producer:
        producer.register(registry_events())
        producer.submit(events)
    zombie = Zombie(log, TOPICS, tmp_path / "zombie", group="ledger")
    zombie.turn()
    with Producer(log, TOPICS) as producer:
        producer.register([e.ActorRetired(event_id=uuid7(START, 99), occurred_on=START, actor_id="krcs-officer", reason="left")])
    zombie._membership.close()
    successor = Ledger(log, TOPICS, tmp_path / "successor", group="ledger")
    with monkeypatch.context() as patch:
        patch.setattr(ledger_module, "MAX_BATCH", 1)
        while not sum(log.end_offsets(TOPICS.recorded).values()):
            successor.turn()
    zombie.wake()
    drain(successor, lambda: True)

    outcomes = answered(log, database_url)
    found = replay(log, TOPICS)

    assert outcomes == dict.fromkeys(range(len(events)), 1)
    assert found.differing == 0, found.differences
    assert found.void.total() > 0
    print(f"{len(events)} submissions, each with one outcome; {found.void.total()} of the zombie's entries void; replayed, 0 differing")
    for service in (zombie, successor):
        service.close()


def test_memory_holds_a_bounded_number_of_donations_over_all_partitions_of_a_process(tmp_path: Path) -> None:
    log = MemoryLog()
    TOPICS.create(log, 3)
    lives = [Acts(f"KRCS-2026-{number:04d}") for number in range(60)]
    with Producer(log, TOPICS) as producer:
        producer.register(registry_events())
        producer.submit([acts.announced(by="krcs-officer") for acts in lives])
    ledger = Ledger(log, TOPICS, tmp_path, group="ledger", max_accounts=9)
    drain(ledger, lambda: True)
    held = [len(partition._accounts) for partition in ledger._mine.values()]
    with Producer(log, TOPICS) as producer:
        producer.submit([acts.confirmed(by="krcs-officer-2") for acts in lives])
    drain(ledger, lambda: True)
    found = replay(log, TOPICS)
    ledger.close()

    assert held == [3, 3, 3]
    assert (found.entries, found.equal) == (120, 120)
    print(f"60 donations, {sum(held)} of them in memory, 120 submissions ruled on, replayed, 0 differing")


def test_the_longest_submission_is_admitted_and_read_again_and_one_byte_more_is_refused(tmp_path: Path, database_url: str) -> None:
    pipeline = Pipeline(database_url, tmp_path / "first", partitions=1)
    longest, longer = Acts("KRCS-2026-0001"), Acts("KRCS-2026-0002")
    pipeline.submit([padded(longest.announced(), codec.MAX_SUBMISSION_BYTES), padded(longer.announced(), codec.MAX_SUBMISSION_BYTES + 1)])
    pipeline.submit([longest.confirmed(), Acts("KRCS-2026-0003").announced()])
    pipeline.close()
    elsewhere = Ledger(pipeline.log, TOPICS, tmp_path / "second", group="elsewhere")
    drain(elsewhere, lambda: True)
    next_submission = elsewhere._mine[0].next_submission
    elsewhere.close()

    with schema.connect(database_url) as connection:
        rows = connection.execute('SELECT outcome, donation_id, event_type FROM live.entries ORDER BY "offset"').fetchall()
        (refusal,) = connection.execute("SELECT reason, expected, found FROM live.refusals").fetchall()

    assert rows == [
        ("admitted", "KRCS-2026-0001", "PledgeAnnounced"),
        ("refused", "KRCS-2026-0002", "SubmissionRefused"),
        ("admitted", "KRCS-2026-0001", "PledgeConfirmed"),
        ("admitted", "KRCS-2026-0003", "PledgeAnnounced"),
    ]
    assert refusal == ("undecodable", f"at most {codec.MAX_SUBMISSION_BYTES} bytes", f"{codec.MAX_SUBMISSION_BYTES + 1}, at byte 0")
    assert next_submission == 4


@pytest.mark.parametrize("claimed", [5, 10**9, 2**63 - 1])
def test_a_partition_whose_last_outcome_claims_a_submission_that_is_not_there_is_left_alone_and_the_others_go_on(
    claimed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = MemoryLog()
    TOPICS.create(log, 2)
    homes = [[name for number in range(40) if partition_of((name := f"KRCS-2026-{number:04d}").encode(), 2) == home] for home in range(2)]
    with Producer(log, TOPICS) as producer:
        producer.register(registry_events())
        producer.submit([Acts(name).announced() for name in (homes[0][0], *homes[1][:3])])
    forge(log, Acts(homes[0][1]).announced(), 0, submitted_offset=claimed)
    ledger = Ledger(log, TOPICS, tmp_path, group="ledger")
    drain(ledger, lambda: True)
    left_alone = log.end_offsets(TOPICS.recorded)
    committed = log.committed("ledger", TOPICS.submitted)
    monkeypatch.setattr(ledger_module, "LOOK_SECONDS", 0.0)
    with Producer(log, TOPICS) as producer:
        producer.submit([Acts(name).announced() for name in homes[0][2:8]])
    drain(ledger, lambda: True)
    ledger.close()

    assert left_alone == {0: 1, 1: 3}
    assert committed == {1: 3}, "where nothing is read the lag grows, and is seen"
    assert f"partition 0 is left alone: its last outcome answers submission {claimed}, and donations.submitted ends at 1" in caplog.text
    assert log.end_offsets(TOPICS.recorded) == {0: 2 if claimed == 5 else 1, 1: 3}, "it goes on where the log has grown so far"


def with_text(event: e.Event, **changes: object) -> e.Event:
    return event.model_copy(update=changes)


_FIRST, _SECOND = Acts(), Acts(start=START + timedelta(hours=1))
FORGED: dict[str, tuple[list[e.Event], dict[str, Any], e.Event, str, str]] = {
    "a fold that fails": (
        [_FIRST.announced(), with_text(_FIRST.released("D1"), disbursement_id="e\u0301")],
        {},
        _SECOND.confirmed(),
        "donation_is_parked",
        r"DisbursementReleased of KRCS-2026-0001: version 1 has no 'e\u0301'",
    ),
    "a donor with a line feed": (
        [with_text(_FIRST.announced(), donor="K\nRCS")],
        {},
        _SECOND.confirmed(),
        "donor_acts",
        "an officer of KRCS",
    ),
    "a donor of 12,000 letters": (
        [with_text(_FIRST.announced(), donor="K" * 12_000)],
        {},
        _SECOND.confirmed(),
        "donor_acts",
        "an officer of KRCS",
    ),
    "the end of time": (
        [_FIRST.announced(valid_until=None), _FIRST.requested(amount="1000")],
        {"recorded_at": datetime(9999, 12, 31, tzinfo=UTC)},
        _SECOND.approved(),
        "cannot_be_ruled",
        "OverflowError",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_whatever_a_forged_entry_makes_of_a_donation_the_ledger_refuses_and_goes_on(what: str, tmp_path: Path) -> None:
    forged, stamp, submission, reason, found = FORGED[what]
    log = MemoryLog()
    TOPICS.create(log, 1)
    others = [Acts(f"KRCS-2026-{number:04d}").announced() for number in (8, 9)]
    with Producer(log, TOPICS) as producer:
        producer.register(registry_events())
        producer.submit([*forged, submission, *others])
    for event in forged:
        forge(log, event, 0, **stamp)
    ledger = Ledger(log, TOPICS, tmp_path, group="ledger")
    drain(ledger, lambda: True)
    ledger.close()
    replayed = replay(log, TOPICS)

    outcomes = [read_entry(record).event for record in log._topics[TOPICS.recorded][0][len(forged) :]]
    refusal = outcomes[0]
    assert isinstance(refusal, e.SubmissionRefused)
    assert (refusal.reason, refusal.found) == (reason, found)
    assert codec.decode(codec.encode(refusal)) == refusal, "it says nothing that an event could not"
    assert [event.type for event in outcomes[1:] if event is not None] == ["PledgeAnnounced"] * 2
    assert replayed.equal == 3, "who rules again comes to the same"


def test_a_submission_that_cannot_be_ruled_on_is_told_however_many_others_are_refused_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_TOLD", 3)
    forged, stamp, submission, reason, _ = FORGED["the end of time"]
    log = MemoryLog()
    TOPICS.create(log, 1)
    with Producer(log, TOPICS) as producer:
        producer.register(registry_events())
        producer.submit([*forged, *[Acts(f"KRCS-2026-{number:04d}").confirmed() for number in range(2, 9)], submission])
    for event in forged:
        forge(log, event, 0, **stamp)
    ledger = Ledger(log, TOPICS, tmp_path, group="ledger")
    drain(ledger, lambda: True)
    ledger.close()

    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [f"ledger: refused: {reason}"]


def answered(log: MemoryLog, database: str) -> dict[int, int]:
    """How many entries count for each submission, as a projector sees it."""
    with schema.connect(database) as connection:
        build = schema.new_build(connection, 1, "test") if schema.live_build(connection) else schema.prepare(connection, 1)
    projection = Projection(Writer(database, build), 1)
    reader = log.reader(TOPICS.recorded)
    reader.assign({0: projection.claim(0)})
    records = reader.poll(1000, 0.0)
    if records:
        projection.project(records)
    projection.close()
    with schema.connect(database) as connection:
        rows = connection.execute(f"SELECT \"offset\" FROM {build}.entries WHERE outcome <> 'void'".encode()).fetchall()  # noqa: S608
    counting = {row[0] for row in rows}
    found: Counter[int] = Counter()
    for record in records.get(0, ()):
        event = read_entry(record).event
        if record.offset in counting and event is not None and event.meta.ledger is not None:
            found[event.meta.ledger.submitted_offset] += 1
    return dict(sorted(found.items()))
