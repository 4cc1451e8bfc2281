"""The registry of schemas: every path of it, and a client of another hand that reads and writes through it.

The client is Confluent's for Python. It knows nothing of Aidtrail: all it has is the address of the surface, as any other Avro client."""

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext
from fastapi import FastAPI

from aidtrail import codec, contract
from aidtrail.cli import ndjson
from aidtrail.cli.demo import REGISTRY
from aidtrail.codec import AnyEvent
from aidtrail.demo.story import story
from aidtrail.domain.events import EVENTS, Event, RegistryEvent, SubmissionRefused
from aidtrail.gateway import schema_registry
from aidtrail.ledger import Ledger
from aidtrail.log import Draft, partition_of
from aidtrail.log.memory import MemoryLog
from aidtrail.producer import Producer
from aidtrail.service import drain
from aidtrail.topics import Topics
from tests.acts import START, full_life, registry_events
from tests.serving import Served

TOPICS = Topics.of("donations")
ANNOUNCED = "donations.recorded-org.aidtrail.PledgeAnnounced"
SCHEMA = contract.latest("PledgeAnnounced").schema
FIRST = contract.published()[25].schema
CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
PARTITIONS = 3


def application(topics: Topics = TOPICS) -> FastAPI:
    app = FastAPI()
    app.include_router(schema_registry.router(topics), prefix="/registry")
    return app


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Our surface for the topics of the prefix 'donations'."""
    with Served(application()) as served:
        yield f"{served.url}/registry"


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def confluent(url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": url}) as client:
        yield client


def said(response: httpx.Response) -> Any:
    """The body of an answer that is none but the registry's."""
    assert response.headers["content-type"] == CONTENT_TYPE
    return response.json()


def asked(schema: object, **more: object) -> dict[str, object]:
    return {"schema": json.dumps(schema), **more}


# --- every path ---------------------------------------------------------------------------------------------------------------------


def test_subjects_are_those_events_that_may_stand_in_each_topic(http: httpx.Client) -> None:
    found = said(http.get("/subjects"))

    counts = {topic: sum(name.startswith(f"{topic}-org.aidtrail.") for name in found) for topic in TOPICS}
    print(f"subjects: {counts}")
    assert counts == {"donations.submitted": 26, "donations.recorded": 27, "donations.registry": 5}
    assert len(found) == sum(counts.values())
    assert found == sorted(found)
    assert "donations.recorded-org.aidtrail.SubmissionRefused" in found
    assert "donations.submitted-org.aidtrail.SubmissionRefused" not in found


def test_subjects_follow_the_prefix_of_the_topics() -> None:
    with Served(application(Topics.of("kw.relief"))) as served:
        found = said(httpx.get(f"{served.url}/registry/subjects", trust_env=False))

    assert len(found) == 58
    assert all(name.startswith("kw.relief.") for name in found)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"subjectPrefix": "donations.registry-"}, 5),
        ({"subjectPrefix": ":*:"}, 58),
        ({"subjectPrefix": ":*:donations.recorded-"}, 27),
        ({"subjectPrefix": "other"}, 0),
        ({"offset": "50"}, 8),
        ({"limit": "10"}, 10),
        ({"offset": "55", "limit": "10"}, 3),
        ({"limit": "0"}, 0),
    ],
)
def test_subjects_can_be_narrowed_down(http: httpx.Client, query: dict[str, str], count: int) -> None:
    assert len(said(http.get("/subjects", params=query))) == count


@pytest.mark.parametrize(
    ("version", "number", "schema_id", "schema"),
    [("1", 1, 25, FIRST), ("2", 2, 54, SCHEMA), ("latest", 2, 54, SCHEMA), ("-1", 2, 54, SCHEMA)],
)
def test_a_version_says_subject_number_id_and_schema(http: httpx.Client, version: str, number: int, schema_id: int, schema: Any) -> None:
    found = said(http.get(f"/subjects/{ANNOUNCED}/versions/{version}"))

    assert {**found, "schema": json.loads(found["schema"])} == {"subject": ANNOUNCED, "version": number, "id": schema_id, "schema": schema}
    assert said(http.get(f"/subjects/{ANNOUNCED}/versions/{version}/schema")) == schema
    assert said(http.get(f"/subjects/{ANNOUNCED}/versions")) == [1, 2]


