"""Metrics: how good answers are, each equal to the public reference implementation.

A metric is a function of sums over rows. Saying which sums (`Metric.parts`) is all an implementation does: the value on all rows follows,
and so do its values on hundreds of resamples at the price of one small matrix product, which is what makes intervals cheap.
"""

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.kinds import Kind
from modelinscale.core.task import TaskType

_T = TypeVar("_T")

# N rows, C classes, W numbers of an answer, R resamples, B cells of a table, K terms of a row.


@dataclass(frozen=True)
class Answers:
    """Truth beside answers. C classes."""

    truth: NDArray[np.int64] | NDArray[np.float64]
    """(N,): class index, or number; (N, W): several numbers; (N, C): 1 for each label a row has."""
    decision: NDArray[np.int64] | NDArray[np.float64]
    """(N,): class index after the threshold, or number; (N, W): several numbers, or as many labels."""
    probability: NDArray[np.float64] | None
    """(N, C), rows summing to 1; None for regression."""
    weight: NDArray[np.float64] | None = None
    """(N,); None: all 1."""
    levels: tuple[float, ...] = ()
    """Of quantiles: decisions are then (N, Q)."""
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.truth)

    def rows(self, index: NDArray[np.int64]) -> "Answers":
        """The given rows, in that order, repeats allowed."""
        return Answers(
            self.truth[index],
            self.decision[index],
            None if self.probability is None else self.probability[index],
            None if self.weight is None else self.weight[index],
            self.levels,
        )

    @property
    def weights(self) -> NDArray[np.float64]:
        """(N,) row weights, ones where none were given."""
        return np.ones(len(self)) if self.weight is None else self.weight

    @property
    def n_classes(self) -> int:
        """C, also when only decisions are known."""
        if self.probability is not None:
            return int(self.probability.shape[1])
        return max(2, int(self.truth.max(initial=0)) + 1, int(self.decision.max(initial=0)) + 1)

    def once(self, make: "Callable[[Answers], _T]") -> _T:
        """``make(self)``, done once for these rows: metrics that need the same table share its cost, and its sums."""
        if make not in self._made:
            self._made[make] = make(self)
        found: _T = self._made[make]
        return found


@dataclass(frozen=True, eq=False)
class Table:
    """Rows sorted into cells, with K terms each to be summed by cell."""

    cells: NDArray[np.int64] | None
    """(N,) in 0 … n_cells - 1; None: all rows in one cell."""
    n_cells: int
    terms: "NDArray[np.float64] | Terms"
    """(N, K), the row's weight multiplied in; or what makes them one after the other."""

    @property
    def n_terms(self) -> int:
        """K."""
        return self.terms.n if isinstance(self.terms, Terms) else self.terms.shape[1]

    def each(self) -> Iterator[NDArray[np.float64]]:
        """The K terms, (N,) each."""
        return iter(self.terms.make() if isinstance(self.terms, Terms) else self.terms.T)

    def sums(self) -> NDArray[np.float64]:
        """(1, n_cells, K): the sums over all rows, each once."""
        if self.cells is None:
            return np.array([term.sum() for term in self.each()])[None, None, :]
        by_term = [np.bincount(self.cells, term, self.n_cells).astype(np.float64) for term in self.each()]
        return np.stack(by_term, axis=-1)[None]


@dataclass(frozen=True, eq=False)
class Terms:
    """``n`` terms of each row that are made when they are summed, (N,) at a time: of answers of many numbers all at once would be several times the answers."""

    n: int
    make: Callable[[], Iterable[NDArray[np.float64]]]


@dataclass(frozen=True)
class Parts:
    """A metric as sums and what to make of them."""

    tables: tuple[Table, ...]
    finish: Callable[..., NDArray[np.float64]]
    """Takes one array (R, n_cells, K) for each table, returns (R,); NaN where the metric is not defined. Must not warn."""


class Metric(Kind):
    """One number for a set of answers."""

    folder: ClassVar[str] = "metrics"
    tasks: ClassVar[frozenset[TaskType]]
    better: ClassVar[Literal["higher", "lower"]]
    sets_threshold: ClassVar[bool] = False
    """Whether choosing a threshold for its best value makes sense (recall alone would choose "always yes")."""
    grows_with_noise: ClassVar[bool] = False
    """Whether it sums distances, so that few rows push it up: the lower end of its interval is then mirrored at the value."""

    @abstractmethod
    def parts(self, answers: Answers) -> Parts:
        """Which sums over these rows the metric is made of.

        A metric that is no function of a few sums gives every row a cell of its own, with its weight as the one term, and finds the weights in ``finish``.
        """

    def value(self, answers: Answers) -> float:
        """The metric; NaN where it is not defined (one class only)."""
        if len(answers) == 0:
            return float("nan")
        parts = self.parts(answers)
        return float(parts.finish(*(table.sums() for table in parts.tables))[0])
