"""What a simulated host answers: from one request to the bytes of a reply, true or wrong on purpose."""

from __future__ import annotations

import gzip as gziplib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable
from zlib import crc32

from fetcher.simulator.conditions import Conditions
from fetcher.simulator.faults import Answer, Faults
from fetcher.simulator.limiter import Allowance
from fetcher.simulator.profile import Profile, Share
from fetcher.simulator.wire import JSON, Body, Refused, Reply, Request, ending_of, final, headers_of, instead, render
from fetcher.simulator.world import mix

MAX_BODY = 1 << 20
"""Bytes of a request's body; a longer one is refused with 413."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request is about: its kind and key, how to answer it truly, and the login that came with it.

    `answer` takes whether the login counts and by how many items a listing is to be moved. It may raise Refused.
    """

    kind: str
    key: int
    answer: Callable[[bool, int], Body]
    login: tuple[str, str] | None = None


class Api(Protocol):
    """What one host's service is about: which requests there are, and the true answers to them."""

    prefix: str
    seed: int
    takes_bodies: bool
    mishaps: tuple[Share, ...]

    def read(self, request: Request) -> Asked:
        """What a request is about. Raises Refused when it is about nothing."""

    def malformed(self) -> bytes:
        """The body of the answer to what is no request."""


@runtime_checkable
class TellsLimits(Protocol):
    """An Api whose answers say how much may still be asked."""

    def limited(self, refusal: Answer, allowance: Allowance) -> Answer:
        """A refusal for asking too much, in this API's words."""

    def allowed(self, allowance: Allowance) -> Mapping[str, str]:
        """The headers of any other answer."""


class Service:
    """Turns a request into a reply; knows nothing of sockets, and of the API only how to ask it."""

    def __init__(
        self,
        api: Api,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        faults: Faults | None = None,
        conditions: Conditions | None = None,
        gzip: bool = False,
        record: bool = False,
    ) -> None:
        self.requests: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.log: list[tuple[float, str, int]] | None = [] if record else None
        self.in_flight = 0
        self.max_in_flight = 0
        self.prefix = api.prefix
        self._api = api
        self._tells = api if isinstance(api, TellsLimits) else None
        self._latency = latency
        self._jitter = jitter
        self._faults = faults
        self._conditions = conditions
        self._began = time.monotonic()
        self._asked = faults is not None or conditions is not None or jitter != 0
        self._gzip = gzip
        self._attempts: dict[str, dict[int, int]] = {}

    def body_size(self, head: bytes) -> int:
        """How many bytes of body follow this head; Refused when they are not wanted."""
        if not self._api.takes_bodies or not head.startswith(b"POST "):
            return 0
        try:
            headers = headers_of(head.partition(b"\r\n")[2])
        except ValueError:
            return 0
        if headers.chunked:
            raise Refused(411, b"", final=True)
        if headers.length > MAX_BODY:
            raise Refused(413, b"", final=True)
        return headers.length

    def reply(self, head: bytes, body: bytes = b"") -> Reply:
        """The reply to one request, given its head without the empty line, and its body."""
        line, _, block = head.partition(b"\r\n")
        try:
            method, target, version = line.decode("ascii").split(" ")
            headers = headers_of(block)
        except ValueError:
            return final(400, self._api.malformed())
        if not version.startswith("HTTP/1."):
            return final(505)
        old = version == "HTTP/1.0"
        close = headers.closing or (old and not headers.keeping)
        path, _, query = target.partition("?")
        try:
            asked = self._api.read(Request(method, path, query, headers, body))
        except Refused as refused:
            if refused.kind is not None:
                self.requests[refused.kind] += 1
            if refused.final:
                return final(refused.status, refused.body, _extra(refused))
            return Reply(
                render(refused.status, refused.body, _extra(refused), close=close, keep=old and not close),
                self._latency,
                ending_of(close),
            )

        self.requests[asked.kind] += 1
        delay = self._latency
        fault = None
        if self.log is not None:
            self.log.append((time.monotonic(), asked.kind, asked.key))
        logged_in = asked.login is not None
        if self._asked:
            fault, delay, logged_in = self._ask(asked)
            if fault is not None and (fault.status is not None or fault.raw is not None):
                return instead(fault, delay, close)
        try:
            true = asked.answer(logged_in, fault.shift if fault is not None else 0)
        except Refused as refused:
            true = Body(refused.body, refused.type or JSON, refused.status)
        extra = None if true.type == JSON and not true.headers else {"Content-Type": true.type, **true.headers}
        if self._tells is not None and self._conditions is not None:
            allowance = self._conditions.allowance(self.now())
            if allowance is not None:
                extra = {**(extra or {}), **self._tells.allowed(allowance)}
        if fault is not None and fault.is_wrong:
            wrong = fault.edit(true.data) if fault.edit else true.data
            named = {**(extra or {}), **fault.headers}
            return instead(replace(fault, status=true.status, body=wrong, headers=named), delay, close)
        data = true.data
        if self._gzip and headers.gzip:
            data = gziplib.compress(data, 1)
            extra = {**(extra or {}), "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return Reply(render(true.status, data, extra, close=close, keep=old), delay, ending_of(close))

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def begin_outage(self, seconds: float, how: str) -> None:
        """Befall all requests of the next `seconds` with a mishap."""
        if self._conditions is None:
            self._conditions = Conditions(Profile())
            self._asked = True
        self._conditions.begin_outage(self.now(), seconds, how)

    def _ask(self, asked: Asked) -> tuple[Answer | None, float, bool]:
        """The one place where things go wrong: what to answer instead, after how long, and whether the login counts."""
        kind, key, login = asked.kind, asked.key, asked.login
        conditions = self._conditions
        delay = self._latency
        fault = None
        if conditions is not None:
            now = self.now()
            logged_in = login is not None and conditions.logged_in(now, *login)
            delay *= conditions.slowdown(self.in_flight)
            fault = conditions.turned_away(now, self.in_flight)
            if fault is not None:
                self.wrong[fault.name] += 1
                if self._tells is not None and fault.status == 429:
                    allowance = conditions.allowance(now)
                    fault = self._tells.limited(fault, allowance) if allowance is not None else fault
                return fault, delay + fault.delay, logged_in
        else:
            logged_in = login is not None
        # What was turned away is no attempt: else the faults of an item would depend on who came first.
        attempts = self._attempts.setdefault(kind, {})
        attempt = attempts[key] = attempts.get(key, 0) + 1
        if self._faults is not None:
            fault = self._faults(kind, key, attempt)
        if fault is None and conditions is not None:
            fault = conditions.profile.fault(kind, key, attempt)
        if self._jitter:
            share = mix(mix(self._api.seed ^ crc32(kind.encode())) ^ mix(key) ^ attempt) / 2**64
            delay = max(0.0, delay + self._jitter * (2 * share - 1))
        if fault is not None:
            self.wrong[fault.name or str(fault.status or "other")] += 1
            delay += fault.delay
        return fault, delay, logged_in


def _extra(refused: Refused) -> dict[str, str] | None:
    named = dict(refused.headers or {})
    if refused.type is not None:
        named["Content-Type"] = refused.type
    return named or None
