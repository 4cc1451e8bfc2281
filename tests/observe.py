"""`make observe`: the whole deployment as plain processes on a real Kafka, PostgreSQL and Prometheus, while the demo's story is played many
times over.

Every panel of every dashboard is asked as Grafana asks it. Each must have data, none of it infinite, and the sums of money that Prometheus
has must be those of the views. Each dashboard is drawn to build/observe/NAME.png, for a person to look at.
"""

import argparse
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psycopg
import yaml

from aidtrail import codec
from aidtrail.demo.story import story
from aidtrail.domain.events import ApprovalDecided, Event
from aidtrail.log import Draft, Log
from aidtrail.log.kafka import KafkaLog
from aidtrail.producer import Producer
from aidtrail.topics import Topics
from aidtrail.views.reader import Reader
from tests.brokers import Broker, free_ports
from tests.databases import Server
from tests.deployed import Deployment, Instance
from tests.test_grafana import NAMES, dashboard, interpolated_sql, panels
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "build" / "observe"
PROMETHEUS = ROOT / "deploy" / "prometheus"
SCRAPE_SECONDS = 2
RATE_INTERVAL = "20s"
TOPICS = Topics.of("donations")
PARKED = "KRCS-LOAD-0001"
DONATIONS = 120
BATCH = 40
FAULTY_PROJECTOR = f"""
import aidtrail.projector as it, aidtrail.cli
def fold(donation, event, apply=it.apply):
    if event.meta.donation_id == {PARKED!r} and event.type == "ApprovalRequested":
        raise ValueError("a fault in the fold")
    return apply(donation, event)
it.Projector.__init__.__kwdefaults__["apply"] = fold
aidtrail.cli.app(["project"])
"""
"""A release with a defect: one donation is parked."""


class Told(NamedTuple):
    """What one panel shows: series of (time, value) by legend, or rows of a table."""

    series: dict[str, list[tuple[float, float]]]
    columns: list[str]
    rows: list[tuple[Any, ...]]

    @property
    def fault(self) -> str | None:
        """Why nobody can read it. Not a number is what Grafana leaves a gap for: a share of nothing."""
        values = [value for points in self.series.values() for _, value in points]
        if any(math.isinf(value) for value in values):
            return "infinite"
        return "empty" if not self.rows and all(math.isnan(value) for value in values) else None


