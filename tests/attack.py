"""What schemathesis is told beside the OpenAPI document: it loads this file as SCHEMATHESIS_HOOKS."""

import json
import unicodedata

import schemathesis
from schemathesis.checks import CHECKS, load_all_checks

from aidtrail.domain.events import COMPOSED, PLAIN

load_all_checks()
(accepted,) = CHECKS.get_by_names(["positive_data_acceptance"])
(rejected,) = CHECKS.get_by_names(["negative_data_rejection"])

BEYOND_SCHEMAS = (
    "a signed event in Avro",  # which has a schema of its own
    "Idempotency-Key used for another request",
    COMPOSED,
    "a whole number, or an amount as a string such as '1000.500'",  # to JSON Schema 4.0 is a whole number
)
"""Why a request is not taken although no JSON Schema can say so."""


@schemathesis.serializer("application/vnd.aidtrail.event+avro")
def as_bytes(context: schemathesis.SerializationContext, value: object) -> bytes:
    """Whatever was thought of, as a body that is no event."""
    return value if isinstance(value, bytes) else json.dumps(value, default=str).encode()


@schemathesis.check
def valid_requests_are_accepted(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> bool | None:
    """As `positive_data_acceptance`."""
    if response.status_code == 422 and any(reason in response.text for reason in BEYOND_SCHEMAS):
        return None
    if response.status_code == 422 and PLAIN in response.text and _has_unassigned(case):
        return None  # schemathesis takes some characters that are none yet for letters or marks
    return accepted(ctx, response, case)


@schemathesis.check
def invalid_requests_are_rejected(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> bool | None:
    """As `negative_data_rejection`, which does not know that too much is rejected as well."""
    return None if response.status_code in (413, 431) else rejected(ctx, response, case)


def _has_unassigned(case: schemathesis.Case) -> bool:
    return any(unicodedata.category(letter) == "Cn" for letter in json.dumps(case.body, ensure_ascii=False))
