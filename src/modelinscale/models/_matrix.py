"""Encoded blocks side by side as one matrix, for families that want one. N rows, F columns, all blocks together."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Layout, Role, Sparse
from modelinscale.core.errors import ModelError
from modelinscale.core.graph import Graph


@dataclass(frozen=True)
class Block:
    """Where one feature's block lies in the matrix. Ids take one column, holding the id."""

    feature: str
    role: Role
    names: tuple[str, ...]
    """A name for each column of the matrix; for ids the feature's own."""
    n_ids: int = 0

    @property
    def n_columns(self) -> int:
        return len(self.names)

    def plain(self) -> dict[str, Any]:
        return {"feature": self.feature, "role": self.role, "names": list(self.names), "n_ids": self.n_ids}

    @classmethod
    def parse(cls, value: dict[str, Any]) -> "Block":
        return cls(value["feature"], value["role"], tuple(value["names"]), value["n_ids"])


def blocks_of(layouts: dict[str, Layout]) -> tuple[Block, ...]:
    """The blocks in the order of the layouts; features of no width are left out."""
    found = []
    for feature, layout in layouts.items():
        names = (feature,) if layout.role == "ids" else layout.names
        if names:
            found.append(Block(feature, layout.role, names, layout.width if layout.role == "ids" else 0))
    return tuple(found)


def column_names(blocks: tuple[Block, ...]) -> tuple[str, ...]:
    return tuple(name for block in blocks for name in block.names)


def as_matrix(rows: Encoded, blocks: tuple[Block, ...]) -> Any:
    """(N, F) float32: an array, or a ``scipy.sparse.csr_matrix`` where a block is sparse. Raises `ModelError` for rows of another encoding."""
    check(rows, blocks)
    parts = [rows[block.feature] for block in blocks]
    if any(isinstance(part, Sparse) for part in parts):
        from scipy.sparse import csr_matrix, hstack

        return hstack(
            [part.scipy() if isinstance(part, Sparse) else csr_matrix(_without_specks(_two_axes(part))) for part in parts], format="csr", dtype=np.float32
        )
    full = np.empty((rows.n_rows, sum(block.n_columns for block in blocks)), np.float32)
    at = 0
    for block, part in zip(blocks, parts, strict=True):
        assert not isinstance(part, Sparse)
        full[:, at : at + block.n_columns] = _two_axes(part)
        at += block.n_columns
    return full


def draw_matrix(graph: Graph, blocks: tuple[Block, ...], tensors: dict[str, str]) -> str:
    """Draws `as_matrix`: one float32 tensor (N, F)."""
    parts = []
    for block in blocks:
        tensor = tensors[block.feature]
        if block.role == "ids":  # int64 (N,); ids stay far below 2**24, so float32 holds each exactly
            tensor = graph.op("Unsqueeze", graph.op("Cast", tensor, to=1), graph.constant([1], np.int64))
        parts.append(tensor)
    return parts[0] if len(parts) == 1 else graph.op("Concat", *parts, axis=1)


def check(rows: Encoded, blocks: tuple[Block, ...]) -> None:
    """Raises `ModelError` when rows lack a feature the weights were learned with, or have it in another width."""
    wrong = []
    for block in blocks:
        if block.feature not in rows.layouts:
            wrong.append(f"{block.feature!r} is missing")
            continue
        layout = rows.layouts[block.feature]
        width = block.n_ids if block.role == "ids" else block.n_columns
        if (layout.role, layout.width) != (block.role, width):
            wrong.append(f"{block.feature!r} is {layout.role} of width {layout.width}, learned as {block.role} of width {width}")
    if wrong:
        raise ModelError(f"These rows are not encoded as those the model learned from: {'; '.join(wrong)}.", fix="Train again with these features.")


def _without_specks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What LightGBM reads as zero in a full matrix (1e-35 and less in size) it takes as it is in a sparse one: here it is zero in both."""
    return np.where(np.abs(values) <= np.float32(1e-35), np.float32(0), values)


def _two_axes(part: NDArray[Any]) -> NDArray[np.float32]:
    return (part[:, None] if part.ndim == 1 else part).astype(np.float32, copy=False)
