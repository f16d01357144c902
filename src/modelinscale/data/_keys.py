"""Which keys a table has: exact, on disk, in bounded memory. Derived from the table, so a damaged or missing index is simply built again.

Keys are 64-bit words (whole numbers, moments and flags as themselves) or pairs of them (128-bit hashes of anything else). Each commit adds one sorted
run; eight runs of a size are merged into one, so a table of n commits has about 7 log8(n) runs. A query is sorted too, and walks each run block by
block; runs whose range does not meet it (ids that count up) cost nothing.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import files
from modelinscale.core.schema import Column
from modelinscale.data import _hash
from modelinscale.data._hash import Hashes

if TYPE_CHECKING:
    import pyarrow as pa

    from modelinscale.data.lake import Table

FORMAT = 1
_FAN = 8
_BLOCK = 1 << 18  # keys read at a time: 2 MiB
_FILTER_FROM = 1 << 21  # keys in the index, and keys asked for: with fewer the filter costs more than it saves
_FILTER_MOST = 1 << 26  # keys for which there are 8 bits; with more of them it rules out fewer, and memory stays at 64 MiB
_NO_ROWS = np.zeros(0, dtype=np.int64)
_SPARSE = 64  # a query with fewer keys than a block's 64th looks them up one by one instead of reading the block


class Keys(NamedTuple):
    """Keys of N rows, ascending by their first words."""

    one: Hashes  # (N,) the key itself, or the first half of its hash
    two: Hashes | None  # (N,) the second half; None: ``one`` is exact
    rows: "NDArray[np.int64]"  # (N,) the row each came from; equal first words in no order

    def where(self, places: "NDArray[np.bool_] | NDArray[np.int64] | slice") -> "Keys":
        """Some of them, by place."""
        return Keys(self.one[places], None if self.two is None else self.two[places], self.rows[places])


def ordered(one: Hashes, two: Hashes | None) -> Keys:
    """Keys of rows 0 to N - 1, sorted."""
    rows = np.arange(len(one))
    if len(one) < 2 or bool((one[1:] >= one[:-1]).all()):
        return Keys(one, two, rows)
    rows = np.argsort(one)
    return Keys(one[rows], None if two is None else two[rows], rows)


def keys_of(table: "pa.Table", columns: Sequence[Column], *, nulls: bool = False) -> Keys:
    """The keys that these columns make; no cell of them is missing, unless ``nulls`` says that missing equals missing."""
    arrays = [table.column(c.name) for c in columns]
    if _exact(columns) and not nulls:
        import pyarrow as pa

        array = arrays[0] if columns[0].type != "bool" else arrays[0].cast(pa.int8())
        words = array.cast(pa.int64()).to_numpy().view(np.uint64)
        return ordered(words ^ np.uint64(1 << 63), None)  # the sign bit turned, so that the order stays
    return ordered(*_hash.hash_pairs(arrays, table.num_rows))


def _exact(columns: Sequence[Column]) -> bool:
    """Whether the key is a 64-bit word itself."""
    return len(columns) == 1 and columns[0].type in ("int", "time", "bool")


def repeated(keys: Keys) -> NDArray[np.bool_]:
    """Which keys are also an earlier row's among them, (N,), by place."""
    found = np.zeros(len(keys.one), dtype=np.bool_)
    near = np.flatnonzero(keys.one[1:] == keys.one[:-1])
    if not len(near):
        return found
    # Only keys in groups of equal first words are looked at closely: usually few.
    inside = np.unique(np.concatenate([near, near + 1]))
    close = keys.where(inside)
    two = np.zeros(len(inside), np.uint64) if close.two is None else close.two
    by = np.lexsort((close.rows, two, close.one))
    same = (close.one[by][1:] == close.one[by][:-1]) & (two[by][1:] == two[by][:-1])
    found[inside[by][1:][same]] = True
    return found


