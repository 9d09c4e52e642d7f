"""Mirror all of a paginated item API into a database of your own: resumable, polite, provably complete."""

from fetcher._version import __version__
from fetcher.errors import (
    ConfigurationError,
    FetcherError,
    Interrupted,
    LoginError,
    RemoteError,
    StoreError,
)
from fetcher.mirror import Preview, fetch, preview
from fetcher.model import Committed, Progress, Start, Summary
from fetcher.stop import Stop, stop_on_signals

__all__ = [
    "Committed",
    "ConfigurationError",
    "FetcherError",
    "Interrupted",
    "LoginError",
    "Preview",
    "Progress",
    "RemoteError",
    "Start",
    "Stop",
    "StoreError",
    "Summary",
    "__version__",
    "fetch",
    "preview",
    "stop_on_signals",
]
