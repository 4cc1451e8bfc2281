"""An auditor rules again: whatever somebody forged, left out or moved is found and named, once."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from aidtrail import codec
from aidtrail.audit.findings import MAX_NAMED, Extent, Start
from aidtrail.audit.replay import extent_now, replay
from aidtrail.chain import Tail
from aidtrail.domain import events as e
from aidtrail.domain.donation import Donation
from aidtrail.domain.fold import apply
from aidtrail.domain.rules import RULES_VERSION
from aidtrail.log import Draft
from aidtrail.log.memory import MemoryLog, MemoryRecord
from aidtrail.producer import Producer
from aidtrail.signatures import sign
from tests.acts import START, Acts, money, padded
from tests.bench import lives
from tests.replaying import (
    ALIKE,
    PARTITIONS,
    TOPICS,
    Clock,
    Forger,
    entries,
    home,
    instruction,
    ledger,
    milliseconds,
    only,
    pipeline,
    restamped,
    stamp_of,
    stamped,
    submit,
    uuid4_7,
)
from tests.signing import key_of, requiring


def test_an_altered_amount_is_named_even_where_all_that_follows_is_chained_anew(honest: MemoryLog) -> None:
    forger = Forger(honest)
    offset = forger.where(instruction)
    forger.put(offset, forger.event(offset).model_copy(update={"amount": money("701")}))

    found = replay(honest, TOPICS)

    difference = only(found)
    assert difference[:5] == (TOPICS.recorded, forger.partition, offset, ALIKE, "amount.amount")
    assert (difference.expected, difference.found) == ("700.0000", "701.0000")
    assert found.void == {}
    assert found.equal == 58
    assert found.resting == 20, "the entries of the same donation after it"


def test_a_refusal_that_was_turned_into_an_admission_is_named(honest: MemoryLog) -> None:
    forger = Forger(honest, "KRCS-2026-0002")
    offset = forger.where(lambda event: isinstance(event, e.SubmissionRefused) and event.refused_event_type == "DisbursementReleased")
    refusal = forger.event(offset)
    submission = codec.decode(honest._topics[TOPICS.submitted][forger.partition][stamp_of(refusal).submitted_offset].value)
    assert isinstance(submission, e.Event)
    forger.put(offset, stamped(submission, stamp_of(refusal)))

    found = replay(honest, TOPICS)

    first = found.differences[0]
    assert first[:5] == (TOPICS.recorded, forger.partition, offset, "KRCS-2026-0002", "outcome")
    assert first.expected == "refused by releaser_did_not_prepare"
    assert first.found == "DisbursementReleased admitted"
    # The genuine release is now the second one: the rules would refuse it.
    assert [difference.expected for difference in found.differences[1:]] == ["refused by disbursement_awaits_release"]


def test_an_admission_that_was_turned_into_a_refusal_is_named(honest: MemoryLog) -> None:
    forger = Forger(honest)
    offset = forger.where(lambda event: isinstance(event, e.DonationClosed))
    event = forger.event(offset)
    refusal = e.SubmissionRefused(
        meta=event.meta.model_copy(update={"actor": e.Actor(actor_id="ledger", party_id="AIDTRAIL", role="ledger")}),
        refused_event_id=event.meta.event_id,
        refused_event_type=event.type,
        reason="nothing_is_in_flight",
        expected="nothing in flight",
        found="D9 in flight",
        submission_sha256=codec.sha256(codec.encode(event.model_copy(update={"meta": event.meta.model_copy(update={"ledger": None})}))),
    )
    forger.put(offset, refusal)

    difference = only(replay(honest, TOPICS))

    assert difference[:5] == (TOPICS.recorded, forger.partition, offset, ALIKE, "outcome")
    assert (difference.expected, difference.found) == ("DonationClosed admitted", "refused by nothing_is_in_flight")


def test_an_invented_admission_that_chains_and_has_no_submission_is_named(honest: MemoryLog) -> None:
    forger = Forger(honest)
    offset = forger.admit([Acts(ALIKE, START + timedelta(days=2)).reopened()])

    difference = only(replay(honest, TOPICS))

    assert difference[:5] == (TOPICS.recorded, forger.partition, offset, ALIKE, "meta.ledger.submitted_offset")
    assert difference.found == str(offset)


def test_an_invented_admission_in_the_place_of_a_submission_that_was_still_to_come_is_named(honest: MemoryLog) -> None:
    """The genuine submission comes later, and the genuine ledger's entry for it is void for every reader."""
    forger = Forger(honest)
    offset = forger.admit([Acts(ALIKE, START + timedelta(days=2)).reopened()])
    submit(honest, [Acts(ALIKE, START + timedelta(days=3)).closed()])
    genuine = forger.event(offset - 1)
    submitted_offset = stamp_of(genuine).submitted_offset + 1
    value = codec.encode(stamped(genuine, restamped(genuine, submitted_offset=submitted_offset)))
    forger.records.append(MemoryRecord(TOPICS.recorded, forger.partition, offset + 1, 0, ALIKE.encode(), value))

    found = replay(honest, TOPICS)

    difference = only(found)
    assert difference[:5] == (TOPICS.recorded, forger.partition, offset, ALIKE, "outcome")
    assert difference.found == "DonationReopened admitted"
    assert found.void == {"its submission was answered before": 1}


