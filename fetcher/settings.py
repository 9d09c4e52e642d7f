"""What can be set: by option, environment variable or `./.env`, in this order; read at the edge only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from fetcher._version import __version__
from fetcher.errors import ConfigurationError
from fetcher.place import Place, validated

ENV_FILE = Path(".env")

PLACEHOLDER_PAGE = "https://fetcher.example"
"""The page that the default User-Agent names; nobody can be reached there."""

S = TypeVar("S", bound=BaseSettings)


def option(default: Any, name: str | None, description: str, **constraints: Any) -> Any:
    """A setting that the command line can give as `name` too."""
    return Field(default, description=description, json_schema_extra={"option": name} if name else None, **constraints)


class SourceOptions(BaseSettings):
    """What can be asked of one source; each source has its own, read like the Settings."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, frozen=True)


class Settings(BaseSettings):
    """How a mirror is made, whatever its source. Field names are the names in `.env`, in lower case."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, frozen=True, arbitrary_types_allowed=True)

    api_base_url: str | None = option(
        None,
        "--base-url",
        "where the API is; default: where the database was mirrored from, else the source's own address",
    )
    db_path: Annotated[Place, BeforeValidator(validated)] = option(
        Path("pr0gramm.db"), None, "the database, where no DB argument is given: a file, or postgresql://…"
    )
    allow_network_file_system: bool = option(
        False,
        "--allow-network-file-system",
        "open a database on a network file system too, where SQLite's locks do not work and it may be damaged",
    )
    max_parallel_requests: int = option(
        10,
        "--workers",
        "details in flight; listing has a slot of its own, except at 1: never two requests open",
        ge=1,
        le=1000,
    )
    min_parallel_requests: int = option(
        1, None, "requests in flight that a slow or refusing host is still asked, at least", ge=1, le=1000
    )
    request_delay: float = option(1.0, "--delay", "seconds between list pages", ge=0, allow_inf_nan=False)
    max_requests_per_second: float = option(
        10,
        "--max-rate",
        "requests begun a second, of all kinds, evenly spaced; 0 = no ceiling",
        ge=0,
        allow_inf_nan=False,
    )
    rate_limit_adjustment_threshold: int = option(
        3, None, "refusals within a minute (a pause counts as one) that lower the number in flight too", ge=1, le=1000
    )
    latency_lower_threshold: float | None = option(
        None,
        None,
        "seconds: only while answers take less, more are asked for at once; unset, the usual latency decides",
        gt=0,
        allow_inf_nan=False,
    )
    latency_upper_threshold: float | None = option(
        None,
        None,
        "seconds: when answers take more, fewer are asked for at once; unset, the usual latency decides",
        gt=0,
        allow_inf_nan=False,
    )
    db_batch_size: int = option(200, "--batch-size", "items a transaction", ge=1, le=100_000)
    db_batch_seconds: float = option(
        10, None, "commit at latest this many seconds after a batch's first result", gt=0, allow_inf_nan=False
    )
    request_timeout: float = option(
        30, None, "seconds for a whole request, first byte to last", gt=0, allow_inf_nan=False
    )
    max_retries: int = option(8, None, "tries after the first, before an item is set aside as failed", ge=0)
    max_backoff_seconds: float = option(
        300, None, "the longest wait before a retry or a probe", gt=0, allow_inf_nan=False
    )
    max_outage_seconds: float = option(
        86_400, None, "seconds without any good answer after which a run gives up", gt=0, allow_inf_nan=False
    )
    min_free_disk_mb: int = option(
        200, None, "megabytes of the disk to leave free (2 % of a small one): with less a run waits for room", ge=0
    )
    start_from: int | None = option(
        None,
        "--start-from",
        "begin at this id and include it: this run is bound to [1, N], oldest first to [N, newest]",
        ge=1,
        le=2**63 - 1,
    )
    full_update: bool = option(False, "--full", "list and fetch everything anew, or go on with the sweep still open")
    transform: str | Callable[..., Any] | None = option(
        None,
        "--transform",
        "module:function that each row goes through before it is stored: it gives the row, or None to leave it out",
    )
    user_agent: str = option(
        f"fetcher/{__version__} (+{PLACEHOLDER_PAGE})", None, "who asks; add a way to reach you", min_length=1
    )
    metrics_file: Path | None = option(
        None, "--metrics-file", "write figures of the run here, for Prometheus' textfile collector"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = option(
        "WARNING", None, "INFO and DEBUG show one line per retry and failure, as does -v"
    )

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        lower, upper = self.latency_lower_threshold, self.latency_upper_threshold
        if self.min_parallel_requests > self.max_parallel_requests:
            raise ValueError(
                f"MIN_PARALLEL_REQUESTS ({self.min_parallel_requests}) is more than"
                f" MAX_PARALLEL_REQUESTS ({self.max_parallel_requests})"
            )
        if lower is not None and upper is not None and lower > upper:
            raise ValueError(f"LATENCY_LOWER_THRESHOLD ({lower:g}) is more than LATENCY_UPPER_THRESHOLD ({upper:g})")
        return self


def load(model: type[S], given: Mapping[str, Any], env_file: Path | None = ENV_FILE) -> S:
    """The settings of `model`: what is `given` first, then the environment, then the `.env` file, then the defaults.

    Raises ConfigurationError naming the setting, its option and what is wrong, never the value of a secret.
    """
    try:
        return _made(model, given, env_file)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explained(model, dict(each)) for each in error.errors())) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{env_file} is not UTF-8 text") from None


def load_valid(model: type[S], given: Mapping[str, Any], env_file: Path | None = ENV_FILE) -> tuple[S, list[str]]:
    """The settings of `model` with the defaults in place of all that is wrong, and what is wrong in a sentence each.

    Raises UnicodeDecodeError and OSError where the `.env` file cannot be read.
    """
    try:
        return _made(model, given, env_file), []
    except ValidationError as error:
        errors = error.errors()
    wrong = {str(each["loc"][0]) for each in errors if each["loc"]}
    defaults = {name: field.default for name, field in model.model_fields.items() if name in wrong}
    return _made(model, given, env_file, **defaults), [_explained(model, dict(each)) for each in errors]


def _made(model: type[S], given: Mapping[str, Any], env_file: Path | None, **instead: Any) -> S:
    values = {name: value for name, value in given.items() if value is not None} | instead
    return model(_env_file=env_file, _env_file_encoding="utf-8", **values)


def unknown_keys(models: Iterable[type[BaseSettings]], env_file: Path = ENV_FILE) -> list[str]:
    """The names in the `.env` file that no setting has."""
    if not env_file.is_file():
        return []
    known = {name for model in models for name in model.model_fields}
    return sorted(name for name in dotenv_values(env_file, encoding="utf-8") if name.lower() not in known)


def options_of(model: type[BaseSettings]) -> Iterator[tuple[str, FieldInfo, str]]:
    """Every (field name, field, option) of `model` that the command line offers."""
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and isinstance(extra.get("option"), str):
            yield name, field, str(extra["option"])


def secrets_of(model: type[BaseSettings]) -> list[str]:
    """The names of the settings that are secret."""
    return [
        name
        for name, field in model.model_fields.items()
        if SecretStr in (field.annotation, *getattr(field.annotation, "__args__", ()))
    ]


def login_of(model: type[BaseSettings]) -> str:
    """The settings that a login consists of, in words."""
    return " and ".join(name.upper() for name in secrets_of(model)) or "the login"


def further_arguments(model: type[BaseSettings]) -> str | None:
    """The field of a source's options that takes what the command line names besides the source and the database."""
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("arguments"):
            return name
    return None


def _explained(model: type[BaseSettings], error: dict[str, Any]) -> str:
    if not error["loc"]:
        # What several settings make together says itself which.
        return str(error["msg"]).removeprefix("Value error, ")
    name = str(error["loc"][0])
    field = model.model_fields.get(name)
    options = [given for each, _, given in options_of(model) if each == name]
    label = name.upper() + (f" ({options[0]})" if options else "")
    secret = field is not None and SecretStr in (field.annotation, *getattr(field.annotation, "__args__", ()))
    value = "" if secret or isinstance(error.get("input"), dict) else f", not {error.get('input')!r:.60}"
    message = str(error["msg"])
    return f"{label}: {message[:1].lower()}{message[1:]}{value}"
