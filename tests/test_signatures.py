"""Signatures of actors: what is signed, what the ledger makes of it, and that nobody else can write an entry of an actor who signs."""

import io
import json
import random
import stat
import timeit
from collections import Counter
from pathlib import Path
from typing import Any

import fastavro
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aidtrail import codec, contract
from aidtrail.audit import verifier
from aidtrail.audit.replay import replay
from aidtrail.chain import read_entry, submission_of
from aidtrail.domain import events as e
from aidtrail.errors import UsageError
from aidtrail.keys import make_actor_key, read_actor_key
from aidtrail.ledger import Ledger
from aidtrail.log import Draft, Record
from aidtrail.log.memory import MemoryLog
from aidtrail.producer import Producer
from aidtrail.signatures import OF_SMALL_ORDER, PAYLOAD_TYPE, is_signed, pae, sign
from tests.acts import START, Acts, full_life, registry_events
from tests.pipeline import TOPICS
from tests.signing import enrolled, key_of, public_key_of, requiring, signed, signing_party
from tests.test_cli import Up, run
from tests.worlds import PARTITIONS, World, judged

RFC_8032 = [
    # section 7.1, TEST 1 to 3: secret key, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


# --- what is signed -----------------------------------------------------------------------------------------------------------------


def test_the_pre_authentication_encoding_is_that_of_the_dsse_specification() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("", b"") == b"DSSEv1 0  0 "
    assert pae("é", b"\x00 1") == b"DSSEv1 2 \xc3\xa9 3 \x00 1"  # lengths are of bytes
    assert verifier.pae(b"http://example.com/HelloWorld", b"hello world") == pae("http://example.com/HelloWorld", b"hello world")
    assert verifier.PAYLOAD_TYPE.decode() == PAYLOAD_TYPE


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_signatures_are_those_of_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))

    assert key.public_key().public_bytes_raw().hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature


def test_a_stranger_with_an_avro_library_and_ed25519_alone_checks_the_signed_example() -> None:
    stated = json.loads((contract.FOLDER / "examples/ApprovalDecided-signed.json").read_bytes())
    enrolment = json.loads((contract.FOLDER / "examples/ActorEnrolled-signing.json").read_bytes())
    newest = contract.latest("ApprovalDecided")
    values = codec.from_object(stated).model_dump()
    values["meta"]["signature"] = None
    body = io.BytesIO()
    fastavro.schemaless_writer(body, newest.schema, values)
    payload = b"\x00" + newest.id.to_bytes(4, "big") + body.getvalue()

    message = b"DSSEv1 35 application/vnd.aidtrail.event+avro %d %b" % (len(payload), payload)

    Ed25519PublicKey.from_public_bytes(bytes.fromhex(enrolment["public_keys"][0])).verify(
        bytes.fromhex(stated["meta"]["signature"]), message
    )
    assert enrolment["actor_id"] == stated["meta"]["actor"]["actor_id"]


def test_a_signature_holds_for_the_bytes_that_were_signed_and_for_no_others() -> None:
    chance, tried, accepted = random.Random(8032), 0, 0
    for event in full_life():
        key = key_of(event.meta.actor.actor_id)
        submission = codec.encode(sign(event, key))
        decoded, ledger_at = codec.read(submission)
        assert isinstance(decoded, e.Event)
        assert decoded.meta.signature is not None
        keys = [public_key_of("somebody"), key.public_key().public_bytes_raw()]
        assert codec.unsigned(submission, ledger_at) == codec.encode(event)
        assert is_signed(submission, ledger_at, decoded.meta.signature, keys)
        assert not is_signed(submission, ledger_at, decoded.meta.signature, keys[:1])
        assert not is_signed(submission, ledger_at, decoded.meta.signature, [])
        for _ in range(40):
            altered = bytearray(submission)
            altered[chance.randrange(len(altered))] ^= 1 << chance.randrange(8)
            try:
                found, at = codec.read_recorded(bytes(altered))
            except Exception:  # it is no event any more
                continue
            assert isinstance(found, e.Event)
            if found.meta.signature is not None:
                tried += 1
                accepted += is_signed(bytes(altered), at, found.meta.signature, keys)
    print(f"{tried} altered submissions that are still events, {accepted} accepted")
    assert tried > 200
    assert accepted == 0


