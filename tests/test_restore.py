"""The views are a cache: deleted with their whole server, they are built again from Kafka, equal in every row."""

from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from aidtrail.log.kafka import KafkaLog
from aidtrail.views import schema
from tests.brokers import free_ports
from tests.databases import Server
from tests.test_faults import Pipeline
from tests.waiting import eventually

DONATIONS = 10


def rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every table of what is live, in an order of its own. Fences say who wrote, not what."""
    with psycopg.connect(url) as connection:
        statement = sql.SQL("SELECT * FROM {} AS t ORDER BY t::text")
        found = {table: connection.execute(statement.format(sql.Identifier("live", table))).fetchall() for table in schema.TABLES}
        found["positions"] = connection.execute("SELECT partition, next_offset FROM live.positions ORDER BY 1").fetchall()
    return found


def commit_all(log: KafkaLog, group: str, topic: str) -> None:
    """Let the group's offsets say that all was read: nobody must believe them."""
    ends = log.end_offsets(topic)
    membership = log.join(group, topic)
    assert eventually(lambda: membership.owned() == ends.keys())
    membership.commit(ends)
    assert eventually(lambda: log.committed(group, topic) == ends)
    membership.close()


def test_a_deleted_postgresql_is_rebuilt_from_kafka_equal_in_every_row(kafka_broker: str, tmp_path: Path) -> None:
    prefix = f"restore-{free_ports(1)[0]}"
    with Server() as server:
        pipeline = Pipeline(kafka_broker, server.url, tmp_path, prefix)
        submitted = pipeline.submit(DONATIONS)
        pipeline.rule()
        pipeline.project()
        before = rows(server.url)
    commit_all(pipeline.log, f"{prefix}-projector", pipeline.topics.recorded)

    with Server() as server:  # another folder: nothing of the first is left
        pipeline.database = server.url
        pipeline.project()
        after = rows(server.url)
    pipeline.log.close()

    assert len(before["entries"]) == submitted
    assert {table: found for table, found in after.items() if found != before[table]} == {}
    print(f"{submitted} entries, {sum(map(len, after.values()))} rows built again on an empty server, 0 differences")
