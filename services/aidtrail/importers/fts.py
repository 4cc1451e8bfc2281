"""Flows of UN OCHA's Financial Tracking Service (FTS), one JSON object a line, as observed donations.

FTS states what somebody reported: a pledge, a commitment or a payment. It states no approval, no settlement by a bank and no receipt, so
none is made up here. One flow is one donation, `FTS-<flow id>`:

| FTS | Aidtrail |
|---|---|
| pledge | PledgeAnnounced |
| commitment | PledgeAnnounced, PledgeConfirmed (agreement_reference = refCode) |
| paid | PledgeAnnounced, DisbursementSettled on the flow's own leg `FTS-<flow id>`, booked_on = date |
| the one source, destination organisation | from_party, to_party of the own leg; FTS-UNSTATED for none, FTS-SEVERAL for more |
| parentFlowId | the parent's legs before the own one, which names the last of them as its parent: the money is counted once |
| originalAmount and originalCurrency | amounts, if both are stated and the amount is not 0 or amountUSD is 0; else amountUSD is |
| amountUSD | equivalents, where amounts does not say the same; exchangeRate is never used, several of the rates are wrong |
| decisionDate, or date where it is null | occurred_on of PledgeAnnounced and PledgeConfirmed |
| date | occurred_on of DisbursementSettled |
| updatedAt, or date where it is absent | occurred_on of PledgeAmended and DisbursementReturned |
| grandBargainEarmarkingType | earmark, if it states one degree |
| versionId, reportDetails, what could not be translated | meta.source.reference |
| the line itself | its SHA-256 is meta.evidence |

Not carried: description, keywords, method, budgetYear, clusters, plans, projects, locations, boundary, the refCode of what is no
commitment. FTS names clusters, not OECD-DAC sectors, so purpose is null; its locations have no ISO code, so a party's country is null.
newMoney is no event's field: it stays in `Translated`.

Event ids follow from the flow's id, version and dates: who imports a file twice submits the same bytes twice. What the log already
holds of a flow is told by `imported`; then only what is missing or newer is submitted, a newer version as PledgeAmended. A payment that
a newer version states differently is returned (kind 'other') and settled anew, as FTS does not say what happened between the two.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unicodedata import normalize
from uuid import UUID

from aidtrail.codec import event_id_at
from aidtrail.domain import events as e
from aidtrail.domain.money import EXPONENTS, Money, total
from aidtrail.errors import UsageError

ATTRIBUTION = "UN OCHA FTS, CC BY-IGO"
CHANNEL = "fts"
REPORTER = e.Actor(actor_id="fts-import", party_id="OCHA-FTS", role="reporter")
UNSTATED = ("FTS-UNSTATED", "not stated in FTS", "unknown")
SEVERAL = ("FTS-SEVERAL", "several organisations, the split is not stated in FTS", "unknown")
SINCE = datetime(1992, 1, 1, tzinfo=UTC)
"""FTS has kept records since 1992. Its organisations have no date of their own, so each is registered as of then: the same organisation
is the same event in every import."""

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

MAX_DEPTH = 32
"""Legs above a flow. FTS has chains of a few; a longer one is a mistake in the file."""

_NUMBER = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_REFERENCE = re.compile(r"flow [0-9]+ version ([0-9]+)\b", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PartyRow = tuple[str, str, str]  # party id, name, kind


class Line(NamedTuple):
    """One line of an input file, without its line end; `number` counts from 1."""

    file: str
    number: int
    text: bytes


class Refusal(NamedTuple):
    """A line, or the newest version of a flow, that is not translated: which rule, what it expected, what it found."""

    file: str
    line: int
    flow_id: str | None
    reason: str
    expected: str
    found: str


class Repeat(NamedTuple):
    """A line whose flow stands elsewhere too: with equal content, or in a newer version. `kept` is the version that counts."""

    file: str
    line: int
    flow_id: str
    version: int
    kept: int


class Orphan(NamedTuple):
    """A flow whose parent is neither in the files nor in the log: its own leg is the root of its route."""

    flow_id: str
    parent_id: str


class Note(NamedTuple):
    """Something that was carried otherwise than it is stated, and how."""

    file: str
    line: int
    flow_id: str
    field: str
    text: str


class Translated(NamedTuple):
    """A flow that counts. `basis` says which of the two stated amounts became `amounts`. `change` is what its events are to the log."""

    flow_id: str
    version: int
    file: str
    line: int
    status: str
    flow_type: str
    contribution: e.Contribution
    new_money: bool
    basis: Literal["original", "usd"]
    change: Literal["new", "amended", "completed", "unchanged"]

    @property
    def donation_id(self) -> str:
        return _donation_id(self.flow_id)


@dataclass(frozen=True)
class Imported:
    """What the log holds of a flow. `version` is FTS's. `standing` is what was settled less what was returned, by disbursement."""

    version: int
    donor: str
    beneficiary: str
    contribution: e.Contribution
    amounts: e.Moneys
    route: tuple[e.Leg, ...]
    confirmed: bool
    standing: Mapping[str, Money]


