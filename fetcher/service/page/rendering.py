"""Templates, and what they can say about times and numbers. All that comes from elsewhere is escaped."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fetcher.service.page.charts import figure
from fetcher.service.page.ids import shortened
from fetcher.service.page.standing import job_end, job_sentence, job_word, percent
from fetcher.words import counted, duration


def environment(**globals_: Any) -> Environment:
    """The templates; `globals_` are known in all of them."""
    made = Environment(
        loader=PackageLoader("fetcher.service.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(globals_, job_end=job_end, counted=counted)
    made.filters.update(
        ago=ago,
        moment=moment,
        duration=duration,
        figure=figure,
        job_word=job_word,
        job_sentence=job_sentence,
        percent=percent,
        plain=plain,
        shortened=shortened,
    )
    return made


def plain(text: str) -> str:
    """A text from elsewhere without what could turn letters around or hide them."""
    return "".join(
        each if each.isprintable() else " " if each.isspace() else "\N{REPLACEMENT CHARACTER}" for each in text
    )


def ago(at: float) -> str:
    """How far away a Unix time is."""
    seconds = time.time() - at
    if abs(seconds) < 1:
        return "now"
    return f"{_roughly(seconds)} ago" if seconds > 0 else f"in {_roughly(-seconds)}"


def _roughly(seconds: float) -> str:
    for most, unit, name in ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h")):
        if seconds < most:
            return f"{int(seconds // unit)} {name}"
    return counted(int(seconds // 86_400), "day")


def moment(at: float) -> str:
    """A Unix time as machines read it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
