"""Metrics: how good answers are, each equal to the public reference implementation."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.kinds import Kind
from modelinscale.core.task import TaskType


@dataclass(frozen=True)
class Answers:
    """Truth beside answers. C classes."""

    truth: NDArray[np.int64] | NDArray[np.float64]
    """(N,): class index, or number."""
    decision: NDArray[np.int64] | NDArray[np.float64]
    """(N,): class index after the threshold, or number."""
    probability: NDArray[np.float64] | None
    """(N, C), rows summing to 1; None for regression."""
    weight: NDArray[np.float64] | None = None
    """(N,); None: all 1."""

    def rows(self, index: NDArray[np.int64]) -> "Answers":
        """The given rows, in that order, repeats allowed."""
        return Answers(
            self.truth[index],
            self.decision[index],
            None if self.probability is None else self.probability[index],
            None if self.weight is None else self.weight[index],
        )


class Metric(Kind):
    """One number for a set of answers."""

    folder: ClassVar[str] = "metrics"
    tasks: ClassVar[frozenset[TaskType]]
    better: ClassVar[Literal["higher", "lower"]]

    @abstractmethod
    def value(self, answers: Answers) -> float:
        """The metric; NaN where it is not defined (one class only)."""
