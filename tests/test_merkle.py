"""The Merkle tree: the published vectors of others, and what must hold for any tree and any tampering with a proof."""

import base64
import hashlib
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aidtrail.audit import merkle
from aidtrail.audit.merkle import Tree, consistency_path, inclusion_path, verify_consistency, verify_inclusion
from aidtrail.errors import ProofError

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "merkle"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the published Merkle vectors are not beside this checkout")

MAX_SIZE = 300
LEAVES = [f"leaf {number}".encode() * (number % 5) + number.to_bytes(2, "big") for number in range(MAX_SIZE)]
HASHES = [merkle.leaf_hash(leaf) for leaf in LEAVES]
MIN_LEAVES_PER_SECOND = 50_000
"""A quarter of what sealing is to reach: a machine that is shared must not fail a test. `-s` prints what was measured."""

sizes = st.integers(1, MAX_SIZE)


def data(name: str) -> Any:
    return json.loads((DATA / name).read_bytes())


def unbase64(texts: list[str] | None) -> list[bytes]:
    return [base64.b64decode(text, validate=True) for text in texts or []]


@cache
def node(level: int, index: int) -> bytes:
    """A full subtree over LEAVES."""
    if level == 0:
        return HASHES[index]
    return merkle.node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))


def by_definition(hashes: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, as written there, from leaf hashes on."""
    if len(hashes) <= 1:
        return hashes[0] if hashes else hashlib.sha256().digest()
    k = max(2**n for n in range(len(hashes).bit_length()) if 2**n < len(hashes))
    return hashlib.sha256(b"\x01" + by_definition(hashes[:k]) + by_definition(hashes[k:])).digest()


ROOTS = [by_definition(HASHES[:size]) for size in range(MAX_SIZE + 1)]


def accepted(verify: Callable[..., None], *arguments: Any) -> bool:
    try:
        verify(*arguments)
    except ProofError:
        return False
    return True


# --- published vectors --------------------------------------------------------------------------------------------------------------


@needs_data
def test_the_published_roots_of_sizes_0_to_8_come_out() -> None:
    stated = data("roots.json")
    leaves = [bytes.fromhex(leaf) for leaf in stated["leaves_hex"]]
    tree = Tree()

    roots = [tree.root.hex()]
    for leaf in leaves:
        tree.append(leaf)
        roots.append(tree.root.hex())

    assert roots == stated["roots_hex"]
    assert [merkle.root(leaves[:size]).hex() for size in range(9)] == stated["roots_hex"]
    print(f"\n{len(roots)} roots of sizes 0 to {tree.size}: all as published")


@needs_data
def test_the_published_nodes_and_hashes_come_out() -> None:
    stated, leaves = data("nodes.json"), [bytes.fromhex(leaf) for leaf in data("roots.json")["leaves_hex"]]
    kinds = {"empty": lambda: merkle.EMPTY_ROOT, "leaf": merkle.leaf_hash, "node": merkle.node_hash}
    nodes = 0

    for level, row in enumerate(stated["nodes_hex"]):
        for index, expected in enumerate(row):
            assert merkle.root(leaves[index << level : (index + 1) << level]).hex() == expected
            nodes += 1
    for case in stated["hasher"]:
        assert kinds[case["kind"]](*map(bytes.fromhex, case["inputs_hex"])).hex() == case["hash_hex"], case["name"]

    print(f"\n{nodes} nodes and {len(stated['hasher'])} hashes: all as published")


@needs_data
def test_every_published_inclusion_case_is_told_apart() -> None:
    outcomes: Counter[bool] = Counter()
    cases = data("inclusion.json")

    for case in cases:
        root, leaf = unbase64([case["root"], case["leafHash"]])
        passed = accepted(verify_inclusion, leaf, case["leafIdx"], case["treeSize"], unbase64(case["proof"]), root)
        outcomes[passed] += 1
        assert passed is not case["wantErr"], case["name"]

    print(f"\n{len(cases)} inclusion cases: {outcomes[True]} pass, {outcomes[False]} rejected as told")
    assert outcomes == {True: 2, False: 64}


@needs_data
def test_every_published_consistency_case_is_told_apart() -> None:
    outcomes: Counter[bool] = Counter()
    cases = data("consistency.json")

    for case in cases:
        old_root, new_root = unbase64([case["root1"], case["root2"]])
        passed = accepted(verify_consistency, case["size1"], old_root, case["size2"], new_root, unbase64(case["proof"]))
        outcomes[passed] += 1
        assert passed is not case["wantErr"], case["name"]

    print(f"\n{len(cases)} consistency cases: {outcomes[True]} pass, {outcomes[False]} rejected as told")
    assert outcomes == {True: 3, False: 63}


def subtrees(end: int) -> Iterator[int]:
    """Where valid subtrees that end at `end` may begin: at 0, at `end` (empty), or at a multiple of a power of two not below their size."""
    for start in range(end + 1):
        if start in (0, end) or start % (1 << (end - start - 1).bit_length()) == 0:
            yield start


def from_leaf(start: int, node: merkle.Node) -> merkle.Node:
    """`node` as seen by a tree whose leaf 0 is the leaf `start`."""
    return lambda level, index: node(level, index + (start >> level))


def subtree_consistency(start: int, end: int, size: int, node: merkle.Node) -> list[bytes]:
    """Down to the smallest tree that begins at `start`, noting what lies beside; within it, it is a proof between two sizes."""
    beside: list[bytes] = []
    begin, tree_end = 0, size
    while begin < start:
        middle = begin + (1 << ((tree_end - begin - 1).bit_length() - 1))
        if start >= middle:
            beside.append(Tree.stored(middle - begin, from_leaf(begin, node)).root)
            begin = middle
        else:
            beside.append(Tree.stored(tree_end - middle, from_leaf(middle, node)).root)
            tree_end = middle
    return consistency_path(end - begin, tree_end - begin, from_leaf(begin, node)) + beside[::-1]


@needs_data
def test_the_published_digests_over_all_proofs_of_130_leaves_come_out() -> None:
    stated, size = data("rolling.json"), 130
    level_hashes = [[merkle.leaf_hash(bytes([leaf])) for leaf in range(size)]]
    while len(below := level_hashes[-1]) > 1:
        level_hashes.append([merkle.node_hash(left, right) for left, right in zip(below[::2], below[1::2], strict=False)])

    def node(level: int, index: int) -> bytes:
        return level_hashes[level][index]

    hashes, inclusions, consistencies = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    counts: Counter[str] = Counter()
    for end in range(size + 1):
        for start in subtrees(end):
            root = Tree.stored(end - start, from_leaf(start, node)).root
            hashes.update(f"[{start}, {end}) {root.hex()}\n".encode())
            counts["hashes"] += 1
            for index in range(start, end):
                path = inclusion_path(index - start, end - start, from_leaf(start, node))
                inclusions.update(" ".join([f"{index} [{start}, {end})", *(one.hex() for one in path)]).encode() + b"\n")
                counts["inclusion proofs"] += 1
    for tree_size in range(size + 1):
        for end in range(tree_size + 1):
            for start in subtrees(end):
                path = subtree_consistency(start, end, tree_size, node) if start < end else []
                consistencies.update(" ".join([f"[{start}, {end}) {tree_size}", *(one.hex() for one in path)]).encode() + b"\n")
                counts["consistency proofs"] += 1

    assert hashes.hexdigest() == stated["subtree_hashes"]["sha256"]
    assert inclusions.hexdigest() == stated["inclusion_proofs"]["sha256"]
    assert consistencies.hexdigest() == stated["consistency_proofs"]["sha256"]
    print(f"\nsubtrees of 130 leaves: {dict(counts)}: digests as published")


# --- the tree -----------------------------------------------------------------------------------------------------------------------


def test_every_size_has_the_root_of_the_recursive_definition() -> None:
    tree = Tree()

    assert tree.root == ROOTS[0] == merkle.EMPTY_ROOT
    for size, leaf in enumerate(LEAVES, start=1):
        tree.append(leaf)
        assert tree.size == size
        assert tree.root == ROOTS[size] == Tree.stored(size, node).root


@given(st.lists(st.integers(0, 70), max_size=8))
def test_a_tree_fed_in_any_batches_is_the_tree_of_all_leaves(batches: list[int]) -> None:
    leaves, by_leaf, by_hash, by_turns = iter(LEAVES * 2), Tree(), Tree(), Tree()

    fed: list[bytes] = []
    for turn, batch in enumerate(batches):
        some = list(itertools.islice(leaves, batch))
        fed += some
        by_leaf.extend(iter(some))
        by_hash.extend_hashes([merkle.leaf_hash(leaf) for leaf in some])
        by_turns = Tree(by_turns.size, by_turns.peaks)
        if turn % 2:
            by_turns.extend(some)
        else:
            for leaf in some:
                by_turns.append(leaf)

    expected = by_definition([merkle.leaf_hash(leaf) for leaf in fed])
    assert {tree.root for tree in (by_leaf, by_hash, by_turns)} == {expected} == {merkle.root(fed)}
    assert {tree.size for tree in (by_leaf, by_hash, by_turns)} == {len(fed)}
    assert by_leaf.peaks == by_hash.peaks == by_turns.peaks


def test_hashes_that_were_handed_in_are_left_as_they_were() -> None:
    hashes = list(HASHES)

    Tree(1, HASHES[:1]).extend_hashes(hashes)

    assert hashes == HASHES


@pytest.mark.parametrize(
    ("size", "peaks"), [(-1, []), (-1, [HASHES[0]]), (0, [HASHES[0]]), (3, [HASHES[0]]), (1, [b"short"]), (4, HASHES[:2])]
)
def test_a_tree_is_not_resumed_from_peaks_that_do_not_fit_its_size(size: int, peaks: list[bytes]) -> None:
    with pytest.raises(ProofError, match="expected"):
        Tree(size, peaks)


def test_a_hash_of_another_length_is_not_appended() -> None:
    tree = Tree()

    with pytest.raises(ProofError, match="each leaf hash of 32 bytes, found one of 31"):
        tree.extend_hashes([HASHES[0], HASHES[1][:31]])

    assert tree.size == 0


def test_a_leaf_cannot_pass_for_a_node() -> None:
    left, right = HASHES[:2]

    assert merkle.root([left + right]) != merkle.root(LEAVES[:2])
    assert not accepted(verify_inclusion, merkle.leaf_hash(left + right), 0, 1, [], ROOTS[2])


def test_leaves_are_hashed_faster_than_they_arrive() -> None:
    leaves = [random.Random(number).randbytes(400) for number in range(50_000)]
    rates = {}

    for batch in (1, 500):
        tree, began = Tree(), time.perf_counter()
        for first in range(0, len(leaves), batch):
            if batch == 1:
                tree.append(leaves[first])
            else:
                tree.extend(leaves[first : first + batch])
        rates[batch] = round(len(leaves) / (time.perf_counter() - began))

    print(f"\nleaves of 400 bytes a second: {rates[1]:,} one by one, {rates[500]:,} in batches of 500")
    assert min(rates.values()) > MIN_LEAVES_PER_SECOND


# --- proofs -------------------------------------------------------------------------------------------------------------------------


def test_every_inclusion_proof_of_every_size_up_to_64_verifies() -> None:
    proofs = 0

    for size in range(1, 65):
        for index in range(size):
            verify_inclusion(HASHES[index], index, size, inclusion_path(index, size, node), ROOTS[size])
            proofs += 1

    print(f"\n{proofs} inclusion proofs: all verify")


def test_every_consistency_proof_of_every_pair_of_sizes_up_to_64_verifies() -> None:
    proofs = 0

    for new in range(1, 65):
        for old in range(1, new + 1):
            verify_consistency(old, ROOTS[old], new, ROOTS[new], consistency_path(old, new, node))
            proofs += 1

    print(f"\n{proofs} consistency proofs: all verify")


@given(st.data())
def test_proofs_of_random_sizes_verify_and_ask_for_few_full_subtrees(drawn: st.DataObject) -> None:
    size = drawn.draw(sizes)
    index, old = drawn.draw(st.integers(0, size - 1)), drawn.draw(st.integers(1, size))
    asked: list[tuple[int, int]] = []

    def counted(level: int, index: int) -> bytes:
        asked.append((level, index))
        return node(level, index)

    verify_inclusion(HASHES[index], index, size, inclusion_path(index, size, counted), ROOTS[size])
    verify_consistency(old, ROOTS[old], size, ROOTS[size], consistency_path(old, size, counted))

    assert len(asked) <= 4 * size.bit_length()
    assert all((index + 1) << level <= size for level, index in asked)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (2, 1), (-1, 1), (0, -1), (2**64 - 1, 1)])
def test_a_leaf_outside_the_tree_has_no_inclusion_proof(index: int, size: int) -> None:
    with pytest.raises(ProofError, match=r"expected 0 <= index < size, found"):
        inclusion_path(index, size, node)
    with pytest.raises(ProofError, match=r"expected 0 <= index < size, found"):
        verify_inclusion(HASHES[0], index, size, [], HASHES[0])


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 1), (2, 1), (-1, 1), (1, 0)])
def test_sizes_that_shrink_or_begin_at_nothing_have_no_consistency_proof(old: int, new: int) -> None:
    with pytest.raises(ProofError, match=r"expected 1 <= old size <= new size, found"):
        consistency_path(old, new, node)
    with pytest.raises(ProofError, match=r"expected 1 <= old size <= new size, found"):
        verify_consistency(old, ROOTS[0], new, ROOTS[0], [])


def test_bytes_cannot_move_between_the_hashes_that_are_joined() -> None:
    leaf, (sibling,), root = HASHES[0], inclusion_path(0, 2, node), ROOTS[2]
    old_root, (beside,) = ROOTS[2], consistency_path(2, 4, node)

    verify_inclusion(leaf, 0, 2, [sibling], root)
    verify_consistency(2, old_root, 4, ROOTS[4], [beside])
    for cut in (1, 31):
        assert not accepted(verify_inclusion, leaf[:cut], 0, 2, [leaf[cut:] + sibling], root)
        assert not accepted(verify_inclusion, leaf + sibling[:cut], 0, 2, [sibling[cut:]], root)
        assert not accepted(verify_consistency, 2, old_root[:cut], 4, ROOTS[4], [old_root[cut:] + beside])
        assert not accepted(verify_consistency, 2, old_root + beside[:cut], 4, ROOTS[4], [beside[cut:]])


# A proof verifies for exactly those sizes and indexes that give the tree the same shape. The two functions below write that shape down by
# the recursive definitions, as an expression over the path's hashes (numbered) and the hash that is proved ("it").

Shape = tuple[Any, ...] | int | str


def inclusion_shape(index: int, size: int) -> Shape:
    siblings = itertools.count()

    def of(index: int, size: int) -> Shape:
        if size == 1:
            return "it"
        k = 1 << ((size - 1).bit_length() - 1)
        return (of(index, k), next(siblings)) if index < k else tuple(reversed((of(index - k, size - k), next(siblings))))

    return of(index, size)


def consistency_shape(old: int, new: int) -> tuple[Shape, Shape]:
    """Of the old root and of the new one."""
    siblings = itertools.count()

    def of(old: int, new: int, whole: bool) -> tuple[Shape, Shape]:
        if old == new:
            part: Shape = "it" if whole else next(siblings)
            return part, part
        k = 1 << ((new - 1).bit_length() - 1)
        if old <= k:
            old_part, new_part = of(old, k, whole)
            return old_part, (new_part, next(siblings))
        old_part, new_part = of(old - k, new - k, False)
        left = next(siblings)
        return (left, old_part), (left, new_part)

    return of(old, new, True)


def flipped(value: bytes, bit: int) -> bytes:
    return bytes(byte ^ (1 << bit % 8 if place == bit // 8 else 0) for place, byte in enumerate(value))


def altered_paths(path: list[bytes], draw: random.Random) -> Iterator[tuple[str, list[bytes]]]:
    other = HASHES[draw.randrange(MAX_SIZE)]
    for place, one in enumerate(path):
        yield "a bit of the path", [*path[:place], flipped(one, draw.randrange(256)), *path[place + 1 :]]
        yield "a hash dropped", path[:place] + path[place + 1 :]
        yield "a hash cut short", [*path[:place], one[:-1], *path[place + 1 :]]
        if place and path[place - 1] != one:
            yield "two hashes swapped", [*path[: place - 1], one, path[place - 1], *path[place + 1 :]]
    for place in range(len(path) + 1):
        for added in (other, path[place - 1] if path else other, bytes(32)):
            yield "a hash added", [*path[:place], added, *path[place:]]


def test_no_altered_inclusion_proof_is_accepted() -> None:
    tried: Counter[str] = Counter()
    wrongly: list[object] = []
    of_one_shape: Counter[bool] = Counter()

    @settings(max_examples=150, deadline=None, database=None)
    @given(sizes, st.randoms(use_true_random=False))
    def attempt(size: int, draw: random.Random) -> None:
        index = draw.randrange(size)
        path, leaf, root = inclusion_path(index, size, node), HASHES[index], ROOTS[size]
        shape = inclusion_shape(index, size)
        forged: list[tuple[str, tuple[Any, ...]]] = [
            (what, (leaf, index, size, altered, root)) for what, altered in altered_paths(path, draw)
        ]
        forged += [("a bit of the leaf", (flipped(leaf, bit), index, size, path, root)) for bit in draw.sample(range(256), 16)]
        forged += [("a bit of the root", (leaf, index, size, path, flipped(root, bit))) for bit in draw.sample(range(256), 16)]
        forged += [("another leaf", (HASHES[at], index, size, path, root)) for at in range(0, MAX_SIZE, 7) if at != index]
        forged += [("another index", (leaf, at, size, path, root)) for at in range(-1, size + 2) if at != index]
        for other in range(-1, MAX_SIZE + 60):
            if other > index and other != size and inclusion_shape(index, other) == shape:
                of_one_shape[accepted(verify_inclusion, leaf, index, other, path, root)] += 1
            elif other != size:
                forged.append(("another size", (leaf, index, other, path, root)))

        verify_inclusion(leaf, index, size, path, root)
        tried.update(what for what, _ in forged)
        wrongly.extend(case for case in forged if accepted(verify_inclusion, *case[1]))

    attempt()

    print(f"\naltered inclusion proofs: tried {tried.total():,}, wrongly accepted {len(wrongly)}: {dict(tried)}")
    print(f"sizes of the same shape, which only a signed size tells apart: {of_one_shape.total():,}")
    assert not wrongly
    assert set(of_one_shape) == {True}, "the docstring says that these are accepted"
    assert len(tried) == 10, "each kind of alteration was tried"


def test_no_altered_consistency_proof_is_accepted() -> None:
    tried: Counter[str] = Counter()
    wrongly: list[object] = []
    of_one_shape: Counter[bool] = Counter()

    @settings(max_examples=150, deadline=None, database=None)
    @given(sizes, st.randoms(use_true_random=False))
    def attempt(new: int, draw: random.Random) -> None:
        old = draw.randint(1, new)
        path, old_root, new_root = consistency_path(old, new, node), ROOTS[old], ROOTS[new]
        shape = consistency_shape(old, new)
        forged: list[tuple[str, tuple[Any, ...]]] = [
            (what, (old, old_root, new, new_root, altered)) for what, altered in altered_paths(path, draw)
        ]
        for bit in draw.sample(range(256), 16):
            forged.append(("a bit of the old root", (old, flipped(old_root, bit), new, new_root, path)))
            forged.append(("a bit of the new root", (old, old_root, new, flipped(new_root, bit), path)))
        forged += [("the old root of another size", (old, ROOTS[at], new, new_root, path)) for at in range(0, MAX_SIZE, 7) if at != old]
        pairs = [(at, new) for at in range(-1, new + 2)] + [(old, at) for at in range(-1, MAX_SIZE + 60)]
        pairs += [(draw.randint(0, MAX_SIZE), draw.randint(0, MAX_SIZE)) for _ in range(50)]
        for other in pairs:
            if other != (old, new) and 1 <= other[0] <= other[1] and consistency_shape(*other) == shape:
                of_one_shape[accepted(verify_consistency, other[0], old_root, other[1], new_root, path)] += 1
            elif other != (old, new):
                forged.append(("other sizes", (other[0], old_root, other[1], new_root, path)))

        verify_consistency(old, old_root, new, new_root, path)
        tried.update(what for what, _ in forged)
        wrongly.extend(case for case in forged if accepted(verify_consistency, *case[1]))

    attempt()

    print(f"\naltered consistency proofs: tried {tried.total():,}, wrongly accepted {len(wrongly)}: {dict(tried)}")
    print(f"sizes of the same shape, which only signed sizes tell apart: {of_one_shape.total():,}")
    assert not wrongly
    assert set(of_one_shape) == {True}, "the docstring says that these are accepted"
    assert len(tried) == 9, "each kind of alteration was tried"


def test_a_rewritten_history_has_no_consistency_proof() -> None:
    rewritten = [merkle.leaf_hash(b"invented") if index == 5 else one for index, one in enumerate(HASHES)]

    def forged(level: int, index: int) -> bytes:
        return by_definition(rewritten[index << level : (index + 1) << level])

    tried = 0
    for new in range(10, 40):
        path = consistency_path(9, new, forged)
        for attempt in (path, consistency_path(9, new, node)):
            assert not accepted(verify_consistency, 9, ROOTS[9], new, by_definition(rewritten[:new]), attempt)
            tried += 1

    print(f"\nrewritten histories: tried {tried}, wrongly accepted 0")


@pytest.mark.parametrize(
    ("index", "size", "path", "said"),
    [
        (0, 2, [], "expected the path of leaf 0 of 2, found a shorter one, of 0 hashes"),
        (0, 2, HASHES[:2], "expected the path of leaf 0 of 2, found a longer one, of 2 hashes"),
        (0, 2, HASHES[2:3], "expected for leaf 0 of 2 the root"),
    ],
)
def test_a_refusal_says_what_was_expected_and_what_was_found(index: int, size: int, path: list[bytes], said: str) -> None:
    with pytest.raises(ProofError, match=said) as refusal:
        verify_inclusion(HASHES[0], index, size, path, ROOTS[2])

    assert refusal.value.expected in str(refusal.value)
    assert refusal.value.found in str(refusal.value)
