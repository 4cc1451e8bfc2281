"""Who may see a donation, and who may submit what about it. One pure function, `authorise`, asked by every way in over HTTP.

Party and roles are those of the registry, whatever a token or a request says. Whether a submission is admitted is for the rules
(`domain.rules`): here only those are kept out who have no part in the donation, or hold no role that the rules take such an event from.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from aidtrail.domain import events as e
from aidtrail.domain.registry import Registry
from aidtrail.domain.rules import OBSERVED_RULES, RULES
from aidtrail.domain.rules.common import BANK, REPORTER, ROLES, TIMEKEEPER, role_is_reporter

AUDITOR = "auditor"

SUBMITTERS: dict[type[e.Event], frozenset[str]] = {
    kind: ROLES.get(kind, frozenset()) | ({REPORTER} if role_is_reporter in OBSERVED_RULES[kind] else frozenset()) for kind in RULES
}
"""In which roles each event may be submitted, of a managed or of an observed donation, as the rules' tables say."""


class Read(Enum):
    LIST = "list"  # ask for a list, the queue of approvals or the feed of entries; each item of it is then a DONATION
    DONATION = "donation"  # see a donation: its status, its history, its approvals


Action = Read | type[e.Event]
"""What somebody wants: to read, or to submit an event of this type."""


@dataclass(frozen=True, slots=True)
class Person:
    """An enrolled actor, and the kind of party that he is enrolled at."""

    actor_id: str
    party_id: str
    party_kind: str
    roles: frozenset[str]
    retired: bool = False

    @classmethod
    def of(cls, registry: Registry, actor_id: str) -> "Person | None":
        """None for an actor that the registry does not know."""
        found = registry.actors.get(actor_id)
        if found is None:
            return None
        return cls(actor_id, found.party_id, registry.parties[found.party_id].kind, found.roles, found.retired)

    def roles_for(self, kind: type[e.Event]) -> frozenset[str]:
        """Those of his roles in which he may submit such an event: empty if there is none."""
        return self.roles & SUBMITTERS[kind]


@dataclass(frozen=True, slots=True)
class Subject:
    """Of a donation: the parties that take part in it, those that own a mechanism which it is or was put before, and its oversight."""

    parties: frozenset[str]
    approving: frozenset[str] = frozenset()
    observed: bool = False

    @classmethod
    def of(cls, registry: Registry, parties: Iterable[str], mechanisms: Iterable[str], oversight: str) -> "Subject":
        """From the columns of a donation's view. A mechanism that the registry does not know has no owner."""
        owners = (registry.mechanisms[each].party_id for each in mechanisms if each in registry.mechanisms)
        return cls(frozenset(parties), frozenset(owners), oversight == e.Oversight.OBSERVED)


def submission(party_id: str, donation: Subject | None) -> Subject:
    """What to ask about a submission. Who sees its donation sees it; so does the party that submitted it, also where no donation is."""
    return Subject(frozenset({party_id})) if donation is None else replace(donation, parties=donation.parties | {party_id})


@dataclass(frozen=True, slots=True)
class Sight:
    """Which donations a person sees, as data, so that a query can select them. `covers` is the same in Python."""

    everything: bool = False
    observed: bool = False
    party_id: str | None = None
    """Those in which this party takes part, or which were put before one of its mechanisms."""

    def covers(self, donation: Subject) -> bool:
        if self.everything or (self.observed and donation.observed):
            return True
        return self.party_id in donation.parties or self.party_id in donation.approving


def sight(person: Person) -> Sight:
    """A retired actor sees nothing, an auditor everything, a reporter what is observed, and everybody what his own party has a part in."""
    if person.retired:
        return Sight()
    return Sight(everything=AUDITOR in person.roles, observed=REPORTER in person.roles, party_id=person.party_id)


def authorise(person: Person, action: Action, donation: Subject | None) -> bool:
    """Whether this person may do that. `donation` is None where there is none; then only lists and announcements are to be had.

    Who may not see a donation must not learn that it is there: answer False as if the donation were absent, unless `authorise` lets the
    person read it. To announce is a matter of the role alone: that an id is in use is then the ledger's refusal.
    """
    if person.retired:
        return False
    if action is Read.LIST:
        return True
    if isinstance(action, Read):
        return donation is not None and sight(person).covers(donation)
    if not person.roles_for(action):
        return False
    if action is e.PledgeAnnounced:
        return True
    return donation is not None and (sight(person).covers(donation) or _has_a_duty_in_all(person, action, donation))


def _has_a_duty_in_all(person: Person, kind: type[e.Event], donation: Subject) -> bool:
    """Banks tell what became of any payment, and the timekeeper what ran out. They take part in no donation, and see none by this."""
    if donation.observed:
        return False
    fitting = person.roles_for(kind)
    return TIMEKEEPER in fitting or (BANK in fitting and person.party_kind == BANK)
