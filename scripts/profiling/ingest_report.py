"""The report of the profiling of ingestion: tables as Markdown, throughput against workers as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ingest_cases import PLAIN, Result
from ingest_findings import RULES, Finding, Verdict, conclusions, curve, server_share
from measure import MB

MODES = {
    "file": "Files: read, parse, store",
    "api": "API: pages asked for, parsed, stored",
    "mixed": "Mixed: fetch → transform → SQLite → NDJSON",
}
COLUMNS = ("strategy", "workers", "seconds (least–greatest)", "items/s", "MB/s", "CPU s", "peak MB", "grown MB")
COLUMNS_OF_API = ("answers: median ms", "95 % ms", "requests", "429s", "server's CPU share")


def report(
    facts: Mapping[str, Any],
    results: Sequence[Result],
    found: Sequence[Finding],
    judged: Sequence[Verdict],
    pictures: Mapping[str, str],
) -> str:
    """The whole report as Markdown; `pictures` are file names by mode."""
    lines = ["# Profiling of ingestion", ""]
    if facts["quick"]:
        lines += ["A quick run: too small to conclude anything from, it shows that all works.", ""]
    lines += [f"- {name}: {value}" for name, value in facts["machine"].items()]
    lines += [
        f"- {MODES[mode].partition(':')[0]}: `{run['command']}`, {run['date']}, {run['seconds']:,.0f} s;"
        f" load average {run['load_before']} before, {run['load_after']} after"
        for mode, run in facts["runs"].items()
    ]
    lines += [f"- {note}" for note in facts.get("notes", ())]
    lines += [
        "- Each case is a fresh process, contestants take turns, and figures are medians of the rounds. All contestants"
        " of a case had the same items, by a digest. The clock runs from the first thing asked for to the last commit,"
        " or to the last line of NDJSON: the start of Python and imports are not in it.",
        "- CPU is user and system, children included. Peak MB is the kernel's figure, of pools the sum of all"
        " processes, pages they share counted in each; grown MB is what came on top of what the process had before it"
        " began. Python MB is the peak of `tracemalloc`, from a run of its own that is slower.",
        "",
        "## Findings",
        "",
        *[f"- {MODES[each.mode].partition(':')[0]}: {each.text}" for each in conclusions(results)],
        "",
        *_findings(found),
        "### One worker and the plain loop",
        "",
        *_verdicts(judged, judges=not facts["quick"]),
        "### The rules",
        "",
        *[f"- {rule}" for rule in RULES],
        "",
    ]
    for mode, title in MODES.items():
        own = [each for each in results if each.mode == mode]
        if own:
            lines += [f"## {title}", ""]
            lines += [f"![Throughput against workers]({pictures[mode]})", ""] if mode in pictures else []
            for name in dict.fromkeys(each.name for each in own):
                lines += [f"### {name}", "", *_table([each for each in own if each.name == name]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _findings(found: Sequence[Finding]) -> list[str]:
    lines = []
    for mode, title in MODES.items():
        own = [each for each in found if each.mode == mode]
        lines += [f"**{title}**", ""] if own else []
        for case in dict.fromkeys(each.case for each in own):
            lines.append(f"- {case}")
            lines += [f"    - {each.text}" for each in own if each.case == case]
        lines += [""] if own else []
    return lines


def _verdicts(judged: Sequence[Verdict], *, judges: bool) -> list[str]:
    if not judged:
        return ["Not measured.", ""]
    lines = ["| case | fetcher, one worker / plain loop (rounds) | verdict |", "|---|---|---|"]
    for each in judged:
        rounds = ", ".join(f"{ratio:.2f}" for ratio in each.ratios)
        word = "not judged" if not judges else "holds" if each.holds else "**slower**"
        lines.append(f"| {each.case} | {each.median:.2f} ({rounds}) | {word} |")
    return [*lines, ""]


def _table(results: Sequence[Result]) -> list[str]:
    over_network = "server_cpu" in results[0].rounds[0]
    traced = any(each.traced is not None for each in results)
    head = (*COLUMNS, *(("Python MB",) if traced else ()), *(COLUMNS_OF_API if over_network else ()))
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for each in results:
        cells = [each.strategy, str(each.workers), _spread(each.values("seconds"), each.seconds)]
        size = each.median("bytes")
        cells += [
            f"{each.throughput:,.0f}",
            f"{size / MB / each.seconds:,.1f}" if size else "",
            f"{each.median('cpu'):.2f}",
            f"{each.median('peak') / MB:,.0f}",
            f"{each.median('grown') / MB:,.0f}",
        ]
        if traced:
            cells.append("" if each.traced is None else f"{each.traced / MB:,.1f}")
        if over_network:
            cells += [
                f"{1000 * each.latency('median'):.0f}",
                f"{1000 * each.latency('p95'):.0f}",
                f"{each.median('requests'):,.0f}",
                f"{each.median('limited'):,.0f}",
                f"{server_share(each):.2f}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _spread(values: Sequence[float], median: float) -> str:
    return f"{median:.2f}" if len(values) == 1 else f"{median:.2f} ({min(values):.2f}–{max(values):.2f})"


def draw(results: Sequence[Result], folder: Path) -> dict[str, str]:
    """Draw throughput against workers, a picture a mode; returns their file names by mode."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    names = {}
    for mode in MODES:
        own = [each for each in results if each.mode == mode]
        cases = list(dict.fromkeys(each.name for each in own))
        if not cases:
            continue
        figure, axes = pyplot.subplots(1, len(cases), figsize=(4.2 * len(cases), 3.4), squeeze=False)
        for axis, case in zip(axes[0], cases, strict=True):
            _panel(axis, case, [each for each in own if each.name == case])
        figure.tight_layout()
        names[mode] = f"throughput_{mode}.png"
        # Neither version nor date, so that the same figures make the same file.
        figure.savefig(folder / names[mode], dpi=72, metadata={"Software": None})
        pyplot.close(figure)
    return names


def _panel(axis: Any, case: str, results: Sequence[Result]) -> None:
    for strategy in dict.fromkeys(each.strategy for each in results):
        line = curve(results, strategy)
        if len(line) == 1:
            style = "--" if strategy == PLAIN else ":"
            axis.axhline(line[0].throughput, linestyle=style, color="grey", label=strategy)
        else:
            axis.plot([each.workers for each in line], [each.throughput for each in line], "o-", label=strategy)
    axis.set_title(case, fontsize=9)
    axis.set_xlabel("workers")
    axis.set_ylabel("items/s")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=7)
