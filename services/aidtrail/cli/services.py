"""The services: `up` runs all, `ledger`, `project`, `timekeeper` and `serve` one each. SIGTERM and Ctrl-C stop them cleanly."""

import logging
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import Annotated, Literal

import typer
from prometheus_client import REGISTRY

from aidtrail import collectors, config, logs, probes, service
from aidtrail.audit import cuts
from aidtrail.audit.cosigners import Cosigners
from aidtrail.audit.keys import read_key
from aidtrail.audit.note import ED25519
from aidtrail.audit.policy import read_policy
from aidtrail.audit.seal import Sealer
from aidtrail.cli import registry, token
from aidtrail.cli.backends import Backends, backends, public
from aidtrail.config import Settings
from aidtrail.domain.events import Actor
from aidtrail.errors import UsageError
from aidtrail.gateway.server import Server
from aidtrail.gateway.state import Gateway
from aidtrail.ledger import Ledger
from aidtrail.projector import Projector, unpark
from aidtrail.routes import SERVICES
from aidtrail.service import Pulse, Service
from aidtrail.timekeeper import Timekeeper

logger = logging.getLogger(__name__)

TIMEKEEPER = Actor(actor_id="timekeeper", party_id="AIDTRAIL", role="timekeeper")
Make = Callable[[Event], Service]
Which = Literal["all", "pledges", "approvals", "disbursements", "receipts", "status"]


def up() -> None:
    """Run the whole pipeline in one process. Ledger, projector, timekeeper and gateway, on the embedded PostgreSQL if nothing else is set;
    and the seal, if it has a key."""
    settings = _prepared()
    with backends(settings, create=True) as opened, stopping() as stop:
        if settings.log is None:
            registry.load(opened.log, opened.topics, registry.OPERATOR)
        logger.info("log: %s", public(settings.log) or f"embedded PostgreSQL in {settings.home}")
        logger.info("views: %s", public(settings.views) or f"embedded PostgreSQL in {settings.home}")
        made = makers(opened)
        if settings.seal_key is None:
            del made["sealer"]
        try:
            token.verifier(settings)
        except UsageError as error:
            logger.warning("gateway: not served: %s", error)
            del made["gateway"]
        _collect(opened, list(made))
        running = Running(made, stop, _probed(settings, made))

        def advise() -> None:
            logger.info("running: %s. Stop with Ctrl-C", ", ".join(made))
            if "gateway" in made:
                logger.info("HTTP: http://%s/openapi.json describes it, /readyz says whether it is ready", settings.listen)
            logger.info("in another terminal, with the same settings: aidtrail submit FILE, aidtrail list, aidtrail doctor")

        running.start(advise)
        stop.wait()
        running.join()
    logger.info("stopped")


def ledger() -> None:
    """Rule on what is submitted. Run as many as there are partitions, at most."""
    serve_one("ledger")


def project(
    unpark_: Annotated[bool, typer.Option("--unpark", help="Fold parked donations again, say what became of each, and end.")] = False,
) -> None:
    """Keep the views up to date. Run as many as there are partitions, at most."""
    if not unpark_:
        serve_one("projector")
        return
    settings = _prepared()
    with backends(settings) as opened:
        found = unpark(opened.views)
    for donation_id, reason in found.items():
        print(f"{donation_id}: {'is back' if reason is None else f'stays parked: {reason}'}")
    print(f"{len(found)} parked, {sum(reason is None for reason in found.values())} of them are back", file=sys.stderr)
    if any(reason is not None for reason in found.values()):
        raise typer.Exit(1)


def timekeeper() -> None:
    """Submit PledgeExpired and ApprovalExpired when they fall due. Safe to run twice."""
    serve_one("timekeeper")


def serve(
    which: Annotated[
        Which, typer.Argument(metavar="[SERVICE]", help="all, pledges, approvals, disbursements, receipts or status.")
    ] = "all",
) -> None:
    """Serve HTTP: submit events, read donations. Each service can run alone, with rights of its own; all of them read."""
    serve_one("gateway", {"all": SERVICES, "status": ()}.get(which, (which,)))


