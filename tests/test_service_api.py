"""The service over HTTP: ids are submitted, looked after, followed, taken back and asked for again."""

from __future__ import annotations

import http.client
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import fastapi.routing
import pytest

import fetcher.stores.connections as connections
from fetcher.service import HIGHEST_ID, MOST_IDS, app
from fetcher.simulator import Answer, Simulator, World
from tests.helpers import answer, column, details_of, eventually, one
from tests.service import Serving, serving

Simulate = Callable[..., Simulator]

WORLD = World(seed=1, items=300)
KNOWN = list(WORLD.ids())
LONG = 10_000
"""An interval that does not end within a test: one batch is triggered, and the others wait."""


@pytest.fixture
def at(shared_simulator: Simulator, db: Path) -> Iterator[Serving]:
    """A service as fast as it can be."""
    with serving(shared_simulator, db) as found:
        yield found


@pytest.fixture
def slow(shared_simulator: Simulator, db: Path) -> Iterator[Serving]:
    """A service that triggers one batch, and no other."""
    with serving(shared_simulator, db, ingest_batch_interval=LONG) as found:
        yield found


# --- submitting -------------------------------------------------------------------------------------


def test_a_submission_is_answered_with_the_id_of_its_job(at: Serving) -> None:
    reply = at.ask("POST", "/ingest", ids=[1, 2, 3, 4, 5], priority="HIGH")
    assert reply.status == 202
    assert list(reply.json) == ["ingestion_id"]
    job = reply.json["ingestion_id"]
    assert str(uuid.UUID(job)) == job
    assert reply.headers["Location"] == f"/status/{job}"
    assert at.get(reply.headers["Location"]).json["priority"] == "HIGH"


def test_ids_are_fetched_and_can_be_read(at: Serving) -> None:
    at.completed(at.submit(*KNOWN[:4]))
    found = at.get(f"/items/{KNOWN[0]}").json
    expected = WORLD.item(KNOWN[0])
    assert (found["id"], found["user"], found["up"]) == (KNOWN[0], expected["user"], expected["up"])
    details = WORLD.info(KNOWN[0])
    for table in ("tags", "comments"):
        assert sorted(each["id"] for each in found[table]) == sorted(each["id"] for each in details[table])


def test_the_lowest_and_the_highest_id_are_taken(slow: Serving) -> None:
    assert slow.ask("POST", "/ingest", ids=[1, HIGHEST_ID]).status == 202
    assert HIGHEST_ID == 10**9 + 7


def test_a_hundred_thousand_ids_are_taken_in_their_order(slow: Serving, db: Path) -> None:
    ids = list(range(HIGHEST_ID, HIGHEST_ID - MOST_IDS, -1))
    job = slow.submit(*ids)
    assert MOST_IDS == 100_000
    assert slow.get(f"/status/{job}?limit=1").json["ids"] == MOST_IDS
    stored = column(db, "SELECT ids FROM job_batches ORDER BY number")
    assert [id for text in stored for id in json.loads(text)] == ids


def test_an_id_that_comes_twice_counts_once(slow: Serving) -> None:
    found = slow.get(f"/status/{slow.submit(3, 1, 3, 2, 1, 4)}").json
    assert found["ids"] == 4
    assert [each["ids"] for each in found["batches"]] == [[3, 1, 2], [4]]


def test_whole_numbers_may_be_written_as_others_write_them(slow: Serving) -> None:
    reply = slow.ask("POST", "/ingest", b'{"ids": [1.0, 2, 1e3, 2.0, 1000000007.0]}')
    assert reply.status == 202
    (batch, rest) = slow.get(f"/status/{reply.json['ingestion_id']}").json["batches"]
    assert batch["ids"] + rest["ids"] == [1, 2, 1000, HIGHEST_ID]
    assert all(isinstance(each, int) for each in batch["ids"])


def test_the_priority_is_medium_where_none_is_named(slow: Serving) -> None:
    job = slow.ask("POST", "/ingest", ids=[1]).json["ingestion_id"]
    assert slow.get(f"/status/{job}").json["priority"] == "MEDIUM"


