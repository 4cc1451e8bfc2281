"""One line of a file of FTS flows: read strictly, and translated as far as it can be by itself."""

import codecs
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from unicodedata import normalize

from aidtrail.domain import events as e
from aidtrail.domain.money import EXPONENTS, Money

UNSTATED = ("FTS-UNSTATED", "not stated in FTS", "unknown")
SEVERAL = ("FTS-SEVERAL", "several organisations, the split is not stated in FTS", "unknown")

STATUSES = ("pledge", "commitment", "paid")
CONTRIBUTIONS = {"financial": e.Contribution.FINANCIAL, "in kind": e.Contribution.IN_KIND}
EARMARKS = {"unearmarked": 1, "softly earmarked": 2, "earmarked": 3, "tightly earmarked": 4}
"""The degrees of the Grand Bargain, annex I. 'earmarked' is its third."""

KINDS = {
    "Government": "government",
    "UN agency": "agency",
    "NGO": "ngo",
    "Pooled fund": "fund",
    "Private organization/foundation": "foundation",
    "Red Cross/Red Crescent": "society",
    "Inter-governmental": "intergovernmental",
    "Financial institution": "financial-institution",  # not 'bank': it settles nothing here
}
"""organizationTypes -> kind of party. Any other, none or several: 'organisation'."""


_NUMBER = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PartyRow = tuple[str, str, str]  # party id, name, kind


class Line(NamedTuple):
    """One line of an input file, without its line end; `number` counts from 1."""

    file: str
    number: int
    text: bytes


class Note(NamedTuple):
    """Something that was carried otherwise than it is stated, and how."""

    file: str
    line: int
    flow_id: str
    field: str
    text: str


