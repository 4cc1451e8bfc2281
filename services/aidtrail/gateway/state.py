"""What the handlers of one process share: who asks, the views, the way into the log. Opened with the application, closed with it."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from uuid import UUID

import psycopg
from fastapi import Request
from psycopg import sql
from psycopg_pool import ConnectionPool, PoolTimeout

from aidtrail.domain.authority import Person, sight
from aidtrail.domain.registry import Registry
from aidtrail.errors import TokenError, UnavailableError
from aidtrail.gateway import problems
from aidtrail.gateway.intake import ACKNOWLEDGE_SECONDS, Intake
from aidtrail.gateway.tokens import Verifier
from aidtrail.log import Log
from aidtrail.registry_reader import RegistryReader
from aidtrail.topics import Topics, require_write
from aidtrail.views import schema
from aidtrail.views.reader import Outcome, Reader, Sight, configure

logger = logging.getLogger(__name__)

FOLLOW_SECONDS = 1.0
STOP_SECONDS = 0.2
"""After which a thread that waits for the database notices that the service stops."""
LATE_SECONDS = 5.0
"""A log that does not say for so long where the registry ends is not well, although no call to it has failed yet."""
POOL = 16
THREADS = 32
"""For what handlers in the event loop have done in threads: asyncio's own number, six on two cores, is for computing."""
CONNECTION_SECONDS = 5.0
STATEMENT_SECONDS = 15
"""For any question to the views: who asked has given up by then, and the connection is for others."""
OUTAGE_SECONDS = 0.3
"""To wait for a connection to the views, while there was none the last time: otherwise an outage would hold up every thread."""


