"""What every log promises, whatever keeps it: one suite for memory, PostgreSQL and Kafka."""

import time
from collections.abc import Iterator
from threading import Thread

import pytest

from aidtrail.errors import AppendUnknownError, UnavailableError
from aidtrail.log import Appended, Appender, Draft, Log, Reader, Record, partition_of, up_to
from tests.waiting import eventually

PARTITIONS = 3


@pytest.fixture
def topic(log: Log, topic: str) -> str:
    """A topic that is there."""
    log.create_topic(topic, PARTITIONS)
    return topic


@pytest.fixture
def appender(log: Log) -> Iterator[Appender]:
    opened = log.appender()
    yield opened
    opened.close()


@pytest.fixture
def reader(log: Log, topic: str) -> Iterator[Reader]:
    opened = log.reader(topic)
    yield opened
    opened.close()


def drafts(topic: str, values: list[bytes], partition: int = 0) -> list[Draft]:
    return [Draft(topic, partition, b"D-1", value) for value in values]


def numbered(count: int, prefix: str = "") -> list[bytes]:
    return [f"{prefix}{number}".encode() for number in range(count)]


def read(reader: Reader, count: int, max_records: int = 1000) -> list[Record]:
    """This many records, or fewer when no more come; for a partition in the order of its offsets."""
    records: list[Record] = []
    deadline = time.monotonic() + 20
    while len(records) < count and time.monotonic() < deadline:
        for batch in reader.poll(max_records, 0.5).values():
            records.extend(batch)
    return records


def values(records: list[Record]) -> list[bytes | None]:
    return [record.value for record in records]


def test_a_topic_is_created_once(log: Log, topic: str) -> None:
    again = log.create_topic(topic, PARTITIONS)

    assert again is False
    assert log.partitions(topic) == PARTITIONS


def test_a_topic_of_another_number_of_partitions_is_not_taken_for_the_same(log: Log, topic: str) -> None:
    with pytest.raises(UnavailableError, match=f"expected 7 partitions, found {PARTITIONS}"):
        log.create_topic(topic, 7)


def test_a_created_topic_is_as_required(log: Log, topic: str) -> None:
    assert log.check_topic(topic) == []


def test_a_missing_topic_is_named_with_what_to_do(log: Log) -> None:
    assert len(log.check_topic("missing")) == 1
    for ask in (log.partitions, log.end_offsets, log.reader):
        with pytest.raises(UnavailableError, match=r"missing: .*run 'aidtrail topics create'"):
            ask("missing")
    with pytest.raises(UnavailableError, match="aidtrail topics create"):
        log.join("group", "missing")


def test_offsets_start_at_zero_and_follow_one_another(topic: str, appender: Appender) -> None:
    first = appender.append(drafts(topic, numbered(3)))
    second = appender.append(drafts(topic, numbered(2)))

    assert [appended.offset for appended in first + second] == [0, 1, 2, 3, 4]


