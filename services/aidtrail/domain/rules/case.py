"""What a rule is given, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from aidtrail.domain import events as e
from aidtrail.domain.donation import Approval, Disbursement, Donation
from aidtrail.domain.registry import Enrolment, Mechanism, Registry

E = TypeVar("E", bound=e.Event, covariant=True)

OfApproval = (
    e.ApprovalRequested
    | e.ApprovalQuestioned
    | e.ApprovalAnswered
    | e.ApprovalDecided
    | e.ApprovalRevoked
    | e.ApprovalExpired
    | e.ConditionMet
    | e.ConditionBreached
)
OfDisbursement = (
    e.DisbursementScheduled
    | e.DisbursementInstructed
    | e.DisbursementReleased
    | e.DisbursementSettled
    | e.DisbursementRejected
    | e.DisbursementReturned
    | e.FundsReceived
    | e.ReceiptAcknowledged
    | e.ReceiptDisputed
    | e.DisputeResolved
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an event is not admitted: the name of the rule, what it expected, what it found."""

    reason: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule says that objects. Of what others wrote it repeats ids and amounts at most: printable, and 64 characters each."""

    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Case(Generic[E]):
    """An event to rule on, and all that may be considered: the donation before it, who exists, and the time, which is that of the append.

    The properties look up what the event names. Where it is not there they raise KeyError: the rules that say it must be there
    (`..._is_known`, `..._is_enrolled`) come first in the table and answer before any other rule looks.
    """

    before: Donation | None
    event: E
    actor: e.Actor
    """Who submits it, as `event.meta` has him: most rules ask."""
    registry: Registry
    now: datetime
    signature_verifies: bool = False
    """Whether the event's signature is over its submission by a key that the registry has for its actor: found out by who asks, since
    cryptography is no matter of policy."""

    @property
    def donation(self) -> Donation:
        if self.before is None:
            raise KeyError(self.event.meta.donation_id)
        return self.before

    @property
    def enrolment(self) -> Enrolment:
        return self.registry.actors[self.actor.actor_id]

    @property
    def approval(self: "Case[OfApproval]") -> Approval:
        return self.donation.approvals[self.event.approval_id]

    @property
    def disbursement(self: "Case[OfDisbursement]") -> Disbursement:
        return self.donation.disbursements[self.event.disbursement_id]

    @property
    def leg(self: "Case[OfDisbursement]") -> e.Leg:
        """The leg of the payment: as stated where the event brings the payment up, else as it was then."""
        event = self.event
        if isinstance(event, e.DisbursementScheduled | e.DisbursementInstructed):
            return self.donation.pledge.legs[event.leg_id]
        return self.disbursement.leg

    @property
    def cover(self: "Case[e.DisbursementInstructed | e.DisbursementReleased]") -> Approval:
        """The approval that a payment is made under."""
        event = self.event
        stated = event.approval_id if isinstance(event, e.DisbursementInstructed) else self.disbursement.approval_id
        if stated is None:
            raise KeyError("approval")
        return self.donation.approvals[stated]

    @property
    def mechanism(self: "Case[OfApproval]") -> Mechanism:
        event = self.event
        stated = event.mechanism_id if isinstance(event, e.ApprovalRequested) else self.approval.mechanism_id
        return self.registry.mechanisms[stated]


Rule = Callable[[Case[Any]], Finding | None]
"""Its name is the sentence, its docstring the policy in one line."""
