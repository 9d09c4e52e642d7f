"""What a database says of itself: which source it mirrors, from where, and what was asked of it."""

from __future__ import annotations

import json
from typing import Any

from fetcher.errors import StoreError
from fetcher.model import Scope
from fetcher.place import Place
from fetcher.stores.opening import is_new, reading


def source_of(place: Place) -> str:
    """The name of the source that a database mirrors. Raises StoreError."""
    return origin_of(place)[0]


def origin_of(place: Place) -> tuple[str, str]:
    """The name of the source that a database mirrors, and the address it was mirrored from. Raises StoreError."""
    row = _told_of_source(place, "name", "base_url")
    if row is None:
        raise StoreError(f"{place} is still empty: run `fetcher fetch`")
    return str(row[0]), str(row[1])


def description_of(place: Place) -> str | None:
    """What the source of a database was made from; None where it is none, or there is no such database yet.

    Raises StoreError.
    """
    row = None if is_new(place) else _told_of_source(place, "description")
    return row[0] if row else None


def options_of_last_run(place: Place) -> dict[str, Any]:
    """What the last run asked of its source, in the words of its settings; empty where a database does not say.

    Raises StoreError.
    """
    row = _told_of_source(place, "options")
    return dict(json.loads(row[0])) if row and row[0] else {}


def scopes_of(place: Place) -> list[Scope]:
    """What any run was asked to cover; nothing where there is no such database yet. Raises StoreError."""
    row = None if is_new(place) else _told_of_source(place, "scopes")
    return json.loads(row[0]) if row and row[0] else []


def _told_of_source(place: Place, *columns: str) -> tuple[Any, ...] | None:
    """These columns of the one row of `sources`; None where there is none, or an older release made it without them."""
    with reading(place) as sql:
        known = all(sql.has("sources", column) for column in columns)
        row = sql.execute(f"SELECT {', '.join(columns)} FROM sources").fetchone() if known else None
    return tuple(row) if row is not None else None
