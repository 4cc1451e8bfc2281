"""The examination of one partition: every entry that counts is held against what the rules give for its submission. No log, no clock.

Readers' fences (`chain`) say which entries count; that an entry counts proves nothing here.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from uuid import UUID

from aidtrail import codec
from aidtrail.audit.findings import Difference, Finding, Report, Start, Void, first_difference, first_leaf
from aidtrail.chain import NO_TAIL, Entry, Tail, read_entry, submission_of, void_reason
from aidtrail.domain.donation import Donation
from aidtrail.domain.events import Event, LedgerStamp, RegistryEvent, SubmissionRefused
from aidtrail.domain.invariants import invariants
from aidtrail.domain.registry import EMPTY, Registry, register_all
from aidtrail.domain.rules import RULES_VERSION, Case, Rule, common
from aidtrail.errors import MalformedError, UndecodableError
from aidtrail.ledger_store import START, LedgerStore, Row
from aidtrail.log import Record
from aidtrail.ruling import EPOCH, NO_DONATION, Account, Outcome, donation_of, restore, rule, signature_verifies
from aidtrail.topics import Topics

LATE_MILLISECONDS = 60_000
"""A registry record that was appended so long before a submission must have been ruled with. The ledger promises it of any that was
appended before, but two brokers' clocks may differ."""

MAX_ROWS = 20_000
"""Entries that are in memory before they go to the store together."""

MAX_UNREAD = 1000
"""Entries that could not be decoded, of which it is remembered, until later ones come, whether an outcome follows them."""

MILLISECOND = timedelta(milliseconds=1)

ALWAYS_REQUIRED: dict[Rule, tuple[int, str]] = {
    common.actor_is_enrolled: (1, "meta.actor.actor_id"),
    common.actor_is_not_retired: (1, "meta.actor.actor_id"),
    common.actor_acts_for_own_party: (1, "meta.actor.party_id"),
    common.actor_holds_the_role: (1, "meta.actor.role"),
    common.signature_is_the_actors: (1, "meta.signature"),
    common.submission_is_signed_where_required: (2, "meta.signature"),
}
"""Rules that stay what they are: from which version of the rules on each is among them, and of what it speaks."""


class Registries:
    """The registry as it stood at any offset: folded forward as offsets advance, and from the start again where one steps back."""

    def __init__(self, records: Sequence[tuple[RegistryEvent, int, int]]) -> None:
        """`records` are (event, offset, append time)."""
        self._events = [(event, offset) for event, offset, _ in records]
        self._offsets = [offset for _, offset, _ in records]
        self._timestamps = [timestamp for _, _, timestamp in records]
        self._registry = EMPTY
        self._folded = 0

    def __len__(self) -> int:
        return len(self._events)

    def at(self, offset: int) -> Registry:
        """After the last event at or before `offset`: its own offset differs from `offset` where no event stands there."""
        if offset != self._registry.offset:
            if offset < self._registry.offset:
                self._registry, self._folded = EMPTY, 0
            stop = bisect_right(self._offsets, offset)
            self._registry = register_all(self._registry, self._events[self._folded : stop])
            self._folded = stop
        return self._registry

    def objection(self, offset: int, before: int, submitted_at: int) -> Finding | None:
        """Why an entry cannot have been ruled with the registry at `offset`, if the entry before it was ruled with that at `before` and its
        submission was appended at `submitted_at`."""
        where, found = "meta.ledger.registry_offset", str(offset)
        if self.at(offset).offset != offset:
            return Finding(where, f"the offset of a registry event, at most {self._offsets[-1] if self._offsets else -1}", found)
        if offset < before:
            return Finding(where, f"at least {before}, as the entry before it", found)
        following = self._folded
        if following < len(self._offsets) and submitted_at - self._timestamps[following] > LATE_MILLISECONDS:
            seconds = (submitted_at - self._timestamps[following]) // 1000
            return Finding(where, f"at least {self._offsets[following]}, appended {seconds:,} s before the submission", found)
        return None


