"""What must hold of every donation whatever happened to it, re-derived from its state alone: for tests and audits.

Stated apart from the rules on purpose: that the rules keep these is what is to be shown.
"""

from decimal import Decimal

from aidtrail.domain.donation import IN_FLIGHT, LIVE, ApprovalState, DisbursementState, Donation, terms_sha256
from aidtrail.domain.events import Oversight
from aidtrail.domain.money import ZERO, Money


def invariants(donation: Donation) -> list[str]:
    """A sentence for every invariant that is broken; empty for a sound donation."""
    broken = _versions_and_terms(donation) + _payments(donation)
    if donation.oversight is Oversight.MANAGED:
        broken += _route(donation) + _approvals(donation) + _money(donation) + _people(donation)
    return broken


def _versions_and_terms(donation: Donation) -> list[str]:
    pledge = donation.pledge
    moneys = [Money(amount=amount, currency=currency) for currency, amount in pledge.amounts.items()]
    broken = []
    if donation.version < 1:
        broken.append(f"version {donation.version} is below 1")
    if pledge.terms_sha256 != terms_sha256(pledge.donor, pledge.beneficiary, pledge.legs.values(), pledge.purpose, pledge.earmark, moneys):
        broken.append("the hash of the terms is not that of the terms")
    return broken


def _payments(donation: Donation) -> list[str]:
    broken = []
    for paid in donation.disbursements.values():
        name, ended = f"disbursement {paid.disbursement_id}", paid.state is DisbursementState.SETTLED
        if not ZERO <= paid.returned <= paid.settled:
            broken.append(f"{name}: returned {paid.returned} of {paid.settled} settled")
        if not ended and (paid.settled or paid.returned or paid.received is not None or paid.acknowledged or paid.disputed_by):
            broken.append(f"{name}: is {paid.state} and has money settled, returned, received, acknowledged or disputed")
        if paid.received is not None and not ZERO < paid.received + paid.fees <= paid.settled:
            broken.append(f"{name}: received {paid.received} and fees {paid.fees} of {paid.settled} settled")
        if not ZERO <= paid.acknowledged <= (paid.received or ZERO):
            broken.append(f"{name}: acknowledged {paid.acknowledged} of {paid.received} received")
        if donation.closed_by is not None and (paid.state in IN_FLIGHT or paid.disputed_by is not None):
            broken.append(f"{name}: in flight or disputed in a closed donation")
        if donation.oversight is Oversight.MANAGED and paid.settled > paid.instructed:
            broken.append(f"{name}: settled {paid.settled} of {paid.instructed} instructed")
        if paid.planned is not None and paid.instructed > paid.planned:
            broken.append(f"{name}: instructed {paid.instructed} of {paid.planned} planned")
    ordered = [paid.end_to_end_id for paid in donation.disbursements.values() if paid.end_to_end_id is not None]
    if len(set(ordered)) < len(ordered):
        broken.append("two payments have one end-to-end id")
    return broken


def _route(donation: Donation) -> list[str]:
    legs, pledge, broken = donation.pledge.legs, donation.pledge, []
    for leg in legs.values():
        starts_at = pledge.donor if leg.parent_leg_id is None else legs[leg.parent_leg_id].to_party
        if leg.from_party != starts_at or leg.from_party == leg.to_party:
            broken.append(f"leg {leg.leg_id} goes from {leg.from_party} to {leg.to_party}")
    if not any(leg.to_party == pledge.beneficiary for leg in legs.values()):
        broken.append("no leg ends at the beneficiary")
    for paid in donation.disbursements.values():
        if (paid.state in IN_FLIGHT or paid.state is DisbursementState.SETTLED) and legs.get(paid.leg.leg_id) != paid.leg:
            broken.append(f"disbursement {paid.disbursement_id} is on leg {paid.leg.leg_id}, which is not on the route")
    return broken


def _approvals(donation: Donation) -> list[str]:
    broken = []
    for approval in donation.approvals.values():
        name = f"approval {approval.approval_id}"
        if approval.state in LIVE and approval.terms_sha256 != donation.pledge.terms_sha256:
            broken.append(f"{name} is {approval.state} and bound to other terms")
        if approval.state is ApprovalState.GRANTED and (approval.approvals < approval.approvals_required or approval.valid_until is None):
            broken.append(f"{name} is granted by {approval.approvals} of {approval.approvals_required} or without an end")
        if any(amount > approval.requested.get(currency, ZERO) for currency, amount in approval.granted.items()):
            broken.append(f"{name} grants more than was requested")
    return broken


