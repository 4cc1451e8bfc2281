"""How far a donation has come, what may lawfully follow, and for each rule what breaks it and no other."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from aidtrail.domain import events as e
from aidtrail.domain import rules
from aidtrail.domain.donation import ApprovalState, ConditionState, DisbursementState, Donation, PledgeState
from aidtrail.domain.fold import apply
from aidtrail.domain.money import Money
from aidtrail.domain.registry import Registry
from aidtrail.domain.rules import OBSERVED_RULES, RULES, check
from tests.acts import ACTORS, ROUTE, START, Acts, money, registry

REGISTRY = registry()


@dataclass(frozen=True)
class Situation:
    """A donation, or none, and an event that wants to follow."""

    donation: Donation | None
    event: Any
    now: datetime
    registry: Registry = REGISTRY

    def check(self) -> rules.Refusal | None:
        return check(self.donation, self.event, self.registry, self.now)


def story(*events: e.Event, now: datetime | None = None) -> Situation:
    """The last event after all others, each of which is lawful."""
    donation: Donation | None = None
    for event in events[:-1]:
        refusal = check(donation, event, REGISTRY, event.meta.occurred_on)
        assert refusal is None, f"{event.type}: {refusal}"
        donation = apply(donation, event)
    return Situation(donation, events[-1], now or events[-1].meta.occurred_on)


# --- how far a donation has come: the events up to there ----------------------------------------------------------------------------

CONDITION = e.Condition(condition_id="C1", text="the hospital reports how it is used")


def requested(a: Acts) -> list[e.Event]:
    return [a.announced(), a.requested()]


def granted(a: Acts) -> list[e.Event]:
    return [a.announced(), a.confirmed(), *a.approval()]


def conditional(a: Acts) -> list[e.Event]:
    return [*requested(a), a.approved(conditions=(CONDITION,)), a.approved(by="mef-approver-2")]


def instructed(a: Acts) -> list[e.Event]:
    return [*granted(a), a.instructed()]


def paid(a: Acts) -> list[e.Event]:
    return [*granted(a), *a.payment("D1", "400")]


def received(a: Acts) -> list[e.Event]:
    return [*paid(a), a.received()]


def passed_on(a: Acts) -> list[e.Event]:
    return [*received(a), *a.payment("D2", "400", "crc")]


def arrived(a: Acts) -> list[e.Event]:
    return [*passed_on(a), a.received("D2", "400", by="kbh-officer")]


def acknowledged(a: Acts) -> list[e.Event]:
    return [*arrived(a), a.acknowledged()]


def reported(a: Acts) -> list[e.Event]:
    return [a.observed(), a.reported()]


def refused(a: Acts) -> e.Event:
    event: e.Event = a.event(
        e.SubmissionRefused,
        "krcs-officer",
        refused_event_id=None,
        refused_event_type=None,
        reason="undecodable",
        expected="a record",
        found="nothing",
        submission_sha256=bytes(32),
    )
    return event


LAWFUL: dict[type[e.Event], Callable[[Acts], Situation]] = {
    e.PledgeAnnounced: lambda a: story(a.announced()),
    e.PledgeConfirmed: lambda a: story(a.announced(), a.confirmed()),
    e.PledgeAmended: lambda a: story(a.announced(), a.amended(amounts=(money("1200"),))),
    e.PledgeWithdrawn: lambda a: story(a.announced(), a.withdrawn()),
    e.PledgeExpired: lambda a: story(a.announced(), a.expired(), now=a.later(351)),
    e.ApprovalRequested: lambda a: story(a.announced(), a.requested()),
    e.ApprovalQuestioned: lambda a: story(*requested(a), a.questioned()),
    e.ApprovalAnswered: lambda a: story(*requested(a), a.answered()),
    e.ApprovalDecided: lambda a: story(*requested(a), a.approved()),
    e.ApprovalRevoked: lambda a: story(*granted(a), a.revoked()),
    e.ApprovalExpired: lambda a: story(*granted(a), a.approval_expired(), now=a.later(301)),
    e.ConditionMet: lambda a: story(*conditional(a), a.met()),
    e.ConditionBreached: lambda a: story(*conditional(a), a.breached()),
    e.DisbursementScheduled: lambda a: story(a.announced(), a.scheduled()),
    e.DisbursementInstructed: lambda a: story(*granted(a), a.instructed()),
    e.DisbursementReleased: lambda a: story(*instructed(a), a.released()),
    e.DisbursementSettled: lambda a: story(*instructed(a), a.released(), a.settled()),
    e.DisbursementRejected: lambda a: story(*instructed(a), a.bank_rejected(by="krcs-preparer")),
    e.DisbursementReturned: lambda a: story(*received(a), a.returned(by="crc-officer")),
    e.FundsReceived: lambda a: story(*paid(a), a.received()),
    e.ReceiptAcknowledged: lambda a: story(*arrived(a), a.acknowledged()),
    e.ReceiptDisputed: lambda a: story(*paid(a), a.disputed()),
    e.DisputeResolved: lambda a: story(*paid(a), a.disputed(), a.resolved()),
    e.UtilisationReported: lambda a: story(*acknowledged(a), a.utilised()),
    e.DonationClosed: lambda a: story(*acknowledged(a), a.closed()),
    e.DonationReopened: lambda a: story(*acknowledged(a), a.closed(), a.reopened()),
    e.SubmissionRefused: lambda a: story(a.announced(), refused(a)),
}
"""For each event type of a managed donation a situation in which it is admitted (but for SubmissionRefused, which never is)."""


def _of_an_observed_donation(lawful: Callable[[Acts], Situation]) -> Callable[[Acts], Situation]:
    return lambda a: replace(lawful(a), donation=apply(None, a.observed()))


OBSERVED: dict[type[e.Event], Callable[[Acts], Situation]] = {
    **{kind: _of_an_observed_donation(lawful) for kind, lawful in LAWFUL.items()},
    e.PledgeAnnounced: lambda a: story(a.observed()),
    e.PledgeConfirmed: lambda a: story(a.observed(), a.confirmed(by="fts-import", agreement_reference=None)),
    e.PledgeAmended: lambda a: story(a.observed(), a.amended(by="fts-import", amounts=(money("0"),))),
    e.PledgeWithdrawn: lambda a: story(a.observed(), a.withdrawn(by="fts-import")),
    e.DisbursementSettled: lambda a: story(*reported(a)),
    e.DisbursementReturned: lambda a: story(*reported(a), a.returned("P1", by="fts-import")),
}
"""The same for an observed donation; for the types that it does not take, what a managed one would take."""


# --- how each rule is broken, and no other ------------------------------------------------------------------------------------------

Break = Callable[[Acts, Situation], Situation]


def event_with(**changes: Any) -> Break:
    return lambda a, s: replace(s, event=s.event.model_copy(update=changes))


def by(actor_id: str, role: str | None = None) -> Break:
    actor = e.Actor(actor_id=actor_id, party_id=ACTORS[actor_id][0], role=role or ACTORS[actor_id][1])
    return lambda a, s: replace(s, event=_with_meta(s.event, actor=actor))


def _with_meta(event: e.Event, **changes: Any) -> e.Event:
    return event.model_copy(update={"meta": event.meta.model_copy(update=changes)})


def after_days(days: float) -> Break:
    return lambda a, s: replace(s, now=a.later(days))


def instead(told: Callable[[Acts], list[e.Event]], now: float | None = None) -> Break:
    """Another story altogether."""
    return lambda a, s: story(*told(a), now=None if now is None else a.later(now))


def donation_with(**changes: Any) -> Break:
    return lambda a, s: replace(s, donation=s.donation and s.donation._replace(**changes))


def pledge_with(**changes: Any) -> Break:
    return lambda a, s: replace(s, donation=s.donation and s.donation._replace(pledge=s.donation.pledge._replace(**changes)))


def approval_with(**changes: Any) -> Break:
    def broken(a: Acts, s: Situation) -> Situation:
        assert s.donation is not None
        return replace(s, donation=s.donation._replace(approvals={"A1": s.donation.approvals["A1"]._replace(**changes)}))

    return broken


def disbursement_with(**changes: Any) -> Break:
    def broken(a: Acts, s: Situation) -> Situation:
        assert s.donation is not None
        others = s.donation.disbursements
        return replace(s, donation=s.donation._replace(disbursements={**others, "D1": others["D1"]._replace(**changes)}))  # type: ignore[operator]

    return broken


def enrolment_with(**changes: Any) -> Break:
    """The registry otherwise about the actor of the event."""

    def broken(a: Acts, s: Situation) -> Situation:
        enrolled = s.registry.actors[s.event.meta.actor.actor_id]
        actors = {**s.registry.actors, enrolled.actor_id: replace(enrolled, **changes)}
        return replace(s, registry=replace(s.registry, actors=actors))

    return broken


def without(table: str, key: Callable[[Situation], str]) -> Break:
    def broken(a: Acts, s: Situation) -> Situation:
        left = {name: value for name, value in getattr(s.registry, table).items() if name != key(s)}
        tables: dict[str, Any] = {table: left}
        return replace(s, registry=replace(s.registry, **tables))

    return broken


def retired_mechanism(a: Acts, s: Situation) -> Situation:
    mechanisms = {name: replace(mechanism, retired=True) for name, mechanism in s.registry.mechanisms.items()}
    return replace(s, registry=replace(s.registry, mechanisms=mechanisms))


def money_with(change: Callable[[Money], Money], more: tuple[Money, ...] = ()) -> Break:
    """The first amount changed where there is one, amounts added where there are several."""

    def broken(a: Acts, s: Situation) -> Situation:
        for name in ("amount", "difference"):
            if (stated := getattr(s.event, name, None)) is not None:
                return replace(s, event=s.event.model_copy(update={name: change(stated)}))
        first, *others = s.event.amounts
        amounts = (*others, first, *more) if more else (change(first), *others)
        return replace(s, event=s.event.model_copy(update={"amounts": amounts}))

    return broken


def stamped(a: Acts, s: Situation) -> Situation:
    stamp = e.LedgerStamp(
        version=1,
        submitted_offset=0,
        previous_outcome_sha256=bytes(32),
        recorded_at=START,
        previous_sha256=bytes(32),
        registry_offset=0,
        rules=1,
    )
    return replace(s, event=_with_meta(s.event, ledger=stamp))


def signed_by_somebody(a: Acts, s: Situation) -> Situation:
    return replace(s, event=_with_meta(s.event, signature=bytes(64)))


def signatures_required(a: Acts, s: Situation) -> Situation:
    parties = {name: replace(party, signatures_required=True) for name, party in s.registry.parties.items()}
    return replace(s, registry=replace(s.registry, parties=parties))


def as_auditor(a: Acts, s: Situation) -> Situation:
    actor = s.event.meta.actor
    s = enrolment_with(roles=frozenset({actor.role, "auditor"}))(a, s)
    return replace(s, event=_with_meta(s.event, actor=actor.model_copy(update={"role": "auditor"})))


def route_with(*legs: e.Leg) -> Break:
    return event_with(route=(*ROUTE, *legs))


def leg(leg_id: str, parent: str | None, start: str, end: str) -> e.Leg:
    return e.Leg(leg_id=leg_id, parent_leg_id=parent, from_party=start, to_party=end)


def unchanged(a: Acts, s: Situation) -> Situation:
    return s


def own_board(by_whom: str, announcer: str = "krcs-officer") -> Break:
    """An approval of the donor's own board, decided by somebody with many roles."""
    return instead(
        lambda a: [
            a.announced(by=announcer),
            a.requested(by=by_whom, mechanism_id="KRCS-BOARD", approvals_required=1),
            a.approved(by="krcs-allrounder", role="approver"),
        ]
    )


