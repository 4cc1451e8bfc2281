"""Users and access control lists on a Kafka cluster, made to be what `aidtrail.rights` says. Needs a super user."""

from collections.abc import Iterable, Mapping
from typing import Any

from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    UserScramCredentialUpsertion,
)

from aidtrail.errors import UnavailableError
from aidtrail.log.kafka import KafkaLog
from aidtrail.rights import TOPICS, Right, rights, writers

_OPERATIONS = {"".join(word.capitalize() for word in operation.name.split("_")): operation for operation in ACLOperation}
_WORDS = {operation: word for word, operation in _OPERATIONS.items()}
_EVERYWHERE = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
_ALL = ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, _EVERYWHERE)


class KafkaRights:
    """What stands in the cluster for `principals` (user -> role) and for everybody, over the topics of one prefix."""

    def __init__(self, log: KafkaLog, prefix: str, principals: Mapping[str, str]) -> None:
        self._log = log
        self._prefix = prefix
        self._principals = principals

    def set_passwords(self, passwords: Mapping[str, str]) -> None:
        """Make these users, or give them a new password: SCRAM-SHA-512. What they have connected already stays connected."""
        with self._log.administration() as admin:
            credentials = [UserScramCredentialUpsertion(user, "SCRAM-SHA-512", password) for user, password in passwords.items()]
            refused = {user: why for user, why in admin.alter_user_scram_credentials(credentials).items() if why}
        if refused:
            raise UnavailableError("; ".join(f"{user} was not made: {why}" for user, why in refused.items()))

    def apply(self) -> tuple[list[Right], list[Right]]:
        """Add what is missing and take away what these principals have beyond it; returns both."""
        missing, surplus = self._compared(self._found())
        with self._log.administration() as admin:
            if missing:
                failed = admin.create_acls([_acl(right) for right in missing])["failed"]
                if failed:
                    raise UnavailableError(f"{len(failed)} of {len(missing)} rights were not given: {failed[0].__name__}")
            if surplus:
                admin.delete_acls(surplus)
        return sorted(missing), sorted(_right(acl) for acl in surplus)

    def differences(self) -> list[str]:
        """What is not as it must be, one line each: rights that are missing, that these principals have beyond it, and that others have
        where one part alone may write."""
        found = self._found()
        missing, surplus = self._compared(found)
        lines = [f"{right}: expected, not found; run 'aidtrail rights apply'" for right in sorted(missing)]
        lines += [f"{_right(acl)}: found, not expected; run 'aidtrail rights apply'" for acl in surplus]
        allowed = {f"User:{user}": role for user, role in self._principals.items()}
        for topic in TOPICS:
            if topic == "submitted":
                continue  # other teams write there, under names of their own
            for acl in found:
                if _lets_write(acl, f"{self._prefix}.{topic}") and acl.principal not in allowed:
                    only = ", ".join(writers(topic))
                    lines.append(f"{_right(acl)}: only {only} may write there; take it away by kafka-acls.sh --remove")
        return lines

    def _found(self) -> list[Any]:
        with self._log.administration() as admin:
            found: list[Any] = admin.describe_acls(_ALL)[0]
        return found

    def _compared(self, found: Iterable[Any]) -> tuple[set[Right], list[Any]]:
        wanted = rights(self._prefix, self._principals)
        ours = {f"User:{user}" for user in self._principals}
        exact = {_right(acl) for acl in found if _is_plain(acl)}
        surplus = [acl for acl in found if acl.principal in ours and not (_is_plain(acl) and _right(acl) in wanted)]
        return set(wanted - exact), surplus


def _is_plain(acl: Any) -> bool:
    return bool(acl.host == "*" and acl.resource_pattern.pattern_type == ACLResourcePatternType.LITERAL)


def _lets_write(acl: Any, topic: str) -> bool:
    """Also by a prefix, or by a star."""
    pattern = acl.resource_pattern
    name = str(pattern.resource_name)
    covers = topic.startswith(name) if pattern.pattern_type == ACLResourcePatternType.PREFIXED else name in (topic, "*")
    allows = acl.permission_type == ACLPermissionType.ALLOW and acl.operation in (ACLOperation.WRITE, ACLOperation.ALL)
    return bool(allows and covers and pattern.resource_type == ResourceType.TOPIC)


def _acl(right: Right) -> Any:
    return ACL(
        principal=right.principal,
        host="*",
        operation=_OPERATIONS[right.operation],
        permission_type=ACLPermissionType[right.permission.upper()],
        resource_pattern=ResourcePattern(ResourceType[right.resource.upper()], right.name),
    )


def _right(acl: Any) -> Right:
    pattern = acl.resource_pattern
    name = pattern.resource_name + ("*" if pattern.pattern_type == ACLResourcePatternType.PREFIXED else "")
    kind = "".join(word.capitalize() for word in pattern.resource_type.name.split("_"))
    return Right(acl.principal, acl.permission_type.name.capitalize(), kind, name, _WORDS[acl.operation])
