"""Chunks are found by their words, by what they mean, and by both; items by their chunks."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher import ConfigurationError, Hit, RemoteError, Search, StoreError, search
from fetcher.cli.search import search as command
from fetcher.errors import FetcherError, RequestFailed
from fetcher.model import Batch, Column, Counts, Detail, Interval, Outcome, Page, Plan, Progress, RunState, Table
from fetcher.search import finder
from fetcher.search.fusion import Found, distinct, fused
from fetcher.search.hits import WORDS, sentence
from fetcher.stores.sqlite import SqliteStore
from fetcher.texts.chunk import chunk_id
from tests.corpus import WordHashes, add, store_vector, writing
from tests.helpers import run_fetcher

DB = Path("texts.db")
IDLE = RunState(Progress(Counts(), 0.0, 0, 0, 0.0, None))
WHALES = "Whales sleep upright.\nThey breathe\n\nair."
STARS = "Stars burn hydrogen."
BREAD = "Bread needs yeast, and time to sleep in a bowl."


@pytest.fixture
def embedder() -> WordHashes:
    return WordHashes()


@pytest.fixture
def books(embedder: WordHashes) -> Path:
    """Two documents of three chunks, with their vectors."""
    add(DB, "shelf/sea.txt", WHALES, STARS, chapter="On whales", embedder=embedder)
    add(DB, "shelf/kitchen.txt", BREAD, embedder=embedder)
    return DB


def texts(hits: list[Hit]) -> list[str | None]:
    return [hit.chunk.text if hit.chunk is not None else None for hit in hits]


# --- by words ---------------------------------------------------------------------------------------


def test_chunks_are_found_by_the_words_of_their_text_and_chapter(books: Path) -> None:
    assert texts(search(books, "hydrogen", mode="text")) == [STARS]
    assert set(texts(search(books, "SLEEP", mode="text"))) == {WHALES, BREAD}
    assert set(texts(search(books, "whales", mode="text"))) == {WHALES, STARS}
    assert texts(search(books, "source_chapter : whales NOT hydrogen", mode="text")) == [WHALES]
    assert search(books, "sleep hydrogen", mode="text") == []


def test_a_hit_names_the_chunk_and_where_it_stands(books: Path) -> None:
    (hit,) = search(books, "hydrogen", mode="text")
    chunk = hit.chunk
    assert chunk is not None
    assert (hit.key, hit.document) == (chunk_id("shelf/sea.txt", 1), "shelf/sea.txt")
    assert (chunk.id, chunk.text, chunk.position) == (hit.key, STARS, 1)
    assert (chunk.source_book, chunk.source_chapter) == ("sea", "On whales")
    assert (chunk.domain, chunk.category) == ("nature", "animals")
    assert hit.snippets == {"text": ("Stars burn [hydrogen].",)}
    (hit,) = search(books, "upright whales", mode="text", marks=("<", ">"))
    assert hit.snippets == {
        "source_chapter": ("On <whales>",),
        "text": ("<Whales> sleep <upright>. They breathe air.",),
    }


def test_chunks_of_what_is_no_longer_listed_are_left_out(books: Path, embedder: WordHashes) -> None:
    with writing(books) as conn:
        conn.execute("UPDATE documents SET unlisted_at = 1 WHERE name = 'shelf/sea.txt'")
    for mode in ("text", "vector", "hybrid"):
        assert texts(search(books, "sleep", mode=mode, embedder=embedder)) == [BREAD]


# --- by meaning -------------------------------------------------------------------------------------


def test_the_nearest_chunks_come_first(books: Path, embedder: WordHashes) -> None:
    hits = search(books, "a whaler's breath", mode="vector", embedder=embedder)
    assert texts(hits)[0] == WHALES
    assert [hit.rank for hit in hits] == sorted(hit.rank for hit in hits)
    assert len(hits) == 3
    assert texts(search(books, STARS, 1, mode="vector", embedder=embedder)) == [STARS]
    assert search(books, STARS, 1, mode="vector", embedder=embedder)[0].rank == pytest.approx(0, abs=1e-6)


def test_a_text_that_stands_in_many_places_is_found_in_all(books: Path, embedder: WordHashes) -> None:
    add(DB, "copy.txt", "Something else", STARS, embedder=embedder)
    hits = search(books, STARS, 2, mode="vector", embedder=embedder)
    assert [(hit.document, hit.chunk and hit.chunk.position) for hit in hits] == [("shelf/sea.txt", 1), ("copy.txt", 1)]
    assert len({hit.key for hit in hits}) == 2


def test_vectors_without_a_chunk_do_not_take_the_places_of_others(books: Path, embedder: WordHashes) -> None:
    with writing(books) as conn:
        for at in range(300):
            store_vector(conn, f"hydrogen {'stars ' * at}", embedder)
    assert texts(search(books, "hydrogen stars", 1, mode="vector", embedder=embedder)) == [STARS]


def test_a_snippet_is_the_sentence_with_the_most_of_the_words() -> None:
    text = "It rains.\nWhales\nsleep at night, whales do. The night is dark! Whales night sleep"
    assert sentence(text, "when do WHALES sleep", ("[", "]")) == "[Whales] [sleep] at night, [whales] [do]."
    assert sentence(text, "nosuchword", ("[", "]")) == " ".join(text.split())
    assert sentence("", "word", ("[", "]")) == ""
    long = [f"w{at}" for at in range(300)]
    assert sentence(" ".join(long), "nosuchword", ("[", "]")) == " ".join(long[:WORDS]) + "…"
    shown = sentence(" ".join(long), "w200 w201", ("[", "]"))
    assert "w199 [w200] [w201] w202" in shown
    assert (shown[0], shown[-1], len(shown.split()) <= WORDS + 1) == ("…", "…", True)


@given(st.text(), st.text(min_size=1))
def test_any_text_has_a_snippet_of_its_own_words(text: str, words: str) -> None:
    shown = sentence(text, words, ("", ""))
    assert set(shown.replace("…", "").split()) <= set(text.replace("…", "").split())


# --- by both ----------------------------------------------------------------------------------------


def test_hybrid_puts_first_what_both_find(books: Path, embedder: WordHashes) -> None:
    add(DB, "more.txt", "sleepy bread breathes", embedder=embedder)
    hits = search(books, "bread sleep", mode="hybrid", embedder=embedder)
    assert texts(hits)[0] == BREAD
    assert set(texts(hits)) == {WHALES, STARS, BREAD, "sleepy bread breathes"}
    assert hits[0].rank == pytest.approx(
        -(1 / 61 + 1 / (60 + 1 + texts(search(books, "bread sleep", mode="vector", embedder=embedder)).index(BREAD)))
    )


def test_what_words_alone_find_is_found_by_hybrid_too(books: Path, embedder: WordHashes) -> None:
    add(DB, "late.txt", "A word not embedded yet")
    assert "A word not embedded yet" in texts(search(books, "embedded", mode="hybrid", embedder=embedder))


def test_what_is_second_to_both_comes_before_what_is_first_to_one(embedder: WordHashes) -> None:
    add(DB, "words.txt", "stars stars stars")
    add(DB, "meaning.txt", "starlight", "stars, moons", embedder=embedder)
    first = {mode: texts(search(DB, "stars", mode=mode, embedder=embedder))[0] for mode in ("text", "vector")}  # type: ignore[arg-type]
    assert first == {"text": "stars stars stars", "vector": "starlight"}
    assert texts(search(DB, "stars", 1, mode="hybrid", embedder=embedder)) == ["stars, moons"]


places = st.lists(st.integers(0, 9), unique=True)


@given(st.lists(places, min_size=1, max_size=3))
def test_fusion_scores_as_the_paper_says(rankings: list[list[int]]) -> None:
    one = fused([[Found(0.0, None, number) for number in ranking] for ranking in rankings])
    scores = {
        number: sum(1 / (60 + ranking.index(number) + 1) for ranking in rankings if number in ranking)
        for number in {number for ranking in rankings for number in ranking}
    }
    assert {found.chunk: -found.rank for found in one} == pytest.approx(scores)
    assert [found.rank for found in one] == sorted(found.rank for found in one)
    assert len(one) == len(scores)


def test_an_item_is_one_hit_by_whatever_it_is_found() -> None:
    by_rows, by_chunks = [Found(0, 7, None), Found(1, 8, None)], [Found(0, None, 7), Found(1, 7, 3), Found(2, 7, 4)]
    assert list(distinct(by_chunks)) == by_chunks[:2]
    first, *others = fused([by_rows, list(distinct(by_chunks))])
    assert (first.item, first.chunk) == (7, 3)
    assert {found.what for found in others} == {("item", 8), ("chunk", 7)}


# --- which mode, and what it needs ------------------------------------------------------------------


def test_without_a_mode_it_is_hybrid_where_that_can_be(books: Path, embedder: WordHashes) -> None:
    for words in ("bread sleep", "nosuchword", "hydrogen"):
        assert search(books, words, embedder=embedder) == search(books, words, mode="hybrid", embedder=embedder)
    assert len(search(books, "hydrogen", embedder=embedder)) == 3


def test_without_vectors_it_is_text_and_no_embedder_is_made() -> None:
    add(DB, "a.txt", STARS)
    assert texts(search(DB, "hydrogen", embedder="nosuch:function")) == [STARS]
    for mode in ("vector", "hybrid"):
        with pytest.raises(StoreError, match="has no vectors yet"):
            search(DB, "hydrogen", mode=mode)


@pytest.mark.parametrize(
    ("other", "says"),
    [(WordHashes("another"), "are of word-hashes, not of another"), (WordHashes(dimension=8), "64 numbers, .* now 8")],
    ids=["name", "dimension"],
)
def test_another_model_than_that_of_the_vectors_is_refused(
    books: Path, other: WordHashes, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    for mode in ("vector", "hybrid"):
        with pytest.raises(ConfigurationError, match=says):
            search(books, "hydrogen", mode=mode, embedder=other)
    assert texts(search(books, "hydrogen", embedder=other)) == [STARS]
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["searching by words alone"]


def test_an_embedder_that_does_not_answer_leaves_the_words(
    books: Path, embedder: WordHashes, caplog: pytest.LogCaptureFixture
) -> None:
    embedder.error = RequestFailed(Outcome.UNAVAILABLE, "no answer from http://x.test")
    with pytest.raises(RemoteError, match=r"words cannot be embedded: no answer from http://x\.test"):
        search(books, "hydrogen", mode="vector", embedder=embedder)
    finder_ = Search(books, embedder)
    assert texts(finder_.find("hydrogen")) == texts(finder_.find("hydrogen")) == [STARS]
    assert len(caplog.records) == 1
    embedder.error = None
    assert len(finder_.find("hydrogen")) == 3


def test_vectors_that_are_none_are_told_of_once(
    books: Path, embedder: WordHashes, caplog: pytest.LogCaptureFixture
) -> None:
    with writing(books) as conn:
        conn.execute("UPDATE vectors SET vector = x'00' WHERE rowid = 1")
    finder_ = Search(books, embedder)
    assert WHALES not in texts(finder_.find("whales", mode="vector"))
    assert len(finder_.find("bread", mode="vector")) == 2
    (record,) = caplog.records
    assert record.getMessage().endswith("without direction: 1")


@pytest.mark.parametrize("mode", ["text", "vector", "hybrid"])
def test_nothing_to_look_for_is_refused(books: Path, embedder: WordHashes, mode: Any) -> None:
    with pytest.raises(ConfigurationError, match="no words"):
        search(books, " \0", mode=mode, embedder=embedder)
    with pytest.raises(ConfigurationError, match="limit: must be at least 1"):
        search(books, "word", 0, mode=mode, embedder=embedder)
    assert embedder.asked == []


def test_a_mode_that_there_is_not_is_refused(books: Path) -> None:
    with pytest.raises(ConfigurationError, match="mode: must be text, vector or hybrid, not words"):
        search(books, "hydrogen", mode="words")  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(words=st.text(st.characters() | st.sampled_from("\"'*:()+-^{}N "), min_size=1))
def test_no_words_make_an_error(words: str) -> None:
    embedder = WordHashes()
    if not DB.exists():
        add(DB, "a.txt", WHALES, STARS, embedder=embedder)
    try:
        assert len(search(DB, words, embedder=embedder)) <= 2
    except ConfigurationError:
        assert not words.replace("\0", " ").strip()


def test_what_the_index_has_beyond_the_chunks_is_no_hit(books: Path) -> None:
    with writing(books) as conn:
        conn.execute("INSERT INTO chunks_search (chunks_search) VALUES ('delete-all')")
        conn.execute("INSERT INTO chunks_search (rowid, text) VALUES (1, 'nosuchword'), (77, 'nosuchword')")
    assert texts(search(books, "nosuchword", mode="text")) == [WHALES]
    with writing(books) as conn:
        conn.execute("INSERT INTO chunks_search (chunks_search) VALUES ('rebuild')")
    assert search(books, "nosuchword", mode="text") == []


# --- again and again --------------------------------------------------------------------------------


def test_what_is_written_meanwhile_is_found(books: Path, embedder: WordHashes) -> None:
    finder_ = Search(books, embedder)
    assert texts(finder_.find("comets", 1, mode="vector")) != ["Comets"]
    add(books, "new.txt", "Comets", embedder=embedder)
    assert texts(finder_.find("comets", 1, mode="vector")) == ["Comets"]
    with writing(books) as conn:
        conn.execute("DELETE FROM chunks WHERE text = 'Comets'")
        conn.execute("DELETE FROM vectors WHERE rowid = 4")
    assert "Comets" not in texts(finder_.find("comets", mode="vector"))


def test_a_database_made_anew_under_the_same_name_is_loaded_anew(books: Path, embedder: WordHashes) -> None:
    finder_ = Search(books, embedder)
    finder_.find("comets", mode="vector")
    for file in Path().glob("texts.db*"):
        file.unlink()
    add(books, "new.txt", "Comets", "Stars", "Moons", "Suns", embedder=embedder)
    assert texts(finder_.find("comets", 1, mode="vector")) == ["Comets"]


def test_vectors_are_read_once(books: Path, embedder: WordHashes, monkeypatch: pytest.MonkeyPatch) -> None:
    from fetcher.search.vectors import Vectors

    read: list[int] = []
    add_ = Vectors._add
    monkeypatch.setattr(Vectors, "_add", lambda self, batch: (read.append(len(batch)), add_(self, batch))[1])
    finder_ = Search(books, embedder)
    for words in ("whales", "bread", "stars"):
        finder_.find(words)
    assert read == [3]


def test_several_threads_may_search_at_once(books: Path, embedder: WordHashes, monkeypatch: pytest.MonkeyPatch) -> None:
    from fetcher.search.vectors import Vectors

    refresh = Vectors.refresh

    def alone(self: Vectors, conn: sqlite3.Connection) -> None:
        assert finder_._lock.locked(), "two threads might load at once"
        refresh(self, conn)

    monkeypatch.setattr(Vectors, "refresh", alone)
    finder_, start = Search(books, embedder), threading.Barrier(4)
    expected = {words: finder_.find(words) for words in ("whales", "bread", "stars", "sleep")}
    finder_ = Search(books, embedder)
    wrong: list[Any] = []

    def look(words: str) -> None:
        start.wait(10)
        try:
            for _ in range(10):
                assert finder_.find(words) == expected[words]
        except (AssertionError, FetcherError, sqlite3.Error) as error:
            wrong.append(error)

    threads = [threading.Thread(target=look, args=(words,)) for words in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_a_database_is_searched_while_a_batch_is_written(books: Path, embedder: WordHashes) -> None:
    with writing(books) as conn:
        conn.execute("DELETE FROM chunks")
        conn.execute("DELETE FROM vectors")
        assert len(search(books, "hydrogen", embedder=embedder)) == 3


# --- a mirror with chunks ---------------------------------------------------------------------------

THINGS = Table("things", (Column("id", "integer", required=True),))
NOTES = Table("notes", (Column("id", "integer", required=True), Column("note", "text")), "thing_id", search=("note",))


@pytest.fixture
def mirror(embedder: WordHashes) -> Path:
    """A mirror of three items, two of which have chunks, and a document beside them."""
    with closing(SqliteStore.open(DB, "toy", (THINGS, NOTES), "http://toy.test")) as store:
        store.begin_run(Plan())
        store.want({1: Interval(1, 1)})
        notes = {1: "red fox", 2: "blue whale", 3: "grey wolf"}
        store.commit(Batch(pages=(Page(tuple((key, None) for key in notes), (1,), None, None),)), IDLE)
        details = {key: Detail({"notes": [(key, 1, note, None)]}) for key, note in notes.items()}
        store.commit(Batch(details=details), IDLE)
    add(DB, "things/1", "red fox", "vixen and cubs", item=1, embedder=embedder)
    add(DB, "things/2", "blue whale", item=2, embedder=embedder)
    add(DB, "shelf/fox.txt", "The fox is a canid", embedder=embedder)
    return DB


def test_an_item_is_found_by_its_rows_and_by_its_chunks_and_is_one_hit(mirror: Path, embedder: WordHashes) -> None:
    hits = search(mirror, "fox", mode="text")
    assert {hit.key for hit in hits} == {1, chunk_id("shelf/fox.txt", 0)}
    (item,) = [hit for hit in hits if hit.key == 1]
    assert item.snippets == {"notes": ("red [fox]",)}
    assert (item.document, item.chunk and item.chunk.text) == ("things/1", "red fox")
    hits = search(mirror, "a vixen's cubs", mode="vector", embedder=embedder)
    assert (hits[0].key, hits[0].chunk and hits[0].chunk.position) == (1, 1)
    assert hits[0].snippets == {"text": ("[vixen] and [cubs]",)}
    assert len(hits) == 3
    hits = search(mirror, "fox", embedder=embedder)
    assert [hit.key for hit in hits].count(1) == 1
    assert hits[0].key == 1


def test_an_item_without_chunks_is_found_by_its_rows(mirror: Path, embedder: WordHashes) -> None:
    (hit,) = search(mirror, "wolf", mode="text")
    assert hit == Hit(3, hit.rank, {"notes": ("grey [wolf]",)})
    assert search(mirror, "wolf", embedder=embedder)[0].key == 3


def test_a_column_that_only_one_index_has_is_looked_for_there(mirror: Path) -> None:
    assert [hit.key for hit in search(mirror, "notes : fox", mode="text")] == [1]
    assert {hit.key for hit in search(mirror, "text : fox", mode="text")} == {1, chunk_id("shelf/fox.txt", 0)}


def test_items_that_have_names_are_found_by_their_chunks(embedder: WordHashes) -> None:
    named = Table("things", (Column("id", "text", required=True),))
    with closing(SqliteStore.open(DB, "toy", (named,), "http://toy.test")):
        pass
    add(DB, "things/7", "red fox", item="7", embedder=embedder)
    for mode in ("text", "vector", "hybrid"):
        assert [hit.key for hit in search(DB, "fox", mode=mode, embedder=embedder)] == ["7"]


# --- the command ------------------------------------------------------------------------------------


@pytest.fixture
def run(embedder: WordHashes, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs the command in this process, whose settings make `embedder`; gives what it prints."""
    monkeypatch.setattr(finder, "_embedder", lambda *_: embedder)

    def run(*arguments: str) -> str:
        return CliRunner().invoke(command, [str(DB), *arguments], catch_exceptions=False).output

    return run


