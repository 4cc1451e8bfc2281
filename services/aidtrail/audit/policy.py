"""Which logs and witnesses are trusted, and how many of the witnesses must have cosigned: C2SP tlog-policy (https://c2sp.org/tlog-policy).

log aidtrail.example/log+<id>+<key>
witness ministry ministry.example/witness+<id>+<key> https://ministry.example/witness
witness donor    donor.example/witness+<id>+<key>    https://donor.example/witness
witness auditor  auditor.example/witness+<id>+<key>  https://auditor.example/witness
group two-of-three 2 ministry donor auditor
quorum two-of-three
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

from aidtrail.audit.note import COSIGNATURE, ED25519, VerifierKey
from aidtrail.errors import NoteError, UsageError

_FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Trusted(NamedTuple):
    """A witness, as the policy names it. `url` is its submission prefix, None where nobody needs to ask it."""

    name: str
    key: VerifierKey
    url: str | None


class Group(NamedTuple):
    threshold: int
    members: tuple[str, ...]


@dataclass
class Policy:
    logs: list[VerifierKey] = field(default_factory=list)
    witnesses: dict[str, Trusted] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    quorum: str | None = None
    """A witness, a group, or 'none'."""

    @classmethod
    def parse(cls, text: str, where: str = "policy") -> "Policy":
        """Raises UsageError that names the line, what was expected and what was found."""
        policy = cls()
        members: set[str] = set()
        for number, line in enumerate(text.split("\n"), 1):
            words = re.split(r"[ \t]+", line.strip(" \t"))
            if words == [""] or words[0].startswith("#"):
                continue
            try:
                if _FORBIDDEN.search(line):
                    _expected("no control characters but tabs", ascii(line))
                policy._take(words, members)
            except (NoteError, UsageError) as error:
                raise UsageError(f"{where} line {number}: {error}") from None
        if policy.quorum is None:
            raise UsageError(f"{where}: expected a line 'quorum <name>' or 'quorum none', found none")
        return policy

    def is_quorum(self, cosigned: Collection[str]) -> bool:
        """Whether these witnesses, by their names, are enough."""
        assert self.quorum is not None
        return self.quorum == "none" or self._has_witnessed(self.quorum, cosigned)

    def _has_witnessed(self, name: str, cosigned: Collection[str]) -> bool:
        if name in self.witnesses:
            return name in cosigned
        threshold, members = self.groups[name]
        return sum(self._has_witnessed(member, cosigned) for member in members) >= threshold

    def _take(self, words: list[str], members: set[str]) -> None:
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                key = _key(vkey, ED25519, "a log")
                if key.public in {known.public for known in self.logs}:
                    _expected("each log once", vkey)
                self.logs.append(key)
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self._require_new(name)
                key = _key(vkey, COSIGNATURE, "a witness")
                if key.public in {known.key.public for known in self.witnesses.values()}:
                    _expected("each witness once", vkey)
                self.witnesses[name] = Trusted(name, key, url[0] if url else None)
            case ["group", name, threshold, *names] if names:
                self._require_new(name)
                for member in names:
                    self._require_defined(member)
                    if member in members:
                        _expected("each name a member once", member)
                    members.add(member)
                counts = {"all": len(names), "any": 1} | {str(count): count for count in range(1, len(names) + 1)}
                if threshold not in counts:
                    _expected(f"all, any or a number from 1 to {len(names)}", threshold)
                self.groups[name] = Group(counts[threshold], tuple(names))
            case ["quorum", name]:
                if self.quorum is not None:
                    _expected("one quorum line", "a second one")
                if name != "none":
                    self._require_defined(name)
                self.quorum = name
            case _:
                _expected("log <vkey>, witness <name> <vkey> [<url>], group <name> all|any|<k> <name>... or quorum <name>", " ".join(words))

    def _require_new(self, name: str) -> None:
        if name == "none" or name in self.witnesses or name in self.groups:
            _expected("a name that is not taken", name)

    def _require_defined(self, name: str) -> None:
        if name not in self.witnesses and name not in self.groups:
            _expected("the name of a witness or group on a line before", name)


def read_policy(file: Path) -> Policy:
    """Raises UsageError."""
    try:
        return Policy.parse(file.read_text(encoding="utf-8-sig", errors="surrogateescape"), str(file))
    except OSError as error:
        raise UsageError(f"{file}: expected a policy file, found: {error.strerror}") from None


def _key(vkey: str, key_type: int, whose: str) -> VerifierKey:
    key = VerifierKey.parse(vkey)
    if key.type != key_type:
        _expected(f"the key of {whose}, of type {key_type}", f"one of type {key.type}")
    return key


def _expected(expected: str, found: str) -> NoReturn:
    raise UsageError(f"expected {expected}, found {found}")
