"""Small logs with everything in them, sealed and projected in memory in a moment: for trials by the thousand.

world = World(seed, folder)        # lives, some of them disorderly, refusals, void entries, six seals
held = world.held()                # what an auditor would be handed: an export, in memory
bundle = proved(held, donation_id) # or that: one donation
trust = world.trust(visit=2)       # the auditor, who was there when two seals were made
"""

import base64
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, cast
from uuid import uuid4

from psycopg.types.json import Jsonb

from aidtrail import codec, contract
from aidtrail.audit import verifier
from aidtrail.audit.cuts import Cut, Place
from aidtrail.audit.evidence import Subtrees
from aidtrail.audit.manifest import Manifest, Stand
from aidtrail.audit.merkle import Tree, consistency_path, inclusion_path, leaf_hash
from aidtrail.audit.note import Checkpoint, Note, SignerKey, sign
from aidtrail.chain import NO_HEAD, NO_TAIL, Entry, Head, Tail, read_entry, void_reason
from aidtrail.domain import events as e
from aidtrail.ledger import Ledger
from aidtrail.log import Draft, partition_of
from aidtrail.log.memory import MemoryLog
from aidtrail.producer import Producer
from aidtrail.projection import Projection
from aidtrail.topics import Topics
from aidtrail.views import shapes
from aidtrail.views.digest import to_bytes
from aidtrail.views.writer import COLUMNS, KEYS, Batch, Claim, Writer
from tests.acts import START, Acts, full_life, money, registry_events
from tests.signers import signer
from tests.signing import signed, signing_party

PARTITIONS = 3
AMOUNTS = {name for name, kind in COLUMNS["amounts"].items() if kind == "numeric"}
SEALS = 6
TOPICS = Topics.of("donations")
KEY = signer("aidtrail.example/log")
SCHEMAS = {entry.id: (contract.FOLDER / entry.path).read_bytes() for entry in contract.published().values()}

Record = verifier.Record
Row = dict[str, Any]


@dataclass
class Held(verifier.Source):
    """An export in memory. A copy shares records and rows, which are never changed, and has lists of its own."""

    kept: dict[tuple[str, int], list[Record]]
    views: dict[tuple[str, int], list[Row]]
    sealed_leaves: dict[int, bytes]
    partitions: int
    view_ends: list[int] | None
    texts: dict[int, bytes] = field(default_factory=lambda: dict(SCHEMAS))
    last_submitted: Sequence[verifier.Stand] = ()

    def copy(self) -> "Held":
        kept = {name: list(records) for name, records in self.kept.items()}
        views = {name: list(rows) for name, rows in self.views.items()}
        ends = None if self.view_ends is None else list(self.view_ends)
        return Held(kept, views, dict(self.sealed_leaves), self.partitions, ends, dict(self.texts))

    def schemas(self) -> dict[int, bytes]:
        return self.texts

    def records(self, topic: str, partition: int) -> Any:
        yield from self._of(self.kept, topic, partition)

    def rows(self, table: str, partition: int) -> Any:
        yield from self._of(self.views, table, partition)

    def leaves(self, partition: int, count: int) -> bytes:
        return self.sealed_leaves.get(partition, b"")[: 32 * count]

    def recorded(self) -> list[list[Record]]:
        return [self.kept["recorded", number] for number in range(PARTITIONS)]

    @staticmethod
    def _of(lists: Any, name: str, partition: int) -> Iterable[Any]:
        if (name, partition) not in lists:
            raise verifier.Wrong(f"{name}/{partition}.ndjson: expected a file, found none")
        return cast(Iterable[Any], lists[name, partition])


