"""Many requests at once over HTTP, for the same thing: one of them has its effect, and each is told what became of it. Counted.

Memory log, real PostgreSQL, ledger and projector at work; two gateways, as where two processes serve the same log.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from aidtrail.audit.rebuild import rebuild
from aidtrail.domain import events as e
from aidtrail.domain.donation import ApprovalState, Donation
from aidtrail.domain.fold import apply
from aidtrail.domain.invariants import invariants
from aidtrail.gateway import local, problems
from aidtrail.gateway.app import create
from aidtrail.gateway.state import Gateway
from aidtrail.log.memory import MemoryLog
from aidtrail.producer import Producer
from aidtrail.views.reader import HistoryRow
from tests.acts import START, Acts, money, uuid7
from tests.databases import Server
from tests.pipeline import TOPICS, Pipeline
from tests.serving import Served
from tests.test_gateway import Service, request_of

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)
CONNECTIONS = 100
RELEASERS = ["krcs-releaser", *(f"krcs-releaser-{number}" for number in range(2, 9))]
APPROVERS = ["mef-approver", "mef-approver-2", "mef-approver-3"]

Attempt = tuple[e.Event, dict[str, str]]


class Two:
    """Two gateways on one log and one database. `first` and `second` are for what is asked of one of them."""

    def __init__(self, first: Service, second: Service) -> None:
        self.first, self.second = first, second
        self.pipeline = first.pipeline
        self._tokens: dict[str, str] = {}

    def at_once(self, attempts: Sequence[Attempt], urls: Sequence[str] = ()) -> list[httpx.Response]:
        """The answers to events submitted at the same time, over at most CONNECTIONS connections, to these gateways in turn."""

        free = asyncio.Semaphore(CONNECTIONS)

        async def submit(client: httpx.AsyncClient, url: str, event: e.Event, headers: dict[str, str]) -> httpx.Response:
            path, body = request_of(event)
            signed = {"Authorization": f"Bearer {self._token(event.meta.actor.actor_id)}", **headers}
            async with free:
                return await client.post(url + path, json=body, headers=signed)

        async def submit_all() -> list[httpx.Response]:
            limits = httpx.Limits(max_keepalive_connections=CONNECTIONS)
            async with httpx.AsyncClient(limits=limits, timeout=60, headers={"Prefer": "wait=30"}) as client:
                found = (urls or [self.first.url])[: len(attempts)]
                posts = (submit(client, found[number % len(found)], *attempt) for number, attempt in enumerate(attempts))
                return await asyncio.gather(*posts)

        return asyncio.run(submit_all())

    def submit(self, events: Sequence[e.Event]) -> None:
        """Straight into the log, and until the views show it."""
        with Producer(self.pipeline.log, TOPICS) as producer:
            producer.submit(events)
        self.pipeline.wait()

    def history(self, donation_id: str) -> list[HistoryRow]:
        self.pipeline.wait()
        reader = self.pipeline.reader()
        try:
            return reader.history(donation_id)
        finally:
            reader.close()

    def submissions(self) -> int:
        return sum(self.pipeline.log.end_offsets(TOPICS.submitted).values())

    def _token(self, actor_id: str) -> str:
        if actor_id not in self._tokens:
            self._tokens[actor_id] = local.issue(self.first.home, actor_id, hours=1, now=datetime.now(UTC).timestamp())
        return self._tokens[actor_id]


@pytest.fixture(scope="module")
def two(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    database, home = postgres_server.create_database(), tmp_path_factory.mktemp("home")
    pipeline = Pipeline(database, tmp_path_factory.mktemp("ledger"), MemoryLog())
    with Producer(pipeline.log, TOPICS) as producer:
        producer.register(
            [
                e.ActorEnrolled(event_id=uuid7(START, 1 << 60 | at), occurred_on=START, actor_id=each, party_id="KRCS", roles=("releaser",))
                for at, each in enumerate(RELEASERS[1:])
            ]
        )
    with ExitStack() as stack:
        stack.callback(pipeline.close)
        stack.enter_context(pipeline.running())
        served = [
            stack.enter_context(Served(create(Gateway(lambda: pipeline.log, TOPICS, database, local.local_verifier(home)), TOPICS)))
            for _ in range(2)
        ]
        yield Two(*(Service(each.url, pipeline, home) for each in served))


def states(history: Sequence[HistoryRow]) -> Iterator[Donation]:
    """The donation after each of its admitted events."""
    donation: Donation | None = None
    for row in history:
        if row.outcome == "admitted":
            assert row.event is not None
            donation = apply(donation, row.event)
            yield donation


def statuses(answers: Sequence[httpx.Response]) -> dict[int, int]:
    return dict(Counter(answer.status_code for answer in answers))


def test_of_a_thousand_attempts_to_release_a_payment_one_is_admitted(two: Two) -> None:
    a = Acts("RACE-2026-0001", NOW)
    before = [a.announced(), a.confirmed(), *a.approval(), a.instructed("D1", "400"), a.instructed("D2", "300")]
    two.submit(before)
    attempts: list[Attempt] = [(a.released("D1", by=RELEASERS[number % len(RELEASERS)], role="releaser"), {}) for number in range(1000)]

    answers = two.at_once(attempts, [two.first.url, two.second.url])

    history = two.history(a.donation_id)
    *_, donation = states(history)
    told = Counter(answer.json()["reason"] for answer in answers if answer.status_code == 409)
    row = next(row for row in answers if row.status_code == 201).json()["donation"]
    with two.first.client("krcs-auditor") as client:
        (amounts,) = client.get(f"/v1/donations/{a.donation_id}").json()["amounts"]
    comparison = rebuild(two.pipeline.log, TOPICS, two.pipeline.database)
    assert statuses(answers) == {201: 1, 409: 999}
    assert told == {"disbursement_awaits_release": 999}
    assert all(answer.json()["expected"] and answer.json()["found"] for answer in answers if answer.status_code == 409)
    assert Counter(row.outcome for row in history) == {"admitted": len(before) + 1, "refused": 999}
    assert len({answer.headers["location"] for answer in answers}) == 1000
    assert row["version"] == donation.version == len(before) + 1
    assert invariants(donation) == []
    sums = {name: amounts[name] for name in ("pledged", "approved", "in_flight", "settled")}
    assert sums == {"pledged": "1000.0000", "approved": "1000.0000", "in_flight": "700.0000", "settled": "0.0000"}
    assert comparison.total_differences == 0
    print(
        f"1000 attempts by {len(RELEASERS)} actors over 2 gateways: 1 admitted, {told.total()} refused with a reason; "
        f"{comparison.total_rows} rows compared with a rebuild, {comparison.total_differences} differences"
    )


@pytest.mark.parametrize("required", [2, 3])
def test_approvers_who_race_grant_once_at_the_last_signature_that_is_needed(two: Two, required: int) -> None:
    """Three approvers sign each of twenty requests three times over, in any order."""
    chance, amount = random.Random(required), {2: "1000", 3: "5000"}[required]
    donations = [Acts(f"SIGN-2026-{required}{number:03d}", NOW) for number in range(20)]
    attempts: list[Attempt] = []
    prepared: list[e.Event] = []
    for a in donations:
        prepared += [a.announced(amounts=(money(amount),)), a.confirmed(), a.requested("A1", amount, approvals_required=required)]
        attempts += [(a.approved("A1", amount, by=approver), {}) for approver in APPROVERS for _ in range(3)]
    two.submit(prepared)
    chance.shuffle(attempts)

    answers = two.at_once(attempts, [two.first.url, two.second.url])

    orders = set()
    for a in donations:
        history = two.history(a.donation_id)
        found = [(donation.approvals["A1"].state, donation.approvals["A1"]) for donation in list(states(history))[2:]]
        assert [state for state, _ in found] == [ApprovalState.PENDING] * required + [ApprovalState.GRANTED], a.donation_id
        assert len(set(found[-1][1].deciders)) == required
        orders.add(found[-1][1].deciders)
        assert Counter(row.outcome for row in history) == {"admitted": 3 + required, "refused": 9 - required}
    assert statuses(answers) == {201: 20 * required, 409: 20 * (9 - required)}
    reasons = Counter(answer.json()["reason"] for answer in answers if answer.status_code == 409)
    assert reasons.keys() <= {"approval_is_pending", "decider_is_new"}
    print(
        f"{len(attempts)} signatures on 20 requests that need {required}: each granted once, by number {required}, {len(orders)} orders; "
        f"{reasons.total()} refused: {dict(reasons)}"
    )


@pytest.mark.parametrize("refused", [False, True], ids=["admitted", "refused"])
def test_equal_requests_with_one_key_are_one_submission(two: Two, refused: bool) -> None:
    a = Acts(f"KEYS-2026-000{refused:d}", NOW)
    event: e.Event = a.announced()
    if refused:
        two.submit([event])
        event = a.confirmed(by="krcs-officer")
    before = two.submissions()

    answers = two.at_once([(event, {"Idempotency-Key": f"order-{refused}"})] * 50)

    history = two.history(a.donation_id)
    assert statuses(answers) == {409 if refused else 201: 50}
    assert len({answer.json()["event_id"] for answer in answers}) == 1
    assert len({answer.json().get("version") for answer in answers}) == 1
    assert {answer.json().get("reason") for answer in answers} == {"confirmed_by_another" if refused else None}
    assert two.submissions() == before + 1
    assert [row.outcome for row in history] == (["admitted", "refused"] if refused else ["admitted"])
    print(f"50 equal requests with one key: 1 submission, 1 entry, 50 times the same outcome ({'refused' if refused else 'admitted'})")


def test_of_different_requests_with_one_key_one_is_submitted_and_the_others_are_told(two: Two) -> None:
    a = Acts("KEYS-2026-0002", NOW)
    event = a.announced()
    bodies = [event.model_copy(update={"purpose": purpose}) for purpose in ("12191", "12220", "12230", "12240", "12250")]
    before = two.submissions()

    answers = two.at_once([(body, {"Idempotency-Key": "one-for-all"}) for body in bodies * 10])

    (entry,) = two.history(a.donation_id)
    assert isinstance(entry.event, e.PledgeAnnounced)
    assert entry.outcome == "admitted"
    for number, answer in enumerate(answers):
        if bodies[number % len(bodies)].purpose == entry.event.purpose:
            assert (answer.status_code, answer.json()["event_id"]) == (201, str(entry.event_id))
        else:
            assert (answer.status_code, answer.json()["type"]) == (422, problems.KeyReused.type_)
    assert two.submissions() == before + 1
    print(f"50 requests of 5 kinds with one key: 1 entry, {statuses(answers)}")


def test_one_key_at_two_gateways_has_one_effect(two: Two) -> None:
    """Neither knows what the other takes in: both submit, and the ledger counts the first."""
    lives = [Acts(f"KEYS-2026-1{number:03d}", NOW) for number in range(10)]
    attempts = [(a.announced(), {"Idempotency-Key": f"equal-{a.donation_id}"}) for a in lives] * 12
    random.Random(1).shuffle(attempts)

    answers = two.at_once(attempts, [two.first.url, two.second.url])

    repeated = 0
    for a in lives:
        entry, *others = two.history(a.donation_id)
        told = {answer.text for (event, _), answer in zip(attempts, answers, strict=True) if event.meta.donation_id == a.donation_id}
        assert entry.outcome == "admitted"
        assert len(told) == 1
        assert str(entry.event_id) in told.pop()
        assert len(others) <= 1  # at most once for each gateway
        assert all(isinstance(row.event, e.SubmissionRefused) and row.event.reason == "duplicate_event" for row in others)
        repeated += len(others)
    assert statuses(answers) == {201: 120}
    print(f"120 equal requests with 10 keys at 2 gateways: 10 effects, 120 times their outcome; {repeated} submitted twice")


def test_one_key_for_different_requests_at_two_gateways_has_one_effect(two: Two) -> None:
    lives = [Acts(f"KEYS-2026-2{number:03d}", NOW) for number in range(10)]
    attempts: list[Attempt] = []
    for a in lives:
        event = a.announced()
        attempts += [(each, {"Idempotency-Key": a.donation_id}) for each in (event, event.model_copy(update={"purpose": "12220"}))] * 6
    random.Random(1).shuffle(attempts)

    answers = two.at_once(attempts, [two.first.url, two.second.url])

    for a in lives:
        entry, *others = two.history(a.donation_id)
        assert isinstance(entry.event, e.PledgeAnnounced)
        assert entry.outcome == "admitted"
        assert all(row.outcome == "refused" for row in others)
        admitted = [
            event
            for (event, _), answer in zip(attempts, answers, strict=True)
            if event.meta.donation_id == a.donation_id and answer.status_code == 201
        ]
        assert admitted
        assert {event.purpose for event in admitted if isinstance(event, e.PledgeAnnounced)} == {entry.event.purpose}
    found = statuses(answers)
    assert found.keys() == {201, 422}
    assert found[422] >= 60
    print(f"120 requests of 2 kinds with 10 keys at 2 gateways: 10 effects, {found}")
