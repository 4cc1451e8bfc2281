"""Traces: what a request began goes on under its W3C traceparent, through both topics, until it is in the views.

Only OpenTelemetry's API: where no SDK is set up, nothing is kept, and a traceparent that came with a request is passed on as it is. Only a
record whose trace is sampled has the header: each costs every reader time. Names are those of OpenTelemetry's conventions for messaging.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

HEADER = "traceparent"
Headers = Sequence[tuple[str, bytes]]

_tracer = trace.get_tracer("aidtrail")
_propagator = TraceContextTextMapPropagator()


class Traced(Protocol):
    """A record of a log."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def headers(self) -> Headers: ...


@contextmanager
def continued(traceparent: str | None) -> Iterator[None]:
    """Go on with the trace of a request, unless what serves HTTP has done so already."""
    context = None if trace.get_current_span().get_span_context().is_valid else _context(traceparent)
    if context is None:
        yield
        return
    with trace.use_span(trace.get_current_span(context)):
        yield


@contextmanager
def sending(topic: str, messages: int = 1) -> Iterator[None]:
    """Around an append. What its records carry is `current`."""
    attributes = _attributes("send", topic)
    if messages > 1:  # the conventions want it of batches alone
        attributes["messaging.batch.message_count"] = messages
    with _tracer.start_as_current_span(f"send {topic}", None, SpanKind.PRODUCER, attributes):
        yield


def current() -> Headers:
    """The headers of a record that is made now: none, unless a sampled trace is under way."""
    return _headers(trace.get_current_span())


class Spans:
    """One for each record of a batch that carries a trace, from now until `end`. Empty, and next to free, where none does."""

    def __init__(self, records: Mapping[int, Sequence[Traced]]) -> None:
        self._spans: dict[tuple[int, int], Span] = {}
        for partition, batch in records.items():
            for record in batch:
                if record.headers and (context := _context(_traceparent(record.headers))) is not None:
                    attributes = {
                        **_attributes("process", record.topic),
                        "messaging.destination.partition.id": str(partition),
                        "messaging.kafka.offset": record.offset,
                    }
                    name, started = f"process {record.topic}", time.time_ns()
                    span = _tracer.start_span(name, context, SpanKind.CONSUMER, attributes, start_time=started)
                    self._spans[partition, record.offset] = span

    def __bool__(self) -> bool:
        return bool(self._spans)

    def headers(self, partition: int, offset: int) -> Headers:
        """What the record that follows from this one carries on."""
        span = self._spans.get((partition, offset))
        return () if span is None else _headers(span)

    def say(self, partition: int, offset: int, name: str, value: str) -> None:
        span = self._spans.get((partition, offset))
        if span is not None:
            span.set_attribute(name, value)

    def ids(self, partition: int, offset: int) -> dict[str, object]:
        """For a line of the log about this record."""
        span = self._spans.get((partition, offset))
        if span is None:
            return {}
        context = span.get_span_context()
        return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}

    def end(self, error: str | None = None) -> None:
        for span in self._spans.values():
            if error is not None:
                span.set_status(Status(StatusCode.ERROR, error))
            span.end()
        self._spans = {}


def _attributes(operation: str, topic: str) -> dict[str, str | int]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": topic,
    }


def _context(traceparent: str | None) -> Context | None:
    """None where there is none, or it is not one, or it is not sampled."""
    if traceparent is None:
        return None
    context = _propagator.extract({HEADER: traceparent}, Context())
    span = trace.get_current_span(context).get_span_context()
    return context if span.is_valid and span.trace_flags.sampled else None


def _traceparent(headers: Headers) -> str | None:
    return next((value.decode("latin-1") for name, value in headers if name == HEADER and value is not None), None)


def _headers(span: Span) -> Headers:
    context = span.get_span_context()
    if not context.is_valid or not context.trace_flags.sampled:
        return ()
    value = f"00-{trace.format_trace_id(context.trace_id)}-{trace.format_span_id(context.span_id)}-01"
    return ((HEADER, value.encode()),)
