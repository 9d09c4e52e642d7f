"""What an examination finds: plain facts, and the exit code that they come to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "bad"]

_CODES = (
    ("settings", 2),
    ("database", 6),
    ("disk", 6),
    ("file system", 6),
    ("login", 4),
    ("network", 5),
    ("clock", 2),
)
"""Which exit code what is bad stands for, the worst first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: in good order, worth a note, or bad; `remedy` says what to do about it.

    `what` is settings, network, login, clock, file system, disk, database or learned.
    """

    what: str
    level: Level
    message: str
    remedy: str | None = None


def ok(what: str, message: str) -> Finding:
    """A thing in good order."""
    return Finding(what, "ok", message)


def note(what: str, message: str, remedy: str) -> Finding:
    """A thing that keeps nothing from working."""
    return Finding(what, "note", message, remedy)


def bad(what: str, message: str, remedy: str) -> Finding:
    """A thing that keeps a run from working, or a mirror from being right."""
    return Finding(what, "bad", message, remedy)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 when nothing is bad, else the code of the worst that is."""
    wrong = {each.what for each in findings if each.level == "bad"}
    return next((code for what, code in _CODES if what in wrong), 1 if wrong else 0)
