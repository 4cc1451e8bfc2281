"""Bytes <-> events: what is written is read back, and nothing else is read."""

import json
import sys
import tracemalloc
import unicodedata
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin
from uuid import UUID

import pytest
from hypothesis import example as given_example
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel
from pydantic.fields import FieldInfo

from aidtrail import avro, codec, contract
from aidtrail.avro import long
from aidtrail.domain.events import DONATION_EVENTS, EVENTS, PLAIN, Event, LedgerStamp
from aidtrail.errors import MalformedError, UndecodableError

EXAMPLES = {path.stem: codec.from_json(path.read_bytes()) for path in sorted((contract.FOLDER / "examples").glob("*.json"))}
MALFORMED_DATA = Path(__file__).parents[2] / "shared" / "data" / "avro" / "malformed.json"

STAMP = LedgerStamp(
    version=3,
    submitted_offset=1_000_000,
    previous_outcome_sha256=bytes(range(32, 64)),
    recorded_at=datetime(2026, 2, 28, 23, 59, 59, 999000, tzinfo=UTC),
    previous_sha256=bytes(range(32)),
    registry_offset=64,
    rules=2,
)


def say(text: str) -> None:
    """Figures for whoever runs pytest with -s."""
    sys.stdout.write(f"\n{text}\n")


def signed(event: Event, signature: bytes) -> Event:
    return event.model_copy(update={"meta": event.meta.model_copy(update={"signature": signature})})


def stamped(event: Event, stamp: LedgerStamp | None) -> Event:
    return event.model_copy(update={"meta": event.meta.model_copy(update={"ledger": stamp})})


# --- what is written is read back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_comes_back_from_its_bytes_and_from_its_json(name: str) -> None:
    event = EXAMPLES[name]

    value = codec.encode(event)

    assert codec.decode(value) == event
    assert codec.encode(codec.decode(value)) == value
    assert codec.read_recorded(value) == codec.read(value)
    assert codec.from_json(codec.to_json(event)) == event
    assert codec.from_json(codec.to_json(codec.decode(value)).encode()) == event


def test_json_says_what_the_example_file_says() -> None:
    for path in sorted((contract.FOLDER / "examples").glob("*.json")):
        stated, said = json.loads(path.read_bytes()), json.loads(codec.to_json(EXAMPLES[path.stem]))

        assert next(iter(said)) == "type"
        assert said["type"] == stated["type"]
        assert said.get("meta", said)["event_id"] == stated.get("meta", stated)["event_id"]
        assert "\n" not in codec.to_json(EXAMPLES[path.stem])


@pytest.mark.parametrize("event_type", DONATION_EVENTS)
def test_a_stamp_is_spliced_into_the_bytes_as_if_the_entry_had_been_encoded(event_type: str) -> None:
    event = EXAMPLES[event_type]
    assert isinstance(event, Event)
    submission = codec.encode(stamped(event, None))

    entry = codec.stamped(submission, codec.read(submission)[1], STAMP)

    assert entry == codec.encode(stamped(event, STAMP))
    assert codec.decode(entry) == stamped(event, STAMP)
    assert codec.encode(codec.decode(entry)) == entry
    assert codec.unstamped(entry, codec.read(entry)[1], STAMP) == submission
    assert codec.read(entry)[1] == codec.read(submission)[1] == codec.read_recorded(entry)[1]


@pytest.mark.parametrize("event_type", DONATION_EVENTS)
def test_a_signature_is_taken_out_as_if_the_submission_had_been_encoded_without_it(event_type: str) -> None:
    event = stamped(EXAMPLES[event_type], None)
    submission = codec.encode(signed(event, bytes(range(1, 65))))

    assert codec.unsigned(submission, codec.read(submission)[1]) == codec.encode(event)


FIRST_STAMP = LedgerStamp(
    version=1,
    submitted_offset=0,
    previous_outcome_sha256=codec.GENESIS,
    recorded_at=datetime(1970, 1, 1, tzinfo=UTC),
    previous_sha256=codec.GENESIS,
    registry_offset=-1,
    rules=1,
)
WIDEST_STAMP = LedgerStamp(
    version=2**63 - 1,
    submitted_offset=2**63 - 1,
    previous_outcome_sha256=b"\xfe" * 32,
    recorded_at=datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
    previous_sha256=b"\xff" * 32,
    registry_offset=-(2**63),
    rules=2**31 - 1,
)


