"""Whether a host is down: what it left unanswered since its last good answer, and when it is asked again."""

from __future__ import annotations

from typing import Generic, TypeVar

from fetcher.errors import RequestFailed
from fetcher.governor import backoff

MANY = 10
"""So many requests for different things without an answer, and no good answer between them: the host may be down."""

A = TypeVar("A")


class Outage(Generic[A]):
    """What went unanswered since the host's last good answer, and the probing that follows from it.

    A few requests without an answer may be the fault of what they asked for. When they are many, or nothing else is
    under way, the host is in doubt, and is asked for something known to be good: an answer means that what was asked
    for before is at fault, none that there is an outage. Then the host is asked again and again, with growing pauses,
    until it answers, and nothing that went unanswered is held against anything. Times are monotonic seconds.
    """

    def __init__(self, max_pause: float) -> None:
        self._max_pause = max_pause
        self._unanswered: list[tuple[A, RequestFailed]] = []
        self._in_doubt = False
        self._probes = 0
        self.asking = False
        self.due = 0.0

    @property
    def in_doubt(self) -> bool:
        """Whether the host is in doubt, so that only a probe may go out."""
        return self._in_doubt

    @property
    def is_certain(self) -> bool:
        """Whether a probe has gone unanswered too."""
        return self._probes > 0

    @property
    def reason(self) -> str:
        """The last sign of it in words."""
        return f"no answer: {self._unanswered[-1][1]}" if self._unanswered else "no answer"

    def add(self, about: A, error: RequestFailed) -> None:
        """One more request went unanswered."""
        self._unanswered.append((about, error))

    def doubt(self, now: float, *, alone: bool) -> bool:
        """Whether the host falls in doubt now; `alone` says that nothing else is under way."""
        if self._in_doubt or not self._unanswered or not (alone or len(self._unanswered) >= MANY):
            return False
        self._in_doubt = True
        self.due = now
        return True

    def probed_in_vain(self, now: float) -> None:
        """A probe went unanswered: when the next one is due."""
        self._probes += 1
        self.asking = False
        self.due = now + backoff(self._probes, self._max_pause)

    def end(self) -> list[tuple[A, RequestFailed]]:
        """The host has answered: hands over what went unanswered before, and begins anew."""
        unanswered, self._unanswered = self._unanswered, []
        self._in_doubt = self.asking = False
        self._probes = 0
        return unanswered
