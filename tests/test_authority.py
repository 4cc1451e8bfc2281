"""Rights: every role, every action and every relation to a donation, against a table that was written by hand."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from aidtrail.domain import authority
from aidtrail.domain import events as e
from aidtrail.domain.authority import Action, Person, Read, Sight, Subject
from aidtrail.domain.registry import Registry
from tests.acts import ACTORS, registry

# One column for each person, of a society, but for '@bank', the bank adapter of a bank. 'treasury' prepares and releases, 'both' is
# auditor and officer, 'none' has no role, 'retired' had all. Letters are the donations on which he may do the action:
#   p his party takes part     m his party's mechanism has it before it     x neither     a there is none
#   P his party takes part, and it is observed                              X neither, and it is observed
TABLE = """
action                 officer approver preparer releaser bank   @bank  timekeeper reporter auditor ledger none   treasury both   retired
LIST                   pmxPXa  pmxPXa   pmxPXa   pmxPXa   pmxPXa pmxPXa pmxPXa     pmxPXa   pmxPXa  pmxPXa pmxPXa pmxPXa   pmxPXa -
DONATION               pmP     pmP      pmP      pmP      pmP    pmP    pmP        pmPX     pmxPX   pmP    pmP    pmP      pmxPX  -
PledgeAnnounced        pmxPXa  -        -        -        -      -      -          pmxPXa   -       -      -      -        pmxPXa -
PledgeConfirmed        pmP     -        -        -        -      -      -          pmPX     -       -      -      -        pmxPX  -
PledgeAmended          pmP     -        -        -        -      -      -          pmPX     -       -      -      -        pmxPX  -
PledgeWithdrawn        pmP     -        -        -        -      -      -          pmPX     -       -      -      -        pmxPX  -
PledgeExpired          -       -        -        -        -      -      pmxP       -        -       -      -      -        -      -
ApprovalRequested      pmP     -        -        -        -      -      -          -        -       -      -      -        pmxPX  -
ApprovalQuestioned     -       pmP      -        -        -      -      -          -        -       -      -      -        -      -
ApprovalAnswered       pmP     -        -        -        -      -      -          -        -       -      -      -        pmxPX  -
ApprovalDecided        -       pmP      -        -        -      -      -          -        -       -      -      -        -      -
ApprovalRevoked        -       pmP      -        -        -      -      -          -        -       -      -      -        -      -
ApprovalExpired        -       -        -        -        -      -      pmxP       -        -       -      -      -        -      -
ConditionMet           -       pmP      -        -        -      -      -          -        -       -      -      -        -      -
ConditionBreached      -       pmP      -        -        -      -      -          -        -       -      -      -        -      -
DisbursementScheduled  -       -        pmP      -        -      -      -          -        -       -      -      pmP      -      -
DisbursementInstructed -       -        pmP      -        -      -      -          -        -       -      -      pmP      -      -
DisbursementReleased   -       -        -        pmP      -      -      -          -        -       -      -      pmP      -      -
DisbursementSettled    -       -        -        -        pmP    pmxP   -          pmPX     -       -      -      -        -      -
DisbursementRejected   -       -        pmP      pmP      pmP    pmxP   -          -        -       -      -      pmP      -      -
DisbursementReturned   pmP     -        -        -        pmP    pmxP   -          pmPX     -       -      -      -        pmxPX  -
FundsReceived          pmP     -        -        -        -      -      -          -        -       -      -      -        pmxPX  -
ReceiptAcknowledged    pmP     -        -        -        -      -      -          -        -       -      -      -        pmxPX  -
ReceiptDisputed        pmP     -        -        -        -      -      -          -        -       -      -      -        pmxPX  -
DisputeResolved        pmP     -        -        -        -      -      -          -        -       -      -      -        pmxPX  -
UtilisationReported    pmP     -        -        -        -      -      -          -        -       -      -      -        pmxPX  -
DonationClosed         pmP     -        -        -        -      -      -          -        -       -      -      -        pmxPX  -
DonationReopened       pmP     -        -        -        -      -      -          -        -       -      -      -        pmxPX  -
SubmissionRefused      -       -        -        -        -      -      -          -        -       -      -      -        -      -
"""

EVERY_ROLE = ("officer", "approver", "preparer", "releaser", "bank", "timekeeper", "reporter", "auditor", "ledger")
PERSONS = {
    **{role: Person("a", "MINE", "society", frozenset({role})) for role in EVERY_ROLE},
    "@bank": Person("a", "MINE", "bank", frozenset({"bank"})),
    "none": Person("a", "MINE", "society", frozenset()),
    "treasury": Person("a", "MINE", "society", frozenset({"preparer", "releaser"})),
    "both": Person("a", "MINE", "society", frozenset({"auditor", "officer"})),
    "retired": Person("a", "MINE", "bank", frozenset(EVERY_ROLE), retired=True),
}
DONATIONS = {
    "p": Subject(frozenset({"THEIRS", "MINE"}), frozenset({"MINISTRY"})),
    "m": Subject(frozenset({"THEIRS", "OTHERS"}), frozenset({"MINISTRY", "MINE"})),
    "x": Subject(frozenset({"THEIRS", "OTHERS"}), frozenset({"MINISTRY"})),
    "P": Subject(frozenset({"THEIRS", "MINE"}), observed=True),
    "X": Subject(frozenset({"THEIRS", "OTHERS"}), observed=True),
    "a": None,
}
ACTIONS: dict[str, Action] = {**{read.name: read for read in Read}, **e.DONATION_EVENTS}


def cells() -> Iterator[tuple[str, str, str, bool]]:
    """Action, person and donation, by their names in the table, and whether it is allowed."""
    head, *rows = (line.split() for line in TABLE.strip().splitlines())
    assert sorted(row[0] for row in rows) == sorted(ACTIONS)
    assert sorted(head[1:]) == sorted(PERSONS)
    for action, *allowed in rows:
        for name, letters in zip(head[1:], allowed, strict=True):
            assert letters == "-" or set(letters) <= set(DONATIONS)
            yield from ((action, name, letter, letter in letters) for letter in DONATIONS)


def differences() -> list[str]:
    """The cells in which `authorise` does not say what the table says."""
    return [
        f"{action} by {name} on {letter}: expected {allowed}"
        for action, name, letter, allowed in cells()
        if authority.authorise(PERSONS[name], ACTIONS[action], DONATIONS[letter]) is not allowed
    ]


def test_every_right_is_as_the_table_says() -> None:
    found = list(cells())
    print(f"{len(found)} cells: {len(ACTIONS)} actions x {len(PERSONS)} persons x {len(DONATIONS)} donations; "
          f"{sum(allowed for *_, allowed in found)} allowed")  # fmt: skip

    assert len(found) == len(ACTIONS) * len(PERSONS) * len(DONATIONS)
    assert differences() == []


# --- the table misses no broken function --------------------------------------------------------------------------------------------

Broken = Callable[[pytest.MonkeyPatch], None]


def wrapped(**changes: Any) -> Broken:
    """Each named function of the module replaced by what is made of it."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        for name, change in changes.items():
            patch.setattr(authority, name, change(getattr(authority, name)))

    return apply


