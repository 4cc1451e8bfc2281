"""The contract: the Avro schemas of `schemas/`, which any language can read without Python.

`types/` and `events/` are what people edit: one file a named type, events refer to types by name. `published/` is what is on the wire: one
self-contained file for every version of every event, never changed again, with a stable id and its SHA-256 in `ids.json`. That all this
holds, and that the events of `domain.events` say the same, is checked by `conformance.check`.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from aidtrail.compatibility import Schema, problems
from aidtrail.errors import ContractError

FOLDER = Path(__file__).parent / "schemas"
NAMESPACE = "org.aidtrail"


class Published(NamedTuple):
    """One version of one event's schema. `id` stands in every record that was written with it."""

    id: int
    event: str
    version: int
    schema: Schema

    @property
    def path(self) -> str:
        return f"published/{self.event}.v{self.version}.avsc"


@cache
def published(folder: Path = FOLDER) -> dict[int, Published]:
    """Every published schema by its id, read once in the life of a process."""
    return read_published(folder)


def read_published(folder: Path) -> dict[int, Published]:
    """Every published schema by its id, as the files say now."""
    found = [Published(row["id"], row["event"], row["version"], None) for row in read(folder / "ids.json")]
    return {entry.id: entry._replace(schema=read(folder / entry.path)) for entry in found}


@cache
def latest(event: str, folder: Path = FOLDER) -> Published:
    """The version of an event's schema that producers write today."""
    versions = [entry for entry in published(folder).values() if entry.event == event]
    if not versions:
        raise ContractError(f"no schema is published for {event}: run 'aidtrail schemas publish'")
    return max(versions, key=lambda entry: entry.version)


def sources(folder: Path = FOLDER) -> dict[str, Schema]:
    """The schemas of `events/`, self-contained: each named type of `types/` written out where it is first used."""
    types = {schema["name"]: schema for schema in map(read, sorted((folder / "types").glob("*.avsc")))}
    return {path.stem: _written_out(read(path), types, set()) for path in sorted((folder / "events").glob("*.avsc"))}


def publish(folder: Path = FOLDER) -> list[Published]:
    """Give every event whose source changed since its last version a new version and the next id; returns what is new.

    Raises ContractError, and writes nothing, if a new version could not live beside one of the earlier ones (`compatibility.problems`)."""
    rows: list[dict[str, object]] = read(folder / "ids.json") if (folder / "ids.json").exists() else []
    before = read_published(folder) if rows else {}
    new: list[Published] = []
    for event, schema in sources(folder).items():
        versions = sorted((entry for entry in before.values() if entry.event == event), key=lambda entry: entry.version)
        if versions and versions[-1].schema == schema:
            continue
        for entry in versions:
            for problem in problems(entry.schema, schema):
                raise ContractError(
                    f"schemas/events/{event}.avsc cannot be published beside {entry.path}: {problem}. "
                    "Add fields with a default, take away only such fields, and name what means something else differently"
                )
        new.append(Published(max(before, default=0) + len(new) + 1, event, len(versions) + 1, schema))
    for entry in new:
        text = render(entry.schema) + "\n"
        (folder / entry.path).parent.mkdir(exist_ok=True)
        (folder / entry.path).write_text(text, encoding="utf-8")
        rows.append({"id": entry.id, "event": entry.event, "version": entry.version, "sha256": fingerprint(text.encode())})
    if new:
        lines = ",\n  ".join(json.dumps(row) for row in rows)
        (folder / "ids.json").write_text(f"[\n  {lines}\n]\n", encoding="utf-8")
        published.cache_clear()
        latest.cache_clear()
    return new


def fingerprint(file: bytes) -> str:
    """What `ids.json` says of a published file, and sha256sum as well."""
    return hashlib.sha256(file).hexdigest()


def render(schema: Schema, indent: int = 0) -> str:
    """JSON for people: a record's fields one to a line."""
    if not (isinstance(schema, dict) and schema.get("type") == "record"):
        return _render_inner(schema, indent)
    pad = " " * indent
    head = [f'{pad}  "{key}": {json.dumps(value, ensure_ascii=False)}' for key, value in schema.items() if key != "fields"]
    fields = ",\n".join(f"{pad}    {_render_inner(field, indent + 4)}" for field in schema["fields"])
    return "{\n" + ",\n".join([*head, f'{pad}  "fields": [\n{fields}\n{pad}  ]']) + f"\n{pad}}}"


def _render_inner(value: Schema, indent: int) -> str:
    if isinstance(value, dict):
        if value.get("type") == "record":
            return render(value, indent)
        return "{" + ", ".join(f"{json.dumps(key)}: {_render_inner(item, indent)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_render_inner(item, indent) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _written_out(schema: Schema, types: dict[str, Schema], seen: set[str]) -> Schema:
    if isinstance(schema, str):
        name = schema.removeprefix(NAMESPACE + ".")
        if name == schema or name in seen:
            return schema
        if name not in types:
            raise ContractError(f"schemas/types/{name}.avsc: expected the type that a schema refers to, found none")
        return _written_out(types[name], types, seen)
    if isinstance(schema, list):
        return [_written_out(branch, types, seen) for branch in schema]
    if "name" in schema and "type" in schema and schema["type"] in ("record", "enum", "fixed"):
        seen.add(schema["name"])
    written = dict(schema)
    for key in ("type", "items"):
        if key in written and not (key == "type" and written["type"] in ("record", "enum", "fixed")):
            written[key] = _written_out(written[key], types, seen)
    if "fields" in written:
        written["fields"] = [_written_out(field, types, seen) for field in written["fields"]]
    return written


def read(path: Path) -> Any:
    """The JSON of a file of the folder. Raises ContractError if it is missing or says something else."""
    name = path.name if path.name == "ids.json" else f"{path.parent.name}/{path.name}"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ContractError(f"schemas/{name}: expected a file, found none: restore it, or run 'aidtrail schemas publish'") from None
    except ValueError as error:
        raise ContractError(f"schemas/{name}: expected JSON, found {error}") from None
