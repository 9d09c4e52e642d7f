"""What it takes to measure a program: fresh processes, their cost, a simulated API beside them, medians.

Linux only: it reads /proc and waits on process descriptors.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import resource
import select
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

SAMPLE_SECONDS = 1.0
"""Between two looks at a process's memory."""

MB = 1_000_000


class Wrong(Exception):
    """Something that makes a figure worthless: a program failed, or a database is not what it should be."""


# --- running a program ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """What one process cost and said.

    `wall` is from just before it was started until it had ended; `user` and `system` CPU seconds and `peak_rss` (bytes,
    0 = not known) are the kernel's account of the process and the children it waited for; `children_peak` adds up those
    of its children, as far as they were seen; `samples` are (seconds since the start, resident bytes); `lines` of
    stdout come with the seconds since the start at which they were read; `began` is Unix time.
    """

    wall: float
    user: float
    system: float
    peak_rss: int
    samples: tuple[tuple[float, int], ...]
    lines: tuple[tuple[float, str], ...]
    began: float
    children_peak: int = 0

    @property
    def cpu(self) -> float:
        """User and system seconds together."""
        return self.user + self.system

    def event(self, name: str) -> dict[str, Any]:
        """The last JSON line of that name."""
        for _, line in reversed(self.lines):
            if line.startswith("{"):
                facts = json.loads(line)
                if facts.get("event") == name:
                    return dict(facts)
        raise Wrong(f"the program never said {name!r}")

    def line_at(self, start: str) -> float:
        """The seconds after which a line beginning so was read."""
        for at, line in self.lines:
            if line.startswith(start):
                return at
        raise Wrong(f"the program never printed {start!r}")


def environment(home: Path) -> dict[str, str]:
    """A clean environment: no settings, proxies or Python variables of the caller's; this tree is what is imported."""
    return {"PATH": os.defpath, "HOME": str(home), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT)}


def run(command: Sequence[str], folder: Path, *, timeout: float) -> Run:
    """Run a program in `folder` to its end. Raises Wrong when it fails or takes longer than `timeout` seconds."""
    errors = folder.with_name(f"{folder.name}.stderr")
    chunks: list[tuple[float, bytes]] = []
    samples: list[tuple[float, int]] = []
    children: dict[str, int] = {}
    began_at, began = time.time(), time.perf_counter()
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    assert process.stdout is not None
    output = process.stdout.fileno()
    os.set_blocking(output, False)
    pidfd = os.pidfd_open(process.pid)
    waited = False
    try:
        watched = [pidfd, output]
        next_sample = began + SAMPLE_SECONDS
        while True:
            ready, _, _ = select.select(watched, [], [], max(0.0, next_sample - time.perf_counter()))
            now = time.perf_counter()
            if output in ready and not _read(output, now - began, chunks):
                watched.remove(output)
            if pidfd in ready:
                wall = now - began
                break
            if now - began > timeout:
                raise Wrong(f"still running after {timeout:.0f} s: {shown(command)}")
            if now >= next_sample:
                next_sample += SAMPLE_SECONDS
                resident = _resident(process.pid)
                if resident:
                    samples.append((now - began, resident))
                children |= {child: _memory(child, "VmHWM") for child in _children(process.pid)}
        _read(output, wall, chunks)
        _, status, usage = os.wait4(process.pid, 0)
        waited = True
    finally:
        if not waited:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        os.close(pidfd)
        process.stdout.close()
    if process.returncode:
        said = errors.read_text(errors="replace").strip()[-2000:]
        raise Wrong(f"exit {process.returncode} of {shown(command)}: {said}")
    return Run(
        wall=wall,
        user=usage.ru_utime,
        system=usage.ru_stime,
        peak_rss=_peak(usage.ru_maxrss * 1024, samples),
        samples=tuple(samples),
        lines=tuple(_lines(chunks)),
        began=began_at,
        children_peak=sum(children.values()),
    )


def _read(output: int, at: float, chunks: list[tuple[float, bytes]]) -> bool:
    """Take what is there; False at the end."""
    try:
        while chunk := os.read(output, 65536):
            chunks.append((at, chunk))
        return False
    except BlockingIOError:
        return True


def _lines(chunks: Iterable[tuple[float, bytes]]) -> Iterator[tuple[float, str]]:
    """Each line with the time of the chunk that completed it."""
    rest = b""
    at = 0.0
    for at, chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield at, line.decode(errors="replace")
    if rest:
        yield at, rest.decode(errors="replace")


def _resident(pid: int) -> int:
    return _memory(str(pid), "VmRSS")


