"""Whether a Confluent Schema Registry that somebody runs says what the contract says. It only ever asks: nothing is registered there.

Records carry the ids of `schemas/ids.json`, whatever a registry would have given. So a registry serves readers only where each of our ids
names our schema; put schemas there in its mode IMPORT, which takes ids along, and never let producers register on their own.
"""

import base64
import json
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, build_opener

from aidtrail.compatibility import Schema, problems
from aidtrail.contract import FOLDER, Published
from aidtrail.errors import ContractError, UnavailableError, UsageError
from aidtrail.subjects import COMPATIBILITY, canonical, parse, subjects
from aidtrail.topics import Topics

TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 1 << 20
NOT_FOUND = (40401, 40402, 40403, 40408)
"""No such subject, version or schema; nothing set for this subject. Another 404 is not a registry's."""


class Finding(NamedTuple):
    """What a registry says otherwise. `incompatible`: what is there cannot stand beside ours (`compatibility.problems`)."""

    kind: Literal["missing", "different", "incompatible"]
    subject: str
    said: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.said}"


class _Version(NamedTuple):
    """One version of a subject as the registry has it; `schema` is None where it is no Avro schema that stands alone."""

    version: int
    id: int
    schema: Schema | None


class _Registry:
    """Asks, and knows a registry's answers. Raises UnavailableError where there is none."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            reachable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            reachable = False
        if not reachable:
            raise UsageError("--registry: expected the address of a schema registry, as http://host:8081, found another")
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self._credentials = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._credentials = f"Basic {base64.b64encode(pair.encode()).decode()}"
        self._opener = build_opener()

    def get(self, path: str) -> Any:
        """What the registry says, None where it says that there is no such thing."""
        request = Request(f"{self.name}{path}", headers={"Accept": "application/vnd.schemaregistry.v1+json, application/json"})
        if self._credentials is not None:
            request.add_unredirected_header("Authorization", self._credentials)  # for this host alone
        try:
            status, body = self._ask(request)
        except (OSError, HTTPException, UnicodeError) as error:
            reason = getattr(error, "reason", error)
            raise UnavailableError(f"{self.name} cannot be reached: {reason}; is the schema registry up?") from None
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        if status == 404 and isinstance(said, dict) and said.get("error_code") in NOT_FOUND:
            return None
        if status != 200:
            raise UnavailableError(f"{self.name}: expected an answer to GET {path}, found HTTP {status}; {_advice(status)}")
        if said is None:
            raise self._stranger(path)
        return said

    def _ask(self, request: Request) -> tuple[int, bytes]:
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                return answer.status, answer.read(MAX_ANSWER_BYTES)
        except HTTPError as error:
            with error:
                return error.code, error.read(MAX_ANSWER_BYTES)

    def versions(self, subject: str) -> list[_Version]:
        """Every version that is not deleted; none where there is no such subject."""
        path = f"/subjects/{quote(subject, safe='')}/versions"
        numbers = self.get(path)
        if numbers is None:
            return []
        if not isinstance(numbers, list) or not all(isinstance(number, int) for number in numbers):
            raise self._stranger(path)
        return [self._version(f"{path}/{number}", number) for number in numbers]

    def compatibility(self, subject: str) -> object:
        """The subject's level, or the one for all where it has none of its own; older registries do not know `defaultToGlobal`."""
        path = f"/config/{quote(subject, safe='')}?defaultToGlobal=true"
        found = self.get(path) or self.get("/config")
        if not isinstance(found, dict):
            raise self._stranger(path)
        return found.get("compatibilityLevel")

    def _version(self, path: str, number: int) -> _Version:
        found = self.get(path)
        if not (isinstance(found, dict) and isinstance(found.get("id"), int) and isinstance(found.get("schema"), str)):
            raise self._stranger(path)
        try:
            return _Version(number, found["id"], parse(found["schema"]))
        except ContractError:
            return _Version(number, found["id"], None)

    def _stranger(self, path: str) -> UnavailableError:
        return UnavailableError(f"{self.name}: expected a schema registry's answer to GET {path}, found another; is it a schema registry?")


def differences(url: str, topics: Topics, folder: Path = FOLDER) -> list[Finding]:
    """What the registry at `url` says otherwise than the contract, subject by subject; none where readers are served.

    `url` may carry a name and a password (https://name:password@host), which no message repeats. Raises UsageError for an address that is
    none, UnavailableError where the registry cannot be reached, refuses the credentials, or is no schema registry."""
    registry = _Registry(url)
    return [finding for subject, ours in subjects(topics, folder).items() for finding in _compared(registry, subject, ours)]


def _compared(registry: _Registry, subject: str, ours: tuple[Published, ...]) -> list[Finding]:
    theirs = registry.versions(subject)
    found: list[Finding] = []
    known: set[int] = set()
    for entry in ours:
        schema = canonical(entry.schema)
        named = next((version for version in theirs if version.id == entry.id), None)
        alike = next((version for version in theirs if version.schema == schema), None)
        known |= {version.version for version in (named, alike) if version is not None}
        if named is not None and named.schema != schema:
            found.append(_judged(subject, named, (entry,), f"the schema of schemas/{entry.path} by id {entry.id}"))
        elif named is None and alike is not None:
            said = f"expected id {entry.id} for schemas/{entry.path}, found id {alike.id} in version {alike.version}"
            found.append(Finding("different", subject, said))
        elif named is None:
            said = f"expected schemas/{entry.path} with id {entry.id}, found {'no such schema' if theirs else 'no such subject'}"
            found.append(Finding("missing", subject, said))
    strange = [version for version in theirs if version.version not in known]
    found += [_judged(subject, version, ours, "only versions that this release has published") for version in strange]
    level = registry.compatibility(subject) if theirs else COMPATIBILITY
    if level != COMPATIBILITY:
        found.append(Finding("different", subject, f"expected compatibility {COMPATIBILITY}, found {str(level)[:40]!r}"))
    return found


def _judged(subject: str, version: _Version, ours: tuple[Published, ...], expected: str) -> Finding:
    """A schema that is not ours: different, or incompatible as well."""
    where = f"expected {expected}, found in version {version.version}, id {version.id},"
    if version.schema is None:
        return Finding("incompatible", subject, f"{where} no Avro schema that stands alone")
    for entry in ours:
        for problem in sorted(problems(canonical(entry.schema), version.schema)):
            return Finding("incompatible", subject, f"{where} another: {problem}")
    return Finding("different", subject, f"{where} another, which is compatible")


def _advice(status: int) -> str:
    if status in (401, 403):
        return "give a name and a password that may read, as https://name:password@host"
    return "is it the address of a schema registry, with its path?"
