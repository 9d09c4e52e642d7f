"""`fetcher doctor`: what keeps a mirror from working, and what to do about it."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import Any

import click

from fetcher.cli.database import DATABASE
from fetcher.cli.report import plain
from fetcher.cli.running import setting_options
from fetcher.doctor import Finding, diagnose, exit_code
from fetcher.place import Place

DOCTOR_EXIT_CODES = """\b
Exit codes, of the first of these that is bad:
  0    nothing is
  2    a setting
  6    the database, its disk or its file system
  4    the login
  5    the API cannot be reached, or refuses
  2    this machine's clock
"""

_COLOURS = {"ok": "green", "note": "yellow", "bad": "red"}


@click.command(epilog=DOCTOR_EXIT_CODES)
@click.argument("db", required=False, type=DATABASE)
@setting_options
@click.option(
    "--source", default="pr0gramm", show_default=True, help="what a database that does not exist yet is to mirror"
)
@click.option("--offline", is_flag=True, help="ask the network nothing")
@click.option("--json", "as_json", is_flag=True, help="everything as one JSON object")
def doctor(db: Place | None, source: str, offline: bool, as_json: bool, **given: Any) -> int:
    """Look at all that a mirror at DB (DB_PATH) needs: settings, API, login, clock, file system, disk, database; and
    say what to do about what is not in order.

    Give it the options that `fetcher fetch` is given. It asks the API twice at most, writes nothing, and may be called
    while a run goes on.
    """
    given = {name: value for name, value in given.items() if value is not None}
    logging.getLogger("dotenv").setLevel(logging.ERROR)  # What it has to say of `.env` is a finding.
    found = diagnose(
        db,
        source=source,
        offline=offline,
        on_finding=(lambda _: None) if as_json else _show,
        **given,
    )
    code = exit_code(found)
    if as_json:
        click.echo(json.dumps({"exit_code": code, "findings": [asdict(each) for each in found]}))
    return code


def _show(each: Finding) -> None:
    mark = click.style(f"{each.level:<4}", fg=_COLOURS[each.level], bold=each.level == "bad" or None)
    click.echo(f"{mark}  {each.what:<11}  {plain(each.message)}")
    if each.remedy:
        click.echo(f"{'':<19}→ {plain(each.remedy)}")
