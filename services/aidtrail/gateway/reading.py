"""GET: donations, their history, the queue of approvals, the feed of entries, submissions. Nobody reads what is out of his sight."""

import asyncio
import csv
import hashlib
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from fastapi_problem.error import Problem
from starlette.types import Send

from aidtrail.domain import events as e
from aidtrail.domain import status
from aidtrail.domain.authority import Person, Read, Subject, authorise, submission
from aidtrail.domain.donation import ApprovalState, PledgeState
from aidtrail.errors import UnavailableError
from aidtrail.gateway import problems, state
from aidtrail.views import shapes
from aidtrail.views.reader import AmountRow, ApprovalRow, DonationRow, Filters, HistoryRow, Outcome

At = TypeVar("At")
Found = tuple[list[HistoryRow], dict[int, int]]
"""Entries, and where to go on after them."""

PAGE = 100
MAX_PAGE = 1000
FEED_SECONDS = 0.5
MAX_FEED_SECONDS = 300.0
"""Of one stream: who asks for the next shows his token again."""
MAX_CUT = 3000  # some 200 partitions; in query and header at once still less than limits.MAX_HEADER_BYTES

Gateway = Annotated[state.Gateway, Depends(state.gateway)]
Caller = Annotated[Person, Depends(state.person)]
DonationId = Annotated[str, Path(pattern=e.DONATION_ID)]
Id = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")]
FROM_LINK = "From the Link of the page before."
CUT = r"^([0-9]{1,5}\.[0-9]{1,17}(_[0-9]{1,5}\.[0-9]{1,17})*)?$"
"""'0.12_1.7': the next offset of each partition."""
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Format = Annotated[
    Literal["json", "ndjson", "csv"],
    Query(description="ndjson and csv stream the whole list, without pages, and break off when the token ends."),
]

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_PLACE = r"^[0-9]{1,5}\.[0-9]{1,17}$"
_APPROVALS = r"^[0-9]{1,18}~[A-Z0-9][A-Z0-9-]{2,63}~[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"

_UNCACHED = {"Cache-Control": "private, no-store"}

router = APIRouter(prefix="/v1", tags=["status"], dependencies=[Depends(state.known_query)])


@router.get("/me", operation_id="getMe")
def get_me(person: Caller) -> Response:
    """Who the access token says that the caller is, and what the registry knows about him."""
    said = {"actor_id": person.actor_id, "party_id": person.party_id, "roles": sorted(person.roles)}
    return Response(shapes.to_json(said), media_type="application/json", headers=_UNCACHED)


@router.get("/donations", operation_id="listDonations")
def list_donations(
    request: Request,
    gateway: Gateway,
    person: Caller,
    party: Id = None,
    mechanism: Id = None,
    headline: status.Headline | None = None,
    pledge: PledgeState | None = None,
    approval: status.ApprovalAxis | None = None,
    disbursement: status.DisbursementAxis | None = None,
    receipt: status.ReceiptAxis | None = None,
    oversight: e.Oversight | None = None,
    currency: Annotated[str | None, Query(pattern="^[A-Z]{3}$")] = None,
    changed_since: Annotated[e.Time | None, Query(description="Inclusive; with a zone.")] = None,
    cursor: Annotated[str | None, Query(pattern=e.DONATION_ID, description=FROM_LINK)] = None,
    limit: Limit = PAGE,
    format: Format = "json",
) -> Response:
    """Donations by id, those that the caller may see."""
    filters = Filters(
        party=party, mechanism=mechanism, headline=headline, pledge=pledge, approval=approval, disbursement=disbursement, receipt=receipt,
        oversight=oversight, currency=currency, changed_since=changed_since,
    )  # fmt: skip

    def page(after: str, size: int) -> tuple[list[dict[str, Any]], str]:
        with gateway.reader() as views:
            rows = list(views.donations(replace(filters, sight=gateway.sight(person)), after=after, limit=size))
            amounts = views.amounts([row.donation_id for row in rows])
        return [shapes.donation(row, amounts[row.donation_id]) for row in rows], rows[-1].donation_id if rows else after

    return _listed(request, gateway, page, cursor or "", str, limit, format, _DONATION_COLUMNS, _donation_cells)


