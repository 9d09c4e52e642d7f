"""One connection to one server: opened within a deadline, written, read, and stopped from another thread.

Knows sockets and TLS, not HTTP. Errors are OSErrors (`TimeoutError` when the time is up, `ssl.SSLError`, …);
who calls gives them their public names. All times are seconds; deadlines are on the clock `time.monotonic`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import struct
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.exceptions import InsecureRequestWarning

Address = tuple[int, int, int, str, Any]
"""What `socket.getaddrinfo` gives for one address of a host."""

_BUFFER_SIZE = 16 * 1024
_FOREVER = 1e8  # A longer wait overflows some systems' clocks, and means the same.


class Connection:
    """A TCP connection, perhaps with TLS, used by one thread at a time; only `stop` may come from any thread.

    `generation` and `idle_since` belong to whoever keeps idle connections.
    """

    __slots__ = ("_armed", "_buffer", "_guard", "_poll", "_sock", "_stopped", "_tls", "generation", "idle_since")

    def __init__(self, generation: int = 0) -> None:
        # So that `stop` never touches a file number that has been given to another file; reentrant, for it may
        # come from a signal handler.
        self._guard = threading.RLock()
        self._sock: socket.socket | None = None
        self._stopped = False
        self._tls: ssl.SSLSocket | None = None
        self._armed: float | None = -1.0
        self._buffer = memoryview(bytearray(_BUFFER_SIZE))
        self._poll = select.poll()
        self.generation = generation
        self.idle_since = 0.0

    @property
    def is_new(self) -> bool:
        """Whether it is not connected yet."""
        return self._sock is None

    def open(
        self, addresses: Sequence[Address], deadline: float | None, tls: ssl.SSLContext | None = None, name: str = ""
    ) -> None:
        """Connect to the first of the addresses that answers, and shake hands if a TLS context is given.

        Each address gets an equal share of the time left: one that swallows packets must not use it up.
        """
        if not addresses:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        for tries_left in range(len(addresses), 0, -1):
            family, kind, protocol, _, address = addresses[-tries_left]
            left = _left(deadline)
            try:
                sock = socket.socket(family, kind, protocol)
                self._adopt(sock)
                self._connect(sock, address, None if left is None else left / tries_left)
                break
            except OSError:
                self.close()
                if tries_left == 1 or self._stopped:
                    raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if tls is None:
            sock.setblocking(True)
        else:
            sock.settimeout(_left(deadline))
            # A ragged end must not pass for the end of a body that lasts until the connection is closed.
            self._tls = tls.wrap_socket(
                sock, server_hostname=name, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
            self._adopt(self._tls)
            self._tls.do_handshake()
            self._tls.setblocking(False)
            sock = self._tls
        self._poll.register(sock, select.POLLIN)

    def _connect(self, sock: socket.socket, address: Any, left: float | None) -> None:
        """`sock.connect`, except that a `stop` between any two steps is noticed."""
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            self._check()  # A `stop` from before it was connecting is not remembered by every system's sockets.
            poll = select.poll()
            poll.register(sock, select.POLLOUT)
            if not poll.poll(None if left is None else max(1, left * 1000)):
                raise _timed_out()
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._check()
        if code:
            raise OSError(code, os.strerror(code))

    def _adopt(self, sock: socket.socket) -> None:
        with self._guard:
            self._sock = sock
        self._check()

    def _check(self) -> None:
        if self._stopped:
            raise ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))

    def arm(self, seconds: float | None) -> None:
        """Bound each of the following writes and reads; costs a system call only when it changes."""
        if seconds == self._armed:
            return
        sock = self._sock
        assert sock is not None
        if seconds is not None:
            seconds = min(max(seconds, 0.001), _FOREVER)
        if self._tls is None:
            # The kernel's own time limit: Python's would poll before each read, and give up the GIL for it.
            whole = int(seconds or 0)
            limit = struct.pack("@ll", whole, int(((seconds or 0) - whole) * 1e6))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._armed = seconds

    def write(self, data: bytes) -> None:
        """Send all of the data."""
        if self._tls is not None:
            self._write_tls(self._tls, data)
            return
        try:
            self._sock.sendall(data)  # type: ignore[union-attr]
        except BlockingIOError:
            raise _timed_out() from None

    def read(self) -> bytes:
        """What has arrived, at least a byte; b"" at the end, which with TLS must be a proper one."""
        if self._tls is not None:
            return self._read_tls(self._tls)
        try:
            # Into a buffer that stays: asking for 64 KiB each time and giving most of it back tears the heap to pieces.
            return bytes(self._buffer[: self._sock.recv_into(self._buffer)])  # type: ignore[union-attr]
        except BlockingIOError:
            raise _timed_out() from None

    # With TLS the kernel's limit would be renewed by each part of a record, however it drips. So the socket does
    # not block, and waits here, where Python's own limit would take a system call more for each write and read.

    def _write_tls(self, sock: ssl.SSLSocket, data: bytes) -> None:
        deadline = None if self._armed is None else time.monotonic() + self._armed
        while data:
            try:
                data = data[sock.send(data) :]
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, deadline)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, deadline)

    def _read_tls(self, sock: ssl.SSLSocket) -> bytes:
        deadline = None if self._armed is None else time.monotonic() + self._armed
        waits_for = select.POLLIN
        while True:
            if not sock.pending():
                self._wait(waits_for, deadline)
            try:
                return bytes(self._buffer[: sock.recv_into(self._buffer)])
            except ssl.SSLWantReadError:
                waits_for = select.POLLIN
            except ssl.SSLWantWriteError:
                waits_for = select.POLLOUT

    def _wait(self, event: int, deadline: float | None) -> None:
        left = _left(deadline)
        poll = self._poll
        if event != select.POLLIN:
            poll = select.poll()
            poll.register(self._sock, event)  # type: ignore[arg-type]
        if not poll.poll(None if left is None else left * 1000):
            raise _timed_out()

    def is_quiet(self) -> bool:
        """Whether it is open and nothing has arrived unasked, so that what comes next answers the next request."""
        return not self._poll.poll(0)

    def has_more(self) -> bool:
        """Whether TLS has decrypted more than was read; without TLS False: `is_quiet` will show it."""
        return self._tls is not None and self._tls.pending() > 0

    def stop(self) -> None:
        """End what it is doing, from any thread: reads and writes there fail or find the end at once, for good."""
        with self._guard:
            self._stopped = True
            if self._sock is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown, which would turn it into a plain socket under its reader.
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it, without waiting for anybody."""
        with self._guard:
            if self._sock is not None:
                self._sock.close()
                self._sock = self._tls = None


def _left(deadline: float | None) -> float | None:
    """The time that is left, never so little that it would mean "do not wait" or "for ever"."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise _timed_out()
    return min(max(left, 0.001), _FOREVER)


def _timed_out() -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """TLS settings as `requests` means them: True for its CA bundle, a file or folder of CAs, False for no check.

    Raises ssl.SSLError when there are none at that path.
    """
    if verify is False:
        # urllib3 warns at this point too; whoever switched the check off may have silenced it there.
        warnings.warn("Certificates are not verified, as asked for", InsecureRequestWarning, stacklevel=2)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        path = Path(DEFAULT_CA_BUNDLE_PATH if verify is True else verify)
        try:
            if path.is_dir():
                context = ssl.create_default_context(capath=str(path))
            else:
                context = ssl.create_default_context(cafile=str(path))
        except OSError as error:
            raise ssl.SSLError(f"no CA certificates in {path}") from error
    context.set_alpn_protocols(["http/1.1"])
    # Some builds of Python have OpenSSL 3 take a connection that was cut for one that was closed.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    return context
