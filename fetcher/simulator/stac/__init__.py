"""A STAC API on loopback: deterministic items, the ways in which real servers page, and what they do wrong."""

from __future__ import annotations

from fetcher.simulator.stac.dialect import MATCHED, NEXT_STYLES, QUIRKS, Dialect
from fetcher.simulator.stac.world import StacWorld

__all__ = ["MATCHED", "NEXT_STYLES", "QUIRKS", "Dialect", "StacWorld"]