def test_submissions_that_an_entry_far_ahead_leaves_without_an_outcome_are_each_named(honest: MemoryLog) -> None:
    forger = Forger(honest)
    far = stamp_of(forger.event(5)).submitted_offset + 10**6
    forger.restamp(5, submitted_offset=far)

    found = replay(honest, TOPICS)

    skipped = [difference for difference in found.differences if difference.topic == TOPICS.submitted]
    submitted = honest.end_offsets(TOPICS.submitted)[forger.partition]
    assert [difference.offset for difference in skipped] == list(range(5, submitted))
    assert all(difference.field == "outcome" and f"answers submission {far}" in difference.found for difference in skipped)
    assert found.without_outcome == len(skipped)
    assert found.differing == len(skipped) + 1
    assert found.differences[-1][:3] == (TOPICS.recorded, forger.partition, 5)
    assert found.differences[-1].field == "meta.ledger.submitted_offset"
    assert found.void.total() == len(forger.records) - 6


def test_a_submission_whose_outcome_was_left_out_is_named(honest: MemoryLog) -> None:
    forger = Forger(honest, "KRCS-2026-0002")
    offset = forger.where(lambda event: isinstance(event, e.SubmissionRefused))
    del forger.records[offset]
    for at, record in enumerate(forger.records):
        forger.records[at] = record._replace(offset=at)  # type: ignore[attr-defined]
    forger.chain()

    found = replay(honest, TOPICS)

    assert only(found)[:5] == (TOPICS.submitted, forger.partition, offset, "KRCS-2026-0002", "outcome")
    later = [entry for entry in entries(honest, forger.partition)[offset:] if entry.donation_id == "KRCS-2026-0002"]
    assert found.resting == len(later) == 11


def test_entries_and_submissions_that_were_deleted_together_leave_a_gap_that_is_named(honest: MemoryLog) -> None:
    forger = Forger(honest, "KRCS-2026-0002")
    offset = forger.where(lambda event: isinstance(event, e.SubmissionRefused))
    del forger.records[offset]
    del honest._topics[TOPICS.submitted][forger.partition][offset]
    honest.end_offsets = lambda topic: {n: (r[-1].offset + 1 if r else 0) for n, r in enumerate(honest._topics[topic])}  # type: ignore[method-assign]

    difference = only(replay(honest, TOPICS))

    assert difference[:3] == (TOPICS.recorded, forger.partition, offset)
    assert (difference.field, difference.expected) == ("offset", "a record")


