"""`fetcher embed`: embed what was read, or the texts of a mirror's items."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from fetcher.cli import EXIT_CODES
from fetcher.cli.database import DATABASE
from fetcher.cli.running import running_options, setting_options
from fetcher.cli.stages import follow_stages, stage_options
from fetcher.place import Place
from fetcher.stores.origin import source_of
from fetcher.texts.ingest import embed as run
from fetcher.texts.settings import TextSettings


@click.command(epilog=EXIT_CODES)
@click.argument("db", type=DATABASE)
@click.option("--from", "origin", type=click.Choice(["items"]), help="read the texts of the mirror's items first")
@stage_options
@partial(setting_options, models=[TextSettings], without=("parser", "reader_processes"))
@running_options
def embed(
    db: Place,
    origin: str | None,
    aggregate: Path | None,
    config: Path | None,
    report: Path | None,
    verbose: int,
    log_format: str,
    **given: Any,
) -> int:
    """Embed what is left to embed of DB; with --from items, the tags and comments of a mirror's items too."""
    source_of(db)  # An empty database is not made here.
    return follow_stages(
        partial(run, db, items=origin is not None, config=config, aggregate=aggregate),
        given,
        db=db,
        report=report,
        verbose=verbose,
        log_format=log_format,
    ).exit_code
