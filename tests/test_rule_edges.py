"""Rules with more than one edge: what is just allowed, and what is just not."""

from datetime import datetime, timedelta

import pytest

from aidtrail.domain import events as e
from aidtrail.domain.donation import Donation
from aidtrail.domain.fold import apply
from aidtrail.domain.rules import check
from aidtrail.errors import FoldError
from tests.acts import ROUTE, START, Acts, money
from tests.situations import (
    CONDITION,
    REGISTRY,
    acknowledged,
    arrived,
    event_with,
    granted,
    instructed,
    leg,
    paid,
    received,
    requested,
    retired_mechanism,
    story,
)


def verdict(*events: e.Event, now: datetime | None = None) -> str | None:
    refusal = story(*events, now=now).check()
    return None if refusal is None else refusal.reason


def test_an_amount_must_fit_its_currency_to_the_digit() -> None:
    for amount, currency, reason in (
        ("1000.001", "KWD", None),
        ("1000.0001", "KWD", "amounts_fit_their_currency"),
        ("1000", "JPY", None),
        ("1000.1", "JPY", "amounts_fit_their_currency"),
        ("1000", "XYZ", "amounts_fit_their_currency"),
    ):
        assert verdict(Acts().announced(amounts=(money(amount, currency),))) == reason
        assert verdict(Acts().announced(equivalents=(money(amount, currency),))) == reason
    assert verdict(Acts().announced(equivalents=(money("1", "USD"), money("2", "USD")))) == "currencies_are_distinct"


def test_an_amender_does_not_confirm() -> None:
    a = Acts()

    assert verdict(a.announced(), a.amended(by="krcs-officer-2"), a.confirmed(by="krcs-officer-2")) == "confirmed_by_another"
    assert verdict(a.announced(), a.amended(by="krcs-officer-2"), a.confirmed(by="krcs-officer-3")) is None


def test_an_approval_by_a_confirmer_or_an_amender_is_refused() -> None:
    for first, second in (("krcs-allrounder", "krcs-officer-2"), ("krcs-officer-2", "krcs-allrounder")):
        a = Acts()
        told = [a.announced(), a.confirmed(by=first, role="officer"), a.amended(by=second, role="officer")]
        told += [a.requested(mechanism_id="KRCS-BOARD", approvals_required=1), a.approved(by="krcs-allrounder", role="approver")]

        assert verdict(*told) == "decider_did_not_shape_the_pledge"


def test_larger_amounts_need_more_approvals() -> None:
    for amounts, required in (
        ((money("4999.999"),), 2),
        ((money("5000"),), 3),
        ((money("1"), money("20000", "USD")), 3),
        ((money("20000", "EUR"),), 2),
    ):
        a = Acts()
        announced = a.announced(amounts=amounts)

        assert verdict(announced, a.requested(amounts=amounts, approvals_required=required)) is None
        assert verdict(announced, a.requested(amounts=amounts, approvals_required=5)) == "number_of_approvals_is_the_mechanisms"


def test_an_approval_lasts_no_longer_than_its_mechanism_allows() -> None:
    a = Acts()
    before = requested(a)
    last = a.approved().meta.occurred_on

    assert verdict(*before, a.approved(valid_until=a.later(366)), now=last) == "approval_is_for_a_limited_time"
    assert verdict(*before, a.approved(valid_until=last), now=last) == "approval_is_for_a_limited_time"
    assert verdict(*before, a.approved(valid_until=a.later(365)), now=last) is None


def test_nothing_is_granted_by_a_word_that_has_run_out_and_the_request_may_then_be_rejected() -> None:
    a = Acts()
    told = [*requested(a), a.approved(valid_until=a.later(1))]

    assert verdict(*told, a.approved(by="mef-approver-2"), now=a.later(1)) == "earlier_approvals_are_still_valid"
    assert verdict(*told, a.rejected(by="mef-approver-2"), now=a.later(1)) is None
    assert verdict(*told, a.approved(by="mef-approver-2"), now=a.later(0.999)) is None


def test_validity_ends_after_its_last_moment() -> None:
    a = Acts()
    told = granted(a)
    end = a.later(300)

    assert verdict(*told, a.instructed(), now=end) is None
    assert verdict(*told, a.approval_expired(), now=end) == "approval_has_run_out"


def test_a_rejection_states_nothing_but_its_reason() -> None:
    a = Acts()
    before = requested(a)

    assert verdict(*before, a.rejected()) is None
    assert verdict(*before, a.rejected(amounts=(money("1"),))) == "rejection_gives_its_reason_alone"
    assert verdict(*before, a.rejected(valid_until=a.later(5))) == "rejection_gives_its_reason_alone"
    assert verdict(*before, a.rejected(conditions=(CONDITION,))) == "rejection_gives_its_reason_alone"


