"""Whatever is done to an export after it was sealed is found, and where: trial by trial, counted.

AIDTRAIL_SEED is the seed of another run. The default run makes TRIALS of each kind, `make test-long` MANY.
"""

import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from aidtrail.audit import verifier
from aidtrail.audit.note import SignerKey
from aidtrail.domain import events as e
from aidtrail.signatures import sign
from tests.signing import key_of
from tests.worlds import KEY, PARTITIONS, SEALS, TRUSTED, Held, Record, World, judged, projected, rewrite, saved, sealed

SEED = int(os.environ.get("AIDTRAIL_SEED", "20260105"))
TRIALS, MANY = 50, 1000
WORLDS = 4
FIRST_VISITS = 4
VISIT = 3
"""The auditor was there when so many of the SEALS were made."""
SIGNING = ("MEF", "KRCS")
"""Parties whose actors sign, and must."""

Place = tuple[int, int]
"""Partition and offset of the first record that is not as it was sealed."""


class Tampered(NamedTuple):
    held: Held
    first: Place | None
    """None where no record of `recorded` differs."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> list[World]:
    return [World(SEED + number, tmp_path_factory.mktemp("worlds"), signing=SIGNING) for number in range(WORLDS)]


@pytest.fixture(scope="module")
def exports(worlds: list[World]) -> list[Held]:
    return [world.held() for world in worlds]


# --- what a tamperer does -----------------------------------------------------------------------------------------------------------


def bit_altered(held: Held, chance: random.Random) -> Tampered:
    """One bit of the value of a record, or of the key of one that counts."""
    number, records, at = _some_record(held, chance)
    record = records[at]
    counting = chance.random() < 0.2 and judged(records, number)[at].reason is None
    records[at] = record._replace(key=_flipped(record.key, chance)) if counting else record._replace(value=_flipped(record.value, chance))
    return Tampered(held, (number, at))


def removed(held: Held, chance: random.Random) -> Tampered:
    """One record, the others moved up or not; what it answers stays."""
    number, records, at = _some_record(held, chance)
    del records[at]
    if chance.random() < 0.5:
        _renumber(records)
    return Tampered(held, (number, at))


def tail_cut(held: Held, chance: random.Random) -> Tampered:
    number, records, at = _some_record(held, chance)
    del records[at:]
    return Tampered(held, (number, at))


def swapped(held: Held, chance: random.Random) -> Tampered:
    """Two records of a partition, with their offsets or without."""
    while True:
        number, records, at = _some_record(held, chance)
        other = chance.randrange(len(records))
        if records[at].value != records[other].value:
            break
    records[at], records[other] = records[other], records[at]
    if chance.random() < 0.5:
        _renumber(records)
    return Tampered(held, (number, min(at, other)))


def inserted(held: Held, chance: random.Random) -> Tampered:
    """A record that was never there: one of another partition, with a bit altered."""
    number, records, at = _some_record(held, chance)
    _, others, from_ = _some_record(held, chance)
    records.insert(at, others[from_]._replace(value=_flipped(others[from_].value, chance)))
    _renumber(records)
    return Tampered(held, (number, at))


def appended(held: Held, chance: random.Random) -> Tampered:
    """At the end of a partition: a record of any, altered or not."""
    number, records, _ = _some_record(held, chance)
    _, others, from_ = _some_record(held, chance)
    value = chance.choice([others[from_].value, _flipped(others[from_].value, chance)])
    records.append(Record(len(records), records[-1].timestamp, others[from_].key, value))
    return Tampered(held, (number, len(records) - 1))


def moved_to_another_partition(held: Held, chance: random.Random) -> Tampered:
    number, records, at = _some_record(held, chance)
    other = (number + chance.randrange(1, PARTITIONS)) % PARTITIONS
    target = held.kept["recorded", other]
    place = chance.randrange(len(target) + 1)
    target.insert(place, records.pop(at))
    _renumber(records)
    _renumber(target)
    return Tampered(held, min((number, at), (other, place)))


def duplicated(held: Held, chance: random.Random) -> Tampered:
    number, records, at = _some_record(held, chance)
    place = chance.randrange(at + 1, len(records) + 1)
    records.insert(place, records[at])
    _renumber(records)
    first = next((i for i in range(place, len(records) - 1) if records[i].value != records[i + 1].value), len(records) - 1)
    return Tampered(held, (number, first))


def whole_donation_removed(held: Held, chance: random.Random) -> Tampered:
    """Entries, submissions and rows: nothing is left of it."""
    number, records, at = _some_record(held, chance)
    key = records[at].key
    first = next(place for place, record in enumerate(records) if record.key == key)
    for topic in ("recorded", "submitted"):
        kept = held.kept[topic, number]
        kept[:] = [record for record in kept if record.key != key]
        _renumber(kept)
    for (_, partition), rows in held.views.items():
        if partition == number:
            rows[:] = [row for row in rows if row["donation_id"] != (key or b"").decode()]
    return Tampered(held, (number, first))


def whole_partition_dropped(held: Held, chance: random.Random) -> Tampered:
    """Its files are empty, or missing; or the export says that there are fewer partitions."""
    number = chance.randrange(PARTITIONS)
    way = chance.randrange(3)
    if way == 2:
        number = PARTITIONS - 1
        held.partitions, held.view_ends = number, (held.view_ends or [])[:number]
    for topic in ("recorded", "submitted"):
        if way == 0:
            held.kept[topic, number] = []
        else:
            del held.kept[topic, number]
    for table in {table for table, _ in held.views}:
        held.views[table, number] = []
    if held.view_ends is not None and number < len(held.view_ends):
        held.view_ends[number] = 0
    return Tampered(held, (number, 0))


def invented_with_the_operators_key(held: Held, chance: random.Random, world: World) -> Tampered:
    """An entry where the auditor has been, sealed anew with the log's own key, and views that have it."""
    number, at = _seen_place(held, chance, world)
    records = held.kept["recorded", number]
    _, others, from_ = _some_record(held, chance)
    records.insert(at, others[from_]._replace(value=_flipped(others[from_].value, chance)))
    _renumber(records)
    steps = [[size + (part == number and size > at) for part, size in enumerate(sizes)] for sizes in world.steps]
    return _resealed(held, steps)


