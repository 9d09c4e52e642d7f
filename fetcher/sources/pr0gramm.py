"""pr0gramm.com: items by descending id, 120 a page; each item's tags and comments by a request of its own.

The facts come from public clients of the unversioned API; nothing here was tried against the live site.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, SecretStr

from fetcher.client import MOST_EVIDENCE, Answer, Client
from fetcher.errors import RequestFailed
from fetcher.model import (
    Column,
    Detail,
    Failure,
    Gone,
    Interval,
    Outcome,
    Page,
    Row,
    Scope,
    Table,
    View,
    Walk,
)
from fetcher.rows import Parser, RowBuilder, Unusable, integer, malformed
from fetcher.settings import SourceOptions, option

YOUNG_SECONDS = 600
"""Items younger than this may still be joined by others below them: their stretch is listed again by the next run."""

ITEMS = Table(
    "items",
    (
        Column("id", "integer", required=True),
        Column("promoted", "integer"),
        Column("userId", "integer"),
        Column("up", "integer"),
        Column("down", "integer"),
        Column("created", "integer", required=True),
        Column("image", "text"),
        Column("thumb", "text"),
        Column("fullsize", "text"),
        Column("preview", "text"),
        Column("width", "integer"),
        Column("height", "integer"),
        Column("audio", "boolean"),
        Column("source", "text"),
        Column("flags", "integer", required=True),
        Column("user", "text"),
        Column("mark", "integer"),
        Column("gift", "integer"),
        Column("deleted", "boolean"),
        Column("repost", "boolean"),
        Column("variants", "json"),
        Column("subtitles", "json"),
    ),
    in_scope='"flags" & :scope != 0',
)
TAGS = Table(
    "tags",
    (Column("id", "integer", required=True), Column("tag", "text", required=True), Column("confidence", "real")),
    parent="item_id",
    search=("tag",),
    index=("tag",),
)
COMMENTS = Table(
    "comments",
    (
        Column("id", "integer", required=True),
        Column("parent", "integer"),
        Column("content", "text", required=True),
        Column("created", "integer"),
        Column("up", "integer"),
        Column("down", "integer"),
        Column("confidence", "real"),
        Column("name", "text"),
        Column("mark", "integer"),
    ),
    parent="item_id",
    search=("content",),
)
VIEWS = (
    View("top_tags", "SELECT tag, count(*) AS items FROM tags GROUP BY tag ORDER BY items DESC, tag"),
    View(
        "items_with_tags",
        "SELECT items.*,"
        " (SELECT json_group_array(tag) FROM (SELECT tag FROM tags WHERE item_id = items.id"
        " ORDER BY confidence DESC, tags.id)) AS tags,"
        " (SELECT count(*) FROM comments WHERE item_id = items.id) AS comments FROM items",
        postgres="SELECT items.*,"
        " (SELECT coalesce(json_agg(tag ORDER BY confidence DESC NULLS LAST, tags.id), '[]') FROM tags"
        " WHERE item_id = items.id) AS tags,"
        " (SELECT count(*) FROM comments WHERE item_id = items.id) AS comments FROM items",
    ),
    View(
        "recent",
        "SELECT id, datetime(created, 'unixepoch') AS created, user, up - down AS score, tags, comments, image"
        " FROM items_with_tags WHERE fetched_at IS NOT NULL AND gone_at IS NULL AND unlisted_at IS NULL"
        " ORDER BY id DESC LIMIT 100",
        postgres="SELECT id, to_char(to_timestamp(created) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS created,"
        ' "user", up - down AS score, tags, comments, image FROM items_with_tags'
        " WHERE fetched_at IS NOT NULL AND gone_at IS NULL AND unlisted_at IS NULL ORDER BY id DESC LIMIT 100",
    ),
)
_CREATED = [column.name for column in ITEMS.columns].index("created")


class Pr0gramm:
    """The JSON API of pr0gramm.com."""

    name = "pr0gramm"
    base_url = "https://pr0gramm.com/api"
    tables = (ITEMS, TAGS, COMMENTS)
    views = VIEWS
    login_hint = "set PP and ME to a login's cookies, or fewer CONTENT_FLAGS"
    walks = 1
    page_size = 120

    class Options(SourceOptions):
        """What can be asked of pr0gramm."""

        content_flags: int = option(
            1, "--flags", "kinds of items: 1 sfw, 2 nsfw, 4 nsfl, 8 nsfp, 16 pol; their sum, up to 31", ge=1, le=31
        )
        pp: SecretStr | None = Field(None, description="login cookie `pp`, secret")
        me: SecretStr | None = Field(None, description="login cookie `me`, secret")

    def __init__(self, options: Options) -> None:
        self._options = options
        self._items = RowBuilder(ITEMS)
        self._tags = RowBuilder(TAGS)
        self._comments = RowBuilder(COMMENTS)
        # A good body has neither of the fields that name an error.
        self._info = Parser((TAGS, COMMENTS), absent=("error", "code"))

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """One scope for each content flag asked for."""
        return tuple(bit for bit in (1, 2, 4, 8, 16) if self._options.content_flags & bit)

    @property
    def cookies(self) -> dict[str, SecretStr]:
        """The login, as the API wants it."""
        given = {"pp": self._options.pp, "me": self._options.me}
        return {name: secret for name, secret in given.items() if secret is not None}

    @property
    def open_scopes(self) -> tuple[Scope, ...]:
        """Without a login there are only sfw items."""
        return (1,)

    @property
    def needs_login(self) -> bool:
        """Whether anything is asked for that only a login shows."""
        return not set(self.scopes).issubset(self.open_scopes)

    def judge(self, status: int, data: Any) -> Outcome | None:
        """The API's own errors: `limitReached` in good and bad answers alike, all others in good ones.

        `nothingFound` is the one that is no error: a list without items.
        """
        if not isinstance(data, dict):
            return None
        error = data.get("error")
        if error in ("limitReached", "rateLimited") or data.get("code") == 429:
            return Outcome.LIMITED
        if status == 200 and error == "notFound":
            return Outcome.GONE
        if status == 200 and isinstance(error, str) and error.endswith("Required"):
            return Outcome.DENIED
        if 200 <= status < 300 and error and error != "nothingFound":
            # An empty last page beside an error not known yet would prove that there is nothing.
            return Outcome.MALFORMED
        return None

    def universe(self, client: Client) -> Interval:
        """The ids there can be: from 1 to the newest item's. Empty when there is none."""
        answer = client.get("/items/get", {"flags": sum(map(int, self.scopes))})
        rows, failures = self._item_rows(answer, [])
        return Interval(1, max([*(row[0] for row in rows), *(_id(each) for each in failures)], default=0))

    def page(self, client: Client, walk: Walk) -> Page:
        """One page of `walk`: `older` and `newer` are exclusive, and the first page of the head is asked without.

        It proves from its lowest key up to the one it was asked from, and down to the lowest there can be only at the
        end of the list; upside down when the walk goes up. Order within a page is not trusted. Where the list begins
        all flags are asked for: what one of them has no item of up there is proven by the items of the others. Above
        the newest id known when the walk was planned nothing is proven: one false id would hide all that comes later.
        """
        down = walk.order == "newest"
        from_top = down and walk.head and not walk.started
        scopes = self.scopes if from_top else walk.scopes
        params: dict[str, object] = {"flags": sum(map(int, scopes))}
        if not down:
            params["newer"] = walk.hole.lo - 1
        elif not from_top:
            params["older"] = walk.hole.hi + 1
        answer = client.get("/items/get", params)
        notes: list[str] = []
        rows, failures = self._item_rows(answer, notes)
        at_end = answer.data.get("atEnd" if down else "atStart") is True
        keys = [*(row[0] for row in rows), *(_id(each) for each in failures)]
        try:
            listed, rest = _listed_down(walk, keys, at_end, from_top) if down else _listed_up(walk, keys, at_end)
        except RequestFailed as error:
            raise _with_body(error, answer) from None
        kept = tuple(row for row in rows if row[0] in listed)
        failures = [each for each in failures if each.key in listed]
        proven = Interval(listed.lo, min(listed.hi, walk.hole.hi))
        goes_on = not at_end and (rest.size > 0 or (walk.head and not down))
        going_on = walk.scopes
        if at_end and walk.head and not down and scopes != self.scopes:
            goes_on, going_on = True, self.scopes

        ts = answer.data.get("ts")
        newest_old = (ts if type(ts) is int else client.stop.time()) - YOUNG_SECONDS
        young = [row[0] for row in kept if row[_CREATED] > newest_old]
        if young:
            proven = Interval(proven.lo, min(proven.hi, min(young) - 1))
        return Page(
            rows=kept,
            scopes=scopes,
            proven=proven if proven.size and walk.proves else None,
            # What lies above young items is proven by no later page of a walk that goes up.
            next=walk.after(hole=rest, scopes=going_on, proves=walk.proves and (down or not young))
            if goes_on
            else None,
            notes=tuple(notes),
            failures=tuple(failures),
        )

    def skip(self, walk: Walk) -> tuple[Interval, Walk | None] | None:
        """A page holds so many items: their ids take at least as many numbers."""
        hole = walk.hole
        if walk.order == "newest":
            unlisted = Interval(max(hole.lo, hole.hi - self.page_size + 1), hole.hi)
            rest = Interval(hole.lo, unlisted.lo - 1)
        else:
            unlisted = Interval(hole.lo, min(hole.hi, hole.lo + self.page_size - 1))
            rest = Interval(unlisted.hi + 1, hole.hi)
        return unlisted, walk.after(hole=rest) if rest.size else None

    def item(self, client: Client, key: int) -> Detail:
        """One item without its tags and comments: the API lists those around it, so it is picked by its id.

        That there is none, or that it is of another kind than those asked for, the API says itself.
        """
        answer = client.get("/items/get", {"id": key, "flags": sum(map(int, self.scopes))})
        notes: list[str] = []
        rows, failures = self._item_rows(answer, notes)
        for row in rows:
            if row[0] == key:
                return Detail({ITEMS.name: [row]}, tuple(notes))
        flaw = next((each.message for each in failures if each.key == key), "it is not on the page around it")
        raise _with_body(malformed(flaw), answer)

    def detail(self, client: Client, key: int) -> Detail | Gone:
        """The tags and comments of one item. One without any is a good answer."""
        answer = client.get("/items/info", {"itemId": key}, self._info.parse)
        if answer.parsed is not None:
            return Detail(self._info.rows(answer.parsed, key))
        data = answer.data
        if not isinstance(data, dict) or type(data.get("tags")) is not list or type(data.get("comments")) is not list:
            raise _with_body(malformed("no list of tags and comments"), answer)
        notes: list[str] = []
        try:
            rows = {
                "tags": self._tags.rows(data["tags"], notes, (key,)),
                "comments": self._comments.rows(data["comments"], notes, (key,)),
            }
        except RequestFailed as error:
            raise _with_body(error, answer) from None
        return Detail(rows, tuple(notes))

    def logged_in(self, client: Client) -> bool:
        """Whether the API calls us logged in."""
        answer = client.get("/user/loggedin", {})
        if not isinstance(answer.data, dict) or type(answer.data.get("loggedIn")) is not bool:
            raise _with_body(malformed("no word about being logged in"), answer)
        return bool(answer.data["loggedIn"])

    def time_of(self, answer: Answer) -> float | None:
        """The field `ts` of every answer."""
        ts = answer.data.get("ts") if isinstance(answer.data, dict) else None
        return ts if type(ts) is int else None

    def _item_rows(self, answer: Answer, notes: list[str]) -> tuple[list[Row], list[Failure]]:
        """The rows of a listing, one for each id, and a failure for each listed item that cannot be used."""
        data = answer.data
        if not isinstance(data, dict) or type(data.get("items")) is not list:
            raise _with_body(malformed("a page without a list of items"), answer)
        rows: dict[int, Row] = {}
        failures: list[Failure] = []
        for each in data["items"]:
            try:
                row = self._items.row(each, notes)
            except RequestFailed as error:
                try:
                    key = integer(each["id"])
                except (TypeError, KeyError, Unusable):
                    raise _with_body(error, answer) from None
                body = answer.body[:MOST_EVIDENCE]
                failures.append(Failure("item", key, Outcome.MALFORMED, str(error), answer.status, body))
            else:
                rows[row[0]] = row
        impossible = [key for key in (*rows, *map(_id, failures)) if key < 1]
        if impossible:
            # Ids begin at 1: taken for an item, it would prove everything above it.
            raise _with_body(malformed(f"a page with an item of the id {impossible[0]}"), answer)
        return list(rows.values()), failures


