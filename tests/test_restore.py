"""The views are a cache: deleted with their whole server they come back from Kafka; and a release can be gone back to."""

import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from aidtrail import service
from aidtrail.audit.rebuild import rebuild
from aidtrail.errors import UnavailableError, UsageError
from aidtrail.log.kafka import KafkaLog
from aidtrail.log.memory import MemoryLog
from aidtrail.projector import Projector
from aidtrail.views import schema
from tests.acts import START, Acts
from tests.brokers import free_ports
from tests.databases import Server
from tests.pipeline import TOPICS
from tests.pipeline import Pipeline as InProcess
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


def test_views_that_are_ahead_of_the_log_are_left_alone_and_the_projector_ends_with_a_line_that_says_so(
    database_url: str, tmp_path: Path
) -> None:
    """They are of another log, or the log was restored from before: what comes at their positions is not what comes next."""
    pipeline = InProcess(database_url, tmp_path)
    pipeline.submit([Acts("KRCS-2026-0001", START).announced()])
    pipeline.close()
    before = rows(database_url)
    another = MemoryLog()
    TOPICS.create(another, 4)
    projector = Projector(another, TOPICS, database_url, group="projector")

    with pytest.raises(
        UnavailableError, match=r"ahead of the log, partition \d is at 1 of 0: they belong to another log, or it was restored"
    ):
        service.run(projector, threading.Event())

    assert rows(database_url) == before


def test_views_of_another_release_are_compared_in_what_both_have_and_can_be_gone_back_to(database_url: str, tmp_path: Path) -> None:
    running, acts = InProcess(database_url, tmp_path), Acts("KRCS-2026-0001", START)
    running.submit([acts.announced(), acts.confirmed()])
    with schema.connect(database_url) as connection:
        connection.autocommit = True
        before = schema.live_build(connection)
        assert before is not None
        # As the release before made it: without the newest column. Whoever began the build has no digest either.
        connection.execute("ALTER TABLE views_1.donations DROP COLUMN rows_sha256 CASCADE")
        connection.execute("UPDATE views_1.positions SET rows_sum = NULL")
        found = rebuild(running.log, TOPICS, database_url)
        for build in (found.build, before):
            schema.go_live(connection, build)
            assert connection.execute("SELECT version FROM live.donations").fetchall() == [(2,)]
    running.close()

    assert (found.total_differences, found.uncompared) == (0, ["donations.rows_sha256"])


def test_the_live_build_is_migrated_under_its_views(database_url: str) -> None:
    with schema.connect(database_url) as connection:
        connection.autocommit = True
        build = schema.prepare(connection, 1)
        # As the release before left it.
        connection.execute("DROP VIEW live.amounts")
        connection.execute("ALTER TABLE views_1.amounts ALTER COLUMN settled TYPE numeric(19, 4)")
        connection.execute("CREATE VIEW live.amounts AS SELECT * FROM views_1.amounts")
        connection.execute("DELETE FROM views_1.migrations WHERE number = 3")
        connection.execute("INSERT INTO views_1.amounts VALUES ('A', 'KWD', 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)")

        assert schema.prepare(connection, 1) == build
        connection.execute("UPDATE views_1.amounts SET settled = settled + 1e15")
        assert connection.execute("SELECT settled FROM live.amounts").fetchall() == [(10**15 + 1,)]
        assert schema.behind(connection, build, "build") == []


def test_a_release_goes_on_with_a_newer_control_schema_but_not_with_a_newer_build(database_url: str) -> None:
    with schema.connect(database_url) as connection:
        connection.autocommit = True
        build = schema.prepare(connection, 1)
        connection.execute("INSERT INTO aidtrail.migrations VALUES (9999, '9999_later', '')")

        assert schema.prepare(connection, 1) == build
        connection.execute("INSERT INTO views_1.migrations VALUES (9999, '9999_later', '')")
        with pytest.raises(UsageError, match="9999_later is newer than this release"):
            schema.prepare(connection, 1)
