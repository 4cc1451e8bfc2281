"""Each part of the pipeline under a principal of its own, on a Kafka that asks for credentials: what it may do, and what it may not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ConfigResource,
    NewPartitions,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    UserScramCredentialUpsertion,
)
from kafka.errors import AuthorizationError, KafkaError
from kafka.structs import OffsetAndMetadata
from typer.testing import CliRunner

from aidtrail import codec
from aidtrail.audit.seal import Sealer
from aidtrail.cli import app, doctor
from aidtrail.cli.backends import backends
from aidtrail.cli.rights import show_command
from aidtrail.cli.services import TIMEKEEPER
from aidtrail.config import Settings
from aidtrail.domain.events import ActorEnrolled, Event
from aidtrail.errors import UnavailableError, UsageError
from aidtrail.ledger import Ledger
from aidtrail.log import Draft
from aidtrail.log.kafka import KafkaLog
from aidtrail.log.kafka_rights import KafkaRights
from aidtrail.projector import Projector
from aidtrail.timekeeper import Timekeeper
from aidtrail.topics import Topics
from aidtrail.views import schema
from tests.acts import full_life, registry_events
from tests.brokers import SecuredBroker, free_ports
from tests.sealing import KEY
from tests.test_tokens import jwk
from tests.waiting import eventually

AIDTRAIL = Path(sys.executable).with_name("aidtrail")
PREFIX = "guarded"
TOPICS = ("submitted", "recorded", "registry", "checkpoints")
POLL_MS = 1000
VALUE = codec.encode(registry_events()[0])  # what the registry may hold twice

SERVES = {"write submitted", "read submitted", "read registry"}
SUBMITTERS = {"pledges", "approvals", "disbursements", "receipts", "producer", "timekeeper"}
EXPECTED: dict[str, set[str]] = {
    "pledges": SERVES,
    "approvals": SERVES,
    "disbursements": SERVES,
    "receipts": SERVES,
    "status": {"read registry"},
    "producer": {"write submitted"},
    "timekeeper": {"write submitted"},
    "ledger": {"read submitted", "read registry", "read recorded", "write recorded", "commit as ledger"},
    "projector": {"read recorded", "commit as projector"},
    "sealer": {"read recorded", "read checkpoints", "write checkpoints"},
    "registrar": {"read registry", "write registry"},
    "auditor": {f"read {topic}" for topic in TOPICS},
}
"""Written by hand, apart from the program's own table. Besides these every principal sees the topics and their settings."""
SEES = {f"{what} {topic}" for topic in TOPICS for what in ("describe", "settings of")}
NOBODY = "nobody"
"""A user without rights."""
MISTAKE = "mistake"
"""A user who was allowed everything on every topic."""


