"""Whether the texts of a database are all read and embedded, and agree with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from fetcher.embedders.vectors import SIZE, are_finite
from fetcher.model import Key
from fetcher.stores.bulk import SqliteSql
from fetcher.stores.schema import marks
from fetcher.stores.sql import Sql
from fetcher.stores.texts import READS, STAGES, place_of

MOST_NAMED = 1000
"""So many are named of each kind; all are counted."""

_MOST_TOLD = 20
"""So many of what is wrong in one way are told one by one."""

_VECTORS = 2000
"""So many vectors are looked at, at once."""


@dataclass(frozen=True, slots=True)
class TextWork:
    """Work that is left of texts; `parked` says that it failed for good, `where` is a place of the text."""

    stage: str
    key: Key
    outcome: str | None
    parked: bool
    where: str | None


@dataclass(frozen=True, slots=True)
class TextsVerdict:
    """What `verify` found of texts: complete when nothing is left to do, nothing failed and nothing is wrong.

    `as_of` is when the document was listed whose listing is the oldest (Unix seconds), None when there was none.
    """

    documents: int
    chunks: int
    vectors: int
    as_of: int | None
    unfinished: tuple[TextWork, ...]
    unfinished_count: int
    wrong: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether all documents that were listed are read, and all of their chunks have vectors."""
        return not (self.unfinished_count or self.wrong)


def check_texts(sql: Sql, on_step: Callable[[str], None]) -> TextsVerdict:
    """Read all that a database has of texts, within the transaction of the caller."""
    on_step("documents")
    documents, as_of = sql.execute(
        "SELECT count(*), min(listed_at) FROM documents WHERE unlisted_at IS NULL"
    ).fetchone()
    (chunks,) = sql.execute("SELECT count(*) FROM chunks").fetchone()
    (vectors,) = sql.execute("SELECT count(*) FROM vectors").fetchone()
    ours = f"source = (SELECT name FROM sources) AND stage IN ({marks(len(STAGES))})"
    (work,) = sql.execute(f"SELECT count(*) FROM work WHERE {ours}", STAGES).fetchone()
    unfinished = sql.execute(
        f"SELECT stage, key, outcome, due_at IS NULL FROM work WHERE {ours}"
        " ORDER BY due_at IS NULL, stage, key LIMIT ?",
        [*STAGES, MOST_NAMED],
    ).fetchall()
    wrong = [*_totals(sql), *_documents(sql)]
    on_step("chunks")
    wrong += [*_chunks(sql), *_categories(sql), *_search(sql)]
    on_step("vectors")
    wrong += _vectors(sql)
    return TextsVerdict(
        documents=documents,
        chunks=chunks,
        vectors=vectors,
        as_of=as_of,
        unfinished=tuple(
            TextWork(stage, key, outcome, bool(parked), place_of(sql, stage, key))
            for stage, key, outcome, parked in unfinished
        ),
        unfinished_count=work,
        wrong=tuple(wrong),
    )


def _totals(sql: Sql) -> Iterator[str]:
    """Where what is kept of a stage with each batch differs from what there is."""
    there = {
        stage: counts
        for stage, *counts in sql.execute(
            "SELECT stage, count(*) FILTER (WHERE due_at IS NOT NULL), count(*) FILTER (WHERE due_at IS NULL) FROM work"
            f" WHERE source = (SELECT name FROM sources) AND stage IN ({marks(len(STAGES))}) GROUP BY stage",
            STAGES,
        )
    }
    kept = {stage: counts for stage, *counts in sql.execute("SELECT stage, work, parked FROM stages")}
    for stage in STAGES:
        names = ("work left", "failed for good")
        for name, found, counted in zip(names, there.get(stage, [0, 0]), kept.get(stage, [0, 0]), strict=True):
            if found != counted:
                yield f"stage {stage}, {name}: {found:,} are there, {counted:,} were counted"


def _documents(sql: Sql) -> Iterator[str]:
    """Documents that were forgotten, or have not the chunks that they were read into.

    One that is still to be read, or could not be, has some of its chunks before it has all.
    """
    settled = (
        "unlisted_at IS NULL AND NOT EXISTS (SELECT 1 FROM work WHERE source = (SELECT name FROM sources)"
        f" AND stage IN {READS} AND key = {sql.any_sql('documents.name')})"
    )
    yield from _told(
        sql,
        f"SELECT name FROM documents WHERE version IS NULL AND {settled}",
        "{} was never read, and is not to be",
    )
    yield from _told(
        sql,
        "SELECT name, coalesce(there, 0), documents.chunks FROM documents LEFT JOIN"
        " (SELECT document, count(*) AS there FROM chunks GROUP BY document) AS counted ON document = documents.number"
        f" WHERE documents.chunks != coalesce(there, 0) AND {settled}",
        "{}: {:,} chunks are there, {:,} were read",
    )


