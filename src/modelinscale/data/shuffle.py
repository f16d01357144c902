"""One uniform shuffle of rows that need not fit into memory: scattered into buckets, each bucket then put in order and written out.

Row i of the table has a random key, a function of seed and i (`core.order`); the order is the order of the keys. So it is the same whatever blocks rows come
in, in whatever order, and however many buckets the memory allows (a bucket is a range of keys).
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import files
from modelinscale.core.errors import StoreError
from modelinscale.core.order import keys as keys_of
from modelinscale.data.rowfile import RowFile, Rows, RowWriter, joined

_KEY = "_key"
MOST_BUCKETS = 512
"""Each is an open file or more."""
_BUCKET_BYTES, _FEW = 24 << 20, 128
"""Buckets are no larger, up to so many of them: what is put in order then stays in the processor's cache, and few files are open."""


class Shuffler:
    """Takes rows in blocks and makes a row file of them, shuffled, in an existing, empty folder. Use it as a context; an error in it leaves no row file.

    Memory: ``memory`` bytes, about: half for rows that wait to be written to their buckets or, later, half for a bucket and its rows in order.
    """

    def __init__(self, folder: Path, dtype: "np.dtype[Any]", ragged: Sequence[str] = (), *, seed: int, size_bytes: int, memory: int) -> None:
        """``size_bytes``: about how much there is to come. Raises `StoreError` when buckets would be too many for the memory."""
        self.folder, self._dtype, self._ragged = folder, dtype, tuple(ragged)
        self._seed = seed
        self._n = max(1, -(-4 * size_bytes // memory), min(_FEW, -(-size_bytes // _BUCKET_BYTES)))
        if self._n > MOST_BUCKETS:
            raise StoreError(
                f"shuffling {size_bytes / 2**30:.1f} GiB of rows within {memory / 2**20:.0f} MiB takes {self._n} buckets, and {MOST_BUCKETS} are possible.",
                fix="Raise `compute.memory`.",
            )
        self._keyed = np.dtype([*((name, dtype.fields[name][0]) for name in dtype.names or () if dtype.fields), (_KEY, "<u8")])
        with files.told(folder, "write"):
            self._side = Path(mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
        self._buckets: list[RowWriter] = []
        self._waiting: list[list[Rows]] = [[] for _ in range(self._n)]
        self._n_waiting, self._most_waiting = 0, memory // 2

    def append(self, rows: Rows, first: int) -> None:
        """Adds rows ``first``, ``first + 1``, … of the table. Blocks may come in any order. Raises `StoreError` when the disk refuses."""
        keys = keys_of(self._seed, first, len(rows))
        records = np.empty(len(rows), self._keyed)
        if rows.fixed.dtype == self._dtype:
            _copy(rows.fixed, records, self._dtype.itemsize)
        else:
            for name in self._dtype.names or ():
                records[name] = rows.fixed[name]
        records[_KEY] = keys
        whole = Rows(records, rows.ragged)
        if self._n == 1:
            self._waiting[0].append(whole)
            return
        bucket = (keys >> np.uint64(32)) * np.uint64(self._n) >> np.uint64(32)
        order = np.argsort(bucket, kind="stable")
        ends = np.cumsum(np.bincount(bucket.astype(np.int64), minlength=self._n))
        whole = whole.take(order)
        for i, (start, stop) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
            if stop > start:
                self._waiting[i].append(whole.slice(start, stop))
        self._n_waiting += whole.nbytes
        if self._n_waiting > self._most_waiting:
            self._flush()

    def _flush(self) -> None:
        if not self._buckets:
            for i in range(self._n):
                (self._side / str(i)).mkdir()
                self._buckets.append(RowWriter(self._side / str(i), self._keyed, self._ragged))
        for bucket, waiting in zip(self._buckets, self._waiting, strict=True):
            for part in waiting:
                bucket.append(part)
            waiting.clear()
        self._n_waiting = 0

    def close(self) -> None:
        """Writes everything in its order."""
        with RowWriter(self.folder, self._dtype, self._ragged) as out:
            if self._buckets:
                self._flush()
                for i, bucket in enumerate(self._buckets):
                    bucket.close()
                    with RowFile(self._side / str(i)) as kept:
                        self._write(kept.read(0, kept.n_rows), out)
                    shutil.rmtree(self._side / str(i))
            else:
                for waiting in self._waiting:
                    if waiting:
                        self._write(joined(waiting), out)
                        waiting.clear()

    def _write(self, rows: Rows, out: RowWriter) -> None:
        order = np.argsort(rows.fixed[_KEY])  # keys differ: the mixing is one to one
        step = 1 << 15
        for start in range(0, len(order), step):
            part = rows.take(order[start : start + step])
            plain = np.empty(len(part), self._dtype)
            _copy(part.fixed, plain, self._dtype.itemsize)
            out.append(Rows(plain, part.ragged))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self.close()
        finally:
            for bucket in self._buckets:
                bucket.abandon()
            shutil.rmtree(self._side, ignore_errors=True)


def _copy(of: NDArray[Any], to: NDArray[Any], n_bytes: int) -> None:
    """The first ``n_bytes`` of each record: fields one after the other, as in both."""
    if len(of):
        left, right = (np.ascontiguousarray(one).view(np.uint8).reshape(len(one), -1) for one in (of, to))
        right[:, :n_bytes] = left[:, :n_bytes]
