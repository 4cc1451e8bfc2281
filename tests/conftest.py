"""Real brokers and databases for the tests, started once a run."""

import os
from collections.abc import Iterator

import pytest

from tests.brokers import Broker, missing_programs
from tests.databases import Server


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A Kafka broker that no test kills. Without Java or Maven: a shown skip, in CI a failure."""
    missing = missing_programs()
    if missing:
        message = f"Kafka tests need {' and '.join(missing)} on the PATH"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with Broker() as running:
        yield running


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
