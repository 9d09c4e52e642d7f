"""How much waits between two stages of texts."""

from __future__ import annotations

from collections.abc import Callable

from fetcher.stop import Stop


class Backlog:
    """How much waits between a stage and the next: whoever fills it waits while there is more than enough."""

    def __init__(self, most: int, stop: Stop) -> None:
        self.most = most
        self._stop = stop
        self._changed = stop.condition()
        self._size = 0
        self._open = True

    def look(self, size: Callable[[], int]) -> None:
        """See how much waits now; one after the other, so that what was seen last is the latest."""
        with self._changed:
            self._size = size()
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait while too much waits, until nobody takes from it any more, or the run is to end."""
        with self._changed:
            while self._open and self._size >= self.most and not self._stop.wait(1.0, self._changed):
                pass

    def close(self) -> None:
        """Nobody takes from it any more."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    @property
    def fill(self) -> float:
        """How full it is: 1 where whoever fills it waits."""
        return self._size / self.most
