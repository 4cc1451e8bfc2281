"""Whether the pydantic models and the Avro schemas say the same. Each is put into words, field by field, and the words are compared.

A type that a field names is compared once, by itself, so that a difference is told once and of the file that it is in.
"""

from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from enum import StrEnum
from types import NoneType
from typing import Annotated, Any, get_args, get_origin
from uuid import UUID

from pydantic import AwareDatetime, BaseModel
from pydantic.fields import FieldInfo

from aidtrail.compatibility import Schema
from aidtrail.contract import NAMESPACE
from aidtrail.domain.money import SCALE

Model = type[BaseModel] | type[StrEnum]
Difference = tuple[str, str, str]
"""A file of `schemas/`, what the model lets expect of it, what was found."""

SCALARS: dict[object, str] = {
    bool: "boolean",
    int: "int or long",
    str: "string",
    UUID: "string uuid",
    date: "int date",
    AwareDatetime: "long timestamp",
    Decimal: f"bytes decimal(19,{SCALE})",
}
"""What a field of a model says about its Avro type. Which width a number or a time has is the schema's business."""


def differences(models: Mapping[str, type[BaseModel]], events: dict[str, Schema], types: dict[str, Schema]) -> Iterator[Difference]:
    """What models and schemas of the same names do not agree on, with all the types that the models' fields have."""
    found: dict[str, Model] = {}
    for event in events.keys() & models.keys():
        yield from _record(f"events/{event}.avsc", models[event], events[event], types, found)
    done: set[str] = set()
    while left := found.keys() - done:
        for name in sorted(left):
            done.add(name)
            yield from _type(f"types/{name}.avsc", found[name], types.get(name), types, found)


def _type(file: str, model: Model, schema: Schema | None, types: dict[str, Schema], found: dict[str, Model]) -> Iterator[Difference]:
    if schema is None:
        yield (file, f"the schema of {model.__name__} in domain", "none")
    elif issubclass(model, BaseModel):
        yield from _record(file, model, schema, types, found)
    else:
        symbols, written = sorted(member.value for member in model), sorted(schema.get("symbols", ()))
        if symbols != written:
            yield (file, f"the symbols {', '.join(symbols)}", ", ".join(written))


def _record(file: str, model: type[BaseModel], schema: Schema, types: dict[str, Schema], found: dict[str, Model]) -> Iterator[Difference]:
    written = {field["name"]: field for field in schema.get("fields", ())}
    for name in written.keys() - model.model_fields.keys():
        yield (file, f"no field {name}, as {model.__name__} has none in domain", "one")
    for name, info in model.model_fields.items():
        if name not in written:
            yield (file, f"a field {name}, as {model.__name__} has one in domain", "none")
            continue
        expected, stated = _said_by_model(info.annotation, info.metadata, found), _said_by_schema(written[name]["type"], types)
        if expected != stated:
            yield (file, f"{expected} for {name}", stated)
        defaults = _default_of_model(info), written[name].get("default", "no default")
        if defaults[0] != defaults[1]:
            yield (file, f"{defaults[0]!r} as the default of {name}", repr(defaults[1]))


def _said_by_model(annotation: Any, metadata: list[Any], found: dict[str, Model]) -> str:
    """The Avro type of a field, in words; models and enums that it names are added to `found`."""
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        metadata = [inner for item in metadata for inner in (item.metadata if isinstance(item, FieldInfo) else [item])]
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple:
        return f"array of {_said_by_model(arguments[0], [], found)}"
    if NoneType in arguments:
        return f"null or {_said_by_model(next(one for one in arguments if one is not NoneType), [], found)}"
    if annotation is bytes:
        sizes = {getattr(item, "max_length", None) for item in metadata} - {None}
        return f"fixed {', '.join(map(str, sizes))}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel | StrEnum):
        found[annotation.__name__] = annotation
        return annotation.__name__
    return SCALARS.get(annotation, f"{annotation}, which has no Avro type here (agreement.SCALARS)")


def _said_by_schema(schema: Schema, types: dict[str, Schema]) -> str:
    if isinstance(schema, list):
        return " or ".join(_said_by_schema(branch, types) for branch in schema)
    if isinstance(schema, str):
        name = schema.removeprefix(f"{NAMESPACE}.")
        if types.get(name, {}).get("type") == "fixed":
            return f"fixed {types[name]['size']}"
        return "int or long" if name in ("int", "long") else name
    if schema["type"] == "array":
        return f"array of {_said_by_schema(schema['items'], types)}"
    logical = schema.get("logicalType", "")
    if logical in ("timestamp-micros", "timestamp-millis"):
        logical = "timestamp"
    if logical == "decimal":
        logical += f"({schema['precision']},{schema.get('scale', 0)})"
    return f"{schema['type']} {logical}".rstrip()


def _default_of_model(info: FieldInfo) -> object:
    if info.is_required():
        return "no default"
    default = info.get_default(call_default_factory=True, validated_data={})
    return default.value if isinstance(default, StrEnum) else list(default) if isinstance(default, tuple) else default
