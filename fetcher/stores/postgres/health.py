"""What a PostgreSQL database looks like from outside: its schema, what it holds, what is left to do."""

from __future__ import annotations

from collections.abc import Sequence

from fetcher.model import Table
from fetcher.place import PostgresUrl
from fetcher.stores.health import Health
from fetcher.stores.opening import reading
from fetcher.stores.overview import overview
from fetcher.stores.postgres import migrations
from fetcher.stores.texts_overview import texts_overview
from fetcher.stores.verify import uncovered


def is_begun(url: PostgresUrl) -> bool:
    """Whether a database of ours says what it mirrors. Raises StoreError."""
    with reading(url) as sql:
        return sql.execute("SELECT 1 FROM sources").fetchone() is not None


def examine(url: PostgresUrl, tables: Sequence[Table]) -> Health:
    """Look at a database of ours, also while a run writes it; the server looks after its files. Raises StoreError."""
    with reading(url, moment=True) as sql:
        done, known = migrations.done(sql), migrations.names()
        behind = tuple(name for name in known if name not in done)
        ahead = tuple(name for name in done if name not in known)
        wanted = [
            (table.name, column) for table in tables for column in (*(each.name for each in table.columns), "extra")
        ]
        lacking = tuple(f"{table}.{column}" for table, column in wanted if not sql.has(table, column))
        fits = not (behind or ahead or lacking)
        holes = tuple(uncovered(sql, tables)) if fits and tables else ()
        (learned,) = sql.execute("SELECT learned FROM sources").fetchone() if fits else (None,)
        search = [name for name, column in (("search", "words"), ("chunks", "words")) if sql.has(name, column)]
    return Health(
        overview=overview(url, tables) if fits and tables else None,
        texts=texts_overview(url) if fits else None,
        behind=behind,
        ahead=ahead,
        lacking=lacking,
        unindexed=(),
        search=tuple(search),
        uncovered=holes,
        learned=learned,
        wrong=(),
        checked=True,
        wal_bytes=0,
    )
