"""What bounds and stops a transfer of requests' own adapter, which knows neither deadlines nor `abort`.

urllib3 bounds each read, so a server that drips can hold a thread for days. A `Watch` learns which socket its
thread's transfer uses, and ends it from outside: at the deadline, or when all is aborted.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager

_thread = threading.local()


class Watch:
    """Around one transfer of this thread; ends it after some seconds (None: never) or at `stop`, from any thread."""

    def __init__(self, seconds: float | None) -> None:
        self.expired = False
        self._stopped = False
        self._socket: Any = None
        self._guard = threading.RLock()  # Reentrant, for `stop` may come from a signal handler.
        self._timer: threading.Timer | None = None
        if seconds is not None:
            self._timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._expire)
            self._timer.daemon = True

    def __enter__(self) -> Watch:
        _thread.watch = self
        if self._timer is not None:
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        _thread.watch = None
        if self._timer is not None:
            self._timer.cancel()
        with self._guard:
            self._socket = None

    def stop(self) -> None:
        """End the transfer now, and any other that this thread starts before the watch is over."""
        with self._guard:
            self._stopped = True
            if self._socket is not None:
                # Not SSLSocket.shutdown, which would turn it into a plain socket under its reader; and a
                # TLS connection within TLS is no socket, but has one.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(getattr(self._socket, "socket", self._socket), socket.SHUT_RDWR)

    def see(self, sock: Any) -> None:
        """The transfer uses this socket from now on."""
        with self._guard:
            self._socket = sock
            if self._stopped and sock is not None:
                self.stop()

    def _expire(self) -> None:
        self.expired = True
        self.stop()


def _seen(sock: Any) -> None:
    watch: Watch | None = getattr(_thread, "watch", None)
    if watch is not None:
        watch.see(sock)


class _Connection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _seen(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _seen(self.sock)
        super().request(*args, **kwargs)


class _SecureConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _seen(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _seen(self.sock)
        super().request(*args, **kwargs)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def make_watchable(manager: PoolManager) -> None:
    """Let the connections that this pool manager makes tell the watch of their thread about themselves."""
    if type(manager).__module__.startswith("urllib3.poolmanager"):  # SOCKS has connections of its own.
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