@router.get("/donations/{donation_id}", operation_id="getDonation")
def get_donation(
    gateway: Gateway, person: Caller, donation_id: DonationId, if_none_match: Annotated[str | None, Header(max_length=1000)] = None
) -> Response:
    """Where a donation stands. The ETag is another with each version, and where a release shows the same version otherwise."""
    with gateway.reader() as views:
        row = views.donation(donation_id)
        if row is None or not authorise(person, Read.DONATION, subject_of(gateway, row)):
            raise problems.NotFound
        said = shapes.to_json(shapes.donation(row, views.amounts([donation_id])[donation_id]))
    etag = f'"{row.version}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if {etag, "*"} & {each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")}:
        return Response(status_code=304, headers=headers)
    return Response(said, media_type="application/json", headers=headers)


@router.get("/donations/{donation_id}/history", operation_id="getHistory")
def get_history(
    request: Request,
    gateway: Gateway,
    person: Caller,
    donation_id: DonationId,
    cursor: Annotated[str | None, Query(pattern=_PLACE, description=FROM_LINK)] = None,
    limit: Limit = PAGE,
    format: Format = "json",
) -> Response:
    """The entries of a donation in log order: admitted, refused and void."""
    _require_sight(gateway, person, donation_id)

    def page(after: tuple[int, int], size: int) -> tuple[list[dict[str, Any]], tuple[int, int]]:
        with gateway.reader() as views:
            rows = views.history(donation_id, after=after, limit=size)
        return [shapes.entry(row) for row in rows], (rows[-1].partition, rows[-1].offset) if rows else after

    return _listed(request, gateway, page, _after_place(cursor), _place, limit, format, _ENTRY_COLUMNS, _flat)


@router.get("/approvals", operation_id="listApprovals")
def list_approvals(
    request: Request,
    gateway: Gateway,
    person: Caller,
    state: ApprovalState | None = ApprovalState.PENDING,
    mechanism: Id = None,
    donation: Annotated[str | None, Query(pattern=e.DONATION_ID)] = None,
    cursor: Annotated[str | None, Query(pattern=_APPROVALS, description=FROM_LINK)] = None,
    limit: Limit = PAGE,
    format: Format = "json",
) -> Response:
    """Requests to mechanisms, the oldest first: by default those that wait, with their age and the signatures that they miss."""
    now = gateway.now()

    def page(after: tuple[datetime, str, str] | None, size: int) -> tuple[list[dict[str, Any]], tuple[datetime, str, str] | None]:
        with gateway.reader() as views:
            sight = gateway.sight(person)
            rows = list(views.approvals(state=state, mechanism=mechanism, donation_id=donation, sight=sight, after=after, limit=size))
        last = (rows[-1].requested_on, rows[-1].donation_id, rows[-1].approval_id) if rows else after
        return [shapes.approval(row, now) for row in rows], last

    return _listed(request, gateway, page, _after_approval(cursor), _approval_cursor, limit, format, _APPROVAL_COLUMNS, _flat)


@router.get("/entries", operation_id="listEntries")
def list_entries(
    request: Request,
    gateway: Gateway,
    person: Caller,
    after: Annotated[
        str | None,
        Query(pattern=CUT, max_length=MAX_CUT, description="Where to go on: `after` of the answer before. From the start if not stated."),
    ] = None,
    limit: Limit = PAGE,
    format: Format = "json",
    last_event_id: Annotated[
        str | None, Header(pattern=CUT, max_length=MAX_CUT, description="What browsers send for `after` when they connect again.")
    ] = None,
) -> Response:
    """The feed of what was recorded, for those without Kafka; with Accept: text/event-stream, as it is recorded. Such a stream ends after
    five minutes, and when its token does, to be asked for again with one that is valid."""
    position = _after_entries(last_event_id or after)
    if "text/event-stream" in request.headers.get("accept", ""):
        found = _next_entries(request, gateway, person, position)  # now, so that an outage is answered, and no stream that breaks off
        headers = {**_UNCACHED, "X-Accel-Buffering": "no"}
        return _Stream(_events(request, gateway, person, position, found), media_type="text/event-stream", headers=headers)

    def page(after: dict[int, int], size: int) -> tuple[list[dict[str, Any]], dict[int, int]]:
        with gateway.reader() as views:
            rows, reached = views.entries(after, sight=gateway.sight(person), limit=size)
        return [shapes.entry(row) for row in rows], reached

    if format != "json":
        return _listed(request, gateway, page, position, _cut, limit, format, _ENTRY_COLUMNS, _flat)
    with gateway.reader() as views:
        rows, position = views.entries(position, sight=gateway.sight(person), limit=limit)
    said = {"entries": [shapes.entry(row) for row in rows], "after": _cut(position)}
    headers = {"Link": f'<{request.url.path}?{_query(request, after=_cut(position))}>; rel="next"', **_UNCACHED}
    return Response(shapes.to_json(said), media_type="application/json", headers=headers)


