"""`fetcher status`: what a database holds, what is left, and how its runs went."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

import click

from fetcher.cli.database import DATABASE
from fetcher.cli.report import duration, size
from fetcher.mirror import kind_of, mirrors_nothing
from fetcher.place import Place
from fetcher.settings import Settings, load
from fetcher.sources import Source, of
from fetcher.stores.overview import Overview, RunRow, overview
from fetcher.stores.texts import SOURCE
from fetcher.stores.texts_overview import StageState, TextsOverview, texts_overview
from fetcher.words import counted, shown, stretch

MOST_RANGES = 10


@click.command()
@click.argument("db", required=False, type=DATABASE)
@click.option("--json", "as_json", is_flag=True, help="everything as one JSON object")
def status(db: Place | None, as_json: bool) -> None:
    """Show what DB (DB_PATH) holds: coverage, documents, counts, work left, last runs; live while a run goes on."""
    path = db or load(Settings, {}).db_path
    kind = None if mirrors_nothing(path) else kind_of(path)
    found = overview(path, kind.tables) if kind is not None else None
    texts = texts_overview(path)
    if as_json:
        facts = asdict(found) if found is not None else {"source": SOURCE}
        click.echo(json.dumps({**facts, "texts": asdict(texts) if texts is not None else None}, default=str))
        return
    name = shown(path)
    lines = []
    if kind is not None and found is not None:
        address = f" ({found.base_url})" if found.base_url else ""
        lines += [f"{name}: mirror of {found.source}{address}, {size(found.bytes)}", *_lines(found, kind)]
    if texts is not None:
        lines += [f"Texts of {name}:" if lines else f"{name}: texts, {size(texts.bytes)}", *_text_lines(texts)]
    for line in lines:
        click.echo(line)


def _lines(found: Overview, kind: type[Source]) -> list[str]:
    lines = [
        f"Items:    {found.items:,} listed, {found.fetched:,} with their details"
        + (f", {found.gone:,} gone" if found.gone else "")
        + (f", {found.unlisted:,} no longer listed" if found.unlisted else ""),
        f"Work:     {found.work:,} left" + _named(found.waiting, "to be tried again"),
        f"Failed:   {found.parked:,} for good" + _named(found.failed, ""),
    ]
    if found.jobs is not None:
        jobs = found.jobs
        lines.append(
            f"Jobs:     {jobs.jobs:,} submitted, {jobs.unfinished:,} of them not completed:"
            f" {counted(jobs.open_ids, 'id')} to go" + (f", {jobs.failed_ids:,} failed" if jobs.failed_ids else "")
        )
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


def _text_lines(found: TextsOverview) -> list[str]:
    model = f", of {found.model} ({found.dimension} dimensions)" if found.model else ""
    lines = [
        f"Documents: {found.documents:,} listed, {found.read:,} read"
        + (f", {found.changed:,} of them changed since" if found.changed else "")
        + (f", {found.unlisted:,} no longer there" if found.unlisted else ""),
        f"Chunks:    {found.chunks:,} in {found.categories:,} categor{'y' if found.categories == 1 else 'ies'}",
        f"Vectors:   {found.vectors:,}{model}",
    ]
    lines += [f"{f'{each.name}:':<11}{_stage(each)}" for each in found.stages]
    running = found.running
    lines += [f"{'Running:' if not number else '':<11}{_running(run)}" for number, run in enumerate(running)]
    lines += [
        f"{'Runs:' if not number else '':<11}{_run(run)}"
        for number, run in enumerate(run for run in found.runs if run not in running)
    ]
    return lines


def _stage(each: StageState) -> str:
    words = f"{each.work:,} left{_named(each.waiting, 'to be tried again')}"
    return words + (f", {each.parked:,} failed for good{_named(each.failed, '')}" if each.parked else "")


def _named(by_outcome: Mapping[str, int], what: str) -> str:
    named = ", ".join(f"{count:,} {outcome}" for outcome, count in by_outcome.items())
    return f" ({named}{f' {what}' if what else ''})" if named else ""


def _running(run: RunRow) -> str:
    words = [
        f"{_of_stage(run)}since {_when(run.started_at)} (pid {run.pid})",
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
        f"{_of_stage(run)}{_when(run.started_at)}, {took}, {ended}: {run.stored:,} stored, {run.gone:,} gone,"
        f" {run.failed:,} failed, {run.requests:,} requests{why}"
    )


def _of_stage(run: RunRow) -> str:
    """Which stage a run was of, where a run has several."""
    return "" if run.stage == "detail" else f"{run.stage}, "


def _when(at: int) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")
