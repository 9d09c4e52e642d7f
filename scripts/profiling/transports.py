#!/usr/bin/env python3
# ruff: noqa: ARG001 - every client is made alike
"""What a small GET costs in CPU, by HTTP client: `python scripts/profiling/transports.py [--quick] [--json FILE]`.

One answer of 3.3 kB JSON, kept-alive connections, loopback, a server in a process of its own, each client in a fresh
process; the median of five rounds, with the cheapest and the dearest. The µs are user and system time of the client's
process alone. The server shares the machine, so the rates are lower than they could be, alike for all; ratios matter,
not absolutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TLS = ROOT / "tests" / "data" / "tls"
CA = str(TLS / "ca.pem")
PATH = "/api/items/info?itemId="
HEADERS = {"User-Agent": "fetcher-profiling", "Accept": "application/json", "Accept-Encoding": "gzip, deflate"}
BODY = json.dumps({"tags": [{"id": n, "tag": f"tag {n}", "confidence": 0.5} for n in range(69)]}).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\nDate: Mon, 27 Jul 2026 12:28:53 GMT\r\nServer: nginx\r\nContent-Type: application/json\r\n"
    b"Connection: keep-alive\r\nVary: Accept-Encoding\r\nCache-Control: no-store\r\nX-Frame-Options: DENY\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
) + BODY


# -- the server -----------------------------------------------------------------------------------------------------


def serve(delay: float, tls: bool) -> None:
    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, _data: bytes) -> None:
            if delay:
                loop.call_later(delay, self.transport.write, ANSWER)
            else:
                self.transport.write(ANSWER)

    loop = asyncio.new_event_loop()

    async def run() -> None:
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(TLS / "server.pem")
        server = await loop.create_server(Protocol, "127.0.0.1", 0, ssl=context, backlog=512)
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)  # Until whoever started it is gone.

    loop.run_until_complete(run())


# -- the clients: each gives a function to be called in each thread, which gives one that does a GET ------------------

Get = Callable[[int], bytes]


def lean(base: str, threads: int) -> Callable[[], Get]:
    import requests

    sys.path.insert(0, str(ROOT))
    from fetcher.transport import LeanAdapter

    adapter = LeanAdapter()
    return _adapter(adapter, requests.Request("GET", base, headers=HEADERS).prepare(), base)


def stock(base: str, threads: int) -> Callable[[], Get]:
    import requests
    from requests.adapters import HTTPAdapter

    adapter = HTTPAdapter(pool_maxsize=threads)
    return _adapter(adapter, requests.Request("GET", base, headers=HEADERS).prepare(), base)


def _adapter(adapter: Any, prepared: Any, base: str) -> Callable[[], Get]:
    def thread() -> Get:
        request = prepared.copy()

        def get(number: int) -> bytes:
            request.url = f"{base}{PATH}{number}"
            response = adapter.send(request, timeout=30, verify=CA)
            if response.status_code != 200:
                raise RuntimeError(response)
            content: bytes = response.content
            return content

        return get

    return thread


def session(base: str, threads: int) -> Callable[[], Get]:
    import requests

    shared = requests.Session()
    return lambda: lambda number: shared.get(f"{base}{PATH}{number}", headers=HEADERS, timeout=30, verify=CA).content


def urllib3_pool(base: str, threads: int) -> Callable[[], Get]:
    import urllib3

    pool = urllib3.connection_from_url(base, maxsize=threads, timeout=30, **_ca(base))
    return lambda: lambda number: pool.request("GET", f"{PATH}{number}", headers=HEADERS, retries=False).data


def _ca(base: str) -> dict[str, Any]:
    return {"ca_certs": CA} if base.startswith("https") else {}


def http_client(base: str, threads: int) -> Callable[[], Get]:
    import http.client

    def thread() -> Get:
        connection = http.client.HTTPConnection(base.partition("://")[2], timeout=30)

        def get(number: int) -> bytes:
            connection.request("GET", f"{PATH}{number}", headers=HEADERS)
            return connection.getresponse().read()

        return get

    return thread


def pycurl_handle(base: str, threads: int) -> Callable[[], Get]:
    import io

    import pycurl  # type: ignore[import-untyped, unused-ignore]

    def thread() -> Get:
        handle = pycurl.Curl()
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.TIMEOUT, 30)
        handle.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in HEADERS.items()])
        if base.startswith("https"):
            handle.setopt(pycurl.CAINFO, CA)

        def get(number: int) -> bytes:
            body = io.BytesIO()
            handle.setopt(pycurl.URL, f"{base}{PATH}{number}")
            handle.setopt(pycurl.WRITEDATA, body)
            handle.perform()
            return body.getvalue()

        return get

    return thread


CLIENTS: dict[str, tuple[str, Callable[[str, int], Callable[[], Get]], bool]] = {
    "lean": ("LeanAdapter, `adapter.send`", lean, True),
    "pycurl": ("pycurl, a handle a thread", pycurl_handle, True),
    "http.client": ("http.client, a connection a thread", http_client, False),
    "urllib3": ("urllib3, one pool", urllib3_pool, True),
    "stock": ("requests, stock `adapter.send`", stock, False),
    "session": ("requests, one `Session`", session, False),
}


def measure(client: str, base: str, threads: int, seconds: float) -> dict[str, float]:
    """Run in the child: so many threads for so long; µs of CPU a request, and requests a second."""
    make = CLIENTS[client][1](base, threads)
    counts = [0] * threads
    errors: list[BaseException] = []
    ready = threading.Barrier(threads + 1)
    end = float("inf")

    def work(number: int) -> None:
        try:
            get = make()
            for i in range(5):  # Connections, caches, lazy imports.
                if get(i) != BODY:
                    raise RuntimeError("a wrong body")
            ready.wait()
            ready.wait()
            done = 0
            while time.perf_counter() < end:
                get(number * 1_000_000 + done)
                done += 1
            counts[number] = done
        except BaseException as error:  # noqa: BLE001 - reported by the parent
            errors.append(error)
            ready.abort()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        ready.wait()
        cpu, began = time.process_time(), time.perf_counter()
        end = began + seconds
        ready.wait()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    return {"cpu_us": cpu / sum(counts) * 1e6, "rate": sum(counts) / took}


# -- the comparison -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(delay: float, tls: bool) -> Any:
    command = [sys.executable, __file__, "--serve", str(delay), *(["--tls"] if tls else [])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http{'s' if tls else ''}://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


def child(client: str, base: str, threads: int, seconds: float) -> dict[str, float] | str:
    command = [sys.executable, __file__, "--child", client, base, str(threads), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode:
        return (done.stderr.strip() or "failed").splitlines()[-1]
    result: dict[str, float] = json.loads(done.stdout)
    return result


def compare(seconds: float, rounds: int) -> dict[str, Any]:
    """Every client's median round, and what its cheapest and dearest cost.

    The rounds go round the clients, so that noise from outside meets all alike.
    """
    cases = [("plain", 20, 0.0, False), ("tls", 20, 0.0, True), ("latency", 50, 0.05, False)]
    results: dict[str, Any] = {client: {} for client in CLIENTS}
    for case, threads, delay, tls in cases:
        samples: dict[str, list[dict[str, float]]] = {client: [] for client in CLIENTS}
        for _ in range(rounds):
            for client, (_, _, with_tls) in CLIENTS.items():
                if (tls and not with_tls) or "error" in results[client]:
                    continue
                with server(delay, tls) as base:
                    found = child(client, base, threads, seconds)
                if isinstance(found, str):
                    results[client]["error"] = found
                else:
                    samples[client].append(found)
                print(f"{case}: {client}: {found}", file=sys.stderr)
        for client, found_all in samples.items():
            if found_all:
                by_cost = sorted(found_all, key=lambda found: found["cpu_us"])
                median = results[client][case] = dict(by_cost[len(by_cost) // 2])
                median["cpu_us_low"], median["cpu_us_high"] = by_cost[0]["cpu_us"], by_cost[-1]["cpu_us"]
                if delay:
                    median["share"] = median["rate"] / (threads / delay)
    return results


def _spread(found: dict[str, float]) -> str:
    return f"{found['cpu_us']:.0f} ({found['cpu_us_low']:.0f}–{found['cpu_us_high']:.0f})"


def table(results: dict[str, Any]) -> str:
    lines = [
        "| client | µs CPU a request, 20 threads | requests/s | with TLS: µs | share of workers/latency, 50 × 50 ms |",
        "|---|---|---|---|---|",
    ]
    for client, found in results.items():
        label = CLIENTS[client][0]
        if "error" in found:
            lines.append(f"| {label} | not measured: {found['error']} | | | |")
            continue
        tls = _spread(found["tls"]) if "tls" in found else "–"
        lines.append(
            f"| {label} | {_spread(found['plain'])} | {found['plain']['rate']:,.0f} | {tls} "
            f"| {found['latency']['share']:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round: rough figures in half a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--serve", type=float, metavar="DELAY", help=argparse.SUPPRESS)
    parser.add_argument("--tls", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve, options.tls)
    elif options.child:
        client, base, threads, seconds = options.child
        print(json.dumps(measure(client, base, int(threads), float(seconds))))
        sys.stdout.flush()
        os._exit(0)  # Nobody closes the connections in other threads, and nobody needs to.
    else:
        results = compare(0.5 if options.quick else 2.0, 1 if options.quick else 5)
        where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
        print(f"{where}, a body of {len(BODY):,} bytes\n\n{table(results)}")
        if options.json:
            options.json.write_text(json.dumps({"where": where, "clients": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
