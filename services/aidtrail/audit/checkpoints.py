"""Reading what the seal speaks of: the topic `checkpoints`, and the leaves that `recorded` holds.

`checkpoints` has one partition. For each seal it holds the manifest and then the checkpoint that covers it, both with the name of the
seal's key as their record's key, and the manifest with the key's signature in a header. Of several manifests with one index the first
counts that continues the chain and that the key stands behind: it is signed, or one after it is, or a checkpoint covers it, as in releases
that did not sign them. One that was appended twice, too late, or by somebody else, is without effect, whatever it says.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from aidtrail.audit import note as notes
from aidtrail.audit.manifest import EMPTY_LEAF, FIRST_LINE, ZEROS, Manifest
from aidtrail.audit.merkle import Tree, leaf_hash
from aidtrail.audit.note import Checkpoint, Note, SignerKey, VerifierKey
from aidtrail.errors import NoteError, UnavailableError
from aidtrail.log import READ_SECONDS, Draft, Log, Record, up_to

SIGNATURE = "signature"
"""A header: the signature over the record's value, as the line that would make a signed note of it."""

MAX_BATCH = 10_000
POLL_SECONDS = 30.0


class Signed(NamedTuple):
    """A checkpoint whose signature by the seal's key was verified, and the note that it is the text of."""

    checkpoint: Checkpoint
    note: Note


def opened(encoded: bytes, key: VerifierKey) -> Signed:
    """The checkpoint in a note that `key` signed. Raises NoteError for any other bytes."""
    note = notes.parse(encoded)
    notes.verify(note, [key])
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != key.name or checkpoint.extensions:
        raise NoteError("checkpoint", f"origin {key.name} and no extensions", f"origin {checkpoint.origin}")
    return Signed(checkpoint, note)


def published(record: Record, key: VerifierKey) -> Manifest | Signed | None:
    """What a record of `checkpoints` is to those who trust `key`: None if it is somebody else's, or nothing at all."""
    value = record.value or b""
    try:
        if not value.startswith(f"{FIRST_LINE}\n".encode()):
            return opened(value, key)
        manifest = Manifest.parse(value)
    except NoteError:
        return None
    return manifest if manifest.origin == key.name else None


def drafted(manifest: bytes, topic: str, key: SignerKey) -> Draft:
    """The record of a manifest."""
    return Draft(topic, 0, key.name.encode(), manifest, [(SIGNATURE, str(notes.sign(manifest.decode(), key)).encode())])


def is_signed(record: Record, key: VerifierKey) -> bool:
    """Whether the record of a manifest has the key's signature over it."""
    for name, line in record.headers:
        if name == SIGNATURE and line is not None:  # Kafka has headers without a value
            try:
                return bool(notes.verify(notes.parse((record.value or b"") + b"\n" + line), [key]))
            except NoteError:
                return False
    return False


class Candidate(NamedTuple):
    """A manifest that continues the chain, the record that it stands in, and the tree of the manifests up to it."""

    manifest: Manifest
    record: Record
    tree: Tree


class Counting:
    """Which manifests count, as the topic is read from where `last` is the newest that does, and `tree` the tree up to it."""

    def __init__(self, key: VerifierKey, last: Manifest | None = None, tree: Tree | None = None) -> None:
        self.last = last
        self._key = key
        self._tree = tree or Tree()
        self._waiting: dict[bytes, Candidate] = {}
        """By SHA-256, those that nobody is known to stand behind: each continues the chain, or another of them."""

    def take(self, found: Manifest | Signed, record: Record) -> list[Candidate]:
        """Those that count now that this record is known, in order."""
        if isinstance(found, Signed):
            tips = [
                one for one in self._waiting.values() if (one.tree.size, one.tree.root) == (found.checkpoint.size, found.checkpoint.root)
            ]
            return self._counted(tips[0]) if tips else []
        last, tree = self.last, self._tree
        if found.previous in self._waiting:
            last, _, tree = self._waiting[found.previous]
        if found.breaks(last) is not None:
            return []
        tree = Tree(tree.size, tree.peaks)
        tree.append(found.encode())
        tip = self._waiting.setdefault(found.sha256, Candidate(found, record, tree))
        return self._counted(tip) if is_signed(record, self._key) else []

    def _counted(self, tip: Candidate) -> list[Candidate]:
        head, path = self.last.sha256 if self.last else ZEROS, [tip]
        while path[-1].manifest.previous != head:
            before = self._waiting.get(path[-1].manifest.previous)
            if before is None:
                return []  # it continued one that did not come to count
            path.append(before)
        self.last, self._tree = tip.manifest, tip.tree
        self._waiting = {sha256: one for sha256, one in self._waiting.items() if one.manifest.index > tip.manifest.index}
        return path[::-1]


