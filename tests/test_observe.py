"""`make observe` on a smaller load: no panel is empty, and the money in Prometheus is that of the views. And that neither it nor the drill
can pass over what is wrong."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import drill, observe
from tests.conftest import require_kafka
from tests.observe import Told
from tests.test_grafana import NAMES, panels
from tests.test_prometheus import ALERTS
from tests.test_readme import require


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # of matplotlib, and of clients whose broker goes away at the end
def test_no_panel_is_empty() -> None:
    require_kafka()
    require("prometheus")

    assert observe.main([]) == 0


@pytest.mark.filterwarnings("ignore")  # of matplotlib
def test_every_panel_is_asked_and_what_nobody_can_read_is_named(tmp_path: Path) -> None:
    wrong = {
        "Lag": Told({}, [], []),
        "Alerts that fire": Told({"AidtrailVoid": [(0.0, math.nan)]}, [], []),
        "Void entries": Told({}, ["partition"], []),
        "Time to sealed": Told({"p99": [(0.0, 1.0), (1.0, math.inf)]}, [], []),
    }
    asked = []

    def ask(panel: dict[str, Any]) -> Told:
        asked.append(panel["title"])
        good = Told({}, ["a"], [(1,)]) if panel["type"] == "table" else Told({"some": [(0.0, 1.0), (1.0, math.nan)]}, [], [])
        return wrong.get(panel["title"], good)

    faults = observe.look(ask, output=tmp_path)

    assert asked == [panel["title"] for name in NAMES for panel in panels(name)]
    assert sorted(faults) == [
        "empty: audit.json: Void entries",
        "empty: pipeline.json: Alerts that fire",
        "empty: pipeline.json: Lag",
        "infinite: audit.json: Time to sealed",
    ]
    assert {path.stem for path in tmp_path.iterdir()} == {name.removesuffix(".json") for name in NAMES}


def test_an_alert_that_does_not_fire_or_does_not_end_fails_the_drill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "SECONDS", 0.0)
    states = dict.fromkeys(ALERTS, "pending") | {"AidtrailVoid": "firing"}
    drilled = drill.Drill(SimpleNamespace(prometheus=SimpleNamespace(alerts=lambda: states)))  # type: ignore[arg-type]
    drilled.fires("something", "AidtrailVoid", "AidtrailParked")
    drilled.ends("something else", "AidtrailVoid")

    assert (drilled.fired, drilled.ended) == ({"AidtrailVoid"}, set())
    can_end = ALERTS.keys() - drill.PEOPLES - drill.FOR_EVER
    assert drill.exit_code(ALERTS, can_end) == 0
    for name in ALERTS:
        assert drill.exit_code(ALERTS.keys() - {name}, can_end) == 1
    for name in can_end:
        assert drill.exit_code(ALERTS, can_end - {name}) == 1
