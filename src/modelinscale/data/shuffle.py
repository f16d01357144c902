"""One uniform shuffle of rows that need not fit into memory: written once more, as runs that are each in the new order, and put together when they are read.

Row i of the table has a random key, a function of seed and i (`core.order`); the order is the order of the keys, so the same whatever the memory. As many
rows as fit into memory are sorted and written one after the other, a run. Beside the runs lies whose turn it is at each place of the order, one byte a row
(``turns``): with it any range of the order is a short piece of each run (`Shuffled`). When runs are more than `MOST_RUNS`, and pieces would be
short, as many are merged into one first, as often as it takes: rows are never too many.
"""

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import files
from modelinscale.core.errors import StoreError
from modelinscale.core.memory import check
from modelinscale.core.order import keys, rows_of
from modelinscale.data.rowfile import RowFile, Rows, RowWriter

MOST_RUNS = 32
"""A block of an epoch, 4,096 rows or half a megabyte, is read in as many pieces. At most 256: a turn is a byte."""
_BLOCK = 4096
"""Turns that are kept together, with where each run is by then."""
_WRITTEN_BYTES = 1 << 20
"""What is put in order and written at a time: it stays in the processor's cache."""
_KEYS, _TURNS = "keys", "turns"
_KEY = np.dtype([("key", "<u8")])