def test_the_first_stamp_and_the_widest_one_are_spliced_in_as_well() -> None:
    submission = codec.encode(EXAMPLES["PledgeAnnounced"])
    ledger_at = codec.read(submission)[1]

    for stamp in (FIRST_STAMP, WIDEST_STAMP):
        entry = codec.stamped(submission, ledger_at, stamp)

        event = codec.decode(entry)
        assert isinstance(event, Event)
        assert event.meta.ledger == stamp
        assert codec.encode(event) == entry
        assert codec.unstamped(entry, ledger_at, stamp) == submission


def test_a_submission_leaves_room_for_the_widest_stamp_and_for_no_byte_more() -> None:
    submission = codec.encode(EXAMPLES["PledgeAnnounced"])
    added = len(codec.stamped(submission, codec.read(submission)[1], WIDEST_STAMP)) - len(submission)

    assert codec.MAX_SUBMISSION_BYTES + added == codec.MAX_VALUE_BYTES


def test_an_event_of_the_registry_has_no_place_for_a_stamp() -> None:
    assert codec.read(codec.encode(EXAMPLES["PartyRegistered"]))[1] == 0


# --- any event that the models allow ------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), min_size=1, max_size=60)


def values(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    """Any value that a field of a model may have, out to the limits of its Avro type."""
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        metadata = [inner for item in metadata for inner in (item.metadata if isinstance(item, FieldInfo) else [item])]
    limits = {name: getattr(item, name) for item in metadata for name in ("ge", "le", "max_length", "pattern") if getattr(item, name, None)}
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple:
        return st.lists(values(arguments[0], []), max_size=3).map(tuple)
    if NoneType in arguments:
        return st.none() | values(next(one for one in arguments if one is not NoneType), metadata)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return events_of(annotation)
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return st.sampled_from(list(annotation))
    if annotation is str:
        return st.from_regex(limits["pattern"], fullmatch=True).filter(str.isprintable) if "pattern" in limits else TEXT.map(composed)
    if annotation is int:
        return st.integers(limits.get("ge", -(2**31)), limits.get("le", 2**31 - 1))
    if annotation is Decimal:
        return st.integers(0, 10**19 - 1).map(lambda units: Decimal(units).scaleb(-4))
    if annotation is AwareDatetime:
        zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
        return st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=zones)  # noqa: DTZ001 -- the strategy adds the zone
    if annotation is bytes:
        return st.binary(min_size=limits["max_length"], max_size=limits["max_length"])
    plain: dict[object, st.SearchStrategy[Any]] = {UUID: st.uuids(), date: st.dates(), bool: st.booleans()}
    return plain[annotation]


def composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def events_of(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    fields = {name: values(info.annotation, info.metadata) for name, info in model.model_fields.items()}
    if model is LedgerStamp:
        fields["recorded_at"] = fields["recorded_at"].map(lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000))
    return st.builds(model, **fields)


@settings(max_examples=600, deadline=None, database=None)
@given(st.one_of([events_of(model) for model in EVENTS.values()]))
@given_example(EXAMPLES["PledgeAnnounced"])
def test_any_event_comes_back_from_its_bytes_and_from_its_json(event: codec.AnyEvent) -> None:
    value = codec.encode(event)

    assert codec.decode(value) == event
    assert codec.encode(codec.decode(value)) == value
    assert codec.read_recorded(value) == codec.read(value)
    assert codec.from_json(codec.to_json(event)) == event


# --- bytes that are refused ---------------------------------------------------------------------------------------------------------


def text(letters: str) -> bytes:
    return long(len(letters.encode())) + letters.encode()


