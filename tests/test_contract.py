"""The contract: what `aidtrail schemas check` finds, what `publish` refuses, and that two versions of an event read one another."""

import io
import json
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest

from aidtrail import avro, codec, compatibility, conformance, contract
from aidtrail.domain.events import CLASSES, PledgeConfirmed
from aidtrail.errors import ContractError

Change = Callable[[Path], object]

NEW_FIELD = '{"name": "note", "type": "string", "default": "-"}'

FIRST_IDS = [
    "ActorEnrolled",
    "ActorRetired",
    "ApprovalAnswered",
    "ApprovalDecided",
    "ApprovalExpired",
    "ApprovalQuestioned",
    "ApprovalRequested",
    "ApprovalRevoked",
    "ConditionBreached",
    "ConditionMet",
    "DisbursementInstructed",
    "DisbursementRejected",
    "DisbursementReleased",
    "DisbursementReturned",
    "DisbursementScheduled",
    "DisbursementSettled",
    "DisputeResolved",
    "DonationClosed",
    "DonationReopened",
    "FundsReceived",
    "MechanismDefined",
    "MechanismRetired",
    "PartyRegistered",
    "PledgeAmended",
    "PledgeAnnounced",
    "PledgeConfirmed",
    "PledgeExpired",
    "PledgeWithdrawn",
    "ReceiptAcknowledged",
    "ReceiptDisputed",
    "SubmissionRefused",
    "UtilisationReported",
]
"""The ids 1 to 32, which stand in records: no check of the folder alone could see two of them exchanged."""

WITH_SIGNATURES = [event for event in FIRST_IDS if event not in ("ActorRetired", "MechanismDefined", "MechanismRetired")]
"""The ids 33 to 61: version 2 of each event that signatures gave a field to."""

