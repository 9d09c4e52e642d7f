"""How a host's throughput grows with the requests in flight: a curve through what was measured, and what it advises.

Pure arithmetic: no clock, no network. The curve is the Universal Scalability Law of N. J. Gunther ("A General Theory of
Computational Scalability Based on Rational Functions", 2008): with N requests in flight a host answers

    X(N) = λN / (1 + σ(N − 1) + κN(N − 1))

a second; λ is what it does one at a time, σ what they wait for each other, κ what they cost each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from fetcher.pace import LONG_PAUSE

ENOUGH = 0.95
"""This share of the most that a host does is enough: the last bit costs the most requests in flight."""

BELOW = 0.9
"""So far below the rate that went well a host is to be asked."""

BELOW_REFUSAL = 0.8
"""So far below the rate that a host seems to allow which has refused."""

SLOWER = 2.0
SCATTER = 0.01
"""So many times as long as one at a time, and so many seconds besides, answers may take: threads of ours wait too."""

HEADROOM = 2
"""Where the rate is the bound, so many times as many at once: the pace holds, also where some answers are slower."""

LEAST = 2
"""With a single request open one slow answer holds up all: it is advised only where two were refused."""

FEWEST_ANSWERS = 8
"""With fewer good answers nothing can be said."""

SURE = 0.1
UNSURE = 0.3
"""Up to this relative error, of the latencies and of the curve, it is good or fair; beyond, poor."""

MODEL_ERROR = 0.05
"""The relative error that a measurement has besides its scatter: no host follows a formula exactly."""

BURST_SECONDS = 1.0
"""A host is held to let the requests of so many seconds pass at once before it refuses, as most limiters do."""

Confidence = Literal["good", "fair", "poor"]


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at one level: requests in flight on average, mean latency in seconds, and its relative error.

    `level` is how many were allowed at once, `rate` how many were answered a second.
    """

    level: int
    in_flight: float
    latency: float
    error: float
    rate: float


@dataclass(frozen=True, slots=True)
class Curve:
    """The Universal Scalability Law with its three parameters: λ (requests a second), σ and κ."""

    single: float
    waiting: float
    crosstalk: float

    def latency(self, n: float) -> float:
        """Seconds that an answer takes with `n` requests in flight (Little's law: N / X)."""
        return (1.0 + self.waiting * (n - 1.0) + self.crosstalk * n * (n - 1.0)) / self.single

    def throughput(self, n: float) -> float:
        """Requests answered a second with `n` in flight."""
        return n / self.latency(n)

    def peak(self, most: int) -> float:
        """The highest throughput with 1 to `most` in flight."""
        return max(self.throughput(n) for n in range(1, most + 1))


@dataclass(frozen=True, slots=True)
class Advice:
    """How many requests at once and a second to ask for; why so; and how sure that is."""

    parallel: int
    rate: float
    why: str
    confidence: Confidence
    doubt: str


def fit(points: Sequence[Point]) -> Curve:
    """The curve through `points`, by weighted least squares; at least one point.

    N / X(N), which is the latency, is linear in 1, N − 1 and N(N − 1). No coefficient may be negative: all ways to
    leave some of them out are tried, and the best that is possible is taken.
    """
    rows = []
    for each in points:
        n = max(1.0, each.in_flight)
        weight = 1.0 / (math.hypot(each.error, MODEL_ERROR) * each.latency)
        rows.append(([weight, weight * (n - 1.0), weight * n * (n - 1.0)], weight * each.latency))
    best, least = [1.0 / _mean(points), 0.0, 0.0], math.inf
    for size in (1, 2, 3):
        for used in combinations(range(3), size):
            found = _solve(rows, used) if 0 in used else None
            if found is None or found[0] <= 0 or min(found) < 0:
                continue
            left = sum((sum(a * b for a, b in zip(row, found, strict=True)) - y) ** 2 for row, y in rows)
            # One parameter more has to earn its keep: rounding alone makes it no better.
            if left < least * (1.0 - 1e-9) - 1e-15:
                best, least = [1.0 / found[0], found[1] / found[0], found[2] / found[0]], left
    return Curve(*best)


