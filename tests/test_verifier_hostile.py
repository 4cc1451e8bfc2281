"""Whoever hands over an export or a bundle has no hold over the verifier: not by what it says of it, nor by what it does to it."""

import base64
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aidtrail.audit import verifier
from tests.acts import full_life
from tests.worlds import KEY, SCHEMAS, TRUSTED, World, proved, saved

VKEY = str(KEY.verifier)
TRUST = verifier.Trust(TRUSTED)
LIFE = "KRCS-2026-0001"
CLAIMS = ("C1", "C2", "C3", "C4")

Bundle = dict[str, Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(2, tmp_path_factory.mktemp("world"), [list(full_life(LIFE))])


@pytest.fixture
def bundle(world: World) -> Bundle:
    return proved(world.held(), LIFE, since=2)


@pytest.fixture(scope="module")
def sound(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "export"
    saved(world.held(), folder)
    return folder


@pytest.fixture
def export(sound: Path, tmp_path: Path) -> Path:
    """A copy, to do something to."""
    return Path(shutil.copytree(sound, tmp_path / "export"))


def said_of(report: verifier.Report) -> tuple[int, dict[str, str]]:
    """The exit code, and by claim whether it holds, fails, or was not examined."""
    words: dict[str, str] = {}
    for line in verifier.lines(report, TRUST):
        claim, _, rest = line.partition(" ")
        if claim in CLAIMS:
            words[claim] = rest.split(":")[0].split(" ")[0]
    return report.exit_code, words


# --- what was not examined is not said to hold --------------------------------------------------------------------------------------


def without(name: str) -> Callable[[Bundle], object]:
    return lambda bundle: bundle.pop(name)


def forged_checkpoint(bundle: Bundle) -> None:
    bundle["checkpoint"] = bundle["checkpoint"].replace("\n6\n", "\n7\n")


def another_manifest(bundle: Bundle) -> None:
    bundle["manifest"]["path"] = bundle["manifest"]["path"][1:]


def consistency_is_a_list(bundle: Bundle) -> None:
    bundle["consistency"] = []


def path_of_an_entry_is_a_number(bundle: Bundle) -> None:
    bundle["entries"][3]["path"] = 7


def offset_is_a_word(bundle: Bundle) -> None:
    bundle["entries"][3]["offset"] = "three"


NOT = "not"
UNREADABLE: list[tuple[Callable[[Bundle], object], int, dict[str, str]]] = [
    (dict.clear, 11, {"C1": NOT, "C2": NOT, "C4": NOT}),
    (without("checkpoint"), 11, {"C1": NOT, "C2": NOT, "C4": NOT}),
    (forged_checkpoint, 11, {"C1": NOT, "C2": NOT, "C4": NOT}),
    (consistency_is_a_list, 11, {"C1": NOT, "C2": NOT, "C4": NOT}),
    (without("manifest"), 11, {"C1": NOT, "C2": NOT, "C4": NOT}),
    (another_manifest, 11, {"C1": NOT, "C2": NOT, "C4": NOT}),
    (without("schemas"), 14, {"C1": "holds", "C2": NOT, "C4": NOT}),
    (without("entries"), 14, {"C1": "holds", "C2": NOT, "C4": NOT}),
    (path_of_an_entry_is_a_number, 14, {"C1": "holds", "C2": NOT, "C4": NOT}),
    (offset_is_a_word, 11, {"C1": "fails", "C2": NOT, "C4": NOT}),
    (without("views"), 14, {"C1": "holds", "C2": "holds", "C4": NOT}),
    (without("key"), 0, {"C1": "holds", "C2": "holds", "C4": "holds"}),
]


@pytest.mark.parametrize(("change", "code", "words"), UNREADABLE, ids=[f"{at}" for at in range(len(UNREADABLE))])
def test_a_bundle_that_cannot_be_read_to_its_end_holds_only_in_what_was_read(
    change: Callable[[Bundle], object], code: int, words: dict[str, str], world: World, bundle: Bundle
) -> None:
    """Whoever saw a checkpoint before asked for more than a signed one."""
    change(bundle)

    report = verifier.verify_bundle(bundle, TRUST._replace(memory=world.visits[1]))

    assert said_of(report) == (code, words)
    assert {claim for claim, word in words.items() if word == NOT} <= report.unexamined
    assert report.memory is None or code == 0


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("recorded", {"C1": "fails", "C2": NOT, "C3": NOT}),
        ("submitted", {"C1": "fails", "C2": NOT, "C3": "holds"}),
        ("registry", {"C1": "fails", "C2": NOT, "C3": "holds"}),
    ],
)
def test_an_export_that_cannot_be_read_to_its_end_holds_only_in_what_was_read(topic: str, words: dict[str, str], export: Path) -> None:
    path = max(sorted((export / topic).iterdir()), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-9])

    report = verifier.verify(export, TRUST)

    assert said_of(report) == (11, words)
    assert set(report.unexamined) == {claim for claim, word in words.items() if word == NOT}


