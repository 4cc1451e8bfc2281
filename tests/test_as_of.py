"""The views as they were: made from the log at a cut, by either clock, equal to what was live then; and what changed between two cuts."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest
from psycopg import sql

from aidtrail import cli
from aidtrail.audit import cuts
from aidtrail.audit.as_of import AsOf, Moment, as_of
from aidtrail.audit.changes import changes
from aidtrail.audit.replay import extent_of, replay
from aidtrail.errors import UnavailableError, UsageError
from aidtrail.log import Draft
from aidtrail.log.memory import MemoryLog
from aidtrail.log.postgres import PostgresLog
from aidtrail.views import schema
from aidtrail.views.reader import Reader
from tests.acts import START, Acts, full_life, money
from tests.databases import Server
from tests.pipeline import TOPICS, Pipeline
from tests.replaying import Clock, submit, unlawful
from tests.test_cuts import live


class Step(NamedTuple):
    """The live views at a moment: their cut, and what a reader saw."""

    at: datetime
    cut: cuts.Cut
    seen: dict[str, list[object]]


class Past(NamedTuple):
    pipeline: Pipeline
    log: MemoryLog
    steps: list[Step]


@pytest.fixture(scope="module")
def past(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    """Four donations whose events are a minute apart; every so often what the views showed is kept, and a zombie's entries come in."""
    log = MemoryLog(Clock())
    running = Pipeline(postgres_server.create_database(), tmp_path_factory.mktemp("ledger"), log)
    lives = [*full_life("KRCS-2026-0001"), *full_life("KRCS-2026-0002", START + timedelta(seconds=10))]
    for number in (3, 4):
        lives += unlawful(Acts(f"KRCS-2026-000{number}", START + timedelta(seconds=10 * number)))
    lives.sort(key=lambda event: event.meta.occurred_on)
    steps: list[Step] = []
    for first in range(0, len(lives), 31):
        submit(log, lives[first : first + 31])
        running.catch_up()
        with schema.connect(running.database) as connection:
            cut = cuts.of_build(connection, live(connection))
        steps.append(Step(lives[min(first + 30, len(lives) - 1)].meta.occurred_on, cut, seen(running.database)))
        late = log._topics[TOPICS.recorded][1][:2]
        appender = log.appender()
        appender.append([Draft(record.topic, record.partition, record.key or b"", record.value or b"") for record in late])
        appender.close()
    yield Past(running, log, steps)
    running.close()
    postgres_server.drop_database(running.database)


def seen(database: str, build: str | None = None) -> dict[str, list[object]]:
    """All that the commands show of each donation."""
    reader = Reader.open(database, build)
    rows = list(reader.donations())
    found: dict[str, list[object]] = {row.donation_id: [row, reader.history(row.donation_id)] for row in rows}
    for donation_id, amounts in reader.amounts(list(found)).items():
        found[donation_id] += [amounts, list(reader.approvals(donation_id=donation_id))]
    reader.close()
    return found


def build(past: Past, **moment: object) -> AsOf:
    return as_of(past.log, TOPICS, past.pipeline.database, Moment(**moment))  # type: ignore[arg-type]


def drop(past: Past, *builds: AsOf) -> None:
    with schema.connect(past.pipeline.database) as connection:
        connection.autocommit = True
        for made in builds:
            schema.drop_build(connection, made.build)


def test_a_cut_gives_the_views_of_then(past: Past) -> None:
    for step in past.steps:
        found = build(past, cut=step.cut)

        assert found.cut == step.cut
        assert found.differences == []
        assert seen(past.pipeline.database, found.build) == step.seen
        drop(past, found)
    print(f"{len(past.steps)} cuts built again, 0 differences")


