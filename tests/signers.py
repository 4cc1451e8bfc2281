"""Keys that are the same in every process: the names of tests hold them, and processes that share a run must know its tests by one name."""

from aidtrail import codec
from aidtrail.audit.note import ED25519, SignerKey


def signer(name: str, type: int = ED25519, holder: str = "") -> SignerKey:
    """The key that `holder` has under that name."""
    return SignerKey(name, type, codec.sha256(f"{name} {type} {holder}".encode()))
