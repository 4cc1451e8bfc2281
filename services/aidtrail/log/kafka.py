"""The log on Apache Kafka, through kafka-python. Every setting here that is not a default has its reason beside it."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Lock, Thread
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, OffsetSpec
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import (
    AuthorizationError,
    CoordinatorNotAvailableError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedCodecError,
    for_code,
)
from kafka.record.util import crc32c_c
from kafka.structs import OffsetAndMetadata

from aidtrail.errors import AppendUnknownError, UnavailableError, UsageError
from aidtrail.log import FETCH_BYTES, Appended, Draft, Record, kafka_records

logger = logging.getLogger(__name__)

OPEN_SECONDS = 8
REQUEST_SECONDS = 10
COORDINATOR_SECONDS = 5.0
METADATA_SECONDS = 2.0
MEMBERSHIP_POLL_MS = 100
FETCH_WAIT_MS = 100
"""How long a broker holds a fetch for which it has nothing yet. A reader that is assigned elsewhere waits out the one that is under way."""
POSITION_SECONDS = 1
"""How long a change of leaders may hold up who asks for a position: it is told all the same."""
STALL_SECONDS = 60
EMPTY_SECONDS = 5.0
MAX_EMPTY_SECONDS = 320.0
CLOSE_SECONDS = 2
TELL_SECONDS = 5.0
"""How often an outage is told."""

kafka_records.install()

REPLICATION = 3
REQUIRED_SETTINGS = {
    "message.timestamp.type": "LogAppendTime",  # the clock of every rule is the log's, not a producer's
    "cleanup.policy": "delete",  # compaction would drop all but the last event of a donation
    "retention.ms": "-1",
    "retention.bytes": "-1",
    # What a producer compressed with lz4, snappy or zstd could not be read: their libraries are no dependencies. Ours compress nothing, so
    # brokers unpack what others did alone: an event of theirs takes 364 bytes on disk then, as ours do, not 93 (zstd) to 127 (lz4).
    "compression.type": "uncompressed",
    "unclean.leader.election.enable": "false",  # a replica that lags must not become the record
}


class KafkaLog:
    """A log in the cluster reached through `bootstrap` ('host:port', any of its brokers). `security` holds kafka-python's own settings
    (`security_protocol`, `sasl_mechanism`, ...). Opening one connects. Not shared between threads.

    `delivery_timeout_seconds` is how long an append rides out an outage before it is unknown: longer than a broker takes to come back.
    """

    def __init__(
        self, bootstrap: Sequence[str], *, delivery_timeout_seconds: float = 30.0, security: Mapping[str, object] | None = None
    ) -> None:
        if crc32c_c is None:
            raise UsageError("the C library of crc32c is missing, and every batch would be checked in pure Python: pip install crc32c")
        self._where = ",".join(bootstrap)
        self._delivery_timeout_seconds = delivery_timeout_seconds
        self._connection: dict[str, Any] = {
            "bootstrap_servers": list(bootstrap),
            "bootstrap_timeout_ms": OPEN_SECONDS * 1000,
            "reconnect_backoff_max_ms": 500,  # the default of 30 s would prolong every outage by up to that
            "client_id": "aidtrail",
            **(security or {}),
        }
        quiet_kafka_loggers()
        with self._reaching():
            self._admin = KafkaAdminClient(request_timeout_ms=REQUEST_SECONDS * 1000, **self._connection)

    def create_topic(self, topic: str, partitions: int) -> bool:
        with self._reaching():
            replication, in_sync = self._replication()
            try:
                self._admin.create_topics(
                    {
                        topic: {
                            "num_partitions": partitions,
                            "replication_factor": replication,
                            "configs": {**REQUIRED_SETTINGS, "min.insync.replicas": str(in_sync)},
                        }
                    },
                    wait_for_metadata=True,
                )
                return True
            except TopicAlreadyExistsError:
                pass
        differences = self.check_topic(topic)
        if self.partitions(topic) != partitions:
            differences.append(f"{topic}: expected {partitions} partitions, found {self.partitions(topic)}; use that number")
        if differences:
            raise UnavailableError("; ".join(differences))
        return False

    def check_topic(self, topic: str) -> list[str]:
        with self._reaching():
            described = self._described(topic)
            if described["error_code"]:
                return [_no_topic(topic, described["error_code"])]
            replication, in_sync = self._replication()
            found = self._admin.describe_configs([ConfigResource("topic", topic)], config_filter="all")["topic"].get(topic, {})
        if not found:
            return [f"{topic}: its settings cannot be read; allow this principal to DescribeConfigs on the topic"]
        differences = []
        for name, expected in {**REQUIRED_SETTINGS, "min.insync.replicas": str(in_sync)}.items():
            if found[name]["value"] != expected:
                differences.append(
                    f"{topic}: expected {name}={expected}, found {found[name]['value']}; "
                    f"kafka-configs.sh --alter --topic {topic} --add-config {name}={expected}"
                )
        fewest = min(len(partition["replica_nodes"]) for partition in described["partitions"])
        if fewest < replication:
            differences.append(
                f"{topic}: expected {replication} replicas of every partition, found {fewest}; add some by kafka-reassign-partitions.sh"
            )
        return differences

    def partitions(self, topic: str) -> int:
        return len(self._describe(topic)["partitions"])

    def end_offsets(self, topic: str) -> dict[int, int]:
        partitions = self.partitions(topic)
        with self._reaching():
            found = self._admin.list_partition_offsets({TopicPartition(topic, number): OffsetSpec.LATEST for number in range(partitions)})
        return {at.partition: end.offset for at, end in sorted(found.items())}

    def last_append(self, topic: str) -> int:
        partitions = self.partitions(topic)
        with self._reaching():
            wanted = {TopicPartition(topic, number): OffsetSpec.MAX_TIMESTAMP for number in range(partitions)}
            found = self._admin.list_partition_offsets(wanted)
        return max((int(newest.timestamp) for newest in found.values() if newest.offset >= 0), default=0)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        deadline = time.monotonic() + COORDINATOR_SECONDS
        with self._reaching():
            while True:
                try:
                    found = self._admin.list_group_offsets({group: None})[group]
                    break
                except CoordinatorNotAvailableError:  # asking for the first group ever makes the broker create where groups are kept
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
        return {at.partition: position.offset for at, position in sorted(found.items()) if at.topic == topic and position.offset >= 0}

    def operations(self, topic: str) -> frozenset[str]:
        return frozenset(self._describe(topic)["authorized_operations"])

    @contextmanager
    def administration(self) -> Iterator[Any]:
        """kafka-python's administration client, its errors turned into ours. For what is Kafka's alone."""
        with self._reaching():
            yield self._admin

    def appender(self) -> "KafkaAppender":
        with self._reaching():
            return KafkaAppender(self._connection, self._delivery_timeout_seconds)

    def reader(self, topic: str, *, follows: bool = True) -> "KafkaReader":
        # A consumer without rights polls empty for ever instead of failing (kafka-python 3.0.12): ask for the rights first.
        if "READ" not in self.operations(topic):
            raise UnavailableError(f"{topic}: this principal may not read it; allow it to Read the topic")
        with self._reaching():
            return KafkaReader(self._connection, topic, FETCH_WAIT_MS if follows else 1)

    def join(self, group: str, topic: str) -> "KafkaMembership":
        self._describe(topic)
        with self._reaching():
            return KafkaMembership(self._connection, group, topic)

    def close(self) -> None:
        self._admin.close()

    def _describe(self, topic: str) -> dict[str, Any]:
        with self._reaching():
            described = self._described(topic)
        if described["error_code"]:
            raise UnavailableError(_no_topic(topic, described["error_code"]))
        return described

    def _described(self, topic: str) -> dict[str, Any]:
        """What a broker says of the topic. Brokers learn of a new topic one after another, and any of them may be the one that is asked."""
        deadline = time.monotonic() + METADATA_SECONDS
        while True:
            described: dict[str, Any] = self._admin.describe_topics([topic])[0]
            missing = for_code(described["error_code"]) is UnknownTopicOrPartitionError
            if not missing or time.monotonic() > deadline or len(self._admin.describe_cluster()["brokers"]) == 1:
                return described
            time.sleep(0.1)

    def _replication(self) -> tuple[int, int]:
        """Replicas and in-sync replicas that a topic must have: 3 and 2, or one of each on a cluster that is too small for them."""
        brokers = len(self._admin.describe_cluster()["brokers"])
        return (REPLICATION, REPLICATION - 1) if brokers >= REPLICATION else (1, 1)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """kafka-python's errors as ours. A wrong password and an unknown host are a mere time-out to it: the cause is in its log alone."""
        _once.cause, _once.told_by_raising = "", True
        try:
            yield
        except (KafkaError, OSError, ValueError) as error:
            line = " ".join((_once.cause or str(error) or type(error).__name__).split())[:300]
            raise UnavailableError(f"Kafka at {self._where} cannot be reached or refuses: {line}. {self._what_to_check(line)}") from error
        finally:
            _once.told_by_raising = False

    def _what_to_check(self, cause: str) -> str:
        if "Handshake failed" in cause:
            return (
                "Check AIDTRAIL_LOG, that AIDTRAIL_KAFKA_CA_FILE holds the CA that signed the broker's certificate, and "
                "AIDTRAIL_KAFKA_SECURITY_PROTOCOL."
            )
        # Of a wrong password kafka-python often sees no more than that the broker hung up, or nothing at all: so the settings decide.
        if "Sasl" in cause or str(self._connection.get("security_protocol")).startswith("SASL"):
            return (
                "Check AIDTRAIL_LOG, the user in AIDTRAIL_KAFKA_USERNAME, the password in AIDTRAIL_KAFKA_PASSWORD, "
                "AIDTRAIL_KAFKA_SASL_MECHANISM, AIDTRAIL_KAFKA_SECURITY_PROTOCOL, and that it is up."
            )
        return "Check AIDTRAIL_LOG, AIDTRAIL_KAFKA_SECURITY_PROTOCOL, and that it is up."


