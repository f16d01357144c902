"""Decisions of several labels and of quantiles, where answers are made by hand."""

import numpy as np
import pytest

from modelinscale.core.decision import Decision
from modelinscale.core.seeds import generator
from modelinscale.core.task import Task
from modelinscale.evaluate import Evaluate
from modelinscale.evaluate._several import fit_labels, fit_levels
from modelinscale.export._settle import margin_of, margins_of
from modelinscale.models import Effort, Examples
from modelinscale.models.linear import Linear
from modelinscale.testing.models import planted

WIDE = Task(type="quantiles", target="y", levels=(0.1, 0.9))


@pytest.mark.parametrize("n_crossed", [0, 500, 1000])
def test_levels_hold_also_where_they_cross(n_crossed: int) -> None:
    truth, tried = generator(7, "levels").normal(size=20_000), np.tile([-0.4, 0.4], (1000, 1))
    tried[:n_crossed] = tried[:n_crossed, ::-1]
    decision = fit_levels(tried, truth[:1000], WIDE, Evaluate())
    found = decision.number(tried[[0, -1]], WIDE)
    for k, level in enumerate(WIDE.levels):
        assert (truth[1000:, None] <= found[:, k]).mean(0) == pytest.approx([level, level], abs=0.03)


@pytest.mark.parametrize("n", [20, 40, 100])
def test_what_lies_between_levels_holds_with_few_rows_too(n: int) -> None:
    task = Task(type="quantiles", target="y", levels=(0.05, 0.95))
    chance, inside = generator(7, "few", n), []
    for _ in range(400):
        known, new = chance.normal(size=n), chance.normal(size=200)
        found = fit_levels(np.zeros((n, 2)), known, task, Evaluate()).number(np.zeros((1, 2)), task)[0]
        inside.append(((found[0] < new) & (new <= found[1])).mean())
    assert np.mean(inside) > 0.895


def test_an_update_of_linear_quantiles_keeps_how_far_the_levels_lie_apart() -> None:
    given = planted("scaled", "quantiles")
    one = Linear()
    before = one.fit(given.train, given.valid, given.task, Effort())
    few = Examples(given.test.rows.rows(np.arange(1)), given.test.target[:1])
    after = one.update(before, few, None, given.task, Effort())
    width = [np.mean(np.ptp(one.predict(weights, given.test.rows), axis=1)) for weights in (before, after)]
    assert width[1] == pytest.approx(width[0], rel=0.1)


def test_each_label_has_its_own_margin() -> None:
    p = np.array([[0.52, 0.5 + 1e-9]])
    decision, task = Decision(thresholds=(0.5, 0.5)), Task(type="multilabel", target="y", labels=("a", "b"))
    assert margins_of(p, decision)[0] == pytest.approx([0.02, 1e-9])
    assert margin_of(p, task, decision)[0] == pytest.approx(1e-9)


def test_uncalibrated_labels_are_not_called_calibrated() -> None:
    chance = generator(7, "labels")
    truth = chance.integers(0, 2, (200, 2))
    task = Task(type="multilabel", target="y", labels=("a", "b"))
    found = fit_labels(truth + chance.normal(size=(200, 2)), truth, np.ones(200), task, Evaluate(calibrate="none"))
    assert found.because.startswith("labels as the model gives them")
