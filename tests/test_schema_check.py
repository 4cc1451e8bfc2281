"""Our check of a schema registry that others run: what it finds, what it asks, and what it never says."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from aidtrail import contract, schema_check
from aidtrail.errors import UnavailableError, UsageError
from aidtrail.subjects import subjects
from aidtrail.topics import Topics
from tests.serving import Served
from tests.test_schema_registry import CONTENT_TYPE, TOPICS, application, as_others_write_it

DEFINED = "donations.registry-org.aidtrail.MechanismDefined"
"""A subject of one version."""
SCHEMA = contract.latest("MechanismDefined").schema
ID = contract.latest("MechanismDefined").id
OPTIONAL_FIELD = {**SCHEMA, "fields": [*SCHEMA["fields"], {"name": "note", "type": ["null", "string"], "default": None}]}


class SomebodysRegistry:
    """Our surface, but for the answers that a test puts in place of some. Keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, object]] = {}
        self.asked: list[tuple[str, str]] = []
        self.credentials: set[str | None] = set()
        self._app = application()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        self.asked.append((request.method, request.url.path))
        self.credentials.add(request.headers.get("authorization"))
        if request.url.path in self.answers:
            status, said = self.answers[request.url.path]
            body = said if isinstance(said, bytes) else json.dumps(said).encode()
            await Response(body, status, media_type=CONTENT_TYPE)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def has(self, subject: str, *versions: tuple[int, object]) -> None:
        """The subject has these versions: id and schema."""
        path = f"/registry/subjects/{subject}/versions"
        self.answers[path] = (200, list(range(1, len(versions) + 1)))
        for number, (schema_id, schema) in enumerate(versions, start=1):
            said = {"subject": subject, "version": number, "id": schema_id, "schema": json.dumps(schema)}
            self.answers[f"{path}/{number}"] = (200, said)


@pytest.fixture
def somebodys(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SomebodysRegistry, str]]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    registry = SomebodysRegistry()
    with Served(registry) as served:
        yield registry, f"{served.url}/registry"


def test_a_registry_that_says_what_we_say_has_no_differences_and_is_only_asked(somebodys: tuple[SomebodysRegistry, str]) -> None:
    registry, url = somebodys

    assert schema_check.differences(url, TOPICS) == []
    print(f"{len(registry.asked)} requests for 58 subjects, all of them GET")
    assert {method for method, _ in registry.asked} == {"GET"}
    assert registry.credentials == {None}


def test_schemas_that_the_registry_writes_otherwise_are_the_same(somebodys: tuple[SomebodysRegistry, str]) -> None:
    registry, url = somebodys
    registry.has(DEFINED, (ID, as_others_write_it(SCHEMA)))

    assert schema_check.differences(url, TOPICS) == []


SCALE_2 = json.loads(json.dumps(SCHEMA).replace('"scale": 4', '"scale": 2'))


@pytest.mark.parametrize(
    ("versions", "kinds", "words"),
    [
        ([], ["missing"], f"expected schemas/published/MechanismDefined.v1.avsc with id {ID}, found no such subject"),
        ([(7, SCHEMA)], ["different"], f"expected id {ID} for schemas/published/MechanismDefined.v1.avsc, found id 7 in version 1"),
        ([(ID, OPTIONAL_FIELD)], ["different"], f"found in version 1, id {ID}, another, which is compatible"),
        ([(ID, SCALE_2)], ["incompatible"], "another: record.thresholds[].at_least.amount: expected scale 4 as before, found 2"),
        ([(ID, {"type": "record"})], ["incompatible"], f"found in version 1, id {ID}, no Avro schema that stands alone"),
        ([(ID, SCHEMA), (99, OPTIONAL_FIELD)], ["different"], "expected only versions that this release has published, found in version 2"),
        ([(98, SCALE_2), (ID, SCHEMA)], ["incompatible"], "expected only versions that this release has published, found in version 1"),
        (
            [(99, OPTIONAL_FIELD)],
            ["missing", "different"],
            f"expected schemas/published/MechanismDefined.v1.avsc with id {ID}, found no such schema",
        ),
    ],
)
def test_what_a_registry_says_otherwise_is_named(
    somebodys: tuple[SomebodysRegistry, str], versions: list[tuple[int, object]], kinds: list[str], words: str
) -> None:
    registry, url = somebodys
    if versions:
        registry.has(DEFINED, *versions)
    else:
        registry.answers[f"/registry/subjects/{DEFINED}/versions"] = (404, {"error_code": 40401, "message": "Subject not found."})

    found = schema_check.differences(url, TOPICS)

    assert [(finding.kind, finding.subject) for finding in found] == [(kind, DEFINED) for kind in kinds]
    assert words in str(found[0])


