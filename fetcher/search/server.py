"""The search of a mirror in PostgreSQL: by words, in the syntax that SQLite's takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fetcher.errors import ConfigurationError, StoreError
from fetcher.model import Key, Table
from fetcher.place import PostgresUrl
from fetcher.search.hits import PRIVATE_MARKS, WORDS, Hit, Marks, lines_of
from fetcher.sources import registry
from fetcher.sources.rest import from_stored
from fetcher.stores.opening import reading
from fetcher.stores.sql import Sql

_TOKEN = re.compile(r"""\s*(?:"((?:[^"]|"")*)"(\s*\*)?|([()])|([^\s"()*:]+)(\s*\*)?(\s*:(?!:))?)""")
_WORD = re.compile(r"\w+")


def find(place: PostgresUrl, words: str, limit: int, marks: Marks) -> list[Hit]:
    """The items that have all the words, best first, at most `limit`. Raises StoreError, ConfigurationError."""
    from fetcher.stores.postgres.search import rows_of

    with reading(place, moment=True) as sql:
        tables = _searched(sql, place)
        query = _Query.of(words, tables) or _Query.plain(words)
        if not query.text:
            return []
        ranking = sql.execute(
            "SELECT id, -ts_rank(words, wanted) FROM search, to_tsquery('simple', ?) AS wanted"
            " WHERE words @@ wanted ORDER BY 2, 1 LIMIT ?",
            [query.text, limit],
        ).fetchall()
        keys = [key for key, _ in ranking]
        rows = {table.name: rows_of(sql, table, keys) for table in tables}
    shown: dict[Key, dict[str, tuple[str, ...]]] = {key: {} for key in keys}
    for table in tables:
        at = [[column.name for column in table.columns].index(name) + 1 for name in table.search]
        for key in keys:
            texts = [str(row[place_]) for row in rows[table.name].get(key, ()) for place_ in at if row[place_]]
            snippet = "\n".join(query.marked(line) for text in texts for line in text.splitlines())
            if lines := lines_of(snippet, marks):
                shown[key][table.name] = lines
    return [Hit(key, rank, shown[key]) for key, rank in ranking]


def _searched(sql: Sql, place: PostgresUrl) -> list[Table]:
    """The tables that are searched. Raises StoreError when there is no search yet, or it is not whole."""
    name, stored, filled = sql.execute("SELECT name, description, search_filled_to FROM sources").fetchone()
    kind = registry().get(name) if stored is None else from_stored(stored)
    tables = [table for table in kind.tables if table.search and table.parent] if kind is not None else []
    if not tables:
        raise ConfigurationError(f"{name} has no texts that are searched: ask {place} in SQL")
    if not sql.has("search"):
        raise StoreError(f"{place} has no full-text search yet: the next `fetcher fetch` makes it")
    if filled is not None:
        raise StoreError(f"the full-text search of {place} is not whole yet: let `fetcher fetch` go on with it")
    return tables


@dataclass(frozen=True, slots=True)
class _Query:
    """What PostgreSQL is asked, and the words that are marked in what it finds: whole ones, and beginnings."""

    text: str
    whole: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)

    @classmethod
    def plain(cls, words: str) -> _Query:
        """All of the words, whatever they mean to a query."""
        from fetcher.stores.postgres.search import folded

        phrases = [each for word in words.split() if (each := folded(word).split())]
        text = " & ".join(f"({' <-> '.join(map(repr, phrase))})" for phrase in phrases)
        return cls(text, {word for phrase in phrases for word in phrase})

    @classmethod
    def of(cls, words: str, tables: Sequence[Table]) -> _Query | None:
        """The words as a query of FTS5's: `"a phrase"`, `table : word`, `one OR two`, `begin*`; None if it is none."""
        made = cls("")
        try:
            text = _Parser(list(_tokens(words)), tables, made).whole()
        except (ValueError, IndexError):
            return None
        return cls(text, made.whole, made.begun)

    def marked(self, line: str) -> str:
        """A line with what was found between private marks, of a long one the part around the first of it."""
        from fetcher.stores.postgres.search import folded

        def mark(found: re.Match[str]) -> str:
            word = folded(found[0]).strip()
            hit = word in self.whole or any(word.startswith(each) for each in self.begun)
            return f"{PRIVATE_MARKS[0]}{found[0]}{PRIVATE_MARKS[1]}" if hit else found[0]

        words = _WORD.sub(mark, line).split()
        if len(words) <= WORDS:
            return " ".join(words)
        first = next((at for at, word in enumerate(words) if PRIVATE_MARKS[0] in word), 0)
        start = max(0, min(first - WORDS // 4, len(words) - WORDS))
        end = start + WORDS
        return f"{'…' if start else ''}{' '.join(words[start:end])}{'…' if end < len(words) else ''}"


def _tokens(words: str) -> Iterator[tuple[str, str]]:
    """The parts of a query: what kind each is of, and its text. Raises ValueError where it is none."""
    at = 0
    words = words.rstrip()
    while at < len(words):
        found = _TOKEN.match(words, at)
        if found is None:
            raise ValueError(words)
        at = found.end()
        phrase, star, bracket, word, begun, colon = found.groups()
        if bracket:
            yield bracket, bracket
        elif phrase is not None:
            yield ("begin" if star else "phrase"), phrase
        elif colon:
            yield "column", word
        elif word in ("AND", "OR", "NOT") and not begun:
            yield word, word
        else:
            yield ("begin" if begun else "phrase"), word


class _Parser:
    """Makes a tsquery of the parts of a query; words side by side are all wanted."""

    def __init__(self, tokens: list[tuple[str, str]], tables: Sequence[Table], found: _Query) -> None:
        self._tokens = [*tokens, ("end", "")]
        self._tables = tables
        self._found = found

    def whole(self) -> str:
        text = self._either("")
        if self._tokens[0][0] != "end":
            raise ValueError(self._tokens)
        return text

    def _either(self, weight: str) -> str:
        return self._joined(weight, "OR", " | ", self._all)

    def _all(self, weight: str) -> str:
        parts = [self._but(weight)]
        while self._tokens[0][0] not in ("end", ")", "OR"):
            if self._tokens[0][0] == "AND":
                self._tokens.pop(0)
            parts.append(self._but(weight))
        return f"({' & '.join(parts)})"

    def _but(self, weight: str) -> str:
        return self._joined(weight, "NOT", " & !", self._one)

    def _joined(self, weight: str, word: str, sign: str, part: Any) -> str:
        parts = [part(weight)]
        while self._tokens[0][0] == word:
            self._tokens.pop(0)
            parts.append(part(weight))
        return f"({sign.join(parts)})"

    def _one(self, weight: str) -> str:
        from fetcher.stores.postgres.search import folded, weight_of

        kind, text = self._tokens.pop(0)
        if kind == "column":
            of_table = weight_of(self._tables, text)
            if of_table is None:
                raise ValueError(text)
            return self._one(of_table)
        if kind == "(":
            inner = self._either(weight)
            if self._tokens.pop(0)[0] != ")":
                raise ValueError(text)
            return inner
        words = folded(text).split()
        if kind not in ("phrase", "begin") or not words:
            raise ValueError(text)
        (self._found.begun if kind == "begin" else self._found.whole).add(words[-1])
        self._found.whole.update(words[:-1])
        last = f"'{words[-1]}':{'*' if kind == 'begin' else ''}{weight}".removesuffix(":")
        before = [f"'{word}'{f':{weight}' if weight else ''}" for word in words[:-1]]
        return f"({' <-> '.join([*before, last])})"
