"""Random convolutions: what they find in a sequence is the same in Python and in the graph, to the bit, and a row's own."""

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.graph import Graph
from modelinscale.core.task import Task
from modelinscale.export.proto import to_bytes
from modelinscale.models import Effort, Examples
from modelinscale.models._convolutions import KERNELS, Bank
from modelinscale.models.random_convolutions import RandomConvolutions


def steps(sizes: list[int], n_channels: int, T: int = 40, seed: int = 7) -> NDArray[np.float32]:
    """(N, T, D), NaN behind each row's end."""
    x = np.random.default_rng(seed).normal(size=(len(sizes), T, n_channels)).astype(np.float32)
    x[np.arange(T) >= np.array(sizes)[:, None]] = np.nan
    return x


def encoded(**blocks: NDArray[np.float32]) -> Encoded:
    return Encoded({name: Layout("steps", x.shape[1] * x.shape[2], (), x.shape[1:]) for name, x in blocks.items()}, dict(blocks))


SIZES = [0, 1, 2, 5, 9, 17, 33, 40, 40, 3]


def test_there_are_84_kernels_that_sum_to_nothing() -> None:
    assert len({tuple(row) for row in KERNELS.tolist()}) == 84
    assert not KERNELS.sum(axis=1).any()


@pytest.mark.parametrize("n_channels", [1, 3, 12])
def test_the_graph_finds_what_python_finds(n_channels: int) -> None:
    rows = encoded(a=steps(SIZES, n_channels), b=steps(SIZES, 1, seed=8) * np.float32(50))
    bank = Bank.draw(rows, ["a", "b"], 500, 4, 7)
    graph = Graph()
    blocks = {name: graph.block(name, layout) for name, layout in rows.layouts.items()}
    graph.output("found", bank.graph(graph, blocks), "float32", ("N", bank.n_features))
    drawn = onnxruntime.InferenceSession(to_bytes(graph, name="bank")).run(None, dict(rows.blocks))[0]
    found, at = bank.found(rows), 0
    for layer in bank.layers:
        own = slice(at, at + layer.n_features)
        if layer.contends:  # sums of sizes may round otherwise
            np.testing.assert_allclose(drawn[:, own], found[:, own], rtol=1e-6, atol=1e-6)
        else:
            assert np.array_equal(drawn[:, own], found[:, own])
        at += layer.n_features
    assert at == bank.n_features
    assert not found[0].any()


def test_a_row_is_the_same_alone_and_among_others() -> None:
    rows = encoded(a=steps(SIZES, 2))
    bank = Bank.draw(rows, ["a"], 500, 4, 7)
    whole = bank.found(rows)
    for i in range(len(SIZES)):
        assert np.array_equal(bank.found(rows.slice(i, i + 1))[0], whole[i])


def test_ten_thousand_steps_are_counted_whole() -> None:
    rows = encoded(a=steps([10_000, 9_000], 1, T=10_000))
    found = Bank.draw(rows, ["a"], 336, 0, 7).found(rows)
    assert found.max() <= 1
    assert found.min() >= 0
    assert 0.2 < found.mean() < 0.8


def test_a_shape_somewhere_in_a_sequence_tells_classes_apart() -> None:
    chance, n = np.random.default_rng(7), 240
    sizes = chance.integers(20, 41, n)
    x, y = steps(sizes.tolist(), 2), np.arange(n) % 2
    for i in np.flatnonzero(y):
        at = chance.integers(0, sizes[i] - 9)
        x[i, at : at + 9, 0] += np.tile([2.0, -2.0, 0.0], 3).astype(np.float32)
    layout = Layout("dense", 1, ("scaled/other",))
    rows = Encoded({"deep/x": Layout("steps", 80, (), (40, 2)), "scaled/other": layout}, {"deep/x": x, "scaled/other": np.zeros((n, 1), np.float32)})
    task, model = Task(type="binary", target="y", labels=("no", "yes")), RandomConvolutions(features=1000, groups=8)
    weights = model.fit(Examples(rows.slice(0, 160), y[:160]), Examples(rows.slice(160, 200), y[160:200]), task, Effort())
    assert ((model.predict(weights, rows.slice(200, 240)) > 0) == (y[200:] == 1)).mean() >= 0.9
    shares = model.importance(weights, rows.layouts)
    assert shares["x"] > 0.99
