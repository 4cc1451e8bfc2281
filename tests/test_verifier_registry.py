"""The verifier's registry is the ledger's: the same records count, and an entry was ruled with one that was there, as new as it must be."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from aidtrail import codec, contract
from aidtrail.audit import verifier
from aidtrail.domain import events as e
from aidtrail.domain.money import Money
from aidtrail.errors import MalformedError, UndecodableError
from tests.acts import full_life, registry_events
from tests.signing import enrolled, public_key_of
from tests.worlds import PARTITIONS, SCHEMAS, TRUSTED, Held, Record, World, judged, projected, proved, rewrite, sealed

SEED = 20260105
MUTANTS = 4000
DECODER = verifier.Schemas(SCHEMAS)


# --- which records count ------------------------------------------------------------------------------------------------------------


def counts_for_the_ledger(value: bytes) -> bool:
    try:
        return isinstance(codec.decode(value), e.RegistryEvent)
    except (UndecodableError, MalformedError):
        return False


def counts_for_the_verifier(value: bytes) -> bool:
    """Whether the verifier's registry hands it on to be taken; that it makes sense there is another question."""
    taken: list[str] = []
    registry = verifier.Registry()
    registry.take = lambda offset, timestamp, kind, said: taken.append(kind)  # type: ignore[method-assign]
    verifier.take_registered(registry, Record(0, 0, None, value), DECODER)
    return bool(taken)


PARTY, ACTOR, ACTOR_RETIRED, MECHANISM, MECHANISM_RETIRED = (
    next(event for event in registry_events() if event.type == kind)
    for kind in ("PartyRegistered", "ActorEnrolled", "ActorRetired", "MechanismDefined", "MechanismRetired")
)


def with_(event: e.RegistryEvent, **changes: Any) -> bytes:
    """Its bytes with these values, also such as no event can have."""
    return codec.encode(type(event).model_construct(**{**{name: getattr(event, name) for name in type(event).model_fields}, **changes}))


def threshold(amount: Any = "1", currency: str = "KWD", approvals: int = 3) -> tuple[e.Threshold, ...]:
    least = Money.model_construct(amount=Money(amount="1", currency="KWD").amount * int(amount), currency=currency)
    return (e.Threshold.model_construct(at_least=least, approvals_required=approvals),)


IDS = {"A": True, "9": True, "a.b_c:d-e": True, "x" * 64: True, "": False, "x" * 65: False, "-a": False, "no such role!": False}
IDS |= {"a\n": False, "a b": False, "é": False, "\u0661": False}
TEXTS = {"x": True, "x" * 2000: True, "Kuwait: Croissant-Rouge é": True, "": False, "x" * 2001: False, "e\u0301": False, "a\tb": False}
TEXTS |= {"a\u2028b": False, "a\u00a0b": False, "\U0001f600" * 2000: True, "\u202ea": False}
CASES: list[tuple[str, bytes, bool]] = [
    *(
        (f"{event.type}.{name} {text[:20]!r}", with_(event, **{name: text}), fits)
        for event, name in [
            (PARTY, "party_id"),
            (PARTY, "kind"),
            (ACTOR, "actor_id"),
            (ACTOR, "party_id"),
            (ACTOR_RETIRED, "actor_id"),
            (MECHANISM, "mechanism_id"),
            (MECHANISM, "party_id"),
            (MECHANISM_RETIRED, "mechanism_id"),
        ]
        for text, fits in IDS.items()
    ),
    *((f"ActorEnrolled.roles {text[:20]!r}", with_(ACTOR, roles=("officer", text)), fits) for text, fits in IDS.items()),
    *(
        (f"{event.type}.{name} {text[:20]!r}", with_(event, **{name: text}), fits)
        for event, name in [(PARTY, "name"), (ACTOR_RETIRED, "reason"), (MECHANISM_RETIRED, "reason")]
        for text, fits in TEXTS.items()
    ),
    *(
        (f"PartyRegistered.country {country!r}", with_(PARTY, country=country), fits)
        for country, fits in {None: True, "KW": True, "kw": False, "KWT": False, "": False, "K\n": False, "KW\n": False}.items()
    ),
    *(
        (f"{what} {number}", value, 1 <= number <= 20)
        for number in (-1, 0, 1, 20, 21, 2**31 - 1)
        for what, value in [
            ("MechanismDefined.approvals_required", with_(MECHANISM, approvals_required=number)),
            ("MechanismDefined.thresholds approvals", with_(MECHANISM, thresholds=threshold(approvals=number))),
        ]
    ),
    *((f"validity_days {days}", with_(MECHANISM, validity_days=days), 1 <= days <= 3660) for days in (-1, 0, 1, 3660, 3661)),
    *((f"thresholds amount {amount}", with_(MECHANISM, thresholds=threshold(amount)), amount >= 0) for amount in (-1, 0, 1, 10**14)),
    *(
        (f"thresholds currency {currency!r}", with_(MECHANISM, thresholds=threshold(currency=currency)), fits)
        for currency, fits in {"KWD": True, "XXX": True, "kwd": False, "KW": False, "KWDX": False, "KWD\n": False}.items()
    ),
    ("no roles", with_(ACTOR, roles=()), True),
    ("no thresholds", with_(MECHANISM, thresholds=()), True),
]


