"""Folds entries of `recorded` into the rows of one build of the views, batch by batch. Live and rebuild run exactly this.

A bounded number of donations is kept in memory; the others are folded again from the build's own entries when the next event arrives. A
donation whose fold or status raises is parked: its row stays as it was, its entries are kept and still chained, and all others go on.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from psycopg.types.json import Jsonb

from aidtrail import codec, metrics
from aidtrail.chain import MAX_DONATION_ID, NO_HEAD, Entry, Head, Tail, read_entry, void_reason
from aidtrail.domain import status
from aidtrail.domain.donation import Approval, Donation
from aidtrail.domain.events import Event, SubmissionRefused
from aidtrail.domain.fold import apply
from aidtrail.domain.money import Amounts
from aidtrail.errors import FoldError
from aidtrail.log import Record, partition_of
from aidtrail.logs import about
from aidtrail.tracing import Spans
from aidtrail.views import digest
from aidtrail.views.writer import COLUMNS, Batch, Claim, Row, Writer

logger = logging.getLogger(__name__)

Apply = Callable[[Donation | None, Event], Donation | None]
"""The donation after an event. One that leaves an event out gives the donation back as it was."""

MAX_BATCH = 20_000
"""Records in one transaction, reached only while catching up: the more of them concern one donation, the fewer rows are written."""

MAX_KEY = 64
"""Characters of a currency or an approval's id (`events.Id`)."""


@dataclass(slots=True)
class Account:
    """What a build's status row of one donation is made of."""

    donation: Donation | None = None
    head: Head = NO_HEAD
    folded: Head = NO_HEAD
    """The head but for entries since the donation was parked: that of its status row."""
    parked: bool = False
    announced_on: datetime | None = None
    changed_at: datetime | None = None
    amounts: Mapping[str, status.AmountRow] = field(default_factory=dict)
    """As they were last written."""
    approvals: Mapping[str, Approval] = field(default_factory=dict)
    """As they were last written."""
    amount_lines: str = ""
    """These amounts in canonical form (`views.digest`), as the approvals below."""
    approval_lines: dict[str, str] = field(default_factory=dict)
    term: int = 0
    """What the rows that were last written have added to the partition's sum."""
    written: tuple[Donation | None, Head, datetime | None, datetime | None] = (None, NO_HEAD, None, None)
    """`donation`, `folded`, `announced_on` and `changed_at` as they were last written."""

    @property
    def is_closed(self) -> bool:
        return self.donation is not None and self.donation.closed_by is not None

    def fold(self, event: Event, apply: Apply) -> None:
        assert event.meta.ledger is not None
        donation = apply(self.donation, event)
        if donation is self.donation:
            return
        self.donation = donation
        if self.announced_on is None:
            self.announced_on = event.meta.occurred_on
        self.changed_at = event.meta.ledger.recorded_at


