"""Signed notes, checkpoints and cosignatures: the published examples, and what must be refused."""

import base64
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidtrail.audit import note as n
from aidtrail.audit.note import COSIGNATURE, ED25519, Checkpoint, Note, Signature, Signed, SignerKey, VerifierKey
from aidtrail.errors import NoteError

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "merkle"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the published notes and checkpoints are not beside this checkout")

GO_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

LOG = SignerKey("ministry.example/log", ED25519, bytes(range(32)))
WITNESS = SignerKey("donor.example/witness", COSIGNATURE, bytes(range(32, 64)))
STRANGER = SignerKey("stranger.example", ED25519, bytes(range(64, 96)))
CHECKPOINT = Checkpoint("ministry.example/log", 1_000_000, bytes(range(32)))
TEXT = str(CHECKPOINT)
SEEN = 1_764_000_000
SIGNED = Note(TEXT, (n.sign(TEXT, LOG), n.cosign(TEXT, WITNESS, SEEN)))
KEYS = (LOG.verifier, WITNESS.verifier)

names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="+"), min_size=1, max_size=20).filter(
    lambda name: not any(map(str.isspace, name))
)
lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
secrets = st.binary(min_size=32, max_size=32)


def data(name: str) -> Any:
    return json.loads((DATA / name).read_bytes())


def opened(note: bytes, *vkeys: str) -> tuple[Note, tuple[Signed, ...]]:
    parsed = n.parse(note)
    return parsed, n.verify(parsed, map(VerifierKey.parse, vkeys))


def refused(read: Callable[..., object], *arguments: Any) -> bool:
    try:
        read(*arguments)
    except NoteError:
        return True
    return False


# --- published examples -------------------------------------------------------------------------------------------------------------


@needs_data
def test_every_published_note_verifies_or_is_refused_as_told() -> None:
    outcomes: Counter[str] = Counter()
    cases = data("notes.json")["cases"]

    for case in cases:
        encoded = case["note"].encode()
        outcomes[case["expected"]] += 1
        if case["expected"] == "refused":
            assert refused(opened, encoded, *case["vkeys"]), case["name"]
            continue
        note, signed = opened(encoded, *case["vkeys"])
        assert [one.key.name for one in signed] == case["by"], case["name"]
        assert note.encode() == encoded
        if "origin" in case:
            expected = Checkpoint(case["origin"], case["size"], base64.b64decode(case["root_base64"]))
            assert Checkpoint.parse(note.text) == expected
            assert str(expected) == note.text

    print(f"\n{len(cases)} notes: {outcomes['verified']} verified, {outcomes['refused']} refused as told")
    assert outcomes == {"verified": 5, "refused": 11}


@needs_data
def test_the_checkpoint_of_the_go_checksum_database_verifies_and_not_with_any_one_character_changed() -> None:
    encoded = (DATA / "checkpoint.txt").read_bytes()
    note, signed = opened(encoded, GO_KEY)
    tried = accepted = 0

    for at in range(len(note.text)):
        for other in {"0", "A", " ", "\n", "\x00", "ä", chr(ord(note.text[at]) ^ 1), ""} - {note.text[at]}:
            altered = note.text[:at] + other + note.text[at + 1 :]
            tried += 1
            accepted += not refused(opened, altered.encode() + encoded[len(note.text.encode()) :], GO_KEY)

    assert signed == (Signed(VerifierKey.parse(GO_KEY), None),)
    assert Checkpoint.parse(note.text).size == 6_476_701
    print(f"\nthe real checkpoint verifies; with one character of its text changed: tried {tried}, wrongly accepted {accepted}")
    assert accepted == 0


