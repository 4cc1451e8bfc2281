"""The OpenAPI 3.1 description of the gateway: FastAPI's, with the bodies of the events, examples, and the answers that are problems."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_problem.error import StatusProblem

from aidtrail.gateway import problems
from aidtrail.gateway.routes import ABOUT, ROUTES, Route, body_schema

_ID = {"type": "string", "format": "uuid"}
_TIME = {"type": "string", "format": "date-time"}
_AMOUNT = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_COUNT = {"type": "integer", "minimum": 0}
_BY_CURRENCY = {"type": "object", "additionalProperties": _AMOUNT}


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), **more}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


SUMS = ("pledged", "approved", "in_flight", "settled", "returned", "passed_on", "held", "received", "acknowledged", "utilised")

SCHEMAS: dict[str, Any] = {
    "Amounts": _object({"currency": {"type": "string", "pattern": "^[A-Z]{3}$"}, **dict.fromkeys(SUMS, _AMOUNT)}),
    "Donation": _object(
        {
            "donation_id": _TEXT, "partition": _COUNT, "version": _COUNT, "head_sha256": _SHA256, "oversight": _TEXT, "contribution": _TEXT,
            "donor": _TEXT, "beneficiary": _TEXT, "parties": _TEXTS, "legs": _TEXTS, "mechanisms": _TEXTS, "terms_sha256": _SHA256,
            "purpose": _or_null(_TEXT), "headline": _TEXT, "pledge": _TEXT, "approval": _TEXT, "disbursement": _TEXT, "receipt": _TEXT,
            "announced_on": _TIME, "changed_at": _TIME, "next_deadline": _or_null(_TIME),
            "amounts": {"type": "array", "items": _ref("Amounts"), "description": "One for each currency; never to be added up."},
        },
        description="Where a donation stands: a headline, four axes, and amounts.",
    ),
    "Approval": _object(
        {
            "donation_id": _TEXT, "approval_id": _TEXT, "mechanism_id": _TEXT, "state": _TEXT, "legs": _TEXTS,
            "requested": _BY_CURRENCY, "granted": _BY_CURRENCY,
            "requested_by": _TEXT, "requested_for": _TEXT, "requested_on": _TIME, "approvals_required": _COUNT, "approvals": _COUNT,
            "deciders": _TEXTS, "valid_until": _or_null(_TIME), "signatures_missing": _COUNT, "waiting_seconds": _or_null(_COUNT),
        },
        description="A request to a mechanism, and what it waits for.",
    ),
    "Entry": _object(
        {
            "partition": _COUNT, "offset": _COUNT, "donation_id": _or_null(_TEXT), "outcome": {"enum": ["admitted", "refused", "void"]},
            "version": _or_null(_COUNT), "event_type": _or_null(_TEXT), "event_id": _or_null(_ID), "actor_id": _or_null(_TEXT),
            "party_id": _or_null(_TEXT), "recorded_at": _or_null(_TIME), "void_reason": _or_null(_TEXT), "sha256": _SHA256,
            "event": _or_null({"type": "object"}),
        },
        description="An entry of the log.",
    ),
    "Donations": _object({"items": {"type": "array", "items": _ref("Donation")}}),
    "Approvals": _object({"items": {"type": "array", "items": _ref("Approval")}}),
    "History": _object({"items": {"type": "array", "items": _ref("Entry")}}),
    "Entries": _object({"entries": {"type": "array", "items": _ref("Entry")}, "after": _TEXT}),
    "Submission": {
        "type": "object",
        "properties": {
            "event_id": _ID, "outcome": {"enum": ["pending", "admitted", "refused"]}, "donation_id": _TEXT, "version": _or_null(_COUNT),
            "reason": _or_null(_TEXT), "expected": _or_null(_TEXT), "found": _or_null(_TEXT), "partition": _COUNT,
            "submitted_offset": _COUNT, "submission_sha256": _SHA256,
        },
        "required": ["event_id", "outcome"],
    },
    "Admitted": _object({"event_id": _ID, "outcome": {"const": "admitted"}, "version": _COUNT, "donation": _or_null(_ref("Donation"))}),
    "Problem": {
        "type": "object",
        "description": "RFC 9457. The page at `type` explains it.",
        "properties": {
            "type": {"type": "string", "format": "uri-reference"}, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT,
            "where": _TEXT, "expected": _TEXT, "found": _TEXT, "reason": _TEXT, "event_id": _ID,
        },
        "required": ["type", "title", "status"],
    },
}  # fmt: skip

_ANSWERS = {
    "listDonations": "Donations", "getDonation": "Donation", "getHistory": "History", "listApprovals": "Approvals",
    "listEntries": "Entries", "getSubmission": "Submission",
}  # fmt: skip
_STREAMED = {
    "listDonations": ("text/csv", "application/x-ndjson"), "getHistory": ("text/csv", "application/x-ndjson"),
    "listApprovals": ("text/csv", "application/x-ndjson"), "listEntries": ("text/event-stream",),
}  # fmt: skip
_READING = (problems.Unauthenticated, problems.NotFound, problems.Malformed, problems.HeadersTooLarge, problems.ViewsUnavailable)
_SUBMITTING = (
    problems.Unauthenticated, problems.NotPermitted, problems.NotFound, problems.TooSlow, problems.Refused, problems.TooLarge,
    problems.NotJson, problems.Malformed, problems.HeadersTooLarge, problems.LogUnavailable, problems.Unknown,
)  # fmt: skip


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of what `app` has."""
    document = get_openapi(
        title=app.title, version=app.version, openapi_version="3.1.0", routes=app.routes,
        summary="Pledges, approvals, disbursements and receipts of humanitarian donations, and where each donation stands",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )  # fmt: skip
    schemas: dict[str, Any] = {**document.setdefault("components", {}).get("schemas", {}), **SCHEMAS}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    routes = {route.event.type: route for route in ROUTES}
    for path, methods in document["paths"].items():
        if not path.startswith("/v1/"):
            continue
        for operation in methods.values():
            operation["security"] = [{"accessToken": []}]
            route = routes.get(operation.pop("x-event", ""))
            if route is None:
                _read(operation)
            else:
                _submit(operation, route, schemas)
    document["components"] = {
        "schemas": dict(sorted(schemas.items())),
        "securitySchemes": {"accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
    }
    return document


def _read(operation: dict[str, Any]) -> None:
    name = operation["operationId"]
    content: dict[str, Any] = {"application/json": {"schema": _ref(_ANSWERS[name])}}
    content |= {kind: {"schema": _TEXT} for kind in _STREAMED.get(name, ())}
    operation["responses"] = {"200": {"description": "As asked", "content": content}}
    if name == "getDonation":
        operation["responses"]["304"] = {"description": "The version that the caller has is the newest"}
    _problems(operation, _READING if name != "getSubmission" else (*_READING, problems.LogUnavailable))


def _submit(operation: dict[str, Any], route: Route, schemas: dict[str, Any]) -> None:
    content = {"schema": body_schema(route, schemas), "example": _example(route)}
    required = bool(content["schema"]["required"])
    operation["requestBody"] = {"required": required, "content": {"application/json": content}}
    location = {"Location": {"description": "Tells what became of it", "schema": {"type": "string", "format": "uri-reference"}}}
    operation["responses"] = {
        "201": {
            "description": "Admitted; the donation's new status",
            "headers": location,
            "content": {"application/json": {"schema": _ref("Admitted")}},
        },
        "202": {"description": "In the log", "headers": location, "content": {"application/json": {"schema": _ref("Submission")}}},
    }
    _problems(operation, (*_SUBMITTING, problems.ViewsUnavailable))


def _problems(operation: dict[str, Any], found: tuple[type[StatusProblem], ...]) -> None:
    by_status: dict[str, list[str]] = {}
    for problem in found:
        by_status.setdefault(str(problem.status), []).append(problem.title)
    for status, titles in sorted(by_status.items()):
        operation["responses"][status] = {
            "description": ", or ".join(dict.fromkeys(titles)),
            "content": {"application/problem+json": {"schema": _ref("Problem")}},
        }


@cache
def _examples() -> dict[str, dict[str, Any]]:
    """The first example of each event, from the contract."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted((files("aidtrail") / "schemas" / "examples").iterdir(), key=lambda each: each.name):
        event = json.loads(file.read_text(encoding="utf-8"))
        found.setdefault(event["type"], event)
    return found


def _example(route: Route) -> dict[str, Any]:
    event = _examples()[route.event.type]
    stated = {name: value for name, value in event.items() if name not in ("type", "meta", *route.fields)}
    return {**stated, **{name: value for name, value in event["meta"].items() if name in ABOUT and value}}