class Projection:
    """One writer's partitions of one build.

    While a batch is being written, in a thread of its own, the next one is decoded and folded: PostgreSQL and Python each have a core to
    work on. At most one batch is under way, and batches are written in order. After any exception what is in memory may be ahead of the
    build: close the projection and open another.
    """

    def __init__(
        self,
        writer: Writer,
        partitions: int,
        *,
        apply: Apply = apply,
        max_accounts: int = 20_000,
        recorded_by: datetime | None = None,
        live: bool = False,
    ) -> None:
        """`recorded_by` ends each partition before its first entry that counts and was recorded later; those are then in `ended`. `live`:
        what is written is traced and timed; what is built again was so when it was new."""
        self._writer = writer
        self._partitions = partitions
        self._apply = apply
        self._max_accounts = max_accounts
        self._live = live
        self._recorded_by = recorded_by
        self.ended: set[int] = set()
        self._claims: dict[int, Claim] = {}
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._closed: list[str] = []
        """Donations that the batch under way closes."""
        self._thread = ThreadPoolExecutor(1, "projection")
        self._writing: Future[None] | None = None

    def claim(self, partition: int) -> int:
        """Take a partition over; returns the next offset to read."""
        self.settle()
        self._claims[partition] = self._writer.claim(partition)
        self._count_parked()
        return self._claims[partition].next_offset

    def release(self, partition: int) -> None:
        """Forget a partition. Accounts are not told apart by partition, so all go; those still needed are folded again."""
        self.settle()
        del self._claims[partition]
        self._accounts.clear()

    def next_offset(self, partition: int) -> int:
        """Where to read on; all before it is written once `settle` returns."""
        return self._claims[partition].next_offset

    def project(self, records: Mapping[int, Sequence[Record]]) -> int:
        """Fold these records, which must follow the claimed positions, and begin to write what follows from them; returns how many there
        were. Raises what the writing of the batch before raised: FenceLostError, UnavailableError."""
        batch = Batch()
        spans = Spans(records if self._live else {})
        with _STEP["load"].time():
            folded = self._load(records, batch)
        with _STEP["fold"].time():
            changed: dict[str, tuple[int, Account]] = {}
            for partition, records_of in records.items():
                self._fold(partition, records_of, batch, changed)
            sums = dict.fromkeys(batch.moves, 0)
            for partition, account in changed.values():
                sums[partition] += self._status_or_park(batch, partition, account)
            for partition, added in sums.items():
                _add_sum(batch, partition, added)
        self._settle(folded)
        self._closed = [donation_id for donation_id, (_, account) in changed.items() if account.is_closed]
        self._claims |= {partition: moved for partition, (_, moved) in batch.moves.items()}
        self._writing = self._thread.submit(self._write, batch, spans)
        return sum(map(len, records.values()))

    def settle(self) -> None:
        """Wait until all that was projected is written. Raises what its writing raised."""
        self._settle(frozenset())

    def _settle(self, folded: Set[str]) -> None:
        """As `settle`, between a batch that was just folded and its writing. Only what is written may be forgotten: not these donations,
        which stand last. Closed ones go first, since hardly anything happens to them any more."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()
            for donation_id in self._closed:
                if donation_id not in folded:
                    del self._accounts[donation_id]
            while len(self._accounts) > max(self._max_accounts, len(folded)):
                self._accounts.popitem(last=False)

    def rest(self) -> None:
        """As `settle`, for who has nothing to project: raises what writing a batch would, when another build has gone live or the database
        has gone away."""
        self.settle()
        self._writer.require_live()

    def close(self) -> None:
        """Wait for the batch under way, whatever becomes of it, and close the writer. Never raises."""
        self._thread.shutdown()
        self._writer.close()

    def _write(self, batch: Batch, spans: Spans) -> None:
        try:
            with _STEP["write"].time():
                self._writer.write(batch)
        except BaseException as error:
            spans.end(type(error).__name__)
            raise
        spans.end()
        if batch.rows["parked"]:
            self._count_parked()
        if self._live:
            _observe(batch)

    def unpark(self, donation_id: str, partition: int) -> str | None:
        """Fold a parked donation again, all of its entries in order, and take it back among the others; returns why not, or None.

        Claims the partition in the same transaction, so a projector at work rolls its next batch back, claims again, and goes on with the
        donation as any other.
        """
        with self._writer.transaction():
            self._claims[partition] = claim = self._writer.claim(partition)
            stored = self._writer.load([donation_id])[donation_id]
            account = Account(head=stored.head, folded=stored.head, term=digest.term(stored.rows_sha256))
            try:
                for _, event in stored.events:
                    account.fold(event, self._apply)
                batch = Batch(moves={partition: (claim, claim)})
                _add_sum(batch, partition, _add_status(batch, partition, account))
            except Exception as error:
                return _short(error)
            self._writer.unpark(donation_id)
            self._writer.write(batch)
        return None

    def _load(self, records: Mapping[int, Sequence[Record]], batch: Batch) -> Set[str]:
        """Bring every donation of the batch into memory, with one query for all that are not there; returns which these are. A record whose
        key is not its donation is void, so keys alone say it. A donation that is named elsewhere than at home is left out: it has no event
        there, and what another projector does with it would go unseen."""
        accounts = self._accounts
        named = {
            donation_id: partition
            for partition, records_of in records.items()
            for key in dict.fromkeys([record.key for record in records_of])
            if key is not None and (donation_id := _text(key)) is not None and partition_of(key, self._partitions) == partition
        }
        missing: dict[str, int] = {}
        for donation_id, partition in named.items():
            if donation_id in accounts:
                accounts.move_to_end(donation_id)
            else:
                missing[donation_id] = partition
        if not missing:
            return named.keys()
        stored = self._writer.load(list(missing))
        for donation_id, partition in missing.items():
            account = accounts[donation_id] = Account()
            if donation_id not in stored:
                continue
            events, account.head, account.parked, rows_sha256 = stored[donation_id]
            account.term = digest.term(rows_sha256)
            for offset, event in () if account.parked else events:
                self._fold_or_park(account, account.head, event, partition, offset, batch)
            account.written = (account.donation, account.folded, account.announced_on, account.changed_at)
        return named.keys()

    def _fold(self, partition: int, records: Sequence[Record], batch: Batch, changed: dict[str, tuple[int, Account]]) -> None:
        claim = self._claims[partition]
        tail = claim.tail
        accounts, partitions, recorded_by = self._accounts, self._partitions, self._recorded_by
        entry_rows, refusal_rows = batch.rows["entries"], batch.rows["refusals"]
        for record in records:
            entry = read_entry(record)
            account = accounts.get(entry.donation_id or "", _BLANK)
            reason = void_reason(entry, tail, account.head, partitions)
            event, stamp = entry.event, entry.stamp
            sha256 = codec.sha256(entry.value)
            if reason is not None or event is None or stamp is None:
                metrics.VOID.labels("projector", reason).inc()
                logger.warning("projector: an entry is void: %s", reason, extra=about(record))
                entry_rows.append(_entry_row(entry, "void", reason, sha256))
                continue
            if recorded_by is not None and stamp.recorded_at > recorded_by:
                self.ended.add(partition)
                batch.moves[partition] = (claim, claim._replace(next_offset=record.offset, tail=tail))
                return
            tail = Tail(stamp.submitted_offset, sha256)
            if isinstance(event, SubmissionRefused):
                entry_rows.append(_entry_row(entry, "refused", None, sha256))
                refusal_rows.append(_refusal_row(entry, event))
                continue
            entry_rows.append(_entry_row(entry, "admitted", None, sha256))
            account.head = Head(stamp.version, sha256)
            if not account.parked:
                self._fold_or_park(account, account.head, event, partition, record.offset, batch)
                changed[event.meta.donation_id] = (partition, account)
        batch.moves[partition] = (claim, claim._replace(next_offset=records[-1].offset + 1, tail=tail))

    def _status_or_park(self, batch: Batch, partition: int, account: Account) -> int:
        """As `_add_status`. A donation whose status cannot be had is parked at the first entry after which it is so, wherever the batch
        began: so a rebuild comes out equal."""
        try:
            return _add_status(batch, partition, account)
        except Exception:
            assert account.donation is not None
            donation_id = account.donation.donation_id
        account.donation, account.folded, account.announced_on, account.changed_at = account.written
        account.amounts, account.amount_lines, account.approvals, account.approval_lines = {}, "", {}, {}
        account.parked = False
        batch.rows["parked"] = [row for row in batch.rows["parked"] if row[0] != donation_id]
        for row in batch.rows["entries"]:
            if row[_DONATION_ID] == donation_id and row[_OUTCOME] == "admitted":
                entry = Head(cast(int, row[_VERSION]), cast(bytes, row[_SHA256]))
                event, _ = codec.read_recorded(cast(bytes, row[_VALUE]))
                self._fold_or_park(account, entry, cast(Event, event), partition, cast(int, row[_OFFSET]), batch, self._apply_with_status)
        return 0 if account.donation is account.written[0] else _add_status(batch, partition, account)

    def _apply_with_status(self, donation: Donation | None, event: Event) -> Donation | None:
        donation, at = self._apply(donation, event), event.meta.occurred_on
        _add_status(Batch(), 0, Account(donation, announced_on=at, changed_at=at))
        return donation

    def _fold_or_park(
        self, account: Account, entry: Head, event: Event, partition: int, offset: int, batch: Batch, apply: Apply | None = None
    ) -> None:
        if account.parked:
            return
        try:
            account.fold(event, apply or self._apply)
            account.folded = entry
        except Exception as error:  # whatever a fold raises concerns one donation, never the others
            account.parked = True
            batch.rows["parked"].append((event.meta.donation_id, partition, offset, _short(error)))
            why = error if isinstance(error, FoldError) else type(error).__name__  # what others say may hold what people wrote
            where = {"partition": partition, "offset": offset}
            logger.error("projector: %s is parked: %s", event.meta.donation_id, why, extra=where | about(event=event))

    def _count_parked(self) -> None:
        metrics.PARKED.set(sum(partition in self._claims for partition in self._writer.parked().values()))


_BLANK = Account()
_STEP = {step: metrics.STEP_SECONDS.labels("projector", step) for step in ("load", "fold", "write")}


def _text(key: bytes) -> str | None:
    """A record's key, None where it can be no donation's: PostgreSQL takes no U+0000, and memory not what is longer than any id."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text or len(text) > MAX_DONATION_ID else text


