"""Exports and bundles of real logs and real views: what is sound passes, and what somebody changes in them, in PostgreSQL or in Kafka's
segment files, is found.

AIDTRAIL_SEED is the seed of another run. The default run makes SQL and SEGMENTS trials, `make test-long` ten times as many.
"""

import base64
import json
import os
import random
import struct
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import crc32c
import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from aidtrail.audit import verifier
from aidtrail.audit.checkpoints import published
from aidtrail.audit.evidence import _sealed_leaves, export, prove
from aidtrail.audit.folder import Folder
from aidtrail.audit.manifest import Manifest
from aidtrail.audit.note import COSIGNATURE, Checkpoint, Note, cosign, parse, sign
from aidtrail.audit.seal import Sealer
from aidtrail.audit.tiles import TiledTree, partition_folder
from aidtrail.domain.events import PartyRegistered
from aidtrail.errors import UnavailableError, UsageError
from aidtrail.log import Draft, Log, partition_of
from aidtrail.log.kafka import KafkaLog
from aidtrail.producer import Producer
from aidtrail.views import schema
from aidtrail.views.writer import COLUMNS
from tests.acts import Acts, full_life, money
from tests.brokers import Broker
from tests.conftest import require_kafka
from tests.pipeline import TOPICS, Pipeline
from tests.signers import signer
from tests.signing import signed, signing_party

SEED = int(os.environ.get("AIDTRAIL_SEED", "20260105"))
SQL, SEGMENTS, BUNDLES = 15, 100, 100
KEY = signer("aidtrail.example/log")
WITNESS = signer("witness.example/w", COSIGNATURE)
TRUST = verifier.Trust(verifier.Key.parse(str(KEY.verifier)))
LIFE, AMENDED, SIGNED = "KRCS-2026-0001", "KRCS-2026-0002", "KRCS-2026-0003"
SIGNATURES = sum(event.meta.actor.party_id == "MEF" for event in full_life(SIGNED))
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)


class Sealed:
    """A pipeline with two lives and some refusals, all of it sealed and in the views. In the second life the ministry signs."""

    def __init__(self, database: str, folder: Path, log: Log | None = None) -> None:
        self.pipeline = Pipeline(database, folder / "ledger", log)
        self.log, self.database, self.tiles = self.pipeline.log, database, folder / "seal"
        self.pipeline.submit(list(full_life(LIFE, NOW))[:20])
        self.seal()
        acts = Acts(AMENDED, NOW)
        others = [acts.announced(), acts.released(), acts.amended(amounts=(money("70", "USD"),)), acts.requested("A1"), acts.withdrawn()]
        with Producer(self.log, TOPICS) as producer:
            producer.register([event for event in signing_party("MEF") if not isinstance(event, PartyRegistered)])
        self.pipeline.submit([*list(full_life(LIFE, NOW))[20:], *others, *signed(full_life(SIGNED, NOW), "MEF")])
        self.seal()

    def seal(self) -> None:
        sealer = Sealer(self.log, TOPICS, KEY, self.tiles, seal_seconds=0.0)
        while sealer.turn():
            pass
        sealer.close()

    def export(self, folder: Path) -> Path:
        export(self.log, TOPICS, self.database, KEY.verifier, folder, tiles=self.tiles)
        return folder


