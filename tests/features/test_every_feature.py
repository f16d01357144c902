"""Every kind in the folder passes the shipped suite, with several settings, and on whatever hypothesis thinks of."""

import doctest
from datetime import datetime
from importlib import import_module
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelinscale.core import pixels
from modelinscale.core.kinds import names
from modelinscale.core.seeds import generator
from modelinscale.features import Feature
from modelinscale.testing import features as suite
from modelinscale.testing.examples import examples

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "number": [{"scale": "standard"}, {"clip": 3}, {}],
    "category": [{}, {"keep": 3}, {"at_least": 1}],
    "flag": [{}],
    "moment": [{}, {"parts": ["month"]}, {"parts": ["hour", "day"]}, {"parts": ["yearday", "day", "month", "weekday", "hour", "since"]}],
    "sequence": [{"longest": 4}, {}],
    "text": [
        {"at_least": 1, "in_order": True, "pieces": "subwords"},
        {"at_least": 1, "in_order": True, "longest": 5},
        {},
        {"at_least": 1, "pairs": False},
        {"at_least": 1, "keep": 30},
    ],
    "vector": [{}],
    "image": [{"size": 17, "fit": "crop", "channels": "grey"}, {}],
}
"""Per kind: settings to try, the last ones with any values. A kind that is not listed is tried with its defaults."""

CASES = [Feature.parse({"type": kind, **chosen}) for kind in names("features") for chosen in SETTINGS.get(kind, [{}])]
LAST = [Feature.parse({"type": kind, **SETTINGS.get(kind, [{}])[-1]}) for kind in names("features")]

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(["a", "b", "Free entry!", "free", "a b", "ΣΑΣ", "İi", "ẞ"])
_shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float64": st.floats() | st.integers(-5, 5).map(float),
    "string": _text,
    "int64": st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)) | st.datetimes(datetime(2024, 1, 1), datetime(2024, 3, 1)),
    "image": st.builds(lambda shape, seed: pixels.png(generator(seed, "image").integers(0, 256, (*shape, 3), np.uint8)), _shapes, st.integers(0, 9)),
    "sequence": st.lists(st.floats(width=32), max_size=12),
    "vector": st.lists(st.floats(width=32), min_size=3, max_size=3),
}
quick = settings(max_examples=examples(6), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def named(feature: Feature) -> str:
    return "-".join([feature.type, *(f"{k}={v}" for k, v in feature.model_dump(exclude_defaults=True).items() if k != "type")])


def _marks(feature: Feature) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if feature.type == "text" and feature not in LAST and not getattr(feature, "in_order", False) else []


@pytest.mark.parametrize("feature", [pytest.param(one, id=named(one), marks=_marks(one)) for one in CASES])
def test_every_feature_fulfils_the_contract_on_its_odd_values(feature: Feature) -> None:
    suite.all_of(feature)


@pytest.mark.parametrize("feature", LAST, ids=named)
@given(data=st.data())
@quick
def test_every_feature_fulfils_the_contract_on_any_values(feature: Feature, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.none() | VALUES[feature.input], min_size=1, max_size=12))
    if feature.input == "vector" and rows == [None] * len(rows):
        rows.append([0.0, 1.0, 2.0])
    column = suite.as_column(feature, rows)
    suite.parts_merged_equal_the_whole(feature, column)
    suite.a_settled_state_encodes_the_same(feature, column)
    suite.encodings_fit_their_layout(feature, column)
    state = feature.observe(feature.empty(), column[: len(column) // 2])
    from modelinscale.encode.tensors import to_numpy

    for form in suite.FORMS:
        expected = feature.encode(state, column, form)
        found = suite.session(feature, state, form)(to_numpy(column, feature.input))
        np.testing.assert_array_equal(found, expected.dense() if not isinstance(expected, np.ndarray) else expected)


@pytest.mark.parametrize("kind", names("features"))
def test_examples_in_docstrings_are_true(kind: str) -> None:
    found = doctest.testmod(import_module(f"modelinscale.features.{kind}"))
    assert not found.failed


def test_every_kind_says_which_columns_it_suits() -> None:
    from modelinscale.core.kinds import load
    from modelinscale.core.schema import Column, ColumnType

    columns = [Column(name="x", type=t, width=3 if t in ("vector", "sequence") else None) for t in get_args(ColumnType)]
    for kind in names("features"):
        found = load("features", kind)
        assert issubclass(found, Feature)
        assert any(found.suits(c) for c in columns), f"{kind} suits no column at all"