@needs_data
def test_every_published_checkpoint_body_is_read_or_refused_as_told_but_for_what_the_specification_rules_out() -> None:
    """The library that these come from reads roots of any length, and empty lines at the end. An RFC 6962 root has 32 bytes, and
    tlog-checkpoint says that extension lines are not empty: so bodies that are read here have a root of 32 bytes put in."""
    outcomes: Counter[str] = Counter()
    root = bytes(range(32))

    for case in data("parser.json")["checkpoint_bodies"]:
        if case["expected"] == "refused":
            assert refused(Checkpoint.parse, case["body"]), case["name"]
            outcomes["refused as told"] += 1
            continue
        with pytest.raises(NoteError, match=r"root hash: expected 32 bytes|none empty"):
            Checkpoint.parse(case["body"])
        body = case["body"].replace(case["root_base64"], base64.b64encode(root).decode())
        extensions = tuple(case["rest"].splitlines())
        if "" in extensions:
            with pytest.raises(NoteError, match="none empty"):
                Checkpoint.parse(body)
            outcomes["refused for empty extension lines"] += 1
        else:
            assert Checkpoint.parse(body) == Checkpoint(case["origin"], case["size"], root, extensions)
            outcomes["read with a root of 32 bytes"] += 1

    print(f"\n{outcomes.total()} checkpoint bodies: {dict(outcomes)}")
    assert outcomes == {"refused as told": 7, "read with a root of 32 bytes": 4, "refused for empty extension lines": 1}


# --- what is written is read back ---------------------------------------------------------------------------------------------------


@given(names, st.sampled_from([ED25519, COSIGNATURE]), secrets)
def test_keys_come_back_from_their_text(name: str, key_type: int, secret: bytes) -> None:
    key = SignerKey(name, key_type, secret)

    assert SignerKey.parse(key.skey) == key
    assert VerifierKey.parse(str(key.verifier)) == key.verifier
    assert key.skey.startswith("PRIVATE+KEY+")


def test_a_generated_key_signs_and_no_two_are_the_same() -> None:
    one, other = SignerKey.generate("log.example"), SignerKey.generate("log.example")

    assert one != other
    assert n.verify(Note(TEXT, (n.sign(TEXT, one),)), [one.verifier, other.verifier]) == (Signed(one.verifier, None),)


def test_one_secret_has_another_key_id_as_another_type() -> None:
    assert replace(LOG, type=COSIGNATURE).verifier.id != LOG.verifier.id


@given(lines, st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32), st.lists(lines, max_size=3), st.integers(0, 2**63 - 1))
def test_a_signed_and_cosigned_checkpoint_comes_back_whole(
    origin: str, size: int, root: bytes, extensions: list[str], time_seconds: int
) -> None:
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    written = Note(str(checkpoint), (n.sign(str(checkpoint), LOG), n.cosign(str(checkpoint), WITNESS, time_seconds)))

    note = n.parse(written.encode())

    assert note == written
    assert Checkpoint.parse(note.text) == checkpoint
    assert n.verify(note, KEYS) == (Signed(LOG.verifier, None), Signed(WITNESS.verifier, time_seconds))


@pytest.mark.parametrize("text", ["\n", "one\n", "one\n\ntwo\n", "ends in empty lines\n\n\n", "— not a signature\n", "ünï\u2028cödé 😀\n"])
def test_any_text_that_ends_in_a_newline_can_be_signed(text: str) -> None:
    note = n.parse(Note(text, (n.sign(text, LOG),)).encode())

    assert note.text == text
    assert n.verify(note, KEYS) == (Signed(LOG.verifier, None),)


def test_a_cosignature_is_over_its_header_its_time_and_the_text() -> None:
    value = n.cosign(TEXT, WITNESS, SEEN).value
    as_log = VerifierKey(WITNESS.name, ED25519, WITNESS.verifier.public)

    signed_text = f"cosignature/v1\ntime {SEEN}\n{TEXT}"

    assert int.from_bytes(value[:8], "big") == SEEN
    assert n.verify(Note(signed_text, (Signature(as_log.name, as_log.id, value[8:]),)), [as_log]) == (Signed(as_log, None),)


# --- whom to believe ----------------------------------------------------------------------------------------------------------------


def test_signatures_of_unknown_keys_are_ignored_but_not_counted() -> None:
    unknown = (
        n.sign(TEXT, STRANGER),
        Signature("of-another-kind", b"\0\0\0\1", b"?"),
        Signature(LOG.name, b"\0\0\0\1", bytes(64)),
        Signature("other.example", LOG.verifier.id, bytes(64)),
    )

    assert n.verify(n.parse(Note(TEXT, unknown + SIGNED.signatures).encode()), KEYS) == n.verify(SIGNED, KEYS)
    with pytest.raises(NoteError, match="expected a signature of a trusted key, found 4 of other keys"):
        n.verify(n.parse(Note(TEXT, unknown).encode()), KEYS)
    with pytest.raises(NoteError, match="expected a signature of a trusted key, found 2 of other keys"):
        n.verify(SIGNED, [])


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("key", [LOG, WITNESS], ids=["log", "witness"])
@pytest.mark.parametrize("length", [1, 8, 63, 64, 65, 71, 72, 73])
def test_a_wrong_signature_of_a_known_key_spoils_right_ones(key: SignerKey, length: int, place: int) -> None:
    wrong = Signature(key.name, key.verifier.id, bytes(length))
    note = n.parse(Note(TEXT, (*SIGNED.signatures[:place], wrong, *SIGNED.signatures[place:])).encode())

    with pytest.raises(NoteError, match="found a wrong one"):
        n.verify(note, KEYS)


