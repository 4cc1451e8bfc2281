"""The gateway over HTTP, with a ledger and a projector at work behind it: memory log, real PostgreSQL."""

import csv
import io
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from aidtrail.domain import authority
from aidtrail.domain import events as e
from aidtrail.domain.status import Headline
from aidtrail.gateway import intake, local, problems, reading, state, submitting
from aidtrail.gateway.app import create
from aidtrail.gateway.state import Gateway
from aidtrail.gateway.tokens import Verifier
from aidtrail.log.memory import MemoryLog
from aidtrail.routes import ROUTES
from aidtrail.views.reader import AmountRow, DonationRow, Filters, HistoryRow, Reader
from tests.acts import ACTORS, Acts, full_life
from tests.databases import Server
from tests.pipeline import TOPICS, Pipeline
from tests.serving import Served

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)


class Service:
    """A gateway and the pipeline behind it, which runs by itself."""

    def __init__(self, url: str, pipeline: Pipeline, home: Path) -> None:
        self.url = url
        self.pipeline = pipeline
        self.home = home

    def client(self, actor_id: str | None, **headers: str) -> httpx.Client:
        if actor_id is not None:
            token = local.issue(self.home, actor_id, hours=1, now=datetime.now(UTC).timestamp())
            headers["Authorization"] = f"Bearer {token}"
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def post(self, event: e.Event, *, wait: int = 20, **headers: str) -> httpx.Response:
        """Submit an event of `tests.acts` as its actor would over HTTP."""
        path, body = request_of(event)
        with self.client(event.meta.actor.actor_id, Prefer=f"wait={wait}", **headers) as client:
            return client.post(path, json=body)


def request_of(event: e.Event) -> tuple[str, dict[str, Any]]:
    route = next(route for route in ROUTES if route.event is type(event))
    stated = event.model_dump(mode="json", exclude_none=True)
    stated.pop("meta")
    fields = {field: stated.pop(field) for field in route.fields}
    path = f"/v1/donations/{event.meta.donation_id}/{route.path.format(**fields)}"
    return path, {**stated, "occurred_on": event.meta.occurred_on.isoformat().replace("+00:00", "Z"), "role": event.meta.actor.role}


