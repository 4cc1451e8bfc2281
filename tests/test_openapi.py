"""The OpenAPI document: that the committed one is what is generated, that it is OpenAPI 3.1, and that its examples are requests that the
gateway reads."""

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from aidtrail import codec, contract
from aidtrail.domain import events as e
from aidtrail.domain.authority import SUBMITTERS
from aidtrail.gateway import openapi, problems
from aidtrail.gateway.app import create
from aidtrail.routes import ROUTES
from tests.pipeline import TOPICS

COMMITTED = contract.FOLDER / "openapi.json"
ROUTE_OF = {route.event.type: route for route in ROUTES}
Document = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Document:
    return create(None, TOPICS).openapi()


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Path, method and operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def bodies(document: Document) -> Iterator[tuple[str, Document]]:
    """The operation's id and its body, where that is application/json."""
    for _, _, operation in operations(document):
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            yield operation["operationId"], operation["requestBody"]["content"]["application/json"]


def validator(document: Document, schema: Document) -> jsonschema_rs.Draft202012Validator:
    """Of a schema of the document, which may refer to its components. Formats count."""
    return jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]}, validate_formats=True)


def faults(document: Document) -> list[str]:
    """What is no OpenAPI 3.1 in it, or does not hold together: the document against OpenAPI's own schema, each JSON Schema in it against
    that of its dialect, each reference, each link, and each parameter of a path."""
    found = [f"{each.instance_path}: {each.message}" for each in jsonschema_rs.Draft202012Validator(OPENAPI_31).iter_errors(document)]
    for where, schema in schemas(document):
        if not jsonschema_rs.meta.is_valid({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}):
            found.append(f"{where}: no JSON Schema")
    text = json.dumps(document)
    for kind, name in set(re.findall(r'"#/components/(\w+)/(\w+)"', text)):
        if name not in document["components"].get(kind, {}):
            found.append(f"#/components/{kind}/{name} is not there")
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    found += [f"{name} stands twice" for name in set(ids) if ids.count(name) > 1]
    found += [f"{name} is no operation" for name in set(re.findall(r'"operationId": "(\w+)", "parameters": {', text)) - set(ids)]
    for path, method, operation in operations(document):
        stated = [each["name"] for each in operation["parameters"] if each["in"] == "path"]
        if sorted(stated) != sorted(re.findall(r"{(\w+)}", path)):
            found.append(f"{method} {path}: its parameters are {stated}")
    return found


def schemas(document: Document) -> Iterator[tuple[str, Document]]:
    yield from document["components"]["schemas"].items()
    for name, body in bodies(document):
        yield name, body["schema"]
    for path, method, operation in operations(document):
        for parameter in operation["parameters"]:
            yield f"{method} {path} {parameter['name']}", parameter["schema"]


def test_the_committed_document_is_what_is_generated(document: Document) -> None:
    assert COMMITTED.read_text(encoding="utf-8") == openapi.text(document), "run 'aidtrail schemas openapi > schemas/openapi.json'"


