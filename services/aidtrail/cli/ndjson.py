"""Input files: one event a line, as a JSON object. A line that is none is told with file, line, expected and found; reading goes on."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aidtrail import codec
from aidtrail.codec import AnyEvent
from aidtrail.errors import MalformedError, UsageError

MAX_LINE_BYTES = 1024 * 1024
LAID_OUT = (b"{", b"[")
"""The first line of JSON that is laid out over several."""


class Bad(NamedTuple):
    """A line that is not submitted."""

    file: str
    number: int
    where: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.where}: expected {self.expected}, found {self.found}"


class Line(NamedTuple):
    file: str
    number: int
    event: AnyEvent

    def bad(self, where: str, expected: str, found: str) -> Bad:
        return Bad(self.file, self.number, where, expected, found)


def read(file: str) -> Iterator[Line | Bad]:
    """The lines of a file, or of stdin for '-'; empty ones are skipped. A file that is one object over several lines is one of them.
    Raises UsageError when it cannot be read."""
    name = "stdin" if file == "-" else file
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as lines:
            number = 0
            while text := lines.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(text) > MAX_LINE_BYTES and not text.endswith(b"\n"):
                    while (rest := lines.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                    yield Bad(name, number, "line", f"at most {MAX_LINE_BYTES:,} bytes", "more")
                    continue
                text = text.strip()
                if number == 1 and text in LAID_OUT:
                    yield _whole(name, text + lines.read(MAX_LINE_BYTES))
                    return
                if text:
                    yield _line(name, number, text)
    except OSError as error:
        raise UsageError(f"{file}: expected a file of events, one JSON object a line; {error.strerror or error}") from None


def _whole(name: str, text: bytes) -> Line | Bad:
    try:
        one = isinstance(json.loads(text), dict)
    except ValueError:
        one = False
    if not one:
        each = "'.[]'" if text.startswith(b"[") else "."
        raise UsageError(f"{name}: expected one event a line, or one event in the whole file; make lines of it with jq -c {each}")
    return _line(name, 1, text)


def _line(name: str, number: int, text: bytes) -> Line | Bad:
    try:
        return Line(name, number, codec.from_json(text))
    except MalformedError as error:
        return Bad(name, number, error.where, error.expected, error.found)
