"""A database of ours copied to another place, whichever kind each of the two is; resumable, and compared at the end."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from fetcher.copying.job import Copied as Copied
from fetcher.copying.job import Copy
from fetcher.copying.job import CopyProgress as CopyProgress
from fetcher.copying.relations import PARTS
from fetcher.errors import ConfigurationError, Interrupted, Stopped
from fetcher.place import Place, place_of
from fetcher.settings import Settings, load
from fetcher.stop import Stop
from fetcher.stores.opening import kept_from_runs, rows_of


def copy(
    origin: str | Place,
    goal: str | Place,
    *,
    without: Collection[str] = (),
    stop: Stop | None = None,
    on_progress: Callable[[CopyProgress], None] = lambda _: None,
    **settings: Any,
) -> Copied:
    """Copy the database `origin` to `goal`, a new one, or go on with that; then compare the two.

    Each is a file or `postgresql://…`. No run changes `origin` meanwhile, and nothing else uses `goal` before it is
    complete. A copy that is complete is compared again, as long as no run has changed either. `without` leaves out
    `texts`, `jobs` or both. `settings` are those of `.env` in lower case; `allow_network_file_system` is of use.

    Raises Interrupted when stopped early, StoreError, and ConfigurationError when `goal` cannot hold what there is.
    """
    a, b = place_of(origin), place_of(goal)
    if unknown := set(without) - PARTS.keys():
        raise ConfigurationError(f"there is no part {', '.join(sorted(unknown))}: {', '.join(PARTS)} can be left out")
    if a == b or (isinstance(a, Path) and isinstance(b, Path) and a.resolve() == b.resolve()):
        raise ConfigurationError(f"{a} cannot be copied to itself")
    stop = stop or Stop()
    allow_network = load(Settings, settings).allow_network_file_system
    try:
        with kept_from_runs(a), rows_of(a, stopped=stop.is_set) as rows:
            return Copy(a, b, rows, frozenset(without), stop, on_progress, allow_network=allow_network).run()
    except Stopped:
        raise Interrupted(f"interrupted; what was copied to {b} is kept") from None