def history_rewritten_and_resealed(held: Held, chance: random.Random, world: World) -> Tampered:
    """One entry says something else; all after it are chained to it anew, the submission is forged as well, the views and all seals are
    made anew. It is perfect: only who kept a checkpoint can tell."""
    while True:
        number, at = _seen_place(held, chance, world)
        if judged(held.kept["recorded", number], number)[at].reason is None:
            break
    rewrite(held, number, at)
    return _resealed(held, world.steps)


def older_backup_put_back(held: Held, chance: random.Random, world: World) -> Tampered:
    """Log, seals and views as they once were, before the auditor's visit; or gone on with from there, in another way."""
    upto = chance.randint(1, VISIT - 1)
    held = world.held(upto)
    if chance.random() < 0.5:
        return Tampered(held, None)
    _, records, at = _some_record(held, chance)
    records.append(Record(len(records), records[-1].timestamp, records[at].key, _flipped(records[at].value, chance)))
    sizes = [len(kept) for kept in held.recorded()]
    return _resealed(held, [*world.steps[:upto], *[sizes] * (SEALS - upto)])


def written_in_anothers_name(held: Held, chance: random.Random, of_signers: bool) -> Tampered:
    """An admitted entry says something else, or is signed otherwise, or not at all; submissions, chain, views and seals are made anew, as
    who runs everything and holds the log's key can. All but the keys of actors."""
    entries = [
        (number, at, one.entry.event.meta)
        for number in range(PARTITIONS)
        for at, one in enumerate(judged(held.kept["recorded", number], number))
        if one.reason is None and one.entry.event is not None and not one.entry.refused
    ]
    number, at, meta = chance.choice([place for place in entries if (place[2].actor.party_id in SIGNING) is of_signers])
    others = [signature for _, _, other in entries if (signature := other.signature) not in (None, meta.signature)]

    somebody = chance.choice([name for name in ("the operator", "mef-approver", "krcs-officer") if name != meta.actor.actor_id])

    def change(event: e.Event) -> e.Event:
        occurred_on = event.meta.occurred_on.replace(microsecond=chance.randrange(1, 10**6))
        other = with_meta(event, occurred_on=occurred_on, signature=None, ledger=None)
        if not of_signers:
            return other
        match chance.randrange(5):
            case 0:  # another text under the same signature
                return with_meta(other, signature=meta.signature)
            case 1:
                return sign(other, key_of(somebody))
            case 2:
                return chance.choice([other, with_meta(event, signature=None)])
            case 3:
                return with_meta(event, signature=_flipped(meta.signature, chance))
            case _:
                return with_meta(event, signature=chance.choice(others))

    rewrite(held, number, at, change)
    return _resealed(held, [[len(records) for records in held.recorded()]] * SEALS)._replace(first=(number, at))


