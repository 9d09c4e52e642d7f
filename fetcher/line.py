"""Engines that work side by side on one database, each on a stage: what one stores is work for the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fetcher.engine import Engine
from fetcher.errors import FetcherError, Interrupted
from fetcher.model import Covered, Interval, Key, Page, Scope, Summary, Walk
from fetcher.stop import Stop

TICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Unlisted:
    """What an engine has for a source where nothing is listed: its work is in the database.

    `first` is called before all else, and where something is denied; `life` to see whether a host is there again. Both
    raise RequestFailed. `login_scopes` are those whose items only a login shows.
    """

    head: str = "what is asked first"
    address: str = ""
    login_hint: str = ""
    first: Callable[[], object] = lambda: None
    life: Callable[[], object] = lambda: None
    login: str = ""
    login_scopes: tuple[Scope, ...] = ()

    scopes: ClassVar[tuple[Scope, ...]] = ()
    walks: ClassVar[int] = 1
    numbered: ClassVar[bool] = True
    lists_anew: ClassVar[bool] = False
    has_details: ClassVar[bool] = False

    def universe(self) -> Interval:
        """No position at all."""
        self.first()
        return Interval(1, 0)

    def probe(self, key: Key | None) -> None:  # noqa: ARG002 - the engine's contract
        """Ask for a sign of life."""
        self.life()

    def changes(self, covered: Mapping[Scope, Covered]) -> Sequence[Walk]:  # noqa: ARG002
        """Nothing is listed again."""
        return ()

    def resumed(self, walk: Walk, token: str) -> Walk:  # noqa: ARG002
        """There are no walks."""
        return walk

    def page(self, walk: Walk) -> Page:
        """There are no pages."""
        raise NotImplementedError(walk)

    def skip(self, walk: Walk) -> None:  # noqa: ARG002
        """There is nothing to go on with."""
        return


class Line:
    """The stages of one run, first to last, and which of them are still going on."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._going: set[str] = set()
        self._engines: dict[str, Engine] = {}
        self._ends: dict[str, Callable[[], None]] = {}

    def add(self, name: str, engine: Engine, at_end: Callable[[], None] = lambda: None) -> None:
        """One more stage; `at_end` is called by its thread once it is done."""
        self._engines[name] = engine
        self._ends[name] = at_end
        self._going.add(name)

    def goes_on(self, *names: str) -> bool:
        """Whether any of these stages does."""
        return not self._going.isdisjoint(names)

    def wake(self, *names: str) -> None:
        """There is new work for these stages."""
        for name in names:
            if name in self._engines:
                self._engines[name].wake()

    def run(self, on_tick: Callable[[], object] = lambda: None) -> Mapping[str, Summary]:
        """Run all stages to their ends; the summary of each. Raises Interrupted, or the first error of any of them.

        `on_tick` is called by this thread twice a second. An error of one ends the others, once what they have finished
        is committed.
        """
        summaries: dict[str, Summary] = {}
        errors: list[BaseException] = []

        def work(name: str, engine: Engine) -> None:
            try:
                summaries[name] = engine.run()
                self._ends[name]()
            except BaseException as error:  # noqa: BLE001 - raised by the thread that waits for this one
                errors.append(error)
                if isinstance(error, FetcherError) and isinstance(error.summary, Summary):
                    summaries[name] = error.summary
                self._stop.set()
            finally:
                self._going.discard(name)
                self.wake(*self._engines)

        threads = [
            threading.Thread(target=work, args=each, name=f"fetcher-stage-{each[0]}", daemon=True)
            for each in self._engines.items()
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(TICK_SECONDS)
                    on_tick()
        except BaseException as error:
            # They use what the caller is about to close.
            self._stop.set()
            for thread in threads:
                thread.join()
            if not isinstance(error, KeyboardInterrupt):
                raise
        real = [error for error in errors if not isinstance(error, Interrupted)]
        if real:
            if isinstance(real[0], FetcherError):
                real[0].summary = summaries
            raise real[0]
        if errors or self._stop.is_set():
            raise Interrupted("interrupted; what was finished by then is stored", summaries)
        return summaries
