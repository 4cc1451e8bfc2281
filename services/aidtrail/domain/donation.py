"""The state of one donation, and what follows from it alone: what its terms hash to, what falls due, what is left to pay. `fold` makes it.

The state is named tuples, made anew three times as fast as frozen dataclasses are; mappings in it are never changed once made: each step
of the fold copies the few it touches.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from aidtrail.domain import events as e
from aidtrail.domain.money import ZERO, Amounts, Money, total


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
    those that were pledged once and no longer are. `confirmed_by` and `agreement_reference` are of these terms, not of former ones."""

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
    in state granted. `valid_until` is the earliest that any approver stated. `lifted_by` are those who declared a condition met."""

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
    lifted_by: frozenset[str] = frozenset()

    @property
    def usable(self) -> bool:
        """Granted, and every condition met. Whether it is still valid at a given moment is for the caller: this state knows no clock."""
        return self.state is _GRANTED and all(state is _MET for state in self.conditions.values())


class Disbursement(NamedTuple):
    """One payment on one leg, in one currency. `planned` is what a schedule said, `instructed` what a preparer ordered, `settled` what the
    bank booked; `received` is None until the receiver has spoken, then the sum of what he said arrived. `disputed_by` is set while a
    dispute is open. The references are those stated so far. `leg` is as it was when the payment was planned, instructed or reported: where
    no money moved, an amendment may have taken it off the route since."""

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
    return_references: frozenset[str] = frozenset()
    receipt_references: frozenset[str] = frozenset()

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

    @property
    def missing(self) -> Decimal:
        """What was paid and is neither with the receiver, nor taken by fees, nor back."""
        return max(ZERO, self.net - self.fees - self.arrived)

    @property
    def kept(self) -> Decimal:
        """What was acknowledged, less what went back since."""
        return min(self.acknowledged, self.arrived)


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
