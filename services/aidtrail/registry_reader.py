"""Follows `registry`, which is one partition that every ledger reads whole."""

import logging
import time

from aidtrail import codec
from aidtrail.domain.events import RegistryEvent
from aidtrail.domain.registry import Registry, register_all
from aidtrail.errors import MalformedError, UnavailableError, UndecodableError
from aidtrail.log import Log
from aidtrail.logs import about

logger = logging.getLogger(__name__)

READ_SECONDS = 30.0


class RegistryReader:
    """The registry as of the newest record."""

    def __init__(self, log: Log, topic: str) -> None:
        self._topic = topic
        self._reader = log.reader(topic)
        self._reader.assign({0: 0})
        self._next_offset = 0
        self.registry = Registry()

    def follow(self) -> Registry:
        """Read to the end of the topic as it is now. So a submission that was appended after a registry record was acknowledged is ruled
        on with that record. Raises UnavailableError when the end cannot be reached in 30 s."""
        end = self._reader.end_offsets()[0]
        deadline = time.monotonic() + READ_SECONDS
        while self._next_offset < end:
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{self._topic} could not be read to its end in {READ_SECONDS:.0f} s; check the broker and the rights"
                )
            events: list[tuple[RegistryEvent, int]] = []
            for record in self._reader.poll(5000, 1.0).get(0, []):
                self._next_offset = record.offset + 1
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
