"""What every searcher must do: stay inside the space, keep nothing, and go on whatever became of earlier trials."""

from dataclasses import replace

from modelinscale.models import Model
from modelinscale.tune import Space
from modelinscale.tune.searchers import History, Past, Searcher

SPACES = {
    "one family": Space.of((Model.parse("trees"),), {}),
    "several families": Space.of((Model.parse("linear"), Model.parse("trees"), Model.parse("mlp")), {}),
}


def planted(space: Space, n: int) -> History:
    """A history of ``n`` settings: done, on a part of the rows, failed, or running."""
    history = History(space, seed=5, number=0)
    for i in range(n):
        point = Searcher.parse("random").propose(replace(history, number=i))
        loss = None if i % 7 in (3, 5) else 0.1 + abs(sum(map(len, point)) % 5 - i % 3)
        history = replace(history, number=i + 1, past=(*history.past, Past(point, loss, 1 / 9 if i % 2 else 1.0, running=i % 7 == 5)))
    return history


def settings_round_trip(searcher: Searcher, space: Space) -> None:
    """`plain` holds all settings."""
    assert Searcher.parse(searcher.plain()) == searcher


def stays_inside_the_space(searcher: Searcher, space: Space) -> None:
    """Every proposal is a point of it, and settings that a family takes."""
    for n in (0, 1, 2, 20, 30):
        point = searcher.propose(planted(space, n))
        assert space.outside(point) == ""
        space.model(point)


def keeps_nothing(searcher: Searcher, space: Space) -> None:
    """The same history gets the same proposal, whatever was asked in between."""
    for n in (0, 3, 20):
        history = planted(space, n)
        first = searcher.propose(history)
        searcher.propose(planted(space, n + 1))
        assert Searcher.parse(searcher.plain()).propose(history) == first


def proposes_something_else_the_next_time(searcher: Searcher, space: Space) -> None:
    """Twenty proposals are not one and the same."""
    found = [searcher.propose(planted(space, n)) for n in range(20)]
    assert len({str(point) for point in found}) > 10


def goes_on_when_nothing_could_learn(searcher: Searcher, space: Space) -> None:
    """A history of failures alone is a history."""
    history = planted(space, 20)
    failed = replace(history, past=tuple(replace(past, loss=None, running=False) for past in history.past))
    assert space.outside(searcher.propose(failed)) == ""


def depends_on_results_only_if_it_says_so(searcher: Searcher, space: Space) -> None:
    """One that does not learn proposes the same with no history at all."""
    history = planted(space, 20)
    if not searcher.learns:
        assert searcher.propose(history) == searcher.propose(replace(history, past=()))


SUITE = (
    settings_round_trip,
    stays_inside_the_space,
    keeps_nothing,
    proposes_something_else_the_next_time,
    goes_on_when_nothing_could_learn,
    depends_on_results_only_if_it_says_so,
)
"""Every check, for ``@pytest.mark.parametrize``."""
