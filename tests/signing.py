"""Actors who sign, for tests: each has a key that follows from his name."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aidtrail import codec
from aidtrail.domain import events as e
from aidtrail.signatures import sign
from tests.acts import ACTORS, PARTIES, START, uuid7

E = TypeVar("E", bound=e.Event)


def key_of(actor_id: str, number: int = 0) -> Ed25519PrivateKey:
    """The actor's key; another for each number."""
    return Ed25519PrivateKey.from_private_bytes(codec.sha256(f"{actor_id}/{number}".encode()))


def public_key_of(actor_id: str, number: int = 0) -> bytes:
    return key_of(actor_id, number).public_key().public_bytes_raw()


def enrolled(actor_id: str, *public_keys: bytes) -> e.ActorEnrolled:
    """An actor of `tests.acts` enrolled again, with these keys."""
    party_id, *roles = ACTORS[actor_id]
    event_id = uuid7(START, 1 << 62 | int.from_bytes(codec.sha256(actor_id.encode() + b"".join(public_keys))[:7], "big"))
    return e.ActorEnrolled(event_id=event_id, occurred_on=START, actor_id=actor_id, party_id=party_id, roles=roles, public_keys=public_keys)


def requiring(party_id: str) -> e.PartyRegistered:
    """A party of `tests.acts` that requires signatures from here on."""
    name, kind, country = PARTIES[party_id]
    event_id = uuid7(START, 1 << 62 | int.from_bytes(codec.sha256(party_id.encode())[:7], "big"))
    return e.PartyRegistered(
        event_id=event_id, occurred_on=START, party_id=party_id, name=name, kind=kind, country=country, signatures_required=True
    )


def signing_party(party_id: str) -> Iterator[e.RegistryEvent]:
    """The party requires signatures, and each of its actors in service has a key."""
    yield requiring(party_id)
    yield from (
        enrolled(actor, public_key_of(actor)) for actor, (party, *_) in ACTORS.items() if party == party_id and "retired" not in actor
    )


def signed(events: Iterable[E], *party_ids: str) -> Iterator[E]:
    """The events, those of the parties' actors with their signatures."""
    for event in events:
        yield sign(event, key_of(event.meta.actor.actor_id)) if event.meta.actor.party_id in party_ids else event
