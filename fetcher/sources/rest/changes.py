"""What may change in a description once a database was made from it."""

from __future__ import annotations

from collections.abc import Mapping

from fetcher.errors import ConfigurationError
from fetcher.sources.rest.description import Child, Description, Type

_FIXED = ("pages", "key", "url", "params", "items", "item", "cursor", "order", "newest", "first")
"""Keys of `list` on which hangs what was proven so far."""


def agreed(given: Description, stored: Description) -> Description:
    """A description as given, with the columns that the database has. Raises ConfigurationError naming the key."""
    for name in _FIXED:
        _same(given, f"list.{name}", getattr(stored.list, name), getattr(given.list, name))
    _same(given, "table", stored.table, given.table)
    columns = _columns(given, "columns", stored.columns, given.columns)
    detail = given.detail
    if detail is not None and stored.detail is not None:
        more = _columns(given, "detail.columns", stored.detail.columns, detail.columns)
        detail = detail.model_copy(update={"columns": more})
    tables: dict[str, Child] = dict(stored.tables)
    for name, child in given.tables.items():
        before = stored.tables.get(name)
        if before is not None:
            _same(given, f"tables.{name}.key", before.key, child.key)
            own = _columns(given, f"tables.{name}.columns", before.columns, child.columns)
            child = child.model_copy(update={"columns": own})
        elif not child.columns:
            raise ConfigurationError(
                f"{given.name}: tables.{name}.columns: a table that is new has to name its columns"
            )
        tables[name] = child
    return given.model_copy(update={"columns": columns, "detail": detail, "tables": tables})


def _columns(given: Description, where: str, before: Mapping[str, Type], now: Mapping[str, Type]) -> dict[str, Type]:
    for name, kind in now.items():
        if name in before:
            _same(given, f"{where}.{name}", before[name], kind)
    return {**before, **now}


def _same(given: Description, where: str, before: object, now: object) -> None:
    if before != now:
        raise ConfigurationError(
            f"{given.name}: {where} was {_shown(before)} when the database was made and is {_shown(now)} now:"
            " name another database"
        )


def _shown(value: object) -> str:
    return f"{value!r:.60}" if value not in (None, (), {}) else "not set"
