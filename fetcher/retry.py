"""To try again what failed for good: of a mirror, of its texts, or of both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import requests

from fetcher import mirror
from fetcher.model import Committed, Key, Order, Outcome, Progress, Start, Summary
from fetcher.place import Place, place_of
from fetcher.settings import Settings, load
from fetcher.stop import Stop
from fetcher.stores.texts import holds_texts
from fetcher.texts.settings import TextSettings

if TYPE_CHECKING:
    from fetcher.texts.ingest import TextSummary


def retry(
    db: str | Place | None = None,
    *,
    outcomes: Collection[Outcome | str] = (),
    keys: Collection[Key] = (),
    limit: int | None = None,
    order: Order = "newest",
    stop: Stop | None = None,
    session: requests.Session | None = None,
    on_start: Callable[[Start], None] = lambda _: None,
    on_batch: Callable[[Committed], None] = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    **settings: Any,
) -> Summary | TextSummary | None:
    """Make due again what failed for good in the database `db`, then go on with the mirror as `fetch` does.

    Texts that failed are embedded again; documents that could not be read are read by the next `ingest`. `outcomes`
    and `keys` choose some of it. Returns how the mirror's run ended, with that of the texts as `texts`; or that of the
    texts, where only they had failed; or None where there is nothing to retry, and asks nobody anything then. Raises
    what `fetch` raises.
    """
    stop = stop or Stop()
    path = place_of(db) if db is not None else load(Settings, {}).db_path
    of_mirror, of_texts = shared_out(path, settings)
    summary: Summary | None = None
    if of_mirror is not None:
        summary = mirror.retry(
            path,
            outcomes=outcomes,
            keys=keys,
            limit=limit,
            order=order,
            stop=stop,
            session=session,
            on_start=on_start,
            on_batch=on_batch,
            on_progress=on_progress,
            **of_mirror,
        )
    if of_texts is None:
        return summary
    from fetcher.texts import ingest

    found = ingest.retry(path, outcomes=outcomes, keys=keys, stop=stop, **of_texts)
    return found if summary is None else replace(summary, texts=found)


def shared_out(path: Place, settings: Mapping[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What of the settings is for the mirror in a database, and what for its texts; None where it has no such.

    Raises StoreError.
    """
    if mirror.mirrors_nothing(path):
        return None, dict(settings)
    if not holds_texts(path):
        return dict(settings), None
    ours, texts = Settings.model_fields, TextSettings.model_fields
    return (
        {name: each for name, each in settings.items() if name in ours or name not in texts},
        {name: each for name, each in settings.items() if name in ours or name in texts},
    )