class Gateway:
    """`open_log` is called for each thread that needs a log of its own; the logs are closed by who opened them. A request waits for
    `acknowledge_seconds` for the log to take its event."""

    def __init__(
        self,
        open_log: Callable[[], Log],
        topics: Topics,
        views: str,
        verifier: Verifier,
        *,
        acknowledge_seconds: float = ACKNOWLEDGE_SECONDS,
    ) -> None:
        self._topics = topics
        self._acknowledge_seconds = acknowledge_seconds
        self._verifier = verifier
        self._log = open_log()
        self._registry = RegistryReader(open_log(), topics.registry)
        self._follower = threading.Thread(target=self._keep_following, name="registry", daemon=True)
        self._views = views
        self._listener = threading.Thread(target=self._keep_listening, name="views", daemon=True)
        self._followed_at = float("-inf")
        self._log_is_in_trouble = False
        self._stop = threading.Event()
        options = f"{schema.CONNECTION['options']} -c statement_timeout={STATEMENT_SECONDS}s"
        connection = {**schema.CONNECTION, "options": options}
        self._pool = ConnectionPool(
            views, min_size=1, max_size=POOL, open=False, kwargs=connection, configure=configure, reconnect_timeout=5
        )
        self._views_are_away = False
        self._checking = threading.Lock()
        self.intake: Intake

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def check(self, *, submits: bool = True) -> None:
        """Raises UnavailableError when the log cannot be read, or may not be written to; the views may come later. Before `open`."""
        self._follow()
        if submits:
            require_write(self._log, self._topics.submitted)

    def open(self) -> None:
        """In the event loop. Raises UnavailableError when the log cannot be read."""
        self._follow()
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "gateway"))
        self.intake = Intake(self._log, self._topics, self.outcomes, acknowledge_seconds=self._acknowledge_seconds)
        self._follower.start()
        self._listener.start()
        self._pool.open()

    def stop(self) -> None:
        """Say that it is stopping, and let nobody wait for long. From any thread."""
        self._stop.set()
        if hasattr(self, "intake"):
            self.intake.stop_waiting()

    async def close(self) -> None:
        self.stop()
        await self.intake.close()
        await asyncio.to_thread(self._follower.join, 1.0)
        await asyncio.to_thread(self._listener.join, 1.0)
        if not self._follower.is_alive():  # else it waits for the log, and ends with the process
            self._registry.close()
        self._pool.close()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def registry(self) -> Registry:
        """As of a second ago; older while the log cannot be reached."""
        return self._registry.registry

    def _keep_following(self) -> None:
        while not self._stop.wait(FOLLOW_SECONDS):
            try:
                self._follow()
            except Exception as error:  # whatever it is: the registry of before serves on, and readiness tells
                if not self._log_is_in_trouble:
                    logger.warning("gateway: the registry cannot be followed: %s", error)
                self._log_is_in_trouble = True
            else:
                if self._log_is_in_trouble:
                    logger.info("gateway: the registry is followed again")
                self._log_is_in_trouble = False

    def _keep_listening(self) -> None:
        """Have the intake look as soon as a projector has written. Where no notification comes, through some poolers, it looks all the
        same, a little later."""
        while not self.stopping:
            with suppress(UnavailableError, psycopg.Error), schema.connect(self._views) as connection:
                connection.autocommit = True
                connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(schema.WRITTEN)))
                while not self.stopping:
                    for _ in connection.notifies(timeout=STOP_SECONDS, stop_after=1):
                        self.intake.views_written()
            self._stop.wait(FOLLOW_SECONDS)

    def _follow(self) -> None:
        self._registry.follow()
        self._followed_at = time.monotonic()

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Reads the live build, as of one moment. Raises ViewsUnavailable when there is none, or no database."""
        try:
            with self._pool.connection(timeout=OUTAGE_SECONDS if self._views_are_away else CONNECTION_SECONDS) as connection:
                self._views_are_away = False
                with Reader(connection).snapshot() as views:
                    yield views
        except (psycopg.OperationalError, psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            logger.warning("gateway: the views cannot be read: %s", " ".join(str(error).split()))
            self._views_are_away = True
            if not isinstance(error, PoolTimeout) and self._checking.acquire(blocking=False):
                try:
                    self._pool.check()  # what broke one connection broke others
                finally:
                    self._checking.release()
            raise problems.ViewsUnavailable from None

    def outcomes(self, event_ids: Sequence[UUID]) -> Mapping[UUID, Outcome]:
        try:
            with self.reader() as views:
                return views.outcomes(event_ids)
        except problems.ViewsUnavailable:
            raise UnavailableError("the views cannot be read") from None

    async def person(self, authorization: str | None) -> Person:
        """Who the access token says. Raises Unauthenticated. A token that is new is looked at in a thread: its key may need fetching."""
        token = _bearer(authorization)
        actor_id = self._verifier.known_subject(token)
        if actor_id is None:
            actor_id = await asyncio.to_thread(self._subject, token)
        return self._in_service(actor_id)

    def require_person(self, authorization: str | None) -> None:
        """As `person`, in a thread. A stream asks before each page, so that it ends with its token and with the actor's service."""
        token = _bearer(authorization)
        self._in_service(self._verifier.known_subject(token) or self._subject(token))

    def _subject(self, token: str) -> str:
        try:
            return self._verifier.subject(token)
        except TokenError as error:
            raise problems.Unauthenticated(str(error), headers={"WWW-Authenticate": 'Bearer error="invalid_token"'}) from None

    def _in_service(self, actor_id: str) -> Person:
        person = Person.of(self.registry(), actor_id)
        if person is None or person.retired:
            raise problems.Unauthenticated("the token's subject is no actor in service")
        return person

    def sight(self, person: Person) -> Sight | None:
        """What a person sees by now, for a query; None for everything. A stream asks for each page, so that rights that end, end there."""
        seen = sight(Person.of(self.registry(), person.actor_id) or person)
        if seen.everything:
            return None
        mechanisms = [each.mechanism_id for each in self.registry().mechanisms.values() if each.party_id == seen.party_id]
        return Sight(seen.party_id, mechanisms, seen.observed)

    def readiness(self) -> dict[str, str]:
        """What this process depends on: 'ok', or what is wrong."""
        found = {"log": "ok", "views": "ok", "process": "stopping" if self.stopping else "ok"}
        silent_seconds = time.monotonic() - self._followed_at
        if self._log_is_in_trouble:
            found["log"] = "cannot be read"  # why is said in our own log: anybody may ask here
        elif silent_seconds > LATE_SECONDS:
            found["log"] = f"has not answered for {silent_seconds:.0f} s"
        try:
            with self.reader() as views:
                if views.is_empty():
                    found["views"] = "no projector has run yet"
        except problems.ViewsUnavailable as error:
            found["views"] = error.title
        return found


def _bearer(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise problems.Unauthenticated("expected the header Authorization: Bearer <access token>")
    return token


async def gateway(request: Request) -> Gateway:
    found: Gateway = request.app.state.gateway
    return found


async def person(request: Request) -> Person:
    """Who asks."""
    found: Gateway = request.app.state.gateway
    return await found.person(request.headers.get("authorization"))


async def known_query(request: Request) -> None:
    """Raises Malformed for a parameter that the path does not have: one that was passed over in silence would be a filter that does not
    filter."""
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    if not request.query_params.keys() <= known:
        raise problems.Malformed(where="query", expected=f"no parameters but {', '.join(sorted(known))}" if known else "no parameters")
