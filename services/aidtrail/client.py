"""A client of the gateway, for services in Python that speak HTTP rather than Kafka.

    with Client("https://aidtrail.example.org", token) as client:
        pledge = PledgeConfirmed(meta=client.meta("KRCS-2025-0042"), agreement_reference="MOU 12")
        match client.submit(pledge, wait_seconds=10):
            case Admitted(donation=donation): ...
            case Refused(reason=reason, expected=expected, found=found): ...
            case Pending() | Unknown(): ...     # ask again with client.outcome(event_id), or submit the same event again

An event's id is its Idempotency-Key; of a signed event it is the id in the log too. So one event can be submitted again as often as need
be, after a crash too if it was kept: it has one effect and one outcome. What is tried again here, and what is told as unknown, follows
from that.
"""

import json
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from types import TracebackType
from typing import Any, NamedTuple, Self
from uuid import UUID

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import AwareDatetime, BaseModel, ConfigDict

from aidtrail.codec import encode, event_id_at, from_object
from aidtrail.domain.events import Actor, Event, Evidence, Meta, Sha256, Source
from aidtrail.errors import ProblemError, UnavailableError
from aidtrail.routes import ABOUT, ROUTES
from aidtrail.signatures import PAYLOAD_TYPE, sign

PATIENCE_SECONDS = 30.0
TIMEOUT_SECONDS = 15.0
"""Without an answer; beyond the seconds that the gateway was asked to wait for the outcome."""
SILENT_SECONDS = 45.0
"""Of the feed, which says every 15 seconds that it is still there."""
MAX_WAIT_SECONDS = 30
"""That the gateway waits in one request."""
_AGAIN = (429, 502, 503, 504)
"""Statuses that say: not now, try again."""
_ROUTES = {route.event: route for route in ROUTES}


# --- what the gateway says ------------------------------------------------------------------------------------------------------------


class Said(BaseModel):
    """Base of what is read. Fields of later releases are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Me(Said):
    """The actor that the token stands for."""

    actor_id: str
    party_id: str
    roles: tuple[str, ...]


class Amounts(Said):
    """Of one currency: never to be added to those of another."""

    currency: str
    pledged: Decimal
    approved: Decimal
    in_flight: Decimal
    settled: Decimal
    returned: Decimal
    passed_on: Decimal
    held: Decimal
    received: Decimal
    acknowledged: Decimal
    utilised: Decimal


class Donation(Said):
    """Where a donation stands: the headline, four axes, and amounts, one for each currency."""

    donation_id: str
    version: int
    oversight: str
    contribution: str
    donor: str
    beneficiary: str
    parties: tuple[str, ...]
    legs: tuple[str, ...]
    mechanisms: tuple[str, ...]
    terms_sha256: Sha256
    purpose: str | None
    headline: str
    pledge: str
    approval: str
    disbursement: str
    receipt: str
    announced_on: AwareDatetime
    changed_at: AwareDatetime
    next_deadline: AwareDatetime | None
    amounts: tuple[Amounts, ...]


class Approval(Said):
    """A request to a mechanism. `requested` and `granted` are amounts by currency."""

    donation_id: str
    approval_id: str
    mechanism_id: str
    state: str
    legs: tuple[str, ...]
    requested: dict[str, Decimal]
    granted: dict[str, Decimal]
    requested_by: str
    requested_for: str
    requested_on: AwareDatetime
    approvals_required: int
    approvals: int
    deciders: tuple[str, ...]
    valid_until: AwareDatetime | None
    signatures_missing: int
    waiting_seconds: int | None


class Entry(Said):
    """A record of the log: what was admitted, refused or is void. `event` is what it holds, as JSON
    has it."""

    partition: int
    offset: int
    donation_id: str | None
    outcome: str
    version: int | None
    event_type: str | None
    event_id: UUID | None
    actor_id: str | None
    party_id: str | None
    recorded_at: AwareDatetime | None
    void_reason: str | None
    sha256: Sha256
    event: dict[str, Any] | None

    def typed(self) -> Event | None:
        """Its event. Raises MalformedError for one of which a later release says more than this one knows."""
        if self.event is None or self.event_type is None:
            return None
        found = from_object({"type": self.event_type, **self.event})
        return found if isinstance(found, Event) else None


class Page(NamedTuple):
    """Of the feed. `after` is where it goes on: keep it together with what was made of the entries."""

    entries: Sequence[Entry]
    after: str


class Admitted(NamedTuple):
    """The ledger admitted the event. `donation` is its status since, for those who may see it."""

    event_id: UUID
    version: int
    donation: Donation | None


class Refused(NamedTuple):
    """The ledger refused the event: the rule's name, and its words. The refusal is on record."""

    event_id: UUID
    reason: str
    expected: str
    found: str


