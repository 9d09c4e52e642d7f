"""What happens to the items of a world while it is watched: they arrive, are deleted, come back, get other flags."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from fetcher.simulator.profile import Profile
from fetcher.simulator.rest.world import RestWorld
from fetcher.simulator.stac.world import Key, StacWorld
from fetcher.simulator.world import ALL_FLAGS, World, mix

_TICK_SECONDS = 0.05


class Changes:
    """Changes a world at the rates that a profile has; which items it takes depends on the profile's seed.

    Items of pr0gramm that have arrived and those deleted before are left alone; `world.flag` tells what became of an
    item. STAC items and those of a REST API have no flags, they are updated instead.
    """

    def __init__(self, world: World | StacWorld | RestWorld, profile: Profile) -> None:
        self._seed = mix(mix(profile.seed) ^ 0xC4A)
        what: _Items | _StacItems | _RestItems
        if isinstance(world, StacWorld):
            what = _StacItems(world)
        else:
            what = _RestItems(world) if isinstance(world, RestWorld) else _Items(world)
        self._kinds: list[tuple[float, Callable[[int], None]]] = [
            (profile.arrive, what.arrive),
            (profile.delete, what.delete),
            (profile.undelete, what.undelete),
            (profile.reflag, what.change),
        ]
        self._done = [0] * len(self._kinds)

    async def go_on(self, now: Callable[[], float]) -> None:
        """Change the world for ever; `now` gives the seconds since the start."""
        while True:
            self.advance(now())
            await asyncio.sleep(_TICK_SECONDS)

    def advance(self, now: float) -> None:
        """Let happen what is due `now` seconds after the start."""
        for kind, (rate, change) in enumerate(self._kinds):
            while self._done[kind] < int(now * rate):
                self._done[kind] += 1
                change(mix(self._seed ^ (self._done[kind] << 2 | kind)))


class _Items:
    """What can happen to the items of pr0gramm."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ids = tuple(world.ids(ALL_FLAGS))
        self._deleted: deque[int] = deque()

    def arrive(self, _draw: int) -> None:
        self._world.arrive()

    def delete(self, draw: int) -> None:
        id = self._taken(draw)
        if id:
            self._world.delete(id)
            self._deleted.append(id)

    def undelete(self, _draw: int) -> None:
        if self._deleted:
            self._world.undelete(self._deleted.popleft())

    def change(self, draw: int) -> None:
        id = self._taken(draw)
        if id:
            others = [flag for flag in (1, 2, 4, 8, 16) if flag != self._world.flag(id)]
            self._world.reflag(id, others[(draw >> 32) % len(others)])

    def _taken(self, draw: int) -> int:
        """An item that is there, 0 when what was drawn is not."""
        if not self._ids:
            return 0
        id = self._ids[draw % len(self._ids)]
        return id if self._world.flag(id) else 0


class _StacItems:
    """What can happen to STAC items; the world draws which."""

    def __init__(self, world: StacWorld) -> None:
        self._world = world
        self._deleted: deque[Key] = deque()

    def arrive(self, _draw: int) -> None:
        self._world.add()

    def delete(self, _draw: int) -> None:
        with suppress(ValueError):
            self._deleted += self._world.remove(1)

    def undelete(self, _draw: int) -> None:
        if self._deleted:
            self._world.restore([self._deleted.popleft()])

    def change(self, _draw: int) -> None:
        with suppress(ValueError):
            self._world.update(1)


class _RestItems:
    """What can happen to the items of a REST API."""

    def __init__(self, world: RestWorld) -> None:
        self._world = world
        self._removed: deque[int] = deque()

    def arrive(self, _draw: int) -> None:
        self._world.arrive()

    def delete(self, draw: int) -> None:
        ids = self._world.ids()
        if ids:
            self._removed.append(ids[draw % len(ids)])
            self._world.remove(self._removed[-1])

    def undelete(self, _draw: int) -> None:
        if self._removed:
            self._world.restore(self._removed.popleft())

    def change(self, draw: int) -> None:
        ids = self._world.ids()
        if ids:
            self._world.update(ids[draw % len(ids)])
