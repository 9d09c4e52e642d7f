"""A run against a Profile in virtual time: what pace and gate would do, without a server, threads or waiting."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field

from fetcher.client import parse_retry_after
from fetcher.limits import Limits, Ticket
from fetcher.model import Outcome
from fetcher.simulator.bodies import LIMIT_REACHED
from fetcher.simulator.conditions import Conditions
from fetcher.simulator.faults import Answer, Ending
from fetcher.simulator.profile import Profile

CLIENT_SECONDS = 0.0004
"""What a request costs the client: the time between two starts at least."""


@dataclass(slots=True)
class Rehearsal:
    """What happened: times are seconds since the start.

    `seconds` is when the last answer came, `starts` when each request began, `refusals` when each refusal came; `trace`
    holds (time, pace, gate) now and then, infinite for no pace; `answered` requests were not refused.
    """

    seconds: float = 0.0
    answered: int = 0
    starts: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    trace: list[tuple[float, float, int]] = field(default_factory=list)

    def rate(self, since: float, until: float) -> float:
        """Requests begun a second in that time."""
        return sum(since <= each < until for each in self.starts) / (until - since)


def rehearse(
    limits: Limits,
    profile: Profile,
    *,
    workers: int,
    items: int | None = None,
    seconds: float = math.inf,
    latency: float = 0.001,
    sigma: float = 0.0,
    seed: int = 0,
    at: float = 0.0,
    timeout: float = 30.0,
) -> Rehearsal:
    """Ask a host that is as `profile` says for `items`, or for so many seconds, by `workers` at once.

    An answer takes `latency` seconds (median), scattered log-normally by `sigma`, longer beyond the profile's knee;
    `at` is how long the host has been there, `timeout` how many seconds are waited for an answer that never comes.
    """
    conditions = Conditions(profile)
    chance = random.Random(seed)
    done = Rehearsal()
    todo = items if items is not None else 2**62
    again: list[int] = []
    attempts: dict[int, int] = {}
    flying: list[tuple[float, int, Ticket, int, Answer]] = []
    key, now, free_at, traced_at, waited = 0, 0.0, 0.0, -math.inf, False
    while (todo or again or flying) and now < seconds:
        wait: float | None = None
        if (todo or again) and len(flying) < workers:
            wait = limits.wait(now)
            if wait is not None:
                waited = waited or wait > 0
                wait = max(wait, free_at - now)
        if wait is not None and wait <= 0:
            ticket = limits.begin(now, waited=waited)
            waited, free_at = False, now + CLIENT_SECONDS
            done.starts.append(now)
            if again:
                number = again.pop()
            else:
                key, todo, number = key + 1, todo - 1, key
            fault = _fault(conditions, now + at, len(flying) + 1, number, attempts)
            takes = latency * conditions.slowdown(len(flying) + 1) * math.exp(chance.gauss(0.0, sigma))
            takes += min(fault.delay + fault.drip if fault.ending is not Ending.HANG else timeout, timeout)
            heapq.heappush(flying, (now + takes, len(done.starts), ticket, number, fault))
        elif flying and (wait is None or flying[0][0] <= now + wait):
            now, _, ticket, number, fault = heapq.heappop(flying)
            outcome = _outcome(fault)
            after = parse_retry_after(fault.headers.get("Retry-After"))
            if limits.end(ticket, now, outcome, status=fault.status, retry_after=after) is Outcome.LIMITED:
                done.refusals.append(now)
            else:
                done.answered += 1
                done.seconds = now
            if outcome in (Outcome.LIMITED, Outcome.UNAVAILABLE):
                again.append(number)
        else:
            assert wait is not None
            # A little later than asked for, as a thread wakes.
            now += wait + 1e-6
        if now - traced_at >= TRACE_SECONDS or limits.shut:
            traced_at = now
            done.trace.append((now, 0.0 if limits.shut else limits.pace.rate, limits.gate.limit))
    return done


TRACE_SECONDS = 0.05

_OUTCOMES = {404: Outcome.GONE, 429: Outcome.LIMITED}


def _outcome(fault: Answer) -> Outcome:
    """What the client makes of it."""
    if fault.body == LIMIT_REACHED:
        return Outcome.LIMITED
    if fault.status == 200 and not fault.body.startswith(b"{"):
        return Outcome.MALFORMED
    if fault.status is None or fault.status == 200:
        return Outcome.OK if fault.raw is None and fault.part == 1.0 else Outcome.UNAVAILABLE
    return _OUTCOMES.get(fault.status, Outcome.UNAVAILABLE)


def _fault(conditions: Conditions, now: float, in_flight: int, number: int, attempts: dict[int, int]) -> Answer:
    """What is given instead of the true answer; an Answer without status is the true one."""
    for outage in conditions.profile.outages:
        if outage.how == "refuse" and outage.left(now):
            return Answer(part=0.0)
    fault = conditions.turned_away(now, in_flight)
    if fault is None:
        attempts[number] = attempts.get(number, 0) + 1
        fault = conditions.profile.fault("info", number, attempts[number])
    return fault or Answer()
