"""A row of a forecast as its linear map sees it: numbers taken from the last one known and divided by the deviation of those that were.

N rows, T numbers of history, H numbers to come.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Form, Layout, Values, block_name, feature_of
from modelinscale.core.graph import Graph
from modelinscale.models import Examples

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class History:
    """Which columns are the history and go on over the steps to come, and the least deviation that is divided by."""

    column: str | None
    """The block of the history; None: answers are numbers as they are."""
    floor: float
    cut: tuple[str, ...] = ()
    """Features whose lists go on over the steps to come: of these only what was is seen here. What is to come counts by itself where it is known ahead
    (`_ahead.Ahead`), otherwise not."""

    @classmethod
    def parse(cls, meta: Mapping[str, Any]) -> "History":
        return cls(meta["history"], meta["floor"], tuple(meta.get("cut", meta.get("ahead", ()))))

    def layouts(self, layouts: Mapping[str, Layout], form: Form) -> dict[str, Layout]:
        """All columns scaled, but the history in its own units."""
        if self.column is None:
            return {name: layout for name, layout in layouts.items() if is_in(name, "scaled", form)}
        n_past, own = layouts[self.column].width, feature_of(self.column, form)
        found = {}
        for name, layout in layouts.items():
            feature = feature_of(name, form)
            if name == self.column:
                found[name] = layout
            elif is_in(name, "scaled", form) and feature != own:
                found[name] = Layout("dense", n_past, layout.names[:n_past]) if feature in self.cut else layout
        return found

    def seen(self, rows: Encoded, form: Form) -> Encoded:
        """As the linear map sees them."""
        layouts = self.layouts(rows.layouts, form)
        blocks: dict[str, Values] = {}
        for name, layout in layouts.items():
            block = rows[name]
            blocks[name] = block[:, : layout.width] if isinstance(block, np.ndarray) and feature_of(name, form) in self.cut else block
        if self.column is not None:
            history = np.asarray(rows[self.column])
            level, width = self.place(rows)
            blocks[self.column] = np.where(np.isfinite(history), (history - level) / width, 0).astype(np.float32)
        return Encoded(layouts, blocks)

    def relative(self, examples: Examples, form: Form) -> Examples:
        """As the linear map sees them, with answers in the units of their history."""
        target = examples.target
        if self.column is not None:
            level, width = self.place(examples.rows)
            target = (target - level) / width if target.ndim == 2 else (target - level[:, 0]) / width[:, 0]
        return Examples(self.seen(examples.rows, form), target, examples.weight)

    def place(self, rows: Encoded) -> tuple[F64, F64]:
        """(N, 1) each: the last number of each row that is known (0 without any), and the deviation of those that are."""
        assert self.column is not None
        history = np.asarray(rows[self.column])
        known = np.isfinite(history)
        x = np.where(known, history, 0).astype(np.float64)
        n = np.maximum(known.sum(axis=1, keepdims=True), 1)
        last = history.shape[1] - 1 - known[:, ::-1].argmax(axis=1)
        level = x[np.arange(len(x)), last][:, None]
        mean = x.sum(axis=1, keepdims=True) / n
        width = np.sqrt((np.where(known, x - mean, 0) ** 2).sum(axis=1, keepdims=True) / n)
        return level, np.maximum(width, self.floor)

    def draw(self, layouts: Mapping[str, Layout], form: Form, graph: Graph, blocks: Mapping[str, str]) -> tuple[dict[str, str], str, str]:
        """Draws what the linear map sees, and level and width, float64 (N, 1); "" where there is no history."""
        tensors = {}
        for name, layout in self.layouts(layouts, form).items():
            tensors[name] = blocks[name]
            if feature_of(name, form) in self.cut:
                ends = [graph.constant([k], np.int64) for k in (0, layout.width, 1)]
                tensors[name] = graph.op("Slice", blocks[name], *ends[:2], ends[2])
        if self.column is None:
            return tensors, "", ""
        level, width, tensors[self.column] = _draw_place(graph, blocks[self.column], self.floor)
        return tensors, level, width


def is_in(block: str, one: Form, form: Form) -> bool:
    """Whether a block is in one of the forms that lie side by side."""
    return block == block_name(feature_of(block, form), one, form)


def least_deviation(history: NDArray[np.float32]) -> float:
    """The least deviation that a history is divided by: far below those of the training rows, so that still ones do not become wild ones."""
    widths = np.nanstd(np.where(np.isfinite(history).any(axis=1, keepdims=True), history, 0).astype(np.float64), axis=1)
    widths = widths[widths > 0]
    return float(np.quantile(widths, 0.05) / 100) if len(widths) else 1.0


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
