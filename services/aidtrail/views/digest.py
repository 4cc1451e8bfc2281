"""The digest of a build's status rows: what tells in a moment whether two builds at the same cut show the same.

**Canonical form.** The document of a donation is UTF-8 text: one line for its row in `donations`, one for each of its rows in `amounts` in
ascending order of currency, one for each in `approvals` in ascending order of approval_id. A line is fields between tabs (0x09), ended by a
line feed (0x0a):

    donation, donation_id, partition, version, head_sha256, oversight, contribution, donor, beneficiary, parties, legs, mechanisms,
        terms_sha256, headline, pledge, approval, disbursement, receipt, announced_on, changed_at, next_deadline
    amount, currency, pledged, approved, in_flight, settled, returned, passed_on, held, received, acknowledged, utilised
    approval, approval_id, mechanism_id, state, legs, requested, granted, requested_for, requested_on, approvals_required, approvals,
        valid_until

The first field is that word. Hashes are lowercase hexadecimal; numbers decimal without leading zeros; amounts have four digits after the
point; times are microseconds since 1970 UTC, nothing at all where null; lists are in the row's order with one space between; `requested`
and `granted` are `KWD=1000.5000` in ascending order of currency. Nothing needs escaping, since no id holds white space.

Columns with free text or the id of a person (`purpose`, `requested_by`, `deciders`) are left out: they could be blanked in a copy of the
views without another digest. `terms_sha256` and `head_sha256` commit to them all the same.

**Sum.** `rows_sha256` of a donation is SHA-256 of its document. A partition's `rows_sum` is the sum, modulo 2^4096, over its donations, of
SHAKE128(rows_sha256) read as a big-endian number of 512 bytes. Addition lets a batch replace the donations that it changed, in any order,
without looking at the others.

This is AdHash (Bellare and Micciancio, 1997). What it resists: any accident, and anybody who wants other rows to have the sum of given
ones. The best known attack is Wagner's generalised birthday (2002): it finds two sets of rows with one sum if the attacker may choose them.
At 256 bits that takes about 2^31 steps, at 4,096 bits about 2^127, as many as a collision of SHA-256. Order needs no protection, since a
donation stands once in a partition and its document holds its id. What it does not resist: who can write to the database can write the sum
as well. It says what was written. Whether that is still there, `audit.cuts.recount` says; whether it is the fold of the log, a rebuild.

Entries and refusals have no part in it. They are in the log, and `last_outcome_sha256` of the position commits to every one that counts, in
order. `parked` says what a release could not do, which is no fact of the log.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

BYTES = 512
MODULUS = 1 << 8 * BYTES
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def donation_line(row: tuple[Any, ...]) -> str:
    """Of a row of `donations`, in the order of its columns."""
    (
        donation_id, partition, version, head, oversight, contribution, donor, beneficiary, parties, legs, mechanisms, terms, _, headline,
        pledge, approval, disbursement, receipt, announced_on, changed_at, next_deadline, *_,
    ) = row  # fmt: skip
    return (
        f"donation\t{donation_id}\t{partition}\t{version}\t{head.hex()}\t{oversight}\t{contribution}\t{donor}\t{beneficiary}"
        f"\t{' '.join(parties)}\t{' '.join(legs)}\t{' '.join(mechanisms)}\t{terms.hex()}\t{headline}\t{pledge}\t{approval}\t{disbursement}"
        f"\t{receipt}\t{(announced_on - EPOCH) // MICROSECOND}\t{(changed_at - EPOCH) // MICROSECOND}"
        f"\t{'' if next_deadline is None else (next_deadline - EPOCH) // MICROSECOND}\n"
    )


def amount_line(currency: str, amounts: Iterable[Any]) -> str:
    """Of a row of `amounts`: its currency, and the ten amounts in the order of the columns."""
    return "amount\t" + currency + "\t" + "\t".join([f"{amount:.4f}" for amount in amounts]) + "\n"


def approval_line(row: tuple[Any, ...], requested: Mapping[str, str], granted: Mapping[str, str]) -> str:
    """Of a row of `approvals`, in the order of its columns, with the two mappings as they are in JSON."""
    _, approval_id, mechanism_id, state, legs, _, _, _, requested_for, requested_on, required, approvals, _, valid_until = row
    return (
        f"approval\t{approval_id}\t{mechanism_id}\t{state}\t{' '.join(legs)}\t{_amounts(requested)}\t{_amounts(granted)}\t{requested_for}"
        f"\t{(requested_on - EPOCH) // MICROSECOND}\t{required}\t{approvals}"
        f"\t{'' if valid_until is None else (valid_until - EPOCH) // MICROSECOND}\n"
    )


def _amounts(by_currency: Mapping[str, str]) -> str:
    return " ".join([f"{currency}={amount}" for currency, amount in sorted(by_currency.items())])


def term(rows_sha256: bytes | None) -> int:
    """What a donation adds to its partition's sum; nothing where it has no row."""
    return 0 if rows_sha256 is None else int.from_bytes(hashlib.shake_128(rows_sha256).digest(BYTES), "big")


def to_bytes(rows_sum: int) -> bytes:
    return (rows_sum % MODULUS).to_bytes(BYTES, "big")
