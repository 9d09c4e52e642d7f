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

from fetcher.client import MOST_EVIDENCE, Answer, Client, judge, parse_retry_after
from fetcher.errors import ConfigurationError, RequestFailed, Stopped
from fetcher.governor import Governor, Ticket
from fetcher.model import Outcome
from fetcher.simulator import Simulator
from fetcher.sources.pr0gramm import Pr0gramm
from fetcher.stop import Stop
from fetcher.transport import Aborted, BodyTooLarge, StaleConnection

DATA = Path(__file__).parent / "data" / "pr0gramm"
BASE = "http://api.test/api"
JSON, HTML = "application/json", "text/html; charset=utf-8"

PR0GRAMM = Pr0gramm(Pr0gramm.Options())


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


@pytest.mark.parametrize(
    ("status", "kind", "body", "outcome"),
    [
        (200, JSON, b"{}", Outcome.OK),
        (200, "application/json; charset=utf-8", b"[1]", Outcome.OK),
        (200, "Application/JSON", b"null", Outcome.OK),
        (200, "application/geo+json", b"{}", Outcome.OK),
        (206, JSON, b"{}", Outcome.OK),
        (200, HTML, b"{}", Outcome.MALFORMED),
        (200, None, b"{}", Outcome.MALFORMED),
        (200, "", b"{}", Outcome.MALFORMED),
        (200, "application/jsonp", b"{}", Outcome.MALFORMED),
        (200, JSON, b"", Outcome.MALFORMED),
        (200, JSON, b"{", Outcome.MALFORMED),
        (200, JSON, b"NaN", Outcome.MALFORMED),
        (200, JSON, b"\xff", Outcome.MALFORMED),
        (200, JSON, b"[" * 100_000, Outcome.MALFORMED),
        (204, None, b"", Outcome.MALFORMED),
        (302, HTML, b"", Outcome.UNAVAILABLE),
        (304, None, b"", Outcome.UNAVAILABLE),
        (400, JSON, b"{}", Outcome.MALFORMED),
        (401, HTML, b"", Outcome.DENIED),
        (401, JSON, b"{}", Outcome.DENIED),
        (403, JSON, b"{}", Outcome.DENIED),
        (403, JSON, b"no json", Outcome.UNAVAILABLE),
        (403, HTML, b"{}", Outcome.UNAVAILABLE),
        (404, JSON, b"{}", Outcome.GONE),
        (404, HTML, b"<html>", Outcome.GONE),
        (408, None, b"", Outcome.UNAVAILABLE),
        (410, None, b"", Outcome.GONE),
        (418, HTML, b"", Outcome.MALFORMED),
        (429, HTML, b"", Outcome.LIMITED),
        (429, JSON, b"{}", Outcome.LIMITED),
        (500, JSON, b"{}", Outcome.UNAVAILABLE),
        (502, HTML, b"", Outcome.UNAVAILABLE),
        (503, HTML, b"", Outcome.UNAVAILABLE),
        (522, HTML, b"", Outcome.UNAVAILABLE),
        (599, None, b"", Outcome.UNAVAILABLE),
    ],
)
def test_status_then_content_type_then_body_decide(status: int, kind: str, body: bytes, outcome: Outcome) -> None:
    result = judge(response(status, kind, body))
    if outcome is Outcome.OK:
        assert isinstance(result, Answer)
        assert (result.status, result.body) == (status, body)
    else:
        assert isinstance(result, RequestFailed)
        assert (result.outcome, result.status, result.body) == (outcome, status, body[:MOST_EVIDENCE])
        assert "\n" not in str(result)
        assert str(status) in str(result)


