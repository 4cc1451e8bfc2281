"""Rules about payments: under which approval, by whom, how much, in which order."""

from aidtrail.domain import events as e
from aidtrail.domain.balances import consumed_of_approval, held
from aidtrail.domain.donation import ENDED, ApprovalState, DisbursementState
from aidtrail.domain.money import ZERO, format_money
from aidtrail.domain.rules.case import Case, Finding, OfDisbursement
from aidtrail.domain.rules.common import BANK

Ordered = e.DisbursementScheduled | e.DisbursementInstructed
Covered = e.DisbursementInstructed | e.DisbursementReleased
WithAmount = (
    e.DisbursementScheduled
    | e.DisbursementInstructed
    | e.DisbursementSettled
    | e.DisbursementReturned
    | e.FundsReceived
    | e.ReceiptAcknowledged
)

# --- who acts -----------------------------------------------------------------------------------------------------------------------


def payer_acts(case: Case[OfDisbursement]) -> Finding | None:
    """Money is planned, instructed and released by the party that a leg starts at."""
    if case.actor.party_id == case.leg.from_party:
        return None
    return Finding(f"a {case.actor.role} of the payer {case.leg.from_party}", f"one of {case.actor.party_id}")


def bank_acts(case: Case[OfDisbursement]) -> Finding | None:
    """What a bank did is told by the payer's bank adapter or by a party that is registered as a bank."""
    if _is_bank_of_the_payer(case):
        return None
    return Finding(f"the bank adapter of {case.leg.from_party} or of a bank", f"one of {case.actor.party_id}")


def payer_cancels_and_bank_rejects(case: Case[e.DisbursementRejected]) -> Finding | None:
    """Until its release a payment is cancelled by the payer, after it rejected by the bank."""
    state = case.disbursement.state
    if state is DisbursementState.INSTRUCTED:
        if case.actor.role != BANK and case.actor.party_id == case.leg.from_party:
            return None
        return Finding(f"a preparer or releaser of {case.leg.from_party}", f"a {case.actor.role} of {case.actor.party_id}")
    if case.actor.role == BANK and _is_bank_of_the_payer(case):
        return None
    return Finding(f"the bank adapter of {case.leg.from_party} or of a bank", f"a {case.actor.role} of {case.actor.party_id}")


def bank_or_receiver_returns(case: Case[e.DisbursementReturned]) -> Finding | None:
    """Money that comes back is told by the bank or by who had received it."""
    if _is_bank_of_the_payer(case) if case.actor.role == BANK else case.actor.party_id == case.leg.to_party:
        return None
    return Finding(f"a bank adapter, or an officer of {case.leg.to_party}", f"a {case.actor.role} of {case.actor.party_id}")


def _is_bank_of_the_payer(case: Case[OfDisbursement]) -> bool:
    party_id = case.actor.party_id
    return party_id == case.leg.from_party or case.registry.parties[party_id].kind == BANK


# --- planning and instructing -------------------------------------------------------------------------------------------------------


def leg_is_on_the_route(case: Case[Ordered | e.DisbursementSettled]) -> Finding | None:
    """A payment is made on a leg of the route."""
    if case.event.leg_id in case.donation.pledge.legs:
        return None
    return Finding("a leg of the route", f"no leg {case.event.leg_id}")


def disbursement_id_is_new(case: Case[OfDisbursement]) -> Finding | None:
    """Each payment has an id of its own."""
    if case.event.disbursement_id not in case.donation.disbursements:
        return None
    return Finding("a disbursement id that is not in use", f"disbursement {case.event.disbursement_id} exists")


def planned_amount_is_within_the_pledge(case: Case[e.DisbursementScheduled]) -> Finding | None:
    """No more is planned in one payment than is pledged."""
    money = case.event.amount
    pledged = case.donation.pledge.amounts.get(money.currency, ZERO)
    if money.amount <= pledged:
        return None
    return Finding(f"at most {format_money(pledged, money.currency)}", str(money))


def disbursement_is_not_yet_instructed(case: Case[e.DisbursementInstructed]) -> Finding | None:
    """A payment is instructed once: its id is new, or that of a plan."""
    plan = case.donation.disbursements.get(case.event.disbursement_id)
    if plan is None or plan.state is DisbursementState.SCHEDULED:
        return None
    return Finding("a disbursement that is new or scheduled", f"disbursement {case.event.disbursement_id} is {plan.state}")


