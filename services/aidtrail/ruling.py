"""A ruling: what the ledger answers to one submission. Pure, so that a replay rules again with the same outcome, byte for byte."""

import re
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from aidtrail import avro, codec, signatures
from aidtrail.chain import MAX_DONATION_ID, NO_HEAD, Head, Tail
from aidtrail.domain.donation import Donation
from aidtrail.domain.events import DONATION_ID, Actor, Event, LedgerStamp, Meta, Source, SubmissionRefused
from aidtrail.domain.fold import apply
from aidtrail.domain.registry import Registry
from aidtrail.domain.rules import RULES_VERSION, Refusal, check
from aidtrail.errors import FoldError, MalformedError, UndecodableError
from aidtrail.log import Draft, Record, partition_of
from aidtrail.topics import Topics

ACTOR = Actor(actor_id="ledger", party_id="AIDTRAIL", role="ledger")
SOURCE = Source(channel="ledger")
NO_DONATION = "UNDECODABLE"
"""The donation id of a refusal whose submission says none."""

CANNOT_BE_FOLDED, CANNOT_BE_RULED = "cannot_be_folded", "cannot_be_ruled"
"""Reasons that no rule gives: something is wrong with the log or with this release."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_IS_DONATION_ID = re.compile(DONATION_ID).fullmatch
_stamp = avro.builder(LedgerStamp)
"""Of the ledger's own values: to validate them takes as long as to decode a submission."""


@dataclass(slots=True)
class Account:
    """What the ledger knows of one donation: the fold of its entries, its head, and the submissions that were answered."""

    donation: Donation | None = None
    head: Head = NO_HEAD
    seen: dict[UUID, bytes] = field(default_factory=dict)
    """Event id -> SHA-256 of the submission."""
    fault: str | None = None
    """Why the fold of an entry in the log failed. Nothing more is admitted for such a donation."""


class Outcome(NamedTuple):
    """What was ruled on one submission: the record to append, the SHA-256 of its value, and what to keep of it once it stands in the
    log."""

    draft: Draft
    sha256: bytes
    submission_sha256: bytes
    submitted_offset: int
    clock: int
    refusal: Refusal | None
    event: Event | None
    """What was submitted; None when it could not be decoded: then there is nothing to remember of it."""


def rule(account: Account, record: Record, tail: Tail, clock: int, registry: Registry, topics: Topics, partitions: int) -> Outcome:
    """Rule on one submission, and bring `account`, which must be that of `donation_of(record)`, up to date.

    `tail` is the partition's outcome before this one.
    Never raises, whatever forged entries have made of the account, and depends on nothing but its arguments. `clock` is the latest append
    time (milliseconds) of the partition's submissions so far, this one's included.
    """
    value = record.value or b""
    now = _moment(clock)
    digest = codec.sha256(value)
    event: Event | None = None
    ledger_at = 0
    refusal: Refusal | None
    admitted: Donation | None = None
    try:
        decoded, ledger_at = codec.read_submission(value)
    except UndecodableError as error:
        refusal = Refusal("undecodable", error.expected, f"{error.found}, at byte {error.position}")
    except MalformedError as error:
        refusal = Refusal("malformed", f"{error.where}: {error.expected}", error.found)
    else:
        if isinstance(decoded, Event) and not isinstance(decoded, SubmissionRefused):
            event = decoded
            try:
                refusal = _objection(account, record, event, ledger_at, digest, registry, now, partitions)
                if refusal is None:
                    admitted = apply(account.donation, event)
            except FoldError as error:  # what the ledger itself cannot fold, no view could: it is never admitted
                refusal = Refusal(CANNOT_BE_FOLDED, "an event that the fold can read", str(error)[:200])
            except Exception as error:  # a forged entry that counts can bring about a state, or a time, that no rule foresees
                refusal = Refusal(CANNOT_BE_RULED, "a state that the rules can read", type(error).__name__)
        else:
            refusal = Refusal("not_a_submission", "an event that a producer may submit", decoded.type)

    head = account.head
    version = head.version if admitted is None else head.version + 1
    stamp = _stamp(
        {
            "version": version,
            "submitted_offset": record.offset,
            "previous_outcome_sha256": tail.sha256,
            "recorded_at": now,
            "previous_sha256": head.sha256,
            "registry_offset": registry.offset,
            "rules": RULES_VERSION,
        }
    )
    donation_id = donation_of(record)
    if admitted is not None:
        entry = codec.stamped(value, ledger_at, stamp)
        sha256 = codec.sha256(entry)
        account.donation, account.head = admitted, Head(version, sha256)
    else:
        assert refusal is not None
        entry = codec.encode(_refused(record, donation_id, event, refusal, digest, stamp, clock))
        sha256 = codec.sha256(entry)
    if event is not None:
        account.seen.setdefault(event.meta.event_id, digest)
    draft = Draft(topics.recorded, record.partition, donation_id.encode(), entry)
    return Outcome(draft, sha256, digest, record.offset, clock, refusal, event)


