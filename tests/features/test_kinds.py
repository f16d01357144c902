"""What each kind of feature promises beyond the shared suite."""

import json
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from modelinscale.core.encoded import Sparse, Values
from modelinscale.core.errors import DataError
from modelinscale.features import _tallies
from modelinscale.features import category as category_module
from modelinscale.features._exact import learned
from modelinscale.features.category import Category
from modelinscale.features.flag import Flag
from modelinscale.features.moment import Moment, Part
from modelinscale.features.number import Number
from modelinscale.features.text import Text
from modelinscale.features.vector import Vector
from modelinscale.testing import features as suite


def test_scaled_numbers_have_about_unit_spread_and_one_outlier_does_not_flatten_them() -> None:
    values = pl.Series([*np.random.default_rng(7).normal(50, 5, 5000).tolist(), 1e12])
    number = Number()
    scaled = number.encode(number.observe(number.empty(), values), values, "scaled")
    assert 0.9 < scaled[:-1].std() < 1.1
    assert abs(scaled[:-1].mean()) < 0.05
    assert 5.0 < scaled[-1] < 6.0


def test_a_value_seen_once_in_a_column_of_zeros_stays_within_bounds() -> None:
    number = Number()
    values = pl.Series([0.0] * 99_999 + [1.0])
    scaled = number.encode(number.observe(number.empty(), values), values, "scaled")
    assert abs(scaled[0, 0]) < 0.01
    assert 5.0 < scaled[-1, 0] <= 10.0


def test_scaling_keeps_the_order_of_values() -> None:
    values = pl.Series(np.sort(np.random.default_rng(7).standard_cauchy(2000)))
    for number in (Number(), Number(clip=2), Number(scale="standard")):
        scaled = number.encode(number.observe(number.empty(), values), values, "scaled")[:, 0]
        assert (np.diff(scaled) >= 0).all()


def test_a_constant_column_scales_to_zero_and_others_keep_their_distance() -> None:
    number = Number(scale="standard")
    state = number.observe(number.empty(), pl.Series([3.0, 3.0]))
    assert number.encode(state, pl.Series([3.0, 5.0]), "scaled").tolist() == [[0.0], [2.0]]


def test_plain_numbers_are_the_nearest_float32_and_nothing_else() -> None:
    number = Number()
    values = [0.1, 2.0**24 + 1, 1e300, -0.0, float("inf")]
    found = number.encode(number.empty(), pl.Series(values), "plain")[:, 0]
    with np.errstate(over="ignore"):
        assert found.tobytes() == np.array(values).astype(np.float32).tobytes()


def test_categories_are_ordered_by_count_then_name_and_rare_ones_share_an_id() -> None:
    category = Category(keep=2)
    values = pl.Series(["c", "c", "b", "b", "a", "a", "d", None, ""])
    state = category.observe(category.empty(), values)
    assert category.layout(state, "plain").names == ("(missing)", "(other)", "a", "b")
    assert category.encode(state, values, "scaled").tolist() == [1, 1, 3, 3, 2, 2, 1, 0, 0]
    assert (state["n"], state["missing"]) == (9, 2)


@pytest.mark.slow
def test_a_hundred_thousand_categories_are_learned_and_looked_up() -> None:
    words = pl.Series([f"user {i % 100_000}" for i in range(200_000)])
    category = Category(keep=1_000_000)
    state = category.observe(category.empty(), words)
    ids = category.encode(state, words, "plain")
    assert category.layout(state, "plain").width == 100_002
    assert len(np.unique(ids)) == 100_000
    suite.graph_equals_python(category, words[:1000].extend(pl.Series([None, "", "unseen"])))


def test_beyond_the_limit_the_rarest_categories_go_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(category_module, "COUNTED", 3)
    category = Category(keep=3)
    state = category.observe(category.empty(), pl.Series(["a", "a", "b", "b", "c", "c", "d"]))
    assert state == {"n": 7, "missing": 0, "dropped": 1, "counts": {"a": 2, "b": 2, "c": 2}}


def test_every_day_of_ten_thousand_years_has_the_date_the_calendar_says() -> None:
    days = pl.date_range(date(1, 1, 1), date(9999, 12, 31), eager=True)
    moment = Moment(parts=("weekday", "day", "month", "yearday"))
    found = moment.encode(moment.empty(), days.dt.timestamp("us"), "plain")
    expected = np.stack([days.dt.weekday() - 1, days.dt.day(), days.dt.month(), days.dt.ordinal_day()], axis=1)
    np.testing.assert_array_equal(found, expected)


def test_the_smallest_and_largest_moments_are_reckoned_without_overflow() -> None:
    info = np.iinfo(np.int64)
    edges = pl.Series("x", [info.min, info.min + 1, info.min + 86_400_000_001, -1, 0, 1, info.max - 1, info.max])
    moment = Moment(parts=("since", "hour", "weekday", "day", "month", "yearday"))
    suite.graph_equals_python(moment, edges)
    suite.encodings_fit_their_layout(moment, edges)
    suite.parts_merged_equal_the_whole(moment, edges)


