"""The three topics as an AsyncAPI 3.1 document, for tools that make documentation, clients and checks of it.

It is generated from `schemas/` and says nothing that stands only here. The committed one is `schemas/asyncapi.json`, for topics of the
prefix 'donations'; `aidtrail schemas asyncapi` prints that of this installation.
"""

import json
from pathlib import Path
from typing import Any

from aidtrail import contract
from aidtrail.contract import FOLDER
from aidtrail.domain.events import DONATION_ID
from aidtrail.subjects import STRATEGY, events_of
from aidtrail.topics import Topics

VERSION = "3.1.0"
KAFKA_BINDING = "0.5.0"
AVRO = "application/vnd.apache.avro+json;version=1.9.0"
"""The newest version of Avro that AsyncAPI 3.1 lists; schemas are written alike in all of them since."""

TOPIC_SETTINGS: dict[str, object] = {
    "message.timestamp.type": "LogAppendTime",
    "cleanup.policy": ["delete"],
    "retention.ms": -1,
    "retention.bytes": -1,
}

DESCRIPTION = (
    "The life of a donation from pledge to receipt, as facts. Producers submit events; a ledger admits each or refuses it with a reason, "
    "and records one outcome for every submission; anybody may read. A value is 0x00, the id of its schema in four bytes, big-endian, and "
    "one Avro record (Confluent's wire format). Examples are written as JSON for people: amounts and times as strings, hashes in "
    "hexadecimal, nulls left out. Everything else about the wire, and how it may change, is in schemas/README.md."
)

CHANNELS: dict[str, tuple[str, str, str]] = {
    "submitted": (
        "receive",
        "What was claimed",
        "Events as producers wrote them, not yet ruled on. `meta.ledger` is null. The key is the donation id, the partition murmur2 of it.",
    ),
    "recorded": (
        "send",
        "What was ruled",
        "One outcome for each submission: the event with the ledger's stamp in `meta.ledger`, or SubmissionRefused. Only the ledger writes "
        "here. The key is the donation id: a donation's whole life stands in one partition, in order. An entry counts if it is the first "
        "for its submission and continues its donation's chain of `meta.ledger.previous_sha256`; any other is without effect.",
    ),
    "registry": (
        "receive",
        "Who may do what",
        "Parties, actors, mechanisms: written by the operator of the registry, not ruled on. One partition.",
    ),
}
"""For each topic: what Aidtrail does there, its title, its description."""


def document(topics: Topics, folder: Path = FOLDER) -> dict[str, Any]:
    """The document for topics of these names. Its version counts what was published: the second number is the newest schema id."""
    events = events_of(topics)
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "Aidtrail",
            "version": f"1.{max(contract.published(folder))}.0",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/avro",
        "channels": {name: _channel(name, topic, events[topic]) for name, topic in topics._asdict().items()},
        "operations": {f"{CHANNELS[name][0]}-{name}": _operation(name) for name in topics._fields},
        "components": {
            "messages": {event: _message(event, folder) for event in sorted({event for each in events.values() for event in each})}
        },
    }


def text(topics: Topics, folder: Path = FOLDER) -> str:
    """The document as JSON. A message's schema stands in one line: published schemas never change, so a difference shows as a line."""
    made = document(topics, folder)
    schemas = {}
    for event, message in made["components"]["messages"].items():
        schemas[f'"<{event}>"'] = json.dumps(message["payload"]["schema"], ensure_ascii=False)
        message["payload"]["schema"] = f"<{event}>"
    written = json.dumps(made, indent=2, ensure_ascii=False)
    for mark, schema in schemas.items():
        written = written.replace(mark, schema)
    return written + "\n"


def _channel(name: str, topic: str, events: tuple[str, ...]) -> dict[str, Any]:
    _, title, description = CHANNELS[name]
    return {
        "address": topic,
        "title": title,
        "description": description,
        "messages": {event: {"$ref": f"#/components/messages/{event}"} for event in events},
        "bindings": {
            "kafka": {
                **({"partitions": 1} if name == "registry" else {}),
                "topicConfiguration": TOPIC_SETTINGS,
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }


def _operation(name: str) -> dict[str, Any]:
    action, title, _ = CHANNELS[name]
    return {"action": action, "channel": {"$ref": f"#/channels/{name}"}, "summary": f"{title}, as Aidtrail {action}s it"}


def _message(event: str, folder: Path) -> dict[str, Any]:
    newest = contract.latest(event, folder)
    key = {"type": "string", "pattern": DONATION_ID} if newest.schema["fields"][0]["name"] == "meta" else {"type": "string"}
    versions = sorted(entry for entry in contract.published(folder).values() if entry.event == event)
    return {
        "name": event,
        "title": event,
        **({"description": newest.schema["doc"]} if "doc" in newest.schema else {}),
        "payload": {"schemaFormat": AVRO, "schema": newest.schema},
        "bindings": {
            "kafka": {
                "key": key,
                "schemaIdLocation": "payload",
                "schemaIdPayloadEncoding": "confluent",
                "schemaLookupStrategy": STRATEGY,
                "bindingVersion": KAFKA_BINDING,
            }
        },
        "examples": [
            {"name": path.stem, "payload": contract.read(path)}
            for path in sorted(folder.glob("examples/*.json"))
            if path.stem.partition("-")[0] == event
        ],
        "x-schema-ids": [entry.id for entry in versions],
    }
