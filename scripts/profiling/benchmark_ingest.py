#!/usr/bin/env python3
"""Profile how items come in, sequential beside concurrent: files, an API, and the whole way to NDJSON.

Writes `benchmark_results.json`, `benchmark_report.md` and pictures of throughput against workers into `results/`
(--quick and --only: `results/partial/`, which is not kept). Takes about ten minutes; --quick: less than one, with
two contestants at once, and judges nothing.
--merge FOLDER adds what other runs have written there: each mode is from one run, whose load is told.
--check measures one worker beside the plain loop alone: exit code 1 when it is slower than noise explains.
Needs the extra `profile`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import profile_api_requests as api
import profile_file_io as file_io
import profile_mixed as mixed
from ingest_cases import FETCHER, PLAIN, Beside, Case, Result, alone, once, rounds
from ingest_findings import SLOWER, Verdict, conclusions, findings, verdicts
from ingest_report import draw, report
from measure import HERE, Wrong, environment, leave, load, machine, shown

NEEDED = ("aiohttp", "matplotlib", "pyarrow", "pystac_client")
LIMITS = ("--latency", "0.02", "--burst", "10", "--retry-after", "1")
"""A host that allows so many requests a second, and says how long to wait."""

TRACED_WORKERS = 10


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: of everything, in numbers.

    `latency` is in seconds, `parquet_bytes` for each file, `rate` the requests a second that the host that refuses
    allows, `at_once` the contestants that run at the same time: with more than one no figure is worth anything.
    """

    rounds: int = 2
    workers: tuple[int, ...] = (1, 5, 10, 20)
    windows: tuple[int, ...] = (5, 10, 20, 50)
    files: int = 10_000
    collection: int = 1000
    broken: int = 20
    parquet: int = 5
    parquet_bytes: int = 100_000_000
    items: int = 10_000
    limited_items: int = 3000
    rate: int = 20
    mixed_items: int = 5000
    latency: float = 0.05
    at_once: int = 1


QUICK = Sizes(
    rounds=1,
    workers=(2,),
    windows=(4,),
    files=100,
    collection=20,
    broken=4,
    parquet=2,
    parquet_bytes=100_000,
    items=300,
    limited_items=300,
    rate=100,
    mixed_items=200,
    latency=0.001,
    at_once=2,
)
CHECK = replace(Sizes(), rounds=5, files=4000, items=5000, mixed_items=5000, workers=(1,), windows=(1,))


