"""A simulated REST API that pages in every way that a description knows, and three that are like real ones."""

from __future__ import annotations

from fetcher.simulator.rest.world import RestWorld

__all__ = ["RestWorld"]
