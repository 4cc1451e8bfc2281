"""Markers of others' transactions, which take an offset at the end of a partition and are never delivered: nobody waits for one."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Producer as TransactionalProducer

from aidtrail import codec, metrics
from aidtrail.audit.as_of import Moment, as_of
from aidtrail.audit.evidence import export
from aidtrail.audit.rebuild import rebuild
from aidtrail.audit.replay import replay
from aidtrail.audit.seal import Sealer
from aidtrail.cli import doctor, registry
from aidtrail.cli.backends import backends
from aidtrail.config import Settings
from aidtrail.domain.events import Event, RegistryEvent
from aidtrail.ledger import Ledger
from aidtrail.log import partition_of
from aidtrail.log.kafka import KafkaLog
from aidtrail.producer import Producer
from aidtrail.projector import Projector
from aidtrail.service import drain
from aidtrail.topics import Topics
from tests.acts import Acts, registry_events
from tests.databases import Server
from tests.signers import signer
from tests.waiting import eventually

PARTITIONS = 2
KEY = signer("aidtrail.example/log")
DONATIONS = [f"KRCS-2026-{number:04}" for number in range(20)]
PATIENCE = {
    "aidtrail.ledger.RECOVERY_SECONDS": 3.0,
    "aidtrail.registry_reader.READ_SECONDS": 3.0,
    "aidtrail.cli.registry.READ_SECONDS": 3.0,
    "aidtrail.audit.building.POLL_SECONDS": 3.0,
    "aidtrail.audit.checkpoints.POLL_SECONDS": 3.0,
    "aidtrail.audit.evidence.POLL_SECONDS": 3.0,
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a marker fails soon."""
    for name, seconds in PATIENCE.items():
        monkeypatch.setattr(name, seconds)


def home(donation_id: str) -> int:
    return partition_of(donation_id.encode(), PARTITIONS)


class World:
    """A pipeline on Kafka, sealed. Every partition of every topic ends in a marker: in `submitted` and `registry` after what is lawful, in
    the others after what somebody wrote who must not."""

    def __init__(self, bootstrap: str, database: str, folder: Path) -> None:
        self.bootstrap, self.database, self.folder = bootstrap, database, folder
        self.log, self.topics = KafkaLog([bootstrap]), Topics.of("marked")
        self.topics.create(self.log, PARTITIONS)
        first, *others = registry_events()
        self.submit([Acts(each).announced() for each in DONATIONS], [first, *others[:-1]])
        self.rule()
        self.project()
        self.seal()
        self.transaction(
            [(self.topics.registry, 0, b"K", codec.encode(others[-1]))]
            + [(self.topics.submitted, home(each), each.encode(), codec.encode(Acts(each).confirmed())) for each in self.one_in_each()]
            + [(topic, number, b"K", b"rogue") for topic, number in [*self.places(self.topics.recorded), (self.topics.checkpoints, 0)]]
        )

    def one_in_each(self) -> list[str]:
        return [next(each for each in DONATIONS if home(each) == number) for number in range(PARTITIONS)]

    def places(self, topic: str) -> list[tuple[str, int]]:
        return [(topic, number) for number in self.log.end_offsets(topic)]

    def submit(self, events: Sequence[Event], registered: Sequence[RegistryEvent] = ()) -> None:
        with Producer(self.log, self.topics) as producer:
            producer.register(registered)
            producer.submit(events)

    def transaction(self, records: list[tuple[str, int, bytes, bytes]]) -> None:
        producer = TransactionalProducer({"bootstrap.servers": self.bootstrap, "transactional.id": "another-team"})
        producer.init_transactions(20)
        producer.begin_transaction()
        for topic, partition, key, value in records:
            producer.produce(topic, key=key, value=value, partition=partition)
        producer.flush(20)
        touched = {topic: self.log.end_offsets(topic) for topic, *_ in records}
        producer.commit_transaction(20)
        # Brokers write markers after they have answered.
        for topic, before in touched.items():
            expected = sum(before.values()) + len({number for place, number, *_ in records if place == topic})
            assert eventually(lambda topic=topic, expected=expected: sum(self.log.end_offsets(topic).values()) == expected)  # type: ignore[misc]

    def rule(self, store: str = "store") -> int:
        """Until lag tools see no lag; returns how many records that appended."""
        before = self.log.end_offsets(self.topics.recorded)
        with closing(Ledger(self.log, self.topics, self.folder / store, group=store)) as ledger:
            drain(ledger, lambda: self.log.committed(store, self.topics.submitted) == self.log.end_offsets(self.topics.submitted))
        return sum(self.log.end_offsets(self.topics.recorded).values()) - sum(before.values())

    def project(self) -> None:
        projector = Projector(self.log, self.topics, self.database, group="projector")
        with closing(projector):
            drain(projector, lambda: self.log.committed("projector", self.topics.recorded) == self.log.end_offsets(self.topics.recorded))

    def seal(self) -> None:
        sealer = Sealer(self.log, self.topics, KEY, self.folder / "seal", seal_seconds=0.0)
        with closing(sealer):
            drain(sealer, lambda: True)
            assert eventually(lambda: sealer.turn() == 0)


