"""Rights over HTTP: every operation of the OpenAPI document, by every role, on each kind of donation, against a table written by hand.

`test_authority` tries the function; this tries that every route asks it, and asks it about the right donation. What may not be seen must
not be told from what is not there, so what is denied is compared, byte by byte, with what is said where there is nothing.
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import jwt
import pytest
from fastapi.routing import iter_route_contexts

from aidtrail import codec
from aidtrail.cli import registry as registry_cli
from aidtrail.domain import events as e
from aidtrail.domain.authority import SUBMITTERS
from aidtrail.gateway import local, reading, signed, state, submitting
from aidtrail.gateway.app import create
from aidtrail.gateway.state import Gateway
from aidtrail.producer import Producer
from aidtrail.routes import ROUTES
from aidtrail.signatures import PAYLOAD_TYPE
from tests.acts import START, Acts, money, uuid7
from tests.databases import Server
from tests.pipeline import TOPICS, Pipeline
from tests.serving import Served

# One column for each person: all of a society, KRCS, but for '@bank', the adapter of a bank, NBK. 'none' has no role. Letters are the
# donations on which the operation is his to do; of a list, those of which it has rows:
#   p his party takes part     m his party's mechanism has it before it     x neither     a there is none
#   P his party takes part, and it is observed                              X neither, and it is observed
#   r there is none: another party's submission about it was refused        * which one does not matter
# Where the letter of a donation is missing it is not found (404, or no rows); '-' is not his to do at all (403).
TABLE = """
operation              officer approver preparer releaser bank @bank timekeeper reporter auditor ledger none
getMe                  *       *        *        *        *    *     *          *        *       *      *
listDonations          pmP     pmP      pmP      pmP      pmP  pmP   pmP        pmPX     pmxPX   pmP    pmP
getDonation            pmP     pmP      pmP      pmP      pmP  pmP   pmP        pmPX     pmxPX   pmP    pmP
getHistory             pmP     pmP      pmP      pmP      pmP  pmP   pmP        pmPX     pmxPX   pmP    pmP
listApprovals          pm      pm       pm       pm       pm   pm    pm         pm       pmx     pm     pm
listEntries            pmP     pmP      pmP      pmP      pmP  pmP   pmP        pmPX     pmxPXr  pmP    pmP
getSubmission          pmP     pmP      pmP      pmP      pmP  pmP   pmP        pmPX     pmxPXr  pmP    pmP
PledgeAnnounced        *       -        -        -        -    -     -          *        -       -      -
PledgeConfirmed        pmP     -        -        -        -    -     -          pmPX     -       -      -
PledgeAmended          pmP     -        -        -        -    -     -          pmPX     -       -      -
PledgeWithdrawn        pmP     -        -        -        -    -     -          pmPX     -       -      -
DonationClosed         pmP     -        -        -        -    -     -          -        -       -      -
DonationReopened       pmP     -        -        -        -    -     -          -        -       -      -
ApprovalRequested      pmP     -        -        -        -    -     -          -        -       -      -
ApprovalQuestioned     -       pmP      -        -        -    -     -          -        -       -      -
ApprovalAnswered       pmP     -        -        -        -    -     -          -        -       -      -
ApprovalDecided        -       pmP      -        -        -    -     -          -        -       -      -
ApprovalRevoked        -       pmP      -        -        -    -     -          -        -       -      -
ConditionMet           -       pmP      -        -        -    -     -          -        -       -      -
ConditionBreached      -       pmP      -        -        -    -     -          -        -       -      -
DisbursementScheduled  -       -        pmP      -        -    -     -          -        -       -      -
DisbursementInstructed -       -        pmP      -        -    -     -          -        -       -      -
DisbursementReleased   -       -        -        pmP      -    -     -          -        -       -      -
DisbursementSettled    -       -        -        -        pmP  pmxP  -          pmPX     -       -      -
DisbursementRejected   -       -        pmP      pmP      pmP  pmxP  -          -        -       -      -
DisbursementReturned   pmP     -        -        -        pmP  pmxP  -          pmPX     -       -      -
FundsReceived          pmP     -        -        -        -    -     -          -        -       -      -
ReceiptAcknowledged    pmP     -        -        -        -    -     -          -        -       -      -
ReceiptDisputed        pmP     -        -        -        -    -     -          -        -       -      -
DisputeResolved        pmP     -        -        -        -    -     -          -        -       -      -
UtilisationReported    pmP     -        -        -        -    -     -          -        -       -      -
submitSigned           pmP     -        -        -        -    -     -          pmPX     -       -      -
"""
NOBODY = ("retired", "stranger", "no-token")
"""A retired actor, one that the registry does not know, and who shows no token: nothing is theirs to do (401)."""
DENIED = ("401", "403", "404", "200 without")
PUBLIC = {"/livez", "/readyz", "/openapi.json", "/problems/{name}"}
"""What tells anybody, without a token, and nothing about a donation; so does the contract, under /registry."""

HEAD, *ROWS = (line.split() for line in TABLE.strip().splitlines())
PERSONS = HEAD[1:]
ALLOWED = {row[0]: dict(zip(PERSONS, row[1:], strict=True)) for row in ROWS}
EVENTS = {route.event.type for route in ROUTES}
DONATIONS = {letter: f"RIGHTS-2026-{number:04d}" for number, letter in enumerate("pmxPXra", start=1)}
ACTOR_OF = {"@bank": "bank-adapter", "stranger": "nobody-known"}


class Operation(NamedTuple):
    """One of the document. `variants` are the formats that it can be had in; `body` is a request that the document shows."""

    name: str
    method: str
    path: str
    variants: Sequence[str]
    body: Any

    @property
    def is_list(self) -> bool:
        return self.method == "get" and "{" not in self.path and self.name != "getMe"


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            variants = next((each["schema"]["enum"] for each in said["parameters"] if each["name"] == "format"), ["json"])
            if "text/event-stream" in said["responses"].get("200", {}).get("content", {}):
                variants = [*variants, "events"]
            if any(each["name"] == "donation" for each in said["parameters"]):
                variants = [*variants, "one"]  # a list that can be asked about one donation
            examples = said.get("requestBody", {}).get("content", {}).get("application/json", {}).get("examples", {})
            yield Operation(said["operationId"], method, path, variants, next((each["value"] for each in examples.values()), None))


class Cell(NamedTuple):
    operation: str
    variant: str
    person: str
    letter: str
    expected: str
    found: str


class World:
    """A gateway whose views hold the donations of the table, and stay as they are: nobody rules on what is submitted."""

    def __init__(self, url: str, pipeline: Pipeline, home: Path, submissions: dict[str, UUID]) -> None:
        self.url = url
        self.pipeline = pipeline
        self.submissions = submissions
        self._home = home
        self.registry = registry_cli.follow(pipeline.log, TOPICS)

    def client(self, person: str) -> httpx.Client:
        if person == "no-token":
            return httpx.Client(base_url=self.url)
        actor_id = ACTOR_OF.get(person, f"krcs-{person}")
        token = local.issue(self._home, actor_id, hours=1, now=datetime.now(UTC).timestamp())
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def ask(self, client: httpx.Client, operation: Operation, variant: str, letter: str) -> httpx.Response:
        fields = {"donation_id": DONATIONS[letter], "event_id": self.submissions[letter]}
        path = re.sub(r"{(\w+)}", lambda found: str(fields.get(found[1], "A1")), operation.path)
        if operation.name == "submitSigned":
            return client.post(path, content=self._signed(client, letter), headers={"Content-Type": PAYLOAD_TYPE})
        if operation.method == "post":
            return client.post(path, json=operation.body)
        query = {"limit": "1000"} if operation.is_list else {}
        if variant == "one":
            query["donation"] = DONATIONS[letter]
        elif variant in ("ndjson", "csv"):
            query["format"] = variant
        return client.get(path, params=query, headers={"Accept": "text/event-stream"} if variant == "events" else {})

    def _signed(self, client: httpx.Client, letter: str) -> bytes:
        """A confirmation by whom the token is for, in his first role, as he would sign it: nobody looks at the signature here."""
        token = client.headers.get("Authorization", "").removeprefix("Bearer ")
        actor_id = jwt.decode(token, options={"verify_signature": False})["sub"] if token else "krcs-officer"
        enrolled = self.registry.actors.get(actor_id, self.registry.actors["krcs-officer"])
        role = next(iter(sorted(enrolled.roles)), "none")
        meta = {"signature": bytes(64)}
        acts = Acts(DONATIONS[letter], datetime.now(UTC))
        return codec.encode(acts.event(e.PledgeConfirmed, actor_id, role=role, party=enrolled.party_id, meta=meta))

    def cells(self, person: str, asked: Sequence[Operation]) -> Iterator[Cell]:
        """What each of these operations says to a person about each donation."""
        with self.client(person) as client:
            for operation in asked:
                for variant in operation.variants:
                    yield from self._cells(client, person, operation, variant)

    def _cells(self, client: httpx.Client, person: str, operation: Operation, variant: str) -> Iterator[Cell]:
        absent = self.ask(client, operation, variant, "a")
        for letter, donation_id in DONATIONS.items():
            of_all = operation.is_list and variant != "one"
            answer = absent if of_all or letter == "a" else self.ask(client, operation, variant, letter)
            expected, found = expectation(operation, person, letter), str(answer.status_code)
            if operation.is_list and answer.status_code == 200:
                found += " with rows" if donation_id in answer.text else " without"
            if (
                expected == found == expectation(operation, person, "a")
                and expected in DENIED
                and self.said(answer, letter) != self.said(absent, "a")
            ):
                found += ", told in other words than what is absent"
            yield Cell(operation.name, variant, person, letter, expected, found)

    def said(self, answer: httpx.Response, letter: str) -> str:
        """All that an answer says, but for the moment, and for what was asked about."""
        head = "".join(f"{name}: {value}\n" for name, value in sorted(answer.headers.items()) if name != "date")
        return (head + answer.text).replace(DONATIONS[letter], "...").replace(str(self.submissions[letter]), "...")


def expectation(operation: Operation, person: str, letter: str) -> str:
    if person in NOBODY:
        return "401"
    allowed = ALLOWED[operation.name][person]
    if allowed == "-":
        return "403"
    may = allowed == "*" or letter in allowed
    if operation.is_list:
        return "200 with rows" if may else "200 without"
    return ("202" if operation.method == "post" else "200") if may else "404"


def differences(cells: Sequence[Cell]) -> list[str]:
    return [" ".join(map(str, cell)) for cell in cells if cell.expected != cell.found]


# --- the world ----------------------------------------------------------------------------------------------------------------------


def registered() -> Iterator[e.RegistryEvent]:
    """Who is missing in the registry of `tests.acts`."""
    for number, role in enumerate(("timekeeper", "reporter", "ledger", "none"), start=1):
        enrolled = {"actor_id": f"krcs-{role}", "party_id": "KRCS", "roles": () if role == "none" else (role,)}
        yield e.ActorEnrolled(event_id=uuid7(START, 1 << 60 | number), occurred_on=START, **enrolled)
    board = {"mechanism_id": "NBK-BOARD", "party_id": "NBK", "approvals_required": 1, "thresholds": (), "validity_days": 365}
    yield e.MechanismDefined(event_id=uuid7(START, 1 << 60), occurred_on=START, **board)


def lives(now: datetime) -> dict[str, list[e.Event]]:
    """What happened to each donation, by its letter. KRCS and NBK take part in p and P, and each has a mechanism that m is put before."""
    own = (e.Leg(leg_id="L1", from_party="KRCS", to_party="NBK"), e.Leg(leg_id="L2", parent_leg_id="L1", from_party="NBK", to_party="KBH"))
    other = (e.Leg(leg_id="L1", from_party="CRC", to_party="KBH"),)
    p, m, x, observed_p, observed_x, r, _ = (Acts(donation_id, now) for donation_id in DONATIONS.values())
    half = (money("500"),)
    return {
        "p": [p.announced(route=own), p.confirmed(), p.requested()],
        "m": [
            m.announced("crc-officer", donor="CRC", route=other),
            m.confirmed("crc-officer-2"),
            m.requested("A1", by="crc-officer", mechanism_id="KRCS-BOARD", amounts=half, approvals_required=1),
            m.requested("A2", by="crc-officer", mechanism_id="NBK-BOARD", amounts=half, approvals_required=1),
        ],
        "x": [
            x.announced("crc-officer", donor="CRC", route=other),
            x.confirmed("crc-officer-2"),
            x.requested(by="crc-officer"),
        ],
        "P": [observed_p.observed(route=own)],
        "X": [observed_x.observed(donor="CRC", route=other)],
        "r": [r.confirmed("crc-officer")],
    }


@pytest.fixture(scope="module")
def world(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    database, home = postgres_server.create_database(), tmp_path_factory.mktemp("home")
    pipeline = Pipeline(database, tmp_path_factory.mktemp("ledger"))
    with Producer(pipeline.log, TOPICS) as producer:
        producer.register(registered())
    happened = lives(datetime.now(UTC) - timedelta(hours=2))
    pipeline.submit(event for events in happened.values() for event in events)
    submissions = {letter: events[0].meta.event_id for letter, events in happened.items()} | {"a": uuid7(START, 1 << 59)}
    shared = Gateway(lambda: pipeline.log, TOPICS, database, local.local_verifier(home))
    with Served(create(shared, TOPICS)) as served:
        yield World(served.url, pipeline, home, submissions)
    pipeline.close()


@pytest.fixture(scope="module")
def documented() -> list[Operation]:
    return list(operations(create(None, TOPICS).openapi()))


@pytest.fixture(autouse=True)
def streams_end_when_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_FEED_SECONDS", 0.02)
    monkeypatch.setattr(reading, "FEED_SECONDS", 0.02)


# --- the matrix ---------------------------------------------------------------------------------------------------------------------


def test_the_table_has_every_operation_and_every_role(documented: list[Operation]) -> None:
    paths = {str(route.path) for route in iter_route_contexts(create(None, TOPICS).routes)}

    assert sorted(operation.name for operation in documented) == sorted(ALLOWED)
    assert {path for path in paths - {operation.path for operation in documented} if not path.startswith("/registry")} == PUBLIC
    assert set().union(*SUBMITTERS.values()) <= set(PERSONS)


def test_the_world_is_as_the_letters_say(world: World) -> None:
    reader = world.pipeline.reader()
    rows = {letter: reader.donation(donation_id) for letter, donation_id in DONATIONS.items()}
    outcomes = {letter: [entry.outcome for entry in reader.history(donation_id)] for letter, donation_id in DONATIONS.items()}
    reader.close()
    relations = {
        letter: row and (row.oversight, *(party in row.parties for party in ("KRCS", "NBK")), row.mechanisms)
        for letter, row in rows.items()
    }

    assert relations == {
        "p": ("managed", True, True, ["MEF-SUPPORT"]),
        "m": ("managed", False, False, ["KRCS-BOARD", "NBK-BOARD"]),
        "x": ("managed", False, False, ["MEF-SUPPORT"]),
        "P": ("observed", True, True, []),
        "X": ("observed", False, False, []),
        "r": None,
        "a": None,
    }
    assert outcomes["r"] == ["refused"]
    assert outcomes["a"] == []


def test_every_operation_is_as_the_table_says_and_tells_nothing_of_what_is_out_of_sight(world: World, documented: list[Operation]) -> None:
    before = sum(world.pipeline.log.end_offsets(TOPICS.submitted).values())
    people = [*PERSONS, *NOBODY]
    with ThreadPoolExecutor(4) as pool:
        cells = [cell for found in pool.map(lambda person: list(world.cells(person, documented)), people) for cell in found]
    submitted = sum(world.pipeline.log.end_offsets(TOPICS.submitted).values()) - before
    print(
        f"{len(cells)} cells: {len(documented)} operations, {sum(len(each.variants) for each in documented)} with their formats, "
        f"x {len(people)} people x {len(DONATIONS)} donations; {submitted} submitted"
    )

    assert differences(cells) == []
    assert len(cells) == sum(len(each.variants) for each in documented) * len(people) * len(DONATIONS)
    assert submitted == sum(cell.found == "202" for cell in cells)


def test_what_is_pending_is_told_to_the_party_that_submitted_it_alone(world: World, documented: list[Operation]) -> None:
    (confirm,) = (operation for operation in documented if operation.name == "PledgeConfirmed")
    with world.client("officer") as client:
        location = world.ask(client, confirm, "json", "p").headers["location"]
    told: dict[str, str] = {}
    for person in (*PERSONS, *NOBODY):
        with world.client(person) as client:
            told[person] = str(client.get(location).status_code)

    assert told == {person: "404" if person == "@bank" else "401" if person in NOBODY else "200" for person in told}


@pytest.mark.parametrize(
    ("method", "where", "name", "broken", "found"),
    [
        ("get", reading, "authorise", lambda *_: True, {"getDonation", "getHistory", "getSubmission"}),
        ("get", state.Gateway, "sight", lambda *_: None, {"listDonations", "listApprovals", "listEntries"}),
        ("post", submitting, "authorise", lambda *_: True, EVENTS - {"PledgeAnnounced"}),
        ("post", signed, "authorise", lambda *_: True, {"submitSigned"}),
    ],
    ids=["reading", "lists", "submitting", "signed"],
)
def test_a_route_that_does_not_ask_is_found(
    world: World,
    documented: list[Operation],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    where: Any,
    name: str,
    broken: Any,
    found: set[str],
) -> None:
    monkeypatch.setattr(where, name, broken)
    cells = list(world.cells("officer", [operation for operation in documented if operation.method == method]))

    assert {cell.operation for cell in cells if cell.expected != cell.found} == found
