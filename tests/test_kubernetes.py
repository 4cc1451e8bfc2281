"""deploy/kubernetes: valid, restricted, complete, and the same as what compose.yaml, the contract and the code say."""

import runpy
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from aidtrail.config import Settings
from aidtrail.log.kafka import REQUIRED_SETTINGS
from aidtrail.topics import Topics
from tests.deployed import DEPLOY, aidtrail_services, compose, example_settings, image_environment

FOLDER = DEPLOY / "kubernetes"
KUSTOMIZATIONS = (FOLDER, FOLDER / "kafka")
VERSION = "1.33.0"
"""Of the cluster: what later ones have dropped is not used either, as the newest known is tried too."""
CUSTOM = ("keda.sh", "monitoring.coreos.com", "kafka.strimzi.io")
"""Groups of resources that Kubernetes itself does not know: tests/test_custom_resources.py checks them."""

Resource = dict[str, Any]


def documents(path: Path) -> list[Resource]:
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each is not None]


def manifests() -> dict[str, Resource]:
    """Every resource, by kind and name."""
    paths = [path for folder in KUSTOMIZATIONS for path in sorted(folder.glob("*.yaml")) if path.name != "kustomization.yaml"]
    found = [each for path in paths for each in documents(path)]
    named = {f"{each['kind']} {each['metadata']['name']}": each for each in found}
    assert len(named) == len(found)
    return named


ALL = manifests()
GENERATED = {f"ConfigMap {each['name']}" for each in documents(FOLDER / "kustomization.yaml")[0]["configMapGenerator"]}
SECRETS = ("aidtrail-views", "aidtrail-views-seal", "aidtrail-seal", "kafka-cluster-ca-cert")
BROUGHT = ("ConfigMap aidtrail-issuer", *(f"Secret {name}" for name in SECRETS))
"""What the manifests need and do not have: the operations guide says so."""


def workloads() -> list[Resource]:
    return [each for each in ALL.values() if each["kind"] in ("Deployment", "StatefulSet", "CronJob")]


