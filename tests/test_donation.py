"""The life of a donation, and where it stands at each stage."""

import hashlib
from collections.abc import Iterable
from typing import Any

import pytest

from aidtrail.domain import events as e
from aidtrail.domain.donation import ApprovalState, Deadline, Donation, deadlines, terms_sha256
from aidtrail.domain.fold import apply
from aidtrail.domain.invariants import invariants
from aidtrail.domain.rules import check
from aidtrail.domain.status import AmountRow, amounts, status
from aidtrail.errors import FoldError
from tests.acts import ROUTE, START, Acts, full_life, money, registry
from tests.situations import refused

REGISTRY = registry()
DIRECT = (e.Leg(leg_id="KRCS-KBH", from_party="KRCS", to_party="KBH"),)


class Life:
    """A donation whose events are ruled on and folded one after another."""

    def __init__(self) -> None:
        self.donation: Donation | None = None

    def tell(self, events: e.Event | Iterable[e.Event], now: Any = None) -> Donation:
        for event in [events] if isinstance(events, e.Event) else events:
            refusal = check(self.donation, event, REGISTRY, now or event.meta.occurred_on)
            assert refusal is None, f"{event.type}: {refusal}"
            self.donation = apply(self.donation, event)
            assert invariants(self.donation) == []
        assert self.donation is not None
        return self.donation

    def refused(self, event: e.Event) -> str:
        refusal = check(self.donation, event, REGISTRY, event.meta.occurred_on)
        assert refusal is not None
        return refusal.reason


def stage(donation: Donation) -> tuple[str, ...]:
    found = status(donation)
    return (found.headline, *found.axes)


def row(donation: Donation, currency: str = "KWD") -> dict[str, int]:
    """The amounts that are not zero, as whole numbers."""
    return {name: int(amount) for name, amount in amounts(donation)[currency]._asdict().items() if amount}


def test_a_donation_goes_from_the_pledge_to_the_hospitals_acknowledgement() -> None:
    a, life = Acts(), Life()

    assert stage(life.tell(a.announced())) == ("announced", "announced", "none", "none", "none")
    assert stage(life.tell(a.confirmed())) == ("committed", "committed", "none", "none", "none")
    assert stage(life.tell(a.requested())) == ("awaiting_approval", "committed", "pending", "none", "none")
    assert stage(life.tell(a.approved())) == ("awaiting_approval", "committed", "pending", "none", "none")
    assert stage(life.tell(a.approved(by="mef-approver-2"))) == ("approved", "committed", "granted", "none", "none")
    assert stage(life.tell(a.scheduled("D1", "1000"))) == ("approved", "committed", "granted", "scheduled", "none")
    assert stage(life.tell(a.instructed("D1", "1000"))) == ("in_flight", "committed", "granted", "in_flight", "none")
    assert row(life.tell(a.released("D1"))) == {"pledged": 1000, "approved": 1000, "in_flight": 1000}
    assert stage(life.tell(a.settled("D1", "1000"))) == ("paid", "committed", "granted", "full", "none")
    donation = life.tell(a.received("D1", "990", fees=money("10")))
    assert stage(donation) == ("paid", "committed", "granted", "full", "none")
    assert row(donation) == {"pledged": 1000, "approved": 1000, "settled": 1000, "held": 990}
    donation = life.tell(a.payment("D2", "990", "crc"))
    assert row(donation) == {"pledged": 1000, "approved": 1000, "settled": 1000, "passed_on": 990}
    assert stage(life.tell(a.received("D2", "990", by="kbh-officer")))[-1] == "partly"
    donation = life.tell(a.acknowledged("D2", "990"))
    assert stage(donation) == ("acknowledged", "committed", "granted", "full", "acknowledged")
    donation = life.tell(a.utilised("500"))
    assert row(donation) == {
        "pledged": 1000,
        "approved": 1000,
        "settled": 1000,
        "passed_on": 990,
        "received": 990,
        "acknowledged": 990,
        "utilised": 500,
    }
    assert stage(life.tell(a.closed()))[0] == "closed"
    assert stage(life.tell(a.reopened()))[0] == "acknowledged"


