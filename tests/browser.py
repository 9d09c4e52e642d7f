"""A real browser without a window, for the tests of what people look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

MISSING = "" if CHROMIUM else "there is no chromium here (Debian, Ubuntu: apt install chromium)"
"""Why nothing can be looked at, if so."""

MUST = bool(os.environ.get("CI"))
"""Whether that would be a failure."""

ELSEWHERE = "fetcher.test"
"""A name that the browser takes for another machine's."""

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1",
]


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser of its own, closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()
