"""The primary limit of GitHub: so many requests in a window, counted in the headers of every answer."""

from __future__ import annotations

import json
import math
import time

from fetcher.simulator.wire import Refused


class Allowance:
    """`requests` in a window of `seconds` that begins with the first of them; more are refused with 403 until it ends.

    The time is the wall clock's, since answers name the end of the window by it. Used by the server's thread alone.
    """

    def __init__(self, requests: int, seconds: float) -> None:
        self._requests = requests
        self._seconds = seconds
        self._used = 0
        self._ends = 0.0

    def spend(self) -> dict[str, str]:
        """The headers of the answer to one more request. Raises Refused where there is none left."""
        now = time.time()
        if now >= self._ends:
            # Headers have whole seconds: the window ends with one, so that who waits for it is answered.
            self._used, self._ends = 0, math.ceil(now + self._seconds)
        left = self._requests - self._used
        headers = {
            "X-RateLimit-Limit": str(self._requests),
            "X-RateLimit-Remaining": str(max(0, left - 1)),
            "X-RateLimit-Reset": str(int(self._ends)),
        }
        if left <= 0:
            body = json.dumps({"message": "API rate limit exceeded for 127.0.0.1."}).encode()
            raise Refused(403, body, kind="list", headers=headers)
        self._used += 1
        return headers
