"""A seal in this process: its log, its folder, all that it ever signed; and a disk that ends it, or the power, at any step."""

import hashlib
import itertools
import random
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aidtrail.audit.checkpoints import Signed, opened, published, records
from aidtrail.audit.folder import Disk
from aidtrail.audit.manifest import Manifest
from aidtrail.audit.merkle import leaf_hash, root
from aidtrail.audit.note import Note
from aidtrail.audit.seal import Sealer
from aidtrail.audit.sealed import CHECKPOINT
from aidtrail.audit.tiles import TiledTree, tile_path, unbundled
from aidtrail.log import Appended, Draft, Log
from aidtrail.topics import Topics
from tests.signers import signer

PARTITIONS = 3
KEY = signer("aidtrail.example/log")


class Unsynced(Disk):
    """For tests in which nobody cuts the power."""

    def sync(self, paths: Collection[Path]) -> None:
        pass


class Subject:
    """A log, the seal's folder, and every note that was ever signed, published or not."""

    def __init__(self, log: Log, folder: Path, prefix: str = "donations") -> None:
        self.log, self.folder, self.topics = log, folder, Topics.of(prefix)
        self.topics.create(log, PARTITIONS)
        self.signed: list[Note] = []
        self._numbers = itertools.count()

    def record(self, count: int, partition: int | None = None, log: Log | None = None) -> None:
        """Entries, in turn to each partition where none is named."""
        appender = (log or self.log).appender()
        numbers = itertools.islice(self._numbers, count)
        appender.append(
            [Draft(self.topics.recorded, n % PARTITIONS if partition is None else partition, b"K", f"entry {n}".encode()) for n in numbers]
        )
        appender.close()

    @contextmanager
    def sealer(self, log: Log | None = None, **options: Any) -> Iterator[Sealer]:
        def note_down(note: Note, tree: TiledTree) -> Note:
            self.signed.append(note)
            return note

        sealer = Sealer(
            log or self.log, self.topics, KEY, self.folder, **{"seal_seconds": 0.0, "cosign": note_down, "disk": Unsynced(), **options}
        )
        try:
            yield sealer
        finally:
            sealer.close()

    def seal(self, **options: Any) -> None:
        """Until all that is in the log is sealed."""
        with self.sealer(**options) as sealer:
            sealer.turn()
            while self.sealed_records() < sum(self.log.end_offsets(self.topics.recorded).values()):
                sealer.turn()

    def sealed_records(self) -> int:
        found = self.topic()
        sizes = [one.checkpoint.size for one in found if isinstance(one, Signed)]
        return counted(found)[max(sizes) - 1].records if sizes else 0

    def newest(self) -> Signed:
        """The checkpoint in the topic."""
        return [one for one in self.topic() if isinstance(one, Signed)][-1]

    def topic(self) -> list[Manifest | Signed]:
        end = self.log.end_offsets(self.topics.checkpoints)[0]
        found = (published(record, KEY.verifier) for record in records(self.log, self.topics.checkpoints, 0, end))
        return [one for one in found if one is not None]

    def values(self) -> list[list[bytes]]:
        """Of every partition of `recorded`."""
        values: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        for number, end in self.log.end_offsets(self.topics.recorded).items():
            reader = self.log.reader(self.topics.recorded)
            reader.assign({number: 0})
            while len(values[number]) < end:
                values[number] += [record.value or b"" for record in reader.poll(10_000, 5.0).get(number, [])]
            reader.close()
        return values

    def require_true(self) -> int:
        """All that was ever signed is of one chain of manifests, each of which states the log's own trees. Returns how many there are."""
        found, values = self.topic(), self.values()
        manifests = counted(found)
        for number, (before, manifest) in enumerate(itertools.pairwise((None, *manifests))):
            assert manifest is not None
            assert manifest.breaks(before) is None
            assert manifest.index == number
        for manifest in {*manifests[::17], *manifests[-3:]}:
            for (size, stated), leaves in zip(manifest.partitions, values, strict=True):
                assert stated == root(leaves[:size])
        leaves = [manifest.encode() for manifest in manifests]
        checkpoints = [one for one in found if isinstance(one, Signed)]
        checkpoints += [opened(note.encode(), KEY.verifier) for note in self.signed]
        for signed in checkpoints:
            assert 1 <= signed.checkpoint.size <= len(leaves)
            assert signed.checkpoint.root == root(leaves[: signed.checkpoint.size]), "two histories signed"
        return len(checkpoints)

    def require_files(self) -> None:
        """The folder is what tlog-tiles asks for at the newest checkpoint, whose signature verifies, and which the topic has as well."""
        encoded = (self.folder / CHECKPOINT).read_bytes()
        checkpoint = opened(encoded, KEY.verifier).checkpoint
        found = self.topic()
        assert checkpoint in [one.checkpoint for one in found if isinstance(one, Signed)]
        manifests = counted(found)[: checkpoint.size]
        require_tiles(self.folder, [leaf_hash(manifest.encode()) for manifest in manifests])
        number, width = divmod(checkpoint.size, 256)
        bundles = [tile_path("entries", before) for before in range(number)] + ([tile_path("entries", number, width)] if width else [])
        entries = [entry for path in bundles for entry in unbundled((self.folder / path).read_bytes())]
        assert entries == [manifest.encode() for manifest in manifests]
        for number, values in enumerate(self.values()):
            require_tiles(self.folder / f"partition/{number}", list(map(leaf_hash, values[: manifests[-1].partitions[number].size])))


