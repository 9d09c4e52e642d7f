"""From a batch of texts to their vectors: by as few requests as the embedder takes, and around what it refuses."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterable, Mapping, Sequence

from fetcher.embedders import Embedder
from fetcher.errors import RequestFailed
from fetcher.model import Outcome

_REFUSED = (400, 413, 422)
"""How an API says that it will not do what is asked, whenever it is asked."""

_VARIABLE = re.compile(r"\S*\d\S*")
"""What may differ in two messages that say the same: a count, an index, the id of a request."""


class Accepted:
    """What an embedder has been seen to take; safe to share between threads.

    Batches of one run share it: the most texts that go into a request is learned once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._largest = 0
        self._most: int | None = None

    @property
    def works(self) -> bool:
        """Whether there ever was a good answer."""
        return self._largest > 0

    def most(self, wanted: int) -> int:
        """How many texts to send at once, `wanted` at most."""
        return wanted if self._most is None else min(wanted, self._most)

    def took(self, count: int) -> None:
        """So many texts at once were embedded."""
        if count > self._largest:
            with self._lock:
                self._largest = max(self._largest, count)

    def refused_for_number(self) -> None:
        """Texts were refused together, and each of them was embedded among fewer: as many as ever went well do."""
        with self._lock:
            self._most = self._largest


def embed_batch(
    embedder: Embedder,
    texts: Mapping[str, str],
    *,
    most: int,
    most_bytes: int,
    accepted: Accepted | None = None,
) -> Mapping[str, bytes | RequestFailed]:
    """The vector of each of `texts`, or why there is none, by the texts' keys.

    A request holds `most` texts and `most_bytes` bytes of them at most; a longer text goes alone. What is refused for
    what is in it is halved until each bad text has a failure of its own: a lasting one, if the embedder is known to
    work. When a request is not refused but fails, its texts share the error, and keep what has come of the others.
    """
    batch = _Batch(embedder, texts, accepted if accepted is not None else Accepted())
    try:
        for keys in _parts(texts, most, most_bytes):
            batch.embed(keys)
    except _Over as over:
        for key in texts:
            batch.found.setdefault(key, over.error)
    for error in batch.bad:
        error.lasting = error.lasting or (error.status in _REFUSED and batch.accepted.works)
    return batch.found


class _Over(Exception):
    """It is no use to go on with a batch now."""

    def __init__(self, error: RequestFailed) -> None:
        super().__init__(str(error))
        self.error = error


class _Batch:
    """The texts of one batch, and what has come of them."""

    def __init__(self, embedder: Embedder, texts: Mapping[str, str], accepted: Accepted) -> None:
        self.accepted = accepted
        self.found: dict[str, bytes | RequestFailed] = {}
        self.bad: list[RequestFailed] = []
        self._embedder = embedder
        self._texts = texts
        self._answered = False

    def embed(self, keys: Sequence[str]) -> bool:
        """Ask for these, in parts if need be; returns whether all of them were embedded. Raises _Over."""
        keys = [key for key in keys if key not in self.found]
        most = self.accepted.most(len(keys))
        if most < len(keys):
            parts = [self.embed(keys[begin : begin + most]) for begin in range(0, len(keys), most)]
            return all(parts)
        error = self._ask(keys) if keys else None
        if error is None:
            return True
        if error.outcome is not Outcome.MALFORMED:
            self.found.update(dict.fromkeys(keys, error))
            if error.outcome is not Outcome.UNAVAILABLE or error.status is None:
                raise _Over(error)
            return False
        if len(keys) == 1:
            self._is_bad(keys[0], error)
            return False
        middle = len(keys) // 2
        first, second = self.embed(keys[:middle]), self.embed(keys[middle:])
        whole = first and second
        if whole and error.status in (*_REFUSED, None):
            self.accepted.refused_for_number()
        return whole

    def _ask(self, keys: Sequence[str]) -> RequestFailed | None:
        try:
            vectors = self._embedder.embed([self._texts[key] for key in keys])
        except RequestFailed as error:
            return error
        self.found.update(zip(keys, vectors, strict=True))
        self.accepted.took(len(keys))
        self._answered = True
        return None

    def _is_bad(self, key: str, error: RequestFailed) -> None:
        """A text went wrong alone. Raises _Over when it is no fault of the text's."""
        first = not self.bad
        self.found[key] = error
        self.bad.append(error)
        known_to_work = self._answered or (self.accepted.works and error.status in _REFUSED)
        others = [each for each in self._texts if each not in self.found]
        if known_to_work or error.lasting or not first or not others:
            return
        # Is it the text, or would any text fare so? Another one tells, from far away in the batch: not always the same,
        # for it may be bad too.
        other = random.choice(others[len(others) // 2 :])
        again = self._ask([other])
        if again is None:
            return
        if again.outcome is not Outcome.MALFORMED:
            del self.found[key]
            self.bad.clear()
            raise _Over(again)
        if (again.status, _constant(again)) == (error.status, _constant(error)):
            del self.found[key]
            self.bad.clear()
            raise _Over(
                RequestFailed(
                    Outcome.MALFORMED,
                    f"{error} (so for two texts, each asked for alone)",
                    status=error.status,
                    body=error.body,
                )
            )
        self.found[other] = again
        self.bad.append(again)


def _constant(error: RequestFailed) -> str:
    return _VARIABLE.sub("", str(error))


def _parts(texts: Mapping[str, str], most: int, most_bytes: int) -> Iterable[Sequence[str]]:
    """Keys that go into a request each, by the number and the bytes of their texts."""
    part: list[str] = []
    held = 0
    for key, text in texts.items():
        size = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        if part and (len(part) == most or held + size > most_bytes):
            yield part
            part, held = [], 0
        part.append(key)
        held += size
    if part:
        yield part
