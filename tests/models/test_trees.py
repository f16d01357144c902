"""What the suite for all families does not say about trees."""

import subprocess
import sys

import numpy as np
import pytest

from modelinscale.core.encoded import Encoded, Layout, Sparse, Values
from modelinscale.models import Effort, Examples
from modelinscale.models._forest import floor32, read
from modelinscale.models.trees import Trees
from modelinscale.testing.models import TASKS, planted


def test_a_float32_is_below_a_threshold_exactly_when_it_is_below_its_floor() -> None:
    chance = np.random.default_rng(1)
    thresholds = np.concatenate([chance.normal(size=2000) * 10.0 ** chance.integers(-40, 40, 2000), [0.0, 1e-35, -1e-35, 1e300, -1e300, 0.1]])
    floors = floor32(thresholds)
    with np.errstate(over="ignore", under="ignore"):
        around = (floors, np.nextafter(floors, np.float32(np.inf)), np.nextafter(floors, np.float32(-np.inf)))
    for x in around:
        assert np.array_equal(x.astype(np.float64) <= thresholds, x <= floors)


@pytest.mark.parametrize("beside_words", [False, True])
def test_values_next_to_nothing_are_zero_in_the_graph_too(beside_words: bool) -> None:
    """Columns that are often 0: LightGBM then splits at 1e-35 and -1e-35, and reads smaller values as 0."""
    from modelinscale.core.graph import Graph
    from modelinscale.export.proto import to_bytes

    chance = np.random.default_rng(6)
    x = chance.integers(-2, 3, (1000, 2)).astype(np.float32)
    y = np.where(x[:, 0] < 0, 5.0, 0.0) + np.where(x[:, 1] == 0, 3.0, 0.0) + np.where(x[:, 1] > 0, 1.0, 0.0)
    zero = np.float32(1e-35)
    odd = np.array(
        [0, zero, -zero, zero / 2, -zero / 2, 1e-45, -1e-45, zero * 2, -zero * 2, np.nextafter(zero, np.float32(1)), np.nextafter(-zero, np.float32(-1))]
    )
    layouts = {"x": Layout("dense", 2, ("a", "b"))}
    blocks: dict[str, Values] = {"x": x}
    odd_blocks: dict[str, Values] = {"x": np.stack([odd, odd[::-1]], axis=1).astype(np.float32)}
    if beside_words:
        layouts["w"] = Layout("sparse", 1, ("w",))
        blocks["w"], odd_blocks["w"] = (Sparse(np.arange(n + 1), np.zeros(n, np.int32), np.ones(n, np.float32), 1) for n in (len(x), len(odd)))
    trees, task = Trees(rounds=20), TASKS["regression"]
    weights = trees.fit(Examples(Encoded(layouts, blocks), y), None, task, Effort())
    assert -2e-35 < trees.edges(weights)["a"].min() < -1e-35
    graph = Graph()
    names = {name: graph.input(name, "float32", layout.width) for name, layout in layouts.items()}
    graph.output("scores", trees.graph(weights, task, layouts, graph, names), "float32", ("N",))
    import onnxruntime

    session = onnxruntime.InferenceSession(to_bytes(graph, name="m"))
    feeds = {name: block.dense() if isinstance(block, Sparse) else block for name, block in odd_blocks.items()}
    drawn = session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})[0]
    assert np.allclose(drawn, trees.predict(weights, Encoded(layouts, odd_blocks)), atol=1e-5)


def test_any_number_of_threads_gives_the_same_trees() -> None:
    chance = np.random.default_rng(2)
    X = chance.normal(size=(30_000, 8)).astype(np.float32)
    y = (X[:, 0] * X[:, 1] + 0.3 * chance.normal(size=30_000) > 0).astype(np.int64)
    rows = Encoded({"x": Layout("dense", 8, tuple("abcdefgh"))}, {"x": X})
    one, two = (Trees(rounds=5).fit(Examples(rows, y), None, TASKS["binary"], Effort(n_threads=n)) for n in (1, 2))
    assert np.array_equal(Trees().predict(one, rows), Trees().predict(two, rows))