def test_a_key_that_signed_twice_counts_once() -> None:
    later = n.cosign(TEXT, WITNESS, SEEN + 60)

    assert n.verify(Note(TEXT, (*SIGNED.signatures, *SIGNED.signatures, later)), KEYS) == n.verify(SIGNED, KEYS)


def test_a_public_key_that_is_no_point_of_the_curve_verifies_nothing() -> None:
    key = VerifierKey("off.example", ED25519, b"\x02" + bytes(30) + b"\xff")

    with pytest.raises(NoteError, match="found a wrong one"):
        n.verify(Note(TEXT, (Signature(key.name, key.id, bytes(64)),)), [key])


def test_two_keys_that_a_note_cannot_tell_apart_are_not_both_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = LOG.verifier, replace(LOG.verifier, public=bytes(32))
    monkeypatch.setattr(VerifierKey, "id", property(lambda self: b"same"))

    with pytest.raises(NoteError, match="one key for each name and key id"):
        n.verify(SIGNED, [one, other])
    assert refused(n.verify, SIGNED, [one, one]), "the same key twice is no error: what is missing is its signature"


def test_a_cosignature_with_another_time_is_refused() -> None:
    value = SIGNED.signatures[1].value
    tried = 0

    for seconds in (0, SEEN - 1, SEEN + 1, 2**63, 2**64 - 1):
        moved = Signature(WITNESS.name, WITNESS.verifier.id, seconds.to_bytes(8, "big") + value[8:])
        assert refused(n.verify, Note(TEXT, (moved,)), KEYS)
        tried += 1

    print(f"\ncosignatures with another time: tried {tried}, wrongly accepted 0")


def test_a_cosignature_of_a_time_out_of_range_is_refused_though_its_key_made_it() -> None:
    as_log, time_seconds = replace(WITNESS, type=ED25519), 2**63
    made = n.sign(f"cosignature/v1\ntime {time_seconds}\n{TEXT}", as_log).value

    with pytest.raises(NoteError, match="time: expected a number from 0 to"):
        n.verify(Note(TEXT, (Signature(WITNESS.name, WITNESS.verifier.id, time_seconds.to_bytes(8, "big") + made),)), KEYS)


def test_a_signature_of_a_log_is_no_cosignature_and_a_cosignature_none_of_a_log() -> None:
    both = replace(LOG, type=COSIGNATURE)
    as_cosignature = Signature(both.name, both.verifier.id, SEEN.to_bytes(8, "big") + n.sign(TEXT, LOG).value)
    as_signature = Signature(LOG.name, LOG.verifier.id, n.cosign(TEXT, both, SEEN).value[8:])

    assert refused(n.verify, Note(TEXT, (as_cosignature,)), [both.verifier])
    assert refused(n.verify, Note(TEXT, (as_signature,)), [LOG.verifier])


# --- what must be refused -----------------------------------------------------------------------------------------------------------


