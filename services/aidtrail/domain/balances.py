"""Sums over a managed donation's payments. All are by currency and re-derivable; nothing here is kept.

A *sibling group* is the legs that pay out of the same purse: the root legs out of the donor's, the children of one leg out of what arrived
on it. It is named by the `parent_leg_id` of its legs, None for the roots. *Consumed* is in flight + settled - returned.
"""

from decimal import Decimal

from aidtrail.domain.donation import LIVE, ApprovalState, Disbursement, Donation
from aidtrail.domain.money import ZERO


def consumed(paid: Disbursement) -> Decimal:
    """What a payment takes out of a purse."""
    return paid.in_flight + paid.net


def consumed_of_pledge(donation: Donation) -> dict[str, Decimal]:
    """What the root legs take out of the donor's purse."""
    return _consumed_by_group(donation, None)


def _consumed_by_group(donation: Donation, parent_leg_id: str | None) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for paid in donation.disbursements.values():
        if paid.leg.parent_leg_id == parent_leg_id:
            sums[paid.currency] = sums.get(paid.currency, ZERO) + consumed(paid)
    return sums


def consumed_of_approval(donation: Donation, approval_id: str, parent_leg_id: str | None, currency: str) -> Decimal:
    """What one sibling group takes out of one approval."""
    return sum(
        (
            consumed(paid)
            for paid in donation.disbursements.values()
            if paid.approval_id == approval_id and paid.currency == currency and paid.leg.parent_leg_id == parent_leg_id
        ),
        ZERO,
    )


def held(donation: Donation, leg_id: str, currency: str) -> Decimal:
    """What the receiver of a leg has of it: what arrived, less what its child legs consume."""
    arrived = sum((p.arrived for p in donation.disbursements.values() if p.leg.leg_id == leg_id and p.currency == currency), ZERO)
    return arrived - _consumed_by_group(donation, leg_id).get(currency, ZERO)


def available(donation: Donation) -> dict[str, Decimal]:
    """What may still be put before a mechanism: pledged, less the amounts of approvals that are pending or granted, less what the root legs
    consume under approvals that ended."""
    left = dict(donation.pledge.amounts)
    for approval in donation.approvals.values():
        if approval.state in LIVE:
            amounts = approval.granted if approval.state is ApprovalState.GRANTED else approval.requested
            for currency, amount in amounts.items():
                left[currency] = left.get(currency, ZERO) - amount
    for paid in donation.disbursements.values():
        approval_of = donation.approvals.get(paid.approval_id) if paid.approval_id is not None else None
        if paid.leg.parent_leg_id is None and approval_of is not None and approval_of.state not in LIVE:
            left[paid.currency] = left.get(paid.currency, ZERO) - consumed(paid)
    return left


def acknowledged(donation: Donation) -> dict[str, Decimal]:
    """What the beneficiary has acknowledged."""
    sums: dict[str, Decimal] = {}
    for paid in donation.disbursements.values():
        if paid.acknowledged:
            sums[paid.currency] = sums.get(paid.currency, ZERO) + paid.acknowledged
    return sums
