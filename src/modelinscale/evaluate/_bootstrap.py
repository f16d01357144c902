"""Intervals by resampling rows: hundreds of resamples for the price of one matrix product.

Metrics are functions of sums over rows, so a resample needs sums only. Up to 1,000 rows each is drawn by itself. More are first dealt out, at random, into
500 groups that are drawn as a whole: the sums of a random group vary as the rows do, which gives an interval its width within 3 % (less than what a few
hundred resamples leave open anyway) and makes it independent of the number of rows. See docs/decisions/0003-intervals-from-sums.md.

N rows, G groups, R resamples, B cells of a table, K terms.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import seeds
from modelinscale.evaluate._facts import Estimate
from modelinscale.metrics import Answers, Metric, Parts, Table

EXACT_ROWS = 1000
N_GROUPS = 500
MIN_ROWS = 10
"""With fewer rows resamples say nothing: no intervals."""
MAX_GROUP_CELLS = 1 << 23
"""Largest table of sums by group and cell; beyond that each resample sums its rows itself."""


class Resamples:
    """The same resamples of the same rows for whatever is asked of them."""

    def __init__(self, n_rows: int, *, n_resamples: int, seed: int) -> None:
        chance = seeds.generator(seed, "bootstrap", n_rows)
        n_groups = n_rows if n_rows <= EXACT_ROWS else N_GROUPS
        self.group = np.arange(n_rows) if n_groups == n_rows else chance.permutation(n_rows) % n_groups  # (N,)
        drawn = chance.integers(0, n_groups, (n_resamples, n_groups)) + np.arange(n_resamples)[:, None] * n_groups
        self.counts = np.bincount(drawn.ravel(), minlength=n_resamples * n_groups).reshape(n_resamples, n_groups).astype(np.float64)  # (R, G)
        self._sums: dict[int, tuple[Table, NDArray[np.float64]]] = {}

    def sums(self, table: Table) -> NDArray[np.float64]:
        """(R, B, K): a table's sums on each resample."""
        if id(table) not in self._sums:  # the table is kept beside its sums, so its id stays its own
            self._sums[id(table)] = (table, self._sum(table))
        return self._sums[id(table)][1]

    def _sum(self, table: Table) -> NDArray[np.float64]:
        n_rows, n_groups = len(self.group), self.counts.shape[1]
        cells = np.zeros(n_rows, np.int64) if table.cells is None else table.cells
        sums = np.zeros((len(self.counts), table.n_cells, table.n_terms))
        if n_groups == n_rows:  # each row is drawn by itself: rows by cell, added up piece by piece
            order = np.argsort(cells, kind="stable")
            starts = np.flatnonzero(np.concatenate([[True], np.diff(cells[order]) != 0]))
            counts = self.counts[:, order]
            for k, term in enumerate(table.each()):
                sums[:, cells[order][starts], k] = np.add.reduceat(counts * term[order], starts, axis=1)
        elif n_groups * table.n_cells <= MAX_GROUP_CELLS:
            place = self.group * table.n_cells + cells
            for k, term in enumerate(table.each()):
                sums[:, :, k] = self.counts @ np.bincount(place, term, n_groups * table.n_cells).reshape(n_groups, -1)
        else:
            for r, count in enumerate(self.counts):
                drawn = count[self.group]
                for k, term in enumerate(table.each()):
                    sums[r, :, k] = np.bincount(cells, term * drawn, table.n_cells)
        return sums

    def values(self, metric: Metric, answers: Answers) -> "Sampled":
        """The metric on all rows and on each resample."""
        return self.of(metric.parts(answers))

    def of(self, parts: Parts) -> "Sampled":
        """What is made of these sums, on all rows and on each resample."""
        value = float(parts.finish(*(table.sums() for table in parts.tables))[0])
        if len(self.group) < MIN_ROWS:
            return Sampled(value, np.full(len(self.counts), np.nan))
        return Sampled(value, parts.finish(*(self.sums(table) for table in parts.tables)))


@dataclass(frozen=True)
class Sampled:
    """A number on all rows and on each resample (R,); NaN where it is not defined."""

    value: float
    resampled: NDArray[np.float64]

    def __sub__(self, other: "Sampled") -> "Sampled":
        return Sampled(self.value - other.value, self.resampled - other.resampled)

    @property
    def defined(self) -> NDArray[np.float64]:
        return self.resampled[np.isfinite(self.resampled)]

    @property
    def error(self) -> float:
        """Standard error; NaN when resamples do not tell."""
        return float(self.defined.std(ddof=1)) if self.tells else float("nan")

    @property
    def tells(self) -> bool:
        """Whether the value is defined, and on nearly all resamples too."""
        return bool(np.isfinite(self.value)) and len(self.defined) >= 0.9 * len(self.resampled)

    def estimate(self, confidence: float, *, mirrored: bool = False) -> Estimate:
        """Value with its percentile interval; no interval where resamples do not tell.

        ``mirrored`` is for metrics that noise pushes up (`Metric.grows_with_noise`), a resample once more than the value: percentiles would leave out the
        truth. Noise adds to the square of a distance, so the lower end is the upper percentile mirrored at the value in squares (0 at the lowest); the upper
        end is as far above the value as the percentile is above the mean of the resamples.
        """
        if not np.isfinite(self.value):
            return Estimate(value=None)
        if not self.tells:
            return Estimate(value=self.value)
        low, high = np.quantile(self.defined, [(1 - confidence) / 2, (1 + confidence) / 2])
        if mirrored:
            low, high = max(0.0, 2 * self.value**2 - high**2) ** 0.5, self.value + high - self.defined.mean()
        return Estimate(value=self.value, low=float(low), high=float(high))


def wilson(successes: float, n: float, confidence: float) -> tuple[float, float]:
    """Interval of a share from ``n`` rows. Source: Wilson 1927."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
