"""What a database holds of texts and how their runs went, read without disturbing one that is being written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fetcher.place import Place
from fetcher.stores.opening import reading
from fetcher.stores.overview import RunRow, last_runs
from fetcher.stores.schema import marks
from fetcher.stores.sql import Sql
from fetcher.stores.texts import READS, STAGES, has_texts, recorded_model

_RUNS = 10


@dataclass(frozen=True, slots=True)
class StageState:
    """What a stage has to do (`work`), has failed at for good (`parked`) and has done.

    `waiting` and `failed` split the first two by the outcome of their last try, where there was one.
    """

    name: str
    work: int
    parked: int
    done: int
    waiting: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextsOverview:
    """Totals of the texts in a database, what their stages have to do, and their last runs, newest first.

    `documents` are those that the last listing named, `read` those of them that were read at least once, `changed`
    those of these that are to be read again; `unlisted` are documents that are there no more, whose chunks are kept.
    `model` and `dimension` are None while there are no vectors. A run has a row for each stage.
    """

    documents: int
    read: int
    changed: int
    unlisted: int
    chunks: int
    categories: int
    vectors: int
    model: str | None
    dimension: int | None
    stages: tuple[StageState, ...]
    runs: tuple[RunRow, ...]
    bytes: int

    @property
    def running(self) -> tuple[RunRow, ...]:
        """The stages that go on now, in their order."""
        going = [run for run in self.runs if run.goes_on]
        return tuple(sorted(going, key=lambda run: STAGES.index(run.stage)))

    @property
    def parked(self) -> int:
        """How much failed for good."""
        return sum(each.parked for each in self.stages)

    @property
    def unread(self) -> int:
        """How many documents are still to be read."""
        return sum(each.work for each in self.stages if each.name in READS)


def texts_overview(path: Place) -> TextsOverview | None:
    """Read it; None where a database has no texts. Raises StoreError."""
    with reading(path, moment=True) as sql:
        if not has_texts(sql):
            return None
        documents, read, unlisted = sql.execute(
            "SELECT count(*) FILTER (WHERE unlisted_at IS NULL),"
            " count(*) FILTER (WHERE unlisted_at IS NULL AND version IS NOT NULL), count(unlisted_at)"
            " FROM documents"
        ).fetchone()
        (changed,) = sql.execute(
            f"SELECT count(*) FROM work JOIN documents ON name = {sql.key_text('key')}"
            f" WHERE source = (SELECT name FROM sources) AND stage IN {READS} AND due_at IS NOT NULL"
            " AND version IS NOT NULL"
        ).fetchone()
        (chunks,) = sql.execute("SELECT count(*) FROM chunks").fetchone()
        (vectors,) = sql.execute("SELECT count(*) FROM vectors").fetchone()
        (categories,) = sql.execute("SELECT count(*) FROM categories").fetchone()
        model, dimension = recorded_model(sql) or (None, None)
        return TextsOverview(
            documents=documents,
            read=read,
            changed=changed,
            unlisted=unlisted,
            chunks=chunks,
            categories=categories,
            vectors=vectors,
            model=model,
            dimension=dimension,
            stages=_stages(sql),
            runs=last_runs(sql, STAGES, _RUNS),
            bytes=sql.bytes(),
        )


def _stages(sql: Sql) -> tuple[StageState, ...]:
    """What each stage that ever had anything to do has kept of it."""
    outcomes: dict[tuple[str, int], dict[str, int]] = {}
    for stage, parked, outcome, count in sql.execute(
        "SELECT stage, due_at IS NULL, outcome, count(*) FROM work"
        f" WHERE outcome IS NOT NULL AND stage IN ({marks(len(STAGES))}) GROUP BY 1, 2, 3 ORDER BY 3",
        STAGES,
    ):
        outcomes.setdefault((stage, parked), {})[outcome] = count
    found = {
        stage: StageState(stage, work, parked, done, outcomes.get((stage, 0), {}), outcomes.get((stage, 1), {}))
        for stage, work, parked, done in sql.execute("SELECT stage, work, parked, done FROM stages")
    }
    return tuple(found[name] for name in STAGES if name in found)