def test_the_command_shows_book_chapter_and_snippet(books: Path, run: Callable[..., str]) -> None:
    assert run("hydrogen", "--mode", "text") == "sea › On whales\n    Stars burn [hydrogen].\n"
    assert run("hydrogen", "--mode", "vector", "--limit", "1") == "sea › On whales\n    Stars burn [hydrogen].\n"
    assert run("whales", "upright", "--mode", "text").splitlines()[0] == "sea › On [whales]"
    assert run("yeast", "--mode", "text").splitlines()[0] == "kitchen"
    assert len(run("hydrogen").splitlines()) == 6


def test_the_command_shows_items_with_their_key(mirror: Path, run: Callable[..., str]) -> None:
    assert run("wolf", "--mode", "text") == "3  notes: grey [wolf]\n"
    assert run("vixen", "--mode", "vector", "--limit", "1") == "1  text: [vixen] and cubs\n"


def test_json_has_all_of_a_chunk_and_of_an_item_what_it_always_had(mirror: Path, run: Callable[..., str]) -> None:
    (item,) = json.loads(run("wolf", "--mode", "text", "--json"))
    assert set(item) == {"key", "rank", "snippets"}
    (chunk,) = json.loads(run("canid", "--mode", "text", "--json"))
    assert chunk["key"] == chunk["chunk"]["id"] == chunk_id("shelf/fox.txt", 0)
    assert (chunk["document"], chunk["snippets"]) == ("shelf/fox.txt", {"text": ["The fox is a [canid]"]})
    assert chunk["chunk"] == {
        "id": chunk["key"],
        "text": "The fox is a canid",
        "position": 0,
        "source_book": "fox",
        "source_chapter": None,
        "domain": "nature",
        "category": "animals",
    }