def test_answers_come_in_the_order_of_the_drafts_over_several_partitions(topic: str, appender: Appender, reader: Reader) -> None:
    mixed = [Draft(topic, number % PARTITIONS, b"D-1", b"%d" % number) for number in range(3000)]
    appended = appender.append(mixed)
    reader.assign(dict.fromkeys(range(PARTITIONS), 0))
    records = read(reader, 3000)

    assert [place.offset for place in appended] == [number // PARTITIONS for number in range(3000)]
    stands_at = {(record.partition, record.offset): record.value for record in records}
    assert [stands_at[draft.partition, place.offset] for draft, place in zip(mixed, appended, strict=True)] == [d.value for d in mixed]


def test_one_append_may_go_to_several_topics(log: Log, topic: str, appender: Appender) -> None:
    log.create_topic(f"{topic}-other", 1)
    appended = appender.append([*drafts(topic, [b"a"]), *drafts(f"{topic}-other", [b"b", b"c"]), *drafts(topic, [b"d"])])

    assert [place.offset for place in appended] == [0, 0, 1, 1]


def test_nothing_is_appended_by_an_empty_append(log: Log, topic: str, appender: Appender) -> None:
    assert appender.append([]) == []
    assert log.end_offsets(topic) == {0: 0, 1: 0, 2: 0}


def test_end_offsets_name_every_partition_and_the_offset_after_its_last_record(log: Log, topic: str, appender: Appender) -> None:
    appender.append([*drafts(topic, numbered(4), partition=2), *drafts(topic, numbered(1), partition=0)])

    assert log.end_offsets(topic) == {0: 1, 1: 0, 2: 4}


def test_a_reader_knows_where_its_partitions_end_now(topic: str, appender: Appender, reader: Reader) -> None:
    reader.assign({0: 0, 2: 0})
    before = reader.end_offsets()
    appender.append(drafts(topic, numbered(3), partition=2) + drafts(topic, numbered(1), partition=1))

    assert before == {0: 0, 2: 0}
    assert reader.end_offsets() == {0: 0, 2: 3}
    assert values(read(reader, 3)) == numbered(3)
    assert reader.end_offsets() == {0: 0, 2: 3}


def test_a_reader_tells_which_offset_it_reads_next(topic: str, appender: Appender, reader: Reader) -> None:
    appender.append(drafts(topic, numbered(5)))
    nowhere = reader.positions()
    reader.assign({0: 1, 2: 0})
    before = reader.positions()
    read(reader, 2, max_records=2)
    between = reader.positions()
    read(reader, 2)
    reader.poll(10, 0.01)

    assert nowhere == {}
    assert before == {0: 1, 2: 0}
    assert between == {0: 3, 2: 0}
    assert reader.positions() == {0: 5, 2: 0}


def test_a_partition_is_read_up_to_an_end_from_where_its_reader_stands(topic: str, appender: Appender, reader: Reader) -> None:
    appender.append(drafts(topic, numbered(10)))
    reader.assign({0: 2})
    batches = list(up_to(reader, topic, 0, 10, max_records=3, patience_seconds=20))
    again = list(up_to(reader, topic, 0, 10, max_records=3, patience_seconds=20))

    assert [record.value for batch in batches for record in batch] == numbered(10)[2:]
    assert max(map(len, batches)) <= 3
    assert again == []
    with pytest.raises(UnavailableError, match=f"{topic} partition 0 could not be read from offset 10 to its end 11"):
        list(up_to(reader, topic, 0, 11, max_records=3, patience_seconds=0.3))


def test_keys_and_values_come_back_byte_for_byte(topic: str, appender: Appender, reader: Reader) -> None:
    wanted = [(b"D-1", b""), (b"D-2", bytes(range(256)) * 400), (b"\xff\x00", b"\x00"), (b"D-3", b"\\x00\n\t")]
    appender.append([Draft(topic, 1, key, value) for key, value in wanted])
    reader.assign({1: 0})
    records = read(reader, len(wanted))

    assert [(record.key, record.value) for record in records] == wanted
    assert [(record.topic, record.partition, record.offset) for record in records] == [(topic, 1, number) for number in range(4)]


def test_append_times_are_the_logs_own_and_the_same_for_appender_and_reader(topic: str, appender: Appender, reader: Reader) -> None:
    before = time.time_ns() // 1_000_000
    appended = appender.append(drafts(topic, numbered(3)))
    after = time.time_ns() // 1_000_000
    reader.assign({0: 0})
    records = read(reader, 3)

    assert [Appended(record.offset, record.timestamp) for record in records] == appended
    assert all(before - 1 <= place.timestamp <= after + 1 for place in appended)


def test_a_reader_starts_where_it_is_told(topic: str, appender: Appender, reader: Reader) -> None:
    appender.append(drafts(topic, numbered(10)))
    reader.assign({0: 7})
    records = read(reader, 3)

    assert values(records) == [b"7", b"8", b"9"]


def test_a_reader_with_nothing_assigned_reads_nothing(topic: str, appender: Appender, reader: Reader) -> None:
    appender.append(drafts(topic, numbered(1)))
    before = reader.poll(10, 0.05)
    reader.assign({0: 0})
    read(reader, 1)
    appender.append(drafts(topic, numbered(1)))
    reader.assign({})

    assert before == {}
    assert reader.poll(10, 0.05) == {}


def test_a_reader_waits_for_what_is_appended_later(topic: str, appender: Appender, reader: Reader) -> None:
    reader.assign({0: 0, 2: 0})
    nothing = reader.poll(10, 0.01)
    waiting = Thread(target=lambda: appender.append(drafts(topic, [b"later"], partition=2)))
    waiting.start()
    records = read(reader, 1)
    waiting.join()

    assert nothing == {}
    assert values(records) == [b"later"]


def test_a_record_comes_soon_after_it_was_appended(topic: str, appender: Appender, reader: Reader) -> None:
    reader.assign({0: 0})
    delays = []
    for number in range(20):
        started = time.monotonic()
        appender.append(drafts(topic, [b"%d" % number]))
        read(reader, 1)
        delays.append(time.monotonic() - started)

    assert sorted(delays)[10] < 0.2


def test_nothing_is_read_twice_and_no_poll_gives_more_than_was_asked_for(topic: str, appender: Appender, reader: Reader) -> None:
    appender.append([Draft(topic, number % PARTITIONS, b"D-1", b"%d" % number) for number in range(100)])
    reader.assign(dict.fromkeys(range(PARTITIONS), 0))
    seen: list[tuple[int, int]] = []
    sizes = []

    def poll() -> bool:
        batches = reader.poll(7, 0.5)
        seen.extend((number, record.offset) for number, batch in batches.items() for record in batch)
        sizes.append(sum(map(len, batches.values())))
        return len(seen) >= 100

    assert eventually(poll)
    assert reader.poll(7, 0.05) == {}
    assert len(seen) == len(set(seen)) == 100
    assert max(sizes) <= 7


def test_assigning_replaces_what_was_assigned_and_may_go_back(topic: str, appender: Appender, reader: Reader) -> None:
    appender.append([*drafts(topic, numbered(5, "a")), *drafts(topic, numbered(5, "b"), partition=1)])
    reader.assign({0: 0})
    read(reader, 2, max_records=2)
    reader.assign({0: 1, 1: 4})
    records = read(reader, 5)

    assert sorted(record.value or b"" for record in records) == [b"a1", b"a2", b"a3", b"a4", b"b4"]


def test_writers_at_once_lose_nothing_and_keep_their_own_order(log: Log, topic: str, reader: Reader) -> None:
    appenders = [log.appender() for _ in range(3)]
    answers: dict[int, list[Appended]] = {}

    def write(writer: int) -> None:
        answers[writer] = [
            place
            for number in range(10)
            for place in appenders[writer].append(
                [Draft(topic, part, b"D-1", b"%d/%d/%d" % (writer, number, part)) for part in range(PARTITIONS)]
            )
        ]

    threads = [Thread(target=write, args=(writer,)) for writer in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader.assign(dict.fromkeys(range(PARTITIONS), 0))
    records = read(reader, 90)
    for appender in appenders:
        appender.close()

    stands_at = {(record.partition, record.offset): record.value for record in records}
    assert len(stands_at) == 90
    for writer in range(3):
        said = [stands_at[number % PARTITIONS, place.offset] for number, place in enumerate(answers[writer])]
        assert said == [b"%d/%d/%d" % (writer, number, part) for number in range(10) for part in range(PARTITIONS)]


def test_after_an_unknown_append_the_appender_is_of_no_more_use(log: Log, topic: str, appender: Appender) -> None:
    with pytest.raises(AppendUnknownError):
        appender.append(drafts(topic, [b"lost"], partition=99))
    with pytest.raises(AppendUnknownError, match="close it, read the log's tail and open another"):
        appender.append(drafts(topic, [b"more"]))
    appender.close()
    another = log.appender()
    appended = another.append(drafts(topic, [b"other"]))
    another.close()

    assert [place.offset for place in appended] == [0]


def test_a_lone_member_owns_every_partition(log: Log, topic: str) -> None:
    member = log.join("group", topic)

    assert eventually(lambda: member.owned() == {0, 1, 2})
    member.close()


def test_members_divide_the_partitions_and_take_over_from_one_that_leaves(log: Log, topic: str) -> None:
    first, second = log.join("group", topic), log.join("group", topic)

    def divided() -> bool:
        mine, theirs = first.owned(), second.owned()
        return bool(mine and theirs) and mine | theirs == {0, 1, 2} and not mine & theirs

    assert eventually(divided)
    first.close()
    assert eventually(lambda: second.owned() == {0, 1, 2})
    second.close()


def test_members_of_different_groups_share_nothing(log: Log, topic: str) -> None:
    ours, theirs = log.join("ours", topic), log.join("theirs", topic)

    assert eventually(lambda: ours.owned() == theirs.owned() == {0, 1, 2})
    ours.close()
    theirs.close()


def test_what_a_member_commits_is_seen_by_lag_tools(log: Log, topic: str) -> None:
    before = log.committed("group", topic)
    member = log.join("group", topic)
    assert eventually(lambda: member.owned() == {0, 1, 2})
    member.commit({0: 5, 2: 7})
    member.commit({0: 6})

    assert before == {}
    assert eventually(lambda: bool(member.owned()) and log.committed("group", topic) == {0: 6, 2: 7})
    assert log.committed("another", topic) == {}
    member.close()


def test_closing_twice_is_harmless(log: Log, topic: str) -> None:
    for part in (log.appender(), log.reader(topic), log.join("group", topic)):
        part.close()
        part.close()


@pytest.mark.parametrize(
    ("key", "hash_value"),
    [  # published with Apache Kafka: UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_a_key_has_the_partition_that_a_jvm_client_gives_it(key: bytes, hash_value: int) -> None:
    assert partition_of(key, 1000) == (hash_value & 0x7FFFFFFF) % 1000
    assert partition_of(key, 1) == 0


def test_the_last_append_time_is_that_of_the_newest_record(log: Log, topic: str, appender: Appender) -> None:
    assert log.last_append(topic) == 0

    appended = appender.append([*drafts(topic, [b"a"]), *drafts(topic, [b"b"], 2)])

    assert log.last_append(topic) == max(place.timestamp for place in appended)


def test_who_may_read_and_write_is_told_so(log: Log, topic: str) -> None:
    assert {"READ", "WRITE"} <= log.operations(topic)
    with pytest.raises(UnavailableError):
        log.operations("no-such-topic")
