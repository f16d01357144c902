"""Share of the target's variance that is explained."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.task import TaskType
from modelinscale.metrics import Answers, Metric, Parts, Table, Terms
from modelinscale.metrics._share import share


class R2(Metric):
    """1 - squared errors / squared distances from the mean: 1 perfect, 0 no better than the mean, below 0 worse.

    Of several numbers the mean over them. NaN when the truth (one of them) does not vary. Equals ``sklearn.metrics.r2_score``.
    """

    tasks: ClassVar[frozenset[TaskType]] = frozenset({"regression"})
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def parts(self, answers: Answers) -> Parts:
        weight, truth, decision = answers.weights, answers.truth.reshape(len(answers), -1), answers.decision.reshape(len(answers), -1)  # (N,), (N, W) twice
        middle = share(weight @ truth, weight.sum(keepdims=True), otherwise=0.0)  # (W,)
        constant = truth.min(0) == truth.max(0)

        def terms() -> Iterator[NDArray[np.float64]]:
            yield weight
            for k, mean in enumerate(middle):
                off, error = truth[:, k] - mean, truth[:, k] - decision[:, k]  # off: from the middle, which keeps the sums small: no cancellation
                yield weight * off
                yield weight * off**2
                yield weight * error**2

        def finish(sums: NDArray[np.float64]) -> NDArray[np.float64]:
            n, (total, squares, errors) = sums[:, 0, :1], np.moveaxis(sums[:, 0, 1:].reshape(len(sums), -1, 3), 2, 0)  # (R, 1), (R, W) each
            spread = squares - share(total**2, n, otherwise=0.0)
            spread = np.where((spread > 1e-14 * squares) & ~constant, spread, 0.0)  # below rounding: one value only
            return np.asarray((1 - share(errors, spread)).mean(1))

        return Parts((Table(None, 1, Terms(1 + 3 * len(middle), terms)),), finish)