def test_each_schema_is_had_by_the_id_that_stands_in_records(http: httpx.Client) -> None:
    for schema_id, entry in contract.published().items():
        assert json.loads(said(http.get(f"/schemas/ids/{schema_id}"))["schema"]) == entry.schema
        assert said(http.get(f"/schemas/ids/{schema_id}/schema")) == entry.schema
        assert said(http.get(f"/schemas/ids/{schema_id}", params={"subject": "donations.recorded-value"})).keys() == {"schema"}


def test_an_id_says_in_which_subjects_it_stands(http: httpx.Client) -> None:
    submitted = ANNOUNCED.replace("recorded", "submitted")

    assert said(http.get("/schemas/ids/25/subjects")) == [ANNOUNCED, submitted]
    assert said(http.get("/schemas/ids/25/versions")) == [{"subject": ANNOUNCED, "version": 1}, {"subject": submitted, "version": 1}]
    assert said(http.get("/schemas/ids/25/versions", params={"subject": submitted})) == [{"subject": submitted, "version": 1}]
    assert said(http.get("/schemas/ids/31/subjects")) == ["donations.recorded-org.aidtrail.SubmissionRefused"]


def test_settings_are_those_of_the_contract(http: httpx.Client) -> None:
    assert said(http.get("/")) == {}
    assert said(http.get("/schemas/types")) == ["AVRO"]
    assert said(http.get("/config")) == said(http.get(f"/config/{ANNOUNCED}")) == {"compatibilityLevel": "FULL_TRANSITIVE"}
    assert said(http.get("/mode")) == said(http.get(f"/mode/{ANNOUNCED}")) == {"mode": "READONLY"}


def as_others_write_it(schema: Any, around: str | None = None) -> Any:
    """The schema as code generators of other languages have it: no namespace where it is that of the type around, attributes sorted."""
    if isinstance(schema, list):
        return [as_others_write_it(branch, around) for branch in schema]
    if isinstance(schema, str):
        return schema.removeprefix(f"{around}.")
    if not isinstance(schema, dict):
        return schema
    own = schema.get("namespace", around)
    written = {key: value for key, value in sorted(schema.items()) if not (key == "namespace" and value == around)}
    for key in written.keys() & {"type", "items"}:
        written[key] = as_others_write_it(written[key], own)
    if "fields" in written:
        written["fields"] = [as_others_write_it(field, own) for field in written["fields"]]
    return written


@pytest.mark.parametrize(("number", "schema_id", "schema"), [(1, 25, FIRST), (2, 54, SCHEMA)])
def test_a_schema_is_looked_up_under_its_subject(http: httpx.Client, number: int, schema_id: int, schema: Any) -> None:
    for written in (schema, as_others_write_it(schema)):
        found = said(http.post(f"/subjects/{ANNOUNCED}", json=asked(written)))

        assert (found["subject"], found["version"], found["id"]) == (ANNOUNCED, number, schema_id)


def with_field(**field: object) -> Any:
    return {**SCHEMA, "fields": [*SCHEMA["fields"], field]}


OPTIONAL_FIELD = with_field(name="note", type=["null", "string"], default=None)
NOTE = '{"name": "note", "type": "string", "default": ""}'


@pytest.mark.parametrize(
    ("schema", "compatible"),
    [
        (SCHEMA, True),
        (as_others_write_it(SCHEMA), True),
        (OPTIONAL_FIELD, True),
        (with_field(name="note", type={"type": "map", "values": "string"}, default={}), True),
        (with_field(name="note", type="string"), False),
        ({**SCHEMA, "fields": SCHEMA["fields"][:-1]}, True),
        ({**SCHEMA, "fields": SCHEMA["fields"][1:]}, False),
        ({**SCHEMA, "name": "PledgeForgotten"}, False),
        (json.loads(json.dumps(SCHEMA).replace('"scale": 4', '"scale": 2')), False),  # which Avro alone would let pass
        (json.loads(json.dumps(SCHEMA).replace('{"name": "rules", "type": "int"}', f'{{"name": "rules", "type": "int"}}, {NOTE}')), False),
        ("string", False),
    ],
)
def test_compatibility_is_that_of_the_contract(http: httpx.Client, schema: object, compatible: bool) -> None:
    for version in ("versions/latest", "versions/1", "versions"):
        path = f"/compatibility/subjects/{ANNOUNCED}/{version}"
        assert said(http.post(path, json=asked(schema))) == {"is_compatible": compatible}
        found = said(http.post(path, json=asked(schema), params={"verbose": "true"}))
        assert (found["is_compatible"], found["messages"] == []) == (compatible, compatible)


