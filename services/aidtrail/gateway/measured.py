"""Counts and times every HTTP request."""

import time
from http import HTTPMethod

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aidtrail import metrics


class Measured:
    """ASGI middleware, the outermost. A request that raises, or that ends without an answer, counts as 5xx."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status, seconds = 500, 0.0

        async def sending(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - start
            await send(message)

        with metrics.REQUESTS_UNDER_WAY.track_inprogress():
            try:
                await self._app(scope, receive, sending)
            finally:
                method = scope["method"] if scope["method"] in HTTPMethod.__members__ else "other"
                told = metrics.REQUEST_SECONDS.labels(method, route_of(scope), f"{status // 100}xx")
                told.observe(seconds or time.perf_counter() - start)


def route_of(scope: Scope) -> str:
    """The template of the path, never the path: that has ids in it."""
    return getattr(scope.get("route"), "path", "none")