def pieces() -> dict[str, bytes]:
    """An entry, field by field, as the Avro specification has it."""
    return {
        "magic": b"\x00",
        "schema_id": contract.latest("ApprovalDecided").id.to_bytes(4, "big"),
        "event_id": text("019a28d4-6700-71de-ae3e-4b59c440ee32"),
        "donation_id": text("KRCS-2025-0042"),
        "occurred_on": long(1_761_621_600_000_000),
        "actor_id": text("mef-cooperation-01"),
        "party_id": text("MEF"),
        "role": text("approver"),
        "channel": text("http"),
        "reference": b"\x00",
        "causation_id": b"\x02" + text("019a28d4-6700-71de-ae3e-4b59c440ee31"),
        "correlation_id": b"\x00",
        "evidence": b"\x00",
        "signature": b"\x02" + bytes(range(64)),
        "ledger": b"\x02",
        "version": long(6),
        "submitted_offset": long(1287),
        "previous_outcome_sha256": bytes(range(32, 64)),
        "recorded_at": long(1_761_621_602_481),
        "previous_sha256": bytes(range(32)),
        "registry_offset": long(41),
        "rules": long(1),
        "approval_id": text("MEF-A-1"),
        "decision": b"\x00",
        "amounts": long(1),
        "amount": long(4) + (1_400_005_000).to_bytes(4, "big"),
        "currency": text("KWD"),
        "end_of_amounts": b"\x00",
        "conditions": b"\x00",
        "valid_until": b"\x02" + long(1_777_568_400_000_000),
        "reason": b"\x02" + text("within the ceiling"),
    }


BAD_PIECES: dict[str, tuple[str, bytes]] = {
    "another magic byte": ("magic", b"\x01"),
    "an unknown schema id": ("schema_id", b"\x00\x0f\x42\x3f"),
    "the schema id of another event": ("schema_id", (1).to_bytes(4, "big")),
    "a number in a longer form": ("version", b"\x8c\x00"),
    "a number of eleven bytes": ("version", b"\xff" * 10 + b"\x01"),
    "a number of 65 bits": ("version", b"\xff" * 9 + b"\x02"),
    "a number of 33 bits where 32 are meant": ("rules", long(2**31)),
    "a number below 32 bits": ("rules", long(-(2**31) - 1)),
    "a negative length": ("currency", b"\x05KWD"),
    "a length in a longer form": ("currency", b"\x86\x00KWD"),
    "a text longer than the message": ("currency", b"\xfe\xff\xff\xff\x0f"),
    "a text of 2**62 bytes": ("reason", b"\x02" + long(2**62)),
    "text that is not UTF-8": ("currency", b"\x06\xff\xfe\xfd"),
    "half a pair of UTF-16 in UTF-8": ("currency", b"\x06\xed\xa0\x80"),
    "a letter in more bytes of UTF-8 than it needs": ("reason", b"\x02\x04\xc1\x81"),
    "a UUID in upper case": ("event_id", text("019A28D4-6700-71DE-AE3E-4B59C440EE32")),
    "a UUID in braces": ("event_id", text("{019a28d4-6700-71de-ae3e-4b59c440ee32}")),
    "a UUID without dashes": ("event_id", text("019a28d4670071deae3e4b59c440ee32")),
    "a UUID with a digit of another script": ("event_id", text("019a28d4-6700-71de-ae3e-4b59c440ee3٢")),
    "a UUID and one letter more": ("event_id", text("019a28d4-6700-71de-ae3e-4b59c440ee320")),
    "no UUID": ("causation_id", b"\x02" + text("")),
    "a union's branch -1": ("reference", b"\x01"),
    "a union's branch 2": ("reference", b"\x04"),
    "a union's branch in a longer form": ("reference", b"\x80\x00"),
    "an enum's symbol -1": ("decision", b"\x01"),
    "an enum's symbol out of range": ("decision", b"\x04"),
    "an enum's symbol in a longer form": ("decision", b"\x80\x00"),
    "a decimal with a sign byte too many": ("amount", long(5) + (1_400_005_000).to_bytes(5, "big")),
    "a decimal of no bytes": ("amount", b"\x00"),
    "a decimal wider than its precision": ("amount", long(9) + (10**19).to_bytes(9, "big")),
    "a decimal of a thousand bytes": ("amount", long(1000) + b"\x01" * 1000),
    "an array in a block that states its size": ("amounts", long(-1) + long(9)),
    "an array in a block whose size lies": ("amounts", long(-1) + long(99)),
    "an array of a billion": ("amounts", long(10**9)),
    "an array of items that are not all there": ("amounts", long(2)),
    "an array of two blocks": ("end_of_amounts", long(1) + long(1) + b"\x01" + text("KWD") + b"\x00"),
    "an array of an empty block": ("conditions", b"\x80\x00"),
    "a time after the year 9999": ("occurred_on", long(253_402_300_800_000_000)),
    "a time before the year 1": ("occurred_on", long(-62_135_596_800_000_001)),
    "a time in milliseconds after the year 9999": ("recorded_at", long(2**63 - 1)),
    "a hash cut short": ("previous_sha256", bytes(31)),
    "a signature cut short": ("signature", b"\x02" + bytes(range(1, 64))),
    "a byte after the end": ("reason", b"\x00\x00"),
    "a second record after the end": ("reason", b"\x02" + text("x") + b"".join(pieces().values())[5:]),
    "no last byte": ("reason", b""),
}