def _money(donation: Donation) -> list[str]:
    broken: list[str] = []
    taken: dict[tuple[str | None, str], Decimal] = {}
    taken_under: dict[tuple[str, str | None, str], Decimal] = {}
    arrived: dict[tuple[str, str], Decimal] = {}
    for paid in donation.disbursements.values():
        if paid.state not in IN_FLIGHT and paid.state is not DisbursementState.SETTLED:
            continue
        purse = paid.leg.parent_leg_id
        flow = (paid.instructed if paid.state in IN_FLIGHT else ZERO) + paid.settled - paid.returned
        taken[purse, paid.currency] = taken.get((purse, paid.currency), ZERO) + flow
        if paid.approval_id is None:
            broken.append(f"disbursement {paid.disbursement_id} has no approval")
            continue
        under = (paid.approval_id, purse, paid.currency)
        taken_under[under] = taken_under.get(under, ZERO) + flow
        if paid.received is not None:
            onto = (paid.leg.leg_id, paid.currency)
            arrived[onto] = arrived.get(onto, ZERO) + max(ZERO, min(paid.received, paid.settled - paid.returned - paid.fees))
    for (approval_id, purse, currency), flow in taken_under.items():
        granted = donation.approvals[approval_id].granted.get(currency, ZERO)
        if flow > granted:
            broken.append(f"{flow} {currency} out of purse {purse} under approval {approval_id} for {granted}")
    for (purse, currency), flow in taken.items():
        into = donation.pledge.amounts.get(currency, ZERO) if purse is None else arrived.get((purse, currency), ZERO)
        if flow > into:
            broken.append(f"{flow} {currency} out of purse {purse}, into which {into} came")
    for currency in {*donation.pledge.amounts, *(currency for _, currency in taken)}:
        bound = sum(
            (a.granted if a.state is ApprovalState.GRANTED else a.requested).get(currency, ZERO)
            for a in donation.approvals.values()
            if a.state in LIVE and any(donation.pledge.legs[leg_id].parent_leg_id is None for leg_id in a.legs)
        )
        spent = sum(
            flow
            for (approval_id, purse, of), flow in taken_under.items()
            if purse is None and of == currency and donation.approvals[approval_id].state not in LIVE
        )
        if bound + spent > donation.pledge.amounts.get(currency, ZERO):
            broken.append(f"{bound} {currency} under approval and {spent} spent under ended ones exceed what is pledged")
    acknowledged: dict[str, Decimal] = {}
    for paid in donation.disbursements.values():
        acknowledged[paid.currency] = acknowledged.get(paid.currency, ZERO) + paid.acknowledged
    for currency, used in donation.utilised.items():
        if used > acknowledged.get(currency, ZERO):
            broken.append(f"{used} {currency} used of {acknowledged.get(currency, ZERO)} acknowledged")
    return broken


def _people(donation: Donation) -> list[str]:
    pledge, broken = donation.pledge, []
    if pledge.confirmed_by == pledge.announced_by:
        broken.append("the pledge is confirmed by who announced it")
    for approval in donation.approvals.values():
        name = f"approval {approval.approval_id}"
        if len(set(approval.deciders)) < len(approval.deciders):
            broken.append(f"{name}: somebody decided twice")
        if approval.requested_by in approval.deciders or pledge.announced_by in approval.deciders:
            broken.append(f"{name}: decided by who requested it or announced the pledge")
    for paid in donation.disbursements.values():
        if paid.approval_id is None:
            continue
        approval = donation.approvals[paid.approval_id]
        people = [who for who in (approval.requested_by, paid.prepared_by, paid.released_by) if who is not None]
        if len(set(people)) < len(people) or set(people) & set(approval.deciders):
            broken.append(f"disbursement {paid.disbursement_id}: requester, approver, preparer and releaser are not four people")
        if paid.state is DisbursementState.SETTLED and paid.released_by is None:
            broken.append(f"disbursement {paid.disbursement_id} is settled and was never released")
    return broken
