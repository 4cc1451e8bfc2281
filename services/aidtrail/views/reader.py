"""Reads the live build: what the command line, and everything that answers questions about donations, shows."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString, NamedTuple
from uuid import UUID

from psycopg.rows import class_row

from aidtrail import codec
from aidtrail.domain.events import Event
from aidtrail.views import schema


class DonationRow(NamedTuple):
    donation_id: str
    partition: int
    version: int
    head_sha256: bytes
    oversight: str
    contribution: str
    donor: str
    beneficiary: str
    parties: list[str]
    legs: list[str]
    purpose: str | None
    headline: str
    pledge: str
    approval: str
    disbursement: str
    receipt: str
    announced_on: datetime
    changed_at: datetime
    next_deadline: datetime | None


class AmountRow(NamedTuple):
    donation_id: str
    currency: str
    pledged: Decimal
    approved: Decimal
    in_flight: Decimal
    settled: Decimal
    returned: Decimal
    passed_on: Decimal
    held: Decimal
    received: Decimal
    acknowledged: Decimal
    utilised: Decimal


class HistoryRow(NamedTuple):
    """One entry of a donation. `event` is what the log says, decoded; None for a void record that is none."""

    partition: int
    offset: int
    outcome: str
    version: int | None
    event_type: str | None
    event_id: UUID | None
    actor_id: str | None
    party_id: str | None
    recorded_at: datetime | None
    void_reason: str | None
    sha256: bytes
    event: Event | None


class Outcome(NamedTuple):
    """What became of a submission."""

    donation_id: str
    outcome: str
    version: int | None
    reason: str | None
    expected: str | None
    found: str | None


class Reader:
    """One connection to the live build. Not shared between threads."""

    def __init__(self, conninfo: str) -> None:
        self._connection = schema.connect(conninfo)
        self._connection.autocommit = True
        self._connection.prepare_threshold = None  # a build that goes live replaces the views under a prepared statement

    def is_empty(self) -> bool:
        """Whether no projector has run here yet: there is no live build."""
        return schema.live_build(self._connection) is None

    def donation(self, donation_id: str) -> DonationRow | None:
        return next(self.donations(donation_id=donation_id), None)

    def donations(
        self,
        *,
        donation_id: str | None = None,
        party: str | None = None,
        headline: str | None = None,
        oversight: str | None = None,
        leg: str | None = None,
        limit: int | None = None,
    ) -> Iterator[DonationRow]:
        """Donations by id. Filters that are None do not filter."""
        query: LiteralString = (
            "SELECT * FROM live.donations WHERE (%(id)s::text IS NULL OR donation_id = %(id)s)"
            " AND (%(party)s::text IS NULL OR %(party)s = ANY(parties)) AND (%(headline)s::text IS NULL OR headline = %(headline)s)"
            " AND (%(oversight)s::text IS NULL OR oversight = %(oversight)s) AND (%(leg)s::text IS NULL OR %(leg)s = ANY(legs))"
            " ORDER BY donation_id LIMIT %(limit)s"
        )
        values = {"id": donation_id, "party": party, "headline": headline, "oversight": oversight, "leg": leg, "limit": limit}
        with self._connection.cursor(row_factory=class_row(DonationRow)) as cursor:
            yield from cursor.execute(query, values)

    def amounts(self, donation_ids: list[str]) -> dict[str, list[AmountRow]]:
        """The amounts of these donations, one row a currency."""
        found: dict[str, list[AmountRow]] = {donation_id: [] for donation_id in donation_ids}
        with self._connection.cursor(row_factory=class_row(AmountRow)) as cursor:
            for row in cursor.execute("SELECT * FROM live.amounts WHERE donation_id = ANY(%s) ORDER BY 1, 2", (donation_ids,)):
                found[row.donation_id].append(row)
        return found

    def history(self, donation_id: str) -> Iterator[HistoryRow]:
        """Every entry of a donation in log order: admitted, refused and void."""
        query: LiteralString = (
            'SELECT partition, "offset", outcome, version, event_type, event_id, actor_id, party_id, recorded_at, void_reason, sha256,'
            ' value FROM live.entries WHERE donation_id = %s ORDER BY partition, "offset"'
        )
        rows: Any = self._connection.execute(query, (donation_id,), binary=True)
        for *row, value in rows:
            yield HistoryRow._make([*row, _decoded(value)])

    def outcome(self, event_id: UUID) -> Outcome | None:
        """What became of a submission, the first outcome where it was submitted again; None until it has been ruled on and projected."""
        query: LiteralString = (
            "SELECT donation_id, outcome, version, NULL AS reason, NULL AS expected, NULL AS found, recorded_at FROM live.entries"
            " WHERE event_id = %(id)s AND outcome = 'admitted' UNION ALL"
            " SELECT donation_id, 'refused', NULL, reason, expected, found, recorded_at FROM live.refusals WHERE event_id = %(id)s"
            " ORDER BY recorded_at, outcome LIMIT 1"
        )
        row: Any = self._connection.execute(query, {"id": event_id}).fetchone()
        return None if row is None else Outcome(*row[:-1])

    def outcomes(self, event_ids: list[UUID]) -> dict[UUID, Outcome]:
        """The outcomes that are there already, by event id."""
        found = ((event_id, self.outcome(event_id)) for event_id in event_ids)
        return {event_id: outcome for event_id, outcome in found if outcome is not None}

    def due(self, now: datetime) -> list[str]:
        """Donations of which something expires at or before `now`."""
        query: LiteralString = "SELECT donation_id FROM live.donations WHERE next_deadline <= %s ORDER BY next_deadline, donation_id"
        return [str(row[0]) for row in self._connection.execute(query, (now,))]

    def next_offsets(self) -> dict[int, int]:
        """How far the live build is, by partition of `recorded`."""
        rows: Any = self._connection.execute("SELECT partition, next_offset FROM live.positions")
        return dict(rows)

    def counts(self) -> Mapping[str, int]:
        """Rows of each table."""
        tables: Any = self._connection.execute(
            "SELECT 'donations', count(*) FROM live.donations UNION ALL SELECT 'entries', count(*) FROM live.entries"
            " UNION ALL SELECT 'refusals', count(*) FROM live.refusals UNION ALL SELECT 'parked', count(*) FROM live.parked"
            " UNION ALL SELECT 'void', count(*) FROM live.entries WHERE outcome = 'void'"
        )
        return dict(tables)

    def close(self) -> None:
        self._connection.close()


def _decoded(value: bytes) -> Event | None:
    try:
        event = codec.decode(value)
    except Exception:
        return None
    return event if isinstance(event, Event) else None
