"""Records that brokers store and kafka-python takes for corrupt: each is read, and has its outcome."""

from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka.record import MemoryRecords, MemoryRecordsBuilder
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import calc_crc32c

from aidtrail import codec
from aidtrail.chain import read_entry
from aidtrail.domain.events import SubmissionRefused
from aidtrail.ledger import Ledger
from aidtrail.log import kafka_records, up_to
from aidtrail.log.kafka import KafkaLog
from aidtrail.producer import Producer
from aidtrail.service import drain
from aidtrail.topics import Topics
from tests.acts import Acts, registry_events

DONATION = "KRCS-2026-0001"


class NotUtf8(str):
    """A header's name as kafka-python encodes it."""

    def encode(self, *_: object) -> bytes:
        return b"z\xff\xfe"


def batch_of(*headers: tuple[str, bytes | None], attributes: int = 0) -> DefaultRecordBatch:
    """Three records of which the second has these headers and attributes; the checksum is right."""
    builder = MemoryRecordsBuilder(2, 0, 1 << 16)
    sizes = []
    for number in range(3):
        sizes.append(builder._builder.size())
        builder.append(1000 + number, None if number == 0 else b"key", b"value %d" % number, list(headers) if number == 1 else [])
    builder.close()
    data = bytearray(builder.buffer())
    data[sizes[1] + 1] = attributes  # after one byte that says how long the record is
    data[DefaultRecordBatch.CRC_OFFSET : DefaultRecordBatch.ATTRIBUTES_OFFSET] = calc_crc32c(
        memoryview(data)[DefaultRecordBatch.ATTRIBUTES_OFFSET :]
    ).to_bytes(4, "big")
    (batch,) = MemoryRecords(bytes(data))
    assert batch.validate_crc()
    return batch


@pytest.mark.parametrize("attributes", [0, 0x7F, 0x80, 0xFF])
@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ((), []),
        ((("traceparent", b"00-1"), ("empty", b""), ("none", None)), [("traceparent", b"00-1"), ("empty", b""), ("none", None)]),
        (((NotUtf8("z"), b"value"),), [("z\ufffd\ufffd", b"value")]),
    ],
    ids=["no headers", "headers", "not UTF-8"],
)
def test_key_value_and_headers_are_read_whatever_attributes_and_names_are(
    attributes: int, headers: tuple[tuple[str, bytes | None], ...], found: list[tuple[str, bytes | None]]
) -> None:
    records = list(batch_of(*headers, attributes=attributes))

    assert [(record.offset, record.timestamp, record.key, record.value, record.headers) for record in records] == [
        (0, 1000, None, b"value 0", []),
        (1, 1001, b"key", b"value 1", found),
        (2, 1002, b"key", b"value 2", []),
    ]


def test_what_kafka_python_reads_by_itself_is_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [(r.size_in_bytes, r.offset, r.timestamp, r.timestamp_type, r.key, r.value, r.headers) for r in batch_of(("name", b"value"))]
    monkeypatch.setattr(DefaultRecordBatch, "_read_msg", kafka_records.THEIRS)
    theirs = [(r.size_in_bytes, r.offset, r.timestamp, r.timestamp_type, r.key, r.value, r.headers) for r in batch_of(("name", b"value"))]

    assert ours == theirs


def test_a_record_with_such_a_header_has_its_outcome_and_the_partition_goes_on(kafka_broker: str, tmp_path: Path) -> None:
    log, topics = KafkaLog([kafka_broker]), Topics.of("unreadable")
    topics.create(log, 1)
    hostile = KafkaProducer(bootstrap_servers=kafka_broker)
    header = [(NotUtf8("z"), b"value")]
    acts = Acts(DONATION)
    lawful = codec.encode(acts.announced())
    with Producer(log, topics) as producer:
        producer.register(registry_events())
        for value in (b"x", lawful):
            hostile.send(topics.submitted, key=DONATION.encode(), value=value, headers=header, partition=0).get(20)
        hostile.send(topics.recorded, key=DONATION.encode(), value=b"x", headers=header, partition=0).get(20)
        producer.submit([acts.confirmed()])
    hostile.close()
    ledger = Ledger(log, topics, tmp_path, group="unreadable")
    drain(ledger, lambda: log.end_offsets(topics.recorded) == {0: 4})
    ledger.close()
    reader = log.reader(topics.recorded)
    reader.assign({0: 0})
    batches = list(up_to(reader, topics.recorded, 0, 4, max_records=10, patience_seconds=20))
    entries = [read_entry(record) for batch in batches for record in batch]
    reader.close()
    log.close()

    assert [type(entry.event).__name__ for entry in entries] == ["NoneType", "SubmissionRefused", "PledgeAnnounced", "PledgeConfirmed"]
    refused = entries[1].event
    assert isinstance(refused, SubmissionRefused)
    assert refused.reason == "undecodable"
