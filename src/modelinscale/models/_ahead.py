"""What is known ahead of the steps to be forecast (holidays, prices, the weekday): each step's own number, with one coefficient a column for all steps.

One coefficient for all steps, and not one for each pair of steps: what a holiday does it does at any distance, and few of them are enough to learn it.
N rows, H steps to come, C columns, F columns of the linear map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Form, block_name
from modelinscale.core.graph import Graph

F64 = NDArray[np.float64]

_FREE = 1e-6
"""Penalty of a column's coefficient, of its sum of squares: enough for columns that say the same."""


@dataclass(frozen=True)
class Ahead:
    """The last ``steps`` numbers of some lists, each list in its own standard units; what is missing lies at the mean."""

    blocks: tuple[str, ...]
    steps: int
    mean: F64  # (C,)
    scale: F64  # (C,)
    effect: F64  # (C,) of a deviation, in deviations of the history

    @classmethod
    def observe(cls, rows: Encoded, features: Sequence[str], steps: int, form: Form) -> "Ahead":
        """Means and deviations over all numbers of the lists; no effect yet."""
        blocks = tuple(block_name(name, "plain", form) for name in features)
        mean, scale = np.zeros(len(blocks)), np.ones(len(blocks))
        for c, name in enumerate(blocks):
            x = np.asarray(rows[name], np.float64)
            x = x[np.isfinite(x)]
            if len(x):
                mean[c] = x.mean()
                scale[c] = x.std() if x.std() > 1e-6 * max(abs(mean[c]), 1e-6) else 1.0
        return cls(blocks, steps, mean, scale, np.zeros(len(blocks)))

    @classmethod
    def parse(cls, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], form: Form) -> "Ahead":
        """Of weights; those of before there was such a thing have none."""
        found = meta.get("ahead", ())
        none = np.zeros(0)
        mean, scale, effect = (np.asarray(arrays.get(f"ahead_{one}", none), np.float64) for one in ("mean", "scale", "effect"))
        return cls(tuple(block_name(name, "plain", form) for name in found), meta.get("steps", 1), mean, scale, effect)

    @property
    def arrays(self) -> dict[str, F64]:
        return {"ahead_mean": self.mean, "ahead_scale": self.scale, "ahead_effect": self.effect} if self.blocks else {}

    def of(self, rows: Encoded) -> F64:
        """(N, H, C) in standard units."""
        found = np.zeros((rows.n_rows, self.steps, len(self.blocks)))
        for c, name in enumerate(self.blocks):
            x = np.asarray(rows[name], np.float64)[:, -self.steps :]
            found[:, :, c] = np.where(np.isfinite(x), (x - self.mean[c]) / self.scale[c], 0.0)
        return found

    def added(self, rows: Encoded) -> F64:
        """(N, H) what it adds to a forecast, in deviations of the history."""
        return np.asarray(self.of(rows) @ self.effect)

    def draw(self, graph: Graph, blocks: Mapping[str, str], n_past: int, total: str) -> str:
        """Draws ``total``, float64 (N, H), with that added."""
        zero = graph.constant(0.0, np.float64)
        for c, name in enumerate(self.blocks):
            ends = [graph.constant([k], np.int64) for k in (n_past, n_past + self.steps, 1)]
            x = graph.op("Slice", blocks[name], *ends)
            unknown = graph.op("Or", graph.op("IsNaN", x), graph.op("IsInf", x))
            z = graph.op("Sub", graph.op("Cast", x, to=graph.FLOAT64), graph.constant(float(self.mean[c]), np.float64))
            z = graph.op("Where", unknown, zero, graph.op("Mul", z, graph.constant(float(self.effect[c] / self.scale[c]), np.float64)))
            total = graph.op("Add", total, z)
        return total


@dataclass(frozen=True)
class Normal:
    """The normal equations of a linear map with effects shared by its answers, from which the map is eliminated: exact for every strength."""

    curvature: F64  # (F + 1, F + 1)
    pull: F64  # (F + 1, H)
    cross: F64  # (F + 1, H, C)
    own: F64  # (C, C)
    own_pull: F64  # (C,)

    @classmethod
    def of(cls, X: F64, target: F64, share: F64, known: F64) -> "Normal":
        """``X`` (N, F + 1), the intercept last; ``target`` (N, H); ``known`` (N, H, C), in the target's units."""
        weighted, (_, steps, width) = X * share[:, None], known.shape
        return cls(
            X.T @ weighted,
            weighted.T @ target,
            (weighted.T @ known.reshape(len(X), steps * width)).reshape(X.shape[1], steps, width),
            np.einsum("n,nhc,nhd->cd", share, known, known, optimize=True),
            np.einsum("n,nh,nhc->c", share, target, known, optimize=True),
        )

    def solve(self, penalty: F64) -> tuple[F64, F64]:
        """The map (F + 1, H), and the effects (C,)."""
        n_columns, steps, width = self.cross.shape
        both = np.linalg.solve(self.curvature + np.diag(penalty), np.hstack([self.pull, self.cross.reshape(n_columns, steps * width)]))
        alone, cross = both[:, :steps], both[:, steps:].reshape(n_columns, steps, width)
        if not width:
            return np.asarray(alone), np.zeros(0)
        left = self.own - np.einsum("fhc,fhd->cd", self.cross, cross, optimize=True)
        left += _FREE * np.diag(np.maximum(np.diag(self.own), 1e-9))
        effect = np.linalg.solve(left, self.own_pull - np.einsum("fhc,fh->c", self.cross, alone, optimize=True))
        return np.asarray(alone - cross @ effect), np.asarray(effect)
