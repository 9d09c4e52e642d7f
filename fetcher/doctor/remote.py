"""Whether the API can be reached, takes the login, and keeps the same time: two requests at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from requests.utils import get_environ_proxies

from fetcher.client import Answer, Client, Parse
from fetcher.doctor.finding import Finding, bad, note, ok
from fetcher.doctor.sayings import saying
from fetcher.errors import RequestFailed
from fetcher.model import Interval, Outcome, Scope
from fetcher.settings import login_of
from fetcher.sources import Examinable, Source, of

MOST_SECONDS_APART = 60.0
"""By so much the clocks may differ: what counts as too young to be covered depends on them."""

_NEEDED = "is shown to a login only"


class Witness(Client):
    """A client that keeps its last good answer, and when it was asked for and came (Unix seconds)."""

    last: Answer | None = None
    asked_at = 0.0
    answered_at = 0.0

    def get(self, path: str, params: Mapping[str, object], parse: Parse | None = None) -> Answer:
        """As any client does."""
        return self._witnessed(lambda: super(Witness, self).get(path, params, parse))

    def ask(
        self,
        url: str,
        parse: Parse | None = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """As any client does."""
        return self._witnessed(lambda: super(Witness, self).ask(url, parse, body=body, headers=headers))

    def _witnessed(self, asked: Callable[[], Answer]) -> Answer:
        self.asked_at = self.stop.time()
        answer = asked()
        self.answered_at, self.last = self.stop.time(), answer
        return answer


@dataclass(slots=True)
class Remote:
    """The examination of one API; `universe` is known once the list head has been given."""

    source: Source
    client: Witness
    timeout: float
    universe: Interval | Mapping[Scope, Interval] | None = None

    def examine(self) -> Iterator[Finding]:
        """Ask for the list head, then whether the login counts if one is given."""
        began = self.client.stop.now()
        try:
            self.universe = self.source.universe(self.client)
        except RequestFailed as error:
            seconds = self.client.stop.now() - began
            if error.outcome is Outcome.DENIED:
                yield ok("network", f"{self.client.base_url} answers in {seconds:.2f} s")
                yield from self._denied(error)
            else:
                yield self._unreachable(error)
                yield from examine_login(self.source, tried=False)
            return
        newest, position = "", of(self.source, "position_text")
        if isinstance(self.universe, Interval):
            found = f"the newest item is {position(self.universe.hi)}"
            newest = f", {found if self.universe.size else 'which lists nothing'}"
        yield ok("network", f"{self.client.base_url} answers in {self.client.stop.now() - began:.2f} s{newest}")
        yield from self._clock()
        yield from self._login()

    def _unreachable(self, error: RequestFailed) -> Finding:
        what, remedy = saying(error, self.timeout)
        if error.status is None and get_environ_proxies(self.client.base_url):
            remedy += "; a proxy is set in the environment (HTTPS_PROXY, HTTP_PROXY): check it too"
        return bad("network", f"{self.client.base_url}: {what} ({error})", remedy)

    def _denied(self, error: RequestFailed) -> Iterator[Finding]:
        names = login_of(self.source.Options)
        if not of(self.source, "cookies"):
            yield bad("login", f"what is asked for {_NEEDED}, and none is given ({error})", _give(names))
        else:
            yield bad(
                "login",
                f"the API refuses the list head with the login given: it has expired, or is not enough ({error})",
                f"log in with a browser again and renew {names}",
            )

    def _login(self) -> Iterator[Finding]:
        """What the list head's being given says of the login."""
        source = self.source
        if not of(source, "cookies"):
            yield from examine_login(source, tried=True)
            return
        names, counts = login_of(source.Options), None
        if isinstance(source, Examinable):
            try:
                counts = source.logged_in(self.client)
            except RequestFailed as error:
                yield note("login", f"whether the login counts cannot be told: {error}", "try again later")
                return
        if counts is False:
            level = bad if getattr(source, "needs_login", True) else note
            yield level(
                "login",
                "a login is given, but the API does not take it: it has expired",
                f"log in with a browser again and renew {names}",
            )
        elif getattr(source, "needs_login", True):
            yield ok("login", "given, and what is asked for is listed with it")
        else:
            yield note(
                "login",
                "given, but nothing is asked for that needs it",
                f"ask for what only a login is shown (the source's settings say how), or take {names} away",
            )

    def _clock(self) -> Iterator[Finding]:
        """How far the clocks are apart, by the answer's Date and by the API's own time."""
        answer = self.client.last
        if answer is None:
            return
        told = {"the answer's Date": _date_of(answer.headers)}
        if isinstance(self.source, Examinable):
            told["the API's own time"] = self.source.time_of(answer)
        apart = {name: self._apart(at) for name, at in told.items() if at is not None}
        far = {name: seconds for name, seconds in apart.items() if abs(seconds) > MOST_SECONDS_APART}
        if not apart:
            yield note("clock", "the API tells no time to compare with", "see that this machine's clock is set by NTP")
        elif not far:
            yield ok("clock", f"agrees with {' and '.join(apart)}")
        elif len(far) == len(apart):
            name, seconds = next(iter(far.items()))
            yield bad(
                "clock",
                f"this machine's clock is {abs(seconds):,.0f} s {'ahead of' if seconds > 0 else 'behind'} {name}:"
                " items may count as older than they are, and others below them be missed",
                "let the clock be set by NTP (timedatectl set-ntp true)",
            )
        else:
            (name, seconds), (other, _) = (
                next(iter(far.items())),
                next(each for each in apart.items() if each[0] not in far),
            )
            yield note(
                "clock",
                f"{name} is {abs(seconds):,.0f} s off, but this machine's clock agrees with {other}",
                "nothing here: a cache gave an old answer, or the server's clocks differ",
            )

    def _apart(self, at: float) -> float:
        """Seconds by which our clock is ahead of `at`, a whole second at some time between asking and answer."""
        if at > self.client.answered_at:
            return self.client.answered_at - at
        return max(0.0, self.client.asked_at - 1 - at)


def examine_login(source: Source, *, tried: bool) -> Iterator[Finding]:
    """What can be told of the login without asking, or with the list head given to who has none."""
    needs = getattr(source, "needs_login", None)
    names = login_of(source.Options)
    if of(source, "cookies"):
        yield ok("login", "given; it was not tried")
    elif needs and not tried:
        yield bad("login", f"what is asked for {_NEEDED}, and none is given", _give(names))
    elif needs:
        yield ok("login", "not given, and what is asked for is listed without")
    else:
        yield ok("login", "not given" + (", and not needed" if needs is False or tried else ""))


def _give(names: str) -> str:
    return f"log in with a browser and give {names} (in .env), or ask for what everybody sees"


def _date_of(headers: Mapping[str, str]) -> float | None:
    """When the answer was given, by its Date; caches leave that and say how long they have had it (RFC 9111)."""
    try:
        at = parsedate_to_datetime(headers.get("date", "")).timestamp()
        return at + max(0, int(headers.get("age", "0")))
    except (ValueError, TypeError, OverflowError):
        return None
