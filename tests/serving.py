"""Serves an application over real HTTP for the tests.

with Served(app) as served:
    httpx.get(f"{served.url}/v1/donations")
"""

import asyncio
import socket
import threading

import uvicorn
from starlette.types import ASGIApp

from aidtrail.gateway.limits import IDLE_SECONDS, MAX_INCOMPLETE_BYTES, Connection


class Served:
    """An application on a free port of the loopback interface, in a thread, until the block ends."""

    def __init__(self, app: ASGIApp, http: type[asyncio.Protocol] = Connection) -> None:
        # With the protocol named, asyncio turns Nagle's algorithm off: without, each answer takes 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()  # so that a request waits for the server to come up
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                lifespan="auto",
                ws="none",
                http=http,
                h11_max_incomplete_event_size=MAX_INCOMPLETE_BYTES,
                timeout_keep_alive=IDLE_SECONDS,
            )
        )
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> "Served":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
