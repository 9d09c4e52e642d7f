"""What a run is doing, in figures: a file that Prometheus' node exporter collects (its textfile collector)."""

from __future__ import annotations

import logging
import os
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path

from fetcher.model import LATENCY_BOUNDS, Latencies, Progress

log = logging.getLogger("fetcher")

WRITE_SECONDS = 10.0
"""The file is written so often at most; collectors look every 15 s or less often."""

QUANTILES = (0.5, 0.9, 0.99)


class Latency:
    """How long requests took; not for several threads at once."""

    def __init__(self) -> None:
        self._counts = [0] * (len(LATENCY_BOUNDS) + 1)
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        """One more request has ended."""
        self._counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        self._seconds += seconds

    def so_far(self) -> Latencies:
        """What there is by now."""
        return Latencies(tuple(self._counts), self._seconds)


def quantile(latencies: Latencies, share: float) -> float | None:
    """The latency that this share of the requests did not exceed, in seconds; None before any request.

    Within a bucket requests are taken as evenly spread, as Prometheus' histogram_quantile does.
    """
    total = sum(latencies.counts)
    if not total:
        return None
    wanted, before, lower = share * total, 0, 0.0
    for upper, count in zip(LATENCY_BOUNDS, latencies.counts, strict=False):
        if count and before + count >= wanted:
            return lower + (upper - lower) * (wanted - before) / count
        before, lower = before + count, upper
    return lower


class MetricsFile:
    """Writes the state of a run into a file, as a whole or not at all; an error is told once and stops no run."""

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._source = source
        self._wrote_at: float | None = None
        self._told = False

    def write(self, progress: Progress, *, now: bool = False) -> None:
        """Write it, unless that was done just before."""
        at = time.monotonic()
        if not now and self._wrote_at is not None and at - self._wrote_at < WRITE_SECONDS:
            return
        self._wrote_at = at
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            beside.write_text(exposed(progress, self._source), encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            if not self._told:
                self._told = True
                log.warning(
                    "%s cannot be written: %s; going on without metrics", self._path, os.strerror(error.errno or 0)
                )


def exposed(progress: Progress, source: str) -> str:
    """The state of a run in Prometheus' text format."""
    return "".join(f"{line}\n" for line in _lines(progress, Exposition(source)))


class Exposition:
    """Lines of Prometheus' text format, about one source."""

    def __init__(self, source: str) -> None:
        self._labels = f'source="{source}"'

    def metric(self, name: str, kind: str, meaning: str, values: Mapping[str, float]) -> Iterator[str]:
        """One metric; `values` are by their further labels, as these are written."""
        yield f"# HELP fetcher_{name} {meaning}"
        yield f"# TYPE fetcher_{name} {kind}"
        for label, value in values.items():
            labels = f"{self._labels},{label}" if label else self._labels
            yield f"fetcher_{name}{{{labels}}} {value:.10g}"

    def histogram(self, name: str, meaning: str, latencies: Latencies) -> Iterator[str]:
        """How many took how long."""
        name = f"fetcher_{name}"
        yield f"# HELP {name} {meaning}"
        yield f"# TYPE {name} histogram"
        total = 0
        for bound, count in zip((*(f"{each:g}" for each in LATENCY_BOUNDS), "+Inf"), latencies.counts, strict=True):
            total += count
            yield f'{name}_bucket{{{self._labels},le="{bound}"}} {total}'
        yield f"{name}_sum{{{self._labels}}} {latencies.seconds:.6f}"
        yield f"{name}_count{{{self._labels}}} {total}"


def _lines(progress: Progress, to: Exposition) -> Iterator[str]:
    traffic, counts = progress.traffic, progress.counts
    yield from to.metric(
        "requests_total",
        "counter",
        "requests that have ended, by outcome",
        {f'outcome="{outcome}"': count for outcome, count in sorted(traffic.outcomes.items())},
    )
    yield from to.histogram(
        "request_seconds", "how long requests took, from their permission to the end of their answer", traffic.latencies
    )
    quantiles = {f'quantile="{share}"': quantile(traffic.latencies, share) for share in QUANTILES}
    found = {label: value for label, value in quantiles.items() if value is not None}
    yield from to.metric("request_quantile_seconds", "gauge", "the same as quantiles of the whole run", found)
    yield from to.metric(
        "items_total",
        "counter",
        "items done in this run, by how",
        {
            'how="stored"': counts.stored,
            'how="gone"': counts.gone,
            'how="failed"': counts.failed,
        },
    )
    plain: tuple[tuple[str, str, str, float | None], ...] = (
        ("listed_total", "counter", "items that list pages named", counts.listed),
        ("pages_total", "counter", "list pages", counts.pages),
        ("rows_total", "counter", "rows written", counts.rows),
        ("retries_total", "counter", "requests tried again later", counts.retries),
        ("pauses_total", "counter", "pauses after refusals", traffic.pauses),
        ("paused_seconds_total", "counter", "seconds of these pauses", traffic.paused_seconds),
        ("work_left", "gauge", "items still to fetch, an estimate while listing goes on", progress.left),
        ("work_queued", "gauge", "items queued", progress.queued),
        ("window", "gauge", "items asked for and not yet committed", progress.window),
        ("items_per_second", "gauge", "pace of about the last minute", progress.rate),
        ("eta_seconds", "gauge", "seconds until all is fetched", progress.eta),
        ("batch_seconds", "gauge", "seconds that the last commit took", progress.batch_seconds),
        ("pace", "gauge", "requests a second that are allowed now, 0 = any number", traffic.pace),
        ("gate", "gauge", "requests in flight that are allowed now", traffic.gate),
        ("in_flight", "gauge", "requests in flight", traffic.in_flight),
        ("paused_seconds", "gauge", "seconds that requests still wait", progress.paused),
        ("run_seconds", "gauge", "seconds since the run began", progress.seconds),
        ("updated_seconds", "gauge", "Unix time of these figures", time.time()),
    )
    for name, kind, meaning, value in plain:
        if value is not None:
            yield from to.metric(name, kind, meaning, {"": value})
