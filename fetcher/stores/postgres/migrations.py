"""The schema of the engine's own tables in PostgreSQL, as steps that every database goes through once.

A step that has been released is never edited; what changes becomes a new step below it.
"""

from __future__ import annotations

from collections.abc import Callable

from fetcher.errors import StoreError
from fetcher.stores.postgres.connection import PostgresSql
from fetcher.stores.schema import marks
from fetcher.stores.sql import Sql

TABLE = "fetcher_migrations"
"""Which steps a database has been through; where it is, the schema is ours."""

OURS = ("sources", "coverage", "work", "failures", "runs", "walks", "engines")


def m001_engine_tables(sql: PostgresSql) -> None:
    """The tables that SQLite's have come to by seven steps, and that of the engines."""
    for statement in _FIRST:
        sql.execute(statement)


STEPS: tuple[Callable[[PostgresSql], None], ...] = (m001_engine_tables,)
"""In their order; a step is known by its name."""


def apply(sql: PostgresSql, where: object, now: int) -> None:
    """Take a database through the steps that it has not been through, within a transaction. Raises StoreError."""
    if not sql.has(TABLE):
        foreign = [name for name in OURS if sql.has(name)]
        if foreign:
            raise StoreError(
                f"{where} has a table {foreign[0]} of something else: name another database, or a schema in it by"
                " ?options=-csearch_path%3DNAME"
            )
        sql.execute(f"CREATE TABLE {TABLE} (name text PRIMARY KEY, applied_at bigint NOT NULL)")
    known = done(sql)
    for step in STEPS:
        if step.__name__ not in known:
            step(sql)
            sql.execute(f"INSERT INTO {TABLE} VALUES ({marks(2)})", [step.__name__, now])


def names() -> list[str]:
    """The names of all steps."""
    return [step.__name__ for step in STEPS]


def done(sql: Sql) -> list[str]:
    """The names of the steps that a database has been through."""
    if not sql.has(TABLE):
        return []
    return [name for (name,) in sql.execute(f"SELECT name FROM {TABLE} ORDER BY 1").fetchall()]


_FIRST = (
    """CREATE TABLE sources (
        name text PRIMARY KEY,
        base_url text NOT NULL,
        created_at bigint NOT NULL,
        sweep bigint NOT NULL DEFAULT 1,
        sweep_started_at bigint NOT NULL DEFAULT 0,
        sweep_ended_at bigint,
        items bigint NOT NULL DEFAULT 0,
        fetched bigint NOT NULL DEFAULT 0,
        work bigint NOT NULL DEFAULT 0,
        parked bigint NOT NULL DEFAULT 0,
        learned text,
        scopes text,
        search_filled_to bigint,
        options text,
        wanted text,
        description text
    )""",
    # Scopes and keys are numbers or texts: jsonb sorts both.
    """CREATE TABLE coverage (
        source text NOT NULL,
        scope jsonb NOT NULL,
        sweep bigint NOT NULL,
        lo bigint NOT NULL,
        hi bigint NOT NULL,
        items bigint NOT NULL,
        walked_at bigint NOT NULL,
        PRIMARY KEY (source, scope, sweep, lo)
    )""",
    # By key first: where a table grows faster than its statistics, a planner believes that a source and a stage name
    # next to nothing, and would look through all of it for a few keys.
    """CREATE TABLE work (
        source text NOT NULL,
        stage text NOT NULL,
        key jsonb NOT NULL,
        priority bigint NOT NULL DEFAULT 0,
        attempts bigint NOT NULL DEFAULT 0,
        due_at double precision,
        outcome text,
        error text,
        PRIMARY KEY (key, stage, source)
    )""",
    # Claims read this index alone: within a priority the keys lie in the run's order.
    "CREATE INDEX work_due ON work (source, stage, priority, key, due_at) WHERE due_at IS NOT NULL",
    "CREATE INDEX work_parked ON work (source, stage, key) WHERE due_at IS NULL",
    "CREATE INDEX work_failed ON work (outcome) WHERE outcome IS NOT NULL",
    """CREATE TABLE failures (
        source text NOT NULL,
        stage text NOT NULL,
        key jsonb NOT NULL,
        outcome text NOT NULL,
        message text NOT NULL,
        status bigint,
        body bytea,
        attempts bigint NOT NULL,
        failed_at bigint NOT NULL,
        PRIMARY KEY (key, stage, source)
    )""",
    """CREATE TABLE runs (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        source text NOT NULL,
        pid bigint NOT NULL,
        plan text NOT NULL,
        started_at bigint NOT NULL,
        updated_at bigint NOT NULL,
        ended_at bigint,
        ended text,
        message text,
        pages bigint NOT NULL DEFAULT 0,
        listed bigint NOT NULL DEFAULT 0,
        new bigint NOT NULL DEFAULT 0,
        stored bigint NOT NULL DEFAULT 0,
        gone bigint NOT NULL DEFAULT 0,
        failed bigint NOT NULL DEFAULT 0,
        retries bigint NOT NULL DEFAULT 0,
        requests bigint NOT NULL DEFAULT 0,
        limited bigint NOT NULL DEFAULT 0,
        queued bigint NOT NULL DEFAULT 0,
        "left" bigint NOT NULL DEFAULT 0,
        rate double precision NOT NULL DEFAULT 0,
        paused_until bigint,
        reason text,
        rows bigint NOT NULL DEFAULT 0,
        totals text,
        stage text NOT NULL DEFAULT 'detail'
    )""",
    """CREATE TABLE walks (
        source text NOT NULL,
        scope jsonb NOT NULL,
        token text NOT NULL,
        kept_at bigint NOT NULL,
        PRIMARY KEY (source, scope)
    )""",
    # Who writes, and how many transactions it has come to the end of.
    """CREATE TABLE engines (
        id text PRIMARY KEY,
        host text NOT NULL,
        pid bigint NOT NULL,
        begun_at bigint NOT NULL,
        seen_at bigint NOT NULL,
        commits bigint NOT NULL DEFAULT 0
    )""",
)
