#!/usr/bin/env python3
"""Measure how `fetcher fetch` copes with hosts that limit it: time, refusals, what it learns; several seeds, medians.

Each run is a fresh process with a clean environment in an empty folder, the simulated API a process of its own on
loopback. Refusals are counted at the server, from the times of which come the seconds between them, and at the client.
Takes about 40 minutes (--quick: ten, one seed each, and judges nothing). The exit code is 0 even if a target is
missed, 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import HERE, Wrong, environment, leave, load, machine, shown

ITEMS = 800
LEAST_PAUSE = 0.5
"""Refusals closer together than so many seconds are one."""


# --- one run ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Host:
    """A simulated API: where it is, what it notes, when (Unix time) it began, and its process."""

    url: str
    log: Path
    began: float
    pid: int

    def entries(self) -> list[tuple[float, bool]]:
        """(seconds since the start, whether it was refused) of every request so far."""
        return [(each["at"], each["refused"]) for each in map(json.loads, self.log.read_text().splitlines())]


@dataclass(frozen=True, slots=True)
class Fetched:
    """One run of `fetcher fetch`: its own account (the JSON line `end`) and the server's requests meanwhile."""

    end: dict[str, Any]
    requests: tuple[float, ...]
    refusals: tuple[float, ...]
    learned: dict[str, Any]

    @property
    def seconds(self) -> float:
        return float(self.end["seconds"])

    @property
    def blocks(self) -> int:
        """Refusals that came after a good answer: those of the probes that follow are the same block."""
        times = [(at, False) for at in self.requests] + [(at, True) for at in self.refusals]
        blocks, open_ = 0, True
        for at, refused in sorted(times):
            blocks += refused and open_
            open_ = not refused if at else open_
        return blocks

    def rate(self, since: float, until: float) -> float:
        """Requests a second that came at the server in that time, refused ones too."""
        return sum(since <= at < until for at in (*self.requests, *self.refusals)) / (until - since)


