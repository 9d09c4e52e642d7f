"""What a simulated embeddings API makes of texts, and what it refuses."""

from __future__ import annotations

import hashlib
import math
import string
import struct
import sys
from array import array
from collections.abc import Sequence
from importlib.util import find_spec

BAD_WORD = "unembeddable"
"""A text with this word is always refused."""

# To split a text is five times as fast as to find its words by a pattern.
_NO_WORDS = str.maketrans(dict.fromkeys(string.punctuation, " "))
_SPOTS = 4
"""Numbers of a vector that a word has a part in."""

_HEAVIEST = 12
_MOST_WORDS = 200_000
"""Words remembered at most: then it begins anew."""


class EmbeddingsWorld:
    """Vectors of `dimension` numbers by a `model` of that name; the same text and seed give the same vector.

    A vector is the sum of those of the text's words, longer words weighing more, at length 1: texts that share words
    are near each other. Refused are more than `max_batch` texts at once, a text of more than `max_tokens` (4 bytes
    each), one with the word `bad_word`, whoever does not send `key` (None: nobody needs one) and any other model.
    """

    def __init__(
        self,
        seed: int = 0,
        dimension: int = 256,
        *,
        model: str = "text-embedding-3-small",
        key: str | None = None,
        max_batch: int = 2048,
        max_tokens: int = 8192,
        bad_word: str = BAD_WORD,
    ) -> None:
        if not 1 <= dimension <= 2**15 - 1:
            raise ValueError(f"dimension must be from 1 to {2**15 - 1}: {dimension}")
        self.seed = seed
        self.dimension = dimension
        self.model = model
        self.key = key
        self.max_batch = max_batch
        self.max_tokens = max_tokens
        self.bad_word = bad_word
        self._words = _Words(seed, dimension)
        self._sums = _sums_by_numpy if find_spec("numpy") is not None else _sums

    def is_bad(self, text: str) -> bool:
        """Whether a text has the word that is always refused."""
        return self.bad_word in text

    @staticmethod
    def tokens(text: str) -> int:
        """How many tokens a text is taken for."""
        return -(-len(text.encode()) // 4)

    def vectors(self, texts: Sequence[str], dimensions: int | None = None) -> list[bytes]:
        """A vector for each text, little-endian float32; of only its first `dimensions` numbers where asked for."""
        spots = [self._words.spots(text) for text in texts]
        return self._sums(spots, self.dimension, dimensions or self.dimension)


class _Words(dict[str, bytes]):
    """Where in a vector a word has its part, and how much: _SPOTS pairs of 16 bits each."""

    def __init__(self, seed: int, dimension: int) -> None:
        self._salt = struct.pack("<q", seed)
        self._dimension = dimension

    def __missing__(self, word: str) -> bytes:
        draws = struct.unpack(
            f"<{_SPOTS}I", hashlib.blake2b(word.encode(), digest_size=_SPOTS * 4, key=self._salt).digest()
        )
        weight = min(len(word), _HEAVIEST)
        pairs = [each for draw in draws for each in ((draw >> 1) % self._dimension, weight if draw & 1 else -weight)]
        self[word] = found = struct.pack(f"={2 * _SPOTS}h", *pairs)
        return found

    def spots(self, text: str) -> bytes:
        """Those of all words of a text; one without any is a word itself."""
        if len(self) > _MOST_WORDS:
            self.clear()
        return b"".join(map(self.__getitem__, text.lower().translate(_NO_WORDS).split())) or self[text]


# Both add whole numbers, so that they come to the same vectors to the last bit.


def _sums(texts: Sequence[bytes], dimension: int, kept: int) -> list[bytes]:
    vectors = []
    for spots in texts:
        pairs = array("h", spots)
        sums = [0] * dimension
        for place, weight in zip(pairs[::2], pairs[1::2], strict=True):
            sums[place] += weight
        del sums[kept:]
        length = math.sqrt(sum(each * each for each in sums))
        if not length:
            # Words can cancel each other out.
            sums[0], length = 1, 1.0
        vector = array("f", [each / length for each in sums])
        if sys.byteorder == "big":
            vector.byteswap()
        vectors.append(vector.tobytes())
    return vectors


def _sums_by_numpy(texts: Sequence[bytes], dimension: int, kept: int) -> list[bytes]:
    import numpy as np

    pairs = np.frombuffer(b"".join(texts), np.int16).reshape(-1, 2)
    of_text = np.repeat(np.arange(len(texts)) * dimension, [len(each) // 4 for each in texts])
    sums = np.bincount(pairs[:, 0] + of_text, pairs[:, 1], len(texts) * dimension).reshape(-1, dimension)[:, :kept]
    lengths = np.sqrt((sums * sums).sum(1))
    sums[lengths == 0, 0] = 1
    lengths[lengths == 0] = 1
    packed = (sums / lengths[:, None]).astype("<f4").tobytes()
    return [packed[begin : begin + 4 * kept] for begin in range(0, len(packed), 4 * kept)]
