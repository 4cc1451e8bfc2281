"""Which log and which views a command works on: what the settings say, opened when first asked for."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property

import psycopg

from aidtrail import embedded
from aidtrail.config import Settings
from aidtrail.errors import UnavailableError, UsageError
from aidtrail.log import Log
from aidtrail.topics import Topics
from aidtrail.views.reader import Reader

EMBEDDED_PARTITIONS = 4
"""Of the embedded log: one machine has no more than a few cores."""
PAUSE_SECONDS = 0.1
"""Between two looks for views that are about to be made."""


class Backends:
    """The log and the views of the settings. The embedded server is started at most once, and only when something is kept in it. Where
    there is none yet it is made if `create`; else that is an UnavailableError."""

    def __init__(self, settings: Settings, stack: ExitStack, create: bool) -> None:
        if settings.log is not None and not _is_postgres("AIDTRAIL_LOG", settings.log):
            _kafka_servers(settings.log)
        if settings.views is not None and not _is_postgres("AIDTRAIL_VIEWS", settings.views):
            raise UsageError(f"AIDTRAIL_VIEWS: expected postgresql://user@host/database, found {public(settings.views):.100}")
        self.settings = settings
        self._create = create
        self.topics = Topics.of(settings.topic_prefix)
        self._stack = stack

    @cached_property
    def log(self) -> Log:
        """The log of this command. Services that run beside one another in threads open one each: `open_log`."""
        return self.open_log()

    def open_log(self) -> Log:
        """A log, closed with the rest. The embedded one creates its topics by itself."""
        log = self._log()
        self._stack.callback(log.close)
        if self.settings.log is None:
            self.topics.create(log, EMBEDDED_PARTITIONS)
        return log

    @cached_property
    def views(self) -> str:
        """The connection string of the views."""
        return self.settings.views or self._embedded

    def reader(self, build: str | None = None, wait_seconds: float = 0.0) -> Reader:
        """Reads the live build, or the one named. Raises UnavailableError where there is no live one, also after these seconds."""
        reader = Reader.open(self.views, build)
        deadline = time.monotonic() + wait_seconds
        try:
            while build is None and reader.is_empty():
                if time.monotonic() >= deadline:
                    raise UnavailableError("no views yet: start 'aidtrail up' (on Kafka 'aidtrail project') and leave it running")
                time.sleep(PAUSE_SECONDS)
        except BaseException:
            reader.close()
            raise
        self._stack.callback(reader.close)
        return reader

    @cached_property
    def _embedded(self) -> str:
        home = self.settings.home
        if not (self._create or embedded.is_there(home)):
            raise UnavailableError(
                f"there is no pipeline in {home}: start 'aidtrail up', or set AIDTRAIL_HOME to the folder of one that is there"
            )
        return self._stack.enter_context(embedded.postgres(home))

    def _log(self) -> Log:
        where = self.settings.log
        if where is None or _is_postgres("AIDTRAIL_LOG", where):
            from aidtrail.log.postgres import PostgresLog

            return PostgresLog(where or self._embedded)
        from aidtrail.log.kafka import KafkaLog

        return KafkaLog(_kafka_servers(where), security=self.settings.kafka_security)


@contextmanager
def backends(settings: Settings, *, create: bool = False) -> Iterator[Backends]:
    """Close all that was opened, the log first and the embedded server last. `create` is for what begins a pipeline or writes to one."""
    with ExitStack() as stack:
        yield Backends(settings, stack, create)


def _is_postgres(variable: str, where: str) -> bool:
    if not where.startswith(("postgresql://", "postgres://")):
        return False
    try:
        psycopg.conninfo.conninfo_to_dict(where)
    except psycopg.ProgrammingError:
        raise UsageError(f"{variable}: expected postgresql://user@host/database, found {public(where):.100}") from None
    return True


def _kafka_servers(where: str) -> list[str]:
    """host:port of each. Raises UsageError for anything else."""
    if not where.startswith("kafka://"):
        raise UsageError(f"AIDTRAIL_LOG: expected kafka://host:port or postgresql://user@host/database, found {public(where):.100}")
    servers = [server for server in where.removeprefix("kafka://").rstrip("/").split(",") if server]
    if not servers or not all(":" in server for server in servers):
        raise UsageError(f"AIDTRAIL_LOG: expected kafka://host:port,host:port, found {where:.100}")
    return servers


def public(where: str | None) -> str | None:
    """A connection string without its password, to be printed."""
    if where is None or "@" not in where:
        return where
    scheme, _, rest = where.partition("://")
    credentials, _, host = rest.rpartition("@")
    return f"{scheme}://{credentials.partition(':')[0]}@{host}"