@dataclass(frozen=True)
class Import:
    """`registry` first, then `events`, in this order. lines = len(flows) + len(repeats) + len(refusals): nothing is lost."""

    lines: int
    registry: tuple[e.RegistryEvent, ...]
    events: tuple[e.Event, ...]
    flows: tuple[Translated, ...]
    repeats: tuple[Repeat, ...]
    refusals: tuple[Refusal, ...]
    orphans: tuple[Orphan, ...]
    notes: tuple[Note, ...]


def read(paths: Sequence[Path], progress: Callable[[int], None] = lambda read_bytes: None) -> Iterator[Line]:
    """The lines of the files, in order, for `translate`. Calls `progress` with the number of bytes of each line. Raises UsageError for a
    file that cannot be read, before the first line of any if it is not there."""
    for path in paths:
        if not path.is_file():
            raise UsageError(f"{path}: expected a file of FTS flows, one JSON object a line; found none")
    for path in paths:
        try:
            with path.open("rb") as file:
                for number, text in enumerate(file, start=1):
                    progress(len(text))
                    yield Line(str(path), number, text.rstrip(b"\r\n"))
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def translate(lines: Iterable[Line], imported: Callable[[str], Imported | None] = lambda donation_id: None) -> Import:
    """All lines as one corpus. `imported` answers for a donation id what the log holds of it: `imported_from(its admitted events)`.
    Without it every flow is taken as new, and the ledger refuses what it has."""
    return _Translation(imported).run(lines)


def imported_from(events: Iterable[e.Event]) -> Imported | None:
    """What the log holds of a flow, from all admitted events of its donation, in order; None where none came by this importer.

    The version is read from `meta.source.reference` of the last PledgeAnnounced or PledgeAmended ('flow 1 version 2, ...'): after an import
    that was cut short, what is missing is submitted by the next, with the same ids."""
    state: Imported | None = None
    for event in events:
        match event:
            case e.PledgeAnnounced() if version := _version(event):
                terms = (event.donor, event.beneficiary, event.contribution, event.amounts, event.route)
                state = Imported(version, *terms, confirmed=False, standing={})
            case _ if state is None:
                continue
            case e.PledgeAmended():
                version = _version(event) or state.version
                state = replace(state, version=version, beneficiary=event.beneficiary, amounts=event.amounts, route=event.route)
            case e.PledgeConfirmed():
                state = replace(state, confirmed=True)
            case e.DisbursementSettled():
                state = replace(state, standing={**state.standing, event.disbursement_id: event.amount})
            case e.DisbursementReturned() if settled := state.standing.get(event.disbursement_id):
                left = Money(amount=settled.amount - event.amount.amount, currency=settled.currency)
                state = replace(state, standing={**state.standing, event.disbursement_id: left})
    return state


