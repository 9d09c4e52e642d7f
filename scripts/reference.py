"""Writes docs/reference/ and template.env from the code, so that they say what the code does.

Run it from anywhere: .venv/bin/python scripts/reference.py
"""

from __future__ import annotations

import ast
import inspect
import re
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from types import NoneType
from typing import Any, get_args

import click
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fetcher
from fetcher import errors
from fetcher.cli import EXIT_CODES, cli
from fetcher.place import Place
from fetcher.service.settings import ServiceSettings
from fetcher.settings import Settings
from fetcher.sources import Defaults, Source, find, of, registry
from fetcher.sources.rest import shipped
from fetcher.sources.rest.description import (
    NEEDED,
    Auth,
    Child,
    Description,
    Limit,
    Listing,
    One,
    Pages,
    Signs,
    Since,
)
from fetcher.stores.sqlite import SqliteStore
from fetcher.stores.texts import open_texts
from fetcher.texts.settings import LATENCY_LOWER_THRESHOLD, LATENCY_UPPER_THRESHOLD, TextSettings

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 100
MADE = "<!-- Made from the code by scripts/reference.py: change the code, then run it. -->\n\n"


@cache
def files() -> Mapping[str, str]:
    """Every file that is made from the code: its path below the project's folder, and its text."""
    return {
        "docs/reference/settings.md": MADE + settings_page(),
        "docs/reference/commands.md": MADE + commands_page(),
        "docs/reference/database.md": MADE + database_page(),
        "docs/reference/errors.md": MADE + errors_page(),
        "docs/reference/sources.md": MADE + sources_page(),
        "docs/reference/descriptions.md": MADE + descriptions_page(),
        "template.env": template(),
    }


def sources() -> Mapping[str, type[Source]]:
    """The sources that come with fetcher; others may be installed beside it, and are not ours to describe."""
    return {name: kind for name, kind in registry().items() if kind.__module__.startswith("fetcher.")}


# --- settings ---------------------------------------------------------------------------------------


def settings_page() -> str:
    parts = [
        "# Settings\n\n"
        "A setting is given as an option of the command line, as an environment variable, or as a line in the file"
        " `.env` of the current folder, in this order of precedence. In the library it is a keyword argument of"
        " `fetch` in lower case. A name in `.env` that is no setting is reported and ignored. `template.env` holds"
        " all of them, ready to be copied.\n\n"
        "## Engine\n\nThese hold for every source.\n\n" + settings_table(Settings),
        "\n## Texts\n\nOf `fetcher ingest` and `fetcher embed`: how documents are read, embedded and written out."
        " Those of the engine hold too; `LATENCY_LOWER_THRESHOLD` and `LATENCY_UPPER_THRESHOLD`, where they are unset,"
        f" are {LATENCY_LOWER_THRESHOLD:g} and {LATENCY_UPPER_THRESHOLD:g} here.\n\n" + settings_table(TextSettings),
        "\n## Service\n\nOf `fetcher serve`: where it listens, who may ask, how fast ids are worked off. Those of the"
        " engine and of the source hold too.\n\n" + settings_table(ServiceSettings),
    ]
    parts += [
        f"\n## Source `{name}`\n\n{doc(kind.Options)}\n\n{settings_table(kind.Options)}"
        for name, kind in sources().items()
    ]
    return "".join(parts)


def settings_table(model: type[BaseSettings]) -> str:
    return table(
        ("setting", "option", "default", "values", "meaning"),
        (
            (
                code(name.upper()),
                code(option(field)),
                "the source's own address" if name == "api_base_url" else code(default(field)),
                values(field),
                sentence(field.description),
            )
            for name, field in model.model_fields.items()
        ),
    )


def option(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra["option"]) if isinstance(extra, dict) and "option" in extra else ""


def secret(field: FieldInfo) -> bool:
    return SecretStr in _kinds(field)


def _kinds(field: FieldInfo) -> tuple[object, ...]:
    """The types that a value may have, or each of several values."""
    kinds = get_args(field.annotation) or (field.annotation,)
    return tuple(kind for kind in kinds if kind not in (NoneType, Ellipsis))


def default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value == () or secret(field):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def values(field: FieldInfo) -> str:
    kinds = _kinds(field)
    if all(isinstance(kind, str) for kind in kinds):
        return ", ".join(code(str(kind)) for kind in kinds)
    limits = {
        name: getattr(each, name) for each in field.metadata for name in ("ge", "gt", "le") if hasattr(each, name)
    }
    names = {
        int: "whole number",
        float: "number",
        bool: "`true` or `false`",
        Path: "path",
        Place: "path or URL",
        SecretStr: "text, secret",
    }
    name = names.get(kinds[0], "text")
    words = {"ge": "at least", "gt": "more than", "le": "at most"}
    bounds = [f"{words[limit]} {value:,}" for limit, value in limits.items()]
    return ", ".join([name, *bounds])


