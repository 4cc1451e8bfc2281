"""The timekeeper, on the memory log whose clock the test sets and on views in a real PostgreSQL."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest

from aidtrail import codec, timekeeper
from aidtrail.domain.donation import Donation
from aidtrail.domain.events import Actor, Event
from aidtrail.domain.fold import apply
from aidtrail.errors import FoldError, UnavailableError
from aidtrail.ledger import Ledger
from aidtrail.log.memory import MemoryLog
from aidtrail.producer import Producer
from aidtrail.projector import Projector
from aidtrail.service import drain
from aidtrail.timekeeper import EVERY_SECONDS, HEARTBEAT, MARGIN, Timekeeper
from aidtrail.topics import Topics
from aidtrail.views.reader import HistoryRow, Reader
from tests.acts import Acts, registry_events

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ACTOR = Actor(actor_id="timekeeper", party_id="OPS", role="timekeeper")
PARTITIONS = 2


class Office:
    """A pipeline around one donation. `now` is the time of the log and of every timekeeper; a ledger and a projector run when told to."""

    def __init__(self, database: str, folder: Path) -> None:
        self.acts = Acts()
        self.now = self.acts.now
        self.waited: list[float] = []
        self.log = MemoryLog(clock=lambda: (self.now - EPOCH) // timedelta(milliseconds=1))
        self.topics = Topics.of("time")
        self.topics.create(self.log, PARTITIONS)
        self._database = database
        self._producer = Producer(self.log, self.topics)
        self._producer.register(registry_events())
        self._ledger = Ledger(self.log, self.topics, folder, group="ledger")
        self._projector = Projector(self.log, self.topics, database, group="projector")
        self._timekeepers: list[Timekeeper] = []

    def timekeeper(self, clock: Callable[[], datetime] | None = None, heartbeat_seconds: float | None = None) -> Timekeeper:
        clock = clock or (lambda: self.now)
        made = Timekeeper(
            self.log, self.topics, self._database, self.waited.append, actor=ACTOR, clock=clock, heartbeat_seconds=heartbeat_seconds
        )
        self._timekeepers.append(made)
        return made

    def at(self, moment: datetime) -> None:
        self.now = moment

    def submit(self, *events: Event) -> None:
        for event in events:
            self.now = max(self.now, event.meta.occurred_on)
            self._producer.submit([event])

    def rule(self) -> None:
        drain(self._ledger, lambda: True)

    def project(self) -> None:
        drain(self._projector, lambda: self._read(Reader.next_offsets) == self.log.end_offsets(self.topics.recorded))

    def rule_and_project(self) -> None:
        self.rule()
        self.project()

    def submitted(self) -> list[bytes]:
        """The values of `submitted` that a timekeeper wrote."""
        reader = self.log.reader(self.topics.submitted)
        reader.assign(dict.fromkeys(range(PARTITIONS), 0))
        values = [record.value for records in reader.poll(1000, 0).values() for record in records]
        return [value for value in values if value is not None and _event(value).meta.actor == ACTOR]

    def outcomes(self) -> list[str]:
        """What became of them, in the order of the log: the event's type where it was admitted, the reason where it was refused."""
        return [
            row.event.reason if row.outcome == "refused" else row.event.type  # type: ignore[union-attr]
            for row in self.history()
            if row.event is not None and (row.outcome == "refused" or row.event.meta.actor == ACTOR)
        ]

    def history(self) -> list[HistoryRow]:
        return self._read(lambda reader: list(reader.history(self.acts.donation_id)))

    def refusals(self) -> list[tuple[str, str]]:
        """Donation and reason of everything that was refused."""
        with psycopg.connect(self._database) as connection:
            return connection.execute('SELECT donation_id, reason FROM live.refusals ORDER BY partition, "offset"').fetchall()

    def status(self) -> tuple[str, str]:
        """Of the pledge and of its approvals, as the views say."""
        row = self._read(lambda reader: reader.donation(self.acts.donation_id))
        return row.pledge, row.approval

    def cut_connections(self) -> int:
        """End every connection to the database but the one that does it; returns how many there were."""
        with psycopg.connect(self._database) as connection:
            row = connection.execute(
                "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
        return 0 if row is None else int(row[0])

    def close(self) -> None:
        for keeper in self._timekeepers:
            keeper.close()
        self._producer.close()
        self._ledger.close()
        self._projector.close()

    def _read(self, what: Callable[[Reader], Any]) -> Any:
        reader = Reader.open(self._database)
        try:
            return {} if reader.is_empty() else what(reader)
        finally:
            reader.close()


def _event(value: bytes) -> Event:
    event = codec.decode(value)
    assert isinstance(event, Event)
    return event


@pytest.fixture
def office(database_url: str, tmp_path: Path) -> Iterator[Office]:
    made = Office(database_url, tmp_path)
    yield made
    made.close()


@pytest.fixture
def approved(office: Office) -> Office:
    """With a pledge of 1000 KWD until day 350 and an approval of all of it until day 300."""
    office.submit(office.acts.announced(), office.acts.confirmed(), *office.acts.approval())
    office.rule_and_project()
    assert office.status() == ("committed", "granted")
    return office


def test_an_approval_and_a_pledge_that_have_run_out_are_each_submitted_once(approved: Office) -> None:
    keeper = approved.timekeeper()
    turns: list[int] = []
    for day in (301, 351):
        approved.at(approved.acts.later(day))
        turns += [keeper.turn(), keeper.turn()]  # the second finds it due still: nothing has been ruled or projected
        approved.rule_and_project()
        turns.append(keeper.turn())

    assert turns == [1, 0, 0, 1, 0, 0]
    assert approved.outcomes() == ["ApprovalExpired", "PledgeExpired"]
    assert approved.status() == ("expired", "expired")
    assert approved.waited == [EVERY_SECONDS] * len(turns)
    print(f"{len(turns)} turns, 2 due, {len(approved.submitted())} submitted, 0 twice")


def test_all_that_is_due_is_submitted_in_one_turn(approved: Office) -> None:
    approved.at(approved.acts.later(400))

    assert approved.timekeeper().turn() == 2

    approved.rule_and_project()
    assert sorted(approved.outcomes()) == ["ApprovalExpired", "PledgeExpired"]


def test_a_second_timekeeper_submits_the_same_bytes_and_the_ledger_refuses_them(approved: Office) -> None:
    approved.at(approved.acts.later(301))
    first, second = approved.timekeeper(), approved.timekeeper()
    assert (first.turn(), second.turn()) == (1, 1)
    approved.rule_and_project()

    values = approved.submitted()
    assert len(values) == 2
    assert values[0] == values[1]
    assert approved.outcomes() == ["ApprovalExpired", "duplicate_event"]
    assert approved.status() == ("committed", "expired")
    print("2 timekeepers, 2 submissions of the same bytes, 1 admitted, 1 duplicate_event")


def test_a_deadline_that_is_refused_is_submitted_again_only_after_the_donation_has_changed(approved: Office) -> None:
    """The views do not know yet that a payment was instructed, the ledger does."""
    acts, keeper = approved.acts, approved.timekeeper()
    approved.submit(acts.instructed("D1", "400"))
    approved.rule()
    approved.at(acts.later(351))
    turns = [keeper.turn()]
    approved.rule()
    turns.append(keeper.turn())
    approved.project()
    turns.append(keeper.turn())
    assert approved.outcomes() == ["nothing_is_in_flight", "ApprovalExpired"]

    approved.submit(acts.bank_rejected("D1", "krcs-preparer", meta={"occurred_on": approved.now}))
    approved.rule_and_project()
    turns += [keeper.turn(), keeper.turn()]
    approved.rule_and_project()
    turns.append(keeper.turn())

    assert turns == [2, 0, 0, 1, 0, 0]
    assert approved.outcomes() == ["nothing_is_in_flight", "ApprovalExpired", "PledgeExpired"]
    ids = [_event(value).meta.event_id for value in approved.submitted() if _event(value).type == "PledgeExpired"]
    assert len(set(ids)) == len(ids) == 2
    print(f"{len(turns)} turns, 1 refused while money was in flight, submitted again once, after the payment was rejected")


@pytest.mark.parametrize(("day", "type_"), [(300, "ApprovalExpired"), (350, "PledgeExpired")])
def test_nothing_is_due_before_its_time(approved: Office, day: int, type_: str) -> None:
    keeper = approved.timekeeper()
    deadline = approved.acts.later(day)
    found = {}
    for moment in (deadline - timedelta(days=1), deadline, deadline + MARGIN - timedelta(milliseconds=1), deadline + MARGIN):
        approved.at(moment)
        found[moment] = type_ in {event.type for event in keeper.due()}

    assert list(found.values()) == [False, False, False, True]


def test_a_clock_that_is_ahead_of_the_logs_submits_nothing_too_early(approved: Office) -> None:
    """What is refused for being early would have the same bytes later, and be refused for that."""
    ahead = timedelta(seconds=59)
    keeper = approved.timekeeper(clock=lambda: approved.now + ahead)
    deadline = approved.acts.later(300)
    turns = 0
    for second in range(-60, 15, 5):
        approved.at(deadline + timedelta(seconds=second))
        turns += 1
        keeper.turn()
    approved.rule_and_project()

    assert approved.outcomes() == ["ApprovalExpired"]
    print(f"{turns} turns of a clock {ahead.seconds} s ahead, 1 submitted, 0 refused")


def test_nothing_is_due_where_no_projector_has_run_yet(office: Office) -> None:
    office.at(office.acts.later(400))

    assert office.timekeeper().turn() == 0


@pytest.mark.parametrize("error", [FoldError, ValueError])
def test_a_donation_that_cannot_be_folded_keeps_no_other_from_expiring(
    error: type[Exception], approved: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Acts("KRCS-2026-0002")
    approved.submit(other.announced())
    approved.rule_and_project()
    approved.at(other.later(400))

    def fold(donation: Donation | None, event: Event) -> Donation:
        if event.meta.donation_id == approved.acts.donation_id:
            raise error("a fault in the fold")
        return apply(donation, event)

    monkeypatch.setattr(timekeeper, "apply", fold)

    assert [event.meta.donation_id for event in approved.timekeeper().due()] == [other.donation_id]


@pytest.mark.parametrize(("when", "outcomes"), [("before", ["ApprovalExpired"]), ("after", ["ApprovalExpired", "duplicate_event"])])
def test_an_append_of_unknown_fate_is_an_outage_and_is_made_again(
    approved: Office, when: Literal["before", "after"], outcomes: list[str]
) -> None:
    keeper = approved.timekeeper()
    approved.at(approved.acts.later(301))
    approved.log.fail_next_append = when

    with pytest.raises(UnavailableError, match="not acknowledged"):
        keeper.turn()
    keeper.reset()
    assert keeper.turn() == 1

    approved.rule_and_project()
    assert approved.outcomes() == outcomes
    assert approved.status() == ("committed", "expired")


def test_a_database_that_goes_away_is_an_outage(approved: Office) -> None:
    keeper = approved.timekeeper()
    assert keeper.turn() == 0
    approved.at(approved.acts.later(301))
    assert approved.cut_connections() >= 1

    with pytest.raises(UnavailableError, match="PostgreSQL went away"):
        keeper.turn()
    keeper.reset()

    assert keeper.turn() == 1


# --- the heartbeat --------------------------------------------------------------------------------------------------------------------


def test_while_the_views_stand_still_a_heartbeat_comes_into_them_once_an_interval(approved: Office) -> None:
    keeper = approved.timekeeper(heartbeat_seconds=60)
    start, beats = approved.now, []
    for second in range(0, 301, 5):
        before = len(approved.submitted())
        approved.at(start + timedelta(seconds=second))
        keeper.turn()
        if len(approved.submitted()) > before:
            beats.append(second)
            approved.rule_and_project()

    assert beats == [60, 125, 190, 255]  # it is seen 5 s later that one came into the views
    assert approved.refusals() == [(HEARTBEAT.format(start), "donation_is_known")] * 4
    print(f"300 s without a donation: {len(beats)} heartbeats, all refused and in the views")


def test_while_donations_move_there_is_no_heartbeat(approved: Office) -> None:
    keeper = approved.timekeeper(heartbeat_seconds=60)
    start = approved.now
    for minute in range(4):
        for second in (0, 30):
            approved.at(start + timedelta(minutes=minute, seconds=second))
            keeper.turn()
        approved.submit(Acts(f"KRCS-2026-01{minute:02}").announced())
        approved.rule_and_project()

    assert approved.submitted() == []


def test_without_the_setting_there_is_no_heartbeat(approved: Office) -> None:
    keeper = approved.timekeeper()
    keeper.turn()
    approved.at(approved.now + timedelta(days=1))
    keeper.turn()

    assert approved.submitted() == []


def test_two_timekeepers_beat_with_the_same_bytes(approved: Office) -> None:
    keepers = [approved.timekeeper(heartbeat_seconds=60) for _ in range(2)]
    start = approved.now.replace(second=0, microsecond=0) + timedelta(minutes=5)
    for moment in (start, start + timedelta(seconds=60), start + timedelta(seconds=65)):
        approved.at(moment)
        for keeper in keepers:
            keeper.turn()

    assert len(approved.submitted()) == 2
    assert len(set(approved.submitted())) == 1
