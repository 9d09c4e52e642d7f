"""`fetcher retry`: try again what failed for good."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from fetcher.cli import EXIT_CODES
from fetcher.cli.running import follow, running_options, setting_options, settings_for
from fetcher.cli.selection import selection_options
from fetcher.mirror import kind_of
from fetcher.mirror import retry as run


@click.command(epilog=EXIT_CODES)
@click.argument("db", required=False, type=click.Path(path_type=Path))
@selection_options
@setting_options
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="end once N items' details are committed")
@running_options
def retry(
    db: Path | None,
    outcomes: tuple[str, ...],
    keys: tuple[int | str, ...],
    limit: int | None,
    log_format: str,
    verbose: int,
    **given: Any,
) -> int:
    """Make due again what failed for good in DB (DB_PATH), then go on with the mirror as `fetch` does.

    Without --outcome and --key it is all that failed. Where nothing fits, the API is asked nothing.
    """
    settings = settings_for(given, verbose=verbose, log_format=log_format)
    path = db or settings.db_path
    given = {name: value for name, value in given.items() if value is not None}
    source = kind_of(path)
    call = partial(run, path, outcomes=outcomes, keys=keys, limit=limit, **given)
    summary = follow(call, settings, source=source, db=path, order="newest", log_format=log_format)
    if summary is None:
        click.echo("Nothing to retry: `fetcher failures` shows what failed", err=True)
        return 0
    return summary.exit_code
