"""Every error that Aidtrail raises on purpose. Each says when; each message tells the person at the terminal what to do next."""

import re
from collections.abc import Mapping
from typing import Any


class AidtrailError(Exception):
    """Base of all errors below; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(AidtrailError):
    """A command, a setting or an input file is wrong: says where, what was expected and what was found."""

    exit_code = 2


class ContractError(AidtrailError):
    """The schemas, their ids or the pydantic models disagree: a build mistake, found by `aidtrail schemas check`."""


class UndecodableError(AidtrailError):
    """Bytes that are not one canonical Avro record of a known schema. `position` is the offset of the first bad byte."""

    def __init__(self, expected: str, found: str, position: int = 0) -> None:
        super().__init__(f"at byte {position}: expected {expected}, found {found}")
        self.expected, self.found, self.position = expected, found, position


class MalformedError(AidtrailError):
    """A canonical Avro record or a JSON object whose values no event can have (an id with spaces, an amount below zero)."""

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}")
        self.where, self.expected, self.found = where, expected, found


class FoldError(AidtrailError):
    """`apply` could not read an admitted event. The donation is parked; the others go on."""


class UnavailableError(AidtrailError):
    """A broker or a database cannot be reached, refuses the credentials, or is set up differently from what is required."""

    exit_code = 3


class StoppedError(AidtrailError):
    """Ctrl-C, in a command that may have begun to write: says how much it wrote."""

    exit_code = 130


class AppendUnknownError(AidtrailError):
    """An append was not acknowledged: the records may be in the log or not.

    The appender that raised it is unusable. Close it, read the log's tail, open a new one and go on from what is there.
    """


class FenceLostError(AidtrailError):
    """Another writer holds the position of this partition, or the build is no longer the live one, or gone: nothing was written. Drop the
    partition's state and claim again."""


class ProofError(AidtrailError):
    """An inclusion or consistency proof does not prove what it says, or none can exist for these sizes."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"the proof does not hold: expected {expected}, found {found}")
        self.expected, self.found = expected, found


class NoteError(AidtrailError):
    """A signed note, a checkpoint or a key is not written as its specification says, or no trusted key signed it as it stands."""

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}")
        self.where, self.expected, self.found = where, expected, found


class SealError(AidtrailError):
    """Log, topic, folder or checkpoint contradict what was sealed: nothing more is signed. Somebody has to look; trying again cannot
    help."""


class TokenError(AidtrailError):
    """An access token is not accepted. The message says why and repeats nothing of the token: it is safe to show and to log."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the access token is not accepted: {why}")


class ProblemError(AidtrailError):
    """The gateway answered a client with a problem (RFC 9457) that trying again does not help against: `status`, and `said`, all of it."""

    def __init__(self, message: str, status: int, said: dict[str, Any]) -> None:
        super().__init__(message)
        self.status, self.said = status, said


PLAIN = {
    "missing": "this field",
    "extra_forbidden": "no field of that name",
    "uuid_parsing": "a UUID",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
"""pydantic's types of error, as what follows 'expected'."""


def expected_by(error: Mapping[str, Any], patterns: Mapping[str, str]) -> str:
    """What one of pydantic's errors expected, in words that follow 'expected'. `patterns` says what each regular expression means."""
    if error["type"] == "string_pattern_mismatch":
        pattern = str(error["ctx"]["pattern"])
        return patterns.get(pattern, f"text that matches {pattern}")
    message = str(error["msg"]).removeprefix("Value error, ")
    return PLAIN.get(error["type"]) or re.sub(r"^[A-Z][a-z]+ should (be|have) ", "", message)
