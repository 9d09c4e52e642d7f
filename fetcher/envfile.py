"""A `.env` file changed in place: some values are set, all else stays as it is."""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from fetcher.errors import ConfigurationError

NEW_MODE = 0o600
"""A login may come to stand in it."""

_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class Change:
    """One setting: its value before, None where no line set it, and now."""

    name: str
    before: str | None
    now: str


def set_values(path: Path, values: Mapping[str, str]) -> list[Change]:
    """Have the file at `path` set each of `values`; returns what is not as it was.

    A line that sets a name already is changed, the last one where there are several, for that one counts; else a new
    line comes below one that is commented out, or at the end. The file is replaced as a whole once it is written, and
    keeps its mode. Raises ConfigurationError.
    """
    path = Path(os.path.realpath(path))
    try:
        before = path.read_bytes().decode() if path.exists() else ""
        text, changes = changed(before, values)
        if changes:
            _replace(path, text.encode())
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path.name} is not UTF-8 text") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {os.strerror(error.errno or 0)}") from None
    return changes


def refuse_unwritable(path: Path) -> None:
    """Raises ConfigurationError where `set_values` would, as far as that can be told beforehand."""
    path = Path(os.path.realpath(path))
    effective = {"effective_ids": True} if os.access in os.supports_effective_ids else {}
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path} cannot be written: it is no file")
    if not path.parent.is_dir():
        raise ConfigurationError(f"{path} cannot be written: its folder is not there")
    if not os.access(path.parent, os.W_OK | os.X_OK, **effective):
        raise ConfigurationError(f"{path} cannot be written: its folder is read-only")


def changed(text: str, values: Mapping[str, str]) -> tuple[str, list[Change]]:
    """The text of a `.env` file with `values` set, and what was changed."""
    mark = _BOM if text.startswith(_BOM) else ""
    end = "\r\n" if "\r\n" in text else "\n"
    bindings = list(parse_stream(io.StringIO(text, newline="")))
    pieces = [each.original.string for each in bindings]
    changes = []
    for name, value in values.items():
        at = _last(bindings, name)
        before = bindings[at].value if at is not None else None
        if before == value:
            continue
        changes.append(Change(name, before, value))
        if at is not None:
            pieces[at] = _with_value(pieces[at], name, value)
            continue
        at = _commented(pieces, name)
        new = f"{name}={value}{end}"
        if at is None:
            if pieces and not pieces[-1].endswith(("\n", "\r")):
                pieces[-1] += end
            at = len(pieces)
        else:
            if not pieces[at].endswith(("\n", "\r")):
                pieces[at] += end
            at += 1
        pieces.insert(at, new)
        bindings.insert(at, Binding(name, value, bindings[0].original, False) if bindings else _NONE)
    return mark + "".join(pieces), changes


_NONE = next(parse_stream(io.StringIO("#")))


def _last(bindings: list[Binding], name: str) -> int | None:
    """Where `name` is set for the last time; upper and lower case are the same, as for the settings."""
    found = [at for at, each in enumerate(bindings) if each.key is not None and each.key.upper() == name]
    return found[-1] if found else None


def _commented(pieces: list[str], name: str) -> int | None:
    pattern = re.compile(rf"\s*#\s*(?:export\s+)?{re.escape(name)}\s*=", re.IGNORECASE)
    found = [at for at, each in enumerate(pieces) if pattern.match(each)]
    return found[-1] if found else None


def _with_value(piece: str, name: str, value: str) -> str:
    """A line with another value; what stands before the name, and a comment behind the value, stay."""
    found = re.fullmatch(
        rf"(\s*(?:export[^\S\r\n]+)?'?{re.escape(name)}'?[^\S\r\n]*)(?:(=[^\S\r\n]*)(.*?))?((?:[^\S\r\n]+#[^\r\n]*)?[^\S\r\n]*[\r\n]*)",
        piece,
        re.IGNORECASE | re.DOTALL,
    )
    assert found is not None, piece
    return f"{found[1]}{found[2] or '='}{value}{found[4]}"


def _replace(path: Path, data: bytes) -> None:
    mode = path.stat().st_mode & 0o7777 if path.exists() else NEW_MODE
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
