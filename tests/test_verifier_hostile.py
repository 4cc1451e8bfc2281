"""Whoever hands over an export or a bundle has no hold over the verifier: not by what it says of it, nor by what it does to it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aidtrail.audit import verifier
from tests.acts import full_life
from tests.worlds import KEY, TRUSTED, World, proved, saved

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
