"""The profiles that have a name, to rehearse with."""

from __future__ import annotations

from collections.abc import Mapping

from fetcher.simulator.limiter import Limit, Window
from fetcher.simulator.profile import Knee, Login, Outage, Profile, Share

CURABLE_ATTEMPTS = 3
"""In "hostile" nothing goes wrong with an item or a page after so many attempts."""

_HOSTILE = {
    # These pause everything: few.
    "429": 0.0015,
    "429-seconds": 0.0015,
    "429-date": 0.0015,
    "429-nonsense": 0.0015,
    "429-hours": 0.0005,
    "limit-200": 0.0015,
    "limit-4xx": 0.0015,
    "503-after": 0.0015,
    # These keep one worker busy: few.
    "hang": 0.001,
    "stalled": 0.001,
    "drip": 0.004,
    "slow": 0.01,
    "503": 0.006,
    "500": 0.004,
    "502": 0.004,
    "403": 0.004,
    "522": 0.004,
    "reset": 0.004,
    "reset-midway": 0.004,
    "truncated": 0.004,
    "overlong": 0.004,
    "chunks": 0.004,
    "header": 0.001,
    "noise": 0.004,
    "gzip": 0.004,
    "bomb": 0.0005,
    "empty": 0.004,
    "html": 0.004,
    "strings": 0.02,
    "types": 0.01,
    "duplicates": 0.01,
    "bom": 0.004,
    "surrogate": 0.004,
    "huge-integer": 0.004,
    "nan": 0.004,
    "infinity": 0.004,
    "exponent": 0.004,
    "nesting": 0.001,
    "nul": 0.004,
    "raw-nul": 0.004,
    "huge-text": 0.001,
    "utf8": 0.004,
    "null-items": 0.1,
    "repeat": 0.1,
    "429-text": 0.0015,
    "forbidden": 0.004,
}

PROFILES: Mapping[str, Profile] = {
    "healthy": Profile(about="nothing goes wrong"),
    "limited": Profile(
        about="40 requests a second, 10 after a minute; one too many locks everyone out for 5 s",
        limits=(Limit(rate=40, lockout=5, later=((60, 10),)),),
    ),
    "window": Profile(
        about="70 requests in 10 s, then everyone is refused for 9 s, with Retry-After",
        windows=(Window(requests=70, seconds=10, block=9, retry_after="9"),),
    ),
    "flaky": Profile(
        about="a tenth fails at the first try: 503, 500, 502, resets, cut bodies; 2 % are gone",
        mishaps=tuple(Share(what, 0.02) for what in ("503", "500", "502", "reset", "truncated")),
        gone_404=0.01,
        gone_200=0.01,
    ),
    "outage": Profile(
        about="down 15 s in every 30: connections refused, 502 in HTML, silence, 503, in turn",
        outages=tuple(
            Outage(20 + 30 * number, 15, how, every=120) for number, how in enumerate(("refuse", "502", "hang", "503"))
        ),
    ),
    "slow": Profile(
        about="0.2 s an answer up to 8 at once, longer beyond, 503 above 32; some drip or hang",
        latency=0.2,
        knee=Knee(8, refuse_above=4),
        mishaps=(Share("drip", 0.01, seconds=5), Share("slow", 0.02, seconds=3), Share("hang", 0.002)),
    ),
    "expiring": Profile(
        about="a login counts for 500 requests; then other values of ME and PP are needed",
        login=Login(requests=500),
    ),
    "changing": Profile(
        about="items arrive, are deleted, come back and get other flags, every second",
        arrive=2,
        delete=1,
        undelete=0.5,
        reflag=0.5,
    ),
    "hostile": Profile(
        about="everything that a mirror can survive, in modest shares; nothing more than three times",
        mishaps=tuple(Share(what, share, CURABLE_ATTEMPTS) for what, share in _HOSTILE.items()),
        gone_404=0.01,
        gone_200=0.01,
        recorded=0.005,
        limits=(Limit(rate=60, burst=120, lockout=2),),
        outages=(Outage(30, 5, "503", every=180), Outage(90, 10, "refuse", every=180)),
        jitter=0.01,
    ),
}
"""By name; a Profile of one's own is as good."""