class Guarded:
    """The broker with topics, users and rights as `aidtrail` itself sets them up."""

    def __init__(self, broker: SecuredBroker, folder: Path) -> None:
        self.broker = broker
        self.passwords = folder / "passwords"
        self.said = ""
        self.settings = {name: value for name, value in os.environ.items() if not name.startswith("AIDTRAIL_")} | {
            "AIDTRAIL_HOME": str(folder / "home"),
            "AIDTRAIL_TOPIC_PREFIX": PREFIX,
            "AIDTRAIL_LOG": f"kafka://{broker.bootstrap}",
            "AIDTRAIL_VIEWS": "postgresql://nobody@127.0.0.1:1/none",
            "AIDTRAIL_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "AIDTRAIL_KAFKA_CA_FILE": str(broker.ca_file),
        }

    def password(self, role: str) -> str:
        return self.broker.PASSWORD if role == "" else (self.passwords / f"{PREFIX}-{role}").read_text()

    def environment(self, role: str = "", **more: str) -> dict[str, str]:
        """The settings of a process under the principal of a role; of the super user if none is named."""
        user = f"{PREFIX}-{role}" if role else self.broker.USER
        return self.settings | {"AIDTRAIL_KAFKA_USERNAME": user, "AIDTRAIL_KAFKA_PASSWORD": self.password(role)} | more

    def security(self, role: str = "") -> dict[str, Any]:
        environment = self.environment(role)
        return {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": environment["AIDTRAIL_KAFKA_USERNAME"],
            "sasl_plain_password": environment["AIDTRAIL_KAFKA_PASSWORD"],
            "ssl_cafile": str(self.broker.ca_file),
        }

    def log(self, role: str = "") -> KafkaLog:
        return KafkaLog(self.broker.addresses, security=self.security(role))

    def run(self, *arguments: str, role: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment(role, **more)
        return subprocess.run([AIDTRAIL, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def guarded(secured: SecuredBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    here = Guarded(secured, tmp_path_factory.mktemp("guarded"))
    created = here.run("topics", "create", "--partitions", "2")
    assert created.returncode == 0, created.stderr
    applied = here.run("rights", "apply", "--passwords", str(here.passwords))
    assert applied.returncode == 0, applied.stderr
    here.said = applied.stdout + applied.stderr
    log = here.log()
    appender = log.appender()
    appender.append([Draft(f"{PREFIX}.{topic}", 0, b"key", VALUE) for topic in TOPICS])
    appender.close()
    with log.administration() as admin:
        for name in (NOBODY, MISTAKE):
            (here.passwords / f"{PREFIX}-{name}").write_text(name * 4)
            admin.alter_user_scram_credentials([UserScramCredentialUpsertion(f"{PREFIX}-{name}", "SCRAM-SHA-512", name * 4)])
        everywhere = ResourcePattern(ResourceType.TOPIC, PREFIX, ACLResourcePatternType.PREFIXED)
        admin.create_acls([ACL(f"User:{PREFIX}-{MISTAKE}", "*", ACLOperation.ALL, ACLPermissionType.ALLOW, everywhere)])
    log.close()
    yield here
    left = here.log()
    with left.administration() as admin:
        anywhere = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
        admin.delete_acls([ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, anywhere)])
        admin.delete_topics([f"{PREFIX}.{topic}" for topic in TOPICS])
    left.close()


# --- every principal, every operation -----------------------------------------------------------------------------------------------


class Attempts:
    """What one principal can try, each by a call of its own. True when it was allowed; an error of another kind than a denial is raised."""

    def __init__(self, bootstrap: str, security: dict[str, Any]) -> None:
        quick = {**security, "bootstrap_servers": bootstrap, "request_timeout_ms": 5000}
        self._connection = quick
        self._admin = KafkaAdminClient(**quick)
        self._producer = KafkaProducer(**quick, enable_idempotence=False, max_block_ms=2000, delivery_timeout_ms=6000)
        self._consumer = KafkaConsumer(**quick, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest")

    def close(self) -> None:
        for client in (self._consumer, self._producer, self._admin):
            with suppress(KafkaError):
                client.close()

    def all(self) -> dict[str, Callable[[], object]]:
        found: dict[str, Callable[[], object]] = {}
        for topic in TOPICS:
            name = f"{PREFIX}.{topic}"
            found |= {
                f"write {topic}": lambda name=name: self._producer.send(name, VALUE, b"key", partition=0).get(8),
                f"read {topic}": lambda name=name: self._read(name),
                f"describe {topic}": lambda name=name: self._described(name),
                f"settings of {topic}": lambda name=name: self._settings(name),
                f"delete {topic}": lambda name=name: self._admin.delete_topics([name]),
                f"delete records of {topic}": lambda name=name: self._admin.delete_records(
                    {TopicPartition(name, 0): 1}, partition_leader_id=1
                ),
                f"add partitions to {topic}": lambda name=name: self._admin.create_partitions({name: NewPartitions(total_count=9)}),
                f"alter settings of {topic}": lambda name=name: self._alter("topic", name, {"retention.ms": "1"}),
            }
        for group, topic in (("ledger", "submitted"), ("projector", "recorded")):
            found[f"commit as {group}"] = lambda group=group, topic=topic: self._commit(f"{PREFIX}-{group}", f"{PREFIX}.{topic}")
        acl = ACL("User:thief", "*", ACLOperation.ALL, ACLPermissionType.ALLOW, ResourcePattern(ResourceType.TOPIC, f"{PREFIX}.recorded"))
        return found | {
            "create another topic": lambda: self._admin.create_topics({"another": {"num_partitions": 1, "replication_factor": 1}}),
            "give rights": lambda: _raise_of(self._admin.create_acls([acl])["failed"]),
            "see rights": lambda: self._admin.describe_acls(
                ACLFilter(
                    None,
                    None,
                    ACLOperation.ANY,
                    ACLPermissionType.ANY,
                    ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
                )
            ),
            "change a password": lambda: _refused(
                self._admin.alter_user_scram_credentials([UserScramCredentialUpsertion("thief", "SCRAM-SHA-512", "thief")])
            ),
            "alter the broker": lambda: self._alter("broker", "1", {"log.cleaner.threads": "1"}),
            "write in a transaction": self._transaction,
        }

    def _described(self, name: str) -> None:
        code = self._admin.describe_topics([name])[0]["error_code"]
        if code:
            raise AuthorizationError if code == 29 else AssertionError(code)

    def _settings(self, name: str) -> None:
        if not self._admin.describe_configs([ConfigResource("topic", name)], config_filter="all")["topic"][name]:
            raise AuthorizationError

    def _alter(self, kind: str, name: str, settings: dict[str, str]) -> None:
        said = self._admin.alter_configs([ConfigResource(kind, name, configs=settings)], raise_on_unknown=False)[kind][name]
        if said != "OK":
            raise KafkaError(said)

    def _read(self, name: str) -> None:
        at = TopicPartition(name, 0)
        self._consumer.assign([at])
        self._consumer.seek(at, 0)
        for _ in range(5):
            if self._consumer.poll(timeout_ms=POLL_MS):
                return
            if "READ" not in (self._admin.describe_topics([name])[0]["authorized_operations"] or []):
                raise AuthorizationError  # kafka-python polls empty instead (3.0.12)
        raise AssertionError(f"{name} gave nothing")

    def _commit(self, group: str, name: str) -> None:
        consumer = KafkaConsumer(**self._connection, group_id=group, enable_auto_commit=False)
        try:
            at = TopicPartition(name, 0)
            consumer.assign([at])
            consumer.commit({at: OffsetAndMetadata(0, "", -1)}, timeout_ms=5000)
        finally:
            consumer.close(autocommit=False)

    def _transaction(self) -> None:
        producer = KafkaProducer(**self._connection, transactional_id=f"{PREFIX}-thief", max_block_ms=3000)
        try:
            producer.init_transactions()
        finally:
            with suppress(KafkaError):
                producer.close(timeout=1)


def _raise_of(failed: list[type[KafkaError]]) -> None:
    if failed:
        raise failed[0]


def _refused(answers: dict[str, str | None]) -> None:
    for why in answers.values():
        if why is not None:
            raise AuthorizationError(why)


def allowed(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except AuthorizationError:
        return False
    except KafkaError as error:
        if "Authorization" in f"{type(error).__name__} {error}":
            return False
        raise
    return True


def test_every_principal_may_do_what_it_must_and_nothing_else(guarded: Guarded) -> None:
    def attempts_of(role: str) -> dict[str, bool]:
        attempts = Attempts(guarded.broker.bootstrap, guarded.security(role))
        try:
            return {name: allowed(attempt) for name, attempt in attempts.all().items()}
        finally:
            attempts.close()

    expected = {role: rights | SEES for role, rights in EXPECTED.items()}
    expected[NOBODY] = set()
    expected[MISTAKE] = SEES | {f"{what} {topic}" for topic in TOPICS for what in ("read", "write")}
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(expected, pool.map(attempts_of, expected), strict=True))

    cells = [(role, name, allowed_) for role, attempts in found.items() for name, allowed_ in attempts.items()]
    allows = [f"{role}: {name}" for role, name, allowed_ in cells if allowed_ and name not in expected[role]]
    denials = [f"{role}: {name}" for role, name, allowed_ in cells if not allowed_ and name in expected[role]]
    print(f"{len(found)} principals, {len(cells)} cells, {len(allows)} unexpected allows, {len(denials)} unexpected denials")
    assert (allows, denials) == ([], [])
    assert {name for rights in expected.values() for name in rights} <= {name for _, name, _ in cells}


# --- the pipeline under these principals --------------------------------------------------------------------------------------------


def pledge() -> Event:
    return next(full_life())


def _gateway(folder: Path) -> dict[str, str]:
    """Settings that a gateway on Kafka needs; nobody asks it anything here."""
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"keys": [jwk("EdDSA", Ed25519PrivateKey.generate(), "only")]}))
    (port,) = free_ports(1)
    return {
        "AIDTRAIL_TOKEN_ISSUER": "https://issuer.test",
        "AIDTRAIL_TOKEN_AUDIENCE": "aidtrail",
        "AIDTRAIL_TOKEN_KEYS": str(keys),
        "AIDTRAIL_LISTEN": f"127.0.0.1:{port}",
    }


BY_HAND = (
    ("pledges", "doctor"),
    ("pledges", "registry show"),
    ("pledges", f"status {pledge().meta.donation_id}"),
    ("pledges", f"history {pledge().meta.donation_id}"),
    ("projector", "project --unpark"),
    ("projector", "audit rebuild --keep"),
    ("projector", "audit builds"),
    ("auditor", "audit replay --note"),
)
"""What deploy/OPERATIONS.md says to run with which principal on Kubernetes; a gateway's is that of pledges."""


@pytest.mark.long  # six processes; in the default suite every right that they need is tried
def test_the_pipeline_runs_with_a_principal_for_each_part(guarded: Guarded, database_url: str, tmp_path: Path) -> None:
    registry, file = tmp_path / "registry.ndjson", tmp_path / "pledge.ndjson"
    ours = {event.event_id for event in registry_events() if isinstance(event, ActorEnrolled) and event.actor_id == "timekeeper"}
    registry.write_text("".join(codec.to_json(event) + "\n" for event in registry_events() if event.event_id not in ours))
    file.write_text(codec.to_json(pledge()) + "\n")
    said = {service: tmp_path / f"{service}.err" for service in ("ledger", "projector", "timekeeper", "pledges")}
    commands = {"ledger": ["ledger"], "projector": ["project"], "timekeeper": ["timekeeper"], "pledges": ["serve", "pledges"]}
    views = {"AIDTRAIL_VIEWS": database_url}

    loaded = guarded.run("registry", "load", str(registry), role="registrar")
    assert (loaded.returncode, loaded.stderr) == (0, "")
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for role, command in commands.items():
            with said[role].open("w") as errors:
                environment = guarded.environment(role, **views, **_gateway(tmp_path))
                running[role] = subprocess.Popen([AIDTRAIL, *command], env=environment, stderr=errors, text=True)
        for role, path in said.items():
            assert eventually(lambda path=path: "running" in path.read_text(), 90), (role, path.read_text())
        submitted = guarded.run("submit", str(file), role="producer", **views)
        by_hand = {f"{role}: {words}": guarded.run(*words.split(), role=role, **views) for role, words in BY_HAND}
    finally:
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        codes = {role: process.wait(30) for role, process in running.items()}

    assert submitted.returncode == 0, submitted.stderr
    assert "admitted" in submitted.stdout
    assert {words: done.stdout + done.stderr for words, done in by_hand.items() if done.returncode != 0} == {}
    print(f"{len(codes)} services and {len(by_hand)} commands, each with the rights of its principal alone")
    assert codes == dict.fromkeys(commands, 0)
    assert [path.name for path in said.values() if "trying again" in path.read_text() or "may not" in path.read_text()] == []


def test_a_part_that_lacks_a_right_ends_with_one_line_that_names_it_and_exit_3(guarded: Guarded, tmp_path: Path) -> None:
    denied = {
        ("projector", "ledger"): "recorded: this principal may not write to it",
        ("status", "serve", "pledges"): "submitted: this principal may not write to it",
        (NOBODY, "ledger"): "submitted: this principal may not even see it",
    }
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda one: guarded.run(*one[1:], role=one[0], **_gateway(tmp_path)), denied))

    for done, said in zip(ended, denied.values(), strict=True):
        assert done.returncode == 3
        assert len(done.stderr.splitlines()) == 1, done.stderr
        line = done.stderr
        assert line.startswith(f"aidtrail: {PREFIX}.{said}")
        print(line)


