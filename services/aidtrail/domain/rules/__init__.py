"""The policy: which event may follow, told as a table of named rules.

`check` walks the rules of the event's type in order and stops at the first that objects. The order is part of the policy: a rule may rely
on those above it (what the event names exists, the actor is who he says). `policy` prints the table.
"""

from collections.abc import Mapping
from datetime import datetime

from aidtrail.domain import events as e
from aidtrail.domain.donation import Donation
from aidtrail.domain.registry import Registry
from aidtrail.domain.rules import approval as a
from aidtrail.domain.rules import common as c
from aidtrail.domain.rules import disbursement as d
from aidtrail.domain.rules import pledge as p
from aidtrail.domain.rules import receipt as r
from aidtrail.domain.rules.case import Case, Finding, Refusal, Rule

__all__ = ["OBSERVED_RULES", "RULES", "RULES_VERSION", "Case", "Finding", "Refusal", "Rule", "check", "policy"]

RULES_VERSION = 4
"""Stamped on every entry. To be raised whenever the verdict on any submission changes, or the bytes of a refusal.

2: signatures are checked, and refusals are written in version 2 of their schema.
3: approvals are counted by purse, in parts as in whole; who lifts a condition counts as one who decides; new terms are confirmed anew; a
   payment is received in parts, and what went back is neither acknowledged nor used; a dispute is its receiver's to end;
   nothing is told before it occurs.
4: a further return, or a further receipt, of a payment has a reference of its own; fees may be told alone; who lifted a condition neither
   confirms nor amends; nothing is granted by a word that has run out; money reaches the beneficiary once, and who was paid to pass it on
   does not become the beneficiary."""

_BY_AN_ACTOR: tuple[Rule, ...] = (
    c.submission_is_not_stamped,
    c.actor_is_enrolled,
    c.actor_is_not_retired,
    c.actor_acts_for_own_party,
    c.actor_holds_the_role,
    c.signature_is_the_actors,
    c.submission_is_signed_where_required,
    c.event_has_occurred,
)
_BY_ROLE: tuple[Rule, ...] = (*_BY_AN_ACTOR, c.role_fits_the_event, c.donation_is_known)
_ON_OPEN: tuple[Rule, ...] = (*_BY_ROLE, c.donation_is_open)
_BY_A_REPORTER: tuple[Rule, ...] = (*_BY_AN_ACTOR, c.role_is_reporter)
_AMOUNT: tuple[Rule, ...] = (c.amounts_fit_their_currency, c.amounts_are_above_zero)
_TERMS: tuple[Rule, ...] = (
    c.amounts_are_stated,
    *_AMOUNT,
    c.currencies_are_distinct,
    p.parties_are_registered,
    p.donor_is_not_the_beneficiary,
    p.leg_ids_are_distinct,
    p.parent_legs_exist,
    p.legs_join_two_parties,
    p.legs_follow_their_parents,
    p.route_starts_at_the_donor,
    p.route_has_no_ring,
    p.route_ends_at_the_beneficiary,
    p.route_reaches_the_beneficiary_once,
)
_REPORTED_TERMS: tuple[Rule, ...] = (
    c.amounts_are_stated,
    c.amounts_fit_their_currency,
    c.currencies_are_distinct,
    p.parties_are_registered,
    p.leg_ids_are_distinct,
    p.parent_legs_exist,
)

