"""`fetcher fetch`: mirror a source, or go on with a mirror."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from fetcher.cli import EXIT_CODES
from fetcher.cli.report import duration, place, size, start_lines
from fetcher.cli.running import (
    follow,
    running_options,
    setting_options,
    settings_for,
    warn_of_unknown,
    what_to_mirror,
)
from fetcher.mirror import Preview, preview, source_for
from fetcher.mirror import fetch as run
from fetcher.settings import Settings
from fetcher.sources import Source


@click.command(epilog=EXIT_CODES)
@click.argument("what", nargs=-1, metavar="[SOURCE] [DB] [PATH]...")
@setting_options
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="end once N items' details are committed")
@click.option(
    "--order",
    type=click.Choice(["newest", "oldest"]),
    default="newest",
    show_default=True,
    help="direction of listing and fetching",
)
@click.option("--dry-run", is_flag=True, help="say what would be done: ranges, requests, time, disk; write nothing")
@running_options
def fetch(
    what: tuple[str, ...],
    limit: int | None,
    order: Any,
    dry_run: bool,
    log_format: str,
    verbose: int,
    **given: Any,
) -> int:
    """Mirror SOURCE (pr0gramm) into the database DB (DB_PATH); run again, it goes on where it was.

    DB is a file, or postgresql://USER@HOST/NAME. SOURCE is a name, or a file that describes an API and ends in .toml.
    One argument is the SOURCE if there is a source of that name, else the DB. What comes after them goes to the SOURCE:
    files takes each PATH as a folder or file to read, a described API takes NAME=VALUE for its variables. Every setting
    can be an option, an environment variable or a line in ./.env, in this order.
    """
    source, db, more = what_to_mirror(what)
    given |= more
    settings = settings_for(given, verbose=verbose, log_format=log_format)
    kind = source_for(source, db or settings.db_path)
    given = {name: value for name, value in given.items() if value is not None}
    if dry_run:
        warn_of_unknown(kind)
        _show(preview(source, db, limit=limit, order=order, **given), settings, kind, order)
        return 0
    call = partial(run, source, db, limit=limit, **given)
    summary = follow(call, settings, source=kind, db=db or settings.db_path, order=order, log_format=log_format)
    return summary.exit_code if summary is not None else 0


def _show(found: Preview, settings: Settings, source: type[Source], order: str) -> None:
    for line in start_lines(found.start, settings, order, place(source)):
        click.echo(line)
    click.echo(f"Ranges to list: {found.start.holes:,}")
    if found.requests is not None and found.seconds is not None and found.bytes is not None:
        click.echo(f"Requests: ~{found.requests:,}")
        ceiling = settings.max_requests_per_second
        pace = f"at {ceiling:g} requests/s" if ceiling else "by the delay between list pages alone, no ceiling is set"
        click.echo(f"Time: at least {duration(found.seconds)} {pace}")
        click.echo(f"Disk: ~{size(found.bytes)}")
    click.echo("Nothing was written.")
