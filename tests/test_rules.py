"""Every rule of every event type is missed when it is taken away: a case that only this rule refuses is let through without it."""

import sys
from dataclasses import replace

import pytest

from aidtrail.domain import events as e
from aidtrail.domain import rules
from aidtrail.domain.fold import apply
from aidtrail.domain.rules import OBSERVED_RULES, RULES, check, policy
from tests.acts import START, Acts, full_life
from tests.situations import BROKEN, GUARDS, LOOKED_UP, REGISTRY, TABLES, Situation, broken, refused


@pytest.mark.parametrize(("oversight", "kind", "rule"), GUARDS, ids=[f"{o}-{k.type}-{r.__name__}" for o, k, r in GUARDS])
def test_a_rule_that_is_taken_away_is_missed(
    oversight: str, kind: type[e.Event], rule: rules.Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = TABLES[oversight][0]
    situation = broken(oversight, kind, rule)

    with_it = situation.check()
    monkeypatch.setitem(table, kind, tuple(other for other in table[kind] if other is not rule))
    try:
        without_it = situation.check()
    except KeyError:
        without_it = None
        assert rule.__name__ in LOOKED_UP

    assert with_it is not None
    assert with_it.reason == rule.__name__
    assert without_it is None, f"{without_it.reason} objects as well"


@pytest.mark.parametrize("oversight", TABLES)
def test_every_event_type_has_a_situation_in_which_it_is_admitted(oversight: str) -> None:
    table, lawful = TABLES[oversight]

    verdicts = {kind: lawful[kind](Acts()).check() for kind in e.DONATION_EVENTS.values()}

    refused = {kind for kind, verdict in verdicts.items() if verdict is not None}
    unconditional = {kind for kind, guards in table.items() if guards[0].__name__ in ("only_the_ledger_refuses", _ONLY_REPORTED)}
    assert set(table) == set(e.DONATION_EVENTS.values())
    assert refused == unconditional


_ONLY_REPORTED = "observed_takes_only_what_is_reported"


def test_no_rule_is_without_a_case_and_no_case_without_a_rule(capsys: pytest.CaptureFixture[str]) -> None:
    named = {rule.__name__ for _, _, rule in GUARDS}
    types = {(oversight, kind) for oversight, kind, _ in GUARDS}

    with capsys.disabled():
        sys.stdout.write(f"\n{len(GUARDS)} rules of {len(types)} event types removed, each missed ({len(named)} different rules)\n")

    assert named == set(BROKEN)


def test_every_refusal_can_be_recorded() -> None:
    for oversight, kind, rule in GUARDS:
        refusal = broken(oversight, kind, rule).check()

        assert refusal is not None
        recorded = refused(Acts()).model_dump() | {"reason": refusal.reason, "expected": refusal.expected, "found": refusal.found}
        e.SubmissionRefused.model_validate(recorded)
        assert len(refusal.expected) < 250
        assert len(refusal.found) < 250


def test_a_refusal_repeats_at_most_64_characters_that_others_wrote() -> None:
    long = "X" * 64
    texts = {"agreement_reference": "Y" * 2000, "reason": "Y" * 2000, "outcome": "Y" * 2000}
    for oversight, kind, rule in GUARDS:
        situation = broken(oversight, kind, rule)
        known = {name: text for name, text in texts.items() if getattr(situation.event, name, None) is not None}
        changed = replace(situation, event=situation.event.model_copy(update=known))
        refusal = changed.check()

        assert refusal is not None
        assert "YY" not in refusal.expected + refusal.found

    unknown = Situation(apply(None, Acts().announced()), Acts().released(long), START)
    refusal = unknown.check()

    assert refusal is not None
    assert refusal.found == f"no disbursement {long}"


def test_every_rule_has_a_sentence_and_the_policy_can_be_printed() -> None:
    printed = policy() + policy(OBSERVED_RULES)

    assert [kind for kind, _ in policy()] == [kind.type for kind in RULES]
    for kind, guards in printed:
        for name, sentence in guards:
            assert sentence.endswith("."), f"{kind}: {name} has no sentence"
            assert sentence[0].isupper()


def test_a_rule_stands_once_in_the_list_of_an_event() -> None:
    for table, _ in TABLES.values():
        for guards in table.values():
            assert len(set(guards)) == len(guards)


def test_a_whole_life_is_admitted() -> None:
    donation = None
    for event in full_life():
        assert check(donation, event, REGISTRY, event.meta.occurred_on) is None
        donation = apply(donation, event)

    assert donation is not None
    assert donation.version == 33


def test_a_whole_life_is_admitted_months_after_its_dates() -> None:
    donation = None
    for event in full_life():
        assert check(donation, event, REGISTRY, Acts().later(299)) is None
        donation = apply(donation, event)