def test_the_pieces_are_an_entry() -> None:
    value = b"".join(pieces().values())

    assert codec.encode(codec.decode(value)) == value


@pytest.mark.parametrize("name", BAD_PIECES)
def test_bytes_that_encoding_would_not_have_written_are_refused(name: str) -> None:
    field, bad = BAD_PIECES[name]
    value = b"".join((pieces() | {field: bad}).values())

    for read in (codec.read, codec.read_recorded):
        with pytest.raises(UndecodableError, match=r"^at byte \d+: expected .+, found ") as refused:
            read(value)
        assert len(str(refused.value)) < 200
        assert str(refused.value).isprintable()
        assert 0 <= refused.value.position <= len(value) + 2**62


def test_every_cut_of_an_entry_is_refused() -> None:
    value = b"".join(pieces().values())

    for length in range(len(value)):
        with pytest.raises(UndecodableError):
            codec.decode(value[:length])
    say(f"{len(value)} cuts, {len(BAD_PIECES)} bad pieces: all refused")


def test_a_number_without_an_end_is_not_read_to_the_end() -> None:
    value = b"".join((pieces() | {"version": b"\xff" * 200_000}).values())

    with pytest.raises(UndecodableError, match="a number of at most ten bytes"):
        codec.decode(value)


@pytest.mark.parametrize("value", [None, b"", b"\x00", b"\x00\x00\x00\x00", b"\x00\x00\x00\x00\x04", bytes(codec.MAX_VALUE_BYTES + 1)])
def test_values_that_hold_no_record_are_refused(value: bytes | None) -> None:
    with pytest.raises(UndecodableError):
        codec.decode(value)


def test_what_is_wrong_is_named() -> None:
    for field, bad, expected in (
        ("currency", b"\x06\xff\xfe\xfd", "text in UTF-8, found 0xff"),
        ("amounts", long(10**9), "a byte for each item, found 1000000000"),
        ("reason", b"\x00\x00", "the end of the message, found more bytes"),
    ):
        with pytest.raises(UndecodableError, match=expected):
            codec.decode(b"".join((pieces() | {field: bad}).values()))
    with pytest.raises(UndecodableError, match="at most 262144 bytes, found 262145"):
        codec.decode(bytes(codec.MAX_VALUE_BYTES + 1))


def test_a_date_outside_the_calendar_is_refused() -> None:
    value = codec.encode(EXAMPLES["DisbursementScheduled"])
    due_on = long((date(2025, 11, 15) - date(1970, 1, 1)).days)
    assert value.endswith(due_on)

    for days in (2**31 - 1, -(2**31), (date.max - date(1970, 1, 1)).days + 1, (date.min - date(1970, 1, 1)).days - 1):
        with pytest.raises(UndecodableError, match="a date between the years 1 and 9999"):
            codec.decode(value.removesuffix(due_on) + long(days))


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("donation_id", text("krcs 42"), "meta.donation_id"),
        ("actor_id", text(""), "meta.actor.actor_id"),
        ("reason", b"\x02" + text("line\nbreak"), "reason"),
        ("reason", b"\x02" + text("x" * 2001), "reason"),
        ("amount", b"\x02\xff", "amounts.0.amount"),
        ("currency", text("kwd"), "amounts.0.currency"),
    ],
)
def test_canonical_bytes_of_values_that_no_event_can_have_are_malformed(field: str, value: bytes, where: str) -> None:
    with pytest.raises(MalformedError) as refused:
        codec.decode(b"".join((pieces() | {field: value}).values()))

    assert refused.value.where == where
    assert len(refused.value.found) <= 64