def test_two_different_approvers_are_needed_and_nobody_approves_what_he_asked_for() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(), a.requested(by="krcs-allrounder", role="officer", mechanism_id="KRCS-BOARD", approvals_required=1)])

    assert life.refused(a.approved(by="krcs-allrounder", role="approver")) == "decider_is_not_the_requester"
    assert life.tell(a.approved(by="krcs-approver")).approvals["A1"].state is ApprovalState.GRANTED

    b, other = Acts(), Life()
    other.tell([b.announced(), b.requested(), b.approved()])

    assert other.refused(b.approved()) == "decider_is_new"
    assert other.refused(b.instructed()) == "cover_is_granted"
    assert other.tell(b.approved(by="mef-approver-2")).approvals["A1"].deciders == ("mef-approver", "mef-approver-2")


def test_what_is_granted_is_the_least_that_any_approver_gave_until_the_earliest_date() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(), a.requested(), a.approved(amount="700", valid_until=a.later(200))])

    approval = life.tell(a.approved(amount="800", by="mef-approver-2", valid_until=a.later(100))).approvals["A1"]

    assert approval.granted == {"KWD": money("700").amount}
    assert approval.valid_until == a.later(100)
    assert stage(life.tell(a.confirmed())) == ("partly_approved", "committed", "partly", "none", "none")


def test_one_rejection_rejects() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(), a.requested(), a.approved(), a.rejected(by="mef-approver-2")])

    assert life.donation is not None
    assert stage(life.donation) == ("not_approved", "announced", "rejected", "none", "none")
    assert life.refused(a.approved(by="mef-approver-3")) == "approval_is_pending"
    assert stage(life.tell(a.requested("A2")))[2] == "pending"


def test_new_terms_supersede_what_was_approved_for_the_old_ones() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(), *a.approval("A1", "600"), a.requested("A2", "400")])

    donation = life.tell(a.amended(purpose="12220"))

    assert {approval.state for approval in donation.approvals.values()} == {ApprovalState.SUPERSEDED}
    assert stage(donation) == ("not_approved", "announced", "superseded", "none", "none")
    assert life.refused(a.instructed()) == "cover_is_granted"
    assert row(donation) == {"pledged": 1000}


def test_another_date_is_no_new_term() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(), *a.approval()])

    donation = life.tell(a.amended(valid_until=a.later(900), need_id="NEED-7", reason="more time"))

    assert donation.approvals["A1"].state is ApprovalState.GRANTED
    assert donation.pledge.valid_until == a.later(900)


def test_a_currency_that_is_no_longer_pledged_keeps_its_row_of_zeros() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(amounts=(money("1000"), money("5", "EUR"))), a.amended(amounts=(money("500", "USD"),))])

    assert amounts(life.tell(a.amended(amounts=(money("7", "EUR"),)))) == {
        "EUR": AmountRow(pledged=money("7").amount),
        "USD": AmountRow(),
        "KWD": AmountRow(),
    }


def test_an_amendment_keeps_room_for_money_in_flight_under_a_superseded_approval() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(), *a.approval(), *a.payment("D1", "400"), a.instructed("D2", "100")])

    assert life.refused(a.amended(amounts=(money("499"),))) == "amounts_cover_what_moved"

    b, life = Acts(), Life()
    life.tell([b.announced(), *b.approval(), *b.payment("D1", "400"), b.instructed("D2", "100")])
    life.tell(b.amended(amounts=(money("500"),)))

    assert life.refused(b.requested("A2", "1")) == "amounts_are_within_what_is_unapproved"
    assert life.refused(b.released("D2")) == "cover_is_granted"

    life.tell(b.bank_rejected("D2", by="krcs-releaser"))

    assert life.tell(b.requested("A2", "100")).approvals["A2"].state is ApprovalState.PENDING
    assert stage(life.tell(b.approved("A2", "100")))[2] == "partly"


def test_money_that_came_back_can_be_paid_again() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(), *a.approval(), *a.payment("D1", "1000"), a.received("D1", "1000")])

    donation = life.tell(a.returned("D1", "300", by="crc-officer"))
    assert row(donation) == {"pledged": 1000, "approved": 1000, "settled": 1000, "returned": 300, "held": 700}
    assert stage(donation)[3] == "partly"
    assert life.refused(a.instructed("D2", "300.001")) == "amount_is_within_the_cover"
    assert stage(life.tell(a.payment("D2", "300")))[3] == "full"


