"""`fetcher export`: what a database holds as files for other programs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from fetcher.cli import EXIT_CODES
from fetcher.cli.database import DATABASE
from fetcher.cli.report import counted, duration, plain, size
from fetcher.errors import Interrupted
from fetcher.export import FORMATS, Exported
from fetcher.export import export as run
from fetcher.place import Place
from fetcher.settings import Settings, load
from fetcher.texts.settings import TextSettings
from fetcher.words import shown

MOST_NAMED = 3
"""Of files that belong to no group so many are named."""


@click.command(epilog=EXIT_CODES)
@click.argument("db", type=DATABASE, required=False)
@click.option(
    "--format", "format_", type=click.Choice(list(FORMATS)), default="ndjson", show_default=True, help="of the files"
)
@click.option("--table", metavar="NAME", help="a table or view; default: chunks if there are any, else the items")
@click.option(
    "--by", metavar="COLUMN,…", help="a file for each combination of values  [chunks as json: domain,category]"
)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="the folder for files; default: to stdout")
@click.option("--vectors", is_flag=True, help="each chunk with its vector; not in csv")
@click.option(
    "--json-column", "json_columns", multiple=True, metavar="COLUMN", help="holds JSON, which a view does not tell"
)
def export(
    db: Place | None,
    format_: str,
    table: str | None,
    by: str | None,
    out: Path | None,
    vectors: bool,
    json_columns: tuple[str, ...],
) -> None:
    """Write the chunks of DB (DB_PATH), or its items, as JSON, lines of JSON, CSV or Parquet; also while a run goes on.

    Files that would not change are left alone, others are replaced as a whole. With --by DIR gets a file for each
    combination of values, DIR/DOMAIN/CATEGORY.json for one.
    """
    path = db or load(Settings, {}).db_path
    columns = None if by is None else [each.strip() for each in by.split(",") if each.strip()]
    began = time.monotonic()
    with tqdm(unit=" rows", unit_scale=True, file=sys.stderr, disable=None, leave=False, mininterval=0.2) as bar:
        try:
            done = run(
                path,
                out,
                format=format_,
                table=table,
                by=columns,
                vectors=vectors,
                json_columns=json_columns,
                batch=load(TextSettings, {}).aggregate_batch_size,
                to=None if out is not None else sys.stdout.buffer,
                on_rows=_shower(bar),
            )
        except BrokenPipeError:
            # Whoever reads has had enough. Python is not to complain when it ends either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        except KeyboardInterrupt:
            raise Interrupted("interrupted; the files in place are whole: run again for the others") from None
    for line in _said(done, out, time.monotonic() - began):
        click.echo(line, err=True)


def _shower(bar: tqdm[Any]) -> Callable[[int], None]:
    """What moves the bar on by so many rows."""

    def show(rows: int) -> None:
        bar.update(rows)

    return show


def _said(done: Exported, out: Path | None, seconds: float) -> list[str]:
    """What was done, in one line, and what else there is to know."""
    rows = f"{counted(done.rows, 'row')} of {plain(done.table)}, {size(done.bytes)}, in {duration(seconds)}"
    lines = [f"Exported {rows}"]
    if out is not None:
        lines = [f"{plain(shown(out))}: {counted(done.written, 'file')} written, {done.unchanged:,} unchanged; {rows}"]
    if done.left_out:
        names = ", ".join(map(plain, done.left_out))
        lines.append(f"Without {names}: --table exports them, --out without --by has them beside it, json in it")
    if done.strangers:
        named = [plain(shown(each)) for each in done.strangers[:MOST_NAMED]]
        more = ", …" if len(done.strangers) > MOST_NAMED else ""
        lines.append(
            f"{counted(len(done.strangers), 'file')} there of no group that there is now: {', '.join(named)}{more}"
        )
    return lines
