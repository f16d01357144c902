"""The space of a search follows from the settings' own fields, and a file may say otherwise."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from modelinscale.core.errors import SpecError
from modelinscale.core.kinds import load, names
from modelinscale.core.settings import Settings
from modelinscale.core.space import Choices, Range, derived
from modelinscale.models import Model
from modelinscale.spec import loads
from modelinscale.testing.examples import examples
from modelinscale.tune import Space
from modelinscale.tune._space import parse_span

GOOD = "data: {source: rows.csv}\ntarget: y\n"


class Some(Settings):
    share: float = Field(0.2, ge=0, lt=1)
    rate: float = Field(0.01, gt=0)
    leaves: int | None = Field(None, ge=2, le=4096)
    kind: Literal["a", "b"] = "b"
    flag: bool = False
    free: int = 3
    most: int | None = Field(None, ge=1)
    name: str = "x"


def test_bounds_become_ranges_and_literals_choices() -> None:
    assert derived(Some) == {
        "share": Range(0.0, 0.999, start=0.2),
        "rate": Range(0.001, 0.1, log=True, start=0.01),
        "leaves": Range(2, 4096, log=True),
        "kind": Choices(("a", "b"), "b"),
        "flag": Choices((False, True), False),
    }


@pytest.mark.parametrize("family", names("models"))
def test_every_family_takes_whatever_its_own_space_says(family: str) -> None:
    model = Model.parse(family)
    space = Space.of((model,), {})
    assert all(name in type(model).model_fields for name in space.spans[family])
    chance = np.random.default_rng(7)
    for point in (*space.starts(), *(space.draw(chance) for _ in range(30))):
        assert space.outside(point) == ""
        space.model(point)


@given(low=st.integers(1, 50), more=st.integers(0, 500), log=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=examples(100))
def test_draws_and_grids_lie_in_their_range(low: int, more: int, log: bool, seed: int) -> None:
    for span in (Range(low, low + more, log=log), Range(float(low), float(low + more), log=log)):
        for value in (span.draw(np.random.default_rng(seed)), *span.grid(5), span.first):
            assert span.holds(value)
            assert 0 <= span.share(value) <= 1


def test_settings_that_are_written_stay_unless_the_space_names_them() -> None:
    model = Model.parse({"type": "trees", "leaves": 15, "l2": 2.0})
    assert not {"leaves", "l2"} & set(Space.of((model,), {}).spans["trees"])
    space = Space.of((model,), {"trees.leaves": Range(8, 16)})
    assert space.spans["trees"]["leaves"] == Range(8, 16)
    assert space.model(space.starts()[0]).plain()["l2"] == 2.0


def test_the_forms_that_a_span_may_be_written_in() -> None:
    assert parse_span("trees.leaves", [8, 256]) == Range(8, 256, log=True, start=31)
    assert parse_span("trees.columns_share", [1, 1]) == Range(1.0, 1.0, start=1.0)
    assert parse_span("trees.l2", [0, 1, 10]) == Choices((0, 1, 10))
    assert parse_span("trees.leaves", {"low": 8, "high": 16, "log": False}) == Range(8, 16)
    assert parse_span("mlp.layers", 2) == Choices((2,))
    for span in (Range(8, 256, log=True, start=31), Choices((None, 3))):
        assert parse_span("trees.leaves", span.plain()) == span or isinstance(span, Choices)


CASES = {
    "a family nobody knows": (
        "tune:\n  space:\n    tree.leaves: [8, 256]\n",
        r"model.yaml:5:18: tune.space.tree.leaves: there is no family 'tree'. Did you mean 'trees'",
    ),
    "a setting nobody knows": (
        "tune: {space: {trees.leafs: [8, 256]}}\n",
        r"model.yaml:3:29: tune.space.trees.leafs: trees has no setting 'leafs'. Did you mean 'leaves'",
    ),
    "a value that is refused": ("tune: {space: {trees.leaves: [1, 256]}}\n", r"trees.leaves cannot be 1 \(allowed: ge 2, le 4096\)"),
    "an empty range": ("tune: {space: {trees.leaves: [256, 8]}}\n", r"a range goes from a number up to one that is no smaller"),
    "a range by factors from 0": ("tune: {space: {trees.l2: {low: 0, high: 9, log: true}}}\n", r"by factors begins above 0"),
    "a family that is not searched": (
        "model: trees\ntune: {space: {mlp.width: [8, 64]}}\n",
        r"tune.space. names mlp.width, and mlp is not searched \(trees is\)",
    ),
    "a searcher nobody knows": ("tune: {searcher: tpee}\n", r"unknown searcher type 'tpee'. Did you mean 'tpe'"),
    "a key nobody knows": ("tune: {trails: 9}\n", r"model.yaml:3:8: tune.trails: unknown key. Did you mean 'trials'"),
    "no trials": ("tune: {trials: 0}\n", r"tune.trials: expected greater than or equal to 1, found 0"),
    "rungs that fall": ("tune: {prune: {rungs: [0.5, 0.1, 1]}}\n", r"rungs rise from above 0 to 1"),
    "a pruning nobody knows": ("tune: {prune: hyperband}\n", r"tune.prune.how: expected 'top', 'asha' or 'none'"),
    "a family under families": ("tune: {families: [treees]}\n", r"there is no family 'treees'. Did you mean 'trees'"),
    "a password in the storage": ("tune: {storage: 'postgresql://u:secret@h/db'}\n", r"an address must not hold a password"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_told_with_its_place(case: str) -> None:
    text, words = CASES[case]
    with pytest.raises(SpecError, match=words):
        loads(GOOD + text)


def test_a_file_with_a_search_comes_back_as_it_was() -> None:
    spec = loads(
        GOOD + "tune: {trials: 5, budget: 10m, prune: asha, searcher: {type: grid, points: 4}, space: {trees.leaves: [8, 256], trees.l2: [0, 1, 10]}}\n"
    )
    assert spec.tune is not None
    assert spec.tune.spans == {"trees.leaves": Range(8, 256, log=True, start=31), "trees.l2": Choices((0, 1, 10))}
    assert type(spec.tune).model_validate(spec.tune.plain()) == spec.tune
    assert load("tune.searchers", "grid").type == "grid"
