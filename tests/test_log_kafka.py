"""What is particular to the log on Kafka: settings of topics, credentials, and brokers that die or hang."""

import gc
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread
from unittest.mock import Mock

import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaTimeoutError

from aidtrail.errors import AppendUnknownError, UnavailableError, UsageError
from aidtrail.log import Draft, kafka, up_to
from aidtrail.log.kafka import KafkaLog, KafkaMembership
from tests.brokers import Broker
from tests.conftest import require_kafka
from tests.waiting import eventually

# kafka-python 3.0.12 leaves a socket whose connection was refused to the garbage collector, which closes it and warns.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <(ssl.SSLS|s)ocket:ResourceWarning")


@pytest.fixture(autouse=True)
def such_sockets_are_collected_here_and_not_in_a_later_test() -> Iterator[None]:
    yield
    gc.collect()


def produce_compressed(bootstrap: str, topic: str, compression: str) -> None:
    """Twenty records, in one batch or a few."""
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": compression, "linger.ms": 100})
    for _ in range(20):
        producer.produce(topic, key=b"D-1", value=b"compressed", partition=0)
    assert producer.flush(20) == 0


@pytest.fixture(scope="module")
def mortal() -> Iterator[Broker]:
    """A broker that tests may kill or freeze, and start or thaw again."""
    require_kafka()
    with Broker() as broker:
        yield broker


def test_every_setting_that_differs_is_named_with_what_to_do(kafka_broker: str, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka_broker)
    wrong = {"retention.ms": "86400000", "cleanup.policy": "compact", "unclean.leader.election.enable": "true"}
    admin.create_topics({topic: {"num_partitions": 2, "replication_factor": 1, "configs": wrong}}, wait_for_metadata=True)
    admin.close()
    log = KafkaLog([kafka_broker])
    differences = log.check_topic(topic)
    with pytest.raises(UnavailableError, match=r"expected retention\.ms=-1"):
        log.create_topic(topic, 2)
    log.close()

    assert [line.split("; ")[0] for line in differences] == [
        f"{topic}: expected message.timestamp.type=LogAppendTime, found CreateTime",
        f"{topic}: expected cleanup.policy=delete, found compact",
        f"{topic}: expected retention.ms=-1, found 86400000",
        f"{topic}: expected compression.type=uncompressed, found producer",
        f"{topic}: expected unclean.leader.election.enable=false, found true",
    ]
    assert f"kafka-configs.sh --alter --topic {topic} --add-config retention.ms=-1" in differences[2]


@pytest.mark.parametrize(
    ("bootstrap", "security", "cause"),
    [
        ("no-such-host.invalid:9092", {}, "DNS Resolution failure"),
        (
            None,
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "PLAIN",
                "sasl_plain_username": "ledger",
                "sasl_plain_password": "wrong",
            },
            "Sasl",
        ),
        (None, {"security_protocol": "SSL"}, "Handshake failed"),
    ],
    ids=["unknown host", "credentials", "no TLS"],
)
def test_a_broker_that_cannot_be_used_is_one_clear_line(
    kafka_broker: str, monkeypatch: pytest.MonkeyPatch, bootstrap: str | None, security: dict[str, object], cause: str
) -> None:
    monkeypatch.setattr(kafka, "OPEN_SECONDS", 1)
    started = time.monotonic()
    with pytest.raises(UnavailableError) as raised:
        KafkaLog([bootstrap or kafka_broker], security=security)

    assert cause in str(raised.value)
    assert "Check AIDTRAIL_LOG" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "wrong" not in str(raised.value)
    assert time.monotonic() - started < 5


