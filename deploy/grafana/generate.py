"""The dashboards as code: `python deploy/grafana/generate.py` writes dashboards/*.json, which are committed; a test generates them again.

Prometheus for what changes by the second, PostgreSQL (a role that may read the schema `live`, nothing else) for tables of donations.
"""

import json
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)  # that format is for Grafana 13; this one is read by all

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statetimeline, table, timeseries  # noqa: E402
from grafana_foundation_sdk.cog.builder import Builder  # noqa: E402
from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: E402
from grafana_foundation_sdk.cog.variants import Dataquery  # noqa: E402
from grafana_foundation_sdk.models.common import DataSourceRef, VisibilityMode  # noqa: E402
from grafana_foundation_sdk.models.dashboard import (  # noqa: E402
    DashboardCursorSync,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat  # noqa: E402

FOLDER = Path(__file__).parent / "dashboards"
POSTGRES = "grafana-postgresql-datasource"
METRICS = DataSourceRef(type_val="prometheus", uid="${prometheus}")
VIEWS = DataSourceRef(type_val=POSTGRES, uid="${postgres}")


class Sql(Dataquery, Builder[Dataquery]):
    """A query to PostgreSQL, which the library has no type for."""

    def __init__(self, text: str) -> None:
        self._text = " ".join(text.split())

    def build(self) -> Dataquery:
        return self

    def to_json(self) -> dict[str, Any]:
        return {"refId": "A", "datasource": VIEWS, "format": "table", "rawQuery": True, "editorMode": "code", "rawSql": self._text}


KINDS = {"graph": timeseries, "spans": statetimeline, "number": stat, "bars": bargauge, "table": table}


class Panel(NamedTuple):
    """One panel. `queries` maps legends to PromQL, or is SQL; `width` is of 24. A figure is red from `red_from` on."""

    kind: str
    title: str
    tells: str
    queries: dict[str, str] | str
    unit: str = "short"
    width: int = 8
    red_from: float | None = None

    def build(self) -> Any:
        made: Any = KINDS[self.kind].Panel()
        made.title(self.title).description(self.tells).unit(self.unit).span(self.width).height(4 if self.kind == "number" else 8)
        if self.kind in ("number", "bars"):
            made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).thresholds(self._colours())
        if self.kind == "spans":
            made.show_value(VisibilityMode.NEVER).thresholds(self._colours())
        if isinstance(self.queries, str):
            return made.datasource(VIEWS).with_target(Sql(self.queries))
        made.datasource(METRICS)
        for number, (legend, query) in enumerate(self.queries.items()):
            asked = prometheus.Dataquery().expr(query).legend_format(legend).ref_id(chr(ord("A") + number)).datasource(METRICS)
            asked.format(PromQueryFormat.TIME_SERIES)
            made.with_target(asked.range() if self.kind in ("graph", "spans") else asked.instant())
        return made

    def _colours(self) -> dashboard.ThresholdsConfig:
        """Stated always: left alone, Grafana has every figure red from 80 on."""
        if self.red_from is None:
            return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Threshold(value=None, color="blue")])
        steps = [Threshold(value=None, color="green"), Threshold(value=self.red_from, color="red")]
        return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def graph(title: str, tells: str, queries: dict[str, str], unit: str = "short", width: int = 8) -> Panel:
    return Panel("graph", title, tells, queries, unit, width)


def number(title: str, tells: str, query: str, unit: str = "short", red_from: float | None = None) -> Panel:
    return Panel("number", title, tells, {title: query}, unit, 4, red_from)


def rows(title: str, tells: str, sql: str, width: int = 12) -> Panel:
    return Panel("table", title, tells, sql, "short", width)


