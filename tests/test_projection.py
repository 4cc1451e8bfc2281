"""What a projector makes of entries that somebody forged, and of submissions that went astray: as the ledger does, and it goes on."""

import random
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
from psycopg import sql

from aidtrail import codec
from aidtrail.audit.rebuild import rebuild
from aidtrail.audit.replay import replay
from aidtrail.chain import Head, read_entry
from aidtrail.domain import events as e
from aidtrail.domain.rules import RULES_VERSION
from aidtrail.errors import UnavailableError
from aidtrail.ledger import Ledger
from aidtrail.log import Draft, partition_of
from aidtrail.log.memory import MemoryLog
from aidtrail.producer import Producer
from aidtrail.projector import Projector, unpark
from aidtrail.service import drain
from aidtrail.views import schema
from tests.acts import Acts, money, registry_events
from tests.pipeline import TOPICS, Pipeline
from tests.replaying import forge
from tests.waiting import eventually

PARTITIONS = 2
NAMES = [f"KRCS-2026-{number:04d}" for number in range(60)]
HERE, THERE = ([name for name in NAMES if partition_of(name.encode(), PARTITIONS) == home] for home in range(PARTITIONS))


def test_a_projector_that_is_idle_goes_on_in_the_build_that_goes_live(tmp_path: Path, database_url: str) -> None:
    """The build stands where it was made: nobody would see what came since, until more comes."""
    pipeline = Pipeline(database_url, tmp_path, partitions=1)
    pipeline.submit([Acts(NAMES[0]).announced()])
    compared = rebuild(pipeline.log, TOPICS, database_url)
    pipeline.submit([Acts(NAMES[1]).announced()])
    with schema.connect(database_url) as connection:
        schema.go_live(connection, compared.build)

    for _ in range(3):
        pipeline._projector.turn()
    pipeline.close()

    assert outcomes(database_url, 0) == [("admitted", NAMES[0]), ("admitted", NAMES[1])]


def test_a_build_goes_live_while_somebody_reads_one_table_after_the_other(tmp_path: Path, database_url: str) -> None:
    """He holds what goes live waits for, and asks for what it holds."""
    pipeline = Pipeline(database_url, tmp_path, partitions=1)
    pipeline.close()
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DROP VIEW%'"
    with schema.connect(database_url) as control, psycopg.connect(database_url) as reading:
        control.autocommit = True
        build = schema.new_build(control, 1, "rebuild")
        control.execute("SET deadlock_timeout TO '3s'")
        reading.execute("SET deadlock_timeout TO '30s'")  # the one that looks finds it, and gives way
        reading.execute("SELECT * FROM live.donations")
        going_live = Thread(target=schema.go_live, args=(control, build))
        going_live.start()
        assert eventually(lambda: rows(database_url, waits) == [(1,)])
        reading.execute("SELECT * FROM live.entries")
        reading.commit()
        going_live.join()

        assert schema.live_build(control) == build


