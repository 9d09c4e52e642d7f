"""Vectors as the database keeps them, little-endian float32, and what makes one unusable."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Sequence
from typing import Any

SIZE = 4
"""Bytes of a number."""


class Unusable(Exception):
    """What came is no vector for each text; says why."""


def packed(numbers: Any) -> bytes:
    """The vector of a sequence of numbers, or of anything that numpy makes an array of. Raises Unusable."""
    if isinstance(numbers, str | bytes | bytearray | memoryview):
        raise Unusable(f"a vector that is no list of numbers but {type(numbers).__name__}")
    try:
        if hasattr(numbers, "__array__"):
            import numpy

            row = numpy.asarray(numbers, dtype="<f4")
            if row.ndim != 1:
                raise Unusable(f"a vector of {row.ndim} dimensions instead of a row of numbers")
            return row.tobytes()
        vector = array("f", numbers)
    except (TypeError, ValueError, OverflowError) as error:
        raise Unusable(f"a vector that is no list of numbers ({error})") from None
    if sys.byteorder == "big":
        vector.byteswap()
    return vector.tobytes()


def checked(vectors: Sequence[bytes], count: int, dimension: int | None = None) -> list[bytes]:
    """These vectors, proven to be `count` usable ones of one dimension, which is `dimension` where it is given.

    Raises Unusable: a number that is infinite or none, and a vector of zeros, which points nowhere, are no results.
    """
    if len(vectors) != count:
        raise Unusable(f"{len(vectors)} vectors for {count} texts")
    if not count:
        return []
    sizes = set(map(len, vectors))
    if dimension is not None:
        sizes.add(dimension * SIZE)
    if len(sizes) != 1:
        raise Unusable(f"vectors of {' and '.join(f'{size / SIZE:g}' for size in sorted(sizes))} dimensions")
    (size,) = sizes
    if not size or size % SIZE:
        raise Unusable(f"vectors of {size} bytes")
    if not are_finite(b"".join(vectors)):
        raise Unusable("a number that is infinite or none in a vector")
    for vector in vectors:
        # Of either sign, or so small that they are none.
        if not vector.strip(b"\x00\x80"):
            raise Unusable("a vector of zeros")
    return list(vectors)


def are_finite(numbers: bytes) -> bool:
    """Whether no float32 among these is infinite or none."""
    # Of those that are not, the last byte is one of two; the other way round that does not hold.
    last = numbers[SIZE - 1 :: SIZE]
    if b"\x7f" not in last and b"\xff" not in last:
        return True
    found = array("f", numbers)
    if sys.byteorder == "big":
        found.byteswap()
    # Added up as doubles finite ones stay finite, however many; any other makes the sum infinite or none.
    return math.isfinite(sum(found))