class Refused(Exception):
    def __init__(self, reason: str, expected: str, found: object, flow_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.expected, self.found, self.flow_id = reason, expected, found, flow_id


@dataclass(frozen=True)
class Flow:
    file: str
    line: int
    sha256: bytes  # of the line
    content: bytes  # SHA-256 of what the line states, however it is written
    flow_id: str
    version: int
    status: str
    flow_type: str
    contribution: e.Contribution
    new_money: bool
    parent_id: str | None
    source: str
    destination: str
    parties: tuple[PartyRow, ...]
    amount: Money
    equivalents: e.Moneys
    basis: Literal["original", "usd"]
    usd: Money
    decided: datetime
    dated: datetime
    updated: datetime
    agreement_reference: str | None
    earmark: int | None
    reference: str
    notes: tuple[Note, ...] = field(repr=False)

    @property
    def own_leg(self) -> e.Leg:
        return e.Leg(leg_id=donation_id_of(self.flow_id), from_party=self.source, to_party=self.destination)


def donation_id_of(flow_id: str) -> str:
    return f"FTS-{flow_id}"


def flow_of(line: Line) -> Flow:
    stated = _json(line.text)
    flow_id = _number(stated, "id", "flow_id")
    try:
        return _translated(line, stated, flow_id)
    except Refused as refused:
        raise Refused(refused.reason, refused.expected, refused.found, flow_id) from None


def _translated(line: Line, stated: dict[str, Any], flow_id: str) -> Flow:
    notes: list[Note] = []

    def note(name: str, text: str) -> None:
        notes.append(Note(line.file, line.number, flow_id, name, text))

    version = int(_number(stated, "versionId", "version"))
    status = _one_of(stated, "status", STATUSES)
    contribution = CONTRIBUTIONS[_one_of(stated, "contributionType", CONTRIBUTIONS)]
    sources, destinations = _organisations(stated, "sourceObjects"), _organisations(stated, "destinationObjects")
    source, destination = _party(sources), _party(destinations)
    amount, equivalents, basis, usd = _amounts(stated)
    dated = _time(stated, "date")
    reports = stated.get("reportDetails") or []
    if not isinstance(reports, list) or not all(isinstance(report, dict) for report in reports):
        raise Refused("reports", "reportDetails as a list of objects", reports)
    reporters = dict.fromkeys(text_of(report["organization"], "reportDetails") for report in reports if report.get("organization"))
    reference = f"flow {flow_id} version {version}, reported by {'; '.join(reporters) or 'nobody stated'}"
    for side, organisations in (("source", sources), ("destination", destinations)):
        if len(organisations) > 1:
            reference += f"; {side} organisations: {', '.join(row[0] for row in organisations)}"
    return Flow(
        file=line.file,
        line=line.number,
        sha256=hashlib.sha256(line.text).digest(),
        content=hashlib.sha256(json.dumps(stated, sort_keys=True, default=str).encode()).digest(),
        flow_id=flow_id,
        version=version,
        status=status,
        flow_type=str(stated.get("flowType")),
        contribution=contribution,
        new_money=stated.get("newMoney") is True,
        parent_id=None if stated.get("parentFlowId") is None else _number(stated, "parentFlowId", "parent_flow_id"),
        source=source[0],
        destination=destination[0],
        parties=tuple(dict.fromkeys((source, destination, *sources, *destinations))),
        amount=amount,
        equivalents=equivalents,
        basis=basis,
        usd=usd,
        decided=dated if stated.get("decisionDate") is None else _time(stated, "decisionDate"),
        dated=dated,
        updated=dated if stated.get("updatedAt") is None else _time(stated, "updatedAt"),
        agreement_reference=_agreement(stated, note) if status == "commitment" else None,
        earmark=_earmark(stated, note),
        reference=text_of(reference, "reference"),
        notes=tuple(notes),
    )


def _json(text: bytes) -> dict[str, Any]:
    try:
        if text.startswith(codecs.BOM_UTF8):
            raise Refused("json", "a JSON object", "a byte order mark; save it as UTF-8 without one")
        stated = json.loads(text.decode(), parse_float=Decimal, parse_constant=_no_number, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise Refused(
            "json", "a JSON object", f"at character {error.pos + 1} {error.doc[error.pos : error.pos + 20] or 'the end'}"
        ) from None
    except (ValueError, ArithmeticError, RecursionError) as error:  # UTF-8, a number out of all bounds, nesting
        raise Refused("json", "a JSON object", str(error)) from None
    if not isinstance(stated, dict):
        raise Refused("json", "a JSON object", "a list of them: one a line" if isinstance(stated, list) else type(stated).__name__)
    return stated


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key twice in one object")
    return dict(pairs)


def _number(stated: Mapping[str, Any], key: str, reason: str) -> str:
    """FTS writes ids as strings and ids of parents as numbers; both are read in both places."""
    value = stated.get(key)
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        raise Refused(reason, f"{key} as a whole number from 1 of at most 18 digits", value)
    return text


def _one_of(stated: Mapping[str, Any], key: str, known: Iterable[str]) -> str:
    value = stated.get(key)
    if isinstance(value, str) and value in known:
        return value
    raise Refused("status" if key == "status" else "contribution", f"{key} one of {', '.join(known)}", value)


def text_of(value: object, where: str) -> str:
    """In Unicode normal form C, which changes no character that is seen. Nothing else is replaced."""
    text = normalize("NFC", value) if isinstance(value, str) else ""
    if not text.strip() or not text.isprintable() or len(text) > 2000:
        raise Refused("text", f"{where} of 1 to 2000 characters, none of them a control character", value)
    return text


def _time(stated: Mapping[str, Any], key: str) -> datetime:
    value = stated.get(key)
    try:
        when = datetime.fromisoformat(value) if isinstance(value, str) else None
        if when and when.tzinfo and when >= EPOCH:
            return when.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Refused("date", f"{key} as a time with its zone, from 1970 on, such as 2020-12-21T00:00:00Z", value)


def _organisations(stated: Mapping[str, Any], key: str) -> tuple[PartyRow, ...]:
    """Each organisation of one side once, in the order stated."""
    objects = stated.get(key)
    if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
        raise Refused("organisations", f"{key} as a list of objects", objects)
    rows: dict[str, PartyRow] = {}
    for one in objects:
        if one.get("type") == "Organization":
            party_id = f"FTS-{_number(one, 'id', 'organisation_id')}"
            types = one.get("organizationTypes")
            kind = KINDS.get(str(types[0]), "organisation") if isinstance(types, list) and len(types) == 1 else "organisation"
            rows.setdefault(party_id, (party_id, text_of(one.get("name"), "the name of an organisation"), kind))
    return tuple(rows.values())


def _party(organisations: tuple[PartyRow, ...]) -> PartyRow:
    if len(organisations) == 1:
        return organisations[0]
    return SEVERAL if organisations else UNSTATED


def _amounts(stated: Mapping[str, Any]) -> tuple[Money, e.Moneys, Literal["original", "usd"], Money]:
    usd = _money(stated, "amountUSD", "USD")
    original, currency = stated.get("originalAmount"), stated.get("originalCurrency")
    if currency is not None and (not isinstance(currency, str) or currency not in EXPONENTS):
        raise Refused("currency", "originalCurrency as a code of ISO 4217", currency)
    if original is not None and currency is None:
        raise Refused("currency", "originalCurrency where originalAmount is stated", currency)
    if original is None or currency is None:
        return usd, (), "usd", usd
    money = _money(stated, "originalAmount", currency)
    if not money.amount and usd.amount:
        return usd, (), "usd", usd
    return money, () if money == usd else (usd,), "original", usd


def _money(stated: Mapping[str, Any], key: str, currency: str) -> Money:
    """As stated: no digit is rounded away, no sign dropped."""
    value = stated.get(key)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Refused("amount", f"{key} as a number", value)
    if not 0 <= value < 10**15:
        raise Refused("amount", f"{key} from 0 to less than 10^15", value)
    digits = EXPONENTS[currency]
    amount = Decimal(value)
    if amount != amount.quantize(Decimal(1).scaleb(-digits)):
        raise Refused("amount_digits", f"{key} with at most {digits} digits after the point, as {currency} has", value)
    return Money(amount=amount, currency=currency)


def _agreement(stated: Mapping[str, Any], note: Callable[[str, str], None]) -> str | None:
    """Many refCodes hold tabs, which no text of an event may: those characters are written as JSON writes them, and that is noted."""
    value = stated.get("refCode")
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise Refused("text", "refCode as text", value)
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    if plain != value:
        note("refCode", f"unprintable characters are written as escapes: {plain}")
    return text_of(plain, "refCode")


def _earmark(stated: Mapping[str, Any], note: Callable[[str, str], None]) -> int | None:
    value = stated.get("grandBargainEarmarkingType")
    if value is None or value == []:
        return None
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str) and value[0] in EARMARKS:
        return EARMARKS[value[0]]
    note("grandBargainEarmarkingType", f"not one degree of the Grand Bargain, so none is carried: {shown(value)}")
    return None


def shown(value: object) -> str:
    text = str(value) if isinstance(value, Decimal) or (isinstance(value, str) and value.isprintable()) else ascii(value)
    text = "nothing" if value is None else text or "''"
    return text if len(text) <= 64 else f"{text[:61]}..."
