"""Each service is stopped and started again, one after the other, while submissions come in; then every submission is accounted for."""

import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import cycle, islice
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import psycopg

from aidtrail import codec
from aidtrail.log.kafka import KafkaLog
from aidtrail.topics import Topics
from aidtrail.views.reader import Reader
from tests.bench import lives
from tests.deployed import Deployment, Instance
from tests.waiting import eventually

PER_SECOND = 200
TICKS = 20
HTTP_EVERY = 10
"""One submission in so many goes over HTTP, where there are two gateways; the others are appended, as a service with the library does."""
VISIBLE_SECONDS = 60.0
TRIES = 100


class Told(NamedTuple):
    submissions: int
    over_http: int
    tried_again: int
    seconds: float
    restarts: int
    lost: int
    repeated: int
    void: int
    p50_seconds: float
    p99_seconds: float
    max_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.restarts} restarts under {self.submissions / self.seconds:.0f} submissions/s: {self.submissions:,} submitted "
            f"({self.over_http:,} over HTTP, {self.tried_again} of them tried again at the other gateway), {self.lost} lost, "
            f"{self.repeated} repeated, {self.void} void; visible after {self.p50_seconds:.2f} s in the median, "
            f"p99 {self.p99_seconds:.2f} s, at most {self.max_seconds:.2f} s"
        )


def roll(deployment: Deployment, instances: Iterable[Instance]) -> Told:
    """Restart each of `instances` under load. Where two of them are gateways, a part of the load goes over HTTP. Asserts that nothing was
    lost or repeated."""
    rolling = list(instances)
    watch = Watch(deployment.views)
    load = Load(deployment, {instance.url: instance for instance in rolling if instance.name == "gateway"})
    try:
        watch.start()
        load.start()
        for instance in rolling:
            code = instance.stop()
            assert code == 0, instance.said()
            fresh = deployment.start(instance.name).wait_until_healthy()
            load.replace(instance.url, fresh)
        load.finish()
        assert eventually(lambda: load.sent.keys() <= watch.seen.keys(), VISIBLE_SECONDS), missing(load, watch)
    finally:
        load.finish()
        watch.finish()
    with psycopg.connect(deployment.views) as connection:
        rows = connection.execute("SELECT event_id, outcome FROM live.entries").fetchall()
    outcomes = Counter(event_id for event_id, outcome in rows if outcome == "admitted")
    refused = sum(outcome == "refused" and event_id in load.sent for event_id, outcome in rows)
    delays = sorted(watch.seen[event_id] - sent_at for event_id, sent_at in load.sent.items())
    cuts = statistics.quantiles(delays, n=100)
    told = Told(
        submissions=len(load.sent),
        over_http=load.over_http,
        tried_again=load.tried_again,
        seconds=load.seconds,
        restarts=len(rolling),
        lost=len(load.sent.keys() - outcomes.keys()),
        repeated=sum(outcomes[event_id] > 1 for event_id in load.sent) + refused,  # a second one is refused
        void=sum(outcome == "void" for _, outcome in rows),
        p50_seconds=cuts[49],
        p99_seconds=cuts[98],
        max_seconds=delays[-1],
    )
    assert (told.lost, told.repeated) == (0, 0), told
    return told


