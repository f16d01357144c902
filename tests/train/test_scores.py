"""Many rows are scored a block at a time, each row once, and the last bits depend on nothing but the rows."""

from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from modelinscale.compute.local import Local
from modelinscale.core.task import Task
from modelinscale.data.partitions import Rows, rows_of
from modelinscale.encode import Encoder, empty_all, merge_all, observe_all
from modelinscale.features import Feature
from modelinscale.models import Effort, Examples, Model
from modelinscale.train import Scorer, lots

N = 5_000


def table(n_rows: int) -> Rows:
    """N rows in partitions of ``n_rows``."""
    chance = np.random.default_rng(3)
    x = chance.normal(size=N)
    return rows_of(pl.DataFrame({"x": x, "shop": chance.choice(["a", "b", "c", "d"], N), "at": np.arange(N)}), n_rows)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.lists(st.integers(-1, 2), min_size=0, max_size=120))
def test_lots_hold_each_chosen_row_once_in_order_and_are_full_but_for_the_last(n_partition: int, n_lot: int, parts: list[int]) -> None:
    mask: NDArray[Any] = np.array(parts, np.int8)
    rows = rows_of(pl.DataFrame({"at": np.arange(len(mask))}), n_partition)
    found = list(lots(rows, mask, 1, n_lot))
    read = [[at for piece in lot.pieces for at in piece.read(["at"])["at"].to_list()] for lot in found]
    assert [at for one in read for at in one] == np.flatnonzero(mask == 1).tolist()
    assert all(len(one) == n_lot for one in read[:-1])
    assert all(0 < len(one) <= n_lot for one in read)


def test_no_row_of_the_table_is_read_for_two_lots() -> None:
    chance = np.random.default_rng(1)
    found = list(lots(table(1_000), chance.random(N) < 0.3, 1, 64))
    spans = [(piece.partition.start, piece.partition.start + piece.partition.n_rows) for lot in found for piece in lot.pieces]
    assert all(a < b <= c for (a, b), (c, _) in pairwise(spans))


def test_a_lot_is_called_by_its_rows() -> None:
    (lot,) = lots(table(1_000), np.arange(N) // 10 == 99, 1)
    assert lot.where == "rows 990 to 999 of the table"


@pytest.mark.parametrize("family", ["linear", "{type: trees, rounds: 5}"])
def test_scores_are_the_same_bits_whatever_partitions_and_workers(family: str) -> None:
    features = {"x": Feature.parse("number"), "shop": Feature.parse("category")}
    model = Model.parse("linear" if family == "linear" else {"type": "trees", "rounds": 5})
    whole = table(N)
    frame = whole.head(N)
    states = merge_all(features, empty_all(features), observe_all(features, frame))
    encoder = Encoder.of(features, states, model.form)
    task = Task(type="binary", target="y", labels=("no", "yes"))
    target = (frame["x"].to_numpy() > 0).astype(np.int64)
    weights = model.fit(Examples(encoder.encode(frame), target), None, task, Effort())
    mask = np.random.default_rng(2).integers(0, 3, N)
    chosen = encoder.encode(frame.filter(pl.Series(mask == 1)))
    want = np.concatenate([model.predict(weights, chosen.slice(a, min(a + 512, chosen.n_rows))) for a in range(0, chosen.n_rows, 512)])
    for n_rows, workers in ((N, 1), (1_000, 2), (77, 5)):
        scorer = Scorer(model, weights, encoder)
        found = np.concatenate(list(Local(workers=workers).map(scorer.scores, lots(table(n_rows), mask, 1, 512))))
        assert found.tobytes() == want.tobytes()
