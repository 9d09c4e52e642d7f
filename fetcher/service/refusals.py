"""How a request is answered that cannot be done: briefly, as JSON, and naming what was wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from fetcher.errors import Stopped, StoreError

MOST_FAULTS = 10
"""No more faults of one request are told."""

_LONGEST = 100
"""Names and messages that the request itself brought are cut there."""


def refuse_well(app: FastAPI) -> None:
    """Let an application answer so."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _impossible)
    app.add_exception_handler(StoreError, _unusable)
    app.add_exception_handler(Stopped, _unusable)


def invalid(where: str, name: str, message: str, kind: str) -> RequestValidationError:
    """The error for a request of which `name`, in its `where` (body, header), is wrong."""
    return RequestValidationError([{"type": kind, "loc": (where, name), "msg": message}])


def refusal(status: int, detail: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A refusal. In ASCII: what the request brought need not be encodable."""
    return Response(json.dumps({"detail": detail}), status, headers, "application/json")


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    if request.headers.get("content-length") != "0" and any(each["loc"] == ("body",) for each in faults):
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            return refusal(415, "send JSON, with the header Content-Type: application/json")
    # What was sent is not sent back: it may be large, and need not be JSON.
    return refusal(
        422,
        [
            {
                "type": each["type"],
                "loc": [part if isinstance(part, int) else str(part)[:_LONGEST] for part in each["loc"]],
                "msg": str(each["msg"])[: 3 * _LONGEST],
            }
            for each in faults[:MOST_FAULTS]
        ],
    )


def _impossible(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        # The framework's word for a body nested too deeply, with a number of too many digits, or of broken text.
        fault = {"type": "json_invalid", "loc": ["body"], "msg": "the body cannot be read as JSON"}
        return refusal(422, [fault])
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return refusal(error.status_code, error.detail, headers)


def _methods(request: Request) -> set[str]:
    """All that can be asked of an address: several routes may share one."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return found | ({"HEAD"} if "GET" in found else set())


def _unusable(_: Request, error: Exception) -> Response:
    return refusal(503, str(error), {"Retry-After": "5"})
