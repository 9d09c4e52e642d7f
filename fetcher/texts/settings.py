"""What can be set of reading, embedding and writing texts; read like the Settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import SecretStr, model_validator

from fetcher.settings import SourceOptions, option

LATENCY_LOWER_THRESHOLD, LATENCY_UPPER_THRESHOLD = 0.6, 1.2
"""Seconds an embedding API may take, where the settings of these names are unset."""


class TextSettings(SourceOptions):
    """How texts become vectors. Field names are the names in `.env`, in lower case."""

    parser: str | Callable[..., Any] | None = option(
        None, "--parser", "module:function that reads a file: path → chunks; unset, the file's kind decides"
    )
    domain: str | None = option(None, "--domain", "the domain of all that is read; unset: texts", min_length=1)
    category: str | None = option(
        None, "--category", "the category of all that is read; unset: the folder's name", min_length=1
    )
    reader_processes: int = option(2, "--readers", "files read at once, each by a process of its own", ge=1, le=64)
    reader_timeout: float = option(
        3600, None, "seconds in which more of a file has to come, or reading it has failed", gt=0, le=86_400
    )
    chunk_size: int = option(1000, "--chunk-size", "characters in a chunk, at most", ge=50, le=100_000)
    chunk_overlap: int = option(
        100, "--chunk-overlap", "characters that a chunk repeats of the one before it, at most", ge=0, le=50_000
    )
    embedder: str | Callable[..., Any] = option(
        "wordllama",
        "--embedder",
        "what makes the vectors: wordllama (on this machine), openai (any API that speaks its language)"
        " or module:function",
    )
    embed_base_url: str = option(
        "https://api.openai.com/v1", "--embed-url", "where the API is; /embeddings comes after it"
    )
    embed_model: str = option(
        "text-embedding-3-small", "--embed-model", "the model that the API is asked for", min_length=1
    )
    embed_api_key: SecretStr | None = option(None, None, "the key of that API")
    embed_encoding: Literal["base64", "float"] = option(
        "base64", None, "how vectors come: base64, or float where the API knows no other"
    )
    embed_batch_size: int = option(64, "--embed-batch-size", "texts a request", ge=1, le=10_000)
    embed_batch_bytes: int = option(
        256_000, None, "bytes of texts a request, at most; a longer text goes alone", ge=1_000, le=100_000_000
    )
    max_embed_concurrency: int = option(20, "--embed-workers", "requests in flight to begin with", ge=1, le=1000)
    max_embed_concurrency_min: int = option(
        2, None, "requests in flight that a slow or refusing API is still asked, at least", ge=1, le=1000
    )
    max_embed_concurrency_max: int = option(50, None, "requests in flight, at most", ge=1, le=1000)
    max_embed_requests_per_second: float = option(
        0, "--embed-max-rate", "requests begun a second, evenly spaced; 0 = no ceiling", ge=0, allow_inf_nan=False
    )
    aggregate_batch_size: int = option(
        100, None, "chunks read at once while a category's file is written", ge=1, le=100_000
    )

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        least, first, most = (
            self.max_embed_concurrency_min,
            self.max_embed_concurrency,
            self.max_embed_concurrency_max,
        )
        if not least <= first <= most:
            raise ValueError(
                f"MAX_EMBED_CONCURRENCY ({first}) is not between MAX_EMBED_CONCURRENCY_MIN ({least})"
                f" and MAX_EMBED_CONCURRENCY_MAX ({most})"
            )
        if self.chunk_overlap * 2 > self.chunk_size:
            raise ValueError(
                f"CHUNK_OVERLAP ({self.chunk_overlap}) is more than half of CHUNK_SIZE ({self.chunk_size})"
            )
        return self
