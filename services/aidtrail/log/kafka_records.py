"""How a record of Kafka's is read, in place of kafka-python's own way, for which some that brokers store are corrupt.

kafka-python 3.0.12 wants the names of headers to be UTF-8, and reads the byte of attributes, of which no bit has a meaning, as if it could
go on in the next. Brokers check neither, so whoever may write could stop every reader at his record. Here key, value and headers are what
the JVM's clients find; in a name that is not UTF-8 what is wrong becomes U+FFFD, as with them.
"""

from typing import Any

from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint


def read_record(batch: Any) -> Any:
    """The record at which a batch stands; the batch then stands after it. https://kafka.apache.org/documentation/#record"""
    buffer = batch._buffer
    length, at = decode_varint(buffer, batch._pos)
    end = at + length
    timestamp_delta, at = decode_varint(buffer, at + 1)  # one byte of attributes
    offset_delta, at = decode_varint(buffer, at)
    key, at = _bytes(buffer, at)
    value, at = _bytes(buffer, at)
    count, at = decode_varint(buffer, at)
    headers = []
    for _ in range(count):
        name, at = _bytes(buffer, at)
        content, at = _bytes(buffer, at)
        headers.append(((name or b"").decode("utf-8", "replace"), content))
    if at != end:
        raise CorruptRecordError(f"a record of {length} bytes ends {at - end} bytes after them")
    batch._pos = at
    kind = batch.timestamp_type
    timestamp = batch.max_timestamp if kind == batch.LOG_APPEND_TIME else batch.first_timestamp + timestamp_delta
    return DefaultRecord(length, batch.base_offset + offset_delta, timestamp, kind, key, value, headers)


def _bytes(buffer: bytearray, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(buffer, at)
    return (None, at) if length < 0 else (bytes(buffer[at : at + length]), at + length)


THEIRS = DefaultRecordBatch._read_msg


def install() -> None:
    """For every consumer of this process. Those that read committed records alone would need markers too; Aidtrail has none."""
    DefaultRecordBatch._read_msg = read_record
