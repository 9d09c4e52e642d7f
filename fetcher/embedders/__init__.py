"""What turns texts into vectors: an API that speaks OpenAI's language, wordllama on this machine, or a function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


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
        it should be, or the request as a whole is refused for what is in it (a text too long, a batch too large).
        """
        ...
