"""What people see in a terminal: tables on stdout, progress on stderr. JSON for programs: amounts and times are strings."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from aidtrail.audit.rebuild import Comparison
from aidtrail.domain import events as e
from aidtrail.domain.money import Money, format_money
from aidtrail.views import shapes
from aidtrail.views.reader import AmountRow, DonationRow, HistoryRow

PIPE_WIDTH = 200
"""Columns where stdout is no terminal: enough that no cell is cut."""
SUMS = ("pledged", "approved", "in_flight", "settled", "returned", "passed_on", "held", "received", "acknowledged", "utilised")
COLOURS = {"admitted": "green", "refused": "red", "void": "magenta"}


def console() -> Console:
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False, emoji=False)


def lines(rows: Iterator[dict[str, Any]] | Sequence[dict[str, Any]]) -> None:
    """One JSON object a line, on stdout."""
    for row in rows:
        sys.stdout.write(shapes.to_json(row) + "\n")


# --- progress -----------------------------------------------------------------------------------------------------------------------


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


class Bar:
    """One bar on stderr with rate and time left; nothing at all where stderr is no terminal."""

    def __init__(self, progress: Progress, title: str, total: float | None) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total)

    def to(self, done: float, total: float | None = None) -> None:
        self._progress.update(self._task, completed=done, total=total)

    def add(self, done: float) -> None:
        self._progress.advance(self._task, done)


@contextmanager
def bar(title: str, total: float | None = None) -> Iterator[Bar]:
    shown = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=shown, disable=not shown.is_terminal, transient=True) as progress:
        yield Bar(progress, title, total)


# --- donations ----------------------------------------------------------------------------------------------------------------------


def donation(row: DonationRow, amounts: Sequence[AmountRow], parties: Mapping[str, str]) -> None:
    """The status of one donation: who, the headline, the four axes, the amounts of each currency."""
    out = console()
    head = Table(show_header=False, box=None, pad_edge=False)
    head.add_row("donation", f"{row.donation_id}, version {row.version}, {row.oversight}, {row.contribution.replace('_', ' ')}")
    head.add_row("donor", _named(row.donor, parties))
    head.add_row("beneficiary", _named(row.beneficiary, parties))
    head.add_row("headline", Text(row.headline.replace("_", " "), style="bold"))
    for axis in ("pledge", "approval", "disbursement", "receipt"):
        head.add_row(f"  {axis}", str(getattr(row, axis)).replace("_", " "))
    head.add_row("announced", f"{row.announced_on.astimezone(UTC):%Y-%m-%d}")
    if row.next_deadline is not None:
        head.add_row("next deadline", f"{row.next_deadline.astimezone(UTC):%Y-%m-%d %H:%M} UTC")
    head.add_row("head", f"sha256 {row.head_sha256.hex()}")
    out.print(head)
    sums = Table("amount", *(amount.currency for amount in amounts), box=None, pad_edge=False, header_style="dim")
    for column in sums.columns[1:]:
        column.justify = "right"
    for name in SUMS:
        values = [format_money(getattr(amount, name), amount.currency).rpartition(" ")[0] for amount in amounts]
        sums.add_row(name.replace("_", " "), *values)
    out.print(sums)


def donations(rows: Sequence[DonationRow]) -> None:
    table = Table("donation", "version", "headline", "oversight", "donor", "beneficiary", box=None, pad_edge=False, header_style="dim")
    for axis in ("pledge", "approval", "disbursement", "receipt"):
        table.add_column(axis)
    for row in rows:
        axes = (str(getattr(row, axis)).replace("_", " ") for axis in ("pledge", "approval", "disbursement", "receipt"))
        headline = row.headline.replace("_", " ")
        table.add_row(row.donation_id, str(row.version), headline, row.oversight, row.donor, row.beneficiary, *axes)
    console().print(table)


def history_json(row: HistoryRow, submitter: e.Actor | None) -> dict[str, Any]:
    return {**shapes.entry(row), "submitted_by": None if submitter is None else submitter.model_dump(mode="json")}


def history(rows: Sequence[HistoryRow], submitters: Mapping[int, e.Actor]) -> None:
    """Every entry in the order of the log. `submitters` says who submitted it, by the entry's offset."""
    table = Table("offset", "recorded", "outcome", "event", "by", "what", "chain", box=None, pad_edge=False, header_style="dim")
    for column in (0, 1, 2, 6):
        table.columns[column].no_wrap = True
    for row in rows:
        outcome = f"{row.outcome} v{row.version}" if row.version is not None else row.outcome
        by = submitters.get(row.offset)
        table.add_row(
            str(row.offset),
            "" if row.recorded_at is None else f"{row.recorded_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
            Text(outcome, style=COLOURS[row.outcome]),
            _type_of(row),
            "" if by is None else f"{by.actor_id} ({by.party_id})",
            row.void_reason or ("" if row.event is None else said(row.event)),
            _chain(row),
        )
    console().print(table)


