"""What a simulated API does wrong on purpose: the one place the server asks before it answers truly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client gets instead of the true answer.

    With `status` None it is the true answer after all, `delay` seconds later (on top of the latency).
    `headers` replace the server's own of the same name, so that even Content-Length may lie; a
    `Connection: close` among them is acted upon.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0


class Faults(Protocol):
    """Decides which requests go wrong; any function of this shape will do.

    `kind` is "list" (`key`: its older or newer value, the id asked around, or 0 at the head), "info"
    (`key`: the item's id), "tags" (`key`: the tag id asked from) or "loggedin" (`key`: 0). `attempt` counts
    the requests for that (kind, key) from 1. To keep runs repeatable the decision should depend on nothing
    else but a seed.
    """

    def __call__(self, kind: str, key: int, attempt: int) -> Answer | None:
        """The answer to give instead, or None for the true one."""
