"""The remote APIs on loopback: a deterministic pr0gramm to develop, test and try the fetcher against.

`Simulator(World())` is a healthy one. `faults=` takes a function that decides about each request, `profile=` a Profile:
limits, outages, mishaps by name and share, changes while it is watched. `PROFILES` are those that have a name.
"""

from __future__ import annotations

from fetcher.simulator.faults import Answer, Ending
from fetcher.simulator.limiter import Limit, Window
from fetcher.simulator.mishaps import MISHAPS
from fetcher.simulator.profile import Knee, Login, Outage, Profile, Share
from fetcher.simulator.profiles import PROFILES
from fetcher.simulator.server import Simulator
from fetcher.simulator.world import World

__all__ = [
    "MISHAPS",
    "PROFILES",
    "Answer",
    "Ending",
    "Knee",
    "Limit",
    "Login",
    "Outage",
    "Profile",
    "Share",
    "Simulator",
    "Window",
    "World",
]