def test_a_retired_mechanism_may_still_reject() -> None:
    a = Acts()
    told = story(*requested(a), a.rejected())

    assert retired_mechanism(a, told).check() is None


def test_two_approvers_must_leave_something_that_both_gave() -> None:
    a = Acts()
    two = (money("1000"), money("500", "USD"))
    before = [a.announced(amounts=two), a.requested(amounts=two), a.approved(amounts=two[:1])]

    assert verdict(*before, a.approved(by="mef-approver-2", amounts=two[1:])) == "approving_leaves_an_amount"
    assert verdict(*before, a.approved(by="mef-approver-2", amounts=two)) is None


def test_who_holds_money_passes_it_on_after_the_pledge_ended_but_the_donor_pays_no_more() -> None:
    for end in (Acts.withdrawn, Acts.expired):
        a = Acts()
        told = [a.announced(valid_until=a.later(1)), *a.approval(), *a.payment("D1", "400"), a.received()]
        a.now = a.later(2)
        told.append(end(a))

        assert verdict(*told, a.instructed("D2", "400", by="crc-preparer", leg_id="CRC-KBH")) is None
        assert verdict(*told, a.instructed("D3", "100")) == "ended_pledge_pays_nothing_new"
        assert verdict(*told, a.requested("A2", "100")) == "donors_money_is_asked_for_in_time"


def test_the_legs_of_one_purse_share_an_approval() -> None:
    a = Acts()
    second = leg("KRCS-KBH", None, "KRCS", "KBH")
    told = [a.announced(route=(*ROUTE, second)), *a.approval(), *a.payment("D1", "700")]

    assert verdict(*told, a.instructed("D2", "300", leg_id="KRCS-KBH")) is None
    assert verdict(*told, a.instructed("D2", "300.001", leg_id="KRCS-KBH")) == "amount_is_within_the_cover"


def test_a_payment_is_rejected_by_the_bank_only_after_its_release() -> None:
    a = Acts()
    told = [*instructed(a), a.released()]

    assert verdict(*told, a.bank_rejected()) is None
    assert verdict(*told, a.bank_rejected(by="krcs-bank")) is None
    assert verdict(*told, a.bank_rejected(by="krcs-preparer")) == "payer_cancels_and_bank_rejects"
    assert verdict(*told, a.bank_rejected(by="crc-bank")) == "payer_cancels_and_bank_rejects"
    assert verdict(*instructed(Acts()), Acts().bank_rejected(by="crc-preparer")) == "payer_cancels_and_bank_rejects"


def test_a_fee_is_not_returned_out_of_what_was_passed_on() -> None:
    a = Acts()
    told = [*paid(a), a.received("D1", "390", fees=money("10")), *a.payment("D2", "300", "crc")]

    assert verdict(*told, a.returned("D1", "90", by="crc-officer")) is None
    assert verdict(*told, a.returned("D1", "90.001", by="crc-officer")) == "returned_money_was_not_passed_on"


def test_what_is_said_of_a_payment_on_a_leg_that_is_gone_is_refused_and_breaks_nothing() -> None:
    for late in (
        Acts.released,
        Acts.settled,
        Acts.bank_rejected,
        Acts.returned,
        Acts.received,
        Acts.acknowledged,
        Acts.disputed,
        Acts.resolved,
    ):
        a = Acts()
        told = [a.announced(), a.scheduled(), a.amended(route=(leg("DIRECT", None, "KRCS", "KBH"),))]

        assert verdict(*told, late(a, "D1")) is not None


def test_a_closed_donation_still_takes_returns_reports_of_use_and_its_reopening() -> None:
    a = Acts()
    told = [*acknowledged(a), a.closed()]

    assert verdict(*told, a.returned("D2", "1", by="kbh-officer")) is None
    assert verdict(*told, a.utilised()) is None
    assert verdict(*told, a.reopened()) is None
    assert verdict(*told, a.disputed("D2", by="kbh-officer")) == "donation_is_open"


def test_a_forged_approval_id_never_reaches_the_fold() -> None:
    a = Acts()
    situation = event_with(approval_id="A9")(a, story(*requested(a), a.approved()))

    assert situation.check() is not None
    with pytest.raises(FoldError):
        apply(situation.donation, situation.event)


def test_who_wants_an_id_that_is_in_use_learns_nothing_of_the_donation_that_has_it() -> None:
    a = Acts()
    events = received(a)
    donation: Donation | None = None
    told = set()
    for event in events:
        donation = apply(donation, event)
        told.add(check(donation, a.announced(), REGISTRY, START))

    assert [refusal.reason for refusal in told if refusal is not None] == ["donation_is_new"]
    assert len(told) == 1