def test_as_json_it_says_what_was_not_examined(export: Path, capsys: Any) -> None:
    (export / "registry" / "0.ndjson").unlink()

    verifier.main(["--key", VKEY, "--json", str(export)])

    assert json.loads(capsys.readouterr().out)["not_examined"] == ["C2"]


def test_as_json_it_says_how_much_of_the_log_is_younger_than_the_rows(export: Path, capsys: Any) -> None:
    for path in (export / "views").rglob("*.ndjson"):
        path.write_text("")
    say(export, views=[0, 0, 0])

    assert verifier.main(["--key", VKEY, "--json", str(export)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [said[name] for name in ("rows", "views_behind", "views_sealed")] == [0, 38, 3]


# --- what others wrote is shown, not done -------------------------------------------------------------------------------------------

SCREEN = "ZZ\x1b[2J\x1b[H checkpoint ok\nC1 holds: all\nC2 holds: all\n\x1b[8m\ud800" + "x" * 100_000


def add_row(export: Path, row: dict[str, Any]) -> None:
    with (export / "views" / "donations" / "0.ndjson").open("a") as file:
        file.write(json.dumps(row) + "\n")


def test_what_others_wrote_reaches_the_terminal_as_printable_text_of_bounded_length(export: Path, capsys: Any) -> None:
    add_row(export, {"donation_id": SCREEN})
    path = next(path for path in sorted((export / "views" / "amounts").iterdir()) if path.stat().st_size)
    row = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps(row | {"settled": SCREEN, SCREEN: 1}) + "\n")

    code = verifier.main(["--key", VKEY, str(export)])
    said = capsys.readouterr().out.splitlines()

    assert code == 13
    assert any("ZZ" in line for line in said)
    assert [line for line in said if not line.isprintable()] == []
    assert max(map(len, said)) < 800
    assert not any(line.startswith("C3 holds") for line in said)
    assert sum(line.startswith("C1 holds") for line in said) == 1


def test_a_terminal_that_cannot_show_a_letter_gets_it_escaped(export: Path) -> None:
    add_row(export, {"donation_id": "ZZ-é"})
    words = [sys.executable, str(verifier.__file__), "--key", VKEY, str(export)]

    done = subprocess.run(words, capture_output=True, env={"PYTHONIOENCODING": "ascii"}, timeout=120, check=False)

    assert (done.returncode, done.stderr) == (13, b"")
    assert b"ZZ-\\xe9" in done.stdout


# --- what is handed over neither stops nor fills the reader -------------------------------------------------------------------------


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def a_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


FILES = {
    "recorded/0.ndjson": 11,
    "submitted/0.ndjson": 11,
    "registry/0.ndjson": 11,
    "checkpoints/0.ndjson": 11,
    "views/amounts/0.ndjson": 13,
    "schemas/1.avsc": 12,
    "schemas/999.avsc": 12,
    "leaves/0.bin": 11,
    "about.json": 2,
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("put", [a_folder, a_pipe, a_link_to_a_pipe, a_link_to_a_device, a_dangling_link])
@pytest.mark.parametrize(("name", "code"), FILES.items())
def test_what_stands_where_a_file_should_is_not_opened_and_is_a_finding(
    name: str, code: int, put: Callable[[Path], None], export: Path, capsys: Any
) -> None:
    """The leaves are wanted where a record is missing."""
    path = export / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    if name.startswith("leaves"):
        recorded = export / "recorded" / "0.ndjson"
        recorded.write_text("".join(f"{line}\n" for line in recorded.read_text().splitlines()[:-1]))
    put(path)

    found = verifier.main(["--key", VKEY, str(export)])

    assert found == code, capsys.readouterr().out


@pytest.mark.timeout(30)
@pytest.mark.parametrize("put", [a_folder, a_pipe, a_link_to_a_device, a_dangling_link])
def test_a_bundle_is_a_file(put: Callable[[Path], None], tmp_path: Path) -> None:
    put(tmp_path / "bundle.json")

    assert verifier.main(["--key", VKEY, str(tmp_path / "bundle.json")]) == 2


def test_a_file_is_read_up_to_its_bound_and_no_further(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")

    assert verifier.whole(path, 10) == b"0123456789"
    with pytest.raises(verifier.Wrong, match="expected at most 9 bytes, found more"):
        verifier.whole(path, 9)


def test_a_line_without_an_end_is_a_finding(export: Path) -> None:
    with (export / "recorded" / "0.ndjson").open("r+b") as file:
        file.truncate(300 * 2**20)  # the rest is a hole: zeros without a line feed
    tracemalloc.start()

    report = verifier.verify(export, TRUST)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert report.exit_code == 11
    assert any("expected a JSON object" in one.what for one in report.findings)
    assert peak < 60 * 2**20


def test_a_line_may_be_as_long_as_the_bound_and_no_longer(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = max(len(line) for path in export.rglob("*.ndjson") for line in path.read_bytes().splitlines(keepends=True))
    source = verifier.Source(export)
    monkeypatch.setattr(source, "schemas", lambda: dict(SCHEMAS))
    findings = []

    for bound in (longest, longest - 1):
        monkeypatch.setattr(verifier, "MAX_LINE", bound)
        findings.append(len(verifier.verify_export(source, TRUST).findings))

    assert findings[0] == 0 < findings[1]


@pytest.mark.parametrize(
    "about", ["[]", '"aidtrail-export/1"', "7", "null", "{}", "[[[", '{"format":"aidtrail-export/1","partitions":true}']
)
def test_an_about_that_is_no_object_of_an_export_is_one_clear_line(about: str, export: Path, capsys: Any) -> None:
    (export / "about.json").write_text(about)

    assert verifier.main(["--key", VKEY, str(export)]) == 2
    assert "found no about.json that says so" in capsys.readouterr().err


FIRST, LAST = -62_135_596_800_000, 253_402_300_799_999


@pytest.mark.parametrize(("timestamp", "fits"), [(FIRST, True), (-1, True), (LAST, True), (FIRST - 1, False), (LAST + 1, False)])
def test_an_append_time_is_of_the_years_1_to_9999(timestamp: int, fits: bool) -> None:
    read = {"offset": 0, "timestamp": timestamp, "key": None, "value": None}

    if fits:
        assert verifier.record_of(read) == verifier.Record(0, timestamp, None, None)
    else:
        with pytest.raises(verifier.Wrong, match="expected a record"):
            verifier.record_of(read)


def test_an_append_time_that_no_clock_shows_is_a_finding(export: Path) -> None:
    path = max(sorted((export / "submitted").iterdir()), key=lambda path: path.stat().st_size)
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | {"timestamp": 10**18}), *rest, ""]))

    report = verifier.verify(export, TRUST)

    assert report.exit_code == 11
    assert not any("cannot be examined" in one.what for one in report.findings)


