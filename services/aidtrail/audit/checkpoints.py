"""Reading what the seal speaks of: the topic `checkpoints`, and the leaves that `recorded` holds.

`checkpoints` has one partition. For each seal it holds the manifest and then the checkpoint that covers it, both with the name of the
seal's key as their record's key. Of several manifests with one index the first counts that continues the chain: one that was appended
twice, or too late, is without effect.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from aidtrail.audit import note as notes
from aidtrail.audit.manifest import EMPTY_LEAF, FIRST_LINE, Manifest
from aidtrail.audit.merkle import leaf_hash
from aidtrail.audit.note import Checkpoint, Note, VerifierKey
from aidtrail.errors import NoteError, UnavailableError
from aidtrail.log import READ_SECONDS, Log, Record, up_to

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
