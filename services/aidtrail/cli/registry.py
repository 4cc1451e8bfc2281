"""`aidtrail registry`: who exists. Records are written by the operator of the registry; what it says already is not written again."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import typer

from aidtrail import codec, config, show
from aidtrail.cli.backends import backends
from aidtrail.cli.ndjson import Bad, Line, read
from aidtrail.domain.events import ActorEnrolled, ActorRetired, MechanismDefined, MechanismRetired, PartyRegistered, RegistryEvent
from aidtrail.domain.registry import Enrolment, Mechanism, Party, Registry, objection, register
from aidtrail.errors import MalformedError, UndecodableError
from aidtrail.keys import make_actor_key
from aidtrail.log import Log, up_to
from aidtrail.producer import Producer
from aidtrail.topics import Topics

READ_SECONDS = 30.0
_SINCE = datetime(2025, 1, 1, tzinfo=UTC)

OPERATOR: tuple[RegistryEvent, ...] = (
    PartyRegistered(
        event_id=UUID("01941f29-7c00-7000-8000-000000000001"),
        occurred_on=_SINCE,
        party_id="AIDTRAIL",
        name="The operator of this pipeline",
        kind="operator",
    ),
    ActorEnrolled(
        event_id=UUID("01941f29-7c00-7000-8000-000000000002"),
        occurred_on=_SINCE,
        actor_id="timekeeper",
        party_id="AIDTRAIL",
        roles=("timekeeper",),
    ),
)
"""What every registry needs for its timekeeper."""

app = typer.Typer(help="Parties, their actors and their approval mechanisms.", no_args_is_help=True)


class Loaded(NamedTuple):
    """How many events were appended and how many the registry had; the others it would ignore, each with the reason."""

    appended: int
    known: int
    objections: list[tuple[RegistryEvent, str]]


@app.command("load")
def load_command(file: Annotated[str, typer.Argument(help="Registry events, one JSON object a line; - for stdin.")]) -> None:
    """Load registry events, and those of the pipeline's own timekeeper. What the registry says already is left out, so a file can be loaded
    again."""
    settings = config.load()
    bad: list[Bad] = []
    events: list[RegistryEvent] = []
    where: dict[UUID, Line] = {}
    for line in read(file):
        if isinstance(line, Bad):
            bad.append(line)
        elif isinstance(line.event, RegistryEvent):
            events.append(line.event)
            where[line.event.event_id] = line
        else:
            bad.append(line.bad("type", "an event of the registry", f"{line.event.type}, for 'aidtrail submit'"))
    with backends(settings, create=True) as opened:
        own, loaded = load(opened.log, opened.topics, OPERATOR), load(opened.log, opened.topics, events)
    bad += [where[event.event_id].bad(event.type, "a record that the registry can follow", reason) for event, reason in loaded.objections]
    for found in sorted(bad, key=lambda one: one.number):
        print(found, file=sys.stderr)
    print(f"registry: {loaded.appended} appended, {loaded.known} known before, {len(bad)} not loaded")
    if own.appended:
        print(f"and {own.appended} for the pipeline's own timekeeper")
    if bad:
        raise typer.Exit(1)


@app.command("key")
def key_command(
    file: Annotated[Path, typer.Argument(help="To be made. Whoever has it signs as the actor: keep it where he alone can read it.")],
) -> None:
    """Make an actor's secret key, and print the public one. Ed25519, for `aidtrail submit --sign-with`; what is printed goes into the
    `public_keys` of his ActorEnrolled. The actor makes it, on his own machine: an operator who had it could sign for him."""
    print(make_actor_key(file).hex())


@app.command("show")
def show_command(json_: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False) -> None:
    """Print the registry as of its last record."""
    with backends(config.load()) as opened:
        registry = follow(opened.log, opened.topics)
    if json_:
        print(json.dumps(_as_json(registry), ensure_ascii=False, default=_plain))
        return
    parties = [
        (party.party_id, party.name, party.kind, party.country or "", "required" if party.signatures_required else "")
        for party in registry.parties.values()
    ]
    show.table(("party", "name", "kind", "country", "signatures"), parties)
    actors = []
    for actor in registry.actors.values():
        keys = ", ".join(f"{key.hex()[:16]}..." for key in actor.public_keys)
        actors.append((actor.actor_id, actor.party_id, ", ".join(sorted(actor.roles)), keys, "retired" if actor.retired else ""))
    print()
    show.table(("actor", "party", "roles", "keys", ""), actors)
    mechanisms = []
    for known in registry.mechanisms.values():
        steps = [str(known.base_approvals_required), *(f"{t.approvals_required} from {t.at_least}" for t in known.thresholds)]
        state = "retired" if known.retired else ""
        mechanisms.append((known.mechanism_id, known.party_id, ", ".join(steps), f"{known.validity_days} days", state))
    print()
    show.table(("mechanism", "party", "approvals", "valid for", ""), mechanisms)


def load(log: Log, topics: Topics, events: Iterable[RegistryEvent]) -> Loaded:
    """Append what the registry does not say yet, in the given order."""
    known = dict(_records(log, topics.registry))
    registry = _folded(known)
    new: list[RegistryEvent] = []
    objections: list[tuple[RegistryEvent, str]] = []
    left_out = 0
    seen = {event.event_id: event for event in known.values()}
    for event in events:
        before = seen.get(event.event_id)
        if before == event or (before is None and _says_already(registry, event)):
            left_out += 1
            continue
        reason = "its event_id is that of another record" if before is not None else objection(registry, event)
        if reason is not None:
            objections.append((event, reason))
            continue
        seen[event.event_id] = event
        registry = register(registry, event, registry.offset + 1)
        new.append(event)
    with Producer(log, topics) as producer:
        producer.register(new)
    return Loaded(len(new), left_out, objections)


def follow(log: Log, topics: Topics) -> Registry:
    """The registry as of now."""
    return _folded(dict(_records(log, topics.registry)))


def _folded(records: dict[int, RegistryEvent]) -> Registry:
    registry = Registry()
    for offset, event in records.items():
        registry = register(registry, event, offset)
    return registry


def _records(log: Log, topic: str) -> Sequence[tuple[int, RegistryEvent]]:
    end = log.end_offsets(topic)[0]
    found: list[tuple[int, RegistryEvent]] = []
    reader = log.reader(topic)
    try:
        reader.assign({0: 0})
        for batch in up_to(reader, topic, 0, end, max_records=5000, patience_seconds=READ_SECONDS):
            for record in batch:
                try:
                    event = codec.decode(record.value)
                except (UndecodableError, MalformedError):
                    continue  # readers of the registry ignore it
                if isinstance(event, RegistryEvent):
                    found.append((record.offset, event))
    finally:
        reader.close()
    return found


def _says_already(registry: Registry, event: RegistryEvent) -> bool:
    match event:
        case PartyRegistered():
            return registry.parties.get(event.party_id) == Party.of(event)
        case ActorEnrolled():
            return registry.actors.get(event.actor_id) == Enrolment.of(event)
        case MechanismDefined():
            return registry.mechanisms.get(event.mechanism_id) == Mechanism(
                event.mechanism_id, event.party_id, event.approvals_required, event.thresholds, event.validity_days
            )
        case ActorRetired():
            return event.actor_id in registry.actors and registry.actors[event.actor_id].retired
        case MechanismRetired():
            return event.mechanism_id in registry.mechanisms and registry.mechanisms[event.mechanism_id].retired
        case _:
            return False


def _as_json(registry: Registry) -> dict[str, Any]:
    return {
        "offset": registry.offset,
        "parties": [asdict(party) for party in registry.parties.values()],
        "actors": [
            {**asdict(actor), "roles": sorted(actor.roles), "public_keys": [key.hex() for key in actor.public_keys]}
            for actor in registry.actors.values()
        ],
        "mechanisms": [
            {**asdict(known), "thresholds": [threshold.model_dump(mode="json") for threshold in known.thresholds]}
            for known in registry.mechanisms.values()
        ],
    }


def _plain(value: object) -> str:
    return str(value)
