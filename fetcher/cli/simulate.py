"""`fetcher simulate`: a pr0gramm of one's own on loopback, to try everything without troubling anybody."""

from __future__ import annotations

import os

import click


class _CannotListen(click.ClickException):
    """The port is in use, or the address is not this machine's."""

    exit_code = 2


@click.command()
@click.option("--items", type=click.IntRange(min=0), default=3000, show_default=True, help="Items anybody can see.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed makes other items.")
@click.option("--port", type=click.IntRange(0, 65535), default=8120, show_default=True, help="0 takes any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--latency", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Seconds an answer takes."
)
@click.option(
    "--jitter",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Seconds an answer takes more or less than that, at most.",
)
@click.option("--login", is_flag=True, help="Accept login cookies, and show all flags to those who have them.")
@click.option("--gzip", is_flag=True, help="Compress answers for clients that accept it.")
def simulate(
    items: int, seed: int, port: int, host: str, latency: float, jitter: float, login: bool, gzip: bool
) -> None:
    """Answer like the pr0gramm API on this machine, with made-up items, until Ctrl-C."""
    from fetcher.simulator.server import serve
    from fetcher.simulator.world import World

    def announce(url: str) -> None:
        click.echo(f"Simulating {items:,} items at {url} (Ctrl-C ends it)")

    try:
        serve(
            World(seed, items, login),
            host,
            port,
            latency=latency,
            jitter=jitter,
            gzip=gzip,
            on_ready=announce,
        )
    except OSError as error:
        # A name that cannot be resolved comes with a number of its own kind.
        reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror
        raise _CannotListen(f"Cannot listen on {host}:{port}: {reason}") from error
