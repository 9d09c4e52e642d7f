"""`fetcher simulate`: an API of one's own on loopback, to try everything without troubling anybody."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click
from click.core import ParameterSource

from fetcher.simulator.embeddings.world import BAD_WORD
from fetcher.simulator.limiter import Limit, Window
from fetcher.simulator.mishaps import MISHAPS
from fetcher.simulator.profile import Knee, Outage, Profile, Share
from fetcher.simulator.profiles import PROFILES
from fetcher.simulator.rest.api import STYLES
from fetcher.simulator.stac.dialect import MATCHED, NEXT_STYLES, QUIRKS, Dialect


class _CannotListen(click.ClickException):
    """The port is in use, or the address is not this machine's."""

    exit_code = 2


_SHARE = click.FloatRange(0, 1)
_SECONDS = click.FloatRange(min=0)
_POSITIVE = click.FloatRange(min=0, min_open=True)


def _listed(title: str, about: Mapping[str, str]) -> str:
    """A list for the help, which is not to be wrapped."""
    width = max(map(len, about)) + 1
    return f"\b\n{title}:\n" + "\n".join(f"  {name:<{width}} {text}" for name, text in about.items())


_EPILOG = "\n\n".join(
    (
        _listed("Profiles", {name: profile.about for name, profile in PROFILES.items()}),
        _listed("Paths of rest", STYLES),
        _listed("Next links of stac", NEXT_STYLES),
        _listed("Quirks of stac", QUIRKS),
    )
)


@click.command(epilog=_EPILOG)
@click.argument("source", type=click.Choice(["pr0gramm", "stac", "rest", "embeddings"]), default="pr0gramm")
@click.option("--items", type=click.IntRange(min=0), default=3000, show_default=True, help="Items anybody can see.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed makes other items.")
@click.option("--port", type=click.IntRange(0, 65535), default=8120, show_default=True, help="0 takes any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--latency", type=_SECONDS, help="Seconds an answer takes.  [default: 0, or the profile's]")
@click.option(
    "--jitter", type=_SECONDS, help="Seconds an answer takes more or less than that, at most.  [default: likewise]"
)
@click.option("--login", is_flag=True, help="Accept login cookies, and show all flags to those who have them.")
@click.option("--gzip", is_flag=True, help="Compress answers for clients that accept it.")
@click.option("--profile", type=click.Choice(list(PROFILES)), help="Let go wrong what this one says; see below.")
@click.option("--rate", type=_POSITIVE, help="Limit: requests a second.")
@click.option("--burst", type=_POSITIVE, help="Limit: requests saved up at most.  [default: a second's worth]")
@click.option("--lockout", type=_SECONDS, help="Limit: seconds for which a refused request locks everyone out.")
@click.option(
    "--rate-after",
    type=(_SECONDS, _POSITIVE),
    metavar="T R",
    multiple=True,
    help="Limit: from T seconds after the start, R requests a second.",
)
@click.option(
    "--window",
    type=(click.IntRange(min=0), _POSITIVE, _SECONDS),
    metavar="N W B",
    help="N requests in W seconds, then everyone is refused for B seconds.",
)
@click.option("--retry-after", metavar="TEXT", help="What refusals by limit and window have as Retry-After.")
@click.option("--knee", type=click.IntRange(min=1), metavar="C", help="Beyond C requests at once, answers take longer.")
@click.option("--gone", type=_SHARE, metavar="SHARE", help="Share of the items whose details are gone.")
@click.option(
    "--fault",
    type=(str, _SHARE),
    metavar="NAME SHARE",
    multiple=True,
    help=f"Share of first tries that go wrong like this: {', '.join(MISHAPS)}.",
)
@click.option(
    "--outage",
    type=(_SECONDS, _SECONDS, str),
    metavar="X T HOW",
    multiple=True,
    help="From X seconds on, for T seconds, everyone is refused a connection (HOW: refuse) or met by a fault.",
)
@click.option("--arrive", type=_SECONDS, metavar="N", help="New items a second.")
@click.option(
    "--collections", type=click.IntRange(min=1), help="STAC: collections, which share the items.  [default: 2]"
)
@click.option(
    "--next", type=click.Choice(list(NEXT_STYLES)), help="STAC: how a page names the next.  [default: post-body]"
)
@click.option("--matched", type=click.Choice(MATCHED), help="STAC: how a search says its count.  [default: number]")
@click.option("--page-default", type=click.IntRange(min=1), help="STAC: items on a page.  [default: 10]")
@click.option("--page-max", type=click.IntRange(min=1), help="STAC: the most items on a page.  [default: 10000]")
@click.option("--collections-page", type=click.IntRange(min=1), help="STAC: collections on a page.  [default: all]")
@click.option("--big-page", type=click.IntRange(min=1), help="STAC: what big-page-500 answers.  [default: 100]")
@click.option("--quirk", type=click.Choice(list(QUIRKS)), multiple=True, metavar="NAME", help="STAC: see below.")
@click.option("--embeddings", is_flag=True, help="The same as the source embeddings.")
@click.option("--dimension", type=click.IntRange(1, 32767), help="Embeddings: numbers in a vector.  [default: 256]")
@click.option(
    "--max-batch", type=click.IntRange(min=1), help="Embeddings: the most texts in a request.  [default: 2048]"
)
@click.option(
    "--max-tokens", type=click.IntRange(min=1), help="Embeddings: the most tokens (4 bytes) in a text.  [default: 8192]"
)
@click.option("--bad-word", help=f"Embeddings: a text with this word is refused.  [default: {BAD_WORD}]")
@click.option("--key", help="Embeddings: who does not send it as `Authorization: Bearer` is refused.")
def simulate(
    source: str,
    items: int,
    seed: int,
    port: int,
    host: str,
    latency: float | None,
    jitter: float | None,
    login: bool,
    gzip: bool,
    embeddings: bool,
    **faults: Any,
) -> None:
    """Answer like the API of pr0gramm, a STAC API, a REST API by every way of paging, or OpenAI's for embeddings, on
    this machine, with made-up items, until Ctrl-C.

    All goes well unless a profile or an option says otherwise; the options override the profile.
    """
    from fetcher.simulator.embeddings import EmbeddingsWorld
    from fetcher.simulator.rest.world import RestWorld
    from fetcher.simulator.server import serve
    from fetcher.simulator.stac.world import StacWorld
    from fetcher.simulator.world import World

    source = _source(source, embeddings)
    collections = faults.pop("collections")
    dialect = _dialect({name: faults.pop(name) for name in _DIALECT})
    asked_of_embeddings = {name: faults.pop(name) for name in _EMBEDDINGS}
    of_embeddings = {name: value for name, value in asked_of_embeddings.items() if value is not None}
    if of_embeddings and source != "embeddings":
        raise click.UsageError("--dimension, --max-batch, --max-tokens, --bad-word and --key are for embeddings")
    if source == "embeddings" and (_is_given("items") or faults["gone"] is not None or faults["arrive"] is not None):
        raise click.UsageError("--items, --gone and --arrive are not for embeddings")
    if source != "pr0gramm" and (login or (faults["gone"] is not None and source == "stac")):
        raise click.UsageError(f"--login and --gone are not for {source}")
    if source != "stac" and (dialect is not None or collections is not None):
        raise click.UsageError("--collections, --next, --matched, --page-…, --big-page and --quirk are for stac")
    profile = _profile(seed, latency, jitter, **faults)

    def announce(url: str) -> None:
        what = "embeddings" if source == "embeddings" else f"{items:,} items"
        click.echo(f"Simulating {what} at {url} (Ctrl-C ends it)")

    world: World | StacWorld | RestWorld | EmbeddingsWorld
    if source == "embeddings":
        world = EmbeddingsWorld(seed, **of_embeddings)
    elif source == "stac":
        world = StacWorld(seed, items, collections or 2)
    elif source == "rest":
        world = RestWorld(seed, items)
    else:
        world = World(seed, items, login or (profile is not None and profile.login is not None))
    try:
        requests, wrong = serve(
            world,
            host,
            port,
            latency=latency or 0.0,
            jitter=jitter or 0.0,
            gzip=gzip,
            profile=profile,
            dialect=dialect,
            on_ready=announce,
        )
    except OSError as error:
        # A name that cannot be resolved comes with a number of its own kind.
        reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror
        raise _CannotListen(f"Cannot listen on {host}:{port}: {reason}") from error
    if profile is not None or (dialect is not None and dialect.mishaps):
        what = ", ".join(f"{count:,} {name}" for name, count in sorted(wrong.items()))
        click.echo(
            f"Answered {requests.total():,} requests, {wrong.total():,} of them with a fault{what and ': ' + what}"
        )