class Prometheus:
    """Debian's, with the rules and alerts of deploy/, asking the processes of a deployment."""

    def __init__(self, folder: Path, instances: list[Instance], rules: Path = PROMETHEUS) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
        config["global"] |= {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"}
        config["rule_files"] = [str(rules / "rules.yml"), str(rules / "alerts.yml")]
        del config["alerting"]
        jobs = {job["job_name"] for job in config["scrape_configs"]}
        assert jobs == {instance.name for instance in instances}
        config["scrape_configs"] = [
            {"job_name": job, "static_configs": [{"targets": [one.metrics_address for one in instances if one.name == job]}]}
            for job in sorted(jobs)
        ]
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        command = [
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with open(folder / "prometheus.err", "wb") as said:
            self.process = subprocess.Popen(command, stdout=said, stderr=said)
        assert eventually(self._ready, 30), (folder / "prometheus.err").read_text()

    def instant(self, query: str) -> list[dict[str, Any]]:
        return self._ask("query", query=query)

    def range(self, query: str, start: float) -> list[dict[str, Any]]:
        return self._ask("query_range", query=query, start=str(start), end=str(time.time()), step=str(SCRAPE_SECONDS))

    def value(self, query: str) -> float | None:
        found = self.instant(query)
        return float(found[0]["value"][1]) if found else None

    def values(self, label: str, metric: str) -> list[str]:
        return sorted({found["metric"][label] for found in self.instant(metric)})

    def alerts(self) -> dict[str, str]:
        """The state of each alert: inactive, pending or firing."""
        groups = httpx.get(f"{self.url}/api/v1/rules", params={"type": "alert"}, timeout=30).json()["data"]["groups"]
        return {rule["name"]: rule["state"] for group in groups for rule in group["rules"]}

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def _ask(self, what: str, **parameters: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/{what}", params=parameters, timeout=30).json()
        assert answer["status"] == "success", f"{parameters['query']}: {answer.get('error')}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


class Observed:
    """The deployment, what is done to it, and what is seen of it."""

    def __init__(self, deployment: Deployment, server: Server, rules: Path = PROMETHEUS) -> None:
        self.deployment, self.server = deployment, server
        self.views = deployment.views
        self.log = KafkaLog(deployment.bootstrap.split(","))
        self.start = time.time()
        deployment.prepare()
        for name in deployment.services:
            if name not in (*deployment.one_off, "projector"):
                deployment.start(name)
        self.start_projector()
        for instance in deployment.running():
            instance.wait_until_healthy()
        self.prometheus = Prometheus(deployment.folder, deployment.running(), rules)

    def start_projector(self) -> Instance:
        made = self.deployment
        environment = made.environment("projector")
        command = [sys.executable, "-c", FAULTY_PROJECTOR]
        instance = Instance("projector", command, made.health("projector", environment), environment, made.folder / "projector.err")
        made.adopt(instance)
        return instance

    def load(self, donations: int, a_second: float, prefix: str = "KRCS-LOAD", log: Log | None = None) -> int:
        """The story for so many donations, each up to a step of its own, and people who look meanwhile; how many were submitted."""
        now = datetime.now(UTC)
        steps = list(enumerate(story(now), start=1))
        events = [
            lived(step.event(number, now), f"{prefix}-{donation:04}", donation)
            for number, step in steps
            for donation in range(1, donations + 1)
            if number <= (donation * 7) % (len(steps) + 1)
        ]
        gateway = next(instance for instance in self.deployment.running() if instance.name == "gateway")
        with Producer(log or self.log, TOPICS) as producer, self.deployment.client(gateway.url, "krcs-officer-1") as client:
            due = time.monotonic()
            for first in range(0, len(events), BATCH):
                producer.submit(events[first : first + BATCH])
                client.get("/v1/donations", params={"limit": 10})
                client.get(f"/v1/donations/{events[first].meta.donation_id}/history")
                client.get("/v1/donations/KRCS-NONE-0000")
                due += BATCH / a_second
                time.sleep(max(0.0, due - time.monotonic()))  # the load's own pace
        return len(events)

    def forge(self) -> None:
        """What a rogue writes: no entry where only the ledger writes, and no event where producers do."""
        appender = self.log.appender()
        for partition, topic in enumerate((TOPICS.recorded, TOPICS.submitted)):
            appender.append([Draft(topic, partition, b"KRCS-LOAD-0002", b"forged")])
        appender.close()

    def audit(self, *kinds: str) -> None:
        """A replay, which leaves a note, or a rebuild; its fold is not the projector's, so the parked donation must differ."""
        for words in (["audit", "replay", "--note"] if kind == "replay" else ["audit", kind] for kind in kinds):
            command = [str(Path(sys.executable).parent / "aidtrail"), *words]
            done = subprocess.run(
                command, env=self.deployment.environment("projector"), capture_output=True, text=True, timeout=300, check=False
            )
            print(f"aidtrail {' '.join(words)}: {done.stdout.splitlines()[-1] if done.stdout else done.stderr}")

    def is_projected(self) -> bool:
        reader = Reader.open(self.views)
        try:
            written = reader.next_offsets()
        finally:
            reader.close()
        recorded, submitted = self.log.end_offsets(TOPICS.recorded), self.log.end_offsets(TOPICS.submitted)
        return written == recorded and sum(recorded.values()) >= sum(submitted.values())

    def money(self) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
        """The sums of money by oversight, contribution, currency and stage: in the views, and in Prometheus."""
        stages = ("pledged", "approved", "in_flight", "settled", "returned", "passed_on", "held", "received", "acknowledged", "utilised")
        with psycopg.connect(self.views) as connection:
            rows = connection.execute(
                "SELECT oversight, contribution, currency, to_jsonb(a) FROM live.amounts a JOIN live.donations USING (donation_id)"
            ).fetchall()
        views: dict[tuple[str, ...], float] = {}
        for *of, amounts in rows:
            for stage in stages:
                key = (*of, stage)
                views[key] = views.get(key, 0.0) + float(amounts[stage])
        labels = ("oversight", "contribution", "currency", "stage")
        found = self.prometheus.instant("aidtrail:amount:max")
        return views, {tuple(one["metric"][label] for label in labels): float(one["value"][1]) for one in found}

    def agrees_on_money(self) -> bool:
        """That there is some, too: two that know of none agree."""
        views, told = self.money()
        return views == told and any(views.values())

    def told(self, panel: dict[str, Any]) -> Told:
        """What a panel shows, its variables set to the first value that there is."""
        series: dict[str, list[tuple[float, float]]] = {}
        chosen = {name: self.prometheus.values(name, "aidtrail_amount")[0] for name in ("oversight", "contribution", "currency")}
        for target in panel["targets"]:
            if "rawSql" in target:
                with psycopg.connect(self.views) as connection:
                    cursor = connection.execute(interpolated_sql(target["rawSql"], **chosen).encode())
                    return Told({}, [column.name for column in cursor.description or ()], cursor.fetchall())
            query = target["expr"].replace("$__rate_interval", RATE_INTERVAL)
            for name, value in chosen.items():
                query = query.replace(f"${name}", value)
            assert "$" not in query, query
            found = self.prometheus.range(query, self.start) if target["range"] else self.prometheus.instant(query)
            for one in found:
                legend = re.sub(r"\{\{(\w+)\}\}", lambda named, of=one["metric"]: of.get(named[1], ""), target["legendFormat"])
                points = one["values"] if "values" in one else [one["value"]]
                series[legend] = [(float(at), float(value)) for at, value in points]
        return Told(series, [], [])

    def close(self) -> None:
        self.prometheus.close()
        self.log.close()


def lived(event: Event, donation_id: str, number: int) -> Event:
    """A step of the story in another donation's life. Every fifth has approvals that soon expire."""
    meta = event.meta
    event_id = codec.event_id_at(int(meta.occurred_on.timestamp() * 1000), f"{donation_id} {meta.event_id}".encode())
    changes: dict[str, Any] = {"meta": meta.model_copy(update={"donation_id": donation_id, "event_id": event_id})}
    if isinstance(event, ApprovalDecided) and number % 5 == 0:
        changes["valid_until"] = meta.occurred_on + timedelta(days=3)
    return event.model_copy(update=changes)


@contextmanager
def observed(rules: Path = PROMETHEUS) -> Iterator[Observed]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aidtrail-observe-")))
        broker, server = stack.enter_context(Broker()), stack.enter_context(Server())
        deployment = Deployment(broker.bootstrap, server.create_database(), folder, "donations")
        stack.callback(deployment.close)
        seen = Observed(deployment, server, rules)
        stack.callback(seen.close)
        yield seen


UNITS = {"short": "", "reqps": "a second", "wps": "a second", "cpm": "a minute"}
"""Grafana's names of units in words; what is not here is said as it is."""


def with_unit(value: float, unit: str) -> str:
    """A single figure as a person reads it: no powers of ten."""
    if unit == "percentunit":
        return f"{value:.2%}"
    return f"{value:,.0f} {UNITS.get(unit, unit)}".rstrip() if value >= 1000 else f"{value:,.4g} {UNITS.get(unit, unit)}".rstrip()


def draw(name: str, told: dict[str, Told], file: Path) -> None:
    """A dashboard as a picture, each panel where Grafana puts it."""
    import matplotlib as mpl
    import matplotlib.dates

    mpl.use("Agg")
    from matplotlib import pyplot

    made = dashboard(name)
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in made["panels"])
    figure = pyplot.figure(figsize=(24, height * 0.55))
    figure.suptitle(made["title"], fontsize=18, y=0.999)
    for panel in panels(name):
        at, shown = panel["gridPos"], told[panel["title"]]
        box = ((at["x"] + 0.9) / 24, 1 - (at["y"] + at["h"] - 1.1) / height, (at["w"] - 1.4) / 24, (at["h"] - 2.1) / height)
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], fontsize=10, loc="left")
        if shown.fault:
            axes.axis("off")
            axes.text(0.5, 0.4, shown.fault, fontsize=22, ha="center", va="center", color="red")
        elif panel["type"] == "timeseries":
            for legend, points in sorted(shown.series.items()):
                moments = [datetime.fromtimestamp(moment, UTC) for moment, _ in points]
                axes.plot(moments, [value for _, value in points], label=legend[:40], linewidth=1)
            axes.legend(fontsize=6, ncols=2, loc="upper left")
            axes.tick_params(labelsize=7)
            axes.xaxis.set_major_locator(pyplot.MaxNLocator(4))
            axes.xaxis.set_major_formatter(mpl.dates.DateFormatter("%H:%M:%S"))
            axes.set_ylabel(UNITS.get(unit := panel["fieldConfig"]["defaults"]["unit"], unit), fontsize=7)
            axes.yaxis.set_major_formatter("{x:,.10g}")
        elif panel["type"] == "state-timeline":
            for place, (legend, points) in enumerate(sorted(shown.series.items())):
                moments = [datetime.fromtimestamp(moment, UTC) for moment, _ in points]
                axes.plot(moments, [place] * len(moments), linewidth=8)
                axes.text(moments[0], place + 0.08, legend, fontsize=9, va="bottom")
            axes.set_yticks([])
            axes.margins(y=0.2)
            axes.xaxis.set_major_formatter(mpl.dates.DateFormatter("%H:%M:%S"))
        elif panel["type"] == "bargauge":
            axes.barh(range(len(shown.series)), [points[-1][1] for points in shown.series.values()])
            for place, legend in enumerate(shown.series):
                axes.text(0, place, f" {legend}", fontsize=9, va="center")
            axes.set_yticks([])
            axes.invert_yaxis()
            axes.xaxis.set_major_formatter("{x:,.10g}")
            axes.tick_params(labelsize=8)
        elif panel["type"] == "stat":
            axes.axis("off")
            value = next(iter(shown.series.values()))[-1][1]
            axes.text(0.5, 0.4, with_unit(value, panel["fieldConfig"]["defaults"]["unit"]), fontsize=22, ha="center", va="center")
        else:
            axes.axis("off")
            cells = [[str(cell)[:26] for cell in row] for row in shown.rows[:9]]
            drawn = axes.table(cellText=cells, colLabels=shown.columns, loc="upper left", cellLoc="left", bbox=(0, 0, 1, 1))
            drawn.auto_set_font_size(False)
            drawn.set_fontsize(7)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=80)
    pyplot.close(figure)