def instruction_keeps_to_its_plan(case: Case[e.DisbursementInstructed]) -> Finding | None:
    """A planned payment is instructed on the leg, in the currency and up to the amount of the plan."""
    event = case.event
    plan = case.donation.disbursements.get(event.disbursement_id)
    if plan is None or plan.planned is None:
        return None
    if plan.leg.leg_id == event.leg_id and plan.currency == event.amount.currency and event.amount.amount <= plan.planned:
        return None
    return Finding(f"at most {format_money(plan.planned, plan.currency)} on leg {plan.leg.leg_id}", f"{event.amount} on leg {event.leg_id}")


def end_to_end_id_is_new(case: Case[e.DisbursementInstructed]) -> Finding | None:
    """Each instruction has an end-to-end id of its own, so that a bank statement names one payment."""
    for paid in case.donation.disbursements.values():
        if paid.end_to_end_id == case.event.end_to_end_id:
            return Finding("an end-to-end id that is not in use", f"the one of disbursement {paid.disbursement_id}")
    return None


def ended_pledge_pays_nothing_new(case: Case[e.DisbursementInstructed]) -> Finding | None:
    """The donor pays nothing more on a pledge that was withdrawn or expired; who holds money of it may pass that on."""
    if case.donation.pledge.state not in ENDED or case.leg.parent_leg_id is not None:
        return None
    return Finding("a pledge in force", f"a pledge that is {case.donation.pledge.state}")


def pledge_past_its_validity_pays_nothing_new(case: Case[Covered]) -> Finding | None:
    """The donor pays nothing more on a pledge past its validity, also before its expiry is recorded."""
    valid_until = case.donation.pledge.valid_until
    if valid_until is None or case.now <= valid_until or case.leg.parent_leg_id is not None:
        return None
    return Finding(f"at {case.now.isoformat()} a pledge that is valid", f"valid until {valid_until.isoformat()}")


# --- the approval a payment is made under -------------------------------------------------------------------------------------------


def payment_names_its_approval(case: Case[e.DisbursementInstructed]) -> Finding | None:
    """Every payment of a managed donation is made under an approval that was requested."""
    if case.event.approval_id is not None and case.event.approval_id in case.donation.approvals:
        return None
    return Finding("an approval that was requested", f"no approval {case.event.approval_id or ''}".rstrip())


def cover_is_granted(case: Case[Covered]) -> Finding | None:
    """No payment is instructed or released but under an approval that is granted for the terms in force."""
    if case.cover.state is ApprovalState.GRANTED:
        return None
    return Finding("a granted approval", f"approval {case.cover.approval_id} is {case.cover.state}")


def cover_is_still_valid(case: Case[Covered]) -> Finding | None:
    """No payment is instructed or released under an approval past its validity, also before its expiry is recorded."""
    valid_until = case.cover.valid_until
    if valid_until is None or case.now <= valid_until:
        return None
    return Finding(f"at {case.now.isoformat()} a valid approval", f"valid until {valid_until.isoformat()}")


def cover_has_its_conditions_met(case: Case[Covered]) -> Finding | None:
    """No payment is instructed or released while a condition of its approval is open or breached."""
    for condition_id, state in case.cover.conditions.items():
        if state != "met":
            return Finding("every condition met", f"condition {condition_id} is {state}")
    return None


def cover_includes_the_leg(case: Case[e.DisbursementInstructed]) -> Finding | None:
    """A payment is made on a leg that its approval was requested for."""
    if case.event.leg_id in case.cover.legs:
        return None
    return Finding(f"a leg of approval {case.cover.approval_id}", f"leg {case.event.leg_id}")


def amount_is_within_the_cover(case: Case[e.DisbursementInstructed]) -> Finding | None:
    """What is paid out of one purse under an approval, in flight and net of returns, stays within what was granted."""
    money = case.event.amount
    used = consumed_of_approval(case.donation, case.cover.approval_id, case.leg.parent_leg_id, money.currency)
    left = case.cover.granted.get(money.currency, ZERO) - used
    if money.amount <= left:
        return None
    return Finding(f"at most {format_money(left, money.currency)}", str(money))


def amount_is_held(case: Case[e.DisbursementInstructed]) -> Finding | None:
    """Only money that has arrived is passed on."""
    parent, money = case.leg.parent_leg_id, case.event.amount
    if parent is None:
        return None
    holding = held(case.donation, parent, money.currency)
    if money.amount <= holding:
        return None
    return Finding(f"at most {format_money(holding, money.currency)}, which {case.leg.from_party} holds", str(money))


# --- separate people ----------------------------------------------------------------------------------------------------------------


def payer_did_not_request_the_cover(case: Case[Covered]) -> Finding | None:
    """Who requested an approval neither prepares nor releases a payment under it."""
    if case.actor.actor_id != case.cover.requested_by:
        return None
    return Finding("an actor who did not request the approval", f"{case.actor.actor_id}, who did")


