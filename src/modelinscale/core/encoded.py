"""Rows as a model sees them: blocks of numbers, ids, sparse counts, images, tokens or steps, one block a feature.

N rows, D width of a block, T steps.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

Form = Literal["plain", "scaled", "deep", "plain+scaled", "plain+deep", "scaled+deep", "plain+scaled+deep"]
"""plain: values in their own unit, missing numbers NaN, for models that split (trees).
scaled: finite, about unit variance, missing filled and flagged, for models that multiply (linear, tabular networks).
deep: as scaled, but images, texts and sequences keep their shape, for networks that have encoders for them.
a+b: several side by side, for ensembles; the block of ``age`` then is there as ``a/age`` and ``b/age``."""

Role = Literal["dense", "ids", "sparse", "image", "tokens", "steps"]
"""dense: float32 (N, D) · ids: int32 (N,), 0 = missing, 1 = unseen or rare, 2… = known · sparse: float32 counts (N, D) ·
image: uint8 (N, height, width, channels) · tokens: int32 (N, T), 0 = behind the end, 1 = unseen, 2… = known ·
steps: float32 (N, T, D), NaN in all D behind the end of a row's own steps, a number that is missing within them 0."""


InputType = Literal["float64", "string", "int64", "vector", "image", "sequence"]
"""How a raw column enters the ONNX graph.

float64 (N,): NaN is missing (numbers; flags as 0 and 1) · string (N,): "" is missing (categories, text; whole numbers written as ``str(int)``)
· int64 (N,): microseconds since 1970 in UTC, `MISSING_MOMENT` is missing · vector (N, width) float32: a missing vector is all NaN
· image (N, height, width, channels) uint8: decoded pixels, of one size in one call of the graph (`core.pixels`)
· sequence (N, T, D) float32: NaN in all D behind each row's end, any T in one call of the graph (`core.steps`); a missing one has no steps.
"""

MISSING_MOMENT = -(1 << 63)
"""How a missing moment is written in an int64 tensor: the smallest int64."""


@dataclass(frozen=True)
class Layout:
    """What one feature's block looks like, known from its state alone."""

    role: Role
    width: int
    """Columns of a dense or sparse block; for ids and tokens the number of them (largest id + 1); for others numbers of a row in all."""
    names: tuple[str, ...]
    """A name for each column (dense, sparse) or for each id (the words of categories; ids 0 and 1 are "(missing)", "(other)"); of tokens which tokenizer
    cut them, where that was learned elsewhere (its SHA-256); none for others."""
    shape: tuple[int, ...] = ()
    """Of a row: image (height, width, channels) · tokens (T,) · steps (T, D) · others ()."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's block; 0 for sparse ones, whose size only the rows can tell."""
        if self.role in ("sparse", "ids"):
            return 0 if self.role == "sparse" else 4
        return 4 * self.width if self.role == "dense" else prod(self.shape) * (1 if self.role == "image" else 4)


@dataclass(frozen=True)
class Sparse:
    """Compressed sparse rows: row i holds ``values[starts[i]:starts[i+1]]`` at ``columns[…]``, columns ascending within a row."""

    starts: NDArray[np.int64]  # (N + 1,)
    columns: NDArray[np.int32]
    values: NDArray[np.float32]
    width: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows(self, index: NDArray[np.int64]) -> "Sparse":
        """The given rows, in that order."""
        sizes = np.diff(self.starts)[index]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        flat = np.repeat(self.starts[index] - starts[:-1], sizes) + np.arange(starts[-1])
        return Sparse(starts, self.columns[flat], self.values[flat], self.width)

    def slice(self, start: int, stop: int) -> "Sparse":
        """Rows from ``start`` up to ``stop``; columns and values share memory."""
        starts = self.starts[start : stop + 1]
        return Sparse(starts - starts[0], self.columns[starts[0] : starts[-1]], self.values[starts[0] : starts[-1]], self.width)

    def scipy(self) -> Any:
        """The same as a ``scipy.sparse.csr_matrix``, sharing memory."""
        from scipy.sparse import csr_matrix

        return csr_matrix((self.values, self.columns, self.starts), shape=(len(self), self.width))

    def dense(self) -> NDArray[np.float32]:
        """(N, D) float32."""
        full = np.zeros((len(self), self.width), np.float32)
        full[np.repeat(np.arange(len(self)), np.diff(self.starts)), self.columns] = self.values
        return full


