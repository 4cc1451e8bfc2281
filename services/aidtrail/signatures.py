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

_P = 2**255 - 19
_OF_ORDER_8 = (
    0x05FC536D880238B13933C6D305ACDFD5F098EFF244F3C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
)
OF_SMALL_ORDER = frozenset((y | sign << 255).to_bytes(32, "little") for y in (0, 1, _P - 1, _P, _P + 1, *_OF_ORDER_8) for sign in (0, 1))
"""Every way to write one of the eight points of small order, as libsodium has them. With such a key anybody can sign, without a secret:
an actor who had it enrolled could deny whatever he signed."""

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
    if public_key in OF_SMALL_ORDER:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True
