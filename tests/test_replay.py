"""An auditor rules again: what an honest ledger recorded is equal, in one process or several, and whatever people did."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from aidtrail import codec
from aidtrail.audit.findings import MAX_NAMED, Report, Start
from aidtrail.audit.replay import extent_now, replay, replay_in_processes
from aidtrail.chain import NO_TAIL, Tail, read_entry
from aidtrail.demo.story import story
from aidtrail.domain import events as e
from aidtrail.domain.donation import Donation
from aidtrail.errors import UsageError
from aidtrail.ledger import Ledger
from aidtrail.log import Draft, Log, Record, partition_of
from aidtrail.log.memory import MemoryLog
from aidtrail.log.postgres import PostgresLog
from aidtrail.producer import Producer
from aidtrail.topics import Topics
from tests.acts import START, Acts, registry_events
from tests.bench import lives
from tests.replaying import (
    ALIKE,
    PARTITIONS,
    TOPICS,
    Clock,
    Forger,
    entries,
    home,
    instruction,
    ledger,
    milliseconds,
    only,
    pipeline,
    recorded,
    restamped,
    stamp_of,
    stamped,
    submit,
    uuid4_7,
)
from tests.test_domain_machine import SEED, Lives


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


# --- from a cut ----------------------------------------------------------------------------------------------------------------------


def starts_in(log: MemoryLog, offsets: Mapping[int, int]) -> dict[int, Start]:
    """To begin at these offsets of `recorded`, after the outcomes that stand before them."""
    found = {}
    for partition, offset in offsets.items():
        counting = [entry for entry in entries(log, partition)[:offset] if entry.fault is None]
        tail = Tail(stamp_of(counting[-1].event).submitted_offset, codec.sha256(counting[-1].value)) if counting else NO_TAIL
        found[partition] = Start(offset, tail)
    return found


def test_a_replay_from_any_cut_follows_what_is_before_and_rules_the_rest_again(honest: MemoryLog) -> None:
    end = extent_now(honest, TOPICS)
    replayed = 0
    for number in range(max(end.recorded.values()) + 1):
        offsets = {partition: min(number, last) for partition, last in end.recorded.items()}

        found = replay(honest, TOPICS, extent=end._replace(starts=starts_in(honest, offsets)))

        followed = sum(offsets.values())
        assert (found.followed, found.equal, found.differing) == (followed, found.entries - followed, 0), found.differences
        assert found.submissions == found.equal
        replayed += 1
    print(f"{replayed} cuts to begin at, 0 differences")


def test_entries_before_the_start_are_not_ruled_again_and_those_after_it_are(honest: MemoryLog) -> None:
    forger = Forger(honest)
    offset = forger.where(instruction)
    event = forger.event(offset)
    assert isinstance(event, e.DisbursementInstructed)
    forger.put(offset, event.model_copy(update={"end_to_end_id": "FORGED"}))
    end = extent_now(honest, TOPICS)

    def differing(first: int) -> int:
        starts = starts_in(honest, dict.fromkeys(end.recorded, 0) | {forger.partition: first})
        return replay(honest, TOPICS, extent=end._replace(starts=starts)).differing

    assert differing(offset) == 1
    assert differing(offset + 1) == 0


def test_a_start_whose_last_outcome_is_another_is_named(honest: MemoryLog) -> None:
    end = extent_now(honest, TOPICS)
    starts = starts_in(honest, {partition: min(4, last) for partition, last in end.recorded.items()})
    forger = Forger(honest)
    forger.restamp(2, rules=1)

    difference = only(replay(honest, TOPICS, extent=end._replace(starts=starts)))

    assert (difference.partition, difference.offset, difference.field) == (forger.partition, 3, "last outcome before the start")
    assert difference.expected == f"submission {starts[forger.partition].tail.submitted_offset}, sha256 " + (
        starts[forger.partition].tail.sha256.hex()
    )


def test_a_start_after_the_end_is_refused(honest: MemoryLog) -> None:
    end = extent_now(honest, TOPICS)
    starts = {partition: Start(last + 1, NO_TAIL) for partition, last in end.recorded.items()}

    with pytest.raises(UsageError, match="is after the end"):
        replay(honest, TOPICS, extent=end._replace(starts=starts))


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
