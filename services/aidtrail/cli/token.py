"""`aidtrail token`: an access token for the embedded default. With an issuer of your own it is that issuer who says who is who."""

import sys
import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from aidtrail import config
from aidtrail.cli import registry
from aidtrail.cli.backends import backends
from aidtrail.config import Settings
from aidtrail.domain.authority import Person
from aidtrail.errors import UsageError
from aidtrail.gateway.local import issue, local_verifier
from aidtrail.gateway.tokens import Keys, Verifier

_NAMES = ("AIDTRAIL_TOKEN_ISSUER", "AIDTRAIL_TOKEN_AUDIENCE", "AIDTRAIL_TOKEN_KEYS")


def token(
    actor: Annotated[str, typer.Argument(metavar="ACTOR", help="An actor of the registry.")],
    hours: Annotated[float, typer.Option(min=0.01, max=720, help="How long it is valid.")] = 12,
) -> None:
    """Print an actor's token for the embedded log's gateway. Whoever has it can act as that actor."""
    settings = config.load()
    if settings.log is not None or settings.token_issuer is not None or settings.token_keys is not None:
        raise UsageError(
            "local tokens are for the embedded log only, where neither AIDTRAIL_LOG nor AIDTRAIL_TOKEN_ISSUER nor AIDTRAIL_TOKEN_KEYS is "
            "set: ask your issuer for a token"
        )
    with backends(settings) as opened:
        person = Person.of(registry.follow(opened.log, opened.topics), actor)
    if person is None or person.retired:
        found = "an actor that the registry does not know" if person is None else "an actor who is retired"
        raise UsageError(f"{actor!r:.66}: expected an actor in service, found {found}; 'aidtrail registry show' lists them")
    now = time.time()
    print(issue(settings.home, person.actor_id, hours=hours, now=now))
    until = datetime.fromtimestamp(now + hours * 3600, UTC)
    print(f"{person.actor_id} of {person.party_id}, valid until {until:%Y-%m-%d %H:%M} UTC", file=sys.stderr)


def verifier(settings: Settings) -> Verifier:
    """Whose tokens the gateway takes: the configured issuer's, or on the embedded log, where none is configured, its own. The key set is
    read, to say here what is wrong with it. Raises UsageError where the settings do not say, UnavailableError where it cannot be read."""
    values = (settings.token_issuer, settings.token_audience, settings.token_keys)
    if settings.log is None and values == (None, None, None):
        made = local_verifier(settings.home)
    else:
        issuer, audience, keys = values
        if issuer is None or audience is None or keys is None:
            missing = [name for name, value in zip(_NAMES, values, strict=True) if value is None]
            raise UsageError(
                f"{', '.join(missing)}: not set, so nobody can be told from anybody. Name the OIDC issuer of your organisation"
            )
        made = Verifier(issuer, audience, Keys(keys))
    made.keys.load()
    return made
