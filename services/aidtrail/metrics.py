"""Every metric, in one list, with its meaning and unit. No ids, names or donors in labels."""

from prometheus_client import Counter, Gauge, Histogram

SUBMISSIONS_RULED = Counter("aidtrail_ledger_submissions_ruled", "Submissions that the ledger ruled on", ["outcome"])
REFUSALS = Counter("aidtrail_ledger_refusals", "Submissions refused, by the rule that refused them ('undecodable' among them)", ["reason"])
OFFSET_SURPRISES = Counter(
    "aidtrail_ledger_offset_surprises",
    "Appends that came to stand elsewhere than expected: another writer is at work; the state is reloaded",
)
APPENDS_UNKNOWN = Counter("aidtrail_appends_unknown", "Appends that were not acknowledged in time; resolved by reading the log's tail")
ENTRIES_PROJECTED = Counter("aidtrail_projector_entries", "Entries written to the views")
VOID = Counter(
    "aidtrail_void_entries", "Entries without effect, by why they are void: somebody else writes to `recorded`", ["reader", "reason"]
)
PARKED = Gauge("aidtrail_parked_donations", "Donations whose fold failed and that wait for a fix, in the partitions of this projector")
FENCES_LOST = Counter("aidtrail_projector_fences_lost", "Batches rolled back because another writer holds the position")
LAG = Gauge("kafka_consumergroup_lag", "Records that the group has still to read", ["consumergroup", "topic", "partition"])
TIME_TO_VISIBLE = Histogram(
    "aidtrail_time_to_visible_seconds",
    "From the append of a submission to the commit of its effect in the views: the headline service level",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
BATCH_ENTRIES = Histogram(
    "aidtrail_projector_batch_entries", "Entries in one transaction", buckets=(1, 10, 100, 500, 1000, 2500, 5000, 10000)
)
STEP_SECONDS = Histogram(
    "aidtrail_step_seconds",
    "Duration of one step of a batch",
    ["service", "step"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
OUTAGES = Counter("aidtrail_outages", "Times that a service lost the log or the database and tried again", ["service"])
TIME_TO_SEALED = Histogram(
    "aidtrail_time_to_sealed_seconds",
    "From the append of the oldest entry that a checkpoint is the first to cover to the append of that checkpoint",
    buckets=(0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 5, 10, 30, 60, 300),
)
SEALED_AT = Gauge("aidtrail_sealed_timestamp_seconds", "When this process last published a checkpoint, in seconds since 1970")
SEALED_ENTRIES = Gauge("aidtrail_sealed_entries", "Entries that the newest checkpoint covers")
UNSEALED_ENTRIES = Gauge("aidtrail_unsealed_entries", "Entries that no checkpoint covers yet")
