"""The client against a served gateway, with ledger and projector at work behind it, over a network that loses answers."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import httpx
import pytest

from aidtrail.client import Admitted, Client, Me, Page, Pending, Refused, Unknown
from aidtrail.domain import events as e
from aidtrail.errors import ProblemError, UnavailableError
from aidtrail.gateway import local
from aidtrail.gateway.app import create
from aidtrail.gateway.state import Gateway
from aidtrail.log.memory import MemoryLog
from tests.acts import Acts, full_life, money
from tests.brokers import free_ports
from tests.databases import Server
from tests.pipeline import TOPICS, Pipeline
from tests.serving import Served

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)


class Network(httpx.BaseTransport):
    """Carries requests as a network does that can fail. `faults` are used up, one a POST: what is answered or raised in its place, before
    the gateway has the request or after it."""

    def __init__(self, *faults: Callable[[httpx.Request], httpx.Response | None], after: bool = False) -> None:
        self.faults = list(faults)
        self.after = after
        self.posts: list[httpx.Request] = []
        self._carrier = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "POST":
            return self._carrier.handle_request(request)
        self.posts.append(request)
        fault = self.faults.pop(0) if self.faults else lambda _: None
        if self.after:
            answer = self._carrier.handle_request(request)
            answer.read()
            return fault(request) or answer
        return fault(request) or self._carrier.handle_request(request)

    def close(self) -> None:
        self._carrier.close()


def lost(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("the connection was reset", request=request)


def refused(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused", request=request)


def late(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("no answer", request=request)


def busy(request: httpx.Request) -> httpx.Response:
    said = {"type": "/problems/log-unavailable", "title": "The log is not available", "status": 503}
    return httpx.Response(503, headers={"Retry-After": "0"}, json=said)


def bad_gateway(request: httpx.Request) -> httpx.Response:
    return httpx.Response(502, text="<html>")


class Service:
    def __init__(self, url: str, pipeline: Pipeline, log: MemoryLog, home: Path) -> None:
        self.url, self.pipeline, self.log, self._home = url, pipeline, log, home

    def token(self, actor_id: str, hours: float = 1) -> str:
        return local.issue(self._home, actor_id, hours=hours, now=datetime.now(UTC).timestamp())

    def client(self, actor_id: str, network: Network | None = None, *, patience_seconds: float = 10) -> Client:
        return Client(self.url, self.token(actor_id), patience_seconds=patience_seconds, transport=network)

    def submissions(self) -> int:
        return sum(self.log.end_offsets(TOPICS.submitted).values())


@pytest.fixture(scope="module")
def service(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    database, home, log = postgres_server.create_database(), tmp_path_factory.mktemp("home"), MemoryLog()
    pipeline = Pipeline(database, tmp_path_factory.mktemp("ledger"), log)
    gateway = Gateway(lambda: log, TOPICS, database, local.local_verifier(home))
    with pipeline.running(), Served(create(gateway, TOPICS)) as served:
        yield Service(served.url, pipeline, log, home)
    pipeline.close()


def test_a_whole_donation_is_lived_and_read_with_the_client(service: Service) -> None:
    life = list(full_life("CLIENT-0001", NOW))
    for number, event in enumerate(life, 1):
        with service.client(event.meta.actor.actor_id) as client:
            found = client.submit(event, wait_seconds=20)
        assert isinstance(found, Admitted), (event.type, found)
        assert found.version == number
        assert (found.donation is None) == (event.meta.actor.party_id == "NBK")  # a bank sees no donation

    with service.client("kbh-officer") as client:
        donation, history = client.donation("CLIENT-0001"), client.history("CLIENT-0001")
    assert donation is not None
    assert (donation.version, donation.headline, donation.amounts[0].pledged) == (len(life), "closed", Decimal("1200"))
    read = [entry.typed() for entry in history]
    assert [as_said(event) for event in read if event is not None] == [as_said(event) for event in life]
    print(f"{len(life)} events submitted with the client, {len(read)} read back equal")


def test_a_history_of_many_pages_is_read_whole(service: Service) -> None:
    a = Acts("CLIENT-0900", NOW)
    service.pipeline.submit_running([a.announced(), *(a.confirmed(by="krcs-officer") for _ in range(230))])

    with service.client("krcs-officer") as client:
        history, none = client.history("CLIENT-0900"), client.history("CLIENT-0901")

    assert [entry.outcome for entry in history] == ["admitted"] + ["refused"] * 230
    assert len({entry.offset for entry in history}) == 231
    assert none == []


def as_said(event: e.Event) -> e.Event:
    """Without what the gateway and the ledger put in."""
    meta = event.meta.model_copy(update={"event_id": UUID(int=0), "source": e.Source(channel="http"), "ledger": None})
    return event.model_copy(update={"meta": meta})


def test_a_new_event_is_made_in_the_callers_name(service: Service) -> None:
    with service.client("krcs-officer") as client:
        a = Acts("CLIENT-0002", NOW)
        announced = a.announced().model_copy(update={"meta": client.meta("CLIENT-0002")})
        assert isinstance(client.submit(announced, wait_seconds=20), Admitted)
    with service.client("krcs-officer-2") as client:
        confirmed = e.PledgeConfirmed(meta=client.meta("CLIENT-0002"), agreement_reference="MOU 12")
        assert isinstance(client.submit(confirmed, wait_seconds=20), Admitted)
        assert (client.me.actor_id, client.me.party_id, client.me.roles) == ("krcs-officer-2", "KRCS", ("officer",))
    with service.client("krcs-allrounder") as client, pytest.raises(ValueError, match="role: expected one of approver, auditor"):
        client.meta("CLIENT-0002")


def test_a_refusal_is_an_outcome_with_the_rules_own_words(service: Service) -> None:
    a = Acts("CLIENT-0003", NOW)
    with service.client("krcs-officer") as client:
        client.submit(a.announced(), wait_seconds=20)
        found = client.submit(a.confirmed(by="krcs-officer"), wait_seconds=20)
        assert isinstance(found, Refused)
        assert client.outcome(found.event_id) == found
    assert found.reason == "confirmed_by_another"
    assert "krcs-officer" in found.found


def test_what_is_not_waited_for_is_pending_and_asked_after_later(service: Service) -> None:
    a = Acts("CLIENT-0004", NOW)
    ruled_on_before_the_answer_arrives = Network(lambda _: service.pipeline.wait(), after=True)
    with service.client("krcs-officer", ruled_on_before_the_answer_arrives) as client:
        found = client.submit(a.announced())
        assert isinstance(found, Pending)
        assert client.outcome(found.event_id) == Admitted(found.event_id, 1, None)
        assert client.outcome(UUID(int=7)) is None


@pytest.mark.parametrize("after", [False, True], ids=["before the gateway has the request", "after it"])
def test_a_request_without_an_answer_is_sent_again_and_has_one_effect(service: Service, after: bool) -> None:
    """Whatever was lost, and however often: each event is in the log once."""
    chance = random.Random(4 + after)
    faults = [lost, late, bad_gateway, refused, busy]
    posts = 0
    for number in range(10):
        a = Acts(f"CLIENT-1{after:d}{number:02d}", NOW)
        network = Network(*chance.choices(faults, k=chance.randint(1, 4)), after=after)
        with service.client("krcs-officer", network) as client:
            found = client.submit(a.announced(), wait_seconds=20)
            history = client.history(a.donation_id)
        assert isinstance(found, Admitted), found
        assert [(entry.event_id, entry.outcome) for entry in history] == [(found.event_id, "admitted")]
        assert len({(post.headers["idempotency-key"], post.content) for post in network.posts}) == 1
        posts += len(network.posts)
    print(f"seed {4 + after}: 10 events, {posts} requests of which {posts - 10} got no answer, 10 entries")
    assert posts > 20


def test_what_certainly_was_not_submitted_is_told_apart_from_what_may_have_been(service: Service) -> None:
    a = Acts("CLIENT-0005", NOW)
    before = service.submissions()
    with service.client("krcs-officer", Network(*[refused, busy] * 50), patience_seconds=0.5) as client, pytest.raises(UnavailableError):
        client.submit(a.announced())
    with service.client("krcs-officer", Network(*[busy, lost, refused] * 50), patience_seconds=0.5) as client:
        assert client.submit(a.announced()) == Unknown(None)
    assert service.submissions() == before

    (port,) = free_ports(1)
    with Client(f"http://127.0.0.1:{port}", "x.y.z", patience_seconds=0.5) as client, pytest.raises(UnavailableError, match="does not"):
        client.donation("CLIENT-0005")


def test_an_append_of_unknown_fate_is_asked_after_and_not_sent_again(service: Service) -> None:
    a = Acts("CLIENT-0006", NOW)
    network = Network()
    with service.client("krcs-officer", network, patience_seconds=20) as client:
        assert client.me
        service.log.fail_next_append = "after"
        found = client.submit(a.announced())
        history = client.history(a.donation_id)

    assert isinstance(found, Admitted)
    assert [entry.event_id for entry in history] == [found.event_id]
    assert len(network.posts) == 1


def test_an_append_that_never_was_stays_unknown_until_the_same_event_is_submitted_again(service: Service) -> None:
    a = Acts("CLIENT-0007", NOW)
    event = a.announced()
    with service.client("krcs-officer", patience_seconds=1.5) as client:
        assert client.me
        service.log.fail_next_append = "before"
        unknown = client.submit(event)
        assert isinstance(unknown, Unknown)
        found = client.submit(event, wait_seconds=20)
        history = client.history(a.donation_id)

    assert isinstance(found, Admitted)
    assert found.event_id == unknown.event_id
    assert [entry.event_id for entry in history] == [found.event_id]


def test_the_same_event_again_has_the_same_outcome(service: Service) -> None:
    event = Acts("CLIENT-0008", NOW).announced()
    found = []
    for _ in range(3):  # as after a crash: nothing is kept but the event
        with service.client("krcs-officer") as client:
            found.append(client.submit(event, wait_seconds=20))
    with service.client("krcs-officer") as client:
        assert len(client.history("CLIENT-0008")) == 1
    assert isinstance(found[0], Admitted)
    assert found[0] == found[1] == found[2]


def test_what_trying_again_does_not_help_against_is_a_problem(service: Service) -> None:
    a = Acts("CLIENT-0009", NOW)
    pledge = a.announced()
    with service.client("krcs-officer") as client:
        with pytest.raises(ProblemError, match="404 Not found") as absent:
            client.submit(a.confirmed(by="krcs-officer"))
        client.submit(pledge)
        with pytest.raises(ProblemError, match="422 Idempotency-Key used for another request") as reused:
            client.submit(pledge.model_copy(update={"purpose": "12220"}))
        with pytest.raises(ProblemError, match="403"):
            client.submit(pledge.model_copy(update={"meta": pledge.meta.model_copy(update={"actor": actor("krcs-officer", "reporter")})}))
        with pytest.raises(ValueError, match=r"meta\.actor: expected krcs-officer of KRCS, found krcs-officer-2 of KRCS"):
            client.submit(a.announced(by="krcs-officer-2"))
        with pytest.raises(ValueError, match="PledgeExpired: expected an event that people submit"):
            client.submit(e.PledgeExpired(meta=pledge.meta))
    assert (absent.value.status, reused.value.said["type"]) == (404, "/problems/key-reused")
    expired = service.token("krcs-officer", hours=-1)
    with Client(service.url, lambda: expired) as client, pytest.raises(ProblemError, match="401 No valid access token") as untold:
        client.donation("CLIENT-0009")
    assert untold.value.exit_code == 1


def actor(actor_id: str, role: str) -> e.Actor:
    return e.Actor(actor_id=actor_id, party_id="KRCS", role=role)


def test_a_token_is_asked_for_at_each_request(service: Service) -> None:
    given: list[str] = []

    def token() -> str:
        given.append(service.token("krcs-officer"))
        return given[-1]

    with Client(service.url, token) as client:
        client.submit(Acts("CLIENT-0010", NOW).announced(), wait_seconds=20)
        client.donation("CLIENT-0010")
    assert len(given) == 3  # me, the event, the donation


def test_lists_are_read_over_all_pages(service: Service) -> None:
    lives = [Acts(f"LIST-2026-{number:04d}", NOW) for number in range(5)]
    service.pipeline.submit_running([event for a in lives for event in (a.announced(), a.confirmed(), a.requested())])
    with service.client("krcs-auditor") as client:
        everything = [donation.donation_id for donation in client.donations(limit="2")]
        recent = list(client.donations(limit="2", changed_since=datetime.now(UTC) + timedelta(days=1)))
        queue = [approval for approval in client.approvals(limit="2") if approval.donation_id.startswith("LIST-2026")]

    assert everything == sorted(set(everything))
    assert {a.donation_id for a in lives} <= set(everything)
    assert recent == []
    assert Counter(approval.donation_id for approval in queue) == {a.donation_id: 1 for a in lives}
    assert {(each.state, each.signatures_missing, each.requested["KWD"]) for each in queue} == {("pending", 2, money("1000").amount)}


def test_the_feed_page_by_page_is_the_feed_as_it_is_followed(service: Service) -> None:
    service.pipeline.submit_running([Acts(f"FEED-2026-{number:04d}", NOW).announced() for number in range(7)])
    with service.client("krcs-auditor") as client:
        pages = [client.entries(limit=3)]
        while pages[-1].entries:
            pages.append(client.entries(pages[-1].after, limit=3))
        followed: list[Page] = []
        for page in client.follow():
            followed.append(page)
            if page.after == pages[-1].after:
                break

    read, streamed = ([entry for page in each for entry in page.entries] for each in (pages, followed))
    assert sorted(read, key=place) == sorted(streamed, key=place)
    assert len(read) == len({place(entry) for entry in read}) == sum(service.log.end_offsets(TOPICS.recorded).values())


def place(entry: object) -> tuple[int, int]:
    return entry.partition, entry.offset  # type: ignore[attr-defined]


class Cuts(httpx.BaseTransport):
    """Ends each stream at random, in the middle of a line too; every third connection is refused."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._carrier = httpx.HTTPTransport()
        self.connections = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.connections += 1
        if self.connections % 3 == 0:
            return httpx.Response(503, headers={"Retry-After": "0"}, json={})
        answer = self._carrier.handle_request(request)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=Cut(answer, self._chance.randint(1, 4000)))


