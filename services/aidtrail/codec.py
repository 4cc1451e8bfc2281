"""Bytes <-> events. A record's value is in Confluent's wire format: 0x00, the schema id in four bytes, big-endian, the Avro body.

One fact has one encoding: decoding refuses everything that encoding would not have written (`avro.compile_decoder`), so that a hash
over bytes is a hash over the fact. An entry is its submission's own bytes with the ledger's stamp spliced in where the submission says
null; nothing is encoded again, and `unstamped` gives back what the producer wrote, bit by bit. `unsigned` does the same for a signature.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import Any, get_args
from uuid import UUID

import fastavro
from pydantic import BaseModel, ValidationError

from aidtrail import avro, contract
from aidtrail.domain.events import CLASSES, DONATION_ID, EVENTS, Event, LedgerStamp, RegistryEvent
from aidtrail.errors import MalformedError, UndecodableError, expected_by

AnyEvent = Event | RegistryEvent

MAGIC = b"\x00"
HEADER_BYTES = 5
MAX_VALUE_BYTES = 256 * 1024
"""Far above any event (a few hundred bytes; a route of 100 legs has 10 KB), far below what would let one record exhaust memory."""

MAX_STAMP_BYTES = 1 + 10 + 10 + 32 + 7 + 32 + 10 + 5
"""The union's branch and the longest of each field of LedgerStamp: a long has ten bytes at most, milliseconds of the year 9999 seven, an
int five."""

MAX_SUBMISSION_BYTES = MAX_VALUE_BYTES - (MAX_STAMP_BYTES - 1)
"""The stamp takes the place of one byte: so every entry can be read that is made of a submission which could."""

SIGNATURE_BYTES = 64
"""Of Ed25519 (RFC 8032). One byte before it says that it is there."""

GENESIS = bytes(32)
"""`previous_sha256` of a donation's first event, `previous_outcome_sha256` of a partition's first outcome."""

_PATTERNS = {
    DONATION_ID: "3 to 64 capital letters, digits and hyphens, no hyphen first",
    r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$": "an id of 1 to 64 letters, digits and . _ : -, a letter or digit first",
    r"^[A-Z]{3}$": "a currency of three capital letters",
    r"^[A-Z]{2}$": "a country of two capital letters",
}
"""What the patterns of events mean."""

_JSON = {
    "Expecting value": "a JSON value",
    "Expecting property name enclosed in double quotes": "a name in double quotes",
    "Expecting ',' delimiter": "a comma",
    "Expecting ':' delimiter": "a colon",
    "Extra data": "one JSON object and nothing after it",
    "Unterminated string starting at": "a string that ends",
    "Invalid control character at": "no line end or other control character in a string",
}
"""What Python's words for bad JSON mean."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def encode(event: AnyEvent) -> bytes:
    """The canonical bytes of an event, with the newest schema of its type."""
    schema_id, schema = _writer(event.type)
    body = io.BytesIO()
    fastavro.schemaless_writer(body, schema, event.model_dump())
    return MAGIC + schema_id.to_bytes(4, "big") + body.getvalue()


def decode(value: bytes | None) -> AnyEvent:
    """The event that `value` is the canonical encoding of.

    Raises UndecodableError for anything but canonical bytes of a published schema, MalformedError for values that no event can have.
    """
    return read(value)[0]


def read(value: bytes | None) -> tuple[AnyEvent, int]:
    """The event, and where its `meta.ledger` begins in `value` (0 for an event of the registry, which has none)."""
    event_class, decoder = _validating(schema_id_of(value))
    values, ledger_at = decoder(value, HEADER_BYTES)  # type: ignore[arg-type]
    try:
        return event_class.model_validate(values), ledger_at
    except ValidationError as error:
        raise malformed(error) from None


def read_submission(value: bytes | None) -> tuple[AnyEvent, int]:
    """As `read`, for what has still to be stamped: a value that no reader could take once it is counts as undecodable."""
    if value is not None and len(value) > MAX_SUBMISSION_BYTES:
        raise UndecodableError(f"at most {MAX_SUBMISSION_BYTES} bytes", f"{len(value)}")
    return read(value)