def _type_of(row: HistoryRow) -> str:
    if isinstance(row.event, e.SubmissionRefused):
        return row.event.refused_event_type or "undecodable"
    return row.event_type or ""


def _chain(row: HistoryRow) -> str:
    if row.version is None or row.event is None or row.event.meta.ledger is None:
        return ""
    return f"{row.event.meta.ledger.previous_sha256.hex()[:8]} -> {row.sha256.hex()[:8]}"


def said(event: e.Event) -> str:
    """An event in a few words: ids and amounts, for a refusal the rule with what it expected and found."""
    if isinstance(event, e.SubmissionRefused):
        return f"{event.reason}: expected {event.expected}, found {event.found}"
    words: list[str] = []
    for name in type(event).model_fields:
        value = getattr(event, name)
        if isinstance(value, Money):
            words.append(str(value) if name == "amount" else f"{name} {value}")
        elif name == "amounts":
            words += map(str, value)
        elif name in ("decision", "approval_id", "disbursement_id", "condition_id", "kind", "agreement_reference", "outcome", "reason"):
            words += [] if value is None else [str(value)]
        elif name in ("leg_id", "need_id") and value is not None:
            words.append(f"{name.removesuffix('_id')} {value}")
    return ", ".join(words)


def _named(party_id: str, parties: Mapping[str, str]) -> str:
    return f"{parties[party_id]} ({party_id})" if party_id in parties else party_id


# --- audit --------------------------------------------------------------------------------------------------------------------------


def comparison_json(compared: Comparison) -> dict[str, Any]:
    return {
        "build": compared.build,
        "live": compared.live,
        "cut": {str(partition): offset for partition, offset in compared.cut.items()},
        "rows": compared.rows,
        "differences": compared.differences,
        "named": compared.named,
        "sha256": compared.sha256,
        "live_sha256": compared.live_sha256,
        "uncompared": compared.uncompared,
        "total_rows": compared.total_rows,
        "total_differences": compared.total_differences,
    }


def comparison(compared: Comparison) -> None:
    table = Table("table", "rows compared", "differences", box=None, pad_edge=False, header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, rows in compared.rows.items():
        table.add_row(name, f"{rows:,}", f"{compared.differences[name]:,}")
    table.add_row("all", f"{compared.total_rows:,}", f"{compared.total_differences:,}", style="bold")
    out = console()
    out.print(table)
    out.print(f"digest {compared.sha256.hex()}, live {compared.live_sha256.hex() if compared.live_sha256 else 'none kept'}")
    for uncompared in compared.uncompared:
        out.print(f"not compared: {uncompared}, which only one of the builds has")
    for name, keys in compared.named.items():
        for key in keys:
            out.print(f"differs: {name} {key}")
        if compared.differences[name] > len(keys):
            out.print(f"differs: {name}, and {compared.differences[name] - len(keys):,} more")
