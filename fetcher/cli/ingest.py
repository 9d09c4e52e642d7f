"""`fetcher ingest`: read files into chunks and embed these."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from fetcher.cli import EXIT_CODES
from fetcher.cli.running import running_options, setting_options
from fetcher.cli.stages import follow_stages, stage_options
from fetcher.errors import ConfigurationError
from fetcher.place import place_of
from fetcher.texts.ingest import ingest as run
from fetcher.texts.settings import TextSettings


@click.command(epilog=EXIT_CODES)
@click.argument("paths", nargs=-1, required=True, metavar="PATH... DB", type=click.Path())
@stage_options
@partial(setting_options, models=[TextSettings])
@running_options
def ingest(
    paths: tuple[str, ...],
    aggregate: Path | None,
    config: Path | None,
    report: Path | None,
    verbose: int,
    log_format: str,
    **given: Any,
) -> int:
    """Read the files at and below PATH... into chunks, and embed these, in the database DB.

    Text, Markdown, HTML, EPUB, JSON and NDJSON are read, packed or not. Run it again to go on, or to bring DB up to
    date: what has not changed is not read again, and no text is embedded twice.
    """
    *roots, last = paths
    if not roots or not last:
        raise ConfigurationError("name what is to be read, and the database last: fetcher ingest PATH... DB")
    db = place_of(last)
    if isinstance(db, Path) and db.is_dir():
        raise ConfigurationError(f"{db} is a folder: name the database last, fetcher ingest PATH... DB")
    return follow_stages(
        partial(run, roots, db, config=config, aggregate=aggregate),
        given,
        db=db,
        report=report,
        verbose=verbose,
        log_format=log_format,
    ).exit_code
