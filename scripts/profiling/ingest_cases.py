"""Cases of the profiling of ingestion: what is run in a fresh process, what the process tells, what is kept of it.

The parent asks `rounds` to run contestants by turns; the child says with `tell` what its work cost.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from measure import HERE, Wrong, run

PLAIN = "plain loop"
FETCHER = "fetcher"

DB = Path("items.db")
"""Where a contestant writes, in a folder of its own."""


@dataclass(frozen=True, slots=True)
class Case:
    """One contestant at one thing: `words` follow the name of `script`."""

    mode: str
    name: str
    strategy: str
    workers: int
    script: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a contestant's rounds cost, each a dict of what `tell` prints; `traced` is from a run of its own."""

    mode: str
    name: str
    strategy: str
    workers: int
    rounds: tuple[Mapping[str, Any], ...]
    traced: int | None = None

    def median(self, figure: str) -> float:
        """The median of one figure over the rounds."""
        return statistics.median(float(each[figure]) for each in self.rounds)

    def values(self, figure: str) -> list[float]:
        """One figure of every round, in their order."""
        return [float(each[figure]) for each in self.rounds]

    @property
    def seconds(self) -> float:
        """The median time from the first thing asked for to the last commit."""
        return self.median("seconds")

    def latency(self, figure: str) -> float:
        """The median over the rounds of `median` or `p95` of the seconds that an answer took."""
        return statistics.median(float(each["latency"][figure]) for each in self.rounds)

    @property
    def throughput(self) -> float:
        """Items a second."""
        return self.median("items") / self.seconds

    @property
    def cpu_share(self) -> float:
        """CPU seconds a second: above 1 where several cores were used."""
        return statistics.median(each["cpu"] / each["seconds"] for each in self.rounds)

    def shares(self, account: str) -> dict[str, float]:
        """The share of each part of `account` in the wall time, and `rest` for what no part has: medians."""
        names = self.rounds[0].get(account) or {}
        found = {
            name: statistics.median(each[account][name] / each["seconds"] for each in self.rounds) for name in names
        }
        return found and {**found, "rest": max(0.0, 1 - sum(found.values()))}

    def plain(self) -> dict[str, Any]:
        """As it is written as JSON."""
        return {
            "mode": self.mode,
            "case": self.name,
            "strategy": self.strategy,
            "workers": self.workers,
            "median": {"seconds": self.seconds, "throughput": self.throughput, "cpu_share": self.cpu_share},
            "traced": self.traced,
            "rounds": list(self.rounds),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Result:
        """What was written as JSON."""
        named = (plain[name] for name in ("mode", "case", "strategy", "workers"))
        return cls(*named, rounds=tuple(plain["rounds"]), traced=plain["traced"])


# --- the parent -------------------------------------------------------------------------------------


Beside = Callable[[Case], Any]
"""A context manager around one run that gives the words to add and, after it, further figures."""


@contextmanager
def alone(case: Case) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:  # noqa: ARG001
    """Nothing runs beside the contestant."""
    yield (), {}


def rounds(
    cases: Sequence[Case],
    folder: Path,
    count: int,
    *,
    beside: Beside = alone,
    timeout: float = 300,
    at_once: int = 1,
) -> list[Result]:
    """Run all cases so many times, by turns, each time another one first; all must bring the same items.

    Figures are worth something with one `at_once` only.
    """
    found: dict[Case, list[Mapping[str, Any]]] = {case: [] for case in cases}
    with ThreadPoolExecutor(at_once) as pool:
        for number in range(count):
            first = number * max(1, len(cases) // count) % len(cases)
            turns = [*cases[first:], *cases[:first]]
            told = pool.map(partial(once, folder=folder, beside=beside, timeout=timeout), turns)
            for case, facts in zip(turns, told, strict=True):
                found[case].append(facts)
    same(found)
    return [Result(case.mode, case.name, case.strategy, case.workers, tuple(each)) for case, each in found.items()]


def once(case: Case, folder: Path, *more: str, beside: Beside = alone, timeout: float = 300) -> Mapping[str, Any]:
    """What one run tells. Raises Wrong."""
    with tempfile.TemporaryDirectory(dir=folder) as name, beside(case) as (words, further):
        # The folder is the contestant's own, and the file of its errors lies beside it.
        empty = Path(name) / "run"
        empty.mkdir()
        command = [sys.executable, str(HERE / case.script), *case.words, *words, *more]
        facts = run(command, empty, timeout=timeout).event("end")
    return {**facts, **further}


def same(found: Mapping[Case, Sequence[Mapping[str, Any]]]) -> None:
    """Raise Wrong where contestants of one case did not bring the same items."""
    told: dict[str, tuple[Any, str]] = {}
    for case, each in found.items():
        for facts in each:
            what = facts["items"], facts.get("digest")
            first, who = told.setdefault(case.name, (what, case.strategy))
            if what != first:
                raise Wrong(f"{case.name}: {case.strategy} has {what[0]} items, not the same {first[0]} as {who}")


# --- the child --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Account:
    """What a contestant notes on its way: seconds by what they went into, request times, and what it has at the end."""

    parts: dict[str, float] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    items: int = 0
    bytes: int = 0
    wrong: int = 0
    helpers: int = 0
    digest: str | None = None

    def add(self, part: str, since: float) -> float:
        """Put the time since then into a part; returns the time now."""
        now = time.perf_counter()
        self.parts[part] = self.parts.get(part, 0.0) + now - since
        return now


Strategy = Callable[[str, Account, int], None]
"""What a contestant does: from where (a folder, or the address of an API), what it notes, and with how many workers."""

OURS = (
    "fetcher.mirror",
    "fetcher.sources.files.parquet",
    "fetcher.sources.pr0gramm",
    "fetcher.sources.stac",
    "sqlite_utils",
)
"""What fetcher imports by the time it has made a database."""


def contestant(
    words: Sequence[str],
    about: str | None,
    strategies: Mapping[str, Strategy],
    needs: Callable[[str, str], Sequence[str]],
    check: Callable[[str, Account], None],
) -> int:
    """The program of one contestant: do what the words name, and tell what it cost.

    `needs` gives the modules of a strategy there.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("strategy", choices=strategies)
    parser.add_argument("where", help="the folder of the files, or the address of the API")
    parser.add_argument("--workers", type=int, default=1, metavar="N")
    parser.add_argument("--traced", action="store_true", help="count Python's memory too, which takes longer")
    args = parser.parse_args(words)
    hide_optional()
    # What is imported before the clock starts is not measured, for nobody.
    for name in needs(args.strategy, args.where):
        import_module(name)
    work = partial(strategies[args.strategy], args.where, workers=args.workers)
    tell(work, partial(check, args.where), traced=args.traced)
    return 0


def tell(work: Callable[[Account], None], check: Callable[[Account], None], *, traced: bool) -> None:
    """Do the work and print what it cost; `check` looks at what came of it, off the clock."""
    account = Account()
    if traced:
        tracemalloc.start()
    base = peak_of(os.getpid())
    known = set(sys.modules)
    began, cpu = time.perf_counter(), _cpu()
    work(account)
    seconds, used = time.perf_counter() - began, _cpu() - cpu
    peak = tracemalloc.get_traced_memory()[1] if traced else None
    imported = len(set(sys.modules) - known)
    tracemalloc.stop()
    resident = peak_of(os.getpid()) + account.helpers
    check(account)
    latencies = sorted(account.latencies)
    facts = {
        "event": "end",
        "seconds": seconds,
        "cpu": used,
        "peak": resident,
        "grown": resident - base,
        "items": account.items,
        "bytes": account.bytes,
        "wrong": account.wrong,
        "imported": imported,
        "digest": account.digest,
        "parts": account.parts,
        "traced": peak,
        "latency": {name: _quantile(latencies, share) for name, share in (("median", 0.5), ("p95", 0.95))},
        "requests": len(latencies),
    }
    print(json.dumps(facts), flush=True)


def checked(where: str, account: Account) -> None:  # noqa: ARG001
    """Count what is in the database, and take a digest of the ids, whatever their order."""
    with closing(sqlite3.connect(DB)) as conn:
        digest = sha256()
        account.items = 0
        for (found,) in conn.execute("SELECT id FROM items ORDER BY id"):
            account.items += 1
            digest.update(f"{found}\n".encode())
        account.digest = digest.hexdigest()


def hide_optional() -> None:
    """Let nothing find pandas and numpy: sqlite-utils imports them where they are, which costs a second and 80 MB.

    Whoever installs fetcher alone does not have them; tools beside it bring them.
    """
    sys.modules["pandas"] = sys.modules["numpy"] = None  # type: ignore[assignment]


def _cpu() -> float:
    """CPU seconds of this process and the children it has waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


def peak_of(pid: int) -> int:
    """The most memory that a running process ever had resident, in bytes; pages it shares are counted in full."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def cpu_of(pid: int) -> float:
    """CPU seconds that a running process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None
