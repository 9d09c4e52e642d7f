#!/usr/bin/env python3
"""Draw how pace and gate come to what a host allows, in virtual time: docs/images/limits.png and profiles.png.

The first shows hosts that limit in one way each, the second every profile that `fetcher simulate` has by name.

Needs matplotlib (the extra `profile`). Nothing is asked over a network; the same picture comes out every time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
matplotlib.rcParams["svg.hashsalt"] = "fetcher"

from matplotlib import pyplot  # noqa: E402

from fetcher.gate import Gate  # noqa: E402
from fetcher.limits import Limits  # noqa: E402
from fetcher.pace import Pace  # noqa: E402
from fetcher.simulator.limiter import Limit, Window  # noqa: E402
from fetcher.simulator.profile import Knee, Profile, Share  # noqa: E402
from fetcher.simulator.profiles import PROFILES  # noqa: E402
from fetcher.simulator.rehearsal import Rehearsal, rehearse  # noqa: E402

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
MAX_PAUSE = 10.0
"""Seconds of pause at most, as MAX_BACKOFF_SECONDS: some hosts of the pictures ask for hours."""

SMOOTH = 1.0
"""Seconds over which the requests begun are averaged."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A host, how it is asked, and the lines that it allows: (since, until, requests a second or in flight)."""

    title: str
    profile: Profile
    seconds: float
    workers: int
    latency: float
    sigma: float = 0.1
    rates: Sequence[tuple[float, float, float]] = ()
    gates: Sequence[tuple[float, float, float]] = ()


SCENES = (
    Scene(
        "40 a second, burst 40, a refusal locks out for 1 s; 1 % lone 503",
        Profile(limits=(Limit(rate=40, burst=40, lockout=1),), mishaps=(Share("503", 0.01),)),
        60,
        10,
        0.01,
        rates=[(0, 60, 40)],
    ),
    Scene(
        "40 a second, falling to 10 after 20 s, up to 30 after 60 s",
        Profile(limits=(Limit(rate=40, burst=40, lockout=1, later=((20, 10), (60, 30))),)),
        120,
        10,
        0.01,
        rates=[(0, 20, 40), (20, 60, 10), (60, 120, 30)],
    ),
    Scene(
        "70 in 10 s, then everyone is blocked for 9 s (Retry-After: 9)",
        Profile(windows=(Window(requests=70, seconds=10, block=9, retry_after="9"),)),
        120,
        10,
        0.01,
        rates=[(0, 120, 7)],
    ),
    Scene(
        "no limit, slower the more is asked beyond 8 at once (0.2 s)",
        Profile(knee=Knee(8)),
        60,
        32,
        0.2,
        rates=[(0, 60, 40)],
        gates=[(0, 60, 8)],
    ),
    Scene("healthy: 50 ms, 50 workers, latency scattered by 0.6", Profile(), 5, 50, 0.05, 0.6, gates=[(0, 5, 50)]),
)


# What a profile allows, where it says so, and how long it takes to see it.
_ALLOWED: Mapping[str, tuple[float, Sequence[tuple[float, float, float]], Sequence[tuple[float, float, float]]]] = {
    "healthy": (5, (), [(0, 5, 50)]),
    "limited": (120, [(0, 60, 40), (60, 120, 10)], ()),
    "window": (120, [(0, 120, 7)], ()),
    "outage": (120, (), ()),
    "slow": (60, [(0, 60, 40)], [(0, 60, 8)]),
    "expiring": (5, (), ()),
    "changing": (5, (), ()),
    "hostile": (120, [(0, 120, 60)], ()),
    "flaky": (10, (), ()),
}
NAMED = tuple(
    Scene(
        f"{name}: {profile.about}",
        profile,
        _ALLOWED[name][0],
        50 if name in ("healthy", "expiring", "changing", "flaky") else 10 if name != "slow" else 32,
        max(profile.latency, 0.05),
        rates=_ALLOWED[name][1],
        gates=_ALLOWED[name][2],
    )
    for name, profile in PROFILES.items()
)


def draw(scenes: Sequence[Scene], path: Path) -> None:
    """One row for each scene: requests a second on the left, in flight on the right."""
    figure, rows = pyplot.subplots(len(scenes), 2, figsize=(10, 2.3 * len(scenes)), layout="constrained")
    for scene, (left, right) in zip(scenes, rows, strict=True):
        limits = Limits(Pace(), Gate(1, scene.workers), most=scene.workers, max_pause=MAX_PAUSE)
        run = rehearse(
            limits,
            scene.profile,
            workers=scene.workers,
            seconds=scene.seconds,
            latency=scene.latency,
            sigma=scene.sigma,
        )
        pace(left, scene, run)
        gate(right, scene, run)
    for axes in rows[-1]:
        axes.set_xlabel("seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=80)


def pace(axes: Any, scene: Scene, run: Rehearsal) -> None:
    times = [0.1 * number for number in range(round(10 * scene.seconds))]
    begun = [run.rate(max(0.0, at - SMOOTH), at) if at > 0.2 else 0.0 for at in times]
    for since, until, rate in scene.rates:
        axes.hlines(rate, since, until, color="0.6", linestyle="--", linewidth=1)
    axes.plot(times, begun, color="0.7", linewidth=0.8, label="begun, mean of 1 s")
    in_force = [(at, rate) for at, rate, _ in run.trace if rate < 1e6]
    axes.step(*zip(*in_force, strict=True), where="post", linewidth=1.4, label="pace") if in_force else None
    top = 1.5 * max((rate for _, _, rate in scene.rates), default=max(begun))
    axes.plot(run.refusals, [0.03 * top] * len(run.refusals), "rx", markersize=5, label="refused")
    axes.set(ylim=(0, top), xlim=(0, scene.seconds), ylabel="requests/s")
    axes.set_title(scene.title, fontsize=9, loc="left")
    axes.legend(fontsize=7, loc="upper right", frameon=False, ncols=3)


def gate(axes: Any, scene: Scene, run: Rehearsal) -> None:
    for since, until, number in scene.gates:
        axes.hlines(number, since, until, color="0.6", linestyle="--", linewidth=1)
    axes.step([at for at, _, _ in run.trace], [size for _, _, size in run.trace], where="post", linewidth=1.2)
    axes.set(ylim=(0, 1.15 * max(size for _, _, size in run.trace)), xlim=(0, scene.seconds), ylabel="gate")


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=IMAGES, help="where the pictures go")
    args = parser.parse_args(words)
    for name, scenes in (("limits.png", SCENES), ("profiles.png", NAMED)):
        draw(scenes, args.folder / name)
        print(args.folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
