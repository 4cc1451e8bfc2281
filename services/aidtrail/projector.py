"""The projector: for each partition of `recorded` that this process owns, read, decode, fold, write one transaction."""

import logging
import time
from collections.abc import Mapping

from aidtrail import metrics
from aidtrail.domain.fold import apply
from aidtrail.errors import FenceLostError, UnavailableError
from aidtrail.log import Log
from aidtrail.projection import MAX_BATCH, Apply, Projection
from aidtrail.service import Watch
from aidtrail.topics import Topics
from aidtrail.views import schema
from aidtrail.views.writer import Writer

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
PUBLISH_SECONDS = 1.0


class Projector:
    """The loop. Follows the live build: when another goes live, it notices at its next turn and goes on in that one."""

    name = "projector"

    def __init__(
        self,
        log: Log,
        topics: Topics,
        conninfo: str,
        *,
        group: str,
        apply: Apply = apply,
        max_batch: int = MAX_BATCH,
        max_accounts: int = 20_000,
    ) -> None:
        self._topics = topics
        self._conninfo = conninfo
        self._group = group
        self._apply = apply
        self._max_batch = max_batch
        self._max_accounts = max_accounts
        self._log = log
        self._partitions = topics.require(log)
        self._reader = log.reader(topics.recorded)
        self._watch = Watch(log, topics.recorded)
        self._membership = log.join(group, topics.recorded)
        self._projection: Projection | None = None
        self._mine: frozenset[int] = frozenset()
        self._busy = False
        self._published: dict[int, int] = {}
        self._published_at = 0.0

    def turn(self) -> int:
        try:
            return self._turn(self._open())
        except FenceLostError as error:
            metrics.FENCES_LOST.inc()
            logger.warning("projector: %s; nothing was written, claiming again", error)
            self.reset()
            return 0

    def reset(self) -> None:
        self._mine = frozenset()
        if self._projection is not None:
            self._projection.close()
            self._projection = None

    def close(self) -> None:
        self._membership.close()
        self.reset()
        self._reader.close()

    def _turn(self, projection: Projection) -> int:
        self._follow_membership(projection)
        written = self._positions(projection)
        with _STEP["poll"].time():
            records = self._reader.poll(self._max_batch, 0.0 if self._busy else POLL_SECONDS)
        records = {partition: batch for partition, batch in records.items() if partition in self._mine}
        self._busy = bool(records)
        if records:
            projected = projection.project(records)
        else:
            projection.rest()
            # All that was read is written; a transaction's marker, which is never delivered, is no lag.
            projected, written = 0, {number: at for number, at in self._reader.positions().items() if number in self._mine}
            self._watch.look()
        self._publish(written)
        return projected

    def _publish(self, written: Mapping[int, int]) -> None:
        """Tell lag tools how far the views are, at most once a second."""
        now = time.monotonic()
        if written != self._published and now - self._published_at >= PUBLISH_SECONDS:
            with _STEP["commit"].time():
                self._membership.commit(written)
            self._published, self._published_at = dict(written), now

    def _positions(self, projection: Projection) -> dict[int, int]:
        return {partition: projection.next_offset(partition) for partition in self._mine}

    def _open(self) -> Projection:
        if self._projection is None:
            with schema.outages():
                with schema.connect(self._conninfo) as connection:
                    build = schema.prepare(connection, self._partitions)
                writer = Writer(self._conninfo, build, follows_live=True)
            self._projection = Projection(writer, self._partitions, apply=self._apply, max_accounts=self._max_accounts, live=True)
            logger.info("projector: writing to %s", build)
        return self._projection

    def _follow_membership(self, projection: Projection) -> None:
        owned = self._membership.owned()
        if owned == self._mine:
            return
        for partition in self._mine - owned:
            projection.release(partition)
        for partition in owned - self._mine:
            projection.claim(partition)
        positions = {partition: projection.next_offset(partition) for partition in owned}
        if ahead := ahead_of_log(positions, self._log.end_offsets(self._topics.recorded)):
            raise UnavailableError(ahead)
        self._mine = owned
        self._reader.assign(positions)
        logger.info("projector: partitions %s", ", ".join(map(str, sorted(owned))) or "none")


def ahead_of_log(positions: Mapping[int, int], ends: Mapping[int, int]) -> str | None:
    """What to say of views that stand at these positions of a log that ends there; None where none is beyond the end. A projector would
    wait there, and take what comes for what it never saw."""
    beyond = [
        f"partition {partition} is at {at:,} of {ends.get(partition, 0):,}"
        for partition, at in sorted(positions.items())
        if at > ends.get(partition, 0)
    ]
    if not beyond:
        return None
    return (
        f"the views are ahead of the log, {', '.join(beyond)}: they belong to another log, or it was restored. Set AIDTRAIL_VIEWS to those "
        "of this log, or to an empty database, where 'aidtrail project' builds them anew"
    )


_STEP = {step: metrics.STEP_SECONDS.labels("projector", step) for step in ("poll", "commit")}


def unpark(conninfo: str) -> dict[str, str | None]:
    """Fold every parked donation of the live build again; returns for each why it stays parked, or None where it is back."""
    with schema.connect(conninfo) as connection:
        build = schema.live_build(connection)
    if build is None:
        return {}
    writer = Writer(conninfo, build, follows_live=True)
    projection = Projection(writer, partitions=0)
    try:
        return {donation_id: projection.unpark(donation_id, partition) for donation_id, partition in writer.parked().items()}
    finally:
        projection.close()