def look(ask: Callable[[dict[str, Any]], Told], names: Iterable[str] = NAMES, output: Path = OUTPUT) -> list[str]:
    """Ask every panel of these dashboards and draw them; returns the faults that were found, a line for each panel that has one."""
    faults = []
    total = 0
    for name in names:
        told = {panel["title"]: ask(panel) for panel in panels(name)}
        total += len(told)
        faults += [f"{shown.fault}: {name}: {title}" for title, shown in told.items() if shown.fault]
        draw(name, told, output / name.replace(".json", ".png"))
    print(*faults, f"panels {total}, empty or infinite {len(faults)}; drawn to {output}", sep="\n")
    return faults


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--donations", type=int, default=DONATIONS)
    parser.add_argument("--rate", type=float, default=40.0, help="submissions a second")
    arguments = parser.parse_args(words)
    with observed() as seen:
        count = seen.load(arguments.donations, arguments.rate)
        seen.forge()
        assert eventually(seen.is_projected, 60)
        seen.audit("replay", "rebuild")
        print(f"{count} submissions of {arguments.donations} donations, 2 forged records, all in the views")
        assert eventually(seen.agrees_on_money, 60), seen.money()
        print(f"{len(seen.money()[0])} sums of money, equal in the views and in Prometheus")
        assert eventually(lambda: seen.prometheus.alerts()["AidtrailParked"] == "firing", 120), seen.prometheus.alerts()
        faults = look(seen.told)
        states = seen.prometheus.alerts()
        for name, state in sorted(states.items()):
            print(f"{name:<32}{state}")
        print(f"alerts {len(states)}, firing {sum(state == 'firing' for state in states.values())}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
