"""Mirror all of a paginated item API into a database of your own: resumable, polite, provably complete."""

from fetcher._version import __version__
from fetcher.copying import Copied, CopyProgress, copy
from fetcher.errors import (
    ConfigurationError,
    FetcherError,
    Interrupted,
    LoginError,
    RemoteError,
    SourceError,
    StoreError,
)
from fetcher.mirror import Preview, fetch, preview, verify
from fetcher.model import Committed, Progress, Start, Summary
from fetcher.retry import retry
from fetcher.search import Hit, Search, search
from fetcher.stop import Stop, stop_on_signals
from fetcher.stores.evidence import FailureRow, failures
from fetcher.stores.verify import Verdict
from fetcher.texts.chunk import Chunk
from fetcher.texts.ingest import TextProgress, TextSummary, embed, ingest

__all__ = [
    "Chunk",
    "Committed",
    "ConfigurationError",
    "Copied",
    "CopyProgress",
    "FailureRow",
    "FetcherError",
    "Hit",
    "Interrupted",
    "LoginError",
    "Preview",
    "Progress",
    "RemoteError",
    "Search",
    "SourceError",
    "Start",
    "Stop",
    "StoreError",
    "Summary",
    "TextProgress",
    "TextSummary",
    "Verdict",
    "__version__",
    "copy",
    "embed",
    "failures",
    "fetch",
    "ingest",
    "preview",
    "retry",
    "search",
    "stop_on_signals",
    "verify",
]