def records(log: Log, topic: str, begin: int, end: int) -> Iterator[Record]:
    """The records of the first partition from offset `begin` to before `end`."""
    with closing(log.reader(topic)) as reader:
        reader.assign({0: begin})
        for batch in up_to(reader, topic, 0, end, max_records=MAX_BATCH, patience_seconds=POLL_SECONDS):
            yield from (record for record in batch if record.offset < end)


def last_leaves(log: Log, topic: str, sizes: Mapping[int, int]) -> dict[int, bytes]:
    """The hash of the last of so many leaves of each partition. Requires sizes from 1 to the partitions' ends."""
    found: dict[int, bytes] = {}
    if not sizes:
        return found
    with closing(log.reader(topic)) as reader:
        reader.assign({number: size - 1 for number, size in sizes.items()})
        deadline = time.monotonic() + POLL_SECONDS
        while len(found) < len(sizes):
            for number, batch in reader.poll(MAX_BATCH, READ_SECONDS).items():
                if number not in found:
                    found[number] = leaf_hash(batch[0].value or b"") if batch[0].offset == sizes[number] - 1 else EMPTY_LEAF
            found = {number: EMPTY_LEAF for number, at in reader.positions().items() if at >= sizes[number]} | found
            if time.monotonic() > deadline:
                raise UnavailableError(f"{topic} could not be read; is the broker up?")
    return found


class Leaves:
    """The leaf hashes of a topic's partitions, taken in order, a stretch at a time. Memory holds a batch of each partition."""

    def __init__(self, log: Log, topic: str, begin: Sequence[int]) -> None:
        self._ends = log.end_offsets(topic)
        self._topic = topic
        self._next = list(begin)
        self._ahead: list[list[bytes]] = [[] for _ in begin]
        self._reader = log.reader(topic)
        self._reading: int | None = None

    def take(self, partition: int, count: int) -> list[bytes]:
        """The next `count` of them; fewer where the log ended before when this was made."""
        ahead = self._ahead[partition]
        while len(ahead) < count and self._next[partition] < self._ends[partition]:
            self._read(partition)
        taken, self._ahead[partition] = ahead[:count], ahead[count:]
        return taken

    def close(self) -> None:
        self._reader.close()

    def _read(self, partition: int) -> None:
        if self._reading != partition:
            self._reader.assign({partition: self._next[partition]})
            self._reading = partition
        end = self._ends[partition]
        batch = next(up_to(self._reader, self._topic, partition, end, max_records=MAX_BATCH, patience_seconds=POLL_SECONDS), None)
        if batch is None:  # the log ends in a transaction's marker
            self._next[partition] = end
            return
        hashes, self._next[partition] = leaf_hashes(batch, self._next[partition])
        self._ahead[partition] += hashes


def leaf_hashes(batch: Sequence[Record], next_offset: int) -> tuple[list[bytes], int]:
    """The leaf hashes from `next_offset` to the last record of the batch, and the offset after it. An offset without a record is empty."""
    if batch[-1].offset - next_offset == len(batch) - 1:
        return [leaf_hash(record.value or b"") for record in batch], batch[-1].offset + 1
    hashes = []
    for record in batch:
        hashes += [EMPTY_LEAF] * (record.offset - next_offset)
        hashes.append(leaf_hash(record.value or b""))
        next_offset = record.offset + 1
    return hashes, next_offset
