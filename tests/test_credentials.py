"""A Kafka that asks for credentials, over TLS: the right ones work, and wrong ones are one line that says what to check."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aidtrail.log.kafka import OPEN_SECONDS
from tests.brokers import SecuredBroker
from tests.waiting import eventually

AIDTRAIL = Path(sys.executable).with_name("aidtrail")
OTHER_CA_FILE = "of an authority that signed nothing here"
START_SECONDS = 12
"""What three processes at a time may take to start and to end, on a busy machine."""


@pytest.fixture
def settings(secured: SecuredBroker, database_url: str, tmp_path: Path) -> dict[str, str]:
    """Those that are right."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIDTRAIL_")}
    return inherited | {
        "AIDTRAIL_HOME": str(tmp_path / "home"),
        "AIDTRAIL_LOG": f"kafka://{secured.bootstrap}",
        "AIDTRAIL_VIEWS": database_url,
        "AIDTRAIL_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "AIDTRAIL_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "AIDTRAIL_KAFKA_USERNAME": secured.USER,
        "AIDTRAIL_KAFKA_PASSWORD": secured.PASSWORD,
        "AIDTRAIL_KAFKA_CA_FILE": str(secured.ca_file),
    }


def run(settings: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([AIDTRAIL, *arguments], env=settings, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


def test_with_the_right_credentials_topics_are_created_and_services_run(settings: dict[str, str], tmp_path: Path) -> None:
    created, checked = run(settings, "topics", "create", "--partitions", "2"), run(settings, "topics", "check")
    assert (created.returncode, created.stderr) == (0, "")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert created.stdout.count(": created") == 4
    assert "as required, 2 partitions" in checked.stdout

    for service in ("ledger", "project"):
        said = tmp_path / f"{service}.err"
        with said.open("w") as errors, subprocess.Popen([AIDTRAIL, service], env=settings, stderr=errors) as process:
            try:
                assert eventually(lambda said=said: "partition" in said.read_text(), 30), said.read_text()  # type: ignore[misc]
            finally:
                process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        assert {json.loads(line)["level"] for line in said.read_text().splitlines()} == {"info"}


@pytest.mark.parametrize(
    ("setting", "wrong", "to_check"),
    [
        ("AIDTRAIL_KAFKA_PASSWORD", "wrong-password", ["AIDTRAIL_KAFKA_USERNAME", "AIDTRAIL_KAFKA_PASSWORD"]),
        ("AIDTRAIL_KAFKA_CA_FILE", OTHER_CA_FILE, ["certificate verify failed", "AIDTRAIL_KAFKA_CA_FILE"]),
        ("AIDTRAIL_KAFKA_SECURITY_PROTOCOL", "PLAINTEXT", ["AIDTRAIL_KAFKA_SECURITY_PROTOCOL"]),
    ],
    ids=["password", "CA", "protocol"],
)
def test_wrong_credentials_are_one_line_that_says_what_to_check_and_exit_3(
    secured: SecuredBroker, settings: dict[str, str], setting: str, wrong: str, to_check: list[str]
) -> None:
    settings[setting] = str(secured.other_ca_file) if wrong is OTHER_CA_FILE else wrong
    commands = [("topics", "check"), ("ledger",), ("project",)]
    started = time.monotonic()

    with ThreadPoolExecutor(len(commands)) as pool:
        ended = list(pool.map(lambda command: run(settings, *command), commands))

    took_seconds = time.monotonic() - started
    for done in ended:
        assert done.returncode == 3
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"aidtrail: Kafka at {secured.bootstrap} cannot be reached or refuses: ")
        assert [words for words in [*to_check, "Check AIDTRAIL_LOG"] if words not in line] == [], line
        assert "-password" not in line
        print(line)
    assert took_seconds < OPEN_SECONDS + START_SECONDS
    print(f"{len(ended)} commands, {len(ended)} lines, {took_seconds:.1f} s")
