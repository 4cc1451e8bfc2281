"""Rules about the pledge: its terms, its route, its end."""

from aidtrail.domain import events as e
from aidtrail.domain.balances import consumed_of_pledge
from aidtrail.domain.donation import ENDED, IN_FLIGHT, LIVE, DisbursementState, PledgeState, undisbursed
from aidtrail.domain.money import ZERO, format_money, total
from aidtrail.domain.rules.case import Case, Finding

Terms = e.PledgeAnnounced | e.PledgeAmended


def _donor(case: Case[Terms]) -> str:
    return case.event.donor if isinstance(case.event, e.PledgeAnnounced) else case.donation.donor


def donor_acts(case: Case[e.Event]) -> Finding | None:
    """The pledge is the donor's: an officer of the donor announces, confirms, amends and withdraws it."""
    donor = case.event.donor if isinstance(case.event, e.PledgeAnnounced) else case.donation.donor
    if case.actor.party_id == donor:
        return None
    return Finding(f"an officer of the donor {donor}", f"an officer of {case.actor.party_id}")


# --- terms and route ----------------------------------------------------------------------------------------------------------------


def parties_are_registered(case: Case[Terms]) -> Finding | None:
    """Donor, beneficiary and both ends of every leg are parties that the registry knows."""
    named = [_donor(case), case.event.beneficiary]
    for leg in case.event.route:
        named += (leg.from_party, leg.to_party)
    for party_id in named:
        if party_id not in case.registry.parties:
            return Finding("registered parties", f"no party {party_id} in the registry")
    return None


def donor_is_not_the_beneficiary(case: Case[Terms]) -> Finding | None:
    """Nobody gives to himself."""
    if _donor(case) != case.event.beneficiary:
        return None
    return Finding("a beneficiary other than the donor", f"{case.event.beneficiary} as both")


def leg_ids_are_distinct(case: Case[Terms]) -> Finding | None:
    """Each leg of the route has an id of its own."""
    seen = set()
    for leg in case.event.route:
        if leg.leg_id in seen:
            return Finding("each leg id once", f"leg {leg.leg_id} twice")
        seen.add(leg.leg_id)
    return None


def parent_legs_exist(case: Case[Terms]) -> Finding | None:
    """A leg that passes money on names the leg of the same route that it arrives on."""
    known = {leg.leg_id for leg in case.event.route}
    for leg in case.event.route:
        if leg.parent_leg_id is not None and leg.parent_leg_id not in known:
            return Finding("parent legs that are on the route", f"no leg {leg.parent_leg_id}")
    return None


def legs_join_two_parties(case: Case[Terms]) -> Finding | None:
    """A leg goes from one party to another, so nobody receives what he sent."""
    for leg in case.event.route:
        if leg.from_party == leg.to_party:
            return Finding("legs from one party to another", f"leg {leg.leg_id} from {leg.from_party} to itself")
    return None


def legs_follow_their_parents(case: Case[Terms]) -> Finding | None:
    """Who passes money on is who received it on the parent leg."""
    receivers = {leg.leg_id: leg.to_party for leg in case.event.route}
    for leg in case.event.route:
        receiver = leg.from_party if leg.parent_leg_id is None else receivers.get(leg.parent_leg_id, leg.from_party)
        if leg.from_party != receiver:
            return Finding(f"leg {leg.leg_id} to start at {receiver}", f"{leg.from_party}")
    return None


def route_starts_at_the_donor(case: Case[Terms]) -> Finding | None:
    """Every leg without a parent starts at the donor."""
    donor = _donor(case)
    for leg in case.event.route:
        if leg.parent_leg_id is None and leg.from_party != donor:
            return Finding(f"leg {leg.leg_id} to start at the donor {donor}", f"{leg.from_party}")
    return None


def route_has_no_ring(case: Case[Terms]) -> Finding | None:
    """Every leg goes back, parent by parent, to one that has none."""
    parents = {leg.leg_id: leg.parent_leg_id for leg in case.event.route}
    grounded: set[str | None] = {None}
    for leg_id in parents:
        path: list[str] = []
        at: str | None = leg_id
        while at not in grounded and at in parents:
            if at in path:
                return Finding("a route without rings", f"leg {at} among its own parents")
            path.append(at)
            at = parents[at]
        grounded.update(path)
    return None


def route_ends_at_the_beneficiary(case: Case[Terms]) -> Finding | None:
    """At least one leg ends at the beneficiary."""
    if any(leg.to_party == case.event.beneficiary for leg in case.event.route):
        return None
    return Finding(f"a leg to the beneficiary {case.event.beneficiary}", "none")


def route_reaches_the_beneficiary_once(case: Case[Terms]) -> Finding | None:
    """What the beneficiary passes on does not come back to it: it would count as received a second time."""
    beneficiary, legs = case.event.beneficiary, {leg.leg_id: leg for leg in case.event.route}
    for leg in case.event.route:
        before = legs.get(leg.parent_leg_id or "") if leg.to_party == beneficiary else None
        while before is not None:
            if before.to_party == beneficiary:
                return Finding(f"leg {leg.leg_id} not to follow on another to {beneficiary}", f"leg {before.leg_id} before it")
            before = legs.get(before.parent_leg_id or "")
    return None


