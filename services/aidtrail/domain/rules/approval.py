"""Rules about approvals: who asks, who decides, for how much and how long."""

from datetime import timedelta

from aidtrail.domain import events as e
from aidtrail.domain.balances import available, bound
from aidtrail.domain.donation import ENDED, ApprovalState, ConditionState
from aidtrail.domain.fold import granted_after
from aidtrail.domain.money import ZERO, format_money, total
from aidtrail.domain.rules.case import Case, Finding, OfApproval

# --- requesting ---------------------------------------------------------------------------------------------------------------------


def payer_of_the_route_requests(case: Case[e.ApprovalRequested]) -> Finding | None:
    """Approval is requested by the donor or by an intermediary on the route, never by the beneficiary."""
    pledge = case.donation.pledge
    on_the_route = {pledge.donor} | {party for leg in pledge.legs.values() for party in (leg.from_party, leg.to_party)}
    if case.actor.party_id in on_the_route - {pledge.beneficiary}:
        return None
    return Finding("an officer of the donor or of an intermediary", f"an officer of {case.actor.party_id}")


def approval_id_is_new(case: Case[e.ApprovalRequested]) -> Finding | None:
    """Each request for approval has an id of its own."""
    if case.event.approval_id not in case.donation.approvals:
        return None
    return Finding("an approval id that is not in use", f"approval {case.event.approval_id} exists")


def terms_are_current(case: Case[e.ApprovalRequested]) -> Finding | None:
    """Approval is requested for the terms in force, named by their hash."""
    if case.event.terms_sha256 == case.donation.pledge.terms_sha256:
        return None
    return Finding(f"the terms {case.donation.pledge.terms_sha256.hex()}", case.event.terms_sha256.hex())


def approval_legs_are_on_the_route(case: Case[e.ApprovalRequested]) -> Finding | None:
    """Approval is requested for one or more legs of the route."""
    for leg_id in case.event.legs:
        if leg_id not in case.donation.pledge.legs:
            return Finding("legs of the route", f"no leg {leg_id}")
    return None if case.event.legs else Finding("at least one leg", "none")


def mechanism_is_known(case: Case[e.ApprovalRequested]) -> Finding | None:
    """Approval is requested of a mechanism that the registry knows."""
    if case.event.mechanism_id in case.registry.mechanisms:
        return None
    return Finding("a defined mechanism", f"no mechanism {case.event.mechanism_id} in the registry")


def mechanism_is_in_force(case: Case[e.ApprovalRequested]) -> Finding | None:
    """Nothing new is put before a retired mechanism."""
    if not case.mechanism.retired:
        return None
    return Finding("a mechanism in force", f"mechanism {case.event.mechanism_id} is retired")


def donors_money_is_asked_for_in_time(case: Case[e.ApprovalRequested]) -> Finding | None:
    """What the donor pays is put before a mechanism while the pledge is in force and valid; what an intermediary holds, also later."""
    pledge = case.donation.pledge
    if all(pledge.legs[leg_id].parent_leg_id is not None for leg_id in case.event.legs):
        return None
    if pledge.state in ENDED:
        return Finding("a pledge in force", f"a pledge that is {pledge.state}")
    if pledge.valid_until is not None and case.now > pledge.valid_until:
        return Finding(f"at {case.now.isoformat()} a pledge that is valid", f"valid until {pledge.valid_until.isoformat()}")
    return None


def number_of_approvals_is_the_mechanisms(case: Case[e.ApprovalRequested]) -> Finding | None:
    """A request states the number of approvals that the mechanism asks for these amounts, together with those that it has approved or has
    before it of the same money: to ask in parts does not take fewer."""
    pledge, asked = case.donation.pledge, total(case.event.amounts)
    required = 0
    for purse in {pledge.legs[leg_id].parent_leg_id for leg_id in case.event.legs}:
        before = bound(case.donation, purse, case.event.mechanism_id)
        together = {currency: amount + before.get(currency, ZERO) for currency, amount in asked.items()}
        required = max(required, case.mechanism.approvals_required(together))
    if case.event.approvals_required == required:
        return None
    return Finding(f"{required} approvals", f"{case.event.approvals_required}")


