import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from psycopg import sql
from typer.testing import CliRunner

from aidtrail.audit import building
from aidtrail.audit.rebuild import rebuild
from aidtrail.cli import app
from aidtrail.domain import events as e
from aidtrail.log import Draft
from aidtrail.views import schema, writer
from aidtrail.views.reader import AmountRow, Filters, Reader, Sight
from tests.acts import Acts, full_life, money
from tests.pipeline import TOPICS, Pipeline

LIFE, WAITING, OBSERVED, CHILDLESS = "KRCS-2026-0001", "KRCS-2026-0002", "FTS-2020-0003", "KRCS-2026-0004"
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
MEF = Sight("MEF", ["MEF-SUPPORT", "MEF-SMALL"])


@pytest.fixture(scope="module")
def pipeline(postgres_server: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    database = postgres_server.create_database()  # type: ignore[attr-defined]
    running = Pipeline(database, tmp_path_factory.mktemp("ledger"))
    running.submit(full_life(LIFE, NOW))
    running.submit(waiting())
    running.submit([observed(), alone()])
    yield running
    running.close()


def waiting() -> Iterator[e.Event]:
    """Announced in KWD and USD, its approval signed once of twice."""
    a = Acts(WAITING, NOW)
    yield a.announced(amounts=(money("1000"), money("500", "USD")))
    yield a.confirmed()
    yield a.requested("A1")
    yield a.approved("A1")


def observed() -> e.Event:
    return Acts(OBSERVED, NOW).observed()


def alone() -> e.Event:
    leg = e.Leg(leg_id="KRCS-KBH", from_party="KRCS", to_party="KBH")
    return Acts(CHILDLESS, NOW).announced(route=(leg,), amounts=(money("10", "JPY"),))


@pytest.fixture
def reader(pipeline: Pipeline) -> Iterator[Reader]:
    opened = pipeline.reader()
    yield opened
    opened.close()


def ids(reader: Reader, **filters: object) -> list[str]:
    return [row.donation_id for row in reader.donations(Filters(**filters))]  # type: ignore[arg-type]


def test_each_filter_keeps_the_donations_that_it_names(reader: Reader) -> None:
    everything = [OBSERVED, LIFE, WAITING, CHILDLESS]

    assert ids(reader) == everything
    assert ids(reader, donation_id=WAITING) == [WAITING]
    assert ids(reader, party="NBK") == []
    assert ids(reader, party="CRC") == [OBSERVED, LIFE, WAITING]
    assert ids(reader, mechanism="MEF-SUPPORT") == [LIFE, WAITING]
    assert ids(reader, currency="USD") == [WAITING]
    assert ids(reader, currency="JPY") == [CHILDLESS]
    assert ids(reader, oversight="observed") == [OBSERVED]
    assert ids(reader, approval="pending") == [WAITING]
    assert ids(reader, headline="awaiting_approval", pledge="committed") == [WAITING]
    assert ids(reader, disbursement="none", oversight="managed") == [WAITING, CHILDLESS]
    assert ids(reader, receipt="acknowledged") == [LIFE]
    assert ids(reader, receipt="disputed") == []
    assert ids(reader, leg="KRCS-KBH") == [CHILDLESS]


def test_changed_since_is_inclusive(reader: Reader) -> None:
    changed = {row.donation_id: row.changed_at for row in reader.donations()}
    newest = max(changed.values())

    assert ids(reader, changed_since=newest) == [donation_id for donation_id, at in sorted(changed.items()) if at == newest]
    assert ids(reader, changed_since=newest + timedelta(microseconds=1)) == []


def test_a_party_sees_what_it_takes_part_in_and_what_is_put_before_its_mechanism(reader: Reader) -> None:
    assert ids(reader, sight=Sight("KBH", [])) == ids(reader, party="KBH")
    assert ids(reader, sight=Sight("MEF", [])) == []
    assert ids(reader, sight=MEF) == [LIFE, WAITING]
    assert ids(reader, sight=Sight("CRC", []), currency="JPY") == []


def test_pages_of_any_size_show_each_donation_once(reader: Reader) -> None:
    everything = ids(reader)
    for size in (1, 2, 3, 5):
        seen: list[str] = []
        while page := [row.donation_id for row in reader.donations(after=seen[-1] if seen else "", limit=size)]:
            seen += page
        assert seen == everything


def test_the_queue_of_approvals_tells_age_and_missing_signatures(reader: Reader) -> None:
    (row,) = reader.approvals(state="pending", sight=MEF)

    assert (row.donation_id, row.approval_id, row.mechanism_id) == (WAITING, "A1", "MEF-SUPPORT")
    assert (row.approvals_required, row.approvals, row.deciders) == (2, 1, ["mef-approver"])
    assert row.requested_on == list(waiting())[2].meta.occurred_on
    assert row.requested == {"KWD": "1000.0000"}
    assert list(reader.approvals(state="pending", sight=Sight("NBK", []))) == []
    assert [found.state for found in reader.approvals(donation_id=LIFE)] != []
    first, *rest = reader.approvals()
    assert list(reader.approvals(after=(first.requested_on, first.donation_id, first.approval_id))) == rest


def test_the_feed_shows_every_entry_once_in_log_order_whatever_the_page(reader: Reader, pipeline: Pipeline) -> None:
    total = sum(reader.next_offsets().values())
    for limit in (1, 7, 1000):
        at: dict[int, int] = {}
        seen: list[tuple[int, int]] = []
        while True:
            rows, at = reader.entries(at, limit=limit)
            if not rows:
                break
            assert len(rows) <= limit
            seen += [(row.partition, row.offset) for row in rows]
        assert len(seen) == len(set(seen)) == total
        for partition in at:
            assert [offset for where, offset in seen if where == partition] == list(range(at[partition]))


def test_a_snapshot_is_of_one_moment_whatever_is_written_meanwhile(reader: Reader, pipeline: Pipeline) -> None:
    a = Acts("KRCS-2026-0005", NOW)
    pipeline.submit([a.announced()])
    with reader.snapshot():
        before = reader.donation(a.donation_id)
        pipeline.submit([a.confirmed()])
        within = reader.donation(a.donation_id)
    after = reader.donation(a.donation_id)

    assert before == within
    assert (before.version, after.version) == (1, 2)  # type: ignore[union-attr]


@pytest.mark.parametrize("words", [("status", "{}"), ("list",)])
def test_commands_show_the_amounts_of_the_version_that_they_show(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Between the donation's row and its amounts, the donation goes on."""
    a = Acts(f"KRCS-2026-001{len(words)}", NOW)
    pipeline.submit([a.announced(), a.confirmed(), *a.approval()])
    read = Reader.amounts

    def amounts(reader: Reader, donation_ids: list[str]) -> dict[str, list[AmountRow]]:
        pipeline.submit([a.instructed(), a.released()])
        return read(reader, donation_ids)

    monkeypatch.setattr(Reader, "amounts", amounts)
    monkeypatch.setenv("AIDTRAIL_VIEWS", pipeline.database)
    monkeypatch.setenv("AIDTRAIL_LOG", pipeline.database)
    done = CliRunner().invoke(app, [word.format(a.donation_id) for word in words] + ["--json"])

    shown = {row["donation_id"]: row for row in map(json.loads, done.stdout.splitlines())}[a.donation_id]
    assert (shown["version"], shown["amounts"][0]["in_flight"]) == (5, "0.0000")


def test_the_feed_passes_over_what_is_out_of_sight(reader: Reader) -> None:
    rows, at = reader.entries({}, sight=MEF, limit=1000)

    found = {row.donation_id for row in rows}
    assert found >= {LIFE, WAITING}
    assert found.isdisjoint({OBSERVED, CHILDLESS})
    assert at == reader.next_offsets()


def test_the_outcome_of_an_id_is_the_first(reader: Reader, pipeline: Pipeline) -> None:
    event = next(waiting())
    other = event.model_copy(update={"purpose": "12220"})
    pipeline.submit([event, other])

    outcome = reader.outcome(event.meta.event_id)

    assert outcome is not None
    assert (outcome.outcome, outcome.version, outcome.reason) == ("admitted", 1, None)
    assert outcome.submission_sha256 == sha256_of(event)
    assert {row.event_type for row in reader.history(WAITING) if row.outcome == "refused"} == {"SubmissionRefused"}


def test_amounts_of_an_approval_are_strings_in_the_views(pipeline: Pipeline, reader: Reader) -> None:
    for row in reader.approvals():
        assert all(isinstance(amount, str) for amount in json.loads(json.dumps(row.requested)).values())


def sha256_of(event: e.Event) -> bytes:
    from aidtrail import codec

    return codec.sha256(codec.encode(event))


def test_an_amendment_to_another_currency_leaves_nothing_pledged_in_the_first(database_url: str, tmp_path: Path) -> None:
    running, a = Pipeline(database_url, tmp_path), Acts()
    running.submit([a.announced()])
    running.submit([a.amended(amounts=(money("500", "USD"),))])
    found, reader = rebuild(running.log, TOPICS, database_url), running.reader()
    pledged = {row.currency: f"{row.pledged:f}" for row in reader.amounts([a.donation_id])[a.donation_id]}
    reader.close()
    running.close()

    assert found.total_differences == 0, found.named
    assert pledged == {"KWD": "0.0000", "USD": "500.0000"}


def test_what_is_reported_may_sum_up_to_more_than_any_amount_can_be(database_url: str, tmp_path: Path) -> None:
    running, acts = Pipeline(database_url, tmp_path), Acts(OBSERVED, NOW)
    most = "999999999999999.999"
    running.submit([acts.observed(amounts=(money(most),)), acts.reported("P1", most), acts.reported("P2", most)])
    found, reader = rebuild(running.log, TOPICS, database_url), running.reader()
    (row,) = reader.amounts([OBSERVED])[OBSERVED]
    reader.close()
    running.close()

    assert row.settled == 2 * Decimal(most)
    assert found.total_differences == 0


def test_a_closed_donation_leaves_memory_once_it_is_written_and_comes_back_where_it_goes_on(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "MAX_BATCH", 1)  # a batch of one is folded while the one before it is written
    running, acts = Pipeline(database_url, tmp_path), Acts(LIFE, NOW)
    running.submit(full_life(LIFE, NOW))
    projection = running._projector._projection
    assert projection is not None
    closed = list(projection._accounts)
    acts.now = NOW + timedelta(minutes=40)
    running.submit([acts.reopened(), acts.closed()])
    running.submit([acts.reopened()])
    reopened = list(projection._accounts)
    loaded: list[str] = []
    load = writer.Writer.load
    monkeypatch.setattr(writer.Writer, "load", lambda writer, ids: loaded.extend(ids) or load(writer, ids))
    found = rebuild(running.log, TOPICS, database_url)
    running.close()

    assert (closed, reopened) == ([], [LIFE])
    assert loaded == [LIFE]  # what the next batch goes on with is not forgotten
    assert found.total_differences == 0
    assert found.rows["entries"] == 33 + 3


def test_a_key_that_can_be_no_donations_takes_no_room_in_memory(database_url: str, tmp_path: Path) -> None:
    running = Pipeline(database_url, tmp_path)
    appender = running.log.appender()
    appender.append([Draft(TOPICS.recorded, 0, key, b"nothing") for key in (b"A" * 100_000, b"A\x00", b"\xff")])
    appender.close()
    running.catch_up_views()
    projection = running._projector._projection
    assert projection is not None
    held = list(projection._accounts)
    running.close()

    assert held == []


def test_an_open_reader_sees_the_build_that_goes_live_whatever_its_columns(reader: Reader, pipeline: Pipeline) -> None:
    """Its statements are prepared on the build before."""

    def seen() -> list[object]:
        (waiting,) = [entry.event_id for entry in reader.history(WAITING)[:1]]
        assert waiting is not None
        return [reader.donation(WAITING), reader.amounts([WAITING]), reader.outcome(waiting)]

    before = seen()
    with schema.connect(pipeline.database) as connection:
        build = schema.live_build(connection)
        assert build is not None
        empty = schema.new_build(connection, 4, "rebuild")
        for table in ("donations", "amounts", "entries", "refusals"):
            connection.execute(sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS added integer").format(sql.Identifier(empty, table)))
        schema.go_live(connection, empty)
        connection.commit()
        assert reader.donation(WAITING) is None
        assert reader.amounts([WAITING]) == {WAITING: []}
        schema.go_live(connection, build)
        connection.commit()
        schema.drop_build(connection, empty)

    assert seen() == before


def test_rows_written_one_by_one_are_those_written_by_copy(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FEW", 1_000_000)
    running, refused = Pipeline(database_url, tmp_path), Acts(CHILDLESS, NOW).confirmed()
    life = list(full_life(LIFE, NOW))
    running.submit([*life[:10], refused])
    running.submit([*life[10:], *waiting(), observed()])
    monkeypatch.setattr(writer, "FEW", 0)
    found = rebuild(running.log, TOPICS, database_url)
    running.close()

    assert found.total_differences == 0, found.named
    assert found.sha256 == found.live_sha256
    assert all(found.rows[table] > 0 for table in ("entries", "refusals", "donations", "amounts", "approvals"))


def test_a_rebuild_of_these_views_is_equal(pipeline: Pipeline, tmp_path: Path) -> None:
    found = rebuild(pipeline.log, TOPICS, pipeline.database)

    assert found.total_differences == 0
    assert found.rows["approvals"] > 0
    print(f"{found.total_rows} rows compared, {found.total_differences} differences")