def _version(event: e.Event) -> int:
    """The version of the flow that an event of this importer states; 0 for an event that came by another channel."""
    stated = _REFERENCE.match(event.meta.source.reference or "") if event.meta.source.channel == CHANNEL else None
    return int(stated[1]) if stated else 0


# --- one line -----------------------------------------------------------------------------------------------------------------------


class _Refused(Exception):
    def __init__(self, reason: str, expected: str, found: object, flow_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.expected, self.found, self.flow_id = reason, expected, found, flow_id


@dataclass(frozen=True)
class _Flow:
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
        return e.Leg(leg_id=_donation_id(self.flow_id), from_party=self.source, to_party=self.destination)


def _donation_id(flow_id: str) -> str:
    return f"FTS-{flow_id}"


def _flow(line: Line) -> _Flow:
    stated = _json(line.text)
    flow_id = _number(stated, "id", "flow_id")
    try:
        return _translated(line, stated, flow_id)
    except _Refused as refused:
        raise _Refused(refused.reason, refused.expected, refused.found, flow_id) from None


def _translated(line: Line, stated: dict[str, Any], flow_id: str) -> _Flow:
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
        raise _Refused("reports", "reportDetails as a list of objects", reports)
    reporters = dict.fromkeys(_text(report["organization"], "reportDetails") for report in reports if report.get("organization"))
    reference = f"flow {flow_id} version {version}, reported by {'; '.join(reporters) or 'nobody stated'}"
    for side, organisations in (("source", sources), ("destination", destinations)):
        if len(organisations) > 1:
            reference += f"; {side} organisations: {', '.join(row[0] for row in organisations)}"
    return _Flow(
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
        reference=_text(reference, "reference"),
        notes=tuple(notes),
    )


def _json(text: bytes) -> dict[str, Any]:
    try:
        stated = json.loads(text.decode(), parse_float=Decimal, parse_constant=_no_number, object_pairs_hook=_once)
    except (ValueError, ArithmeticError, RecursionError) as error:  # UTF-8, JSON, a number out of all bounds, nesting
        raise _Refused("json", "a JSON object", str(error)) from None
    if not isinstance(stated, dict):
        raise _Refused("json", "a JSON object", type(stated).__name__)
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
        raise _Refused(reason, f"{key} as a whole number from 1 of at most 18 digits", value)
    return text


def _one_of(stated: Mapping[str, Any], key: str, known: Iterable[str]) -> str:
    value = stated.get(key)
    if isinstance(value, str) and value in known:
        return value
    raise _Refused("status" if key == "status" else "contribution", f"{key} one of {', '.join(known)}", value)


def _text(value: object, where: str) -> str:
    """In Unicode normal form C, which changes no character that is seen. Nothing else is replaced."""
    text = normalize("NFC", value) if isinstance(value, str) else ""
    if not text.strip() or not text.isprintable() or len(text) > 2000:
        raise _Refused("text", f"{where} of 1 to 2000 characters, none of them a control character", value)
    return text


def _time(stated: Mapping[str, Any], key: str) -> datetime:
    value = stated.get(key)
    try:
        when = datetime.fromisoformat(value) if isinstance(value, str) else None
        if when and when.tzinfo and when >= _EPOCH:
            return when.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise _Refused("date", f"{key} as a time with its zone, from 1970 on, such as 2020-12-21T00:00:00Z", value)


def _organisations(stated: Mapping[str, Any], key: str) -> tuple[PartyRow, ...]:
    """Each organisation of one side once, in the order stated."""
    objects = stated.get(key)
    if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
        raise _Refused("organisations", f"{key} as a list of objects", objects)
    rows: dict[str, PartyRow] = {}
    for one in objects:
        if one.get("type") == "Organization":
            party_id = f"FTS-{_number(one, 'id', 'organisation_id')}"
            types = one.get("organizationTypes")
            kind = KINDS.get(str(types[0]), "organisation") if isinstance(types, list) and len(types) == 1 else "organisation"
            rows.setdefault(party_id, (party_id, _text(one.get("name"), "the name of an organisation"), kind))
    return tuple(rows.values())


def _party(organisations: tuple[PartyRow, ...]) -> PartyRow:
    if len(organisations) == 1:
        return organisations[0]
    return SEVERAL if organisations else UNSTATED


def _amounts(stated: Mapping[str, Any]) -> tuple[Money, e.Moneys, Literal["original", "usd"], Money]:
    usd = _money(stated, "amountUSD", "USD")
    original, currency = stated.get("originalAmount"), stated.get("originalCurrency")
    if currency is not None and (not isinstance(currency, str) or currency not in EXPONENTS):
        raise _Refused("currency", "originalCurrency as a code of ISO 4217", currency)
    if original is not None and currency is None:
        raise _Refused("currency", "originalCurrency where originalAmount is stated", currency)
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
        raise _Refused("amount", f"{key} as a number", value)
    if not 0 <= value < 10**15:
        raise _Refused("amount", f"{key} from 0 to less than 10^15", value)
    digits = EXPONENTS[currency]
    amount = Decimal(value)
    if amount != amount.quantize(Decimal(1).scaleb(-digits)):
        raise _Refused("amount_digits", f"{key} with at most {digits} digits after the point, as {currency} has", value)
    return Money(amount=amount, currency=currency)


def _agreement(stated: Mapping[str, Any], note: Callable[[str, str], None]) -> str | None:
    """Many refCodes hold tabs, which no text of an event may: those characters are written as JSON writes them, and that is noted."""
    value = stated.get("refCode")
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise _Refused("text", "refCode as text", value)
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    if plain != value:
        note("refCode", f"unprintable characters are written as escapes: {plain}")
    return _text(plain, "refCode")


def _earmark(stated: Mapping[str, Any], note: Callable[[str, str], None]) -> int | None:
    value = stated.get("grandBargainEarmarkingType")
    if value is None or value == []:
        return None
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str) and value[0] in EARMARKS:
        return EARMARKS[value[0]]
    note("grandBargainEarmarkingType", f"not one degree of the Grand Bargain, so none is carried: {_shown(value)}")
    return None


