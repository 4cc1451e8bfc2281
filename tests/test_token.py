"""`aidtrail token`, and the tokens of the embedded default: good in their own home, of no use where an issuer is configured."""

import json
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aidtrail.cli.token import verifier
from aidtrail.config import Settings
from aidtrail.errors import TokenError, UnavailableError, UsageError
from aidtrail.gateway.local import AUDIENCE, ISSUER, issue, local_verifier
from aidtrail.gateway.tokens import LEEWAY_SECONDS, Keys, Verifier
from tests.acts import registry_events
from tests.test_cli import run

EC_KEY = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

# --- the command --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose registry knows the actors of `tests.acts`, and the timekeeper of the pipeline's own."""
    home = tmp_path_factory.mktemp("token") / "home"
    events = [event for event in registry_events() if getattr(event, "actor_id", None) != "timekeeper"]
    lines = [json.dumps({"type": event.type, **event.model_dump(mode="json")}) for event in events]
    loaded = run(home, "registry", "load", "-", text="\n".join(lines))
    assert loaded.returncode == 0, loaded.stderr
    return home


def test_the_command_prints_a_token_that_the_gateway_of_this_home_takes(home: Path) -> None:
    done = run(home, "token", "mef-approver", "--hours", "2")

    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("mef-approver of MEF, valid until ")
    assert verifier(Settings(home=home, log=None)).subject(done.stdout.strip()) == "mef-approver"


@pytest.mark.parametrize(
    ("actor", "found"),
    [("nobody", "that the registry does not know"), ("krcs-retired", "who is retired"), ("", "that the registry does not know")],
)
def test_there_is_no_token_for_an_actor_who_is_not_in_service(home: Path, actor: str, found: str) -> None:
    done = run(home, "token", actor)

    assert (done.returncode, done.stdout) == (2, "")
    assert f"'{actor}': expected an actor in service, found an actor {found}" in done.stderr


@pytest.mark.parametrize(
    "settings",
    [
        {"AIDTRAIL_LOG": "kafka://127.0.0.1:9"},
        {"AIDTRAIL_LOG": "postgresql://nobody@127.0.0.1:9/nothing"},
        {"AIDTRAIL_TOKEN_ISSUER": "https://id.example.org"},
        {"AIDTRAIL_TOKEN_KEYS": "jwks.json"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_where_an_issuer_or_a_log_is_configured_the_command_refuses(tmp_path: Path, settings: dict[str, str]) -> None:
    done = run(tmp_path, "token", "krcs-officer", settings=settings)

    assert (done.returncode, done.stdout) == (2, "")
    assert "local tokens are for the embedded log only" in done.stderr
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize("hours", ["0", "721", "nan"])
def test_a_token_is_for_a_limited_time(tmp_path: Path, hours: str) -> None:
    done = run(tmp_path, "token", "krcs-officer", "--hours", hours)

    assert done.returncode == 2
    assert "'--hours'" in done.stderr


# --- whose tokens are taken ---------------------------------------------------------------------------------------------------------


def test_without_settings_the_tokens_of_this_home_are_taken(tmp_path: Path) -> None:
    made = verifier(Settings(home=tmp_path, log=None))

    assert (made.issuer, made.audience) == (ISSUER, AUDIENCE)


def test_an_issuer_is_taken_in_full_or_not_at_all(tmp_path: Path) -> None:
    local_verifier(tmp_path)
    full: dict[str, Any] = {
        "token_issuer": "https://id.example.org",
        "token_audience": "aid",
        "token_keys": str(tmp_path / "tokens" / "jwks.json"),
    }

    made = verifier(Settings(home=tmp_path, log="kafka://a:1", **full))
    assert (made.issuer, made.audience, made.keys.source) == tuple(full.values())
    for name in full:
        with pytest.raises(UsageError, match=f"^AIDTRAIL_{name.upper()}: not set"):
            verifier(Settings(home=tmp_path, log=None, **{**full, name: None}))
    with pytest.raises(UsageError, match="AIDTRAIL_TOKEN_ISSUER, AIDTRAIL_TOKEN_AUDIENCE, AIDTRAIL_TOKEN_KEYS: not set"):
        verifier(Settings(home=tmp_path, log="kafka://a:1"))


def test_a_key_set_that_cannot_be_read_is_said_at_start(tmp_path: Path) -> None:
    def settings(keys: str) -> Settings:
        return Settings(home=tmp_path, token_issuer="https://id.example.org", token_audience="aid", token_keys=keys)

    with pytest.raises(UsageError, match="expected a file with the issuer's public keys"):
        verifier(settings(str(tmp_path / "missing.json")))
    with pytest.raises(UnavailableError, match=r"http://127\.0\.0\.1:9/ cannot be read"):
        verifier(settings("http://127.0.0.1:9/"))


# --- the signing key ----------------------------------------------------------------------------------------------------------------


def test_a_local_token_is_good_in_its_own_home_until_it_expires(tmp_path: Path) -> None:
    token = issue(tmp_path / "home", "krcs-officer", hours=1, now=time.time())
    old = issue(tmp_path / "home", "krcs-officer", hours=1, now=time.time() - 3600 - LEEWAY_SECONDS)

    assert local_verifier(tmp_path / "home").subject(token) == "krcs-officer"
    with pytest.raises(TokenError, match="expired"):
        local_verifier(tmp_path / "home").subject(old)
    with pytest.raises(TokenError, match="a key that the issuer does not publish"):
        local_verifier(tmp_path / "another").subject(token)


def test_only_the_owner_can_read_the_signing_key(tmp_path: Path) -> None:
    issue(tmp_path, "krcs-officer", hours=1, now=time.time())
    local_verifier(tmp_path)
    key = tmp_path / "tokens" / "signing-key.pem"

    assert sorted(path.name for path in key.parent.iterdir()) == ["jwks.json", "signing-key.pem"]
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "PRIVATE" in key.read_text()
    assert '"d"' not in (key.parent / "jwks.json").read_text()
    key.chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others"):
        issue(tmp_path, "krcs-officer", hours=1, now=time.time())


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", EC_KEY], ids=len)
def test_a_signing_key_that_is_none_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokens").mkdir()
    key = tmp_path / "tokens" / "signing-key.pem"
    key.touch(0o600)
    key.write_bytes(content)

    with pytest.raises(UsageError, match="expected an Ed25519 key"):
        local_verifier(tmp_path)
    assert key.read_bytes() == content


def test_many_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    started = threading.Barrier(16)
    made: list[str] = []

    def start() -> None:
        started.wait()
        made.append(issue(tmp_path, "krcs-officer", hours=1, now=time.time()))
        local_verifier(tmp_path)

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verifier = local_verifier(tmp_path)

    assert [verifier.subject(token) for token in made] == ["krcs-officer"] * 16
    assert len(list((tmp_path / "tokens").iterdir())) == 2


def test_a_local_token_is_of_no_use_to_the_verifier_of_an_issuer(tmp_path: Path) -> None:
    local_verifier(tmp_path)
    token = issue(tmp_path, "krcs-officer", hours=1, now=time.time())
    configured = Verifier("https://id.example.org", AUDIENCE, Keys(str(tmp_path / "tokens" / "jwks.json")))

    with pytest.raises(TokenError, match="another issuer"):
        configured.subject(token)