def test_a_registry_that_lets_incompatible_schemas_in_is_named(somebodys: tuple[SomebodysRegistry, str]) -> None:
    registry, url = somebodys
    registry.answers[f"/registry/config/{DEFINED}"] = (404, {"error_code": 40408, "message": "Nothing set for this subject."})

    assert schema_check.differences(url, TOPICS) == []

    registry.answers["/registry/config"] = (200, {"compatibilityLevel": "BACKWARD"})
    assert [str(finding) for finding in schema_check.differences(url, TOPICS)] == [
        f"different: {DEFINED}: expected compatibility FULL_TRANSITIVE, found 'BACKWARD'"
    ]


def test_a_registry_of_other_topics_lacks_every_subject(somebodys: tuple[SomebodysRegistry, str]) -> None:
    found = schema_check.differences(somebodys[1], Topics.of("other"))

    assert len({finding.subject for finding in found}) == 58
    assert [finding.kind for finding in found] == ["missing"] * sum(map(len, subjects(Topics.of("other")).values()))


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (200, b"<html>", "is it a schema registry?"),
        (200, b"null", "is it a schema registry?"),
        (200, {"versions": [1]}, "is it a schema registry?"),
        (200, ["../../config"], "is it a schema registry?"),
        (404, b"not found", "found HTTP 404; is it the address of a schema registry"),
        (404, {"error_code": 404}, "found HTTP 404; is it the address of a schema registry"),
        (401, {"error_code": 401}, "found HTTP 401; give a name and a password"),
        (500, {"error_code": 50001}, "found HTTP 500"),
    ],
)
def test_what_is_no_registrys_answer_is_told_from_a_missing_schema(
    somebodys: tuple[SomebodysRegistry, str], status: int, said: object, words: str
) -> None:
    registry, url = somebodys
    registry.answers[f"/registry/subjects/{DEFINED}/versions"] = (status, said)

    with pytest.raises(UnavailableError, match=re.escape(words)):
        schema_check.differences(url, TOPICS)


def test_a_name_and_a_password_are_sent_and_never_told(somebodys: tuple[SomebodysRegistry, str]) -> None:
    registry, url = somebodys

    assert schema_check.differences(url.replace("//", "//reader:s%40cret@"), TOPICS) == []
    assert registry.credentials == {"Basic " + base64.b64encode(b"reader:s@cret").decode()}

    registry.answers[f"/registry/subjects/{DEFINED}/versions"] = (403, b"")
    with pytest.raises(UnavailableError) as refused:
        schema_check.differences(url.replace("//", "//reader:s%40cret@"), TOPICS)
    assert "cret" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "registry:8081",
        "file:///etc/hostname",
        "file://localhost/etc/hostname",
        "ftp://host/",
        "http://",
        "http://[",
        "http://host:99999",
        "http://host:port",
    ],
)
def test_an_address_that_is_none_is_wrong_usage(address: str) -> None:
    with pytest.raises(UsageError, match="expected the address of a schema registry"):
        schema_check.differences(address, TOPICS)


def checked(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from aidtrail.cli import main; main()", "schemas", "check", "--registry", url]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIDTRAIL_")} | {"no_proxy": "127.0.0.1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_ends_with_0_1_2_or_3_and_names_what_differs(somebodys: tuple[SomebodysRegistry, str]) -> None:
    registry, url = somebodys

    same = checked(url)
    registry.has(DEFINED, (7, SCHEMA))
    different = checked(url)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        away = checked(f"http://127.0.0.1:{taken.getsockname()[1]}")
    nowhere = checked("registry:8081")

    assert (same.returncode, same.stdout.splitlines()[-1]) == (0, "58 subjects of the registry: as the contract says")
    assert (different.returncode, different.stderr) == (1, "")
    assert f"different: {DEFINED}: expected id {ID}" in different.stdout
    assert (away.returncode, len(away.stderr.splitlines())) == (3, 1)
    assert "cannot be reached" in away.stderr
    assert (nowhere.returncode, len(nowhere.stderr.splitlines())) == (2, 1)
