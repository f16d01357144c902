"""Training batches from disk: a new order every epoch, the same for a seed, shared by any number of workers, to be entered again at any row.

The order (`core.order`) is a function of (rows, seed, epoch), never of who reads: worker r of w reads the lanes ``r, r + w, …`` and gives its share of every
batch. So where a training stands is one number, the rows of the epoch that were used, and it can go on from there with any other number of workers; no row
is left out and none comes twice.

From a file that was shuffled once (`data.shuffle`) batches are as good as drawn at random; from rows in another order they are near that, since each batch
takes from 64 places.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import UsageError
from modelinscale.core.order import CHUNK_BYTES, LANES, WINDOW_ROWS, Order
from modelinscale.core.seeds import derive
from modelinscale.data.rowfile import Rows, RowSource, joined

_AHEAD = 12
"""A second chunk in memory, for no wait, may be no more than so small a part of what there is for rows."""


class Batch(NamedTuple):
    """One worker's share of a batch."""

    rows: Rows
    n_all: int
    """Rows of the batch over all workers: the mean of a loss is weighted by ``len(rows) / n_all``."""
    after: int
    """Rows of the epoch used with this batch, by all workers: where to go on."""


@dataclass(frozen=True)
class Loader:
    """Deals the rows of a source in batches. Memory: a chunk of at most `CHUNK_BYTES` (two where ``memory`` allows) and a batch, however large the source."""

    source: RowSource
    seed: int
    batch_rows: int
    """Rows of a batch over all workers together."""
    rank: int = 0
    world: int = 1
    row_bytes: float | None = None
    """What decides how many rows are mixed at once: sources deal alike only where it is the same. None: what the source says."""
    memory: int | None = None
    """Bytes there are for rows (None: no limit). Where they are few no chunk is read while the one before is used; the batches are the same."""

    def __post_init__(self) -> None:
        if self.batch_rows < 1:
            raise UsageError(f"a batch needs at least one row, not {self.batch_rows}.")
        if not 0 <= self.rank < self.world <= LANES:
            raise UsageError(f"worker {self.rank} of {self.world}: workers count from 0, and at most {LANES} can share an epoch.")

    def n_batches(self, start: int = 0) -> int:
        """Batches of an epoch from row ``start`` on, the same for every worker."""
        return -(-(self.source.n_rows - start) // self.batch_rows)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches after the first ``start`` rows of an epoch. The last batch may be smaller; a worker's share may be empty.

        Raises `UsageError` for a start beyond the epoch.
        """
        n = self.source.n_rows
        if not 0 <= start <= n:
            raise UsageError(f"row {start} is not in an epoch of {n} rows.", fix="Does the checkpoint belong to these rows?")
        order = Order(n, self.source.row_bytes if self.row_bytes is None else self.row_bytes, derive(self.seed, "epoch", epoch))
        mine = order.share(self.rank, self.world)
        chunks = self._chunks(order, mine, start)
        rows, dealt = self.source.read(0, 0), np.zeros(0, np.int64)  # what is left of the chunk in use: its rows as read, and which come next
        for first in range(start, n, self.batch_rows):
            last = min(first + self.batch_rows, n)
            wanted = order.count(last, mine) - order.count(first, mine)
            parts: list[Rows] = []
            while wanted:
                if not len(dealt):
                    del rows  # before the next is taken or read
                    rows, dealt = next(chunks)
                parts.append(rows.take(dealt[:wanted]))
                wanted, dealt = wanted - len(parts[-1]), dealt[wanted:]
            yield Batch(joined(parts) if parts else self.source.read(0, 0), last - first, last)

    def _chunks(self, order: Order, mine: NDArray[np.int64], start: int) -> Iterator[tuple[Rows, NDArray[np.int64]]]:
        """This worker's rows from ``start`` on, a chunk at a time: as they lie in the source, and the places in them as the epoch deals them."""
        first = start // order.chunk_rows
        skip = order.count(start, mine) - order.count(first * order.chunk_rows, mine)
        numbers = range(first, order.n_chunks)
        waits = self.memory is not None and self.memory < _AHEAD * CHUNK_BYTES
        for rows, dealt in (_read(self.source, order, number, mine) for number in numbers) if waits else self._ahead(order, numbers, mine):
            yield rows, dealt[skip:]
            del rows
            skip = 0

    def _ahead(self, order: Order, numbers: range, mine: NDArray[np.int64]) -> Iterator[tuple[Rows, NDArray[np.int64]]]:
        """The chunks with these numbers, each read in a thread while the one before is used."""
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as pool:
            coming: deque[Future[tuple[Rows, NDArray[np.int64]]]] = deque()
            for number in numbers:
                coming.append(pool.submit(_read, self.source, order, number, mine))
                if len(coming) > 1:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()


def _read(source: RowSource, order: Order, number: int, lanes: NDArray[np.int64]) -> tuple[Rows, NDArray[np.int64]]:
    """The rows of these lanes in the window with this number as they lie in the source, and the places in them as the epoch deals them."""
    ranges, dealt = order.chunk(number, lanes)
    return source.unsorted(ranges, dealt)


__all__ = ["CHUNK_BYTES", "LANES", "WINDOW_ROWS", "Batch", "Loader"]
