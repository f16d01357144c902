"""Sets of categories as runs of codes: a tree asks for a set with one comparison or two, instead of one for each of its ids.

A column gives every id a code, 0 to at most 255. Sets that do not overlap, or lie one within the other, share a column, numbered so that the ids of
each set are a run of codes. J different sets, U ids that lie in some set, K columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.graph import Graph
from modelinscale.models._forest import Tree
from modelinscale.models._matrix import Block, draw_matrix

_CODES = 256
_OPEN = 256
"""Columns a set is tried in: with more, packing takes longer than it saves (7,300 sets: 0.4 s)."""


@dataclass(frozen=True)
class Run:
    """An id lies in the set when its code in ``column`` is ``low`` to ``high``; the codes of that column end at ``last``."""

    column: int
    low: int
    high: int
    last: int


@dataclass(frozen=True)
class Codes:
    """The codes of one feature's ids."""

    row: NDArray[np.int32]
    """(n_ids,): the row of ``table`` of each id; 0 for all that lie in no set."""
    table: NDArray[np.uint8]
    """(U + 1, K)."""
    runs: dict[bytes, Run]
    """The run of each set, found by the bytes of its ids (int64)."""


def codes_of(trees: Sequence[Tree], n_ids: dict[int, int]) -> dict[int, Codes]:
    """Codes for each column of ids that some tree splits on; ``n_ids`` gives the ids of each such column of the matrix."""
    found: dict[int, dict[bytes, NDArray[np.int64]]] = {}
    for tree in trees:
        for i in np.flatnonzero(tree.categorical):
            ids = tree.sets[int(tree.threshold[i])].astype(np.int64)
            found.setdefault(int(tree.feature[i]), {})[ids.tobytes()] = ids
    return {column: _codes(sets, n_ids[column]) for column, sets in sorted(found.items())}


def draw_coded(trees: Sequence[Tree], codes: dict[int, Codes], blocks: Sequence[Block], graph: Graph, tensors: dict[str, str]) -> tuple[list[Tree], str]:
    """The same trees without sets, and their matrix, float32 (N, F): that of the blocks, with codes in the place of ids."""
    shown: list[Block] = []
    moved: list[int] = []  # the new place of each column of the matrix; of a column of ids that of the first of its codes
    n_columns = 0
    for block in blocks:
        found = codes.get(len(moved)) if block.role == "ids" else None
        moved += range(n_columns, n_columns + block.n_columns)
        if found:
            tensors = {**tensors, block.feature: _draw(graph, tensors[block.feature], found)}
            block = Block(block.feature, "dense", tuple(f"{block.feature} {k}" for k in range(found.table.shape[1])))
        shown.append(block)
        n_columns += block.n_columns
    return [_without_sets(tree, codes, np.array(moved)) for tree in trees], draw_matrix(graph, tuple(shown), tensors)


def _draw(graph: Graph, ids: str, codes: Codes) -> str:
    """The codes of int64 ids (N,) as float32 (N, K)."""
    table = codes.table
    if len(table) * 2 < len(codes.row):
        ids = graph.op("Gather", graph.constant(codes.row), ids, axis=0)
    else:
        table = table[codes.row]
    return graph.op("Cast", graph.op("Gather", graph.constant(table), ids, axis=0), to=graph.FLOAT32)


