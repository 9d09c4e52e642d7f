"""The remote APIs on loopback: a deterministic pr0gramm to develop, test and try the fetcher against."""

from __future__ import annotations

from fetcher.simulator.faults import Answer
from fetcher.simulator.server import Simulator
from fetcher.simulator.world import World

__all__ = ["Answer", "Simulator", "World"]
