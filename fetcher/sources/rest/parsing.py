"""A description from TOML, and what is wrong with one in lines that name the key."""

from __future__ import annotations

import re
import tomllib
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from fetcher.errors import ConfigurationError
from fetcher.sources.rest.description import Auth, Child, Description, Limit, Listing, One, Signs, Since
from fetcher.words import said

_PLACES: dict[str, type[BaseModel]] = {
    "at the top": Description,
    "in [list]": Listing,
    "in [list.since]": Since,
    "in [detail]": One,
    "in [auth]": Auth,
    "in [gone] and [limited]": Signs,
    "in [limited]": Limit,
    "in [tables.NAME]": Child,
}
_KEYS: dict[str, list[str]] = {}
"""Every key that there is, for those that are misspelt, and where it may stand, for those that are misplaced."""
for _place, _model in _PLACES.items():
    for _name, _field in _model.model_fields.items():
        if _model is Limit and _name in Signs.model_fields:
            continue
        _KEYS.setdefault(_field.alias or _name, []).append(_place)


def parse(text: str, where: str, name: str) -> Description:
    """A description from TOML; `where` names it to people, `name` is its own if it has none.

    Raises ConfigurationError naming the key that is wrong.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{where}: no valid TOML: {' '.join(str(error).split())}") from None
    try:
        found = Description.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(
            "; ".join(f"{where}: {said(_explained(data, dict(each)))}" for each in error.errors())
        ) from None
    if found.name:
        return found
    own = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")
    if not own:
        raise ConfigurationError(f"{where}: name: is needed, for the file's is none")
    return found.model_copy(update={"name": own})


def _explained(data: Any, error: dict[str, Any]) -> str:
    """One thing that is wrong, in a line that begins with its key."""
    names: list[str] = []
    for part in error["loc"]:
        if isinstance(part, int):
            if not isinstance(data, list):
                continue  # One where there may be several.
            data = data[part] if part < len(data) else None
            names.append(str(part))
        elif isinstance(data, dict) and (part in data or error["type"] == "missing"):
            data = data.get(part)
            names.append(part)
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error":
        return ".".join([*names, message])
    if error["type"] == "extra_forbidden":
        message = "there is no such key"
        if names[-1] in _KEYS:
            message += f" here: it stands {' or '.join(_KEYS[names[-1]])}"
        elif near := get_close_matches(names[-1], sorted(_KEYS), 1):
            message += f", is it {near[0]}?"
    elif error["type"] == "missing":
        message = "is needed"
    elif error["type"] == "string_pattern_mismatch" and ("headers" in names or names[-1:] == ["header"]):
        message = "is no name of a header"
    elif names[-1:] == ["env"]:
        # What stands there may be the secret itself.
        message = "is the name of an environment variable, such as API_TOKEN"
    else:
        shown = "" if isinstance(error["input"], dict) else f", not {error['input']!r:.60}"
        message = f"{message[:1].lower()}{message[1:]}{shown}"
    return f"{'.'.join(names)}: {message}"
