"""Measure `fetcher copy`: a mirror of the simulator from SQLite to SQLite, to PostgreSQL, from there, and back.

    python benchmark_copy.py --items 100000 [--db MIRROR] [--markdown FILE]

Each copy is a process of its own. The server is that of the tests, with every commit brought to the disk (`durable`).
Writes a table in Markdown. With --db the mirror is kept, or used when it is there.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from fetcher import fetch
from fetcher.simulator import Simulator, World
from tests.helpers import one
from tests.postgres import postgres_server

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--db", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fetcher-copy-") as folder, postgres_server(durable=True) as server:
        db = args.db or Path(folder) / "mirror.db"
        if not db.exists():
            make(db, args.items)
        first, second = server.url(), server.url()
        ways = (
            ("SQLite to SQLite", str(db), f"{folder}/copy.db"),
            ("SQLite to PostgreSQL", str(db), first),
            ("PostgreSQL to SQLite", first, f"{folder}/back.db"),
            ("PostgreSQL to PostgreSQL", first, second),
            ("compared again: SQLite with PostgreSQL", str(db), first),
        )
        rows = sum(one(db, f"SELECT count(*) FROM {table}") for table in ("items", "tags", "comments"))
        items = one(db, "SELECT count(*) FROM items")
        lines = [
            f"- {items:,} items, {rows:,} rows, {db.stat().st_size / 1e6:,.0f} MB as an SQLite file",
            f"- Python {platform.python_version()}, {os.cpu_count()} cores; load average"
            f" {' '.join(f'{each:.1f}' for each in os.getloadavg())} at the start",
            "",
            "| | seconds | rows a second | items a second | CPU seconds | memory |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for name, a, b in ways:
            seconds, cpu, memory = copied(a, b)
            lines.append(
                f"| {name} | {seconds:.1f} | {rows / seconds:,.0f} | {items / seconds:,.0f} | {cpu:.1f}"
                f" | {memory / 1e6:.0f} MB |"
            )
            print(lines[-1], file=sys.stderr)
        lines += ["", f"Load average at the end: {' '.join(f'{each:.1f}' for each in os.getloadavg())}."]
    text = "\n".join(lines) + "\n"
    if args.markdown:
        args.markdown.write_text(text)
    print(text)


def make(db: Path, items: int) -> None:
    """Mirror the simulator, as fast as it goes."""
    with Simulator(World(seed=1, items=items)) as simulator:
        fetch(db=db, api_base_url=simulator.url, request_delay=0, max_requests_per_second=0, db_batch_size=1000)


def copied(a: str, b: str) -> tuple[float, float, int]:
    """Copy; returns seconds, the client's CPU seconds, and the most memory it had, in bytes."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "fetcher", "copy", a, b],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    memory, ended = 0, 0
    while not ended:
        time.sleep(0.1)
        with suppress(OSError, TypeError):
            # The account at the end would begin with this process, which it was made from; a dead one has no memory.
            status = Path(f"/proc/{process.pid}/status").read_text()
            memory = max(memory, int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    seconds = time.monotonic() - began
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"fetcher copy {a} {b}: exit {code}")
    process.returncode = 0
    return seconds, usage.ru_utime + usage.ru_stime, memory


if __name__ == "__main__":
    main()
