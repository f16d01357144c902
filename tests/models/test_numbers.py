"""Numbers of a table in a network: through bins, through waves, and with cells of other rows."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Model
from modelinscale.models._borders import borders_of, varied_columns
from modelinscale.models._deep.feed import Step
from modelinscale.models._deep.net import Net, Port, Shape
from modelinscale.models._deep.vary import swapped
from modelinscale.models._torch import torch
from modelinscale.models.mlp import Mlp
from modelinscale.models.network import Network
from modelinscale.testing import models as suite
from modelinscale.testing.kills import Killed, kill_at, same
from modelinscale.testing.models import planted

MLP = Mlp(width=16, members=2, epochs=6)
WAYS: dict[str, Model] = {
    "waves": MLP.but(bins=0, waves=8),
    "bins and waves": MLP.but(bins=4, waves=8, frequency=0.3),
    "bins of a tree": MLP.but(bins=6, borders="tree"),
    "cells of other rows": MLP.but(bins=4, swap=0.1),
}


def encoded_numbers(x: NDArray[np.float32]) -> Encoded:
    """A feature for each column."""
    return Encoded({f"x{i}": Layout("dense", 1, (f"x{i}",)) for i in range(x.shape[1])}, {f"x{i}": x[:, [i]] for i in range(x.shape[1])})


@pytest.mark.parametrize("way", WAYS)
def test_the_graph_says_what_python_says_however_numbers_are_seen(way: str) -> None:
    suite.graph_equals_python(WAYS[way], "binary")


@pytest.mark.slow
def test_a_network_of_any_columns_sees_its_numbers_so_too() -> None:
    suite.graph_equals_python(Network(width=16, members=2, epochs=2, maps=4, units=8, waves=8, swap=0.05), "binary")


@pytest.mark.parametrize("way", ["waves", "cells of other rows"])
def test_killed_and_resumed_it_ends_at_the_same_bits(way: str, tmp_path: Path) -> None:
    given, model = planted("scaled", "regression", n_rows=200), WAYS[way]
    straight = model.fit(given.train, given.valid, given.task, Effort())
    with pytest.raises(Killed):
        model.fit(given.train, given.valid, given.task, Effort(checkpoints=tmp_path, checkpoint_s=0, progress=kill_at(0.5).progress))
    assert same(straight, model.fit(given.train, given.valid, given.task, Effort(checkpoints=tmp_path)))


@pytest.mark.slow
def test_waves_learn_what_swings_faster_than_bins_are_narrow() -> None:
    chance = np.random.default_rng(3)
    x = chance.uniform(-1.7, 1.7, (900, 1)).astype(np.float32)
    y = np.sin(12 * x[:, 0]) + 0.1 * chance.normal(size=900)
    rows = encoded_numbers(x)
    train, valid = Examples(rows.slice(0, 600), y[:600]), Examples(rows.slice(600, 900), y[600:])

    def error(model: Model) -> float:
        found = model.predict(model.fit(train, valid, Task(type="regression", target="y"), Effort()), valid.rows)
        return float(np.mean((found - valid.target) ** 2))

    few = Mlp(width=32, members=1, epochs=20, bins=4)
    assert error(few.but(waves=24, frequency=1.0)) < 0.3 * error(few)


def test_a_tree_ends_bins_where_answers_change() -> None:
    chance = np.random.default_rng(0)
    x = chance.random((4000, 2)).astype(np.float32)
    y = np.select([x[:, 0] < 0.13, x[:, 0] < 0.9], [0, 2], 1).astype(np.int64)
    examples = Examples(encoded_numbers(x), y)
    binned, edges = borders_of(x, 3, examples)
    assert binned == (0, 1)
    assert edges[0, 1:3] == pytest.approx([0.13, 0.9], abs=0.002)
    assert (np.diff(edges, axis=1) >= 0).all()
    _, quantiles = borders_of(x, 3)
    assert edges[:, [0, -1]] == pytest.approx(quantiles[:, [0, -1]]), "lowest and highest value"


def test_a_row_of_weight_two_is_two_rows_to_the_tree() -> None:
    chance = np.random.default_rng(1)
    x, weight = chance.random((600, 1)).astype(np.float32), chance.integers(1, 3, 600)
    y = np.sin(9 * x[:, 0]) + chance.normal(size=600) * 0.1
    weighed, doubled = Examples(encoded_numbers(x), y, weight.astype(np.float64)), np.repeat(np.arange(600), weight)
    _, once = borders_of(x, 4, weighed)
    _, again = borders_of(x[doubled], 4, Examples(encoded_numbers(x[doubled]), y[doubled]))
    assert np.abs(once - again).max() < 0.02


def test_a_tree_of_many_classes_takes_little_memory_and_ends_bins_where_the_common_ones_change() -> None:
    chance = np.random.default_rng(2)
    x = chance.random((20_000, 1)).astype(np.float32)
    y = np.where(chance.random(20_000) < 0.5, chance.integers(0, 498, 20_000), 498 + (x[:, 0] > 0.37))
    tracemalloc.start()
    _, edges = borders_of(x, 2, Examples(encoded_numbers(x), y))
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 100 << 20, "all classes of all rows: 76 MiB, several times over"
    assert edges[0, 1] == pytest.approx(0.37, abs=0.01)
    assert edges[0, [0, 2]].tolist() == [x.min(), x.max()]


def test_a_tree_of_many_numbers_sees_rows_spread_evenly() -> None:
    x = np.arange(12_000, dtype=np.float32)[:, None]
    answers = np.repeat((x > 7_300).astype(np.float64), 500, axis=1)
    _, edges = borders_of(x, 2, Examples(encoded_numbers(x), answers))
    assert edges[0].tolist() == [0.0, pytest.approx(7_300, abs=7), 11_999.0]


def test_flags_and_still_columns_are_seen_as_they_are() -> None:
    x = np.stack([np.arange(50) % 2, np.zeros(50), np.arange(50)], axis=1).astype(np.float32)
    assert varied_columns(x) == (2,)
    assert borders_of(x, 4)[0] == (2,)
    assert varied_columns(np.zeros((3, 301), np.float32)) == ()


def test_swapped_cells_come_from_their_own_column_and_a_feature_stays_whole() -> None:
    ports = (Port("dense", ("a", "b"), (2, 1), settings=(("binned", []), ("n_bins", 0))), Port("ids", ("c", "d"), (90, 90)))
    net, n = Net(ports, Shape(4, 1, 1, 0.0, 1)), 80
    column = torch.arange(n, dtype=torch.float32)
    ids = torch.stack([torch.arange(n), torch.arange(n)], dim=1)
    step = Step({"dense0": torch.stack([column, column, column], dim=1), "ids1": ids}, torch.zeros(n), None)
    found = swapped(step, net, 0.3, torch.Generator().manual_seed(1)).batch
    dense = found["dense0"]
    assert torch.equal(dense[:, 0], dense[:, 1]), "both numbers of a feature come from one row"
    for moved in (dense[:, 0], dense[:, 2], found["ids1"][:, 0], found["ids1"][:, 1]):
        assert 0.1 < float((moved.float() != column).float().mean()) < 0.5
        assert set(moved.tolist()) <= set(range(n))
    assert not torch.equal(dense[:, 0], dense[:, 2])
    assert torch.equal(step.batch["ids1"], ids), "what came in stays"