class Load:
    """PER_SECOND submissions a second, until told to finish. `sent` says when each event was handed over, by the clock of `Watch`."""

    def __init__(self, deployment: Deployment, gateways: Mapping[str, Instance]) -> None:
        self.sent: dict[UUID, float] = {}
        self.over_http = self.tried_again = 0
        self.seconds = 0.0
        self._deployment = deployment
        self._urls = list(gateways) if len(gateways) > 1 else []
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        appended = PER_SECOND - PER_SECOND // HTTP_EVERY if self._urls else PER_SECOND
        assert appended % TICKS == 0  # else it would be fewer a second than is said
        self._threads = [threading.Thread(target=self._noting, args=(self._append, appended // TICKS))]
        if self._urls:
            self._threads.append(threading.Thread(target=self._noting, args=(self._post, PER_SECOND // HTTP_EVERY)))

    def start(self) -> None:
        self._started_at = time.monotonic()
        for thread in self._threads:
            thread.start()

    def replace(self, url: str, fresh: Instance) -> None:
        """As a load balancer is told of a new address."""
        self._urls = [fresh.url if known == url else known for known in self._urls]

    def finish(self) -> None:
        if not self._stop.is_set():
            self.seconds = time.monotonic() - self._started_at
            self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        if self._errors:
            raise self._errors[0]

    def _noting(self, submit: Any, count: int) -> None:
        try:
            submit(count)
        except BaseException as error:
            self._errors.append(error)

    def _append(self, each_tick: int) -> None:
        log = KafkaLog([self._deployment.bootstrap])
        topics = Topics.of(self._deployment.prefix)
        appender = log.appender()
        drafts = lives.submissions(topics.submitted, log.partitions(topics.submitted), 100_000, active=50)
        for _ in ticks(self._stop, TICKS):
            batch = list(islice(drafts, each_tick))
            now = time.perf_counter()
            self.sent |= {codec.decode(draft.value).meta.event_id: now for draft in batch}
            appender.append(batch)
        appender.close()
        log.close()

    def _post(self, per_second: int) -> None:
        client = self._deployment.client("", "krcs-officer-1")
        turns = cycle(range(2))
        for number, _ in enumerate(ticks(self._stop, per_second)):
            handed_over_at = time.perf_counter()
            answers = (self._tried(client, next(turns), number) for _ in range(TRIES))
            tries, answer = next((tries, answer) for tries, answer in enumerate(answers) if answer is not None)
            self.sent[UUID(answer["event_id"])] = handed_over_at
            self.over_http += 1
            self.tried_again += tries > 0
        client.close()

    def _tried(self, client: httpx.Client, which: int, number: int) -> Any:
        """What one of the two gateways says; None while it is not there. The same key makes it the same event, whoever takes it."""
        headers = {"Idempotency-Key": f"rolling-{number:06d}", "Prefer": "wait=0"}
        try:
            answer = client.post(f"{self._urls[which]}/v1/donations/ROLL-{number:06d}/pledge", json=pledge(), headers=headers)
        except httpx.TransportError:
            return None
        assert answer.status_code in (201, 202, 503), answer.text
        return None if answer.status_code == 503 else answer.json()


class Watch(threading.Thread):
    """Notes when another connection first sees each outcome that counts."""

    def __init__(self, views: str) -> None:
        super().__init__()
        self.seen: dict[UUID, float] = {}
        self._views = views
        self._done = threading.Event()

    def run(self) -> None:
        reader = Reader.open(self._views)
        with psycopg.connect(self._views, autocommit=True) as connection:
            before = reader.next_offsets()
            while not self._done.is_set():
                found, now = reader.next_offsets(), time.perf_counter()
                for partition, end in found.items():
                    if end > before[partition]:
                        rows = connection.execute(
                            """SELECT event_id FROM live.entries WHERE partition = %s AND "offset" >= %s AND "offset" < %s
                            AND outcome <> 'void'""",
                            (partition, before[partition], end),
                        ).fetchall()
                        for (event_id,) in rows:
                            self.seen.setdefault(event_id, now)
                before = found
                self._done.wait(0.005)
        reader.close()

    def finish(self) -> None:
        self._done.set()
        if self.ident is not None:
            self.join()


def ticks(stop: threading.Event, per_second: int) -> Iterator[None]:
    """So many times a second, until `stop`; what a slow turn missed is made up for."""
    start = time.monotonic()
    for number in range(1, 1 << 31):
        if stop.is_set():
            return
        yield
        stop.wait(max(0.0, start + number / per_second - time.monotonic()))


def missing(load: Load, watch: Watch) -> str:
    return f"{len(load.sent.keys() - watch.seen.keys())} of {len(load.sent)} are not visible"


def pledge() -> dict[str, Any]:
    return {
        "oversight": "managed",
        "donor": "KRCS",
        "beneficiary": "KBH",
        "route": [{"leg_id": "L1", "from_party": "KRCS", "to_party": "KBH"}],
        "amounts": [{"amount": "1000.000", "currency": "KWD"}],
        "occurred_on": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "role": "officer",
    }