def test_a_certificate_that_was_refused_is_told_though_the_last_attempt_was_cut_off() -> None:
    once = kafka._Once(30)
    causes = ("Handshake failed: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "connection closed", "RequestTimedOut")
    for cause in causes:
        once.filter(logging.LogRecord("kafka.net.manager", logging.ERROR, "", 0, "Connection failed: %s", (cause,), None))

    assert "CERTIFICATE_VERIFY_FAILED" in once.cause


def test_checksums_in_pure_python_are_refused(kafka_broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "crc32c_c", None)
    with pytest.raises(UsageError, match="pip install crc32c"):
        KafkaLog([kafka_broker])


def test_a_member_that_cannot_go_on_says_so_until_it_is_one_again(kafka_broker: str, topic: str) -> None:
    log = KafkaLog([kafka_broker])
    log.create_topic(topic, 2)
    member = log.join("group", topic)
    assert eventually(lambda: member.owned() == {0, 1})
    failed = member._consumer
    member._open, rejoin = Mock(side_effect=RuntimeError("nor now")), member._open
    failed.poll = Mock(side_effect=RuntimeError("it cannot go on"))

    def says(what: str) -> bool:
        try:
            member.owned()
        except UnavailableError as error:
            return what in str(error)
        return False

    assert eventually(lambda: says("RuntimeError it cannot go on"))
    assert eventually(lambda: says("RuntimeError nor now"))
    member._open = rejoin
    assert eventually(lambda: not says("RuntimeError"))
    assert eventually(lambda: member.owned() == {0, 1})
    assert failed._closed
    member.close()
    log.close()


def test_a_member_that_there_is_nothing_for_asks_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time all members of the group divide the partitions anew, and cannot commit meanwhile."""
    now = 0.0
    monkeypatch.setattr(kafka, "time", Mock(monotonic=lambda: now))
    member = KafkaMembership.__new__(KafkaMembership)
    member._topic, member._owned, member._patience_seconds = "recorded", frozenset(), kafka.EMPTY_SECONDS
    asked: list[float] = []
    member._consumer = Mock(unsubscribe=lambda: asked.append(now))
    member._subscribe()
    for second in range(3600):
        now = float(second)
        member._ask_again_if_left_out()

    assert asked[0] <= 6
    assert len(asked) < 20


def test_an_offset_that_the_log_does_not_have_is_refused(kafka_broker: str, topic: str) -> None:
    log = KafkaLog([kafka_broker])
    log.create_topic(topic, 1)
    reader = log.reader(topic)
    reader.assign({0: 7})
    with pytest.raises(UnavailableError, match="OffsetOutOfRange"):
        reader.poll(10, 10)
    reader.close()
    log.close()


@pytest.mark.parametrize("compression", ["gzip", "lz4", "snappy", "zstd"])
def test_what_a_producer_compressed_is_read(kafka_broker: str, topic: str, compression: str) -> None:
    log = KafkaLog([kafka_broker])
    log.create_topic(topic, 1)
    produce_compressed(kafka_broker, topic, compression)
    reader = log.reader(topic)
    reader.assign({0: 0})
    batches = list(up_to(reader, topic, 0, 20, max_records=100, patience_seconds=20))

    assert [record.value for batch in batches for record in batch] == [b"compressed"] * 20
    reader.close()
    log.close()


def test_a_transaction_holds_nobody_up_and_what_it_aborts_is_read_all_the_same(kafka_broker: str, topic: str) -> None:
    log = KafkaLog([kafka_broker])
    log.create_topic(topic, 1)
    reader, appender = log.reader(topic), log.appender()
    reader.assign({0: 0})
    hanging = Producer({"bootstrap.servers": kafka_broker, "transactional.id": topic})
    hanging.init_transactions(20)
    hanging.begin_transaction()
    hanging.produce(topic, key=b"D-1", value=b"in a transaction", partition=0)
    assert hanging.flush(20) == 0
    appender.append([Draft(topic, 0, b"D-1", b"after it")])
    seen: list[bytes | None] = []

    def read(count: int) -> bool:
        seen.extend(record.value for record in reader.poll(10, 0.2).get(0, []))
        return len(seen) >= count

    assert eventually(lambda: read(2)), "nobody waits for the end of the transaction"
    hanging.abort_transaction(20)
    reader.assign({0: 0})
    assert eventually(lambda: read(4))

    assert seen == [b"in a transaction", b"after it"] * 2
    appender.close()
    reader.close()
    log.close()


def test_a_batch_that_cannot_be_read_is_named_each_time_with_what_to_do(
    kafka_broker: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kafka.codec.has_lz4", lambda: False)
    admin = KafkaAdminClient(bootstrap_servers=kafka_broker)
    admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
    admin.close()
    log = KafkaLog([kafka_broker])
    appender = log.appender()
    appender.append([Draft(topic, 0, b"D-1", b"plain")])
    produce_compressed(kafka_broker, topic, "lz4")
    reader = log.reader(topic)
    reader.assign({0: 0})
    first = reader.poll(100, 20)
    for _ in range(2):
        with pytest.raises(UnavailableError, match=f"{topic} cannot be read after partition 0 offset 1: .*lz4.*install lz4"):
            reader.poll(100, 20)

    assert [record.value for record in first[0]] == [b"plain"]
    assert reader.positions() == {0: 1}
    for part in (appender, reader, log):
        part.close()


def test_after_an_error_another_consumer_goes_on_after_the_last_record(kafka_broker: str, topic: str) -> None:
    log = KafkaLog([kafka_broker])
    log.create_topic(topic, 1)
    appender = log.appender()
    appender.append([Draft(topic, 0, b"D-1", b"%d" % number) for number in range(5)])
    reader = log.reader(topic)
    reader.assign({0: 0})
    before = list(up_to(reader, topic, 0, 2, max_records=2, patience_seconds=20))
    failed = reader._consumer
    failed.poll = Mock(side_effect=RuntimeError("it cannot go on"))
    with pytest.raises(UnavailableError, match="after partition 0 offset 2: RuntimeError it cannot go on"):
        reader.poll(100, 20)
    after = list(up_to(reader, topic, 0, 5, max_records=100, patience_seconds=20))

    assert [record.value for batch in before + after for record in batch] == [b"0", b"1", b"2", b"3", b"4"]
    assert failed._closed
    assert failed.poll.call_count == 1
    for part in (appender, reader, log):
        part.close()


def test_a_member_fetches_no_record(kafka_broker: str, topic: str) -> None:
    log = KafkaLog([kafka_broker])
    log.create_topic(topic, 2)
    appender = log.appender()
    appender.append([Draft(topic, number % 2, b"D-1", b"value") for number in range(100)])
    member = log.join("group", topic)
    assert eventually(lambda: member.owned() == {0, 1})
    # Positions are looked up in the polls that follow; a member that could fetch would do so then.
    polls = iter(range(200))
    assert eventually(lambda: bool(member.owned()) and next(polls) >= 100)
    consumer = member._consumer
    positions = [consumer.highwater(partition) for partition in consumer.assignment()]

    assert consumer.assignment() == consumer.paused()
    assert positions == [None, None]  # a fetch, even of nothing, would have told where the partition ends
    appender.close()
    member.close()
    log.close()


def test_a_killed_broker_costs_no_acknowledged_record(mortal: Broker, topic: str) -> None:
    log = KafkaLog(mortal.addresses, delivery_timeout_seconds=60)
    log.create_topic(topic, 2)
    appender, reader, member = log.appender(), log.reader(topic), log.join("group", topic)
    assert eventually(lambda: member.owned() == {0, 1})
    acknowledged: list[tuple[int, int, bytes]] = []
    failures: list[Exception] = []

    def write() -> None:
        try:
            for number in range(60):
                drafts = [Draft(topic, part, b"D-1", b"%d/%d/%d" % (number, part, row)) for row in range(20) for part in (0, 1)]
                places = appender.append(drafts)
                acknowledged.extend((draft.partition, place.offset, draft.value) for draft, place in zip(drafts, places, strict=True))
                if number == 30:
                    halfway.append(True)
        except Exception as error:
            failures.append(error)

    halfway: list[bool] = []
    writer = Thread(target=write)
    writer.start()
    assert eventually(lambda: bool(halfway))
    mortal.kill()
    reader.assign({0: 0, 1: 0})
    during_outage = [(reader.poll(100, 0.2), member.owned()) for _ in range(5)]
    with pytest.raises(UnavailableError):
        log.end_offsets(topic)
    mortal.start()
    writer.join()
    seen: list[tuple[int, int, bytes | None]] = []

    def all_read() -> bool:
        member.owned()
        for part, batch in reader.poll(1000, 0.5).items():
            seen.extend((part, record.offset, record.value) for record in batch)
        return len(seen) >= len(acknowledged)

    def knows_the_end() -> bool:
        with suppress(UnavailableError):  # each client of the log finds the broker again by itself
            return log.end_offsets(topic) == {0: 1200, 1: 1200}
        return False

    assert eventually(all_read, 60)
    assert eventually(lambda: member.owned() == {0, 1}, 60)
    assert eventually(knows_the_end)
    assert failures == []
    assert during_outage == [({}, frozenset({0, 1}))] * 5
    assert sorted(seen) == sorted(acknowledged)
    for part in (appender, reader, member, log):
        part.close()


def test_what_a_member_commits_while_the_broker_is_away_is_seen_by_lag_tools_once_it_is_back(mortal: Broker, topic: str) -> None:
    log = KafkaLog(mortal.addresses)
    log.create_topic(topic, 2)
    member = log.join(topic, topic)
    assert eventually(lambda: member.owned() == {0, 1})
    member.commit({0: 3})
    assert eventually(lambda: bool(member.owned()) and log.committed(topic, topic) == {0: 3})
    mortal.kill()
    member.commit({0: 5, 1: 7})
    polls = iter(range(100))
    assert eventually(lambda: bool(member.owned()) and next(polls) >= 30, 60)
    mortal.start()

    def committed() -> bool:
        member.owned()
        with suppress(UnavailableError):
            return log.committed(topic, topic) == {0: 5, 1: 7}
        return False

    assert eventually(committed)
    member.close()
    log.close()


def test_an_append_that_a_hanging_broker_does_not_acknowledge_is_unknown_and_the_next_appender_goes_on(mortal: Broker, topic: str) -> None:
    log = KafkaLog(mortal.addresses, delivery_timeout_seconds=2)
    log.create_topic(topic, 1)
    appender = log.appender()
    appender.append([Draft(topic, 0, b"D-1", b"before")])
    mortal.freeze()
    started = time.monotonic()
    with pytest.raises(AppendUnknownError, match="1 records were not all acknowledged"):
        appender.append([Draft(topic, 0, b"D-1", b"unknown")])
    waited_seconds = time.monotonic() - started
    with pytest.raises(AppendUnknownError, match="open another"):
        appender.append([Draft(topic, 0, b"D-1", b"never")])
    appender.close()
    mortal.thaw()
    another = KafkaLog(mortal.addresses)
    ends: list[int] = []

    def found() -> bool:
        try:
            ends.append(another.end_offsets(topic)[0])
        except UnavailableError:  # the broker is back in its own time
            return False
        return True

    assert eventually(found)
    second = another.appender()
    place = second.append([Draft(topic, 0, b"D-1", b"after")])[0]
    reader = another.reader(topic)
    reader.assign({0: 0})
    values: list[bytes | None] = []

    def read() -> bool:
        values.extend(record.value for record in reader.poll(10, 0.5).get(0, []))
        return values[-1:] == [b"after"]

    assert eventually(read)
    assert 1.9 < waited_seconds < 6
    assert place.offset >= ends[0]
    assert values in ([b"before", b"after"], [b"before", b"unknown", b"after"])
    for part in (reader, second, another, log):
        part.close()


def test_a_producer_that_cannot_be_emptied_is_closed_all_the_same(kafka_broker: str, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = KafkaLog([kafka_broker])
    log.create_topic(topic, 1)
    threads = set(threading.enumerate())
    appender = log.appender()
    appender.append([Draft(topic, 0, b"D-1", b"before")])
    monkeypatch.setattr(KafkaProducer, "flush", Mock(side_effect=KafkaTimeoutError("the broker does not answer")))

    appender.close()
    del appender
    gc.collect()  # pytest makes an error of what is raised here

    assert eventually(lambda: set(threading.enumerate()) <= threads)
    log.close()


def test_kafkas_loggers_repeat_nothing_within_half_a_minute(kafka_broker: str, caplog: pytest.LogCaptureFixture) -> None:
    kafka.quiet_kafka_loggers()
    logger = logging.getLogger("kafka.cluster")
    for attempt in range(100):
        logger.error("Topic %s not found in cluster metadata (attempt %d)", "donations.submitted", attempt)
        logger.error("something else")

    assert len([record for record in caplog.records if record.name == "kafka.cluster"]) == 2


def test_three_brokers_keep_three_replicas_and_writing_goes_on_without_one(topic: str) -> None:
    require_kafka()
    with Broker(nodes=3) as cluster:
        log = KafkaLog(cluster.addresses, delivery_timeout_seconds=60)
        log.create_topic(topic, 3)
        differences = log.check_topic(topic)
        appender = log.appender()
        before = appender.append([Draft(topic, part, b"D-1", b"before") for part in range(3)])
        cluster.stop(2)
        after = appender.append([Draft(topic, part, b"D-1", b"after") for part in range(3)])
        appender.close()
        log.close()

    assert differences == []
    assert [place.offset for place in before] == [0, 0, 0]
    assert [place.offset for place in after] == [1, 1, 1]
