"""The resources of deploy/kubernetes that Kubernetes itself does not know, against what their operators' CRDs are made of: the classes that
Strimzi's are generated from, and models that were generated from KEDA's and the Prometheus operator's.

Both are fetched, once, into build/operators, as tests/operators pins them.
"""

import copy
import fcntl
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pydantic
import pytest

from tests.test_kubernetes import ALL, CUSTOM, Resource

SOURCE = Path(__file__).parent / "operators"
BUILD = Path(__file__).parent.parent / "build" / "operators"
FETCH_SECONDS = 300
MODELS = {
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}
STRIMZI = "kafka.strimzi.io"

Problems = Callable[[Iterable[Resource]], list[list[str]]]
"""What is wrong with each resource, as sentences; none where it is valid."""


def fetched() -> Path:
    """The folder with both, fetched unless they are there. Without the programs or a registry: a shown skip, in CI a failure. Safe to call
    from several processes at once."""
    if missing := [program for program in ("java", "mvn") if shutil.which(program) is None]:
        unavailable(f"{' and '.join(missing)} on the PATH")
    BUILD.mkdir(parents=True, exist_ok=True)
    maven = ["mvn", "-q", "-B", "-f", str(SOURCE / "pom.xml"), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--no-deps"]
    commands = (
        [*maven, f"-DoutputDirectory={BUILD / 'strimzi'}"],
        [*pip, "--require-hashes", "--requirement", str(SOURCE / "requirements.txt"), "--target", str(BUILD / "models")],
    )
    wanted, stamp = b"".join((SOURCE / name).read_bytes() for name in ("pom.xml", "requirements.txt")), BUILD / "fetched"
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_bytes() != wanted:
            for folder in ("strimzi", "models"):
                shutil.rmtree(BUILD / folder, ignore_errors=True)
            for command in commands:
                done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
                if done.returncode != 0:
                    unavailable(f"what {command[0]} could not fetch: {(done.stdout + done.stderr)[-500:]}")
            stamp.write_bytes(wanted)  # last, so that a fetch that was interrupted is not taken for a whole one
    return BUILD


def unavailable(what: str) -> None:
    message = f"validating the operators' resources needs {what}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def problems() -> Problems:
    folder = fetched()

    def found(resources: Iterable[Resource]) -> list[list[str]]:
        given = list(resources)
        of_strimzi = iter(strimzi(folder / "strimzi", [each for each in given if each["apiVersion"].startswith(STRIMZI)]))
        return [next(of_strimzi) if each["apiVersion"].startswith(STRIMZI) else modelled(folder / "models", each) for each in given]

    return found


def strimzi(jars: Path, resources: list[Resource]) -> list[list[str]]:
    said = "".join(f"{json.dumps(each)}\n" for each in resources)
    command = ["java", "-cp", f"{jars}/*", str(SOURCE / "Strimzi.java")]
    done = subprocess.run(command, input=said, capture_output=True, text=True, timeout=120, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def modelled(packages: Path, resource: Resource) -> list[str]:
    """Models pass over a field that they do not know: so what they read must come back as it was said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(packages)
        kind: Any = getattr(importlib.import_module(MODELS[resource["apiVersion"]]), resource["kind"])
    try:
        read = kind.model_validate(resource)
    except pydantic.ValidationError as error:
        return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    returned = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return [] if returned == resource else [f"there are fields that are unknown: expected {resource}, found {returned}"]


def test_every_resource_of_an_operators_kind_is_as_its_crd_says(problems: Problems) -> None:
    custom = {name: each for name, each in ALL.items() if each["apiVersion"].startswith(CUSTOM)}

    found = dict(zip(custom, problems(custom.values()), strict=True))
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    kinds = sorted({each["kind"] for each in custom.values()})
    assert kinds == ["KafkaTopic", "KafkaUser", "PrometheusRule", "ScaledObject", "ServiceMonitor", "TriggerAuthentication"]
    print(f"{len(custom)} of {len(ALL)} resources are operators' own, of {len(kinds)} kinds: valid")


def test_a_resource_that_is_broken_is_refused(problems: Problems) -> None:
    """So that no problems above means something."""
    broken = []
    for name, path, value in BREAKS:
        resource: Any = copy.deepcopy(ALL[name])
        *above, last = path
        within = resource
        for step in above:
            within = within[step]
        if value is GONE:
            del within[last]
        else:
            within[last] = value
        broken.append(resource)

    passed = [where for where, found in zip(BREAKS, problems(broken), strict=True) if not found]
    assert passed == []
    print(f"{len(BREAKS)} broken resources, {len(BREAKS) - len(passed)} refused")


GONE = object()
ACL = ("spec", "authorization", "acls", 0)
BREAKS: tuple[tuple[str, tuple[str | int, ...], object], ...] = (
    ("KafkaTopic donations.recorded", ("apiVersion",), "kafka.strimzi.io/v2"),
    ("KafkaTopic donations.recorded", ("spec",), GONE),
    ("KafkaTopic donations.recorded", ("spec", "partition"), 12),
    ("KafkaTopic donations.recorded", ("spec", "partitions"), "12"),
    ("KafkaTopic donations.recorded", ("spec", "replicas"), 0),
    ("KafkaUser donations-ledger", ("spec", "authentication", "type"), "scram-sha-256"),
    ("KafkaUser donations-ledger", (*ACL, "resource"), GONE),
    ("KafkaUser donations-ledger", (*ACL, "resource", "name"), 5),
    ("KafkaUser donations-ledger", (*ACL, "resource", "patterntype"), "literal"),
    ("KafkaUser donations-ledger", (*ACL, "operations", 0), "Reed"),
    ("ScaledObject ledger", ("spec", "triggers"), GONE),
    ("ScaledObject ledger", ("spec", "maxReplicas"), 12),
    ("ScaledObject ledger", ("spec", "maxReplicaCount"), "many"),
    ("ScaledObject ledger", ("spec", "triggers", 0, "metadata", "lagThreshold"), 25000),
    ("TriggerAuthentication ledger", ("spec", "secretTargetRef", 0, "keys"), "password"),
    ("ServiceMonitor aidtrail", ("spec", "selector"), GONE),
    ("ServiceMonitor aidtrail", ("spec", "endpoints", 0, "interval"), "a while"),
    ("ServiceMonitor aidtrail", ("spec", "endpoints", 0, "relabelling"), []),
    ("PrometheusRule aidtrail", ("spec", "groups", 0, "rules", 0, "expr"), GONE),
    ("PrometheusRule aidtrail", ("spec", "groups", 1, "rules", 0, "annotation"), {"summary": "misspelt"}),
)
