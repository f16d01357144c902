"""What comes next, from what was: a linear map of the last numbers of a series to the next ones, relative to where and how wide the series is.

N rows, T numbers of history, H numbers to come. Each row's history is taken from its last number and divided by its own deviation, and so is the answer:
series of any level and scale then share one map, found in closed form. Sources: Zeng and others 2023 (NLinear, arXiv 2205.13504); Li and others 2023
(RLinear, arXiv 2305.10721).
"""

import time
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.core.encoded import Encoded, Form, Layout, Values, block_name, feature_of
from modelinscale.core.graph import Graph
from modelinscale.core.order import shuffled
from modelinscale.core.space import Range, Span
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Model, Scores, Weights
from modelinscale.models._threads import one_blas_thread
from modelinscale.models.linear import Linear, _Design, _Problem

F64 = NDArray[np.float64]

_STRENGTHS = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1)
"""Tried on the validation rows."""
_USUAL = 3e-2
_FREE = 1e-7
"""Penalty of the intercept."""
_LEAST_STEPS = 8
"""A list of fewer numbers is no history."""
_CELLS = 40_000_000
"""Rows times columns that are learned from at most: 320 MB."""
_CELL_BYTES = 32


class Forecast(Model):
    """Forecasts: the next numbers of a series from a list of its last ones; other columns add to them linearly. Classes are told as by `linear`."""

    form: ClassVar[Form] = "plain+scaled"
    searched: ClassVar[Mapping[str, Span | None]] = {"strength": Range(1e-4, 1.0, log=True, start=3e-2), "rows": None}

    history: str | None = None
    """The column with the last numbers, the newest at the end; null: the longest list of numbers, of 8 at least."""
    strength: float | None = Field(None, gt=0)
    """How much coefficients are held back; null: the best of five on the validation rows, 0.03 without any."""
    rows: int | None = Field(None, ge=1000)
    """Most rows to learn from, drawn by the seed; null: as many as memory allows, some 75,000 with a history of 512."""

    def accepts(self, task: Task, layouts: dict[str, Layout]) -> str:
        why = Linear().accepts(task, layouts)
        if why:
            return why
        if self.history is not None and self._history(layouts) is None:
            return f"there is no column {self.history!r} that holds a list of numbers"
        return ""

    def fit(self, train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        since = time.monotonic()
        if task.type != "regression":
            head = Linear().fit(_relative(train, None, 1.0, self.form), None if valid is None else _relative(valid, None, 1.0, self.form), task, effort)
            return Weights(head.arrays, {"head": head.meta, "history": None, "floor": 1.0})
        column = self._history(train.layouts)
        train = self._some(train, effort)
        floor = _floor(np.asarray(train.rows[column])) if column else 1.0
        train = _relative(train, column, floor, self.form)
        design = _Design.observe(train)
        problem = _Problem.of(design, train, task)
        held_out = (
            None
            if valid is None or len(valid) < 20
            else _Problem.of(design, _relative(self._some(valid, effort), column, floor, self.form), task, like=problem)
        )
        strengths = (self.strength,) if self.strength else _STRENGTHS if held_out is not None else (_USUAL,)
        with one_blas_thread():
            curvature, pull = _normal(problem)
            best: tuple[float, float, F64] | None = None
            for i, strength in enumerate(strengths):
                penalty = np.full(len(curvature), strength)
                penalty[-1] = _FREE
                W = np.asarray(np.linalg.solve(curvature + np.diag(penalty), pull), np.float64)
                loss = 0.0 if held_out is None else held_out.loss(W)
                effort.progress((i + 1) / len(strengths), f"strength {strength:.2g}, loss {loss:.4g}")
                if best is None or loss < best[0]:
                    best = (loss, strength, W)
                if effort.budget_s is not None and time.monotonic() - since > effort.budget_s:
                    break
        assert best is not None
        head = problem.weights(best[2], task, strength=best[1], n_rows=float(len(train)))
        return Weights(head.arrays, {"head": head.meta, "history": column, "floor": floor})

    def update(self, weights: Weights, new: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        """From the old coefficients, each held to its old value as firmly as the old rows determined it."""
        column, floor = weights.meta["history"], weights.meta["floor"]
        new = _relative(self._some(new, effort), column, floor, self.form)
        head = Linear(rows=None).update(_head(weights), new, None, task, effort)
        return Weights(head.arrays, {**weights.meta, "head": head.meta})

    def predict(self, weights: Weights, rows: Encoded) -> Scores:
        column, floor = weights.meta["history"], weights.meta["floor"]
        found = Linear().predict(_head(weights), _seen(rows, column, floor, self.form))
        if column is None:
            return found
        level, width = _place(np.asarray(rows[column]), floor)
        return found * width + level if found.ndim == 2 else found * width[:, 0] + level[:, 0]

    def graph(self, weights: Weights, task: Task, layouts: dict[str, Layout], graph: Graph, blocks: dict[str, str]) -> str:
        column, seen = weights.meta["history"], _layouts(layouts, weights.meta["history"], self.form)
        tensors = {name: blocks[name] for name in seen}
        if column is None:
            return Linear().graph(_head(weights), task, seen, graph, tensors)
        level, width, tensors[column] = _draw_place(graph, blocks[column], weights.meta["floor"])
        found = Linear().graph(_head(weights), task, seen, graph, tensors)
        if task.n_scores == 1:
            last = graph.constant([1], np.int64)
            level, width = graph.op("Squeeze", level, last), graph.op("Squeeze", width, last)
        found = graph.op("Add", graph.op("Mul", graph.op("Cast", found, to=graph.FLOAT64), width), level)
        return graph.op("Cast", found, to=graph.FLOAT32)

    def importance(self, weights: Weights, layouts: dict[str, Layout]) -> dict[str, float]:
        """Share of the summed sizes of the coefficients, each in units of its column's deviation."""
        found = dict.fromkeys((feature_of(name, self.form) for name in layouts), 0.0)
        for name, share in Linear().importance(_head(weights), _layouts(layouts, weights.meta["history"], self.form)).items():
            found[feature_of(name, self.form)] += share
        return found

    def _history(self, layouts: Mapping[str, Layout]) -> str | None:
        """The block of the history."""
        lists = {name: layout.width for name, layout in layouts.items() if _is(name, "plain", self.form) and layout.role == "dense"}
        if self.history is not None:
            name = block_name(self.history, "plain", self.form)
            return name if name in lists else None
        longest = max(lists, key=lambda name: lists[name], default=None)
        return longest if longest is not None and lists[longest] >= _LEAST_STEPS else None

    def _some(self, examples: Examples, effort: Effort) -> Examples:
        """At most as many rows as may be held, drawn by the seed; in memory."""
        cells = _CELLS if effort.memory is None else min(_CELLS, effort.memory // _CELL_BYTES)
        width = sum(layout.width for name, layout in examples.layouts.items() if _is(name, "scaled", self.form))
        most = max(1000, min(self.rows or len(examples), cells // max(1, width)))
        if len(examples) <= most:
            return examples if examples.held else examples.take(np.arange(len(examples)))
        return examples.take(np.sort(shuffled(len(examples), effort.seed)[:most]))


def _is(block: str, one: Form, form: Form) -> bool:
    return block == block_name(feature_of(block, form), one, form)


def _head(weights: Weights) -> Weights:
    return Weights(weights.arrays, weights.meta["head"])


def _floor(history: NDArray[np.float32]) -> float:
    """The least deviation that a history is divided by: far below those of the training rows, so that still ones do not become wild ones."""
    widths = np.nanstd(np.where(np.isfinite(history).any(axis=1, keepdims=True), history, 0).astype(np.float64), axis=1)
    widths = widths[widths > 0]
    return float(np.quantile(widths, 0.05) / 100) if len(widths) else 1.0


def _place(history: NDArray[np.float32], floor: float) -> tuple[F64, F64]:
    """(N, 1) each: the last number of each row that is known (0 without any), and the deviation of those that are."""
    known = np.isfinite(history)
    x = np.where(known, history, 0).astype(np.float64)
    n = np.maximum(known.sum(axis=1, keepdims=True), 1)
    last = history.shape[1] - 1 - known[:, ::-1].argmax(axis=1)
    level = x[np.arange(len(x)), last][:, None]
    mean = x.sum(axis=1, keepdims=True) / n
    width = np.sqrt((np.where(known, x - mean, 0) ** 2).sum(axis=1, keepdims=True) / n)
    return level, np.maximum(width, floor)


def _seen(rows: Encoded, column: str | None, floor: float, form: Form) -> Encoded:
    """Rows as the linear model sees them: all columns scaled, but the history in its own units."""
    layouts = _layouts(rows.layouts, column, form)
    blocks: dict[str, Values] = {name: rows[name] for name in layouts}
    if column is not None:
        history = np.asarray(rows[column])
        level, width = _place(history, floor)
        blocks[column] = np.where(np.isfinite(history), (history - level) / width, 0).astype(np.float32)
    return Encoded(layouts, blocks)


def _layouts(layouts: Mapping[str, Layout], column: str | None, form: Form) -> dict[str, Layout]:
    history = None if column is None else feature_of(column, form)
    return {name: layout for name, layout in layouts.items() if name == column or (_is(name, "scaled", form) and feature_of(name, form) != history)}


def _relative(examples: Examples, column: str | None, floor: float, form: Form) -> Examples:
    """Rows as the linear model sees them, with answers in the units of their history."""
    target = examples.target
    if column is not None:
        level, width = _place(np.asarray(examples.rows[column]), floor)
        target = (target - level) / width if target.ndim == 2 else (target - level[:, 0]) / width[:, 0]
    return Examples(_seen(examples.rows, column, floor, form), target, examples.weight)


def _normal(problem: _Problem) -> tuple[F64, F64]:
    """The normal equations: (F + 1, F + 1) and (F + 1, C), the intercept last."""
    X, share = problem.X, problem.share
    X = np.hstack([X.toarray() if hasattr(X, "toarray") else X, np.ones((X.shape[0], 1))])
    weighted = X * share[:, None]
    return X.T @ weighted, weighted.T @ problem.target.reshape(len(share), -1)


def _draw_place(graph: Graph, history: str, floor: float) -> tuple[str, str, str]:
    """Draws level and width, float64 (N, 1), and the history in these units, float32 (N, T)."""
    one, last = graph.constant([1], np.int64), graph.constant([-1], np.int64)
    zero = graph.constant(0.0, np.float64)
    unknown = graph.op("Or", graph.op("IsNaN", history), graph.op("IsInf", history))
    x = graph.op("Where", unknown, zero, graph.op("Cast", history, to=graph.FLOAT64))
    known = graph.op("Cast", graph.op("Not", unknown), to=graph.INT64)
    n = graph.op("Cast", graph.op("Max", graph.op("ReduceSum", known, one), one), to=graph.FLOAT64)
    steps = graph.op("Range", graph.constant(0, np.int64), graph.op("Squeeze", graph.op("Shape", x, start=1, end=2)), graph.constant(1, np.int64))
    at = graph.op("Where", unknown, last, steps)
    newest = graph.op("ReduceMax", at, one)  # -1 where nothing is known: the last number, which then is 0
    level = graph.op("GatherElements", x, newest, axis=1)
    mean = graph.op("Div", graph.op("ReduceSum", x, one), n)
    away = graph.op("Where", unknown, zero, graph.op("Sub", x, mean))
    width = graph.op("Sqrt", graph.op("Div", graph.op("ReduceSum", graph.op("Mul", away, away), one), n))
    width = graph.op("Max", width, graph.constant(floor, np.float64))
    z = graph.op("Where", unknown, zero, graph.op("Div", graph.op("Sub", x, level), width))
    return level, width, graph.op("Cast", z, to=graph.FLOAT32)
