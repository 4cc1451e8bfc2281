"""Kuwait Red Crescent Society (KRCS) gives to Kantha Bopha Children's Hospital (KBH) through the Cambodian Red Cross (CRC), once Cambodia's
Ministry of Economy and Finance (MEF) has approved it. The amounts are made up; the Kuwaiti dinar has three decimals.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from aidtrail import codec
from aidtrail.domain.donation import terms_sha256
from aidtrail.domain.events import (
    Actor,
    ApprovalDecided,
    ApprovalRequested,
    Decision,
    DisbursementInstructed,
    DisbursementReleased,
    DisbursementReturned,
    DisbursementSettled,
    Event,
    FundsReceived,
    Leg,
    Meta,
    Oversight,
    PledgeAmended,
    PledgeAnnounced,
    PledgeConfirmed,
    ReceiptAcknowledged,
    ReturnKind,
    Source,
)
from aidtrail.domain.money import Money

DONATION = "KRCS-DEMO-0001"
ROUTE = (Leg(leg_id="L1", from_party="KRCS", to_party="CRC"), Leg(leg_id="L2", parent_leg_id="L1", from_party="CRC", to_party="KBH"))
PURPOSE = "12191 Medical services"

ANNOUNCER = Actor(actor_id="krcs-officer-1", party_id="KRCS", role="officer")
CONFIRMER = Actor(actor_id="krcs-officer-2", party_id="KRCS", role="officer")
PREPARER = Actor(actor_id="krcs-treasury-1", party_id="KRCS", role="preparer")
PREPARER_RELEASING = Actor(actor_id="krcs-treasury-1", party_id="KRCS", role="releaser")
RELEASER = Actor(actor_id="krcs-treasury-2", party_id="KRCS", role="releaser")
BANK = Actor(actor_id="krcs-bank", party_id="KRCS", role="bank")
REQUESTER = Actor(actor_id="crc-officer-1", party_id="CRC", role="officer")
REQUESTER_APPROVING = Actor(actor_id="crc-officer-1", party_id="CRC", role="approver")
CRC_PREPARER = Actor(actor_id="crc-treasury-1", party_id="CRC", role="preparer")
CRC_RELEASER = Actor(actor_id="crc-treasury-2", party_id="CRC", role="releaser")
CRC_BANK = Actor(actor_id="crc-bank", party_id="CRC", role="bank")
APPROVER_1 = Actor(actor_id="mef-approver-1", party_id="MEF", role="approver")
APPROVER_2 = Actor(actor_id="mef-approver-2", party_id="MEF", role="approver")
HOSPITAL = Actor(actor_id="kbh-officer-1", party_id="KBH", role="officer")


class Step(NamedTuple):
    """One line of the story: what is told, who does it, the event, and the rule that refuses it where one must."""

    told: str
    actor: Actor
    kind: type[Event]
    says: dict[str, Any]
    refused_by: str | None = None

    def event(self, number: int, now: datetime) -> Event:
        moment = now + timedelta(milliseconds=number)
        meta = Meta(
            event_id=codec.event_id_at(int(moment.timestamp() * 1000), f"demo {number} {self.told}".encode()),
            donation_id=DONATION,
            occurred_on=now,
            actor=self.actor,
            source=Source(channel="demo"),
        )
        return self.kind(meta=meta, **self.says)


def kwd(amount: str) -> Money:
    return Money.model_validate({"amount": amount, "currency": "KWD"})


def terms(amount: str) -> bytes:
    """What an approval is bound to: change one word of it, and the approval no longer counts."""
    return terms_sha256("KRCS", "KBH", ROUTE, PURPOSE, 4, (kwd(amount),))


def story(now: datetime) -> list[Step]:
    """The steps, in order. `now` only sets until when pledge and approvals are valid."""
    in_a_year, in_90_days, today = now + timedelta(days=365), now + timedelta(days=90), now.date()

    def requested(approval_id: str, amount: str) -> dict[str, Any]:
        return {
            "approval_id": approval_id,
            "mechanism_id": "MEF-SUPPORT",
            "legs": ("L1", "L2"),
            "amounts": (kwd(amount),),
            "terms_sha256": terms(amount),
            "approvals_required": 2,
        }

    def approved(approval_id: str, amount: str) -> dict[str, Any]:
        return {"approval_id": approval_id, "decision": Decision.APPROVE, "amounts": (kwd(amount),), "valid_until": in_90_days}

    def instructed(disbursement_id: str, leg_id: str, amount: str, approval_id: str) -> dict[str, Any]:
        end_to_end_id = f"E2E-{disbursement_id}"
        return {
            "disbursement_id": disbursement_id,
            "leg_id": leg_id,
            "amount": kwd(amount),
            "approval_id": approval_id,
            "end_to_end_id": end_to_end_id,
        }

    def settled(disbursement_id: str, amount: str) -> dict[str, Any]:
        return {"disbursement_id": disbursement_id, "amount": kwd(amount), "bank_reference": f"BK-{disbursement_id}", "booked_on": today}

    terms_of_the_pledge = {"beneficiary": "KBH", "route": ROUTE, "purpose": PURPOSE, "earmark": 4, "valid_until": in_a_year}
    pledged = {"oversight": Oversight.MANAGED, "donor": "KRCS", "amounts": (kwd("100000.500"),), **terms_of_the_pledge}
    amended = {"amounts": (kwd("120000.750"),), "reason": "more was collected", **terms_of_the_pledge}
    return [
        Step("KRCS pledges 100,000.500 KWD to Kantha Bopha, through the Cambodian Red Cross", ANNOUNCER, PledgeAnnounced, pledged),
        Step("a second officer of KRCS confirms the pledge", CONFIRMER, PledgeConfirmed, {"agreement_reference": "KRCS-CRC-2026/7"}),
        Step("CRC asks MEF to approve the support mechanism", REQUESTER, ApprovalRequested, requested("A1", "100000.500")),
        Step("who asked tries to approve it himself", REQUESTER_APPROVING, ApprovalDecided, approved("A1", "100000.500"), "mechanism_acts"),
        Step("a first approver of MEF approves", APPROVER_1, ApprovalDecided, approved("A1", "100000.500")),
        Step("the same approver tries to sign for the second", APPROVER_1, ApprovalDecided, approved("A1", "100000.500"), "decider_is_new"),
        Step("a second approver of MEF approves: granted", APPROVER_2, ApprovalDecided, approved("A1", "100000.500")),
        Step("KRCS raises the pledge to 120,000.750 KWD: the approval is superseded", ANNOUNCER, PledgeAmended, amended),
        Step(
            "the second officer confirms the new terms",
            CONFIRMER,
            PledgeConfirmed,
            {"agreement_reference": "KRCS-CRC-2026/7, addendum 1"},
        ),
        Step(
            "KRCS tries to pay under the superseded approval",
            PREPARER,
            DisbursementInstructed,
            instructed("D1", "L1", "70000.250", "A1"),
            "cover_is_granted",
        ),
        Step("CRC asks MEF again, for the new terms", REQUESTER, ApprovalRequested, requested("A2", "120000.750")),
        Step("the first approver approves", APPROVER_1, ApprovalDecided, approved("A2", "120000.750")),
        Step("the second approver approves: granted", APPROVER_2, ApprovalDecided, approved("A2", "120000.750")),
        Step("KRCS prepares a first tranche", PREPARER, DisbursementInstructed, instructed("D1", "L1", "70000.250", "A2")),
        Step(
            "who prepared it tries to release it",
            PREPARER_RELEASING,
            DisbursementReleased,
            {"disbursement_id": "D1"},
            "releaser_did_not_prepare",
        ),
        Step("another treasurer releases it", RELEASER, DisbursementReleased, {"disbursement_id": "D1"}),
        Step("the bank settles it", BANK, DisbursementSettled, settled("D1", "70000.250")),
        Step(
            "CRC has it, less fees of 5.000 KWD",
            REQUESTER,
            FundsReceived,
            {"disbursement_id": "D1", "amount": kwd("69995.250"), "fees": kwd("5.000")},
        ),
        Step("KRCS prepares the second tranche", PREPARER, DisbursementInstructed, instructed("D2", "L1", "50000.500", "A2")),
        Step("another treasurer releases it", RELEASER, DisbursementReleased, {"disbursement_id": "D2"}),
        Step("the bank settles it", BANK, DisbursementSettled, settled("D2", "50000.500")),
        Step("CRC has it", REQUESTER, FundsReceived, {"disbursement_id": "D2", "amount": kwd("50000.500")}),
        Step(
            "CRC returns a part of it",
            REQUESTER,
            DisbursementReturned,
            {"disbursement_id": "D2", "amount": kwd("2000.000"), "kind": ReturnKind.REFUND, "reason": "a ward is built later"},
        ),
        Step(
            "CRC tries to pass on more than it holds",
            CRC_PREPARER,
            DisbursementInstructed,
            instructed("D3", "L2", "120000.750", "A2"),
            "amount_is_held",
        ),
        Step("CRC prepares to pass on what it holds", CRC_PREPARER, DisbursementInstructed, instructed("D3", "L2", "117995.750", "A2")),
        Step("another treasurer of CRC releases it", CRC_RELEASER, DisbursementReleased, {"disbursement_id": "D3"}),
        Step("CRC's bank settles it", CRC_BANK, DisbursementSettled, settled("D3", "117995.750")),
        Step("the hospital has it", HOSPITAL, FundsReceived, {"disbursement_id": "D3", "amount": kwd("117995.750")}),
        Step(
            "the hospital acknowledges it",
            HOSPITAL,
            ReceiptAcknowledged,
            {"disbursement_id": "D3", "amount": kwd("117995.750"), "signatory": "Head of finance, Kantha Bopha"},
        ),
    ]