_EMBEDDINGS = ("dimension", "max_batch", "max_tokens", "bad_word", "key")


def _source(named: str, embeddings: bool) -> str:
    if embeddings and _is_given("source") and named != "embeddings":
        raise click.UsageError(f"--embeddings is not for {named}")
    return "embeddings" if embeddings else named


def _is_given(name: str) -> bool:
    """Whether a parameter comes from the command line, and is not its default."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


_DIALECT = ("next", "matched", "page_default", "page_max", "collections_page", "big_page", "quirk")


def _dialect(given: Mapping[str, Any]) -> Dialect | None:
    """The dialect that the options make; None when there are none."""
    changes = {name: value for name, value in given.items() if value not in (None, ())}
    if "quirk" in changes:
        changes["quirks"] = frozenset(changes.pop("quirk"))
    try:
        return Dialect(**changes) if changes else None
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _profile(
    seed: int,
    latency: float | None,
    jitter: float | None,
    *,
    profile: str | None,
    rate: float | None,
    burst: float | None,
    lockout: float | None,
    rate_after: tuple[tuple[float, float], ...],
    window: tuple[int, float, float] | None,
    retry_after: str | None,
    knee: int | None,
    gone: float | None,
    fault: tuple[tuple[str, float], ...],
    outage: tuple[tuple[float, float, str], ...],
    arrive: float | None,
) -> Profile | None:
    """The profile named, with what the options change of it; None when nothing is to go wrong."""
    base = PROFILES[profile] if profile else Profile()
    changes: dict[str, Any] = {}
    if profile and latency is not None:
        changes["latency"] = 0.0
    if profile and jitter is not None:
        changes["jitter"] = 0.0
    if rate is not None:
        limit = Limit(rate=rate, burst=burst, lockout=lockout or 0.0, later=rate_after, retry_after=retry_after)
        changes["limits"] = (limit,)
    elif burst is not None or lockout is not None or rate_after:
        raise click.UsageError("--burst, --lockout and --rate-after need --rate")
    if window is not None:
        requests, seconds, block = window
        changes["windows"] = (Window(requests=requests, seconds=seconds, block=block, retry_after=retry_after),)
    if retry_after is not None and rate is None and window is None:
        raise click.UsageError("--retry-after needs --rate or --window")
    if knee is not None:
        changes["knee"] = Knee(knee)
    if gone is not None:
        changes |= {"gone_404": gone / 2, "gone_200": gone / 2}
    try:
        if fault:
            changes["mishaps"] = tuple(Share(name, share) for name, share in fault)
        if outage:
            changes["outages"] = tuple(Outage(start, seconds, how) for start, seconds, how in outage)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if arrive is not None:
        changes["arrive"] = arrive
    return replace(base, seed=seed, **changes) if profile or changes else None
