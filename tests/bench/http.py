"""The stage `http`: what the gateway does, over real HTTP, beside a bare FastAPI and psycopg handler that gives the same answer.

The load comes from a process of its own that writes requests made beforehand to plain sockets: its share of a core is in the report, and
shows that it is not what limits.
"""

import json
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from aidtrail.demo.story import story
from aidtrail.domain.events import Event
from aidtrail.gateway import local
from aidtrail.gateway.server import Server as HttpServer
from aidtrail.gateway.state import Gateway
from aidtrail.log.kafka import KafkaLog
from aidtrail.producer import Producer
from aidtrail.routes import ROUTES
from aidtrail.topics import Topics
from aidtrail.views import shapes
from tests.bench import lives
from tests.bench.stages import PARTITIONS, SPAWN, Report, fill, say, serve_ledger, serve_projector, wait_until_projected
from tests.databases import Server

READERS = 16
ROUNDS = 3
ROUND_SECONDS = 4.0
READER_ID = "krcs-officer-1"


def http_stage(bootstrap: str, server: Server, seconds: int, per_second: int = 100) -> Report:
    """Reading, closed loop: the same donations from the bare handler and from the gateway, in turn. Submitting, open loop: whole lives,
    each event with `Prefer: wait`, timed from when it was due. `cpu_ms` is what a request took of the server's process: what else the
    machine does matters less to it than to the rates."""
    topics = Topics.of("bench-http")
    log = KafkaLog([bootstrap])
    topics.create(log, PARTITIONS)
    database = server.create_database()
    with Producer(log, topics) as producer:
        producer.register(lives.registry_events())
    entries = fill(log, lives.submissions(topics.submitted, PARTITIONS, 200, active=50), "submissions")
    stop = SPAWN.Event()
    with tempfile.TemporaryDirectory() as home:
        gateway, gateway_end = SPAWN.Pipe()
        bare, bare_end = SPAWN.Pipe()
        workers = [
            SPAWN.Process(target=serve_ledger, args=(bootstrap, topics, stop)),
            SPAWN.Process(target=serve_projector, args=(bootstrap, topics, database, stop)),
            SPAWN.Process(target=serve_bare, args=(database, stop, bare_end)),
            SPAWN.Process(target=serve_gateway, args=(bootstrap, topics, database, Path(home), stop, gateway_end)),
        ]
        for worker in workers:
            worker.start()
        try:
            wait_until_projected(database, entries)
            *_, bare_worker, gateway_worker = workers
            servers = {"bare": Serving(*bare.recv(), bare_worker.pid), "gateway": Serving(*gateway.recv(), gateway_worker.pid)}
            report = read(servers, token(Path(home), READER_ID)) | submit(servers["gateway"], Path(home), seconds, per_second)
        finally:
            stop.set()
            for worker in workers:
                worker.join(20)
    log.close()
    say(report)
    return report


