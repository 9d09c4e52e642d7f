"""A governor that counts: how long each answer took, when each request began, and the first refusal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fetcher.errors import Stopped
from fetcher.governor import Governor
from fetcher.limits import Ticket
from fetcher.model import Outcome
from fetcher.stop import Stop


class Answered(threading.local):
    """How long the good answers took that this thread got since its list was last emptied (seconds)."""

    def __init__(self) -> None:
        self.seconds: list[float] = []


@dataclass(frozen=True, slots=True)
class Refused:
    """The first refusal: when its request began (monotonic seconds), its status and Retry-After, and its number."""

    at: float
    status: int | None
    retry_after: float | None
    number: int


class Meter(Governor):
    """Lets at most `budget` requests begin in all, and none after the first refusal."""

    def __init__(self, stop: Stop, *, budget: int, on_refusal: Callable[[], None], **bounds: Any) -> None:
        super().__init__(stop, **bounds)
        self.left = budget
        self.begun: list[float] = []
        self.refused: Refused | None = None
        self.answered = Answered()
        self._counting = threading.Lock()
        self._on_refusal = on_refusal

    def enter(self, *, first: bool = False) -> Ticket:
        """As any governor does. Raises Stopped when all that may be asked was asked."""
        with self._counting:
            if self.left < 1 or self.refused is not None:
                raise Stopped("all that may be asked was asked")
            self.left -= 1
        try:
            ticket = super().enter(first=first)
        except Stopped:
            with self._counting:
                self.left += 1
            raise
        with self._counting:
            self.begun.append(ticket.started)
        return ticket

    def leave(
        self, ticket: Ticket, outcome: Outcome, *, status: int | None = None, retry_after: float | None = None
    ) -> Outcome:
        """As any governor does; what the answer meant is noted."""
        meant = super().leave(ticket, outcome, status=status, retry_after=retry_after)
        now = self._stop.now()
        if meant is Outcome.LIMITED:
            with self._counting:
                is_first = self.refused is None
                if is_first:
                    self.refused = Refused(
                        ticket.started, status, retry_after, sum(each <= ticket.started for each in self.begun)
                    )
            if is_first:
                self._on_refusal()
        elif meant in (Outcome.OK, Outcome.GONE):
            self.answered.seconds.append(now - ticket.started)
        return meant
