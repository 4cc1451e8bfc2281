"""Every metric, in one list, with its meaning and unit. No ids, names or donors in labels. Times are seconds, instants Unix time.

What a service counts while it works is below. What is read when Prometheus asks (lag, and what the views say of the money) is in
`collectors`, under the names at the end of this list. A sample of each says which process told it by `instance`: counters are to be
summed over instances, what is read from log or views is the same from everyone, so take the maximum.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from aidtrail.errors import UnavailableError

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter and histogram, of no use to Prometheus

_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# Every service

STEP_SECONDS = Histogram(
    "aidtrail_step_seconds",
    "Duration of one step of a batch: of a producer or gateway write, of a ledger poll, rule, write, commit, of a projector poll, load, "
    "fold, write, commit. The wait for the first record is in poll",
    ["service", "step"],
    buckets=_QUICK,
)
BATCH_RECORDS = Histogram(
    "aidtrail_batch_records",
    "Records in one batch: appended by a producer, gateway or ledger, or written by a projector in one transaction",
    ["service"],
    buckets=(1, 10, 100, 500, 1000, 2500, 5000, 10000, 20000),
)
OUTAGES = Counter("aidtrail_outages", "Times that a service lost the log or the database and tried again", ["service"])
APPENDED = Counter("aidtrail_appended_records", "Records of a producer, gateway or ledger that the log acknowledged", ["service"])
APPENDS_UNKNOWN = Counter("aidtrail_appends_unknown", "Appends that were not acknowledged in time; resolved by reading the log's tail")

# Gateway

REQUEST_SECONDS = Histogram(
    "aidtrail_gateway_request_seconds",
    "HTTP requests by route template ('none' where no route took it) and class of status (2xx, 4xx, 5xx), until the answer has begun; "
    "the seconds that a client asked to wait for the outcome are in it",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
REQUESTS_UNDER_WAY = Gauge("aidtrail_gateway_requests_under_way", "HTTP requests that have not been answered yet")

# Ledger

SUBMISSIONS_RULED = Counter("aidtrail_ledger_submissions_ruled", "Submissions that the ledger ruled on", ["outcome"])
REFUSALS = Counter("aidtrail_ledger_refusals", "Submissions refused, by the rule that refused them ('undecodable' among them)", ["reason"])
OFFSET_SURPRISES = Counter(
    "aidtrail_ledger_offset_surprises",
    "Appends that came to stand elsewhere than expected: another writer is at work; the state is reloaded",
)

# Projector

ENTRIES_PROJECTED = Counter("aidtrail_projector_entries", "Entries written to the views")
VOID = Counter(
    "aidtrail_void_entries", "Entries without effect, by why they are void: somebody else writes to `recorded`", ["reader", "reason"]
)
PARKED = Gauge("aidtrail_parked_donations", "Donations whose fold failed and that wait for a fix, in the partitions of this projector")
FENCES_LOST = Counter("aidtrail_projector_fences_lost", "Batches rolled back because another writer holds the position")
TIME_TO_VISIBLE = Histogram(
    "aidtrail_time_to_visible_seconds",
    "From the append of a submission to the commit of its effect in the views: the headline service level. The exemplar, the slowest of "
    "its batch, says where the entry stands in `recorded`",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
LAST_COMMIT = Gauge(
    "aidtrail_projector_last_commit_timestamp_seconds", "When this projector last wrote entries to the views; 0 before the first"
)

# Timekeeper

HEARTBEATS = Counter("aidtrail_timekeeper_heartbeats", "Heartbeats submitted, because nothing had come into the views for a while")
HEARTBEAT_SECONDS = Gauge(
    "aidtrail_timekeeper_heartbeat_interval_seconds", "How long the views may stand still until a heartbeat is submitted; 0: never"
)

# Collectors

READ_AT = Gauge(
    "aidtrail_collector_last_read_timestamp_seconds", "When what a collector tells was read; absent until it has been", ["collector"]
)
READ_SECONDS = Gauge("aidtrail_collector_read_seconds", "How long that took", ["collector"])
READ_FAILURES = Counter("aidtrail_collector_failures", "Times that what a collector tells could not be read", ["collector"])

# Audit

TIME_TO_SEALED = Histogram(
    "aidtrail_time_to_sealed_seconds",
    "From the append of the oldest entry that a checkpoint is the first to cover to the append of that checkpoint",
    buckets=(0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 5, 10, 30, 60, 300),
)
SEALED_AT = Gauge("aidtrail_sealed_timestamp_seconds", "When this process last published a checkpoint, in seconds since 1970")
SEALED_DIGEST_AT = Gauge(
    "aidtrail_sealed_digest_timestamp_seconds", "When this process last sealed the digest of the views as well; 0 before the first time"
)
SEALED_ENTRIES = Gauge("aidtrail_sealed_entries", "Entries that the newest checkpoint covers")
UNSEALED_ENTRIES = Gauge("aidtrail_unsealed_entries", "Entries that no checkpoint covers yet")

# Read when Prometheus asks


class Read(NamedTuple):
    """A gauge whose samples are read from elsewhere when Prometheus asks."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()


