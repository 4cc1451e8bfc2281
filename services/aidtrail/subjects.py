"""Under which names a Confluent Schema Registry knows the contract, and when two schemas are the same to it.

A subject is one event on one topic: `<topic>-org.aidtrail.<Event>`, Confluent's TopicRecordNameStrategy. Its versions are those of
`schemas/published`, and a schema has the id that stands in records (`schemas/ids.json`), whichever subject it is asked by.
"""

import json
from pathlib import Path
from typing import Any

import fastavro

from aidtrail import contract
from aidtrail.compatibility import Schema
from aidtrail.contract import FOLDER, NAMESPACE, Published
from aidtrail.domain.events import DONATION_EVENTS, REGISTRY_EVENTS, SubmissionRefused
from aidtrail.errors import ContractError
from aidtrail.topics import Topics

STRATEGY = "TopicRecordNameStrategy"
COMPATIBILITY = "FULL_TRANSITIVE"

NAMED = ("record", "enum", "fixed", "error")


def events_of(topics: Topics) -> dict[str, tuple[str, ...]]:
    """The types of event that may stand in each topic. Only the ledger states a refusal, so that none is submitted."""
    recorded = tuple(sorted(DONATION_EVENTS))
    submitted = tuple(event for event in recorded if event != SubmissionRefused.type)
    return {topics.submitted: submitted, topics.recorded: recorded, topics.registry: tuple(sorted(REGISTRY_EVENTS))}


def subjects(topics: Topics, folder: Path = FOLDER) -> dict[str, tuple[Published, ...]]:
    """The published versions of every subject, the first at index 0; sorted by the subject's name."""
    versions: dict[str, list[Published]] = {}
    for entry in sorted(contract.published(folder).values(), key=lambda entry: entry.version):
        versions.setdefault(entry.event, []).append(entry)
    found = {f"{topic}-{NAMESPACE}.{event}": tuple(versions[event]) for topic, events in events_of(topics).items() for event in events}
    return dict(sorted(found.items()))


def wire(schema: Schema) -> str:
    """A schema as a registry hands it over: JSON in one line."""
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def canonical(schema: Schema) -> Schema:
    """The schema with every name and reference in full, so that schemas that differ only in how they are written are equal.

    A registry and the code generators of other languages leave out a namespace where it is that of the type around, and order attributes
    as they like. Comments count, as they do to a registry. Raises ContractError for what is no Avro schema that stands alone, and
    for a union that holds a type twice, which fastavro lets pass (Avro 1.12 specification, "Unions")."""
    try:
        return _canonical(fastavro.parse_schema(schema))
    except ContractError:
        raise
    except Exception as error:  # fastavro raises its own, KeyError and more, as the schema may be anything
        raise ContractError(f"expected an Avro schema that stands alone, found {type(error).__name__}") from None


def parse(text: str) -> Schema:
    """The canonical form of a schema's JSON. Raises ContractError as `canonical` does."""
    try:
        return canonical(json.loads(text))
    except (ValueError, RecursionError):
        raise ContractError("expected an Avro schema as JSON, found other text") from None


def _canonical(schema: Any) -> Schema:
    if isinstance(schema, list):
        return _union([_canonical(branch) for branch in schema])
    if not isinstance(schema, dict):
        return schema
    if schema.keys() == {"type"}:  # {"type": "string"} says what "string" says
        return _canonical(schema["type"])
    written = {key: value for key, value in schema.items() if not key.startswith("__")}  # fastavro's own marks
    if written["type"] in NAMED:
        namespace, _, name = written["name"].rpartition(".")
        written |= {"namespace": namespace, "name": name}
    for key in ("type", "items", "values"):
        if key in written and not isinstance(written[key], str):
            written[key] = _canonical(written[key])
    if "fields" in written:
        written["fields"] = [_field(field) for field in written["fields"]]
    return written


def _union(branches: list[Schema]) -> list[Schema]:
    """The branches, if they are of different types: a named type is told by its full name, any other by its kind."""
    kinds = [_told_by(branch) for branch in branches]
    if "union" in kinds or len(set(kinds)) < len(kinds):
        raise ContractError("expected a union of different types that are no unions, found another")
    return branches


def _told_by(branch: Schema) -> str:
    while isinstance(branch, dict) and not isinstance(branch["type"], str):
        branch = branch["type"]
    if isinstance(branch, list):
        return "union"
    if isinstance(branch, str):
        return branch
    return f"{branch['namespace']}.{branch['name']}".lstrip(".") if branch["type"] in NAMED else str(branch["type"])


def _field(field: dict[str, Any]) -> dict[str, Any]:
    return {**field, "type": _canonical(field["type"])}
