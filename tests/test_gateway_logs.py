"""The gateway on a log that misbehaves: that cannot be opened, hangs, takes half, or takes all and does not say so. What is not known is
told as not known, what is acknowledged is in the log once, and nothing is sent twice by the gateway. Counted.

Memory log behind the misbehaviour, real PostgreSQL, ledger and projector at work.
"""

import asyncio
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from aidtrail.domain import events as e
from aidtrail.errors import AppendUnknownError, UnavailableError
from aidtrail.gateway import intake, local, problems
from aidtrail.gateway.app import create
from aidtrail.gateway.state import Gateway
from aidtrail.log import Appended, Draft, Log, Reader, Record
from aidtrail.log.memory import MemoryLog
from tests.acts import Acts
from tests.databases import Server
from tests.pipeline import TOPICS, Pipeline
from tests.serving import Served
from tests.test_gateway import NOW, Service, request_of
from tests.waiting import eventually

ACKNOWLEDGE_SECONDS = 0.5


class Fate(NamedTuple):
    """What becomes of an append: whether an appender can be had, how long the append waits for `Misbehaving.release` at most, which share
    of the records then comes to stand in the log, and whether it answers."""

    opens: bool = True
    waits_seconds: float = 0.0
    share: float = 1.0
    answers: bool = True


WELL = Fate()
CLOSED = Fate(opens=False)
HANGS = Fate(waits_seconds=30)
UNKNOWN = {"lost": Fate(share=0, answers=False), "kept": Fate(answers=False), "half kept": Fate(share=0.5, answers=False)}


class Misbehaving:
    """A log whose appends have the fate that `fate` says; all else is that of the log behind it. `handed` counts how often each record was
    given to it."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.fate: Callable[[], Fate] = lambda: WELL
        self.release = threading.Event()
        self.handed: Counter[bytes] = Counter()
        self.appends = 0
        self.hanging = 0
        self.readers = 0
        self.reads = True
        """Whether submissions can be read; else it waits for `release`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def appender(self) -> "MisbehavingAppender":
        if not self.fate().opens:
            raise UnavailableError("broker-7.internal:9092 is told to be away")
        return MisbehavingAppender(self, self._log)

    def reader(self, topic: str, *, follows: bool = True) -> Any:
        self.readers += topic == TOPICS.submitted
        reader = self._log.reader(topic, follows=follows)
        return MisbehavingReader(self, reader) if topic == TOPICS.submitted else reader


class MisbehavingReader:
    def __init__(self, told: Misbehaving, reader: Reader) -> None:
        self._told = told
        self._reader = reader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def poll(self, max_records: int, timeout_seconds: float) -> dict[int, list[Record]]:
        return self._reader.poll(max_records, timeout_seconds) if self._told.reads or self._told.release.wait(30) else {}


class MisbehavingAppender:
    def __init__(self, told: Misbehaving, log: Log) -> None:
        self._told = told
        self._appender = log.appender()

    def append(self, drafts: Sequence[Draft]) -> list[Appended]:
        fate = self._told.fate()
        self._told.appends += 1
        self._told.handed.update(draft.value for draft in drafts)
        if fate.waits_seconds:
            self._told.hanging += 1
            self._told.release.wait(fate.waits_seconds)
            self._told.hanging -= 1
        appended = self._appender.append(drafts[: round(fate.share * len(drafts))])
        if not fate.answers:
            raise AppendUnknownError("told not to answer")
        return appended

    def close(self) -> None:
        self._appender.close()


class Doubtful(Service):
    """A gateway on a log that misbehaves, and the pipeline behind it."""

    def __init__(self, url: str, pipeline: Pipeline, home: Path, log: Misbehaving, shared: Gateway) -> None:
        super().__init__(url, pipeline, home)
        self.log = log
        self.shared = shared

    def keys(self) -> Counter[str]:
        """How often each donation stands in `submitted`."""
        reader = self.pipeline.log.reader(TOPICS.submitted)
        ends = self.pipeline.log.end_offsets(TOPICS.submitted)
        reader.assign(dict.fromkeys(ends, 0))
        found: Counter[str] = Counter()
        while found.total() < sum(ends.values()):
            for records in reader.poll(5000, 1.0).values():
                found.update((record.key or b"").decode() for record in records)
        reader.close()
        return found

    def resolved(self, answer: httpx.Response) -> httpx.Response:
        """What the answer's Location says when all that is in the log is in the views."""
        self.pipeline.wait()
        with self.client("krcs-officer") as client:
            return client.get(answer.headers["location"])


