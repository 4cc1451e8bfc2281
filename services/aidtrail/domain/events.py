"""The events: facts about a donation, in the past tense, frozen. One class per Avro schema in `schemas/events`, with the same names.

Types say what any event of the kind must look like and may only ever be loosened: each event ever recorded must stay readable.
Whether an event is admitted is for the rules (`domain.rules`).
"""

import re
import unicodedata
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from aidtrail.domain.money import Money

COMPOSED = "text in Unicode normal form C"
PLAIN = "text without control or other unprintable characters"
"""What is expected of a text where it is something else."""


def _plain(text: str) -> str:
    if not text.isascii() and unicodedata.normalize("NFC", text) != text:
        raise ValueError(COMPOSED)
    if not text.isprintable():
        raise ValueError(PLAIN)
    return text


def _hexadecimal(size: int) -> tuple[Any, ...]:
    """What makes `size` bytes of a field's hexadecimal digits in JSON, as every hash tool prints them, and back."""
    is_hex = re.compile(rf"[0-9a-fA-F]{{{2 * size}}}", re.ASCII).fullmatch

    def from_hex(value: object) -> object:
        if not isinstance(value, str):
            return value
        if not is_hex(value):
            raise ValueError(f"{2 * size} hexadecimal digits")
        return bytes.fromhex(value)

    return (
        BeforeValidator(from_hex),
        Field(min_length=size, max_length=size),
        PlainSerializer(bytes.hex, return_type=str, when_used="json"),
    )


def _rfc3339(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        if _TIME.fullmatch(value):
            return datetime.fromisoformat(value)
    except ValueError:
        pass  # the 30th of February
    raise ValueError("a time as in 2026-11-24T09:30:00Z: with a zone, and at most six digits after the second")


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time between the years 1 and 9999, in UTC") from None


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)


DONATION_ID = r"^[A-Z0-9][A-Z0-9-]{2,63}$"
DonationId = Annotated[str, Field(pattern=DONATION_ID)]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")]
"""Of a party, actor, mechanism, leg, approval, disbursement, condition or need."""
PRINTABLE = r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]*$"
"""What `_plain` asks for beside normal form C, for readers of a JSON Schema: letters, marks, numbers, punctuation, symbols, the space."""
Text = Annotated[str, Field(min_length=1, max_length=2000, json_schema_extra={"pattern": PRINTABLE}), AfterValidator(_plain)]
Sha256 = Annotated[bytes, *_hexadecimal(32)]
PublicKey = Annotated[bytes, *_hexadecimal(32)]
"""Of Ed25519, as RFC 8032 encodes it."""
Signature = Annotated[bytes, *_hexadecimal(64)]
"""Of Ed25519. `aidtrail.signatures` says of what."""
Moneys = tuple[Money, ...]
Time = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_in_utc)]
"""A moment in UTC, to the microsecond; in JSON as RFC 3339 has it."""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Oversight(StrEnum):
    """Fixed when the pledge is announced. Managed: every rule holds. Observed: facts that a third party reports, kept apart in totals."""

    MANAGED = "managed"
    OBSERVED = "observed"


class Contribution(StrEnum):
    FINANCIAL = "financial"
    IN_KIND = "in_kind"  # amounts are values that somebody put on goods, not money that moved


class Decision(StrEnum):
    APPROVE = "approve"
    REJECT = "reject"


class ReturnKind(StrEnum):
    REFUND = "refund"
    REJECT = "reject"
    DUPLICATE = "duplicate"
    DISPUTE = "dispute"
    OTHER = "other"


class Actor(Frozen):
    """Who acts, for which party, in which role. The registry says whether that is so."""

    actor_id: Id
    party_id: Id
    role: Id


class Source(Frozen):
    """The channel an event came by ('cli', 'http', 'fts', ...) and the reference it has there."""

    channel: Id
    reference: Text | None = None


class Evidence(Frozen):
    kind: Id
    sha256: Sha256
    uri: Text | None = None


