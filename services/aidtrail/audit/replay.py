"""Replay: rule again on every submission, from the first or from a cut, and compare outcome by outcome with what the ledger recorded.

For auditors who do not trust the operator. Each entry that counts must be, byte for byte, what `ruling` gives for its submission, on the
state that the entries before it made, with the registry as it stood at the offset that it is stamped with. Entries that another version of
the rules decided cannot be decided again: they must continue the chain in order, be the submission's own bytes, and leave no invariant
broken. They are counted apart.

From a cut: the entries before it are followed (fences, fold), not ruled again, and the last outcome among them must be the cut's. So who
replayed up to a cut and kept it goes on from there.

After a difference the replay goes on from what the log says counts, so that one forgery is one difference. What is equal after it, in the
same donation, is equal given that difference, and counted as `resting`.
"""

import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event as EventType
from pathlib import Path
from typing import NamedTuple

from aidtrail import codec
from aidtrail.audit.cuts import Cut
from aidtrail.audit.examination import Accounts, Examination, Registries
from aidtrail.audit.findings import Difference, Extent, Report, Start
from aidtrail.chain import Tail
from aidtrail.domain.events import RegistryEvent
from aidtrail.errors import MalformedError, UnavailableError, UndecodableError, UsageError
from aidtrail.ledger_store import LedgerStore
from aidtrail.log import READ_SECONDS, Log, Reader, Record
from aidtrail.service import young_garbage_only
from aidtrail.topics import Topics

MAX_BATCH = 2000
POLL_SECONDS = 30.0


def extent_now(log: Log, topics: Topics) -> Extent:
    """As far as the log goes. An entry is appended after its submission and after the registry that it was ruled with, so ends are taken in
    the other order: what an entry within the cut answers is within it too."""
    topics.require(log)
    return Extent(log.end_offsets(topics.recorded), log.end_offsets(topics.submitted), log.end_offsets(topics.registry)[0])


def extent_of(log: Log, topics: Topics, cut: Cut) -> Extent:
    """As far as a cut goes, and the outcomes that it says are last. Raises UsageError when it is of a log with other partitions."""
    answered = {partition: place.last_submitted_offset + 1 for partition, place in cut.places.items()}
    tails = {partition: tail for partition, (_, tail) in starts_at(log, topics, cut).items()}
    return Extent(cut.next_offsets, answered, log.end_offsets(topics.registry)[0], tails)


def starts_at(log: Log, topics: Topics, cut: Cut) -> dict[int, Start]:
    """To begin at a cut. Raises UsageError when it is of a log with other partitions."""
    count = topics.require(log)
    if sorted(cut.places) != list(range(count)):
        raise UsageError(f"the cut is of {len(cut.places)} partitions and {topics.recorded} has {count}: it belongs to another log")
    return {
        partition: Start(place.next_offset, Tail(place.last_submitted_offset, place.last_outcome_sha256))
        for partition, place in cut.places.items()
    }


