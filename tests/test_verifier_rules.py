"""What a version of the rules made stricter the verifier asks of entries that were ruled on by it or a later one, and of none before."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from aidtrail import codec
from aidtrail.audit import verifier
from aidtrail.chain import NO_HEAD, NO_TAIL
from aidtrail.domain import events as e
from aidtrail.domain.donation import Donation
from aidtrail.domain.fold import apply
from aidtrail.domain.rules import RULES_VERSION
from aidtrail.domain.status import status
from tests.acts import ROUTE, Acts, money, registry_events
from tests.situations import CONDITION, acknowledged, arrived, instructed, leg, paid, requested
from tests.worlds import SCHEMAS, Record

DECODER = verifier.Schemas(SCHEMAS)
REGISTRY = verifier.Registry()
for _offset, _event in enumerate(registry_events()):
    verifier.take_registered(REGISTRY, Record(_offset, 0, None, codec.encode(_event)), DECODER)


def recorded(event: e.Event, stamp: e.LedgerStamp) -> bytes:
    submission = codec.encode(event)
    return codec.stamped(submission, codec.read(submission)[1], stamp)


def objections(told: list[e.Event], rules: int, now: datetime | None = None) -> list[str]:
    """What is said of the last of these events, all of them ruled on by that version of the rules."""
    life, tail, head, said = verifier.Life(), NO_TAIL, NO_HEAD, list[str]()
    for number, event in enumerate(told):
        stamp = e.LedgerStamp(
            version=number + 1,
            submitted_offset=number,
            previous_outcome_sha256=tail.sha256,
            recorded_at=now or event.meta.occurred_on,
            previous_sha256=head.sha256,
            registry_offset=REGISTRY.end,
            rules=rules,
        )
        value = recorded(event, stamp)
        tail, head = tail._replace(sha256=codec.sha256(value)), head._replace(sha256=codec.sha256(value))
        assert said == []
        said = list(life.follow(verifier.Event(*DECODER.decode(value)), tail.sha256, REGISTRY))
    return said


def own_board(a: Acts, *conditions: e.Condition, requester: str = "krcs-officer") -> list[e.Event]:
    return [
        a.announced(),
        a.requested(by=requester, mechanism_id="KRCS-BOARD", approvals_required=1),
        a.approved(by="krcs-approver", conditions=conditions) if conditions else a.approved(by="krcs-allrounder", role="approver"),
    ]


def late_release(a: Acts) -> list[e.Event]:
    told = [a.announced(valid_until=a.later(10)), *a.approval(), a.instructed()]
    a.now += timedelta(days=11)
    return [*told, a.released()]


def late_approval(a: Acts) -> list[e.Event]:
    told = [a.announced(), a.requested(), a.approved(valid_until=a.later(1))]
    a.now += timedelta(days=2)
    return [*told, a.approved(by="mef-approver-2")]


CASES: dict[str, tuple[Callable[[Acts], list[e.Event]], str]] = {
    "confirmed by who decided": (
        lambda a: [*own_board(a), a.confirmed(by="krcs-allrounder")],
        "krcs-allrounder confirms the pledge, and decided on an approval of it",
    ),
    "amended by who decided": (
        lambda a: [*own_board(a), a.amended(by="krcs-allrounder", valid_until=None)],
        "krcs-allrounder amends the pledge, and decided on an approval of it",
    ),
    "lifted by the requester": (
        lambda a: [*own_board(a, CONDITION, requester="krcs-allrounder"), a.met(by="krcs-allrounder", role="approver")],
        "krcs-allrounder lifts a condition of A1, and requested it",
    ),
    "paid by who lifted": (
        lambda a: [
            *own_board(a, CONDITION),
            a.met(by="krcs-allrounder", role="approver"),
            a.instructed(by="krcs-allrounder", role="preparer"),
        ],
        "krcs-allrounder pays under A1, and decided on it",
    ),
    "asked in parts": (
        lambda a: [a.announced(amounts=(money("9998"),)), *a.approval("A1", "4999"), a.requested("A2", "4999")],
        "A2 asks for 2 approvals, which is not what the mechanism asks for",
    ),
    "asked again for an intermediary": (
        lambda a: [a.announced(), *a.approval(legs=("CRC-KBH",)), a.requested("A2", "1", legs=("CRC-KBH",))],
        "A2 asks for more out of KRCS-CRC than is not under approval",
    ),
    "released too late": (late_release, "D1 is released out of a pledge that is past its validity"),
    "received too much": (
        lambda a: [*paid(a), a.received("D1", "400", fees=money("1"))],
        "D1 is received twice, or more of it than was settled",
    ),
    "acknowledged what went back": (
        lambda a: [*arrived(a), a.returned("D2", "400", by="kbh-officer"), a.acknowledged("D2", "1")],
        "D2: more is acknowledged than is there",
    ),
    "used what went back": (
        lambda a: [*acknowledged(a), a.returned("D2", "400", by="kbh-officer"), a.utilised("1")],
        "more is used than was acknowledged and is still there",
    ),
    "resolved by the payer": (
        lambda a: [*paid(a), a.disputed(), a.resolved(by="krcs-officer")],
        "D1: a dispute is resolved that is not open, or not by CRC",
    ),
}
"""By name: what is told, and what the verifier says of the last of it."""

FOURTH: dict[str, tuple[Callable[[Acts], list[e.Event]], str]] = {
    "a return, by the same reference": (
        lambda a: [*paid(a), a.returned(return_reference="R1"), a.returned(by="crc-officer", return_reference="R1")],
        "D1: a return is told again, or without a reference of its own",
    ),
    "a return, by none": (
        lambda a: [*paid(a), a.returned(return_reference="R1"), a.returned(by="crc-officer")],
        "D1: a return is told again, or without a reference of its own",
    ),
    "a receipt, by the same reference": (
        lambda a: [*paid(a), a.received("D1", "100", receipt_reference="R1"), a.received("D1", "100", receipt_reference="R1")],
        "D1: a receipt is told again, or without a reference of its own",
    ),
    "a receipt, by none": (
        lambda a: [*paid(a), a.received("D1", "100"), a.received("D1", "100")],
        "D1: a receipt is told again, or without a reference of its own",
    ),
    "amended by who lifted": (
        lambda a: [*own_board(a, CONDITION), a.met(by="krcs-allrounder", role="approver"), a.amended(by="krcs-allrounder")],
        "krcs-allrounder amends the pledge, and decided on an approval of it",
    ),
    "back to the beneficiary": (
        lambda a: [a.announced(route=(*ROUTE, leg("L3", "CRC-KBH", "KBH", "CRC"), leg("L4", "L3", "CRC", "KBH")))],
        "leg L4 comes back to KBH",
    ),
    "an intermediary becomes the beneficiary": (
        lambda a: [*paid(a), a.amended(beneficiary="CRC")],
        "the beneficiary is CRC in place of KBH, and one of them was paid",
    ),
    "granted by a word that has run out": (
        late_approval,
        "A1 is approved after the word of an approver before has run out",
    ),
}
"""The same for the fourth version."""


ALWAYS: dict[str, tuple[Callable[[Acts], list[e.Event]], str]] = {
    "announced for another": (
        lambda a: [a.announced(by="crc-officer")],
        "crc-officer of CRC announces the pledge, which is for KRCS",
    ),
    "requested by the beneficiary": (
        lambda a: [a.announced(), a.requested(by="kbh-officer")],
        "KBH requests, and is neither donor nor intermediary",
    ),
    "approved for too long": (
        lambda a: [*requested(a), a.approved(valid_until=a.later(400))],
        "A1 is approved without end, for longer than the mechanism allows, or for a time that is past",
    ),
    "approved without end": (
        lambda a: [*requested(a), a.approved(valid_until=None)],
        "A1 is approved without end, for longer than the mechanism allows, or for a time that is past",
    ),
    "a paid leg taken off the route": (
        lambda a: [*paid(a), a.amended(route=(leg("DIRECT", None, "KRCS", "KBH"),))],
        "D1 moved on a leg that is not on the route any more",
    ),
    "a released payment cancelled by the payer": (
        lambda a: [*instructed(a), a.released(), a.bank_rejected(by="krcs-preparer")],
        "D1 is released, and krcs-preparer rejects it as preparer",
    ),
    "an instructed payment rejected by the bank": (
        lambda a: [*instructed(a), a.bank_rejected(by="krcs-bank")],
        "D1 is instructed, and krcs-bank rejects it as bank",
    ),
}
"""What no version allowed."""


@pytest.mark.parametrize("case", CASES)
def test_what_version_3_forbids_is_named_from_version_3_on(case: str) -> None:
    tell, sentence = CASES[case]

    assert sentence in objections(tell(Acts()), RULES_VERSION)
    if case != "received too much":  # its sums do not fall, whatever the rules
        assert objections(tell(Acts()), 2) == []


@pytest.mark.parametrize("case", ALWAYS)
def test_what_no_version_allowed_is_named(case: str) -> None:
    tell, sentence = ALWAYS[case]

    for rules in (2, 3, RULES_VERSION):
        assert objections(tell(Acts()), rules) == [sentence]


def test_a_receiver_reopens_from_version_3_on() -> None:
    def told() -> list[e.Event]:
        a = Acts()
        return [*arrived(a), a.closed(by="crc-officer"), a.reopened(by="kbh-officer")]

    assert objections(told(), RULES_VERSION) == []
    assert objections(told(), 2) == ["KBH is neither donor nor payer"]


def test_a_payment_is_received_in_parts_from_version_3_on() -> None:
    def told() -> list[e.Event]:
        a = Acts()
        return [*paid(a), a.received("D1", "100"), a.received("D1", "300", receipt_reference="R2")]

    assert objections(told(), RULES_VERSION) == []
    assert objections(told(), 2) == ["D1 is received twice, or more of it than was settled"]


@pytest.mark.parametrize("case", FOURTH)
def test_what_version_4_forbids_is_named_from_version_4_on(case: str) -> None:
    tell, sentence = FOURTH[case]

    assert objections(tell(Acts()), RULES_VERSION) == [sentence]
    assert objections(tell(Acts()), 3) == []


def test_a_further_return_with_a_reference_of_its_own_is_as_it_must_be() -> None:
    a = Acts()

    assert objections([*paid(a), a.returned(return_reference="R1"), a.returned(return_reference="R2")], RULES_VERSION) == []


def test_what_is_told_more_than_a_day_before_it_occurs_is_named_from_version_3_on() -> None:
    def told() -> list[e.Event]:
        return [Acts().announced()]

    [event] = told()
    assert objections(told(), RULES_VERSION, event.meta.occurred_on - timedelta(days=1)) == []
    assert objections(told(), RULES_VERSION, event.meta.occurred_on - timedelta(days=1, seconds=1)) == ["it is told before it occurs"]
    assert objections(told(), 2, event.meta.occurred_on - timedelta(days=2)) == []


@pytest.mark.parametrize("missing", [True, False])
def test_the_receipt_is_told_alike_where_money_is_missing(missing: bool) -> None:
    a = Acts()
    told = [
        *paid(a),
        a.received("D1", "100"),
        *a.payment("D2", "100", "crc"),
        a.received("D2", "100", by="kbh-officer"),
        a.acknowledged("D2", "100"),
    ]
    told += [] if missing else [a.returned("D1", "300")]

    assert axes(told)[-1] == ("partly" if missing else "acknowledged")


def test_the_receipt_is_told_alike_where_fees_are_all_that_is_left() -> None:
    a = Acts()
    direct = (leg("KRCS-KBH", None, "KRCS", "KBH"),)
    told = [a.announced(route=direct), *a.approval(), *a.payment("D1", "400", leg_id="KRCS-KBH")]
    told += [a.received("D1", "390", by="kbh-officer"), a.received("D1", "0", fees=money("10"), by="kbh-officer")]

    assert axes([*told, a.acknowledged("D1", "390")])[-1] == "acknowledged"
    assert axes([*told, a.returned("D1", "390")])[-1] == "none"
    told += [a.returned("D1", "395"), *a.payment("D2", "100", leg_id="KRCS-KBH"), a.received("D2", "100", by="kbh-officer")]
    assert axes([*told, a.acknowledged("D2", "100")])[-1] == "acknowledged"


def test_a_plan_of_a_pledge_that_ended_is_told_alike() -> None:
    a = Acts()

    assert axes([a.announced(), a.scheduled(), a.withdrawn()])[2] == "none"


def test_a_report_that_all_of_nothing_was_paid_is_told_alike() -> None:
    a = Acts()

    assert axes([a.observed(amounts=(money("0"),)), a.reported("P1", "0")])[2] == "full"


def axes(told: list[e.Event]) -> list[str]:
    """Pledge, approval, disbursement and receipt, after both folds."""
    ours: Donation | None = None
    theirs: verifier.Donation | None = None
    for event in told:
        ours = apply(ours, event)
        stamp = e.LedgerStamp(
            version=ours.version,
            submitted_offset=ours.version,
            previous_outcome_sha256=bytes(32),
            recorded_at=event.meta.occurred_on,
            previous_sha256=bytes(32),
            registry_offset=0,
            rules=RULES_VERSION,
        )
        theirs = verifier.fold(theirs, verifier.Event(*DECODER.decode(recorded(event, stamp))), bytes(32))
    assert ours is not None
    assert theirs is not None
    row = verifier.donation_row(theirs, 0)
    found = [row[name] for name in ("pledge", "approval", "disbursement", "receipt")]
    assert found == list(status(ours).axes)
    return found
