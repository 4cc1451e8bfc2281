"""An actor's signature over what he submits: Ed25519 (RFC 8032) over the pre-authentication encoding of DSSE v1. Pure.

What is signed is the submission's own bytes as they are without a signature: from a submission, and from the entry that it became, anybody
has them back by taking out what was spliced in (`codec.unsigned`); nothing is encoded again. Ed25519 is deterministic, so an event that is
signed again is the same bytes again: a duplicate, and not a second submission.

It shows that the entry was written by whoever holds the key, and that nobody, the operator included, changed a word since. It cannot show
who that was, that the registry has the right key for him, or that he was not made to. A key that two pipelines know signs for both.
"""

from collections.abc import Iterable
from typing import TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aidtrail import codec
from aidtrail.domain.events import Event

PAYLOAD_TYPE = "application/vnd.aidtrail.event+avro"

E = TypeVar("E", bound=Event)


def pae(payload_type: str, payload: bytes) -> bytes:
    """What DSSE v1 signs: "DSSEv1", then length and bytes of type and payload (secure-systems-lab/dsse, protocol.md, "Signature
    Definition"). No two pairs have the same."""
    stated = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(stated), stated, len(payload), payload)


def sign(event: E, key: Ed25519PrivateKey) -> E:
    """The event with the signature of its actor, whose key this must be. One that is signed already is left as it is."""
    if event.meta.signature is not None:
        return event
    signature = key.sign(pae(PAYLOAD_TYPE, codec.encode(event)))
    return event.model_copy(update={"meta": event.meta.model_copy(update={"signature": signature})})


def is_signed(submission: bytes, ledger_at: int, signature: bytes, public_keys: Iterable[bytes]) -> bool:
    """Whether `signature` is over this submission by any of these keys. Requires that `codec.read(submission)`
    gave `ledger_at` and an event with this signature."""
    message = pae(PAYLOAD_TYPE, codec.unsigned(submission, ledger_at))
    return any(_verifies(public_key, signature, message) for public_key in public_keys)


def _verifies(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True
