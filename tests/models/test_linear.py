"""The linear family finds the minimum it promises."""

import itertools

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression, Ridge

from modelinscale.core.encoded import Encoded, Layout, Sparse
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Weights
from modelinscale.models._minimise import minimise
from modelinscale.models._words import rarity, weigh
from modelinscale.models.linear import Linear
from modelinscale.testing.models import TASKS, planted
from modelinscale.train import loss


def numbers(n: int, d: int, seed: int = 1) -> tuple[Encoded, np.ndarray]:
    X = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    X[:, 0] += X[:, 1]  # correlated on purpose
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
    return Encoded({"x": Layout("dense", d, tuple(f"x{i}" for i in range(d)))}, {"x": X}), X.astype(np.float64)


def test_logistic_finds_the_minimum_that_scikit_learn_finds() -> None:
    rows, X = numbers(400, 5)
    y = (X[:, 0] + 0.5 * np.random.default_rng(2).normal(size=400) > 0).astype(np.int64)
    weights = Linear(strength=1 / 400).fit(Examples(rows, y), None, TASKS["binary"], Effort())
    peer = LogisticRegression(C=1.0, tol=1e-9, max_iter=1000).fit(X, y)
    assert np.allclose(Linear().predict(weights, rows), peer.decision_function(X), atol=0.02)


def test_multinomial_finds_the_minimum_that_scikit_learn_finds() -> None:
    rows, X = numbers(600, 4)
    y = np.digitize(X[:, 0] + 0.5 * np.random.default_rng(2).normal(size=600), [-0.7, 0.7]).astype(np.int64)
    weights = Linear(strength=1 / 600).fit(Examples(rows, y), None, TASKS["multiclass"], Effort())
    ours, peer = Linear().predict(weights, rows), LogisticRegression(C=1.0, tol=1e-9, max_iter=1000).fit(X, y).decision_function(X)
    assert np.allclose(ours - ours.mean(axis=1, keepdims=True), peer - peer.mean(axis=1, keepdims=True), atol=0.05)


def test_ridge_finds_the_minimum_that_scikit_learn_finds() -> None:
    rows, X = numbers(300, 6)
    y = 1e6 + X @ np.arange(6) + np.random.default_rng(3).normal(size=300)
    weights = Linear(strength=5 / 300).fit(Examples(rows, y), None, TASKS["regression"], Effort())
    assert np.allclose(Linear().predict(weights, rows), Ridge(alpha=5.0).fit(X, y).predict(X), atol=1e-3)


def test_row_weights_equal_repetition() -> None:
    rows, X = numbers(200, 3)
    y = (X[:, 0] > 0.3).astype(np.int64)
    y[::7] = 1 - y[::7]
    twice = np.repeat(np.arange(200), 1 + (np.arange(200) % 2))
    linear = Linear(strength=0.01)
    weighted = linear.fit(Examples(rows, y, (1.0 + np.arange(200) % 2).astype(np.float64)), None, TASKS["binary"], Effort())
    repeated = linear.fit(Examples(rows.rows(twice), y[twice]), None, TASKS["binary"], Effort())
    # Columns are brought to standard units by their rows, not by the weights of these, hence the tolerance.
    assert np.allclose(linear.predict(weighted, rows), linear.predict(repeated, rows), atol=0.05)


def test_a_rare_class_keeps_its_rows_when_rows_are_drawn() -> None:
    rows, _ = numbers(20_000, 2)
    y = np.zeros(20_000, np.int64)
    y[:40] = 1
    few = Linear(rows=1000).fit(Examples(rows, y), None, TASKS["binary"], Effort())
    rate = 1 / (1 + np.exp(-Linear().predict(few, rows)))
    assert rate.mean() == pytest.approx(40 / 20_000, rel=0.25)


def test_wide_rows_take_the_sparse_road_to_the_same_answer() -> None:
    """More ids than are whitened: the same problem, other coordinates."""
    chance = np.random.default_rng(5)
    ids = chance.integers(2, 900, 3000).astype(np.int32)
    x = chance.normal(size=(3000, 1)).astype(np.float32)
    y = (x[:, 0] + (ids % 2) + 0.5 * chance.normal(size=3000) > 0.5).astype(np.int64)
    rows = Encoded({"id": Layout("ids", 900, ()), "x": Layout("dense", 1, ("x",))}, {"id": ids, "x": x})
    linear = Linear(strength=1e-3)
    weights = linear.fit(Examples(rows, y), None, TASKS["binary"], Effort())
    assert ((linear.predict(weights, rows) > 0) == y).mean() > 0.8


def _texts(n: int = 300) -> tuple[Encoded, np.ndarray]:
    """Counts of 40 words, a few in a row, and a class that some of them tell."""
    chance = np.random.default_rng(4)
    counts = chance.poisson(0.15, (n, 40)).astype(np.float32)
    y = (counts[:, :5].sum(axis=1) + 0.5 * chance.normal(size=n) > 0.6).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum((counts > 0).sum(axis=1))]).astype(np.int64)
    words = Sparse(starts, np.nonzero(counts)[1].astype(np.int32), counts[counts > 0], 40)
    return Encoded({"t": Layout("sparse", 40, tuple(f"w{i}" for i in range(40)))}, {"t": words}), y