@pytest.fixture(scope="module")
def world(kafka_broker: str, postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    database = postgres_server.create_database()
    made = World(kafka_broker, database, tmp_path_factory.mktemp("world"))
    yield made
    made.log.close()
    postgres_server.drop_database(database)


def test_a_ledger_goes_on_after_a_marker_with_its_store_and_without(world: World) -> None:
    surprises = metrics.OFFSET_SURPRISES._value.get()
    ruled = world.rule()
    again = world.rule()
    anew = world.rule("anew")
    world.transaction([(topic, number, b"K", b"rogue") for topic, number in world.places(world.topics.recorded)])
    world.submit([Acts(each).confirmed() for each in DONATIONS[:4]])
    after = world.rule()

    assert (ruled, again, anew, after) == (2, 0, 0, 4)
    assert metrics.OFFSET_SURPRISES._value.get() == surprises


def test_a_marker_is_no_lag(world: World) -> None:
    world.rule()
    world.project()  # both wait until lag tools see none
    with backends(Settings(home=world.folder, log=f"kafka://{world.bootstrap}", views=world.database, topic_prefix="marked")) as opened:
        lag = [finding for finding in doctor.views(opened) if finding.subject == "lag"]
        world.submit([Acts(DONATIONS[0]).withdrawn()])
        world.rule()
        behind = [finding for finding in doctor.views(opened) if finding.subject == "lag"]

    assert [finding.found for finding in lag] == ["0 entries to project"]
    assert [finding.verdict for finding in behind] == ["warn"]


def test_the_registry_is_read_past_a_marker(world: World) -> None:
    assert registry.follow(world.log, world.topics).offset == world.log.end_offsets(world.topics.registry)[0] - 2


def test_a_replay_ends_at_a_marker_and_names_the_offset_in_recorded(world: World) -> None:
    world.rule()
    started = time.monotonic()
    found = replay(world.log, world.topics)

    assert {(one.topic, one.field, one.expected) for one in found.differences} <= {(world.topics.recorded, "offset", "a record")}
    assert time.monotonic() - started < 20


def test_views_are_built_up_to_a_marker(world: World) -> None:
    world.rule()
    world.project()
    rebuilt = rebuild(world.log, world.topics, world.database)
    past = as_of(world.log, world.topics, world.database, Moment())

    assert rebuilt.total_differences == 0
    assert past.cut.sha256 == rebuilt.sha256


def test_all_is_sealed_and_exported_although_topics_end_in_markers(world: World) -> None:
    world.rule()
    world.project()
    world.seal()
    unsealed = metrics.UNSEALED_ENTRIES._value.get()
    written = export(world.log, world.topics, world.database, KEY.verifier, world.folder / "export")

    assert unsealed == 0
    assert written > 40
