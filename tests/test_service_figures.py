"""What the service tells of itself: whether it lives, whether it works, and its figures."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fetcher.service import engines
from fetcher.simulator import Answer, Simulator, World
from tests.helpers import eventually
from tests.service import Serving, serving

Simulate = Callable[..., Simulator]

WORLD = World(seed=1, items=300)
KNOWN = list(WORLD.ids())
KEY = "correct-horse-battery-staple"

Figures = dict[str, dict[str, float]]
"""By name, the values by their labels: `a=1,b=2`."""


def figures(at: Serving, **headers: str) -> Figures:
    """All figures as Prometheus reads them; each is of our source, has one family, and comes once."""
    reply = at.get("/metrics", **headers)
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: Figures = {}
    families = Counter[tuple[str, str]]()
    for family in text_string_to_metric_families(reply.body.decode()):
        families[family.name, family.type] += 1
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        assert family.name.startswith("fetcher_")
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("source") == "pr0gramm"
            values = found.setdefault(sample.name.removeprefix("fetcher_"), {})
            name = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
            assert name not in values, f"{sample.name} {name} comes twice"
            values[name] = sample.value
    assert set(families.values()) == {1}
    return found


def test_figures_are_what_has_happened(simulate: Simulate, db: Path) -> None:
    bad, missing = KNOWN[3], next(id for id in range(1, 10_000) if id not in KNOWN)
    simulator = simulate(
        WORLD, faults=lambda kind, key, _: Answer(200, {}, b"nonsense") if kind == "info" and key == bad else None
    )
    with serving(simulator, db, max_retries=0) as at:
        at.completed(at.submit(*KNOWN[:4], missing))
        eventually(lambda: figures(at)["items_total"] == {"how=stored": 3, "how=gone": 1, "how=failed": 1})
        found = figures(at)
        assert sum(found["requests_total"].values()) == simulator.requests.total()
        assert found["requests_total"]["outcome=malformed"] == 1
        assert found["request_seconds_count"][""] == found["request_seconds_bucket"]["le=+Inf"]
        assert (found["items_stored"][""], found["items_fetched"][""], found["work_parked"][""]) == (4, 3, 1)
        assert (found["work_queued"][""], found["batches_waiting"][""], found["up"][""]) == (0, 0, 1)
        assert found["started_seconds"][""] <= found["updated_seconds"][""]


def test_what_waits_is_counted(shared_simulator: Simulator, db: Path) -> None:
    with serving(shared_simulator, db, ingest_batch_interval=10_000) as at:
        at.completed(at.submit(1))
        at.submit(*range(1, 8))
        assert figures(at)["batches_waiting"][""] == 3


def test_what_was_asked_is_counted_by_address_and_answer(shared_simulator: Simulator, db: Path) -> None:
    with serving(shared_simulator, db, api_keys=KEY, ingest_batch_interval=10_000) as at:
        key = {"X-API-Key": KEY}
        for number in range(1, 4):
            assert at.ask("POST", "/ingest", headers=key, ids=[number]).status == 202
        at.ask("POST", "/ingest", headers=key, ids=[0])
        at.ask("GET", "/items/1", headers=key)
        at.ask("GET", "/items/2", headers=key)
        at.ask("HEAD", "/healthz")
        at.ask("PUT", "/healthz")
        at.ask("GET", "/nothing", headers=key)
        at.ask("GET", '/a"b\\c', headers=key)
        for number in range(5):
            at.ask(f"MADEUP{number}", "/ingest", headers=key)
        at.ask("GET", "/ingest")
        at.ask("DELETE", "/ingest/x")
        expected = {
            ("POST", "/ingest", 202): 3,
            ("POST", "/ingest", 422): 1,
            ("GET", "/items/{item_id}", 404): 2,
            ("HEAD", "/healthz", 200): 1,
            ("PUT", "/healthz", 405): 1,
            ("GET", "other", 404): 2,
            ("other", "/ingest", 405): 5,
            ("GET", "other", 401): 1,
            ("DELETE", "other", 401): 1,
        }
        found = figures(at, X_API_Key=KEY)
        assert found["http_requests_total"] == {
            f"method={method},path={path},status={status}": count for (method, path, status), count in expected.items()
        }
        assert found["http_seconds_count"][""] == sum(expected.values())
        assert found["http_seconds_sum"][""] > 0


def test_a_service_that_works_is_ready(shared_simulator: Simulator, db: Path) -> None:
    with serving(shared_simulator, db) as at:
        for path in ("/healthz", "/readyz"):
            reply = at.get(path)
            assert (reply.status, reply.json) == (200, {"status": "ok", "reason": None})


def test_while_the_api_is_away_it_is_not_ready_and_takes_ids_all_the_same(
    simulate: Simulate, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "LEAST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(engines, "backoff", lambda *_: 0.0)
    back = threading.Event()
    simulator = simulate(WORLD, faults=lambda *_: None if back.is_set() else Answer(500))
    with serving(simulator, db, max_outage_seconds=0.2) as at:
        job = at.submit(*KNOWN[:3])
        eventually(lambda: at.get("/readyz").status == 503)
        reply = at.get("/readyz").json
        assert reply["status"] == "waiting"
        assert reply["reason"]
        assert at.get("/healthz").status == 200
        assert figures(at)["up"][""] == 0
        later = at.submit(*KNOWN[3:6])
        back.set()
        at.completed(job)
        at.completed(later)
        eventually(lambda: at.get("/readyz").status == 200)
        assert figures(at)["up"][""] == 1


def test_where_a_login_is_needed_it_says_that_somebody_has_to_help(simulate: Simulate, db: Path) -> None:
    refused = Answer(403, {"Content-Type": "application/json"}, b'{"error": "forbidden", "code": 403, "msg": "no"}')
    with serving(simulate(WORLD, faults=lambda *_: refused), db, max_outage_seconds=1) as at:
        at.submit(KNOWN[0])
        eventually(lambda: at.get("/readyz").status == 503)
        assert at.get("/readyz").json["status"] == "stuck"
        assert at.get("/healthz").status == 200


def test_a_service_that_ends_is_alive_and_not_ready(shared_simulator: Simulator, db: Path) -> None:
    with serving(shared_simulator, db) as at:
        at.service.drain()
        reply = at.get("/readyz")
        assert (reply.status, reply.json["status"]) == (503, "draining")
        assert at.get("/healthz").status == 200
        assert figures(at)["up"][""] == 0
        job = at.submit(KNOWN[0])
        assert at.get(f"/status/{job}").json["status"] == "yet_to_start", "kept for the next start"
