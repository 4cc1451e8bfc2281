"""The ledger: for each partition of `submitted`, read, decode, check, stamp, append to `recorded`. One submission, one outcome.

It has no database. Where it stands follows from its own output: the last entry that counts names the submission it answered. It appends
without transactions and compares where each entry came to stand with where it expected it; any surprise (another writer, an append that was
not acknowledged) makes it drop what it knows of the partition, read the log and go on from what is there. A submission that was answered
twice in such a moment has one outcome all the same: readers count the first (`chain`).
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from aidtrail import codec, metrics
from aidtrail.chain import Tail, read_entry, submission_of, void_reason
from aidtrail.domain.events import Event, SubmissionRefused
from aidtrail.domain.registry import Registry
from aidtrail.errors import AppendUnknownError
from aidtrail.ledger_store import START, LedgerStore, Position, Row
from aidtrail.log import Appended, Appender, Log, Record, up_to
from aidtrail.logs import about
from aidtrail.registry_reader import RegistryReader
from aidtrail.ruling import CANNOT_BE_FOLDED, CANNOT_BE_RULED, EPOCH, NO_DONATION, Account, Outcome, donation_of, restore, rule
from aidtrail.service import LOOK_SECONDS, Watch
from aidtrail.topics import Topics, require_write
from aidtrail.tracing import Spans

logger = logging.getLogger(__name__)

MAX_BATCH = 2000
POLL_SECONDS = 0.5
RECOVERY_SECONDS = 30.0
MAX_TOLD = 20
"""Refusals of one batch and partition that have a line of their own; all are in `recorded`."""
DEFECTS = (CANNOT_BE_FOLDED, CANNOT_BE_RULED)
MILLISECOND = timedelta(milliseconds=1)


class Partition:
    """One partition's accounts, as of the log's end: the newest in memory, all of them in the store."""

    def __init__(self, number: int, store: LedgerStore, topics: Topics, partitions: int, max_accounts: int) -> None:
        self.number = number
        self.store = store
        self.max_accounts = max_accounts
        self.position: Position = START
        """After the last entry; `next_offset` is what the next append is expected to get, and that may be further: markers of others'
        transactions take offsets as well."""
        self.next_offset = 0
        self._topics = topics
        self._partitions = partitions
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    @property
    def next_submission(self) -> int:
        return self.position.tail.submitted_offset + 1

    def rule(self, records: Sequence[Record], registry: Registry) -> list[Outcome]:
        """Rule on submissions in their order. Their effect on the accounts is provisional until `keep`."""
        outcomes = []
        tail, clock = self.position.tail, self.position.clock
        for record in records:
            clock = max(clock, record.timestamp)
            account = self._account(donation_of(record))
            outcomes.append(rule(account, record, tail, clock, registry, self._topics, self._partitions))
            tail = Tail(record.offset, outcomes[-1].sha256)
        return outcomes

    def keep(self, outcomes: Sequence[Outcome], appended: Sequence[Appended]) -> bool:
        """Keep what was ruled, now that it stands in the log; False, with nothing kept, when it does not stand where it was expected."""
        first = self.next_offset
        if [place.offset for place in appended] != list(range(first, first + len(appended))):
            return False
        rows = [
            Row(outcome.draft.key.decode(), place.offset, outcome.submission_sha256, outcome.draft.value)
            for outcome, place in zip(outcomes, appended, strict=True)
            if outcome.event is not None
        ]
        last = outcomes[-1]
        end = appended[-1].offset + 1
        self._commit(rows, Position(end, last.sha256, Tail(last.submitted_offset, last.sha256), last.clock))
        self.next_offset = end
        return True

    def recover(self, log: Log) -> None:
        """Bring the accounts to the end of the log, from the store if it is a prefix of the log, else from the log alone."""
        self.position = self.store.position()
        reader = log.reader(self._topics.recorded)
        try:
            end = log.end_offsets(self._topics.recorded)[self.number]
            if not self._is_prefix(log, end):
                logger.warning(
                    "ledger: partition %d: the local store does not match the log; building it anew",
                    self.number,
                    extra={"topic": self._topics.recorded, "partition": self.number},
                )
                self.store.clear()
                self.position = START
            reader.assign({self.number: self.position.next_offset})
            topic = self._topics.recorded
            for records in up_to(reader, topic, self.number, end, max_records=MAX_BATCH, patience_seconds=RECOVERY_SECONDS):
                self._read(records)
            self.next_offset = reader.positions()[self.number]
        finally:
            reader.close()

    def close(self) -> None:
        self.store.close()

    def _is_prefix(self, log: Log, end: int) -> bool:
        if self.position.next_offset == 0:
            return True
        if self.position.next_offset > end:
            return False
        reader = log.reader(self._topics.recorded)
        try:
            reader.assign({self.number: self.position.next_offset - 1})
            batches = up_to(reader, self._topics.recorded, self.number, end, max_records=1, patience_seconds=RECOVERY_SECONDS)
            records = next(batches, [])
        finally:
            reader.close()
        return bool(records) and codec.sha256(records[0].value or b"") == self.position.last_value_sha256

    def _read(self, records: Sequence[Record]) -> None:
        rows = []
        tail, clock = self.position.tail, self.position.clock
        for record in records:
            entry = read_entry(record)
            account = self._account(NO_DONATION if entry.donation_id is None else entry.donation_id)
            reason = void_reason(entry, tail, account.head, self._partitions)
            if reason is not None or entry.event is None or entry.stamp is None:
                metrics.VOID.labels("ledger", reason).inc()
                logger.warning("ledger: an entry is void: %s", reason, extra=about(record))
                continue
            stamp = entry.stamp
            submission, digest = submission_of(entry)
            restore(account, entry.event, entry.value, submission, digest)
            tail, clock = Tail(stamp.submitted_offset, codec.sha256(entry.value)), (stamp.recorded_at - EPOCH) // MILLISECOND
            if submission is not None:
                rows.append(Row(entry.event.meta.donation_id, record.offset, digest, entry.value))
        last = records[-1]
        self._commit(rows, Position(last.offset + 1, codec.sha256(last.value or b""), tail, clock))

    def _commit(self, rows: Sequence[Row], position: Position) -> None:
        self.store.add(rows, position)
        self.position = position
        while len(self._accounts) > self.max_accounts:
            self._accounts.popitem(last=False)

    def _account(self, donation_id: str) -> Account:
        account = self._accounts.get(donation_id)
        if account is not None:
            self._accounts.move_to_end(donation_id)
            return account
        account = self._accounts[donation_id] = Account()
        for row in self.store.entries(donation_id):
            event, _ = codec.read_recorded(row.value)
            assert isinstance(event, Event)
            submission = event.refused_event_id if isinstance(event, SubmissionRefused) else event.meta.event_id
            restore(account, event, row.value, submission, row.submission_sha256)
        return account


class Ledger:
    """The loop, over the partitions that this process owns in the group."""

    name = "ledger"

    def __init__(self, log: Log, topics: Topics, store_folder: Path, *, group: str, max_accounts: int = 20_000) -> None:
        self._log = log
        self._topics = topics
        self._folder = store_folder
        self._max_accounts = max_accounts
        self._partitions = topics.require(log)
        require_write(log, topics.recorded)
        self._registry = RegistryReader(log, topics.registry)
        self._reader = log.reader(topics.submitted)
        self._watch = Watch(log, topics.submitted)
        self._membership = log.join(group, topics.submitted)
        self._appender: Appender | None = None
        self._mine: dict[int, Partition] = {}
        self._ahead: frozenset[int] = frozenset()
        """Partitions of these whose last outcome answers a submission that is not there: they are left alone until the next one may be."""
        self._looked_at = 0.0
        self._published: dict[int, int] = {}

    def turn(self) -> int:
        self._follow_membership()
        with _STEP["poll"].time():
            records = self._reader.poll(MAX_BATCH, POLL_SECONDS)
        if not records:
            self._watch.look()
            # A transaction's marker, which is never delivered, is no lag.
            self._publish({number: at for number, at in self._reader.positions().items() if number in self._mine})
            return 0
        spans = Spans(records)
        with _STEP["rule"].time():
            registry = self._registry.follow()
            ruled = {number: self._mine[number].rule(batch, registry) for number, batch in records.items() if number in self._mine}
        try:
            self._append(ruled, spans)
        finally:
            spans.end()
        return sum(map(len, ruled.values()))

    def reset(self) -> None:
        for number in list(self._mine):
            self._drop(number)
        self._close_appender()

    def close(self) -> None:
        self._membership.close()
        self.reset()
        self._reader.close()
        self._registry.close()

    def _follow_membership(self) -> None:
        owned = self._membership.owned()
        if owned == self._mine.keys():
            if self._ahead and time.monotonic() - self._looked_at >= LOOK_SECONDS:
                self._assign()
            return
        for number in self._mine.keys() - owned:
            self._drop(number)
        share = self._max_accounts // max(len(owned), 1)
        for partition in self._mine.values():
            partition.max_accounts = share
        for number in sorted(owned - self._mine.keys()):
            self._take(number, share)
        self._assign()

    def _assign(self) -> None:
        """Read each partition on from its last outcome. One that claims a submission beyond the end of the log is forged, or the log was
        cut: nothing can follow it yet, and the other partitions go on."""
        ends = self._log.end_offsets(self._topics.submitted)
        self._looked_at = time.monotonic()
        next_submissions = {number: partition.next_submission for number, partition in self._mine.items()}
        self._ahead = frozenset(number for number, offset in next_submissions.items() if offset > ends[number])
        for number in sorted(self._ahead):
            logger.error(
                "ledger: partition %d is left alone: its last outcome answers submission %d, and %s ends at %d; run an audit replay",
                number,
                next_submissions.pop(number) - 1,
                self._topics.submitted,
                ends[number],
                extra={"topic": self._topics.submitted, "partition": number, "offset": ends[number]},
            )
        self._reader.assign(next_submissions)
        self._publish(next_submissions)  # what another writer answered meanwhile is no lag

    def _append(self, ruled: Mapping[int, Sequence[Outcome]], spans: Spans) -> None:
        drafts = [outcome.draft for outcomes in ruled.values() for outcome in outcomes]
        if spans:  # the value stays what was ruled: a trace goes on beside it
            drafts = [
                outcome.draft._replace(headers=spans.headers(number, outcome.submitted_offset))
                for number, outcomes in ruled.items()
                for outcome in outcomes
            ]
        if self._appender is None:
            self._appender = self._log.appender()
        try:
            with metrics.appending("ledger", len(drafts)):
                appended = self._appender.append(drafts)
        except AppendUnknownError as error:
            logger.warning("ledger: %s; reading the log's tail and going on from there", error)
            self.reset()
            return
        with _STEP["commit"].time():
            self._keep(ruled, appended, spans)

    def _keep(self, ruled: Mapping[int, Sequence[Outcome]], appended: Sequence[Appended], spans: Spans) -> None:
        start = 0
        for number, outcomes in ruled.items():
            stop = start + len(outcomes)
            if self._mine[number].keep(outcomes, appended[start:stop]):
                _count(outcomes)
                self._tell_refusals(number, outcomes, spans)
            else:
                metrics.OFFSET_SURPRISES.inc()
                logger.warning(
                    "ledger: %s partition %d: expected offset %d, found %d: somebody else writes there; reading the log again",
                    self._topics.recorded,
                    number,
                    self._mine[number].next_offset,
                    appended[start].offset,
                    extra={"topic": self._topics.recorded, "partition": number, "offset": appended[start].offset},
                )
                self._drop(number)
            start = stop
        self._publish({number: self._mine[number].next_submission for number in ruled if number in self._mine})

    def _publish(self, next_submissions: Mapping[int, int]) -> None:
        if next_submissions.items() - self._published.items():
            self._membership.commit(next_submissions)
            self._published |= next_submissions

    def _tell_refusals(self, number: int, outcomes: Sequence[Outcome], spans: Spans) -> None:
        refused = [(outcome.refusal.reason, outcome) for outcome in outcomes if outcome.refusal is not None]
        for reason, outcome in sorted(refused, key=lambda told: told[0] not in DEFECTS)[:MAX_TOLD]:  # no crowd hides what is our fault
            where: dict[str, object] = {"topic": self._topics.submitted, "partition": number, "offset": outcome.submitted_offset}
            where |= about(event=outcome.event) | spans.ids(number, outcome.submitted_offset)
            level = logging.ERROR if reason in DEFECTS else logging.INFO
            logger.log(level, "ledger: refused: %s", reason, extra=where)
            spans.say(number, outcome.submitted_offset, "aidtrail.refused", reason)
        if len(refused) > MAX_TOLD:
            logger.info("ledger: partition %d: %d more were refused in this batch", number, len(refused) - MAX_TOLD)

    def _take(self, number: int, max_accounts: int) -> None:
        store = LedgerStore(self._folder, self._topics.recorded, number)
        partition = Partition(number, store, self._topics, self._partitions, max_accounts)
        try:
            partition.recover(self._log)
        except BaseException:
            store.close()
            raise
        self._mine[number] = partition
        logger.info(
            "ledger: partition %d from submission %d on",
            number,
            partition.next_submission,
            extra={"topic": self._topics.submitted, "partition": number, "offset": partition.next_submission},
        )

    def _drop(self, number: int) -> None:
        self._mine.pop(number).close()

    def _close_appender(self) -> None:
        if self._appender is not None:
            self._appender.close()
            self._appender = None


_STEP = {step: metrics.STEP_SECONDS.labels("ledger", step) for step in ("poll", "rule", "commit")}


for _outcome in ("admitted", "refused"):
    metrics.SUBMISSIONS_RULED.labels(_outcome)
for _reason in ("undecodable", *DEFECTS):
    metrics.REFUSALS.labels(_reason)  # Prometheus sees an increase only of what it knew before


def _count(outcomes: Sequence[Outcome]) -> None:
    refused = [outcome.refusal.reason for outcome in outcomes if outcome.refusal is not None]
    metrics.SUBMISSIONS_RULED.labels("refused").inc(len(refused))
    metrics.SUBMISSIONS_RULED.labels("admitted").inc(len(outcomes) - len(refused))
    for reason in refused:
        metrics.REFUSALS.labels(reason).inc()
