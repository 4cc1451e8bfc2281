"""Reads the live build, or another: what the command line, and everything that answers questions about donations, shows."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString, NamedTuple, Self
from uuid import UUID

from psycopg import IsolationLevel, sql
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
    mechanisms: list[str]
    terms_sha256: bytes
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


class ApprovalRow(NamedTuple):
    """A request to a mechanism. `requested` and `granted` are amounts by currency, as strings."""

    donation_id: str
    approval_id: str
    mechanism_id: str
    state: str
    legs: list[str]
    requested: dict[str, str]
    granted: dict[str, str]
    requested_by: str
    requested_for: str
    requested_on: datetime
    approvals_required: int
    approvals: int
    deciders: list[str]
    valid_until: datetime | None


class Sight(NamedTuple):
    """Whose eyes (`domain.authority.sight`), in the columns' terms: donations that this party takes part in or that are or were put before
    one of these mechanisms, and all that are observed if `observed`."""

    party_id: str | None
    mechanisms: list[str]
    observed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which donations are asked for. What is None does not filter; `sight` None sees all."""

    donation_id: str | None = None
    party: str | None = None
    mechanism: str | None = None
    leg: str | None = None
    headline: str | None = None
    pledge: str | None = None
    approval: str | None = None
    disbursement: str | None = None
    receipt: str | None = None
    oversight: str | None = None
    currency: str | None = None
    changed_since: datetime | None = None
    sight: Sight | None = None


_CONDITIONS: Mapping[str, LiteralString] = {
    "donation_id": "donation_id = %(donation_id)s",
    "party": "%(party)s = ANY(parties)",
    "mechanism": "%(mechanism)s = ANY(mechanisms)",
    "leg": "%(leg)s = ANY(legs)",
    "headline": "headline = %(headline)s",
    "pledge": "pledge = %(pledge)s",
    "approval": "approval = %(approval)s",
    "disbursement": "disbursement = %(disbursement)s",
    "receipt": "receipt = %(receipt)s",
    "oversight": "oversight = %(oversight)s",
    "currency": "EXISTS (SELECT FROM amounts a WHERE a.donation_id = d.donation_id AND a.currency = %(currency)s)",
    "changed_since": "changed_at >= %(changed_since)s",
}
_IN_SIGHT: LiteralString = (
    "(%(all)s OR %(sight_party)s = ANY(parties) OR mechanisms && %(sight_mechanisms)s::text[]"
    " OR (%(sight_observed)s AND oversight = 'observed'))"
)


def _seeing(sight: Sight | None) -> dict[str, object]:
    """The parameters of _IN_SIGHT."""
    party, mechanisms, observed = sight or Sight(None, [])
    return {"all": sight is None, "sight_party": party, "sight_mechanisms": mechanisms, "sight_observed": observed}


class HistoryRow(NamedTuple):
    """One entry of a donation. `event` is what the log says, decoded; None for a void record that is none."""

    partition: int
    offset: int
    donation_id: str | None
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
    partition: int
    submitted_offset: int
    """Where the submission stands in `submitted`."""
    submission_sha256: bytes
    """Of its bytes: tells it from another submission with the same event id."""
    event: Event | None
    """What was submitted, with the ledger's stamp. None for what was refused: the refusal is the ledger's own event."""


