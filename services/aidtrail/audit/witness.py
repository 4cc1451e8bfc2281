"""A witness: it cosigns a log's checkpoint if that log's tree only grew since the one it cosigned before. C2SP tlog-witness
(https://c2sp.org/tlog-witness).

For each log it keeps the newest checkpoint that it cosigned, in a folder: durable before the cosignature is given away. So two checkpoints
that it cosigned are always of one history, whatever the log's operator signs. Who restores that folder from an older copy breaks this
promise.

    log/<SHA-256 of the origin, hex>                    the newest checkpoint that was cosigned, as it came
    conflict/<the same>/<tree size>-<SHA-256>           a checkpoint with the log's signature that was not cosigned ...
    conflict/<the same>/<tree size>-<SHA-256>.cosigned  ... and the cosigned one that it contradicts, or with which it came with no proof
"""

import base64
import fcntl
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from aidtrail.audit import note as notes
from aidtrail.audit.folder import Folder
from aidtrail.audit.merkle import EMPTY_ROOT, HASH_BYTES, verify_consistency
from aidtrail.audit.note import Checkpoint, Note, SignerKey, VerifierKey, cosign
from aidtrail.errors import NoteError, ProofError, UnavailableError

logger = logging.getLogger(__name__)

MAX_PROOF_LINES = 63
MAX_BYTES = 64 * 1024
"""Of a request: a proof of 63 lines and a checkpoint with some signatures have less than 10 KB."""

_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})")


class Answer(NamedTuple):
    """Of HTTP: 200, 400, 403, 404, 409 or 422."""

    status: int
    text: str
    content_type: str = "text/plain; charset=utf-8"


class Request(NamedTuple):
    """What a log asks: cosign `note`, whose tree begins with the one of `old_size` leaves, as `proof` shows."""

    old_size: int
    proof: tuple[bytes, ...]
    note: Note

    def encode(self) -> bytes:
        lines = [f"old {self.old_size}", *(base64.b64encode(hash).decode() for hash in self.proof), "", ""]
        return "\n".join(lines).encode() + self.note.encode()

    @classmethod
    def parse(cls, body: bytes) -> "Request":
        """Raises NoteError."""
        head, separator, note = body.partition(b"\n\n")
        old, *lines = head.decode("ascii", "replace").split("\n")
        matched = _OLD.fullmatch(old)
        if not separator or matched is None or len(lines) > MAX_PROOF_LINES:
            expected = f"'old <size>', at most {MAX_PROOF_LINES} proof lines, an empty line and a checkpoint"
            raise NoteError("request", expected, ascii(old[:64]))
        return cls(int(matched[1]), tuple(map(_hash, lines)), notes.parse(note))


class Witness:
    """May be asked by several threads. One process for each folder."""

    def __init__(self, key: SignerKey, logs: Sequence[VerifierKey], folder: Path, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since 1970. Raises UnavailableError where another process works in the folder."""
        self._key, self._clock = key, clock
        self._keys: dict[str, list[VerifierKey]] = {}
        for log in logs:
            self._keys.setdefault(log.name, []).append(log)
        self._folder = Folder(folder)
        self._mutex = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UnavailableError(f"the witness's folder {folder} cannot be written: {error}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise UnavailableError(f"another witness works in {folder}: stop it, or choose another --folder") from None

    def close(self) -> None:
        os.close(self._lock)

    def add_checkpoint(self, body: bytes) -> Answer:
        """Raises OSError where the folder cannot be written: nothing is cosigned then."""
        try:
            request = Request.parse(body)
            checkpoint = Checkpoint.parse(request.note.text)
        except NoteError as error:
            return Answer(400, f"{error}\n")
        keys = self._keys.get(checkpoint.origin)
        if keys is None:
            return Answer(404, f"no log of the origin {checkpoint.origin} is witnessed here\n")
        try:
            notes.verify(request.note, keys)
        except NoteError as error:
            return Answer(403, f"{error}\n")
        if request.old_size > checkpoint.size:
            return Answer(400, f"expected an old size of at most {checkpoint.size}, found {request.old_size}\n")
        with self._mutex:  # what is compared is what is replaced
            return self._compare_and_set(request, checkpoint)

    def _compare_and_set(self, request: Request, checkpoint: Checkpoint) -> Answer:
        place = hashlib.sha256(checkpoint.origin.encode()).hexdigest()
        cosigned = self._folder.read(f"log/{place}")
        last = Checkpoint(checkpoint.origin, 0, EMPTY_ROOT) if cosigned is None else Checkpoint.parse(notes.parse(cosigned).text)
        if checkpoint.size == last.size and checkpoint.root != last.root:
            self._keep_evidence(place, request.note, cosigned)
            return _conflict(last.size)
        if request.old_size != last.size:
            return _conflict(last.size)
        try:
            if last.size == 0 or checkpoint.size == last.size:
                if request.proof:
                    raise ProofError(f"no proof from size {last.size} to {checkpoint.size}", f"{len(request.proof)} hashes")
            else:
                verify_consistency(last.size, last.root, checkpoint.size, checkpoint.root, request.proof)
        except ProofError as error:
            self._keep_evidence(place, request.note, cosigned)
            return Answer(422, f"{error}\n")
        self._folder.replace(f"log/{place}", request.note.encode())  # also at the same size: who wrote it may not have made it durable
        self._folder.settle()
        return Answer(200, str(cosign(request.note.text, self._key, int(self._clock()))))

    def _keep_evidence(self, place: str, note: Note, cosigned: bytes | None) -> None:
        """At most one pair of files for each checkpoint that the log signed."""
        checkpoint = Checkpoint.parse(note.text)
        path = f"conflict/{place}/{checkpoint.size}-{hashlib.sha256(note.text.encode()).hexdigest()}"
        logger.error("witness: %s: not cosigned, evidence is in %s", checkpoint.origin, self._folder.root / path)
        if self._folder.read(path) is None:
            self._folder.replace(path, note.encode())
            self._folder.replace(f"{path}.cosigned", cosigned or b"")
            self._folder.settle()


def _conflict(size: int) -> Answer:
    return Answer(409, f"{size}\n", "text/x.tlog.size")


def _hash(line: str) -> bytes:
    try:
        decoded = base64.b64decode(line, validate=True)
    except ValueError:
        decoded = b""
    if len(decoded) != HASH_BYTES or base64.b64encode(decoded).decode() != line:
        raise NoteError("proof line", f"{HASH_BYTES} bytes in base64", ascii(line[:64]))
    return decoded
