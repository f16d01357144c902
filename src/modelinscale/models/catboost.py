"""Boosted symmetric trees (CatBoost): every node of a level asks the same question. Often best untouched where categories decide.

Categories of few ids come as a column each; of many as what the target was for them on average (`_Design`). Weights are plain arrays, so that answering
needs no CatBoost.

N rows, F columns, T trees of depth D, C scores.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.core.encoded import Encoded, Form, Layout
from modelinscale.core.errors import ModelError, needs
from modelinscale.core.graph import Graph
from modelinscale.core.seeds import derive
from modelinscale.core.task import Task
from modelinscale.models import MORE_ROUNDS, Effort, Examples, Model, Scores, Weights
from modelinscale.models._catboost import Design, draw_trees, leaves_of, trees_of
from modelinscale.models._matrix import blocks_of
from modelinscale.models._totals import centre_and_spread

_LOSS = {"binary": "Logloss", "multiclass": "MultiClass", "regression": "RMSE"}
_WORDS = 2_000
"""Most columns of words and pairs: the matrix is a full one."""
_SCORED_ROWS = 4_096
_NEW_TREES = 20


class Catboost(Model):
    """CatBoost's gradient-boosted symmetric trees; slower to train than `trees`, quick to answer, good with its defaults."""

    form: ClassVar[Form] = "plain"

    rounds: int = Field(1000, ge=1)
    """Most boosting rounds; with validation rows the best number up to this is kept."""
    learning_rate: float | None = Field(None, gt=0, le=1)
    """How much of each tree is added. Null: CatBoost's own choice by rows and rounds."""
    depth: int = Field(6, ge=1, le=12)
    """Questions that a tree asks of each row."""
    l2: float = Field(3.0, ge=0)
    """Penalty on the squared values of leaves."""
    patience: int = Field(50, ge=1)
    """Rounds without a better validation loss after which it stops."""

    def accepts(self, task: Task, layouts: dict[str, Layout]) -> str:
        if task.several:
            return f"it gives one class or one number, not {task.several}; `network` does"
        words = sum(layout.width for layout in layouts.values() if layout.role == "sparse")
        if words > _WORDS:
            return f"{words:,} columns of words are more than the {_WORDS:,} it can hold as a full matrix"
        return "" if blocks_of(layouts) else "there is no feature to split on"

    def fit(self, train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        center, scale = centre_and_spread(train, task)
        design = Design.observe(train, task, center, scale, derive(effort.seed, "catboost", "folds"))
        model = self._learned(design.training(train), train, design, valid, task, effort, center, scale, self.rounds, None)
        return _weights(design, trees_of(model, task.n_scores), task, center, scale, float(model.learning_rate_))

    def without_valid(self, learned: Sequence[Weights], task: Task) -> "Catboost":
        """A tenth more rounds than were best, with the steps that CatBoost chose."""
        rounds = float(np.mean([n_rounds(one) for one in learned]))
        return self.but(rounds=max(1, round(rounds * MORE_ROUNDS)), learning_rate=float(np.mean([one.meta["learning_rate"] for one in learned])))

    def update(self, weights: Weights, new: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        """Adds up to 20 trees for what the old ones leave of the new rows; what categories stand for stays."""
        design, center, scale = Design.parse(weights), weights.meta["center"], weights.meta["scale"]
        before = (self.predict(weights, new.rows) - center) / scale
        model = self._learned(design.matrix(new.rows), new, design, None, task, effort, center, scale, _NEW_TREES, before)
        added, old = trees_of(model, task.n_scores), weights.arrays
        trees = {name: _stacked(old[name], added[name]) for name in ("feature", "border", "leaves")} | {"bias": old["bias"] + added["bias"]}
        return _weights(design, trees, task, center, scale, weights.meta.get("learning_rate"))

    def predict(self, weights: Weights, rows: Encoded) -> Scores:
        design = Design.parse(weights)
        parts = [leaves_of(weights.arrays, design.matrix(rows.slice(a, a + _SCORED_ROWS))) for a in range(0, max(1, rows.n_rows), _SCORED_ROWS)]
        scores = np.concatenate(parts) * float(weights.meta["scale"]) + float(weights.meta["center"])
        return scores if scores.shape[1] > 1 else scores[:, 0]

    def graph(self, weights: Weights, task: Task, layouts: dict[str, Layout], graph: Graph, blocks: dict[str, str]) -> str:
        tensor = draw_trees(weights.arrays, graph, Design.parse(weights).draw(graph, blocks))
        if task.type == "regression":
            scale, center = (graph.constant(weights.meta[name], np.float32) for name in ("scale", "center"))
            tensor = graph.op("Add", graph.op("Mul", tensor, scale), center)
        return tensor if task.n_scores > 1 else graph.op("Squeeze", tensor, graph.constant([1], np.int64))

    def row_bytes(self, weights: Weights) -> int:
        return 8 * len(Design.parse(weights).columns)

    def edges(self, weights: Weights) -> dict[str, NDArray[np.float32]]:
        columns, found = Design.parse(weights).columns, {}
        for at in np.unique(weights.arrays["feature"]):
            role, name, _ = columns[at]
            values = weights.arrays["border"][weights.arrays["feature"] == at]
            values = np.unique(values[np.abs(values) < np.finfo(np.float32).max])  # the very least is where it parts what is missing
            if role == "dense" and len(values):
                found[name] = values
        return found

    def importance(self, weights: Weights, layouts: dict[str, Layout]) -> dict[str, float]:
        """Share of how much the leaves beside each question differ, on average over the other questions of its tree."""
        columns, shares = Design.parse(weights).columns, dict.fromkeys(layouts, 0.0)
        feature, border, leaves = (weights.arrays[name] for name in ("feature", "border", "leaves"))
        for bit in range(feature.shape[1]):
            numbers = np.arange(leaves.shape[1])
            low = numbers[(numbers >> bit) & 1 == 0]
            size = np.abs(leaves[:, low | (1 << bit)] - leaves[:, low]).mean(axis=(1, 2))
            for t in np.flatnonzero(np.isfinite(border[:, bit])):
                shares[columns[feature[t, bit]][2]] += float(size[t])
        total = sum(shares.values()) or 1.0
        return {name: value / total for name, value in shares.items()}

    def _learned(
        self,
        X: NDArray[np.float32],
        examples: Examples,
        design: Design,
        valid: Examples | None,
        task: Task,
        effort: Effort,
        center: float,
        scale: float,
        rounds: int,
        before: Scores | None,
    ) -> Any:
        library = needs("catboost", extra="catboost")
        start = time.monotonic()

        def pool(matrix: NDArray[np.float32], of: Examples, baseline: Scores | None) -> Any:
            target = (of.target - center) / scale if task.type == "regression" else of.target
            return library.Pool(matrix, target, weight=of.weight, baseline=baseline)

        params: dict[str, Any] = {
            "loss_function": _LOSS[task.type],
            "iterations": rounds,
            "learning_rate": 0.05 if before is not None else self.learning_rate,
            "depth": self.depth,
            "l2_leaf_reg": self.l2,
            "random_seed": derive(effort.seed, "catboost") % (1 << 31),
            "thread_count": effort.n_threads or -1,
            "logging_level": "Silent",
            "allow_writing_files": False,
        }
        if task.type == "multiclass":
            params["classes_count"] = task.n_scores
        stops = None if valid is None or not len(valid) else pool(design.matrix(valid.rows), valid, None)
        if stops is not None:
            params |= {"od_type": "Iter", "od_wait": self.patience, "use_best_model": True}
        model = library.CatBoost({name: value for name, value in params.items() if value is not None})
        try:
            model.fit(pool(X, examples, before), eval_set=stops, callbacks=[_Watch(start, rounds, effort)])
        except library.CatBoostError as error:
            raise ModelError(f"CatBoost cannot learn this: {str(error).splitlines()[0]}", fix="Bring more rows, or choose another model.") from error
        return model


@dataclass(frozen=True)
class _Watch:
    """Called by CatBoost after each round."""

    start: float
    rounds: int
    effort: Effort

    def after_iteration(self, info: Any) -> bool:
        """Whether to go on."""
        if info.iteration % 10 == 0:
            self.effort.progress(info.iteration / self.rounds, f"round {info.iteration}")
        return self.effort.budget_s is None or time.monotonic() - self.start <= self.effort.budget_s


def n_rounds(weights: Weights) -> int:
    """Rounds that were kept."""
    return len(weights.arrays["feature"])


def _weights(design: Design, trees: dict[str, NDArray[Any]], task: Task, center: float, scale: float, learning_rate: float | None) -> Weights:
    arrays, meta = design.plain()
    return Weights(arrays | trees, {**meta, "n_scores": task.n_scores, "center": center, "scale": scale, "learning_rate": learning_rate})


def _stacked(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Trees of both, the shallower ones filled up with questions that nobody answers with yes, and leaves that nobody reaches."""
    width = max(a.shape[1], b.shape[1])

    def wide(one: NDArray[Any]) -> NDArray[Any]:
        fill = np.inf if one.dtype == np.float32 else 0
        return np.pad(one, [(0, 0), (0, width - one.shape[1]), *[(0, 0)] * (one.ndim - 2)], constant_values=fill)

    return np.concatenate([wide(a), wide(b)])