def replay(
    log: Log,
    topics: Topics,
    *,
    extent: Extent | None = None,
    partitions: Sequence[int] | None = None,
    max_accounts: int = 20_000,
    poll_seconds: float = POLL_SECONDS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Replay these partitions (all, if not said) up to this extent (the log's end, if not said), one after the other. `progress` is called
    with the entries done and the entries there are. A record within it that cannot be read for `poll_seconds`, although the log answers, is
    a difference. Memory holds `max_accounts` donations; a temporary folder holds the entries of one partition."""
    extent = extent or extent_now(log, topics)
    count = topics.require(log)
    numbers = range(count) if partitions is None else partitions
    report = Report(extent)
    total = sum(extent.recorded[number] for number in numbers)

    def missing(topic: str, partition: int, first: int, end: int) -> None:
        if topic == topics.recorded:  # in `submitted` other teams' transactions may leave gaps
            report.differs(Difference(topic, partition, first, "", "offset", "a record", f"none before offset {end}"))

    with young_garbage_only() as collect, ExitStack() as stack:
        readers = {topic: stack.enter_context(closing(log.reader(topic, follows=False))) for topic in topics}
        read = partial(_records, log, missing=missing, poll_seconds=poll_seconds)
        registries = Registries(list(_registry_records(read(readers[topics.registry], topics.registry, 0, 0, extent.registry))))
        report.registry_events = len(registries)
        for number in numbers:
            with _accounts(topics, number, max_accounts) as accounts:
                start = (extent.starts or {}).get(number, Start())
                if start.offset > extent.recorded[number]:
                    raise UsageError(f"partition {number}: the start, offset {start.offset}, is after the end, {extent.recorded[number]}")
                first = start.tail.submitted_offset + 1
                submissions = read(readers[topics.submitted], topics.submitted, number, first, extent.submitted[number])
                examination = Examination(number, count, topics, registries, accounts, submissions, start)
                for record in read(readers[topics.recorded], topics.recorded, number, 0, extent.recorded[number]):
                    examination.take(record)
                    if examination.report.entries % MAX_BATCH == 0:
                        accounts.settle()
                        collect()
                        progress(report.entries + examination.report.entries, total)
                report.add(examination.finish((extent.tails or {}).get(number)))
            progress(report.entries, total)
    return report


@contextmanager
def _accounts(topics: Topics, number: int, max_accounts: int) -> Iterator[Accounts]:
    with (
        tempfile.TemporaryDirectory(prefix="aidtrail-replay-") as folder,
        closing(LedgerStore(Path(folder), topics.recorded, number)) as store,
    ):
        yield Accounts(store, max_accounts)


def _records(
    log: Log,
    reader: Reader,
    topic: str,
    partition: int,
    start: int,
    end: int,
    *,
    missing: Callable[[str, int, int, int], None],
    poll_seconds: float,
) -> Iterator[Record]:
    """The records of a partition from `start` on and before `end`. `missing` is called where there are none from an offset on up to
    another."""
    at = start
    reader.assign({partition: start})
    deadline = time.monotonic() + poll_seconds
    while at < end:
        records = reader.poll(MAX_BATCH, min(READ_SECONDS, poll_seconds)).get(partition, [])
        if not records and (time.monotonic() > deadline or reader.positions()[partition] >= end):
            log.end_offsets(topic)  # raises in an outage
            missing(topic, partition, at, end)
            return
        for record in records:
            if record.offset > at:
                missing(topic, partition, at, min(record.offset, end))
            if record.offset >= end:
                return
            at = record.offset + 1
            yield record
        if records:
            deadline = time.monotonic() + poll_seconds


def _registry_records(records: Iterator[Record]) -> Iterator[tuple[RegistryEvent, int, int]]:
    for record in records:
        try:
            event = codec.decode(record.value)
        except (UndecodableError, MalformedError):
            continue  # as every ledger does
        if isinstance(event, RegistryEvent):
            yield event, record.offset, record.timestamp


# --- several processes --------------------------------------------------------------------------------------------------------------

OpenLog = Callable[[], AbstractContextManager[Log]]


def replay_in_processes(
    open_log: OpenLog,
    topics: Topics,
    processes: int,
    *,
    extent: Extent | None = None,
    max_accounts: int = 20_000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """As `replay`, with the partitions shared out among so many new processes, each of which opens the log with `open_log` (a function of a
    module, since it is sent there). `max_accounts` is for each process."""
    with open_log() as log:
        extent = extent or extent_now(log, topics)
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q"), context.Event()
    numbers = sorted(extent.recorded)
    shares = [share for first in range(processes) if (share := numbers[first::processes])]
    report = Report(extent)
    with ProcessPoolExecutor(len(shares), context, _set_up, (done, stop)) as pool:
        waiting = {pool.submit(_replay_share, open_log, topics, extent, share, max_accounts) for share in shares}
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                progress(done.value, sum(extent.recorded.values()))
                for future in finished:
                    report.add(future.result())
        except BaseException:
            stop.set()
            raise
    report.differences.sort(key=lambda difference: (difference.partition, difference.topic, difference.offset))
    report.voids.sort()
    return report


class _Shared(NamedTuple):
    done: "Synchronized[int]"
    stop: EventType


_shared: _Shared


def _set_up(done: "Synchronized[int]", stop: EventType) -> None:
    global _shared
    _shared = _Shared(done, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then sets `stop`


def _replay_share(open_log: OpenLog, topics: Topics, extent: Extent, partitions: Sequence[int], max_accounts: int) -> Report:
    before = 0

    def progress(done: int, total: int) -> None:
        nonlocal before
        with _shared.done.get_lock():
            _shared.done.value += done - before
        before = done
        if _shared.stop.is_set():
            raise UnavailableError("stopped")

    with open_log() as log:
        return replay(log, topics, extent=extent, partitions=partitions, max_accounts=max_accounts, progress=progress)
