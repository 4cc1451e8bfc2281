"""A rolling restart of everything. The small version, with one of each service on an event's way, is part of `test_deploy`."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.brokers import free_ports
from tests.deployed import Deployment
from tests.rolling import roll

REPLICAS = 2  # but one seal: a second refuses to work in the same folder


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_rolling_restart_under_load_loses_and_repeats_nothing(kafka_broker: str, database_url: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        deployment = Deployment(kafka_broker, database_url, tmp_path, f"rolling-{free_ports(1)[0]}")
        stack.callback(deployment.close)
        deployment.prepare()
        names = [name for name in deployment.services if name not in (*deployment.one_off, "seal")] * REPLICAS + ["seal"]
        for instance in [deployment.start(name) for name in names]:
            instance.wait_until_healthy()

        told = roll(deployment, deployment.running())
        codes = [instance.stop() for instance in deployment.running()]

    assert set(codes) == {0}
    print(told)