WITH_REFERENCES = ["DisbursementReturned", "FundsReceived"]
"""The ids 62 and 63: version 3 of what can be told of a payment in parts."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(contract.FOLDER, tmp_path / "schemas"))


# --- ways to break a folder ---------------------------------------------------------------------------------------------------------


def written(file: str, text: str) -> Change:
    return lambda folder: (folder / file).write_text(text, encoding="utf-8")


def without(file: str) -> Change:
    return lambda folder: (folder / file).unlink()


def replaced(file: str, old: str, new: str) -> Change:
    """One passage of a file says something else."""

    def change(folder: Path) -> None:
        text = (folder / file).read_text(encoding="utf-8")
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def as_if_always(*changes: Change) -> Change:
    """The changes of types/ and events/, published as the first versions, as if it had never been otherwise."""

    def change(folder: Path) -> None:
        for one in changes:
            one(folder)
        shutil.rmtree(folder / "published")
        (folder / "ids.json").unlink()
        contract.publish(folder)

    return change


def once(event: str, old: str, new: str) -> Change:
    """The first version of an event said something else than the later ones, of which there is at least one."""

    def change(folder: Path) -> None:
        today, second = contract.read(folder / f"published/{event}.v1.avsc"), folder / f"published/{event}.v2.avsc"
        replaced(f"published/{event}.v1.avsc", old, new)(folder)
        if not second.exists():
            second.write_text(contract.render(today) + "\n", encoding="utf-8")
            rows(lambda found: found.append({"id": len(found) + 1, "event": event, "version": 2}))(folder)
        rows(fingerprinted(folder))(folder)

    return change


def once_with(event: str, field: str) -> Change:
    """The first version of an event had one field more."""
    return once(event, '"fields": [', f'"fields": [{field}, ')


def rows(change: Callable[[list[dict[str, Any]]], object]) -> Change:
    def changed(folder: Path) -> None:
        found = contract.read(folder / "ids.json")
        change(found)
        (folder / "ids.json").write_text(json.dumps(found), encoding="utf-8")

    return changed


def type_file(name: str, **schema: object) -> str:
    return json.dumps({"name": name, "namespace": contract.NAMESPACE, **schema})


STAMP_SWAPPED = replaced(
    "types/LedgerStamp.avsc",
    '{"name": "version", "type": "long"},\n    {"name": "submitted_offset", "type": "long"}',
    '{"name": "submitted_offset", "type": "long"},\n    {"name": "version", "type": "long"}',
)


def once_stamp_swapped(folder: Path) -> None:
    once("PledgeExpired", '"name": "version"', '"name": "swapped"')(folder)
    replaced("published/PledgeExpired.v1.avsc", '"submitted_offset"', '"version"')(folder)
    replaced("published/PledgeExpired.v1.avsc", '"swapped"', '"submitted_offset"')(folder)
    rows(fingerprinted(folder))(folder)


def fingerprinted(folder: Path) -> Callable[[list[dict[str, Any]]], None]:
    """Every row says what its file is now."""

    def change(found: list[dict[str, Any]]) -> None:
        for row in found:
            row["sha256"] = contract.fingerprint((folder / f"published/{row['event']}.v{row['version']}.avsc").read_bytes())

    return change


BROKEN: dict[str, dict[str, Change]] = {
    "files_are_json": {
        "an event that is not JSON": written("events/PledgeExpired.avsc", "{"),
        "a type in another encoding": lambda folder: (folder / "types/Leg.avsc").write_bytes(b'{"doc": "\xe9"}'),
        "no ids.json": without("ids.json"),
    },
    "rows_of_ids_have_four_fields": {
        "a row without a fingerprint": rows(lambda found: found[3].pop("sha256")),
        "an id that is text": rows(lambda found: found[3].update(id="4")),
    },
    "published_files_are_those_of_ids": {
        "a listed file is missing": without("published/PledgeExpired.v1.avsc"),
        "a file that is not listed": written("published/PledgeExpired.v9.avsc", "{}"),
        "another kind of file": written("published/notes.txt", ""),
    },
    "files_have_the_name_of_what_they_define": {
        "an event by another name": replaced("events/PledgeExpired.avsc", '"PledgeExpired"', '"PledgeEnded"'),
        "a type in another namespace": replaced("types/Leg.avsc", '"org.aidtrail"', '"org.other"'),
        "a stray file": written("events/notes.txt", ""),
    },
    "schemas_parse": {
        "a type that Avro does not know": replaced("types/Leg.avsc", '"string"', '"text"'),
        "a type without a file": without("types/Leg.avsc"),
        "a default of another type": replaced("events/PledgeAnnounced.avsc", '"default": "financial"', '"default": 7'),
        "a field twice": replaced("types/Leg.avsc", '"to_party"', '"from_party"'),
        "a published file that leans on types": lambda folder: shutil.copy(
            folder / "events/PledgeExpired.avsc", folder / "published/PledgeExpired.v1.avsc"
        ),
    },
    "ids_and_versions_count_from_one": {
        "an id given twice": rows(lambda found: found[5].update(id=5)),
        "an id left out": rows(lambda found: found[-1].update(id=99)),
        "a row in another place": rows(lambda found: found.insert(0, found.pop())),
    },
    "published_files_never_change": {
        "a blank more": replaced("published/PledgeExpired.v1.avsc", ": ", ":  "),
        "another fingerprint": rows(lambda found: found[7].update(sha256="0" * 64)),
    },
    "events_are_published": {
        "a changed comment": replaced("events/PledgeAnnounced.avsc", "OECD-DAC", "OECD DAC"),
        "a changed type": replaced("types/Leg.avsc", "One hop", "A hop"),
    },
    "types_are_used": {
        "a type that nothing has": written("types/Spare.avsc", type_file("Spare", type="enum", symbols=["one"])),
    },
    "events_have_a_model_and_a_schema": {
        "a model without a schema": as_if_always(without("events/PledgeExpired.avsc")),
        "a schema without a model": as_if_always(
            written("events/PledgeForgotten.avsc", type_file("PledgeForgotten", type="record", fields=[{"name": "x", "type": "string"}]))
        ),
    },
    "models_and_schemas_agree": {
        "a field that only the model has": as_if_always(replaced("events/PledgeWithdrawn.avsc", '"reason"', '"motive"')),
        "a field that only the schema has": as_if_always(
            replaced("types/Leg.avsc", '"fields": [', '"fields": [{"name": "note", "type": "string", "default": ""},')
        ),
        "a number for a text": as_if_always(replaced("types/Leg.avsc", '"to_party", "type": "string"', '"to_party", "type": "long"')),
        "a text for a number": as_if_always(replaced("events/MechanismDefined.avsc", '"type": "int"', '"type": "string"')),
        "a date without its logical type": as_if_always(
            replaced("events/DisbursementScheduled.avsc", '{"type": "int", "logicalType": "date"}', '"int"')
        ),
        "a time without its logical type": as_if_always(
            replaced("types/Meta.avsc", '{"type": "long", "logicalType": "timestamp-micros"}', '"long"')
        ),
        "a UUID without its logical type": as_if_always(
            replaced("types/Meta.avsc", '{"type": "string", "logicalType": "uuid"}', '"string"')
        ),
        "a decimal of another scale": as_if_always(replaced("types/Money.avsc", '"scale": 4', '"scale": 2')),
        "a decimal of another precision": as_if_always(replaced("types/Money.avsc", '"precision": 19', '"precision": 18')),
        "a hash of another size": as_if_always(replaced("types/Sha256.avsc", '"size": 32', '"size": 20')),
        "a field that is optional in the schema only": as_if_always(
            replaced("types/Leg.avsc", '"to_party", "type": "string"', '"to_party", "type": ["null", "string"]')
        ),
        "a field that is optional in the model only": as_if_always(
            replaced("types/Leg.avsc", '"parent_leg_id", "type": ["null", "string"], "default": null', '"parent_leg_id", "type": "string"')
        ),
        "an array for one value": as_if_always(
            replaced("types/Leg.avsc", '"to_party", "type": "string"', '"to_party", "type": {"type": "array", "items": "string"}')
        ),
        "one value for an array": as_if_always(
            replaced("events/ApprovalRequested.avsc", '{"type": "array", "items": "string"}', '"string"')
        ),
        "another record": as_if_always(
            replaced("events/ApprovalDecided.avsc", '"items": "org.aidtrail.Condition"', '"items": "org.aidtrail.Leg"'),
            without("types/Condition.avsc"),
        ),
        "a default that only the schema has": as_if_always(
            replaced("events/PledgeWithdrawn.avsc", '"reason", "type": "string"', '"reason", "type": "string", "default": "-"')
        ),
        "a default that only the model has": as_if_always(replaced("events/PledgeAnnounced.avsc", ', "default": "financial"', "")),
        "another default": as_if_always(replaced("events/PledgeAnnounced.avsc", '"default": "financial"', '"default": "in_kind"')),
        "a symbol that only the schema has": as_if_always(replaced("types/Decision.avsc", '"reject"', '"reject", "defer"')),
        "a symbol that only the model has": as_if_always(replaced("types/Decision.avsc", ', "reject"', "")),
    },
    "meta_is_first_and_ledger_its_last": {
        "a field before meta": as_if_always(
            replaced(
                "events/PledgeWithdrawn.avsc",
                '{"name": "meta", "type": "org.aidtrail.Meta"},\n    {"name": "reason", "type": "string"}',
                '{"name": "reason", "type": "string"}, {"name": "meta", "type": "org.aidtrail.Meta"}',
            )
        ),
        "a field after ledger": as_if_always(
            replaced("types/Meta.avsc", '    {"name": "donation_id", "type": "string"},\n', ""),
            replaced("types/Meta.avsc", '"default": null}\n  ]', '"default": null},\n    {"name": "donation_id", "type": "string"}\n  ]'),
        ),
        "a field between signature and ledger": as_if_always(
            replaced("types/Meta.avsc", '    {"name": "donation_id", "type": "string"},\n', ""),
            replaced("types/Meta.avsc", '    {"name": "ledger"', '    {"name": "donation_id", "type": "string"},\n    {"name": "ledger"'),
        ),
    },
    "versions_read_one_another": {
        "a field added without a default": once("PledgeWithdrawn", '"reason", "type": "string"', '"x", "type": "string", "default": ""'),
        "a field taken away that had no default": once_with("ActorRetired", '{"name": "x", "type": "string"}'),
        "a text that was a number": once("PledgeWithdrawn", '"reason", "type": "string"', '"reason", "type": "long"'),
        "a number that was narrower": once("MechanismDefined", '"validity_days", "type": "int"', '"validity_days", "type": "long"'),
        "an optional field that was not": once(
            "DisbursementSettled", '"leg_id", "type": ["null", "string"], "default": null', '"leg_id", "type": "string"'
        ),
        "a symbol more than before": once("ApprovalDecided", '"symbols": ["approve", "reject"]', '"symbols": ["approve"]'),
        "a type by another name": once("DisbursementReturned", '"name": "ReturnKind"', '"name": "Kind"'),
        "an array that was one value": once("ActorEnrolled", '{"type": "array", "items": "string"}', '"string"'),
        "items of another type": once("ActorEnrolled", '"items": "string"', '"items": "int"'),
    },
    "meanings_never_change": {
        "a date that was a plain number": once("DisbursementScheduled", '{"type": "int", "logicalType": "date"}', '"int"'),
        "a time in another unit": once("ActorRetired", "timestamp-micros", "timestamp-millis"),
        "a decimal of another scale": once("DisbursementScheduled", '"scale": 4', '"scale": 2'),
        "a decimal of another precision": once("DisbursementScheduled", '"precision": 19', '"precision": 18'),
        "another default": once("PledgeAnnounced", '"default": "financial"', '"default": "in_kind"'),
        "a stamp with a field more": once("PledgeExpired", '"rules", "type": "int"}', f'"rules", "type": "int"}}, {NEW_FIELD}'),
        "a stamp in another order": once_stamp_swapped,
    },
    "versions_can_be_decoded": {
        "a type that the decoder does not know": once_with("ActorRetired", '{"name": "x", "type": "double", "default": 0.0}'),
        "a union of three": once_with("ActorRetired", '{"name": "x", "type": ["null", "string", "int"], "default": null}'),
        "a map": once_with("ActorRetired", '{"name": "x", "type": {"type": "map", "values": "int"}, "default": {}}'),
        "a logical type that the decoder does not know": once_with(
            "ActorRetired", '{"name": "x", "type": {"type": "int", "logicalType": "time-millis"}, "default": 0}'
        ),
    },
    "every_event_has_an_example": {"no example": without("examples/PledgeExpired.json")},
    "every_example_is_of_an_event": {
        "an example of no event": written("examples/PledgeForgotten.json", "{}"),
        "another kind of file": written("examples/notes.txt", ""),
    },
    "examples_survive_the_wire": {
        "not JSON": written("examples/PledgeExpired.json", "{"),
        "a field that no event has": replaced("examples/PledgeWithdrawn.json", '"reason"', '"motive"'),
        "a number for an amount": replaced("examples/FundsReceived.json", '"15.000"', "15"),
        "an example in the file of another event": lambda folder: shutil.copy(
            folder / "examples/PledgeExpired.json", folder / "examples/PledgeWithdrawn.json"
        ),
        "a time that the wire cuts": replaced("examples/PledgeAnnounced-recorded.json", "02.481Z", "02.481999Z"),
        "a number that the wire cannot hold": replaced("examples/PledgeAnnounced-recorded.json", '"rules": 1', '"rules": 3000000000'),
    },
    "stamps_are_spliced_in_as_avro_writes_them": {"a stamp in another order": as_if_always(STAMP_SWAPPED)},
}


def test_the_folder_as_it_stands_keeps_every_promise() -> None:
    assert conformance.check() == []


def test_a_copy_of_the_folder_keeps_every_promise(folder: Path) -> None:
    assert conformance.check(folder) == []


@pytest.mark.parametrize(("rule", "name"), [(rule, name) for rule, cases in BROKEN.items() for name in cases])
def test_each_broken_promise_is_found_by_its_rule_and_by_no_other(rule: str, name: str, folder: Path) -> None:
    BROKEN[rule][name](folder)

    found = conformance.report(folder)

    assert list(found) == [rule]
    assert all(line.startswith("schemas/") and ("found" in line) and "\n" not in line for line in found[rule])
    assert conformance.check(folder) == found[rule]


def test_every_rule_has_a_broken_folder_that_only_it_finds() -> None:
    rules = [rule.__name__ for step in conformance.STEPS for rule in step]

    print(f"{len(rules)} checks, {sum(map(len, BROKEN.values()))} broken fixtures caught")
    assert sorted(BROKEN) == sorted(rules)


def test_the_first_ids_stay_what_they_are() -> None:
    found = contract.published()

    assert [(found[number].event, found[number].version) for number in range(1, 33)] == [(event, 1) for event in FIRST_IDS]
    assert [(found[number].event, found[number].version) for number in range(33, 62)] == [(event, 2) for event in WITH_SIGNATURES]
    assert [(found[number].event, found[number].version) for number in range(62, 64)] == [(event, 3) for event in WITH_REFERENCES]


def test_the_code_in_the_folders_own_description_reads_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(contract.FOLDER.resolve().parent)
    code = (contract.FOLDER / "README.md").read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"value": codec.encode(example("PledgeAnnounced"))}

    exec(code, names)

    assert names["event"]["amounts"] == [{"amount": Decimal("125000.5000"), "currency": "KWD"}]


# --- publish ------------------------------------------------------------------------------------------------------------------------


WITH_A_NOTE = replaced("events/PledgeConfirmed.avsc", '"default": null}', f'"default": null}}, {NEW_FIELD}')


def test_what_did_not_change_is_not_published_again(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert contract.publish(folder) == []
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_changed_event_gets_the_next_version_and_the_next_id(folder: Path) -> None:
    assert (contract.latest("PledgeConfirmed", folder).version, len(contract.published(folder))) == (2, 63)
    WITH_A_NOTE(folder)

    new = contract.publish(folder)

    assert [(entry.id, entry.event, entry.version) for entry in new] == [(64, "PledgeConfirmed", 3)]
    assert contract.latest("PledgeConfirmed", folder) == new[0] == contract.published(folder)[64]
    assert contract.publish(folder) == []
    assert list(conformance.report(folder)) == ["models_and_schemas_agree"]  # all that is left to do is the model


def test_a_changed_type_gives_a_new_version_to_each_event_that_has_it(folder: Path) -> None:
    replaced("types/Leg.avsc", "One hop", "A hop")(folder)

    assert [(entry.id, entry.event) for entry in contract.publish(folder)] == [(64, "PledgeAmended"), (65, "PledgeAnnounced")]
    assert conformance.check(folder) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"fields": [', '"fields": [{"name": "note", "type": "string"},'),
        ('"reason", "type": "string"', '"motive", "type": "string", "default": ""'),
        ('"reason", "type": "string"', '"reason", "type": {"type": "string", "logicalType": "uuid"}'),
    ],
)
def test_a_version_that_could_not_live_beside_an_earlier_one_is_refused_and_nothing_is_written(folder: Path, old: str, new: str) -> None:
    replaced("events/PledgeWithdrawn.avsc", old, new)(folder)
    WITH_A_NOTE(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    with pytest.raises(ContractError, match=r"events/PledgeWithdrawn.avsc cannot be published beside published/PledgeWithdrawn.v1.avsc"):
        contract.publish(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_third_version_is_held_against_the_first(folder: Path) -> None:
    WITH_A_NOTE(folder)
    contract.publish(folder)
    replaced("events/PledgeConfirmed.avsc", f", {NEW_FIELD}", "")(folder)
    contract.publish(folder)
    replaced("events/PledgeConfirmed.avsc", '"default": null}', '"default": null}, {"name": "note", "type": "int", "default": 0}')(folder)

    with pytest.raises(ContractError, match=r"beside published/PledgeConfirmed.v3.avsc: .*note: expected int, found string"):
        contract.publish(folder)


def test_an_event_without_a_published_schema_is_named_with_what_to_do(folder: Path) -> None:
    with pytest.raises(ContractError, match="no schema is published for Nothing: run 'aidtrail schemas publish'"):
        contract.latest("Nothing", folder)


# --- two versions of one event ------------------------------------------------------------------------------------------------------


def test_bytes_of_the_old_version_leave_a_new_field_to_the_default_of_the_model(folder: Path) -> None:
    event = example("PledgeConfirmed")
    old = contract.latest("PledgeConfirmed", folder).schema
    WITH_A_NOTE(folder)
    new = contract.publish(folder)[0].schema

    values, _ = avro.compile_decoder(old, new, mark="meta.ledger")(encoded(old, event.model_dump()), 0)

    assert "note" not in values
    assert Noted.model_validate(values).note == "-"
    classes = {**CLASSES, "PledgeConfirmed": Noted}
    assert avro.compile_decoder(old, new, mark="meta.ledger", classes=classes)(encoded(old, event.model_dump()), 0)[0].note == "-"


def test_bytes_of_the_new_version_lose_the_field_where_only_the_old_is_known(folder: Path) -> None:
    event = example("PledgeConfirmed")
    old = contract.latest("PledgeConfirmed", folder).schema
    WITH_A_NOTE(folder)
    new = contract.publish(folder)[0].schema
    body = encoded(new, {**event.model_dump(), "note": "signed twice"})

    values, ledger_at = avro.compile_decoder(new, old, mark="meta.ledger")(body, 0)

    assert PledgeConfirmed.model_validate(values) == event
    assert body[ledger_at] == 0
    assert avro.compile_decoder(new, old, mark="meta.ledger", classes=CLASSES)(body, 0) == (event, ledger_at)


def test_a_field_of_a_nested_type_comes_and_goes_in_the_same_way(folder: Path) -> None:
    event = example("FundsReceived")
    old = contract.latest("FundsReceived", folder).schema
    as_of = '{"name": "as_of", "type": ["null", {"type": "int", "logicalType": "date"}], "default": null}'
    replaced("types/Money.avsc", '"currency", "type": "string"}', f'"currency", "type": "string"}}, {as_of}')(folder)
    contract.publish(folder)
    new = contract.latest("FundsReceived", folder).schema

    from_old, _ = avro.compile_decoder(old, new, mark="meta.ledger")(encoded(old, event.model_dump()), 0)
    from_new, _ = avro.compile_decoder(new, old, mark="meta.ledger")(encoded(new, event.model_dump()), 0)

    assert type(event).model_validate(from_old) == type(event).model_validate(from_new) == event
    assert from_new["amount"] == {"amount": Decimal("69985.2500"), "currency": "KWD"}


def test_a_field_that_is_gone_is_read_over_even_where_its_type_is_gone_too(folder: Path) -> None:
    event = example("PledgeConfirmed")
    new = contract.latest("PledgeConfirmed", folder).schema
    tag = json.loads(type_file("Tag", type="enum", symbols=["urgent"]))
    signed = json.loads(type_file("Signed", type="record", fields=[{"name": "tag", "type": tag}]))
    once_with("PledgeConfirmed", json.dumps({"name": "signed", "type": {"type": "array", "items": signed}, "default": []}))(folder)
    old = contract.read(folder / "published/PledgeConfirmed.v1.avsc")
    body = encoded(old, {**event.model_dump(), "signed": [{"tag": "urgent"}]})

    assert compatibility.problems(old, new) == []
    assert avro.compile_decoder(old, new, mark="meta.ledger")(body, 0)[0]["agreement_reference"]
    assert avro.compile_decoder(old, new, mark="meta.ledger", classes=CLASSES)(body, 0)[0] == event


class Noted(PledgeConfirmed):
    """PledgeConfirmed as its second version will be."""

    note: str = "-"


def example(event: str) -> codec.AnyEvent:
    return codec.from_json((contract.FOLDER / f"examples/{event}.json").read_bytes())


def encoded(schema: compatibility.Schema, values: dict[str, Any]) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, schema, values)
    return body.getvalue()


# --- Avro's rules, one by one -------------------------------------------------------------------------------------------------------


def record(*fields: object, name: str = "R") -> compatibility.Schema:
    return {"type": "record", "name": name, "namespace": "n", "fields": list(fields)}


def field(schema: object, **more: object) -> compatibility.Schema:
    return {"name": "f", "type": schema, **more}


def enum(*symbols: str, name: str = "E", **more: object) -> compatibility.Schema:
    return {"type": "enum", "name": name, "namespace": "n", "symbols": list(symbols), **more}


def fixed(size: int, name: str = "F") -> compatibility.Schema:
    return {"type": "fixed", "name": name, "namespace": "n", "size": size}


NUMBERS = ("int", "long", "float", "double")


@pytest.mark.parametrize(
    ("reader", "writer", "can"),
    [
        *[(wide, narrow, NUMBERS.index(narrow) <= NUMBERS.index(wide)) for wide in NUMBERS for narrow in NUMBERS],
        ("string", "bytes", True),
        ("bytes", "string", True),
        ("string", "int", False),
        ("boolean", "int", False),
        ("null", "null", True),
        (["null", "string"], "string", True),
        (["null", "string"], "null", True),
        (["null", "string"], "int", False),
        (["null", "long"], "int", True),
        ("string", ["null", "string"], False),
        ("string", ["string"], True),
        (["null", "string"], ["string", "null"], True),
        (["null", "string"], ["null", "string", "int"], False),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}, True),
        ({"type": "array", "items": "int"}, {"type": "array", "items": "long"}, False),
        ({"type": "array", "items": "int"}, "int", False),
        (enum("a", "b"), enum("a"), True),
        (enum("a"), enum("a", "b"), False),
        (enum("a", default="a"), enum("a", "b"), True),
        (enum("a"), enum("a", name="Other"), False),
        (fixed(4), fixed(4), True),
        (fixed(4), fixed(5), False),
        (fixed(4), fixed(4, name="Other"), False),
        (record(field("int")), record(field("int")), True),
        (record(field("int")), record(), False),
        (record(field("int", default=0)), record(), True),
        (record(), record(field("int")), True),
        (record(field(["null", "string"], default=None)), record(), True),
        (record(name="R"), record(name="S"), False),
        (record(field(record(field("int"), name="S"))), record(field(record(name="S"))), False),
        (["null", record(field("int"))], ["null", record()], False),
        (record(field(enum("a")), {"name": "g", "type": "n.E"}), record({"name": "g", "type": enum("a")}, field("n.E")), True),
    ],
)
def test_a_reader_reads_a_writer_exactly_where_avro_says_so(reader: object, writer: object, can: bool) -> None:
    assert (compatibility.unreadable(reader, writer) == []) is can
    assert fastavro_resolves(reader, writer) is can


def fastavro_resolves(reader: object, writer: object) -> bool:
    """Whether fastavro reads, by the reader's schema, one value for each branch and symbol that the writer's has."""
    parsed = [fastavro.parse_schema(json.loads(json.dumps(one))) for one in (writer, reader)]
    try:
        for value in values_of(writer):
            body = io.BytesIO()
            fastavro.schemaless_writer(body, parsed[0], value)
            body.seek(0)
            fastavro.schemaless_reader(body, *parsed)
    except (fastavro._read_common.SchemaResolutionError, ValueError, TypeError):
        return False
    return True


SAMPLES: dict[str, list[Any]] = {
    "null": [None],
    "string": ["s"],
    "bytes": [b"b"],
    "boolean": [True],
    "float": [0.5],
    "double": [0.5],
    "n.E": ["a"],
}


def values_of(schema: Any) -> list[Any]:
    if isinstance(schema, list):
        return [value for branch in schema for value in values_of(branch)]
    if isinstance(schema, str):
        return SAMPLES.get(schema, [7])
    match schema["type"]:
        case "enum":
            return list(schema["symbols"])
        case "fixed":
            return [bytes(schema["size"])]
        case "array":
            return [values_of(schema["items"])]
        case _:
            return [{field["name"]: values_of(field["type"])[0] for field in schema["fields"]}]


def test_a_symbol_that_was_ever_written_may_not_be_taken_away() -> None:
    assert compatibility.changed(enum("a", "b"), enum("a", default="a")) != []
    assert compatibility.changed(enum("a"), enum("b", "a")) == []


def test_problems_tell_the_directions_apart() -> None:
    found = compatibility.problems(record(), record(field("int")))

    assert found == [
        "the newer cannot read the older: record.f: expected a default, because the other version has no such field, found none"
    ]
