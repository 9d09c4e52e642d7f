"""What was learned about a host, to be kept for the next run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Learned:
    """What a host allows, as far as it is known.

    `rate` requests a second (None: it never refused), `cumulative` when it blocks for long after a number of them;
    `patience` is how many seconds of use it takes to come back to `rate` before more is tried; `gate` requests were in
    flight at once without it slowing down. `at` is Unix time.
    """

    rate: float | None
    patience: float
    cumulative: bool
    gate: float
    at: float

    def to_json(self) -> dict[str, Any]:
        """A JSON object, decoded."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Any) -> Self:
        """What `to_json` made. Raises ValueError when it is anything else."""
        if not isinstance(found, dict) or set(found) != set(cls.__dataclass_fields__):
            raise ValueError("not what was written")
        rate, cumulative = found["rate"], found["cumulative"]
        numbers = [found[name] for name in ("patience", "gate", "at")] + ([] if rate is None else [rate])
        if not all(type(each) in (int, float) and each > 0 and math.isfinite(each) for each in numbers):
            raise ValueError("a number is missing, or none that there can be")
        if not isinstance(cumulative, bool):
            raise ValueError("cumulative is neither true nor false")
        return cls(rate, found["patience"], cumulative, found["gate"], found["at"])

    def differs(self, other: Learned | None) -> bool:
        """Whether it is worth writing down when `other` is written already."""
        if other is None or (self.rate is None) != (other.rate is None) or self.cumulative != other.cumulative:
            return True
        pairs = [(self.gate, other.gate), (self.patience, other.patience), (self.rate or 1.0, other.rate or 1.0)]
        return any(abs(math.log(mine / theirs)) > math.log(1.1) for mine, theirs in pairs)
