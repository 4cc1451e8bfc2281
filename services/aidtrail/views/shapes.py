"""Rows of the views as JSON: the same on the command line and over HTTP. Amounts and times are strings, hashes hexadecimal."""

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from aidtrail.views.reader import AmountRow, ApprovalRow, DonationRow, HistoryRow, Outcome


def to_json(value: object) -> str:
    """One line."""
    return json.dumps(value, ensure_ascii=False, default=_text)


def donation(row: DonationRow, amounts: Sequence[AmountRow]) -> dict[str, Any]:
    """A donation's status; its amounts one object a currency, never added up."""
    return {
        **row._asdict(),
        "amounts": [{name: value for name, value in amount._asdict().items() if name != "donation_id"} for amount in amounts],
    }


def approval(row: ApprovalRow, now: datetime) -> dict[str, Any]:
    """A request to a mechanism, with what it still waits for."""
    waits = row.state == "pending"
    return {
        **row._asdict(),
        "signatures_missing": row.approvals_required - row.approvals if waits else 0,
        "waiting_seconds": max(0, int((now - row.requested_on).total_seconds())) if waits else None,
    }


def entry(row: HistoryRow) -> dict[str, Any]:
    """An entry of the log, and the event that it holds."""
    event = None if row.event is None else row.event.model_dump(mode="json", exclude_none=True)
    return {**row._asdict(), "event": event}


def outcome(found: Outcome) -> dict[str, Any]:
    return {name: value for name, value in found._asdict().items() if name != "event"}


def _text(value: object) -> str:
    match value:
        case bytes():
            return value.hex()
        case datetime():
            return value.isoformat()
        case Decimal():
            return f"{value:f}"
        case _:
            return str(value)