def test_every_part_asks_for_its_rights_when_it_starts(guarded: Guarded, database_url: str, tmp_path: Path) -> None:
    topics = Topics.of(PREFIX)

    def ledger(log: KafkaLog) -> object:
        return Ledger(log, topics, tmp_path, group=f"{PREFIX}-ledger")

    def projector(log: KafkaLog) -> object:
        return Projector(log, topics, database_url, group=f"{PREFIX}-projector")

    def timekeeper(log: KafkaLog) -> object:
        return Timekeeper(log, topics, database_url, lambda seconds: None, actor=TIMEKEEPER)

    def sealer(log: KafkaLog) -> object:
        return Sealer(log, topics, KEY, tmp_path / "seal")

    # The sealer and the auditor read `recorded` as the projector does; its group is denied to them.
    needs: dict[Callable[[KafkaLog], object], set[str]] = {
        ledger: set(),
        projector: {"sealer", "auditor"},
        timekeeper: SUBMITTERS,
        sealer: {"sealer"},
    }
    tried = 0
    for make, fit in needs.items():
        for role in ("pledges", "status", "producer", "sealer", "registrar", "auditor", NOBODY):
            if role not in fit:
                log = guarded.log(role)
                with pytest.raises(UnavailableError, match=r"may not (read|write to|even see) it"):
                    make(log)
                log.close()
                tried += 1
    print(f"{tried} starts under another part's principal, {tried} refused")