def test_a_key_for_which_anybody_can_sign_is_nobodys() -> None:
    """Forged without any secret: the signature is a point of small order and zero, which OpenSSL takes for one text in eight or so."""
    points = sorted(OF_SMALL_ORDER)
    event = sign(Acts().announced(), key_of("krcs-officer"))
    forged = taken = 0
    for number in range(20):
        submission = codec.encode(event.model_copy(update={"purpose": str(number)}))
        ledger_at = codec.read(submission)[1]
        message = pae(PAYLOAD_TYPE, codec.unsigned(submission, ledger_at))
        for key in points:
            for signature in (point + bytes(32) for point in points):  # RFC 8032: R and S
                try:
                    Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
                except InvalidSignature:
                    continue
                forged += 1
                taken += is_signed(submission, ledger_at, signature, [key])
    print(f"{forged} signatures without a secret that OpenSSL takes, {taken} taken here")
    assert forged > 20
    assert taken == 0
    assert verifier.OF_SMALL_ORDER == OF_SMALL_ORDER


def test_what_it_costs_to_check_a_signature_is_told() -> None:
    event = sign(Acts().announced(), key_of("krcs-officer"))
    signature, submission, keys = event.meta.signature, codec.encode(event), [public_key_of("krcs-officer")]
    ledger_at = codec.read(submission)[1]
    assert signature is not None

    seconds = min(timeit.repeat(lambda: is_signed(submission, ledger_at, signature, keys), number=500, repeat=5)) / 500

    print(f"{seconds * 1e6:.0f} µs to check a signature")


def test_signing_again_gives_the_same_bytes_and_what_is_signed_already_is_left_as_it_is() -> None:
    event = Acts().announced()
    once = sign(event, key_of("krcs-officer"))

    assert codec.encode(sign(event, key_of("krcs-officer"))) == codec.encode(once)
    assert sign(once, key_of("somebody")) == once


# --- keys in files ------------------------------------------------------------------------------------------------------------------


def test_a_key_that_is_made_is_read_again_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    public = make_actor_key(tmp_path / "keys" / "actor.pem")

    assert read_actor_key(tmp_path / "keys" / "actor.pem").public_key().public_bytes_raw() == public
    assert stat.S_IMODE((tmp_path / "keys" / "actor.pem").stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="expected a place for a new file"):
        make_actor_key(tmp_path / "keys" / "actor.pem")


def test_what_is_no_key_of_an_actor_is_told_and_nothing_of_it_shown(tmp_path: Path) -> None:
    file = tmp_path / "actor.pem"

    def expect(match: str) -> None:
        with pytest.raises(UsageError, match=match) as refused:
            read_actor_key(file)
        assert "SECRET" not in str(refused.value)

    expect("No such file")
    file.touch(0o600)
    for text in (b"", b"SECRET", b"-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n", b"\xff"):
        file.write_bytes(text)
        expect("expected the secret key of an actor")
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file.write_bytes(generate_private_key(SECP256R1()).private_bytes(*formats, serialization.NoEncryption()))
    expect("found a key that is not of Ed25519")
    file.write_bytes(key_of("krcs-officer").private_bytes(*formats, serialization.BestAvailableEncryption(b"x")))
    expect("expected the secret key of an actor")
    file.chmod(0o640)
    expect("chmod 600")


# --- what the ledger makes of it ----------------------------------------------------------------------------------------------------


