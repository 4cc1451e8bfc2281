"""The state of one donation, and `apply`, which folds admitted events into it.

`apply` sets down what an event says and what follows from it (the last signature grants, new terms supersede). It asks no policy: that was
done once, by `rules.check`, and the verdict is a recorded fact. Whatever `check` admits, of any version, `apply` must be able to read.
The state is named tuples, made anew three times as fast as frozen dataclasses are; mappings in it are never changed once made: each step
copies the few it touches.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from aidtrail.domain import events as e
from aidtrail.domain.money import ZERO, Amounts, Money, total
from aidtrail.errors import FoldError


class PledgeState(StrEnum):
    ANNOUNCED = "announced"
    COMMITTED = "committed"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class ApprovalState(StrEnum):
    PENDING = "pending"
    GRANTED = "granted"
    REJECTED = "rejected"
    EXPIRED = "expired"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"  # the terms it was bound to are no longer the donation's, or the pledge ended before the decision


class ConditionState(StrEnum):
    OPEN = "open"
    MET = "met"
    BREACHED = "breached"


class DisbursementState(StrEnum):
    SCHEDULED = "scheduled"
    INSTRUCTED = "instructed"
    RELEASED = "released"
    SETTLED = "settled"
    REJECTED = "rejected"


# Tuples: a member of an enum is found in one by identity, in a set by a hash that is computed in Python.
ENDED = (PledgeState.WITHDRAWN, PledgeState.EXPIRED)
LIVE = (ApprovalState.PENDING, ApprovalState.GRANTED)
IN_FLIGHT = (DisbursementState.INSTRUCTED, DisbursementState.RELEASED)

# Members that are asked for at every event: in Python 3.11 a member costs ten times as much through its class.
_GRANTED, _MET, _OBSERVED = ApprovalState.GRANTED, ConditionState.MET, e.Oversight.OBSERVED

_EMPTY: Mapping[str, Any] = MappingProxyType({})


class Pledge(NamedTuple):
    """The terms in force and who made them. `amounts` is by currency, `legs` by leg_id in the order of the route. `former_currencies` are
    those that were pledged once and no longer are."""

    state: PledgeState
    donor: str
    beneficiary: str
    legs: Mapping[str, e.Leg]
    purpose: str | None
    earmark: int | None
    amounts: Amounts
    equivalents: Amounts
    terms_sha256: bytes
    valid_until: datetime | None
    need_id: str | None
    announced_by: str
    confirmed_by: str | None = None
    agreement_reference: str | None = None
    amended_by: frozenset[str] = frozenset()
    former_currencies: tuple[str, ...] = ()


class Approval(NamedTuple):
    """A request to a mechanism and what became of it. `granted` is, per currency, the least that any approver gave so far: it counts only
    in state granted. `valid_until` is the earliest that any approver stated."""

    approval_id: str
    mechanism_id: str
    state: ApprovalState
    legs: tuple[str, ...]
    requested: Amounts
    terms_sha256: bytes
    approvals_required: int
    requested_by: str
    requested_for: str
    requested_on: datetime
    deciders: tuple[str, ...] = ()
    approvals: int = 0
    granted: Amounts = _EMPTY
    conditions: Mapping[str, ConditionState] = _EMPTY
    valid_until: datetime | None = None

    @property
    def usable(self) -> bool:
        """Granted, and every condition met. Whether it is still valid at a given moment is for the caller: this state knows no clock."""
        return self.state is _GRANTED and all(state is _MET for state in self.conditions.values())


class Disbursement(NamedTuple):
    """One payment on one leg, in one currency. `planned` is what a schedule said, `instructed` what a preparer ordered, `settled` what the
    bank booked; `received` is None until the receiver has spoken. `disputed_by` is set while a dispute is open. `leg` is as it was when the
    payment was planned, instructed or reported: where no money moved, an amendment may have taken it off the route since."""

    disbursement_id: str
    leg: e.Leg
    currency: str
    state: DisbursementState
    planned: Decimal | None = None
    due_on: date | None = None
    instructed: Decimal = ZERO
    approval_id: str | None = None
    end_to_end_id: str | None = None
    prepared_by: str | None = None
    released_by: str | None = None
    settled: Decimal = ZERO
    booked_on: date | None = None
    returned: Decimal = ZERO
    received: Decimal | None = None
    fees: Decimal = ZERO
    acknowledged: Decimal = ZERO
    disputed_by: str | None = None

    @property
    def in_flight(self) -> Decimal:
        """Ordered and not yet answered by the bank."""
        return self.instructed if self.state in IN_FLIGHT else ZERO

    @property
    def net(self) -> Decimal:
        """What was paid and has not come back."""
        return self.settled - self.returned

    @property
    def arrived(self) -> Decimal:
        """What the receiver says he has, less what went back since. Fees are gone, also when money comes back."""
        return ZERO if self.received is None else max(ZERO, min(self.received, self.settled - self.returned - self.fees))


class Donation(NamedTuple):
    """`version` counts the admitted events. `closed_by` is the actor who closed it while it is closed."""

    donation_id: str
    version: int
    oversight: e.Oversight
    contribution: e.Contribution
    pledge: Pledge
    approvals: Mapping[str, Approval] = _EMPTY
    disbursements: Mapping[str, Disbursement] = _EMPTY
    utilised: Amounts = _EMPTY
    closed_by: str | None = None

    @property
    def donor(self) -> str:
        return self.pledge.donor

    @property
    def beneficiary(self) -> str:
        return self.pledge.beneficiary

    @property
    def purpose(self) -> str | None:
        return self.pledge.purpose

    @property
    def route(self) -> tuple[e.Leg, ...]:
        return tuple(self.pledge.legs.values())

    @property
    def next_deadline(self) -> datetime | None:
        """When the earliest of `deadlines` falls due."""
        return min((deadline.due_at for deadline in deadlines(self)), default=None)


class Deadline(NamedTuple):
    """Once `due_at` is past, the timekeeper submits an event of this type: about the approval, or about the pledge where there is none."""

    due_at: datetime
    event_type: str
    approval_id: str | None


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


def terms_sha256(
    donor: str, beneficiary: str, route: Iterable[e.Leg], purpose: str | None, earmark: int | None, amounts: Iterable[Money]
) -> bytes:
    """SHA-256 of the terms that an approval is bound to: 32 bytes.

    The bytes hashed are UTF-8 JSON without any white space, the keys of every object in ascending order, characters outside ASCII as they
    are, only `"`, `\\` and control characters escaped:

        {"amounts":[{"amount":"1000.0000","currency":"KWD"}],"beneficiary":"...","donor":"...","earmark":null,"purpose":null,
         "route":[{"from_party":"...","leg_id":"...","parent_leg_id":null,"to_party":"..."}]}

    on one line. Amounts have exactly four digits after the point and stand in ascending order of currency, one per currency; legs stand in
    ascending order of leg_id. `valid_until`, `need_id` and the reason of an amendment are not terms: to change only those keeps approvals.
    """
    terms = {
        "amounts": [{"amount": f"{amount:.4f}", "currency": currency} for currency, amount in sorted(total(amounts).items())],
        "beneficiary": beneficiary,
        "donor": donor,
        "earmark": earmark,
        "purpose": purpose,
        "route": [
            {"from_party": leg.from_party, "leg_id": leg.leg_id, "parent_leg_id": leg.parent_leg_id, "to_party": leg.to_party}
            for leg in sorted(route, key=lambda leg: leg.leg_id)
        ],
    }
    return hashlib.sha256(json.dumps(terms, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()).digest()


def deadlines(donation: Donation) -> tuple[Deadline, ...]:
    """What falls due. Only what would be admitted then: nothing of a closed or an observed donation, and no expiry of a pledge that has
    ended, is fully paid or has payments in flight (these come back here when the money does)."""
    if donation.closed_by is not None or donation.oversight is _OBSERVED:
        return ()
    due: list[Deadline] = []
    pledge = donation.pledge
    if pledge.valid_until is not None and pledge.state not in ENDED:
        in_flight = any(disbursement.state in IN_FLIGHT for disbursement in donation.disbursements.values())
        if not in_flight and undisbursed(donation):
            due.append(Deadline(pledge.valid_until, e.PledgeExpired.type, None))
    for approval in donation.approvals.values():
        if approval.state is _GRANTED and approval.valid_until is not None:
            due.append(Deadline(approval.valid_until, e.ApprovalExpired.type, approval.approval_id))
    return tuple(due)


def undisbursed(donation: Donation) -> dict[str, Decimal]:
    """What is pledged and has not left the donor, by currency; only what is above zero."""
    left = dict(donation.pledge.amounts)
    for paid in donation.disbursements.values():
        if paid.leg.parent_leg_id is None:
            left[paid.currency] = left.get(paid.currency, ZERO) - paid.net
    return {currency: amount for currency, amount in left.items() if amount > 0}


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
    """New terms supersede every approval that was bound to the old ones."""
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
    approvals = donation.approvals if pledge.terms_sha256 == old.terms_sha256 else _superseded(donation.approvals, LIVE)
    return donation._replace(version=donation.version + 1, pledge=pledge, approvals=approvals)


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
    state = ConditionState.MET if isinstance(event, e.ConditionMet) else ConditionState.BREACHED
    return _with_approval(donation, approval._replace(conditions={**approval.conditions, event.condition_id: state}))


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
    return _with_disbursement(donation, disbursement._replace(returned=disbursement.returned + event.amount.amount))


# --- receipt ------------------------------------------------------------------------------------------------------------------------


def _funds_received(donation: Donation, event: e.FundsReceived) -> Donation:
    disbursement = donation.disbursements[event.disbursement_id]
    fees = event.fees.amount if event.fees is not None else ZERO
    return _with_disbursement(donation, disbursement._replace(received=event.amount.amount, fees=fees))


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
