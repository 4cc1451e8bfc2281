"""Whether `schemas/` keeps what the contract promises: every check of `aidtrail schemas check`, as a table of rules.

A rule is a function from the folder to findings, one line each: which file, what was expected, what was found. Rules stand in steps,
because some rely on others: where a step finds something the later ones are not asked.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import fastavro
from pydantic import ValidationError

from aidtrail import agreement, avro, codec, compatibility, contract
from aidtrail.compatibility import Schema
from aidtrail.contract import FOLDER, NAMESPACE, Published
from aidtrail.domain.events import CLASSES, DONATION_EVENTS, EVENTS, Event, LedgerStamp
from aidtrail.errors import AidtrailError, ContractError, MalformedError

Rule = Callable[[Path], Iterator[str]]

PUBLISH = "(run 'aidtrail schemas publish')"
STAMP = LedgerStamp(
    version=7,
    submitted_offset=300,
    previous_outcome_sha256=codec.sha256(b"any outcome"),
    recorded_at=datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
    previous_sha256=codec.sha256(b"any head"),
    registry_offset=40,
    rules=1,
)
"""Any stamp whose numbers differ, so that two fields in each other's place show."""


def check(folder: Path = FOLDER) -> list[str]:
    """Every finding, one line each; none if the folder is as the contract promises."""
    return [finding for findings in report(folder).values() for finding in findings]


def report(folder: Path = FOLDER) -> dict[str, list[str]]:
    """The findings by the name of the rule; rules that found nothing are left out."""
    for step in STEPS:
        found = {rule.__name__: findings for rule in step if (findings := list(rule(folder)))}
        if found:
            return found
    return {}


def _finding(file: str, expected: str, found: object) -> str:
    return f"schemas/{file}: expected {expected}, found {found}"


# --- what the files are -------------------------------------------------------------------------------------------------------------


def files_are_json(folder: Path) -> Iterator[str]:
    for path in (folder / "ids.json", *sorted(folder.glob("*/*.avsc"))):
        try:
            contract.read(path)
        except ContractError as error:
            yield str(error)


def rows_of_ids_have_four_fields(folder: Path) -> Iterator[str]:
    shape = {"id": int, "event": str, "version": int, "sha256": str}
    for number, row in enumerate(contract.read(folder / "ids.json"), 1):
        found = {key: type(value) for key, value in row.items()} if isinstance(row, dict) else row
        if found != shape:
            yield _finding("ids.json", f"id, event, version and sha256 in row {number}", row)


def published_files_are_those_of_ids(folder: Path) -> Iterator[str]:
    listed = {f"{row['event']}.v{row['version']}.avsc" for row in contract.read(folder / "ids.json")}
    there = {path.name for path in (folder / "published").iterdir()}
    for name in sorted(listed - there):
        yield _finding(f"published/{name}", "the file that ids.json lists", "none")
    for name in sorted(there - listed):
        yield _finding(f"published/{name}", "a row for it in ids.json", "none")


def files_have_the_name_of_what_they_define(folder: Path) -> Iterator[str]:
    for path in sorted([*folder.glob("types/*"), *folder.glob("events/*")]):
        schema = contract.read(path) if path.suffix == ".avsc" else {}
        name = f"{schema.get('namespace')}.{schema.get('name')}" if isinstance(schema, dict) else schema
        if name != f"{NAMESPACE}.{path.stem}":
            yield _finding(f"{path.parent.name}/{path.name}", f"a schema named {NAMESPACE}.{path.stem}", name)


def schemas_parse(folder: Path) -> Iterator[str]:
    try:
        sources = contract.sources(folder)
    except ContractError as error:
        yield str(error)
        return
    files = {f"events/{event}.avsc": schema for event, schema in sources.items()}
    files |= {entry.path: entry.schema for entry in contract.read_published(folder).values()}
    for file, schema in files.items():
        try:
            fastavro.parse_schema(schema)
        except Exception as error:  # fastavro raises its own, KeyError and more, as the schema may be anything
            yield _finding(file, "a schema that stands alone and that Avro accepts", f"{type(error).__name__}: {error}")
            continue
        for record, name in _repeated_fields(schema):
            yield _finding(file, f"each field of {record} once", f"{name} twice")


def _repeated_fields(schema: Schema) -> Iterator[tuple[str, str]]:
    if isinstance(schema, list):
        for branch in schema:
            yield from _repeated_fields(branch)
    if isinstance(schema, dict):
        names = Counter(field["name"] for field in schema.get("fields", ()))
        yield from ((schema["name"], name) for name, times in names.items() if times > 1)
        for inner in (schema.get("type"), schema.get("items"), *schema.get("fields", ())):
            yield from _repeated_fields(inner)


