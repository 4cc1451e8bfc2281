"""Every setting, typed. Each is an environment variable with the prefix AIDTRAIL_; README lists them, and a test compares."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from aidtrail.errors import UsageError, expected_by

_PREFIX = r"^[a-z0-9][a-z0-9._-]{0,100}$"
_LISTEN = r"^[^:\s]+:[0-9]{1,5}$"
_PATTERNS = {_PREFIX: "small letters, digits and . _ -, a letter or digit first, at most 101", _LISTEN: "host:port, as 127.0.0.1:8080"}


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="AIDTRAIL_", frozen=True)

    home: Path = Field(Path.home() / ".aidtrail", description="Folder of the embedded PostgreSQL and of the ledger's local store")
    log: str | None = Field(
        None,
        description="Where events are kept: kafka://host:port,host:port or postgresql://user@host/database; the embedded server if unset",
    )
    views: str | None = Field(
        None, description="PostgreSQL database of the views: postgresql://user@host/database; the embedded server if unset"
    )
    topic_prefix: str = Field("donations", pattern=_PREFIX, description="Topics are named <prefix>.submitted and so on")
    listen: str = Field("127.0.0.1:8080", pattern=_LISTEN, description="Where the gateway serves HTTP: host:port")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Serve Prometheus metrics, /livez and /readyz at this port; off if unset"
    )
    metrics_host: str = Field("127.0.0.1", min_length=1, description="And at this address; in a container 0.0.0.0, for others to reach it")
    heartbeat_seconds: int | None = Field(
        None,
        ge=60,
        description="When the views stood still for so long, the timekeeper submits an event that is refused: silence is then an alarm. "
        "Off if unset",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Of the messages on stderr")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL", "SASL_PLAINTEXT"] = Field(
        "PLAINTEXT", description="As in Kafka's clients"
    )
    kafka_sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field("SCRAM-SHA-512", description="As in Kafka's clients")
    kafka_username: str | None = Field(None, description="For SASL")
    kafka_password: str | None = Field(None, description="For SASL", repr=False)
    kafka_ca_file: Path | None = Field(None, description="Certificates to trust, PEM; the system's if unset")
    token_issuer: str | None = Field(
        None,
        min_length=1,
        description="OIDC issuer of the access tokens that the gateway takes, as it stands in their iss. Unset: those of `aidtrail token`, "
        "which are for the embedded log only",
    )
    token_audience: str | None = Field(
        None,
        min_length=1,
        description="The gateway's name at the issuer, as it stands in the tokens' aud: a token that is for another service is refused",
    )
    token_keys: str | None = Field(
        None,
        min_length=1,
        description="The issuer's public keys, a JWKS: a file, or a URL with https (http on this machine only, where nobody can alter it). "
        "Read again when a token names a key that is not in it",
    )
    ledger_accounts: int = Field(
        20_000, ge=100, description="Donations that the ledger keeps in memory; the others are read from its store"
    )
    projector_accounts: int = Field(
        20_000, ge=100, description="Donations that the projector keeps in memory; the others are folded again from the views"
    )

    seal_key: Path | None = Field(
        None,
        description="Secret key of `aidtrail audit seal`, a file that `aidtrail audit seal-key` makes. `aidtrail up` seals too, if set",
    )
    seal_policy: Path | None = Field(
        None, description="Witnesses that must cosign what is sealed before it is published, a tlog-policy file; none if unset"
    )

    @field_validator("listen")
    @classmethod
    def _is_a_port(cls, listen: str) -> str:
        if int(listen.rpartition(":")[2]) > 65535:
            raise ValueError("host:port with a port up to 65535")
        return listen

    @property
    def kafka_security(self) -> dict[str, object]:
        """The security settings in kafka-python's names."""
        security: dict[str, object] = {"security_protocol": self.kafka_security_protocol}
        if self.kafka_security_protocol.startswith("SASL"):
            security |= {
                "sasl_mechanism": self.kafka_sasl_mechanism,
                "sasl_plain_username": self.kafka_username,
                "sasl_plain_password": self.kafka_password,
            }
        if self.kafka_ca_file is not None:
            security["ssl_cafile"] = str(self.kafka_ca_file)
        return security


def load() -> Settings:
    """The settings of the environment. Raises UsageError that names the variable, what was expected and what was found."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "AIDTRAIL_" + "_".join(str(part) for part in first["loc"]).upper()
        raise UsageError(f"{name}: expected {expected_by(first, _PATTERNS)}, found {first['input']!r:.64}") from None
