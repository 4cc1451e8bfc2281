"""Signed events over HTTP: their own bytes, by their own actor; memory log, real PostgreSQL, ledger and projector at work."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from aidtrail import codec
from aidtrail.chain import read_entry
from aidtrail.client import Admitted, Client, Refused
from aidtrail.conformance import STAMP
from aidtrail.domain import events as e
from aidtrail.gateway import local
from aidtrail.gateway.app import create
from aidtrail.gateway.state import Gateway
from aidtrail.log.memory import MemoryLog
from aidtrail.producer import Producer
from aidtrail.signatures import PAYLOAD_TYPE, sign
from tests.acts import Acts, full_life
from tests.databases import Server
from tests.pipeline import TOPICS, Pipeline
from tests.serving import Served
from tests.signing import key_of, signing_party
from tests.test_client import Network, bad_gateway, late, lost
from tests.test_gateway import request_of

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)


class Service:
    """A gateway and the pipeline behind it, in which KRCS requires signatures of its actors."""

    def __init__(self, url: str, pipeline: Pipeline, home: Path) -> None:
        self.url, self.pipeline, self.home = url, pipeline, home

    def token(self, actor_id: str) -> str:
        return local.issue(self.home, actor_id, hours=1, now=datetime.now(UTC).timestamp())

    def post(self, value: bytes, actor_id: str, *, kind: str = PAYLOAD_TYPE, wait: int = 20) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token(actor_id)}", "Content-Type": kind, "Prefer": f"wait={wait}"}
        return httpx.post(f"{self.url}/v1/submissions", content=value, headers=headers, timeout=30)

    def submitted(self) -> int:
        return sum(self.pipeline.log.end_offsets(TOPICS.submitted).values())


@pytest.fixture(scope="module")
def service(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    database, home = postgres_server.create_database(), tmp_path_factory.mktemp("home")
    pipeline = Pipeline(database, tmp_path_factory.mktemp("ledger"), MemoryLog())
    with Producer(pipeline.log, TOPICS) as producer:
        producer.register(list(signing_party("KRCS")))
    with pipeline.running(), Served(create(Gateway(lambda: pipeline.log, TOPICS, database, local.local_verifier(home)), TOPICS)) as served:
        yield Service(served.url, pipeline, home)
    pipeline.close()


def signed(event: e.Event) -> bytes:
    return codec.encode(sign(event, key_of(event.meta.actor.actor_id)))


def test_nobody_can_sign_for_the_place_of_anothers_idempotency_key(service: Service) -> None:
    """Its event's id follows from actor and key. A stranger signs, or writes what is no signature, under it."""
    event = Acts("SIGNED-0900", NOW).announced(by="crc-officer")
    keyed = event.meta.model_copy(update={"event_id": codec.event_id_at(0, b"mef-approver invoice-2026-0007"), "signature": bytes(64)})
    before = service.submitted()

    answer = service.post(codec.encode(event.model_copy(update={"meta": keyed})), "crc-officer")

    assert (answer.status_code, answer.json()["where"]) == (422, "body: meta.event_id")
    assert service.submitted() == before


def test_what_an_actor_signed_is_appended_byte_for_byte_and_answered_with_its_outcome(service: Service) -> None:
    event = Acts("SIGNED-0001", NOW).announced()

    answer = service.post(signed(event), "krcs-officer")

    assert (answer.status_code, answer.headers["preference-applied"]) == (201, "wait=20")
    assert answer.json()["event_id"] == str(event.meta.event_id)
    assert answer.json()["donation"]["version"] == 1
    reader = service.pipeline.reader()
    (row,) = reader.history("SIGNED-0001")
    reader.close()
    log = service.pipeline.log.reader(TOPICS.recorded)
    log.assign({row.partition: row.offset})
    entry = read_entry(log.poll(1, 1.0)[row.partition][0])
    assert entry.event is not None
    assert entry.event.meta.ledger is not None
    assert codec.unstamped(entry.value, entry.ledger_at, entry.event.meta.ledger) == signed(event)


def test_sent_again_it_is_the_same_submission_and_other_bytes_under_its_id_are_not_taken(service: Service) -> None:
    event = Acts("SIGNED-0002", NOW).announced()
    other = event.model_copy(update={"purpose": "other"})
    before = service.submitted()

    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda _: service.post(signed(event), "krcs-officer"), range(4)))
    later = service.post(signed(event), "krcs-officer", wait=0)
    reused = service.post(signed(other), "krcs-officer")

    assert [(answer.status_code, answer.json()["version"]) for answer in (*at_once, later)] == [(201, 1)] * 5
    assert (reused.status_code, reused.json()["type"]) == (422, "/problems/id-reused")
    assert service.submitted() == before + 1


def test_other_bytes_under_an_id_that_is_on_its_way_are_not_taken(service: Service) -> None:
    event = Acts("SIGNED-0003", NOW).announced()
    others = [signed(event.model_copy(update={"purpose": str(number)})) for number in range(6)]
    before = service.submitted()

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda value: service.post(value, "krcs-officer", wait=0), others))

    assert sorted(answer.status_code for answer in answers) == [202] + [422] * 5
    assert service.submitted() == before + 1