def advise(
    points: Sequence[Point],
    curve: Curve,
    *,
    ceiling: float = 0.0,
    refused_at: float | None = None,
    held: Point | None = None,
) -> Advice:
    """What to ask for, given all levels that went well; `refused_at` is the rate that a host allows which refused.

    Never more at once than the highest of `points`, nor so many that answers take more than twice as long by the curve;
    nor faster than `ceiling` (0 = any), nor than what went well or, after a refusal, seems to be allowed. What was
    advised before and `held` since stays advised, at the rate that it brought.
    """
    highest = max(each.level for each in points)
    most = max(n for n in range(1, highest + 1) if n == 1 or curve.latency(n) <= SLOWER * curve.latency(1) + SCATTER)
    fastest = max(each.rate for each in points)
    bound = min(ceiling or math.inf, math.inf if refused_at is None else BELOW_REFUSAL * refused_at)

    def fewest(rate: float) -> int:
        return next(n for n in range(1, most + 1) if n == most or curve.throughput(n) >= ENOUGH * rate)

    parallel = min(max(LEAST, min(HEADROOM * fewest(bound), fewest(curve.peak(most)))), most)
    if held is not None:
        parallel = held.level
    well = BELOW * (held.rate if held is not None else min(fastest, curve.throughput(parallel)))
    if refused_at is not None and bound == BELOW_REFUSAL * refused_at:
        rate, why = _rounded(bound), f"{BELOW_REFUSAL:.0%} of the {refused_at:.3g}/s that it seems to allow"
    elif ceiling and fastest >= BELOW * ceiling:
        rate, why = ceiling, "your ceiling, which went well; --max-rate 0 lifts it"
    else:
        rate, why = _rounded(well, up=True), f"{BELOW:.0%} of what went well: the rest is left to others"
    confidence, doubt = _confidence(points, curve)
    if refused_at is not None and confidence == "good":
        confidence, doubt = "fair", "one refusal is all that is known of the limit"
    return Advice(parallel, rate, why, confidence, doubt)


def rate_at_refusal(begun: Sequence[float], refused: float, retry_after: float = 0.0) -> float:
    """How many requests a second a host allows that refused the one begun at `refused`, given when each was begun.

    A token bucket of that rate and a burst of BURST_SECONDS admits no more than rate × (t + BURST_SECONDS) in any t
    seconds; the seconds that come nearest to that tell. A host that asks to wait for longer than such a bucket has a
    use for counts over a longer time: it is known to admit those before the refusal in the time until it admits again.
    """
    before = sorted(each for each in begun if each <= refused)
    if before and retry_after >= LONG_PAUSE:
        return max(1, len(before) - 1) / (refused - before[0] + retry_after)
    counts = range(len(before), 0, -1)
    return max((n / (refused - at + BURST_SECONDS) for n, at in zip(counts, before, strict=True)), default=0.0)


def _confidence(points: Sequence[Point], curve: Curve) -> tuple[Confidence, str]:
    scatter = max(each.error for each in points)
    squares = [(curve.latency(max(1.0, each.in_flight)) / each.latency - 1.0) ** 2 for each in points]
    misfit = math.sqrt(sum(squares) / len(squares))
    worst = max(scatter, misfit)
    if worst > UNSURE:
        what = "latency scatters" if scatter >= misfit else "the curve misses what was measured"
        return "poor", f"{what} by {worst:.0%}: measure again at another hour"
    if len(points) < 3:
        return "fair", f"only {len(points)} level{'s' if len(points) > 1 else ''} of requests at once went well"
    if worst > SURE:
        return "fair", f"the measurements are uncertain by {worst:.0%}"
    return "good", f"the measurements are certain to {worst:.0%}"


def _solve(rows: Sequence[tuple[list[float], float]], used: Sequence[int]) -> list[float] | None:
    """The least squares solution in the columns `used`, 0 in the others; None where the rows do not determine it.

    By Gram and Schmidt, orthogonal columns one after the other: squares of large numbers are never summed up.
    """
    basis: list[list[float]] = []
    upper: list[list[float]] = []
    for column in used:
        vector = [row[column] for row, _ in rows]
        size = math.hypot(*vector)
        along = []
        for other in basis:
            share = sum(a * b for a, b in zip(vector, other, strict=True))
            vector = [a - share * b for a, b in zip(vector, other, strict=True)]
            along.append(share)
        left = math.hypot(*vector)
        if left <= 1e-9 * size or not size:
            return None
        basis.append([a / left for a in vector])
        upper.append([*along, left])
    wanted = [sum(y * a for (_, y), a in zip(rows, vector, strict=True)) for vector in basis]
    found = [0.0] * 3
    for at in reversed(range(len(used))):
        rest = sum(upper[later][at] * found[used[later]] for later in range(at + 1, len(used)))
        found[used[at]] = (wanted[at] - rest) / upper[at][at]
    return found


def _mean(points: Sequence[Point]) -> float:
    return sum(each.latency for each in points) / len(points)


def _rounded(rate: float, *, up: bool = False) -> float:
    """A rate in two digits, as a person would write it: rounded down, or to the nearest where it may go `up`."""
    if rate <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return round(math.floor(rate / unit + (0.5 if up else 1e-9)) * unit, 6)
