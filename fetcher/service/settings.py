"""What can be set of the service; read like the Settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import SecretStr, field_validator
from pydantic_settings import NoDecode

from fetcher.settings import SourceOptions, option


class ServiceSettings(SourceOptions):
    """How submitted ids are taken and worked off. Field names are the names in `.env`, in lower case."""

    service_host: str = option("127.0.0.1", "--host", "address to listen at; without API_KEYS only one of this machine")
    service_port: int = option(8000, "--port", "port to listen at; 0 = any that is free", ge=0, le=65_535)
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = option(
        (),
        None,
        "keys that may ask, secret, with commas between; best as the sha256:… that `fetcher serve --new-key` makes",
    )
    ingest_batch_size: int = option(3, "--ingest-batch-size", "ids that are triggered together", ge=1, le=10_000)
    ingest_batch_interval: float = option(
        5.0,
        "--ingest-batch-interval",
        "seconds from one batch to the next; 0 = as fast as the API is asked",
        ge=0,
        allow_inf_nan=False,
    )
    drain_seconds: float = option(
        30.0, None, "after SIGTERM, how long the batch under way may take to end", ge=0, allow_inf_nan=False
    )

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(each.strip() for each in value.split(",") if each.strip()) if isinstance(value, str) else value
