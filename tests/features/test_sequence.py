"""Sequences as features: what is said of steps that a model is not shown."""

from typing import Any

import polars as pl
import pytest

from modelinscale.features import State
from modelinscale.features.sequence import Sequence


def learned(feature: Sequence, lengths: list[int]) -> State:
    rows: list[Any] = [[0.5] * n for n in lengths]
    return feature.observe(feature.empty(), pl.Series("x", rows, dtype=pl.List(pl.Float32)))


@pytest.mark.parametrize(
    ("feature", "lengths", "said"),
    [
        (Sequence(), [2_000, 1_000, 400, 512], "2 sequences to learn from (50.0%) are cut to their first 512 steps; the longest has 2,000."),
        (Sequence(), [10] * 199 + [40], "1 sequences to learn from (0.5%) are cut to their first 10 steps; the longest has 40."),
        (Sequence(longest=8), [7, 8, 9, 3], "1 sequences to learn from (25.0%) are cut to their first 8 steps; the longest has 9."),
    ],
)
def test_sequences_that_are_cut_are_told_to_those_who_use_their_steps(feature: Sequence, lengths: list[int], said: str) -> None:
    state = learned(feature, lengths)
    assert feature.notes(state, "scaled+deep") == (f"{said} `longest` lets models see more.",)
    assert feature.notes(state, "scaled") == ()  # a summary is of all steps


@pytest.mark.parametrize("feature", [Sequence(), Sequence(longest=2_000)])
def test_nothing_is_said_where_models_see_all_steps(feature: Sequence) -> None:
    assert feature.notes(learned(feature, [3, 400, 512]), "deep") == ()