def read_recorded(value: bytes | None) -> tuple[AnyEvent, int]:
    """As `read`, for what the ledger validated before it recorded it: as strict about bytes, without a second look at the values."""
    event, ledger_at = _recorded(schema_id_of(value))(value, HEADER_BYTES)  # type: ignore[arg-type]
    return event, ledger_at


def stamped(submission: bytes, ledger_at: int, stamp: LedgerStamp) -> bytes:
    """The entry: the submission with `stamp` in place of the null at `ledger_at`. Requires that `read(submission)` gave `ledger_at`."""
    return submission[:ledger_at] + _stamp(stamp) + submission[ledger_at + 1 :]


def unstamped(entry: bytes, ledger_at: int, stamp: LedgerStamp) -> bytes:
    """The submission that an entry was made of: the inverse of `stamped`. Requires that `read(entry)` gave `ledger_at` and `stamp`."""
    return entry[:ledger_at] + b"\x00" + entry[ledger_at + len(_stamp(stamp)) :]


def unsigned(submission: bytes, ledger_at: int) -> bytes:
    """What the actor signed: a signed submission with null in the place of his signature, which ends where `meta.ledger` begins. Requires
    that `read(submission)` gave `ledger_at` and an event with a signature."""
    return submission[: ledger_at - SIGNATURE_BYTES - 1] + b"\x00" + submission[ledger_at:]


def submission_sha256(entry: bytes) -> bytes:
    """SHA-256 of the submission that an admitted entry was made of."""
    event, ledger_at = read_recorded(entry)
    assert isinstance(event, Event)
    assert event.meta.ledger is not None
    return sha256(unstamped(entry, ledger_at, event.meta.ledger))


def _stamp(stamp: LedgerStamp) -> bytes:
    """The Avro union's second branch and the fields of LedgerStamp, in the schema's order."""
    return b"".join(
        (
            b"\x02",
            avro.long(stamp.version),
            avro.long(stamp.submitted_offset),
            stamp.previous_outcome_sha256,
            _milliseconds(stamp.recorded_at),
            stamp.previous_sha256,
            avro.long(stamp.registry_offset),
            avro.long(stamp.rules),
        )
    )