def test_the_command_prints_the_document() -> None:
    command = [sys.executable, "-c", "from aidtrail.cli import main; main()", "schemas", "openapi"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIDTRAIL_")}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == COMMITTED.read_text(encoding="utf-8")


def test_the_document_is_openapi_3_1(document: Document) -> None:
    found = faults(document)

    count = sum(1 for _ in operations(document))
    print(f"OpenAPI {document['openapi']}: {count} operations, {sum(1 for _ in schemas(document))} schemas, {len(found)} faults")
    assert found == []
    assert count == len(ROUTES) + 8


def test_each_operation_with_a_body_has_the_contracts_examples(document: Document) -> None:
    stems = {path.stem for path in contract.FOLDER.glob("examples/*.json")}

    found = dict(bodies(document))
    assert found.keys() == ROUTE_OF.keys()
    for event, body in found.items():
        assert body["examples"]
        assert set(body["examples"]) == {stem for stem in stems if stem.partition("-")[0] == event}


def test_each_example_is_what_its_schema_says_and_what_the_gateway_reads(document: Document) -> None:
    count = 0
    for name, body in bodies(document):
        route, valid = ROUTE_OF[name], validator(document, body["schema"])
        for example in body["examples"].values():
            valid.validate(example["value"])
            assert event_of(route.event, dict(example["value"])).type == name
            count += 1
    print(f"{count} examples")
    assert count >= len(ROUTES)


def event_of(kind: type[e.Event], stated: dict[str, Any]) -> Any:
    """As the gateway makes it of a body, whose path is made of the document's examples."""
    about = {field: stated.pop(field) for field in ("occurred_on", "evidence", "causation_id", "correlation_id") if field in stated}
    meta = {
        "event_id": "0199b896-93a0-7915-91fc-d6f07823cb87", "donation_id": openapi.EXAMPLES["donation_id"],
        "occurred_on": "2026-01-05T08:00:00Z", "actor": {"actor_id": "a", "party_id": "P", "role": "r"}, "source": {"channel": "http"},
    }  # fmt: skip
    fields = {field: openapi.EXAMPLES[field] for field in ROUTE_OF[kind.type].fields}
    return codec.from_object({"type": kind.type, "meta": {**meta, **about}, **fields, **stated})


def test_each_example_in_a_path_is_one(document: Document) -> None:
    for path, _, operation in operations(document):
        for parameter in operation["parameters"]:
            if parameter["in"] == "path" and path != "/v1/submissions/{event_id}":
                validator(document, parameter["schema"]).validate(parameter["example"])


def test_each_example_of_an_answer_is_what_its_schema_says(document: Document) -> None:
    count = 0
    for response in document["components"]["responses"].values():
        content = response["content"].get("application/problem+json", {"examples": {}})
        for example in content["examples"].values():
            validator(document, content["schema"]).validate(example["value"])
            count += 1
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            validator(document, {"$ref": f"#/components/schemas/{name}"}).validate(example)
            count += 1
    print(f"{count} examples")
    assert count >= len(problems.ALL) - 1  # all but the service's own mistakes


def test_a_role_is_one_in_which_the_rules_take_the_event(document: Document) -> None:
    for name, body in bodies(document):
        assert set(body["schema"]["properties"]["role"]["enum"]) == SUBMITTERS[ROUTE_OF[name].event]


def test_a_service_that_runs_alone_describes_itself_alone() -> None:
    alone = create(None, TOPICS, ["approvals"]).openapi()

    tags = {tag for _, method, operation in operations(alone) for tag in operation["tags"] if method == "post"}
    assert tags == {"approvals", "signed"}
    assert faults(alone) == []


# --- so that no faults above means something ------------------------------------------------------------------------------------------


def an_answer_that_is_not_there(document: Document) -> None:
    del document["components"]["responses"]["NotPermitted"]


def a_schema_that_is_not_there(document: Document) -> None:
    del document["components"]["schemas"]["Money"]


def a_field_that_is_none(document: Document) -> None:
    document["paths"]["/v1/donations"]["get"]["returns"] = {}


def a_type_that_is_none(document: Document) -> None:
    document["components"]["schemas"]["Money"]["properties"]["amount"]["type"] = "decimal"


def a_parameter_that_is_not_in_the_path(document: Document) -> None:
    document["paths"]["/v1/donations/{donation}"] = document["paths"].pop("/v1/donations/{donation_id}")


def a_link_that_leads_nowhere(document: Document) -> None:
    document["paths"]["/v1/donations"]["get"]["responses"]["200"]["links"]["first"]["operationId"] = "readDonation"


def a_name_that_stands_twice(document: Document) -> None:
    document["paths"]["/v1/approvals"]["get"]["operationId"] = "listDonations"


@pytest.mark.parametrize(
    "break_it",
    [
        an_answer_that_is_not_there, a_schema_that_is_not_there, a_field_that_is_none, a_type_that_is_none,
        a_parameter_that_is_not_in_the_path, a_link_that_leads_nowhere, a_name_that_stands_twice,
    ],
    ids=lambda each: each.__name__,
)  # fmt: skip
def test_what_is_wrong_is_found(document: Document, break_it: Callable[[Document], None]) -> None:
    broken = copy.deepcopy(document)
    break_it(broken)

    assert faults(broken)
