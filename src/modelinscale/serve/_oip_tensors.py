"""Tensors of the Open Inference Protocol v2 taken apart and put together, as JSON and as binary. N rows.

Source: github.com/kserve/open-inference-protocol, and Triton's binary tensor data extension.
"""

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import RequestError, did_you_mean
from modelinscale.package._cells import ColumnReader
from modelinscale.serve._oip_form import DTYPES, Tensor

_EXACT = 2.0**53


def as_cells(values: Sequence[Any] | NDArray[Any], n_rows: int, width: int | None) -> list[Any]:
    """Elements as JSON cells, one a row."""
    if isinstance(values, np.ndarray):
        return values.reshape(n_rows, width).tolist() if width is not None else values.tolist()
    return [list(values[i : i + width]) for i in range(0, n_rows * width, width)] if width is not None else list(values)


def sequences(values: Sequence[Any] | NDArray[Any], n_rows: int, width: int) -> list[NDArray[np.float64]]:
    """Elements (N, T, width) as sequences; steps at the end of a row that are all missing are none: what it was filled up with."""
    numbers = np.array([math.nan if v is None else v for v in values], np.float64) if not isinstance(values, np.ndarray) else values.astype(np.float64)
    if not n_rows:
        return []
    whole = numbers.reshape(n_rows, -1, width)
    there: NDArray[np.bool_] = np.logical_not(np.isnan(whole).all(axis=2))
    ends = np.where(there.any(axis=1), whole.shape[1] - there[:, ::-1].argmax(axis=1) if whole.shape[1] else 0, 0)
    return [row[:end] for row, end in zip(whole, ends.tolist(), strict=True)]


def straight(values: NDArray[Any], reader: ColumnReader, n_rows: int) -> NDArray[Any] | None:
    """Elements that need no thought, without a Python object each; None where the slow road must look."""
    column, kind = reader.column, values.dtype.kind
    if reader.cleans:
        return None
    if reader.input == "vector" and kind in "fiu":
        with np.errstate(over="ignore"):  # becomes infinite, and is looked at on the slow road
            vectors = np.ascontiguousarray(values.reshape(n_rows, column.width or 1), np.float32)
        return vectors if np.isfinite(vectors).all() else None
    if reader.input != "float64" or kind not in "fiu" or column.type not in ("float", "int"):
        return None
    numbers = np.ascontiguousarray(values, np.float64)
    missing = np.isnan(numbers)
    if np.isinf(numbers).any() or (reader.required and missing.any()):
        return None
    if column.type == "int" and not ((np.trunc(numbers) == numbers) & (np.abs(numbers) < _EXACT) | missing).all():
        return None
    return numbers


def from_json(tensor: Tensor) -> Sequence[Any] | NDArray[Any]:
    """Elements in row-major order, flat: an array, or Python values where some are missing or they are text."""
    if tensor.data is msgspec.UNSET:
        raise RequestError(f"the input {tensor.name!r} has no data.", fix="Give `data`, or `binary_data_size` and the bytes.")
    flat = _flat(tensor)
    expected = math.prod(tensor.shape)
    if len(flat) != expected:
        raise RequestError(f"the input {tensor.name!r} has {len(flat)} elements, its shape {tensor.shape} needs {expected}.")
    types = set(map(type, flat))
    missing = type(None) in types
    types.discard(type(None))
    kind = tensor.datatype
    if kind == "BYTES":
        _hold(tensor, types, {str}, "strings")
        return flat
    dtype = _dtype(kind, tensor.name)
    if kind == "BOOL":
        _hold(tensor, types, {bool}, "true or false")
        return flat
    _hold(tensor, types, {int, float} if dtype.kind == "f" else {int}, "numbers" if dtype.kind == "f" else "whole numbers")
    present = [v for v in flat if v is not None] if missing else flat
    try:
        with np.errstate(over="ignore"):  # becomes infinite, and is refused below
            numbers = np.array(present, dtype)
    except OverflowError as error:
        raise RequestError(f"the input {tensor.name!r} holds a number that {kind} cannot.") from error
    if dtype.kind == "f" and not np.isfinite(numbers).all():
        raise RequestError(f"the input {tensor.name!r} holds a number that {kind} cannot.")
    if not missing:
        return numbers
    values = iter(numbers.tolist())
    return [None if v is None else next(values) for v in flat]


def _flat(tensor: Tensor) -> list[Any]:
    data, shape = tensor.data, tensor.shape
    if not isinstance(data, list):
        raise RequestError(f"the input {tensor.name!r}: `data` must be a list.")
    for depth in range(len(shape)):
        types = set(map(type, data))
        if list not in types:
            return data
        if types != {list} or depth + 1 >= len(shape) or set(map(len, data)) != {shape[depth + 1]}:
            break
        data = list(chain.from_iterable(data))
    else:
        return data
    raise RequestError(f"the input {tensor.name!r}: the lists in `data` do not nest as the shape {shape} says.", fix="Nest them so, or give one flat list.")


def _hold(tensor: Tensor, types: set[type], allowed: set[type], words: str) -> None:
    if not types <= allowed:
        wrong = sorted(t.__name__ for t in types - allowed)
        raise RequestError(f"the input {tensor.name!r} is {tensor.datatype} and must hold {words}, found {', '.join(wrong)}.")


def _dtype(kind: str, name: str) -> "np.dtype[Any]":
    if kind not in DTYPES:
        shown = kind[:40]
        raise RequestError(
            f"the input {name!r} has the datatype {shown!r}.{did_you_mean(shown, [*DTYPES, 'BYTES'])}", fix=f"Known: {', '.join(DTYPES)}, BYTES."
        )
    return np.dtype(DTYPES[kind])


def from_bytes(name: str, kind: str, shape: list[int], data: memoryview, *, as_they_are: bool = False) -> Sequence[Any] | NDArray[Any]:
    """Elements of a binary tensor; those of BYTES as text, or ``as_they_are``."""
    count = math.prod(shape)
    if kind == "BYTES":
        found = _elements(name, data, count)
        return found if as_they_are else [utf8(one, name) for one in found]
    dtype = _dtype(kind, name)
    if len(data) != count * dtype.itemsize:
        raise RequestError(f"the input {name!r} has {len(data)} bytes, its shape {shape} of {kind} needs {count * dtype.itemsize}.")
    if kind == "BOOL":
        return np.frombuffer(data, np.uint8).astype(np.bool_)
    return np.frombuffer(data, dtype)


def _elements(name: str, data: memoryview, count: int) -> list[bytes]:
    """Each element: its length in bytes (4 bytes, little-endian), then its bytes."""
    found: list[bytes] = []
    at, size = 0, len(data)
    while at < size and len(found) <= count:
        if at + 4 > size:
            break
        (length,) = struct.unpack_from("<I", data, at)
        if at + 4 + length > size:
            break
        found.append(bytes(data[at + 4 : at + 4 + length]))
        at += 4 + length
    if at != size or len(found) != count:
        raise RequestError(f"the input {name!r} does not hold {count} elements of BYTES (4 bytes of length, little-endian, then as many bytes).")
    return found


def utf8(raw: bytes, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"the input {name!r} holds bytes that are not UTF-8.", fix="Send UTF-8 text.") from error


def to_bytes(values: NDArray[Any], kind: str) -> bytes:
    if kind == "BYTES":
        raw = [str(v).encode() for v in values.ravel().tolist()]
        return b"".join(chain.from_iterable((struct.pack("<I", len(r)), r) for r in raw))
    return np.ascontiguousarray(values, DTYPES[kind]).tobytes()