class Cut(httpx.SyncByteStream):
    def __init__(self, answer: httpx.Response, left: int) -> None:
        self._answer, self._left = answer, left

    def __iter__(self) -> Iterator[bytes]:
        assert isinstance(self._answer.stream, httpx.SyncByteStream)
        for chunk in self._answer.stream:
            yield chunk[: self._left]
            self._left -= len(chunk)
            if self._left <= 0:
                raise httpx.ReadError("the connection was reset")

    def close(self) -> None:
        self._answer.close()


def test_a_feed_that_breaks_is_followed_on_from_where_it_was(service: Service) -> None:
    network = Cuts(seed=11)
    with service.client("krcs-auditor") as client:
        after = client.entries(limit=1000).after
        while client.entries(after, limit=1000).entries:
            after = client.entries(after, limit=1000).after
    submitted = [f"BREAK-2026-{number:04d}" for number in range(12)]

    def submit() -> None:
        with service.client("krcs-officer") as client:
            for donation_id in submitted:
                client.submit(Acts(donation_id, NOW).announced())

    seen: list[str | None] = []
    thread = threading.Thread(target=submit)
    thread.start()
    with Client(service.url, service.token("krcs-auditor"), transport=network) as client:
        for page in client.follow(after):
            seen += [entry.donation_id for entry in page.entries]
            if len(seen) >= len(submitted):
                break
    thread.join()

    print(f"seed 11: {network.connections} connections for {len(seen)} entries, each once")
    assert sorted(filter(None, seen)) == submitted
    assert network.connections > 3


