"""Small tables in folds: every row that is not for the test is held out once, so that all of them tell settings apart, and then all are learned from.

N rows: those of training, then those of validation.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Form, Layout
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Model, Scores, Weights
from modelinscale.train._loss import loss
from modelinscale.train._rows import together
from modelinscale.train._target import Totals, class_factors
from modelinscale.train._trial import Rows, Trial, attempt

if TYPE_CHECKING:
    from modelinscale.train import Train


@dataclass
class All:
    """The rows of training and validation as one; only where they are in memory."""

    rows: Rows
    _made: dict[Form, Examples] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        return self.rows("train", "scaled").held and self.rows("valid", "scaled").held

    def examples(self, form: Form) -> Examples:
        if form not in self._made:
            self._made[form] = together([self.rows("train", form), self.rows("valid", form)])
        return self._made[form]

    def whole(self, part: Literal["train", "valid"], form: Form) -> Examples:
        """As `Rows`: all of them to learn from, none held out."""
        every = self.examples(form)
        return every if part == "train" else every.take(np.zeros(0, np.int64))

    def without(self, fold: NDArray[Any], number: int) -> Rows:
        """As `Rows`: one fold held out."""

        def rows(part: Literal["train", "valid"], form: Form) -> Examples:
            return self.examples(form).take(np.flatnonzero((fold == number) if part == "valid" else (fold != number)))

        return rows


@dataclass(frozen=True)
class Crossed:
    """What came of one model in folds."""

    trial: Trial
    scores: Scores | None
    """Of each of the N rows by the model that did not learn from it; None: a fold could not be learned."""
    weights: tuple[Weights, ...]
    """A fold each."""


def crossed(
    model: Model, every: All, fold: NDArray[Any], task: Task, layouts: Callable[[Form], dict[str, Layout]], settings: "Train", effort: Effort
) -> Crossed:
    """One model learned as often as there are folds, each time without one of them, which then tells when to stop and how good it is."""
    began, n_folds = time.monotonic(), int(fold.max()) + 1
    scores: NDArray[Any] | None = None
    weights: list[Weights] = []
    cut = False
    for number in range(n_folds):
        left = None if effort.budget_s is None else max(0.0, effort.budget_s - (time.monotonic() - began)) / (n_folds - number)
        # A killed fold begins anew: they are small. Each would resume the other's state.
        own = replace(effort, budget_s=left, checkpoints=None, progress=lambda share, note, i=number: effort.progress((i + share) / n_folds, note))  # type: ignore[misc]
        trial, one = attempt(model, every.without(fold, number), task, layouts, settings, own, tolerant=True)
        if one is None or one.valid_scores is None:
            return Crossed(replace(trial, seconds=time.monotonic() - began, loss=None), None, tuple(weights))
        if scores is None:
            scores = np.zeros((len(fold), *one.valid_scores.shape[1:]))
        scores[fold == number] = one.valid_scores
        weights.append(one.weights)
        cut = cut or bool(trial.note)
    assert scores is not None, "there are two folds at least"
    examples = every.examples(model.form)
    totals = Totals.of(((block.target, block.weight) for block in examples.blocks()), task)
    examples = examples.weighed(class_factors(totals, task, settings.class_weight))
    value = loss(scores, examples.target, examples.weight, task)
    note = f"{n_folds} folds" + (", stopped by the budget" if cut else "")
    return Crossed(Trial(model, time.monotonic() - began, value, note=note), scores, tuple(weights))