def _add_sum(batch: Batch, partition: int, added: int) -> None:
    """Move the digest of a partition's status rows along."""
    old, new = batch.moves[partition]
    if new.rows_sum is not None:
        batch.moves[partition] = (old, new._replace(rows_sum=(new.rows_sum + added) % digest.MODULUS))


def _add_status(batch: Batch, partition: int, account: Account) -> int:
    """The status row of a donation, and a row for each of its currencies and approvals that changed; returns what that adds to the sum.
    Where it raises, which takes an event that no rule has admitted, nothing was added to the batch."""
    donation = account.donation
    if donation is None:
        return 0
    axes, headline, amounts = status.status(donation)
    pledge = donation.pledge
    parties = {party: None for leg in pledge.legs.values() for party in (leg.from_party, leg.to_party)}
    row = (
        donation.donation_id,
        partition,
        donation.version,
        account.folded.sha256,
        donation.oversight,
        donation.contribution,
        pledge.donor,
        pledge.beneficiary,
        list(parties),
        list(pledge.legs),
        list({approval.mechanism_id: None for approval in donation.approvals.values()}),
        pledge.terms_sha256,
        pledge.purpose,
        headline,
        *axes,
        account.announced_on,
        account.changed_at,
        donation.next_deadline,
    )
    amount_rows: list[Row] = []
    approval_rows: list[Row] = []
    if account.amounts != amounts:  # most events move no money
        for currency, sums in amounts.items():
            if account.amounts.get(currency) != sums:
                amount_rows.append((donation.donation_id, _key(currency), *sums))
        account.amounts = amounts
        account.amount_lines = "".join([digest.amount_line(currency, sums) for currency, sums in sorted(amounts.items())])
    if account.approvals is not donation.approvals:
        for approval_id, approval in donation.approvals.items():
            if account.approvals.get(approval_id) is not approval:
                approval_row, account.approval_lines[_key(approval_id)] = _approval_row(donation.donation_id, approval)
                approval_rows.append(approval_row)
        account.approvals = donation.approvals
    lines = [digest.donation_line(row), account.amount_lines, *[line for _, line in sorted(account.approval_lines.items())]]
    rows_sha256 = codec.sha256("".join(lines).encode())
    batch.rows["donations"].append((*row, rows_sha256))
    batch.rows["amounts"] += amount_rows
    batch.rows["approvals"] += approval_rows
    account.written = (donation, account.folded, account.announced_on, account.changed_at)
    before, account.term = account.term, digest.term(rows_sha256)
    return account.term - before


