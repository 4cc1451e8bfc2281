"""Signed notes, checkpoints and cosignatures: C2SP signed-note, tlog-checkpoint and tlog-cosignature (https://c2sp.org). Pure: no clock.

A *note* is text that ends in a newline, an empty line, and one line for each signature: `— <key name> <base64 of key id and signature>`.
A *checkpoint* is a note whose text is origin, tree size and root hash, a line each. A *cosignature* is what a witness adds to a checkpoint:
its signature over the text and the time at which it looked.

Reading is strict: what is read is written again as the same bytes. A key is trusted as name and public key together, as whoever checks was
told them by another way; the key id of four bytes in the note only finds it.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aidtrail.audit.merkle import HASH_BYTES
from aidtrail.errors import NoteError

ED25519 = 0x01
COSIGNATURE = 0x04
"""The two types of keys, as signed-note numbers them: of logs, and of witnesses, whose signatures carry a time."""

MAX_NOTE_BYTES = 256 * 1024
MAX_SIGNATURES = 100
"""Each far above any note (verifiers must accept 16 signatures, of up to 5 KB), far below what would keep a reader busy."""

MAX_NUMBER = 2**63 - 1
"""The largest tree size, and the largest time in seconds since 1970."""

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_FORBIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")
"""Control characters but the newline, and halves of characters, which UTF-8 cannot hold."""
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_SECRET_PREFIX = "PRIVATE+KEY+"


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A key to check with. `str()` gives its vkey, `<name>+<key id>+<base64 of type and public key>`, which `parse` reads."""

    name: str
    type: int
    public: bytes

    def __post_init__(self) -> None:
        _require_key(self.name, self.type, self.public)

    @property
    def id(self) -> bytes:
        """Four bytes: the beginning of SHA-256(name || 0x0a || type || public key)."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.public).digest()[:4]

    def __str__(self) -> str:
        return _key_text(self, self.public)

    @classmethod
    def parse(cls, vkey: str) -> "VerifierKey":
        name, key_id, key_type, public = _read_key("verifier key", vkey)
        key = cls(name, key_type, public)
        _require_id(key, key_id)
        return key


@dataclass(frozen=True, slots=True)
class SignerKey:
    """A key to sign with. `secret` is Ed25519's seed of 32 bytes (RFC 8032). Give each signer, and each type, a secret of its own."""

    name: str
    type: int
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _require_key(self.name, self.type, self.secret)

    @classmethod
    def generate(cls, name: str, type: int = ED25519) -> "SignerKey":
        return cls(name, type, Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey(self.name, self.type, Ed25519PrivateKey.from_private_bytes(self.secret).public_key().public_bytes_raw())

    @property
    def skey(self) -> str:
        """The secret as text, `PRIVATE+KEY+<name>+<key id>+<base64 of type and secret>`, which `parse` reads. Never log it."""
        return _SECRET_PREFIX + _key_text(self.verifier, self.secret)

    @classmethod
    def parse(cls, skey: str) -> "SignerKey":
        if not skey.startswith(_SECRET_PREFIX):
            raise NoteError("signer key", f"{_SECRET_PREFIX}<name>+<key id>+<base64>", "another text")
        name, key_id, key_type, secret = _read_key("signer key", skey.removeprefix(_SECRET_PREFIX))
        key = cls(name, key_type, secret)
        _require_id(key.verifier, key_id)
        return key


class Signature(NamedTuple):
    """One signature line. `value` is what follows the key id: 64 bytes of a log, 8 bytes of time and 64 of a witness, any of others."""

    name: str
    key_id: bytes
    value: bytes

    def __str__(self) -> str:
        return f"— {self.name} {_base64(self.key_id + self.value)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """`text`, with its last newline and without the empty line; and signatures, of which nothing is known before `verify`."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        return (self.text + "\n" + "".join(map(str, self.signatures))).encode()


class Signed(NamedTuple):
    """A signature that verified. `time_seconds` is when a witness looked, in seconds since 1970; None of a log."""

    key: VerifierKey
    time_seconds: int | None


def parse(note: bytes) -> Note:
    """The note that `note` is, with all its signatures, none of them verified: do not use its text before `verify` has passed.

    Raises NoteError for anything that signed-note does not allow, for more than MAX_NOTE_BYTES and for more than MAX_SIGNATURES.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise NoteError("note", f"at most {MAX_NOTE_BYTES} bytes", f"{len(note)}")
    try:
        decoded = note.decode()
    except UnicodeDecodeError as error:
        raise NoteError("note", "UTF-8", f"other bytes at {error.start}") from None
    text, separator, tail = decoded.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise NoteError("note", "text, an empty line and signatures, each with its newline", _shown(decoded[-64:]))
    text += "\n"
    _require_text(text)
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError("note", f"at most {MAX_SIGNATURES} signatures", f"{len(lines)}")
    return Note(text, tuple(map(_signature, lines)))


def verify(note: Note, keys: Iterable[VerifierKey]) -> tuple[Signed, ...]:
    """Which of `keys` signed the note: in the order of its lines, each key once.

    Signatures of other keys are ignored. Raises NoteError where one that names a key of `keys` is wrong, also beside right ones, and where
    there is none. Says nothing of how many signed, or whether the log's own key did: that is for the caller to require.
    """
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.id), key) != key:
            raise NoteError("verifier keys", "one key for each name and key id", f"two for {_shown(key.name)} {key.id.hex()}")
    signed: dict[VerifierKey, Signed] = {}
    for signature in note.signatures:
        signer = known.get((signature.name, signature.key_id))
        if signer is not None:
            time_seconds = _verified(note.text, signature, signer)
            signed.setdefault(signer, Signed(signer, time_seconds))
    if not signed:
        raise NoteError("note", "a signature of a trusted key", f"{len(note.signatures)} of other keys")
    return tuple(signed.values())


def sign(text: str, key: SignerKey) -> Signature:
    """The signature of a log over `text`. Requires a key of type ED25519, and text that ends in a newline."""
    _require_text(text)
    _require_type(key, ED25519)
    return Signature(key.name, key.verifier.id, _sign(key, text.encode()))


def cosign(text: str, key: SignerKey, time_seconds: int) -> Signature:
    """The signature of a witness over the checkpoint `text`, seen at `time_seconds`: cosignature/v1.

    Requires a key of type COSIGNATURE and 0 <= time_seconds < 2**63.
    """
    Checkpoint.parse(text)
    _require_type(key, COSIGNATURE)
    _require_number("time", time_seconds)
    value = time_seconds.to_bytes(8, "big") + _sign(key, _cosigned(text, time_seconds))
    return Signature(key.name, key.verifier.id, value)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's tree of `size` leaves with `root`. `str()` gives the text to sign, which `parse` reads.

    Requires an origin that is not empty, 0 <= size < 2**63, a root of 32 bytes and no empty extension; each a line of text.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()
    """Opaque lines. No monitor can audit them: better none."""

    def __post_init__(self) -> None:
        for line in (self.origin, *self.extensions):
            if not line or "\n" in line:
                raise NoteError("checkpoint", "an origin and extensions of one line each, none empty", _shown(line))
        _require_number("tree size", self.size)
        if len(self.root) != HASH_BYTES:
            raise NoteError("root hash", f"{HASH_BYTES} bytes", f"{len(self.root)}")
        _require_text(str(self))

    def __str__(self) -> str:
        return "\n".join((self.origin, str(self.size), _base64(self.root), *self.extensions, ""))

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        _require_text(text)
        lines = text[:-1].split("\n")
        if len(lines) < 3:
            raise NoteError("checkpoint", "origin, tree size and root hash, a line each", f"{len(lines)} lines")
        origin, size, root, *extensions = lines
        if not _DECIMAL.fullmatch(size):
            raise NoteError("tree size", "a decimal number of at most 19 digits without leading zeros", _shown(size))
        return cls(origin, int(size), _unbase64("root hash", root), tuple(extensions))


def _cosigned(text: str, time_seconds: int) -> bytes:
    return f"cosignature/v1\ntime {time_seconds}\n{text}".encode()


def _sign(key: SignerKey, message: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(key.secret).sign(message)


def _verified(text: str, signature: Signature, key: VerifierKey) -> int | None:
    """The time of a cosignature, None of another one. Raises NoteError where the signature is wrong."""
    value, message, time_seconds = signature.value, text.encode(), None
    if key.type == COSIGNATURE:
        time_seconds = int.from_bytes(value[:8], "big")
        value, message = value[8:], _cosigned(text, time_seconds)
        _require_number("time", time_seconds)
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(value, message)
    except InvalidSignature:
        raise NoteError("note", f"a signature by {_shown(key.name)}", "a wrong one: the text or the signature was altered") from None
    return time_seconds


def _signature(line: str) -> Signature:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—":
        raise NoteError("signature line", "em dash, key name and base64, a space between", _shown(line))
    _, name, value = parts
    _require_name(name)
    decoded = _unbase64("signature", value)
    if len(decoded) <= 4:
        raise NoteError("signature", "a key id of 4 bytes and more", f"{len(decoded)} bytes")
    return Signature(name, decoded[:4], decoded[4:])


def _key_text(key: VerifierKey, value: bytes) -> str:
    return f"{key.name}+{key.id.hex()}+{_base64(bytes([key.type]) + value)}"


def _read_key(where: str, text: str) -> tuple[str, str, int, bytes]:
    """Name, key id, type and the key's bytes. What was found is not shown: it may be a secret."""
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise NoteError(where, "<name>+<key id>+<base64>", f"{len(parts)} parts")
    name, key_id, encoded = parts
    value = _unbase64(where, encoded)
    if len(value) != 1 + KEY_BYTES:
        raise NoteError(where, f"{1 + KEY_BYTES} bytes of type and key", f"{len(value)}")
    return name, key_id, value[0], value[1:]


def _require_key(name: str, key_type: int, value: bytes) -> None:
    _require_name(name)
    if key_type not in (ED25519, COSIGNATURE):
        raise NoteError("key type", f"{ED25519} (Ed25519) or {COSIGNATURE} (cosignature)", f"{key_type}")
    if len(value) != KEY_BYTES:
        raise NoteError("key", f"{KEY_BYTES} bytes", f"{len(value)}")


def _require_type(key: SignerKey, key_type: int) -> None:
    if key.type != key_type:
        raise NoteError("key type", f"{key_type}", f"{key.type}")


def _require_id(key: VerifierKey, stated: str) -> None:
    if stated != key.id.hex():
        raise NoteError("key id", f"{key.id.hex()}, which name, type and key give", _shown(stated))


def _require_name(name: str) -> None:
    if not name or "+" in name or any(character.isspace() for character in name) or _FORBIDDEN.search(name):
        raise NoteError("key name", "a name without spaces, plus signs and control characters", _shown(name))


def _require_number(where: str, number: int) -> None:
    if not 0 <= number <= MAX_NUMBER:
        raise NoteError(where, f"a number from 0 to {MAX_NUMBER}", f"{number}")


def _require_text(text: str) -> None:
    if not text.endswith("\n"):
        raise NoteError("text", "a newline at its end", _shown(text[-64:]))
    if forbidden := _FORBIDDEN.search(text):
        raise NoteError("text", "UTF-8 without control characters but newlines", f"{_shown(forbidden[0])} at {forbidden.start()}")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _unbase64(where: str, text: str) -> bytes:
    """The bytes that `text` is the one encoding of. What was found is not shown: it may be a secret."""
    try:
        value = base64.b64decode(text)
    except ValueError:
        value = b""
    if _base64(value) != text:
        raise NoteError(where, "base64 (RFC 4648 section 4, padded)", "another text")
    return value


def _shown(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 64 else f"{shown[:61]}..."
