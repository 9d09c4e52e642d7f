"""A toy of a mirror for tests of stores: things with parts, and the words to commit them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fetcher.model import (
    Batch,
    Column,
    Committed,
    Counts,
    Detail,
    Failure,
    Interval,
    Outcome,
    Page,
    Plan,
    Progress,
    RunState,
    Table,
)
from fetcher.place import Place
from fetcher.stores.mirror import MirrorStore
from fetcher.stores.opening import open_store

THINGS = Table(
    "things",
    (Column("id", "integer", required=True), Column("name", "text"), Column("kind", "integer", required=True)),
    in_scope='"kind" & :scope != 0',
)
PARTS = Table("parts", (Column("id", "integer", required=True), Column("text", "text")), parent="thing_id")
TABLES = (THINGS, PARTS)
IDLE = RunState(Progress(Counts(), 0.0, 0, 0, 0.0, None))


class Clock:
    def __init__(self) -> None:
        self.at = 1_000_000.0

    def __call__(self) -> float:
        return self.at


def thing(id: int, kind: int = 1, name: str | None = "n") -> tuple[Any, ...]:
    return (id, name, kind, None)


def page(*ids: int, proven: tuple[int, int] | None = None, scopes: tuple[int, ...] = (1,), **more: Any) -> Page:
    return Page(tuple(thing(id) for id in ids), scopes, Interval(*proven) if proven else None, None, **more)


def detail(key: int, *parts: int, text: Any = "t") -> Detail:
    return Detail({"parts": [(key, part, text, None) for part in parts]})


def commit(store: MirrorStore, *pages: Page, **parts: Any) -> Committed:
    return store.commit(Batch(pages=pages, **parts), IDLE)


def failed(key: int, due_at: float | None, attempts: int = 1, stage: str = "detail") -> Failure:
    return Failure(stage, key, Outcome.UNAVAILABLE, "answered 500", 500, b"body", attempts, due_at)


def claim(store: MirrorStore, most: int = 100, order: Any = "newest", **more: Any) -> list[Any]:
    works, _ = store.claim("detail", most, order, more.get("bounds"), more.get("skip", ()))
    return [work.key for work in works]


@contextmanager
def opened(place: Place, tables: Sequence[Table] = TABLES, *, clock: Any = None, **more: Any) -> Iterator[Any]:
    """The store of a mirror in which a run has begun."""
    store = open_store(place, "toy", tables, "http://toy.test", clock=clock or Clock(), **more)
    try:
        store.begin_run(Plan())
        store.want({1: Interval(1, 1)})
        yield store
    finally:
        store.close()