def template() -> str:
    lines = [
        "# Settings of fetcher: copy this file to .env, take the # away where you want another value.",
        "# The option of the command line and the environment come before what is set here.",
        "# Made from the code by scripts/reference.py; explained in docs/reference/settings.md.",
    ]
    groups = {
        "Engine": Settings,
        "Texts": TextSettings,
        "Service": ServiceSettings,
        **{f"Source {name}": kind.Options for name, kind in sources().items()},
    }
    for group, model in groups.items():
        lines += ["", f"# --- {group} " + "-" * (70 - len(group))]
        for name, field in model.model_fields.items():
            given = f'"{default(field)}"' if " " in default(field) else default(field)
            lines += ["", *comment(field), f"#{name.upper()}={given}"]
    return "\n".join(lines) + "\n"


def comment(field: FieldInfo) -> Iterator[str]:
    facts = "; ".join(each for each in (values(field).replace("`", ""), option(field)) if each)
    line = "#"
    for word in f"{sentence(field.description)} ({facts})".split():
        if len(line) + len(word) > WIDTH:
            yield line
            line = "#"
        line += f" {word}"
    yield line


# --- commands ---------------------------------------------------------------------------------------


def commands_page() -> str:
    parts = [
        "# Commands\n\n"
        "`python -m fetcher` is the same as `fetcher`. An error is one line on stderr, and the exit code says its"
        f" kind.\n\n{help_of(cli, 'fetcher')}"
    ]
    parts += [help_of(command, f"fetcher {name}") for name, command in commands().items()]
    codes = ((code(number), meaning) for number, meaning in exit_codes().items())
    return "\n".join([*parts, "## Exit codes\n", "Of every command.\n", table(("code", "meaning"), codes)])


def commands() -> dict[str, click.Command]:
    assert isinstance(cli, click.Group)
    context = click.Context(cli)
    found = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def help_of(command: click.Command, name: str) -> str:
    parent = click.Context(cli, **cli.context_settings, terminal_width=WIDTH)
    context = parent if command is cli else click.Context(command, parent=parent, terminal_width=WIDTH)
    context.info_name = name
    # The parent's name is part of ours already.
    context.parent = None
    formatter = click.HelpFormatter(width=WIDTH, max_width=WIDTH)
    command.format_help(context, formatter)
    text = re.sub(r"\n+ *Exit codes:\n(?: +\d+ .*\n?)*", "\n", formatter.getvalue())
    lines = "\n".join(line.rstrip() for line in text.rstrip().splitlines())
    return f"## `{name}`\n\n```text\n{lines}\n```\n"


def exit_codes() -> dict[str, str]:
    """Each exit code of the command line and what it means."""
    return dict(re.findall(r"^ +(\d+) +(.+)$", EXIT_CODES, re.MULTILINE))


# --- the database -----------------------------------------------------------------------------------

TABLES = {
    "items": "One row for each item of the source, under the API's own names.",
    "tags": "The tags of the items; those of an item are replaced as a set. The index `tags_tag` is made when a run"
    " ends complete, and dropped while much is fetched.",
    "comments": "The comments on the items; those of an item are replaced as a set.",
    "coverage": "Which stretches of ids, or of time, are proven listed; merged where they touch.",
    "walks": "Where a list goes on that was walked by an interrupted run, and proves nothing before it has ended.",
    "work": "What is still to do: the queue of the mirror, and of the stages that texts go through.",
    "failures": "The last evidence of each key that failed; gone once its work succeeds.",
    "runs": "One row for each run of `fetcher fetch`, and for each stage of a run of `fetcher ingest` or"
    " `fetcher embed`; the row of a run that goes on is at most some 10 s old.",
    "jobs": "What was submitted to `fetcher serve`: one row for each submission. A batch is `yet_to_start`,"
    " `triggered` or `completed`; ids are stored, gone, failed or cancelled, or have not ended yet.",
    "job_batches": "The batches of each job: ids that become `work` together, when their turn comes.",
    "job_work": "Ids of batches that were triggered, and have not ended.",
    "job_failures": "How ids ended that were not stored: gone, or failed for good.",
    "sources": "The one source that this database mirrors, with its totals; `texts` where it holds texts alone.",
    "top_tags": "View: how many items have each tag, the most used first.",
    "items_with_tags": "View: the items, each with its tags and the number of its comments.",
    "recent": "View: the 100 newest items that are fetched, not gone and still listed.",
    "search": "Full-text search (FTS5) over the texts of `search_text`: `where search match 'words'`, best first with"
    " `order by rank`. Its `rowid` is the item. It holds no text itself but the words and their places, in tables"
    " `search_…` of its own.",
    "search_text": "View: the texts of each fetched item that are searched; `search` reads its snippets from it.",
    "documents": "What texts are read from: files, or items of the mirror.",
    "chunks": "The pieces that documents are cut into. Those of a document that is listed no more are kept.",
    "vectors": "The vector of each text, little-endian float32. A text that stands in many places has one.",
    "models": "The one model that all vectors are of; no row while there are none.",
    "categories": "The domains and categories of the chunks: which have changed since their files were written.",
    "stages": "How much each stage of texts has to do and has done, kept with each batch.",
    "chunks_search": "Full-text search (FTS5) over the chunks: `where chunks_search match 'words'`, best first with"
    " `order by rank`. Its `rowid` is `chunks.number`. It holds no text itself but the words and their places, in"
    " tables `chunks_search_…` of its own.",
    "_sqlite_migrations": "Which steps of the schema this database has been through; kept by sqlite-utils.",
    "stac.items": "One row for each item, of all collections.",
    "stac.assets": "The assets of the items; those of an item are replaced as a set.",
    "stac.collections": "The collections of the catalogue that were mirrored.",
    "stac.stac_items": "View: the items as the API gave them, each one JSON object.",
    "stac.per_collection": "View: how many items of each collection are listed, and from when to when.",
    "files.files": "One row for each file; a new `size` or `mtime_ns` has it read again.",
    "files.items": "The items in the files, each as it stands there; those of a file are replaced as a set. What stands"
    " in several files is here several times. The columns from `type` on are read out of `json` when asked for.",
    "files.assets": "View: the assets of all STAC items, one a row.",
    "files.collections": "View: the STAC collections among the items.",
    "files.duplicates": "View: items that stand in several files, or several times in one.",
}
"""What each table or view is for; `SOURCE.TABLE` where two sources have one of that name."""