@dataclass(frozen=True, slots=True)
class Work:
    """Where to work, how much, and of which strategies (all when none is named)."""

    folder: Path
    sizes: Sizes
    only: tuple[str, ...] = ()
    traces: bool = True

    def measured(self, cases: Sequence[Case], count: int, beside: Beside = alone) -> list[Result]:
        """The rounds of some cases, and what Python's memory was in a run of its own."""
        say(f"{cases[0].name}: {len(cases)} contestants, {count} rounds; load {load()}")
        results = rounds(cases, self.folder, count, beside=beside, timeout=600, at_once=self.sizes.at_once)
        return [self._traced(result, case, beside) for result, case in zip(results, cases, strict=True)]

    def _traced(self, result: Result, case: Case, beside: Beside) -> Result:
        chosen = case.workers == TRACED_WORKERS or case.strategy in (PLAIN, *api.SEQUENTIAL)
        if not (self.traces and chosen):
            return result
        return replace(result, traced=once(case, self.folder, "--traced", beside=beside, timeout=600)["traced"])

    def beside_an_api(self, cases: Sequence[Case], items: int) -> list[Result]:
        """The rounds of some cases beside an API whose answers take their time."""
        with api.one_api(self.folder, items, ("--latency", str(self.sizes.latency))) as beside:
            return self.measured(cases, self.sizes.rounds, beside)

    def made(self, kind: str, count: int, *more: str) -> Path:
        """A folder of files. They are made by a process of its own, so that this one stays small."""
        folder = self.folder / kind
        command = [sys.executable, str(HERE / "test_data_generator.py"), kind, str(folder), "--count", str(count)]
        done = subprocess.run(
            [*command, *more], env=environment(self.folder), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Wrong(f"no data: {done.stderr.strip()[-1000:]}")
        return folder


# --- the parts --------------------------------------------------------------------------------------


def small_files(work: Work) -> str:
    return f"{work.sizes.files:,} JSON files of 5 KB"


def many_pages(work: Work) -> str:
    return f"{work.sizes.items:,} items on {-(-work.sizes.items // api.PAGE):,} pages"


def whole_way(work: Work) -> str:
    return f"{work.sizes.mixed_items:,} items, end to end"


def of_files(work: Work) -> list[Result]:
    """Small files, a collection of which some are broken, and large Parquet files."""
    sizes = work.sizes
    folder = work.made("json", sizes.files)
    found = work.measured(file_io.cases(small_files(work), folder, sizes.workers, only=work.only), sizes.rounds)
    if work.only:
        return found
    folder = work.made("collection", sizes.collection, "--broken", str(sizes.broken))
    name = f"a collection of {sizes.collection:,} items, {sizes.broken} of them broken"
    found += work.measured(file_io.cases(name, folder, sizes.workers), sizes.rounds)
    folder = work.made("parquet", sizes.parquet, "--bytes", str(sizes.parquet_bytes))
    name = f"{sizes.parquet} Parquet files of {sizes.parquet_bytes // 1_000_000} MB"
    # Each run writes half a gigabyte and takes a quarter of a minute: one round, and none under tracemalloc.
    large = replace(work, traces=False)
    return found + large.measured(file_io.cases(name, folder, sizes.workers), max(1, sizes.rounds - 1))


def of_apis(work: Work) -> list[Result]:
    """One page, many pages, and a host that refuses what comes too fast."""
    sizes = work.sizes
    many = api.cases(many_pages(work), sizes.windows, only=work.only)
    found = work.beside_an_api(many, sizes.items)
    if work.only:
        return found
    few = api.cases(f"{api.PAGE} items on one page", (10,))
    untraced = replace(work, traces=False)
    found += untraced.beside_an_api(few, api.PAGE)
    limited = api.cases(f"{sizes.limited_items:,} items, {sizes.rate} requests a second allowed", (10,))
    host = partial(
        api.own_api, folder=work.folder, items=sizes.limited_items, options=(*LIMITS, "--rate", str(sizes.rate))
    )
    return found + untraced.measured(limited, max(1, sizes.rounds - 1), host)


def of_the_whole_way(work: Work) -> list[Result]:
    """Fetch, transform, store, export."""
    sizes = work.sizes
    # 4 is the default of STAC_WINDOWS.
    windows = sizes.windows if work.only else sorted({4, *sizes.windows})
    return work.beside_an_api(mixed.cases(whole_way(work), windows), sizes.mixed_items)


PARTS: dict[str, Callable[[Work], list[Result]]] = {"file": of_files, "api": of_apis, "mixed": of_the_whole_way}


def judged(work: Work, results: Sequence[Result]) -> list[Verdict]:
    """One worker beside the plain loop, where that is promised."""
    return verdicts(results, (small_files(work), many_pages(work), whole_way(work)))


# --- the command ------------------------------------------------------------------------------------


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def arguments(words: Sequence[str]) -> tuple[argparse.Namespace, Sizes]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, once: shows that all works")
    parser.add_argument("--check", action="store_true", help="only: is one worker slower than the plain loop?")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="MODE", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FOLDER", help="measure nothing: put results together")
    parser.add_argument(
        "--note", action="append", default=[], metavar="TEXT", help="--merge: what a reader should know"
    )
    parser.add_argument("--no-trace", action="store_true", help="leave out the runs under tracemalloc")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="where to write")
    for name, usual in asdict(Sizes()).items():
        many = isinstance(usual, tuple)
        kind = float if isinstance(usual, float) else int
        least = 0 if name in ("broken", "latency") else 1
        told = " ".join(map(str, usual)) if many else usual
        option = "--" + name.replace("_", "-")
        parser.add_argument(
            option, type=partial(number, kind, least), nargs="+" if many else None, metavar="N", help=f"({told})"
        )
    args = parser.parse_args(words)
    base = CHECK if args.check else QUICK if args.quick else Sizes()
    if args.check and args.quick:
        base = replace(CHECK, rounds=3, files=2000, items=2000, mixed_items=2000)
    given = {name: getattr(args, name) for name in asdict(base) if getattr(args, name) is not None}
    return args, replace(
        base, **{name: tuple(each) if isinstance(each, list) else each for name, each in given.items()}
    )


