"""Asking witnesses for their cosignatures, all at once, until a policy's quorum has given theirs."""

import http.client
import logging
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from urllib.parse import urlsplit

from aidtrail import metrics
from aidtrail.audit import note as notes
from aidtrail.audit.merkle import consistency_path
from aidtrail.audit.note import Note, Signature, VerifierKey
from aidtrail.audit.policy import Policy, Trusted
from aidtrail.audit.tiles import TiledTree
from aidtrail.audit.witness import MAX_BYTES, Request
from aidtrail.errors import NoteError, UnavailableError, UsageError

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
MORE_SECONDS = 0.2
"""So long the others may take once there is a quorum."""


class Cosigners:
    """The witnesses of a policy. Called by one thread."""

    def __init__(self, policy: Policy, log: VerifierKey) -> None:
        """Raises UsageError where the policy does not trust the log's key, or names no URL of a witness that a quorum needs."""
        if policy.logs and log not in policy.logs:
            raise UsageError(f"policy: expected a line for the log {log}, found other logs")
        self._policy = policy
        self._asked = [Asked(trusted) for trusted in policy.witnesses.values() if trusted.url is not None]
        if not policy.is_quorum([asked.trusted.name for asked in self._asked]):
            raise UsageError(f"policy: expected a URL for each witness that the quorum {policy.quorum} needs, found too few")
        self._pool = ThreadPoolExecutor(max(1, len(self._asked)), "cosigner")

    def __call__(self, note: Note, tree: TiledTree) -> Note:
        """The note with the cosignatures that came. Raises UnavailableError without a quorum: do not publish it then."""
        frozen = tree.frozen()
        running = {self._pool.submit(asked.cosign, note, frozen): asked for asked in self._asked if asked.lock.acquire(blocking=False)}
        reasons = {asked.trusted.name: "still busy" for asked in self._asked if asked not in running.values()}
        signatures: dict[str, Signature] = {}
        deadline, waiting = time.monotonic() + ANSWER_SECONDS, set(running)
        while waiting and (left := deadline - time.monotonic()) > 0:
            done, waiting = wait(waiting, left, FIRST_COMPLETED)
            for future in done:
                self._take(future, running[future].trusted.name, signatures, reasons)
            if self._policy.is_quorum(signatures):
                deadline = min(deadline, time.monotonic() + MORE_SECONDS)
        for future in waiting:
            reasons[running[future].trusted.name] = f"no answer within {ANSWER_SECONDS:.0f} s"
        if not self._policy.is_quorum(signatures):
            why = "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items()))
            raise UnavailableError(f"no quorum of witnesses, {len(signatures)} of {len(self._asked)} cosigned: nothing is published. {why}")
        return Note(note.text, (*note.signatures, *signatures.values()))

    def close(self) -> None:
        self._pool.shutdown()
        for asked in self._asked:
            asked.close()

    def _take(self, future: "Future[Signature]", name: str, signatures: dict[str, Signature], reasons: dict[str, str]) -> None:
        try:
            signatures[name] = future.result()
            metrics.COSIGNATURES.labels(name, "given").inc()
        except (UnavailableError, OSError, http.client.HTTPException, NoteError) as error:
            reasons[name] = str(error) or type(error).__name__
            metrics.COSIGNATURES.labels(name, "not given").inc()
            logger.warning("witness %s: %s", name, reasons[name])


class Asked:
    """One witness, over one connection that is kept open. `lock` is held while it is asked."""

    def __init__(self, trusted: Trusted) -> None:
        assert trusted.url is not None
        self.trusted = trusted
        self.lock = threading.Lock()
        self._size = 0
        """Of the newest checkpoint that it cosigned, as far as is known."""
        try:
            url = urlsplit(trusted.url)
            if url.scheme not in ("http", "https") or not url.hostname:
                raise ValueError
            host, port = url.hostname, url.port
        except ValueError:
            raise UsageError(f"policy: witness {trusted.name}: expected a URL with http or https, found {trusted.url}") from None
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(host, port, timeout=ANSWER_SECONDS)
        self._path = f"{url.path.rstrip('/')}/add-checkpoint"

    def cosign(self, note: Note, tree: TiledTree) -> Signature:
        """Requires `lock`, and releases it."""
        try:
            if self._size > tree.size:
                self._size = 0  # let it say so
            for _ in range(3):  # it may know of another size, and of another again while this is under way
                proof = consistency_path(self._size, tree.size, tree.node) if 0 < self._size < tree.size else []
                status, body = self._post(Request(self._size, tuple(proof), note).encode())
                if status == 200:
                    self._size = tree.size
                    return self._verified(note, body)
                if status != 409:
                    break
                size = _size(body)
                if size == self._size:
                    raise UnavailableError(f"it has cosigned another history of size {size} (409)")
                if size > tree.size:
                    raise UnavailableError(f"it has cosigned a history of size {size}, which is longer than this one of {tree.size} (409)")
                self._size = size
            raise UnavailableError(f"it answered {status}: {body[:200].decode(errors='replace').strip()}")
        finally:
            self.lock.release()

    def close(self) -> None:
        self._connection.close()

    def _post(self, body: bytes) -> tuple[int, bytes]:
        for attempt in (1, 2):
            try:
                self._connection.request("POST", self._path, body, {"Content-Type": "text/plain; charset=utf-8"})
                response = self._connection.getresponse()
                return response.status, response.read(MAX_BYTES)
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                stale = isinstance(error, http.client.RemoteDisconnected | BrokenPipeError | ConnectionResetError)
                if attempt == 2 or not stale:  # a connection that was kept open may have been closed meanwhile
                    raise
        raise AssertionError("unreachable")

    def _verified(self, note: Note, lines: bytes) -> Signature:
        """The witness's cosignature among `lines`, all others left out. Raises NoteError."""
        answered = notes.parse(note.text.encode() + b"\n" + lines)
        notes.verify(answered, [self.trusted.key])
        return next(one for one in answered.signatures if (one.name, one.key_id) == (self.trusted.key.name, self.trusted.key.id))


def _size(body: bytes) -> int:
    text = body.decode("ascii", "replace").removesuffix("\n")
    if not text.isdecimal() or len(text) > 19:
        raise UnavailableError(f"expected the size of its newest checkpoint, found {text[:64]!r} (409)")
    return int(text)