@lru_cache(1000)
def _moment(milliseconds: int) -> datetime:
    """A log appends many records within a millisecond."""
    return EPOCH + timedelta(milliseconds=milliseconds)


def donation_of(record: Record) -> str:
    """The donation that a submission's key names, or NO_DONATION where it names none."""
    key = record.key or b""
    return _named(key) if len(key) <= MAX_DONATION_ID else NO_DONATION


@lru_cache(20_000)
def _named(key: bytes) -> str:
    try:
        text = key.decode("ascii")
    except UnicodeDecodeError:
        return NO_DONATION
    return text if _IS_DONATION_ID(text) else NO_DONATION


def _objection(
    account: Account, record: Record, event: Event, ledger_at: int, digest: bytes, registry: Registry, now: datetime, partitions: int
) -> Refusal | None:
    """The ledger's own tests, then the rules."""
    key = event.meta.donation_id.encode()
    if record.key != key:
        return Refusal("key_is_not_the_donation", "the donation id as the record's key", f"{(record.key or b'')[:40]!r}")
    if account.head.version == 0 and partition_of(key, partitions) != record.partition:
        return Refusal(
            "wrong_partition", f"partition {partition_of(key, partitions)}, by murmur2 of the key", f"partition {record.partition}"
        )
    before = account.seen.get(event.meta.event_id)
    if before == digest:
        return Refusal("duplicate_event", "an event that was not submitted before", "the same bytes, answered before")
    if before is not None:
        return Refusal("event_id_reused", "an event id of its own", "the id of another submission")
    if account.fault is not None:
        return Refusal("donation_is_parked", "a donation whose entries can be folded", account.fault[:200])
    return check(account.donation, event, registry, now, signature_verifies(record.value or b"", ledger_at, event, registry))


def signature_verifies(value: bytes, ledger_at: int, event: Event, registry: Registry) -> bool:
    """Whether the submission is signed with a key that the registry, as the ruling has it, holds for the event's actor."""
    signature = event.meta.signature
    enrolled = None if signature is None else registry.actors.get(event.meta.actor.actor_id)
    if signature is None or enrolled is None:
        return False
    return signatures.is_signed(value, ledger_at, signature, enrolled.public_keys)


def _refused(
    record: Record, donation_id: str, event: Event | None, refusal: Refusal, digest: bytes, stamp: LedgerStamp, clock: int
) -> SubmissionRefused:
    coordinates = f"{record.topic}/{record.partition}/{record.offset}".encode()
    event_id = None if event is None else event.meta.event_id
    return SubmissionRefused(
        meta=Meta(
            event_id=codec.event_id_at(clock, b"refused " + coordinates + digest),
            donation_id=donation_id,
            occurred_on=stamp.recorded_at,
            actor=ACTOR,
            source=SOURCE,
            causation_id=event_id,
            correlation_id=None if event is None else event.meta.correlation_id,
            ledger=stamp,
        ),
        refused_event_id=event_id,
        refused_event_type=None if event is None else event.type,
        reason=refusal.reason,
        expected=_plain(refusal.expected),
        found=_plain(refusal.found),
        submission_sha256=digest,
    )


def _plain(text: str) -> str:
    """As a refusal may say it (`events.Text`): parts of it can come from a forged entry, whose values nobody validated."""
    if not text.isprintable() or not unicodedata.is_normalized("NFC", text):
        text = ascii(text)[1:-1]
    return text[:2000] or "nothing"


def restore(account: Account, event: Event, value: bytes, submission: UUID | None, submission_sha256: bytes) -> None:
    """Bring an account up to date with an entry of the log that counts. Never raises: forged ones can be such that no fold foresees."""
    if submission is not None:
        account.seen.setdefault(submission, submission_sha256)
    if isinstance(event, SubmissionRefused):
        return
    assert event.meta.ledger is not None
    account.head = Head(event.meta.ledger.version, codec.sha256(value))
    if account.fault is None:
        try:
            account.donation = apply(account.donation, event)
        except Exception as error:
            account.fault = str(error) if isinstance(error, FoldError) else f"{type(error).__name__}: {error}"