SHADOWS = tuple(
    f"{name}_{part}" for name in ("search", "chunks_search") for part in ("data", "idx", "docsize", "config")
)
"""Tables that FTS5 makes for itself."""

OWNERS = {"texts": "texts (`fetcher ingest`, `fetcher embed`)"}
"""What has tables of its own and is no source."""

LIFE = {
    "extra": "JSON object of everything else that the API sent for this row, null if nothing",
    "first_seen_at": "when a listing first named it",
    "listed_at": "when a listing last named it",
    "fetched_at": "when its details were last stored, null = not yet",
    "unlisted_at": "when a listing of its stretch no longer named it, null = listed",
    "gone_at": "when its own request said that it is no more, null = it never did",
}

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "items": {
        "id": "its number; newer items have higher ones",
        "promoted": "its number on the top page, 0 = never there; above 1,000,000,000 = pinned",
        "userId": "the uploader's number; absent from old answers",
        "up": "votes for it",
        "down": "votes against it",
        "created": "when it was uploaded",
        "image": "path of the image or video on the image host",
        "thumb": "path of its thumbnail",
        "fullsize": "path of the full-size image, empty if there is none",
        "preview": "path of a short preview of a video",
        "width": "pixels",
        "height": "pixels",
        "audio": "1 = a video with sound",
        "source": "where the uploader says it is from",
        "flags": "its kind: 1 sfw, 2 nsfw, 4 nsfl, 8 nsfp, 16 pol",
        "user": "the uploader's name",
        "mark": "the uploader's rank, a number of the API's own",
        "gift": "a number of the API's own",
        "deleted": "1 = the API calls it deleted; sent with some items only",
        "repost": "1 = marked as a repost",
        "variants": "JSON list of other encodings of a video",
        "subtitles": "JSON list of subtitle files",
        **LIFE,
    },
    "tags": {
        "item_id": "the item (`items.id`)",
        "id": "the number of this tag on this item",
        "tag": "its text",
        "confidence": "how sure the votes make it, 0 to 1 (lower bound of a Wilson interval)",
        "extra": LIFE["extra"],
    },
    "comments": {
        "item_id": "the item (`items.id`)",
        "id": "the comment's number",
        "parent": "the comment that it answers (`comments.id`), 0 = none",
        "content": "its text, plain",
        "created": "when it was written",
        "up": "votes for it",
        "down": "votes against it",
        "confidence": "how sure the votes make it, 0 to 1 (lower bound of a Wilson interval)",
        "name": "the author's name",
        "mark": "the author's rank, a number of the API's own",
        "extra": LIFE["extra"],
    },
    "stac.items": {
        "key": "collection and id, with `/` between; `/` and `%` in the collection are escaped",
        "collection": "the collection (`collections.id`)",
        "id": "its id, unique within its collection",
        "time": "its datetime, or else its start, in Unix seconds; null = it has neither",
        "west": "of the bounding box, degrees; likewise `south`, `east`, `north`",
        "south": "of the bounding box",
        "east": "of the bounding box; less than `west` where it crosses the antimeridian",
        "north": "of the bounding box",
        "bbox": "the whole bounding box, a JSON list of four or six numbers",
        "geometry": "GeoJSON; null = it has none",
        "properties": "all its properties, a JSON object",
        "links": "JSON list",
        "stac_version": "the version of the specification that it follows",
        "stac_extensions": "JSON list of addresses",
        **LIFE,
        "datetime": "of `properties`: RFC 3339 text; null for an item that lasts from start to end",
        "start_datetime": "of `properties`",
        "end_datetime": "of `properties`",
        "created": "of `properties`: when the item was made",
        "updated": "of `properties`: when the item was changed last",
        "platform": "of `properties`",
        "constellation": "of `properties`",
        "instruments": "of `properties`, a JSON list",
        "gsd": "of `properties`: metres on the ground for each pixel",
        "cloud_cover": "of `properties`, `eo:cloud_cover`: percent",
        "epsg": "of `properties`, `proj:epsg`",
    },
    "stac.assets": {
        "item": "the item (`items.key`)",
        "key": "its name within the item",
        "asset": "all of it, a JSON object",
        "extra": "always null",
        "href": "of `asset`: its address, as the API gave it",
        "type": "of `asset`: its media type",
        "title": "of `asset`",
        "roles": "of `asset`, a JSON list",
    },
    "stac.collections": {
        "id": "its id",
        "title": "a short name",
        "description": "what it is, in Markdown",
        "license": "its licence, an SPDX name or `other`",
        "keywords": "JSON list",
        "providers": "JSON list of who made and keeps it",
        "extent": "JSON object: where and when its items are said to be",
        "summaries": "JSON object of what its items have in common",
        "assets": "JSON object of assets of the collection itself",
        "item_assets": "JSON object of the assets that its items have",
        "links": "JSON list",
        "stac_version": "the version of the specification that it follows",
        "stac_extensions": "JSON list of addresses",
        "extra": LIFE["extra"],
    },
    "stac.stac_items": {
        "key": "`items.key`",
        "collection": "the collection",
        "id": "its id",
        "time": "`items.time`",
        "item": "the item, a JSON object",
    },
    "stac.per_collection": {
        "collection": "the collection",
        "items": "how many are listed",
        "first": "the lowest `datetime`",
        "last": "the highest `datetime`",
    },
    "files.files": {
        "path": "its absolute path; its `file://` address where it holds bytes that are no UTF-8",
        "root": "the folder or file given that it was found below",
        "size": "bytes, when it was listed",
        "mtime_ns": "when it was last modified, in Unix nanoseconds, when it was listed",
        "type": "what its name says that it is: `json`, `ndjson` or `parquet`, with `.gz` or `.zst` where it is packed;"
        " `folder` = one that cannot be looked into; null = its name says nothing",
        **LIFE,
        "extra": "always null",
        "listed_at": "when a listing last found it",
        "fetched_at": "when its items were last stored, null = not yet",
        "unlisted_at": "when it was no longer found, null = it was",
        "gone_at": "when it was found missing on being read, null = it never was",
    },
    "files.items": {
        "file": "the file (`files.path`)",
        "number": "where it is in its file, from 1: the line of NDJSON, the place in a list, the row of Parquet",
        "id": "its `id` as text, null if it has none",
        "json": "all of it, as it stands in the file",
        "extra": "always null",
        "type": "its `type`: `Feature` for a STAC item, `Collection`, `Catalog`",
        "collection": "its `collection`",
        "datetime": "its `properties.datetime`",
        "start_datetime": "its `properties.start_datetime`",
        "end_datetime": "its `properties.end_datetime`",
        "bbox": "its `bbox`, JSON",
        "geometry": "its `geometry`, GeoJSON",
        "platform": "its `properties.platform`",
        "eo:cloud_cover": "its `properties.eo:cloud_cover`, percent",
    },
    "files.assets": {
        "file": "the file (`files.path`)",
        "number": "where the item is in its file (`items.number`)",
        "item": "the item's id",
        "asset": "the asset's key",
        "href": "where it is",
        "type": "its media type",
        "title": "its title",
        "roles": "JSON list of its roles",
        "json": "all of it",
    },
    "files.collections": {
        "id": "its id",
        "title": "its title",
        "license": "its license",
        "extent": "its extent, JSON",
        "file": "the file (`files.path`)",
        "number": "where it is in its file (`items.number`)",
        "json": "all of it",
    },
    "files.duplicates": {
        "collection": "the collection of the items",
        "id": "their id",
        "copies": "how many there are",
        "files": "JSON list of the files that they stand in",
    },
    "top_tags": {
        "tag": "its text",
        "items": "how many items have it",
    },
    "recent": {
        "id": "the item (`items.id`)",
        "created": "when it was uploaded, as text, UTC",
        "user": "the uploader's name",
        "score": "votes for it less those against it",
        "tags": "JSON list of its tags, the most certain first",
        "comments": "how many comments are stored",
        "image": "path of the image or video on the image host",
    },
    "search": {
        "comments": "words in comments",
        "tags": "words in tags",
    },
    "search_text": {
        "id": "the item (`items.id`)",
        "comments": "its comments, each on lines of its own, in the order of their ids",
        "tags": "its tags, one a line, in the order of their ids",
    },
    "coverage": {
        "source": "the source",
        "scope": "what was listed: for pr0gramm one content-flag bit, for stac a collection and what is searched in it",
        "sweep": "the sweep that proved it",
        "lo": "lowest position of the stretch, included: an id, or for stac a Unix second",
        "hi": "highest position of the stretch, included",
        "items": "how many items are listed in it",
        "walked_at": "when the oldest part of it was listed",
    },
    "work": {
        "source": "the source",
        "stage": "`detail`: its details are to be asked for; `item`: its row in a listing could not be used;"
        " `list`: a stretch could not be listed; of texts `read`, `read-items`, `embed` or `aggregate`",
        "key": "the item's key; of a stretch where it begins; of texts the document's name, the hash of a text, or"
        " domain and category as a JSON list",
        "priority": "higher first: 0 = never fetched, -1 = to be fetched anew",
        "attempts": "tries that failed so far",
        "due_at": "not to be tried before this time, 0 = at once, null = set aside, failed for good",
        "outcome": "how the last try ended, null = not tried yet",
        "error": "the last try's error in a line",
    },
    "failures": {
        "source": "the source",
        "stage": "the step that failed",
        "key": "the key in `work`",
        "outcome": "`denied`, `unavailable` or `malformed`",
        "message": "what was wrong",
        "status": "HTTP status of the answer, null = no answer came",
        "body": "the answer's body, at most 64 KiB",
        "attempts": "tries that failed so far",
        "failed_at": "when it failed last",
    },
    "walks": {
        "source": "the source",
        "scope": "the scope whose list is walked",
        "token": "what the next page is asked for with, how many there were, and since when, a JSON object",
        "kept_at": "when that page was stored",
    },
    "runs": {
        "id": "the run's number",
        "source": "the source",
        "stage": "`detail` for a run of a mirror, or the stage of texts",
        "pid": "the process that runs it, or ran it",
        "plan": "JSON object of what it was asked to do",
        "started_at": "when it began",
        "updated_at": "when this row was last written",
        "ended_at": "when it ended, null = it goes on, or died",
        "ended": "`complete`, `limit reached`, `interrupted`, `failed` or `died`; null = it goes on, or died",
        "message": "the error that ended it",
        "pages": "listing pages stored",
        "listed": "items on those pages",
        "new": "those of them that were not stored before",
        "stored": "items whose details were stored",
        "gone": "items that the API no longer has",
        "failed": "items set aside as failed",
        "retries": "tries that failed and were put off",
        "requests": "requests of all kinds",
        "limited": "requests that the API refused because there were too many",
        "queued": "work that was due or waiting at the last write",
        "left": "items still to fetch, an estimate while listing goes on",
        "rate": "items a second, over about the last minute",
        "paused_until": "until when all requests wait, null = no pause",
        "reason": "why they wait",
        "rows": "rows written: items, and what belongs to them",
        "totals": "what the network did, a JSON object: outcomes, latency (p50, p90, p99), pauses, pace, gate",
    },
    "jobs": {
        "number": "its place in the order of submission",
        "id": "the `ingestion_id`, a UUID",
        "source": "the source",
        "priority": "1 LOW, 2 MEDIUM, 3 HIGH",
        "idempotency_key": "the `Idempotency-Key` it was submitted with, null = none",
        "digest": "SHA-256 of what was submitted with that key",
        "created_at": "when it was submitted",
        "started_at": "when its first batch was triggered",
        "finished_at": "when its last batch was completed, null = it goes on",
        "ids": "how many ids it has",
        "batches": "how many batches it has",
        "waiting": "how many of them wait for their turn",
        "triggered": "how many of them are under way",
        "stored": "ids that were fetched",
        "gone": "ids of which the API says that there is no such item",
        "failed": "ids that failed for good",
        "cancelled": "ids that were taken back before they were triggered",
    },
    "job_batches": {
        "job": "the job (`jobs.number`)",
        "number": "its place in the job, from 0",
        "ids": "its ids, a JSON list",
        "retry": "those of them that are asked for when it is triggered, a JSON list; null = all",
        "status": "`yet_to_start`, `triggered` or `completed`",
        "triggered_at": "when its ids last became work",
        "finished_at": "when the last of them had ended",
        "size": "how many ids it has",
        "stored": "ids that were fetched",
        "gone": "ids of which the API says that there is no such item",
        "failed": "ids that failed for good",
        "cancelled": "ids that were taken back before they were triggered",
    },
    "job_work": {
        "key": "the id",
        "job": "the job (`jobs.number`)",
        "batch": "the batch (`job_batches.number`)",
    },
    "job_failures": {
        "job": "the job (`jobs.number`)",
        "batch": "the batch (`job_batches.number`)",
        "key": "the id",
        "outcome": "`gone`, `denied`, `unavailable` or `malformed`",
        "message": "what came instead",
        "attempts": "how often it was asked for",
        "ended_at": "when it ended",
    },
    "sources": {
        "name": "the source",
        "base_url": "the address of its API that was used last",
        "created_at": "when this database was made",
        "sweep": "the number of the present sweep: one listing of everything there is",
        "sweep_started_at": "when it began, 0 = with the database",
        "sweep_ended_at": "when it was complete, null = it is open",
        "items": "rows in the table of items",
        "fetched": "those of them whose details are stored",
        "work": "rows of `work` that are due or wait for their time",
        "parked": "rows of `work` that failed for good",
        "scopes": "what any run was asked to cover (content flags), a JSON list; `fetcher verify` wants all of it",
        "options": "what the last run asked of its source, JSON without secrets; `fetcher retry` asks it again",
        "wanted": "the positions that runs were to cover in each scope, a JSON list of [scope, lowest, highest]",
        "description": "what the source was made from, of a described REST API as JSON; it holds no secret",
        "learned": "what each host was found to allow, a JSON object by host, for the next run",
        "batch_triggered_at": "when `fetcher serve` last triggered a batch",
        "search_filled_to": "null = all fetched items are in `search`; a number = so far it is filled with the items up"
        " to this id that were fetched before there was a search",
    },
    "documents": {
        "number": "its number",
        "name": "the file's absolute path, or the item as `TABLE/KEY`",
        "item": "the item's key, null for a file",
        "version": "what it was when it was read, and how it was read; another has it read again, null = not read yet",
        "chunks": "how many chunks it was read into",
        "first_seen_at": "when it was first listed",
        "listed_at": "when it was listed last",
        "read_at": "when it was read last, null = not yet",
        "unlisted_at": "when it was found to be there no more, null = it is there",
    },
    "chunks": {
        "number": "its number, and the `rowid` in `chunks_search`",
        "id": "a UUID made from the document's name and the position",
        "document": "the document (`documents.number`)",
        "position": "its place in the document, from 0",
        "text": "its text",
        "hash": "of the text (`vectors.hash`)",
        "domain": "what it is grouped by first",
        "category": "what it is grouped by within its domain",
        "source_book": "the title of the book that it is from",
        "source_chapter": "the chapter or heading that it is from",
    },
    "vectors": {
        "hash": "of the text (`chunks.hash`)",
        "vector": "four bytes for each dimension (`models.dimension`)",
    },
    "models": {
        "name": "its name, with all that changes its vectors",
        "dimension": "numbers in a vector",
        "recorded_at": "when its first vectors were stored",
    },
    "categories": {
        "domain": "the domain (`chunks.domain`)",
        "category": "the category (`chunks.category`)",
        "changes": "goes up with every change to its chunks",
        "written": "the value of `changes` that its file holds, 0 = never written",
    },
    "stages": {
        "source": "the source",
        "stage": "`read`: files; `read-items`: items of the mirror; `embed`: texts; `aggregate`: categories",
        "work": "rows of `work` that are due or wait for their time",
        "parked": "rows of `work` that failed for good",
        "done": "how much was ever done",
    },
    "chunks_search": {
        "text": "words in the text",
        "source_chapter": "words in the chapter or heading",
    },
    "_sqlite_migrations": {
        "id": "a running number",
        "migration_set": "always `fetcher`",
        "name": "the step",
        "applied_at": "when it was done (UTC, text)",
    },
}