def test_a_moment_gives_what_was_recorded_by_then(past: Past) -> None:
    """Entries of a zombie stand after the cut, with times of long ago: they end nothing, and count for nothing."""
    for step in past.steps:
        found, before = build(past, time=step.at), build(past, time=step.at - timedelta(milliseconds=1))

        without_voids = [
            {d: [row, *rest] for d, (row, _, *rest) in shown.items()} for shown in (seen(past.pipeline.database, found.build), step.seen)
        ]
        assert without_voids[0] == without_voids[1]
        tails = [[place[1:] for _, place in sorted(cut.places.items())] for cut in (found.cut, step.cut, before.cut)]
        assert tails[0] == tails[1] != tails[2]
        drop(past, found, before)


def test_the_live_views_stay_as_they_are_and_no_trace_is_left(past: Past) -> None:
    before = seen(past.pipeline.database)

    found = build(past, time=past.steps[0].at)
    drop(past, found)

    assert seen(past.pipeline.database) == before
    with schema.connect(past.pipeline.database) as connection:
        assert [row[0] for row in connection.execute("SELECT name FROM aidtrail.builds")] == ["views_1"]


def test_a_build_of_the_past_cannot_go_live(past: Past) -> None:
    found = build(past, time=past.steps[0].at)

    with schema.connect(past.pipeline.database) as connection:
        with pytest.raises(UsageError, match=r"as of recorded by 2026-01-05T.*Z: it is for reading"):
            schema.go_live(connection, found.build)
        connection.rollback()
    drop(past, found)


