"""What the service bears: submissions and questions while it fetches, and ids from end to end beside `fetcher fetch`.

    python benchmark_service.py --json results/benchmark_service.json

The first part queues so many ids (100,000) in jobs of 100, lets the service fetch without an interval, and has clients
of their own submit five ids 100 times a second and ask for the status of a job 50 times a second, each by a kept
connection, for so many seconds (20). Whether a client fell behind its own clock is said: then the machine was the
limit. The second part submits all items of a simulated API at once and waits till they are completed; `fetcher fetch`
mirrors the same items, in turns, with the same workers and no ceiling. All is on loopback and ends by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import multiprocessing
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from measure import HERE, Wrong, _memory, environment, get, leave, load, machine, run, simulated

TARGET_MS = 50.0
CLIENTS = 4
"""So many processes submit, and as many ask."""


# --- the service --------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(folder: Path, db: Path, url: str, *options: str) -> Iterator[tuple[str, int]]:
    """The address of a service in a process of its own, and its pid; SIGTERM ends it."""
    command = [sys.executable, "-m", "fetcher", "serve", str(db), "--base-url", url, "--port", "0", "--max-rate", "0"]
    errors = folder / "serve.stderr"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, "--ingest-batch-interval", "0", *options],
            cwd=folder,
            env={**environment(folder), "DRAIN_SECONDS": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], 60)
        found = re.search(r"http://[0-9.:]+", process.stdout.readline().decode()) if ready else None
        if not found:
            raise Wrong(f"the service does not start: {errors.read_text(errors='replace')[-2000:]}")
        yield found[0], process.pid
        if process.poll() is not None:
            raise Wrong(f"the service ended: {errors.read_text(errors='replace')[-2000:]}")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


class Client:
    """One kept connection."""

    def __init__(self, url: str) -> None:
        self._conn = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        text = None if body is None else json.dumps(body)
        self._conn.request(method, path, text, {"Content-Type": "application/json"} if text else {})
        answer = self._conn.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise Wrong(f"{method} {path} answered {answer.status}: {data[:200]!r}")
        return json.loads(data)


def paced(url: str, what: str, jobs: Sequence[str], rate: float, seconds: float, first: int, results: Any) -> None:
    """Ask `rate` times a second; puts how long each answer took, and by how long it began too late."""
    client = Client(url)
    began = time.perf_counter()
    took, late = [], []
    for number in range(int(rate * seconds)):
        due = began + number / rate
        wait = due - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        at = time.perf_counter()
        late.append(at - due)
        if what == "submit":
            ids = [first + 5 * number + more for more in range(5)]
            client.ask("POST", "/ingest", {"ids": ids, "priority": "LOW"})
        else:
            client.ask("GET", f"/status/{jobs[number % len(jobs)]}")
        took.append(time.perf_counter() - at)
    results.put((what, took, late))


# --- the parts ------------------------------------------------------------------------------------------


def under_load(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Submissions and questions while it fetches."""
    before = load()
    with simulated(folder, items=args.items, latency=args.latency) as url:
        ids = range(1, args.queued + 1)
        with serving(folder, folder / "load.db", url, "--workers", str(args.workers)) as (address, pid):
            client = Client(address)
            began = time.perf_counter()
            jobs = [
                client.ask("POST", "/ingest", {"ids": list(ids[at : at + 100]), "priority": "LOW"})["ingestion_id"]
                for at in range(0, len(ids), 100)
            ]
            queued_in = time.perf_counter() - began
            fetched, resident = _fetched(address), _memory(str(pid), "VmRSS")
            context = multiprocessing.get_context("spawn")
            results = context.Queue()
            processes = [
                context.Process(
                    target=paced,
                    args=(address, what, jobs[number::CLIENTS], rate / CLIENTS, args.seconds, first, results),
                )
                for what, rate in (("submit", args.submits), ("status", args.statuses))
                for number in range(CLIENTS)
                for first in [args.queued + 1 + number * int(5 * args.submits * args.seconds)]
            ]
            began = time.perf_counter()
            for process in processes:
                process.start()
            answers = [results.get(timeout=args.seconds * 5 + 60) for _ in processes]
            for process in processes:
                process.join(30)
            seconds = time.perf_counter() - began
            fetching = (_fetched(address) - fetched) / seconds
            waiting = _waiting(address)
            grown = _memory(str(pid), "VmRSS") - resident
    found: dict[str, Any] = {
        "queued": args.queued,
        "queued_in_seconds": round(queued_in, 2),
        "batches_waiting_at_the_end": waiting,
        "items_fetched_a_second": round(fetching, 1),
        "resident_mb": round((resident + grown) / 1e6, 1),
        "resident_grown_mb": round(grown / 1e6, 1),
        "load_before": before,
        "load_after": load(),
    }
    for what in ("submit", "status"):
        took = sorted(each * 1000 for name, some, _ in answers for each in some if name == what)
        late = sorted(each * 1000 for name, _, some in answers for each in some if name == what)
        found[what] = {
            "count": len(took),
            "asked_a_second": args.submits if what == "submit" else args.statuses,
            "median_ms": round(statistics.median(took), 2),
            "p95_ms": round(share(took, 0.95), 2),
            "p99_ms": round(share(took, 0.99), 2),
            "worst_ms": round(took[-1], 2),
            "begun_late_p99_ms": round(share(late, 0.99), 2),
        }
    return found


