"""README's commands run, and its settings are those of the code. (What it shows of the demo is held against it in test_cli.)"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aidtrail.config import Settings
from tests.brokers import free_ports
from tests.documented import command_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
INLINE = re.findall(r"`([^`]+)`", PROSE)
BIN = Path(sys.executable).parent


def blocks(heading: str) -> list[str]:
    """The shell blocks of a section."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE)
    return re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def settings_table() -> str:
    """One row for each setting: `python -m tests.test_readme` prints it."""
    rows = ["| Variable | If unset | Meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else str(field.default).replace(str(Path.home()), "~")
        shown = f"`{default}`" if default else ""
        rows.append(f"| `AIDTRAIL_{name.upper()}` | {shown} | {(field.description or '').replace('<', '&lt;')} |")
    return "\n".join(rows)


def test_every_setting_is_listed_as_it_is() -> None:
    assert settings_table() in README


def test_every_target_that_is_named_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    named = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(INLINE + blocks("Try it") + blocks("Tests"))))
    assert named >= {"demo", "test", "test-long"}
    assert [target for target in sorted(named) if f"\n{target}:" not in makefile] == []


def test_every_file_that_is_linked_is_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_every_command_that_is_named_exists() -> None:
    commands = {" ".join(words.split()) for words in re.findall(r"aidtrail ((?:[a-z-]+ ?){1,2})", " ".join(INLINE))}

    assert commands
    for command in commands:
        command_of(command)


def test_the_commands_of_use_it_run_as_they_stand(tmp_path: Path) -> None:
    setup, use = blocks("Use it")
    assert setup.splitlines()[0] == "make setup"

    said = _run(use, tmp_path, {})

    assert "KRCS-2025-0042 PledgeAnnounced: admitted, version 1" in said
    assert "125,000.500" in said
    assert ", 0 differences" in said


def test_the_commands_of_over_http_run_as_they_stand(tmp_path: Path) -> None:
    """curl, the client in Python and JavaScript live a donation together."""
    require("curl", "node")
    (port,) = free_ports(1)
    http = "\n".join(blocks("Over HTTP"))
    assert http.count("http://127.0.0.1:8080") == 1
    script = http.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{port}")

    said = _run(f"{_files()}\naidtrail registry load registry.ndjson\n{script}", tmp_path, {"AIDTRAIL_LISTEN": f"127.0.0.1:{port}"})

    ready, pledged, confirmed, withdrawn, *history = said.splitlines()[-7:]
    assert json.loads(ready) == {"ready": True}
    assert (json.loads(pledged)["outcome"], json.loads(pledged)["version"]) == ("admitted", 1)
    assert confirmed == "version 2 committed 9000.5000 KWD"
    assert withdrawn.startswith("201 withdrawn /v1/submissions/")
    assert history == [
        "admitted 1 PledgeAnnounced krcs-officer-1",
        "admitted 2 PledgeConfirmed krcs-officer-2",
        "admitted 3 PledgeWithdrawn krcs-officer-1",
    ]


def test_the_commands_of_sign_run_as_they_stand(tmp_path: Path) -> None:
    """The pledge is admitted signed; another, without a signature, is refused then."""
    (sign,) = blocks("Sign")
    unsigned = "sed 's/cb87/cb88/; s/0042/0044/' pledge.ndjson > other.ndjson\naidtrail submit other.ndjson || [ $? -eq 1 ]\n"

    said = _run(f"{_files()}\naidtrail up &\naidtrail registry load registry.ndjson\n{sign}{unsigned}aidtrail registry show", tmp_path, {})

    assert "KRCS-2025-0042 PledgeAnnounced: admitted, version 1" in said
    assert "KRCS-2025-0044 PledgeAnnounced: REFUSED submission_is_signed_where_required: expected a signature, which KRCS requires" in said
    assert re.search(r"krcs-officer-1 +KRCS +officer +[0-9a-f]{16}\.\.\.", said)