UP = 'up{job=~"ledger|projector|timekeeper|gateway|seal"}'
FIRING = 'ALERTS{alertname=~"Aidtrail.+",alertstate="firing"}'
PIPELINE: dict[str, list[Panel]] = {
    "Now": [
        number(
            "Submissions",
            "That the ledger ruled on, a second.",
            "sum(outcome:aidtrail_ledger_submissions_ruled:rate5m)",
            "reqps",
        ),
        number(
            "Visible late",
            "Share of entries that were not visible 5 s after their submission, in the last hour. Allowed: 1%.",
            "aidtrail:time_to_visible_over_5s:ratio_rate1h or vector(0)",
            "percentunit",
            red_from=0.01,
        ),
        number(
            "Lag",
            "Records that ledger and projector have still to read.",
            "sum(consumergroup_topic:kafka_consumergroup_lag:sum)",
            red_from=10_000,
        ),
        number(
            "Views moved",
            "How long ago anything, donation or heartbeat, last came into the views. Red after three heartbeats of a minute.",
            "time() - aidtrail:views_moved_timestamp_seconds:max",
            "s",
            red_from=180,
        ),
        number(
            "Processes that do not answer",
            "Of those that Prometheus knows; no figure if it knows none.",
            f"sum(1 - {UP})",
            red_from=1,
        ),
        number("Alerts", "Of Aidtrail, that fire.", f"count({FIRING}) or vector(0)", red_from=1),
        Panel(
            "spans",
            "Alerts that fire",
            "Which, and since when; empty while none does. What to do about each stands in its runbook.",
            {"{{alertname}}, {{severity}}": f"count by (alertname, severity) ({FIRING})"},
            width=24,
            red_from=1,
        ),
    ],
    "Flow": [
        graph(
            "Submissions ruled",
            "What the ledger admitted and refused, a second.",
            {"{{outcome}}": "sum by (outcome) (rate(aidtrail_ledger_submissions_ruled_total[$__rate_interval]))"},
            "reqps",
        ),
        graph(
            "Records appended",
            "That the log acknowledged, a second, by who wrote them.",
            {"{{service}}": "sum by (service) (rate(aidtrail_appended_records_total[$__rate_interval]))"},
            "wps",
        ),
        graph(
            "Entries written to the views",
            "A second, and how many of them in one transaction.",
            {
                "entries": "sum(rate(aidtrail_projector_entries_total[$__rate_interval]))",
                "in one transaction": 'sum(rate(aidtrail_batch_records_sum{service="projector"}[$__rate_interval]))'
                ' / (sum(rate(aidtrail_batch_records_count{service="projector"}[$__rate_interval])) > 0)',
            },
        ),
    ],
    "Lag": [
        graph(
            "Lag by group",
            "Records that the group has still to read.",
            {"{{consumergroup}}": "consumergroup_topic:kafka_consumergroup_lag:sum"},
        ),
        graph(
            "Lag by partition",
            "One partition alone: its process hangs, or one donation is very busy.",
            {"{{consumergroup}} {{partition}}": "max by (consumergroup, partition) (kafka_consumergroup_lag)"},
        ),
        graph(
            "Records in the topics",
            "How long each topic is.",
            {"{{topic}}": "sum by (topic) (max by (topic, partition) (kafka_topic_partition_current_offset))"},
        ),
    ],
    "Time": [
        graph(
            "Time to visible",
            "From the append of a submission to the commit of its effect in the views.",
            {
                f"p{share}": f"histogram_quantile(0.{share}, sum by (le) (rate(aidtrail_time_to_visible_seconds_bucket[$__rate_interval])))"
                for share in (50, 95, 99)
            },
            "s",
        ),
        graph(
            "Slowest twentieth of each step",
            "Which step of which service takes how long, for one batch. Without poll, which waits for something to do.",
            {
                "{{service}} {{step}}": "histogram_quantile(0.95,"
                ' sum by (le, service, step) (rate(aidtrail_step_seconds_bucket{step!="poll"}[$__rate_interval])))'
            },
            "s",
        ),
        graph(
            "Work by step",
            "Seconds a second that each step takes, all processes together: 1 is one process that does nothing else.",
            {"{{service}} {{step}}": 'sum by (service, step) (rate(aidtrail_step_seconds_sum{step!="poll"}[$__rate_interval]))'},
        ),
    ],
    "HTTP": [
        graph(
            "Requests",
            "A second, by class of status.",
            {"{{status}}": "sum by (status) (rate(aidtrail_gateway_request_seconds_count[$__rate_interval]))"},
            "reqps",
        ),
        graph(
            "Duration of requests",
            "99 of 100 are faster. The seconds that a client asked to wait for the outcome are in it.",
            {
                "{{method}} {{route}}": "histogram_quantile(0.99,"
                " sum by (le, method, route) (rate(aidtrail_gateway_request_seconds_bucket[$__rate_interval])))"
            },
            "s",
        ),
        graph("Requests under way", "That have not been answered yet.", {"requests": "sum(aidtrail_gateway_requests_under_way)"}),
    ],
    "Trouble": [
        graph(
            "Outages",
            "Times a minute that a service lost log or database and tried again.",
            {"{{service}}": "60 * sum by (service) (rate(aidtrail_outages_total[$__rate_interval]))"},
            "cpm",
        ),
        graph(
            "Other writers, unknown appends",
            "A minute. Each was dealt with; many of them want an explanation.",
            {
                "appends of unknown fate": "60 * sum(rate(aidtrail_appends_unknown_total[$__rate_interval]))",
                "batches behind the fence": "60 * sum(rate(aidtrail_projector_fences_lost_total[$__rate_interval]))",
                "another writer in `recorded`": "60 * sum(rate(aidtrail_ledger_offset_surprises_total[$__rate_interval]))",
            },
            "cpm",
        ),
        graph(
            "Age of the figures",
            "How long ago lag, and the sums of the views, were read.",
            {"{{collector}}": "time() - max by (collector) (aidtrail_collector_last_read_timestamp_seconds)"},
            "s",
        ),
    ],
}

