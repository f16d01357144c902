"""Encoded rows on disk: written once, then read a block, some rows or a shuffled batch at a time by whoever learns from them.

N rows of one part, in the order of the table; batches come from a second file, which holds them shuffled.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import files
from modelinscale.core.encoded import Encoded, Layout, Sparse, joined
from modelinscale.core.memory import room
from modelinscale.data.loader import Loader
from modelinscale.data.rowfile import ITEM, Ragged, RowFile, Rows, RowWriter
from modelinscale.data.rowfile import joined as all_of
from modelinscale.data.shuffle import Shuffled, disk_bytes, shuffle
from modelinscale.models import BLOCK_ROWS, Examples

_TARGET, _WEIGHT = "target", "weight"
_KINDS = {"image": "|u1", "tokens": "<i4"}
_LAYOUTS = "layouts.json"
_CACHED_BYTES, _NARROW = 4096 << 10, 16
_SHUFFLE_BYTES = 1 << 30
"""The most memory a shuffle takes, of a third of what there is: more makes it no faster."""


class Stored(Examples):
    """Examples in a row file; nothing of them is held. ``rows``, ``target`` and ``weight`` read all of it, for who needs all."""

    def __init__(self, folder: Path, *, memory: int | None = None) -> None:
        """Opens what `write` made. ``memory``: what this process may hold in all (None: what is free). Raises `StoreError` when it is not whole."""
        self._set(folder, RowFile(folder), _layouts(folder), None, memory, {})

    def _set(
        self, folder: Path, file: RowFile, layouts: dict[str, Layout], factors: NDArray[np.float64] | None, memory: int | None, shuffled: dict[int, Shuffled]
    ) -> None:
        # The fields of the frozen class are properties here.
        object.__setattr__(self, "folder", folder)
        object.__setattr__(self, "_file", file)
        object.__setattr__(self, "_layouts", layouts)
        object.__setattr__(self, "_factors", factors)
        object.__setattr__(self, "_memory", memory)
        object.__setattr__(self, "_shuffled", shuffled)

    def __reduce__(self) -> Any:
        # Another process opens the files for itself.
        return _opened, (self.folder, self._memory, self._factors)

    folder: Path
    _file: RowFile
    _layouts: dict[str, Layout]
    _factors: NDArray[np.float64] | None
    """(C,): see `Examples.weighed`."""
    _memory: int | None
    _shuffled: dict[int, Shuffled]
    """By seed; at most one lies on the disk."""

    def __len__(self) -> int:
        return self._file.n_rows

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    @property
    def layouts(self) -> dict[str, Layout]:
        return self._layouts

    @property
    def held(self) -> bool:
        return False

    @property
    def row_bytes(self) -> float:
        """Bytes of a row on disk, on average."""
        return self._file.row_bytes

    @cached_property
    def rows(self) -> Encoded:
        """All of them, in memory from then on."""
        return joined([block.rows for block in self.blocks()]) if len(self) else self._read(self._file.read(0, 0)).rows

    @property
    def target(self) -> NDArray[Any]:
        """(N,) or (N, W): read anew at every call."""
        return np.concatenate([block.target for block in self.blocks()] or [np.zeros(0, np.int64)])

    @property
    def weight(self) -> NDArray[np.float64] | None:
        """(N,): read anew at every call."""
        found = [block.weight for block in self.blocks()]
        return np.concatenate([w for w in found if w is not None]) if found and found[0] is not None else None

    def blocks(self, n_rows: int = BLOCK_ROWS) -> Iterator[Examples]:
        for start in range(0, len(self), n_rows):
            yield self._read(self._file.read(start, n_rows))

    def take(self, index: NDArray[np.int64]) -> Examples:
        parts = []
        first, last = (int(index[0]) // BLOCK_ROWS, int(index[-1])) if len(index) else (0, -1)
        for start in range(first * BLOCK_ROWS, last + 1, BLOCK_ROWS):
            here = index[np.searchsorted(index, start) : np.searchsorted(index, start + BLOCK_ROWS)]
            if len(here):
                parts.append(self._file.read(int(here[0]), int(here[-1] - here[0]) + 1).take(here - here[0]))
        return self._read(all_of(parts) if parts else self._file.read(0, 0))

    def weighed(self, factors: NDArray[np.float64] | None) -> "Stored":
        if factors is None:
            return self
        other = Stored.__new__(Stored)
        other._set(self.folder, self._file, self._layouts, factors if self._factors is None else self._factors * factors, self._memory, self._shuffled)
        return other

    @property
    def _n_items(self) -> int:
        return self._file.n_items

    def batches(self, seed: int, epoch: int, n_rows: int, start: int = 0, *, rank: int = 0, world: int = 1) -> Iterator[Examples]:
        """As of rows in memory, bit for bit. The first call for a seed writes the rows anew beside the others, shuffled (`data.shuffle`).

        Raises `StoreError` when the disk has no room for that, before it is begun.
        """
        source = self._in_order_of(seed)
        for batch in Loader(source, seed, n_rows, rank, world, row_bytes=self.encoded_bytes, memory=room(self._memory)).epoch(epoch, start):
            yield self._read(batch.rows)

    def _in_order_of(self, seed: int) -> Shuffled:
        """The rows shuffled, whole on the disk; one that a killed run made whole is taken up, since it is a function of rows and seed."""
        if seed not in self._shuffled:
            target = self.folder.with_name(f"{self.folder.name}-shuffled-{seed:x}")
            if not target.is_dir():
                for left in [*target.parent.glob(f".*{self.folder.name}-shuffled-*.part"), *target.parent.glob(f"{self.folder.name}-shuffled-*")]:
                    shutil.rmtree(left, ignore_errors=True)  # a killed run's, or of another seed
                self._shuffled.clear()
                self._shuffle(target, seed)
            self._shuffled[seed] = Shuffled(target)
        return self._shuffled[seed]

    def _shuffle(self, target: Path, seed: int) -> None:
        size = sum(part.stat().st_size for part in self.folder.iterdir())
        needed = shuffle_disk(len(self), size / max(1, len(self)), self._memory)
        files.refuse_full(target.parent, needed, f"shuffling {len(self):,} encoded rows")
        with files.new_folder(target) as side:
            shuffle(self._file, side, seed=seed, memory=_shuffle_memory(self._memory))

    def _read(self, rows: Rows) -> Examples:
        blocks: dict[str, Any] = {}
        for i, (name, layout) in enumerate(self._layouts.items()):
            if layout.role == "sparse":
                one = rows.ragged[f"f{i}"]
                items = one.items
                blocks[name] = Sparse(one.starts, np.ascontiguousarray(items["column"]), np.ascontiguousarray(items["value"]), layout.width)
            elif layout.role == "ids":
                blocks[name] = np.ascontiguousarray(rows.fixed[f"f{i}"], np.int32)
            elif layout.width:
                own = _own(rows.fixed[f"f{i}"])
                blocks[name] = own.reshape(len(own), *layout.shape) if layout.shape else own
            else:
                blocks[name] = np.zeros((len(rows), 0), np.float32)
        names = rows.fixed.dtype.names or ()
        target = np.ascontiguousarray(rows.fixed[_TARGET])
        target = target if target.dtype.kind == "f" else target.astype(np.int64)
        weight = np.ascontiguousarray(rows.fixed[_WEIGHT]) if _WEIGHT in names else None
        return Examples(Encoded(self._layouts, blocks), target, weight).weighed(self._factors)


def _opened(folder: Path, memory: int | None, factors: NDArray[np.float64] | None) -> Stored:
    return Stored(folder, memory=memory).weighed(factors)


@dataclass(frozen=True)
class Packer:
    """Makes records of a row file of the pieces of a table, where the work on them is done: small, and can be sent there."""

    examples: Callable[[Any], Examples]
    """What makes examples of a piece."""
    layouts: dict[str, Layout]
    numbers: bool
    weights: bool
    width: int | None = None

    def rows(self, piece: Any) -> Rows:
        """The records of a piece, for `write` with the same settings."""
        return packed(self.examples(piece), self.layouts, fields(self.layouts, numbers=self.numbers, weights=self.weights, width=self.width)[0])


def write(folder: Path, layouts: dict[str, Layout], examples: "Iterable[Examples | Rows]", *, numbers: bool, weights: bool, width: int | None = None) -> None:
    """Makes a row file of examples (or what `Packer` made of them) as they come, whole or not at all, in a folder that does not exist yet.

    ``numbers``: the target is a number (else a class); ``weights``: rows have weights; ``width``: numbers of a row's target, none: one. Raises `StoreError`
    when the disk refuses.
    """
    dtype, ragged = fields(layouts, numbers=numbers, weights=weights, width=width)
    with files.new_folder(folder) as side:
        plain = {name: [layout.role, layout.width, list(layout.names), list(layout.shape)] for name, layout in layouts.items()}
        files.write_bytes(side / _LAYOUTS, json.dumps(plain).encode())
        with RowWriter(side, dtype, ragged) as out:
            for one in examples:
                out.append(one if isinstance(one, Rows) else packed(one, layouts, out.dtype))


def fields(layouts: dict[str, Layout], *, numbers: bool, weights: bool, width: int | None = None) -> "tuple[np.dtype[Any], list[str]]":
    """The record of a row file and its ragged fields: target, weight, and a field for each feature by its place; ids as narrow as they are few."""
    target = (_TARGET, "<f8" if numbers else "<i4")
    found: list[Any] = [target if width is None else (*target, (width,)), *([(_WEIGHT, "<f8")] if weights else [])]
    for i, layout in enumerate(layouts.values()):
        if layout.role == "ids":
            found.append((f"f{i}", "u1" if layout.width <= 1 << 8 else "<u2" if layout.width <= 1 << 16 else "<i4"))
        elif layout.role != "sparse" and layout.width:
            found.append((f"f{i}", _KINDS.get(layout.role, "<f4"), (prod(layout.shape or (layout.width,)),)))
    return np.dtype(found), [f"f{i}" for i, layout in enumerate(layouts.values()) if layout.role == "sparse"]


def row_bytes(layouts: dict[str, Layout], encoded_bytes: float) -> float:
    """Bytes of a row on the disk, where one in memory takes ``encoded_bytes``: ids are narrower."""
    dtype, _ = fields(layouts, numbers=True, weights=True)
    return encoded_bytes - sum(4 - dtype[f"f{i}"].itemsize for i, layout in enumerate(layouts.values()) if layout.role == "ids")


def shuffle_disk(n_rows: int, row_bytes: float, memory: int | None) -> float:
    """Bytes that `Stored.batches` takes on the disk at its fullest, beside the rows themselves."""
    return disk_bytes(n_rows, row_bytes, _shuffle_memory(memory))


def _shuffle_memory(memory: int | None) -> int:
    return min(room(memory) // 3, _SHUFFLE_BYTES)


def packed(examples: Examples, layouts: dict[str, Layout], dtype: "np.dtype[Any]") -> Rows:
    """Examples as records of a row file (`fields`)."""
    fixed = np.empty(len(examples), dtype)
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [(fixed[_TARGET], np.asarray(examples.target))]
    if _WEIGHT in (dtype.names or ()):
        pairs.append((fixed[_WEIGHT], np.broadcast_to(1.0, len(fixed)) if examples.weight is None else examples.weight))
    ragged: dict[str, Ragged] = {}
    for i, name in enumerate(layouts):
        block = examples.rows[name]
        if isinstance(block, Sparse):
            items = np.empty(len(block.columns), ITEM)
            items["column"], items["value"] = block.columns, block.values
            ragged[f"f{i}"] = Ragged(block.starts, items)
        elif f"f{i}" in (dtype.names or ()):
            to = fixed[f"f{i}"]
            block = block.reshape(len(block), to.shape[1]) if block.ndim > 1 else block
            narrow = block.ndim == 2 and block.shape[1] <= _NARROW
            pairs += [(to[:, k], block[:, k]) for k in range(block.shape[1])] if narrow else [(to, block)]
    # Some rows at a time: the records being filled stay in the processor's cache until all their fields are there.
    step = max(1, _CACHED_BYTES // dtype.itemsize)
    for start in range(0, len(fixed), step):
        for to, values in pairs:
            to[start : start + step] = values[start : start + step]
    return Rows(fixed, ragged)


def _own(values: NDArray[Any]) -> NDArray[Any]:
    """A field of records as an array of its own. Copied with all columns of a row as one item: up to three times as fast as numbers of their own."""
    whole = np.dtype((np.void, values.dtype.itemsize * values.shape[1]))
    return np.ascontiguousarray(values.view(whole)).view(values.dtype)


def _layouts(folder: Path) -> dict[str, Layout]:
    found = json.loads((folder / _LAYOUTS).read_text(encoding="utf-8"))
    return {name: Layout(role, width, tuple(names), tuple(shape)) for name, (role, width, names, shape) in found.items()}


__all__ = ["Packer", "Stored", "fields", "packed", "row_bytes", "shuffle_disk", "write"]
