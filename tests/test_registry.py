"""The registry says who exists. A record that makes no sense is ignored, and known to be."""

import time
from typing import Any

import pytest

from aidtrail.domain import events as e
from aidtrail.domain.registry import EMPTY, Registry, objection, register, register_all
from tests.acts import MECHANISMS, PARTIES, START, money, registry, registry_events, uuid7


def record(kind: type[e.RegistryEvent], /, **fields: Any) -> e.RegistryEvent:
    return kind(event_id=uuid7(START, 1), occurred_on=START, **fields)


def party(party_id: str, name: str = "A party", kind: str = "society") -> e.RegistryEvent:
    return record(e.PartyRegistered, party_id=party_id, name=name, kind=kind)


def actor(actor_id: str, party_id: str, *roles: str) -> e.RegistryEvent:
    return record(e.ActorEnrolled, actor_id=actor_id, party_id=party_id, roles=roles)


def mechanism(mechanism_id: str, party_id: str, required: int = 2, *thresholds: e.Threshold) -> e.RegistryEvent:
    return record(
        e.MechanismDefined,
        mechanism_id=mechanism_id,
        party_id=party_id,
        approvals_required=required,
        thresholds=thresholds,
        validity_days=30,
    )


def registry_of(*records: e.RegistryEvent) -> Registry:
    return register_all(EMPTY, ((event, offset) for offset, event in enumerate(records)))


def ignored(before: Registry, event: e.RegistryEvent) -> bool:
    """Whether it is objected to and changes nothing but the offset."""
    after = register(before, event, before.offset + 1)
    assert after.offset == before.offset + 1
    unchanged = (after.parties, after.actors, after.mechanisms) == (before.parties, before.actors, before.mechanisms)
    assert unchanged == (objection(before, event) is not None)
    return unchanged


def test_an_empty_registry_stands_before_the_first_record() -> None:
    assert EMPTY.offset == -1
    assert register(EMPTY, party("P"), 0).offset == 0


def test_one_by_one_and_all_at_once_come_to_the_same() -> None:
    one_by_one = EMPTY
    for offset, event in enumerate(registry_events()):
        one_by_one = register(one_by_one, event, offset)

    assert one_by_one == registry()
    assert set(one_by_one.parties) == set(PARTIES)
    assert set(one_by_one.mechanisms) == set(MECHANISMS)


def test_registering_leaves_the_registry_before_as_it_was() -> None:
    before = registry_of(party("P"), actor("a", "P", "officer"), mechanism("M", "P"))
    copy = Registry(dict(before.parties), dict(before.actors), dict(before.mechanisms), before.offset)

    register_all(before, [(party("Q"), 3), (actor("a", "P"), 4), (mechanism("M", "P", 5), 5), (actor("b", "Q"), 6)])

    assert before == copy


def test_a_party_registered_again_gets_its_new_name_and_kind() -> None:
    changed = registry_of(party("P"), party("P", "Another name", "bank"))

    assert (changed.parties["P"].name, changed.parties["P"].kind) == ("Another name", "bank")


def test_an_actor_enrolled_again_gets_other_roles_but_no_other_party() -> None:
    known = registry_of(party("P"), party("Q"), actor("a", "P", "officer"))

    assert register(known, actor("a", "P", "approver"), 3).actors["a"].roles == {"approver"}
    assert ignored(known, actor("a", "Q", "officer"))


def test_an_actor_of_an_unknown_party_is_ignored() -> None:
    assert ignored(EMPTY, actor("a", "NOBODY"))
    assert ignored(EMPTY, record(e.ActorRetired, actor_id="a", reason="left"))


def test_a_retired_actor_stays_retired() -> None:
    known = registry_of(party("P"), actor("a", "P", "officer"), record(e.ActorRetired, actor_id="a", reason="left"))

    assert known.actors["a"].retired
    assert known.actors["a"].roles == {"officer"}
    assert ignored(known, actor("a", "P", "officer"))


def test_a_mechanism_defined_again_changes_its_numbers_but_not_its_owner() -> None:
    known = registry_of(party("P"), party("Q"), mechanism("M", "P", 2))

    assert register(known, mechanism("M", "P", 3), 3).mechanisms["M"].base_approvals_required == 3
    assert ignored(known, mechanism("M", "Q", 3))
    assert ignored(known, mechanism("N", "NOBODY"))


def test_a_retired_mechanism_stays_retired() -> None:
    known = registry_of(party("P"), mechanism("M", "P"), record(e.MechanismRetired, mechanism_id="M", reason="replaced"))

    assert known.mechanisms["M"].retired
    assert ignored(known, mechanism("M", "P", 3))
    assert ignored(EMPTY, record(e.MechanismRetired, mechanism_id="M", reason="replaced"))


def test_an_objection_says_what_is_wrong() -> None:
    known = registry_of(party("P"), party("Q"), actor("a", "P"))

    assert objection(known, actor("b", "NOBODY")) == "party NOBODY is not registered"
    assert objection(known, actor("a", "Q")) == "actor a belongs to party P and cannot move to Q"
    assert objection(known, actor("a", "P", "officer")) is None


@pytest.mark.parametrize("offset", [0, 5])
def test_records_out_of_order_are_not_taken(offset: int) -> None:
    known = register(EMPTY, party("P"), 5)

    with pytest.raises(ValueError, match="in order"):
        register(known, party("Q"), offset)


def test_offsets_may_have_gaps() -> None:
    assert register_all(EMPTY, [(party("P"), 3), (party("Q"), 9)]).offset == 9


def test_the_highest_threshold_that_any_currency_reaches_counts() -> None:
    def at(amount: str, currency: str, required: int) -> e.Threshold:
        return e.Threshold(at_least=money(amount, currency), approvals_required=required)

    known = registry_of(party("P"), mechanism("M", "P", 2, at("100", "KWD", 3), at("1000", "KWD", 1), at("50", "USD", 4)))
    required = known.mechanisms["M"].approvals_required

    assert required({"KWD": money("99.999").amount}) == 2
    assert required({"KWD": money("100").amount}) == 3
    assert required({"KWD": money("5000").amount}) == 3
    assert required({"KWD": money("5000").amount, "USD": money("50").amount}) == 4
    assert required({"EUR": money("5000").amount}) == 2


def test_thousands_of_parties_are_loaded_in_one_pass() -> None:
    records = [(party(f"P-{number}"), number) for number in range(20_000)]

    began = time.process_time()
    loaded = register_all(EMPTY, records)
    seconds = time.process_time() - began

    assert len(loaded.parties) == 20_000
    assert seconds < 2, "a copy of the table for every record takes minutes"
