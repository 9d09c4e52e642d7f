"""The tables of a description, and what is declared from items that were seen where it leaves them open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fetcher.model import Column, Table
from fetcher.rows import MOST
from fetcher.sources.flaws import LIFE
from fetcher.sources.rest.description import Child, Description, Type, at

PARENT = "item_key"
"""The column of a child table that names the item."""

TIME = "listed_time"
"""The column of items that has the time by which they are listed, in Unix seconds."""

NUMBER = "row_number"
"""The column that tells rows apart which have no key: their place in their list, from 0."""

MOST_COLUMNS = 200
"""Fields beyond so many are kept in `extra`."""


def tables_of(description: Description) -> tuple[Table, ...]:
    """The items' table first; of a description without columns, with their key alone."""
    key = description.list.key
    alone = description.detail.columns if description.detail and description.detail.item else {}
    types = {key: description.columns.get(key, "integer" if description.list.pages == "ids" else "text")}
    types |= {name: kind for name, kind in {**description.columns, **alone}.items() if name != key}
    listed = description.list.pages != "ids"
    timed = description.list.time is not None
    items = Table(
        description.table,
        (
            *(Column(name, kind, required=name == key) for name, kind in types.items()),
            *((Column(TIME, "integer", required=True),) if timed else ()),
        ),
        position=(TIME,) if timed else (),
        version=description.list.version,
        unordered=not is_numbered(description),
        detailed=tuple(name for name in types if name != key and (name in alone or not listed)),
    )
    return (items, *(_child(name, child) for name, child in description.tables.items()))


def is_numbered(description: Description) -> bool:
    """Whether the list goes by numbers that are the items' keys, so that coverage can count them."""
    listing = description.list
    if listing.pages == "ids":
        return True
    return (
        listing.pages == "cursor"
        and listing.order == "newest"
        and listing.cursor in (None, listing.key)
        and listing.time is None
        and description.columns.get(listing.key) == "integer"
    )


def child_key(child: Child) -> str:
    """The column that tells a child's rows apart."""
    return child.key or NUMBER


def _child(name: str, child: Child) -> Table:
    key = child_key(child)
    types: dict[str, Type] = {key: child.columns.get(key, "integer" if key == NUMBER else "text")}
    types |= {each: kind for each, kind in child.columns.items() if each != key}
    return Table(name, tuple(Column(each, kind, required=each == key) for each, kind in types.items()), PARENT)


def is_open(description: Description) -> bool:
    """Whether there are tables whose columns it does not name."""
    return not description.columns or any(not child.columns for child in description.tables.values())


def settled(description: Description, listed: Sequence[Any], detailed: Sequence[Any]) -> Description:
    """A description that names all columns: those that it leaves open are those of some objects.

    `listed` are items as the list has them, `detailed` the bodies of their own requests. Raises ValueError.
    """
    detail = description.detail
    changes: dict[str, Any] = {}
    own = [at(body, detail.item) for body in detailed] if detail is not None and detail.item else []
    if not description.columns:
        taken = {child.from_.partition(".")[0] for child in description.tables.values()}
        items = listed if description.list.pages != "ids" else own
        columns = columns_of(items, description.list.key, taken)
        key = columns.get(description.list.key)
        if key not in ("integer", "text"):
            raise ValueError(f"list.key: {description.list.key} names no item: {_flaw_of(key)}")
        changes["columns"] = columns
        if detail is not None and own and not detail.columns and description.list.pages != "ids":
            more = {name: kind for name, kind in columns_of(own, None, taken).items() if name not in columns}
            changes["detail"] = detail.model_copy(update={"columns": more})
    tables = {}
    for name, child in description.tables.items():
        tables[name] = child
        if not child.columns:
            objects = [each for body in (detailed if detail is not None else listed) for each in elements(body, child)]
            tables[name] = child.model_copy(
                update={"columns": columns_of(objects, child.key, (PARENT, NUMBER)) or {"value": "json"}}
            )
    return description.model_copy(update={**changes, "tables": tables})


def _flaw_of(key: Type | None) -> str:
    if key is None:
        return "the items of the first page have no such field"
    return f"it is {key}, and a key is one whole number or text, the same kind in all items"


def elements(body: Any, child: Child) -> list[dict[str, Any]]:
    """The objects of a child's list; a value that is none becomes one, and those without a key are numbered."""
    found = at(body, child.from_)
    alone = next((name for name in child.columns if name != NUMBER), child.key or "value")
    objects = [dict(each) if type(each) is dict else {alone: each} for each in (found if type(found) is list else ())]
    if child.key is None:
        for number, each in enumerate(objects):
            each[NUMBER] = number
    return objects


def columns_of(objects: Iterable[Any], key: str | None, without: Iterable[str] = ()) -> dict[str, Type]:
    """The columns that hold the fields of some objects, each with the narrowest type that holds all of its values.

    A field that had no value yet, or values of several kinds, is kept as JSON.
    """
    kinds: dict[str, set[Type]] = {}
    for each in objects:
        if type(each) is dict:
            for name, value in each.items():
                kinds.setdefault(name, set()).update(() if value is None else (_kind(value),))
    taken = {"extra", TIME, *LIFE, *map(str.lower, without)}
    found: dict[str, Type] = {}
    for name, seen in kinds.items():
        # Names that differ in case alone are one column to SQLite.
        if (
            name.lower() in taken
            or '"' in name
            or "\x00" in name
            or not name.isprintable()
            or len(found) >= MOST_COLUMNS
        ):
            continue
        taken.add(name.lower())
        found[name] = _widest(seen)
    if key in found:
        found = {key: found[key], **found}
    return found


def _kind(value: Any) -> Type:
    kinds: Mapping[type, Type] = {bool: "boolean", int: "integer", float: "real", str: "text"}
    kind = kinds.get(type(value), "json")
    return "json" if kind == "integer" and not -MOST - 1 <= value <= MOST else kind


def _widest(kinds: set[Type]) -> Type:
    if len(kinds) == 1:
        return next(iter(kinds))
    return "real" if kinds == {"integer", "real"} else "json"