def _without_sets(tree: Tree, codes: dict[int, Codes], moved: NDArray[np.int64]) -> Tree:
    """The same tree, comparing codes. A set in the middle of its column takes two nodes, the second at the end of the arrays.

    Their child outside the set is shared. ONNX Runtime wants every left-out (false) child to be new: the first node leads there by false, the second by true.
    """
    feature, threshold = moved[tree.feature], tree.threshold.copy()
    left, right = tree.left.copy(), tree.right.copy()
    second: list[tuple[int, int]] = []
    for i in np.flatnonzero(tree.categorical):
        run = codes[int(tree.feature[i])].runs[tree.sets[int(tree.threshold[i])].astype(np.int64).tobytes()]
        feature[i] += run.column
        threshold[i] = run.high
        if run.low and run.high == run.last:
            threshold[i], left[i], right[i] = run.low - 1, tree.right[i], tree.left[i]
        elif run.low:
            left[i] = len(feature) + len(second)
            second.append((int(i), run.low - 1))
    at = np.array([i for i, _ in second], np.int64)
    nothing = np.zeros(len(at), bool)
    return replace(
        tree,
        feature=np.concatenate([feature, feature[at]]),
        threshold=np.concatenate([threshold, [t for _, t in second]]),
        categorical=np.zeros(len(feature) + len(at), bool),
        missing_left=np.concatenate([tree.missing_left, nothing]),
        left=np.concatenate([left, tree.right[at]]),
        right=np.concatenate([right, tree.left[at]]),
        gain=np.concatenate([tree.gain, nothing]),
        sets=(),
    )


def _codes(sets: dict[bytes, NDArray[np.int64]], n_ids: int) -> Codes:
    used = np.unique(np.concatenate(list(sets.values())))
    row = np.zeros(n_ids, np.int32)
    row[used] = np.arange(1, len(used) + 1)
    # The larger first, so that whatever comes later lies within a set, beside it, or across its border.
    ranked = sorted(sets, key=lambda key: -len(sets[key]))
    columns = _pack([row[sets[key]] for key in ranked], len(used) + 1)
    table = np.zeros((len(used) + 1, len(columns)), np.uint8)
    runs: dict[bytes, Run] = {}
    for k, column in enumerate(columns):
        order, spans = column.numbered()
        table[:, k] = order
        runs |= {ranked[j]: Run(k, low, high, int(order.max())) for j, (low, high) in spans.items()}
    return Codes(row, table, {key: runs[key] for key in sets})


@dataclass
class _Column:
    """Sets that share a column, as a forest: the children of a set (-1: of none) lie within it."""

    owner: NDArray[np.int32]
    """(U + 1,): the smallest set each row lies in, -1 for none."""
    children: dict[int, list[int]]

    def numbered(self) -> tuple[NDArray[np.int64], dict[int, tuple[int, int]]]:
        """The code of each row, and the first and last code of each set.

        What lies in no set comes before the last set: so the first set and the last take one comparison, and most rows of the others as well.
        """
        code, spans, free = np.zeros(len(self.owner), np.int64), dict[int, tuple[int, int]](), 0

        def number(j: int) -> None:
            nonlocal free
            low = free
            for child in self.children.get(j, ()):
                number(child)
            own = self.owner == j
            if own.any():
                code[own] = free
                free += 1
            spans[j] = (low, free - 1)

        *first, last = self.children[-1]
        first, rest = (first, [last]) if first else ([last], [])
        for j in first:
            number(j)
        code[self.owner == -1] = free
        free += 1
        for j in rest:
            number(j)
        return code, spans


def _pack(sets: list[NDArray[np.int32]], n_rows: int) -> list[_Column]:
    """Puts each set of rows, the larger first, into the first column where it lies within one set, or in none, and cuts no other."""
    columns: list[_Column] = []
    owner = np.full((min(len(sets), 16), n_rows), -1, np.int32)  # (columns, rows), grown by doubling
    n_sets = np.zeros(len(sets), np.int64)
    for j, rows in enumerate(sets):
        n = len(columns)
        first = max(0, n - _OPEN)
        there = owner[first:n, rows]
        fits = np.flatnonzero((there == there[:, :1]).all(axis=1) & (n_sets[first:n] < _CODES - 1))
        k = first + int(fits[0]) if len(fits) else n
        if k == n:
            if n == len(owner):
                owner = np.concatenate([owner, np.full_like(owner, -1)])
            columns.append(_Column(owner[k], {}))
        columns[k].children.setdefault(int(owner[k, rows[0]]), []).append(j)
        owner[k, rows] = j
        n_sets[k] += 1
    return [replace(column, owner=owner[k]) for k, column in enumerate(columns)]
