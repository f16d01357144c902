"""Training batches from disk: a new order every epoch, the same for a seed, shared by any number of workers, to be entered again at any row.

How. Blocks of rows are put in a new order (a tape), the tape is cut into up to 64 lanes, and the rows of an epoch are dealt from the lanes in turn: row q of
the epoch is row ``q // L`` of lane ``q % L``. Within a lane rows are mixed over a window. All of it is a function of (rows, seed, epoch), never of who
reads: worker r of w reads the lanes ``r, r + w, …`` and gives its share of every batch. So where a training stands is one number, the rows of the epoch
that were used, and it can go on from there with any other number of workers; no row is left out and none comes twice.

From a file that was shuffled once (`data.shuffle`) batches are as good as drawn at random; from rows in another order they are near that, since each batch
takes from 64 places.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import UsageError
from modelinscale.core.seeds import derive, mixed
from modelinscale.data.rowfile import Rows, RowSource, joined

LANES = 64
"""The most workers that can share an epoch."""
WINDOW_ROWS = 4096
"""Rows mixed within a lane, and rows of a block, at most; small sets have smaller ones."""
CHUNK_BYTES = 32 << 20
"""What all lanes' windows may take together."""


class Batch(NamedTuple):
    """One worker's share of a batch."""

    rows: Rows
    n_all: int
    """Rows of the batch over all workers: the mean of a loss is weighted by ``len(rows) / n_all``."""
    after: int
    """Rows of the epoch used with this batch, by all workers: where to go on."""


@dataclass(frozen=True)
class Loader:
    """Deals the rows of a source in batches. Memory: two chunks of at most `CHUNK_BYTES` and a batch, however large the source."""

    source: RowSource
    seed: int
    batch_rows: int
    """Rows of a batch over all workers together."""
    rank: int = 0
    world: int = 1

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
        order = _Order(n, self.source.row_bytes, derive(self.seed, "epoch", epoch))
        mine = order.share(self.rank, self.world)
        chunks = self._chunks(order, mine, start)
        held: list[Rows] = []
        n_held = 0
        for first in range(start, n, self.batch_rows):
            last = min(first + self.batch_rows, n)
            wanted = order.count(last, mine) - order.count(first, mine)
            while n_held < wanted:
                held.append(next(chunks))
                n_held += len(held[-1])
            yield Batch(_taken(held, wanted) if wanted else self.source.read(0, 0), last - first, last)
            n_held -= wanted

    def _chunks(self, order: "_Order", mine: NDArray[np.int64], start: int) -> Iterator[Rows]:
        """This worker's rows from ``start`` on, in order, a chunk read while the one before is used."""
        first = start // order.chunk_rows
        skip = order.count(start, mine) - order.count(first * order.chunk_rows, mine)
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as pool:
            ahead: Future[Rows] | None = None
            for number in range(first, order.n_chunks):
                rows = (ahead or pool.submit(order.chunk, self.source, number, mine)).result()
                ahead = pool.submit(order.chunk, self.source, number + 1, mine) if number + 1 < order.n_chunks else None
                yield rows.slice(skip, len(rows)) if skip else rows
                skip = 0


def _taken(held: list[Rows], n: int) -> Rows:
    """The first ``n`` rows, at least one, out of ``held``, which keeps the rest."""
    parts: list[Rows] = []
    while held and n >= len(held[0]):
        parts.append(held.pop(0))
        n -= len(parts[-1])
    if n:
        parts.append(held[0].slice(0, n))
        held[0] = held[0].slice(n, len(held[0]))
    return joined(parts)


