"""What marks a database as the copy of another: until it is complete nothing but the copy may use it."""

from __future__ import annotations

from fetcher.errors import StoreError

COPYING_ID = 0x66746363
"""Marks an SQLite file as a copy that is not complete ("ftcc", `PRAGMA application_id`)."""

COPYING, COPIED = "fetcher_copying", "fetcher_copied"
"""The table that says of what a database is a copy: so it is named while that is made, and once it is complete."""

RANGES, CHANGES = "fetcher_copy_ranges", "fetcher_copy_changes"
"""What has been copied so far, and what could not be copied as it was."""


def unfinished(where: object, origin: str | None) -> StoreError:
    """The error that a copy is not complete."""
    of, command = (f" of {origin}", f"fetcher copy {origin} {where}") if origin else ("", "fetcher copy")
    return StoreError(
        f"{where} is a copy{of} that is not complete: go on with `{command}`, nothing else can use it before"
    )
