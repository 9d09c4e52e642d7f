"""What most listings have in common: a page of objects with whole numbers for keys, the newest first."""

from __future__ import annotations

from typing import Any

from fetcher.client import MOST_EVIDENCE, Answer
from fetcher.errors import RequestFailed
from fetcher.model import Failure, Interval, Outcome, Page, Row, Walk
from fetcher.rows import RowBuilder, Unusable, integer


def newest_first(walk: Walk, answer: Answer, builder: RowBuilder, field: str, *, end: bool) -> Page:
    """The page of `walk` that an answer makes, when it was asked for the newest items up to `walk.hole.hi`.

    `field` of the answer holds their objects; with `end` there are none below them. The page proves from its lowest key
    up to where it was asked from; order within it is not trusted, and what lies outside is dropped. An object that is
    no row is a failure of its own where it has a key. Raises RequestFailed (malformed) where nothing can be proven.
    """
    hole = walk.hole
    notes: list[str] = []
    rows: dict[int, Row] = {}
    failures: dict[int, Failure] = {}
    for each in answer.field(field, list):
        try:
            row = builder.row(each, notes)
        except RequestFailed as error:
            key = _key(each, builder)
            if key is None:
                raise answer.malformed(str(error)) from None
            body = answer.body[:MOST_EVIDENCE]
            failures[key] = Failure("item", key, Outcome.MALFORMED, str(error), answer.status, body)
        else:
            rows[row[0]] = row
    below = [key for key in (*rows, *failures) if key <= hole.hi]
    if not below and not end:
        raise answer.malformed(f"no item up to {hole.hi} in {field}, though more are said to follow")
    lowest = hole.lo if end else max(hole.lo, min(below))
    rest = Interval(hole.lo, lowest - 1)
    return Page(
        rows=tuple(row for key, row in rows.items() if key in hole),
        scopes=walk.scopes,
        proven=Interval(lowest, hole.hi),
        next=walk.after(hole=rest) if rest.size else None,
        notes=tuple(notes),
        failures=tuple(each for key, each in failures.items() if key in hole),
    )


def _key(each: Any, builder: RowBuilder) -> int | None:
    try:
        return integer(each[builder.table.columns[0].name])
    except (TypeError, LookupError, Unusable):
        return None