def test_a_tail_that_is_missing_within_the_extent_is_named(honest: MemoryLog) -> None:
    extent = extent_now(honest, TOPICS)
    forger = Forger(honest)
    end = len(forger.records)
    del forger.records[-3:]

    difference = only(replay(honest, TOPICS, extent=extent, poll_seconds=0.05))

    assert difference[:3] == (TOPICS.recorded, forger.partition, end - 3)
    assert difference.found == f"none before offset {end}"


def test_an_extent_ends_the_replay(honest: MemoryLog) -> None:
    partition = home(ALIKE)
    end = extent_now(honest, TOPICS)
    extent = Extent(dict.fromkeys(end.recorded, 0) | {partition: 4}, dict.fromkeys(end.submitted, 0) | {partition: 6}, end.registry)

    found = replay(honest, TOPICS, extent=extent)

    assert (found.entries, found.equal, found.submissions, found.unanswered, found.differing) == (4, 4, 6, 2, 0)


@pytest.mark.parametrize("registry_offset", [10**6, -2])
def test_a_registry_offset_that_is_not_in_the_registry_is_named_once(honest: MemoryLog, registry_offset: int) -> None:
    forger = Forger(honest)
    forger.restamp(7, registry_offset=registry_offset)

    difference = only(replay(honest, TOPICS))

    assert difference[1:3] == (forger.partition, 7)
    assert (difference.field, difference.found) == ("meta.ledger.registry_offset", str(registry_offset))


def test_a_registry_offset_that_steps_back_is_named_once(honest: MemoryLog) -> None:
    """The registry had everybody that matters before its last record, a retirement: with it as it stood then the outcome is the same."""
    forger = Forger(honest)
    before = stamp_of(forger.event(6)).registry_offset
    forger.restamp(7, registry_offset=before - 1)

    difference = only(replay(honest, TOPICS))

    assert difference[1:3] == (forger.partition, 7)
    assert (difference.field, difference.found) == ("meta.ledger.registry_offset", str(before - 1))
    assert difference.expected == f"at least {before}, as the entry before it"


def test_a_registry_that_is_kept_from_advancing_is_named(honest: MemoryLog, tmp_path: Path) -> None:
    """An approver is retired; an hour later he still decides, because the entry says that the ledger had not heard of it."""
    clock = honest.clock
    assert isinstance(clock, Clock)
    acts = Acts("KRCS-2026-0005", START + timedelta(days=9))
    clock.now = milliseconds(acts.now) - 3_600_000
    with Producer(honest, TOPICS) as producer:
        producer.register([e.ActorRetired(event_id=uuid4_7(), occurred_on=START, actor_id="mef-approver", reason="left")])
    submit(honest, [acts.announced(), acts.requested(), acts.approved()])
    ledger(honest, tmp_path)
    assert replay(honest, TOPICS).differing == 0
    forger = Forger(honest, "KRCS-2026-0005")
    first = forger.where(lambda event: True)
    submissions = honest._topics[TOPICS.submitted][forger.partition]
    for offset in range(first, len(forger.records)):
        stamp = stamp_of(forger.event(offset))
        event = codec.decode(submissions[stamp.submitted_offset].value)
        assert isinstance(event, e.Event)
        forger.put(offset, stamped(event, stamp.model_copy(update={"registry_offset": stamp.registry_offset - 1})))

    found = replay(honest, TOPICS)

    assert found.differing == 3
    assert {difference.field for difference in found.differences} == {"meta.ledger.registry_offset"}
    assert "appended 3,6" in found.differences[0].expected


# --- other rules --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def newer_rules(monkeypatch: pytest.MonkeyPatch) -> int:
    """The auditor's release has a later version of the rules than the ledger's. Returns that of the ledger's."""
    for module in ("aidtrail.ruling", "aidtrail.audit.examination"):
        monkeypatch.setattr(f"{module}.RULES_VERSION", RULES_VERSION + 1)
    return RULES_VERSION


