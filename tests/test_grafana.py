"""The dashboards: generated and committed alike, in keeping with the rules of Grafana's linter, and of metrics and views that there are."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from aidtrail.views import schema
from tests.test_prometheus import named_metrics, unknown_metrics

FOLDER = Path(__file__).parent.parent / "deploy" / "grafana"
NAMES = ("pipeline.json", "donations.json", "audit.json")


def dashboard(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / "dashboards" / name).read_text(encoding="utf-8"))
    return loaded


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in dashboard(name)["panels"] if panel["type"] != "row"]


def targets(name: str) -> list[dict[str, Any]]:
    return [target for panel in panels(name) for target in panel["targets"]]


def generated() -> dict[str, str]:
    found = importlib.util.spec_from_file_location("generate", FOLDER / "generate.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    texts: dict[str, str] = module.generate()
    return texts


def test_what_is_committed_is_what_is_generated() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in (FOLDER / "dashboards").iterdir()}

    assert committed.keys() == set(NAMES)
    assert committed == generated(), "run: python deploy/grafana/generate.py"


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_in_a_dashboard_is_told_by_somebody(name: str) -> None:
    queries = [target["expr"] for target in targets(name) if "expr" in target]

    assert {query: unknown for query in queries if (unknown := unknown_metrics(query))} == {}
    print(f"{name}: {len(queries)} queries of {len(set().union(*map(named_metrics, queries)))} metrics")


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_keeps_the_linters_rules(name: str) -> None:
    """Those of grafana/dashboard-linter that are about more than one vendor's integrations."""
    made = dashboard(name)
    variables = {variable["name"]: variable for variable in made["templating"]["list"]}

    assert {variable["type"] for variable in variables.values() if variable["name"] in ("prometheus", "postgres")} == {"datasource"}
    assert all(variable["label"] for variable in variables.values())
    assert made["editable"] is False
    assert made["uid"].startswith("aidtrail-")
    titles = [panel["title"] for panel in panels(name)]
    assert len(set(titles)) == len(titles)
    ids = [panel["id"] for panel in made["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels(name):
        assert panel["title"], panel
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        if panel["type"] in ("stat", "bargauge"):
            assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], f"{panel['title']}: red from 80 on, by Grafana's default"
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert target["datasource"]["uid"] in ("${prometheus}", "${postgres}"), panel["title"]
            query = target.get("expr", "")
            assert "$__rate_interval" in query or not re.search(r"\b(rate|increase)\(", query), f"{panel['title']}: a fixed range"
            assert not re.search(r"_total(?!\{?[^(]*\[)", query) or re.search(r"^sum\(aidtrail_void_entries_total", query), query


@pytest.mark.parametrize("name", NAMES)
def test_no_two_panels_lie_on_one_another(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(name)["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("name", NAMES)
def test_every_sql_panel_runs_on_the_views_and_reads_nothing_else(name: str, database_url: str) -> None:
    with schema.connect(database_url) as connection:
        connection.autocommit = True
        schema.prepare(connection, 4)
        for query in [target["rawSql"] for target in targets(name) if "rawSql" in target]:
            tables = set(re.findall(r"\b(?:FROM|JOIN) ([\w.]+)\b(?!\()", query))  # what is called is a function
            assert tables <= {f"live.{table}" for table in (*schema.TABLES, "audits")}, query
            try:
                connection.execute(interpolated_sql(query).encode())
            except psycopg.Error as error:
                pytest.fail(f"{query}: {error}")


def interpolated_sql(query: str, **variables: str) -> str:
    """A panel's SQL as Grafana sends it, for the last hour."""
    query = re.sub(r"\$__timeFilter\((\w+)\)", r"\1 BETWEEN now() - interval '1 hour' AND now()", query)
    for name, value in ({"oversight": "managed"} | variables).items():
        query = query.replace(f"${name}", value)
    assert "$" not in query, query
    return query


def test_the_datasources_are_of_the_kinds_that_the_dashboards_choose_from() -> None:
    provisioned = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "aidtrail.yaml").read_text(encoding="utf-8"))
    chosen = {v["query"] for name in NAMES for v in dashboard(name)["templating"]["list"] if v["type"] == "datasource"}

    assert {source["type"] for source in provisioned["datasources"]} == chosen
