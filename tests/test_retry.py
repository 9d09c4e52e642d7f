"""What failed is shown with its evidence, and tried again when somebody asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fetcher import failures, retry, verify
from fetcher.model import Outcome
from fetcher.simulator import Answer, Simulator, World
from tests.fakes import FakeStop
from tests.helpers import FAST, answer, assert_complete, list_page, mirror, one, query, run_fetcher

pytestmark = pytest.mark.usefixtures("no_threads_left")

Simulate = Callable[..., Simulator]

WORLD = World(seed=1, items=40)
MALFORMED, DENIED = WORLD.ids()[5], WORLD.ids()[6]


@pytest.fixture
def failed(db: Path, simulate: Simulate) -> tuple[Path, Simulator]:
    """A mirror with two items that failed for good, and a simulator that has mended."""
    mended = []

    def faults(kind: str, key: int, attempt: int) -> Answer | None:
        if mended or kind != "info":
            return None
        if key == MALFORMED:
            return Answer(200, {}, b'{"tags":"\x1b[31mred"}')
        return answer({"error": "forbidden", "code": 403}, 403) if key == DENIED else None

    simulator = simulate(WORLD, faults=faults)
    assert mirror(db, simulator, max_retries=1, stop=FakeStop()).exit_code == 3
    mended.append(True)
    return db, simulator


def test_failures_are_shown_with_their_evidence(failed: tuple[Path, Simulator]) -> None:
    db, _ = failed
    by_key = {each.key: each for each in failures(db)}
    assert set(by_key) == {MALFORMED, DENIED}
    assert by_key[MALFORMED].body == b'{"tags":"\x1b[31mred"}'
    assert (by_key[MALFORMED].attempts, by_key[MALFORMED].due_at, by_key[MALFORMED].status) == (2, None, 200)
    assert [each.key for each in failures(db, outcomes=["denied"])] == [DENIED]
    assert [each.key for each in failures(db, keys=[MALFORMED])] == [MALFORMED]
    assert len(failures(db, limit=1)) == 1

    table = run_fetcher("failures", str(db)).stdout
    assert "failed for good" in table
    assert "\x1b" not in run_fetcher("failures", str(db), "--body").stdout
    assert "[31mred" in run_fetcher("failures", str(db), "--body").stdout
    lines = run_fetcher("failures", str(db), "--json", "--outcome", "malformed").stdout.splitlines()
    assert [json.loads(line)["key"] for line in lines] == [MALFORMED]
    assert json.loads(lines[0])["body"].startswith('{"tags"')
    assert "and more" in run_fetcher("failures", str(db), "--limit", "1").stderr
    assert run_fetcher("failures", str(db), "--outcome", "nonsense").returncode == 2


def test_a_retry_has_what_failed_and_forgets_the_failure(failed: tuple[Path, Simulator]) -> None:
    db, simulator = failed
    summary = retry(db, **FAST)
    assert summary is not None
    assert (summary.exit_code, summary.counts.stored) == (0, 2)
    assert_complete(db, WORLD)
    assert failures(db) == []
    assert verify(db).complete
    before = simulator.requests.total()
    assert retry(db, **FAST) is None
    assert simulator.requests.total() == before


@pytest.mark.parametrize(
    ("chosen", "key"), [({"outcomes": [Outcome.DENIED]}, DENIED), ({"keys": [MALFORMED]}, MALFORMED)]
)
def test_a_retry_can_be_of_some(chosen: dict[str, list[object]], key: int, failed: tuple[Path, Simulator]) -> None:
    db, _ = failed
    summary = retry(db, **chosen, **FAST)  # type: ignore[arg-type]
    assert summary is not None
    assert (summary.exit_code, summary.counts.stored) == (3, 1)
    assert [each.key for each in failures(db)] == [each for each in (MALFORMED, DENIED) if each != key]


def test_the_command_goes_on_with_the_host_that_was_mirrored(failed: tuple[Path, Simulator]) -> None:
    db, _ = failed
    done = run_fetcher("retry", str(db), "--key", str(DENIED), "--delay", "0")
    assert (done.returncode, done.stderr) == (3, "")
    assert "Stored 1 item" in done.stdout
    done = run_fetcher("retry", str(db), "--delay", "0")
    assert done.returncode == 0
    assert_complete(db, WORLD)
    done = run_fetcher("retry", str(db))
    assert (done.returncode, done.stdout) == (0, "")
    assert "Nothing to retry" in done.stderr
    assert "Nothing failed" in run_fetcher("failures", str(db)).stdout


def test_a_listed_item_that_could_not_be_used_is_listed_again(db: Path, simulate: Simulate) -> None:
    world = World(seed=1, items=40)
    id = world.ids()[20]
    data = list_page(world, 0)
    (spoilt,) = [each for each in data["items"] if each["id"] == id]
    del spoilt["flags"]
    mended = []
    simulator = simulate(world, faults=lambda kind, _, __: answer(data) if kind == "list" and not mended else None)
    assert mirror(db, simulator).exit_code == 3
    assert mirror(db, simulator).exit_code == 3
    mended.append(True)
    summary = retry(db, keys=[id], **FAST)
    assert summary is not None
    assert summary.exit_code == 0
    assert_complete(db, world)
    assert verify(db).complete
    assert one(db, "SELECT count(*) FROM failures") == 0
    assert query(db, "SELECT lo, hi, items FROM coverage") == [(1, world.ids()[-1], 40)]