COLUMNS = {
    **COLUMNS,
    "items_with_tags": {
        **COLUMNS["items"],
        "tags": "JSON list of its tags, the most certain first",
        "comments": "how many comments are stored",
    },
}


def database_page() -> str:
    parts = [
        "# Database\n\n"
        "A mirror is one SQLite file in WAL mode, and so are texts, alone or beside a mirror. It can be read with any"
        " SQLite tool while a run writes it."
        " All times are Unix seconds, and booleans are 0 or 1. A field of the API that does not fit its column is"
        " null there and kept in `extra`. Beside `FILE` lie `FILE-wal` and `FILE-shm` while it is open, and"
        " `FILE.lock`, which keeps a second run out and may stay.\n\n"
        "A mirror in [PostgreSQL](../how-to/postgresql.md) has the same tables and columns, and two more: `engines`"
        " names the run that writes it (`id`, `host`, `pid`, `begun_at`, `seen_at`, and `commits`, the transactions"
        " that it has come to the end of), `fetcher_migrations` the steps that its schema has been through.\n\n"
        "In the tables below `key` is the column's place in the primary key, and `null` says whether it may be null.\n"
    ]
    told: set[str] = set()
    for name, kind in sources().items():
        with TemporaryDirectory() as folder:
            path = Path(folder) / "fresh.db"
            with closing(
                SqliteStore.open(path, name, kind.tables, kind.base_url or "", views=of(kind, "views"))
            ) as store:
                # As it is after a run that was complete.
                store.finish_load()
            with closing(sqlite3.connect(path)) as conn:
                own = [each.name for each in (*kind.tables, *of(kind, "views"))]
                parts += described(conn, own, name, told)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "texts.db"
        open_texts(path, clock=time)[0].close()
        with closing(sqlite3.connect(path)) as conn:
            own = ["documents", "chunks", "vectors", "models", "categories", "stages", "chunks_search"]
            parts += described(conn, own, "texts", told)
    left_over = [f"scripts/reference.py: table {name} is no more" for name in TABLES if name not in told]
    if left_over:
        raise SystemExit("\n".join(left_over))
    return "\n".join(parts)


