"""Hashes of cells and rows: vectorised, and the same on every machine and with every version of every library.

A row's hash chains its cells in column order. Missing equals missing, ``-0.0`` equals ``0.0``; NaN counts as missing, as everywhere in the lake.
Not meant against an adversary: two rows of a billion collide by chance once in 37 tables (64 bits); use `hash_pairs` (128 bits) where it matters.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.seeds import derive

if TYPE_CHECKING:
    import pyarrow as pa

Hashes = NDArray[np.uint64]

_FIRST = np.uint64(0x9E3779B97F4A7C15)
_SECOND = np.uint64(0xD1342543DE82EF95)
_NULL = np.uint64(0xA5A3564E1B1F2C69)
_BLOCK = 16_384
_MARK = np.uint64(0xC2B2AE3D27D4EB4F)


def hash_rows(columns: "Iterable[pa.Array | pa.ChunkedArray]", n_rows: int, seed: int = 0) -> Hashes:
    """A 64-bit hash of each row over all the columns given, (n_rows,), evenly spread."""
    state = np.full(n_rows, np.uint64(derive(seed, "rows")), dtype=np.uint64)
    _feed_all(state, list(columns), _FIRST)
    return finish(state)


def hash_pairs(columns: "Iterable[pa.Array | pa.ChunkedArray]", n_rows: int) -> tuple[Hashes, Hashes]:
    """Two independent 64-bit hashes of each row: together 128 bits, so that equal pairs mean equal rows (1 error in 10^20 at a billion rows)."""
    columns = list(columns)
    one = np.full(n_rows, np.uint64(derive(0, "one")), dtype=np.uint64)
    two = np.full(n_rows, np.uint64(derive(0, "two")), dtype=np.uint64)
    _feed_all(one, columns, _FIRST)
    _feed_all(two, columns, _SECOND)
    return finish(one), finish(two)


def finish(state: Hashes) -> Hashes:
    """Spreads every bit over all bits, in place, one to one. Source: Stafford 2011, variant 13 (the finaliser of SplitMix64)."""
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state


def share(hashes: Hashes) -> NDArray[np.float64]:
    """Hashes as numbers in [0, 1), in the same order."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _step(state: Hashes, word: Hashes, factor: np.uint64) -> None:
    """One word into the chain, in place; one to one in the word, so that rows that differ in one word never collide at that step."""
    state ^= word
    state *= factor
    state ^= state >> np.uint64(32)
    state *= factor
    state ^= state >> np.uint64(29)


def _feed_all(state: Hashes, columns: "list[pa.Array | pa.ChunkedArray]", factor: np.uint64) -> None:
    """A block of rows through all columns before the next block: what is worked on stays in the processor's cache."""
    import pyarrow as pa

    for start in range(0, len(state), _BLOCK):
        block = state[start : start + _BLOCK]
        for column in columns:
            part = column.slice(start, len(block))
            at = 0
            for chunk in part.chunks if isinstance(part, pa.ChunkedArray) else [part]:
                _feed_array(block[at : at + len(chunk)], chunk, factor)
                at += len(chunk)


def _feed_array(state: Hashes, array: "pa.Array", factor: np.uint64) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = array.type
    if t.is_dictionary(kind):
        array, kind = array.cast(kind.value_type), kind.value_type
    missing = None
    if array.null_count:
        missing = pc.is_null(array).to_numpy(zero_copy_only=False)
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        _feed_text(state, array if t.is_large_string(kind) else array.cast(pa.large_string()), missing, factor)
        return
    if t.is_binary(kind) or t.is_large_binary(kind):
        cells = (blake2b(cell.as_buffer(), digest_size=8).digest() if cell.is_valid else bytes(8) for cell in array)
        words = np.frombuffer(b"".join(cells), "<u8")
        _step(state, words if missing is None else np.where(missing, _NULL, words), factor)
        return
    if t.is_fixed_size_list(kind):
        _feed_vectors(state, array, missing, factor)
        return
    if t.is_list(kind) or t.is_large_list(kind):
        _feed_sequences(state, array, missing, factor)
        return
    if t.is_floating(kind):
        filled = pc.fill_null(array, np.nan) if missing is not None else array
        values = filled.cast(pa.float64()).to_numpy() + 0.0  # minus zero becomes zero
        nan = np.isnan(values)
        missing = nan if nan.any() else None
        words = values.view(np.uint64)
    elif t.is_null(kind):
        words = np.zeros(len(array), dtype=np.uint64)
        missing = np.ones(len(array), dtype=np.bool_)
    else:
        whole = array.cast(pa.int64()) if t.is_timestamp(kind) or t.is_integer(kind) else array.cast(pa.int8()).cast(pa.int64())
        words = (whole if missing is None else pc.fill_null(whole, 0)).to_numpy().view(np.uint64)
    if missing is not None:
        words = np.where(missing, _NULL, words)
    _step(state, words, factor)


