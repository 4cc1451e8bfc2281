"""Rules about what arrives: receipt, acknowledgement, dispute, use; and about closing a donation."""

from aidtrail.domain import events as e
from aidtrail.domain.balances import acknowledged
from aidtrail.domain.money import ZERO, format_money
from aidtrail.domain.rules.case import Case, Finding, OfDisbursement

# --- receipt ------------------------------------------------------------------------------------------------------------------------


def receiver_acts(case: Case[OfDisbursement]) -> Finding | None:
    """Receipt is confirmed or disputed, and a dispute resolved, by the party that the leg ends at: whose claim it is."""
    if case.actor.party_id == case.leg.to_party:
        return None
    return Finding(f"an officer of the receiver {case.leg.to_party}", f"an officer of {case.actor.party_id}")


def something_arrived_or_went_in_fees(case: Case[e.FundsReceived]) -> Finding | None:
    """What arrived is above zero, and so are fees that are stated. Fees may be told alone, when they are found out later."""
    amount, fees = case.event.amount, case.event.fees
    if fees is None and amount.amount <= 0:
        return Finding("an amount above zero, or fees", str(amount))
    if fees is not None and fees.amount <= 0:
        return Finding("fees above zero, or none", str(fees))
    return None


def fees_are_in_the_payments_currency(case: Case[e.FundsReceived]) -> Finding | None:
    """Fees taken out of a payment are in its currency."""
    fees = case.event.fees
    if fees is None or fees.currency == case.disbursement.currency:
        return None
    return Finding(f"fees in {case.disbursement.currency}", str(fees))


def receipt_is_told_once(case: Case[e.FundsReceived]) -> Finding | None:
    """A further part of a payment that arrives has a reference that those before it do not have, so that none is counted twice."""
    paid, stated = case.disbursement, case.event.receipt_reference
    if paid.received is None or (stated is not None and stated not in paid.receipt_references):
        return None
    expected = f"a receipt_reference of its own, since a receipt of {paid.disbursement_id} was told before"
    return Finding(expected, "none" if stated is None else "that of a receipt before")


def received_is_within_the_settlement(case: Case[e.FundsReceived]) -> Finding | None:
    """What arrived and what fees took is at most what was settled, and neither returned nor received before. It may arrive in parts."""
    event, paid = case.event, case.disbursement
    gross = event.amount.amount + (event.fees.amount if event.fees is not None else ZERO)
    if gross <= paid.missing:
        return None
    return Finding(f"at most {format_money(paid.missing, paid.currency)}", format_money(gross, event.amount.currency))


def beneficiary_acts(case: Case[e.ReceiptAcknowledged | e.UtilisationReported]) -> Finding | None:
    """Receipt is acknowledged, and use reported, by the beneficiary: never by who sent the money."""
    if case.actor.party_id == case.donation.beneficiary:
        return None
    return Finding(f"an officer of the beneficiary {case.donation.beneficiary}", f"an officer of {case.actor.party_id}")


def leg_ends_at_the_beneficiary(case: Case[e.ReceiptAcknowledged]) -> Finding | None:
    """The beneficiary acknowledges what was paid to it, not what intermediaries received."""
    if case.leg.to_party == case.donation.beneficiary:
        return None
    return Finding(f"a payment to {case.donation.beneficiary}", f"a payment to {case.leg.to_party}")


def acknowledged_is_within_what_was_received(case: Case[e.ReceiptAcknowledged]) -> Finding | None:
    """No more is acknowledged of a payment than was received and has not gone back."""
    paid = case.disbursement
    left = max(paid.arrived - paid.acknowledged, ZERO)
    if case.event.amount.amount <= left:
        return None
    return Finding(f"at most {format_money(left, paid.currency)}", str(case.event.amount))


# --- dispute ------------------------------------------------------------------------------------------------------------------------


def no_dispute_is_open(case: Case[e.ReceiptDisputed]) -> Finding | None:
    """A payment is disputed again only after the dispute about it is resolved."""
    if case.disbursement.disputed_by is None:
        return None
    return Finding("no open dispute about the payment", f"one that {case.disbursement.disputed_by} opened")


def difference_is_within_the_settlement(case: Case[e.ReceiptDisputed]) -> Finding | None:
    """What is disputed is in the payment's currency and at most what was settled."""
    difference, paid = case.event.difference, case.disbursement
    if difference.currency == paid.currency and difference.amount <= paid.settled:
        return None
    return Finding(f"at most {format_money(paid.settled, paid.currency)}", str(difference))


def dispute_is_open(case: Case[e.DisputeResolved]) -> Finding | None:
    """Only an open dispute is resolved."""
    if case.disbursement.disputed_by is not None:
        return None
    return Finding("an open dispute about the payment", f"none about disbursement {case.event.disbursement_id}")


def resolved_by_another(case: Case[e.DisputeResolved]) -> Finding | None:
    """Who opened a dispute does not resolve it."""
    if case.actor.actor_id != case.disbursement.disputed_by:
        return None
    return Finding("an officer other than the disputer", f"{case.actor.actor_id}, who opened the dispute")


# --- use, close, reopen -------------------------------------------------------------------------------------------------------------


def utilised_is_within_what_was_acknowledged(case: Case[e.UtilisationReported]) -> Finding | None:
    """No more is reported as used than was acknowledged and has not gone back."""
    money = case.event.amount
    left = max(acknowledged(case.donation).get(money.currency, ZERO) - case.donation.utilised.get(money.currency, ZERO), ZERO)
    if money.amount <= left:
        return None
    return Finding(f"at most {format_money(left, money.currency)}", str(money))


def donor_or_payer_acts(case: Case[e.DonationClosed]) -> Finding | None:
    """A donation is closed by its donor or by who pays on its route."""
    pledge = case.donation.pledge
    if case.actor.party_id == pledge.donor or any(case.actor.party_id == leg.from_party for leg in pledge.legs.values()):
        return None
    return Finding("an officer of the donor or of a payer", f"an officer of {case.actor.party_id}")


def party_of_the_route_acts(case: Case[e.DonationReopened]) -> Finding | None:
    """A donation is reopened by any party on its route: who received too little must be able to say so after the payer closed it."""
    pledge = case.donation.pledge
    if any(case.actor.party_id in (pledge.donor, leg.from_party, leg.to_party) for leg in pledge.legs.values()):
        return None
    return Finding("an officer of a party on the route", f"an officer of {case.actor.party_id}")


def no_dispute_is_left(case: Case[e.DonationClosed]) -> Finding | None:
    """A donation is not closed over an open dispute."""
    for paid in case.donation.disbursements.values():
        if paid.disputed_by is not None:
            return Finding("no open dispute", f"one about disbursement {paid.disbursement_id}")
    return None


def donation_is_closed(case: Case[e.DonationReopened]) -> Finding | None:
    """Only a closed donation is reopened."""
    if case.donation.closed_by is not None:
        return None
    return Finding("a closed donation", "an open one")


def reopened_by_another(case: Case[e.DonationReopened]) -> Finding | None:
    """Who closed a donation does not reopen it."""
    if case.actor.actor_id != case.donation.closed_by:
        return None
    return Finding("an officer other than who closed it", f"{case.actor.actor_id}, who did")
