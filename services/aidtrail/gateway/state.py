"""What the handlers of one process share: who asks, the views, the way into the log. Opened with the application, closed with it."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID

import psycopg
from fastapi import Request
from psycopg_pool import ConnectionPool, PoolTimeout

from aidtrail.domain.authority import Person, sight
from aidtrail.domain.registry import Registry
from aidtrail.errors import TokenError, UnavailableError
from aidtrail.gateway import problems
from aidtrail.gateway.intake import Intake
from aidtrail.gateway.tokens import Verifier
from aidtrail.log import Log
from aidtrail.registry_reader import RegistryReader
from aidtrail.topics import Topics
from aidtrail.views import schema
from aidtrail.views.reader import Outcome, Reader, Sight, configure

logger = logging.getLogger(__name__)

FOLLOW_SECONDS = 1.0
POOL = 16


class Gateway:
    """`open_log` is called for each thread that needs a log of its own; the logs are closed by who opened them."""

    def __init__(self, open_log: Callable[[], Log], topics: Topics, views: str, verifier: Verifier) -> None:
        self._open_log = open_log
        self._topics = topics
        self._verifier = verifier
        self._log = open_log()
        self._registry = RegistryReader(open_log(), topics.registry)
        self._following = threading.Lock()
        self._followed_at = 0.0
        self._pool = ConnectionPool(
            views, min_size=1, max_size=POOL, open=False, kwargs=schema.CONNECTION, configure=configure, reconnect_timeout=5
        )
        self.intake: Intake
        self.stopping = False

    def open(self) -> None:
        """In the event loop. Raises UnavailableError when the log cannot be read; the views may come later."""
        self._follow()
        self.intake = Intake(self._log, self._topics, self.outcomes)
        self._pool.open()

    async def close(self) -> None:
        self.stopping = True
        await self.intake.close()
        self._registry.close()
        self._pool.close()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def registry(self) -> Registry:
        """As of the newest record, or of a second ago; older while the log cannot be reached."""
        if time.monotonic() - self._followed_at > FOLLOW_SECONDS and not self._following.locked():
            try:
                self._follow()
            except UnavailableError as error:
                logger.warning("gateway: the registry cannot be followed: %s", error)
        return self._registry.registry

    def _follow(self) -> None:
        with self._following:
            self._followed_at = time.monotonic()
            self._registry.follow()

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Reads the live build. Raises ViewsUnavailable when there is none, or no database."""
        try:
            with self._pool.connection(timeout=5.0) as connection:
                yield Reader(connection)
        except (psycopg.OperationalError, psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, PoolTimeout) as error:
            logger.warning("gateway: the views cannot be read: %s", " ".join(str(error).split()))
            self._pool.check()
            raise problems.ViewsUnavailable from None

    def outcomes(self, event_ids: Sequence[UUID]) -> Mapping[UUID, Outcome]:
        try:
            with self.reader() as views:
                return views.outcomes(event_ids)
        except problems.ViewsUnavailable:
            raise UnavailableError("the views cannot be read") from None

    def person(self, authorization: str | None) -> Person:
        """Who the access token says. Raises Unauthenticated."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise problems.Unauthenticated("expected the header Authorization: Bearer <access token>")
        try:
            actor_id = self._verifier.subject(token.strip())
        except TokenError as error:
            raise problems.Unauthenticated(str(error), headers={"WWW-Authenticate": 'Bearer error="invalid_token"'}) from None
        person = Person.of(self.registry(), actor_id)
        if person is None or person.retired:
            raise problems.Unauthenticated("the token's subject is no actor in service")
        return person

    def sight(self, person: Person) -> Sight | None:
        """What a person sees, for a query; None for everything."""
        seen = sight(person)
        if seen.everything:
            return None
        mechanisms = [each.mechanism_id for each in self._registry.registry.mechanisms.values() if each.party_id == seen.party_id]
        return Sight(seen.party_id, mechanisms, seen.observed)

    def readiness(self) -> dict[str, str]:
        """What this process depends on: 'ok', or what is wrong."""
        found = {"log": "ok", "views": "ok", "process": "stopping" if self.stopping else "ok"}
        try:
            self._follow()
        except UnavailableError as error:
            found["log"] = str(error)
        try:
            with self.reader() as views:
                if views.is_empty():
                    found["views"] = "no projector has run yet"
        except problems.ViewsUnavailable as error:
            found["views"] = error.title
        return found


def gateway(request: Request) -> Gateway:
    found: Gateway = request.app.state.gateway
    return found


def person(request: Request) -> Person:
    """Who asks."""
    return gateway(request).person(request.headers.get("authorization"))
