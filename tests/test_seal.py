"""The seal: what it signs is true and stays true, wherever it is killed and whatever is put back."""

import itertools
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY

from aidtrail.audit import cuts
from aidtrail.audit.checkpoints import SIGNATURE, Signed, drafted, is_signed, published, records
from aidtrail.audit.cuts import Cut, Place
from aidtrail.audit.keys import make_key, read_key
from aidtrail.audit.manifest import Manifest, Stand
from aidtrail.audit.merkle import root
from aidtrail.audit.note import COSIGNATURE, ED25519, Checkpoint, Note, SignerKey, sign
from aidtrail.audit.seal import SEAL_SECONDS, Sealer
from aidtrail.audit.sealed import CHECKPOINT, EVIDENCE, STATE
from aidtrail.audit.tiles import TiledTree
from aidtrail.errors import NoteError, SealError, UnavailableError, UsageError
from aidtrail.log import Draft, Log
from aidtrail.log.memory import MemoryLog
from aidtrail.log.postgres import PostgresLog
from tests.acts import Acts
from tests.bench.sealing import seconds_to_sealed
from tests.pipeline import TOPICS, Pipeline
from tests.sealing import KEY, Fragile, FragileLog, Killed, Subject, counted
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that finds nothing ends soon."""
    monkeypatch.setattr("aidtrail.audit.seal.POLL_SECONDS", 0.01)


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder in memory where there is such a thing: these tests write a hundred thousand small files."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder)


@pytest.fixture
def subject(memory_path: Path) -> Subject:
    return Subject(MemoryLog(), memory_path / "seal")


def test_every_record_is_a_leaf_and_comes_under_a_checkpoint(log: Log, topic: str, tmp_path: Path) -> None:
    subject = Subject(log, tmp_path, topic)
    for count in (1, 300, 700, 5):
        subject.record(count)
        subject.seal()

    assert subject.sealed_records() == 1006
    assert subject.require_true() >= 4
    end = log.end_offsets(subject.topics.checkpoints)[0]
    stated = [one for one in records(log, subject.topics.checkpoints, 0, end) if isinstance(published(one, KEY.verifier), Manifest)]
    assert [is_signed(record, KEY.verifier) for record in stated] == [True] * len(counted(subject.topic()))
    subject.require_files()


def test_tiles_are_whole_when_a_tree_of_manifests_fills_several(subject: Subject) -> None:
    with subject.sealer() as sealer:
        for _ in range(270):
            subject.record(2)
            sealer.turn()

    subject.require_true()
    subject.require_files()
    assert not list((subject.folder / "tile" / "0" / "000.p").glob("*")), "partial tiles of a full one are left"


def test_nothing_new_is_not_sealed_again(subject: Subject) -> None:
    subject.record(10)
    subject.seal()
    before = subject.log.end_offsets(subject.topics.checkpoints)
    for _ in range(3):
        with subject.sealer() as sealer:
            sealer.turn()
            sealer.turn()

    assert subject.log.end_offsets(subject.topics.checkpoints) == before


# --- killed at every step -----------------------------------------------------------------------------------------------------------


def begun(folder: Path) -> Subject:
    """Sealed so far that the next seals fill tiles."""
    subject = Subject(MemoryLog(), folder)
    subject.record(250, 0)
    subject.seal()
    return subject


def seal_under(subject: Subject, disk: Fragile) -> None:
    """Three seals, each of more, and after the second one of the views' digest."""
    log: Any = FragileLog(subject.log, disk)

    def live_cut() -> Cut:
        ends = log.end_offsets(subject.topics.recorded)
        return Cut({number: Place(end, -1, bytes(32), bytes(32)) for number, end in ends.items() if sum(ends.values()) == 250 + 10 + 300})

    with subject.sealer(log, disk=disk, live_cut=live_cut) as sealer:
        sealer.turn()
        for count in (10, 300, 5):
            subject.record(count)
            sealer.turn()


