"""Every answer gets the outcome it deserves, and no request goes where it should not."""

from __future__ import annotations

import email.utils
import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from requests.adapters import BaseAdapter

from fetcher import limits as pacing
from fetcher.client import MOST_EVIDENCE, MOST_REDIRECTS, Answer, Client, judge, parse_retry_after
from fetcher.errors import ConfigurationError, RequestFailed, Stopped
from fetcher.governor import Governor, Ticket
from fetcher.model import Outcome
from fetcher.rows import Parser
from fetcher.simulator import Simulator
from fetcher.sources.pr0gramm import COMMENTS, TAGS, Pr0gramm
from fetcher.stop import Stop
from fetcher.transport import Aborted, BodyTooLarge, StaleConnection
from tests.fakes import FakeStop

DATA = Path(__file__).parent / "data" / "pr0gramm"
BASE = "http://api.test/api"
JSON, HTML = "application/json", "text/html; charset=utf-8"

PR0GRAMM = Pr0gramm(Pr0gramm.Options())
PARSER = Parser((TAGS, COMMENTS), absent=("error", "code"))


def response(status: int, kind: str | None, body: bytes, **headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made._content = body
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    if kind is not None:
        made.headers["Content-Type"] = kind
    return made


def recorded(name: str) -> bytes:
    return (DATA / name).read_bytes()


# What an answer is worth

OK, GONE, DENIED, LIMITED = Outcome.OK, Outcome.GONE, Outcome.DENIED, Outcome.LIMITED
UNAVAILABLE, MALFORMED = Outcome.UNAVAILABLE, Outcome.MALFORMED

GOOD = b'{"tags":[],"comments":[],"ts":1,"cache":null,"rt":1,"qc":2}'
LIMIT_BODY = "error_items_get_limitReached.constructed.json"
NOT_FOUND = "error_items_get_notFound.constructed.json"
LOGIN_NEEDED = "error_403_not_logged_in.constructed.json"
TOO_MANY_LOGINS = "error_429_login.constructed.json"
CLOUDFLARE = "error_403_cloudflare.constructed.html"
SIX_HOURS, COOL_DOWN, LONGEST_PAUSE = "21600", pacing.FIRST_COOL_DOWN, 300.0
ELSEWHERE = "http://elsewhere.test/api/items"


def says(status: int, body: bytes | str = GOOD, kind: str | None = JSON, **headers: str) -> requests.Response:
    """A complete answer; a body given as text is the name of a recorded one."""
    return response(status, kind, recorded(body) if isinstance(body, str) else body, **headers)


def html(status: int, body: bytes | str = b"<html>busy</html>", **headers: str) -> requests.Response:
    return says(status, body, HTML, **headers)


def limited_for_two_minutes() -> requests.Response:
    return html(429, Retry_After=email.utils.formatdate(time.time() + 120, usegmt=True))


OUTCOMES: dict[str, tuple[list[Any], Outcome, float]] = {
    # what the host does, what the last answer is worth, and for how many seconds all requests wait then
    "good": ([says(200)], OK, 0),
    "good, a list": ([says(200, b"[1]", "application/json; charset=utf-8")], OK, 0),
    "good, null, in capitals": ([says(200, b"null", "Application/JSON")], OK, 0),
    "good, another kind of JSON": ([says(200, b"{}", "application/geo+json")], OK, 0),
    "good, in part": ([says(206)], OK, 0),
    "good, recorded details": ([says(200, "items_info_2016.json")], OK, 0),
    "good, a recorded page": ([says(200, "items_get_promoted_2015.json")], OK, 0),
    "good, the newest shape": ([says(200, "items_get_2026_shape.constructed.json")], OK, 0),
    "good, nothing found": ([says(200, "error_items_get_nothingFound.constructed.json")], OK, 0),
    "good, the empty body of a recorded 429": ([says(200, "comments_vote_429_2017.json")], OK, 0),
    "good, after a redirect on the same host": ([html(302, b"", Location="/api/there"), says(200)], OK, 0),
    "good, after a connection closed while idle": ([StaleConnection("closed"), says(200)], OK, 0),
    # the API's own words
    "limitReached in a 200": ([says(200, LIMIT_BODY)], LIMITED, COOL_DOWN),
    "limitReached in a 400": ([says(400, LIMIT_BODY)], LIMITED, COOL_DOWN),
    "limitReached in a 403": ([says(403, LIMIT_BODY)], LIMITED, COOL_DOWN),
    "limitReached in a 404": ([says(404, LIMIT_BODY)], LIMITED, COOL_DOWN),
    "limitReached in a 503": ([says(503, LIMIT_BODY)], LIMITED, COOL_DOWN),
    "limitReached with a time": ([says(200, LIMIT_BODY, Retry_After="7")], LIMITED, 7),
    "limitReached, but no JSON": ([html(200, LIMIT_BODY)], MALFORMED, 0),
    "rateLimited in a 200": ([says(200, b'{"error":"rateLimited"}')], LIMITED, COOL_DOWN),
    "the code 429 in a 200": ([says(200, TOO_MANY_LOGINS)], LIMITED, COOL_DOWN),
    "the code 429 in a 403": ([says(403, b'{"error":"forbidden","code":429}')], LIMITED, COOL_DOWN),
    "notFound in a 200": ([says(200, NOT_FOUND)], GONE, 0),
    "notFound in a 404": ([says(404, NOT_FOUND)], GONE, 0),
    "notFound in a 500": ([says(500, NOT_FOUND)], UNAVAILABLE, 0),
    "nsfwRequired in a 200": ([says(200, "error_items_get_nsfwRequired.constructed.json")], DENIED, 0),
    "an unknown error in a 200": ([says(200, b'{"error":"x","items":[],"atEnd":true}')], MALFORMED, 0),
    # statuses
    "204": ([says(204, b"", None)], MALFORMED, 0),
    "304": ([says(304, b"", None)], UNAVAILABLE, 0),
    "400 JSON": ([says(400, b"{}")], MALFORMED, 0),
    "400 HTML": ([html(400)], MALFORMED, 0),
    "401 JSON": ([says(401, b"{}")], DENIED, 0),
    "401 HTML": ([html(401)], DENIED, 0),
    "403 JSON": ([says(403, LOGIN_NEEDED)], DENIED, 0),
    "403 HTML of the firewall": ([html(403, CLOUDFLARE)], UNAVAILABLE, 0),
    "403 JSON said to be HTML": ([html(403, LOGIN_NEEDED)], UNAVAILABLE, 0),
    "403 said to be JSON": ([says(403, b"no json")], UNAVAILABLE, 0),
    "404 JSON": ([says(404, b"{}")], GONE, 0),
    "404 HTML": ([html(404)], GONE, 0),
    "408": ([says(408, b"", None)], UNAVAILABLE, 0),
    "410": ([says(410, b"", None)], GONE, 0),
    "418": ([html(418)], MALFORMED, 0),
    "429": ([html(429)], LIMITED, COOL_DOWN),
    "429 JSON": ([says(429, "comments_vote_429_2017.json")], LIMITED, COOL_DOWN),
    "429 JSON with its code": ([says(429, TOO_MANY_LOGINS)], LIMITED, COOL_DOWN),
    "429 with seconds": ([html(429, Retry_After="7")], LIMITED, 7),
    "429 with a date": ([limited_for_two_minutes], LIMITED, 120),
    "429 with a date that is over": ([html(429, Retry_After="Thu, 01 Jan 1970 00:00:00 GMT")], LIMITED, COOL_DOWN),
    "429 with nonsense": ([html(429, Retry_After="unknown")], LIMITED, COOL_DOWN),
    "429 with six hours": ([html(429, Retry_After=SIX_HOURS)], LIMITED, LONGEST_PAUSE),
    "500 JSON": ([says(500, b"{}")], UNAVAILABLE, 0),
    "502 HTML": ([html(502)], UNAVAILABLE, 0),
    "503 alone": ([html(503)], UNAVAILABLE, 0),
    "503 with seconds": ([html(503, Retry_After="7")], LIMITED, 7),
    "503 with six hours": ([html(503, Retry_After=SIX_HOURS)], LIMITED, LONGEST_PAUSE),
    "503 with nonsense": ([html(503, Retry_After="unknown")], UNAVAILABLE, 0),
    "503 twice": ([html(503), html(503)], UNAVAILABLE, 0),
    "503 three times within 2 s": ([html(503), 1.0, html(503), 0.9, html(503)], LIMITED, COOL_DOWN),
    "503 three times, more than 2 s": ([html(503), 1.0, html(503), 1.1, html(503)], UNAVAILABLE, 0),
    "502 three times within 2 s": ([html(502), html(502), html(502)], UNAVAILABLE, 0),
    "504 HTML": ([html(504)], UNAVAILABLE, 0),
    "522 HTML": ([html(522)], UNAVAILABLE, 0),
    "599": ([says(599, b"", None)], UNAVAILABLE, 0),
    "a redirect to another host": ([html(302, Location=ELSEWHERE)], UNAVAILABLE, 0),
    "a redirect to nowhere": ([html(302)], UNAVAILABLE, 0),
    "a redirect to nonsense": ([html(302, Location="http://[")], UNAVAILABLE, 0),
    "redirects in a circle": ([html(307, Location="items") for _ in range(MOST_REDIRECTS)], UNAVAILABLE, 0),
    # bodies
    "200 HTML": ([html(200)], MALFORMED, 0),
    "200 JSON said to be HTML": ([html(200, GOOD)], MALFORMED, 0),
    "200 JSON said to be nothing": ([says(200, GOOD, None)], MALFORMED, 0),
    "200 JSON said to be empty": ([says(200, GOOD, "")], MALFORMED, 0),
    "200 JSON said to be a script": ([says(200, GOOD, "application/jsonp")], MALFORMED, 0),
    "200 empty": ([says(200, b"")], MALFORMED, 0),
    "200 truncated": ([says(200, GOOD[:-1])], MALFORMED, 0),
    "200 NaN": ([says(200, b"NaN")], MALFORMED, 0),
    "200 not UTF-8": ([says(200, b'{"tags":[],"comments":[],"cache":"\xff"}')], MALFORMED, 0),
    "200 too deep": ([says(200, b"[" * 100_000)], MALFORMED, 0),
    # what goes wrong on the way
    "connection refused": ([requests.exceptions.ConnectionError("refused")], UNAVAILABLE, 0),
    "connection closed while idle, twice": ([StaleConnection("closed"), StaleConnection("closed")], UNAVAILABLE, 0),
    "no connection in time": ([requests.exceptions.ConnectTimeout("slow")], UNAVAILABLE, 0),
    "no answer in time": ([requests.exceptions.ReadTimeout("slow")], UNAVAILABLE, 0),
    "the answer is cut": ([requests.exceptions.ChunkedEncodingError("cut")], UNAVAILABLE, 0),
    "a certificate not trusted": ([requests.exceptions.SSLError("self-signed")], UNAVAILABLE, 0),
    "broken compression": ([requests.exceptions.ContentDecodingError("not gzip")], MALFORMED, 0),
    "too large a body": ([BodyTooLarge("too large")], MALFORMED, 0),
    "a reason of two lines": ([requests.exceptions.ConnectionError("a\nb\r\n" + "x" * 1000)], UNAVAILABLE, 0),
    "no reason": ([requests.exceptions.ConnectionError()], UNAVAILABLE, 0),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_every_answer_has_its_outcome(case: str) -> None:
    steps, outcome, pause = OUTCOMES[case]
    said = [step() if callable(step) else step for step in steps]
    stop = FakeStop()
    governor = Governor(stop, parallel=1, max_pause=LONGEST_PAUSE)
    client, adapter = scripted(governor, *said, stop=stop, judge=PR0GRAMM.judge)
    failed = None
    while adapter.script:
        if isinstance(adapter.script[0], float):
            stop.wait(adapter.script.pop(0))
            continue
        try:
            result = client.get("/items", {}, PARSER.parse)
            failed = None
        except RequestFailed as error:
            failed = error
    assert (failed.outcome if failed else OK) is outcome
    assert governor.traffic().paused == pytest.approx(pause, abs=5 if pause == 120 else 1e-6)
    assert governor.traffic().limited == (outcome is LIMITED)
    last = said[-1]
    if failed is None:
        assert (result.status, result.body) == (last.status_code, last.content)
        return
    assert 0 < len(str(failed)) <= 300
    assert "\n" not in str(failed)
    if isinstance(last, requests.Response) and case != "redirects in a circle":
        assert (failed.status, failed.body) == (last.status_code, last.content[:MOST_EVIDENCE])
        assert str(last.status_code) in str(failed)
    else:
        assert (failed.status, failed.body) == (None, None)


def test_the_reason_that_the_api_names_is_shown_on_one_line() -> None:
    body = json.dumps({"error": "forbidden", "msg": "Not\nlogged in \ud800 ü"}).encode()
    result = judge(response(403, JSON, body))
    assert str(result) == r"answered 403: Not\nlogged in \ud800 \xfc"


def test_a_source_may_call_any_json_answer_good() -> None:
    assert isinstance(judge(response(404, JSON, b"{}"), lambda status, data: Outcome.OK), Answer)


def test_evidence_is_cut_at_64_kib() -> None:
    result = judge(response(500, HTML, b"x" * 100_000))
    assert isinstance(result, RequestFailed)
    assert result.body == b"x" * MOST_EVIDENCE == b"x" * 65_536


def test_a_body_with_a_lone_surrogate_is_a_good_answer() -> None:
    result = judge(response(200, JSON, rb'["\ud800"]'))
    assert isinstance(result, Answer)
    assert result.data == ["\ud800"]


def test_the_callers_parser_has_the_first_look_at_good_answers_only() -> None:
    assert judge(response(200, JSON, b"[1]"), None, len).parsed == 3
    left = judge(response(200, JSON, b"[1]"), None, lambda body: None)
    assert (left.data, left.parsed) == ([1], None)
    assert isinstance(judge(response(404, JSON, b"[1]"), None, len), RequestFailed)
    assert isinstance(judge(response(200, "text/html", b"[1]"), None, len), RequestFailed)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("17", 17),
        (" 17 ", 17),
        ("21600", 21_600),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("unknown", None),
        ("", None),
        (" ", None),
        ("nan", None),
        ("9" * 5000, None),
        ("１２", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thu, 99 Foo 1970 99:00:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


def test_retry_after_as_a_date_is_the_time_until_then() -> None:
    later = email.utils.formatdate(time.time() + 3600, usegmt=True)
    assert parse_retry_after(later) == pytest.approx(3600, abs=5)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30) | st.from_regex(r"\A\w{3}, \d{1,9} \w{3} \d{1,9} \d\d:\d\d:\d\d [\w+-]{0,6}\Z"))
def test_no_retry_after_breaks_anything(value: str) -> None:
    seconds = parse_retry_after(value)
    assert seconds is None or seconds >= 0


# Asking


class Tally(Governor):
    """A governor that remembers; what enters must come out."""

    def __init__(self) -> None:
        super().__init__(Stop(), parallel=1)
        self.left: list[tuple[Outcome, int | None, float | None]] = []
        self.abandoned = 0

    def leave(
        self, ticket: Ticket, outcome: Outcome, *, status: int | None = None, retry_after: float | None = None
    ) -> Outcome:
        self.left.append((outcome, status, retry_after))
        return super().leave(ticket, outcome, status=status, retry_after=retry_after)

    def abandon(self, ticket: Ticket) -> None:
        self.abandoned += 1
        super().abandon(ticket)

    @property
    def open(self) -> int:
        return self._limits.in_flight


@pytest.fixture
def governor() -> Iterator[Tally]:
    tally = Tally()
    yield tally
    assert tally.open == 0, "a request never came back from the governor"


@pytest.fixture
def mocked() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


def client_of(governor: Governor, **options: Any) -> Client:
    return Client(BASE, governor, options.pop("stop", Stop()), **{"user_agent": "tests/1 (+me)", **options})


def failure(client: Client, path: str = "/items") -> RequestFailed:
    with pytest.raises(RequestFailed) as failed:
        client.get(path, {})
    return failed.value


def test_a_good_answer_is_its_json(governor: Tally, mocked: responses.RequestsMock) -> None:
    mocked.get(f"{BASE}/items", json={"items": [1]}, match=[responses.matchers.query_param_matcher({"a": "1 &"})])
    answer = client_of(governor).get("/items", {"a": "1 &"})
    assert (answer.data, answer.status) == ({"items": [1]}, 200)
    assert governor.left == [(Outcome.OK, None, None)]


def test_a_bad_answer_says_all_there_is_to_know(governor: Tally, mocked: responses.RequestsMock) -> None:
    mocked.get(f"{BASE}/items", body=b"<html>busy" + b"." * 100_000, status=503, headers={"Retry-After": "7"})
    error = failure(client_of(governor))
    assert (error.status, error.retry_after) == (503, 7)
    assert error.body is not None
    assert (error.body[:10], len(error.body)) == (b"<html>busy", MOST_EVIDENCE)
    # It was unavailable, and the governor knows that such an answer refuses everybody.
    assert error.outcome is Outcome.LIMITED
    assert governor.left == [(Outcome.UNAVAILABLE, 503, 7)]


def test_the_sources_word_decides(governor: Tally, mocked: responses.RequestsMock) -> None:
    mocked.get(f"{BASE}/items", body=recorded("error_items_get_limitReached.constructed.json"), content_type=JSON)
    assert failure(client_of(governor, judge=PR0GRAMM.judge)).outcome is Outcome.LIMITED


def test_one_call_is_one_request_whatever_is_answered(governor: Tally, mocked: responses.RequestsMock) -> None:
    mocked.get(f"{BASE}/items", status=500)
    failure(client_of(governor))
    assert len(mocked.calls) == 1


def test_what_is_compressed_is_decompressed(governor: Tally, mocked: responses.RequestsMock) -> None:
    packed = gzip.compress(b'{"a": 1}')
    mocked.get(f"{BASE}/items", body=packed, headers={"Content-Encoding": "gzip"}, content_type=JSON)
    assert client_of(governor).get("/items", {}).data == {"a": 1}


def test_the_request_says_who_asks_and_what_it_wants(governor: Tally, mocked: responses.RequestsMock) -> None:
    mocked.get(f"{BASE}/items", json={})
    client_of(governor).get("/items", {})
    headers = mocked.calls[0].request.headers
    assert headers["User-Agent"] == "tests/1 (+me)"
    assert headers["Accept"] == JSON
    assert "Cookie" not in headers


COOKIES = {"me": SecretStr("%7Bsecret-me%7D"), "pp": SecretStr("secret-pp")}


def test_cookies_go_out_as_given_and_offered_ones_are_not_kept(governor: Tally, mocked: responses.RequestsMock) -> None:
    mocked.get(f"{BASE}/items", json={}, headers={"Set-Cookie": "me=other; path=/"})
    client = client_of(governor, cookies=COOKIES)
    for _ in range(2):
        client.get("/items", {})
    sent = [sorted(str(call.request.headers["Cookie"]).split("; ")) for call in mocked.calls]
    assert sent == [["me=%7Bsecret-me%7D", "pp=secret-pp"]] * 2


def test_no_cookie_is_in_an_error_or_an_address(governor: Tally, mocked: responses.RequestsMock) -> None:
    client = client_of(governor, cookies=COOKIES)
    mocked.get(f"{BASE}/refused", status=403, json={"error": "forbidden"})
    mocked.get(f"{BASE}/broken", body=requests.exceptions.ConnectionError("reset"))
    for path in ("/refused", "/broken"):
        error = failure(client, path)
        assert "secret" not in f"{error} {error!r} {error.__dict__} {error.__cause__!r}"
    assert all("secret" not in str(call.request.url) for call in mocked.calls)
    assert "secret" not in f"{client!r} {client.__dict__}"


@pytest.mark.parametrize("status", [200, 400, 403, 500])
def test_a_secret_that_an_answer_gives_back_is_not_told(
    governor: Tally, mocked: responses.RequestsMock, status: int
) -> None:
    headers = {"Authorization": SecretStr("Bearer s3cret/t0ken"), "Accept": "application/json"}
    client = client_of(governor, cookies=COOKIES, headers=headers)
    sent = "application/json, Bearer s3cret/t0ken, secret-pp"
    body = json.dumps({"message": f"who is s3cret/t0ken? {sent}"}).replace("who", r"s3cret\/t0ken s3cret%2Ft0ken")
    mocked.get(f"{BASE}/echo", status=status, body=body, content_type="application/json")
    if status == 200:
        answer = client.get("/echo", {})
        assert "s3cret/t0ken" in answer.data["message"]
        error = answer.malformed("not what it should be")
    else:
        error = failure(client, "/echo")
        assert str(error).endswith("… … is …? application/json, …, …")
    told = f"{error} {(error.body or b'').decode()}"
    assert "t0ken" not in told
    assert "secret-pp" not in told
    assert "application/json" in told


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", [f"{BASE}/there?x=1", "/api/there?x=1", "there?x=1"])
def test_a_redirect_on_the_same_host_is_followed_with_cookies(
    governor: Tally, mocked: responses.RequestsMock, status: int, location: str
) -> None:
    mocked.get(f"{BASE}/items", status=status, headers={"Location": location})
    mocked.get(f"{BASE}/there", json=[2])
    assert client_of(governor, cookies=COOKIES).get("/items", {}).data == [2]
    assert [call.request.headers["Cookie"] for call in mocked.calls] == [mocked.calls[0].request.headers["Cookie"]] * 2
    assert governor.traffic().requests == 2


@pytest.mark.parametrize(
    ("location", "where"),
    [
        ("http://elsewhere.test/api/there?key=x", ": it leads to http://elsewhere.test"),
        ("//elsewhere.test/api/there", ": it leads to http://elsewhere.test"),
        ("https://api.test/api/there", ": it leads to https://api.test"),
        ("http://api.test:8080/api/there", ": it leads to http://api.test:8080"),
        ("http://api.test@elsewhere.test/", ": it leads to http://elsewhere.test"),
        ("file:///etc/hostname", ""),
    ],
)
def test_a_redirect_to_another_host_is_not_followed(
    governor: Tally, mocked: responses.RequestsMock, location: str, where: str
) -> None:
    mocked.get(f"{BASE}/items", status=302, headers={"Location": location})
    error = failure(client_of(governor, cookies=COOKIES))
    assert (error.outcome, error.status, str(error)) == (Outcome.UNAVAILABLE, 302, f"answered 302{where}")
    assert len(mocked.calls) == 1


@pytest.mark.parametrize("location", ["http://[", "http://api.test:99999/", "http://api.test:port/"])
def test_a_redirect_to_nonsense_is_a_failure_of_its_item_only(mocked: responses.RequestsMock, location: str) -> None:
    governor = Tally()
    mocked.get(f"{BASE}/items", status=302, headers={"Location": location})
    assert failure(client_of(governor)).status == 302
    assert governor.open == 0


def test_redirects_in_a_circle_end(governor: Tally, mocked: responses.RequestsMock) -> None:
    mocked.get(f"{BASE}/items", status=302, headers={"Location": "items"})
    assert failure(client_of(governor)).outcome is Outcome.UNAVAILABLE
    assert len(mocked.calls) <= 10


# What goes wrong on the way


class Scripted(BaseAdapter):
    """Answers with what it is given, one after the other."""

    def __init__(self, *script: requests.Response | Exception | Callable[[], Exception]) -> None:
        super().__init__()
        self.script = list(script)
        self.sent = 0

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        self.sent += 1
        each = self.script.pop(0)
        if callable(each) and not isinstance(each, requests.Response):
            each = each()
        if isinstance(each, BaseException):
            raise each
        return each

    def close(self) -> None:
        pass


def scripted(governor: Governor, *script: Any, **options: Any) -> tuple[Client, Scripted]:
    adapter, session = Scripted(*script), requests.Session()
    session.mount(BASE, adapter)
    return client_of(governor, session=session, **options), adapter


def test_a_connection_that_was_closed_while_idle_is_replaced_once(governor: Tally) -> None:
    client, adapter = scripted(governor, StaleConnection("closed"), says(200, b"{}"))
    assert client.get("/items", {}).data == {}
    assert adapter.sent == 2
    # Both passed the governor, for both reached the host.
    assert governor.traffic().requests == 2
    assert (governor.abandoned, governor.left) == (1, [(Outcome.OK, None, None)])


def test_twice_is_a_failure(governor: Tally) -> None:
    client, adapter = scripted(governor, StaleConnection("closed"), StaleConnection("closed"), says(200, b"{}"))
    assert failure(client).outcome is Outcome.UNAVAILABLE
    assert adapter.sent == 2


def test_an_aborted_transfer_is_no_failure_of_the_item(governor: Tally) -> None:
    client, _ = scripted(governor, Aborted("aborted"))
    with pytest.raises(Stopped):
        client.get("/items", {})
    assert (governor.abandoned, governor.left) == (1, [])


def test_whatever_breaks_after_stop_is_the_stop(governor: Tally) -> None:
    stop = Stop()

    def cut() -> Exception:
        stop.set()
        return requests.exceptions.ConnectionError("cut")

    client, _ = scripted(governor, cut, stop=stop)
    with pytest.raises(Stopped):
        client.get("/items", {})


def test_an_error_of_ours_leaves_the_governor_free(governor: Tally) -> None:
    client, _ = scripted(governor, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        client.get("/items", {})


def test_a_users_hooks_see_each_response(governor: Tally) -> None:
    seen: list[int] = []
    session = requests.Session()
    session.hooks["response"].append(lambda response, **_: seen.append(response.status_code))
    session.mount(BASE, Scripted(response(404, JSON, b"{}")))
    failure(client_of(governor, session=session))
    assert seen == [404]


@pytest.mark.parametrize("address", ["", "api.test", "ftp://api.test/", "http://", "http:///path", "file:///etc"])
def test_what_is_no_web_address_is_a_wrong_setting(governor: Tally, address: str) -> None:
    with pytest.raises(ConfigurationError, match="API_BASE_URL"):
        Client(address, governor, Stop(), user_agent="tests")


@pytest.mark.parametrize("address", ["http://[", "http://api.test:99999", "http://api.test:port"])
def test_an_address_that_cannot_be_parsed_is_a_wrong_setting(governor: Tally, address: str) -> None:
    with pytest.raises(ConfigurationError):
        Client(address, governor, Stop(), user_agent="tests")


@pytest.mark.parametrize(
    "address", ["http://me:secret@api.test", "http://secret@api.test", "http://api.test?key=secret"]
)
def test_an_address_holds_no_secret(governor: Tally, address: str) -> None:
    with pytest.raises(ConfigurationError, match="API_BASE_URL") as refused:
        Client(address, governor, Stop(), user_agent="tests")
    assert "secret" not in f"{refused.value!r}"


@pytest.mark.parametrize("name", ["two\nlines", " leading"])
def test_a_user_agent_that_cannot_be_sent_is_a_wrong_setting(governor: Tally, name: str) -> None:
    with pytest.raises(ConfigurationError):
        client_of(governor, user_agent=name)


@pytest.mark.parametrize("value", ["secret\nvalue", "secret\r\nX-Other: 1", "secret\u20ac", "secret\0"])
def test_a_cookie_that_cannot_be_sent_is_a_wrong_setting(governor: Tally, value: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        client_of(governor, cookies={"me": SecretStr(value)})
    assert "secret" not in f"{refused.value!r} {refused.value.__cause__!r}"


@pytest.mark.parametrize("value", ["secret\nvalue", "secret\r\nX-Other: 1", "secret\u20ac", "secret\0"])
def test_a_cookie_that_cannot_be_sent_is_not_shown(shared_simulator: Simulator, governor: Tally, value: str) -> None:
    with pytest.raises((ConfigurationError, RequestFailed)) as refused:
        Client(shared_simulator.url, governor, Stop(), user_agent="tests", cookies={"me": SecretStr(value)}).get(
            "/items/get", {}
        )
    error = refused.value
    assert "secret" not in f"{error} {error!r} {error.__dict__}"
