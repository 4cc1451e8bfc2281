"""What a request may take of the service: bytes of headers and of body, and time for the body to arrive."""

import asyncio

from fastapi_problem.error import Problem
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aidtrail.gateway import problems

MAX_BODY_BYTES = 32 * 1024
MAX_HEADER_BYTES = 8 * 1024
BODY_SECONDS = 10.0
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
            await problems.response(problems.HeadersTooLarge(expected=f"at most {MAX_HEADER_BYTES} bytes"))(scope, receive, send)
            return
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
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


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The body; None when it is too large, as soon as that is known."""
    stated = dict(scope["headers"]).get(b"content-length", b"0")
    if not stated.isdigit() or int(stated) > MAX_BODY_BYTES:
        return None
    chunks: list[bytes] = []
    more = True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        if sum(map(len, chunks)) > MAX_BODY_BYTES:
            return None
        more = message.get("more_body", False)  # absent when the client went away
    return b"".join(chunks)