def test_lengths_and_counts_that_lie_cost_no_memory() -> None:
    value = b"".join(pieces().values())
    lies = [b"".join((pieces() | {field: lie}).values()) for field, lie in BAD_PIECES.values()]
    hashes = {"type": "array", "items": {"type": "fixed", "name": "Hash", "namespace": "n", "size": 32}}
    schema = {"type": "record", "name": "R", "namespace": "n", "fields": [{"name": "hashes", "type": hashes}]}
    decode = avro.compile_decoder(schema, schema, mark="")
    codec.decode(value)
    tracemalloc.start()

    for lie in lies:
        with pytest.raises(UndecodableError):
            codec.decode(lie)
    with pytest.raises(UndecodableError):
        decode(long(10**9) + bytes(64), 0)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


def test_published_malformed_messages_are_refused() -> None:
    if not MALFORMED_DATA.exists():
        pytest.skip("shared/data/avro/malformed.json is not here; the same kinds of faults are covered by BAD_PIECES")
    data = json.loads(MALFORMED_DATA.read_bytes())
    decoder = avro.compile_decoder(data["schema"], data["schema"], mark="")

    def decode(value: bytes) -> Any:
        if codec.schema_id_of(value) != data["schema_id"]:
            raise UndecodableError("the id of the schema", "another", position=1)
        return decoder(value, codec.HEADER_BYTES)[0]

    good = decode(bytes.fromhex(data["good_hex"]))
    refused = 0
    for case in data["cases"]:
        with pytest.raises(UndecodableError):
            decode(bytes.fromhex(case["message_hex"]))
        refused += 1

    say(f"{refused} of {len(data['cases'])} published malformed messages refused")
    assert good == {"kind": "PLEDGE", "amount": Decimal("30000.0000"), "currency": "KWD", "note": None, "tags": ["a"], "final": True}
    assert refused == 22


# --- JSON ---------------------------------------------------------------------------------------------------------------------------


def json_with(**changes: object) -> str:
    """The example of ApprovalDecided with other values: `a__b` is b in a."""
    stated = json.loads(codec.to_json(EXAMPLES["ApprovalDecided"]))
    for path, value in changes.items():
        *outer, last = path.split("__")
        inner = stated
        for key in outer:
            inner = inner[key]
        inner[last] = value
    return json.dumps(stated, ensure_ascii=False)


def json_where(old: str, new: str) -> str:
    text = json_with(reason="REASON")
    assert old in text
    return text.replace(old, new, 1)


def money(amount: object) -> list[dict[str, object]]:
    return [{"amount": amount, "currency": "KWD"}]


def evidence(sha256: str) -> list[dict[str, object]]:
    return [{"kind": "letter", "sha256": sha256}]


WHOLE = "a whole number, or an amount as a string"
DIGITS = "an amount as a string of digits"

