"""The ledger's store when its file is damaged or its disk is full. It is a cache: nothing is lost with it."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aidtrail import ledger_store
from aidtrail.audit.findings import Report
from aidtrail.audit.replay import replay
from aidtrail.chain import Tail
from aidtrail.errors import UnavailableError
from aidtrail.ledger import Ledger
from aidtrail.ledger_store import START, LedgerStore, Position, Row
from aidtrail.log.memory import MemoryLog
from aidtrail.producer import Producer
from aidtrail.service import drain
from tests.acts import Acts, registry_events
from tests.pipeline import TOPICS

PAGE = 4096
POSITION = Position(1000, b"a" * 32, Tail(1000, b"b" * 32), 1)
ROWS = [Row(f"KRCS-2026-{number:04}", number, b"c" * 32, b"value" * 100) for number in range(1000)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LedgerStore]:
    with closing(LedgerStore(tmp_path, "recorded", 0)) as opened:
        yield opened


def damage(folder: Path, first: int, last: int) -> None:
    (path,) = folder.glob("*.sqlite")
    data = bytearray(path.read_bytes())
    for page in range(first, last):
        data[page * PAGE : page * PAGE + 64] = b"\xff" * 64
    path.write_bytes(data)


def replay_after(damaging: Callable[[], None], said: str, *, donations: int, folder: Path) -> Report:
    """Of donations that are announced, and confirmed after their store was damaged: the ledger that finds it so says it, and goes on."""
    lives = [Acts(f"KRCS-2026-{number:04}") for number in range(donations)]
    log = MemoryLog()
    TOPICS.create(log, 1)
    with Producer(log, TOPICS) as producer:
        producer.register(registry_events())
        producer.submit([acts.announced() for acts in lives])
    with closing(Ledger(log, TOPICS, folder, group="before")) as before:
        drain(before, lambda: True)
    damaging()
    with Producer(log, TOPICS) as producer:
        producer.submit([acts.confirmed() for acts in lives])
    with closing(Ledger(log, TOPICS, folder, group="after")) as after:
        with pytest.raises(UnavailableError, match=said):
            drain(after, lambda: True)
        after.reset()
        drain(after, lambda: True)
    return replay(log, TOPICS)


def test_a_ledger_builds_a_damaged_store_anew_and_answers_all(tmp_path: Path) -> None:
    said = r"was damaged .*malformed.* built anew from the log"

    found = replay_after(lambda: damage(tmp_path, 20, 60), said, donations=500, folder=tmp_path)

    assert (found.entries, found.equal, found.differing) == (1000, 1000, 0)


@pytest.mark.parametrize(
    ("table", "column", "place"),
    [("entries", "value", 0), ("entries", "value", 40), ("entries", "value", -30), ("entries", "submission_sha256", 1),
     ("position", "last_outcome_sha256", 1)],
)  # fmt: skip
def test_one_wrong_bit_in_what_the_store_keeps_makes_no_entry_void(table: str, column: str, place: int, tmp_path: Path) -> None:
    """SQLite has no checksums. A head or tail that is not the log's made all void that the ledger appended from there on."""

    def turn_a_bit() -> None:
        (path,) = tmp_path.glob("*.sqlite")
        with closing(sqlite3.connect(path)) as store, store:
            (kept,) = store.execute(f"SELECT {column} FROM {table}").fetchone()  # noqa: S608
            wrong = bytearray(kept)
            wrong[place] ^= 1
            store.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (bytes(wrong), kept))  # noqa: S608

    found = replay_after(turn_a_bit, r"was damaged .* built anew from the log", donations=2, folder=tmp_path)

    assert (found.entries, found.equal, found.void.total()) == (4, 4, 0)


@pytest.mark.parametrize("use", ["entries", "add"])
def test_after_damage_a_store_is_empty_and_keeps_what_it_is_given(tmp_path: Path, use: str) -> None:
    with closing(LedgerStore(tmp_path, "recorded", 0)) as store:
        store.add(ROWS, POSITION)
    damage(tmp_path, 5, 60)

    def use_all(store: LedgerStore) -> None:
        for row in ROWS:
            if use == "entries":
                store.entries(row.donation_id)
            else:
                store.add([row], POSITION)

    with closing(LedgerStore(tmp_path, "recorded", 0)) as again:
        before = again.position()
        with pytest.raises(UnavailableError, match="was damaged"):
            use_all(again)
        empty = again.position()
        again.add(ROWS[:2], POSITION)

        assert (before, empty) == (POSITION, START)
        assert again.entries(ROWS[1].donation_id) == [ROWS[1]]
        assert again.position() == POSITION


@pytest.mark.parametrize("content", [b"no database at all" * 1000, None], ids=["another file", "another format"])
def test_a_file_that_is_no_store_of_this_release_is_deleted(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "recorded-0.sqlite"
    if content is not None:
        path.write_bytes(content)
    else:
        with closing(sqlite3.connect(path)) as older:
            older.execute("PRAGMA user_version = 1")
    with closing(LedgerStore(tmp_path, "recorded", 0)) as opened:
        opened.add(ROWS, POSITION)

        assert opened.position() == POSITION


def test_on_a_full_disk_nothing_is_deleted_and_one_line_says_so(store: LedgerStore) -> None:
    store.add(ROWS[:10], POSITION)
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(UnavailableError, match="cannot be written: database or disk is full; make room") as raised:
        store.add(ROWS, POSITION._replace(next_offset=2000))
    store._db.execute("PRAGMA max_page_count = 1000000")

    assert "\n" not in str(raised.value)
    assert store.position() == POSITION
    assert store.entries(ROWS[0].donation_id) == [ROWS[0]]


def test_a_store_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recorded-0.sqlite").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="cannot be written: unable to open database file"):
        LedgerStore(tmp_path, "recorded", 0)
    with pytest.raises(UnavailableError, match=r"cannot be written: .*Not a directory"):
        LedgerStore(tmp_path / "file" / "folder", "recorded", 0)

    real = sqlite3.connect

    def full(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = real(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(ledger_store.sqlite3, "connect", full)
    with pytest.raises(UnavailableError, match="cannot be written: database or disk is full"):
        LedgerStore(tmp_path, "recorded", 1)
