"""What was sealed, out of the two memories that hold it: the topic `checkpoints` and a folder.

The folder's `state.json` names the newest manifest and is written after all tiles that belong to it. From there on the topic is read: it
may have more (an older folder was put back), or less (the topic was), and where one contradicts the other, or the log, nothing more is
signed.
"""

import base64
import json
import logging
from collections.abc import Iterator
from contextlib import closing, suppress

from aidtrail.audit.checkpoints import MAX_BATCH, Counting, Leaves, Signed, is_signed, last_leaves, opened, published, records
from aidtrail.audit.folder import Folder
from aidtrail.audit.manifest import Manifest, Stand
from aidtrail.audit.merkle import Tree, leaf_hash
from aidtrail.audit.note import Checkpoint, VerifierKey
from aidtrail.audit.tiles import Bundles, TiledTree, partition_folder
from aidtrail.errors import NoteError, SealError, UsageError
from aidtrail.log import Log
from aidtrail.topics import Topics

logger = logging.getLogger(__name__)

STATE, CHECKPOINT, EVIDENCE = "state.json", "checkpoint", "conflict"


class Sealed:
    """The tree of manifests; and the partitions' trees, which are at the last manifest or, with what was read since, beyond."""

    def __init__(self, folder: Folder, key: VerifierKey, partitions: int) -> None:
        """As the folder has it. Raises SealError where the folder is damaged, UsageError where it is another key's."""
        self.folder = folder
        self.key = key
        self.last, root, self.manifest_end = self._read_state()
        if self.last is not None and len(self.last.partitions) != partitions:
            raise self.conflict(f"expected the {len(self.last.partitions)} partitions that were sealed, found {partitions}", self.last)
        self.next_offset = self.manifest_end
        """Of the topic `checkpoints`. `manifest_end` is the one after the last manifest."""
        self.newest: Signed | None = None
        """The newest checkpoint that was read in the topic."""
        stands = self.last.partitions if self.last else ()
        try:
            self.manifests = TiledTree.opened(folder, "", self.last.index + 1 if self.last else 0)
            self._bundles = Bundles(folder, self.manifests.size)
            self.trees = [TiledTree.opened(folder, partition_folder(number), stand.size) for number, stand in enumerate(stands)]
        except SealError as error:
            raise self._damaged(str(error)) from None
        roots = (root or self.manifests.root, *(stand.root for stand in stands))
        if (self.manifests.root, *(tree.root for tree in self.trees)) != roots or self._bundles.hashes() != self.manifests.edge:
            raise self._damaged(f"{folder.root}: the tiles are not those of {STATE}")
        self.trees = self.trees or [TiledTree(folder, partition_folder(number)) for number in range(partitions)]

    @property
    def size(self) -> int:
        return self.manifests.size

    @property
    def records(self) -> int:
        return self.last.records if self.last else 0

    @property
    def checkpoint(self) -> Checkpoint:
        """The one to sign. Requires that it is saved."""
        return Checkpoint(self.key.name, self.size, self.manifests.root)

    @property
    def is_published(self) -> bool:
        """Whether all is saved, and the checkpoint of it stands in topic and folder."""
        state, checkpoint = self.folder.read(STATE), self.folder.read(CHECKPOINT)
        return (
            state == self._state()
            and self.newest is not None
            and self.newest.checkpoint == self.checkpoint
            and checkpoint is not None
            and opened(checkpoint, self.key).checkpoint == self.checkpoint
        )

    def next_manifest(self, view: bytes | None = None) -> Manifest:
        """That of all that was read."""
        return Manifest.after(self.last, self.key.name, tuple(Stand(tree.size, tree.root) for tree in self.trees), view)

    def add(self, manifest: Manifest, offset: int) -> None:
        """The manifest that comes next, and that the trees agree with, stands in the topic at that offset."""
        encoded = manifest.encode()
        self._bundles.append(encoded)
        self.manifests.extend_hashes([leaf_hash(encoded)])
        self.last = manifest
        self.manifest_end = self.next_offset = offset + 1

    def save(self) -> None:
        """Make all of the last manifest durable. Requires trees that are at it. What is there already stays as it is."""
        for tree in (*self.trees, self.manifests):
            tree.save()
        self._bundles.save()
        self.folder.settle()
        self.folder.replace(STATE, self._state())
        self.folder.settle()

    def manifests_from(self, index: int) -> Iterator[bytes]:
        """The manifests of the folder from that one on. Raises SealError where the folder is damaged."""
        previous = None
        for encoded in self._bundles:
            try:
                manifest = Manifest.parse(encoded)
                broken = manifest.breaks(previous)
            except NoteError as error:
                broken = str(error)
            if broken is not None:
                raise self._damaged(f"{self.folder.root / 'tile' / 'entries'}: {broken}")
            if manifest.index >= index:
                yield encoded
            previous = manifest

    # --- the other memory, and the log

    def catch_up(self, log: Log, topics: Topics) -> int:
        """Take what the topic has beyond. Returns how many of the manifests are in the topic: where they are fewer than `size`, it lost
        some, which have to be appended again. Raises SealError for every contradiction."""
        self.require_length(log.end_offsets(topics.recorded))
        self._require_last_leaves(log, topics.recorded)
        end = log.end_offsets(topics.checkpoints)[0]
        ahead: list[Signed] = []
        size, known, begin, expected = self.size, 0, 0, self.manifests_from(0)
        if self._is_intact(log, topics, end):
            known, begin, expected = size, self.manifest_end, iter(())
        awaited, counting = next(expected, None), Counting(self.key, self.last, Tree.stored(size, self.manifests.node))
        with closing(Leaves(log, topics.recorded, [tree.size for tree in self.trees])) as leaves:
            for record in records(log, topics.checkpoints, begin, end):
                found = published(record, self.key)
                if isinstance(found, Manifest) and known < size:  # one of those that the folder has
                    if record.value == awaited:
                        known, awaited, self.manifest_end = known + 1, next(expected, None), record.offset + 1
                    elif awaited is not None and (found.index, found.previous) == _place(awaited) and is_signed(record, self.key):
                        raise self.conflict(f"topic and folder have two manifests {known}", found, Manifest.parse(awaited), self.last)
                elif found is not None:
                    for manifest, at, _ in counting.take(found, record):
                        self._take(manifest, leaves)
                        self.add(manifest, at.offset)
                        known += 1
                    if isinstance(found, Signed):
                        self._take_checkpoint(found, ahead)
                self.next_offset = record.offset + 1
        if (encoded := self.folder.read(CHECKPOINT)) is not None:
            try:
                ahead.append(opened(encoded, self.key))
            except NoteError as error:
                raise self._damaged(f"{self.folder.root / CHECKPOINT}: {error}") from None
        for signed in ahead:
            self._require_consistent(signed)
        return known

    def require_length(self, ends: dict[int, int]) -> None:
        """Raises SealError where the log is shorter than what was read of it."""
        if len(ends) != len(self.trees):
            raise self.conflict(f"recorded: expected {len(self.trees)} partitions, found {len(ends)}", self.last, self.newest)
        for number, tree in enumerate(self.trees):
            if ends[number] < tree.size:
                found = f"found its end at {ends[number]}: records that were there are gone"
                raise self.conflict(f"recorded partition {number}: expected {tree.size} records, {found}", self.last, self.newest)

    def _require_last_leaves(self, log: Log, topic: str) -> None:
        """Raises SealError unless the last record of each partition that was sealed is its last leaf."""
        sizes = {number: tree.size for number, tree in enumerate(self.trees) if tree.size}
        for number, found in last_leaves(log, topic, sizes).items():
            if found != self.trees[number].last_leaf():
                where = f"{topic} partition {number} offset {sizes[number] - 1}"
                raise self.conflict(f"{where}: the log is not as it was sealed: another record stands there", self.last)

    def _is_intact(self, log: Log, topics: Topics, end: int) -> bool:
        """Whether the last manifest stands in the topic where it was."""
        if self.last is None or self.manifest_end > end:
            return False
        found = [record.value for record in records(log, topics.checkpoints, self.manifest_end - 1, self.manifest_end)]
        return found == [self.last.encode()]

    def _take(self, manifest: Manifest, leaves: Leaves) -> None:
        """Let the trees grow to a manifest that comes next."""
        if len(manifest.partitions) != len(self.trees):
            raise self.conflict(f"expected the {len(manifest.partitions)} partitions sealed, found {len(self.trees)}", manifest)
        for number, (stated, tree) in enumerate(zip(manifest.partitions, self.trees, strict=True)):
            while tree.size < stated.size and (hashes := leaves.take(number, min(MAX_BATCH, stated.size - tree.size))):
                tree.extend_hashes(hashes)
            if (found := Stand(tree.size, tree.root)) != stated:
                expected = f"{stated.size} records with the root {stated.root.hex()}"
                where = f"manifest {manifest.index}, partition {number}: the log is not as it was sealed"
                raise self.conflict(f"{where}: expected {expected}, found {found.size} with {found.root.hex()}", manifest, self.last)

    def _take_checkpoint(self, signed: Signed, ahead: list[Signed]) -> None:
        if signed.checkpoint.size > self.size:
            ahead.append(signed)
        else:
            self._require_consistent(signed)
        if self.newest is None or signed.checkpoint.size >= self.newest.checkpoint.size:
            self.newest = signed

    def _require_consistent(self, signed: Signed) -> None:
        """Raises SealError unless the checkpoint, which this key signed, is of this tree."""
        size, root = signed.checkpoint.size, signed.checkpoint.root
        if size > self.size:
            raise self.conflict(f"this key signed a checkpoint of size {size}, and only {self.size} manifests are left", signed, self.last)
        if root != (expected := self.manifests.root_at(size)):
            what = f"this key signed two histories: at size {size} expected the root {expected.hex()}, found {root.hex()}"
            raise self.conflict(what, signed, self.last)

    # --- the folder's state, and evidence

    def _state(self) -> bytes:
        assert self.last is not None
        state = {
            "vkey": str(self.key),
            "manifest": self.last.encode().decode(),
            "root": base64.b64encode(self.manifests.root).decode(),
            "manifest_end": self.manifest_end,
        }
        return json.dumps(state, ensure_ascii=False, indent=1).encode()

    def _read_state(self) -> tuple[Manifest | None, bytes | None, int]:
        encoded = self.folder.read(STATE)
        if encoded is None:
            return None, None, 0
        try:
            state = json.loads(encoded)
            vkey, end = str(state["vkey"]), int(state["manifest_end"])
            read = Manifest.parse(state["manifest"].encode()), base64.b64decode(state["root"], validate=True), end
        except (ValueError, KeyError, TypeError, AttributeError, NoteError) as error:
            raise self._damaged(f"{self.folder.root / STATE}: {error}") from None
        if vkey != str(self.key):
            raise UsageError(f"{self.folder.root} is the seal's folder of another key, {vkey}; move it away, or take that key")
        return read

    def _damaged(self, what: str) -> SealError:
        return SealError(f"{what}. The seal's folder is damaged: keep it as evidence, move it away, and the seal goes on from the topic")

    def conflict(self, what: str, *heads: Signed | Manifest | None) -> SealError:
        """The error to end with. The heads that contradict each other, or the log, are kept in files of their own."""
        with suppress(OSError):  # they are in topic and folder too
            for head in heads:
                if head is None:
                    continue
                encoded = head.encode() if isinstance(head, Manifest) else head.note.encode()
                kind = "manifest" if isinstance(head, Manifest) else "checkpoint"
                number = head.index if isinstance(head, Manifest) else head.checkpoint.size
                self.folder.keep(f"{EVIDENCE}/{kind}-{number}-{leaf_hash(encoded).hex()[:16]}", encoded)
            self.folder.settle()
        return SealError(f"{what}. Nothing more is signed; the heads are in {self.folder.root / EVIDENCE}")


def _place(encoded: bytes) -> tuple[int, bytes]:
    """What a manifest has in common with every other that could stand in its place."""
    manifest = Manifest.parse(encoded)
    return manifest.index, manifest.previous
