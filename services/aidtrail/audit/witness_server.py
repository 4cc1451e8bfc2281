"""A witness over HTTP: POST /add-checkpoint, and nothing else. Put a proxy with TLS before it."""

import http.server
import logging
import re
import threading

from aidtrail.audit.witness import MAX_BYTES, Answer, Witness
from aidtrail.errors import NoteError, UnavailableError

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 10.0
"""After so long without a byte the connection is closed, also one that is kept open."""


class WitnessServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, witness: Witness, host: str, port: int) -> None:
        """Raises UnavailableError when the port cannot be opened."""
        self.witness = witness
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise UnavailableError(f"{host}:{port} cannot be opened: {error.strerror}") from None
        self._thread = threading.Thread(target=self.serve_forever, name="witness", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()
        self.witness.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_SECONDS
    server: WitnessServer

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > MAX_BYTES:
            self._answer(Answer(413 if length else 411, f"expected at most {MAX_BYTES} bytes\n"), close=True)
            return
        body = self.rfile.read(int(length))
        if self.path != "/add-checkpoint":
            self._answer(Answer(404, "expected POST /add-checkpoint\n"))
            return
        try:
            self._answer(self.server.witness.add_checkpoint(body))
        except (OSError, NoteError) as error:
            logger.error("witness: its folder is damaged or cannot be written: %s", error)
            self._answer(Answer(500, "the witness cannot keep what it cosigns\n"), close=True)

    def _answer(self, answer: Answer, close: bool = False) -> None:
        body = answer.text.encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(body)))
        if close:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        logger.debug(format, *args)