def _shown(value: object) -> str:
    text = value if isinstance(value, str) and value.isprintable() else ascii(value)
    text = "nothing" if value is None else text or "''"
    return text if len(text) <= 64 else f"{text[:61]}..."


# --- the corpus ---------------------------------------------------------------------------------------------------------------------


class _Translation:
    """One run: reads all lines, keeps the newest version of each flow, then plans each flow after its parent."""

    def __init__(self, imported: Callable[[str], Imported | None]) -> None:
        self._imported = imported
        self._flows: dict[str, _Flow] = {}
        self._routes: dict[str, tuple[e.Leg, ...] | None] = {}  # of each planned flow; None where it is refused
        self._events: dict[str, list[e.Event]] = {}
        self._translated: dict[str, Translated] = {}
        self._repeats: list[Repeat] = []
        self._refusals: list[Refusal] = []
        self._orphans: dict[str, Orphan] = {}
        self._order: dict[tuple[str, int], int] = {}

    def run(self, lines: Iterable[Line]) -> Import:
        read = self._read(lines)
        for flow_id in self._flows:
            for above in self._unplanned_chain(flow_id):
                self._plan(self._flows[above])
        kept = [flow for flow_id, flow in self._flows.items() if flow_id in self._translated]
        notes = [note for flow in kept for note in flow.notes]
        return Import(
            lines=read,
            registry=_registry(kept, notes),
            events=tuple(event for flow in kept for event in self._events[flow.flow_id]),
            flows=tuple(self._translated[flow.flow_id] for flow in kept),
            repeats=tuple(sorted(self._repeats, key=lambda repeat: self._order[repeat.file, repeat.line])),
            refusals=tuple(sorted(self._refusals, key=lambda refusal: self._order[refusal.file, refusal.line])),
            orphans=tuple(self._orphans[flow.flow_id] for flow in kept if flow.flow_id in self._orphans),
            notes=tuple(notes),
        )

    def _read(self, lines: Iterable[Line]) -> int:
        versions: defaultdict[str, list[_Flow]] = defaultdict(list)
        read = 0
        for read, line in enumerate(lines, start=1):
            self._order.setdefault((line.file, line.number), read)
            try:
                flow = _flow(line)
                versions[flow.flow_id].append(flow)
            except _Refused as refused:
                self._refuse(line.file, line.number, refused)
        for flow_id, flows in versions.items():
            newest = max(flow.version for flow in flows)
            candidates = [flow for flow in flows if flow.version == newest]
            agreed = len({flow.content for flow in candidates}) == 1
            if agreed:
                self._flows[flow_id] = candidates[0]
            for flow in flows:
                if flow.version < newest or (agreed and flow is not candidates[0]):
                    self._repeats.append(Repeat(flow.file, flow.line, flow_id, flow.version, newest))
                elif not agreed:
                    found = ", ".join(f"{other.file} line {other.line}" for other in candidates if other is not flow)
                    expected = f"one content of version {newest} of a flow"
                    self._refuse(flow.file, flow.line, _Refused("contradiction", expected, f"another in {found}", flow_id))
        return read

    def _refuse(self, file: str, line: int, refused: _Refused) -> None:
        self._refusals.append(Refusal(file, line, refused.flow_id, refused.reason, refused.expected, _shown(refused.found)))

    def _unplanned_chain(self, flow_id: str) -> list[str]:
        """The flow and those above it that are not planned yet, topmost first. The flows of a cycle are refused here."""
        chain: dict[str, None] = {}
        at: str | None = flow_id
        while at is not None and at in self._flows and at not in self._routes:
            if at in chain:
                below = list(chain)
                cycle = below[below.index(at) :]
                for one in cycle:
                    flow = self._flows[one]
                    found = f"flow {flow.parent_id} above it, and itself above that: {len(cycle)} flows in a ring"
                    self._refuse(flow.file, flow.line, _Refused("cycle", "parents that end at a flow without one", found, one))
                    self._routes[one] = None
                return below[: below.index(at)][::-1]
            chain[at] = None
            at = self._flows[at].parent_id
        return list(chain)[::-1]

    def _plan(self, flow: _Flow) -> None:
        try:
            self._submit(flow, self._imported(_donation_id(flow.flow_id)))
        except _Refused as refused:
            self._routes[flow.flow_id] = None
            self._orphans.pop(flow.flow_id, None)
            self._refuse(flow.file, flow.line, _Refused(refused.reason, refused.expected, refused.found, flow.flow_id))

    def _route_of(self, flow: _Flow, state: Imported | None) -> tuple[e.Leg, ...]:
        own = flow.own_leg
        if flow.parent_id is None:
            return (own,)
        above = self._routes.get(flow.parent_id)
        if above is None and (parent := self._imported(_donation_id(flow.parent_id))):
            above = parent.route
        if above is None and state and _donation_id(flow.parent_id) in [leg.leg_id for leg in state.route[-2:-1]]:
            above = state.route[:-1]
        # Once announced without its parent, a flow keeps its own leg as the root if the parent would bring another donor: a pledge's
        # donor never changes.
        if above is None or (state and state.donor != above[0].from_party and state.donor == own.from_party):
            self._orphans[flow.flow_id] = Orphan(flow.flow_id, flow.parent_id)
            return (own,)
        if len(above) >= MAX_DEPTH:
            raise _Refused("depth", f"at most {MAX_DEPTH} flows above a flow", len(above))
        if any(leg.leg_id == own.leg_id for leg in above):
            raise _Refused("cycle", "parents that end at a flow without one", f"flow {flow.parent_id} is below it in the log")
        return (*above, own.model_copy(update={"parent_leg_id": above[-1].leg_id}))

    def _submit(self, flow: _Flow, state: Imported | None) -> None:
        route = self._route_of(flow, state)
        donor = route[0].from_party
        if state is not None:
            _continues(flow, donor, state)
        submission = _Submission(flow, orphan=flow.flow_id in self._orphans)
        change: Literal["new", "amended", "completed", "unchanged"] = "new"
        if state is None:
            submission.announce(route)
        elif state.version < flow.version or state.route != route:
            submission.amend(route, state)
            change = "amended"
        if flow.status == "commitment" and not (state and state.confirmed):
            submission.confirm()
        if flow.status == "paid" and not (state and _paid_already(flow, state)):
            submission.settle(renewed=bool(state and state.standing))
        if change == "new" and state is not None:
            change = "completed" if submission.events else "unchanged"
        self._routes[flow.flow_id] = route
        self._events[flow.flow_id] = submission.events
        self._translated[flow.flow_id] = Translated(
            flow.flow_id,
            flow.version,
            flow.file,
            flow.line,
            flow.status,
            flow.flow_type,
            flow.contribution,
            flow.new_money,
            flow.basis,
            change,
        )


