"""A function of the user's that makes the vectors."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

from fetcher.embedders.calls import through
from fetcher.embedders.vectors import Unusable, checked, packed
from fetcher.errors import ConfigurationError, FetcherError, RequestFailed
from fetcher.governor import Governor
from fetcher.model import Outcome
from fetcher.transform import load
from fetcher.words import said

log = logging.getLogger("fetcher")

_SETTING = "EMBEDDER (--embedder)"


class Function:
    """Calls a function with a list of texts; it gives a vector for each: lists of numbers, or an array of numpy's.

    What it raises is a `malformed` request, unless it is a RequestFailed, which says itself what it is.
    """

    def __init__(self, given: str | Callable[..., Any], governor: Governor) -> None:
        self._call = load(given, _SETTING) if isinstance(given, str) else given
        self.name = named(given)
        self._governor = governor
        self._dimension: int | None = None
        _check(self._call, self.name)

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        """A vector for each text. Raises RequestFailed."""
        return through(self._governor, lambda: self._embed(list(texts)))

    def close(self) -> None:
        """Nothing is held."""

    def _embed(self, texts: list[str]) -> list[bytes]:
        try:
            vectors = checked(self._packed(self._call(texts)), len(texts), self._dimension)
        except (FetcherError, KeyboardInterrupt):
            raise
        except Unusable as error:
            raise RequestFailed(Outcome.MALFORMED, f"{self.name} gave {error}") from None
        except BaseException as error:  # Its sys.exit() or cancelled task ends no run.
            log.debug("where it happened", exc_info=True)
            what = f"{type(error).__name__}: {said(error)}".removesuffix(": ")
            raise RequestFailed(Outcome.MALFORMED, f"{self.name} failed: {what}") from None
        if vectors:
            self._dimension = len(vectors[0]) // 4
        return vectors

    @staticmethod
    def _packed(given: Any) -> list[bytes]:
        if hasattr(given, "__array__"):
            import numpy

            given = numpy.asarray(given, dtype="<f4")
            if given.ndim != 2:
                raise Unusable(f"an array of {given.ndim} dimensions instead of a row for each text")
        if isinstance(given, str | bytes) or not hasattr(given, "__iter__"):
            raise Unusable(f"{type(given).__name__} instead of a vector for each text")
        return [packed(each) for each in given]


def named(given: str | Callable[..., Any]) -> str:
    """The name of a function, or what it is named by."""
    if isinstance(given, str):
        return given
    module, name = getattr(given, "__module__", None), getattr(given, "__qualname__", type(given).__qualname__)
    return f"{module}:{name}" if module else name


def _check(call: Callable[..., Any], name: str) -> None:
    if inspect.iscoroutinefunction(call):
        raise ConfigurationError(f"{_SETTING}: {name} is async: a plain function is needed")
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return  # Some functions written in C do not tell.
    try:
        signature.bind([])
    except TypeError:
        raise ConfigurationError(f"{_SETTING}: {name}{signature} cannot be called with a list of texts") from None
