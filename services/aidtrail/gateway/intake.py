"""Takes events into `submitted` for many requests at once, and tells each what the ledger ruled on it.

One thread appends: what arrives while it waits for the log goes in together, next. What is under way is bounded; beyond that a request is
turned away, with nothing submitted. One task asks the views for the outcomes that requests wait for, one query for all of them.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Condition, Lock, Thread
from uuid import UUID

from aidtrail import codec
from aidtrail.domain.events import Event
from aidtrail.errors import AidtrailError, AppendUnknownError, MalformedError, UnavailableError, UndecodableError
from aidtrail.log import Appender, Draft, Log, partition_of
from aidtrail.topics import Topics
from aidtrail.views.reader import Outcome

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT = 1000
ACKNOWLEDGE_SECONDS = 10.0
LOOK_SECONDS = 0.01
"""Between two looks at the views, while a request waits for its outcome."""
REMEMBERED = 10_000

Outcomes = Callable[[Sequence[UUID]], Mapping[UUID, Outcome]]


class _Waiting:
    """One event on its way into the log."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.taken = False

    def end(self, error: Exception | None) -> None:
        self.loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Intake:
    """`outcomes` reads the views, and is called in a thread. Start and close it in the event loop that uses it."""

    def __init__(self, log: Log, topics: Topics, outcomes: Outcomes, *, acknowledge_seconds: float = ACKNOWLEDGE_SECONDS) -> None:
        self._log = log
        self._topics = topics
        self._outcomes = outcomes
        self._acknowledge_seconds = acknowledge_seconds
        self._partitions = log.partitions(topics.submitted)
        self._queue: list[_Waiting] = []
        self._under_way = 0
        self._changed = Condition()
        self._closing = False
        self._reading = Lock()
        self._thread = Thread(target=self._append_all, name="intake", daemon=True)
        self._thread.start()
        self._wanted: dict[UUID, list[asyncio.Future[Outcome]]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._remembered: OrderedDict[UUID, str] = OrderedDict()

    async def submit(self, event: Event) -> None:
        """Returns once the log has acknowledged the event. Raises UnavailableError when it certainly was not submitted, AppendUnknownError
        when that is not known."""
        key = event.meta.donation_id.encode()
        waiting = _Waiting(Draft(self._topics.submitted, partition_of(key, self._partitions), key, codec.encode(event)))
        with self._changed:
            if self._closing or self._under_way >= MAX_IN_FLIGHT:
                raise UnavailableError(f"{self._under_way} submissions are under way already")
            self._under_way += 1
            self._queue.append(waiting)
            self._changed.notify()
        self._remember(event.meta.event_id, event.meta.actor.party_id)
        try:
            await asyncio.wait_for(waiting.done, self._acknowledge_seconds)
        except TimeoutError:
            with self._changed:
                if not waiting.taken:
                    self._queue.remove(waiting)
                    self._under_way -= 1
                    self._remembered.pop(event.meta.event_id, None)
                    raise UnavailableError("the log does not answer") from None
            raise AppendUnknownError("the log did not acknowledge the submission in time") from None
        except UnavailableError:
            self._remembered.pop(event.meta.event_id, None)
            raise

    async def outcome(self, event_id: UUID, seconds: float) -> Outcome | None:
        """What the ledger ruled, once the views show it; None if they do not in time."""
        wanted: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(event_id, []).append(wanted)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            return await asyncio.wait_for(wanted, seconds)
        except TimeoutError:
            return None
        finally:
            left = self._wanted.get(event_id, [])
            if wanted in left:
                left.remove(wanted)
            if not left:
                self._wanted.pop(event_id, None)

    def party_of(self, event_id: UUID) -> str | None:
        """The party for which this process lately submitted the event, or may have; None where it knows nothing of it."""
        return self._remembered.get(event_id)

    def submission(self, outcome: Outcome) -> Event | None:
        """What was submitted, from the log; None where it is no event. Raises UnavailableError. Blocks: call it in a thread."""
        with self._reading:
            reader = self._log.reader(self._topics.submitted)
            try:
                reader.assign({outcome.partition: outcome.submitted_offset})
                records = reader.poll(1, 5.0).get(outcome.partition, [])
            finally:
                reader.close()
        if not records or records[0].offset != outcome.submitted_offset:
            raise UnavailableError("the submission could not be read from the log")
        try:
            event = codec.decode(records[0].value)
        except (UndecodableError, MalformedError):
            return None
        return event if isinstance(event, Event) else None

    async def close(self) -> None:
        """Let what is under way end, and take nothing more."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join, self._acknowledge_seconds)
        if self._looking is not None:
            self._looking.cancel()

    def _remember(self, event_id: UUID, party_id: str) -> None:
        self._remembered[event_id] = party_id
        self._remembered.move_to_end(event_id)
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    async def _look(self) -> None:
        while self._wanted:
            try:
                found = await asyncio.to_thread(self._outcomes, list(self._wanted))
            except AidtrailError as error:  # an outage of the views: whoever waits has a time-out of his own
                logger.warning("gateway: outcomes cannot be read: %s", error)
                await asyncio.sleep(0.5)
                continue
            for event_id, outcome in found.items():
                for wanted in self._wanted.get(event_id, ()):
                    if not wanted.done():
                        wanted.set_result(outcome)
            await asyncio.sleep(LOOK_SECONDS)

    def _append_all(self) -> None:
        appender: Appender | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    break
                batch, self._queue = self._queue, []
                for waiting in batch:
                    waiting.taken = True
            error: Exception | None = None
            try:
                appender = appender or self._log.appender()
            except UnavailableError as unavailable:
                error = unavailable
            else:
                try:
                    appender.append([waiting.draft for waiting in batch])
                except Exception as unknown:  # whatever it is, the records may be in the log
                    error = unknown if isinstance(unknown, AppendUnknownError) else AppendUnknownError(str(unknown))
                    appender.close()
                    appender = None
            with self._changed:
                self._under_way -= len(batch)
            for waiting in batch:
                waiting.end(error)
        if appender is not None:
            appender.close()
