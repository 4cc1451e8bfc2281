"""`status`, `history` and `list`: what the views say."""

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from aidtrail import codec, config, show
from aidtrail.cli import registry
from aidtrail.cli.backends import Backends, backends
from aidtrail.domain.events import Actor, Event, Oversight, SubmissionRefused
from aidtrail.domain.status import Headline
from aidtrail.errors import AidtrailError, UsageError
from aidtrail.views import shapes
from aidtrail.views.reader import Filters, HistoryRow

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout; amounts are strings.")]
Build = Annotated[str | None, typer.Option(help="A build that 'aidtrail audit as-of' made; the live one if not said.")]
DonationId = Annotated[str, typer.Argument(metavar="ID", help="The donation's id.")]


def status(donation_id: DonationId, build: Build = None, json_: Json = False) -> None:
    """Show where a donation stands. Four axes, the headline, and the amounts of each currency."""
    with backends(config.load()) as opened:
        reader = opened.reader(build)
        with reader.snapshot():
            row = reader.donation(donation_id)
            if row is None:
                raise _unknown(donation_id)
            amounts = reader.amounts([donation_id])[donation_id]
        if json_:
            show.lines([shapes.donation(row, amounts)])
        else:
            show.donation(row, amounts, party_names(opened))


def history(donation_id: DonationId, build: Build = None, json_: Json = False) -> None:
    """Show every entry of a donation, in the log's order. What was admitted, what was refused and why, who submitted it, and the chain.
    With --json one object a line."""
    with backends(config.load()) as opened:
        rows = list(opened.reader(build).history(donation_id))
        if not rows:
            raise _unknown(donation_id)
        submitted_by = submitters(opened, rows)
        if json_:
            show.lines([show.history_json(row, submitted_by.get(row.offset)) for row in rows])
        else:
            show.history(rows, submitted_by)


def list_(
    party: Annotated[str | None, typer.Option(help="Only donations that this party is on the route of.")] = None,
    headline: Annotated[str | None, typer.Option(help="Only donations with this headline, as 'partly paid'.")] = None,
    oversight: Annotated[str | None, typer.Option(help="managed or observed.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    build: Build = None,
    json_: Json = False,
) -> None:
    """List donations by id. With --json one object a line."""
    filters = Filters(
        party=party, headline=_one_of("--headline", Headline, headline), oversight=_one_of("--oversight", Oversight, oversight)
    )
    with backends(config.load()) as opened:
        reader = opened.reader(build)
        with reader.snapshot():
            rows = list(reader.donations(filters, limit=limit + 1))
            amounts = reader.amounts([row.donation_id for row in rows])
        if party is not None and not rows and (known := party_names(opened)) and party not in known:
            raise UsageError(f"--party: expected a party of the registry, found {party:.100}; 'aidtrail registry show' lists {len(known)}")
        more, rows = len(rows) > limit, rows[:limit]
        if json_:
            show.lines([shapes.donation(row, amounts[row.donation_id]) for row in rows])
        else:
            show.donations(rows)
        if more:
            typer.echo(f"there are more than {limit}: use --limit, --party, --headline or --oversight", err=True)


def _one_of(option: str, known: type[StrEnum], said: str | None) -> str | None:
    """The value that was meant, with spaces or without. Raises UsageError for what is none of them."""
    value = None if said is None else said.strip().lower().replace(" ", "_")
    if value is None or value in set(known):
        return value
    raise UsageError(f"{option}: expected one of {', '.join(one.replace('_', ' ') for one in known)}; found {said:.100}")


def party_names(opened: Backends) -> dict[str, str]:
    """Names of parties; none where the log cannot be reached, since the views answer without it."""
    try:
        return {party.party_id: party.name for party in registry.follow(opened.log, opened.topics).parties.values()}
    except AidtrailError:
        return {}


def submitters(opened: Backends, rows: Sequence[HistoryRow]) -> dict[int, Actor]:
    """Who submitted each entry, by the entry's offset. A refusal is the ledger's own event and does not say: that is read from the
    submission it names; where the log cannot be reached it stays open."""
    found: dict[int, Actor] = {}
    refused: dict[int, int] = {}
    for row in rows:
        if isinstance(row.event, SubmissionRefused) and row.event.meta.ledger is not None:
            refused[row.event.meta.ledger.submitted_offset] = row.offset
        elif row.event is not None:
            found[row.offset] = row.event.meta.actor
    if not refused:
        return found
    try:
        reader = opened.log.reader(opened.topics.submitted)
        try:
            for submitted_offset, offset in refused.items():
                reader.assign({rows[0].partition: submitted_offset})
                for record in reader.poll(1, 5.0).get(rows[0].partition, []):
                    event = codec.decode(record.value)
                    if isinstance(event, Event):
                        found[offset] = event.meta.actor
        finally:
            reader.close()
    except AidtrailError:
        pass
    return found


def _unknown(donation_id: str) -> UsageError:
    return UsageError(f"{json.dumps(donation_id)}: no such donation in the views; 'aidtrail list' shows those there are")
