"""The OpenAPI 3.1 description of the gateway: FastAPI's, with the bodies of the events, examples, and the answers that are problems.

The committed one is `schemas/openapi.json`; `aidtrail schemas openapi` prints it, and a running gateway serves that of its own services.
"""

import json
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_problem.error import StatusProblem

from aidtrail import contract
from aidtrail.domain import events as e
from aidtrail.domain.authority import SUBMITTERS
from aidtrail.gateway import problems
from aidtrail.routes import ABOUT, ROUTES, Route
from aidtrail.signatures import PAYLOAD_TYPE

VERSION = "1"
"""That of the paths, /v1, and not the release's: a release that changes nothing here leaves the document as it is."""

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
    "Person": _object({"actor_id": _TEXT, "party_id": _TEXT, "roles": _TEXTS}, description="An actor in service."),
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

EXAMPLES = {"donation_id": "KRCS-2026-0042", "approval_id": "A1", "condition_id": "C1", "disbursement_id": "D1"}
"""Of what stands in paths."""

_ANSWERS = {
    "listDonations": "Donations", "getDonation": "Donation", "getHistory": "History", "listApprovals": "Approvals",
    "listEntries": "Entries", "getSubmission": "Submission", "getMe": "Person",
}  # fmt: skip
_STREAMED = {
    "listDonations": ("text/csv", "application/x-ndjson"), "getHistory": ("text/csv", "application/x-ndjson"),
    "listApprovals": ("text/csv", "application/x-ndjson"), "listEntries": ("text/csv", "application/x-ndjson", "text/event-stream"),
}  # fmt: skip
_READING = (problems.Unauthenticated, problems.NotFound, problems.Malformed, problems.HeadersTooLarge, problems.ViewsUnavailable)
_PROBLEMS = {
    "getSubmission": (*_READING, problems.LogUnavailable),
    "getMe": (problems.Unauthenticated, problems.Malformed, problems.HeadersTooLarge),
}
_SUBMITTING = (
    problems.Unauthenticated, problems.NotPermitted, problems.NotFound, problems.TooSlow, problems.Refused, problems.TooLarge,
    problems.NotJson, problems.Malformed, problems.KeyReused, problems.HeadersTooLarge, problems.LogUnavailable, problems.ViewsUnavailable,
    problems.Unknown,
)  # fmt: skip

_SECONDS = {"description": "Seconds to wait before the next try", "schema": {"type": "string", "pattern": "^[0-9]+$"}}
_LOCATION = {"description": "Tells what became of it", "schema": {"type": "string", "format": "uri-reference"}}
_NEXT = {"description": 'The next page, as rel="next"; absent on the last one', "schema": _TEXT}
_ETAG = {"description": "The version, and a hash of the answer", "schema": {"type": "string", "pattern": r'^"[0-9]+\.[0-9a-f]{16}"$'}}
_HEADERS: dict[type[StatusProblem], dict[str, Any]] = {
    problems.Unauthenticated: {"WWW-Authenticate": {"description": "RFC 6750", "schema": _TEXT}},
    problems.Unknown: {"Location": _LOCATION, "Retry-After": _SECONDS},
    problems.LogUnavailable: {"Retry-After": _SECONDS},
    problems.ViewsUnavailable: {"Retry-After": _SECONDS},
}

_LINKS = {
    "submission": {"operationId": "getSubmission", "parameters": {"event_id": "$response.body#/event_id"}},
    "donation": {"operationId": "getDonation", "parameters": {"donation_id": "$request.path.donation_id"}},
    "history": {"operationId": "getHistory", "parameters": {"donation_id": "$request.path.donation_id"}},
}
_SUBMITTED = {
    "Admitted": {
        "description": "Admitted; the donation's new status, for those who may see it",
        "headers": {"Location": _LOCATION},
        "content": {"application/json": {"schema": _ref("Admitted")}},
        "links": _LINKS,
    },
    "Taken": {
        "description": "In the log",
        "headers": {"Location": _LOCATION},
        "content": {"application/json": {"schema": _ref("Submission")}},
        "links": _LINKS,
    },
}