class KafkaAppender:
    """An idempotent producer. See `aidtrail.log.Appender`."""

    def __init__(self, connection: Mapping[str, Any], delivery_timeout_seconds: float) -> None:
        self._delivery_timeout_seconds = delivery_timeout_seconds
        milliseconds = int(delivery_timeout_seconds * 1000)
        self._usable = True
        self._producer = KafkaProducer(
            **connection,
            acks="all",
            enable_idempotence=True,  # a retry neither doubles nor reorders
            delivery_timeout_ms=milliseconds,
            max_block_ms=milliseconds,
            request_timeout_ms=min(5000, milliseconds // 2),  # a leader that hangs is left in time to try its successor
            linger_ms=min(1000, milliseconds // 4),  # `append` flushes: until then batches fill, instead of leaving with one record
            batch_size=128 * 1024,  # measured: from 57,000/s at 16 KB to 70,000/s; no more beyond
            metrics_enabled=False,  # ours say more; a few per cent of an append
        )

    def append(self, drafts: Sequence[Draft]) -> list[Appended]:
        if not self._usable:
            raise AppendUnknownError("an earlier append of this appender is unknown: close it, read the log's tail and open another")
        send = self._producer.send
        futures: list[Any] = []
        try:
            for topic, partition, key, value, headers in drafts:
                futures.append(send(topic, value, key, list(headers) if headers else None, partition))
            self._producer.flush(self._delivery_timeout_seconds + 1)
            # After a flush every future is done: `get` waits no more, and raises what befell the record.
            return [Appended(metadata.offset, metadata.timestamp) for metadata in (future.get(1) for future in futures)]
        except BaseException as error:
            # Whatever it was (also Ctrl-C), some records may have left: kafka-python can neither take them back nor go on reliably.
            self._usable = False
            if not isinstance(error, KafkaError | OSError | ValueError | AssertionError):
                raise
            if _is_denial(error) and all(future.failed() and _is_denial(future.exception) for future in futures):
                raise UnavailableError(f"{drafts[0].topic}: this principal may not write to it; allow it to Write to the topic") from error
            raise AppendUnknownError(f"{len(drafts)} records were not all acknowledged: {str(error) or type(error).__name__}") from error

    def close(self) -> None:
        self._usable = False
        try:
            self._producer.close(CLOSE_SECONDS)
        except Exception:  # it still waits for a broker, and 3.0.12 would leave its thread at work, and complain once more when collected
            self._producer._sender.force_close()
            self._producer._closed = True


class KafkaReader:
    """A consumer without a group. See `aidtrail.log.Reader`. Records are kafka-python's own, by its own lists: nothing is copied."""

    def __init__(self, connection: Mapping[str, Any], topic: str, fetch_wait_ms: int) -> None:
        self._topic = topic
        self._next_offsets: dict[int, int] = {}
        """From where another consumer goes on."""
        # No deserializers: when one raises, kafka-python 3.0.12 never returns from the next poll.
        self._open = partial(
            KafkaConsumer,
            **connection,
            group_id=None,
            fetch_max_wait_ms=fetch_wait_ms,
            fetch_max_bytes=FETCH_BYTES,  # brokers begin the next fetch at another partition
            max_partition_fetch_bytes=FETCH_BYTES,
            enable_auto_commit=False,
            auto_offset_reset="none",  # an offset that is gone is an error, not a reason to read something else
            check_crcs=True,
            request_timeout_ms=REQUEST_SECONDS * 1000,
            metrics_enabled=False,
        )
        self._consumer: Any = self._open()

    def assign(self, next_offsets: Mapping[int, int]) -> None:
        self._next_offsets = dict(next_offsets)
        if self._consumer is not None:
            self._seek(self._consumer)

    def poll(self, max_records: int, timeout_seconds: float) -> dict[int, list[Record]]:
        try:
            if self._consumer is None:
                self._consumer = self._opened()
            batches = self._consumer.poll(timeout_ms=int(timeout_seconds * 1000), max_records=max_records)
        except Exception as error:
            if isinstance(error, KafkaError) and error.retriable:
                return {}
            # Polled once more, kafka-python 3.0.12 would look for ever for the rest of what it could not read.
            self.close()
            self._consumer = None
            places = ", ".join(f"{number} offset {offset}" for number, offset in sorted(self._next_offsets.items()))
            why = f"{type(error).__name__} {error}{_what_to_install(error)}"
            raise UnavailableError(f"{self._topic} cannot be read after partition {places}: {why}") from error
        found = {at.partition: records for at, records in batches.items()}
        for number, records in found.items():
            self._next_offsets[number] = records[-1].offset + 1
        return found

    def positions(self) -> dict[int, int]:
        if self._consumer is None:
            return dict(self._next_offsets)
        try:
            # The consumer's own: it passes over markers, which it never returns.
            return {at.partition: self._consumer.position(at, POSITION_SECONDS * 1000) for at in self._consumer.assignment()}
        except (KafkaError, OSError) as error:
            raise UnavailableError(f"the position in {self._topic} cannot be told: {type(error).__name__} {error}") from error

    def end_offsets(self) -> dict[int, int]:
        try:
            if self._consumer is None:
                self._consumer = self._opened()
            found = self._consumer.end_offsets(self._consumer.assignment())
        except (KafkaError, OSError) as error:
            raise UnavailableError(f"the end of {self._topic} cannot be read: {type(error).__name__} {error}") from error
        return {at.partition: end for at, end in sorted(found.items())}

    def close(self) -> None:
        if self._consumer is not None:
            with suppress(KafkaError):
                self._consumer.close(autocommit=False, timeout_ms=CLOSE_SECONDS * 1000)

    def _opened(self) -> Any:
        consumer = self._open()
        self._seek(consumer)
        return consumer

    def _seek(self, consumer: Any) -> None:
        wanted = {TopicPartition(self._topic, number): offset for number, offset in self._next_offsets.items()}
        consumer.assign(list(wanted))
        for partition, offset in wanted.items():
            consumer.seek(partition, offset)


class KafkaMembership:
    """A consumer that is a member of the group and never fetches: its partitions are paused from the moment they are its own.
    See `aidtrail.log.Membership`.

    A thread of its own polls it, once for every time that `owned` is asked: a rebalance needs polls that wait for the broker (with polls
    that do not wait, kafka-python 3.0.12 joins again and again), and the service's loop must not wait. A service that asks no more, because
    it hangs, leaves the group by itself after STALL_SECONDS.
    """

    def __init__(self, connection: Mapping[str, Any], group: str, topic: str) -> None:
        self._topic = topic
        self._group = group
        self._owned: frozenset[int] = frozenset()
        self._lock = Lock()
        self._to_commit: dict[int, int] = {}
        self._refusal: Exception | None = None
        """Why it is no member; until it is one again."""
        self._asked = Event()
        self._closing = False
        self._patience_seconds = EMPTY_SECONDS
        self._open = partial(
            KafkaConsumer,
            **connection,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # never used: a position is looked up, but nothing is read from it
            partition_assignment_strategy=(CooperativeStickyAssignor,),  # only partitions that move are revoked
            session_timeout_ms=8000,  # after a crash others take over in so many ms; longer than a short stall
            heartbeat_interval_ms=2000,
            max_poll_interval_ms=STALL_SECONDS * 1000,
            request_timeout_ms=REQUEST_SECONDS * 1000,
        )
        self._consumer: Any = self._open()
        self._subscribe()
        self._thread = Thread(target=self._run, name=f"membership of {group}", daemon=True)
        self._thread.start()

    def owned(self) -> frozenset[int]:
        self._asked.set()
        refusal = self._refusal
        if isinstance(refusal, AuthorizationError):
            raise UnavailableError(f"{self._topic}: this principal may not read the group {self._group}; allow it to Read the group")
        if refusal is not None:
            raise UnavailableError(f"cannot be a member of the group on {self._topic}: {type(refusal).__name__} {refusal}") from refusal
        return self._owned

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        with self._lock:
            self._to_commit.update(next_offsets)

    def close(self) -> None:
        self._closing = True
        self._asked.set()
        self._thread.join(3 * CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._closing:
            try:
                if self._refusal is not None:
                    self._leave()
                    self._consumer = self._open()
                    self._subscribe()
                self._publish(partial(self._consumer.commit_async, callback=self._committed))
                self._consumer.poll(timeout_ms=MEMBERSHIP_POLL_MS)
                self._owned = frozenset(at.partition for at in self._consumer.assignment())
                self._ask_again_if_left_out()
                self._refusal = None
            except Exception as error:  # whatever it is: without this thread `owned` would say for ever what it said last
                if not (isinstance(error, KafkaError) and error.retriable):
                    self._refusal = error
            self._asked.wait()
            self._asked.clear()
        with suppress(Exception):
            self._publish(partial(self._consumer.commit, timeout_ms=CLOSE_SECONDS * 1000))
        self._leave()

    def _subscribe(self) -> None:
        self._consumer.subscribe([self._topic], listener=_Pause(self._consumer))
        self._empty_since = time.monotonic()

    def _leave(self) -> None:
        with suppress(Exception):
            self._consumer.close(autocommit=False, timeout_ms=CLOSE_SECONDS * 1000)

    def _ask_again_if_left_out(self) -> None:
        """Join anew after a while without any partition. Either the partitions were divided by a leader that did not know the topic yet:
        with kafka-python 3.0.12 it gives nobody any, and leaves it at that. Or there are more members than partitions, and it changes
        nothing: so ever more rarely, since nobody can commit while the group divides them."""
        now = time.monotonic()
        if self._owned:
            self._empty_since, self._patience_seconds = now, EMPTY_SECONDS
        elif now - self._empty_since > self._patience_seconds:
            self._consumer.unsubscribe()
            self._subscribe()
            self._patience_seconds = min(2 * self._patience_seconds, MAX_EMPTY_SECONDS)

    def _publish(self, commit: Callable[[dict[Any, Any]], object]) -> None:
        """Of partitions that are another member's now, the other says how far they are."""
        with self._lock:
            offsets = {number: self._to_commit.pop(number) for number in self._owned & self._to_commit.keys()}
        if offsets:
            commit({TopicPartition(self._topic, number): OffsetAndMetadata(offset, "", -1) for number, offset in offsets.items()})

    def _committed(self, offsets: Mapping[Any, Any], response: object) -> None:
        """What the broker did not take is told again: where nothing more is read, nobody would tell it later."""
        if isinstance(response, Exception):
            with self._lock:
                self._to_commit = {at.partition: told.offset for at, told in offsets.items()} | self._to_commit


class _Pause(ConsumerRebalanceListener):  # type: ignore[misc] # kafka-python is not followed by the type checker
    """Pauses what a member is given, within the same poll: before anything of it could be fetched."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def on_partitions_assigned(self, assigned: Sequence[Any]) -> None:
        self._consumer.pause(*assigned)

    def on_partitions_revoked(self, revoked: Sequence[Any]) -> None:
        pass


def _what_to_install(error: BaseException) -> str:
    """Of batches that were compressed before the topic had its setting: brokers keep those as they are."""
    if not isinstance(error, UnsupportedCodecError):
        return ""
    return "; set compression.type=uncompressed ('aidtrail topics check'), and install lz4, python-snappy or zstandard for what is there"


def _is_denial(error: BaseException) -> bool:
    """Of a right that is missing; what an idempotent producer is denied comes as a plain KafkaError (kafka-python 3.0.12)."""
    return isinstance(error, AuthorizationError) or (isinstance(error, KafkaError) and "AuthorizationFailed" in str(error))


def _no_topic(topic: str, error_code: int) -> str:
    if for_code(error_code) is UnknownTopicOrPartitionError:
        return f"{topic}: there is no such topic, or this principal may not see it; run 'aidtrail topics create'"
    if for_code(error_code) is TopicAuthorizationFailedError:
        return f"{topic}: this principal may not even see it; 'aidtrail rights show' says what each may, 'aidtrail rights apply' allows it"
    return f"{topic}: {for_code(error_code).__name__}"


class _Once(logging.Filter):
    """Lets a message of one wording through once in `seconds`: kafka-python repeats some ten times a second during an outage.

    `cause` is why a broker could not be connected to, the most telling of several; nothing else tells. Nor does anything else tell of an
    outage to a service that waits for records: unless an error will (`told_by_raising`), a line of ours does.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.cause = ""
        self.told_by_raising = False
        self._told_at = -TELL_SECONDS
        self._seconds = seconds
        self._let_through: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        message = record.getMessage()
        if why := re.match(r"Bootstrap (?:connection|attempt) to \S+ failed: (.*) \(backoff|Connection failed: (.*)", message):
            cause = why[1] or why[2]
            if _telling(cause) >= _telling(self.cause):
                self.cause = cause
            self._tell(cause)
        wording = record.name + re.sub(r"[\d.]+", "#", message)  # the same but for a port, a time or a count
        now = time.monotonic()
        if now - self._let_through.get(wording, -self._seconds) < self._seconds:
            return False
        if len(self._let_through) > 1000:
            self._let_through.clear()
        self._let_through[wording] = now
        return True

    def _tell(self, cause: str) -> None:
        now = time.monotonic()
        if not self.told_by_raising and now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            logger.warning("a Kafka broker cannot be reached: %s; trying again", " ".join(cause.split())[:300])


def _telling(cause: str) -> int:
    """A login or a certificate that was refused says more than a connection that was lost, as that of the last attempt is when the time is
    up; and this more than that a request got no answer."""
    if not cause or "RequestTimedOut" in cause:
        return 0
    return 2 if "Sasl" in cause or "[SSL" in cause else 1


_once = _Once(30.0)


def quiet_kafka_loggers() -> None:
    """Limit the rate of every logger of kafka-python. A filter works only on the logger that it stands on, hence on each."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("kafka."):
            logging.getLogger(name).addFilter(_once)  # adding it again does nothing