def submitters(kind: type[e.Event], roles: frozenset[str]) -> Broken:
    return lambda patch: patch.setitem(authority.SUBMITTERS, kind, roles)


def covering(covers: Callable[[Sight, Subject], bool]) -> Broken:
    return lambda patch: patch.setattr(Sight, "covers", covers)


def of_person(**fields: Any) -> Broken:
    """`authorise` that is asked about somebody else than it should."""
    return wrapped(authorise=lambda real: lambda person, action, donation: real(replace(person, **fields), action, donation))


def of_donation(**fields: Any) -> Broken:
    """`authorise` that is asked about another donation than it should."""
    return wrapped(authorise=lambda real: lambda person, action, donation: real(person, action, donation and replace(donation, **fields)))


def of_none(instead: Subject) -> Broken:
    """`authorise` that finds a donation where there is none."""
    return wrapped(authorise=lambda real: lambda person, action, donation: real(person, action, donation or instead))


def reading(kind: type[e.Event]) -> Broken:
    """`authorise` for which to submit is to read."""
    return wrapped(
        authorise=lambda real: lambda person, action, donation: real(person, Read.DONATION if action is kind else action, donation)
    )


def seen(**fields: Any) -> Broken:
    return wrapped(sight=lambda real: lambda person: replace(real(person), **fields))


def by_anybody(role: str) -> Broken:
    return wrapped(SUBMITTERS=lambda real: {kind: roles | {role} for kind, roles in real.items()})


