"""What a request may take of the service: bytes of headers and of body, and time for either to arrive."""

import asyncio
import sys
from typing import Any

import h11
from fastapi_problem.error import Problem
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from aidtrail.gateway import problems

MAX_BODY_BYTES = 32 * 1024
MAX_HEADER_BYTES = 8 * 1024
MAX_INCOMPLETE_BYTES = 16 * 1024
"""Of headers whose end has not arrived: no more is kept."""
HEADER_SECONDS = 10.0
BODY_SECONDS = 10.0
IDLE_SECONDS = 75
"""Of a connection between two requests: longer than load balancers (60 s is common) and HTTP libraries keep theirs. So it is they who end
it, and no request meets a connection that is just being closed here: who sent it could not know whether it arrived."""
STUCK_SECONDS = 300.0
"""In which a client takes nothing of what it asked for: its connection is ended then. The kernel keeps megabytes for it, which a telephone
may need minutes to take."""
_CLOSE = {"Connection": "close"}


class Limits:
    """ASGI middleware. Reads the body, whole, and answers 413, 431 and 408 before anything is done."""

    def __init__(self, app: ASGIApp, *, body_seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size = sum(len(name) + len(value) for name, value in scope["headers"]) + len(scope["path"]) + len(scope["query_string"])
        if size > MAX_HEADER_BYTES:
            await problems.response(_HEADERS_TOO_LARGE)(scope, receive, send)
            return
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:  # RFC 9112, section 6.1
            await problems.response(_TWO_LENGTHS)(scope, receive, send)
            return
        if scope["method"] in ("GET", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._body_seconds):
                body = await _body(scope, receive)
        except TimeoutError:
            problem: Problem = problems.TooSlow(expected=f"the whole body within {self._body_seconds:.0f} s", headers=_CLOSE)
            await problems.response(problem)(scope, receive, send)
            return
        if body is None:
            problem = problems.TooLarge(expected=f"at most {MAX_BODY_BYTES} bytes", headers=_CLOSE)
            await problems.response(problem)(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)


class Head:
    """ASGI middleware. HEAD is a GET of which the server sends no body (RFC 9110, section 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope, receive, send)


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The body; None when it is too large, as soon as that is known."""
    stated = dict(scope["headers"]).get(b"content-length", b"0")
    if not stated.isdigit() or int(stated) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        more = message.get("more_body", False)  # absent when the client went away
    return bytes(body)


class Connection(H11Protocol):
    """uvicorn's, which waits for ever for the end of a request's headers: that they are too slow or too large is told, and the connection
    ended. One on which nothing arrives at all, or of which nothing is read any more, is ended without a word."""

    header_seconds = HEADER_SECONDS
    stuck_seconds = STUCK_SECONDS

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._asked = False
        self._timer: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._asked = True
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        self._asked = False
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._require_reading(0)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _require_reading(self, left: int) -> None:
        """`left` is what was to be sent at the last look: if it is all there still, nobody reads."""
        size = self.transport.get_write_buffer_size()
        if size == left:
            self.transport.abort()
        else:
            self._stuck = self.loop.call_later(self.stuck_seconds, self._require_reading, size)

    def send_400_response(self, msg: str) -> None:
        """Of what is no HTTP/1.1, or too large to be kept until it is."""
        error = sys.exc_info()[1]
        too_large = isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431
        self._end(_HEADERS_TOO_LARGE if too_large else Problem("No HTTP/1.1", type_="about:blank", status=400))

    def _watch(self) -> None:
        """Time runs while no request is under way, from the connection or its first byte on."""
        waits = (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing()
        if not waits:
            self._unwatch()
        elif self._timer is None and (self._asked or self.cycle is None):  # between two requests uvicorn's own timer runs
            self._timer = self.loop.call_later(self.header_seconds, self._too_slow)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if self._asked:
            self._end(problems.TooSlow(expected=f"the whole request within {self.header_seconds:.0f} s"))
        else:
            self.transport.close()

    def _end(self, problem: Problem) -> None:
        if not self.transport.is_closing() and self.conn.our_state is h11.IDLE:
            answer = problems.response(problem)
            answer.headers["Connection"] = "close"
            for event in (
                h11.Response(status_code=answer.status_code, headers=answer.raw_headers),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


_TWO_LENGTHS = Problem("Content-Length beside Transfer-Encoding", type_="about:blank", status=400, headers=_CLOSE)
_HEADERS_TOO_LARGE = problems.HeadersTooLarge(expected=f"at most {MAX_HEADER_BYTES} bytes", headers=_CLOSE)