def test_the_seal_is_made_under_its_own_principal(guarded: Guarded, tmp_path: Path) -> None:
    log = guarded.log("sealer")
    before = log.end_offsets(f"{PREFIX}.checkpoints")[0]
    sealer = Sealer(log, Topics.of(PREFIX), KEY, tmp_path, seal_seconds=0.0)

    assert eventually(lambda: sealer.turn() >= 0 and log.end_offsets(f"{PREFIX}.checkpoints")[0] >= before + 2)
    sealer.close()
    log.close()


def test_another_parts_group_cannot_be_joined(guarded: Guarded) -> None:
    log = guarded.log("auditor")
    member = log.join(f"{PREFIX}-projector", f"{PREFIX}.recorded")

    def is_refused() -> bool:
        try:
            member.owned()
            return False
        except UnavailableError as error:
            return "may not read the group" in str(error)

    assert eventually(is_refused)
    member.close()
    log.close()


def test_an_append_that_is_not_allowed_is_known_to_have_failed(guarded: Guarded) -> None:
    for role in ("projector", "producer"):  # may write nowhere at all, and may write elsewhere: brokers answer differently
        log = guarded.log(role)
        before = log.end_offsets(f"{PREFIX}.recorded")
        appender = log.appender()
        with pytest.raises(UnavailableError, match="may not write to it"):
            appender.append([Draft(f"{PREFIX}.recorded", number % 2, b"key", b"forged") for number in range(10)])
        appender.close()

        assert log.end_offsets(f"{PREFIX}.recorded") == before
        log.close()


