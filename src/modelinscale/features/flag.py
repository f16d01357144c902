"""Flags: yes, no, or not said."""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Form, InputType, Layout
from modelinscale.core.graph import Graph
from modelinscale.core.schema import Column
from modelinscale.features import Feature, State

if TYPE_CHECKING:
    import polars as pl


class Flag(Feature):
    """True or false; of numbers, everything but 0 is true.

    plain: 1, 0, missing NaN. scaled: 1, -1, missing 0; a second column flags missing values if training rows had any.

    >>> import polars as pl
    >>> flag = Flag()
    >>> flag.encode(flag.empty(), pl.Series([True, False, None]), "scaled").tolist()
    [[1.0], [-1.0], [0.0]]
    """

    input: ClassVar[InputType] = "float64"

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type in ("bool", "int", "float")

    def empty(self) -> State:
        return {"n": 0, "missing": 0, "true": 0}

    def observe(self, state: State, values: "pl.Series") -> State:
        x = _float64(values)
        n_missing = int(np.count_nonzero(np.isnan(x)))
        return self.merge(state, {"n": len(x), "missing": n_missing, "true": int(np.count_nonzero(x != 0)) - n_missing})  # NaN is not 0 either

    def merge(self, a: State, b: State) -> State:
        return {key: a[key] + b[key] for key in ("n", "missing", "true")}

    def layout(self, state: State, form: Form) -> Layout:
        names = ("", "missing") if form == "scaled" and state["missing"] else ("",)
        return Layout("dense", len(names), names)

    def encode(self, state: State, values: "pl.Series", form: Form) -> NDArray[np.float32]:
        x = _float64(values)
        missing = np.isnan(x)
        yes, no, unknown = _NUMBERS[form]
        known = np.where(missing, unknown, np.where(x != 0, yes, no))
        return np.stack([known, missing.astype(np.float32)], axis=1) if form == "scaled" and state["missing"] else known[:, None]

    def graph(self, state: State, form: Form, graph: Graph, tensor: str) -> str:
        x = graph.op("Unsqueeze", tensor, graph.constant([1], np.int64))  # (N, 1)
        missing = graph.op("IsNaN", x)
        yes, no, unknown = (graph.constant(v) for v in _NUMBERS[form])
        known = graph.op("Where", missing, unknown, graph.op("Where", graph.op("Equal", x, graph.constant(0.0, np.float64)), no, yes))
        if form == "plain" or not state["missing"]:
            return known
        return graph.op("Concat", known, graph.op("Cast", missing, to=graph.FLOAT32), axis=1)

    def examples(self, state: State | None = None) -> list[Any]:
        return [None, 1.0, 0.0, -0.0, float("nan"), 2.0, -1.0, 0.5, 5e-324, float("inf"), float("-inf")]


_NUMBERS: dict[Form, tuple[np.float32, np.float32, np.float32]] = {
    "plain": (np.float32(1), np.float32(0), np.float32("nan")),
    "scaled": (np.float32(1), np.float32(-1), np.float32(0)),
}
"""Yes, no, missing."""


def _float64(values: "pl.Series") -> NDArray[np.float64]:
    import polars as pl

    x = values.cast(pl.Float64)
    return (x.fill_null(float("nan")) if x.null_count() else x).to_numpy()  # it would make NaN of what is missing by itself, but several times slower