REFUSED_JSON: dict[str, tuple[str | bytes, str, str, str]] = {
    # name: (text, where, part of what was expected, part of what was found)
    "nothing": ("", "character 1", "a JSON value", "the end"),
    "no JSON": ("{", "character 2", "a name in double quotes", "the end"),
    "two objects": ("{} {}", "character 4", "nothing after it", "'{}'"),
    "a list": ("[]", "line", "a JSON object", "list"),
    "null": ("null", "line", "a JSON object", "NoneType"),
    "no type": ("{}", "type", "the name of an event", "None"),
    "an unknown type": ('{"type": "PledgeForgotten"}', "type", "the name of an event", "'PledgeForgotten'"),
    "a type that is a list": ('{"type": ["PledgeExpired"]}', "type", "the name of an event", "['PledgeExpired']"),
    "a long type": (json.dumps({"type": "x" * 9000}), "type", "the name of an event", "xxx..."),
    "a field that no event has": (json_with(colour="red"), "colour", "no field of that name", "'red'"),
    "a field that no actor has": (json_with(meta__actor__colour="red"), "meta.actor.colour", "no field of that name", "'red'"),
    "a field with a long name": (json_with(**{"x" * 9000: 1}), f"'{'x' * 60}...", "no field of that name", "1"),
    "a field whose name moves the cursor": (json_with(**{"\x1b[2J": 1}), r"'\x1b[2J'", "no field of that name", "1"),
    "a field with a letter missing": (json_with(amount=[]), "amount", "did you mean amounts?", "[]"),
    "a field of an amount with a letter missing": (
        json_with(amounts=[{"amount": "1", "curency": "KWD"}]),
        "amounts.0.currency",
        "this field",
        "nothing",
    ),
    "a small currency": (
        json_with(amounts=[{"amount": "1", "currency": "kwd"}]),
        "amounts.0.currency",
        "of three capital letters",
        "'kwd'",
    ),
    "a small donation id": (json_with(meta__donation_id="krcs-1"), "meta.donation_id", "3 to 64 capital letters", "'krcs-1'"),
    "a field left out": (json_where('"approval_id"', '"reason2"'), "approval_id", "this field", "nothing"),
    "a number with a point": (json_with(amounts=money(1000.5)), "number", WHOLE, "'1000.5'"),
    "a number with an exponent": (json_where('"REASON"', "1E400"), "number", WHOLE, "'1E400'"),
    "not a number": (json_where('"REASON"', "NaN"), "number", WHOLE, "'NaN'"),
    "less than any number": (json_where('"REASON"', "-Infinity"), "number", WHOLE, "'-Infinity'"),
    "a number of 5000 digits": (json_where('"REASON"', "1" * 5000), "number", "64 bits", "111..."),
    "a number for an amount": (json_with(amounts=money(1000)), "amounts.0.amount", DIGITS, "1000"),
    "a fifth digit after the point": (json_with(amounts=money("1.00001")), "amounts.0.amount", DIGITS, "'1.00001'"),
    "a sixteenth digit before it": (json_with(amounts=money("1" * 16)), "amounts.0.amount", DIGITS, "'1111111111111111'"),
    "an amount below zero": (json_with(amounts=money("-1")), "amounts.0.amount", DIGITS, "'-1'"),
    "an amount with an exponent": (json_with(amounts=money("1e3")), "amounts.0.amount", DIGITS, "'1e3'"),
    "an amount with a comma": (json_with(amounts=money("1,000")), "amounts.0.amount", DIGITS, "'1,000'"),
    "an amount in other digits": (json_with(amounts=money("١٢")), "amounts.0.amount", DIGITS, r"'\u0661\u0662'"),
    "an amount and a line end": (json_with(amounts=money("1\n")), "amounts.0.amount", DIGITS, r"'1\n'"),
    "a key twice": (json_where('"reason": "REASON"', '"reason": "a", "reason": "b"'), "object", "each key once", "'reason' again"),
    "the type twice": ('{"type": "PledgeExpired", "type": "PledgeExpired"}', "object", "each key once", "'type' again"),
    "a long key twice": (f'{{"{"x" * 99}": 1, "{"x" * 99}": 2}}', "object", "each key once", "... again"),
    "lists in lists": ("[" * 100_000 + "]" * 100_000, "line", "a few levels", "deeper"),
    "objects in objects": ('{"type":"PledgeExpired","meta":' + '{"a":' * 100_000 + "1" + "}" * 100_001, "line", "a few levels", "deeper"),
    "half a pair of UTF-16": (json_where("REASON", r"\ud800"), "line", "text that UTF-8 can hold", r"'\ud800'"),
    "the other half, as a character": (json_where("REASON", "\udfff"), "line", "text that UTF-8 can hold", r"'\udfff'"),
    "half a pair in a key": (json_where('"reason"', r'"\ud800"'), "line", "text that UTF-8 can hold", r"'\ud800'"),
    "half a pair in the type": (r'{"type": "\ud800"}', "type", "the name of an event", r"'\ud800'"),
    "Latin-1": (json_with(reason="é").encode("latin-1"), "line", "UTF-8", "other bytes"),
    "UTF-16": (json_with().encode("utf-16"), "line", "UTF-8", "other bytes"),
    "a byte order mark": (json_with().encode("utf-8-sig"), "character 1", "JSON", "a byte order mark"),
    "NUL": (json_with(reason="a\0b"), "reason", PLAIN, r"'a\x00b'"),
    "a NUL that is not escaped": (json_where("REASON", "\0"), "character", "no line end or other control character", "\\x00"),
    "an escape sequence": (json_with(reason="\x1b[2J"), "reason", PLAIN, r"'\x1b[2J'"),
    "text that runs backwards": (json_with(reason="\u202edwk"), "reason", PLAIN, r"'\u202edwk'"),
    "a line end": (json_with(reason="a\nb"), "reason", PLAIN, r"'a\nb'"),
    "a letter and its accent apart": (json_with(reason="e\u0301"), "reason", "normal form C", r"'e\u0301'"),
    "no text": (json_with(reason=""), "reason", "at least 1 character", "''"),
    "long text": (json_with(reason="x" * 2001), "reason", "at most 2000 characters", "xxx..."),
    "a number for text": (json_with(reason=7), "reason", "string", "7"),
    "an id and a line end": (json_with(approval_id="A\n"), "approval_id", "an id of 1 to 64 letters, digits", r"'A\n'"),
    "an unknown symbol": (json_with(decision="defer"), "decision", "'approve' or 'reject'", "'defer'"),
    "no UUID": (json_with(meta__event_id="\x1b"), "meta.event_id", "a UUID", r"'\x1b'"),
    "a time without a zone": (
        json_with(meta__occurred_on="2025-10-28T03:20:00"),
        "meta.occurred_on",
        "with a zone",
        "'2025-10-28T03:20:00'",
    ),
    "a number for a time": (json_with(meta__occurred_on=1761621600), "meta.occurred_on", "valid datetime", "1761621600"),
    "a hash of 31 bytes": (json_with(meta__evidence=evidence("00" * 31)), "meta.evidence.0.sha256", "64 hexadecimal digits", "000"),
    "a hash that is not hexadecimal": (json_with(meta__evidence=evidence("zz" * 32)), "meta.evidence.0.sha256", "hexadecimal", "zzz..."),
    "a signature of 63 bytes": (json_with(meta__signature="00" * 63), "meta.signature", "128 hexadecimal digits", "000"),
    "an object for a list": (json_with(amounts={}), "amounts", "array", "{}"),
}


