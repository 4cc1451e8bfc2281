"""The containers of deploy/compose.yaml as plain processes: the same entry point, commands, settings and health commands as in the files,
with addresses on this machine in the place of the containers' names.

    deployment = Deployment(broker.bootstrap, views, folder, prefix)
    deployment.run("topics")
    ledger = deployment.start("ledger").wait_until_healthy()
    assert ledger.stop() == 0
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import yaml

from aidtrail.gateway import local
from aidtrail.health import DEFAULT_URL
from tests.brokers import free_ports
from tests.waiting import eventually

DEPLOY = Path(__file__).parent.parent / "deploy"
BIN = Path(sys.executable).parent
HEALTHY_SECONDS = 60.0
STOP_SECONDS = 30.0  # as `stop_grace_period` has it

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<how>[-?])(?P<other>[^}]*))?\}")


def interpolated(text: str, values: Mapping[str, str]) -> str:
    """As `docker compose` does: ${NAME}, ${NAME:-default}, ${NAME:?what to do}. Raises KeyError for what has to be set and is not."""

    def value(found: re.Match[str]) -> str:
        name, how, other = found["name"], found["how"], found["other"]
        if values.get(name):
            return values[name]
        if how == "-":
            return str(other)
        raise KeyError(f"{name}: {other}")

    return VARIABLE.sub(value, text)


def compose(values: Mapping[str, str]) -> dict[str, Any]:
    """compose.yaml as Docker would see it, with its merges resolved."""
    loaded: dict[str, Any] = yaml.safe_load(interpolated((DEPLOY / "compose.yaml").read_text(encoding="utf-8"), values))
    return loaded


def example_settings() -> dict[str, str]:
    """env.example, as it is."""
    lines = (DEPLOY / "env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def instruction(name: str) -> str:
    """The last instruction of this name in the Dockerfile, its lines joined."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"^{name} +(.*)$", text, re.MULTILINE)[-1].strip()


def image_environment() -> dict[str, str]:
    """What the image sets of Aidtrail's own settings."""
    pairs = (pair.split("=", 1) for pair in shlex.split(instruction("ENV")))
    return {name: value for name, value in pairs if name.startswith("AIDTRAIL_")}


def aidtrail_services(loaded: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in loaded["services"].items() if "build" in service}


