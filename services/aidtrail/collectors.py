"""What is read when Prometheus asks: lag, from the log, and figures of the donations, from the views.

A scrape never waits long and never fails because log or database do: what was read last is told again for a while, then nothing. Reading
is bounded by time: at most once in so many seconds, and never more than a twentieth of the time.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, LiteralString

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from psycopg import IsolationLevel

from aidtrail import metrics
from aidtrail.errors import UnavailableError
from aidtrail.log import Log
from aidtrail.metrics import Read
from aidtrail.views import schema

logger = logging.getLogger(__name__)

LAG_SECONDS = 5.0
FACTS_SECONDS = 15.0
WAIT_SECONDS = 1.0
"""How long a scrape waits for what is being read; then it gets what was read before."""
STALE_SECONDS = 60.0
"""After so long without a successful reading nothing is told: no figure is better than an old one that looks new."""
SHARE = 20

Sample = tuple[Read, tuple[str, ...], float]
"""A gauge, the values of its labels, and its value."""


class Cached(Collector):
    """Tells what `read` returns, which is called in a thread of its own."""

    def __init__(
        self, name: str, read: Callable[[], Iterable[Sample]], every_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._read = read
        self._every_seconds = every_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._reading: threading.Thread | None = None
        self._next_at = self._read_at = clock()
        self._samples: list[Sample] = []
        metrics.READ_FAILURES.labels(name)

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            if self._reading is None and self._clock() >= self._next_at:
                self._reading = threading.Thread(target=self._refresh, name=f"collector of {self._name}", daemon=True)
                self._reading.start()
            reading = self._reading
        if reading is not None:
            reading.join(WAIT_SECONDS)
        with self._lock:
            fresh = self._clock() - self._read_at <= max(STALE_SECONDS, 4 * self._every_seconds)
            samples = self._samples if fresh else []
        families: dict[Read, GaugeMetricFamily] = {}
        for told, labels, value in samples:
            if told not in families:
                families[told] = GaugeMetricFamily(told.name, told.meaning, labels=told.labels)
            families[told].add_metric(labels, value)
        yield from families.values()

    def _refresh(self) -> None:
        start = self._clock()
        samples: list[Sample] | None = None
        try:
            samples = list(self._read())
        except Exception as error:  # whatever it is, the other metrics must be told
            metrics.READ_FAILURES.labels(self._name).inc()
            logger.warning("metrics: %s cannot be read: %s", self._name, " ".join(str(error).split()))
        seconds = self._clock() - start
        with self._lock:
            self._next_at = start + max(self._every_seconds, SHARE * seconds)
            self._reading = None
            if samples is not None:
                self._samples, self._read_at = samples, start
                metrics.READ_AT.labels(self._name).set_to_current_time()
                metrics.READ_SECONDS.labels(self._name).set(seconds)


def lag(log: Log, groups: Mapping[str, str]) -> Iterator[Sample]:
    """How far each group is behind the end of its topic; `groups` says which reads what. A group that this process may not ask for is left
    out. Raises UnavailableError when nothing can be told of any."""
    failed: UnavailableError | None = None
    told = 0
    for group, topic in groups.items():
        try:
            ends, offsets = log.end_offsets(topic), log.committed(group, topic)
        except UnavailableError as error:
            failed = error
            continue
        told += 1
        for partition, end in ends.items():
            offset = offsets.get(partition, 0)
            where = topic, str(partition)
            yield metrics.END_OFFSET, where, end
            yield metrics.GROUP_OFFSET, (group, *where), offset
            yield metrics.LAG, (group, *where), max(end - offset, 0)
    if failed is not None and not told:
        raise failed


STAGES = ("pledged", "approved", "in_flight", "settled", "returned", "passed_on", "held", "received", "acknowledged", "utilised")
QUERIES: Mapping[str, LiteralString] = {
    "amounts": """
        SELECT oversight, contribution, currency, sum(pledged), sum(approved), sum(in_flight), sum(settled), sum(returned),
               sum(passed_on), sum(held), sum(received), sum(acknowledged), sum(utilised)
        FROM live.donations JOIN live.amounts USING (donation_id) GROUP BY 1, 2, 3""",
    "donations": "SELECT oversight, headline, count(*) FROM live.donations GROUP BY 1, 2",
    "waiting": """
        SELECT count(*), extract(epoch FROM min(requested_on)) FROM live.approvals JOIN live.donations USING (donation_id)
        WHERE state = 'pending' AND headline NOT IN ('closed', 'withdrawn', 'expired')""",
    "expiring": """
        SELECT count(*) FROM live.approvals JOIN live.donations USING (donation_id)
        WHERE state = 'granted' AND valid_until BETWEEN now() AND now() + interval '7 days'
          AND (donation_id IN (SELECT donation_id FROM live.amounts WHERE held > 0)
               OR disbursement <> 'full' AND headline NOT IN ('withdrawn', 'expired')) AND headline <> 'closed'""",
    "unacknowledged": """
        WITH money AS (
            SELECT donation_id, contribution, currency, settled - returned - acknowledged AS amount,
                   receipt <> 'acknowledged' AND headline <> 'closed' AND settled - returned > acknowledged AS waits
            FROM live.donations JOIN live.amounts USING (donation_id) WHERE oversight = 'managed'
        ), moved AS (
            SELECT donation_id, recorded_at, event_type = 'DisbursementSettled' AS settled,
                   max(recorded_at) FILTER (WHERE event_type = 'ReceiptAcknowledged') OVER (PARTITION BY donation_id) AS acknowledged_at
            FROM live.entries WHERE donation_id IN (SELECT donation_id FROM money WHERE waits) AND outcome = 'admitted'
              AND event_type IN ('DisbursementSettled', 'ReceiptAcknowledged')
        ), since AS (
            SELECT donation_id, coalesce(
                       min(recorded_at) FILTER (WHERE acknowledged_at IS NULL OR recorded_at > acknowledged_at), max(recorded_at)) AS at
            FROM moved WHERE settled GROUP BY 1
        )
        SELECT contribution, currency, coalesce(sum(amount) FILTER (WHERE waits), 0), extract(epoch FROM min(at) FILTER (WHERE waits))
        FROM money LEFT JOIN since USING (donation_id) GROUP BY 1, 2""",
    "parked": "SELECT count(*) FROM live.parked",
    "audits": """
        SELECT DISTINCT ON (kind) kind, extract(epoch FROM finished_at), differences FROM live.audits ORDER BY kind, finished_at DESC""",
}
"""One query for each fact. No table of sums is kept: sums are for who looks, not for the record."""


def facts(conninfo: str) -> Iterator[Sample]:
    """What the live build says of all donations together, at one moment; nothing where there is no build yet. Raises UnavailableError."""
    with schema.connect(conninfo) as connection:
        connection.read_only = True
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.execute("SET LOCAL statement_timeout = '30s'")
        if schema.live_build(connection) is None:
            return
        rows: dict[str, Any] = {name: connection.execute(query).fetchall() for name, query in QUERIES.items()}
    for oversight, contribution, currency, *sums in rows["amounts"]:
        for stage, amount in zip(STAGES, sums, strict=True):
            yield metrics.AMOUNT, (oversight, contribution, currency, stage), float(amount)
    for oversight, headline, count in rows["donations"]:
        yield metrics.DONATIONS, (oversight, headline), count
    [(waiting, since)] = rows["waiting"]
    yield metrics.APPROVALS_WAITING, (), waiting
    if since is not None:
        yield metrics.APPROVALS_WAITING_SINCE, (), float(since)
    yield metrics.APPROVALS_EXPIRING, (), rows["expiring"][0][0]
    for contribution, currency, amount, at in rows["unacknowledged"]:
        yield metrics.UNACKNOWLEDGED, (contribution, currency), float(amount)
        if at is not None:
            yield metrics.UNACKNOWLEDGED_SINCE, (contribution, currency), float(at)
    yield metrics.PARKED_IN_VIEWS, (), rows["parked"][0][0]
    for kind, at, differences in rows["audits"]:
        yield metrics.AUDITED_AT, (kind,), float(at)
        yield metrics.AUDIT_DIFFERENCES, (kind,), differences
