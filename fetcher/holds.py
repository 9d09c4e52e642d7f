"""What keeps all requests back besides the limits of the host: an outage, a disk that is nearly full."""

from __future__ import annotations

import logging

from fetcher.contracts import Store
from fetcher.governor import Governor

log = logging.getLogger("fetcher")

ENOUGH_ROOM = 1.05
"""So many times what is to be kept free must be free again before a run goes on."""


class Holds:
    """The causes for which requests are held back; they go on once there is none left."""

    def __init__(self, governor: Governor) -> None:
        self._governor = governor
        self._causes: set[str] = set()

    def hold(self, cause: str) -> None:
        """Let no request begin, for this cause."""
        self._causes.add(cause)
        self._governor.hold()

    def release(self, cause: str) -> None:
        """This cause is gone, if there was any."""
        if cause in self._causes:
            self._causes.discard(cause)
            if not self._causes:
                self._governor.release()


class Room:
    """The room on the store's disk, of which `least` bytes are kept free."""

    def __init__(self, store: Store, least: int, holds: Holds) -> None:
        self._store = store
        self._least = least
        self._holds = holds
        self.cramped = ""
        """Why requests are held back, in words; empty while they are not."""

    def look(self) -> None:
        """Hold requests back while the disk is nearly full, and let them go on when there is room again."""
        room = self._store.room()
        if not self.cramped and room < self._least:
            self.cramped = f"disk nearly full: {room / 1e6:,.0f} MB left, {self._least / 1e6:,.0f} are kept free"
            log.warning("%s; going on when there is room", self.cramped)
            self._holds.hold("disk")
        elif self.cramped and room >= self._least * ENOUGH_ROOM:
            log.warning("there is room on the disk again")
            self.cramped = ""
            self._holds.release("disk")