# Read from the log, under the names that lag tools and dashboards know

LAG = Read("kafka_consumergroup_lag", "Records that the group has still to read", ("consumergroup", "topic", "partition"))
GROUP_OFFSET = Read(
    "kafka_consumergroup_current_offset",
    "The next offset that the group will read, as it last said",
    ("consumergroup", "topic", "partition"),
)
END_OFFSET = Read("kafka_topic_partition_current_offset", "The offset that the next record will get", ("topic", "partition"))

# Read from the views. Amounts are in units of their currency, never added across currencies, oversight or contribution

AMOUNT = Read(
    "aidtrail_amount",
    "Sum over donations by stage: pledged, approved, in_flight, settled, returned, passed_on, held, received, acknowledged, utilised",
    ("oversight", "contribution", "currency", "stage"),
)
DONATIONS = Read("aidtrail_donations", "Donations by headline", ("oversight", "headline"))
APPROVALS_WAITING = Read("aidtrail_approvals_waiting", "Requests that a mechanism has not decided")
APPROVALS_WAITING_SINCE = Read(
    "aidtrail_approvals_waiting_since_timestamp_seconds", "When the oldest of them was made; absent when there is none"
)
APPROVALS_EXPIRING = Read(
    "aidtrail_approvals_expiring", "Granted approvals that expire within seven days, of donations that are not paid out"
)
UNACKNOWLEDGED = Read(
    "aidtrail_unacknowledged_amount",
    "Settled by the donor, not returned, and not acknowledged by the beneficiary; fees on the way are in it until all is acknowledged",
    ("contribution", "currency"),
)
UNACKNOWLEDGED_SINCE = Read(
    "aidtrail_unacknowledged_since_timestamp_seconds",
    "Since when, at least, the oldest of it waits: of each donation the first settlement after its last acknowledgement, else the last one",
    ("contribution", "currency"),
)
AUDITED_AT = Read(
    "aidtrail_audit_last_timestamp_seconds", "When the last replay (with --note) or rebuild ended; absent before the first", ("kind",)
)
AUDIT_DIFFERENCES = Read("aidtrail_audit_differences", "Differences that it found", ("kind",))
PARKED_IN_VIEWS = Read("aidtrail_views_parked_donations", "Parked donations of the live build, whoever owns their partitions")


@contextmanager
def appending(service: str, records: int) -> Iterator[None]:
    """Around one append of so many records: how long it takes, and whether it was acknowledged. Passes on what is raised."""
    BATCH_RECORDS.labels(service).observe(records)
    try:
        with STEP_SECONDS.labels(service, "write").time():
            yield
    except UnavailableError:  # nothing was appended, and that is known
        raise
    except BaseException:
        APPENDS_UNKNOWN.inc()
        raise
    APPENDED.labels(service).inc(records)


COSIGNATURES = Counter("aidtrail_seal_cosignatures", "Cosignatures that the seal asked its witnesses for", ["witness", "outcome"])
