"""Secret keys in files that only their owner may read."""

import os
import stat
from pathlib import Path

from aidtrail.audit.folder import Disk
from aidtrail.audit.note import COSIGNATURE, ED25519, SignerKey
from aidtrail.errors import NoteError, UsageError

KINDS = {ED25519: "seal", COSIGNATURE: "witness"}


def make_key(name: str, key_type: int, file: Path) -> SignerKey:
    """Write a new secret key to a new file. Raises UsageError where there is one already."""
    try:
        key = SignerKey.generate(name, key_type)
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except NoteError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"{file}: expected a place for a new file, found: {error.strerror}") from None
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(key.skey + "\n")
        opened.flush()
        os.fsync(handle)
    Disk().sync([file.parent])
    return key


def read_key(file: Path, key_type: int) -> SignerKey:
    """Raises UsageError for a file that holds no key of that type, or that others than its owner may read."""
    expected = f"{file}: expected the secret key of a {KINDS[key_type]}, as 'aidtrail audit seal-key' makes it"
    try:
        if os.stat(file).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsageError(f"{file}: expected a file that its owner alone may read, found one that others may: chmod 600 {file}")
        key = SignerKey.parse(file.read_text(encoding="utf-8").removesuffix("\n"))
    except (OSError, UnicodeDecodeError, NoteError) as error:
        raise UsageError(f"{expected}; found: {error}") from None
    if key.type != key_type:
        raise UsageError(f"{expected}; found that of a {KINDS[key.type]}")
    return key
