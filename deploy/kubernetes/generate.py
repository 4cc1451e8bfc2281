"""Writes what in deploy/kubernetes follows from elsewhere: python deploy/kubernetes/generate.py. A test compares, so no copy can differ.

kafka/users.yaml      from `aidtrail.rights`: a user for each part, with the least that it needs
prometheus-rule.yaml  from prometheus/rules.yml and prometheus/alerts.yml
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from aidtrail.rights import ROLES, principal_of, rights

HERE = Path(__file__).parent
PROMETHEUS = HERE.parent / "prometheus"
PREFIX = "donations"
ALSO = {"gateway": "pledges"}
"""A gateway with all four services needs what each of them needs, and they all need the same."""


def users() -> str:
    return _file("A user for each part, with the least that it needs", list(_users()))


def _users() -> Iterator[dict[str, Any]]:
    for name, role in {**{role: role for role in ROLES}, **ALSO}.items():
        user = principal_of(PREFIX, name)
        acls: dict[tuple[str, str], list[str]] = {}
        for right in sorted(rights(PREFIX, {user: role})):
            if right.permission == "Allow":
                acls.setdefault((right.resource.lower(), right.name), []).append(right.operation)
        yield {
            "apiVersion": "kafka.strimzi.io/v1",
            "kind": "KafkaUser",
            "metadata": {"name": user, "labels": {"strimzi.io/cluster": "kafka", "app.kubernetes.io/part-of": "aidtrail"}},
            "spec": {
                "authentication": {"type": "scram-sha-512"},
                "authorization": {
                    "type": "simple",
                    "acls": [
                        {"resource": {"type": kind, "name": resource, "patternType": "literal"}, "operations": operations}
                        for (kind, resource), operations in acls.items()
                    ],
                },
            },
        }


def prometheus_rule() -> str:
    groups = [group for name in ("rules.yml", "alerts.yml") for group in yaml.safe_load((PROMETHEUS / name).read_text("utf-8"))["groups"]]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "aidtrail", "labels": {"app.kubernetes.io/part-of": "aidtrail"}},
        "spec": {"groups": groups},
    }
    return _file("The rules and alerts of ../prometheus", [rule])


class _Indented(yaml.SafeDumper):
    """Lists are indented, as in the files written by hand."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _file(what: str, resources: list[dict[str, Any]]) -> str:
    written = yaml.dump_all(resources, Dumper=_Indented, sort_keys=False, width=130, allow_unicode=True)
    return f"# {what}. Written by generate.py: change it there.\n{written}"


FILES = {"kafka/users.yaml": users, "prometheus-rule.yaml": prometheus_rule}

if __name__ == "__main__":
    for name, text in FILES.items():
        (HERE / name).write_text(text(), encoding="utf-8")
        sys.stdout.write(f"{HERE / name}\n")
