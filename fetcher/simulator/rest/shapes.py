"""Bodies in the shapes of real APIs: Hacker News, GitHub's issues, a table of a Datasette."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from fetcher.simulator.rest.world import RestWorld

_THREAD = 5
"""Every so many numbers there is a story; what is between are its comments, if it is there."""


def story(world: RestWorld, id: int) -> dict[str, Any] | None:
    """A story with the numbers of its comments, or a comment with that of its story; None where there is nothing."""
    if not world.has(id):
        return None
    item = world.item(id)
    whole = {"id": id, "by": item["author"]["name"], "time": world.created(id)}
    above = id - id % _THREAD
    if id != above and world.has(above):
        return {**whole, "type": "comment", "parent": above, "text": item["title"]}
    kids = [each for each in range(id + 1, id + _THREAD) if id == above and world.has(each)]
    facts = {"type": "story", "title": item["title"], "score": item["score"] or 1, "descendants": len(kids)}
    return {**whole, **facts, "url": f"https://example.com/{id}", **({"kids": kids} if kids else {})}


def issue(world: RestWorld, id: int) -> dict[str, Any]:
    """An issue with its labels."""
    item = world.item(id)
    return {
        "id": 1_000_000_000 + id,
        "number": id,
        "title": item["title"],
        "state": "open" if item["open"] else "closed",
        "body": None if item["score"] is None else item["title"],
        "user": {"login": item["author"]["name"], "id": item["author"]["id"]},
        "labels": [
            {"id": zlib.crc32(name.encode()), "name": name, "color": "ededed", "default": False}
            for name in dict.fromkeys(item["tags"])
        ],
        "locked": False,
        "comments": len(item["lines"]),
        "created_at": item["created_at"],
        "updated_at": item["updated_at"],
        "closed_at": None if item["open"] else item["updated_at"],
    }


def rows(world: RestWorld, ids: Sequence[int], following: str | None) -> dict[str, Any]:
    """Rows as objects, and the address of those that follow."""
    plain = ("id", "title", "score", "rating", "created_at")
    found = [{name: value for name, value in world.item(id).items() if name in plain} for id in ids]
    return {
        "ok": True,
        "next": None if following is None else str(ids[-1]),
        "next_url": following,
        "rows": found,
        "truncated": False,
    }