class World:
    """Actors of the parties in `signing` sign, and must."""

    def __init__(self, seed: int, folder: Path, lives: list[list[e.Event]] | None = None, signing: Sequence[str] = ()) -> None:
        chance = random.Random(seed)
        log = self.log = MemoryLog(lambda: self._now)
        self._now = _milliseconds(START)
        self.voids = 0
        TOPICS.create(log, PARTITIONS)
        with Producer(log, TOPICS) as producer:
            producer.register([*registry_events(), *(event for party_id in signing for event in signing_party(party_id))])
            told = signed((event for life in lives or _lives(chance) for event in life), *signing)
            events = sorted(told, key=lambda event: event.meta.occurred_on)
            self.steps: list[list[int]] = []
            self.digests: list[bytes | None] = []
            self.visits: list[verifier.Memory] = []
            for number in range(SEALS):
                for event in events[number * len(events) // SEALS : (number + 1) * len(events) // SEALS]:
                    self._now = max(self._now, _milliseconds(event.meta.occurred_on))
                    producer.submit([event])
                _answer(log, folder / uuid4().hex, self.voids)
                if number % 2:
                    self.voids += _append_void(log, chance)
                self.steps.append(list(log.end_offsets(TOPICS.recorded).values()))
                recorded = [self._read(TOPICS.recorded, partition) for partition in range(PARTITIONS)]
                self.digests.append(view_digest(recorded) if number % 2 else None)
                self.visits.append(self._visit())

    def held(self, upto: int = SEALS, behind: int = 0) -> Held:
        """The export after so many seals, with views that lag so many entries behind in each partition."""
        sizes = self.steps[upto - 1]
        kept = {("recorded", number): self._read(TOPICS.recorded, number)[:size] for number, size in enumerate(sizes)}
        kept |= {("submitted", number): self._read(TOPICS.submitted, number) for number in range(PARTITIONS)}
        kept["registry", 0] = self._read(TOPICS.registry, 0)
        kept["checkpoints", 0] = sealed([kept["recorded", number] for number in range(PARTITIONS)], self.steps[:upto], digests=self.digests)
        ends = [max(0, size - behind) for size in sizes]
        leaves = {number: b"".join(leaf_hash(record.value or b"") for record in kept["recorded", number]) for number in range(PARTITIONS)}
        return Held(kept, projected([kept["recorded", number] for number in range(PARTITIONS)], ends), leaves, PARTITIONS, ends)

    def trust(self, visit: int | None = None) -> verifier.Trust:
        """The auditor, who saw the log after so many seals."""
        return verifier.Trust(TRUSTED, memory=None if visit is None else self.visits[visit - 1])

    def _visit(self) -> verifier.Memory:
        """What an auditor who is here now takes along."""
        records = [self._read(TOPICS.recorded, number) for number in range(PARTITIONS)]
        note = (sealed(records, self.steps, digests=self.digests)[-1].value or b"").decode()
        stands = []
        for topic, number in [(TOPICS.registry, 0), *((TOPICS.submitted, number) for number in range(PARTITIONS))]:
            tree = Tree()
            tree.extend([record.value or b"" for record in self._read(topic, number)])
            stands.append(verifier.Stand(tree.size, tree.root))
        return verifier.Memory(note, stands[0], tuple(stands[1:]))

    def _read(self, topic: str, partition: int) -> list[Record]:
        reader = self.log.reader(topic)
        reader.assign({partition: 0})
        found = reader.poll(10**6, 0).get(partition, [])
        reader.close()
        return [Record(one.offset, one.timestamp, one.key, one.value) for one in found]


TRUSTED = verifier.Key.parse(str(KEY.verifier))


def saved(held: Held, folder: Path) -> None:
    """As `export` writes it."""

    def put(name: str, lines: Sequence[Any]) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    for (topic, number), records in held.kept.items():
        put(f"{topic}/{number}.ndjson", [_as_json(one) for one in records])
    for (table, number), rows in held.views.items():
        put(f"views/{table}/{number}.ndjson", rows)
    (folder / "schemas").mkdir()
    for schema_id, schema in held.texts.items():
        (folder / "schemas" / f"{schema_id}.avsc").write_bytes(schema)
    about = {"format": verifier.EXPORT, "partitions": held.partitions, "views": held.view_ends, "key": str(KEY.verifier)}
    (folder / "about.json").write_text(json.dumps(about))


def proved(held: Held, donation_id: str, since: int | None = None) -> dict[str, Any]:
    """As `prove` makes it, but for the registry, which is there as a whole."""
    number = partition_of(donation_id.encode(), PARTITIONS)
    records = held.kept["recorded", number]
    values = [record.value or b"" for record in held.kept["checkpoints", 0]]
    manifests, notes = values[::2], values[1::2]
    seals, log = Subtrees([leaf_hash(one) for one in manifests]), Subtrees([leaf_hash(record.value or b"") for record in records])
    counting = [one.entry.record for one in judged(records, number) if one.reason is None and one.entry.donation_id == donation_id]

    def texts(path: list[bytes]) -> list[str | None]:
        return [_text(one) for one in path]

    bundle = {
        "format": verifier.BUNDLE,
        "donation_id": donation_id,
        "key": str(KEY.verifier),
        "checkpoint": notes[-1].decode(),
        "manifest": {"text": manifests[-1].decode(), "path": texts(inclusion_path(len(manifests) - 1, len(manifests), seals.node))},
        "entries": [
            _as_json(Record(*record[1:])) | {"path": texts(inclusion_path(record.offset, len(records), log.node))} for record in counting
        ],
        "registry": [_as_json(record) for record in held.kept["registry", 0]],
        "schemas": {str(schema_id): text.decode() for schema_id, text in held.texts.items()},
        "views": {
            table: [row for row in held.views[table, number] if row["donation_id"] == donation_id]
            for table in ("donations", "amounts", "approvals")
        },
    }
    if since is not None:
        bundle["consistency"] = {"from": since, "path": texts(consistency_path(since, len(manifests), seals.node))}
    found: dict[str, Any] = json.loads(json.dumps(bundle))
    return found


def _as_json(record: Record) -> dict[str, Any]:
    return record._asdict() | {"key": _text(record.key), "value": _text(record.value)}


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def sealed(
    recorded: Sequence[Sequence[Record]], steps: Sequence[Sequence[int]], key: SignerKey = KEY, digests: Sequence[bytes | None] = ()
) -> list[Record]:
    """The topic `checkpoints`: what whoever holds the key signs for these records, a seal for each step (a size of each partition)."""
    trees, seals = [Tree() for _ in recorded], Tree()
    last: Manifest | None = None
    values: list[bytes] = []
    for sizes, digest in zip_longest(steps, digests[: len(steps)]):
        for tree, records, size in zip(trees, recorded, sizes, strict=True):
            tree.extend([record.value or b"" for record in records[tree.size : size]])
        last = Manifest.after(last, key.name, tuple(Stand(tree.size, tree.root) for tree in trees), digest)
        seals.append(last.encode())
        text = str(Checkpoint(key.name, seals.size, seals.root))
        values += [last.encode(), Note(text, (sign(text, key),)).encode()]
    return [Record(offset, 0, key.name.encode(), value) for offset, value in enumerate(values)]


def projected(recorded: Sequence[Sequence[Record]], ends: Sequence[int]) -> dict[tuple[str, int], list[Row]]:
    """The rows that Aidtrail's own projection makes of the records before `ends`, as an export has them."""
    return _notebook(recorded, ends).export(len(recorded))


def view_digest(recorded: Sequence[Sequence[Record]]) -> bytes:
    """Of Aidtrail's own views, when they have all of it."""
    claims = _notebook(recorded, [len(records) for records in recorded]).claims
    places = {number: Place(end, *tail, codec.sha256(to_bytes(rows_sum or 0))) for number, (end, tail, _, rows_sum) in claims.items()}
    return Cut(places).sha256


def _notebook(recorded: Sequence[Sequence[Record]], ends: Sequence[int]) -> "Notebook":
    notebook = Notebook()
    projection = Projection(cast(Writer, notebook), len(recorded))
    for number, records in enumerate(recorded):
        projection.claim(number)
        within: Any = [_Placed(number, *record) for record in records if record.offset < ends[number]]
        if within:
            projection.project({number: within})
    projection.settle()
    projection.close()
    return notebook


class _Placed(tuple[Any, ...]):
    """A record that knows its partition."""

    def __new__(cls, partition: int, *record: Any) -> "_Placed":
        return super().__new__(cls, (partition, *record))

    topic = TOPICS.recorded
    partition = property(lambda self: self[0])
    offset = property(lambda self: self[1])
    timestamp = property(lambda self: self[2])
    key = property(lambda self: self[3])
    value = property(lambda self: self[4])


class Judged(NamedTuple):
    """An entry, and why it is void, or None."""

    entry: Entry
    reason: str | None


def judged(records: Sequence[Record], partition: int) -> list[Judged]:
    """What each record of a partition of `recorded` is to Aidtrail's own readers."""
    tail, heads, found = NO_TAIL, dict[str | None, Head](), []
    for record in records:
        entry = read_entry(cast(Any, _Placed(partition, *record)))
        reason = void_reason(entry, tail, heads.get(entry.donation_id, NO_HEAD), PARTITIONS)
        found.append(Judged(entry, reason))
        if reason is None and entry.event is not None and entry.event.meta.ledger is not None:
            stamp = entry.event.meta.ledger
            tail = Tail(stamp.submitted_offset, codec.sha256(entry.value))
            if not entry.refused:
                heads[entry.donation_id] = Head(stamp.version, tail.sha256)
    return found


def _a_moment_later(event: e.Event) -> e.Event:
    return event.model_copy(update={"meta": event.meta.model_copy(update={"occurred_on": event.meta.occurred_on.replace(microsecond=1)})})


def rewrite(
    held: Held,
    number: int,
    at: int,
    change: Callable[[e.Event], e.Event] = _a_moment_later,
    *,
    answer_later: int = 0,
    registry_offsets: Mapping[int, int] | None = None,
) -> None:
    """Let the entry at this offset of a partition say something else, and chain everything after it anew; forge its submission too. With
    `answer_later` all entries answer submissions that are so much later; `registry_offsets` are the stamps of some entries, by their
    offsets. A forger who can write to all topics does this."""
    records = held.kept["recorded", number]
    tail, heads = NO_TAIL, dict[str | None, Head]()
    for entry, reason in judged(records, number):
        if reason is not None:
            continue
        assert entry.event is not None
        stamp = entry.event.meta.ledger
        assert stamp is not None
        submission, ledger_at = codec.unstamped(entry.value, entry.ledger_at, stamp), entry.ledger_at
        if entry.record.offset == at:
            forged = change(entry.event)
            submission = codec.encode(forged.model_copy(update={"meta": forged.meta.model_copy(update={"ledger": None})}))
            ledger_at = codec.read(submission)[1]
            if not entry.refused:
                submitted = held.kept["submitted", number]
                submitted[stamp.submitted_offset] = submitted[stamp.submitted_offset]._replace(value=submission)
        head = heads.get(entry.donation_id, NO_HEAD)
        new = stamp.model_copy(
            update={
                "previous_outcome_sha256": tail.sha256,
                "previous_sha256": head.sha256,
                "submitted_offset": stamp.submitted_offset + answer_later,
                "registry_offset": (registry_offsets or {}).get(entry.record.offset, stamp.registry_offset),
            }
        )
        value = codec.stamped(submission, ledger_at, new)
        records[entry.record.offset] = records[entry.record.offset]._replace(value=value)
        tail = Tail(new.submitted_offset, codec.sha256(value))
        if not entry.refused:
            heads[entry.donation_id] = Head(stamp.version, codec.sha256(value))


class Notebook:
    """Stands in for the writer: keeps the rows that a projection writes."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[tuple[Any, ...], Row]] = {table: {} for table in COLUMNS}
        self.claims: dict[int, Claim] = {}

    def claim(self, partition: int) -> Claim:
        self.claims[partition] = Claim(0, NO_TAIL, 1, 0)
        return self.claims[partition]

    def load(self, donation_ids: Sequence[str]) -> dict[str, Any]:
        return {}

    def parked(self, donation_ids: Sequence[str] | None = None) -> dict[str, int]:
        return {}

    def write(self, batch: Batch) -> None:
        self.claims |= {partition: moved for partition, (_, moved) in batch.moves.items()}
        for table, rows in batch.rows.items():
            for values in rows:
                row = {name: value.obj if isinstance(value, Jsonb) else value for name, value in zip(COLUMNS[table], values, strict=True)}
                if table == "amounts":
                    row = {name: f"{value:.4f}" if name in AMOUNTS else value for name, value in row.items()}  # numeric(19,4)
                if table == "entries":
                    row["value_sha256"] = codec.sha256(row.pop("value"))
                self._rows[table][tuple(row[name] for name in KEYS.get(table, ("partition", "offset")))] = row

    def close(self) -> None:
        pass

    def export(self, partitions: int) -> dict[tuple[str, int], list[Row]]:
        found: dict[tuple[str, int], list[Row]] = {(table, number): [] for table in COLUMNS for number in range(partitions)}
        for table, rows in self._rows.items():
            for key in sorted(rows):
                row = rows[key]
                number = row["partition"] if "partition" in row else self._rows["donations"][row["donation_id"],]["partition"]
                found[table, number].append(json.loads(shapes.to_json(row)))
        return found


def _lives(chance: random.Random) -> list[list[e.Event]]:
    """The events of some donations: lawful ones, disorderly ones, an observed one, one that changes its currency."""
    lives: list[list[e.Event]] = []
    for number in range(1, 5):
        start = START + timedelta(hours=chance.randrange(48))
        life = list(full_life(f"KRCS-2026-{number:04d}", start))
        lives.append(life[: chance.randrange(3, len(life) + 1)] if number < 3 else _disorderly(life, chance))
    acts = Acts("FTS-2020-0007", START)
    lives.append(
        [acts.observed(), acts.reported(), acts.returned("P1", "100", by="fts-import"), acts.approved(), acts.reported("P2", "50")]
    )
    acts = Acts("KRCS-2026-0008", START)
    lives.append([acts.announced(), acts.amended(amounts=(money("70", "USD"),)), acts.requested("A1", "70"), acts.withdrawn()])
    return lives


def _disorderly(life: list[e.Event], chance: random.Random) -> list[e.Event]:
    """Some events are missing, and some come twice: so others are refused."""
    return [event for event in life for _ in range(chance.choices([1, 0, 2], [18, 1, 1])[0])]


def _answer(log: MemoryLog, folder: Path, voids: int) -> None:
    running = Ledger(log, TOPICS, folder, group="ledger")
    while sum(log.end_offsets(TOPICS.recorded).values()) < sum(log.end_offsets(TOPICS.submitted).values()) + voids:
        running.turn()
    running.close()


def _append_void(log: MemoryLog, chance: random.Random) -> int:
    """An entry again, as a ledger does that woke up late; and something that is no entry at all."""
    number = chance.randrange(PARTITIONS)
    reader = log.reader(TOPICS.recorded)
    reader.assign({number: 0})
    records = reader.poll(10**6, 0).get(number, [])
    appender = log.appender()
    drafts = [Draft(TOPICS.recorded, number, b"KRCS-2026-0001", b"nothing that is an entry")]
    if records:
        again = chance.choice(records)
        drafts.append(Draft(TOPICS.recorded, number, again.key or b"", again.value or b""))
    appender.append(drafts)
    return len(drafts)


def _milliseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
