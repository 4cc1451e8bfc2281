"""POST: an event from a request's body, path and access token; appended, and answered with what became of it.

202 says that the log has it. With `Prefer: wait=N` the answer is the ledger's: 201 with the new status, or 409 with the reason. An
Idempotency-Key stands for the event's id, so that the same request may be sent again: it gets the first one's outcome.
"""

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi.responses import JSONResponse, Response

from aidtrail import codec, tracing
from aidtrail.domain import events as e
from aidtrail.domain.authority import SUBMITTERS, Person, Subject, authorise
from aidtrail.domain.rules.common import REPORTER
from aidtrail.errors import AppendUnknownError, MalformedError, UnavailableError
from aidtrail.gateway import problems, state
from aidtrail.gateway.openapi import path_schema
from aidtrail.gateway.reading import subject_of, visible_json
from aidtrail.routes import ABOUT, ROUTES, Route
from aidtrail.views.reader import DonationRow, Outcome

MAX_WAIT_SECONDS = 30
CHANNEL = "http"
KEY = "^[!-~]{1,255}$"
"""Of an Idempotency-Key: visible ASCII characters."""
PREFER = "wait=N: answer with the outcome, if there is one in N seconds."
Own = Callable[[Outcome], Awaitable[Outcome]]
"""The outcome, if it is that of what is submitted; raises a problem if its id stood for something else."""
Gateway = Annotated[state.Gateway, Depends(state.gateway)]
Caller = Annotated[Person, Depends(state.person)]


def router(service: str) -> APIRouter:
    """The routes of one service."""
    found = APIRouter(prefix="/v1/donations/{donation_id}", tags=[service], dependencies=[Depends(state.known_query)])
    for route in ROUTES:
        if route.service == service:
            _add(found, route)
    return found


def _add(router: APIRouter, route: Route) -> None:
    async def submit(
        request: Request,
        gateway: Gateway,
        person: Caller,
        donation_id: Annotated[str, Path(pattern=e.DONATION_ID)],
        idempotency_key: Annotated[str | None, Header(description="Makes the request safe to send again.", pattern=KEY)] = None,
        prefer: Annotated[str | None, Header(description=PREFER)] = None,
    ) -> Response:
        stated = _stated(route, request, await request.body())
        with tracing.continued(request.headers.get(tracing.HEADER)):
            return await _submit(gateway, person, route, stated, donation_id, idempotency_key, wait_seconds(prefer))

    router.add_api_route(
        f"/{route.path}",
        submit,
        methods=["POST"],
        name=route.event.type,
        operation_id=route.event.type,
        summary=re.sub(r"(?<!^)(?=[A-Z])", " ", route.event.type).capitalize(),
        description=" ".join((route.event.__doc__ or "").split()) if route.event.__doc__ != e.Event.__doc__ else None,
        status_code=202,
        openapi_extra={
            "parameters": [{"name": field, "in": "path", "required": True, "schema": path_schema(route, field)} for field in route.fields],
            "x-event": route.event.type,
        },
    )


async def _submit(
    gateway: state.Gateway, person: Person, route: Route, stated: dict[str, Any], donation_id: str, key: str | None, seconds: float
) -> Response:
    row = await asyncio.to_thread(donation, gateway, donation_id)
    subject = None if row is None else subject_of(gateway, row)
    request_sha256 = _digest(person, route, donation_id, stated)
    role = _role(person, route.event, stated, subject)
    if not authorise(person, route.event, subject):
        if not person.roles_for(route.event):
            raise problems.NotPermitted(f"{route.event.type} is submitted in another role")
        raise problems.NotFound
    event = _event(gateway, person, role, route, donation_id, stated, key, request_sha256)
    event_id = event.meta.event_id
    if key is not None:
        before = await asyncio.to_thread(outcome_of, gateway, event_id)
        if before is not None:
            return await answer(gateway, person, event_id, await _of_this_request(gateway, before, request_sha256))
    value = codec.encode(event)

    async def own(outcome: Outcome) -> Outcome:
        if outcome.submission_sha256 == codec.sha256(value):
            return outcome
        return await _of_this_request(gateway, outcome, request_sha256)  # the same key, at the same moment, by another way

    return await submitted(gateway, person, event, value, seconds, own)


async def submitted(gateway: state.Gateway, person: Person, event: e.Event, value: bytes, seconds: float, own: Own) -> Response:
    """Append an event whose bytes are `value`, and say what became of it as far as it is known in so many seconds."""
    event_id = event.meta.event_id
    try:
        await gateway.intake.submit(event, value)
    except UnavailableError:  # why is said in our own log: it may name brokers and settings
        raise problems.LogUnavailable from None
    except AppendUnknownError:
        raise problems.Unknown(headers=_location(event_id) | {"Retry-After": "2"}, event_id=str(event_id)) from None
    if seconds:
        outcome = await gateway.intake.outcome(event_id, seconds)
        if outcome is not None:
            with suppress(problems.ViewsUnavailable, problems.LogUnavailable):  # 503 would say that nothing was submitted
                return await answer(gateway, person, event_id, await own(outcome), {"Preference-Applied": f"wait={seconds:.0f}"})
    said = {"event_id": str(event_id), "donation_id": event.meta.donation_id, "outcome": "pending"}
    return JSONResponse(said, 202, _location(event_id))