@pytest.mark.parametrize(
    ("name", "status", "outcome"),
    [
        ("items_info_2016.json", 200, Outcome.OK),
        ("items_get_promoted_2015.json", 200, Outcome.OK),
        ("items_get_2026_shape.constructed.json", 200, Outcome.OK),
        ("error_items_get_nothingFound.constructed.json", 200, Outcome.OK),
        ("error_items_get_limitReached.constructed.json", 200, Outcome.LIMITED),
        ("error_items_get_limitReached.constructed.json", 400, Outcome.LIMITED),
        ("error_items_get_limitReached.constructed.json", 403, Outcome.LIMITED),
        ("error_items_get_notFound.constructed.json", 200, Outcome.GONE),
        ("error_items_get_notFound.constructed.json", 404, Outcome.GONE),
        ("error_items_get_notFound.constructed.json", 500, Outcome.UNAVAILABLE),
        ("error_items_get_nsfwRequired.constructed.json", 200, Outcome.DENIED),
        ("error_403_not_logged_in.constructed.json", 403, Outcome.DENIED),
        ("error_429_login.constructed.json", 429, Outcome.LIMITED),
        ("error_429_login.constructed.json", 200, Outcome.LIMITED),
        ("comments_vote_429_2017.json", 429, Outcome.LIMITED),
        ("comments_vote_429_2017.json", 200, Outcome.OK),
    ],
)
def test_the_apis_own_bodies_mean_what_the_source_says(name: str, status: int, outcome: Outcome) -> None:
    result = judge(response(status, JSON, recorded(name)), PR0GRAMM.judge)
    assert (Outcome.OK if isinstance(result, Answer) else result.outcome) is outcome


def test_the_firewalls_html_is_no_refused_login() -> None:
    result = judge(response(403, HTML, recorded("error_403_cloudflare.constructed.html")), PR0GRAMM.judge)
    assert isinstance(result, RequestFailed)
    assert result.outcome is Outcome.UNAVAILABLE


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
        return self._in_flight


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
    "location",
    [
        "http://elsewhere.test/api/there",
        "//elsewhere.test/api/there",
        "https://api.test/api/there",
        "http://api.test:8080/api/there",
        "http://api.test@elsewhere.test/",
        "file:///etc/hostname",
    ],
)
def test_a_redirect_to_another_host_is_not_followed(
    governor: Tally, mocked: responses.RequestsMock, location: str
) -> None:
    mocked.get(f"{BASE}/items", status=302, headers={"Location": location})
    error = failure(client_of(governor, cookies=COOKIES))
    assert (error.outcome, error.status) == (Outcome.UNAVAILABLE, 302)
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


OK = response(200, JSON, b"{}")


def test_a_connection_that_was_closed_while_idle_is_replaced_once(governor: Tally) -> None:
    client, adapter = scripted(governor, StaleConnection("closed"), OK)
    assert client.get("/items", {}).data == {}
    assert adapter.sent == 2
    # Both passed the governor, for both reached the host.
    assert governor.traffic().requests == 2
    assert (governor.abandoned, governor.left) == (1, [(Outcome.OK, None, None)])


def test_twice_is_a_failure(governor: Tally) -> None:
    client, adapter = scripted(governor, StaleConnection("closed"), StaleConnection("closed"), OK)
    assert failure(client).outcome is Outcome.UNAVAILABLE
    assert adapter.sent == 2


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (requests.exceptions.ConnectionError("refused"), Outcome.UNAVAILABLE),
        (requests.exceptions.ConnectTimeout("slow"), Outcome.UNAVAILABLE),
        (requests.exceptions.ReadTimeout("slow"), Outcome.UNAVAILABLE),
        (requests.exceptions.ChunkedEncodingError("cut"), Outcome.UNAVAILABLE),
        (requests.exceptions.SSLError("self-signed"), Outcome.UNAVAILABLE),
        (requests.exceptions.ContentDecodingError("not gzip"), Outcome.MALFORMED),
        (BodyTooLarge("too large"), Outcome.MALFORMED),
        (requests.exceptions.ConnectionError("two\nlines\r\n" + "x" * 1000), Outcome.UNAVAILABLE),
        (requests.exceptions.ConnectionError(), Outcome.UNAVAILABLE),
    ],
)
def test_an_error_on_the_way_has_no_status_and_one_line(governor: Tally, error: Exception, outcome: Outcome) -> None:
    client, _ = scripted(governor, error)
    failed = failure(client)
    assert (failed.outcome, failed.status, failed.body) == (outcome, None, None)
    assert 0 < len(str(failed)) <= 300
    assert "\n" not in str(failed)


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