def altered(note: bytes, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    for at in range(len(note)):
        yield "a bit flipped", note[:at] + bytes([note[at] ^ 1 << draw.randrange(8)]) + note[at + 1 :]
        yield "a byte removed", note[:at] + note[at + 1 :]
        yield "a byte doubled", note[: at + 1] + note[at:]
        yield "a byte put in", note[:at] + bytes([draw.randrange(256)]) + note[at:]
        yield "cut", note[:at]
    for at in range(1, len(note)):
        if note[at] != note[at - 1]:
            yield "two bytes swapped", note[: at - 1] + bytes([note[at], note[at - 1]]) + note[at + 1 :]


def test_no_altered_note_gives_another_text_or_another_signer() -> None:
    """An alteration may turn a signature into one of an unknown key, which is ignored, so whoever requires both signers misses one."""
    encoded, draw = SIGNED.encode(), random.Random(20251124)
    tried: Counter[str] = Counter()
    wrongly = []

    for what, note in altered(encoded, draw):
        tried[what] += 1
        try:
            parsed = n.parse(note)
            signed = n.verify(parsed, KEYS)
        except NoteError:
            continue
        if parsed.encode() != note or parsed.text != TEXT or len(signed) > 1 or not set(signed) < set(n.verify(SIGNED, KEYS)):
            wrongly.append(note)

    print(f"\naltered notes with two signers required: tried {tried.total():,}, wrongly accepted {len(wrongly)}: {dict(tried)}")
    assert not wrongly


SIGNATURE = str(SIGNED.signatures[0])


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (b"", "an empty line and signatures"),
        (TEXT.encode(), "an empty line and signatures"),
        (f"{TEXT}\n".encode(), "an empty line and signatures"),
        (f"{TEXT}{SIGNATURE}".encode(), "an empty line and signatures"),
        (f"{TEXT}\n{SIGNATURE[:-1]}".encode(), "an empty line and signatures"),
        (f"{TEXT}\n{SIGNATURE}\n".encode(), "an empty line and signatures"),
        (f"{TEXT}\n{SIGNATURE}\nmore\n".encode(), "em dash, key name and base64"),
        (f"{TEXT}\n{SIGNATURE}".replace("—", "-").encode(), "em dash, key name and base64"),
        (f"{TEXT}\n {SIGNATURE}".encode(), "em dash, key name and base64"),
        (f"{TEXT}\n{SIGNATURE[:-1]} \n".encode(), "em dash, key name and base64"),
        (f"{TEXT}\n— {LOG.name}\n".encode(), "em dash, key name and base64"),
        (f"{TEXT}\n{SIGNATURE}".replace("— ", "—  ").encode(), "em dash, key name and base64"),
        (f"{TEXT}\n—  AAAAAAA=\n".encode(), "key name: expected a name without spaces"),
        (f"{TEXT}\n— a+b AAAAAAA=\n".encode(), "key name: expected a name without spaces"),
        (f"{TEXT}\n— a\u00a0b AAAAAAA=\n".encode(), "key name: expected a name without spaces"),
        (f"{TEXT}\n— a\u2003b AAAAAAA=\n".encode(), "key name: expected a name without spaces"),
        (f"{TEXT}\n— a\tb AAAAAAA=\n".encode(), "key name: expected a name without spaces"),
        (f"{TEXT}\n— a\x01b AAAAAAA=\n".encode(), "key name: expected a name without spaces"),
        (f"{TEXT}\n— a AAAAAA==\n".encode(), "a key id of 4 bytes and more, found 4 bytes"),
        (f"{TEXT}\n— a \n".encode(), "a key id of 4 bytes and more, found 0 bytes"),
        (f"{TEXT}\n— a AAAAAAA\n".encode(), "signature: expected base64"),
        (f"{TEXT}\n— a AAAAAAB=\n".encode(), "signature: expected base64"),
        (f"{TEXT}\n— a AAAA_AA=\n".encode(), "signature: expected base64"),
        (f"{TEXT}\n— a AAAAAAA=AAAA\n".encode(), "signature: expected base64"),
        (f"{TEXT}\n— a ÄAAAAAA=\n".encode(), "signature: expected base64"),
        (f"a\tb\n\n{SIGNATURE}".encode(), r"without control characters but newlines, found '\\t' at 1"),
        (f"a\x00b\n\n{SIGNATURE}".encode(), "without control characters but newlines"),
        (f"{TEXT}\n{SIGNATURE}".replace("\n", "\r\n").encode(), "expected"),
        (b"\xff" + SIGNED.encode(), "expected UTF-8, found other bytes at 0"),
        (b"\xed\xa0\x80" + SIGNED.encode(), "expected UTF-8"),
        (b"\xc0\x80" + SIGNED.encode(), "expected UTF-8"),
        (f"{TEXT}\n{SIGNATURE * 101}".encode(), "at most 100 signatures, found 101"),
        (b"a" * n.MAX_NOTE_BYTES + SIGNED.encode(), "at most 262144 bytes"),
    ],
)
def test_what_is_not_written_as_a_signed_note_is_refused(note: bytes, said: str) -> None:
    with pytest.raises(NoteError, match=said):
        n.parse(note)


