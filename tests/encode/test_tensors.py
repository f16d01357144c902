"""How a typed cell is fed to a feature of another type."""

from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelinscale.core.encoded import MISSING_MOMENT
from modelinscale.core.errors import DataError
from modelinscale.encode.tensors import to_input, to_numpy, written_float


@pytest.mark.parametrize(
    ("values", "input", "expected"),
    [
        (pl.Series([1, None]), "float64", [1.0, None]),
        (pl.Series([True, False, None]), "float64", [1.0, 0.0, None]),
        (pl.Series(["1.5", "x", None]), "float64", [1.5, None, None]),
        (pl.Series([datetime(1970, 1, 1, 0, 0, 1), None]), "float64", [1e6, None]),
        (pl.Series([1, -2, None]), "string", ["1", "-2", None]),
        (pl.Series([1.0, 0.1, -0.0, 1e300, float("nan"), None]), "string", ["1", "0.1", "0", "1e+300", None, None]),
        (pl.Series([True, False, None]), "string", ["true", "false", None]),
        (pl.Series([datetime(2024, 5, 1, 13), datetime(2024, 5, 1, 13, 0, 0, 5)]), "string", ["2024-05-01T13:00:00", "2024-05-01T13:00:00.000005"]),
        (pl.Series([date(2024, 5, 1), date(1, 1, 1), None]), "int64", [1_714_521_600_000_000, -62_135_596_800_000_000, None]),
        (pl.Series([True, None]), "int64", [1, None]),
    ],
)
def test_cells_become_what_the_feature_reads(values: pl.Series, input: Any, expected: list[Any]) -> None:
    assert to_input(values, input).to_list() == expected


def test_missing_cells_have_one_form_in_each_tensor() -> None:
    assert np.isnan(to_numpy(pl.Series([None], dtype=pl.Float64), "float64")).all()
    assert to_numpy(pl.Series([None], dtype=pl.String), "string").tolist() == [""]
    assert to_numpy(pl.Series([None], dtype=pl.Int64), "int64").tolist() == [MISSING_MOMENT] == [np.iinfo(np.int64).min]
    vectors = to_numpy(pl.Series([None, [1.0, None]], dtype=pl.Array(pl.Float32, 2)), "vector")
    assert vectors.shape == (2, 2)
    assert np.isnan(vectors).tolist() == [[True, True], [False, True]]


def test_tensors_of_no_rows_keep_their_type() -> None:
    kinds = {"float64": pl.Float64(), "string": pl.String(), "int64": pl.Int64(), "vector": pl.Array(pl.Float32, 3)}
    shapes = {name: to_numpy(pl.Series([], dtype=kind), name) for name, kind in kinds.items()}  # type: ignore[arg-type]
    assert [(str(a.dtype), a.shape) for a in shapes.values()] == [("float64", (0,)), ("object", (0,)), ("int64", (0,)), ("float32", (0, 3))]


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e16, 2.0**53, 2.0**53 - 1, -5.0, 1e-310, 123456.789])
def test_a_written_float_reads_back_as_itself(value: float) -> None:
    assert float(written_float(value)) == value


def test_a_vector_read_as_a_number_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"column 'v'.*cannot be read as float64"):
        to_input(pl.Series("v", [[1.0, 2.0]], dtype=pl.Array(pl.Float32, 2)), "float64")
