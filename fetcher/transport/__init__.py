"""A lean transport below `requests`: the same sessions, answers and errors at a tenth of the CPU.

`LeanAdapter` is mounted like any adapter (`session.mount("https://", LeanAdapter())`) or called by its `send`.
Plain GETs go over its own keep-alive connections; everything else goes to the adapter that `requests` brings,
which it extends. Why, and what was measured: docs/decisions/0001-transport.md.

`http1` reads and writes HTTP/1.1 as bytes, `connection` is one socket with a deadline, `response` the answer,
`stock` what bounds and stops the transfers of requests' own adapter, `adapter` puts them together.
"""

from fetcher.transport.adapter import Aborted, BodyTooLarge, LeanAdapter, StaleConnection

__all__ = ["Aborted", "BodyTooLarge", "LeanAdapter", "StaleConnection"]
