"""What every long-running service shares: turn after turn until it is told to stop, riding out outages."""

import logging
from collections.abc import Callable
from threading import Event
from typing import Protocol

from aidtrail import metrics
from aidtrail.errors import UnavailableError

logger = logging.getLogger(__name__)

MAX_WAIT_SECONDS = 5.0


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


def run(service: Service, stop: Event, ready: Callable[[], None] = lambda: None) -> None:
    """Turn until `stop` is set, then close. The first turn must succeed (a wrong password ends the process with one clear line); a later
    outage is waited out, with pauses that double up to five seconds. The turn under way is always finished: no batch is half done."""
    try:
        service.turn()
        ready()
        wait_seconds = 0.1
        while not stop.is_set():
            try:
                service.turn()
                wait_seconds = 0.1
            except UnavailableError as error:
                metrics.OUTAGES.labels(service.name).inc()
                logger.warning("%s: %s; trying again in %.1f s", service.name, error, wait_seconds)
                service.reset()
                stop.wait(wait_seconds)
                wait_seconds = min(2 * wait_seconds, MAX_WAIT_SECONDS)
    finally:
        service.close()


def drain(service: Service, until: Callable[[], bool]) -> int:
    """Turn until a turn finds nothing to do and `until` holds; returns the records worked on. For one-off runs and tests."""
    worked = 0
    while True:
        done = service.turn()
        worked += done
        if not done and until():
            return worked
