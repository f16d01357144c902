"""LightGBM's trees as plain arrays, read from the text it saves, and drawn as one ONNX tree ensemble.

T trees, M inner nodes of a tree, M + 1 leaves. A child ``c >= 0`` is an inner node, ``c < 0`` the leaf ``~c``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.graph import Graph

_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_ZERO = np.float32(1e-35)  # LightGBM's kZeroThreshold
_MISSING_NONE, _MISSING_ZERO, _MISSING_NAN = 0, 1, 2


@dataclass(frozen=True)
class Tree:
    """One tree. Arrays of length M, except ``leaf`` (M + 1)."""

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    """A value goes left when it is at most this; for a categorical node the index of its set."""
    categorical: NDArray[np.bool_]
    missing_left: NDArray[np.bool_]
    """Where NaN goes, whatever the reason (its own direction, or because NaN counts as 0 there)."""
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    gain: NDArray[np.float64]
    leaf: NDArray[np.float64]
    sets: tuple[NDArray[np.int64], ...]
    """For each categorical node the ids that go left."""


def read(text: str) -> Iterator[Tree]:
    """The trees of a saved model, in order; tree t of a C-class model adds to score ``t % C``."""
    body = text[text.index("\nTree=") : text.index("\nend of trees")]
    for part in body.split("\nTree=")[1:]:
        yield _read_one(dict(line.split("=", 1) for line in part.splitlines() if "=" in line))


def _read_one(fields: dict[str, str]) -> Tree:
    leaf = np.array(fields["leaf_value"].split(), np.float64)
    if int(fields["num_leaves"]) == 1:
        none = np.empty(0, np.int64)
        return Tree(none, none.astype(float), none.astype(bool), none.astype(bool), none, none, none.astype(float), leaf[:1], ())
    ints = {name: np.array(fields[name].split(), np.int64) for name in ("split_feature", "decision_type", "left_child", "right_child")}
    threshold, kind = np.array(fields["threshold"].split(), np.float64), ints["decision_type"]
    categorical, missing = (kind & _CATEGORICAL) > 0, (kind >> 2) & 3
    assert not (missing == _MISSING_ZERO).any(), "zero_as_missing is never set"
    # LightGBM reads NaN as 0 where it saw no missing value in training, and sends what is in no set to the right.
    missing_left = np.where(categorical, False, np.where(missing == _MISSING_NAN, (kind & _DEFAULT_LEFT) > 0, threshold >= 0))
    sets: list[NDArray[np.int64]] = []
    if int(fields["num_cat"]):
        bounds = np.array(fields["cat_boundaries"].split(), np.int64)
        words = np.array(fields["cat_threshold"].split(), np.uint32)
        for a, b in pairwise(bounds.tolist()):
            bits = np.unpackbits(words[a:b].view(np.uint8), bitorder="little")
            sets.append(np.flatnonzero(bits))
    gain = np.array(fields["split_gain"].split(), np.float64)
    return Tree(ints["split_feature"], threshold, categorical, missing_left, ints["left_child"], ints["right_child"], gain, leaf, tuple(sets))


def floor32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 at most each value: for a float32 x, ``x <= t`` is the same as ``x <= floor32(t)``."""
    with np.errstate(over="ignore"):  # thresholds beyond float32 become infinite, then step back
        near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)


def bounds(tree: Tree) -> NDArray[np.float32]:
    """(M,): a float32 value goes left when it is at most this, exactly as LightGBM sends it.

    LightGBM takes what is within 1e-35 of 0 for 0 when it predicts, so a threshold in there parts all of that from what lies beyond.
    """
    near = floor32(tree.threshold)
    inside = ~tree.categorical & (np.abs(tree.threshold) <= _ZERO)
    return np.where(inside, np.where(tree.threshold < 0, np.nextafter(-_ZERO, np.float32(-np.inf)), _ZERO), near)


def draw(trees: list[Tree], n_scores: int, graph: Graph, tensor: str) -> str:
    """The sum of the trees' leaves, float32 (N, n_scores), of a float32 (N, F) tensor of finite or NaN values.

    A categorical node becomes a chain of equality nodes, one an id: all runtimes know those.
    """
    nodes: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids", "missing")}
    leaves: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}

    def add(tree: int, node: int, feature: int, value: float, mode: str, true: int, false: int, missing: bool) -> None:
        row = (tree, node, feature, value, mode, true, false, int(missing))
        for name, cell in zip(nodes, row, strict=True):
            nodes[name].append(cell)

    for t, tree in enumerate(trees):
        n_inner, n_leaves = len(tree.feature), len(tree.leaf)
        spare = n_inner + n_leaves  # ids from here on are the further nodes of chains

        def at(child: int, n_inner: int = n_inner) -> int:
            return child if child >= 0 else n_inner + ~child

        thresholds = bounds(tree)
        for i in range(n_inner):
            left, right, feature = at(int(tree.left[i])), at(int(tree.right[i])), int(tree.feature[i])
            if not tree.categorical[i]:
                add(t, i, feature, float(thresholds[i]), "BRANCH_LEQ", left, right, bool(tree.missing_left[i]))
                continue
            node, ids = i, tree.sets[int(tree.threshold[i])].tolist()
            for k, one in enumerate(ids):
                after = right if k == len(ids) - 1 else spare
                add(t, node, feature, float(one), "BRANCH_EQ", left, after, False)
                node, spare = after, spare + (k < len(ids) - 1)
        for k, weight in enumerate(tree.leaf.tolist()):
            add(t, at(~k), 0, 0.0, "LEAF", 0, 0, False)
            for name, cell in zip(leaves, (t, at(~k), t % n_scores, weight), strict=True):
                leaves[name].append(cell)
    return graph.op(
        "TreeEnsembleRegressor",
        tensor,
        domain="ai.onnx.ml",
        n_targets=n_scores,
        nodes_treeids=nodes["treeids"],
        nodes_nodeids=nodes["nodeids"],
        nodes_featureids=nodes["featureids"],
        nodes_values=nodes["values"],
        nodes_modes=nodes["modes"],
        nodes_truenodeids=nodes["truenodeids"],
        nodes_falsenodeids=nodes["falsenodeids"],
        nodes_missing_value_tracks_true=nodes["missing"],
        target_treeids=leaves["treeids"],
        target_nodeids=leaves["nodeids"],
        target_ids=leaves["ids"],
        target_weights=leaves["weights"],
    )
