"""The strict decoder and fastavro, held against one another: it takes exactly what fastavro would have written."""

import io
import random
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import fastavro
import pytest

from aidtrail import avro, codec, contract
from aidtrail.avro import long
from aidtrail.compatibility import expanded
from aidtrail.domain.events import EVENTS, Event, Source
from aidtrail.errors import MalformedError, UndecodableError
from tests.test_codec import EXAMPLES, STAMP, stamped

MUTANTS = 100_000
SEED = 20251124


Mutation = Callable[[bytearray, random.Random], None]


def flip_a_bit(value: bytearray, chance: random.Random) -> None:
    value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)


def change_a_byte(value: bytearray, chance: random.Random) -> None:
    value[chance.randrange(len(value))] = chance.randrange(256)


def cut_the_end(value: bytearray, chance: random.Random) -> None:
    del value[chance.randrange(len(value)) :]


def cut_a_slice(value: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(value))
    del value[start : start + chance.randrange(1, 9)]


def insert_bytes(value: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(value) + 1)
    value[place:place] = chance.randbytes(chance.randrange(1, 9))


def repeat_a_slice(value: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(value))
    piece = value[start : start + chance.randrange(1, 40)]
    place = chance.randrange(len(value) + 1)
    value[place:place] = piece


def lengthen_a_number(value: bytearray, chance: random.Random) -> None:
    """The same number in one byte more, where a number happens to end."""
    place = chance.randrange(len(value))
    if value[place] < 128:
        value[place : place + 1] = bytes([value[place] | 128, 0])


NUMBERS = (0, 1, -1, 2, 63, 64, -64, -65, 2**31, 2**31 - 1, -(2**31), -(2**31) - 1, 2**53, 2**63 - 1, -(2**63), 253_402_300_799_999_999)


def change_a_number(value: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(value))
    value[place : place + chance.choice((1, 1, 8))] = long(chance.choice(NUMBERS))


def grow_a_length(value: bytearray, chance: random.Random) -> None:
    """One byte more in a text or decimal, and its length says so."""
    place = chance.randrange(len(value))
    if value[place] % 2 == 0 and value[place] < 126:
        value[place : place + 1] = bytes([value[place] + 2, chance.choice((0, 255, 128, 65, chance.randrange(256)))])


def shrink_a_length(value: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(value))
    if value[place] % 2 == 0 and 2 <= value[place] < 128:
        value[place : place + 2] = bytes([value[place] - 2])


AMOUNTS = (
    0,
    1,
    -1,
    127,
    128,
    -127,
    -128,
    -129,
    255,
    256,
    -256,
    2**31,
    -(2**31),
    2**63,
    -(2**63),
    10**19 - 1,
    10**19,
    1 - 10**19,
    -(10**19),
)


def change_an_amount(value: bytearray, chance: random.Random) -> None:
    """A number at the edge of its bytes or of its precision, in as many bytes as it needs or in one more."""
    end = value.find(chance.choice((b"\x06KWD", b"\x06USD")))
    length = next((length for length in range(1, 10) if end - 1 - length >= 0 and value[end - 1 - length] == 2 * length), None)
    if length is not None:
        number = chance.choice(AMOUNTS)
        needed = 1 + (number if number >= 0 else ~number).bit_length() // 8 + chance.choice((0, 0, 1))
        value[end - 1 - length : end] = long(needed) + number.to_bytes(needed, "big", signed=True)


MUTATIONS: tuple[Mutation, ...] = (
    flip_a_bit,
    change_a_byte,
    cut_the_end,
    cut_a_slice,
    insert_bytes,
    repeat_a_slice,
    lengthen_a_number,
    change_a_number,
    grow_a_length,
    shrink_a_length,
    change_an_amount,
)