DAY_SECONDS = 86_400
CHOSEN = 'oversight="$oversight",contribution="$contribution",currency="$currency"'
DONATIONS: dict[str, list[Panel]] = {
    "Now": [
        number("Donations", "Of this oversight.", 'sum(aidtrail:donations:max{oversight="$oversight"})'),
        number("Approvals waiting", "Requests that no mechanism has decided.", "max(aidtrail_approvals_waiting)"),
        number(
            "Oldest request",
            "That no mechanism has decided: how long ago it says it was made. Red after 14 days.",
            "aidtrail:approvals_waiting_age_seconds:max or vector(0)",
            "s",
            red_from=14 * DAY_SECONDS,
        ),
        number("Approvals expiring", "Within seven days, of donations not paid out.", "max(aidtrail_approvals_expiring)", red_from=1),
        number(
            "Unacknowledged",
            "Of the chosen currency: settled, and not acknowledged by the beneficiary.",
            'max(aidtrail_unacknowledged_amount{currency="$currency",contribution="$contribution"})',
        ),
        number(
            "Oldest unacknowledged",
            "How long it has waited, at least. Red after 30 days.",
            'max(aidtrail:unacknowledged_age_seconds:max{currency="$currency",contribution="$contribution"}) or vector(0)',
            "s",
            red_from=30 * DAY_SECONDS,
        ),
    ],
    "Money": [
        Panel(
            "bars",
            "From pledge to receipt",
            "Sums over all donations of this oversight, contribution and currency. Currencies are never added.",
            {
                stage.replace("_", " "): f'sum(aidtrail:amount:max{{{CHOSEN},stage="{stage}"}})'
                for stage in ("pledged", "approved", "in_flight", "settled", "passed_on", "received", "acknowledged", "utilised")
            },
            width=12,
        ),
        graph(
            "From pledge to receipt, over time",
            "The same sums.",
            {"{{stage}}": f"sum by (stage) (aidtrail:amount:max{{{CHOSEN}}})"},
            width=12,
        ),
        graph(
            "Donations by headline",
            "What somebody must act on first, else how far the money is.",
            {"{{headline}}": 'sum by (headline) (aidtrail:donations:max{oversight="$oversight"})'},
            width=12,
        ),
        graph(
            "Unacknowledged money by currency",
            "Each in its own units.",
            {"{{currency}} {{contribution}}": "max by (currency, contribution) (aidtrail_unacknowledged_amount)"},
            width=12,
        ),
    ],
    "Who waits for whom": [
        rows(
            "Approvals queue",
            "Requests that a mechanism has not decided, the oldest first.",
            """SELECT mechanism_id AS "mechanism", donation_id AS "donation", approval_id AS "request", requested_for AS "for",
            requested_on,
            (SELECT string_agg(value || ' ' || key, ', ' ORDER BY key) FROM jsonb_each_text(requested)) AS "requested",
            approvals || ' of ' || approvals_required AS "signatures" FROM live.approvals
            WHERE state = 'pending' ORDER BY requested_on LIMIT 100""",
        ),
        rows(
            "Money by mechanism",
            "Amounts of the donations that were put before each mechanism, by currency; managed ones only.",
            """SELECT mechanism, contribution, currency, count(*) AS "donations", sum(pledged) AS "pledged", sum(approved) AS "approved",
            sum(settled - returned) AS "paid", sum(acknowledged) AS "acknowledged"
            FROM live.donations JOIN live.amounts USING (donation_id), unnest(mechanisms) AS mechanism
            WHERE oversight = 'managed' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""",
        ),
        rows(
            "Unacknowledged money",
            "Donations with money that was settled and that the beneficiary has not acknowledged; unchanged for longest first.",
            """SELECT donation_id AS "donation", donor, beneficiary, contribution, currency, settled - returned - acknowledged AS "amount",
            held AS "held on the way", headline, changed_at FROM live.donations JOIN live.amounts USING (donation_id)
            WHERE oversight = 'managed' AND receipt <> 'acknowledged' AND headline <> 'closed' AND settled - returned > acknowledged
            ORDER BY changed_at LIMIT 100""",
        ),
        rows(
            "Approvals that expire",
            "Granted, of donations that are not paid out; the next to expire first.",
            """SELECT donation_id AS "donation", approval_id AS "approval", mechanism_id AS "mechanism", valid_until,
            (SELECT string_agg(value || ' ' || key, ', ' ORDER BY key) FROM jsonb_each_text(granted)) AS "granted"
            FROM live.approvals JOIN live.donations USING (donation_id)
            WHERE state = 'granted' AND valid_until > now() AND disbursement <> 'full'
            AND headline NOT IN ('closed', 'withdrawn', 'expired') ORDER BY valid_until LIMIT 100""",
        ),
        rows(
            "What changed last",
            "Donations of this oversight, in the chosen time.",
            """SELECT changed_at, donation_id AS "donation", donor, beneficiary, headline, pledge, approval, disbursement, receipt
            FROM live.donations WHERE oversight = '$oversight' AND $__timeFilter(changed_at) ORDER BY changed_at DESC LIMIT 100""",
            24,
        ),
    ],
}

