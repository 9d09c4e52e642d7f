"""The database that is being made: what it is a copy of, how far that is, and what could not be copied as it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fetcher.copying.ranges import Checksum, Range, key_text
from fetcher.errors import StoreError
from fetcher.model import Row
from fetcher.place import PostgresUrl
from fetcher.stores.marker import CHANGES, COPIED, COPYING, RANGES
from fetcher.stores.rows import Change, Relation, Writer
from fetcher.stores.schema import marks

_STATE = "origin TEXT NOT NULL, mark TEXT NOT NULL, begun_at BIGINT NOT NULL, finished_at BIGINT, made TEXT"
_RANGES = (
    "name TEXT NOT NULL, number BIGINT NOT NULL, last TEXT NOT NULL, rows BIGINT NOT NULL, checksum TEXT NOT NULL,"
    " PRIMARY KEY (name, number)"
)
_CHANGES = "name TEXT NOT NULL, number BIGINT NOT NULL, key TEXT NOT NULL, field TEXT, reason TEXT NOT NULL, original"


@dataclass(frozen=True, slots=True)
class State:
    """What a database is a copy of: `mark` stands for all of the original as it was, `made` for the copy once whole."""

    origin: str
    mark: str
    finished_at: int | None
    made: str | None


@dataclass(frozen=True, slots=True)
class Changed:
    """A value that could not be copied as it was, or with no `column` a row that could not be copied at all."""

    table: str
    key: tuple[Any, ...]
    column: str | None
    reason: str


class Target:
    """The bookkeeping of a copy, in the database that it makes."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._db = writer.db
        self._sql = writer.db.sql

    def state(self) -> State | None:
        """What it is a copy of; None where it is none."""
        with self._db.explained():
            for table in (COPYING, COPIED):
                if self._sql.has(table):
                    row = self._sql.execute(f"SELECT origin, mark, finished_at, made FROM {table}").fetchone()
                    return None if row is None else State(*row)
        return None

    def begin(self, origin: str, mark: str, names: Sequence[str]) -> None:
        """Mark it as a copy that is not complete. Raises StoreError when it holds something else."""
        where = self._db.path
        bytes_ = "BYTEA" if isinstance(where, PostgresUrl) else "BLOB"

        def write() -> None:
            taken = [each for each in self._writer.tables() if each in names or not isinstance(where, PostgresUrl)]
            taken = [each for each in taken if each not in (COPYING, RANGES, CHANGES)]
            if taken:
                what = "a mirror already" if "sources" in taken else f"a table {taken[0]} of something else"
                hint = ", or a schema in it by ?options=-csearch_path%3DNAME" if isinstance(where, PostgresUrl) else ""
                raise StoreError(f"{where} holds {what}: name a new database to copy to{hint}")
            for name, columns in ((COPYING, _STATE), (RANGES, _RANGES), (CHANGES, f"{_CHANGES} {bytes_}")):
                self._sql.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
            self._sql.execute(f"DELETE FROM {COPYING}")
            self._sql.execute(
                f"INSERT INTO {COPYING} (origin, mark, begun_at) VALUES (?, ?, ?)", [origin, mark, int(time.time())]
            )

        self._in_one(write)

    def begin_anew(self, mark: str) -> None:
        """Forget what was copied so far, since the original is another by now."""

        def write() -> None:
            for table in (RANGES, CHANGES):
                self._sql.execute(f"DELETE FROM {table}")
            self._sql.execute(f"UPDATE {COPYING} SET mark = ?, begun_at = ?", [mark, int(time.time())])

        self._in_one(write)

    def _in_one(self, write: Callable[[], None]) -> None:
        """Write something in one transaction, again where the connection was lost before anything was written."""

        def whole() -> None:
            with self._db.transaction():
                write()

        self._db.persist(whole)

    def ranges(self, table: str) -> list[Range]:
        """The ranges of a table that have been copied."""
        with self._db.explained():
            rows = self._sql.execute(
                f"SELECT number, last, rows, checksum FROM {RANGES} WHERE name = ? ORDER BY number", [table]
            ).fetchall()
        return [Range(number, tuple(json.loads(last)), count, checksum) for number, last, count, checksum in rows]

    def forget_from(self, table: str, number: int) -> None:
        """Forget this range of a table and those behind it: they are copied anew."""

        def write() -> None:
            for each in (RANGES, CHANGES):
                self._sql.execute(f"DELETE FROM {each} WHERE name = ? AND number >= ?", [table, number])

        self._in_one(write)

    def clean(self, relation: Relation, last: Row | None) -> None:
        """Remove what is behind the last range of a table that was copied."""
        self._in_one(lambda: self._writer.remove_after(relation, last))

    def put(self, relation: Relation, columns: Sequence[str], number: int, rows: Sequence[Row], sum_: Checksum) -> int:
        """Write a range, in one transaction; how many rows of it there are then."""
        last = key_text(rows[-1][: len(relation.key)])

        def as_they_are() -> bool:
            try:
                with self._db.transaction():
                    self._writer.write(relation.table, columns, rows)
                    self._record(relation.table, number, last, sum_)
            except self._db.refused:
                return False
            return True

        def as_they_can_be() -> int:
            with self._db.transaction():
                sifted = _Sifted(self._writer, relation, columns)
                sifted.write(rows)
                checksum = Checksum()
                checksum.add(sifted.written)
                self._record(relation.table, number, last, checksum)
                self._sql.executemany(
                    f"INSERT INTO {CHANGES} (name, number, key, field, reason, original) VALUES ({marks(6)})",
                    [(relation.table, number, *each) for each in sifted.changes],
                )
            return checksum.rows

        return len(rows) if self._db.persist(as_they_are) else self._db.persist(as_they_can_be)

    def _record(self, table: str, number: int, last: str, checksum: Checksum) -> None:
        self._sql.execute(
            f"INSERT INTO {RANGES} (name, number, last, rows, checksum) VALUES ({marks(5)})",
            [table, number, last, checksum.rows, checksum.text()],
        )

    def changes(self, most: int) -> tuple[int, int, list[Changed]]:
        """How many values were changed and how many rows left out, and the first of them."""
        with self._db.explained():
            values, rows = self._sql.execute(f"SELECT count(field), count(*) - count(field) FROM {CHANGES}").fetchone()
            found = self._sql.execute(
                f"SELECT name, key, field, reason FROM {CHANGES} ORDER BY name, number LIMIT ?", [most]
            ).fetchall()
        return values, rows, [Changed(name, tuple(json.loads(key)), *more) for name, key, *more in found]

    def replace_sources(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Say what is mirrored, and how much of it there is."""

        def write() -> None:
            self._sql.execute("DELETE FROM sources")
            held = [self._writer.held("sources", columns, row, hard=True)[0] for row in rows]
            self._writer.write("sources", columns, held)
            self._writer.empty_search()

        self._in_one(write)

    def complete(self, made: str) -> None:
        """It is whole: from here on everybody may use it."""

        def write() -> None:
            self._sql.execute(f"UPDATE {COPYING} SET finished_at = ?, made = ?", [int(time.time()), made])
            self._writer.unmark()

        self._in_one(write)


class _Sifted:
    """Rows of which the database refuses some: what it can hold of them, within a transaction."""

    def __init__(self, writer: Writer, relation: Relation, columns: Sequence[str]) -> None:
        self._writer = writer
        self._relation = relation
        self._columns = columns
        self.written: list[Row] = []
        self.changes: list[tuple[str, str | None, str, bytes]] = []

    def write(self, rows: Sequence[Row]) -> None:
        """Write what can be, in halves where not all can."""
        whole = []
        for row in rows:
            held, changes = self._held(row, hard=False)
            if held is not None:
                whole.append((row, held, changes))
        self._halved(whole)

    def _halved(self, rows: list[tuple[Row, Row, list[Change]]]) -> None:
        if not rows:
            return
        error = self._tried([held for _, held, _ in rows])
        if error is None:
            for row, held, changes in rows:
                self._take(row, held, changes)
        elif len(rows) > 1:
            half = len(rows) // 2
            self._halved(rows[:half])
            self._halved(rows[half:])
        else:
            self._alone(rows[0][0], error)

    def _alone(self, row: Row, error: Exception) -> None:
        held, changes = self._held(row, hard=True)
        if held is None:
            return
        if changes:
            again = self._tried([held])
            if again is None:
                self._take(row, held, changes)
                return
            error = again
        self._leave_out(row, " ".join(str(error).split()))

    def _held(self, row: Row, *, hard: bool) -> tuple[Row | None, list[Change]]:
        """The row as it can be held; None, once that is written down, where its key cannot be."""
        held, changes = self._writer.held(self._relation.table, self._columns, row, hard=hard)
        for name, reason in changes:
            if name in self._relation.key:
                self._leave_out(row, f"{reason} in its key")
                return None, []
        return held, changes

    def _tried(self, rows: Sequence[Row]) -> Exception | None:
        sql = self._writer.db.sql
        sql.execute("SAVEPOINT tried")
        try:
            self._writer.write(self._relation.table, self._columns, rows)
        except self._writer.db.refused as error:
            sql.execute("ROLLBACK TO SAVEPOINT tried")
            sql.execute("RELEASE SAVEPOINT tried")
            return error
        sql.execute("RELEASE SAVEPOINT tried")
        return None

    def _take(self, row: Row, held: Row, changes: Sequence[Change]) -> None:
        self.written.append(held)
        key = key_text(row[: len(self._relation.key)])
        for name, reason in changes:
            self.changes.append((key, name, reason, _bytes(row[self._columns.index(name)])))

    def _leave_out(self, row: Row, reason: str) -> None:
        values = {name: value if not isinstance(value, bytes) else value.hex() for name, value in self._named(row)}
        self.changes.append((key_text(row[: len(self._relation.key)]), None, reason, json.dumps(values).encode()))

    def _named(self, row: Row) -> Any:
        return zip(self._columns, row, strict=True)


def _bytes(value: Any) -> bytes:
    return value.encode(errors="surrogateescape") if isinstance(value, str) else str(value).encode()
