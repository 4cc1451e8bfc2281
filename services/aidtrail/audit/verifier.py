"""An independent verifier of what Aidtrail recorded. One file, to be copied alone: it imports Python's standard library and `cryptography`.

    python verifier.py --key VKEY [--policy FILE] [--last FILE] EXPORT|BUNDLE

It trusts the key that you were told by another way (`--key`, or the `log` line of a policy), its own code, and the file that it keeps for
you (`--last`): the checkpoint that it saw last, which it replaces only when everything holds. It trusts nothing that it is handed.

Four claims, each with an exit code of its own; the lowest that fails counts:

    C1 (11) the log only grew: every record of `recorded` stands under a signed checkpoint that continues the one you saw last; what you
            saw of `submitted` and `registry`, which are not sealed, is as it was
    C2 (12) every entry follows the one before, answers its submission, and was made by an enrolled actor, under the rules and by
            distinct people; what is signed was signed with a key of its actor, and who must sign did
    C3 (13) the views are the fold of the log (an export)
    C4 (14) these figures came from these entries, and the entries are in the log (a bundle)

0: all that can be shown holds. 2: it was called wrongly, or the file is nothing that it reads.

What it cannot show: that a person did what his account or his key did; that the registry is true (`--json` lists the keys that signed, to
be compared with those that the actors tell you); with the log's key in the hands of somebody who rewrites history, anything but the actors'
signatures about what you saw no checkpoint of and no witness signed. A bundle has no other donation's entries, no submissions, and of the
registry what concerns it: it cannot show that nothing came after it, that no entry of it is void, that an entry answers its submission, or
that the registry of an entry was new enough. An export shows these.
It checks chains, people, sums and states; that every single rule was kept is `aidtrail audit replay`.

It is long because it is one file, and says again in its own words what Aidtrail says elsewhere: two writings that agree are the point. Each
part, between lines of dashes, rests on those before it, and may be read without those after it:

    Merkle trees                     roots, inclusion, consistency (RFC 6962, RFC 9162)
    notes, checkpoints, keys         signatures of the log and of witnesses, and how many of these a policy asks for
    Avro                             bytes to values, as strictly as the ledger reads them
    records and entries              what counts, and what is void
    the registry                     who may act in which role, and sign with which key
    signatures of actors             what an actor signed, and who must sign
    a donation: the fold             events to state
    people and states                what must be so before an event
    sums                             what must hold of every state
    the rows of the views            state to the figures that are shown
    what was found                   findings, the report, the checkpoint that you keep
    one partition, an export         every record of a log, in order
    a bundle                         one donation
    the command
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import sys
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

EXPORT, BUNDLE, MEMORY, MANIFEST = "aidtrail-export/1", "aidtrail-bundle/1", "aidtrail-auditor/1", "aidtrail-manifest/1"
EXIT = {"C1": 11, "C2": 12, "C3": 13, "C4": 14}
USAGE = 2
MAX_NAMED = 20
MAX_GAPS, GAPS_FOR_A_RECORD = 10**6, 10
"""Offsets without a record, in all that is handed over: so many, and so many more for each record. Far above what transactions leave in
Kafka, far below what would keep a reader busy."""
MAX_PARTITIONS = 4096
MAX_LINE, MAX_BUNDLE = 4 * 2**20, 64 * 2**20
"""Bytes: of a line (and of a schema), and of a bundle. Kafka takes records of 1 MiB where nobody says otherwise."""
MAX_NOTE = MAX_POLICY = 256 * 1024
"""Bytes: of a checkpoint with its signatures, and of a policy. Far above any."""
LATE_MILLISECONDS = 60_000
"""What was registered so long before a submission was appended must have been known to the ledger: two brokers' clocks may differ."""
ZEROS = bytes(32)

FINGERPRINTS = {
    1: ("ActorEnrolled.v1", "a5eddb2fd58613d0fec7f61a9abaedc2559716291325dbe50e06e89bff35fc31"),
    2: ("ActorRetired.v1", "c32367ebbd8f1bb09f791c259095bf851a177f755bee0b5fd1c958dfd68e4de5"),
    3: ("ApprovalAnswered.v1", "20cdf25e6624c5fd785b271946d97af075ecfabf2d5475d91ee1c6149b508b50"),
    4: ("ApprovalDecided.v1", "acd5b23fc9ad81759e74bdca9b91ce8e1917940fa419f1605b79320c658838c5"),
    5: ("ApprovalExpired.v1", "89d78b95bcf25bb333806080214f3e0cb587a3b95b24925dc1e3dd86c73851b5"),
    6: ("ApprovalQuestioned.v1", "18939d9370accd1425902d43d8fbe5876d63a5ca47c41cc6cc001ee2a7a17ae5"),
    7: ("ApprovalRequested.v1", "0c26b976915edf779052c7a5fa413f5c9b323a04cf503224816642b4a8514a90"),
    8: ("ApprovalRevoked.v1", "37495e8aade757e702a801f456bba6554675320ac24c630f08b7f0bd6e491bdb"),
    9: ("ConditionBreached.v1", "4bb3f4ab9a4079f837ca91081b75274e2c0d565111eb94e3108be781edab27d3"),
    10: ("ConditionMet.v1", "4aa34c80c08d676d6482c72856c593e0a472d9e102f5714b6fc49b0b5746e5b9"),
    11: ("DisbursementInstructed.v1", "5b4b42be23220cdad74f3ccba4849fe1567cdc30e1e1fee61d2180dafbba18d5"),
    12: ("DisbursementRejected.v1", "03f2771c56d8ee18f94790609fd413307b454938f1b555d4a3fb3fd9644eb254"),
    13: ("DisbursementReleased.v1", "01cedb40cc7f7f584cf34003845628daa2d95fec3de0026d9a0852913bdd0840"),
    14: ("DisbursementReturned.v1", "ba7b1ab30f7ef11aa9b283a93a941c75acdd7f7fcbc0287748415ac3f48d9d6a"),
    15: ("DisbursementScheduled.v1", "579d94ab87c4653393676ccd90a0881fe3f8729e39c9066d998b23d4bff086b6"),
    16: ("DisbursementSettled.v1", "4565f96296df19b3316b92c3e92d1331768cc29f58b60fadfba925ea2d1710d9"),
    17: ("DisputeResolved.v1", "0cb7311a899af5b607568abd9b80fb1ceb8c67819ac1ab3a4f07247e38e2d8b7"),
    18: ("DonationClosed.v1", "5664dc991117332621dbdc9c40f5ec51140772c8bf7e5a89dc5da63ed0935024"),
    19: ("DonationReopened.v1", "2af328cad400bd08d4ddb5649bbabdeea2060414fa3a12fa9880f55ad1ba8f49"),
    20: ("FundsReceived.v1", "9e03d5c7b86539d5c6327de3c9ccfad15888283742ac1a2272a3216946486812"),
    21: ("MechanismDefined.v1", "b3d5b600478ece0aa3b0532cf30c90c24c1bbcb589bab3c8bb0b7063aedd2aed"),
    22: ("MechanismRetired.v1", "ce2bd89362d9f60061a899d50aeb8e3807fc70882863b9d96b82324e27dba78e"),
    23: ("PartyRegistered.v1", "e7e0b1764f3020c896b7a49e014d2d9551791db8ce77dc86a55b33ec6e9d030b"),
    24: ("PledgeAmended.v1", "d2638cd1cfd2ea7ea7af70cf5cf9ea4cdd0668e9481c8f87188763f7799f38e0"),
    25: ("PledgeAnnounced.v1", "5eb7498cde4efe9c1faefd4ff54116b69abc13fd8413196bd37511a904f12a47"),
    26: ("PledgeConfirmed.v1", "d135901f77acd1417fddf84f489cfeb091f8c9c96c80f900b76327c68f0badc4"),
    27: ("PledgeExpired.v1", "b369fea9219930f6ce0cc0c43fc6e87a5536f45906101f673e3758869d34e82f"),
    28: ("PledgeWithdrawn.v1", "1f8085bdb32f397e406d27550a5fd2f1d19980f3cdb82fb777925804028fb0cc"),
    29: ("ReceiptAcknowledged.v1", "e6f5809211e68e88b02671b6db2baa490a1a12e4b780f85a9f8f15e72d0d26c0"),
    30: ("ReceiptDisputed.v1", "b2d4f32e4f218ea5bd15e417086d7902de645fbca30cf308837b44fb8b329caf"),
    31: ("SubmissionRefused.v1", "21cb2ddc7315b86b81a116eea85a4b5bf4a5e41716bb548abe4ef9800f34e01e"),
    32: ("UtilisationReported.v1", "7581cc7cfd2a1b88aeef3938573defa8e59a903e61229619830b9f9147dfc542"),
    33: ("ActorEnrolled.v2", "1a12197c4d4c0b919f2323973ca053f7e375bb1c75da93edcbb5e5de62e756b2"),
    34: ("ApprovalAnswered.v2", "3df0631b7c62eb426c31bdd4d13d89a8f976b854603287a8be442de8c51a298d"),
    35: ("ApprovalDecided.v2", "a7491ae193414e5ae07deb1bf2900880f0226d013b742d418588d419bf29222a"),
    36: ("ApprovalExpired.v2", "a4510b5d29c2144ff59db52c56aeb19ee7e44d5493aa5fca9114a051ad7a996f"),
    37: ("ApprovalQuestioned.v2", "7161f217005a78a30d092cc46e54e4d6edee6028486878e0cf1676d73152fb7b"),
    38: ("ApprovalRequested.v2", "71344356967a5c70201cdbe0696f3d96562cbcaabbf37ad28304d12b8ae02361"),
    39: ("ApprovalRevoked.v2", "ab890edacc948aa3f42b9e00d4de88c2da5d3b6e95480dd69e955611bd181c48"),
    40: ("ConditionBreached.v2", "a1cbe532f9d87398425468b6ef4f7526ceafd7635b73bd8391635205edabc2cc"),
    41: ("ConditionMet.v2", "407a514ac9440d1daa3ee51631fa5068a85b498986bd07342ad68bbf3e4173f3"),
    42: ("DisbursementInstructed.v2", "3124d5ebdad1b95c1e2b5e892afaa439887d4de102ca1e9011d42ac1f9150135"),
    43: ("DisbursementRejected.v2", "a79567a7e2a8f7f12b558412bee8a5ec5fd0539fe4623e17fcb3fd634d057dd3"),
    44: ("DisbursementReleased.v2", "30feb274afe0cca77c235a55b86593b1eb33c534d55ddc7184d0fe43de4be587"),
    45: ("DisbursementReturned.v2", "2223f0d6553bc2895fd2ccca5933e39542113194bea81340c4a6917e01909f18"),
    46: ("DisbursementScheduled.v2", "e64b566062a21c15f4b6b2e21fc4a3d5b4e7b5628b62a95b0e19e97f94cc7bcd"),
    47: ("DisbursementSettled.v2", "5972aed30995656a9b2fd73ba230b519537e31827cd9e3e22a2c3d954324f1ce"),
    48: ("DisputeResolved.v2", "da36b71aac93850263934202308131008df689bb9d322faec8ab217ba0c8e6b6"),
    49: ("DonationClosed.v2", "5ad8223a06cc95b303ee872a66853e3feed949dc3ea84f7d93944a52b07dd433"),
    50: ("DonationReopened.v2", "dea341b9227a0a20c2da274a99556dababe08b9034cbfdcf4be11cccbf7cba95"),
    51: ("FundsReceived.v2", "7fad22b2dd8d9ccd40f23405588f0f3a0eeab17e8cd3facf400b0a65a7ecd23d"),
    52: ("PartyRegistered.v2", "d9888c8857f021f67b4375b17afdb2c99d9c23c7a196d2348c6ce77c2d241eba"),
    53: ("PledgeAmended.v2", "a03f9807ef87383295539ccb6bb26c80417e7e9c3c70d174456df37612c3db02"),
    54: ("PledgeAnnounced.v2", "12c55f12c1b91380b8a6215a9d10b4c4fbac69ad5b7fcc07657867d58be12af7"),
    55: ("PledgeConfirmed.v2", "7a94d73865758321df14055dfd981226e13a2a715a2ba4bd21396a5a6edc0d44"),
    56: ("PledgeExpired.v2", "b5708f735c06e0e77a7a71fa1966d00f935740c3fd92fdb33e2257da8ec2ed6b"),
    57: ("PledgeWithdrawn.v2", "bd47aeedbf3323314cbe5f61afa379f40ed12fe37e6763c565e9c55de4ce9bd4"),
    58: ("ReceiptAcknowledged.v2", "4fb3657b1d4d7305b6ee2abc48fcc0b37dfe8d08a655d377e768404145b05249"),
    59: ("ReceiptDisputed.v2", "9319abf0da0ce8cad3bff480ffdb72ad506103441045aeac41ae70fdf08ac583"),
    60: ("SubmissionRefused.v2", "d1e879d6359b912374195dbc20fe281b6e7297e2bf51683b9bfddd0b86f2fd3e"),
    61: ("UtilisationReported.v2", "8130155ac89ee93efa3f5189302c19c5093379c6f8edd2384f44c332c3dc9b95"),
    62: ("DisbursementReturned.v3", "4d0c0cdbc7661afc0341492cc9aec770a304093f2a0c2c0b7f80a052e05020c6"),
    63: ("FundsReceived.v3", "3bba26d733828a65de46e0e0fdffbd2d546043717595c8b42e674cb6ac8e0e34"),
}
"""Every schema that this verifier knows the meaning of, by the id that records name: its name, and SHA-256 of the file
`schemas/published/<name>.avsc` of the contract. With another schema the same bytes would say something else, so none is taken under an id
that is not its own."""


class Unusable(Exception):
    """Called wrongly, or given what it does not read."""


class Wrong(Exception):
    """Something that was handed over is not what it must be. The message says what was expected and what was found."""


# --- Merkle trees: RFC 6962, RFC 9162 -----------------------------------------------------------------------------------------------


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


EMPTY_LEAF = leaf_hash(b"")


