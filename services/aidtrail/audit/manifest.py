"""Manifests: what one checkpoint says of every partition. Pure.

A *manifest* is text in UTF-8, each line ended by a newline (0x0a):

    aidtrail-manifest/1
    <origin>            the name of the key that seals
    <index>             its own: 0, 1, 2, ...
    <previous>          SHA-256 of the manifest before it; 32 zero bytes in the first one
    <view>              SHA-256 of the cut of the live views at these sizes (`cuts` says of what); a hyphen where there is none
    <size> <root>       leaves and root of partition 0's tree
    ...                 a line for each partition, in order

Numbers are decimal without leading zeros, hashes 32 bytes in padded base64 (RFC 4648 section 4). The bytes of a manifest are the leaf at
its index of the tree that checkpoints are signed for. In a partition's tree the leaf at index i is the value of the record at offset i,
whatever it is: admitted, refused, void, undecodable. Where an offset holds no value (a null, an empty one, a marker of a Kafka transaction)
the leaf is empty: such an offset has no effect on any reader, and these three are not told apart.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import NamedTuple

from aidtrail.audit.merkle import EMPTY_ROOT, HASH_BYTES, leaf_hash
from aidtrail.errors import NoteError

FIRST_LINE = "aidtrail-manifest/1"
MAX_BYTES = 2**16 - 1
"""Of one entry in tlog-tiles: room for about 1,000 partitions."""
ZEROS = bytes(HASH_BYTES)
EMPTY_LEAF = leaf_hash(b"")

_LINE = re.compile(r"(0|[1-9][0-9]{0,18}) (\S+)")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")


class Stand(NamedTuple):
    """How far a partition's tree was: its leaves and their root."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    origin: str
    index: int
    previous: bytes
    view: bytes | None
    partitions: tuple[Stand, ...]

    @classmethod
    def after(cls, previous: "Manifest | None", origin: str, partitions: tuple[Stand, ...], view: bytes | None = None) -> "Manifest":
        """The one that comes next. `previous` is None for the first."""
        return cls(origin, previous.index + 1 if previous else 0, previous.sha256 if previous else ZEROS, view, partitions)

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.encode()).digest()

    @property
    def records(self) -> int:
        return sum(stand.size for stand in self.partitions)

    def encode(self) -> bytes:
        view = "-" if self.view is None else _base64(self.view)
        stands = [f"{size} {_base64(root)}" for size, root in self.partitions]
        return "\n".join((FIRST_LINE, self.origin, str(self.index), _base64(self.previous), view, *stands, "")).encode()

    @classmethod
    def parse(cls, encoded: bytes) -> "Manifest":
        """Raises NoteError for bytes that `encode` would not have written."""
        try:
            first, origin, index, previous, view, *stands, last = encoded.decode().split("\n")
        except ValueError:
            raise NoteError("manifest", "UTF-8 in six lines and more", "other bytes") from None
        if first != FIRST_LINE or last or not origin or not stands or len(encoded) > MAX_BYTES or not _NUMBER.fullmatch(index):
            raise NoteError("manifest", f"{FIRST_LINE}, an origin, an index and partitions, at most {MAX_BYTES} bytes", "other text")
        manifest = cls(origin, int(index), _hash(previous), None if view == "-" else _hash(view), tuple(map(_stand, stands)))
        if manifest.encode() != encoded:
            raise NoteError("manifest", "the one way to write it", "another")
        return manifest

    def breaks(self, previous: "Manifest | None") -> str | None:
        """Why this one cannot come after `previous` (None: cannot be the first); None if it can. Expected and found are in the answer."""
        expected = Manifest.after(previous, self.origin, self.partitions, self.view)
        if self.index != expected.index:
            return f"expected manifest {expected.index}, found {self.index}"
        if self.previous != expected.previous:
            return f"manifest {self.index}: expected {expected.previous.hex()} before it, found {self.previous.hex()}"
        if previous is None:
            return None
        if (previous.origin, len(previous.partitions)) != (self.origin, len(self.partitions)):
            return f"manifest {self.index}: expected origin and number of partitions of the one before it, found others"
        for number, (before, now) in enumerate(zip(previous.partitions, self.partitions, strict=True)):
            if now.size < before.size or (now.size == before.size and now.root != before.root):
                return f"manifest {self.index}: expected partition {number} to go on from its {before.size} leaves, found {now.size}"
        return None


def largest(origin: str, partitions: int) -> int:
    """The bytes that a manifest of so many partitions can come to have."""
    far = Stand(2**63 - 1, EMPTY_ROOT)
    return len(Manifest(origin, far.size, ZEROS, ZEROS, (far,) * partitions).encode())


def _stand(line: str) -> Stand:
    matched = _LINE.fullmatch(line)
    if matched is None:
        raise NoteError("manifest", "size and root of a partition", ascii(line[:64]))
    return Stand(int(matched[1]), _hash(matched[2]))


def _hash(text: str) -> bytes:
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        decoded = b""
    if len(decoded) != HASH_BYTES:
        raise NoteError("manifest", f"{HASH_BYTES} bytes in base64", ascii(text[:64]))
    return decoded


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
