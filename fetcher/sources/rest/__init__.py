"""Any REST API, from a description of it: a source's class is made from one."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, create_model, model_validator
from pydantic_settings import NoDecode

from fetcher.errors import ConfigurationError
from fetcher.settings import Settings, SourceOptions
from fetcher.sources.flaws import flaw_of
from fetcher.sources.rest.description import Description
from fetcher.sources.rest.parsing import parse
from fetcher.sources.rest.source import Rest
from fetcher.sources.rest.tables import is_numbered, tables_of

ENDING = ".toml"

_HONEST = {
    "ids": "every id was asked for: an item is as it was then, until --full asks again",
    "cursor": "every item below the newest one was listed: what was added below it later is found by --full",
    "time": "every item that is older than some minutes was listed: what was added later with an older time is found by"
    " --full",
    "page": "pages by number: an item that was removed during the walk may have moved another one out of sight until"
    " the next run",
    "offset": "pages by offset: an item that was removed during the walk may have moved another one out of sight until"
    " the next run",
    "walk": "the list was walked to its end: what it showed on the way, no more; the next run lists it anew",
    "since": "the list was walked to its end, since then changes alone: what was removed is noticed by --full",
}


class RestOptions(SourceOptions):
    """What can be asked of a described API: its variables, and the secrets that it names."""

    rest_variables: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="variables as NAME=VALUE", json_schema_extra={"arguments": True}
    )

    @model_validator(mode="before")
    @classmethod
    def _told(cls, values: Any) -> Any:
        """NAME=VALUE in place of the variable of that name."""
        given = values.get("rest_variables") if isinstance(values, dict) else None
        # A secret is no variable: on a command line others can read it, and variables are stored.
        known = [name for name, field in cls.model_fields.items() if field.annotation is str]
        for each in given if isinstance(given, list | tuple) else ():
            name, equals, value = str(each).partition("=")
            if not equals or name not in known:
                there = ", ".join(f"{one}=…" for one in known) or "there are none"
                raise ValueError(f"{name}: is not one of the variables: {there}")
            values = {**values, name: value}
        return values


def kind_of(description: Description, where: str) -> type[Rest]:
    """The class of a described source; `where` names the description to people. Raises ConfigurationError."""
    fields: dict[str, Any] = {
        name: (str, Field(default, description=f"what stands for `{{{name}}}`"))
        for name, default in description.variables.items()
    }
    for header, secret in description.secrets.items():
        fields[secret.env.lower()] = (SecretStr | None, Field(None, description=f"sent as `{header}`, secret"))
    for name in fields:
        if name in Settings.model_fields or name == "rest_variables" or name.startswith("model_"):
            raise ConfigurationError(f"{where}: {name} is a name of fetcher's own: take another")
    pages = description.list.pages
    caveat = _HONEST["since" if description.list.since else pages if pages in _HONEST else "walk"]
    if pages == "cursor" and not is_numbered(description):
        caveat = _HONEST["walk" if description.list.time is None else "time"]
    hints = {"max_requests_per_second": description.rate, "request_delay": description.delay}
    kind = type(
        "Described",
        (Rest,),
        {
            "__doc__": description.about or f"The API {description.name}.",
            "__module__": __name__,
            "name": description.name,
            "base_url": description.base_url,
            "tables": tables_of(description),
            "Options": create_model("Options", __base__=RestOptions, **fields),
            "settings": {name: value for name, value in hints.items() if value is not None},
            "caveat": caveat,
            "described": description,
            "detail": Rest.item if description.detail is not None else None,
            "description": description.model_dump_json(by_alias=True, exclude_defaults=True),
        },
    )
    flaw = flaw_of(kind, description.name)
    if flaw is not None:
        raise ConfigurationError(f"{where}: {flaw}")
    return kind


def shipped() -> dict[str, str]:
    """The descriptions that come with fetcher, as TOML by name."""
    files = sorted((each for each in (resources.files(__name__) / "shipped").iterdir()), key=lambda each: each.name)
    return {each.name.removesuffix(ENDING): each.read_text("utf-8") for each in files if each.name.endswith(ENDING)}


def from_file(path: Path) -> type[Rest]:
    """The source that a file describes. Raises ConfigurationError."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: no UTF-8 text") from None
    return kind_of(parse(text, str(path), path.stem), str(path))


def from_shipped(name: str) -> type[Rest]:
    """The source that a description of ours describes."""
    return kind_of(parse(shipped()[name], name, name), name)


def from_stored(text: str) -> type[Rest]:
    """The source that a database was made from."""
    found = Description.model_validate_json(text)
    return kind_of(found, found.name)