@contextlib.contextmanager
def simulated(folder: Path, *options: str, seed: int, items: int | None = ITEMS) -> Iterator[Host]:
    """`fetcher simulate` in a process of its own that notes each request in a file; `items` None where it has none."""
    log = folder / f"requests-{seed}-{time.monotonic_ns()}.jsonl"
    errors = folder / f"{log.stem}.stderr"
    command = [sys.executable, str(HERE / "noted_simulator.py"), str(log), "--port", "0"]
    command += ["--items", str(items)] if items is not None else []
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, "--seed", str(seed), *options],
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline().decode()
        if "http://" not in line:
            raise Wrong(f"the simulator does not start: {errors.read_text()[-2000:]}")
        yield Host(line.split(" at ")[1].split()[0], log, time.time(), process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def fetch(folder: Path, host: Host, db: str, *options: str, timeout: float, **settings: object) -> Fetched:
    """`fetcher fetch` to its end. Raises Wrong when it fails."""
    before = len(host.entries())
    command = [sys.executable, "-m", "fetcher", "fetch", "pr0gramm", db, "--base-url", host.url, "--max-rate", "0"]
    done = subprocess.run(
        [*command, "--log-format", "json", *options],
        cwd=folder,
        env=environment(folder) | {name.upper(): str(value) for name, value in settings.items()},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    ends = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"event": "end"')]
    if done.returncode or not ends:
        raise Wrong(f"exit {done.returncode} of {shown(command)}: {done.stderr.strip()[-2000:]}")
    entries = host.entries()[before:]
    query = (
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT learned FROM sources').fetchone()[0])"
    )
    learned = subprocess.run([sys.executable, "-c", query, db], cwd=folder, capture_output=True, text=True, check=True)
    return Fetched(
        ends[-1],
        tuple(at for at, refused in entries if not refused),
        tuple(at for at, refused in entries if refused),
        json.loads(learned.stdout).popitem()[1],
    )


# --- the parts --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Part:
    """Rows of one measurement: what, target, the values of all seeds, whether their median meets the target."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def judge(self, what: str, target: str, values: Sequence[float], met: Callable[[float], bool]) -> None:
        median = statistics.median(values)
        self.rows.append({"what": what, "target": target, "values": list(values), "median": median, "met": met(median)})


@dataclass(frozen=True, slots=True)
class Options:
    folder: Path
    seeds: Sequence[int]
    quick: bool
    timeout: float = 600.0


def job(options: Options, part: Part) -> None:
    """800 items below a token bucket, then as many again."""
    host_options = ("--rate", "40", "--burst", "40", "--lockout", "1", "--gone", "0.02", "--fault", "503", "0.01")
    for name, more in (("no latency", ()), ("20 ms", ("--latency", "0.02")), ("50 ms", ("--latency", "0.05"))):
        runs = []
        for seed in options.seeds[: 3 if more else None]:
            with simulated(options.folder, *host_options, *more, seed=seed) as host:
                db = f"job-{seed}-{len(more) and more[1]}.db"
                settings = {"request_delay": 0.2}
                first = fetch(options.folder, host, db, timeout=options.timeout, **settings)
                # A new sweep asks for all of them again.
                second = fetch(options.folder, host, db, "--full", timeout=options.timeout, **settings)
                runs.append((first, second))
        judged = not more
        seconds, refused = ("≤ 22", "≤ 6") if judged else ("", "")
        part.judge(f"{name}: first run, s", seconds, [each.seconds for each, _ in runs], lambda n: n <= 22)
        part.judge(f"{name}: … 429s at the server", refused, [len(each.refusals) for each, _ in runs], lambda n: n <= 6)
        part.judge(f"{name}: … at the client", refused, [each.end["limited"] for each, _ in runs], lambda n: n <= 6)
        part.judge(f"{name}: second run, s", "", [each.seconds for _, each in runs], lambda n: n <= 22)
        part.judge(
            f"{name}: … 429s at the server",
            "≤ 2" if judged else "",
            [len(each.refusals) for _, each in runs],
            lambda n: n <= 2,
        )
    part.notes.append("The floor is 19.5 s: 820 requests, 40 of them at once.")


def falling(options: Options, part: Part) -> None:
    """A limit of 40 a second that falls to 10 in the middle of a run."""
    found, most = [], []
    for seed in options.seeds:
        falls = 10.0 + seed % 5
        limit = ("--rate", "40", "--burst", "40", "--lockout", "1", "--rate-after", str(falls), "10")
        with simulated(options.folder, *limit, seed=seed) as host:
            run = fetch(
                options.folder, host, f"falling-{seed}.db", "--limit", "600", timeout=options.timeout, request_delay=0.2
            )
        last = max(at for at in run.refusals if at < falls + 6) if run.refusals else falls
        found.append(max(0.0, last - falls))
        most.append(
            max((sum(at <= other < at + 1 for other in run.refusals) for at in run.refusals if at > falls), default=0)
        )
        part.notes.append(
            f"Seed {seed}: from the fall on, requests in each second:"
            f" {[round(run.rate(falls + n, falls + n + 1)) for n in range(10)]}"
        )
    part.judge("s from the fall to the last refusal by it", "≤ 3", found, lambda n: n <= 3)
    part.judge("most refusals in any second after it", "≤ 1", most, lambda n: n <= 1)


def window(options: Options, part: Part) -> None:
    """70 requests in so many seconds, then everybody is refused for 9 s."""
    items = 150 if options.quick else 200
    for named, more in (("without Retry-After", ()), ("with Retry-After", ("--retry-after", "9"))):
        firsts, seconds, times = [], [], []
        for number, seed in enumerate(options.seeds):
            size = (7, 10, 8, 9)[number % 4]
            with simulated(options.folder, "--window", "70", str(size), "9", *more, seed=seed, items=items) as host:
                db = f"window-{seed}-{len(more)}.db"
                first = fetch(options.folder, host, db, timeout=options.timeout, request_delay=0.2)
                second = fetch(options.folder, host, db, "--full", timeout=options.timeout, request_delay=0.2)
            firsts.append(first.blocks)
            seconds.append(second.blocks)
            times.append(second.seconds)
        part.judge(f"{named}: blocks in the first run", "≤ 1", firsts, lambda n: n <= 1)
        part.judge(f"{named}: … in the second", "0", seconds, lambda n: n == 0)
        part.judge(f"{named}: seconds of the second, {items} items", "", times, lambda _: True)


def knee(options: Options, part: Part) -> None:
    """A host whose answers take longer the more it is asked beyond 8 at once."""
    host_options = ("--knee", "8", "--latency", "0.1", "--jitter", "0.02")
    items, settings = (400 if options.quick else 1500), {"request_delay": 0.2}
    sweep = {}
    for parallel in (4, 6, 8, 10, 12, 16, 24) if not options.quick else (8, 16):
        with simulated(options.folder, *host_options, seed=1, items=items) as host:
            fixed = {"min_parallel_requests": parallel, "max_parallel_requests": parallel}
            run = fetch(options.folder, host, f"knee-{parallel}.db", timeout=options.timeout, **fixed, **settings)
        sweep[parallel] = run.end["stored"] / run.seconds
    best = max(sweep.values())
    enough = min(parallel for parallel, pace in sweep.items() if pace >= 0.97 * best)
    shares, gates = [], []
    for seed in options.seeds:
        with simulated(options.folder, *host_options, seed=seed, items=items) as host:
            run = fetch(
                options.folder,
                host,
                f"knee-learned-{seed}.db",
                timeout=options.timeout,
                max_parallel_requests=32,
                **settings,
            )
        shares.append(run.end["stored"] / run.seconds / best)
        gates.append(run.learned["gate"])
    part.judge("items/s, share of the best fixed number in flight", "≥ 0.85", shares, lambda n: n >= 0.85)
    part.judge(f"gate in the end (fixed: {enough} are enough)", "", gates, lambda _: True)
    part.notes.append(f"Fixed number in flight: items/s: { ({n: round(pace, 1) for n, pace in sweep.items()}) }")


def healthy(options: Options, part: Part) -> None:
    """A host without any limit: 50 workers, 50 ms, the gate learned beside a gate that is fixed, taking turns."""
    items = 2_000 if options.quick else 20_000
    shares: dict[str, list[float]] = {"learned": [], "fixed": []}
    for seed in options.seeds[:3]:
        for name, least in (("learned", 1), ("fixed", 50)):
            with simulated(options.folder, "--latency", "0.05", seed=seed, items=items) as host:
                run = fetch(
                    options.folder,
                    host,
                    f"healthy-{name}-{seed}.db",
                    "--delay",
                    "0",
                    timeout=options.timeout,
                    max_parallel_requests=50,
                    min_parallel_requests=least,
                )
            shares[name].append(run.end["stored"] / run.seconds / 1000)
    part.judge("gate learned: share of workers/latency", "≥ 0.95", shares["learned"], lambda n: n >= 0.95)
    part.judge("gate fixed: share of workers/latency", "", shares["fixed"], lambda _: True)


PARTS = {"job": job, "falling": falling, "window": window, "knee": knee, "healthy": healthy}


# --- the report -------------------------------------------------------------------------------------


def report(facts: dict[str, Any], parts: Sequence[Part]) -> str:
    """The whole report as Markdown."""
    lines = ["# Benchmark of hosts that limit", ""]
    lines += [f"- {name}: {value}" for name, value in facts["machine"].items() if name != "peers"]
    lines += [f"- date: {facts['date']}; load average {facts['load_before']} before, {facts['load_after']} after"]
    lines += [f"- command: `{facts['command']}`", ""]
    lines += ["| part | what | target | median (all seeds) | verdict |", "|---|---|---|---|---|"]
    for part in parts:
        for row in part.rows:
            values = ", ".join(f"{value:.4g}" for value in row["values"])
            verdict = "" if not row["target"] or facts["quick"] else "met" if row["met"] else "**missed**"
            lines.append(
                f"| {part.name} | {row['what']} | {row['target']} | {row['median']:.4g} ({values}) | {verdict} |"
            )
    lines.append("")
    lines += [f"- {part.name}: {note}" for part in parts for note in part.notes]
    return "\n".join(lines) + "\n"


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, small sizes: shows that all works")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="how many (5)")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "benchmark_limits.json", metavar="FILE")
    args = parser.parse_args(words)
    facts: dict[str, Any] = {
        "command": shown(["scripts/profiling/benchmark_limits.py", *words]),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "quick": args.quick,
        "load_before": load(),
    }
    parts = []
    with tempfile.TemporaryDirectory(prefix="fetcher-limits-") as folder:
        facts["machine"] = machine(Path(folder))
        options = Options(Path(folder), range(1, 2 if args.quick else args.seeds + 1), args.quick)
        for name, measure in PARTS.items():
            if not args.only or name in args.only:
                print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)
                part = Part(name)
                measure(options, part)
                parts.append(part)
    facts["load_after"] = load()
    print(report(facts, parts))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"name": part.name, "rows": part.rows, "notes": part.notes} for part in parts]
    args.json.write_text(json.dumps({**facts, "parts": rows}, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    leave(main)