def _continues(flow: _Flow, donor: str, state: Imported) -> None:
    """Whether the flow can follow what the log holds of it."""
    if flow.version < state.version:
        raise _Refused("older_version", f"version {state.version}, which is imported, or a newer one", flow.version)
    if (donor, flow.contribution) != (state.donor, state.contribution):
        raise _Refused("fixed_terms", f"donor {state.donor} and {state.contribution}, as announced", f"{donor} and {flow.contribution}")
    if flow.version == state.version and (flow.destination, (flow.amount,)) != (state.beneficiary, state.amounts):
        expected = f"{state.beneficiary} and {', '.join(map(str, state.amounts))}, as imported of this version"
        raise _Refused("contradiction", expected, f"{flow.destination} and {flow.amount}")


def _paid_already(flow: _Flow, state: Imported) -> bool:
    standing = {currency: amount for currency, amount in total(state.standing.values()).items() if amount}
    stated = {flow.amount.currency: flow.amount.amount} if flow.amount.amount else {}
    return bool(state.standing) and standing == stated


class _Submission:
    """The events of one flow, in order."""

    def __init__(self, flow: _Flow, orphan: bool) -> None:
        self._flow = flow
        self._reference = flow.reference + (f"; parent flow {flow.parent_id} not in this import" if orphan else "")
        self._id = _donation_id(flow.flow_id)
        self.events: list[e.Event] = []

    def _meta(self, event_type: type[e.Event], occurred_on: datetime, distinct: str = "") -> e.Meta:
        flow = self._flow
        return e.Meta(
            event_id=_event_id(occurred_on, f"{CHANNEL}/{flow.flow_id}/{flow.version}/{event_type.type}/{distinct}"),
            donation_id=self._id,
            occurred_on=occurred_on,
            actor=REPORTER,
            source=e.Source(channel=CHANNEL, reference=_text(self._reference, "reference")),
            evidence=(e.Evidence(kind="fts-flow", sha256=flow.sha256),),
        )

    def announce(self, route: tuple[e.Leg, ...]) -> None:
        flow = self._flow
        self.events.append(
            e.PledgeAnnounced(
                meta=self._meta(e.PledgeAnnounced, flow.decided),
                oversight=e.Oversight.OBSERVED,
                contribution=flow.contribution,
                donor=route[0].from_party,
                beneficiary=flow.destination,
                route=route,
                earmark=flow.earmark,
                amounts=(flow.amount,),
                equivalents=flow.equivalents,
            )
        )

    def confirm(self) -> None:
        meta = self._meta(e.PledgeConfirmed, self._flow.decided)
        self.events.append(e.PledgeConfirmed(meta=meta, agreement_reference=self._flow.agreement_reference))

    def settle(self, renewed: bool) -> None:
        flow = self._flow
        self.events.append(
            e.DisbursementSettled(
                meta=self._meta(e.DisbursementSettled, flow.dated),
                disbursement_id=f"{self._id}-V{flow.version}" if renewed else self._id,
                leg_id=self._id,
                amount=flow.amount,
                booked_on=flow.dated.date(),
            )
        )

    def amend(self, route: tuple[e.Leg, ...], state: Imported) -> None:
        """The new terms; before them the return of payments that they no longer state, so that no more is settled than is pledged."""
        flow = self._flow
        if state.version < flow.version:
            reason = f"FTS states version {flow.version} in place of version {state.version}, worth {flow.usd}"
        else:
            reason = f"the route above flow {flow.flow_id} is stated otherwise now"
        if not (flow.status == "paid" and _paid_already(flow, state)):
            for disbursement_id, money in state.standing.items():
                if money.amount:
                    meta = self._meta(e.DisbursementReturned, flow.updated, disbursement_id)
                    kind = e.ReturnKind.OTHER
                    self.events.append(
                        e.DisbursementReturned(meta=meta, disbursement_id=disbursement_id, amount=money, kind=kind, reason=reason)
                    )
        legs = ",".join(f"{leg.leg_id}:{leg.from_party}:{leg.to_party}" for leg in route)
        self.events.append(
            e.PledgeAmended(
                meta=self._meta(e.PledgeAmended, flow.updated, legs),
                beneficiary=flow.destination,
                route=route,
                earmark=flow.earmark,
                amounts=(flow.amount,),
                reason=reason,
            )
        )


