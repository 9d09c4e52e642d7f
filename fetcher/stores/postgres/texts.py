"""The tables of documents, chunks and vectors in PostgreSQL, and what is made of them for searching."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psycopg

from fetcher.errors import StoreError
from fetcher.model import Failure, Row
from fetcher.place import PostgresUrl
from fetcher.stores.postgres import migrations
from fetcher.stores.postgres.connection import PostgresSql, one_line
from fetcher.stores.postgres.database import Database, Lost
from fetcher.stores.postgres.store import LONGEST_KEY, tellable
from fetcher.stores.postgres.words import folded
from fetcher.stores.sql import Session, Upsert
from fetcher.stores.texts import adopt, has_texts
from fetcher.stores.texts_index import COLUMNS

APPROXIMATE_FROM = 50_000
"""So many vectors get an index, by which the nearest are found approximately; fewer are compared with each, exactly."""

MOST_WHOLE, MOST_HALVED = 2000, 4000
"""Numbers of a vector that pgvector has an index for, and for those with half the digits."""

_LARGE = 10
"""A load is large when it brings more than one part in so many of what is there: the index is made anew after it."""

_MEMORY = "256MB"
"""What the server may use to make an index."""

SCHEMA = (
    """CREATE TABLE documents (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name text COLLATE "C" NOT NULL UNIQUE,
        item jsonb,
        version text,
        chunks bigint NOT NULL DEFAULT 0,
        first_seen_at bigint NOT NULL,
        listed_at bigint NOT NULL,
        read_at bigint,
        unlisted_at bigint
    )""",
    """CREATE TABLE chunks (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id text COLLATE "C" NOT NULL UNIQUE,
        document bigint NOT NULL,
        position bigint NOT NULL,
        text text NOT NULL,
        hash text COLLATE "C" NOT NULL,
        domain text COLLATE "C" NOT NULL,
        category text COLLATE "C" NOT NULL,
        source_book text,
        source_chapter text,
        words tsvector NOT NULL
    )""",
    # A row is mostly longer than what is compressed otherwise, which takes longer than all else about it.
    "ALTER TABLE chunks SET (toast_tuple_target = 8160)",
    "CREATE UNIQUE INDEX chunks_document ON chunks (document, position)",
    "CREATE INDEX chunks_hash ON chunks (hash)",
    "CREATE INDEX chunks_category ON chunks (domain, category, document, position)",
    # How many numbers a vector has is known with the first of them.
    """CREATE TABLE vectors (hash text COLLATE "C" PRIMARY KEY, vector {home}.vector NOT NULL)""",
    "CREATE TABLE models (name text PRIMARY KEY, dimension bigint NOT NULL, recorded_at bigint NOT NULL)",
    """CREATE TABLE categories (
        domain text COLLATE "C" NOT NULL,
        category text COLLATE "C" NOT NULL,
        changes bigint NOT NULL DEFAULT 0,
        written bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (domain, category)
    )""",
    """CREATE TABLE stages (
        source text NOT NULL,
        stage text NOT NULL,
        work bigint NOT NULL DEFAULT 0,
        parked bigint NOT NULL DEFAULT 0,
        done bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (source, stage)
    )""",
)
"""Made when the first text is to be read: as in SQLite, but that a chunk has its words beside it."""

_TABLES = ("documents", "chunks", "vectors", "models", "categories", "stages")


def open_texts(
    url: PostgresUrl, *, clock: Callable[[], float], stopped: Callable[[], bool], warn: Callable[[str], None]
) -> tuple[Database, str]:
    """A database with the tables of texts, made where there is none, and the name of the source that it mirrors.

    Raises StoreError.
    """
    db = Database(url, stopped=stopped, warn=warn)
    try:
        with db.transaction():
            if not has_texts(db.sql):
                migrations.apply(db.sql, url, int(clock()))
                _make(db)
            else:
                migrations.apply(db.sql, url, int(clock()))
            source = adopt(db.sql, int(clock()))
        db.register()
    except BaseException:
        db.close()
        raise
    return db, source


def _make(db: Database) -> None:
    for name in _TABLES:
        if db.sql.has(name):
            raise StoreError(
                f"{db.path} has a table {name} of something else: name another database, or a schema in it by"
                " ?options=-csearch_path%3DNAME"
            )
    home = extension_home(db.sql)
    if home is None:
        try:
            db.sql.execute("CREATE EXTENSION vector")
        except psycopg.Error as error:
            raise StoreError(
                f"{db.path} has no pgvector ({one_line(error)}): install it on the server, and have its owner say"
                " CREATE EXTENSION vector"
            ) from error
        home = extension_home(db.sql)
    for statement in SCHEMA:
        db.sql.execute(statement.replace("{home}", str(home)))


def extension_home(sql: PostgresSql) -> str | None:
    """The schema that pgvector's words are in, as SQL; None where the database has no pgvector."""
    row = sql.execute(
        "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace"
        " WHERE extname = 'vector'"
    ).fetchone()
    return None if row is None else str(row[0])


