"""The page is made rightly of what there is: ids as people type them, charts, words, forms, and nothing unescaped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.model import Traffic
from fetcher.service.engines import EngineState, Sample
from fetcher.service.page.charts import SPANS, Chart, charts, figure
from fetcher.service.page.ids import SHOWN, read_ids, shortened
from fetcher.service.page.rendering import plain
from fetcher.service.page.standing import Standing, job_sentence, job_word, percent, standing
from fetcher.service.service import HIGHEST_ID, MOST_IDS
from fetcher.simulator import Simulator
from fetcher.stores.jobs import COUNTED, Backlog, Job
from tests.helpers import ROOT, one
from tests.service import Reply, Serving, serving

NOW = 1_800_000_000.0
STATIC = ROOT / "fetcher/service/page/static"


# --- ids --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("7", [7]),
        ("1,2, 3 ;4\t5\n6\r\n7", [1, 2, 3, 4, 5, 6, 7]),
        ("10-13", [10, 11, 12, 13]),
        ("10 - 12, 20–21 30..31 40…41", [10, 11, 12, 20, 21, 30, 31, 40, 41]),
        ("[1, 2]", [1, 2]),
        ('["1", "2"]', [1, 2]),
        ("3, 1-4, 3", [3, 1, 2, 4]),
        ("007", [7]),
        (f"{HIGHEST_ID}", [HIGHEST_ID]),
        (",,5,,", [5]),
    ],
)
def test_ids_are_read_as_people_type_them(text: str, ids: list[int]) -> None:
    read = read_ids(text)
    assert not read.mistakes
    assert list(read.ids) == ids


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "Ids are missing"),
        (" \n, ", "Ids are missing"),
        ("1, 2\n 3x", "Line 2, character 2: “3x” is not an id"),
        ("-5", "Line 1, character 1: “-5” is not an id"),
        ("5-", "“5-” is not an id"),
        ("1-2-3", "“1-2-3” is not an id"),
        ("1.5", "“1.5” is not an id"),
        ("٣", "“٣” is not an id"),
        ("9-3", "Line 1, character 1: “9-3” runs backwards: write 3-9"),
        ("0", "“0” is outside of what ids can be, 1 to 1,000,000,007"),
        (f"1\n\n4 {HIGHEST_ID + 1}", f"Line 3, character 3: “{HIGHEST_ID + 1}” is outside"),
        ("9" * 5000, f"Line 1, character 1: “{'9' * 40}…” is outside"),
        (f"1-{MOST_IDS + 1}", f"These are {MOST_IDS + 1:,} ids; a job may have {MOST_IDS:,}"),
        (f"1-{HIGHEST_ID}, " * 1000, "a job may have 100,000"),
    ],
)
def test_what_is_wrong_with_ids_is_said_with_its_place(text: str, mistake: str) -> None:
    read = read_ids(text)
    assert not read.ids
    assert mistake in str(read.mistakes[0])


def test_not_every_mistake_is_named() -> None:
    read = read_ids("x " * 100)
    assert len(read.mistakes) == SHOWN
    assert read.further == 100 - SHOWN


def test_the_most_that_a_job_may_have_is_read() -> None:
    assert len(read_ids(f"1-{MOST_IDS}").ids) == MOST_IDS


@given(st.lists(st.integers(1, 300), min_size=1, max_size=100, unique=True))
def test_ids_that_were_shortened_are_read_as_what_they_were(ids: list[int]) -> None:
    assert read_ids(shortened(tuple(ids), most=1000)).ids == tuple(ids)


@given(st.text(alphabet="0123456789-. ,x\n…[\"'"))
def test_any_text_is_read_or_told_what_is_wrong(text: str) -> None:
    read = read_ids(text)
    assert bool(read.ids) != bool(read.mistakes)


def test_many_ids_are_shown_by_the_first() -> None:
    assert shortened((1, 2, 3, 5, 6, 9)) == "1-3, 5, 6, 9"
    assert shortened(tuple(range(1, 100, 2)), most=3) == "1, 3, 5 …"


# --- charts -----------------------------------------------------------------------------------------


def sample(ago: float, **values: Any) -> Sample:
    """How things stood so many seconds ago."""
    usual = {"stored": 0, "rate": 0.0, "pace": 10.0, "gate": 4, "in_flight": 2, "paused": 0.0, "limited": 0}
    return Sample(NOW - ago, **{**usual, **values})


def drawn(path: str) -> list[tuple[float, float]]:
    """The points of a path."""
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]


def test_charts_of_nothing_say_so() -> None:
    throughput, in_flight, pace = charts([], NOW)
    assert throughput.summary == "No items in the last second."
    assert in_flight.summary == "None in the last second."
    assert pace.summary == "No request refused, no pause in the last second."
    assert all(path == "" for chart in (throughput, in_flight, pace) for _, path in chart.lines)


def test_throughput_is_drawn_to_scale_and_told() -> None:
    samples = [sample(ago, rate=8.0, stored=int(8 * (100 - ago))) for ago in range(100, -1, -1)]
    chart = charts(samples, NOW)[0]
    assert (chart.now, chart.unit, chart.top, chart.span) == ("8", "items/s", "10", 120)
    points = drawn(chart.lines[0][1])
    assert {y for _, y in points} == {20.0}
    assert points[-1][0] == 120
    assert chart.summary == "800 items in the last 2 min, at most 8 a second."


@pytest.mark.parametrize(("age", "span"), [(1, 120), (120, 120), (121, 300), (301, 600), (5000, 600)])
def test_a_chart_is_as_long_as_what_there_is_to_show(age: int, span: int) -> None:
    samples = [sample(ago) for ago in range(age, -1, -1)]
    assert charts(samples, NOW)[0].span == span


def test_nothing_is_drawn_where_nothing_was_measured() -> None:
    samples = [sample(ago) for ago in range(110, -1, -1) if not 40 < ago < 70]
    assert charts(samples, NOW)[0].lines[0][1].count("M") == 2


def test_requests_under_way_are_drawn_below_what_is_allowed() -> None:
    chart = charts([sample(ago, in_flight=3, gate=9) for ago in range(60, -1, -1)], NOW)[1]
    lines = {name: drawn(path) for name, path in chart.lines}
    assert all(below[1] > above[1] for below, above in zip(lines["main"], lines["bound"], strict=True))
    assert (chart.now, chart.unit) == ("3", "of 9 allowed")


def test_pauses_and_refusals_are_drawn_and_told() -> None:
    samples = [
        sample(ago, paused=1.0 if 30 >= ago > 20 else 0.0, limited=0 if ago > 30 else 2) for ago in range(60, -1, -1)
    ]
    chart = charts(samples, NOW)[2]
    assert chart.bands == ((90.0, 10.0),)
    assert chart.marks == (90.0,)
    assert chart.summary == "2 requests refused, 10 s of pauses in the last 1 min."


def test_a_pause_that_lasts_reaches_to_now() -> None:
    chart = charts([sample(ago, paused=5.0) for ago in range(10, -1, -1)], NOW)[2]
    assert chart.bands == ((110.0, 10.0),)


def test_no_bound_of_the_pace_is_said_not_drawn() -> None:
    chart = charts([sample(1, pace=0.0), sample(0, pace=0.0)], NOW)[2]
    assert (chart.now, chart.unit, chart.lines[0][1]) == ("no bound", "", "")


@given(st.lists(st.tuples(st.floats(0, 700), st.floats(0, 1e6), st.integers(0, 500), st.booleans()), max_size=60))
def test_nothing_is_drawn_outside_of_a_chart(measured: list[tuple[float, float, int, bool]]) -> None:
    samples = [
        sample(ago, rate=rate, pace=rate, in_flight=number, gate=number, paused=float(paused))
        for ago, rate, number, paused in sorted(measured, reverse=True)
    ]
    for chart in charts(samples, NOW):
        assert chart.span in SPANS
        for x, y in _points_of(chart):
            assert 0 <= x <= chart.span
            assert 0 <= y <= 100
        assert all(x >= 0 and width >= 0 and x + width <= chart.span + 0.2 for x, width in chart.bands)


def _points_of(chart: Chart) -> Iterator[tuple[float, float]]:
    for _, path in (*chart.lines, *chart.areas):
        yield from drawn(path)


def test_figures_have_as_many_digits_as_matter() -> None:
    assert [figure(each) for each in (0, 0.04, 0.44, 2, 2.04, 9.99, 12.6, 1234.5)] == [
        "0", "0", "0.4", "2", "2", "10", "13", "1,234",
    ]  # fmt: skip


# --- words ------------------------------------------------------------------------------------------

SOME = Backlog(2, 40, 14)


def stands(state: EngineState = EngineState(), backlog: Backlog = SOME, **how: Any) -> Standing:  # noqa: B008
    """How a service stands with that."""
    return standing(state, backlog, **{"draining": False, "rate": 0.0, "interval": 0.0, "now": NOW, **how})


def test_each_state_is_told_in_words() -> None:
    assert stands(backlog=Backlog(0, 0, 0)).title == "Idle"
    working = stands(rate=3.25)
    assert (working.title, working.sentence) == ("Working", "3.2 items/s. 40 ids to go in 2 jobs.")
    draining = stands(draining=True)
    assert (draining.title, draining.kind) == ("Draining", "draining")
    assert "kept" in draining.advice


def test_an_interval_tells_when_the_last_batch_begins() -> None:
    assert stands(interval=5.0).sentence.endswith("One batch begins every 5 s, the last in about 1 min 10 s.")


def test_a_pause_is_told_with_its_reason_and_its_end() -> None:
    held = Traffic(paused=42, reason="answered 429")
    found = stands(EngineState(paused=42, reason="answered 429", traffic=held))
    assert found.title == "Waiting for the API"
    assert re.match(r"It is left alone for another 42 s, until \d\d:\d\d:\d\d \w+: answered 429\.", found.sentence)
    probing = stands(EngineState(reason="answered 429", traffic=Traffic(reason="answered 429")))
    assert probing.sentence.startswith("One request shows whether the pause is over: answered 429.")


def test_an_outage_is_waited_for() -> None:
    trouble = "no good answer for 60 s (answered 503): run again later, it goes on where it was"
    found = stands(EngineState(trouble=trouble))
    assert found.title == "Waiting for the API"
    assert found.sentence.startswith("It does not answer well: no good answer for 60 s (answered 503). 40 ids")


def test_a_login_that_is_needed_is_stuck_and_says_what_to_do() -> None:
    found = stands(EngineState(trouble="the API refuses: set PP and ME", lasting=True))
    assert (found.title, found.kind) == ("Stuck", "stuck")
    assert "set PP and ME" in found.sentence
    assert ".env" in found.advice


def test_a_full_disk_is_no_fault_of_the_api() -> None:
    found = stands(EngineState(reason="disk nearly full: 3 MB left, 100 are kept free"))
    assert found.title == "Stuck"
    assert "disk nearly full" in found.sentence


def test_more_jobs_than_are_counted_are_more() -> None:
    assert "More than 10,000 jobs to go." in stands(backlog=Backlog(COUNTED + 1, 5, 5)).sentence


def job(**values: Any) -> Job:
    """A job of 10 ids in 4 batches."""
    usual = {"started_at": None, "finished_at": None, "ids": 10, "batches": 4, "waiting": 0, "triggered": 0}
    ends = {"stored": 0, "gone": 0, "failed": 0, "cancelled": 0}
    return Job(1, "0" * 8, "HIGH", NOW, **{**usual, **ends, **values})


@pytest.mark.parametrize(
    ("values", "word", "sentence", "done"),
    [
        ({"waiting": 4}, "waiting", "0 of 10 ids stored, 10 to go", 0),
        ({"waiting": 3, "triggered": 1, "started_at": NOW}, "under way", "0 of 10 ids stored, 10 to go", 0),
        (
            {"waiting": 3, "started_at": NOW, "stored": 3},
            "waits for its next batch",
            "3 of 10 ids stored, 7 to go",
            30,
        ),
        ({"finished_at": NOW, "stored": 9, "gone": 1}, "done", "9 of 10 ids stored, 1 gone", 100),
        (
            {"finished_at": NOW, "stored": 7, "failed": 2, "cancelled": 1},
            "ended with failures",
            "7 of 10 ids stored, 2 failed, 1 cancelled",
            100,
        ),
        ({"finished_at": NOW, "cancelled": 10}, "cancelled", "0 of 10 ids stored, 10 cancelled", 100),
    ],
)
def test_a_job_is_told_in_words(values: dict[str, Any], word: str, sentence: str, done: int) -> None:
    found = job(**values)
    assert (job_word(found), job_sentence(found), percent(found)) == (word, sentence, done)


def test_what_would_hide_or_turn_letters_is_shown_as_a_mark() -> None:
    assert plain("a\u202eb\x07c\nd\xa0e é") == "a\ufffdb\ufffdc d e é"


# --- over HTTP --------------------------------------------------------------------------------------


@pytest.fixture
def serve(db: Path, shared_simulator: Simulator) -> Iterator[Callable[..., Serving]]:
    """Starts a service, which ends with the test; batches are an hour apart unless `settings` say otherwise."""
    with ExitStack() as closing:
        yield lambda **settings: closing.enter_context(
            serving(shared_simulator, db, **{"ingest_batch_interval": 3600, **settings})
        )


def post(service: Serving, path: str, **fields: str) -> Reply:
    """Send a form."""
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    return service.ask("POST", path, urlencode(fields).encode(), form)


def test_a_form_is_answered_with_the_page_of_its_job(serve: Any, db: Path) -> None:
    service = serve()
    reply = post(service, "/jobs", ids="1-4", priority="HIGH", key="one")
    assert reply.status == 303
    assert service.get(reply.headers["Location"]).status == 200
    assert one(db, "SELECT priority FROM jobs") == 3


def test_a_form_that_is_sent_twice_is_stored_once(serve: Any, db: Path) -> None:
    service = serve()
    first, second = (post(service, "/jobs", ids="1-4", key="one") for _ in range(2))
    assert first.headers["Location"] == second.headers["Location"]
    assert one(db, "SELECT count(*) FROM jobs") == 1


def test_a_form_that_was_sent_and_changed_asks_first(serve: Any, db: Path) -> None:
    service = serve()
    post(service, "/jobs", ids="1-4", key="one")
    reply = post(service, "/jobs", ids="5 6", key="one")
    assert reply.status == 409
    text = reply.body.decode()
    assert "was submitted before, with other ids" in text
    (key,) = re.findall(r'name="key" value="([^"]+)"', text)
    assert post(service, "/jobs", ids="5 6", key=key).status == 303
    assert one(db, "SELECT count(*) FROM jobs") == 2


def test_each_form_has_a_name_of_its_own(serve: Any) -> None:
    service = serve()
    keys = {re.search(r'name="key" value="([^"]+)"', service.get("/").body.decode())[1] for _ in range(3)}  # type: ignore[index]
    assert len(keys) == 3


@pytest.mark.parametrize("body", [b"", b"ids=%zz&priority=HIGH", b"\xff\xfe", b"a=1&" * 50, b"ids=1&priority=ALL"])
def test_a_form_that_makes_no_sense_is_answered_with_what_is_wrong(serve: Any, db: Path, body: bytes) -> None:
    reply = serve().ask("POST", "/jobs", body, {"Content-Type": "application/x-www-form-urlencoded"})
    assert reply.status == 422
    assert b"Nothing was submitted" in reply.body
    assert one(db, "SELECT count(*) FROM jobs") == 0


def test_what_was_typed_comes_back_as_text(serve: Any) -> None:
    reply = post(serve(), "/jobs", ids='\n</textarea><script>"', priority="LOW", key='"><b>')
    text = reply.body.decode()
    assert reply.status == 422
    assert "\n\n&lt;/textarea&gt;&lt;script&gt;&#34;</textarea>" in text
    assert "<script>" not in text
    assert "<b>" not in text


def test_a_hundred_thousand_ids_fit_in_a_form(serve: Any, db: Path) -> None:
    ids = "\r\n".join(str(HIGHEST_ID - each) for each in range(MOST_IDS))
    assert post(serve(), "/jobs", ids=ids).status == 303
    assert one(db, "SELECT ids FROM jobs") == MOST_IDS


def test_pages_of_other_sites_submit_nothing(serve: Any, db: Path) -> None:
    foreign = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "cross-site"}
    assert serve().ask("POST", "/jobs", b"ids=1", foreign).status == 403
    assert one(db, "SELECT count(*) FROM jobs") == 0


def test_every_page_is_whole_and_strict(serve: Any) -> None:
    service = serve()
    job = service.submit(1, 2, 3, 4)
    for path in (
        "/",
        "/jobs",
        "/jobs?show=waiting&before=9",
        "/jobs?show=nonsense",
        f"/jobs/{job}",
        f"/jobs/{job}?after=0",
    ):
        reply = service.get(path)
        text = reply.body.decode()
        assert reply.status == 200, path
        assert reply.headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert reply.headers["Cache-Control"] == "no-store"
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|https?://", text), path
        assert '<html lang="en">' in text
        assert service.ask("HEAD", path).status == 200


def test_there_is_a_page_for_jobs_that_there_are_not(serve: Any) -> None:
    service = serve()
    for name in ("nonsense", "5d1f0f4e-6c0f-4bb4-9a57-0e3f6f0c2a11"):
        for reply in (
            service.get(f"/jobs/{name}"),
            post(service, f"/jobs/{name}/cancel"),
            service.get(f"/jobs/{name}/live"),
        ):
            assert reply.status == 404
            assert b"There is no such job" in reply.body


def test_a_long_job_is_shown_in_parts_beginning_with_what_is_under_way(serve: Any) -> None:
    service = serve(ingest_batch_size=1)
    job = service.submit(*range(1, 201))
    first = service.get(f"/jobs/{job}").body.decode()
    assert re.findall(r'id="batch-(\d+)"', first) == [str(each) for each in range(50)]
    (later,) = re.findall(r'href="([^"]+)">Later', first)
    second = service.get(later.replace("&amp;", "&")).body.decode()
    assert re.findall(r'id="batch-(\d+)"', second) == [str(each) for each in range(50, 100)]
    (earlier,) = re.findall(r'href="([^"]+)">Earlier', second)
    assert 'id="batch-0"' in service.get(earlier.replace("&amp;", "&")).body.decode()


def test_pages_are_no_part_of_the_api(serve: Any) -> None:
    assert not [
        path for path in serve().get("/openapi.json").json["paths"] if path.startswith(("/jobs", "/live", "/static"))
    ]


def test_what_comes_from_elsewhere_is_what_it_is_said_to_be() -> None:
    text = (STATIC / "README.md").read_text()
    for name, sum_ in re.findall(r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$", text, re.MULTILINE):
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == sum_
    assert (STATIC / "idiomorph.LICENSE.txt").exists()