def text(document: dict[str, Any]) -> str:
    """The document as JSON, as it is committed."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of what `app` has."""
    document = get_openapi(
        title=app.title, version=VERSION, openapi_version="3.1.0", routes=app.routes,
        summary="Pledges, approvals, disbursements and receipts of humanitarian donations, and where each donation stands",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )  # fmt: skip
    schemas: dict[str, Any] = {**document.setdefault("components", {}).get("schemas", {}), **SCHEMAS}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    responses: dict[str, Any] = dict(_SUBMITTED)
    routes = {route.event.type: route for route in ROUTES}
    for path, methods in document["paths"].items():
        if not path.startswith("/v1/"):
            continue
        for operation in methods.values():
            operation["security"] = [{"accessToken": []}]
            operation["parameters"] = [_parameter(each) for each in operation.get("parameters", ())]
            route = routes.get(operation.pop("x-event", ""))
            if operation["operationId"] == "submitSigned":
                _submit_signed(operation, responses)
            elif route is None:
                _read(operation, responses)
            else:
                _submit(operation, route, schemas, responses)
    document["components"] = {
        "schemas": dict(sorted(schemas.items())),
        "responses": dict(sorted(responses.items())),
        "securitySchemes": {"accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
    }
    return document


def _parameter(made: dict[str, Any]) -> dict[str, Any]:
    """One of FastAPI's, whose optional parameters may be null, which over HTTP nothing can be."""
    schema = {name: value for name, value in made["schema"].items() if name not in ("title", "description")}
    stated = [option for option in schema.pop("anyOf", ()) if option != {"type": "null"}]
    name = made["name"]
    return {
        **made,
        "name": "-".join(word.capitalize() for word in name.split("-")) if made["in"] == "header" else name,
        "schema": {**schema, **(stated[0] if stated else {})},
        **({"example": EXAMPLES[name]} if name in EXAMPLES and made["in"] == "path" else {}),
    }


def _read(operation: dict[str, Any], responses: dict[str, Any]) -> None:
    name = operation["operationId"]
    content: dict[str, Any] = {"application/json": {"schema": _ref(_ANSWERS[name])}}
    content |= {kind: {"schema": _TEXT} for kind in _STREAMED.get(name, ())}
    answer: dict[str, Any] = {"description": "As asked", "content": content}
    operation["responses"] = {"200": answer}
    if name == "getDonation":
        answer["headers"] = {"ETag": _ETAG}
        answer["links"] = {"history": _LINKS["history"]}
        operation["responses"]["304"] = {"description": "What the caller has is the newest", "headers": {"ETag": _ETAG}}
    if name in ("listDonations", "getHistory", "listApprovals"):
        answer["headers"] = {"Link": _NEXT}
        answer["links"] = {
            "first": {"operationId": "getDonation", "parameters": {"donation_id": "$response.body#/items/0/donation_id"}},
        }
    if name == "listEntries":
        answer["headers"] = {"Link": _NEXT}
        answer["links"] = {"next": {"operationId": "listEntries", "parameters": {"after": "$response.body#/after"}}}
    _problems(operation, _PROBLEMS.get(name, _READING), responses)


def _submit(operation: dict[str, Any], route: Route, schemas: dict[str, Any], responses: dict[str, Any]) -> None:
    content = {"schema": body_schema(route, schemas), "examples": _examples_of(route)}
    required = bool(content["schema"]["required"])
    operation["requestBody"] = {"required": required, "content": {"application/json": content}}
    operation["responses"] = {
        status: {"$ref": f"#/components/responses/{name}"} for status, name in (("201", "Admitted"), ("202", "Taken"))
    }
    _problems(operation, _SUBMITTING, responses)


def _submit_signed(operation: dict[str, Any], responses: dict[str, Any]) -> None:
    operation["requestBody"] = {
        "required": True,
        "description": "The submission's own bytes: 0x00, the schema's id, the event in Avro with its signature.",
        "content": {PAYLOAD_TYPE: {}},
    }
    links = {"submission": _LINKS["submission"]}
    operation["responses"] = {status: {**_SUBMITTED[name], "links": links} for status, name in (("201", "Admitted"), ("202", "Taken"))}
    swapped = {problems.NotJson: problems.NotAvro, problems.KeyReused: problems.IdReused}
    _problems(operation, tuple(swapped.get(problem, problem) for problem in _SUBMITTING), responses)


def _problems(operation: dict[str, Any], found: tuple[type[StatusProblem], ...], responses: dict[str, Any]) -> None:
    """The answers that are problems, one for each status; what they have in common over all operations is put into `responses`."""
    by_status: dict[str, list[type[StatusProblem]]] = {}
    for problem in found:
        by_status.setdefault(str(problem.status), []).append(problem)
    for status, those in sorted(by_status.items()):
        name = "Or".join(problem.__name__ for problem in those)
        headers = {header: said for problem in those for header, said in _HEADERS.get(problem, {}).items()}
        examples = {
            problem.__name__: {"value": {"type": problem.type_, "title": problem.title, "status": problem.status}} for problem in those
        }
        responses[name] = {
            "description": ", or ".join(problem.title for problem in those),
            **({"headers": headers} if headers else {}),
            "content": {"application/problem+json": {"schema": _ref("Problem"), "examples": examples}},
        }
        operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}


