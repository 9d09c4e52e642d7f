"""What turns texts into vectors: an API that speaks OpenAI's language, wordllama on this machine, or a function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from fetcher.errors import ConfigurationError

if TYPE_CHECKING:
    from fetcher.governor import Governor
    from fetcher.settings import Settings
    from fetcher.stop import Stop
    from fetcher.texts.settings import TextSettings


class Embedder(Protocol):
    """Makes vectors of texts; called from several threads at once.

    `name` is that of the model, under which the database records its vectors.
    """

    @property
    def name(self) -> str:
        """The model's name, with all that changes its vectors."""
        ...

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        """A vector for each text, in their order: little-endian float32, all of the same length.

        Raises RequestFailed: `limited` and `unavailable` as of any request; `malformed` when the answer is not what
        it should be, or the request as a whole is refused for what is in it (a text too long, a batch too large);
        `denied` when no text will fare better before a setting or the account is put right.
        """
        ...

    def close(self) -> None:
        """Give back what is held, such as connections."""
        ...


def name_of(texts: TextSettings) -> str:
    """The name of the model that is set, known without loading or asking it."""
    if texts.embedder == "openai":
        return texts.embed_model
    if texts.embedder == "wordllama":
        from fetcher.embedders.local import WordLlama

        return WordLlama.name
    from fetcher.embedders.function import named

    return named(texts.embedder)


def make(texts: TextSettings, settings: Settings, governor: Governor, stop: Stop) -> Embedder:
    """The embedder that is set; all its requests or calls go through `governor`. Raises ConfigurationError."""
    if texts.embedder == "openai":
        from fetcher.embedders.openai import OpenAI

        return OpenAI(texts, settings, governor, stop)
    if texts.embedder == "wordllama":
        from fetcher.embedders.local import WordLlama

        return WordLlama(governor)
    if isinstance(texts.embedder, str) and ":" not in texts.embedder:
        raise ConfigurationError(
            f"EMBEDDER (--embedder): expected wordllama, openai or module:function, not {texts.embedder!r}"
        )
    from fetcher.embedders.function import Function

    return Function(texts.embedder, governor)
