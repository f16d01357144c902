"""Centre and scale, then bound: the one formula behind scaled numbers, in NumPy and in the graph, in float64 so that both give the same bits.

Only operations that IEEE 754 rounds correctly are used (no exponentials, no logarithms: libraries differ in their last bit there).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.bins import Bins, moments
from modelinscale.core.graph import Graph

Scale = Literal["robust", "standard"]
_FAR = 2.0**60
"""Scaled values are cut here before they are squared."""


class Scaling(NamedTuple):
    """``z = (x - centre) * factor``, bounded, then ``(z - shift) * gain``.

    standard: centre and factor from mean and deviation, z cut at ``± clip``, no shift. robust: centre and factor from median and quartiles, bounded by
    ``z / sqrt(1 + (z / clip)²)``, which is close to z up to about ``clip / 3`` and never flat, so order is kept however far a value lies; shift and gain
    then bring mean 0 and deviation 1 back, which networks learn from faster.
    Source of the smooth bound: Holzmüller, Grinsztajn, Steinwart 2024, "Better by default" (RealMLP), there with clip 3 and without the last step.
    """

    centre: float
    factor: float
    scale: Scale
    clip: float
    shift: float = 0.0
    gain: float = 1.0

    @classmethod
    def learned(cls, bins: Bins, scale: Scale, clip: float) -> Self:
        """From what was observed; a constant column keeps its unit."""
        return cls(*_learned(bins.cleared, bins.at.tobytes(), bins.counts.tobytes(), scale, clip))

    @classmethod
    def _of(cls, bins: Bins, scale: Scale, clip: float) -> Self:
        mean, deviation = bins.moments()
        if scale == "standard":
            return cls(mean, _factor(deviation), scale, clip)
        quarter, centre, three_quarters = (bins.quantile(q) for q in (0.25, 0.5, 0.75))
        # The quartile distance of a normal column is 1.349 deviations, of one with long tails less, of an even one more: the smaller spread is
        # that of the bulk. Where half the values are equal the distance is 0, and the deviation is all there is.
        distance = three_quarters / 1.349 - quarter / 1.349
        bent = cls(centre, _factor(min(distance, deviation) or deviation), scale, clip)
        shift, spread = moments(bent.of(bins.middles()), bins.counts)
        # Not more than double: in a column of zeros with one 1 in a million, that 1 would be a thousand deviations away.
        return bent._replace(shift=shift, gain=min(_factor(spread), 2.0))

    def of(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scaled values, bounded and finite; NaN stays."""
        with np.errstate(over="ignore", invalid="ignore"):
            z = x - self.centre
            z *= self.factor
        limit = self.clip if self.scale == "standard" else _FAR
        np.maximum(z, -limit, out=z)
        np.minimum(z, limit, out=z)
        if self.scale == "standard":
            return z
        root = z * (1.0 / self.clip)
        root *= root
        root += 1.0
        np.sqrt(root, out=root)
        z /= root
        z -= self.shift
        z *= self.gain
        return z


@lru_cache(maxsize=1024)
def _learned(cleared: int, at: bytes, counts: bytes, scale: Scale, clip: float) -> Scaling:
    """Reckoned once for all the partitions of a table."""
    return Scaling._of(Bins(cleared, np.frombuffer(at, np.float64), np.frombuffer(counts, np.int64)), scale, clip)


def draw(graph: Graph, x: str, scalings: Sequence[Scaling]) -> str:
    """Draws `Scaling.of` for K columns at once, (N, K) float64."""
    robust = [s.scale == "robust" for s in scalings]
    limits = [_FAR if r else s.clip for s, r in zip(scalings, robust, strict=True)]
    z = graph.op("Mul", graph.op("Sub", x, _row(graph, [s.centre for s in scalings])), _row(graph, [s.factor for s in scalings]))
    z = graph.op("Min", graph.op("Max", z, _row(graph, [-v for v in limits])), _row(graph, limits))
    if not any(robust):
        return z
    # A factor of 0 leaves the others as they are: z / sqrt(1 + 0), and so do a shift of 0 and a gain of 1.
    ratio = graph.op("Mul", z, _row(graph, [1.0 / s.clip if r else 0.0 for s, r in zip(scalings, robust, strict=True)]))
    root = graph.op("Sqrt", graph.op("Add", graph.op("Mul", ratio, ratio), graph.constant(1.0, np.float64)))
    bent = graph.op("Sub", graph.op("Div", z, root), _row(graph, [s.shift for s in scalings]))
    return graph.op("Mul", bent, _row(graph, [s.gain for s in scalings]))


def _factor(spread: float) -> float:
    return 1.0 / min(max(spread, 1e-300), 1e300) if spread > 0 else 1.0


def _row(graph: Graph, values: list[float]) -> str:
    """A constant for each column; one number where all are equal."""
    return graph.constant(values[0] if len(set(values)) == 1 else [values], np.float64)
