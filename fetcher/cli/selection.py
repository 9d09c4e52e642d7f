"""The options that choose among failures, the same for every command that has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from fetcher.model import Outcome

F = TypeVar("F", bound=Callable[..., Any])

FAILED = [outcome.value for outcome in Outcome if outcome not in (Outcome.OK, Outcome.GONE, Outcome.LIMITED)]


class _Key(click.ParamType[int | str]):
    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:  # noqa: ARG002
        text = str(value)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else text


def selection_options(command: F) -> F:
    """Give `command` the options --outcome and --key, each as often as wanted."""
    command = click.option(
        "--key", "keys", multiple=True, type=_Key(), metavar="KEY", help="only this key; may be given again"
    )(command)
    return click.option(
        "--outcome",
        "outcomes",
        multiple=True,
        type=click.Choice(FAILED),
        help="only what ended so; may be given again",
    )(command)