def in_each_namespace(prefix: str, name: str, field: str, kinds: list[Any], again: list[str]) -> list[Any]:
    """Records of one name in as many namespaces, each with a field of these kinds: `again` is what they are called once they are known."""
    found = []
    for number in range(len(again)):
        fields = [{"name": field, "type": again if number else kinds}]
        found.append({"type": "record", "name": name, "namespace": f"{prefix}{number}", "fields": fields})
    return found


def test_unions_of_types_of_one_name_do_not_multiply_from_level_to_level(http: httpx.Client) -> None:
    """A name may be used once in each namespace, and a type be named again and again: 32 in 32 in 32."""

    digests = [{"type": "fixed", "name": "D", "namespace": f"d{number}", "size": 1} for number in range(32)]
    actors = in_each_namespace("a", "Actor", "actor_id", digests, [f"d{number}.D" for number in range(32)])
    metas = in_each_namespace("m", "Meta", "actor", actors, [f"a{number}.Actor" for number in range(32)])
    schema = {**SCHEMA, "fields": [{"name": "meta", "type": metas}]}

    answer = http.post(f"/compatibility/subjects/{ANNOUNCED}/versions/latest", json=asked(schema), params={"verbose": "true"})

    messages = said(answer)["messages"]
    print(f"{len(json.dumps(schema))} bytes of a schema: {len(messages)} differences")
    assert 0 < len(messages) < 1000


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/subjects/other/versions", None, 404, 40401),
        ("GET", "/subjects/other/versions/1", None, 404, 40401),
        ("GET", "/subjects/other/versions/1/schema", None, 404, 40401),
        ("GET", "/config/other", None, 404, 40401),
        ("GET", "/mode/other", None, 404, 40401),
        ("POST", "/subjects/other", asked(SCHEMA), 404, 40401),
        ("POST", "/compatibility/subjects/other/versions", asked(SCHEMA), 404, 40401),
        ("POST", "/compatibility/subjects/other/versions/1", asked(SCHEMA), 404, 40401),
        ("GET", f"/subjects/{ANNOUNCED}/versions/3", None, 404, 40402),
        ("GET", f"/subjects/{ANNOUNCED}/versions/2147483647/schema", None, 404, 40402),
        ("POST", f"/compatibility/subjects/{ANNOUNCED}/versions/3", asked(SCHEMA), 404, 40402),
        ("GET", "/schemas/ids/64", None, 404, 40403),
        ("GET", "/schemas/ids/0", None, 404, 40403),
        ("GET", "/schemas/ids/-1", None, 404, 40403),
        ("GET", "/schemas/ids/²", None, 404, 40403),
        ("GET", f"/schemas/ids/{'9' * 5000}", None, 404, 40403),
        ("GET", "/schemas/ids/64/schema", None, 404, 40403),
        ("GET", "/schemas/ids/64/versions", None, 404, 40403),
        ("GET", "/schemas/ids/64/subjects", None, 404, 40403),
        ("POST", f"/subjects/{ANNOUNCED}", asked(OPTIONAL_FIELD), 404, 40403),
        ("POST", f"/subjects/{ANNOUNCED}", asked(contract.latest("PledgeConfirmed").schema), 404, 40403),
        ("GET", f"/subjects/{ANNOUNCED}/versions/0", None, 422, 42202),
        ("GET", f"/subjects/{ANNOUNCED}/versions/2147483648", None, 422, 42202),
        ("GET", f"/subjects/{ANNOUNCED}/versions/newest", None, 422, 42202),
        ("GET", f"/subjects/{ANNOUNCED}/versions/²", None, 422, 42202),
        ("GET", f"/subjects/{ANNOUNCED}/versions/{'9' * 5000}", None, 422, 42202),
        ("POST", f"/subjects/{ANNOUNCED}", {"schema": "{"}, 422, 42201),
        ("POST", f"/subjects/{ANNOUNCED}", {"schema": "null null"}, 422, 42201),
        ("POST", f"/subjects/{ANNOUNCED}", asked({"type": "record"}), 422, 42201),
        ("POST", f"/subjects/{ANNOUNCED}", asked({"type": 7}), 422, 42201),
        ("POST", f"/subjects/{ANNOUNCED}", asked("org.aidtrail.Money"), 422, 42201),
        ("POST", f"/subjects/{ANNOUNCED}", asked(SCHEMA, schemaType="PROTOBUF"), 422, 42201),
        ("POST", f"/subjects/{ANNOUNCED}", {"schema": "[" * 10_000}, 422, 42201),
        ("POST", f"/compatibility/subjects/{ANNOUNCED}/versions", {"schema": "{}"}, 422, 42201),
        ("POST", f"/compatibility/subjects/{ANNOUNCED}/versions", asked(["string", "null", "string"]), 422, 42201),
        ("POST", f"/compatibility/subjects/{ANNOUNCED}/versions", asked(["string", {"type": "string", "logicalType": "uuid"}]), 422, 42201),
        ("POST", f"/compatibility/subjects/{ANNOUNCED}/versions", asked([SCHEMA, "org.aidtrail.PledgeAnnounced"]), 422, 42201),
        ("POST", f"/compatibility/subjects/{ANNOUNCED}/versions", asked(["null", ["string"]]), 422, 42201),
        ("POST", f"/compatibility/subjects/{ANNOUNCED}/versions", asked({"type": "array", "items": ["int", "int"]}), 422, 42201),
        ("POST", f"/subjects/{ANNOUNCED}", {}, 400, 400),
        ("POST", f"/subjects/{ANNOUNCED}", [], 400, 400),
        ("POST", f"/subjects/{ANNOUNCED}", {"schema": SCHEMA}, 400, 400),
        ("GET", "/subjects?limit=many", None, 400, 400),
        ("POST", f"/subjects/{ANNOUNCED}/versions", asked(OPTIONAL_FIELD), 422, 42205),
        ("POST", "/subjects/other/versions", asked(OPTIONAL_FIELD), 422, 42205),
        ("DELETE", f"/subjects/{ANNOUNCED}", None, 422, 42205),
        ("DELETE", f"/subjects/{ANNOUNCED}/versions/1", None, 422, 42205),
        ("PUT", "/config", {"compatibility": "NONE"}, 422, 42205),
        ("DELETE", "/config", None, 422, 42205),
        ("PUT", f"/config/{ANNOUNCED}", {"compatibility": "NONE"}, 422, 42205),
        ("DELETE", f"/config/{ANNOUNCED}", None, 422, 42205),
        ("PUT", "/mode", {"mode": "IMPORT"}, 422, 42205),
        ("PUT", f"/mode/{ANNOUNCED}", {"mode": "IMPORT"}, 422, 42205),
        ("DELETE", f"/mode/{ANNOUNCED}", None, 422, 42205),
        ("GET", "/exporters", None, 404, 404),
        ("POST", "/associations", {}, 404, 404),
        ("PATCH", "/subjects", {}, 404, 404),
    ],
)
def test_what_is_not_there_or_not_allowed_is_answered_as_the_api_documents_it(
    http: httpx.Client, method: str, path: str, body: object, status: int, code: int
) -> None:
    response = http.request(method, path, json=body) if body is not None else http.request(method, path)

    found = said(response)
    assert (response.status_code, found["error_code"]) == (status, code)
    assert found.keys() == {"error_code", "message"}