class _Order:
    """The order of one epoch: N rows, L lanes, windows of W rows, blocks of W rows on the tape."""

    def __init__(self, n_rows: int, row_bytes: float, seed: int) -> None:
        self.n_rows = n_rows
        self.n_lanes = max(1, min(LANES, n_rows))
        most = int(CHUNK_BYTES / max(row_bytes, 1.0) / self.n_lanes)
        self.window = max(1, min(WINDOW_ROWS, most, n_rows // (self.n_lanes * 4)))
        self.chunk_rows = self.window * self.n_lanes
        self.n_chunks = -(-n_rows // self.chunk_rows)
        self._seed = np.uint64(seed)
        n_blocks = -(-n_rows // self.window)
        self._blocks = np.argsort(mixed(self._seed, np.arange(n_blocks, dtype=np.uint64)), kind="stable")  # tape place → block
        short = n_rows - (n_blocks - 1) * self.window if n_blocks else 0
        self._short_at = int(np.flatnonzero(self._blocks == n_blocks - 1)[0]) if n_blocks else 0
        self._missing = self.window - short

    def share(self, rank: int, world: int) -> NDArray[np.int64]:
        """The lanes of a worker, ascending."""
        return np.arange(rank, self.n_lanes, world)

    def count(self, q: int, lanes: NDArray[np.int64]) -> int:
        """How many of the first ``q`` rows of the epoch belong to these lanes."""
        whole, rest = divmod(q, self.n_lanes)
        return whole * len(lanes) + int(np.searchsorted(lanes, rest))

    def chunk(self, source: RowSource, number: int, lanes: NDArray[np.int64]) -> Rows:
        """The rows of these lanes in the window with this number, as the epoch deals them."""
        ranges: list[tuple[int, int]] = []
        places: list[NDArray[np.int64]] = []  # of each lane, where in what is read its rows are, in their new order
        n_before = 0
        for lane in lanes.tolist():
            start = number * self.window
            n = min(self.window, self._length(lane) - start)
            if n <= 0:
                continue
            ranges += self._ranges(self._start(lane) + start, n)
            places.append(self._mix(lane, number, n) + n_before)
            n_before += n
        if not places:
            return source.read(0, 0)
        whole = all(len(p) == len(places[0]) for p in places)
        dealt = np.stack(places, axis=1).ravel() if whole else _dealt(places)
        return source.gather(ranges).take(dealt)

    def _length(self, lane: int) -> int:
        return self.n_rows // self.n_lanes + (lane < self.n_rows % self.n_lanes)

    def _start(self, lane: int) -> int:
        """Where a lane begins on the tape."""
        return lane * (self.n_rows // self.n_lanes) + min(lane, self.n_rows % self.n_lanes)

    def _ranges(self, at: int, n: int) -> Iterator[tuple[int, int]]:
        """Rows of the source that lie on the tape from ``at`` on, as (first row, how many)."""
        while n:
            # One block on the tape, the last of the source, may be short: what comes after it lies that much nearer to the front.
            block_at = at // self.window
            if block_at >= self._short_at and self._missing:
                block_at = self._short_at if at < (self._short_at + 1) * self.window - self._missing else (at + self._missing) // self.window
            begin = block_at * self.window - (self._missing if block_at > self._short_at else 0)
            length = self.window - (self._missing if block_at == self._short_at else 0)
            size = min(n, begin + length - at)
            yield int(self._blocks[block_at]) * self.window + at - begin, size
            at, n = at + size, n - size

    def _mix(self, lane: int, number: int, n: int) -> NDArray[np.int64]:
        """The new order of a window's rows."""
        return _permuted(n, mixed(self._seed ^ np.uint64(0x9E3779B97F4A7C15), _ROUNDS + np.uint64((number * LANES + lane) * len(_ROUNDS))))


_ROUNDS = np.arange(8, dtype=np.uint64)


def _permuted(n: int, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """A permutation of 0 to n - 1 from eight random words: four rounds that are one to one below the next power of two; what is not below n is left out."""
    bits = max(1, (n - 1).bit_length())
    mask, shift = np.uint32((1 << bits) - 1), np.uint32((bits + 1) // 2)
    words = keys.astype(np.uint32)
    x = np.arange(1 << bits, dtype=np.uint32)
    for factor, offset in zip(words[:4] | np.uint32(1), words[4:], strict=True):
        x *= factor
        x += offset
        x &= mask
        x ^= x >> shift
    return (x if len(x) == n else x[x < n]).astype(np.int64)


def _dealt(places: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """One of each lane in turn, the later lanes being up to one row shorter."""
    shortest = min(len(p) for p in places)
    rest = [p[shortest] for p in places if len(p) > shortest]
    return np.concatenate([np.stack([p[:shortest] for p in places], axis=1).ravel(), np.array(rest, np.int64)])
