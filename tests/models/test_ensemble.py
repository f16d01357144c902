"""Several families as one model: what mixing promises, and what choosing does."""

from typing import Any

import numpy as np
import pytest

from modelinscale.core.encoded import beside, feature_of, rows_in
from modelinscale.models import Effort, Model
from modelinscale.models._mixture import choose, mixed, row_losses, row_shares
from modelinscale.models.ensemble import Ensemble, apart
from modelinscale.models.linear import Linear
from modelinscale.models.trees import Trees
from modelinscale.testing.models import TASKS, planted

MEMBERS: list[Any] = ["linear", {"type": "trees", "rounds": 20}]


def probability(scores: np.ndarray) -> np.ndarray:
    if scores.ndim == 1:
        return np.asarray(1 / (1 + np.exp(-scores)))
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("type", "shape"), [("binary", (50,)), ("multiclass", (50, 3))])
def test_probabilities_of_a_mixture_are_the_mean_of_the_members(type: Any, shape: tuple[int, ...]) -> None:
    chance = np.random.default_rng(1)
    a, b = chance.normal(size=shape) * 5, chance.normal(size=shape)
    assert np.allclose(probability(mixed([a, b], [0.3, 0.7], TASKS[type])), 0.3 * probability(a) + 0.7 * probability(b), atol=1e-12)


def test_a_mixture_of_scores_beyond_any_exponential_is_finite() -> None:
    far = np.array([2000.0, -2000.0])
    assert np.isfinite(mixed([far, far], [0.5, 0.5], TASKS["binary"])).all()


def test_members_answer_as_they_would_alone() -> None:
    ensemble = Model.parse({"type": "ensemble", "members": MEMBERS, "shares": [1, 3]})
    given, plain = planted(ensemble.form, "binary"), planted("plain", "binary")
    weights = ensemble.fit(given.train, given.valid, given.task, Effort())
    assert weights.meta["shares"] == [0.25, 0.75]
    alone = Trees(rounds=20).predict(apart(weights)[1], plain.test.rows)
    assert np.array_equal(alone, Trees(rounds=20).predict(apart(weights)[1], rows_in(given.test.rows, "plain", ensemble.form)))


def test_forms_lie_side_by_side_once_each() -> None:
    assert Ensemble(members=(Linear(), Trees(), Linear(strength=1.0))).form == "plain+scaled"
    assert Ensemble(members=(Linear(), Linear(strength=1.0))).form == "scaled"
    assert beside(["deep", "plain"]) == "plain+deep"
    assert feature_of("plain/a/b", "plain+deep") == "a/b"
    assert feature_of("a/b", "plain") == "a/b"


def test_an_ensemble_is_no_member_of_another() -> None:
    with pytest.raises(ValueError, match="cannot be a member"):
        Model.parse({"type": "ensemble", "members": ["linear", {"type": "ensemble", "members": ["linear"]}]})


def test_shares_that_fit_no_members_are_refused() -> None:
    with pytest.raises(ValueError, match=r"do not say how much each of 2 members counts"):
        Model.parse({"type": "ensemble", "members": ["linear", "trees"], "shares": [1]})


def noisy(n: int, noise: tuple[float, ...], seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    target = chance.normal(size=n)
    return np.stack([target + s * chance.normal(size=n) for s in noise]), target


def test_members_whose_errors_differ_are_mixed_and_it_is_never_worse_than_the_best() -> None:
    for seed in range(20):
        found, target = noisy(300, (0.5, 0.55, 2.0), seed)
        mixture = choose(found, target, None, TASKS["regression"])
        assert mixture.loss <= mixture.single
        assert mixture.shares[0] > 0.2
        assert mixture.shares[1] > 0.2


def test_a_member_that_only_chance_makes_better_is_left_out() -> None:
    # Nearly the same answers: what the second gains on these rows is below the noise of drawing them.
    found, target = noisy(200, (0.5,))
    twin = found[0] + 1e-3 * np.random.default_rng(3).normal(size=200)
    n_joined = 0
    for seed in range(20):
        twin = found[0] + 1e-3 * np.random.default_rng(seed).normal(size=200)
        shares = choose(np.stack([found[0], twin]), target, None, TASKS["regression"]).shares
        n_joined += min(shares) > 0
    assert n_joined <= 8


def test_members_too_slow_together_are_not_mixed() -> None:
    found, target = noisy(300, (0.5, 0.5, 0.5))
    assert sum(share > 0 for share in choose(found, target, None, TASKS["regression"], costs=[1, 1, 1], most=2.0).shares) == 2
    assert sum(share > 0 for share in choose(found, target, None, TASKS["regression"], costs=[3, 4, 5], most=2.0).shares) == 1


def test_rows_of_no_weight_choose_nothing() -> None:
    found, target = noisy(400, (0.3, 1.0))
    found[0, 200:] += 50.0
    weight = np.r_[np.ones(200), np.zeros(200)]
    assert choose(found, target, weight, TASKS["regression"]).shares[0] > 0.5


def test_losses_are_those_of_the_task() -> None:
    target = np.array([1, 0])
    shares = row_shares(np.array([2.0, 2.0]), target, TASKS["binary"])
    assert np.allclose(row_losses(shares, target, TASKS["binary"]), [np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))])
