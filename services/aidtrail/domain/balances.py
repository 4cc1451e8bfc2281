"""Sums over a managed donation's payments. All are by currency and re-derivable; nothing here is kept.

A *sibling group* is the legs that pay out of the same purse: the root legs out of the donor's, the children of one leg out of what arrived
on it. It is named by the `parent_leg_id` of its legs, None for the roots. *Consumed* is in flight + settled - returned.
"""

from collections.abc import Collection
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


def bound(donation: Donation, purse: str | None, mechanism_id: str | None = None) -> dict[str, Decimal]:
    """What approvals hold of one purse, those of one mechanism or all: the amounts of each that is pending or granted and includes a leg
    out of the purse, and what payments out of it consume under approvals that ended."""
    sums: dict[str, Decimal] = {}
    legs = donation.pledge.legs
    ended = set()
    for approval_id, approval in donation.approvals.items():
        if mechanism_id is not None and approval.mechanism_id != mechanism_id:
            continue
        if approval.state not in LIVE:
            ended.add(approval_id)
        elif any(legs[leg_id].parent_leg_id == purse for leg_id in approval.legs):
            amounts = approval.granted if approval.state is ApprovalState.GRANTED else approval.requested
            for currency, amount in amounts.items():
                sums[currency] = sums.get(currency, ZERO) + amount
    for paid in donation.disbursements.values():
        if paid.leg.parent_leg_id == purse and paid.approval_id in ended:
            sums[paid.currency] = sums.get(paid.currency, ZERO) + consumed(paid)
    return sums


def available(donation: Donation, leg_ids: Collection[str]) -> dict[str, Decimal]:
    """What may still be put before a mechanism for these legs of the route: what is pledged, less what approvals hold of their purse; the
    least over the purses. Money that was paid to an intermediary may so need another approval on its way, when the first has ended."""
    left = dict(donation.pledge.amounts)
    for purse in {donation.pledge.legs[leg_id].parent_leg_id for leg_id in leg_ids}:
        held_by_approvals = bound(donation, purse)
        for currency, amount in donation.pledge.amounts.items():
            left[currency] = min(left[currency], amount - held_by_approvals.get(currency, ZERO))
    return left


def acknowledged(donation: Donation) -> dict[str, Decimal]:
    """What the beneficiary has acknowledged and has not given back."""
    sums: dict[str, Decimal] = {}
    for paid in donation.disbursements.values():
        if paid.kept:
            sums[paid.currency] = sums.get(paid.currency, ZERO) + paid.kept
    return sums