class Bench:
    """A log in memory with the registry of `tests.acts`, and a ledger."""

    def __init__(self, folder: Path) -> None:
        self._now = START
        self.log = MemoryLog(lambda: int(self._now.timestamp() * 1000))
        TOPICS.create(self.log, 1)
        self.register(*registry_events())
        self._ledger = Ledger(self.log, TOPICS, folder, group="ledger")

    def register(self, *events: e.RegistryEvent) -> None:
        with Producer(self.log, TOPICS) as producer:
            producer.register(events)

    def submit(self, *events: e.Event, key: Ed25519PrivateKey | None = None) -> list[str]:
        """The outcome of each: its type if it was admitted, the rule if it was refused."""
        with Producer(self.log, TOPICS, key) as producer:
            for event in events:
                self._now = event.meta.occurred_on
                producer.submit([event])
        return self._rule(len(events))

    def append(self, event: e.Event, value: bytes) -> list[str]:
        """As a producer that writes its bytes by itself."""
        self.log.appender().append([Draft(TOPICS.submitted, 0, event.meta.donation_id.encode(), value)])
        return self._rule(1)

    def recorded(self) -> list[Record]:
        reader = self.log.reader(TOPICS.recorded)
        reader.assign({0: 0})
        records = reader.poll(10**6, 0.0)[0]
        reader.close()
        return records

    def replayed(self) -> None:
        found = replay(self.log, TOPICS)
        assert (found.differing, found.equal) == (0, found.entries), found.differences

    def close(self) -> None:
        self._ledger.close()

    def _rule(self, count: int) -> list[str]:
        while self.log.end_offsets(TOPICS.recorded) != self.log.end_offsets(TOPICS.submitted):
            self._ledger.turn()
        found = []
        for record in self.recorded()[-count:]:
            event = read_entry(record).event
            assert event is not None
            found.append(event.reason if isinstance(event, e.SubmissionRefused) else event.type)
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    opened = Bench(tmp_path)
    yield opened
    opened.replayed()
    opened.close()


def test_who_has_no_key_submits_without_a_signature_as_before(bench: Bench) -> None:
    assert bench.submit(Acts().announced()) == ["PledgeAnnounced"]


def test_a_party_that_requires_signatures_takes_no_unsigned_and_no_wrongly_signed_submission(bench: Bench) -> None:
    bench.register(*signing_party("KRCS"))
    acts = Acts()
    event = acts.announced()

    assert bench.submit(event) == ["submission_is_signed_where_required"]
    assert bench.submit(acts.announced(), key=key_of("krcs-officer-2")) == ["signature_is_the_actors"]
    assert bench.submit(acts.announced(), key=key_of("krcs-officer")) == ["PledgeAnnounced"]
    assert bench.submit(acts.confirmed(), key=key_of("krcs-officer-2")) == ["PledgeConfirmed"]


def test_a_signature_that_is_not_required_must_hold_all_the_same(bench: Bench) -> None:
    bench.register(enrolled("krcs-officer", public_key_of("krcs-officer")))
    acts = Acts()

    assert bench.submit(acts.announced(), key=key_of("somebody")) == ["signature_is_the_actors"]
    assert bench.submit(acts.announced(), key=key_of("krcs-officer")) == ["PledgeAnnounced"]
    assert bench.submit(acts.amended()) == ["PledgeAmended"]
    assert bench.submit(acts.confirmed(by="krcs-officer-2"), key=key_of("krcs-officer-2")) == ["signature_is_the_actors"]  # has no key


def test_a_signature_is_for_one_submission_and_cannot_be_moved_to_another(bench: Bench) -> None:
    bench.register(*signing_party("KRCS"))
    acts = Acts()
    first, other = sign(acts.announced(), key_of("krcs-officer")), acts.announced(purpose="other")

    moved = other.model_copy(update={"meta": other.meta.model_copy(update={"signature": first.meta.signature})})

    assert bench.submit(moved) == ["signature_is_the_actors"]


