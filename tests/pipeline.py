"""A pipeline in this process: a log, a ledger and a projector that run when they are told to."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aidtrail.domain.events import Event
from aidtrail.ledger import Ledger
from aidtrail.log import Log
from aidtrail.log.memory import MemoryLog
from aidtrail.producer import Producer
from aidtrail.projector import Projector
from aidtrail.service import Service, drain
from aidtrail.topics import Topics
from aidtrail.views.reader import Reader
from tests.acts import registry_events
from tests.waiting import eventually

TOPICS = Topics.of("donations")


class Pipeline:
    """The registry of `tests.acts` is loaded; `submit` brings events all the way into the views of `database`."""

    def __init__(self, database: str, folder: Path, log: Log | None = None, partitions: int = 4) -> None:
        self.log = log or MemoryLog()
        self.database = database
        TOPICS.create(self.log, partitions)
        with Producer(self.log, TOPICS) as producer:
            producer.register(registry_events())
        self._ledger = Ledger(self.log, TOPICS, folder, group="ledger")
        self._projector = Projector(self.log, TOPICS, database, group="projector")
        self.catch_up()

    def submit(self, events: Iterable[Event]) -> None:
        with Producer(self.log, TOPICS) as producer:
            producer.submit(events)
        self.catch_up()

    def submit_running(self, events: Iterable[Event]) -> None:
        """As `submit`, while the pipeline is running."""
        with Producer(self.log, TOPICS) as producer:
            producer.submit(events)
        self.wait()

    def catch_up(self) -> None:
        submitted = sum(self.log.end_offsets(TOPICS.submitted).values())
        drain(self._ledger, lambda: sum(self.log.end_offsets(TOPICS.recorded).values()) >= submitted)
        self.catch_up_views()

    def catch_up_views(self) -> None:
        drain(self._projector, self._is_projected)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ledger and projector at work in threads, until the block ends."""
        stop = threading.Event()

        def turn(service: Service) -> None:
            while not stop.is_set():
                service.turn()

        threads = [threading.Thread(target=turn, args=(service,)) for service in (self._ledger, self._projector)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def wait(self) -> None:
        """Until all that was submitted is in the views; for when the pipeline is running."""
        assert eventually(
            lambda: sum(self.log.end_offsets(TOPICS.recorded).values()) >= sum(self.log.end_offsets(TOPICS.submitted).values())
        )
        assert eventually(self._is_projected)

    def reader(self) -> Reader:
        return Reader.open(self.database)

    def close(self) -> None:
        self._ledger.close()
        self._projector.close()
        self.log.close()

    def _is_projected(self) -> bool:
        reader = self.reader()
        try:
            return reader.next_offsets() == self.log.end_offsets(TOPICS.recorded)
        finally:
            reader.close()
