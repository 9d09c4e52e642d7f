"""The listening socket of a simulated API and all its connections: open, or refused for a while."""

from __future__ import annotations

import asyncio
import socket

from fetcher.simulator.connection import Connection
from fetcher.simulator.service import Service

_BACKLOG = 1024
_ROUNDS = 5


class Listener:
    """Answers on `host` and `port` (0: any free one) once `open`ed; raises OSError when the port is in use.

    A client may connect from construction on, and waits until then.
    """

    def __init__(self, service: Service, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Listening before the loop runs: an error is the caller's own.
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://[{host}]:{port}{service.prefix}" if ":" in host else f"http://{host}:{port}{service.prefix}"
        self._service = service
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._refusing_until = 0.0
        self._reopening: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Begin to answer."""
        async with self._lock:
            await self._open()

    async def refuse(self, seconds: float) -> None:
        """Reset every connection and refuse new ones for so many seconds; returns as soon as it is so."""
        loop = asyncio.get_running_loop()
        async with self._lock:
            self._refusing_until = max(self._refusing_until, loop.time() + seconds)
            if self._server is None:
                return
            await self._shut()
            # Bound but not listening: connections are refused, and nobody else gets the port.
            bound = socket.socket(self._socket.family, socket.SOCK_STREAM)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(self._socket_name)
            self._socket = bound
            await self._drop_all(reset=True)
            self._reopening = loop.create_task(self._reopen())

    async def close(self) -> None:
        """Drop all connections and the socket."""
        if self._reopening is not None:
            self._reopening.cancel()
        if self._server is not None:
            await self._shut()
        self._socket.close()
        await self._drop_all(reset=False)

    async def _shut(self) -> None:
        """Accept no more connections, and close the socket."""
        assert self._server is not None
        # asyncio forgets to close what it accepted a moment before its server: let it come to be a connection first.
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)
        self._server.close()
        self._server = None

    async def _drop_all(self, *, reset: bool) -> None:
        while self._connections:
            for connection in list(self._connections):
                connection.abort(reset=reset)
            await asyncio.sleep(0)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        self._socket_name = self._socket.getsockname()
        self._server = await loop.create_server(
            lambda: Connection(self._service, self._connections), sock=self._socket, backlog=_BACKLOG
        )

    async def _reopen(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._refusing_until - loop.time()) > 0:
            await asyncio.sleep(left)
        async with self._lock:
            await self._open()