def say(export: Path, **changes: Any) -> None:
    about = json.loads((export / "about.json").read_text())
    (export / "about.json").write_text(json.dumps(about | changes))


@pytest.mark.timeout(30)
def test_no_more_partitions_are_walked_than_are_sealed_whatever_the_export_says(export: Path) -> None:
    say(export, partitions=10**9, views=None)

    report = verifier.verify(export, TRUST)

    assert report.exit_code == 11
    assert report.findings[0].what == "expected the 3 partitions that were sealed, found 1000000000"
    assert not any("expected a file" in one.what for one in report.findings)


@pytest.mark.timeout(60)
def test_where_nothing_is_sealed_the_walk_is_bounded_too(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "MAX_PARTITIONS", 8)
    (export / "checkpoints" / "0.ndjson").write_text("")
    say(export, partitions=10**9, views=None)

    report = verifier.verify(export, TRUST)

    assert "expected at most 8 partitions, found 1000000000" in [one.what for one in report.findings]
    assert report.unexamined == {"C2", "C3"}


def add_record(export: Path, name: str, after: int) -> None:
    """At the end, after so many offsets without a record."""
    path = export / name
    lines = path.read_text().splitlines()
    last = json.loads(lines[-1])
    added = last | {"offset": last["offset"] + after + 1, "value": "AAAA"}
    path.write_text("\n".join([*lines, json.dumps(added), ""]))


