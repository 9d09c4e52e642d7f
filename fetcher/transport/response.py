"""The answer as a `requests.Response` that builds only what somebody looks at."""

from __future__ import annotations

import datetime
import io
from email.message import Message
from functools import cached_property
from typing import TYPE_CHECKING

import requests
from requests.cookies import RequestsCookieJar, extract_cookies_to_jar
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPHeaderDict
from urllib3.response import HTTPResponse

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter

    from fetcher.transport.http1 import ResponseReader


class LeanResponse(requests.Response):
    """A `requests.Response` whose body has been read; headers, cookies, `raw`, … are made at the first look.

    Making all of them costs more CPU than sending the request. Assigning to them works as always.
    """

    def __init__(
        self,
        request: requests.PreparedRequest,
        reader: ResponseReader,
        content: bytes,
        seconds: float,
        connection: HTTPAdapter,
    ) -> None:
        # Without super().__init__(), which makes a cookie jar and more: all it sets is set here or below.
        self._content = content
        self._content_consumed = True
        self._next = None
        self._fields = reader.fields
        self._seconds = seconds
        self.status_code = reader.status
        self.reason = reader.reason
        self.url = request.url  # type: ignore[assignment]
        self.request = request
        self.connection = connection
        if reader.sets_cookies:
            self.cookies  # noqa: B018 - now, for callers may give the request another URL afterwards.

    @cached_property
    def headers(self) -> CaseInsensitiveDict[str]:  # type: ignore[override]
        """The headers; one that was sent several times has its values joined by commas."""
        headers: CaseInsensitiveDict[str] = CaseInsensitiveDict((name, value) for name, value, _ in self._fields)
        if len(headers) < len(self._fields):
            headers.clear()
            for name, value, _ in self._fields:
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return headers

    @cached_property
    def encoding(self) -> str | None:  # type: ignore[override]
        """The character set that the headers name or imply."""
        return get_encoding_from_headers(self.headers)

    @cached_property
    def cookies(self) -> RequestsCookieJar:  # type: ignore[override]
        """The cookies that this answer set."""
        jar = RequestsCookieJar()
        extract_cookies_to_jar(jar, self.request, self.raw)  # type: ignore[no-untyped-call]
        return jar

    @cached_property
    def elapsed(self) -> datetime.timedelta:  # type: ignore[override]
        """From the start of the request to the end of the answer."""
        return datetime.timedelta(seconds=self._seconds)

    @cached_property
    def history(self) -> list[requests.Response]:  # type: ignore[override]
        """The redirects that led here; filled by the session."""
        return []

    @cached_property
    def raw(self) -> HTTPResponse:  # type: ignore[override]
        """urllib3's response with its body read, as after any other request that did not ask for a stream."""
        message = Message()
        for name, value, _ in self._fields:
            message[name] = value
        return HTTPResponse(
            body=io.BytesIO(),
            headers=HTTPHeaderDict((name, value) for name, value, _ in self._fields),
            status=self.status_code,
            reason=self.reason,
            version=11,
            version_string="HTTP/1.1",
            preload_content=False,
            decode_content=False,
            original_response=_Original(message),  # type: ignore[arg-type]
            request_method="GET",
            request_url=self.url,
        )


class _Original:
    """What `requests` and urllib3 want of http.client's response: `msg`, where the cookies are found."""

    def __init__(self, message: Message) -> None:
        self.msg = message

    def close(self) -> None:
        """Nothing is open."""

    def isclosed(self) -> bool:
        """Always."""
        return True
