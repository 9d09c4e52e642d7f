"""A server of raw bytes on loopback that does whatever a test tells it, however wrong."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path

TLS = Path(__file__).parent / "data" / "tls"
TIMEOUT = 10.0


class Visit:
    """One request to the server: what was asked, and the means to answer."""

    def __init__(self, server: HostileServer, sock: socket.socket, head: bytes, connection: int, number: int) -> None:
        self.server = server
        self.sock = sock
        self.head = head
        self.target = head.split(b" ")[1].decode()
        self.connection = connection  # The number of the connection, from 0.
        self.number = number  # The number of the request on it, from 0.
        self.lines = head.decode("latin-1").split("\r\n")[1:-2]

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.sock.sendall(piece)

    def reply(self, body: bytes, *headers: bytes, status: bytes = b"200 OK") -> None:
        lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
        self.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    def pause(self, seconds: float = TIMEOUT) -> bool:
        """Wait that long, or until the test is over; returns whether it is."""
        self.server.waiting.set()
        return self.server.over.wait(seconds)

    def drip(self, data: bytes, every: float = 0.02) -> None:
        for i in range(len(data)):
            self.send(data[i : i + 1])
            if self.pause(every):
                return

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Answer = Callable[[Visit], object]


class HostileServer:
    """Calls `answer` for each request, and closes the connection when that returns False or raises OSError."""

    def __init__(self, answer: Answer | bytes, tls: bool = False, family: int = socket.AF_INET) -> None:
        self.answer: Answer = answer if callable(answer) else lambda visit: visit.send(answer)
        self.context: ssl.SSLContext | None = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(TLS / "server.pem")
        self.visits: list[Visit] = []
        self.connections = 0
        self.waiting = threading.Event()  # Set when an answer pauses.
        self.over = threading.Event()  # Set at the end: pauses end.
        self.closed = threading.Semaphore(0)  # Released when a connection was closed by this side.
        self._socks: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(
            ("127.0.0.1" if family == socket.AF_INET else "::1", 0), family=family, backlog=256
        )
        self.port: int = self._listener.getsockname()[1]
        host = "127.0.0.1" if family == socket.AF_INET else "[::1]"
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"
        self._start(self._accept)

    def __enter__(self) -> HostileServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with self._lock:
            for sock in [self._listener, *self._socks]:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()
        self._listener.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                with self._lock:
                    self._socks.add(sock)
                self._start(self._serve, sock, self.connections - 1)

    def _serve(self, sock: socket.socket, connection: int) -> None:
        raw = sock
        try:
            if self.context is not None:
                sock = self.context.wrap_socket(sock, server_side=True)
                with self._lock:
                    self._socks.discard(raw)
                    self._socks.add(sock)
            number = 0
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    data = sock.recv(4096)
                    if not data:
                        return
                    head += data
                visit = Visit(self, sock, head, connection, number)
                self.visits.append(visit)
                if self.answer(visit) is False:
                    return
                number += 1
        except OSError:
            pass
        finally:
            with self._lock:
                self._socks.discard(sock)
                self._socks.discard(raw)
            sock.close()
            raw.close()
            self.closed.release()
