"""What an answer that is none means to a person, and what to do about it."""

from __future__ import annotations

from fetcher.errors import RequestFailed
from fetcher.model import Outcome

_CHECK_ADDRESS = "check API_BASE_URL"

_NO_ANSWER = (
    (
        ("cannot be resolved", "no host name", "resolve", "Name or service", "nodename", "getaddrinfo"),
        "the name of the host is not known",
        "check the connection to the internet, the name server, and how the name is spelled in API_BASE_URL",
    ),
    (
        ("TLS failed", "certificate", "SSL"),
        "the connection cannot be secured",
        "check this machine's clock and its CA certificates (REQUESTS_CA_BUNDLE names others), and whether API_BASE_URL"
        " begins with http or https as the host wants it",
    ),
    (
        ("no connection in time", "timed out"),
        "nobody takes the connection in time",
        "check the connection to the internet and the firewall; REQUEST_TIMEOUT ({timeout:g} s) says how long it waits",
    ),
    (
        ("no complete answer in time",),
        "the answer does not come in time",
        "try again later, or raise REQUEST_TIMEOUT ({timeout:g} s)",
    ),
    (
        ("connecting failed", "refused", "unreachable", "No route"),
        "nobody takes the connection",
        "check host and port in API_BASE_URL, the firewall, and in a browser whether the site is up",
    ),
)

_OTHERWISE = (
    "the connection breaks",
    "try again later; if it stays so, check API_BASE_URL, and firewalls and proxies on the way",
)


def saying(error: RequestFailed, timeout: float) -> tuple[str, str]:
    """What happened, in words, and a remedy; for any failed request that is not about a login."""
    text, status = str(error), error.status
    if error.outcome is Outcome.LIMITED:
        wait = f"wait {error.retry_after:,.0f} s" if error.retry_after else "wait some minutes"
        return "the API refuses, for it was asked too much", f"{wait}, then lower MAX_REQUESTS_PER_SECOND (--max-rate)"
    if status is None:
        for words, what, remedy in _NO_ANSWER:
            if any(word in text for word in words):
                return what, remedy.format(timeout=timeout)
        return _OTHERWISE
    html = (error.body or b"").lstrip()[:1] == b"<"
    if status == 403:
        return (
            "something in front of the API blocks us",
            "open the site in a browser; let USER_AGENT say who you are, wait, or try from another network",
        )
    if 300 <= status < 400:
        return "the API redirects to another host", f"{_CHECK_ADDRESS}: name the address that it has moved to"
    if status >= 500:
        return "the server is in trouble", "try again later: a run waits by itself, at most MAX_OUTAGE_SECONDS"
    if html and status < 300:
        return (
            "a web page comes instead of the API's JSON",
            f"{_CHECK_ADDRESS}: it may be the site's and not its API's; and whether this network wants a login of its"
            " own first",
        )
    if status < 300:
        return (
            "the answer is not what this API gives",
            f"{_CHECK_ADDRESS}; if it is right, the API has changed: look for a newer fetcher",
        )
    return "there is no such API", f"{_CHECK_ADDRESS}: it is the part of the address that all requests share"
