"""`fetcher failures`: what failed, how, and what came instead."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from fetcher.cli.database import DATABASE
from fetcher.cli.report import plain
from fetcher.cli.selection import selection_options
from fetcher.place import Place
from fetcher.settings import Settings, load
from fetcher.stores.evidence import FailureRow
from fetcher.stores.evidence import failures as read


@click.command()
@click.argument("db", required=False, type=DATABASE)
@selection_options
@click.option("--for-good", is_flag=True, help="only what is not tried again by itself")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, metavar="N", help="at most so many"
)
@click.option("--body", is_flag=True, help="also what came instead of a good answer")
@click.option("--json", "as_json", is_flag=True, help="everything as JSON lines, one for each")
def failures(
    db: Place | None,
    outcomes: tuple[str, ...],
    keys: tuple[int | str, ...],
    for_good: bool,
    limit: int,
    body: bool,
    as_json: bool,
) -> None:
    """Show what failed in DB (DB_PATH), the latest first: what was asked for, how it ended, when it is tried again."""
    path = db or load(Settings, {}).db_path
    # One more than is shown tells whether there are more.
    found = read(path, outcomes=outcomes, keys=keys, parked=for_good, limit=limit + 1)
    if as_json:
        for each in found[:limit]:
            click.echo(json.dumps({**asdict(each), "body": _text(each.body)}))
        return
    if not found:
        click.echo("Nothing failed." if not (outcomes or keys or for_good) else "Nothing that failed fits.")
        return
    for line in _table([_cells(each) for each in found[:limit]]):
        click.echo(line)
    if body:
        for each in found[:limit]:
            click.echo(f"\n--- {each.stage} {each.key}")
            click.echo(plain(_text(each.body) or "(nothing came)", keep="\n"))
    if len(found) > limit:
        click.echo(f"… and more: --limit shows them, now {limit}", err=True)


_HEAD = ("STAGE", "KEY", "OUTCOME", "TRIES", "LAST", "NEXT", "WHY")


def _cells(each: FailureRow) -> tuple[str, ...]:
    due = "failed for good" if each.due_at is None else f"from {_when(each.due_at)}" if each.due_at else "now"
    return (
        each.stage,
        plain(str(each.key)),
        each.outcome,
        str(each.attempts),
        _when(each.failed_at),
        due,
        plain(f"{each.where}: {each.message}" if each.where else each.message),
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in [_HEAD, *rows]) for at in range(len(_HEAD) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in [_HEAD, *rows]
    ]


def _text(body: bytes | None) -> Any:
    return None if body is None else body.decode(errors="backslashreplace")


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%m-%d %H:%M:%S")
