"""Whether a host is down: what it left unanswered since its last good answer, and when it is asked again."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from fetcher.errors import RequestFailed
from fetcher.governor import backoff

log = logging.getLogger("fetcher")

MANY = 10
"""So many requests for different things without an answer, and no good answer between them: the host may be down."""

A = TypeVar("A", bound=Hashable)


class Verdict(NamedTuple, Generic[A]):
    """Whether what was asked for is at fault itself that it did not come; else it may be asked for again."""

    about: A
    error: RequestFailed
    at_fault: bool


class Outage(Generic[A]):
    """What went unanswered since the host's last good answer, and the probing that follows from it.

    A few requests without an answer may be the fault of what they asked for. When they are many, or nothing else is
    under way, the host is in doubt, and is asked for something known to be good: an answer means that what was asked
    for before is at fault, none that there is an outage. Then the host is asked again and again, with growing pauses,
    until it answers, and nothing that went unanswered is held against anything.

    Only an answer to what was asked after something had failed says that the host was well then. So besides times
    (monotonic seconds) there are moments, which count what was before what.
    """

    def __init__(self, max_pause: float) -> None:
        self._max_pause = max_pause
        self._unanswered: list[tuple[A, RequestFailed, int]] = []
        self._doubted_at = 0
        self._probes = 0
        self._excused: set[A] = set()
        self._asking = False
        self.due = 0.0

    @property
    def in_doubt(self) -> bool:
        """Whether the host is in doubt, so that only a probe may go out."""
        return self._doubted_at > 0

    @property
    def is_certain(self) -> bool:
        """Whether a probe has gone unanswered too."""
        return self._probes > 0

    @property
    def reason(self) -> str:
        """The last sign of it in words."""
        return f"no answer: {self._unanswered[-1][1]}" if self._unanswered else "no answer"

    def add(self, about: A, error: RequestFailed, ended: int) -> None:
        """One more request went unanswered; it ended at that moment."""
        self._unanswered.append((about, error, ended))

    def doubt(self, now: float, *, alone: bool) -> bool:
        """Whether the host falls in doubt now; `alone` says that nothing else is under way."""
        if self.in_doubt or not self._unanswered or not (alone or len(self._unanswered) >= MANY):
            return False
        self._doubted_at = self._unanswered[-1][2]
        self.due = now
        return True

    @property
    def next_probe(self) -> float:
        """When the host is to be asked for a sign of life; infinite while it is not."""
        return self.due if self.in_doubt and not self._asking else float("inf")

    def probed(self) -> None:
        """A probe is sent."""
        self._asking = True

    def probed_in_vain(self, error: RequestFailed, now: float) -> None:
        """A probe went unanswered: when the next one is due."""
        if not self.is_certain:
            log.warning("the API does not answer (%s); asking again until it does", error)
        self._probes += 1
        self._asking = False
        self.due = now + backoff(self._probes, self._max_pause)

    def answered(self, began: int) -> list[Verdict[A]]:
        """The host has answered what was asked at that moment: what this means for what had gone unanswered by then.

        It is at fault itself, unless there was an outage till now. Empty while there is still a doubt.
        """
        if not self._unanswered or (self.in_doubt and began <= self._doubted_at):
            return []
        before = [each for each in self._unanswered if each[2] < began or self.in_doubt]
        self._unanswered = [each for each in self._unanswered if each[2] >= began and not self.in_doubt]
        certain, many = self.is_certain, self.in_doubt and len(before) >= MANY
        self._doubted_at = 0
        self._asking = False
        self._probes = 0
        if certain:
            log.warning("the API answers again")
            return [Verdict(about, error, False) for about, error, _ in before]
        # It may have been a short outage: what went unanswered is asked for once more before it is blamed.
        return [Verdict(about, error, not (many and self._excuse(about))) for about, error, _ in before]

    def _excuse(self, about: A) -> bool:
        """Whether this is excused, as it is every other time."""
        self._excused ^= {about}
        return about in self._excused