class LedgerStamp(Frozen):
    """What the ledger fills in. `recorded_at` is the append time of the submission that was ruled on. `previous_sha256` is the SHA-256 of
    the raw value of the donation's head before this entry: 32 zero bytes where there is none."""

    version: int
    submitted_offset: int
    previous_outcome_sha256: Sha256
    recorded_at: Time
    previous_sha256: Sha256
    registry_offset: int
    rules: int


class Meta(Frozen):
    event_id: UUID
    donation_id: DonationId
    occurred_on: Time
    actor: Actor
    source: Source
    causation_id: UUID | None = None
    correlation_id: UUID | None = None
    evidence: tuple[Evidence, ...] = ()
    signature: Signature | None = None
    ledger: LedgerStamp | None = None


class Leg(Frozen):
    """One hop of the route. A leg with a parent passes on what arrived on that parent."""

    leg_id: Id
    parent_leg_id: Id | None = None
    from_party: Id
    to_party: Id


class Condition(Frozen):
    condition_id: Id
    text: Text


class Event(Frozen):
    """Base of all events. `type` is the name of the class and of its Avro record."""

    type: ClassVar[str]
    meta: Meta

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.type = cls.__name__


# --- pledge -------------------------------------------------------------------------------------------------------------------------


class PledgeAnnounced(Event):
    """`purpose` is an OECD-DAC sector code, `earmark` the Grand Bargain degree 1 (unearmarked) to 4 (tightly). `equivalents` are the same
    money in other currencies where the source states them; never converted here, never added to `amounts`."""

    oversight: Oversight
    contribution: Contribution = Contribution.FINANCIAL
    donor: Id
    beneficiary: Id
    route: tuple[Leg, ...]
    purpose: Text | None = None
    earmark: Annotated[int, Field(ge=1, le=4)] | None = None
    amounts: Moneys
    equivalents: Moneys = ()
    valid_until: Time | None = None
    need_id: Id | None = None


class PledgeConfirmed(Event):
    agreement_reference: Text | None = None


class PledgeAmended(Event):
    """The full new terms. Donor, oversight and contribution never change."""

    beneficiary: Id
    route: tuple[Leg, ...]
    purpose: Text | None = None
    earmark: Annotated[int, Field(ge=1, le=4)] | None = None
    amounts: Moneys
    valid_until: Time | None = None
    need_id: Id | None = None
    reason: Text


class PledgeWithdrawn(Event):
    reason: Text


class PledgeExpired(Event):
    pass


# --- approval -----------------------------------------------------------------------------------------------------------------------


class ApprovalRequested(Event):
    """`approvals_required` is the number of signatures that the mechanism asks for these amounts: stated here, checked by the ledger
    against the registry, and so a recorded fact that the fold needs no registry for."""

    approval_id: Id
    mechanism_id: Id
    legs: tuple[Id, ...]
    amounts: Moneys
    terms_sha256: Sha256
    approvals_required: Annotated[int, Field(ge=1, le=20)]


class ApprovalQuestioned(Event):
    approval_id: Id
    text_reference: Text


class ApprovalAnswered(Event):
    approval_id: Id
    text_reference: Text


class ApprovalDecided(Event):
    approval_id: Id
    decision: Decision
    amounts: Moneys = ()
    conditions: tuple[Condition, ...] = ()
    valid_until: Time | None = None
    reason: Text | None = None


class ApprovalRevoked(Event):
    approval_id: Id
    reason: Text


class ApprovalExpired(Event):
    approval_id: Id


class ConditionMet(Event):
    approval_id: Id
    condition_id: Id


class ConditionBreached(Event):
    approval_id: Id
    condition_id: Id


# --- disbursement -------------------------------------------------------------------------------------------------------------------


class DisbursementScheduled(Event):
    disbursement_id: Id
    leg_id: Id
    amount: Money
    due_on: date


class DisbursementInstructed(Event):
    disbursement_id: Id
    leg_id: Id
    amount: Money
    approval_id: Id | None = None
    end_to_end_id: Id


class DisbursementReleased(Event):
    disbursement_id: Id


class DisbursementSettled(Event):
    """`leg_id` is stated only where no instruction states it: a payment that a third party reports."""

    disbursement_id: Id
    leg_id: Id | None = None
    amount: Money
    bank_reference: Text | None = None
    booked_on: date