@pytest.fixture(scope="module")
def service(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    database, home = postgres_server.create_database(), tmp_path_factory.mktemp("home")
    pipeline = Pipeline(database, tmp_path_factory.mktemp("ledger"), MemoryLog())
    with pipeline.running():
        shared = Gateway(lambda: pipeline.log, TOPICS, database, local.local_verifier(home))
        with Served(create(shared, TOPICS)) as served:
            yield Service(served.url, pipeline, home)
    pipeline.close()


# --- submitting -----------------------------------------------------------------------------------------------------------------------


def test_a_whole_donation_is_lived_over_http(service: Service) -> None:
    admitted = 0
    for event in full_life("KRCS-2026-1001", NOW):
        answer = service.post(event)
        assert answer.status_code == 201, (event.type, answer.text)
        admitted += 1
        assert answer.json()["version"] == admitted
        if event.meta.actor.party_id != "NBK":  # a bank sees no donation
            assert answer.json()["donation"]["version"] == admitted

    with service.client("kbh-officer") as client:
        status = client.get("/v1/donations/KRCS-2026-1001")
        history = client.get("/v1/donations/KRCS-2026-1001/history").json()["items"]
    assert status.json()["headline"] == "closed"
    assert status.headers["etag"].startswith(f'"{admitted}.')
    assert [entry["outcome"] for entry in history] == ["admitted"] * admitted
    assert {entry["event"]["meta"]["source"]["channel"] for entry in history} == {"http"}
    print(f"{admitted} events over HTTP, {admitted} admitted")


def test_what_the_log_acknowledged_is_told_at_its_location(service: Service) -> None:
    answer = service.post(Acts("KRCS-2026-1002", NOW).announced(), wait=0)

    assert answer.status_code == 202
    assert answer.json()["outcome"] == "pending"
    with service.client("krcs-officer-2") as client:
        service.pipeline.wait()
        told = client.get(answer.headers["location"])
    assert told.status_code == 200
    assert told.json()["outcome"] == "admitted"
    assert told.json()["donation_id"] == "KRCS-2026-1002"


def test_who_waits_is_told_when_the_views_are_written_and_not_at_some_later_look(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "LOOK_SECONDS", 60.0)
    answers = [service.post(event) for event in islice(full_life("KRCS-2026-1903", NOW), 5)]

    assert [answer.status_code for answer in answers] == [201] * 5


def test_what_the_log_has_is_not_told_as_an_outage_when_the_views_go_away_before_the_answer(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise problems.ViewsUnavailable

    a = Acts("KRCS-2026-1021", NOW)
    monkeypatch.setattr(submitting, "visible_json", away)
    answer = service.post(a.announced())
    monkeypatch.undo()

    assert (answer.status_code, answer.json()["outcome"]) == (202, "pending")
    with service.client("krcs-officer") as client:
        assert client.get(answer.headers["location"]).json()["outcome"] == "admitted"


def test_a_value_that_is_not_among_those_allowed_is_answered_with_all_of_them(service: Service) -> None:
    with service.client("krcs-officer") as client:
        said = client.get("/v1/donations", params={"headline": "partly payed"}).json()

    assert (said["status"], said["where"]) == (422, "query.headline")
    assert [headline for headline in Headline if f"'{headline}'" not in said["expected"]] == []


def test_a_refusal_is_a_problem_with_the_rules_own_words(service: Service) -> None:
    a = Acts("KRCS-2026-1003", NOW)
    service.post(a.announced())
    answer = service.post(a.confirmed(by="krcs-officer"))

    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert said["reason"] == "confirmed_by_another"
    assert said["expected"]
    assert said["found"]
    with service.client("krcs-officer") as client:
        told = client.get(answer.headers["location"]).json()
        assert (told["outcome"], told["reason"]) == ("refused", "confirmed_by_another")
        assert client.get(said["type"]).status_code == 200


def test_the_same_key_gets_the_same_outcome_and_another_body_is_told(service: Service) -> None:
    a = Acts("KRCS-2026-1004", NOW)
    event = a.announced()
    first = service.post(event, **{"Idempotency-Key": "order-1"})
    again = service.post(event, **{"Idempotency-Key": "order-1"})
    other = service.post(event.model_copy(update={"purpose": "12220"}), **{"Idempotency-Key": "order-1"})

    assert first.status_code == again.status_code == 201
    assert first.json()["event_id"] == again.json()["event_id"]
    assert other.status_code == 422
    assert other.json()["type"] == problems.KeyReused.type_
    refused = a.confirmed(by="krcs-officer")
    answers = [service.post(refused, **{"Idempotency-Key": "order-2"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [409] * 3
    assert len({answer.json()["event_id"] for answer in answers}) == 1
    with service.client("krcs-officer") as client:
        history = client.get("/v1/donations/KRCS-2026-1004/history").json()["items"]
    assert [entry["outcome"] for entry in history] == ["admitted", "refused"]


def test_the_key_of_another_actor_is_another_key(service: Service) -> None:
    first = service.post(Acts("KRCS-2026-1005", NOW).announced(), **{"Idempotency-Key": "mine"})
    second = service.post(Acts("KRCS-2026-1006", NOW).announced(by="krcs-officer-2"), **{"Idempotency-Key": "mine"})

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["event_id"] != second.json()["event_id"]


def test_who_acts_is_what_the_token_says_and_never_the_body(service: Service) -> None:
    path, body = request_of(Acts("KRCS-2026-1007", NOW).announced())
    with service.client("krcs-officer") as client:
        for extra in ({"actor": {"actor_id": "mef-approver"}}, {"meta": {}}, {"ledger": None}, {"source": {"channel": "x"}}):
            assert client.post(path, json={**body, **extra}).status_code == 422
        assert client.post(path, json={**body, "role": "approver"}).status_code == 422


def test_a_bank_that_reports_on_a_payment_is_not_shown_the_donation(service: Service) -> None:
    a = Acts("KRCS-2026-1013", NOW)
    for event in (a.announced(), a.confirmed(), *a.approval(), a.instructed(), a.released()):
        assert service.post(event).status_code == 201, event
    settled = service.post(a.settled())

    assert (settled.status_code, settled.json()["outcome"], settled.json()["donation"]) == (201, "admitted", None)


# --- one donation ---------------------------------------------------------------------------------------------------------------------


def test_without_a_good_token_nothing_is_said(service: Service) -> None:
    for headers in ({}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer x.y.z"}, {"Authorization": "Bearer"}):
        with httpx.Client(base_url=service.url, headers=headers) as client:
            answer = client.get("/v1/donations")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    with service.client("krcs-retired") as client:
        assert client.get("/v1/donations").status_code == 401
    with service.client("nobody-known") as client:
        assert client.get("/v1/donations").status_code == 401


def test_a_version_that_the_caller_has_is_not_sent_again(service: Service) -> None:
    a = Acts("KRCS-2026-1009", NOW)
    service.post(a.announced())
    with service.client("krcs-officer") as client:
        etag = client.get(f"/v1/donations/{a.donation_id}").headers["etag"]
        for known in (etag, f'"0", W/{etag}', "*"):
            answer = client.get(f"/v1/donations/{a.donation_id}", headers={"If-None-Match": known})
            assert (answer.status_code, answer.headers["etag"], answer.headers["cache-control"]) == (304, etag, "private, no-cache")
        service.post(a.confirmed())
        assert client.get(f"/v1/donations/{a.donation_id}", headers={"If-None-Match": etag}).status_code == 200


def test_a_version_that_another_release_shows_otherwise_is_sent_again(service: Service) -> None:
    """As after a rebuild that goes live: the version is the same, and an amount of it is not."""
    a = Acts("KRCS-2026-1023", NOW)
    service.post(a.announced())
    with service.client("krcs-officer") as client:
        before = client.get(f"/v1/donations/{a.donation_id}")
        with psycopg.connect(service.pipeline.database) as connection:
            connection.execute("UPDATE live.amounts SET held = held + 1 WHERE donation_id = %s", [a.donation_id])
        after = client.get(f"/v1/donations/{a.donation_id}", headers={"If-None-Match": before.headers["etag"]})

    assert after.status_code == 200
    assert after.json()["version"] == before.json()["version"]
    assert after.json()["amounts"] != before.json()["amounts"]


@pytest.mark.parametrize("path", ["/v1/donations/{}", "/v1/donations?changed_since={}"])
def test_amounts_are_those_of_the_version_that_they_are_told_with(service: Service, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Between the donation's row and its amounts, the donation goes on."""
    a = Acts(f"KRCS-2026-19{len(path)}", NOW)
    for event in (a.announced(), a.confirmed(), *a.approval()):
        assert service.post(event).status_code == 201
    read = Reader.amounts
    later = iter([a.instructed(), a.released()])

    def amounts(reader: Reader, donation_ids: list[str]) -> dict[str, list[AmountRow]]:
        service.pipeline.submit_running(later)
        return read(reader, donation_ids)

    with service.client("krcs-officer") as client:
        before = client.get(f"/v1/donations/{a.donation_id}")
        monkeypatch.setattr(Reader, "amounts", amounts)
        said = client.get(path.format(a.donation_id if path.endswith("/{}") else before.json()["changed_at"].replace("+", "%2B")))
        monkeypatch.undo()
        after = client.get(f"/v1/donations/{a.donation_id}")

    assert before.json() == (said.json() if path.endswith("/{}") else said.json()["items"][-1])
    assert (before.json()["version"], after.json()["version"]) == (5, 7)
    assert before.json()["amounts"] != after.json()["amounts"]


# --- lists ----------------------------------------------------------------------------------------------------------------------------


def test_links_lead_through_all_pages(service: Service) -> None:
    for number in range(7):
        service.post(Acts(f"PAGE-2026-{number:04d}", NOW).announced(), wait=0)
    service.pipeline.wait()
    with service.client("krcs-auditor") as client:
        everything = [row["donation_id"] for row in client.get("/v1/donations?limit=1000").json()["items"]]
        seen: list[str] = []
        link: str | None = "/v1/donations?limit=3"
        while link:
            page = client.get(link)
            seen += [row["donation_id"] for row in page.json()["items"]]
            link = page.links.get("next", {}).get("url")
    assert seen == everything
    assert len(seen) > 7


def test_the_queue_tells_what_each_request_waits_for(service: Service) -> None:
    a = Acts("KRCS-2026-1010", NOW)
    for event in (a.announced(), a.confirmed(), a.requested(), a.approved()):
        assert service.post(event).status_code == 201
    with service.client("mef-approver-2") as client:
        (row,) = client.get(f"/v1/approvals?donation={a.donation_id}").json()["items"]
        lines = client.get(f"/v1/approvals?donation={a.donation_id}&format=csv").text.splitlines()
    assert (row["signatures_missing"], row["deciders"], row["requested"]) == (1, ["mef-approver"], {"KWD": "1000.0000"})
    assert row["waiting_seconds"] >= 7000
    assert len(lines) == 2
    with service.client("bank-adapter") as client:
        assert client.get(f"/v1/approvals?donation={a.donation_id}").json()["items"] == []


def test_lists_are_streamed_whole_as_csv_and_ndjson(service: Service) -> None:
    with service.client("krcs-auditor") as client:
        rows = client.get("/v1/donations?limit=1000").json()["items"]
        lines = client.get("/v1/donations?format=csv").text.splitlines()
        ndjson = client.get("/v1/donations?format=ndjson").text
    assert [json.loads(line) for line in ndjson.splitlines()] == rows
    assert len(lines) == 1 + sum(len(row["amounts"]) for row in rows)
    assert lines[0].startswith("donation_id,partition,version,head_sha256,")


@pytest.mark.parametrize("path", ["/v1/donations", "/v1/entries", "/v1/approvals?state=pending"])
def test_a_stream_ends_with_the_rights_of_who_asked_for_it(service: Service, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """The auditor is retired after the first page."""
    for number in range(3):
        a = Acts(f"ENDS-2026-{len(path)}{number}", NOW)
        service.pipeline.submit_running([a.announced(), a.confirmed(), a.requested()])
    monkeypatch.setattr(reading, "MAX_PAGE", 2)
    sights = iter([authority.Sight(everything=True)])
    monkeypatch.setattr(state, "sight", lambda person: next(sights, authority.Sight()))
    with service.client("krcs-auditor") as client:
        lines = client.get(f"{path}{'&' if '?' in path else '?'}format=ndjson").text.splitlines()

    assert len(lines) == 2


class Hours:
    """A clock that stands still, in seconds since 1970."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).timestamp()

    def pass_by(self, hours: float) -> None:
        self.now += hours * 3600

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def timed(service: Service) -> Iterator[tuple[Service, Hours]]:
    """Another gateway at the same pipeline, which has a clock of its own."""
    keys, hours = local.local_verifier(service.home).keys, Hours()
    verifier = Verifier(local.ISSUER, local.AUDIENCE, keys, ["EdDSA"], now=hours)
    pipeline = service.pipeline
    with Served(create(Gateway(lambda: pipeline.log, TOPICS, pipeline.database, verifier), TOPICS)) as served:
        yield Service(served.url, pipeline, service.home), hours


def test_a_feed_ends_with_its_token_and_goes_on_with_the_next(timed: tuple[Service, Hours]) -> None:
    service, hours = timed
    service.pipeline.submit_running([Acts("ENDS-2026-0001", NOW).announced()])
    with service.client("krcs-auditor", Accept="text/event-stream") as client, client.stream("GET", "/v1/entries") as feed:
        for line in feed.iter_lines():
            if line.startswith("id: "):
                last = line.removeprefix("id: ")
            if line.startswith("data: ") and "ENDS-2026-0001" in line:
                hours.pass_by(2)
    service.pipeline.submit_running([Acts("ENDS-2026-0002", NOW).announced()])
    token = local.issue(service.home, "krcs-auditor", hours=1, now=hours())
    again = {"Authorization": f"Bearer {token}", "Last-Event-ID": last}
    with service.client(None, Accept="text/event-stream", **again) as client, client.stream("GET", "/v1/entries") as feed:
        (entry,) = islice((json.loads(line.removeprefix("data: ")) for line in feed.iter_lines() if line.startswith("data: {")), 1)

    assert entry["donation_id"] == "ENDS-2026-0002"


@pytest.mark.parametrize("format", ["csv", "ndjson"])
def test_a_list_breaks_off_when_its_token_ends_and_does_not_look_whole(
    timed: tuple[Service, Hours], monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    service, hours = timed
    service.pipeline.submit_running([Acts(f"ENDS-2026-1{number}-{format.upper()}", NOW).announced() for number in range(3)])
    monkeypatch.setattr(reading, "MAX_PAGE", 2)
    read = Reader.donations

    def slowly(reader: Reader, filters: Filters, **more: Any) -> Iterator[DonationRow]:
        yield from read(reader, filters, **more)
        hours.pass_by(2)

    monkeypatch.setattr(Reader, "donations", slowly)
    with service.client("krcs-auditor") as client, client.stream("GET", f"/v1/donations?format={format}") as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
            answer.read()


def test_a_history_is_told_page_by_page_and_streamed_so(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    life = list(full_life("KRCS-2026-1904", NOW))
    service.pipeline.submit_running(life)
    asked: list[int | None] = []
    history = Reader.history

    def counted(reader: Reader, donation_id: str, *, after: tuple[int, int], limit: int) -> list[HistoryRow]:
        asked.append(limit)
        return history(reader, donation_id, after=after, limit=limit)

    monkeypatch.setattr(Reader, "history", counted)
    monkeypatch.setattr(reading, "MAX_PAGE", 10)
    with service.client("krcs-officer") as client:
        path, pages = "/v1/donations/KRCS-2026-1904/history?limit=8", []
        while path:
            answer = client.get(path)
            pages.append([entry["version"] for entry in answer.json()["items"]])
            path = answer.links.get("next", {}).get("url")
        by_page, asked = asked, []
        streamed = client.get("/v1/donations/KRCS-2026-1904/history?format=ndjson").text.splitlines()
        lines = client.get("/v1/donations/KRCS-2026-1904/history?format=csv").text.splitlines()
        wrong = client.get("/v1/donations/KRCS-2026-1904/history?cursor=1")

    everything = list(range(1, len(life) + 1))
    assert [len(page) for page in pages] == [8, 8, 8, 8, 1]
    assert [version for page in pages for version in page] == everything
    assert [json.loads(line)["version"] for line in streamed] == everything
    assert len(lines) == 1 + len(life)
    assert by_page == [8] * 5
    assert set(asked) == {10}
    assert (wrong.status_code, wrong.json()["where"]) == (422, "query.cursor")


@pytest.mark.parametrize("path", ["/v1/donations", "/v1/donations/KRCS-2026-1014/history", "/v1/approvals?state=pending", "/v1/entries"])
def test_any_list_says_the_same_in_each_format(service: Service, path: str) -> None:
    a = Acts("KRCS-2026-1014", NOW)
    for event in (a.announced(purpose="=HYPERLINK(1)"), a.confirmed(), a.requested()):
        service.post(event, **{"Idempotency-Key": f"{event.type}-1014"})
    sep = "&" if "?" in path else "?"
    with service.client("krcs-auditor") as client:
        said = client.get(path if "history" in path else f"{path}{sep}limit=1000").json()
        rows = said.get("items", said.get("entries"))
        ndjson = [json.loads(line) for line in client.get(f"{path}{sep}format=ndjson").text.splitlines()]
        lines = list(csv.DictReader(io.StringIO(client.get(f"{path}{sep}format=csv").text)))
    with service.client("timekeeper") as client:
        empty = client.get(f"{path}{sep}format=csv").text

    assert rows
    assert [untimed(row) for row in ndjson] == [untimed(row) for row in rows]
    assert {line["donation_id"] for line in lines} == {row["donation_id"] for row in rows}
    assert len(lines) >= len(rows)
    assert not any(value.startswith(("=", "+", "@")) for line in lines for value in line.values())
    assert "history" in path or empty.splitlines() == [",".join(lines[0])]  # columns, also where there is nothing


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "waiting_seconds"}


# --- the feed -------------------------------------------------------------------------------------------------------------------------


def test_a_feed_ends_so_that_its_reader_shows_his_token_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_FEED_SECONDS", 0.1)
    with service.client("krcs-auditor") as client:
        assert client.get("/v1/entries", headers={"Accept": "text/event-stream"}).text.count("event: entry") > 0


def test_a_feed_that_cannot_be_read_is_an_outage_and_no_stream_that_ends_at_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise psycopg.OperationalError

    monkeypatch.setattr(Reader, "entries", away)
    with service.client("krcs-auditor", Accept="text/event-stream") as client:
        answer = client.get("/v1/entries")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_the_feed_goes_on_where_it_ended_and_streams_what_is_recorded(service: Service) -> None:
    seen: list[tuple[int, int]] = []
    with service.client("krcs-auditor") as client:
        after = ""
        while True:
            page = client.get("/v1/entries", params={"limit": 50, **({"after": after} if after else {})}).json()
            if not page["entries"]:
                break
            seen += [(entry["partition"], entry["offset"]) for entry in page["entries"]]
            after = page["after"]
        assert len(seen) == len(set(seen)) == sum(service.pipeline.log.end_offsets(TOPICS.recorded).values())

        threading.Timer(0.2, lambda: service.post(Acts("KRCS-2026-1011", NOW).announced(), wait=0)).start()
        with client.stream("GET", "/v1/entries", params={"after": after}, headers={"Accept": "text/event-stream"}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: {"):
                    assert json.loads(line.removeprefix("data: "))["donation_id"] == "KRCS-2026-1011"
                if line.startswith("id: "):
                    assert line.removeprefix("id: ") != after
                    break


# --- bad requests, and HTTP itself ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{" + b" " * 40_000 + b"}", {}, 413),
        (b"{}", {"X-Long": "a" * 9000}, 431),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"[]", {}, 422),
        (b"{", {}, 422),
        (b"\xff", {}, 422),
        (b"[" * 20_000, {}, 422),
        (b'{"a":1,"a":2}', {}, 422),
        (b'{"oversight": 1.5}', {}, 422),
        (b'{"donor": "\\ud800"}', {}, 422),
        (b'{"unknown-zq17": "secret-zq17"}', {}, 422),
    ],
)
def test_bad_bodies_are_told_and_never_repeated(service: Service, content: bytes, headers: dict[str, str], status: int) -> None:
    before = service.pipeline.log.end_offsets(TOPICS.submitted)
    with service.client("krcs-officer") as client:
        answer = client.post(
            "/v1/donations/KRCS-2026-1012/pledge", content=content, headers={"Content-Type": "application/json", **headers}
        )

    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert "zq17" not in answer.text
    assert service.pipeline.log.end_offsets(TOPICS.submitted) == before


@pytest.mark.parametrize(
    "path", ["donations?parti=KRCS", "donations?limit=1&zq17=1", "entries?format=csv&Limit=1", "me?x", "approvals?states="]
)
def test_a_parameter_that_a_path_does_not_have_is_no_filter_and_told(service: Service, path: str) -> None:
    with service.client("krcs-officer") as client:
        answer = client.get(f"/v1/{path}")
        submitted = client.post("/v1/donations/KRCS-2026-1012/pledge/confirmation?wait=10", json={})

    assert (answer.status_code, answer.json()["where"]) == (submitted.status_code, submitted.json()["where"]) == (422, "query")
    assert "zq17" not in answer.text


def test_head_is_get_without_the_body(service: Service) -> None:
    service.post(Acts("KRCS-2026-1022", NOW).announced())
    with service.client("krcs-officer") as client:
        for path in ("/v1/donations/KRCS-2026-1022", "/v1/me", "/livez", "/problems/not-found", "/v1/donations/ABSENT"):
            got, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (got.status_code, b"")
            assert {name: value for name, value in head.headers.items() if name != "date"} == {
                name: value for name, value in got.headers.items() if name != "date"
            }
        assert client.head("/v1/donations/KRCS-2026-1022/pledge").headers["allow"] == "POST"


def test_what_was_read_with_a_token_is_kept_by_no_cache(service: Service) -> None:
    with service.client("krcs-auditor") as client:
        for path in ("me", "donations", "donations?format=csv", "donations?format=ndjson", "approvals", "entries", "entries?format=csv"):
            assert client.get(f"/v1/{path}").headers["cache-control"] == "private, no-store"


def test_a_path_that_is_none_is_not_redirected_to_another_host_or_to_http(service: Service) -> None:
    with service.client("krcs-officer", Host="evil.example") as client:
        for path in ("/v1/donations/", "/v1/me/", "/registry"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


# --- what the gateway says of itself --------------------------------------------------------------------------------------------------


def test_every_problem_has_a_page(service: Service) -> None:
    with service.client(None) as client:
        for problem in problems.ALL:
            page = client.get(str(problem.type_)).text
            assert f"<h1>{problem.title}</h1>" in page
            assert "width=device-width" in page  # else a phone shows it as wide as a desk, in letters too small to read
            assert "`" not in page
        assert client.get("/problems/none-such").status_code == 404
    print(f"{len(problems.ALL)} problem types, each with its page")


def test_a_ready_service_says_what_it_depends_on(service: Service) -> None:
    with service.client(None) as client:
        assert client.get("/livez").text == "ok"
        assert client.get("/readyz").json() == {"ready": True}
        assert client.get("/readyz?verbose").json() == {"log": "ok", "views": "ok", "process": "ok"}


def test_a_service_that_runs_alone_has_its_own_paths_only() -> None:
    paths = create(None, TOPICS, ["approvals"]).openapi()["paths"]
    posts = {
        operation["tags"][0] for methods in paths.values() for name, operation in methods.items() if name == "post" and "tags" in operation
    }

    assert "approvals" in posts
    assert not posts & {"pledges", "disbursements", "receipts"}


def test_every_role_and_event_has_a_route() -> None:
    kinds = {route.event for route in ROUTES}

    assert kinds == set(e.DONATION_EVENTS.values()) - {e.PledgeExpired, e.ApprovalExpired, e.SubmissionRefused}
    assert len({(route.service, route.path) for route in ROUTES}) == len(ROUTES)
    assert ACTORS


def test_a_requests_trace_goes_into_the_log_and_no_other_does(service: Service) -> None:
    traced, untraced = (next(full_life(donation_id, NOW)) for donation_id in ("KRCS-2026-1901", "KRCS-2026-1902"))
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    answers = service.post(traced, traceparent=traceparent), service.post(untraced)

    assert [answer.status_code for answer in answers] == [201, 201]
    for topic in (TOPICS.submitted, TOPICS.recorded):
        ends = service.pipeline.log.end_offsets(topic)
        reader = service.pipeline.log.reader(topic)
        reader.assign(dict.fromkeys(ends, 0))
        found = [record for batch in reader.poll(sum(ends.values()), 1.0).values() for record in batch]
        headers = {record.key: list(record.headers) for record in found if record.headers or record.key == b"KRCS-2026-1902"}
        assert headers == {b"KRCS-2026-1901": [("traceparent", traceparent.encode())], b"KRCS-2026-1902": []}
