"""The schema of the engine's own tables, as steps that every database goes through once.

A step that has been released is never edited; what changes becomes a new step below it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID = 0x66746368
"""Marks an SQLite file as a database of ours ("ftch", `PRAGMA application_id`)."""


def m001_engine_tables(db: Database) -> None:
    """The tables of the first release."""
    for statement in _FIRST:
        db.execute(statement)


def m002_scopes(db: Database) -> None:
    """What the mirror is to cover: the scopes that any run was asked for, as a JSON list."""
    db.execute("ALTER TABLE sources ADD COLUMN scopes TEXT")
    db.execute(
        "UPDATE sources SET scopes = (SELECT json_group_array(DISTINCT scope) FROM coverage WHERE source = name)"
    )


def m003_search_of_older_mirrors(db: Database) -> None:
    """How far a search has been filled with what was fetched before it was made."""
    db.execute("ALTER TABLE sources ADD COLUMN search_filled_to INTEGER")


def m004_totals(db: Database) -> None:
    """What the network did in a run, and how many rows it wrote."""
    db.execute("ALTER TABLE runs ADD COLUMN rows INTEGER NOT NULL DEFAULT 0")
    db.execute("ALTER TABLE runs ADD COLUMN totals TEXT")


def m005_wanted(db: Database) -> None:
    """What was asked of the source last, and the positions that the mirror is to cover in each scope."""
    db.execute("ALTER TABLE sources ADD COLUMN options TEXT")
    db.execute("ALTER TABLE sources ADD COLUMN wanted TEXT")


def m006_described(db: Database) -> None:
    """What a source was made from, and where walks go on that prove nothing before they have ended."""
    db.execute("ALTER TABLE sources ADD COLUMN description TEXT")
    db.execute(
        """CREATE TABLE walks (
            source TEXT NOT NULL,
            scope ANY NOT NULL,
            token TEXT NOT NULL,
            kept_at INTEGER NOT NULL,
            PRIMARY KEY (source, scope)
        ) STRICT, WITHOUT ROWID"""
    )


def m007_stages(db: Database) -> None:
    """Which stage a run is of: a mirror's, or one of those that texts go through."""
    db.execute("ALTER TABLE runs ADD COLUMN stage TEXT NOT NULL DEFAULT 'detail'")


def m008_jobs(db: Database) -> None:
    """Ids that were submitted over HTTP: jobs, their batches, and how ids ended that are not simply stored."""
    db.execute("ALTER TABLE sources ADD COLUMN batch_triggered_at REAL")
    for statement in _JOBS:
        db.execute(statement)


STEPS: tuple[Callable[[Database], None], ...] = (
    m001_engine_tables,
    m002_scopes,
    m003_search_of_older_mirrors,
    m004_totals,
    m005_wanted,
    m006_described,
    m007_stages,
    m008_jobs,
)
"""In their order; a step is known by its name."""


def apply(conn: sqlite3.Connection) -> None:
    """Take a database through the steps that it has not been through."""
    if set(names()).issubset(done(conn)):
        return
    # Where pandas is installed sqlite-utils imports it, which takes longer than to open a database many times.
    from sqlite_utils import Database, Migrations

    migrations = Migrations(_SET)
    for step in STEPS:
        migrations()(step)
    migrations.apply(Database(conn))


def names() -> list[str]:
    """The names of all steps."""
    return [step.__name__ for step in STEPS]


def done(conn: sqlite3.Connection) -> list[str]:
    """The names of the steps that a database has been through."""
    if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone():
        return []
    rows = conn.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = ?", [_SET]).fetchall()
    return [name for (name,) in rows]


_SET = "fetcher"

