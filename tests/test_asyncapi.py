"""The AsyncAPI document: that the committed one is what is generated, that AsyncAPI's own parser takes it, and that it says what is so."""

import copy
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aidtrail import asyncapi, codec, contract
from aidtrail.domain.events import EVENTS
from aidtrail.log.kafka import REQUIRED_SETTINGS
from aidtrail.subjects import events_of
from aidtrail.topics import Topics

TOPICS = Topics.of("donations")
COMMITTED = contract.FOLDER / "asyncapi.json"
SOURCE = Path(__file__).parent / "asyncapi"
BUILD = Path(__file__).parent.parent / "build" / "asyncapi"
INSTALL_SECONDS = 300


def test_the_committed_document_is_what_is_generated() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == asyncapi.text(TOPICS), "run 'aidtrail schemas asyncapi > schemas/asyncapi.json'"
    assert json.loads(COMMITTED.read_text(encoding="utf-8")) == asyncapi.document(TOPICS)


def test_the_command_prints_the_document_of_this_installation() -> None:
    command = [sys.executable, "-c", "from aidtrail.cli import main; main()", "schemas", "asyncapi"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIDTRAIL_")}
    settings = {"AIDTRAIL_TOPIC_PREFIX": "kw.relief"}

    done = subprocess.run(command, env=environment | settings, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == asyncapi.text(Topics.of("kw.relief"))


def test_topics_have_the_names_of_the_prefix() -> None:
    found = asyncapi.document(Topics.of("kw.relief"))

    addresses = {name: channel["address"] for name, channel in found["channels"].items()}
    assert addresses == {"submitted": "kw.relief.submitted", "recorded": "kw.relief.recorded", "registry": "kw.relief.registry"}


def test_each_topic_has_the_events_that_may_stand_in_it() -> None:
    found = asyncapi.document(TOPICS)

    for name, topic in TOPICS._asdict().items():
        assert tuple(found["channels"][name]["messages"]) == events_of(TOPICS)[topic]
    assert found["components"]["messages"].keys() == EVENTS.keys()


def test_each_message_has_its_newest_schema_its_ids_and_every_example() -> None:
    messages = asyncapi.document(TOPICS)["components"]["messages"]

    ids = {schema_id: event for event, message in messages.items() for schema_id in message["x-schema-ids"]}
    assert ids == {schema_id: entry.event for schema_id, entry in contract.published().items()}
    for event, message in messages.items():
        assert message["payload"]["schema"] == contract.latest(event).schema
        for example in message["examples"]:
            assert codec.from_json(json.dumps(example["payload"])).type == event
    shown = [example["name"] for message in messages.values() for example in message["examples"]]
    assert sorted(shown) == sorted(path.stem for path in contract.FOLDER.glob("examples/*.json"))


def test_the_settings_of_topics_are_those_that_are_required() -> None:
    said = {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in asyncapi.TOPIC_SETTINGS.items()}

    assert said.items() <= REQUIRED_SETTINGS.items()


# --- AsyncAPI's own parser ----------------------------------------------------------------------------------------------------------


def installed() -> Path:
    """The folder with the parser of tests/asyncapi/package-lock.json, installed unless it is there. Without Node.js or npm: a shown skip,
    in CI a failure. Safe to call from several processes at once."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing:
        message = f"validating the AsyncAPI document needs {' and '.join(missing)} on the PATH"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    BUILD.mkdir(parents=True, exist_ok=True)
    wanted, stamp = (SOURCE / "package-lock.json").read_bytes(), BUILD / "installed"
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("package.json", "package-lock.json", "validate.mjs"):
            shutil.copy(SOURCE / name, BUILD)
        if not stamp.exists() or stamp.read_bytes() != wanted:
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
            subprocess.run(command, cwd=BUILD, check=True, stdin=subprocess.DEVNULL, timeout=INSTALL_SECONDS)
            stamp.write_bytes(wanted)  # last, so that an install that was interrupted is not taken for a whole one
    return BUILD


@pytest.fixture(scope="module")
def parsed() -> Callable[..., list[dict[str, Any]]]:
    folder = installed()

    def parse(*files: Path) -> list[dict[str, Any]]:
        command = ["node", str(folder / "validate.mjs"), *map(str, files)]
        done = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return parse


def test_asyncapis_own_parser_takes_the_document(parsed: Callable[..., list[dict[str, Any]]]) -> None:
    (found,) = parsed(COMMITTED)

    print(f"AsyncAPI {found['version']}: {found['channels']} channels, {found['messages']} messages, {len(found['problems'])} problems")
    assert found == {"problems": [], "version": "3.1.0", "channels": 3, "operations": 3, "messages": 32}


def test_asyncapis_own_parser_finds_what_is_wrong(parsed: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    """So that no problems above means something."""
    files = []
    for number, break_it in enumerate(BREAKS):
        broken = copy.deepcopy(asyncapi.document(TOPICS))
        break_it(broken)
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(broken), encoding="utf-8")

    found = parsed(*files)
    assert len(found) == len(BREAKS)
    assert all(each["problems"] for each in found)


def a_field_that_is_none(document: dict[str, Any]) -> None:
    document["channels"]["submitted"]["topic"] = "donations.submitted"


def a_message_that_is_not_there(document: dict[str, Any]) -> None:
    del document["components"]["messages"]["PledgeExpired"]


def a_type_that_is_not_there(document: dict[str, Any]) -> None:
    document["components"]["messages"]["PledgeExpired"]["payload"]["schema"]["fields"][0]["type"] = "org.aidtrail.Money"


def another_binding(document: dict[str, Any]) -> None:
    document["components"]["messages"]["PledgeExpired"]["bindings"]["kafka"]["schemaIdLocation"] = "body"


def another_kind_of_type(document: dict[str, Any]) -> None:
    document["components"]["messages"]["PledgeExpired"]["payload"]["schema"]["type"] = "recor"


BREAKS = (a_field_that_is_none, a_message_that_is_not_there, a_type_that_is_not_there, another_kind_of_type, another_binding)
