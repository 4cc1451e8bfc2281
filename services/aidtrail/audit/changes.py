"""What changed between two builds of the views, each as of its own cut: entries, donations, and amounts by currency."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from psycopg import sql

from aidtrail.views import schema
from aidtrail.views.writer import COLUMNS

SUMS = tuple(column for column in COLUMNS["amounts"] if column not in ("donation_id", "currency"))
MAX_NAMED = 100


class EntryCount(NamedTuple):
    """Entries that are in only one of the builds: `change` is new or gone."""

    change: str
    outcome: str
    event_type: str | None
    entries: int


class DonationChange(NamedTuple):
    """`change` is new, changed or gone. Versions and headlines are None where the donation is not there."""

    donation_id: str
    change: str
    version_before: int | None
    version_after: int | None
    headline_before: str | None
    headline_after: str | None


class AmountChange(NamedTuple):
    """A sum over the donations of one kind in one currency, that is not the same. Kinds and currencies are never added together."""

    oversight: str
    contribution: str
    currency: str
    amount: str
    before: Decimal
    after: Decimal

    @property
    def change(self) -> Decimal:
        return self.after - self.before


@dataclass(frozen=True)
class Changes:
    """`donations` are the first MAX_NAMED of those whose status rows differ; `differing` counts them all."""

    entries: list[EntryCount]
    differing: int
    donations: list[DonationChange]
    amounts: list[AmountChange]


def changes(connection: schema.Connection, before: str, after: str) -> Changes:
    """What differs between two builds."""
    donations = _donations(connection, before, after)
    return Changes(_entries(connection, before, after), len(donations), donations[:MAX_NAMED], _amounts(connection, before, after))


def _entries(connection: schema.Connection, before: str, after: str) -> list[EntryCount]:
    found = []
    only = sql.SQL(
        "SELECT outcome, event_type, count(*) FROM {} a WHERE NOT EXISTS (SELECT FROM {} b WHERE b.partition = a.partition"
        ' AND b."offset" = a."offset" AND b.sha256 = a.sha256 AND b.outcome = a.outcome) GROUP BY 1, 2 ORDER BY 1, 2'
    )
    for change, here, there in (("new", after, before), ("gone", before, after)):
        rows: Any = connection.execute(only.format(sql.Identifier(here, "entries"), sql.Identifier(there, "entries"))).fetchall()
        found += [EntryCount(change, *row) for row in rows]
    return found


def _donations(connection: schema.Connection, before: str, after: str) -> list[DonationChange]:
    query = sql.SQL(
        "SELECT donation_id, CASE WHEN b.version IS NULL THEN 'new' WHEN a.version IS NULL THEN 'gone' ELSE 'changed' END,"
        " b.version, a.version, b.headline, a.headline FROM {} b FULL JOIN {} a USING (donation_id)"
        " WHERE b.rows_sha256 IS DISTINCT FROM a.rows_sha256 ORDER BY donation_id"
    )
    rows: Any = connection.execute(query.format(sql.Identifier(before, "donations"), sql.Identifier(after, "donations"))).fetchall()
    return [DonationChange._make(row) for row in rows]


def _amounts(connection: schema.Connection, before: str, after: str) -> list[AmountChange]:
    sums: list[dict[tuple[str, str, str], list[Decimal]]] = []
    totals = sql.SQL("SELECT oversight, contribution, currency, {} FROM {} JOIN {} USING (donation_id) GROUP BY 1, 2, 3")
    columns = sql.SQL(", ").join(sql.SQL("sum({})").format(sql.Identifier(column)) for column in SUMS)
    for build in (before, after):
        query = totals.format(columns, sql.Identifier(build, "amounts"), sql.Identifier(build, "donations"))
        rows: Any = connection.execute(query).fetchall()
        sums.append({(*kind,): amounts for *kind, amounts in ((*row[:3], list(row[3:])) for row in rows)})
    nothing = [Decimal(0)] * len(SUMS)
    return [
        AmountChange(*kind, column, old, new)
        for kind in sorted(sums[0].keys() | sums[1].keys())
        for column, old, new in zip(SUMS, sums[0].get(kind, nothing), sums[1].get(kind, nothing), strict=True)
        if old != new
    ]