class ServerIndex:
    """The words of a chunk beside it; an index of them, and one of the vectors, made after a large load."""

    _INTO = Upsert("chunks", (*COLUMNS, "words"), ("id",), "")

    def __init__(self, db: Session) -> None:
        assert isinstance(db, Database)
        self._db = db
        self._sql = db.sql

    def insert(self, chunks: Sequence[Row]) -> int:
        """Write chunks, but those whose ids are taken; how many were written."""
        return self._sql.insert(self._INTO, [(*each, folded((each[3], each[8]))) for each in chunks])

    def add(self, document: int, lo: int, hi: int, positions: Sequence[int] | None) -> None:
        """Nothing: their words came with them."""

    def forget(self, numbers: Sequence[int]) -> None:
        """Nothing: their words go with them."""

    def takes(self, name: str) -> bool:
        """Whether a name fits into an index."""
        return len(name.encode()) <= LONGEST_KEY

    def fit(self, dimension: int) -> None:
        """Have vectors of this size; one that fits a page stays in its row, or an index of them would not be used."""
        home = extension_home(self._sql)
        self._sql.execute(f"ALTER TABLE vectors ALTER COLUMN vector TYPE {home}.vector({dimension})")
        if dimension <= MOST_WHOLE:
            self._sql.execute("ALTER TABLE vectors ALTER COLUMN vector SET STORAGE PLAIN")

    def told(self, failure: Failure) -> Failure:
        """The failure with a key and a message that PostgreSQL can hold."""
        return tellable(failure)

    def prepare_load(self, estimate: int) -> None:
        """Drop the index of the vectors before many more of them."""

        def drop() -> None:
            with self._db.explained():
                (there,) = self._sql.execute("SELECT count(*) FROM vectors").fetchone()
                has = self._sql.has("vectors_nearest")
            if has and estimate > there / _LARGE:
                with self._db.transaction():
                    self._sql.execute("DROP INDEX vectors_nearest")

        self._db.persist(drop)

    def finish_load(self) -> None:
        """Make the indexes that are missing; where one cannot be made, say so and do without. Raises Stopped."""
        self._db.persist(self._finish_load)

    def _finish_load(self) -> None:
        self._made("chunks_words", "CREATE INDEX chunks_words ON chunks USING gin (words)")
        with self._db.explained():
            row = self._sql.execute("SELECT dimension, (SELECT count(*) FROM vectors) FROM models").fetchone()
        if row is not None and row[1] >= APPROXIMATE_FROM and row[0] <= MOST_HALVED:
            home, size = extension_home(self._sql), row[0]
            what = f"vector {home}.vector_cosine_ops"
            if size > MOST_WHOLE:
                what = f"(vector::{home}.halfvec({size})) {home}.halfvec_cosine_ops"
            self._made("vectors_nearest", f"CREATE INDEX vectors_nearest ON vectors USING hnsw ({what})")
        for table in ("documents", "chunks", "vectors"):
            with self._db.explained():
                self._sql.execute(f"ANALYZE {table}")

    def _made(self, name: str, statement: str) -> None:
        if self._sql.has(name):
            return
        try:
            with self._db.transaction(), self._db.interruptible():
                self._sql.execute(f"SET LOCAL maintenance_work_mem = '{_MEMORY}'")
                self._sql.execute(statement)
        except Lost:
            raise
        except (StoreError, *self._db.refused) as error:
            self._db.warn(f"no index {name} yet ({one_line(error)}): all is stored, the next run tries again")
