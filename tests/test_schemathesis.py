"""Every operation of the OpenAPI document, attacked by schemathesis with the token of each role and with none. What is not as the document
says is a failure; so is any answer of 500 or above. Afterwards the views are still what the log says."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aidtrail.audit.rebuild import rebuild
from aidtrail.gateway import local
from aidtrail.gateway.app import create
from aidtrail.gateway.state import Gateway
from aidtrail.log.memory import MemoryLog
from tests.acts import Acts
from tests.databases import Server
from tests.pipeline import TOPICS, Pipeline
from tests.serving import Served

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "schemas/openapi.json"
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
WHOSE = (
    None, "krcs-officer", "mef-approver", "krcs-preparer", "krcs-releaser", "krcs-bank", "bank-adapter", "timekeeper", "fts-import",
    "krcs-auditor", "krcs-allrounder", "krcs-retired",
)  # fmt: skip
"""Whose token; the last has every role, and is retired."""


class Counting:
    """An application that counts its answers by status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.statuses: Counter[int] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.statuses[message["status"]] += 1
            await send(message)

        await self._app(scope, receive, counted)


class Target:
    """A gateway with two donations under way, and the pipeline behind it."""

    def __init__(self, url: str, counting: Counting, pipeline: Pipeline, home: Path) -> None:
        self.url, self.counting, self.pipeline, self.home = url, counting, pipeline, home

    def attack(self, actor_id: str | None, seed: int, folder: Path, *options: str) -> int:
        """Returns the number of cases."""
        report = folder / "report.json"
        token = [] if actor_id is None else [f"Authorization: Bearer {self._token(actor_id)}"]
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", str(DOCUMENT), "--url", self.url, "--seed", str(seed), "--no-color",
            "--exclude-checks", "positive_data_acceptance,negative_data_rejection",  # `attack` has them in their place
            "--continue-on-failure", "--generation-database", "none", "--report", "json", "--report-json-path", str(report),
            *(["--header", *token] if token else []), *options,
        ]  # fmt: skip
        self.counting.statuses.clear()
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.attack", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}

        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1500, check=False)

        assert done.returncode == 0, f"seed {seed}, {actor_id}: {done.stdout[-20_000:]}{done.stderr[-2_000:]}"
        found = json.loads(report.read_text(encoding="utf-8"))
        statuses = self.counting.statuses
        phases = [name for name, phase in found["phases"].items() if phase["status"] == "success"]
        print(
            f"seed {seed}, {actor_id or 'no token'}: {found['operations']['tested']} operations, {', '.join(phases)}: "
            f"{found['test_cases']['generated']} cases, {len(found['failures'])} failures; "
            f"{sum(number for status, number in statuses.items() if status >= 500)} x 500, {dict(sorted(statuses.items()))}"
        )
        assert found["failures"] == []
        assert not any(status >= 500 for status in statuses)
        assert found["operations"]["errored"] == 0
        assert found["operations"]["tested"] == found["operations"]["selected"]
        return int(found["test_cases"]["generated"])

    def differences(self) -> int:
        """Of the views from what the log says."""
        self.pipeline.wait()
        return rebuild(self.pipeline.log, TOPICS, self.pipeline.database).total_differences

    def _token(self, actor_id: str) -> str:
        return local.issue(self.home, actor_id, hours=2, now=datetime.now(UTC).timestamp())


@pytest.fixture(scope="module")
def target(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    database, home, log = postgres_server.create_database(), tmp_path_factory.mktemp("home"), MemoryLog()
    pipeline = Pipeline(database, tmp_path_factory.mktemp("ledger"), log)
    lives = [Acts(f"KRCS-2026-004{number}", NOW) for number in (1, 2)]
    pipeline.submit([event for a in lives for event in (a.announced(), a.confirmed(), a.requested())])
    counting = Counting(create(Gateway(lambda: log, TOPICS, database, local.local_verifier(home)), TOPICS))
    with pipeline.running(), Served(counting) as served:
        yield Target(served.url, counting, pipeline, home)
    pipeline.close()


def test_every_operation_withstands_an_officer_and_who_has_no_token(target: Target, tmp_path: Path) -> None:
    count = target.attack(None, 1, tmp_path, "--phases", "examples,fuzzing", "--max-examples", "2")
    count += target.attack("krcs-officer", 2, tmp_path, "--phases", "examples,fuzzing,stateful", "--max-examples", "2")
    print(f"{count} cases, {target.differences()} differences")
    assert count > 200
    assert target.differences() == 0


def test_the_corners_of_what_is_read_and_submitted_withstand_who_has_every_role(target: Target, tmp_path: Path) -> None:
    chosen = [option for name in ("listDonations", "listEntries", "ApprovalDecided") for option in ("--include-operation-id", name)]

    count = target.attack("krcs-allrounder", 3, tmp_path, "--phases", "coverage", *chosen)

    assert count > 200
    assert target.differences() == 0


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("actor_id", WHOSE)
def test_every_operation_withstands_all_phases_with_each_token(target: Target, tmp_path: Path, actor_id: str | None) -> None:
    count = target.attack(actor_id, 10 + WHOSE.index(actor_id), tmp_path, "--max-examples", "5")

    print(f"{count} cases, {target.differences()} differences")
    assert count > 3000
    assert target.differences() == 0
