"""The producer library: for every microservice that emits events.

    with Producer(log, Topics.of("donations")) as producer:
        producer.submit([event])

An event is a submission once `submit` returns. What the ledger rules on it stands in `recorded` and in the views, under its event id.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aidtrail import codec, metrics, tracing
from aidtrail.domain.events import Event, RegistryEvent
from aidtrail.errors import AidtrailError
from aidtrail.log import Appended, Appender, Draft, Log, partition_of
from aidtrail.signatures import sign
from aidtrail.topics import Topics

MAX_IN_FLIGHT = 1000
"""Events appended at a time: kafka-python's own buffer has no bound."""


class Producer:
    """Validates, encodes and appends events. One thread at a time. Memory is bounded by MAX_IN_FLIGHT events, whatever is passed in.

    With `key`, the secret key of the actor (`keys.read_actor_key`), it signs each event that is not signed yet."""

    def __init__(self, log: Log, topics: Topics, key: Ed25519PrivateKey | None = None) -> None:
        self._log = log
        self._topics = topics
        self._key = key
        self._partitions = log.partitions(topics.submitted)
        self._appender: Appender | None = None

    def submit(self, events: Iterable[Event]) -> list[Appended]:
        """Append events to `submitted`, in their order; returns where each stands once the log has acknowledged all.

        Raises AppendUnknownError when that cannot be known: look the event ids up ('aidtrail history'), or submit the same events again,
        with the same ids: those that did arrive are then refused as duplicates and have no second effect.
        """
        appended: list[Appended] = []
        left = iter(events)
        while batch := list(islice(left, MAX_IN_FLIGHT)):
            with tracing.sending(self._topics.submitted, len(batch)):
                appended += self._append([self._draft(event) for event in batch])
        return appended

    def register(self, events: Sequence[RegistryEvent]) -> list[Appended]:
        """Append events to `registry`."""
        return self._append([Draft(self._topics.registry, 0, _registry_key(event), codec.encode(event)) for event in events])

    def close(self) -> None:
        if self._appender is not None:
            self._appender.close()
            self._appender = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _draft(self, event: Event) -> Draft:
        if self._key is not None:
            event = sign(event, self._key)
        key = event.meta.donation_id.encode()
        return Draft(self._topics.submitted, partition_of(key, self._partitions), key, codec.encode(event), tracing.current())

    def _append(self, drafts: Sequence[Draft]) -> list[Appended]:
        if not drafts:
            return []
        if self._appender is None:
            self._appender = self._log.appender()
        try:
            with metrics.appending("producer", len(drafts)):
                return self._appender.append(drafts)
        except AidtrailError:
            self.close()
            raise


def _registry_key(event: RegistryEvent) -> bytes:
    name = next(name for name in ("actor_id", "mechanism_id", "party_id") if name in type(event).model_fields)
    return str(getattr(event, name)).encode()
