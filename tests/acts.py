"""Makes the events of the case that Aidtrail starts from: the Kuwait Red Crescent Society gives to a children's hospital through the
Cambodian Red Cross, on the approval of a finance ministry. Ids are made up and the same in every run.

    acts = Acts("KRCS-2026-0001")
    acts.announced()                                    # by krcs-officer, of the whole route, 1000 KWD
    acts.instructed("D1", "400", by="krcs-preparer")    # on the first leg, under approval A1

Any other field of an event is given by its name. `full_life` is a whole lawful donation, `registry_events` what it needs.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from aidtrail import codec
from aidtrail.domain import events as e
from aidtrail.domain.donation import terms_sha256
from aidtrail.domain.money import Money
from aidtrail.domain.registry import EMPTY, Registry, register_all

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)

PARTIES = {
    "KRCS": ("Kuwait Red Crescent Society", "society", "KW"),
    "CRC": ("Cambodian Red Cross", "society", "KH"),
    "KBH": ("Kantha Bopha Children's Hospital", "hospital", "KH"),
    "MEF": ("Ministry of Economy and Finance", "ministry", "KH"),
    "NBK": ("A bank in Kuwait", "bank", "KW"),
    "OPS": ("The operator of the ledger", "agency", None),
    "OCHA-FTS": ("Financial Tracking Service", "agency", None),
}

ACTORS = {
    "krcs-officer": ("KRCS", "officer"),
    "krcs-officer-2": ("KRCS", "officer"),
    "krcs-officer-3": ("KRCS", "officer"),
    "krcs-preparer": ("KRCS", "preparer"),
    "krcs-releaser": ("KRCS", "releaser"),
    "krcs-approver": ("KRCS", "approver"),
    "krcs-bank": ("KRCS", "bank"),
    "krcs-auditor": ("KRCS", "auditor"),
    "krcs-allrounder": ("KRCS", "officer", "approver", "preparer", "releaser", "bank", "auditor", "timekeeper"),
    "mef-approver": ("MEF", "approver"),
    "mef-approver-2": ("MEF", "approver"),
    "mef-approver-3": ("MEF", "approver"),
    "crc-officer": ("CRC", "officer"),
    "crc-officer-2": ("CRC", "officer"),
    "crc-preparer": ("CRC", "preparer"),
    "crc-releaser": ("CRC", "releaser"),
    "crc-bank": ("CRC", "bank"),
    "kbh-officer": ("KBH", "officer"),
    "kbh-officer-2": ("KBH", "officer"),
    "bank-adapter": ("NBK", "bank"),
    "timekeeper": ("OPS", "timekeeper"),
    "fts-import": ("OCHA-FTS", "reporter"),
    "krcs-retired": ("KRCS", "officer", "approver", "preparer", "releaser", "bank"),
}
"""Each actor with the party he is enrolled at and his roles; he acts in the first unless a test says otherwise."""

MECHANISMS = {
    "MEF-SUPPORT": ("MEF", 2),
    "MEF-SMALL": ("MEF", 1),
    "KRCS-BOARD": ("KRCS", 1),
    "MEF-OLD": ("MEF", 1),
}
"""Each mechanism with its owner and base number of approvals. All ask for three from 5,000 KWD or 20,000 USD on."""

ROUTE = (
    e.Leg(leg_id="KRCS-CRC", from_party="KRCS", to_party="CRC"),
    e.Leg(leg_id="CRC-KBH", parent_leg_id="KRCS-CRC", from_party="CRC", to_party="KBH"),
)


def money(amount: str, currency: str = "KWD") -> Money:
    return Money(amount=amount, currency=currency)


def uuid7(at: datetime, number: int) -> UUID:
    """A UUIDv7 of this time whose random bits are `number`: unique as long as the number is."""
    milliseconds = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    high, low = number >> 62 & 0xFFF, number & (1 << 62) - 1
    return UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)


def registry_events() -> list[e.RegistryEvent]:
    """Everybody above, in an order that the registry takes: one actor and one mechanism are retired at the end."""
    found: list[e.RegistryEvent] = []

    def base() -> dict[str, Any]:
        return {"event_id": uuid7(START, 1 << 61 | len(found)), "occurred_on": START}

    for party_id, (name, kind, country) in PARTIES.items():
        found.append(e.PartyRegistered(**base(), party_id=party_id, name=name, kind=kind, country=country))
    for actor_id, (party_id, *roles) in ACTORS.items():
        found.append(e.ActorEnrolled(**base(), actor_id=actor_id, party_id=party_id, roles=tuple(roles)))
    thresholds = tuple(e.Threshold(at_least=money(*at), approvals_required=3) for at in (("5000", "KWD"), ("20000", "USD")))
    for mechanism_id, (party_id, required) in MECHANISMS.items():
        found.append(
            e.MechanismDefined(
                **base(),
                mechanism_id=mechanism_id,
                party_id=party_id,
                approvals_required=required,
                thresholds=thresholds,
                validity_days=365,
            )
        )
    found.append(e.ActorRetired(**base(), actor_id="krcs-retired", reason="left the society"))
    found.append(e.MechanismRetired(**base(), mechanism_id="MEF-OLD", reason="replaced by MEF-SUPPORT"))
    return found


def registry() -> Registry:
    return register_all(EMPTY, ((event, offset) for offset, event in enumerate(registry_events())))


class Acts:
    """Makes the events of one donation. Each is a minute after the one before, from `start` on; `now` is when the last one happened.

    Every maker takes `by` (an actor id), `role` and `party` where they are not those of the actor, `meta` fields as a mapping, and any
    field of the event by its name.
    """

    def __init__(self, donation_id: str = "KRCS-2026-0001", start: datetime = START) -> None:
        self.donation_id = donation_id
        self.now = start
        self._start = start
        self._made = 0
        self._terms: dict[str, Any] = {
            "donor": "KRCS",
            "beneficiary": "KBH",
            "route": ROUTE,
            "purpose": "12191",
            "earmark": 3,
            "amounts": (money("1000"),),
        }
        self._seed = int.from_bytes(donation_id.encode()[-6:], "big") << 14

    def event(
        self,
        kind: type[e.Event],
        by: str,
        /,
        *,
        role: str | None = None,
        party: str | None = None,
        meta: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Any:
        """Any event by any actor, also one that the registry does not know."""
        enrolled = ACTORS.get(by, (party or "KRCS", role or "officer"))
        self._made += 1
        self.now += timedelta(minutes=1)
        about = {
            "event_id": uuid7(self.now, self._seed + self._made),
            "donation_id": self.donation_id,
            "occurred_on": self.now,
            "actor": e.Actor(actor_id=by, party_id=party or enrolled[0], role=role or enrolled[1]),
            "source": e.Source(channel="test"),
        }
        return kind(meta=e.Meta.model_validate(about | (meta or {})), **fields)

    def later(self, days: float) -> datetime:
        """So many days after the start."""
        return self._start + timedelta(days=days)

    # --- pledge ---------------------------------------------------------------------------------------------------------------------

    def announced(self, by: str = "krcs-officer", **changes: Any) -> e.PledgeAnnounced:
        terms = self._terms | {"valid_until": self.later(350), "oversight": e.Oversight.MANAGED}
        event: e.PledgeAnnounced = self._make(e.PledgeAnnounced, by, terms, changes)
        self._keep_terms(event)
        self._terms["donor"] = event.donor
        return event

    def observed(self, by: str = "fts-import", **changes: Any) -> e.PledgeAnnounced:
        return self.announced(by, **{"oversight": e.Oversight.OBSERVED, **changes})

    def confirmed(self, by: str = "krcs-officer-2", **changes: Any) -> e.PledgeConfirmed:
        event: e.PledgeConfirmed = self._make(e.PledgeConfirmed, by, {"agreement_reference": "MoU 2026/7"}, changes)
        return event

    def amended(self, by: str = "krcs-officer", **changes: Any) -> e.PledgeAmended:
        """The terms in force but for the changes."""
        terms = {name: value for name, value in self._terms.items() if name != "donor"}
        terms |= {"valid_until": self.later(350), "reason": "as agreed by exchange of letters"}
        event: e.PledgeAmended = self._make(e.PledgeAmended, by, terms, changes)
        self._keep_terms(event)
        return event

    def withdrawn(self, by: str = "krcs-officer", **changes: Any) -> e.PledgeWithdrawn:
        event: e.PledgeWithdrawn = self._make(e.PledgeWithdrawn, by, {"reason": "the programme ended"}, changes)
        return event

    def expired(self, by: str = "timekeeper", **changes: Any) -> e.PledgeExpired:
        event: e.PledgeExpired = self._make(e.PledgeExpired, by, {}, changes)
        return event

    # --- approval -------------------------------------------------------------------------------------------------------------------

    def requested(self, approval_id: str = "A1", amount: str = "1000", by: str = "krcs-officer", **changes: Any) -> e.ApprovalRequested:
        fields = {
            "approval_id": approval_id,
            "mechanism_id": "MEF-SUPPORT",
            "legs": tuple(leg.leg_id for leg in self._terms["route"]),
            "amounts": (money(amount),),
            "terms_sha256": terms_sha256(**self._terms),
            "approvals_required": 2,
        }
        event: e.ApprovalRequested = self._make(e.ApprovalRequested, by, fields, changes)
        return event

    def questioned(self, approval_id: str = "A1", by: str = "mef-approver", **changes: Any) -> e.ApprovalQuestioned:
        fields = {"approval_id": approval_id, "text_reference": "letter 17"}
        event: e.ApprovalQuestioned = self._make(e.ApprovalQuestioned, by, fields, changes)
        return event

    def answered(self, approval_id: str = "A1", by: str = "krcs-officer", **changes: Any) -> e.ApprovalAnswered:
        fields = {"approval_id": approval_id, "text_reference": "answer to letter 17"}
        event: e.ApprovalAnswered = self._make(e.ApprovalAnswered, by, fields, changes)
        return event

    def approved(self, approval_id: str = "A1", amount: str = "1000", by: str = "mef-approver", **changes: Any) -> e.ApprovalDecided:
        fields = {
            "approval_id": approval_id,
            "decision": e.Decision.APPROVE,
            "amounts": (money(amount),),
            "valid_until": self.later(300),
        }
        event: e.ApprovalDecided = self._make(e.ApprovalDecided, by, fields, changes)
        return event

    def rejected(self, approval_id: str = "A1", by: str = "mef-approver", **changes: Any) -> e.ApprovalDecided:
        fields = {"approval_id": approval_id, "decision": e.Decision.REJECT, "reason": "outside the focus areas"}
        event: e.ApprovalDecided = self._make(e.ApprovalDecided, by, fields, changes)
        return event

    def revoked(self, approval_id: str = "A1", by: str = "mef-approver-3", **changes: Any) -> e.ApprovalRevoked:
        fields = {"approval_id": approval_id, "reason": "the budget was cut"}
        event: e.ApprovalRevoked = self._make(e.ApprovalRevoked, by, fields, changes)
        return event

    def approval_expired(self, approval_id: str = "A1", by: str = "timekeeper", **changes: Any) -> e.ApprovalExpired:
        event: e.ApprovalExpired = self._make(e.ApprovalExpired, by, {"approval_id": approval_id}, changes)
        return event

    def met(self, approval_id: str = "A1", condition_id: str = "C1", by: str = "mef-approver", **changes: Any) -> e.ConditionMet:
        event: e.ConditionMet = self._make(e.ConditionMet, by, {"approval_id": approval_id, "condition_id": condition_id}, changes)
        return event

    def breached(self, approval_id: str = "A1", condition_id: str = "C1", by: str = "mef-approver", **changes: Any) -> e.ConditionBreached:
        fields = {"approval_id": approval_id, "condition_id": condition_id}
        event: e.ConditionBreached = self._make(e.ConditionBreached, by, fields, changes)
        return event

    # --- disbursement ---------------------------------------------------------------------------------------------------------------

    def scheduled(
        self, disbursement_id: str = "D1", amount: str = "400", by: str = "krcs-preparer", **changes: Any
    ) -> e.DisbursementScheduled:
        fields = {
            "disbursement_id": disbursement_id,
            "leg_id": "KRCS-CRC",
            "amount": money(amount),
            "due_on": date(2026, 3, 1),
        }
        event: e.DisbursementScheduled = self._make(e.DisbursementScheduled, by, fields, changes)
        return event

    def instructed(
        self, disbursement_id: str = "D1", amount: str = "400", by: str = "krcs-preparer", **changes: Any
    ) -> e.DisbursementInstructed:
        fields = {
            "disbursement_id": disbursement_id,
            "leg_id": "KRCS-CRC",
            "amount": money(amount),
            "approval_id": "A1",
            "end_to_end_id": f"E2E-{disbursement_id}",
        }
        event: e.DisbursementInstructed = self._make(e.DisbursementInstructed, by, fields, changes)
        return event

    def released(self, disbursement_id: str = "D1", by: str = "krcs-releaser", **changes: Any) -> e.DisbursementReleased:
        event: e.DisbursementReleased = self._make(e.DisbursementReleased, by, {"disbursement_id": disbursement_id}, changes)
        return event

    def settled(self, disbursement_id: str = "D1", amount: str = "400", by: str = "bank-adapter", **changes: Any) -> e.DisbursementSettled:
        fields = {
            "disbursement_id": disbursement_id,
            "amount": money(amount),
            "bank_reference": f"BANK-{disbursement_id}",
            "booked_on": date(2026, 3, 2),
        }
        event: e.DisbursementSettled = self._make(e.DisbursementSettled, by, fields, changes)
        return event

    def reported(self, disbursement_id: str = "P1", amount: str = "400", by: str = "fts-import", **changes: Any) -> e.DisbursementSettled:
        """A settlement of an observed donation, on the last leg."""
        return self.settled(disbursement_id, amount, by, **{"leg_id": "CRC-KBH", "bank_reference": None, **changes})

    def bank_rejected(self, disbursement_id: str = "D1", by: str = "bank-adapter", **changes: Any) -> e.DisbursementRejected:
        fields = {"disbursement_id": disbursement_id, "reason_code": "AC04"}
        event: e.DisbursementRejected = self._make(e.DisbursementRejected, by, fields, changes)
        return event

    def returned(
        self, disbursement_id: str = "D1", amount: str = "100", by: str = "bank-adapter", **changes: Any
    ) -> e.DisbursementReturned:
        fields = {"disbursement_id": disbursement_id, "amount": money(amount), "kind": e.ReturnKind.REFUND}
        event: e.DisbursementReturned = self._make(e.DisbursementReturned, by, fields, changes)
        return event

    # --- receipt --------------------------------------------------------------------------------------------------------------------

    def received(self, disbursement_id: str = "D1", amount: str = "400", by: str = "crc-officer", **changes: Any) -> e.FundsReceived:
        fields = {"disbursement_id": disbursement_id, "amount": money(amount)}
        event: e.FundsReceived = self._make(e.FundsReceived, by, fields, changes)
        return event

    def acknowledged(
        self, disbursement_id: str = "D2", amount: str = "400", by: str = "kbh-officer", **changes: Any
    ) -> e.ReceiptAcknowledged:
        fields = {"disbursement_id": disbursement_id, "amount": money(amount), "signatory": "the treasurer of the hospital"}
        event: e.ReceiptAcknowledged = self._make(e.ReceiptAcknowledged, by, fields, changes)
        return event

    def disputed(self, disbursement_id: str = "D1", difference: str = "50", by: str = "crc-officer", **changes: Any) -> e.ReceiptDisputed:
        fields = {"disbursement_id": disbursement_id, "difference": money(difference), "reason": "less arrived than was sent"}
        event: e.ReceiptDisputed = self._make(e.ReceiptDisputed, by, fields, changes)
        return event

    def resolved(self, disbursement_id: str = "D1", by: str = "crc-officer-2", **changes: Any) -> e.DisputeResolved:
        fields = {"disbursement_id": disbursement_id, "resolution": "a correspondent bank took the difference"}
        event: e.DisputeResolved = self._make(e.DisputeResolved, by, fields, changes)
        return event

    def utilised(self, amount: str = "100", by: str = "kbh-officer", **changes: Any) -> e.UtilisationReported:
        fields = {"amount": money(amount), "purpose": "medicines"}
        event: e.UtilisationReported = self._make(e.UtilisationReported, by, fields, changes)
        return event

    # --- the whole ------------------------------------------------------------------------------------------------------------------

    def closed(self, by: str = "krcs-officer", **changes: Any) -> e.DonationClosed:
        event: e.DonationClosed = self._make(e.DonationClosed, by, {"outcome": "delivered"}, changes)
        return event

    def reopened(self, by: str = "krcs-officer-2", **changes: Any) -> e.DonationReopened:
        event: e.DonationReopened = self._make(e.DonationReopened, by, {"reason": "a refund is expected"}, changes)
        return event

    # --- sequences ------------------------------------------------------------------------------------------------------------------

    def approval(self, approval_id: str = "A1", amount: str = "1000", **changes: Any) -> list[e.Event]:
        """Requested, and granted by two approvers."""
        return [
            self.requested(approval_id, amount, **changes),
            self.approved(approval_id, amount),
            self.approved(approval_id, amount, by="mef-approver-2"),
        ]

    def payment(self, disbursement_id: str, amount: str, payer: str = "krcs", **changes: Any) -> list[e.Event]:
        """Instructed, released and settled by this payer's people, on its own leg."""
        leg = {"krcs": "KRCS-CRC", "crc": "CRC-KBH"}[payer]
        return [
            self.instructed(disbursement_id, amount, by=f"{payer}-preparer", **{"leg_id": leg, **changes}),
            self.released(disbursement_id, by=f"{payer}-releaser"),
            self.settled(disbursement_id, amount),
        ]

    def _make(self, kind: type[e.Event], by: str, fields: dict[str, Any], changes: dict[str, Any]) -> Any:
        return self.event(kind, by, **(fields | changes))

    def _keep_terms(self, event: e.PledgeAnnounced | e.PledgeAmended) -> None:
        for name in ("beneficiary", "route", "purpose", "earmark", "amounts"):
            self._terms[name] = getattr(event, name)


