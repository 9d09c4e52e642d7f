"""The service as a program: it listens, works, and ends when it is told to."""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

from fetcher.errors import ConfigurationError, Interrupted
from fetcher.service.guard import is_loopback
from fetcher.service.keys import Keys
from fetcher.service.service import Service

log = logging.getLogger("fetcher")

MOST_CONNECTIONS = 500
"""More at once are answered with 503: each that follows a job's events takes one."""

GRACE_SECONDS = 2
"""So long answers under way may take once the end has come."""


def serve(
    source: str = "pr0gramm",
    db: str | Path | None = None,
    *,
    on_ready: Callable[[Service, str], None] = lambda _service, _url: None,
    **settings: Any,
) -> None:
    """Serve until SIGTERM, which lets the batch under way end, or SIGINT, which does not; for the main thread.

    `settings` are those of `.env` in lower case. `on_ready` is told the address once it listens. Raises Interrupted
    after SIGINT, ConfigurationError, StoreError, and whatever else ends it.
    """
    _uvicorn()
    service = Service(source, db, **settings)
    keys = Keys(service.settings.api_keys)
    host = service.settings.service_host
    if not keys and not is_loopback(host):
        raise ConfigurationError(
            f"SERVICE_HOST (--host): without API_KEYS only this machine may ask, not {host};"
            " `fetcher serve --new-key` makes a key"
        )
    with _listening(host, service.settings.service_port) as listener, _signals() as told:
        service.open()
        try:
            with answering(service, keys, listener) as thread:
                on_ready(service, _url(listener))
                number = _wait(service, told, thread)
                if number == signal.SIGTERM:
                    service.drain()
        finally:
            service.close()
    if service.error is not None:
        raise service.error
    if number == signal.SIGINT:
        raise Interrupted(
            "interrupted; all that was submitted is stored, and goes on when the service is started again"
        )


@contextmanager
def answering(service: Service, keys: Keys, listener: socket.socket) -> Iterator[threading.Thread]:
    """Answer, in a thread of its own, what is asked at `listener` about a service that is open.

    Raises what ended that thread, if anything did.
    """
    from fetcher.service.app import create_app

    uvicorn = _uvicorn()
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(service, keys),
            # What is tested is what runs, whatever else is installed.
            http="h11",
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    failed: list[BaseException] = []

    def answer() -> None:
        try:
            server.run([listener])
        except BaseException as error:  # noqa: BLE001 - raised by the thread that waits for this one
            failed.append(error)

    # Not in the main thread, where it would take the signals for itself.
    thread = threading.Thread(target=answer, name="fetcher-http", daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        # First, so that whoever follows a job's events is let go at once.
        service.end()
        server.should_exit = True
        thread.join(GRACE_SECONDS + 1)
    if failed:
        raise failed[0]


def _uvicorn() -> Any:
    try:
        import fastapi  # noqa: F401
        import jinja2  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ConfigurationError(
            f"the service needs packages that are not installed ({error.name}): pip install 'fetcher[service]'"
        ) from None
    return uvicorn


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigurationError(
            f"SERVICE_HOST, SERVICE_PORT (--host, --port): cannot listen at {host}:{port}: {reason}"
        ) from None
    # Its connections inherit it. asyncio sets it only where the protocol is named, and without it the second part of an
    # answer waits for the client to confirm the first: 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listener:
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _signals() -> Iterator[SimpleQueue[int]]:
    """The first SIGINT or SIGTERM goes into a queue; a second one kills at once, which is safe."""
    told: SimpleQueue[int] = SimpleQueue()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def handle(number: int, _: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)
        told.put(number)

    before = {each: signal.signal(each, handle) for each in numbers}
    try:
        yield told
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _wait(service: Service, told: SimpleQueue[int], thread: threading.Thread) -> int | None:
    """Wait for a signal, or until the service has ended by itself; returns the signal."""
    while thread.is_alive() and not service.ended:
        try:
            return told.get(timeout=0.2)
        except queue.Empty:
            pass
    return None
