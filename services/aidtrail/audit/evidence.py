"""What an auditor takes home: the whole log (`export`), or what concerns one donation (`prove`), in files that a stranger can read.

The formats are told in `verifier`, which checks them and knows nothing of Aidtrail. Both are taken at a cut: the views as they stand, in
one snapshot, and the log as far as a checkpoint that covers what the views hold. So everything in them is sealed.
"""

import base64
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, cast

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from aidtrail import codec, contract
from aidtrail.audit.checkpoints import Counting, Signed, published
from aidtrail.audit.manifest import Manifest
from aidtrail.audit.merkle import consistency_path, inclusion_path, leaf_hash, node_hash
from aidtrail.audit.note import MAX_SIGNATURES, Note, VerifierKey
from aidtrail.audit.tiles import WIDTH, partition_folder, tile_path
from aidtrail.audit.verifier import BUNDLE, EMPTY_LEAF, EXPORT, KEYS
from aidtrail.domain.events import (
    ActorEnrolled,
    ActorRetired,
    ApprovalRequested,
    Event,
    MechanismDefined,
    MechanismRetired,
    PartyRegistered,
    RegistryEvent,
)
from aidtrail.errors import MalformedError, UnavailableError, UndecodableError, UsageError
from aidtrail.log import Log, Record, partition_of, up_to
from aidtrail.topics import Topics
from aidtrail.views import schema, shapes
from aidtrail.views.writer import COLUMNS

MAX_BATCH = 10_000
POLL_SECONDS = 30.0
SEAL_SECONDS = 30.0
"""How long to wait for a checkpoint that covers what the views hold: it comes within two seconds where the seal runs."""

Progress = Callable[[int, int], None]


class Seals(NamedTuple):
    """Manifests and checkpoints of one key, as they stand in the topic, and what the newest checkpoint says."""

    records: list[Record]
    manifests: list[bytes]
    newest: Signed
    covering: Manifest


def export(
    log: Log, topics: Topics, conninfo: str, key: VerifierKey, folder: Path, *, tiles: Path | None = None, progress: Progress | None = None
) -> int:
    """Write the whole log into a new folder; returns the number of records. `tiles` is the seal's folder: with the leaf hashes in it a
    verifier can name the first record that was altered, not only the stretch between two checkpoints that it is in."""
    partitions = topics.require(log)
    if folder.exists():
        raise UsageError(f"{folder}: expected a folder that can be made, found one that is there")
    with _snapshot(conninfo) as (views, build, positions):
        seals = _seals_over(log, topics, key, positions)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"{folder}: expected a folder that can be made, found: {error.strerror}") from None
        ends = {topics.recorded: dict(enumerate(stand.size for stand in seals.covering.partitions))}
        ends |= {topics.submitted: log.end_offsets(topics.submitted), topics.registry: log.end_offsets(topics.registry)}
        total, done = sum(map(sum, (numbers.values() for numbers in ends.values()))), 0
        for topic, numbers in ends.items():
            for number, end in numbers.items():
                with _new(folder / _noun(topic) / f"{number}.ndjson") as write:
                    for batch in _batches(log, topic, number, end):
                        write(map(_record_json, batch))
                        done += len(batch)
                        if progress is not None:
                            progress(done, total)
        with _new(folder / "checkpoints" / "0.ndjson") as write:
            write(map(_record_json, seals.records))
        for table in KEYS:
            _write_rows(views, build, table, partitions, folder / "views" / table)
    for entry in contract.published().values():
        _write(folder / "schemas" / f"{entry.id}.avsc", (contract.FOLDER / entry.path).read_bytes())
    for number, stand in enumerate(seals.covering.partitions):
        leaves = None if tiles is None else _sealed_leaves(tiles, number, stand.size)
        if leaves is not None:
            _write(folder / "leaves" / f"{number}.bin", leaves)
    about = {"format": EXPORT, "partitions": partitions, "views": [positions[number] for number in range(partitions)], "key": str(key)}
    _write(folder / "about.json", json.dumps(about, indent=1).encode() + b"\n")  # last: an export that was cut short is none
    return done + len(seals.records)


