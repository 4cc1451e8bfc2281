"""The timekeeper: submits PledgeExpired and ApprovalExpired when they are due.

Safe to run twice, and in several processes: the event follows from the deadline and the donation's version alone, so who finds the same
thing due submits the same bytes, and the ledger refuses the second as a duplicate. A deadline that is refused (money is in flight) is tried
again once the donation has changed.

On request it also keeps the pipeline's heart beating: when nothing has come into the views for a while, it submits an event that must come
there and can change nothing, the expiry of a pledge that nobody made. The ledger refuses it as it refuses any such event, so the refusal
travels the whole way. Silence is then an alarm, also at night; and while donations move there is no heartbeat at all.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg

from aidtrail import codec, metrics
from aidtrail.domain.donation import Deadline, deadlines
from aidtrail.domain.events import Actor, ApprovalExpired, Event, Meta, PledgeExpired, Source
from aidtrail.domain.fold import apply
from aidtrail.errors import AppendUnknownError, UnavailableError
from aidtrail.log import Log
from aidtrail.producer import Producer
from aidtrail.service import Watch
from aidtrail.topics import Topics, require_write
from aidtrail.views.reader import Reader

logger = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
MARGIN = timedelta(minutes=1)
"""How long a deadline must be past: the ledger goes by the log's clock, which may be behind this one. What it refused for being early would
be the same bytes at the next look, and refused as a duplicate for as long as the donation does not change."""
SOURCE = Source(channel="timekeeper")
HEARTBEAT = "HEARTBEAT-{:%Y%m%d}"
"""The donation of a day's heartbeats. One a day, so that what a ledger keeps in memory of a donation stays small."""
MIN_HEARTBEAT_SECONDS = 60.0


def system_clock() -> datetime:
    return datetime.now(UTC)


class Timekeeper:
    """Looks every few seconds for deadlines that have passed. `actor` must be enrolled with the role timekeeper."""

    name = "timekeeper"

    def __init__(
        self,
        log: Log,
        topics: Topics,
        conninfo: str,
        wait: Callable[[float], object],
        *,
        actor: Actor,
        clock: Callable[[], datetime] = system_clock,
        heartbeat_seconds: float | None = None,
    ) -> None:
        """`heartbeat_seconds` is how long the views may stand still until a heartbeat is submitted, at least 60; None: there is none."""
        assert heartbeat_seconds is None or heartbeat_seconds >= MIN_HEARTBEAT_SECONDS
        require_write(log, topics.submitted)
        self._producer = Producer(log, topics)
        self._watch = Watch(log, topics.submitted)
        self._conninfo = conninfo
        self._wait = wait
        self._actor = actor
        self._clock = clock
        self._reader: Reader | None = None
        self._submitted: set[UUID] = set()
        self._heartbeat = None if heartbeat_seconds is None else timedelta(seconds=heartbeat_seconds)
        self._moved_at = clock()
        self._stands: dict[int, int] = {}
        metrics.HEARTBEAT_SECONDS.set(heartbeat_seconds or 0)

    def turn(self) -> int:
        """Submit what is due, then wait."""
        try:
            due = self.due()
            beat = self._heartbeats()
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise UnavailableError(f"PostgreSQL went away: {' '.join(str(error).split())}") from None
        events = [event for event in due if event.meta.event_id not in self._submitted]
        if events or beat:
            try:
                self._producer.submit([*events, *beat])
            except AppendUnknownError as error:
                raise UnavailableError(str(error)) from None
        else:
            self._watch.look()
        if events:
            logger.info("timekeeper: submitted %d events that are due", len(events))
        metrics.HEARTBEATS.inc(len(beat))
        self._submitted = {event.meta.event_id for event in due}
        self._wait(EVERY_SECONDS)
        return len(events)

    def due(self) -> list[Event]:
        """The events that are due now, one for each deadline that has been past for MARGIN."""
        if self._reader is None:
            self._reader = Reader.open(self._conninfo)
        if self._reader.is_empty():
            return []
        until = self._clock() - MARGIN
        return [event for donation_id in self._reader.due(until) for event in self._due_of(donation_id, until)]

    def _heartbeats(self) -> list[Event]:
        """One if it is time for one. The same bytes from every timekeeper in the same minute."""
        if self._heartbeat is None or self._reader is None or self._reader.is_empty():
            return []
        now, stands = self._clock(), self._reader.next_offsets()
        if stands != self._stands:
            self._stands, self._moved_at = stands, now
        if now - self._moved_at < self._heartbeat:
            return []
        self._moved_at = now
        minute, donation_id = now.replace(second=0, microsecond=0), HEARTBEAT.format(now)
        event_id = codec.event_id_at(int(minute.timestamp() * 1000), donation_id.encode())
        return [PledgeExpired(meta=Meta(event_id=event_id, donation_id=donation_id, occurred_on=minute, actor=self._actor, source=SOURCE))]

    def reset(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._producer.close()

    def close(self) -> None:
        self.reset()

    def _due_of(self, donation_id: str, until: datetime) -> list[Event]:
        assert self._reader is not None
        rows = self._reader.history(donation_id)
        donation = None
        try:
            for row in rows:
                if row.outcome == "admitted" and row.event is not None:
                    donation = apply(donation, row.event)
        except Exception:  # whatever a fold raises: the projector has parked it and says so; the others go on
            return []
        if donation is None:
            return []
        return [self._event(donation_id, donation.version, deadline) for deadline in deadlines(donation) if deadline.due_at <= until]

    def _event(self, donation_id: str, version: int, deadline: Deadline) -> Event:
        due_at, event_type, approval_id = deadline
        what = f"{event_type} {donation_id} {approval_id} {due_at.isoformat()} {version}"
        meta = Meta(
            event_id=codec.event_id_at(int(due_at.timestamp() * 1000), what.encode()),
            donation_id=donation_id,
            occurred_on=due_at,
            actor=self._actor,
            source=SOURCE,
        )
        return PledgeExpired(meta=meta) if approval_id is None else ApprovalExpired(meta=meta, approval_id=approval_id)
