"""What is particular to the log in PostgreSQL: other processes, connections that are cut, order in time."""

import multiprocessing
from threading import Thread

import psycopg
import pytest

from aidtrail.errors import AppendUnknownError, UnavailableError
from aidtrail.log import FETCH_BYTES, Draft, Record, postgres
from aidtrail.log.postgres import PostgresLog
from tests.waiting import eventually


def cut_connections(database_url: str, query: str = "%") -> int:
    """Cut every other connection to the database whose last query is like this; returns their number."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        cut = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE %s",
            (query,),
        )
        return len(cut.fetchall())


def append_from_another_process(database_url: str, topic: str, name: str) -> None:
    log = PostgresLog(database_url)
    appender = log.appender()
    for number in range(20):
        appender.append([Draft(topic, part, b"D-1", f"{name}/{number}".encode()) for part in (1, 0)])
    appender.close()
    log.close()


def test_processes_append_at_once_without_gaps_and_a_reader_here_follows_them(database_url: str, topic: str) -> None:
    log = PostgresLog(database_url)
    log.create_topic(topic, 2)
    reader = log.reader(topic)
    reader.assign({0: 0, 1: 0})
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=append_from_another_process, args=(database_url, topic, name)) for name in "ab"]
    for process in processes:
        process.start()
    seen: dict[int, list[Record]] = {0: [], 1: []}

    def all_read() -> bool:
        for part, batch in reader.poll(1000, 0.5).items():
            seen[part].extend(batch)
        return all(len(records) == 40 for records in seen.values())

    assert eventually(all_read)
    for process in processes:
        process.join()
    reader.close()
    log.close()
    for records in seen.values():
        assert [record.offset for record in records] == list(range(40))
        assert [record.timestamp for record in records] == sorted(record.timestamp for record in records)
        for name in (b"a", b"b"):
            assert [r.value for r in records if (r.value or b"").startswith(name)] == [b"%s/%d" % (name, number) for number in range(20)]


def test_openers_at_once_do_not_fight_over_the_tables(database_url: str) -> None:
    failures: list[Exception] = []

    def open_and_close() -> None:
        try:
            PostgresLog(database_url).close()
        except Exception as error:
            failures.append(error)

    threads = [Thread(target=open_and_close) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


def test_a_server_that_cannot_be_reached_is_one_clear_line() -> None:
    with pytest.raises(UnavailableError, match=r"PostgreSQL cannot be reached: .*Check AIDTRAIL_LOG") as raised:
        PostgresLog("postgresql://nobody@127.0.0.1:1/nothing")

    assert "\n" not in str(raised.value)


def test_a_reader_and_a_log_connect_again_after_their_connections_were_cut(database_url: str, topic: str) -> None:
    log = PostgresLog(database_url)
    log.create_topic(topic, 1)
    reader = log.reader(topic)
    reader.assign({0: 0})
    reader.poll(10, 0)
    cut_connections(database_url)
    polled_after_cut = reader.poll(10, 0)
    with pytest.raises(UnavailableError):
        log.end_offsets(topic)
    appender = log.appender()
    appender.append([Draft(topic, 0, b"D-1", b"later")])
    values: list[bytes | None] = []

    def read() -> bool:
        values.extend(record.value for record in reader.poll(10, 0.5).get(0, []))
        return values == [b"later"]

    assert eventually(read)
    assert polled_after_cut == {}
    assert log.end_offsets(topic) == {0: 1}
    for part in (appender, reader, log):
        part.close()


def test_a_connection_that_is_lost_as_soon_as_it_is_made_is_an_outage_to_its_reader(
    database_url: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = PostgresLog(database_url)
    log.create_topic(topic, 1)
    reader = log.reader(topic)
    reader.assign({0: 0})
    reader._drop()
    lost = postgres._connect(database_url)
    lost.close()
    with monkeypatch.context() as patch:
        patch.setattr(postgres, "_connect", lambda _: lost)

        with pytest.raises(UnavailableError):
            reader.end_offsets()
        assert reader.poll(10, 0.0) == {}

    assert reader.poll(10, 0.0) == {}
    assert reader.end_offsets() == {0: 0}
    reader.close()
    log.close()


def test_an_append_whose_connection_is_cut_is_unknown(database_url: str, topic: str) -> None:
    log = PostgresLog(database_url)
    log.create_topic(topic, 1)
    appender = log.appender()
    appender.append([Draft(topic, 0, b"D-1", b"before")])
    cut_connections(database_url)
    with pytest.raises(AppendUnknownError):
        appender.append([Draft(topic, 0, b"D-1", b"unknown")])
    with pytest.raises(AppendUnknownError, match="open another"):
        appender.append([Draft(topic, 0, b"D-1", b"never")])
    appender.close()
    log.close()


def test_records_stay_invisible_until_those_before_them_are_committed(database_url: str, topic: str) -> None:
    """An append that has not committed yet holds its partition: a later one waits, and other partitions do not."""
    log = PostgresLog(database_url)
    log.create_topic(topic, 2)
    reader = log.reader(topic)
    reader.assign({0: 0})
    appended: list[int] = []
    later = log.appender()
    with psycopg.connect(database_url) as earlier:
        earlier.execute("UPDATE log.partitions SET next_offset = next_offset + 1 WHERE topic = %s AND partition = 0", (topic,))
        waiting = Thread(target=lambda: appended.extend(place.offset for place in later.append([Draft(topic, 0, b"D-1", b"later")])))
        waiting.start()
        other = log.appender()
        beside = other.append([Draft(topic, 1, b"D-1", b"beside")])
        with psycopg.connect(database_url, autocommit=True) as watch:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            assert eventually(lambda: (watch.execute(query).fetchone() or (0,))[0] == 1)
        seen_meanwhile = reader.poll(10, 0)
        earlier.execute(
            'INSERT INTO log.records (topic, partition, "offset", appended_at_ms, key, value) VALUES (%s, 0, 0, 0, %s, %s)',
            (topic, b"D-1", b"earlier"),
        )
    waiting.join()
    records = reader.poll(10, 5)[0]

    assert [place.offset for place in beside] == [0]
    assert seen_meanwhile == {}
    assert appended == [1]
    assert [record.value for record in records] == [b"earlier", b"later"]
    for part in (later, other, reader, log):
        part.close()


def test_append_times_never_step_back_in_a_partition(database_url: str, topic: str) -> None:
    log = PostgresLog(database_url)
    log.create_topic(topic, 1)
    appender = log.appender()
    with psycopg.connect(database_url, autocommit=True) as connection:
        ahead = 4_000_000_000_000  # the server's clock was set back since
        connection.execute("UPDATE log.partitions SET last_timestamp = %s WHERE topic = %s", (ahead, topic))
    appended = appender.append([Draft(topic, 0, b"D-1", b"value")])

    assert appended[0].timestamp == ahead
    appender.close()
    log.close()


def test_a_member_whose_connection_is_cut_claims_nothing_and_others_take_over(database_url: str, topic: str) -> None:
    log = PostgresLog(database_url)
    log.create_topic(topic, 4)
    first, second = log.join("group", topic), log.join("group", topic)

    def divided() -> bool:
        mine, theirs = first.owned(), second.owned()
        return len(mine) == len(theirs) == 2 and not mine & theirs

    assert eventually(divided)
    cut = cut_connections(database_url)
    assert eventually(lambda: first.owned() == frozenset())
    assert eventually(divided)

    assert cut == 3
    first.close()
    second.close()
    log.close()


def test_a_poll_brings_no_more_bytes_than_a_fetch_and_all_comes_in_order(database_url: str, topic: str) -> None:
    log = PostgresLog(database_url)
    log.create_topic(topic, 2)
    size = 1 << 20
    appender = log.appender()
    for number in range(20):
        appender.append([Draft(topic, part, b"D-1", b"%04d" % number + bytes(size)) for part in range(2)])
    appender.append([Draft(topic, 0, b"D-1", bytes(FETCH_BYTES + size)), Draft(topic, 0, b"D-1", b"last")])
    reader = log.reader(topic)
    reader.assign({0: 0, 1: 0})
    seen: dict[int, list[Record]] = {0: [], 1: []}
    polled = []
    while batches := reader.poll(20_000, 0.0):
        polled.append([len(record.value or b"") for batch in batches.values() for record in batch])
        for part, batch in batches.items():
            seen[part].extend(batch)
    for part in (reader, appender, log):
        part.close()

    assert [record.offset for record in seen[0]] == list(range(22))
    assert [(record.value or b"")[:4] for record in seen[1]] == [b"%04d" % number for number in range(20)]
    assert all(sum(sizes) - sizes[-1] < FETCH_BYTES for sizes in polled)
    assert len(polled) >= 6