def described(conn: sqlite3.Connection, own: Sequence[str], source: str, told: set[str]) -> Iterator[str]:
    """The sections of one source's database that are not told yet; raises SystemExit when a meaning is missing."""
    rows = conn.execute("SELECT name, type, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")
    schema = {name: (kind, sql) for name, kind, sql in rows}
    found = sorted(
        name for name, (kind, _) in schema.items() if kind in ("table", "view") and not name.startswith(SHADOWS)
    )
    keys = {name: f"{source}.{name}" if f"{source}.{name}" in TABLES else name for name in found}
    wrong = [f"table {name} has no meaning" for name, key in keys.items() if key not in TABLES]
    for name in [*own, *(each for each in found if each not in own)]:
        key = keys[name]
        if key in told:
            continue
        told.add(key)
        columns = conn.execute(
            'SELECT name, type, "notnull", pk FROM pragma_table_xinfo(?) WHERE hidden != 1', [name]
        ).fetchall()
        known = COLUMNS.get(key, {})
        names = [column for column, *_ in columns]
        wrong += [f"column {name}.{column} has no meaning" for column in names if column not in known]
        wrong += [f"column {name}.{column} is no more" for column in known if column not in names]
        if wrong:
            continue
        indexes = [
            f"- index {code(index)}: {code(' '.join(sql.split()).partition(' ON ')[2])}"
            for index, (kind, sql) in sorted(schema.items())
            if kind == "index" and sql and re.search(rf'\bON "?{name}"? ', sql)
        ]
        yield "\n".join(
            [
                heading(key) + "\n",
                TABLES[key] + (f" Of {OWNERS.get(source, f'source `{source}`')}." if name in own else "") + "\n",
                table(
                    ("column", "type", "key", "null", "meaning"),
                    (
                        (code(column), type_, str(pk or ""), "" if notnull or pk else "yes", known[column])
                        for column, type_, notnull, pk in columns
                    ),
                ),
                *([*indexes, ""] if indexes else []),
            ]
        )
    if wrong:
        raise SystemExit("\n".join(f"scripts/reference.py: {each}" for each in wrong))