def test_an_outage_leaves_no_half_made_build(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aidtrail.audit.building.POLL_SECONDS", 0.01)
    monkeypatch.setattr("aidtrail.log.memory.MemoryReader.poll", lambda *_: {})

    with pytest.raises(UnavailableError, match="could not be read up to the cut"):
        build(past)

    with schema.connect(past.pipeline.database) as connection:
        assert [row[0] for row in connection.execute("SELECT name FROM aidtrail.builds")] == ["views_1"]


@pytest.mark.parametrize("field", ["next_offset", "last_submitted_offset", "last_outcome_sha256", "rows_sha256"])
def test_a_cut_that_the_log_does_not_give_any_more_is_named(past: Past, field: str) -> None:
    cut = past.steps[-1].cut
    changed = b"\1" * 32 if field.endswith("sha256") else getattr(cut.places[1], field) + 1000
    kept = cuts.Cut({**cut.places, 1: cut.places[1]._replace(**{field: changed})})

    found = build(past, cut=kept)
    drop(past, found)

    stated = changed.hex() if isinstance(changed, bytes) else changed
    assert next(line for line in found.differences if field in line).startswith(f"partition 1 {field}: expected {stated}, found ")


def test_a_replay_up_to_a_cut_finds_its_outcomes_and_names_another_cuts(past: Past) -> None:
    for step in past.steps:
        found = replay(past.log, TOPICS, extent=extent_of(past.log, TOPICS, step.cut))

        assert (found.differing, found.unanswered, found.entries) == (0, 0, sum(step.cut.next_offsets.values()))

    cut = past.steps[0].cut
    place = cut.places[3]._replace(last_outcome_sha256=b"\1" * 32)
    (difference,) = replay(past.log, TOPICS, extent=extent_of(past.log, TOPICS, cuts.Cut({**cut.places, 3: place}))).differences
    assert (difference.partition, difference.offset, difference.field) == (3, place.next_offset - 1, "last outcome of the cut")


# --- what had occurred ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def late(database_url: str, tmp_path: Path) -> Iterator[Past]:
    """A payment is instructed on day 2 and released on day 3, by their own account; the confirmation of day 1 is reported on day 9."""
    log = MemoryLog(Clock())
    running, a = Pipeline(database_url, tmp_path, log), Acts()
    days = {
        1: [a.announced(), *a.approval()],
        3: [a.instructed(meta={"occurred_on": a.later(3.2)}), a.released(meta={"occurred_on": a.later(3.1)})],
        9: [a.confirmed(meta={"occurred_on": a.later(1)})],
    }
    assert isinstance(log.clock, Clock)
    steps = []
    for day, events in days.items():
        log.clock.now += 86_400_000 * day
        running.submit(events)
        with schema.connect(database_url) as connection:
            steps.append(Step(a.later(day), cuts.of_build(connection, live(connection)), {}))
    yield Past(running, log, steps)
    running.close()


def status(past: Past, made: AsOf) -> tuple[str, str, int, int]:
    """Pledge, disbursement, version, and entries in the history."""
    reader = Reader.open(past.pipeline.database, made.build)
    row, history = reader.donation("KRCS-2026-0001"), reader.history("KRCS-2026-0001")
    reader.close()
    assert row is not None
    return row.pledge, row.disbursement, row.version, len(history)


def test_what_had_occurred_is_in_though_it_was_reported_later(late: Past) -> None:
    found = build(late, occurred_by=START + timedelta(days=2))

    assert status(late, found) == ("committed", "none", 5, 5)
    assert found.left_out == 0
    with schema.connect(late.pipeline.database) as connection:
        count = sql.SQL("SELECT (SELECT count(*) FROM live.entries) - (SELECT count(*) FROM {}.entries)").format(
            sql.Identifier(found.build)
        )
        assert connection.execute(count).fetchone() == (found.later,)
    assert found.later > 0


def test_what_was_known_then_about_what_had_occurred_is_both_clocks_together(late: Past) -> None:
    found = build(late, cut=late.steps[0].cut, occurred_by=START + timedelta(days=2))

    assert status(late, found) == ("announced", "none", 4, 4)
    assert found.differences == []


def test_what_rests_on_something_that_occurred_later_is_left_out_and_counted(late: Past) -> None:
    between = build(late, occurred_by=START + timedelta(days=3.15))
    after = build(late, occurred_by=START + timedelta(days=4))

    assert (between.left_out, status(late, between)[1:3]) == (1, ("none", 5))
    assert (after.left_out, status(late, after)[1:3]) == (0, ("in_flight", 7))


def test_few_donations_in_memory_make_no_difference(late: Past) -> None:
    moment = Moment(occurred_by=START + timedelta(days=3.15))

    found = as_of(late.log, TOPICS, late.pipeline.database, moment, max_accounts=0)

    assert (found.left_out, status(late, found)) == (1, ("committed", "none", 5, 6))


# --- what changed ---------------------------------------------------------------------------------------------------------------------


def test_the_changes_between_two_cuts_are_entries_donations_and_amounts_by_currency(database_url: str, tmp_path: Path) -> None:
    log = MemoryLog()
    running, a, b, c = Pipeline(database_url, tmp_path, log), Acts("KRCS-2026-0001"), Acts("KRCS-2026-0002"), Acts("KRCS-2026-0003")
    running.submit([a.announced(valid_until=None), b.announced(valid_until=None)])
    with schema.connect(database_url) as connection:
        cut = cuts.of_build(connection, live(connection))
    running.submit(
        [a.amended(valid_until=None, amounts=(money("1500"), money("70", "USD"))), a.confirmed(by="krcs-officer"), a.confirmed()]
    )
    running.submit([c.observed(amounts=(money("10", "USD"),), valid_until=None)])
    then = as_of(log, TOPICS, database_url, Moment(cut=cut))

    with schema.connect(database_url) as connection:
        found, back = (changes(connection, *pair) for pair in ((then.build, "views_1"), ("views_1", then.build)))
    running.close()

    assert [(count.change, count.outcome, count.event_type, count.entries) for count in found.entries] == [
        ("new", "admitted", "PledgeAmended", 1),
        ("new", "admitted", "PledgeAnnounced", 1),
        ("new", "admitted", "PledgeConfirmed", 1),
        ("new", "refused", "SubmissionRefused", 1),
    ]
    assert [(d.donation_id, d.change, d.version_before, d.version_after) for d in found.donations] == [
        ("KRCS-2026-0001", "changed", 1, 3),
        ("KRCS-2026-0003", "new", None, 1),
    ]
    assert [(amount.oversight, amount.currency, amount.amount, amount.before, amount.after) for amount in found.amounts] == [
        ("managed", "KWD", "pledged", Decimal(2000), Decimal(2500)),
        ("managed", "USD", "pledged", Decimal(0), Decimal(70)),
        ("observed", "USD", "pledged", Decimal(0), Decimal(10)),
    ]
    assert {count.change for count in back.entries} == {"gone"}
    assert [amount.change for amount in back.amounts] == [-amount.change for amount in found.amounts]


# --- the commands ---------------------------------------------------------------------------------------------------------------------


class Ran(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Ran]


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `aidtrail` in this process, with log and views in this database."""
    monkeypatch.setenv("AIDTRAIL_LOG", database_url)
    monkeypatch.setenv("AIDTRAIL_VIEWS", database_url)

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr("sys.argv", ["aidtrail", *arguments])
        capsys.readouterr()
        return Ran(cli.run(), *capsys.readouterr())

    return run


def test_the_commands_take_a_cut_show_the_past_and_name_what_changed(database_url: str, command: Command, tmp_path: Path) -> None:
    running, a = Pipeline(database_url, tmp_path, PostgresLog(database_url)), Acts()
    running.submit([a.announced(valid_until=None)])
    taken = command("audit", "cut", "first", "--json")
    (tmp_path / "first.json").write_text(taken.stdout)
    running.submit([a.confirmed()])
    made = command("audit", "as-of", "--cut", str(tmp_path / "first.json"))
    then, now = (command("status", a.donation_id, "--json", *build) for build in (("--build", "views_2"), ()))
    differing = command("audit", "diff", "first", "live")
    listed, dropped = command("audit", "builds"), command("audit", "drop", "views_2")
    with schema.connect(database_url) as connection:
        connection.execute("UPDATE views_1.amounts SET pledged = 7")
    altered = command("audit", "cut", "second")
    replayed = command("audit", "replay", "--cut", str(tmp_path / "first.json"), "--json")
    resumed = command("audit", "replay", "--since", str(tmp_path / "first.json"))
    running.submit([a.confirmed()])
    forged = json.loads(taken.stdout)
    forged["partitions"][0]["next_offset"] = 900
    (tmp_path / "forged.json").write_text(json.dumps(forged))
    wrong = [
        command("audit", "as-of", *options)
        for options in (
            (),
            ("--time", "yesterday"),
            ("--cut", str(tmp_path / "forged.json")),
            ("--time", "2026-01-01T00:00:00Z", "--cut", "first"),
        )
    ]
    left = command("audit", "builds", "--json")
    running.close()

    assert taken.returncode == 0, taken.stderr
    assert made.returncode == 0, made.stderr + made.stdout
    assert made.stdout.splitlines()[-1].startswith("views_2: 1 entries, sha256 ")
    assert made.stdout.endswith(", 0 differences from the cut\n")
    assert [json.loads(shown.stdout)["version"] for shown in (then, now)] == [1, 2]
    assert f"changed: {a.donation_id}, version 1 -> version 2, announced -> committed" in differing.stdout
    assert differing.stdout.endswith("1 new entries, 0 gone, 1 donations differ\n")
    assert "as of cut " in listed.stdout
    assert [line.split()[0] for line in listed.stdout.splitlines() if " live " in line] == ["views_1"]
    assert listed.stdout.split()[0] == "build"
    assert dropped.stdout == "dropped: views_2\n"
    assert altered.returncode == 1
    assert "followed           1" in resumed.stdout
    assert resumed.stdout.endswith("1 submissions and 1 entries replayed, 1 before them followed, 0 differences\n"), (
        resumed.stdout + resumed.stderr
    )
    assert replayed.returncode == 0, replayed.stdout
    assert json.loads(replayed.stdout)["equal"] == 1
    assert f"altered: the rows of {a.donation_id}" in altered.stdout
    assert [(found.returncode, len(found.stderr.splitlines())) for found in wrong] == [(2, 1)] * 4
    assert [json.loads(line)["build"] for line in left.stdout.splitlines()] == ["views_1"]
