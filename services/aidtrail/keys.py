"""Secret keys in files that only their owner may read."""

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from aidtrail.errors import UsageError


def make_actor_key(file: Path) -> bytes:
    """Write a new secret Ed25519 key to a new file, as PKCS #8 in PEM (RFC 8410), which openssl and HSM tools read; returns the public key,
    32 bytes. Raises UsageError where there is a file already."""
    key = Ed25519PrivateKey.generate()
    write_secret(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    return key.public_key().public_bytes_raw()


def read_actor_key(file: Path) -> Ed25519PrivateKey:
    """Raises UsageError for a file that holds no such key, or that others than its owner may read."""
    expected = f"{file}: expected the secret key of an actor, as 'aidtrail registry key' makes it"
    try:
        key = load_pem_private_key(read_secret(file, expected).encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(f"{expected}; found another text") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{expected}; found a key that is not of Ed25519")
    return key


def write_secret(file: Path, text: str) -> None:
    """To a new file, durably. Raises UsageError where there is one already."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"{file}: expected a place for a new file, found: {error.strerror}") from None
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(handle)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_secret(file: Path, expected: str) -> str:
    """Raises UsageError, which says what was expected, for a file that is no text or that others than its owner may read."""
    try:
        if os.stat(file).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsageError(f"{file}: expected a file that its owner alone may read, found one that others may: chmod 600 {file}")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{expected}; found: {error.strerror if isinstance(error, OSError) else error}") from None