def heading(key: str) -> str:
    """The heading of a table, by its name in TABLES."""
    source, _, name = key.rpartition(".")
    return f"## `{name}` of `{source}`" if source else f"## `{name}`"


def anchor(source: str, name: str) -> str:
    """The link to the section of a source's table."""
    return f"database.md#{name}-of-{source}" if f"{source}.{name}" in TABLES else f"database.md#{name}"


# --- errors and sources -----------------------------------------------------------------------------


def errors_page() -> str:
    rows = [
        (
            code(name),
            code(kind.__base__.__name__),
            str(kind.exit_code) if name in fetcher.__all__ else "",
            "`from fetcher import " + name + "`"
            if name in fetcher.__all__
            else "`fetcher.errors`, within sources and stages",
            doc(kind),
        )
        for name, kind in error_classes().items()
    ]
    codes = ((code(number), meaning) for number, meaning in exit_codes().items())
    return (
        "# Errors\n\n"
        "The library raises them; the command line prints their one sentence and leaves with their exit code.\n\n"
        + table(("error", "is a", "exit code", "where from", "meaning"), rows)
        + "\n## Exit codes\n\n"
        + table(("code", "meaning"), codes)
    )


def error_classes() -> dict[str, Any]:
    """Our errors by name, in the order in which they are written down."""
    return {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.FetcherError)
    }


