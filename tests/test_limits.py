"""What a connection may take of the service, byte by byte over a socket: too slow, too much, no HTTP."""

import asyncio
import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from aidtrail.gateway.limits import MAX_BODY_BYTES, Connection, Limits
from tests.serving import Served
from tests.waiting import eventually

HEAD = b"POST / HTTP/1.1\r\nHost: gateway\r\n"
SECONDS = 0.5
LARGE = "a" * 30_000_000
"""More than the kernel keeps for a client that does not read."""
LARGE_PLEASE = b"POST /large HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Impatient(Connection):
    header_seconds = SECONDS
    stuck_seconds = SECONDS
    ended = 0

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        Impatient.ended += 1


async def said(request: Request) -> PlainTextResponse:
    body = await request.body()
    if request.method == "GET":
        await asyncio.sleep(2 * SECONDS)  # an answer may take longer than a request
    return PlainTextResponse(str(len(body)) if request.url.path == "/" else LARGE)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    app = Starlette(routes=[Route(path, said, methods=["GET", "POST"]) for path in ("/", "/large")])
    with Served(Limits(app, body_seconds=SECONDS), http=Impatient) as served:
        yield int(served.url.rpartition(":")[2])


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of all that comes until the service ends the connection."""
    found = b""
    while chunk := connection.recv(65536):
        found += chunk
    head, _, body = found.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


def problem(port: int, *parts: bytes) -> tuple[int, str]:
    with connected(port) as connection:
        for part in parts:
            connection.sendall(part)
        status, body = answer(connection)
    found = json.loads(body)
    assert found["status"] == status
    return status, found["type"]


@pytest.mark.parametrize("part", [b"P", HEAD, HEAD + b"X-Slow: 1\r\n"])
def test_headers_that_do_not_end_are_too_slow(port: int, part: bytes) -> None:
    assert problem(port, part) == (408, "/problems/too-slow")


def test_a_body_that_does_not_end_is_too_slow(port: int) -> None:
    assert problem(port, HEAD + b"Content-Length: 9\r\n\r\n", b"1234") == (408, "/problems/too-slow")


def test_a_connection_on_which_nothing_comes_is_ended_without_a_word(port: int) -> None:
    with connected(port) as connection:
        assert answer(connection) == (0, b"")


def test_the_second_request_of_a_connection_may_be_no_slower(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(HEAD + b"Content-Length: 2\r\n\r\nok")
        first = connection.recv(65536)
        connection.sendall(HEAD)
        status, _ = answer(connection)

    assert first.startswith(b"HTTP/1.1 200")
    assert status == 408


def test_a_client_that_takes_nothing_any_more_is_left(port: int) -> None:
    before = Impatient.ended
    with connected(port) as connection:
        connection.sendall(LARGE_PLEASE)
        assert eventually(lambda: Impatient.ended > before)


def test_a_client_that_takes_little_at_a_time_is_not_left(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(LARGE_PLEASE)
        started, taken = time.monotonic(), 0
        while chunk := connection.recv(500_000):
            taken += len(chunk)
            select.select([], [], [], SECONDS / 10)  # the client's own pace
        took = time.monotonic() - started

    assert taken > len(LARGE)
    assert took > 2 * SECONDS


def test_what_takes_long_to_answer_is_answered(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
        assert answer(connection) == (200, b"0")


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["without an end", "with an end"])
@pytest.mark.parametrize("size", [9_000, 20_000, 200_000])
def test_headers_that_are_too_large_are_told(port: int, size: int, end: bytes) -> None:
    if size == 9_000 and not end:
        return  # may still end in time
    with connected(port) as connection:
        sent(connection, HEAD + b"X-Large: " + b"a" * size + end)
        status, body = answered(connection)

    assert status in (431, 0)
    assert status == 431 or size == 200_000  # whoever goes on sending may not read the answer
    assert not body or json.loads(body)["type"] == "/problems/headers-too-large"


@pytest.mark.parametrize(
    "request_", [b"Content-Length: 40000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n" + b"2710\r\n" + b"a" * 10_000 + b"\r\n"]
)
def test_a_body_that_is_too_large_is_told(port: int, request_: bytes) -> None:
    more = b"" if b"Length" in request_ else (b"2710\r\n" + b"a" * 10_000 + b"\r\n") * (MAX_BODY_BYTES // 10_000)

    assert problem(port, HEAD + request_ + more) == (413, "/problems/too-large")


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"GET / HTTP/9\r\n\r\n", HEAD + b"no header\r\n\r\n"]
)
def test_what_is_no_http_is_told(port: int, garbage: bytes) -> None:
    assert problem(port, garbage) == (400, "about:blank")


def test_a_body_of_two_lengths_is_refused_and_what_follows_it_is_no_request(port: int) -> None:
    """A proxy that goes by the other length would see another request there: smuggling."""
    body = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"

    assert problem(port, HEAD + body + HEAD + b"Content-Length: 0\r\n\r\n") == (400, "about:blank")


def test_slow_connections_keep_nobody_from_being_answered(port: int) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(port)) for _ in range(200)]
        for connection in slow:
            connection.sendall(HEAD)
        with connected(port) as quick:
            quick.sendall(HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\nok")
            assert answer(quick) == (200, b"2")
        statuses = [answer(connection)[0] for connection in slow]

    print(f"{len(slow)} slow connections: {statuses.count(408)} ended with 408, another one answered meanwhile")
    assert statuses == [408] * len(slow)


def sent(connection: socket.socket, content: bytes) -> None:
    with suppress(OSError):  # the service may have ended the connection
        connection.sendall(content)


def answered(connection: socket.socket) -> tuple[int, bytes]:
    try:
        return answer(connection)
    except OSError:
        return 0, b""