def prove(log: Log, topics: Topics, conninfo: str, key: VerifierKey, donation_id: str, *, since: int | None = None) -> dict[str, Any]:
    """The bundle of one donation: its entries and the proofs that they are in the log, and the rows that the views have of it. `since` is
    the size of a checkpoint that the auditor has: the bundle shows that its own continues it. Reads the donation's whole partition."""
    partitions = topics.require(log)
    number = partition_of(donation_id.encode(), partitions)
    with _snapshot(conninfo) as (views, build, positions):
        rows = {table: _rows_of(views, build, table, donation_id) for table in ("donations", "amounts", "approvals")}
        if not rows["donations"]:
            raise UsageError(f"{donation_id}: expected a donation that was announced, found none in the views")
        counting = _counting(views, build, donation_id)
        seals = _seals_over(log, topics, key, positions)
    size = seals.covering.partitions[number].size
    hashes: list[bytes] = []
    entries: list[Record] = []
    for batch in _batches(log, topics.recorded, number, size):
        for record in batch:
            hashes += [EMPTY_LEAF] * (record.offset - len(hashes))
            hashes.append(leaf_hash(record.value or b""))
            if record.offset in counting:
                entries.append(record)
    hashes += [EMPTY_LEAF] * (size - len(hashes))
    log_tree, seal_tree = Subtrees(hashes), Subtrees([leaf_hash(encoded) for encoded in seals.manifests])
    newest = seals.newest.checkpoint
    registered = list(_registered(log, topics, entries))
    bundle: dict[str, Any] = {
        "format": BUNDLE,
        "donation_id": donation_id,
        "key": str(key),
        "checkpoint": seals.newest.note.encode().decode(),
        "manifest": {
            "text": seals.covering.encode().decode(),
            "path": _texts(inclusion_path(seals.covering.index, newest.size, seal_tree.node)),
        },
        "entries": [{**_record_json(record), "path": _texts(inclusion_path(record.offset, size, log_tree.node))} for record in entries],
        "registry": list(map(_record_json, registered)),
        "schemas": _schemas_of([*entries, *registered]),
        "views": rows,
    }
    if since is not None:
        if not 1 <= since <= newest.size:
            raise UsageError(f"--since: expected a size from 1 to {newest.size}, found {since}")
        bundle["consistency"] = {"from": since, "path": _texts(consistency_path(since, newest.size, seal_tree.node))}
    return bundle


# --- what is sealed -----------------------------------------------------------------------------------------------------------------


def _seals_over(log: Log, topics: Topics, key: VerifierKey, positions: Mapping[int, int]) -> Seals:
    """All that `key` sealed up to now, once that covers these positions. Raises UnavailableError if it does not come to."""
    deadline = time.monotonic() + SEAL_SECONDS
    while True:
        found = _seals(log, topics, key)
        if found is not None and all(found.covering.partitions[number].size >= end for number, end in positions.items()):
            return found
        if time.monotonic() > deadline:
            sealed = "nothing" if found is None else f"{found.covering.records} entries"
            raise UnavailableError(
                f"the views hold {sum(positions.values())} entries, and {key.name} {key.id.hex()} has sealed {sealed}: is 'aidtrail audit"
                " seal' running with this key?"
            )
        time.sleep(0.2)


def _seals(log: Log, topics: Topics, key: VerifierKey) -> Seals | None:
    """None where nothing is sealed yet. What others wrote to the topic, and manifests that do not count, are left out."""
    counting, counted, checkpoints = Counting(key), list[tuple[Record, Manifest]](), list[Record]()
    newest: Signed | None = None
    for batch in _batches(log, topics.checkpoints, 0, log.end_offsets(topics.checkpoints)[0]):
        for record in batch:
            found = published(record, key)
            if found is None:
                continue
            counted += [(one.record, one.manifest) for one in counting.take(found, record)]
            if isinstance(found, Signed):
                checkpoints.append(record)
                newest = found if newest is None else _newer(newest, found)
    if newest is None:
        return None
    size = newest.checkpoint.size
    if len(counted) < size:
        raise UnavailableError(f"{topics.checkpoints} has {len(counted)} of the {size} manifests that its newest checkpoint covers")
    covered = counted[:size]
    kept = sorted([*checkpoints, *(record for record, _ in covered)], key=attrgetter("offset"))
    return Seals(kept, [record.value or b"" for record, _ in covered], newest, covered[-1][1])


