"""HTTP for one host: every request goes through the Governor, and every answer gets its outcome."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

import requests
from pydantic import SecretStr
from requests.adapters import BaseAdapter
from requests.hooks import dispatch_hook
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from fetcher.errors import ConfigurationError, RequestFailed, Stopped
from fetcher.governor import Governor
from fetcher.masking import NO_SECRETS, Mask
from fetcher.model import Outcome
from fetcher.rows import decode
from fetcher.stop import Stop
from fetcher.transport import Aborted, BodyTooLarge, LeanAdapter, StaleConnection

MOST_EVIDENCE = 64 * 1024
"""Bytes of a failed answer's body that are kept."""

MOST_REDIRECTS = 5

_COOKIE = re.compile(r"[!-:<-~]*\Z")
"""What a cookie's value may hold: printable ASCII without space and `;`, as browsers take it."""

T = TypeVar("T")

Parse = Callable[[bytes], Any]
"""What a caller can make of a body of the usual, good shape; None of any other."""

Judge = Callable[[int, Any], Outcome | tuple[Outcome, float] | None]
"""What a source makes of a JSON answer: (status, decoded body) → its outcome, or None to leave it to HTTP's rules.

Where the answer itself says after how many seconds to ask again, that comes with the outcome.
"""


AnswerJudge = Callable[[int, Mapping[str, str], Any], Outcome | tuple[Outcome, float] | None]
"""The same, where headers matter: (status, headers, decoded body, or NO_JSON) → outcome; it is asked first."""

NO_JSON = object()
"""What a body is taken for that is no JSON."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer: its decoded JSON, the body as it came, and the headers.

    `parsed` is what the caller's `parse` made of the body; `data` is None then. A secret of ours that came back is
    masked in `body`, which is evidence, and left as it is in `data`.
    """

    data: Any
    status: int
    body: bytes
    parsed: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def field(self, name: str, kind: type[T]) -> T:
        """That field of the JSON object. Raises RequestFailed (malformed) where it is missing or of another kind."""
        value = self.data.get(name) if isinstance(self.data, dict) else None
        if type(value) is not kind:
            raise self.malformed(f"no {kind.__name__} {name} in the answer")
        return value

    def malformed(self, message: str) -> RequestFailed:
        """The error for an answer that is not what the API promises; it keeps the body."""
        return RequestFailed(Outcome.MALFORMED, message, status=self.status, body=self.body[:MOST_EVIDENCE])