def makers(opened: Backends, chosen: Sequence[str] = SERVICES) -> dict[str, Make]:
    """How each service is made, by name; the gateway with the chosen ones of its own. Each has a log of its own."""
    settings, topics = opened.settings, opened.topics

    def ledger(stop: Event) -> Service:
        folder, group = settings.home / "ledger", f"{settings.topic_prefix}-ledger"
        return Ledger(opened.open_log(), topics, folder, group=group, max_accounts=settings.ledger_accounts)

    def projector(stop: Event) -> Service:
        group = f"{settings.topic_prefix}-projector"
        return Projector(opened.open_log(), topics, opened.views, group=group, max_accounts=settings.projector_accounts)

    def timekeeper(stop: Event) -> Service:
        heartbeat = settings.heartbeat_seconds
        return Timekeeper(opened.open_log(), topics, opened.views, stop.wait, actor=TIMEKEEPER, heartbeat_seconds=heartbeat)

    def gateway(stop: Event) -> Service:
        shared = Gateway(opened.open_log, topics, opened.views, token.verifier(settings))
        return Server(shared, topics, settings.listen, chosen)

    def sealer(stop: Event) -> Service:
        if settings.seal_key is None:
            raise UsageError("AIDTRAIL_SEAL_KEY: expected the file of a key, found nothing; make one with 'aidtrail audit seal-key'")
        key, cosigners = read_key(settings.seal_key, ED25519), None
        if settings.seal_policy is not None:
            cosigners = Cosigners(read_policy(settings.seal_policy), key.verifier)
        live_cut = partial(cuts.of_live, opened.views) if settings.views or settings.log is None else None
        return Sealer(opened.open_log(), topics, key, settings.home / "seal", cosign=cosigners, live_cut=live_cut)

    return {"ledger": ledger, "projector": projector, "timekeeper": timekeeper, "gateway": gateway, "sealer": sealer}


class Running:
    """Services in threads of this process. If one of them ends with an error, `stop` is set for all, and `join` raises it."""

    def __init__(self, made: dict[str, Make], stop: Event, pulses: Mapping[str, Pulse] | None = None) -> None:
        self._stop = stop
        self._pulses = pulses or {}
        self._errors: list[BaseException] = []
        # Made here, one after the other, so that what cannot be opened is said before anything runs.
        self._services: list[Service] = []
        try:
            for make in made.values():
                self._services.append(make(stop))
        except BaseException:
            for service_made in self._services:
                service_made.close()
            raise
        self._threads: list[Thread] = []

    def start(self, ready: Callable[[], None] = lambda: None) -> None:
        """Start all; `ready` is called once ledger and projector have had their first turn. The timekeeper's ends with its wait."""
        waiting = {running.name for running in self._services} - {"timekeeper"}

        def one_is_ready(name: str) -> None:
            waiting.discard(name)
            if not waiting and name != "timekeeper":
                ready()

        for running in self._services:
            thread = Thread(target=self._run, args=(running, lambda name=running.name: one_is_ready(name)), name=running.name)
            self._threads.append(thread)
            thread.start()

    def join(self) -> None:
        """Wait until all have ended."""
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _run(self, running: Service, ready: Callable[[], None]) -> None:
        try:
            service.run(running, self._stop, ready, self._pulses.get(running.name))
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()


def serve_one(name: str, chosen: Sequence[str] = SERVICES) -> None:
    settings = _prepared()
    pulses = _probed(settings, [name])
    with backends(settings, create=True) as opened, stopping() as stop:
        _collect(opened, [name])
        service.run(
            makers(opened, chosen)[name](stop),
            stop,
            lambda: logger.info("%s: running on %s", name, public(settings.log) or "the embedded log"),
            pulses[name],
        )
    logger.info("%s: stopped", name)


def _collect(opened: Backends, names: Sequence[str]) -> None:
    """Let this process tell lag and what the views say, if it serves metrics."""
    settings, topics = opened.settings, opened.topics
    if settings.metrics_port is None:
        return
    if not {"ledger", "projector"}.isdisjoint(names):
        groups = {f"{settings.topic_prefix}-ledger": topics.submitted, f"{settings.topic_prefix}-projector": topics.recorded}
        log = opened.open_log()
        REGISTRY.register(collectors.Cached("lag", lambda: collectors.lag(log, groups), collectors.LAG_SECONDS))
    if "projector" in names:
        REGISTRY.register(collectors.Cached("views", lambda: collectors.facts(opened.views), collectors.FACTS_SECONDS))


def _prepared() -> Settings:
    settings = config.load()
    logs.to_stderr(settings.log_level)
    return settings


def _probed(settings: Settings, names: Iterable[str]) -> dict[str, Pulse]:
    """A pulse for each service of this process, which its probes tell if the settings want them."""
    pulses = {name: Pulse() for name in names}
    if settings.metrics_port is not None:
        probes.serve(settings.metrics_host, settings.metrics_port, pulses)
    return pulses


@contextmanager
def stopping(signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> Iterator[Event]:
    """An event that SIGTERM and Ctrl-C set."""
    stop = Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
