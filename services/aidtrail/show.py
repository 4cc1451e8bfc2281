"""What people see in a terminal: tables on stdout, progress on stderr. JSON for programs: amounts and times are strings."""

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from aidtrail.audit.rebuild import Comparison
from aidtrail.domain import events as e
from aidtrail.domain.money import Money, format_money
from aidtrail.views import shapes
from aidtrail.views.reader import AmountRow, DonationRow, HistoryRow

PIPE_WIDTH = 100_000
"""Columns where stdout is no terminal: more than any row has, so that each is one line."""
GAP = "  "
SUMS = ("pledged", "approved", "in_flight", "settled", "returned", "passed_on", "held", "received", "acknowledged", "utilised")
AXES = ("pledge", "approval", "disbursement", "receipt")
COLOURS = {"admitted": "green", "refused": "red", "void": "magenta"}


def console() -> Console:
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False, emoji=False)


def lines(rows: Iterator[dict[str, Any]] | Sequence[dict[str, Any]]) -> None:
    """One JSON object a line, on stdout."""
    for row in rows:
        sys.stdout.write(shapes.to_json(row) + "\n")


def found(kind: str, said: Sequence[str], json_: bool) -> None:
    """What a check found, a line each; as JSON {kind: ...}, and nothing at all where all is well."""
    for one in said:
        sys.stdout.write((shapes.to_json({kind: one}) if json_ else one) + "\n")


# --- rows ---------------------------------------------------------------------------------------------------------------------------


def table(names: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Collection[int] = ()) -> None:
    """A line for each row, if the terminal is wide enough; else the row as 'name value', as many in a line as fit. No cell is ever cut.
    `right` are the columns of numbers."""
    out = console()
    head = [Text(name, style="dim") for name in names]
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    widths = [max(cell.cell_len for cell in column) for column in zip(head, *cells, strict=True)]
    if sum(widths) + len(GAP) * (len(widths) - 1) > out.width:
        for row in cells:
            _block(out, head, row)
        return
    for row in (head, *cells):
        padded = []
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            room = Text(" " * (width - cell.cell_len))
            padded.append(room + cell if number in right else cell + room)
        line = Text(GAP).join(padded)
        line.rstrip()
        out.print(line, soft_wrap=True)


def _block(out: Console, names: Sequence[Text], row: Sequence[Text]) -> None:
    shown: list[Text] = []
    for name, cell in zip(names, row, strict=True):
        pair = Text(" ").join(part for part in (name, cell) if part.plain)
        if not cell.plain:
            continue
        if shown and shown[-1].cell_len + len(GAP) + pair.cell_len <= out.width - len(GAP):
            shown[-1] = Text(GAP).join((shown[-1], pair))
        else:
            shown.append(pair)
    for number, line in enumerate(shown):
        hanging(out, Text(GAP if number else ""), line, len(GAP))


def fields(rows: Sequence[tuple[str | Text, str | Text]]) -> None:
    """A line for each name and its value."""
    out = console()
    indent = max(len(name) for name, _ in rows) + len(GAP)
    for name, value in rows:
        shown = name if isinstance(name, Text) else Text(name)
        hanging(out, shown + Text(" " * (indent - len(name))), value if isinstance(value, Text) else Text(value), indent)


def hanging(out: Console, start: Text, words: Text, indent: int) -> None:
    """Print `start` and `words`; what does not fit goes on below, indented, between words where that is possible."""
    for number, line in enumerate(words.wrap(out, max(out.width - indent, 20), overflow="fold")):
        line.rstrip()
        out.print((Text(" " * indent) if number else start) + line, soft_wrap=True)


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
    head: list[tuple[str, str | Text]] = [
        ("donation", f"{row.donation_id}, version {row.version}, {row.oversight}, {row.contribution.replace('_', ' ')}"),
        ("donor", _named(row.donor, parties)),
        ("beneficiary", _named(row.beneficiary, parties)),
        ("headline", Text(row.headline.replace("_", " "), style="bold")),
        *((f"  {axis}", str(getattr(row, axis)).replace("_", " ")) for axis in AXES),
        ("announced", f"{row.announced_on.astimezone(UTC):%Y-%m-%d}"),
    ]
    if row.next_deadline is not None:
        head.append(("next deadline", f"{row.next_deadline.astimezone(UTC):%Y-%m-%d %H:%M} UTC"))
    fields([*head, ("head", f"sha256 {row.head_sha256.hex()}")])
    sums: list[Sequence[str]] = []
    for name in SUMS:
        values = [format_money(getattr(amount, name), amount.currency).rpartition(" ")[0] for amount in amounts]
        sums.append((name.replace("_", " "), *values))
    table(("amount", *(amount.currency for amount in amounts)), sums, right=range(1, len(amounts) + 1))


def donations(rows: Sequence[DonationRow]) -> None:
    shown: list[Sequence[str | Text]] = []
    for row in rows:
        axes = (str(getattr(row, axis)).replace("_", " ") for axis in AXES)
        headline = row.headline.replace("_", " ")
        shown.append((Text(row.donation_id, "bold"), str(row.version), headline, row.oversight, row.donor, row.beneficiary, *axes))
    table(("donation", "version", "headline", "oversight", "donor", "beneficiary", *AXES), shown)


def history_json(row: HistoryRow, submitter: e.Actor | None) -> dict[str, Any]:
    return {**shapes.entry(row), "submitted_by": None if submitter is None else submitter.model_dump(mode="json")}


def history(rows: Sequence[HistoryRow], submitters: Mapping[int, e.Actor]) -> None:
    """Every entry in the order of the log. `submitters` says who submitted it, by the entry's offset."""
    shown = []
    for row in rows:
        outcome = f"{row.outcome} v{row.version}" if row.version is not None else row.outcome
        by = submitters.get(row.offset)
        shown.append(
            (
                Text(str(row.offset), "bold"),
                "" if row.recorded_at is None else f"{row.recorded_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
                Text(outcome, style=COLOURS[row.outcome]),
                _type_of(row),
                "" if by is None else f"{by.actor_id} ({by.party_id})",
                row.void_reason or ("" if row.event is None else said(row.event)),
                _chain(row),
            )
        )
    table(("offset", "recorded", "outcome", "event", "by", "what", "chain"), shown)


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
    rows = [(name, f"{rows:,}", f"{compared.differences[name]:,}") for name, rows in compared.rows.items()]
    table(
        ("table", "rows compared", "differences"),
        [*rows, ("all", f"{compared.total_rows:,}", f"{compared.total_differences:,}")],
        right=(1, 2),
    )
    out = console()
    out.print(f"digest {compared.sha256.hex()}, live {compared.live_sha256.hex() if compared.live_sha256 else 'none kept'}")
    for uncompared in compared.uncompared:
        out.print(f"not compared: {uncompared}, which only one of the builds has")
    for name, keys in compared.named.items():
        for key in keys:
            out.print(f"differs: {name} {key}")
        if compared.differences[name] > len(keys):
            out.print(f"differs: {name}, and {compared.differences[name] - len(keys):,} more")
