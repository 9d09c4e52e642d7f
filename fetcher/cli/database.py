"""The argument DB of the commands: a file, or a database of a PostgreSQL server."""

from __future__ import annotations

from typing import Any

import click

from fetcher.place import Place, place_of


class DatabaseType(click.ParamType[Place]):
    """Where a database is, by the form of its name."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:  # noqa: ARG002
        """The place that it names."""
        return place_of(value)


DATABASE = DatabaseType()
