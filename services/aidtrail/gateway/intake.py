"""Takes events into `submitted` for many requests at once, and tells each what the ledger ruled on it.

One thread appends: what arrives while it waits for the log goes in together, next. What is under way is bounded; beyond that a request is
turned away, with nothing submitted. Nothing is appended twice while it is known here: equal requests share what becomes of the first. One
task asks the views for the outcomes that requests wait for, one query for all of them, whenever the views were written.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Condition, Thread
from uuid import UUID

from aidtrail import codec, metrics, tracing
from aidtrail.domain.events import Event
from aidtrail.errors import AppendUnknownError, MalformedError, UnavailableError, UndecodableError
from aidtrail.gateway import problems
from aidtrail.log import Appender, Draft, Log, Reader, partition_of
from aidtrail.topics import Topics
from aidtrail.views.reader import Outcome

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT = 1000
MAX_TOLD = 20
"""Submissions whose ids are in a line of the log, when nobody knows what became of them."""
ACKNOWLEDGE_SECONDS = 10.0
LOOK_SECONDS = 0.05
"""Between two looks at the views, while a request waits for its outcome and nobody says that they were written."""
OUTAGE_SECONDS = 0.5
"""The same while the views cannot be read."""
READ_SECONDS = 2.0
"""For the log to say what was submitted."""
REMEMBERED = 10_000
STOP_WAIT_SECONDS = 3.0
"""For outcomes to come, once the service is told to stop; who waits still is told that the log has his submission."""

Outcomes = Callable[[Sequence[UUID]], Mapping[UUID, Outcome]]


class _Submission:
    """What stands, or may stand, in the log under an event id. `done` is set when that is known, or known to be unknown."""

    def __init__(self, event: Event, draft: Draft, *, again: bool) -> None:
        self.again = again
        """Whether another attempt of the same may be in the log already."""
        self.event_id = event.meta.event_id
        self.party_id = event.meta.actor.party_id
        self.source = event.meta.source
        self.sha256 = codec.sha256(draft.value)
        self.draft: Draft | None = draft
        self.taken = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done.add_done_callback(asyncio.Future.exception)  # nobody may be left to ask for it

    @property
    def is_unknown(self) -> bool:
        return self.done.done() and self.done.exception() is not None


class Intake:
    """`outcomes` reads the views, and is called in a thread. Start, use and close it in one event loop."""

    def __init__(self, log: Log, topics: Topics, outcomes: Outcomes, *, acknowledge_seconds: float) -> None:
        self._log = log
        self._topics = topics
        self._outcomes = outcomes
        self._acknowledge_seconds = acknowledge_seconds
        self._partitions = log.partitions(topics.submitted)
        self._loop = asyncio.get_running_loop()
        self._queue: list[_Submission] = []
        self._under_way = 0
        self._changed = Condition()
        self._closing = False
        self._reading = ThreadPoolExecutor(1, "submissions")
        self._reader: Reader | None = None
        self._thread = Thread(target=self._append_all, name="intake", daemon=True)
        self._thread.start()
        self._wanted: dict[UUID, list[asyncio.Future[Outcome | None]]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._written = asyncio.Event()
        self._waits_end = False
        self._submissions: OrderedDict[UUID, _Submission] = OrderedDict()

    async def submit(self, event: Event, value: bytes) -> bytes:
        """Returns once the log has acknowledged the event, whose bytes are `value`: the SHA-256 of the submission. That of an equal request
        before it, where there was one with the same event id; nothing is appended then, unless it is not known whether the first is in the
        log.

        Raises UnavailableError, or LogUnavailable where too much is under way, when it certainly was not submitted, AppendUnknownError when
        that is not known, KeyReused or IdReused when the id stands for another request.
        """
        with tracing.sending(self._topics.submitted):
            return await self._submit(event, value)

    async def _submit(self, event: Event, value: bytes) -> bytes:
        submission = self._submissions.get(event.meta.event_id)
        if submission is not None and event.meta.signature is not None and submission.sha256 != codec.sha256(value):
            raise problems.IdReused
        if submission is not None and submission.source != event.meta.source:
            raise problems.KeyReused
        if submission is None or submission.is_unknown:
            submission = self._enter(event, value, again=submission is not None)
        await asyncio.wait({submission.done}, timeout=self._acknowledge_seconds)
        if not submission.done.done():
            if not self._withdrawn(submission):
                raise AppendUnknownError("the log did not acknowledge the submission in time")
            self._end([submission], UnavailableError("the log does not answer"))
        submission.done.result()
        return submission.sha256

    async def outcome(self, event_id: UUID, seconds: float) -> Outcome | None:
        """What the ledger ruled, once the views show it; None if they do not in time."""
        if self._waits_end:
            return None
        wanted: asyncio.Future[Outcome | None] = self._loop.create_future()
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

    def views_written(self) -> None:
        """Look for outcomes now. May be called from any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._written.set)

    def party_of(self, event_id: UUID) -> str | None:
        """The party for which this process lately submitted the event, or may have; None where it knows nothing of it."""
        submission = self._submissions.get(event_id)
        return None if submission is None else submission.party_id

    async def submission(self, outcome: Outcome) -> Event | None:
        """What was submitted; None where it is no event. What was refused is read from the log, by one thread with one reader: who asks
        holds up nobody, and the log has so long to answer. Raises UnavailableError."""
        if outcome.event is not None:
            return outcome.event
        try:
            return await asyncio.wait_for(self._loop.run_in_executor(self._reading, self._read, outcome), READ_SECONDS)
        except TimeoutError:
            raise UnavailableError("the log did not say in time what was submitted") from None

    def stop_waiting(self) -> None:
        """Let nobody wait long for an outcome any more: the service stops. May be called from any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._loop.call_later, STOP_WAIT_SECONDS, self._end_waits)

    async def close(self) -> None:
        """Take nothing more. Every request has been answered by now: what the log still holds up is unknown to whoever sent it."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._reading.submit(self._drop_reader)
        self._reading.shutdown(wait=False)
        await asyncio.to_thread(self._thread.join, 1.0)
        if self._looking is not None:
            self._looking.cancel()

    def _enter(self, event: Event, value: bytes, *, again: bool) -> _Submission:
        key = event.meta.donation_id.encode()
        draft = Draft(self._topics.submitted, partition_of(key, self._partitions), key, value, tracing.current())
        submission = _Submission(event, draft, again=again)
        with self._changed:
            if self._closing or self._under_way >= MAX_IN_FLIGHT:
                problem = f"{self._under_way} submissions are under way already"
                raise AppendUnknownError(problem) if again else problems.LogUnavailable(problem)
            self._under_way += 1
            self._queue.append(submission)
            self._changed.notify()
        self._submissions[submission.event_id] = submission
        self._submissions.move_to_end(submission.event_id)
        if len(self._submissions) > REMEMBERED:
            self._submissions.popitem(last=False)
        return submission

    def _withdrawn(self, submission: _Submission) -> bool:
        """Take it back, unless it is on its way into the log."""
        with self._changed:
            if submission.taken:
                return False
            self._queue.remove(submission)
            self._under_way -= 1
            return True

    def _end(self, submissions: Sequence[_Submission], error: Exception | None) -> None:
        """In the event loop: tell whoever waits, and forget what certainly was not submitted."""
        for submission in submissions:
            submission.draft = None
            if error is None:
                submission.done.set_result(None)
            elif isinstance(error, UnavailableError) and submission.again:
                submission.done.set_exception(AppendUnknownError(str(error)))
            else:
                submission.done.set_exception(error)
                if isinstance(error, UnavailableError):
                    self._submissions.pop(submission.event_id, None)

    async def _look(self) -> None:
        while self._wanted:
            pause = LOOK_SECONDS
            self._written.clear()
            try:
                found = await asyncio.to_thread(self._outcomes, list(self._wanted))
            except Exception as error:  # an outage of the views, or whatever it is: whoever waits has a time-out of his own
                logger.warning("gateway: outcomes cannot be read: %s", error)
                found, pause = {}, OUTAGE_SECONDS
            for event_id, outcome in found.items():
                self._tell(event_id, outcome)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._written.wait(), pause)

    def _tell(self, event_id: UUID, outcome: Outcome | None) -> None:
        for wanted in self._wanted.get(event_id, ()):
            if not wanted.done():
                wanted.set_result(outcome)

    def _end_waits(self) -> None:
        self._waits_end = True
        for event_id in self._wanted:
            self._tell(event_id, None)

    # --- the thread that reads --------------------------------------------------------------------------------------------------------

    def _read(self, outcome: Outcome) -> Event | None:
        try:
            if self._reader is None:
                self._reader = self._log.reader(self._topics.submitted, follows=False)
            self._reader.assign({outcome.partition: outcome.submitted_offset})
            records = self._reader.poll(1, READ_SECONDS).get(outcome.partition, [])
        except Exception as error:
            logger.warning("gateway: a submission cannot be read from the log: %s", error)
            self._drop_reader()
            raise
        if not records or records[0].offset != outcome.submitted_offset:
            raise UnavailableError("the submission could not be read from the log")
        try:
            event = codec.decode(records[0].value)
        except (UndecodableError, MalformedError):
            return None
        return event if isinstance(event, Event) else None

    def _drop_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    # --- the thread that appends ------------------------------------------------------------------------------------------------------

    def _append_all(self) -> None:
        appender: Appender | None = None
        while self._has_work():
            if appender is None:
                try:
                    appender = self._log.appender()
                except Exception as error:  # whatever it is, nothing has left
                    logger.warning("gateway: the log takes nothing: %s", error)
                    self._ended(self._take(), error if isinstance(error, UnavailableError) else UnavailableError(str(error)))
                    continue
            batch = self._take()
            if not batch:
                continue  # all of it was withdrawn
            try:
                with metrics.appending("gateway", len(batch)):
                    appender.append([submission.draft for submission in batch if submission.draft is not None])
            except UnavailableError as error:
                logger.warning("gateway: the log takes nothing: %s", error)
                self._ended(batch, error)
                appender.close()
                appender = None
            except Exception as error:  # whatever it is, the records may be in the log
                told = {"event_ids": [str(submission.event_id) for submission in batch[:MAX_TOLD]]}
                logger.warning("gateway: %d submissions may be in the log or not: %s", len(batch), error, extra=told)
                self._ended(batch, error if isinstance(error, AppendUnknownError) else AppendUnknownError(str(error)))
                appender.close()
                appender = None
            else:
                self._ended(batch, None)
        if appender is not None:
            appender.close()

    def _has_work(self) -> bool:
        """Wait for some; False when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            return bool(self._queue)

    def _take(self) -> list[_Submission]:
        with self._changed:
            batch, self._queue = self._queue, []
            for submission in batch:
                submission.taken = True
            return batch

    def _ended(self, batch: Sequence[_Submission], error: Exception | None) -> None:
        with self._changed:
            self._under_way -= len(batch)
        with suppress(RuntimeError):  # the loop has ended, and all that waited in it
            self._loop.call_soon_threadsafe(self._end, batch, error)
