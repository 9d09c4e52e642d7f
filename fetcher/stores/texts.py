"""The tables of documents, chunks and vectors, in a database of their own or beside those of a mirror."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

from fetcher.errors import ConfigurationError
from fetcher.model import Key, Outcome
from fetcher.place import Place, PostgresUrl
from fetcher.stores import migrations
from fetcher.stores.database import Database
from fetcher.stores.opening import open_on_server, reading
from fetcher.stores.schema import WORK
from fetcher.stores.sql import Session, Sql, Upsert
from fetcher.stores.texts_index import index_of
from fetcher.stores.worklist import Worklist

STAGES = ("read", "read-items", "embed", "aggregate")
"""What texts go through: files are read, or a mirror's items; what is read is embedded, and written out."""

READS = ("read", "read-items")
"""The stages in which documents are read."""

SOURCE = "texts"
"""The source that a database of texts alone is recorded under."""

_DOCUMENTS = Upsert(
    "documents",
    ("name", "item", "first_seen_at", "listed_at"),
    ("name",),
    "listed_at = excluded.listed_at, unlisted_at = NULL",
)

SCHEMA = (
    # What is read: a file under its path, or an item of the mirror under `TABLE/KEY`.
    """CREATE TABLE documents (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        item ANY,
        version TEXT,
        chunks INTEGER NOT NULL DEFAULT 0,
        first_seen_at INTEGER NOT NULL,
        listed_at INTEGER NOT NULL,
        read_at INTEGER,
        unlisted_at INTEGER
    ) STRICT""",
    """CREATE TABLE chunks (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        document INTEGER NOT NULL REFERENCES documents,
        position INTEGER NOT NULL,
        text TEXT NOT NULL,
        hash TEXT NOT NULL,
        domain TEXT NOT NULL,
        category TEXT NOT NULL,
        source_book TEXT,
        source_chapter TEXT
    ) STRICT""",
    "CREATE UNIQUE INDEX chunks_document ON chunks (document, position)",
    "CREATE INDEX chunks_hash ON chunks (hash)",
    "CREATE INDEX chunks_category ON chunks (domain, category, document, position)",
    # Keyed by the text, not the chunk: a text that stands in many places is embedded once.
    "CREATE TABLE vectors (hash TEXT PRIMARY KEY, vector BLOB NOT NULL) STRICT",
    # The one model that all vectors are of.
    "CREATE TABLE models (name TEXT PRIMARY KEY, dimension INTEGER NOT NULL, recorded_at INTEGER NOT NULL) STRICT",
    """CREATE TABLE categories (
        domain TEXT NOT NULL,
        category TEXT NOT NULL,
        changes INTEGER NOT NULL DEFAULT 0,
        written INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (domain, category)
    ) STRICT, WITHOUT ROWID""",
    # How much each stage has to do and has done; the totals of `sources` are the mirror's own.
    """CREATE TABLE stages (
        source TEXT NOT NULL,
        stage TEXT NOT NULL,
        work INTEGER NOT NULL DEFAULT 0,
        parked INTEGER NOT NULL DEFAULT 0,
        done INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (source, stage)
    ) STRICT, WITHOUT ROWID""",
    "CREATE VIRTUAL TABLE chunks_search USING fts5(text, source_chapter, content='chunks', content_rowid='number',"
    " tokenize='unicode61 remove_diacritics 2')",
)
"""Made when the first text is to be read."""


def open_texts(
    place: Place,
    *,
    clock: Callable[[], float],
    stopped: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = lambda _: None,
    allow_network: bool = False,
    copying: bool = False,
) -> tuple[Session, str]:
    """A database with the tables of texts, made where there is none, and the name of the source that it mirrors.

    Raises StoreError.
    """
    if isinstance(place, PostgresUrl):
        return open_on_server(place, clock=clock, stopped=stopped, warn=warn)
    db = Database(place, stopped=stopped, warn=warn, allow_network=allow_network, copying=copying)
    try:
        with db.explained():
            migrations.apply(db.conn)
            with db.transaction():
                if not has_texts(db.sql):
                    for statement in SCHEMA:
                        db.conn.execute(statement)
                source = adopt(db.sql, int(clock()))
            db.wait_briefly()
    except BaseException:
        db.close()
        raise
    return db, source


def adopt(sql: Sql, now: int) -> str:
    """The name of the source of a database; where it has none it holds texts alone."""
    row = sql.execute("SELECT name FROM sources").fetchone()
    if row is None:
        row = (SOURCE,)
        sql.execute("INSERT INTO sources (name, base_url, created_at) VALUES (?, '', ?)", [SOURCE, now])
    return str(row[0])


def has_texts(sql: Sql) -> bool:
    """Whether a database has the tables of texts."""
    return sql.has("chunks")


def holds_texts(path: Place) -> bool:
    """Whether the database there has the tables of texts. Raises StoreError."""
    with reading(path) as sql:
        return sql.has("chunks")


