"""What a run says while it goes on: a bar on a terminal, a line a minute elsewhere, JSON lines where asked."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Any

import click
from tqdm import tqdm

from fetcher.model import Progress, Start, Summary
from fetcher.place import Place, PostgresUrl
from fetcher.settings import Settings
from fetcher.sources import Source, of
from fetcher.words import counted as counted
from fetcher.words import duration as duration
from fetcher.words import shown
from fetcher.words import size as size

_ID = "ID "
_BAR = "{percentage:3.0f}% |{bar}| {n:,}/~{total:,}{postfix}"
_UNKNOWN = "{n:,}{postfix}"

LINE_SECONDS = 60.0
"""Between two progress lines where no terminal shows a bar."""


def plain(text: str, keep: str = "") -> str:
    """A text from elsewhere as a terminal may show it: what it could act upon is escaped, `keep` is not."""
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode() for each in text
    )


def start_logging(level: str, *, json_lines: bool) -> logging.Logger:
    """Send our log to the terminal, above a progress bar if there is one, or to stdout as JSON lines."""
    log = logging.getLogger("fetcher")
    handler: logging.Handler = _JsonLines() if json_lines else _AboveTheBar()
    handler.setFormatter(_OneLine("%(asctime)s %(message)s", "%H:%M:%S"))
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False
    return log


class _OneLine(logging.Formatter):
    """What a message repeats from elsewhere, the name of a file for one, may hold anything."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = plain(record.message)
        return super().formatMessage(record)


class _AboveTheBar(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


class _JsonLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        json_line("log", level=record.levelname, message=record.getMessage())


def json_line(event: str, **facts: Any) -> None:
    """One event as one line of JSON on stdout; `at` is Unix time."""
    click.echo(json.dumps({"event": event, "at": round(time.time(), 3), **facts}, default=str))


class Reporter:
    """Shows one run; a context manager, so that no bar is left behind."""

    def __init__(
        self, settings: Settings, *, order: str, db: Place, json_lines: bool, position: Callable[[int], str]
    ) -> None:
        self._settings = settings
        self._position = position
        self._order = order
        self._db = db
        self._json_lines = json_lines
        self._bar: tqdm[Any] | None = None
        self._next_line = time.monotonic() + LINE_SECONDS

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def start(self, start: Start) -> None:
        """Say what there is to do."""
        if self._json_lines:
            json_line("start", **asdict(start))
            return
        for line in start_lines(start, self._settings, self._order, self._position):
            click.echo(line)
        sys.stdout.flush()
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=start.estimate or 0,
                file=sys.stderr,
                bar_format=_UNKNOWN if start.estimate is None else _BAR,
                dynamic_ncols=True,
                leave=False,
                mininterval=0.2,
            )

    def progress(self, progress: Progress) -> None:
        """Say where the run stands."""
        if self._bar is not None:
            if self._bar.total is not None:
                self._bar.total = _done(progress) + progress.left
            self._bar.n = _done(progress)
            self._bar.set_postfix_str(state_words(progress), refresh=True)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            if self._json_lines:
                json_line("progress", **_flat(progress))
            else:
                click.echo(
                    f"{_done(progress):,} of ~{_done(progress) + progress.left:,} items{_comma(progress)}", err=True
                )

    def end(self, summary: Summary | None) -> None:
        """Say how it ended and what to do next."""
        self.__exit__(None, None, None)
        if summary is None:
            return
        if self._json_lines:
            facts = asdict(summary)
            facts.pop("texts")  # They tell of their own end.
            json_line("end", **facts.pop("counts"), **facts)
            return
        for line in summary_lines(summary, self._db, self._settings.start_from):
            click.echo(line)


def place(kind: type[Source]) -> Callable[[int], str]:
    """How a run over a source says where it is."""
    said: Callable[[int], str] = of(kind, "position_text")
    return (lambda number: f"{_ID}{number}") if kind.tables[0].is_numbered else said


def start_lines(start: Start, settings: Settings, order: str, position: Callable[[int], str]) -> list[str]:
    """The lines that a run begins with; `position` says where something is in the source's own terms."""
    lines = []
    if start.text is not None:
        lines.append(start.text)
    elif start.newest is None or start.oldest is None:
        lines.append("Nothing new to list")
    elif order == "oldest":
        lines.append(f"Fetching items from {position(start.oldest)} up to {position(start.newest).removeprefix(_ID)}")
    else:
        lines.append(f"Fetching items from {position(start.newest)} down to {position(start.oldest).removeprefix(_ID)}")
    if start.estimate is not None:
        lines.append(f"Estimated items: ~{start.estimate:,}")
    if start.queued:
        lines.append(f"Queued from before: {start.queued:,}")
    if start.text is None:
        lines.append(f"Parallel workers: {start.workers}")
        lines.append(f"DB batch size: {settings.db_batch_size} items")
    return lines


def state_words(progress: Progress) -> str:
    """Rate, time left, failures and pauses, as the bar shows them."""
    words = [f"{progress.rate:.1f}/s" if progress.rate else "–/s"]
    if progress.eta is not None:
        words.append(f"{duration(progress.eta)} left")
    if progress.listing:
        words.append("listing")
    if progress.counts.gone:
        words.append(f"{progress.counts.gone:,} gone")
    if progress.counts.failed:
        words.append(f"{progress.counts.failed:,} failed")
    if progress.paused:
        words.append(f"paused {duration(progress.paused)} ({progress.reason})")
    elif progress.reason:
        words.append(f"waiting ({progress.reason})")
    return ", ".join(words)


def summary_lines(summary: Summary, db: Place, start_from: int | None = None) -> list[str]:
    """The lines that a run ends with."""
    counts = summary.counts
    name = shown(db)
    pace = f" ({counts.stored / summary.seconds:,.1f}/s)" if summary.seconds else ""
    lines = [
        f"Stored {counted(counts.stored, 'item')} in {duration(summary.seconds)}{pace};"
        f" {counts.gone:,} gone, {counts.failed:,} failed",
        f"Listed {counted(counts.listed, 'item')} on {counted(counts.pages, 'page')}, {counts.new:,} of them new",
        f"Requests: {counts.requests:,}; retries: {counts.retries:,}; refused (429): {counts.limited:,}",
    ]
    if summary.ended == "limit reached":
        # Of some lists nobody knows how long they are.
        left = f"~{summary.left:,} items are left" if summary.left else "more may be left"
        lines.append(f"The limit is reached, {left}: run again without it to go on")
    elif summary.ended == "complete" and summary.parked:
        lines.append(f"{summary.parked:,} failed for good: `fetcher failures` says why, `fetcher retry` tries again")
    elif summary.ended == "complete" and start_from is not None:
        lines.append(
            f"This run was bound by START_FROM {start_from}, there it is complete: run without it for the rest"
        )
    elif summary.ended == "complete":
        quoted = shlex.quote(f"./{name}" if name.startswith("-") else name)
        program = "psql" if isinstance(db, PostgresUrl) else "sqlite3"
        lines.append(f"{name} is complete; run again to bring it up to date. Look into it: {program} {quoted}")
    return lines


def _done(progress: Progress) -> int:
    return progress.counts.stored + progress.counts.gone + progress.counts.failed


def _comma(progress: Progress) -> str:
    words = state_words(progress)
    return f", {words}" if words else ""


def _flat(progress: Progress) -> dict[str, Any]:
    facts = asdict(progress)
    return {**facts.pop("counts"), **facts}
