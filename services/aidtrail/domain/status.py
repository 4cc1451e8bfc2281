"""What people ask of a donation: where it stands on each of four axes, in one word, and in amounts by currency.

All of it is derived from the state, by no clock: an approval past its validity counts until its expiry is recorded.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from aidtrail.domain.donation import ENDED, IN_FLIGHT, Approval, ApprovalState, DisbursementState, Donation, PledgeState
from aidtrail.domain.events import Oversight
from aidtrail.domain.money import ZERO


class ApprovalAxis(StrEnum):
    """Of approvals that let the donor pay, measured against what is pledged. Partly: for a part of it, or under conditions that are not all
    met. Where nothing is approved or pending, how the newest approval ended."""

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
    """Acknowledged: the beneficiary acknowledged all that was received for it, and nothing that was paid is still on its way or missing:
    every payment was received whole, but for fees and what came back."""

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


class Status(NamedTuple):
    """All that a list shows of a donation. `amounts` is by currency."""

    axes: "Axes"
    headline: Headline
    amounts: dict[str, "AmountRow"]


class Axes(NamedTuple):
    pledge: PledgeState
    approval: ApprovalAxis
    disbursement: DisbursementAxis
    receipt: ReceiptAxis


class AmountRow(NamedTuple):
    """One currency of a donation. Of a managed donation `in_flight`, `settled` and `returned` are what left the donor (root legs), of an
    observed one all that was reported; `passed_on` is what intermediaries paid net of returns, `held` what they have and did not pass on.
    `received`, `acknowledged` and `utilised` are the beneficiary's, the first two net of returns. `approved` is what granted approvals with
    every condition met allow the donor to pay: those that include a leg that starts at him."""

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

# Read as often as there are payments: in Python 3.11 a member costs ten times as much through its class.
_OBSERVED, _WAS_GRANTED, _IS_PENDING = Oversight.OBSERVED, ApprovalState.GRANTED, ApprovalState.PENDING
_WAS_SETTLED, _IS_SCHEDULED = DisbursementState.SETTLED, DisbursementState.SCHEDULED


def status(donation: Donation) -> Status:
    """Where a donation stands. The amounts are most of the work, and the axes follow from them: so all of it is found together."""
    rows = amounts(donation)
    found = axes(donation, rows)
    return Status(found, headline(donation, found), rows)


def amounts(donation: Donation) -> dict[str, AmountRow]:
    """The row of every currency that was ever pledged, paid or used, the pledged ones first. One that an amendment took away keeps its row,
    of zeros: who wrote the row before must learn that nothing is pledged in it any more."""
    pledge = donation.pledge
    rows = {currency: [amount, *_NOTHING[1:]] for currency, amount in pledge.amounts.items()}
    for currency in pledge.former_currencies:
        rows[currency] = [*_NOTHING]
    for approval in donation.approvals.values():
        if approval.usable and _lets_the_donor_pay(donation, approval):
            for currency, amount in approval.granted.items():
                _row(rows, currency)[_APPROVED] += amount
    if donation.disbursements:
        observed = donation.oversight is _OBSERVED
        parents = {leg.parent_leg_id for leg in pledge.legs.values()}
        for paid in donation.disbursements.values():
            leg, state = paid.leg, paid.state
            from_donor = observed or leg.parent_leg_id is None
            if state is _WAS_SETTLED:
                row = _row(rows, paid.currency)
                if from_donor:
                    row[_SETTLED] += paid.settled
                    row[_RETURNED] += paid.returned
                else:
                    net = paid.settled - paid.returned
                    row[_PASSED_ON] += net
                    row[_HELD] -= net
                if paid.received is not None:
                    arrived, at_the_end = paid.arrived, leg.to_party == pledge.beneficiary
                    if not observed and (leg.leg_id in parents or not at_the_end):
                        row[_HELD] += arrived
                    if at_the_end:
                        row[_RECEIVED] += arrived
                        row[_ACKNOWLEDGED] += paid.kept
            elif state in IN_FLIGHT:
                row = _row(rows, paid.currency)
                if from_donor:
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


def axes(donation: Donation, rows: Mapping[str, AmountRow]) -> Axes:
    """Where the donation stands: four answers that do not depend on one another. Requires that `rows` are its `amounts`."""
    return Axes(donation.pledge.state, _approval(donation, rows), _disbursement(donation, rows), _receipt(donation, rows))


def headline(donation: Donation, axes: Axes) -> Headline:
    """One word for a list: what somebody must act on first, else how far the money is, else how far the papers are."""
    pledge, approval, disbursement, receipt = axes
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


def _approval(donation: Donation, rows: Mapping[str, AmountRow]) -> ApprovalAxis:
    if donation.oversight is _OBSERVED:
        return ApprovalAxis.NOT_RECORDED
    approvals = [approval for approval in donation.approvals.values() if _lets_the_donor_pay(donation, approval)]
    if not approvals:
        return ApprovalAxis.NONE
    granted = pending = ended = False
    for approval in approvals:
        if approval.state is _WAS_GRANTED:
            granted = True
        elif approval.state is _IS_PENDING:
            pending = True
        else:
            ended = True
    used = _used_of_ended(donation) if ended else {}
    if granted or used:
        covered = all(row.pledged <= row.approved + used.get(currency, ZERO) for currency, row in rows.items())
        return ApprovalAxis.GRANTED if covered else ApprovalAxis.PARTLY
    if pending:
        return ApprovalAxis.PENDING
    return ApprovalAxis(approvals[-1].state)


def _lets_the_donor_pay(donation: Donation, approval: Approval) -> bool:
    """Whether it includes a leg that starts at the donor. A leg that an amendment took away counts as one: the approval was superseded."""
    legs = donation.pledge.legs
    return any(leg_id not in legs or legs[leg_id].parent_leg_id is None for leg_id in approval.legs)


def _used_of_ended(donation: Donation) -> dict[str, Decimal]:
    """What was paid, or is in flight, under approvals that ended since: it stays approved. By currency, only what is above zero."""
    used: dict[str, Decimal] = {}
    for paid in donation.disbursements.values():
        if paid.leg.parent_leg_id is None and paid.approval_id is not None:
            amount = paid.in_flight + paid.net
            if amount > 0 and donation.approvals[paid.approval_id].state is not _WAS_GRANTED:
                used[paid.currency] = used.get(paid.currency, ZERO) + amount
    return used


def _disbursement(donation: Donation, rows: Mapping[str, AmountRow]) -> DisbursementAxis:
    if not donation.disbursements:
        return DisbursementAxis.NONE
    if any(row.in_flight for row in rows.values()):
        return DisbursementAxis.IN_FLIGHT
    if any(row.settled > row.returned for row in rows.values()):
        full = all(row.pledged <= row.settled - row.returned for row in rows.values())
        return DisbursementAxis.FULL if full else DisbursementAxis.PARTLY
    if any(row.settled for row in rows.values()):
        return DisbursementAxis.RETURNED
    observed = donation.oversight is _OBSERVED
    if observed and not any(row.pledged for row in rows.values()):
        return DisbursementAxis.FULL  # a source may report that all of nothing was paid
    if donation.pledge.state in ENDED:
        return DisbursementAxis.NONE  # what was planned is paid no more
    from_donor = (paid for paid in donation.disbursements.values() if observed or paid.leg.parent_leg_id is None)
    return DisbursementAxis.SCHEDULED if any(paid.state is _IS_SCHEDULED for paid in from_donor) else DisbursementAxis.NONE


def _receipt(donation: Donation, rows: Mapping[str, AmountRow]) -> ReceiptAxis:
    beneficiary = donation.pledge.beneficiary
    begun = False
    complete = True
    for paid in donation.disbursements.values():
        if paid.disputed_by is not None:
            return ReceiptAxis.DISPUTED
        if paid.state in IN_FLIGHT:
            complete = False
        elif paid.settled > paid.returned:
            if paid.missing:
                complete = False
            arrived = paid.arrived
            if arrived and paid.leg.to_party == beneficiary:
                begun = True
                if paid.acknowledged < arrived:
                    complete = False
    if not begun:
        return ReceiptAxis.NONE
    if complete and not any(row.held for row in rows.values()):
        return ReceiptAxis.ACKNOWLEDGED
    return ReceiptAxis.PARTLY
