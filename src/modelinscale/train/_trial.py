"""One family's attempt at learning: what it is given, what comes of it, and what is told where nothing does."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from modelinscale.core.encoded import Form, Layout
from modelinscale.core.errors import MisError, ModelError
from modelinscale.core.task import Task
from modelinscale.core.units import show_seconds
from modelinscale.models import SCORED_ROWS, Effort, Examples, Model, Scores, Weights
from modelinscale.train._loss import loss
from modelinscale.train._rows import predict
from modelinscale.train._target import Totals, check_totals, class_factors

if TYPE_CHECKING:
    from modelinscale.train import Train

Rows = Callable[[Literal["train", "valid"], Form], Examples]
"""The encoded rows of a part, in a form; asked for only when a family needs them. A part may be empty."""


@dataclass(frozen=True)
class Learned:
    """A family, its hyperparameters, and what it learned."""

    model: Model
    weights: Weights
    valid_scores: Scores | None = None
    """What it says of the validation rows, (N,) or (N, C); None: there were none, or it was read back and is computed when it is needed."""
    saw_valid: bool = False
    """Whether weights behind it learned from validation rows: ``valid_scores`` then are of the same settings while those were held out."""


@dataclass(frozen=True)
class Trial:
    """One family that was tried, or why it was not."""

    model: Model
    seconds: float
    loss: float | None = None
    """Mean loss on the validation rows (log loss; for numbers the squared error as a share of the target's variance); None: no answer."""
    note: str = ""
    """Why there is no answer, or what cut it short."""

    def plain(self) -> dict[str, Any]:
        return {"model": self.model.plain(), "loss": self.loss, "seconds": round(self.seconds, 3), "note": self.note}


@dataclass(frozen=True)
class Fitted:
    """The outcome of training."""

    chosen: Learned
    linear: Learned | None
    """The linear baseline, if it was among what was fitted."""
    seconds: float
    trials: tuple[Trial, ...]


def attempt(
    family: Model, rows: Rows, task: Task, layouts: Callable[[Form], dict[str, Layout]], settings: "Train", effort: Effort, *, tolerant: bool
) -> tuple[Trial, Learned | None]:
    """One family's attempt. ``tolerant``: what it cannot do becomes the trial's note instead of an error."""
    start = time.monotonic()
    try:
        why = family.accepts(task, layouts(family.form))
        if why:
            raise ModelError(f"{family.type} cannot learn this: {why}.", fix="Choose another model, or `model: auto`.")
        if tolerant and effort.budget_s is not None and effort.budget_s < _LEAST_S:
            raise ModelError(f"the budget of {show_seconds(settings.budget)} was used up before its turn.", fix="Raise `train.budget`.")
        effort.progress(0.0, f"begins, at most {show_seconds(effort.budget_s)}" if effort.budget_s is not None else "begins")
        train, valid = rows("train", family.form), rows("valid", family.form)
        totals = Totals.of(((block.target, block.weight) for block in train.blocks()), task)
        check_totals(totals, task)
        factors = class_factors(totals, task, settings.class_weight)
        train, valid = train.weighed(factors), valid.weighed(factors)
        weights = family.fit(train, valid if len(valid) else None, task, effort)
        scores = predict(family, weights, (block.rows for block in valid.blocks(SCORED_ROWS))) if len(valid) else None
        if scores is not None and not np.isfinite(scores).all():
            raise ModelError(
                f"{family.type} did not settle: {int((~np.isfinite(scores)).sum())} of its answers are not finite.", fix="Lower its learning rate."
            )
    except MisError as error:
        if not tolerant:
            raise
        return Trial(family, time.monotonic() - start, note=error.message), None
    value = None if scores is None else loss(scores, valid.target, valid.weight, task)
    seconds = time.monotonic() - start
    over = effort.budget_s is not None and seconds > effort.budget_s
    return Trial(family, seconds, value, note="stopped by the budget" if over else ""), Learned(family, weights, scores)


_LEAST_S = 0.05
"""With less time than this a family is not begun."""


def folder_of(checkpoints: Path | None, name: str) -> Path | None:
    if checkpoints is None:
        return None
    folder = checkpoints / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def part_of(progress: Callable[[float, str], None], i: int, n: int, name: str) -> Callable[[float, str], None]:
    return lambda share, note: progress((i + share) / n, f"{name}: {note}")
