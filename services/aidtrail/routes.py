"""Which event is submitted over HTTP by which path, in which of the four services: a table, for the gateway and for its client. The body of
a request is the event's own fields, less those that stand in the path; who acts is what the access token says, and never a field.
"""

import re
from typing import NamedTuple

from aidtrail.domain import events as e

SERVICES = ("pledges", "approvals", "disbursements", "receipts")


class Route(NamedTuple):
    """`path` is under /v1/donations/{donation_id}; the names in braces are fields of the event."""

    service: str
    path: str
    event: type[e.Event]

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the event that stand in the path."""
        return tuple(re.findall(r"{(\w+)}", self.path))


_APPROVAL, _CONDITION, _PAYMENT = (
    "approvals/{approval_id}",
    "approvals/{approval_id}/conditions/{condition_id}",
    "disbursements/{disbursement_id}",
)

ROUTES = (
    Route("pledges", "pledge", e.PledgeAnnounced),
    Route("pledges", "pledge/confirmation", e.PledgeConfirmed),
    Route("pledges", "pledge/amendments", e.PledgeAmended),
    Route("pledges", "pledge/withdrawal", e.PledgeWithdrawn),
    Route("pledges", "closure", e.DonationClosed),
    Route("pledges", "reopening", e.DonationReopened),
    Route("approvals", _APPROVAL, e.ApprovalRequested),
    Route("approvals", f"{_APPROVAL}/questions", e.ApprovalQuestioned),
    Route("approvals", f"{_APPROVAL}/answers", e.ApprovalAnswered),
    Route("approvals", f"{_APPROVAL}/decisions", e.ApprovalDecided),
    Route("approvals", f"{_APPROVAL}/revocation", e.ApprovalRevoked),
    Route("approvals", f"{_CONDITION}/met", e.ConditionMet),
    Route("approvals", f"{_CONDITION}/breached", e.ConditionBreached),
    Route("disbursements", f"{_PAYMENT}/schedule", e.DisbursementScheduled),
    Route("disbursements", f"{_PAYMENT}/instruction", e.DisbursementInstructed),
    Route("disbursements", f"{_PAYMENT}/release", e.DisbursementReleased),
    Route("disbursements", f"{_PAYMENT}/settlement", e.DisbursementSettled),
    Route("disbursements", f"{_PAYMENT}/rejection", e.DisbursementRejected),
    Route("disbursements", f"{_PAYMENT}/returns", e.DisbursementReturned),
    Route("receipts", f"{_PAYMENT}/receipt", e.FundsReceived),
    Route("receipts", f"{_PAYMENT}/acknowledgements", e.ReceiptAcknowledged),
    Route("receipts", f"{_PAYMENT}/dispute", e.ReceiptDisputed),
    Route("receipts", f"{_PAYMENT}/dispute/resolution", e.DisputeResolved),
    Route("receipts", "utilisation", e.UtilisationReported),
)
"""Every event that people and their services submit; the two expiries are the timekeeper's, refusals the ledger's."""

ABOUT = ("occurred_on", "evidence", "causation_id", "correlation_id")
"""Fields of `meta` that a body may state beside the event's own."""