def _key(text: str) -> str:
    """What is in a primary key, which PostgreSQL cannot index at any length: no event that was validated has one as long."""
    if len(text) > MAX_KEY:
        raise FoldError(f"an id of {len(text)} characters, where {MAX_KEY} are the most")
    return text


def _approval_row(donation_id: str, approval: Approval) -> tuple[Row, str]:
    """With its line in canonical form."""
    requested, granted = _by_currency(approval.requested), _by_currency(approval.granted)
    row = (
        donation_id,
        approval.approval_id,
        approval.mechanism_id,
        approval.state,
        list(approval.legs),
        Jsonb(requested),
        Jsonb(granted),
        approval.requested_by,
        approval.requested_for,
        approval.requested_on,
        approval.approvals_required,
        approval.approvals,
        list(approval.deciders),
        approval.valid_until,
    )
    return row, digest.approval_line(row, requested, granted)


def _by_currency(amounts: Amounts) -> dict[str, str]:
    return {currency: f"{amount:f}" for currency, amount in sorted(amounts.items())}


def _entry_row(entry: Entry, outcome: str, void: str | None, sha256: bytes) -> Row:
    record, event = entry.record, entry.event
    where = (record.partition, record.offset, outcome)
    if event is None or event.meta.ledger is None:
        return (*where, entry.donation_id, *[None] * 9, void, sha256, entry.value)
    meta, stamp = event.meta, event.meta.ledger
    return (
        *where,
        meta.donation_id,
        stamp.version if outcome == "admitted" else None,
        event.type,
        meta.event_id,
        meta.actor.actor_id,
        meta.actor.party_id,
        meta.actor.role,
        meta.occurred_on,
        stamp.recorded_at,
        stamp.submitted_offset,
        void,
        sha256,
        entry.value,
    )


def _refusal_row(entry: Entry, event: SubmissionRefused) -> Row:
    assert event.meta.ledger is not None
    return (
        entry.record.partition,
        entry.record.offset,
        event.meta.donation_id,
        event.meta.ledger.recorded_at,
        event.refused_event_id,
        event.refused_event_type,
        event.reason,
        event.expected,
        event.found,
        event.submission_sha256,
    )


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]


_OFFSET, _OUTCOME, _DONATION_ID, _VERSION, _RECORDED_AT, _SHA256, _VALUE = (
    list(COLUMNS["entries"]).index(column) for column in ("offset", "outcome", "donation_id", "version", "recorded_at", "sha256", "value")
)


def _observe(batch: Batch) -> None:
    now = time.time()
    count = len(batch.rows["entries"])
    metrics.BATCH_RECORDS.labels("projector").observe(count)
    metrics.ENTRIES_PROJECTED.inc(count)
    metrics.LAST_COMMIT.set(now)
    told = sorted(
        (max(0.0, now - cast(datetime, row[_RECORDED_AT]).timestamp()), str(row[0]), str(row[1]))
        for row in batch.rows["entries"]
        if row[_OUTCOME] != "void"
    )
    if told:
        for seconds, _, _ in told[:-1]:
            metrics.TIME_TO_VISIBLE.observe(seconds)
        slowest, partition, offset = told[-1]
        metrics.TIME_TO_VISIBLE.observe(slowest, {"partition": partition, "offset": offset})
