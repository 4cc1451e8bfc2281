"""The timekeeper: submits PledgeExpired and ApprovalExpired when they are due.

Safe to run twice, and in several processes: the event follows from the deadline and the donation's version alone, so who finds the same
thing due submits the same bytes, and the ledger refuses the second as a duplicate. A deadline that is refused (money is in flight) is tried
again once the donation has changed.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg

from aidtrail import codec
from aidtrail.domain.donation import Deadline, deadlines
from aidtrail.domain.events import Actor, ApprovalExpired, Event, Meta, PledgeExpired, Source
from aidtrail.domain.fold import apply
from aidtrail.errors import AppendUnknownError, FoldError, UnavailableError
from aidtrail.log import Log
from aidtrail.producer import Producer
from aidtrail.topics import Topics
from aidtrail.views.reader import Reader

logger = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
MARGIN = timedelta(minutes=1)
"""How long a deadline must be past: the ledger goes by the log's clock, which may be behind this one. What it refused for being early would
be the same bytes at the next look, and refused as a duplicate for as long as the donation does not change."""
SOURCE = Source(channel="timekeeper")


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
    ) -> None:
        self._producer = Producer(log, topics)
        self._conninfo = conninfo
        self._wait = wait
        self._actor = actor
        self._clock = clock
        self._reader: Reader | None = None
        self._submitted: set[UUID] = set()

    def turn(self) -> int:
        """Submit what is due, then wait."""
        try:
            due = self.due()
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise UnavailableError(f"PostgreSQL went away: {' '.join(str(error).split())}") from None
        events = [event for event in due if event.meta.event_id not in self._submitted]
        if events:
            try:
                self._producer.submit(events)
            except AppendUnknownError as error:
                raise UnavailableError(str(error)) from None
            logger.info("timekeeper: submitted %d events that are due", len(events))
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

    def reset(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._producer.close()

    def close(self) -> None:
        self.reset()

    def _due_of(self, donation_id: str, until: datetime) -> list[Event]:
        assert self._reader is not None
        donation = None
        try:
            for row in self._reader.history(donation_id):
                if row.outcome == "admitted" and row.event is not None:
                    donation = apply(donation, row.event)
        except FoldError:  # the projector has parked it and says so; the others go on
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
