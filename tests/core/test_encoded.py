"""Rows as a model sees them."""

import numpy as np
import pytest

from modelinscale.core.encoded import Encoded, Layout, Sparse


def _sparse(n: int = 40, width: int = 7, seed: int = 0) -> tuple[Sparse, np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    chance = np.random.default_rng(seed)
    full = np.where(chance.random((n, width)) < 0.3, chance.integers(1, 9, (n, width)), 0).astype(np.float32)
    full[[0, 3, -1]] = 0
    rows, columns = np.nonzero(full)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int64)
    return Sparse(starts, columns.astype(np.int32), full[rows, columns], width), full


@pytest.mark.parametrize("index", [[], [0], [5, 5, 3, 0, 39, 5], list(range(39, -1, -1))])
def test_sparse_rows_in_any_order_are_the_dense_ones(index: list[int]) -> None:
    sparse, full = _sparse()
    some = sparse.rows(np.asarray(index, np.int64))
    assert len(some) == len(index)
    np.testing.assert_array_equal(some.dense(), full[index])
    assert some.starts.dtype == np.int64


def test_sparse_is_what_scipy_says_it_is() -> None:
    sparse, full = _sparse()
    np.testing.assert_array_equal(sparse.scipy().toarray(), full)
    assert np.shares_memory(sparse.scipy().data, sparse.values)


def test_blocks_are_taken_together() -> None:
    sparse, full = _sparse()
    layouts = {"x": Layout("dense", 1, ("x",)), "w": Layout("sparse", 7, tuple("abcdefg")), "c": Layout("ids", 3, ("(missing)", "(other)", "a"))}
    encoded = Encoded(layouts, {"x": np.arange(40, dtype=np.float32)[:, None], "w": sparse, "c": np.arange(40, dtype=np.int32) % 3})
    some = encoded.rows(np.array([7, 2]))
    assert (encoded.n_rows, some.n_rows, len(some), list(some)) == (40, 2, 3, ["x", "w", "c"])
    assert isinstance(some["w"], Sparse)
    np.testing.assert_array_equal(some["w"].dense(), full[[7, 2]])
    np.testing.assert_array_equal(np.asarray(some["x"])[:, 0], [7, 2])
    assert some.layouts is layouts


def test_no_blocks_are_no_rows() -> None:
    assert Encoded({}, {}).n_rows == 0