def _memory(pid: str, what: str) -> int:
    """What the kernel says of a process's memory, in bytes; 0 of one that is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{what}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _children(pid: int) -> set[str]:
    """The processes that one has started, by any of its threads."""
    found: set[str] = set()
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(each.read_text().split())
    return found


def _peak(reported: int, samples: Sequence[tuple[float, int]]) -> int:
    """The peak that the kernel reports, 0 where it cannot be told: a child's is at least its parent's as it began."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return reported if reported > own else max((size for _, size in samples), default=0)


def shown(command: Sequence[str]) -> str:
    """A command as a person would type it, without the paths of this machine."""
    words = ["python" if word == sys.executable else word for word in command]
    return " ".join(Path(word).name if word.startswith("/") else word for word in words)


# --- the simulated API ------------------------------------------------------------------------------


@contextlib.contextmanager
def simulated(folder: Path, *, items: int, latency: float = 0.0, seed: int = 0) -> Iterator[str]:
    """The address of a simulated API that a process of its own serves until the block ends."""
    command = [sys.executable, "-m", "fetcher", "simulate", "--port", "0", "--items", str(items), "--seed", str(seed)]
    errors = folder.with_name(f"{folder.name}.simulator.stderr")
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, "--latency", str(latency)],
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], 120)
        line = process.stdout.readline().decode(errors="replace") if ready else ""
        found = re.search(r"http://\S+", line)
        if not found:
            raise Wrong(f"the simulator does not start: {errors.read_text(errors='replace').strip()[-2000:]}")
        yield found[0]
        if process.poll() is not None:
            raise Wrong(f"the simulator ended: {errors.read_text(errors='replace').strip()[-2000:]}")
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def get(url: str) -> bytes:
    """One answer of the simulated API, past any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.addheaders = [("User-Agent", "fetcher-benchmark")]
    with opener.open(url, timeout=30) as response:
        return bytes(response.read())


def usual_body(url: str, size: int = 3400) -> bytes:
    """Of the details of the 120 newest items, the body whose size is nearest to `size` bytes."""
    ids = [item["id"] for item in json.loads(get(f"{url}/items/get?flags=1"))["items"]]
    bodies = [get(f"{url}/items/info?itemId={key}") for key in ids]
    return min(bodies, key=lambda body: abs(len(body) - size))


def calibrate(body: bytes, *, loops: int = 1000, times: int = 5) -> float:
    """Microseconds of CPU that this machine needs now for one `json.loads` of `body`: the median of some tries."""
    found = []
    for _ in range(times):
        began = time.process_time()
        for _ in range(loops):
            json.loads(body)
        found.append((time.process_time() - began) / loops * 1e6)
    return statistics.median(found)


# --- figures ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spread:
    """Repetitions of one figure."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, digits: int) -> str:
        """The median, and the least and the greatest where there are several."""
        middle, least, greatest = (f"{each:,.{digits}f}" for each in (self.median, min(self.values), max(self.values)))
        return middle if least == greatest else f"{middle} ({least}–{greatest})"


@dataclass(slots=True)
class Table:
    """One part of the report: rows of figures, notes below, and the same as data.

    A row's `target` and `verdict` are empty where nothing was promised.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    wrong: str | None = None

    def add(self, *cells: str, target: str = "", verdict: str = "") -> None:
        """A row; missing cells are empty."""
        self.rows.append((*cells, *[""] * (len(self.columns) - len(cells)), target, verdict))

    def markdown(self) -> str:
        """The part as Markdown."""
        lines = [f"## {self.title}", ""]
        if self.wrong:
            lines += [f"**Wrong, no figure counts:** {self.wrong}", ""]
        if self.rows:
            head = (*self.columns, "target", "verdict")
            lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
            lines += ["| " + " | ".join(row) + " |" for row in self.rows]
            lines.append("")
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines).rstrip() + "\n"


# --- the machine ------------------------------------------------------------------------------------


def load() -> str:
    """The load average of the last 1, 5 and 15 minutes."""
    return " ".join(f"{each:.2f}" for each in os.getloadavg())


def machine(folder: Path) -> dict[str, str]:
    """What the figures were measured on."""
    versions = {name: _version(name) for name in ("requests", "urllib3", "aiohttp", "pystac-client", "pyarrow")}
    return {
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": sqlite3.sqlite_version,
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "databases on": _filesystem(folder),
        "peers": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.machine()


def _filesystem(folder: Path) -> str:
    """The type of the file system that `folder` lies on."""
    best, kind = "", "unknown"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, mount, type_, *_ = line.split()
            if folder.resolve().is_relative_to(mount) and len(mount) >= len(best):
                best, kind = mount, type_
    return kind


def leave(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a script to its end and leave with its exit code; SIGTERM ends what was started, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        sys.exit(main(sys.argv[1:]))
    except Wrong as error:
        sys.exit(f"wrong: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _terminated(*_: object) -> NoReturn:
    # An exception, so that what was started is ended and the folder goes.
    sys.exit(143)