def count(sql: Sql, source: str, stage: str, *, work: int = 0, parked: int = 0, done: int = 0) -> None:
    """Add to what a stage has to do, has failed at for good, and has done; within a transaction."""
    sql.execute(
        "INSERT INTO stages (source, stage, work, parked, done) VALUES (?, ?, ?, ?, ?) ON CONFLICT (source, stage)"
        " DO UPDATE SET work = stages.work + excluded.work, parked = stages.parked + excluded.parked,"
        " done = stages.done + excluded.done",
        [source, stage, work, parked, done],
    )


def enlist(db: Session, source: str, stage: str, documents: Collection[tuple[str, str, Key | None]], now: int) -> int:
    """Make due what is new or changed of documents (name, version, the item it is made of); how many these are.

    What could not be read at all is due again, whether it has changed or not.
    """
    return db.persist(partial(_enlist, db, source, stage, documents, now))


def _enlist(db: Session, source: str, stage: str, documents: Collection[tuple[str, str, Key | None]], now: int) -> int:
    sql = db.sql
    names = sorted(name for name, _, _ in documents)
    with db.transaction():
        known: dict[str, str | None] = dict(
            sql.array_for_keys(f"{sql.select('name', 'version')} FROM documents WHERE name IN ", names)
        )
        back = sql.array_for_keys(
            f"{sql.select('number')} FROM documents WHERE unlisted_at IS NOT NULL AND name IN ", names
        )
        sql.insert(_DOCUMENTS, [(name, item, now, now) for name, _, item in documents])
        changes(sql, back)
        lacking = sql.array_for_keys(
            f"{sql.select('hash')} FROM chunks"
            " WHERE NOT EXISTS (SELECT 1 FROM vectors WHERE vectors.hash = chunks.hash) AND document IN ",
            back,
        )
        queued = sql.insert(WORK, [(source, "embed", each, 0, 0) for each in sorted(set(lacking))])
        count(sql, source, "embed", work=queued)
        wanted = sorted(name for name, version, _ in documents if known.get(name) != version)
        return _make_due(sql, source, stage, wanted)


def _make_due(sql: Sql, source: str, stage: str, keys: Sequence[Key]) -> int:
    """Make these due that are not, whether they are new or failed for good; how many these are."""
    again = Worklist(sql, source).make_due(stage, keys)
    added = sql.insert(WORK, [(source, stage, key, 0, 0) for key in keys])
    count(sql, source, stage, work=added + again, parked=-again)
    return added + again


def listing_time(sql: Sql, now: int) -> int:
    """When what is listed now is said to be listed (Unix seconds): later than all that was listed before."""
    (last,) = sql.execute("SELECT max(listed_at) FROM documents").fetchone()
    return now if last is None else max(now, last + 1)


def listed_since(sql: Sql, now: int) -> str:
    """The condition (SQL) on the names of documents that they were listed since `now` (Unix seconds)."""
    return f"EXISTS (SELECT 1 FROM documents WHERE name = {sql.key_text('key')} AND listed_at >= {now})"


def keep_listed(db: Session, folder: str, now: int) -> None:
    """Nobody can tell what is below this folder: what was there before counts as listed at `now` (Unix seconds)."""

    def keep() -> None:
        with db.transaction():
            db.sql.execute(
                "UPDATE documents SET listed_at = ? WHERE name >= ? AND name < ? AND unlisted_at IS NULL",
                [now, *_below(folder)],
            )

    db.persist(keep)


def _below(folder: str) -> tuple[str, str]:
    """From which name on those of documents below a folder are, and up to which."""
    # "0" is the character after "/".
    return f"{folder}/", f"{folder}0"


def unpark(db: Session, source: str, outcomes: Collection[Outcome], keys: Collection[Key]) -> Mapping[str, int]:
    """Make due again what failed for good, all or of these outcomes and keys; how much it was, by stage."""

    def unpark() -> Mapping[str, int]:
        with db.transaction():
            chosen, _ = Worklist(db.sql, source).unpark(outcomes, keys, STAGES)
            found = Counter(stage for stage, _ in chosen)
            for stage, again in found.items():
                count(db.sql, source, stage, work=again, parked=-again)
        return found

    return db.persist(unpark)


def unlist(db: Session, folder: str, now: int) -> int:
    """Mark the documents below a folder that were not listed at `now` (Unix seconds); how many there were."""

    def unlist() -> int:
        with db.transaction():
            found = db.sql.array(
                f"{db.sql.select('number')} FROM documents"
                " WHERE name >= ? AND name < ? AND unlisted_at IS NULL AND listed_at < ?",
                [*_below(folder), now],
            )
            mark_unlisted(db.sql, found, now)
        return len(found)

    return db.persist(unlist)


def mark_unlisted(sql: Sql, documents: Sequence[int], now: int) -> None:
    """These documents are no more since `now` (Unix seconds), and nothing of them is in its category."""
    sql.for_keys("UPDATE documents SET unlisted_at = ? WHERE number IN ", documents, now)
    changes(sql, documents)