AUDIT: dict[str, list[Panel]] = {
    "Now": [
        number("Under no seal", "Entries that are under no checkpoint yet.", "aidtrail:unsealed_entries"),
        number(
            "Void",
            "Entries without effect that projectors saw since they were started: somebody else wrote.",
            'sum(aidtrail_void_entries_total{reader="projector"})',
            red_from=1,
        ),
        number("Parked", "Donations whose fold failed.", "max(aidtrail_views_parked_donations)", red_from=1),
        number(
            "Last replay",
            "How long ago one ended that left a note. Red after eight days.",
            'aidtrail:audit_age_seconds:max{kind="replay"}',
            "s",
            red_from=8 * DAY_SECONDS,
        ),
        number(
            "Last replay found", "Outcomes that are not what the rules give.", 'max(aidtrail_audit_differences{kind="replay"})', red_from=1
        ),
        number(
            "Last rebuild found", "Rows that are not the fold of the log.", 'max(aidtrail_audit_differences{kind="rebuild"})', red_from=1
        ),
    ],
    "Refused and void": [
        graph(
            "Refusals by reason",
            "A minute, by the rule that refused. Heartbeats are refused by donation_is_known.",
            {"{{reason}}": "60 * sum by (reason) (rate(aidtrail_ledger_refusals_total[$__rate_interval]))"},
            "cpm",
            width=12,
        ),
        graph(
            "Void entries by reason",
            "A minute, as projectors saw them.",
            {"{{reason}}": '60 * sum by (reason) (rate(aidtrail_void_entries_total{reader="projector"}[$__rate_interval]))'},
            "cpm",
            width=12,
        ),
        rows(
            "Newest refusals",
            "Who tried what, and why it was refused, in the chosen time. Without heartbeats.",
            """SELECT recorded_at, donation_id AS "donation", event_type AS "event", reason, expected, found, partition, "offset"
            FROM live.refusals WHERE $__timeFilter(recorded_at) AND coalesce(donation_id, '') NOT LIKE 'HEARTBEAT-%'
            ORDER BY recorded_at DESC LIMIT 100""",
            24,
        ),
        rows(
            "Refusals by rule and event",
            "Of all time. Without heartbeats.",
            """SELECT reason, event_type AS "event", count(*) AS "refusals", max(recorded_at) AS "last" FROM live.refusals
            WHERE coalesce(donation_id, '') NOT LIKE 'HEARTBEAT-%' GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 100""",
        ),
        rows(
            "Void entries",
            "The newest offsets first.",
            """SELECT partition, "offset", void_reason AS "reason", donation_id AS "donation says", event_type AS "event" FROM live.entries
            WHERE outcome = 'void' ORDER BY "offset" DESC LIMIT 100""",
        ),
    ],
    "Sealed, replayed, parked": [
        graph(
            "Sealed",
            "Entries under the newest checkpoint, and entries that there are.",
            {
                "sealed": "aidtrail:sealed_entries:max",
                "recorded": 'sum(max by (topic, partition) (kafka_topic_partition_current_offset{topic=~".+[.]recorded"}))',
            },
            width=12,
        ),
        graph(
            "Time to sealed",
            "From the append of an entry to the append of the checkpoint that is the first to cover it.",
            {
                f"p{share}": f"histogram_quantile(0.{share}, sum by (le) (rate(aidtrail_time_to_sealed_seconds_bucket[$__rate_interval])))"
                for share in (50, 99)
            },
            "s",
            width=12,
        ),
        rows(
            "Replays and rebuilds",
            "What they checked and found.",
            "SELECT finished_at, kind, checked, differences FROM live.audits ORDER BY finished_at DESC LIMIT 100",
        ),
        rows(
            "Parked donations",
            "Since which entry, and why.",
            'SELECT donation_id AS "donation", partition, "offset", error FROM live.parked ORDER BY donation_id LIMIT 100',
        ),
        rows(
            "Entries by outcome and partition",
            "What each partition of `recorded` holds.",
            """SELECT partition, next_offset, count(*) FILTER (WHERE outcome = 'admitted') AS "admitted",
            count(*) FILTER (WHERE outcome = 'refused') AS "refused", count(*) FILTER (WHERE outcome = 'void') AS "void"
            FROM live.positions JOIN live.entries USING (partition) GROUP BY 1, 2 ORDER BY 1""",
            24,
        ),
    ],
}


