"""What must hold when the database and the broker are away for a while: the services stay, say so, and catch up. Counted."""

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
from prometheus_client import REGISTRY

from aidtrail import service
from aidtrail.domain.events import Actor
from aidtrail.errors import UnavailableError
from aidtrail.ledger import Ledger
from aidtrail.log.kafka import KafkaLog
from aidtrail.log.memory import MemoryLog
from aidtrail.projector import Projector
from aidtrail.service import Pulse
from aidtrail.timekeeper import Timekeeper
from aidtrail.views import schema
from tests.bench import lives
from tests.brokers import Broker
from tests.conftest import require_kafka
from tests.databases import Server
from tests.pipeline import TOPICS
from tests.test_faults import PARTITIONS, Pipeline
from tests.waiting import eventually

pytestmark = [pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"), pytest.mark.usefixtures("refused_sockets")]

SERVICES = ("ledger", "project")
DONATIONS = 10
SECONDS = 90.0


@pytest.fixture
def server() -> Iterator[Server]:
    """A PostgreSQL that this test may crash."""
    with Server() as running:
        yield running


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker that this test may kill."""
    require_kafka()
    with Broker() as running:
        yield running


class Watched:
    """Ledger and projector, each started once in a process of its own, and what is submitted to them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.submitted = 0
        self.processes = {name: pipeline.start(name) for name in SERVICES}
        # Longer than any outage here: what is submitted during one is acknowledged after it.
        self._log = KafkaLog([pipeline.bootstrap], delivery_timeout_seconds=180)
        self._appender = self._log.appender()

    def submit(self) -> None:
        """DONATIONS lives more."""
        first = 1 + self.submitted
        drafts = list(lives.submissions(self.pipeline.topics.submitted, PARTITIONS, DONATIONS, active=DONATIONS, first=first))
        self._appender.append(drafts)
        self.submitted += len(drafts)

    def said(self, name: str) -> str:
        return (self.pipeline.folder / f"{name}.err").read_text()

    def report(self, *names: str) -> Callable[[], bool]:
        """A condition: each of these services has said once more than by now that it tries again (equal lines are written once in 30 s)."""
        before = {name: self.said(name).count("trying again") for name in names}
        return lambda: self.alive() and all(self.said(name).count("trying again") > count for name, count in before.items())

    def alive(self) -> bool:
        for name, process in self.processes.items():
            assert process.poll() is None, self.said(name)
        return True

    def ruled(self) -> bool:
        return len(self.pipeline.answered()) == self.submitted

    def caught_up(self) -> bool:
        try:
            return (
                self.alive()
                and self.ruled()
                and self.pipeline.next_offsets() == self.pipeline.log.end_offsets(self.pipeline.topics.recorded)
            )
        except UnavailableError:  # our own connection to the broker comes back in its own time
            return False

    def close(self) -> None:
        self._appender.close()
        self._log.close()
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ride_out(server: Server, broker: Broker, folder: Path, seconds: float) -> None:
    """Both outages, each for so many seconds and until the services concerned have reported it; then count."""
    with ExitStack() as stack:
        pipeline = Pipeline(broker.bootstrap, server.create_database(), folder, "outages")
        stack.callback(pipeline.log.close)
        watched = Watched(pipeline)
        stack.callback(watched.close)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        watched.submit()
        assert eventually(watched.caught_up, SECONDS), watched.said("project")

        server.crash()
        until = monotonic() + seconds
        reported = watched.report("project")
        quiet = watched.said("ledger")
        watched.submit()
        assert eventually(watched.ruled, SECONDS), watched.said("ledger")
        assert eventually(lambda: reported() and monotonic() >= until, seconds + SECONDS), watched.said("project")
        assert watched.said("ledger") == quiet  # it has no database to lose
        server.start()
        assert eventually(watched.caught_up, SECONDS), watched.said("project")

        watched.submit()
        broker.kill()
        until = monotonic() + seconds
        reported = watched.report(*SERVICES)
        submission = pool.submit(watched.submit)
        assert eventually(lambda: reported() and monotonic() >= until, seconds + SECONDS), watched.said("ledger") + watched.said("project")
        broker.start()
        submission.result(SECONDS)
        assert eventually(watched.caught_up, SECONDS), watched.said("ledger") + watched.said("project")

        restarts = sum(process.poll() is not None for process in watched.processes.values())
        admitted = pipeline.query("SELECT event_id, count(*) FROM live.entries WHERE outcome = 'admitted' GROUP BY 1")
        lost, twice = watched.submitted - len(admitted), sum(count > 1 for _, count in admitted)
        answered_twice = pipeline.count("SELECT count(*) FROM live.entries WHERE outcome = 'void'")
        audited = pipeline.audited()
        for process in watched.processes.values():
            process.terminate()
        codes = [process.wait(30) for process in watched.processes.values()]

    assert (lost, twice, restarts) == (0, 0, 0)
    assert codes == [0, 0]
    for name in SERVICES:
        said = watched.said(name)
        assert said.count(": running on ") == 1
        assert "Traceback" not in said
    print(
        f"{watched.submitted} submitted, {lost} lost, {twice} twice, 2 outages, {restarts} restarts; "
        f"{answered_twice} answered again and void; {audited}"
    )


def test_the_services_ride_out_a_database_and_a_broker_that_are_away(server: Server, broker: Broker, tmp_path: Path) -> None:
    ride_out(server, broker, tmp_path, seconds=0)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_services_ride_out_outages_of_a_minute_each(server: Server, broker: Broker, tmp_path: Path) -> None:
    """Longer than the time after which an append counts as unknown."""
    ride_out(server, broker, tmp_path, seconds=60)


def test_services_that_have_nothing_to_do_tell_and_count_an_outage_of_the_broker(
    broker: Broker, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOOK_SECONDS", 1.0)
    pipeline = Pipeline(broker.bootstrap, database_url, tmp_path, "idle")
    logs = [KafkaLog([pipeline.bootstrap]) for _ in range(3)]
    stop = Event()
    idle = [
        Ledger(logs[0], pipeline.topics, tmp_path / "ledger", group="ledger"),
        Projector(logs[1], pipeline.topics, database_url, group="projector"),
        Timekeeper(logs[2], pipeline.topics, database_url, stop.wait, actor=Actor(actor_id="clock", party_id="MEF", role="timekeeper")),
    ]
    pulses = [Pulse() for _ in idle]

    with ThreadPoolExecutor(len(idle)) as pool:
        running = [pool.submit(service.run, one, stop, pulse=pulse) for one, pulse in zip(idle, pulses, strict=True)]
        try:
            assert eventually(lambda: [pulse.trouble() for pulse in pulses] == [None] * len(idle), SECONDS)
            before = [outages(one.name) for one in idle]
            broker.kill()
            assert eventually(lambda: all("Kafka at" in (pulse.trouble() or "") for pulse in pulses), SECONDS)
            counted = [outages(one.name) - count for one, count in zip(idle, before, strict=True)]
            broker.start()
            assert eventually(lambda: [pulse.trouble() for pulse in pulses] == [None] * len(idle), SECONDS)
        finally:
            stop.set()
            for one in running:
                one.result(SECONDS)
    for log in (*logs, pipeline.log):
        log.close()

    assert min(counted) >= 1
    print(f"an outage that {len(idle)} idle services sat out: told by {sum(map(bool, counted))}, counted {int(sum(counted))} times")


def outages(name: str) -> float:
    return REGISTRY.get_sample_value("aidtrail_outages_total", {"service": name}) or 0.0


def test_a_connection_lost_while_a_projector_prepares_its_views_is_an_outage(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    TOPICS.create(log, 1)
    projector = Projector(log, TOPICS, database_url, group="projector")

    def lost(connection: schema.Connection, partitions: int) -> str:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        raise AssertionError("the connection outlived its backend")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "prepare", lost)
        with pytest.raises(UnavailableError, match="PostgreSQL went away"):
            projector.turn()
    projector.reset()

    assert projector.turn() == 0
    projector.close()
