"""Real Kafka brokers for tests and benchmarks: plain JVM processes, each node broker and controller at once, up in about three seconds.

with Broker() as broker:            # one node
    KafkaLog(broker.addresses)
with Broker(nodes=3) as cluster:    # replication 3, min.insync.replicas 2
    cluster.kill(0)
with SecuredBroker() as broker:     # lets nobody in but USER with PASSWORD, over TLS
    KafkaLog(broker.addresses, security=...)
"""

import base64
import fcntl
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.certificates import Authority

ROOT = Path(__file__).parent.parent
POM = ROOT / "deploy" / "kafka" / "pom.xml"
LOGGING = ROOT / "deploy" / "kafka" / "log4j2.properties"
LIBRARIES = ROOT / "build" / "kafka" / "libs"

# For a short life: the quick compiler and the simple collector, no performance files, no display.
JVM_FLAGS = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Djava.awt.headless=true"]

START_SECONDS = 60.0
STARTS = 3


class BrokerFailedError(Exception):
    """A broker did not start; the message ends with what it said last."""


def missing_programs() -> list[str]:
    """What the brokers need and this machine does not have."""
    needed = ["java"] if _fetched() else ["java", "mvn"]
    return [program for program in needed if shutil.which(program) is None]


def fetch_libraries() -> Path:
    """The folder of the broker's jars, fetched by Maven unless they are there already. Safe to call from several processes at once."""
    LIBRARIES.parent.mkdir(parents=True, exist_ok=True)
    with open(LIBRARIES.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _fetched():
            maven = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
            subprocess.run([*maven, f"-DoutputDirectory={LIBRARIES}"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            _stamp().touch()
    return LIBRARIES


def _stamp() -> Path:
    """Written last, so that a fetch that was interrupted is not taken for a whole one, nor an old one for that of a changed pom."""
    return LIBRARIES.parent / "fetched"


def _fetched() -> bool:
    return _stamp().exists() and _stamp().stat().st_mtime >= POM.stat().st_mtime


class Broker:
    """One or more brokers that form a cluster. Data and ports last until the block ends, also over `kill` and `start`."""

    def __init__(self, nodes: int = 1, settings: Mapping[str, str] | None = None, heap_megabytes: int = 256) -> None:
        self.nodes = nodes
        self._settings = dict(settings or {})
        self._heap_megabytes = heap_megabytes
        self._libraries = fetch_libraries()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="aidtrail-kafka-"))
        self._cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self._choose_ports()

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self._ports]

    @property
    def bootstrap(self) -> str:
        return ",".join(self.addresses)

    def __enter__(self) -> "Broker":
        for remaining in reversed(range(STARTS)):
            try:
                for node in range(self.nodes):
                    self.start(node, wait=False)
                for node in range(self.nodes):
                    self.wait_until_open(node)
                return self
            except BrokerFailedError:
                self._kill_all()
                if not remaining:
                    self._remove()
                    raise
                self._forget_data()  # somebody took a port between our choice and the start: try others
            except BaseException:
                self._kill_all()
                self._remove()
                raise
        raise AssertionError("unreachable")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._kill_all()
        self._remove()

    def start(self, node: int = 0, *, wait: bool = True) -> None:
        """Start a node, on the data that it left if it ran before."""
        folder = self._folder / f"node{node}"
        properties = folder / "server.properties"
        if not properties.exists():
            folder.mkdir(exist_ok=True)
            properties.write_text("".join(f"{name}={value}\n" for name, value in self._properties(node).items()))
            self._format(properties)
        with open(folder / "console", "ab") as console:
            command = [*self._java(self._heap_megabytes), "kafka.Kafka", str(properties)]
            # A session of its own: Ctrl-C in the terminal ends the tests, which then end the broker.
            self._processes[node] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
            )
        if wait:
            self.wait_until_open(node)

    def wait_until_open(self, node: int = 0) -> None:
        """A broker opens its port to clients when it is registered: the first request works."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._processes[node].poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._ports[node]), timeout=0.2).close()
                return
            except OSError:
                time.sleep(0.05)
        raise BrokerFailedError(f"broker {node} did not start: " + (self._folder / f"node{node}" / "console").read_text()[-2000:])

    def stop(self, node: int = 0) -> None:
        """Ask a node to hand over and stop (SIGTERM), and wait for it."""
        self._end(node, signal.SIGTERM)

    def kill(self, node: int = 0) -> None:
        """End a node at once (SIGKILL)."""
        self._end(node, signal.SIGKILL)

    def freeze(self, node: int = 0) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._processes[node].send_signal(signal.SIGSTOP)

    def thaw(self, node: int = 0) -> None:
        self._processes[node].send_signal(signal.SIGCONT)

    def _end(self, node: int, how: signal.Signals) -> None:
        process = self._processes[node]
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)  # a frozen process would never see SIGTERM
            process.send_signal(how)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _kill_all(self) -> None:
        for node in self._processes:
            self.kill(node)

    def _forget_data(self) -> None:
        self._processes.clear()
        for node in range(self.nodes):
            shutil.rmtree(self._folder / f"node{node}", ignore_errors=True)
        self._choose_ports()

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _choose_ports(self) -> None:
        ports = free_ports(2 * self.nodes)
        self._ports, self._controller_ports = ports[: self.nodes], ports[self.nodes :]

    def _java(self, heap_megabytes: int) -> list[str]:
        return ["java", f"-Xmx{heap_megabytes}m", *JVM_FLAGS, f"-Dlog4j2.configurationFile={LOGGING}", "-cp", f"{self._libraries}/*"]

    def _format(self, properties: Path) -> None:
        # One word: one id in 64 begins with a hyphen, and would be taken for an option.
        tool = [*self._java(96), "kafka.tools.StorageTool", "format", f"--cluster-id={self._cluster_id}", "-c", str(properties)]
        command = [*tool, *self._format_options()]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_SECONDS)
        if done.returncode:
            raise BrokerFailedError(f"storage was not formatted: {done.stdout[-1000:]}{done.stderr[-1000:]}")

    def _format_options(self) -> list[str]:
        return []

    def _properties(self, node: int) -> dict[str, str]:
        replication = min(3, self.nodes)
        in_sync = 2 if replication == 3 else 1
        voters = ",".join(f"{other + 1}@127.0.0.1:{port}" for other, port in enumerate(self._controller_ports))
        clients = f"PLAINTEXT://127.0.0.1:{self._ports[node]}"
        return {
            "process.roles": "broker,controller",
            "node.id": str(node + 1),
            "log.dirs": str(self._folder / f"node{node}" / "data"),
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"{clients},CONTROLLER://127.0.0.1:{self._controller_ports[node]}",
            "advertised.listeners": clients,
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "auto.create.topics.enable": "false",  # a misspelt topic must be an error
            "default.replication.factor": str(replication),
            "min.insync.replicas": str(in_sync),
            "offsets.topic.replication.factor": str(replication),
            "offsets.topic.num.partitions": "4",  # 50 by default: creating them slows the first group down
            "transaction.state.log.replication.factor": str(replication),
            "transaction.state.log.min.isr": str(in_sync),
            "transaction.state.log.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",  # the first member of a group need not wait for others
            "group.min.session.timeout.ms": "1000",
            "broker.session.timeout.ms": "3000",  # a killed broker is let back in after 3 s rather than 9 s
            "broker.heartbeat.interval.ms": "500",
            "log.cleaner.dedupe.buffer.size": str(4 << 20),  # 128 MB by default
            "num.network.threads": "2",
            "num.io.threads": "4",
            **self._settings,
        }


class SecuredBroker(Broker):
    """One broker that is reached by SASL_SSL with SCRAM-SHA-512 alone, and an authorizer that lets USER do everything and others nothing.

    `ca_file` is of the authority that signed its certificate, `other_ca_file` of one that did not.
    """

    USER = "aidtrail"
    PASSWORD = "right-password"

    def __init__(self) -> None:
        super().__init__()
        authority = Authority("the CA of the broker")
        self.ca_file, self.other_ca_file, self._keys = (self._folder / name for name in ("ca.pem", "other-ca.pem", "keys.pem"))
        self.ca_file.write_text(authority.pem)
        self.other_ca_file.write_text(Authority("another CA").pem)
        self._keys.write_text(authority.server())

    def _format_options(self) -> list[str]:
        return ["--add-scram", f"SCRAM-SHA-512=[name={self.USER},password={self.PASSWORD}]"]

    def _properties(self, node: int) -> dict[str, str]:
        module = "org.apache.kafka.common.security"
        credentials = f'username="{self.USER}" password="{self.PASSWORD}"'
        clients = f"SASL_SSL://127.0.0.1:{self._ports[node]}"
        return super()._properties(node) | {
            "listeners": f"{clients},CONTROLLER://127.0.0.1:{self._controller_ports[node]}",
            "advertised.listeners": clients,
            "inter.broker.listener.name": "SASL_SSL",
            "listener.security.protocol.map": "CONTROLLER:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            "sasl.mechanism.controller.protocol": "PLAIN",  # users of SCRAM are kept in the controller, which is not up yet
            "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.controller.plain.sasl.jaas.config": (
                f'{module}.plain.PlainLoginModule required {credentials} user_{self.USER}="{self.PASSWORD}";'
            ),
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required {credentials};",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._keys),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca_file),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:{self.USER}",
        }


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, below the range that outgoing connections take theirs from (32768 and up on Linux)."""
    found: set[int] = set()
    while len(found) < count:
        port = random.randint(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                found.add(port)
            except OSError:
                continue
    return list(found)