def mutants() -> Iterator[tuple[str, Broken]]:
    yield "allows everything", wrapped(authorise=lambda real: lambda *_: True)
    yield "allows nothing", wrapped(authorise=lambda real: lambda *_: False)
    yield "lets the retired in", of_person(retired=False)
    yield "takes every party for a bank", of_person(party_kind="bank")
    yield "takes every bank for a society", of_person(party_kind="society")
    yield "takes an absent donation for one that is there", of_none(Subject(frozenset()))
    yield "takes an absent donation for one's own", of_none(Subject(frozenset({"MINE"})))
    yield "takes what is observed for managed", of_donation(observed=False)
    yield "takes what is managed for observed", of_donation(observed=True)
    yield "forgets the mechanisms", of_donation(approving=frozenset())
    yield "forgets the parties", of_donation(parties=frozenset())
    yield "shows everything to all", seen(everything=True)
    yield "shows an auditor no more than others", seen(everything=False)
    yield "shows what is observed to all", seen(observed=True)
    yield "shows a reporter no more than others", seen(observed=False)
    yield "shows nobody what his party has a part in", seen(party_id=None)
    yield "shows everybody what another party has a part in", seen(party_id="THEIRS")
    yield "looks at the parties only", covering(lambda self, donation: self.everything or self.party_id in donation.parties)
    yield "looks at the mechanisms only", covering(lambda self, donation: self.everything or self.party_id in donation.approving)
    yield "lets nobody act on what he does not see", wrapped(_has_a_duty_in_all=lambda real: lambda *_: False)
    yield "lets everybody act on what he does not see", wrapped(_has_a_duty_in_all=lambda real: lambda *_: True)
    yield "asks for no role", lambda patch: patch.setattr(Person, "roles_for", lambda self, kind: frozenset({"officer"}))
    for role in EVERY_ROLE:
        yield f"lets the {role} submit everything", by_anybody(role)
    for kind, roles in authority.SUBMITTERS.items():
        yield f"reads where {kind.type} is to be submitted", reading(kind)
        for role in EVERY_ROLE:
            how = "takes" if role not in roles else "does not take"
            yield f"{how} {kind.type} from the {role}", submitters(kind, roles ^ {role})


def test_the_table_misses_no_broken_function() -> None:
    missed, tried = [], 0
    for what, broken in mutants():
        with pytest.MonkeyPatch.context() as patch:
            broken(patch)
            tried += 1
            if not differences():
                missed.append(what)
    print(f"{tried} broken functions, {len(missed)} missed")

    assert tried > 250
    assert missed == []
    assert differences() == []


# --- from registry and views --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known() -> Registry:
    return registry()


def test_a_person_is_who_the_registry_says(known: Registry) -> None:
    assert Person.of(known, "bank-adapter") == Person("bank-adapter", "NBK", "bank", frozenset({"bank"}))
    assert Person.of(known, "nobody") is None
    retired = Person.of(known, "krcs-retired")
    assert retired is not None
    assert retired.retired
    assert len(ACTORS) == sum(Person.of(known, actor_id) is not None for actor_id in ACTORS)


def test_the_owner_of_a_mechanism_sees_what_is_and_was_put_before_it(known: Registry) -> None:
    donation = Subject.of(known, ["KRCS", "CRC", "KBH"], ["MEF-OLD", "NO-SUCH-MECHANISM"], "managed")

    assert donation == Subject(frozenset({"KRCS", "CRC", "KBH"}), frozenset({"MEF"}))
    assert [reads(known, actor_id, donation) for actor_id in ("kbh-officer", "mef-approver", "bank-adapter")] == [True, True, False]
    assert Subject.of(known, ["KRCS"], [], e.Oversight.OBSERVED).observed


def test_a_submission_is_seen_by_the_party_that_submitted_it_too(known: Registry) -> None:
    others = Subject(frozenset({"KRCS"}))

    assert reads(known, "bank-adapter", authority.submission("NBK", others))
    assert reads(known, "krcs-officer", authority.submission("NBK", others))
    assert reads(known, "bank-adapter", authority.submission("NBK", None))
    assert not reads(known, "krcs-officer", authority.submission("NBK", None))


def test_roles_are_those_in_which_he_may_submit(known: Registry) -> None:
    allrounder = Person.of(known, "krcs-allrounder")

    assert allrounder is not None
    assert allrounder.roles_for(e.DisbursementRejected) == {"bank", "preparer", "releaser"}
    assert allrounder.roles_for(e.SubmissionRefused) == frozenset()


def reads(known: Registry, actor_id: str, donation: Subject) -> bool:
    person = Person.of(known, actor_id)
    assert person is not None
    return authority.authorise(person, Read.DONATION, donation)