# --- confirming and amending --------------------------------------------------------------------------------------------------------


def pledge_awaits_confirmation(case: Case[e.PledgeConfirmed]) -> Finding | None:
    """A pledge is confirmed once, after it is announced, and again after its terms were amended; never after it ended."""
    if case.donation.pledge.state is PledgeState.ANNOUNCED:
        return None
    return Finding("an announced pledge", f"a pledge that is {case.donation.pledge.state}")


def confirmed_by_another(case: Case[e.PledgeConfirmed]) -> Finding | None:
    """Who announced or amended a pledge does not confirm it."""
    pledge = case.donation.pledge
    if case.actor.actor_id != pledge.announced_by and case.actor.actor_id not in pledge.amended_by:
        return None
    return Finding("an actor who neither announced nor amended the pledge", f"{case.actor.actor_id}, who did")


def shaper_did_not_decide(case: Case[e.PledgeConfirmed | e.PledgeAmended]) -> Finding | None:
    """Who decided on an approval in force, or on one that is pending, or that its conditions are met, neither confirms nor amends its
    pledge."""
    for approval in case.donation.approvals.values():
        if approval.state in LIVE and (case.actor.actor_id in approval.deciders or case.actor.actor_id in approval.lifted_by):
            return Finding("an actor who decided on no approval", f"{case.actor.actor_id}, who decided on {approval.approval_id}")
    return None


def agreement_is_referred_to(case: Case[e.PledgeConfirmed]) -> Finding | None:
    """A confirmation names the agreement that commits the donor."""
    if case.event.agreement_reference is not None:
        return None
    return Finding("the reference of an agreement", "none")


def amounts_cover_what_moved(case: Case[e.PledgeAmended]) -> Finding | None:
    """The pledge is not lowered below what the donor has in flight and has paid net of returns."""
    amounts = total(case.event.amounts)
    for currency, consumed in consumed_of_pledge(case.donation).items():
        if consumed > amounts.get(currency, ZERO):
            found = format_money(amounts.get(currency, ZERO), currency)
            return Finding(f"at least {format_money(consumed, currency)}, which is in flight or paid", found)
    return None


def legs_with_money_stay(case: Case[e.PledgeAmended]) -> Finding | None:
    """A leg on which money has moved, or is moving, stays on the route as it is."""
    legs = {leg.leg_id: leg for leg in case.event.route}
    for paid in case.donation.disbursements.values():
        moved = paid.state is DisbursementState.SETTLED or paid.state in IN_FLIGHT
        if moved and legs.get(paid.leg.leg_id) != paid.leg:
            return Finding(f"leg {paid.leg.leg_id} as it is, because money moved on it", "another leg or none")
    return None


def paid_beneficiary_stays(case: Case[e.PledgeAmended]) -> Finding | None:
    """The beneficiary stays once a payment to it has been instructed, and nobody becomes it who was paid to pass money on."""
    before, after = case.donation.beneficiary, case.event.beneficiary
    if after == before:
        return None
    for paid in case.donation.disbursements.values():
        moved = paid.state is DisbursementState.SETTLED or paid.state in IN_FLIGHT
        if moved and paid.leg.to_party == before:
            return Finding(f"the beneficiary {before}, who was paid", after)
        if moved and paid.leg.to_party == after:
            return Finding("a beneficiary who was paid nothing to pass on", f"{after}, who was paid {paid.disbursement_id}")
    return None


# --- the end ------------------------------------------------------------------------------------------------------------------------


def pledge_has_not_ended(case: Case[e.Event]) -> Finding | None:
    """A withdrawn or expired pledge is not amended, ended or put before a mechanism again."""
    if case.donation.pledge.state not in ENDED:
        return None
    return Finding("a pledge in force", f"a pledge that is {case.donation.pledge.state}")


def pledge_has_not_run_out(case: Case[e.Event]) -> Finding | None:
    """Past its validity nothing more is asked of a pledge, also before its expiry is recorded."""
    valid_until = case.donation.pledge.valid_until
    if valid_until is None or case.now <= valid_until:
        return None
    return Finding(f"at {case.now.isoformat()} a pledge that is valid", f"valid until {valid_until.isoformat()}")


def pledge_has_run_out(case: Case[e.PledgeExpired]) -> Finding | None:
    """A pledge expires once its validity is past, and never if it states none."""
    valid_until = case.donation.pledge.valid_until
    if valid_until is not None and case.now > valid_until:
        return None
    found = "without end" if valid_until is None else f"until {valid_until.isoformat()}"
    return Finding(f"a validity that is past at {case.now.isoformat()}", f"valid {found}")


def nothing_is_in_flight(case: Case[e.Event]) -> Finding | None:
    """A pledge or a donation is not ended while a payment is under way."""
    for paid in case.donation.disbursements.values():
        if paid.state in IN_FLIGHT:
            return Finding("no payment under way", f"disbursement {paid.disbursement_id} is {paid.state}")
    return None


def something_is_undisbursed(case: Case[e.PledgeWithdrawn | e.PledgeExpired]) -> Finding | None:
    """What has been paid in full can neither be withdrawn nor expire."""
    if undisbursed(case.donation):
        return None
    return Finding("something left of the pledge", "all of it paid")
