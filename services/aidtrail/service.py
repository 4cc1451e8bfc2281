"""What every long-running service shares: turn after turn until it is told to stop, riding out outages."""

import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Protocol

from aidtrail import metrics
from aidtrail.errors import UnavailableError
from aidtrail.log import Log

logger = logging.getLogger(__name__)

MAX_WAIT_SECONDS = 5.0
COLLECT_SECONDS = 10.0
COLLECT_ALL_SECONDS = 300.0
LOOK_SECONDS = 10.0
"""How often a service that has nothing to do asks whether the log is there."""
STUCK_SECONDS = 300.0
"""No turn takes so long once the first is done: a client library waits for something that will not come, and a restart helps."""


class Service(Protocol):
    name: str

    def turn(self) -> int:
        """Do what there is to do, or wait for it a moment; returns the number of records worked on.

        Raises UnavailableError in an outage.
        """

    def reset(self) -> None:
        """Drop all state that an outage may have made doubtful; the next turn reads it again."""

    def close(self) -> None:
        """Leave the group and free all resources. Never raises."""


class Pulse:
    """How a service is, for those who watch it from another thread. `trouble` is for whether to rely on it now, `stuck` for whether to
    restart it; None where all is well."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turned_at: float | None = None
        self._trouble: str | None = "starting"

    def turned(self, trouble: str | None = None) -> None:
        self._turned_at, self._trouble = self._clock(), trouble

    def trouble(self) -> str | None:
        return self.stuck() or self._trouble

    def stuck(self) -> str | None:
        """A first turn may read a whole log: it counts as starting, and takes as long as it takes."""
        silent_seconds = 0.0 if self._turned_at is None else self._clock() - self._turned_at
        return f"stuck: no turn has ended for {silent_seconds:.0f} s" if silent_seconds > STUCK_SECONDS else None


class Watch:
    """Tells a service that finds nothing to read whether there is nothing, or no log: a reader rides an outage out without a word."""

    def __init__(self, log: Log, topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._topic, self._clock = log, topic, clock
        self._looked_at = clock()

    def look(self) -> None:
        """Ask the log, if LOOK_SECONDS have passed since it last answered. Raises UnavailableError when it does not."""
        if self._clock() - self._looked_at >= LOOK_SECONDS:
            self._log.end_offsets(self._topic)
            self._looked_at = self._clock()


def run(service: Service, stop: Event, ready: Callable[[], None] = lambda: None, pulse: Pulse | None = None) -> None:
    """Turn until `stop` is set, then close. The first turn must succeed (a wrong password ends the process with one clear line); a later
    outage is waited out, with pauses that double up to five seconds. The turn under way is always finished: no batch is half done."""
    pulse = pulse or Pulse()
    outages = metrics.OUTAGES.labels(service.name)
    try:
        with young_garbage_only() as collect:
            service.turn()
            pulse.turned()
            ready()
            wait_seconds = 0.1
            while not stop.is_set():
                try:
                    service.turn()
                    pulse.turned()
                    wait_seconds = 0.1
                    collect()
                except UnavailableError as error:
                    pulse.turned(str(error))
                    outages.inc()
                    logger.warning("%s: %s; trying again", service.name, error, extra={"wait_seconds": wait_seconds})
                    service.reset()
                    gc.collect()
                    stop.wait(wait_seconds)
                    wait_seconds = min(2 * wait_seconds, MAX_WAIT_SECONDS)
    finally:
        service.close()


def drain(service: Service, until: Callable[[], bool]) -> int:
    """Turn until a turn finds nothing to do and `until` holds; returns the records worked on. For one-off runs and tests."""
    worked = 0
    with young_garbage_only() as collect:
        while True:
            done = service.turn()
            worked += done
            collect()
            if not done and until():
                return worked


@contextmanager
def young_garbage_only() -> Iterator[Callable[[], None]]:
    """Inside, rings of garbage are looked for every ten seconds, by the function yielded, among the objects that are new since the last
    times, and every five minutes among all: a connection that a gateway kept open is older than that when it becomes garbage.

    What services keep for long is frozen data without rings, which reference counts free. Left to itself the collector walks through all of
    it again and again: a third of a projector's time. To walk through it once took 1.2 to 1.7 s for one with 20,000 donations in memory.
    """
    collected_at = all_collected_at = time.monotonic()

    def collect() -> None:
        nonlocal collected_at, all_collected_at
        now = time.monotonic()
        if now - all_collected_at > COLLECT_ALL_SECONDS:
            gc.collect()
            collected_at = all_collected_at = now
        elif now - collected_at > COLLECT_SECONDS:
            gc.collect(1)
            collected_at = now

    gc.disable()
    try:
        yield collect
    finally:
        gc.enable()
