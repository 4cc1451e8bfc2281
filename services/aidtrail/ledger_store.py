"""What a ledger knows of one partition, on local disk: a cache that can be deleted at any time and is rebuilt from the log.

It keeps the entries themselves, by donation, and no other form of them: an account is always the fold of its entries, so there is nothing
that could disagree with the log after an upgrade. SQLite in WAL mode: a killed process leaves the last committed batch. Each row has a
checksum, for SQLite keeps none: a ledger that goes on from a wrong head writes what is void for everybody else.
"""

import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from aidtrail.chain import NO_TAIL, Tail
from aidtrail.errors import UnavailableError

FORMAT = 3
"""Raised when the tables change; a file of another format is deleted."""


class Row(NamedTuple):
    """An entry that counts, by the donation it belongs to."""

    donation_id: str
    offset: int
    submission_sha256: bytes
    value: bytes


class Position(NamedTuple):
    """How far the store is: the next offset to read of `recorded`, the SHA-256 of the record before it, the partition's last outcome, and
    the latest append time (milliseconds) that a ruling has used."""

    next_offset: int
    last_value_sha256: bytes
    tail: Tail
    clock: int


START = Position(0, b"", NO_TAIL, 0)


class LedgerStore:
    """One partition's store. A file that another process holds is left alone, and a temporary one is used instead.

    Everything may raise UnavailableError: where the disk is full or cannot be written; and where the file was damaged, which is then
    deleted, so that the store is empty.
    """

    def __init__(self, folder: Path, topic: str, partition: int) -> None:
        self._path = folder / f"{topic}-{partition}.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / f"{topic}-{partition}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unusable(self._path, error) from error
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._temporary = tempfile.TemporaryDirectory(prefix="aidtrail-ledger-")
            self._path = Path(self._temporary.name) / "store.sqlite"
        try:
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def position(self) -> Position:
        query = "SELECT next_offset, last_value_sha256, last_submitted_offset, last_outcome_sha256, clock, checksum FROM position"
        with self._using():
            row = self._db.execute(query).fetchone()
            if row is None:
                return START
            position = Position(row[0], row[1], Tail(row[2], row[3]), row[4])
            _require(row[5] == _checksum_of_position(position))
        return position

    def entries(self, donation_id: str) -> list[Row]:
        """The donation's entries that count, in log order."""
        query = 'SELECT donation_id, "offset", submission_sha256, value, checksum FROM entries WHERE donation_id = ? ORDER BY "offset"'
        found = []
        with self._using():
            for *fields, checksum in self._db.execute(query, (donation_id,)):
                found.append(Row._make(fields))
                _require(checksum == _checksum(found[-1]))
        return found

    def add(self, rows: Iterable[Row], position: Position) -> None:
        """Keep these entries and the position after them, or neither."""
        with self._using(), self._db:
            self._db.execute("BEGIN")
            # In the table's own order: what concerns one donation goes to one page of it.
            summed = [(*row, _checksum(row)) for row in sorted(rows)]
            self._db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)", summed)
            fields = (*position[:2], *position.tail, position.clock, _checksum_of_position(position))
            self._db.execute("INSERT OR REPLACE INTO position VALUES (1, ?, ?, ?, ?, ?, ?)", fields)

    def clear(self) -> None:
        self._delete()
        self._open()

    def close(self) -> None:
        self._db.close()
        os.close(self._lock)
        if self._temporary is not None:
            self._temporary.cleanup()

    @contextmanager
    def _using(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise _unusable(self._path, error) from error
            self.clear()
            raise UnavailableError(f"{self._path} was damaged ({error}): it is deleted, and built anew from the log") from error

    def _open(self) -> None:
        try:
            try:
                self._connect()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._delete()
                self._connect()
        except (sqlite3.DatabaseError, OSError) as error:
            raise _unusable(self._path, error) from error

    def _delete(self) -> None:
        self._db.close()
        try:
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise _unusable(self._path, error) from error

    def _connect(self) -> None:
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        if found not in (0, FORMAT):
            raise _OtherFormatError
        self._db.execute(
            'CREATE TABLE IF NOT EXISTS entries (donation_id TEXT, "offset" INTEGER, submission_sha256 BLOB, value BLOB, checksum BLOB,'
            ' PRIMARY KEY (donation_id, "offset")) WITHOUT ROWID'
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY CHECK (one = 1), next_offset INTEGER, last_value_sha256 BLOB,"
            " last_submitted_offset INTEGER, last_outcome_sha256 BLOB, clock INTEGER, checksum BLOB)"
        )
        self._db.execute(f"PRAGMA user_version = {FORMAT}")


class _OtherFormatError(sqlite3.DatabaseError):
    """The file is of another release."""


class _ChecksumError(sqlite3.DatabaseError):
    """A row is not what was written."""


def _require(equal: bool) -> None:
    if not equal:
        raise _ChecksumError("a checksum differs")


def _checksum(row: Row) -> bytes:
    return sha256(f"{row.donation_id} {row.offset} ".encode() + row.submission_sha256 + row.value).digest()


def _checksum_of_position(position: Position) -> bytes:
    numbers = f"{position.next_offset} {position.tail.submitted_offset} {position.clock} "
    return sha256(numbers.encode() + position.last_value_sha256 + position.tail.sha256).digest()


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Of the file itself, not of the disk that it is on."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the lowest byte says what kind of error it is
    return isinstance(error, _OtherFormatError | _ChecksumError) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _unusable(path: Path, error: Exception) -> UnavailableError:
    return UnavailableError(f"the ledger's store {path} cannot be written: {error}; make room, or set another AIDTRAIL_HOME")
