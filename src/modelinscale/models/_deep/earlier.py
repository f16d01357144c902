"""Weights as earlier versions wrote them, as they are written now.

P columns with bins, T bins.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.models import Weights

Arrays = dict[str, NDArray[Any]]


def current(weights: Weights) -> Weights:
    """The same weights in the layout of today; those that have it already as they are.

    Before 0.1.0 was finished `mlp` had a network of its own: ``blocks`` in place of encoders, and borders of bins in place of what is computed with them.
    """
    return weights if "ports" in weights.meta else _of_tables(weights)


def _of_tables(weights: Weights) -> Weights:
    shape, blocks, old = weights.meta["shape"], weights.meta["blocks"], weights.arrays
    arrays: Arrays = {name: old[name] for name in old if name.split(".")[0] in ("signs", "weights", "biases", "head", "head_bias")}
    ports: list[dict[str, Any]] = []

    def add(role: str, settings: dict[str, Any], **own: NDArray[Any]) -> None:
        mine = [block for block in blocks if block["role"] == role]
        if mine:
            widths = [block["n_ids"] if role == "ids" else len(block["names"]) for block in mine]
            arrays.update({f"parts.{role}{len(ports)}.{name}": values for name, values in own.items()})
            ports.append({"kind": role, "features": [block["feature"] for block in mine], "widths": widths, "shape": [], "settings": settings})

    low, inverse = _bins(old["edges"])
    add("dense", {"binned": shape["binned"], "n_bins": shape["n_bins"]}, low=low, inverse=inverse, table=old["bin_table"])
    add("ids", {"width": shape["id_width"]}, table=old["id_table"])
    rarities = [old[f"rarity.{block['feature']}"] for block in blocks if block["role"] == "sparse"]
    add("sparse", {}, rarity=np.concatenate([np.zeros(0), *rarities]), table=old["word_table"])
    trunk = {name: shape[name] for name in ("width", "layers", "members", "dropout", "n_scores")}
    return Weights(arrays, {"ports": ports, "shape": trunk, "center": weights.meta["center"], "scale": weights.meta["scale"]})


def _bins(edges: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(P, T) each: where a bin begins, and one over its width."""
    widths = np.diff(edges, axis=1)
    return edges[:, :-1].copy(), np.where(widths > 0, 1 / np.maximum(widths, np.float32(1e-30)), np.float32(0)).astype(np.float32)
