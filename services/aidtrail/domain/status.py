"""What people ask of a donation: where it stands on each of four axes, in one word, and in amounts by currency.

All of it is derived from the state, by no clock: an approval past its validity counts until its expiry is recorded.
"""

from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from aidtrail.domain.donation import ENDED, IN_FLIGHT, ApprovalState, DisbursementState, Donation, PledgeState
from aidtrail.domain.events import Oversight
from aidtrail.domain.money import ZERO


class ApprovalAxis(StrEnum):
    """Measured against what is pledged. Partly: for a part of it, or under conditions that are not all met. Where nothing is approved or
    pending, how the newest approval ended."""

    NONE = "none"
    PENDING = "pending"
    GRANTED = "granted"
    PARTLY = "partly"
    REJECTED = "rejected"
    EXPIRED = "expired"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"
    NOT_RECORDED = "not_recorded"


class DisbursementAxis(StrEnum):
    """Money that left the donor, measured against what is pledged. Partly and full are net of returns."""

    NONE = "none"
    SCHEDULED = "scheduled"
    IN_FLIGHT = "in_flight"
    PARTLY = "partly"
    FULL = "full"
    RETURNED = "returned"


class ReceiptAxis(StrEnum):
    """Acknowledged: the beneficiary acknowledged all that was received for it, and nothing that was paid is still on its way."""

    NONE = "none"
    PARTLY = "partly"
    ACKNOWLEDGED = "acknowledged"
    DISPUTED = "disputed"


class Headline(StrEnum):
    """The donation in one word: the first of these, from `headline`, that is so."""

    ANNOUNCED = "announced"
    COMMITTED = "committed"
    AWAITING_APPROVAL = "awaiting_approval"
    NOT_APPROVED = "not_approved"
    PARTLY_APPROVED = "partly_approved"
    APPROVED = "approved"
    IN_FLIGHT = "in_flight"
    PARTLY_PAID = "partly_paid"
    PAID = "paid"
    ACKNOWLEDGED = "acknowledged"
    DISPUTED = "disputed"
    RETURNED = "returned"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    CLOSED = "closed"


class Axes(NamedTuple):
    pledge: PledgeState
    approval: ApprovalAxis
    disbursement: DisbursementAxis
    receipt: ReceiptAxis


class AmountRow(NamedTuple):
    """One currency of a donation. Of a managed donation `in_flight`, `settled` and `returned` are what left the donor (root legs), of an
    observed one all that was reported; `passed_on` is what intermediaries paid net of returns, `held` what they have and did not pass on.
    `received`, `acknowledged` and `utilised` are the beneficiary's. `approved` is what granted approvals with every condition met allow."""

    pledged: Decimal = ZERO
    approved: Decimal = ZERO
    in_flight: Decimal = ZERO
    settled: Decimal = ZERO
    returned: Decimal = ZERO
    passed_on: Decimal = ZERO
    held: Decimal = ZERO
    received: Decimal = ZERO
    acknowledged: Decimal = ZERO
    utilised: Decimal = ZERO


_PLEDGED, _APPROVED, _IN_FLIGHT, _SETTLED, _RETURNED, _PASSED_ON, _HELD, _RECEIVED, _ACKNOWLEDGED, _UTILISED = range(10)
_NOTHING = [ZERO] * 10


def amounts(donation: Donation) -> dict[str, AmountRow]:
    """The row of every currency that was ever pledged, paid or used, the pledged ones first."""
    rows = {currency: [amount, *_NOTHING[1:]] for currency, amount in donation.pledge.amounts.items()}
    pledge = donation.pledge
    for approval in donation.approvals.values():
        if approval.usable:
            for currency, amount in approval.granted.items():
                _row(rows, currency)[_APPROVED] += amount
    if donation.disbursements:
        observed = donation.oversight is Oversight.OBSERVED
        parents = () if observed else {leg.parent_leg_id for leg in pledge.legs.values()}
        for paid in donation.disbursements.values():
            leg = paid.leg
            if paid.state is DisbursementState.SETTLED:
                row = _row(rows, paid.currency)
                if observed or leg.parent_leg_id is None:
                    row[_SETTLED] += paid.settled
                    row[_RETURNED] += paid.returned
                else:
                    net = paid.settled - paid.returned
                    row[_PASSED_ON] += net
                    row[_HELD] -= net
                if paid.received is not None:
                    if leg.leg_id in parents:
                        row[_HELD] += paid.arrived
                    if leg.to_party == pledge.beneficiary:
                        row[_RECEIVED] += paid.received
                        row[_ACKNOWLEDGED] += paid.acknowledged
            elif paid.state in IN_FLIGHT:
                row = _row(rows, paid.currency)
                if leg.parent_leg_id is None:
                    row[_IN_FLIGHT] += paid.instructed
                else:
                    row[_HELD] -= paid.instructed
    for currency, amount in donation.utilised.items():
        _row(rows, currency)[_UTILISED] = amount
    return {currency: AmountRow._make(row) for currency, row in rows.items()}


def _row(rows: dict[str, list[Decimal]], currency: str) -> list[Decimal]:
    row = rows.get(currency)
    if row is None:
        row = rows[currency] = [*_NOTHING]
    return row