def amounts_are_within_what_is_unapproved(case: Case[e.ApprovalRequested]) -> Finding | None:
    """Approval is requested for at most what is pledged and neither before a mechanism, nor approved, nor used under an ended approval: of
    the same money, so that what an intermediary holds can be approved again when an approval ends before it is passed on."""
    left = available(case.donation, case.event.legs)
    for money in case.event.amounts:
        if money.amount > left.get(money.currency, ZERO):
            return Finding(f"at most {format_money(left.get(money.currency, ZERO), money.currency)}", str(money))
    return None


# --- the approval in question -------------------------------------------------------------------------------------------------------


def approval_is_known(case: Case[OfApproval]) -> Finding | None:
    """An approval is spoken of after it is requested."""
    if case.event.approval_id in case.donation.approvals:
        return None
    return Finding("an approval that was requested", f"no approval {case.event.approval_id}")


def approval_is_pending(case: Case[OfApproval]) -> Finding | None:
    """Only a pending approval is questioned, answered and decided."""
    if case.approval.state is ApprovalState.PENDING:
        return None
    return Finding("a pending approval", f"approval {case.event.approval_id} is {case.approval.state}")


def approval_is_granted(case: Case[OfApproval]) -> Finding | None:
    """Only a granted approval is revoked, expires or has its conditions ruled on."""
    if case.approval.state is ApprovalState.GRANTED:
        return None
    return Finding("a granted approval", f"approval {case.event.approval_id} is {case.approval.state}")


def mechanism_acts(case: Case[OfApproval]) -> Finding | None:
    """Approvers act for the party that owns the mechanism."""
    owner = case.mechanism.party_id
    if case.actor.party_id == owner:
        return None
    return Finding(f"an approver of {owner}", f"an approver of {case.actor.party_id}")


def requester_answers(case: Case[e.ApprovalAnswered]) -> Finding | None:
    """A mechanism's question is answered by the party that made the request."""
    if case.actor.party_id == case.approval.requested_for:
        return None
    return Finding(f"an officer of {case.approval.requested_for}", f"an officer of {case.actor.party_id}")


# --- deciding -----------------------------------------------------------------------------------------------------------------------


def decider_is_not_the_requester(case: Case[e.ApprovalDecided | e.ConditionMet]) -> Finding | None:
    """Who requested an approval does not decide on it, nor that its conditions are met."""
    if case.actor.actor_id != case.approval.requested_by:
        return None
    return Finding("an approver other than the requester", f"{case.actor.actor_id}, who requested it")


def decider_did_not_shape_the_pledge(case: Case[e.ApprovalDecided | e.ConditionMet]) -> Finding | None:
    """Who announced, confirmed or amended the pledge does not decide on its approval, nor that its conditions are met."""
    pledge = case.donation.pledge
    if case.actor.actor_id not in {pledge.announced_by, pledge.confirmed_by, *pledge.amended_by}:
        return None
    return Finding("an approver who had no hand in the pledge", f"{case.actor.actor_id}, who announced, confirmed or amended it")


def decider_is_new(case: Case[e.ApprovalDecided]) -> Finding | None:
    """Nobody decides twice on the same request."""
    if case.actor.actor_id not in case.approval.deciders:
        return None
    return Finding("an approver who has not decided yet", f"{case.actor.actor_id}, who has")


def approving_mechanism_is_in_force(case: Case[e.ApprovalDecided]) -> Finding | None:
    """A retired mechanism approves nothing more; what lies before it may be rejected."""
    if case.event.decision is e.Decision.REJECT or not case.mechanism.retired:
        return None
    return Finding("a mechanism in force", f"mechanism {case.approval.mechanism_id} is retired")


def approved_amounts_are_within_the_request(case: Case[e.ApprovalDecided]) -> Finding | None:
    """An approver gives at most what was requested."""
    for money in case.event.amounts:
        requested = case.approval.requested.get(money.currency, ZERO)
        if money.amount > requested:
            return Finding(f"at most {format_money(requested, money.currency)}", str(money))
    return None


def approving_leaves_an_amount(case: Case[e.ApprovalDecided]) -> Finding | None:
    """An approval states amounts, and leaves something that all approvers so far gave."""
    if case.event.decision is e.Decision.REJECT or granted_after(case.approval, case.event):
        return None
    return Finding("an amount that every approver gave", "none")


