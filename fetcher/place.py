"""Where a database is: a file of this machine, or one of a PostgreSQL server."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

_SCHEME = re.compile(r"postgres(?:ql)?://", re.IGNORECASE)
_WHERE = re.compile(r"(?P<host>[^/?#]*)(?:/(?P<name>[^?#]*))?")


class PostgresUrl:
    """The URL of a PostgreSQL database, as libpq takes it.

    It may hold a password: `str` and `repr` give it without, and without whatever else it says about the connection;
    only `secret` is all of it.
    """

    __slots__ = ("_text", "secret")

    def __init__(self, url: str) -> None:
        self.secret = url
        # Up to the last @ it may be a password, even one in which nothing is escaped.
        login, _, where = _SCHEME.sub("", url, count=1).rpartition("@")
        user = re.split("[:/?#]", login)[0]
        found = _WHERE.match(where)
        assert found is not None
        self._text = f"postgresql://{f'{user}@' if user else ''}{found['host']}/{found['name'] or ''}"

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"PostgresUrl({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PostgresUrl) and other.secret == self.secret

    def __hash__(self) -> int:
        return hash(self.secret)


Place = Path | PostgresUrl
"""Where a database is."""


def is_url(text: object) -> bool:
    """Whether a text names a database of a PostgreSQL server."""
    return isinstance(text, str) and _SCHEME.match(text) is not None


def place_of(db: str | os.PathLike[str] | Place) -> Place:
    """Where a database is, by the form of its name: `postgresql://…`, or else a path."""
    if isinstance(db, PostgresUrl):
        return db
    return PostgresUrl(db) if isinstance(db, str) and is_url(db) else Path(db)


def without_secrets(text: str) -> str:
    """A text, such as an argument, in which no URL of a database says more than where it is."""
    return str(PostgresUrl(text)) if is_url(text) else text


def validated(value: Any) -> Any:
    """What a setting gives, as a place if it can be one."""
    return place_of(value) if isinstance(value, str | os.PathLike) else value
