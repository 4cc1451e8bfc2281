"""Whether two versions of an event's schema can live side by side in one log for ever.

Avro's half is schema resolution (Avro 1.12 specification, "Schema Resolution"). The other half is ours: Avro does not look at what a field
means, so that it would let a decimal of scale 2 be read as one of scale 4.
"""

from collections.abc import Iterator
from typing import Any

Schema = Any
"""An Avro schema as JSON: a name, a union (list) or an object."""

PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}
"""Avro 1.12: what a value of the type on the left may be read as."""

MEANING = ("logicalType", "precision", "scale")
"""What never changes. Nor does the size of a fixed, but that is Avro's own rule."""

FROZEN = "LedgerStamp"
"""The record that the ledger splices into submissions of every version (`codec.stamped`): it never changes at all."""


def unreadable(reader: Schema, writer: Schema) -> list[str]:
    """Why a reader with one schema cannot read all that was written with the other: each line says where, expected and found."""
    return list(_unreadable(expanded(reader), expanded(writer), "record", set()))


def changed(older: Schema, newer: Schema) -> list[str]:
    """What changed its meaning from one version to the next, though Avro may allow it: each line says where, expected and found."""
    return list(_changed(expanded(older), expanded(newer), "record"))


def problems(older: Schema, newer: Schema) -> list[str]:
    """All that keeps the two versions apart, in both directions: empty when they can live side by side."""
    return [
        *(f"the newer cannot read the older: {line}" for line in unreadable(newer, older)),
        *(f"the older cannot read the newer: {line}" for line in unreadable(older, newer)),
        *changed(older, newer),
    ]


def expanded(schema: Schema) -> Schema:
    """The schema with what they name in place of references, `{"type": {...}}` unwrapped and docs left out: alone each part says all.

    A reference to a type within itself stays a name, which no decoder knows."""
    return _expanded(schema, {})


def _expanded(schema: Schema, named: dict[str, Schema]) -> Schema:
    if isinstance(schema, str):
        return named.get(schema, schema)
    if isinstance(schema, list):
        return [_expanded(branch, named) for branch in schema]
    if isinstance(schema["type"], dict | list):
        return _expanded(schema["type"], named)
    tree = {key: value for key, value in schema.items() if key != "doc"}
    if "items" in tree:
        tree["items"] = _expanded(tree["items"], named)
    if "fields" in tree:
        plain = [{key: value for key, value in field.items() if key != "doc"} for field in tree["fields"]]
        tree["fields"] = [{**field, "type": _expanded(field["type"], named)} for field in plain]
    if "name" in tree:
        named[f"{tree.get('namespace')}.{tree['name']}"] = tree
    return tree


def _unreadable(reader: Schema, writer: Schema, where: str, compared: set[tuple[int, int, str]]) -> Iterator[str]:
    """Each pair is compared once at each place: unions of many types of one name would otherwise multiply from level to level."""
    if (pair := (id(reader), id(writer), where)) in compared:
        return
    compared.add(pair)
    if isinstance(writer, list):
        for branch in writer:
            yield from _unreadable(reader, branch, where, compared)
    elif isinstance(reader, list):
        branch = next((branch for branch in reader if _match(branch, writer)), None)
        if branch is None:
            yield f"{where}: expected one of {', '.join(map(_words, reader))}, found {_words(writer)}"
        else:
            yield from _unreadable(branch, writer, where, compared)
    elif not _match(reader, writer):
        yield f"{where}: expected {_words(reader)}, found {_words(writer)}"
    elif _kind(reader) == "array":
        yield from _unreadable(reader["items"], writer["items"], f"{where}[]", compared)
    elif _kind(reader) == "enum":
        unknown = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
        if unknown and "default" not in reader:
            yield f"{where}: expected a symbol of {', '.join(reader['symbols'])}, found {', '.join(unknown)}"
    elif _kind(reader) == "record":
        written = _fields(writer)
        for name, field in _fields(reader).items():
            if name in written:
                yield from _unreadable(field["type"], written[name]["type"], f"{where}.{name}", compared)
            elif "default" not in field:
                yield f"{where}.{name}: expected a default, because the other version has no such field, found none"


def _match(reader: Schema, writer: Schema) -> bool:
    """Avro's rules of which types can be resolved at all; what is inside them comes later."""
    kind = _kind(writer)
    if _kind(reader) != kind:
        return _kind(reader) in PROMOTIONS.get(kind, ())
    if kind == "fixed" and reader["size"] != writer["size"]:
        return False
    return kind not in ("record", "enum", "fixed") or reader["name"] == writer["name"]


def _changed(older: Schema, newer: Schema, where: str) -> Iterator[str]:
    older, newer = _inside(older), _inside(newer)
    for attribute in MEANING:
        before, now = (side.get(attribute) if isinstance(side, dict) else None for side in (older, newer))
        if before != now:
            yield f"{where}: expected {attribute} {before or 'absent'} as before, found {now or 'absent'}"
    kind = _kind(older)
    if kind != _kind(newer):
        return
    if kind == "array":
        yield from _changed(older["items"], newer["items"], f"{where}[]")
    if kind == "enum":
        lost = [symbol for symbol in older["symbols"] if symbol not in newer["symbols"]]
        if lost:
            yield f"{where}: expected every symbol that was ever written, found none for {', '.join(lost)}"
    if kind == "record":
        before, now = _fields(older), _fields(newer)
        if FROZEN in (older["name"], newer["name"]) and older["fields"] != newer["fields"]:
            yield f"{where}: expected the fields of {FROZEN} as they were, {', '.join(before)}, found {', '.join(now)}"
        for name in before.keys() & now.keys():
            yield from _changed(before[name]["type"], now[name]["type"], f"{where}.{name}")
            defaults = [repr(field["default"]) for field in (before[name], now[name]) if "default" in field]
            if len(set(defaults)) > 1:
                yield f"{where}.{name}: expected the default {defaults[0]} as before, found {defaults[1]}"


def _inside(schema: Schema) -> Schema:
    """The type that a union with null makes optional."""
    return next((branch for branch in schema if branch != "null"), "null") if isinstance(schema, list) else schema


def _kind(schema: Schema) -> str:
    return schema if isinstance(schema, str) else "union" if isinstance(schema, list) else str(schema["type"])


def _fields(record: Schema) -> dict[str, Schema]:
    return {field["name"]: field for field in record["fields"]}


def _words(schema: Schema) -> str:
    if isinstance(schema, list):
        return f"a union of {', '.join(map(_words, schema))}"
    kind = _kind(schema)
    if kind in ("record", "enum"):
        return f"{kind} {schema['name']}"
    return f"fixed {schema['name']} of {schema['size']} bytes" if kind == "fixed" else kind