def money_variables() -> Iterator[Any]:
    for name, label in (("oversight", "Oversight"), ("contribution", "Contribution"), ("currency", "Currency")):
        asked = dashboard.QueryVariable(name).label(label).datasource(METRICS).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        yield asked.query(f"label_values(aidtrail_amount, {name})").include_all(False).multi(False)


def build(uid: str, title: str, tells: str, panels: dict[str, list[Panel]], variables: Iterator[Any]) -> str:
    made = dashboard.Dashboard(title).uid(uid).description(tells).tags(["aidtrail"]).refresh("30s").time("now-6h", "now").timezone("utc")
    made.tooltip(DashboardCursorSync.CROSSHAIR).readonly()
    made.with_variable(dashboard.DatasourceVariable("prometheus").label("Prometheus").type("prometheus"))
    made.with_variable(dashboard.DatasourceVariable("postgres").label("Views").type(POSTGRES))
    for variable in variables:
        made.with_variable(variable)
    ids = count(1)
    for heading, row in panels.items():
        made.with_row(dashboard.Row(heading).id(next(ids)))
        for panel in row:
            made.with_panel(panel.build().id(next(ids)))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def generate() -> dict[str, str]:
    """The dashboards, by file name."""
    return {
        "pipeline.json": build("aidtrail-pipeline", "Aidtrail: Pipeline", "Flow, lag, latency and trouble.", PIPELINE, iter(())),
        "donations.json": build(
            "aidtrail-donations", "Aidtrail: Donations", "Who waits for whom, by currency.", DONATIONS, money_variables()
        ),
        "audit.json": build("aidtrail-audit", "Aidtrail: Audit", "Refused, void, sealed, replayed, parked.", AUDIT, iter(())),
    }


if __name__ == "__main__":
    for name, text in generate().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
