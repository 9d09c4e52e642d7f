"""The engines of the service: one asks for unknown items, one for details; begun again after an outage."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fetcher.engine import Engine
from fetcher.errors import ConfigurationError, Interrupted, LoginError, RemoteError, StoreError
from fetcher.governor import backoff
from fetcher.line import Line, Unlisted
from fetcher.mirror import Parts
from fetcher.model import Committed, Counts, Plan, Progress, Stage, Traffic
from fetcher.stop import Stop
from fetcher.stores.sqlite import SqliteStore

log = logging.getLogger("fetcher")

BATCH_SECONDS = 1.0
"""What has come is committed at latest after so long: whoever has submitted it waits for it."""

SAMPLE_SECONDS = 1.0
"""How often it is written down how things stand."""

SAMPLES = 600
"""So many of these are kept."""

LEAST_WAIT_SECONDS = 5.0
"""So long it is waited at least before engines that have given up begin again."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How things stood at one moment (Unix seconds): items stored by then, and what the governor allowed."""

    at: float
    stored: int
    rate: float
    pace: float
    gate: int
    in_flight: int
    paused: float
    limited: int


@dataclass(frozen=True, slots=True)
class EngineState:
    """Whether ids are worked off. `trouble` says why not, `lasting` that somebody has to do something about it.

    `paused` is for how many seconds the API is left alone, for `reason`.
    """

    counts: Counts = field(default_factory=Counts)
    traffic: Traffic = field(default_factory=Traffic)
    paused: float = 0.0
    reason: str = ""
    trouble: str = ""
    lasting: bool = False