@pytest.fixture(scope="module")
def subject(postgres_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    database = postgres_server.create_database()
    made = Sealed(database, tmp_path_factory.mktemp("sealed"))
    yield made
    made.pipeline.close()


def test_an_export_is_found_sound_also_without_the_seals_tiles(subject: Sealed, tmp_path: Path) -> None:
    report = verifier.verify(subject.export(tmp_path / "with"), TRUST)
    export(subject.log, TOPICS, subject.database, KEY.verifier, tmp_path / "without")

    print(report.line())
    assert report.findings == []
    assert (report.exit_code, report.admitted, report.refused) == (0, 33 + 33 + 3, 2)
    assert report.rows > 71
    assert report.signers.total() == SIGNATURES > 0
    assert f"69 admitted (signed by their actors: {SIGNATURES}) and 2 refused entries" in " ".join(verifier.lines(report, TRUST))
    assert (tmp_path / "with" / "leaves").is_dir()
    assert verifier.verify(tmp_path / "without", TRUST).exit_code == 0
    with pytest.raises(UsageError, match="expected a folder that can be made"):
        subject.export(tmp_path / "with")


def test_leaves_are_read_while_the_seal_fills_a_tile_and_takes_its_partial_ones_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = [bytes([number]) * 32 for number in range(256)]
    folder, read = Folder(tmp_path), Path.read_bytes
    tree = TiledTree(folder, partition_folder(0))
    tree.extend_hashes(hashes[:200])
    tree.save()
    (tmp_path / "partition/0/tile/0/000.p/201.new").write_bytes(bytes(32 * 201))

    def read_late(path: Path) -> bytes:
        if path.name == "200" and tree.size == 200:
            (path.parent / "201.new").unlink()
            tree.extend_hashes(hashes[200:])
            folder.tidy()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_late)

    assert _sealed_leaves(tmp_path, 0, 200) == b"".join(hashes[:200])
    assert not (tmp_path / "partition/0/tile/0/000.p").exists()


