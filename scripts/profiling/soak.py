#!/usr/bin/env python3
"""Leave `fetcher fetch` running against an API of mixed faults, and see that it does not grow and loses nothing.

The simulated API is hostile, limits and goes down, in a process of its own on loopback. When a run is complete, the
next one follows, mostly a new sweep. Memory, descriptors and threads of the runs are read every second from /proc; at
the end comes a run to completion on an API that is well, and `fetcher verify`. The exit code is 1 when that is not
complete.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

PYTHON = [sys.executable, "-m", "fetcher"]


@dataclass
class Samples:
    """What was seen of the runs, second by second."""

    megabytes: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def look(self, pid: int) -> None:
        """Read one process, if it is still there."""
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:
            return
        facts = dict(line.split(":", 1) for line in status.splitlines())
        if "VmRSS" in facts:
            self.megabytes.append(int(facts["VmRSS"].split()[0]) * 1.024 / 1000)
            self.threads.append(int(facts["Threads"]))
            self.descriptors.append(descriptors)

    def told(self, name: str, values: list[float]) -> dict[str, float]:
        """The greatest of each third of the time, the first 30 s left out."""
        kept = values[30:] or values
        third = max(1, len(kept) // 3)
        parts = [kept[:third], kept[third : 2 * third], kept[2 * third :]]
        return {
            f"{name}, {part} third": max(found)
            for part, found in zip(("first", "second", "last"), parts, strict=True)
            if found
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--items", type=int, default=20_000, help="items of the API at first (20000)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    ends = time.monotonic() + args.minutes * 60
    samples, codes, lines = Samples(), [], []
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "soak.db"
        (Path(folder) / ".env").write_text(
            "MAX_BACKOFF_SECONDS=2\nREQUEST_TIMEOUT=5\nMAX_REQUESTS_PER_SECOND=0\nREQUEST_DELAY=0.05\n"
        )
        api = subprocess.Popen(
            [*PYTHON, "simulate", "--port", "0", "--items", str(args.items), "--profile", "hostile"],
            stdout=subprocess.PIPE, text=True, cwd=folder,
        )  # fmt: skip
        assert api.stdout is not None
        url = next(word for word in api.stdout.readline().split() if word.startswith("http"))
        try:
            while time.monotonic() < ends:
                full = ["--full"] if len(codes) % 3 else []
                run = subprocess.Popen(
                    [*PYTHON, "fetch", str(db), "--base-url", url, "--workers", "20", *full],
                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=folder,
                )  # fmt: skip
                while run.poll() is None:
                    time.sleep(1)
                    samples.look(run.pid)
                    if time.monotonic() > ends:
                        run.send_signal(signal.SIGINT)
                        ends = float("inf")
                assert run.stderr is not None
                lines += [line for line in run.stderr.read().splitlines() if "Traceback" in line]
                codes.append(run.returncode)
                if ends == float("inf"):
                    break
        finally:
            api.send_signal(signal.SIGINT)
            tail = api.communicate()[0]
        healthy = subprocess.Popen(
            [*PYTHON, "simulate", "--port", "0", "--items", str(args.items)],
            stdout=subprocess.PIPE, text=True, cwd=folder,
        )  # fmt: skip
        assert healthy.stdout is not None
        try:
            url = next(word for word in healthy.stdout.readline().split() if word.startswith("http"))
            last = subprocess.run([*PYTHON, "fetch", str(db), "--base-url", url], cwd=folder, check=False).returncode
        finally:
            healthy.send_signal(signal.SIGINT)
            healthy.communicate()
        verdict = subprocess.run([*PYTHON, "verify", str(db)], cwd=folder, capture_output=True, text=True, check=False)
    facts = {
        "minutes": args.minutes,
        "runs": len(codes),
        "exit codes": sorted(set(codes)),
        "tracebacks": len(lines),
        "API": tail.strip(),
        **samples.told("megabytes", samples.megabytes),
        **samples.told("descriptors", [float(each) for each in samples.descriptors]),
        **samples.told("threads", [float(each) for each in samples.threads]),
        "last run": last,
        "verify": f"{verdict.returncode}: {verdict.stdout.strip()}",
    }
    print(json.dumps(facts, indent=2))
    if args.json:
        args.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0 if verdict.returncode == 0 and not lines else 1


if __name__ == "__main__":
    sys.exit(main())
