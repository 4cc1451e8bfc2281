"""A Confluent Schema Registry over `schemas/`, for reading: so that an Avro client in any language reads the topics with nothing else.

The paths, bodies and error codes are those of Confluent's "Schema Registry API Reference". What is published is published by a release
(`aidtrail schemas publish`): registering, deleting and reconfiguring is answered as a registry in mode READONLY answers, with 42205. Error
messages do not repeat what was asked for.

    app.include_router(schema_registry.router(Topics.of(settings.topic_prefix)), prefix="/registry")
    SchemaRegistryClient({"url": "http://localhost:8080/registry"})
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from aidtrail import contract
from aidtrail.compatibility import Schema, problems
from aidtrail.contract import Published
from aidtrail.errors import ContractError
from aidtrail.subjects import COMPATIBILITY, canonical, parse, subjects, wire
from aidtrail.topics import Topics

MODE = "READONLY"
AVRO = "AVRO"
EVERY_CONTEXT = ":*:"
"""A prefix of subjects that names all contexts. There is one here, the default."""

MAX_VERSION = 2**31 - 1

SUBJECT_NOT_FOUND = (404, 40401, "Subject not found.")
VERSION_NOT_FOUND = (404, 40402, "Version not found.")
SCHEMA_NOT_FOUND = (404, 40403, "Schema not found.")
INVALID_SCHEMA = (422, 42201, "The input is not an Avro schema that stands alone.")
INVALID_VERSION = (422, 42202, 'Not a valid version: allowed are the numbers from 1 to 2^31-1 and "latest".')
READ_ONLY = (422, 42205, "This registry is in read-only mode: schemas are published by a release of Aidtrail.")
BAD_REQUEST = (400, 400, "The request is not what this operation takes.")
NO_SUCH_PATH = (404, 404, "HTTP 404 Not Found")


class RegistryJSON(JSONResponse):
    media_type = "application/vnd.schemaregistry.v1+json"


class _RegistryError(Exception):
    """An answer of the registry that is an error: HTTP status, error code, message."""

    def __init__(self, said: tuple[int, int, str]) -> None:
        super().__init__(said[2])
        self.said = said


class _Route(APIRoute):
    """Errors in the registry's own form, whatever form the application gives to others."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_in_form(request: Request) -> Response:
            try:
                return await handle(request)
            except _RegistryError as error:
                return _error(error.said)
            except RequestValidationError:
                return _error(BAD_REQUEST)

        return handle_in_form


class SchemaRequest(BaseModel):
    """A schema that somebody asks about. Attributes for other kinds of schema are read over, as a registry does."""

    schema_: str = Field(alias="schema")
    schema_type: str = Field(AVRO, alias="schemaType")

    def avro(self) -> Schema:
        if self.schema_type != AVRO:
            raise _RegistryError(INVALID_SCHEMA)
        try:
            return parse(self.schema_)
        except ContractError:
            raise _RegistryError(INVALID_SCHEMA) from None


Offset = Annotated[int, Query(ge=0)]
Limit = Annotated[int, Query(ge=-1)]


