"""What every test gets: an empty folder, none of the user's settings, and simulators that end with the test."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Imported when a first database is made, with pandas where that is installed: not while a test counts seconds.
import sqlite_utils  # noqa: F401

# So that `tests.helpers` is found, and `fetcher` is the one beside it, however pytest was called.
sys.path.insert(0, str(Path(__file__).parent.parent))

from fetcher.service.settings import ServiceSettings
from fetcher.settings import Settings
from fetcher.simulator import Simulator, World
from fetcher.sources import registry
from fetcher.texts.settings import TextSettings
from tests.helpers import eventually
from tests.postgres import PostgresServer, postgres_server

_SETTINGS = {
    name
    for model in (Settings, ServiceSettings, TextSettings, *(kind.Options for kind in registry().values()))
    for name in model.model_fields
}


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty current folder, no setting or proxy in the environment, and the log as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    # The command line may end its process without waiting for a thread, and here that is the tests' own.
    monkeypatch.setattr("fetcher.cli._leave", sys.exit)
    for name in list(os.environ):
        if name.lower() in _SETTINGS or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    log = logging.getLogger("fetcher")
    before = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.level, log.propagate = before


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A database that does not exist yet, in a folder with a space in its name."""
    (tmp_path / "a folder").mkdir()
    return tmp_path / "a folder" / "mirror.db"


@pytest.fixture
def simulate() -> Iterator[Callable[..., Simulator]]:
    """Starts simulators, which end with the test: `simulate(World(...), latency=…, faults=…)`."""
    running: list[Simulator] = []

    def start(world: World, **options: Any) -> Simulator:
        running.append(Simulator(world, **options))
        return running[-1]

    yield start
    for each in running:
        each.close()


@pytest.fixture(scope="session")
def shared_simulator() -> Iterator[Simulator]:
    """One healthy simulator of 300 items for all tests that only read: do not change its world."""
    with Simulator(World(seed=1, items=300)) as simulator:
        yield simulator


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for all tests of this process that leave it running; under pytest-xdist each worker has its own.

    It takes less than a second, and no worker depends on another that may end before it.
    """
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of an empty PostgreSQL database, with a password in it."""
    return postgres.url()


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """Fails a test that leaves a thread behind; a thread on its way out gets a moment."""
    before = set(threading.enumerate())
    yield
    assert_no_new_threads(before)


def assert_no_new_threads(before: set[threading.Thread]) -> None:
    """No thread that is not in `before` lives for more than a moment."""

    def left() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each not in before]

    def where() -> str:
        frames = sys._current_frames()
        stacks = ["".join(traceback.format_stack(frames.get(each.ident or 0))) for each in left()]
        return "\n".join(["a thread is left behind", *stacks])

    eventually(lambda: not left(), 3, where)
