"""The Merkle tree of RFC 6962, section 2.1 (as in RFC 9162), over raw bytes with SHA-256. Pure: it knows no storage.

A *leaf* is any bytes. Its hash is SHA-256(0x00 || leaf), that of a node SHA-256(0x01 || left || right), so no leaf can pass for a node. The
tree over `size` leaves splits at the largest power of two below `size`: all but its right edge are full subtrees, which never change again.

Proofs ask for full subtrees only, through a function `node(level, index)`: the hash over the 2**level leaves from index * 2**level on.
Whoever stores them (tiles, a list, a database) passes that function; hashes at level 0 are leaf hashes.

A proof speaks of a root, and binds a size only as far as the shape of the tree between leaf and root: the path of leaf 0 among 3 verifies
against the same root for 4 as well. A size is worth what the signature over (size, root) is worth: take both from one checkpoint.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence

from aidtrail.errors import ProofError

Node = Callable[[int, int], bytes]
"""`node(level, index)`: hash of the full subtree of 2**level leaves that begins at leaf index * 2**level."""

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()
"""The root of the tree without leaves."""

_sha256 = hashlib.sha256


def leaf_hash(leaf: bytes) -> bytes:
    return _sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return _sha256(b"\x01" + left + right).digest()


def root(leaves: Iterable[bytes]) -> bytes:
    """The root of the tree over `leaves`, MTH of RFC 6962 section 2.1."""
    tree = Tree()
    tree.extend(leaves)
    return tree.root


class Tree:
    """A tree that only grows, of which the hashes of its full subtrees are kept: as many as `size` has bits set, at most 64.

    `peaks` are those hashes, from the first and largest on; `Tree(size, peaks)` goes on where another one was.
    """

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """Requires 0 <= size, and one hash of 32 bytes in `peaks` for each bit that is set in `size`."""
        if size < 0 or len(peaks) != size.bit_count():
            raise ProofError("0 <= size and a peak for each bit set in it", f"size {size} with {len(peaks)} peaks")
        _require_hashes("each peak", peaks)
        self.size = size
        self._peaks = list(peaks)

    @classmethod
    def stored(cls, size: int, node: Node) -> "Tree":
        """The tree over the first `size` leaves of those that `node` knows. Requires 0 <= size."""
        return cls(size, [node(level, index) for level, index in _full_subtrees(0, size)])

    @property
    def peaks(self) -> tuple[bytes, ...]:
        return tuple(self._peaks)

    @property
    def root(self) -> bytes:
        return _folded(self._peaks) if self._peaks else EMPTY_ROOT

    def append(self, leaf: bytes) -> None:
        sha256, peaks, size, last = _sha256, self._peaks, self.size, leaf_hash(leaf)
        while size & 1:
            last = sha256(b"\x01" + peaks.pop() + last).digest()
            size >>= 1
        peaks.append(last)
        self.size += 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        """As `append` for each, and faster for many at once. Holds a hash (32 bytes) for each of `leaves` while it runs."""
        sha256 = _sha256
        self._extend([sha256(b"\x00" + leaf).digest() for leaf in leaves])

    def extend_hashes(self, hashes: Sequence[bytes]) -> None:
        """As `extend`, for leaves whose hashes are there already. Requires 32 bytes each."""
        _require_hashes("each leaf hash", hashes)
        self._extend(list(hashes))

    def _extend(self, hashes: list[bytes]) -> None:
        """Level by level: pair what is there, with the peak of that level before it; an odd one out is the new peak of the level."""
        sha256, peaks, size, new_peaks = _sha256, self._peaks, self.size, []
        self.size += len(hashes)
        while hashes:
            if size & 1:
                hashes.insert(0, peaks.pop())
            if len(hashes) & 1:
                new_peaks.append(hashes.pop())
            pairs = iter(hashes)
            hashes = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
            size >>= 1
        peaks.extend(reversed(new_peaks))


def inclusion_path(index: int, size: int, node: Node) -> list[bytes]:
    """The hashes that lead from leaf `index` to the root over `size` leaves: PATH of RFC 6962 section 2.1.1, the leaf's sibling first.

    Requires 0 <= index < size. Asks for at most 2 * log2(size) subtrees.
    """
    _require_index(index, size)
    path, begin, end = [], 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(_range_hash(middle, end, node))
            end = middle
        else:
            path.append(_range_hash(begin, middle, node))
            begin = middle
    return path[::-1]


def consistency_path(old: int, new: int, node: Node) -> list[bytes]:
    """The hashes that show that the tree over `new` leaves begins with the tree over `old`: PROOF of RFC 6962 section 2.1.2.

    Requires 1 <= old <= new; empty where they are equal. Asks for at most 2 * log2(new) subtrees.
    """
    _require_sizes(old, new)
    path, begin, end = [], 0, new
    while old != end:
        middle = begin + _split(end - begin)
        if old <= middle:
            path.append(_range_hash(middle, end, node))
            end = middle
        else:
            path.append(_range_hash(begin, middle, node))
            begin = middle
    if begin > 0:
        path.append(_range_hash(begin, end, node))
    return path[::-1]


def verify_inclusion(leaf_hash: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Raises ProofError unless `path` leads from `leaf_hash` at `index` to `root` over `size` leaves: RFC 9162 section 2.1.3.2.

    Requires 0 <= index < size, and `path` as long as the tree is high at that leaf.
    """
    _require_index(index, size)
    _require_hashes("the leaf hash and each of the path", (leaf_hash, *path))
    at, last, computed = index, size - 1, leaf_hash
    for sibling in path:
        if last == 0:
            raise ProofError(f"the path of leaf {index} of {size}", f"a longer one, of {len(path)} hashes")
        if at & 1 or at == last:
            computed = node_hash(sibling, computed)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise ProofError(f"the path of leaf {index} of {size}", f"a shorter one, of {len(path)} hashes")
    _require_root(f"leaf {index} of {size}", root, computed)


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Raises ProofError unless `path` shows that the tree of `new_root` begins with that of `old_root`: RFC 9162 section 2.1.4.2.

    Requires 1 <= old_size <= new_size. Every tree begins with the empty one: that needs no proof, and there is none to verify.
    """
    _require_sizes(old_size, new_size)
    if old_size == new_size:
        if path:
            raise ProofError(f"no path between equal sizes {old_size}", f"{len(path)} hashes")
        _require_root(f"the same size {old_size}", old_root, new_root)
        return
    _require_hashes("both roots and each of the path", (old_root, new_root, *path))
    sizes = f"{old_size} leaves in {new_size}"
    if not path:
        raise ProofError(f"the path of {sizes}", "an empty one")
    old_is_full = old_size & (old_size - 1) == 0
    hashes = [old_root, *path] if old_is_full else path
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old_computed = new_computed = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise ProofError(f"the path of {sizes}", f"a longer one, of {len(path)} hashes")
        if at & 1 or at == last:
            old_computed, new_computed = node_hash(sibling, old_computed), node_hash(sibling, new_computed)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new_computed = node_hash(new_computed, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise ProofError(f"the path of {sizes}", f"a shorter one, of {len(path)} hashes")
    _require_root(f"{sizes}, the old tree", old_root, old_computed)
    _require_root(f"{sizes}, the new tree", new_root, new_computed)


def _split(size: int) -> int:
    """The largest power of two below `size`. Requires 2 <= size."""
    return 1 << ((size - 1).bit_length() - 1)


def _full_subtrees(begin: int, end: int) -> list[tuple[int, int]]:
    """The (level, index) of the full subtrees that leaves `begin` to `end - 1` consist of, left to right. Requires `begin` to be a multiple
    of a power of two not below `end - begin`, as all ranges of an RFC 6962 tree are."""
    subtrees = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        subtrees.append((level, begin >> level))
        begin += 1 << level
    return subtrees


def _range_hash(begin: int, end: int, node: Node) -> bytes:
    return _folded([node(level, index) for level, index in _full_subtrees(begin, end)])


def _folded(peaks: Sequence[bytes]) -> bytes:
    """One hash over full subtrees of falling size: the smaller ones join first."""
    folded = peaks[-1]
    for peak in peaks[-2::-1]:
        folded = node_hash(peak, folded)
    return folded


def _require_index(index: int, size: int) -> None:
    if not 0 <= index < size:
        raise ProofError("0 <= index < size", f"index {index} of size {size}")


def _require_sizes(old: int, new: int) -> None:
    if not 1 <= old <= new:
        raise ProofError("1 <= old size <= new size", f"old size {old}, new size {new}")


def _require_hashes(which: str, hashes: Sequence[bytes]) -> None:
    if wrong := set(map(len, hashes)) - {HASH_BYTES}:
        raise ProofError(f"{which} of {HASH_BYTES} bytes", f"one of {min(wrong)}")


def _require_root(of: str, stated: bytes, computed: bytes) -> None:
    if stated != computed:
        raise ProofError(f"for {of} the root {stated.hex()}", computed.hex())