@dataclass(frozen=True)
class _Run:
    """Sorted keys in one file: all first words, then all second words."""

    path: Path
    n: int
    level: int
    low: int
    high: int
    pairs: bool
    fences: Hashes
    """The first key of each block."""

    def find(self, wanted: Keys) -> NDArray[np.bool_]:
        """Which of the wanted keys are here."""
        found = np.zeros(len(wanted.one), dtype=np.bool_)
        if not self.meets(wanted):
            return found
        # A key lies in the block whose first key is the last one not above it, or at the end of the block before, when a word fills both.
        starts = np.searchsorted(wanted.one, self.fences, side="left")
        ends = np.append(np.searchsorted(wanted.one, self.fences[1:], side="right"), len(wanted.one))
        for i in np.flatnonzero(ends > starts):
            a, b = int(starts[i]), int(ends[i])
            found[a:b] |= _among(self._block(int(i), b - a), wanted.where(slice(a, b)))
        return found

    def meets(self, wanted: Keys) -> bool:
        """Whether the ranges overlap."""
        return bool(len(wanted.one)) and int(wanted.one[-1]) >= self.low and int(wanted.one[0]) <= self.high

    def blocks(self) -> Iterator[Keys]:
        """All keys, a block at a time."""
        return (self.read(start, min(_BLOCK, self.n - start)) for start in range(0, self.n, _BLOCK))

    def _block(self, i: int, n_wanted: int) -> Keys:
        start, n = i * _BLOCK, min(_BLOCK, self.n - i * _BLOCK)
        if n_wanted * _SPARSE >= n:
            return self.read(start, n)
        one: Hashes = np.memmap(self.path, dtype=np.uint64, mode="r", offset=start * 8, shape=(n,))
        two = np.memmap(self.path, dtype=np.uint64, mode="r", offset=(self.n + start) * 8, shape=(n,)) if self.pairs else None
        return Keys(one, two, _NO_ROWS)

    def read(self, start: int, n: int) -> Keys:
        """The keys at n places from ``start``."""
        with self.path.open("rb") as file:
            one = np.frombuffer(os.pread(file.fileno(), n * 8, start * 8), dtype=np.uint64)
            two = np.frombuffer(os.pread(file.fileno(), n * 8, (self.n + start) * 8), dtype=np.uint64) if self.pairs else None
        return Keys(one, two, _NO_ROWS)


class _Filter:
    """Rules out most keys that are not in the index, without a look at the disk; never one that is.

    A table of 64-bit words, one for each key by the first bits of its hash, and in it three bits by the others (a blocked Bloom filter, Putze et al. 2007).
    """

    def __init__(self, n_keys: int) -> None:
        bits = min(max(n_keys, 1), _FILTER_MOST).bit_length() - 3  # 8 to 16 bits for each key
        self.n_fit = 1 << (bits + 3)
        self._shift = np.uint64(64 - bits)
        self._words = np.zeros(1 << bits, dtype=np.uint64)

    def add(self, keys: Keys) -> None:
        words, bits = self._place(keys)
        np.bitwise_or.at(self._words, words, bits)

    def may_have(self, keys: Keys) -> NDArray[np.bool_]:
        words, bits = self._place(keys)
        return (self._words[words] & bits) == bits  # type: ignore[no-any-return]

    def _place(self, keys: Keys) -> tuple[NDArray[np.int64], Hashes]:
        # Halves of hashes are spread already and sorted, so the table is walked from front to back; exact keys are not.
        spread = keys.one if keys.two is not None else _hash.finish(keys.one.copy())
        rest = keys.two if keys.two is not None else spread * np.uint64(0x9E3779B97F4A7C15)
        six, one = np.uint64(63), np.uint64(1)
        bits = (one << (rest & six)) | (one << ((rest >> np.uint64(8)) & six)) | (one << ((rest >> np.uint64(16)) & six))
        return (spread >> self._shift).astype(np.int64), bits