def test_offsets_without_a_record_are_lawful_up_to_a_sum_over_everything(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is a leaf that must be hashed."""
    monkeypatch.setattr(verifier, "MAX_GAPS", 100)
    monkeypatch.setattr(verifier, "GAPS_FOR_A_RECORD", 0)
    submitted = [f"submitted/{number}.ndjson" for number in range(3) if (export / "submitted" / f"{number}.ndjson").stat().st_size]
    add_record(export, "registry/0.ndjson", 60)
    add_record(export, submitted[0], 40)

    sound = verifier.verify(export, TRUST)
    add_record(export, submitted[0], 1)
    submission = verifier.verify(export, TRUST)
    add_record(export, "registry/0.ndjson", 41)
    registered = verifier.verify(export, TRUST)

    assert sound.findings == []
    assert (submission.exit_code, [one.topic for one in submission.findings]) == (11, ["submitted"])
    assert (registered.exit_code, registered.findings[0].topic) == (11, "registry")


def test_each_record_makes_room_for_some_offsets_without_one(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "MAX_GAPS", 0)
    add_record(export, "registry/0.ndjson", 60)

    assert verifier.verify(export, TRUST).findings == []


def test_a_record_that_is_too_far_from_the_one_before_it_is_not_walked_to(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "MAX_GAPS", 0)
    monkeypatch.setattr(verifier, "GAPS_FOR_A_RECORD", 0)
    path = max(sorted((export / "recorded").iterdir()), key=lambda path: path.stat().st_size)
    lines = path.read_text().splitlines(keepends=True)
    del lines[3]
    path.write_text("".join(lines))

    report = verifier.verify(export, TRUST)

    assert report.exit_code == 11
    assert report.findings[0].what == "expected one nearer to offset 3, found another"


def test_a_manifest_with_fewer_records_than_none_is_none(world: World) -> None:
    text = (world.held().kept["checkpoints", 0][0].value or b"").decode()
    lines = text.split("\n")
    lines[5] = f"-1 {lines[5].split(' ')[1]}"

    assert verifier.Manifest.parse(text.encode()).number == 0
    with pytest.raises(verifier.Wrong, match="the one way to write a manifest"):
        verifier.Manifest.parse("\n".join(lines).encode())


# --- it always has a last word ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ZeroDivisionError("\x1b[2J"), RecursionError(), MemoryError(), OSError(5, "Input/output error")])
def test_what_nobody_thought_of_is_a_finding_and_no_traceback(
    error: Exception, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(verifier.Walk, "run", fail)

    code = verifier.main(["--key", VKEY, "--last", str(tmp_path / "last.json"), str(export)])
    said = capsys.readouterr().out

    assert code == 11
    assert said.startswith("C1 fails: export: ")
    assert f"cannot be examined: {type(error).__name__}" in said
    assert "holds" not in said
    assert "\x1b" not in said
    assert not (tmp_path / "last.json").exists()


def test_nested_text_is_a_finding_at_every_depth(export: Path, capsys: Any) -> None:
    path = next(path for path in sorted((export / "views" / "donations").iterdir()) if path.stat().st_size)
    row = json.loads(path.read_text().splitlines()[0])
    codes = set()

    for depth in range(10, 1100, 30):
        path.write_text(json.dumps(row).replace('"donor": "KRCS"', '"donor": ' + "[" * depth + "]" * depth) + "\n")
        codes.add(verifier.main(["--key", VKEY, str(export)]))
    capsys.readouterr()

    assert codes <= {11, 13}


def test_a_memory_in_a_folder_that_is_not_there_is_told_before_the_work_begins(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(verifier, "verify", None)

    code = verifier.main(["--key", VKEY, "--last", str(tmp_path / "nowhere" / "last.json"), str(export)])

    assert code == 2
    assert "expected a file in a folder that is there, found none" in capsys.readouterr().err


def test_what_was_found_is_told_also_where_it_cannot_be_remembered(export: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "last.json.new").mkdir()

    code = verifier.main(["--key", VKEY, "--last", str(tmp_path / "last.json"), str(export)])
    said = capsys.readouterr()

    assert code == 2
    assert "C1 holds" in said.out
    assert "last.json cannot be kept" in said.err


# --- what one reader takes for this and another for that ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "twice", "code"),
    [
        ("views/amounts", '"settled": "99999999.0000", ', 13),
        ("recorded", '"value": null, ', 11),
        ("submitted", '"value": null, ', 11),
        ("registry", '"value": null, ', 11),
        ("checkpoints", '"value": null, ', 11),
    ],
)
def test_a_line_that_says_a_thing_twice_is_a_finding_also_where_the_last_word_is_right(
    name: str, twice: str, code: int, export: Path
) -> None:
    path = max(sorted((export / name).iterdir()), key=lambda path: path.stat().st_size)
    path.write_text(path.read_text().replace("{", "{" + twice, 1))

    report = verifier.verify(export, TRUST)

    assert report.exit_code == code
    assert any("line 1: expected a JSON object with each name once" in finding.what for finding in report.findings)


@pytest.mark.parametrize(("before", "twice"), [("{", '"views": {}, '), ('"amounts": [{', '"settled": "99999999.0000", ')])
def test_a_bundle_that_says_a_thing_twice_is_none(before: str, twice: str, bundle: Bundle, tmp_path: Path) -> None:
    text = json.dumps(bundle)
    (tmp_path / "bundle.json").write_text(text.replace(before, before + twice, 1))

    with pytest.raises(verifier.Unusable, match="expected a folder that 'audit export' made"):
        verifier.verify(tmp_path / "bundle.json", TRUST)


def test_an_about_that_says_a_thing_twice_is_none(export: Path) -> None:
    path = export / "about.json"
    path.write_text(path.read_text().replace("{", '{"partitions": 1, ', 1))

    with pytest.raises(verifier.Unusable, match="expected an export"):
        verifier.verify(export, TRUST)


def test_why_submissions_are_missing_is_told_before_that_they_are(export: Path) -> None:
    path = max(sorted((export / "submitted").iterdir()), key=lambda path: path.stat().st_size)
    path.unlink()

    found = verifier.verify(export, TRUST).findings

    assert [finding.what for finding in found][:2] == [
        f"{path.name}: expected a file, found none",
        "expected a submission, which an entry answers, found none",
    ]


def test_of_void_entries_a_bundle_says_nothing(export: Path, bundle: Bundle) -> None:
    """To tell which are void takes all of the partition."""
    said = [" ".join(verifier.lines(report, TRUST)) for report in (verifier.verify(export, TRUST), verifier.verify_bundle(bundle, TRUST))]

    assert "C2 holds: 33 admitted (signed by their actors: 0) and 0 refused entries, 5 void;" in said[0]
    assert "C2 holds: 33 admitted (signed by their actors: 0) and 0 refused entries of one donation; their chain," in said[1]


def test_a_manifest_that_was_altered_on_the_way_is_not_told_as_two_histories_of_the_log(export: Path) -> None:
    """Manifests in an export bear no signature: anybody can alter one, and the log's operator is not accused."""
    path = export / "checkpoints" / "0.ndjson"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records[-2]["value"] = base64.b64encode(base64.b64decode(records[-2]["value"]).replace(b"\n35 ", b"\n36 ")).decode()
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))

    report = verifier.verify(export, TRUST)

    assert report.findings[0].what.startswith("size 6: expected the root of the manifests, ")
    assert report.exit_code == 11


