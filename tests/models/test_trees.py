"""What the suite for all families does not say about trees."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Layout, Sparse, Values
from modelinscale.core.task import TaskType
from modelinscale.models import Effort, Examples
from modelinscale.models._forest import Tree, floor32, read
from modelinscale.models._sets import codes_of
from modelinscale.models.trees import Trees
from modelinscale.testing.examples import examples
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


@pytest.mark.slow
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


@given(n_ids=st.integers(1, 700), n_sets=st.integers(1, 400), most=st.integers(1, 40), hot=st.booleans(), seed=st.integers(0, 1000))
@settings(max_examples=examples(60), deadline=None)
def test_an_id_has_a_code_of_a_run_exactly_when_it_lies_in_the_set(n_ids: int, n_sets: int, most: int, hot: bool, seed: int) -> None:
    chance = np.random.default_rng(seed)
    among = min(n_ids, 20) if hot else n_ids
    sets = [np.sort(chance.choice(among, chance.integers(1, min(most, among) + 1), replace=False)) for _ in range(n_sets)]
    codes = codes_of([_asking(sets)], {0: n_ids})[0]
    table = codes.table[codes.row]  # (n_ids, K)
    for ids in sets:
        run = codes.runs[ids.tobytes()]
        column = table[:, run.column]
        assert np.array_equal((column >= run.low) & (column <= run.high), np.isin(np.arange(n_ids), ids))
        assert column.max() <= run.last


def test_sets_that_do_not_overlap_share_columns_and_no_column_takes_more_codes_than_a_byte_has() -> None:
    codes = codes_of([_asking([np.array([i]) for i in range(600)])], {0: 1000})[0]
    assert codes.table.shape == (601, 3)
    assert len(codes.row) == 1000


def _asking(sets: list[NDArray[np.int64]]) -> Tree:
    """A tree with a node for each set, of column 0: left is a leaf, right the next node."""
    n = len(sets)
    right = np.append(np.arange(1, n), ~n)
    no, zeros = np.zeros(n, bool), np.zeros(n, np.int64)
    return Tree(zeros, np.arange(n, dtype=float), ~no, no, ~np.arange(n), right, zeros.astype(float), np.zeros(n + 1), tuple(sets))


@pytest.mark.parametrize("type", ["regression", "multiclass"])
def test_sets_beside_numbers_and_words_are_drawn_as_lightgbm_splits_them(type: TaskType) -> None:
    """Two columns of ids, one before the numbers and one behind, missing numbers, and words; every id, known in training or not, missing (0) and unseen (1)."""
    import onnx
    import onnxruntime
    from onnx.reference import ReferenceEvaluator

    from modelinscale.core.graph import Graph
    from modelinscale.export.proto import to_bytes

    chance, n = np.random.default_rng(11), 6000
    shop, city = chance.integers(1, 400, n).astype(np.int32), chance.integers(0, 30, n).astype(np.int32)
    x = chance.normal(size=(n, 2)).astype(np.float32)
    x[chance.random(n) < 0.1, 1] = np.nan
    words = Sparse(np.arange(n + 1), np.zeros(n, np.int32), (chance.random(n) < 0.5).astype(np.float32), 1)
    layouts = {"shop": Layout("ids", 500, ()), "x": Layout("dense", 2, ("a", "b")), "w": Layout("sparse", 1, ("w",)), "city": Layout("ids", 30, ())}
    rows = Encoded(layouts, {"shop": shop, "x": x, "w": words, "city": city})
    score = (shop * 7919 % 13) / 13 + (city * 31 % 7) / 7 * (x[:, 0] > 0) + words.values * np.isnan(x[:, 1])
    y = score if type == "regression" else np.digitize(score, [0.5, 1.0])
    weights = Trees(rounds=8, min_leaf_rows=5).fit(Examples(rows, y), None, TASKS[type], Effort())
    graph = Graph()
    names = {
        name: graph.input(name, "int64" if layout.role == "ids" else "float32", None if layout.role == "ids" else layout.width)
        for name, layout in layouts.items()
    }
    graph.output("scores", Trees().graph(weights, TASKS[type], layouts, graph, names), "float32", ("N",) if type == "regression" else ("N", 3))
    [forest] = [node for node in graph.nodes if node.op == "TreeEnsembleRegressor"]
    assert set(forest.attributes["nodes_modes"]) == {"BRANCH_LEQ", "LEAF"}
    every = np.arange(n) % 500
    asked = Encoded(layouts, {"shop": every.astype(np.int32), "x": x, "w": words, "city": city})
    feeds: dict[str, NDArray[np.generic]] = {"shop": every, "x": x, "w": words.dense(), "city": city.astype(np.int64)}
    content, expected = to_bytes(graph, name="m"), Trees().predict(weights, asked)
    drawn = onnxruntime.InferenceSession(content).run(None, feeds)[0]
    np.testing.assert_allclose(drawn, expected, atol=1e-5)
    few = {name: value[:200] for name, value in feeds.items()}
    [by_the_book] = ReferenceEvaluator(onnx.load_from_string(content)).run(None, few)
    np.testing.assert_allclose(np.asarray(by_the_book), expected[:200], atol=1e-5)


def test_trees_that_never_split_on_their_ids_are_drawn_too() -> None:
    import onnxruntime

    from modelinscale.core.graph import Graph
    from modelinscale.export.proto import to_bytes

    layouts = {"id": Layout("ids", 5, ())}
    ids = np.arange(100, dtype=np.int32) % 5
    weights = Trees(rounds=2).fit(Examples(Encoded(layouts, {"id": ids}), np.full(100, 3.0)), None, TASKS["regression"], Effort())
    graph = Graph()
    graph.output("y", Trees().graph(weights, TASKS["regression"], layouts, graph, {"id": graph.input("id", "int64")}), "float32", ("N",))
    drawn = onnxruntime.InferenceSession(to_bytes(graph, name="m")).run(None, {"id": ids.astype(np.int64)})[0]
    np.testing.assert_allclose(drawn, 3.0)


def test_the_bytes_a_row_needs_count_its_codes() -> None:
    chance = np.random.default_rng(5)
    ids = chance.integers(0, 300, 5000).astype(np.int32)
    rows = Encoded({"id": Layout("ids", 300, ())}, {"id": ids})
    weights = [Trees(rounds=n).fit(Examples(rows, (ids * 7919 % 13).astype(float)), None, TASKS["regression"], Effort()) for n in (1, 20)]
    few, many = (Trees().row_bytes(w) for w in weights)
    assert 9 <= few < many