@pytest.mark.parametrize(
    ("times", "parts"),
    [
        ([datetime(2024, 1, 1), datetime(2024, 1, 1)], ("since",)),
        ([datetime(2024, 1, 1), datetime(2024, 1, 8)], ("since", "day")),
        ([datetime(2024, 1, 1, 5), datetime(2024, 1, 1, 6)], ("since", "hour")),
        ([datetime(2023, 1, 1), datetime(2024, 6, 3)], ("since", "weekday", "day", "yearday")),
    ],
)
def test_only_parts_of_moments_that_differ_become_columns(times: list[datetime], parts: tuple[Part, ...]) -> None:
    moment = Moment()
    assert moment.layout(moment.observe(moment.empty(), pl.Series(times).dt.timestamp("us")), "plain").names == parts


def test_midnight_of_new_year_follows_on_the_last_minute_of_the_old_on_the_circle() -> None:
    moment = Moment(parts=("hour", "yearday"))
    times = pl.Series([datetime(2023, 12, 31, 23, 59), datetime(2024, 1, 1, 0, 0)]).dt.timestamp("us")
    before, after = moment.encode(moment.empty(), times, "scaled")
    assert np.abs(before - after).max() < 0.04


def as_dense(block: Values) -> NDArray[Any]:
    assert isinstance(block, Sparse)
    return block.dense()


def test_terms_are_counted_once_a_text_and_pairs_do_not_cross_texts() -> None:
    text = Text(at_least=1)
    state = text.observe(text.empty(), pl.Series(["a a b", "b c", None, ""]))
    known = dict(zip(text.layout(state, "plain").names, as_dense(text.encode(state, pl.Series(["a a b"]), "plain"))[0].tolist(), strict=True))
    assert known == {"b": 1.0, "a": 2.0, "c": 0.0, "a a": 1.0, "a b": 1.0, "b c": 0.0}
    assert (state["n"], state["missing"]) == (4, 2)


def test_scaled_texts_are_the_written_formula() -> None:
    text = Text(at_least=1, pairs=False)
    state = text.observe(text.empty(), pl.Series(["a b", "a"]))
    scaled = text.encode(state, pl.Series(["a a b b b x"]), "scaled")
    idf = 1 + np.log(np.array([3 / 3, 3 / 2]))
    np.testing.assert_allclose(as_dense(scaled)[0], np.sqrt(np.array([2, 3]) / 6) * idf, rtol=2e-3)


def test_too_many_terms_leave_a_sample_of_texts_that_does_not_depend_on_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tallies, "COUNTED", 300)
    text, chance = Text(at_least=1), np.random.default_rng(7)
    column = pl.Series("x", [" ".join(chance.choice([f"w{i}" for i in range(80)], 6)) for _ in range(400)])
    tallies = text.observe(text.empty(), column)["tallies"]
    assert tallies["pairs"]["level"] > 0
    assert sum(len(s["terms"]) for s in tallies["pairs"]["samples"]) <= 300
    assert _tallies.n_texts(tallies["words"]) > _tallies.n_texts(tallies["pairs"]), "that pairs are many costs no word"
    suite.parts_merged_equal_the_whole(text, column)
    suite.a_settled_state_encodes_the_same(text, column)


def test_sparse_rows_ascend_and_equal_their_dense_form() -> None:
    text = Text(at_least=1)
    lines = pl.Series(["c b a", "", "a"])
    found = text.encode(text.observe(text.empty(), lines), lines, "plain")
    assert isinstance(found, Sparse)
    np.testing.assert_array_equal(found.scipy().toarray(), found.dense())
    assert found.scipy().has_sorted_indices


def test_flags_read_numbers_as_true_unless_zero() -> None:
    flag = Flag()
    assert flag.encode(flag.empty(), pl.Series([2.0, 0.0, -0.0, 0.5]), "plain").ravel().tolist() == [1.0, 0.0, 0.0, 1.0]


def test_vectors_are_standardised_place_by_place_from_exact_sums() -> None:
    x = (np.random.default_rng(7).normal(3, 2, size=(500, 4)) * [1e-30, 1, 1e30, 0]).astype(np.float32)
    vector = Vector()
    state = vector.observe(vector.empty(), pl.Series(x))
    assert json.loads(json.dumps(state)) == state
    exact = x.astype(np.float64)
    np.testing.assert_allclose(learned(state)[0], exact.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(1 / learned(state)[1][:3], exact.std(axis=0)[:3], rtol=1e-13)
    assert vector.encode(state, pl.Series(x), "scaled")[:, 3].tolist() == [0.0] * 500


def test_vectors_of_another_width_are_refused() -> None:
    vector = Vector()
    two, three = (pl.Series("v", [[1.0] * w], dtype=pl.Array(pl.Float32, w)) for w in (2, 3))
    state = vector.observe(vector.empty(), two)
    with pytest.raises(DataError, match="column 'v' has vectors of width 3, the model learned 2"):
        vector.encode(state, three, "plain")
    with pytest.raises(DataError, match="width 2 and of width 3 in one column"):
        vector.observe(state, three)