WRONG: dict[str, tuple[str, list[Any]]] = {
    "zero": ('{"ids": [1, 0]}', ["body", "ids", 1]),
    "a negative id": ('{"ids": [-1]}', ["body", "ids", 0]),
    "an id above the highest": ('{"ids": [1000000008]}', ["body", "ids", 0]),
    "an id of twenty digits": ('{"ids": [99999999999999999999]}', ["body", "ids", 0]),
    "a text": ('{"ids": ["1"]}', ["body", "ids", 0]),
    "a float": ('{"ids": [1.5]}', ["body", "ids", 0]),
    "a float that is too large": ('{"ids": [1e10]}', ["body", "ids", 0]),
    "a float that is zero": ('{"ids": [-0.0]}', ["body", "ids", 0]),
    "a number that no double holds": ('{"ids": [1e999]}', ["body", "ids", 0]),
    "a boolean": ('{"ids": [true]}', ["body", "ids", 0]),
    "null among ids": ('{"ids": [1, null]}', ["body", "ids", 1]),
    "NaN": ('{"ids": [NaN]}', ["body", "ids", 0]),
    "infinity": ('{"ids": [-Infinity]}', ["body", "ids", 0]),
    "a list among ids": ('{"ids": [[1]]}', ["body", "ids", 0]),
    "an object among ids": ('{"ids": [{"id": 1}]}', ["body", "ids", 0]),
    "no id": ('{"ids": []}', ["body", "ids"]),
    "ids that are one number": ('{"ids": 1}', ["body", "ids"]),
    "ids that are a text": ('{"ids": "1,2"}', ["body", "ids"]),
    "ids that are an object": ('{"ids": {"0": 1}}', ["body", "ids"]),
    "ids that are null": ('{"ids": null}', ["body", "ids"]),
    "no ids": ('{"priority": "HIGH"}', ["body", "ids"]),
    "an unknown priority": ('{"ids": [1], "priority": "URGENT"}', ["body", "priority"]),
    "a priority in lower case": ('{"ids": [1], "priority": "high"}', ["body", "priority"]),
    "a priority that is null": ('{"ids": [1], "priority": null}', ["body", "priority"]),
    "a field that does not exist": ('{"ids": [1], "prio": "HIGH"}', ["body", "prio"]),
    "half of a pair as a value": ('{"ids": ["\\ud800"]}', ["body", "ids", 0]),
    "half of a pair as a name": ('{"ids": [1], "\\ud800": 1}', ["body"]),
    "a list": ("[1, 2]", ["body"]),
    "a number": ("7", ["body"]),
    "null": ("null", ["body"]),
    "nothing": ("", ["body"]),
    "half a body": ('{"ids": [1', ["body"]),
    "no JSON": ("ids=1", ["body"]),
    "an id of 5,000 digits": (f'{{"ids": [{"9" * 5000}]}}', ["body"]),
    "lists in lists": ("[" * 100_000, ["body"]),
}


