"""Typed lake columns to graph inputs: the only place that says how a cell of one type is fed to a feature of another.

The served side keeps the twin of these rules for JSON cells. N rows.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import pixels
from modelinscale.core.encoded import MISSING_MOMENT
from modelinscale.core.errors import DataError

if TYPE_CHECKING:
    import polars as pl

    from modelinscale.core.encoded import InputType

_SMALLEST_EXACT = 2.0**53


def to_input(values: "pl.Series", input: "InputType") -> "pl.Series":
    """A lake column in graph-input form, same name and length, still null where a cell is missing.

    float64: numbers; flags 0 and 1; moments are microseconds since 1970; text as a number or null. string: whole numbers as ``str(int)``,
    floats in their shortest form without ``.0``, flags ``true`` / ``false``, moments ISO 8601. int64: microseconds since 1970. vector: float32 lists.
    image: the encoded bytes. sequence: lists of float32, or of float32 arrays of one width.
    Raises `DataError` where no sensible form exists (a vector as a number).
    """
    import polars as pl

    kind = values.dtype
    if input == "float64":
        if kind == pl.Float64:
            return values
        if kind.is_numeric():
            return values.cast(pl.Float64)
        if kind == pl.Boolean:
            return values.cast(pl.UInt8).cast(pl.Float64)  # twice as fast as in one step
        if kind == pl.String:
            return values.cast(pl.Float64, strict=False)
        if kind.is_temporal():
            return values.dt.timestamp("us").cast(pl.Float64)
    elif input == "string":
        if not kind.is_nested():
            return written(values)
    elif input == "int64":
        if kind == pl.Int64:
            return values
        if kind.is_integer() or kind == pl.Boolean:
            return values.cast(pl.Int64)
        if kind.is_float():
            return values.cast(pl.Int64, strict=False)
        if kind.is_temporal():
            return values.dt.timestamp("us")
    elif input == "image":
        if kind == pl.Binary:
            return values
    elif input == "sequence":
        if isinstance(kind, pl.List) and (kind.inner == pl.Float32 or isinstance(kind.inner, pl.Array)):
            return values
    elif kind.is_nested():
        width = kind.size if isinstance(kind, pl.Array) else None
        return values if width is None or kind == pl.Array(pl.Float32, width) else values.cast(pl.Array(pl.Float32, width))
    raise DataError(f"column {values.name!r} of type {kind} cannot be read as {input}.", fix="Give the column another feature type.")


def to_numpy(values: "pl.Series", input: "InputType", broken: "Callable[[int, pixels.ImageError], None] | None" = None) -> NDArray[Any]:
    """What the graph is fed with: float64 (N,) with NaN, object of str (N,) with "", int64 (N,) with the smallest int64, float32 (N, width) with NaN,
    object of `core.pixels.Pixels` (N,) with one grey pixel for what is missing, object of `core.steps.Steps` (N,) without steps for what is missing.

    ``values`` are in graph-input form (`to_input`). An image that cannot be read is told to ``broken`` with its row, and then counts as missing; without
    ``broken`` its `core.pixels.ImageError` is raised.
    """
    import polars as pl

    if input == "float64":
        return np.ascontiguousarray(values.fill_null(float("nan")).to_numpy(), np.float64)
    if input == "string":
        return values.fill_null("").to_numpy()
    if input == "int64":
        return np.ascontiguousarray(values.fill_null(MISSING_MOMENT).to_numpy(), np.int64)
    if input == "image":
        return as_objects([_pixels(row, data, broken) for row, data in enumerate(values.to_list())])
    if input == "sequence":
        assert isinstance(values.dtype, pl.List)
        inner = values.explode(empty_as_null=False, keep_nulls=False) if len(values) else pl.Series([], dtype=values.dtype.inner)
        numbers = _matrix(inner) if isinstance(inner.dtype, pl.Array) else inner.fill_null(float("nan")).to_numpy().reshape(-1, 1)
        return as_objects(np.split(numbers, np.cumsum(values.list.len().fill_null(0).to_numpy().astype(np.int64))[:-1]) if len(values) else [])
    if not isinstance(values.dtype, pl.Array):
        raise DataError(f"column {values.name!r}: a vector needs one width, found {values.dtype}.")
    return _matrix(values)


def _matrix(values: "pl.Series") -> NDArray[np.float32]:
    """(N, width) of arrays of one width."""
    import polars as pl

    assert isinstance(values.dtype, pl.Array)
    width = values.dtype.size
    flat = values.fill_null(pl.Series([[float("nan")] * width], dtype=values.dtype)) if values.null_count() else values
    inner = flat.explode(empty_as_null=False, keep_nulls=False).fill_null(float("nan")) if len(flat) else pl.Series([], dtype=pl.Float32)
    return np.ascontiguousarray(inner.to_numpy(), np.float32).reshape(len(values), width)


def _pixels(row: int, data: bytes | None, broken: "Callable[[int, pixels.ImageError], None] | None") -> pixels.Pixels:
    try:
        return pixels.missing() if data is None else pixels.decode(data)
    except pixels.ImageError as error:
        if broken is None:
            raise
        broken(row, error)
        return pixels.missing()


def as_objects(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """(N,) of object, an array in each place, whatever their shapes."""
    found = np.empty(len(arrays), object)
    for i, one in enumerate(arrays):
        found[i] = one
    return found


def written(values: "pl.Series") -> "pl.Series":
    """Cells of any flat type as text, missing staying null: how numbers, flags and moments look when read as categories or text."""
    import polars as pl

    kind = values.dtype
    if kind == pl.String:
        return values
    if kind == pl.Boolean:
        return values.cast(pl.Int8).replace_strict({0: "false", 1: "true"}, return_dtype=pl.String)
    if kind.is_float():
        return _written_floats(values.cast(pl.Float64))
    if kind.is_temporal():
        return _written_moments(values)
    return values.cast(pl.String)


def _written_floats(values: "pl.Series") -> "pl.Series":
    """Shortest text that reads back to the same float; integral ones below 2**53 without ``.0``; NaN is missing."""
    import polars as pl

    values = values.fill_nan(None)
    # Python's repr is the rule (the served side writes it so); each distinct value is written once, so this is not per row.
    distinct = values.unique().drop_nulls()
    words = [written_float(v) for v in distinct.to_list()]
    return values.replace_strict(distinct, pl.Series(words, dtype=pl.String), default=None, return_dtype=pl.String)


def written_float(value: float) -> str:
    """One float as text.

    >>> written_float(3.0), written_float(0.1), written_float(-0.0), written_float(1e300)
    ('3', '0.1', '0', '1e+300')
    """
    if value == int(value) and abs(value) < _SMALLEST_EXACT if np.isfinite(value) else False:
        return str(int(value))
    return repr(value)


def _written_moments(values: "pl.Series") -> "pl.Series":
    """ISO 8601 as Python's ``datetime.isoformat`` writes it: ``2024-05-01T13:00:00``, microseconds only when there are some."""
    import polars as pl

    values = values.cast(pl.Datetime("us"))
    whole = values.dt.strftime("%Y-%m-%dT%H:%M:%S")
    if values.dt.microsecond().eq(0).all():
        return whole
    return whole.zip_with(values.dt.microsecond().eq(0).fill_null(True), values.dt.strftime("%Y-%m-%dT%H:%M:%S%.6f"))