EVENT_ID = UUID("0199b896-93a0-7915-91fc-d6f07823cb87")


@pytest.mark.parametrize("then", [401, 403, 500, "no token"])
@pytest.mark.parametrize(("first", "told"), [(0, Unknown(None)), (202, Pending(EVENT_ID)), (504, Unknown(EVENT_ID))])
def test_what_the_log_may_have_is_never_told_as_an_error(first: int, told: Pending | Unknown, then: int | str) -> None:
    """The first request got no answer, or 202, or 504; from then on the caller is turned away, or has no token any more."""
    posts: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/me":
            return httpx.Response(200, json={"actor_id": "krcs-officer", "party_id": "KRCS", "roles": ["officer"]})
        if posts:
            return httpx.Response(int(then), json={"title": "No", "status": then})
        posts.append(request)
        if not first:
            raise httpx.ReadTimeout("no answer", request=request)
        return httpx.Response(first, json={"event_id": str(EVENT_ID), "outcome": "pending"})

    def token() -> str:
        if posts and then == "no token":
            raise OSError("the identity provider is away")
        return "token"

    with Client("http://gateway", token, transport=httpx.MockTransport(answer), patience_seconds=2) as client:
        assert client.submit(Acts("CLIENT-0950", NOW).announced(), wait_seconds=1) == told


