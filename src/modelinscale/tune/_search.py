"""The search itself: asks the policy what comes next, the searcher with which settings, gives it to whoever is free, and notes what came of it."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import ModelError
from modelinscale.core.logs import log
from modelinscale.models import Model
from modelinscale.tune import Tune
from modelinscale.tune._crew import cluster, processes
from modelinscale.tune._fit import Done, Fitter, Job
from modelinscale.tune._rungs import Again, Entry, following, ranked
from modelinscale.tune._space import Point, Space
from modelinscale.tune._study import About, Study, open_storage
from modelinscale.tune.searchers import History, Past

if TYPE_CHECKING:
    from modelinscale.compute import Compute

_NEW_SHARE = 0.6
"""The share of the budget in which new settings are begun; the rest is for the best of them on everything."""
_WAIT_S = 1.0
_NEWS_S = 1.0
"""How old what is known of other machines' trials may be; the same settings are never tried twice for it."""


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    model: Model
    loss: float
    entries: tuple[Entry, ...]
    importance: dict[str, float]
    space: Space
    ladder: tuple[float, ...]
    n_lost: int
    """Trials that were in work when an earlier process was killed, and were repeated."""
    n_warm: int
    seconds: float

    @property
    def best(self) -> Entry:
        return ranked(self.entries, 1.0)[0]


def search(
    settings: Tune,
    space: Space,
    fitter: Fitter,
    *,
    name: str,
    about: About,
    folder: Path,
    file: Path,
    compute: "Compute | None",
    trial_budget_s: float | None,
    news: Callable[[Sequence[Entry]], None],
) -> Found:
    """See `modelinscale.tune.search`."""
    began = time.monotonic()
    study = Study(open_storage(settings.storage, file), name, space, about)
    n_lost = study.recover()
    warm = study.earlier(settings.warm)
    firsts = [*space.starts(), *warm][: settings.trials]
    most = settings.searcher.most(space)
    n_trials = settings.trials if most is None else min(settings.trials, max(most, len(firsts)))
    n_rows = min(len(train) for train, _ in fitter.rows.values())
    ladder = settings.prune.ladder(n_rows)
    working: dict[int, Entry] = {}

    def left() -> float | None:
        return None if settings.budget is None else settings.budget - (time.monotonic() - began)

    def ask() -> Job | None:
        while True:
            study.beat()
            remaining = left()
            if remaining is not None and remaining <= 0:
                return None
            entries = study.entries(within_s=_NEWS_S)
            late = remaining is not None and settings.budget is not None and remaining < (1 - _NEW_SHARE) * settings.budget and bool(ranked(entries, ladder[0]))
            step = following(entries, settings.prune, ladder, n_trials, late=late)
            if step is None:
                return None
            point = step.point if isinstance(step, Again) else propose(step.draw, entries)
            entry = study.begin(step.draw, point, step.share)
            if entry is not None:
                working[entry.number] = entry
                news(study.latest())
                budget = min((b for b in (trial_budget_s, remaining) if b is not None), default=None)
                return Job(entry.number, entry.draw, space.model(point).plain(), entry.share, budget)

    def propose(draw: int, entries: Sequence[Entry]) -> Point:
        if draw < len(firsts):
            return firsts[draw]
        past = tuple(Past(e.point, e.loss, e.share, running=e.state == "running") for e in entries if e.state != "lost")
        return settings.searcher.propose(History(space, fitter.seed, draw, past))

    def results() -> Iterator[Done]:
        if compute is not None:
            return cluster(compute, fitter, ask)
        return processes(folder, settings.workers or os.cpu_count() or 1, fitter, ask, study.beat)

    try:
        _go_on(study, results, working, left, news)
        return _found(settings, study, space, ladder, n_lost, len(warm), time.monotonic() - began)
    finally:
        study.close()


def _go_on(
    study: Study,
    results: Callable[[], Iterator[Done]],
    working: dict[int, Entry],
    left: Callable[[], float | None],
    news: Callable[[Sequence[Entry]], None],
) -> None:
    """Notes results until there is nothing more to begin, here or on another machine."""
    while True:
        for done in results():
            entry = working.pop(done.number)
            study.end(entry, done.loss, note=done.note, seconds=done.seconds, cpu_seconds=done.cpu_seconds, lost=done.lost)
            log(__name__).info("trial done", extra={"trial": done.number, "loss": done.loss, "share": entry.share, "note": done.note})
            news(study.latest())
        remaining, entries = left(), study.entries()
        if (remaining is not None and remaining <= 0) or not any(e.state == "running" for e in entries):
            break
        time.sleep(_WAIT_S)  # another machine is at work on the last ones
        study.recover()


def _found(settings: Tune, study: Study, space: Space, ladder: tuple[float, ...], n_lost: int, n_warm: int, seconds: float) -> Found:
    entries = study.entries()
    whole = ranked(entries, 1.0)
    if not whole:
        notes = list(dict.fromkeys(e.note for e in entries if e.note))
        why = f": {'; '.join(notes[:3])}" if notes else ", since the budget ended before one had seen all rows" if entries else ": none was tried"
        raise ModelError(f"No settings could be chosen{why}.", fix="Raise `tune.budget`, or change `tune.space`.")
    assert whole[0].loss is not None
    return Found(space.model(whole[0].point), whole[0].loss, tuple(entries), study.importance(), space, ladder, n_lost, n_warm, seconds)


def plain_entry(entry: Entry) -> dict[str, Any]:
    """As JSON-ready data."""
    return {
        "trial": entry.number,
        "settings": entry.draw,
        "values": dict(entry.point),
        "share": round(entry.share, 4),
        "state": entry.state,
        "loss": entry.loss,
        "seconds": entry.seconds,
        "cpu_seconds": entry.cpu_seconds,
        "note": entry.note,
    }
