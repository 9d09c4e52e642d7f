"""The errors that a person can meet: one sentence each, and the exit code of the command line.

    FetcherError            1    an error of ours
    ├── ConfigurationError  2    a setting, an option or an argument is wrong
    ├── LoginError          4    the API asks for a login, or the one given has expired
    ├── RemoteError         5    the API stays unavailable, or limits us too long
    ├── SourceError         1    a source does not do what sources have to do
    ├── StoreError          6    the database cannot be used or written
    ├── Interrupted       130    a signal, or the caller, asked the run to stop
    └── RequestFailed            one request's outcome; met inside sources and stages only

Exit code 0 means complete (or the limit asked for was reached), 3 finished but something is missing or failed for good.
"""

from __future__ import annotations

from typing import Any

from fetcher.model import Outcome


class FetcherError(Exception):
    """Something of ours went wrong. `summary` says what a run had done by then, None where there was no run."""

    exit_code = 1
    summary: Any = None


class ConfigurationError(FetcherError):
    """A setting, an option or an argument is wrong."""

    exit_code = 2


class LoginError(FetcherError):
    """The API asks for a login, or the one given has expired."""

    exit_code = 4


class RemoteError(FetcherError):
    """The API stays unavailable, answers nonsense to every listing, or limits us too long."""

    exit_code = 5


class SourceError(FetcherError):
    """A source does not do what sources have to do: it raises an error that is no answer's, or returns something else.

    Run again once it is mended, the mirror goes on.
    """


class StoreError(FetcherError):
    """The database cannot be used or written."""

    exit_code = 6


class Interrupted(FetcherError):
    """The run was asked to stop; all that was reported as stored is stored."""

    exit_code = 130

    def __init__(self, message: str, summary: Any = None) -> None:
        super().__init__(message)
        self.summary = summary


class RequestFailed(FetcherError):
    """A request that ended in anything but a good answer.

    `status` is None when no answer came; `body` is what came, at most 64 KiB of it; `retry_after` is in seconds.
    `lasting` says that asking again would not help.
    """

    def __init__(
        self,
        outcome: Outcome,
        message: str,
        *,
        status: int | None = None,
        body: bytes | None = None,
        retry_after: float | None = None,
        lasting: bool = False,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.status = status
        self.body = body
        self.retry_after = retry_after
        self.lasting = lasting


def no_first_answer(error: RequestFailed, address: str) -> RemoteError:
    """What to say where the first request never had a good answer; `address` names where it went."""
    doubt = "is the host up?" if error.status is None else "is it the API that is meant?"
    return RemoteError(f"no usable first answer ({error}): is {address} right, {doubt}")


class Stopped(FetcherError):
    """Raised inside worker threads when they are to end early; never reaches a caller."""

    exit_code = 130