def with_meta(event: e.Event, **changes: Any) -> e.Event:
    return event.model_copy(update={"meta": event.meta.model_copy(update=changes)})


def view_row_altered(held: Held, chance: random.Random) -> Tampered:
    """A field of a row of any table; a row that is gone; one that is invented or stands twice."""
    table, number = chance.choice([name for name, rows in held.views.items() if rows])
    rows = held.views[table, number]
    at = chance.randrange(len(rows))
    match chance.randrange(4):
        case 0:
            del rows[at]
        case 1:
            rows.insert(chance.randrange(len(rows) + 1), rows[at])
        case _:
            name = chance.choice(sorted(rows[at]))
            rows[at] = {**rows[at], name: _another(rows[at][name], chance)}
    return Tampered(held, None)


def checkpoint_altered(held: Held, chance: random.Random) -> Tampered:
    """A bit of a manifest or a checkpoint; one of another key, size or tree; the newest left out; two of them in each other's place."""
    seals = held.kept["checkpoints", 0]
    at = chance.randrange(len(seals))
    match chance.randrange(7):
        case 0:
            del seals[-1]
        case 1:
            seals[-2:] = []
            seals[-1:] = []
        case 2:
            del seals[2 * chance.randrange(len(seals) // 2)]  # a manifest
        case 3:
            seals[at - at % 2], seals[at - at % 2 - 2] = seals[at - at % 2 - 2], seals[at - at % 2]
        case 4:
            other = sealed(held.recorded(), [[len(records) for records in held.recorded()]], SignerKey.generate(KEY.name))
            seals[-1] = other[-1]
        case 5:
            sizes = [len(records) for records in held.recorded()]
            seals[-1] = sealed(held.recorded(), [[0] * PARTITIONS, *([sizes] * (SEALS - 1))])[-1]  # signed by the key, of another tree
        case _:
            seals[at] = seals[at]._replace(value=_flipped(seals[at].value, chance))
    return Tampered(held, None)


def submission_altered(held: Held, chance: random.Random) -> Tampered:
    """A bit of what somebody submitted, or all of it."""
    number = chance.choice([number for number in range(PARTITIONS) if held.kept["submitted", number]])
    submitted = held.kept["submitted", number]
    at = chance.randrange(len(submitted))
    if chance.random() < 0.3:
        del submitted[at]
    else:
        submitted[at] = submitted[at]._replace(value=_flipped(submitted[at].value, chance))
    return Tampered(held, None)


def registry_altered(held: Held, chance: random.Random) -> Tampered:
    """What the auditor had seen of it."""
    registry = held.kept["registry", 0]
    at = chance.randrange(len(registry))
    match chance.randrange(3):
        case 0:
            del registry[at]
        case 1:
            registry[at] = registry[at]._replace(value=_flipped(registry[at].value, chance))
        case _:
            registry.insert(at, registry[at])
            _renumber(registry)
            if at == len(registry) - 2:
                registry[at] = registry[at]._replace(value=_flipped(registry[at].value, chance))
    return Tampered(held, None)


RECORDS = (
    bit_altered,
    removed,
    tail_cut,
    swapped,
    inserted,
    appended,
    moved_to_another_partition,
    duplicated,
    whole_donation_removed,
    whole_partition_dropped,
)
OTHERS = (view_row_altered, checkpoint_altered, submission_altered, registry_altered)
REWRITES = (invented_with_the_operators_key, history_rewritten_and_resealed, older_backup_put_back)


# --- trials -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RECORDS)
def test_what_is_done_to_records_is_found_and_the_first_of_them_is_named(kind: Any, exports: list[Held]) -> None:
    _try_on_records(kind, exports, TRIALS)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", RECORDS)
def test_what_is_done_to_records_is_found_a_thousand_times(kind: Any, exports: list[Held]) -> None:
    _try_on_records(kind, exports, MANY)


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_done_to_views_checkpoints_submissions_and_registry_is_found(kind: Any, worlds: list[World], exports: list[Held]) -> None:
    _try_on_others(kind, worlds, exports, TRIALS)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_done_to_others_is_found_a_thousand_times(kind: Any, worlds: list[World], exports: list[Held]) -> None:
    _try_on_others(kind, worlds, exports, MANY)


@pytest.mark.parametrize("kind", REWRITES)
def test_history_that_is_sealed_anew_is_found_by_who_kept_a_checkpoint(kind: Any, worlds: list[World], exports: list[Held]) -> None:
    _try_rewriting(kind, worlds, exports, TRIALS)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", REWRITES)
def test_history_that_is_sealed_anew_is_found_a_thousand_times(kind: Any, worlds: list[World], exports: list[Held]) -> None:
    _try_rewriting(kind, worlds, exports, MANY)


def test_nobody_writes_in_the_name_of_an_actor_who_signs_not_even_who_makes_everything_anew(exports: list[Held]) -> None:
    _try_in_anothers_name(exports, TRIALS)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_nobody_writes_in_the_name_of_an_actor_who_signs_a_thousand_times(exports: list[Held]) -> None:
    _try_in_anothers_name(exports, MANY)


def test_what_is_sound_raises_no_alarm(worlds: list[World]) -> None:
    _try_nothing(worlds, TRIALS)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_what_is_sound_raises_no_alarm_a_thousand_times(tmp_path: Path) -> None:
    _try_nothing([World(SEED + number, tmp_path, signing=SIGNING) for number in range(25)], MANY)


def _try_on_records(kind: Callable[[Held, random.Random], Tampered], exports: list[Held], trials: int) -> None:
    """Every second export has the sealed leaf hashes, with which the very first record is named; without them the stretch between two seals
    that it is in."""
    missed: list[int] = []
    unnamed: list[tuple[int, Place | None, str]] = []
    for trial in range(trials):
        chance = random.Random(f"{SEED}/{kind.__name__}/{trial}")
        held, first = kind(exports[trial % WORLDS].copy(), chance)
        if trial % 2:
            held.sealed_leaves = {}
        report = verifier.verify_export(held, verifier.Trust(TRUSTED))
        if report.exit_code != verifier.EXIT["C1"] or not (report.altered or report.removed or report.reordered or report.invented):
            missed.append(trial)
        elif not _names(report, first, exact=not trial % 2):
            unnamed.append((trial, first, "; ".join(map(str, report.findings[:3]))))
    print(f"{kind.__name__}: {trials} trials, missed {len(missed)}, first bad index not named {len(unnamed)}")
    assert missed == []
    assert unnamed == []


def _names(report: verifier.Report, first: Place | None, exact: bool) -> bool:
    """The report's first bad index is this one, or, without leaf hashes, the beginning of the stretch that it is in."""
    if report.first is None or first is None or report.first.topic != "recorded":
        return False
    found = (report.first.partition, report.first.offset)
    stretch = re.search(r"offsets (\d+) to (\d+) ", report.first.what)
    if exact or stretch is None:
        return found == first
    return found[0] == first[0] and int(stretch[1]) <= first[1] <= int(stretch[2])


def _try_on_others(kind: Callable[[Held, random.Random], Tampered], worlds: list[World], exports: list[Held], trials: int) -> None:
    claim = {"view_row_altered": "C3"}.get(kind.__name__, "C1")
    missed = []
    for trial in range(trials):
        chance = random.Random(f"{SEED}/{kind.__name__}/{trial}")
        tampered = kind(exports[trial % WORLDS].copy(), chance)
        report = verifier.verify_export(tampered.held, worlds[trial % WORLDS].trust(VISIT))
        if claim not in report.failing or (claim == "C3" and (report.rows_differing < 1 or report.exit_code != verifier.EXIT["C3"])):
            missed.append((trial, report.line(), report.findings[:2]))
    print(f"{kind.__name__}: {trials} trials, missed {len(missed)}")
    assert missed == []


def _try_rewriting(kind: Callable[[Held, random.Random, World], Tampered], worlds: list[World], exports: list[Held], trials: int) -> None:
    """Who comes for the first time is shown a history that is sound in itself: that cannot be told from the export alone."""
    missed, first_visits = [], 0
    for trial in range(trials):
        chance, world = random.Random(f"{SEED}/{kind.__name__}/{trial}"), worlds[trial % WORLDS]
        tampered = kind(exports[trial % WORLDS].copy(), chance, world)
        report = verifier.verify_export(tampered.held, world.trust(VISIT))
        if report.exit_code != verifier.EXIT["C1"] or report.conflict is None:
            missed.append((trial, report.line(), report.findings[:2]))
        if trial < FIRST_VISITS:
            first_visits += "C1" not in verifier.verify_export(tampered.held, world.trust()).failing
    told = f"{first_visits} of {FIRST_VISITS} auditors without a checkpoint see nothing amiss (C1)"
    print(f"{kind.__name__}: {trials} trials, missed {len(missed)}; {told}")
    assert missed == []
    assert first_visits == FIRST_VISITS


def _try_in_anothers_name(exports: list[Held], trials: int) -> None:
    """The auditor is here for the first time. Of an actor who does not sign the same forgery is not seen."""
    missed, unseen = [], 0
    for trial in range(trials):
        chance = random.Random(f"{SEED}/written_in_anothers_name/{trial}")
        held, first = written_in_anothers_name(exports[trial % WORLDS].copy(), chance, of_signers=True)
        report = verifier.verify_export(held, verifier.Trust(TRUSTED))
        found = report.first and (report.first.partition, report.first.offset)
        if (report.exit_code, set(report.failing), report.invented, found) != (verifier.EXIT["C2"], {"C2"}, 1, first):
            missed.append((trial, report.line(), report.findings[:2]))
        if trial < FIRST_VISITS:
            held, _ = written_in_anothers_name(exports[trial % WORLDS].copy(), chance, of_signers=False)
            unseen += verifier.verify_export(held, verifier.Trust(TRUSTED)).exit_code == 0
    print(f"written_in_anothers_name: {trials} trials, missed {len(missed)}; {unseen} of {FIRST_VISITS} unseen where actors do not sign")
    assert missed == []
    assert unseen == FIRST_VISITS


def _try_nothing(worlds: list[World], trials: int) -> None:
    alarms = []
    for trial in range(trials):
        chance, world = random.Random(f"{SEED}/sound/{trial}"), worlds[trial % len(worlds)]
        upto = chance.randint(1, SEALS)
        held = world.held(upto, behind=chance.choice([0, 0, 1, 5, 1000]))
        if chance.random() < 0.5:
            held.sealed_leaves = {}
        report = verifier.verify_export(held, world.trust(chance.choice([None, chance.randint(1, upto)])))
        if report.exit_code or report.altered or report.removed or report.reordered or report.invented or report.rows_differing:
            alarms.append((trial, report.line(), report.findings[:3]))
    print(f"sound: {trials} runs, false alarms {len(alarms)}")
    assert alarms == []


def test_a_file_that_is_damaged_in_any_way_is_one_clear_line_and_never_a_crash(worlds: list[World], tmp_path: Path, capsys: Any) -> None:
    """Bytes altered, taken out and put in, in any file. Exit 0 only where every record and row still says the same: append times, and the
    key that the export states, say nothing."""
    saved(worlds[0].held(), tmp_path / "export")
    last = tmp_path / "last.json"
    last.write_text(worlds[0].visits[-1].text())
    files: dict[str, list[Path]] = {}
    for path in sorted(path for path in (tmp_path / "export").rglob("*") if path.is_file() and path.stat().st_size):
        files.setdefault(path.parent.name if path.parent.name == "schemas" else "records and rows", []).append(path)
    codes: Counter[int] = Counter()
    for trial in range(TRIALS):
        chance = random.Random(f"{SEED}/damage/{trial}")
        path = chance.choice(files[chance.choices(sorted(files), [3, 1])[0]])
        before = path.read_bytes()
        path.write_bytes(_damaged(before, chance))
        code = verifier.main(["--key", str(KEY.verifier), "--last", str(last), str(tmp_path / "export")])
        capsys.readouterr()
        codes[code] += 1
        if code == 0:
            assert path.name == "about.json" or _said(path.read_bytes()) == _said(before), (trial, path)
            last.write_text(worlds[0].visits[-1].text())
        path.write_bytes(before)
    print(f"damaged files: {TRIALS} trials, exit codes {dict(codes)}")
    assert set(codes) <= {0, 2, 11, 12, 13}
    assert codes[0] < TRIALS // 3


def _damaged(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    place = chance.randrange(len(damaged))
    match chance.randrange(4):
        case 0:
            damaged[place] = chance.randrange(256)
        case 1:
            del damaged[place : place + chance.choice([1, 30])]
        case 2:
            damaged[place:place] = chance.choice([b"0", b"9" * 30, b"[" * 3000, b"null", b"{}", b"\n", b'"'])
        case _:
            damaged[place] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _said(lines: bytes) -> list[Any]:
    return [{name: value for name, value in json.loads(line).items() if name != "timestamp"} for line in lines.splitlines()]


# --- tools --------------------------------------------------------------------------------------------------------------------------


def _some_record(held: Held, chance: random.Random) -> tuple[int, list[Record], int]:
    number = chance.choice([number for number in range(PARTITIONS) if held.kept["recorded", number]])
    records = held.kept["recorded", number]
    return number, records, chance.randrange(len(records))


def _seen_place(held: Held, chance: random.Random, world: World) -> Place:
    """Of a record that the auditor has seen."""
    sizes = world.steps[VISIT - 1]
    number = chance.choice([number for number in range(PARTITIONS) if sizes[number]])
    return number, chance.randrange(sizes[number])


def _flipped(data: bytes | None, chance: random.Random) -> bytes:
    altered = bytearray(data or b"")
    bit = chance.randrange(8 * len(altered))
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


def _renumber(records: list[Record]) -> None:
    records[:] = [record._replace(offset=offset) for offset, record in enumerate(records)]


def _another(value: Any, chance: random.Random) -> Any:
    """What a careful forger would put there: of the same kind."""
    match value:
        case None:
            return "2026-01-01T00:00:00+00:00"
        case int():
            return value + chance.choice([-1, 1])
        case list():
            return [*value, "KRCS"]
        case dict():
            return {**value, "EUR": "1.0000"}
        case str() if re.fullmatch(r"\d+\.\d{4}", value):
            return f"{float(value) + 1:.4f}"
        case _:
            return f"{value[:-1]}{'0' if value[-1:] != '0' else '1'}"


def _resealed(held: Held, steps: Sequence[Sequence[int]]) -> Tampered:
    """Views, leaves and seals as the holder of the log's key makes them."""
    recorded = held.recorded()
    held.view_ends = [len(records) for records in recorded]
    held.views = projected(recorded, held.view_ends)
    held.sealed_leaves = {}
    held.kept["checkpoints", 0] = sealed(recorded, steps)
    return Tampered(held, None)
