"""Sequences: numbers per step, one or several channels, rows of different lengths.

N rows, T steps, D channels, M steps of all rows together.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from modelinscale.core.bins import Bins
from modelinscale.core.encoded import Form, InputType, Layout, Values
from modelinscale.core.errors import DataError
from modelinscale.core.graph import Graph
from modelinscale.core.schema import Column
from modelinscale.features import Feature, State
from modelinscale.features._exact import added, learned, seen
from modelinscale.features._lengths import usual
from modelinscale.features._ragged import Ragged
from modelinscale.features._standard import draw_standardised, ends, standardised
from modelinscale.features._summary import NAMES, draw_summary, summary

if TYPE_CHECKING:
    import polars as pl


class Sequence(Feature):
    """A list of numbers, or of lists of numbers (one for each channel), of any length.

    deep: each channel standardised over the steps of the training rows and cut at ± 10, at most `longest` steps, the first ones. plain and scaled: mean,
    deviation, first, last, smallest and largest number of each channel, and how many steps there are. A number that is missing does not count (deep:
    it is at the mean); steps at the end without any number are none; a missing sequence is an empty one. Python and graph give the same bits.
    """

    input: ClassVar[InputType] = "sequence"
    deep: ClassVar[bool] = True

    longest: int | None = Field(None, ge=1, le=100_000)
    """Steps of a row that a model of steps is shown at most, the first ones; null: from the training rows, at most 512. A note tells how many rows are cut."""

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type == "sequence"

    def empty(self) -> State:
        return {"n": 0, "missing": 0, "width": None, "finite": [], "sums": [], "squares": [], "lengths": Bins.of(np.zeros(0)).plain()}

    def observe(self, state: State, values: "pl.Series") -> State:
        rows = Ragged.of(values)
        lengths = Bins.of(rows.sizes.astype(np.float64)).plain()
        now = {"n": len(values), "missing": values.null_count(), "width": rows.width, **seen(rows.numbers), "lengths": lengths}
        return self.merge(state, now)

    def merge(self, a: State, b: State) -> State:
        if a["width"] is None or b["width"] is None:
            return dict(b if a["width"] is None else a)
        if a["width"] != b["width"]:
            raise DataError(
                f"sequences of {a['width']} and of {b['width']} channels in one column.", fix="All rows of a sequence column need the same channels."
            )
        lengths = Bins.load(a["lengths"]).merged(Bins.load(b["lengths"])).plain()
        return {"n": a["n"] + b["n"], "missing": a["missing"] + b["missing"], "width": a["width"], **added(a, b), "lengths": lengths}

    def layout(self, state: State, form: Form) -> Layout:
        if state["width"] is None:
            raise DataError("a sequence whose channels are not known: no rows were seen.", fix="Learn the states from the table first.")
        T, D = self._longest(state), state["width"]
        if form == "deep":
            return Layout("steps", T * D, (), (T, D))
        names = [name if D == 1 else f"{name} {channel}" for name in NAMES for channel in range(D)]
        return Layout("dense", len(names) + 1, (*names, "steps"))

    def encode(self, state: State, values: "pl.Series", form: Form) -> Values:
        rows = Ragged.of(values)
        if rows.width != state["width"]:
            raise DataError(
                f"column {values.name!r} has sequences of {rows.width} channels, the model learned {state['width']}.", fix="Send as many numbers a step."
            )
        if form != "deep":
            return summary(rows, learned(state), Bins.load(state["lengths"]).moments(), form)
        rows = rows.cut(self._longest(state))
        z = np.where(np.isnan(rows.numbers), 0.0, standardised(rows.numbers, learned(state))).astype(np.float32)
        found = np.full((len(values), *self.layout(state, form).shape), np.nan, np.float32)
        found[rows.rows(), rows.places()] = z
        return found

    def graph(self, state: State, form: Form, graph: Graph, tensor: str) -> str:
        T, D = self._longest(state), state["width"]
        n_rows = graph.op("Shape", tensor, start=0, end=1)
        size = graph.op("Concat", n_rows, graph.constant([T if form == "deep" else 1, D], np.int64), axis=0)
        none = graph.op("Expand", graph.constant(np.float32(np.nan)), size)
        tensor = graph.op("Concat", tensor, none, axis=1)  # at least one step, however few come
        if form != "deep":
            return draw_summary(graph, tensor, learned(state), Bins.load(state["lengths"]).moments(), form)
        zero, one = graph.constant([0], np.int64), graph.constant([1], np.int64)
        tensor = graph.op("Slice", tensor, zero, graph.constant([T], np.int64), one)
        missing = graph.op("IsNaN", tensor)
        own = graph.op("Less", graph.constant(np.arange(T)[None, :]), graph.op("Unsqueeze", ends(graph, missing), one))  # (N, T)
        z = graph.op("Where", missing, graph.constant(0.0, np.float64), draw_standardised(graph, tensor, learned(state)))
        own = graph.op("Unsqueeze", own, graph.constant([2], np.int64))
        return graph.op("Where", own, graph.op("Cast", z, to=graph.FLOAT32), graph.constant(np.float32(np.nan)))

    def examples(self, state: State | None = None) -> list[Any]:
        width = (state or {}).get("width") or 2
        nan = float("nan")
        odd = [0.0, -0.0, 1.0, -1.0, 0.1, 3.4028234663852886e38, -3.4028234663852886e38, 1.401298464324817e-45, nan, 1e-20, 12345.678]
        steps = [[odd[(i + k) % len(odd)] for k in range(width)] for i in range(len(odd))]
        gone, still = [nan] * width, [0.5] * width
        rising = [[t / 100 + k for k in range(width)] for t in range(300)]
        found = [
            [],
            [gone],
            [gone, gone],
            [still],
            [gone, still],
            [still, gone],
            [still] * 40,
            steps,
            steps[::-1],
            rising,
            rising * 34,
            *([one] for one in steps),
        ]
        return [None, *([step[0] for step in one] if width == 1 else one for one in found)]

    def notes(self, state: State, form: Form) -> tuple[str, ...]:
        T, lengths = self._longest(state), Bins.load(state["lengths"])
        n, most = int(lengths.counts[lengths.middles() > T].sum()), int(lengths.quantile(1.0))
        if "deep" not in form or not n:
            return ()
        share = n / int(lengths.counts.sum())
        return (f"{n:,} sequences to learn from ({share:.1%}) are cut to their first {T:,} steps; the longest has {most:,}. `longest` lets models see more.",)

    def _longest(self, state: State) -> int:
        return self.longest or usual(Bins.load(state["lengths"]))
