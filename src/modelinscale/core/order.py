"""The order in which an epoch deals rows: a function of how many there are, a seed and the epoch, the same wherever the rows lie.

Twice mixed. Once for a training, uniformly (`shuffled`): a file of encoded rows is written anew for that order (`data.shuffle`), rows in memory are looked up
through it. And for each epoch: blocks of rows are put in a new order (a tape), the tape is cut into up to 64 lanes, and the rows of an epoch are dealt from the
lanes in turn: row q of the epoch is row ``q // L`` of lane ``q % L``. Within a lane rows are mixed over a window. So an epoch reads a file in long pieces.

N rows. Everything is counter-based and ours: no library's generator, whose stream may change.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.seeds import derive, mixed, unmixed

LANES = 64
"""The most workers that can share an epoch."""
WINDOW_ROWS = 4096
"""Rows mixed within a lane, and rows of a block, at most; small sets have smaller ones."""
CHUNK_BYTES = 32 << 20
"""What all lanes' windows may take together."""
_CACHED = 1 << 14
"""Keys made at a time: what lies between stays in the processor's cache."""


def keys(seed: int, first: int, n_rows: int) -> NDArray[np.uint64]:
    """(n_rows,): a random key for each of the rows from ``first`` on; no two rows of a table have the same. Rows in the order of their keys are shuffled."""
    made, chance = np.arange(first, first + n_rows, dtype=np.uint64), np.uint64(derive(seed, "shuffle"))
    for start in range(0, n_rows, _CACHED):
        made[start : start + _CACHED] = mixed(chance, made[start : start + _CACHED])
    return made


def rows_of(seed: int, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(n,): the rows that have these keys, in the same memory: the keys are gone. To sort keys and turn them back is five times as fast as `np.argsort`."""
    chance = np.uint64(derive(seed, "shuffle"))
    for start in range(0, len(keys), _CACHED):
        keys[start : start + _CACHED] = unmixed(chance, keys[start : start + _CACHED])
    return keys.view(np.int64)


def shuffled(n_rows: int, seed: int) -> NDArray[np.int64]:
    """(N,): which row lies at each place once rows are in the order of their keys."""
    found = keys(seed, 0, n_rows)
    found.sort()
    return rows_of(seed, found)


def batches(n_rows: int, row_bytes: float, seed: int, epoch: int, batch_rows: int, start: int = 0) -> Iterator[NDArray[np.int64]]:
    """The places of the rows of an epoch, a batch at a time from its row ``start`` on: what one worker's `data.loader.Loader` reads, for rows in memory."""
    order = Order(n_rows, row_bytes, derive(seed, "epoch", epoch))
    lanes = order.share(0, 1)
    waiting = np.zeros(0, np.int64)
    skip = start % order.chunk_rows
    for number in range(start // order.chunk_rows, order.n_chunks):
        ranges, dealt = order.chunk(number, lanes)
        places = np.concatenate([np.arange(first, first + n) for first, n in ranges])[dealt]
        waiting, skip = np.concatenate([waiting, places[skip:]]), 0
        whole = len(waiting) // batch_rows * batch_rows
        for at in range(0, whole, batch_rows):
            yield waiting[at : at + batch_rows]
        waiting = waiting[whole:]
    if len(waiting):
        yield waiting


def shared(n_rows: int, first: int, n: int, rank: int, world: int) -> slice | NDArray[np.int64]:
    """Which of ``n`` rows of an epoch from its row ``first`` on are worker ``rank``'s of ``world``: those of its lanes (`Order.share`)."""
    if world == 1:
        return slice(None)
    return np.flatnonzero(np.arange(first, first + n) % max(1, min(LANES, n_rows)) % world == rank)


class Order:
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

    def chunk(self, number: int, lanes: NDArray[np.int64]) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
        """The rows of these lanes in the window with this number: ranges (first row, how many), and the places in all of them as the epoch deals them."""
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
            return [], np.zeros(0, np.int64)
        whole = all(len(p) == len(places[0]) for p in places)
        return ranges, np.stack(places, axis=1).ravel() if whole else _dealt(places)

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