class Tree:
    """Grows leaf by leaf; keeps the hash of each full subtree of its right edge."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def append(self, hashed: bytes) -> None:
        size = self.size
        while size & 1:
            hashed = node_hash(self._peaks.pop(), hashed)
            size >>= 1
        self._peaks.append(hashed)
        self.size += 1

    @property
    def root(self) -> bytes:
        if not self._peaks:
            return sha256(b"")
        folded = self._peaks[-1]
        for peak in self._peaks[-2::-1]:
            folded = node_hash(peak, folded)
        return folded


def root_by_inclusion(hashed: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that the path leads to: RFC 9162 section 2.1.3.2."""
    if not 0 <= index < size:
        raise Wrong(f"expected an index below {size}, found {index}")
    at, last = index, size - 1
    for sibling in path:
        if last == 0:
            raise Wrong("expected a shorter path")
        if at & 1 or at == last:
            hashed = node_hash(sibling, hashed)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            hashed = node_hash(hashed, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise Wrong("expected a longer path")
    return hashed


def require_consistent(old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """The new tree begins with the old one: RFC 9162 section 2.1.4.2. Requires 1 <= old_size <= new_size."""
    if old_size == new_size:
        if path or old_root != new_root:
            raise Wrong(f"expected the root {old_root.hex()} at size {old_size}, found {new_root.hex()}")
        return
    if not path:
        raise Wrong("expected a consistency path, found none")
    hashes = [old_root, *path] if old_size & (old_size - 1) == 0 else list(path)
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise Wrong("expected a shorter consistency path")
        if at & 1 or at == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        at, last = at >> 1, last >> 1
    if last or (old, new) != (old_root, new_root):
        raise Wrong(f"expected the tree of size {new_size} to begin with that of size {old_size}, found another history")


# --- notes, checkpoints, keys, policies: C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-policy ---------------------------

LOG_KEY, WITNESS_KEY = 1, 4


class Key(NamedTuple):
    name: str
    type: int
    public: bytes

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.public)[:4]

    @classmethod
    def parse(cls, vkey: str, kind: int = LOG_KEY) -> Key:
        """`<name>+<key id>+<base64 of type and public key>`, of a log or of a witness."""
        try:
            name, key_id, encoded = vkey.split("+", 2)
            value = unbase64(encoded)
            name.encode()
        except (ValueError, Wrong):
            raise Unusable(f"expected a key <name>+<key id>+<base64>, found {shown(vkey)}") from None
        key = cls(name, value[0] if value else 0, value[1:])
        if len(key.public) != 32 or key.type != kind or key.id.hex() != key_id or not name:
            raise Unusable(f"expected a key whose id is that of its name and bytes, found {shown(vkey)}")
        return key


class Checkpoint(NamedTuple):
    """A note that the log's key signed, and which of the given witnesses signed it as well."""

    note: str
    size: int
    root: bytes
    witnesses: frozenset[str]


def opened(note: bytes, log: Key, witnesses: Mapping[str, Key]) -> Checkpoint:
    """Raises Wrong unless the log's key signed it, and for a wrong signature by that key. A wrong one by a witness is none."""
    if len(note) > MAX_NOTE:
        raise Wrong(f"expected a checkpoint of at most {MAX_NOTE} bytes, found {len(note)}")
    try:
        text, _, tail = note.decode().rpartition("\n\n")
    except UnicodeDecodeError:
        raise Wrong("expected a checkpoint in UTF-8, found other bytes") from None
    lines, signatures = text.split("\n"), tail.split("\n")
    if len(lines) != 3 or signatures.pop() != "" or lines[0] != log.name or not re.fullmatch(r"0|[1-9][0-9]{0,18}", lines[1]):
        raise Wrong(f"expected a checkpoint of {log.name}: origin, size, root and signatures, found {shown(text)}")
    message, signed = f"{text}\n", set()
    known = {(key.name, key.id): (name, key) for name, key in [("", log), *witnesses.items()]}
    for line in signatures:
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        value = unbase64(encoded)
        if dash != "—" or not name or len(value) <= 4:
            raise Wrong(f"expected a signature line, found {shown(line)}")
        if (name, value[:4]) in known:
            label, key = known[name, value[:4]]
            try:
                _verify_signature(key, message, value[4:])
            except Wrong:
                if not label:  # a witness's is left out: anybody can write a note again with such a line
                    raise
            else:
                signed.add(label)
    if "" not in signed:
        raise Wrong(f"expected a signature by {log.name} {log.id.hex()}, found none")
    root = unbase64(lines[2])
    if len(root) != 32:
        raise Wrong(f"expected a root of 32 bytes, found {len(root)}")
    return Checkpoint(note.decode(), int(lines[1]), root, frozenset(signed - {""}))


def _verify_signature(key: Key, message: str, value: bytes) -> None:
    if key.type == WITNESS_KEY:
        seconds = int.from_bytes(value[:8], "big")
        if seconds >= 2**63:
            raise Wrong(f"expected a time below 2**63 from {key.name}, found {seconds}")
        message, value = f"cosignature/v1\ntime {seconds}\n{message}", value[8:]
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(value, message.encode())
    except InvalidSignature:
        raise Wrong(f"expected a signature by {key.name}, found a wrong one: the text or the signature was altered") from None


class Policy(NamedTuple):
    """Whom to trust: the keys of logs, the witnesses by name, and how many of them must have signed."""

    logs: tuple[Key, ...] = ()
    witnesses: Mapping[str, Key] = {}
    groups: Mapping[str, tuple[int, tuple[str, ...]]] = {}
    quorum: str = "none"

    @classmethod
    def parse(cls, text: str) -> Policy:
        """C2SP tlog-policy: lines `log VKEY [URL]`, `witness NAME VKEY [URL]`, `group NAME any|all|K MEMBER...`, `quorum NAME|none`."""
        logs: list[Key] = []
        quorum: str | None = None
        witnesses: dict[str, Key] = {}
        groups: dict[str, tuple[int, tuple[str, ...]]] = {}
        grouped: list[str] = []
        for number, line in enumerate(text.split("\n"), 1):
            words = re.split(r"[ \t]+", line.strip(" \t"))
            if words == [""] or words[0].startswith("#"):
                continue
            known = {*witnesses, *groups}
            try:
                if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", line):
                    raise ValueError
                if words[0] == "log" and len(words) in (2, 3):
                    logs.append(Key.parse(words[1], LOG_KEY))
                elif words[0] == "witness" and len(words) in (3, 4) and words[1] not in known | {"none"}:
                    witnesses[words[1]] = Key.parse(words[2], WITNESS_KEY)
                elif words[0] == "group" and words[1] not in known | {"none"}:
                    members = tuple(words[3:])
                    least = {"any": 1, "all": len(members), **{str(k): k for k in range(1, len(members) + 1)}}[words[2]]
                    grouped += members
                    if not members or set(members) - known:
                        raise ValueError
                    groups[words[1]] = (least, members)
                elif words[0] == "quorum" and len(words) == 2 and quorum is None and words[1] in known | {"none"}:
                    quorum = words[1]
                else:
                    raise ValueError
                # Whoever counted twice would be a quorum by himself.
                if any(len({key.public for key in keys}) < len(keys) for keys in (logs, witnesses.values())) or len(set(grouped)) < len(
                    grouped
                ):
                    raise ValueError
            except (ValueError, LookupError):
                raise Unusable(f"policy, line {number}: expected log, witness, group or quorum, found {shown(line)}") from None
        if quorum is None:
            raise Unusable("policy: expected a line 'quorum', found none")
        return cls(tuple(logs), witnesses, groups, quorum)

    def met(self, signed: frozenset[str]) -> bool:
        have = {"none": True, **{name: name in signed for name in self.witnesses}}
        for name, (least, members) in self.groups.items():  # a group comes after its members
            have[name] = sum(have[member] for member in members) >= least
        return have[self.quorum]


class Manifest(NamedTuple):
    """Size and root of every partition, as one checkpoint speaks of them."""

    origin: str
    number: int
    previous: bytes
    view: bytes | None
    """Digest of the views at these sizes, where it was sealed as well."""
    stands: tuple[tuple[int, bytes], ...]

    @classmethod
    def parse(cls, encoded: bytes) -> Manifest:
        try:
            _, origin, index, previous, view, *stands, last = encoded.decode().split("\n")
            sizes = [line.split(" ") for line in stands]
            sealed = None if view == "-" else unbase64(view)
            found = cls(origin, int(index), unbase64(previous), sealed, tuple((int(size), unbase64(root)) for size, root in sizes))
        except ValueError:
            raise Wrong("expected a manifest, found something else") from None
        written = [MANIFEST, origin, str(found.number), base64_of(found.previous), view]
        written += [f"{size} {base64_of(root)}" for size, root in found.stands]
        hashes = [found.previous, *(root for _, root in found.stands), *([sealed] if sealed is not None else [])]
        if (
            last
            or not stands
            or min(size for size, _ in found.stands) < 0
            or "\n".join([*written, ""]).encode() != encoded
            or {len(each) for each in hashes} != {32}
        ):
            raise Wrong("expected the one way to write a manifest, found another")
        return found


def base64_of(value: bytes) -> str:
    return base64.b64encode(value).decode()


def unbase64(text: Any) -> bytes:
    """The bytes that `text` is the one encoding of."""
    try:
        value = base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise Wrong(f"expected base64, found {shown(text)}") from None
    if base64_of(value) != text:
        raise Wrong(f"expected base64 in its one form, found {shown(text)}")
    return value


def read_json(text: str | bytes) -> Any:
    """Raises ValueError, or RecursionError, also where an object has a name twice: one reader would take the first, another the last."""
    return json.loads(text, object_pairs_hook=_each_name_once)


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise ValueError("a name twice")
    return read


def shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def plain(value: object) -> str:
    """What others wrote, for a terminal: printable, and of bounded length."""
    text = str(value)
    return (text if text.isprintable() else ascii(text))[:300]


# --- Avro: the binary encoding of the contract's schemas, as strictly as the ledger reads it ----------------------------------------

Decoder = Callable[[bytes, int], "tuple[Any, int]"]


class Undecodable(Exception):
    """The value is not the canonical encoding of anything. The ledger then refuses it, and readers of entries skip it."""


def _number(b: bytes, i: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = b[i]
        i += 1
        number |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 63:
            raise Undecodable
    if (byte == 0 and shift) or number >= 1 << 64:
        raise Undecodable
    return (number >> 1) ^ -(number & 1), i


def _within(low: int, high: int) -> Decoder:
    def decode(b: bytes, i: int) -> tuple[int, int]:
        number, i = _number(b, i)
        if not low <= number <= high:
            raise Undecodable
        return number, i

    return decode


def _string(b: bytes, i: int) -> tuple[str, int]:
    length, i = _number(b, i)
    if length < 0 or len(b) - i < length:
        raise Undecodable
    text = b[i : i + length].decode()
    if "\0" in text:
        raise Undecodable
    return text, i + length


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def _uuid(b: bytes, i: int) -> tuple[str, int]:
    text, i = _string(b, i)
    if not _UUID.fullmatch(text):
        raise Undecodable
    return text, i


def _decimal(b: bytes, i: int) -> tuple[int, int]:
    """In units of 0.0001: all amounts of the contract are decimal(19,4)."""
    length, i = _number(b, i)
    digits = b[i : i + length] if length > 0 else b""
    number = int.from_bytes(digits, "big", signed=True)
    shorter = length > 1 and (digits[0], digits[1] >> 7) in ((0, 0), (255, 1))
    if not digits or len(digits) != length or shorter or abs(number) >= 10**19:
        raise Undecodable
    return number, i + length


def _boolean(b: bytes, i: int) -> tuple[bool, int]:
    if b[i] > 1:
        raise Undecodable
    return b[i] == 1, i + 1


_DAY = 86_400 * 10**6
_FIRST, _LAST = -719_162, 2_932_896
"""The first and the last day of the years 1 to 9999, from 1970 on."""
_MILLISECONDS = _FIRST * _DAY // 1000, (_LAST + 1) * _DAY // 1000 - 1

_PLAIN: dict[tuple[str, str | None], Decoder] = {
    ("string", None): _string,
    ("string", "uuid"): _uuid,
    ("bytes", "decimal"): _decimal,
    ("boolean", None): _boolean,
    ("int", None): _within(-(2**31), 2**31 - 1),
    ("long", None): _number,
    ("int", "date"): _within(_FIRST, _LAST),
    ("long", "timestamp-micros"): _within(_FIRST * _DAY, (_LAST + 1) * _DAY - 1),
    ("long", "timestamp-millis"): _within(*_MILLISECONDS),
}


def decoder(schema: Any, named: dict[str, Decoder]) -> Decoder:
    """For one schema. `named` has the types that were defined so far."""
    if isinstance(schema, list):
        if len(schema) != 2 or schema[0] != "null":
            raise Unusable("a union other than of null and one type")
        return _optional(decoder(schema[1], named))
    kind = schema if isinstance(schema, str) else schema["type"]
    if isinstance(kind, (dict, list)):
        return decoder(kind, named)
    logical = None if isinstance(schema, str) else schema.get("logicalType")
    if kind == "record":
        made = _record([(one["name"], decoder(one["type"], named)) for one in schema["fields"]])
    elif kind == "array":
        return _array(decoder(schema["items"], named))
    elif kind == "enum":
        made = _enum(schema["symbols"])
    elif kind == "fixed":
        made = _fixed(schema["size"])
    elif (kind, logical) in _PLAIN:
        if logical == "decimal" and (schema["precision"], schema["scale"]) != (19, 4):
            raise Unusable("a decimal other than (19,4)")
        return _PLAIN[kind, logical]
    elif kind.rpartition(".")[2] in named:
        return named[kind.rpartition(".")[2]]
    else:
        raise Unusable(f"the Avro type {kind} {logical}")
    named[schema["name"]] = made
    return made


SPLICED = ("signature", "ledger")
"""Fields of `meta` that are put in where null was: where they stand is kept."""


def _record(fields: list[tuple[str, Decoder]]) -> Decoder:
    def decode(b: bytes, i: int) -> tuple[dict[str, Any], int]:
        values: dict[str, Any] = {}
        for name, decode_field in fields:
            begin = i
            values[name], i = decode_field(b, i)
            if name in SPLICED:
                values[f"{name}_span"] = (begin, i)
        return values, i

    return decode


def _optional(inner: Decoder) -> Decoder:
    def decode(b: bytes, i: int) -> tuple[Any, int]:
        if b[i] == 2:
            return inner(b, i + 1)
        if b[i]:
            raise Undecodable
        return None, i + 1

    return decode


def _array(inner: Decoder) -> Decoder:
    def decode(b: bytes, i: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        count, i = _number(b, i)
        if count:
            if not 0 < count <= len(b) - i:
                raise Undecodable
            for _ in range(count):
                item, i = inner(b, i)
                items.append(item)
            if b[i]:
                raise Undecodable
            i += 1
        return items, i

    return decode


def _enum(symbols: list[str]) -> Decoder:
    def decode(b: bytes, i: int) -> tuple[str, int]:
        index, i = _number(b, i)
        if not 0 <= index < len(symbols):
            raise Undecodable
        return symbols[index], i

    return decode


def _fixed(size: int) -> Decoder:
    def decode(b: bytes, i: int) -> tuple[bytes, int]:
        if len(b) - i < size:
            raise Undecodable
        return b[i : i + size], i + size

    return decode


@cache
def _decoder_of(schema: bytes) -> Decoder:
    return decoder(json.loads(schema), {})


class Schemas:
    """The schemas of an export or a bundle by id, each known by its fingerprint."""

    def __init__(self, texts: Mapping[int, bytes]) -> None:
        self._decoders: dict[int, tuple[str, Decoder]] = {}
        self.others: dict[int, str] = {}
        """By the id of each that is not taken: what was expected."""
        for schema_id, text in texts.items():
            name, fingerprint = FINGERPRINTS.get(schema_id, ("one that this verifier knows (a newer verifier may)", ""))
            if sha256(text).hex() == fingerprint:
                self._decoders[schema_id] = (name.partition(".")[0], _decoder_of(text))
            else:
                self.others[schema_id] = name

    def lacking(self, value: bytes | None) -> str | None:
        """What is wrong with a value that names a schema of the contract, and that schema is not here."""
        schema_id = int.from_bytes(value[1:5], "big") if value and len(value) >= 5 and not value[0] else 0
        if schema_id in self._decoders or schema_id not in FINGERPRINTS:
            return None
        return f"expected the schema {schema_id}, {FINGERPRINTS[schema_id][0]}, which the record names, found none"

    def decode(self, value: bytes | None) -> tuple[str, dict[str, Any]]:
        """The type of the event and its fields. Raises Undecodable."""
        if not value or value[0] or not 5 <= len(value) <= 256 * 1024:
            raise Undecodable
        found = self._decoders.get(int.from_bytes(value[1:5], "big"))
        if found is None:
            raise Undecodable
        try:
            fields, end = found[1](value, 5)
        except (IndexError, UnicodeDecodeError):
            raise Undecodable from None
        if end != len(value):
            raise Undecodable
        return found[0], fields


# --- records and entries ------------------------------------------------------------------------------------------------------------


class Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Event(NamedTuple):
    type: str
    fields: dict[str, Any]

    @property
    def meta(self) -> dict[str, Any]:
        found: dict[str, Any] = self.fields["meta"]
        return found

    @property
    def stamp(self) -> dict[str, Any]:
        found: dict[str, Any] = self.meta["ledger"]
        return found

    @property
    def actor(self) -> str:
        found: str = self.meta["actor"]["actor_id"]
        return found

    @property
    def now(self) -> int:
        """In microseconds since 1970: the append time of the submission, or of an earlier one of the partition if that is later."""
        found: int = self.stamp["recorded_at"] * 1000
        return found


class Entry(NamedTuple):
    """A record of `recorded`, decoded: `fault` says why it can have no effect at all."""

    record: Record
    sha256: bytes
    event: Event | None
    fault: str | None

    @property
    def donation_id(self) -> str | None:
        return None if self.event is None else self.event.meta["donation_id"]

    @property
    def refused(self) -> bool:
        return self.event is not None and self.event.type == "SubmissionRefused"

    @property
    def submission(self) -> bytes:
        """SHA-256 of the submission that it answers."""
        assert self.event is not None
        if self.refused:
            found: bytes = self.event.fields["submission_sha256"]
            return found
        return sha256(self._without("ledger"))

    @property
    def signed(self) -> bytes:
        """What its actor signed: the submission without his signature."""
        return self._without("signature", "ledger")

    def _without(self, *names: str) -> bytes:
        """The record with null in the place of these fields of `meta`, which are named in the order in which they stand."""
        assert self.event is not None
        value = self.record.value or b""
        for name in reversed(names):
            begin, end = self.event.meta[f"{name}_span"]
            value = value[:begin] + b"\x00" + value[end:]
        return value


def read_entry(record: Record, schemas: Schemas) -> Entry:
    digest = sha256(record.value or b"")
    try:
        event = Event(*schemas.decode(record.value))
    except Undecodable:
        return Entry(record, digest, None, "undecodable")
    if "meta" not in event.fields or len(event.meta["donation_id"]) > 64:
        return Entry(record, digest, None, "not an event of a donation")
    if event.meta["ledger"] is None:
        return Entry(record, digest, event, "not stamped by a ledger")
    if record.key != event.meta["donation_id"].encode():
        return Entry(record, digest, event, "the key is not the donation")
    return Entry(record, digest, event, None)


class Tail(NamedTuple):
    submitted_offset: int = -1
    sha256: bytes = ZEROS


class Head(NamedTuple):
    version: int = 0
    sha256: bytes = ZEROS


def void_reason(entry: Entry, tail: Tail, head: Head, partition: int, partitions: int) -> str | None:
    """Why an entry has no effect, or None. Every reader of the log applies these tests: schemas/README.md, and `chain.py` of Aidtrail."""
    if entry.fault is not None:
        return entry.fault
    assert entry.event is not None
    stamp = entry.event.stamp
    if stamp["submitted_offset"] <= tail.submitted_offset:
        return "its submission was answered before"
    if stamp["previous_outcome_sha256"] != tail.sha256:
        return "it does not follow the partition's last outcome"
    if entry.refused:
        return None
    if partition_of(entry.event.meta["donation_id"].encode(), partitions) != partition:
        return "the donation belongs to another partition"
    if stamp["version"] != head.version + 1:
        return "its version does not follow the head"
    if stamp["previous_sha256"] != head.sha256:
        return "it does not chain to the head"
    return None


@lru_cache(20_000)
def partition_of(key: bytes, partitions: int) -> int:
    """Murmur2 as Kafka's own clients have it."""
    m, mask, length = 0x5BD1E995, 0xFFFFFFFF, len(key)
    h = 0x9747B28C ^ length
    for at in range(0, length & ~3, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    if rest := key[length & ~3 :]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return ((h ^ h >> 15) & 0x7FFFFFFF) % partitions


# --- the registry: who may act in which role, and which mechanisms there are --------------------------------------------------------


_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_COUNTRY, _CURRENCY = re.compile(r"[A-Z]{2}"), re.compile(r"[A-Z]{3}")


def _is_id(value: str) -> bool:
    return _ID.fullmatch(value) is not None


def _is_text(value: str) -> bool:
    """For people: of one to 2000 printable characters, in Unicode normal form C."""
    return 1 <= len(value) <= 2000 and value.isprintable() and unicodedata.is_normalized("NFC", value)


def _is_threshold(value: Mapping[str, Any]) -> bool:
    least = value["at_least"]
    return least["amount"] >= 0 and _CURRENCY.fullmatch(least["currency"]) is not None and 1 <= value["approvals_required"] <= 20


_REGISTERED: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("party_id", "actor_id", "mechanism_id", "kind"), _is_id),
    **dict.fromkeys(("name", "reason"), _is_text),
    "country": lambda value: value is None or _COUNTRY.fullmatch(value) is not None,
    "roles": lambda value: all(map(_is_id, value)),
    "approvals_required": lambda value: 1 <= value <= 20,
    "thresholds": lambda value: all(map(_is_threshold, value)),
    "validity_days": lambda value: 1 <= value <= 3660,
}
"""What values the fields of a registry record can have, where Avro's types allow more. Every ledger ignores a record that has others."""


class Party(NamedTuple):
    kind: str
    signs: bool


class Enrolled(NamedTuple):
    party: str
    roles: frozenset[str]
    keys: tuple[bytes, ...]
    retired: bool


class Mechanism(NamedTuple):
    party: str
    required: int
    thresholds: tuple[tuple[str, int, int], ...]
    days: int
    retired: bool

    def approvals(self, amounts: Mapping[str, int]) -> int:
        return max([self.required, *(needs for currency, least, needs in self.thresholds if amounts.get(currency, -1) >= least)])


class Registry:
    """Every state of every party, actor and mechanism, with the offset from which on it holds."""

    def __init__(self) -> None:
        self.end = -1
        self._offsets: list[int] = []
        self._timestamps: list[int] = []
        self._states: dict[tuple[str, str], tuple[list[int], list[Any]]] = {}

    def at(self, table: str, name: str, offset: int) -> Any:
        """As it stood after the record at `offset`; None if it was not there."""
        offsets, states = self._states.get((table, name), ([], []))
        place = bisect_right(offsets, offset)
        return states[place - 1] if place else None

    def stands_at(self, offset: int) -> bool:
        """Whether a record that counts is there, or it is -1: before the first."""
        place = bisect_right(self._offsets, offset)
        return offset == (self._offsets[place - 1] if place else -1)

    def objection(self, offset: int, before: int, submitted_at: int) -> str | None:
        """Why an entry cannot have been ruled with the registry at `offset`, if the entry before it was ruled with that at `before` and its
        submission was appended at `submitted_at`. Requires all records of the registry."""
        if not self.stands_at(offset):
            return f"expected the registry at one of its records, found offset {offset}"
        if offset < before:
            return stepped_back(offset, before)
        following = bisect_right(self._offsets, offset)
        if following < len(self._offsets) and submitted_at - self._timestamps[following] > LATE_MILLISECONDS:
            wanted, seconds = self._offsets[following], (submitted_at - self._timestamps[following]) // 1000
            return f"expected the registry at offset {wanted} or later, appended {seconds} s before the submission, found offset {offset}"
        return None

    def take(self, offset: int, timestamp: int, kind: str, said: Mapping[str, Any]) -> None:
        """A record that makes no sense (an actor of an unknown party) changes nothing."""
        self._offsets.append(offset)
        self._timestamps.append(timestamp)
        if kind == "PartyRegistered":
            self._put(offset, "party", said["party_id"], Party(said["kind"], said.get("signatures_required", False)))
        elif kind == "ActorEnrolled":
            if self._free(offset, "actor", said["actor_id"], said["party_id"]):
                keys = tuple(said.get("public_keys", ()))
                self._put(offset, "actor", said["actor_id"], Enrolled(said["party_id"], frozenset(said["roles"]), keys, False))
        elif kind == "MechanismDefined":
            if self._free(offset, "mechanism", said["mechanism_id"], said["party_id"]):
                steps = [(t["at_least"]["currency"], t["at_least"]["amount"], t["approvals_required"]) for t in said["thresholds"]]
                made = Mechanism(said["party_id"], said["approvals_required"], tuple(steps), said["validity_days"], False)
                self._put(offset, "mechanism", said["mechanism_id"], made)
        elif kind in ("ActorRetired", "MechanismRetired"):
            table = kind.removesuffix("Retired").lower()
            known = self.at(table, said[f"{table}_id"], offset)
            if known is not None:
                self._put(offset, table, said[f"{table}_id"], known._replace(retired=True))

    def _free(self, offset: int, table: str, name: str, party: str) -> bool:
        known = self.at(table, name, offset)
        return self.at("party", party, offset) is not None and (known is None or (not known.retired and known.party == party))

    def _put(self, offset: int, table: str, name: str, state: Any) -> None:
        offsets, states = self._states.setdefault((table, name), ([], []))
        offsets.append(offset)
        states.append(state)


def stepped_back(offset: int, before: int) -> str:
    return f"expected the registry at offset {before} or later, as the entry before it, found offset {offset}"


# --- signatures of actors: Ed25519 (RFC 8032) over the pre-authentication encoding of DSSE v1 ---------------------------------------

PAYLOAD_TYPE = b"application/vnd.aidtrail.event+avro"


def pae(payload_type: bytes, payload: bytes) -> bytes:
    return b"DSSEv1 %d %b %d %b" % (len(payload_type), payload_type, len(payload), payload)


_P = 2**255 - 19
OF_SMALL_ORDER = {
    (y | sign << 255).to_bytes(32, "little")
    for y in (
        *(0, 1, _P - 1, _P, _P + 1),
        0x05FC536D880238B13933C6D305ACDFD5F098EFF244F3C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    )
    for sign in (0, 1)
}
"""Every way to write a point of small order: for such a key anybody can sign."""


def signer(entry: Entry, keys: Iterable[bytes]) -> bytes | None:
    """The key of these that the entry's signature was made with."""
    assert entry.event is not None
    message = pae(PAYLOAD_TYPE, entry.signed)
    for key in keys:
        if key in OF_SMALL_ORDER:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(entry.event.meta["signature"], message)
        except InvalidSignature:
            continue
        return key
    return None


def check_signature(entry: Entry, registry: Registry, signers: Counter[tuple[str, str]]) -> str | None:
    """What is wrong with the signature of an admitted entry, or with there being none; by the registry that it was ruled with. Counts those
    that hold in `signers`, by actor and key."""
    event = entry.event
    assert event is not None
    offset = event.stamp["registry_offset"]
    if event.meta.get("signature") is None:
        party: Party | None = registry.at("party", event.meta["actor"]["party_id"], offset)
        return f"{event.actor} signed nothing, which {event.meta['actor']['party_id']} requires" if party and party.signs else None
    enrolled: Enrolled | None = registry.at("actor", event.actor, offset)
    key = signer(entry, enrolled.keys if enrolled else ())
    if key is None:
        return f"expected a signature by a key of {event.actor}, found one that no key of his in the registry verifies"
    signers[event.actor, key.hex()] += 1
    return None


# --- a donation: the fold -----------------------------------------------------------------------------------------------------------

Amounts = dict[str, int]
"""By currency, in units of 0.0001."""


@dataclass
class Approval:
    id: str
    mechanism: str
    legs: list[str]
    requested: Amounts
    terms: bytes
    required: int
    by: str
    party: str
    on: int
    state: str = "pending"
    deciders: list[str] = field(default_factory=list)
    yes: int = 0
    granted: Amounts = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)
    lifters: set[str] = field(default_factory=set)
    until: int | None = None

    @property
    def usable(self) -> bool:
        return self.state == "granted" and set(self.conditions.values()) <= {"met"}


@dataclass
class Payment:
    id: str
    leg: dict[str, Any]
    currency: str
    state: str
    planned: int | None = None
    instructed: int = 0
    approval: str | None = None
    end_to_end: str | None = None
    preparer: str | None = None
    releaser: str | None = None
    settled: int = 0
    returned: int = 0
    received: int | None = None
    fees: int = 0
    acknowledged: int = 0
    disputer: str | None = None
    return_references: set[str | None] = field(default_factory=set)
    receipt_references: set[str | None] = field(default_factory=set)

    @property
    def in_flight(self) -> int:
        return self.instructed if self.state in ("instructed", "released") else 0

    @property
    def net(self) -> int:
        return self.settled - self.returned

    @property
    def arrived(self) -> int:
        return 0 if self.received is None else max(0, min(self.received, self.net - self.fees))

    @property
    def missing(self) -> int:
        """Paid, and neither with the receiver, nor taken by fees, nor back."""
        return max(0, self.net - self.fees - self.arrived)

    @property
    def kept(self) -> int:
        return min(self.acknowledged, self.arrived)

    @property
    def purse(self) -> str | None:
        """The leg on which the money came that this payment is made of; None for the donor's own."""
        found: str | None = self.leg["parent_leg_id"]
        return found


@dataclass
class Donation:
    id: str
    oversight: str
    contribution: str
    donor: str
    announcer: str
    announced_on: int
    beneficiary: str = ""
    legs: dict[str, dict[str, Any]] = field(default_factory=dict)
    purpose: str | None = None
    amounts: Amounts = field(default_factory=dict)
    terms: bytes = ZEROS
    until: int | None = None
    state: str = "announced"
    confirmer: str | None = None
    amenders: set[str] = field(default_factory=set)
    approvals: dict[str, Approval] = field(default_factory=dict)
    payments: dict[str, Payment] = field(default_factory=dict)
    utilised: Amounts = field(default_factory=dict)
    former: set[str] = field(default_factory=set)
    closer: str | None = None
    version: int = 0
    head: bytes = ZEROS
    changed_at: int = 0


def total(moneys: Iterable[Mapping[str, Any]]) -> Amounts:
    sums: Amounts = {}
    for money in moneys:
        sums[money["currency"]] = sums.get(money["currency"], 0) + money["amount"]
    return sums


def add(sums: dict[Any, int], key: Any, amount: int) -> None:
    sums[key] = sums.get(key, 0) + amount


def digits(amount: int) -> str:
    whole, rest = divmod(abs(amount), 10_000)
    return f"{'-' if amount < 0 else ''}{whole}.{rest:04d}"


def terms_sha256(donor: str, said: Mapping[str, Any]) -> bytes:
    """What an approval is bound to: the JSON of the terms, with sorted keys and no white space."""
    terms = {
        "amounts": [{"amount": digits(amount), "currency": currency} for currency, amount in sorted(total(said["amounts"]).items())],
        "beneficiary": said["beneficiary"],
        "donor": donor,
        "earmark": said["earmark"],
        "purpose": said["purpose"],
        "route": sorted(said["route"], key=lambda leg: str(leg["leg_id"])),
    }
    return sha256(json.dumps(terms, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode())


def fold(donation: Donation | None, event: Event, digest: bytes) -> Donation:
    """The donation after the event. Raises KeyError, and changes nothing, where the event speaks of what is not there."""
    said, kind = event.fields, event.type
    if donation is None:
        if kind != "PledgeAnnounced":
            raise KeyError("an announced pledge")
        donation = Donation(
            event.meta["donation_id"], said["oversight"], said["contribution"], said["donor"], event.actor, event.meta["occurred_on"]
        )
        _take_terms(donation, said)
    else:
        _FOLDS[kind](donation, event, said)
    donation.version, donation.head, donation.changed_at = donation.version + 1, digest, event.now
    return donation


def _take_terms(d: Donation, said: Mapping[str, Any]) -> None:
    d.beneficiary, d.purpose, d.until = said["beneficiary"], said["purpose"], said["valid_until"]
    d.legs = {leg["leg_id"]: leg for leg in said["route"]}
    d.amounts = total(said["amounts"])
    d.terms = terms_sha256(d.donor, said)


def _confirm(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    d.state, d.confirmer = "committed", event.actor


def _amend(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    before, currencies = d.terms, {*d.amounts, *d.former}
    _take_terms(d, said)
    d.former = currencies - set(d.amounts)
    d.amenders = d.amenders | {event.actor}
    if d.terms != before:
        _supersede(d, "pending", "granted")
        if d.state == "committed" and d.oversight == "managed":
            d.state, d.confirmer = "announced", None


def _end_pledge(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    d.state = "withdrawn" if event.type == "PledgeWithdrawn" else "expired"
    _supersede(d, "pending")


def _supersede(d: Donation, *states: str) -> None:
    for approval in d.approvals.values():
        if approval.state in states:
            approval.state = "superseded"


def _request(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    d.approvals[said["approval_id"]] = Approval(
        said["approval_id"],
        said["mechanism_id"],
        said["legs"],
        total(said["amounts"]),
        said["terms_sha256"],
        said["approvals_required"],
        event.actor,
        event.meta["actor"]["party_id"],
        event.meta["occurred_on"],
    )


def _discuss(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    d.approvals[said["approval_id"]]


def _decide(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    approval = d.approvals[said["approval_id"]]
    approval.deciders.append(event.actor)
    if said["decision"] == "reject":
        approval.state = "rejected"
        return
    given, before = total(said["amounts"]), approval.granted if approval.yes else approval.requested
    least = {currency: min(amount, given.get(currency, 0)) for currency, amount in before.items()}
    approval.granted = {currency: amount for currency, amount in least.items() if amount > 0}
    approval.yes += 1
    approval.conditions.update((condition["condition_id"], "open") for condition in said["conditions"])
    approval.until = min((at for at in (approval.until, said["valid_until"]) if at is not None), default=None)
    approval.state = "granted" if approval.yes >= approval.required else "pending"


def _end_approval(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    d.approvals[said["approval_id"]].state = "revoked" if event.type == "ApprovalRevoked" else "expired"


def _condition(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    approval = d.approvals[said["approval_id"]]
    approval.conditions[said["condition_id"]]
    approval.conditions[said["condition_id"]] = "met" if event.type == "ConditionMet" else "breached"
    if event.type == "ConditionMet":
        approval.lifters.add(event.actor)


def _schedule(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    leg, money = d.legs[said["leg_id"]], said["amount"]
    d.payments[said["disbursement_id"]] = Payment(said["disbursement_id"], leg, money["currency"], "scheduled", money["amount"])


def _instruct(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    leg, money, plan = d.legs[said["leg_id"]], said["amount"], d.payments.get(said["disbursement_id"])
    d.payments[said["disbursement_id"]] = Payment(
        said["disbursement_id"],
        leg,
        money["currency"],
        "instructed",
        planned=plan.planned if plan else None,
        instructed=money["amount"],
        approval=said["approval_id"],
        end_to_end=said["end_to_end_id"],
        preparer=event.actor,
    )


def _release(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    payment = d.payments[said["disbursement_id"]]
    payment.state, payment.releaser = "released", event.actor


def _settle(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    name = said["disbursement_id"]
    if said["leg_id"] is not None:
        d.payments[name] = Payment(name, d.legs[said["leg_id"]], said["amount"]["currency"], "settled")
    payment = d.payments[name]
    payment.state, payment.settled = "settled", said["amount"]["amount"]


def _reject(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    d.payments[said["disbursement_id"]].state = "rejected"


def _return(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    payment = d.payments[said["disbursement_id"]]
    payment.returned += said["amount"]["amount"]
    payment.return_references.add(said.get("return_reference"))


def _receive(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    payment = d.payments[said["disbursement_id"]]
    payment.received = (payment.received or 0) + said["amount"]["amount"]
    payment.fees += said["fees"]["amount"] if said["fees"] else 0
    payment.receipt_references.add(said.get("receipt_reference"))


def _acknowledge(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    d.payments[said["disbursement_id"]].acknowledged += said["amount"]["amount"]


def _dispute(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    d.payments[said["disbursement_id"]].disputer = event.actor if event.type == "ReceiptDisputed" else None


def _utilise(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    add(d.utilised, said["amount"]["currency"], said["amount"]["amount"])


def _close(d: Donation, event: Event, said: Mapping[str, Any]) -> None:
    d.closer = event.actor if event.type == "DonationClosed" else None


_FOLDS: dict[str, Callable[[Donation, Event, Mapping[str, Any]], None]] = {
    "PledgeConfirmed": _confirm,
    "PledgeAmended": _amend,
    "PledgeWithdrawn": _end_pledge,
    "PledgeExpired": _end_pledge,
    "ApprovalRequested": _request,
    "ApprovalQuestioned": _discuss,
    "ApprovalAnswered": _discuss,
    "ApprovalDecided": _decide,
    "ApprovalRevoked": _end_approval,
    "ApprovalExpired": _end_approval,
    "ConditionMet": _condition,
    "ConditionBreached": _condition,
    "DisbursementScheduled": _schedule,
    "DisbursementInstructed": _instruct,
    "DisbursementReleased": _release,
    "DisbursementSettled": _settle,
    "DisbursementRejected": _reject,
    "DisbursementReturned": _return,
    "FundsReceived": _receive,
    "ReceiptAcknowledged": _acknowledge,
    "ReceiptDisputed": _dispute,
    "DisputeResolved": _dispute,
    "UtilisationReported": _utilise,
    "DonationClosed": _close,
    "DonationReopened": _close,
}


# --- people and states: what must be so before an event -----------------------------------------------------------------------------

ROLES = {
    **dict.fromkeys(["PledgeAnnounced", "PledgeConfirmed", "PledgeAmended", "PledgeWithdrawn", "ApprovalRequested"], ("officer",)),
    **dict.fromkeys(["ApprovalAnswered", "FundsReceived", "ReceiptAcknowledged", "ReceiptDisputed", "DisputeResolved"], ("officer",)),
    **dict.fromkeys(["UtilisationReported", "DonationClosed", "DonationReopened"], ("officer",)),
    **dict.fromkeys(["ApprovalQuestioned", "ApprovalDecided", "ApprovalRevoked", "ConditionMet", "ConditionBreached"], ("approver",)),
    **dict.fromkeys(["PledgeExpired", "ApprovalExpired"], ("timekeeper",)),
    **dict.fromkeys(["DisbursementScheduled", "DisbursementInstructed"], ("preparer",)),
    "DisbursementReleased": ("releaser",),
    "DisbursementSettled": ("bank",),
    "DisbursementRejected": ("bank", "preparer", "releaser"),
    "DisbursementReturned": ("bank", "officer"),
}
_AFTER_CLOSING = {"DonationReopened", "DisbursementReturned", "UtilisationReported"}


def lets_the_donor_pay(d: Donation, approval: Approval) -> bool:
    """Whether it includes a leg that starts at the donor, or one that an amendment took away since."""
    return any(name not in d.legs or d.legs[name]["parent_leg_id"] is None for name in approval.legs)


def bound(d: Donation, purse: str | None, mechanism: str | None = None) -> Amounts:
    """What approvals, of one mechanism or all, hold of one purse: pending, granted, or used after they ended."""
    sums: Amounts = {}
    for approval in d.approvals.values():
        if mechanism is not None and approval.mechanism != mechanism:
            continue
        if approval.state not in ("pending", "granted"):
            for payment in d.payments.values():
                if payment.approval == approval.id and payment.purse == purse:
                    add(sums, payment.currency, payment.in_flight + payment.net)
        elif any(d.legs[name]["parent_leg_id"] == purse for name in approval.legs):
            for currency, amount in (approval.granted if approval.state == "granted" else approval.requested).items():
                add(sums, currency, amount)
    return sums


class Step:
    """One event against the state before it. `objections` says, a sentence each, what is not as it must be. What the third version of the
    rules made stricter is asked of what was ruled on by it or a later one (`strict`), and so for the fourth (`stricter`)."""

    def __init__(self, donation: Donation | None, event: Event, registry: Registry) -> None:
        self.d, self.event, self.said, self.registry = donation, event, event.fields, registry
        self.who, self.party, self.offset = event.actor, event.meta["actor"]["party_id"], event.stamp["registry_offset"]
        self.observed = (self.said.get("oversight") if donation is None else donation.oversight) == "observed"
        self.strict, self.stricter = event.stamp["rules"] >= 3, event.stamp["rules"] >= 4

    def objections(self) -> Iterator[str]:
        yield from self._actor()
        if self.strict and self.event.meta["occurred_on"] > self.event.now + 86_400_000_000:
            yield "it is told before it occurs"
        if self.d is None:
            if not self.observed:
                yield from self._of(self.said["donor"], "announces the pledge")
                yield from self._route()
            return
        if self.event.type == "PledgeAnnounced":
            yield "the donation is announced a second time"
        elif self.d.closer is not None and not self.observed and self.event.type not in _AFTER_CLOSING:
            yield f"the donation is closed, and {self.event.type} follows"
        judge = None if self.observed else getattr(self, f"_{self.event.type}", None)
        if judge is not None:
            yield from judge(self.d)

    def _actor(self) -> Iterator[str]:
        enrolled: Enrolled | None = self.registry.at("actor", self.who, self.offset)
        role, fitting = self.event.meta["actor"]["role"], ("reporter",) if self.observed else ROLES.get(self.event.type, ())
        if self.offset > self.registry.end:
            yield f"ruled with the registry at offset {self.offset}, which ends at {self.registry.end}"
        elif enrolled is None:
            yield f"{self.who} is not enrolled"
        elif enrolled.retired or enrolled.party != self.party or role not in enrolled.roles or role not in fitting:
            yield f"{self.who} may not do this as {role} of {self.party}"

    def _other(self, doing: str, *others: tuple[str, Iterable[str | None]]) -> Iterator[str]:
        """Distinct people: who acts is none of these."""
        for did, people in others:
            if self.who in people:
                yield f"{self.who} {doing}, and {did}"

    def _of(self, party: str | None, doing: str) -> Iterator[str]:
        if self.party != party:
            yield f"{self.who} of {self.party} {doing}, which is for {party}"

    def _mechanism(self, approval: Approval) -> Iterator[str]:
        mechanism: Mechanism | None = self.registry.at("mechanism", approval.mechanism, self.offset)
        yield from self._of(mechanism.party if mechanism else None, f"acts for mechanism {approval.mechanism}")

    def _is(self, what: Approval | Payment, *states: str) -> Iterator[str]:
        if what.state not in states:
            yield f"{what.id} is {what.state}, and not {' or '.join(states)}"

    def _past(self, until: int | None) -> Iterator[str]:
        if until is None or self.event.now <= until:
            yield "it expires before its time"

    def _route(self) -> Iterator[str]:
        """What counts as received counts once."""
        legs, last = {leg["leg_id"]: leg for leg in self.said["route"]}, self.said["beneficiary"]
        for leg in self.said["route"] if self.stricter else ():
            at, passed = leg if leg["to_party"] == last else None, set[str]()
            while at is not None and at["leg_id"] not in passed:
                passed.add(at["leg_id"])
                at = legs.get(at["parent_leg_id"])
                if at is not None and at["to_party"] == last:
                    yield f"leg {leg['leg_id']} comes back to {last}"

    def _PledgeConfirmed(self, d: Donation) -> Iterator[str]:
        yield from self._of(d.donor, "confirms the pledge")
        yield from self._other("confirms", ("announced it", [d.announcer]), ("amended it", d.amenders))
        yield from self._undecided(d, "confirms the pledge")
        if d.state != "announced":
            yield f"a pledge that is {d.state} is confirmed"

    def _PledgeAmended(self, d: Donation) -> Iterator[str]:
        yield from self._of(d.donor, "amends the pledge")
        yield from self._undecided(d, "amends the pledge")
        if d.state in ("withdrawn", "expired"):
            yield f"a pledge that is {d.state} is amended"
        yield from self._route()
        before, after, legs = d.beneficiary, self.said["beneficiary"], self.said["route"]
        paid = [payment for payment in d.payments.values() if payment.state == "settled" or payment.in_flight]
        ends = () if after == before else (before, after) if self.stricter else (before,)
        if any(payment.leg["to_party"] in ends for payment in paid):
            yield f"the beneficiary is {after} in place of {before}, and one of them was paid"
        yield from (f"{payment.id} moved on a leg that is not on the route any more" for payment in paid if payment.leg not in legs)

    def _undecided(self, d: Donation, doing: str) -> Iterator[str]:
        live = [approval for approval in d.approvals.values() if approval.state in ("pending", "granted")]
        if self.strict:
            deciders = [who for approval in live for who in (*approval.deciders, *(approval.lifters if self.stricter else ()))]
            yield from self._other(doing, ("decided on an approval of it", deciders))

    def _PledgeWithdrawn(self, d: Donation) -> Iterator[str]:
        yield from self._of(d.donor, "withdraws the pledge")
        yield from self._ends(d)

    def _PledgeExpired(self, d: Donation) -> Iterator[str]:
        yield from self._past(d.until)
        yield from self._ends(d)

    def _ends(self, d: Donation) -> Iterator[str]:
        if d.state in ("withdrawn", "expired") or any(payment.in_flight for payment in d.payments.values()):
            yield f"a pledge that is {d.state}, or has payments in flight, is ended"

    def _ApprovalRequested(self, d: Donation) -> Iterator[str]:
        said, amounts = self.said, total(self.said["amounts"])
        if self.party not in {d.donor, *(leg[end] for leg in d.legs.values() for end in ("from_party", "to_party"))} - {d.beneficiary}:
            yield f"{self.party} requests, and is neither donor nor intermediary"
        purses = {d.legs[name]["parent_leg_id"] for name in said["legs"]}
        mechanism: Mechanism | None = self.registry.at("mechanism", said["mechanism_id"], self.offset)
        ended = d.state in ("withdrawn", "expired") or (self.strict and d.until is not None and self.event.now > d.until)
        if said["approval_id"] in d.approvals or said["terms_sha256"] != d.terms or (None in purses and ended):
            yield f"{said['approval_id']} is requested twice, for other terms, or for a pledge that has ended"
        before = [bound(d, purse, said["mechanism_id"]) if self.strict else {} for purse in purses]
        together = [{currency: amount + sums.get(currency, 0) for currency, amount in amounts.items()} for sums in before]
        if mechanism is None or mechanism.retired or said["approvals_required"] != max(map(mechanism.approvals, together), default=0):
            yield f"{said['approval_id']} asks for {said['approvals_required']} approvals, which is not what the mechanism asks for"
        for purse in purses if self.strict else ():
            taken = bound(d, purse)
            if any(amount + taken.get(currency, 0) > d.amounts.get(currency, 0) for currency, amount in amounts.items()):
                yield f"{said['approval_id']} asks for more out of {purse or 'the pledge'} than is not under approval"

    def _ApprovalQuestioned(self, d: Donation) -> Iterator[str]:
        approval = d.approvals[self.said["approval_id"]]
        yield from self._is(approval, "pending")
        yield from self._mechanism(approval)

    def _ApprovalAnswered(self, d: Donation) -> Iterator[str]:
        approval = d.approvals[self.said["approval_id"]]
        yield from self._is(approval, "pending")
        yield from self._of(approval.party, "answers")

    def _ApprovalDecided(self, d: Donation) -> Iterator[str]:
        approval, given = d.approvals[self.said["approval_id"]], total(self.said["amounts"])
        yield from self._is(approval, "pending")
        yield from self._mechanism(approval)
        yield from self._other(
            f"decides on {approval.id}",
            ("requested it", [approval.by]),
            ("shaped the pledge", [d.announcer, d.confirmer, *d.amenders]),
            ("decided before", approval.deciders),
        )
        if any(amount > approval.requested.get(currency, 0) for currency, amount in given.items()):
            yield f"more is approved by {self.who} than was requested"
        mechanism: Mechanism | None = self.registry.at("mechanism", approval.mechanism, self.offset)
        latest = self.event.now + (mechanism.days if mechanism else 0) * 86_400_000_000
        if self.said["decision"] == "approve" and not self.event.now < (self.said["valid_until"] or 0) <= latest:
            yield f"{approval.id} is approved without end, for longer than the mechanism allows, or for a time that is past"
        if self.stricter and self.said["decision"] == "approve" and approval.until is not None and self.event.now >= approval.until:
            yield f"{approval.id} is approved after the word of an approver before has run out"

    def _ApprovalRevoked(self, d: Donation) -> Iterator[str]:
        approval = d.approvals[self.said["approval_id"]]
        yield from self._is(approval, "granted")
        yield from self._mechanism(approval)
        yield from self._other(f"revokes {approval.id}", ("decided on it", approval.deciders))

    def _ApprovalExpired(self, d: Donation) -> Iterator[str]:
        approval = d.approvals[self.said["approval_id"]]
        yield from self._is(approval, "granted")
        yield from self._past(approval.until)

    def _ConditionBreached(self, d: Donation) -> Iterator[str]:
        approval = d.approvals[self.said["approval_id"]]
        yield from self._is(approval, "granted")
        yield from self._mechanism(approval)

    def _ConditionMet(self, d: Donation) -> Iterator[str]:
        yield from self._ConditionBreached(d)
        approval = d.approvals[self.said["approval_id"]]
        paid = [payment for payment in d.payments.values() if payment.approval == approval.id]
        if self.strict:
            yield from self._other(
                f"lifts a condition of {approval.id}",
                ("requested it", [approval.by]),
                ("shaped the pledge", [d.announcer, d.confirmer, *d.amenders]),
                ("pays under it", [who for payment in paid for who in (payment.preparer, payment.releaser)]),
            )

    def _DisbursementScheduled(self, d: Donation) -> Iterator[str]:
        yield from self._of(d.legs[self.said["leg_id"]]["from_party"], "plans a payment")
        if self.said["disbursement_id"] in d.payments:
            yield f"{self.said['disbursement_id']} is planned, and is there already"

    def _DisbursementInstructed(self, d: Donation) -> Iterator[str]:
        name, leg, amount = self.said["disbursement_id"], d.legs[self.said["leg_id"]], self.said["amount"]
        plan = d.payments.get(name)
        if plan is not None:
            yield from self._is(plan, "scheduled")
            if (plan.leg["leg_id"], plan.currency) != (leg["leg_id"], amount["currency"]) or amount["amount"] > (plan.planned or 0):
                yield f"{name} does not keep to its plan"
        if any(payment.end_to_end == self.said["end_to_end_id"] for payment in d.payments.values()):
            yield f"{name} has the end-to-end id of another payment"
        if leg["parent_leg_id"] is None and (d.state in ("withdrawn", "expired") or (d.until is not None and self.event.now > d.until)):
            yield f"{name} is paid out of a pledge that is {d.state} or past its validity"
        yield from self._of(leg["from_party"], f"instructs {name}")
        yield from self._covered(d, self.said["approval_id"], leg["leg_id"])

    def _covered(self, d: Donation, name: str | None, leg_id: str | None) -> Iterator[str]:
        """An approval counts only while it is granted, valid, with its conditions met; who pays under it had no part in it."""
        approval = d.approvals.get(name or "")
        if approval is None:
            yield "the payment names no approval that was requested"
            return
        if not approval.usable or approval.terms != d.terms or (approval.until is not None and self.event.now > approval.until):
            yield f"approval {approval.id} is {approval.state}, is for other terms, has conditions not met, or is past its validity"
        if leg_id is not None and leg_id not in approval.legs:
            yield f"approval {approval.id} is not for leg {leg_id}"
        lifters = approval.lifters if self.strict else ()
        deciders = [*approval.deciders, *lifters]
        yield from self._other(f"pays under {approval.id}", ("requested it", [approval.by]), ("decided on it", deciders))

    def _DisbursementReleased(self, d: Donation) -> Iterator[str]:
        payment = d.payments[self.said["disbursement_id"]]
        yield from self._is(payment, "instructed")
        yield from self._of(payment.leg["from_party"], f"releases {payment.id}")
        yield from self._covered(d, payment.approval, None)
        yield from self._other(f"releases {payment.id}", ("prepared it", [payment.preparer]))
        if self.strict and payment.purse is None and d.until is not None and self.event.now > d.until:
            yield f"{payment.id} is released out of a pledge that is past its validity"

    def _DisbursementSettled(self, d: Donation) -> Iterator[str]:
        payment = d.payments[self.said["disbursement_id"]]
        yield from self._is(payment, "released")
        yield from self._bank(payment)
        if self.said["leg_id"] is not None or self.said["amount"]["currency"] != payment.currency:
            yield f"{payment.id} is settled on another leg or in another currency than it was instructed"

    def _bank(self, payment: Payment) -> Iterator[str]:
        party: Party | None = self.registry.at("party", self.party, self.offset)
        if party is None or party.kind != "bank":
            yield from self._of(payment.leg["from_party"], f"tells what the bank did with {payment.id}")

    def _DisbursementRejected(self, d: Donation) -> Iterator[str]:
        payment = d.payments[self.said["disbursement_id"]]
        yield from self._is(payment, "instructed", "released")
        if payment.state == "released":
            yield from self._bank(payment)
        else:
            yield from self._of(payment.leg["from_party"], f"cancels {payment.id}")
        if (self.event.meta["actor"]["role"] == "bank") != (payment.state == "released"):
            yield f"{payment.id} is {payment.state}, and {self.who} rejects it as {self.event.meta['actor']['role']}"

    def _DisbursementReturned(self, d: Donation) -> Iterator[str]:
        payment = d.payments[self.said["disbursement_id"]]
        if self.event.meta["actor"]["role"] == "bank":
            yield from self._bank(payment)
        else:
            yield from self._of(payment.leg["to_party"], f"returns {payment.id}")
        yield from self._in(payment)
        yield from self._new("return", self.said.get("return_reference"), payment, payment.return_references)

    def _new(self, what: str, reference: str | None, payment: Payment, before: set[str | None]) -> Iterator[str]:
        """A further return or receipt of a payment has a reference of its own."""
        if self.stricter and before and reference in before | {None}:
            yield f"{payment.id}: a {what} is told again, or without a reference of its own"

    def _in(self, payment: Payment) -> Iterator[str]:
        if self.said["amount"]["currency"] != payment.currency:
            yield f"{payment.id} is in {payment.currency}, and this in {self.said['amount']['currency']}"

    def _FundsReceived(self, d: Donation) -> Iterator[str]:
        payment = d.payments[self.said["disbursement_id"]]
        yield from self._of(payment.leg["to_party"], f"receives {payment.id}")
        yield from self._in(payment)
        fees = self.said["fees"]["amount"] if self.said["fees"] else 0
        if self.said["amount"]["amount"] + fees > payment.missing if self.strict else payment.received is not None:
            yield f"{payment.id} is received twice, or more of it than was settled"
        yield from self._new("receipt", self.said.get("receipt_reference"), payment, payment.receipt_references)

    def _ReceiptAcknowledged(self, d: Donation) -> Iterator[str]:
        payment = d.payments[self.said["disbursement_id"]]
        yield from self._of(d.beneficiary, f"acknowledges {payment.id}")
        yield from self._in(payment)
        if payment.leg["to_party"] != d.beneficiary:
            yield f"{payment.id} is acknowledged, and was not paid to the beneficiary"
        if self.strict and payment.acknowledged + self.said["amount"]["amount"] > payment.arrived:
            yield f"{payment.id}: more is acknowledged than is there"

    def _ReceiptDisputed(self, d: Donation) -> Iterator[str]:
        payment = d.payments[self.said["disbursement_id"]]
        yield from self._of(payment.leg["to_party"], f"disputes {payment.id}")
        if payment.disputer is not None or payment.state != "settled":
            yield f"{payment.id} is disputed twice, or before it is settled"

    def _DisputeResolved(self, d: Donation) -> Iterator[str]:
        payment = d.payments[self.said["disbursement_id"]]
        yield from self._other("resolves a dispute", ("opened it", [payment.disputer]))
        sides = (payment.leg["to_party"],) if self.strict else (payment.leg["from_party"], payment.leg["to_party"])
        if payment.disputer is None or self.party not in sides:
            yield f"{payment.id}: a dispute is resolved that is not open, or not by {' or '.join(sides)}"

    def _UtilisationReported(self, d: Donation) -> Iterator[str]:
        yield from self._of(d.beneficiary, "reports use")
        money, kept = self.said["amount"], [(payment.currency, payment.kept) for payment in d.payments.values()]
        left = sum(amount for currency, amount in kept if currency == money["currency"]) - d.utilised.get(money["currency"], 0)
        if self.strict and money["amount"] > left:
            yield "more is used than was acknowledged and is still there"

    def _DonationClosed(self, d: Donation) -> Iterator[str]:
        if self.party not in {d.donor, *(leg["from_party"] for leg in d.legs.values())}:
            yield f"{self.party} is neither donor nor payer"

    def _DonationReopened(self, d: Donation) -> Iterator[str]:
        if self.strict:
            if self.party not in {d.donor, *(leg[end] for leg in d.legs.values() for end in ("from_party", "to_party"))}:
                yield f"{self.party} is not on the route"
        else:
            yield from self._DonationClosed(d)
        yield from self._other("reopens", ("closed it", [d.closer]))
        if d.closer is None:
            yield "an open donation is reopened"


# --- sums: what must hold of every state --------------------------------------------------------------------------------------------


def broken_sums(d: Donation) -> Iterator[str]:
    """Settled - returned + in flight <= valid approvals <= pledged; out of a leg <= into it; used <= acknowledged <= received."""
    managed, live = d.oversight == "managed", ("pending", "granted")
    out: Amounts = {}
    under: dict[tuple[str, str | None, str], int] = {}
    into: dict[tuple[str | None, str], int] = {}
    of_purse: dict[tuple[str | None, str], int] = {}
    acknowledged: Amounts = {}
    for payment in d.payments.values():
        if not 0 <= payment.returned <= payment.settled or (managed and payment.settled > payment.instructed):
            yield f"{payment.id}: instructed, settled and returned do not fall"
        received = payment.received or 0
        if (payment.received is not None and received + payment.fees > payment.settled) or not 0 <= payment.acknowledged <= received:
            yield f"{payment.id}: settled, received and acknowledged do not fall"
        if d.closer is not None and (payment.in_flight or payment.disputer is not None):
            yield f"{payment.id} is in flight or disputed in a closed donation"
        add(acknowledged, payment.currency, payment.acknowledged)
        taken = payment.in_flight + payment.net
        add(of_purse, (payment.purse, payment.currency), taken)
        add(into, (payment.leg["leg_id"], payment.currency), payment.arrived)
        add(under, (payment.approval or "", payment.purse, payment.currency), taken)
    if not managed:
        return
    for (name, _, currency), taken in under.items():
        if taken and taken > d.approvals[name].granted.get(currency, 0):
            yield f"more {currency} is paid under approval {name} than it grants"
    for (purse, currency), taken in of_purse.items():
        if taken > (d.amounts.get(currency, 0) if purse is None else into.get((purse, currency), 0)):
            yield f"more {currency} goes out of {purse or 'the pledge'} than came into it"
    for approval in d.approvals.values():
        for currency, amount in (approval.granted if approval.state == "granted" else approval.requested).items():
            add(out, currency, amount if approval.state in live and lets_the_donor_pay(d, approval) else 0)
        if approval.state in live and approval.terms != d.terms:
            yield f"approval {approval.id} is {approval.state} for terms that are not in force"
        if approval.state == "granted" and (approval.yes < approval.required or approval.until is None):
            yield f"approval {approval.id} is granted by {approval.yes} of {approval.required}, or without an end"
    for (name, purse, currency), taken in under.items():
        if purse is None and name in d.approvals and d.approvals[name].state not in live:
            add(out, currency, taken)
    for currency, amount in out.items():
        if amount > d.amounts.get(currency, 0):
            yield f"more {currency} is approved than is pledged"
    for currency, amount in d.utilised.items():
        if amount > acknowledged.get(currency, 0):
            yield f"more {currency} is used than was acknowledged"


# --- the rows of the views ----------------------------------------------------------------------------------------------------------

Row = dict[str, Any]
KEYS = {
    "entries": ("offset",),
    "refusals": ("offset",),
    "donations": ("donation_id",),
    "amounts": ("donation_id", "currency"),
    "approvals": ("donation_id", "approval_id"),
    "parked": ("donation_id",),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(microseconds: int | None) -> str | None:
    return None if microseconds is None else (_EPOCH + timedelta(microseconds=microseconds)).isoformat()


def by_currency(amounts: Amounts) -> dict[str, str]:
    return {currency: digits(amount) for currency, amount in amounts.items()}


def entry_row(entry: Entry, partition: int, outcome: str, void: str | None) -> Row:
    event, value = entry.event, (entry.record.value or b"")
    row: Row = dict.fromkeys(
        ["version", "event_type", "event_id", "actor_id", "party_id", "role", "occurred_on", "recorded_at", "submitted_offset"]
    )
    row |= {"partition": partition, "offset": entry.record.offset, "outcome": outcome, "donation_id": entry.donation_id}
    row |= {"void_reason": void, "sha256": entry.sha256.hex(), "value_sha256": sha256(value).hex()}
    if event is not None and event.meta["ledger"] is not None:
        meta, stamp = event.meta, event.stamp
        row |= {"version": stamp["version"] if outcome == "admitted" else None, "event_type": event.type, "event_id": meta["event_id"]}
        row |= meta["actor"] | {"occurred_on": moment(meta["occurred_on"]), "recorded_at": moment(event.now)}
        row["submitted_offset"] = stamp["submitted_offset"]
    return row


def refusal_row(event: Event, partition: int, offset: int) -> Row:
    said = event.fields
    return {
        "partition": partition,
        "offset": offset,
        "donation_id": event.meta["donation_id"],
        "recorded_at": moment(event.now),
        "event_id": said["refused_event_id"],
        "event_type": said["refused_event_type"],
        "reason": said["reason"],
        "expected": said["expected"],
        "found": said["found"],
        "submission_sha256": said["submission_sha256"].hex(),
    }


def amount_rows(d: Donation) -> list[Row]:
    observed = d.oversight == "observed"
    names = ["pledged", "approved", "in_flight", "settled", "returned", "passed_on", "held", "received", "acknowledged", "utilised"]
    rows: dict[str, dict[str, int]] = {}

    def row(currency: str) -> dict[str, int]:
        return rows.setdefault(currency, dict.fromkeys(names, 0))

    for currency in d.former:
        row(currency)
    for currency, amount in d.amounts.items():
        row(currency)["pledged"] = amount
    for approval in d.approvals.values():
        if approval.usable and lets_the_donor_pay(d, approval):
            for currency, amount in approval.granted.items():
                row(currency)["approved"] += amount
    passed_on_from = {leg["parent_leg_id"] for leg in d.legs.values()}
    for payment in d.payments.values():
        from_donor = observed or payment.purse is None
        if payment.state in ("instructed", "released"):
            row(payment.currency)["in_flight" if from_donor else "held"] += payment.instructed if from_donor else -payment.instructed
        elif payment.state == "settled":
            sums = row(payment.currency)
            if from_donor:
                sums["settled"] += payment.settled
                sums["returned"] += payment.returned
            else:
                sums["passed_on"] += payment.net
                sums["held"] -= payment.net
            if payment.received is not None:
                mine = payment.leg["to_party"] == d.beneficiary
                if not observed and (not mine or payment.leg["leg_id"] in passed_on_from):
                    sums["held"] += payment.arrived
                if mine:
                    sums["received"] += payment.arrived
                    sums["acknowledged"] += payment.kept
    for currency, amount in d.utilised.items():
        row(currency)["utilised"] = amount
    return [
        {"donation_id": d.id, "currency": currency, **{name: digits(sums[name]) for name in names}}
        for currency, sums in sorted(rows.items())
    ]


def approval_rows(d: Donation) -> list[Row]:
    return [
        {
            "donation_id": d.id,
            "approval_id": approval.id,
            "mechanism_id": approval.mechanism,
            "state": approval.state,
            "legs": approval.legs,
            "requested": by_currency(approval.requested),
            "granted": by_currency(approval.granted),
            "requested_by": approval.by,
            "requested_for": approval.party,
            "requested_on": moment(approval.on),
            "approvals_required": approval.required,
            "approvals": approval.yes,
            "deciders": approval.deciders,
            "valid_until": moment(approval.until),
        }
        for approval in sorted(d.approvals.values(), key=lambda approval: approval.id)
    ]


def donation_row(d: Donation, partition: int) -> Row:
    approval, disbursement, receipt = _approval_axis(d), _disbursement_axis(d), _receipt_axis(d)
    row = {
        "donation_id": d.id,
        "partition": partition,
        "version": d.version,
        "head_sha256": d.head.hex(),
        "oversight": d.oversight,
        "contribution": d.contribution,
        "donor": d.donor,
        "beneficiary": d.beneficiary,
        "parties": list(dict.fromkeys(party for leg in d.legs.values() for party in (leg["from_party"], leg["to_party"]))),
        "legs": list(d.legs),
        "mechanisms": list(dict.fromkeys(approval.mechanism for approval in d.approvals.values())),
        "terms_sha256": d.terms.hex(),
        "purpose": d.purpose,
        "headline": _headline(d, approval, disbursement, receipt),
        "pledge": d.state,
        "approval": approval,
        "disbursement": disbursement,
        "receipt": receipt,
        "announced_on": moment(d.announced_on),
        "changed_at": moment(d.changed_at),
        "next_deadline": moment(_next_deadline(d)),
    }
    return row | {"rows_sha256": _rows_sha256(d, row)}


def _rows_sha256(d: Donation, row: Row) -> str:
    """SHA-256 of the donation's rows in canonical form: `views/digest.py` of Aidtrail says it to the byte."""
    names = ["donation_id", "partition", "version", "head_sha256", "oversight", "contribution", "donor", "beneficiary"]
    after = ["terms_sha256", "headline", "pledge", "approval", "disbursement", "receipt"]
    deadline = _next_deadline(d)
    lists = [" ".join(row[name]) for name in ("parties", "legs", "mechanisms")]
    fields = ["donation", *(row[name] for name in names), *lists, *(row[name] for name in after), d.announced_on, d.changed_at]
    document = [[*fields, "" if deadline is None else deadline]]
    document += [["amount", *list(amounts.values())[1:]] for amounts in amount_rows(d)]
    for one in sorted(d.approvals.values(), key=lambda one: one.id):
        sums = [" ".join(f"{currency}={text}" for currency, text in sorted(by_currency(of).items())) for of in (one.requested, one.granted)]
        until = "" if one.until is None else one.until
        document.append(
            ["approval", one.id, one.mechanism, one.state, " ".join(one.legs), *sums, one.party, one.on, one.required, one.yes, until]
        )
    return sha256("".join("\t".join(map(str, fields)) + "\n" for fields in document).encode()).hex()


def _from_donor(d: Donation) -> list[Payment]:
    return [payment for payment in d.payments.values() if d.oversight == "observed" or payment.purse is None]


def _approval_axis(d: Donation) -> str:
    if d.oversight == "observed":
        return "not_recorded"
    approvals = [approval for approval in d.approvals.values() if lets_the_donor_pay(d, approval)]
    if not approvals:
        return "none"
    states = [approval.state for approval in approvals]
    covered: Amounts = {}
    for approval in approvals:
        for currency, amount in approval.granted.items() if approval.usable else ():
            add(covered, currency, amount)
    used = False
    for payment in d.payments.values():
        taken = payment.in_flight + payment.net
        if payment.purse is None and payment.approval is not None and taken > 0 and d.approvals[payment.approval].state != "granted":
            add(covered, payment.currency, taken)
            used = True
    if "granted" in states or used:
        return "granted" if all(amount <= covered.get(currency, 0) for currency, amount in d.amounts.items()) else "partly"
    return "pending" if "pending" in states else states[-1]


def _disbursement_axis(d: Donation) -> str:
    payments = _from_donor(d)
    settled, net = Counter[str](), Counter[str]()
    for payment in payments:
        if payment.state == "settled":
            settled[payment.currency] += payment.settled
            net[payment.currency] += payment.net
    if any(payment.in_flight for payment in payments):
        return "in_flight"
    if any(amount > 0 for amount in net.values()):
        return "full" if all(amount <= net[currency] for currency, amount in d.amounts.items()) else "partly"
    if any(settled.values()):
        return "returned"
    if d.oversight == "observed" and payments and not any(d.amounts.values()):
        return "full"
    planned = d.state not in ("withdrawn", "expired") and any(payment.state == "scheduled" for payment in payments)
    return "scheduled" if planned else "none"


def _receipt_axis(d: Donation) -> str:
    payments = d.payments.values()
    if any(payment.disputer is not None for payment in payments):
        return "disputed"
    paid = [payment for payment in payments if payment.net > 0]
    mine = [payment for payment in paid if payment.arrived and payment.leg["to_party"] == d.beneficiary]
    if not mine:
        return "none"
    on_its_way = any(payment.state in ("instructed", "released") for payment in payments)
    on_its_way |= any(payment.missing for payment in paid) or any(payment.acknowledged < payment.arrived for payment in mine)
    held = any(row["held"] != digits(0) for row in amount_rows(d))
    return "partly" if on_its_way or held else "acknowledged"


def _headline(d: Donation, approval: str, disbursement: str, receipt: str) -> str:
    """What somebody must act on first, else how far the money is, else how far the papers are."""
    ended, moved = d.state in ("withdrawn", "expired"), disbursement in ("partly", "full")
    if d.closer is not None:
        return "closed"
    if receipt == "disputed":
        return "disputed"
    if disbursement == "in_flight":
        return "in_flight"
    if ended and not moved:
        return d.state
    if receipt == "acknowledged" and (disbursement == "full" or ended):
        return "acknowledged"
    by_money = {"partly": "partly_paid", "full": "paid", "returned": "returned"}
    by_paper = {"pending": "awaiting_approval", "granted": "approved", "partly": "partly_approved"}
    by_paper |= dict.fromkeys(("rejected", "expired", "revoked", "superseded"), "not_approved")
    return by_money.get(disbursement) or by_paper.get(approval) or d.state


def _next_deadline(d: Donation) -> int | None:
    if d.closer is not None or d.oversight == "observed":
        return None
    due = [approval.until for approval in d.approvals.values() if approval.state == "granted" and approval.until is not None]
    left = dict(d.amounts)
    for payment in d.payments.values():
        if payment.purse is None:
            add(left, payment.currency, -payment.net)
    in_flight = any(payment.state in ("instructed", "released") for payment in d.payments.values())
    if d.until is not None and d.state not in ("withdrawn", "expired") and not in_flight and any(amount > 0 for amount in left.values()):
        due.append(d.until)
    return min(due, default=None)


# --- what was found -----------------------------------------------------------------------------------------------------------------


class Finding(NamedTuple):
    claim: str
    topic: str
    partition: int | None
    offset: int | None
    what: str

    def __str__(self) -> str:
        where = "" if self.partition is None else f" partition {self.partition}"
        where += "" if self.offset is None else f" offset {self.offset}"
        return f"{self.claim} fails: {self.topic}{where}: {self.what}"


TOPICS = ("recorded", "submitted", "registry", "checkpoints")


def _place(finding: Finding) -> tuple[int, int, int]:
    return TOPICS.index(finding.topic), finding.partition or 0, finding.offset or 0


@dataclass
class Report:
    """What was looked at, and what of it is not as it must be. `findings` has the first MAX_NAMED of each claim."""

    kind: str
    records: int = 0
    altered: int = 0
    removed: int = 0
    reordered: int = 0
    invented: int = 0
    rows: int = 0
    rows_differing: int = 0
    admitted: int = 0
    refused: int = 0
    void: int = 0
    unanswered: int = 0
    signers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many admitted entries an actor signed with a key, by both."""
    views_behind: int = 0
    views_sealed: int = 0
    checkpoint: Checkpoint | None = None
    failing: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    memory: Memory | None = None
    """What to remember, if all holds."""
    continues: int | None = None
    """The size of the checkpoint that was seen last, and that this one continues."""
    conflict: tuple[str, str] | None = None
    """The checkpoint that was seen last, and one by the same key that was not shown to continue it: kept, for they may be evidence."""
    firsts: dict[str, Finding] = field(default_factory=dict)
    """Of each claim that fails, the first finding that names a record."""
    gaps: int = 0
    """Offsets without a record, in all topics."""
    unexamined: set[str] = field(default_factory=set)
    """Claims that were not looked at to the end: what is found of them holds, that there is no more does not."""

    def may_skip(self, offsets: int) -> bool:
        """Whether so many offsets without a record may follow here; if so, they are counted."""
        if self.gaps + offsets > MAX_GAPS + GAPS_FOR_A_RECORD * self.records:
            return False
        self.gaps += max(0, offsets)
        return True

    def find(self, claim: str, topic: str, partition: int | None, offset: int | None, what: object) -> None:
        self.failing[claim] += 1
        finding = Finding(claim, plain(topic), partition, offset, plain(what))
        if self.failing[claim] <= MAX_NAMED:
            self.findings.append(finding)
        if offset is not None and topic in TOPICS:
            self.firsts[claim] = min(self.firsts.get(claim, finding), finding, key=_place)

    def find_forged(self, partition: int, offset: int, what: str) -> None:
        """An admitted entry that its actor did not sign as he must: somebody else wrote it."""
        self.invented += 1
        self.find("C2", "recorded", partition, offset, what)

    @property
    def exit_code(self) -> int:
        return EXIT[min(self.failing)] if self.failing else 0

    @property
    def first(self) -> Finding | None:
        """The first bad index: of the lowest claim that fails."""
        return self.firsts.get(min(self.failing)) if self.failing else None

    def line(self) -> str:
        return (
            f"records {self.records}, altered {self.altered}, removed {self.removed}, reordered {self.reordered}, "
            f"invented {self.invented}, view rows differing {self.rows_differing}"
        )


class Stand(NamedTuple):
    size: int
    root: bytes

    @classmethod
    def of(cls, read: Mapping[str, Any]) -> Stand:
        size, root = read["size"], unbase64(read["root"])
        if type(size) is not int or not 0 <= size < 2**63 or len(root) != 32:
            raise ValueError
        return cls(size, root)


class Memory(NamedTuple):
    """What an auditor keeps from one visit to the next: the checkpoint, and how far the topics were that no checkpoint covers."""

    note: str
    registry: Stand | None = None
    submitted: tuple[Stand, ...] = ()

    @classmethod
    def parse(cls, text: bytes) -> Memory:
        try:
            read = read_json(text)
            note, registry = read["checkpoint"], read["registry"]
            if read["format"] != MEMORY or type(note) is not str:
                raise ValueError
            note.encode()  # not with half a character
            return cls(note, None if registry is None else Stand.of(registry), tuple(map(Stand.of, read["submitted"])))
        except (ValueError, KeyError, TypeError, RecursionError, Wrong):
            raise Unusable(f"expected the file that --last keeps ({MEMORY}), found something else; it stays as it is") from None

    def text(self) -> str:
        stands = [None if one is None else {"size": one.size, "root": base64_of(one.root)} for one in (self.registry, *self.submitted)]
        return json.dumps({"format": MEMORY, "checkpoint": self.note, "registry": stands[0], "submitted": stands[1:]}, indent=1) + "\n"


class Trust(NamedTuple):
    """What the auditor brings along."""

    log: Key
    policy: Policy = Policy()
    memory: Memory | None = None

    def open(self, note: bytes) -> Checkpoint:
        return opened(note, self.log, self.policy.witnesses)

    def last(self) -> Checkpoint | None:
        if self.memory is None:
            return None
        try:
            return self.open(self.memory.note.encode())
        except Wrong as error:
            raise Unusable(f"the checkpoint that --last keeps is not one of this key: {error}") from None


def require_quorum(report: Report, checkpoint: Checkpoint, policy: Policy) -> None:
    if not policy.met(checkpoint.witnesses):
        signed = ", ".join(sorted(checkpoint.witnesses)) or "nobody"
        report.find("C1", "checkpoints", None, None, f"expected the quorum {policy.quorum} of witnesses, found {signed}")


# --- one partition of an export -----------------------------------------------------------------------------------------------------


class Rows:
    """The rows of one table of the views, in the order of their keys, beside those that the fold gives."""

    def __init__(self, report: Report, claim: str, table: str, partition: int, rows: Iterable[Row]) -> None:
        self._report, self._claim, self._table, self._partition = report, claim, table, partition
        self._rows = iter(rows)
        self._next = self._read()

    def expect(self, row: Row) -> None:
        key = self._key(row)
        while self._next is not None and self._before(self._next, key):
            self._differs(self._next, "no such row", "one")
            self._next = self._read()
        if self._next is None or self._key(self._next) != key:
            self._differs(row, "a row", "none")
            return
        found, self._next = self._next, self._read()
        if found.get("rows_sha256", "") is None:
            row = {**row, "rows_sha256": None}  # a build that an older release made has none
        if found != row:
            names = [name for name in {**row, **found} if row.get(name, found) != found.get(name, row)]
            self._differs(row, f"{names[0]} {row.get(names[0])}", str(found.get(names[0])))

    def finish(self) -> None:
        while self._next is not None:
            self._differs(self._next, "no such row", "one")
            self._next = self._read()

    def _read(self) -> Row | None:
        try:
            row = next(self._rows, None)
        except Wrong as error:
            self._differs({}, "rows", str(error))
            return None
        self._report.rows += row is not None
        return row

    def _key(self, row: Row) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in KEYS[self._table])

    def _before(self, row: Row, key: tuple[Any, ...]) -> bool:
        try:
            return self._key(row) < key
        except TypeError:
            return True

    def _differs(self, row: Row, expected: str, found: str) -> None:
        self._report.rows_differing += 1
        named = "/".join(str(value) for value in self._key(row)) if row else ""
        self._report.find(self._claim, f"view {self._table} {named}", self._partition, None, f"expected {expected}, found {found}")


class Life:
    """One donation as the walk along its partition sees it."""

    def __init__(self) -> None:
        self.donation: Donation | None = None
        self.head = Head()
        self.events: set[str] = set()
        self.fails = False

    def follow(self, event: Event, digest: bytes, registry: Registry) -> Iterator[str]:
        """Take an admitted event in; yields what is wrong with it."""
        self.head = Head(event.stamp["version"], digest)
        if event.meta["event_id"] in self.events:
            yield f"event {event.meta['event_id']} is admitted twice"
        self.events.add(event.meta["event_id"])
        if self.fails:
            return  # it is parked: its row stays as it was
        try:
            yield from Step(self.donation, event, registry).objections()
            self.donation = fold(self.donation, event, digest)
            yield from broken_sums(self.donation)
        except KeyError as error:
            self.fails = True
            yield f"{event.type} cannot follow: there is no {error}"


class Walk:
    """One partition of `recorded`, from its first record to the last that is sealed."""

    def __init__(
        self,
        report: Report,
        source: Source,
        partition: int,
        partitions: int,
        stands: Sequence[Stand],
        registry: Registry,
        schemas: Schemas,
        sealed_views: frozenset[int] = frozenset(),
    ) -> None:
        self.report, self.source, self.partition = report, source, partition
        self.stands = [stand for at, stand in enumerate(stands) if at == 0 or stand.size != stands[at - 1].size]
        self.end = self.stands[-1].size if self.stands else 0
        self.registry, self.schemas, self.partitions = registry, schemas, partitions
        self.tail, self.clock, self.registry_offset = Tail(), 0, -1
        self.lives: dict[str, Life] = {}
        ends = source.view_ends or []
        self.view_end = ends[partition] if partition < len(ends) else 0
        self.sealed_views, self.places = sealed_views, dict[int, str]()
        self.rows_sum, self.terms, self.changed = 0, dict[str, int](), set[str]()
        self.views = None if partition >= len(ends) else {name: self._rows(name) for name in KEYS}
        self.submissions = Submissions(report, source, partition)
        self.answers_altered: list[int] = []
        self.tree, self.hashes = Tree(), bytearray()
        self.sealed = self.good = 0
        self.bad: int | None = None

    def run(self) -> None:
        self._check_root()
        self._keep_place()
        for record in self._records():
            if record.offset >= self.end or not self.report.may_skip(record.offset - self.tree.size):
                self.report.invented += 1
                said = f"{self.end} sealed records" if record.offset >= self.end else f"one nearer to offset {self.tree.size}"
                self._find("C1", record.offset, f"expected {said}, found another")
                self.report.unexamined |= {"C2", "C3"}
                continue
            if record.offset < self.tree.size:
                self._find("C1", record.offset, f"expected offset {self.tree.size}, found an earlier one again")
            while self.tree.size < record.offset:
                self._grow(EMPTY_LEAF)
                self._keep_place()
            self._grow(leaf_hash(record.value or b""))
            self._entry(record)
            self._keep_place()
        if self.bad is None and self.tree.size < self.end:
            self.bad = self.end
        if self.bad is not None:
            self._say_what_differs(self.bad)
        for offset in self.answers_altered:
            self.report.altered += self.bad is None
            said = "expected the submission that was ruled on, found another"
            self.report.find("C2" if self.bad else "C1", "submitted", self.partition, offset, said)
        self.submissions.finish()
        self._compare_views()

    def _grow(self, hashed: bytes) -> None:
        self.tree.append(hashed)
        self.hashes += hashed
        self._check_root()

    def _check_root(self) -> None:
        """At each size that was sealed the root must be the sealed one; `bad` is the first at which it is not."""
        while self.sealed < len(self.stands) and self.stands[self.sealed].size <= self.tree.size:
            stand = self.stands[self.sealed]
            self.sealed += 1
            if self.bad is None and (stand.size != self.tree.size or self.tree.root != stand.root):
                self.bad = stand.size
            elif self.bad is None:
                self.good = stand.size

    def _find(self, claim: str, offset: int | None, what: object) -> None:
        self.report.find(claim, "recorded", self.partition, offset, what)

    def _records(self) -> Iterator[Record]:
        try:
            for record in self.source.records("recorded", self.partition):
                self.report.records += 1
                yield record
        except Wrong as error:
            self._find("C1", None, error)
            self.report.unexamined |= {"C2", "C3"}

    def _keep_place(self) -> None:
        """At each size at which the digest of the views was sealed: this partition's line of it (`audit/cuts.py` of Aidtrail)."""
        if self.tree.size not in self.sealed_views:
            return
        for name in self.changed:
            donation = self.lives[name].donation
            if donation is not None and not self.lives[name].fails:
                rows_sha256 = bytes.fromhex(donation_row(donation, self.partition)["rows_sha256"])
                term = int.from_bytes(hashlib.shake_128(rows_sha256).digest(512), "big")
                self.rows_sum += term - self.terms.get(name, 0)
                self.terms[name] = term
        self.changed.clear()
        rows = sha256((self.rows_sum % 2**4096).to_bytes(512, "big")).hex()
        fields = (self.partition, self.tree.size, self.tail.submitted_offset, self.tail.sha256.hex(), rows)
        self.places[self.tree.size] = "\t".join(map(str, fields)) + "\n"

    def _say_what_differs(self, bad: int) -> None:
        """Where the leaves as they were sealed are at hand (they must give the signed root), each of them is compared."""
        hashes, tree = bytes(self.hashes), Tree()
        sealed = self.source.leaves(self.partition, min(self.end, self.tree.size + MAX_GAPS))
        for at in range(0, len(sealed), 32):
            tree.append(sealed[at : at + 32])
        found = [hashes[at : at + 32] for at in range(0, len(hashes), 32)]
        if (tree.size, tree.root) != (self.end, self.stands[-1].root):
            missing = max(0, self.end - len(found))
            self.report.removed += missing
            self.report.altered += 0 if missing else 1
            self._find("C1", self.good, f"offsets {self.good} to {bad - 1} are not as they were sealed: another root")
            return
        wanted = [sealed[at : at + 32] for at in range(0, len(sealed), 32)]
        differing = [at for at, pair in enumerate(zip(wanted, found, strict=False)) if pair[0] != pair[1]]
        first = differing[0] if differing else min(len(wanted), len(found))
        gone, new = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
        gone[EMPTY_LEAF] = new[EMPTY_LEAF] = altered = 0
        for at in differing:
            if gone[wanted[at]] > 0 and new[found[at]] > 0:
                gone[wanted[at]] -= 1
                new[found[at]] -= 1
                altered += 1
        removed, invented = sum(gone.values()), sum(new.values())
        self.report.altered, self.report.removed = self.report.altered + altered, self.report.removed + removed
        self.report.invented += invented
        if not altered and not removed and not invented:
            self.report.reordered += len(differing)
        if not differing and len(wanted) == len(found):
            self._find("C1", None, f"the records and their sealed leaves give another root than was sealed at {bad} records")
            return
        self._find("C1", first, f"expected the record that was sealed, found {'another' if first < len(found) else 'none'}")

    def _entry(self, record: Record) -> None:
        if record.offset >= self.view_end:
            self._compare_views()
        entry = read_entry(record, self.schemas)
        if (lacking := self.schemas.lacking(record.value)) is not None:
            self._find("C2", record.offset, lacking)
        life = self.lives.get(entry.donation_id or "")
        reason = void_reason(entry, self.tail, life.head if life else Head(), self.partition, self.partitions)
        in_views = record.offset < self.view_end and self.views is not None
        event = entry.event
        if reason is not None or event is None:
            self.report.void += 1
            if in_views and self.views:
                self.views["entries"].expect(entry_row(entry, self.partition, "void", reason))
            if entry.fault == "the key is not the donation" and event and event.stamp["previous_outcome_sha256"] == self.tail.sha256:
                self.report.altered += 1
                self._find("C1", record.offset, f"expected the key {entry.donation_id}, found {shown(record.key)}")
            return
        outcome = "refused" if entry.refused else "admitted"
        if in_views and self.views:
            self.views["entries"].expect(entry_row(entry, self.partition, outcome, None))
            if entry.refused:
                self.views["refusals"].expect(refusal_row(event, self.partition, record.offset))
        self.tail = Tail(event.stamp["submitted_offset"], entry.sha256)
        for what in self._answers(entry, event):
            self._find("C2", record.offset, what)
        if self.registry.stands_at(event.stamp["registry_offset"]):
            self.registry_offset = event.stamp["registry_offset"]
        if entry.refused:
            self.report.refused += 1
            return
        self.report.admitted += 1
        if (forged := check_signature(entry, self.registry, self.report.signers)) is not None:
            self.report.find_forged(self.partition, record.offset, forged)
        life = self.lives.setdefault(event.meta["donation_id"], Life())
        self.changed.add(event.meta["donation_id"])
        for what in life.follow(event, entry.sha256, self.registry):
            self._find("C2", record.offset, f"{event.meta['donation_id']}: {what}")

    def _answers(self, entry: Entry, event: Event) -> Iterator[str]:
        """The entry is about the submission that it names, and none was passed over."""
        wanted = event.stamp["submitted_offset"]
        for skipped in self.submissions.before(wanted):
            yield f"submission {skipped} has no outcome, and this answers {wanted}"
        submission = self.submissions.take(wanted)
        if submission is None:
            self.report.removed += 1
            self.report.find("C1", "submitted", self.partition, wanted, "expected a submission, which an entry answers, found none")
            return
        if sha256(submission.value or b"") != entry.submission:
            self.answers_altered.append(wanted)
        elif not entry.refused and submission.key != entry.record.key:
            yield f"submission {wanted} has another key"
        stale = self.registry.objection(event.stamp["registry_offset"], self.registry_offset, submission.timestamp)
        if stale is not None:
            yield stale
        self.clock = max(self.clock, submission.timestamp)
        if event.stamp["recorded_at"] != self.clock:
            yield f"recorded_at: expected {moment(self.clock * 1000)}, found {moment(event.now)}"
        self.clock = event.stamp["recorded_at"]

    def _rows(self, table: str) -> Rows:
        return Rows(self.report, "C3", table, self.partition, self.source.rows(table, self.partition))

    def _compare_views(self) -> None:
        """At the records that the views hold: before the first that they do not."""
        if self.views is None:
            return
        views, self.views = self.views, None
        for name in sorted(self.lives):
            life = self.lives[name]
            if life.fails:
                continue  # was found, and named, when it was folded
            if life.donation is not None:
                views["donations"].expect(donation_row(life.donation, self.partition))
                for row in amount_rows(life.donation):
                    views["amounts"].expect(row)
                for row in approval_rows(life.donation):
                    views["approvals"].expect(row)
        for rows in views.values():
            rows.finish()


class Submissions:
    """The submissions of one partition, beside their outcomes; and their tree, for the next visit."""

    def __init__(self, report: Report, source: Source, partition: int) -> None:
        self.report, self.partition, self.tree = report, partition, Tree()
        self._last = source.last_submitted[partition] if partition < len(source.last_submitted) else None
        self._records = iter(source.records("submitted", partition))
        self._next = self._read()

    def before(self, offset: int) -> Iterator[int]:
        while self._next is not None and self._next.offset < offset:
            yield self._next.offset
            self._next = self._read()

    def take(self, offset: int) -> Record | None:
        if self._next is None or self._next.offset != offset:
            return None
        found, self._next = self._next, self._read()
        return found

    def finish(self) -> None:
        """What is left waits for its outcome. The tree must continue the one that was seen last."""
        report = self.report
        while self._next is not None:
            report.unanswered += 1
            self._next = self._read()
        if self._last is not None and self.tree.size < self._last.size:
            report.removed += self._last.size - self.tree.size
            self._find(f"expected the {self._last.size} records that were seen last, found {self.tree.size}")

    def _read(self) -> Record | None:
        try:
            record = next(self._records, None)
            if record is None:
                return None
            self.report.records += 1
            if record.offset < self.tree.size or not self.report.may_skip(record.offset - self.tree.size):
                raise Wrong(f"expected offset {self.tree.size}, found {record.offset}")
        except Wrong as error:  # now: what follows from it are findings without number
            self._find(error)
            self.report.unexamined.add("C2")
            return None
        while self.tree.size < record.offset:
            self._grow(EMPTY_LEAF)
        self._grow(leaf_hash(record.value or b""))
        return record

    def _grow(self, hashed: bytes) -> None:
        self.tree.append(hashed)
        if self._last is not None and self.tree.size == self._last.size and self.tree.root != self._last.root:
            self._find(f"the first {self._last.size} records are not those that were seen last")

    def _find(self, what: object) -> None:
        self.report.find("C1", "submitted", self.partition, None, what)


# --- an export ----------------------------------------------------------------------------------------------------------------------


class Source:
    """An export: a folder.

        about.json                      {"format", "partitions", "views": next offset of the views in each partition, "key"}
        <topic>/<partition>.ndjson      a record a line: {"offset", "timestamp", "key", "value"}, bytes in base64, null where there are none
        views/<table>/<partition>.ndjson   a row a line, in the order of its key
        schemas/<id>.avsc               the schemas that records name, as they were published
        leaves/<partition>.bin          may be missing: the leaf hashes of `recorded` as they were sealed, 32 bytes each

    Topics are recorded, submitted, registry and checkpoints; the last two have one partition.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        about = self._about()
        self.partitions: int = about["partitions"]
        self.view_ends: list[int] | None = about.get("views")
        self.last_submitted: Sequence[Stand] = ()
        self.key: str = str(about.get("key"))

    def schemas(self) -> dict[int, bytes]:
        """Nothing stands for a file that cannot be read, and for one that would not be taken anyway."""
        found: dict[int, bytes] = {}
        for path in sorted((self.folder / "schemas").glob("*.avsc")):
            if path.stem.isdecimal():
                schema_id = int(path.stem)
                try:
                    found[schema_id] = whole(path, MAX_LINE) if schema_id in FINGERPRINTS else b""
                except Wrong:
                    found[schema_id] = b""
        return found

    def records(self, topic: str, partition: int) -> Iterator[Record]:
        for line in self._lines(f"{topic}/{partition}.ndjson"):
            yield record_of(line)

    def rows(self, table: str, partition: int) -> Iterator[Row]:
        return self._lines(f"views/{table}/{partition}.ndjson")

    def leaves(self, partition: int, count: int) -> bytes:
        """So many at most; none where the file cannot be read."""
        try:
            with opened_file(self.folder / "leaves" / f"{partition}.bin") as file:
                return file.read(32 * count)
        except (OSError, Wrong):
            return b""

    def others(self) -> Iterator[str]:
        """Files of lines that are of no partition, by their path: nothing here reads them, and somebody else might."""
        counts = dict.fromkeys(("recorded", "submitted", *(f"views/{table}" for table in KEYS)), self.partitions)
        counts |= {"registry": 1, "checkpoints": 1}
        for path in sorted(self.folder.rglob("*.ndjson")):
            name = path.relative_to(self.folder).as_posix()
            kind, _, number = name.removesuffix(".ndjson").rpartition("/")
            known = re.fullmatch("0|[1-9][0-9]{0,9}", number) and int(number) < counts.get(kind, 0)
            if not known and not path.name.startswith("."):  # those are an operating system's own
                yield name

    def _about(self) -> dict[str, Any]:
        try:
            about: dict[str, Any] = read_json(whole(self.folder / "about.json", MAX_LINE))
            if about["format"] != EXPORT or type(about["partitions"]) is not int or about["partitions"] < 1:
                raise ValueError
            ends = about.get("views")
            if ends is not None and not (len(ends) == about["partitions"] and all(isinstance(end, int) for end in ends)):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError, Wrong):
            raise Unusable(f"{self.folder}: expected an export ({EXPORT}), found no about.json that says so") from None
        return about

    def _lines(self, name: str) -> Iterator[dict[str, Any]]:
        try:
            with opened_file(self.folder / name) as file:
                for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
                    try:
                        read = read_json(line) if len(line) <= MAX_LINE else None
                    except (ValueError, RecursionError):
                        read = None
                    if not isinstance(read, dict):
                        raise Wrong(f"{name} line {number}: expected a JSON object with each name once, found {shown(line[:80])}")
                    yield read
        except OSError:
            raise Wrong(f"{name}: expected a file that can be read, found another") from None


def opened_file(path: Path) -> BinaryIO:
    """To read. Raises Wrong for anything but a file: a folder, a dangling link, and what would never end, as a device or a pipe."""
    try:
        if path.is_file():
            return path.open("rb")
    except OSError:
        pass
    raise Wrong(f"{path.name}: expected a file, found none")


def whole(path: Path, most: int) -> bytes:
    """What is in a file. Raises Wrong where it cannot be read, or has more bytes than `most`."""
    try:
        with opened_file(path) as file:
            found = file.read(most + 1)
    except OSError:
        raise Wrong(f"{path.name}: expected a file that can be read, found another") from None
    if len(found) > most:
        raise Wrong(f"{path.name}: expected at most {most} bytes, found more")
    return found


def record_of(read: Mapping[str, Any]) -> Record:
    try:
        key, value = (None if read[name] is None else unbase64(read[name]) for name in ("key", "value"))
        offset, timestamp = read["offset"], read["timestamp"]
    except (KeyError, TypeError):
        raise Wrong(f"expected a record, found {shown(read)}") from None
    if type(offset) is not int or type(timestamp) is not int or offset < 0 or not _MILLISECONDS[0] <= timestamp <= _MILLISECONDS[1]:
        raise Wrong(f"expected a record, found {shown(read)}")
    return Record(offset, timestamp, key, value)


class Seals:
    """What was sealed: the manifests one after another, each continuing the one before, and the checkpoints over them."""

    def __init__(self) -> None:
        self.manifests: list[Manifest] = []
        self.roots: list[bytes] = []
        self.newest: Checkpoint | None = None
        self._tree, self._last = Tree(), ZEROS

    def add(self, encoded: bytes, origin: str) -> None:
        manifest, before = Manifest.parse(encoded), self.manifests[-1] if self.manifests else None
        if (manifest.number, manifest.previous, manifest.origin) != (len(self.manifests), self._last, origin):
            raise Wrong(f"expected manifest {len(self.manifests)} of {origin} after {self._last.hex()[:16]}, found another")
        if before is not None and len(before.stands) != len(manifest.stands):
            raise Wrong(f"expected {len(before.stands)} partitions, found {len(manifest.stands)}")
        for partition, (old, new) in enumerate(zip(before.stands if before else (), manifest.stands, strict=False)):
            if new[0] < old[0] or (new[0] == old[0] and new != old):
                raise Wrong(f"expected partition {partition} to go on from {old[0]} records, found {new[0]}")
        self.manifests.append(manifest)
        self._last = sha256(encoded)
        self._tree.append(leaf_hash(encoded))
        self.roots.append(self._tree.root)

    def require(self, checkpoint: Checkpoint) -> None:
        """The checkpoint is of this tree."""
        if not 1 <= checkpoint.size <= len(self.roots):
            raise Wrong(f"a checkpoint of size {checkpoint.size}, and {len(self.roots)} manifests")
        if checkpoint.root != self.roots[checkpoint.size - 1]:
            expected = self.roots[checkpoint.size - 1]
            raise Wrong(f"size {checkpoint.size}: expected the root of the manifests, {expected.hex()}, found {checkpoint.root.hex()}")

    def partition(self, number: int) -> list[Stand]:
        return [Stand(*manifest.stands[number]) for manifest in self.manifests if number < len(manifest.stands)]


def read_seals(report: Report, source: Source, trust: Trust) -> Seals:
    seals, signed = Seals(), []
    try:
        for record in source.records("checkpoints", 0):
            report.records += 1
            try:
                if (record.value or b"").startswith(f"{MANIFEST}\n".encode()):
                    seals.add(record.value or b"", trust.log.name)
                else:
                    signed.append((record.offset, trust.open(record.value or b"")))
            except Wrong as error:
                report.altered += 1
                report.find("C1", "checkpoints", 0, record.offset, error)
    except Wrong as error:
        report.find("C1", "checkpoints", 0, None, error)
    for offset, checkpoint in signed:
        try:
            seals.require(checkpoint)
        except Wrong as error:
            report.find("C1", "checkpoints", 0, offset, error)
        newest = seals.newest
        if newest is not None and checkpoint[1:3] == newest[1:3]:  # the same size and root: a note written again takes no witness away
            seals.newest = newest._replace(witnesses=newest.witnesses | checkpoint.witnesses)
        elif newest is None or checkpoint.size >= newest.size:
            seals.newest = checkpoint
    return seals


def verify_export(source: Source, trust: Trust) -> Report:
    """Every claim but C4, over a whole log."""
    report = Report("export")
    seals = read_seals(report, source, trust)
    report.checkpoint = newest = seals.newest
    if newest is None or newest.size != len(seals.manifests):
        size = 0 if newest is None else newest.size
        report.find("C1", "checkpoints", 0, None, f"{len(seals.manifests)} manifests, and the newest checkpoint is over {size}")
    else:
        require_quorum(report, newest, trust.policy)
    last = trust.last()
    if last is not None:
        try:
            seals.require(last)
            report.continues = last.size
        except Wrong as error:
            report.conflict = (last.note, "" if newest is None else newest.note)
            report.find("C1", "checkpoints", 0, None, f"not the history of the checkpoint that you saw last: {error}")
    sealed = len(seals.manifests[-1].stands) if seals.manifests else source.partitions
    if sealed != source.partitions:
        report.find("C1", "recorded", None, None, f"expected the {sealed} partitions that were sealed, found {source.partitions}")
    if sealed > MAX_PARTITIONS:
        report.find("C1", "recorded", None, None, f"expected at most {MAX_PARTITIONS} partitions, found {sealed}")
        report.unexamined |= {"C2", "C3"}
    schemas = Schemas(source.schemas())
    for schema_id, name in schemas.others.items():
        report.find("C2", f"schema {schema_id}", None, None, f"expected {name}, found another")
    registry = Registry()
    registry_stand = _read_registry(report, source, schemas, registry, trust.memory)
    if source.view_ends is None:
        report.find("C3", "views", None, None, "expected the rows of the views, found none")
    source.last_submitted = trust.memory.submitted if trust.memory else ()
    submitted, places = [], list[dict[int, str]]()
    for partition in range(min(sealed, MAX_PARTITIONS)):
        sealed_views = frozenset(
            one.stands[partition][0] for one in seals.manifests if one.view is not None and partition < len(one.stands)
        )
        walk = Walk(report, source, partition, sealed, seals.partition(partition), registry, schemas, sealed_views)
        if walk.view_end > walk.end:
            report.find("C3", "views", partition, None, f"expected views of at most the {walk.end} sealed records, found {walk.view_end}")
        walk.run()
        report.views_behind += max(0, walk.end - walk.view_end)
        places.append(walk.places)
        submitted.append(Stand(walk.submissions.tree.size, walk.submissions.tree.root))
    for one in seals.manifests:
        if one.view is not None:
            report.views_sealed += 1
            text = "".join(places[number].get(size, "") for number, (size, _) in enumerate(one.stands))
            if sha256(f"aidtrail cut v1\n{text}".encode()) != one.view:
                report.find("C3", "views", None, None, f"the digest that manifest {one.number} sealed is not that of the fold")
    if newest is not None:
        report.memory = Memory(newest.note, registry_stand, tuple(submitted))
    return report


def _read_registry(report: Report, source: Source, schemas: Schemas, registry: Registry, memory: Memory | None) -> Stand:
    tree, last = Tree(), memory.registry if memory else None
    try:
        for record in source.records("registry", 0):
            report.records += 1
            if record.offset < tree.size or not report.may_skip(record.offset - tree.size):
                raise Wrong(f"expected offset {tree.size}, found {record.offset}")
            while tree.size <= record.offset:
                tree.append(leaf_hash(record.value or b"") if tree.size == record.offset else EMPTY_LEAF)
                if last is not None and tree.size == last.size and tree.root != last.root:
                    report.altered += 1
                    report.find("C1", "registry", 0, None, f"the first {last.size} records are not those that you saw last")
            if (lacking := schemas.lacking(record.value)) is not None:
                report.find("C2", "registry", 0, record.offset, lacking)
            take_registered(registry, record, schemas)
    except Wrong as error:
        report.find("C1", "registry", 0, None, error)
        report.unexamined.add("C2")
    if last is not None and tree.size < last.size:
        report.removed += last.size - tree.size
        report.find("C1", "registry", 0, None, f"expected the {last.size} records that you saw last, found {tree.size}")
    return Stand(tree.size, tree.root)


def take_registered(registry: Registry, record: Record, schemas: Schemas) -> None:
    registry.end = record.offset
    try:
        kind, said = schemas.decode(record.value)
    except Undecodable:
        return
    if "meta" not in said and all(_REGISTERED[name](value) for name, value in said.items() if name in _REGISTERED):
        registry.take(record.offset, record.timestamp, kind, said)


# --- a bundle -----------------------------------------------------------------------------------------------------------------------


def verify_bundle(bundle: Mapping[str, Any], trust: Trust) -> Report:
    """One donation: its entries are in the log, follow one another by the rules, and give these figures. A bundle is a JSON object:

        "format", "donation_id", "key"   what it is, whose, and the key that the operator states
        "checkpoint"                     the signed note
        "manifest": {"text", "path"}     that the checkpoint covers, and the Merkle path from it to the checkpoint's root
        "consistency": {"from", "path"}  may be missing: that the checkpoint continues the one of size "from"
        "entries"                        records as in an export, each with the "path" from its value to its partition's root
        "registry"                       the records about the parties, actors and mechanisms that the entries name, and the last one
        "schemas"                        by id, as text
        "views"                          rows of donations, amounts and approvals

    Hashes of a path are in base64, the sibling of the leaf first.
    """
    report = Report("bundle", unexamined={"C1", "C2", "C4"})
    try:
        _verify_bundle(report, bundle, trust)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        claim = "C1" if "C1" in report.unexamined else "C4"
        report.find(claim, "bundle", None, None, f"cannot be read: {type(error).__name__} {error}")
    except Wrong as error:
        report.find("C1", "bundle", None, None, error)
    return report


def _verify_bundle(report: Report, bundle: Mapping[str, Any], trust: Trust) -> None:
    checkpoint = report.checkpoint = trust.open(bundle["checkpoint"].encode())
    require_quorum(report, checkpoint, trust.policy)
    _continue_from_last(report, bundle, checkpoint, trust)
    manifest_bytes = bundle["manifest"]["text"].encode()
    manifest = Manifest.parse(manifest_bytes)
    if manifest.origin != trust.log.name or checkpoint.root != root_by_inclusion(
        leaf_hash(manifest_bytes), manifest.number, checkpoint.size, [unbase64(one) for one in bundle["manifest"]["path"]]
    ):
        raise Wrong("expected a manifest that the checkpoint covers, found another")
    report.unexamined.discard("C1")
    donation_id: str = bundle["donation_id"]
    partition = partition_of(donation_id.encode(), len(manifest.stands))
    stand = Stand(*manifest.stands[partition])
    schemas, registry, life = Schemas({int(at): text.encode() for at, text in bundle["schemas"].items()}), Registry(), Life()
    for schema_id, name in schemas.others.items():
        report.find("C2", f"schema {schema_id}", None, None, f"expected {name}, found another")
    for one in bundle["registry"]:
        record = record_of(one)
        if (lacking := schemas.lacking(record.value)) is not None:
            report.find("C2", "registry", 0, record.offset, lacking)
        take_registered(registry, record, schemas)
    before, answered, clock, ruled_with = -1, -1, 0, -1
    for one in bundle["entries"]:
        record = record_of(one)
        report.records += 1
        if record.offset <= before:
            report.reordered += 1
            report.find("C4", "recorded", partition, record.offset, "expected entries in the order of their offsets, found another")
        before = record.offset
        try:
            if (
                root_by_inclusion(leaf_hash(record.value or b""), record.offset, stand.size, [unbase64(at) for at in one["path"]])
                != stand.root
            ):
                raise Wrong("expected an entry that is in the log, found one that its proof does not lead from")
        except Wrong as error:
            report.altered += 1
            report.find("C4", "recorded", partition, record.offset, error)
        entry = read_entry(record, schemas)
        if entry.fault is not None or entry.event is None or entry.donation_id != donation_id:
            said = f"expected an entry of {donation_id}, found {entry.fault or 'another'}"
            report.find("C2", "recorded", partition, record.offset, schemas.lacking(record.value) or said)
            continue
        event, stamp = entry.event, entry.event.stamp
        if stamp["submitted_offset"] <= answered or stamp["recorded_at"] < clock:
            report.find("C2", "recorded", partition, record.offset, "expected a later submission than the one before, found an earlier")
        if stamp["registry_offset"] < ruled_with:
            report.find("C2", "recorded", partition, record.offset, stepped_back(stamp["registry_offset"], ruled_with))
        answered, clock, ruled_with = stamp["submitted_offset"], stamp["recorded_at"], stamp["registry_offset"]
        if entry.refused:
            report.refused += 1
            continue
        report.admitted += 1
        expected = Head(life.head.version + 1, life.head.sha256)
        if (stamp["version"], stamp["previous_sha256"]) != expected:
            report.removed += max(0, stamp["version"] - expected.version)
            said = f"expected version {expected.version} after {expected.sha256.hex()[:16]}, found version {stamp['version']}"
            report.find("C2", "recorded", partition, record.offset, said)
        if (forged := check_signature(entry, registry, report.signers)) is not None:
            report.find_forged(partition, record.offset, forged)
        for what in life.follow(event, entry.sha256, registry):
            report.find("C2", "recorded", partition, record.offset, what)
    report.unexamined.discard("C2")
    views = {name: Rows(report, "C4", name, partition, iter(bundle["views"][name])) for name in ("donations", "amounts", "approvals")}
    if life.donation is None:
        report.find("C4", "bundle", None, None, "expected the entries of a donation, found none")
    else:
        views["donations"].expect(donation_row(life.donation, partition))
        for row in amount_rows(life.donation):
            views["amounts"].expect(row)
        for row in approval_rows(life.donation):
            views["approvals"].expect(row)
    for rows in views.values():
        rows.finish()
    report.unexamined.discard("C4")
    keep = trust.memory or Memory(checkpoint.note)
    report.memory = keep._replace(note=checkpoint.note)


def _continue_from_last(report: Report, bundle: Mapping[str, Any], checkpoint: Checkpoint, trust: Trust) -> None:
    """The bundle's checkpoint continues the one that was seen last; or shows that it does not, or cannot be compared."""
    last = trust.last()
    if last is None:
        return
    path = bundle.get("consistency")
    try:
        if last.size > checkpoint.size:
            raise Wrong(f"the checkpoint is of size {checkpoint.size}, you saw one of {last.size}: ask for a newer bundle")
        if last.size < checkpoint.size and (path is None or path["from"] != last.size):
            raise Wrong(
                f"it has no consistency proof from the size {last.size} that you saw last: ask for one made with --since {last.size}"
            )
        hashes = [] if path is None or last.size == checkpoint.size else [unbase64(one) for one in path["path"]]
        require_consistent(last.size, last.root, checkpoint.size, checkpoint.root, hashes)
        report.continues = last.size
    except Wrong as error:
        report.conflict = (last.note, checkpoint.note)
        report.find("C1", "checkpoints", None, None, f"not shown to continue the checkpoint that you saw last: {error}")


# --- the command --------------------------------------------------------------------------------------------------------------------


def verify(path: Path, trust: Trust) -> Report:
    """Raises Unusable for a path that is neither an export nor a bundle, and nothing else: whoever made what was handed over may have found
    a way that nobody thought of."""
    try:
        return _verify(path, trust)
    except Unusable:
        raise
    except Exception as error:
        report = Report("export" if os.path.isdir(path) else "bundle", unexamined=set(EXIT))
        report.find("C1", report.kind, None, None, f"cannot be examined: {type(error).__name__} {error}")
        return report


def _verify(path: Path, trust: Trust) -> Report:
    if os.path.isdir(path):  # is_dir() may raise
        source = Source(path)
        report = verify_export(source, trust)
        for name in source.others():
            report.find("C3" if name.startswith("views/") else "C1", name, None, None, "expected no such file, found one")
        return report
    try:
        bundle = read_json(whole(path, MAX_BUNDLE))
        if bundle["format"] != BUNDLE:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError, Wrong):
        raise Unusable(f"{path}: expected a folder that 'audit export' made, or a file that 'audit prove' made") from None
    return verify_bundle(bundle, trust)


def trusted(key: str | None, policy_file: Path | None, memory_file: Path | None) -> Trust:
    """Raises Unusable where no key is given, or a file cannot be read. An editor may have left its line ends and byte order mark."""
    try:
        policy, memory = Policy(), None
        if policy_file is not None:
            text = whole(policy_file, MAX_POLICY).decode("utf-8-sig", "surrogateescape")
            policy = Policy.parse(re.sub(r"\r\n?", "\n", text))
        if memory_file is not None and not memory_file.parent.is_dir():
            raise Unusable(f"--last {memory_file}: expected a file in a folder that is there, found none")
        if memory_file is not None and memory_file.exists():
            memory = Memory.parse(whole(memory_file, MAX_LINE))
    except (OSError, Wrong) as error:
        raise Unusable(str(error)) from None
    logs = policy.logs if key is None else (Key.parse(key.strip()),)
    if len(logs) != 1:
        raise Unusable(
            "expected the log's key, as you were told it by another way than this file: --key VKEY, or one line 'log' in --policy"
        )
    if policy.logs and logs[0] not in policy.logs:
        raise Unusable("--key: expected a log of the policy, found another")
    trust = Trust(logs[0], policy, memory)
    trust.last()
    return trust


def remember(report: Report, file: Path) -> str | None:
    """Keep what was seen, if all of it holds; else keep both checkpoints beside the file, which stays as it is. Returns what to tell."""
    if report.conflict is not None:
        names = []
        for note in report.conflict:
            name = file.with_name(f"{file.name}.conflict-{sha256(note.encode()).hex()[:16]}")
            name.write_text(note, encoding="utf-8")
            names.append(str(name))
        return f"{file} stays as it is; both checkpoints are kept: {' '.join(names)}"
    if report.exit_code or report.memory is None:
        return f"{file} stays as it is"
    beside = file.with_name(f"{file.name}.new")
    beside.write_text(report.memory.text(), encoding="utf-8")
    os.replace(beside, file)
    return None


def lines(report: Report, trust: Trust) -> Iterator[str]:
    """What there is to say, for people."""
    if report.checkpoint is not None:
        witnesses = ", ".join(sorted(report.checkpoint.witnesses)) or "none"
        yield f"checkpoint {trust.log.name} {report.checkpoint.size} {report.checkpoint.root.hex()}, witnesses: {witnesses}"
    yield from map(str, report.findings)
    for claim, count in sorted(report.failing.items()):
        if count > MAX_NAMED:
            yield f"{claim} fails: and {count - MAX_NAMED} more"
    seen = "none was seen before" if report.continues is None else f"it continues the one of size {report.continues} that was seen last"
    entries = f"{report.admitted} admitted (signed by their actors: {report.signers.total()}) and {report.refused} refused entries"
    behind = report.views_behind
    held = {
        "C1": f"{report.records} records, and those of recorded are as the checkpoint has them; {seen}",
        "C2": f"{entries}, {report.void} void; chains, people, states and sums",
        "C3": f"{report.rows} rows are the fold of the log, so were {report.views_sealed} sealed digests; {behind} records are younger",
        "C4": f"{report.rows} rows came from these {report.admitted} entries, which are in the log",
    }
    if report.kind == "bundle":
        del held["C3"]
        held["C1"] = f"the checkpoint is signed; {seen}"
        held["C2"] = f"{entries} of one donation; their chain, people, states and sums"
    else:
        del held["C4"]
    for claim, text in held.items():
        if claim in report.unexamined:
            yield f"{claim} not examined to the end"
        elif claim not in report.failing:
            yield f"{claim} holds: {text}"
    if report.first is not None:
        first = report.first
        yield f"first bad index: {first.topic} partition {first.partition} offset {first.offset}"
    yield report.line()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="what `audit export` or `audit prove` made")
    parser.add_argument("--key", help="the log's key, as you were told it by another way: <name>+<id>+<base64>")
    parser.add_argument("--policy", type=Path, help="a C2SP tlog-policy: the log's key, witnesses, and how many of them must have signed")
    parser.add_argument("--last", type=Path, help="the file that keeps what you saw last; made where it is missing")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(arguments)
    try:
        trust = trusted(options.key, options.policy, options.last)
        report = verify(options.path, trust)
    except Unusable as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    if options.json:
        names = ("kind", "records", "altered", "removed", "reordered", "invented", "rows", "rows_differing", "admitted", "refused", "void")
        said = {name: getattr(report, name) for name in (*names, "unanswered", "continues")} | {"failing": dict(report.failing)}
        said |= {"not_examined": sorted(report.unexamined), "signed": report.signers.total()}
        said |= {"views_behind": report.views_behind, "views_sealed": report.views_sealed}
        said |= {"signers": [{"actor": actor, "key": key, "entries": n} for (actor, key), n in sorted(report.signers.items())]}
        said |= {"first": report.first and report.first._asdict(), "checkpoint": report.checkpoint and report.checkpoint.note}
        sys.stdout.write(json.dumps(said | {"findings": [one._asdict() for one in report.findings], "exit_code": report.exit_code}) + "\n")
    else:
        said_plainly = "".join(f"{line}\n" for line in lines(report, trust))
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(said_plainly.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
    try:
        told = None if options.last is None else remember(report, options.last)
    except OSError as error:
        sys.stderr.write(f"{options.last} cannot be kept: {error}\n")
        return report.exit_code or USAGE
    if told is not None:
        sys.stderr.write(f"{told}\n")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
