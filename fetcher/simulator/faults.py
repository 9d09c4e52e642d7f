"""What a simulated API does wrong on purpose: the one place the server asks before it answers truly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class Ending(Enum):
    """What becomes of a connection once an answer is sent, or as much of it as ever will be."""

    KEEP = "keep"
    """It stays open for more, as HTTP wants it."""
    CLOSE = "close"
    """It is closed in good order."""
    RESET = "reset"
    """It is reset (TCP RST)."""
    HANG = "hang"
    """It stays open, and nothing more is ever sent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client gets instead of the true answer.

    With `status` None it is the true answer after all, `delay` seconds later (on top of the latency), its body changed
    by `edit`, a listing moved back by `shift` items along its walk: a full page repeats the page before, a negative
    number skips items. `headers` replace the server's own of the same name, so that even Content-Length may lie; a
    `Connection: close` among them is acted upon.

    On the wire: `raw` replaces the whole response. Only `part` of the response (0 to 1) is sent, spread over `drip`
    seconds, and `ending` says what follows. `name` is what the fault is called where they are counted.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0
    edit: Callable[[bytes], bytes] | None = None
    shift: int = 0
    raw: bytes | None = None
    part: float = 1.0
    drip: float = 0.0
    ending: Ending = Ending.KEEP
    name: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether it is anything else than the true answer, however late."""
        return self.status is not None or self.raw is not None or self.edit is not None or not self._is_whole

    @property
    def _is_whole(self) -> bool:
        return not self.shift and self.part == 1.0 and not self.drip and self.ending is Ending.KEEP


class Faults(Protocol):
    """Decides which requests go wrong; any function of this shape will do.

    `kind` is "list" (`key`: its older or newer value, the id asked around, or 0 at the head), "info"
    (`key`: the item's id), "tags" (`key`: the tag id asked from) or "loggedin" (`key`: 0). `attempt` counts
    the requests for that (kind, key) from 1. To keep runs repeatable the decision should depend on nothing
    else but a seed.
    """

    def __call__(self, kind: str, key: int, attempt: int) -> Answer | None:
        """The answer to give instead, or None for the true one."""
