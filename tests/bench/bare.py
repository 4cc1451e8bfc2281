"""The baseline: the least that anybody would write. Reads `recorded` with kafka-python, decodes with fastavro, keeps the newest status of
each donation, writes it by binary COPY and one upsert a batch. No history, no chain, no fences, no rules, no strict decoding."""

import io
from typing import Any

import fastavro
import psycopg
from kafka import KafkaConsumer, TopicPartition

from aidtrail import contract


def project(bootstrap: str, topic: str, conninfo: str, partitions: list[int], total: int, batch: int = 5000) -> None:
    """Read `total` records of these partitions into the table bare_status."""
    schemas = {entry.id: (entry.event, fastavro.parse_schema(entry.schema)) for entry in contract.published().values()}
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap.split(","), enable_auto_commit=False, auto_offset_reset="earliest", max_partition_fetch_bytes=1 << 20
    )
    consumer.assign([TopicPartition(topic, partition) for partition in partitions])
    with psycopg.connect(conninfo) as connection:
        columns = "donation_id text, version bigint, event text, at timestamptz"
        connection.execute(f"CREATE TEMPORARY TABLE new_status ({columns}) ON COMMIT DELETE ROWS")
        read = 0
        while read < total:
            newest: dict[str, tuple[Any, ...]] = {}
            for records in consumer.poll(1000, max_records=batch).values():
                for record in records:
                    event, schema = schemas[int.from_bytes(record.value[1:5], "big")]
                    meta = fastavro.schemaless_reader(io.BytesIO(record.value[5:]), schema, None)["meta"]
                    newest[meta["donation_id"]] = (meta["donation_id"], meta["ledger"]["version"], event, meta["ledger"]["recorded_at"])
                    read += 1
            with connection.cursor() as cursor:
                with cursor.copy("COPY new_status FROM STDIN (FORMAT binary)") as copy:
                    copy.set_types(["text", "int8", "text", "timestamptz"])
                    for row in newest.values():
                        copy.write_row(row)
                cursor.execute(
                    "INSERT INTO bare_status SELECT * FROM new_status ON CONFLICT (donation_id) DO UPDATE"
                    " SET version = EXCLUDED.version, event = EXCLUDED.event, at = EXCLUDED.at"
                )
            connection.commit()
    consumer.close()


def prepare(conninfo: str) -> None:
    with psycopg.connect(conninfo) as connection:
        connection.execute("DROP TABLE IF EXISTS bare_status")
        connection.execute("CREATE TABLE bare_status (donation_id text PRIMARY KEY, version bigint, event text, at timestamptz)")
