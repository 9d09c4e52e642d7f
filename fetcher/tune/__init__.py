"""How many requests at once and a second a host is best asked for: measured on the live API, politely.

`tune` asks what a mirror would ask, with 1, 2, 4, … requests at once, and stops at the first refusal; it writes
nothing. Each part is a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from annotated_types import Le
from requests import Session

from fetcher.client import Client
from fetcher.doctor.sayings import saying
from fetcher.errors import ConfigurationError, Interrupted, LoginError, RemoteError, RequestFailed, Stopped
from fetcher.mirror import base_url_for, hinted, made, remembered, source_for
from fetcher.model import Outcome
from fetcher.place import Place, place_of
from fetcher.settings import Settings, load, login_of
from fetcher.sources import Source, of
from fetcher.stop import Stop
from fetcher.stores.opening import kept_from_runs
from fetcher.stores.origin import description_of
from fetcher.stores.sample import sample
from fetcher.tune.levels import FEWEST, ROUNDS, Level, Measuring
from fetcher.tune.meter import Meter, Refused
from fetcher.tune.questions import Questions, call, first_walks, has_details
from fetcher.tune.scaling import FEWEST_ANSWERS, SCATTER, SLOWER, Advice, Curve, advise, fit, rate_at_refusal

__all__ = ["Advice", "Curve", "Level", "Outlook", "Refused", "Tuning", "tune"]

MOST = 32
"""Requests at once, at most, unless another number is asked for."""

MOST_ASKED = 1000
"""Nobody may ask for more at once."""

REQUESTS = 300
"""Requests in all, at most, unless another number is asked for."""

NO_GAIN = 1.1
"""Twice as many requests at once have to bring so many times the throughput, or there is no use in more."""

NEAR_CEILING = 0.9
"""Within this share of the ceiling more requests at once bring nothing."""

FAILING = 0.25
FEWEST_ERRORS = 3
"""So many errors, and by this share more than at the levels before, are more than chance."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is about to be asked: of whom, by whom, what, and at most how much (`ceiling` 0 = any rate).

    `delay` is how many seconds a mirror waits between two list pages, where these are what is asked for.
    """

    source: str
    base_url: str
    user_agent: str
    what: str
    most: int
    requests: int
    ceiling: float
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured, why it ended, and what it advises.

    `settings` are the lines for `.env`, empty where nothing can be advised. `allowed` is how many requests a second a
    host that refused seems to allow. `requests` counts all, `repeated` those asked more than once;
    `seconds` is how long the levels took.
    """

    outlook: Outlook
    levels: tuple[Level, ...]
    ended: str
    requests: int
    repeated: int
    seconds: float
    refused: Refused | None
    allowed: float | None
    curve: Curve | None
    advice: Advice | None
    settings: dict[str, str]

    @property
    def exit_code(self) -> int:
        """0 where there is advice, 3 where there is none."""
        return 0 if self.advice is not None else 3


def tune(
    source: str = "pr0gramm",
    db: str | Place | None = None,
    *,
    most: int = MOST,
    requests: int = REQUESTS,
    stop: Stop | None = None,
    session: Session | None = None,
    on_outlook: Callable[[Outlook], None] = lambda _: None,
    on_level: Callable[[Level], None] = lambda _: None,
    **settings: Any,
) -> Tuning:
    """Measure how many requests at once and a second the API of `source` is best asked for; writes nothing.

    Items are those that the database `db` knows, else those of the first list pages. At most `most` requests are open
    at once, and at most `requests` made in all; `settings` are those of `fetch`, of which the ceiling, the User-Agent,
    the login and the time-outs hold here too. `on_outlook` hears what is about to be asked, `on_level` of each level.

    Raises what `fetch` raises; an Interrupted has the Tuning as far as it came as its `summary`.
    """
    if most < 1 or most > MOST_ASKED:
        raise ConfigurationError(f"most: must be from 1 to {MOST_ASKED:,}, not {most}")
    if requests < 1:
        raise ConfigurationError(f"requests: must be at least 1, not {requests}")
    visit = _Visit(source, db, settings, most, requests, stop or Stop(), session)
    try:
        # Each would be taken for the host's slowness by the other, and the two together exceed a ceiling.
        with kept_from_runs(visit.path):
            return visit.run(on_outlook, on_level)
    finally:
        visit.client.close()