# --- looking after the rights -------------------------------------------------------------------------------------------------------


def test_rights_that_are_missing_or_too_many_are_named_and_mended(guarded: Guarded) -> None:
    recorded = ResourcePattern(ResourceType.TOPIC, f"{PREFIX}.recorded")
    any_recorded = ResourcePatternFilter(ResourceType.TOPIC, f"{PREFIX}.recorded", ACLResourcePatternType.LITERAL)
    log = guarded.log()
    rights = KafkaRights(log, PREFIX, {f"{PREFIX}-{role}": role for role in EXPECTED})
    with log.administration() as admin:
        admin.create_acls([ACL(f"User:{PREFIX}-pledges", "*", ACLOperation.WRITE, ACLPermissionType.ALLOW, recorded)])
        for principal, operation, permission in (
            (f"User:{PREFIX}-projector", ACLOperation.READ, ACLPermissionType.ALLOW),
            ("User:*", ACLOperation.DELETE, ACLPermissionType.DENY),
        ):
            admin.delete_acls([ACLFilter(principal, None, operation, permission, any_recorded)])

    found = guarded.run("rights", "check")
    given, taken = rights.apply()
    left = rights.differences()
    log.close()

    assert found.returncode == 1
    wanted = [
        f"Allow User:{PREFIX}-projector Read on topic {PREFIX}.recorded: expected, not found",
        f"Deny User:* Delete on topic {PREFIX}.recorded: expected, not found",
        f"Allow User:{PREFIX}-pledges Write on topic {PREFIX}.recorded: found, not expected",
        f"Allow User:{PREFIX}-{MISTAKE} All on topic {PREFIX}*: only ledger may write there",
    ]
    assert [line for line in wanted if line not in found.stdout] == []
    assert (len(given), len(taken)) == (2, 1)
    assert len(left) == 3, "the mistake is not ours to take back: a line for each topic that one part alone writes to"
    assert all(f"User:{PREFIX}-{MISTAKE}" in line for line in left)