class Client:
    """Asks one host; safe to share between threads.

    Cookies and headers it is given are sent to that host alone, and those that are secret are masked in what is told of
    answers that give them back; cookies it is offered are not kept, since a mirror has
    no use for a server's state. Redirects to another host are not followed. `session` brings a caller's own adapters,
    proxies and TLS settings; without it the environment's proxies and certificates hold, as with `requests`.
    """

    def __init__(
        self,
        base_url: str,
        governor: Governor,
        stop: Stop,
        *,
        user_agent: str,
        timeout: float = 30.0,
        cookies: Mapping[str, SecretStr] | None = None,
        headers: Mapping[str, SecretStr | str] | None = None,
        judge: Judge | None = None,
        judge_answer: AnswerJudge | None = None,
        session: requests.Session | None = None,
    ) -> None:
        self._origin = _checked_origin(base_url)
        for name, secret in (cookies or {}).items():
            if not _COOKIE.match(secret.get_secret_value()):
                raise ConfigurationError(f"{name.upper()} holds characters that no cookie can have")
        if not (user_agent.isascii() and user_agent.isprintable()):
            raise ConfigurationError("USER_AGENT may hold printable ASCII characters only")
        self.base_url = base_url.rstrip("/")
        self.governor = governor
        self.stop = stop
        self._timeout = timeout
        self._first = False
        self._judge = judge
        self._judge_answer = judge_answer
        self._session = session or _lean_session()
        self._adapter: BaseAdapter = self._session.get_adapter(self.base_url)
        # Preparing a request and reading the environment cost more than the request itself: once is enough.
        try:
            self._template = self._session.prepare_request(
                requests.Request(
                    "GET",
                    self.base_url,
                    headers={
                        "User-Agent": user_agent,
                        "Accept": "application/json",
                        **{name: _plain(value) for name, value in (headers or {}).items()},
                    },
                    cookies={name: secret.get_secret_value() for name, secret in (cookies or {}).items()},
                )
            )
        except (requests.exceptions.RequestException, UnicodeError, ValueError) as error:
            raise ConfigurationError(f"no request can be made from these settings: {type(error).__name__}") from None
        given = [*(cookies or {}).values(), *(headers or {}).values()]
        self._mask = Mask(each for each in given if isinstance(each, SecretStr))
        self._sending: dict[str, Any] = {
            **self._session.merge_environment_settings(self.base_url, {}, False, None, None)
        }
        if isinstance(self._adapter, LeanAdapter):
            stop.on_set(self._adapter.abort)

    def get(self, path: str, params: Mapping[str, object], parse: Parse | None = None) -> Answer:
        """The good answer to a GET of `path` below the base URL.

        `parse` has the first look at the body of a 2xx JSON answer; where it makes nothing of it, the body is decoded.
        Raises RequestFailed with the outcome of any other answer, Stopped when the run is to end. One try: who calls
        decides about another.
        """
        return self._ask(f"{self.base_url}{path}?{_query(params)}", parse, None, None)

    def ask(
        self,
        url: str,
        parse: Parse | None = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The good answer to a GET of an address that the API itself has named, or to a POST of a JSON `body` there.

        It has to be on the host of the base URL, and is asked for at its scheme and port. Raises what `get` raises.
        """
        try:
            parts = urlsplit(urljoin(self.base_url + "/", url))
            if parts.hostname != self._origin[1]:
                raise RequestFailed(Outcome.MALFORMED, f"a link leads to another host: {parts.hostname}")
        except ValueError:
            raise RequestFailed(Outcome.MALFORMED, f"a link is no address: {url!r:.100}") from None
        base = urlsplit(self.base_url)
        return self._ask(parts._replace(scheme=base.scheme, netloc=base.netloc).geturl(), parse, body, headers)

    def _ask(self, url: str, parse: Parse | None, body: bytes | None, headers: Mapping[str, str] | None) -> Answer:
        for _ in range(MOST_REDIRECTS):
            result = self._once(url, parse, body, headers)
            if isinstance(result, Answer):
                return result
            url = result
        raise RequestFailed(Outcome.UNAVAILABLE, f"redirected more than {MOST_REDIRECTS} times")

    def going_first(self) -> Self:
        """This client, its requests going ahead of all that wait or are held back."""
        other = copy.copy(self)
        other._first = True
        return other

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _once(
        self, url: str, parse: Parse | None, body: bytes | None, headers: Mapping[str, str] | None
    ) -> Answer | str:
        """A good answer, or the address on the same host that it redirects to."""
        for fresh in (False, True):
            ticket = self.governor.enter(first=self._first)
            try:
                response = self._send(url, body, headers)
            except StaleConnection as error:
                # The server had closed an idle connection: nothing was lost, and nothing is wrong.
                if not fresh:
                    self.governor.abandon(ticket)
                    continue
                failed = RequestFailed(Outcome.UNAVAILABLE, str(error))
            except requests.exceptions.RequestException as error:
                if self.stop.is_set() or isinstance(error, Aborted):
                    self.governor.abandon(ticket)
                    raise Stopped("stopped in the middle of a request") from None
                failed = RequestFailed(_outcome_of_error(error), _one_line(error))
            except BaseException:
                self.governor.abandon(ticket)
                raise
            else:
                judged = self._judged(url, response, parse)
                if not isinstance(judged, RequestFailed):
                    self.governor.leave(ticket, Outcome.OK)
                    return judged
                failed = judged
            break
        failed.outcome = self.governor.leave(
            ticket, failed.outcome, status=failed.status, retry_after=failed.retry_after
        )
        raise failed

    def _judged(self, url: str, response: requests.Response, parse: Parse | None) -> Answer | RequestFailed | str:
        if response.status_code in (301, 302, 303, 307, 308) and "location" in response.headers:
            try:
                target = requests.compat.urljoin(url, response.headers["location"])
                origin = _origin(target)
                if origin == self._origin:
                    return target
            except ValueError:
                pass  # An address that is none is not followed either.
            else:
                judged = judge(response, self._judge, parse, self._judge_answer, self._mask)
                if isinstance(judged, RequestFailed) and origin[1]:
                    # Where to, but not with what: that may be anybody's secret.
                    port = "" if origin[2] is None else f":{origin[2]}"
                    judged.args = (f"{judged}: it leads to {origin[0]}://{ascii(origin[1])[1:-1]:.100}{port}",)
                return judged
        return judge(response, self._judge, parse, self._judge_answer, self._mask)

    def _send(self, url: str, body: bytes | None, headers: Mapping[str, str] | None) -> requests.Response:
        request = requests.PreparedRequest()
        request.method = "GET"
        request.url = url
        request.headers = self._template.headers
        if headers or body is not None:
            request.headers = request.headers.copy()
            request.headers.update(headers or {})
        if body is not None:
            request.method, request.body = "POST", body
            request.headers["Content-Type"] = "application/json"
            request.headers["Content-Length"] = str(len(body))
        request.hooks = self._template.hooks
        request._cookies = self._template._cookies  # type: ignore[attr-defined]
        response = self._adapter.send(request, timeout=self._timeout, **self._sending)
        response.content  # noqa: B018 - an adapter of the caller's may not have read it; here its errors are a request's
        if self._session.hooks["response"]:
            response = dispatch_hook("response", self._session.hooks, response)  # type: ignore[no-untyped-call]
        return response


def _plain(value: SecretStr | str) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _query(params: Mapping[str, object]) -> str:
    if all(type(value) is int for value in params.values()):
        return "&".join([f"{name}={value}" for name, value in params.items()])
    return urlencode(params)


def _lean_session() -> requests.Session:
    session = requests.Session()
    adapter = LeanAdapter()
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """What two addresses of one host share. Raises ValueError when `url` is no address."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _checked_origin(base_url: str) -> tuple[str, str | None, int | None]:
    try:
        origin, parts = _origin(base_url), urlsplit(base_url)
    except ValueError:
        origin, parts = ("", None, None), urlsplit("")
    if origin[0] not in ("http", "https") or not origin[1]:
        shown = base_url.rpartition("@")[2]
        raise ConfigurationError(f"API_BASE_URL is no http(s) address: {shown}")
    if parts.username or parts.password or parts.query or parts.fragment:
        # It is written into the database and shown, where no secret may go.
        raise ConfigurationError("API_BASE_URL may hold no user, password, query or fragment")
    return origin


def judge(
    response: requests.Response,
    of_source: Judge | None = None,
    parse: Parse | None = None,
    of_answer: AnswerJudge | None = None,
    mask: Mask = NO_SECRETS,
) -> Answer | RequestFailed:
    """What a complete response is worth: an Answer, or the failure it stands for.

    Status and content type are looked at first, then the body as JSON, then what the source makes of it. What is told
    of it goes through `mask`: some APIs give back what they were sent.
    """
    status, body = response.status_code, response.content
    told = mask.body(body)

    def failed(outcome: Outcome, message: str, seconds: float | None = None) -> RequestFailed:
        retry_after = parse_retry_after(response.headers.get("retry-after"))
        retry_after = seconds if retry_after is None else retry_after
        return RequestFailed(outcome, message, status=status, body=told[:MOST_EVIDENCE], retry_after=retry_after)

    data, flaw = None, None
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.endswith(("/json", "+json")):
        flaw = f"{kind or 'no content type'} instead of JSON"
    else:
        if parse is not None and 200 <= status < 300:
            parsed = parse(body)
            if parsed is not None:
                return Answer(None, status, told, parsed, response.headers)
        try:
            data = decode(body)
        except ValueError as error:
            flaw = f"no valid JSON ({error})"
    judged = of_answer(status, response.headers, data if flaw is None else NO_JSON) if of_answer is not None else None
    if judged is None and flaw is None and of_source is not None:
        judged = of_source(status, data)
    if judged is not None:
        outcome, seconds = judged if isinstance(judged, tuple) else (judged, None)
        if outcome is Outcome.OK:
            return Answer(data, status, told, headers=response.headers)
        if outcome is not None:
            return failed(outcome, f"answered {status}: {_error_named(data, mask)}", seconds)
    if 200 <= status < 300:
        if flaw is None:
            return Answer(data, status, told, headers=response.headers)
        return failed(Outcome.MALFORMED, f"answered {status} with {flaw}")
    named = f": {_error_named(data, mask)}" if flaw is None else ""
    return failed(_outcome_of_status(status, is_json=flaw is None), f"answered {status}{named}")


def _outcome_of_status(status: int, *, is_json: bool) -> Outcome:
    if status in (404, 410):
        return Outcome.GONE
    if status == 429:
        return Outcome.LIMITED
    if status == 401 or (status == 403 and is_json):
        return Outcome.DENIED
    if status == 403 or status == 408 or status >= 500 or status < 400:
        return Outcome.UNAVAILABLE
    return Outcome.MALFORMED


def _error_named(data: Any, mask: Mask) -> str:
    if isinstance(data, dict):
        for field in ("msg", "error", "description", "message", "detail"):
            if isinstance(data.get(field), str) and data[field]:
                return mask.text(ascii(data[field])[1:-1])[:200]
    return "no reason given"


def _outcome_of_error(error: requests.exceptions.RequestException) -> Outcome:
    broken = (requests.exceptions.ContentDecodingError, requests.exceptions.InvalidURL, BodyTooLarge)
    return Outcome.MALFORMED if isinstance(error, broken) else Outcome.UNAVAILABLE


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def parse_retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, None when it makes no sense.

    It is a number or a date (RFC 9110, section 10.2.3).
    """
    if value is None:
        return None
    try:
        return max(0.0, float(Retry(0).parse_retry_after(value)))
    except (InvalidHeader, ValueError, OverflowError):
        return None