def test_entries_of_earlier_rules_are_counted_apart(honest: MemoryLog, newer_rules: int) -> None:
    forger = Forger(honest)
    for offset in range(9):
        forger.restamp(offset, rules=newer_rules - 1)

    found = replay(honest, TOPICS)

    assert (found.differing, found.equal) == (0, 0)
    assert found.not_redecidable == {newer_rules - 1: 9, newer_rules: 59 - 9}


@pytest.mark.parametrize("rules", [-1, 0, RULES_VERSION - 1, RULES_VERSION + 1, 99])
def test_a_version_that_no_ledger_has_stamped_there_is_named_and_does_not_excuse_what_is_stamped_with_it(
    honest: MemoryLog, rules: int
) -> None:
    forger = Forger(honest)
    offset = forger.where(instruction)
    forger.restamp(offset, rules=rules)

    found = replay(honest, TOPICS)

    difference = only(found)
    assert difference[1:5] == (forger.partition, offset, ALIKE, "meta.ledger.rules")
    assert difference.expected == f"from {RULES_VERSION}, as before it, to {RULES_VERSION}, the newest that this release knows"
    assert difference.found == str(rules)
    assert (found.not_redecidable, found.equal) == ({}, 58)


@pytest.mark.parametrize("ruled_again", [0, 3])
def test_a_version_does_not_step_back_after_a_cut_either(honest: MemoryLog, ruled_again: int) -> None:
    """The entries before the cut, or the few of today's rules after it, say from which version on."""
    forger = Forger(honest)
    offset = forger.where(instruction)
    first = offset - ruled_again
    for at in (*(range(first) if ruled_again else ()), offset):
        forger.restamp(at, rules=RULES_VERSION - 1)
    last = entries(honest, forger.partition)[first - 1]
    start = Start(first, Tail(stamp_of(last.event).submitted_offset, codec.sha256(last.value)))
    end = extent_now(honest, TOPICS)

    found = replay(honest, TOPICS, extent=end._replace(starts={**dict.fromkeys(end.recorded, Start()), forger.partition: start}))

    assert only(found)[1:5] == (forger.partition, offset, ALIKE, "meta.ledger.rules")


def test_a_version_does_not_step_back_among_past_rules_either(honest: MemoryLog, newer_rules: int) -> None:
    forger = Forger(honest)
    offset = forger.where(instruction)
    forger.restamp(offset, rules=newer_rules - 1)

    assert only(replay(honest, TOPICS))[1:5] == (forger.partition, offset, ALIKE, "meta.ledger.rules")


def test_a_forged_version_is_no_measure_for_what_follows(honest: MemoryLog, newer_rules: int) -> None:
    forger = Forger(honest)
    offset = forger.where(instruction)
    event = forger.event(offset).model_copy(update={"end_to_end_id": "E2E-FORGED"})
    forger.put(offset, stamped(event, restamped(event, rules=newer_rules + 1)))

    assert only(replay(honest, TOPICS))[1:4] == (forger.partition, offset, ALIKE)


@pytest.mark.parametrize(
    ("changes", "field", "found"),
    [
        ({"actor_id": "nobody"}, "meta.actor.actor_id", "no actor nobody in the registry"),
        ({"actor_id": "krcs-retired"}, "meta.actor.actor_id", "krcs-retired, who is retired"),
        ({"party_id": "CRC"}, "meta.actor.party_id", "an actor of KRCS"),
        ({"role": "bank"}, "meta.actor.role", "krcs-officer, who does not hold it"),
    ],
)
def test_past_rules_do_not_excuse_an_actor_who_may_not(
    honest: MemoryLog, newer_rules: int, changes: dict[str, str], field: str, found: str
) -> None:
    announced = Acts("KRCS-2026-0011", START + timedelta(days=30)).announced()
    actor = announced.meta.actor.model_copy(update=changes)
    announced = announced.model_copy(update={"meta": announced.meta.model_copy(update={"actor": actor})})
    submit(honest, [announced])
    forger = Forger(honest, "KRCS-2026-0011")
    offset = forger.admit([announced])

    difference = only(replay(honest, TOPICS))

    assert difference[1:5] == (forger.partition, offset, forger.donation_id, field)
    assert difference.found == found


