"""`fetcher copy`: a database to another place, of the same kind or the other."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from types import TracebackType
from typing import Any

import click
from tqdm import tqdm

from fetcher.cli import EXIT_CODES
from fetcher.cli.database import DATABASE
from fetcher.cli.report import LINE_SECONDS, counted, duration, json_line, plain, start_logging
from fetcher.cli.running import same_command, spare_pandas
from fetcher.copying import Copied, CopyProgress
from fetcher.copying import copy as run
from fetcher.copying.ranges import named
from fetcher.copying.relations import PARTS
from fetcher.errors import Interrupted
from fetcher.place import Place
from fetcher.settings import Settings, load
from fetcher.stop import Stop, stop_on_signals
from fetcher.words import shown

MOST_SHOWN = 20
"""Of what differs, and of what was changed, so much is shown."""

_BAR = "{desc} {percentage:3.0f}% |{bar}| {n:,}/{total:,} rows{postfix}"


@click.command(epilog=EXIT_CODES)
@click.argument("origin", metavar="A", type=DATABASE)
@click.argument("goal", metavar="B", type=DATABASE)
@click.option(
    "--without",
    type=click.Choice(list(PARTS)),
    multiple=True,
    help="leave these out, where B cannot hold them",
)
@click.option("--allow-network-file-system", is_flag=True, default=None, help="B may be on one, at your own risk")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="progress and log as JSON lines on stdout",
)
def copy(
    origin: Place, goal: Place, without: tuple[str, ...], allow_network_file_system: bool | None, log_format: str
) -> int:
    """Copy the database A to B, a new one, then compare the two: from SQLite to PostgreSQL, back, or within either.

    Run again it goes on where it was. No run changes A meanwhile, and nothing else uses B before it is complete. A copy
    that is complete is compared again.
    """
    start_logging(load(Settings, {}).log_level, json_lines=log_format == "json")
    spare_pandas()
    gc.set_threshold(100_000, 20, 50)
    given = {} if allow_network_file_system is None else {"allow_network_file_system": allow_network_file_system}
    stop = Stop()
    with _Teller(json_lines=log_format == "json") as teller:
        try:
            with stop_on_signals(stop):
                done = run(origin, goal, without=without, stop=stop, on_progress=teller.progress, **given)
        except Interrupted as error:
            raise Interrupted(f"{error}. Go on with: {same_command()}") from None
    if log_format == "json":
        facts = asdict(done)
        facts["differences"] = [{**each, "text": str(one)} for each, one in _both(facts["differences"], done)]
        json_line("end", exit_code=done.exit_code, **facts)
    else:
        for line in _lines(origin, goal, done):
            click.echo(line)
    return done.exit_code


def _both(facts: Any, done: Copied) -> Iterator[tuple[Any, Any]]:
    return zip(facts, done.differences, strict=True)


class _Teller:
    """Tells how a copy goes: a bar on a terminal, a line a minute elsewhere, JSON lines where asked."""

    def __init__(self, *, json_lines: bool) -> None:
        self._json_lines = json_lines
        self._next_line = time.monotonic() + LINE_SECONDS
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> _Teller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def progress(self, progress: CopyProgress) -> None:
        """Say where the copy stands."""
        if not self._json_lines and sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(file=sys.stderr, bar_format=_BAR, dynamic_ncols=True, leave=False, total=0)
            self._bar.total, self._bar.n = progress.total, progress.rows
            self._bar.set_description_str(f"{progress.step} {plain(progress.table)}".rstrip(), refresh=False)
            self._bar.set_postfix_str(_pace(progress), refresh=True)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            if self._json_lines:
                json_line("progress", **asdict(progress))
            else:
                where = f"{progress.rows:,} of {progress.total:,} rows, {_pace(progress)}"
                click.echo(f"{progress.step} {plain(progress.table)}: {where}", err=True)


def _pace(progress: CopyProgress) -> str:
    left = f", {duration(progress.eta)} left" if progress.eta is not None else ""
    return f"{progress.rate:,.0f} rows/s{left}"


def _lines(origin: Place, goal: Place, done: Copied) -> Iterator[str]:
    """The lines that a copy ends with."""
    a, b = plain(shown(origin)), plain(shown(goal))
    rows = sum(done.rows.values())
    pace = f" ({done.copied / done.seconds:,.0f} rows/s)" if done.copied and done.seconds else ""
    yield f"Copied {counted(done.copied, 'row')} and compared {rows:,} in {duration(done.seconds)}{pace}"
    if done.rows:
        yield ", ".join(f"{plain(table)} {count:,}" for table, count in done.rows.items() if count)
    if done.strangers:
        yield f"No part of a mirror, so left out: {', '.join(map(plain, done.strangers))}"
    for each in done.changes[:MOST_SHOWN]:
        where = f"{each.table} {named(each.key)}" + (f", {each.column}" if each.column else "")
        yield f"{'Changed' if each.column else 'Left out'}: {plain(where)}: {plain(each.reason)}"
    if done.changed or done.left_out:
        yield (
            f"{counted(done.changed, 'value')} changed and {counted(done.left_out, 'row')} left out, which {b} cannot"
            " hold as they are: its table fetcher_copy_changes has all of them, and what they were"
        )
    for difference in done.differences[:MOST_SHOWN]:
        yield f"Differs: {plain(str(difference))}"
    if done.differences:
        yield f"{b} is not what was read of {a}; an unfinished copy is mended from there on when it is run again"
    else:
        yield f"{b} holds what {a} does" + (", but for that" if done.changed or done.left_out else "")