def _feed_text(state: Hashes, array: "pa.Array", missing: NDArray[np.bool_] | None, factor: np.uint64) -> None:
    """Eight bytes a word, as many rounds as the longest cell has words; rows that are through take no part in later rounds."""
    _, offsets_buffer, data = array.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int64, count=len(array) + 1, offset=array.offset * 8)
    if data is None:
        padded = np.zeros(8, dtype=np.uint8)
        starts = np.zeros(len(array), dtype=np.int64)
    else:
        begin, end = int(offsets[0]), int(offsets[-1])
        padded = np.zeros(end - begin + 8, dtype=np.uint8)
        padded[:-8] = np.frombuffer(data, dtype=np.uint8, count=end - begin, offset=begin)
        starts = offsets[:-1] - begin
    lengths = np.diff(offsets)
    if missing is not None:
        lengths = np.where(missing, 0, lengths)
    words = np.ndarray((len(padded) - 7,), dtype="<u8", buffer=padded, strides=(1,))  # the word that starts at each byte
    longest = int(lengths.max(initial=0))
    for taken in range(0, longest, 8):
        rows = np.flatnonzero(lengths > taken) if taken or lengths.min() <= 0 else None
        left = lengths if rows is None else lengths[rows] - taken
        word = words[starts if rows is None else starts[rows] + taken]
        short = left < 8
        if short.any():
            word[short] &= (np.uint64(1) << (left[short].astype(np.uint64) << np.uint64(3))) - np.uint64(1)
        if rows is None:
            _step(state, word, factor)
        else:
            some = state[rows]
            _step(some, word, factor)
            state[rows] = some
    # The length last: "a" + "bc" must differ from "ab" + "c", and a missing cell from an empty one.
    ends = lengths.astype(np.uint64) ^ _MARK
    _step(state, ends if missing is None else np.where(missing, _NULL, ends), factor)


def _feed_sequences(state: Hashes, array: "pa.Array", missing: NDArray[np.bool_] | None, factor: np.uint64) -> None:
    """A digest of each row's numbers; how many steps they are makes a difference, since a column's steps have one width."""
    import pyarrow.compute as pc
    import pyarrow.types as t

    steps = array.flatten()
    flat = steps.flatten() if t.is_nested(steps.type) else steps
    numbers = np.asarray(flat.to_numpy(zero_copy_only=False), np.float32) + np.float32(0.0)
    numbers[np.isnan(numbers)] = np.nan
    width = steps.type.list_size if t.is_fixed_size_list(steps.type) else 1
    ends = np.cumsum(pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)) * width
    starts = np.concatenate([[0], ends[:-1]])
    cells = (blake2b(numbers[a:b].tobytes(), digest_size=8).digest() for a, b in zip(starts.tolist(), ends.tolist(), strict=True))
    words = np.frombuffer(b"".join(cells), "<u8")
    _step(state, words if missing is None else np.where(missing, _NULL, words), factor)


def _feed_vectors(state: Hashes, array: "pa.Array", missing: NDArray[np.bool_] | None, factor: np.uint64) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    width = array.type.list_size
    flat = pc.fill_null(array.values.slice(array.offset * width, len(array) * width).cast(pa.float32()), np.nan)
    cells = flat.to_numpy(zero_copy_only=False).reshape(len(array), width) + np.float32(0.0)
    cells[np.isnan(cells)] = np.nan
    bits = np.zeros((len(array), width + width % 2), dtype=np.uint32)
    bits[:, :width] = cells.view(np.uint32)
    pairs = bits.view(np.uint64)
    for i in range(pairs.shape[1]):
        word = np.ascontiguousarray(pairs[:, i])
        _step(state, word if missing is None else np.where(missing, _NULL, word), factor)
