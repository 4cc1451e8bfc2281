"""Access tokens: who is asking. A signed token of the configured issuer gives an actor's id, and nothing else of it counts.

Only asymmetric algorithms, each bound to one type of key; only keys of the configured set, found by `kid`; what a token says about its own
key is never followed (RFC 8725). `Keys` reads the set (a JWKS, RFC 7517) again when a token names a key that is not in it.
"""

import hashlib
import json
import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aidtrail.domain.events import Id
from aidtrail.errors import AidtrailError, TokenError, UnavailableError, UsageError

logger = logging.getLogger(__name__)

ALGORITHMS = ("ES256", "EdDSA", "RS256")

MAX_TOKEN_BYTES = 8 * 1024
MAX_KEY_SET_BYTES = 256 * 1024
LEEWAY_SECONDS = 30.0  # how far the issuer's clock may be from ours
FETCH_SECONDS = 5.0  # to wait for the issuer at most
RETRY_SECONDS = 10.0  # between two readings of the key set at least, whatever kids are asked for
STALE_SECONDS = 300.0  # the key set is read again after so long, so that a key that the issuer withdraws goes
OTHERS_SECONDS = 0.3  # to wait for a set that another thread reads: whoever names a key that nobody knows must not hold up many threads
MAX_KNOWN = 4096  # tokens whose signature is not checked again

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_TYPES = ("jwt", "at+jwt", "application/at+jwt")
_EXTENSIONS = ("crit", "b64", "cty", "zip")
_ABOUT_KEYS = ("jwk", "jku", "x5c", "x5u")
_SECRET = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_BY_TYPE = {("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA", ("RSA", None): "RS256"}
_MIN_RSA_BITS = 2048

_FORMS = {"sub": "an actor's id"} | dict.fromkeys(("exp", "iat", "nbf"), "seconds since 1970")

_SIGNATURES = jwt.PyJWS(algorithms=list(ALGORITHMS))  # knows no other: neither none nor HMAC


class Key(NamedTuple):
    """A public key and the one algorithm that it verifies."""

    algorithm: str
    public_key: EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey


class Claims(BaseModel):
    """What must stand in a token. `exp`, `iat` and `nbf` are seconds since 1970."""

    model_config = ConfigDict(strict=True, frozen=True)

    iss: str
    aud: str
    sub: Id
    exp: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    iat: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    nbf: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    typ: str | None = None
    at_hash: Any = None
    c_hash: Any = None


class Keys:
    """The key set of a file or a URL: https, or http of this machine. Shared between threads.

    A key that was read stays usable while the source cannot be read. It goes with the first set that is read without it: where the source
    can be read, at most STALE_SECONDS after that set was published. `find` may wait some FETCH_SECONDS for the source: call it in a thread.
    """

    def __init__(self, source: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises UsageError for a URL that is not safe to read keys from. Reads nothing yet."""
        self.source = source
        self._is_url = _is_url(source)
        self._clock = clock
        self._lock = Lock()
        self._keys: Mapping[str, Key] | None = None
        self._read_at = self._tried_at = float("-inf")

    def find(self, kid: str) -> Key | None:
        """The key of this id. Raises UnavailableError while no set could be read at all."""
        keys = self._keys
        if keys is not None and kid in keys:
            if self._clock() - self._read_at >= STALE_SECONDS and self._lock.acquire(blocking=False):  # one thread reads, others go on
                try:
                    self._read_if_due()
                finally:
                    self._lock.release()
        elif self._lock.acquire(timeout=FETCH_SECONDS if keys is None else OTHERS_SECONDS):
            try:
                if self._keys is None or kid not in self._keys:  # else another thread has read it meanwhile
                    self._read_if_due()
            finally:
                self._lock.release()
        if self._keys is None:
            raise UnavailableError(f"no key set was read from {self.source} yet: access tokens cannot be verified")
        return self._keys.get(kid)

    def at_hand(self, kid: str) -> Key | None:
        """The key of this id if it was read and need not be read again by now. Never waits."""
        if self._keys is None or self._clock() - self._read_at >= STALE_SECONDS:
            return None
        return self._keys.get(kid)

    def load(self) -> None:
        """Read the set now: at start, to say what is wrong with it. Raises UsageError or UnavailableError, and then keeps what it had."""
        with self._lock:
            self._read()

    def _read_if_due(self) -> None:
        if self._clock() - self._tried_at < RETRY_SECONDS:
            return
        try:
            self._read()
        except AidtrailError as error:
            if self._keys is None:
                raise UnavailableError(f"access tokens cannot be verified: {error}") from error
            logger.warning("access tokens are verified with the keys read before: %s", error)

    def _read(self) -> None:
        try:
            content = _fetched(self.source) if self._is_url else _contents(Path(self.source))
            self._keys = parse_key_set(content, self.source)
            self._read_at = self._clock()
        finally:
            self._tried_at = self._clock()  # after the attempt: a source that is slow to fail is not asked all the time


class Verifier:
    """Says whose a token is. `issuer` and `audience` must be those of the token to the letter. Shared between threads."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        keys: Keys,
        algorithms: Sequence[str] = ALGORITHMS,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not set(algorithms) <= set(ALGORITHMS):
            raise ValueError(f"expected algorithms out of {', '.join(ALGORITHMS)}, found {', '.join(algorithms)}")
        self.issuer, self.audience, self.keys = issuer, audience, keys
        self._algorithms = frozenset(algorithms)
        self._now = now
        self._known: dict[bytes, _Known] = {}

    def subject(self, token: str) -> str:
        """The actor's id. Raises TokenError for any token that is not good now: the message is safe to show, it repeats nothing of it.
        Raises UnavailableError while no key set could be read. May wait for the key set: see `Keys`."""
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenError(f"it is longer than {MAX_TOKEN_BYTES} bytes")
        if not _COMPACT.fullmatch(token):
            raise TokenError("it is no signed JSON Web Token")
        kid = self._kid(token)
        key = self.keys.find(kid)
        if key is None:
            raise TokenError("it is signed with a key that the issuer does not publish")
        claims = self._checked(_verified(token, key))
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[_digest(token)] = _Known(kid, key, claims)
        return claims.sub

    def known_subject(self, token: str) -> str | None:
        """As `subject`, of a token that is good now and was found to be well signed before, with a key that the issuer still publishes.
        None where `subject` must be asked. Never waits."""
        known = self._known.get(_digest(token))
        if known is None or self.keys.at_hand(known.kid) is not known.key:
            return None
        try:
            return self._checked(known.claims).sub
        except TokenError:
            return None

    def _kid(self, token: str) -> str:
        """Which key the token says it is signed with, once its header is found to be harmless."""
        try:
            header = _SIGNATURES.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise TokenError("its header cannot be read") from None
        algorithm, kid, typ = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise TokenError(f"expected a signature by {', '.join(sorted(self._algorithms))}")
        if not isinstance(typ, str) or typ.lower() not in _TYPES:
            raise TokenError("expected the type at+jwt or JWT")
        if any(name in header for name in _EXTENSIONS):
            raise TokenError("its header asks for an extension that is not understood")
        if any(name in header for name in _ABOUT_KEYS):
            raise TokenError("its header brings a key of its own")
        if not isinstance(kid, str) or not kid:
            raise TokenError("its header names no key (kid)")
        return kid

    def _checked(self, claims: Claims) -> Claims:
        if claims.iss != self.issuer:
            raise TokenError("it is from another issuer")
        if claims.aud != self.audience:
            raise TokenError("it is for another audience")
        if claims.typ not in (None, "Bearer") or claims.at_hash is not None or claims.c_hash is not None:  # an ID token has these
            raise TokenError("it is no access token")
        now = self._now()
        if now >= claims.exp + LEEWAY_SECONDS:
            raise TokenError("it has expired")
        if now < claims.iat - LEEWAY_SECONDS or now < (claims.nbf or 0) - LEEWAY_SECONDS:
            raise TokenError("it is not valid yet")
        return claims


class _Known(NamedTuple):
    """A token that was verified: by which key, and what it says."""

    kid: str
    key: Key
    claims: Claims


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _verified(token: str, key: Key) -> Claims:
    """What the token says, once its signature is found to be good, by the key's one algorithm, whatever the token says."""
    try:
        payload = _SIGNATURES.decode(token, key.public_key, algorithms=[key.algorithm])
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise TokenError("its signature is not good") from None
    try:
        return Claims.model_validate_json(payload)
    except ValidationError as error:
        where = error.errors(include_url=False, include_input=False, include_context=False)[0]["loc"]
        if not where:
            raise TokenError("its claims are no JSON object") from None
        name = str(where[0])  # of a field of Claims: those that the token makes up are not looked at
        raise TokenError(f"its claim {name} is missing or malformed: expected {_FORMS.get(name, 'one string')}") from None


# --- key sets -----------------------------------------------------------------------------------------------------------------------


def parse_key_set(content: bytes, source: str) -> dict[str, Key]:
    """The usable keys of a JWKS by kid: those for signatures by one of ALGORITHMS. Others are left out. Raises UsageError for what is no
    key set, for one without a usable key, for one that names two keys alike, and for one that holds a secret: whoever can read the set
    could sign with that."""

    def refused(found: str) -> UsageError:
        return UsageError(f"{source}: expected a JWKS of public keys, found {found}")

    try:
        keys = json.loads(content)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise refused("no JSON object with 'keys'") from None
    if not isinstance(keys, list) or not all(isinstance(jwk, dict) for jwk in keys):
        raise refused("'keys' that are no objects")
    usable: dict[str, Key] = {}
    for jwk in keys:
        if jwk.get("kty") == "oct" or any(name in jwk for name in _SECRET):
            raise refused("a private or symmetric key among them")
        found = _public_key(jwk)
        if found is None:
            logger.info("%s: a key that verifies no %s is left out", source, " or ".join(ALGORITHMS))
            continue
        kid, key = found
        if kid in usable:
            raise refused("two keys of one kid")
        usable[kid] = key
    if not usable:
        raise refused(f"no key with a kid, for signatures by {', '.join(ALGORITHMS)}")
    return usable


def _public_key(jwk: Mapping[str, Any]) -> tuple[str, Key] | None:
    """Key id and key; None for a key for another purpose or algorithm, one without an id, a weak one, and one that is broken."""
    kty, kid = jwk.get("kty"), jwk.get("kid")
    algorithm = _BY_TYPE.get((str(kty), None if kty == "RSA" else str(jwk.get("crv"))))
    operations = jwk.get("key_ops", ["verify"])
    for_signatures = jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    if algorithm is None or jwk.get("alg", algorithm) != algorithm or not for_signatures or not isinstance(kid, str) or not kid:
        return None
    try:
        public_key = jwt.PyJWK(dict(jwk), algorithm).key
    except Exception:  # whatever the libraries make of coordinates that are none
        return None
    if isinstance(public_key, RSAPublicKey) and public_key.key_size < _MIN_RSA_BITS:
        return None
    return kid, Key(algorithm, public_key)


def _is_url(source: str) -> bool:
    if "://" not in source:
        return False
    try:
        url = urlsplit(source)
        host, _ = url.hostname or "", url.port
    except ValueError:
        host = ""
    if host and "@" not in url.netloc and not url.fragment and (url.scheme == "https" or (url.scheme == "http" and _is_loopback(host))):
        return True
    raise UsageError("AIDTRAIL_TOKEN_KEYS: expected a file, a URL with https, or with http on this machine, and no password in it")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An issuer publishes its keys where it says: a redirect could lead to where anybody can write, or to http."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _fetched(url: str) -> bytes:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if url.startswith("http:"):
        handlers.append(urllib.request.ProxyHandler({}))  # this machine is not reached through a proxy
    request = urllib.request.Request(url, headers={"Accept": "application/jwk-set+json, application/json"})
    deadline = time.monotonic() + FETCH_SECONDS
    content = b""
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=FETCH_SECONDS) as response:
            if response.status != 200:
                raise UnavailableError(f"{url} answered {response.status}: expected a JWKS")
            while chunk := response.read1(64 * 1024):
                content += chunk
                if len(content) > MAX_KEY_SET_BYTES:
                    raise UsageError(f"{url}: expected a JWKS of at most {MAX_KEY_SET_BYTES} bytes, found more")
                if time.monotonic() > deadline:
                    raise UnavailableError(f"{url} did not answer in full within {FETCH_SECONDS:.0f} s")
    except urllib.error.HTTPError as error:
        error.close()
        raise UnavailableError(f"{url} answered {error.code}: expected a JWKS") from None
    except (OSError, HTTPException) as error:
        raise UnavailableError(f"{url} cannot be read: {error}") from None
    return content


def _contents(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise UsageError(f"{path}: expected a file with the issuer's public keys, a JWKS")
        with path.open("rb") as file:
            content = file.read(MAX_KEY_SET_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_KEY_SET_BYTES:
        raise UsageError(f"{path}: expected a JWKS of at most {MAX_KEY_SET_BYTES} bytes, found more")
    return content
