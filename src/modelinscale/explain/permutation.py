"""Shuffled columns: how much worse the model answers, or how much a row's score moves, when a column's cells are those of other rows.

Source: Breiman, Random Forests, 2001; Fisher, Rudin, Dominici, All Models Are Wrong, but Many Are Useful, 2019.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.core.errors import DataError
from modelinscale.core.seeds import generator
from modelinscale.explain import Effect, Explained, Explainer, Rows, Subject, swapped


class Permutation(Explainer):
    """Any model: the loss added when a column is shuffled; for one row, what its cell adds against those of other rows."""

    additive: ClassVar[bool] = False

    repeats: int = Field(8, ge=2, le=1000)
    """Shuffles of each column; for single rows the cells of other rows that each is held against."""

    def refuses(self, subject: Subject) -> str:
        return ""

    def explain(self, subject: Subject, rows: Rows, output: NDArray[np.int64], *, seed: int, overall: bool) -> Explained:
        return self._overall(subject, rows, seed) if overall else self._each(subject, rows, output, seed)

    def _overall(self, subject: Subject, rows: Rows, seed: int) -> Explained:
        if rows.truth is None:
            raise DataError("permutation needs rows whose truth is known.", fix="Explain the test rows, or name another way with --by.")
        chance, n = generator(seed, "permutation"), len(rows)
        weight = np.ones(n) if rows.weight is None else rows.weight / rows.weight.mean()
        before = _losses(subject, subject.scores(rows.encoded), rows.truth)
        found = []
        for feature, blocks in subject.features.items():
            more = np.empty((self.repeats, n))
            for r in range(self.repeats):
                other = chance.permutation(n)
                shuffled = swapped(rows.encoded, rows.encoded, dict.fromkeys(blocks, other), n)
                more[r] = (_losses(subject, subject.scores(shuffled), rows.truth) - before) * weight
            # Two causes of doubt: which rows there are, and how they were shuffled.
            error = (more.mean(0).var(ddof=1) / n + more.mean(1).var(ddof=1) / self.repeats) ** 0.5 if n > 1 else 0.0
            mean = float(more.mean())
            found.append(Effect(feature=feature, value=mean, low=mean - 1.96 * float(error), high=mean + 1.96 * float(error)))
        unit = "growth of the mean squared error" if subject.task.numbers else "growth of the log loss"
        return Explained(importance=tuple(sorted(found, key=lambda one: (-one.value, one.feature))), unit=unit)

    def _each(self, subject: Subject, rows: Rows, output: NDArray[np.int64], seed: int) -> Explained:
        n, K = len(rows), self.repeats
        others = subject.background.take(generator(seed, "permutation").integers(0, len(subject.background), K)).encoded
        row, other = np.repeat(np.arange(n), K), n + np.tile(np.arange(K), n)
        score = subject.said(rows.encoded, output)
        effects = np.empty((n, len(subject.features)))
        for f, blocks in enumerate(subject.features.values()):
            take = {name: other if name in blocks else row for name in rows.encoded}
            effects[:, f] = score - subject.said(swapped(rows.encoded, others, take, n * K), output[row]).reshape(n, K).mean(1)
        return Explained(effects=effects, notes=("Each column is changed by itself: effects need not add up to the score.",))


def _losses(subject: Subject, scores: NDArray[np.float64], truth: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,): log loss of the calibrated probabilities, or squared error."""
    if subject.task.type == "regression":
        return np.asarray((subject.decision.number(scores[:, 0]) - truth) ** 2)
    probability = subject.decision.probability(scores if subject.task.n_scores > 1 else scores[:, 0], subject.task)
    return -np.log(np.maximum(probability[np.arange(len(truth)), truth.astype(np.int64)], 1e-12))
