"""An HTTP/1.1 server that answers from a world as its API does, in a thread of its own or in the main one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from fetcher.simulator.changes import Changes
from fetcher.simulator.conditions import Conditions
from fetcher.simulator.embeddings.api import EmbeddingsApi
from fetcher.simulator.embeddings.world import EmbeddingsWorld
from fetcher.simulator.faults import Faults
from fetcher.simulator.listener import Listener
from fetcher.simulator.mishaps import MISHAPS
from fetcher.simulator.pr0gramm import Pr0grammApi
from fetcher.simulator.profile import Outage, Profile
from fetcher.simulator.rest.api import RestApi
from fetcher.simulator.rest.world import RestWorld
from fetcher.simulator.service import Api, Service
from fetcher.simulator.stac.api import StacApi
from fetcher.simulator.stac.dialect import Dialect
from fetcher.simulator.stac.world import StacWorld
from fetcher.simulator.world import World

_START_SECONDS = 10.0

AnyWorld = TypeVar("AnyWorld", World, StacWorld, RestWorld, EmbeddingsWorld)


class Simulator(Generic[AnyWorld]):
    """A simulated API on a loopback port, served by a daemon thread from construction until `close()`.

    `latency` and `jitter` are seconds: an answer waits `latency` ± `jitter`, evenly spread, the same for the
    same (seed, request, attempt). `faults` is asked before each answer, then `profile`. `port` 0 takes any free one.
    With `gzip` answers are compressed for clients that accept it; with `record` each request is noted in `log`.
    A StacWorld is served as a STAC API in its `dialect`, a RestWorld by every way of paging, an EmbeddingsWorld as
    OpenAI's embeddings, a World as pr0gramm's. A context manager.
    """

    def __init__(
        self,
        world: AnyWorld,
        port: int = 0,
        latency: float = 0.0,
        jitter: float = 0.0,
        faults: Faults | None = None,
        gzip: bool = False,
        record: bool = False,
        profile: Profile | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        self.world: AnyWorld = world
        self._service = _service(_api(world, dialect), latency, jitter, faults, gzip, profile, record=record)
        self._listener = Listener(self._service, "127.0.0.1", port)
        self.url = self._listener.url
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, args=(world, profile), name="simulator", daemon=True)
        self._thread.start()

    @property
    def requests(self) -> Counter[str]:
        """Requests so far by kind: "list", "info", "tags", "loggedin" or "other".

        Of a STAC API: "landing", "conformance", "collections", "collection", "queryables", "items", "item", "search",
        "api" or "other"; of a REST API: "list", "info", "max" or "other"; of an embeddings API: "embeddings", "models"
        or "other".
        """
        return self._service.requests

    @property
    def wrong(self) -> Counter[str]:
        """Answers so far that were not the true one, by the name of what befell them.

        "limit" and "window" for what they refused, "overload", "outage-…", a mishap's name, "gone-404" and so on; for a
        nameless answer of `faults` its status.
        """
        return self._service.wrong

    @property
    def log(self) -> list[tuple[float, str, int]] | None:
        """(monotonic seconds, kind, key) of each request so far, in order; None without `record`."""
        return self._service.log

    @property
    def max_in_flight(self) -> int:
        """The most requests that were being answered at once, from head read to answer written."""
        return self._service.max_in_flight

    def outage(self, seconds: float, how: str = "refuse") -> None:
        """Answer nobody for so many seconds from now; returns as soon as it is so.

        `how` is "refuse" (nothing listens, open connections are reset) or the mishap that befalls all requests.
        """
        if how == "refuse":
            self._call(self._listener.refuse(seconds))
        elif how in MISHAPS:
            self._call(self._befall(seconds, how))
        else:
            raise ValueError(f"there is no such outage: {how!r}")

    def close(self) -> None:
        """Stop at once: delayed answers are never sent, open connections are dropped."""
        if not self._closed:
            self._closed = True
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(_START_SECONDS)

    async def _befall(self, seconds: float, how: str) -> None:
        self._service.begin_outage(seconds, how)

    def _run(self, world: AnyWorld, profile: Profile | None) -> None:
        try:
            self._loop.run_until_complete(_serve_until(self._stop, self._listener, self._service, world, profile))
        finally:
            self._loop.close()


def serve(
    world: World | StacWorld | RestWorld | EmbeddingsWorld,
    host: str = "127.0.0.1",
    port: int = 8120,
    *,
    latency: float = 0.0,
    jitter: float = 0.0,
    faults: Faults | None = None,
    gzip: bool = False,
    profile: Profile | None = None,
    dialect: Dialect | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> tuple[Counter[str], Counter[str]]:
    """Serve a world in this thread, the main one, until SIGINT or SIGTERM; a port in use raises OSError.

    `on_ready` is called with the URL once requests are answered and signals obeyed. Returns the requests by kind and
    the wrong answers by name. See `Simulator` for the rest.
    """
    service = _service(_api(world, dialect), latency, jitter, faults, gzip, profile)

    async def run() -> None:
        stop = asyncio.Event()
        listener = Listener(service, host, port)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        if on_ready is not None:
            on_ready(listener.url)
        await _serve_until(stop, listener, service, world, profile)

    asyncio.run(run())
    return service.requests, service.wrong


def _api(world: World | StacWorld | RestWorld | EmbeddingsWorld, dialect: Dialect | None) -> Api:
    """The API that a world is told by."""
    if isinstance(world, StacWorld):
        return StacApi(world, dialect or Dialect())
    if dialect is not None:
        raise ValueError("a dialect is for a StacWorld")
    if isinstance(world, RestWorld):
        return RestApi(world)
    return EmbeddingsApi(world) if isinstance(world, EmbeddingsWorld) else Pr0grammApi(world)


def _service(
    api: Api,
    latency: float,
    jitter: float,
    faults: Faults | None,
    gzip: bool,
    profile: Profile | None,
    *,
    record: bool = False,
) -> Service:
    if api.mishaps:
        profile = profile or Profile(seed=api.seed)
        profile = replace(profile, mishaps=(*profile.mishaps, *api.mishaps))
    return Service(
        api,
        latency=latency + (profile.latency if profile else 0.0),
        jitter=jitter + (profile.jitter if profile else 0.0),
        faults=faults,
        conditions=Conditions(profile) if profile else None,
        gzip=gzip,
        record=record,
    )


async def _serve_until(
    stop: asyncio.Event,
    listener: Listener,
    service: Service,
    world: World | StacWorld | RestWorld | EmbeddingsWorld,
    profile: Profile | None,
) -> None:
    """Answer on a listening socket until `stop` is set; leaves no socket open."""
    await listener.open()
    tasks = [asyncio.ensure_future(each) for each in _beside(listener, service, world, profile)] if profile else []
    await stop.wait()
    for task in tasks:
        task.cancel()
    await listener.close()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _beside(
    listener: Listener, service: Service, world: World | StacWorld | RestWorld | EmbeddingsWorld, profile: Profile
) -> Iterator[Coroutine[Any, Any, None]]:
    """What goes on beside the answering."""
    for outage in profile.outages:
        if outage.how == "refuse":
            yield _refuse(listener, service, outage)
    if isinstance(world, EmbeddingsWorld):
        return
    if profile.arrive or profile.delete or profile.undelete or profile.reflag:
        yield Changes(world, profile).go_on(service.now)


async def _refuse(listener: Listener, service: Service, outage: Outage) -> None:
    """Refuse connections whenever an outage says so."""
    begins = outage.start
    while True:
        await asyncio.sleep(max(0.0, begins - service.now()))
        await listener.refuse(outage.seconds)
        if outage.every is None:
            return
        begins += outage.every
