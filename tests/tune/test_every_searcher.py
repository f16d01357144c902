"""Every searcher in the folder passes the shipped suite; and what each is for."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from modelinscale.core.kinds import names
from modelinscale.core.space import Choices, Range
from modelinscale.models import Model
from modelinscale.testing import searchers as suite
from modelinscale.tune import Space
from modelinscale.tune.searchers import History, Past, Searcher


@pytest.mark.parametrize("space", suite.SPACES, ids=lambda name: str(name).replace(" ", "-"))
@pytest.mark.parametrize("name", names(Searcher.folder))
@pytest.mark.parametrize("check", suite.SUITE, ids=lambda check: str(check.__name__))
def test_every_searcher(name: str, space: str, check: Callable[[Searcher, Space], None]) -> None:
    check(Searcher.parse(name), suite.SPACES[space])


def test_a_grid_comes_by_every_combination_once() -> None:
    space = Space.of((Model.parse({"type": "linear", "rows": 5000}),), {"linear.strength": Range(0.001, 1.0, log=True), "linear.iterations": Choices((10, 20))})
    grid = Searcher.parse({"type": "grid", "points": 4})
    assert grid.most(space) == 8
    found = {str(grid.propose(History(space, 7, i))) for i in range(8)}
    assert len(found) == 8


def test_tpe_finds_a_valley_that_random_misses() -> None:
    space = Space.of((Model.parse("trees"),), {})

    def best(searcher: Searcher) -> float:
        history = History(space, 3, 0)
        for i in range(40):
            point = searcher.propose(replace(history, number=i))
            away = [abs(span.share(point[name]) - 0.3) for name, span in space.flat("trees").items() if isinstance(span, Range)]
            history = replace(history, past=(*history.past, Past(point, sum(away))))
        return min(past.loss or 9.0 for past in history.past)

    assert best(Searcher.parse("tpe")) < 0.75 * best(Searcher.parse("random"))