@cache
def _examples() -> dict[str, Any]:
    """The contract's examples by their names."""
    files = sorted(contract.FOLDER.glob("examples/*.json"), key=lambda path: path.stem)
    return {path.stem: contract.read(path) for path in files}


def _examples_of(route: Route) -> dict[str, Any]:
    """The contract's examples of the event, as bodies."""
    found = {}
    for name, event in _examples().items():
        if event["type"] == route.event.type:
            stated = {field: value for field, value in event.items() if field not in ("type", "meta", *route.fields)}
            found[name] = {"value": {**stated, **{field: event["meta"][field] for field in ABOUT if event["meta"].get(field)}}}
    return found


def body_schema(route: Route, defs: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a request's body; what it refers to is put into `defs`. Times, amounts, hashes and UUIDs are strings."""
    schema = route.event.model_json_schema(ref_template="#/components/schemas/{model}")
    meta = e.Meta.model_json_schema(ref_template="#/components/schemas/{model}")
    for source in (schema, meta):
        for name, definition in source.pop("$defs", {}).items():
            if name not in ("Meta", "Actor", "Source", "LedgerStamp"):
                defs[name] = _strings(definition)
    properties = {name: _strings(field) for name, field in schema["properties"].items() if name != "meta" and name not in route.fields}
    properties |= {name: _strings(field) for name, field in meta["properties"].items() if name in ABOUT}
    properties["occurred_on"] = {**properties["occurred_on"], "description": "When it happened; now, if it is not stated."}
    properties["role"] = {"enum": sorted(SUBMITTERS[route.event]), "description": "Where the actor holds several that would fit."}
    return {
        "title": route.event.type,
        "type": "object",
        "properties": properties,
        "required": [name for name in schema.get("required", ()) if name in properties and name != "meta"],
        "additionalProperties": False,
    }


def path_schema(route: Route, field: str) -> dict[str, Any]:
    """The JSON Schema of a field in the path."""
    found: dict[str, Any] = _strings(route.event.model_json_schema()["properties"][field])
    return found


def _strings(schema: Any) -> Any:
    """As it stands in our JSON: decimals and bytes are strings, and there is one way to write each."""
    if isinstance(schema, list):
        return [_strings(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    options = schema.get("anyOf", ())
    if {option.get("type") for option in options} == {"number", "string"}:
        return {"type": "string", "pattern": r"^[0-9]{1,15}(\.[0-9]{1,4})?$", "examples": ["1000.500"]}
    if schema.get("format") == "binary":
        return {"type": "string", "pattern": "^[0-9a-fA-F]{64}$", "description": "SHA-256 in hexadecimal"}
    return {name: _strings(value) for name, value in schema.items() if name != "title" or not isinstance(value, str)}