def _newer(one: Signed, other: Signed) -> Signed:
    """The checkpoint over more; of two that are equal one note with the signatures of both: who writes it again takes none away."""
    if one.checkpoint != other.checkpoint:
        return max(one, other, key=lambda signed: signed.checkpoint.size)
    signatures = dict.fromkeys((*one.note.signatures, *other.note.signatures))
    return one._replace(note=Note(one.note.text, tuple(signatures)[:MAX_SIGNATURES]))


def _sealed_leaves(tiles: Path, number: int, size: int) -> bytes | None:
    """The leaf hashes of a partition, out of the seal's tiles; None where one is missing. A tile that grew since begins with the same."""
    found = bytearray()
    for tile in range(-(-size // WIDTH)):
        data = _widest(tiles / partition_folder(number) / tile_path(0, tile))
        if len(data) < 32 * min(WIDTH, size - WIDTH * tile):
            return None
        found += data
    return bytes(found[: 32 * size])


def _widest(full: Path) -> bytes:
    """A full tile, or the widest of its partial ones. The seal may be at work: it removes those only when the full one is there, so that is
    read last."""
    found, names, partial = b"", list[str](), full.with_name(f"{full.name}.p")
    with suppress(FileNotFoundError):
        names = [name for name in os.listdir(partial) if name.isdecimal()]
    for path in (*(partial / name for name in names), full):
        with suppress(FileNotFoundError):
            found = max(found, path.read_bytes(), key=len)
    return found


class Subtrees:
    """The hash of every full subtree over some leaf hashes, level by level."""

    def __init__(self, hashes: list[bytes]) -> None:
        self._levels = [hashes]
        while len(self._levels[-1]) > 1:
            pairs = iter(self._levels[-1])
            self._levels.append([node_hash(left, right) for left, right in zip(pairs, pairs, strict=False)])

    def node(self, level: int, index: int) -> bytes:
        return self._levels[level][index]


# --- the log ------------------------------------------------------------------------------------------------------------------------


def _batches(log: Log, topic: str, partition: int, end: int) -> Iterator[list[Record]]:
    """The records of a partition before `end`."""
    with closing(log.reader(topic)) as reader:
        reader.assign({partition: 0})
        for batch in up_to(reader, topic, partition, end, max_records=MAX_BATCH, patience_seconds=POLL_SECONDS):
            yield [record for record in batch if record.offset < end]


def _registered(log: Log, topics: Topics, entries: Sequence[Record]) -> Iterator[Record]:
    """The records of the registry about the parties, actors and mechanisms that these entries name, and the last one that they were ruled
    with."""
    names: set[str] = set()
    end = 0
    for record in entries:
        event = codec.read_recorded(record.value)[0]
        assert isinstance(event, Event)
        names |= {event.meta.actor.actor_id, event.meta.actor.party_id}
        if isinstance(event, ApprovalRequested):
            names.add(event.mechanism_id)
        if event.meta.ledger is not None:
            end = max(end, event.meta.ledger.registry_offset + 1)
    known: list[Record] = [record for batch in _batches(log, topics.registry, 0, end) for record in batch]
    events = {record.offset: said for record in known if (said := _registry_event(record)) is not None}
    names |= {said.party_id for said in events.values() if isinstance(said, MechanismDefined) and said.mechanism_id in names}
    for record in known:
        about = events.get(record.offset)
        if record.offset == end - 1 or (about is not None and _subject(about) in names):
            yield record


def _registry_event(record: Record) -> RegistryEvent | None:
    try:
        event = codec.decode(record.value)
    except (UndecodableError, MalformedError):
        return None  # as every ledger does
    return event if isinstance(event, RegistryEvent) else None


def _subject(event: RegistryEvent) -> str:
    match event:
        case PartyRegistered():
            return event.party_id
        case ActorEnrolled() | ActorRetired():
            return event.actor_id
        case MechanismDefined() | MechanismRetired():
            return event.mechanism_id
    return ""


def _schemas_of(records: Iterable[Record]) -> dict[str, str]:
    ids = {int.from_bytes(record.value[1:5], "big") for record in records if record.value}
    known = contract.published()
    return {str(at): (contract.FOLDER / known[at].path).read_text(encoding="utf-8") for at in sorted(ids & known.keys())}


def _record_json(record: Record) -> dict[str, Any]:
    key, value = (None if part is None else base64.b64encode(part).decode() for part in (record.key, record.value))
    return {"offset": record.offset, "timestamp": record.timestamp, "key": key, "value": value}


def _texts(path: list[bytes]) -> list[str]:
    return [base64.b64encode(one).decode() for one in path]


def _noun(topic: str) -> str:
    return topic.rpartition(".")[2]


# --- the views ----------------------------------------------------------------------------------------------------------------------

_Views = psycopg.Connection[dict[str, Any]]


@contextmanager
def _snapshot(conninfo: str) -> Iterator[tuple[_Views, str, dict[int, int]]]:
    """The live build as it stands at one moment: a connection, the build's name, and its next offset in each partition."""
    with ExitStack() as stack:
        plain = stack.enter_context(schema.connect(conninfo))
        plain.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        plain.read_only = True
        build = schema.live_build(plain)
        if build is None:
            raise UnavailableError("no views yet: start 'aidtrail up' (on Kafka 'aidtrail project') and leave it running")
        query = sql.SQL("SELECT partition, next_offset FROM {} ORDER BY 1").format(sql.Identifier(build, "positions"))
        positions = dict(cast(Iterable[tuple[int, int]], plain.execute(query).fetchall()))
        views = cast(_Views, plain)
        views.row_factory = dict_row
        yield views, build, positions


def _columns(table: str) -> sql.Composable:
    """As they stand in a row of an export: of `entries` the hash of the value in place of the value, which is in the log."""
    names = [sql.SQL("t.{}").format(sql.Identifier(name)) for name in COLUMNS[table] if (table, name) != ("entries", "value")]
    return sql.SQL(", ").join([*names, *([sql.SQL("sha256(t.value) AS value_sha256")] if table == "entries" else [])])


def _write_rows(views: _Views, build: str, table: str, partitions: int, folder: Path) -> None:
    """A file for each partition, in the order of the key. A row that is in no partition stands in the first: somebody put it there."""
    source = sql.SQL("{} t").format(sql.Identifier(build, table))
    partition = sql.SQL("t.partition")
    if table in ("amounts", "approvals"):
        source = sql.SQL("{} t LEFT JOIN {} d USING (donation_id)").format(sql.Identifier(build, table), sql.Identifier(build, "donations"))
        partition = sql.SQL("d.partition")
    order = [sql.SQL("t.{}{}").format(sql.Identifier(name), sql.SQL("" if name == "offset" else ' COLLATE "C"')) for name in KEYS[table]]
    in_file = sql.SQL("CASE WHEN {} BETWEEN 0 AND %s THEN {} ELSE 0 END").format(partition, partition)
    query = sql.SQL("SELECT {} AS in_file, {} FROM {} ORDER BY 1, {}").format(in_file, _columns(table), source, sql.SQL(", ").join(order))
    with views.cursor("rows") as cursor:
        cursor.itersize = MAX_BATCH
        cursor.execute(query, (partitions - 1,))
        groups = dict.fromkeys(range(partitions), True)
        for number, rows in groupby(cursor, lambda row: int(row.pop("in_file"))):
            del groups[number]
            with _new(folder / f"{number}.ndjson") as write:
                write(rows)
        for number in groups:
            _write(folder / f"{number}.ndjson", b"")


def _counting(views: _Views, build: str, donation_id: str) -> set[int]:
    """The offsets of the donation's entries that are not void."""
    query = sql.SQL("""SELECT "offset" FROM {} WHERE donation_id = %s AND outcome <> 'void'""").format(sql.Identifier(build, "entries"))
    return {int(row["offset"]) for row in views.execute(query, (donation_id,))}


def _rows_of(views: _Views, build: str, table: str, donation_id: str) -> list[dict[str, Any]]:
    query = sql.SQL('SELECT {} FROM {} t WHERE donation_id = %s ORDER BY {} COLLATE "C"').format(
        _columns(table), sql.Identifier(build, table), sql.Identifier(KEYS[table][-1])
    )
    return [cast(dict[str, Any], json.loads(shapes.to_json(row))) for row in views.execute(query, (donation_id,))]


# --- files --------------------------------------------------------------------------------------------------------------------------


@contextmanager
def _new(path: Path) -> Iterator[Callable[[Iterable[dict[str, Any]]], None]]:
    """Writes objects to the file, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        yield lambda rows: file.writelines(f"{shapes.to_json(row)}\n" for row in rows)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
