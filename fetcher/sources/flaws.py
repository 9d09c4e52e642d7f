"""What keeps a class of another package from being a source, in a sentence that its author can act upon."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from fetcher.model import Table
from fetcher.settings import Settings, SourceOptions

NEEDED = ("name", "base_url", "tables", "Options", "universe", "page")
"""What the class has to have; `scopes` too, which may be the instance's alone."""

OURS = (
    "coverage",
    "failures",
    "job_batches",
    "job_failures",
    "job_work",
    "jobs",
    "runs",
    "search",
    "search_text",
    "sources",
    "walks",
    "work",
)
"""Tables and views of every database, besides those whose names begin with `search_` or `_sqlite`."""

LIFE = ("first_seen_at", "listed_at", "fetched_at", "unlisted_at", "gone_at")
"""Columns that the table of items gets besides."""


def flaw_of(kind: object, name: str) -> str | None:
    """What is wrong with the source that an entry point of that name offers, None if nothing is."""
    return next(_flaws(kind, name), None)


def _flaws(kind: object, name: str) -> Iterator[str]:
    if not inspect.isclass(kind):
        yield "what its entry point names is no class"
        return
    source: Any = kind
    missing = [each for each in NEEDED if not hasattr(kind, each)]
    if missing:
        yield f"its class {kind.__qualname__} lacks {', '.join(missing)}"
        return
    if source.name != name:
        yield f"its class {kind.__qualname__} has the name {source.name!r} and its entry point {name!r}"
    yield from _flaws_of_options(source.Options)
    yield from _flaws_of_tables(source.tables)
    yield from (f"{each} is no method" for each in ("universe", "page") if not callable(getattr(kind, each)))


def _flaws_of_options(options: object) -> Iterator[str]:
    if not (inspect.isclass(options) and issubclass(options, SourceOptions)):
        yield "its Options are no subclass of SourceOptions"
        return
    taken = sorted(set(options.model_fields) & set(Settings.model_fields))
    if taken:
        yield f"its Options have {', '.join(taken)}, which fetcher itself has"


def _flaws_of_tables(tables: object) -> Iterator[str]:
    if not (isinstance(tables, tuple) and tables and all(isinstance(each, Table) for each in tables)):
        yield "its tables are no tuple of at least one Table"
        return
    items = tables[0]
    if items.parent is not None:
        yield f"its first table {items.name} has a parent: the items come first"
    yield from (f"it has two tables {each}" for each in _twice([table.name for table in tables]))
    for table in tables:
        if table.name.lower() in OURS or table.name.lower().startswith(("search_", "sqlite_", "_sqlite")):
            yield f"its table {table.name} has a name that fetcher itself uses"
        if not table.columns:
            yield f"its table {table.name} has no columns"
            return
        names = [*([table.parent] if table.parent else []), *(column.name for column in table.columns)]
        taken = {"extra", *(LIFE if table is items else ())}.intersection(map(str.lower, names))
        yield from (f"its table {table.name} has two columns {each}" for each in _twice(names))
        yield from (f"its table {table.name} has a column {each}, which fetcher adds itself" for each in sorted(taken))
    if items.columns[0].type not in ("integer", "text"):
        yield f"the key of its items, {items.columns[0].name}, is of type {items.columns[0].type}, not integer or text"


def _twice(names: Sequence[str]) -> list[str]:
    """The names that come twice; those that differ in case alone are one to SQLite."""
    lower = [each.lower() for each in names]
    return sorted({each for each in names if lower.count(each.lower()) > 1})
