"""Projects `recorded` from offset 0 into a new build of the views, beside the live one."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Protocol

from aidtrail.errors import UnavailableError
from aidtrail.log import READ_SECONDS, Log, Reader
from aidtrail.projection import MAX_BATCH, Projection
from aidtrail.service import young_garbage_only
from aidtrail.topics import Topics
from aidtrail.views import schema
from aidtrail.views.writer import Writer

POLL_SECONDS = 30.0

Progress = Callable[[int, int], None]
"""Called with the entries done and the entries there are."""


def ignore(done: int, total: int) -> None:
    """No progress is shown."""


class To(Protocol):
    def __call__(self, next_offsets: Mapping[int, int], progress: Progress) -> None:
        """Project all before these offsets that is not yet in; it is written once the projection settles. Raises UnavailableError when the
        log cannot be read so far."""


@contextmanager
def building(log: Log, topics: Topics, conninfo: str, build: str, partitions: int, **options: Any) -> Iterator[tuple[Projection, To]]:
    """A projection with every partition of an empty build, and how to go on in it; `options` are the Projection's. An error inside, or the
    user's Ctrl-C, drops the build."""
    with ExitStack() as stack:
        stack.enter_context(_dropped_on_error(conninfo, build))
        collect = stack.enter_context(young_garbage_only())
        projection = stack.enter_context(closing(Projection(Writer(conninfo, build), partitions, **options)))
        reader = stack.enter_context(closing(log.reader(topics.recorded, follows=False)))
        for partition in range(partitions):
            projection.claim(partition)

        def to(next_offsets: Mapping[int, int], progress: Progress) -> None:
            _advance(reader, projection, next_offsets, progress, collect)

        yield projection, to


def _advance(
    reader: Reader, projection: Projection, next_offsets: Mapping[int, int], progress: Progress, collect: Callable[[], None]
) -> None:
    total = sum(next_offsets.values())
    done: set[int] = set()  # also those whose last offsets before the cut hold no entry, but a transaction's marker

    def behind() -> dict[int, int]:
        positions = {partition: projection.next_offset(partition) for partition in next_offsets.keys() - projection.ended - done}
        return {partition: at for partition, at in positions.items() if at < next_offsets[partition]}

    while waiting := behind():
        reader.assign(waiting)
        ended, beyond, deadline = set(projection.ended), False, time.monotonic() + POLL_SECONDS
        while behind() and not beyond and projection.ended == ended:  # else go on without the partitions that have nothing more to say
            records = reader.poll(MAX_BATCH, min(READ_SECONDS, POLL_SECONDS))
            if records:
                deadline = time.monotonic() + POLL_SECONDS
            elif time.monotonic() > deadline:
                raise UnavailableError("the log could not be read up to the cut; is it reachable?")
            beyond = any(found[-1].offset >= next_offsets[p] for p, found in records.items())
            within = {
                p: batch for p, found in records.items() if (batch := [record for record in found if record.offset < next_offsets[p]])
            }
            if within:
                projection.project(within)
                collect()
                progress(min(sum(map(projection.next_offset, next_offsets)), total), total)
            done |= {partition for partition, at in reader.positions().items() if at >= next_offsets[partition]}


@contextmanager
def _dropped_on_error(conninfo: str, build: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with schema.connect(conninfo) as control:
            schema.drop_build(control, build)
        raise