@lru_cache(1000)
def _milliseconds(moment: datetime) -> bytes:
    """A log appends many records within a millisecond."""
    return avro.long((moment - _EPOCH) // _MILLISECOND)


def sha256(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


def to_json(event: AnyEvent) -> str:
    """One line of JSON: `type` first, amounts and times as strings, hashes in hexadecimal; nulls are left out where they may be."""
    said = event.model_dump(mode="json", exclude_none=True)
    stated = {name: said.get(name) for name, field in type(event).model_fields.items() if name in said or field.is_required()}
    return json.dumps({"type": event.type, **stated}, ensure_ascii=False)


def from_json(text: str | bytes) -> AnyEvent:
    """The event that a JSON object states; the inverse of `to_json`. Raises MalformedError that says where, what was expected and what
    was found: unknown fields, numbers for amounts, repeated keys and times without a zone are errors, never guessed at."""
    return from_object(parse_object(text))


def parse_object(text: str | bytes) -> dict[str, Any]:
    """The JSON object that `text` states, as strictly as `from_json`, of whatever kind."""
    try:
        if isinstance(text, bytes):
            text = text.decode()
        if text.startswith("\ufeff"):
            raise MalformedError("character 1", "JSON", "a byte order mark; save the file as UTF-8 without one")
        stated = json.loads(text, object_pairs_hook=_once, parse_int=_whole, parse_float=_no_float, parse_constant=_no_float)
    except UnicodeDecodeError:
        raise MalformedError("line", "UTF-8", "other bytes") from None
    except UnicodeEncodeError as error:
        raise MalformedError("line", "text that UTF-8 can hold", _shown(error.object[error.start : error.end])) from None
    except json.JSONDecodeError as error:
        rest = error.doc[error.pos : error.pos + 20]
        raise MalformedError(f"character {error.pos + 1}", _JSON.get(error.msg, "JSON"), _shown(rest) if rest else "the end") from None
    except RecursionError:
        raise MalformedError("line", "JSON of a few levels", "deeper nesting") from None
    if not isinstance(stated, dict):
        raise MalformedError("line", "a JSON object", type(stated).__name__)
    return stated


def from_object(stated: Mapping[str, Any]) -> AnyEvent:
    """The event that an object of `parse_object` states. Raises MalformedError."""
    stated = dict(stated)
    event_type = stated.pop("type", None)
    event_class = EVENTS.get(event_type) if isinstance(event_type, str) else None
    if event_class is None:
        raise MalformedError("type", "the name of an event ('aidtrail schemas list' prints them)", _shown(event_type))
    try:
        return event_class.model_validate_json(json.dumps(stated, ensure_ascii=False).encode(), strict=True)
    except UnicodeEncodeError as error:
        raise MalformedError("line", "text that UTF-8 can hold", _shown(error.object[error.start : error.end])) from None
    except RecursionError:
        raise MalformedError("line", "JSON of a few levels", "deeper nesting") from None
    except ValidationError as error:
        raise malformed(error) from None


def malformed(error: ValidationError) -> MalformedError:
    """The first of pydantic's errors as where, expected and found; at most 64 characters of what was found are shown, none of them raw."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "event"
    where = where if where.isascii() and where.isprintable() and len(where) <= 64 else _shown(where)
    found = "nothing" if first["type"] == "missing" else _shown(first["input"])
    expected = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in expected_by(first, _PATTERNS))
    if first["type"] == "extra_forbidden":
        near = get_close_matches(str(first["loc"][-1]), _fields_at(EVENTS.get(error.title), first["loc"][:-1]), 1)
        expected += f" (did you mean {near[0]}?)" if near else ""
    return MalformedError(where, expected, found)


def _fields_at(model: Any, where: tuple[int | str, ...]) -> list[str]:
    """The fields that an event has there."""
    for name in where:
        if model is not None and isinstance(name, str):
            model = _model_in(model.model_fields[name].annotation) if name in model.model_fields else None
    return [] if model is None else list(model.model_fields)


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 64 else f"{text[:61]}..."


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    stated = dict(pairs)
    if len(stated) != len(pairs):
        keys = [key for key, _ in pairs]
        raise MalformedError("object", "each key once", f"{_shown(next(key for key in keys if keys.count(key) > 1))} again")
    return stated


def _whole(text: str) -> int:
    if len(text) > 20:
        raise MalformedError("number", "a whole number of 64 bits", _shown(text))
    return int(text)


def _no_float(text: str) -> Any:
    raise MalformedError("number", "a whole number, or an amount as a string such as '1000.500'", _shown(text))


@cache
def _writer(event_type: str) -> tuple[int, Any]:
    newest = contract.latest(event_type)
    return newest.id, fastavro.parse_schema(newest.schema)


def schema_id_of(value: bytes | None) -> int:
    if not value:
        raise UndecodableError("a value", "none")
    if len(value) > MAX_VALUE_BYTES:
        raise UndecodableError(f"at most {MAX_VALUE_BYTES} bytes", f"{len(value)}")
    if value[0] != 0 or len(value) < HEADER_BYTES:
        raise UndecodableError("0x00 and a schema id of four bytes", f"0x{value[:HEADER_BYTES].hex()}")
    return int.from_bytes(value[1:HEADER_BYTES], "big")


@cache
def _validating(schema_id: int) -> tuple[type[AnyEvent], avro.Decoder]:
    entry = _known(schema_id)
    known = contract.latest(entry.event).schema
    return EVENTS[entry.event], avro.compile_decoder(entry.schema, known, mark="meta.ledger", recurring=CLASSES)


@cache
def _recorded(schema_id: int) -> avro.Decoder:
    entry = _known(schema_id)
    return avro.compile_decoder(entry.schema, contract.latest(entry.event).schema, mark="meta.ledger", classes=CLASSES)


def _known(schema_id: int) -> contract.Published:
    entry = contract.published().get(schema_id)
    if entry is None:
        raise UndecodableError("the id of a published schema", str(schema_id), position=1)
    return entry


def event_id_at(milliseconds: int, seed: bytes) -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7) of that time whose 74 random bits are the first of SHA-256(seed): the same again for the same input,
    so that who computes it twice submits the same event twice."""
    digest = int.from_bytes(sha256(seed)[:10], "big")
    value = (milliseconds & (2**48 - 1)) << 80 | 7 << 76 | ((digest >> 62) & 0xFFF) << 64 | 2 << 62 | (digest & (2**62 - 1))
    return UUID(int=value)
