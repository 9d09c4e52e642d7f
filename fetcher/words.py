"""Sizes, times and paths as people say them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from fetcher.place import Place


def duration(seconds: float) -> str:
    """A duration as people say it, in its two largest units."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    for unit, name, smaller, small_name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit:
            rest = seconds % unit // smaller
            return f"{seconds // unit} {name}" + (f" {rest} {small_name}" if rest else "")
    raise AssertionError(seconds)


def size(count: float) -> str:
    """A number of bytes as people say it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def counted(number: int, thing: str) -> str:
    """A number of things, as people write it."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def stretch(position: Callable[[int], str], lo: int, hi: int) -> str:
    """From one position to another, as a person is told; `position` says one in the source's own terms."""
    first, last = position(lo), position(hi)
    # A number that is alone is a stretch too; a word is not.
    return first if first == last and not first[:1].isdigit() else f"{first} to {last}"


def when(at: float) -> str:
    """A Unix time to the minute, in this machine's time zone."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")


def said(thing: object) -> str:
    """A text from elsewhere, such as that of an error, in one line of what can be printed and stored."""
    try:
        text = " ".join(str(thing).split())
    except Exception as error:  # noqa: BLE001 - it is somebody else's code
        text = f"a text that cannot be made ({type(error).__name__})"
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[:300])


def shown(path: Place) -> str:
    """A path as text, whatever its bytes are."""
    return str(path).encode(errors="surrogateescape").decode(errors="replace")
