# ruff: noqa: S608 - the names in its statements are those of tables and columns
"""Cuts and digests: what is kept while rows are written is what the rows give, and any row that is altered afterwards is named."""

import hashlib
import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aidtrail.audit import cuts
from aidtrail.audit.rebuild import rebuild
from aidtrail.domain import events as e
from aidtrail.domain.donation import Donation
from aidtrail.domain.fold import apply
from aidtrail.errors import UsageError
from aidtrail.log.memory import MemoryLog
from aidtrail.projector import Projector, unpark
from aidtrail.service import drain
from aidtrail.views import digest, schema
from aidtrail.views.reader import Reader
from aidtrail.views.writer import COLUMNS
from tests.acts import Acts, full_life
from tests.databases import Server
from tests.pipeline import TOPICS, Pipeline

START = datetime.now(UTC) - timedelta(days=1)


def lives(count: int, seed: int) -> list[e.Event]:
    """The first steps of so many donations, in random order across donations."""
    chance = random.Random(seed)
    queues = [[*full_life(f"KRCS-{seed}-{number:04d}", START)][: chance.randint(1, 33)] for number in range(count)]
    found: list[e.Event] = []
    while queues := [queue for queue in queues if queue]:
        found.append(chance.choice(queues).pop(0))
    return found


@pytest.fixture(scope="module")
def pipeline(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Donations at every stage, over four partitions. Tests leave its views as they are."""
    running = Pipeline(postgres_server.create_database(), tmp_path_factory.mktemp("ledger"))
    running.submit(lives(12, seed=1))
    yield running
    running.close()
    postgres_server.drop_database(running.database)


@pytest.fixture
def connection(pipeline: Pipeline) -> Iterator[schema.Connection]:
    """To the views of `pipeline`, in a transaction that is rolled back."""
    with schema.connect(pipeline.database) as opened:
        yield opened
        opened.rollback()


def live(connection: schema.Connection) -> str:
    build = schema.live_build(connection)
    assert build is not None
    return build


def project(log: MemoryLog, database: str, **options: Any) -> cuts.Cut:
    projector = Projector(log, TOPICS, database, group=database, **options)
    drain(projector, lambda: projected(log, database))
    projector.close()
    with schema.connect(database) as connection:
        return cuts.of_build(connection, live(connection))


def projected(log: MemoryLog, database: str) -> bool:
    reader = Reader.open(database)
    found = not reader.is_empty() and reader.next_offsets() == log.end_offsets(TOPICS.recorded)
    reader.close()
    return found


def test_what_is_kept_is_what_the_rows_give(connection: schema.Connection) -> None:
    found = cuts.recount(connection, live(connection))

    assert found.holds
    assert found.donations == 12
    print(f"{found.donations} donations recounted, {found.differing} altered")


@pytest.mark.parametrize("options", [{"max_batch": 1}, {"max_batch": 7, "max_accounts": 1}, {"max_batch": 1000}])
def test_the_digest_is_the_same_whatever_the_batches_and_however_few_donations_are_in_memory(
    pipeline: Pipeline, connection: schema.Connection, database_url: str, options: dict[str, int]
) -> None:
    assert isinstance(pipeline.log, MemoryLog)
    expected = cuts.of_build(connection, live(connection))

    found = project(pipeline.log, database_url, **options)

    assert found == expected
    assert found.sha256 == expected.sha256


IN_THE_DIGEST = [
    (table, column)
    for table in ("donations", "amounts", "approvals")
    for column in COLUMNS[table]
    if column not in ("purpose", "requested_by", "deciders", "rows_sha256")
]


@pytest.mark.parametrize(("table", "column"), IN_THE_DIGEST)
def test_a_row_that_is_altered_by_sql_is_named(connection: schema.Connection, table: str, column: str) -> None:
    build = live(connection)
    (victim,) = connection.execute(f"SELECT donation_id FROM {build}.{table} ORDER BY 1 DESC LIMIT 1").fetchone() or ("",)
    other = {
        "text": "'X-1'", "int4": "3 - {0}", "int8": "{0} + 1", "bytea": "decode(repeat('ab', 32), 'hex')", "text[]": "'{X-1}'",
        "numeric": "{0} + 0.0001", "jsonb": """'{"KWD": "1.0000"}'""", "timestamptz": "coalesce({0}, now()) + interval '1 microsecond'",
    }[COLUMNS[table][column]].replace("{0}", column)  # fmt: skip
    key = {"donations": "", "amounts": " AND currency = 'KWD'", "approvals": " AND approval_id = 'A1'"}[table]

    connection.execute(f"UPDATE {build}.{table} SET {column} = {other} WHERE donation_id = %s{key}", (victim,))

    found = cuts.recount(connection, build)
    assert not found.holds
    assert "X-1" in found.altered or victim in found.altered


@pytest.mark.parametrize("table", ["amounts", "approvals"])
def test_a_row_that_was_removed_or_put_in_is_named(connection: schema.Connection, table: str) -> None:
    build = live(connection)
    (victim,) = connection.execute(f"SELECT donation_id FROM {build}.{table} ORDER BY 1 LIMIT 1").fetchone() or ("",)
    connection.execute(f"CREATE TEMPORARY TABLE stray AS SELECT * FROM {build}.{table} WHERE donation_id = %s", (victim,))
    connection.execute("UPDATE stray SET donation_id = 'STRAY-1'")
    connection.execute(f"DELETE FROM {build}.{table} WHERE donation_id = %s", (victim,))
    connection.execute(f"INSERT INTO {build}.{table} SELECT * FROM stray")

    assert cuts.recount(connection, build).altered == [victim, "STRAY-1"]


def test_a_donation_that_was_removed_is_missing_from_the_sum(connection: schema.Connection) -> None:
    build = live(connection)
    query = f"DELETE FROM {build}.donations WHERE donation_id = (SELECT min(donation_id) FROM {build}.donations) RETURNING partition"
    (partition,) = connection.execute(query).fetchone() or (None,)

    found = cuts.recount(connection, build)

    assert found.partitions == [partition]
    assert not found.holds


def test_free_text_and_persons_can_be_blanked_and_the_digest_stays(connection: schema.Connection) -> None:
    build = live(connection)

    connection.execute(f"UPDATE {build}.donations SET purpose = NULL")
    connection.execute(f"UPDATE {build}.approvals SET requested_by = '', deciders = '{{}}'")

    assert cuts.recount(connection, build).holds


def test_the_digest_is_to_the_byte_what_is_documented(database_url: str, tmp_path: Path) -> None:
    """Made here from the description, by other code."""
    running, a = Pipeline(database_url, tmp_path, partitions=1), Acts("KRCS-2026-0007", START)
    running.submit([a.announced(), a.requested()])
    with schema.connect(database_url) as connection:
        build = live(connection)
        found = cuts.of_build(connection, build)
        columns = "encode(head_sha256, 'hex'), encode(terms_sha256, 'hex'), announced_on, changed_at, next_deadline"
        (head, terms, *times) = connection.execute(f"SELECT {columns} FROM {build}.donations").fetchone() or ("",)
    running.close()
    micros = [round(Decimal(str(time.timestamp())) * 1_000_000) for time in (*times, a.now) if isinstance(time, datetime)]
    document = (
        f"donation\tKRCS-2026-0007\t0\t2\t{head}\tmanaged\tfinancial\tKRCS\tKBH\tKRCS CRC KBH\tKRCS-CRC CRC-KBH\tMEF-SUPPORT\t{terms}"
        f"\tawaiting_approval\tannounced\tpending\tnone\tnone\t{micros[0]}\t{micros[1]}\t{micros[2]}\n"
        "amount\tKWD\t1000.0000" + 9 * "\t0.0000" + "\n"
        f"approval\tA1\tMEF-SUPPORT\tpending\tKRCS-CRC CRC-KBH\tKWD=1000.0000\t\tKRCS\t{micros[3]}\t2\t0\t\n"
    )
    rows_sum = hashlib.shake_128(hashlib.sha256(document.encode()).digest()).digest(512)
    (place,) = found.places.values()
    line = f"0\t2\t1\t{place.last_outcome_sha256.hex()}\t{hashlib.sha256(rows_sum).hexdigest()}\n"

    assert place.rows_sha256 == hashlib.sha256(rows_sum).digest(), document
    assert place.last_outcome_sha256.hex() == head
    assert found.sha256 == hashlib.sha256(f"aidtrail cut v1\n{line}".encode()).digest()


def test_a_parked_donation_keeps_its_digest_until_it_is_back(database_url: str, tmp_path: Path) -> None:
    def broken(donation: Donation | None, event: e.Event) -> Donation:
        if isinstance(event, e.ApprovalRequested):
            raise ValueError("a fault of this release")
        return apply(donation, event)

    log = MemoryLog()
    submitted, a = Pipeline(database_url, tmp_path / "1", log), Acts("KRCS-2026-0008", START)
    submitted.submit([a.announced(), a.confirmed(), *a.approval()])
    submitted.close()
    with schema.connect(database_url) as control:
        control.autocommit = True
        before = cuts.of_build(control, live(control))
        build = schema.new_build(control, 4, "rebuild")
        schema.go_live(control, build)
        parked = project(log, database_url, apply=broken)
        held_while_parked = cuts.recount(control, build).holds
        unpark(database_url)

        assert parked != before
        assert held_while_parked
        assert cuts.of_build(control, build) == before
        assert cuts.recount(control, build).holds


def test_a_rebuild_has_the_same_digest_and_names_what_was_altered_together_with_it(database_url: str, tmp_path: Path) -> None:
    """Who can write to the database can write the digest as well: only the log tells then."""
    running, a = Pipeline(database_url, tmp_path), Acts("KRCS-2026-0009", START)
    running.submit([a.announced(), a.confirmed()])
    equal = rebuild(running.log, TOPICS, database_url)
    with schema.connect(database_url) as connection:
        build = live(connection)
        connection.execute(f"UPDATE {build}.amounts SET pledged = 9000")
        (row,) = connection.execute(f"SELECT {', '.join(COLUMNS['donations'])} FROM {build}.donations").fetchall()
        (_, currency, *sums), *_ = connection.execute(f"SELECT * FROM {build}.amounts").fetchall()
        forged = hashlib.sha256((digest.donation_line(row) + digest.amount_line(str(currency), sums)).encode()).digest()
        connection.execute(f"UPDATE {build}.donations SET rows_sha256 = %s", (forged,))
        values = (digest.to_bytes(digest.term(forged)), row[1])
        connection.execute(f"UPDATE {build}.positions SET rows_sum = %s WHERE partition = %s", values)
        recounted = cuts.recount(connection, build)
    found = rebuild(running.log, TOPICS, database_url)
    running.close()

    assert (equal.sha256, equal.total_differences) == (equal.live_sha256, 0)
    assert recounted.holds
    assert found.sha256 == equal.sha256 != found.live_sha256
    assert found.named["amounts"] == ["KRCS-2026-0009/KWD"]


def test_a_build_of_an_earlier_release_goes_on_without_a_digest(database_url: str, tmp_path: Path) -> None:
    running, a = Pipeline(database_url, tmp_path), Acts("KRCS-2026-0010", START)
    running.submit([a.announced()])
    with schema.connect(database_url) as connection:
        build = live(connection)
        connection.execute(f"UPDATE {build}.positions SET rows_sum = NULL")
        connection.execute(f"UPDATE {build}.donations SET rows_sha256 = NULL")
    running.submit([a.confirmed()])
    found = rebuild(running.log, TOPICS, database_url)
    running.close()

    assert found.live_sha256 is None
    with schema.connect(database_url) as connection, pytest.raises(UsageError, match="audit rebuild --go-live"):
        cuts.of_build(connection, build)


def test_a_cut_is_found_by_name_and_by_file_and_an_altered_one_is_refused(
    pipeline: Pipeline, connection: schema.Connection, tmp_path: Path
) -> None:
    cut = cuts.of_build(connection, live(connection))
    said = cut.to_json()
    (tmp_path / "cut.json").write_text(json.dumps(said))
    said["partitions"][1]["next_offset"] += 1
    (tmp_path / "altered.json").write_text(json.dumps(said))

    cuts.keep(connection, "2026-q4", "views_1", cut)
    cuts.keep(connection, "2026-q4", "views_1", cut)

    assert cuts.find(connection, "2026-q4") == cut == cuts.read(tmp_path / "cut.json")
    assert [kept.name for kept in cuts.kept(connection)] == ["2026-q4"]
    with pytest.raises(UsageError, match="the cut was altered"):
        cuts.read(tmp_path / "altered.json")
    with pytest.raises(UsageError, match="one of 2026-q4, found"):
        cuts.find(connection, "2026-q3")
    with pytest.raises(UsageError, match="is another cut already"):
        cuts.keep(connection, "2026-q4", "views_1", cuts.Cut({}))
    with pytest.raises(UsageError, match="no build's"):
        cuts.keep(connection, "views_1", "views_1", cut)
    for name in ("live", "2026-q4.json"):  # where a cut is asked for, these are the live build and a file
        with pytest.raises(UsageError, match="no build's or file's"):
            cuts.keep(connection, name, "views_1", cut)


def test_builds_that_are_made_at_once_have_names_of_their_own_and_no_other_schemas(database_url: str) -> None:
    """Two as-of builds, or a diff beside one; and a schema of somebody else, which dropping a build would drop as well."""
    with schema.connect(database_url) as connection:
        connection.autocommit = True
        schema.prepare(connection, 1)
        connection.execute("CREATE SCHEMA views_2")
    ready = threading.Barrier(4)

    def make() -> str:
        with schema.connect(database_url) as connection:
            connection.autocommit = True
            ready.wait(30)
            return schema.new_build(connection, 1, "as of now")

    with ThreadPoolExecutor(4) as pool:
        made = [future.result() for future in [pool.submit(make) for _ in range(4)]]

    assert sorted(made) == ["views_3", "views_4", "views_5", "views_6"]


SOUND = cuts.Place(3, 2, bytes(32), bytes(32))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[" * 10**5,
        b"9" * 5000,
        b"null",
        json.dumps(cuts.Cut({}).to_json()).replace("[]", '[{"partition": Infinity}]').encode(),
        *(
            json.dumps(cuts.Cut({0: place}).to_json()).encode()
            for place in (
                SOUND._replace(next_offset=-1),
                SOUND._replace(next_offset=2**63),
                SOUND._replace(last_submitted_offset=-2),
                SOUND._replace(last_outcome_sha256=b""),
                SOUND._replace(rows_sha256=bytes(33)),
            )
        ),
    ],
    ids=range(11),
)
def test_a_file_that_holds_no_cut_is_one_clear_line(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_bytes(text)

    with pytest.raises(UsageError, match="expected a cut, as 'aidtrail audit cut --json' prints it"):
        cuts.read(tmp_path / "cut.json")


def test_a_cut_that_an_editor_saved_is_the_same(tmp_path: Path) -> None:
    cut = cuts.Cut({0: SOUND})
    (tmp_path / "cut.json").write_bytes(json.dumps(cut.to_json(), indent=1).replace("\n", "\r\n").encode("utf-8-sig"))

    assert cuts.read(tmp_path / "cut.json") == cut