@pytest.mark.parametrize("control", [chr(code) for code in range(32) if code != 10])
def test_no_control_character_but_the_newline_is_read_or_signed(control: str) -> None:
    assert refused(n.parse, f"{control}{TEXT}\n{SIGNATURE}".encode())
    assert refused(n.parse, f"{TEXT}\n— a{control}b AAAAAAA=\n".encode())
    assert refused(n.sign, f"{TEXT}{control}\n", LOG)
    assert refused(SignerKey, f"a{control}b", ED25519, LOG.secret)


def test_as_many_signatures_as_the_specification_asks_for_are_read() -> None:
    large = tuple(Signature(f"witness-{number}.example", bytes(4), bytes(5000)) for number in range(16))

    assert n.parse(Note(TEXT, large).encode()).signatures == large
    assert len(n.parse(f"{TEXT}\n{SIGNATURE * n.MAX_SIGNATURES}".encode()).signatures) == n.MAX_SIGNATURES


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a newline at its end"),
        (f"log\n1\n{ROOT}", "a newline at its end"),
        ("log\n1\n", "origin, tree size and root hash, a line each, found 2 lines"),
        (f"\n1\n{ROOT}\n", "none empty"),
        (f"log\n1\n{ROOT}\n\n", "none empty"),
        (f"log\n1\n{ROOT}\nmore\n\nmore\n", "none empty"),
        (f"log\n\n{ROOT}\n", "without leading zeros"),
        (f"log\n01\n{ROOT}\n", "without leading zeros"),
        (f"log\n00\n{ROOT}\n", "without leading zeros"),
        (f"log\n+1\n{ROOT}\n", "without leading zeros"),
        (f"log\n-1\n{ROOT}\n", "without leading zeros"),
        (f"log\n1 \n{ROOT}\n", "without leading zeros"),
        (f"log\n1_0\n{ROOT}\n", "without leading zeros"),
        (f"log\n0x1\n{ROOT}\n", "without leading zeros"),
        (f"log\n\u0661\n{ROOT}\n", "without leading zeros"),
        (f"log\n{2**63}\n{ROOT}\n", "tree size: expected a number from 0 to"),
        (f"log\n{10**19}\n{ROOT}\n", "at most 19 digits"),
        ("log\n1\n\n", "root hash: expected 32 bytes, found 0"),
        (f"log\n1\n{ROOT[:-1]}\n", "root hash: expected base64"),
        (f"log\n1\n{ROOT[:-2]}B=\n", "root hash: expected base64"),
        (f"log\n1\n {ROOT}\n", "root hash: expected base64"),
        (f"log\n1\n{base64.b64encode(bytes(31)).decode()}\n", "root hash: expected 32 bytes, found 31"),
        (f"log\r\n1\n{ROOT}\n", "without control characters"),
        (f"log\n1\n{ROOT}\nmore\x1b\n", "without control characters"),
        (f"log\ud800\n1\n{ROOT}\n", "UTF-8"),
    ],
)
def test_what_is_not_written_as_a_checkpoint_is_neither_read_nor_cosigned(text: str, said: str) -> None:
    with pytest.raises(NoteError, match=said):
        Checkpoint.parse(text)
    with pytest.raises(NoteError, match=said):
        n.cosign(text, WITNESS, SEEN)


@pytest.mark.parametrize(
    "changed",
    [{"origin": ""}, {"origin": "a\nb"}, {"origin": "a\x07"}, {"size": -1}, {"size": 2**63}, {"root": bytes(31)}, {"extensions": ("",)}],
    ids=str,
)
def test_a_checkpoint_that_could_not_be_read_cannot_be_made(changed: dict[str, Any]) -> None:
    with pytest.raises(NoteError):
        replace(CHECKPOINT, **changed)


@pytest.mark.parametrize("text", ["", "no newline", "a\tb\n", "a\x00\n", "half \udc00\n"])
def test_a_text_that_no_note_can_have_is_not_signed(text: str) -> None:
    with pytest.raises(NoteError, match="text: expected"):
        n.sign(text, LOG)