class Engines:
    """Works off what is due, until the end; `run` does it, in a thread of its own.

    `make` puts a run's parts together. It is called anew after an outage and, as often, while a login is needed: then
    the settings are read again.
    """

    def __init__(
        self, make: Callable[[Stop], Parts], store: SqliteStore, stop: Stop, on_batch: Callable[[Committed], None]
    ) -> None:
        self._make = make
        self._stores = {"item": store.beside("item"), "detail": store.beside("detail")}
        self._stop = stop
        self._on_batch = on_batch
        self._lock = threading.Lock()
        self._line: Line | None = None
        # One call back for all runs: each has a Stop of its own, and there may be thousands of them.
        self._ending: Stop | None = None
        stop.on_set(self._end)
        self._progress: dict[str, Progress] = {}
        # What earlier engines of this run have done.
        self._before = Counts()
        self._trouble, self._lasting = "", False
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._sampled = 0.0
        self.error: Exception | None = None
        """What ended them for good, None while nothing has."""

    def wake(self) -> None:
        """There is new work; may be called from any thread."""
        line = self._line
        if line is not None:
            line.wake("item", "detail")

    def state(self) -> EngineState:
        """How they stand now."""
        with self._lock:
            all_ = list(self._progress.values())
            counts = _sum(self._before, _done(self._progress))
            trouble, lasting = self._trouble, self._lasting
        if not all_:
            return EngineState(counts, trouble=trouble, lasting=lasting)
        newest = max(all_, key=lambda each: each.traffic.requests)
        held = max(all_, key=lambda each: (each.paused, bool(each.reason)))
        return EngineState(counts, newest.traffic, held.paused, held.reason, trouble, lasting)

    def samples(self) -> Sequence[Sample]:
        """How things stood in the last minutes, the oldest first."""
        with self._lock:
            return list(self._samples)

    def run(self) -> None:
        """Work until the end was asked for; what cannot be gone on from is `error` then, and the end."""
        attempts = 0
        try:
            while not self._stop.is_set():
                began = self._stop.now()
                try:
                    self._run_once()
                except Interrupted:
                    continue
                except (RemoteError, LoginError, ConfigurationError) as error:
                    # Jobs are taken meanwhile: they lie in the database.
                    attempts = 1 if self._stop.now() - began > 600 else attempts + 1
                    self._say(str(error), lasting=not isinstance(error, RemoteError))
                    wait = max(LEAST_WAIT_SECONDS, backoff(attempts, 300.0))
                    log.warning("%s; trying again in %.0f s", error, wait)
                    self._stop.wait(wait)
        except Exception as error:  # noqa: BLE001 - told by whoever waits for the end
            if not (isinstance(error, StoreError) and self._stop.is_set()):
                self.error = error
        finally:
            self._stop.set()

    def _end(self) -> None:
        stop = self._ending
        if stop is not None:
            stop.set()

    def _run_once(self) -> None:
        """One run of all engines. Raises what they do."""
        stop = self._ending = Stop()
        if self._stop.is_set():
            return
        parts = self._make(stop)
        try:
            line = Line(stop)
            stages = [parts.stage] if parts.item_stage is None else [parts.item_stage, parts.stage]
            parts.learn_by(self._stores["detail"])
            for stage in stages:
                line.add(stage.name, self._engine(parts, stage, line, stop))
            self._line = line
            line.run(self._tick)
        finally:
            self._line = None
            with self._lock:
                self._before = _sum(self._before, _done(self._progress))
                self._progress = {}
            parts.close()

    def _engine(self, parts: Parts, stage: Stage, line: Line, stop: Stop) -> Engine:
        def on_batch(done: Committed) -> None:
            if stage.name == "item":
                line.wake("detail")
            self._say("", lasting=False)
            self._on_batch(done)

        def on_progress(progress: Progress) -> None:
            with self._lock:
                self._progress[stage.name] = progress

        return Engine(
            _listing(parts),
            stage,
            self._stores[stage.name],
            parts.governor,
            stop,
            _plan(parts.plan),
            on_batch=on_batch,
            on_progress=on_progress,
            more=lambda: True,
        )

    def _say(self, trouble: str, *, lasting: bool) -> None:
        with self._lock:
            self._trouble, self._lasting = trouble, lasting

    def _tick(self) -> None:
        now = time.time()
        if now - self._sampled < SAMPLE_SECONDS:
            return
        self._sampled = now
        state = self.state()
        with self._lock:
            last = self._samples[-1] if self._samples else None
            stored = state.counts.stored
            rate = 0.0 if last is None or now <= last.at else max(0, stored - last.stored) / (now - last.at)
            traffic = state.traffic
            self._samples.append(
                Sample(now, stored, rate, traffic.pace, traffic.gate, traffic.in_flight, state.paused, traffic.limited)
            )


def _listing(parts: Parts) -> Unlisted:
    """Nothing is listed; the list head is asked for only to see what it means that an item is denied.

    For one engine: it begins with it, and then nothing is to be asked.
    """
    begun = False

    def first() -> None:
        nonlocal begun
        if begun:
            parts.listing.universe()
        begun = True

    return parts.unlisted(first)


def _plan(plan: Plan) -> Plan:
    """As for a mirror, but small batches, soon written: a job that is submitted waits for what is claimed before it."""
    return replace(
        plan,
        batch_size=min(plan.batch_size, 2 * plan.workers),
        batch_seconds=min(plan.batch_seconds, BATCH_SECONDS),
        order="oldest",
        full=False,
        limit=None,
    )


def _done(progress: Mapping[str, Progress]) -> Counts:
    """What was done, of whole ids: one that was only asked for is not stored yet. Both share one governor."""
    detail, item = (progress[name].counts if name in progress else Counts() for name in ("detail", "item"))
    network = max(detail, item, key=lambda counts: counts.requests)
    return replace(
        detail,
        new=item.new,
        gone=detail.gone + item.gone,
        failed=detail.failed + item.failed,
        retries=detail.retries + item.retries,
        rows=detail.rows + item.rows,
        requests=network.requests,
        limited=network.limited,
    )


def _sum(first: Counts, second: Counts) -> Counts:
    return first.plus(**{name: getattr(second, name) for name in Counts.__dataclass_fields__})