# --- what is published --------------------------------------------------------------------------------------------------------------


def ids_and_versions_count_from_one(folder: Path) -> Iterator[str]:
    """A row is only ever added at the end: so no id is given twice, and none to another schema."""
    versions: Counter[str] = Counter()
    for number, row in enumerate(contract.read(folder / "ids.json"), 1):
        versions[row["event"]] += 1
        expected = {"id": number, "version": versions[row["event"]]}
        found = {key: row[key] for key in expected}
        if found != expected:
            yield _finding("ids.json", f"{expected} for {row['event']} in row {number}", found)


def published_files_never_change(folder: Path) -> Iterator[str]:
    for row in contract.read(folder / "ids.json"):
        name = f"{row['event']}.v{row['version']}.avsc"
        found = contract.fingerprint((folder / "published" / name).read_bytes())
        if found != row["sha256"]:
            yield _finding(f"published/{name}", f"the file as it was published, SHA-256 {row['sha256'][:16]}...", f"{found[:16]}...")


def events_are_published(folder: Path) -> Iterator[str]:
    latest = _latest(folder)
    for event, schema in contract.sources(folder).items():
        if event not in latest:
            yield _finding(f"events/{event}.avsc", f"a published version {PUBLISH}", "none")
        elif latest[event].schema != schema:
            yield _finding(f"events/{event}.avsc", f"the same as in {latest[event].path} {PUBLISH}", "a change")


def types_are_used(folder: Path) -> Iterator[str]:
    texts = {path: path.read_text(encoding="utf-8") for path in [*folder.glob("types/*.avsc"), *folder.glob("events/*.avsc")]}
    for path in sorted(folder.glob("types/*.avsc")):
        if not any(f'"{NAMESPACE}.{path.stem}"' in text for text in texts.values()):
            yield _finding(f"types/{path.name}", "an event that uses it", "none")


# --- models and schemas say the same ------------------------------------------------------------------------------------------------


def events_have_a_model_and_a_schema(folder: Path) -> Iterator[str]:
    there = {path.stem for path in folder.glob("events/*.avsc")}
    for event in sorted(EVENTS.keys() - there):
        yield _finding(f"events/{event}.avsc", f"the schema of {event} in domain/events.py", "none")
    for event in sorted(there - EVENTS.keys()):
        yield _finding(f"events/{event}.avsc", f"a class {event} in domain/events.py", "none")


def models_and_schemas_agree(folder: Path) -> Iterator[str]:
    """Names, types, logical types, defaults and symbols, in both directions, of every event and of every type that a field has."""
    events = {path.stem: contract.read(path) for path in sorted(folder.glob("events/*.avsc"))}
    types = {path.stem: contract.read(path) for path in sorted(folder.glob("types/*.avsc"))}
    for file, expected, found in agreement.differences(EVENTS, events, types):
        yield _finding(file, expected, found)


def meta_is_first_and_ledger_its_last(folder: Path) -> Iterator[str]:
    """The ledger splices its stamp in where the submission says null: at a place that must be found in every event alike. The signature is
    found by it, just before."""
    for entry in contract.read_published(folder).values():
        if entry.event in DONATION_EVENTS:
            first = entry.schema["fields"][0]
            if first["name"] != "meta":
                yield _finding(entry.path, "meta as the first field", first["name"])
                continue
            names = [field["name"] for field in first["type"]["fields"]]
            if names[-1] != "ledger":
                yield _finding(entry.path, "ledger as the last field of Meta", names[-1])
            elif "signature" in names[:-2]:
                yield _finding(entry.path, "signature as the field of Meta before ledger", names[-2])


# --- versions -----------------------------------------------------------------------------------------------------------------------


def versions_read_one_another(folder: Path) -> Iterator[str]:
    """FULL_TRANSITIVE: Avro's schema resolution between all versions of an event, in both directions."""
    for reader, writer in _pairs(folder):
        for problem in compatibility.unreadable(reader.schema, writer.schema):
            yield f"schemas/{reader.path} cannot read {writer.path}: {problem}"


def meanings_never_change(folder: Path) -> Iterator[str]:
    for older, newer in _pairs(folder):
        if older.version < newer.version:
            for problem in compatibility.changed(older.schema, newer.schema):
                yield f"schemas/{newer.path} changes a meaning of {older.path}: {problem}"