def test_words_are_held_back_a_hundredth_as_scikit_learn_with_a_hundred_times_its_c() -> None:
    rows, y = _texts()
    words = rows["t"]
    assert isinstance(words, Sparse)
    X = csr_matrix((weigh(words, rarity(np.bincount(words.columns, minlength=40), 300)), words.columns, words.starts), shape=(300, 40))
    weights = Linear(strength=1 / 300, iterations=1000).fit(Examples(rows, y), None, TASKS["binary"], Effort())
    peer = LogisticRegression(C=100.0, tol=1e-9, max_iter=10_000).fit(X, y)
    ours, theirs = Linear().predict(weights, rows), peer.decision_function(X)
    assert np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()


def test_without_validation_rows_words_are_learned_well_enough_to_tell_classes() -> None:
    rows, y = _texts(3000)
    seen, unseen = np.arange(2000), np.arange(2000, 3000)
    weights = Linear().fit(Examples(rows.rows(seen), y[seen]), None, TASKS["binary"], Effort())
    firm = Linear(strength=100 / 2000).fit(Examples(rows.rows(seen), y[seen]), None, TASKS["binary"], Effort())  # 1 / N for each word, as before
    found, before = (loss(Linear().predict(one, rows.rows(unseen)), y[unseen], None, TASKS["binary"]) for one in (weights, firm))
    assert found < before


def test_weights_from_before_words_were_held_back_less_are_updated_as_they_were_learned() -> None:
    rows, y = _texts()
    weights = Linear(strength=1e-3).fit(Examples(rows, y), None, TASKS["binary"], Effort())
    old = Weights(weights.arrays, {name: value for name, value in weights.meta.items() if name != "of_words"})
    as_firm = Weights(weights.arrays, {**weights.meta, "of_words": 1.0})
    a, b = (Linear().update(one, Examples(rows, 1 - y), None, TASKS["binary"], Effort()) for one in (old, as_firm))
    assert np.array_equal(a.arrays["coefficients"], b.arrays["coefficients"])
    assert np.array_equal(Linear().predict(old, rows), Linear().predict(weights, rows))


def test_strength_is_chosen_on_validation_rows_where_rows_are_few() -> None:
    given = planted("scaled", "binary", n_rows=150)
    notes: list[str] = []
    Linear().fit(given.train, given.valid, given.task, Effort(progress=lambda share, note: notes.append(note)))
    assert len(notes) > 1


def test_the_minimum_of_a_badly_scaled_valley_is_found() -> None:
    steep = np.array([1.0, 1e4])
    x, done = minimise(lambda x: (float((steep * (x - 3) ** 2).sum()), 2 * steep * (x - 3)), np.zeros(2), 200, decrease=1e-15)
    assert done
    assert np.allclose(x, 3, atol=1e-3)


def test_a_task_with_words_for_labels_is_the_same_task() -> None:
    rows, X = numbers(100, 2)
    y = (X[:, 0] > 0).astype(np.int64)
    named = Task(type="binary", target="z", labels=("a", "b"))
    a, b = (Linear().fit(Examples(rows, y), None, task, Effort()) for task in (TASKS["binary"], named))
    assert np.array_equal(a.arrays["coefficients"], b.arrays["coefficients"])


def test_the_budget_is_looked_at_between_strengths() -> None:
    given = planted("scaled", "binary", n_rows=150)
    notes: list[str] = []
    weights = Linear().fit(given.train, given.valid, given.task, Effort(budget_s=0.0, progress=lambda share, note: notes.append(note)))
    assert len(notes) == 1
    assert np.isfinite(Linear().predict(weights, given.test.rows)).all()


def test_the_budget_is_looked_at_between_steps_and_the_best_so_far_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, X = numbers(400, 5)
    examples = Examples(rows, (X[:, 0] > 0.3).astype(np.int64))
    ticks = itertools.count()
    monkeypatch.setattr("time.monotonic", lambda: float(next(ticks)))  # a second passes each time it is asked
    losses = [_loss(Linear(strength=1e-4).fit(examples, None, TASKS["binary"], Effort(budget_s=float(s))), examples) for s in (0, 3, 5, 1000)]
    assert losses[0] == pytest.approx(_loss_of_shares(examples), rel=1e-6)
    assert losses[0] > losses[1] > losses[2] > losses[3]


def test_an_update_keeps_to_the_budget_too() -> None:
    rows, X = numbers(400, 5)
    examples = Examples(rows, (X[:, 0] > 0.3).astype(np.int64))
    weights = Linear().fit(examples, None, TASKS["binary"], Effort())
    other = Examples(rows, 1 - examples.target)
    same = Linear().update(weights, other, None, TASKS["binary"], Effort(budget_s=0.0))
    assert np.array_equal(same.arrays["coefficients"], weights.arrays["coefficients"])


def _loss(weights: Weights, examples: Examples) -> float:
    return loss(Linear().predict(weights, examples.rows), examples.target, None, TASKS["binary"])


def _loss_of_shares(examples: Examples) -> float:
    p = examples.target.mean()
    return float(-(p * np.log(p) + (1 - p) * np.log(1 - p)))
