"""The histogram that merges exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from modelinscale.core.bins import LIMIT, Bins

finite = st.floats(allow_nan=False, allow_infinity=False)


def same(a: Bins, b: Bins) -> bool:
    return a.plain() == b.plain()


@given(hnp.arrays(np.float64, st.integers(0, 50), elements=finite), st.integers(0, 50))
def test_parts_merged_equal_the_whole_for_any_values(values: NDArray[np.float64], cut: int) -> None:
    whole = Bins.of(values)
    assert same(Bins.of(values[:cut]).merged(Bins.of(values[cut:])), whole)
    assert same(Bins.of(values[cut:]).merged(Bins.of(values[:cut])), whole)
    assert same(Bins.load(whole.plain()), whole)


@pytest.mark.parametrize("spread", ["normal", "lognormal", "uniform", "cauchy", "years"])
def test_many_values_in_any_parts_give_the_same_bins_close_to_the_truth(spread: str) -> None:
    chance = np.random.default_rng(7)
    values = {
        "normal": chance.normal(size=20_000),
        "lognormal": chance.lognormal(0, 3, 20_000),
        "uniform": chance.uniform(1e6, 1e6 + 1, 20_000),
        "cauchy": chance.standard_cauchy(20_000),
        "years": chance.integers(1900, 2030, 20_000).astype(np.float64),
    }[spread]
    whole = Bins.of(values)
    merged = Bins.of(values[:1])
    for part in np.array_split(values[1:], [3, 700, 1500, 15_000]):
        merged = Bins.of(part).merged(merged)
    assert same(merged, whole)
    assert LIMIT / 2.5 < len(whole.at) <= LIMIT or spread == "years"
    quartiles = [whole.quantile(q) for q in (0.25, 0.5, 0.75)]
    assert quartiles == pytest.approx(np.quantile(values, [0.25, 0.5, 0.75]), rel=0.02, abs=0.01)


@pytest.mark.parametrize(
    "kind", ["normal", "cents", "counts", "large counts", "sparse", "both signs, far", "one value", "zeros of both signs", "small ones", "tenths"]
)
def test_counting_gives_what_sorting_gives(kind: str) -> None:
    chance, n = np.random.default_rng(7), 30_000
    values = {
        "normal": chance.normal(size=n),
        "cents": chance.lognormal(3, 1, n).round(2),
        "counts": chance.poisson(3, n).astype(np.float64),
        "large counts": chance.integers(-5_000_000, 5_000_000, n).astype(np.float64),
        "sparse": np.where(chance.random(n) < 0.9, 0.0, chance.normal(size=n)),
        "both signs, far": np.where(chance.random(n) < 0.5, 1, -1) * chance.uniform(1e9, 1.001e9, n),
        "one value": np.full(n, 0.1),
        "zeros of both signs": np.where(chance.random(n) < 0.5, -0.0, 0.0),
        "small ones": np.where(chance.random(n) < 0.5, -1, 1) * chance.random(n) * 1e-310,
        "tenths": chance.normal(100, 15, n).round(1),
    }[kind]
    pieces = [Bins.of(part) for part in np.array_split(values, 30)]  # too few at once for counting
    merged = pieces[0]
    for piece in pieces[1:]:
        merged = merged.merged(piece)
    assert same(Bins.of(values), merged)
    assert not np.signbit(merged.at[merged.at == 0]).any()


@pytest.mark.parametrize("spread", ["normal", "any bits", "tenths", "close to zero", "far below zero"])
def test_no_more_bits_are_cleared_than_bins_fit(spread: str) -> None:
    chance, n = np.random.default_rng(7), 5_000
    values = {
        "normal": chance.normal(size=n),
        "any bits": chance.integers(0, 1 << 62, n).view(np.float64) * chance.choice([-1, 1], n),
        "tenths": chance.normal(0, 1000, n).round(1),
        "close to zero": chance.integers(-3_000, 3_000, n) * 5e-324,
        "far below zero": -chance.uniform(1e9, 1.001e9, n),
    }[spread]
    n_bins = [len(np.unique((values.view(np.int64) & np.int64(-1 << cleared)).view(np.float64))) for cleared in range(64)]
    assert Bins.of(values).cleared == next(cleared for cleared, n in enumerate(n_bins) if n <= LIMIT)


def test_few_distinct_values_are_kept_exactly() -> None:
    values = np.random.default_rng(7).integers(0, 1000, 50_000) / 7
    mean, deviation = Bins.of(values).moments()
    assert mean == pytest.approx(values.mean(), rel=1e-14)
    assert deviation == pytest.approx(values.std(), rel=1e-14)
    assert Bins.of(values).quantile(0.5) == np.sort(values)[24_999]


def test_the_largest_and_smallest_floats_neither_overflow_nor_vanish() -> None:
    largest = np.finfo(np.float64).max
    mean, deviation = Bins.of(np.array([largest, -largest])).moments()
    assert (mean, deviation) == (0.0, largest)
    assert Bins.of(np.array([5e-324, 1.5e-323])).moments() == (1e-323, 5e-324)
    wide = Bins.of(np.ldexp(1.0, np.arange(-1074, 1024)))
    assert len(wide.at) <= LIMIT
    assert np.isfinite(wide.middles()).all()
