"""Who may do what on Kafka: the least that each part needs, and nothing more. `log.kafka_rights` sets it up, `aidtrail rights` shows it.

Each part has a principal of its own, named as its consumer group is: `donations-ledger`. All of them may see that the topics are as the
contract requires; what else each may do stands in ROLES. Nobody may delete a topic or records of it, or alter it: that is denied to
everybody, so that a right given too widely by mistake does not include it. Only the brokers' super users are above this, and create topics.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

TOPICS = ("submitted", "recorded", "registry", "checkpoints")

_SERVES = {"submitted": "Read Write", "registry": "Read"}  # reads a submission again when an Idempotency-Key comes back
ROLES: Mapping[str, Mapping[str, str]] = {
    "pledges": _SERVES,
    "approvals": _SERVES,
    "disbursements": _SERVES,
    "receipts": _SERVES,
    "status": {"registry": "Read"},
    "producer": {"submitted": "Write"},
    "timekeeper": {"submitted": "Write"},
    "ledger": {"submitted": "Read", "registry": "Read", "recorded": "Read Write"},  # it resumes from its own output
    "projector": {"recorded": "Read"},
    "sealer": {"recorded": "Read", "checkpoints": "Read Write"},
    "registrar": {"registry": "Read Write"},
    "auditor": {"submitted": "Read", "recorded": "Read", "registry": "Read", "checkpoints": "Read"},
}
"""Role -> what it may do with each topic, in Kafka's words. `pledges` to `status` are what `aidtrail serve` serves; `producer` is another
team's service, or whoever imports and submits files; `registrar` runs `aidtrail registry load`."""

EVERYBODY = "User:*"
DENIED = ("Delete", "Alter", "AlterConfigs")  # Delete is also what deleting records asks for, Alter what adding partitions does


class Right(NamedTuple):
    """One line of an access control list, in Kafka's words."""

    principal: str
    permission: str
    """Allow or Deny."""
    resource: str
    """Topic or Group."""
    name: str
    operation: str

    def __str__(self) -> str:
        return f"{self.permission} {self.principal} {self.operation} on {self.resource.lower()} {self.name}"


def principal_of(prefix: str, role: str) -> str:
    """The name of the user, without Kafka's `User:`."""
    return f"{prefix}-{role}"


def rights(prefix: str, principals: Mapping[str, str]) -> frozenset[Right]:
    """What must stand in the access control list for these principals (user -> role), and for everybody."""
    return frozenset(_rights(prefix, principals))


def _rights(prefix: str, principals: Mapping[str, str]) -> Iterator[Right]:
    for topic in TOPICS:
        for operation in DENIED:
            yield Right(EVERYBODY, "Deny", "Topic", f"{prefix}.{topic}", operation)
    for user, role in principals.items():
        principal = f"User:{user}"
        yield Right(principal, "Allow", "Group", user, "Read")
        for topic in TOPICS:
            for operation in ("Describe", "DescribeConfigs", *ROLES[role].get(topic, "").split()):
                yield Right(principal, "Allow", "Topic", f"{prefix}.{topic}", operation)


def writers(topic: str) -> list[str]:
    """The roles that may write to it."""
    return [role for role, allowed in ROLES.items() if "Write" in allowed.get(topic, "")]