def test_nothing_that_a_terminal_obeys_comes_from_a_chunk(run: Callable[..., str], embedder: WordHashes) -> None:
    add(DB, "evil\x1b[2J.txt", "evil \x1b]0;t\x07 \u202eword " * 40, chapter="\x1b[31mred", embedder=embedder)
    for mode in ("text", "vector"):
        shown = run("evil", "--mode", mode)
        assert all(each.isprintable() or each == "\n" for each in shown)
        assert all(len(line) <= 120 for line in shown.splitlines())
        assert shown.count("\n") == 2


def test_every_error_and_every_want_is_one_line(books: Path) -> None:
    left = run_fetcher("search", str(books), "nosuchword", "--mode", "text")
    assert (left.returncode, left.stdout) == (0, "")
    assert left.stderr == "fetcher: nothing in texts.db has these words\n"
    add(Path("plain.db"), "a.txt", STARS)
    left = run_fetcher("search", "plain.db", "stars", "--mode", "vector")
    assert (left.returncode, left.stdout, left.stderr.count("\n")) == (6, "", 1)
    assert left.stderr.startswith("fetcher: plain.db has no vectors yet")
    left = run_fetcher("search", "plain.db", "stars")
    assert (left.returncode, left.stderr) == (0, "")
    assert left.stdout == "a\n    [Stars] burn hydrogen.\n"
