"""Words that the tests of the service share: serve a database over a real socket, ask, and read what is told."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fetcher.service import Service
from fetcher.service.keys import Keys
from fetcher.service.server import answering
from fetcher.simulator import Simulator
from tests.helpers import FAST, eventually

SOON = {"ingest_batch_interval": 0, "max_backoff_seconds": 0.1}
"""Batches as fast as the simulator answers."""


@dataclass(frozen=True)
class Reply:
    """What was answered."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Serving:
    """A service that answers at `url`."""

    url: str
    service: Service

    @property
    def port(self) -> int:
        """Where it listens."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, **json_body: Any
    ) -> Reply:
        """One request over a connection of its own; keywords make a JSON body."""
        headers = dict(headers or {})
        if json_body:
            body = json.dumps(json_body).encode()
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        """GET; `X_API_Key="…"` is the header X-API-Key."""
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def submit(self, *ids: int, priority: str = "MEDIUM", **headers: str) -> str:
        """Submit ids, and return the id of their job."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        reply = self.ask("POST", "/ingest", headers=named, ids=list(ids), priority=priority)
        assert reply.status == 202, reply.body
        return str(reply.json["ingestion_id"])

    def completed(self, job: str, seconds: float = 30) -> Any:
        """Wait until a job is completed, and return its status."""
        found: Any = None

        def is_completed() -> bool:
            nonlocal found
            found = self.get(f"/status/{job}").json
            return bool(found["status"] == "completed")

        eventually(is_completed, seconds, lambda: f"completed: {found}")
        return found

    def connect(self) -> socket.socket:
        """A bare connection, for what no client sends."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@contextmanager
def serving(simulator: Simulator, db: Path, *, source: str = "pr0gramm", **settings: Any) -> Iterator[Serving]:
    """A service of its own over a simulator, as fast as that answers; `settings` are those of `Service`."""
    service = Service(source, db, **{"api_base_url": simulator.url, **FAST, **SOON, **settings})
    keys = Keys(service.settings.api_keys)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        service.open()
        try:
            with answering(service, keys, listener):
                yield Serving(f"http://127.0.0.1:{listener.getsockname()[1]}", service)
        finally:
            service.close()
