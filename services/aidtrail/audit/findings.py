"""What a replay found: counts, and each difference by name."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aidtrail import codec
from aidtrail.chain import NO_TAIL, Entry, Tail
from aidtrail.domain.events import Event, SubmissionRefused

MAX_NAMED = 100


class Start(NamedTuple):
    """Where a replay begins in one partition: the first entry that is ruled again, and the outcome that must be the last before it."""

    offset: int = 0
    tail: Tail = NO_TAIL


class Extent(NamedTuple):
    """For each partition of `recorded` and `submitted`, and for `registry`, the next offset: all records before it are in. `tails` are the
    last outcomes that must be found there, where a cut states them; `starts` where to begin, if not with the first entry."""

    recorded: Mapping[int, int]
    submitted: Mapping[int, int]
    registry: int
    tails: Mapping[int, Tail] | None = None
    starts: Mapping[int, Start] | None = None


class Finding(NamedTuple):
    field: str
    expected: str
    found: str


class Difference(NamedTuple):
    """Something that is not as ruled again: of an entry of `recorded`, or of a submission that has none."""

    topic: str
    partition: int
    offset: int
    donation_id: str
    field: str
    expected: str
    found: str


class Void(NamedTuple):
    partition: int
    offset: int
    donation_id: str
    reason: str


@dataclass
class Report:
    """`entries` are followed, equal, void, not re-decidable or differing. `submissions` have one of these, or none, or wait at the end."""

    extent: Extent | None = None
    submissions: int = 0
    entries: int = 0
    followed: int = 0
    """Entries before the cut that the replay began at: they passed the fences and were folded, and were not ruled again."""
    equal: int = 0
    resting: int = 0
    """Of the equal ones: entries that follow a difference in their donation, and are equal given that."""
    differing: int = 0
    without_outcome: int = 0
    """Of the differing: submissions that were never answered although a later one of the partition was."""
    void: Counter[str] = field(default_factory=Counter)
    """Entries without effect for any reader, by why."""
    not_redecidable: Counter[int] = field(default_factory=Counter)
    """Entries that keep chain, order, bytes, actor, signature and invariants, by the version of the rules that ruled them: not today's."""
    unanswered: int = 0
    """Submissions after the last that was answered: pending."""
    oldest_unanswered: int | None = None
    """Append time of the oldest of these, in milliseconds."""
    registry_events: int = 0
    differences: list[Difference] = field(default_factory=list)
    """The first MAX_NAMED."""
    voids: list[Void] = field(default_factory=list)
    """The first MAX_NAMED."""

    def add(self, other: "Report") -> None:
        """Take in what was found in other partitions."""
        for name in ("submissions", "entries", "followed", "equal", "resting", "differing", "without_outcome", "unanswered"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.void += other.void
        self.not_redecidable += other.not_redecidable
        waiting = [at for at in (self.oldest_unanswered, other.oldest_unanswered) if at is not None]
        self.oldest_unanswered = min(waiting, default=None)
        self.registry_events = max(self.registry_events, other.registry_events)
        self.differences = (self.differences + other.differences)[:MAX_NAMED]
        self.voids = (self.voids + other.voids)[:MAX_NAMED]

    def differs(self, difference: Difference) -> None:
        self.differing += 1
        if len(self.differences) < MAX_NAMED:
            topic, partition, offset, *texts = difference
            self.differences.append(Difference(topic, partition, offset, *map(plain, texts)))

    def voids_entry(self, void: Void) -> None:
        self.void[void.reason] += 1
        if len(self.voids) < MAX_NAMED:
            self.voids.append(void._replace(donation_id=plain(void.donation_id)))


def plain(text: str) -> str:
    """At most 200 printable characters: forged text must not write to the auditor's terminal what it likes."""
    return (text if text.isprintable() else ascii(text))[:200]


def first_difference(expected: bytes, entry: Entry) -> Finding:
    """Between the outcome that was ruled and the entry: the first field, of the stamp only where nothing else differs."""
    ruled, found = codec.read_recorded(expected)[0], entry.event
    assert isinstance(ruled, Event)
    assert found is not None
    if _verdict(ruled) != _verdict(found):
        return Finding("outcome", _verdict(ruled), _verdict(found))
    said, other = ruled.model_dump(), found.model_dump()
    stamp, other_stamp = said["meta"].pop("ledger"), other["meta"].pop("ledger")
    return (
        first_leaf("", said, other) or first_leaf("meta.ledger", stamp, other_stamp) or Finding("bytes", expected.hex(), entry.value.hex())
    )


def _verdict(event: Event) -> str:
    if isinstance(event, SubmissionRefused):
        return f"refused by {event.reason}"
    return f"{event.type} admitted"


def first_leaf(path: str, expected: Any, found: Any) -> Finding | None:
    if expected == found:
        return None
    if isinstance(expected, dict) and isinstance(found, dict):
        pairs = [(name, expected.get(name), found.get(name)) for name in {**expected, **found}]
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple) and len(expected) == len(found):
        pairs = [(str(place), *pair) for place, pair in enumerate(zip(expected, found, strict=True))]
    else:
        return Finding(path, *(value.hex() if isinstance(value, bytes) else str(value) for value in (expected, found)))
    leaves = (first_leaf(f"{path}.{name}".lstrip("."), *pair) for name, *pair in pairs)
    return next((leaf for leaf in leaves if leaf is not None), None)