def template(workload: Resource) -> Resource:
    """Of the workload's pods."""
    spec = workload["spec"]["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else workload["spec"]
    found: Resource = spec["template"]
    return found


def pods() -> dict[str, Resource]:
    """The specification of each workload's pods, by its name."""
    return {each["metadata"]["name"]: template(each)["spec"] for each in workloads()}


def containers() -> Iterator[tuple[str, Resource]]:
    for name, pod in pods().items():
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            yield name, container


def test_every_manifest_is_valid_strictly() -> None:
    checked = 0
    for manifest in ALL.values():
        if not manifest["apiVersion"].startswith(CUSTOM):
            for version in (VERSION, kubernetes_validate.latest_version()):
                kubernetes_validate.validate(manifest, version, strict=True)
            checked += 1

    wrong = {**ALL["Deployment ledger"], "replcias": 2}
    with pytest.raises(kubernetes_validate.ValidationError, match="replcias"):
        kubernetes_validate.validate(wrong, VERSION, strict=True)
    print(f"{checked} of {len(ALL)} resources are Kubernetes' own: valid, strictly")


def test_every_file_is_listed_and_every_file_that_is_listed_is_there() -> None:
    for folder in KUSTOMIZATIONS:
        listed = [name for name in documents(folder / "kustomization.yaml")[0]["resources"] if not (folder / name).is_dir()]
        assert sorted(listed) == sorted(path.name for path in folder.glob("*.yaml") if path.name != "kustomization.yaml")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on the PATH")
@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
def test_kustomize_builds_it(folder: Path) -> None:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    for manifest in built:
        if not manifest["apiVersion"].startswith(CUSTOM):
            kubernetes_validate.validate(manifest, VERSION, strict=True)
        assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "aidtrail"
    maps = [each for each in built if each["kind"] == "ConfigMap"]
    made = {each["metadata"]["name"] for each in maps if "grafana_dashboard" not in each["metadata"].get("labels", {})}
    used = {found["configMapRef"]["name"] for each in built for found in environments(each)}
    assert used == made  # the name with its hash
    if folder == FOLDER:
        (dashboards,) = (each["data"] for each in maps if each["metadata"]["name"] == "aidtrail-dashboards")
        assert dashboards.keys() == {path.name for path in (DEPLOY / "grafana" / "dashboards").glob("*.json")}


def environments(manifest: Resource) -> list[Resource]:
    pod = template(manifest)["spec"] if manifest["kind"] in ("Deployment", "StatefulSet", "CronJob") else {"containers": []}
    return [each for container in pod["containers"] for each in container["envFrom"]]


def test_pods_are_restricted() -> None:
    """The restricted profile of the pod security standards, which the namespace enforces; and a root that nobody writes to."""
    assert ALL["Namespace aidtrail"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in pods().values():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {"emptyDir", "secret", "configMap"}
    for _, container in containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert all("hostPort" not in port for port in container.get("ports", []))


def test_the_pods_run_what_compose_runs() -> None:
    """The same commands, and the same settings but for those that say how to reach Kafka safely."""
    services = aidtrail_services(compose(dict.fromkeys(example_settings(), "set")))
    running = {name: service for name, service in services.items() if service["restart"] != "no" or "profiles" in service}
    generated = documents(FOLDER / "kustomization.yaml")[0]["configMapGenerator"][0]["literals"]
    secured = {"AIDTRAIL_KAFKA_USERNAME", "AIDTRAIL_KAFKA_PASSWORD"} | {literal.partition("=")[0] for literal in generated}
    known = {f"AIDTRAIL_{name.upper()}" for name in Settings.model_fields}

    assert {name: pod["containers"][0]["args"] for name, pod in pods().items()} == {
        name: service["command"] for name, service in running.items()
    }
    for name, pod in pods().items():
        (container,) = pod["containers"]
        stated = {each["name"] for each in container["env"]} | secured
        assert stated - known == set(), name
        assert stated - secured == running[name].get("environment", {}).keys() - {"PGPASSWORD", "AIDTRAIL_LOG"}, name


def test_every_name_that_is_referred_to_is_there_or_is_said_to_be_brought() -> None:
    users = {f"Secret {each['metadata']['name']}" for each in ALL.values() if each["kind"] == "KafkaUser"}  # their passwords
    known = set(ALL) | GENERATED | set(BROUGHT) | users

    used = set(references(list(ALL.values())))
    assert sorted(used - known) == []
    assert set(BROUGHT) <= used
    guide = (DEPLOY / "OPERATIONS.md").read_text(encoding="utf-8")
    assert [name for name in BROUGHT if f"`{name.partition(' ')[2]}`" not in guide] == []


def references(found: object) -> Iterator[str]:
    """Kind and name of each secret, map and scaled workload that is named anywhere in a resource."""
    if isinstance(found, list):
        for each in found:
            yield from references(each)
    elif isinstance(found, Mapping):
        for key, value in found.items():
            if key in ("secretKeyRef", "configMapKeyRef", "configMapRef"):
                yield f"{'Secret' if key.startswith('secret') else 'ConfigMap'} {value['name']}"
            elif key == "secretName":
                yield f"Secret {value}"
            elif key == "secretTargetRef":
                yield from (f"Secret {each['name']}" for each in value)
            elif key == "scaleTargetRef":
                yield f"Deployment {value['name']}"
            elif key == "authenticationRef":
                yield f"TriggerAuthentication {value['name']}"
            elif key == "serviceName":
                yield f"Service {value}"
            else:
                yield from references(value)


def test_volumes_and_ports_that_are_used_are_defined() -> None:
    for name, pod in pods().items():
        claimed = [
            each["metadata"]["name"] for each in ALL.get(f"StatefulSet {name}", {"spec": {}})["spec"].get("volumeClaimTemplates", [])
        ]
        volumes = {volume["name"] for volume in pod["volumes"]} | set(claimed)
        mounted = {mount["name"] for owner, container in containers() if owner == name for mount in container["volumeMounts"]}
        assert mounted == volumes, name
        (container,) = pod["containers"]
        if f"CronJob {name}" in ALL:  # nobody asks it anything
            continue
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["metrics"] == int(image_environment()["AIDTRAIL_METRICS_PORT"])
        assert ports.get("http", 8080) == int(image_environment()["AIDTRAIL_LISTEN"].rpartition(":")[2])
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in ports
            assert container[probe]["httpGet"]["path"] == ("/livez" if probe == "livenessProbe" else "/readyz")


def test_every_selector_selects_something() -> None:
    labels = [template(each)["metadata"]["labels"] for each in workloads()]
    selectors = [each["spec"]["selector"]["matchLabels"] for each in workloads() if "selector" in each["spec"]]
    for manifest in ALL.values():
        if manifest["kind"] == "Service":
            selectors.append(manifest["spec"]["selector"])
        elif manifest["kind"] == "PodDisruptionBudget":
            selectors.append(manifest["spec"]["selector"]["matchLabels"])
        elif manifest["kind"] == "NetworkPolicy":
            selector = manifest["spec"]["podSelector"]
            selectors.append(selector.get("matchLabels", {}))
            for expression in selector.get("matchExpressions", []):
                selectors += [{expression["key"]: value} for value in expression["values"]]
    monitored = ALL["ServiceMonitor aidtrail"]["spec"]["selector"]["matchLabels"]

    assert [selector for selector in selectors if not any(selector.items() <= found.items() for found in labels)] == []
    assert monitored.items() <= ALL["Service metrics"]["metadata"]["labels"].items()


def test_topics_are_as_the_contract_requires() -> None:
    topics = {each["metadata"]["name"]: each["spec"] for each in ALL.values() if each["kind"] == "KafkaTopic"}
    names = Topics.of("donations")
    required = {**REQUIRED_SETTINGS, "min.insync.replicas": "2"}

    assert set(names) <= topics.keys()
    for spec in topics.values():
        assert spec["replicas"] == 3
        assert {name: str(value).lower() for name, value in spec["config"].items()} == {
            name: value if value != "LogAppendTime" else value.lower() for name, value in required.items()
        }
    assert topics[names.submitted]["partitions"] == topics[names.recorded]["partitions"]
    assert {spec["partitions"] for name, spec in topics.items() if name not in (names.submitted, names.recorded)} == {1}


def test_what_is_generated_is_as_it_would_be_now() -> None:
    files = runpy.run_path(str(FOLDER / "generate.py"))["FILES"]

    assert {name: (FOLDER / name).read_text(encoding="utf-8") for name in files} == {name: text() for name, text in files.items()}


def test_services_scale_on_their_own_lag_up_to_the_number_of_partitions() -> None:
    partitions = ALL["KafkaTopic donations.submitted"]["spec"]["partitions"]
    for name, topic in (("ledger", "donations.submitted"), ("projector", "donations.recorded")):
        spec = ALL[f"ScaledObject {name}"]["spec"]
        (trigger,) = spec["triggers"]
        assert spec["maxReplicaCount"] == partitions
        assert (trigger["metadata"]["consumerGroup"], trigger["metadata"]["topic"]) == (f"donations-{name}", topic)
        assert "replicas" not in ALL[f"Deployment {name}"]["spec"]  # or each deployment would undo what KEDA did
