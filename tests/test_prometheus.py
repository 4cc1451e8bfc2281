"""Rules, alerts and runbooks of deploy/, checked with its own tools: each alert fires on one series and stays silent on another."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.documented import command_of
from tests.test_metrics import NAMES

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOKS = ROOT / "deploy" / "runbooks"
FROM_PROMETHEUS = {"up", "ALERTS"}


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def rules(name: str) -> list[dict[str, Any]]:
    return [rule for group in read(name)["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts.yml")}
RECORDED = {rule["record"] for rule in rules("rules.yml")}


def tool(*command: str) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not on the PATH")
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def named_metrics(query: str) -> set[str]:
    """The metrics of a PromQL expression, without what histograms and counters add to their names."""
    query = re.sub(r'"[^"]*"|\[[^\]]*\]', "", query)
    query = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", query)
    query = re.sub(r"\{[^}]*\}", "", query)
    names = re.findall(r"\b[a-z_][a-z0-9_:]*\b(?!\s*\()", query, re.IGNORECASE)
    words = {"and", "or", "unless", "offset", "bool", "by", "without", "on", "ignoring"}
    return {re.sub(r"_(bucket|count|sum|total)$", "", name) for name in names if name not in words and not re.fullmatch(r"\d.*", name)}


def unknown_metrics(query: str) -> set[str]:
    """Those that nobody tells: neither a service, nor a recording rule, nor Prometheus itself."""
    return {name for name in named_metrics(query) if name not in NAMES | RECORDED | FROM_PROMETHEUS}


def test_prometheus_reads_its_files() -> None:
    tool("promtool", "check", "config", "prometheus.yml")


def test_alertmanager_reads_its_file() -> None:
    tool("amtool", "check-config", "alertmanager.yml")


def test_each_alert_fires_and_is_silent_where_it_must() -> None:
    tool("promtool", "test", "rules", "tests.yml")

    print(f"{len(ALERTS)} alerts: {len(ALERTS)} fire, {len(ALERTS)} do not")


def test_each_alert_is_tested_both_ways() -> None:
    said: dict[str, set[bool]] = {}
    for case in read("tests.yml")["tests"]:
        for asked in case["promql_expr_test"]:
            (alert,) = re.findall(r'ALERTS\{alertname="(\w+)",alertstate="firing"\}', asked["expr"])
            fires = bool(asked["exp_samples"])
            assert case["name"] == f"{alert} {'fires' if fires else 'does not fire'}"
            said.setdefault(alert, set()).add(fires)

    assert said == {alert: {True, False} for alert in ALERTS}


def test_each_alert_says_how_bad_it_is_and_where_to_read_on() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"}), name
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"] == "{{ $externalLabels.runbooks }}/" + f"{name}.md"
        assert "for" in rule or "keep_firing_for" in rule or "audit_differences" in rule["expr"], f"{name} would flap"


def test_each_alert_has_its_runbook() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == ALERTS.keys()
    for name in ALERTS:
        text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert headings == [name, "What it means", "What to look at", "What to do"]


def test_the_commands_of_the_runbooks_exist() -> None:
    texts = " ".join(path.read_text(encoding="utf-8") for path in RUNBOOKS.glob("*.md"))
    commands = re.findall(r"`aidtrail ([^`]+)`", texts)

    assert len(commands) > 20
    for words in commands:
        command_of(words)
    print(f"{len(commands)} commands in {len(ALERTS)} runbooks: all exist")


def test_what_an_alert_is_inhibited_by_exists() -> None:
    for rule in read("alertmanager.yml")["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            pattern = re.compile(matcher.split('"')[1])
            assert any(pattern.fullmatch(name) for name in ALERTS), matcher


@pytest.mark.parametrize("name", ["rules.yml", "alerts.yml"])
def test_every_metric_in_the_rules_is_told_by_somebody(name: str) -> None:
    assert {metric: rule for rule in rules(name) for metric in unknown_metrics(rule["expr"])} == {}


def test_a_metric_that_nobody_tells_is_found() -> None:
    query = 'sum by (job) (rate(aidtrail_misspelt_total{job=~"a|b"}[5m])) / ignoring (status) max(aidtrail_amount) > 0 and up == 0'

    assert unknown_metrics(query) == {"aidtrail_misspelt"}