RULES: dict[type[e.Event], tuple[Rule, ...]] = {
    e.PledgeAnnounced: (*_BY_AN_ACTOR, c.role_fits_the_event, c.donation_is_new, p.donor_acts, *_TERMS),
    e.PledgeConfirmed: (
        *_ON_OPEN,
        p.donor_acts,
        p.pledge_awaits_confirmation,
        p.pledge_has_not_run_out,
        p.confirmed_by_another,
        p.shaper_did_not_decide,
        p.agreement_is_referred_to,
    ),
    e.PledgeAmended: (
        *_ON_OPEN,
        p.donor_acts,
        p.pledge_has_not_ended,
        p.shaper_did_not_decide,
        *_TERMS,
        p.amounts_cover_what_moved,
        p.legs_with_money_stay,
        p.paid_beneficiary_stays,
    ),
    e.PledgeWithdrawn: (*_ON_OPEN, p.donor_acts, p.pledge_has_not_ended, p.nothing_is_in_flight, p.something_is_undisbursed),
    e.PledgeExpired: (*_ON_OPEN, p.pledge_has_not_ended, p.pledge_has_run_out, p.nothing_is_in_flight, p.something_is_undisbursed),
    e.ApprovalRequested: (
        *_ON_OPEN,
        a.payer_of_the_route_requests,
        a.approval_id_is_new,
        a.terms_are_current,
        a.approval_legs_are_on_the_route,
        a.donors_money_is_asked_for_in_time,
        a.mechanism_is_known,
        a.mechanism_is_in_force,
        c.amounts_are_stated,
        *_AMOUNT,
        c.currencies_are_distinct,
        a.number_of_approvals_is_the_mechanisms,
        a.amounts_are_within_what_is_unapproved,
    ),
    e.ApprovalQuestioned: (*_ON_OPEN, a.approval_is_known, a.mechanism_acts, a.approval_is_pending),
    e.ApprovalAnswered: (*_ON_OPEN, a.approval_is_known, a.requester_answers, a.approval_is_pending),
    e.ApprovalDecided: (
        *_ON_OPEN,
        a.approval_is_known,
        a.mechanism_acts,
        a.approval_is_pending,
        a.decider_is_not_the_requester,
        a.decider_did_not_shape_the_pledge,
        a.decider_is_new,
        a.approving_mechanism_is_in_force,
        *_AMOUNT,
        c.currencies_are_distinct,
        a.approved_amounts_are_within_the_request,
        a.approving_leaves_an_amount,
        a.approval_is_for_a_limited_time,
        a.earlier_approvals_are_still_valid,
        a.condition_ids_are_distinct,
        a.rejection_gives_its_reason_alone,
    ),
    e.ApprovalRevoked: (*_ON_OPEN, a.approval_is_known, a.mechanism_acts, a.approval_is_granted, a.revoked_by_another),
    e.ApprovalExpired: (*_ON_OPEN, a.approval_is_known, a.approval_is_granted, a.approval_has_run_out),
    e.ConditionMet: (
        *_ON_OPEN,
        a.approval_is_known,
        a.mechanism_acts,
        a.approval_is_granted,
        a.condition_is_known,
        a.condition_is_not_met_yet,
        a.decider_is_not_the_requester,
        a.decider_did_not_shape_the_pledge,
        a.condition_is_lifted_by_no_payer,
    ),
    e.ConditionBreached: (
        *_ON_OPEN,
        a.approval_is_known,
        a.mechanism_acts,
        a.approval_is_granted,
        a.condition_is_known,
        a.condition_is_not_breached_yet,
    ),
    e.DisbursementScheduled: (
        *_ON_OPEN,
        d.leg_is_on_the_route,
        d.payer_acts,
        p.pledge_has_not_ended,
        p.pledge_has_not_run_out,
        d.disbursement_id_is_new,
        *_AMOUNT,
        d.planned_amount_is_within_the_pledge,
    ),
    e.DisbursementInstructed: (
        *_ON_OPEN,
        d.leg_is_on_the_route,
        d.payer_acts,
        d.ended_pledge_pays_nothing_new,
        d.pledge_past_its_validity_pays_nothing_new,
        d.disbursement_is_not_yet_instructed,
        d.instruction_keeps_to_its_plan,
        d.end_to_end_id_is_new,
        *_AMOUNT,
        d.payment_names_its_approval,
        d.cover_is_granted,
        d.cover_is_still_valid,
        d.cover_has_its_conditions_met,
        d.cover_includes_the_leg,
        d.payer_did_not_request_the_cover,
        d.payer_did_not_decide_the_cover,
        d.amount_is_within_the_cover,
        d.amount_is_held,
    ),
    e.DisbursementReleased: (
        *_ON_OPEN,
        d.disbursement_is_known,
        d.payer_acts,
        d.disbursement_awaits_release,
        d.pledge_past_its_validity_pays_nothing_new,
        d.cover_is_granted,
        d.cover_is_still_valid,
        d.cover_has_its_conditions_met,
        d.payer_did_not_request_the_cover,
        d.payer_did_not_decide_the_cover,
        d.releaser_did_not_prepare,
    ),
    e.DisbursementSettled: (
        *_ON_OPEN,
        d.disbursement_is_known,
        d.bank_acts,
        d.disbursement_is_released,
        d.leg_is_the_instructions,
        *_AMOUNT,
        d.currency_is_the_payments,
        d.settled_is_within_the_instruction,
        d.bank_reference_is_stated,
    ),
    e.DisbursementRejected: (*_ON_OPEN, d.disbursement_is_known, d.disbursement_is_under_way, d.payer_cancels_and_bank_rejects),
    e.DisbursementReturned: (
        *_BY_ROLE,
        d.disbursement_is_known,
        d.bank_or_receiver_returns,
        *_AMOUNT,
        d.currency_is_the_payments,
        d.return_is_told_once,
        d.returns_are_within_the_settlement,
        d.returned_money_was_not_passed_on,
    ),
    e.FundsReceived: (
        *_ON_OPEN,
        d.disbursement_is_known,
        r.receiver_acts,
        c.amounts_fit_their_currency,
        r.something_arrived_or_went_in_fees,
        d.currency_is_the_payments,
        r.fees_are_in_the_payments_currency,
        r.receipt_is_told_once,
        r.received_is_within_the_settlement,
    ),
    e.ReceiptAcknowledged: (
        *_ON_OPEN,
        d.disbursement_is_known,
        r.beneficiary_acts,
        r.leg_ends_at_the_beneficiary,
        *_AMOUNT,
        d.currency_is_the_payments,
        r.acknowledged_is_within_what_was_received,
    ),
    e.ReceiptDisputed: (
        *_ON_OPEN,
        d.disbursement_is_known,
        r.receiver_acts,
        r.no_dispute_is_open,
        *_AMOUNT,
        r.difference_is_within_the_settlement,
    ),
    e.DisputeResolved: (*_ON_OPEN, d.disbursement_is_known, r.dispute_is_open, r.receiver_acts, r.resolved_by_another),
    e.UtilisationReported: (*_BY_ROLE, r.beneficiary_acts, *_AMOUNT, r.utilised_is_within_what_was_acknowledged),
    e.DonationClosed: (*_ON_OPEN, r.donor_or_payer_acts, p.nothing_is_in_flight, r.no_dispute_is_left),
    e.DonationReopened: (*_BY_ROLE, r.party_of_the_route_acts, r.donation_is_closed, r.reopened_by_another),
    e.SubmissionRefused: (c.only_the_ledger_refuses,),
}
"""What guards each event of a managed donation, and every event of a donation that does not exist."""

