"""`fetcher fetch`: mirror a source, or go on with a mirror."""

from __future__ import annotations

import gc
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic_settings import BaseSettings

from fetcher.cli import EXIT_CODES
from fetcher.cli.report import Reporter, duration, size, start_lines, start_logging
from fetcher.errors import FetcherError, Interrupted
from fetcher.mirror import Preview, preview
from fetcher.mirror import fetch as run
from fetcher.settings import ENV_FILE, Settings, load, options_of, unknown_keys
from fetcher.sources import registry
from fetcher.stop import Stop, stop_on_signals

F = TypeVar("F", bound=Callable[..., Any])


def _models() -> list[type[BaseSettings]]:
    return [Settings, *(kind.Options for kind in registry().values())]


def _setting_options(command: F) -> F:
    """Give `command` an option for each setting that has one, ours and each source's; the model checks the values."""
    seen: set[str] = set()
    # Decorators stack up from below, and --help shows the last one first.
    for model in reversed(_models()):
        for name, field, option in reversed(list(options_of(model))):
            if option in seen:
                continue
            seen.add(option)
            default = "" if field.default is None else f", default {str(field.default).lower()}"
            text = f"{field.description}  [{name.upper()}{default}]"
            if field.annotation is bool:
                command = click.option(option, name, is_flag=True, default=None, help=text)(command)
            else:
                command = click.option(option, name, metavar="VALUE", help=text)(command)
    return command


@click.command(epilog=EXIT_CODES)
@click.argument("what", nargs=-1, metavar="[SOURCE] [DB]")
@_setting_options
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="end once N items' details are committed")
@click.option(
    "--order",
    type=click.Choice(["newest", "oldest"]),
    default="newest",
    show_default=True,
    help="direction of listing and fetching",
)
@click.option("--dry-run", is_flag=True, help="say what would be done: ranges, requests, time, disk; write nothing")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="progress and log as JSON lines on stdout",
)
@click.option("-v", "--verbose", count=True, help="one line per retry and failure; -vv says more")
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

    One argument is the SOURCE if there is a source of that name, else the DB. Every setting can be an option, an
    environment variable or a line in ./.env, in this order.
    """
    source, db = _split(what)
    settings = load(Settings, {name: value for name, value in given.items() if name in Settings.model_fields})
    level = {0: settings.log_level, 1: "INFO"}.get(verbose, "DEBUG")
    json_lines = log_format == "json"
    log = start_logging(level, json_lines=json_lines)
    for key in unknown_keys(_models()):
        log.warning("%s: %s is no setting; it is ignored", ENV_FILE, key)
    given = {name: value for name, value in given.items() if value is not None}
    if dry_run:
        _show(preview(source, db, limit=limit, order=order, **given), settings, order)
        return 0
    # Batches hold thousands of rows and no cycles: by its own measure the collector looks through them all the time.
    gc.set_threshold(100_000, 20, 50)
    with Reporter(settings, order=order, db=db or settings.db_path, json_lines=json_lines) as reporter:
        stop = Stop()
        try:
            with stop_on_signals(stop):
                summary = run(
                    source,
                    db,
                    limit=limit,
                    order=order,
                    stop=stop,
                    on_start=reporter.start,
                    on_progress=reporter.progress,
                    **given,
                )
        except Interrupted as error:
            reporter.end(error.summary)
            raise Interrupted(f"{error}. Go on with: {_same_command()}", error.summary) from None
        except FetcherError as error:
            reporter.end(error.summary)
            raise
        reporter.end(summary)
    return summary.exit_code


def _split(what: tuple[str, ...]) -> tuple[str, Path | None]:
    if len(what) > 2:
        raise click.UsageError(f"at most a SOURCE and a DB are expected, got {len(what)} arguments: {' '.join(what)}")
    if len(what) == 2:
        return what[0], Path(what[1])
    if what and what[0] not in registry():
        return "pr0gramm", Path(what[0])
    return (what[0] if what else "pr0gramm"), None


def _same_command() -> str:
    as_module = Path(sys.argv[0]).name == "__main__.py"
    return shlex.join([*([sys.executable, "-m", "fetcher"] if as_module else ["fetcher"]), *sys.argv[1:]])


def _show(found: Preview, settings: Settings, order: str) -> None:
    for line in start_lines(found.start, settings, order):
        click.echo(line)
    click.echo(f"Ranges to list: {found.start.holes:,}")
    click.echo(f"Requests: ~{found.requests:,}")
    ceiling = settings.max_requests_per_second
    pace = f"at {ceiling:g} requests/s" if ceiling else "by the delay between list pages alone, no ceiling is set"
    click.echo(f"Time: at least {duration(found.seconds)} {pace}")
    click.echo(f"Disk: ~{size(found.bytes)}")
    click.echo("Nothing was written.")
