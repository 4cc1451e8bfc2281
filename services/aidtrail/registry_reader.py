"""Follows `registry`, which is one partition that every ledger reads whole."""

import logging

from aidtrail import codec
from aidtrail.domain.events import RegistryEvent
from aidtrail.domain.registry import Registry, register_all
from aidtrail.errors import MalformedError, UndecodableError
from aidtrail.log import Log, up_to
from aidtrail.logs import about

logger = logging.getLogger(__name__)

READ_SECONDS = 30.0


class RegistryReader:
    """The registry as of the newest record."""

    def __init__(self, log: Log, topic: str) -> None:
        self._topic = topic
        self._reader = log.reader(topic)
        self._reader.assign({0: 0})
        self.registry = Registry()

    def follow(self) -> Registry:
        """Read to the end of the topic as it is now. So a submission that was appended after a registry record was acknowledged is ruled
        on with that record. Raises UnavailableError when the end comes no nearer for 30 s."""
        end = self._reader.end_offsets()[0]
        for batch in up_to(self._reader, self._topic, 0, end, max_records=5000, patience_seconds=READ_SECONDS):
            events: list[tuple[RegistryEvent, int]] = []
            for record in batch:
                try:
                    event = codec.decode(record.value)
                except (UndecodableError, MalformedError) as error:
                    why = error.where if isinstance(error, MalformedError) else "undecodable"  # what was found may be what people wrote
                    logger.warning("%s offset %d is ignored: %s", self._topic, record.offset, why, extra=about(record))
                    continue
                if isinstance(event, RegistryEvent):
                    events.append((event, record.offset))
            self.registry = register_all(self.registry, events)
        return self.registry

    def close(self) -> None:
        self._reader.close()