def _listed_down(walk: Walk, keys: list[int], at_end: bool, from_top: bool) -> tuple[Interval, Interval]:
    """What a page of a walk downwards lists, and the part of the hole that is left."""
    hole = walk.hole
    if not from_top:
        keys = [key for key in keys if key <= hole.hi]
    _refuse_empty(keys, at_end)
    top = max(keys, default=hole.hi) if from_top else hole.hi
    bottom = hole.lo if at_end else max(hole.lo, min(keys))
    return Interval(bottom, top), Interval(hole.lo, min(hole.hi, bottom - 1))


def _listed_up(walk: Walk, keys: list[int], at_end: bool) -> tuple[Interval, Interval]:
    """What a page of a walk upwards lists, and the part of the hole that is left."""
    hole = walk.hole
    keys = [key for key in keys if key >= hole.lo]
    _refuse_empty(keys, at_end)
    top = max(keys, default=hole.lo - 1)
    if not walk.head:
        top = hole.hi if at_end else min(hole.hi, top)
    return Interval(hole.lo, top), Interval(top + 1, hole.hi)


def _refuse_empty(keys: list[int], at_end: bool) -> None:
    if not keys and not at_end:
        raise malformed("a page without items that is not the last one")


def _id(failure: Failure) -> int:
    return int(failure.key)


def _with_body(error: RequestFailed, answer: Answer) -> RequestFailed:
    error.status, error.body = answer.status, answer.body[:MOST_EVIDENCE]
    return error