def test_keys_hold_from_their_place_in_the_log_on_and_what_was_signed_before_stays_valid(bench: Bench) -> None:
    first, second = (public_key_of("krcs-officer", number) for number in (0, 1))
    acts = Acts()
    bench.register(requiring("KRCS"), enrolled("krcs-officer", first))
    assert bench.submit(acts.announced(), key=key_of("krcs-officer", 1)) == ["signature_is_the_actors"]
    assert bench.submit(acts.announced(), key=key_of("krcs-officer", 0)) == ["PledgeAnnounced"]

    bench.register(enrolled("krcs-officer", first, second))
    assert bench.submit(acts.amended(), key=key_of("krcs-officer", 0)) == ["PledgeAmended"]
    assert bench.submit(acts.amended(purpose="other"), key=key_of("krcs-officer", 1)) == ["PledgeAmended"]

    bench.register(enrolled("krcs-officer", second))
    assert bench.submit(acts.amended(), key=key_of("krcs-officer", 0)) == ["signature_is_the_actors"]
    assert bench.submit(acts.amended(), key=key_of("krcs-officer", 1)) == ["PledgeAmended"]

    bench.register(enrolled("krcs-officer"))
    assert bench.submit(acts.amended(purpose="other"), key=key_of("krcs-officer", 1)) == ["signature_is_the_actors"]


def test_a_signed_event_that_is_signed_and_submitted_again_is_a_duplicate_and_with_another_key_another_submission(bench: Bench) -> None:
    bench.register(enrolled("krcs-officer", public_key_of("krcs-officer", 0), public_key_of("krcs-officer", 1)))
    event = Acts().announced()

    assert bench.submit(event, key=key_of("krcs-officer", 0)) == ["PledgeAnnounced"]
    assert bench.submit(event, key=key_of("krcs-officer", 0)) == ["duplicate_event"]
    assert bench.submit(event, key=key_of("krcs-officer", 1)) == ["event_id_reused"]
    assert bench.submit(event) == ["event_id_reused"]


def test_what_older_releases_wrote_goes_on_and_is_followed_by_what_this_one_writes(bench: Bench) -> None:
    """Version 1 has no place for a signature: read with none, refused where one is required."""
    acts = Acts()
    announced, confirmed, amended = acts.announced(), acts.confirmed(), acts.amended()

    assert bench.append(announced, as_version_1(announced)) == ["PledgeAnnounced"]
    assert bench.submit(confirmed) == ["PledgeConfirmed"]
    bench.register(*signing_party("KRCS"))
    assert bench.append(amended, as_version_1(amended)) == ["submission_is_signed_where_required"]
    assert bench.submit(acts.amended(), key=key_of("krcs-officer")) == ["PledgeAmended"]
    ids = [int.from_bytes((record.value or b"")[1:5], "big") for record in bench.recorded()]
    versions = [contract.published()[number].version for number in ids]
    assert versions == [1, 2, 2, 2]


def test_an_older_registry_is_read_as_one_without_keys() -> None:
    actor, party = enrolled("krcs-officer"), requiring("KRCS").model_copy(update={"signatures_required": False})

    assert codec.decode(as_version_1(actor)) == actor
    assert codec.decode(as_version_1(party)) == party


def as_version_1(event: codec.AnyEvent) -> bytes:
    entry = next(entry for entry in contract.published().values() if (entry.event, entry.version) == (event.type, 1))
    body = io.BytesIO()
    fastavro.schemaless_writer(body, entry.schema, event.model_dump())
    return b"\x00" + entry.id.to_bytes(4, "big") + body.getvalue()


