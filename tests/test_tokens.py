"""Access tokens: every forgery that we know of is refused, good ones are accepted, and keys can be changed without an outage."""

import base64
import hashlib
import hmac
import http.server
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from aidtrail.errors import TokenError, UnavailableError, UsageError
from aidtrail.gateway import tokens
from aidtrail.gateway.tokens import LEEWAY_SECONDS, MAX_TOKEN_BYTES, RETRY_SECONDS, STALE_SECONDS, Keys, Verifier

ISSUER, AUDIENCE, NOW = "https://id.example.org/realms/relief", "aidtrail", 1_790_000_000.0
CLAIMS: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "krcs-officer", "iat": NOW - 60, "exp": NOW + 600}

Private = Any  # of three types that have no base in common
TO_JWK: dict[str, Any] = {"ES256": ECAlgorithm.to_jwk, "EdDSA": OKPAlgorithm.to_jwk, "RS256": RSAAlgorithm.to_jwk}
PRIVATE: dict[str, Private] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "RS256": rsa.generate_private_key(65537, 2048),
}
OTHERS: dict[str, Private] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "RS256": rsa.generate_private_key(65537, 2048),
}


def jwk(algorithm: str, key: Private, kid: str, **members: Any) -> dict[str, Any]:
    return {**TO_JWK[algorithm](key.public_key(), as_dict=True), "kid": kid, "use": "sig", "alg": algorithm, **members}