_FIRST = (
    """CREATE TABLE sources (
        name TEXT PRIMARY KEY,
        base_url TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        sweep INTEGER NOT NULL DEFAULT 1,
        sweep_started_at INTEGER NOT NULL DEFAULT 0,
        sweep_ended_at INTEGER,
        items INTEGER NOT NULL DEFAULT 0,
        fetched INTEGER NOT NULL DEFAULT 0,
        work INTEGER NOT NULL DEFAULT 0,
        parked INTEGER NOT NULL DEFAULT 0,
        learned TEXT
    ) STRICT""",
    """CREATE TABLE coverage (
        source TEXT NOT NULL,
        scope ANY NOT NULL,
        sweep INTEGER NOT NULL,
        lo INTEGER NOT NULL,
        hi INTEGER NOT NULL,
        items INTEGER NOT NULL,
        walked_at INTEGER NOT NULL,
        PRIMARY KEY (source, scope, sweep, lo)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE work (
        source TEXT NOT NULL,
        stage TEXT NOT NULL,
        key ANY NOT NULL,
        priority INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        due_at REAL,
        outcome TEXT,
        error TEXT,
        PRIMARY KEY (source, stage, key)
    ) STRICT, WITHOUT ROWID""",
    # Claims read this index alone: within a priority the keys lie in the run's order.
    "CREATE INDEX work_due ON work (source, stage, priority, key, due_at) WHERE due_at IS NOT NULL",
    "CREATE INDEX work_failed ON work (outcome) WHERE outcome IS NOT NULL",
    """CREATE TABLE failures (
        source TEXT NOT NULL,
        stage TEXT NOT NULL,
        key ANY NOT NULL,
        outcome TEXT NOT NULL,
        message TEXT NOT NULL,
        status INTEGER,
        body BLOB,
        attempts INTEGER NOT NULL,
        failed_at INTEGER NOT NULL,
        PRIMARY KEY (source, stage, key)
    ) STRICT""",
    """CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        source TEXT NOT NULL,
        pid INTEGER NOT NULL,
        plan TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        ended_at INTEGER,
        ended TEXT,
        message TEXT,
        pages INTEGER NOT NULL DEFAULT 0,
        listed INTEGER NOT NULL DEFAULT 0,
        new INTEGER NOT NULL DEFAULT 0,
        stored INTEGER NOT NULL DEFAULT 0,
        gone INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        retries INTEGER NOT NULL DEFAULT 0,
        requests INTEGER NOT NULL DEFAULT 0,
        limited INTEGER NOT NULL DEFAULT 0,
        queued INTEGER NOT NULL DEFAULT 0,
        "left" INTEGER NOT NULL DEFAULT 0,
        rate REAL NOT NULL DEFAULT 0,
        paused_until INTEGER,
        reason TEXT
    ) STRICT""",
)

_JOBS = (
    """CREATE TABLE jobs (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        source TEXT NOT NULL,
        priority INTEGER NOT NULL,
        idempotency_key TEXT UNIQUE,
        digest TEXT,
        created_at REAL NOT NULL,
        started_at REAL,
        finished_at REAL,
        ids INTEGER NOT NULL,
        batches INTEGER NOT NULL,
        waiting INTEGER NOT NULL,
        triggered INTEGER NOT NULL DEFAULT 0,
        stored INTEGER NOT NULL DEFAULT 0,
        gone INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        cancelled INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    # The next batch is that of the first job here.
    "CREATE INDEX jobs_waiting ON jobs (priority DESC, number, waiting) WHERE waiting > 0",
    # For who looks at those of one status.
    "CREATE INDEX jobs_open ON jobs (number) WHERE finished_at IS NULL",
    # What a person looks at each second: the last that ended well, the last that did not.
    "CREATE INDEX jobs_ended ON jobs (finished_at) WHERE finished_at IS NOT NULL AND failed = 0",
    "CREATE INDEX jobs_failed ON jobs (finished_at) WHERE finished_at IS NOT NULL AND failed > 0",
    "CREATE INDEX jobs_triggered ON jobs (number) WHERE finished_at IS NULL AND waiting < batches",
    "CREATE INDEX jobs_finished ON jobs (number) WHERE finished_at IS NOT NULL",
    """CREATE TABLE job_batches (
        job INTEGER NOT NULL REFERENCES jobs,
        number INTEGER NOT NULL,
        ids TEXT NOT NULL,
        retry TEXT,
        status TEXT NOT NULL DEFAULT 'yet_to_start',
        triggered_at REAL,
        finished_at REAL,
        size INTEGER NOT NULL,
        stored INTEGER NOT NULL DEFAULT 0,
        gone INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        cancelled INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (job, number)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX job_batches_waiting ON job_batches (job, number) WHERE status = 'yet_to_start'",
    # What was triggered and has not ended: by key, since that is what the end of work names.
    """CREATE TABLE job_work (
        key INTEGER NOT NULL,
        job INTEGER NOT NULL,
        batch INTEGER NOT NULL,
        PRIMARY KEY (key, job)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX job_work_batch ON job_work (job, batch)",
    """CREATE TABLE job_failures (
        job INTEGER NOT NULL REFERENCES jobs,
        batch INTEGER NOT NULL,
        key INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        message TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        ended_at REAL NOT NULL,
        PRIMARY KEY (job, batch, key)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX job_failures_failed ON job_failures (job, batch, key) WHERE outcome != 'gone'",
)