def test_what_takes_time_to_compare_holds_up_nobody_else(http: httpx.Client, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, others_answered = threading.Event(), threading.Event()

    def compare(older: object, newer: object) -> list[str]:
        begun.set()
        return [] if others_answered.wait(10) else ["nobody else was answered"]

    monkeypatch.setattr(schema_registry, "problems", compare)
    with ThreadPoolExecutor(1) as asking:
        path = f"{url}/compatibility/subjects/{ANNOUNCED}/versions/latest"
        answer = asking.submit(httpx.post, path, json=asked(SCHEMA), timeout=20, trust_env=False)
        assert begun.wait(10)
        assert http.get("/").status_code == 200
        others_answered.set()

    assert said(answer.result()) == {"is_compatible": True}


def test_text_that_is_no_json_is_refused_in_the_same_form(http: httpx.Client) -> None:
    response = http.post(f"/subjects/{ANNOUNCED}", content=b"{", headers={"content-type": CONTENT_TYPE})

    assert (response.status_code, said(response)["error_code"]) == (400, 400)


def test_nothing_that_was_asked_changed_anything(http: httpx.Client) -> None:
    assert len(said(http.get("/subjects"))) == 58
    assert said(http.get(f"/subjects/{ANNOUNCED}/versions")) == [1, 2]
    assert said(http.get("/config")) == {"compatibilityLevel": "FULL_TRANSITIVE"}


# --- a client of another hand -------------------------------------------------------------------------------------------------------


def test_confluents_client_finds_its_way(confluent: SchemaRegistryClient) -> None:
    registered = confluent.get_latest_version(ANNOUNCED)

    assert (registered.subject, registered.version, registered.schema_id) == (ANNOUNCED, 2, 54)
    assert len(confluent.get_subjects()) == 58
    assert confluent.get_versions(ANNOUNCED) == [1, 2]
    assert confluent.get_subjects_by_schema_id(31) == ["donations.recorded-org.aidtrail.SubmissionRefused"]
    assert confluent.get_schema_types() == ["AVRO"]
    assert confluent.get_compatibility() == confluent.get_compatibility(ANNOUNCED) == "FULL_TRANSITIVE"
    assert confluent.get_global_mode() == confluent.get_mode(ANNOUNCED) == "READONLY"
    assert confluent.lookup_schema(ANNOUNCED, registered.schema).schema_id == 54
    assert confluent.test_compatibility(ANNOUNCED, registered.schema)
    assert confluent.test_compatibility_all_versions(ANNOUNCED, registered.schema)
    for forbidden in (
        lambda: confluent.register_schema("other", registered.schema),
        lambda: confluent.delete_subject(ANNOUNCED),
        lambda: confluent.set_compatibility(ANNOUNCED, "NONE"),
    ):
        with pytest.raises(SchemaRegistryError, match="read-only") as refused:
            forbidden()
        assert (refused.value.http_status_code, refused.value.error_code) == (422, 42205)


NOW = START + timedelta(days=1)
"""The time of the logs below: all that is submitted has happened, and nothing is due yet."""


def ruled(folder: Path, registry: Sequence[RegistryEvent], submissions: Sequence[bytes]) -> MemoryLog:
    """The log once a ledger has ruled on these submissions, in their order."""
    log = MemoryLog(clock=lambda: int(NOW.timestamp() * 1000))
    TOPICS.create(log, PARTITIONS)
    with Producer(log, TOPICS) as producer:
        producer.register(registry)
    keys = [_event(value).meta.donation_id.encode() for value in submissions]
    log.append([Draft(TOPICS.submitted, partition_of(key, PARTITIONS), key, value) for key, value in zip(keys, submissions, strict=True)])
    ledger = Ledger(log, TOPICS, folder, group="ledger")
    drain(ledger, lambda: sum(log.end_offsets(TOPICS.recorded).values()) == len(submissions))
    ledger.close()
    return log


def _event(value: bytes) -> Event:
    event = codec.decode(value)
    assert isinstance(event, Event)
    return event


def values(log: MemoryLog, topic: str) -> list[bytes]:
    reader = log.reader(topic)
    reader.assign(dict.fromkeys(range(log.partitions(topic)), 0))
    return [record.value for records in reader.poll(100_000, 0).values() for record in records if record.value is not None]


def demo_registry() -> list[RegistryEvent]:
    events = [line.event for line in ndjson.read(str(REGISTRY)) if isinstance(line, ndjson.Line)]
    return [event for event in events if isinstance(event, RegistryEvent)]


def demo_events() -> list[Event]:
    return [step.event(number, NOW) for number, step in enumerate(story(NOW), start=1)]


def examples() -> list[AnyEvent]:
    return [codec.from_json(path.read_bytes()) for path in sorted(contract.FOLDER.glob("examples/*.json"))]


def plain(value: Any) -> Any:
    """What an event says, in the types that an Avro library has: lists and names."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value


def differing(deserialize: AvroDeserializer, topic: str, found: list[bytes]) -> list[str]:
    """The values that the client reads otherwise than `codec` does; the strategy of subjects is the client's own affair."""
    context = SerializationContext(topic, MessageField.VALUE)
    pairs = [(deserialize(value, context), codec.decode(value)) for value in found]
    return [event.type for read, event in pairs if read != plain(event.model_dump())]


@pytest.fixture(params=["as it comes", "by topic and record"])
def deserialize(request: pytest.FixtureRequest, confluent: SchemaRegistryClient) -> AvroDeserializer:
    strategies = {"as it comes": {}, "by topic and record": {"subject.name.strategy": topic_record_subject_name_strategy}}
    made: AvroDeserializer = AvroDeserializer(confluent, conf=strategies[request.param])
    return made


def test_confluents_deserializer_reads_every_example_as_we_do(deserialize: AvroDeserializer) -> None:
    found = [codec.encode(event) for event in examples()]

    different = differing(deserialize, TOPICS.recorded, found)
    print(f"{len(found)} example events, {len(different)} differing")
    assert different == []
    assert {_type_of(value) for value in found} == set(EVENTS)


def _type_of(value: bytes) -> str:
    return codec.decode(value).type


def test_confluents_deserializer_reads_all_that_a_ledger_recorded_as_we_do(deserialize: AvroDeserializer, tmp_path: Path) -> None:
    runs = [
        ruled(tmp_path / "demo", demo_registry(), [codec.encode(event) for event in demo_events()]),
        ruled(tmp_path / "life", registry_events(), [codec.encode(event) for event in full_life()]),
    ]
    for topic, refused in ((TOPICS.registry, 0), (TOPICS.submitted, 0), (TOPICS.recorded, 5)):
        found = [value for log in runs for value in values(log, topic)]
        different = differing(deserialize, topic, found)
        print(f"{topic}: {len(found)} events, {len(different)} differing")
        assert different == []
        assert sum(_type_of(value) == SubmissionRefused.type for value in found) == refused
    recorded = [_event(value) for log in runs for value in values(log, TOPICS.recorded)]
    print(f"{len(recorded)} recorded events, 0 differing")
    assert len(recorded) == len(demo_events()) + len(list(full_life()))
    assert all(event.meta.ledger is not None for event in recorded)


def test_a_reader_of_bytes_that_were_changed_differs(deserialize: AvroDeserializer) -> None:
    """The comparison above can fail: the name of the donor, another letter."""
    value = codec.encode(demo_events()[0])
    context = SerializationContext(TOPICS.recorded, MessageField.VALUE)

    assert deserialize(value.replace(b"KRCS", b"KRCX"), context) != plain(codec.decode(value).model_dump())


def serialized(confluent: SchemaRegistryClient, topic: str, event: AnyEvent, **conf: object) -> bytes:
    """The bytes that Confluent's serializer makes of what the event says, with the schema that it finds at the registry."""
    found = confluent.get_latest_version(f"{topic}-{contract.NAMESPACE}.{event.type}")
    assert found.schema is not None
    settings = {"auto.register.schemas": False, "subject.name.strategy": topic_record_subject_name_strategy, **conf}
    serialize = AvroSerializer(confluent, found.schema.schema_str, conf=settings)
    value = serialize(plain(event.model_dump()), SerializationContext(topic, MessageField.VALUE))
    assert isinstance(value, bytes)
    return value


@pytest.mark.parametrize("latest", [True, False], ids=["with the latest version", "with the schema looked up"])
def test_what_confluents_serializer_writes_is_admitted(confluent: SchemaRegistryClient, tmp_path: Path, latest: bool) -> None:
    events = [*demo_events(), *full_life("KRCS-2026-0002")]

    found = [serialized(confluent, TOPICS.submitted, event, **{"use.latest.version": latest}) for event in events]

    assert [codec.decode(value) for value in found] == events
    assert found == [codec.encode(event) for event in events]
    by_demo, by_life = found[: len(demo_events())], found[len(demo_events()) :]
    logs = [ruled(tmp_path / "demo", demo_registry(), by_demo), ruled(tmp_path / "life", registry_events(), by_life)]
    recorded = [_event(value) for log in logs for value in values(log, TOPICS.recorded)]
    refused = [event.reason for event in recorded if isinstance(event, SubmissionRefused)]
    print(f"{len(found)} events written by Confluent's serializer: {len(recorded) - len(refused)} admitted, {len(refused)} refused")
    assert refused == [step.refused_by for step in story(NOW) if step.refused_by is not None]


def test_a_schema_that_is_not_of_this_registry_cannot_be_written_with(confluent: SchemaRegistryClient) -> None:
    conf = {"subject.name.strategy": topic_record_subject_name_strategy}
    looking_up = AvroSerializer(confluent, json.dumps(OPTIONAL_FIELD), conf={**conf, "auto.register.schemas": False})
    registering = AvroSerializer(confluent, json.dumps(OPTIONAL_FIELD), conf={**conf, "auto.register.schemas": True})
    context = SerializationContext(TOPICS.submitted, MessageField.VALUE)
    said = plain(demo_events()[0].model_dump())

    with pytest.raises(SchemaRegistryError, match="40403"):
        looking_up(said, context)
    with pytest.raises(SchemaRegistryError, match="42205"):
        registering(said, context)
