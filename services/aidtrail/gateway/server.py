"""The gateway as a service of this process: uvicorn in a thread, started, watched and stopped as ledger and projector are."""

import socket
import threading
from collections.abc import Sequence

import uvicorn

from aidtrail.errors import UnavailableError
from aidtrail.gateway import limits
from aidtrail.gateway.app import create
from aidtrail.gateway.state import Gateway
from aidtrail.routes import SERVICES
from aidtrail.topics import Topics

STOP_SECONDS = 15
"""For requests under way when the service is told to stop."""


class Server:
    """Listens at `listen`, host:port. Raises UnavailableError when it cannot, or when the log cannot be read."""

    name = "gateway"

    def __init__(self, shared: Gateway, topics: Topics, listen: str, services: Sequence[str] = SERVICES) -> None:
        host, _, port = listen.rpartition(":")
        self._shared = shared
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, so that asyncio sets TCP_NODELAY
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, int(port)))
        except OSError as error:
            self._socket.close()
            raise UnavailableError(f"AIDTRAIL_LISTEN {listen} cannot be opened: {error.strerror}") from None
        try:
            shared.check(submits=bool(services))
        except BaseException:
            self._socket.close()
            raise
        config = uvicorn.Config(
            create(shared, topics, services),
            http=limits.Connection,
            h11_max_incomplete_event_size=limits.MAX_INCOMPLETE_BYTES,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            limit_concurrency=2000,
            timeout_keep_alive=limits.IDLE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name="gateway")
        self.url = "http://{}:{}".format(*self._socket.getsockname())

    def turn(self) -> int:
        """Serve on; the requests are the thread's matter."""
        if not self._thread.is_alive() and not self._server.started:
            self._thread.start()
            while self._thread.is_alive() and not self._server.started:
                self._thread.join(0.01)
        self._thread.join(0.2)
        if not self._thread.is_alive():
            raise RuntimeError("the HTTP server ended by itself")
        return 0

    def reset(self) -> None:
        """Nothing: each request finds out anew what can be reached."""

    def close(self) -> None:
        """Take no new requests, let those under way end."""
        self._shared.stop()
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()
