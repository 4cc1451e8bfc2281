"""The secret keys of seals and witnesses."""

from pathlib import Path

from aidtrail.audit.note import COSIGNATURE, ED25519, SignerKey
from aidtrail.errors import NoteError, UsageError
from aidtrail.keys import read_secret, write_secret

KINDS = {ED25519: "seal", COSIGNATURE: "witness"}


def make_key(name: str, key_type: int, file: Path) -> SignerKey:
    """Write a new secret key to a new file. Raises UsageError where there is one already."""
    try:
        key = SignerKey.generate(name, key_type)
    except NoteError as error:
        raise UsageError(str(error)) from None
    write_secret(file, key.skey + "\n")
    return key


def read_key(file: Path, key_type: int) -> SignerKey:
    """Raises UsageError for a file that holds no key of that type, or that others than its owner may read."""
    expected = f"{file}: expected the secret key of a {KINDS[key_type]}, as 'aidtrail audit seal-key' makes it"
    try:
        key = SignerKey.parse(read_secret(file, expected).removesuffix("\n"))
    except NoteError as error:
        raise UsageError(f"{expected}; found: {error}") from None
    if key.type != key_type:
        raise UsageError(f"{expected}; found that of a {KINDS[key.type]}")
    return key
