"""Calls that are no requests, made at the pace of requests: so they are counted, and bounded, as these are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fetcher.errors import RequestFailed
from fetcher.governor import Governor
from fetcher.model import Outcome

T = TypeVar("T")


def through(governor: Governor, call: Callable[[], T]) -> T:
    """What `call` returns, made when the governor lets it begin; it is told how the call ended."""
    ticket = governor.enter()
    try:
        result = call()
    except RequestFailed as error:
        error.outcome = governor.leave(ticket, error.outcome, status=error.status, retry_after=error.retry_after)
        raise
    except BaseException:
        governor.abandon(ticket)
        raise
    governor.leave(ticket, Outcome.OK)
    return result
