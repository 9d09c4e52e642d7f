"""wordllama: a small model on this machine, its weights in its package; works offline."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fetcher.embedders.calls import through
from fetcher.embedders.vectors import Unusable, checked
from fetcher.errors import ConfigurationError, RequestFailed
from fetcher.governor import Governor
from fetcher.model import Outcome

DIMENSION = 256


class WordLlama:
    """The mean of the vectors of a text's tokens, at length 1; the same whatever it is embedded beside."""

    name = f"wordllama-{DIMENSION}"

    def __init__(self, governor: Governor) -> None:
        self._tokenizer, self._weights = _loaded()
        self._governor = governor

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        """A vector for each text. Raises RequestFailed (malformed) where one has nothing to make it of."""
        return through(self._governor, lambda: self._embed(texts))

    def close(self) -> None:
        """Nothing is held."""

    def _embed(self, texts: Sequence[str]) -> list[bytes]:
        import numpy as np

        blank = next((text for text in texts if not text.strip()), None)
        if blank is not None:
            raise RequestFailed(Outcome.MALFORMED, "a text without any word has no vector", lasting=True)
        try:
            found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except UnicodeEncodeError:
            raise RequestFailed(Outcome.MALFORMED, "a text that is no Unicode has no vector", lasting=True) from None
        vectors = np.zeros((len(texts), DIMENSION), "<f4")
        for vector, tokens in zip(vectors, found, strict=True):
            # One by one: beside a long text, padding would make all others as long.
            if tokens.ids:
                mean = self._weights[tokens.ids].mean(0, dtype=np.float32)
                length = np.linalg.norm(mean)
                vector[:] = mean / length if length else 0
        try:
            return checked([vector.tobytes() for vector in vectors], len(texts), DIMENSION)
        except Unusable as error:
            raise RequestFailed(Outcome.MALFORMED, f"wordllama gave {error}", lasting=True) from None


def _loaded() -> tuple[Any, Any]:
    """Its tokenizer and the vectors of its tokens. Raises ConfigurationError."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        import wordllama
    except ImportError as error:
        raise ConfigurationError(
            f"EMBEDDER (--embedder): wordllama needs what is not installed ({error}): pip install 'fetcher[embed]'"
        ) from None
    finally:
        # On import it takes over the log of the whole process.
        root.handlers[:] = handlers
        root.setLevel(level)
    try:
        # Without these it looks for its files on the network first, though they came with it.
        model = wordllama.WordLlama.load(
            dim=DIMENSION, cache_dir=Path(wordllama.__file__).parent, disable_download=True
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"EMBEDDER (--embedder): wordllama cannot be loaded ({error}): pip install --force-reinstall wordllama"
        ) from None
    model.tokenizer.no_padding()
    model.tokenizer.no_truncation()
    return model.tokenizer, model.embedding
