"""What can go wrong over HTTP, as RFC 9457 has it: each problem is a class, its type a page that the service itself serves.

No problem repeats what the client sent. What was expected is said; what was found only where the ledger recorded it.
"""

import re
from http import HTTPStatus
from textwrap import shorten
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi_problem.error import Problem, StatusProblem
from fastapi_problem.handler import ExceptionHandler, add_exception_handler, new_exception_handler
from starlette.exceptions import HTTPException

PREFIX = "/problems"


class Unauthenticated(StatusProblem):
    """The request has no access token, or one that is not accepted: expired, of another issuer, of an actor that the registry does not
    know. Get a new token and try again."""

    status, title, type_ = 401, "No valid access token", f"{PREFIX}/unauthenticated"
    headers_ = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012


class NotPermitted(StatusProblem):
    """The actor is known, but holds no role in which such an event is submitted. The registry gives roles."""

    status, title, type_ = 403, "Not a matter for this actor", f"{PREFIX}/not-permitted"


class NotFound(StatusProblem):
    """There is no such thing, or it is not for this actor to see: the two are told alike. A donation can be seen by those who take part in
    it and by the mechanisms that it was put before, once its announcement is in the views."""

    status, title, type_ = 404, "Not found", f"{PREFIX}/not-found"


class TooSlow(StatusProblem):
    """The request's body did not arrive in time. Nothing was submitted."""

    status, title, type_ = 408, "The body did not arrive in time", f"{PREFIX}/too-slow"


class TooLarge(StatusProblem):
    """The body is larger than any event. Nothing was submitted."""

    status, title, type_ = 413, "The body is too large", f"{PREFIX}/too-large"


class NotJson(StatusProblem):
    """Events are submitted as application/json. Nothing was submitted."""

    status, title, type_ = 415, "Not application/json", f"{PREFIX}/not-json"


class NotAvro(StatusProblem):
    """Signed events are submitted as application/vnd.aidtrail.event+avro: the submission's own bytes. Nothing was submitted."""

    status, title, type_ = 415, "Not application/vnd.aidtrail.event+avro", f"{PREFIX}/not-avro"


class HeadersTooLarge(StatusProblem):
    """The request's headers are larger than any that this service reads. Nothing was submitted."""

    status, title, type_ = 431, "The headers are too large", f"{PREFIX}/headers-too-large"


class Malformed(StatusProblem):
    """The request is not what the documentation of this path describes: `where` says which part of it, `expected` what should stand there.
    Nothing was submitted."""

    status, title, type_ = 422, "Malformed request", f"{PREFIX}/malformed"


class KeyReused(StatusProblem):
    """The Idempotency-Key was used before, by the same actor, for another request. Nothing was submitted now."""

    status, title, type_ = 422, "Idempotency-Key used for another request", f"{PREFIX}/key-reused"


class IdReused(StatusProblem):
    """The event's id is that of another submission. Give each event an id of its own."""

    status, title, type_ = 422, "Event id of another submission", f"{PREFIX}/id-reused"


class Refused(StatusProblem):
    """The ledger ruled on the submission and refused it: `reason` is the name of the rule, `expected` and `found` are its words. The
    refusal is recorded, and changes nothing about the donation."""

    status, title, type_ = 409, "Refused by the ledger", f"{PREFIX}/refused"


class LogUnavailable(StatusProblem):
    """The log takes nothing at the moment. Nothing was submitted: try again after the seconds of Retry-After."""

    status, title, type_ = 503, "The log is not available", f"{PREFIX}/log-unavailable"
    headers_ = {"Retry-After": "2"}  # noqa: RUF012


class ViewsUnavailable(StatusProblem):
    """The views cannot be read at the moment. Try again after the seconds of Retry-After."""

    status, title, type_ = 503, "The views are not available", f"{PREFIX}/views-unavailable"
    headers_ = {"Retry-After": "2"}  # noqa: RUF012


class Unknown(StatusProblem):
    """The log did not say whether it has the submission. It is not sent again by the service. The Location tells the outcome once there is
    one; with the same Idempotency-Key the request can safely be repeated: if the first did arrive, its outcome is the answer."""

    status, title, type_ = 504, "Not known whether it was submitted", f"{PREFIX}/unknown"


class Internal(StatusProblem):
    """A mistake in the service. It is in its log."""

    status, title, type_ = 500, "Internal error", f"{PREFIX}/internal"


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} - Aidtrail</title>
<style>
body {{ max-width: 40rem; margin: 10vh auto; padding: 0 1.25rem; font: 1.0625rem/1.6 system-ui, sans-serif; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }}
</style>
<h1>{title}</h1>
<p><strong>Status {status}.</strong> {words}</p>
</html>
"""
"""Of a problem's type, as wide as it reads well, on a phone and in the dark too. What is put in is text of this file, without < and &."""

ALL: tuple[type[StatusProblem], ...] = (
    Unauthenticated, NotPermitted, NotFound, TooSlow, TooLarge, NotJson, NotAvro, HeadersTooLarge, Malformed, KeyReused, IdReused,
    Refused, LogUnavailable, ViewsUnavailable, Unknown, Internal,
)  # fmt: skip


def response(problem: Problem) -> Response:
    """For where no handler of the app is at work yet."""
    return JSONResponse(problem.marshal(), problem.status, dict(problem.headers or {}), "application/problem+json")


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem, and serve a page for each type."""
    handler = new_exception_handler(
        unhandled_wrappers={"default": _Hidden},
        request_validation_handler=_malformed,
        http_exception_handler=_plain,
    )
    add_exception_handler(app, handler)

    @app.get(PREFIX + "/{name}", include_in_schema=False, response_class=HTMLResponse)
    def page(name: str) -> HTMLResponse:
        for problem in ALL:
            if problem.type_ == f"{PREFIX}/{name}":
                words = re.sub(r"`(\w+)`", r"<code>\1</code>", " ".join((problem.__doc__ or "").split()))
                return HTMLResponse(_PAGE.format(title=problem.title, status=problem.status, words=words))
        raise NotFound


class _Hidden(Internal):
    """Whatever was raised: what it says is for the service's log, not for the client."""

    def __init__(self, detail: str | None = None, **more: Any) -> None:
        super().__init__(None, **more)


def _malformed(_: ExceptionHandler, request: Request, error: RequestValidationError) -> Problem:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if isinstance(part, str))[:64]
    return Malformed(
        where=where if where.isascii() and where.isprintable() else "request",
        expected=shorten(str(first["msg"]).removeprefix("Value error, "), 400, placeholder=" ..."),
    )


def _plain(_: ExceptionHandler, request: Request, error: HTTPException) -> Problem:
    if error.status_code == 404:
        return NotFound()
    title = HTTPStatus(error.status_code).phrase
    return Problem(title, type_="about:blank", status=error.status_code, headers=dict(error.headers or {}))
