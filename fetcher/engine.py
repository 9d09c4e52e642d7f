"""The only loop: listed pages in, due work out, one transaction a batch; the calling thread alone touches the store."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fetcher.batch import LISTED_PER_DETAIL, OpenBatch
from fetcher.calls import About, Asked, Calls, Due
from fetcher.contracts import Source, Store
from fetcher.errors import FetcherError, Interrupted, RemoteError, RequestFailed, Stopped, StoreError, no_first_answer
from fetcher.governor import Governor, backoff
from fetcher.holds import Holds, Room
from fetcher.listing import Listing, Listings
from fetcher.login import Login
from fetcher.model import (
    GONE,
    Committed,
    Detail,
    Failure,
    Gone,
    Interval,
    Key,
    Outcome,
    Page,
    Plan,
    Progress,
    RunState,
    Scope,
    Stage,
    Start,
    Summary,
)
from fetcher.outage import Outage
from fetcher.planning import survey
from fetcher.stop import Stop
from fetcher.tally import Tally
from fetcher.window import Window
from fetcher.workers import Done

log = logging.getLogger("fetcher")

FIRST_ANSWER_SECONDS = 60.0
"""How long a host may fail to answer before a run's first good answer."""

NONSENSE_TRIES = 3
"""So many answers that make no sense, before a run's first good one, and the address is wrong."""

HEARTBEAT_SECONDS = 10.0
"""The run's own row is never older than this."""

TICK_SECONDS = 0.5
"""How often progress is told."""

ABANDON_SECONDS = 1.0
"""How long an interrupted run waits for its threads."""