Values = NDArray[np.float32] | NDArray[np.int32] | NDArray[np.uint8] | Sparse


@dataclass(frozen=True)
class Encoded(Mapping[str, Values]):
    """All blocks of some rows, by feature name, with their layouts; every block has the same number of rows."""

    layouts: dict[str, Layout]
    blocks: dict[str, Values]

    def __getitem__(self, name: str) -> Values:
        return self.blocks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def n_rows(self) -> int:
        return len(next(iter(self.blocks.values()))) if self.blocks else 0

    def rows(self, index: NDArray[np.int64]) -> "Encoded":
        """The given rows, in that order."""
        return Encoded(self.layouts, {k: v.rows(index) if isinstance(v, Sparse) else v[index] for k, v in self.blocks.items()})

    def slice(self, start: int, stop: int) -> "Encoded":
        """Rows from ``start`` up to ``stop``; shares memory."""
        return Encoded(self.layouts, {k: v.slice(start, stop) if isinstance(v, Sparse) else v[start:stop] for k, v in self.blocks.items()})


def forms_of(form: Form) -> tuple[Form, ...]:
    """The forms that lie side by side in one; of a form by itself that one."""
    return cast("tuple[Form, ...]", tuple(form.split("+")))


def beside(forms: Iterable[Form]) -> Form:
    """The form that has all of these side by side, each once.

    >>> beside(["scaled", "plain", "scaled"])
    'plain+scaled'
    """
    wanted = {one for form in forms for one in forms_of(form)}
    return cast(Form, "+".join(one for one in ("plain", "scaled", "deep") if one in wanted))


def block_name(feature: str, one: Form, form: Form) -> str:
    """What a feature's block in form ``one`` is called among blocks of ``form``."""
    return feature if one == form else f"{one}/{feature}"


def feature_of(block: str, form: Form) -> str:
    """The feature whose block this is."""
    return block.partition("/")[2] if "+" in form else block


def layouts_in(layouts: Mapping[str, Layout], one: Form, form: Form) -> dict[str, Layout]:
    """Of layouts in ``form`` those in form ``one``, as if that had been asked for alone."""
    if one == form:
        return dict(layouts)
    start = f"{one}/"
    return {
        name.removeprefix(start): replace(layout, names=tuple(column.removeprefix(start) for column in layout.names)) if layout.role != "ids" else layout
        for name, layout in layouts.items()
        if name.startswith(start)
    }


def rows_in(rows: Encoded, one: Form, form: Form) -> Encoded:
    """Of rows in ``form`` those in form ``one``, as if that had been asked for alone; shares memory."""
    if one == form:
        return rows
    layouts = layouts_in(rows.layouts, one, form)
    return Encoded(layouts, {name: rows.blocks[f"{one}/{name}"] for name in layouts})


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Rows one after the other; at least one part, all of the same layouts."""
    if len(parts) == 1:
        return parts[0]
    blocks: dict[str, Values] = {}
    for name in parts[0].blocks:
        ones = [part.blocks[name] for part in parts]
        sparse = [one for one in ones if isinstance(one, Sparse)]
        blocks[name] = _joined(sparse) if sparse else np.concatenate(cast("list[NDArray[Any]]", ones))
    return Encoded(parts[0].layouts, blocks)


def _joined(parts: list[Sparse]) -> Sparse:
    ends = np.cumsum([0, *(part.starts[-1] for part in parts)])
    starts = np.concatenate([[0], *(part.starts[1:] + end for part, end in zip(parts, ends, strict=False))]).astype(np.int64)
    return Sparse(starts, np.concatenate([p.columns for p in parts]), np.concatenate([p.values for p in parts]), parts[0].width)