def mutants(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """The name of a mutation and what it made of an example, as submitted or as recorded; every fourth is mutated once or twice more."""
    chance = random.Random(seed)
    sound = [codec.encode(event) for event in EXAMPLES.values()]
    sound += [codec.encode(stamped(event, STAMP)) for event in EXAMPLES.values() if isinstance(event, Event)]
    made = 0
    while made < count:
        before = chance.choice(sound)
        value = bytearray(before)
        first = MUTATIONS[made % len(MUTATIONS)]
        first(value, chance)
        for _ in range(chance.choice((0, 0, 0, chance.randrange(1, 3)))):
            if value:
                chance.choice(MUTATIONS)(value, chance)
        if value != before:
            made += 1
            yield first.__name__, bytes(value)


SCHEMAS = {entry.id: expanded(entry.schema) for entry in contract.published().values()}
PARSED = {number: fastavro.parse_schema(entry.schema) for number, entry in contract.published().items()}
DECODERS = {number: avro.compile_decoder(schema, schema, mark="meta.ledger") for number, schema in SCHEMAS.items()}
NEWEST = {contract.latest(event).id for event in EVENTS}


def by_fastavro(value: bytes) -> Any:
    """The values that fastavro reads, if it writes the same bytes for them: what canonical means. None for all else."""
    schema = PARSED.get(int.from_bytes(value[1:5], "big")) if len(value) >= 5 and value[0] == 0 else None
    if schema is None:
        return None
    try:
        read = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema)
        written = io.BytesIO()
        fastavro.schemaless_writer(written, schema, read)
    except Exception:  # fastavro raises whatever Python raises
        return None
    return plain(read) if written.getvalue() == value[5:] else None


def by_aidtrail(value: bytes) -> Any:
    try:
        number = codec.schema_id_of(value)
        return DECODERS[number](value, codec.HEADER_BYTES)[0] if number in DECODERS else None
    except UndecodableError:
        return None