def key_set(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": keys})


OURS = key_set(*(jwk(algorithm, key, algorithm) for algorithm, key in PRIVATE.items()))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(OURS)
    return path


@pytest.fixture
def verifier(source: Path) -> Verifier:
    return Verifier(ISSUER, AUDIENCE, Keys(str(source)), now=lambda: NOW)


def signed(algorithm: str = "ES256", /, key: Private = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token by our key of this algorithm. A claim or header of None is left out."""
    head = {"kid": algorithm, **(header or {})}
    body = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return raw(algorithm, key or PRIVATE[algorithm], {"alg": algorithm, "typ": "JWT", **head}, body)


def raw(algorithm: str, key: Private, header: Any, body: Any) -> str:
    """A token made by hand, because a library makes no bad ones."""
    head = {name: value for name, value in header.items() if value is not None} if isinstance(header, dict) else header
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (head, body)]
    signing_input = b".".join(b64(part) for part in parts)
    return (signing_input + b"." + b64(jwt.get_algorithm_by_name(algorithm).sign(signing_input, key))).decode()


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def resigned(token: str, sign: Callable[[bytes], bytes]) -> str:
    signing_input = token.rpartition(".")[0].encode()
    return (signing_input + b"." + b64(sign(signing_input))).decode()


# --- good ones ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", list(PRIVATE))
@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "AT+JWT", "application/at+jwt", None])
def test_a_good_token_says_who_is_asking(verifier: Verifier, algorithm: str, typ: str | None) -> None:
    assert verifier.subject(signed(algorithm, header={"typ": typ})) == "krcs-officer"


def test_what_the_library_itself_signs_is_accepted(verifier: Verifier) -> None:
    for algorithm, key in PRIVATE.items():
        assert verifier.subject(jwt.encode(CLAIMS, key, algorithm, headers={"kid": algorithm})) == "krcs-officer"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW - LEEWAY_SECONDS + 1},
        {"iat": NOW + LEEWAY_SECONDS},
        {"nbf": NOW + LEEWAY_SECONDS},
        {"nbf": NOW - 10},
        {"typ": "Bearer", "scope": "openid", "azp": "a-client", "realm_access": {"roles": ["admin"]}, "jti": 7},
        {"iat": NOW - 0.5, "exp": NOW + 0.5},
    ],
    ids=str,
)
def test_a_clock_may_be_a_little_wrong_and_other_claims_do_not_matter(verifier: Verifier, claims: dict[str, Any]) -> None:
    assert verifier.subject(signed(**claims)) == "krcs-officer"


# --- forgeries ----------------------------------------------------------------------------------------------------------------------


def unsigned() -> Iterator[str]:
    for alg in ("none", "None", "NONE", "nOnE", "none ", "", "null", None, True, 0, [], ["none"], {"alg": "ES256"}):
        for kid in ("ES256", None):
            head = {"typ": "JWT", "alg": alg, "kid": kid} if alg is not None else {"typ": "JWT", "kid": kid}
            start = b64(json.dumps(head).encode()) + b"." + b64(json.dumps(CLAIMS).encode())
            for signature in (b"", b".", b".AA", b"." + b64(bytes(64))):
                yield (start + signature).decode()


def by_a_public_key_as_secret() -> Iterator[str]:
    """HS256 with all that an attacker can know of a public key as its secret."""
    for name, key in PRIVATE.items():
        public = key.public_key()
        secrets = [
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).strip(),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            json.dumps(jwk(name, key, name)).encode(),
            OURS.encode(),
            b"",
        ]
        if name == "EdDSA":
            secrets.append(public.public_bytes(Encoding.Raw, PublicFormat.Raw))
        for secret, (alg, digest) in itertools.product(
            secrets, (("HS256", hashlib.sha256), ("HS384", hashlib.sha384), ("HS512", "sha512"))
        ):
            token = signed(name, header={"alg": alg})
            yield resigned(token, lambda message, secret=secret, digest=digest: hmac.new(secret, message, digest).digest())  # type: ignore[misc]


def by_other_keys() -> Iterator[str]:
    for algorithm, key in OTHERS.items():
        yield signed(algorithm, key)
        yield signed(algorithm, key, {"kid": "another"})
        yield signed(algorithm, key, {"kid": None})
        yield signed(algorithm, None, {"kid": None})  # by our key, but it does not say so
        own = {**jwk(algorithm, key, algorithm)}
        for header in ({"jwk": own}, {"jku": "https://evil.example/jwks"}, {"x5u": "https://evil.example/c"}, {"x5c": ["MIIB"]}):
            yield signed(algorithm, key, header)
            yield signed(algorithm, key, {**header, "kid": None})
            yield signed(algorithm, None, header)  # by our key even so: nobody who means well does that
    yield signed("ES256", header={"kid": ""})
    for kid in (0, ["ES256"], {"ES256": 1}, True, "ES256\u0000", " ES256", "../ES256", "es256", "x" * 4000, "' OR 1=1 --"):
        yield signed("ES256", header={"kid": kid})


def by_mixed_up_algorithms() -> Iterator[str]:
    """A good key used for, or named as, what it is not for."""
    for key_name, named in itertools.product(
        PRIVATE, (*PRIVATE, "ES384", "ES512", "ES256K", "RS384", "RS512", "PS256", "PS512", "Ed25519")
    ):
        if key_name != named:
            yield signed(key_name, header={"alg": named})
            yield signed(key_name, header={"kid": named})
            yield signed(key_name, header={"alg": named, "kid": named})
    for algorithm in ("RS384", "RS512", "PS256", "PS384", "PS512"):
        yield raw(algorithm, PRIVATE["RS256"], {"alg": algorithm, "typ": "JWT", "kid": "RS256"}, CLAIMS)
        yield raw(algorithm, PRIVATE["RS256"], {"alg": "RS256", "typ": "JWT", "kid": "RS256"}, CLAIMS)
    der = resigned(signed("ES256"), lambda message: PRIVATE["ES256"].sign(message, ec.ECDSA(SHA256())))
    yield der
    yield resigned(signed("ES256"), lambda _: bytes(64))  # r = s = 0: CVE-2022-21449
    yield raw("EdDSA", ed448.Ed448PrivateKey.generate(), {"alg": "EdDSA", "kid": "EdDSA"}, CLAIMS)


def with_bad_headers() -> Iterator[str]:
    crits: list[Any] = [["exp"], [], "exp", ["b64"], [7], {}]
    types: list[Any] = ["logout+jwt", "dpop+jwt", "secevent+jwt", "+jwt", "id_token", "ID", "JOSE", "", "JWT ", "at+jwt;x", 1, ["JWT"], {}]
    headers: list[dict[str, Any]] = [
        *({"crit": crit} for crit in crits),
        *({"crit": crit, "b64": b64} for crit in crits for b64 in (False, True)),
        *({"typ": typ} for typ in types),
        {"b64": False},
        {"b64": True},
        {"cty": "JWT"},
        {"zip": "DEF"},
    ]
    for header in headers:
        yield signed("ES256", header=header)
    for bad in (b"", b"null", b"[]", b'"ES256"', b"7", b"{", b'{"alg":"ES256"}x', b"\xff\xfe{}", b"[" * 3000, b'{"a":' * 1000, b"NaN"):
        yield raw("ES256", PRIVATE["ES256"], bad, CLAIMS)


def with_bad_claims() -> Iterator[str]:
    for name in ("iss", "aud", "sub", "exp", "iat"):
        yield signed(**{name: None})
        values: list[Any] = ["", [], {}, True, False, " ", [CLAIMS[name]], {"value": CLAIMS[name]}]
        yield from (signed(**{name: value}) for value in values)
    wrong: dict[str, list[Any]] = {
        "iss": [ISSUER + "/", ISSUER.upper(), ISSUER[:-1], ISSUER + " ", "https://evil.example", [ISSUER, "https://evil.example"]],
        "aud": ["Aidtrail", "aidtrail ", "aidtrai", "aidtrail2", "account", [AUDIENCE], [AUDIENCE, "account"], {AUDIENCE: 1}, "*"],
        "exp": [NOW - LEEWAY_SECONDS, NOW - 3600, 0, -1, -NOW, str(NOW + 600), "2099-01-01T00:00:00Z", [NOW + 600]],
        "nbf": [NOW + LEEWAY_SECONDS + 1, NOW + 3600, 1e18, str(NOW), "", [], True, -1],
        "iat": [NOW + LEEWAY_SECONDS + 1, NOW + 3600, 1e18, str(NOW), "", [], True, -1],
        "sub": [" krcs-officer", "krcs officer", "krcs-officer\n", "krcs-officer\u0000", "é", "x" * 65, "-x", 7, ["krcs-officer"]],
        "typ": ["ID", "Refresh", "Logout", "", 1, ["Bearer"]],
        "at_hash": ["x"],
        "c_hash": ["x"],
    }
    for name, values in wrong.items():
        yield from (signed(**{name: value}) for value in values)
    good = json.dumps(CLAIMS)
    for number in ("Infinity", "NaN", "-Infinity", "1e999", "1" + "0" * 400):
        yield raw("ES256", PRIVATE["ES256"], HEADER, good.replace(str(CLAIMS["exp"]), number).encode())
    for payload in (
        b"",
        b"null",
        b"[]",
        b"krcs-officer",
        b'"krcs-officer"',
        b"{",
        good.encode() + b"x",
        b"[" * 3000,
        b"\xff\xfe",
        good.encode("utf-16"),
    ):
        yield raw("ES256", PRIVATE["ES256"], HEADER, payload)


HEADER = {"alg": "ES256", "typ": "JWT", "kid": "ES256"}


def tampered() -> Iterator[str]:
    """Each character of a good token replaced by each of several others, taken away or doubled."""
    for algorithm in PRIVATE:
        token = signed(algorithm)
        for position, character in enumerate(token):
            for other in {"A", "B", "_", "-", "9", ".", "=", chr(ord(character) ^ 1), ""} - {character}:
                yield token[:position] + other + token[position + 1 :]
            yield token[:position] + character + token[position:]
        header, body, signature = token.split(".")
        yield f"{header}.{b64(json.dumps({**CLAIMS, 'sub': 'mef-approver'}).encode()).decode()}.{signature}"
        _, other_body, other_signature = signed(algorithm, sub="mef-approver").split(".")
        yield f"{header}.{other_body}.{signature}"
        yield f"{header}.{body}.{other_signature}"


def without_form() -> Iterator[str]:
    token = signed()
    header, body, signature = token.split(".")
    yield from ("", ".", "..", "...", " ", "Bearer", "null", "krcs-officer", "\u0000", "é" * 3000, "🙂", header, f"{header}.{body}")
    yield from (f"{header}.{body}.", f".{body}.{signature}", f"{header}..{signature}", f"{token}.{signature}", f"{header}.{token}")
    yield from (
        f" {token}",
        f"{token} ",
        f"{token}\n",
        f"\n{token}",
        f"Bearer {token}",
        f"{token}=",
        f"{token}==",
        f'"{token}"',
        f"{token}\u0000",
    )
    yield from (token.replace(".", "\u2024"), token.replace(".", ","), token.replace(".", ". "), token[:40] + "\n" + token[40:])
    yield json.dumps({"payload": body, "signatures": [{"protected": header, "signature": signature}]})
    yield raw("ES256", PRIVATE["ES256"], HEADER, token.encode())  # a token in a token
    yield raw("ES256", PRIVATE["ES256"], {**HEADER, "cty": "JWT"}, token.encode())
    yield f"{header}.{b64(b'key').decode()}.{b64(b'iv').decode()}.{body}.{signature}"  # the form of an encrypted one
    yield signed(padding="x" * MAX_TOKEN_BYTES)
    yield signed(header={"padding": "x" * MAX_TOKEN_BYTES})
    yield "a" * 10_000_000


FORGERIES = (
    unsigned,
    by_a_public_key_as_secret,
    by_other_keys,
    by_mixed_up_algorithms,
    with_bad_headers,
    with_bad_claims,
    tampered,
    without_form,
)


def forged() -> Iterator[tuple[str, str]]:
    good = {signed(algorithm) for algorithm in ("EdDSA", "RS256")}  # these two sign alike every time
    for kind in FORGERIES:
        for token in kind():
            assert token not in good, f"{kind.__name__} made a good one"
            yield kind.__name__, token


def test_no_forged_token_is_accepted_and_no_message_repeats_it(verifier: Verifier) -> None:
    tried: dict[str, int] = {}
    accepted: list[tuple[str, str]] = []
    messages: set[str] = set()
    for kind, token in forged():
        tried[kind] = tried.get(kind, 0) + 1
        try:
            verifier.subject(token)
            accepted.append((kind, token))
        except TokenError as error:
            messages.add(str(error))
        assert verifier.known_subject(token) is None
    print(", ".join(f"{kind} {number}" for kind, number in tried.items()))
    print(f"{sum(tried.values())} tried, {len(accepted)} accepted; {len(messages)} different reasons")

    assert accepted == []
    assert sum(tried.values()) > 5000
    assert len(tried) == len(FORGERIES)
    assert len(messages) < 30, "a message that varies with the token repeats something of it"


def test_an_algorithm_that_is_not_wanted_is_refused_and_one_that_is_not_safe_cannot_be_wanted(source: Path) -> None:
    only = Verifier(ISSUER, AUDIENCE, Keys(str(source)), ["EdDSA"], now=lambda: NOW)

    assert only.subject(signed("EdDSA")) == "krcs-officer"
    for algorithm in ("ES256", "RS256"):
        with pytest.raises(TokenError, match="expected a signature by EdDSA"):
            only.subject(signed(algorithm))
    for algorithm in ("none", "HS256", "ES384"):
        with pytest.raises(ValueError, match="expected algorithms out of"):
            Verifier(ISSUER, AUDIENCE, Keys(str(source)), [algorithm])


# --- the key set --------------------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Issuer(http.server.ThreadingHTTPServer):
    """Publishes a key set at /jwks; counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.content, self.headers = 200, OURS.encode(), {"Content-Type": "application/json"}
        self.asked = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}/jwks"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        issuer = self.server
        assert isinstance(issuer, Issuer)
        if self.path != "/jwks":  # where somebody else can write
            self.send_response(200)
            self.end_headers()
            self.wfile.write(rotated().encode())
            return
        issuer.asked += 1
        self.send_response(issuer.status)
        for name, value in issuer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(issuer.content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def rotated(kid: str = "new") -> str:
    return key_set(jwk("ES256", OTHERS["ES256"], kid))


def test_a_new_key_is_found_and_the_old_one_goes(issuer: Issuer, clock: Clock) -> None:
    verifier = Verifier(ISSUER, AUDIENCE, Keys(issuer.url, clock=clock), now=lambda: NOW)
    new = signed("ES256", OTHERS["ES256"], {"kid": "new"})
    assert verifier.subject(signed()) == "krcs-officer"
    issuer.content = rotated().encode()
    clock.seconds += RETRY_SECONDS

    assert verifier.subject(new) == "krcs-officer"
    with pytest.raises(TokenError, match="a key that the issuer does not publish"):
        verifier.subject(signed())
    with pytest.raises(TokenError, match="signature is not good"):  # another key under the kid of the new one
        verifier.subject(signed("ES256", None, {"kid": "new"}))


def test_a_withdrawn_key_goes_also_when_nobody_names_a_new_one(issuer: Issuer, clock: Clock) -> None:
    keys = Keys(issuer.url, clock=clock)
    assert keys.find("ES256") is not None
    issuer.content = rotated().encode()
    clock.seconds += STALE_SECONDS - 1
    assert keys.find("ES256") is not None
    clock.seconds += 1

    assert keys.find("ES256") is None
    assert issuer.asked == 2


def test_the_same_kid_with_another_key_is_the_other_key(source: Path, clock: Clock) -> None:
    verifier = Verifier(ISSUER, AUDIENCE, Keys(str(source), clock=clock), now=lambda: NOW)
    verifier.subject(signed())
    source.write_text(rotated("ES256"))
    clock.seconds += STALE_SECONDS

    assert verifier.subject(signed("ES256", OTHERS["ES256"])) == "krcs-officer"
    with pytest.raises(TokenError, match="signature is not good"):
        verifier.subject(signed())


def test_a_token_that_was_good_is_good_without_a_second_look_until_it_expires_or_its_key_goes(source: Path, clock: Clock) -> None:
    now = NOW
    verifier = Verifier(ISSUER, AUDIENCE, Keys(str(source), clock=clock), now=lambda: now)
    token = signed()
    assert verifier.known_subject(token) is None
    verifier.subject(token)

    assert verifier.known_subject(token) == "krcs-officer"
    assert verifier.known_subject(token[:-1]) is None
    now = CLAIMS["exp"] + LEEWAY_SECONDS
    assert verifier.known_subject(token) is None
    now = CLAIMS["iat"] - LEEWAY_SECONDS - 1
    assert verifier.known_subject(token) is None
    now = NOW
    clock.seconds += STALE_SECONDS  # the set must be read again first
    assert verifier.known_subject(token) is None
    verifier.subject(token)
    assert verifier.known_subject(token) == "krcs-officer"
    source.write_text(rotated("ES256"))  # another key of the same name
    clock.seconds += STALE_SECONDS
    with pytest.raises(TokenError, match="signature is not good"):
        verifier.subject(token)
    assert verifier.known_subject(token) is None


def test_tokens_that_are_known_are_bounded(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_KNOWN", 3)
    made = [signed(jti=str(number)) for number in range(10)]
    for token in made:
        verifier.subject(token)
        assert verifier.known_subject(token) == "krcs-officer"

    assert sum(verifier.known_subject(token) is not None for token in made) <= 3


@pytest.mark.parametrize("outage", ["500", "404", "redirect", "no set", "a secret", "too large", "cut short", "gone"])
def test_while_the_source_is_down_the_keys_read_before_stay(
    issuer: Issuer, clock: Clock, outage: str, caplog: pytest.LogCaptureFixture
) -> None:
    verifier = Verifier(ISSUER, AUDIENCE, Keys(issuer.url, clock=clock), now=lambda: NOW)
    verifier.subject(signed())
    match outage:
        case "500" | "404":
            issuer.status = int(outage)
        case "redirect":
            issuer.status, issuer.headers = 302, {"Location": issuer.url.replace("/jwks", "/elsewhere")}
        case "no set":
            issuer.content = b"<html>sign in</html>"
        case "a secret":
            issuer.content = key_set({"kty": "oct", "k": "c2VjcmV0", "kid": "ES256"}).encode()
        case "too large":
            issuer.content = rotated().encode().ljust(tokens.MAX_KEY_SET_BYTES + 1)
        case "cut short":
            issuer.headers, issuer.content = {"Content-Length": str(len(OURS))}, OURS[:-2].encode()
        case "gone":
            issuer.shutdown()
            issuer.socket.close()

    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            clock.seconds += STALE_SECONDS
            assert verifier.subject(signed()) == "krcs-officer"
            with pytest.raises(TokenError, match="a key that the issuer does not publish"):
                verifier.subject(signed("ES256", OTHERS["ES256"], {"kid": "new"}))

    assert len(caplog.records) == 20
    assert "verified with the keys read before" in caplog.text


def test_a_source_that_comes_back_is_read_again(issuer: Issuer, clock: Clock) -> None:
    keys = Keys(issuer.url, clock=clock)
    issuer.status = 503
    with pytest.raises(UnavailableError, match="answered 503"):
        keys.find("ES256")
    with pytest.raises(UnavailableError, match="no key set was read"):
        keys.find("ES256")
    issuer.status = 200
    clock.seconds += RETRY_SECONDS

    assert keys.find("ES256") is not None
    assert issuer.asked == 2


def test_unknown_keys_cause_one_reading_an_interval(issuer: Issuer, clock: Clock) -> None:
    keys = Keys(issuer.url, clock=clock)
    keys.load()
    for interval in range(1, 6):
        clock.seconds += RETRY_SECONDS
        threads = [
            threading.Thread(target=lambda number=number: [keys.find(f"unknown-{number}-{each}") for each in range(50)])
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert issuer.asked == 1 + interval
    print(f"2000 unknown keys asked for in 5 intervals, the set read {issuer.asked - 1} times")


class Hanging:
    """A source of keys that answers when it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._asked, self._go_on = threading.Event(), threading.Event()
        monkeypatch.setattr(tokens, "_contents", self._contents)

    def _contents(self, path: Path) -> bytes:
        self._asked.set()
        assert self._go_on.wait(30)
        return OURS.encode()

    def asked_by(self, keys: Keys) -> threading.Thread:
        """A thread that looks for a key that nobody knows, and waits for the source by now."""
        thread = threading.Thread(target=keys.find, args=("unknown",))
        thread.start()
        assert self._asked.wait(30)
        return thread

    def let_go(self) -> None:
        self._go_on.set()


def test_unknown_keys_do_not_wait_for_a_source_that_hangs(source: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(str(source), clock=clock)
    keys.load()
    source_of_keys = Hanging(monkeypatch)
    clock.seconds += RETRY_SECONDS
    waiting = source_of_keys.asked_by(keys)

    asked = threading.Thread(target=keys.find, args=("another",))
    asked.start()
    asked.join(5)
    answered = not asked.is_alive()
    source_of_keys.let_go()
    waiting.join()
    asked.join()

    assert answered


def test_known_keys_are_found_while_another_thread_waits_for_the_source(
    source: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Keys(str(source), clock=clock)
    keys.load()
    source_of_keys = Hanging(monkeypatch)
    clock.seconds += STALE_SECONDS
    waiting = source_of_keys.asked_by(keys)

    began = time.monotonic()
    found = keys.find("ES256")
    seconds = time.monotonic() - began
    source_of_keys.let_go()
    waiting.join()

    assert found is not None
    assert seconds < 3


@pytest.mark.parametrize(
    ("jwks", "found"),
    [
        ("", "no JSON object with 'keys'"),
        ("[]", "no JSON object with 'keys'"),
        ("{}", "no JSON object with 'keys'"),
        ("[" * 100_000, "no JSON object with 'keys'"),
        ('{"keys": {}}', "'keys' that are no objects"),
        ('{"keys": [7]}', "'keys' that are no objects"),
        ('{"keys": []}', "no key with a kid"),
        (key_set(jwk("ES256", PRIVATE["ES256"], "")), "no key with a kid"),
        (key_set(jwk("ES256", PRIVATE["ES256"], "1", use="enc")), "no key with a kid"),
        (key_set(jwk("ES256", PRIVATE["ES256"], "1", key_ops=["sign"])), "no key with a kid"),
        (key_set(jwk("ES256", PRIVATE["ES256"], "1", key_ops=7)), "no key with a kid"),
        (key_set(jwk("ES256", PRIVATE["ES256"], "1", alg="ES384")), "no key with a kid"),
        (key_set(jwk("RS256", PRIVATE["RS256"], "1", alg="HS256")), "no key with a kid"),
        (key_set(jwk("RS256", rsa.generate_private_key(65537, 1024), "1")), "no key with a kid"),
        (key_set(jwk("ES256", PRIVATE["ES256"], "1", x="AAAA")), "no key with a kid"),
        (key_set(jwk("ES256", PRIVATE["ES256"], "1", x=7)), "no key with a kid"),
        (key_set(jwk("ES256", PRIVATE["ES256"], "1", y=jwk("ES256", OTHERS["ES256"], "1")["x"])), "no key with a kid"),
        (key_set(jwk("EdDSA", ed448.Ed448PrivateKey.generate(), "1")), "no key with a kid"),
        (key_set({"kty": "oct", "k": "c2VjcmV0", "kid": "1", "alg": "HS256"}), "a private or symmetric key"),
        (key_set(*json.loads(OURS)["keys"], {"kty": "oct", "kid": "1"}), "a private or symmetric key"),
        (key_set({**ECAlgorithm.to_jwk(PRIVATE["ES256"], as_dict=True), "kid": "1"}), "a private or symmetric key"),
        (key_set({**RSAAlgorithm.to_jwk(PRIVATE["RS256"], as_dict=True), "kid": "1"}), "a private or symmetric key"),
        (key_set({**OKPAlgorithm.to_jwk(PRIVATE["EdDSA"], as_dict=True), "kid": "1"}), "a private or symmetric key"),
        (key_set(jwk("ES256", PRIVATE["ES256"], "1"), jwk("ES256", OTHERS["ES256"], "1")), "two keys of one kid"),
    ],
)  # fmt: skip
def test_a_set_that_gives_no_safe_key_is_refused(source: Path, jwks: str, found: str) -> None:
    source.write_text(jwks)

    with pytest.raises(UsageError, match=f"jwks.json: expected a JWKS of public keys, found {found}"):
        Keys(str(source)).load()


def test_keys_for_something_else_do_not_disturb_the_others(source: Path) -> None:
    others = [{"kty": "EC", "crv": "P-521", "kid": "a"}, {"kty": "AKP", "kid": "b"}, {}, jwk("RS256", OTHERS["RS256"], "enc", use="enc")]
    source.write_text(key_set(*others, jwk("ES256", PRIVATE["ES256"], "1", use="sig", x5t="abc", key_ops=["verify"])))
    keys = Keys(str(source))

    assert keys.find("1") is not None
    assert [keys.find(kid) for kid in ("a", "b", "enc")] == [None, None, None]


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(OURS.encode().ljust(tokens.MAX_KEY_SET_BYTES + 1))

    for name in ("pipe", "large", "missing", "."):
        with pytest.raises(UsageError, match="expected a"):
            Keys(str(tmp_path / name)).load()


@pytest.mark.parametrize(
    "url",
    ["http://id.example.org/jwks", "http://127.0.0.1.evil.example/jwks", "http://localhost@evil.example/jwks", "https://me:secret@id.example.org/",
     "https:///jwks", "ftp://127.0.0.1/jwks", "file:///etc/passwd", "https://[::1/jwks", "https://id.example.org:x/", "http://0.0.0.0/jwks"],
)  # fmt: skip
def test_keys_are_only_read_from_where_nobody_can_alter_them(url: str) -> None:
    with pytest.raises(UsageError, match="AIDTRAIL_TOKEN_KEYS: expected a file, a URL with https") as refused:
        Keys(url)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["https://id.example.org/jwks", "http://127.0.0.1:8080/jwks", "http://localhost/jwks", "http://[::1]/jwks"])
def test_https_and_this_machine_are_safe(url: str) -> None:
    assert Keys(url).source == url