@pytest.fixture(scope="module")
def pipeline(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    made = Pipeline(postgres_server.create_database(), tmp_path_factory.mktemp("ledger"), MemoryLog())
    with made.running():
        yield made
    made.close()


@pytest.fixture
def doubtful(pipeline: Pipeline, tmp_path: Path) -> Iterator[Doubtful]:
    with served(pipeline, tmp_path) as made:
        yield made


@contextmanager
def served(pipeline: Pipeline, home: Path, seconds: float = ACKNOWLEDGE_SECONDS) -> Iterator[Doubtful]:
    log = Misbehaving(pipeline.log)
    verifier = local.local_verifier(home)
    shared = Gateway(lambda: log, TOPICS, pipeline.database, verifier, acknowledge_seconds=seconds)  # type: ignore[arg-type, return-value]
    try:
        with Served(create(shared, TOPICS)) as running:
            yield Doubtful(running.url, pipeline, home, log, shared)
    finally:
        log.release.set()


def is_unavailable(answer: httpx.Response) -> bool:
    """Nothing was submitted."""
    if answer.status_code != 503:
        return False
    assert answer.json()["type"] == problems.LogUnavailable.type_
    assert "broker-7" not in answer.text
    assert int(answer.headers["retry-after"]) > 0
    return "location" not in answer.headers


def is_unknown(answer: httpx.Response) -> bool:
    """Whether it was is not known, and will be told at the Location."""
    if answer.status_code != 504:
        return False
    assert answer.json()["type"] == problems.Unknown.type_
    assert int(answer.headers["retry-after"]) > 0
    return answer.headers["location"] == f"/v1/submissions/{answer.json()['event_id']}"


def test_a_log_that_cannot_be_opened_is_told_and_nothing_is_submitted(doubtful: Doubtful) -> None:
    event = Acts("AWAY-2026-0001", NOW).announced()
    doubtful.log.fate = lambda: CLOSED

    answers = [doubtful.post(event, **{"Idempotency-Key": "away"}) for _ in range(3)]
    doubtful.log.fate = lambda: WELL
    after = doubtful.post(event, **{"Idempotency-Key": "away"})

    assert all(map(is_unavailable, answers))
    assert (after.status_code, after.json()["version"]) == (201, 1)
    assert doubtful.keys()[event.meta.donation_id] == 1


def of_a_bank(doubtful: Doubtful, donation_id: str) -> tuple[str, str]:
    """Where a bank's submissions are told, which sees no donation: one that was admitted, one that was refused."""
    a = Acts(donation_id, NOW)
    for event in (a.announced(), a.confirmed(), *a.approval(), a.instructed(), a.released()):
        assert doubtful.post(event).status_code == 201, event
    settled = a.settled()
    admitted, refused = doubtful.post(settled), doubtful.post(settled)
    assert (admitted.status_code, refused.status_code) == (201, 409)
    return admitted.headers["location"], refused.headers["location"]


def test_submissions_are_told_while_the_log_cannot_be_read_if_they_were_admitted_and_soon_turned_away_if_not(
    doubtful: Doubtful, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a bank, out of whose sight their donation is. Sixty ask at once: that holds up nobody who asks for something else."""
    admitted, refused = of_a_bank(doubtful, "READ-2026-0001")
    monkeypatch.setattr(intake, "READ_SECONDS", 0.5)
    doubtful.log.reads = False
    with doubtful.client("bank-adapter") as bank, doubtful.client("krcs-officer") as officer, ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(bank.get, refused) for _ in range(60)]
        others = [officer.get("/v1/donations/READ-2026-0001"), bank.get(admitted), bank.get("/readyz")]
        turned_away = [each.result() for each in asked]

    assert [answer.status_code for answer in others] == [200, 200, 200]
    assert all(map(is_unavailable, turned_away))


def test_refused_submissions_are_read_from_the_log_with_one_reader(doubtful: Doubtful) -> None:
    _, refused = of_a_bank(doubtful, "READ-2026-0002")
    with doubtful.client("bank-adapter") as bank, doubtful.client("timekeeper") as stranger:
        told = [bank.get(refused).json()["outcome"] for _ in range(5)]
        assert stranger.get(refused).status_code == 404

    assert told == ["refused"] * 5
    assert doubtful.log.readers == 1


def test_readiness_tells_that_the_log_cannot_be_read_and_not_where_it_is(doubtful: Doubtful, monkeypatch: pytest.MonkeyPatch) -> None:
    def follow() -> None:
        raise UnavailableError("broker-7.internal:9092 cannot be reached")

    with doubtful.client(None) as client:
        assert client.get("/readyz").status_code == 200
        monkeypatch.setattr(doubtful.shared._registry, "follow", follow)
        assert eventually(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/readyz?verbose").json() == {"log": "cannot be read", "views": "ok", "process": "ok"}


@pytest.mark.parametrize("fate", UNKNOWN)
def test_an_append_that_may_have_failed_is_told_as_unknown_and_its_location_tells_what_became_of_it(
    pipeline: Pipeline, tmp_path: Path, fate: str
) -> None:
    """Ten requests that are appended together, since an eleventh holds the log up until they are there."""
    first, *others = (Acts(f"DOUBT-2026-{list(UNKNOWN).index(fate)}{number:03d}", NOW).announced() for number in range(11))
    with served(pipeline, tmp_path, seconds=20) as doubtful, ThreadPoolExecutor(11) as pool:
        doubtful.log.fate = iter([WELL, HANGS, UNKNOWN[fate]]).__next__
        held = pool.submit(doubtful.post, first, wait=0)
        assert eventually(lambda: doubtful.log.hanging == 1)
        posts = [pool.submit(doubtful.post, event, **{"Idempotency-Key": event.meta.donation_id}) for event in others]
        assert eventually(lambda: len(doubtful.shared.intake._queue) == 10)
        doubtful.log.release.set()
        answers = [post.result() for post in posts]
        handed = doubtful.log.handed.copy()

        kept = doubtful.keys()
        told = {event.meta.donation_id: doubtful.resolved(answer) for event, answer in zip(others, answers, strict=True)}
        doubtful.log.fate = lambda: WELL
        again = [doubtful.post(event, **{"Idempotency-Key": event.meta.donation_id}) for event in others]
        keys = doubtful.keys()

    in_log = [donation_id for donation_id in told if kept[donation_id]]
    assert held.result().status_code == 202
    assert all(map(is_unknown, answers))
    assert set(handed.values()) == {1}
    assert len(in_log) == round(10 * UNKNOWN[fate].share)
    for donation_id, answer in told.items():
        assert answer.json()["outcome"] == ("admitted" if kept[donation_id] else "pending")
    assert {answer.status_code for answer in again} == {201}
    assert {keys[donation_id] for donation_id in told} == {1}
    print(f"{fate}: 10 told as unknown, {len(in_log)} of them in the log and told at their Location; with the same keys each is there once")


def test_while_an_append_hangs_what_is_under_way_is_bounded_and_what_waits_is_taken_back(
    doubtful: Doubtful, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_IN_FLIGHT", 20)
    events = [Acts(f"HANGS-2026-{number:04d}", NOW).announced() for number in range(40)]
    doubtful.log.fate = lambda: HANGS
    with ThreadPoolExecutor(len(events)) as pool:
        posts = [pool.submit(doubtful.post, events[0], **{"Idempotency-Key": "hangs"})]
        assert eventually(lambda: doubtful.log.hanging == 1)
        posts += [pool.submit(doubtful.post, event) for event in events[1:]]
        unknown, *others = [post.result() for post in posts]

    assert doubtful.log.hanging == 1
    assert is_unknown(unknown)
    assert all(map(is_unavailable, others))
    turned_away = sum("under way already" in answer.json().get("detail", "") for answer in others)
    assert turned_away > 0
    repeated = doubtful.post(events[0], **{"Idempotency-Key": "hangs"})
    assert is_unknown(repeated)

    doubtful.log.fate = lambda: WELL
    doubtful.log.release.set()
    assert doubtful.post(Acts("HANGS-2026-9999", NOW).announced()).status_code == 201

    told = doubtful.resolved(unknown)
    keys = doubtful.keys()
    assert told.json()["outcome"] == "admitted"
    assert [keys[event.meta.donation_id] for event in events] == [1] + [0] * 39
    print(
        f"1 append hung: 1 unknown, then admitted; {len(others)} told that nothing was submitted, {turned_away} of them at once: none was"
    )


def test_a_service_whose_append_hangs_stops_all_the_same(pipeline: Pipeline, tmp_path: Path) -> None:
    with served(pipeline, tmp_path) as doubtful:
        doubtful.log.fate = lambda: HANGS
        answer = doubtful.post(Acts("STOPS-2026-0001", NOW).announced())
        since = time.monotonic()

    assert is_unknown(answer)
    assert time.monotonic() - since < 5


def test_a_slow_log_gets_fewer_and_larger_appends(pipeline: Pipeline, tmp_path: Path) -> None:
    events = [Acts(f"SLOW-2026-{number:04d}", NOW).announced() for number in range(100)]
    with served(pipeline, tmp_path, seconds=20) as doubtful, ThreadPoolExecutor(50) as pool:
        doubtful.log.fate = lambda: Fate(waits_seconds=0.2)
        answers = list(pool.map(lambda event: doubtful.post(event, wait=0), events))
        keys = doubtful.keys()

    assert {answer.status_code for answer in answers} == {202}
    assert {keys[event.meta.donation_id] for event in events} == {1}
    assert doubtful.log.appends < 50
    print(f"100 requests, {doubtful.log.appends} appends of 0.2 s each")


class Tale:
    """What one client was told of one request that it repeats, with the same key, until it is told an outcome."""

    def __init__(self, event: e.Event) -> None:
        self.event = event
        self.answers: list[httpx.Response] = []

    @property
    def accepted(self) -> bool:
        return bool(self.answers) and self.answers[-1].status_code in (201, 202)

    @property
    def was_unknown(self) -> bool:
        return any(answer.status_code == 504 for answer in self.answers)


def test_whatever_the_log_does_each_answer_is_true(doubtful: Doubtful) -> None:
    seed = int(os.environ.get("AIDTRAIL_SEED", time.time_ns() % 10**6))
    print(f"seed {seed}")
    chance = random.Random(seed)
    tales = [Tale(Acts(f"MIXED-2026-{number:04d}", NOW).announced()) for number in range(120)]

    def fate() -> Fate:
        waits = chance.choice([0.0] * 8 + [ACKNOWLEDGE_SECONDS * 1.5])
        share = chance.choice([0.0, 0.5, 1.0, 1.0])
        return Fate(chance.random() < 0.8, waits, share, answers=share == 1.0 and chance.random() < 0.5)

    async def tell(client: httpx.AsyncClient, tale: Tale, free: asyncio.Semaphore, attempts: int, wait: int) -> None:
        path, body = request_of(tale.event)
        headers = {"Idempotency-Key": tale.event.meta.donation_id} | ({"Prefer": f"wait={wait}"} if wait else {})
        for _ in range(attempts):
            if not tale.accepted:
                async with free:
                    tale.answers.append(await client.post(path, json=body, headers=headers))

    async def tell_all(attempts: int, wait: Callable[[], int]) -> None:
        free = asyncio.Semaphore(8)
        signed = {"Authorization": f"Bearer {local.issue(doubtful.home, 'krcs-officer', hours=1, now=time.time())}"}
        async with httpx.AsyncClient(base_url=doubtful.url, headers=signed, timeout=30) as client:
            await asyncio.gather(*(tell(client, tale, free, attempts, wait()) for tale in tales))

    doubtful.log.fate = fate
    asyncio.run(tell_all(3, lambda: chance.choice([0, 0, 1])))
    doubtful.log.fate = lambda: WELL
    doubtful.post(Acts("MIXED-2026-9999", NOW).announced())  # after whatever still hangs
    doubtful.pipeline.wait()
    keys = doubtful.keys()
    in_doubt = [tale for tale in tales if not tale.accepted and tale.was_unknown]
    located = {tale: doubtful.resolved(next(filter(is_unknown, tale.answers))) for tale in in_doubt}
    turned_away = [tale for tale in tales if not tale.accepted and not tale.was_unknown]
    accepted = [tale for tale in tales if tale.accepted]
    asyncio.run(tell_all(1, lambda: 20))

    for tale in accepted:
        assert keys[tale.event.meta.donation_id] == 1 or (tale.was_unknown and keys[tale.event.meta.donation_id] > 1), tale.answers
    for tale in turned_away:
        assert keys[tale.event.meta.donation_id] == 0
    for tale, answer in located.items():
        assert answer.json()["outcome"] == ("admitted" if keys[tale.event.meta.donation_id] else "pending")
    reader = doubtful.pipeline.reader()
    doubtful.pipeline.wait()
    again = 0
    for tale in tales:
        assert tale.accepted
        assert all(is_unavailable(answer) or is_unknown(answer) for answer in tale.answers[:-1])
        first_unknown = next((at for at, answer in enumerate(tale.answers) if answer.status_code == 504), len(tale.answers))
        assert all(answer.status_code == 503 for answer in tale.answers[:first_unknown][:-1])
        assert all(answer.status_code == 504 for answer in tale.answers[first_unknown:-1])  # a doubt stays one until it is resolved
        admitted, *refused = reader.history(tale.event.meta.donation_id)
        assert admitted.outcome == "admitted"
        assert all(isinstance(row.event, e.SubmissionRefused) and row.event.reason == "duplicate_event" for row in refused)
        again += len(refused)
    reader.close()
    attempts = sum(len(tale.answers) for tale in tales)
    assert doubtful.log.handed.total() <= attempts + 1
    in_log = sum(keys[tale.event.meta.donation_id] > 0 for tale in in_doubt)
    print(
        f"seed {seed}: {len(tales)} requests, {attempts} attempts, {doubtful.log.appends} appends; {len(accepted)} accepted, all in the "
        f"log; {len(turned_away)} told that nothing was submitted, none in it; {len(in_doubt)} in doubt, {in_log} of them in it and told "
        f"at their Location; with the same keys all {len(tales)} admitted once, {again} refused as repeated"
    )