async def answer(
    gateway: state.Gateway, person: Person, event_id: UUID, outcome: Outcome, headers: dict[str, str] | None = None
) -> Response:
    """The outcome; with the donation's status for those who may see it: a bank that reports on a payment may not."""
    headers = _location(event_id) | (headers or {})
    if outcome.outcome == "refused":
        raise problems.Refused(
            f"expected {outcome.expected}, found {outcome.found}", headers=headers, event_id=str(event_id),
            reason=outcome.reason, expected=outcome.expected, found=outcome.found,
        )  # fmt: skip
    said = await asyncio.to_thread(visible_json, gateway, person, outcome.donation_id)
    status = None if said is None else json.loads(said)
    return JSONResponse(
        {"event_id": str(event_id), "outcome": outcome.outcome, "version": outcome.version, "donation": status}, 201, headers
    )


async def _of_this_request(gateway: state.Gateway, outcome: Outcome, request_sha256: str) -> Outcome:
    """The outcome, if it is that of an equal request. Raises KeyReused if the key stood for another."""
    try:
        before = await gateway.intake.submission(outcome)
    except UnavailableError:  # why is said in our own log: it may name brokers and settings
        raise problems.LogUnavailable from None
    if before is None or before.meta.source != e.Source(channel=CHANNEL, reference=request_sha256):
        raise problems.KeyReused
    return outcome


def _location(event_id: UUID) -> dict[str, str]:
    return {"Location": f"/v1/submissions/{event_id}"}


def donation(gateway: state.Gateway, donation_id: str) -> DonationRow | None:
    with gateway.reader() as views:
        return views.donation(donation_id)


def outcome_of(gateway: state.Gateway, event_id: UUID) -> Outcome | None:
    with gateway.reader() as views:
        return views.outcomes([event_id]).get(event_id)


def wait_seconds(prefer: str | None) -> float:
    """RFC 7240, section 4.3. What is not understood is no preference."""
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,3})", prefer or "")
    return float(min(int(found[1]), MAX_WAIT_SECONDS)) if found else 0.0


def _stated(route: Route, request: Request, body: bytes) -> dict[str, Any]:
    """The body's fields, which must be none of those that stand elsewhere."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind != "application/json":
        raise problems.NotJson(expected="application/json")
    try:
        stated = codec.parse_object(body or b"{}")
    except MalformedError as error:
        raise problems.Malformed(where=f"body: {error.where}", expected=error.expected) from None
    names = set(route.event.model_fields) - {"meta", *route.fields} | {*ABOUT, "role"}
    if not stated.keys() <= names:
        raise problems.Malformed(where="body", expected=f"no fields but {', '.join(sorted(names))}")
    return {**stated, **{field: request.path_params[field] for field in route.fields}}


def _role(person: Person, kind: type[e.Event], stated: dict[str, Any], subject: Subject | None) -> str:
    """The one of the caller's roles that he acts in: the one he states, else the first that the rules take such an event from."""
    fitting = person.roles_for(kind)
    if "role" in stated:
        wanted = stated.pop("role")
        if not isinstance(wanted, str) or wanted not in SUBMITTERS[kind]:
            raise problems.Malformed(where="body: role", expected=f"one of {', '.join(sorted(SUBMITTERS[kind]))}")
        if wanted not in fitting:
            raise problems.NotPermitted(f"{kind.type} is submitted in a role that this actor does not hold")
        return wanted
    observed = subject.observed if subject is not None else stated.get("oversight") == e.Oversight.OBSERVED
    preferred = [role for role in sorted(fitting) if (role == REPORTER) == observed]
    return (preferred or sorted(fitting) or sorted(person.roles) or ["none"])[0]


def _digest(person: Person, route: Route, donation_id: str, stated: dict[str, Any]) -> str:
    """Tells one request from another: who, what, about which donation, with which body, however it is laid out."""
    said = json.dumps([person.actor_id, route.event.type, donation_id, stated], sort_keys=True, ensure_ascii=False)
    return "sha256:" + hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


def _event(
    gateway: state.Gateway, person: Person, role: str, route: Route, donation_id: str, stated: dict[str, Any], key: str | None, digest: str
) -> e.Event:
    now = gateway.now()
    about = {name: stated.pop(name) for name in ABOUT if name in stated}
    meta = {
        "event_id": str(_event_id(person, key, int(now.timestamp() * 1000))),
        "donation_id": donation_id,
        "occurred_on": now.isoformat(),
        "actor": {"actor_id": person.actor_id, "party_id": person.party_id, "role": role},
        "source": {"channel": CHANNEL, "reference": digest},
        **about,
    }
    try:
        event = codec.from_object({"type": route.event.type, "meta": meta, **stated})
    except MalformedError as error:
        where = error.where.removeprefix("meta.")
        raise problems.Malformed(where=f"path: {where}" if where in route.fields else f"body: {where}", expected=error.expected) from None
    assert isinstance(event, e.Event)
    return event


def _event_id(person: Person, key: str | None, milliseconds: int) -> UUID:
    """A new id; or the one that this actor's key stands for."""
    if key is None:
        return codec.event_id_at(milliseconds, secrets.token_bytes(16))
    return codec.event_id_at(0, f"{person.actor_id} {key}".encode())
