"""The command line: one thin module per command, and what every command does with an error."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
import time
from typing import NoReturn

import click

from fetcher._version import __version__
from fetcher.errors import FetcherError

COMMANDS = (
    "fetch",
    "status",
    "ingest",
    "embed",
    "search",
    "export",
    "copy",
    "failures",
    "retry",
    "verify",
    "doctor",
    "tune",
    "serve",
    "simulate",
)

LEAVE_SECONDS = 0.2
"""So long threads of ours are waited for that are just about to end."""

EXIT_CODES = """\b
Exit codes:
  0    complete, or the limit asked for was reached
  1    an error of ours
  2    a setting, an option or an argument is wrong
  3    finished, but something is missing or failed for good
  4    a login is needed, or has expired
  5    the API stays unavailable, or limits us too long
  6    the database cannot be used or written
  130  interrupted
"""


class _Lazy(click.Group):
    """Imports a command's modules when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"fetcher.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(__version__, prog_name="fetcher")
def cli() -> None:
    """Mirror all of a paginated item API into a database of your own."""


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code; an error is one line on stderr, never a traceback."""
    try:
        result = cli.main(args, prog_name="fetcher", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except FetcherError as error:
        _complain(str(error))
        code = error.exit_code
    except Exception as error:
        logging.getLogger("fetcher").debug("where it happened", exc_info=True)
        _complain(f"an error of ours: {type(error).__name__}: {error} (LOG_LEVEL=DEBUG shows where)")
        code = 1
    _leave(code)


def _complain(message: str) -> None:
    click.echo(f"fetcher: {message}", err=True)


def _leave(code: int) -> NoReturn:
    """End, and do not wait for a thread of a run that has ended: it may hang in a name resolution for minutes."""
    deadline = time.monotonic() + LEAVE_SECONDS
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("fetcher-")]
    for thread in ours:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in ours):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
