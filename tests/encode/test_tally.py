"""Words counted in parts and added up late."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from modelinscale.encode import _tally
from modelinscale.encode._tally import Tally
from modelinscale.features.category import Category


def parts_of(words: list[str | None], n: int) -> list[pl.Series]:
    cuts = np.linspace(0, len(words), n + 1).astype(int)
    return [pl.Series("", words[a:b], pl.String) for a, b in pairwise(cuts)]


def tallied(feature: Category, parts: list[pl.Series]) -> Tally:
    total = Tally(feature.empty())
    for part in parts:
        total = total.merged(feature, Tally.of(feature, *feature.counted(part)))
    return total


@pytest.mark.parametrize("most_waiting", [0, 40, 1 << 17])
def test_words_added_up_late_teach_what_they_teach_one_after_the_other(most_waiting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tally, "_MOST_WAITING", most_waiting)
    chance = np.random.default_rng(7)
    words = [None if i % 19 == 0 else "" if i % 23 == 0 else f"word {i} of more than twelve letters" for i in (chance.zipf(1.3, 3_000) % 500).tolist()]
    feature, parts = Category(), parts_of(words, 30)
    whole = feature.observe(feature.empty(), pl.Series("", words, pl.String))
    found = tallied(feature, parts)
    assert found.settled(feature) == tallied(feature, parts[::-1]).settled(feature) == whole
    halves = tallied(feature, parts[:11]), tallied(feature, parts[11:])
    assert halves[0].merged(feature, halves[1]).settled(feature) == whole
    assert (found.n_distinct > 0) == (most_waiting < 1 << 17)
    assert sum(map(len, found.words)) <= 3 * 500 + most_waiting


def test_more_words_than_are_kept_waiting_go_into_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tally, "_MOST_WAITING", 0)
    monkeypatch.setattr(_tally, "_MOST_WORDS", 100)
    feature, words = Category(), [f"w{i}" for i in range(400)]
    found = tallied(feature, parts_of([*words, *words], 8))
    assert len(found.state["counts"]) == 400
    assert found.settled(feature) == feature.observe(feature.empty(), pl.Series("", [*words, *words]))


def test_no_words_leave_the_empty_state() -> None:
    feature = Category()
    assert tallied(feature, []).settled(feature) == feature.empty()
    assert tallied(feature, parts_of([None, None], 2)).settled(feature) == {"n": 2, "missing": 2, "dropped": 0, "counts": {}}
