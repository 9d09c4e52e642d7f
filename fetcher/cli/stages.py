"""What a run of several stages says while it goes on, and the figures of each when it has ended."""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click
from tqdm import tqdm

from fetcher.all_settings import all_settings
from fetcher.cli.report import LINE_SECONDS, json_line
from fetcher.cli.running import F, same_command, settings_for, spare_pandas
from fetcher.errors import ConfigurationError, FetcherError, Interrupted
from fetcher.metrics import QUANTILES, quantile
from fetcher.model import Latencies, Outcome, Progress
from fetcher.place import Place
from fetcher.settings import ENV_FILE, unknown_keys
from fetcher.stop import Stop, stop_on_signals
from fetcher.stores.texts import STAGES
from fetcher.texts.ingest import TextProgress, TextSummary
from fetcher.words import counted, duration
from fetcher.words import shown as shown_place

S = TypeVar("S", TextSummary, TextSummary | None)

_VERBS = {"read": "read", "read-items": "read", "embed": "embedded", "aggregate": "written"}


def stage_options(command: F) -> F:
    """Give `command` the options that all runs of stages have."""
    file = click.Path(path_type=Path)
    # Decorators stack up from below, and --help shows the last one first.
    for option, metavar, text in (
        ("--report", "FILE", "write the figures of each stage as JSON"),
        ("--config", "FILE", "settings from a JSON file, by their names"),
        ("--aggregate", "DIR", "keep a JSON file for each category in DIR"),
    ):
        command = click.option(option, type=file, metavar=metavar, help=text)(command)
    return command


def follow_stages(
    run: Callable[..., S],
    given: Mapping[str, Any],
    *,
    db: Place,
    report: Path | None,
    verbose: int,
    log_format: str,
) -> S:
    """Call `run` with what tells of it and lets Ctrl-C end it; says how it went, and returns what it returns."""
    settings_for({}, verbose=verbose, log_format=log_format)
    if report is not None:
        _refuse_unwritable(report)
    for key in unknown_keys(all_settings()):
        logging.getLogger("fetcher").warning("%s: %s is no setting; it is ignored", ENV_FILE, key)
    spare_pandas()
    # Batches hold thousands of rows and no cycles: by its own measure the collector looks through them all the time.
    gc.set_threshold(100_000, 20, 50)
    teller = _Teller(json_lines=log_format == "json")
    stop = Stop()
    try:
        with stop_on_signals(stop):
            summary = run(stop=stop, on_progress=teller.progress, **{k: v for k, v in given.items() if v is not None})
    except Interrupted as error:
        teller.end(error.summary, db, report, failed=True)
        raise Interrupted(f"{error}. Go on with: {same_command()}", error.summary) from None
    except FetcherError as error:
        teller.end(error.summary, db, report, failed=True)
        raise
    teller.end(summary, db, report)
    return summary


def metrics(progress: TextProgress) -> dict[str, dict[str, Any]]:
    """The figures of each stage, and of what they wrote: seconds, and what was done in them."""
    found = {name: _metrics(each, progress.busy.get(name, 0.0)) for name, each in progress.stages.items()}
    writes = progress.writes
    if "embed" in found:
        found["embed"]["backlog"] = round(progress.backlog, 3)
    if writes.transactions:
        found["write"] = {
            "count": writes.rows,
            "calls": writes.transactions,
            "seconds": round(progress.seconds, 3),
            "throughput": _per_second(writes.rows, progress.seconds),
            **_latencies(writes.latencies),
            "refused": 0,
            "errors": 0,
            "error_rate": 0.0,
            "busy": round(min(1.0, writes.latencies.seconds / progress.seconds), 3) if progress.seconds else 0.0,
        }
    order = (*(name for name in STAGES if name != "aggregate"), "write", "aggregate")
    return {name: found[name] for name in order if name in found}


def _metrics(progress: Progress, busy: float) -> dict[str, Any]:
    traffic, counts = progress.traffic, progress.counts
    calls = sum(traffic.outcomes.values())
    in_vain = calls - sum(traffic.outcomes.get(each, 0) for each in (Outcome.OK, Outcome.GONE))
    return {
        "count": counts.stored,
        "rows": counts.rows,
        "calls": calls,
        "seconds": round(progress.seconds, 3),
        "throughput": _per_second(counts.stored, progress.seconds),
        **_latencies(traffic.latencies),
        "refused": traffic.limited,
        "errors": counts.failed,
        "error_rate": round(in_vain / calls, 4) if calls else 0.0,
        "retries": counts.retries,
        "busy": round(busy, 3),
        "in_flight_at_most": traffic.gate,
        "left": progress.left,
    }


def _latencies(latencies: Latencies) -> dict[str, float | None]:
    calls = sum(latencies.counts)
    found = {"mean": latencies.seconds / calls if calls else None}
    found |= {f"p{share * 100:g}": quantile(latencies, share) for share in QUANTILES}
    return {f"latency_{name}": None if each is None else round(each, 4) for name, each in found.items()}


def _per_second(count: int, seconds: float) -> float:
    return round(count / seconds, 2) if seconds else 0.0