def test_a_signature_that_does_not_hold_is_the_ledgers_to_refuse(service: Service) -> None:
    event = Acts("SIGNED-0004", NOW).announced()

    answer = service.post(codec.encode(sign(event, key_of("somebody"))), "krcs-officer")

    assert (answer.status_code, answer.json()["reason"]) == (409, "signature_is_the_actors")


def test_what_the_gateway_composes_has_no_signature_and_is_refused_where_one_is_required(service: Service) -> None:
    path, body = request_of(Acts("SIGNED-0005", NOW).announced())
    headers = {"Authorization": f"Bearer {service.token('krcs-officer')}", "Prefer": "wait=20"}

    answer = httpx.post(f"{service.url}{path}", json=body, headers=headers, timeout=30)

    assert (answer.status_code, answer.json()["reason"]) == (409, "submission_is_signed_where_required")


def test_nobody_submits_what_another_signed_or_acts_in_a_role_that_is_not_his(service: Service) -> None:
    acts = Acts("SIGNED-0006", NOW)
    event = acts.announced()
    before = service.submitted()

    for value, actor_id, status in (
        (signed(event), "krcs-officer-2", 403),
        (signed(event), "crc-officer", 403),
        (signed(acts.announced(party="CRC")), "krcs-officer", 403),
        (signed(acts.announced(role="approver")), "krcs-officer", 403),
        (signed(acts.event(e.PledgeWithdrawn, "krcs-preparer", reason="x")), "krcs-preparer", 403),
        (signed(acts.confirmed()), "krcs-officer-2", 404),
        (signed(event), "krcs-retired", 401),
    ):
        answer = service.post(value, actor_id)
        assert answer.status_code == status, answer.text
    assert service.submitted() == before


def test_a_body_that_is_no_signed_event_is_told_what_it_should_be(service: Service) -> None:
    acts = Acts("SIGNED-0007", NOW)
    event = sign(acts.announced(), key_of("krcs-officer"))
    value = codec.encode(event)
    before = service.submitted()

    def expect(body: bytes, status: int, words: str, kind: str = PAYLOAD_TYPE) -> None:
        answer = service.post(body, "krcs-officer", kind=kind)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert words in answer.text

    expect(value, 415, PAYLOAD_TYPE, "application/json")
    expect(value, 415, PAYLOAD_TYPE, "")
    expect(b"", 422, "a signed event in Avro")
    expect(b"{}", 422, "a signed event in Avro")
    expect(value[:-1], 422, "a signed event in Avro")
    expect(value.replace(b"SIGNED-0007", b"signed-0007"), 422, "body: meta.donation_id")
    expect(codec.encode(acts.announced()), 422, "body: meta.signature")
    expect(codec.stamped(value, codec.read(value)[1], STAMP), 422, "body: meta.ledger")
    expect(signed(acts.expired()), 422, "an event that this service takes")
    expect(codec.encode(next(signing_party("KRCS"))), 422, "an event that this service takes")
    expect(value + bytes(40_000), 413, "at most")
    assert service.submitted() == before


def test_a_service_that_runs_alone_takes_its_own_events_alone(service: Service) -> None:
    shared = Gateway(lambda: service.pipeline.log, TOPICS, service.pipeline.database, local.local_verifier(service.home))
    with Served(create(shared, TOPICS, ["approvals"])) as served:
        alone = Service(served.url, service.pipeline, service.home)
        answer = alone.post(signed(Acts("SIGNED-0008", NOW).announced()), "krcs-officer")

    assert (answer.status_code, answer.json()["expected"]) == (422, "an event that this service takes")


def test_a_donation_is_lived_with_the_client_by_those_who_sign_and_those_who_do_not_over_a_network_that_loses_answers(
    service: Service,
) -> None:
    life = list(full_life("SIGNED-0009", NOW))
    signers, found = 0, []
    before = service.submitted()
    for number, event in enumerate(life):
        actor = event.meta.actor
        key = key_of(actor.actor_id) if actor.party_id == "KRCS" else None
        signers += key is not None
        network = Network(*[(lost, late, bad_gateway)[number % 3]], after=number % 2 == 0)
        with Client(service.url, service.token(actor.actor_id), key=key, patience_seconds=10, transport=network) as client:
            outcome = client.submit(event, wait_seconds=20)
        found.append(outcome)
        assert key is None or (isinstance(outcome, Admitted) and outcome.event_id == event.meta.event_id)

    with Client(service.url, service.token("krcs-officer")) as unsigned:
        refused = unsigned.submit(Acts("SIGNED-0010", NOW).announced(), wait_seconds=20)

    assert [one.version for one in found if isinstance(one, Admitted)] == list(range(1, len(life) + 1))
    assert service.submitted() == before + len(life) + 1
    assert isinstance(refused, Refused)
    assert refused.reason == "submission_is_signed_where_required"
    with Client(service.url, service.token("krcs-officer")) as client:
        kept: list[Any] = [entry.event for entry in client.history("SIGNED-0009")]
    assert sum("signature" in event["meta"] for event in kept) == signers
    print(f"{len(life)} events over a network that loses an answer each, {signers} of them signed, {len(found)} admitted, each once")