def test_another_teams_service_gets_a_user_with_a_role(guarded: Guarded) -> None:
    log = guarded.log()
    rights = KafkaRights(log, PREFIX, {"hospital-erp": "producer"})
    rights.set_passwords({"hospital-erp": "its password"})
    rights.apply()

    credentials = {"sasl_plain_username": "hospital-erp", "sasl_plain_password": "its password"}
    theirs = KafkaLog(guarded.broker.addresses, security=guarded.security() | credentials)
    operations = {topic: theirs.operations(f"{PREFIX}.{topic}") for topic in TOPICS}
    theirs.close()
    log.close()
    assert {topic for topic, allowed_ in operations.items() if "WRITE" in allowed_} == {"submitted"}
    assert {topic for topic, allowed_ in operations.items() if "READ" in allowed_} == set()


def test_passwords_are_readable_by_their_owner_alone(guarded: Guarded) -> None:
    files = [guarded.passwords / f"{PREFIX}-{role}" for role in EXPECTED]

    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert guarded.passwords.stat().st_mode & 0o777 == 0o700
    assert len({path.read_text() for path in files}) == len(EXPECTED)
    assert not any(path.read_text() in guarded.said for path in files)


def _settings(guarded: Guarded, role: str, views: str | None = None) -> Settings:
    environment = guarded.environment(role)
    return Settings(
        log=environment["AIDTRAIL_LOG"],
        views=views,
        topic_prefix=PREFIX,
        kafka_security_protocol="SASL_SSL",
        kafka_username=environment["AIDTRAIL_KAFKA_USERNAME"],
        kafka_password=environment["AIDTRAIL_KAFKA_PASSWORD"],
        kafka_ca_file=guarded.broker.ca_file,
    )


def test_the_doctor_tells_the_lag_to_who_may_not_read_the_entries(guarded: Guarded, database_url: str) -> None:
    with backends(_settings(guarded, "ledger")) as opened:
        partitions = opened.log.partitions(opened.topics.recorded)
        with closing(opened.log.appender()) as appender:
            appender.append([Draft(opened.topics.recorded, 0, b"D1", b"no entry")])
    with schema.connect(database_url) as connection:
        schema.prepare(connection, partitions)

    with backends(_settings(guarded, "pledges", database_url)) as opened:
        lag = sum(opened.log.end_offsets(opened.topics.recorded).values())
        found = list(doctor.views(opened))

    assert [(finding.verdict, finding.subject) for finding in found] == [("ok", "views"), ("warn", "lag")]
    assert found[-1].found == f"{lag:,} entries to project: is a projector running?"


def test_the_doctor_says_what_a_user_may_and_for_what_that_is_enough(guarded: Guarded) -> None:
    wanted = {
        "ledger": [("ok", "reads submitted, recorded, registry; writes recorded: enough for status, ledger, projector")],
        "producer": [("ok", "reads nothing; writes submitted: enough for producer, timekeeper")],
        NOBODY: [("fail", "reads nothing; writes nothing: enough for no part")],
        "": [("ok", "enough for pledges, approvals"), ("warn", "may delete or alter submitted, recorded, registry, checkpoints")],
    }
    for role, expected in wanted.items():
        with backends(_settings(guarded, role)) as opened:
            found = list(doctor.rights(opened))

        assert [finding.verdict for finding in found] == [verdict for verdict, _ in expected]
        assert all(said in finding.found for finding, (_, said) in zip(found, expected, strict=True)), found


def test_a_broker_that_asks_nobody_for_rights_is_told_and_nothing_is_set(kafka_broker: str, tmp_path: Path) -> None:
    environment = {"AIDTRAIL_LOG": f"kafka://{kafka_broker}", "AIDTRAIL_HOME": str(tmp_path)}

    done = CliRunner().invoke(app, ["rights", "apply", "--passwords", str(tmp_path / "passwords")], env=environment)

    assert isinstance(done.exception, UnavailableError)
    assert str(done.exception).startswith("this Kafka has no authorizer, so rights would bind nobody: set authorizer.class.name to")
    assert not (tmp_path / "passwords").exists()


def test_rights_are_shown_without_a_broker(capsys: pytest.CaptureFixture[str]) -> None:
    show_command(["hospital-erp=producer"], json_=True)
    rights = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    writers = {row["principal"] for row in rights if (row["name"], row["operation"]) == ("donations.recorded", "Write")}
    assert writers == {"User:donations-ledger"}
    written = {row["name"] for row in rights if (row["principal"], row["operation"]) == ("User:hospital-erp", "Write")}
    assert written == {"donations.submitted"}
    with pytest.raises(UsageError, match="--also: expected USER=ROLE with one of pledges"):
        show_command(["hospital-erp=king"])