def test_scikit_learn_is_not_imported_and_a_later_import_is_whole() -> None:
    code = """
import sys
from modelinscale.models._lightgbm import lightgbm
lightgbm().Booster
assert not [m for m in sys.modules if m in ("sklearn", "pandas", "lightgbm")], "more was imported than is used"
import lightgbm as public
import sklearn.base
assert issubclass(public.LGBMClassifier, sklearn.base.BaseEstimator)
lightgbm.cache_clear()
assert lightgbm() is public, "a whole LightGBM that is there is not loaded twice"
assert public.LGBMClassifier(n_estimators=2, verbose=-1).fit([[0.0], [1.0]] * 30, [0, 1] * 30).predict([[1.0]]) == [1]
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_a_number_far_from_zero_keeps_its_digits() -> None:
    given = planted("plain", "regression")
    far = Examples(given.train.rows, (given.train.target + 1e9).astype(np.float64))
    near, moved = (Trees(rounds=20).fit(t, None, given.task, Effort()) for t in (given.train, far))
    a, b = (Trees().predict(w, given.test.rows) for w in (near, moved))
    assert np.allclose(a, b - 1e9, atol=1.0)


def test_it_stops_early_and_keeps_the_best_round() -> None:
    given = planted("plain", "binary")
    weights = Trees(rounds=2000, patience=5).fit(given.train, given.valid, given.task, Effort())
    assert len(list(read(weights.arrays["trees"].tobytes().decode()))) < 1000


def test_covertype_does_not_fall_apart_with_many_settled_rows() -> None:
    """Seven classes, most rows easy: with LightGBM's own least hessian the loss rises instead of falling."""
    chance = np.random.default_rng(3)
    X = chance.normal(size=(6000, 6)).astype(np.float32)
    y = np.clip(np.round(X[:, 0] * 2 + X[:, 1] * 0.2) + 3, 0, 6).astype(np.int64)
    rows = Encoded({"x": Layout("dense", 6, tuple("abcdef"))}, {"x": X})
    task = TASKS["multiclass"].but(labels=tuple("abcdefg"))
    index = np.arange(6000)
    weights = Trees(rounds=100).fit(Examples(rows.rows(index[:5000]), y[:5000]), None, task, Effort())
    assert (Trees().predict(weights, rows.rows(index[5000:])).argmax(axis=1) == y[5000:]).mean() > 0.9


@pytest.mark.parametrize("wide", [300, 5000])
def test_many_categories_are_drawn_as_they_are_split(wide: int) -> None:
    from modelinscale.core.graph import Graph
    from modelinscale.export.proto import to_bytes

    chance = np.random.default_rng(4)
    ids = chance.integers(0, wide, 8000).astype(np.int32)
    y = ((ids * 7919 % 13) / 13 + 0.2 * chance.normal(size=8000)).astype(np.float64)
    rows = Encoded({"id": Layout("ids", wide, ())}, {"id": ids})
    trees = Trees(rounds=30)
    weights = trees.fit(Examples(rows, y), None, TASKS["regression"], Effort())
    graph = Graph()
    tensor = trees.graph(weights, TASKS["regression"], rows.layouts, graph, {"id": graph.input("id", "int64")})
    graph.output("scores", tensor, "float32", ("N",))
    import onnxruntime

    every = np.arange(wide)
    drawn = onnxruntime.InferenceSession(to_bytes(graph, name="m")).run(None, {"id": every})[0]
    assert np.allclose(drawn, trees.predict(weights, Encoded(rows.layouts, {"id": every.astype(np.int32)})), atol=1e-5)


def test_what_lightgbm_takes_for_zero_goes_where_the_graph_sends_it() -> None:
    import onnxruntime

    from modelinscale.core.graph import Graph
    from modelinscale.export.proto import to_bytes

    chance = np.random.default_rng(4)
    x = np.where(chance.random(2000) < 0.3, 0.0, chance.normal(size=2000)).astype(np.float32)[:, None]
    layouts = {"x": Layout("dense", 1, ("x",))}
    weights = Trees(rounds=5).fit(Examples(Encoded(layouts, {"x": x}), ((x[:, 0] > 0) * 2 + (x[:, 0] == 0)).astype(float)), None, TASKS["regression"], Effort())
    assert any((np.abs(tree.threshold) <= 1.1e-35).any() for tree in read(weights.arrays["trees"].tobytes().decode())), "no threshold beside zero was learned"
    graph = Graph()
    graph.output("y", Trees().graph(weights, TASKS["regression"], layouts, graph, {"x": graph.input("x", "float32", 1)}), "float32", ("N",))
    zero = np.float32(1e-35)
    steps = np.array([0.0, zero, np.nextafter(zero, np.float32(1)), np.nextafter(zero, np.float32(0)), 1e-36, 1e-40, 1e-34], np.float32)
    probes = np.concatenate([steps, -steps])[:, None]
    drawn = onnxruntime.InferenceSession(to_bytes(graph, name="t")).run(None, {"x": probes})[0]
    np.testing.assert_allclose(drawn, Trees().predict(weights, Encoded(layouts, {"x": probes})), rtol=1e-6)