@router.get("/submissions/{event_id}", operation_id="getSubmission")
async def get_submission(gateway: Gateway, person: Caller, event_id: UUID) -> Response:
    """What became of a submission. 404 until it has been ruled on, unless this process took it in: then `pending`."""
    outcome, row = await asyncio.to_thread(_outcome_and_donation, gateway, event_id)
    if outcome is None:
        if gateway.intake.party_of(event_id) != person.party_id:
            raise problems.NotFound(headers={"Retry-After": "1"})
        said = {"event_id": event_id, "outcome": "pending"}
        return Response(shapes.to_json(said), media_type="application/json", headers={"Retry-After": "1", **_UNCACHED})
    donation = None if row is None else subject_of(gateway, row)
    if not authorise(person, Read.DONATION, donation):
        party = await _submitter(gateway, outcome)
        if party is None or not authorise(person, Read.DONATION, submission(party, donation)):
            raise problems.NotFound(headers={"Retry-After": "1"})
    return Response(shapes.to_json({"event_id": event_id, **shapes.outcome(outcome)}), media_type="application/json", headers=_UNCACHED)


def _outcome_and_donation(gateway: state.Gateway, event_id: UUID) -> tuple[Outcome | None, DonationRow | None]:
    with gateway.reader() as views:
        outcome = views.outcome(event_id)
        return outcome, None if outcome is None else views.donation(outcome.donation_id)


def subject_of(gateway: state.Gateway, row: DonationRow) -> Subject:
    return Subject.of(gateway.registry(), row.parties, row.mechanisms, row.oversight)


def visible_json(gateway: state.Gateway, person: Person, donation_id: str) -> str | None:
    """The status of a donation; None where it is not there or out of sight."""
    with gateway.reader() as views:
        row = views.donation(donation_id)
        if row is None or not authorise(person, Read.DONATION, subject_of(gateway, row)):
            return None
        return shapes.to_json(shapes.donation(row, views.amounts([donation_id])[donation_id]))


def _require_sight(gateway: state.Gateway, person: Person, donation_id: str) -> None:
    with gateway.reader() as views:
        row = views.donation(donation_id)
    if row is None or not authorise(person, Read.DONATION, subject_of(gateway, row)):
        raise problems.NotFound


async def _submitter(gateway: state.Gateway, outcome: Outcome) -> str | None:
    try:
        event = await gateway.intake.submission(outcome)
    except UnavailableError:  # why is said in our own log: it may name brokers and settings
        raise problems.LogUnavailable from None
    return None if event is None else event.meta.actor.party_id


# --- lists ----------------------------------------------------------------------------------------------------------------------------


class _Stream(StreamingResponse):
    """Breaks off at a problem: its body has no end then, so that nobody takes what he has for the whole."""

    async def stream_response(self, send: Send) -> None:
        with suppress(Problem):  # too late to be answered
            await super().stream_response(send)


def _listed(
    request: Request,
    gateway: state.Gateway,
    page: Callable[[At, int], tuple[list[dict[str, Any]], At]],
    start: At,
    cursor: Callable[[At], str],
    limit: int,
    format: str,
    columns: Sequence[str],
    cells: Callable[[dict[str, Any]], Iterable[dict[str, Any]]],
) -> Response:
    """One page as JSON, with a Link to the next; or the whole list as a stream, which breaks off, and does not look whole, when the token
    ends before it."""
    if format == "json":
        rows, last = page(start, limit)
        headers = dict(_UNCACHED)
        if len(rows) == limit:
            headers["Link"] = f'<{request.url.path}?{_query(request, cursor=cursor(last))}>; rel="next"'
        return Response(shapes.to_json({"items": rows}), media_type="application/json", headers=headers)
    first = page(start, MAX_PAGE)  # so that what is wrong is said before the stream begins

    def everything() -> Iterator[dict[str, Any]]:
        rows, last = first
        while rows:
            yield from rows
            gateway.require_person(request.headers.get("authorization"))
            rows, last = page(last, MAX_PAGE)

    if format == "ndjson":
        return _Stream((shapes.to_json(row) + "\n" for row in everything()), media_type="application/x-ndjson", headers=_UNCACHED)
    lines = _csv(columns, (cell for row in everything() for cell in cells(row)))
    return _Stream(lines, media_type="text/csv; charset=utf-8", headers=_UNCACHED)