def router(topics: Topics) -> APIRouter:
    """The surface for topics of these names. Its schemas are those of this release, read once."""
    found = APIRouter(route_class=_Route, default_response_class=RegistryJSON, include_in_schema=False)
    by_subject = subjects(topics)
    by_id = contract.published()
    same = {schema_id: canonical(entry.schema) for schema_id, entry in by_id.items()}
    """What equality of schemas is decided on."""

    def versions_of(subject: str) -> tuple[Published, ...]:
        if subject not in by_subject:
            raise _RegistryError(SUBJECT_NOT_FOUND)
        return by_subject[subject]

    def one_of(subject: str, version: str) -> Published:
        versions = versions_of(subject)
        number = _version(version, len(versions))
        if number > len(versions):
            raise _RegistryError(VERSION_NOT_FOUND)
        return versions[number - 1]

    def by(schema_id: str) -> Published:
        entry = by_id.get(int(schema_id)) if schema_id.isascii() and schema_id.isdigit() and len(schema_id) <= 10 else None
        if entry is None:
            raise _RegistryError(SCHEMA_NOT_FOUND)
        return entry

    # --- what there is --------------------------------------------------------------------------------------------------------------

    @found.get("/")
    async def nothing() -> Response:
        """What clients ask to see whether the registry is up."""
        return RegistryJSON({})

    @found.get("/subjects")
    async def list_subjects(prefix: Annotated[str, Query(alias="subjectPrefix")] = "", offset: Offset = 0, limit: Limit = -1) -> Response:
        wanted = prefix.removeprefix(EVERY_CONTEXT)
        return RegistryJSON(_page([name for name in by_subject if name.startswith(wanted)], offset, limit))

    @found.get("/subjects/{subject}/versions")
    async def list_versions(subject: str, offset: Offset = 0, limit: Limit = -1) -> Response:
        return RegistryJSON(_page([entry.version for entry in versions_of(subject)], offset, limit))

    @found.get("/subjects/{subject}/versions/{version}")
    async def get_version(subject: str, version: str) -> Response:
        return RegistryJSON(_registered(subject, one_of(subject, version)))

    @found.get("/subjects/{subject}/versions/{version}/schema")
    async def get_schema_of_version(subject: str, version: str) -> Response:
        return RegistryJSON(one_of(subject, version).schema)

    @found.get("/schemas/types")
    async def list_types() -> Response:
        return RegistryJSON([AVRO])

    @found.get("/schemas/ids/{schema_id}")
    async def get_schema(schema_id: str) -> Response:
        """`?subject=` names the context to look in, and there is one: a client whose strategy makes up another subject reads as well."""
        return RegistryJSON({"schema": wire(by(schema_id).schema)})

    @found.get("/schemas/ids/{schema_id}/schema")
    async def get_schema_alone(schema_id: str) -> Response:
        return RegistryJSON(by(schema_id).schema)

    @found.get("/schemas/ids/{schema_id}/subjects")
    async def list_subjects_of_schema(schema_id: str, offset: Offset = 0, limit: Limit = -1) -> Response:
        entry = by(schema_id)
        return RegistryJSON(_page([name for name, versions in by_subject.items() if entry in versions], offset, limit))

    @found.get("/schemas/ids/{schema_id}/versions")
    async def list_versions_of_schema(schema_id: str, subject: str | None = None, offset: Offset = 0, limit: Limit = -1) -> Response:
        entry = by(schema_id)
        stands = [name for name, versions in by_subject.items() if entry in versions and subject in (None, name)]
        return RegistryJSON(_page([{"subject": name, "version": entry.version} for name in stands], offset, limit))

    # --- what is asked about a schema, in threads: it takes time --------------------------------------------------------------------

    @found.post("/subjects/{subject}")
    def look_up(subject: str, asked: SchemaRequest) -> Response:
        versions, schema = versions_of(subject), asked.avro()
        for entry in versions:
            if same[entry.id] == schema:
                return RegistryJSON(_registered(subject, entry))
        raise _RegistryError(SCHEMA_NOT_FOUND)

    @found.post("/compatibility/subjects/{subject}/versions/{version}")
    def test_one(subject: str, version: str, asked: SchemaRequest, verbose: bool = False) -> Response:
        return _compatible([one_of(subject, version)], asked.avro(), verbose)

    @found.post("/compatibility/subjects/{subject}/versions")
    def test_all(subject: str, asked: SchemaRequest, verbose: bool = False) -> Response:
        return _compatible(versions_of(subject), asked.avro(), verbose)

    def _compatible(entries: Sequence[Published], schema: Schema, verbose: bool) -> Response:
        messages = [f"version {entry.version}: {line}" for entry in entries for line in sorted(problems(same[entry.id], schema))]
        return RegistryJSON({"is_compatible": not messages, **({"messages": messages} if verbose else {})})

    # --- settings -------------------------------------------------------------------------------------------------------------------

    @found.get("/config")
    async def get_config() -> Response:
        return RegistryJSON({"compatibilityLevel": COMPATIBILITY})

    @found.get("/config/{subject}")
    async def get_config_of_subject(subject: str) -> Response:
        versions_of(subject)
        return RegistryJSON({"compatibilityLevel": COMPATIBILITY})

    @found.get("/mode")
    async def get_mode() -> Response:
        return RegistryJSON({"mode": MODE})

    @found.get("/mode/{subject}")
    async def get_mode_of_subject(subject: str) -> Response:
        versions_of(subject)
        return RegistryJSON({"mode": MODE})

    # --- what would change something ------------------------------------------------------------------------------------------------

    @found.post("/subjects/{subject}/versions")
    @found.delete("/subjects/{subject}")
    @found.delete("/subjects/{subject}/versions/{version}")
    @found.put("/config")
    @found.delete("/config")
    @found.put("/config/{subject}")
    @found.delete("/config/{subject}")
    @found.put("/mode")
    @found.put("/mode/{subject}")
    @found.delete("/mode/{subject}")
    async def refuse() -> Response:
        return _error(READ_ONLY)

    @found.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def no_such_path() -> Response:
        return _error(NO_SUCH_PATH)

    return found


def _registered(subject: str, entry: Published) -> dict[str, object]:
    return {"subject": subject, "version": entry.version, "id": entry.id, "schema": wire(entry.schema)}


def _version(text: str, latest: int) -> int:
    """A version as a path states it: a number, or 'latest' (or '-1', as older clients say)."""
    if text in ("latest", "-1"):
        return latest
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= MAX_VERSION):
        raise _RegistryError(INVALID_VERSION)
    return int(text)


def _page(items: Sequence[object], offset: int, limit: int) -> Sequence[object]:
    return items[offset:] if limit < 0 else items[offset : offset + limit]


def _error(said: tuple[int, int, str]) -> Response:
    status, code, message = said
    return RegistryJSON({"error_code": code, "message": message}, status_code=status)
