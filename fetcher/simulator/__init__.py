"""The remote APIs on loopback: deterministic ones to develop, test and try the fetcher against.

`Simulator(World())` is a healthy pr0gramm, `Simulator(StacWorld())` a STAC API in the `dialect` it is given,
`Simulator(RestWorld())` a REST API by every way of paging, `Simulator(EmbeddingsWorld())` an embeddings API that speaks
OpenAI's language. `faults=` takes a function that decides about each request, `profile=` a Profile: limits, outages,
mishaps by name and share, changes while it is watched. `PROFILES` are those that have a name.
"""

from __future__ import annotations

from fetcher.simulator.embeddings import EmbeddingsWorld
from fetcher.simulator.faults import Answer, Ending
from fetcher.simulator.limiter import Limit, Window
from fetcher.simulator.mishaps import MISHAPS
from fetcher.simulator.profile import Knee, Login, Outage, Profile, Share
from fetcher.simulator.profiles import PROFILES
from fetcher.simulator.rest import RestWorld
from fetcher.simulator.server import Simulator
from fetcher.simulator.stac import Dialect, StacWorld
from fetcher.simulator.world import World

__all__ = [
    "MISHAPS",
    "PROFILES",
    "Answer",
    "Dialect",
    "EmbeddingsWorld",
    "Ending",
    "Knee",
    "Limit",
    "Login",
    "Outage",
    "Profile",
    "RestWorld",
    "Share",
    "Simulator",
    "StacWorld",
    "Window",
    "World",
]
