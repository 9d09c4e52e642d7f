"""What people see of the service, in a real browser: they submit, watch, see a failure, retry it, cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from fetcher.simulator import Answer, Simulator, World
from tests.browser import ELSEWHERE, MISSING, MUST, browsing
from tests.helpers import one, query
from tests.service import Serving, serving

pytestmark = pytest.mark.skipif(bool(MISSING) and not MUST, reason=MISSING)

SECONDS = 20
KEY = "a key that is long enough"
WORLD = World(seed=1, items=300)
IDS = WORLD.ids()[:12]

expect.set_options(timeout=1000 * SECONDS)


class Api:
    """A simulated API: details of `broken` ids are nonsense, and while it is `resting` it refuses all."""

    def __init__(self) -> None:
        self.broken: set[int] = set()
        self.resting = False

    def __call__(self, kind: str, key: int, attempt: int) -> Answer | None:
        if self.resting:
            return Answer(429, {"Retry-After": "1"})
        return Answer(200, body=b'{"tags": 1}') if kind == "info" and key in self.broken else None


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests; what it knows of a site it forgets after each."""
    assert not MISSING, MISSING
    with browsing() as opened:
        yield opened


@pytest.fixture
def api() -> Api:
    """How the API behaves; may be changed at any time."""
    return Api()


@pytest.fixture
def serve(db: Path, api: Api, simulate: Callable[..., Simulator]) -> Iterator[Callable[..., Serving]]:
    """Starts the service, which ends with the test: `serve(ingest_batch_interval=…)`."""
    with ExitStack() as closing:
        yield lambda **settings: closing.enter_context(
            serving(simulate(WORLD, faults=api), db, **{"max_retries": 0, **settings})
        )


