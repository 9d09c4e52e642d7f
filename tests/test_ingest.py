"""From files to vectors: nothing is read or embedded twice, nothing is lost, whatever befalls a run."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fetcher import ConfigurationError, Interrupted, LoginError, Stop, StoreError
from fetcher.engine import Engine
from fetcher.errors import RequestFailed
from fetcher.model import Batch, Outcome
from fetcher.simulator import Answer, EmbeddingsWorld, Limit, Profile, Share, Simulator, World
from fetcher.stores.stages import DocumentWriter, StageStore, VectorWriter
from fetcher.texts.chunk import Chunk, chunk_id, text_hash
from fetcher.texts.ingest import TextSummary, embed, ingest
from fetcher.texts.reader import Reader
from fetcher.texts.reading import PIECE_ROWS
from fetcher.texts.stages import Aggregating
from tests.fakes import Died, death
from tests.helpers import _environment, column, eventually, mirror, one, query
from tests.texts import Embedder, assert_totals, assert_whole, texts_dump, write_book

pytestmark = pytest.mark.usefixtures("no_threads_left")

Simulate = Callable[..., Simulator]

SMALL: dict[str, Any] = {"chunk_size": 200, "chunk_overlap": 0, "reader_processes": 1}
"""Chunks of one paragraph each."""


def lines(path: Path) -> list[Chunk]:
    """A parser that needs no process: each line is a chunk."""
    return [Chunk(line) for line in path.read_text().splitlines()]


def in_this_thread(path: Path) -> list[Chunk]:
    return lines(path)


in_this_thread.__module__ = "__main__"  # What cannot be sent to another process is run here.


def write_lines(path: Path, *texts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(texts) + "\n")
    return path


def run(path: Path, db: Path, embedder: Any = None, **settings: Any) -> TextSummary:
    """Ingest lines, quickly."""
    given = {
        "parser": in_this_thread,
        "embedder": embedder or Embedder(),
        "embed_batch_size": 4,
        "max_backoff_seconds": 0.01,
    }
    return ingest(path, db, **{**given, **settings})


# --- from files to vectors ----------------------------------------------------------------------------


def test_files_are_read_into_chunks_and_every_chunk_has_its_vector(tmp_path: Path) -> None:
    books, db = tmp_path / "books", tmp_path / "t.db"
    write_book(books, "bees"), write_book(books / "ice", "glaciers")
    summary = ingest(books, db, embedder=Embedder(), domain="science", **SMALL)
    assert [path.name for path in tmp_path.iterdir() if "wal" in path.name] == [], "the file can be copied as it is"
    assert (summary.documents, summary.chunks, summary.vectors, summary.parked) == (2, 24, 24, 0)
    assert_whole(db)
    assert query(db, "SELECT DISTINCT domain, category, source_book FROM chunks ORDER BY 2") == [
        ("science", "books", "bees"),
        ("science", "ice", "glaciers"),
    ]
    assert column(db, "SELECT DISTINCT source_chapter FROM chunks ORDER BY 1") == [
        "Chapter 0",
        "Chapter 1",
        "Chapter 2",
    ]
    assert column(db, "SELECT rowid FROM chunks_search WHERE chunks_search MATCH 'glaciers AND 2'") != []
    assert query(db, "SELECT stage, ended FROM runs ORDER BY stage") == [("embed", "complete"), ("read", "complete")]


def test_a_second_run_changes_nothing_and_asks_for_nothing(tmp_path: Path) -> None:
    file, db = write_lines(tmp_path / "a.txt", "one", "two", "three"), tmp_path / "t.db"
    run(file, db)
    before, embedder = texts_dump(db), Embedder()
    summary = run(file, db, embedder)
    assert (summary.listed, summary.documents, summary.vectors) == (1, 0, 0)
    assert embedder.batches == []
    assert texts_dump(db) == before


def test_of_a_changed_file_only_new_texts_are_embedded(tmp_path: Path) -> None:
    file, db = write_lines(tmp_path / "a.txt", "one", "two", "three", "four"), tmp_path / "t.db"
    run(file, db)
    ids = column(db, "SELECT id FROM chunks ORDER BY position")
    write_lines(file, "zero", "one", "TWO", "three")
    embedder = Embedder()
    run(file, db, embedder)
    assert sorted(embedder.texts) == ["TWO", "zero"]
    assert column(db, "SELECT text FROM chunks ORDER BY position") == ["zero", "one", "TWO", "three"]
    assert column(db, "SELECT id FROM chunks ORDER BY position") == ids, "a place keeps its name"
    found = "SELECT text FROM chunks WHERE number IN (SELECT rowid FROM chunks_search WHERE chunks_search MATCH ?)"
    assert (column(db, found, "four"), column(db, found, "zero")) == ([], ["zero"])
    write_lines(file, "one")
    run(file, db)
    assert column(db, "SELECT text FROM chunks") == ["one"]
    assert column(db, "SELECT count(*) FROM chunks_search_docsize") == [1]
    assert_whole(db)


def test_a_text_that_stands_in_many_places_is_embedded_once(tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "a.txt", *["the same"] * 50, "another")
    write_lines(tmp_path / "in" / "b.txt", "the same", "a third")
    embedder = Embedder()
    run(tmp_path / "in", tmp_path / "t.db", embedder)
    assert sorted(embedder.texts) == ["a third", "another", "the same"]
    assert one(tmp_path / "t.db", "SELECT count(*) FROM chunks") == 53
    assert_whole(tmp_path / "t.db")


def test_what_is_below_a_folder_that_cannot_be_looked_into_is_not_taken_for_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, db = write_lines(tmp_path / "in" / "closed" / "a.txt", "one"), tmp_path / "t.db"
    run(tmp_path / "in", db)
    look = os.scandir

    def closed(path: Any) -> Any:
        if str(path) == str(a.parent):
            raise PermissionError(13, "Permission denied")
        return look(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert run(tmp_path / "in", db).vanished == 0
    assert column(db, "SELECT name FROM documents WHERE unlisted_at IS NOT NULL") == []


def test_a_document_that_is_gone_is_marked_and_comes_back(tmp_path: Path) -> None:
    a, b, db = (tmp_path / "in" / "a.txt", tmp_path / "in" / "b.txt", tmp_path / "t.db")
    write_lines(a, "one"), write_lines(b, "two")
    run(tmp_path / "in", db)
    b.unlink()
    assert run(tmp_path / "in", db).vanished == 1
    assert column(db, "SELECT name FROM documents WHERE unlisted_at IS NOT NULL") == [str(b)]
    write_lines(b, "two")
    os.utime(b, ns=(0, 0))
    run(tmp_path / "in", db)
    assert column(db, "SELECT name FROM documents WHERE unlisted_at IS NOT NULL") == []
    run(a, db)
    assert column(db, "SELECT name FROM documents WHERE unlisted_at IS NOT NULL") == [], "only what was asked for"


def test_an_unreadable_file_is_a_failure_and_costs_the_others_nothing(tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "a.txt", "one")
    (tmp_path / "in" / "b.txt").write_bytes(b"\xff\x00\xfe")
    db = tmp_path / "t.db"
    summary = run(tmp_path / "in", db)
    assert (summary.documents, summary.parked, summary.exit_code) == (1, 1, 3)
    (row,) = query(db, "SELECT stage, key, outcome FROM failures")
    assert row == ("read", str(tmp_path / "in" / "b.txt"), "malformed")
    write_lines(tmp_path / "in" / "b.txt", "two")
    assert run(tmp_path / "in", db).exit_code == 0
    assert query(db, "SELECT * FROM failures") == []
    assert_whole(db)


@pytest.mark.parametrize("size", [1, PIECE_ROWS - 1, PIECE_ROWS, PIECE_ROWS + 1])
def test_a_file_takes_no_more_calls_than_it_has_pieces(tmp_path: Path, size: int) -> None:
    for number in range(4):
        write_lines(tmp_path / "in" / f"{number}.txt", *(f"line {each} of {number}" for each in range(size)))
    summary = run(tmp_path / "in", tmp_path / "t.db")
    assert (summary.documents, summary.chunks) == (4, 4 * size)
    # A full piece may be the last one: one more call tells.
    calls = 1 if size < PIECE_ROWS else 2
    assert sum(summary.progress.stages["read"].traffic.outcomes.values()) == 4 * calls
    assert summary.stages["read"].counts.stored == 4
    assert_whole(tmp_path / "t.db")


def test_small_files_share_transactions_of_that_many(tmp_path: Path) -> None:
    for number in range(40):
        write_lines(tmp_path / "in" / f"{number}.txt", f"the text of {number}")
    written: list[int] = []
    put = StageStore.commit

    def noted(store: StageStore, batch: Batch, state: Any) -> Any:
        written.append(len(batch.details))
        return put(store, batch, state)

    with mock.patch.object(StageStore, "commit", noted):
        # One after the other: of two that come at once the second is in the batch that the first has filled.
        one_by_one = {"reader_processes": 1, "embed_batch_size": 40}
        run(tmp_path / "in", tmp_path / "t.db", Embedder(), db_batch_size=20, db_batch_seconds=60, **one_by_one)
    assert written[:2] == [20, 20]


def test_what_came_of_a_file_before_it_broke_is_kept_and_named(tmp_path: Path) -> None:
    def parser(path: Path) -> Any:
        yield from (Chunk(f"line {number}") for number in range(250))
        raise ValueError("the rest is torn out")

    parser.__module__ = "__main__"
    file, db = write_lines(tmp_path / "a.txt", "x"), tmp_path / "t.db"
    summary = run(file, db, parser=parser)
    assert (summary.chunks, summary.vectors, summary.parked) == (250, 250, 1)
    assert "torn out" in one(db, "SELECT message FROM failures")
    assert run(file, db, parser=parser).chunks == 0, "it is not read again until it changes"
    assert_totals(db)


def own_ids(path: Path) -> list[Chunk]:
    """Each line is a chunk that is named after its text."""
    return [Chunk(line, id=line) for line in path.read_text().splitlines()]


own_ids.__module__ = "__main__"


def test_ids_of_a_users_own_may_move_within_a_document_and_to_another_name(tmp_path: Path) -> None:
    a, b, db = tmp_path / "in" / "a.txt", tmp_path / "in" / "b.txt", tmp_path / "t.db"
    names = [f"{number:03}" for number in range(600)]
    write_lines(a, *names)
    run(a.parent, db, parser=own_ids)
    for changed in (names[1:], [names[-1], *names[1:-1], names[0]], names[::-1]):
        write_lines(a, *changed)
        assert run(a.parent, db, parser=own_ids).parked == 0
        assert column(db, "SELECT id FROM chunks ORDER BY position") == changed
        assert_whole(db)
    a.rename(b)
    assert run(a.parent, db, parser=own_ids).parked == 0
    assert query(db, "SELECT name, count(*) FROM chunks JOIN documents ON documents.number = document GROUP BY 1") == [
        (str(b), 600)
    ]
    assert_whole(db)
    write_lines(a, "new", names[5])
    os.utime(a, ns=(0, 0))
    summary = run(a.parent, db, parser=own_ids)
    assert (summary.parked, column(db, "SELECT key FROM failures")) == (1, [str(a)]), "two documents have one id"
    assert column(db, "SELECT count(*) FROM chunks") == [600]


def test_a_document_of_which_one_piece_is_refused_is_a_failure_and_not_read_without_it(tmp_path: Path) -> None:
    def parser(path: Path) -> Any:
        yield from (Chunk(f"{path.name} {number}") for number in range(200))
        yield Chunk("a twin", id="twin")
        yield from (Chunk(f"{path.name} {number}") for number in range(201, 900))

    parser.__module__ = "__main__"
    a, b, db = tmp_path / "in" / "a.txt", tmp_path / "in" / "b.txt", tmp_path / "t.db"
    write_lines(a, "x"), write_lines(b, "x")
    summary = run(a.parent, db, parser=parser)
    assert (summary.documents, summary.parked) == (1, 1)
    (bad,) = column(db, "SELECT key FROM failures WHERE message LIKE '%refuses%'")
    assert column(db, "SELECT name FROM documents WHERE version IS NULL") == [bad]
    assert_totals(db)
    assert run(a.parent, db).parked == 0, "read otherwise, it is good"
    assert_whole(db)


def test_what_was_read_in_part_is_read_again_even_if_the_file_is_what_it_was(tmp_path: Path) -> None:
    file, db = write_lines(tmp_path / "in" / "a.txt", "x", "y"), tmp_path / "t.db"
    os.utime(file, ns=(0, 0))
    run(file.parent, db)
    write_lines(file, "other")
    with mock.patch.object(Reader, "pieces", lambda _self, path, _: gone_after_a_piece(Path(path))):
        summary = run(file.parent, db)
    assert (summary.documents, summary.parked) == (0, 0), "a document that is gone is no failure"
    write_lines(file, "x", "y")
    os.utime(file, ns=(0, 0))
    run(file.parent, db)
    assert column(db, "SELECT text FROM chunks ORDER BY position") == ["x", "y"]
    assert_whole(db)


def gone_after_a_piece(path: Path) -> Any:
    yield [(chunk_id(str(path), at), at, f"t{at}", text_hash(f"t{at}"), "d", "c", None, None) for at in range(5)]
    path.unlink()
    raise RequestFailed(Outcome.GONE, "there is no such file any more", lasting=True)


def test_what_failed_of_a_document_or_a_text_is_forgotten_once_it_is_no_more(tmp_path: Path) -> None:
    def refuse(texts: Sequence[str]) -> None:
        if "bad" in texts:
            raise ValueError("not this one")

    a, b, db = tmp_path / "in" / "a.txt", tmp_path / "in" / "b.txt", tmp_path / "t.db"
    write_lines(a, "bad", "one")
    b.write_bytes(b"\xff\x00\xfe")
    assert run(a.parent, db, Embedder(refuse), max_retries=0).parked == 2
    os.utime(a, ns=(0, 0)), os.utime(b, ns=(0, 0))
    b.rename(tmp_path / "b")
    assert run(a.parent, db, Embedder(refuse), max_retries=0).parked == 1
    assert column(db, "SELECT text FROM failures JOIN chunks ON hash = key") == ["bad"]
    write_lines(a, "good", "one")
    assert run(a.parent, db, Embedder(refuse), max_retries=0).parked == 0
    assert query(db, "SELECT * FROM failures") == []
    assert_totals(db)
    (tmp_path / "b").rename(b)
    assert run(a.parent, db, Embedder(refuse), max_retries=0).parked == 1, "it is as bad as it was"
    assert_totals(db)


def test_a_bad_text_of_a_document_that_comes_and_goes_is_a_failure_while_it_is_there(tmp_path: Path) -> None:
    def refuse(texts: Sequence[str]) -> None:
        if "bad" in texts:
            raise ValueError("not this one")

    a, b, db = tmp_path / "in" / "a.txt", tmp_path / "in" / "b.txt", tmp_path / "t.db"
    write_lines(a, "bad"), write_lines(b, "good")
    parked = []
    for away in (False, True, False):
        if (tmp_path / "a").exists() and not away:
            (tmp_path / "a").rename(a)
        elif away:
            a.rename(tmp_path / "a")
        parked.append(run(a.parent, db, Embedder(refuse), max_retries=0).parked)
        assert_totals(db)
    assert parked == [1, 0, 1]


# --- bad texts, bad embedders -------------------------------------------------------------------------


def test_one_bad_text_fails_alone(tmp_path: Path) -> None:
    def refuse(texts: Sequence[str]) -> None:
        if "bad" in texts:
            raise ValueError("not this one")

    file, db = write_lines(tmp_path / "a.txt", *map(str, range(20)), "bad"), tmp_path / "t.db"
    summary = run(file, db, Embedder(refuse), max_retries=0, embed_batch_size=8)
    assert (summary.vectors, summary.parked, summary.exit_code) == (20, 1, 3)
    assert column(db, "SELECT text FROM failures JOIN chunks ON hash = key") == ["bad"]
    assert_totals(db)


def test_vectors_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    def other(texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, 0.0, 0.0]] * len(texts)

    file, db = write_lines(tmp_path / "a.txt", "one"), tmp_path / "t.db"
    run(file, db)
    before = texts_dump(db)
    write_lines(file, "one", "two")
    with pytest.raises(ConfigurationError, match=r"are of .*Embedder.* \(8 dimensions\), not of .*other"):
        run(file, db, other)
    assert texts_dump(db)["vectors"] == before["vectors"]
    run(file, db)
    assert_whole(db)


def test_another_model_is_refused_at_once_whether_there_is_anything_to_embed_or_not(tmp_path: Path) -> None:
    file, db = write_lines(tmp_path / "a.txt", "one"), tmp_path / "t.db"
    run(file, db)
    write_lines(tmp_path / "b.txt", "two")
    for path in (file, tmp_path / "b.txt"):
        with pytest.raises(ConfigurationError, match=r"are of .*Embedder.* \(8 dimensions\), not of text-embedding-3"):
            run(path, db, embedder="openai")
    with pytest.raises(ConfigurationError, match=r"not of wordllama-256: set"):
        embed(db, embedder="wordllama")
    assert column(db, "SELECT name FROM documents") == [str(file)], "nothing was begun"
    run(tmp_path, db)
    assert_whole(db)


def test_the_model_is_written_down_with_the_first_vectors_whatever_went_wrong_before(tmp_path: Path) -> None:
    write, failed = VectorWriter.write, []

    def refuse_once(self: VectorWriter, *given: Any) -> Any:
        done = write(self, *given)
        if not failed:
            failed.append(True)
            raise sqlite3.IntegrityError("a row is refused")
        return done

    file, db = write_lines(tmp_path / "a.txt", "one", "two"), tmp_path / "t.db"
    with mock.patch.object(VectorWriter, "write", refuse_once):
        run(file, db)
    assert query(db, "SELECT name, dimension FROM models") == [("tests.texts:Embedder", 8)]
    assert_whole(db)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"embed_batch_size": 0}, "EMBED_BATCH_SIZE"),
        ({"max_embed_concurrency": 99}, "MAX_EMBED_CONCURRENCY"),
        ({"embed_model": ""}, "EMBED_MODEL"),
        ({"chunk_overlap": 900}, "CHUNK_OVERLAP"),
        ({"embedder": "nothing"}, "module:function"),
        ({"parser": "no_such_module:parse"}, "no_such_module"),
        ({"chunk_sise": 100}, "chunk_sise"),
        ({"config": {"CHUNK_SIZE": "many"}}, "CHUNK_SIZE"),
    ],
)
def test_what_was_asked_for_wrongly_is_said_in_a_line_and_makes_no_database(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    file = write_lines(tmp_path / "a.txt", "one")
    with pytest.raises(ConfigurationError, match=words) as raised:
        ingest(file, tmp_path / "t.db", **settings)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "t.db").exists() or "embedder" in settings


def test_a_configuration_comes_from_a_json_file_too_and_arguments_win(tmp_path: Path) -> None:
    file, config = write_lines(tmp_path / "a.txt", "one two three"), tmp_path / "config.json"
    config.write_text(json.dumps({"CHUNK_SIZE": 50, "CHUNK_OVERLAP": 0, "DOMAIN": "theirs", "CATEGORY": "c"}))
    ingest(file, tmp_path / "t.db", config=config, embedder=Embedder(), domain="mine")
    assert query(tmp_path / "t.db", "SELECT domain, category FROM chunks") == [("mine", "c")]
    config.write_text("[]")
    with pytest.raises(ConfigurationError, match="JSON object"):
        ingest(file, tmp_path / "t.db", config=config)


# --- an API -------------------------------------------------------------------------------------------


def by_api(simulator: Simulator, **settings: Any) -> dict[str, Any]:
    return {"embedder": "openai", "embed_base_url": f"{simulator.url}", "max_backoff_seconds": 0.05, **settings}


WORDS = [f"text {number}" for number in range(40)]


def test_an_api_embeds_and_its_answers_are_what_is_stored(tmp_path: Path) -> None:
    with Simulator(EmbeddingsWorld(dimension=16)) as simulator:
        file, db = write_lines(tmp_path / "a.txt", *WORDS), tmp_path / "t.db"
        summary = run(file, db, **by_api(simulator))
        assert summary.vectors == 40
        assert query(db, "SELECT dimension FROM models") == [(16,)]
        assert simulator.requests["embeddings"] == 11, "one to see that it works, 10 of 4 texts each"
        for text, vector in query(db, "SELECT text, vector FROM chunks JOIN vectors USING (hash)"):
            assert [vector] == simulator.world.vectors([text])


def test_a_limited_api_is_asked_at_its_pace_and_nothing_fails(tmp_path: Path) -> None:
    with Simulator(EmbeddingsWorld(), profile=Profile(limits=(Limit(rate=20, burst=5),))) as simulator:
        file, db = write_lines(tmp_path / "a.txt", *WORDS), tmp_path / "t.db"
        summary = run(file, db, **by_api(simulator))
        assert (summary.vectors, summary.parked) == (40, 0)
        assert summary.stages["embed"].counts.limited == simulator.wrong["limit"]
        assert one(db, "SELECT learned FROM sources") is not None


def test_texts_that_are_all_refused_fail_at_once_by_an_api_that_works(tmp_path: Path) -> None:
    with Simulator(EmbeddingsWorld(dimension=16)) as simulator:
        file = write_lines(tmp_path / "a.txt", "unembeddable one", "unembeddable two")
        summary = run(file, tmp_path / "t.db", **by_api(simulator))
    assert (summary.parked, summary.vectors) == (2, 0)
    assert column(tmp_path / "t.db", "SELECT max(attempts) FROM failures") == [1], "it is no use to ask again"


def test_an_address_that_is_not_there_is_no_matter_of_a_login(tmp_path: Path) -> None:
    with Simulator(EmbeddingsWorld(dimension=16)) as simulator:
        wrong = by_api(simulator) | {"embed_base_url": f"{simulator.url}/nowhere"}
        with pytest.raises(ConfigurationError, match="EMBED_BASE_URL"):
            run(write_lines(tmp_path / "a.txt", "one"), tmp_path / "t.db", **wrong)


def test_a_bad_text_of_an_api_is_one_failure_with_its_evidence(tmp_path: Path) -> None:
    with Simulator(EmbeddingsWorld(bad_word="unembeddable")) as simulator:
        file, db = write_lines(tmp_path / "a.txt", *WORDS, "an unembeddable one"), tmp_path / "t.db"
        summary = run(file, db, **by_api(simulator))
        assert (summary.vectors, summary.parked) == (40, 1)
        ((text, status, body),) = query(db, "SELECT text, status, body FROM failures JOIN chunks ON hash = key")
        assert (text, status) == ("an unembeddable one", 400)
        assert b"error" in body


def test_an_api_that_takes_fewer_at_once_is_asked_for_fewer(tmp_path: Path) -> None:
    with Simulator(EmbeddingsWorld(max_batch=8)) as simulator:
        file, db = write_lines(tmp_path / "a.txt", *WORDS), tmp_path / "t.db"
        assert run(file, db, embed_batch_size=32, **by_api(simulator)).vectors == 40


def test_a_wrong_key_ends_the_run_before_anything_is_lost(tmp_path: Path) -> None:
    with Simulator(EmbeddingsWorld(key="right")) as simulator:
        file, db = write_lines(tmp_path / "a.txt", *WORDS), tmp_path / "t.db"
        with pytest.raises(LoginError, match="EMBED_API_KEY"):
            run(file, db, embed_api_key="sesame-mistaken", **by_api(simulator))
        assert query(db, "SELECT * FROM failures") == []
        assert b"sesame-mistaken" not in db.read_bytes()
        assert run(file, db, embed_api_key="right", **by_api(simulator)).vectors == 40


def test_a_key_that_is_taken_away_in_the_middle_ends_the_run_and_costs_no_text(tmp_path: Path) -> None:
    asked = iter(range(1000))

    def faults(*_: Any) -> Answer | None:
        return (
            Answer(401, {"Content-Type": "application/json"}, b'{"error": {"message": "no"}}')
            if next(asked) > 5
            else None
        )

    with Simulator(EmbeddingsWorld(), faults=faults) as simulator:
        file, db = write_lines(tmp_path / "a.txt", *WORDS), tmp_path / "t.db"
        with pytest.raises(LoginError):
            run(file, db, max_embed_concurrency_min=1, max_embed_concurrency=1, **by_api(simulator))
    assert query(db, "SELECT * FROM failures") == []
    with Simulator(EmbeddingsWorld()) as simulator:
        run(file, db, **by_api(simulator))
    assert one(db, "SELECT count(*) FROM vectors") == 40


def test_an_api_that_comes_and_goes_costs_no_text(tmp_path: Path) -> None:
    with Simulator(EmbeddingsWorld(), profile=Profile(seed=1, mishaps=(Share("502", 0.3),))) as simulator:
        file, db = write_lines(tmp_path / "a.txt", *WORDS), tmp_path / "t.db"
        summary = run(file, db, **by_api(simulator))
        assert (summary.vectors, summary.parked) == (40, 0)
    assert_totals(db)


# --- an end before the end ----------------------------------------------------------------------------


def test_nothing_of_a_batch_that_dies_is_stored_and_the_next_run_completes_it(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.txt", *(f"text {number}" for number in range(30)))
    whole = tmp_path / "whole.db"
    with death() as fate:
        run(file, whole)
    chance = random.Random(7)
    for at in sorted(chance.sample(range(30, fate.statements), 25)):
        db = tmp_path / f"{at}.db"
        with death(at, after=chance.random() < 0.5), pytest.raises((Died, Interrupted, StoreError)):
            run(file, db)
        gc.collect()  # A dead process holds no statement; here one may be kept by the error.
        if db.exists() and query(db, "SELECT 1 FROM sqlite_master WHERE name = 'stages'"):
            assert_totals(db)
        run(file, db)
        assert texts_dump(db) == texts_dump(whole), at
        assert_whole(db)


COMMAND = [sys.executable, "-m", "fetcher"]


@pytest.mark.timeout(240)
def test_a_run_killed_again_and_again_ends_in_what_an_undisturbed_one_makes(tmp_path: Path) -> None:
    books = tmp_path / "books"
    for number in range(4):
        write_book(books, f"book{number}", chapters=10, paragraphs=20)
    options = ["--chunk-size", "200", "--chunk-overlap", "0", "--embedder", "tests.texts:embed_here", "--readers", "2"]
    killed, whole = tmp_path / "killed.db", tmp_path / "whole.db"
    environment = {**_environment(), "EMBED_BATCH_SIZE": "3", "DB_BATCH_SIZE": "20"}

    def command(db: Path) -> list[str]:
        return [*COMMAND, "ingest", str(books), str(db), *options]

    chance = random.Random(3)
    for _ in range(4):
        before = one(killed, "SELECT count(*) FROM vectors") if killed.exists() else 0
        process = subprocess.Popen(command(killed), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with process:
            wanted = before + chance.randint(0, 150)
            eventually(
                lambda wanted=wanted, process=process: progressed(killed, wanted) or process.poll() is not None, 40
            )
            process.send_signal(signal.SIGKILL)
        assert one(killed, "PRAGMA integrity_check") == "ok"
    for db in (killed, whole):
        done = subprocess.run(command(db), env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    assert texts_dump(killed) == texts_dump(whole)
    assert_whole(killed)


def progressed(db: Path, rows: int, table: str = "vectors") -> bool:
    try:
        return bool(one(db, f"SELECT count(*) FROM {table}") > rows)
    except Exception:  # noqa: BLE001 - it is still being made
        return False


def test_a_stop_ends_all_stages_and_the_next_run_goes_on(tmp_path: Path) -> None:
    stop = Stop()
    asked = threading.Event()

    def stop_after_some(texts: Sequence[str]) -> None:
        if "text 40" in texts or asked.is_set():
            asked.set()
            stop.set()

    file, db = write_lines(tmp_path / "a.txt", *(f"text {number}" for number in range(500))), tmp_path / "t.db"
    with pytest.raises(Interrupted) as raised:
        run(file, db, Embedder(stop_after_some), stop=stop, max_embed_concurrency=2)
    assert isinstance(raised.value.summary, TextSummary)
    stored = one(db, "SELECT count(*) FROM vectors")
    assert raised.value.summary.vectors == stored < 500
    assert_totals(db)
    embedder = Embedder()
    run(file, db, embedder)
    assert len(embedder.texts) == 500 - stored
    assert_whole(db)


def test_a_stop_is_heeded_while_folders_without_any_text_are_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(tmp_path / "in" / "0" / "a.txt", "one"), run(tmp_path / "in", tmp_path / "t.db")
    (tmp_path / "in" / "0" / "a.txt").unlink()
    for number in range(1, 50):
        (tmp_path / "in" / str(number)).mkdir()
    stop, look, looked = Stop(), os.scandir, []

    def counted(path: Any) -> Any:
        looked.append(path)
        if len(looked) == 10:
            stop.set()
        return look(path)

    monkeypatch.setattr(os, "scandir", counted)
    with pytest.raises(Interrupted):
        run(tmp_path / "in", tmp_path / "t.db", stop=stop)
    assert len(looked) == 10
    assert column(tmp_path / "t.db", "SELECT unlisted_at FROM documents") == [None], "not all was looked at"


def test_an_error_of_one_stage_ends_the_others_and_is_what_is_raised(tmp_path: Path) -> None:
    file, db = write_lines(tmp_path / "a.txt", *map(str, range(2000))), tmp_path / "t.db"

    def full(*_: Any) -> None:
        raise StoreError("the disk is full")

    with mock.patch.object(VectorWriter, "write", full), pytest.raises(StoreError, match="the disk is full"):
        run(file, db)
    run(file, db)
    assert_whole(db)


def test_an_error_of_whoever_is_told_of_progress_ends_the_run_in_good_order(tmp_path: Path) -> None:
    file, db = write_lines(tmp_path / "a.txt", *map(str, range(200))), tmp_path / "t.db"

    told = threading.Event()

    def tell(_: object) -> None:
        told.set()
        raise ValueError("a mistake of the caller's")

    with pytest.raises(ValueError, match="of the caller's"):
        run(file, db, Embedder(lambda _: told.wait(20)), on_progress=tell)
    assert column(db, "SELECT DISTINCT ended FROM runs WHERE stage = 'embed'") == ["interrupted"]
    run(file, db)
    assert_whole(db)


def test_a_disk_that_fails_whatever_is_asked_of_it_is_said_in_a_line_and_costs_nothing(tmp_path: Path) -> None:
    file, db = write_lines(tmp_path / "a.txt", *map(str, range(30))), tmp_path / "t.db"
    run(file, db, aggregate=tmp_path / "out")
    write_lines(file, *map(str, range(20, 60)))
    with death() as fate:
        run(file, tmp_path / "other.db", aggregate=tmp_path / "out")
    for at in range(20, fate.statements, 9):
        with death(at, error=lambda: sqlite3.OperationalError("disk I/O error")), suppress(StoreError):
            run(file, db, aggregate=tmp_path / "out")
        assert_totals(db)
    run(file, db)
    assert_whole(db)


def test_a_database_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    file, db = write_lines(tmp_path / "a.txt", "one"), tmp_path / "t.db"

    def another(_: Sequence[str]) -> None:
        with pytest.raises(StoreError, match="in use by another run"):
            embed(db, embedder=Embedder())

    run(file, db, Embedder(another))
    assert_whole(db)


# --- where documents are ------------------------------------------------------------------------------


def test_folders_are_known_however_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, db = tmp_path / "in" / "a" / "a.txt", tmp_path / "in" / "b.txt", tmp_path / "t.db"
    write_lines(a, "one"), write_lines(b, "two")
    monkeypatch.chdir(tmp_path)
    run([a.parent, b.parent, b], db)  # type: ignore[arg-type]
    a.unlink()
    summary = run("in//./a/", db)  # type: ignore[arg-type]
    assert (summary.listed, summary.vanished) == (0, 1)
    assert query(db, "SELECT name, unlisted_at IS NULL FROM documents ORDER BY 1") == [(str(a), 0), (str(b), 1)]


def test_a_folder_whose_name_is_no_utf8_is_a_folder(tmp_path: Path) -> None:
    folder, db = tmp_path / os.fsdecode(b"caf\xe9"), tmp_path / "t.db"
    write_lines(folder / "a.txt", "one"), write_lines(folder / "b.txt", "two")
    assert run(folder, db).vectors == 2
    (folder / "b.txt").unlink()
    assert run(folder, db).vanished == 1
    assert_whole(db)


def test_what_another_ingest_has_left_is_not_read_in_the_way_of_this_one(tmp_path: Path) -> None:
    first, second, db = tmp_path / "first", tmp_path / "second", tmp_path / "t.db"
    for number in range(5):
        (
            write_lines(first / f"{number}.txt", f"first {number}"),
            write_lines(second / f"{number}.txt", f"second {number}"),
        )
    with mock.patch.object(DocumentWriter, "write", side_effect=StoreError("killed")), pytest.raises(StoreError):
        run(first, db, domain="of the first")
    (first / "4.txt").unlink()
    summary = run(second, db, domain="of the second")
    assert (summary.documents, summary.unread, summary.exit_code) == (5, 5, 3)
    assert column(db, "SELECT DISTINCT domain FROM chunks") == ["of the second"]
    summary = run(first, db, domain="of the first")
    assert (summary.documents, summary.unread, summary.exit_code) == (4, 0, 0)
    assert query(db, "SELECT domain, count(*) FROM chunks GROUP BY 1") == [("of the first", 4), ("of the second", 5)]
    assert_totals(db)


# --- windows ------------------------------------------------------------------------------------------


def test_reading_waits_for_embedding_so_that_little_is_ahead_of_it(tmp_path: Path) -> None:
    go_on = threading.Event()
    ahead: list[int] = []
    db = tmp_path / "t.db"

    def wait(texts: Sequence[str]) -> None:
        if texts[0] != "fetcher":
            go_on.wait(20)

    def look() -> None:
        eventually(lambda: progressed(db, 0, "chunks"))
        unchanged = 0
        while unchanged < 5:
            ahead.append(one(db, "SELECT count(*) FROM chunks"))
            unchanged = unchanged + 1 if len(ahead) > 1 and ahead[-1] == ahead[-2] else 0
            go_on.wait(0.2)
        go_on.set()

    file = write_lines(tmp_path / "a.txt", *(f"text {number}" for number in range(20_000)))
    looking = threading.Thread(target=look)
    looking.start()
    # 4 times the 2 x 4 texts that can be in flight, and a piece of 200 that was under way.
    run(file, db, Embedder(wait), max_embed_concurrency=2, max_embed_concurrency_max=2)
    looking.join()
    assert max(ahead) <= 2000, "it reads on whatever embedding does"
    assert_whole(db)


def test_more_documents_than_processes_each_of_several_pieces_do_not_wait_for_each_other(tmp_path: Path) -> None:
    for number in range(6):
        write_book(tmp_path / "books", f"book {number}", chapters=5, paragraphs=90)
    summary = run(tmp_path / "books", tmp_path / "t.db", parser=None, **{**SMALL, "reader_processes": 2})
    assert summary.documents == 6
    assert summary.chunks >= 6 * 450
    assert_whole(tmp_path / "t.db")


def test_a_stage_that_has_nothing_to_do_yet_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns, ticks, go_on = 0, 0, threading.Event()
    collect = Engine._collect

    def counted(self: Engine) -> None:
        nonlocal turns
        turns += 1
        collect(self)

    def tick(_: object) -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 3:
            go_on.set()

    def slow(path: Path) -> list[Chunk]:
        go_on.wait(20)
        return lines(path)

    slow.__module__ = "__main__"
    monkeypatch.setattr(Engine, "_collect", counted)
    run(write_lines(tmp_path / "a.txt", "one"), tmp_path / "t.db", parser=slow, on_progress=tick)
    assert turns < 100, "a stage looks for work all the time"


def test_batches_are_full_while_there_is_enough(tmp_path: Path) -> None:
    file, embedder = write_lines(tmp_path / "a.txt", *(f"text {number}" for number in range(1000))), Embedder()
    run(file, tmp_path / "t.db", embedder, embed_batch_size=64)
    sizes = sorted(len(batch) for batch in embedder.batches if batch != ["fetcher"])
    assert sum(sizes) == 1000
    assert max(sizes) == 64
    assert len(sizes) <= 20, f"16 would do: {sizes}"


# --- a mirror's items ---------------------------------------------------------------------------------


def test_the_tags_and_comments_of_a_mirror_are_texts_too(tmp_path: Path, simulate: Simulate) -> None:
    world = World(seed=5, items=40)
    simulator, db = simulate(world), tmp_path / "m.db"
    mirror(db, simulator)
    before = {
        table: query(db, f"SELECT * FROM {table} ORDER BY 1, 2") for table in ("items", "tags", "comments", "coverage")
    }
    summary = embed(db, items=True, embedder=Embedder())
    with_texts = one(
        db, "SELECT count(*) FROM items WHERE id IN (SELECT item_id FROM tags UNION SELECT item_id FROM comments)"
    )
    assert summary.documents == 40
    assert one(db, "SELECT count(DISTINCT document) FROM chunks") == with_texts
    assert_whole(db)
    for id, tag in query(db, "SELECT item_id, tag FROM tags LIMIT 20"):
        assert tag in one(
            db,
            "SELECT group_concat(text, ' ') FROM chunks JOIN documents ON documents.number = document WHERE item = ?",
            id,
        )
    assert {table: query(db, f"SELECT * FROM {table} ORDER BY 1, 2") for table in before} == before
    assert embed(db, items=True, embedder=Embedder()).documents == 0
    assert mirror(db, simulator).ended == "complete"
    assert one(db, "SELECT work + parked FROM sources") == 0


def test_an_item_that_was_fetched_again_is_read_again(tmp_path: Path, simulate: Simulate) -> None:
    simulator, db = simulate(World(seed=5, items=20)), tmp_path / "m.db"
    mirror(db, simulator)
    embed(db, items=True, embedder=Embedder())
    import sqlite3

    with sqlite3.connect(db) as conn:
        conn.execute("UPDATE items SET fetched_at = fetched_at + 100 WHERE id IN (SELECT id FROM items LIMIT 3)")
        conn.execute("UPDATE items SET gone_at = 5 WHERE id = (SELECT max(id) FROM items)")
    conn.close()
    embedder = Embedder()
    summary = embed(db, items=True, embedder=embedder)
    assert (summary.documents, summary.vanished, embedder.texts) == (3, 1, [])
    assert_whole(db)


# --- written out --------------------------------------------------------------------------------------


def test_a_file_for_each_category_is_kept_up_to_date(tmp_path: Path) -> None:
    out, db = tmp_path / "out", tmp_path / "t.db"
    a, b = (
        write_lines(tmp_path / "in" / "a" / "a.txt", "one", "two"),
        write_lines(tmp_path / "in" / "b" / "b.txt", "three"),
    )
    assert run(tmp_path / "in", db, aggregate=out, domain="d").files == 2
    first, second = out / "d" / "a.json", out / "d" / "b.json"
    assert [each["text"] for each in json.loads(first.read_text())["chunks"]] == ["one", "two"]
    untouched = first.stat().st_mtime_ns, first.stat().st_ino
    write_lines(b, "three", "four")
    assert run(tmp_path / "in", db, aggregate=out, domain="d").files == 1
    assert [each["text"] for each in json.loads(second.read_text())["chunks"]] == ["three", "four"]
    assert (first.stat().st_mtime_ns, first.stat().st_ino) == untouched
    a.unlink()
    run(tmp_path / "in", db, aggregate=out, domain="d")
    assert json.loads(first.read_text())["chunks"] == []
    assert_totals(db)


def test_files_that_a_run_was_killed_before_writing_are_written_by_the_next(tmp_path: Path) -> None:
    file, out, db = write_lines(tmp_path / "in" / "a.txt", "one"), tmp_path / "out", tmp_path / "t.db"
    with mock.patch.object(Aggregating, "run", side_effect=StoreError("killed")), pytest.raises(StoreError):
        run(file, db, aggregate=out, domain="d")
    run(file, db, domain="d")
    assert one(db, "SELECT work FROM stages WHERE stage = 'aggregate'") == 1
    assert run(file, db, aggregate=out, domain="d").files == 1
    assert (out / "d" / "in.json").exists()
    assert_totals(db)
