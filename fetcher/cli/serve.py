"""`fetcher serve`: take ids over HTTP, and fetch them by priority."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fetcher.cli import EXIT_CODES
from fetcher.cli.running import running_options, setting_options, settings_for, spare_pandas, warn_of_unknown
from fetcher.mirror import source_for
from fetcher.service.keys import Keys, new_key
from fetcher.service.server import serve as run
from fetcher.service.settings import ServiceSettings
from fetcher.settings import Settings
from fetcher.sources import registry

_MIRRORS_ALONE = ("request_delay", "start_from", "full_update")
"""Settings of what is listed: nothing is."""


@click.command(epilog=EXIT_CODES)
@click.argument("db", required=False, type=click.Path(path_type=Path))
@click.option("--source", default="pr0gramm", show_default=True, help="where the items are")
@click.option("--new-key", "wants_key", is_flag=True, help="make a key for API_KEYS, show it once, and end")
@lambda command: setting_options(
    command,
    models=[ServiceSettings, Settings, *(kind.Options for kind in registry().values())],
    without=_MIRRORS_ALONE,
)
@running_options
def serve(db: Path | None, source: str, wants_key: bool, log_format: str, verbose: int, **given: Any) -> int:
    """Take ids over HTTP, and fetch them by priority into the database DB (DB_PATH).

    SIGTERM lets the batch under way end; all that waits is kept, and goes on when it is started again.
    """
    if wants_key:
        return _show_new_key()
    settings = settings_for(given, verbose=verbose, log_format=log_format)
    warn_of_unknown(source_for(source, db or settings.db_path))
    spare_pandas()
    given = {name: value for name, value in given.items() if value is not None}

    def ready(service: Any, url: str) -> None:
        own = service.settings
        click.echo(f"Serving {service.path} at {url}, from {service.base_url}")
        each = f"one every {own.ingest_batch_interval:g} s" if own.ingest_batch_interval else "as fast as it is asked"
        click.echo(f"Batches of {own.ingest_batch_size} ids, {each}")
        keys = Keys(own.api_keys)
        if not keys:
            click.echo("No API_KEYS are set: only this machine may ask")
        elif keys.plain:
            click.echo("API_KEYS holds keys as they are: their hashes can stand there instead (--new-key)", err=True)

    run(source, db, on_ready=ready, **given)
    click.echo("Ended; what waits is kept")
    return 0


def _show_new_key() -> int:
    key, hash_ = new_key()
    click.echo(f"The key, which is shown only now: {key}")
    click.echo(f"A line for .env: API_KEYS={hash_}")
    return 0
