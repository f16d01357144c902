"""LightGBM's trees as plain arrays, read from the text it saves, and drawn as one ONNX tree ensemble.

T trees, M inner nodes of a tree, usually M + 1 leaves. A child ``c >= 0`` is an inner node, ``c < 0`` the leaf ``~c``.
"""

from collections.abc import Iterator, Sequence
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
    """One tree. Arrays of length M, except ``leaf``."""

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
    rounds_zero: bool = True
    """Whether what is within 1e-35 of 0 is taken for 0, as LightGBM does."""


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
    inside = ~tree.categorical & (np.abs(tree.threshold) <= _ZERO) & tree.rounds_zero
    return np.where(inside, np.where(tree.threshold < 0, np.nextafter(-_ZERO, np.float32(-np.inf)), _ZERO), near)


def draw(trees: Sequence[Tree], n_scores: int, graph: Graph, tensor: str) -> str:
    """The sum of the trees' leaves, float32 (N, n_scores), of a float32 (N, F) tensor of finite or NaN values; of trees without sets.

    All nodes ask the same kind of question: ONNX Runtime has a faster loop for that, measured 1.05 to 1.6 times as fast as a mix.
    """
    found = [_rows(t, tree) for t, tree in enumerate(trees)]
    nodes = {name: np.concatenate([rows[name] for rows, _ in found]).tolist() for name in _NODE}
    leaves = {name: np.concatenate([rows[name] for _, rows in found]).tolist() for name in _LEAF}
    leaves["ids"] = [t % n_scores for t in leaves["treeids"]]
    return graph.op(
        "TreeEnsembleRegressor",
        tensor,
        domain="ai.onnx.ml",
        n_targets=n_scores,
        nodes_treeids=nodes["treeids"],
        nodes_nodeids=nodes["nodeids"],
        nodes_featureids=nodes["featureids"],
        nodes_values=nodes["values"],
        nodes_modes=["LEAF" if leaf else "BRANCH_LEQ" for leaf in nodes["leaf"]],
        nodes_truenodeids=nodes["truenodeids"],
        nodes_falsenodeids=nodes["falsenodeids"],
        nodes_missing_value_tracks_true=nodes["missing"],
        target_treeids=leaves["treeids"],
        target_nodeids=leaves["nodeids"],
        target_ids=leaves["ids"],
        target_weights=leaves["weights"],
    )


_NODE = ("treeids", "nodeids", "featureids", "values", "leaf", "truenodeids", "falsenodeids", "missing")
_LEAF = ("treeids", "nodeids", "weights")
_Rows = dict[str, NDArray[Any]]


def _rows(t: int, tree: Tree) -> tuple[_Rows, _Rows]:
    """One tree as rows of the operator's attributes: its nodes (inner nodes keep their number, leaves follow), and its leaves."""
    assert not tree.categorical.any(), "sets are drawn as codes"
    n_inner, n_leaves = len(tree.feature), len(tree.leaf)
    left, right = (np.where(child >= 0, child, n_inner + ~child) for child in (tree.left, tree.right))
    number = np.arange(n_inner + n_leaves)
    nothing = np.zeros(n_leaves, np.int64)
    nodes: _Rows = {
        "treeids": np.full(n_inner + n_leaves, t),
        "nodeids": number,
        "featureids": np.concatenate([tree.feature, nothing]),
        "values": np.concatenate([bounds(tree), nothing]).astype(np.float32),
        "leaf": number >= n_inner,
        "truenodeids": np.concatenate([left, nothing]),
        "falsenodeids": np.concatenate([right, nothing]),
        "missing": np.concatenate([tree.missing_left, nothing]).astype(np.int64),
    }
    return nodes, {"treeids": np.full(n_leaves, t), "nodeids": number[n_inner:], "weights": tree.leaf}
