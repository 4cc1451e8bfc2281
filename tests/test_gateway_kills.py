"""The gateway is killed (SIGKILL) again and again while it takes 200 requests a second, on real Kafka and PostgreSQL: what a client was
told is true, and what he was not told he can find out. The same when the broker stands still. Counted.
"""

import asyncio
import os
import random
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from aidtrail import codec, metrics
from aidtrail.demo.story import story
from aidtrail.domain.events import Event
from aidtrail.gateway import local
from aidtrail.gateway.app import create
from aidtrail.gateway.state import Gateway
from aidtrail.log.kafka import KafkaLog
from tests.brokers import Broker, free_ports
from tests.conftest import require_kafka
from tests.serving import Served
from tests.test_faults import Pipeline, total
from tests.test_gateway import request_of
from tests.waiting import eventually

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
    pytest.mark.usefixtures("refused_sockets"),
]

PER_SECOND = 200
WAIT = {"Prefer": "wait=30"}


class Request:
    """One announcement of a donation of its own, under a key of its own, and the statuses that its client was told: 0 for a connection that
    died after the request had been sent, None for one that never came about."""

    def __init__(self, number: int, announcement: Event) -> None:
        self.donation_id = f"KILL-{number:06d}"
        meta = announcement.meta.model_copy(update={"donation_id": self.donation_id})
        self.path, self.body = request_of(announcement.model_copy(update={"meta": meta}))
        self.headers = {"Idempotency-Key": self.donation_id} | (WAIT if number % 2 else {})
        self.repeats_at_once = number % 4 < 2
        self.told: list[int | None] = []
        self.location: str | None = None

    @property
    def accepted(self) -> bool:
        return bool(self.told) and self.told[-1] in (201, 202)

    @property
    def in_doubt(self) -> bool:
        return any(status in (0, 504) for status in self.told)

    async def ask(self, client: httpx.AsyncClient, headers: dict[str, str]) -> None:
        try:
            answer = await client.post(self.path, json=self.body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            self.told.append(None)
        except httpx.TransportError:
            self.told.append(0)
        else:
            assert answer.status_code in (201, 202, 503, 504), answer.text
            self.told.append(answer.status_code)
            self.location = answer.headers.get("location", self.location)


class Killed:
    """`aidtrail serve` in a process of its own, and the load on it."""

    def __init__(self, pipeline: Pipeline, seed: int) -> None:
        self.pipeline = pipeline
        self.chance = random.Random(seed)
        self.requests: list[Request] = []
        self.kills = 0
        local.local_verifier(pipeline.folder)
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._environment = {
            "AIDTRAIL_LISTEN": f"127.0.0.1:{port}",
            "AIDTRAIL_TOKEN_ISSUER": local.ISSUER,
            "AIDTRAIL_TOKEN_AUDIENCE": local.AUDIENCE,
            "AIDTRAIL_TOKEN_KEYS": str(pipeline.folder / "tokens" / "jwks.json"),
        }
        self._announcement = story(datetime.now(UTC))[0].event(1, datetime.now(UTC) - timedelta(hours=1))
        self._ready = asyncio.Event()
        self.process: subprocess.Popen[bytes]

    async def start(self, client: httpx.AsyncClient) -> None:
        self.process = self.pipeline.start("serve", **self._environment)
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, self.pipeline.said("serve")
            assert time.monotonic() < deadline, self.pipeline.said("serve")
            try:
                if (await client.get("/readyz")).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
        self._ready.set()

    async def run(self, kills: int) -> None:
        """The load, `kills` kills in it, and what each client does who was not told an outcome."""
        async with self._client() as client:
            await self.start(client)
            load = asyncio.create_task(self._load(client))
            while self.kills < kills:
                due = len(self.requests) + self.chance.randint(PER_SECOND // 5, PER_SECOND)
                while len(self.requests) < due:
                    assert not load.done(), load.result()
                    await asyncio.sleep(0.01)
                self._ready.clear()
                self.process.kill()
                self.process.wait()
                self.kills += 1
                await self.start(client)
            load.cancel()
            await asyncio.gather(*self._asking)

    async def resolve(self, requests: Sequence[Request]) -> list[httpx.Response | None]:
        """What the Location of each says, where it was told one."""
        async with self._client() as client:
            return [None if each.location is None else await client.get(each.location) for each in requests]

    async def repeat(self, requests: Sequence[Request]) -> None:
        """Each once more, with the same key."""
        free = asyncio.Semaphore(20)

        async def once(request: Request) -> None:
            async with free:
                await request.ask(client, request.headers | WAIT)

        async with self._client() as client:
            await asyncio.gather(*map(once, requests))

    def _client(self) -> httpx.AsyncClient:
        token = local.issue(self.pipeline.folder, "krcs-officer-1", hours=1, now=time.time())
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60, limits=limits)

    async def _load(self, client: httpx.AsyncClient) -> None:
        """PER_SECOND requests while the gateway is up, whatever becomes of them."""
        self._asking: list[asyncio.Task[None]] = []
        due = time.monotonic()
        while True:
            if not self._ready.is_set():
                await self._ready.wait()
                due = time.monotonic()
            request = Request(len(self.requests), self._announcement)
            self.requests.append(request)
            self._asking.append(asyncio.create_task(self._ask(client, request)))
            due += 1 / PER_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _ask(self, client: httpx.AsyncClient, request: Request) -> None:
        await request.ask(client, request.headers)
        if not request.accepted and request.repeats_at_once:
            await self._ready.wait()
            await request.ask(client, request.headers)


def submitted(pipeline: Pipeline) -> dict[str, list[UUID]]:
    """The event ids in the raw log, by donation."""
    reader = pipeline.log.reader(pipeline.topics.submitted)
    ends = pipeline.log.end_offsets(pipeline.topics.submitted)
    reader.assign(dict.fromkeys(ends, 0))
    found: dict[str, list[UUID]] = defaultdict(list)
    read = 0
    while read < total(ends):
        for records in reader.poll(5000, 10.0).values():
            read += len(records)
            for record in records:
                event = codec.decode(record.value)
                assert isinstance(event, Event)
                found[event.meta.donation_id].append(event.meta.event_id)
    reader.close()
    return found


def wait_until_all_is_seen(pipeline: Pipeline) -> None:
    ends = pipeline.log.end_offsets(pipeline.topics.submitted)
    assert eventually(lambda: len(pipeline.answered()) == total(ends), 120), pipeline.said("ledger")
    assert eventually(lambda: pipeline.next_offsets() == pipeline.log.end_offsets(pipeline.topics.recorded), 120), pipeline.said("project")


@pytest.fixture
def pipeline(kafka_broker: str, database_url: str, tmp_path: Path) -> Iterator[Pipeline]:
    """With a ledger and a projector at work."""
    with ExitStack() as stack:
        made = Pipeline(kafka_broker, database_url, tmp_path, f"kills-{time.time_ns()}")
        stack.callback(made.log.close)
        for name in ("ledger", "project"):
            stack.enter_context(made.process(name))
        yield made


def kill_and_count(pipeline: Pipeline, kills: int) -> None:
    seed = int(os.environ.get("AIDTRAIL_SEED", time.time_ns() % 10**6))
    print(f"seed {seed}")
    asyncio.run(_kill_and_count(pipeline, kills, seed))


async def _kill_and_count(pipeline: Pipeline, kills: int, seed: int) -> None:
    killed = Killed(pipeline, seed)
    try:
        await killed.run(kills)
        wait_until_all_is_seen(pipeline)
        in_log = submitted(pipeline)
        accepted = [request for request in killed.requests if request.accepted]
        others = [request for request in killed.requests if not request.accepted]
        located = await killed.resolve(accepted + others)
        await killed.repeat(others)
        wait_until_all_is_seen(pipeline)
        after = submitted(pipeline)
    finally:
        killed.process.terminate()
        code = killed.process.wait(30)
    rows = pipeline.query(
        "SELECT donation_id, count(*) FILTER (WHERE outcome = 'admitted'), count(*) FILTER (WHERE outcome = 'refused'), count(*)"
        " FROM live.entries WHERE donation_id LIKE 'KILL-%' GROUP BY 1"
    )
    refusals = pipeline.query("SELECT DISTINCT reason FROM live.refusals")

    assert killed.kills == kills
    assert code == 0
    for request in accepted:
        times = len(in_log[request.donation_id])
        assert times == 1 or (request.in_doubt and times == 2), (request.told, times)
    for request, answer in zip(accepted + others, located, strict=True):
        if answer is not None:
            assert answer.json().get("outcome") == ("admitted" if in_log.get(request.donation_id) else None), (request.told, answer.text)
    for request in others:
        assert request.told[-1] == 201, request.told
        assert request.in_doubt or request.donation_id not in in_log  # it was told that nothing was submitted, or had no connection
        times = len(in_log.get(request.donation_id, ()))
        assert times <= 1 + request.repeats_at_once, (request.told, times)  # its client may have repeated it before it was seen
        assert len(after[request.donation_id]) == max(times, 1), (request.told, times)  # what had arrived and was seen was not sent again
    assert {donation_id: admitted for donation_id, admitted, *_ in rows} == {request.donation_id: 1 for request in killed.requests}
    assert all(len(set(event_ids)) == 1 for event_ids in after.values())
    assert refusals in ([], [("duplicate_event",)])
    doubts = [request for request in killed.requests if request.in_doubt]
    arrived = sum(bool(in_log.get(request.donation_id)) for request in others if request.in_doubt)
    twice = sum(refused for _, _, refused, _ in rows)
    print(
        f"seed {seed}: {killed.kills} kills under {PER_SECOND} requests/s; {len(killed.requests)} requests, {len(accepted)} told 201 or "
        f"202, all in the log; {len(doubts)} connections died; {len(others)} not told, {arrived} of these in the log, with the same key "
        f"all told 201; {twice} submitted twice by a client and refused, 0 lost, 0 with two effects; {pipeline.audited()}"
    )


def test_what_clients_were_told_is_true_although_the_gateway_is_killed(pipeline: Pipeline) -> None:
    kill_and_count(pipeline, 3)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_what_clients_were_told_is_true_although_the_gateway_is_killed_twenty_times(pipeline: Pipeline) -> None:
    kill_and_count(pipeline, 20)


@pytest.mark.long
@pytest.mark.parametrize("given_up", [False, True], ids=["for a moment", "until the append is given up"])
def test_what_a_broker_that_stands_still_was_sent_is_unknown_and_found_out_later(database_url: str, tmp_path: Path, given_up: bool) -> None:
    require_kafka()
    opened: list[KafkaLog] = []
    with ExitStack() as stack:
        broker = stack.enter_context(Broker())
        pipeline = Pipeline(broker.bootstrap, database_url, tmp_path, "still")
        stack.callback(pipeline.log.close)
        for name in ("ledger", "project"):
            stack.enter_context(pipeline.process(name))

        def open_log() -> KafkaLog:
            opened.append(KafkaLog([broker.bootstrap], delivery_timeout_seconds=5 if given_up else 60))
            return opened[-1]

        stack.callback(lambda: [log.close() for log in opened])
        shared = Gateway(open_log, pipeline.topics, database_url, local.local_verifier(tmp_path), acknowledge_seconds=2)
        served = stack.enter_context(Served(create(shared, pipeline.topics)))
        headers = {"Authorization": f"Bearer {local.issue(tmp_path, 'krcs-officer-1', hours=1, now=time.time())}"}
        client = stack.enter_context(httpx.Client(base_url=served.url, headers=headers, timeout=60))
        announcement = story(datetime.now(UTC))[0].event(1, datetime.now(UTC) - timedelta(hours=1))
        before, *requests = (Request(number, announcement) for number in range(5))

        def ask(request: Request) -> httpx.Response:
            return client.post(request.path, json=request.body, headers=request.headers | WAIT)

        def ask_all() -> list[httpx.Response]:
            """The first on its way into the log when the others come."""
            with ThreadPoolExecutor() as pool:
                first = pool.submit(ask, requests[0])
                assert eventually(lambda: first.done() or (shared.intake._under_way == 1 and not shared.intake._queue))
                others = list(pool.map(ask, requests[1:]))
                return [first.result(), *others]

        assert eventually(lambda: ask(before).status_code == 201, 60), pipeline.said("project")
        unknown_appends = metrics.APPENDS_UNKNOWN._value.get()
        broker.freeze()
        try:
            answers = ask_all()
            if given_up:
                assert eventually(lambda: metrics.APPENDS_UNKNOWN._value.get() > unknown_appends, 30)
                answers += ask_all()
        finally:
            broker.thaw()
        assert eventually(lambda: ask(requests[0]).status_code == 201, 60)
        wait_until_all_is_seen(pipeline)
        in_log = submitted(pipeline)
        told = client.get(answers[0].headers["location"])
        after = [ask(request) for request in requests]
        wait_until_all_is_seen(pipeline)
        admitted = dict(pipeline.query("SELECT donation_id, count(*) FROM live.entries WHERE outcome = 'admitted' GROUP BY 1"))

        assert [answer.status_code for answer in answers[:4]] == [504, 503, 503, 503]
        assert {answer.status_code for answer in answers[4:]} <= {503, 504}
        assert answers[4:] == [] or answers[4].status_code == 504  # what was unknown stays it
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
        assert told.json()["outcome"] == "admitted"
        assert len(in_log[requests[0].donation_id]) <= (2 if given_up else 1)  # the client's second attempt
        assert in_log.keys() == {before.donation_id, requests[0].donation_id}
        assert {answer.status_code for answer in after} == {201}
        assert admitted == {request.donation_id: 1 for request in (before, *requests)}
        times = len(in_log[requests[0].donation_id])
        print(
            f"a broker that stood still {'until the append was given up' if given_up else 'for a moment'}: 1 told as unknown, found out "
            f"later, {times} times in the log; 3 told that nothing was submitted, none in it; {pipeline.audited()}"
        )