@pytest.mark.parametrize("then", [401, 403, 422])
def test_what_certainly_was_not_submitted_is_told_as_the_error_that_it_is(then: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(then, json={"title": "No", "status": then})
        return httpx.Response(200, json={"actor_id": "krcs-officer", "party_id": "KRCS", "roles": ["officer"]})

    with Client("http://gateway", "token", transport=httpx.MockTransport(answer)) as client, pytest.raises(ProblemError, match=str(then)):
        client.submit(Acts("CLIENT-0951", NOW).announced())


@pytest.mark.parametrize(
    ("status", "headers", "content"),
    [
        (200, {"Content-Type": "text/html"}, b"<html>"),
        (201, {}, b'{"event_id": "0199b896'),
        (201, {"Content-Encoding": "gzip"}, b"not gzip"),
        (500, {}, b'{"type": "/problems/internal", "title": "Internal error", "status": 500}'),
        (503, {}, b"upstream connect error or disconnect/reset before headers. reset reason: connection termination"),
        (520, {}, b"error code: 520"),
    ],
)
def test_an_answer_that_says_nothing_of_the_submission_leaves_it_unknown(status: int, headers: dict[str, str], content: bytes) -> None:
    """It may be a proxy's, which lost the gateway's own, or the gateway may have failed after the log took the event."""
    network = Network(*[lambda _: httpx.Response(status, headers=headers, stream=httpx.ByteStream(content))] * 50)
    with client_of_nobody(network) as client:
        assert client.submit(Acts("CLIENT-0952", NOW).announced()) == Unknown(None)


def client_of_nobody(transport: httpx.BaseTransport) -> Client:
    client = Client("http://gateway", "token", transport=transport, patience_seconds=0.5)
    client.me = Me(actor_id="krcs-officer", party_id="KRCS", roles=("officer",))
    return client


@pytest.mark.parametrize("status", [200, 404])
def test_a_page_of_a_proxy_is_no_answer_about_donations(status: int) -> None:
    """Neither that there is none, nor an error of whoever reads JSON."""
    page = httpx.MockTransport(lambda _: httpx.Response(status, html="<html>"))
    with client_of_nobody(page) as client:
        for ask in (
            lambda: client.donation("CLIENT-0953"),
            lambda: list(client.donations()),
            lambda: client.history("CLIENT-0953"),
            client.entries,
            lambda: client.outcome(EVENT_ID),
        ):
            with pytest.raises(ProblemError, match=str(status)):
                ask()


def test_a_token_from_a_file_may_end_in_a_line_and_what_is_none_is_not_shown() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer x.y.z"
        return httpx.Response(200, json={"actor_id": "krcs-officer", "party_id": "KRCS", "roles": ["officer"]})

    with Client("http://gateway", "x.y.z\n", transport=httpx.MockTransport(answer)) as client:
        assert client.me.party_id == "KRCS"
    for token in ("x.y\nsecret", "sécret"):
        with Client("http://gateway", token) as client, pytest.raises(ValueError, match="expected printable ASCII") as told:
            client.donation("CLIENT-0954")
        assert "cret" not in str(told.value)


def test_a_feed_that_was_silent_before_it_ended_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent for longer than the client is patient, which begins when the feed has ended."""
    now = [0.0]
    monkeypatch.setattr("aidtrail.client.time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: None))

    def said() -> Iterator[bytes]:
        yield b"id: 0.1\nevent: position\ndata: 0.1\n\n"
        now[0] += 60

    feed = httpx.MockTransport(lambda _: httpx.Response(200, content=said()))
    with client_of_nobody(feed) as client:
        assert [page.after for page in islice(client.follow(), 3)] == ["0.1"] * 3
