"""What Prometheus is told: by a whole `aidtrail up` after the demo's story, and by what reads log and views when it asks."""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import aidtrail.demo
from aidtrail import codec, collectors, metrics
from aidtrail.collectors import STAGES, Cached, Sample
from aidtrail.demo.story import story
from aidtrail.errors import UnavailableError
from aidtrail.gateway.measured import Measured
from aidtrail.log.memory import MemoryLog
from aidtrail.metrics import Read
from aidtrail.producer import Producer
from tests.acts import Acts, full_life
from tests.brokers import free_ports
from tests.pipeline import TOPICS, Pipeline
from tests.serving import Served
from tests.test_cli import Up, run
from tests.waiting import eventually

COUNTED = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
READ = [read for read in vars(metrics).values() if isinstance(read, Read)]
NAMES = {metric._name for metric in COUNTED} | {read.name for read in READ}
LABELS = {
    "service", "step", "method", "route", "status", "outcome", "reason", "reader", "collector", "consumergroup", "topic", "partition",
    "oversight", "contribution", "currency", "stage", "headline", "kind", "witness",
}  # fmt: skip
"""Of few values each. None of them is a donation, a party or an actor. A witness is one of the few keys that the settings name."""
ELSEWHERE = {name for name in NAMES if "seal" in name}
"""Told by a service that `up` does not run."""
NOTHING_WAITS = {metrics.APPROVALS_WAITING_SINCE.name, metrics.UNACKNOWLEDGED_SINCE.name}
"""Absent while nothing waits, as at the end of the story."""

Told = dict[str, dict[frozenset[tuple[str, str]], float]]
"""Families of samples, by their labels."""


def test_every_metric_has_a_meaning_and_labels_of_few_values() -> None:
    told = [(metric._name, metric._documentation, metric._labelnames) for metric in COUNTED] + [tuple(read) for read in READ]

    assert len(NAMES) == len(told) > 20
    for name, meaning, labels in told:
        assert re.fullmatch(r"(aidtrail|kafka)_[a-z_]+", name)
        assert len(meaning) > 10
        assert set(labels) <= LABELS, name
    print(f"{len(told)} metrics")


def test_every_metric_is_told_after_a_donation_and_no_label_says_whose(tmp_path: Path) -> None:
    home, script, now = tmp_path / "home", tmp_path / "story.ndjson", datetime.now(UTC)
    registry = Path(aidtrail.demo.__file__).parent / "registry.ndjson"
    script.write_text("".join(codec.to_json(step.event(number, now)) + "\n" for number, step in enumerate(story(now), start=1)))
    port, listen = free_ports(2)
    settings = {"AIDTRAIL_METRICS_PORT": str(port), "AIDTRAIL_LISTEN": f"127.0.0.1:{listen}", "AIDTRAIL_HEARTBEAT_SECONDS": "60"}
    up = Up(home, settings=settings).wait_for("running: ledger, projector, timekeeper, gateway")
    try:
        assert run(home, "registry", "load", str(registry)).returncode == 0
        submitted = run(home, "submit", str(script))
        audits = [run(home, "audit", "replay", "--note"), run(home, "audit", "rebuild")]
        httpx.get(f"http://127.0.0.1:{listen}/v1/donations/KRCS-DEMO-0001")
        expected = NAMES - ELSEWHERE - NOTHING_WAITS
        assert eventually(lambda: scrape(port).keys() >= expected, 40), expected - scrape(port).keys()
        told = scrape(port)
    finally:
        up.stop()

    refused = submitted.stdout.count("REFUSED")
    assert refused > 3
    assert [done.returncode for done in audits] == [0, 0]
    assert told["aidtrail_audit_differences"] == {labels(kind="replay"): 0, labels(kind="rebuild"): 0}
    assert sum(told["aidtrail_ledger_refusals"].values()) == refused
    assert told["aidtrail_timekeeper_heartbeat_interval_seconds"] == {frozenset(): 60}
    assert told["aidtrail_amount"][labels(oversight="managed", contribution="financial", currency="KWD", stage="pledged")] == 120000.75
    values = {value for family in told.values() for sample in family for _, value in sample}
    named = set(re.findall(r'_id":\s*"([^"]+)"', registry.read_text() + script.read_text()))
    assert len(named) > 20
    assert {(value, name) for value in values for name in named if name.lower() in value.lower().replace("/", " ").split()} == set()
    print(f"{len(told)} metrics told of {len(NAMES)}, {len(values)} values of labels, 0 of {len(named)} names among them")


