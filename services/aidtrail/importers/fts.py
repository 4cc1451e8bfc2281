"""Flows of UN OCHA's Financial Tracking Service (FTS), one JSON object a line, as observed donations.

FTS states what somebody reported: a pledge, a commitment or a payment. It states no approval, no settlement by a bank and no receipt, so
none is made up here. One flow is one donation, `FTS-<flow id>`:

| FTS | Aidtrail |
|---|---|
| pledge | PledgeAnnounced |
| commitment | PledgeAnnounced, PledgeConfirmed (agreement_reference = refCode) |
| paid | PledgeAnnounced, DisbursementSettled on the flow's own leg `FTS-<flow id>`, booked_on = date |
| the one source, destination organisation | from_party, to_party of the own leg; FTS-UNSTATED for none, FTS-SEVERAL for more |
| parentFlowId | the parent's legs before the own one, which names the last of them as its parent |
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
newMoney is no event's field, it stays in `Translated`: sums over flows count money that is passed on once for each flow.

Event ids follow from the flow's id, version and dates: who imports a file twice submits the same bytes twice. What the log already
holds of a flow is told by `imported`; then only what is missing or newer is submitted, a newer version as PledgeAmended. A payment that
a newer version states differently is returned (kind 'other') and settled anew, as FTS does not say what happened between the two.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple
from uuid import UUID

from aidtrail.codec import event_id_at
from aidtrail.domain import events as e
from aidtrail.domain.money import Money, total
from aidtrail.errors import UsageError
from aidtrail.importers.fts_line import EPOCH, Flow, Line, Note, PartyRow, Refused, donation_id_of, flow_of, shown, text_of

CHANNEL = "fts"
REPORTER = e.Actor(actor_id="fts-import", party_id="OCHA-FTS", role="reporter")
SINCE = datetime(1992, 1, 1, tzinfo=UTC)
"""FTS has kept records since 1992. Its organisations have no date of their own, so each is registered as of then: the same organisation
is the same event in every import."""

MAX_DEPTH = 32
"""Legs above a flow. FTS has chains of a few; a longer one is a mistake in the file."""

_REFERENCE = re.compile(r"flow [0-9]+ version ([0-9]+)\b", re.ASCII)


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
        return donation_id_of(self.flow_id)


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
                    if number == 1 and (text.strip() in (b"{", b"[") or b'"flows"' in text):
                        raise UsageError(
                            f"{path}: expected FTS flows, one JSON object a line, found an answer of FTS as it came; "
                            "make lines of it with jq -c '.data.flows[]'"
                        )
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


# --- the corpus ---------------------------------------------------------------------------------------------------------------------


class _Translation:
    """One run: reads all lines, keeps the newest version of each flow, then plans each flow after its parent."""

    def __init__(self, imported: Callable[[str], Imported | None]) -> None:
        self._imported = imported
        self._flows: dict[str, Flow] = {}
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
        versions: defaultdict[str, list[Flow]] = defaultdict(list)
        read = 0
        for read, line in enumerate(lines, start=1):
            self._order.setdefault((line.file, line.number), read)
            try:
                flow = flow_of(line)
                versions[flow.flow_id].append(flow)
            except Refused as refused:
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
                    self._refuse(flow.file, flow.line, Refused("contradiction", expected, f"another in {found}", flow_id))
        return read

    def _refuse(self, file: str, line: int, refused: Refused) -> None:
        self._refusals.append(Refusal(file, line, refused.flow_id, refused.reason, refused.expected, shown(refused.found)))

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
                    self._refuse(flow.file, flow.line, Refused("cycle", "parents that end at a flow without one", found, one))
                    self._routes[one] = None
                return below[: below.index(at)][::-1]
            chain[at] = None
            at = self._flows[at].parent_id
        return list(chain)[::-1]

    def _plan(self, flow: Flow) -> None:
        try:
            self._submit(flow, self._imported(donation_id_of(flow.flow_id)))
        except Refused as refused:
            self._routes[flow.flow_id] = None
            self._orphans.pop(flow.flow_id, None)
            self._refuse(flow.file, flow.line, Refused(refused.reason, refused.expected, refused.found, flow.flow_id))

    def _route_of(self, flow: Flow, state: Imported | None) -> tuple[e.Leg, ...]:
        own = flow.own_leg
        if flow.parent_id is None:
            return (own,)
        above = self._routes.get(flow.parent_id)
        if above is None and (parent := self._imported(donation_id_of(flow.parent_id))):
            above = parent.route
        if above is None and state and donation_id_of(flow.parent_id) in [leg.leg_id for leg in state.route[-2:-1]]:
            above = state.route[:-1]
        # Once announced without its parent, a flow keeps its own leg as the root if the parent would bring another donor: a pledge's
        # donor never changes.
        if above is None or (state and state.donor != above[0].from_party and state.donor == own.from_party):
            self._orphans[flow.flow_id] = Orphan(flow.flow_id, flow.parent_id)
            return (own,)
        if len(above) >= MAX_DEPTH:
            raise Refused("depth", f"at most {MAX_DEPTH} flows above a flow", len(above))
        if any(leg.leg_id == own.leg_id for leg in above):
            raise Refused("cycle", "parents that end at a flow without one", f"flow {flow.parent_id} is below it in the log")
        return (*above, own.model_copy(update={"parent_leg_id": above[-1].leg_id}))

    def _submit(self, flow: Flow, state: Imported | None) -> None:
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


def _continues(flow: Flow, donor: str, state: Imported) -> None:
    """Whether the flow can follow what the log holds of it."""
    if flow.version < state.version:
        raise Refused("older_version", f"version {state.version}, which is imported, or a newer one", flow.version)
    if (donor, flow.contribution) != (state.donor, state.contribution):
        raise Refused("fixed_terms", f"donor {state.donor} and {state.contribution}, as announced", f"{donor} and {flow.contribution}")
    if flow.version == state.version and (flow.destination, (flow.amount,)) != (state.beneficiary, state.amounts):
        expected = f"{state.beneficiary} and {', '.join(map(str, state.amounts))}, as imported of this version"
        raise Refused("contradiction", expected, f"{flow.destination} and {flow.amount}")


def _paid_already(flow: Flow, state: Imported) -> bool:
    standing = {currency: amount for currency, amount in total(state.standing.values()).items() if amount}
    stated = {flow.amount.currency: flow.amount.amount} if flow.amount.amount else {}
    return bool(state.standing) and standing == stated


class _Submission:
    """The events of one flow, in order."""

    def __init__(self, flow: Flow, orphan: bool) -> None:
        self._flow = flow
        self._reference = flow.reference + (f"; parent flow {flow.parent_id} not in this import" if orphan else "")
        self._id = donation_id_of(flow.flow_id)
        self.events: list[e.Event] = []

    def _meta(self, event_type: type[e.Event], occurred_on: datetime, distinct: str = "") -> e.Meta:
        flow = self._flow
        return e.Meta(
            event_id=_event_id(occurred_on, f"{CHANNEL}/{flow.flow_id}/{flow.version}/{event_type.type}/{distinct}"),
            donation_id=self._id,
            occurred_on=occurred_on,
            actor=REPORTER,
            source=e.Source(channel=CHANNEL, reference=text_of(self._reference, "reference")),
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
    return event_id_at((when - EPOCH) // timedelta(milliseconds=1), seed.encode())


def _registry(flows: Sequence[Flow], notes: list[Note]) -> tuple[e.RegistryEvent, ...]:
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
