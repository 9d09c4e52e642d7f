"""What is asked for, in the words of SQLite's FTS5, for databases that have another language."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from fetcher.stores.postgres.words import WEIGHTS, words_of

_LEXEME = re.compile(r'\s*(?:"((?:[^"]|"")*)"|((?:[^\W]|[^\x00-\x7f])+)|([*:(){}+-])|(\S))')


class NoQuery(ValueError):
    """A text that is no query, or one that only FTS5 can answer."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that stand side by side, in some `columns` or (None) in any; with `begun` the last is but begun."""

    words: tuple[str, ...]
    columns: frozenset[str] | None = None
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Both:
    """All of these."""

    parts: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """Any of these."""

    parts: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Without:
    """The first, and not the other."""

    what: Query
    other: Query


Query = Phrase | Both | Either | Without


def plain(words: str) -> Query | None:
    """All the words, whatever signs there are among them; None where there are none."""
    return _joined(Both, [Phrase(found) for word in words.split() if (found := tuple(words_of(word)))])


def parsed(text: str, columns: Collection[str]) -> Query | None:
    """What a query asks for of an index with these columns; None where it has no words. Raises NoQuery."""
    parser = _Parser(text, columns)
    found = parser.either(None)
    if parser.left:
        raise NoQuery(text)
    return found


def phrases(query: Query | None) -> Iterator[Phrase]:
    """The phrases that are to be found."""
    if isinstance(query, Phrase):
        yield query
    elif isinstance(query, Without):
        yield from phrases(query.what)
    elif query is not None:
        for each in query.parts:
            yield from phrases(each)


def tsquery(query: Query, columns: Sequence[str]) -> str:
    """The same for PostgreSQL, where the columns are told apart by weights."""
    if isinstance(query, Phrase) and query.columns is None and len(query.words) > 1 and len(columns) > 1:
        # Else one might begin in one column and end in another.
        each_alone = tuple(Phrase(query.words, frozenset((name,)), query.begun) for name in columns)
        return tsquery(Either(each_alone), columns)
    if isinstance(query, Phrase):
        weights = "" if query.columns is None else "".join(sorted({_weight(columns, each) for each in query.columns}))
        *whole, last = (f"'{word}':{weights}" for word in query.words)
        return f"({' <-> '.join([*whole, f'{last}*' if query.begun else last])})"
    if isinstance(query, Without):
        return f"({tsquery(query.what, columns)} & !{tsquery(query.other, columns)})"
    return f"({(' & ' if isinstance(query, Both) else ' | ').join(tsquery(each, columns) for each in query.parts)})"


def _weight(columns: Sequence[str], name: str) -> str:
    return WEIGHTS[min(columns.index(name), len(WEIGHTS) - 1)]


def _joined(how: type[Both | Either], parts: Sequence[Query]) -> Query | None:
    return (parts[0] if len(parts) == 1 else how(tuple(parts))) if parts else None


class _Parser:
    """By what binds how tightly: OR, AND, NOT, and words that stand side by side."""

    def __init__(self, text: str, columns: Collection[str]) -> None:
        self._text = text
        self._columns = {name.lower(): name for name in columns}
        self.left: list[tuple[str, str]] = []
        for match in _LEXEME.finditer(text.rstrip()):
            quoted, word, sign, other = match.groups()
            if other is not None:
                raise NoQuery(text)
            kind = "string" if quoted is not None else "word" if word is not None else sign
            self.left.append((kind, quoted.replace('""', '"') if quoted is not None else word or sign))
        self.left.reverse()

    def either(self, columns: frozenset[str] | None) -> Query | None:
        parts = [self._both(columns)]
        while self._takes("word", "OR"):
            parts.append(self._both(columns))
        return _joined(Either, [each for each in parts if each is not None])

    def _both(self, columns: frozenset[str] | None) -> Query | None:
        parts = [self._without(columns)]
        while self._takes("word", "AND"):
            parts.append(self._without(columns))
        return _joined(Both, [each for each in parts if each is not None])

    def _without(self, columns: frozenset[str] | None) -> Query | None:
        found = self._side_by_side(columns)
        while self._takes("word", "NOT"):
            other = self._side_by_side(columns)
            if found is not None and other is not None:
                found = Without(found, other)
        return found

    def _side_by_side(self, columns: frozenset[str] | None) -> Query | None:
        parts = [self._one(columns)]
        while self.left and self.left[-1][0] not in (")", "}") and self.left[-1] not in _BETWEEN:
            parts.append(self._one(columns))
        return _joined(Both, [each for each in parts if each is not None])

    def _one(self, columns: frozenset[str] | None) -> Query | None:
        if not self.left or self.left[-1] in _BETWEEN:
            raise NoQuery(self._text)
        named = self._named()
        if named is not None:
            columns = named if columns is None else columns & named
        if self._takes("("):
            if self.left and self.left[-1][0] == ")":
                raise NoQuery(self._text)
            found = self.either(columns)
            if not self._takes(")"):
                raise NoQuery(self._text)
            return found
        words: list[str] = []
        begun = False
        while True:
            words += words_of(self._string())
            if self._takes("*"):
                begun = True
                break
            if not self._takes("+"):
                break
        return Phrase(tuple(words), columns, begun) if words else None

    def _named(self) -> frozenset[str] | None:
        """The columns that what follows is to be found in, where they are named."""
        others = False
        if self.left[-1][0] == "-":
            others = True
            self.left.pop()
        names = []
        if self._takes("{"):
            while not self._takes("}"):
                names.append(self._string())
        elif (len(self.left) > 1 and self.left[-2][0] == ":") or others:
            names.append(self._string())
        else:
            return None
        if not self._takes(":"):
            raise NoQuery(self._text)
        if not names or any(name.lower() not in self._columns for name in names):
            raise NoQuery(self._text)
        chosen = frozenset(self._columns[name.lower()] for name in names)
        return frozenset(self._columns.values()) - chosen if others else chosen

    def _string(self) -> str:
        if not self.left or self.left[-1][0] not in ("string", "word") or self.left[-1] in _BETWEEN:
            raise NoQuery(self._text)
        kind, text = self.left.pop()
        if kind == "word" and text == "NEAR" and self.left and self.left[-1][0] == "(":
            raise NoQuery(self._text)
        return text

    def _takes(self, kind: str, text: str | None = None) -> bool:
        if not self.left or self.left[-1][0] != kind or (text is not None and self.left[-1][1] != text):
            return False
        self.left.pop()
        return True


_BETWEEN = (("word", "AND"), ("word", "OR"), ("word", "NOT"))