def test_a_whole_life_in_which_everybody_signs_is_admitted_replayed_and_gives_back_what_was_signed(bench: Bench) -> None:
    parties = ("KRCS", "CRC", "KBH", "MEF", "NBK")
    bench.register(*(event for party in parties for event in signing_party(party)))
    events = list(signed(full_life("KRCS-2026-0001"), *parties))

    outcomes = bench.submit(*events)

    assert outcomes == [event.type for event in events]
    records = bench.recorded()
    for event, record in zip(events, records, strict=True):
        entry = read_entry(record)
        assert submission_of(entry) == (event.meta.event_id, codec.sha256(codec.encode(event)))
        unsigned = event.model_copy(update={"meta": event.meta.model_copy(update={"signature": None})})
        assert entry.event is not None
        assert entry.event.meta.ledger is not None
        submission = codec.unstamped(entry.value, entry.ledger_at, entry.event.meta.ledger)
        assert codec.unsigned(submission, entry.ledger_at) == codec.encode(unsigned)
    print(f"{len(events)} signed submissions admitted, {len(records)} entries give back what was signed")


def test_the_verifier_counts_who_signed_what_with_which_key(tmp_path: Path) -> None:
    world = World(7, tmp_path, signing=("KRCS", "MEF"))
    held = world.held()
    expected = Counter(
        (actor, public_key_of(actor).hex())
        for number in range(PARTITIONS)
        for entry, reason in judged(held.kept["recorded", number], number)
        if reason is None
        and entry.event is not None
        and entry.event.meta.signature is not None
        and (actor := entry.event.meta.actor.actor_id)
    )

    report = verifier.verify_export(held, world.trust())

    print(f"{report.admitted} admitted entries, {report.signers.total()} signed by {len(report.signers)} actors")
    assert report.exit_code == 0
    assert 0 < report.signers.total() < report.admitted
    assert report.signers == expected


# --- from end to end ----------------------------------------------------------------------------------------------------------------


def test_on_kafka_a_key_is_made_enrolled_and_signed_with_and_nobody_else_is_admitted(
    tmp_path: Path, kafka_broker: str, database_url: str
) -> None:
    settings = {"AIDTRAIL_LOG": f"kafka://{kafka_broker}", "AIDTRAIL_VIEWS": database_url, "AIDTRAIL_TOPIC_PREFIX": "signatures"}

    def aidtrail(*arguments: str, text: str = "", code: int = 0) -> str:
        done = run(tmp_path / "home", *arguments, text=text, settings=settings)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    acts, key, other = Acts("KRCS-2026-0042"), tmp_path / "officer.pem", tmp_path / "other.pem"
    first, second, third = acts.announced(), acts.announced(), acts.announced()
    aidtrail("topics", "create", "--partitions", "2")
    public_key = bytes.fromhex(aidtrail("registry", "key", str(key)))
    people = [event for event in registry_events() if getattr(event, "actor_id", None) != "timekeeper"]  # which the command itself enrols
    registry = [*people, enrolled("krcs-officer", public_key), requiring("KRCS")]
    aidtrail("registry", "load", "-", text=lines(registry))
    aidtrail("registry", "key", str(other))
    services = [Up(tmp_path / name, name, settings=settings) for name in ("ledger", "project")]
    try:
        unsigned = aidtrail("submit", "-", text=lines([first]), code=1)
        forged = aidtrail("submit", "-", "--sign-with", str(other), text=lines([second]), code=1)
        admitted, again = (aidtrail("submit", "-", "--sign-with", str(key), text=lines([third])) for _ in range(2))
        history = [json.loads(line) for line in aidtrail("history", "KRCS-2026-0042", "--json").splitlines()]
        replayed = aidtrail("audit", "replay")
    finally:
        codes = [service.stop() for service in services]

    assert "REFUSED submission_is_signed_where_required" in unsigned
    assert "REFUSED signature_is_the_actors" in forged
    assert "admitted, version 1" in admitted
    assert admitted == again
    stated = next(one["event"] for one in history if one["outcome"] == "admitted")
    assert bytes.fromhex(stated["meta"]["signature"]) == sign(third, read_actor_key(key)).meta.signature
    assert "0 differ" in replayed
    assert codes == [0, 0]


def lines(events: Any) -> str:
    return "".join(codec.to_json(event) + "\n" for event in events)