class Reader:
    """Reads through one connection. Not shared between threads. What is to be of one moment is read within one `snapshot`."""

    def __init__(self, connection: schema.Connection) -> None:
        self._connection = connection
        configure(connection)

    @classmethod
    def open(cls, conninfo: str, build: str | None = None) -> Self:
        """On the live build, whichever it is at each question; or on the one named. Raises UsageError when there is none of that name."""
        connection = schema.connect(conninfo)
        if build is not None:
            schema.require_build(connection, build)
            connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(build)))
            connection.commit()
        return cls(connection)

    @contextmanager
    def snapshot(self) -> Iterator[Self]:
        """What is read within is of one moment, whatever projectors write meanwhile: a donation's amounts are those of its version."""
        with self._connection.transaction():
            yield self

    def is_empty(self) -> bool:
        """Whether no projector has run here yet: there is no live build."""
        return schema.live_build(self._connection) is None

    def donation(self, donation_id: str) -> DonationRow | None:
        with self._connection.cursor(row_factory=class_row(DonationRow)) as cursor:
            query: LiteralString = "SELECT " + _DONATION + " FROM donations WHERE donation_id = %s"
            return cursor.execute(query, (donation_id,), prepare=True).fetchone()

    def donations(self, filters: Filters = Filters(), *, after: str = "", limit: int | None = None) -> Iterator[DonationRow]:
        """Donations by id, those after the id `after`."""
        stated = {name: value for name in _CONDITIONS if (value := getattr(filters, name)) is not None}
        conditions = [_CONDITIONS[name] for name in stated]
        values: dict[str, object] = {**stated, "after": after, "limit": limit}
        if filters.sight is not None:
            conditions.append(_IN_SIGHT)
            values |= _seeing(filters.sight)
        where: LiteralString = " AND ".join(["donation_id > %(after)s", *conditions])
        query: LiteralString = "SELECT " + _DONATION + " FROM donations d WHERE " + where + " ORDER BY donation_id LIMIT %(limit)s"
        with self._connection.cursor(row_factory=class_row(DonationRow)) as cursor:
            yield from cursor.execute(query, values)

    def approvals(
        self,
        *,
        state: str | None = None,
        mechanism: str | None = None,
        donation_id: str | None = None,
        sight: Sight | None = None,
        after: tuple[datetime, str, str] | None = None,
        limit: int | None = None,
    ) -> Iterator[ApprovalRow]:
        """Requests to mechanisms, the oldest first; those after (requested_on, donation_id, approval_id)."""
        query: LiteralString = (
            "SELECT a.* FROM approvals a JOIN donations USING (donation_id)"
            " WHERE (%(state)s::text IS NULL OR state = %(state)s) AND (%(mechanism)s::text IS NULL OR mechanism_id = %(mechanism)s)"
            " AND (%(donation)s::text IS NULL OR donation_id = %(donation)s)"
            " AND (%(after)s::timestamptz IS NULL"
            " OR (requested_on, donation_id, approval_id) > (%(after)s, %(after_donation)s, %(after_id)s))"
            " AND " + _IN_SIGHT + " ORDER BY requested_on, donation_id, approval_id LIMIT %(limit)s"
        )
        at, after_donation, after_id = after or (None, "", "")
        values = {
            "state": state, "mechanism": mechanism, "donation": donation_id, "after": at, "after_donation": after_donation,
            "after_id": after_id, "limit": limit, **_seeing(sight),
        }  # fmt: skip
        with self._connection.cursor(row_factory=class_row(ApprovalRow)) as cursor:
            yield from cursor.execute(query, values)

    def entries(
        self, next_offsets: Mapping[int, int], *, sight: Sight | None = None, limit: int = 100
    ) -> tuple[list[HistoryRow], dict[int, int]]:
        """What was recorded from these offsets on (a partition that is not named counts from 0), partition by partition: at most `limit`
        entries, in log order within each partition, and where to go on. Entries out of sight are passed over."""
        found: list[HistoryRow] = []
        after = dict(next_offsets)
        query: LiteralString = (
            f"SELECT {_HISTORY} FROM entries LEFT JOIN donations d USING (donation_id)"
            ' WHERE entries.partition = %(partition)s AND "offset" >= %(start)s AND "offset" < %(end)s'
            " AND " + _IN_SIGHT + ' ORDER BY "offset" LIMIT %(limit)s'
        )
        for partition, end in sorted(self.next_offsets().items()):
            start = after.setdefault(partition, 0)
            if start >= end or len(found) == limit:
                continue
            values = {"partition": partition, "start": start, "end": end, "limit": limit - len(found), **_seeing(sight)}
            rows = self._history(query, values)
            found += rows
            after[partition] = rows[-1].offset + 1 if len(found) == limit else end
        return found, after

    def amounts(self, donation_ids: list[str]) -> dict[str, list[AmountRow]]:
        """The amounts of these donations, one row a currency."""
        found: dict[str, list[AmountRow]] = {donation_id: [] for donation_id in donation_ids}
        with self._connection.cursor(row_factory=class_row(AmountRow)) as cursor:
            query: LiteralString = "SELECT " + _AMOUNTS + " FROM amounts WHERE donation_id = ANY(%s) ORDER BY 1, 2"
            for row in cursor.execute(query, (donation_ids,), prepare=True):
                found[row.donation_id].append(row)
        return found

    def history(self, donation_id: str, *, after: tuple[int, int] = (-1, -1), limit: int | None = None) -> list[HistoryRow]:
        """The entries of a donation in log order, admitted, refused and void: those after (partition, offset)."""
        query: LiteralString = (
            f'SELECT {_HISTORY} FROM entries WHERE donation_id = %(id)s AND (partition, "offset") > (%(partition)s, %(offset)s)'
            ' ORDER BY partition, "offset" LIMIT %(limit)s'
        )
        return self._history(query, {"id": donation_id, "partition": after[0], "offset": after[1], "limit": limit})

    def _history(self, query: LiteralString, values: Mapping[str, object]) -> list[HistoryRow]:
        rows: Any = self._connection.execute(query, values, binary=True)
        return [HistoryRow._make([*row, _decoded(value)]) for *row, value in rows]

    def outcome(self, event_id: UUID) -> Outcome | None:
        """What became of a submission; None until it has been ruled on and projected."""
        return self.outcomes([event_id]).get(event_id)

    def outcomes(self, event_ids: Sequence[UUID]) -> dict[UUID, Outcome]:
        """The outcomes that are there already, by event id: the first where an id was submitted again."""
        query: LiteralString = (
            "SELECT event_id, donation_id, outcome, version, NULL, NULL, NULL, partition, submitted_offset, value FROM entries"
            " WHERE event_id = ANY(%(ids)s) AND outcome = 'admitted' UNION ALL"
            " SELECT r.event_id, r.donation_id, 'refused', NULL, r.reason, r.expected, r.found, partition, e.submitted_offset,"
            " r.submission_sha256"
            ' FROM refusals r JOIN entries e USING (partition, "offset") WHERE r.event_id = ANY(%(ids)s)'
            " ORDER BY event_id, submitted_offset DESC"
        )
        found: dict[UUID, Outcome] = {}
        rows: Any = self._connection.execute(query, {"ids": list(event_ids)}, prepare=True)
        for event_id, *said, held in rows:
            admitted = said[1] == "admitted"
            found[event_id] = Outcome._make([*said, codec.submission_sha256(held), _decoded(held)] if admitted else [*said, held, None])
        return found

    def due(self, now: datetime) -> list[str]:
        """Donations of which something expires at or before `now`."""
        query: LiteralString = "SELECT donation_id FROM donations WHERE next_deadline <= %s ORDER BY next_deadline, donation_id"
        return [str(row[0]) for row in self._connection.execute(query, (now,))]

    def next_offsets(self) -> dict[int, int]:
        """How far the live build is, by partition of `recorded`."""
        rows: Any = self._connection.execute("SELECT partition, next_offset FROM positions")
        return dict(rows)

    def counts(self) -> Mapping[str, int]:
        """Rows of each table."""
        tables: Any = self._connection.execute(
            "SELECT 'donations', count(*) FROM donations UNION ALL SELECT 'entries', count(*) FROM entries"
            " UNION ALL SELECT 'refusals', count(*) FROM refusals UNION ALL SELECT 'parked', count(*) FROM parked"
            " UNION ALL SELECT 'void', count(*) FROM entries WHERE outcome = 'void'"
        )
        return dict(tables)

    def close(self) -> None:
        self._connection.close()


def configure(connection: schema.Connection) -> None:
    """Set a connection up for reading."""
    connection.autocommit = True
    connection.isolation_level = IsolationLevel.REPEATABLE_READ  # of `snapshot`
    connection.read_only = True
    connection.prepare_threshold = sys.maxsize  # only what asks for it: of a list, PostgreSQL should see the values before it plans


_AMOUNTS: LiteralString = (
    "donation_id, currency, pledged, approved, in_flight, settled, returned, passed_on, held, received, acknowledged, utilised"
)
_DONATION: LiteralString = (
    "donation_id, partition, version, head_sha256, oversight, contribution, donor, beneficiary, parties, legs, mechanisms, terms_sha256,"
    " purpose, headline, pledge, approval, disbursement, receipt, announced_on, changed_at, next_deadline"
)
_HISTORY: LiteralString = (
    'entries.partition, "offset", donation_id, outcome, entries.version, event_type, event_id, actor_id, party_id, recorded_at,'
    " void_reason, sha256, value"
)


def _decoded(value: bytes) -> Event | None:
    try:
        event = codec.decode(value)
    except Exception:
        return None
    return event if isinstance(event, Event) else None