def test_a_histogram_names_the_slowest_entry_of_its_batch_by_where_it_stands(database_url: str, tmp_path: Path) -> None:
    pipeline = Pipeline(database_url, tmp_path)
    pipeline.submit(full_life())
    pipeline.close()
    found = [
        sample.exemplar
        for family in metrics.TIME_TO_VISIBLE.collect()
        for sample in family.samples
        if sample.exemplar is not None and sample.name.endswith("_bucket")
    ]

    assert found
    assert all(exemplar.labels.keys() == {"partition", "offset"} and exemplar.value >= 0 for exemplar in found)


# --- what is read when Prometheus asks ------------------------------------------------------------------------------------------------


def test_the_views_figures_are_told_per_currency_and_kept_apart_by_oversight(database_url: str, tmp_path: Path) -> None:
    pipeline = Pipeline(database_url, tmp_path)
    observed, waiting = Acts("FTS-1"), Acts("KRCS-2026-0002")
    pipeline.submit([*full_life(), observed.observed(), observed.reported(amount="250")])
    requested = [waiting.announced(), waiting.confirmed(), waiting.requested()]
    pipeline.submit(requested)

    told = {(read.name, values): value for read, values, value in collectors.facts(database_url)}
    reader = pipeline.reader()
    rows = reader.amounts([row.donation_id for row in reader.donations()])
    oversight = {row.donation_id: (row.oversight, row.contribution) for row in reader.donations()}
    reader.close()
    pipeline.close()

    by_hand: dict[tuple[str, ...], float] = {}
    for donation_id, amounts in rows.items():
        for row in amounts:
            for stage in STAGES:
                of = (*oversight[donation_id], row.currency, stage)
                by_hand[of] = by_hand.get(of, 0.0) + float(getattr(row, stage))
    assert {values: value for (name, values), value in told.items() if name == "aidtrail_amount"} == by_hand
    assert {values[0] for name, values in told if name == "aidtrail_amount"} == {"managed", "observed"}
    assert told["aidtrail_approvals_waiting", ()] == 1
    assert told["aidtrail_approvals_waiting_since_timestamp_seconds", ()] == requested[-1].meta.occurred_on.timestamp()
    assert sum(value for (name, _), value in told.items() if name == "aidtrail_donations") == 3
    print(f"{len(by_hand)} amounts, all as in the views")


def test_money_that_nobody_acknowledged_is_told_with_its_age(database_url: str, tmp_path: Path) -> None:
    log = MemoryLog(clock=lambda: now)
    acts = Acts()
    now = int(acts.now.timestamp() * 1000)
    pipeline = Pipeline(database_url, tmp_path, log)
    pipeline.submit([acts.announced(), acts.confirmed(), *acts.approval()])
    events = acts.payment("D1", "400")
    now += 3_600_000
    pipeline.submit(events)

    told = {read.name: (values, value) for read, values, value in collectors.facts(database_url) if "unack" in read.name}
    pipeline.close()

    assert told["aidtrail_unacknowledged_amount"] == (("financial", "KWD"), 400.0)
    assert told["aidtrail_unacknowledged_since_timestamp_seconds"][1] == now / 1000


def test_there_is_nothing_to_tell_of_a_database_without_views(database_url: str) -> None:
    assert list(collectors.facts(database_url)) == []


def test_lag_is_told_under_the_names_that_tools_know(database_url: str, tmp_path: Path) -> None:
    pipeline = Pipeline(database_url, tmp_path)
    pipeline.submit(full_life())
    assert eventually(lambda: (pipeline.catch_up(), lags(pipeline)["projector"] == 0)[1])  # it tells how far it is once a second
    before = lags(pipeline)
    with Producer(pipeline.log, TOPICS) as producer:
        producer.submit([Acts("KRCS-2026-0009").announced()])
    after = lags(pipeline)
    pipeline.close()

    assert before == {"ledger": 0, "projector": 0}
    assert after == {"ledger": 1, "projector": 0}


