"""What a database holds, as files that other programs read: JSON, lines of JSON, CSV, Parquet."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fetcher.errors import ConfigurationError, Interrupted, Stopped
from fetcher.export.formats import FORMATS, Json
from fetcher.export.job import CATEGORY, Exported, Job
from fetcher.export.names import Names
from fetcher.export.reading import chunks_of, values_up_to
from fetcher.export.replacement import Replacement, clear
from fetcher.export.rows import rows_of
from fetcher.place import Place, PostgresUrl, place_of
from fetcher.stop import Stop
from fetcher.stores.bulk import SqliteSql
from fetcher.stores.file import explained
from fetcher.stores.opening import reading
from fetcher.stores.sql import Sql

__all__ = ["FORMATS", "Exported", "Written", "export", "write_category"]


@dataclass(frozen=True, slots=True)
class Written:
    """The file of a category: where it is, whether it was written anew, and how many chunks it has."""

    path: Path
    changed: bool
    chunks: int


def export(
    db: str | Place,
    out: str | Path | None = None,
    *,
    format: str = "ndjson",
    table: str | None = None,
    by: Sequence[str] | None = None,
    vectors: bool = False,
    json_columns: Collection[str] = (),
    batch: int = 100,
    to: BinaryIO | None = None,
    stop: Stop | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write the chunks of `db`, or its items, or a `table` or view, in `format` (json, ndjson, csv, parquet).

    They go to files in the folder `out`, or `to` a stream. With `by` there is a file for each combination of the values
    of these columns, else one; chunks as JSON go to one a domain and category. A file that would not change is left
    alone, any other is replaced as a whole. `batch` chunks are read at once, `on_rows` is told how many rows came.
    `json_columns` hold JSON, beside those known to.

    Raises ConfigurationError, StoreError, Interrupted.
    """
    if format not in FORMATS:
        raise ConfigurationError(f"format: must be one of {', '.join(FORMATS)}, not {format!r}")
    if by and out is None:
        raise ConfigurationError("--by makes many files: name a folder for them with --out")
    if out is not None and to is not None:
        raise ConfigurationError("to a folder or to a stream, not to both")
    if out is None and (format == "parquet" or to is None):
        raise ConfigurationError(f"{format} needs a folder for its files: name one with --out")
    if vectors and format == "csv":
        raise ConfigurationError("CSV has no place for vectors: take json, ndjson or parquet")
    if batch < 1:
        raise ConfigurationError(f"batch: must be at least 1, not {batch}")
    place, stop = place_of(db), stop or Stop()
    try:
        with reading(place, stopped=stop.is_set) as sql:
            source = rows_of(sql, place)
            relation = source.chosen(table, list(json_columns))
            if vectors:
                if relation.name != "chunks":
                    raise ConfigurationError(f"only chunks have vectors, not {relation.name}")
                row = sql.execute("SELECT dimension FROM models").fetchone() if sql.has("models") else None
                if row is None:
                    raise ConfigurationError(
                        f"{place} has no vectors yet: embed its texts first, or leave out --vectors"
                    )
                relation = source.chunks(dimension=int(row[0]))
            if by is None:
                by = CATEGORY if relation.name == "chunks" and format == "json" and out is not None else ()
            job = Job(source, format, tuple(by), batch, stop.is_set, on_rows)
            return job.to_stream(relation, to) if to is not None else job.to_folder(relation, Path(out or ""))
    except Stopped:
        raise Interrupted("interrupted; the files in place are whole: run again for the others") from None


def write_category(
    db: Sql | sqlite3.Connection | str | Place, out: str | Path, domain: str, category: str, *, batch: int = 100
) -> Written:
    """Write the chunks of a category as JSON to its file in the folder `out`, as `export` does; for a run's own thread.

    `db` may be a connection of that thread; `batch` chunks are read at once. A category without chunks has a file that
    says so. Raises ConfigurationError, StoreError.
    """
    if isinstance(db, sqlite3.Connection):
        db = SqliteSql(db)
    if isinstance(db, str | Path | PostgresUrl):
        with reading(place_of(db)) as sql:
            return _write_category(sql, place_of(db), out, domain, category, batch)
    if isinstance(db, SqliteSql):
        with explained(Path("the database")):
            return _write_category(db, None, out, domain, category, batch)
    return _write_category(db, None, out, domain, category, batch)


def _write_category(sql: Sql, where: Place | None, out: str | Path, domain: str, category: str, batch: int) -> Written:
    source = rows_of(sql, where)
    names = Names()
    for each in values_up_to(source, "domain", domain, "true"):
        names.of([each])
    for each in values_up_to(source, "category", category, "domain = ?", domain):
        names.of([domain, each])
    place = Path(out, *names.of([domain, category]))
    place = place.with_name(f"{place.name}.json")
    if place.parent.is_dir():
        clear(place.parent)
    relation = source.chunks().without(CATEGORY)
    found = chunks_of(source, relation, (domain, category), batch)
    with Replacement(place) as file:
        writer = Json(file, relation, {"domain": domain, "category": category})
        count = 0
        for rows in found:
            writer.write(rows)
            count += len(rows)
        writer.end()
        return Written(place, file.commit(), count)
