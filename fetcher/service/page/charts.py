"""Charts of the last minutes, as SVG paths: how fast, how many at once, how fast it may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fetcher.service.engines import Sample
from fetcher.words import counted, duration

SPANS = {120: 2, 300: 3, 600: 5}
"""Seconds that charts can show, and so many of them share a point. One second is one unit across."""

HEIGHT = 100
"""Units up."""

Point = tuple[float, float]
Line = list[list[Point]]
"""Stretches of points; between them nothing was measured."""


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn: `lines` and `areas` are paths by the name of what they show, `bands` stretches across the height.

    `marks` are moments of the `span` seconds up to now. `summary` says in words what is to be seen, `now` what holds,
    and `top` is the value at the upper edge.
    """

    name: str
    title: str
    span: int
    unit: str
    now: str
    top: str
    summary: str
    lines: tuple[tuple[str, str], ...] = ()
    areas: tuple[tuple[str, str], ...] = ()
    bands: tuple[tuple[float, float], ...] = ()
    marks: tuple[float, ...] = ()
    key: tuple[tuple[str, str], ...] = ()


def charts(samples: Sequence[Sample], now: float) -> list[Chart]:
    """The three charts, up to `now` (Unix seconds): of ten minutes, or of less where there are only samples of less."""
    longest = max(SPANS)
    shown = [each for each in samples if now - longest <= each.at <= now + 1]
    age = now - shown[0].at if shown else 0
    span = next(each for each in SPANS if each >= min(age, longest))
    frame = _Frame(now, span, SPANS[span])
    return [_throughput(shown, frame), _in_flight(shown, frame), _pace(shown, frame)]


def _throughput(samples: Sequence[Sample], frame: _Frame) -> Chart:
    line = frame.line(samples, lambda some: _mean(each.rate for each in some))
    highest = _highest(line)
    top = _round_up(highest)
    stored = samples[-1].stored - samples[0].stored if samples else 0
    length = _length(samples)
    return Chart(
        "throughput",
        "Items stored",
        frame.span,
        "items/s",
        figure(_mean(each.rate for each in samples if each.at > frame.now - 10)),
        figure(top),
        f"{counted(stored, 'item')} in {length}, at most {figure(highest)} a second."
        if stored
        else f"No items in {length}.",
        lines=(("main", _path(line, top)),),
        areas=(("main", _area(line, top)),),
    )


def _in_flight(samples: Sequence[Sample], frame: _Frame) -> Chart:
    line = frame.line(samples, lambda some: _mean(each.in_flight for each in some))
    gate = frame.line(samples, lambda some: some[-1].gate)
    top = _round_up(max(_highest(line), _highest(gate)))
    last = samples[-1] if samples else None
    mean = figure(_mean(each.in_flight for each in samples))
    return Chart(
        "in-flight",
        "Requests under way",
        frame.span,
        f"of {last.gate} allowed" if last else "",
        str(last.in_flight if last else 0),
        figure(top),
        f"{mean} on average in {_length(samples)}." if last else "None in the last second.",
        lines=(("bound", _path(gate, top)), ("main", _path(line, top))),
        areas=(("main", _area(line, top)),),
        key=(("main", "under way"), ("bound", "allowed")),
    )


def _pace(samples: Sequence[Sample], frame: _Frame) -> Chart:
    line = frame.line([each for each in samples if each.pace > 0], lambda some: some[-1].pace)
    top = _round_up(_highest(line))
    bands = tuple(frame.bands(samples))
    refusals = [after.at for before, after in pairwise(samples) if after.limited > before.limited]
    refused = samples[-1].limited - samples[0].limited if samples else 0
    paused = sum(width for _, width in bands)
    last = samples[-1].pace if samples else 0
    sentence = f"{counted(refused, 'request')} refused" if refused else "No request refused"
    sentence += f", {duration(paused)} of pauses" if paused else ", no pause"
    return Chart(
        "pace",
        "Pace allowed",
        frame.span,
        "requests/s" if last else "",
        figure(last) if last else "no bound",
        figure(top),
        f"{sentence} in {_length(samples)}.",
        lines=(("main", _path(line, top)),),
        bands=bands,
        marks=tuple(frame.x(at) for at in refusals),
        key=(("main", "allowed"), ("band", "paused"), ("mark", "refused")),
    )


# --- from samples to lines ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Frame:
    """What part of the time is shown: `span` seconds up to `now`, and `step` of them share a point."""

    now: float
    span: int
    step: int

    def x(self, at: float) -> float:
        """Where a moment lies."""
        return round(min(self.span, max(0.0, self.span - (self.now - at))), 1)

    def line(self, samples: Sequence[Sample], value: Callable[[list[Sample]], float]) -> Line:
        """A point for each step with samples; steps begin at fixed times, so that the past stays as it is."""
        stretches: Line = []
        before = 0
        for step, some in self._steps(samples):
            if not stretches or step > before + 2:
                stretches.append([])
            before = step
            stretches[-1].append((self.x(some[-1].at), value(some)))
        return stretches

    def bands(self, samples: Sequence[Sample]) -> Iterator[tuple[float, float]]:
        """From where, and how far, requests were held back."""
        begin = end = 0.0
        for each in samples:
            x = self.x(each.at)
            if each.paused > 0:
                begin, end = (begin if end else x), min(x + 1, self.span)
            elif end:
                yield begin, round(end - begin, 1)
                end = 0.0
        if end:
            yield begin, round(end - begin, 1)

    def _steps(self, samples: Sequence[Sample]) -> Iterator[tuple[int, list[Sample]]]:
        some: list[Sample] = []
        step = 0
        for each in samples:
            if some and int(each.at // self.step) != step:
                yield step, some
                some = []
            step = int(each.at // self.step)
            some.append(each)
        if some:
            yield step, some


def _path(line: Line, top: float) -> str:
    # A point that is alone becomes a dash, or nobody would see it.
    return "".join(f"M{_points(some, top)}" + ("h-2" if len(some) == 1 else "") for some in line)


def _area(line: Line, top: float) -> str:
    return "".join(f"M{some[0][0]:g} {HEIGHT}L{_points(some, top)}V{HEIGHT}Z" for some in line)


def _points(some: Sequence[Point], top: float) -> str:
    return "L".join(f"{x:g} {HEIGHT * (1 - value / top):.1f}" for x, value in some)


# --- words and figures --------------------------------------------------------------------------------


def figure(value: float) -> str:
    """A number with as many digits as matter."""
    value = round(value, 1)
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _length(samples: Sequence[Sample]) -> str:
    """How long there are samples of."""
    if len(samples) < 2:
        return "the last second"
    seconds = samples[-1].at - samples[0].at
    return f"the last {duration(seconds if seconds < 90 else 60 * round(seconds / 60))}"


def _mean(values: Iterable[float]) -> float:
    all_ = list(values)
    return sum(all_) / len(all_) if all_ else 0.0


def _highest(line: Line) -> float:
    return max((value for some in line for _, value in some), default=0.0)


def _round_up(value: float) -> float:
    """A round number that is somewhat more: a line at the upper edge would hardly be seen."""
    value = max(1.05 * value, 1)
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * each for each in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * each >= value)
