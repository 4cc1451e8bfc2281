"""POST of an event that its actor signed: his own bytes, appended as they are.

The gateway holds no actor's key, so what has to be signed is made by its actor, and not here from a request. It must be his who asks, and
his to submit. Whether the signature holds is for the ledger to rule, and is recorded. The event's own id makes it safe to send again.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import Response

from aidtrail import codec, tracing
from aidtrail.domain import events as e
from aidtrail.domain.authority import Person, authorise
from aidtrail.errors import MalformedError, UndecodableError
from aidtrail.gateway import problems, state
from aidtrail.gateway.reading import subject_of
from aidtrail.gateway.submitting import PREFER, Caller, Gateway, answer, donation, outcome_of, submitted, wait_seconds
from aidtrail.routes import ROUTES
from aidtrail.signatures import PAYLOAD_TYPE
from aidtrail.views.reader import Outcome


def router(services: Sequence[str]) -> APIRouter:
    """One route, for the events of these services."""
    found = APIRouter(prefix="/v1", tags=["signed"], dependencies=[Depends(state.known_query)])
    kinds = {route.event for route in ROUTES if route.service in services}

    @found.post("/submissions", operation_id="submitSigned", summary="An event that its actor signed", status_code=202)
    async def submit(
        request: Request,
        gateway: Gateway,
        person: Caller,
        prefer: Annotated[str | None, Header(description=PREFER)] = None,
    ) -> Response:
        value = await request.body()
        event = _event(request, value, kinds)
        with tracing.continued(request.headers.get(tracing.HEADER)):
            return await _submit(gateway, person, event, value, wait_seconds(prefer))

    return found


async def _submit(gateway: state.Gateway, person: Person, event: e.Event, value: bytes, seconds: float) -> Response:
    actor, event_id = event.meta.actor, event.meta.event_id
    if (actor.actor_id, actor.party_id) != (person.actor_id, person.party_id):
        raise problems.NotPermitted("an event is submitted by its own actor")
    if actor.role not in person.roles_for(type(event)):
        raise problems.NotPermitted(f"{event.type} is submitted in another role")
    row = await asyncio.to_thread(donation, gateway, event.meta.donation_id)
    if not authorise(person, type(event), None if row is None else subject_of(gateway, row)):
        raise problems.NotFound

    async def own(outcome: Outcome) -> Outcome:
        if outcome.submission_sha256 != codec.sha256(value):
            raise problems.IdReused
        return outcome

    before = await asyncio.to_thread(outcome_of, gateway, event_id)
    if before is not None:
        return await answer(gateway, person, event_id, await own(before))
    return await submitted(gateway, person, event, value, seconds, own)


def _event(request: Request, value: bytes, kinds: Collection[type[e.Event]]) -> e.Event:
    """The event that the body is. Raises NotAvro and Malformed."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != PAYLOAD_TYPE:
        raise problems.NotAvro(expected=PAYLOAD_TYPE)
    try:
        event = codec.decode(value)
    except UndecodableError as error:
        raise problems.Malformed(where="body", expected=f"a signed event in Avro: {error.expected}") from None
    except MalformedError as error:
        raise problems.Malformed(where=f"body: {error.where}", expected=error.expected) from None
    if not isinstance(event, e.Event) or type(event) not in kinds:
        raise problems.Malformed(where="body", expected="an event that this service takes")
    if event.meta.signature is None:
        raise problems.Malformed(where="body: meta.signature", expected="a signature; other paths take what is not signed")
    if event.meta.ledger is not None:
        raise problems.Malformed(where="body: meta.ledger", expected="null")
    if event.meta.event_id.int >> 80 == 0:  # as keyed requests have it, whose ids anybody can compute (submitting._event_id)
        raise problems.Malformed(where="body: meta.event_id", expected="a UUIDv7 with the time that it was made at")
    return event
