"""What the commands that run a mirror share: an option for each setting, and telling how the run goes."""

from __future__ import annotations

import gc
import logging
import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_origin

import click
from pydantic_settings import BaseSettings

from fetcher.all_settings import all_settings
from fetcher.cli.report import Reporter, place, start_logging
from fetcher.errors import FetcherError, Interrupted
from fetcher.mirror import source_for
from fetcher.model import Order, Summary
from fetcher.place import Place, place_of, without_secrets
from fetcher.settings import ENV_FILE, Settings, further_arguments, load, options_of, unknown_keys
from fetcher.sources import Source, is_source, registry
from fetcher.stop import Stop, stop_on_signals

F = TypeVar("F", bound=Callable[..., Any])


def _models() -> list[type[BaseSettings]]:
    return [Settings, *(kind.Options for kind in registry().values())]


def setting_options(
    command: F, *, models: Sequence[type[BaseSettings]] | None = None, without: Collection[str] = ()
) -> F:
    """Give `command` an option for each setting that has one; the models, ours and each source's, check the values."""
    seen: set[str] = set()
    # Decorators stack up from below, and --help shows the last one first.
    for model in reversed(_models() if models is None else models):
        for name, field, option in reversed(list(options_of(model))):
            if option in seen or name in without:
                continue
            seen.add(option)
            default = "" if field.default in (None, ()) else f", default {str(field.default).lower()}"
            text = f"{field.description}  [{name.upper()}{default}]"
            if get_origin(field.annotation) is tuple:
                # None, not an empty tuple, says that nothing was given.
                command = click.option(
                    option, name, metavar="VALUE", multiple=True, callback=lambda _, __, value: value or None, help=text
                )(command)
            elif field.annotation is bool:
                command = click.option(option, name, is_flag=True, default=None, help=text)(command)
            else:
                command = click.option(option, name, metavar="VALUE", help=text)(command)
    return command


def running_options(command: F) -> F:
    """Give `command` the options about telling how a run goes."""
    command = click.option("-v", "--verbose", count=True, help="one line per retry and failure; -vv says more")(command)
    return click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="progress and log as JSON lines on stdout",
    )(command)


def what_to_mirror(what: tuple[str, ...]) -> tuple[str, Place | None, dict[str, Any]]:
    """The source, the database, and the option of the source that takes all further arguments."""
    if len(what) == 1 and not is_source(what[0]):
        return "pr0gramm", place_of(what[0]), {}
    source = what[0] if what else "pr0gramm"
    db, more = place_of(what[1]) if len(what) > 1 else None, what[2:]
    if not more:
        return source, db, {}
    name = further_arguments(source_for(source, db or Path()).Options)
    if name is None:
        raise click.UsageError(f"at most a SOURCE and a DB are expected, got {len(what)} arguments: {' '.join(what)}")
    return source, db, {name: more}


def settings_for(given: Mapping[str, Any], *, verbose: int, log_format: str) -> Settings:
    """The settings of a run, once its log goes where it was asked to."""
    settings = load(Settings, {name: value for name, value in given.items() if name in Settings.model_fields})
    level = {0: settings.log_level, 1: "INFO"}.get(verbose, "DEBUG")
    start_logging(level, json_lines=log_format == "json")
    return settings


def warn_of_unknown(source: type[Source]) -> None:
    """Say which lines of `.env` are no settings."""
    for key in unknown_keys([*all_settings(), source.Options]):
        logging.getLogger("fetcher").warning("%s: %s is no setting; it is ignored", ENV_FILE, key)


def follow(
    run: Callable[..., Summary | None],
    settings: Settings,
    *,
    source: type[Source],
    db: Place,
    order: Order,
    log_format: str,
) -> Summary | None:
    """Call `run` with what tells of it and lets Ctrl-C end it; says how it began, goes on and ended."""
    spare_pandas()
    warn_of_unknown(source)
    # Batches hold thousands of rows and no cycles: by its own measure the collector looks through them all the time.
    gc.set_threshold(100_000, 20, 50)
    with Reporter(settings, order=order, db=db, json_lines=log_format == "json", position=place(source)) as reporter:
        stop = Stop()
        try:
            with stop_on_signals(stop):
                summary = run(order=order, stop=stop, on_start=reporter.start, on_progress=reporter.progress)
        except Interrupted as error:
            reporter.end(error.summary)
            raise Interrupted(f"{error}. Go on with: {same_command()}", error.summary) from None
        except FetcherError as error:
            reporter.end(error.summary)
            raise
        reporter.end(summary)
    return summary


def spare_pandas() -> None:
    """Keep sqlite-utils from loading pandas where it is installed: 80 MB and a second, and nothing here uses it.

    To be called before there are threads: pandas cannot be imported meanwhile.
    """
    if "pandas" in sys.modules:
        return
    sys.modules["pandas"] = None  # type: ignore[assignment]
    try:
        import sqlite_utils  # noqa: F401
    finally:
        del sys.modules["pandas"]


def same_command() -> str:
    """The command line as it was given."""
    as_module = Path(sys.argv[0]).name == "__main__.py"
    program = [sys.executable, "-m", "fetcher"] if as_module else ["fetcher"]
    return shlex.join([*program, *map(without_secrets, sys.argv[1:])])