class Accounts:
    """One partition's donations: the newest in memory, all of them in the store, as the ledger keeps them."""

    def __init__(self, store: LedgerStore, max_accounts: int) -> None:
        self._store = store
        self._max_accounts = max_accounts
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._rows: list[Row] = []

    def of(self, donation_id: str) -> Account:
        account = self._accounts.get(donation_id)
        if account is not None:
            self._accounts.move_to_end(donation_id)
            return account
        account = self._accounts[donation_id] = Account()
        for row in self._store.entries(donation_id):
            event, _ = codec.read_recorded(row.value)
            assert isinstance(event, Event)
            submission = event.refused_event_id if isinstance(event, SubmissionRefused) else event.meta.event_id
            restore(account, event, row.value, submission, row.submission_sha256)
        return account

    def keep(self, row: Row) -> None:
        self._rows.append(row)

    def settle(self) -> None:
        """To be called after every few entries: memory is bounded by it."""
        if len(self._rows) < MAX_ROWS and len(self._accounts) <= self._max_accounts:
            return
        self._store.add(self._rows, START)
        self._rows.clear()
        while len(self._accounts) > self._max_accounts:
            self._accounts.popitem(last=False)


class Examination:
    """One partition, entry by entry: `take` each, then `finish`. Pure but for the accounts' store."""

    def __init__(
        self,
        number: int,
        partitions: int,
        topics: Topics,
        registries: Registries,
        accounts: Accounts,
        submissions: Iterator[Record],
        start: Start,
    ) -> None:
        """`submissions` begin after the last one answered before `start`."""
        self.report = Report()
        self._number = number
        self._partitions = partitions
        self._topics = topics
        self._registries = registries
        self._accounts = accounts
        self._submissions = submissions
        self._start = start
        self._begun = False
        self._waiting: Record | None = None
        self._tail = NO_TAIL
        self._clock = 0
        self._registry_offset = -1
        self._rules = 1
        """The version that ruled the last entry that is as it must be: none after it is of one before."""
        self._doubtful: set[str] = set()
        self._unread: dict[bytes, int] = {}
        """Of the newest entries that could not be decoded, SHA-256 and offset."""
        self._next()

    def take(self, record: Record) -> None:
        """One entry, in log order, from offset 0 on."""
        if record.offset >= self._start.offset:
            self._begin()
        self.report.entries += 1
        if self._begun and self._is_as_expected(record):
            return
        entry = read_entry(record)
        donation_id = NO_DONATION if entry.donation_id is None else entry.donation_id
        reason = void_reason(entry, self._tail, self._accounts.of(donation_id).head, self._partitions)
        stamp = entry.stamp
        if reason is not None or stamp is None:
            self.report.voids_entry(Void(self._number, record.offset, donation_id, reason or ""))
            self._look_for_a_chain_of_its_own(entry)
            return
        if self._begun:
            self._examine(entry, stamp)
        else:
            self.report.followed += 1
            self._follow(entry)
            self._rules = stamp.rules if self._rules < stamp.rules <= RULES_VERSION else self._rules
        self._tail = Tail(stamp.submitted_offset, codec.sha256(entry.value))
        self._clock = (stamp.recorded_at - EPOCH) // MILLISECOND
        if self._registries.at(stamp.registry_offset).offset == stamp.registry_offset:
            self._registry_offset = stamp.registry_offset

    def _look_for_a_chain_of_its_own(self, entry: Entry) -> None:
        """What no reader can decode is void for all of them. If an outcome follows it, then for who wrote that it counts: the two go on
        apart, and all that comes after is void as well."""
        if entry.fault == "undecodable":
            self._unread[codec.sha256(entry.value)] = entry.record.offset
            if len(self._unread) > MAX_UNREAD:
                del self._unread[next(iter(self._unread))]
        elif entry.stamp is not None:
            offset = self._unread.pop(entry.stamp.previous_outcome_sha256, None)
            if offset is not None:
                found = f"one that none can, and the outcome at offset {entry.record.offset} follows it"
                self.report.differs(
                    Difference(self._topics.recorded, self._number, offset, "", "value", "one that readers can decode", found)
                )

    def _examine(self, entry: Entry, stamp: LedgerStamp) -> None:
        record, donation_id = entry.record, entry.donation_id
        assert donation_id is not None
        submission = self._answered_by(record.offset, stamp.submitted_offset)
        finding: Finding | None
        if submission is None:
            finding = Finding("meta.ledger.submitted_offset", "the offset of a submission", str(stamp.submitted_offset))
            self._follow(entry)
        else:
            self._clock = max(self._clock, submission.timestamp)
            judge = self._rule_again if stamp.rules == RULES_VERSION else self._check_without_ruling
            finding = judge(entry, stamp, submission)
            stale = self._registries.objection(stamp.registry_offset, self._registry_offset, submission.timestamp)
            finding = self._objection_to_version(stamp.rules) or stale or finding
        if finding is not None:
            self._doubtful |= {donation_id, donation_id if submission is None else donation_of(submission)}
            self.report.differs(Difference(self._topics.recorded, self._number, record.offset, donation_id, *finding))
        elif stamp.rules != RULES_VERSION:
            self._rules = stamp.rules
            self.report.not_redecidable[stamp.rules] += 1
        else:
            self._rules = stamp.rules
            self.report.equal += 1
            self.report.resting += donation_id in self._doubtful

    def finish(self, expected: Tail | None = None) -> Report:
        """After the last entry: what is left of the submissions is pending. The last outcome must be the one expected, if one is."""
        self._begin()
        if expected is not None:
            self._require_tail(expected, "last outcome of the cut")
        if self._waiting is not None:
            self.report.oldest_unanswered = self._waiting.timestamp
        while self._waiting is not None:
            self.report.unanswered += 1
            self._next()
        return self.report

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._require_tail(self._start.tail, "last outcome before the start")

    def _require_tail(self, expected: Tail, which: str) -> None:
        if expected != self._tail:
            where = (self._topics.recorded, self._number, self.report.entries - 1, "")
            self.report.differs(Difference(*where, which, _said(expected), _said(self._tail)))

    def _next(self) -> None:
        self._waiting = next(self._submissions, None)
        self.report.submissions += self._waiting is not None

    def _answered_by(self, entry_offset: int, submitted_offset: int) -> Record | None:
        """The submission at this offset, if there is one. Those before it that were not answered never will be: each is a difference."""
        while self._waiting is not None and self._waiting.offset < submitted_offset:
            skipped, number = self._waiting, self._number
            said = f"none; the entry at offset {entry_offset} answers submission {submitted_offset}, and nothing earlier counts after it"
            self._doubtful.add(donation_of(skipped))
            self.report.without_outcome += 1
            self.report.differs(
                Difference(self._topics.submitted, number, skipped.offset, donation_of(skipped), "outcome", "an outcome", said)
            )
            self._next()
        answered = self._waiting
        if answered is None or answered.offset != submitted_offset:
            return None
        self._next()
        return answered

    def _is_as_expected(self, record: Record) -> bool:
        """Whether the entry is the outcome of the next submission, with the registry as it was: the common case, told without decoding it.
        It then passes every fence, since what the rules give does."""
        submission = self._waiting
        if submission is None or self._registries.objection(self._registry_offset, self._registry_offset, submission.timestamp):
            return False
        clock = max(self._clock, submission.timestamp)
        same, ruled = self._ruled(record, submission, clock, self._registry_offset)
        if not same:
            return False
        self.report.equal += 1
        if self._doubtful:
            self.report.resting += donation_of(submission) in self._doubtful
        self._tail, self._clock, self._rules = Tail(submission.offset, ruled.sha256), clock, RULES_VERSION
        self._next()
        return True

    def _ruled(self, record: Record, submission: Record, clock: int, registry_offset: int) -> tuple[bool, Outcome]:
        """What the rules give, and whether it is this very record: then the account is as after it, else as it was."""
        account = self._accounts.of(donation_of(submission))
        before, seen = (account.donation, account.head), len(account.seen)
        registry = self._registries.at(registry_offset)
        ruled = rule(account, submission, self._tail, clock, registry, self._topics, self._partitions)
        if ruled.draft.value == record.value and ruled.draft.key == record.key:
            if ruled.event is not None:
                self._accounts.keep(Row(donation_of(submission), record.offset, ruled.submission_sha256, ruled.draft.value))
            return True, ruled
        account.donation, account.head = before
        if len(account.seen) > seen:
            account.seen.popitem()
        return False, ruled

    def _rule_again(self, entry: Entry, stamp: LedgerStamp, submission: Record) -> Finding | None:
        same, ruled = self._ruled(entry.record, submission, self._clock, stamp.registry_offset)
        if same:
            return None
        finding = first_difference(ruled.draft.value, entry)
        self._follow(entry)
        return finding

    def _check_without_ruling(self, entry: Entry, stamp: LedgerStamp, submission: Record) -> Finding | None:
        """Chain, order, bytes, actor, signature, fold and invariants of an entry that another version of the rules decided."""
        account = self._accounts.of(donation_of(submission))
        expected = stamp.model_copy(
            update={
                "version": account.head.version + (not entry.refused),
                "previous_sha256": account.head.sha256,
                "recorded_at": EPOCH + self._clock * MILLISECOND,
            }
        )
        answered, digest = submission_of(entry)
        event = entry.event
        assert event is not None
        finding: Finding | None = None
        if entry.donation_id != donation_of(submission):
            finding = Finding("meta.donation_id", donation_of(submission), str(entry.donation_id))
        elif digest != codec.sha256(submission.value or b""):
            finding = Finding("submission", f"SHA-256 {codec.sha256(submission.value or b'').hex()}", digest.hex())
        elif answered not in (None, _event_id(submission)):
            finding = Finding("refused_event_id", str(_event_id(submission)), str(answered))
        elif stamp != expected:
            finding = first_leaf("meta.ledger", expected.model_dump(), stamp.model_dump())
        elif not entry.refused:
            finding = self._missing(entry, event, stamp, submission)
        before, fault = account.donation, account.fault
        account = self._follow(entry)
        if finding is None and account.fault != fault:
            finding = Finding("fold", "an event that can follow", str(account.fault))
        if finding is None and not entry.refused and account.donation is not None:
            broken = _broken(account.donation)
            new = [sentence for sentence in broken if before is None or sentence not in _broken(before)]
            finding = Finding("invariant", "all to hold", "; ".join(new)) if new else None
        return finding

    def _objection_to_version(self, rules: int) -> Finding | None:
        if self._rules <= rules <= RULES_VERSION:
            return None
        return Finding(
            "meta.ledger.rules", f"from {self._rules}, as before it, to {RULES_VERSION}, the newest that this release knows", str(rules)
        )

    def _missing(self, entry: Entry, event: Event, stamp: LedgerStamp, submission: Record) -> Finding | None:
        """What every version of the rules, from the stamped one on, would have missed in the event."""
        registry, actor = self._registries.at(stamp.registry_offset), event.meta.actor
        verifies = signature_verifies(submission.value or b"", entry.ledger_at, event, registry)
        case = Case(self._accounts.of(event.meta.donation_id).donation, event, actor, registry, stamp.recorded_at, verifies)
        for rule_, (since, field) in ALWAYS_REQUIRED.items():
            if stamp.rules >= since and (missed := rule_(case)) is not None:
                return Finding(field, missed.expected, missed.found)
        return None

    def _follow(self, entry: Entry) -> Account:
        """Go on from what the log says counts."""
        assert entry.event is not None
        assert entry.donation_id is not None
        account = self._accounts.of(entry.donation_id)
        submission, digest = submission_of(entry)
        restore(account, entry.event, entry.value, submission, digest)
        if submission is not None:
            self._accounts.keep(Row(entry.donation_id, entry.record.offset, digest, entry.value))
        return account


def _broken(donation: Donation) -> list[str]:
    try:
        return invariants(donation)
    except Exception as error:  # a forged state may lack what every invariant relies on
        return [f"the invariants cannot be looked at: {type(error).__name__} {error}"]


def _said(tail: Tail) -> str:
    return f"submission {tail.submitted_offset}, sha256 {tail.sha256.hex()}"


def _event_id(submission: Record) -> UUID | None:
    try:
        event = codec.decode(submission.value)
    except (UndecodableError, MalformedError):
        return None
    return event.meta.event_id if isinstance(event, Event) else None