@pytest.mark.parametrize(("value", "fits"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_record_whose_values_no_event_can_have_counts_for_neither(value: bytes, fits: bool) -> None:
    assert (counts_for_the_ledger(value), counts_for_the_verifier(value)) == (fits, fits)


def test_what_counts_for_the_verifier_counts_for_the_ledger() -> None:
    """Mutants of every record and of edges, at any place: of values too, which most mutants of a few bytes keep canonical."""
    chance = random.Random(SEED)
    examples = [codec.from_json(path.read_text()) for path in sorted((contract.FOLDER / "examples").glob("*.json"))]
    values = [codec.encode(event) for event in [*examples, *registry_events()] if isinstance(event, e.RegistryEvent)]
    values += [value for _, value, _ in CASES]
    counting = differing = 0
    for _ in range(MUTANTS):
        mutant = bytearray(chance.choice(values))
        for _ in range(chance.randrange(1, 4)):
            _mutations[chance.randrange(len(_mutations))](mutant, chance)
        ledger, ours = counts_for_the_ledger(bytes(mutant)), counts_for_the_verifier(bytes(mutant))
        counting += ledger
        differing += ledger is not ours
    print(f"seed {SEED}: {MUTANTS} mutants, {counting} count for the ledger, {differing} for one reader only")
    assert differing == 0
    assert MUTANTS // 10 < counting < MUTANTS * 9 // 10


def _flip(mutant: bytearray, chance: random.Random) -> None:
    mutant[chance.randrange(5, len(mutant))] ^= 1 << chance.randrange(8)


def _put(mutant: bytearray, chance: random.Random) -> None:
    mutant[chance.randrange(5, len(mutant))] = chance.choice(b"AZaz09-_.:\n \x00\x01\x02\x28\x2a\x7f\xc3\xff")


def _swap(mutant: bytearray, chance: random.Random) -> None:
    at, other = (chance.randrange(5, len(mutant)) for _ in range(2))
    mutant[at], mutant[other] = mutant[other], mutant[at]


_mutations: list[Callable[[bytearray, random.Random], None]] = [_flip, _put, _swap]


def test_a_record_that_every_ledger_ignores_changes_nothing_in_the_verifiers_registry() -> None:
    registry = verifier.Registry()
    values = [codec.encode(event) for event in registry_events()]
    values += [
        with_(MECHANISM, approvals_required=0),
        with_(PARTY, name="", signatures_required=True),
        with_(ACTOR, roles=("no such role!",)),
    ]

    for offset, value in enumerate(values):
        verifier.take_registered(registry, Record(offset, 0, None, value), DECODER)

    end = len(values) - 1
    assert isinstance(MECHANISM, e.MechanismDefined)
    assert isinstance(PARTY, e.PartyRegistered)
    assert isinstance(ACTOR, e.ActorEnrolled)
    assert registry.at("mechanism", MECHANISM.mechanism_id, end).required == MECHANISM.approvals_required
    assert registry.at("party", PARTY.party_id, end).signs is False
    assert registry.at("actor", ACTOR.actor_id, end).roles == set(ACTOR.roles)


# --- with which registry an entry was ruled -----------------------------------------------------------------------------------------

TRUST = verifier.Trust(TRUSTED)
LIFE = "KRCS-2026-0001"


class Ruled:
    """A log of one life. The registry has a record more, by which the key of `krcs-officer` is another one; the stamps are a forger's."""

    def __init__(self, world: World) -> None:
        self.held = world.held()
        self.number = max(range(PARTITIONS), key=lambda number: len(self.held.kept["recorded", number]))
        records = self.held.kept["recorded", self.number]
        self.offsets = [one.entry.record.offset for one in judged(records, self.number) if one.reason is None]
        registry = self.held.kept["registry", 0]
        self.old, self.new = registry[-1].offset, registry[-1].offset + 1
        self.submitted_at = max(record.timestamp for record in self.held.kept["submitted", self.number])

    def register(self, value: bytes, timestamp: int) -> None:
        self.held.kept["registry", 0].append(Record(self.new, timestamp, b"krcs-officer", value))

    def stamp(self, registry_offsets: dict[int, int]) -> Held:
        rewrite(self.held, self.number, -1, registry_offsets=registry_offsets)
        ends = [len(records) for records in self.held.recorded()]
        self.held.kept["checkpoints", 0], self.held.sealed_leaves = sealed(self.held.recorded(), [ends]), {}
        self.held.views = projected(self.held.recorded(), ends)
        return self.held


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(2, tmp_path_factory.mktemp("world"), [list(full_life(LIFE))])


@pytest.fixture
def ruled(world: World) -> Ruled:
    return Ruled(world)


REENROLLED = codec.encode(enrolled("krcs-officer", public_key_of("krcs-officer", 1)))


def test_c2_an_entry_that_was_ruled_with_an_older_registry_than_the_one_before_it_is_named_once(ruled: Ruled) -> None:
    ruled.register(REENROLLED, ruled.submitted_at)
    held = ruled.stamp({ruled.offsets[-3]: ruled.new})

    reports = [verifier.verify_export(held, TRUST), verifier.verify_bundle(proved(held, LIFE), TRUST)]

    for report in reports:
        said = f"expected the registry at offset {ruled.new} or later, as the entry before it, found offset {ruled.old}"
        assert report.exit_code == 12
        assert report.findings == [verifier.Finding("C2", "recorded", ruled.number, ruled.offsets[-2], said)]


def test_a_registry_that_advances_is_no_alarm(ruled: Ruled) -> None:
    ruled.register(REENROLLED, ruled.submitted_at)
    held = ruled.stamp({ruled.offsets[-2]: ruled.new, ruled.offsets[-1]: ruled.new})

    reports = [verifier.verify_export(held, TRUST), verifier.verify_bundle(proved(held, LIFE), TRUST)]

    assert [report.findings for report in reports] == [[], []]


@pytest.mark.parametrize(("before", "late"), [(60_000, False), (60_001, True)])
def test_c2_what_was_registered_more_than_a_minute_before_a_submission_must_have_been_ruled_with(
    before: int, late: bool, ruled: Ruled
) -> None:
    ruled.register(REENROLLED, ruled.submitted_at - before)

    report = verifier.verify_export(ruled.stamp({}), TRUST)

    said = f"expected the registry at offset {ruled.new} or later, appended 60 s before the submission, found offset {ruled.old}"
    assert report.findings == [verifier.Finding("C2", "recorded", ruled.number, ruled.offsets[-1], said)] * late


@pytest.mark.parametrize("value", [b"", with_(MECHANISM, approvals_required=0)], ids=["undecodable", "impossible"])
def test_what_every_ledger_ignores_is_no_place_to_be_ruled_at_however_old_it_is(value: bytes, ruled: Ruled, world: World) -> None:
    ruled.register(value, 0)
    sound = verifier.verify_export(ruled.stamp({}), TRUST)
    again = Ruled(world)
    again.register(value, 0)

    report = verifier.verify_export(again.stamp({again.offsets[-1]: again.new}), TRUST)

    assert sound.findings == []
    assert [one.what for one in report.findings] == [f"expected the registry at one of its records, found offset {again.new}"]
