"""Vectors: lists of numbers of one width, such as embeddings or spectra.

N rows, W width.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Form, InputType, Layout
from modelinscale.core.errors import DataError
from modelinscale.core.graph import Graph
from modelinscale.core.schema import Column
from modelinscale.features import Feature, State
from modelinscale.features._exact import added, learned, seen

if TYPE_CHECKING:
    import polars as pl

_CLIP = 10.0
"""Largest scaled magnitude, in standard deviations."""


class Vector(Feature):
    """A list of numbers, all rows of one width.

    plain: the numbers as they are, float32; a missing vector is all NaN. scaled: each place standardised over the training rows and cut at ± 10,
    a number that is missing at the mean (0); one more column flags missing vectors if training rows had any. Python and graph give the same bits.
    """

    input: ClassVar[InputType] = "vector"

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type == "vector"

    def empty(self) -> State:
        return {"n": 0, "missing": 0, "width": None, "finite": [], "sums": [], "squares": []}

    def observe(self, state: State, values: "pl.Series") -> State:
        x = as_float32(values)
        now = {"n": len(x), "missing": int(np.isnan(x).all(axis=1).sum()), "width": x.shape[1], **seen(x)}
        return self.merge(state, now)

    def merge(self, a: State, b: State) -> State:
        if a["width"] is None or b["width"] is None:
            return dict(b if a["width"] is None else a)
        if a["width"] != b["width"]:
            raise DataError(f"vectors of width {a['width']} and of width {b['width']} in one column.", fix="All rows of a vector column need one width.")
        return {"n": a["n"] + b["n"], "missing": a["missing"] + b["missing"], "width": a["width"], **added(a, b)}

    def layout(self, state: State, form: Form) -> Layout:
        if state["width"] is None:
            raise DataError("a vector whose width is not known: no rows were seen.", fix="Learn the states from the table first.")
        names = [str(i) for i in range(state["width"])]
        if form == "scaled" and state["missing"]:
            names.append("missing")
        return Layout("dense", len(names), tuple(names))

    def encode(self, state: State, values: "pl.Series", form: Form) -> NDArray[np.float32]:
        x = as_float32(values)
        if x.shape[1] != state["width"]:
            raise DataError(f"column {values.name!r} has vectors of width {x.shape[1]}, the model learned {state['width']}.", fix="Send vectors of that width.")
        if form == "plain":
            return x
        mean, factor = learned(state)
        missing = np.isnan(x)
        with np.errstate(invalid="ignore"):
            z = np.minimum(np.maximum((x.astype(np.float64) - mean) * factor, -_CLIP), _CLIP)
        scaled = np.where(missing, 0.0, z).astype(np.float32)
        return np.concatenate([scaled, missing.all(axis=1, keepdims=True).astype(np.float32)], axis=1) if state["missing"] else scaled

    def graph(self, state: State, form: Form, graph: Graph, tensor: str) -> str:
        if form == "plain":
            return tensor
        mean, factor = learned(state)
        missing = graph.op("IsNaN", tensor)
        z = graph.op("Sub", graph.op("Cast", tensor, to=graph.FLOAT64), graph.constant(mean[None, :]))
        z = graph.op("Mul", z, graph.constant(factor[None, :]))
        z = graph.op("Min", graph.op("Max", z, graph.constant(-_CLIP, np.float64)), graph.constant(_CLIP, np.float64))
        scaled = graph.op("Cast", graph.op("Where", missing, graph.constant(0.0, np.float64), z), to=graph.FLOAT32)
        if not state["missing"]:
            return scaled
        flags = graph.op("Cast", missing, to=graph.FLOAT32)
        return graph.op("Concat", scaled, graph.op("ReduceMin", flags, graph.constant([1], np.int64), keepdims=1), axis=1)

    def examples(self, state: State | None = None) -> list[Any]:
        width = (state or {}).get("width") or 3
        inf, nan = float("inf"), float("nan")
        numbers = [0.0, -0.0, 1.0, -1.0, 0.1, 3.4028234663852886e38, -3.4028234663852886e38, 1.401298464324817e-45, inf, -inf, nan, 1e-20, 12345.678]
        rolled = [(numbers[i:] + numbers * width)[:width] for i in range(len(numbers))]
        return [None, *rolled, [0.0] * width, [nan] * width, [inf] * width, [i / width for i in range(width)]]


def as_float32(values: "pl.Series") -> NDArray[np.float32]:
    """(N, W) with NaN for what is missing."""
    import polars as pl

    kind = values.dtype
    if not isinstance(kind, pl.Array):
        raise DataError(f"column {values.name!r}: a vector needs one width, found {kind}.")
    width = kind.size
    if not len(values):
        return np.zeros((0, width), np.float32)
    flat = values.cast(pl.Array(pl.Float32, width)).fill_null(pl.Series([[float("nan")] * width], dtype=pl.Array(pl.Float32, width)))
    inner = flat.explode(empty_as_null=False, keep_nulls=False).fill_null(float("nan"))
    return np.ascontiguousarray(inner.to_numpy(), np.float32).reshape(len(values), width)