class _Teller:
    """Tells of one run: a line that changes on a terminal, a line a minute elsewhere, JSON lines where asked."""

    def __init__(self, *, json_lines: bool) -> None:
        self._json_lines = json_lines
        self._next_line = time.monotonic() + LINE_SECONDS
        self._line: tqdm[Any] | None = None
        if sys.stderr.isatty() and not json_lines:
            self._line = tqdm(total=0, file=sys.stderr, bar_format="{desc}", dynamic_ncols=True, leave=False)

    def progress(self, progress: TextProgress) -> None:
        """Say where the run stands."""
        if self._line is not None:
            self._line.set_description_str(_words(progress))
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            if self._json_lines:
                json_line("progress", stages=metrics(progress))
            else:
                click.echo(_words(progress), err=True)

    def end(self, summary: object, db: Place, report: Path | None, *, failed: bool = False) -> None:
        """Say how it ended; with `failed` its error is said next."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if not isinstance(summary, TextSummary):
            return
        stages = metrics(summary.progress)
        facts = {key: each for key, each in asdict(summary).items() if key not in ("stages", "progress")}
        if self._json_lines:
            json_line("end", **facts, stages=stages)
        else:
            for line in _closing(summary, stages, db, failed=failed):
                click.echo(line)
        if report is not None:
            try:
                report.write_text(json.dumps({**facts, "stages": stages}, indent=2) + "\n", "utf-8")
            except OSError as error:
                raise ConfigurationError(f"--report {report}: {error.strerror}") from None


def _refuse_unwritable(report: Path) -> None:
    """A run may take days: that its figures cannot be written is said before. Raises ConfigurationError."""
    if report.is_dir():
        raise ConfigurationError(f"--report {report}: {os.strerror(errno.EISDIR)}")
    if not report.parent.is_dir():
        raise ConfigurationError(f"--report {report}: there is no folder {report.parent}")
    if not os.access(report if report.exists() else report.parent, os.W_OK):
        raise ConfigurationError(f"--report {report}: {os.strerror(errno.EACCES)}")


def _words(progress: TextProgress) -> str:
    """Where each stage stands, in one line."""
    parts, all_known = [], True
    for name, each in progress.stages.items():
        done = each.counts.stored
        if name == "aggregate" and not done:
            continue
        text = f"{_VERBS[name]} {done:,} of {done + each.left:,}"
        if each.rate and each.left:
            text += f" ({each.rate:,.0f}/s"
            text += f", {duration(each.eta)} left)" if each.eta is not None and all_known else ")"
        if each.counts.failed:
            text += f", {each.counts.failed:,} failed"
        if each.paused:
            text += f", paused {duration(each.paused)} ({each.reason})"
        elif each.reason:
            text += f", waiting ({each.reason})"
        parts.append(text)
        # Until a stage is done, nobody knows how much the next ones will have to do.
        all_known = all_known and not each.left
    if "embed" in progress.stages:
        traffic = progress.stages["embed"].traffic
        parts.append(f"{traffic.in_flight} in flight")
        parts.append(f"window {progress.backlog:.0%} full")
    return " | ".join(parts)


def _closing(
    summary: TextSummary, stages: Mapping[str, Mapping[str, Any]], db: Place, *, failed: bool
) -> Iterator[str]:
    """The lines that a run ends with."""
    if summary.listed:
        gone = f"; no more there: {summary.vanished:,}" if summary.vanished else ""
        yield (
            f"Listed {counted(summary.listed, 'document')}, read {summary.documents:,} into"
            f" {counted(summary.chunks, 'chunk')}{gone}"
        )
    yield f"Embedded {counted(summary.vectors, 'text')} in {duration(summary.seconds)}"
    if "aggregate" in stages:
        yield f"Wrote {counted(summary.files, 'file')} anew, {summary.unchanged:,} did not change"
    if stages:
        counts = "".join(f"{each:>9}" for each in ("done", "per s"))
        times = "".join(f"{each:>7}" for each in ("mean s", "p50 s", "p99 s"))
        yield f"{'stage':<11}{counts}{times}{'refused':>9}{'failed':>8}{'errors':>8}{'busy':>6}"
    for name, each in stages.items():
        times = "".join(
            f"{'-' if each[key] is None else format(each[key], '.3f'):>7}"
            for key in ("latency_mean", "latency_p50", "latency_p99")
        )
        told = f"{each['count']:>9,}{each['throughput']:>9,.1f}{times}{each['refused']:>9,}{each['errors']:>8,}"
        told += f"{each['error_rate']:>8.1%}{each['busy']:>6.0%}"
        yield f"{name:<11}{told}"
    shown = shown_place(db)
    if summary.parked:
        yield (
            f"{summary.parked:,} failed for good: `fetcher failures {shown}` says why,"
            f" `fetcher retry {shown}` tries again"
        )
    if summary.unread:
        yield f"{counted(summary.unread, 'document')} still to be read: `fetcher ingest` does, with what it was given"
    if summary.unembedded:
        yield f"{counted(summary.unembedded, 'text')} still to be embedded: `fetcher embed {shown}` does"
    left = summary.parked or summary.unread or summary.unembedded or any(each.get("left") for each in stages.values())
    if not left and not failed:
        yield f'{shown} is complete. Look into it: fetcher search {shown} "words"'