# --- the approval of money that is on its way ---------------------------------------------------------------------------------------


def test_money_that_an_intermediary_holds_is_approved_again_when_its_approval_ends() -> None:
    for end in ("expired", "revoked", "amended"):
        a = Acts()
        told = [a.announced(valid_until=None), *a.approval(), *a.payment("D1", "1000"), a.received("D1", "1000")]
        if end == "amended":
            told.append(a.amended(purpose="12220", valid_until=None))
        else:
            a.now = a.later(301) if end == "expired" else a.now
            told.append(a.approval_expired() if end == "expired" else a.revoked())
        again = a.requested("A2", "1000", by="crc-officer", legs=("CRC-KBH",))

        assert verdict(*told, again) is None, end
        assert verdict(*told, a.requested("A3", "0.001", legs=("KRCS-CRC",))) == "amounts_are_within_what_is_unapproved"
        until = a.now + timedelta(days=30)
        told += [again, a.approved("A2", valid_until=until), a.approved("A2", by="mef-approver-2", valid_until=until)]
        assert verdict(*told, *a.payment("D2", "1000", "crc", approval_id="A2")) is None


def test_an_intermediary_may_ask_for_what_it_holds_after_the_pledge_ended() -> None:
    a = Acts()
    told = [a.announced(), *a.approval(), *a.payment("D1", "400"), a.received("D1", "400"), a.withdrawn(), a.revoked()]

    assert verdict(*told, a.requested("A2", "400", by="crc-officer", legs=("CRC-KBH",))) is None
    assert verdict(*told, a.requested("A2", "400", by="crc-officer")) == "donors_money_is_asked_for_in_time"


def test_the_same_money_needs_one_approval_for_each_purse_it_passes() -> None:
    a = Acts()
    told = [a.announced(), *a.approval("A1", legs=("CRC-KBH",))]

    assert verdict(*told, a.requested("A2", "1000", legs=("KRCS-CRC",))) is None
    assert verdict(*told, a.requested("A2", "0.001")) == "amounts_are_within_what_is_unapproved"


def test_to_ask_in_parts_does_not_take_fewer_approvals() -> None:
    a = Acts()
    told = [a.announced(amounts=(money("9998"),)), *a.approval("A1", "4999")]

    assert verdict(*told, a.requested("A2", "0.999")) is None
    assert verdict(*told, a.requested("A2", "4999")) == "number_of_approvals_is_the_mechanisms"
    assert verdict(*told, a.requested("A2", "4999", approvals_required=3)) is None
    assert verdict(*told, a.requested("A2", "4999", mechanism_id="MEF-SMALL", approvals_required=1)) is None


# --- the same people by another way -------------------------------------------------------------------------------------------------


def test_who_lifts_a_condition_pays_nothing_under_it() -> None:
    a = Acts()
    told = [a.announced(), a.requested(mechanism_id="KRCS-BOARD", approvals_required=1)]
    told += [a.approved(by="krcs-approver", conditions=(CONDITION,)), a.met(by="krcs-allrounder", role="approver")]

    assert verdict(*told, a.instructed(by="krcs-allrounder", role="preparer")) == "payer_did_not_decide_the_cover"
    assert verdict(*told, a.instructed()) is None


def test_who_lifts_a_condition_neither_confirms_nor_amends_the_pledge() -> None:
    for act in (Acts.confirmed, Acts.amended):
        a = Acts()
        told = [a.announced(), a.requested(mechanism_id="KRCS-BOARD", approvals_required=1)]
        told += [a.approved(by="krcs-approver", conditions=(CONDITION,)), a.met(by="krcs-allrounder", role="approver")]

        assert verdict(*told, act(a, by="krcs-allrounder")) == "shaper_did_not_decide"
        assert verdict(*told, act(a, by="krcs-officer-2")) is None


def test_new_terms_are_confirmed_anew_by_who_did_not_amend_them() -> None:
    a = Acts()
    told = [a.announced(), a.confirmed(), a.amended(amounts=(money("1200"),), by="krcs-officer-2")]

    assert story(*told, a.confirmed()).donation.pledge[:1] == ("announced",)  # type: ignore[union-attr]
    assert verdict(*told, a.confirmed(by="krcs-officer-2")) == "confirmed_by_another"
    assert verdict(*told, a.confirmed(by="krcs-officer-3")) is None


def test_who_was_paid_to_pass_money_on_does_not_become_the_beneficiary() -> None:
    a = Acts()

    assert verdict(*paid(a), a.amended(beneficiary="CRC")) == "paid_beneficiary_stays"
    a = Acts()
    assert verdict(*granted(a), a.amended(beneficiary="CRC")) is None


