"""Every combination of a few values of each setting, in an order that covers the whole grid early."""

from math import prod
from typing import ClassVar

from pydantic import Field

from modelinscale.core.seeds import mixed
from modelinscale.core.space import Value
from modelinscale.tune._space import FAMILY, Point, Space
from modelinscale.tune.searchers import History, Searcher

_SCATTERED = 1_000_000
"""Grids up to this size are gone through in a scattered order; larger ones, which nobody finishes, are drawn from."""


class Grid(Searcher):
    """A grid over the space; for a few settings with few values."""

    learns: ClassVar[bool] = False

    points: int = Field(3, ge=2, le=100)
    """Values of each range, its ends included; choices are all tried."""

    def propose(self, history: History) -> Point:
        sizes = {family: prod(map(len, self._axes(history.space, family).values())) for family in history.space.families}
        total = sum(sizes.values())
        place = _scattered(history.number % total, total, history.seed)
        family = history.space.families[0]
        for family, size in sizes.items():  # noqa: B007  # the one it stops at is used below
            if place < size:
                break
            place -= size
        values: dict[str, Value] = {FAMILY: family}
        for name, axis in self._axes(history.space, family).items():
            place, at = divmod(place, len(axis))
            values[name] = axis[at]
        return history.space.complete(values)

    def most(self, space: Space) -> int | None:
        return sum(prod(map(len, self._axes(space, family).values())) for family in space.families)

    def _axes(self, space: Space, family: str) -> dict[str, list[Value]]:
        return {name: span.grid(self.points) for name, span in space.flat(family).items()}


def _scattered(number: int, total: int, seed: int) -> int:
    """Place ``number`` of an order of all places; each comes once where there are not too many."""
    import numpy as np

    if total > _SCATTERED:
        return int(mixed(np.uint64(seed), np.array([number], np.uint64))[0] % np.uint64(total))
    return int(np.argsort(mixed(np.uint64(seed), np.arange(total, dtype=np.uint64)), kind="stable")[number])
