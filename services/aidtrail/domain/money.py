"""Money: a Decimal and an ISO 4217 code. Never a float, never rounded, never added to another currency."""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated

from iso4217 import Currency
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

SCALE = 4
"""Digits after the point in every record: Avro decimal(19,4). The currency's own exponent (KWD 3, JPY 0) is never more."""

EXPONENTS: Mapping[str, int] = MappingProxyType({c.code: c.exponent for c in Currency if c.exponent is not None})
"""ISO 4217: digits after the point of each currency that has a minor unit."""

_STEPS = {currency: Decimal(1).scaleb(-exponent) for currency, exponent in EXPONENTS.items()}
"""The smallest amount of each."""

ZERO = Decimal(0)
Amounts = Mapping[str, Decimal]
"""Amounts by currency code. An absent currency is zero."""


_DIGITS = re.compile(r"[0-9]{1,15}(\.[0-9]{1,4})?", re.ASCII)
_STEP = Decimal(1).scaleb(-SCALE)
_BOUND = Decimal(10) ** 15


def _exact(value: object) -> object:
    """A Decimal of SCALE digits after the point. Those that come from a record are; the rest are checked and written out."""
    if isinstance(value, Decimal) and value.same_quantum(_STEP):
        return value
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = Decimal(value)
    if isinstance(value, Decimal) and value.is_finite() and abs(value) < _BOUND and value == value.quantize(_STEP):
        return value.quantize(_STEP)
    raise ValueError("an amount as a string of digits such as '1000.500', at most four after the point, not below zero")


Amount = Annotated[Decimal, BeforeValidator(_exact), Field(ge=0)]


class Money(BaseModel):
    """An amount of one currency. That the amount fits the currency's exponent is a rule (`domain.rules`), not a property of the type:
    the list of currencies changes over the years, and every event ever recorded must stay readable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: Amount
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]

    def __str__(self) -> str:
        return format_money(self.amount, self.currency)


def fits(money: Money) -> bool:
    """Whether the currency exists and the amount has no more digits after the point than it allows."""
    step = _STEPS.get(money.currency)
    return step is not None and money.amount == money.amount.quantize(step)


def format_money(amount: Decimal, currency: str) -> str:
    """'1,000.500 KWD': the currency's own number of digits, more if the amount has them (nothing is rounded away)."""
    exponent = EXPONENTS.get(currency, 2)
    digits = max(exponent, -int(amount.normalize().as_tuple().exponent))
    return f"{amount:,.{digits}f} {currency}"


def total(moneys: Iterable[Money]) -> dict[str, Decimal]:
    """The sum by currency."""
    sums: dict[str, Decimal] = {}
    for money in moneys:
        sums[money.currency] = sums.get(money.currency, ZERO) + money.amount
    return sums


def plus(left: Amounts, right: Amounts) -> dict[str, Decimal]:
    """left + right, currency by currency."""
    sums = dict(left)
    for currency, amount in right.items():
        sums[currency] = sums.get(currency, ZERO) + amount
    return sums


def within(part: Amounts, whole: Amounts) -> bool:
    """Whether part <= whole in every currency."""
    return all(amount <= whole.get(currency, ZERO) for currency, amount in part.items())