def test_a_longer_validity_leaves_a_pledge_confirmed() -> None:
    a = Acts()

    assert verdict(a.announced(), a.confirmed(), a.amended(valid_until=a.later(360)), a.confirmed()) == "pledge_awaits_confirmation"


# --- money that did not arrive, or went back ----------------------------------------------------------------------------------------


def test_a_payment_is_received_in_parts_up_to_what_was_settled() -> None:
    a = Acts()
    told = [*paid(a), a.received("D1", "100"), a.received("D1", "250", fees=money("10"), receipt_reference="R2")]

    assert verdict(*told, a.received("D1", "40.001", receipt_reference="R3")) == "received_is_within_the_settlement"
    assert verdict(*told, a.received("D1", "40", receipt_reference="R3")) is None


def test_a_return_that_bank_and_receiver_both_tell_counts_once() -> None:
    for first, second, reason in (
        ("R1", "R1", "return_is_told_once"),
        ("R1", None, "return_is_told_once"),
        (None, None, "return_is_told_once"),
        ("R1", "R2", None),
        (None, "R2", None),
    ):
        a = Acts()
        told = [*received(a), a.returned(return_reference=first)]

        assert verdict(*told, a.returned(by="crc-officer", return_reference=second)) == reason, (first, second)
    a = Acts()
    told = [*received(a), a.returned(return_reference="R1"), a.returned(return_reference="R2")]
    assert verdict(*told, a.returned(by="crc-officer", return_reference="R1")) == "return_is_told_once"
    other = [*told, *a.payment("D2", "100"), a.returned("D2", return_reference="R1")]
    assert verdict(*other) is None


def test_a_part_that_arrived_counts_once() -> None:
    a = Acts()
    told = [*paid(a), a.received("D1", "100", receipt_reference="R1")]

    assert verdict(*told, a.received("D1", "100", receipt_reference="R1")) == "receipt_is_told_once"
    assert verdict(*told, a.received("D1", "100")) == "receipt_is_told_once"
    assert verdict(*told, a.received("D1", "100", receipt_reference="R2")) is None


def test_who_reports_an_observed_donation_tells_returns_without_references() -> None:
    a = Acts()
    told = [a.observed(), a.reported(), a.returned("P1", by="fts-import")]

    assert verdict(*told, a.returned("P1", by="fts-import")) is None


def test_fees_are_told_alone_when_they_are_found_out_later() -> None:
    a = Acts()
    told = [*paid(a), a.received("D1", "390")]

    assert verdict(*told, a.received("D1", "0", fees=money("10"), receipt_reference="R2")) is None
    assert verdict(*told, a.received("D1", "0", fees=money("10.001"), receipt_reference="R2")) == "received_is_within_the_settlement"
    assert verdict(*told, a.received("D1", "0", fees=money("0"), receipt_reference="R2")) == "something_arrived_or_went_in_fees"
    assert verdict(*told, a.received("D1", "10", fees=money("0"), receipt_reference="R2")) == "something_arrived_or_went_in_fees"
    assert verdict(*paid(a), a.received("D1", "0", fees=money("400"))) is None


def test_what_went_back_is_neither_acknowledged_nor_used() -> None:
    a = Acts()
    told = [*acknowledged(a), a.returned("D2", "100", by="kbh-officer")]

    assert verdict(*told, a.utilised("300.001")) == "utilised_is_within_what_was_acknowledged"
    assert verdict(*told, a.utilised("300")) is None
    a = Acts()
    told = [*arrived(a), a.returned("D2", "400", by="kbh-officer")]
    assert verdict(*told, a.acknowledged("D2", "0.001")) == "acknowledged_is_within_what_was_received"


def test_an_instruction_is_not_released_after_the_pledge_ran_out_and_may_then_be_cancelled() -> None:
    a = Acts()
    told = [a.announced(valid_until=a.later(10)), *a.approval(), a.instructed()]

    assert verdict(*told, a.released(), now=a.later(11)) == "pledge_past_its_validity_pays_nothing_new"
    cancelled = [*told, a.bank_rejected(by="krcs-preparer")]
    assert verdict(*cancelled, a.expired(), now=a.later(11)) is None


def test_a_dispute_is_ended_by_its_own_side_and_may_be_raised_after_the_payer_closed() -> None:
    a = Acts()
    told = [*arrived(a), a.disputed("D2", by="kbh-officer")]

    assert verdict(*told, a.resolved("D2", by="crc-officer")) == "receiver_acts"
    assert verdict(*told, a.resolved("D2", by="kbh-officer-2")) is None
    a = Acts()
    told = [*arrived(a), a.closed(by="crc-officer"), a.reopened(by="kbh-officer")]
    assert verdict(*told, a.disputed("D2", by="kbh-officer")) is None
