"""What comes next, from what was: a linear map of the last numbers of a series to the next ones, relative to where and how wide the series is.

N rows, T numbers of history, H numbers to come. Each row's history is taken from its last number and divided by its own deviation, and so is the answer:
series of any level and scale then share one map, found in closed form. Sources: Zeng and others 2023 (NLinear, arXiv 2205.13504); Li and others 2023
(RLinear, arXiv 2305.10721).
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.core.encoded import Encoded, Form, Layout, block_name, feature_of
from modelinscale.core.graph import Graph
from modelinscale.core.order import shuffled
from modelinscale.core.space import Range, Span
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Model, Scores, Weights
from modelinscale.models._ahead import Ahead, Normal
from modelinscale.models._history import History, is_in, least_deviation
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
_USUAL_NAME = "history"
"""What windows call the column of the last numbers."""


class Forecast(Model):
    """Forecasts: the next numbers of a series from a list of its last ones; lists that go on over the steps to come add to each step what is known of it ahead,
    other columns add linearly. Classes are told as by `linear`."""

    form: ClassVar[Form] = "plain+scaled"
    searched: ClassVar[Mapping[str, Span | None]] = {"strength": Range(1e-4, 1.0, log=True, start=3e-2), "rows": None}

    history: str | None = None
    """The column with the last numbers, the newest at the end; null: ``history``, or the only list of 8 numbers at least that does not
    go on over the steps to come of another."""
    ahead: tuple[str, ...] | None = None
    """Columns that are known ahead: lists of as many numbers as the history has, then one for each step to be forecast; null: all lists of that length.
    Of such a list that is not named here only what was is seen."""
    strength: float | None = Field(None, gt=0)
    """How much coefficients are held back; null: the best of five on the validation rows, 0.03 without any."""
    rows: int | None = Field(None, ge=1000)
    """Most rows to learn from, drawn by the seed; null: as many as memory allows, some 75,000 with a history of 512."""

    def accepts(self, task: Task, layouts: dict[str, Layout]) -> str:
        why = Linear().accepts(task, layouts)
        if why:
            return why
        column = self._history(layouts, task)
        if self.history is not None and column is None:
            return f"there is no column {self.history!r} that holds a list of numbers"
        several = self._candidates(layouts, task)
        if len(several) > 1 and task.type == "regression":
            return f"{', '.join(map(repr, several))} are lists of numbers, and each may be the history: name `history`"
        if self.ahead and task.type != "regression":
            return "`ahead` is for numbers that are forecast"
        lists = self._ahead(layouts, column, task)
        for name in self.ahead or ():
            if name not in lists:
                n_past = layouts[column].width if column is not None else 0
                return (
                    f"the column {name!r} is known ahead and needs lists of {n_past} + {task.n_scores} numbers, those of the history and of the steps to come"
                )
        return ""

    def fit(self, train: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        since = time.monotonic()
        if task.type != "regression":
            plain = History(None, 1.0)
            head = Linear().fit(plain.relative(train, self.form), None if valid is None else plain.relative(valid, self.form), task, effort)
            return Weights(head.arrays, {"head": head.meta, "history": None, "floor": 1.0})
        column = self._history(train.layouts, task)
        given = self._some(train, effort)
        ahead = self._ahead(train.layouts, column, task)
        self._tell(column, ahead, effort)
        cut = self._going_on(train.layouts, column, task)
        history = History(column, least_deviation(np.asarray(given.rows[column])) if column else 1.0, cut)
        known = Ahead.observe(given.rows, ahead, task.n_scores, self.form)
        seen = history.relative(given, self.form)
        design = _Design.observe(seen)
        problem = _Problem.of(design, seen, task)
        held_out, held_known = None, None
        if valid is not None and len(valid) >= 20:
            chosen = self._some(valid, effort)
            held_out, held_known = _Problem.of(design, history.relative(chosen, self.form), task, like=problem), _in_units(known, chosen.rows, problem)
        strengths = (self.strength,) if self.strength else _STRENGTHS if held_out is not None else (_USUAL,)
        with one_blas_thread():
            X = np.hstack([problem.X.toarray() if hasattr(problem.X, "toarray") else problem.X, np.ones((problem.X.shape[0], 1))])
            normal = Normal.of(X, problem.target.reshape(len(X), -1), problem.share, _in_units(known, given.rows, problem))
            best: tuple[float, float, F64, F64] | None = None
            for i, strength in enumerate(strengths):
                penalty = strength * Linear()._firmness(design)[:, 0]  # as `update` holds them
                penalty[-1] = _FREE
                W, effect = normal.solve(penalty)
                loss = 0.0
                if held_out is not None and held_known is not None:
                    loss = replace(held_out, target=held_out.target - (held_known @ effect).reshape(held_out.target.shape)).loss(W)
                effort.progress((i + 1) / len(strengths), f"strength {strength:.2g}, loss {loss:.4g}")
                if best is None or loss < best[0]:
                    best = (loss, strength, W, effect)
                if effort.budget_s is not None and time.monotonic() - since > effort.budget_s:
                    break
        assert best is not None
        head = problem.weights(best[2], task, strength=best[1], n_rows=float(len(given)))
        known = replace(known, effect=best[3])
        meta = {"head": head.meta, "history": column, "floor": history.floor, **({"ahead": list(ahead), "steps": known.steps} if ahead else {})}
        return Weights({**head.arrays, **known.arrays}, {**meta, **({"cut": list(cut)} if cut != ahead else {})})

    def update(self, weights: Weights, new: Examples, valid: Examples | None, task: Task, effort: Effort) -> Weights:
        """From the old coefficients, each held to its old value as firmly as the old rows determined it; what is known ahead keeps its effect."""
        given = self._some(new, effort)
        seen = History.parse(weights.meta).relative(given, self.form)
        known = self._known(weights)
        if known.blocks:
            seen = Examples(seen.rows, seen.target - known.added(given.rows).reshape(seen.target.shape), seen.weight)
        head = Linear(rows=None).update(_head(weights), seen, None, task, effort)
        return Weights({**head.arrays, **known.arrays}, {**weights.meta, "head": head.meta})

    def predict(self, weights: Weights, rows: Encoded) -> Scores:
        history, known = History.parse(weights.meta), self._known(weights)
        found = Linear().predict(_head(weights), history.seen(rows, self.form))
        if history.column is None:
            return found
        if known.blocks:
            found = found + known.added(rows).reshape(found.shape)
        level, width = history.place(rows)
        return found * width + level if found.ndim == 2 else found * width[:, 0] + level[:, 0]

    def graph(self, weights: Weights, task: Task, layouts: dict[str, Layout], graph: Graph, blocks: dict[str, str]) -> str:
        history, known = History.parse(weights.meta), self._known(weights)
        tensors, level, width = history.draw(layouts, self.form, graph, blocks)
        found = Linear().graph(_head(weights), task, history.layouts(layouts, self.form), graph, tensors)
        if history.column is None:
            return found
        last = graph.constant([1], np.int64)
        found = graph.op("Cast", found, to=graph.FLOAT64)
        if task.n_scores == 1:
            found = graph.op("Unsqueeze", found, last)
        found = known.draw(graph, blocks, layouts[history.column].width, found)
        found = graph.op("Add", graph.op("Mul", found, width), level)
        if task.n_scores == 1:
            found = graph.op("Squeeze", found, last)
        return graph.op("Cast", found, to=graph.FLOAT32)

    def importance(self, weights: Weights, layouts: dict[str, Layout]) -> dict[str, float]:
        """Share of the summed sizes of the coefficients, each in units of its column's deviation."""
        found = dict.fromkeys((feature_of(name, self.form) for name in layouts), 0.0)
        head, known = _head(weights), self._known(weights)
        size = float((np.abs(head.arrays["coefficients"]).mean(axis=1) * head.arrays["spread"]).sum())
        effects = dict(zip(weights.meta.get("ahead", ()), np.abs(known.effect).tolist(), strict=True))
        total = size + sum(effects.values()) or 1.0
        for name, share in Linear().importance(head, History.parse(weights.meta).layouts(layouts, self.form)).items():
            found[feature_of(name, self.form)] += share * size / total
        for name, effect in effects.items():
            found[name] += effect / total
        return found

    def _known(self, weights: Weights) -> Ahead:
        return Ahead.parse(weights.arrays, weights.meta, self.form)

    def _lists(self, layouts: Mapping[str, Layout]) -> dict[str, int]:
        """Lists of numbers and their widths, by feature."""
        dense = {name: layout.width for name, layout in layouts.items() if layout.role == "dense"}
        return {feature_of(name, self.form): width for name, width in dense.items() if is_in(name, "plain", self.form)}

    def _history(self, layouts: Mapping[str, Layout], task: Task) -> str | None:
        """The block of the history, where it is clear which that is."""
        found = self._candidates(layouts, task)
        return block_name(found[0], "plain", self.form) if len(found) == 1 else None

    def _candidates(self, layouts: Mapping[str, Layout], task: Task) -> list[str]:
        """Features that may be the history. A list as long as another and the steps to come is what is known ahead beside that."""
        lists = self._lists(layouts)
        if self.history is not None:
            return [self.history] if self.history in lists else []
        lists = {name: width for name, width in lists.items() if width >= _LEAST_STEPS and name not in (self.ahead or ())}
        if _USUAL_NAME in lists:
            return [_USUAL_NAME]
        whole = {width + task.n_scores for width in lists.values()}
        return [name for name, width in lists.items() if width not in whole]

    def _tell(self, column: str | None, ahead: tuple[str, ...], effort: Effort) -> None:
        """What was taken for what without being named."""
        if column is not None and self.history is None and feature_of(column, self.form) != _USUAL_NAME:
            effort.tell(f"{feature_of(column, self.form)!r} is taken as the history; `history` names another.")
        if ahead and self.ahead is None:
            taken = "are taken as known" if len(ahead) > 1 else "is taken as known"
            effort.tell(f"{', '.join(map(repr, ahead))} {taken} ahead for the steps to come, by the length of its lists; `ahead` says what is.")

    def _ahead(self, layouts: Mapping[str, Layout], column: str | None, task: Task) -> tuple[str, ...]:
        """Features that are known ahead."""
        return tuple(name for name in self._going_on(layouts, column, task) if self.ahead is None or name in self.ahead)

    def _going_on(self, layouts: Mapping[str, Layout], column: str | None, task: Task) -> tuple[str, ...]:
        """Features whose lists go on over the steps to come. Of those that are not known ahead only what was is seen."""
        if column is None or task.type != "regression":
            return ()
        whole = layouts[column].width + task.n_scores
        return tuple(name for name, width in self._lists(layouts).items() if width == whole)

    def _some(self, examples: Examples, effort: Effort) -> Examples:
        """At most as many rows as may be held, drawn by the seed; in memory."""
        cells = _CELLS if effort.memory is None else min(_CELLS, effort.memory // _CELL_BYTES)
        width = sum(layout.width for name, layout in examples.layouts.items() if is_in(name, "scaled", self.form))
        most = max(1000, min(self.rows or len(examples), cells // max(1, width)))
        if len(examples) <= most:
            return examples if examples.held else examples.take(np.arange(len(examples)))
        return examples.take(np.sort(shuffled(len(examples), effort.seed)[:most]))


def _head(weights: Weights) -> Weights:
    return Weights({name: array for name, array in weights.arrays.items() if not name.startswith("ahead_")}, weights.meta["head"])


def _in_units(known: Ahead, rows: Encoded, problem: _Problem) -> F64:
    """(N, H, C) what is known ahead, in the units in which the problem has its answers."""
    return np.asarray(known.of(rows) / np.reshape(problem.scale, (1, -1, 1)))