def test_money_that_all_came_back_is_shown_as_returned() -> None:
    a, life = Acts(), Life()
    donation = life.tell([a.announced(), *a.approval(), *a.payment("D1", "400"), a.returned("D1", "400")])

    assert stage(donation) == ("returned", "announced", "granted", "returned", "none")
    assert stage(life.tell(a.withdrawn())) == ("withdrawn", "withdrawn", "granted", "returned", "none")


def test_an_intermediary_gives_back_only_what_it_has_not_passed_on() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(), *a.approval(), *a.payment("D1", "400"), a.received(), *a.payment("D2", "300", "crc")])

    assert life.refused(a.returned("D1", "101", by="crc-officer")) == "returned_money_was_not_passed_on"

    life.tell(a.returned("D2", "50"))

    assert row(life.tell(a.returned("D1", "150", by="crc-officer")))["returned"] == 150


def test_conditions_hold_money_back_until_they_are_met_and_when_they_are_breached() -> None:
    a, life = Acts(), Life()
    condition = e.Condition(condition_id="C1", text="the hospital reports how it is used")
    life.tell([a.announced(), a.requested(), a.approved(conditions=(condition,)), a.approved(by="mef-approver-2")])

    assert life.refused(a.instructed()) == "cover_has_its_conditions_met"
    assert row(life.tell(a.confirmed())) == {"pledged": 1000}
    assert row(life.tell(a.met())) == {"pledged": 1000, "approved": 1000}
    life.tell([a.instructed(), a.breached()])
    assert life.refused(a.released()) == "cover_has_its_conditions_met"
    life.tell([a.met(), a.released()])


def test_what_was_paid_stays_approved_after_its_approval_ended() -> None:
    a, life = Acts(), Life()
    donation = life.tell([a.announced(), *a.approval(), *a.payment("D1", "1000"), a.revoked()])

    assert stage(donation) == ("paid", "announced", "granted", "full", "none")
    assert row(donation) == {"pledged": 1000, "settled": 1000}


def test_a_revoked_approval_releases_no_money() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(), *a.approval(), a.instructed(), a.revoked()])

    assert life.refused(a.released()) == "cover_is_granted"
    assert stage(life.tell(a.bank_rejected(by="krcs-preparer"))) == ("not_approved", "announced", "revoked", "none", "none")


def test_a_dispute_leads_until_it_is_resolved_by_another() -> None:
    a, life = Acts(), Life()
    donation = life.tell([a.announced(), *a.approval(), *a.payment("D1", "400"), a.disputed()])

    assert stage(donation) == ("disputed", "announced", "granted", "partly", "disputed")
    assert life.refused(a.closed()) == "no_dispute_is_left"
    assert life.refused(a.resolved(by="crc-officer")) == "resolved_by_another"
    assert stage(life.tell(a.resolved(by="crc-officer-2")))[-1] == "none"


def test_what_went_in_fees_alone_is_missed_no_more_and_acknowledged_by_nobody() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(route=DIRECT, amounts=(money("400"),)), *a.approval("A1", "400")])
    life.tell([*a.payment("D1", "400", leg_id="KRCS-KBH"), a.received("D1", "390", by="kbh-officer"), a.acknowledged("D1", "390")])

    assert stage(life.donation) == ("paid", "announced", "granted", "full", "partly")
    life.tell(a.received("D1", "0", by="kbh-officer", fees=money("10"), receipt_reference="R2"))
    assert stage(life.donation) == ("acknowledged", "announced", "granted", "full", "acknowledged")
    life.tell(a.returned("D1", "390", by="kbh-officer"))
    assert stage(life.donation) == ("partly_paid", "announced", "granted", "partly", "none")


def test_a_fee_that_came_back_as_well_is_no_money_that_is_missing() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(route=DIRECT), *a.approval(), *a.payment("D1", "400", leg_id="KRCS-KBH")])
    life.tell([a.received("D1", "390", by="kbh-officer", fees=money("10")), a.returned("D1", "395")])
    life.tell([*a.payment("D2", "100", leg_id="KRCS-KBH"), a.received("D2", "100", by="kbh-officer"), a.acknowledged("D2", "100")])

    assert stage(life.donation) == ("partly_paid", "announced", "granted", "partly", "acknowledged")


