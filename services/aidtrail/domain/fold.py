"""`apply` folds admitted events into the state of their donation.

It sets down what an event says and what follows from it (the last signature grants, new terms supersede). It asks no policy: that was
done once, by `rules.check`, and the verdict is a recorded fact. Whatever `check` admits, of any version, `apply` must be able to read.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from aidtrail.domain import events as e
from aidtrail.domain.donation import (
    LIVE,
    Approval,
    ApprovalState,
    ConditionState,
    Disbursement,
    DisbursementState,
    Donation,
    Pledge,
    PledgeState,
    terms_sha256,
)
from aidtrail.domain.money import ZERO, total
from aidtrail.errors import FoldError


def apply(donation: Donation | None, event: e.Event) -> Donation:
    """The donation after `event`. Raises FoldError where the event cannot follow: for a donation that is not there or is there already,
    for an approval, disbursement or condition that the donation does not know, or with a stamped version that is not the next."""
    meta = event.meta
    if donation is None:
        if type(event) is not e.PledgeAnnounced:
            raise FoldError(f"{event.type} of {meta.donation_id}: no pledge was announced before it")
        following = _pledge_announced(event)
    else:
        step = _STEPS.get(type(event))
        if step is None or meta.donation_id != donation.donation_id:
            raise FoldError(f"{event.type} of {meta.donation_id} cannot follow version {donation.version} of {donation.donation_id}")
        try:
            following = step(donation, event)
        except KeyError as missing:
            raise FoldError(f"{event.type} of {donation.donation_id}: version {donation.version} has no {missing}") from None
    stamp = meta.ledger
    if stamp is not None and stamp.version != following.version:
        raise FoldError(f"{event.type} of {meta.donation_id} is stamped version {stamp.version}, the next is {following.version}")
    return following


# --- pledge -------------------------------------------------------------------------------------------------------------------------


def _pledge_announced(event: e.PledgeAnnounced) -> Donation:
    return Donation(
        donation_id=event.meta.donation_id,
        version=1,
        oversight=event.oversight,
        contribution=event.contribution,
        pledge=Pledge(
            state=PledgeState.ANNOUNCED,
            donor=event.donor,
            beneficiary=event.beneficiary,
            legs={leg.leg_id: leg for leg in event.route},
            purpose=event.purpose,
            earmark=event.earmark,
            amounts=total(event.amounts),
            equivalents=total(event.equivalents),
            terms_sha256=terms_sha256(event.donor, event.beneficiary, event.route, event.purpose, event.earmark, event.amounts),
            valid_until=event.valid_until,
            need_id=event.need_id,
            announced_by=event.meta.actor.actor_id,
        ),
    )


def _pledge_confirmed(donation: Donation, event: e.PledgeConfirmed) -> Donation:
    pledge = donation.pledge._replace(
        state=PledgeState.COMMITTED,
        confirmed_by=event.meta.actor.actor_id,
        agreement_reference=event.agreement_reference,
    )
    return donation._replace(version=donation.version + 1, pledge=pledge)


def _pledge_amended(donation: Donation, event: e.PledgeAmended) -> Donation:
    """New terms supersede every approval that was bound to the old ones, and are announced until somebody else confirms them. (A third
    party that reports says itself what is committed.)"""
    old, amounts = donation.pledge, total(event.amounts)
    pledge = old._replace(
        beneficiary=event.beneficiary,
        legs={leg.leg_id: leg for leg in event.route},
        purpose=event.purpose,
        earmark=event.earmark,
        amounts=amounts,
        terms_sha256=terms_sha256(old.donor, event.beneficiary, event.route, event.purpose, event.earmark, event.amounts),
        valid_until=event.valid_until,
        need_id=event.need_id,
        amended_by=old.amended_by | {event.meta.actor.actor_id},
        former_currencies=tuple(
            currency for currency in {**old.amounts, **dict.fromkeys(old.former_currencies)} if currency not in amounts
        ),
    )
    if pledge.terms_sha256 == old.terms_sha256:
        return donation._replace(version=donation.version + 1, pledge=pledge)
    if old.state is PledgeState.COMMITTED and donation.oversight is e.Oversight.MANAGED:
        pledge = pledge._replace(state=PledgeState.ANNOUNCED, confirmed_by=None, agreement_reference=None)
    return donation._replace(version=donation.version + 1, pledge=pledge, approvals=_superseded(donation.approvals, LIVE))


def _pledge_ended(donation: Donation, event: e.PledgeWithdrawn | e.PledgeExpired) -> Donation:
    """An ended pledge leaves nothing to decide on. What was granted stays: it lets intermediaries pass on what they hold."""
    state = PledgeState.WITHDRAWN if isinstance(event, e.PledgeWithdrawn) else PledgeState.EXPIRED
    return donation._replace(
        version=donation.version + 1,
        pledge=donation.pledge._replace(state=state),
        approvals=_superseded(donation.approvals, (ApprovalState.PENDING,)),
    )


def _superseded(approvals: Mapping[str, Approval], states: tuple[ApprovalState, ...]) -> Mapping[str, Approval]:
    return {
        approval_id: approval._replace(state=ApprovalState.SUPERSEDED) if approval.state in states else approval
        for approval_id, approval in approvals.items()
    }


# --- approval -----------------------------------------------------------------------------------------------------------------------


def _with_approval(donation: Donation, approval: Approval) -> Donation:
    return donation._replace(version=donation.version + 1, approvals={**donation.approvals, approval.approval_id: approval})


def _approval_requested(donation: Donation, event: e.ApprovalRequested) -> Donation:
    actor = event.meta.actor
    return _with_approval(
        donation,
        Approval(
            approval_id=event.approval_id,
            mechanism_id=event.mechanism_id,
            state=ApprovalState.PENDING,
            legs=event.legs,
            requested=total(event.amounts),
            terms_sha256=event.terms_sha256,
            approvals_required=event.approvals_required,
            requested_by=actor.actor_id,
            requested_for=actor.party_id,
            requested_on=event.meta.occurred_on,
        ),
    )


def _approval_discussed(donation: Donation, event: e.ApprovalQuestioned | e.ApprovalAnswered) -> Donation:
    return _with_approval(donation, donation.approvals[event.approval_id])


def _approval_decided(donation: Donation, event: e.ApprovalDecided) -> Donation:
    """One rejection rejects; the last approval that the mechanism asks for grants."""
    approval = donation.approvals[event.approval_id]
    deciders = (*approval.deciders, event.meta.actor.actor_id)
    if event.decision is e.Decision.REJECT:
        return _with_approval(donation, approval._replace(state=ApprovalState.REJECTED, deciders=deciders))
    approvals = approval.approvals + 1
    valid = [moment for moment in (approval.valid_until, event.valid_until) if moment is not None]
    return _with_approval(
        donation,
        approval._replace(
            state=ApprovalState.GRANTED if approvals >= approval.approvals_required else ApprovalState.PENDING,
            deciders=deciders,
            approvals=approvals,
            granted=granted_after(approval, event),
            conditions={**approval.conditions, **{c.condition_id: ConditionState.OPEN for c in event.conditions}},
            valid_until=min(valid, default=None),
        ),
    )


def granted_after(approval: Approval, event: e.ApprovalDecided) -> dict[str, Decimal]:
    """What is left of the request after this approver's amounts: per currency the least that anybody gave, without zeros."""
    given = total(event.amounts)
    before = approval.granted if approval.approvals else approval.requested
    least = {currency: min(amount, given.get(currency, ZERO)) for currency, amount in before.items()}
    return {currency: amount for currency, amount in least.items() if amount > 0}


