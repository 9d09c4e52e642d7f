"""`fetcher tune`: how many requests at once and a second a host is best asked for."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from fetcher.cli.report import plain
from fetcher.cli.running import setting_options, what_to_mirror
from fetcher.envfile import Change, refuse_unwritable, set_values
from fetcher.errors import ConfigurationError, Interrupted
from fetcher.place import Place, place_of
from fetcher.settings import ENV_FILE
from fetcher.sources import is_source
from fetcher.stop import Stop, stop_on_signals
from fetcher.stores.origin import source_of
from fetcher.tune import AT_MOST, MOST, MOST_ASKED, REQUESTS, Level, Outlook, Tuning
from fetcher.tune import tune as measure

TUNE_EXIT_CODES = """\b
Exit codes:
  0    something can be recommended
  2    a setting, an option or an argument is wrong, or .env cannot be written
  3    nothing can be recommended: too few good answers
  4    a login is needed, or has expired
  5    the API cannot be reached, or refuses already
  6    the database cannot be read
  130  interrupted; what is known by then is shown
"""

BAR = 32
"""Columns of the longest bar."""

_EIGHTHS = " ▏▎▍▌▋▊▉"

_WITHOUT_EFFECT = (
    "allow_network_file_system",
    "max_parallel_requests",
    "db_batch_size",
    "start_from",
    "full_update",
    "transform",
    "metrics_file",
    "source_type",
    "stac_windows",
)
"""Options of `fetch` that a measurement has no use for, or finds out."""


@click.command(epilog=TUNE_EXIT_CODES)
@click.argument("what", nargs=-1, metavar="[SOURCE] [DB] [NAME=VALUE]...")
@partial(setting_options, without=_WITHOUT_EFFECT)
@click.option(
    "--most", type=click.IntRange(1, MOST_ASKED), default=MOST, show_default=True, help="requests open at once, at most"
)
@click.option("--requests", type=click.IntRange(min=1), default=REQUESTS, show_default=True, help="in all, at most")
@click.option("--write", is_flag=True, help="put what is recommended into ./.env; all its other lines stay")
@click.option("--json", "as_json", is_flag=True, help="everything as one JSON object")
def tune(what: tuple[str, ...], most: int, requests: int, write: bool, as_json: bool, **given: Any) -> int:
    """Measure how many requests at once and a second the API of SOURCE (pr0gramm) is best asked for.

    It asks what a mirror would ask, details of the items that DB (DB_PATH) knows or of the first it lists, with 1, 2,
    4, … requests at once, and ends at the first refusal, when errors become more, or when more at once bring no more.
    MAX_REQUESTS_PER_SECOND is kept to, and bounds what can be found out: --max-rate 0 lifts it. The database is not
    changed.
    """
    source, db, more = _split(what)
    given = {name: value for name, value in (given | more).items() if value is not None}
    if write:
        refuse_unwritable(ENV_FILE)
    show = _Nobody() if as_json else _Table()
    stop = Stop()
    try:
        with stop_on_signals(stop):
            found = measure(
                source,
                db,
                most=most,
                requests=requests,
                stop=stop,
                on_outlook=show.outlook,
                on_level=show.level,
                **given,
            )
    except Interrupted as error:
        if error.summary is not None and (as_json or error.summary.levels):
            _end(error.summary, show, None, as_json=as_json, code=error.exit_code)
        raise
    changes = set_values(ENV_FILE, found.settings) if write else []
    _end(found, show, changes if write else None, as_json=as_json, code=found.exit_code)
    return found.exit_code


def _split(what: tuple[str, ...]) -> tuple[str, Place | None, dict[str, Any]]:
    """What `fetch` would make of it; a database alone tells its source.

    A misspelt source is no database that is yet to be made: it would have a host asked that nobody meant.
    """
    if len(what) == 1 and not is_source(what[0]):
        db = place_of(what[0])
        if isinstance(db, Path) and not db.exists():
            raise ConfigurationError(f"there is no source {what[0]!r}, and no database of that name")
        return source_of(db), db, {}
    return what_to_mirror(what)


class _Nobody:
    """Shows nothing."""

    def outlook(self, _: Outlook) -> None: ...

    def level(self, _: Level) -> None: ...

    def end(self, _: Tuning) -> None: ...


class _Table:
    """Shows what was measured, a line a level, as it goes on."""

    def __init__(self) -> None:
        self._begun = False

    def outlook(self, each: Outlook) -> None:
        ceiling = f"{each.ceiling:g} a second (MAX_REQUESTS_PER_SECOND)" if each.ceiling else "no ceiling a second"
        click.echo(f"Asking {plain(each.base_url)} for {each.what}")
        click.echo(f"as {plain(each.user_agent)}")
        click.echo(f"At most {each.requests:,} requests, 1 to {each.most} at once, {ceiling}")
        if each.ceiling:
            click.echo("The ceiling bounds what can be found out; --max-rate 0 lifts it")

    def level(self, each: Level) -> None:
        if not self._begun:
            click.echo("\nat once  requests/s  median ms  p95 ms  errors")
        self._begun = True
        click.echo(_row(each))

    def end(self, found: Tuning) -> None:
        for line in _lines(found):
            click.echo(line)


def _row(each: Level) -> str:
    if not each.answers:
        return f"{each.at_once:>7}  {'-':>10}  {'-':>9}  {'-':>6}  {each.errors:>6}"
    figures = f"{each.rate:>10.1f}  {each.median * 1000:>9.0f}  {each.p95 * 1000:>6.0f}"
    mark = "  refused" if each.refused else "  held" if each.held else ""
    return f"{each.at_once:>7}  {figures}  {each.errors:>6}{mark}"


def _lines(found: Tuning) -> list[str]:
    lines = ["", f"Ended: {_ended(found)}", _proven(found)]
    if found.repeated:
        lines.append(f"{found.repeated:,} were asked for again: a cache may have answered them")
    if found.advice is None or found.curve is None:
        return [*lines, "Nothing can be recommended: too few good answers"]
    well = [each for each in found.levels if not each.refused and each.answers]
    curve, advice = found.curve, found.advice
    lines += ["", "The curve through it, in requests a second (◆ recommended):"]
    shown = sorted({1, *(each.at_once for each in well), advice.parallel})
    longest = max(curve.throughput(n) for n in shown)
    for n in shown:
        rate = curve.throughput(n)
        mark = "◆" if n == advice.parallel else " "
        lines.append(f"{n:>7} {mark} {rate:>8.1f}  {_bar(rate / longest)}")
    lines += [
        "",
        f"Confidence: {advice.confidence}; {advice.doubt}",
        f"Rate: {advice.why}",
        *_delayed(found),
        "",
        *(f"{name}={value}" for name, value in found.settings.items()),
    ]
    return lines


def _ended(found: Tuning) -> str:
    refused = found.refused
    if refused is None:
        more = found.ended == AT_MOST and found.outlook.most < MOST_ASKED and len(found.settings) > 1
        return f"{found.ended}; --most allows more" if more else found.ended
    named = f" with {refused.status}" if refused.status else ""
    wait = f", and asks to wait {refused.retry_after:,.0f} s" if refused.retry_after else ""
    return f"{found.ended} request {refused.number:,}{named}{wait}"


def _proven(found: Tuning) -> str:
    """What the host is known to allow, and what nobody has tried."""
    if found.refused is not None:
        late = found.requests - found.refused.number
        return f"{found.requests:,} requests were made, {late:,} of them on their way when the refusal came"
    if not found.levels:
        return f"{found.requests:,} requests were made"
    return (
        f"{found.requests:,} requests in {found.seconds:.1f} s were not refused: all that is proven. A limit on\n"
        "more of them or a longer time shows itself to a run, or by --requests"
    )


def _delayed(found: Tuning) -> list[str]:
    """Where the delay between list pages holds a mirror back, not the host."""
    delay, advice = found.outlook.delay, found.advice
    if advice is None or not delay or advice.parallel / delay >= advice.rate:
        return []
    return [f"But REQUEST_DELAY={delay:g} holds a mirror to {advice.parallel / delay:.3g}/s; --delay 0 lifts it"]


def _bar(share: float) -> str:
    whole, part = divmod(round(share * BAR * 8), 8)
    return "█" * whole + (_EIGHTHS[part] if part else "")


def _end(found: Tuning, show: _Nobody | _Table, changes: list[Change] | None, *, as_json: bool, code: int) -> None:
    if as_json:
        told = {"exit_code": code, **asdict(found), "changes": [asdict(each) for each in changes or []]}
        click.echo(json.dumps(_without_nan(told)))
        return
    show.end(found)
    if changes is None or not found.settings:
        return
    click.echo()
    for each in changes:
        before = "new" if each.before is None else f"was {plain(each.before) or 'empty'}"
        click.echo(f"{ENV_FILE}: {each.name}={each.now} ({before})")
    if not changes:
        click.echo(f"{ENV_FILE} says so already")
    for name in found.settings:
        if name in os.environ:
            click.echo(f"But {name}={plain(os.environ[name])} in the environment comes before {ENV_FILE}")


def _without_nan(thing: Any) -> Any:
    if isinstance(thing, dict):
        return {name: _without_nan(value) for name, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [_without_nan(each) for each in thing]
    return None if isinstance(thing, float) and not math.isfinite(thing) else thing
