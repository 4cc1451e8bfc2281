"""Trees as files that any web server can hand out: C2SP tlog-tiles (https://c2sp.org/tlog-tiles), tiles of height 8.

    checkpoint                          the newest checkpoint, a signed note
    tile/<level>/<number>[.p/<width>]   hashes of the tree of manifests
    tile/entries/<number>[.p/<width>]   the manifests themselves, each after its length in two bytes, big-endian
    partition/<n>/tile/<level>/...      hashes of partition n's tree of `recorded`; its entries are the values in the log itself

A tile holds the hashes, of 32 bytes each, of full subtrees of 256**level leaves: 256 of them, from the (256 * number)th on. One that is not
full yet lies under its width, `.p/<width>`. A number is written as tlog-tiles says: 1,234,067 is x001/x234/067.

Partial tiles are written for the sizes of a manifest. One that is full supersedes its partial ones, which go once a later checkpoint is
out.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from aidtrail.audit.folder import Folder
from aidtrail.audit.merkle import HASH_BYTES, Tree, leaf_hash
from aidtrail.errors import SealError

WIDTH = 256
"""Hashes in a full tile."""
HEIGHT = 8

Level = int | Literal["entries"]


def tile_path(level: Level, number: int, width: int = WIDTH) -> str:
    """Requires 1 <= width <= WIDTH."""
    thousands, last = divmod(number, 1000)
    path = f"{last:03d}"
    while thousands:
        thousands, group = divmod(thousands, 1000)
        path = f"x{group:03d}/{path}"
    return f"tile/{level}/{path}" if width == WIDTH else f"tile/{level}/{path}.p/{width}"


def partition_folder(number: int) -> str:
    """Before the paths of a partition's tiles."""
    return f"partition/{number}/"


def read_tile(folder: Folder, prefix: str, level: Level, number: int, width: int) -> bytes:
    """A tile of that width, or the full one that superseded it. Raises SealError where there is neither."""
    path = prefix + tile_path(level, number, width)
    found = folder.read(path)
    if found is None and width < WIDTH:
        found = folder.read(prefix + tile_path(level, number))
    if found is None:
        raise SealError(f"{folder.root / path} is missing")
    return found


