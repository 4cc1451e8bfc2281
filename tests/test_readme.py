"""README's commands run, and its settings are those of the code. (What it shows of the demo is held against it in test_cli.)"""

import json
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
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


def test_the_commands_of_sign_seal_and_prove_run_as_they_stand_after_those_of_use_it(tmp_path: Path) -> None:
    """All of them in one shell, in README's order, in a folder that has `services` as a clone has. The ports alone are others."""
    (port,) = free_ports(1)
    (sign,), (seal, witness), (prove,) = blocks("Sign"), blocks("Seal"), blocks("Prove it to somebody")
    assert witness.count("127.0.0.1:8090") == 1
    (tmp_path / "services").symlink_to(ROOT / "services")

    said = _run(blocks("Use it")[1] + sign + seal + witness.replace("8090", str(port)) + prove, tmp_path, {})

    assert "KRCS-2025-0042 PledgeAnnounced: admitted, version 1" in said
    assert "KRCS-2025-0044 PledgeAnnounced: admitted, version 1" in said
    assert re.search(r"^ministry\.example/witness\+", said, re.MULTILINE)
    whole, one = (re.sub(r"^records \d+", "records N", line) for line in said.splitlines() if line.startswith("records "))
    assert whole == one == "records N, altered 0, removed 0, reordered 0, invented 0, view rows differing 0"
    assert whole in README
    claims = [line[:8] for line in said.splitlines() if re.match("C[1-4] ", line)]
    assert claims == ["C1 holds", "C2 holds", "C3 holds", "C1 holds", "C2 holds", "C4 holds"]
    assert (tmp_path / "auditor" / "last-seen.json").exists()


def test_after_sign_the_registry_has_the_key_and_an_unsigned_event_of_the_party_is_refused(tmp_path: Path) -> None:
    unsigned = "sed 's/cb88/cb89/; s/0044/0045/' another-pledge.ndjson > unsigned.ndjson\naidtrail submit unsigned.ndjson || [ $? -eq 1 ]\n"

    said = _run(f"{blocks('Use it')[1]}{blocks('Sign')[0]}aidtrail up &\n{unsigned}aidtrail registry show", tmp_path, {})

    assert "KRCS-2025-0045 PledgeAnnounced: REFUSED submission_is_signed_where_required: expected a signature, which KRCS requires" in said
    assert re.search(r"krcs-officer-1 +KRCS +officer +[0-9a-f]{16}\.\.\.", said)


def test_a_witness_cosigns_what_seal_signs(tmp_path: Path) -> None:
    require("curl")
    (port,) = free_ports(1)
    seal, witness = blocks("Seal")
    script = f"""{blocks("Use it")[1]}
{seal}
{witness.replace("8090", str(port))}
until [ -e home/seal/checkpoint ]; do sleep 0.1; done
cat home/seal/checkpoint
until curl --silent --output /dev/null http://127.0.0.1:{port}/; do sleep 0.1; done
curl --silent --data-binary @<(printf 'old 0\\n\\n'; cat home/seal/checkpoint) http://127.0.0.1:{port}/add-checkpoint
"""

    said = _run(script, tmp_path, {})

    assert re.search(r"\naid\.example\.org/donations\n[1-9]\n", said)
    assert said.splitlines()[-1].startswith("— ministry.example/witness ")


def test_git_ignores_the_secrets_that_the_commands_make() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()

    made = set(re.findall(r"[\w-]+\.key\b", README)) | {"passwords/"}
    assert made == {"krcs-officer-1.key", "seal.key", "witness.key", "passwords/"}
    assert [name for name in made if not any(fnmatch(name, pattern.lstrip("/")) for pattern in ignored)] == []


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