def test_what_is_not_sealed_yet_is_waited_for_and_an_entry_that_is_void_is_in_the_export_and_in_no_bundle(
    postgres_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = postgres_server.create_database()
    made = Sealed(database, tmp_path)
    number = partition_of(LIFE.encode(), 4)
    reader = made.log.reader(TOPICS.recorded)
    reader.assign({number: 0})
    again = reader.poll(1, 1.0)[number][0]
    appender = made.log.appender()
    appender.append([Draft(TOPICS.recorded, number, again.key or b"", again.value or b"")])
    made.pipeline.catch_up_views()
    with monkeypatch.context() as patched:
        patched.setattr("aidtrail.audit.evidence.SEAL_SECONDS", 0.1)
        with pytest.raises(UnavailableError, match="has sealed 71 entries: is 'aidtrail audit seal' running with this key"):
            made.export(tmp_path / "export")
    made.seal()

    report = verifier.verify(made.export(tmp_path / "export"), TRUST)
    bundle = prove(made.log, TOPICS, database, KEY.verifier, LIFE)
    made.pipeline.close()

    assert (report.exit_code, report.void) == (0, 1)
    assert len(bundle["entries"]) == 33
    assert verifier.verify_bundle(bundle, TRUST).exit_code == 0


def test_what_a_stranger_says_of_the_views_in_the_topic_comes_into_no_export(postgres_server: Any, tmp_path: Path) -> None:
    """He has no key, but may append: the manifest that comes next, of right roots and a digest that is false."""
    made = Sealed(postgres_server.create_database(), tmp_path)
    found = [published(record, KEY.verifier) for record in verifier_records(made)]
    last = [one for one in found if isinstance(one, Manifest)][-1]
    false = Manifest.after(last, KEY.name, last.partitions, b"\xee" * 32)
    made.log.appender().append([Draft(TOPICS.checkpoints, 0, b"?", false.encode())])
    before = made.export(tmp_path / "before")
    made.pipeline.submit([Acts("KRCS-2026-0004", NOW).announced()])
    made.seal()
    after = made.export(tmp_path / "after")
    made.pipeline.close()

    for folder in (before, after):
        report = verifier.verify(folder, TRUST)
        assert (report.findings, report.exit_code) == ([], 0)
        assert base64.b64encode(false.encode()).decode() not in (folder / "checkpoints" / "0.ndjson").read_text()


def test_who_writes_the_newest_note_again_takes_no_cosignature_away(postgres_server: Any, tmp_path: Path) -> None:
    """Bare, or with a line that is wrong; before the seal's own note, as a witness could who is asked first, and after it."""
    made = Sealed(postgres_server.create_database(), tmp_path)
    memory: Any = made.log
    topic = memory._topics[TOPICS.checkpoints][0]
    bare = parse(topic[-1].value)
    cosignature = cosign(bare.text, WITNESS, 1_764_000_000)
    wrong = cosignature._replace(value=bytes(72))
    cosigned, spoiled = (Note(bare.text, (*bare.signatures, line)) for line in (cosignature, wrong))
    policy = verifier.Policy.parse(f"log {KEY.verifier}\nwitness w {WITNESS.verifier}\nquorum w\n")
    own = topic.pop()
    for number, notes in enumerate(([cosigned], [cosigned, bare, spoiled], [bare, spoiled, cosigned], [bare, spoiled])):
        topic[own.offset :] = [own._replace(offset=own.offset + at, value=note.encode()) for at, note in enumerate(notes)]
        trust = TRUST._replace(policy=policy)
        report = verifier.verify(made.export(tmp_path / str(number)), trust)
        bundle = prove(made.log, TOPICS, made.database, KEY.verifier, LIFE)

        expected = 0 if cosigned in notes else 11
        assert (report.exit_code, verifier.verify_bundle(bundle, trust).exit_code) == (expected, expected), number
    made.pipeline.close()


def test_bundles_of_every_donation_are_found_sound(subject: Sealed) -> None:
    for donation_id, count, signatures in ((LIFE, 33, 0), (AMENDED, 5, 0), (SIGNED, 33, SIGNATURES)):
        bundle = json.loads(json.dumps(prove(subject.log, TOPICS, subject.database, KEY.verifier, donation_id)))
        report = verifier.verify_bundle(bundle, TRUST)
        assert report.findings == []
        assert (report.exit_code, report.records, report.signers.total()) == (0, count, signatures)

    with pytest.raises(UsageError, match="expected a donation that was announced"):
        prove(subject.log, TOPICS, subject.database, KEY.verifier, "KRCS-2026-9999")


def test_a_bundle_shows_that_it_continues_what_the_auditor_saw(subject: Sealed) -> None:
    early = prove(subject.log, TOPICS, subject.database, KEY.verifier, LIFE)
    size = verifier.verify_bundle(early, TRUST).checkpoint.size  # type: ignore[union-attr]
    notes = [record.value for record in verifier_records(subject) if b"manifest" not in (record.value or b"")]
    memory = verifier.Memory((notes[0] or b"").decode())
    seen = TRUST.open(notes[0] or b"").size

    text = str(Checkpoint(KEY.name, seen, bytes(32)))
    another_history = verifier.Memory(Note(text, (sign(text, KEY),)).encode().decode())

    def exit_code(since: int | None, memory: verifier.Memory = memory) -> int:
        bundle = prove(subject.log, TOPICS, subject.database, KEY.verifier, LIFE, since=since)
        return verifier.verify_bundle(bundle, TRUST._replace(memory=memory)).exit_code

    assert seen < size
    assert [exit_code(seen), exit_code(None), exit_code(seen + 1 if seen + 1 < size else None)] == [0, 11, 11]
    assert exit_code(seen, another_history) == 11
    with pytest.raises(UsageError, match="--since"):
        exit_code(size + 1)


def verifier_records(subject: Sealed) -> list[Any]:
    reader = subject.log.reader(TOPICS.checkpoints)
    reader.assign({0: 0})
    return reader.poll(1000, 1.0)[0]


def test_the_commands_take_a_log_home_and_check_it(subject: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aidtrail.cli import app
    from aidtrail.cli.backends import Backends

    monkeypatch.setattr(Backends, "log", subject.log)
    monkeypatch.setenv("AIDTRAIL_VIEWS", subject.database)
    monkeypatch.setenv("AIDTRAIL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    key = str(KEY.verifier)

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["audit", *words])
        return done.exit_code, done.output

    assert run("export", "taken", "--key", key)[0] == 0
    assert run("prove", LIFE, "--key", key, "-o", "bundle.json")[1] == f"bundle.json: 33 entries of {LIFE}\n"
    code, said = run("verify", "taken", "--key", key, "--last", "last.json")
    assert (code, "C3 holds" in said, Path("last.json").exists()) == (0, True, True)
    code, said = run("verify", "bundle.json", "--key", key)
    assert (code, "C4 holds" in said) == (0, True)
    bundle = json.loads(Path("bundle.json").read_text())
    bundle["views"]["amounts"][0]["settled"] = "1.0000"
    Path("bundle.json").write_text(json.dumps(bundle))
    code, said = run("verify", "bundle.json", "--key", key)
    assert (code, f"C4 fails: view amounts {LIFE}/KWD" in said) == (14, True)
    assert run("verify", "bundle.json")[0] == 2
    for option in ("--policy", "--last"):
        Path("-own").write_bytes(b"\xff\0")
        code, said = run("verify", "taken", "--key", key, f"{option}=-own")
        assert (code, said.count("\n"), Path("-own").read_bytes()) == (2, 1, b"\xff\0")


# --- a bundle that somebody changed -------------------------------------------------------------------------------------------------


def test_a_bundle_that_was_changed_anywhere_is_found(subject: Sealed) -> None:
    _change_bundles(subject, BUNDLES)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_bundle_that_was_changed_anywhere_is_found_a_thousand_times(subject: Sealed) -> None:
    _change_bundles(subject, 10 * BUNDLES)


def _change_bundles(subject: Sealed, trials: int) -> None:
    """A character of any text, but of those that nothing signs: append times, and what the registry says (an export covers that)."""
    whole = json.dumps(prove(subject.log, TOPICS, subject.database, KEY.verifier, LIFE))
    missed = []
    for trial in range(trials):
        chance = random.Random(f"{SEED}/bundle/{trial}")
        bundle = json.loads(whole)
        match chance.randrange(8):
            case 0:
                del bundle["entries"][chance.randrange(len(bundle["entries"]))]
            case 1:
                bundle["entries"].append(chance.choice(bundle["entries"]))
            case 2:
                chance.shuffle(bundle["entries"])
            case _:
                part = chance.choice(["entries", "manifest", "checkpoint", "views", "schemas"])
                _change(bundle, part, chance)
        if verifier.verify_bundle(bundle, TRUST).exit_code == 0:
            missed.append(trial)
    print(f"bundles: {trials} trials, missed {len(missed)}")
    assert missed == []


def _change(node: Any, name: Any, chance: random.Random) -> None:
    """Some text or number under node[name]."""
    inner = node[name]
    if isinstance(inner, dict | list) and inner:
        names = [one for one in inner if one != "timestamp"] if isinstance(inner, dict) else range(len(inner))
        _change(inner, chance.choice(list(names)), chance)
    elif isinstance(inner, str) and inner:
        place = chance.randrange(len(inner))
        node[name] = inner[:place] + chance.choice([one for one in "0aZ7=" if one != inner[place]]) + inner[place + 1 :]
    elif isinstance(inner, int):
        node[name] = inner + chance.choice([-1, 1])
    else:
        node[name] = "something"


# --- views that somebody changed by SQL ---------------------------------------------------------------------------------------------


def test_a_view_row_that_was_changed_by_sql_is_found(subject: Sealed, tmp_path: Path) -> None:
    _change_views(subject, tmp_path, SQL)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_view_row_that_was_changed_by_sql_is_found_many_times(subject: Sealed, tmp_path: Path) -> None:
    _change_views(subject, tmp_path, 10 * SQL)


def _change_views(subject: Sealed, folder: Path, trials: int) -> None:
    """A field, a row gone or a row more, in any of the tables; then the table is as it was."""
    missed = []
    tables = ["entries", "refusals", "donations", "amounts", "approvals"]
    with schema.connect(subject.database) as connection:
        connection.autocommit = True
        build = schema.live_build(connection) or ""
        for trial in range(trials):
            chance = random.Random(f"{SEED}/sql/{trial}")
            table = sql.Identifier(build, tables[trial % len(tables)])
            connection.execute(sql.SQL("CREATE TABLE public.kept AS TABLE {}").format(table))
            said = _change_by_sql(connection, table, tables[trial % len(tables)], chance)
            report = verifier.verify(subject.export(folder / f"sql-{trial}"), TRUST)
            if report.exit_code != 13 or not report.rows_differing or "C1" in report.failing:
                missed.append((trial, said, report.line()))
            connection.execute(sql.SQL("TRUNCATE {0}; INSERT INTO {0} TABLE public.kept; DROP TABLE public.kept").format(table))
    print(f"view rows by SQL: {trials} trials, missed {len(missed)}")
    assert missed == []
    assert verifier.verify(subject.export(folder / "after"), TRUST).exit_code == 0


def _change_by_sql(connection: schema.Connection, table: sql.Identifier, name: str, chance: random.Random) -> str:
    row: Any = chance.choice(connection.execute(sql.SQL("SELECT ctid::text FROM {} ORDER BY ctid").format(table)).fetchall())[0]
    way = chance.randrange(4)
    if way == 0:
        connection.execute(sql.SQL("DELETE FROM {} WHERE ctid = %s::tid").format(table), (row,))
        return f"deleted {row}"
    columns = {column: kind for column, kind in COLUMNS[name].items() if way == 1 or column not in ("partition", "offset")}
    column = chance.choice([column for column, kind in columns.items() if kind in _CHANGES])
    change = _CHANGES[COLUMNS[name][column]]
    statement = sql.SQL("UPDATE {} SET {} = {} WHERE ctid = %s::tid").format(
        table,
        sql.Identifier(column),
        sql.SQL(change).format(sql.Identifier(column)),  # type: ignore[arg-type]
    )
    try:
        connection.execute(statement, (row,))
    except psycopg.errors.UniqueViolation:
        connection.execute(sql.SQL("DELETE FROM {} WHERE ctid = %s::tid").format(table), (row,))
    return f"{name}.{column}"


_CHANGES = {
    "text": "coalesce({0}, '') || 'X'",
    "int4": "coalesce({0}, 0) + 1",
    "int8": "coalesce({0}, 0) + 1000",
    "numeric": "{0} + 0.0001",
    "timestamptz": "coalesce({0}, now()) + interval '1 microsecond'",
    "bytea": "set_bit({0}, 3, 1 - get_bit({0}, 3))",
    "text[]": "{0} || 'KRCS'::text",
    "jsonb": """{0} || '{{"EUR": "1.0000"}}'::jsonb""",
    "uuid": "gen_random_uuid()",
}
"""By the type of a column: another value for it."""


# --- Kafka's own files --------------------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """A record batch, version 2, as it stands in a segment file: its checksum, and the bytes that it is of (from `attributes` on)."""

    begin: int
    end: int


def _batches(segment: bytes) -> Iterator[Batch]:
    begin = 0
    while begin + 61 <= len(segment):
        (length,) = struct.unpack_from(">i", segment, begin + 8)
        if length <= 0:
            return
        yield Batch(begin, begin + 12 + length)
        begin += 12 + length


def _records(segment: bytes) -> list[verifier.Record]:
    """What a reader that checks nothing but lengths makes of a segment file. Raises ValueError or IndexError where it cannot."""
    found = []
    for batch in _batches(segment):
        base, _, _, _, _, attributes, _, _, max_time = struct.unpack_from(">qiibIhiqq", segment, batch.begin)
        (count,) = struct.unpack_from(">i", segment, batch.begin + 57)
        if attributes & 7 or not 0 <= count <= batch.end - batch.begin:
            raise ValueError("compressed, or no batch")
        at = batch.begin + 61
        for _ in range(count):
            length, at = verifier._number(segment, at)
            begin, end = at + 1, at + length
            if not begin <= end <= batch.end:
                raise ValueError("a record that ends after its batch")
            _, at = verifier._number(segment, begin)
            delta, at = verifier._number(segment, at)
            parts: list[bytes | None] = []
            for _ in range(2):
                size, at = verifier._number(segment, at)
                if size > end - at:
                    raise ValueError("a part that ends after its record")
                parts.append(None if size < 0 else segment[at : at + size])
                at += max(size, 0)
            found.append(verifier.Record(base + delta, max_time, *parts))
            at = end
    return found


def _segments(broker: Broker, topic: str = TOPICS.recorded) -> dict[int, Path]:
    """The one segment file of each partition that has records."""
    paths = [path for path in broker._folder.rglob(f"{topic}-*/00000000000000000000.log") if path.stat().st_size]
    return {int(path.parent.name.rpartition("-")[2]): path for path in paths}


def test_a_bit_that_flips_in_kafkas_segment_files_is_found(subject: Sealed, broker: Broker, topic: str, tmp_path: Path) -> None:
    _flip_in_segments(subject, broker, topic, tmp_path, SEGMENTS)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_bit_that_flips_in_kafkas_segment_files_is_found_a_thousand_times(
    subject: Sealed, broker: Broker, topic: str, tmp_path: Path
) -> None:
    _flip_in_segments(subject, broker, topic, tmp_path, 10 * SEGMENTS)


def _flip_in_segments(subject: Sealed, broker: Broker, topic: str, folder: Path, trials: int) -> None:
    """The log is copied to a topic of Kafka, and altered in the files that the broker made of it. The checksum is made right again, as a
    forger does. What is read back is either what it was (the bit was in no record, such as the epoch of a leader), or it is no batch any
    more, or the verifier finds it."""
    whole = subject.export(folder / "whole")
    source = verifier.Source(whole)
    with closing(KafkaLog(broker.addresses)) as log, closing(log.appender()) as appender:
        log.create_topic(topic, source.partitions)
        for number in range(source.partitions):
            appender.append([Draft(topic, number, one.key or b"", one.value or b"") for one in source.records("recorded", number)])
    files = _segments(broker, topic)
    assert sum(len(_records(path.read_bytes())) for path in files.values()) == 71
    outcomes = dict.fromkeys(("found by the verifier", "no batch any more", "in no record"), 0)
    missed = []
    for trial in range(trials):
        chance = random.Random(f"{SEED}/segment/{trial}")
        number = chance.choice(sorted(files))
        original = files[number].read_bytes()
        batch = chance.choice(list(_batches(original)))
        altered = bytearray(original)
        at = chance.randrange(8 * batch.begin, 8 * batch.end)
        altered[at // 8] ^= 1 << at % 8
        struct.pack_into(">I", altered, batch.begin + 17, crc32c.crc32c(bytes(altered[batch.begin + 21 : batch.end])))
        try:
            records = _records(bytes(altered))
        except (ValueError, IndexError, struct.error, verifier.Undecodable):
            outcomes["no batch any more"] += 1
            continue
        before = _records(original)
        if [(one.offset, one.key, one.value) for one in records] == [(one.offset, one.key, one.value) for one in before]:
            outcomes["in no record"] += 1
            continue
        report = verifier.verify_export(Replaced(whole, number, records), TRUST)
        if report.exit_code == 11:
            outcomes["found by the verifier"] += 1
        else:
            missed.append((trial, report.line(), report.findings[:2]))
    print(f"segment files: {trials} bits flipped, {outcomes}, missed {len(missed)}")
    assert missed == []
    assert outcomes["found by the verifier"] > trials // 2


class Replaced(verifier.Source):
    """An export in which a partition of `recorded` is what somebody reads now."""

    def __init__(self, folder: Path, number: int, records: list[verifier.Record]) -> None:
        super().__init__(folder)
        self._number, self._records = number, records

    def records(self, topic: str, partition: int) -> Iterator[verifier.Record]:
        if (topic, partition) == ("recorded", self._number):
            return iter(self._records)
        return super().records(topic, partition)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_value_that_is_changed_on_disk_under_a_stopped_broker_is_found_when_it_runs_again(postgres_server: Any, tmp_path: Path) -> None:
    """The forger mends the checksum, so Kafka and its clients notice nothing."""
    require_kafka()
    with Broker() as broker:
        subject = Sealed(postgres_server.create_database(), tmp_path / "sealed", KafkaLog(broker.addresses))
        subject.pipeline.close()
        found = 0
        for trial in range(5):
            chance = random.Random(f"{SEED}/disk/{trial}")
            number, path = chance.choice(sorted(_segments(broker).items()))
            original = path.read_bytes()
            record = chance.choice(_records(original))
            place = original.index(record.value or b"") + chance.randrange(10, len(record.value or b""))
            batch = next(one for one in _batches(original) if one.begin <= place < one.end)
            altered = bytearray(original)
            altered[place] ^= 1
            struct.pack_into(">I", altered, batch.begin + 17, crc32c.crc32c(bytes(altered[batch.begin + 21 : batch.end])))
            broker.stop()
            path.write_bytes(bytes(altered))
            broker.start()
            with closing(KafkaLog(broker.addresses)) as subject.log:
                report = verifier.verify(subject.export(tmp_path / f"export-{trial}"), TRUST)
            found += report.exit_code == 11 and report.first is not None and report.first[2:4] == (number, record.offset)
            broker.stop()
            path.write_bytes(original)
            broker.start()
    print(f"on disk under a stopped broker: 5 trials, found and named {found}")
    assert found == 5
