"""What the service says of itself: OpenAPI, with every answer that can occur, and none that cannot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from fetcher.service.bodies import Problem
from fetcher.service.guard import OPEN

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "any name, the key as password: what browsers ask for"},
}
_CHALLENGE = {
    "WWW-Authenticate": {"description": "how a key can be sent", "schema": {"type": "string"}, "required": True}
}
_LATER = {"Retry-After": {"description": "when to ask again, in seconds", "schema": {"type": "integer"}}}


def describe(app: FastAPI, *, keys: bool) -> None:
    """Let an application say so; with `keys` one is needed."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _openapi(app, keys)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _openapi(app: FastAPI, keys: bool) -> dict[str, Any]:
    said = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
    )
    components = said["components"]
    # The framework's own idea of a refusal, which no route of ours answers with.
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    components["schemas"]["Problem"] = Problem.model_json_schema()
    if keys:
        components["securitySchemes"] = _SCHEMES
    for path, method, operation in _operations(said):
        answers = operation["responses"]
        if "HTTPValidationError" in str(answers.get("422")):
            del answers["422"]
        more = dict(_refusals(path, method, keys))
        for status, answer in answers.items():
            # The framework takes a stream's refusals for streams.
            if status >= "400" and "content" in answer:
                answer["content"] = {"application/json": next(iter(answer["content"].values()))}
        answers.update({status: each for status, each in more.items() if status not in answers})
        if keys:
            operation["security"] = [] if path in OPEN else [{name: []} for name in _SCHEMES]
        operation["responses"] = dict(sorted(answers.items()))
    return said


def _operations(said: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in said["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _refusals(path: str, method: str, keys: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """What can be answered instead of any operation's own answers."""
    changes = method != "get"
    if keys and path not in OPEN:
        yield "401", _problem("a key is needed", headers=_CHALLENGE)
    if changes or not keys:
        yield "403", _problem("asked by a page of another site, or, without keys, under a name of another machine")
    if changes:
        yield "413", _problem("the body is too large")
    overload = "too many ask at once"
    if path == "/healthz":
        yield "503", {"description": overload, "content": {"text/plain": {"schema": {"type": "string"}}}}
    else:
        yield "503", _problem(f"the database cannot be used, or {overload}", headers=_LATER, text=True)


def _problem(description: str, *, headers: dict[str, Any] | None = None, text: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    if text:
        content["text/plain"] = {"schema": {"type": "string"}}
    return {"description": description, "content": content, **({"headers": headers} if headers else {})}