@pytest.mark.parametrize("name", REFUSED_JSON)
def test_json_that_states_no_event_is_refused_with_where_expected_and_found(name: str) -> None:
    stated, where, expected, found = REFUSED_JSON[name]

    with pytest.raises(MalformedError) as refused:
        codec.from_json(stated)

    error = refused.value
    assert error.where.startswith(where)
    assert expected in error.expected
    assert found in error.found
    assert len(error.where) <= 64
    assert len(error.found) <= 64 + len(" again")
    assert str(error).isprintable()


@pytest.mark.parametrize("depth", [150, 250, 600, 900, 960, 980, 985, 988, 990, 992, 994, 996, 998, 1000, 1100])
@pytest.mark.parametrize("shape", ['{{"type":"PledgeExpired","meta":{0}1{1}}}', '{{"type":{0}1{1}}}', "{0}{1}"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_of_any_depth_is_refused_cleanly(shape: str, opening: str, closing: str, depth: int) -> None:
    with pytest.raises(MalformedError) as refused:
        codec.from_json(shape.format(opening * depth, closing * depth))

    assert len(refused.value.found) <= 64


@pytest.mark.parametrize(
    "changes",
    [
        {"meta__occurred_on": "1761621600"},
        {"meta__occurred_on": "2025-10-28T03:20:00.1234567Z"},
        {"meta__occurred_on": "0001-01-01T00:00:00+14:00"},
        {"meta__occurred_on": "9999-12-31T23:59:59-14:00"},
        {"meta__evidence": evidence("00 " * 32)},
    ],
)
def test_json_that_leaves_something_to_be_guessed_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        codec.from_json(json_with(**changes))
