"""Tokens for the embedded default, where there is no issuer: signed with a key of this home. Whoever can read the home can be anybody."""

import base64
import hashlib
import json
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

from aidtrail.errors import UsageError
from aidtrail.gateway.tokens import Keys, Verifier

ISSUER = "urn:aidtrail:local"
AUDIENCE = "aidtrail"


def issue(home: Path, actor_id: str, *, hours: float, now: float) -> str:
    """A token that says `actor_id` until so many hours after `now`, in seconds since 1970. Whether the registry knows the actor is for the
    caller to ask. Makes the key where there is none."""
    key = _signing_key(home)
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": actor_id, "iat": int(now), "exp": int(now + hours * 3600), "jti": secrets.token_hex(8)}
    return jwt.encode(claims, key, "EdDSA", headers={"kid": _public_jwk(key)["kid"], "typ": "at+jwt"})


def local_verifier(home: Path) -> Verifier:
    """Takes what `issue` made in the same home. Makes the key where there is none."""
    key = _signing_key(home)
    path = _folder(home) / "jwks.json"
    published = json.dumps({"keys": [_public_jwk(key)]}, indent=2) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != published:
        _write(path, published.encode(), replace=True)
    return Verifier(ISSUER, AUDIENCE, Keys(str(path)), ["EdDSA"])


def _signing_key(home: Path) -> Ed25519PrivateKey:
    path = _folder(home) / "signing-key.pem"
    if not path.exists():
        made = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(path, made, replace=False)  # if another process was faster, its key is the one
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"{path} can be read by others, who could sign tokens with it: delete it, or chmod 600 if nobody has read it")
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(path.read_bytes(), None)
        if isinstance(key, Ed25519PrivateKey):
            return key
    raise UsageError(f"{path}: expected an Ed25519 key in PEM, found something else; delete it to have a new one made")


def _public_jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    """With the thumbprint of RFC 7638 as its kid."""
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": _base64(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))}
    thumbprint = hashlib.sha256(json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()).digest()
    return {**jwk, "alg": "EdDSA", "use": "sig", "kid": _base64(thumbprint)}


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _folder(home: Path) -> Path:
    folder = home / "tokens"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}. Set AIDTRAIL_HOME to another folder") from None
    return folder


def _write(path: Path, content: bytes, *, replace: bool) -> None:
    """All of it or nothing, for this user only. Without `replace`, a file that is there stays."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            with suppress(FileExistsError):
                os.link(draft, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}. Set AIDTRAIL_HOME to another folder") from None
    finally:
        draft.unlink(missing_ok=True)