def plain(value: Any) -> Any:
    """A UUID as text: the decoder leaves making one to the model."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, UUID) else value


def scalars(value: Any, schema: Any) -> Iterator[tuple[str, Any]]:
    """Each value within, with its Avro type."""
    if isinstance(schema, list):
        if value is not None:
            yield from scalars(value, schema[1])
    elif isinstance(schema, dict) and schema["type"] == "record":
        for field in schema["fields"]:
            yield from scalars(value[field["name"]], field["type"])
    elif isinstance(schema, dict) and schema["type"] == "array":
        for item in value:
            yield from scalars(item, schema["items"])
    else:
        yield schema if isinstance(schema, str) else schema["type"], value


INT = "fastavro writes an int beyond 32 bits"
SIGN = "fastavro writes -2**(8n-1) with a sign byte too many"
WIDTH = "fastavro writes a decimal wider than its precision if it ends in zeros"


def excused(value: bytes, ours: Any, theirs: Any) -> str | None:
    """The three places where fastavro does not write what Avro 1.12 asks for. In none does an accepted message say something else."""
    for kind, scalar in scalars(ours if theirs is None else theirs, SCHEMAS[codec.schema_id_of(value)]):
        if kind == "int" and ours is None and not -(2**31) <= scalar < 2**31:
            return INT
        if kind == "bytes":
            units = int(scalar.scaleb(4))
            if ours is None and abs(units) >= 10**19:
                return WIDTH
            if units < 0 and -units & (-units - 1) == 0 and units.bit_length() % 8 == 0:
                return SIGN
    return None


def test_the_decoder_accepts_exactly_what_fastavro_would_have_written() -> None:
    found: Counter[str] = Counter()
    excuses: Counter[str] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind, value in mutants(MUTANTS, SEED):
        ours, theirs = by_aidtrail(value), by_fastavro(value)

        if ours != theirs:
            excuse = excused(value, ours, theirs) if ours is None or theirs is None else None
            assert excuse, f"{kind}: {value.hex()} is read as {ours}, by fastavro as {theirs}"
            excuses[excuse] += 1
        found[outcome(value, ours is not None)] += 1
        found[kind] += ours is not None

    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print("accepted by kind: " + ", ".join(f"{kind.__name__} {found[kind.__name__]}" for kind in MUTATIONS))
    for excuse, times in excuses.items():
        print(f"{times} excused: {excuse}")
    print(
        f"{MUTANTS} mutants, seed {SEED}: {found['decoded'] + found['malformed']} accepted "
        f"(of them {found['malformed']} malformed to the models), {found['undecodable']} refused, memory grown by {grown_mib:.1f} MiB"
    )
    assert found["decoded"] > 1000
    assert found["undecodable"] > 1000
    assert all(found[kind.__name__] for kind in MUTATIONS if kind not in (cut_the_end, lengthen_a_number))
    assert excuses.keys() == {INT, SIGN, WIDTH}
    assert grown_mib < 64


def outcome(value: bytes, canonical: bool) -> str:
    """What `codec` makes of a value; asserts that it says the same each way and raises nothing else."""
    try:
        event, ledger_at = codec.read(value)
    except (UndecodableError, MalformedError) as error:
        refusal = error
    else:
        assert canonical
        assert codec.read_recorded(value) == (event, ledger_at)
        assert codec.schema_id_of(value) not in NEWEST or codec.encode(event) == value
        return "decoded"
    assert str(refusal).isprintable()
    if isinstance(refusal, MalformedError):
        assert canonical
        assert max(len(refusal.found), len(refusal.where)) <= 64
        if any(type(scalar) is str and "\0" in scalar for _, scalar in scalars(by_aidtrail(value), SCHEMAS[codec.schema_id_of(value)])):
            with pytest.raises(UndecodableError, match=r"without the character U\+0000"):
                codec.read_recorded(value)
        else:
            codec.read_recorded(value)
        return "malformed"
    assert not canonical
    with pytest.raises(UndecodableError):
        codec.read_recorded(value)
    return "undecodable"


def test_records_that_recur_are_read_once_but_for_long_ones() -> None:
    """What strangers write must not stay in memory."""
    value = codec.encode(EXAMPLES["DisbursementSettled"])
    for read in (codec.read, codec.read_recorded):
        (one, _), (other, _) = read(value), read(bytes(bytearray(value)))
        assert isinstance(one, Event)
        assert isinstance(other, Event)
        assert one == other
        assert one.meta.actor is other.meta.actor
        assert one.meta.source is other.meta.source
        named = one.meta.model_copy(update={"source": one.meta.source.model_copy(update={"reference": "r" * 300})})
        long_one = codec.encode(one.model_copy(update={"meta": named}))
        (one, _), (other, _) = read(long_one), read(long_one)
        assert one == other
        assert isinstance(one, Event)
        assert isinstance(other, Event)
        assert one.meta.source is not other.meta.source


def test_records_that_recur_are_kept_in_bounded_number_whatever_event_they_are_in() -> None:
    """A reference is often another in each event."""
    most, held = avro._MOST_MET, 0
    kinds = [EXAMPLES[name] for name in ("DisbursementSettled", "PledgeConfirmed", "FundsReceived")]
    for number in range(2 * most):
        event = kinds[number % len(kinds)]
        assert isinstance(event, Event)
        source = event.meta.source.model_copy(update={"reference": f"reference {number}"})
        value = codec.encode(event.model_copy(update={"meta": event.meta.model_copy(update={"source": source})}))
        assert codec.read(value)[0] == codec.read_recorded(value)[0]
        held = max(held, max(len(met) for met in avro._MET.values()))
    kinds_of_source = sum(model is Source for model, _, _ in avro._MET)
    print(f"{2 * most} references in three types of event: {kinds_of_source} stores, at most {held} kept in one")
    assert (kinds_of_source, held) == (2, most)  # validated, and not


def test_what_is_wrong_in_a_record_that_recurs_is_said_each_time_as_of_any_other() -> None:
    event = EXAMPLES["DisbursementSettled"]
    assert isinstance(event, Event)
    actor = event.meta.actor.model_copy(update={"role": "no role"})
    value = codec.encode(event.model_copy(update={"meta": event.meta.model_copy(update={"actor": actor})}))
    for _ in range(2):
        with pytest.raises(MalformedError) as refused:
            codec.read(value)
        assert (refused.value.where, refused.value.found) == ("meta.actor.role", "'no role'")