class Engine:
    """One run of one stage, and of the listing that feeds it if there is one; `run` does it, once.

    `more` says whether others may still add work: until they are done, it waits for that.
    """

    def __init__(
        self,
        source: Source,
        stage: Stage,
        store: Store,
        governor: Governor,
        stop: Stop,
        plan: Plan,
        *,
        on_start: Callable[[Start], None] = lambda _: None,
        on_batch: Callable[[Committed], None] = lambda _: None,
        on_progress: Callable[[Progress], None] = lambda _: None,
        more: Callable[[], bool] | None = None,
    ) -> None:
        self._source = source
        self._stage = stage
        self._store = store
        self._governor = governor
        self._stop = stop
        self._plan = plan
        self._on_start = on_start
        self._on_batch = on_batch
        self._on_progress = on_progress
        self._more = more
        self._calls = Calls(stop, plan.workers)
        self._window = Window(stage, plan, stop, self._calls)
        self._login = Login(source, stage, store, stop, self._calls)
        self._outage: Outage[Due] = Outage(plan.max_backoff)
        self._known: Key | None = None
        self._holds = Holds(governor)
        self._room = Room(store, plan.min_free, self._holds)
        self._answered_at = stop.now()
        self._listings = Listings(source, plan, stop)
        self._open = OpenBatch()
        self._tally = Tally(plan, stop.now())
        self._said: set[str] = set()
        self._wrote_at = self._tended_at = stop.now()
        self._told_at = 0.0

    # --- the run --------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look for work at once, since some was added; may be called from any thread."""
        self._window.look()
        self._calls.wake()

    def run(self) -> Summary:
        """Do all there is to do. Raises Interrupted when stopped, LoginError, RemoteError or StoreError.

        Whatever ends it, what was finished by then is committed first.
        """
        plan = self._plan
        self._store.begin_run(plan)
        # With one worker there is one thread, so that never two requests are open.
        self._calls.open(self._source.walks if plan.workers > 1 and self._source.has_details else 0)
        try:
            self._survey()
            while not self._finished():
                self._list()
                self._claim()
                self._probe()
                self._login.look()
                self._collect()
                if self._commit_due():
                    # So that the host answers while the batch is written.
                    self._list()
                    self._commit()
                self._tell()
            if self._listings.lost is not None:
                raise self._listings.lost
            self._close()
            return self._complete()
        except (KeyboardInterrupt, Stopped):
            self._stop.set()
            raise self._interrupted() from None
        except StoreError:
            self._stop.set()
            self._close(ABANDON_SECONDS)
            raise
        except BaseException as error:
            self._give_up(error)
            raise

    def _survey(self) -> None:
        universe = self._first_answer()
        whole = dict.fromkeys(self._source.scopes, universe) if isinstance(universe, Interval) else universe
        self._store.want(whole)
        walks, start, density = survey(self._source, self._store, self._plan, universe)
        self._listings.add(walks)
        self._known = self._store.known()
        self._answered_at = self._stop.now()
        self._tally.begin(start.queued, density, self._answered_at)
        self._on_start(start)
        if start.estimate is not None and self._source.scopes:
            self._store.prepare_load(min(start.estimate, self._plan.limit or start.estimate))

    def _first_answer(self) -> Interval | Mapping[Scope, Interval]:
        """The universe, waited for at most FIRST_ANSWER_SECONDS."""
        attempts = 0
        began = asked_at = self._stop.now()
        while True:
            self._login.ask_head()
            result = self._wait_for_head()
            try:
                if isinstance(result, BaseException):
                    raise result
                assert isinstance(result, Interval | Mapping)
                return result
            except RequestFailed as error:
                if error.outcome is Outcome.LIMITED:
                    if self._stop.now() - asked_at > self._plan.max_outage:
                        raise self._unavailable(str(error)) from None
                    log.warning("the first request is refused (%s); waiting to ask again", error)
                    began = self._stop.now()
                    continue
                attempts += 1
                if error.outcome is Outcome.DENIED:
                    raise self._login.needed(error) from None
                late = self._stop.now() - began > FIRST_ANSWER_SECONDS
                nonsense = error.outcome is not Outcome.UNAVAILABLE and attempts >= NONSENSE_TRIES
                if late or nonsense or error.outcome is Outcome.GONE:
                    raise no_first_answer(error, self._source.address) from None
                log.warning("no first answer yet (%s); trying for up to %.0f s", error, FIRST_ANSWER_SECONDS)
                if self._stop.wait(backoff(attempts, self._plan.max_backoff)):
                    raise Stopped("stopped before the first answer") from None

    def _wait_for_head(self) -> Any:
        while True:
            try:
                answer = self._calls.receive(TICK_SECONDS)
            except queue.Empty:
                self._tell()
                continue
            if self._stop.is_set():
                raise Stopped("stopped before the first answer")
            if answer is not None:
                return answer.result

    def _finished(self) -> bool:
        if self._stop.is_set():
            raise Stopped("stopped")
        if self._flying() or self._window or self._open.since is not None:
            return False
        if self._tally.limit_left == 0:
            return True
        if self._listings.unfinished or not self._window.exhausted:
            return False
        if self._more is None:
            return True
        if not self._more():
            # What was added last is still to be looked for.
            self._more, self._window.dry = None, False
        return False

    def _flying(self) -> bool:
        return self._calls.under_way > 0 or self._listings.flying

    # --- listing --------------------------------------------------------------------------------

    def _list(self) -> None:
        """Send for every page that is due."""
        if self._listing_waits():
            return
        for listing in self._listings.due():
            self._calls.page(listing, self._source.page)

    def _listing_waits(self) -> bool:
        """Whether what is queued is enough for the limit: queued work comes first."""
        left = self._tally.limit_left
        return left is not None and (left == 0 or (self._tally.queued >= left and not self._window.dry))

    def _page_due(self) -> bool:
        """Whether a page is about to be sent for."""
        return not self._listing_waits() and self._listings.next_due <= self._stop.now()

    def _listed(self, listing: Listing, page: Page) -> None:
        self._open.at(self._stop.now()).pages.append(page)
        self._say(page.notes)
        self._listings.listed(listing, page)

    # --- details --------------------------------------------------------------------------------

    def _claim(self) -> None:
        """Claim due work up to the window and send for it."""
        self._window.claim(self._store, self._tally.limit_left, more=self._more is not None)

    def _fetched(
        self, keys: tuple[Key, ...], results: Mapping[Key, Detail | Gone | Exception], began: int, ended: int
    ) -> None:
        batch = self._open.at(self._stop.now())
        failed: dict[int, tuple[RequestFailed, list[Key]]] = {}
        rests = []
        for key in keys:
            result = results[key]
            if key not in self._window:
                continue  # The database has refused a piece of it: it is a failure, whatever else comes of it.
            if isinstance(result, Detail):
                batch.bytes += result.size
                if self._stage.holds or result.rest is not None:
                    rows = [len(each) for each in result.rows.values()]
                    batch.pieces += max(rows, default=0) if self._stage.holds else sum(rows) / LISTED_PER_DETAIL
                self._known = key
                self._heard(began)
                if result.notes:
                    self._say(result.notes)
                if result.rest is not None:
                    batch.parts.append((key, result))
                    rests.append((key, result.rest))
                    continue
                batch.details[key] = result
                if result.flaw is not None:
                    log.info("%s %s: %s", self._stage.name, key, result.flaw)
                    attempts = self._window.attempts(key)
                    batch.failures.append(
                        Failure(self._stage.name, key, Outcome.MALFORMED, result.flaw, attempts=attempts)
                    )
            elif result is GONE or (isinstance(result, RequestFailed) and result.outcome is Outcome.GONE):
                batch.gone.append(key)
                self._heard(began)
            elif isinstance(result, RequestFailed):
                # One error of several keys is that of one request.
                failed.setdefault(id(result), (result, []))[1].append(key)
            elif isinstance(result, Stopped):
                self._window.drop((key,))
            else:
                raise result  # type: ignore[misc]
        for error, together in failed.values():
            self._failed(tuple(together), error, ended)
        self._window.came(keys, rests)

    # --- what a failure means ---------------------------------------------------------------------

    def _failed(self, about: Due, error: RequestFailed, ended: int) -> None:
        """A request failed at that moment: whose fault it is decides what becomes of what it asked for."""
        if error.outcome is Outcome.LIMITED:
            # A refusal says nothing about what was asked for: it is asked for again, and no attempt is spent.
            self._again(about)
        elif error.outcome is Outcome.UNAVAILABLE:
            if isinstance(about, Listing):
                about.due = float("inf")
            self._outage.add(about, error, ended)
        elif error.outcome is not Outcome.DENIED:
            self._blame(about, error)
        elif isinstance(about, Listing):
            raise self._login.needed(error)
        else:
            self._login.denied(about, error)

    def _blame(self, about: Due, error: RequestFailed) -> None:
        """What was asked for is at fault itself."""
        if isinstance(about, Listing):
            failures = self._listings.failed(about, error)
        else:
            failures = self._window.failed(about, error)
        if failures:
            self._open.at(self._stop.now()).failures.extend(failures)

    def _again(self, about: Due) -> None:
        """Ask once more, as if it had not been asked for yet."""
        if isinstance(about, Listing):
            about.due = self._stop.now()
        else:
            self._window.send_for(about)

    # --- outages ------------------------------------------------------------------------------------

    def _heard(self, began: int) -> None:
        """The host has answered what was asked at that moment: what went unanswered before is judged by that."""
        self._answered_at = self._stop.now()
        verdicts = self._outage.answered(began)
        if not verdicts:
            return
        self._holds.release("outage")
        for about, error, at_fault in verdicts:
            if at_fault:
                self._blame(about, error)
            else:
                self._again(about)

    def _probe(self) -> None:
        """When the host is in doubt, hold everything back and ask it for something known to be good."""
        now = self._stop.now()
        if self._outage.doubt(now, alone=not self._flying()):
            self._holds.hold("outage")
        if self._outage.next_probe <= now:
            self._outage.probed()
            self._calls.probe(self._source.probe, self._known)

    def _probed(self, result: Any, began: int) -> None:
        if not self._outage.in_doubt:
            return
        if not isinstance(result, BaseException) or (isinstance(result, RequestFailed) and result.outcome in _ANSWERED):
            self._heard(began)
        elif isinstance(result, RequestFailed):
            self._outage.probed_in_vain(result, self._stop.now())
        else:
            raise result

    def _give_up_waiting(self) -> None:
        """Raise RemoteError once there was no good answer for too long, whatever kept it away."""
        idle = not (self._window or self._flying() or self._listings.unfinished or self._outage.in_doubt)
        if self._room.cramped or idle:
            # Where nothing is asked nobody fails to answer.
            self._answered_at = self._stop.now()
        if self._stop.now() - self._answered_at <= self._plan.max_outage:
            return
        reason = self._outage.reason if self._outage.in_doubt else self._governor.traffic().reason
        if reason:
            raise self._unavailable(reason)

    def _unavailable(self, reason: str) -> RemoteError:
        return RemoteError(
            f"no good answer for {self._plan.max_outage:g} s ({reason}): run again later, it goes on where it was"
        )

    # --- collecting and committing --------------------------------------------------------------

    def _collect(self) -> None:
        """Wait for the next result, at most until something else is due, and take all that have come."""
        for answer in self._calls.answers(self._patience()):
            self._take(answer)

    def _patience(self) -> float:
        """Seconds until something else than a result is due."""
        now = self._stop.now()
        dues = [now + TICK_SECONDS, self._outage.next_probe, self._window.next_look(self._tally.limit_left)]
        if self._open.since is not None:
            dues.append(self._open.since + self._plan.batch_seconds)
            if not self._flying():
                return 0.0
        if not self._listing_waits():
            dues.append(self._listings.next_due)
        idle = not self._calls.under_way and not self._listings.under_way and not self._window
        # While others may still add work, the end of it is no reason to go on at once.
        if idle and (not self._window.dry or (self._window.exhausted and self._more is None)):
            return 0.0
        return max(0.0, min(dues) - now)

    def _take(self, answer: Done[About]) -> None:
        about, result, began, ended = answer
        if isinstance(about, Listing):
            if isinstance(result, RequestFailed):
                self._failed(about, result, ended)
            elif isinstance(result, BaseException):
                raise result
            else:
                self._listed(about, result)
                self._heard(began)
        elif about is Asked.LIFE:
            self._probed(result, began)
        elif about is Asked.LOGIN:
            if isinstance(result, BaseException):
                raise result
            if self._login.answered(*result):
                self._commit()
                raise self._login.expired()
        elif about is Asked.HEAD:
            for keys, error, at_fault in self._login.head_answered(result):
                if at_fault:
                    self._blame(keys, error)
                else:
                    self._failed(keys, error, ended)
        else:
            if isinstance(result, BaseException):
                raise result
            self._fetched(about, result, began, ended)

    def _commit_due(self) -> bool:
        batch, plan = self._open, self._plan
        if batch.since is None:
            return False
        left = self._tally.limit_left
        if left is not None and batch.brought >= left:
            return True
        if batch.full(self._stop.now(), plan):
            return True
        # Nothing is gained by waiting when the workers have run dry and a page would feed them, or nothing comes.
        return (batch.feeds and self._calls.under_way < plan.workers) or not (self._flying() or self._page_due())

    def _commit(self) -> None:
        batch, self._open = self._open.closed(self._stage.name), OpenBatch()
        if batch.empty:
            return
        state = RunState(self._progress())
        began = self._stop.now()
        done = self._store.commit(batch, state)
        self._wrote_at = self._stop.now()
        failed = [each.key for each in (*done.failed, *done.retried) if each.stage == self._stage.name]
        self._window.drop((*done.stored, *done.gone, *failed))
        self._tally.committed(done, self._store.counts().work, began, self._wrote_at)
        if done.queued or done.retried:
            self._window.dry = False
        self._on_batch(done)

    # --- telling --------------------------------------------------------------------------------

    def _say(self, notes: Sequence[str]) -> None:
        for note in notes:
            if note not in self._said and len(self._said) < 1000:
                self._said.add(note)
                log.warning("%s", note)

    def _tell(self) -> None:
        now = self._stop.now()
        if now - self._told_at >= TICK_SECONDS:
            self._told_at = now
            self._room.look()
            self._give_up_waiting()
            self._on_progress(self._progress())
        if now - self._tended_at >= HEARTBEAT_SECONDS:
            self._tended_at = now
            self._store.tend()
        if now - self._wrote_at >= HEARTBEAT_SECONDS:
            self._wrote_at = now
            self._store.update_run(RunState(self._progress()))

    def _progress(self) -> Progress:
        now = self._stop.now()
        traffic = self._governor.traffic()
        progress = self._tally.progress(now, traffic, self._listings, self._open, len(self._window))
        if self._room.cramped:
            return replace(progress, paused=0.0, reason=self._room.cramped)
        if self._outage.is_certain:
            return replace(progress, paused=max(0.0, self._outage.due - now), reason=self._outage.reason)
        return progress

    # --- ending ---------------------------------------------------------------------------------

    def _complete(self) -> Summary:
        limited = self._tally.limit_left == 0
        listed = self._source.scopes and self._plan.bounds is None and not self._listings.unlisted
        if not limited and listed:
            self._store.end_sweep(self._source.scopes)
        if not limited:
            self._store.finish_load()
        return self._end("limit reached" if limited else "complete")

    def _end(self, ended: str, message: str | None = None) -> Summary:
        progress = self._progress()
        self._store.update_run(RunState(progress, ended, message))
        self._on_progress(replace(progress, ended=True))
        # Of the whole mirror: a limit bounds what is left of the run alone.
        left = self._tally.left(self._listings, self._open)
        parked = self._store.counts().parked
        return Summary(progress.counts, progress.seconds, ended, parked, self._tally.queued if left is None else left)

    def _interrupted(self) -> Interrupted:
        """End early: all sleepers are awake by now; take what is finished, commit it."""
        self._discard()
        deadline = self._stop.now() + ABANDON_SECONDS
        try:
            while self._flying():
                answer = self._calls.last(max(0.0, deadline - self._stop.now()))
                if answer is not None:
                    self._take_if_good(answer)
        except queue.Empty:
            log.info("left %d requests behind that do not end", self._calls.under_way)
        self._close(0.1)
        try:
            self._commit()
            summary = self._end("interrupted")
        except Stopped as error:
            return Interrupted(f"interrupted; {error}")
        return Interrupted(f"interrupted; the {summary.counts.stored:,} items fetched in this run are stored", summary)

    def _give_up(self, error: BaseException) -> None:
        """Commit what is finished before an error ends the run."""
        self._stop.set()
        self._close(ABANDON_SECONDS)
        for answer in self._calls.left():
            self._take_if_good(answer)
        self._commit()
        summary = self._end("failed", str(error) or type(error).__name__)
        if isinstance(error, FetcherError):
            error.summary = summary

    def _take_if_good(self, answer: Done[About]) -> None:
        """Take a result of a run that is ending; what failed stays due, with no attempt spent."""
        about, result, began, ended = answer
        if isinstance(about, Listing):
            if isinstance(result, Page):
                self._open.at(self._stop.now()).pages.append(result)
            return
        if about is Asked.LIFE:
            return
        if isinstance(result, Mapping):
            good = {key: each for key, each in result.items() if isinstance(each, Detail | Gone)}
            if good:
                self._fetched(tuple(good), good, began, ended)

    def _discard(self) -> None:
        """Take back the calls that no thread has begun; what went unanswered stays due, with no attempt spent."""
        self._outage = Outage(self._plan.max_backoff)
        self._calls.discard()

    def _close(self, patience: float | None = None) -> None:
        self._discard()
        self._calls.close(patience)


_ANSWERED = frozenset({Outcome.GONE, Outcome.LIMITED, Outcome.DENIED})
"""What a probe may end in besides a good answer, to show that the host is there."""
