"""Search in PostgreSQL finds what it finds in SQLite, and shows it alike."""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fetcher import ConfigurationError, StoreError, search, verify
from fetcher.search.query import NoQuery, parsed, plain, tsquery
from fetcher.simulator import Simulator, World
from fetcher.stores.postgres.words import words_of
from tests.helpers import change, mirror, one, query, run_fetcher
from tests.postgres import PostgresServer

Simulate = Callable[..., Simulator]


@pytest.fixture(scope="module")
def mirrors(
    postgres: PostgresServer, shared_simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """One world in both databases."""
    url, file = postgres.url(), tmp_path_factory.mktemp("mirrors") / "m.db"
    for place in (url, file):
        assert mirror(place, shared_simulator).exit_code == 0
    return url, file


def words_in(url: str) -> list[str]:
    """Words that stand in a few items each."""
    rows = query(url, "SELECT word FROM ts_stat('SELECT words FROM search') WHERE ndoc BETWEEN 2 AND 40 ORDER BY 1")
    return [word for (word,) in rows if not word.isdigit()]


def test_items_are_found_by_the_same_words_and_shown_alike(mirrors: tuple[str, Path]) -> None:
    url, _ = mirrors
    some = words_in(url)[:: max(1, len(words_in(url)) // 12)]
    assert len(some) >= 5
    one_, other = some[0], some[-1]
    wanted = [
        *some,
        f"{one_[:2]}*",
        f"{one_} OR {other}",
        f"tags : {one_}",
        f"comments : {other}",
        f'"{one_}" "{other}"',
    ]
    wanted += [f"{one_} NOT {other}", f"({one_} OR {other}) AND {other}", one_.upper(), f"- tags : {one_}"]
    for words in wanted:
        ours, theirs = ({hit.key: hit for hit in search(each, words, 300)} for each in mirrors)
        assert ours.keys() == theirs.keys(), words
        assert list(ours) == [hit.key for hit in sorted(ours.values(), key=lambda hit: hit.rank)], words
        for key, hit in theirs.items():
            assert ours[key].snippets.keys() == hit.snippets.keys(), (words, key)
            for table, lines in hit.snippets.items():
                if table == "tags":
                    assert ours[key].snippets[table] == lines, (words, key)


def test_what_is_no_query_is_taken_as_plain_words(mirrors: tuple[str, Path]) -> None:
    url, file = mirrors
    word = words_in(url)[0]
    for words in (f"{word} '", f"({word}", f"{word}-", f"nothing : {word}", f"{word} AND", "c++ -", '"'):
        assert {hit.key for hit in search(url, words, 300)} == {hit.key for hit in search(file, words, 300)}, words


def test_it_is_kept_in_step_and_filled_for_an_older_mirror(postgres: PostgresServer, simulate: Simulate) -> None:
    world = World(seed=3, items=60)
    simulator, url = simulate(world), postgres.url()
    mirror(url, simulator)
    assert verify(url).complete
    before = query(url, "SELECT id, words::text FROM search ORDER BY 1")
    assert [key for key, _ in before] == list(world.ids())
    mirror(url, simulator, full_update=True)
    assert query(url, "SELECT id, words::text FROM search ORDER BY 1") == before
    change(url, "DROP TABLE search")
    change(url, "DROP VIEW search_text")
    with pytest.raises(StoreError, match="no full-text search yet"):
        search(url, "anything")
    mirror(url, simulator)
    assert query(url, "SELECT id, words::text FROM search ORDER BY 1") == before
    assert one(url, "SELECT search_filled_to FROM sources") is None
    change(url, "UPDATE sources SET search_filled_to = 3")
    with pytest.raises(StoreError, match="is not whole yet"):
        search(url, "anything")


def test_the_command_says_the_same(mirrors: tuple[str, Path]) -> None:
    url, _ = mirrors
    word = words_in(url)[0]
    ours, theirs = (run_fetcher("search", str(each), f"tags : {word}", "--limit", "300") for each in mirrors)
    assert (ours.returncode, ours.stderr) == (0, "")
    assert sorted(ours.stdout.splitlines()) == sorted(theirs.stdout.splitlines())
    nothing = run_fetcher("search", url, "nosuchwordanywhere")
    assert (nothing.returncode, "secret" in nothing.stderr) == (0, False)
    assert "has these words" in nothing.stderr
    vector = run_fetcher("search", url, word, "--mode", "vector")
    assert vector.returncode == 6
    assert "has no vectors yet" in vector.stderr
    with pytest.raises(ConfigurationError, match="no words"):
        search(url, " ")


def test_words_are_folded_as_sqlite_folds_them() -> None:
    told = words_of("Füße, c++ déjà-vu snake_case 4Ever Ærø")
    assert told == [
        "fuße",
        "c",
        "deja",
        "vu",
        "snake",
        "case",
        "4ever",
        "ærø",
    ]
    # ucd_3_2_0: what is newer, no SQLite has to know; some of Latin's and Mongolia's signs it has forgotten.
    signs = [chr(code) for code in range(1, 0x3000) if unicodedata.ucd_3_2_0.category(chr(code)) != "Cn"]
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("CREATE VIRTUAL TABLE t USING fts5 (x, tokenize='unicode61 remove_diacritics 2')")
        conn.execute("CREATE VIRTUAL TABLE words USING fts5vocab (t, instance)")
        conn.executemany("INSERT INTO t VALUES (?)", [(f"a{sign}b",) for sign in signs])
        theirs: dict[int, list[str]] = {}
        for row, word in conn.execute("SELECT doc, term FROM words ORDER BY doc, offset"):
            theirs.setdefault(row, []).append(word)
    others = {sign for row, sign in enumerate(signs, 1) if words_of(f"a{sign}b") != theirs[row]}
    assert others <= set("\u01e0\u01e1\u1885\u1886\u1e9b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("red fox", "('red' & 'fox')"),
        ('"red fox"', "(('red':A <-> 'fox':A) | ('red':B <-> 'fox':B))"),
        ("be*", "'be'*"),
        ("tags : red OR blue", "('red':A | 'blue')"),
        ("{tags notes} : (red NOT blue)", "('red':AB & !'blue':AB)"),
        ("- tags : red", "'red':B"),
        ("tags : red + fox", "('red':A <-> 'fox':A)"),
        ("a AND b OR c", "(('a' & 'b') | 'c')"),
        ("'quoted'", None),
        ("NEAR(a b)", None),
        ("AND a", None),
    ],
)
def test_queries_are_translated(text: str, said: str | None) -> None:
    columns = ("tags", "notes")
    if said is None:
        with pytest.raises(NoQuery):
            parsed(text, columns)
        return
    found = parsed(text, columns)
    assert found is not None
    told = tsquery(found, columns).replace(":*", "*").replace("'red':)", "'red')")
    simple = told.replace("(", "").replace(")", "").replace("':", "'").replace("'*", "'*")
    assert simple == said.replace("(", "").replace(")", "").replace("':", "'")
    assert plain("''") is None