@pytest.mark.parametrize(("rules", "differences"), [(1, []), (2, ["meta.signature"])])
def test_past_rules_do_not_excuse_that_a_signature_is_missing_from_the_second_version_on(
    honest: MemoryLog, newer_rules: int, rules: int, differences: list[str]
) -> None:
    with Producer(honest, TOPICS) as producer:
        producer.register([requiring("KRCS")])
    announced = Acts("KRCS-2026-0011", START + timedelta(days=30)).announced()
    submit(honest, [announced])
    forger = Forger(honest, "KRCS-2026-0011")
    for offset in range(len(forger.records)):
        forger.restamp(offset, rules=1)
    forger.admit([announced], rules=rules, registry_offset=honest.end_offsets(TOPICS.registry)[0] - 1)

    found = replay(honest, TOPICS)

    assert [difference.field for difference in found.differences] == differences


def test_an_event_of_past_rules_that_breaks_an_invariant_is_named(honest: MemoryLog, newer_rules: int) -> None:
    """Who requested the approval decides on it. Its bytes are the submission's own, and its chain is perfect."""
    acts = Acts("KRCS-2026-0006", START + timedelta(days=9))
    by = "krcs-allrounder"
    events = [acts.announced(), acts.requested(by=by, role="officer"), acts.approved(by=by, role="approver")]
    submit(honest, events)
    forger = Forger(honest, "KRCS-2026-0006")
    forger.admit(events)

    found = replay(honest, TOPICS)

    difference = only(found)
    assert difference[1:5] == (forger.partition, len(forger.records) - 1, "KRCS-2026-0006", "invariant")
    assert "decided by who requested it" in difference.found
    assert found.not_redecidable == {newer_rules: 61}


@pytest.mark.parametrize(
    ("field", "alter"),
    [
        ("submission", lambda event: event.model_copy(update={"end_to_end_id": "E2E-FORGED"})),
        ("meta.ledger.recorded_at", lambda event: stamped(event, restamped(event, recorded_at=START))),
    ],
)
def test_past_rules_do_not_excuse_other_bytes_or_times(
    honest: MemoryLog, newer_rules: int, field: str, alter: Callable[[e.Event], e.Event]
) -> None:
    forger = Forger(honest)
    offset = forger.where(instruction)
    event = forger.event(offset)
    forger.put(offset, alter(event))

    difference = only(replay(honest, TOPICS))

    assert difference[1:5] == (forger.partition, offset, ALIKE, field)


def test_past_rules_do_not_excuse_a_refusal_of_something_else(honest: MemoryLog, newer_rules: int) -> None:
    forger = Forger(honest, "KRCS-2026-0002")
    offset = forger.where(lambda event: isinstance(event, e.SubmissionRefused))
    event = forger.event(offset).model_copy(update={"refused_event_id": uuid4_7()})
    forger.put(offset, event)

    assert only(replay(honest, TOPICS))[1:5] == (forger.partition, offset, "KRCS-2026-0002", "refused_event_id")


def test_past_rules_do_not_excuse_a_signature_of_somebody_else(honest: MemoryLog, newer_rules: int, tmp_path: Path) -> None:
    acts = Acts("KRCS-2026-0009", START + timedelta(days=30))
    announced = sign(acts.announced(), key_of("mef-approver-1"))
    submit(honest, [announced])
    ledger(honest, tmp_path)
    forger = Forger(honest, acts.donation_id)
    offset = forger.where(lambda event: isinstance(event, e.SubmissionRefused))
    forger.put(offset, stamped(announced, restamped(forger.event(offset), rules=newer_rules)))

    assert only(replay(honest, TOPICS))[1:5] == (forger.partition, offset, acts.donation_id, "meta.signature")


