"""Files: JSON, NDJSON and Parquet, STAC or not, in folders or by name, packed with gzip or zstandard.

A file is read when it is new, when its size or its time has changed, and when its run was cut short; every item in it
is a row. A file that is there no more is told by `unlisted_at`, and its items stay.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.model import (
    Column,
    Detail,
    Generated,
    Gone,
    Interval,
    Outcome,
    Page,
    Row,
    Scope,
    Start,
    Table,
    View,
    Walk,
)
from fetcher.settings import SourceOptions, option
from fetcher.sources.files.listing import Blind, File, files
from fetcher.sources.files.names import path_of, shown, text_of
from fetcher.sources.files.reading import read_files

PAGE_SIZE = 1000

FILES = Table(
    "files",
    (
        Column("path", "text", required=True),
        Column("root", "text", required=True),
        Column("size", "integer"),
        Column("mtime_ns", "integer"),
        Column("type", "text"),
    ),
    in_scope='"root" = :scope',
    version=("size", "mtime_ns"),
)
ITEMS = Table(
    "items",
    (Column("number", "integer", required=True), Column("id", "text"), Column("json", "json", required=True)),
    parent="file",
    generated=(
        Generated("type", "text", "json", "$.type"),
        Generated("collection", "text", "json", "$.collection"),
        Generated("datetime", "text", "json", "$.properties.datetime"),
        Generated("start_datetime", "text", "json", "$.properties.start_datetime"),
        Generated("end_datetime", "text", "json", "$.properties.end_datetime"),
        Generated("bbox", "text", "json", "$.bbox"),
        Generated("geometry", "text", "json", "$.geometry"),
        Generated("platform", "text", "json", "$.properties.platform"),
        Generated("eo:cloud_cover", "real", "json", '$.properties."eo:cloud_cover"'),
    ),
    index=("id",),
)
VIEWS = (
    View(
        "assets",
        "SELECT items.file, items.number, items.id AS item, asset.key AS asset,"
        " asset.value ->> '$.href' AS href, asset.value ->> '$.type' AS type, asset.value ->> '$.title' AS title,"
        " asset.value -> '$.roles' AS roles, asset.value AS json"
        " FROM items, json_each(items.json, '$.assets') AS asset",
        postgres="SELECT items.file, items.number, items.id AS item, asset.key AS asset,"
        " asset.value ->> 'href' AS href, asset.value ->> 'type' AS type, asset.value ->> 'title' AS title,"
        " asset.value -> 'roles' AS roles, asset.value AS json FROM items CROSS JOIN LATERAL json_each(CASE"
        " json_typeof(items.json -> 'assets') WHEN 'object' THEN items.json -> 'assets' ELSE '{}' END) AS asset",
    ),
    View(
        "collections",
        "SELECT id, json ->> '$.title' AS title, json ->> '$.license' AS license, json -> '$.extent' AS extent,"
        " file, number, json FROM items WHERE type = 'Collection'",
        postgres="SELECT id, json ->> 'title' AS title, json ->> 'license' AS license, json -> 'extent' AS extent,"
        " file, number, json FROM items WHERE type = 'Collection'",
    ),
    View(
        "duplicates",
        "SELECT collection, id, count(*) AS copies, json_group_array(file) AS files FROM items"
        " WHERE id IS NOT NULL GROUP BY collection, id HAVING count(*) > 1",
        postgres="SELECT collection, id, count(*) AS copies, json_agg(file) AS files FROM items"
        " WHERE id IS NOT NULL GROUP BY collection, id HAVING count(*) > 1",
    ),
)


class Files:
    """Items in files of this machine."""

    name = "files"
    base_url = None
    tables = (FILES, ITEMS)
    views = VIEWS
    walks = 1
    page_size = PAGE_SIZE
    lists_anew = True
    # Reading is work for the processor, which threads share: more of them wait for each other.
    most_workers = 1
    # A file is soon read again, and waiting for the disk after every few would take longer than reading them.
    transaction = 1000
    batch = 100

    class Options(SourceOptions):
        """What can be asked of files."""

        file_paths: Annotated[tuple[str, ...] | None, NoDecode] = Field(
            None,
            description="folders and files to read, with a colon between two; the command line takes them as arguments",
            json_schema_extra={"arguments": True},
        )
        source_type: Literal["json", "ndjson", "parquet", "stac"] | None = option(
            None,
            "--source-type",
            "what the files are, instead of finding out; stac: follow the links of every catalogue",
        )

        @field_validator("file_paths", mode="before")
        @classmethod
        def _split(cls, value: Any) -> Any:
            return tuple(each for each in value.split(os.pathsep) if each) if isinstance(value, str) else value

    def __init__(self, options: Options) -> None:
        self._said = options.source_type
        self._roots = _roots(options.file_paths or ())

    @classmethod
    def options_for(cls, scopes: Sequence[Scope]) -> dict[str, Any]:
        """The options with which a mirror of these scopes was made."""
        return {"file_paths": tuple(path_of(str(scope)) for scope in scopes)}

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """One scope for each folder or file given."""
        return tuple(map(text_of, self._roots))

    def start_text(self, start: Start) -> str:  # noqa: ARG002
        """What is read, as a person is told."""
        named = ", ".join(map(shown, self._roots[:3]))
        return f"Reading files: {named}" + (f" and {len(self._roots) - 3:,} more" if len(self._roots) > 3 else "")

    @staticmethod
    def position_text(position: int) -> str:  # noqa: ARG004
        """There are no positions within a folder: it is listed as a whole."""
        return "all"

    def universe(self, client: object) -> Mapping[Scope, Interval]:  # noqa: ARG002
        """Each root is there as a whole or not at all. Raises ConfigurationError when one is not there."""
        if not self._roots:
            raise ConfigurationError("FILE_PATHS (PATH): name the folders and files to read")
        for root in self._roots:
            try:
                mode = os.stat(root).st_mode  # noqa: PTH116
                if stat.S_ISDIR(mode):
                    os.scandir(root).close()
            except OSError as error:
                raise ConfigurationError(f"{shown(root)}: {os.strerror(error.errno or 0)}") from None
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                raise ConfigurationError(f"{shown(root)}: no regular file and no folder")
        return {text_of(root): Interval(0, 0) for root in self._roots}

    def page(self, client: object, walk: Walk) -> Page:  # noqa: ARG002
        """Some of the files of one root; the last page proves that there are no others."""
        (scope,) = walk.scopes
        listing, _ = walk.at or (_Listing(path_of(str(scope)), linked=self._said == "stac"), 0)
        rows: dict[str, Row] = {}
        notes: list[str] = []
        ended = True
        listing.pages += 1
        for each in listing.found:
            if isinstance(each, File):
                row = each.row(str(scope))
                rows[row[0]] = row
            elif isinstance(each, Blind):
                listing.whole = False
                notes.append(f"{shown(each.path)}: {each.error}")
                rows[text_of(each.path)] = (text_of(each.path), str(scope), None, None, each.kind, None)
            else:
                notes.append(each.message)
            if len(rows) >= PAGE_SIZE:
                ended = False
                break
        return Page(
            rows=tuple(rows.values()),
            scopes=walk.scopes,
            proven=Interval(0, 0) if ended else None,
            next=None if ended else walk.after(at=(listing, listing.pages), label=shown(listing.root)),
            notes=tuple(notes),
            # A page that holds all there is needs no clock to tell what is not listed any more.
            began=listing.began if ended and listing.pages > 1 else None,
            whole=listing.whole,
        )

    def details(self, client: object, keys: Sequence[str]) -> Mapping[str, Detail | Gone | Exception]:  # noqa: ARG002
        """The items of some files."""
        return read_files(keys, self._said)


class _Listing:
    """One root that is being listed: where it is, since when, and whether all of it could be looked into."""

    def __init__(self, root: str, *, linked: bool) -> None:
        self.root = root
        self.began = time.time()
        self.whole = True
        self.pages = 0
        try:
            self.found = files(root, linked=linked)
        except OSError as error:
            raise RequestFailed(Outcome.UNAVAILABLE, f"{shown(root)}: {os.strerror(error.errno or 0)}") from None


def _roots(paths: Sequence[str]) -> list[str]:
    """Absolute paths, each once, and none that lies within another."""
    found = sorted({os.path.abspath(path) for path in paths})  # noqa: PTH100
    roots: list[str] = []
    for path in found:
        if not any(path.startswith(os.path.join(root, "")) for root in roots):  # noqa: PTH118
            roots.append(path)
    return roots
