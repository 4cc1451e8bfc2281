"""The fences: how every reader of `recorded` tells an entry that counts from one that is void.

Whoever can write to the topic can append to it: a ledger that was stopped and woke up late, a producer that retried, a rogue. Readers need
no trust and no coordination: they all apply the tests of `void_reason`, in log order, and so all count the same entries, in any rebuild.
An entry counts only if who wrote it had seen every outcome of the partition before it: each names the hash of the one before. So of two
ledgers that are at work at once, whatever they rule, one's entries follow one another and the other's are void.
What readers cannot see is a forgery that chains perfectly and claims a submission that was not yet ruled on: it takes write access to
`recorded`, and is found by comparing with `submitted` (`audit replay`).
"""

from typing import Literal, NamedTuple, get_args
from uuid import UUID

from aidtrail import codec, metrics
from aidtrail.domain.events import Event, LedgerStamp, SubmissionRefused
from aidtrail.errors import UndecodableError
from aidtrail.log import Record, partition_of


class Head(NamedTuple):
    """A donation's last admitted entry: its version and the SHA-256 of its raw value."""

    version: int
    sha256: bytes


NO_HEAD = Head(0, codec.GENESIS)


class Tail(NamedTuple):
    """A partition's last outcome, the last entry there that counted: which submission it answers, and the SHA-256 of its raw value."""

    submitted_offset: int
    sha256: bytes


VoidReason = Literal[
    "undecodable",
    "not an event of a donation",
    "not stamped by a ledger",
    "the key is not the donation",
    "its submission was answered before",
    "it does not follow the partition's last outcome",
    "the donation belongs to another partition",
    "its version does not follow the head",
    "it does not chain to the head",
]
for _reader in ("ledger", "projector"):
    for _reason in get_args(VoidReason):
        metrics.VOID.labels(_reader, _reason)  # Prometheus sees an increase only of what it knew before

MAX_DONATION_ID = 64
"""Characters, as `events.DONATION_ID` has it. No index of PostgreSQL takes one of any length."""

NO_TAIL = Tail(-1, codec.GENESIS)


class Entry(NamedTuple):
    """One record of `recorded`, decoded. `event` is None when it could not be; it is then void for the reason in `fault`. Where there is no
    fault there are `donation_id` and `stamp`."""

    record: Record
    value: bytes
    event: Event | None
    donation_id: str | None
    fault: VoidReason | None = None
    stamp: LedgerStamp | None = None
    ledger_at: int = 0
    """Where the stamp begins in `value`."""

    @property
    def refused(self) -> bool:
        return isinstance(self.event, SubmissionRefused)


def read_entry(record: Record) -> Entry:
    """Decode a record of `recorded`. Never raises: what is no entry is an Entry with a fault."""
    value = record.value or b""
    try:
        event, ledger_at = codec.read_recorded(value)
    except UndecodableError:
        return Entry(record, value, None, None, "undecodable")
    if not isinstance(event, Event) or len(event.meta.donation_id) > MAX_DONATION_ID:
        return Entry(record, value, None, None, "not an event of a donation")
    donation_id, stamp = event.meta.donation_id, event.meta.ledger
    if stamp is None:
        return Entry(record, value, event, donation_id, "not stamped by a ledger")
    if record.key != donation_id.encode():
        return Entry(record, value, event, donation_id, "the key is not the donation")
    return Entry(record, value, event, donation_id, None, stamp, ledger_at)


def void_reason(entry: Entry, tail: Tail, head: Head, partitions: int) -> VoidReason | None:
    """Why an entry has no effect, or None when it counts.

    `tail` is that of the entry's partition (NO_TAIL before the first outcome), `head` the donation's in its home partition (NO_HEAD before
    its first event), of which an entry elsewhere makes no use, `partitions` how many the topic has.
    """
    if entry.fault is not None:
        return entry.fault
    stamp = entry.stamp
    assert stamp is not None
    if stamp.submitted_offset <= tail.submitted_offset:
        return "its submission was answered before"
    if stamp.previous_outcome_sha256 != tail.sha256:
        return "it does not follow the partition's last outcome"
    if entry.refused:
        return None
    if partition_of(entry.record.key or b"", partitions) != entry.record.partition:
        return "the donation belongs to another partition"
    if stamp.version != head.version + 1:
        return "its version does not follow the head"
    if stamp.previous_sha256 != head.sha256:
        return "it does not chain to the head"
    return None


def submission_of(entry: Entry) -> tuple[UUID | None, bytes]:
    """Of the submission that an entry answers: its event id (None where it could not be decoded) and the SHA-256 of its bytes."""
    event, stamp = entry.event, entry.stamp
    assert event is not None
    assert stamp is not None
    if isinstance(event, SubmissionRefused):
        return event.refused_event_id, event.submission_sha256
    return event.meta.event_id, codec.sha256(codec.unstamped(entry.value, entry.ledger_at, stamp))
