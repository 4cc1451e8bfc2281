"""`aidtrail doctor`: a pipeline that is well, and each thing that it looks at broken once."""

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from aidtrail.cli import doctor
from aidtrail.cli.backends import Backends, backends
from aidtrail.cli.registry import OPERATOR
from aidtrail.config import Settings
from aidtrail.log.postgres import PostgresLog
from aidtrail.producer import Producer
from tests.acts import full_life
from tests.databases import Server
from tests.pipeline import TOPICS, Pipeline
from tests.signing import enrolled, public_key_of, requiring, signing_party


@pytest.fixture(scope="module")
def template(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database with the log and the views of a pipeline with one donation."""
    url = postgres_server.create_database()
    log = PostgresLog(url)
    TOPICS.create(log, 4)
    with Producer(log, TOPICS) as producer:
        producer.register(OPERATOR)  # so that the timekeeper is this one
    pipeline = Pipeline(url, tmp_path_factory.mktemp("ledger"), log=log)
    pipeline.submit(list(full_life())[:3])
    pipeline.close()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def copy(postgres_server: Server, template: str) -> Iterator[str]:
    url = postgres_server.create_database(like=template)
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def opened(copy: str, tmp_path: Path) -> Iterator[Backends]:
    with backends(Settings(home=tmp_path, log=copy, views=copy)) as found:
        yield found


@pytest.fixture(autouse=True)
def contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is checked in full elsewhere, and takes a second."""
    monkeypatch.setattr("aidtrail.conformance.check", list)


def findings(opened: Backends) -> dict[str, list[str]]:
    """Subject -> what is not well."""
    found: dict[str, list[str]] = {}
    for finding in doctor.examine(opened):
        found.setdefault(finding.subject, [])
        if finding.verdict != "ok":
            found[finding.subject].append(f"{finding.verdict}: {finding.found}")
    return found


def execute(database_url: str, *statements: str) -> None:
    with psycopg.connect(database_url) as connection:
        for statement in statements:
            connection.execute(statement.encode())


WELL = ["log", "database", "topics", "rights", "schemas", "registry", "migrations", "views", "lag", "clocks"]
BROKEN: dict[str, tuple[str, str, str]] = {
    # what is done to the database: the subject, the verdict, and what it says
    "DELETE FROM log.partitions WHERE topic = 'donations.registry'": ("topics", "fail", "run 'aidtrail topics create'"),
    "INSERT INTO log.partitions VALUES ('donations.recorded', 4)": ("topics", "fail", "expected the 4 partitions"),
    "INSERT INTO aidtrail.migrations VALUES (99, '0099_later.sql', '')": ("migrations", "fail", "newer than this release"),
    "DELETE FROM views_1.migrations WHERE number = 1": ("migrations", "fail", "is not applied; start 'aidtrail project'"),
    "UPDATE views_1.migrations SET sha256 = 'x' WHERE number = 1": ("migrations", "fail", "was changed after it was applied"),
    "DELETE FROM views_1.positions WHERE partition = 3": ("views", "fail", "they belong to another log"),
    "UPDATE views_1.positions SET next_offset = next_offset + 7 WHERE partition = 2": (
        "views",
        "fail",
        "ahead of the log, partition 2 is at",
    ),
    "UPDATE views_1.positions SET next_offset = next_offset - 1 WHERE next_offset > 0": ("lag", "warn", "is a projector running?"),
    "INSERT INTO views_1.parked VALUES ('D-1', 0, 0, 'why')": ("parked", "fail", "--unpark"),
    "UPDATE views_1.entries SET outcome = 'void'": ("void", "warn", "somebody else wrote them"),
    "UPDATE log.partitions SET last_timestamp = 4102444800000": ("clocks", "fail", "the log's clock is"),
}


def test_a_pipeline_that_is_well_is_found_well(opened: Backends) -> None:
    assert findings(opened) == {subject: [] for subject in WELL}


@pytest.mark.parametrize("statement", BROKEN)
def test_what_is_broken_is_named_with_what_to_do(opened: Backends, copy: str, statement: str) -> None:
    subject, verdict, said = BROKEN[statement]
    execute(copy, statement)

    found = findings(opened)

    assert any(line.startswith(verdict) and said in line for line in found.get(subject, [])), found


def test_clocks_that_differ_are_named(opened: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    here = time.time
    for skew, said in ((-30.0, "30.0 s ahead of this machine's"), (30.0, "30.0 s behind this machine's")):
        monkeypatch.setattr("aidtrail.cli.doctor.time.time", lambda skew=skew: here() + skew)

        assert any(said in line and "NTP" in line for line in findings(opened)["clocks"])


def test_a_setting_with_a_letter_missing_is_named(opened: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIDTRAIL_LISTN", "127.0.0.1:9000")
    monkeypatch.setenv("AIDTRAIL_GATEWAY_SERVICE_PORT", "8080")  # as Kubernetes sets it

    assert findings(opened)["settings"] == ["warn: AIDTRAIL_LISTN is none, and has no effect: did you mean AIDTRAIL_LISTEN?"]


def test_a_contract_that_does_not_keep_its_promises_is_named(opened: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aidtrail.conformance.check", lambda: ["pledge_announced.avsc: a field is missing"])

    assert findings(opened)["schemas"] == ["fail: pledge_announced.avsc: a field is missing"]


def test_a_registry_with_nobody_in_it_is_named(database_url: str, tmp_path: Path) -> None:
    with backends(Settings(home=tmp_path, log=database_url, views=database_url)) as opened:
        TOPICS.create(opened.log, 4)
        empty = findings(opened)
        with Producer(opened.log, TOPICS) as producer:
            producer.register(OPERATOR)
        with_operator = findings(opened)

    assert [line.partition(":")[0] for line in empty["registry"]] == ["warn", "warn"]
    assert any("no timekeeper" in line for line in empty["registry"])
    (left,) = with_operator["registry"]
    assert "load parties and actors with 'aidtrail registry load FILE'" in left
    assert empty["views"] == ["warn: none yet: start 'aidtrail up' or 'aidtrail project'"]


def test_who_must_sign_and_has_no_key_is_named(opened: Backends) -> None:
    with Producer(opened.log, TOPICS) as producer:
        producer.register([requiring("KBH"), enrolled("kbh-officer", public_key_of("kbh-officer"))])
        one_is_left = findings(opened)["registry"]
        producer.register([requiring("KRCS")])
        many_are_left = findings(opened)["registry"]
        producer.register([event for party in ("KBH", "KRCS") for event in signing_party(party)])

    (said,) = one_is_left
    assert said.startswith("warn: kbh-officer-2: no key, and their party requires signatures")
    assert " ...: no key" in many_are_left[0]
    assert findings(opened)["registry"] == []


def test_what_cannot_be_reached_is_tried_once_and_the_rest_is_checked(opened: Backends) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    with backends(opened.settings.model_copy(update={"log": nowhere})) as without_log:
        log = findings(without_log)
    with backends(opened.settings.model_copy(update={"views": nowhere})) as without_views:
        views = findings(without_views)

    assert [*log] == ["log", "database", "schemas", "migrations"]
    assert [*views] == ["log", "database", "topics", "rights", "schemas", "registry"]
    for found, subject in ((log, "log"), (views, "database")):
        (line,) = found[subject]
        assert "Check AIDTRAIL_" in line
