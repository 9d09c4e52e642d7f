"""`fetcher status`: what a database holds, what is left, and how its runs went."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from fetcher.cli.report import duration, size
from fetcher.mirror import kind_of
from fetcher.settings import Settings, load
from fetcher.sources import Source, of
from fetcher.stores.overview import Overview, RunRow, overview
from fetcher.words import stretch

MOST_RANGES = 10


@click.command()
@click.argument("db", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="everything as one JSON object")
def status(db: Path | None, as_json: bool) -> None:
    """Show what DB (DB_PATH) holds: coverage, counts, work left, last runs; live while a fetch runs elsewhere."""
    path = db or load(Settings, {}).db_path
    kind = kind_of(path)
    found = overview(path, kind.tables)
    if as_json:
        click.echo(json.dumps(asdict(found), default=str))
        return
    for line in _lines(path, found, kind):
        click.echo(line)


def _lines(path: Path, found: Overview, kind: type[Source]) -> list[str]:
    lines = [
        f"{click.format_filename(path)}: mirror of {found.source}{f' ({found.base_url})' if found.base_url else ''},"
        f" {size(found.bytes)}",
        f"Items:    {found.items:,} listed, {found.fetched:,} with their details"
        + (f", {found.gone:,} gone" if found.gone else "")
        + (f", {found.unlisted:,} no longer listed" if found.unlisted else ""),
        f"Work:     {found.work:,} left" + _named(found.waiting, "to be tried again"),
        f"Failed:   {found.parked:,} for good" + _named(found.failed, ""),
    ]
    position = of(kind, "position_text")
    for number, each in enumerate(found.coverage):
        if number == MOST_RANGES:
            lines.append(f"          and {len(found.coverage) - number:,} ranges more (--json shows them)")
            break
        begin = "Coverage:" if not number else "         "
        lines.append(
            f"{begin} scope {each.scope}: {stretch(position, each.lo, each.hi)},"
            f" {each.items:,} items, as of {_when(each.walked_at)}"
        )
    if not found.coverage:
        lines.append("Coverage: nothing listed yet")
    lines += [
        f"Begun:    scope {scope}: a list that is not at its end yet, as of {_when(at)}" for scope, at in found.walks
    ]
    if found.coverage and of(kind, "caveat"):
        lines.append(f"          {of(kind, 'caveat')}")
    if found.sweep > 1:
        lines.append(f"Sweep:    {found.sweep}, {'open' if found.sweep_open else 'complete'}")
    running = found.running
    if running is not None:
        lines.append(f"Running:  {_running(running)}")
    lines += [
        f"{'Runs:   ' if not number else '        '}  {_run(run)}"
        for number, run in enumerate(run for run in found.runs if run != running)
    ]
    return lines


def _named(by_outcome: dict[str, int], what: str) -> str:
    named = ", ".join(f"{count:,} {outcome}" for outcome, count in by_outcome.items())
    return f" ({named}{f' {what}' if what else ''})" if named else ""


def _running(run: RunRow) -> str:
    words = [
        f"since {_when(run.started_at)} (pid {run.pid})",
        f"{run.stored:,} stored",
        f"~{run.left:,} left",
        f"{run.rate:.1f}/s",
    ]
    if run.rate:
        words.append(f"about {duration(run.left / run.rate)} to go")
    if run.paused_until is not None and run.paused_until > time.time():
        words.append(f"paused {duration(run.paused_until - time.time())} ({run.reason})")
    elif run.reason is not None:
        words.append(f"waiting ({run.reason})")
    return ", ".join(words)


def _run(run: RunRow) -> str:
    ended = run.ended or "died"
    took = duration((run.ended_at or run.updated_at) - run.started_at)
    why = f": {run.message}" if run.message else ""
    return (
        f"{_when(run.started_at)}, {took}, {ended}: {run.stored:,} stored, {run.gone:,} gone, {run.failed:,} failed,"
        f" {run.requests:,} requests{why}"
    )


def _when(at: int) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")
