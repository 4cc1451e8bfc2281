"""What Prometheus and an orchestrator ask of a service's process, on a port of its own: /metrics, /livez and /readyz."""

import threading
from collections.abc import Callable, Iterable, Mapping
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from aidtrail.errors import UnavailableError
from aidtrail.service import Pulse

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """A scrape is no news."""


def serve(host: str, port: int, pulses: Mapping[str, Pulse]) -> None:
    """Answer until the process ends. Raises UnavailableError when the port cannot be opened."""
    metrics = make_wsgi_app()

    def answer(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path not in ("/livez", "/readyz"):
            return metrics(environ, start)  # type: ignore[no-any-return]
        trouble = {name: (pulse.stuck if path == "/livez" else pulse.trouble)() for name, pulse in pulses.items()}
        said = [f"{name}: {found}" for name, found in trouble.items() if found is not None]
        start("503 Service Unavailable" if said else "200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        return ["".join(f"{line}\n" for line in said or ["ok"]).encode()]

    try:
        server = make_server(host, port, answer, _Server, _Silent)
    except OSError as error:
        raise UnavailableError(f"AIDTRAIL_METRICS_PORT {port} cannot be opened: {error.strerror}") from None
    threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
