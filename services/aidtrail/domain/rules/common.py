"""Rules about any event: who submits it, which donation it is about, and how its amounts are written."""

from datetime import timedelta
from operator import attrgetter

from aidtrail.domain import events as e
from aidtrail.domain.money import EXPONENTS, Money, fits
from aidtrail.domain.rules.case import Case, Finding

OFFICER, APPROVER, PREPARER, RELEASER = "officer", "approver", "preparer", "releaser"
BANK, TIMEKEEPER, REPORTER = "bank", "timekeeper", "reporter"

ROLES: dict[type[e.Event], frozenset[str]] = {
    e.PledgeAnnounced: frozenset({OFFICER}),
    e.PledgeConfirmed: frozenset({OFFICER}),
    e.PledgeAmended: frozenset({OFFICER}),
    e.PledgeWithdrawn: frozenset({OFFICER}),
    e.PledgeExpired: frozenset({TIMEKEEPER}),
    e.ApprovalRequested: frozenset({OFFICER}),
    e.ApprovalQuestioned: frozenset({APPROVER}),
    e.ApprovalAnswered: frozenset({OFFICER}),
    e.ApprovalDecided: frozenset({APPROVER}),
    e.ApprovalRevoked: frozenset({APPROVER}),
    e.ApprovalExpired: frozenset({TIMEKEEPER}),
    e.ConditionMet: frozenset({APPROVER}),
    e.ConditionBreached: frozenset({APPROVER}),
    e.DisbursementScheduled: frozenset({PREPARER}),
    e.DisbursementInstructed: frozenset({PREPARER}),
    e.DisbursementReleased: frozenset({RELEASER}),
    e.DisbursementSettled: frozenset({BANK}),
    e.DisbursementRejected: frozenset({BANK, PREPARER, RELEASER}),
    e.DisbursementReturned: frozenset({BANK, OFFICER}),
    e.FundsReceived: frozenset({OFFICER}),
    e.ReceiptAcknowledged: frozenset({OFFICER}),
    e.ReceiptDisputed: frozenset({OFFICER}),
    e.DisputeResolved: frozenset({OFFICER}),
    e.UtilisationReported: frozenset({OFFICER}),
    e.DonationClosed: frozenset({OFFICER}),
    e.DonationReopened: frozenset({OFFICER}),
}
"""In which role an event of a managed donation is submitted. 'ledger' and 'auditor' are roles that submit nothing."""

CLOCKS_DIFFER_BY = timedelta(days=1)
"""How far ahead of the log's clock an actor's may be. A day: a time in another zone is an honest mistake, and no rule rests on it."""

_MONEY = {
    kind: tuple(attrgetter(name) for name in ("amount", "fees", "difference") if name in kind.model_fields)
    for kind in e.DONATION_EVENTS.values()
}
_MONEYS = {
    kind: tuple(attrgetter(name) for name in ("amounts", "equivalents") if name in kind.model_fields) for kind in e.DONATION_EVENTS.values()
}


def _stated(event: e.Event) -> list[Money]:
    """Every amount that the event states."""
    moneys = [money for read in _MONEY[type(event)] if (money := read(event)) is not None]
    for read in _MONEYS[type(event)]:
        moneys += read(event)
    return moneys


# --- the submission and its actor ---------------------------------------------------------------------------------------------------


def submission_is_not_stamped(case: Case[e.Event]) -> Finding | None:
    """Only the ledger stamps an event: a submission comes without a stamp."""
    if case.event.meta.ledger is None:
        return None
    return Finding("no ledger stamp", "a stamp that the submitter wrote")


def actor_is_enrolled(case: Case[e.Event]) -> Finding | None:
    """Who submits an event is an actor that the registry knows."""
    if case.actor.actor_id in case.registry.actors:
        return None
    return Finding("an enrolled actor", f"no actor {case.actor.actor_id} in the registry")


def actor_is_not_retired(case: Case[e.Event]) -> Finding | None:
    """A retired actor submits nothing."""
    if not case.enrolment.retired:
        return None
    return Finding("an actor in service", f"{case.actor.actor_id}, who is retired")


def actor_acts_for_own_party(case: Case[e.Event]) -> Finding | None:
    """An actor acts for the party he is enrolled at and for no other."""
    if case.enrolment.party_id == case.actor.party_id:
        return None
    return Finding(f"an actor of {case.actor.party_id}", f"an actor of {case.enrolment.party_id}")


def actor_holds_the_role(case: Case[e.Event]) -> Finding | None:
    """An actor acts in a role that the registry gives him."""
    if case.actor.role in case.enrolment.roles:
        return None
    return Finding(f"an actor with the role {case.actor.role}", f"{case.actor.actor_id}, who does not hold it")


