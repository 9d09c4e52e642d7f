"""What one call costs by two ways of handing it to threads: a future each, or worker loops over two queues.

Run it from the project's folder: .venv/bin/python scripts/profiling/worker_loops.py [calls]
"""

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from fetcher.workers import Workers

THREADS, WINDOW = 10, 480


def futures(calls: int) -> float:
    done: SimpleQueue[Future[int]] = SimpleQueue()
    with ThreadPoolExecutor(THREADS) as pool:
        return windowed(calls, lambda n: pool.submit(abs, n).add_done_callback(done.put), lambda: done.get().result())


def loops(calls: int) -> float:
    done: SimpleQueue[Any] = SimpleQueue()
    workers = Workers[int](THREADS, done, "worker")
    try:
        return windowed(calls, lambda n: workers.send(n, abs, n), done.get)
    finally:
        workers.close()


def windowed(calls: int, send: Any, receive: Any) -> float:
    """CPU microseconds a call, with WINDOW of them under way at a time."""
    began = time.process_time()
    for n in range(calls):
        send(n)
        if n >= WINDOW:
            receive()
    for _ in range(min(calls, WINDOW)):
        receive()
    return (time.process_time() - began) / calls * 1e6


if __name__ == "__main__":
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rounds = [(futures(calls), loops(calls)) for _ in range(5)]
    one, other = (sorted(each)[2] for each in zip(*rounds, strict=True))
    print(f"{calls:,} calls, {THREADS} threads, median of 5 rounds, CPU per call")
    print(f"a future each: {one:.1f} µs; worker loops: {other:.1f} µs; ratio {one / other:.1f}")