def test_nothing_is_scheduled_of_a_pledge_that_ended() -> None:
    a, life = Acts(), Life()

    assert stage(life.tell([a.announced(), a.scheduled()])) == ("announced", "announced", "none", "scheduled", "none")
    assert stage(life.tell(a.withdrawn())) == ("withdrawn", "withdrawn", "none", "none", "none")


def test_money_that_did_not_arrive_is_missed_until_it_is_received_taken_by_fees_or_back() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(), *a.approval(), *a.payment("D1", "1000"), a.received("D1", "100")])
    life.tell([*a.payment("D2", "100", "crc"), a.received("D2", "100", by="kbh-officer")])

    assert stage(life.tell(a.acknowledged("D2", "100"))) == ("paid", "announced", "granted", "full", "partly")
    life.tell(a.received("D1", "800", fees=money("20"), receipt_reference="R2"))
    life.tell([*a.payment("D3", "800", "crc"), a.received("D3", "800", by="kbh-officer")])
    assert stage(life.tell(a.acknowledged("D3", "800")))[-1] == "partly"
    assert stage(life.tell(a.returned("D1", "80"))) == ("partly_paid", "announced", "granted", "partly", "acknowledged")
    assert row(life.tell([])) == {
        "pledged": 1000, "approved": 1000, "settled": 1000, "returned": 80, "passed_on": 900, "received": 900, "acknowledged": 900,
    }  # fmt: skip


def test_money_at_an_intermediary_is_held_also_when_no_leg_leads_on() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(), *a.approval(), *a.payment("D1", "400"), a.received("D1", "400")])

    direct = e.Leg(leg_id="DIRECT", from_party="KRCS", to_party="KBH")
    assert row(life.tell(a.amended(route=(ROUTE[0], direct)))) == {"pledged": 1000, "settled": 400, "held": 400}


def test_received_and_acknowledged_are_net_of_what_went_back() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(), *a.approval(), *a.payment("D1", "400"), a.received("D1", "400"), *a.payment("D2", "400", "crc")])
    life.tell([a.received("D2", "400", by="kbh-officer"), a.acknowledged("D2", "400")])

    donation = life.tell(a.returned("D2", "150", by="kbh-officer"))

    assert row(donation) == {
        "pledged": 1000, "approved": 1000, "settled": 400, "passed_on": 250, "held": 150, "received": 250, "acknowledged": 250,
    }  # fmt: skip


def test_an_approval_for_the_way_after_the_donor_does_not_let_the_donor_pay() -> None:
    a, life = Acts(), Life()
    donation = life.tell([a.announced(), *a.approval(legs=("CRC-KBH",))])

    assert stage(donation) == ("announced", "announced", "none", "none", "none")
    assert row(donation) == {"pledged": 1000}
    assert stage(life.tell(a.approval("A2", legs=("KRCS-CRC",))))[:3] == ("approved", "announced", "granted")


def test_an_amended_pledge_is_announced_until_it_is_confirmed_again() -> None:
    a, life = Acts(), Life()
    life.tell([a.announced(), a.confirmed()])

    assert life.tell(a.amended(valid_until=None)).pledge.state == "committed"
    amended = life.tell(a.amended(amounts=(money("1200"),))).pledge
    assert (amended.state, amended.confirmed_by, amended.agreement_reference) == ("announced", None, None)
    again = life.tell(a.confirmed(agreement_reference="MoU 2026/8")).pledge
    assert (again.state, again.confirmed_by, again.agreement_reference) == ("committed", "krcs-officer-2", "MoU 2026/8")


def test_a_third_party_says_itself_that_what_it_amends_is_committed() -> None:
    a, life = Acts(), Life()
    life.tell([a.observed(), a.confirmed(by="fts-import")])

    assert life.tell(a.amended(by="fts-import", amounts=(money("900"),))).pledge.state == "committed"


