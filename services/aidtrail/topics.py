"""The names of the three topics, and making sure that they are what the contract says; and the name of a fourth, beside the contract."""

from typing import NamedTuple

from aidtrail.errors import UnavailableError
from aidtrail.log import Log


class Topics(NamedTuple):
    submitted: str
    recorded: str
    registry: str

    @classmethod
    def of(cls, prefix: str) -> "Topics":
        return cls(f"{prefix}.submitted", f"{prefix}.recorded", f"{prefix}.registry")

    @property
    def checkpoints(self) -> str:
        """What `recorded` was, signed: written and read by the seal alone (`audit.seal`), so no service waits for it to be there."""
        return f"{self.recorded.removesuffix('.recorded')}.checkpoints"

    def create(self, log: Log, partitions: int) -> list[str]:
        """Create what is missing; returns the topics created. `submitted` and `recorded` have the same number of partitions, for ever:
        a donation's partition follows from it. Registry and checkpoints have one."""
        wanted = {self.submitted: partitions, self.recorded: partitions, self.registry: 1, self.checkpoints: 1}
        return [topic for topic, count in wanted.items() if log.create_topic(topic, count)]

    def differences(self, log: Log) -> list[str]:
        """What is not as required, one line each."""
        found = [line for topic in self for line in log.check_topic(topic)]
        if not found and log.partitions(self.submitted) != log.partitions(self.recorded):
            found.append(
                f"{self.recorded}: expected the {log.partitions(self.submitted)} partitions of {self.submitted}, "
                f"found {log.partitions(self.recorded)}; topics cannot be merged: start again under another AIDTRAIL_TOPIC_PREFIX"
            )
        if not found and log.partitions(self.registry) != 1:
            found.append(f"{self.registry}: expected one partition, found {log.partitions(self.registry)}; create it anew")
        return found

    def require(self, log: Log) -> int:
        """The number of partitions. Raises UnavailableError with every difference when a topic is missing or set up differently."""
        found = self.differences(log)
        if found:
            raise UnavailableError("; ".join(found))
        return log.partitions(self.submitted)


def require_write(log: Log, topic: str) -> None:
    """Raises UnavailableError unless this principal may append to the topic: to know it at the start, not at the first append."""
    if "WRITE" not in log.operations(topic):
        raise UnavailableError(f"{topic}: this principal may not write to it; allow it to Write to the topic ('aidtrail rights show')")
