"""A trace from the request to the view: one id, spans that follow one another, headers on both topics, and no byte of a value changed."""

import timeit
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from aidtrail import tracing
from aidtrail.log import Draft, Log, Record
from aidtrail.log.memory import MemoryLog, MemoryRecord
from aidtrail.producer import Producer
from tests.acts import Acts
from tests.pipeline import TOPICS, Pipeline

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What an SDK would send away. Set up for `aidtrail.tracing` alone: the process has no other."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("aidtrail"))
    yield exporter
    provider.shutdown()


def records(log: Log, topic: str) -> list[Record]:
    reader = log.reader(topic)
    reader.assign(dict.fromkeys(log.end_offsets(topic), 0))
    found: list[Record] = []
    while batches := reader.poll(100, 0.5):
        found += [record for batch in batches.values() for record in batch]
    reader.close()
    return found


def traceparents(log: Log, topic: str) -> list[str]:
    return [value.decode() for record in records(log, topic) for name, value in record.headers if name == "traceparent"]


def test_one_trace_leads_from_the_request_to_the_view(exported: InMemorySpanExporter, log: Log, database_url: str, tmp_path: Path) -> None:
    pipeline = Pipeline(database_url, tmp_path, log)
    acts = Acts("D-1")
    with tracing.continued(TRACEPARENT):
        pipeline.submit([acts.announced()])
    pipeline.submit([acts.confirmed()])  # of no request
    submitted, recorded = traceparents(log, TOPICS.submitted), traceparents(log, TOPICS.recorded)
    pipeline.close()

    spans = {span.name: span for span in exported.get_finished_spans() if span.context.trace_id == int(TRACE, 16)}
    chain = [f"send {TOPICS.submitted}", f"process {TOPICS.submitted}", f"process {TOPICS.recorded}"]
    assert sorted(spans) == sorted(chain)
    parent = int(PARENT, 16)
    for name in chain:
        assert spans[name].parent is not None
        assert spans[name].parent.span_id == parent
        parent = spans[name].context.span_id
    assert [spans[name].kind for name in chain] == [SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.CONSUMER]
    assert spans[chain[2]].end_time > spans[chain[2]].start_time
    follows_conventions(spans[chain[1]], "process", TOPICS.submitted)
    follows_conventions(spans[chain[2]], "process", TOPICS.recorded)
    assert spans[chain[0]].attributes["messaging.operation.type"] == "send"
    assert submitted[0] == f"00-{TRACE}-{spans[chain[0]].context.span_id:016x}-01"
    assert recorded[0] == f"00-{TRACE}-{spans[chain[1]].context.span_id:016x}-01"
    assert len(submitted) == len(recorded) == 2, "an SDK that samples everything traces the second as well"


def follows_conventions(span: ReadableSpan, operation: str, topic: str) -> None:
    attributes = dict(span.attributes or {})
    assert attributes.pop("messaging.kafka.offset") == 0
    assert attributes.pop("messaging.destination.partition.id").isdigit()
    assert attributes == {
        "messaging.system": "kafka",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": topic,
    }


def test_without_an_sdk_a_traceparent_is_passed_on_as_it_came(database_url: str, tmp_path: Path) -> None:
    log = MemoryLog()
    pipeline = Pipeline(database_url, tmp_path, log)

    with tracing.continued(TRACEPARENT):
        pipeline.submit([Acts("D-1").announced()])

    assert traceparents(log, TOPICS.submitted) == traceparents(log, TOPICS.recorded) == [TRACEPARENT]
    pipeline.close()


def test_values_and_outcomes_are_the_same_with_and_without_a_trace(database_url: str, tmp_path: Path) -> None:
    written = []
    for traceparent in (TRACEPARENT, None):
        log = MemoryLog(clock=lambda: 1_790_000_000_000)
        pipeline = Pipeline(database_url, tmp_path / str(traceparent), log)
        acts = Acts("D-1")
        with tracing.continued(traceparent), Producer(log, TOPICS) as producer:
            producer.submit([acts.announced(), acts.confirmed(), acts.confirmed()])
        pipeline._ledger.turn()
        written.append([(record.key, record.value) for topic in TOPICS for record in records(log, topic)])
        pipeline.close()

    assert written[0] == written[1]


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        "nonsense",
        f"00-{TRACE}-{PARENT}-00",  # not sampled
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\r\nx: y",
        "0" * 10_000,
    ],
)
def test_no_record_gets_a_header_for_what_is_no_sampled_trace(traceparent: str | None) -> None:
    with tracing.continued(traceparent), tracing.sending("t"):
        assert tracing.current() == ()
    spans = tracing.Spans({0: [MemoryRecord("t", 0, 7, 0, b"", b"", (("traceparent", (traceparent or "").encode()), ("other", b"\xff")))]})
    assert not spans
    assert spans.headers(0, 7) == ()


def test_headers_are_kept_by_every_log(log: Log, topic: str) -> None:
    log.create_topic(topic, 1)
    appender = log.appender()
    appender.append([Draft(topic, 0, b"k", b"v", (("traceparent", TRACEPARENT.encode()), ("other", b"\xe9"))), Draft(topic, 0, b"k", b"v")])
    appender.close()

    first, second = records(log, topic)
    assert list(first.headers) == [("traceparent", TRACEPARENT.encode()), ("other", b"\xe9")]
    assert list(second.headers) == []


def test_a_batch_that_is_not_written_says_so_in_its_spans(exported: InMemorySpanExporter) -> None:
    spans = tracing.Spans({0: [MemoryRecord("t", 0, 7, 0, b"", b"", (("traceparent", TRACEPARENT.encode()),))]})

    spans.end("FenceLostError")

    (span,) = exported.get_finished_spans()
    assert (span.status.is_ok, span.status.description) == (False, "FenceLostError")


def test_what_is_not_traced_costs_next_to_nothing() -> None:
    batch = {0: [MemoryRecord("t", 0, number, 0, b"", b"") for number in range(20_000)]}

    microseconds = min(timeit.repeat(lambda: tracing.Spans(batch), number=1, repeat=5)) / 20_000 * 1e6

    print(f"{microseconds:.3f} µs an entry")
    assert microseconds < 2