class KeyIndex:
    """The keys of every row of a table, for one set of columns."""

    def __init__(self, folder: Path, columns: Sequence[Column], *, nulls: bool = False) -> None:
        """Use `open_index`."""
        self.folder, self.columns, self.nulls = folder, tuple(columns), nulls
        self._pairs = nulls or not _exact(self.columns)
        self._runs: list[_Run] = []
        self._claimed: list[Keys] = []
        self._filter: _Filter | None = None
        self._asked = 0
        self.seq = 0
        """The number of the newest commit whose keys are in it."""

        self.n_rows = 0
        """Rows of the table as of then; those without a key (missing) count too."""

    def find(self, keys: Keys) -> NDArray[np.bool_]:
        """Which keys the table has already, or are claimed, (N,), by place."""
        found = np.zeros(len(keys.one), dtype=np.bool_)
        held: list[_Run | Keys] = [r for r in self._runs if r.meets(keys)]
        held += [c for c in self._claimed if len(c.one) and len(keys.one) and c.one[-1] >= keys.one[0] and c.one[0] <= keys.one[-1]]
        if not held:
            return found
        self._asked += len(keys.one)
        places = self._may_be_here(keys)
        wanted = keys if places is None else keys.where(places)
        if len(wanted.one):
            hits = np.logical_or.reduce([one.find(wanted) if isinstance(one, _Run) else _among(one, wanted) for one in held])
            found[slice(None) if places is None else places] = hits
        return found

    def _may_be_here(self, keys: Keys) -> NDArray[np.int64] | None:
        """Places of the keys that the filter does not rule out; None: there is no filter (a short collect does without)."""
        n = sum(run.n for run in self._runs)
        if self._asked < _FILTER_FROM or n < _FILTER_FROM:
            return None
        if self._filter is None or (n > self._filter.n_fit and self._filter.n_fit < _FILTER_MOST):
            self._filter = _Filter(2 * n)
            for keys_held in chain(chain.from_iterable(run.blocks() for run in self._runs), self._claimed):
                self._filter.add(keys_held)
        return np.flatnonzero(self._filter.may_have(keys))

    def claim(self, keys: Keys) -> None:
        """These keys will be committed next."""
        self._claimed.append(keys)
        if self._filter is not None:
            self._filter.add(keys)

    def keep(self, seq: int, n_rows: int) -> None:
        """The oldest claim was committed under this number, and the table has so many rows now: writes it down."""
        self._add(self._claimed.pop(0))
        self.seq, self.n_rows = seq, n_rows
        self._save()

    def _add(self, keys: Keys) -> None:
        if len(keys.one):
            self._runs.append(self._write(iter([keys]), len(keys.one), 0))
            while len(same := [r for r in self._runs if r.level == self._runs[-1].level]) >= _FAN:
                merged = self._write(_merged(same), sum(r.n for r in same), same[0].level + 1)
                self._runs = [r for r in self._runs if r not in same] + [merged]

    def _write(self, parts: Iterator[Keys], n: int, level: int) -> _Run:
        """A run from parts in ascending order."""
        name = f"{max((int(p.stem.split('-')[0]) for p in self.folder.glob('*-*.keys')), default=0) + 1}-{level}.keys"
        path, at, fences = self.folder / name, 0, []
        low = high = 0
        with files.told(path, "write"), path.open("wb") as file:
            for part in parts:
                if at == 0:
                    low = int(part.one[0])
                high = int(part.one[-1])
                fences.append(part.one[(-at) % _BLOCK :: _BLOCK])
                file.seek(at * 8)
                file.write(part.one.data)  # not tofile, whose errors do not say what the system said
                if part.two is not None:
                    file.seek((n + at) * 8)
                    file.write(part.two.data)
                at += len(part.one)
        return _Run(path, n, level, low, high, self._pairs, np.concatenate(fences))

    def _about(self) -> dict[str, object]:
        return {"format": FORMAT, "columns": [[c.name, c.type] for c in self.columns], **({"nulls": True} if self.nulls else {})}

    def _save(self) -> None:
        runs = [{"file": r.path.name, "n": r.n, "level": r.level, "low": r.low, "high": r.high} for r in self._runs]
        files.write_json(self.folder / "index.json", {**self._about(), "seq": self.seq, "n_rows": self.n_rows, "runs": runs})
        kept = {r.path.name for r in self._runs}
        for path in self.folder.glob("*-*.keys"):
            if path.name not in kept:
                path.unlink()

    def _load(self) -> bool:
        """Whether what lies there could be used."""
        try:
            found = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
            if {k: found.get(k) for k in self._about()} != self._about():
                return False
            for run in found["runs"]:
                path = self.folder / run["file"]
                if path.stat().st_size != run["n"] * (16 if self._pairs else 8):
                    return False
                words = np.memmap(path, dtype=np.uint64, mode="r", shape=(run["n"],))
                self._runs.append(_Run(path, run["n"], run["level"], run["low"], run["high"], self._pairs, np.array(words[::_BLOCK])))
            self.seq, self.n_rows = found["seq"], found["n_rows"]
        except (OSError, ValueError, KeyError):
            self._runs = []
            return False
        return True