def test_an_observed_donation_counts_what_is_reported_on_any_leg_and_has_no_approval() -> None:
    a, life = Acts(), Life()

    assert stage(life.tell(a.observed())) == ("announced", "announced", "not_recorded", "none", "none")
    donation = life.tell([a.reported("P1", "400"), a.reported("P2", "600", leg_id="KRCS-CRC")])
    assert stage(donation) == ("paid", "announced", "not_recorded", "full", "none")
    assert row(donation) == {"pledged": 1000, "settled": 1000}
    assert life.refused(a.requested()) == "observed_takes_only_what_is_reported"
    assert row(life.tell(a.returned("P1", "400", by="fts-import"))) == {"pledged": 1000, "settled": 1000, "returned": 400}


def test_an_observed_route_may_have_gaps_and_amounts_of_nothing() -> None:
    a, life = Acts(), Life()
    gap = (e.Leg(leg_id="L1", from_party="KRCS", to_party="MEF"), e.Leg(leg_id="L2", parent_leg_id="L1", from_party="CRC", to_party="CRC"))
    donation = life.tell([a.observed(route=gap, amounts=(money("0"),)), a.reported("P1", "0", leg_id="L2")])

    assert stage(donation)[3] == "full"
    assert amounts(donation) == {"KWD": AmountRow()}


def test_a_report_may_take_a_leg_off_the_route_that_money_was_reported_on() -> None:
    a, life = Acts(), Life()
    direct = e.Leg(leg_id="DIRECT", from_party="KRCS", to_party="KBH")
    donation = life.tell([a.observed(), a.reported("P1", "400"), a.amended(by="fts-import", route=(direct,), amounts=(money("300"),))])

    assert stage(donation) == ("paid", "announced", "not_recorded", "full", "none")
    assert row(life.tell(a.returned("P1", "100", by="fts-import"))) == {"pledged": 300, "settled": 400, "returned": 100}


def test_currencies_are_never_added() -> None:
    a, life = Acts(), Life()
    two = (money("1000"), money("500", "USD"))
    life.tell([a.announced(amounts=two), a.requested(amounts=two), a.approved(amounts=two), a.approved(by="mef-approver-2", amounts=two)])

    donation = life.tell(a.payment("D1", "1000"))

    assert stage(donation)[3] == "partly"
    assert row(donation) == {"pledged": 1000, "approved": 1000, "settled": 1000}
    assert row(donation, "USD") == {"pledged": 500, "approved": 500}


# --- deadlines ----------------------------------------------------------------------------------------------------------------------


def test_the_pledge_and_each_granted_approval_fall_due() -> None:
    a, life = Acts(), Life()
    donation = life.tell([a.announced(), *a.approval("A1", "600"), a.requested("A2", "400"), a.approved("A2", "400")])

    assert deadlines(donation) == (Deadline(a.later(350), "PledgeExpired", None), Deadline(a.later(300), "ApprovalExpired", "A1"))
    assert donation.next_deadline == a.later(300)


def test_a_pledge_falls_due_when_its_expiry_would_be_admitted() -> None:
    a, life = Acts(), Life()
    end = Deadline(a.later(350), "PledgeExpired", None)
    life.tell([a.announced(), *a.approval()])

    assert end not in deadlines(life.tell(a.instructed("D1", "1000")))
    assert end in deadlines(life.tell(a.bank_rejected("D1", by="krcs-preparer")))
    assert end not in deadlines(life.tell(a.payment("D2", "1000")))
    assert end in deadlines(life.tell(a.returned("D2", "1")))
    expired = life.tell(a.expired(), now=a.later(351))
    assert end not in deadlines(expired)
    assert stage(expired)[:2] == ("partly_paid", "expired")


def test_nothing_of_a_closed_or_observed_donation_falls_due() -> None:
    a, life = Acts(), Life()
    closed = life.tell([a.announced(), *a.approval(), a.closed()])

    assert deadlines(closed) == ()
    assert closed.next_deadline is None
    assert deadlines(Life().tell(Acts().observed())) == ()


# --- the hash of the terms ----------------------------------------------------------------------------------------------------------