def number(kind: type[int | float], least: int, text: str) -> int | float:
    """What an option says, where it is at least that. Raises ArgumentTypeError."""
    try:
        value = kind(text)
    except ValueError:
        value = kind(least - 1)
    if not least <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number from {least} on")
    return value


def missing() -> list[str]:
    """The libraries of the extra `profile` that are not installed."""
    return [name for name in NEEDED if find_spec(name) is None]


def main(words: Sequence[str]) -> int:
    args, sizes = arguments(words)
    if absent := missing():
        print(f"benchmark_ingest.py needs {', '.join(absent)}: pip install -e '.[profile]'", file=sys.stderr)
        return 2
    if args.merge:
        return merged(args.merge, args.results or HERE / "results", args.note)
    command = shown(["scripts/profiling/benchmark_ingest.py", *words])
    facts: dict[str, Any] = {"quick": args.quick, "runs": {}}
    folder = args.results or HERE / "results" / ("partial" if args.quick or args.only else "")
    results: list[Result] = []
    held: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="fetcher-ingest-") as name:
        only = (PLAIN, FETCHER) if args.check else ()
        work = Work(Path(name), sizes, only, traces=not (args.no_trace or args.check or args.quick))
        facts["machine"] = machine(work.folder)
        for mode, part in PARTS.items():
            if args.only and mode not in args.only:
                continue
            about = {"command": command, "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
            about |= {"sizes": asdict(sizes), "load_before": load()}
            began = time.monotonic()
            results += part(work)
            held = judged(work, results)
            facts["runs"][mode] = {**about, "load_after": load(), "seconds": round(time.monotonic() - began, 1)}
            if not args.check:
                # After each part: the last one may take long, or go wrong.
                write(folder, facts, results, held)
    if not args.check:
        write(folder, facts, results, held, draw(results, folder))
    for each in held:
        ratios = ", ".join(f"{ratio:.2f}" for ratio in each.ratios)
        word = "holds" if each.holds else f"SLOWER than {SLOWER:g} times"
        word = word if args.check or not args.quick else "not judged"
        print(f"{each.case}: fetcher with one worker / plain loop: {each.median:.2f} ({ratios}): {word}")
    # A part without a verdict has not passed.
    passed = len(held) == len(facts["runs"]) and all(each.holds for each in held)
    return 1 if args.check and not passed else 0


def merged(given: Sequence[Path], folder: Path, notes: Sequence[str] = ()) -> int:
    """Put together what several runs have written; of a mode in several of them, the last one counts."""
    facts: dict[str, Any] = {"quick": False, "runs": {}, "notes": list(notes)}
    by_mode: dict[str, list[Result]] = {}
    held: dict[str, Verdict] = {}
    for each in given:
        try:
            data = json.loads((each / "benchmark_results.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Wrong(f"--merge {each}: no benchmark_results.json of ours: {error}") from None
        facts["machine"] = data["machine"]
        facts["quick"] = facts["quick"] or data["quick"]
        facts["runs"] |= data["runs"]
        by_mode |= {mode: [Result.of(one) for one in data["results"] if one["mode"] == mode] for mode in data["runs"]}
        held |= {one["case"]: Verdict(one["case"], tuple(one["ratios"])) for one in data["verdicts"]}
    results = [one for mode in PARTS for one in by_mode.get(mode, ())]
    known = {one.name for one in results}
    write(folder, facts, results, [one for one in held.values() if one.case in known], draw(results, folder))
    return 0


def write(
    folder: Path,
    facts: Mapping[str, Any],
    results: Sequence[Result],
    held: Sequence[Verdict],
    pictures: Mapping[str, str] | None = None,
) -> None:
    """The results as JSON, and the report with pictures where they are drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    found = findings(results)
    text = report(facts, results, found, held, pictures or {})
    (folder / "benchmark_report.md").write_text(text, encoding="utf-8")
    data = {
        **facts,
        "conclusions": [asdict(each) for each in conclusions(results)],
        "findings": [asdict(each) for each in found],
        "verdicts": [{**asdict(each), "median": each.median, "holds": each.holds} for each in held],
        "results": [each.plain() for each in results],
    }
    text = json.dumps(data, indent=1, ensure_ascii=False)
    (folder / "benchmark_results.json").write_text(text + "\n", encoding="utf-8")
    more = ", ".join(("benchmark_results.json", *(pictures or {}).values()))
    say(f"written: {os.path.relpath(folder)}/benchmark_report.md, {more}")


if __name__ == "__main__":
    leave(main)