def payer_did_not_decide_the_cover(case: Case[Covered]) -> Finding | None:
    """Who decided on an approval, or that its conditions are met, neither prepares nor releases a payment under it."""
    cover = case.cover
    if case.actor.actor_id not in cover.deciders and case.actor.actor_id not in cover.lifted_by:
        return None
    return Finding("an actor who did not decide on the approval", f"{case.actor.actor_id}, who did")


def releaser_did_not_prepare(case: Case[e.DisbursementReleased]) -> Finding | None:
    """Who prepared a payment does not release it."""
    if case.actor.actor_id != case.disbursement.prepared_by:
        return None
    return Finding("a releaser other than the preparer", f"{case.actor.actor_id}, who prepared it")


# --- release, settlement, return ----------------------------------------------------------------------------------------------------


def disbursement_is_known(case: Case[OfDisbursement]) -> Finding | None:
    """A payment is spoken of after it was planned, instructed or reported."""
    if case.event.disbursement_id in case.donation.disbursements:
        return None
    return Finding("a disbursement of this donation", f"no disbursement {case.event.disbursement_id}")


def disbursement_awaits_release(case: Case[e.DisbursementReleased]) -> Finding | None:
    """A payment is released once, after it was instructed."""
    return _in_state(case, DisbursementState.INSTRUCTED)


def disbursement_is_released(case: Case[e.DisbursementSettled]) -> Finding | None:
    """The bank settles once, and only what was released."""
    return _in_state(case, DisbursementState.RELEASED)


def disbursement_is_under_way(case: Case[e.DisbursementRejected]) -> Finding | None:
    """A payment is rejected once, and only before it is settled."""
    return _in_state(case, DisbursementState.INSTRUCTED, DisbursementState.RELEASED)


def _in_state(case: Case[OfDisbursement], *states: DisbursementState) -> Finding | None:
    if case.disbursement.state in states:
        return None
    found = f"disbursement {case.event.disbursement_id} is {case.disbursement.state}"
    return Finding(f"a disbursement that is {' or '.join(states)}", found)


def currency_is_the_payments(case: Case[WithAmount]) -> Finding | None:
    """What is said of a payment is said in its currency."""
    if case.event.amount.currency == case.disbursement.currency:
        return None
    return Finding(f"an amount in {case.disbursement.currency}", str(case.event.amount))


def leg_is_the_instructions(case: Case[e.DisbursementSettled]) -> Finding | None:
    """The leg of a payment is stated by its instruction and not again by its settlement."""
    if case.event.leg_id is None:
        return None
    return Finding("no leg", f"leg {case.event.leg_id}")


def bank_reference_is_stated(case: Case[e.DisbursementSettled]) -> Finding | None:
    """A settlement names the bank's own reference."""
    if case.event.bank_reference is not None:
        return None
    return Finding("the bank's reference", "none")


def settled_is_within_the_instruction(case: Case[e.DisbursementSettled]) -> Finding | None:
    """The bank settles at most what was instructed."""
    paid = case.disbursement
    if case.event.amount.amount <= paid.instructed:
        return None
    return Finding(f"at most {format_money(paid.instructed, paid.currency)}", str(case.event.amount))


def return_is_told_once(case: Case[e.DisbursementReturned]) -> Finding | None:
    """A further return of a payment has a reference that those before it do not have: bank and receiver may both tell of one."""
    paid, stated = case.disbursement, case.event.return_reference
    if not paid.returned or (stated is not None and stated not in paid.return_references):
        return None
    expected = f"a return_reference of its own, since a return of {paid.disbursement_id} was told before"
    return Finding(expected, "none" if stated is None else "that of a return before")


def returns_are_within_the_settlement(case: Case[e.DisbursementReturned]) -> Finding | None:
    """No more comes back than was settled."""
    paid = case.disbursement
    if case.event.amount.amount <= paid.net:
        return None
    return Finding(f"at most {format_money(paid.net, paid.currency)}", str(case.event.amount))


def returned_money_was_not_passed_on(case: Case[e.DisbursementReturned]) -> Finding | None:
    """An intermediary gives back only what it has not passed on: that has to come back first."""
    paid = case.disbursement
    taken_from_receiver = min(case.event.amount.amount - paid.missing, paid.arrived)
    holding = held(case.donation, paid.leg.leg_id, paid.currency)
    if taken_from_receiver <= holding:
        return None
    return Finding(f"at most {format_money(paid.missing + holding, paid.currency)}", str(case.event.amount))