def sources_page() -> str:
    parts = [
        "# Sources\n\n"
        "A source knows one API, or one kind of place. `fetcher fetch SOURCE DB` mirrors it; one database mirrors one"
        " source. Another package can add its own by an entry point of the group `fetcher.sources`.\n"
    ]
    for name, kind in sources().items():
        module = inspect.getdoc(sys.modules[kind.__module__]) or ""
        tables = [
            (
                f"[{code(each.name)}]({anchor(name, each.name)})",
                "the items" if each.parent is None else f"belongs to an item (`{each.parent}`)",
                ", ".join(code(column.name) for column in each.columns if column.required),
            )
            for each in kind.tables
        ]
        address = {None: "none", "": "to be given"}.get(kind.base_url) or code(kind.base_url)
        parts.append(
            f"## `{name}`\n\n{doc(kind)}\n\n{module}\n\n"
            f"- Base URL: {address}\n"
            f"- Items a page: {page_size(kind)}\n\n"
            f"{table(('table', 'holds', 'required fields'), tables)}\n"
            f"Its settings, besides [those of the engine](settings.md):\n\n{settings_table(kind.Options)}"
        )
    parts.append(for_authors())
    return "\n".join(parts)


def descriptions_page() -> str:
    """Every key that the description of a REST API may have."""
    parts = [
        "# Descriptions\n\n"
        "What the TOML file of a described REST API may say; [how to describe an API](../how-to/describe-an-api.md)"
        " shows it at work. A path (`meta.next`) leads through the objects of a body.\n"
    ]
    for model, title, text in DESCRIBED:
        rows = (
            (
                code(field.alias or name),
                "needed" if field.is_required() else said_default(field),
                sentence(field.description),
            )
            for name, field in model.model_fields.items()
        )
        parts.append(f"## {title}\n\n{text}\n\n{table(('key', 'default', 'meaning'), rows)}")
    ways = ((code(name), PAGES[name], ", ".join(map(code, NEEDED[name]))) for name in get_args(Pages))
    parts.append(f"## Pages\n\nWhat `pages` may be.\n\n{table(('pages', 'means', 'needs'), ways)}")
    coming = ((code(name), kind_of_shipped.__doc__ or "") for name, kind_of_shipped in shipped_kinds().items())
    parts.append(f"## Shipped\n\nThese come with fetcher.\n\n{table(('name', 'what it is'), coming)}")
    return "\n".join(parts)