@pytest.mark.parametrize(
    ("lost", "seeds"),
    [
        ("nothing", [1]),
        ("the topic's end", [1]),
        pytest.param("the topic's end", [2, 3, 4], marks=pytest.mark.long),
        pytest.param("the folder", [1], marks=pytest.mark.long),
    ],
)
def test_killed_at_every_step_it_signs_one_history_and_goes_on(
    lost: str, seeds: list[int], memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either memory alone is enough. Where the topic loses its end the power is cut too: the folder has only what was synced."""
    monkeypatch.setattr("aidtrail.audit.seal.LOOK_SECONDS", 0.0)
    counting = Fragile(0)
    whole = begun(memory_path / "count")
    seal_under(whole, counting)
    assert [one.view is not None for one in counted(whole.topic())] == [False, False, False, True, False]
    checkpoints = 0
    for at, seed in itertools.product(range(1, counting.steps + 1), seeds):
        subject = begun(memory_path / f"{at}-{seed}")
        end = subject.log.end_offsets(subject.topics.checkpoints)[0]
        with pytest.raises(Killed):
            seal_under(subject, Fragile(at, random.Random(1000 * seed + at) if lost == "the topic's end" else None))
        if lost == "the topic's end":
            cut(subject.log, subject.topics.checkpoints, 0, end)
        elif lost == "the folder":
            shutil.rmtree(subject.folder)
        subject.record(7)
        subject.seal()
        subject.record(300)
        subject.seal()
        checkpoints += subject.require_true()
        subject.require_files()
        shutil.rmtree(subject.folder)
    print(f"{counting.steps} steps, killed at each, {lost} lost: {checkpoints} checkpoints signed, 0 conflicting")

    assert counting.steps > 50


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_append_whose_outcome_is_unknown_is_looked_up(subject: Subject, when: Any) -> None:
    log: Any = subject.log
    with subject.sealer() as sealer:
        sealer.turn()
        for _ in range(5):
            subject.record(10)
            log.fail_next_append = when
            sealer.turn()
            sealer.turn()

    subject.record(1)
    subject.seal()
    subject.require_true()
    subject.require_files()


# --- put back ------------------------------------------------------------------------------------------------------------------------


def copies(subject: Subject, count: int, where: Path) -> list[Path]:
    """Seal so often, with a copy of the folder after each."""
    made = []
    for number in range(count):
        subject.record(random.Random(number).randrange(1, 200))
        subject.seal()
        made.append(Path(shutil.copytree(subject.folder, where / str(number))))
    return made


def put_back(subject: Subject, copy: Path) -> None:
    shutil.rmtree(subject.folder)
    shutil.copytree(copy, subject.folder)


def test_with_an_older_folder_put_back_it_goes_on_from_the_topic(subject: Subject, tmp_path: Path) -> None:
    made = copies(subject, 8, tmp_path / "copies")
    for copy in made:
        put_back(subject, copy)
        subject.record(20)
        subject.seal()
        subject.require_files()
    print(f"{len(made)} backups put back: {subject.require_true()} checkpoints signed, 0 conflicting")


def test_without_its_folder_it_goes_on_from_the_topic(subject: Subject, tmp_path: Path) -> None:
    copies(subject, 3, tmp_path / "copies")
    shutil.rmtree(subject.folder)
    subject.record(20)
    subject.seal()

    subject.require_true()
    subject.require_files()


@pytest.mark.parametrize("left", range(0, 16, 3))
def test_a_topic_that_lost_its_end_is_given_it_again(subject: Subject, tmp_path: Path, left: int) -> None:
    copies(subject, 8, tmp_path / "copies")
    cut(subject.log, subject.topics.checkpoints, 0, left)
    subject.seal()
    subject.record(20)
    subject.seal()

    subject.require_true()
    subject.require_files()


def test_with_folder_and_topic_put_back_unequally_it_signs_one_history(memory_path: Path) -> None:
    for seed in range(8):
        rng = random.Random(seed)
        subject = Subject(MemoryLog(), memory_path / f"{seed}")
        made = copies(subject, 6, memory_path / f"{seed}-copies")
        keep_folder = rng.random() < 0.5  # one of the two memories is whole
        if keep_folder:
            cut(subject.log, subject.topics.checkpoints, 0, rng.randrange(12))
        else:
            put_back(subject, rng.choice(made))
        subject.record(5)
        subject.seal()
        subject.require_true()


def cut(log: Log, topic: str, partition: int, left: int) -> None:
    """Only so many records are left, as after a restore of an older copy."""
    memory: Any = log
    del memory._topics[topic][partition][left:]


# --- contradictions: nothing is signed -------------------------------------------------------------------------------------------------


def require_refused(subject: Subject, match: str, **options: Any) -> None:
    signed, end = len(subject.signed), subject.log.end_offsets(subject.topics.checkpoints)
    for _ in range(2):
        with pytest.raises(SealError, match=match), subject.sealer(**options) as sealer:
            sealer.turn()

    assert (len(subject.signed), subject.log.end_offsets(subject.topics.checkpoints)) == (signed, end)


def test_a_log_that_lost_its_end_is_not_sealed(subject: Subject) -> None:
    subject.record(30)
    subject.seal()
    cut(subject.log, subject.topics.recorded, 1, 4)

    require_refused(subject, "partition 1: expected 10 records, found its end at 4")
    assert list((subject.folder / EVIDENCE).glob("manifest-*"))


def test_a_log_that_lost_its_end_and_grew_again_is_not_sealed(subject: Subject) -> None:
    subject.record(30)
    subject.seal()
    cut(subject.log, subject.topics.recorded, 1, 4)
    subject.record(40)

    require_refused(subject, "partition 1 offset 9: the log is not as it was sealed")


def test_a_log_that_loses_its_end_under_a_running_seal_is_not_sealed(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aidtrail.audit.seal.LOOK_SECONDS", 0.0)
    subject.record(30)
    with subject.sealer() as sealer:
        sealer.turn()
        cut(subject.log, subject.topics.recorded, 1, 4)
        with pytest.raises((SealError, UnavailableError)):
            sealer.turn()

    require_refused(subject, "found its end at 4")


def test_a_rewritten_log_is_not_sealed_from_the_topic_alone(subject: Subject) -> None:
    subject.record(30)
    subject.seal()
    memory: Any = subject.log
    rewritten = memory._topics[subject.topics.recorded][2]
    rewritten[3] = rewritten[3]._replace(value=b"rewritten")
    shutil.rmtree(subject.folder)

    require_refused(subject, "manifest 0, partition 2: the log is not as it was sealed")


def test_two_histories_under_one_key_are_kept_as_evidence(subject: Subject, tmp_path: Path) -> None:
    """Folder and topic are both put back, and go on otherwise; then the first folder comes back."""
    subject.record(30)
    subject.seal()
    before = shutil.copytree(subject.folder, tmp_path / "before")
    subject.record(5)
    subject.seal()
    first = shutil.copytree(subject.folder, tmp_path / "first")
    put_back(subject, Path(before))
    cut(subject.log, subject.topics.checkpoints, 0, 2)
    subject.record(5)
    subject.seal()
    put_back(subject, Path(first))

    require_refused(subject, "topic and folder have two manifests 1")
    assert len(list((subject.folder / EVIDENCE).glob("manifest-1-*"))) == 2


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("where", ["topic", "folder"])
def test_a_checkpoint_of_another_history_by_its_own_key_ends_it(subject: Subject, size: int, where: str) -> None:
    subject.record(30)
    subject.seal()
    subject.record(30)
    subject.seal()
    text = str(Checkpoint(KEY.name, size, bytes(32)))
    other = Note(text, (sign(text, KEY),)).encode()
    if where == "folder":
        (subject.folder / CHECKPOINT).write_bytes(other)
    else:
        appender = subject.log.appender()
        appender.append([Draft(subject.topics.checkpoints, 0, b"?", other)])
        appender.close()

    require_refused(subject, "this key signed two histories" if size <= 2 else "only 2 manifests are left")
    assert other in [path.read_bytes() for path in (subject.folder / EVIDENCE).iterdir()]


@pytest.mark.parametrize("path", [STATE, CHECKPOINT, "partition/1/tile/0/000.p/12", "tile/0/000.p/1", "tile/entries/000.p/1"])
def test_a_damaged_folder_is_named_and_nothing_is_signed(subject: Subject, path: str) -> None:
    subject.record(36)
    subject.seal()
    file = subject.folder / path
    whole = bytearray(file.read_bytes())
    for at in range(0, len(whole), max(1, len(whole) // 40)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        file.write_bytes(damaged)
        with suppress(SealError, UsageError), subject.sealer() as sealer:
            sealer.turn()
            assert path == STATE, "only where it looks in the topic first can it do without"
    file.write_bytes(whole[:-1])
    require_refused(subject, "damaged")
    file.write_bytes(whole)
    subject.record(3)
    subject.seal()

    subject.require_true()
    subject.require_files()


def test_a_second_seal_in_the_same_folder_is_refused(subject: Subject) -> None:
    with subject.sealer(), pytest.raises(UnavailableError, match="another seal works in"), subject.sealer():
        pass


def test_a_folder_of_another_key_is_refused(subject: Subject) -> None:
    subject.record(1)
    subject.seal()
    with pytest.raises(UsageError, match="the seal's folder of another key"):
        Sealer(subject.log, subject.topics, SignerKey.generate("other.example"), subject.folder).turn()


def test_two_seals_with_one_key_sign_one_history(subject: Subject, tmp_path: Path) -> None:
    other = Subject(subject.log, tmp_path / "other")
    with subject.sealer() as one, other.sealer() as two:
        for turn in range(60):
            subject.record(3)
            (one, two)[turn % 3 % 2].turn()
    subject.signed += other.signed
    subject.seal()

    assert len(other.signed) > 5
    subject.require_true()


def test_what_others_write_into_the_topic_has_no_effect(subject: Subject, tmp_path: Path) -> None:
    """Whoever may append there can write the manifest that comes next, with the roots that are right and a digest that is not."""
    stranger, namesake = SignerKey.generate("stranger.example"), SignerKey.generate(KEY.name)
    topic, view = subject.topics.checkpoints, b"\xee" * 32
    appender = subject.log.appender()
    subject.record(3)

    def following(stands: tuple[Stand, ...] | None = None) -> bytes:
        subject.record(3)
        right = tuple(Stand(len(values), root(values)) for values in subject.values())
        return Manifest.after(counted(subject.topic())[-1], KEY.name, stands or right, view).encode()

    def drafts() -> Iterator[Draft]:
        yield Draft(topic, 0, b"?", b"")
        yield Draft(topic, 0, b"?", b"junk")
        yield Draft(topic, 0, b"?", Manifest.after(None, stranger.name, (Stand(9, bytes(32)),) * 3).encode())
        yield Draft(topic, 0, b"?", following())
        yield Draft(topic, 0, b"?", following((Stand(10**6, bytes(32)),) * 3))
        yield Draft(topic, 0, b"?", following(), [(SIGNATURE, b"junk")])
        yield Draft(topic, 0, b"?", following(), [(SIGNATURE, None)])  # type: ignore[list-item]
        yield drafted(following(), topic, namesake)
        copied = drafted(counted(subject.topic())[-1].encode(), topic, KEY)
        yield Draft(topic, 0, b"?", following(), copied.headers)
        first = following()
        yield Draft(topic, 0, b"?", first)
        yield Draft(topic, 0, b"?", Manifest.after(Manifest.parse(first), KEY.name, Manifest.parse(first).partitions).encode())

    with subject.sealer() as sealer:
        sealer.turn()
        for draft in drafts():
            appender.append([draft])
            subject.record(3)
            sealer.turn()
            sealer.turn()
    subject.seal()
    before = counted(subject.topic())
    shutil.rmtree(subject.folder)
    subject.record(1)
    subject.seal()

    assert [one.view for one in counted(subject.topic())] == [None] * (len(before) + 1)
    assert counted(subject.topic())[:-1] == before
    assert subject.require_true() >= 10
    subject.require_files()


def test_a_stranger_in_a_topic_that_was_put_back_does_not_pass_for_the_seal(subject: Subject) -> None:
    for _ in range(3):
        subject.record(6)
        subject.seal()
    chain = counted(subject.topic())
    cut(subject.log, subject.topics.checkpoints, 0, 2)
    false = Manifest.after(chain[0], KEY.name, chain[1].partitions, b"\xee" * 32)
    subject.log.appender().append([Draft(subject.topics.checkpoints, 0, b"?", false.encode())])
    subject.record(6)
    subject.seal()

    assert counted(subject.topic())[:3] == chain
    subject.require_true()
    subject.require_files()


@pytest.mark.parametrize("with_view", [False, True])
def test_what_was_signed_and_not_published_is_signed_again_from_the_topic_alone(
    subject: Subject, with_view: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was ended when a witness had the checkpoint already, and its folder is lost."""
    monkeypatch.setattr("aidtrail.audit.seal.LOOK_SECONDS", 0.0)
    signed: list[Note] = []
    cut_now = Cut({number: Place(10, -1, bytes(32), bytes(32)) for number in range(3)} if with_view else {})

    def cosign(note: Note, tree: TiledTree) -> Note:
        signed.append(note)
        if len(signed) == 1 + with_view:
            raise Killed
        return note

    subject.record(30)
    with pytest.raises(Killed), subject.sealer(cosign=cosign, live_cut=lambda: cut_now) as sealer:
        sealer.turn()
    shutil.rmtree(subject.folder)
    subject.record(6)
    subject.seal()

    assert [one.view is not None for one in counted(subject.topic())] == [False, *([True] if with_view else []), False]
    subject.signed += signed
    subject.require_true()


def test_a_checkpoint_over_what_a_stranger_wrote_is_another_history(subject: Subject) -> None:
    subject.record(6)
    subject.seal()
    (first,) = counted(subject.topic())
    others = [Manifest.after(first, KEY.name, first.partitions, b"\xee" * 32)]
    others.append(Manifest.after(others[0], KEY.name, first.partitions))
    appender = subject.log.appender()
    appender.append([Draft(subject.topics.checkpoints, 0, b"?", one.encode()) for one in others])
    subject.record(6)
    subject.seal()
    text = str(Checkpoint(KEY.name, 3, root([one.encode() for one in (first, *others)])))
    appender.append([Draft(subject.topics.checkpoints, 0, b"?", Note(text, (sign(text, KEY),)).encode())])
    shutil.rmtree(subject.folder)

    require_refused(subject, "only 2 manifests are left")


@pytest.mark.parametrize("left", ["every checkpoint", "the last checkpoint"])
def test_a_topic_of_a_release_that_signed_no_manifests_is_read_by_its_checkpoints(
    subject: Subject, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it appended again what the topic had lost, only the last checkpoint was written again."""
    monkeypatch.setattr("aidtrail.audit.seal.LOOK_SECONDS", 0.0)
    memory: Any = subject.log
    for _ in range(3):
        subject.record(6)
        ends = subject.log.end_offsets(subject.topics.recorded)
        cut_now = Cut({number: Place(end, -1, bytes(32), bytes(32)) for number, end in ends.items()})
        with subject.sealer(live_cut=lambda cut_now=cut_now: cut_now) as sealer:
            sealer.turn()
    before = counted(subject.topic())
    topic = memory._topics[subject.topics.checkpoints][0]
    kept = [record._replace(headers=()) for record in topic]
    if left == "the last checkpoint":
        kept = [record for record in kept[:-1] if not isinstance(published(record, KEY.verifier), Signed)] + kept[-1:]
    topic[:] = [record._replace(offset=offset) for offset, record in enumerate(kept)]
    shutil.rmtree(subject.folder)
    subject.record(6)
    subject.seal()

    assert sum(one.view is not None for one in before) == 3
    assert counted(subject.topic())[:-1] == before
    subject.require_true()
    subject.require_files()


# --- the views ---


def test_when_the_views_have_caught_up_their_digest_is_sealed(
    database_url: str, tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aidtrail.audit.seal.LOOK_SECONDS", 0.0)
    pipeline = Pipeline(database_url, tmp_path)
    acts = Acts("KRCS-2025-0042")
    stale: list[Cut] = []
    with closing(
        Sealer(
            pipeline.log,
            TOPICS,
            KEY,
            memory_path,
            seal_seconds=0.0,
            live_cut=lambda: stale.pop() if stale else cuts.of_live(database_url),
        )
    ) as sealer:
        for event in (acts.announced(), acts.confirmed()):
            stale.append(cuts.of_live(database_url))
            pipeline.submit([event])
            for _ in range(4):
                sealer.turn()
    end = pipeline.log.end_offsets(TOPICS.checkpoints)[0]
    manifests = counted([one for record in records(pipeline.log, TOPICS.checkpoints, 0, end) if (one := published(record, KEY.verifier))])

    views = [(manifest.records, manifest.view is not None) for manifest in manifests]
    assert views == [(1, False), (1, True), (2, False), (2, True)]
    newest = cuts.of_live(database_url).sha256
    assert manifests[-1].view == newest
    assert manifests[1].view != newest
    assert REGISTRY.get_sample_value("aidtrail_sealed_digest_timestamp_seconds")
    pipeline.close()


def test_views_that_give_no_digest_are_told_and_left_alone_for_a_while(
    subject: Subject, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aidtrail.audit.seal.LOOK_SECONDS", 0.0)
    where = {"PostgreSQL cannot be reached": "postgresql://nobody@127.0.0.1:1/none", "the schema live cannot be read": database_url}
    for number, (reason, views) in enumerate(where.items(), start=1):
        caplog.clear()
        subject.record(3)
        with subject.sealer(live_cut=partial(cuts.of_live, views)) as sealer:
            for _ in range(5):
                sealer.turn()

        (told,) = [line for line in caplog.messages if "digest" in line]
        assert f"the digest of the views is not sealed: {reason}" in told
        assert subject.sealed_records() == 3 * number


# --- manifests ---------------------------------------------------------------------------------------------------------------------


def test_a_manifest_is_written_in_one_way() -> None:
    view = bytes(range(32))
    first = Manifest.after(None, "a.example", (Stand(0, root([])), Stand(2, root([b"a", b"b"]))))
    second = Manifest.after(first, "a.example", (Stand(1, root([b"c"])), *first.partitions[1:]), view)
    lines = second.encode().decode().split("\n")

    assert lines[:3] == ["aidtrail-manifest/1", "a.example", "1"]
    assert Manifest.parse(second.encode()) == second
    assert second.breaks(first) is None
    assert first.breaks(None) is None
    for other in (
        *("\n".join((*lines[:n], *lines[n + 1 :])) for n in range(len(lines))),
        "\n".join(lines) + "\n",
        "\n".join(lines).replace("\n1\n", "\n01\n"),
        "\n".join(lines).replace("\n1\n", "\n-1\n"),
        "\n".join(lines).replace("=", ""),
    ):
        parsed = None
        try:
            parsed = Manifest.parse(other.encode())
        except NoteError:
            continue
        assert parsed.breaks(first) is not None, other


def test_a_manifest_that_steps_back_does_not_come_next() -> None:
    first = Manifest.after(None, "a.example", (Stand(5, bytes(32)),))
    for stands in ((Stand(4, bytes(32)),), (Stand(5, b"\x01" * 32),), (Stand(5, bytes(32)),) * 2):
        assert Manifest.after(first, "a.example", stands).breaks(first) is not None
    assert Manifest.after(first, "b.example", first.partitions).breaks(first) is not None


# --- keys, and the real process ---------------------------------------------------------------------------------------------------


def test_a_secret_key_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "seal"
    key = make_key("a.example", ED25519, file)

    assert read_key(file, ED25519) == key
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="expected a place for a new file"):
        make_key("a.example", ED25519, file)
    with pytest.raises(UsageError, match="found that of a seal"):
        read_key(file, COSIGNATURE)
    file.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        read_key(file, ED25519)
    with pytest.raises(UsageError, match="expected the secret key of a seal"):
        read_key(tmp_path / "none", ED25519)
    with pytest.raises(UsageError, match="key name"):
        make_key("a name", ED25519, tmp_path / "other")


def start_seal(url: str, home: Path, key: Path, stderr: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "AIDTRAIL_LOG": url, "AIDTRAIL_HOME": str(home), "AIDTRAIL_SEAL_KEY": str(key)}
    command = [sys.executable, "-c", "from aidtrail.cli import main; main()", "audit", "seal"]
    with stderr.open("wb") as file:
        return subprocess.Popen(command, env=environment, stderr=file)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.long)])
def test_a_process_that_is_killed_again_and_again_signs_one_history(database_url: str, tmp_path: Path, kills: int) -> None:
    rng = random.Random(kills)
    log = PostgresLog(database_url)
    subject = Subject(log, tmp_path / "home" / "seal")
    key, stderr = tmp_path / "key", tmp_path / "stderr"
    key.write_text(KEY.skey + "\n")
    key.chmod(0o600)
    for _ in range(kills):
        subject.record(rng.randrange(1, 400))
        before = subject.sealed_records()
        process = start_seal(database_url, tmp_path / "home", key, stderr)
        assert eventually(lambda before=before: subject.sealed_records() > before, 90), stderr.read_text()
        for _ in range(rng.randrange(40)):
            subject.record(rng.randrange(1, 40))
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    subject.record(1)
    subject.seal()
    checkpoints = subject.require_true()
    subject.require_files()
    print(f"{kills} kills: {checkpoints} checkpoints signed, 0 conflicting")
    log.close()

    with psycopg.connect(database_url) as connection:  # somebody alters the last entry of a partition
        query = """
            UPDATE log.records SET value = 'altered' WHERE topic = %s AND partition = 0
            AND "offset" = (SELECT max("offset") FROM log.records WHERE topic = %s AND partition = 0)
        """
        assert connection.execute(query, [subject.topics.recorded] * 2).rowcount == 1
    assert start_seal(database_url, tmp_path / "home", key, stderr).wait(90) == 1
    assert "the log is not as it was sealed: another record stands there. Nothing more is signed" in stderr.read_text()


def test_what_is_recorded_is_sealed_soon(database_url: str, tmp_path: Path) -> None:
    """From the append of an entry to that of the first checkpoint that covers it, at 200 entries a second. Printed, not judged."""
    log, reading = PostgresLog(database_url), PostgresLog(database_url)
    subject = Subject(log, tmp_path)
    stop = threading.Event()

    def run() -> None:
        with subject.sealer(reading, seal_seconds=SEAL_SECONDS) as sealer:
            while not stop.is_set():
                sealer.turn()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(40):
            subject.record(10)
            time.sleep(0.05)
        assert eventually(lambda: subject.sealed_records() == 400)
    finally:
        stop.set()
        thread.join()
    seconds = sorted(seconds_to_sealed(subject.log, subject.topics, KEY.verifier))
    print(
        f"{len(seconds)} entries: sealed after {statistics.median(seconds):.2f} s in the median, {seconds[-len(seconds) // 100]:.2f} s p99"
    )
    log.close()
    reading.close()

    assert len(seconds) == 400
