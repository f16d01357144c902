"""What comes next follows from what is known, and from nothing else."""

from dataclasses import replace

import pytest

from modelinscale.tune._rungs import Again, Entry, New, Prune, following, planned, ranked
from modelinscale.tune._space import Point

LADDER = (1 / 9, 1 / 3, 1.0)


def played(prune: Prune, n_trials: int, *, at_once: int = 1, lose: frozenset[int] = frozenset(), fail: frozenset[int] = frozenset()) -> list[Entry]:
    """A whole search in which settings ``i`` have loss ``(7 i) mod 101``, a little less on more rows; trials numbered in ``lose`` are lost."""
    ladder = prune.ladder(100_000)
    entries: list[Entry] = []
    while True:
        running = [e for e in entries if e.state == "running"]
        step = following(entries, prune, ladder, n_trials) if len(running) < at_once else None
        if step is not None:
            point: Point = step.point if isinstance(step, Again) else {"trees.leaves": step.draw}
            entries.append(Entry(len(entries), step.draw, point, step.share, "running"))
        elif running:
            one = running[0]
            loss = 7 * one.draw % 101 - one.share
            state = "lost" if one.number in lose else "failed" if one.draw in fail else "done"
            entries[one.number] = replace(one, state=state, loss=loss if state == "done" else None)  # type: ignore[arg-type]
        else:
            return entries


def compute(entries: list[Entry]) -> float:
    return sum(e.share for e in entries)


@pytest.mark.parametrize("at_once", [1, 2, 5])
@pytest.mark.parametrize("how", ["top", "asha", "none"])
def test_the_best_settings_see_all_rows_whatever_the_workers(how: str, at_once: int) -> None:
    entries = played(Prune(how=how), 50, at_once=at_once)
    assert {e.draw for e in entries} == set(range(50))
    assert ranked(entries, 1.0)[0].draw == 0
    assert len({(e.draw, e.share) for e in entries}) == len(entries), "no settings are tried twice on the same rows"


def test_the_top_of_fifty_costs_less_than_a_third_of_fifty_whole_trials() -> None:
    assert compute(played(Prune(), 50)) / 50 < 0.25
    assert compute(played(Prune(how="asha"), 50)) / 50 < 0.36


@pytest.mark.parametrize("n_trials", [1, 4, 50])
@pytest.mark.parametrize("how", ["top", "asha", "none"])
def test_what_is_planned_is_what_a_search_comes_to(how: str, n_trials: int) -> None:
    prune = Prune(how=how)
    told, entries = planned(prune, prune.ladder(100_000), n_trials), played(prune, n_trials)
    begun = {share: sum(e.share == share for e in entries) for share in told}
    assert sum(begun.values()) == len(entries)
    if how == "asha":  # more go on than one in three, as results come
        assert all(n <= begun[share] <= 2 * n + 2 for share, n in told.items())
    else:
        assert all(0 <= n - begun[share] <= 1 for share, n in told.items()), "the settings it began with may be among the best"


def test_a_lost_trial_is_done_again_and_no_other() -> None:
    whole, cut = played(Prune(), 20), played(Prune(), 20, lose=frozenset({4}))
    assert [(e.draw, e.share) for e in cut if e.state == "done"].sort() == [(e.draw, e.share) for e in whole].sort()
    assert len(cut) == len(whole) + 1
    assert ranked(cut, 1.0)[0].draw == ranked(whole, 1.0)[0].draw


def test_settings_whose_process_is_always_lost_are_given_up() -> None:
    entries = played(Prune(how="none"), 1, lose=frozenset(range(100)))
    assert len(entries) == 3


def test_settings_that_fail_on_all_rows_make_room_for_the_next_best() -> None:
    class Fragile(Prune):
        """Nothing else."""

    entries = [Entry(i, i, {}, 1 / 9, "done", float(i)) for i in range(9)]
    entries += [Entry(9 + i, i, {}, 1.0, "failed") for i in range(3)]
    found = following(entries, Fragile(), (1 / 9, 1.0), 9)
    assert isinstance(found, Again)
    assert found.draw == 3


def test_more_trials_go_on_where_the_search_ended() -> None:
    entries = played(Prune(), 20)
    assert following(entries, Prune(), Prune().ladder(100_000), 20) is None
    assert following(entries, Prune(), Prune().ladder(100_000), 21) == New(20, 1 / 9)


def test_nothing_new_is_begun_when_it_is_late() -> None:
    entries = [Entry(i, i, {}, 1 / 9, "done", float(i)) for i in range(5)]
    found = following(entries, Prune(), (1 / 9, 1.0), 50, late=True)
    assert isinstance(found, Again)
    assert found.share == 1.0


def test_rungs_of_too_few_rows_are_left_out() -> None:
    assert Prune().ladder(5_000) == (1 / 3, 1.0)
    assert Prune().ladder(500) == (1.0,)
    assert Prune(how="asha").ladder(100_000) == LADDER
    assert Prune(how="none").ladder(100_000) == (1.0,)
