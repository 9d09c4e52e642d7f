"""Makes the pictures of the service's pages in docs/images/, of a real run over a simulator: about two minutes.

.venv/bin/python scripts/screenshots.py [FOLDER]; it needs chromium.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fetcher.simulator import Answer, Simulator, World
from tests.browser import MISSING, browsing
from tests.helpers import ROOT, eventually
from tests.service import Serving, serving

SECONDS = 100
"""So long the service works before it is looked at: its charts are of two minutes then."""

WORLD = World(seed=1, items=3000)


class Api:
    """An API that answers nonsense for some ids, and refuses everything for a moment each half of a minute."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, kind: str, key: int, attempt: int) -> Answer | None:
        """How it answers; see Faults."""
        del attempt
        if 25 < (time.monotonic() - self._began) % 50 < 26:
            return Answer(429, {"Retry-After": "4"})
        if kind == "info" and key % 97 == 0:
            return Answer(502 if key % 2 else 200, body=b'{"error": null}')
        return None


def main(folder: Path) -> int:
    """Make them."""
    if MISSING:
        print(MISSING, file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, Simulator(WORLD, latency=0.25, jitter=0.15, faults=Api()) as api:
        os.chdir(temporary)  # None of the user's settings are here.
        rates = {"max_requests_per_second": 25, "max_parallel_requests": 8, "max_retries": 1, "max_backoff_seconds": 4}
        with serving(api, Path("pr0gramm.db"), ingest_batch_interval=0, **rates) as service, browsing() as browser:
            failed = _work(service)
            desk: dict[str, Any] = {"viewport": {"width": 1200, "height": 860}}
            phone = {"viewport": {"width": 360, "height": 1100}}
            for name, path, options in (
                ("service", "/", desk),
                ("service-dark", "/", {**desk, "color_scheme": "dark"}),
                ("service-job", f"/jobs/{failed}", desk),
                ("service-phone", "/", phone),
            ):
                page = browser.new_page(**options)
                page.goto(service.url + path)
                file = folder / f"{name}.png"
                page.screenshot(path=file)
                page.close()
                print(f"{file}: {file.stat().st_size / 1000:.0f} kB")
    return 0


def _work(service: Serving) -> str:
    """Have it work for a while; returns the job that has a failure."""
    ids = list(WORLD.ids())
    began = time.monotonic()
    service.submit(*ids[:1500])
    bad = next(each for each in ids if each % 97 == 0)
    failed = service.submit(*ids[ids.index(bad) - 10 : ids.index(bad) + 8], bad + 97, priority="HIGH")
    service.completed(failed, 60)
    service.completed(service.submit(*ids[1500:1520], priority="HIGH"), 60)
    eventually(lambda: time.monotonic() - began > SECONDS, SECONDS + 10)
    service.submit(*ids[1600:2000], priority="LOW")
    high = service.submit(*ids[2000:2060], priority="HIGH")

    def is_half_done() -> bool:
        job = service.service.job(high)
        return job is not None and job.stored > 15

    eventually(is_half_done, 30)
    return failed


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "docs/images"))