def axes(donation: Donation) -> Axes:
    """Where the donation stands: four answers that do not depend on one another."""
    return Axes(donation.pledge.state, _approval(donation), _disbursement(donation), _receipt(donation))


def headline(donation: Donation, known: Axes | None = None) -> Headline:
    """One word for a list: what somebody must act on first, else how far the money is, else how far the papers are. Who has the axes
    already passes them on: they are most of the work."""
    pledge, approval, disbursement, receipt = known or axes(donation)
    if donation.closed_by is not None:
        return Headline.CLOSED
    if receipt is ReceiptAxis.DISPUTED:
        return Headline.DISPUTED
    if disbursement is DisbursementAxis.IN_FLIGHT:
        return Headline.IN_FLIGHT
    moved = disbursement is DisbursementAxis.PARTLY or disbursement is DisbursementAxis.FULL
    if pledge in ENDED and not moved:
        return Headline(pledge)
    if receipt is ReceiptAxis.ACKNOWLEDGED and (disbursement is DisbursementAxis.FULL or pledge in ENDED):
        return Headline.ACKNOWLEDGED
    if disbursement in _BY_DISBURSEMENT:
        return _BY_DISBURSEMENT[disbursement]
    if approval in _BY_APPROVAL:
        return _BY_APPROVAL[approval]
    return Headline(pledge)


_BY_DISBURSEMENT = {
    DisbursementAxis.PARTLY: Headline.PARTLY_PAID,
    DisbursementAxis.FULL: Headline.PAID,
    DisbursementAxis.RETURNED: Headline.RETURNED,
}
_BY_APPROVAL = {
    ApprovalAxis.PENDING: Headline.AWAITING_APPROVAL,
    ApprovalAxis.GRANTED: Headline.APPROVED,
    ApprovalAxis.PARTLY: Headline.PARTLY_APPROVED,
    ApprovalAxis.REJECTED: Headline.NOT_APPROVED,
    ApprovalAxis.EXPIRED: Headline.NOT_APPROVED,
    ApprovalAxis.REVOKED: Headline.NOT_APPROVED,
    ApprovalAxis.SUPERSEDED: Headline.NOT_APPROVED,
}


def _approval(donation: Donation) -> ApprovalAxis:
    if donation.oversight is Oversight.OBSERVED:
        return ApprovalAxis.NOT_RECORDED
    approvals = donation.approvals
    if not approvals:
        return ApprovalAxis.NONE
    left = dict(donation.pledge.amounts)
    granted = pending = ended_in_use = False
    for approval in approvals.values():
        if approval.state is ApprovalState.PENDING:
            pending = True
        elif approval.state is ApprovalState.GRANTED:
            granted = True
            if approval.usable:
                for currency, amount in approval.granted.items():
                    left[currency] = left.get(currency, ZERO) - amount
        else:
            ended_in_use = True
    if ended_in_use:  # what was paid under an approval stays approved after it ended
        for paid in donation.disbursements.values():
            used = paid.in_flight + paid.net
            if paid.leg.parent_leg_id is not None or paid.approval_id is None or used <= 0:
                continue
            if approvals[paid.approval_id].state is not ApprovalState.GRANTED:
                granted = True
                left[paid.currency] = left.get(paid.currency, ZERO) - used
    if granted:
        return ApprovalAxis.GRANTED if max(left.values(), default=ZERO) <= 0 else ApprovalAxis.PARTLY
    if pending:
        return ApprovalAxis.PENDING
    return ApprovalAxis(list(approvals.values())[-1].state)


def _disbursement(donation: Donation) -> DisbursementAxis:
    observed = donation.oversight is Oversight.OBSERVED
    left = dict(donation.pledge.amounts)
    scheduled = in_flight = settled = net = False
    for paid in donation.disbursements.values():
        if not observed and paid.leg.parent_leg_id is not None:
            continue
        if paid.state is DisbursementState.SETTLED:
            kept = paid.settled - paid.returned
            settled = settled or paid.settled > 0
            net = net or kept > 0
            left[paid.currency] = left.get(paid.currency, ZERO) - kept
        elif paid.state in IN_FLIGHT:
            in_flight = True
        elif paid.state is DisbursementState.SCHEDULED:
            scheduled = True
    if in_flight:
        return DisbursementAxis.IN_FLIGHT
    if net:
        return DisbursementAxis.FULL if max(left.values(), default=ZERO) <= 0 else DisbursementAxis.PARTLY
    if settled:
        return DisbursementAxis.RETURNED
    return DisbursementAxis.SCHEDULED if scheduled else DisbursementAxis.NONE


def _receipt(donation: Donation) -> ReceiptAxis:
    pledge = donation.pledge
    begun = False
    complete = True
    for paid in donation.disbursements.values():
        if paid.disputed_by is not None:
            return ReceiptAxis.DISPUTED
        if paid.state in IN_FLIGHT:
            complete = False
        elif paid.settled > paid.returned:
            if paid.received is None:
                complete = False
            elif paid.leg.to_party == pledge.beneficiary:
                begun = True
                if paid.acknowledged < paid.arrived:
                    complete = False
    if not begun:
        return ReceiptAxis.NONE
    if complete and not any(row.held for row in amounts(donation).values()):
        return ReceiptAxis.ACKNOWLEDGED
    return ReceiptAxis.PARTLY
