"""Numbers: as they are for models that split, centred and scaled with missing ones flagged for models that multiply.

N rows, K columns drawn at once.
"""

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.core.bins import Bins
from modelinscale.core.encoded import Form, InputType, Layout
from modelinscale.core.graph import Graph
from modelinscale.core.schema import Column
from modelinscale.features import Feature, State
from modelinscale.features._scaling import Scale, Scaling, draw

if TYPE_CHECKING:
    import polars as pl

_STEP = 65_536
"""Values scaled at once: as many as stay in the processor's cache; fewer, and two threads take the interpreter from each other after every operation."""
_LARGEST = float(np.finfo(np.float64).max)


class Number(Feature):
    """A quantity, where more and less mean something: amounts, ages, counts.

    plain: the value as float32, missing NaN, infinity kept. scaled: mean 0 and deviation 1 over the training rows, far values bounded (see ``scale``),
    infinity at the bound, a missing value at the mean (0); a second column flags missing values if training rows had any.
    Python and graph give the same bits in both forms.

    >>> import polars as pl
    >>> number = Number(scale="standard")
    >>> state = number.observe(number.empty(), pl.Series([1.0, 3.0, None]))
    >>> number.encode(state, pl.Series([1.0, 4.0, None]), "scaled").tolist()
    [[-1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]
    """

    input: ClassVar[InputType] = "float64"

    scale: Scale = "robust"
    """robust: far values are drawn in smoothly, measured by median and quartiles, so that a few of them do not flatten the rest.
    standard: by mean and standard deviation alone, cut at ``clip``."""
    clip: float = Field(5.0, gt=0, le=1e6)
    """How far from the centre values are bounded, in spreads of the bulk; scaled values stay within about twice that."""

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type in ("int", "float", "bool")

    def empty(self) -> State:
        return _state(0, 0, 0, None, None, Bins.of(np.zeros(0)))

    def observe(self, state: State, values: "pl.Series") -> State:
        x = _float64(values.filter(values.is_not_null()) if values.null_count() else values)
        known = finite = x
        low, high = (float(x.min()), float(x.max())) if len(x) else (0.0, 0.0)
        if not isfinite(high - low):  # something is not a number or infinite, or the ends are very far apart
            known = x[~np.isnan(x)]
            finite = known[np.isfinite(known)]
            low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
        ends: tuple[float | None, float | None] = (low + 0.0, high + 0.0) if len(finite) else (None, None)
        seen = _state(len(values), len(values) - len(known), len(known) - len(finite), *ends, Bins.of(finite))
        return self.merge(state, seen)

    def merge(self, a: State, b: State) -> State:
        if not a["n"] or not b["n"]:
            return dict(b if not a["n"] else a)
        lows, highs = ([s[key] for s in (a, b) if s[key] is not None] for key in ("low", "high"))
        return _state(
            a["n"] + b["n"],
            a["missing"] + b["missing"],
            a["infinite"] + b["infinite"],
            min(lows, default=None),
            max(highs, default=None),
            Bins.load(a["bins"]).merged(Bins.load(b["bins"])),
        )

    def layout(self, state: State, form: Form) -> Layout:
        names = ("", "missing") if form == "scaled" and state["missing"] else ("",)
        return Layout("dense", len(names), names)

    def encode(self, state: State, values: "pl.Series", form: Form) -> NDArray[np.float32]:
        x = _float64(values)
        if form == "plain":
            return _float32(x)[:, None]
        block = np.empty((len(x), 2 if state["missing"] else 1), np.float32)
        scaling = self._scaling(state)
        for start in range(0, len(x), _STEP):
            here = slice(start, start + _STEP)
            z, missing = scaling.of(x[here]), np.isnan(x[here])
            np.copyto(z, 0.0, where=missing)
            with np.errstate(over="ignore"):
                block[here, 0] = z
            if state["missing"]:
                block[here, 1] = missing
        return block

    def graph(self, state: State, form: Form, graph: Graph, tensor: str) -> str:
        return self.graphs([self], [state], form, graph, [tensor])[0]

    @classmethod
    def graphs(cls, features: Sequence[Self], states: Sequence[State], form: Form, graph: Graph, tensors: Sequence[str]) -> list[str]:
        # All columns go through the same few operators as one matrix: fifty columns cost little more than one.
        K = len(tensors)
        if K == 1:
            x = graph.op("Unsqueeze", tensors[0], graph.constant([1], np.int64))
        else:
            rows = graph.op("Reshape", graph.op("Concat", *tensors, axis=0), graph.constant([K, -1], np.int64))  # (K, N)
            x = graph.op("Transpose", rows, perm=[1, 0])  # (N, K)
        if form == "plain":
            return graph.split(graph.op("Cast", x, to=graph.FLOAT32), [1] * K)
        missing = graph.op("IsNaN", x)
        z = draw(graph, x, [f._scaling(s) for f, s in zip(features, states, strict=True)])
        z = graph.op("Cast", graph.op("Where", missing, graph.constant(0.0, np.float64), z), to=graph.FLOAT32)
        widths = [2 if s["missing"] else 1 for s in states]
        if sum(widths) == K:
            return graph.split(z, widths)
        both = graph.op("Concat", z, graph.op("Cast", missing, to=graph.FLOAT32), axis=1)  # (N, 2K): values, then flags
        order = [place for k, width in enumerate(widths) for place in (k, K + k)[:width]]
        return graph.split(graph.op("Gather", both, graph.constant(order, np.int64), axis=1), widths)

    def examples(self, state: State | None = None) -> list[Any]:
        common = [None, 0.0, 1.0, -1.0, 0.1, 1 / 3, 2.5, -7.25, 42.0, 1e3, 123456.789, 1e6, -1e6]
        beside = [float(np.nextafter(1, 2)), float(np.nextafter(1, 0)), float(np.nextafter(np.float32(0.1), np.float32(1))), 2.0**24 + 1, 2.0**53 - 1]
        # Not numbers, both zeros, the smallest and largest of float64 and float32, and what float32 cannot hold.
        edges = [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, -5e-324, 1e-310, 1.4e-45, 2.0**-126, 3.4028235677973366e38, 1e39, 1e300, -1e300]
        seen = Bins.load(state["bins"]) if state else Bins.of(np.zeros(0))
        learned = [v for q in (0.0, 0.25, 0.5, 0.75, 1.0) for v in _beside(seen.quantile(q))] if len(seen.at) else []
        return [*common, *beside, *edges, 2.0**63, _LARGEST, -_LARGEST, *learned]

    def _scaling(self, state: State) -> Scaling:
        return Scaling.learned(Bins.load(state["bins"]), self.scale, self.clip)


def _beside(value: float) -> list[float]:
    """A value and its neighbours."""
    with np.errstate(over="ignore", under="ignore"):
        return [float(np.nextafter(value, -np.inf)), value, float(np.nextafter(value, np.inf))]


def _float64(values: "pl.Series") -> NDArray[np.float64]:
    import polars as pl

    x = values.cast(pl.Float64)
    return (x.fill_null(float("nan")) if x.null_count() else x).to_numpy()  # it would make NaN of what is missing by itself, but several times slower


def _float32(x: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return x.astype(np.float32)


def _state(n: int, missing: int, infinite: int, low: float | None, high: float | None, bins: Bins) -> State:
    return {"n": n, "missing": missing, "infinite": infinite, "low": low, "high": high, "bins": bins.plain()}