def _approval_revoked(donation: Donation, event: e.ApprovalRevoked) -> Donation:
    return _with_approval(donation, donation.approvals[event.approval_id]._replace(state=ApprovalState.REVOKED))


def _approval_expired(donation: Donation, event: e.ApprovalExpired) -> Donation:
    return _with_approval(donation, donation.approvals[event.approval_id]._replace(state=ApprovalState.EXPIRED))


def _condition_ruled(donation: Donation, event: e.ConditionMet | e.ConditionBreached) -> Donation:
    """A breach suspends the approval until the condition is met again: to end it for good, the mechanism revokes."""
    approval = donation.approvals[event.approval_id]
    if event.condition_id not in approval.conditions:
        raise KeyError(event.condition_id)
    met = isinstance(event, e.ConditionMet)
    conditions = {**approval.conditions, event.condition_id: ConditionState.MET if met else ConditionState.BREACHED}
    lifted_by = approval.lifted_by | {event.meta.actor.actor_id} if met else approval.lifted_by
    return _with_approval(donation, approval._replace(conditions=conditions, lifted_by=lifted_by))


# --- disbursement -------------------------------------------------------------------------------------------------------------------


def _with_disbursement(donation: Donation, disbursement: Disbursement) -> Donation:
    disbursements = {**donation.disbursements, disbursement.disbursement_id: disbursement}
    return donation._replace(version=donation.version + 1, disbursements=disbursements)


def _disbursement_scheduled(donation: Donation, event: e.DisbursementScheduled) -> Donation:
    return _with_disbursement(
        donation,
        Disbursement(
            disbursement_id=event.disbursement_id,
            leg=donation.pledge.legs[event.leg_id],
            currency=event.amount.currency,
            state=DisbursementState.SCHEDULED,
            planned=event.amount.amount,
            due_on=event.due_on,
        ),
    )


def _disbursement_instructed(donation: Donation, event: e.DisbursementInstructed) -> Donation:
    plan = donation.disbursements.get(event.disbursement_id)
    return _with_disbursement(
        donation,
        Disbursement(
            disbursement_id=event.disbursement_id,
            leg=donation.pledge.legs[event.leg_id],
            currency=event.amount.currency,
            state=DisbursementState.INSTRUCTED,
            planned=plan.planned if plan else None,
            due_on=plan.due_on if plan else None,
            instructed=event.amount.amount,
            approval_id=event.approval_id,
            end_to_end_id=event.end_to_end_id,
            prepared_by=event.meta.actor.actor_id,
        ),
    )