def signature_is_the_actors(case: Case[e.Event]) -> Finding | None:
    """A signature is by a key that the registry has for the actor, and over the submission as it is."""
    if case.event.meta.signature is None or case.signature_verifies:
        return None
    keys = len(case.enrolment.public_keys)
    return Finding(f"a signature by a key of {case.actor.actor_id}", f"one that none of the {keys} keys in the registry verifies")


def submission_is_signed_where_required(case: Case[e.Event]) -> Finding | None:
    """An actor of a party that requires signatures signs what he submits."""
    if case.event.meta.signature is not None or not case.registry.parties[case.actor.party_id].signatures_required:
        return None
    return Finding(f"a signature, which {case.actor.party_id} requires of its actors", "none")


def event_has_occurred(case: Case[e.Event]) -> Finding | None:
    """Nothing is told before it occurs: what an event says of its time is at most a day after it reaches the log."""
    occurred_on = case.event.meta.occurred_on
    if occurred_on - case.now <= CLOCKS_DIFFER_BY:
        return None
    return Finding(f"occurred by {(case.now + CLOCKS_DIFFER_BY).isoformat()}", occurred_on.isoformat())


def role_fits_the_event(case: Case[e.Event]) -> Finding | None:
    """Each type of event is submitted in the role that it belongs to."""
    fitting = ROLES[type(case.event)]
    if case.actor.role in fitting:
        return None
    return Finding(f"the role {' or '.join(sorted(fitting))}", f"the role {case.actor.role}")


def role_is_reporter(case: Case[e.Event]) -> Finding | None:
    """What happens to an observed donation is told by a reporter."""
    if case.actor.role == REPORTER:
        return None
    return Finding(f"the role {REPORTER}", f"the role {case.actor.role}")


# --- the donation -------------------------------------------------------------------------------------------------------------------


def donation_is_new(case: Case[e.PledgeAnnounced]) -> Finding | None:
    """A donation is announced once."""
    if case.before is None:
        return None
    return Finding("a donation id that is not in use", "one that is")  # no more: who asks may have no part in the other donation


def donation_is_known(case: Case[e.Event]) -> Finding | None:
    """Nothing happens to a donation before its pledge is announced."""
    if case.before is not None:
        return None
    return Finding("an announced donation", f"nothing about {case.event.meta.donation_id}")


def donation_is_open(case: Case[e.Event]) -> Finding | None:
    """A closed donation takes its reopening, returns of money and reports of use, and nothing else."""
    if case.donation.closed_by is None:
        return None
    return Finding("a donation that is not closed", f"closed by {case.donation.closed_by}")


def only_the_ledger_refuses(case: Case[e.SubmissionRefused]) -> Finding | None:
    """A refusal is written by the ledger and never submitted."""
    return Finding("an event that happened to the donation", f"a {case.event.type}")


def observed_takes_only_what_is_reported(case: Case[e.Event]) -> Finding | None:
    """Of an observed donation only a pledge and money that moved are told: its approvals and receipts are somebody else's record."""
    return Finding("a report about the pledge, a settlement or a return", f"a {case.event.type}")


# --- amounts ------------------------------------------------------------------------------------------------------------------------


def amounts_fit_their_currency(case: Case[e.Event]) -> Finding | None:
    """Every amount is of a currency of ISO 4217 and has no more digits after the point than it allows."""
    for money in _stated(case.event):
        if not fits(money):
            exponent = EXPONENTS.get(money.currency)
            expected = "a currency of ISO 4217" if exponent is None else f"at most {exponent} digits after the point"
            return Finding(expected, str(money))
    return None


def amounts_are_above_zero(case: Case[e.Event]) -> Finding | None:
    """Every amount is above zero."""
    for money in _stated(case.event):
        if money.amount <= 0:
            return Finding("an amount above zero", str(money))
    return None


def amounts_are_stated(case: Case[e.PledgeAnnounced | e.PledgeAmended | e.ApprovalRequested]) -> Finding | None:
    """At least one amount is stated."""
    if case.event.amounts:
        return None
    return Finding("at least one amount", "none")


def currencies_are_distinct(case: Case[e.Event]) -> Finding | None:
    """In a list of amounts each currency stands once."""
    for read in _MONEYS[type(case.event)]:
        currencies = [money.currency for money in read(case.event)]
        for currency in currencies:
            if currencies.count(currency) > 1:
                return Finding("each currency once", f"{currency} {currencies.count(currency)} times")
    return None
