"""Which log and which views a command works on: what the settings say, opened when first asked for."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property

from aidtrail import embedded
from aidtrail.config import Settings
from aidtrail.errors import UnavailableError, UsageError
from aidtrail.log import Log
from aidtrail.topics import Topics
from aidtrail.views.reader import Reader

EMBEDDED_PARTITIONS = 4
"""Of the embedded log: one machine has no more than a few cores."""


class Backends:
    """The log and the views of the settings. The embedded server is started at most once, and only when something is kept in it."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self.settings = settings
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

    def reader(self, build: str | None = None) -> Reader:
        """Reads the live build, or the one named. Raises UnavailableError while there is no live one."""
        reader = Reader.open(self.views, build)
        self._stack.callback(reader.close)
        if build is None and reader.is_empty():
            raise UnavailableError("there are no views yet: start 'aidtrail up' or 'aidtrail project' and leave it running")
        return reader

    @cached_property
    def _embedded(self) -> str:
        return self._stack.enter_context(embedded.postgres(self.settings.home))

    def _log(self) -> Log:
        where = self.settings.log
        if where is None or where.startswith(("postgresql://", "postgres://")):
            from aidtrail.log.postgres import PostgresLog

            return PostgresLog(where or self._embedded)
        if where.startswith("kafka://"):
            from aidtrail.log.kafka import KafkaLog

            servers = [server for server in where.removeprefix("kafka://").rstrip("/").split(",") if server]
            if not servers or not all(":" in server for server in servers):
                raise UsageError(f"AIDTRAIL_LOG: expected kafka://host:port,host:port, found {where:.100}")
            return KafkaLog(servers, security=self.settings.kafka_security)
        raise UsageError(f"AIDTRAIL_LOG: expected kafka://host:port or postgresql://user@host/database, found {public(where):.100}")


@contextmanager
def backends(settings: Settings) -> Iterator[Backends]:
    """Close all that was opened, the log first and the embedded server last."""
    with ExitStack() as stack:
        yield Backends(settings, stack)


def public(where: str | None) -> str | None:
    """A connection string without its password, to be printed."""
    if where is None or "@" not in where:
        return where
    scheme, _, rest = where.partition("://")
    credentials, _, host = rest.rpartition("@")
    return f"{scheme}://{credentials.partition(':')[0]}@{host}"
