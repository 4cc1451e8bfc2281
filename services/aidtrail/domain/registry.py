"""Who exists: parties, the actors enrolled at them, and the mechanisms by which they approve. Folded from `donations.registry`.

Registry records are written by its operator and not ruled on. One that makes no sense (an actor of an unknown party) is ignored: it changes
nothing but the offset, and `objection` says why.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from aidtrail.domain import events as e
from aidtrail.domain.money import ZERO, Amounts


@dataclass(frozen=True, slots=True)
class Party:
    party_id: str
    name: str
    kind: str
    country: str | None
    signatures_required: bool = False

    @classmethod
    def of(cls, event: e.PartyRegistered) -> "Party":
        return cls(event.party_id, event.name, event.kind, event.country, event.signatures_required)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """An actor at his party. He never moves to another, and once retired stays so: a person who comes back gets a new actor_id. Each of
    `public_keys` is one that he may sign with."""

    actor_id: str
    party_id: str
    roles: frozenset[str]
    public_keys: tuple[bytes, ...] = ()
    retired: bool = False

    @classmethod
    def of(cls, event: e.ActorEnrolled) -> "Enrolment":
        return cls(event.actor_id, event.party_id, frozenset(event.roles), event.public_keys)


@dataclass(frozen=True, slots=True)
class Mechanism:
    """An approval policy owned by a party. An approver's word is valid for at most `validity_days`."""

    mechanism_id: str
    party_id: str
    base_approvals_required: int
    thresholds: tuple[e.Threshold, ...]
    validity_days: int
    retired: bool = False

    def approvals_required(self, amounts: Amounts) -> int:
        """How many approvals these amounts need: the most that any threshold they reach asks for, at least the base."""
        reached = [t.approvals_required for t in self.thresholds if amounts.get(t.at_least.currency, _LESS) >= t.at_least.amount]
        return max(self.base_approvals_required, *reached) if reached else self.base_approvals_required


_LESS: Decimal = ZERO - 1  # than any threshold, so that a threshold of zero is not reached by a currency that is not there


@dataclass(frozen=True, slots=True)
class Registry:
    """`offset` is that of the last registry record seen, -1 before the first."""

    parties: Mapping[str, Party] = field(default_factory=dict)
    actors: Mapping[str, Enrolment] = field(default_factory=dict)
    mechanisms: Mapping[str, Mechanism] = field(default_factory=dict)
    offset: int = -1


EMPTY = Registry()


def register(registry: Registry, event: e.RegistryEvent, offset: int) -> Registry:
    """The registry after one record. Copies the table that the record touches: to load many, use `register_all`."""
    return register_all(registry, [(event, offset)])


def register_all(registry: Registry, records: Iterable[tuple[e.RegistryEvent, int]]) -> Registry:
    """The registry after records in ascending order of offset, in one pass: each table is copied at most once.

    Raises ValueError for an offset that is not above the one before: the caller read the topic out of order."""
    draft = _Draft(registry)
    offset = registry.offset
    for event, at in records:
        if at <= offset:
            raise ValueError(f"registry record at offset {at} after {offset}: read the topic in order, each record once")
        offset = at
        if _objection(draft, event) is None:
            draft.put(event)
    return Registry(draft.parties, draft.actors, draft.mechanisms, offset)


def objection(registry: Registry, event: e.RegistryEvent) -> str | None:
    """Why `register` would ignore this record, or None if it would not."""
    return _objection(registry, event)


class _Draft:
    """Tables that are copied when first written to."""

    def __init__(self, registry: Registry) -> None:
        self.parties, self.actors, self.mechanisms = registry.parties, registry.actors, registry.mechanisms
        self._parties: dict[str, Party] | None = None
        self._actors: dict[str, Enrolment] | None = None
        self._mechanisms: dict[str, Mechanism] | None = None

    def put(self, event: e.RegistryEvent) -> None:
        match event:
            case e.PartyRegistered():
                if self._parties is None:
                    self.parties = self._parties = dict(self.parties)
                self._parties[event.party_id] = Party.of(event)
            case e.ActorEnrolled() | e.ActorRetired():
                if self._actors is None:
                    self.actors = self._actors = dict(self.actors)
                if isinstance(event, e.ActorEnrolled):
                    self._actors[event.actor_id] = Enrolment.of(event)
                else:
                    self._actors[event.actor_id] = replace(self._actors[event.actor_id], retired=True)
            case e.MechanismDefined() | e.MechanismRetired():
                if self._mechanisms is None:
                    self.mechanisms = self._mechanisms = dict(self.mechanisms)
                if isinstance(event, e.MechanismDefined):
                    self._mechanisms[event.mechanism_id] = Mechanism(
                        event.mechanism_id, event.party_id, event.approvals_required, event.thresholds, event.validity_days
                    )
                else:
                    self._mechanisms[event.mechanism_id] = replace(self._mechanisms[event.mechanism_id], retired=True)


def _objection(registry: Registry | _Draft, event: e.RegistryEvent) -> str | None:
    match event:
        case e.PartyRegistered():
            return None
        case e.ActorEnrolled():
            enrolled = registry.actors.get(event.actor_id)
            if event.party_id not in registry.parties:
                return f"party {event.party_id} is not registered"
            return _unchangeable("actor", event.actor_id, event.party_id, enrolled)
        case e.ActorRetired():
            return None if event.actor_id in registry.actors else f"actor {event.actor_id} is not enrolled"
        case e.MechanismDefined():
            if event.party_id not in registry.parties:
                return f"party {event.party_id} is not registered"
            return _unchangeable("mechanism", event.mechanism_id, event.party_id, registry.mechanisms.get(event.mechanism_id))
        case e.MechanismRetired():
            return None if event.mechanism_id in registry.mechanisms else f"mechanism {event.mechanism_id} is not defined"
        case _:
            return f"{event.type} is no event of the registry"


def _unchangeable(noun: str, known_id: str, party_id: str, known: Enrolment | Mechanism | None) -> str | None:
    if known is None:
        return None
    if known.retired:
        return f"{noun} {known_id} is retired: give the new one another id"
    if known.party_id != party_id:
        return f"{noun} {known_id} belongs to party {known.party_id} and cannot move to {party_id}"
    return None
