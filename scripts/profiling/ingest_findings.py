"""What the figures of the profiling say, by plain rules: the bottleneck, the workers to have, where more stops paying.

Nothing here measures or writes; RULES are printed with what they found.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ingest_cases import FETCHER, PLAIN, Result

NEAR = 0.10
"""Throughputs that differ by less are taken for the same."""

BUSY = 0.8
"""A process that computes for this share of the time, or more, has no time left."""

SLOWER = 1.10
"""One worker may take this many times as long as the plain loop: the noise of a shared machine."""

RESOURCES = {
    "read": "disk",
    "parse": "parsing",
    "wait": "network",
    "store": "writing to SQLite",
    "transform": "transforming",
    "export": "writing NDJSON",
    "rest": "what is not clocked",
}
"""The parts that the plain loop notes, and what each of them waits for or uses; `rest` is what is in none."""

RULES = (
    "Bottleneck: of the parts that the plain loop clocks (reading = disk, parsing, waiting for answers = network,"
    " writing to SQLite, transforming, writing NDJSON, and what is none of them) the one with the greatest share of its"
    " time.",
    f"CPU share: CPU seconds a second of the plain loop. From {BUSY:g} on it is bound by the processor; below that it"
    " waits, for the disk, for answers, or for a core that others have.",
    f"Saturated server: where the simulated API computes for {BUSY:g} of the time or more, it is what is measured.",
    "Noise: where the slowest and fastest rounds of two contestants overlap, they are not told apart; one round alone"
    " tells nothing of noise.",
    f"Recommended concurrency: the fewest workers whose throughput is within {NEAR:.0%} of the best of that strategy,"
    " or cannot be told from it for noise.",
    f"Diminishing returns: the last step to more workers that gained {NEAR:.0%} or more for each doubling over the best"
    " with fewer, beyond noise; behind it more workers do not pay.",
    "Beside the plain loop: the time of the loop divided by that of the strategy at its recommended concurrency, round"
    f" by round, the median; within {NEAR:.0%} they are about the same.",
    "Each mode: what was found for its largest case.",
    f"Regression: fetcher with one worker, time divided by that of the plain loop in the same round; a median above"
    f" {SLOWER:g} is a regression.",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about a case, and the figure it rests on; `what` names the rule."""

    mode: str
    case: str
    what: str
    text: str
    value: float | str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one worker of fetcher compares with the plain loop: a ratio for each round."""

    case: str
    ratios: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def holds(self) -> bool:
        """Whether one worker is not slower, but for noise."""
        return self.median <= SLOWER


def findings(results: Sequence[Result]) -> list[Finding]:
    """All that the rules find, case by case."""
    found: list[Finding] = []
    for name in dict.fromkeys(each.name for each in results):
        own = [each for each in results if each.name == name]
        found += [*_bottleneck(own), *_concurrency(own), *_refusals(own)]
    return found


def conclusions(results: Sequence[Result]) -> list[Finding]:
    """One sentence a mode, from its largest case: where it is slow, what is fastest, and the workers for fetcher."""
    made = []
    for mode in dict.fromkeys(each.mode for each in results):
        own = [each for each in results if each.mode == mode]
        name = max(own, key=lambda each: each.median("items")).name
        own = [each for each in own if each.name == name]
        best = max(own, key=lambda each: each.throughput)
        few = recommended(curve(own, best.strategy))
        bottleneck = next((str(each.value) for each in _bottleneck(own) if each.what == "bottleneck"), "unknown")
        ours = curve(own, FETCHER)
        text = f"bottleneck {bottleneck}; fastest {best.strategy} with {best.workers}"
        text += f", nearly as fast with {few}" if few != best.workers else ""
        if len(ours) > 1:
            gain = last_gain(ours)
            stops = "none paid" if gain is None else f"the last that paid was that to {gain}"
            text += f"; for fetcher **{recommended(ours)}**; of its steps to more workers {stops} (of {name})"
        made.append(Finding(mode, name, "conclusion", text, recommended(ours) if ours else None))
    return made


def verdicts(results: Iterable[Result], cases: Sequence[str]) -> list[Verdict]:
    """One worker beside the plain loop, round by round, in those cases."""
    by = {(each.name, each.strategy, each.workers): each for each in results}
    found = []
    for case in cases:
        plain, ours = by.get((case, PLAIN, 1)), by.get((case, FETCHER, 1))
        if plain is not None and ours is not None:
            pairs = zip(ours.values("seconds"), plain.values("seconds"), strict=True)
            found.append(Verdict(case, tuple(mine / theirs for mine, theirs in pairs)))
    return found


def curve(results: Iterable[Result], strategy: str) -> list[Result]:
    """One strategy by its numbers of workers."""
    return sorted((each for each in results if each.strategy == strategy), key=lambda each: each.workers)


def recommended(line: Sequence[Result]) -> int:
    """The fewest workers that are nearly as fast as the best, or cannot be told from it."""
    best = max(line, key=lambda each: each.throughput)
    return min(each.workers for each in line if each.throughput >= (1 - NEAR) * best.throughput or overlap(each, best))


def last_gain(line: Sequence[Result]) -> int | None:
    """The workers behind which more do not pay, None where no step did."""
    best, *more = line
    found = None
    for each in more:
        doublings = math.log2(each.workers / best.workers)
        if (each.throughput / best.throughput) ** (1 / doublings) >= 1 + NEAR and not overlap(each, best):
            found = each.workers
        best = max(best, each, key=lambda one: one.throughput)
    return found


def overlap(one: Result, other: Result) -> bool:
    """Whether the rounds of two contestants overlap, so that what lies between their medians may be noise."""
    mine, theirs = one.values("seconds"), other.values("seconds")
    several = len(mine) > 1 and len(theirs) > 1
    return several and min(mine) <= max(theirs) and min(theirs) <= max(mine)


def _bottleneck(results: Sequence[Result]) -> list[Finding]:
    plain = next((each for each in results if each.strategy == PLAIN), None)
    found = []
    if plain is not None:
        shares = plain.shares("parts")
        if shares:
            part = max(shares, key=lambda name: shares[name])
            told = ", ".join(f"{RESOURCES[name]} {share:.0%}" for name, share in _falling(shares))
            bound = "bound by the processor" if plain.cpu_share >= BUSY else "it waits for the rest"
            text = (
                f"the bottleneck of the plain loop is **{RESOURCES[part]}** ({told};"
                f" CPU share {plain.cpu_share:.2f}: {bound})"
            )
            found.append(Finding(plain.mode, plain.name, "bottleneck", text, RESOURCES[part]))
    for each in results:
        share = server_share(each)
        if share is not None and share >= BUSY:
            text = f"{each.strategy} with {each.workers}: the simulated API is saturated ({share:.2f} of a core)"
            found.append(Finding(each.mode, each.name, "server", text, share))
    return found


def _concurrency(results: Sequence[Result]) -> list[Finding]:
    plain = next((each for each in results if each.strategy == PLAIN), None)
    found = []
    for strategy in dict.fromkeys(each.strategy for each in results):
        line = curve(results, strategy)
        if len(line) < 2:
            continue
        name, mode = line[0].name, line[0].mode
        workers, gain = recommended(line), last_gain(line)
        chosen = next(each for each in line if each.workers == workers)
        text = f"{strategy}: recommended **{workers}** ({chosen.throughput:,.0f} items/s)"
        found.append(Finding(mode, name, "recommended", text, workers))
        text = (
            f"{strategy}: no step to more workers gained {NEAR:.0%} a doubling beyond noise"
            if gain is None
            else f"{strategy}: more than {gain} workers do not pay"
            if gain < line[-1].workers
            else f"{strategy}: returns had not diminished by {gain} workers"
        )
        found.append(Finding(mode, name, "returns", text, gain))
        if plain is not None:
            pairs = zip(plain.values("seconds"), chosen.values("seconds"), strict=True)
            times = statistics.median(theirs / ours for theirs, ours in pairs)
            word = "faster" if times >= 1 + NEAR else "slower" if times <= 1 / (1 + NEAR) else "about the same"
            text = f"{strategy} with {workers}: {times:.2f} times as fast as the plain loop: {word}"
            found.append(Finding(mode, name, "beside", text, times))
    return found


def _refusals(results: Sequence[Result]) -> list[Finding]:
    found = []
    for each in results:
        limited = statistics.median(facts.get("limited", 0) for facts in each.rounds)
        if limited:
            text = f"{each.strategy} with {each.workers}: refused (429) {limited:,.0f} times"
            found.append(Finding(each.mode, each.name, "refusals", text, limited))
    return found


def server_share(result: Result) -> float | None:
    """The CPU seconds a second of the simulated API; None where there was none."""
    if "server_cpu" not in result.rounds[0]:
        return None
    return statistics.median(each["server_cpu"] / each["seconds"] for each in result.rounds)


def _falling(shares: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda pair: -pair[1])