def _chunks(sql: Sql) -> Iterator[str]:
    """Chunks of no document, and texts that nobody is to embed."""
    yield from _told(
        sql,
        "SELECT document FROM (SELECT DISTINCT document FROM chunks) AS those"
        " WHERE NOT EXISTS (SELECT 1 FROM documents WHERE number = document)",
        "chunks: some are of document {}, which is not there",
    )
    yield from _told(
        sql,
        # By their hashes, in the order of two indexes: looked up in that of the chunks it takes five times as long.
        "SELECT coalesce((SELECT name || ', position ' || position FROM chunks JOIN documents"
        " ON documents.number = document WHERE chunks.hash = wanted.hash LIMIT 1), wanted.hash)"
        " FROM (SELECT DISTINCT hash FROM chunks) AS wanted"
        " WHERE NOT EXISTS (SELECT 1 FROM vectors WHERE vectors.hash = wanted.hash) AND NOT EXISTS"
        " (SELECT 1 FROM work WHERE source = (SELECT name FROM sources) AND stage = 'embed'"
        f" AND key = {sql.any_sql('wanted.hash')})"
        # What failed of documents that are no more is forgotten: should they come back, it is to be embedded.
        " AND EXISTS (SELECT 1 FROM chunks JOIN documents ON documents.number = document"
        " WHERE chunks.hash = wanted.hash AND unlisted_at IS NULL)",
        "{}: its text has no vector, and is not to be embedded",
    )


def _categories(sql: Sql) -> Iterator[str]:
    """Categories that nobody knows to have changed, or whose file is ahead of them."""
    yield from _told(
        sql,
        "SELECT domain, category FROM (SELECT DISTINCT domain, category FROM chunks) AS those"
        " EXCEPT SELECT domain, category FROM categories",
        "categories: {}/{} has chunks and is not there",
    )
    yield from _told(
        sql,
        "SELECT domain, category FROM categories WHERE written > changes",
        "categories: the file of {}/{} is newer than its chunks",
    )


def _search(sql: Sql) -> Iterator[str]:
    """Where full-text search has other chunks than there are. FTS5's own check would have to write."""
    if not sql.has("chunks_search_docsize"):
        return  # Words that stand beside their chunk cannot lack.
    indexed = "EXISTS (SELECT 1 FROM chunks_search_docsize WHERE id = number)"
    lacking, first = sql.execute(f"SELECT count(*), min(number) FROM chunks WHERE NOT {indexed}").fetchone()
    if lacking:
        yield f"the search lacks {lacking:,} of the chunks, the first is number {first}"
    there = "EXISTS (SELECT 1 FROM chunks WHERE number = docs.id)"
    more, first = sql.execute(
        f"SELECT count(*), min(id) FROM chunks_search_docsize AS docs WHERE NOT {there}"
    ).fetchone()
    if more:
        yield f"the search has {more:,} chunks that are not there, the first is number {first}"


def _vectors(sql: Sql) -> Iterator[str]:
    """Vectors that are none of the one model's."""
    models = sql.execute("SELECT name, dimension FROM models").fetchall()
    if len(models) > 1:
        yield f"vectors: they are of {len(models)} models: {', '.join(name for name, _ in models)}"
        return
    found = vectors_of(sql)
    size = models[0][1] * SIZE if models else None
    told = 0
    while some := list(islice(found, _VECTORS)):
        if size is None:
            yield "vectors: there are some, and no model is recorded"
            return
        for key, flaw in _flaws(some, size):
            told += 1
            if told <= _MOST_TOLD:
                where = place_of(sql, "embed", key)
                yield f"the vector of {f'{where} ({key})' if where else key} {flaw}"
    if told > _MOST_TOLD:
        yield f"vectors: {told - _MOST_TOLD:,} more are wrong"


def vectors_of(sql: Sql) -> Iterator[tuple[str, bytes]]:
    """All vectors with their keys, as they are stored in a file, some at a time."""
    if isinstance(sql, SqliteSql):
        yield from sql.execute("SELECT hash, vector FROM vectors ORDER BY rowid")
        return
    sql.execute("DECLARE checked NO SCROLL CURSOR FOR SELECT hash, vector::real[] FROM vectors")
    while rows := sql.execute(f"FETCH {_VECTORS} FROM checked").fetchall():
        yield from rows


def _flaws(vectors: Sequence[tuple[str, bytes]], size: int) -> Iterator[tuple[str, str]]:
    """What is wrong with vectors, by their keys."""
    for key, vector in vectors:
        if len(vector) != size:
            yield key, f"has {len(vector) / SIZE:g} dimensions, not {size // SIZE}"
        elif not are_finite(vector):
            yield key, "has a number that is infinite or none"


def _told(sql: Sql, select: str, sentence: str) -> Iterator[str]:
    """A sentence for each row, and how many more there are."""
    rows = iter(sql.execute(select))
    yield from (sentence.format(*row) for row in islice(rows, _MOST_TOLD))
    more = sum(1 for _ in rows)
    if more:
        yield f"{more:,} more like these"