def open_index(folder: Path, columns: Sequence[Column], table: "Table | None", *, nulls: bool = False) -> KeyIndex:
    """The index of a table's keys, brought up to its newest commit (None: there is no table yet). Builds it anew when it does not fit the table.

    ``nulls``: rows with a missing cell have a key too.
    """
    with files.told(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
    index = KeyIndex(folder, columns, nulls=nulls)
    if table is None:
        index._save()
        return index
    if index._load() and index.seq <= table.last.seq and _catch_up(index, table):
        return index
    index = KeyIndex(folder, columns, nulls=nulls)
    complete = _catch_up(index, table)
    assert complete, "an index built from the whole table covers it"
    return index


def _catch_up(index: KeyIndex, table: "Table") -> bool:
    """Adds the keys of commits after the index's own; whether it covers the table then (it does not when rows were deleted)."""
    if index.seq == table.last.seq:
        return index.n_rows == table.n_rows
    import pyarrow as pa

    names = [c.name for c in index.columns]
    parts: list[Keys] = []
    n_rows = n_parts = 0
    for block in table.blocks_after(index.seq, names):
        n_rows += block.num_rows
        rows = pa.Table.from_batches([block])
        parts.append(keys_of(rows if index.nulls else rows.drop_null(), index.columns, nulls=index.nulls))
        n_parts += len(parts[-1].one)
        if n_parts >= 1 << 20:
            index._add(_joined(parts))
            parts, n_parts = [], 0
    if parts:
        index._add(_joined(parts))
    index.seq, index.n_rows = table.last.seq, index.n_rows + n_rows
    index._save()
    return index.n_rows == table.n_rows


def _among(keys: Keys, wanted: Keys) -> NDArray[np.bool_]:
    """Which wanted keys are among the others; both sorted by their first words, neither empty."""
    at = np.searchsorted(keys.one, wanted.one)
    found: NDArray[np.bool_] = keys.one[np.minimum(at, len(keys.one) - 1)] == wanted.one
    if keys.two is None or wanted.two is None or not found.any():
        return found
    hits = np.flatnonzero(found)
    found[hits] = keys.two[at[hits]] == wanted.two[hits]
    # Equal first halves of different keys (about never) lie side by side: walk on until one fits.
    for row in hits[~found[hits]]:
        i = int(at[row])
        while i < len(keys.one) and keys.one[i] == wanted.one[row] and not found[row]:
            found[row] = keys.two[i] == wanted.two[row]
            i += 1
    return found


def _merged(runs: Sequence[_Run]) -> Iterator[Keys]:
    """All keys of several runs in ascending order, a block of each in memory."""
    at = [0] * len(runs)
    while any(a < r.n for a, r in zip(at, runs, strict=True)):
        heads = [r.read(a, min(_BLOCK, r.n - a)) for r, a in zip(runs, at, strict=True)]
        bound = min(h.one[-1] for h in heads if len(h.one))  # what is unread of any run is not below this
        parts = []
        for i, head in enumerate(heads):
            n = int(np.searchsorted(head.one, bound, side="right"))
            parts.append(head.where(slice(0, n)))
            at[i] += n
        yield _joined(parts)


def _joined(parts: Sequence[Keys]) -> Keys:
    two = [p.two for p in parts if p.two is not None]
    return ordered(np.concatenate([p.one for p in parts]), np.concatenate(two) if two else None)