def test_past_rules_do_not_excuse_a_refusal_in_another_donation(honest: MemoryLog, newer_rules: int) -> None:
    forger = Forger(honest, "KRCS-2026-0002")
    offset = forger.where(lambda event: isinstance(event, e.SubmissionRefused))
    event = forger.event(offset)
    forger.put(offset, event.model_copy(update={"meta": event.meta.model_copy(update={"donation_id": "KRCS-2026-0003"})}))

    difference = only(replay(honest, TOPICS))

    assert difference[1:5] == (forger.partition, offset, "KRCS-2026-0003", "meta.donation_id")


def test_an_event_of_past_rules_that_cannot_be_folded_is_named(honest: MemoryLog, newer_rules: int) -> None:
    unknown = Acts(ALIKE, START + timedelta(days=2)).released("D77")
    submit(honest, [unknown])
    forger = Forger(honest)
    offset = forger.admit([unknown])

    assert only(replay(honest, TOPICS))[1:5] == (forger.partition, offset, ALIKE, "fold")


# --- moved, and monstrous -----------------------------------------------------------------------------------------------------------


def test_entries_that_were_copied_to_another_partition_are_void_or_named(honest: MemoryLog) -> None:
    """An admission is void there for every reader. A refusal counts for them, and is a difference."""
    forger = Forger(honest, "KRCS-2026-0002")
    elsewhere = next(number for number in range(PARTITIONS) if number != forger.partition)
    target = honest._topics[TOPICS.recorded][elsewhere]
    admission = forger.event(forger.where(lambda event: True))
    refusal = forger.event(forger.where(lambda event: isinstance(event, e.SubmissionRefused)))
    end = len(target)
    tail = codec.sha256(target[-1].value or b"") if target else codec.GENESIS
    for event in (admission, refusal):
        far = stamped(event, restamped(event, submitted_offset=100 + len(target), previous_outcome_sha256=tail))
        target.append(MemoryRecord(TOPICS.recorded, elsewhere, len(target), 0, b"KRCS-2026-0002", codec.encode(far)))

    found = replay(honest, TOPICS)

    assert [void[:3] for void in found.voids] == [(elsewhere, end, "KRCS-2026-0002")]
    assert found.voids[0].reason == "the donation belongs to another partition"
    assert only(found)[:4] == (TOPICS.recorded, elsewhere, end + 1, "KRCS-2026-0002")


def test_an_entry_under_another_key_is_void_and_its_submission_without_an_outcome(honest: MemoryLog) -> None:
    forger = Forger(honest, "KRCS-2026-0002")
    offset = forger.where(lambda event: isinstance(event, e.SubmissionRefused))
    forger.records[offset] = forger.records[offset]._replace(key=b"KRCS-2026-0003")  # type: ignore[attr-defined]
    forger.chain()

    found = replay(honest, TOPICS)

    assert only(found)[:3] == (TOPICS.submitted, forger.partition, offset)
    assert found.void == {"the key is not the donation": 1}


def test_a_forged_time_is_named_once_though_the_ledger_goes_on_from_it(honest: MemoryLog, tmp_path: Path) -> None:
    forger = Forger(honest)
    offset = len(forger.records) - 1
    forger.restamp(offset, recorded_at=START + timedelta(days=40))
    acts = Acts(ALIKE, START + timedelta(days=2))
    submit(honest, [acts.reopened(), acts.utilised("1"), acts.closed()])
    ledger(honest, tmp_path)

    difference = only(replay(honest, TOPICS))

    assert difference[1:5] == (forger.partition, offset, ALIKE, "meta.ledger.recorded_at")
    assert stamp_of(forger.event(offset + 3)).recorded_at == START + timedelta(days=40)


