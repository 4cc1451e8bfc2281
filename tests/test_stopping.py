"""A gateway that is told to stop, as Kubernetes tells it: what was under way is answered, and what was answered is in the log, once."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from tests.brokers import free_ports
from tests.test_cli import Up, run
from tests.waiting import eventually

REGISTRY = [
    {"type": "PartyRegistered", "party_id": "KRCS", "name": "Kuwait Red Crescent Society", "kind": "society"},
    {"type": "PartyRegistered", "party_id": "KBH", "name": "Kantha Bopha Children's Hospital", "kind": "hospital"},
    {"type": "ActorEnrolled", "actor_id": "krcs-officer-1", "party_id": "KRCS", "roles": ["officer"]},
]
PLEDGE = {
    "oversight": "managed",
    "donor": "KRCS",
    "beneficiary": "KBH",
    "route": [{"leg_id": "L1", "from_party": "KRCS", "to_party": "KBH"}],
    "amounts": [{"amount": "10.500", "currency": "KWD"}],
}


def registry(home: Path) -> str:
    """Of an actor; returns his token."""
    lines = [
        json.dumps({**event, "event_id": f"0199b896-93a0-7001-8000-00000000000{number}", "occurred_on": "2026-01-01T00:00:00Z"})
        for number, event in enumerate(REGISTRY)
    ]
    assert run(home, "registry", "load", "-", text="\n".join(lines)).returncode == 0
    return run(home, "token", "krcs-officer-1").stdout.strip()


def test_who_waits_when_the_service_is_told_to_stop_is_answered(tmp_path: Path) -> None:
    """No ledger runs: everybody waits for an outcome that does not come."""
    home, (port,) = tmp_path / "home", free_ports(1)
    url, settings = f"http://127.0.0.1:{port}", {"AIDTRAIL_LISTEN": f"127.0.0.1:{port}"}
    up = Up(home).wait_for("running: ledger, projector, timekeeper, gateway")
    token = registry(home)
    assert up.stop() == 0
    donations = [f"STOP-2026-{number:04d}" for number in range(20)]
    serving = Up(home, "serve", settings=settings).wait_for("running on the embedded log")

    def submit(donation_id: str, wait_seconds: int) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": donation_id, "Prefer": f"wait={wait_seconds}"}
        return httpx.post(f"{url}/v1/donations/{donation_id}/pledge", json=PLEDGE, headers=headers, timeout=60)

    with ThreadPoolExecutor(len(donations)) as pool:
        waiting = [pool.submit(submit, donation_id, 30) for donation_id in donations]
        taken = [submit(donation_id, 0).status_code for donation_id in donations]
        told_at = time.monotonic()
        code = serving.stop()
        seconds = time.monotonic() - told_at
        answers = [each.result().status_code for each in waiting]

    up = Up(home).wait_for("running: ledger, projector, timekeeper, gateway")
    assert eventually(lambda: sorted(row["donation_id"] for row in listed(home)) == donations)
    up.stop()
    print(
        f"{len(answers)} requests wait when the service is told to stop: {answers.count(202)} answered 202 and in the log, {seconds:.1f} s"
    )
    assert code == 0
    assert answers == taken == [202] * len(donations)
    assert {(row["version"], row["pledge"]) for row in listed(home)} == {(1, "announced")}


def listed(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(home, "list", "--json").stdout.splitlines()]