OBSERVED_RULES: dict[type[e.Event], tuple[Rule, ...]] = {
    **dict.fromkeys(RULES, (c.observed_takes_only_what_is_reported,)),
    e.PledgeAnnounced: (*_BY_A_REPORTER, c.donation_is_new, *_REPORTED_TERMS),
    e.PledgeConfirmed: (*_BY_A_REPORTER, p.pledge_awaits_confirmation),
    e.PledgeAmended: (*_BY_A_REPORTER, p.pledge_has_not_ended, *_REPORTED_TERMS),
    e.PledgeWithdrawn: (*_BY_A_REPORTER, p.pledge_has_not_ended),
    e.DisbursementSettled: (*_BY_A_REPORTER, d.leg_is_on_the_route, d.disbursement_id_is_new, c.amounts_fit_their_currency),
    e.DisbursementReturned: (
        *_BY_A_REPORTER,
        d.disbursement_is_known,
        c.amounts_fit_their_currency,
        d.currency_is_the_payments,
        d.returns_are_within_the_settlement,
    ),
    e.SubmissionRefused: (c.only_the_ledger_refuses,),
}
"""What guards each event of an observed donation."""


def check(donation: Donation | None, event: e.Event, registry: Registry, now: datetime, signature_verifies: bool = False) -> Refusal | None:
    """Whether `event` may follow: None if so, else why not. `now` is the append time, aware; `signature_verifies` is as in `Case`. Depends
    on nothing but its arguments."""
    oversight = donation.oversight if donation is not None else getattr(event, "oversight", e.Oversight.MANAGED)
    table = OBSERVED_RULES if oversight is e.Oversight.OBSERVED else RULES
    case = Case(donation, event, event.meta.actor, registry, now, signature_verifies)
    for rule in table[type(event)]:
        finding = rule(case)
        if finding is not None:
            return Refusal(rule.__name__, finding.expected, finding.found)
    return None


def policy(table: Mapping[type[e.Event], tuple[Rule, ...]] = RULES) -> list[tuple[str, list[tuple[str, str]]]]:
    """The table for people: each event type with its rules in order, each rule as (name, sentence)."""
    return [(kind.type, [(rule.__name__, " ".join((rule.__doc__ or "").split())) for rule in rules]) for kind, rules in table.items()]