def forget_lost(db: Session, source: str) -> None:
    """Forget what is left to do, or failed for good, of documents that are no more, and of texts that stand nowhere.

    Should they come back, all of it is to be done.
    """
    db.persist(partial(_forget_lost, db, source))


def _forget_lost(db: Session, source: str) -> None:
    sql, work = db.sql, Worklist(db.sql, source)
    key = sql.key_text("key")
    with db.transaction():
        stages = sql.execute("SELECT stage, work, parked FROM stages WHERE source = ?", [source]).fetchall()
        found = {stage: (due, parked) for stage, due, parked in stages}
        for stage in READS:
            if any(found.get(stage, ())):
                lost = sql.execute(
                    f"SELECT key, due_at IS NULL, number FROM work JOIN documents ON name = {key}"
                    " WHERE source = ? AND stage = ? AND unlisted_at IS NOT NULL",
                    [source, stage],
                ).fetchall()
                sql.for_keys("UPDATE documents SET version = NULL WHERE number IN ", [each[2] for each in lost])
                work.forget(stage, [each[0] for each in lost])
                parked = sum(each[1] for each in lost)
                count(sql, source, stage, work=parked - len(lost), parked=-parked)
        if found.get("embed", (0, 0))[1]:
            texts = [
                text
                for (text,) in sql.execute(
                    "SELECT key FROM work WHERE source = ? AND stage = 'embed' AND outcome IS NOT NULL"
                    " AND due_at IS NULL AND NOT EXISTS (SELECT 1 FROM chunks JOIN documents"
                    f" ON documents.number = document WHERE hash = {key} AND unlisted_at IS NULL)",
                    [source],
                ).fetchall()
            ]
            count(sql, source, "embed", parked=-work.forget("embed", texts))


def changes(sql: Sql, documents: Sequence[int]) -> None:
    """The categories of these documents have changed."""
    touched: set[tuple[str, str]] = set()
    for number in documents:
        touched.update(
            sql.execute("SELECT DISTINCT domain, category FROM chunks WHERE document = ?", [number]).fetchall()
        )
    touch(sql, touched)


def touch(sql: Sql, categories: Iterable[tuple[str, str]]) -> None:
    """These categories have changed: their files are to be written again."""
    for domain, category in sorted(categories):
        sql.execute(
            "INSERT INTO categories (domain, category, changes) VALUES (?, ?, 1)"
            " ON CONFLICT (domain, category) DO UPDATE SET changes = categories.changes + 1",
            [domain, category],
        )


def enlist_categories(db: Session, source: str, *, everything: bool = False) -> int:
    """Make due the categories that have changed since their files were written, or all; how many these are."""

    def enlist() -> int:
        with db.transaction():
            found = db.sql.execute(
                f"SELECT domain, category FROM categories WHERE {'true' if everything else 'changes > written'}"
            ).fetchall()
            return _make_due(db.sql, source, "aggregate", [category_key(*each) for each in found])

    return db.persist(enlist)


def category_key(domain: str, category: str) -> str:
    """The key under which a category is work."""
    return json.dumps([domain, category])


def texts_of(sql: Sql, hashes: Sequence[str]) -> Mapping[str, str]:
    """The texts of these hashes; those that no chunk has any more are left out."""
    # One text may stand in very many places.
    listed, names = sql.listed(hashes)
    select = sql.select("value", "(SELECT text FROM chunks WHERE hash = value LIMIT 1)")
    found = sql.array(f"{select} FROM {listed}", [names])
    return {hash_: text for hash_, text in found if text is not None}


def place_of(sql: Sql, stage: str, key: Key) -> str | None:
    """A place where a text stands that is known by its hash alone; None where a key says what it is."""
    if stage != "embed":
        return None
    row = sql.execute(
        "SELECT name, position FROM chunks JOIN documents ON documents.number = document WHERE hash = ?"
        " ORDER BY document, position LIMIT 1",
        [key],
    ).fetchone()
    return f"{row[0]}, position {row[1]}" if row else None


def recorded_model(sql: Sql) -> tuple[str, int] | None:
    """The model that all vectors are of, and their dimension; None while there are none."""
    row = sql.execute("SELECT name, dimension FROM models").fetchone()
    return (row[0], row[1]) if row else None


def record_model(db: Session, name: str, dimension: int, now: int) -> None:
    """Write down the model that vectors are made by, within a transaction.

    Raises ConfigurationError when they are of another.
    """
    recorded = recorded_model(db.sql)
    if recorded is None:
        index_of(db).fit(dimension)
        db.sql.execute("INSERT INTO models VALUES (?, ?, ?)", [name, dimension, now])
    elif recorded != (name, dimension):
        raise other_model(db.path, recorded, name, dimension)


def other_model(path: Place, recorded: tuple[str, int], name: str, dimension: int | None = None) -> ConfigurationError:
    """Vectors of two models cannot be compared."""
    size = "" if dimension is None else f" ({dimension})"
    return ConfigurationError(
        f"the vectors of {path} are of {recorded[0]} ({recorded[1]} dimensions), not of {name}{size}:"
        " set EMBEDDER and EMBED_MODEL to those, or name another database"
    )
