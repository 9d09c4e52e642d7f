#!/usr/bin/env python3
"""Measure what `fetcher fetch` promises: pace, CPU, memory, disk, resume and ceiling, beside plain clients.

Each client is a fresh process with a clean environment in an empty folder, the simulated API a process of its own on
loopback, and every database is verified against what the API has before its figure counts. Takes about 20 minutes
(--quick: one or two, and judges nothing). The exit code is 0 even if a target is missed, 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import HERE, Table, Wrong, leave, load, machine, shown
from parts import PARTS, Options, warm_up


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, once: shows that all works, judges nothing")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--repeat", type=at_least(1), metavar="N", help="rounds, clients taking turns (3)")
    parser.add_argument("--items", type=at_least(120), metavar="N", help="items of latency, cpu and size (20000)")
    parser.add_argument(
        "--memory-items", type=at_least(120), nargs=2, metavar="N", help="items of its two runs (50000 200000)"
    )
    parser.add_argument(
        "--resume-items", type=at_least(1000), metavar="N", help="items of the mirror resumed (1000000)"
    )
    parser.add_argument("--timeout", type=float, default=1800, metavar="S", help="seconds for any one run (1800)")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "benchmark_mirror.json", metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the report; it is printed in any case")
    args = parser.parse_args(words)
    usual, tiny = (3, 20_000, [50_000, 200_000], 1_000_000), (1, 600, [600, 2_400], 20_000)
    for name, value in zip(
        ("repeat", "items", "memory_items", "resume_items"), tiny if args.quick else usual, strict=True
    ):
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def at_least(least: int) -> Any:
    """An argument type: a whole number not below `least`."""

    def whole(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        return int(text)

    return whole


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def measured(args: argparse.Namespace, folder: Path) -> list[Table]:
    """The parts that are asked for, one after the other; one that goes wrong does not stop the others."""
    options = Options(
        folder=folder,
        quick=args.quick,
        repeat=args.repeat,
        items=args.items,
        memory_items=(args.memory_items[0], args.memory_items[1]),
        resume_items=args.resume_items,
        timeout=args.timeout,
        say=say,
    )
    warm_up(options)
    tables = []
    for name, part in PARTS.items():
        if args.only and name not in args.only:
            continue
        say(f"== {name}")
        table = Table(name, name, ("what",))
        before, began = load(), time.monotonic()
        try:
            part(options, table)
        except Wrong as error:
            table.wrong = str(error)
            table.rows.clear()
            table.verdicts.clear()
            say(f"wrong: {error}")
        table.data |= {"load_before": before, "load_after": load(), "seconds": round(time.monotonic() - began, 1)}
        table.notes.append(
            f"Took {table.data['seconds']:,.0f} s; load average {before} before, {table.data['load_after']} after."
        )
        tables.append(table)
    return tables


def report(facts: dict[str, Any], tables: Sequence[Table]) -> str:
    """The whole report as Markdown."""
    lines = ["# Benchmark of a mirror", ""]
    if facts["quick"]:
        lines += ["A quick run: too small for the targets, which it does not judge.", ""]
    lines += [f"- {name}: {value}" for name, value in facts["machine"].items()]
    lines += [
        f"- date: {facts['date']}; load average {facts['load_before']} at the start, {facts['load_after']} at the end",
        f"- command: `{facts['command']}`",
        f"- figures are medians of {facts['repeat']} interleaved rounds (least–greatest) where there are several",
        "",
        "| part | what | target | measured | verdict |",
        "|---|---|---|---|---|",
    ]
    words = {True: "met", False: "**missed**", None: "not judged"}
    for table in tables:
        if table.wrong:
            lines.append(f"| {table.name} | | | | **wrong** |")
        lines += [
            f"| {table.name} | {each['what']} | {each['target']} | {each['measured']} | {words[each['met']]} |"
            for each in table.verdicts
        ]
    return "\n".join(lines) + "\n\n" + "\n".join(table.markdown() for table in tables)


def main(words: Sequence[str]) -> int:
    args = arguments(words)
    if not sys.platform.startswith("linux"):
        print("This benchmark reads /proc and process descriptors: it needs Linux.", file=sys.stderr)
        return 2
    facts: dict[str, Any] = {
        "command": shown(["scripts/profiling/benchmark_mirror.py", *words]),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "quick": args.quick,
        "repeat": args.repeat,
        "load_before": load(),
    }
    with tempfile.TemporaryDirectory(prefix="fetcher-benchmark-") as folder:
        facts["machine"] = machine(Path(folder))
        tables = measured(args, Path(folder))
    facts["load_after"] = load()
    text = report(facts, tables)
    print(text)
    parts = [
        {
            "name": table.name,
            "title": table.title,
            "wrong": table.wrong,
            "verdicts": table.verdicts,
            "notes": table.notes,
            **table.data,
        }
        for table in tables
    ]
    written = {args.json: json.dumps({**facts, "parts": parts}, indent=1, ensure_ascii=False) + "\n"}
    if args.markdown:
        written[args.markdown] = text
    for path, content in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return 1 if any(table.wrong for table in tables) else 0


if __name__ == "__main__":
    leave(main)
