"""Connections to PostgreSQL end when the other end is gone without a word, and when a question takes too long."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from aidtrail.gateway import local, problems, state
from aidtrail.gateway.state import Gateway
from aidtrail.log.memory import MemoryLog
from aidtrail.log.postgres import _connect
from aidtrail.views import schema
from tests.pipeline import TOPICS


@pytest.fixture
def over_tcp(database_url: str) -> Iterator[str]:
    """The database at a port of the loopback interface: the server itself listens at a file."""
    stated = psycopg.conninfo.conninfo_to_dict(database_url)
    listening = socket.create_server(("127.0.0.1", 0))

    def forward(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        near, _ = listening.accept()
        with near, socket.socket(socket.AF_UNIX) as far:
            far.connect(f"{stated['host']}/.s.PGSQL.{stated.get('port', 5432)}")
            asked = threading.Thread(target=forward, args=(near, far))
            asked.start()
            forward(far, near)
            asked.join()

    thread = threading.Thread(target=accept)
    thread.start()
    yield f"host=127.0.0.1 port={listening.getsockname()[1]} dbname={stated['dbname']} user={stated['user']} sslmode=disable"
    thread.join()
    listening.close()


def settings(connection: psycopg.Connection[tuple[object, ...]]) -> dict[str, int]:
    """As the kernel has them."""
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        return {name: same.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names}


IN_FORCE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}


def test_a_service_notices_that_the_server_is_gone_without_a_word(over_tcp: str) -> None:
    with schema.connect(over_tcp) as connection:
        assert settings(connection) == IN_FORCE


def test_so_does_who_appends_to_the_log_or_reads_it(over_tcp: str) -> None:
    with _connect(over_tcp) as connection:
        assert settings(connection) == IN_FORCE


@pytest.mark.parametrize("connect", [schema.connect, _connect])
def test_the_server_notices_that_a_client_is_gone_without_a_word(connect: Callable[[str], schema.Connection], database_url: str) -> None:
    names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
    with connect(database_url) as connection:
        rows = connection.execute("SELECT name, reset_val::integer FROM pg_settings WHERE name = ANY(%s)", (list(names),)).fetchall()

    assert dict(rows) == {
        "tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 4, "tcp_user_timeout": 30_000,
    }  # fmt: skip


def gateway(views: str, home: Path) -> Gateway:
    log = MemoryLog()
    TOPICS.create(log, 1)
    return Gateway(lambda: log, TOPICS, views, local.local_verifier(home))


def test_so_does_a_gateway_and_no_question_of_its_own_takes_for_ever(over_tcp: str, tmp_path: Path) -> None:
    shared = gateway(over_tcp, tmp_path)
    with shared._pool, shared._pool.connection() as connection:
        assert settings(connection) == IN_FORCE
        assert connection.execute("SHOW statement_timeout").fetchone() == ("15s",)
        assert connection.execute("SHOW search_path").fetchone() == ("live",)


def test_a_question_that_takes_too_long_is_told_as_an_outage_of_the_views(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "STATEMENT_SECONDS", 0.1)
    shared = gateway(database_url, tmp_path)
    with shared._pool, pytest.raises(problems.ViewsUnavailable), shared.reader() as views:
        views._connection.execute("SELECT pg_sleep(60)")
