"""A folder whose files are there whole or not at all, also after a power cut: each is written beside its place, synced, moved there, and
its folder synced."""

import os
from pathlib import Path


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

    def sync(self, path: Path) -> None:
        """What the file holds, or which files the folder holds, is on the disk."""
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
        self._known: set[Path] = set()
        """Folders that stand, and all that was in them before: synced, or to be with the next `settle`."""
        self._superseded: list[str] = []

    def read(self, path: str) -> bytes | None:
        """None where there is no such file."""
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """Durable after the next `settle`; until then an older one may come back, never a part of it."""
        target = self.root / path
        self._make(target.parent)
        beside = target.with_name(target.name + ".new")
        self._disk.write(beside, data)
        self._disk.sync(beside)
        self._disk.rename(beside, target)
        self._unsynced[target.parent] = None

    def keep(self, path: str, data: bytes) -> None:
        """As `write`, unless it is there already."""
        if self.read(path) != data:
            self.write(path, data)
        else:
            self._make((self.root / path).parent)

    def settle(self) -> None:
        """All that was written is durable."""
        for folder in list(self._unsynced):
            self._disk.sync(folder)
            del self._unsynced[folder]

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
                self._known.discard(folder)
        self._superseded.clear()

    def _make(self, folder: Path) -> None:
        """Make it and those above it, as far as `root`. A process that ended early may have left them, and what is in them, unsynced."""
        if folder in self._known:
            return
        if folder == self.root:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            self._make(folder.parent)
            if not folder.is_dir():
                self._disk.make_folder(folder)
                self._unsynced[folder.parent] = None
        self._unsynced[folder] = None
        self._known.add(folder)
