"""One export: which files there are to be, and what goes into each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from fetcher.errors import Stopped
from fetcher.export.formats import FORMATS, NESTING
from fetcher.export.names import Names, Value
from fetcher.export.reading import Group, groups, groups_of_chunks, pages
from fetcher.export.replacement import Replacement, clear, make_folder
from fetcher.export.rows import Rows
from fetcher.export.stream import Stream
from fetcher.export.tables import Field, Relation, no_such_column
from fetcher.model import Row

CATEGORY = ("domain", "category")
"""The columns that consolidated files of chunks are by."""

ROWS, NESTED_ROWS = 500, 100
"""Rows of a table that are read at once, and with those that belong to them."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has done: files written and those that held the same already, rows and bytes in all of them.

    `table` names what was exported, several tables with commas between. `strangers` are files in the folder that belong
    to no group that there is now; `left_out` are tables whose rows belong to those exported and are not among them.
    """

    table: str
    written: int = 0
    unchanged: int = 0
    rows: int = 0
    bytes: int = 0
    strangers: tuple[Path, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked for; `batch` chunks are read at once, and `on_rows` is told of rows as they come."""

    source: Rows
    format: str
    by: Sequence[str]
    batch: int
    stopped: Callable[[], bool]
    on_rows: Callable[[int], None]

    def to_stream(self, relation: Relation, to: BinaryIO) -> Exported:
        """All rows to a stream; rows that belong to them go only where they can be nested."""
        relation, others = self._laid_out(relation)
        stream = Stream(to)
        rows = self._put(stream, relation, {}, pages(self.source, relation, self._size(relation)))
        stream.flush()
        return Exported(relation.name, 1, 0, rows, stream.size, left_out=tuple(each.name for each in others))

    def to_folder(self, relation: Relation, out: Path) -> Exported:
        """All rows to files in a folder: one a table, or one a group."""
        make_folder(out)
        relation, others = self._laid_out(relation)
        done = Exported(relation.name)
        if self.by:
            done = self._by_group(relation, out)
            return replace(done, left_out=tuple(each.name for each in others))
        clear(out)
        done = replace(done, table=", ".join(each.name for each in (relation, *others)))
        for each in (relation, *others):
            found = pages(self.source, each, self._size(each))
            done = self._file(done, out / f"{each.name}.{self.format}", each, {}, found)
        return done

    def _by_group(self, relation: Relation, out: Path) -> Exported:
        sql = {each.name: each.sql for each in relation.fields}
        missing = set(self.by) - set(sql)
        if missing:
            raise no_such_column(relation, missing)
        done, names, files = Exported(relation.name), Names(), set[Path]()
        # In consolidated JSON the columns stand once, above all rows.
        rows = relation.without(self.by) if self.format == "json" else relation
        found: Iterator[Group]
        if relation.name == "chunks" and tuple(self.by) == CATEGORY:
            found = groups_of_chunks(self.source, rows, self._size(relation))
        else:
            found = groups(self.source, rows, [sql[each] for each in self.by], self._size(relation))
        for folder in _folders(out, len(self.by)):
            clear(folder)
        for values, some in found:
            *folders, last = names.of(values)
            file = out.joinpath(*folders, f"{last}.{self.format}")
            if file in files:
                raise AssertionError(f"two groups for {file}")
            files.add(file)
            head = dict(zip(self.by, values, strict=True))
            done = self._file(done, file, rows, head, some)
        there = out.glob("/".join([*["*"] * (len(self.by) - 1), f"*.{self.format}"]))
        return replace(done, strangers=tuple(sorted(set(there) - files)))

    def _file(
        self, done: Exported, path: Path, relation: Relation, head: Mapping[str, Value], found: Iterable[Sequence[Row]]
    ) -> Exported:
        with Replacement(path) as file:
            rows = self._put(file, relation, head, found)
            changed = file.commit()
        return replace(
            done,
            written=done.written + changed,
            unchanged=done.unchanged + (not changed),
            rows=done.rows + rows,
            bytes=done.bytes + file.size,
        )

    def _put(
        self,
        sink: Replacement | Stream,
        relation: Relation,
        head: Mapping[str, Value],
        found: Iterable[Sequence[Row]],
    ) -> int:
        """Write all pages; returns how many rows there were."""
        writer = FORMATS[self.format](sink, relation, head)
        count = 0
        for rows in found:
            if self.stopped():
                raise Stopped("stopped while exporting")
            writer.write(rows)
            count += len(rows)
            self.on_rows(len(rows))
        writer.end()
        return count

    def _laid_out(self, relation: Relation) -> tuple[Relation, list[Relation]]:
        """What goes into each row, and the tables that go elsewhere."""
        others = [each.relation for each in relation.children]
        if self.format == "parquet":
            return self.source.typed(replace(relation, children=())), [self.source.typed(each) for each in others]
        if self.format not in NESTING:
            return replace(relation, children=()), others
        taken = {each.name for each in relation.fields}
        children, lists = [], []
        for child in relation.children:
            inner = child.relation.without([child.parent])
            name = inner.name if inner.name not in taken else f"{inner.name}_list"
            children.append(replace(child, relation=inner))
            lists.append(Field(name, "rows", "", fields=inner.fields))
        return replace(relation, children=tuple(children), lists=tuple(lists)), []

    def _size(self, relation: Relation) -> int:
        if relation.name == "chunks":
            return self.batch
        return NESTED_ROWS if relation.children else ROWS


def _folders(out: Path, depth: int) -> Iterator[Path]:
    """The folders in which files of groups by so many columns are."""
    found = out.glob("/".join(["*"] * (depth - 1))) if depth > 1 else [out]
    return (each for each in found if each.is_dir())
