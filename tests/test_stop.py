"""The end is asked for once, and everybody who waits hears of it at once."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from fetcher.stop import Stop, stop_on_signals
from tests.helpers import ROOT

SOON = 10.0


def test_a_wait_lasts_as_long_as_it_was_asked_to() -> None:
    stop, began = Stop(), time.monotonic()
    assert stop.wait(0.05) is False
    assert time.monotonic() - began >= 0.05


def test_a_wait_after_the_end_was_asked_for_does_not_last() -> None:
    stop = Stop()
    stop.set()
    began = time.monotonic()
    assert stop.wait(60) is True
    assert stop.is_set()
    assert time.monotonic() - began < SOON


@pytest.mark.parametrize("with_condition", [False, True])
def test_set_wakes_all_waiters_at_once(with_condition: bool) -> None:
    stop = Stop()
    condition = stop.condition() if with_condition else None
    all_there = threading.Barrier(6)

    def waiter() -> bool:
        all_there.wait(SOON)
        if condition is None:
            return stop.wait(60)
        with condition:
            return stop.wait(60, condition)

    with ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(waiter) for _ in range(5)]
        all_there.wait(SOON)
        stop.set()
        assert all(each.result(SOON) for each in waiting)


def test_a_conditions_own_notification_ends_the_wait_too() -> None:
    stop = Stop()
    condition = stop.condition()
    waiting = threading.Event()

    def waiter() -> bool:
        with condition:
            waiting.set()
            return stop.wait(60, condition)

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(waiter)
        assert waiting.wait(SOON)
        # The lock is free only once the waiter waits.
        with condition:
            condition.notify_all()
        assert found.result(SOON) is False


def test_callbacks_are_called_once_each() -> None:
    stop, called = Stop(), []
    stop.on_set(lambda: called.append("first"))
    stop.on_set(lambda: called.append("second"))
    assert called == []
    stop.set()
    stop.set()
    assert called == ["first", "second"]


def test_a_callback_that_comes_late_is_called_at_once() -> None:
    stop, called = Stop(), []
    stop.set()
    stop.on_set(lambda: called.append(stop.is_set()))
    assert called == [True]


def test_a_callback_may_use_the_stop_it_hears_of() -> None:
    stop, called = Stop(), []
    stop.on_set(lambda: stop.on_set(lambda: called.append(stop.wait(60))))
    stop.set()
    assert called == [True]


def test_what_is_received_may_come_from_a_callback() -> None:
    stop: Stop = Stop()
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    stop.on_set(lambda: told.put("stop"))
    with pytest.raises(queue.Empty):
        stop.receive(told, 0.01)
    stop.set()
    assert stop.receive(told, SOON) == "stop"


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_for_the_end_and_the_handlers_come_back(number: signal.Signals) -> None:
    def mine(*_: object) -> None:
        raise AssertionError("a signal came to the caller")

    before = {each: signal.signal(each, mine) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        stop = Stop()
        with stop_on_signals(stop):
            os.kill(os.getpid(), number)
            assert stop.wait(SOON)
        assert [signal.getsignal(each) for each in before] == [mine, mine]
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_without_a_signal_nothing_is_asked_for_and_no_thread_stays() -> None:
    stop = Stop()
    before, threads = signal.getsignal(signal.SIGINT), threading.active_count()
    with stop_on_signals(stop):
        pass
    assert not stop.is_set()
    assert signal.getsignal(signal.SIGINT) is before
    assert threading.active_count() == threads


def test_the_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), stop_on_signals(Stop()):
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before


CHILD = """
import threading, time
from fetcher.stop import Stop, stop_on_signals

stop = Stop()
with stop_on_signals(stop):
    print("ready", flush=True)
    while not stop.wait(60):
        pass
    print("stopping", flush=True)
    {then}
print("done", flush=True)
"""


def child(then: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD.format(then=then)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{word}\n"


def with_child(then: str, act: Callable[[subprocess.Popen[str]], None]) -> int:
    with child(then) as process:
        try:
            act(process)
            return process.wait(SOON)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_lets_a_process_end_by_itself(number: signal.Signals) -> None:
    def act(process: subprocess.Popen[str]) -> None:
        said(process, "ready")
        process.send_signal(number)
        said(process, "stopping")
        said(process, "done")

    assert with_child("pass", act) == 0


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT), (signal.SIGINT, 15)]
)
def test_a_second_signal_kills_at_once(first: int, second: int) -> None:
    def act(process: subprocess.Popen[str]) -> None:
        said(process, "ready")
        process.send_signal(first)
        said(process, "stopping")
        process.send_signal(second)

    assert with_child("time.sleep(60)", act) == -second


@pytest.mark.parametrize("seconds", [1e300, float("inf")])
def test_a_wait_that_no_clock_can_count_is_ended_like_any_other(seconds: float) -> None:
    stop, done = Stop(), queue.SimpleQueue[int]()
    threading.Timer(0.05, lambda: (stop.set(), done.put(1))).start()
    assert stop.wait(seconds)
    assert stop.receive(done, seconds) == 1