def test_the_commands_of_seal_run_as_they_stand(tmp_path: Path) -> None:
    require("curl")
    seal, witness = blocks("Seal")
    (port,) = free_ports(1)
    seal = seal.replace("seal.key\n", "seal.key > vkey\n", 1)
    witness = witness.replace('"$LOG_KEY" &', f'"$LOG_KEY" --listen 127.0.0.1:{port} &')
    script = f"""{_files()}
{seal}
aidtrail registry load registry.ndjson
aidtrail submit pledge.ndjson
until [ -e home/seal/checkpoint ]; do sleep 0.1; done
cat home/seal/checkpoint
LOG_KEY=$(cat vkey)
{witness}
until curl --silent --output /dev/null http://127.0.0.1:{port}/; do sleep 0.1; done
curl --silent --data-binary @<(printf 'old 0\n\n'; cat home/seal/checkpoint) http://127.0.0.1:{port}/add-checkpoint
"""

    said = _run(script, tmp_path, {"AIDTRAIL_LISTEN": f"127.0.0.1:{free_ports(1)[0]}"})

    assert re.search(r"\naid\.example\.org/donations\n[1-9]\n", said)
    assert said.splitlines()[-1].startswith("— ministry.example/witness ")


def test_the_commands_of_prove_it_to_somebody_run_as_they_stand(tmp_path: Path) -> None:
    """With a copy of the verifier and no other way to Aidtrail's code."""
    seal, (prove,) = blocks("Seal")[0], blocks("Prove it to somebody")
    shutil.copy(ROOT / "services" / "aidtrail" / "audit" / "verifier.py", tmp_path)
    seal = seal.replace("seal.key\n", "seal.key > vkey\n", 1)
    submit = "aidtrail registry load registry.ndjson\naidtrail submit pledge.ndjson\nLOG_KEY=$(cat vkey)\n"
    script = f"{_files()}\n{seal}{submit}{prove}".replace("python verifier.py", f"{sys.executable} -I verifier.py")

    said = _run(script, tmp_path, {"AIDTRAIL_LISTEN": f"127.0.0.1:{free_ports(1)[0]}"}).splitlines()

    whole, one = (re.sub(r"^records \d+", "records N", line) for line in said if line.startswith("records "))
    assert whole == one == "records N, altered 0, removed 0, reordered 0, invented 0, view rows differing 0"
    assert whole in README
    assert [line[:8] for line in said if re.match("C[1-4] ", line)] == [
        "C1 holds",
        "C2 holds",
        "C3 holds",
        "C1 holds",
        "C2 holds",
        "C4 holds",
    ]
    assert (tmp_path / "last-seen.json").exists()


def require(*programs: str) -> None:
    """Without them: a shown skip, in CI a failure."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        message = f"README's examples need {' and '.join(missing)} on the PATH"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def test_the_commands_of_on_kafka_run_as_they_stand(tmp_path: Path, kafka_broker: str, database_url: str) -> None:
    (block,) = blocks("On Kafka")
    block = block.replace("kafka://localhost:9092", f"kafka://{kafka_broker}").replace(
        "postgresql://aidtrail@localhost/aidtrail", database_url
    )
    assert kafka_broker in block
    assert database_url in block

    said = _run(
        f"{_files()}\n{block}\naidtrail submit pledge.ndjson\naidtrail doctor\nkill $(jobs -p)\nwait",
        tmp_path,
        {"AIDTRAIL_TOPIC_PREFIX": "readme"},
    )

    assert "KRCS-2025-0042 PledgeAnnounced: admitted, version 1" in said


def _files() -> str:
    """The commands of "Use it" that write its files."""
    return "\n".join(re.findall(r"^cat > .*?^END$", "\n".join(blocks("Use it")), re.DOTALL | re.MULTILINE))


def _run(script: str, folder: Path, settings: dict[str, str]) -> str:
    """The script as bash runs it, each command of which must succeed; background jobs are ended with it."""
    script = f"set -euo pipefail\nset -m\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{script}\n"
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=_environment(folder, settings), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _environment(folder: Path, settings: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIDTRAIL_")}
    return (
        inherited
        | {"PATH": f"{BIN}:{os.environ['PATH']}", "AIDTRAIL_HOME": str(folder / "home"), "AIDTRAIL_LISTEN": "127.0.0.1:0"}
        | settings
    )


if __name__ == "__main__":
    sys.stdout.write(settings_table() + "\n")