class _Visit:
    """One measurement, as far as it has come."""

    def __init__(
        self,
        name: str,
        db: str | Place | None,
        given: dict[str, Any],
        most: int,
        budget: int,
        stop: Stop,
        session: Session | None,
    ) -> None:
        settings = load(Settings, {key: value for key, value in given.items() if key in Settings.model_fields})
        self.path = place_of(db) if db is not None else settings.db_path
        kind = source_for(name, self.path)
        unknown = set(given) - set(Settings.model_fields) - set(kind.Options.model_fields)
        if unknown:
            raise ConfigurationError(f"no setting of {name} is called {', '.join(sorted(unknown))}")
        if kind.base_url is None:
            raise ConfigurationError(f"{name} are read on this machine: there is no API to measure")
        settings = hinted(settings, kind)
        options = load(kind.Options, {key: value for key, value in given.items() if key in kind.Options.model_fields})
        self._settings = settings
        self._source = made(kind, remembered(kind, options, self.path))
        self._setting = _setting_of(kind)
        most = min(most, _most_of(kind, self._setting) if self._setting is not None else of(self._source, "walks"))
        # What ends the measurement need not end whoever called it.
        self._ending = Stop()
        self._stop = stop
        stop.on_set(self._ending.set)
        self._meter = Meter(
            self._ending,
            budget=budget,
            on_refusal=self._ending.set,
            parallel=most,
            ceiling=settings.max_requests_per_second,
            max_pause=settings.max_backoff_seconds,
        )
        self.client = Client(
            base_url_for(settings, self.path, kind),
            self._meter,
            self._ending,
            user_agent=settings.user_agent,
            timeout=settings.request_timeout,
            cookies=of(self._source, "cookies"),
            headers=of(self._source, "headers"),
            judge=of(self._source, "judge"),
            judge_answer=of(self._source, "judge_answer"),
            session=session,
        )
        what = "details of items" if has_details(kind) else "list pages"
        self._outlook = Outlook(
            name,
            self.client.base_url,
            settings.user_agent,
            what,
            most,
            budget,
            settings.max_requests_per_second,
            0.0 if has_details(kind) else settings.request_delay,
        )
        self._levels: list[Level] = []
        self._questions: Questions | None = None
        self._began = 0.0

    def run(self, on_outlook: Callable[[Outlook], None], on_level: Callable[[Level], None]) -> Tuning:
        stored = description_of(self.path)
        on_outlook(self._outlook)
        try:
            ended = self._prepare(stored) or self._measure(on_level)
        except Stopped:
            ended = "all requests that may be made were made"
        if self._stop.is_set():
            raise Interrupted("interrupted; nothing was written", self._told("interrupted"))
        return self._told(ended)

    @property
    def _has_details(self) -> bool:
        return has_details(self._source)

    def _prepare(self, stored: str | None) -> str | None:
        """Ask what there is; says why there is nothing to measure."""
        try:
            if of(self._source, "settled") is not None:
                self._source = call(self._source, "settled", self.client, stored)
            keys = sample(self.path, self._source.tables[0], self._outlook.requests) if self._has_details else []
            universe = call(self._source, "universe", self.client)
            questions = Questions(self._source, self.client, first_walks(self._source, universe), keys)
            if self._has_details and len(keys) < self._outlook.requests:
                questions.learn(self._outlook.requests, lambda: self._ending.wait(self._settings.request_delay))
        except RequestFailed as error:
            if error.outcome is Outcome.DENIED:
                names = login_of(self._source.Options)
                raise LoginError(f"the API asks for a login, or refuses the one given ({error}): see {names}") from None
            what, remedy = saying(error, self._settings.request_timeout)
            raise RemoteError(f"{self.client.base_url}: {what} ({error}): {remedy}") from None
        self._questions = questions
        return None if questions.known else "the API lists nothing that could be asked for"

    def _measure(self, on_level: Callable[[Level], None]) -> str:
        """Measure level after level; says why no more."""
        assert self._questions is not None
        measuring = Measuring(self._questions.ask, self._meter, self._ending)
        self._began = self._ending.now()
        at_once = 1
        while True:
            level = measuring.level(at_once)
            ended = self._judge(level)
            if ended in _DOUBTFUL and self._meter.left >= level.requests:
                # One slow level may be chance.
                level = measuring.level(at_once)
                ended = self._judge(level)
            self._levels.append(level)
            on_level(level)
            if ended is not None:
                break
            at_once = min(2 * at_once, self._outlook.most)
        advice = self._told(ended).advice if ended in _WELL else None
        if advice is not None and self._meter.left >= max(FEWEST, ROUNDS * advice.parallel):
            # A level is over sooner than a limit that counts for seconds is reached.
            held = measuring.hold(advice.parallel, self._meter.left)
            if self._meter.refused is not None or self._stop.is_set() or _is_failing(held, self._levels):
                ended = self._judge(held) or ended
            self._levels.append(held)
            on_level(held)
        return ended

    def _judge(self, level: Level) -> str | None:
        """Why the measurement ends with this level, None to go on."""
        before = self._levels
        if self._meter.refused is not None:
            return "the API refused"
        if self._stop.is_set():
            return "interrupted"
        if _is_failing(level, before):
            return _ERRORS
        if not level.answers:
            return "nothing was answered"
        if self._outlook.ceiling and before and level.rate >= NEAR_CEILING * self._outlook.ceiling:
            return _CEILING
        if before:
            best = max(each.at_once / each.median for each in before if each.answers)
            if level.at_once / level.median < NO_GAIN * best:
                return _NO_MORE
            if level.median > SLOWER * min(each.median for each in before if each.answers) + SCATTER:
                return _SLOWER
        if level.at_once >= self._outlook.most:
            return AT_MOST
        if self._meter.left < 1:
            return "all requests that may be made were made"
        return None

    def _told(self, ended: str) -> Tuning:
        refused = self._meter.refused
        well = [each for each in self._levels if not each.refused and each.answers >= 2]
        if ended == _ERRORS and well[1:]:
            well.pop()
        allowed = None
        if refused is not None:
            # A run waits no longer either, whatever it is told.
            wait = min(refused.retry_after or 0.0, self._settings.max_backoff_seconds)
            allowed = rate_at_refusal(self._meter.begun, refused.at, wait)
        curve, advice, lines = None, None, dict[str, str]()
        if sum(each.answers for each in well) >= FEWEST_ANSWERS:
            points = [each.point for each in well]
            curve = fit(points)
            held = next((each.point for each in well if each.held), None)
            advice = advise(points, curve, ceiling=self._outlook.ceiling, refused_at=allowed, held=held)
            if self._setting is not None:
                lines[self._setting] = str(advice.parallel)
                if self._has_details and self._settings.min_parallel_requests > advice.parallel:
                    lines["MIN_PARALLEL_REQUESTS"] = str(advice.parallel)
            lines["MAX_REQUESTS_PER_SECOND"] = f"{advice.rate:g}"
        return Tuning(
            self._outlook,
            tuple(self._levels),
            ended,
            len(self._meter.begun),
            self._questions.repeated if self._questions is not None else 0,
            self._ending.now() - self._began if self._began else 0.0,
            refused,
            allowed,
            curve,
            advice,
            lines,
        )


_NO_MORE = "more at once bring no more"
_ERRORS = "errors became more"
_SLOWER = "answers take more than twice as long"
_CEILING = "the ceiling was reached"
AT_MOST = "as many at once as may be"
_DOUBTFUL = (_NO_MORE, _SLOWER)
_WELL = (_NO_MORE, _SLOWER, _CEILING, AT_MOST)
"""Ends after which more may be asked."""


def _is_failing(level: Level, before: Sequence[Level]) -> bool:
    share = sum(each.errors for each in before) / max(1, sum(each.requests for each in before))
    return level.errors >= FEWEST_ERRORS and level.errors > level.requests * (share + FAILING)


def _most_of(kind: type[Source], setting: str) -> int:
    """The highest value that a setting may have."""
    field = {**Settings.model_fields, **kind.Options.model_fields}[setting.lower()]
    return next((int(each.le) for each in field.metadata if isinstance(each, Le)), MOST_ASKED)  # type: ignore[call-overload]


def _setting_of(kind: type[Source]) -> str | None:
    """The setting that says how many requests a mirror has open at once; None where there is none."""
    if has_details(kind):
        return "MAX_PARALLEL_REQUESTS"
    name: str | None = of(kind, "walks_setting")
    return name and name.upper()
