"""What is said on stderr: one line of JSON for each event worth reading, ids and places in it, and nothing that people wrote."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from opentelemetry import trace

from aidtrail import codec, logs
from aidtrail.domain.donation import Donation
from aidtrail.domain.events import Event, PartyRegistered, PledgeWithdrawn
from aidtrail.domain.fold import apply
from aidtrail.ledger import Ledger
from aidtrail.log import Draft
from aidtrail.log.memory import MemoryLog, MemoryRecord
from aidtrail.logs import about
from aidtrail.producer import Producer
from aidtrail.projector import Projector
from aidtrail.service import drain
from tests.acts import Acts, registry_events
from tests.pipeline import TOPICS

SECRET = "Sok Dara, of whom no log must tell"
logger = logging.getLogger("aidtrail.tests")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a test sets up for all loggers is taken back."""
    root, kafka = logging.root, logging.getLogger("kafka")
    handlers, level, kafka_level = root.handlers[:], root.level, kafka.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    kafka.setLevel(kafka_level)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def event() -> Event:
    acts = Acts("D-1")
    return acts.announced(meta={"correlation_id": UUID("0199b896-93a0-7001-8000-000000000001")})


def test_a_line_is_one_json_object_with_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    logs.to_stderr("INFO")
    announced = event()

    logger.warning("ledger: refused: %s", "duplicate_event", extra=about(MemoryRecord("t", 1, 7, 0, b"D-1", b""), announced))

    (line,) = lines(capsys.readouterr().err)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "ledger: refused: duplicate_event",
        "level": "warning",
        "logger": "aidtrail.tests",
        "topic": "t",
        "partition": 1,
        "offset": 7,
        "donation_id": "D-1",
        "event_id": str(announced.meta.event_id),
        "event_type": "PledgeAnnounced",
        "correlation_id": "0199b896-93a0-7001-8000-000000000001",
    }


def test_an_exception_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.to_stderr("INFO")
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError:
        logger.exception("it failed")

    (line,) = lines(capsys.readouterr().err)
    assert "RuntimeError: first\nsecond" in line["exception"]


def test_a_terminal_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    logs.to_stderr("INFO")

    logger.warning("projector: an entry is void", extra={"partition": 1})

    assert terminal.getvalue()[20:] == "WARNING projector: an entry is void partition=1\n"


def test_what_is_tried_again_and_again_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("aidtrail.logs.time.monotonic", lambda: now)
    logs.to_stderr("INFO")

    for attempt in range(100):
        logger.warning("ledger: the log cannot be reached; trying again", extra={"wait_seconds": attempt})
        logger.warning("a record is ignored", extra={"topic": "t", "partition": 0, "offset": 7})
        logger.warning("a record is ignored", extra={"topic": "t", "partition": 0, "offset": 8})
    now += logs.REPEAT_SECONDS
    logger.warning("ledger: the log cannot be reached; trying again", extra={"wait_seconds": 5})

    said = lines(capsys.readouterr().err)
    assert [line["event"][:8] for line in said] == ["ledger: ", "a record", "a record", "ledger: "]
    assert [line.get("repeated") for line in said] == [None, None, None, 99]


def test_the_trace_under_way_is_on_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.to_stderr("INFO")
    context = trace.SpanContext(trace_id=0xABC, span_id=0xDEF, is_remote=False)

    with trace.use_span(trace.NonRecordingSpan(context)):
        logger.warning("inside")
    logger.warning("outside")

    inside, outside = lines(capsys.readouterr().err)
    assert (inside["trace_id"], inside["span_id"]) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert "trace_id" not in outside


def test_the_way_of_good_and_bad_events_is_told_without_a_word_of_them(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.to_stderr("DEBUG")
    log = MemoryLog()
    TOPICS.create(log, 4)
    acts = Acts("D-1")
    good, withdrawn = acts.announced(), acts.withdrawn(reason=SECRET)
    party = PartyRegistered(event_id=good.meta.event_id, occurred_on=acts.now, party_id="P", name=SECRET, kind="society", country="KH")
    with Producer(log, TOPICS) as producer:
        producer.register(registry_events())
        producer.submit([good, good, withdrawn])
    appender = log.appender()
    spoiled = [codec.encode(each).replace(SECRET.encode(), SECRET[:-1].encode() + b"\x07") for each in (party, withdrawn)]
    appender.append([Draft(TOPICS.registry, 0, b"P", spoiled[0]), Draft(TOPICS.submitted, 0, b"D-1", spoiled[1])])
    appender.append([Draft(TOPICS.submitted, number, SECRET.encode(), SECRET.encode()) for number in range(4)])

    def failing(donation: Donation | None, event: Event) -> Donation:
        if isinstance(event, PledgeWithdrawn):
            raise KeyError(SECRET)
        return apply(donation, event)

    ledger = Ledger(log, TOPICS, tmp_path, group="ledger")
    drain(ledger, lambda: sum(log.end_offsets(TOPICS.recorded).values()) == 8)
    appender.append([Draft(TOPICS.recorded, 0, b"D-1", SECRET.encode())])
    projector = Projector(log, TOPICS, database_url, group="projector", apply=failing)
    drain(projector, lambda: True)
    for service in (ledger, projector):
        service.close()

    text = capsys.readouterr().err
    said = lines(text)
    for word in (SECRET, SECRET[:-1], SECRET.encode().hex(), "Sok", "Dara"):
        assert word not in text, next(line for line in said if word in str(line))
    refused = {line["event"].rpartition(" ")[2]: line for line in said if line["event"].startswith("ledger: refused")}
    (parked,) = (line for line in said if "is parked" in line["event"])
    (void,) = (line for line in said if "is void" in line["event"])
    (ignored,) = (line for line in said if "is ignored" in line["event"])
    assert refused.keys() == {"duplicate_event", "undecodable", "malformed"}
    assert (refused["duplicate_event"]["event_id"], parked["event_id"]) == (str(good.meta.event_id), str(withdrawn.meta.event_id))
    assert {line["donation_id"] for line in (refused["duplicate_event"], parked)} == {"D-1"}
    assert (void["topic"], ignored["topic"]) == (TOPICS.recorded, TOPICS.registry)
    assert all({"partition", "offset"} <= line.keys() for line in (*refused.values(), parked, void, ignored))
    print(f"{len(said)} lines, 0 with a word of what people wrote")
