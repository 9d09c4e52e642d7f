"""What a copy consists of: the tables of the source, the engine's own, and those of texts and jobs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fetcher.errors import ConfigurationError
from fetcher.model import Table
from fetcher.place import Place
from fetcher.stores.marker import CHANGES, COPIED, COPYING, RANGES
from fetcher.stores.opening import holds
from fetcher.stores.rows import Reader, Relation
from fetcher.stores.schema import quoted
from fetcher.stores.texts import STAGES

_ENGINE = (
    Relation("coverage", ("source", "scope", "sweep", "lo")),
    Relation("work", ("source", "stage", "key")),
    Relation("failures", ("source", "stage", "key")),
    Relation("walks", ("source", "scope")),
    Relation("runs", ("id",)),
)

PARTS: Mapping[str, tuple[Relation, ...]] = {
    "texts": (
        Relation("documents", ("number",)),
        Relation("chunks", ("number",)),
        Relation("vectors", ("hash",)),
        Relation("models", ("name",)),
        Relation("categories", ("domain", "category")),
        Relation("stages", ("source", "stage")),
    ),
    "jobs": (
        Relation("jobs", ("number",)),
        Relation("job_batches", ("job", "number")),
        Relation("job_work", ("key", "job")),
        Relation("job_failures", ("job", "batch", "key")),
    ),
}
"""What there may be beside a mirror, and can be left out; by the names that `without` has."""

_ITS_OWN = {"sources", "search", "engines", "fetcher_migrations", COPYING, COPIED, RANGES, CHANGES}
"""What each database has of itself, and `sources`, which comes last."""


def relations(
    origin: Place, rows: Reader, tables: Sequence[Table], goal: Place, without: Collection[str]
) -> tuple[list[Relation], list[str]]:
    """All that is to be copied, and the tables that are of nothing we know.

    Raises ConfigurationError when the goal cannot hold a part that is not left out.
    """
    there = rows.tables()
    parts = []
    for part, its in PARTS.items():
        present = [each for each in its if each.table in there]
        if part in without or not present:
            continue
        if holds(goal, part):
            parts += present
        elif any(_has_rows(rows, each) for each in present):
            raise ConfigurationError(f"{goal} cannot hold the {part} of {origin}: --without {part} copies all else")
    if not tables and "texts" in without:
        raise ConfigurationError(f"{origin} holds texts alone: without them there is nothing to copy")
    of_texts = ", ".join(f"'{each}'" for each in STAGES)
    others = f"stage NOT IN ({of_texts})"
    engine = [
        Relation(each.table, each.key, others) if "texts" in without and "stage" in rows.columns(each.table) else each
        for each in _ENGINE
    ]
    found = [*map(_of_source, tables), *engine, *parts]
    known = {each.table for each in found}.union(_ITS_OWN, *({each.table for each in its} for its in PARTS.values()))
    return [each for each in found if each.table in there], [each for each in there if each not in known]


def _of_source(table: Table) -> Relation:
    first = table.columns[0].name
    return Relation(table.name, (first,) if table.parent is None else (table.parent, first))


def _has_rows(rows: Reader, relation: Relation) -> bool:
    return rows.sql.execute(f"SELECT 1 FROM {quoted(relation.table)} LIMIT 1").fetchone() is not None
