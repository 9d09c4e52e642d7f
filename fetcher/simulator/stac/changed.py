"""What became of the items of a simulated STAC API since it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Changes:
    """What became of a world since it was made; replaced as a whole, so that who reads sees one state."""

    number: int = 0
    removed: frozenset[tuple[int, int]] = frozenset()
    updated: Mapping[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    """How often, and when last, by collection and rank."""
    added: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    """By collection: moment and rank, ascending."""
    moments: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """The moments of what was added."""