def share(ordered: Sequence[float], part: float) -> float:
    """The value that so large a part does not exceed."""
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)]


def _fetched(url: str) -> int:
    return _figure(url, "items_fetched")


def _waiting(url: str) -> int:
    return _figure(url, "batches_waiting")


def _figure(url: str, name: str) -> int:
    found = re.search(rf"^\S*{name}\{{[^}}]*\}} (\S+)$", get(f"{url}/metrics").decode(), re.MULTILINE)
    if not found:
        raise Wrong(f"there is no figure {name}")
    return int(float(found[1]))


def end_to_end(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Ids a second from their submission until they are completed, beside a mirror of the same items."""
    rounds = []
    for number in range(args.rounds):
        with simulated(folder, items=args.compared, latency=args.latency) as url:
            ids = every_id(url)
            mirrored = mirror_seconds(folder, folder / f"fetch{number}.db", url, args)
            served = served_seconds(folder, folder / f"serve{number}.db", url, ids, args)
        rounds.append({"fetch_seconds": mirrored, **served, "load": load()})
    for each in rounds:
        each["fetch_items_a_second"] = round(args.compared / each["fetch_seconds"], 1)
        each["serve_items_a_second"] = round(args.compared / each["serve_seconds"], 1)
        each["ratio"] = round(each["fetch_seconds"] / each["serve_seconds"], 3)
    return {
        "items": args.compared,
        "workers": args.workers,
        "latency": args.latency,
        "batch_size": args.batch_size,
        "rounds": rounds,
        "ratio": statistics.median(each["ratio"] for each in rounds),
    }


def every_id(url: str) -> list[int]:
    """All ids that the API lists."""
    found: list[int] = []
    older = ""
    while True:
        page = json.loads(get(f"{url}/items/get?flags=1{older}"))
        found += [item["id"] for item in page["items"]]
        if page["atEnd"]:
            return sorted(found)
        older = f"&older={found[-1]}"


def mirror_seconds(folder: Path, db: Path, url: str, args: argparse.Namespace) -> float:
    """How long `fetcher fetch` takes for the same items, by its own clock."""
    command = [sys.executable, "-m", "fetcher", "fetch", str(db), "--base-url", url, "--delay", "0", "--max-rate", "0"]
    done = run([*command, "--workers", str(args.workers), "--log-format", "json"], folder, timeout=600)
    return round(float(done.event("end")["seconds"]), 2)


def served_seconds(folder: Path, db: Path, url: str, ids: Sequence[int], args: argparse.Namespace) -> dict[str, Any]:
    """How long a service takes for them, from the first submission to the last completed."""
    options = ["--workers", str(args.workers), "--ingest-batch-size", str(args.batch_size)]
    with serving(folder, db, url, *options) as (address, pid):
        client = Client(address)
        began = time.perf_counter()
        job = client.ask("POST", "/ingest", {"ids": list(ids)})["ingestion_id"]
        files: list[int] = []
        resident: list[int] = []
        while (found := client.ask("GET", f"/status/{job}?limit=1"))["status"] != "completed":
            if time.perf_counter() - began > 600:
                raise Wrong(f"not completed after 600 s: {found['counts']}")
            files.append(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))
            resident.append(_memory(str(pid), "VmRSS"))
            time.sleep(0.2)
        seconds = time.perf_counter() - began
    if found["counts"]["ok"] != len(ids):
        raise Wrong(f"not all of {len(ids)} are stored: {found['counts']}")
    quarter = max(1, len(resident) // 4)
    return {
        "serve_seconds": round(seconds, 2),
        "files_open_at_a_quarter_and_the_end": [files[quarter - 1], files[-1]],
        "resident_mb_at_a_quarter_and_the_end": [
            round(resident[quarter - 1] / 1e6, 1),
            round(resident[-1] / 1e6, 1),
        ],
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queued", type=int, default=100_000, help="ids that wait while it is asked")
    parser.add_argument("--items", type=int, default=100_000, help="items of the simulated API meanwhile")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--submits", type=float, default=100.0, help="submissions a second")
    parser.add_argument("--statuses", type=float, default=50.0, help="questions a second")
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds that the API takes to answer")
    parser.add_argument("--compared", type=int, default=10_000, help="items from end to end")
    parser.add_argument("--batch-size", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["load", "end"], help="one part alone")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "benchmark_service.json")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report: dict[str, Any] = {
            "machine": machine(folder),
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        }
        if args.only != "end":
            report["load"] = under_load(folder, args)
            print(json.dumps(report["load"], indent=1), flush=True)
            p99 = report["load"]["status"]["p99_ms"]
            print(
                f"p99 of GET /status: {p99} ms, {'met' if p99 < TARGET_MS else 'MISSED'} (< {TARGET_MS:g})", flush=True
            )
        if args.only != "load":
            report["end_to_end"] = end_to_end(folder, args)
            print(json.dumps(report["end_to_end"], indent=1), flush=True)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    leave(main)
