"""`fetcher retry`: try again what failed for good."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from fetcher.cli import EXIT_CODES
from fetcher.cli.database import DATABASE
from fetcher.cli.running import follow, running_options, setting_options, settings_for
from fetcher.cli.selection import selection_options
from fetcher.mirror import kind_of
from fetcher.mirror import retry as retry_mirror
from fetcher.place import Place
from fetcher.retry import shared_out
from fetcher.texts.settings import TextSettings

_READING = ("parser", "domain", "category", "reader_processes", "chunk_size", "chunk_overlap")


@click.command(epilog=EXIT_CODES)
@click.argument("db", required=False, type=DATABASE)
@selection_options
@setting_options
@partial(setting_options, models=[TextSettings], without=_READING)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="end once N items' details are committed")
@running_options
def retry(
    db: Place | None,
    outcomes: tuple[str, ...],
    keys: tuple[int | str, ...],
    limit: int | None,
    log_format: str,
    verbose: int,
    **given: Any,
) -> int:
    """Make due again what failed for good in DB (DB_PATH), then go on with the mirror as `fetch` does.

    Texts that failed are embedded again; documents that could not be read are read by the next `fetcher ingest`.
    Without --outcome and --key it is all that failed. Where nothing fits, nobody is asked anything.
    """
    settings = settings_for(given, verbose=verbose, log_format=log_format)
    path = db or settings.db_path
    given = {name: value for name, value in given.items() if value is not None}
    of_mirror, of_texts = shared_out(path, given)
    codes = []
    if of_mirror is not None:
        call = partial(retry_mirror, path, outcomes=outcomes, keys=keys, limit=limit, **of_mirror)
        source = kind_of(path)
        summary = follow(call, settings, source=source, db=path, order="newest", log_format=log_format)
        codes += [] if summary is None else [summary.exit_code]
    if of_texts is not None:
        codes += _of_texts(path, outcomes, keys, of_texts, verbose=verbose, log_format=log_format)
    if not codes:
        click.echo("Nothing to retry: `fetcher failures` shows what failed", err=True)
    return max(codes, default=0)


def _of_texts(
    path: Place,
    outcomes: tuple[str, ...],
    keys: tuple[int | str, ...],
    given: dict[str, Any],
    *,
    verbose: int,
    log_format: str,
) -> list[int]:
    """How the texts fared: the exit code, or none where there was nothing to retry."""
    from fetcher.cli.stages import follow_stages
    from fetcher.texts.ingest import retry as retry_texts

    call = partial(retry_texts, path, outcomes=outcomes, keys=keys)
    summary = follow_stages(call, given, db=path, report=None, verbose=verbose, log_format=log_format)
    return [] if summary is None else [summary.exit_code]
