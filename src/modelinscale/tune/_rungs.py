"""Which trial comes next: new settings, or settings that did well on few rows now on more. Pure: what is known goes in, a decision comes out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pydantic import Field, field_validator

from modelinscale.core.errors import SpecError
from modelinscale.core.settings import Settings
from modelinscale.tune._space import Point

_LOST = 3
"""Settings whose process is lost so often are given up: they may be what kills it."""

State = Literal["running", "done", "failed", "lost"]


class Prune(Settings):
    """How settings that do badly are given up early."""

    how: Literal["top", "asha", "none"] = "top"
    """``top``: all settings on the first rung, the best ``keep`` of them on everything. ``asha``: the best third of each rung goes on to the next as results
    come. ``none``: everything for every one."""
    by: Literal["rows", "passes"] = "rows"
    """What a rung is a share of: rows, or a family's passes over them (epochs, rounds)."""
    rungs: tuple[float, ...] = (1 / 9, 1 / 3, 1.0)
    """Shares that settings are tried on, rising to 1; ``top`` uses the first and the last."""
    keep: float = Field(0.1, gt=0, le=1)
    """``top``: the share of settings that go on, at least three."""
    eta: int = Field(3, ge=2, le=10)
    """``asha``: one of so many goes on."""
    least_rows: int = Field(1000, ge=1)
    """Rungs of fewer rows than this are left out: they tell nothing."""

    @field_validator("rungs")
    @classmethod
    def _rising(cls, rungs: tuple[float, ...]) -> tuple[float, ...]:
        if not rungs or list(rungs) != sorted(set(rungs)) or rungs[0] <= 0 or rungs[-1] != 1:
            raise SpecError(f"rungs rise from above 0 to 1, found {', '.join(f'{r:g}' for r in rungs) or 'none'}.", fix="Write `rungs: [0.111, 0.333, 1]`.")
        return rungs

    def ladder(self, n_rows: int) -> tuple[float, ...]:
        """The shares that are used with so many training rows."""
        worth = [share for share in self.rungs[:-1] if share * n_rows >= self.least_rows]
        return {"none": (1.0,), "top": (*worth[:1], 1.0), "asha": (*worth, 1.0)}[self.how]


@dataclass(frozen=True)
class Entry:
    """One trial as the storage knows it."""

    number: int
    draw: int
    """Which settings: 0, 1, 2 …; trials on several rungs share it."""
    point: Point
    share: float
    state: State
    loss: float | None = None
    note: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    began: float = 0.0
    """Seconds since 1970."""


@dataclass(frozen=True)
class Again:
    """Settings that are known, on this share."""

    draw: int
    point: Point
    share: float


@dataclass(frozen=True)
class New:
    """Settings to be proposed."""

    draw: int
    share: float


def following(entries: Sequence[Entry], prune: Prune, ladder: tuple[float, ...], n_trials: int, *, late: bool = False) -> Again | New | None:
    """The next trial; None: nothing to begin now, and if none is running the search is over. ``late``: no new settings any more."""
    alive = {(e.draw, e.share) for e in entries if e.state != "lost"}
    lost = [(e.draw, e.share) for e in entries if e.state == "lost"]
    for e in entries:
        if e.state == "lost" and (e.draw, e.share) not in alive and lost.count((e.draw, e.share)) < _LOST:
            return Again(e.draw, e.point, e.share)
    drawn = {e.draw for e in entries}
    new = None if late or len(drawn) >= n_trials else New(next(i for i in range(len(drawn) + 1) if i not in drawn), ladder[0])
    up = _top(entries, prune, ladder) if prune.how == "top" else _asha(entries, prune, ladder)
    if prune.how == "top":
        return new or (None if any(e.state == "running" and e.share < 1 for e in entries) else up)
    return up or new or _one_at_least(entries, ladder)


def planned(prune: Prune, ladder: tuple[float, ...], n_trials: int) -> dict[float, int]:
    """How many trials each rung gets, lowest first, where nothing fails or is cut short; `asha` may let a few more go on, as results come."""
    if len(ladder) == 1:
        return {1.0: n_trials}
    if prune.how == "top":
        return {ladder[0]: n_trials, 1.0: min(n_trials, max(3, math.ceil(prune.keep * n_trials)) + 1)}
    found = {ladder[0]: n_trials}
    for low, high in pairwise(ladder):
        found[high] = found[low] // prune.eta
    return {**found, 1.0: max(1, found[1.0])}


def ranked(entries: Sequence[Entry], share: float) -> list[Entry]:
    """Trials of a rung that are done, the best first."""
    return sorted((e for e in entries if e.share == share and e.state == "done" and e.loss is not None), key=lambda e: (e.loss, e.draw))


def _top(entries: Sequence[Entry], prune: Prune, ladder: tuple[float, ...]) -> Again | None:
    if len(ladder) == 1:
        return None
    known = ranked(entries, ladder[0])
    n, begun = max(3, math.ceil(prune.keep * len(known))), {e.draw: e.state for e in entries if e.share == 1.0}
    for one in known:
        if n == 0:
            break
        if one.draw not in begun:
            return Again(one.draw, one.point, 1.0)
        n -= begun[one.draw] != "failed"
    # The settings the search began with, near the family's own: what was gained is told against them.
    return next((Again(one.draw, one.point, 1.0) for one in known if one.draw == 0 and one.draw not in begun), None)


def _asha(entries: Sequence[Entry], prune: Prune, ladder: tuple[float, ...]) -> Again | None:
    for low, high in reversed(list(pairwise(ladder))):
        known = ranked(entries, low)
        begun = {e.draw for e in entries if e.share == high}
        for one in known[: len(known) // prune.eta]:
            if one.draw not in begun:
                return Again(one.draw, one.point, high)
    return None


def _one_at_least(entries: Sequence[Entry], ladder: tuple[float, ...]) -> Again | None:
    """When nothing else is left: the best of the highest rung goes on, so that some settings saw everything."""
    if any(e.state == "running" or (e.share == 1.0 and e.state == "done") for e in entries):
        return None
    for low, high in reversed(list(pairwise(ladder))):
        begun = {e.draw for e in entries if e.share == high}
        for one in ranked(entries, low):
            if one.draw not in begun:
                return Again(one.draw, one.point, high)
    return None
