"""UN OCHA FTS flows become observed donations, and nothing is lost. Figures of the real data: UN OCHA FTS, CC BY-IGO."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidtrail.codec import decode, encode
from aidtrail.domain import events as e
from aidtrail.domain.donation import Donation
from aidtrail.domain.fold import apply
from aidtrail.domain.money import Money
from aidtrail.domain.registry import EMPTY, register_all
from aidtrail.domain.rules import check
from aidtrail.errors import UsageError
from aidtrail.importers import fts, fts_line, fts_totals

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "fts"
NOW = datetime(2026, 11, 24, tzinfo=UTC)
FILES = ("jordan-2020", "palestine-2020")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the FTS files are not beside this checkout")


def organisation(number: int, name: str = "", kind: str = "NGO") -> dict[str, Any]:
    return {"type": "Organization", "id": str(number), "name": name or f"Organisation {number}", "organizationTypes": [kind]}


def flow(flow_id: object = "1", **stated: Any) -> dict[str, Any]:
    return {
        "id": flow_id,
        "versionId": 1,
        "status": "paid",
        "flowType": "Standard",
        "contributionType": "financial",
        "amountUSD": 3300,
        "originalAmount": 1000,
        "originalCurrency": "KWD",
        "exchangeRate": 1,
        "date": "2020-06-02T00:00:00Z",
        "decisionDate": "2020-05-01T00:00:00Z",
        "updatedAt": "2020-07-03T08:16:00.625Z",
        "parentFlowId": None,
        "newMoney": True,
        "sourceObjects": [organisation(10, "Kuwait, Government of", "Government"), {"type": "Location", "id": "20", "name": "Kuwait"}],
        "destinationObjects": [organisation(11)],
        "reportDetails": [{"organization": "Kuwait Red Crescent Society"}],
        "grandBargainEarmarkingType": None,
        "refCode": "A 1",
    } | stated


def without(flow: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in flow.items() if key not in keys}


def lines(*flows: dict[str, Any] | str | bytes, file: str = "made.ndjson") -> list[fts_line.Line]:
    texts = [one if isinstance(one, bytes) else one.encode() if isinstance(one, str) else json.dumps(one).encode() for one in flows]
    return [fts_line.Line(file, number, text) for number, text in enumerate(texts, start=1)]


def translated(*flows: dict[str, Any] | str | bytes) -> fts.Import:
    return fts.translate(lines(*flows))


def in_log(*imports: fts.Import) -> dict[str, fts.Imported | None]:
    """What `imported` answers after the ledger has admitted all events of these imports."""
    of: defaultdict[str, list[e.Event]] = defaultdict(list)
    for one in imports:
        for event in one.events:
            of[event.meta.donation_id].append(event)
    return {donation_id: fts.imported_from(events) for donation_id, events in of.items()}


def announced(imported: fts.Import, flow_id: str = "1") -> e.PledgeAnnounced:
    return next(x for x in imported.events if isinstance(x, e.PledgeAnnounced) and x.meta.donation_id == f"FTS-{flow_id}")


def types(imported: fts.Import) -> list[str]:
    return [event.type for event in imported.events]


def nothing_is_lost(imported: fts.Import) -> bool:
    return imported.lines == len(imported.flows) + len(imported.repeats) + len(imported.refusals)


# --- what a flow becomes ------------------------------------------------------------------------------------------------------------


def test_a_paid_flow_is_a_pledge_and_a_settlement_on_its_own_leg_and_nothing_else() -> None:
    imported = translated(flow())

    pledge, payment = imported.events
    assert isinstance(pledge, e.PledgeAnnounced)
    assert isinstance(payment, e.DisbursementSettled)
    assert pledge.oversight == e.Oversight.OBSERVED
    assert (pledge.donor, pledge.beneficiary) == ("FTS-10", "FTS-11")
    assert pledge.route == (e.Leg(leg_id="FTS-1", from_party="FTS-10", to_party="FTS-11"),)
    assert pledge.amounts == (Money(amount=Decimal(1000), currency="KWD"),)
    assert pledge.equivalents == (Money(amount=Decimal(3300), currency="USD"),)
    assert (pledge.purpose, pledge.earmark) == (None, None)
    assert (payment.leg_id, payment.disbursement_id, payment.bank_reference) == ("FTS-1", "FTS-1", None)
    assert payment.amount == pledge.amounts[0]
    assert payment.booked_on.isoformat() == "2020-06-02"
    assert pledge.meta.occurred_on == datetime(2020, 5, 1, tzinfo=UTC)
    assert payment.meta.occurred_on == datetime(2020, 6, 2, tzinfo=UTC)
    assert pledge.meta.source == e.Source(channel="fts", reference="flow 1 version 1, reported by Kuwait Red Crescent Society")
    assert pledge.meta.evidence[0].sha256 == hashlib.sha256(json.dumps(flow()).encode()).digest()


def test_a_pledge_is_announced_and_a_commitment_is_confirmed_with_its_ref_code() -> None:
    imported = translated(flow("1", status="pledge"), flow("2", status="commitment"), flow("3", status="commitment", refCode=" "))

    assert types(imported) == ["PledgeAnnounced", "PledgeAnnounced", "PledgeConfirmed", "PledgeAnnounced", "PledgeConfirmed"]
    assert [x.agreement_reference for x in imported.events if isinstance(x, e.PledgeConfirmed)] == ["A 1", None]


def test_a_ref_code_with_tabs_is_written_with_escapes_and_noted() -> None:
    imported = translated(flow(status="commitment", refCode="10\tNo"), flow("2", refCode="10\tNo"))

    assert [x.agreement_reference for x in imported.events if isinstance(x, e.PledgeConfirmed)] == [r"10\tNo"]
    assert [(note.flow_id, note.field) for note in imported.notes] == [("1", "refCode")]


def test_without_a_decision_date_the_announcement_has_the_date_of_the_flow() -> None:
    pledge = announced(translated(flow(decisionDate=None)))

    assert pledge.meta.occurred_on == datetime(2020, 6, 2, tzinfo=UTC)


def test_registry_events_name_the_reporter_and_each_organisation_once_with_its_kind() -> None:
    society = organisation(12, "Croissant-Rouge", "Red Cross/Red Crescent")
    imported = translated(flow(), flow("2", destinationObjects=[society]), flow("3", destinationObjects=[organisation(13, kind="Otter")]))

    parties = {x.party_id: x.kind for x in imported.registry if isinstance(x, e.PartyRegistered)}
    assert parties == {"OCHA-FTS": "agency", "FTS-10": "government", "FTS-11": "ngo", "FTS-12": "society", "FTS-13": "organisation"}
    assert [(x.actor_id, x.party_id, x.roles) for x in imported.registry if isinstance(x, e.ActorEnrolled)] == [
        ("fts-import", "OCHA-FTS", ("reporter",))
    ]
    assert isinstance(imported.registry[0], e.PartyRegistered)
    assert all(x.country is None for x in imported.registry if isinstance(x, e.PartyRegistered))


def test_an_organisation_is_the_same_event_in_every_import() -> None:
    one = {encode(event) for event in translated(flow()).registry}
    other = {encode(event) for event in translated(flow("2", date="2019-01-01T00:00:00Z"), flow()).registry}

    assert one == other


def test_no_organisation_and_several_are_parties_of_their_own_and_the_amount_is_not_split() -> None:
    several = [organisation(11), organisation(12), organisation(11)]
    imported = translated(flow("1", sourceObjects=[], destinationObjects=several))

    pledge = announced(imported)
    assert (pledge.donor, pledge.beneficiary) == ("FTS-UNSTATED", "FTS-SEVERAL")
    assert pledge.amounts == (Money(amount=Decimal(1000), currency="KWD"),)
    assert (pledge.meta.source.reference or "").endswith("; destination organisations: FTS-11, FTS-12")
    names = [x.party_id for x in imported.registry if isinstance(x, e.PartyRegistered)]
    assert names == ["OCHA-FTS", "FTS-UNSTATED", "FTS-SEVERAL", "FTS-11", "FTS-12"]
    assert "FTS-UNSTATED" not in str(translated(flow()).registry)


def test_an_organisation_under_two_names_keeps_the_first_and_the_other_is_noted() -> None:
    imported = translated(flow(), flow("2", destinationObjects=[organisation(11, "Renamed")]))

    assert [x.name for x in imported.registry if isinstance(x, e.PartyRegistered) and x.party_id == "FTS-11"] == ["Organisation 11"]
    assert [(note.flow_id, note.field) for note in imported.notes] == [("2", "FTS-11")]


def test_a_name_is_carried_in_normal_form_c() -> None:
    imported = translated(flow(destinationObjects=[organisation(11, "Me\u0301decins du Monde")]))

    assert "M\u00e9decins du Monde" in [x.name for x in imported.registry if isinstance(x, e.PartyRegistered)]


@pytest.mark.parametrize(
    ("stated", "degree", "notes"),
    [
        (None, None, 0),
        ([], None, 0),
        (["unearmarked"], 1, 0),
        (["softly earmarked"], 2, 0),
        (["earmarked"], 3, 0),
        (["tightly earmarked"], 4, 0),
        (["earmarked", "unearmarked"], None, 1),
        (["loosely"], None, 1),
    ],
)
def test_an_earmark_is_carried_only_where_one_degree_is_stated(stated: object, degree: int | None, notes: int) -> None:
    imported = translated(flow(grandBargainEarmarkingType=stated))

    assert announced(imported).earmark == degree
    assert len(imported.notes) == notes


# --- amounts ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "amounts", "equivalents", "basis"),
    [
        ({"originalAmount": 0, "originalCurrency": "USD", "amountUSD": 50}, "50.00 USD", "", "usd"),
        ({"originalAmount": 0, "originalCurrency": "EUR", "amountUSD": 0}, "0.00 EUR", "0.00 USD", "original"),
        ({"originalAmount": None, "originalCurrency": "EUR", "amountUSD": 50}, "50.00 USD", "", "usd"),
        ({"originalAmount": None, "originalCurrency": None, "amountUSD": 50}, "50.00 USD", "", "usd"),
        ({"originalAmount": 50, "originalCurrency": "USD", "amountUSD": 50}, "50.00 USD", "", "original"),
        ({"originalAmount": 49, "originalCurrency": "USD", "amountUSD": 50}, "49.00 USD", "50.00 USD", "original"),
        ({"originalAmount": 1, "originalCurrency": "SEK", "exchangeRate": 1, "amountUSD": 50}, "1.00 SEK", "50.00 USD", "original"),
    ],
)
def test_the_original_amount_is_taken_unless_it_loses_the_money(stated: Any, amounts: str, equivalents: str, basis: str) -> None:
    imported = translated(flow(**stated))

    pledge = announced(imported)
    assert ", ".join(map(str, pledge.amounts)) == amounts
    assert ", ".join(map(str, pledge.equivalents)) == equivalents
    assert imported.flows[0].basis == basis


def test_three_decimals_of_kwd_are_exact_and_never_pass_through_a_float() -> None:
    text = json.dumps(flow()).replace('"originalAmount": 1000,', '"originalAmount": 123456789012.345,')

    assert str(announced(translated(text)).amounts[0]) == "123,456,789,012.345 KWD"


@pytest.mark.parametrize(
    ("currency", "amount", "reason"),
    [
        ("KWD", "0.0001", "amount_digits"),
        ("JPY", "0.5", "amount_digits"),
        ("USD", "0.001", "amount_digits"),
        ("EUR", "0.1000000000000000055511151231257827", "amount_digits"),
        ("EUR", "-1", "amount"),
        ("EUR", "1e15", "amount"),
        ("EUR", "1E+999999", "amount"),
        ("EUR", '"1"', "amount"),
        ("EUR", "true", "amount"),
        ("EUR", "NaN", "json"),
        ("EUR", "1E+99999999999999999999", "json"),
        ("ABC", "1", "currency"),
        ("XAU", "1", "currency"),
        ("eur", "1", "currency"),
    ],
)
def test_an_amount_that_its_currency_cannot_have_is_refused_never_rounded(currency: str, amount: str, reason: str) -> None:
    text = json.dumps(flow(originalCurrency=currency)).replace('"originalAmount": 1000,', f'"originalAmount": {amount},')
    imported = translated(text)

    assert not imported.events
    assert [refusal.reason for refusal in imported.refusals] == [reason]


def test_a_whole_amount_written_with_a_point_fits_a_currency_without_minor_unit() -> None:
    text = json.dumps(flow(originalCurrency="JPY")).replace('"originalAmount": 1000,', '"originalAmount": 1000.0,')

    assert str(announced(translated(text)).amounts[0]) == "1,000 JPY"


# --- refusals -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (flow(amountUSD=-12.5), "-12.5"),
        ("id,amountUSD", "at character 1 id,amountUSD"),
        ('{"id": "1"', "at character 11 the end"),
        ("[{}]", "a list of them: one a line"),
        (b"\xef\xbb\xbf{}", "a byte order mark; save it as UTF-8 without one"),
    ],
)
def test_what_was_found_is_told_as_it_stands_in_the_line(line: Any, found: str) -> None:
    assert [refusal.found for refusal in translated(line).refusals] == [found]


BAD: list[tuple[dict[str, Any] | str | bytes, str, str | None]] = [
    ('{"id": "1"', "json", None),
    ("", "json", None),
    ("[]", "json", None),
    (b'{"id": "\xff"}', "json", None),
    ("[" * 100_000, "json", None),
    ('{"id": "1", "id": "2"}', "json", None),
    (without(flow(), "id"), "flow_id", None),
    (flow(""), "flow_id", None),
    (flow("0"), "flow_id", None),
    (flow("1a"), "flow_id", None),
    (flow("\u0661"), "flow_id", None),
    (flow(1.5), "flow_id", None),
    (flow(True), "flow_id", None),
    (without(flow(), "versionId"), "version", "1"),
    (flow(versionId=0), "version", "1"),
    (flow(status="promised"), "status", "1"),
    (flow(status=["paid"]), "status", "1"),
    (flow(contributionType="both"), "contribution", "1"),
    (without(flow(), "amountUSD"), "amount", "1"),
    (flow(amountUSD=-1), "amount", "1"),
    (flow(originalCurrency=None), "currency", "1"),
    (flow(date=None), "date", "1"),
    (flow(date="2020-06-02"), "date", "1"),
    (flow(date="1969-12-31T00:00:00Z"), "date", "1"),
    (flow(date="0001-01-01T00:00:00+14:00"), "date", "1"),
    (flow(decisionDate="soon"), "date", "1"),
    (flow(parentFlowId="x"), "parent_flow_id", "1"),
    (flow(sourceObjects=None), "organisations", "1"),
    (flow(sourceObjects=["Kuwait"]), "organisations", "1"),
    (flow(sourceObjects=[{"type": "Organization", "name": "no id"}]), "organisation_id", "1"),
    (flow(sourceObjects=[organisation(1) | {"name": None}]), "text", "1"),
    (flow(sourceObjects=[organisation(1, "a\tb")]), "text", "1"),
    (flow(sourceObjects=[organisation(1, "\ud800")]), "text", "1"),
    (flow(sourceObjects=[organisation(1, "x" * 2001)]), "text", "1"),
    (flow(reportDetails=[{"organization": "a\nb"}]), "text", "1"),
    (flow(reportDetails=[{"organization": "x" * 1990}]), "text", "1"),
    (flow(reportDetails=["somebody"]), "reports", "1"),
    (flow(status="commitment", refCode=7), "text", "1"),
]


@pytest.mark.parametrize(("line", "reason", "flow_id"), BAD, ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "")
def test_a_line_that_cannot_be_translated_is_a_listed_refusal_and_the_next_goes_on(line: Any, reason: str, flow_id: str | None) -> None:
    imported = translated(line, flow("2"))

    assert [(x.file, x.line, x.flow_id, x.reason) for x in imported.refusals] == [("made.ndjson", 1, flow_id, reason)]
    assert all(x.expected and x.found.isprintable() and 0 < len(x.found) <= 64 for x in imported.refusals)
    assert [one.flow_id for one in imported.flows] == ["2"]
    assert nothing_is_lost(imported)


def test_an_id_may_be_a_number_and_a_parent_id_a_string() -> None:
    imported = translated(flow(7), flow("8", parentFlowId="7"), flow("9", parentFlowId=7))

    assert announced(imported, "8").route[0] == announced(imported, "9").route[0] == announced(imported, "7").route[0]


# --- repeats and versions within one corpus -----------------------------------------------------------------------------------------


def test_a_flow_that_stands_twice_with_equal_content_counts_once_however_it_is_written() -> None:
    again = json.dumps(dict(reversed(flow().items())), indent=1).replace("\n", " ")
    imported = translated(flow(), again)

    assert types(imported) == ["PledgeAnnounced", "DisbursementSettled"]
    assert imported.repeats == (fts.Repeat("made.ndjson", 2, "1", 1, 1),)


def test_of_two_versions_the_newer_counts_whichever_stands_first() -> None:
    older, newer = flow(), flow(versionId=2, originalAmount=7)

    for imported, line in ((translated(older, newer), 1), (translated(newer, older), 2)):
        assert announced(imported).amounts[0].amount == 7
        assert imported.repeats == (fts.Repeat("made.ndjson", line, "1", 1, 2),)


def test_one_version_with_two_contents_is_refused_with_both_lines_and_nothing_older_stands_in_for_it() -> None:
    imported = translated(flow(versionId=2), flow(), flow(versionId=2, originalAmount=7))

    assert not imported.events
    assert [(x.line, x.reason) for x in imported.refusals] == [(1, "contradiction"), (3, "contradiction")]
    assert "made.ndjson line 3" in imported.refusals[0].found
    assert imported.repeats == (fts.Repeat("made.ndjson", 2, "1", 1, 2),)


# --- parents ------------------------------------------------------------------------------------------------------------------------


def test_a_child_is_a_leg_below_its_parents_and_its_donor_is_the_first_source_wherever_the_parent_stands() -> None:
    child = flow("3", parentFlowId=2, sourceObjects=[organisation(12)], destinationObjects=[organisation(13)])
    middle = flow("2", parentFlowId=1, sourceObjects=[organisation(11)], destinationObjects=[organisation(12)])
    imported = translated(child, middle, flow("1"))

    pledge = announced(imported, "3")
    assert pledge.route == (
        e.Leg(leg_id="FTS-1", from_party="FTS-10", to_party="FTS-11"),
        e.Leg(leg_id="FTS-2", parent_leg_id="FTS-1", from_party="FTS-11", to_party="FTS-12"),
        e.Leg(leg_id="FTS-3", parent_leg_id="FTS-2", from_party="FTS-12", to_party="FTS-13"),
    )
    assert (pledge.donor, pledge.beneficiary) == ("FTS-10", "FTS-13")
    assert not imported.orphans
    assert [one.flow_id for one in imported.flows] == ["3", "2", "1"]


def test_a_flow_whose_parent_is_not_there_is_listed_as_an_orphan_and_says_so() -> None:
    imported = translated(flow(parentFlowId=99))

    assert imported.orphans == (fts.Orphan("1", "99"),)
    assert announced(imported).route == (e.Leg(leg_id="FTS-1", from_party="FTS-10", to_party="FTS-11"),)
    assert all((x.meta.source.reference or "").endswith("; parent flow 99 not in this import") for x in imported.events)


def test_the_child_of_a_refused_flow_is_an_orphan() -> None:
    imported = translated(flow(status="promised"), flow("2", parentFlowId=1))

    assert imported.orphans == (fts.Orphan("2", "1"),)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_a_cycle_of_parents_is_refused_and_what_hangs_below_it_is_an_orphan(order: tuple[int, ...]) -> None:
    flows = [flow("1", parentFlowId=2), flow("2", parentFlowId=3), flow("3", parentFlowId=1), flow("4", parentFlowId=1)]
    imported = translated(*(flows[at] for at in order))

    assert {(x.flow_id, x.reason) for x in imported.refusals} == {("1", "cycle"), ("2", "cycle"), ("3", "cycle")}
    assert imported.orphans == (fts.Orphan("4", "1"),)
    assert nothing_is_lost(imported)


def test_a_flow_that_is_its_own_parent_is_a_cycle() -> None:
    assert [x.reason for x in translated(flow(parentFlowId=1)).refusals] == ["cycle"]


def test_a_chain_beyond_all_reason_is_refused_where_it_gets_too_deep() -> None:
    flows = [flow(str(number), parentFlowId=number - 1 or None) for number in range(1, 2000)]
    imported = translated(*reversed(flows))

    assert [(x.flow_id, x.reason) for x in imported.refusals][-1] == (str(fts.MAX_DEPTH + 1), "depth")
    assert nothing_is_lost(imported)


# --- what the log holds already -----------------------------------------------------------------------------------------------------


def test_importing_again_without_knowing_the_log_submits_the_same_bytes() -> None:
    flows = [flow(), flow("2", parentFlowId=1), flow("3", status="commitment")]

    assert [encode(x) for x in translated(*flows).events] == [encode(x) for x in translated(*flows).events]


def test_importing_again_submits_nothing_where_the_log_has_it_all() -> None:
    flows = [flow(), flow("2", parentFlowId=1), flow("3", status="commitment"), flow("4", amountUSD=0, originalAmount=0)]
    again = fts.translate(lines(*flows), in_log(translated(*flows)).get)

    assert not again.events
    assert {one.change for one in again.flows} == {"unchanged"}


def test_an_import_that_was_cut_short_is_completed_with_the_events_that_are_missing() -> None:
    whole = translated(flow())
    cut = fts.imported_from(whole.events[:1])
    again = fts.translate(lines(flow()), {"FTS-1": cut}.get)

    assert again.events == whole.events[1:]
    assert [one.change for one in again.flows] == ["completed"]


def test_a_newer_version_amends_the_terms_and_says_which_version_it_replaces() -> None:
    before = translated(flow(status="commitment"))
    newer = flow(status="commitment", versionId=3, originalAmount=900, amountUSD=2970, destinationObjects=[organisation(12)])
    after = fts.translate(lines(newer), in_log(before).get)

    (amended,) = after.events
    assert isinstance(amended, e.PledgeAmended)
    assert amended.amounts == (Money(amount=Decimal(900), currency="KWD"),)
    assert amended.beneficiary == "FTS-12"
    assert amended.reason == "FTS states version 3 in place of version 1, worth 2,970.00 USD"
    assert amended.meta.occurred_on == datetime(2020, 7, 3, 8, 16, 0, 625_000, tzinfo=UTC)
    state = in_log(before, after)["FTS-1"]
    assert state is not None
    assert (state.version, state.beneficiary, state.confirmed) == (3, "FTS-12", True)


def test_a_commitment_that_is_paid_in_a_newer_version_is_amended_and_settled() -> None:
    before = translated(flow(status="commitment"))
    after = fts.translate(lines(flow(versionId=2)), in_log(before).get)

    assert types(after) == ["PledgeAmended", "DisbursementSettled"]
    assert [x.disbursement_id for x in after.events if isinstance(x, e.DisbursementSettled)] == ["FTS-1"]


def test_a_payment_that_stays_the_same_in_a_newer_version_is_not_settled_again() -> None:
    after = fts.translate(lines(flow(versionId=2)), in_log(translated(flow())).get)

    assert types(after) == ["PledgeAmended"]


def test_a_payment_that_changes_is_returned_and_settled_anew_so_that_what_stands_is_what_is_stated() -> None:
    before = translated(flow())
    after = fts.translate(lines(flow(versionId=2, originalAmount=7, originalCurrency="EUR")), in_log(before).get)

    returned, amended, settled = after.events
    assert isinstance(returned, e.DisbursementReturned)
    assert isinstance(amended, e.PledgeAmended)
    assert isinstance(settled, e.DisbursementSettled)
    assert (returned.disbursement_id, str(returned.amount), returned.kind) == ("FTS-1", "1,000.000 KWD", e.ReturnKind.OTHER)
    assert (settled.disbursement_id, str(settled.amount)) == ("FTS-1-V2", "7.00 EUR")
    again = fts.translate(lines(flow(versionId=2, originalAmount=7, originalCurrency="EUR")), in_log(before, after).get)
    assert not again.events


@pytest.mark.parametrize("cut", [1, 2])
def test_an_amendment_that_was_cut_short_goes_on_with_the_same_events(cut: int) -> None:
    before, newer = translated(flow()), lines(flow(versionId=2, originalAmount=7))
    whole = fts.translate(newer, in_log(before).get)
    again = fts.translate(newer, {"FTS-1": fts.imported_from((*before.events, *whole.events[:cut]))}.get)

    assert again.events == whole.events[cut:]


def test_a_payment_that_a_newer_version_takes_back_is_returned() -> None:
    after = fts.translate(lines(flow(versionId=2, status="pledge")), in_log(translated(flow())).get)

    assert types(after) == ["DisbursementReturned", "PledgeAmended"]


def test_an_older_version_than_the_log_has_is_refused() -> None:
    after = fts.translate(lines(flow()), in_log(translated(flow(versionId=2))).get)

    assert [x.reason for x in after.refusals] == ["older_version"]
    assert not after.events


@pytest.mark.parametrize("changed", [{"sourceObjects": [organisation(12)]}, {"contributionType": "in kind"}])
def test_a_newer_version_with_another_donor_or_contribution_is_refused_because_these_never_change(changed: dict[str, Any]) -> None:
    after = fts.translate(lines(flow(versionId=2, **changed)), in_log(translated(flow())).get)

    assert [x.reason for x in after.refusals] == ["fixed_terms"]


def test_the_version_that_the_log_has_with_another_amount_is_refused() -> None:
    after = fts.translate(lines(flow(originalAmount=7)), in_log(translated(flow())).get)

    assert [x.reason for x in after.refusals] == ["contradiction"]


def test_a_parent_that_only_the_log_has_is_no_orphan() -> None:
    log = in_log(translated(flow()))
    after = fts.translate(lines(flow("2", parentFlowId=1)), log.get)

    assert not after.orphans
    assert [leg.leg_id for leg in announced(after, "2").route] == ["FTS-1", "FTS-2"]


def test_a_parent_that_comes_later_takes_its_orphan_in_where_the_donor_is_the_same() -> None:
    log = in_log(translated(flow("2", parentFlowId=1)))
    after = fts.translate(lines(flow("1"), flow("2", parentFlowId=1)), log.get)

    (amended,) = [x for x in after.events if x.meta.donation_id == "FTS-2"]
    assert isinstance(amended, e.PledgeAmended)
    assert [leg.leg_id for leg in amended.route] == ["FTS-1", "FTS-2"]
    assert not after.orphans


def test_an_orphan_stays_one_where_its_parent_would_bring_another_donor() -> None:
    log = in_log(translated(flow("2", parentFlowId=1)))
    after = fts.translate(lines(flow("1", sourceObjects=[organisation(12)]), flow("2", parentFlowId=1)), log.get)

    assert after.orphans == (fts.Orphan("2", "1"),)
    assert [x.meta.donation_id for x in after.events] == ["FTS-1", "FTS-1"]


def test_a_child_keeps_the_legs_that_the_log_has_where_its_parent_is_in_no_file() -> None:
    parent = flow("1", sourceObjects=[organisation(12)])
    whole = translated(parent, flow("2", parentFlowId=1))
    after = fts.translate(lines(flow("2", parentFlowId=1)), {"FTS-2": in_log(whole)["FTS-2"]}.get)

    assert not after.events
    assert not after.orphans


def test_a_donation_that_came_by_another_channel_is_not_taken_for_an_imported_flow() -> None:
    pledge = announced(translated(flow()))
    other = pledge.model_copy(
        update={"meta": pledge.meta.model_copy(update={"source": e.Source(channel="http", reference="flow 1 version 1")})}
    )

    assert fts.imported_from([other]) is None
    assert fts.imported_from([]) is None


# --- reading and summing ------------------------------------------------------------------------------------------------------------


def test_reading_numbers_the_lines_without_their_ends_and_reports_every_byte(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a\r\n\nb")
    two.write_bytes(b"c\n")
    sizes: list[int] = []

    assert list(fts.read([one, two], sizes.append)) == [
        fts_line.Line(str(one), 1, b"a"),
        fts_line.Line(str(one), 2, b""),
        fts_line.Line(str(one), 3, b"b"),
        fts_line.Line(str(two), 1, b"c"),
    ]
    assert sum(sizes) == 7


@pytest.mark.parametrize("indent", [None, 2])
def test_an_answer_of_fts_as_it_came_is_told_how_to_become_lines(tmp_path: Path, indent: int | None) -> None:
    file = tmp_path / "answer.json"
    file.write_text(json.dumps({"status": "ok", "data": {"incoming": {}, "flows": [flow("901")]}}, indent=indent))

    with pytest.raises(UsageError, match=r"answer\.json: expected FTS flows, one JSON object a line, .* jq -c '\.data\.flows\[\]'$"):
        next(fts.read([file]))


def test_a_file_that_is_not_there_is_named_before_anything_is_read(tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.write_bytes(b"a\n")

    with pytest.raises(UsageError, match="two: expected a file of FTS flows"):
        next(fts.read([one, tmp_path / "two"]))


def test_the_summary_of_an_import_without_new_flows_has_no_empty_sums() -> None:
    rows = fts_totals.summary(translated("?")).splitlines()

    assert not {"stated", "all", "of"} & {row.split(" ")[0] for row in rows}


def test_the_summary_keeps_money_and_goods_apart_and_names_the_source() -> None:
    text = fts_totals.summary(translated(flow(), flow("2", contributionType="in kind", newMoney=False), "?"))

    assert text.startswith("3 lines: 2 flows, 0 repeats, 1 refused")
    assert "financial, paid, original" in text
    assert "in kind, paid, original" in text
    assert "1,000.000 KWD" in text
    assert text.endswith("Source: UN OCHA FTS, CC BY-IGO")


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=12),
            st.builds(
                lambda number, version, parent, amount, status: json.dumps(
                    flow(number, versionId=version, parentFlowId=parent, originalAmount=amount, status=status)
                ).encode(),
                number=st.integers(0, 5),
                version=st.integers(1, 2),
                parent=st.none() | st.integers(1, 6),
                amount=st.integers(-1, 2),
                status=st.sampled_from((*fts_line.STATUSES, "promised")),
            ),
        ),
        max_size=12,
    )
)
def test_every_line_ends_as_a_flow_a_repeat_or_a_refusal_once(texts: list[bytes]) -> None:
    given_lines = [fts_line.Line("f", number, text) for number, text in enumerate(texts, start=1)]
    imported = fts.translate(given_lines)

    ended = [x.line for group in (imported.flows, imported.repeats, imported.refusals) for x in group]
    assert sorted(ended) == list(range(1, len(texts) + 1))
    assert imported.lines == len(texts)
    assert {x.meta.donation_id for x in imported.events} == {one.donation_id for one in imported.flows}
    assert not fts.translate(given_lines, in_log(imported).get).events


# --- the real files -----------------------------------------------------------------------------------------------------------------


def real(*names: str) -> fts.Import:
    return fts.translate(fts.read([DATA / f"{name}.ndjson" for name in names]))


@pytest.fixture(scope="module")
def both() -> fts.Import:
    return real(*FILES)


def figures(name: str) -> Any:
    return json.loads((DATA / "totals.json").read_text(encoding="utf-8"))[name]


def summed(pairs: Iterable[tuple[Any, fts_totals.Sum]]) -> dict[Any, tuple[int, Decimal]]:
    sums: dict[Any, tuple[int, Decimal]] = {}
    for key, found in pairs:
        flows, amount = sums.get(key, (0, Decimal(0)))
        sums[key] = (flows + found.flows, amount + found.amount)
    return sums


@needs_data
@pytest.mark.parametrize("names", [FILES[:1], FILES[1:], FILES], ids=lambda names: "+".join(names))
def test_the_sums_of_the_events_are_the_sums_of_the_file(names: tuple[str, ...]) -> None:
    imported = real(*names)
    file = figures(names[0] if len(names) == 1 else "both")

    print(f"\n{' + '.join(names)}\n{fts_totals.summary(imported)}")
    totals = fts_totals.totals(imported)
    assert (imported.lines, len(imported.flows)) == (file["lines"], file["flows"])
    assert not imported.refusals, imported.refusals
    assert nothing_is_lost(imported)
    assert Counter(one.status for one in imported.flows) == file["count"]["status"]
    assert Counter(one.flow_type for one in imported.flows) == file["count"]["flowType"]
    assert Counter(one.contribution.replace("_", " ") for one in imported.flows) == file["count"]["contributionType"]
    assert Counter(str(one.new_money) for one in imported.flows) == file["count"]["newMoney"]

    lost_by_original = set(file["oddities"]["original_zero_but_usd_not_zero"]["ids"])
    original = summed(((key.status, key.currency), found) for key, found in totals.amounts.items() if key.basis == "original")
    for status, by_currency in file["original_by_status"].items():
        for currency, stated in by_currency.items():
            missing = sum(one.flow_id in lost_by_original and one.status == status for one in imported.flows) if currency == "USD" else 0
            found = original.pop((status, currency), (0, Decimal(0)))
            assert found == (stated["flows"] - missing, Decimal(stated["sum"])), (status, currency)
    assert not original

    by_status = summed((status, found) for (_, status), found in totals.usd.items())
    for status in fts_line.STATUSES:
        count = file["count"]["status"].get(status, 0)
        assert by_status.get(status, (0, Decimal(0))) == (count, Decimal(file["amount_usd"].get(f"status {status}", 0)))
    by_contribution = summed((contribution, found) for (contribution, _), found in totals.usd.items())
    assert by_contribution[e.Contribution.IN_KIND][1] == Decimal(file["amount_usd"]["contributionType in kind"])
    assert by_contribution[e.Contribution.FINANCIAL][1] == Decimal(file["amount_usd"]["contributionType financial"])

    net_new = summed((status, found) for (_, status), found in totals.net_new_usd.items())
    for status in ("paid", "commitment"):
        assert net_new[status][1] == Decimal(file["net_new_usd"][status])
    assert sum(net_new[status][0] for status in ("paid", "commitment")) == file["net_new_usd"]["flows"]
    assert net_new["pledge"][1] == Decimal(file["net_new_usd"]["pledges_apart"])
    counted = sum(found.amount for (_, status), found in totals.counted_already_usd.items() if status != "pledge")
    assert counted == Decimal(file["net_new_usd"]["overstated_without_it"])

    taken_in_usd = summed((key.status, found) for key, found in totals.amounts.items() if key.basis == "usd")
    zero_original = {status: Decimal(0) for status in fts_line.STATUSES}
    for event in imported.events:
        if isinstance(event, e.PledgeAnnounced) and event.meta.donation_id.removeprefix("FTS-") in lost_by_original:
            status = next(one.status for one in imported.flows if one.donation_id == event.meta.donation_id)
            zero_original[status] += event.amounts[0].amount
    for status, (_, amount) in taken_in_usd.items():
        assert amount == Decimal(file["usd_of_flows_without_original"][status]) + zero_original[status]


@needs_data
@pytest.mark.parametrize("name", FILES)
def test_orphans_and_present_parents_of_each_file_are_those_counted(name: str) -> None:
    imported, tree = real(name), figures(name)["tree"]

    assert sorted(one.flow_id for one in imported.orphans) == sorted(tree["orphans"])


@needs_data
def test_every_child_of_the_corpus_is_a_leg_of_its_parent(both: fts.Import) -> None:
    tree = figures("both")["tree"]
    pledges = {x.meta.donation_id: x for x in both.events if isinstance(x, e.PledgeAnnounced)}
    children = {x.meta.donation_id: x for x in pledges.values() if len(x.route) > 1}

    assert sorted(one.flow_id for one in both.orphans) == sorted(tree["orphans"])
    assert {one.parent_id for one in both.orphans} == set(tree["parents_absent"])
    assert len(both.orphans) == 33
    assert len(children) + len(both.orphans) == tree["with_parent"] == 146
    assert len({x.route[0].leg_id for x in children.values()}) == tree["parents_present"] == 67
    for x in children.values():
        assert x.route[0] == pledges[x.route[0].leg_id].route[0]
        assert x.route[1].parent_leg_id == x.route[0].leg_id
        assert x.donor == x.route[0].from_party


@needs_data
def test_the_kuwaiti_gifts_are_orphans_of_a_flow_that_is_in_neither_file(both: fts.Import) -> None:
    gifts = {f"FTS-{one.flow_id}" for one in both.orphans if one.parent_id == "224940"}
    paid = [x.amount for x in both.events if isinstance(x, e.DisbursementSettled) and x.meta.donation_id in gifts]

    assert len(gifts) == len(paid) == 21
    assert {money.currency for money in paid} == {"KWD"}
    assert sum(money.amount for money in paid) == 477_405
    for name, number, amount in (("jordan-2020", 9, 129_274), ("palestine-2020", 12, 348_131)):
        one = real(name)
        ids = {f"FTS-{orphan.flow_id}" for orphan in one.orphans if orphan.parent_id == "224940"}
        sums = [x.amount.amount for x in one.events if isinstance(x, e.DisbursementSettled) and x.meta.donation_id in ids]
        assert (len(sums), sum(sums)) == (number, amount)
    reference = next(x.meta.source.reference for x in both.events if x.meta.donation_id in gifts)
    assert reference is not None
    assert "reported by Kuwait Red Crescent Society" in reference
    assert reference.endswith("; parent flow 224940 not in this import")


@needs_data
def test_an_original_of_zero_does_not_lose_the_money_and_a_parked_zero_stays_zero(both: fts.Import) -> None:
    oddities = figures("both")["oddities"]
    pledges = {x.meta.donation_id: x for x in both.events if isinstance(x, e.PledgeAnnounced)}

    zero = {f"FTS-{one}" for one in oddities["zero_amountUSD"]["ids"]}
    assert {key for key, x in pledges.items() if not x.amounts[0].amount} == zero
    assert {one.flow_type for one in both.flows if one.donation_id in zero} == {"Parked"}
    assert len(zero) == 57
    rescued = [pledges[f"FTS-{one}"].amounts[0] for one in oddities["original_zero_but_usd_not_zero"]["ids"]]
    assert max(money.amount for money in rescued) == 2_790_550
    assert all(money.amount and money.currency == "USD" for money in rescued)


@needs_data
def test_flows_in_both_files_count_once_and_are_listed(both: fts.Import) -> None:
    assert [(one.flow_id, Path(one.file).stem) for one in both.repeats] == [("209248", "palestine-2020"), ("210819", "palestine-2020")]


@needs_data
def test_flows_without_one_source_or_destination_keep_their_whole_amount(both: fts.Import) -> None:
    oddities = figures("both")["oddities"]
    own = [x.route[-1] for x in both.events if isinstance(x, e.PledgeAnnounced)]
    sides = {"FTS-UNSTATED", "FTS-SEVERAL"}

    assert sum(leg.from_party in sides for leg in own) == oddities["source_organizations_not_one"]["flows"] == 3
    assert sum(leg.to_party in sides for leg in own) == oddities["destination_organizations_not_one"]["flows"] == 22
    assert sum(leg.to_party == "FTS-SEVERAL" for leg in own) == 2
    assert {x.party_id for x in both.registry if isinstance(x, e.PartyRegistered)} >= {
        party for leg in own for party in (leg.from_party, leg.to_party)
    }


@needs_data
def test_one_corpus_is_the_same_as_its_files_in_one_and_translating_twice_gives_the_same_bytes(tmp_path: Path, both: fts.Import) -> None:
    joined = tmp_path / "joined.ndjson"
    joined.write_bytes(b"".join((DATA / f"{name}.ndjson").read_bytes() for name in FILES))
    one = fts.translate(fts.read([joined]))

    assert [encode(x) for x in one.events] == [encode(x) for x in both.events]
    assert [encode(x) for x in one.registry] == [encode(x) for x in both.registry]
    assert [encode(x) for x in real(*FILES).events] == [encode(x) for x in both.events]
    assert {encode(x) for x in real(*reversed(FILES)).events} == {encode(x) for x in both.events}


@needs_data
def test_every_event_of_the_files_is_one_that_the_contract_can_hold(both: fts.Import) -> None:
    assert all(decode(encode(x)) == x for x in both.events)
    assert all(decode(encode(x)) == x for x in both.registry)
    assert len({x.meta.event_id for x in both.events}) == len(both.events) == 900 + 270 + 628


@needs_data
def test_the_second_file_after_the_first_submits_only_what_is_new(both: fts.Import) -> None:
    first = real(FILES[0])
    second = fts.translate(fts.read([DATA / f"{FILES[1]}.ndjson"]), in_log(first).get)

    assert Counter(one.change for one in second.flows) == {"new": 422, "unchanged": 2}
    assert {encode(x) for x in (*first.events, *second.events)} == {encode(x) for x in both.events}


@needs_data
def test_the_rules_admit_every_event_of_the_files_in_order(both: fts.Import) -> None:
    reporter = (
        e.PartyRegistered(event_id=UUID(int=1), occurred_on=fts.SINCE, party_id="OCHA-FTS", name="FTS", kind="agency", country=None),
        e.ActorEnrolled(event_id=UUID(int=2), occurred_on=fts.SINCE, actor_id="fts-import", party_id="OCHA-FTS", roles=("reporter",)),
    )
    known = register_all(EMPTY, ((event, offset) for offset, event in enumerate((*reporter, *both.registry))))
    donations: dict[str, Donation] = {}
    for event in both.events:
        before = donations.get(event.meta.donation_id)
        assert check(before, event, known, NOW) is None, event
        donations[event.meta.donation_id] = apply(before, event)

    assert len(donations) == 900
    print(f"{len(both.events)} events of {len(donations)} flows, 0 refused")