@pytest.mark.parametrize(("fails", "told", "raised"), [({"submitted"}, {"projector"}, False), ({"submitted", "recorded"}, set(), True)])
def test_a_group_that_cannot_be_asked_for_hides_no_other(fails: set[str], told: set[str], raised: bool) -> None:
    class Refusing(MemoryLog):
        def committed(self, group: str, topic: str) -> dict[int, int]:
            if topic.rpartition(".")[2] in fails:
                raise UnavailableError("no right to describe the group")
            return super().committed(group, topic)

    log = Refusing()
    TOPICS.create(log, 1)
    samples: list[Sample] = []
    try:
        for sample in collectors.lag(log, {"ledger": TOPICS.submitted, "projector": TOPICS.recorded}):
            samples.append(sample)
        failed = False
    except UnavailableError:
        failed = True

    assert ({values[0] for read, values, _ in samples if read is metrics.LAG}, failed) == (told, raised)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_reading_is_told_again_until_it_is_time_for_another_and_no_longer_than_a_minute() -> None:
    clock, values = Clock(), iter([1.0, 2.0])
    readings = 0

    def read() -> Iterator[Sample]:
        nonlocal readings
        readings += 1
        yield metrics.PARKED_IN_VIEWS, (), next(values)  # the third reading fails: StopIteration

    cached = Cached("test", read, 15.0, clock)
    told = []
    for clock.seconds in (0.0, 14.9, 15.0, 30.0, 45.0, 76.0):
        told.append(parked(cached))

    assert told == [1, 1, 2, 2, 2, None]
    assert readings == 5
    assert metrics.READ_FAILURES.labels("test")._value.get() == 3


def test_registering_reads_nothing() -> None:
    def read() -> Iterable[Sample]:
        raise AssertionError("read before anybody asked")

    CollectorRegistry(auto_describe=True).register(Cached("registered", read, 15.0))


# --- requests -------------------------------------------------------------------------------------------------------------------------


def test_a_request_is_counted_by_the_template_of_its_route(capsys: pytest.CaptureFixture[str]) -> None:
    async def found(request: Request) -> PlainTextResponse:
        if request.path_params["donation_id"] == "BROKEN":
            raise RuntimeError("a fault")
        return PlainTextResponse("ok")

    app = Measured(Starlette(routes=[Route("/of/{donation_id}", found)]))
    with Served(app) as served:
        for path in ("/of/KRCS-1", "/of/KRCS-2", "/of/BROKEN", "/nowhere/KRCS-3"):
            httpx.get(f"{served.url}{path}")
        httpx.request("BREW", f"{served.url}/of/KRCS-1")

    counted = {
        (sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value
        for family in metrics.REQUEST_SECONDS.collect()
        for sample in family.samples
        if sample.name.endswith("_count") and sample.labels["route"] in ("/of/{donation_id}", "none")
    }
    assert counted["GET", "/of/{donation_id}", "2xx"] == 2
    assert counted["GET", "/of/{donation_id}", "5xx"] == 1
    assert counted["GET", "none", "4xx"] >= 1
    assert counted["other", "/of/{donation_id}", "4xx"] == 1
    assert metrics.REQUESTS_UNDER_WAY._value.get() == 0


# --- helpers ------------------------------------------------------------------------------------------------------------------------


def scrape(port: int) -> Told:
    """Every sample of a process as Prometheus asks for them: in OpenMetrics, which has exemplars. Only families that have samples."""
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=accept, timeout=10)
    return {
        family.name: {frozenset(sample.labels.items()): sample.value for sample in family.samples}
        for family in read_openmetrics(answer.text)
        if family.samples
    }


def labels(**named: str) -> frozenset[tuple[str, str]]:
    return frozenset(named.items())


def lags(pipeline: Pipeline) -> dict[str, float]:
    """The sum over partitions, by group."""
    found: dict[str, float] = {}
    for read, (group, *_), value in collectors.lag(pipeline.log, {"ledger": TOPICS.submitted, "projector": TOPICS.recorded}):
        if read.name == "kafka_consumergroup_lag":
            found[group] = found.get(group, 0) + value
    return found


def parked(cached: Cached) -> float | None:
    return next((family.samples[0].value for family in cached.collect() if family.name == metrics.PARKED_IN_VIEWS.name), None)