@pytest.fixture(scope="module")
def strict(shared_simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A service that has nothing to do."""
    with serving(shared_simulator, tmp_path_factory.mktemp("strict") / "mirror.db") as found:
        yield found


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named_and_nothing_is_stored(strict: Serving, what: str) -> None:
    text, where = WRONG[what]
    reply = strict.ask("POST", "/ingest", text.encode())
    assert reply.status == 422, reply.body
    (fault,) = reply.json["detail"]
    assert fault["loc"][: len(where)] == where
    assert fault["msg"]
    assert set(fault) == {"type", "loc", "msg"}
    assert strict.get("/ingest").json == {"ingestions": [], "next": None}


@pytest.mark.parametrize(
    "body",
    [
        {"ids": [0] * MOST_IDS},
        {"ids": ["x" * 10] * MOST_IDS},
        {"ids": list(range(1, MOST_IDS + 2))},
        {"ids": "1" * 1_000_000},
        {"ids": [1], "priority": "H" * 1_000_000},
        {"ids": [1], **{f"field{number}": 1 for number in range(50_000)}},
        {"ids": [1], "name" * 100_000: 1},
    ],
    ids=["bad ids", "bad texts", "one too many", "a long text", "a long priority", "many fields", "a long name"],
)
def test_the_answer_to_a_large_mistake_is_small(strict: Serving, body: dict[str, Any]) -> None:
    reply = strict.ask("POST", "/ingest", json.dumps(body).encode())
    assert reply.status == 422
    assert len(reply.body) < 5_000
    assert strict.get("/ingest").json["ingestions"] == []


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "application/jsonx", ""]
)
def test_a_body_that_is_not_said_to_be_json_is_refused(strict: Serving, kind: str) -> None:
    reply = strict.ask("POST", "/ingest", b'{"ids": [1]}', {"Content-Type": kind})
    assert reply.status == 415
    assert "Content-Type: application/json" in reply.json["detail"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.ids+json"])
def test_json_may_be_said_in_other_words(slow: Serving, kind: str) -> None:
    assert slow.ask("POST", "/ingest", b'{"ids": [1]}', {"Content-Type": kind}).status == 202


def test_of_many_bad_ids_the_first_is_named(strict: Serving) -> None:
    """To find all of them would keep everybody waiting."""
    reply = strict.ask("POST", "/ingest", ids=[1, 2, *[0] * 50_000])
    assert [each["loc"] for each in reply.json["detail"]] == [["body", "ids", 2]]


# --- repeating --------------------------------------------------------------------------------------


def test_a_repeat_with_the_same_key_is_the_same_job(slow: Serving) -> None:
    first = slow.submit(1, 2, 3, Idempotency_Key="once")
    assert slow.submit(1, 2, 3, Idempotency_Key="once") == first
    assert slow.submit(1, 2, 2, 3, 1, Idempotency_Key="once") == first, "the same ids in the same order"
    assert slow.submit(1, 2, 3, Idempotency_Key="again") != first
    assert slow.submit(1, 2, 3) != first
    assert len(slow.get("/ingest").json["ingestions"]) == 3


def test_a_repeat_is_harmless_across_a_restart_and_after_the_end(shared_simulator: Simulator, db: Path) -> None:
    with serving(shared_simulator, db) as first:
        job = first.submit(1, Idempotency_Key="once")
        first.completed(job)
    with serving(shared_simulator, db) as second:
        assert second.submit(1, Idempotency_Key="once") == job
        assert second.get(f"/status/{job}").json["status"] == "completed"


@pytest.mark.parametrize("other", [{"ids": [1, 3, 2]}, {"ids": [1, 2]}, {"ids": [1, 2, 3], "priority": "HIGH"}])
def test_a_key_used_for_another_request_is_refused(slow: Serving, other: dict[str, Any]) -> None:
    slow.submit(1, 2, 3, Idempotency_Key="once")
    reply = slow.ask("POST", "/ingest", headers={"Idempotency-Key": "once"}, **other)
    assert reply.status == 422
    (fault,) = reply.json["detail"]
    assert fault["type"] == "idempotency_conflict"
    assert fault["loc"] == ["header", "Idempotency-Key"]
    assert len(slow.get("/ingest").json["ingestions"]) == 1


def test_a_request_that_was_wrong_does_not_use_up_its_key(slow: Serving) -> None:
    assert slow.ask("POST", "/ingest", headers={"Idempotency-Key": "once"}, ids=[0]).status == 422
    slow.submit(1, Idempotency_Key="once")


@pytest.mark.parametrize(("length", "status"), [(1, 202), (255, 202), (256, 422), (0, 422)])
def test_a_key_has_1_to_255_characters(slow: Serving, length: int, status: int) -> None:
    reply = slow.ask("POST", "/ingest", headers={"Idempotency-Key": "k" * length}, ids=[1])
    assert reply.status == status
    if status == 422:
        assert reply.json["detail"][0]["loc"] == ["header", "idempotency-key"]


def test_many_threads_that_repeat_make_one_job(slow: Serving, db: Path) -> None:
    together = threading.Barrier(16, timeout=30)

    def submit(_: int) -> str:
        together.wait()
        return slow.submit(*range(1, 1001), Idempotency_Key="once")

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(submit, range(16)))) == 1
    assert one(db, "SELECT count(*) FROM jobs") == 1
    assert one(db, "SELECT sum(size) FROM job_batches") == 1000


def test_many_threads_with_different_requests_under_one_key_make_one_job(slow: Serving, db: Path) -> None:
    together = threading.Barrier(8, timeout=30)

    def submit(number: int) -> int:
        together.wait()
        return slow.ask("POST", "/ingest", headers={"Idempotency-Key": "once"}, ids=[number + 1]).status

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(submit, range(8))) == [202] + [422] * 7
    assert one(db, "SELECT count(*) FROM jobs") == 1


# --- looking ----------------------------------------------------------------------------------------

JOB = {
    "ingestion_id",
    "status",
    "priority",
    "ids",
    "counts",
    "batch_count",
    "batches_waiting",
    "created_at",
    "started_at",
    "finished_at",
}
BATCH = {"batch_id", "ids", "status", "outcome", "triggered_at", "finished_at", "retrying", "failures"}


def test_a_job_that_waits_has_yet_to_start(slow: Serving) -> None:
    slow.completed(slow.submit(1))
    job = slow.submit(1, 2, 3, 4)
    found = slow.get(f"/status/{job}").json
    assert set(found) == JOB | {"batches", "next"}
    assert (found["ingestion_id"], found["status"], found["ids"]) == (job, "yet_to_start", 4)
    assert found["counts"] == {"ok": 0, "gone": 0, "failed": 0, "cancelled": 0, "open": 4}
    assert (found["batch_count"], found["batches_waiting"]) == (2, 2)
    assert (found["started_at"], found["finished_at"], found["next"]) == (None, None, None)
    assert datetime.fromisoformat(found["created_at"]).tzinfo is not None
    for batch, ids in zip(found["batches"], ([1, 2, 3], [4]), strict=True):
        assert set(batch) == BATCH
        assert (batch["ids"], batch["status"], batch["outcome"]) == (ids, "yet_to_start", None)
        assert (batch["triggered_at"], batch["retrying"], batch["failures"]) == (None, [], [])
        uuid.UUID(batch["batch_id"])


def test_a_job_is_triggered_while_some_batches_are_done_and_others_wait(slow: Serving) -> None:
    job = slow.submit(*KNOWN[:5])
    eventually(lambda: slow.get(f"/status/{job}").json["counts"]["ok"] == 3)
    found = slow.get(f"/status/{job}").json
    assert (found["status"], found["batches_waiting"], found["finished_at"]) == ("triggered", 1, None)
    assert [each["status"] for each in found["batches"]] == ["completed", "yet_to_start"]
    assert [each["outcome"] for each in found["batches"]] == ["ok", None]
    assert found["created_at"] <= found["started_at"] <= found["batches"][0]["finished_at"]


def test_a_completed_job_says_how_each_id_ended(at: Serving) -> None:
    missing = next(id for id in range(1, 10_000) if id not in KNOWN)
    found = at.completed(at.submit(KNOWN[0], missing, KNOWN[1], KNOWN[2]))
    assert found["counts"] == {"ok": 3, "gone": 1, "failed": 0, "cancelled": 0, "open": 0}
    assert found["started_at"] <= found["finished_at"]
    first, second = found["batches"]
    (failure,) = first["failures"]
    assert (failure["id"], failure["outcome"], failure["attempts"]) == (missing, "gone", 1)
    assert failure["reason"]
    assert second["failures"] == []
    assert len({first["batch_id"], second["batch_id"]}) == 2


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1",
        "x" * 5000,
        "0b4e6f0a-3c59-4a3c-9b6c-2f6a4f1f7d10",
        "%00",
        "%2e%2e",
        "%F0%9F%98%80",
        "%ff",
        "a/b",
        "ingest'--",
    ],
)
def test_an_unknown_job_is_404_whatever_is_asked(strict: Serving, name: str) -> None:
    for method, path in (
        ("GET", f"/status/{name}"),
        ("GET", f"/status/{name}/events"),
        ("DELETE", f"/ingest/{name}"),
        ("POST", f"/ingest/{name}/retry"),
    ):
        reply = strict.ask(method, path)
        assert reply.status == 404, path
        assert len(reply.body) < 500
        assert isinstance(reply.json["detail"], str)


def test_a_job_is_found_however_its_id_is_written(slow: Serving) -> None:
    job = slow.submit(1)
    for name in (job.upper(), job.replace("-", "")):
        assert slow.get(f"/status/{name}").json["ingestion_id"] == job


def test_batches_are_paged_and_none_is_lost_or_doubled(slow: Serving) -> None:
    job = slow.submit(*range(1, 101))
    seen: list[int] = []
    following: str | None = f"/status/{job}?limit=7"
    pages = 0
    while following:
        found = slow.get(following).json
        assert len(found["batches"]) <= 7
        assert found["batch_count"] == 34
        seen += [id for each in found["batches"] for id in each["ids"]]
        following, pages = found["next"], pages + 1
    assert seen == list(range(1, 101))
    assert pages == 5


def test_a_page_that_ends_with_the_last_batch_has_no_next(slow: Serving) -> None:
    assert slow.get(f"/status/{slow.submit(*range(1, 10))}?limit=3").json["next"] is None


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after=-2", f"after={2**63}", "limit="])
def test_a_page_that_cannot_be_is_422(slow: Serving, query: str) -> None:
    reply = slow.get(f"/status/{slow.submit(1)}?{query}")
    assert reply.status == 422
    assert reply.json["detail"][0]["loc"] == ["query", query.partition("=")[0]]


def test_a_job_and_its_batches_are_of_one_moment(at: Serving) -> None:
    """However fast it goes, what is said of a job is what its batches say."""
    job = at.submit(*KNOWN[:150])
    while True:
        found = at.get(f"/status/{job}?limit=1000").json
        states = [each["status"] for each in found["batches"]]
        assert found["batches_waiting"] == states.count("yet_to_start")
        done = set(states) == {"completed"}
        assert (found["status"] == "completed") == done == (found["finished_at"] is not None)
        if done:
            break


# --- the list ---------------------------------------------------------------------------------------


def _listed(at: Serving, path: str) -> list[str]:
    found: list[str] = []
    following: str | None = path
    while following:
        page = at.get(following).json
        found += [each["ingestion_id"] for each in page["ingestions"]]
        following = page["next"]
    return found


def test_jobs_are_listed_the_newest_first(slow: Serving) -> None:
    jobs = [slow.submit(number) for number in range(1, 8)]
    assert _listed(slow, "/ingest") == jobs[::-1]
    assert _listed(slow, "/ingest?limit=3") == jobs[::-1]
    assert set(slow.get("/ingest").json["ingestions"][0]) == JOB


def test_no_job_is_lost_or_doubled_on_pages_while_others_are_added(slow: Serving) -> None:
    jobs = [slow.submit(number) for number in range(1, 10)]
    seen: list[str] = []
    following: str | None = "/ingest?limit=2"
    while following:
        page = slow.get(following).json
        seen += [each["ingestion_id"] for each in page["ingestions"]]
        following = page["next"]
        slow.submit(1)
    assert seen == jobs[::-1]


def test_jobs_are_filtered_by_status_and_priority(slow: Serving) -> None:
    done = slow.submit(1, priority="HIGH")
    slow.completed(done)
    waiting = {each: slow.submit(1, 2, priority=each) for each in ("HIGH", "MEDIUM", "LOW")}
    cancelled = slow.submit(1, priority="LOW")
    slow.ask("DELETE", f"/ingest/{cancelled}")
    assert _listed(slow, "/ingest?status=completed&limit=1") == [cancelled, done]
    assert _listed(slow, "/ingest?status=yet_to_start&limit=1") == list(waiting.values())[::-1]
    assert _listed(slow, "/ingest?status=triggered") == []
    assert _listed(slow, "/ingest?priority=HIGH&limit=1") == [waiting["HIGH"], done]
    assert _listed(slow, "/ingest?priority=LOW&status=completed") == [cancelled]


def test_a_job_with_some_batches_done_is_listed_as_triggered(slow: Serving) -> None:
    job = slow.submit(*KNOWN[:4])
    eventually(lambda: _listed(slow, "/ingest?status=triggered") == [job])
    assert _listed(slow, "/ingest?status=completed") == []


@pytest.mark.parametrize(
    "query", ["status=done", "priority=high", "limit=0", "limit=1001", "before=0", f"before={2**63}", "before=x"]
)
def test_a_filter_that_cannot_be_is_422(strict: Serving, query: str) -> None:
    reply = strict.get(f"/ingest?{query}")
    assert reply.status == 422
    assert reply.json["detail"][0]["loc"] == ["query", query.partition("=")[0]]


# --- cancelling and asking again --------------------------------------------------------------------


def test_what_waits_can_be_cancelled(slow: Serving) -> None:
    job = slow.submit(*KNOWN[:8])
    eventually(lambda: slow.get(f"/status/{job}").json["counts"]["ok"] == 3)
    reply = slow.ask("DELETE", f"/ingest/{job}")
    assert reply.status == 200
    assert set(reply.json) == JOB
    assert reply.json["counts"] == {"ok": 3, "gone": 0, "failed": 0, "cancelled": 5, "open": 0}
    found = slow.get(f"/status/{job}").json
    assert (found["status"], found["batches_waiting"]) == ("completed", 0)
    assert [each["outcome"] for each in found["batches"]] == ["ok", "cancelled", "cancelled"]
    assert {each["status"] for each in found["batches"]} == {"completed"}
    again = slow.ask("DELETE", f"/ingest/{job}")
    assert (again.status, again.json) == (200, reply.json)


def test_cancelling_a_completed_job_changes_nothing(at: Serving) -> None:
    job = at.submit(KNOWN[0])
    before = at.completed(job)
    assert at.ask("DELETE", f"/ingest/{job}").status == 200
    assert at.get(f"/status/{job}").json == before


@contextmanager
def _with_a_bad_item(simulate: Simulate, db: Path) -> Iterator[tuple[Serving, threading.Event, int]]:
    """A service over an API that answers one item with nonsense until the event is set."""
    mended, bad = threading.Event(), KNOWN[1]

    def faults(kind: str, key: int, _: int) -> Answer | None:
        return Answer(200, {}, b"nonsense") if kind == "info" and key == bad and not mended.is_set() else None

    with serving(simulate(WORLD, faults=faults), db, max_retries=0) as at:
        yield at, mended, bad


def test_a_failed_id_says_why_and_can_be_asked_for_again(simulate: Simulate, db: Path) -> None:
    with _with_a_bad_item(simulate, db) as (at, mended, bad):
        job = at.submit(*KNOWN[:4])
        found = at.completed(job)
        assert found["counts"] == {"ok": 3, "gone": 0, "failed": 1, "cancelled": 0, "open": 0}
        assert [each["outcome"] for each in found["batches"]] == ["failed", "ok"]
        (failure,) = found["batches"][0]["failures"]
        assert (failure["id"], failure["outcome"], failure["attempts"]) == (bad, "malformed", 1)
        assert failure["reason"]

        mended.set()
        reply = at.ask("POST", f"/ingest/{job}/retry")
        assert reply.status == 202
        assert set(reply.json) == JOB
        assert reply.json["counts"] == {"ok": 3, "gone": 0, "failed": 0, "cancelled": 0, "open": 1}
        found = at.completed(job)
        assert found["counts"] == {"ok": 4, "gone": 0, "failed": 0, "cancelled": 0, "open": 0}
        assert [each["outcome"] for each in found["batches"]] == ["ok", "ok"]
        assert found["batches"][0]["failures"] == []
        assert at.get(f"/items/{bad}").status == 200


def test_a_retry_that_fails_again_is_told_again(simulate: Simulate, db: Path) -> None:
    with _with_a_bad_item(simulate, db) as (at, _, bad):
        job = at.submit(*KNOWN[:2])
        first = at.completed(job)
        at.ask("POST", f"/ingest/{job}/retry")
        second = at.completed(job)
        assert second["counts"] == first["counts"] == {"ok": 1, "gone": 0, "failed": 1, "cancelled": 0, "open": 0}
        assert [each["id"] for each in second["batches"][0]["failures"]] == [bad]


def test_a_retry_without_failures_changes_nothing(at: Serving) -> None:
    job = at.submit(KNOWN[0], 2)
    before = at.completed(job)
    assert at.ask("POST", f"/ingest/{job}/retry").status == 202
    assert at.get(f"/status/{job}").json == before


# --- items ------------------------------------------------------------------------------------------


def test_an_item_that_is_not_stored_is_404(strict: Serving) -> None:
    reply = strict.get("/items/1")
    assert (reply.status, reply.json) == (404, {"detail": "item 1 is not stored"})


@pytest.mark.parametrize("id", ["0", "-1", "x", "1000000008", "9" * 5000, "1.5", "%D9%A1%20", "%00", "1e3", "NaN"])
def test_an_item_that_cannot_be_is_422(strict: Serving, id: str) -> None:
    reply = strict.get(f"/items/{id}")
    assert reply.status == 422
    assert reply.json["detail"][0]["loc"] == ["path", "item_id"]
    assert len(reply.body) < 500


def test_an_item_is_told_whatever_the_api_sent(simulate: Simulate, db: Path) -> None:
    """Halves of pairs and numbers that no double holds are kept as they came, and are no reason to fail."""
    odd = KNOWN[0]

    def faults(kind: str, key: int, _: int) -> Answer | None:
        if kind != "info" or key != odd:
            return None
        details = details_of(WORLD, odd)
        details["tags"][0]["new"] = ["half \ud800", "\u2028\x00", 2**80, "Zoë \U0001f600"]
        return answer(details)

    with serving(simulate(WORLD, faults=faults), db) as at:
        at.completed(at.submit(odd))
        found = at.get(f"/items/{odd}").json
    (tag,) = [each for each in found["tags"] if each["extra"]]
    assert tag["extra"] == {"new": ["half \ud800", "\u2028\x00", 2**80, "Zoë \U0001f600"]}


# --- following --------------------------------------------------------------------------------------


class Events:
    """A stream of server-sent events, read as it comes."""

    def __init__(self, at: Serving, job: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", at.port, timeout=30)
        self._connection.request("GET", f"/status/{job}/events")
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200
        assert self._answer.headers.get_content_type() == "text/event-stream"
        assert self._answer.headers["Cache-Control"] == "no-cache"

    def line(self) -> str:
        """The next line, "" at the end."""
        return self._answer.readline().decode()

    def event(self) -> tuple[str, Any] | None:
        """The next event and its data, None at the end."""
        fields: dict[str, str] = {}
        while line := self.line():
            name, _, value = line.rstrip("\n").partition(": ")
            if name and not line.startswith(":"):
                fields[name] = value
            elif fields:
                return fields["event"], json.loads(fields["data"])
        return None

    def has_ended_well(self) -> bool:
        """Whether the stream was ended, not cut off: then the same connection answers again."""
        assert self.event() is None
        self._connection.request("GET", "/healthz")
        return self._connection.getresponse().status == 200

    def close(self) -> None:
        """Follow no longer."""
        self._answer.close()
        self._connection.close()


@pytest.fixture
def quick_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has changed is told soon."""
    monkeypatch.setattr(app, "EVENT_SECONDS", 0.01)


@pytest.mark.usefixtures("quick_events")
def test_a_job_is_followed_until_it_is_completed(slow: Serving) -> None:
    job = slow.submit(*KNOWN[:5])
    events = Events(slow, job)
    seen = []
    while (found := events.event()) is not None:
        name, told = found
        seen.append(name)
        assert set(told) == JOB
        assert told["ingestion_id"] == job
        assert (name == "completed") <= (told["status"] == "completed")
        if told["counts"]["ok"] == 3 and told["batches_waiting"]:
            slow.ask("DELETE", f"/ingest/{job}")
    assert seen[-2:] == ["status", "completed"]
    assert set(seen[:-1]) == {"status"}
    assert len(seen) >= 3
    assert told["counts"] == {"ok": 3, "gone": 0, "failed": 0, "cancelled": 2, "open": 0}
    events.close()


def test_following_a_completed_job_ends_at_once(at: Serving) -> None:
    job = at.submit(1)
    at.completed(job)
    events = Events(at, job)
    assert [(found or ("",))[0] for found in (events.event(), events.event(), events.event())] == [
        "status",
        "completed",
        "",
    ]
    events.close()


def test_each_event_has_a_number(at: Serving) -> None:
    job = at.submit(1)
    at.completed(job)
    assert re.findall(r"^id: (\d+)$", at.get(f"/status/{job}/events").body.decode(), re.M) == ["1", "2"]


def test_a_quiet_stream_is_kept_alive_by_comments(slow: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastapi.routing, "_PING_INTERVAL", 0.02)
    slow.completed(slow.submit(1))
    events = Events(slow, slow.submit(1))
    assert events.event() is not None
    assert [events.line() for _ in range(4)] == [": ping\n", "\n"] * 2
    events.close()


@pytest.mark.usefixtures("quick_events")
def test_nothing_is_looked_up_for_a_follower_who_has_gone(slow: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    really = slow.service.job
    monkeypatch.setattr(slow.service, "job", lambda name: looked.append(name) or really(name))  # type: ignore[func-returns-value]
    slow.completed(slow.submit(1))
    events = Events(slow, slow.submit(1))
    assert events.event() is not None
    eventually(lambda: len(looked) > 3, what="the stream goes on")
    events.close()

    def is_quiet() -> bool:
        before = len(looked)
        threading.Event().wait(0.3)
        return len(looked) == before

    eventually(is_quiet)


@pytest.mark.usefixtures("quick_events")
def test_a_follower_is_let_go_when_the_service_ends(
    shared_simulator: Simulator, db: Path, caplog: pytest.LogCaptureFixture, no_threads_left: None
) -> None:
    with serving(shared_simulator, db, ingest_batch_interval=LONG) as at:
        at.completed(at.submit(1))
        events = Events(at, at.submit(1))
        assert events.event() is not None
    assert events.event() is None, "ended as it should, not cut off"
    events.close()
    assert "exceeded" not in caplog.text, "nobody had to be waited for"


@pytest.mark.usefixtures("quick_events")
def test_a_stream_ends_when_the_database_cannot_be_read(
    slow: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slow.completed(slow.submit(1))
    events = Events(slow, slow.submit(1))
    assert events.event() is not None
    monkeypatch.setattr(slow.service, "job", _broken)
    assert events.has_ended_well()
    events.close()
    assert "Traceback" not in caplog.text


def _broken(*_: Any, **__: Any) -> Any:
    from fetcher.errors import StoreError

    raise StoreError("the disk failed")


# --- reading ----------------------------------------------------------------------------------------


def test_threads_that_come_and_go_leave_no_connection_behind(slow: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's idle threads end; each had left an open file behind until the service could open no more."""
    opened: list[Path] = []
    really = connections.connect_readonly

    def connect(path: Path, **more: Any) -> Any:
        opened.append(path)
        return really(path, **more)

    job = slow.submit(1)
    monkeypatch.setattr(connections, "connect_readonly", connect)
    for _ in range(20):
        thread = threading.Thread(target=slow.service.job, args=(job,))
        thread.start()
        thread.join()
    assert len(opened) <= 1
