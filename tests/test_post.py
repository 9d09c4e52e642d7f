"""Addresses that an API names itself, and POST: both transports send the same, to the same host alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from fetcher.client import Client
from fetcher.errors import RequestFailed
from fetcher.governor import Governor
from fetcher.model import Outcome
from fetcher.stop import Stop
from fetcher.transport import LeanAdapter

pytestmark = pytest.mark.usefixtures("no_threads_left")

Seen = tuple[str, str, dict[str, str], bytes]


class Server:
    """Notes each request, and answers it; `/moved` leads to `/search`, `/close` is answered and the connection shut."""

    def __init__(self) -> None:
        seen: list[Seen] = []
        self.seen = seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # One write for head and body: else the second waits for an acknowledgement.
            wbufsize = -1

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen.append((self.command, self.path, headers, body))
                text = json.dumps({"was": body.decode()}).encode()
                self.send_response(307 if self.path == "/moved" else 200)
                if self.path == "/moved":
                    self.send_header("Location", "/search")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
                self.close_connection = self.path == "/close"

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def client(server: Server, session: requests.Session | None = None) -> Client:
    stop = Stop()
    return Client(
        server.url,
        Governor(stop, parallel=2),
        stop,
        user_agent="me",
        headers={"Authorization": SecretStr("Bearer hush")},
        session=session,
    )


def test_both_transports_post_the_same(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    lean, stock = client(server), client(server, requests.Session())
    with monkeypatch.context() as patched:
        patched.setattr(LeanAdapter, "_send_stock", None)
        told = lean.ask(f"{server.url}/search?a=b", body='{"é":1}'.encode(), headers={"X-Page": "2"})
    assert told.data == {"was": '{"é":1}'}
    assert stock.ask(f"{server.url}/search?a=b", body='{"é":1}'.encode(), headers={"X-Page": "2"}).data == told.data
    one, other = server.seen
    assert one == other
    assert one[0:2] == ("POST", "/search?a=b")
    assert one[2]["content-type"] == "application/json"
    assert one[2]["authorization"] == "Bearer hush"
    assert one[2]["x-page"] == "2"
    lean.ask("/next")
    assert server.seen[-1][0:2] == ("GET", "/next")
    assert "x-page" not in server.seen[-1][2], "headers of one request are none of the next"
    assert "content-type" not in server.seen[-1][2]
    lean.close()
    stock.close()


def test_a_post_over_a_connection_that_was_closed_meanwhile_is_sent_again(server: Server) -> None:
    asking = client(server)
    for number in range(3):
        assert asking.ask("/close", body=b"%d" % number).data == {"was": str(number)}
    assert [body for *_, body in server.seen] == [b"0", b"1", b"2"]
    asking.close()


def test_a_post_keeps_its_body_over_a_redirect_on_the_host(server: Server) -> None:
    asking = client(server)
    assert asking.ask("/moved", body=b"{}").data == {"was": "{}"}
    assert [(method, path, body) for method, path, _, body in server.seen] == [
        ("POST", "/moved", b"{}"),
        ("POST", "/search", b"{}"),
    ]
    asking.close()


@pytest.mark.parametrize("url", ["http://other.test/search", "https://other.test:9/a", "//other.test/a", "http://[/a"])
def test_an_address_on_another_host_is_not_asked(server: Server, url: str) -> None:
    asking = client(server)
    with pytest.raises(RequestFailed) as error:
        asking.ask(url, body=b"{}")
    assert error.value.outcome is Outcome.MALFORMED
    assert "\n" not in str(error.value)
    assert not server.seen
    asking.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_with_another_scheme_or_port_is_asked_for_where_the_base_is(server: Server, scheme: str) -> None:
    asking = client(server)
    asking.ask(f"{scheme}://127.0.0.1/search?token=2")
    assert server.seen[0][1] == "/search?token=2"
    asking.close()