def counted(found: Sequence[Manifest | Signed]) -> list[Manifest]:
    """The manifests that the newest checkpoint covers, found from the last one back: each names the hash of the one before."""
    checkpoints = [one.checkpoint for one in found if isinstance(one, Signed)]
    if not checkpoints:
        return []
    newest = max(checkpoints, key=lambda one: one.size)
    manifests = {one.sha256: one for one in found if isinstance(one, Manifest)}
    for chain in ([one] for one in manifests.values() if one.index == newest.size - 1):
        while chain[0].previous in manifests:
            chain.insert(0, manifests[chain[0].previous])
        if root([one.encode() for one in chain]) == newest.root:
            return chain
    raise AssertionError("the manifests that the newest checkpoint covers are not in the topic")


def require_tiles(folder: Path, hashes: list[bytes]) -> None:
    """All tiles of the tree over these leaves, computed here level by level."""
    level = 0
    while hashes:
        for number in range(-(-len(hashes) // 256)):
            tile = hashes[256 * number : 256 * (number + 1)]
            path = folder / tile_path(level, number, len(tile))
            assert path.read_bytes() == b"".join(tile), path
        full = [hashes[at : at + 256] for at in range(0, len(hashes) // 256 * 256, 256)]
        for _ in range(8):
            full = [
                [hashlib.sha256(b"\x01" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=True)] for row in full
            ]
        hashes, level = [row[0] for row in full], level + 1


class Killed(BaseException):
    """The process is gone."""


class Fragile(Disk):
    """A disk, and an appender, that end the process at one step: before it, or half way. With `rng` what was not synced may be lost."""

    def __init__(self, kill_at: int, rng: random.Random | None = None) -> None:
        self.steps = 0
        self._kill_at = kill_at
        self._rng = rng
        self._unsynced_files: set[Path] = set()
        self._undo: dict[Path, list[Callable[[], None]]] = {}

    def step(self) -> None:
        self.steps += 1
        if self.steps == self._kill_at:
            if self._rng is not None:
                self.cut_power(self._rng)
            raise Killed

    def make_folder(self, path: Path) -> None:
        self.step()
        super().make_folder(path)
        self._undo.setdefault(path.parent, []).append(lambda: shutil.rmtree(path, ignore_errors=True))

    def write(self, path: Path, data: bytes) -> None:
        super().write(path, data[: len(data) // 2])
        self._unsynced_files.add(path)
        self.step()
        super().write(path, data)

    def rename(self, old: Path, new: Path) -> None:
        self.step()
        before = new.read_bytes() if new.exists() else None
        super().rename(old, new)
        if old in self._unsynced_files:
            self._unsynced_files.remove(old)
            self._unsynced_files.add(new)

        def undo() -> None:
            if before is not None:
                new.write_bytes(before)
            else:
                new.unlink(missing_ok=True)

        self._undo.setdefault(new.parent, []).append(undo)

    def remove(self, path: Path) -> None:
        self.step()
        super().remove(path)

    def remove_folder(self, path: Path) -> None:
        self.step()
        super().remove_folder(path)

    def sync(self, paths: Collection[Path]) -> None:
        """One after the other, in any order."""
        for path in random.Random(self.steps).sample(list(paths), len(paths)):
            self.step()
            self._unsynced_files.discard(path)
            self._undo.pop(path, None)

    def cut_power(self, rng: random.Random) -> None:
        """What was not synced may be lost."""
        for path in sorted(self._unsynced_files):
            if path.exists():
                path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size + 1)])
        for undone in self._undo.values():
            for undo in reversed(undone[rng.randrange(len(undone) + 1) :]):
                undo()


class FragileLog:
    """A log whose appends are two steps of a fragile disk: before and after the records stand in the log."""

    def __init__(self, log: Log, disk: Fragile) -> None:
        self._log, self._disk = log, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def appender(self) -> Any:
        appender, disk = self._log.appender(), self._disk

        class Appender:
            def append(self, drafts: Sequence[Draft]) -> list[Appended]:
                disk.step()
                appended = appender.append(drafts)
                disk.step()
                return appended

            def close(self) -> None:
                appender.close()

        return Appender()