def own_conditions(*told: Callable[[Acts], e.Event], requester: str = "krcs-officer", announcer: str = "krcs-officer") -> Break:
    """An approval of the donor's own board under a condition, what is told then, and that somebody with many roles declares it met."""

    def story_of(a: Acts) -> list[e.Event]:
        begun = [
            a.announced(by=announcer),
            a.requested(by=requester, mechanism_id="KRCS-BOARD", approvals_required=1),
            a.approved(by="krcs-approver", conditions=(CONDITION,)),
        ]
        return [*begun, *(tell(a) for tell in told), a.met(by="krcs-allrounder", role="approver")]

    return instead(story_of)


def decided_by_an_officer(then: Callable[[Acts], e.Event]) -> Break:
    """An approval of the donor's own board by somebody with many roles, and what he does then as an officer."""
    return instead(
        lambda a: [
            a.announced(),
            a.requested(mechanism_id="KRCS-BOARD", approvals_required=1),
            a.approved(by="krcs-allrounder", role="approver"),
            then(a),
        ]
    )


def officer_of_the_ministry(a: Acts, s: Situation) -> Situation:
    return enrolment_with(roles=frozenset({"officer"}))(a, by("mef-approver", "officer")(a, s))


BROKEN: dict[str, Break | dict[type[e.Event], Break]] = {
    # the submission and its actor
    "submission_is_not_stamped": stamped,
    "actor_is_enrolled": without("actors", lambda s: s.event.meta.actor.actor_id),
    "actor_is_not_retired": enrolment_with(retired=True),
    "actor_acts_for_own_party": enrolment_with(party_id="ELSEWHERE"),
    "actor_holds_the_role": enrolment_with(roles=frozenset({"auditor"})),
    "signature_is_the_actors": signed_by_somebody,
    "submission_is_signed_where_required": signatures_required,
    "event_has_occurred": lambda a, s: replace(s, event=_with_meta(s.event, occurred_on=s.now + timedelta(days=1, microseconds=1))),
    "role_fits_the_event": as_auditor,
    "role_is_reporter": as_auditor,
    # the donation
    "donation_is_new": lambda a, s: replace(s, donation=apply(None, s.event)),
    "donation_is_known": lambda a, s: replace(s, donation=None),
    "donation_is_open": donation_with(closed_by="krcs-officer-3"),
    "only_the_ledger_refuses": unchanged,
    "observed_takes_only_what_is_reported": unchanged,
    # amounts
    "amounts_fit_their_currency": money_with(lambda m: money("0.0001", m.currency)),
    "amounts_are_above_zero": money_with(lambda m: money("0", m.currency), more=(money("0", "USD"),)),
    "amounts_are_stated": event_with(amounts=()),
    "currencies_are_distinct": event_with(amounts=(money("1"), money("2"))),
    # terms and route
    "donor_acts": by("crc-officer"),
    "parties_are_registered": without("parties", lambda s: "KBH"),
    "donor_is_not_the_beneficiary": event_with(beneficiary="KRCS", route=(*ROUTE, leg("BACK", "KRCS-CRC", "CRC", "KRCS"))),
    "leg_ids_are_distinct": route_with(ROUTE[1]),
    "parent_legs_exist": route_with(leg("L3", "NOWHERE", "CRC", "KBH")),
    "legs_join_two_parties": route_with(leg("L3", "KRCS-CRC", "CRC", "CRC")),
    "legs_follow_their_parents": route_with(leg("L3", "KRCS-CRC", "KBH", "MEF")),
    "route_starts_at_the_donor": route_with(leg("L3", None, "CRC", "KBH")),
    "route_has_no_ring": route_with(leg("L3", "L4", "CRC", "MEF"), leg("L4", "L3", "MEF", "CRC")),
    "route_ends_at_the_beneficiary": event_with(beneficiary="MEF"),
    "route_reaches_the_beneficiary_once": route_with(leg("L3", "CRC-KBH", "KBH", "CRC"), leg("L4", "L3", "CRC", "KBH")),
    # pledge
    "pledge_awaits_confirmation": pledge_with(state=PledgeState.COMMITTED),
    "pledge_has_not_run_out": after_days(351),
    "confirmed_by_another": by("krcs-officer"),
    "shaper_did_not_decide": {
        e.PledgeConfirmed: decided_by_an_officer(lambda a: a.confirmed(by="krcs-allrounder")),
        e.PledgeAmended: decided_by_an_officer(lambda a: a.amended(by="krcs-allrounder")),
    },
    "agreement_is_referred_to": event_with(agreement_reference=None),
    "pledge_has_not_ended": pledge_with(state=PledgeState.WITHDRAWN),
    "amounts_cover_what_moved": instead(lambda a: [*paid(a), a.amended(amounts=(money("399.999"),))]),
    "legs_with_money_stay": instead(lambda a: [*paid(a), a.amended(route=(leg("DIRECT", None, "KRCS", "KBH"),))]),
    "paid_beneficiary_stays": instead(
        lambda a: [*passed_on(a), a.amended(beneficiary="MEF", route=(*ROUTE, leg("CRC-MEF", "KRCS-CRC", "CRC", "MEF")))]
    ),
    "pledge_has_run_out": after_days(350),
    "nothing_is_in_flight": {
        e.PledgeWithdrawn: instead(lambda a: [*instructed(a), a.withdrawn()]),
        e.PledgeExpired: instead(lambda a: [*instructed(a), a.expired()], now=351),
        e.DonationClosed: instead(lambda a: [*instructed(a), a.closed()]),
    },
    "something_is_undisbursed": {
        e.PledgeWithdrawn: instead(lambda a: [*granted(a), *a.payment("D1", "1000"), a.withdrawn()]),
        e.PledgeExpired: instead(lambda a: [*granted(a), *a.payment("D1", "1000"), a.expired()], now=351),
    },
    # approval
    "payer_of_the_route_requests": by("kbh-officer"),
    "approval_id_is_new": instead(lambda a: [a.announced(), a.requested("A1", "400"), a.requested("A1", "400")]),
    "terms_are_current": event_with(terms_sha256=bytes(32)),
    "approval_legs_are_on_the_route": event_with(legs=("KRCS-CRC", "NOWHERE")),
    "donors_money_is_asked_for_in_time": pledge_with(state=PledgeState.WITHDRAWN),
    "mechanism_is_known": event_with(mechanism_id="NOBODYS"),
    "mechanism_is_in_force": event_with(mechanism_id="MEF-OLD", approvals_required=1),
    "number_of_approvals_is_the_mechanisms": event_with(approvals_required=1),
    "amounts_are_within_what_is_unapproved": event_with(amounts=(money("1000.001"),)),
    "approval_is_known": event_with(approval_id="A9"),
    "approval_is_pending": approval_with(state=ApprovalState.SUPERSEDED),
    "approval_is_granted": approval_with(state=ApprovalState.REVOKED),
    "mechanism_acts": by("krcs-approver"),
    "requester_answers": by("crc-officer"),
    "decider_is_not_the_requester": {
        e.ApprovalDecided: own_board("krcs-allrounder"),
        e.ConditionMet: own_conditions(requester="krcs-allrounder"),
    },
    "decider_did_not_shape_the_pledge": {
        e.ApprovalDecided: own_board("krcs-officer", announcer="krcs-allrounder"),
        e.ConditionMet: own_conditions(announcer="krcs-allrounder"),
    },
    "condition_is_lifted_by_no_payer": own_conditions(
        lambda a: a.met(by="krcs-approver"),
        lambda a: a.instructed(by="krcs-allrounder", role="preparer"),
        lambda a: a.breached(by="krcs-approver"),
    ),
    "decider_is_new": instead(lambda a: [*requested(a), a.approved(), a.approved()]),
    "approving_mechanism_is_in_force": retired_mechanism,
    "approved_amounts_are_within_the_request": event_with(amounts=(money("1000.001"),)),
    "approving_leaves_an_amount": event_with(amounts=()),
    "approval_is_for_a_limited_time": event_with(valid_until=None),
    "earlier_approvals_are_still_valid": approval_with(valid_until=START),
    "condition_ids_are_distinct": event_with(conditions=(CONDITION, CONDITION)),
    "rejection_gives_its_reason_alone": instead(lambda a: [*requested(a), a.rejected(reason=None)]),
    "revoked_by_another": by("mef-approver-2"),
    "approval_has_run_out": after_days(300),
    "condition_is_known": event_with(condition_id="C9"),
    "condition_is_not_met_yet": approval_with(conditions={"C1": ConditionState.MET}),
    "condition_is_not_breached_yet": approval_with(conditions={"C1": ConditionState.BREACHED}),
    # disbursement
    "leg_is_on_the_route": event_with(leg_id="NOWHERE"),
    "payer_acts": {
        e.DisbursementScheduled: by("crc-preparer"),
        e.DisbursementInstructed: by("crc-preparer"),
        e.DisbursementReleased: by("crc-releaser"),
    },
    "bank_acts": by("crc-bank"),
    "payer_cancels_and_bank_rejects": by("bank-adapter"),
    "bank_or_receiver_returns": by("kbh-officer"),
    "disbursement_id_is_new": {
        e.DisbursementScheduled: instead(lambda a: [a.announced(), a.scheduled(), a.scheduled()]),
        e.DisbursementSettled: instead(lambda a: [*reported(a), a.reported()]),
    },
    "planned_amount_is_within_the_pledge": event_with(amount=money("1000.001")),
    "ended_pledge_pays_nothing_new": pledge_with(state=PledgeState.EXPIRED),
    "pledge_past_its_validity_pays_nothing_new": pledge_with(valid_until=START),
    "disbursement_is_not_yet_instructed": instead(lambda a: [*instructed(a), a.instructed(end_to_end_id="E2E-OTHER")]),
    "instruction_keeps_to_its_plan": instead(lambda a: [*granted(a), a.scheduled("D1", "399.999"), a.instructed()]),
    "end_to_end_id_is_new": instead(lambda a: [*instructed(a), a.instructed("D2", end_to_end_id="E2E-D1")]),
    "payment_names_its_approval": event_with(approval_id=None),
    "cover_is_granted": approval_with(state=ApprovalState.REVOKED),
    "cover_is_still_valid": after_days(300.001),
    "cover_has_its_conditions_met": approval_with(conditions={"C1": ConditionState.OPEN}),
    "cover_includes_the_leg": approval_with(legs=("CRC-KBH",)),
    "amount_is_within_the_cover": instead(lambda a: [*paid(a), a.instructed("D2", "600.001")]),
    "amount_is_held": instead(lambda a: [*received(a), a.instructed("D2", "400.001", by="crc-preparer", leg_id="CRC-KBH")]),
    "payer_did_not_request_the_cover": lambda a, s: approval_with(requested_by=s.event.meta.actor.actor_id)(a, s),
    "payer_did_not_decide_the_cover": lambda a, s: approval_with(deciders=(s.event.meta.actor.actor_id, "mef-approver"))(a, s),
    "releaser_did_not_prepare": disbursement_with(prepared_by="krcs-releaser"),
    "disbursement_is_known": event_with(disbursement_id="D9"),
    "disbursement_awaits_release": disbursement_with(state=DisbursementState.RELEASED),
    "disbursement_is_released": disbursement_with(state=DisbursementState.INSTRUCTED),
    "disbursement_is_under_way": instead(lambda a: [*paid(a), a.bank_rejected()]),
    "currency_is_the_payments": money_with(lambda m: money("1", "USD")),
    "leg_is_the_instructions": event_with(leg_id="KRCS-CRC"),
    "bank_reference_is_stated": event_with(bank_reference=None),
    "settled_is_within_the_instruction": event_with(amount=money("400.001")),
    "returns_are_within_the_settlement": event_with(amount=money("400.001")),
    "return_is_told_once": instead(lambda a: [*received(a), a.returned(return_reference="R1"), a.returned(by="crc-officer")]),
    "returned_money_was_not_passed_on": instead(lambda a: [*passed_on(a), a.returned(amount="0.001", by="crc-officer")]),
    # receipt
    "receiver_acts": by("kbh-officer"),
    "something_arrived_or_went_in_fees": event_with(amount=money("0")),
    "fees_are_in_the_payments_currency": event_with(amount=money("1"), fees=money("1", "USD")),
    "receipt_is_told_once": instead(lambda a: [*paid(a), a.received("D1", "100", receipt_reference="R1"), a.received("D1", "100")]),
    "received_is_within_the_settlement": event_with(fees=money("0.001")),
    "beneficiary_acts": by("crc-officer"),
    "leg_ends_at_the_beneficiary": event_with(disbursement_id="D1"),
    "acknowledged_is_within_what_was_received": event_with(amount=money("400.001")),
    "no_dispute_is_open": disbursement_with(disputed_by="crc-officer-2"),
    "difference_is_within_the_settlement": event_with(difference=money("400.001")),
    "dispute_is_open": disbursement_with(disputed_by=None),
    "resolved_by_another": by("crc-officer"),
    "utilised_is_within_what_was_acknowledged": event_with(amount=money("400.001")),
    "donor_or_payer_acts": by("kbh-officer"),
    "party_of_the_route_acts": officer_of_the_ministry,
    "no_dispute_is_left": disbursement_with(disputed_by="crc-officer"),
    "donation_is_closed": donation_with(closed_by=None),
    "reopened_by_another": by("krcs-officer"),
}
"""By rule, what to change in a lawful situation so that this rule objects and no other; by event type where that differs."""

LOOKED_UP = {
    "actor_is_enrolled",
    "donation_is_known",
    "approval_is_known",
    "approval_legs_are_on_the_route",
    "mechanism_is_known",
    "condition_is_known",
    "disbursement_is_known",
    "leg_is_on_the_route",
    "payment_names_its_approval",
}
"""Rules that say that something is there. Without them the rules below look for it in vain: KeyError, and so no refusal."""

TABLES = {"managed": (RULES, LAWFUL), "observed": (OBSERVED_RULES, OBSERVED)}
GUARDS = [(name, kind, rule) for name, (table, _) in TABLES.items() for kind, guards in table.items() for rule in guards]


def broken(oversight: str, kind: type[e.Event], rule: rules.Rule) -> Situation:
    acts = Acts()
    how = BROKEN[rule.__name__]
    change = how[kind] if isinstance(how, dict) else how
    return change(acts, TABLES[oversight][1][kind](acts))
