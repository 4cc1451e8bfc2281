"""Money is exact, of one currency, and written the way people of that currency write it."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aidtrail.domain.money import EXPONENTS, SCALE, Money, fits, format_money, plus, total, within
from tests.acts import money

AMOUNTS = st.integers(0, 10**19 - 1).map(lambda units: Decimal(units).scaleb(-SCALE))
CURRENCIES = st.sampled_from(["KWD", "USD", "JPY"])
MONEYS = st.builds(lambda amount, currency: Money(amount=amount, currency=currency), AMOUNTS, CURRENCIES)


@pytest.mark.parametrize("text", ["1000.500", "0", "0.0001", "999999999999999.9999"])
def test_an_amount_is_taken_from_digits_without_loss(text: str) -> None:
    assert money(text).amount == Decimal(text)


@pytest.mark.parametrize(
    "value",
    ["-1", "+1", "1e3", "1,000", ".5", "5.", "1.00001", "1000000000000000", "NaN", "Infinity", "", " 1", "\u0661", 1, 1.5, True, None],
)
def test_an_amount_is_never_guessed(value: object) -> None:
    with pytest.raises(ValidationError):
        Money.model_validate({"amount": value, "currency": "KWD"})


@pytest.mark.parametrize("value", [Decimal("-0.0001"), Decimal("0.00001"), Decimal("NaN"), Decimal("Infinity"), Decimal(10) ** 15])
def test_a_decimal_that_no_record_can_hold_is_refused(value: Decimal) -> None:
    with pytest.raises(ValidationError):
        Money(amount=value, currency="KWD")


@pytest.mark.parametrize("currency", ["kwd", "KW", "KWDD", "K1D", ""])
def test_a_currency_is_three_capital_letters(currency: str) -> None:
    with pytest.raises(ValidationError):
        money("1", currency)


def test_currencies_have_the_digits_of_iso_4217() -> None:
    assert (EXPONENTS["KWD"], EXPONENTS["USD"], EXPONENTS["KHR"], EXPONENTS["JPY"]) == (3, 2, 2, 0)
    assert max(EXPONENTS.values()) <= SCALE


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [
        ("1.001", "KWD", True),
        ("1.0001", "KWD", False),
        ("1.01", "USD", True),
        ("1.001", "USD", False),
        ("1.0000", "JPY", True),
        ("1.1", "JPY", False),
        ("1", "XYZ", False),
        ("999999999999999.999", "KWD", True),
    ],
)
def test_an_amount_fits_its_currency_or_does_not(amount: str, currency: str, expected: bool) -> None:
    assert fits(money(amount, currency)) is expected


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [
        ("1000.5", "KWD", "1,000.500 KWD"),
        ("1234567", "JPY", "1,234,567 JPY"),
        ("0", "USD", "0.00 USD"),
        ("0.0001", "USD", "0.0001 USD"),
        ("1000", "XYZ", "1,000.00 XYZ"),
    ],
)
def test_money_is_written_with_its_currencys_digits_and_never_rounded(amount: str, currency: str, expected: str) -> None:
    assert str(money(amount, currency)) == expected
    assert format_money(Decimal(amount), currency) == expected


@given(AMOUNTS, CURRENCIES)
def test_what_is_written_reads_back_the_same(amount: Decimal, currency: str) -> None:
    digits, code = format_money(amount, currency).split(" ")

    assert Decimal(digits.replace(",", "")) == amount
    assert code == currency


@given(st.lists(MONEYS), st.lists(MONEYS))
def test_totals_add_up_and_keep_currencies_apart(left: list[Money], right: list[Money]) -> None:
    both = plus(total(left), total(right))

    assert both == total(left + right)
    assert set(both) == {money.currency for money in left + right}
    assert within(total(left), both)
    assert within(total(right), both)


def test_an_absent_currency_is_zero() -> None:
    assert within({"KWD": Decimal(0)}, {})
    assert not within({"KWD": Decimal(1)}, {"USD": Decimal(2)})
    assert within({}, {"KWD": Decimal(1)})
