"""The tables of documents, chunks and vectors, in a database of their own or beside those of a mirror."""

from __future__ import annotations

SCHEMA = (
    # What is read: a file under its path, or an item of the mirror under `TABLE/KEY`.
    """CREATE TABLE documents (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        item ANY,
        version TEXT,
        chunks INTEGER NOT NULL DEFAULT 0,
        first_seen_at INTEGER NOT NULL,
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
    "CREATE INDEX chunks_category ON chunks (domain, category, number)",
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