class DisbursementRejected(Event):
    disbursement_id: Id
    reason_code: Id


class DisbursementReturned(Event):
    """`return_reference` is what bank and receiver both know this return by: a further return of the payment has another."""

    disbursement_id: Id
    amount: Money
    kind: ReturnKind
    reason: Text | None = None
    return_reference: Text | None = None


# --- receipt ------------------------------------------------------------------------------------------------------------------------


class FundsReceived(Event):
    """`receipt_reference` is what the receiver's bank knows this arrival by: a further part of the payment has another. Fees that are found
    out later are told with an amount of zero."""

    disbursement_id: Id
    amount: Money
    fees: Money | None = None
    receipt_reference: Text | None = None


class ReceiptAcknowledged(Event):
    disbursement_id: Id
    amount: Money
    signatory: Text


class ReceiptDisputed(Event):
    disbursement_id: Id
    difference: Money
    reason: Text


class DisputeResolved(Event):
    disbursement_id: Id
    resolution: Text


class UtilisationReported(Event):
    amount: Money
    purpose: Text


# --- the donation as a whole --------------------------------------------------------------------------------------------------------


class DonationClosed(Event):
    outcome: Text


class DonationReopened(Event):
    reason: Text


class SubmissionRefused(Event):
    """The outcome of a submission that was not admitted: which rule, what it expected, what it found. `refused_event_id` and
    `refused_event_type` are null where the submission could not be decoded."""

    refused_event_id: UUID | None
    refused_event_type: Text | None
    reason: Id
    expected: Text
    found: Text
    submission_sha256: Sha256


DONATION_EVENTS: dict[str, type[Event]] = {cls.type: cls for cls in Event.__subclasses__()}
"""Every event that can stand in `donations.recorded`, by its type."""


# --- the registry -------------------------------------------------------------------------------------------------------------------


class Threshold(Frozen):
    """At or above this amount the mechanism asks for this many approvals."""

    at_least: Money
    approvals_required: Annotated[int, Field(ge=1, le=20)]


class RegistryEvent(Frozen):
    """Base of the five events of `donations.registry`. They are written by the operator of the registry and not ruled on."""

    type: ClassVar[str]
    event_id: UUID
    occurred_on: Time

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.type = cls.__name__


class PartyRegistered(RegistryEvent):
    """`kind` is 'society', 'ministry', 'bank', 'hospital', 'government', 'agency' ...: free, for people, but for 'bank' (domain.rules).
    With `signatures_required` what its actors submit is admitted only with their signature."""

    party_id: Id
    name: Text
    kind: Id
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = None
    signatures_required: bool = False


class ActorEnrolled(RegistryEvent):
    """All that holds of the actor from here on: who is enrolled again has these roles and these keys, and no others."""

    actor_id: Id
    party_id: Id
    roles: tuple[Id, ...]
    public_keys: tuple[PublicKey, ...] = ()


class ActorRetired(RegistryEvent):
    actor_id: Id
    reason: Text


class MechanismDefined(RegistryEvent):
    mechanism_id: Id
    party_id: Id
    approvals_required: Annotated[int, Field(ge=1, le=20)]
    thresholds: tuple[Threshold, ...] = ()
    validity_days: Annotated[int, Field(ge=1, le=3660)]


class MechanismRetired(RegistryEvent):
    mechanism_id: Id
    reason: Text


REGISTRY_EVENTS: dict[str, type[RegistryEvent]] = {cls.type: cls for cls in RegistryEvent.__subclasses__()}

EVENTS: dict[str, type[Event] | type[RegistryEvent]] = {**DONATION_EVENTS, **REGISTRY_EVENTS}


CLASSES: dict[str, type[BaseModel] | type[StrEnum]] = {
    **EVENTS,
    **{c.__name__: c for c in (Actor, Source, Evidence, LedgerStamp, Meta, Leg, Condition, Money, Threshold)},
    **{c.__name__: c for c in (Oversight, Contribution, Decision, ReturnKind)},
}
"""Every class that stands for a named type of `schemas/`, by its name."""
