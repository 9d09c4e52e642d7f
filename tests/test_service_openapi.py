"""What the service says of itself in OpenAPI is all that it does, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from fetcher.errors import StoreError
from fetcher.service import guard
from fetcher.simulator import Simulator
from tests.helpers import ROOT
from tests.service import Reply, Serving, serving

KEY = "correct-horse-battery-staple"


@pytest.fixture(scope="module", params=["with keys", "without"])
def at(
    request: pytest.FixtureRequest, shared_simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """A service, once with keys and once without."""
    keys = {"api_keys": KEY} if request.param == "with keys" else {}
    with serving(shared_simulator, tmp_path_factory.mktemp("said") / "mirror.db", **keys) as found:
        yield found


def said_by(at: Serving) -> Any:
    """The description."""
    reply = at.get("/openapi.json", X_API_Key=KEY)
    assert reply.status == 200
    return reply.json


def operations(said: Any) -> list[tuple[str, str, Any]]:
    """(path, method, operation), all of them."""
    return [(path, method, each) for path, methods in said["paths"].items() for method, each in methods.items()]


def assert_is(value: Any, schema: Any, said: Any) -> None:
    """The value is as the schema says, whose references are into the description."""
    whole = {**schema, "components": said["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def test_all_that_can_be_asked_is_described(at: Serving) -> None:
    assert {(path, method) for path, method, _ in operations(said_by(at))} == {
        ("/ingest", "post"),
        ("/ingest", "get"),
        ("/ingest/{ingestion_id}", "delete"),
        ("/ingest/{ingestion_id}/retry", "post"),
        ("/status/{ingestion_id}", "get"),
        ("/status/{ingestion_id}/events", "get"),
        ("/items/{item_id}", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
    }


def test_every_operation_answer_and_shape_has_a_description(at: Serving) -> None:
    said = said_by(at)
    for path, method, operation in operations(said):
        assert operation["description"], (method, path)
        for status, answer in operation["responses"].items():
            assert answer["description"], (method, path, status)
    for name, schema in said["components"]["schemas"].items():
        assert schema["description"], name


def test_every_example_is_as_its_schema_says(at: Serving) -> None:
    said = said_by(at)
    without = set()
    for name, schema in said["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            assert_is(example, {"$ref": f"#/components/schemas/{name}"}, said)
        if not schema.get("examples"):
            without.add(name)
    assert without == {"Counts", "Retry", "Failure", "Fault"}, "those are within others"
    assert '"examples": [{"ids": [1, 2, 3, 4, 5], "priority": "HIGH"}]' in json.dumps(said)


def test_every_reference_leads_somewhere(at: Serving) -> None:
    said = said_by(at)
    text = json.dumps(said)
    for name in said["components"]["schemas"]:
        assert text.count(f'"#/components/schemas/{name}"') >= 1, f"{name} is used nowhere"
    assert "HTTPValidationError" not in text


def test_the_keys_are_described_where_they_are_needed(at: Serving) -> None:
    said = said_by(at)
    for path, _, operation in operations(said):
        if "securitySchemes" not in said["components"]:
            assert "security" not in operation
            assert "401" not in operation["responses"]
        elif path in guard.OPEN:
            assert operation["security"] == []
        else:
            assert operation["security"] == [{"bearer": []}, {"header": []}, {"basic": []}]


def _provoke(at: Serving, path: str, method: str, status: str, patch: pytest.MonkeyPatch) -> Reply | None:
    """The answer with that status, None where nobody knows how to get it."""
    headers = {"X-API-Key": KEY}
    job = at.submit(9, X_API_Key=KEY)
    at_item = path.startswith("/items")
    address = path.format(ingestion_id=job, item_id=9)
    body = b'{"ids": [1]}' if (path, method) == ("/ingest", "post") else None

    def ask(to: str = address, body: bytes | None = body, **more: str) -> Reply:
        sent = {**headers, **{name.replace("_", "-"): value for name, value in more.items()}}
        return at.ask(method.upper(), to, body, {name: value for name, value in sent.items() if value})

    match status:
        case "200" | "202":
            # Waited for elsewhere than in the list of what is asked: the item has to be there.
            for _ in range(1000 if at_item else 1):
                found = ask()
                if str(found.status) == status:
                    return found
            return None
        case "401":
            return ask(X_API_Key="")
        case "403":
            return ask(Origin="http://evil.example") if method != "get" else ask(Host="evil.example")
        case "404":
            return ask(path.format(ingestion_id="x", item_id=1))
        case "408":
            patch.setattr(guard, "BODY_SECONDS", 0.1)
            return ask(body=None, Content_Length="9", Content_Type="application/json")
        case "413":
            return ask(Content_Length=str(guard.MOST_BYTES + 1))
        case "415":
            return ask(Content_Type="text/plain")
        case "422" if body:
            return ask(body=b'{"ids": [0]}')
        case "422":
            return ask(path.format(ingestion_id=job, item_id=0) + "?limit=0")
        case "503":
            for name in ("submit", "job", "jobs", "batches", "cancel", "retry", "item", "totals"):
                patch.setattr(at.service, name, _broken)
            return ask()
    return None


def _broken(*_: Any, **__: Any) -> Any:
    raise StoreError("the disk failed")


STATUSES = ("200", "202", "401", "403", "404", "408", "413", "415", "422", "503")


@pytest.mark.parametrize("status", STATUSES)
def test_every_answer_that_is_described_can_occur_and_is_as_described(
    at: Serving, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = said_by(at)
    for path, method, operation in operations(said):
        assert set(operation["responses"]) <= set(STATUSES)
        answer = operation["responses"].get(status)
        with monkeypatch.context() as patch:
            reply = _provoke(at, path, method, status, patch) if answer or status not in ("200", "202") else None
        if answer is None:
            assert reply is None or str(reply.status) != status, f"{method} {path} answers with {status}, too"
            continue
        if (path, status) == ("/healthz", "503"):
            continue  # Where too many ask at once, which is tested with the limits.
        assert reply is not None
        assert str(reply.status) == status, (method, path, reply)
        kind = reply.headers.get_content_type()
        if kind == "application/json":
            assert_is(reply.json, answer["content"][kind]["schema"], said)
        else:
            assert kind in answer["content"], (method, path, status)
        for name, header in answer.get("headers", {}).items():
            if header.get("required", True) and not (status == "503" and path == "/readyz"):
                assert name in reply.headers


@pytest.mark.timeout(300)  # About 20 s where nothing else runs.
def test_schemathesis_finds_nothing(shared_simulator: Simulator, db: Path, tmp_path: Path) -> None:
    """Every check that it has, over all that the description allows and much that it does not.

    Deeper, by hand: the same command with --max-examples 300 and without --seed.
    """
    with serving(shared_simulator, db, api_keys=KEY) as at:
        found = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{at.url}/openapi.json"),
                *("--header", f"Authorization: Bearer {KEY}", "--checks", "all", "--max-examples", "5"),
                *("--request-timeout", "20", "--generation-database", "none", "--seed", "1", "--no-color"),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    assert found.returncode == 0, found.stdout[-5000:] + found.stderr[-2000:]
    assert "Tested: 10" in found.stdout
