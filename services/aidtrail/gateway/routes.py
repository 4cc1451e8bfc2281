"""Which event is submitted by which path, in which of the four services: a table. The body of a request is the event's own fields, less
those that stand in the path; who acts is what the access token says, and never a field.
"""

import re
from typing import Any, NamedTuple

from aidtrail.domain import events as e

SERVICES = ("pledges", "approvals", "disbursements", "receipts")


class Route(NamedTuple):
    """`path` is under /v1/donations/{donation_id}; the names in braces are fields of the event."""

    service: str
    path: str
    event: type[e.Event]

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the event that stand in the path."""
        return tuple(re.findall(r"{(\w+)}", self.path))


_APPROVAL, _CONDITION, _PAYMENT = (
    "approvals/{approval_id}",
    "approvals/{approval_id}/conditions/{condition_id}",
    "disbursements/{disbursement_id}",
)

ROUTES = (
    Route("pledges", "pledge", e.PledgeAnnounced),
    Route("pledges", "pledge/confirmation", e.PledgeConfirmed),
    Route("pledges", "pledge/amendments", e.PledgeAmended),
    Route("pledges", "pledge/withdrawal", e.PledgeWithdrawn),
    Route("pledges", "closure", e.DonationClosed),
    Route("pledges", "reopening", e.DonationReopened),
    Route("approvals", _APPROVAL, e.ApprovalRequested),
    Route("approvals", f"{_APPROVAL}/questions", e.ApprovalQuestioned),
    Route("approvals", f"{_APPROVAL}/answers", e.ApprovalAnswered),
    Route("approvals", f"{_APPROVAL}/decisions", e.ApprovalDecided),
    Route("approvals", f"{_APPROVAL}/revocation", e.ApprovalRevoked),
    Route("approvals", f"{_CONDITION}/met", e.ConditionMet),
    Route("approvals", f"{_CONDITION}/breached", e.ConditionBreached),
    Route("disbursements", f"{_PAYMENT}/schedule", e.DisbursementScheduled),
    Route("disbursements", f"{_PAYMENT}/instruction", e.DisbursementInstructed),
    Route("disbursements", f"{_PAYMENT}/release", e.DisbursementReleased),
    Route("disbursements", f"{_PAYMENT}/settlement", e.DisbursementSettled),
    Route("disbursements", f"{_PAYMENT}/rejection", e.DisbursementRejected),
    Route("disbursements", f"{_PAYMENT}/returns", e.DisbursementReturned),
    Route("receipts", f"{_PAYMENT}/receipt", e.FundsReceived),
    Route("receipts", f"{_PAYMENT}/acknowledgements", e.ReceiptAcknowledged),
    Route("receipts", f"{_PAYMENT}/dispute", e.ReceiptDisputed),
    Route("receipts", f"{_PAYMENT}/dispute/resolution", e.DisputeResolved),
    Route("receipts", "utilisation", e.UtilisationReported),
)
"""Every event that people and their services submit; the two expiries are the timekeeper's, refusals the ledger's."""

ABOUT = ("occurred_on", "evidence", "causation_id", "correlation_id")
"""Fields of `meta` that a body may state beside the event's own."""


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
    properties["role"] = {
        "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$", "description": "Where the actor holds several that would fit.",
    }  # fmt: skip
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