def shuffle(source: RowFile, folder: Path, *, seed: int, memory: int) -> None:
    """Fills an existing, empty folder with what `Shuffled` reads: the rows of ``source`` in the order of a seed.

    Memory: ``memory`` bytes, about. Raises `StoreError` when the disk refuses; what is in the folder is then nothing.
    """
    n, rows = source.n_rows, run_rows(source.row_bytes, memory)
    with files.told(folder, "write"):
        place = folder if -(-n // rows) <= MOST_RUNS else _made(folder / "merged-0")
        _sort(source, place, rows, seed)
        level = 0
        while n > rows * MOST_RUNS:
            level, left = level + 1, place
            place = folder if n <= rows * MOST_RUNS**2 else _made(folder / f"merged-{level}")
            _merge(left, place, rows, seed, memory)
            shutil.rmtree(left)
            rows *= MOST_RUNS
        if n > rows:
            _keep_turns(place, rows, seed)
        shutil.rmtree(place / _KEYS)


def run_rows(row_bytes: float, memory: int) -> int:
    """Rows that are sorted at once within so many bytes, with their keys; where fields are ragged, their ends take the rest."""
    return max(1, int((memory - min(memory // 2, 4 * _WRITTEN_BYTES)) / (1.2 * row_bytes + _KEY.itemsize)))


def disk_bytes(n_rows: int, row_bytes: float, memory: int) -> float:
    """What `shuffle` takes on the disk at its fullest, where a row takes so much: rows, keys and turns, and while runs are merged both of them."""
    times = 1 if n_rows <= MOST_RUNS * run_rows(row_bytes, memory) else 2
    return n_rows * (times * (row_bytes + _KEY.itemsize) + 1.1)


class Shuffled:
    """Rows that `shuffle` wrote, read like a row file in their new order (`RowSource`). Raises `StoreError` when they are not whole."""

    def __init__(self, folder: Path) -> None:
        self._file = RowFile(folder)
        self._turns = RowFile(folder / _TURNS) if (folder / _TURNS).is_dir() else None
        if self._turns and self._turns.n_rows != -(-self.n_rows // _BLOCK):
            raise StoreError(f"{folder}: the order of the rows is not as long as the rows.", fix="Remove the folder; `mis run` makes it again.")

    @property
    def n_rows(self) -> int:
        return self._file.n_rows

    @property
    def row_bytes(self) -> float:
        return self._file.row_bytes

    def read(self, start: int, n: int) -> Rows:
        n = max(0, min(n, self.n_rows - start))
        rows, places = self.unsorted([(start, n)], np.arange(n))
        return rows.take(places)

    def unsorted(self, ranges: Sequence[tuple[int, int]], places: NDArray[np.int64]) -> tuple[Rows, NDArray[np.int64]]:
        if self._turns is None:
            return self._file.unsorted(ranges, places)
        pieces: list[tuple[int, int]] = []
        near: list[tuple[int, int]] = []
        found: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]  # of each row of a range, where in the pieces it is
        ranges = [(first, n) for first, n in ranges if n]
        blocks = [(first // _BLOCK, (first + n - 1) // _BLOCK - first // _BLOCK + 1) for first, n in ranges]
        self._turns.ask(blocks)
        kept, at, before = self._turns.gather(blocks).fixed, 0, 0
        for (first, n), (block, n_blocks) in zip(ranges, blocks, strict=True):
            turns, skip = kept["run"][at : at + n_blocks].reshape(-1), first - block * _BLOCK
            mine, begin = turns[skip : skip + n], kept["at"][at]
            near += _parts(begin, np.bincount(turns, minlength=len(begin)))
            pieces += _parts(begin + np.bincount(turns[:skip], minlength=len(begin)), np.bincount(mine, minlength=len(begin)))
            found.append(_places(mine) + before)
            at, before = at + n_blocks, before + n
        self._file.ask(near)  # whole blocks: an epoch wants the other half of one next, and pieces are short
        return self._file.gather(pieces), np.concatenate(found)[places]

    def close(self) -> None:
        """Lets go of the files."""
        self._file.close()
        if self._turns:
            self._turns.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _sort(source: RowFile, place: Path, n_rows: int, seed: int) -> None:
    """Writes runs of so many rows of the table, and their keys."""
    with (
        RowWriter(place, source.dtype, source.ragged) as out,
        RowWriter(_made(place / _KEYS), _KEY) as kept,
        ThreadPoolExecutor(1, thread_name_prefix="shuffle") as pool,
    ):
        for first in range(0, source.n_rows, n_rows):
            _sort_run(source, first, n_rows, seed, out, kept, pool)


def _sort_run(source: RowFile, first: int, n_rows: int, seed: int, out: RowWriter, kept: RowWriter, pool: ThreadPoolExecutor) -> None:
    rows = source.read(first, n_rows)
    made = keys(seed, first, len(rows))
    made.sort()
    kept.append(Rows(made.view(_KEY)))
    order = rows_of(seed, made)
    order -= first
    step = max(1, int(_WRITTEN_BYTES / max(1.0, source.row_bytes)))
    writing: Future[None] | None = None
    for start in range(0, len(order), step):
        check("shuffling encoded rows")
        part = rows.take(order[start : start + step])
        if writing:
            writing.result()
        writing = pool.submit(out.append, part)
    if writing:
        writing.result()


def _merge(left: Path, place: Path, n_rows: int, seed: int, memory: int) -> None:
    """Writes runs of `MOST_RUNS` runs of so many rows, and their keys."""
    with RowFile(left) as file, RowFile(left / _KEYS) as keyed, RowWriter(place, file.dtype, file.ragged) as out, RowWriter(_made(place / _KEYS), _KEY) as kept:
        size, step = n_rows * MOST_RUNS, max(run_rows(file.row_bytes, memory) // 3, int(_WRITTEN_BYTES / file.row_bytes))
        for first in range(0, file.n_rows, size):
            runs = [(start, min(start + n_rows, file.n_rows)) for start in range(first, min(first + size, file.n_rows), n_rows)]
            for pieces, made in _pieces(keyed, runs, step):
                check("shuffling encoded rows")
                kept.append(Rows(made.view(_KEY)))
                out.append(file.gather(pieces).take(_places(((rows_of(seed, made) - first) // n_rows).astype(np.uint8))))


def _keep_turns(place: Path, n_rows: int, seed: int) -> None:
    """Writes for each row of the order which run it is in, and for each block where in the runs its rows begin."""
    with RowFile(place / _KEYS) as keyed:
        at = np.arange(0, keyed.n_rows, n_rows)  # (R,)
        runs = [(start, min(start + n_rows, keyed.n_rows)) for start in at.tolist()]
        waiting = np.zeros(0, np.uint8)
        with RowWriter(_made(place / _TURNS), np.dtype([("at", "<i8", (len(at),)), ("run", "u1", (_BLOCK,))])) as out:
            for _, made in _pieces(keyed, runs, 1 << 20):
                check("shuffling encoded rows")
                waiting = np.concatenate([waiting, (rows_of(seed, made) // n_rows).astype(np.uint8)])
                n_whole = len(waiting) // _BLOCK
                at = _append_turns(out, waiting[: n_whole * _BLOCK].reshape(n_whole, _BLOCK), at)
                waiting = waiting[n_whole * _BLOCK :]
            if len(waiting):
                _append_turns(out, np.pad(waiting, (0, _BLOCK - len(waiting)))[None], at)


def _append_turns(out: RowWriter, turns: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Adds blocks of turns (M, block), the runs being ``at`` these rows; gives where they are afterwards."""
    counts = np.stack([at, *(np.bincount(one, minlength=len(at)) for one in turns)])
    ends = np.cumsum(counts, axis=0)  # (M + 1, R)
    records = np.empty(len(turns), out.dtype)
    records["at"], records["run"] = ends[:-1], turns
    out.append(Rows(records))
    last: NDArray[np.int64] = ends[-1]
    return last


def _pieces(keyed: RowFile, runs: Sequence[tuple[int, int]], n_rows: int) -> Iterator[tuple[list[tuple[int, int]], NDArray[np.uint64]]]:
    """Some rows of each run (first row, end) at a time, up to ``n_rows`` in all, that come before all others: where they lie, and their keys in order."""
    size = max(1, n_rows // len(runs))
    held = [np.zeros(0, np.uint64)] * len(runs)
    firsts = [first for first, _ in runs]  # of what is held
    while True:
        ends = [first + len(one) for first, one in zip(firsts, held, strict=True)]
        for i, (_, last) in enumerate(runs):
            n = min(size - len(held[i]), last - ends[i])
            if n > 0:
                held[i] = np.concatenate([held[i], keyed.read(ends[i], n).fixed["key"]])
                ends[i] += n
        # Of a run that goes on, keys after the last one held are larger; none is known about what lies beyond it.
        known = min((one[-1] for one, end, (_, last) in zip(held, ends, runs, strict=True) if end < last), default=np.uint64(2**64 - 1))
        sizes = [int(np.searchsorted(one, known, "right")) for one in held]
        if not any(sizes):
            return
        found = np.concatenate([one[:n] for one, n in zip(held, sizes, strict=True)])
        found.sort()
        yield [(first, n) for first, n in zip(firsts, sizes, strict=True)], found
        held = [one[n:] for one, n in zip(held, sizes, strict=True)]
        firsts = [first + n for first, n in zip(firsts, sizes, strict=True)]


def _places(turns: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where each row is among rows of the same order that were sorted by run."""
    found = np.empty(len(turns), np.int64)
    found[np.argsort(turns, kind="stable")] = np.arange(len(turns))
    return found


def _parts(firsts: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[tuple[int, int]]:
    return [(first, n) for first, n in zip(firsts.tolist(), sizes.tolist(), strict=True) if n]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


__all__ = ["MOST_RUNS", "Shuffled", "disk_bytes", "run_rows", "shuffle"]