_DONATION_COLUMNS = (*DonationRow._fields, *AmountRow._fields[1:])
_APPROVAL_COLUMNS = (*ApprovalRow._fields, "signatures_missing", "waiting_seconds")
_ENTRY_COLUMNS = HistoryRow._fields


def _csv(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """RFC 4180. Lists are joined by spaces. A text that a spreadsheet would take for a formula has an apostrophe before it."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
        if out.tell() > 32_000:
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value
    return json.loads(shapes.to_json(value)) if isinstance(value, bytes | datetime) else value


def _flat(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {
        name: " ".join(value) if isinstance(value, list) else shapes.to_json(value) if isinstance(value, dict) else value
        for name, value in row.items()
    }


def _donation_cells(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A line for each currency: amounts are never added up."""
    (flat,) = _flat({name: value for name, value in row.items() if name != "amounts"})
    for amount in row["amounts"]:
        yield {**flat, **amount}


async def _events(request: Request, gateway: state.Gateway, person: Person, position: dict[int, int], found: Found) -> AsyncIterator[str]:
    """Server-sent events (HTML Living Standard, section 9.2); the id of each is where to go on after it. `found` is what there is."""
    yield ": entries follow as they are recorded\n\n"
    idle, ends_at = 0.0, time.monotonic() + MAX_FEED_SECONDS
    while True:
        rows, reached = found
        said = []
        for row in rows:
            position = {**position, row.partition: row.offset + 1}
            said.append(f"id: {_cut(position)}\nevent: entry\ndata: {shapes.to_json(shapes.entry(row))}\n\n")
        if reached != position:  # by entries that are out of sight
            position = reached
            said.append(f"id: {_cut(position)}\nevent: position\ndata: {_cut(position)}\n\n")
        if said:
            yield "".join(said)
        else:
            idle += FEED_SECONDS
            if idle >= 15:
                yield ": still here\n\n"
                idle = 0.0
            await asyncio.sleep(FEED_SECONDS)
        if time.monotonic() >= ends_at or gateway.stopping or await request.is_disconnected():
            return
        try:
            found = await asyncio.to_thread(_next_entries, request, gateway, person, position)
        except problems.Unauthenticated:  # by now: he asks again with a token that is valid
            return


def _next_entries(request: Request, gateway: state.Gateway, person: Person, position: dict[int, int]) -> Found:
    gateway.require_person(request.headers.get("authorization"))
    with gateway.reader() as views:
        return views.entries(position, sight=gateway.sight(person), limit=PAGE)


# --- cursors: opaque to the client ----------------------------------------------------------------------------------------------------


def _query(request: Request, **changed: str) -> str:
    return str(request.url.include_query_params(**changed).query)


def _approval_cursor(last: tuple[datetime, str, str] | None) -> str:
    """'63903369600000000~KRCS-2026-0001~A1': when it was requested, in microseconds since the year 1, donation and approval."""
    assert last is not None
    at, donation_id, approval_id = last
    return f"{(at - _FIRST) // timedelta(microseconds=1)}~{donation_id}~{approval_id}"


def _after_approval(cursor: str | None) -> tuple[datetime, str, str] | None:
    """Of a cursor that matches _APPROVALS."""
    if cursor is None:
        return None
    at, donation_id, approval_id = cursor.split("~")
    return _FIRST + min(timedelta(microseconds=int(at)), _LAST - _FIRST), donation_id, approval_id


def _place(last: tuple[int, int]) -> str:
    """'3.17': partition and offset."""
    return "{}.{}".format(*last)


def _after_place(cursor: str | None) -> tuple[int, int]:
    """Of a cursor that matches _PLACE."""
    if cursor is None:
        return -1, -1
    partition, _, offset = cursor.partition(".")
    return int(partition), int(offset)


def _cut(position: dict[int, int]) -> str:
    return "_".join(f"{partition}.{offset}" for partition, offset in sorted(position.items()))


def _after_entries(said: str | None) -> dict[int, int]:
    """Of a text that matches CUT."""
    parts = (part.split(".") for part in said.split("_")) if said else ()
    return {int(partition): int(offset) for partition, offset in parts}