def approval_is_for_a_limited_time(case: Case[e.ApprovalDecided]) -> Finding | None:
    """An approver says until when his word is valid: after now, and no longer than the mechanism allows."""
    if case.event.decision is e.Decision.REJECT:
        return None
    until, latest = case.event.valid_until, case.now + timedelta(days=case.mechanism.validity_days)
    if until is not None and case.now < until <= latest:
        return None
    return Finding(
        f"valid until after {case.now.isoformat()} and by {latest.isoformat()}",
        "no validity" if until is None else until.isoformat(),
    )


def earlier_approvals_are_still_valid(case: Case[e.ApprovalDecided]) -> Finding | None:
    """An approval is added to those before it while their word is valid: a grant would have run out when it is made. It may be rejected."""
    valid_until = case.approval.valid_until
    if case.event.decision is e.Decision.REJECT or valid_until is None or case.now < valid_until:
        return None
    return Finding(f"at {case.now.isoformat()} earlier approvals that are valid", f"one that was valid until {valid_until.isoformat()}")


def condition_ids_are_distinct(case: Case[e.ApprovalDecided]) -> Finding | None:
    """Each condition of an approval has an id of its own."""
    seen = set(case.approval.conditions)
    for condition in case.event.conditions:
        if condition.condition_id in seen:
            return Finding("each condition id once", f"condition {condition.condition_id} twice")
        seen.add(condition.condition_id)
    return None


def rejection_gives_its_reason_alone(case: Case[e.ApprovalDecided]) -> Finding | None:
    """A rejection gives a reason, and neither amounts nor conditions nor a validity."""
    event = case.event
    if event.decision is e.Decision.APPROVE:
        return None
    if event.reason is None:
        return Finding("a reason", "none")
    if event.amounts or event.conditions or event.valid_until is not None:
        return Finding("a reason alone", "amounts, conditions or a validity beside it")
    return None


# --- after the grant ----------------------------------------------------------------------------------------------------------------


def revoked_by_another(case: Case[e.ApprovalRevoked]) -> Finding | None:
    """An approval is revoked by another approver than those who gave it."""
    if case.actor.actor_id not in case.approval.deciders:
        return None
    return Finding("an approver who did not decide on it", f"{case.actor.actor_id}, who did")


def approval_has_run_out(case: Case[e.ApprovalExpired]) -> Finding | None:
    """An approval expires once its validity is past."""
    valid_until = case.approval.valid_until
    if valid_until is not None and case.now > valid_until:
        return None
    found = "without end" if valid_until is None else f"until {valid_until.isoformat()}"
    return Finding(f"a validity that is past at {case.now.isoformat()}", f"valid {found}")


def condition_is_known(case: Case[e.ConditionMet | e.ConditionBreached]) -> Finding | None:
    """Only a condition that an approver set is ruled on."""
    if case.event.condition_id in case.approval.conditions:
        return None
    return Finding(f"a condition of approval {case.event.approval_id}", f"no condition {case.event.condition_id}")


def condition_is_not_met_yet(case: Case[e.ConditionMet]) -> Finding | None:
    """A condition that is met is not met again, unless it was breached since."""
    if case.approval.conditions[case.event.condition_id] is not ConditionState.MET:
        return None
    return Finding("an open or breached condition", f"condition {case.event.condition_id} is met")


def condition_is_lifted_by_no_payer(case: Case[e.ConditionMet]) -> Finding | None:
    """Who prepared or released a payment under an approval does not declare its conditions met."""
    actor_id = case.actor.actor_id
    for paid in case.donation.disbursements.values():
        if paid.approval_id == case.event.approval_id and actor_id in (paid.prepared_by, paid.released_by):
            return Finding("an approver who paid nothing under it", f"{actor_id}, who prepared or released {paid.disbursement_id}")
    return None


def condition_is_not_breached_yet(case: Case[e.ConditionBreached]) -> Finding | None:
    """A condition that is breached is not breached again, unless it was met since."""
    if case.approval.conditions[case.event.condition_id] is not ConditionState.BREACHED:
        return None
    return Finding("an open or met condition", f"condition {case.event.condition_id} is breached")
