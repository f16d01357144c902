"""Forecasts from a list of last numbers: whatever level and scale a series has, and as the graph draws them."""

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.graph import Graph
from modelinscale.core.task import Task
from modelinscale.export.proto import to_bytes
from modelinscale.models import Effort, Examples
from modelinscale.models.forecast import Forecast

T, H = 24, 6
TASK = Task(type="regression", target="next", width=H)
LAYOUT = Layout("dense", T, tuple(str(i) for i in range(T)))


def waves(n_rows: int = 600, seed: int = 7) -> NDArray[np.float64]:
    """(N, T + H) of waves of period 12, each at a level and of a height of its own."""
    chance = np.random.default_rng(seed)
    phase, level, height = chance.uniform(0, 12, n_rows), chance.normal(0, 100, n_rows), 10 ** chance.uniform(-2, 2, n_rows)
    wave = np.sin((phase[:, None] + np.arange(T + H)) * np.pi / 6) + 0.05 * chance.normal(size=(n_rows, T + H))
    return level[:, None] + height[:, None] * wave


def examples(both: NDArray[np.float64]) -> Examples:
    x = both[:, :T].astype(np.float32)
    return Examples(Encoded({"plain/past": LAYOUT, "scaled/past": LAYOUT}, {"plain/past": x, "scaled/past": x}), both[:, T:])


def test_series_of_any_level_and_height_share_one_map() -> None:
    model, both = Forecast(), waves()
    weights = model.fit(examples(both[:400]), examples(both[400:500]), TASK, Effort())
    test = examples(both[500:])
    height = both[500:, :T].std(axis=1, keepdims=True)
    away = (model.predict(weights, test.rows) - test.target) / height
    assert np.sqrt((away**2).mean()) < 0.2


def test_moved_and_stretched_history_moves_and_stretches_the_forecast() -> None:
    model, both = Forecast(), waves()
    weights = model.fit(examples(both), None, TASK, Effort())
    few = np.round(waves(20, seed=8) * 64) / 64
    straight, moved = (model.predict(weights, examples(one).rows) for one in (few, few * 4 + 1024))
    height = few[:, :T].std(axis=1, keepdims=True)
    kept = height[:, 0] > 1  # none at the least deviation
    np.testing.assert_allclose(((moved - 1024) / 4)[kept], straight[kept], atol=1e-3)


@pytest.mark.parametrize("width", [H, None], ids=["several", "one"])
def test_the_graph_forecasts_as_python_does_with_gaps_and_without_any_number(width: int | None) -> None:
    task, model, both = TASK.but(width=width), Forecast(), waves()
    train = examples(both)
    weights = model.fit(train if width else Examples(train.rows, train.target[:, 0]), None, task, Effort())
    x = np.asarray(examples(waves(30, seed=9)).rows["plain/past"]).copy()
    x[0], x[1, -3:], x[2, ::2], x[3], x[4, 5] = np.nan, np.nan, np.nan, 5.0, np.inf
    rows = Encoded(train.layouts, {"plain/past": x, "scaled/past": x})
    graph = Graph()
    blocks = {name: graph.block(name, layout) for name, layout in train.layouts.items()}
    graph.output("scores", model.graph(weights, task, train.layouts, graph, blocks), "float32", ("N", H) if width else ("N",))
    drawn = onnxruntime.InferenceSession(to_bytes(graph, name="model")).run(None, {"plain/past": x, "scaled/past": x})[0]
    found = model.predict(weights, rows)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(drawn, found, rtol=1e-5, atol=1e-3)


def test_a_history_that_is_no_list_is_refused_by_name() -> None:
    assert Forecast(history="pasd").accepts(TASK, examples(waves(5)).layouts) == "there is no column 'pasd' that holds a list of numbers"