def test_a_key_signs_only_what_its_type_is_for() -> None:
    with pytest.raises(NoteError, match="key type: expected 1, found 4"):
        n.sign(TEXT, WITNESS)
    with pytest.raises(NoteError, match="key type: expected 4, found 1"):
        n.cosign(TEXT, LOG, SEEN)


@pytest.mark.parametrize("seconds", [-1, 2**63])
def test_a_time_out_of_range_is_not_signed(seconds: int) -> None:
    with pytest.raises(NoteError, match="time: expected a number from 0 to"):
        n.cosign(TEXT, WITNESS, seconds)


def key_text(name: str, key_id: str, value: bytes) -> str:
    return f"{name}+{key_id}+{base64.b64encode(value).decode()}"


LOG_ID, PUBLIC = LOG.verifier.id.hex(), LOG.verifier.public


@pytest.mark.parametrize(
    ("vkey", "said"),
    [
        ("", "<name>"),
        (f"{LOG.name}+{LOG_ID}", "<name>"),
        (key_text("", LOG_ID, b"\x01" + PUBLIC), "key name"),
        (key_text("a b", LOG_ID, b"\x01" + PUBLIC), "key name"),
        (key_text("a\ud800b", LOG_ID, b"\x01" + PUBLIC), "key name"),
        (key_text("other.example", LOG_ID, b"\x01" + PUBLIC), "key id"),
        (key_text(LOG.name, LOG_ID, b"\x04" + PUBLIC), "key id"),
        (key_text(LOG.name, LOG_ID.upper(), b"\x01" + PUBLIC), "key id"),
        (key_text(LOG.name, "0" + LOG_ID, b"\x01" + PUBLIC), "key id"),
        (key_text(LOG.name, "", b"\x01" + PUBLIC), "key id"),
        (key_text(LOG.name, LOG_ID, b"\x02" + PUBLIC), r"1 \(Ed25519\) or 4 \(cosignature\), found 2"),
        (key_text(LOG.name, LOG_ID, b"\x01" + PUBLIC[1:]), "33 bytes of type and key, found 32"),
        (key_text(LOG.name, LOG_ID, b"\x01" + PUBLIC + b"\0"), "33 bytes of type and key, found 34"),
        (key_text(LOG.name, LOG_ID, b"\x01" + PUBLIC) + "\n", "base64"),
        (key_text(LOG.name, LOG_ID, b"\x01" + PUBLIC)[:-1], "base64"),
    ],
)
def test_a_verifier_key_that_is_not_written_as_specified_is_refused(vkey: str, said: str) -> None:
    with pytest.raises(NoteError, match=said):
        VerifierKey.parse(vkey)
    with pytest.raises(NoteError):
        SignerKey.parse(vkey)
    with pytest.raises(NoteError):
        SignerKey.parse(f"PRIVATE+KEY+{vkey}")


def test_a_secret_without_its_warning_is_no_signer_key() -> None:
    bare = LOG.skey.removeprefix("PRIVATE+KEY+")

    for skey in (bare, f"private+key+{bare}", f"PRIVATE+KEY+PRIVATE+KEY+{bare}", f" {LOG.skey}"):
        with pytest.raises(NoteError):
            SignerKey.parse(skey)


@pytest.mark.parametrize("length", [31, 33])
def test_a_key_of_another_length_cannot_be_made(length: int) -> None:
    with pytest.raises(NoteError, match=f"key: expected 32 bytes, found {length}"):
        SignerKey(LOG.name, ED25519, bytes(length))
    with pytest.raises(NoteError, match=f"key: expected 32 bytes, found {length}"):
        VerifierKey(LOG.name, ED25519, bytes(length))


def test_no_message_and_no_repr_shows_a_secret() -> None:
    secret = base64.b64encode(b"\x01" + LOG.secret).decode()
    spoilt = [LOG.skey[:-1], LOG.skey + "A", LOG.skey[1:], LOG.skey.replace(LOG_ID, "00000000"), LOG.skey.replace("+", " "), secret]
    said = [repr(LOG), repr([LOG]), str(LOG)]

    for skey in spoilt:
        with pytest.raises(NoteError) as refusal:
            SignerKey.parse(skey)
        said.append(str(refusal.value))

    assert not [text for text in said if secret[4:20] in text or repr(LOG.secret) in text]
