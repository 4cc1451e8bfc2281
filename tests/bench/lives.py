"""Many donations, each living the same lawful life with amounts of its own, as raw submissions and as stamped entries: made by replacing
ids of equal length in templates, so that making them costs little beside what is measured."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from aidtrail import codec
from aidtrail.chain import NO_HEAD, Head
from aidtrail.demo.story import DONATION, story
from aidtrail.domain.donation import Donation
from aidtrail.domain.events import LedgerStamp, RegistryEvent
from aidtrail.domain.fold import apply
from aidtrail.domain.money import Money
from aidtrail.domain.rules import RULES_VERSION
from aidtrail.log import Draft, partition_of

TEMPLATE = DONATION
NAME = f"BENCH-{{:0{len(DONATION) - 6}d}}"
AMOUNTS = 2000
"""So many donations in a row pledge, pay and receive different amounts."""
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def registry_events() -> list[RegistryEvent]:
    """The parties, actors and mechanism that the lives need."""
    lines = (files("aidtrail.demo") / "registry.ndjson").read_text(encoding="utf-8").splitlines()
    return [event for line in lines if isinstance(event := codec.from_json(line), RegistryEvent)]


class Step(NamedTuple):
    """One event of the life: its bytes for the donation TEMPLATE, its event id in them, and where the ledger's stamp goes."""

    value: bytes
    event_id: bytes
    ledger_at: int


@cache
def steps(times: int = 1) -> list[Step]:
    """The life of a donation with so many times the story's amounts."""
    found: list[Step] = []
    donation: Donation | None = None
    for number, step in enumerate(story(datetime.now(UTC)), start=1):
        if step.refused_by is not None:
            continue
        event = step.event(number, NOW)
        changes = {name: _multiplied(value, times) for name, value in event}
        if "terms_sha256" in changes and donation is not None:
            changes["terms_sha256"] = donation.pledge.terms_sha256
        event = event.model_copy(update=changes)
        donation = apply(donation, event)
        value = codec.encode(event)
        found.append(Step(value, str(event.meta.event_id).encode(), codec.read(value)[1]))
    return found


def _multiplied(value: Any, times: int) -> Any:
    if isinstance(value, Money):
        return value.model_copy(update={"amount": value.amount * times})
    return tuple(_multiplied(each, times) for each in value) if isinstance(value, tuple) else value


def order(donations: int, events_each: int, active: int, seed: int) -> Iterator[tuple[int, int]]:
    """(donation, step) pairs: `active` donations are alive at a time and move on in random order; each goes through its steps in order."""
    chance = random.Random(seed)
    waiting = iter(range(donations))
    alive = [[number, 0] for _, number in zip(range(active), waiting, strict=False)]
    while alive:
        place = chance.randrange(len(alive))
        life = alive[place]
        yield life[0], life[1]
        life[1] += 1
        if life[1] == events_each:
            newcomer = next(waiting, None)
            if newcomer is None:
                alive[place] = alive[-1]
                alive.pop()
            else:
                alive[place] = [newcomer, 0]


def submissions(topic: str, partitions: int, donations: int, active: int, seed: int = 1, first: int = 1) -> Iterator[Draft]:
    """The submissions of `donations` lives, numbered from `first`."""
    return (draft for _, draft in _lives(topic, partitions, donations, active, seed, first))


def _lives(
    topic: str, partitions: int, donations: int, active: int, seed: int, first: int, events_each: int | None = None
) -> Iterator[tuple[Step, Draft]]:
    template = TEMPLATE.encode()
    where: dict[int, tuple[bytes, int]] = {}
    events_each = events_each or len(steps())
    for count, (number, place) in enumerate(order(donations, events_each, active, seed)):
        if place == 0:
            key = NAME.format(first + number).encode()
            where[number] = (key, partition_of(key, partitions))
        key, partition = where[number]
        step = steps(number % AMOUNTS + 1)[place]
        event_id = f"01900000-0000-7000-8{first % 4096:03x}-{count:012x}".encode()
        yield step, Draft(topic, partition, key, step.value.replace(template, key).replace(step.event_id, event_id))
        if place == events_each - 1:
            del where[number]


def entries(topic: str, partitions: int, donations: int, active: int, seed: int = 1) -> Iterator[Draft]:
    """The same lives as a ledger would record them, all admitted: numbered and chained, but not ruled on."""
    heads: dict[bytes, Head] = {}
    next_offset = [0] * partitions
    tails = [codec.GENESIS] * partitions
    recorded_at = datetime(2026, 1, 1, tzinfo=UTC)
    for step, draft in _lives(topic, partitions, donations, active, seed, 1):
        head = heads.get(draft.key, NO_HEAD)
        stamp = LedgerStamp(
            version=head.version + 1,
            submitted_offset=next_offset[draft.partition],
            previous_outcome_sha256=tails[draft.partition],
            recorded_at=recorded_at,
            previous_sha256=head.sha256,
            registry_offset=0,
            rules=RULES_VERSION,
        )
        next_offset[draft.partition] += 1
        value = codec.stamped(draft.value, step.ledger_at, stamp)
        tails[draft.partition] = codec.sha256(value)
        heads[draft.key] = Head(head.version + 1, tails[draft.partition])
        if head.version + 1 == len(steps()):
            del heads[draft.key]
        yield draft._replace(value=value)


def announcements(topic: str, partitions: int, donations: int) -> Iterator[Draft]:
    """The first submission of each of many donations, and nothing more."""
    return (draft for _, draft in _lives(topic, partitions, donations, 1, 1, 1, 1))
