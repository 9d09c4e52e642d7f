"""`fetcher search`: find items and chunks by their words, by what they mean, or by both."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from fetcher.cli import EXIT_CODES
from fetcher.cli.database import DATABASE
from fetcher.place import Place
from fetcher.search import PRIVATE_MARKS, Hit, Mode, Search
from fetcher.words import shown

_OPEN, _CLOSE = PRIVATE_MARKS

MOST_LINES = 3
"""Of a table's snippet so many lines are shown."""


@click.command(epilog=EXIT_CODES)
@click.argument("db", type=DATABASE)
@click.argument("words", nargs=-1, required=True)
@click.option(
    "--mode",
    type=click.Choice(["text", "vector", "hybrid"]),
    help="text: what has all WORDS; vector: what is nearest to them in meaning; hybrid: both, fused by reciprocal rank"
    "  [default: hybrid where DB has vectors and what made them is there, else text]",
)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="at most N hits")
@click.option("--embedder", metavar="VALUE", help="what makes the vector of WORDS  [EMBEDDER, default wordllama]")
@click.option("--embed-url", "embed_base_url", metavar="VALUE", help="where its API is  [EMBED_BASE_URL]")
@click.option("--embed-model", metavar="VALUE", help="the model that the API is asked for  [EMBED_MODEL]")
@click.option("--json", "as_json", is_flag=True, help="everything as one JSON list, words found in [brackets]")
def search(db: Place, words: tuple[str, ...], limit: int, mode: Mode | None, as_json: bool, **given: Any) -> None:
    """Find what WORDS say in DB, best first: items by tags and comments, chunks by text and chapter.

    DB may be searched while it is written elsewhere. For words the query syntax of SQLite's FTS5 can be used: '"a
    phrase"', 'tags : word', 'one OR two', 'begin*'. What is no such query is taken as plain words.
    """
    logging.basicConfig(format="fetcher: %(message)s", level=logging.WARNING)
    finder = Search(db, **given)
    hits = finder.find(" ".join(words), limit, mode=mode, marks=("[", "]") if as_json else PRIVATE_MARKS)
    if not hits:
        lacks = "is near to" if mode == "vector" else "has"
        click.echo(f"fetcher: nothing in {shown(db)} {lacks} these words", err=True)
    if as_json:
        click.echo(json.dumps([_plain(hit) for hit in hits]))
        return
    styled = sys.stdout.isatty()
    # A terminal that cannot show a character shows another.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    for hit in hits:
        for line in _shown_item(hit, styled=styled) if _is_item(hit) else _shown_chunk(hit, styled=styled):
            click.echo(line)


def _plain(hit: Hit) -> dict[str, Any]:
    """What JSON has of a hit; of an item that no chunk was found of, nothing about chunks."""
    told = asdict(hit)
    return told if hit.chunk is not None else {name: told[name] for name in ("key", "rank", "snippets")}


def _is_item(hit: Hit) -> bool:
    return hit.chunk is None or hit.key != hit.chunk.id


def _shown_item(hit: Hit, *, styled: bool) -> Iterator[str]:
    """The lines of an item: its key once, then for each table what was found there."""
    head = str(hit.key)
    width = max(40, _width() - len(head) - 2)
    for table, lines in hit.snippets.items():
        told = f"{table}: "
        short = sum(map(len, lines)) <= width
        for line in ["; ".join(lines)] if short else lines[:MOST_LINES]:
            yield f"{head}  {told}{_marked(_cut(line, width - len(told)), styled=styled)}"
            head, told = " " * len(head), " " * len(told)


def _shown_chunk(hit: Hit, *, styled: bool) -> Iterator[str]:
    """The lines of a chunk: its book and chapter, then what was found in its text."""
    assert hit.chunk is not None
    width = max(40, _width())
    # Where the words are in the chapter's title, it comes with marks.
    chapter = "".join(hit.snippets.get("source_chapter", ())) or hit.chunk.source_chapter
    head = " › ".join(filter(None, (hit.chunk.source_book or hit.document, chapter)))
    yield _marked(_cut(head, width), styled=styled)
    for line in hit.snippets["text"]:
        yield f"    {_marked(_cut(line, width - 4), styled=styled)}"


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 120)


def _cut(line: str, width: int) -> str:
    """The part of a line around its first hit, or its beginning where it has none, at most so wide."""
    if len(line) <= width:
        return line
    start = max(0, min(max(0, line.find(_OPEN)) - width // 3, len(line) - width))
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
