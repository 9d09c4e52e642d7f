"""What the parts of a store ask of an open database, whichever it is.

What a batch means stands once, in words that SQLite and PostgreSQL share: `?` and `:name` for parameters,
`ON CONFLICT`, `coalesce`. Where they differ, they are asked for by these methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from fetcher.model import Key, Row

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Upsert:
    """How rows of some `columns` are written to a table, and what becomes of those whose `key` is there already.

    `changes` is the SQL of the columns that change then, in which `excluded` is the row that was to be written. Where
    there are none the row stays as it is; where it is None the new one takes its place, of several the last.
    """

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    changes: str | None = None


class Refused(Exception):
    """A row that no database of ours takes."""


class Cursor(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, None behind the last one."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Sql(Protocol):
    """A connection: statements, and many rows or keys by few of them."""

    def execute(self, statement: str, parameters: Any = (), /) -> Cursor:
        """What one statement gives."""
        ...

    def executemany(self, statement: str, parameters: Iterable[Any], /) -> Any:
        """One statement for each of many sets of parameters."""
        ...

    def insert(self, into: Upsert, rows: Sequence[Row]) -> int:
        """Write many rows; returns how many were written."""
        ...

    def for_keys(self, statement: str, keys: Sequence[Any], *values: Any) -> int:
        """Execute a statement that ends in IN for many keys; returns how many rows it changed."""
        ...

    def rows_for_keys(self, statement: str, keys: Sequence[Any], *values: Any, then: str = "") -> Iterable[Any]:
        """What a statement gives that ends in IN, but for `then`, for many keys: some after the other, not together."""
        ...

    def select(self, *columns: str) -> str:
        """The beginning of a statement for `array`: SELECT with these columns."""
        ...

    def array(self, statement: str, parameters: Any = ()) -> list[Any]:
        """What `select` gives in a go: of one column its values, of several a list for each row."""
        ...

    def array_for_keys(self, statement: str, keys: Sequence[Any]) -> list[Any]:
        """What `select` gives, of a statement that ends in IN, for many keys."""
        ...

    def any(self, value: Key) -> Any:
        """A value for a column that holds numbers as well as texts."""
        ...

    def any_sql(self, expression: str) -> str:
        """An expression, to be compared with such a column."""
        ...

    def key_text(self, expression: str) -> str:
        """The text in such a column, to be compared with another."""
        ...

    def listed(self, values: Sequence[str]) -> tuple[str, Any]:
        """What stands for a table of these values, in its column `value`, and the parameter that it takes."""
        ...

    def condition(self, of_source: str) -> str:
        """A condition that a source declares."""
        ...

    def join_coverage(self) -> str:
        """What joins `coverage` as `covered`, to be looked at for each row of a few; its scope is of its own type."""
        ...

    def by_index(self, name: str) -> str:
        """What stands behind a table that is to be read by this index, where the database does not see that itself."""
        ...

    def has(self, table: str, column: str | None = None) -> bool:
        """Whether there is a table or view, or a column of it."""
        ...

    def bytes(self) -> int:
        """How large the database is."""
        ...

    def damage(self) -> list[str]:
        """What the database's own check complains of; nothing where it has none."""
        ...


class Session(Protocol):
    """A database that is open, for one thread."""

    warn: Callable[[str], None]
    stopped: Callable[[], bool]

    @property
    def path(self) -> Any:
        """Where it is, as a person is told; holds no secret."""
        ...

    @property
    def sql(self) -> Sql:
        """Its connection."""
        ...

    @property
    def refused(self) -> tuple[type[Exception], ...]:
        """What it raises of a row that it cannot take, as against a disk or a server that cannot write."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """All that is written within it stands or falls together. Raises StoreError, and Stopped while it waits."""
        ...

    def persist(self, do: Callable[[], T]) -> T:
        """What `do` gives, done again when the connection was lost before anything of it was written.

        Raises StoreError, and Stopped while it waits.
        """
        ...

    def explained(self) -> AbstractContextManager[None]:
        """Turn its errors into StoreErrors: where, what happened, what to do."""
        ...

    def interruptible(self) -> AbstractContextManager[None]:
        """End a long statement when the run is to stop. Raises Stopped."""
        ...

    def beside(self) -> Session:
        """Another connection to the same database, for another thread; closed with this one. Raises StoreError."""
        ...

    def room(self) -> int:
        """How many bytes are free where it writes, or a very large number where nobody can tell. Raises StoreError."""
        ...

    def tend(self) -> None:
        """Do now and then what keeps it fit."""
        ...

    def close(self) -> None:
        """Close the connection, and let go of the lock."""
        ...