class Instance:
    """One container of a service."""

    def __init__(self, name: str, command: list[str], health: list[str], environment: dict[str, str], said: Path) -> None:
        self.name = name
        self.url = "http://" + environment["AIDTRAIL_LISTEN"]
        self.metrics_address = f"127.0.0.1:{environment['AIDTRAIL_METRICS_PORT']}"
        self.health, self.environment, self.said_in = health, environment, said
        with open(said, "ab") as errors:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
            )

    def said(self) -> str:
        return self.said_in.read_text(encoding="utf-8")

    def wait_until_healthy(self) -> "Instance":
        """What its health command asks for is asked from here while it starts; in the end the command itself must agree."""
        assert eventually(self._answers, HEALTHY_SECONDS), self.said()
        done = subprocess.run(self.health, env=self.environment, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stdout + self.said()
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.said()
        try:
            return httpx.get(self.health[-1], timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        """As Docker stops it; the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


class Deployment:
    """`views` is the connection string that stands in for postgres, `seal_views` the seal's, where the server has a role for it; `prefix`
    keeps topics apart from those of other tests. Each service has a home of its own, as each container has."""

    def __init__(self, bootstrap: str, views: str, folder: Path, prefix: str, seal_views: str | None = None) -> None:
        self.bootstrap, self.views, self.folder, self.prefix = bootstrap, views, folder, prefix
        self.seal_views = seal_views or views
        self.issuer = folder / "issuer"
        local.local_verifier(self.issuer)  # makes its keys
        made_up = {
            "AIDTRAIL_TOKEN_ISSUER": local.ISSUER,
            "AIDTRAIL_TOKEN_AUDIENCE": local.AUDIENCE,
            "AIDTRAIL_TOKEN_KEYS": str(self.issuer / "tokens" / "jwks.json"),
            "AIDTRAIL_PARTITIONS": "4",
        }
        self.loaded = compose(dict.fromkeys(example_settings(), "a-password") | made_up)
        self.services = aidtrail_services(self.loaded)
        self.one_off = [name for name, service in self.services.items() if service["restart"] == "no"]
        self._instances: list[Instance] = []

    def command(self, name: str) -> list[str]:
        (program, *words) = json.loads(instruction("ENTRYPOINT"))
        return [str(BIN / program), *words, *self.services[name]["command"]]

    def environment(self, name: str) -> dict[str, str]:
        """The settings of a container, and what this machine's processes need; loopback addresses in the place of names and 0.0.0.0."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIDTRAIL_", "PG"))}
        listen, metrics = free_ports(2)
        settings = image_environment() | self.services[name].get("environment", {})
        home = str(self.folder / name)
        elsewhere = {
            "kafka:9092": self.bootstrap,
            "postgresql://aidtrail@postgres/aidtrail": self.views,
            "postgresql://seal@postgres/aidtrail": self.seal_views,
            "/var/lib/aidtrail": home,
        }
        for address, here in elsewhere.items():
            settings = {setting: value.replace(address, here) for setting, value in settings.items()}
        return inherited | settings | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "AIDTRAIL_LISTEN": settings["AIDTRAIL_LISTEN"].replace("0.0.0.0:8080", f"127.0.0.1:{listen}"),
            "AIDTRAIL_METRICS_HOST": settings["AIDTRAIL_METRICS_HOST"].replace("0.0.0.0", "127.0.0.1"),
            "AIDTRAIL_METRICS_PORT": str(metrics),
            "AIDTRAIL_TOPIC_PREFIX": self.prefix,
        }  # fmt: skip

    def health(self, name: str, environment: Mapping[str, str]) -> list[str]:
        """The health command of compose.yaml, or else of the image."""
        stated = self.services[name].get("healthcheck", {}).get("test", ["CMD", *json.loads(instruction("HEALTHCHECK").split("CMD ")[1])])
        (form, program, *words) = stated
        assert form == "CMD"
        if words == ["-m", "aidtrail.health"]:
            words = [*words, DEFAULT_URL]
        address = f"http://127.0.0.1:{environment['AIDTRAIL_METRICS_PORT']}"
        words = [word.replace("http://127.0.0.1:9464", address) for word in words]
        return [str(BIN / program), *(word.replace("http://127.0.0.1:8080", f"http://{environment['AIDTRAIL_LISTEN']}") for word in words)]

    def run(self, name: str, *command: str, text: str = "") -> str:
        """Run a service that ends by itself, or another command with a service's settings; what it printed."""
        words = [str(BIN / "aidtrail"), *command] if command else self.command(name)
        done = subprocess.run(
            words, env=self.environment(name), input=text, capture_output=True, text=True, timeout=120, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, name: str) -> Instance:
        environment = self.environment(name)
        said = self.folder / f"{name}.err"
        instance = Instance(name, self.command(name), self.health(name, environment), environment, said)
        self.adopt(instance)
        return instance

    def adopt(self, instance: Instance) -> None:
        """One that was started otherwise, to be ended with the rest."""
        self._instances.append(instance)

    def running(self) -> list[Instance]:
        return [instance for instance in self._instances if instance.process.poll() is None]

    def prepare(self) -> None:
        """What the operations guide says to do before the first start: topics, the seal's key, and a registry, that of the demo."""
        for name in self.one_off:
            if "profiles" not in self.services[name]:
                self.run(name)
        (self.folder / "seal").mkdir()
        self.run("seal", "audit", "seal-key", "example.org/aidtrail", str(self.folder / "seal" / "seal.key"))
        self.run("topics", "registry", "load", "-", text=(files("aidtrail.demo") / "registry.ndjson").read_text(encoding="utf-8"))

    def client(self, url: str, actor_id: str) -> httpx.Client:
        """Of a gateway, with an access token of the issuer."""
        token = local.issue(self.issuer, actor_id, hours=1, now=time.time())
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    @contextmanager
    def prometheus(self) -> Iterator[str]:
        """A Prometheus with the configuration of compose.yaml, which finds the running instances by their services' names; its address."""
        (address, port) = ("127.0.0.1", free_ports(1)[0])
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
        config["rule_files"] = [str(DEPLOY / "prometheus" / name) for name in config["rule_files"]]
        del config["alerting"]["alertmanagers"]
        config["global"]["scrape_interval"] = "1s"
        for job in config["scrape_configs"]:
            (found,) = job.pop("dns_sd_configs")
            assert found["port"] == int(image_environment()["AIDTRAIL_METRICS_PORT"])
            targets = [instance.metrics_address for instance in self.running() if [instance.name] == found["names"]]
            job["static_configs"] = [{"targets": targets}]
        path = self.folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        words = [f"--config.file={path}", f"--storage.tsdb.path={self.folder / 'tsdb'}", f"--web.listen-address={address}:{port}"]
        with open(self.folder / "prometheus.err", "ab") as errors:
            process = subprocess.Popen(["prometheus", *words], stdout=errors, stderr=errors, start_new_session=True)
        try:
            yield f"http://{address}:{port}"
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)

    def close(self) -> None:
        """End what still runs."""
        for instance in self._instances:
            instance.stop()
