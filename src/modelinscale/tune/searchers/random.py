"""Every setting drawn by itself: hard to beat where hardly anything matters, and the measure for the others."""

from typing import ClassVar

from modelinscale.core.seeds import generator
from modelinscale.tune._space import Point
from modelinscale.tune.searchers import History, Searcher


class Random(Searcher):
    """Settings drawn at random; the same whatever the workers."""

    learns: ClassVar[bool] = False

    def propose(self, history: History) -> Point:
        return history.space.draw(generator(history.seed, "search", history.number))
