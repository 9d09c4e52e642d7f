"""The figures of the service in Prometheus' text format: of its engines, its jobs, and what it was asked."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

from fetcher.metrics import Exposition, Latency, exposed
from fetcher.model import Progress
from fetcher.service.guard import App, Message, Receive, Scope, Send
from fetcher.service.service import Service

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Figures:
    """Counts what is asked, and tells all figures."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._asked: Counter[tuple[str, str, int]] = Counter()
        self._latency = Latency()

    def counting(self, app: App) -> App:
        """The same application, each of its answers counted; streams by the time to their first byte."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            began = time.perf_counter()

            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start":
                    # By the pattern of the address: there is no end of ids, nor of methods that can be made up.
                    route = scope.get("route")
                    method = scope["method"] if scope["method"] in _METHODS else "other"
                    self._add(method, getattr(route, "path", "other"), message["status"], began)
                await send(message)

            await app(scope, receive, sent if scope["type"] == "http" else send)

        return counted

    def text(self) -> str:
        """All of them. Raises StoreError."""
        service = self._service
        return exposed(_progress(service), service.source) + "".join(f"{line}\n" for line in self._own())

    def _own(self) -> Iterator[str]:
        to = Exposition(self._service.source)
        totals = self._service.totals()
        state = self._service.state()
        plain = (
            ("items_stored", "items in the database", totals["items"]),
            ("items_fetched", "items with their details", totals["fetched"]),
            ("work_parked", "items that failed for good", totals["parked"]),
            ("batches_waiting", "batches that wait for their turn", totals["waiting_batches"]),
            ("up", "whether ids are worked off", 0 if state.trouble or self._service.draining else 1),
            ("started_seconds", "Unix time when the service began", self._service.started_at),
        )
        for name, meaning, value in plain:
            yield from to.metric(name, "gauge", meaning, {"": value})
        with self._lock:
            asked = {
                f'method="{method}",path="{path}",status="{status}"': count
                for (method, path, status), count in sorted(self._asked.items())
            }
            latencies = self._latency.so_far()
        yield from to.metric("http_requests_total", "counter", "what the service was asked", asked)
        yield from to.histogram("http_seconds", "how long the service took to answer", latencies)

    def _add(self, method: str, path: str, status: int, began: float) -> None:
        with self._lock:
            self._asked[method, path, status] += 1
            self._latency.add(time.perf_counter() - began)


def _progress(service: Service) -> Progress:
    """What the engines do, as one run would tell it."""
    state = service.state()
    work = service.totals()["work"]
    samples = service.samples()[-60:]
    return Progress(
        counts=state.counts,
        seconds=time.time() - service.started_at,
        queued=work,
        left=work,
        rate=sum(each.rate for each in samples) / len(samples) if samples else 0.0,
        eta=None,
        paused=state.paused,
        reason=state.reason,
        listing=False,
        traffic=state.traffic,
    )