def test_a_projector_that_is_idle_tells_an_outage_of_the_database(tmp_path: Path, database_url: str) -> None:
    pipeline = Pipeline(database_url, tmp_path, partitions=1)
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    rows(database_url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")  # noqa: S608

    with pytest.raises(UnavailableError, match="PostgreSQL went away"):
        pipeline._projector.turn()
    pipeline.close()


def test_a_database_that_takes_no_writes_for_now_is_an_outage(tmp_path: Path, database_url: str) -> None:
    """So it is at a server that is no longer the first, or not yet."""
    pipeline = Pipeline(database_url, tmp_path, partitions=1)
    pipeline._projector.reset()
    with psycopg.connect(database_url, autocommit=True) as connection:
        read_only = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only TO {}")
        name = sql.Identifier(connection.info.dbname)
        connection.execute(read_only.format(name, sql.SQL("on")))
        with pytest.raises(UnavailableError, match="read-only transaction"):
            pipeline._projector.turn()
        pipeline._projector.reset()
        connection.execute("SET default_transaction_read_only TO off")
        connection.execute(read_only.format(name, sql.SQL("off")))

    pipeline.submit([Acts(NAMES[0]).announced()])
    pipeline.close()

    assert outcomes(database_url, 0) == [("admitted", NAMES[0])]


def head_of(log: MemoryLog, donation_id: str) -> Head:
    records = log._topics[TOPICS.recorded][partition_of(donation_id.encode(), PARTITIONS)]
    *_, entry = (entry for record in records if (entry := read_entry(record)).donation_id == donation_id and not entry.refused)
    assert entry.stamp is not None
    return Head(entry.stamp.version, codec.sha256(entry.value))


def rows(database: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(query.encode()).fetchall()


def outcomes(database: str, partition: int) -> list[tuple[Any, ...]]:
    """Of the entries that count."""
    query = f"""SELECT outcome, donation_id FROM live.entries WHERE partition = {partition} AND outcome <> 'void' ORDER BY "offset\""""  # noqa: S608
    return rows(database, query)


def voids(database: str) -> list[tuple[Any, ...]]:
    return rows(database, "SELECT partition, \"offset\", void_reason FROM live.entries WHERE outcome = 'void' ORDER BY 1, 2")


def test_a_projector_that_gains_a_donations_home_does_not_go_on_from_what_it_met_elsewhere(tmp_path: Path, database_url: str) -> None:
    """A producer with another partitioner is refused in a partition of the first projector; the donation lives in one of the second. When
    that stops, the first must not take the donation's head for what it was when it met the refusal."""
    log = MemoryLog()
    TOPICS.create(log, PARTITIONS)
    ledger = Ledger(log, TOPICS, tmp_path, group="ledger")
    first, second = (Projector(log, TOPICS, database_url, group="projector") for _ in range(2))
    acts = Acts(THERE[0])

    def submit(*events: e.Event) -> None:
        with Producer(log, TOPICS) as producer:
            producer.submit(events)

    def catch_up(*projectors: Projector) -> None:
        drain(ledger, lambda: log.end_offsets(TOPICS.recorded) == log.end_offsets(TOPICS.submitted))
        for projector in projectors:
            drain(projector, lambda: True)

    with Producer(log, TOPICS) as producer:
        producer.register(registry_events())
    submit(acts.announced())
    catch_up(first, second)
    astray = codec.encode(acts.confirmed(by="krcs-officer-3"))
    log.append([Draft(TOPICS.submitted, 0, THERE[0].encode(), astray)])
    catch_up(first, second)
    submit(acts.confirmed())
    catch_up(first, second)
    owned = (first._mine, second._mine)
    second.close()
    submit(acts.amended(amounts=(money("1100"),)), Acts(THERE[1]).announced())
    catch_up(first)
    compared = rebuild(log, TOPICS, database_url)
    first.close()
    ledger.close()

    assert owned == ({0}, {1})
    assert outcomes(database_url, 0) == [("refused", THERE[0])]
    assert outcomes(database_url, 1) == [("admitted", name) for name in (THERE[0], THERE[0], THERE[0], THERE[1])]
    assert rows(database_url, f"SELECT version FROM live.donations WHERE donation_id = '{THERE[0]}'") == [(3,)]  # noqa: S608
    assert compared.total_differences == 0


def test_an_event_of_a_donation_elsewhere_than_at_home_is_void_for_ledger_projector_and_replay(tmp_path: Path, database_url: str) -> None:
    """Whatever it chains to: the head that the donation has at home, or none."""
    pipeline = Pipeline(database_url, tmp_path, partitions=PARTITIONS)
    assert isinstance(pipeline.log, MemoryLog)
    here, there = Acts(HERE[0]), Acts(THERE[0])
    pipeline.submit([here.announced(), there.announced()])
    offsets = [forge(pipeline.log, there.withdrawn(), 0, head_of(pipeline.log, THERE[0])), forge(pipeline.log, there.withdrawn(), 0)]
    pipeline.catch_up_views()
    pipeline.submit([here.confirmed(), there.confirmed(), Acts(HERE[1]).announced()])
    found = replay(pipeline.log, TOPICS)
    pipeline.close()

    assert voids(database_url) == [(0, offset, "the donation belongs to another partition") for offset in offsets]
    assert outcomes(database_url, 0) == [("admitted", HERE[0]), ("admitted", HERE[0]), ("admitted", HERE[1])]
    assert outcomes(database_url, 1) == [("admitted", THERE[0]), ("admitted", THERE[0])]
    assert rows(database_url, f"SELECT pledge FROM live.donations WHERE donation_id = '{THERE[0]}'") == [("committed",)]  # noqa: S608
    assert (found.differing, found.void) == (0, {"the donation belongs to another partition": 2})


def test_an_event_of_a_donation_without_a_name_is_no_event_of_the_one_that_undecodable_submissions_are_put_to(
    tmp_path: Path, database_url: str
) -> None:
    """Ledger, projector and replay must take it alike: here it chains, and counts."""
    pipeline = Pipeline(database_url, tmp_path, partitions=1)
    assert isinstance(pipeline.log, MemoryLog)
    pipeline.submit([Acts("UNDECODABLE").announced()])
    nameless = Acts("KRCS-2026-0002").announced()
    meta = nameless.meta.model_copy(update={"donation_id": ""})
    forge(pipeline.log, nameless.model_copy(update={"meta": meta}), 0, rules=RULES_VERSION)
    pipeline.submit([Acts("KRCS-2026-0003").announced(), Acts("KRCS-2026-0004").announced()])
    found = replay(pipeline.log, TOPICS)
    pipeline.close()

    assert outcomes(database_url, 0) == [("admitted", "UNDECODABLE"), ("admitted", ""), ("admitted", "KRCS-2026-0004")]
    assert voids(database_url) == [(0, 2, "its submission was answered before"), (0, 3, "it does not follow the partition's last outcome")]
    assert found.void == {reason: 1 for _, _, reason in voids(database_url)}
    assert [difference[2:5] for difference in found.differences] == [(1, "", "meta.event_id")]


UNFORESEEN = {
    "no status": [Acts(HERE[0]).instructed(approval_id="NOPE"), Acts(HERE[0]).withdrawn()],
    "no room in an index": [
        Acts(HERE[0]).requested("A2", amount="1").model_copy(update={"approval_id": random.Random(1).randbytes(6000).hex()})
    ],
}
"""What no rule admits, and the fold takes."""


@pytest.mark.parametrize("what", UNFORESEEN)
def test_a_donation_whose_forged_event_leaves_it_without_a_status_is_parked_there_and_the_others_go_on(
    what: str, tmp_path: Path, database_url: str
) -> None:
    """Whatever the batches: a rebuild, which has all in one, is equal."""
    pipeline = Pipeline(database_url, tmp_path, partitions=PARTITIONS)
    assert isinstance(pipeline.log, MemoryLog)
    acts = Acts(HERE[0])
    pipeline.submit([acts.announced(), acts.requested(amount="1000"), acts.rejected()])
    offsets = [forge(pipeline.log, event, 0) for event in UNFORESEEN[what]]
    pipeline.catch_up_views()
    forge(pipeline.log, acts.amended(reason="after it"), 0)
    pipeline.catch_up_views()
    pipeline.submit([Acts(HERE[number]).announced() for number in range(1, 5)])
    compared = rebuild(pipeline.log, TOPICS, database_url)
    why_not = unpark(database_url)
    pipeline.close()

    assert rows(database_url, 'SELECT donation_id, "offset" FROM live.parked') == [(HERE[0], offsets[0])]
    assert rows(database_url, f"SELECT version, headline FROM live.donations WHERE donation_id = '{HERE[0]}'") == [(3, "not_approved")]  # noqa: S608
    assert rows(database_url, "SELECT count(*) FROM live.donations") > [(1,)]
    assert (compared.total_differences, compared.sha256) == (0, compared.live_sha256)
    assert list(why_not) == [HERE[0]]
    assert why_not[HERE[0]] is not None


def test_a_value_that_postgresql_cannot_hold_is_no_outage() -> None:
    with pytest.raises(psycopg.errors.ProgramLimitExceeded), schema.outages():
        raise psycopg.errors.ProgramLimitExceeded("index row requires 12032 bytes, maximum size is 8191")


def test_a_projector_whose_build_is_dropped_while_it_is_idle_goes_on_in_the_one_that_is_live(tmp_path: Path, database_url: str) -> None:
    pipeline = Pipeline(database_url, tmp_path, partitions=1)
    pipeline.submit([Acts(NAMES[0]).announced()])
    compared = rebuild(pipeline.log, TOPICS, database_url)
    with schema.connect(database_url) as connection:
        schema.go_live(connection, compared.build)
        schema.drop_build(connection, compared.live)

    pipeline.submit([Acts(NAMES[1]).announced()])
    pipeline.close()

    assert outcomes(database_url, 0) == [("admitted", NAMES[0]), ("admitted", NAMES[1])]