# --- what is handed over and not examined -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("views/donations/3.ndjson", 13),
        ("views/donations/00.ndjson", 13),
        ("views/donations/all.ndjson", 13),
        ("views/totals/0.ndjson", 13),
        ("recorded/3.ndjson", 11),
        ("submitted/3.ndjson", 11),
        ("registry/1.ndjson", 11),
        ("checkpoints/1.ndjson", 11),
        ("figures.ndjson", 11),
        ("views/donations/._0.ndjson", 0),
        ("read-me.txt", 0),
    ],
)
def test_a_file_of_rows_or_records_that_is_of_no_partition_is_a_finding(name: str, code: int, export: Path) -> None:
    """Who reads the folder after 'C3 holds' takes the figures in it for those that were compared."""
    (export / name).parent.mkdir(exist_ok=True)
    (export / name).write_text('{"donation_id": "KRCS-2026-0002", "settled": "99999999.0000"}\n')

    report = verifier.verify(export, TRUST)

    assert report.exit_code == code
    assert [finding.topic for finding in report.findings] == ([name] if code else [])


def test_records_that_are_not_walked_were_not_examined(export: Path) -> None:
    (export / "checkpoints" / "0.ndjson").write_text("")

    code, words = said_of(verifier.verify(export, TRUST))

    assert (code, words["C2"]) == (11, NOT)


def test_where_a_donation_belongs_is_told_by_the_seal_and_not_by_the_export(export: Path) -> None:
    say(export, partitions=4, views=[*json.loads((export / "about.json").read_text())["views"], 0])

    report = verifier.verify(export, TRUST)

    assert [finding.what for finding in report.findings] == ["expected the 3 partitions that were sealed, found 4"]
    assert (report.exit_code, report.admitted) == (11, 33)