def _event_id(when: datetime, seed: str) -> UUID:
    return event_id_at((when - _EPOCH) // timedelta(milliseconds=1), seed.encode())


def _registry(flows: Sequence[_Flow], notes: list[Note]) -> tuple[e.RegistryEvent, ...]:
    """The reporter, then each organisation once, in the order of the flows. A name that differs from the first is noted."""
    rows: dict[str, PartyRow] = {REPORTER.party_id: (REPORTER.party_id, "UN OCHA Financial Tracking Service", "agency")}
    for flow in flows:
        for row in flow.parties:
            first = rows.setdefault(row[0], row)
            if first != row:
                notes.append(
                    Note(flow.file, flow.line, flow.flow_id, row[0], f"stated as {row[1]}, {row[2]}; kept: {first[1]}, {first[2]}")
                )
    registered: list[e.RegistryEvent] = []
    for party_id, name, kind in rows.values():
        event_id = _event_id(SINCE, f"{CHANNEL}/party/{party_id}/{name}/{kind}")
        registered.append(e.PartyRegistered(event_id=event_id, occurred_on=SINCE, party_id=party_id, name=name, kind=kind))
    enrolled = e.ActorEnrolled(
        event_id=_event_id(SINCE, f"{CHANNEL}/actor/{REPORTER.actor_id}"),
        occurred_on=SINCE,
        actor_id=REPORTER.actor_id,
        party_id=REPORTER.party_id,
        roles=(REPORTER.role,),
    )
    return (registered[0], enrolled, *registered[1:])


# --- totals -------------------------------------------------------------------------------------------------------------------------


class Sum(NamedTuple):
    flows: int = 0
    amount: Decimal = Decimal(0)

    def plus(self, amount: Decimal) -> "Sum":
        return Sum(self.flows + 1, self.amount + amount)


class Stated(NamedTuple):
    """What one sum of `Totals.amounts` is about."""

    contribution: e.Contribution
    status: str
    basis: str
    currency: str


@dataclass(frozen=True)
class Totals:
    """Sums over the donations that the import announces; amendments are counted by `Import.flows`, not summed. In kind stands apart from
    money everywhere. `usd`, `net_new_usd` and `counted_already_usd` are by contribution and status, in USD as FTS converted it.
    Net new is where FTS says newMoney: the rest is money that another flow states too."""

    amounts: Mapping[Stated, Sum]
    usd: Mapping[tuple[e.Contribution, str], Sum]
    net_new_usd: Mapping[tuple[e.Contribution, str], Sum]
    counted_already_usd: Mapping[tuple[e.Contribution, str], Sum]


def totals(imported: Import) -> Totals:
    """From the events: a donation with a payment is paid, with a confirmation a commitment, else a pledge. Only newMoney and which of the
    two amounts was taken come from `Import.flows`, because no event states them."""
    of: dict[str, list[e.Event]] = {}
    for event in imported.events:
        of.setdefault(event.meta.donation_id, []).append(event)
    amounts: defaultdict[Stated, Sum] = defaultdict(Sum)
    usd: defaultdict[tuple[e.Contribution, str], Sum] = defaultdict(Sum)
    new: defaultdict[tuple[e.Contribution, str], Sum] = defaultdict(Sum)
    counted: defaultdict[tuple[e.Contribution, str], Sum] = defaultdict(Sum)
    for flow in imported.flows:
        announced = next((event for event in of.get(flow.donation_id, ()) if isinstance(event, e.PledgeAnnounced)), None)
        if announced is None:
            continue
        status, moneys = "pledge", announced.amounts
        for event in of[flow.donation_id]:
            if isinstance(event, e.PledgeConfirmed):
                status = "commitment"
            if isinstance(event, e.DisbursementSettled):
                status, moneys = "paid", (event.amount,)
        for money in moneys:
            stated = Stated(announced.contribution, status, flow.basis, money.currency)
            amounts[stated] = amounts[stated].plus(money.amount)
        key = announced.contribution, status
        for money in announced.equivalents or moneys:
            usd[key] = usd[key].plus(money.amount)
            apart = new if flow.new_money else counted
            apart[key] = apart[key].plus(money.amount)
    return Totals(dict(amounts), dict(usd), dict(new), dict(counted))


def summary(imported: Import) -> str:
    """For a person: what became of the lines, then the sums. Currencies, statuses, and money and goods, are never added together."""
    changes = [flow.change for flow in imported.flows]
    sums = totals(imported)
    rows = [
        f"{imported.lines:,} lines: {len(changes):,} flows, {len(imported.repeats):,} repeats, {len(imported.refusals):,} refused",
        f"flows: {', '.join(f'{changes.count(change):,} {change}' for change in ('new', 'amended', 'completed', 'unchanged'))}",
        f"{len(imported.events):,} events of donations, {len(imported.registry):,} of the registry; {len(imported.orphans):,} orphans "
        f"(parent in no file and not in the log), {len(imported.notes):,} notes",
        "",
        f"{'stated':<34}{'flows':>8}{'amount':>24}",
    ]
    for stated, found in sorted(sums.amounts.items()):
        name = f"{stated.contribution.replace('_', ' ')}, {stated.status}, {'original' if stated.basis == 'original' else 'amountUSD'}"
        rows.append(f"{name:<34}{found.flows:>8,}{_amount(found.amount, stated.currency):>24}")
    for title, by in (
        ("all in USD, as FTS converted it", sums.usd),
        ("of it net new (newMoney)", sums.net_new_usd),
        ("of it counted already in another flow", sums.counted_already_usd),
    ):
        rows += ["", title]
        for (contribution, status), found in sorted(by.items()):
            name = f"{contribution.replace('_', ' ')}, {status}"
            rows.append(f"{name:<34}{found.flows:>8,}{_amount(found.amount, 'USD'):>24}")
    return "\n".join([*rows, "", f"Source: {ATTRIBUTION}"])


def _amount(amount: Decimal, currency: str) -> str:
    return f"{amount:,.{EXPONENTS.get(currency, 2)}f} {currency}"
