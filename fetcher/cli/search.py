"""`fetcher search`: find items by the words of their tags and comments."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from fetcher.cli import EXIT_CODES
from fetcher.search import PRIVATE_MARKS, Hit
from fetcher.search import search as find

_OPEN, _CLOSE = PRIVATE_MARKS

MOST_LINES = 3
"""Of a table's snippet so many lines are shown."""


@click.command(epilog=EXIT_CODES)
@click.argument("db", type=click.Path(path_type=Path))
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="at most N items")
@click.option("--json", "as_json", is_flag=True, help="everything as one JSON list, hits in [brackets]")
def search(db: Path, words: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find the items of DB whose tags and comments have all WORDS, best first; also while a fetch runs elsewhere.

    The query syntax of SQLite's FTS5 can be used: '"a phrase"', 'tags : word', 'one OR two', 'begin*'. What is no
    such query is taken as plain words.
    """
    hits = find(db, " ".join(words), limit, marks=("[", "]") if as_json else PRIVATE_MARKS)
    if not hits:
        click.echo(f"fetcher: nothing in {click.format_filename(db)} has these words", err=True)
    if as_json:
        click.echo(json.dumps([asdict(hit) for hit in hits]))
        return
    styled = sys.stdout.isatty()
    # A terminal that cannot show a character shows another.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    for hit in hits:
        for line in _shown(hit, styled=styled):
            click.echo(line)


def _shown(hit: Hit, *, styled: bool) -> Iterator[str]:
    """The lines of a hit: its key once, then for each table what was found there."""
    head = str(hit.key)
    width = max(40, min(shutil.get_terminal_size().columns, 120) - len(head) - 2)
    for table, lines in hit.snippets.items():
        told = f"{table}: "
        short = sum(map(len, lines)) <= width
        for line in ["; ".join(lines)] if short else lines[:MOST_LINES]:
            yield f"{head}  {told}{_marked(_cut(line, width - len(told)), styled=styled)}"
            head, told = " " * len(head), " " * len(told)


def _cut(line: str, width: int) -> str:
    """The part of a line around its first hit, at most so wide."""
    if len(line) <= width:
        return line
    start = max(0, min(line.index(_OPEN) - width // 3, len(line) - width))
    part = line[start : start + width]
    return f"{'…' if start else ''}{part.strip()}{'…' if start + width < len(line) else ''}"


def _marked(line: str, *, styled: bool) -> str:
    """The line with its hits in bold, or in brackets; without anything that a terminal would obey."""
    parts = line.split(_OPEN)
    shown = [_harmless(parts[0])]
    for part in parts[1:]:
        hit, _, rest = part.partition(_CLOSE)
        hit = _harmless(hit)
        shown += [click.style(hit, bold=True) if styled else f"[{hit}]", _harmless(rest)]
    return "".join(shown)


def _harmless(text: str) -> str:
    """Remote text with a space for each control character; the joiner within an emoji stays."""
    return "".join(each if each.isprintable() or each == "\u200d" else " " for each in text)
