"""What a run has to walk and to fetch: what there is and is wanted, less what is proven already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fetcher.contracts import Source, Store
from fetcher.coverage import clip, plan_walks
from fetcher.model import Covered, Interval, Plan, Scope, Start, Walk


def survey(
    source: Source, store: Store | None, plan: Plan, universe: Interval | Mapping[Scope, Interval]
) -> tuple[list[Walk], Start, float | None]:
    """What is to be walked and fetched, and how many items a position stands for: 0 to 1, or None.

    None says that nobody can tell, as where positions are times. `store` is None where there is no database yet.
    """
    covered: Mapping[Scope, Sequence[Covered]] = dict.fromkeys(source.scopes, ())
    queued = 0
    if store is not None:
        covered, queued = store.coverage(source.scopes), store.counts().work
    walks = _plan_walks(source, covered, plan, universe)
    tokens = store.tokens() if store is not None else {}
    walks = [
        source.resumed(walk, tokens[walk.scopes[0]]) if len(walk.scopes) == 1 and walk.scopes[0] in tokens else walk
        for walk in walks
    ]
    density = _density(covered) if source.numbered else None
    missing = sum(walk.hole.size for walk in walks)
    start = Start(
        newest=max((walk.hole.hi for walk in walks), default=None),
        oldest=min((walk.hole.lo for walk in walks), default=None),
        estimate=queued + round(missing * density) if density is not None else None if walks else queued,
        queued=queued,
        holes=len(walks),
        workers=plan.workers,
    )
    return walks, start, density


def _plan_walks(
    source: Source,
    covered: Mapping[Scope, Sequence[Covered]],
    plan: Plan,
    universe: Interval | Mapping[Scope, Interval],
) -> list[Walk]:
    """Walks over all that is missing, then those over what has changed of what is not."""
    together = (
        {(*covered,): universe} if isinstance(universe, Interval) else {(each,): universe[each] for each in covered}
    )
    stretches = {
        scope: [] if source.lists_anew else [Interval(each.lo, each.hi) for each in found]
        for scope, found in covered.items()
    }
    walks: list[Walk] = []
    listed: dict[Scope, Covered] = {}
    for scopes, whole in together.items():
        within = clip(whole, plan.bounds) if plan.bounds else whole
        head = plan.bounds is None or plan.bounds.hi > whole.hi
        if within.size:
            walks += plan_walks(within, {scope: stretches[scope] for scope in scopes}, plan.order, head=head)
        # What has holes is walked there first: what has changed of the rest is for a later run.
        for scope in scopes:
            parts = covered[scope]
            if len(parts) == 1 and parts[0].lo <= within.lo and not source.lists_anew:
                listed[scope] = parts[0]
    changes = []
    for walk in source.changes(listed):
        # What is proven above is joined to what is known once that is up to date: else the older time holds for both.
        above = tuple(each for each in walks if each.scopes == walk.scopes and each.hole.lo > walk.hole.hi)
        walks = [each for each in walks if each not in above]
        changes.append(replace(walk, then=above))
    return [*walks, *changes]


def _density(covered: Mapping[Scope, Sequence[Covered]]) -> float:
    """How many items there were for each number that was listed; 1 while nothing is known."""
    # Per scope, since each counts its own items; the widest stretch says how many ids there were.
    items = sum(each.items for found in covered.values() for each in found)
    span = max((sum(each.hi - each.lo + 1 for each in found) for found in covered.values()), default=0)
    return min(1.0, items / span) if span else 1.0
