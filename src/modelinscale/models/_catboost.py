"""What CatBoost learns from and what it learned, as plain arrays: the columns of its matrix, and its symmetric trees.

N rows, F columns, T trees of depth D, C scores. A tree's leaf has the number sum over d of ``(x[feature[d]] > border[d]) << d``; a missing number is
greater than nothing. A tree that asks fewer questions has borders of infinity.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Sparse
from modelinscale.core.graph import Graph
from modelinscale.core.seeds import mixed
from modelinscale.core.task import Task
from modelinscale.models import Examples, Weights
from modelinscale.models._forest import Tree, draw
from modelinscale.models._matrix import Block, blocks_of, check

F32 = NDArray[np.float32]

_OWN_IDS = 16
"""Up to this many ids have a column each; more are shown by what the target was for them."""
_CLASSES = 12
"""Most classes whose shares are shown for an id; of more the first ones are."""
_FOLDS = 5
_PRIOR_ROWS = 10.0
"""What is known of an id counts as this many rows less: an id of few rows is near the mean of all."""


@dataclass(frozen=True)
class Design:
    """From blocks to columns: numbers and counts of words as they are, ids as a table's rows."""

    blocks: tuple[Block, ...]
    tables: dict[str, F32]
    """(n_ids, columns) for each block of ids."""
    training_tables: dict[str, F32] | None = None
    """(folds, n_ids, columns): without the rows of that fold, so that no row is shown its own answer; those of a column each have none."""
    seed: int = 0

    @classmethod
    def observe(cls, train: Examples, task: Task, center: float, scale: float, seed: int) -> "Design":
        blocks, tables, others = blocks_of(train.layouts), {}, {}
        rows = train.rows
        check(rows, blocks)
        weight = np.ones(len(train)) if train.weight is None else train.weight
        shown = _shown(train, task, center, scale)  # (N, K)
        fold = _folds(len(train), seed)
        mean = (weight @ shown) / max(weight.sum(), 1e-12)
        for block in blocks:
            if block.role != "ids":
                continue
            if block.n_ids <= _OWN_IDS:
                tables[block.feature] = np.eye(block.n_ids, dtype=np.float32)
                continue
            ids = np.asarray(rows[block.feature])
            sums = np.zeros((_FOLDS, block.n_ids, shown.shape[1] + 1))
            for k in range(shown.shape[1]):
                np.add.at(sums[:, :, k], (fold, ids), weight * shown[:, k])
            np.add.at(sums[:, :, -1], (fold, ids), weight)
            whole = sums.sum(axis=0)

            def share(found: NDArray[np.float64]) -> F32:
                return np.asarray((found[..., :-1] + _PRIOR_ROWS * mean) / (found[..., -1:] + _PRIOR_ROWS), np.float32)

            tables[block.feature], others[block.feature] = share(whole), share(whole - sums)
        return cls(blocks, tables, others, seed)

    @classmethod
    def parse(cls, weights: Weights) -> "Design":
        tables = {name.removeprefix("table/"): array for name, array in weights.arrays.items() if name.startswith("table/")}
        return cls(tuple(Block.parse(block) for block in weights.meta["blocks"]), tables)

    def plain(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """As arrays and facts of weights."""
        return {f"table/{name}": table for name, table in self.tables.items()}, {"blocks": [block.plain() for block in self.blocks]}

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """Role, name and feature of each column."""
        found: list[tuple[str, str, str]] = []
        for block in self.blocks:
            names = [f"{block.feature} {k}" for k in range(self.tables[block.feature].shape[1])] if block.role == "ids" else block.names
            found += [(block.role, name, block.feature) for name in names]
        return found

    def matrix(self, rows: Encoded) -> F32:
        """(N, F)."""
        check(rows, self.blocks)
        return self._matrix(rows, {name: table[_ids(rows, name)] for name, table in self.tables.items()})

    def training(self, train: Examples) -> F32:
        """(N, F) of the rows that were observed."""
        assert self.training_tables is not None, "only a design that has just observed"
        fold, rows = _folds(len(train), self.seed), train.rows
        shown = {name: table[_ids(rows, name)] for name, table in self.tables.items()}
        shown |= {name: table[fold, _ids(rows, name)] for name, table in self.training_tables.items()}
        return self._matrix(rows, shown)

    def draw(self, graph: Graph, tensors: dict[str, str]) -> str:
        """Draws `matrix`."""
        parts = [
            graph.op("Gather", graph.constant(self.tables[block.feature], np.float32), tensors[block.feature], axis=0)
            if block.role == "ids"
            else tensors[block.feature]
            for block in self.blocks
        ]
        return parts[0] if len(parts) == 1 else graph.op("Concat", *parts, axis=1)

    def _matrix(self, rows: Encoded, shown: dict[str, F32]) -> F32:
        parts = []
        for block in self.blocks:
            part = rows[block.feature]
            parts.append(shown[block.feature] if block.role == "ids" else part.dense() if isinstance(part, Sparse) else np.asarray(part, np.float32))
        return np.ascontiguousarray(np.concatenate(parts, axis=1))


def _ids(rows: Encoded, name: str) -> NDArray[np.int32]:
    """(N,): a block of ids."""
    return cast("NDArray[np.int32]", rows[name])


def _shown(train: Examples, task: Task, center: float, scale: float) -> NDArray[np.float64]:
    if task.type == "multiclass":
        return np.asarray(train.target[:, None] == np.arange(min(_CLASSES, task.n_scores)), np.float64)
    return np.asarray((train.target - center) / scale if task.type == "regression" else train.target, np.float64)[:, None]


def _folds(n: int, seed: int) -> NDArray[np.int64]:
    """(N,): by a row's place."""
    return (mixed(np.uint64(seed), np.arange(n, dtype=np.uint64)) % np.uint64(_FOLDS)).astype(np.int64)


def trees_of(model: Any, n_scores: int) -> dict[str, NDArray[Any]]:
    """``feature`` int32 and ``border`` float32 (T, D), ``leaves`` float64 (T, 2^D, C) and ``bias`` (C,) of a learned CatBoost, from its JSON."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_model(str(Path(folder) / "model.json"), format="json")
        found = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
    trees, (scale, bias) = found["oblivious_trees"], found["scale_and_bias"]
    places = [one["flat_feature_index"] for one in found["features_info"]["float_features"]]
    D = max([1, *(len(tree["splits"] or ()) for tree in trees)])
    feature, border = np.zeros((len(trees), D), np.int32), np.full((len(trees), D), np.inf, np.float32)
    leaves = np.zeros((len(trees), 1 << D, n_scores))
    for t, tree in enumerate(trees):
        for d, split in enumerate(tree["splits"] or ()):
            assert split["split_type"] == "FloatFeature", split["split_type"]
            feature[t, d], border[t, d] = places[split["float_feature_index"]], split["border"]
        values = np.array(tree["leaf_values"], np.float64).reshape(-1, n_scores)
        leaves[t, : len(values)] = values * scale
    return {"feature": feature, "border": border, "leaves": leaves, "bias": np.broadcast_to(np.array(bias, np.float64), (n_scores,)).copy()}


def leaves_of(arrays: dict[str, NDArray[Any]], X: F32) -> NDArray[np.float64]:
    """(N, C): the sum of all trees."""
    feature, border, leaves = arrays["feature"], arrays["border"], arrays["leaves"]
    total: NDArray[np.float64] = np.zeros((len(X), leaves.shape[2])) + arrays["bias"]
    columns = np.ascontiguousarray(X.T)
    for t in range(len(feature)):
        at = np.zeros(len(X), np.int64)
        for d in range(feature.shape[1]):
            at |= (columns[feature[t, d]] > border[t, d]).astype(np.int64) << d
        total += leaves[t, at]
    return total


def draw_trees(arrays: dict[str, NDArray[Any]], graph: Graph, tensor: str) -> str:
    """Draws `leaves_of`: float32 (N, C), of a float32 (N, F) tensor."""
    feature, border, leaves = arrays["feature"], arrays["border"], arrays["leaves"]
    n_scores = leaves.shape[2]
    trees = [_tree(feature[t], border[t], leaves[t, :, c]) for t in range(len(feature)) for c in range(n_scores)]
    bias = graph.constant(arrays["bias"][None, :], np.float32)
    return graph.op("Add", draw(trees, n_scores, graph, tensor), bias) if trees else bias


def _tree(feature: NDArray[np.int32], border: F32, leaves: NDArray[np.float64]) -> Tree:
    """A symmetric tree node by node: level d asks question d, and no leads left."""
    D = int(np.isfinite(border).sum())
    n_inner = (1 << D) - 1
    level = np.concatenate([np.full(1 << d, d) for d in range(D)] or [np.zeros(0, np.int64)])
    path = np.concatenate([np.arange(1 << d) for d in range(D)] or [np.zeros(0, np.int64)])  # bit d of a path: the answer to question d
    start = (1 << level) - 1

    def child(answer: int) -> NDArray[np.int64]:
        below = path | (answer << level)
        return np.asarray(np.where(level + 1 < D, 2 * start + 1 + below, ~below), np.int64)

    return Tree(
        feature=feature[level].astype(np.int64),
        threshold=border[level].astype(np.float64),
        categorical=np.zeros(n_inner, bool),
        missing_left=np.ones(n_inner, bool),
        left=child(0),
        right=child(1),
        gain=np.zeros(n_inner),
        leaf=leaves[: 1 << D],
        sets=(),
        rounds_zero=False,
    )
