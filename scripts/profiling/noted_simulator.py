"""`fetcher simulate` that notes each request in a file: seconds since the start, and whether it was refused, as JSON.

python noted_simulator.py FILE --port 0 --rate 40
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fetcher.cli import main
from fetcher.simulator.conditions import Conditions
from fetcher.simulator.faults import Answer

turned_away = Conditions.turned_away


def noted(self: Conditions, now: float, in_flight: int) -> Answer | None:
    answer = turned_away(self, now, in_flight)
    log.write(json.dumps({"at": now, "refused": answer is not None}) + "\n")
    return answer


if __name__ == "__main__":
    with Path(sys.argv[1]).open("w", buffering=1) as log:
        Conditions.turned_away = noted  # type: ignore[method-assign]
        main(["simulate", *sys.argv[2:]])
