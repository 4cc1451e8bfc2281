"""What must hold when processes die, stop and wake, and when somebody else writes to the log: on real Kafka and PostgreSQL, counted."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aidtrail import codec, metrics, projection
from aidtrail.audit import verifier
from aidtrail.audit.evidence import export
from aidtrail.audit.rebuild import rebuild
from aidtrail.audit.replay import replay
from aidtrail.audit.seal import Sealer
from aidtrail.chain import NO_HEAD, read_entry
from aidtrail.domain.donation import Donation
from aidtrail.domain.events import Event, LedgerStamp
from aidtrail.domain.fold import apply
from aidtrail.errors import AppendUnknownError
from aidtrail.ledger import Ledger
from aidtrail.log import Draft, partition_of
from aidtrail.log.kafka import KafkaLog
from aidtrail.producer import Producer
from aidtrail.projector import Projector, unpark
from aidtrail.service import drain
from aidtrail.topics import Topics
from aidtrail.views import schema
from aidtrail.views.reader import Reader
from aidtrail.views.writer import Writer
from tests.bench import lives
from tests.brokers import Broker
from tests.signers import signer
from tests.waiting import eventually

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
    pytest.mark.usefixtures("refused_sockets"),
]

PARTITIONS = 6
KEY = signer("aidtrail.example/log")
AIDTRAIL = Path(sys.executable).with_name("aidtrail")


class Pipeline:
    """Topics of its own on a broker, a database, and the means to run services in this process or beside it."""

    def __init__(self, bootstrap: str, database: str, folder: Path, prefix: str) -> None:
        self.bootstrap, self.database, self.folder, self.prefix = bootstrap, database, folder, prefix
        self.topics = Topics.of(prefix)
        self.log = KafkaLog([bootstrap])
        self.topics.create(self.log, PARTITIONS)
        with Producer(self.log, self.topics) as producer:
            producer.register(lives.registry_events())

    def ledger(self, store: str = "store") -> Ledger:
        return Ledger(self.log, self.topics, self.folder / store, group=f"{self.prefix}-ledger")

    def projector(self, **options: Any) -> Projector:
        return Projector(self.log, self.topics, self.database, group=f"{self.prefix}-projector", **options)

    def submit(self, donations: int, first: int = 1) -> int:
        drafts = list(lives.submissions(self.topics.submitted, PARTITIONS, donations, active=50, first=first))
        appender = self.log.appender()
        appender.append(drafts)
        appender.close()
        return len(drafts)

    def rule(self) -> None:
        """Let a ledger answer all that was submitted."""
        ledger = self.ledger()
        drain(ledger, lambda: len(self.answered()) == total(self.log.end_offsets(self.topics.submitted)))
        ledger.close()

    def project(self, **options: Any) -> None:
        """Let a projector bring the views to the end of the log."""
        projector = self.projector(**options)
        drain(projector, lambda: self.next_offsets() == self.log.end_offsets(self.topics.recorded))
        projector.close()

    def next_offsets(self) -> dict[int, int]:
        reader = Reader.open(self.database)
        try:
            return {} if reader.is_empty() else reader.next_offsets()
        finally:
            reader.close()

    def answered(self) -> set[tuple[int, int]]:
        """The submissions that have an outcome, from the raw log. What forged entries claim beyond the end of `submitted` is left out."""
        submitted = self.log.end_offsets(self.topics.submitted)
        reader = self.log.reader(self.topics.recorded)
        ends = self.log.end_offsets(self.topics.recorded)
        reader.assign(dict.fromkeys(ends, 0))
        found: set[tuple[int, int]] = set()
        read = 0
        while read < total(ends):
            for partition, records in reader.poll(5000, 10.0).items():
                read += len(records)
                for entry in map(read_entry, records):
                    if entry.fault is None and entry.event is not None and entry.event.meta.ledger is not None:
                        found.add((partition, entry.event.meta.ledger.submitted_offset))
        reader.close()
        return {(partition, offset) for partition, offset in found if offset < submitted[partition]}

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database) as connection:
            return connection.execute(statement.encode()).fetchall()

    def count(self, statement: str) -> int:
        return int(self.query(statement)[0][0])

    def audited(self) -> str:
        """Projects again and rules again on everything, seals it and lets the independent verifier look at an export: asserts that nothing
        differs and that replay, verifier and views call the same entries void; returns the counts in words."""
        comparison = rebuild(self.log, self.topics, self.database)
        assert comparison.total_differences == 0, comparison
        report = replay(self.log, self.topics)
        counts = outcomes(self)
        assert (report.differing, report.unanswered, report.not_redecidable.total()) == (0, 0, 0), report
        assert report.equal == report.submissions == counts.get("admitted", 0) + counts.get("refused", 0)
        assert report.void.total() == counts.get("void", 0) == report.entries - report.equal
        verified = self.verified()
        assert (verified.exit_code, verified.void) == (0, counts.get("void", 0)), verified
        return (
            f"{comparison.total_rows} rows compared, {comparison.total_differences} differences; "
            f"{report.equal} outcomes ruled again, {report.differing} differ, {report.void.total()} void; "
            f"{verified.admitted} admitted entries verified, exit code {verified.exit_code}"
        )

    def verified(self) -> verifier.Report:
        sealer = Sealer(self.log, self.topics, KEY, self.folder / "seal", seal_seconds=0.0)
        while sealer.turn():
            pass
        sealer.close()
        with tempfile.TemporaryDirectory() as folder:
            export(self.log, self.topics, self.database, KEY.verifier, Path(folder) / "export")
            return verifier.verify(Path(folder) / "export", verifier.Trust(verifier.Key.parse(str(KEY.verifier))))

    @contextmanager
    def process(self, name: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        process = self.start(name, **environment)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name: str, **environment: str) -> subprocess.Popen[bytes]:
        """A service as its users run it: `aidtrail ledger`, `aidtrail project`."""
        settings = {
            "AIDTRAIL_LOG": f"kafka://{self.bootstrap}",
            "AIDTRAIL_VIEWS": self.database,
            "AIDTRAIL_HOME": str(self.folder),
            "AIDTRAIL_TOPIC_PREFIX": self.prefix,
        }
        with open(self.folder / f"{name}.err", "ab") as errors:
            return subprocess.Popen([str(AIDTRAIL), name], env={**os.environ, **settings, **environment}, stdout=errors, stderr=errors)

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.err").read_text()[-3000:]


def total(offsets: Mapping[int, int]) -> int:
    return sum(offsets.values())


@pytest.fixture
def pipeline(kafka_broker: str, database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    made = Pipeline(kafka_broker, database_url, tmp_path, f"faults-{abs(hash(request.node.name)) % 10**8}-{time.time_ns() % 10**6}")
    yield made
    made.log.close()


def outcomes(pipeline: Pipeline) -> dict[str, int]:
    return dict(pipeline.query("SELECT outcome, count(*) FROM live.entries GROUP BY outcome"))


def test_late_entries_of_a_zombie_ledger_are_void_and_change_nothing(pipeline: Pipeline) -> None:
    """One ledger has decided and stands still before its append; another takes over, answers everything; then the first appends."""
    submitted = pipeline.submit(40)
    zombie = pipeline.ledger("zombie")
    assert eventually(lambda: bool(zombie._membership.owned()), 20)
    held: list[list[Draft]] = []
    appender = pipeline.log.appender()

    class Frozen:
        def append(self, drafts: list[Draft]) -> Any:
            held.append(list(drafts))
            raise AppendUnknownError("frozen")

        def close(self) -> None:
            pass

    zombie._appender = Frozen()
    while not held:
        zombie.turn()
    zombie.close()
    pipeline.rule()
    pipeline.project()
    before = pipeline.query("SELECT * FROM live.donations ORDER BY 1")

    appender.append(held[0])
    appender.close()
    pipeline.submit(5, first=1000)
    pipeline.rule()
    pipeline.project()

    found = outcomes(pipeline)
    after = pipeline.query("SELECT * FROM live.donations WHERE donation_id < 'BENCH-00001000' ORDER BY 1")
    audited = pipeline.audited()
    assert found["void"] == len(held[0])
    assert found["admitted"] == submitted + 5 * len(lives.steps())
    assert before == after
    print(f"{len(held[0])} late entries, {found['void']} void, 0 effects; {audited}")


def test_a_ledger_that_is_stopped_and_wakes_after_another_took_over_has_no_second_effect(pipeline: Pipeline) -> None:
    with pipeline.process("ledger") as first:
        pipeline.submit(20)
        assert eventually(lambda: len(pipeline.answered()) >= 20, 30), pipeline.said("ledger")
        first.send_signal(signal.SIGSTOP)
        pipeline.submit(40, first=100)
        with pipeline.process("ledger", AIDTRAIL_HOME=str(pipeline.folder / "second")):
            ends = total(pipeline.log.end_offsets(pipeline.topics.submitted))
            assert eventually(lambda: len(pipeline.answered()) == ends, 60), pipeline.said("ledger")
            first.send_signal(signal.SIGCONT)
            pipeline.submit(40, first=200)
            ends = total(pipeline.log.end_offsets(pipeline.topics.submitted))
            assert eventually(lambda: len(pipeline.answered()) == ends, 60), pipeline.said("ledger")
    pipeline.project()

    found = outcomes(pipeline)
    audited = pipeline.audited()
    assert found["admitted"] == 100 * len(lives.steps())
    assert found.get("refused", 0) == 0
    print(f"{ends} submissions, {found['admitted']} admitted, {found.get('void', 0)} void; {audited}")


def named(event: Event, donation_id: str) -> tuple[bytes, bytes]:
    """Key and value of an entry of a donation with another id."""
    meta = event.meta.model_copy(update={"donation_id": donation_id})
    return donation_id.encode(), codec.encode(event.model_copy(update={"meta": meta}))


def test_entries_that_a_rogue_writer_forges_are_void_and_counted(pipeline: Pipeline) -> None:
    pipeline.submit(30)
    pipeline.rule()
    pipeline.project()
    before = pipeline.query("SELECT * FROM live.donations ORDER BY 1")
    genuine = list(lives.entries(pipeline.topics.recorded, PARTITIONS, 30, active=50))
    far = 10**6
    tails = dict(pipeline.query("SELECT partition, last_outcome_sha256 FROM live.positions"))
    forged: list[Draft] = []
    for number, draft in enumerate(genuine[:200]):
        event, at = codec.read(draft.value)
        assert isinstance(event, Event)
        assert event.meta.ledger is not None
        plain = codec.unstamped(draft.value, at, event.meta.ledger)
        stamp = event.meta.ledger
        ahead = {"submitted_offset": far, "previous_outcome_sha256": tails[draft.partition]}
        changes: list[tuple[bytes, bytes]] = [
            (draft.key, draft.value),  # a repeat of a genuine entry
            (draft.key, codec.stamped(plain, at, stamp.model_copy(update={"submitted_offset": far}))),  # an outcome left out
            (draft.key, codec.stamped(plain, at, stamp.model_copy(update={**ahead, "version": 99}))),
            (draft.key, codec.stamped(plain, at, stamp.model_copy(update={**ahead, "previous_sha256": b"x" * 32}))),
            (draft.key, plain),  # not stamped
            (draft.key, draft.value + b"\x00"),  # not canonical
            (b"SOMEBODY-ELSE", draft.value),
            (draft.key, b"\x00\x00\x00\xff\xffnothing"),
            (draft.key, draft.value.replace(event.meta.actor.role.encode(), b"\x00" * len(event.meta.actor.role))),  # no column takes it
            named(event, random.Random(number).randbytes(5000).hex()),  # nor an index this
        ]
        key, value = changes[number % len(changes)]
        forged.append(draft._replace(key=key, value=value))
    # A donation that is new, chains perfectly and stands in a partition that is not its own.
    first = genuine[0]
    event, at = codec.read(first.value)
    assert isinstance(event, Event)
    assert event.meta.ledger is not None
    other = codec.unstamped(first.value, at, event.meta.ledger).replace(first.key, b"BENCH-77777777")
    home = partition_of(b"BENCH-77777777", PARTITIONS)
    for partition in {0, 1, 2} - {home}:
        forged.append(Draft(first.topic, partition, b"BENCH-77777777", codec.stamped(other, at, genesis(far, tails[partition]))))
    appender = pipeline.log.appender()
    appender.append(forged)
    appender.close()
    pipeline.submit(10, first=500)
    pipeline.rule()

    pipeline.project()

    found = outcomes(pipeline)
    reasons = pipeline.query("SELECT void_reason, count(*) FROM live.entries WHERE outcome = 'void' GROUP BY 1 ORDER BY 1")
    after = pipeline.query("SELECT * FROM live.donations WHERE donation_id < 'BENCH-00000500' ORDER BY 1")
    audited = pipeline.audited()
    assert found["void"] == len(forged)
    assert found["admitted"] == 40 * len(lives.steps())
    assert before == after
    print(f"{len(forged)} forged, {found['void']} void, 0 effects: {reasons}; {audited}")


def genesis(submitted_offset: int, previous_outcome_sha256: bytes) -> LedgerStamp:
    return LedgerStamp(
        version=1,
        submitted_offset=submitted_offset,
        previous_outcome_sha256=previous_outcome_sha256,
        recorded_at=lives.NOW,
        previous_sha256=NO_HEAD.sha256,
        registry_offset=0,
        rules=1,
    )


def test_a_zombie_projector_writes_nothing_and_no_row_goes_back_in_version(pipeline: Pipeline) -> None:
    pipeline.submit(60)
    pipeline.rule()
    zombie = pipeline.projector(max_batch=100)
    assert eventually(lambda: zombie.turn() > 0, 20)
    assert eventually(lambda: zombie.turn() > 0, 20)
    assert zombie._projection is not None
    zombie._projection.settle()
    with schema.connect(pipeline.database) as connection:
        build = schema.live_build(connection)
    assert build is not None
    pipeline_writer = Writer(pipeline.database, build)
    successor = projection.Projection(pipeline_writer, PARTITIONS)
    reader = pipeline.log.reader(pipeline.topics.recorded)
    positions = {partition: successor.claim(partition) for partition in range(PARTITIONS)}
    reader.assign(positions)
    ends = pipeline.log.end_offsets(pipeline.topics.recorded)
    while any(positions[partition] < ends[partition] for partition in ends):
        records = reader.poll(5000, 10.0)
        successor.project(records)
        positions |= {partition: successor.next_offset(partition) for partition in records}
    successor.settle()
    before = pipeline.query("SELECT donation_id, version FROM live.donations ORDER BY 1")
    lost = metrics.FENCES_LOST._value.get()

    while metrics.FENCES_LOST._value.get() == lost:  # it wakes and goes on where it stood
        zombie.turn()

    after = pipeline.query("SELECT donation_id, version FROM live.donations ORDER BY 1")
    assert before == after
    zombie.close()
    successor.close()
    reader.close()
    audited = pipeline.audited()
    print(f"1 batch of the zombie rolled back, 0 rows changed; {audited}")


def test_ten_thousand_records_that_are_delivered_again_have_no_second_effect(pipeline: Pipeline) -> None:
    submitted = pipeline.submit(450)
    pipeline.rule()
    pipeline.project()
    before = pipeline.query("SELECT * FROM live.entries ORDER BY 1, 2"), pipeline.query("SELECT * FROM live.donations ORDER BY 1")
    for group, topic in (("ledger", pipeline.topics.submitted), ("projector", pipeline.topics.recorded)):
        member = pipeline.log.join(f"{pipeline.prefix}-{group}", topic)
        assert eventually(lambda member=member: bool(member.owned()), 20)  # type: ignore[misc]
        member.commit(dict.fromkeys(range(PARTITIONS), 0))
        assert eventually(lambda group=group, topic=topic: total(pipeline.log.committed(f"{pipeline.prefix}-{group}", topic)) == 0, 20)  # type: ignore[misc]
        member.close()

    pipeline.rule()
    pipeline.project()

    after = pipeline.query("SELECT * FROM live.entries ORDER BY 1, 2"), pipeline.query("SELECT * FROM live.donations ORDER BY 1")
    audited = pipeline.audited()
    assert submitted >= 10_000
    assert before == after
    print(f"{submitted} records to be read again by the group's offsets, 0 repeated effects; {audited}")


def test_a_donation_whose_fold_raises_is_parked_and_comes_back_in_order_after_a_fix(pipeline: Pipeline) -> None:
    pipeline.submit(20)
    pipeline.rule()

    def broken(donation: Donation | None, event: Event) -> Donation:
        if event.meta.donation_id == "BENCH-00000007" and donation is not None and donation.version == 5:
            raise RuntimeError("a fault in the fold")
        return apply(donation, event)

    pipeline.project(apply=broken)

    versions = dict(pipeline.query("SELECT donation_id, version FROM live.donations"))
    assert metrics.PARKED._value.get() == 1
    assert versions.pop("BENCH-00000007") == 5
    assert set(versions.values()) == {len(lives.steps())}
    assert len(versions) == 19

    assert unpark(pipeline.database) == {"BENCH-00000007": None}

    versions = dict(pipeline.query("SELECT donation_id, version FROM live.donations"))
    audited = pipeline.audited()
    assert set(versions.values()) == {len(lives.steps())}
    assert pipeline.count("SELECT count(*) FROM live.parked") == 0
    print(f"1 parked at version 5, 19 others went on, 1 back at version {len(lives.steps())}; {audited}")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_is_lost_or_repeated_while_ledger_projector_and_broker_are_killed(database_url: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("AIDTRAIL_SEED", time.time_ns() % 10**6))
    chance = random.Random(seed)
    kills = {"ledger": 0, "project": 0, "broker": 0}
    wanted = {"ledger": 20, "project": 20, "broker": 3}
    with Broker() as broker:
        pipeline = Pipeline(broker.bootstrap, database_url, tmp_path, "killed")
        drafts = lives.submissions(pipeline.topics.submitted, PARTITIONS, 870, active=300, seed=seed)
        running = {name: pipeline.start(name) for name in ("ledger", "project")}
        due = {name: time.monotonic() + chance.uniform(1, 8) for name in wanted}
        appended = 0
        appender = pipeline.log.appender()
        while batch := list(islice(drafts, 100)):
            for name in wanted:
                if time.monotonic() >= due[name] and kills[name] < wanted[name]:
                    kills[name] += 1
                    due[name] = time.monotonic() + (chance.uniform(15, 40) if name == "broker" else chance.uniform(2, 9))
                    if name == "broker":
                        broker.kill()
                        broker.start()
                    else:
                        running[name].kill()
                        running[name].wait()
                        running[name] = pipeline.start(name)
            appender.append(batch)  # the delivery time-out is longer than the outage: every append is acknowledged
            appended += len(batch)
            time.sleep(0.6 if kills != wanted else 0.0)  # so that the submissions last as long as the kills
        for name in ("ledger", "project"):
            while kills[name] < wanted[name]:
                kills[name] += 1
                running[name].kill()
                running[name].wait()
                running[name] = pipeline.start(name)
                time.sleep(chance.uniform(0.5, 3))
        appender.close()
        ends = pipeline.log.end_offsets(pipeline.topics.submitted)
        assert eventually(lambda: len(pipeline.answered()) == total(ends), 120), pipeline.said("ledger")
        recorded = pipeline.log.end_offsets(pipeline.topics.recorded)
        assert eventually(lambda: pipeline.next_offsets() == recorded, 120), pipeline.said("project")
        for process in running.values():
            process.terminate()
            assert process.wait(20) == 0
        found = outcomes(pipeline)
        twice = pipeline.count(
            "SELECT count(*) FROM (SELECT event_id FROM live.entries WHERE outcome = 'admitted' GROUP BY 1 HAVING count(*) > 1) t"
        )
        disorder = pipeline.count(
            'SELECT count(*) FROM (SELECT version, row_number() OVER (PARTITION BY donation_id ORDER BY "offset") AS place'
            " FROM live.entries WHERE outcome = 'admitted') t WHERE version <> place"
        )
        audited = pipeline.audited()
        pipeline.log.close()

    assert kills == wanted
    assert total(ends) == appended
    assert found["admitted"] == appended
    assert (twice, disorder) == (0, 0)
    print(
        f"seed {seed}: {appended} submissions, {kills['ledger']} ledger, {kills['project']} projector and {kills['broker']} broker kills; "
        f"0 lost, {twice} with two effects, {disorder} out of order, {found.get('void', 0)} void; {audited}"
    )
