"""As of: a build of the views as the log stood, beside the live one, made from the log and dropped when done.

There are two clocks. *Recorded* by a moment is what the ledger stamped `recorded_at` at or before it: when the submission came to stand in
the log, which does not step back within a partition. That is a beginning of each partition, and so a cut. *Occurred* by a moment is what
the events themselves say (`occurred_on`), known or not at the time: a pledge that was reported late was made all the same. Both together
answer what was known on one day about what had happened by another.

What had occurred is folded in the order of the log, without the events that say they occurred later, and without those that cannot follow
where these are missing (a release of a payment that was instructed, by its own account, afterwards): they are counted. `version` counts the
events that are in, `head_sha256` is that of the last entry before the cut. Amounts can be below zero where people's clocks disagree: the
rules were kept in the order of the log, not in this one.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from psycopg import sql

from aidtrail.audit import cuts
from aidtrail.audit.building import Progress, building, ignore
from aidtrail.domain.donation import Donation
from aidtrail.domain.events import Event
from aidtrail.domain.fold import apply
from aidtrail.errors import FoldError
from aidtrail.log import Log
from aidtrail.topics import Topics
from aidtrail.views import schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Which part of the log: all that was recorded by `time`, or all before a cut (`name` is what it is called), or all there is; of that
    what had `occurred_by` a moment, if that is said."""

    time: datetime | None = None
    cut: cuts.Cut | None = None
    name: str = ""
    occurred_by: datetime | None = None

    def __str__(self) -> str:
        recorded = f"recorded by {_utc(self.time)}" if self.time else f"cut {self.name}" if self.cut else ""
        occurred = f"occurred by {_utc(self.occurred_by)}" if self.occurred_by else ""
        return ", ".join(filter(None, (recorded, occurred))) or "now"


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@dataclass
class AsOf:
    """`build` shows the views as of the moment. `cut` is where it stands; `differences` from the cut that was asked for, by line: then the
    log is not what it was, or its fold is not. `later` counts entries that by their own account occurred later, refusals among them;
    `left_out` events that had occurred but rest on one that had not."""

    build: str
    cut: cuts.Cut
    differences: list[str] = field(default_factory=list)
    later: int = 0
    left_out: int = 0


def as_of(log: Log, topics: Topics, conninfo: str, moment: Moment, *, max_accounts: int = 20_000, progress: Progress = ignore) -> AsOf:
    """Make a build as of a moment, from the log alone. It is for reading: `schema.drop_build` drops it."""
    partitions = topics.require(log)
    ends = log.end_offsets(topics.recorded)
    if moment.cut is not None:
        wanted = moment.cut.next_offsets
        ends = {partition: min(end, wanted.get(partition, 0)) for partition, end in ends.items()}
    occurred = None if moment.occurred_by is None else Occurred(moment.occurred_by)
    options = {"apply": occurred.apply if occurred else apply, "recorded_by": moment.time, "max_accounts": max_accounts}
    with schema.connect(conninfo) as control:
        control.autocommit = True
        schema.migrate(control, schema.CONTROL, "control")
        build = schema.new_build(control, partitions, f"{schema.AS_OF}{moment}")
        with building(log, topics, conninfo, build, partitions, **options) as (projection, to):
            to(ends, progress)
            projection.settle()
            later = 0 if occurred is None else _forget_later(control, build, occurred.by)
            found = cuts.of_build(control, build)
    differences = [] if moment.cut is None else moment.cut.differences(found, rows=occurred is None)
    return AsOf(build, found, differences, later, len(occurred.left_out) if occurred else 0)


class Occurred:
    """Folds what had occurred by a moment, and leaves out the rest."""

    def __init__(self, by: datetime) -> None:
        self.by = by
        self.left_out: set[UUID] = set()

    def apply(self, donation: Donation | None, event: Event) -> Donation | None:
        if event.meta.occurred_on > self.by:
            return donation
        try:  # without the stamp, whose version counts the events that are left out
            return apply(donation, event.model_copy(update={"meta": event.meta.model_copy(update={"ledger": None})}))
        except FoldError:
            self.left_out.add(event.meta.event_id)
            return donation


def _forget_later(control: schema.Connection, build: str, by: datetime) -> int:
    """Take what occurred later out of the history as well; it was needed there as long as donations were folded again from it. Returns how
    many entries that were."""
    entries, refusals = sql.Identifier(build, "entries"), sql.Identifier(build, "refusals")
    with control.transaction():
        later = control.execute(sql.SQL("DELETE FROM {} WHERE occurred_on > %s").format(entries), (by,)).rowcount
        control.execute(
            sql.SQL('DELETE FROM {} WHERE (partition, "offset") NOT IN (SELECT partition, "offset" FROM {})').format(refusals, entries)
        )
    return later
