"""A folder of files, of which it is known from when on they are durable: that they come back after a power cut, and whole."""

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SYNCS_AT_ONCE = 16
"""A file system commits together what is asked for together."""


class Disk:
    """The steps of which writing durably consists. Each can fail with OSError, and after each the process may be gone."""

    def make_folder(self, path: Path) -> None:
        path.mkdir()

    def write(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)

    def rename(self, old: Path, new: Path) -> None:
        old.replace(new)

    def remove(self, path: Path) -> None:
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        path.rmdir()

    def sync(self, paths: Collection[Path]) -> None:
        """What these files hold, and which files these folders hold, is on the disk."""
        if len(paths) > 1:
            with ThreadPoolExecutor(min(SYNCS_AT_ONCE, len(paths))) as pool:
                list(pool.map(_sync, paths))
        else:
            for path in paths:
                _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Folder:
    """Files by their path within `root`, which is made where it is missing. Everything may raise OSError."""

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self.root = root
        self._disk = disk or Disk()
        self._unsynced: dict[Path, None] = {}
        """Files and folders."""
        self._made: set[Path] = set()
        """Folders that are there, synced or to be with the next `settle`."""
        self._superseded: list[str] = []

    def read(self, path: str) -> bytes | None:
        """None where there is no such file."""
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return None

    def replace(self, path: str, data: bytes) -> None:
        """Durable after the next `settle`; until then the one before may come back, never a part of either."""
        self._move_in(path, data, sync=True)

    def keep(self, path: str, data: bytes) -> None:
        """As `replace`, for a file that nobody relies on before the next `settle`: until then a part of it may come back."""
        found = self.read(path)
        if found != data:
            self._move_in(path, data, sync=found is not None)
        else:  # who wrote it may have ended before it was durable
            self._make((self.root / path).parent)
            self._unsynced[self.root / path] = None

    def settle(self) -> None:
        """All that was written is durable."""
        self._disk.sync(self._unsynced)
        self._unsynced.clear()

    def supersede(self, path: str) -> None:
        """The folder at `path` goes with the next `tidy`."""
        self._superseded.append(path)

    def tidy(self) -> None:
        """Remove what is superseded, where it is there. Not synced: what comes back does no harm."""
        for path in self._superseded:
            folder = self.root / path
            if folder.is_dir():
                for file in sorted(folder.iterdir()):
                    self._disk.remove(file)
                self._disk.remove_folder(folder)
                self._made.discard(folder)
        self._superseded.clear()

    def _move_in(self, path: str, data: bytes, sync: bool) -> None:
        target = self.root / path
        self._make(target.parent)
        beside = target.with_name(target.name + ".new")
        self._disk.write(beside, data)
        if sync:
            self._disk.sync([beside])
        self._disk.rename(beside, target)
        self._unsynced |= {target: None, target.parent: None}

    def _make(self, folder: Path) -> None:
        """Make it and those above it, as far as `root`. A process that ended early may have left them, and what is in them, unsynced."""
        if folder in self._made:
            return
        if folder == self.root:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            self._make(folder.parent)
            if not folder.is_dir():
                self._disk.make_folder(folder)
        self._unsynced |= {folder: None, folder.parent: None}
        self._made.add(folder)