def padded(event: e.Event, size: int) -> e.Event:
    """The event with so much evidence that its encoding has `size` bytes. Requires some kilobytes."""

    def with_evidence(*lengths: int) -> e.Event:
        evidence = tuple(e.Evidence(kind="scan", sha256=bytes(32), uri="x" * length) for length in lengths)
        return event.model_copy(update={"meta": event.meta.model_copy(update={"evidence": evidence})})

    lengths = [900] * ((size - len(codec.encode(event))) // 940)
    lengths[-1] += size - len(codec.encode(with_evidence(*lengths)))
    return with_evidence(*lengths)


def full_life(donation_id: str = "KRCS-2026-0001", start: datetime = START) -> Iterator[e.Event]:
    """A lawful donation of 33 events from announcement to close, with a question, an amendment, a partial return and two tranches. Each
    event is admitted at its own `occurred_on` and for 300 days from `start`, in this order."""
    acts = Acts(donation_id, start)
    yield acts.announced()
    yield acts.confirmed()
    yield acts.requested()
    yield acts.questioned()
    yield acts.answered()
    yield acts.approved()
    yield acts.amended(amounts=(money("1200"),), by="krcs-officer-3")
    yield acts.requested("A2", "1200")
    yield acts.approved("A2", "1200", conditions=(e.Condition(condition_id="C1", text="the hospital reports how it is used"),))
    yield acts.approved("A2", "1200", by="mef-approver-2")
    yield acts.met("A2")
    yield acts.scheduled("D1", "700")
    yield from acts.payment("D1", "700", approval_id="A2")
    yield acts.received("D1", "690", fees=money("10"))
    yield acts.returned("D1", "90", by="crc-officer")
    yield from acts.payment("D2", "600", "crc", approval_id="A2")
    yield acts.received("D2", "600", by="kbh-officer")
    yield acts.acknowledged("D2", "600")
    yield from acts.payment("D3", "590", approval_id="A2")
    yield acts.received("D3", "590")
    yield from acts.payment("D4", "590", "crc", approval_id="A2")
    yield acts.received("D4", "590", by="kbh-officer-2")
    yield acts.acknowledged("D4", "590")
    yield acts.utilised("800")
    yield acts.closed()