DESCRIBED: Sequence[tuple[type[BaseModel], str, str]] = (
    (Description, "The file", "Keys that stand at the top, before the first `[…]`, and names of what follows."),
    (Listing, "`[list]`", "The list of the items, and how one page leads to the next."),
    (Since, "`[list.since]`", "How to ask for what has changed alone."),
    (One, "`[detail]`", "The request of its own that an item needs."),
    (
        Auth,
        "`[auth]`",
        "The login, sent as a header. A header in `[headers]` may be such a table too, without `header`.",
    ),
    (
        Signs,
        "`[gone]`",
        "How to tell that an item is gone: all that is named has to hold. `[[gone]]` says several ways.",
    ),
    (Limit, "`[limited]`", "How to tell a refusal for now: all that is named has to hold. `[[limited]]` says several."),
    (Child, "`[tables.NAME]`", "A table of what belongs to an item; its first column, `item_key`, names the item."),
)
PAGES = {
    "ids": "ids are numbers up to a highest one: every one is asked for by its own request (`[detail]`)",
    "cursor": "the next page is asked for with the last item's key, or another of its fields",
    "page": "the next page has the next number",
    "offset": "the next page is asked for with how many items come before it",
    "token": "each page has a token to ask for the next one with",
    "next": "each page has the address of the next one in its body; where that has nothing at `next`, as for `link`",
    "link": 'each page has the address of the next one in its header `Link`, as `rel="next"`',
    "one": "there is one page alone",
}


def said_default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value in ("", (), {}):
        return ""
    return code(str(value).lower() if isinstance(value, bool) else str(value))


def shipped_kinds() -> Mapping[str, type[Source]]:
    return {name: find(name) for name in shipped()}


def for_authors() -> str:
    """What there is for a source of one's own: the names that `fetcher.sources` offers, and what a source may have."""
    names = [(code(name), first_sentence(getattr(fetcher.sources, name))) for name in fetcher.sources.__all__]
    needed = [name for name in (*Source.__annotations__, *vars(Source)) if not name.startswith("_")]
    meanings = attribute_docs(Defaults)
    more = [
        (
            code(f"{name}{inspect.signature(value)}" if inspect.isfunction(value) else name).replace("'", ""),
            "" if callable(value) else code(str(dict(value)) if isinstance(value, Mapping) else repr(value)),
            doc(value) if inspect.isfunction(value) else meanings[name],
        )
        for name in vars(Defaults)
        if not name.startswith("_")
        for value in [getattr(Defaults, name)]
    ]
    return (
        "## For a source of your own\n\n"
        "[How to write one](../how-to/write-a-source.md). All of these come `from fetcher.sources import …`:\n\n"
        + table(("name", "what it is"), names)
        + f"\nA source has to have {', '.join(code(each) for each in needed)}. {about(Source)}\n\n{about(Defaults)}\n\n"
        + table(("name", "where it is missing", "meaning"), more)
    )


def attribute_docs(kind: type) -> dict[str, str]:
    """The strings below the attributes of a class, by the attributes' names."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    return {
        each.target.id: " ".join(below.value.value.split())
        for each, below in pairwise(body.body)
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


def about(kind: type) -> str:
    """What a class says of itself after its first sentence."""
    return doc(kind).partition(". ")[2]


def first_sentence(thing: Any) -> str:
    own = doc(thing) if inspect.isclass(thing) or inspect.isroutine(thing) else doc(type(thing))
    return re.split(r"(?<=[.;:]) ", own)[0].rstrip(".;:") + "."


# --- words ------------------------------------------------------------------------------------------


def page_size(kind: type[Source]) -> str:
    found = of(kind, "page_size")
    # Where it is a setting, the class alone cannot tell.
    return "as set" if isinstance(found, property) else str(found)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join("|" + "".join(f" {cell} |" if cell else " |" for cell in line) + "\n" for line in lines)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def doc(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split())


def sentence(text: str | None) -> str:
    return (text or "").strip()


def main() -> None:
    for name, text in files().items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")


if __name__ == "__main__":
    main()
