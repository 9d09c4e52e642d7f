"""What a description of a REST API may say: the keys of its TOML, and what is wrong with one, naming the key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

Type = Literal["integer", "real", "text", "boolean", "json"]
Pages = Literal["ids", "cursor", "page", "offset", "token", "next", "link", "one"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Env = Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]*$")]
Header = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
ColumnName = Annotated[str, StringConstraints(pattern=r'^[^"\x00]+$')]
Constant = str | bool | int | float

_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

_SECRET = re.compile(r"(?i)(proxy-)?authorization|cookie|.*(api[-_]?key|token|secret|password).*")
"""Names of headers and parameters whose values are nobody else's business."""

_TAKEN = {"home", "host", "hostname", "lang", "logname", "mail", "path", "pwd", "shell", "term", "tmpdir", "user"}
"""Names that most environments have: a variable of that name would be set without anybody knowing."""

NEEDED: Mapping[str, tuple[str, ...]] = {
    "ids": ("newest",),
    "cursor": ("url", "parameter"),
    "page": ("url", "parameter"),
    "offset": ("url", "parameter"),
    "token": ("url", "parameter", "next"),
    "next": ("url", "next"),
    "link": ("url",),
    "one": ("url",),
}
"""What has to be said where pages are such."""

ALLOWED: Mapping[str, tuple[str, ...]] = {
    "parameter": ("cursor", "page", "offset", "token"),
    "next": ("token", "next"),
    "cursor": ("cursor",),
    "order": ("cursor",),
    "time": ("cursor",),
    "more": ("cursor", "page", "offset"),
    "last": ("page",),
    "first": ("page", "ids"),
    "newest": ("ids",),
    "newest_at": ("ids",),
    "margin": ("ids",),
    "since": ("page", "offset", "token", "next", "link", "one"),
}


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Secret(_Keys):
    """What is sent as a header and comes from the environment alone, or from `.env`."""

    env: Env = Field(description="the environment variable that holds it; it is never logged and never stored")
    prefix: str = Field("", description="what is sent before it")
    required: bool = Field(True, description="whether nothing is asked without it")


class Auth(Secret):
    """The login."""

    header: Header = Field("Authorization", description="the header that it is sent as")


class Signs(_Keys):
    """How to tell an answer: all that is named here has to hold."""

    status: tuple[int, ...] = Field((), description="its status is one of these")
    header: dict[str, str] = Field({}, description="these headers have these values; `*` in one stands for anything")
    body: dict[str, Constant] = Field({}, description="at these paths of its JSON there are these values; `*` as above")
    null: bool = Field(False, description="its JSON is `null`")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.status or self.header or self.body or self.null):
            raise ValueError("status: or header, body, null: nothing tells such an answer")
        return self


class Limit(Signs):
    """How to tell an answer that refuses for now."""

    reset: str | None = Field(
        None,
        description="the header that says when to ask again, in seconds from now or since 1970; `Retry-After` is known",
    )


class Since(_Keys):
    """How to ask for what has changed alone."""

    parameter: str = Field(description="the parameter that takes the time")
    format: Literal["iso", "unix"] = Field("iso", description="how the time is written")