class Serving(NamedTuple):
    host: str
    port: int
    pid: int | None

    def cpu_ms(self) -> float:
        """What the process took of the processors so far (proc(5): utime and stime)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def read(servers: dict[str, Serving], bearer: str) -> Report:
    donations = [lives.NAME.format(number) for number in range(1, 201)]
    requests = [f"GET /v1/donations/{each} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\n\r\n".encode() for each in donations]
    rates: dict[str, list[float]] = {name: [] for name in servers}
    costs: dict[str, list[float]] = {name: [] for name in servers}
    shares: list[float] = []
    for number in range(1 + ROUNDS):
        for name, serving in servers.items():
            before = serving.cpu_ms()
            count, share = in_a_process(read_all, serving[:2], requests, ROUND_SECONDS)
            if number:  # the first one warms up
                rates[name].append(count / ROUND_SECONDS)
                costs[name].append((serving.cpu_ms() - before) / count)
                shares.append(share)
    return {
        **{f"get_{name}_per_second": round(statistics.median(found)) for name, found in rates.items()},
        "get_gateway_to_bare": round(statistics.median(ours / bare for ours, bare in zip(rates["gateway"], rates["bare"], strict=True)), 2),
        **{f"get_{name}_cpu_ms": round(statistics.median(found), 2) for name, found in costs.items()},
        "get_client_of_a_core": round(max(shares), 2),
    }


def submit(serving: Serving, home: Path, seconds: int, per_second: int) -> Report:
    """`per_second` donations at a time, each an event a second; the next starts when one has lived."""
    now = datetime.now(UTC)
    events = [step.event(number, lives.NOW) for number, step in enumerate(story(now), start=1) if step.refused_by is None]
    tokens = {event.meta.actor.actor_id: token(home, event.meta.actor.actor_id) for event in events}
    made = [request_of(event, tokens[event.meta.actor.actor_id]) for event in events]
    before = serving.cpu_ms()
    times, share = in_a_process(submit_all, serving[:2], made, seconds, per_second)
    cuts = statistics.quantiles(times, n=100)
    return {
        "post_per_second": per_second, "post_admitted": len(times),
        "post_p50_ms": round(cuts[49], 1), "post_p95_ms": round(cuts[94], 1), "post_p99_ms": round(cuts[98], 1),
        "post_max_ms": round(max(times), 1), "post_gateway_cpu_ms": round((serving.cpu_ms() - before) / len(times), 2),
        "post_client_of_a_core": round(share, 2),
    }  # fmt: skip


def token(home: Path, actor_id: str) -> str:
    return "Bearer " + local.issue(home, actor_id, hours=1, now=time.time())


class Made(NamedTuple):
    """A request for the donation lives.TEMPLATE, which `of` replaces by another of equal length."""

    content: bytes

    def of(self, donation_id: str) -> bytes:
        return self.content.replace(lives.TEMPLATE.encode(), donation_id.encode())


def request_of(event: Event, bearer: str) -> Made:
    route = next(route for route in ROUTES if route.event is type(event))
    stated = event.model_dump(mode="json", exclude={"meta"}, exclude_none=True)
    path = route.path.format(**{field: stated.pop(field) for field in route.fields})
    body = json.dumps({**stated, "occurred_on": event.meta.occurred_on.isoformat(), "role": event.meta.actor.role})
    head = f"POST /v1/donations/{lives.TEMPLATE}/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nPrefer: wait=20\r\n"
    return Made(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())


# --- the load: each is the target of a process --------------------------------------------------------------------------------------


def in_a_process(target: Callable[..., Any], *arguments: Any) -> Any:
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=answering, args=(there, target, arguments))
    process.start()
    there.close()
    found = here.recv()
    process.join()
    return found


def answering(pipe: Connection, target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    pipe.send(target(*arguments))


def read_all(address: tuple[str, int], requests: Sequence[bytes], seconds: float) -> tuple[int, float]:
    """How many of these requests, one after the other on each of READERS connections, were answered by 200; and the share of a core that
    asking took."""
    counts = [0] * READERS
    end = time.perf_counter() + seconds
    used = time.process_time()

    def ask(reader: int) -> None:
        with socket.create_connection(address) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while time.perf_counter() < end:
                status = exchange(connection, requests[counts[reader] % len(requests)])
                assert status == 200, status
                counts[reader] += 1

    in_threads([lambda reader=reader: ask(reader) for reader in range(READERS)])  # type: ignore[misc]
    return sum(counts), (time.process_time() - used) / seconds


def submit_all(address: tuple[str, int], life: Sequence[Made], seconds: int, per_second: int) -> tuple[list[float], float]:
    """The milliseconds from when each request was due until its 201 was there; and the share of a core that asking took."""
    times: list[float] = []
    start = time.perf_counter() + 0.5
    used = time.process_time()

    def live(number: int) -> None:
        with socket.create_connection(address) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for turn in range(seconds):
                donation_id = lives.NAME.format(10_000 + number + per_second * (turn // len(life)))
                due = start + turn + number / per_second
                time.sleep(max(0.0, due - time.perf_counter()))
                status = exchange(connection, life[turn % len(life)].of(donation_id))
                assert status == 201, status
                times.append(1000 * (time.perf_counter() - due))

    in_threads([lambda number=number: live(number) for number in range(per_second)])  # type: ignore[misc]
    assert len(times) == seconds * per_second, "a request was not answered by 201"
    return times, (time.process_time() - used) / seconds


def in_threads(targets: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def exchange(connection: socket.socket, request: bytes) -> int:
    """Send a request, read its whole answer; returns the status."""
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += received(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    left = length - len(body)
    while left > 0:
        left -= len(received(connection))
    return int(head[9:12])


def received(connection: socket.socket) -> bytes:
    found = connection.recv(65536)
    if not found:
        raise ConnectionError("the server hung up")
    return found


# --- what is measured: each is the target of a process ------------------------------------------------------------------------------


def serve_gateway(bootstrap: str, topics: Topics, database: str, home: Path, stop: Any, pipe: Connection) -> None:
    opened: list[KafkaLog] = []

    def open_log() -> KafkaLog:
        opened.append(KafkaLog([bootstrap]))
        return opened[-1]

    serving = HttpServer(Gateway(open_log, topics, database, local.local_verifier(home)), topics, "127.0.0.1:0")
    serving.turn()
    host, _, port = serving.url.removeprefix("http://").partition(":")
    pipe.send((host, int(port)))
    while not stop.is_set():
        serving.turn()
    serving.close()
    for log in opened:
        log.close()


def serve_bare(database: str, stop: Any, pipe: Connection) -> None:
    """The least that anybody would write: no token, no rights, no registry, no ETag, no limits."""
    pool = ConnectionPool(database, min_size=1, max_size=16, kwargs={"autocommit": True, "row_factory": dict_row}, open=True)
    app = FastAPI()

    @app.get("/v1/donations/{donation_id}")
    def get_donation(donation_id: str) -> Response:
        with pool.connection() as connection:
            row = connection.execute("SELECT * FROM live.donations WHERE donation_id = %s", (donation_id,)).fetchone()
            amounts = connection.execute("SELECT * FROM live.amounts WHERE donation_id = %s ORDER BY 2", (donation_id,)).fetchall()
        if row is None:
            return Response(status_code=404)
        return Response(shapes.to_json({**row, "amounts": amounts}), media_type="application/json")

    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    serving = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]})
    thread.start()
    pipe.send(listening.getsockname())
    stop.wait()
    serving.should_exit = True
    thread.join()
    pool.close()