class Pending(NamedTuple):
    """The log has the event, and the ledger has not ruled on it in the time that was given."""

    event_id: UUID


class Unknown(NamedTuple):
    """Nobody could say whether the log has the event. To submit the same event again is safe; `event_id` is None where no answer came."""

    event_id: UUID | None


Outcome = Admitted | Refused | Pending | Unknown


# --- the client -----------------------------------------------------------------------------------------------------------------------


class Client:
    """Any thread may use it. `token` is an access token, or a function that gives one which is still valid. With `key`, the caller's own
    (`keys.read_actor_key`), it signs what it submits. `transport` is httpx's, for client certificates and proxies.

    Every method raises ProblemError for what trying again does not help against, and UnavailableError when the gateway could not be asked
    for `patience_seconds`; until then what is safe is tried again, at the pace that the gateway asks for.
    """

    def __init__(
        self,
        url: str,
        token: str | Callable[[], str],
        *,
        key: Ed25519PrivateKey | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._token = token if callable(token) else lambda: token
        self._key = key
        self._patience_seconds = patience_seconds
        self._http = httpx.Client(base_url=url, transport=transport, timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @cached_property
    def me(self) -> Me:
        """Who the gateway takes the caller for."""
        return Me.model_validate(self._get("/v1/me")[0])

    def meta(
        self,
        donation_id: str,
        *,
        role: str | None = None,
        occurred_on: datetime | None = None,
        evidence: Sequence[Evidence] = (),
        causation_id: UUID | None = None,
        correlation_id: UUID | None = None,
    ) -> Meta:
        """For a new event of the caller's, which happened now if nothing else is said. `role` may be left out by who has but one."""
        if role is None:
            if len(self.me.roles) != 1:
                raise ValueError(f"role: expected one of {', '.join(self.me.roles)}, found none")
            (role,) = self.me.roles
        now = datetime.now(UTC)
        return Meta(
            event_id=event_id_at(int(now.timestamp() * 1000), secrets.token_bytes(16)),
            donation_id=donation_id,
            occurred_on=occurred_on or now,
            actor=Actor(actor_id=self.me.actor_id, party_id=self.me.party_id, role=role),
            source=Source(channel="http"),
            causation_id=causation_id,
            correlation_id=correlation_id,
            evidence=tuple(evidence),
        )

    def submit(self, event: Event, *, wait_seconds: float = 0) -> Outcome:
        """Submit an event, and wait so long for the ledger's word on it. Its actor must be the caller. In the log a signed event is
        what it is here; another has an id that the gateway derives from actor and `meta.event_id`: the outcome tells it.

        A request that got no answer, or was turned away, is sent again as it was: with the same key it is the same submission. Where the
        gateway itself does not know what became of it, it is not sent again but asked after. Raises UnavailableError when this certainly
        submitted nothing; where a request may have arrived, what is wrong with one after it is no error, but Unknown. Whatever comes of
        it, to submit the same event again is safe.
        """
        actor = event.meta.actor
        if (actor.actor_id, actor.party_id) != (self.me.actor_id, self.me.party_id):
            raise ValueError(f"meta.actor: expected {self.me.actor_id} of {self.me.party_id}, found {actor.actor_id} of {actor.party_id}")
        if self._key is not None:
            event = sign(event, self._key)
        path, body, about = _request(event)
        trying = _Trying(self._patience_seconds)
        ruled_by = time.monotonic() + wait_seconds
        may_have_arrived = False
        while True:
            wait = max(0, min(MAX_WAIT_SECONDS, round(ruled_by - time.monotonic())))
            try:
                headers = {**self._headers(), **about, **({"Prefer": f"wait={wait}"} if wait else {})}
            except Exception:  # of the caller's function that gives tokens
                if may_have_arrived:
                    return Unknown(None)
                raise
            try:
                answer = self._http.post(path, content=body, headers=headers, timeout=TIMEOUT_SECONDS + wait)
                said = _submitted(answer)
            except _LOST as error:
                may_have_arrived |= _may_have_arrived(error)
                try:
                    trying.after(error)
                except UnavailableError:
                    if may_have_arrived:
                        return Unknown(None)
                    raise
            except ProblemError as error:
                if may_have_arrived or _may_have_arrived(error):
                    return Unknown(None)
                raise
            else:
                event_id = UUID(said["event_id"])
                if answer.status_code == 202:
                    return (self._asked_after(event_id, ruled_by) if wait_seconds else None) or Pending(event_id)
                if answer.status_code == 504:
                    return self._asked_after(event_id, max(ruled_by, trying.until)) or Unknown(event_id)
                return _ruling(said)

    def outcome(self, event_id: UUID) -> Admitted | Refused | Pending | None:
        """What became of a submission, by the id that it has in the log; None where the gateway knows none, or not yet. `donation` is not
        told here."""
        return self._outcome(event_id, self._patience_seconds)

    def donation(self, donation_id: str) -> Donation | None:
        """Where a donation stands; None where there is none in the caller's sight."""
        said, answer = self._get(f"/v1/donations/{donation_id}", but=404)
        return None if answer.status_code == 404 else Donation.model_validate(said)

    def donations(self, **filters: str | datetime) -> Iterator[Donation]:
        """Those in the caller's sight by id, page after page. Filters are those of the path: party, headline, changed_since…"""
        return (Donation.model_validate(each) for each in self._listed("/v1/donations", filters))

    def approvals(self, **filters: str) -> Iterator[Approval]:
        """Requests to mechanisms, the oldest first; those that wait, if no `state` is asked for."""
        return (Approval.model_validate(each) for each in self._listed("/v1/approvals", filters))

    def history(self, donation_id: str) -> list[Entry]:
        """Every entry of a donation, refusals too; empty where there is none in the caller's sight."""
        return [Entry.model_validate(each) for each in self._listed(f"/v1/donations/{donation_id}/history", {}, but=404)]

    def entries(self, after: str = "", *, limit: int = 100) -> Page:
        """The next page of the feed of everything in the caller's sight. Empty where there is nothing new."""
        said, _ = self._get("/v1/entries", {"after": after, "limit": str(limit)})
        return Page([Entry.model_validate(each) for each in said["entries"]], said["after"])

    def follow(self, after: str = "") -> Iterator[Page]:
        """The feed as it is recorded, an entry a page, for ever; connects again by itself, from where it was. An entry comes again only to
        who goes on from an older `after`."""
        trying = _Trying(self._patience_seconds)
        while True:
            error: Exception | None = None
            answered = False
            try:
                for page in self._streamed(after):
                    answered = True
                    if page is not None:
                        after = page.after
                        yield page
            except _LOST as lost:
                error = lost
            if answered:
                trying = _Trying(self._patience_seconds)  # from now on, and not since the feed last said something
            trying.after(error)

    # --- how ---------------------------------------------------------------------------------------------------------------------------

    def _headers(self) -> dict[str, str]:
        token = self._token().strip()
        if not token.isascii() or not token.isprintable():  # else httpx says so, and shows it
            raise ValueError("token: expected printable ASCII characters, found others")
        return {"Authorization": f"Bearer {token}"}

    def _get(
        self, path: str, query: Mapping[str, str] | None = None, *, but: int = 0, seconds: float | None = None
    ) -> tuple[dict[str, Any], httpx.Response]:
        """An answer of the gateway's own with status 200 or `but`, and what it says."""
        trying = _Trying(self._patience_seconds if seconds is None else seconds)
        while True:
            try:
                answer = self._http.get(path, params=query, headers=self._headers())
                said = _said(answer)
                if (answer.status_code == 200 and said) or (answer.status_code == but and _is_the_gateways(said)):
                    return said, answer
                raise _error(answer)
            except _LOST as error:
                trying.after(error)

    def _listed(self, path: str, filters: Mapping[str, str | datetime], *, but: int = 0) -> Iterator[dict[str, Any]]:
        query: Mapping[str, str] | None = {name: each.isoformat() if isinstance(each, datetime) else each for name, each in filters.items()}
        while path:
            said, answer = self._get(path, query, but=but)
            yield from said.get("items", ())
            path, query = answer.links.get("next", {}).get("url", ""), None

    def _streamed(self, after: str) -> Iterator[Page | None]:
        """Pages; None for each word that says no more than that the feed is there."""
        headers = {**self._headers(), "Accept": "text/event-stream"}
        timeout = httpx.Timeout(TIMEOUT_SECONDS, read=SILENT_SECONDS)
        with self._http.stream("GET", "/v1/entries", params={"after": after}, headers=headers, timeout=timeout) as answer:
            if answer.status_code != 200:
                answer.read()
                raise _error(answer)
            kind = ""
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "":
                    yield None
                elif name == "id":
                    after = value
                elif name == "event":
                    kind = value
                elif name == "data":
                    yield Page([Entry.model_validate_json(value)] if kind == "entry" else [], after)

    def _asked_after(self, event_id: UUID, until: float) -> Admitted | Refused | None:
        """The ruling, if there is one by then and the gateway tells it: that it turns the question away says nothing of the submission."""
        trying = _Trying(until - time.monotonic())
        try:
            while True:
                found = self._outcome(event_id, until - time.monotonic())
                if isinstance(found, Admitted | Refused):
                    return found
                trying.after(None)
        except Exception:  # a token that ended, or one that could not be had, as much as an outage
            return None

    def _outcome(self, event_id: UUID, seconds: float) -> Admitted | Refused | Pending | None:
        said, answer = self._get(f"/v1/submissions/{event_id}", but=404, seconds=seconds)
        return None if answer.status_code == 404 else _ruling(said)


class _TurnedAway(Exception):
    """The gateway, or a proxy before it, says that it can do nothing now."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(str(_problem(answer)))
        self.certainly = answer.status_code == 429 or (answer.status_code == 503 and _is_the_gateways(_said(answer)))
        """Whether it says that it did nothing. A proxy's 503 may stand for an answer of the gateway that was lost."""
        asked = answer.headers.get("retry-after", "")
        self.pause_seconds = float(asked) if asked.isdigit() else 0.0


_LOST = (httpx.RequestError, _TurnedAway)


class _Trying:
    """How long, and how often: pauses that grow from a tenth of a second to two, spread so that not all clients come at once."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        self._pause_seconds = 0.1

    def after(self, error: Exception | None) -> None:
        """Pause before the next try, as long as was asked for or longer. Raises UnavailableError, at once, if the time would be over by
        then."""
        asked = error.pause_seconds if isinstance(error, _TurnedAway) else 0.0
        pause = max(asked, self._pause_seconds * random.uniform(0.5, 1.0))
        self._pause_seconds = min(2.0, self._pause_seconds * 1.6)
        if time.monotonic() + pause > self.until:
            raise UnavailableError(f"the gateway does not answer: {error or 'in time'}") from None
        time.sleep(pause)


def _may_have_arrived(error: Exception) -> bool:
    if isinstance(error, _TurnedAway):
        return not error.certainly
    if isinstance(error, ProblemError):
        return not 300 <= error.status < 500  # a mistake in the service, before or after the append, or an answer that cannot be read
    return not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def _request(event: Event) -> tuple[str, str | bytes, dict[str, str]]:
    """Path, body and headers. The same event gives the same."""
    route = _ROUTES.get(type(event))
    if route is None:
        raise ValueError(f"{event.type}: expected an event that people submit, found one of Aidtrail's own")
    if event.meta.signature is not None:
        return "/v1/submissions", encode(event), {"Content-Type": PAYLOAD_TYPE}
    meta = event.meta.model_dump(mode="json", exclude_none=True)
    stated = event.model_dump(mode="json", exclude_none=True, exclude={"meta"})
    fields = {field: stated.pop(field) for field in route.fields}
    body = {**stated, **{name: meta[name] for name in ABOUT if meta.get(name)}, "role": event.meta.actor.role}
    headers = {"Idempotency-Key": str(event.meta.event_id), "Content-Type": "application/json"}
    return f"/v1/donations/{event.meta.donation_id}/{route.path.format(**fields)}", json.dumps(body, ensure_ascii=False), headers


def _said(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; empty for anything else, as from a proxy."""
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _is_the_gateways(problem: Mapping[str, Any]) -> bool:
    """And not that of a proxy before it, which knows nothing of submissions or donations."""
    return str(problem.get("type")).startswith("/problems/")


def _submitted(answer: httpx.Response) -> dict[str, Any]:
    """What the gateway says of a submission."""
    said = _said(answer)
    if answer.status_code in (201, 202, 409, 504) and "event_id" in said:
        return said
    raise _error(answer)


def _ruling(said: Mapping[str, Any]) -> Admitted | Refused | Pending:
    event_id = UUID(said["event_id"])
    if said.get("outcome") == "pending":
        return Pending(event_id)
    if said.get("reason") is not None:
        return Refused(event_id, said["reason"], said["expected"], said["found"])
    donation = said.get("donation")
    return Admitted(event_id, said["version"], None if donation is None else Donation.model_validate(donation))


def _error(answer: httpx.Response) -> Exception:
    return _TurnedAway(answer) if answer.status_code in _AGAIN else _problem(answer)


def _problem(answer: httpx.Response) -> ProblemError:
    said = _said(answer)
    words = [said[name] for name in ("detail", "where") if name in said]
    if "expected" in said and "detail" not in said:
        words.append(f"expected {said['expected']}")
    if answer.is_success and not said:
        words.append(f"expected JSON, found {answer.headers.get('content-type', 'none')}")
    title = said.get("title", answer.reason_phrase)
    return ProblemError(": ".join(map(str, (f"{answer.status_code} {title}", *words))), answer.status_code, said)