class Listing(_Keys):
    """The list of the items, and how one page leads to the next."""

    pages: Pages = Field(description="how a page leads to the next one")
    url: str | None = Field(None, description="where the list is, below `base_url`")
    params: dict[str, Constant] = Field({}, description="parameters of every request for it")
    items: str = Field(".", description='the path of the items in the body; "." is the body itself')
    item: str = Field(".", description='the path of the item in each of them, as `node`; "." is each itself')
    key: str = Field("id", description="the field that names an item")
    parameter: str | None = Field(None, description="the parameter that takes the cursor, the number or the token")
    next: str | None = Field(None, description="the path of the token or of the next page's address in the body")
    cursor: str | None = Field(
        None, description="the field of the last item that the next page is asked with; else `key`"
    )
    order: Literal["newest", "oldest"] = Field("newest", description="which items come first")
    time: Literal["iso", "unix"] | None = Field(
        None, description="how `cursor` is written where it is a time: coverage counts its seconds then"
    )
    more: str | None = Field(
        None, description="the path of what is true while there are more pages; else an empty page ends"
    )
    last: str | None = Field(
        None, description="the path of the last page's number, as `meta.total_pages`; else an empty page ends"
    )
    first: int = Field(1, description="the first page's number, the lowest id", ge=0)
    size: int | None = Field(None, description="how many items to ask for on a page", ge=1)
    size_parameter: str | None = Field(None, description="the parameter that takes the size")
    newest: str | None = Field(None, description="where the highest id is told, below `base_url`")
    newest_at: str = Field(".", description="the path of the highest id in that body")
    margin: int = Field(0, description="so many of the highest ids are left for the next run", ge=0)
    since: Since | None = Field(None, description="how to ask for what has changed since; else every run lists all")
    version: tuple[str, ...] = Field(
        (), description="fields that change when an item does: its details are fetched again"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in NEEDED[self.pages]:
            if getattr(self, name) is None:
                raise ValueError(f'{name}: is needed where pages = "{self.pages}"')
        for name, styles in ALLOWED.items():
            if name in self.model_fields_set and self.pages not in styles:
                raise ValueError(f'{name}: means nothing where pages = "{self.pages}"')
        if self.time is not None and (self.cursor is None or self.order == "oldest"):
            raise ValueError("time: needs a cursor, the field that has the time, and the newest first")
        if self.pages == "ids" and self.url is not None:
            raise ValueError('url: means nothing where pages = "ids"')
        if self.size_parameter is not None and self.size is None:
            raise ValueError("size: is needed where there is a size_parameter")
        return self


class One(_Keys):
    """The request of its own that an item needs."""

    url: str = Field(description="where it is, below `base_url`; `{key}` is the item's key")
    params: dict[str, Constant] = Field({}, description="parameters of the request")
    item: str | None = Field(
        None,
        description='the path of the item in the body, "." is the body itself; without it the body has child tables',
    )
    columns: dict[ColumnName, Type] = Field({}, description="columns that this request alone gives, with their types")


class Child(_Keys):
    """A table of what belongs to an item."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    from_: str = Field(
        alias="from", description="the path of its list in the item, or in the body of the item's request"
    )
    key: ColumnName | None = Field(None, description="the field that tells its rows apart; else they are numbered")
    columns: dict[ColumnName, Type] = Field({}, description="its columns and their types; of a list of values, one")


class Description(_Keys):
    """All that can be said of an API."""

    name: str = Field(
        "", description="what the source is called; else the name of the file", pattern=r"^[a-z0-9][a-z0-9_-]*$|^$"
    )
    about: str = Field("", description="what it is, for people")
    base_url: str = Field("", description="where the API is; empty, `--base-url` has to say")
    rate: float | None = Field(
        None, description="requests a second at most, unless the user says otherwise", gt=0, allow_inf_nan=False
    )
    delay: float | None = Field(
        None, description="seconds between list pages, unless the user says otherwise", ge=0, allow_inf_nan=False
    )
    variables: dict[Name, str] = Field(
        {}, description="names for `{name}` in what is sent, with defaults; an empty one has to be given"
    )
    headers: dict[Header, str | Secret] = Field({}, description="headers of every request")
    auth: Auth | None = Field(None, description="the login")
    list: Listing = Field(description="the list of the items")
    detail: One | None = Field(None, description="the request of its own that an item needs")
    gone: tuple[Signs, ...] = Field((), description="how to tell that an item is gone, besides 404 and 410")
    limited: tuple[Limit, ...] = Field((), description="how to tell a refusal for now, besides 429")
    table: Name = Field("items", description="the table of the items")
    columns: dict[ColumnName, Type] = Field(
        {}, description="columns of the items and their types; else those of the first page"
    )
    tables: dict[Name, Child] = Field({}, description="child tables by name")

    @field_validator("gone", "limited", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return [value] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.base_url and not self.base_url.startswith(("http://", "https://")):
            raise ValueError("base_url: has to begin with http:// or https://")
        if "@" in urlsplit(self.base_url).netloc:
            raise ValueError("base_url: no login goes into an address; [auth] is a header")
        if self.list.pages == "ids" and self.detail is None:
            raise ValueError('detail: is needed where list.pages = "ids"')
        for name in self.variables:
            if name.lower() in _TAKEN:
                raise ValueError(f"variables.{name}: the environment has {name.upper()} already: take another name")
        for key, text, known in self._texts():
            for place in _PLACE.findall(text):
                if place not in known:
                    raise ValueError(f"{key}: {{{place}}} is not one of the variables")
        for key, url in (
            ("list.url", self.list.url),
            ("list.newest", self.list.newest),
            ("detail.url", self.detail.url if self.detail is not None else None),
        ):
            if url is not None and not url.startswith("/"):
                raise ValueError(f"{key}: has to begin with /, it is below base_url")
        for name, value in self.headers.items():
            if isinstance(value, str) and _SECRET.fullmatch(name):
                raise ValueError(
                    f'headers.{name}: comes from the environment: {{env = "…"}}, a description is no secret'
                )
        for name in self.variables:
            if _SECRET.fullmatch(name):
                raise ValueError(f"variables.{name}: the database remembers variables: a secret is a header, as [auth]")
        for where, asked in (("list", self.list), ("detail", self.detail)):
            own = [name for name, _ in parse_qsl(urlsplit(asked.url or "").query)] if asked is not None else []
            for key, names in (("params", asked.params if asked is not None else {}), ("url", own)):
                for name in names:
                    if _SECRET.fullmatch(name):
                        raise ValueError(f"{where}.{key}.{name}: no secret goes into an address; [auth] is a header")
        for key in ("auth.env", *(f"headers.{name}" for name in self.headers)):
            secret = self.auth if key == "auth.env" else self.headers[key.removeprefix("headers.")]
            if isinstance(secret, Secret) and secret.env.lower() in self.variables:
                raise ValueError(f"{key}: is one of the variables, which are no secrets")
        if self.auth is not None and self.auth.header.lower() in map(str.lower, self.headers):
            raise ValueError("auth.header: is one of the headers too")
        if self.table in self.tables:
            raise ValueError(f"tables.{self.table}: is the table of the items")
        for name, child in self.tables.items():
            if child.key is not None and child.columns and child.key not in child.columns:
                raise ValueError(f"tables.{name}.key: is not one of its columns")
        if self.columns and self.columns.get(self.list.key, "text") not in ("integer", "text"):
            raise ValueError(f"columns.{self.list.key}: is the key, which is integer or text")
        for each in self.list.version:
            if self.columns and each not in self.columns:
                raise ValueError(f"list.version: {each} is not one of the columns")
        return self

    def _texts(self) -> Iterator[tuple[str, str, set[str]]]:
        """Every text that is sent, by its key, and the names that may stand in it."""
        own = set(self.variables)
        yield "list.url", self.list.url or "", own
        yield "list.newest", self.list.newest or "", own
        yield "list.key", self.list.key, own
        yield from ((f"list.params.{name}", str(value), own) for name, value in self.list.params.items())
        if self.detail is not None:
            yield "detail.url", self.detail.url, own | {"key"}
            yield from ((f"detail.params.{name}", str(v), own | {"key"}) for name, v in self.detail.params.items())
        yield from ((f"headers.{name}", value, own) for name, value in self.headers.items() if isinstance(value, str))

    @property
    def secrets(self) -> dict[str, Secret]:
        """By the header that each is sent as."""
        found = {name: value for name, value in self.headers.items() if isinstance(value, Secret)}
        return found if self.auth is None else {**found, self.auth.header: self.auth}


def filled(text: str, values: Mapping[str, str]) -> str:
    """A text with values in place of `{name}`."""
    return _PLACE.sub(lambda found: values.get(found[1], found[0]), text)


def at(data: Any, path: str) -> Any:
    """What is at a path (`meta.next`) of decoded JSON, None where there is nothing; "." is all of it."""
    if path == ".":
        return data
    for name in path.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    return data


def has(data: Any, path: str) -> bool:
    """Whether there is anything at a path, be it null."""
    above, _, name = path.rpartition(".")
    found = at(data, above or ".")
    return isinstance(found, dict) and name in found