@pytest.fixture
def window(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a window: `window(viewport=…)`. Fails when anything in it went wrong that its test did not expect."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_(*, expected: str = "", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 800}, **options})
        context.set_default_timeout(1000 * SECONDS)
        contexts.append(context)
        page = context.new_page()

        def complain(text: str) -> None:
            if not (expected and expected in text):
                complaints.append(text)

        page.on("console", lambda message: complain(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complain(str(error)))
        return page

    yield open_
    for each in contexts:
        each.close()
    assert not complaints


def submit(page: Page, url: str, ids: Sequence[int]) -> None:
    """Open the first page, and submit ids by its form."""
    page.goto(url)
    page.get_by_label("Ids", exact=True).fill(", ".join(map(str, ids)))
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Job")


def state(page: Page) -> Any:
    """Where a job's page says how it stands."""
    return page.locator("#job .state")


def updated(page: Page) -> None:
    """Wait until a job's page has been brought up to date: how long ago something was grows each second."""
    facts = "document.querySelector('#job .facts').textContent"
    page.wait_for_function(f"before => {facts} !== before", arg=page.evaluate(facts))


def test_ids_are_submitted_and_seen_to_complete_without_a_reload(serve: Any, window: Any, api: Api, db: Path) -> None:
    api.resting = True
    page = window()
    submit(page, serve().url, IDS)
    page.evaluate("window.isTheSame = true")
    expect(page.get_by_role("heading", name="Waiting for the API")).to_be_visible()
    expect(page.locator("#standing")).to_contain_text("429")
    expect(state(page)).to_contain_text("0 %")
    api.resting = False
    expect(state(page)).to_contain_text("Done")
    expect(state(page)).to_contain_text("100 %")
    expect(page.locator("#job .counts")).to_have_text("12 of 12 ids stored")
    expect(page).to_have_title("Done – job " + page.url.rsplit("/", 1)[1][:8] + " – fetcher")
    expect(page.get_by_role("status")).to_have_text("Job done")
    assert page.evaluate("window.isTheSame")
    assert one(db, "SELECT count(*) FROM items WHERE fetched_at IS NOT NULL") == 12


def test_the_first_page_follows_all_jobs_without_a_reload(serve: Any, window: Any) -> None:
    service = serve()
    page = window()
    page.goto(service.url)
    expect(page.get_by_role("heading", name="Idle")).to_be_visible()
    page.evaluate("window.isTheSame = true")
    job = service.submit(*IDS[:3], priority="HIGH")
    row = page.locator(f"#job-{job}")
    expect(row).to_contain_text("done")
    expect(row).to_contain_text("3 of 3 ids stored")
    expect(page.locator("#chart-throughput .summary")).to_contain_text("3 items in the last")
    assert page.evaluate("window.isTheSame")


def test_a_failure_is_seen_and_retried(serve: Any, window: Any, api: Api, db: Path) -> None:
    api.broken = {IDS[1]}
    page = window()
    submit(page, serve().url, IDS[:3])
    expect(state(page)).to_contain_text("Ended with failures")
    row = page.locator("#failures tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text(str(IDS[1]))
    expect(row).to_contain_text("malformed")
    api.broken.clear()
    page.get_by_role("button", name="Retry 1 failed id").click()
    expect(state(page)).to_contain_text("Done")
    expect(page.locator("#failures")).to_be_hidden()
    assert one(db, "SELECT count(*) FROM items WHERE fetched_at IS NOT NULL") == 3


def test_a_failure_is_retried_from_the_first_page(serve: Any, window: Any, api: Api) -> None:
    api.broken = {IDS[1]}
    service = serve()
    job = service.submit(*IDS[:3])
    page = window()
    page.goto(service.url)
    row = page.locator(f"#job-{job}")
    expect(row).to_contain_text("ended with failures")
    api.broken.clear()
    row.get_by_role("button").click()
    expect(row).to_contain_text("3 of 3 ids stored")
    expect(row.get_by_role("button")).to_have_count(0)


def test_what_waits_is_cancelled(serve: Any, window: Any, db: Path) -> None:
    page = window()
    submit(page, serve(ingest_batch_interval=3600).url, IDS)
    expect(page.locator("#job .counts")).to_contain_text("3 of 12 ids stored")
    page.get_by_text("Cancel what waits").click()
    page.get_by_role("button", name="Cancel them").click()
    expect(state(page)).to_contain_text("Cancelled")
    expect(page.locator("#job .counts")).to_have_text("3 of 12 ids stored, 9 cancelled")
    assert one(db, "SELECT count(*) FROM job_batches WHERE cancelled") == 3


def test_what_is_wrong_is_said_and_what_was_typed_is_kept(serve: Any, window: Any, db: Path) -> None:
    page = window(expected="422")
    page.goto(serve().url)
    page.get_by_label("Ids", exact=True).fill("1, 2\n3 oops")
    page.get_by_role("radio", name="Low").check()
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Line 2, character 3: “oops” is not an id.")
    ids = page.get_by_label("Ids", exact=True)
    expect(ids).to_have_value("1, 2\n3 oops")
    expect(ids).to_be_focused()
    expect(page.get_by_role("radio", name="Low")).to_be_checked()
    assert one(db, "SELECT count(*) FROM jobs") == 0
    ids.fill("1, 2\n3")
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.locator("#job")).to_contain_text("of 3 ids")
    assert query(db, "SELECT ids, priority FROM jobs") == [(3, 1)]


def test_two_clicks_and_a_reload_submit_once(
    serve: Any, window: Any, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    page = window()
    page.goto(service.url)
    submitting, clicked = service.service.submit, Event()

    def submit_slowly(*ids: Any, **options: Any) -> Any:
        assert clicked.wait(SECONDS)
        return submitting(*ids, **options)

    monkeypatch.setattr(service.service, "submit", submit_slowly)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    page.get_by_label("Ids", exact=True).fill("1-4")
    twice = """() => {
      const submit = document.querySelector("button.main");
      setTimeout(() => submit.click());
      setTimeout(() => { submit.click(); console.log("clicked twice"); }, 200);
    }"""
    with page.expect_console_message(lambda message: message.text == "clicked twice"):
        page.evaluate(twice)
    clicked.set()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Job")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Job")
    assert len(sent) == 1
    assert one(db, "SELECT count(*) FROM jobs") == 1


def test_going_back_and_submitting_other_ids_makes_another_job(serve: Any, window: Any, db: Path) -> None:
    page = window()
    service = serve()
    submit(page, service.url, IDS[:3])
    page.go_back()
    page.get_by_label("Ids", exact=True).fill(str(IDS[5]))
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.locator("#job .counts")).to_contain_text("of 1 id")
    assert one(db, "SELECT count(*) FROM jobs") == 2


def test_all_of_it_is_done_by_keyboard(serve: Any, window: Any, api: Api) -> None:
    api.broken = {IDS[0]}
    page = window()
    page.goto(serve().url)
    press = page.keyboard.press

    def tab_to(selector: str) -> None:
        for _ in range(20):
            press("Tab")
            focused = page.locator(":focus")
            shown = focused.evaluate(
                "it => getComputedStyle(it.matches('.choice input') ? it.nextElementSibling : it).outlineStyle"
            )
            assert shown != "none"
            if focused.evaluate("(it, selector) => it.matches(selector)", selector):
                return
        raise AssertionError(f"Tab does not lead to {selector}")

    press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    tab_to("textarea")
    page.keyboard.type(f"{IDS[0]} {IDS[1]}")
    tab_to("input[type=radio]")
    press("ArrowLeft")
    expect(page.get_by_role("radio", name="High")).to_be_checked()
    tab_to("button.main")
    press("Enter")
    expect(state(page)).to_contain_text("Ended with failures")
    api.broken.clear()
    tab_to("#job .act button")
    press("Enter")
    expect(state(page)).to_contain_text("Done")
    # The button is gone; the focus is still within what was looked at.
    assert page.evaluate("document.activeElement !== document.body")


def test_what_a_person_does_survives_updates(serve: Any, window: Any) -> None:
    service = serve(ingest_batch_interval=3600)
    page = window()
    page.goto(service.url)
    ids = page.get_by_label("Ids", exact=True)
    ids.fill("1, 2, 3")
    ids.evaluate("it => it.setSelectionRange(1, 4)")
    job = service.submit(*IDS)
    expect(page.locator(f"#job-{job}")).to_contain_text("3 of 12 ids stored")
    expect(ids).to_be_focused()
    assert ids.evaluate("it => [it.value, it.selectionStart, it.selectionEnd]") == ["1, 2, 3", 1, 4]

    page.set_viewport_size({"width": 1100, "height": 300})
    page.goto(f"{service.url}/jobs/{job}")
    page.locator("summary").click()
    page.locator("#job .counts").evaluate("it => getSelection().selectAllChildren(it)")
    page.evaluate("scrollTo(0, 120)")
    summary = page.locator("summary").element_handle()
    for _ in range(2):
        updated(page)
    assert page.locator("details").evaluate("it => it.open")
    assert page.evaluate("[String(getSelection()), scrollY]") == ["3 of 12 ids stored, 9 to go", 120]
    assert page.evaluate("it => it.isConnected && document.activeElement === it", summary)


def test_updates_can_be_paused(serve: Any, window: Any) -> None:
    service = serve()
    page = window()
    page.clock.install()
    page.goto(service.url)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("button", name="Pause updates").click()
    page.clock.run_for(60_000)
    assert len(asked) <= 1  # one may have been under way
    with page.expect_response("**/live"):
        page.get_by_role("button", name="go on").click()


def test_it_says_when_the_service_does_not_answer(serve: Any, window: Any) -> None:
    service = serve()
    page = window(expected="ERR_FAILED")
    page.goto(service.url)
    page.route("**/live", lambda route: route.abort())
    lost = page.locator("#lost")
    expect(lost).to_contain_text("The service does not answer. What is shown is how things stood at")
    page.unroute("**/live")
    expect(lost).to_be_hidden()
    expect(page.get_by_role("status")).to_have_text("The service answers again")


HOSTILE = "<img src=x onerror=alert(1)>" + "W" * 300 + "\u202e"


def _filled(serve: Any, api: Api) -> tuple[Serving, list[str]]:
    """A service that has something of everything, and the addresses of its pages."""
    api.broken = {IDS[0]}
    service: Serving = serve()
    failed = service.submit(*IDS[:3], 10**9, priority="LOW")
    service.completed(failed)
    with service.service._write, service.service._writer.transaction():
        service.service._writer.conn.execute("UPDATE job_failures SET message = ?", [HOSTILE])
    service.completed(service.submit(*IDS[3:6]))
    return service, ["/", f"/jobs/{failed}", "/jobs", "/jobs?show=failed", "/jobs/nonsense"]


def test_a_phone_needs_no_scrolling_sideways(serve: Any, window: Any, api: Api) -> None:
    service, addresses = _filled(serve, api)
    page = window(viewport={"width": 360, "height": 740}, expected="404")
    for address in addresses:
        page.goto(service.url + address)
        assert page.evaluate("document.documentElement.scrollWidth") == 360, address
        small = page.evaluate(
            "[...document.querySelectorAll('button, .choice label')].filter(it => it.checkVisibility()"
            " && it.getBoundingClientRect().height < 40).map(it => it.textContent)"
        )
        assert not small, (address, small)


CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const over = (colour, below) => {
    canvas.fillStyle = `rgb(${below})`; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map(each => (each /= 255, each <= .04045 ? each / 12.92 : ((each + .055) / 1.055) ** 2.4));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const below = (it) => it ? over(getComputedStyle(it).backgroundColor, below(it.parentElement)) : [255, 255, 255];
  const found = [];
  for (const it of document.querySelectorAll("body *")) {
    const text = [...it.childNodes].some(each => each.nodeType === 3 && each.data.trim());
    if (!text || !it.checkVisibility() || it.closest("svg, .unseen, .skip, script, noscript")) continue;
    const ground = below(it), ink = over(getComputedStyle(it).color, ground);
    const [a, b] = [light(ground), light(ink)].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) found.push([it.className || it.tagName, it.textContent.trim().slice(0, 30), ratio.toFixed(2)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_legible(serve: Any, window: Any, api: Api, scheme: str) -> None:
    service, addresses = _filled(serve, api)
    page = window(color_scheme=scheme, expected="404")
    for address in addresses:
        page.goto(service.url + address)
        assert page.evaluate(CONTRASTS) == [], address
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, paper[4:-1].split(","))) < 200) == (scheme == "dark")


def test_what_comes_from_elsewhere_is_text(serve: Any, window: Any, api: Api) -> None:
    service, addresses = _filled(serve, api)
    page = window()
    page.goto(service.url + addresses[1])
    expect(page.locator("#failures")).to_contain_text("<img src=x onerror=alert(1)>WWW")
    assert page.locator("#failures img").count() == 0
    updated(page)
    assert page.locator("#failures img").count() == 0


def test_nothing_is_fetched_from_elsewhere(serve: Any, window: Any, api: Api) -> None:
    service, addresses = _filled(serve, api)
    page = window(expected="404")
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    for address in addresses:
        page.goto(service.url + address)
    assert asked
    assert all(each.startswith(service.url + "/") for each in asked), asked


def test_all_of_it_works_without_javascript(serve: Any, window: Any, api: Api) -> None:
    api.broken = {IDS[1]}
    service = serve(ingest_batch_interval=0)
    page = window(java_script_enabled=False)
    submit(page, service.url, IDS[:3])
    service.completed(page.url.rsplit("/", 1)[1])
    page.get_by_role("link", name="Refresh").click()
    expect(state(page)).to_contain_text("Ended with failures")
    api.broken.clear()
    page.get_by_role("button", name="Retry 1 failed id").click()
    service.completed(page.url.rsplit("/", 1)[1])
    page.get_by_role("link", name="Refresh").click()
    expect(state(page)).to_contain_text("Done")
    expect(page.get_by_role("button", name="Pause updates")).to_be_hidden()


def test_it_is_cancelled_without_javascript(serve: Any, window: Any) -> None:
    page = window(java_script_enabled=False)
    submit(page, serve(ingest_batch_interval=3600).url, IDS)
    page.get_by_text("Cancel what waits").click()
    page.get_by_role("button", name="Cancel them").click()
    expect(page.locator("#job .counts")).to_contain_text("9 cancelled")


def test_a_browser_that_knows_a_key_sees_all(serve: Any, window: Any) -> None:
    service = serve(api_keys=KEY)
    assert service.get("/").status == 401
    assert service.get("/static/page.js").status == 401
    page = window(http_credentials={"username": "", "password": KEY})
    submit(page, service.url, IDS[:3])
    page.evaluate("window.isTheSame = true")
    expect(state(page)).to_contain_text("Done")
    updated(page)
    assert page.evaluate("window.isTheSame")


def test_forms_work_from_another_machine_without_tls(serve: Any, window: Any, api: Api) -> None:
    # There a browser sends no Sec-Fetch-Site, so that Origin has to tell where a form was.
    api.broken = {IDS[1]}
    service = serve(api_keys=KEY)
    page = window(http_credentials={"username": "", "password": KEY})
    submit(page, f"http://{ELSEWHERE}:{service.port}", IDS[:3])
    expect(state(page)).to_contain_text("Ended with failures")
    api.broken.clear()
    page.get_by_role("button", name="Retry 1 failed id").click()
    expect(state(page)).to_contain_text("Done")
