"""Indexes for lookups by value: dropped for a large load, made when all is fetched, kept live in between."""

from __future__ import annotations

from collections.abc import Sequence

from fetcher.errors import StoreError
from fetcher.model import Table
from fetcher.stores.postgres.connection import one_line
from fetcher.stores.postgres.database import Database, Lost
from fetcher.stores.schema import quoted

_LOOKED_UP = """
SELECT 1 FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
 WHERE indrelid = to_regclass(?) AND indpred IS NULL AND NOT indisprimary AND indisvalid AND attname = ?"""


class Indexes:
    """What a source's tables are looked up by: the index `TABLE_COLUMN` for each."""

    def __init__(self, tables: Sequence[Table], db: Database, *, searched: bool = False) -> None:
        self._wanted = {f"{table.name}_{column}": (table.name, column) for table in tables for column in table.index}
        if searched:
            self._wanted["search_words"] = ("search", "words")
        self._db = db
        self._sql = db.sql

    def missing(self) -> list[str]:
        """Those to be made; where the owner of the database has made one that serves as well, it is not."""
        return [
            name
            for name, (table, column) in self._wanted.items()
            if not self._sql.execute(_LOOKED_UP, [quoted(table), column]).fetchall()
        ]

    def drop(self) -> None:
        """Drop ours; one that the owner of the database has made stays."""
        if self._wanted:
            with self._db.transaction():
                self._sql.execute(f"DROP INDEX IF EXISTS {', '.join(map(quoted, self._wanted))}")

    def make(self) -> None:
        """Make those that are missing; where one cannot be made, say so and do without.

        Raises Stopped when it is to stop: an index is there as a whole or not at all.
        """
        for name in self.missing():
            table, column = self._wanted[name]
            try:
                with self._db.transaction(), self._db.interruptible():
                    how = "USING gin " if table == "search" else ""
                    self._sql.execute(f"CREATE INDEX {quoted(name)} ON {quoted(table)} {how}({quoted(column)})")
            except Lost:
                raise
            except (StoreError, *self._db.refused) as error:
                why = one_line(error)
                self._db.warn(
                    f"no index of {table}.{column} yet ({why}): all is stored, the next complete run tries again"
                )