def test_a_fold_that_fails_today_is_a_difference_and_no_end(honest: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(donation: Donation | None, event: e.Event) -> Donation:
        if isinstance(event, e.UtilisationReported):
            raise RuntimeError("a fault in the fold")
        return apply(donation, event)

    monkeypatch.setattr("aidtrail.ruling.apply", broken)

    found = replay(honest, TOPICS)

    assert [difference[5:] for difference in found.differences] == [
        ("refused by cannot_be_ruled", "UtilisationReported admitted"),
        ("refused by donation_is_parked", "DonationClosed admitted"),
    ]
    assert found.entries == 59


def test_a_forged_state_that_no_rule_foresees_is_a_difference_and_no_end(honest: MemoryLog, newer_rules: int) -> None:
    """A route whose leg hangs on one that is not there, admitted by 'past rules'; then a genuine submission that asks for that route."""
    acts = Acts("KRCS-2026-0007", START + timedelta(days=9))
    lost = e.Leg(leg_id="L2", parent_leg_id="L0", from_party="CRC", to_party="KBH")
    events = [acts.announced(route=(lost,)), acts.confirmed()]
    submit(honest, events)
    forger = Forger(honest, "KRCS-2026-0007")
    forger.admit(events)

    found = replay(honest, TOPICS)

    assert found.differences[0].field == "invariant"
    assert found.differing == 1


def test_no_forgery_writes_to_the_terminal_what_it_likes(honest: MemoryLog) -> None:
    forger = Forger(honest)
    offset = forger.where(lambda event: isinstance(event, e.PledgeConfirmed))
    event = forger.event(offset).model_copy(update={"agreement_reference": "\x1b[2J0 differences"})
    forger.put(offset, event)

    difference = only(replay(honest, TOPICS))

    assert difference.field == "agreement_reference"
    assert difference.found == r"'\x1b[2J0 differences'"


def test_an_entry_that_no_reader_can_decode_is_named_where_outcomes_follow_it(
    honest: MemoryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that left no room for its stamp went on from it, and every reader was left behind."""
    first = Acts("KRCS-2026-0007", START + timedelta(days=9))
    same_home = [name for number in range(100) if home(name := f"OTHER-{number:04d}") == home("KRCS-2026-0007")][:2]
    others = [Acts(name, START + timedelta(days=9)).announced() for name in same_home]
    submit(honest, [padded(first.announced(), codec.MAX_VALUE_BYTES), *others])
    offset = honest.end_offsets(TOPICS.recorded)[home("KRCS-2026-0007")]
    with monkeypatch.context() as patch:
        patch.setattr(codec, "MAX_SUBMISSION_BYTES", codec.MAX_VALUE_BYTES)
        ledger(honest, tmp_path)

    found = replay(honest, TOPICS)

    difference = only(found)
    assert difference[:5] == (TOPICS.recorded, home("KRCS-2026-0007"), offset, "", "value")
    assert difference.found == f"one that none can, and the outcome at offset {offset + 1} follows it"
    assert found.void == {"undecodable": 1, "it does not follow the partition's last outcome": 2}


def test_bytes_that_a_stranger_wrote_and_nothing_follows_are_no_difference(honest: MemoryLog, tmp_path: Path) -> None:
    honest.append([Draft(TOPICS.recorded, home(ALIKE), ALIKE.encode(), b"no entry")])
    acts = Acts(ALIKE, START + timedelta(days=9))
    submit(honest, [acts.reopened(), acts.closed()])
    ledger(honest, tmp_path)

    found = replay(honest, TOPICS)

    assert (found.differing, found.equal, found.void) == (0, 61, {"undecodable": 1})


def test_the_first_hundred_differences_are_named_and_all_are_counted(tmp_path: Path) -> None:
    log = MemoryLog()
    pipeline(log, registry=lives.registry_events())
    log.append(list(lives.submissions(TOPICS.submitted, PARTITIONS, 20, active=5)))
    ledger(log, tmp_path)
    forger = Forger(log, "BENCH-00000001")
    forger.restamp(0, submitted_offset=10**6)

    found = replay(log, TOPICS)

    assert found.differing == found.without_outcome + 1 == log.end_offsets(TOPICS.submitted)[forger.partition] + 1 > MAX_NAMED
    assert len(found.differences) == MAX_NAMED
