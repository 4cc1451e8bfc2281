"""The gateway as an application: which services it has, how it starts and stops, and how it is told whether it is well."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query
from fastapi.responses import JSONResponse, PlainTextResponse

from aidtrail.gateway import openapi, problems, reading, schema_registry, signed, submitting
from aidtrail.gateway.limits import Head, Limits
from aidtrail.gateway.measured import Measured
from aidtrail.gateway.state import Gateway, gateway
from aidtrail.routes import SERVICES
from aidtrail.topics import Topics


def create(shared: Gateway | None, topics: Topics, services: Sequence[str] = SERVICES) -> FastAPI:
    """An application with these services (of SERVICES), reading, the contract, and health. `shared` is opened when it starts and closed
    when it stops; without it the application can be described, not run."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        assert shared is not None
        app.state.gateway = shared
        shared.open()
        yield
        await shared.close()

    app = FastAPI(
        title="Aidtrail", version=version("aidtrail"), lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/openapi.json",
        redirect_slashes=False,  # a redirect would name http: behind a proxy that ends TLS, and the token would go there in the clear
    )  # fmt: skip
    for service in services:
        app.include_router(submitting.router(service))
    if services:
        app.include_router(signed.router(services))
    app.include_router(reading.router)
    app.include_router(schema_registry.router(topics), prefix="/registry")
    app.add_middleware(Limits)
    app.add_middleware(Measured)
    app.add_middleware(Head)
    problems.install(app)

    @app.get("/livez", include_in_schema=False)
    async def livez() -> PlainTextResponse:
        """Whether the process answers: a restart helps if it does not."""
        return PlainTextResponse("ok")

    @app.get("/readyz", include_in_schema=False)
    def readyz(shared: Annotated[Gateway, Depends(gateway)], verbose: Annotated[str | None, Query()] = None) -> JSONResponse:
        """Whether requests should come here now: what it depends on can be reached, and it is not stopping."""
        found = shared.readiness()
        well = all(said == "ok" for said in found.values())
        return JSONResponse(found if verbose is not None else {"ready": well}, 200 if well else 503)

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = openapi.describe(app)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
    for route in app.routes:  # FastAPI makes what a router holds at the first request that passes it: now, and not while somebody waits
        route.matches({"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []})
    return app