def test_the_terms_are_hashed_to_the_byte_as_documented() -> None:
    document = (
        '{"amounts":[{"amount":"1000.5000","currency":"KWD"},{"amount":"7.0000","currency":"USD"}],"beneficiary":"KBH","donor":"KRCS",'
        '"earmark":3,"purpose":"Santé","route":[{"from_party":"CRC","leg_id":"CRC-KBH","parent_leg_id":"KRCS-CRC","to_party":"KBH"},'
        '{"from_party":"KRCS","leg_id":"KRCS-CRC","parent_leg_id":null,"to_party":"CRC"}]}'
    )

    digest = terms_sha256("KRCS", "KBH", ROUTE, "Santé", 3, (money("7", "USD"), money("1000.5")))

    assert digest == hashlib.sha256(document.encode()).digest()


def test_every_term_changes_the_hash_and_the_order_of_writing_does_not() -> None:
    terms: dict[str, Any] = {
        "donor": "KRCS",
        "beneficiary": "KBH",
        "route": ROUTE,
        "purpose": "12191",
        "earmark": 3,
        "amounts": (money("1000"), money("5", "USD")),
    }
    changes: list[dict[str, Any]] = [
        {"donor": "CRC"},
        {"beneficiary": "CRC"},
        {"route": ROUTE[:1]},
        {"purpose": None},
        {"purpose": "12220"},
        {"earmark": None},
        {"earmark": 4},
        {"amounts": (money("1000.001"), money("5", "USD"))},
        {"amounts": (money("1000"),)},
    ]

    hashes = {terms_sha256(**terms | change) for change in changes}

    assert len(hashes - {terms_sha256(**terms)}) == len(changes)
    assert terms_sha256(**terms | {"route": ROUTE[::-1], "amounts": terms["amounts"][::-1]}) == terms_sha256(**terms)


# --- the fold -----------------------------------------------------------------------------------------------------------------------


def stamp(event: e.Event, version: int) -> e.Event:
    ledger = e.LedgerStamp(
        version=version,
        submitted_offset=0,
        previous_outcome_sha256=bytes(32),
        recorded_at=START,
        previous_sha256=bytes(32),
        registry_offset=0,
        rules=1,
    )
    return event.model_copy(update={"meta": event.meta.model_copy(update={"ledger": ledger})})


def test_the_version_counts_and_agrees_with_the_stamp() -> None:
    a = Acts()
    donation = apply(apply(None, stamp(a.announced(), 1)), stamp(a.confirmed(), 2))

    assert donation.version == 2
    with pytest.raises(FoldError, match="stamped version 4"):
        apply(donation, stamp(a.withdrawn(), 4))


def test_folding_changes_nothing_that_was_there_before() -> None:
    states: list[tuple[Donation, str]] = []
    donation: Donation | None = None
    for event in full_life():
        donation = apply(donation, event)
        states.append((donation, repr(donation)))

    assert all(repr(state) == written for state, written in states)
    with pytest.raises(AttributeError):
        states[0][0].version = 9  # type: ignore[misc]


def test_what_cannot_follow_is_a_fold_error_and_nothing_else() -> None:
    a = Acts()
    announced = a.announced()
    donation = apply(None, announced)

    for event in (
        announced,
        refused(a),
        Acts("ANOTHER-DONATION").confirmed(),
        a.approved(),
        a.revoked(),
        a.met(),
        a.released(),
        a.settled(),
        a.bank_rejected(),
        a.returned(),
        a.received(),
        a.acknowledged(),
        a.disputed(),
        a.resolved(),
    ):
        with pytest.raises(FoldError):
            apply(donation, event)
    with pytest.raises(FoldError, match="no pledge was announced"):
        apply(None, a.confirmed())
    with pytest.raises(FoldError, match="C9"):
        apply(apply(donation, a.requested()), a.met("A1", "C9"))


def test_invariants_name_what_is_broken() -> None:
    a = Acts()
    unlawful: Donation | None = None
    for event in (a.announced(), a.confirmed(by="krcs-officer"), *a.approval(), *a.payment("D1", "1001"), a.utilised("1")):
        unlawful = apply(unlawful, event)

    assert unlawful is not None
    assert invariants(unlawful) == [
        "1001.0000 KWD out of purse None under approval A1 for 1000.0000",
        "1001.0000 KWD out of purse None, into which 1000.0000 came",
        "1.0000 KWD used of 0 acknowledged",
        "the pledge is confirmed by who announced it",
    ]
