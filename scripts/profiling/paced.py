"""`fetcher` with its own account of when it let each request begin: the last line on stdout is JSON, monotonic seconds.

python paced.py fetch pr0gramm DB --base-url URL --max-rate 50
"""

from __future__ import annotations

import json
import sys

from fetcher.cli import main
from fetcher.governor import Governor, Ticket

starts: list[float] = []
enter = Governor.enter


def noted(self: Governor, *, first: bool = False) -> Ticket:
    ticket = enter(self, first=first)
    starts.append(ticket.started)
    return ticket


if __name__ == "__main__":
    Governor.enter = noted  # type: ignore[method-assign]
    try:
        main(sys.argv[1:])
    finally:
        print(json.dumps({"event": "starts", "times": sorted(starts)}))