class TiledTree:
    """A tree that only grows, kept in a folder. Memory holds its right edge: at each level the hashes that fill no tile yet, at most
    255."""

    def __init__(self, folder: Folder, prefix: str = "", edges: Sequence[list[bytes]] = ()) -> None:
        self._folder = folder
        self._prefix = prefix
        self._edges = list(edges)
        self._saved: int | None = None

    @classmethod
    def opened(cls, folder: Folder, prefix: str, size: int) -> "TiledTree":
        """The tree of the first `size` leaves of those in the folder; only its right edge is read, and is as somebody wrote it: compare the
        root with one that is known. Raises SealError where a tile is missing."""
        edges, level = [], 0
        while (count := size >> HEIGHT * level) > 0:
            number, width = divmod(count, WIDTH)
            tile = read_tile(folder, prefix, level, number, width) if width else b""
            edges.append(_hashes(tile)[:width])
            level += 1
        return cls(folder, prefix, edges)

    @property
    def size(self) -> int:
        return sum(len(edge) << HEIGHT * level for level, edge in enumerate(self._edges))

    @property
    def edge(self) -> list[bytes]:
        """The leaves that fill no tile yet, by their hashes."""
        return list(self._edges[0]) if self._edges else []

    @property
    def root(self) -> bytes:
        return Tree(self.size, [peak for edge in reversed(self._edges) for peak in _over(edge).peaks]).root

    def root_at(self, size: int) -> bytes:
        """The root when it had `size` leaves. Requires 0 <= size <= the size."""
        return Tree.stored(size, self.node).root

    def node(self, level: int, index: int) -> bytes:
        """What proofs ask for (`merkle.Node`). Raises SealError where a tile is missing."""
        tile_level, height = divmod(level, HEIGHT)
        number, at = divmod(index << height, WIDTH)
        edge = self._edges[tile_level]
        begin = (self.size >> HEIGHT * tile_level) - len(edge)
        hashes = edge if number * WIDTH == begin else _hashes(read_tile(self._folder, self._prefix, tile_level, number, WIDTH))
        return _over(hashes[at : at + (1 << height)]).root

    def last_leaf(self) -> bytes:
        """The hash of the last leaf. Requires a tree that is not empty."""
        return self.node(0, self.size - 1)

    def extend_hashes(self, hashes: Sequence[bytes]) -> None:
        """Append leaves, given by their hashes. Writes each tile that becomes full."""
        number, level = self.size, 0
        while hashes:
            if level == len(self._edges):
                self._edges.append([])
            edge = self._edges[level]
            edge += hashes
            full, number = len(edge) // WIDTH, number // WIDTH
            hashes = [self._finish(level, number + at, edge[WIDTH * at : WIDTH * (at + 1)]) for at in range(full)]
            del edge[: WIDTH * full]
            level += 1

    def frozen(self) -> "TiledTree":
        """As it is now, for another thread to read while this one grows."""
        return TiledTree(self._folder, self._prefix, [list(edge) for edge in self._edges])

    def save(self) -> None:
        """Write the tiles that are not full."""
        size = self.size
        if size == self._saved:
            return
        self._saved = size
        for level, edge in enumerate(self._edges):
            if edge:
                path = tile_path(level, (size >> HEIGHT * level) // WIDTH, len(edge))
                self._folder.keep(self._prefix + path, b"".join(edge))

    def _finish(self, level: int, number: int, hashes: list[bytes]) -> bytes:
        path = self._prefix + tile_path(level, number)
        self._folder.keep(path, b"".join(hashes))
        self._folder.supersede(f"{path}.p")
        return _over(hashes).root


class Bundles:
    """The entries of the tree of manifests, kept in a folder beside its tiles. Memory holds those that fill no bundle yet."""

    def __init__(self, folder: Folder, size: int = 0) -> None:
        """With the first `size` entries of those in the folder. Raises SealError where they are missing."""
        self._folder = folder
        self._number, width = divmod(size, WIDTH)
        self._entries = unbundled(read_tile(folder, "", "entries", self._number, width))[:width] if width else []

    def append(self, entry: bytes) -> None:
        self._entries.append(entry)
        if len(self._entries) == WIDTH:
            path = tile_path("entries", self._number)
            self._folder.keep(path, bundled(self._entries))
            self._folder.supersede(f"{path}.p")
            self._entries.clear()
            self._number += 1

    def save(self) -> None:
        if self._entries:
            self._folder.keep(tile_path("entries", self._number, len(self._entries)), bundled(self._entries))

    def hashes(self) -> list[bytes]:
        """The leaf hashes of those that fill no bundle yet."""
        return [leaf_hash(entry) for entry in self._entries]

    def __iter__(self) -> Iterator[bytes]:
        """All of them, in order."""
        for number in range(self._number):
            yield from unbundled(read_tile(self._folder, "", "entries", number, WIDTH))
        yield from list(self._entries)


def bundled(entries: Sequence[bytes]) -> bytes:
    """Requires entries of at most 65,535 bytes."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def unbundled(bundle: bytes) -> list[bytes]:
    """Raises SealError where the last entry is cut off."""
    entries, at = [], 0
    while at < len(bundle):
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if end > len(bundle):
            raise SealError(f"a bundle of entries: expected {end} bytes and more, found {len(bundle)}")
        entries.append(bundle[at + 2 : end])
        at = end
    return entries


def _over(hashes: Sequence[bytes]) -> Tree:
    tree = Tree()
    tree.extend_hashes(hashes)
    return tree


def _hashes(tile: bytes) -> list[bytes]:
    if len(tile) % HASH_BYTES:
        raise SealError(f"a tile: expected hashes of {HASH_BYTES} bytes, found {len(tile)} bytes")
    return [tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)]
