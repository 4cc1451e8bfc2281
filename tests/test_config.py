"""Settings: each is an environment variable, typed; a wrong one is named."""

from pathlib import Path

import pytest

from aidtrail import config
from aidtrail.config import Settings
from aidtrail.errors import UsageError


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIDTRAIL_LOG", "kafka://a:1,b:2")
    monkeypatch.setenv("AIDTRAIL_LEDGER_ACCOUNTS", "500")

    settings = config.load()

    assert settings.log == "kafka://a:1,b:2"
    assert settings.ledger_accounts == 500


def test_without_an_environment_everything_is_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"AIDTRAIL_{name.upper()}", raising=False)

    settings = config.load()

    assert (settings.log, settings.views, settings.metrics_port) == (None, None, None)
    assert settings.home == Path.home() / ".aidtrail"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("AIDTRAIL_METRICS_PORT", "http", "a whole number"),
        ("AIDTRAIL_LEDGER_ACCOUNTS", "3", "greater than or equal to 100"),
        ("AIDTRAIL_TOPIC_PREFIX", "no spaces please", "small letters, digits and . _ -, a letter or digit first, at most 101"),
        ("AIDTRAIL_LISTEN", "8080", "host:port, as 127.0.0.1:8080"),
        ("AIDTRAIL_LISTEN", "127.0.0.1:80800", "host:port with a port up to 65535"),
        ("AIDTRAIL_LOG_LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected_and_found(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(UsageError) as refused:
        config.load()

    assert str(refused.value) == f"{name}: expected {expected}, found '{value}'"


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIDTRAIL_KAFKA_PASSWORD", "open sesame")

    assert "open sesame" not in repr(config.load())


def test_security_settings_have_the_names_of_kafkas_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIDTRAIL_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("AIDTRAIL_KAFKA_USERNAME", "aidtrail")
    monkeypatch.setenv("AIDTRAIL_KAFKA_PASSWORD", "open sesame")
    monkeypatch.setenv("AIDTRAIL_KAFKA_CA_FILE", "/etc/ssl/kafka.pem")

    assert config.load().kafka_security == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "aidtrail",
        "sasl_plain_password": "open sesame",
        "ssl_cafile": "/etc/ssl/kafka.pem",
    }
