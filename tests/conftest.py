"""Real brokers and databases for the tests, started once a run."""

import gc
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from aidtrail.audit.replay import replay
from aidtrail.log import Log
from aidtrail.log.kafka import KafkaLog
from aidtrail.log.memory import MemoryLog
from aidtrail.log.postgres import PostgresLog
from tests.acts import Acts, full_life
from tests.brokers import Broker, SecuredBroker, missing_programs
from tests.databases import Server
from tests.replaying import ALIKE, TOPICS, Clock, ledger, pipeline, submit, unlawful


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A Kafka broker that no test kills."""
    require_kafka()
    with Broker() as running:
        yield running


@pytest.fixture(scope="session")
def secured() -> Iterator[SecuredBroker]:
    """A broker that asks for credentials; for tests that have topics of their own."""
    require_kafka()
    with SecuredBroker() as running:
        yield running


def require_kafka() -> None:
    """Without Java or Maven: a shown skip, in CI a failure."""
    missing = missing_programs()
    if missing:
        message = f"Kafka tests need {' and '.join(missing)} on the PATH"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def kafka_broker(broker: Broker) -> str:
    """host:port of `broker`."""
    return broker.bootstrap


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def database_url(postgres_server: Server) -> Iterator[str]:
    """A fresh database."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def refused_sockets(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """For tests that end brokers. kafka-python 3.0.12 leaves a socket whose connection was refused to the garbage collector, which closes
    it and warns: here, where the test ignores that, and not in a later test or at the end of the run."""
    yield
    caplog.get_records("call").clear()  # they hold exceptions, and these the sockets
    gc.collect()


@pytest.fixture(params=["memory", "postgres", "kafka"])
def log(request: pytest.FixtureRequest) -> Iterator[Log]:
    """An open log of each kind in turn."""
    opened: Log
    if request.param == "memory":
        opened = MemoryLog()
    elif request.param == "postgres":
        opened = PostgresLog(request.getfixturevalue("database_url"))
    else:
        opened = KafkaLog([request.getfixturevalue("kafka_broker")])
    yield opened
    opened.close()


_numbers = itertools.count(1)


@pytest.fixture
def topic() -> str:
    """A name that no other test of this run uses; a topic of it is the test's to create."""
    return f"topic-{next(_numbers)}"


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the tests that passed counted: the last line that each printed."""
    printed = {report.nodeid: report.capstdout.split("\n") for report in terminalreporter.getreports("passed") if report.when == "call"}
    counted = {nodeid: said[-1] for nodeid, lines in printed.items() if (said := [line for line in lines if line.strip()])}
    if counted:
        terminalreporter.section("counted")
    for nodeid, line in sorted(counted.items()):
        terminalreporter.write_line(f"{nodeid.partition('::')[2]}: {line}")
