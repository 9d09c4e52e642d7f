"""How the service stands, in words that say what is going on and what can be done about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fetcher.service.engines import EngineState
from fetcher.service.page.charts import figure
from fetcher.stores.jobs import Backlog, Job
from fetcher.words import counted, duration


@dataclass(frozen=True, slots=True)
class Standing:
    """`kind` is what it looks like, `title` its name; `advice` is what a person can do."""

    kind: Literal["idle", "working", "waiting", "draining", "stuck"]
    title: str
    sentence: str
    advice: str = ""


def standing(
    state: EngineState, backlog: Backlog, *, draining: bool, rate: float, interval: float, now: float
) -> Standing:
    """How it stands; `rate` is items stored a second of late, `interval` the seconds between batches."""
    left = to_do(backlog)
    if draining:
        return Standing(
            "draining",
            "Draining",
            f"The service is about to end: what is under way is finished, nothing new begins. {left}",
            "What waits is kept, and goes on when the service is started again.",
        )
    if state.trouble and state.lasting:
        return Standing(
            "stuck",
            "Stuck",
            f"Nothing is fetched: {_cause(state.trouble)}. {left}",
            "Mend it in the settings (.env): they are read again by themselves, at latest after five minutes."
            " Ids are still taken, and none is lost.",
        )
    if state.trouble:
        return Standing(
            "waiting",
            "Waiting for the API",
            f"It does not answer well: {_cause(state.trouble)}. {left}",
            "It is asked again by itself, at latest after five minutes. Nothing has to be done.",
        )
    if state.reason and not state.paused and not state.traffic.reason:
        # What holds it up lies on this machine.
        return Standing(
            "stuck", "Stuck", f"Nothing is fetched: {state.reason}. {left}", "It goes on by itself once that is mended."
        )
    if state.paused or state.reason:
        why = f": {state.reason}" if state.reason else ""
        if state.paused < 1:
            sentence = f"One request shows whether the pause is over{why}. {left}"
        else:
            sentence = (
                f"It is left alone for another {duration(state.paused)}, until {clock(now + state.paused)}{why}. {left}"
            )
        return Standing("waiting", "Waiting for the API", sentence, "It goes on by itself. Nothing has to be done.")
    if not backlog.jobs:
        return Standing("idle", "Idle", "Nothing waits: what is submitted begins at once.")
    sentence = f"{figure(rate)} items/s. {left}" if rate >= 0.05 else left
    if interval and backlog.batches:
        sentence += f" One batch begins every {interval:g} s, the last in about {duration(backlog.batches * interval)}."
    return Standing("working", "Working", sentence)


def clock(at: float) -> str:
    """A Unix time as the clock of the service's machine shows it."""
    return f"{datetime.fromtimestamp(at).astimezone():%H:%M:%S %Z}"


def _cause(trouble: str) -> str:
    """A trouble without the advice of a command that has ended: the service goes on by itself."""
    return trouble.removesuffix(": run again later, it goes on where it was")


def to_do(backlog: Backlog) -> str:
    """What is left, as a sentence."""
    if not backlog.jobs:
        return "Nothing waits."
    if backlog.is_more:
        return f"More than {counted(backlog.jobs - 1, 'job')} to go."
    return f"{counted(backlog.ids, 'id')} to go in {counted(backlog.jobs, 'job')}."


def job_word(job: Job) -> str:
    """How a job stands, in a word or two."""
    if job.finished_at is None:
        if job.triggered:
            return "under way"
        return "waiting" if not job.started_at else "waits for its next batch"
    if job.failed:
        return "ended with failures"
    if job.cancelled:
        return "cancelled"
    return "done"


def job_sentence(job: Job) -> str:
    """How the ids of a job have ended."""
    parts = [f"{job.stored:,} of {counted(job.ids, 'id')} stored"]
    for number, word in ((job.failed, "failed"), (job.gone, "gone"), (job.cancelled, "cancelled")):
        if number:
            parts.append(f"{number:,} {word}")
    if job.open_ids:
        parts.append(f"{job.open_ids:,} to go")
    return ", ".join(parts)


def job_end(job: Job, rate: float, interval: float) -> str:
    """When a job may end; nothing where that cannot be known."""
    if job.waiting and interval:
        return f"at least {duration(job.waiting * interval)} more: one batch begins every {interval:g} s"
    if job.open_ids and rate >= 0.05 and not interval:
        return f"about {duration(job.open_ids / rate)} at the pace of late, if it is alone"
    return ""


def percent(job: Job) -> int:
    """How much of a job has ended; 100 only once all of it has."""
    return 100 * (job.ids - job.open_ids) // job.ids