def _disbursement_released(donation: Donation, event: e.DisbursementReleased) -> Donation:
    disbursement = donation.disbursements[event.disbursement_id]
    return _with_disbursement(donation, disbursement._replace(state=DisbursementState.RELEASED, released_by=event.meta.actor.actor_id))


def _disbursement_settled(donation: Donation, event: e.DisbursementSettled) -> Donation:
    """A leg is stated where nobody instructed the payment: somebody else reports it."""
    if event.leg_id is not None:
        paid = Disbursement(event.disbursement_id, donation.pledge.legs[event.leg_id], event.amount.currency, DisbursementState.SETTLED)
    else:
        paid = donation.disbursements[event.disbursement_id]
    return _with_disbursement(
        donation, paid._replace(state=DisbursementState.SETTLED, settled=event.amount.amount, booked_on=event.booked_on)
    )


def _disbursement_rejected(donation: Donation, event: e.DisbursementRejected) -> Donation:
    return _with_disbursement(donation, donation.disbursements[event.disbursement_id]._replace(state=DisbursementState.REJECTED))


def _disbursement_returned(donation: Donation, event: e.DisbursementReturned) -> Donation:
    disbursement = donation.disbursements[event.disbursement_id]
    references = _with_reference(disbursement.return_references, event.return_reference)
    returned = disbursement.returned + event.amount.amount
    return _with_disbursement(donation, disbursement._replace(returned=returned, return_references=references))


def _with_reference(references: frozenset[str], stated: str | None) -> frozenset[str]:
    return references if stated is None else references | {stated}


# --- receipt ------------------------------------------------------------------------------------------------------------------------


def _funds_received(donation: Donation, event: e.FundsReceived) -> Donation:
    """What arrives later, or is found later, adds to what arrived before."""
    disbursement = donation.disbursements[event.disbursement_id]
    received = (disbursement.received or ZERO) + event.amount.amount
    fees = disbursement.fees + (event.fees.amount if event.fees is not None else ZERO)
    references = _with_reference(disbursement.receipt_references, event.receipt_reference)
    return _with_disbursement(donation, disbursement._replace(received=received, fees=fees, receipt_references=references))


def _receipt_acknowledged(donation: Donation, event: e.ReceiptAcknowledged) -> Donation:
    disbursement = donation.disbursements[event.disbursement_id]
    return _with_disbursement(donation, disbursement._replace(acknowledged=disbursement.acknowledged + event.amount.amount))


def _receipt_disputed(donation: Donation, event: e.ReceiptDisputed) -> Donation:
    disbursement = donation.disbursements[event.disbursement_id]
    return _with_disbursement(donation, disbursement._replace(disputed_by=event.meta.actor.actor_id))


def _dispute_resolved(donation: Donation, event: e.DisputeResolved) -> Donation:
    return _with_disbursement(donation, donation.disbursements[event.disbursement_id]._replace(disputed_by=None))


def _utilisation_reported(donation: Donation, event: e.UtilisationReported) -> Donation:
    currency = event.amount.currency
    utilised = {**donation.utilised, currency: donation.utilised.get(currency, ZERO) + event.amount.amount}
    return donation._replace(version=donation.version + 1, utilised=utilised)


# --- the donation as a whole --------------------------------------------------------------------------------------------------------


def _donation_closed(donation: Donation, event: e.DonationClosed) -> Donation:
    return donation._replace(version=donation.version + 1, closed_by=event.meta.actor.actor_id)


def _donation_reopened(donation: Donation, event: e.DonationReopened) -> Donation:
    return donation._replace(version=donation.version + 1, closed_by=None)


_STEPS: dict[type[e.Event], Callable[[Donation, Any], Donation]] = {
    e.PledgeConfirmed: _pledge_confirmed,
    e.PledgeAmended: _pledge_amended,
    e.PledgeWithdrawn: _pledge_ended,
    e.PledgeExpired: _pledge_ended,
    e.ApprovalRequested: _approval_requested,
    e.ApprovalQuestioned: _approval_discussed,
    e.ApprovalAnswered: _approval_discussed,
    e.ApprovalDecided: _approval_decided,
    e.ApprovalRevoked: _approval_revoked,
    e.ApprovalExpired: _approval_expired,
    e.ConditionMet: _condition_ruled,
    e.ConditionBreached: _condition_ruled,
    e.DisbursementScheduled: _disbursement_scheduled,
    e.DisbursementInstructed: _disbursement_instructed,
    e.DisbursementReleased: _disbursement_released,
    e.DisbursementSettled: _disbursement_settled,
    e.DisbursementRejected: _disbursement_rejected,
    e.DisbursementReturned: _disbursement_returned,
    e.FundsReceived: _funds_received,
    e.ReceiptAcknowledged: _receipt_acknowledged,
    e.ReceiptDisputed: _receipt_disputed,
    e.DisputeResolved: _dispute_resolved,
    e.UtilisationReported: _utilisation_reported,
    e.DonationClosed: _donation_closed,
    e.DonationReopened: _donation_reopened,
}
