"""`fetcher verify`: is the mirror complete, and whole?"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import click

from fetcher.cli.database import DATABASE
from fetcher.cli.report import counted, plain
from fetcher.mirror import kind_of, mirrors_nothing
from fetcher.place import Place
from fetcher.settings import Settings, load
from fetcher.sources import of
from fetcher.stores.texts_verify import TextsVerdict
from fetcher.stores.verify import Verdict
from fetcher.stores.verify import verify as check
from fetcher.words import shown, stretch

MOST_SHOWN = 20

VERIFY_EXIT_CODES = """\b
Exit codes:
  0    complete: all that was ever listed is here, and whole
  3    something is missing or failed for good, or does not agree
  6    the database cannot be read
"""


@click.command(epilog=VERIFY_EXIT_CODES)
@click.argument("db", required=False, type=DATABASE)
@click.option("--json", "as_json", is_flag=True, help="everything as one JSON object")
def verify(db: Place | None, as_json: bool) -> int:
    """Check that DB (DB_PATH) is complete: covered without a hole, every item with its details or a tombstone, every
    document read and every chunk with its vector, no work left, and nothing in the file contradicting the rest. Asks
    the network nothing; reads the whole file.
    """
    path = db or load(Settings, {}).db_path
    steps = sys.stderr.isatty()

    def on_step(what: str) -> None:
        if steps:
            click.echo(f"\r\033[KLooking at {what} …", nl=False, err=True)

    source = None if mirrors_nothing(path) else kind_of(path)
    verdict = check(path, source.tables if source is not None else (), on_step=on_step)
    if steps:
        click.echo("\r\033[K", nl=False, err=True)
    caveat = of(source, "caveat") if source is not None else ""
    if as_json:
        click.echo(json.dumps({"complete": verdict.complete, **_facts(verdict), "caveat": caveat}))
        return 0 if verdict.complete else 3
    lines = []
    if source is not None:
        lines += _lines(path, replace(verdict, texts=None), of(source, "position_text"), caveat)
    if verdict.texts is not None:
        title = f"{'Texts of ' if lines else ''}{shown(path)}"
        lines += _text_lines(title, verdict.texts, () if lines else verdict.wrong)
    for line in lines:
        click.echo(line)
    return 0 if verdict.complete else 3


def _facts(verdict: Verdict) -> dict[str, Any]:
    facts = asdict(verdict)
    if verdict.texts is not None:
        facts["texts"] = {"complete": verdict.texts.complete, **facts["texts"]}
    return facts


def _text_lines(title: str, verdict: TextsVerdict, damage: Sequence[str]) -> list[str]:
    held = (
        f"{counted(verdict.documents, 'document')}, {counted(verdict.chunks, 'chunk')},"
        f" {counted(verdict.vectors, 'vector')}"
    )
    if verdict.as_of is None:
        return [f"{title}: no document was listed yet"]
    if verdict.complete and not damage:
        return [f"{title}: {held}; complete as of {_when(verdict.as_of)}"]
    lines = [f"{title}: {held}; not complete"]
    if verdict.unfinished_count:
        named = [
            f"{each.stage} {plain(str(each.key))}"
            + (f" of {plain(each.where)}" if each.where else "")
            + (f" ({each.outcome} for good)" if each.parked else "")
            for each in verdict.unfinished
        ]
        names = _names(named, verdict.unfinished_count)
        lines.append(f"Work left: {counted(verdict.unfinished_count, 'thing')}: {names}")
    wrong = [*map(plain, verdict.wrong), *damage]
    lines += _some("Does not agree", wrong, "thing")
    lines.append(
        "The file contradicts itself: restore it from a backup, or read the texts anew"
        if wrong
        else "Go on with `fetcher ingest` (to read), `fetcher embed`, or either with --aggregate;"
        " `fetcher failures` shows what failed, `fetcher retry` tries it again"
    )
    return lines


def _when(at: int) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def _lines(path: Place, verdict: Verdict, position: Callable[[int], str], caveat: str) -> list[str]:
    name = shown(path)
    items = counted(verdict.items, "item") + (f", {verdict.gone:,} of them gone" if verdict.gone else "")
    if verdict.complete:
        assert verdict.as_of is not None
        return [
            f"{name}: {items}; complete as of {_when(verdict.as_of)}",
            *([f"Which means: {caveat}"] if caveat else []),
        ]
    lines = [f"{name}: {items}; not complete"]
    if verdict.as_of is None:
        lines.append("Nothing was listed yet")
    holes = [f"scope {each.scope}: {stretch(position, each.lo, each.hi)}" for each in verdict.uncovered]
    lines += _some("Not listed", holes, "range")
    if verdict.without_details_count:
        names = _names(verdict.without_details, verdict.without_details_count)
        lines.append(f"Without details: {counted(verdict.without_details_count, 'item')}: {names}")
    if verdict.unfinished_count:
        named = [
            f"{each.stage} {plain(str(each.key))}" + (f" ({each.outcome} for good)" if each.parked else "")
            for each in verdict.unfinished
        ]
        names = _names(named, verdict.unfinished_count)
        lines.append(f"Work left: {counted(verdict.unfinished_count, 'thing')}: {names}")
    if verdict.submitted:
        lines.append(
            f"Submitted: {counted(verdict.submitted, 'id')} not fetched yet; `fetcher serve` goes on with them"
        )
    lines += _some("Does not agree", verdict.wrong, "thing")
    lines.append(
        "The file contradicts itself: restore it from a backup, or mirror anew"
        if verdict.wrong
        else "Run `fetcher fetch` to go on; `fetcher failures` shows what failed, `fetcher retry` tries it again"
    )
    return lines


def _some(what: str, found: Sequence[str], thing: str) -> list[str]:
    lines = [f"{what}: {each}" for each in found[:MOST_SHOWN]]
    if len(found) > MOST_SHOWN:
        lines.append(f"{what}: {counted(len(found) - MOST_SHOWN, thing)} more (--json shows them)")
    return lines


def _names(found: Sequence[object], count: int) -> str:
    names = ", ".join(map(str, found[:MOST_SHOWN]))
    return names + (" …" if count > MOST_SHOWN else "")