def versions_can_be_decoded(folder: Path) -> Iterator[str]:
    latest = _latest(folder)
    for entry in contract.read_published(folder).values():
        try:
            for classes in (None, CLASSES):
                avro.compile_decoder(entry.schema, latest[entry.event].schema, mark="meta.ledger", classes=classes)
        except (ContractError, RecursionError) as error:
            yield _finding(entry.path, "types that avro.py can decode", error)


# --- examples -----------------------------------------------------------------------------------------------------------------------


def every_event_has_an_example(folder: Path) -> Iterator[str]:
    shown = {_event_of(path) for path in folder.glob("examples/*")}
    for event in sorted(EVENTS.keys() - shown):
        yield _finding(f"examples/{event}.json", f"an example of {event}", "none")


def every_example_is_of_an_event(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("examples/*")):
        if path.suffix != ".json" or _event_of(path) not in EVENTS:
            yield _finding(f"examples/{path.name}", "<Event>.json or <Event>-<what>.json", "the name of no event")


def examples_survive_the_wire(folder: Path) -> Iterator[str]:
    latest = _latest(folder)
    for path, event in _examples(folder):
        if isinstance(event, MalformedError):
            yield f"schemas/examples/{path.name}: {event}"
        elif event.type != _event_of(path):
            yield _finding(f"examples/{path.name}", f"an event of type {_event_of(path)}", event.type)
        else:
            try:
                back = _decoded(_encoded(event, latest), event, latest)[0]
            except (AidtrailError, ValidationError, ValueError, OverflowError) as error:
                yield _finding(f"examples/{path.name}", "bytes that can be decoded", error)
                continue
            if back != event:
                yield _finding(f"examples/{path.name}", f"the same after encoding and decoding, {event!r}", repr(back))


def stamps_are_spliced_in_as_avro_writes_them(folder: Path) -> Iterator[str]:
    latest = _latest(folder)
    for path, event in _examples(folder):
        if isinstance(event, Event) and event.meta.ledger is None:
            submission = _encoded(event, latest)
            spliced = codec.stamped(submission, _decoded(submission, event, latest)[1], STAMP)
            whole = _encoded(event.model_copy(update={"meta": event.meta.model_copy(update={"ledger": STAMP})}), latest)
            if spliced != whole:
                yield _finding(f"examples/{path.name}", f"the entry 0x{whole.hex()}", f"0x{spliced.hex()}")


STEPS: tuple[tuple[Rule, ...], ...] = (
    (files_are_json,),
    (rows_of_ids_have_four_fields, files_have_the_name_of_what_they_define),
    (published_files_are_those_of_ids, ids_and_versions_count_from_one),
    (schemas_parse,),
    (
        published_files_never_change,
        events_are_published,
        types_are_used,
        events_have_a_model_and_a_schema,
        models_and_schemas_agree,
        meta_is_first_and_ledger_its_last,
    ),
    (versions_read_one_another, meanings_never_change),
    (versions_can_be_decoded,),
    (every_event_has_an_example, every_example_is_of_an_event),
    (examples_survive_the_wire,),
    (stamps_are_spliced_in_as_avro_writes_them,),
)


def _latest(folder: Path) -> dict[str, Published]:
    """The newest version of each event."""
    return {entry.event: entry for entry in sorted(contract.read_published(folder).values(), key=lambda entry: entry.version)}


def _pairs(folder: Path) -> Iterator[tuple[Published, Published]]:
    entries = contract.read_published(folder).values()
    return ((one, other) for one in entries for other in entries if one.event == other.event and one is not other)


def _event_of(path: Path) -> str:
    return path.stem.partition("-")[0]


def _examples(folder: Path) -> Iterator[tuple[Path, codec.AnyEvent | MalformedError]]:
    for path in sorted(folder.glob("examples/*.json")):
        try:
            yield path, codec.from_json(path.read_bytes())
        except MalformedError as error:
            yield path, error


def _encoded(event: codec.AnyEvent, latest: dict[str, Published]) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, latest[event.type].schema, event.model_dump())
    return body.getvalue()


def _decoded(body: bytes, event: codec.AnyEvent, latest: dict[str, Published]) -> tuple[codec.AnyEvent, int]:
    schema = latest[event.type].schema
    values, ledger_at = avro.compile_decoder(schema, schema, mark="meta.ledger")(body, 0)
    return type(event).model_validate(values), ledger_at
