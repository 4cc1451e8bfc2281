"""What an import of FTS flows comes to: sums that can be held against the file's own, and a summary for people."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from aidtrail.domain import events as e
from aidtrail.domain.money import EXPONENTS
from aidtrail.importers.fts import Import

ATTRIBUTION = "UN OCHA FTS, CC BY-IGO"


class Sum(NamedTuple):
    flows: int = 0
    amount: Decimal = Decimal(0)

    def plus(self, amount: Decimal) -> "Sum":
        return Sum(self.flows + 1, self.amount + amount)


class Stated(NamedTuple):
    """What one sum of `Totals.amounts` is about."""

    contribution: e.Contribution
    status: str
    basis: str
    currency: str


@dataclass(frozen=True)
class Totals:
    """Sums over the donations that the import announces; amendments are counted by `Import.flows`, not summed. In kind stands apart from
    money everywhere. `usd`, `net_new_usd` and `counted_already_usd` are by contribution and status, in USD as FTS converted it.
    Net new is where FTS says newMoney: the rest is money that another flow states too."""

    amounts: Mapping[Stated, Sum]
    usd: Mapping[tuple[e.Contribution, str], Sum]
    net_new_usd: Mapping[tuple[e.Contribution, str], Sum]
    counted_already_usd: Mapping[tuple[e.Contribution, str], Sum]


def totals(imported: Import) -> Totals:
    """From the events: a donation with a payment is paid, with a confirmation a commitment, else a pledge. Only newMoney and which of the
    two amounts was taken come from `Import.flows`, because no event states them."""
    of: dict[str, list[e.Event]] = {}
    for event in imported.events:
        of.setdefault(event.meta.donation_id, []).append(event)
    amounts: defaultdict[Stated, Sum] = defaultdict(Sum)
    usd: defaultdict[tuple[e.Contribution, str], Sum] = defaultdict(Sum)
    new: defaultdict[tuple[e.Contribution, str], Sum] = defaultdict(Sum)
    counted: defaultdict[tuple[e.Contribution, str], Sum] = defaultdict(Sum)
    for flow in imported.flows:
        announced = next((event for event in of.get(flow.donation_id, ()) if isinstance(event, e.PledgeAnnounced)), None)
        if announced is None:
            continue
        status, moneys = "pledge", announced.amounts
        for event in of[flow.donation_id]:
            if isinstance(event, e.PledgeConfirmed):
                status = "commitment"
            if isinstance(event, e.DisbursementSettled):
                status, moneys = "paid", (event.amount,)
        for money in moneys:
            stated = Stated(announced.contribution, status, flow.basis, money.currency)
            amounts[stated] = amounts[stated].plus(money.amount)
        key = announced.contribution, status
        for money in announced.equivalents or moneys:
            usd[key] = usd[key].plus(money.amount)
            apart = new if flow.new_money else counted
            apart[key] = apart[key].plus(money.amount)
    return Totals(dict(amounts), dict(usd), dict(new), dict(counted))


def summary(imported: Import) -> str:
    """For a person: what became of the lines, then the sums. Currencies, statuses, and money and goods, are never added together."""
    changes = [flow.change for flow in imported.flows]
    sums = totals(imported)
    rows = [
        f"{imported.lines:,} lines: {len(changes):,} flows, {len(imported.repeats):,} repeats, {len(imported.refusals):,} refused",
        f"flows: {', '.join(f'{changes.count(change):,} {change}' for change in ('new', 'amended', 'completed', 'unchanged'))}",
        f"{len(imported.events):,} events of donations, {len(imported.registry):,} of the registry; {len(imported.orphans):,} orphans "
        f"(parent in no file and not in the log), {len(imported.notes):,} notes",
    ]
    rows += ["", f"{'stated':<34}{'flows':>8}{'amount':>24}"] if sums.amounts else []
    for stated, found in sorted(sums.amounts.items()):
        name = f"{stated.contribution.replace('_', ' ')}, {stated.status}, {'original' if stated.basis == 'original' else 'amountUSD'}"
        rows.append(f"{name:<34}{found.flows:>8,}{_amount(found.amount, stated.currency):>24}")
    for title, by in (
        ("all in USD, as FTS converted it", sums.usd),
        ("of it net new (newMoney)", sums.net_new_usd),
        ("of it counted already in another flow", sums.counted_already_usd),
    ):
        rows += ["", title] if by else []
        for (contribution, status), found in sorted(by.items()):
            name = f"{contribution.replace('_', ' ')}, {status}"
            rows.append(f"{name:<34}{found.flows:>8,}{_amount(found.amount, 'USD'):>24}")
    return "\n".join([*rows, "", f"Source: {ATTRIBUTION}"])


def _amount(amount: Decimal, currency: str) -> str:
    return f"{amount:,.{EXPONENTS.get(currency, 2)}f} {currency}"
