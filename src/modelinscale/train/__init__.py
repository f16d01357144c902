"""Training: from a target column to a task, and from encoded rows to weights, for one family or the best of all."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from modelinscale.core.encoded import Form, Layout
from modelinscale.core.errors import MisError, ModelError
from modelinscale.core.settings import Settings
from modelinscale.core.task import Label, Task
from modelinscale.core.units import Duration, show_seconds
from modelinscale.models import SCORED_ROWS, Effort, Examples, Model, Scores, Weights
from modelinscale.train._loss import loss
from modelinscale.train._rows import Maker, predict
from modelinscale.train._scores import Lot, Scorer, lots
from modelinscale.train._target import Seen, Totals, check_totals, class_factors, encode_target, find_task, row_weights

__all__ = [
    "Fitted",
    "Learned",
    "Lot",
    "Maker",
    "Scorer",
    "Seen",
    "Totals",
    "Train",
    "Trial",
    "class_factors",
    "encode_target",
    "find_task",
    "fit",
    "loss",
    "lots",
    "predict",
    "row_weights",
]


class Train(Settings):
    """How much training may take, what chance it starts from, and which rows count more."""

    budget: Duration = 600.0
    """Wall time training may take; a family that is still learning then stops at its best so far."""
    seed: int = 7
    """Where chance starts: the same seed gives the same model."""
    weight: str | None = None
    """A column with the weight of each row; it is then no feature."""
    class_weight: Literal["balanced"] | dict[Label, float] | None = None
    """How much each class counts: ``balanced`` (rare ones more, so that all classes weigh the same), or a weight for each label."""
    threads: int = Field(0, ge=0)
    """Threads that trees and mlp train with (small networks take one, and linear always does); 0: one for each core."""


Rows = Callable[[Literal["train", "valid"], Form], Examples]
"""The encoded rows of a part, in a form; asked for only when a family needs them. A part may be empty."""


@dataclass(frozen=True)
class Learned:
    """A family, its hyperparameters, and what it learned."""

    model: Model
    weights: Weights
    valid_scores: Scores | None = None
    """What it says of the validation rows, (N,) or (N, C); None: there were none, or it was read back and is computed when it is needed."""


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


_SHARES: dict[str, float] = {"linear": 0.15, "trees": 0.5, "mlp": 1.0}
"""The families ``auto`` compares, in this order, and the share each may take of what is left of the budget when its turn comes."""
_DEEP_SHARES: dict[str, float] = {"linear": 0.1, "trees": 0.1, "network": 1.0}
"""The same where a column keeps its shape for deep networks (an image): what the first two see of it is little."""


def shares_of(layouts: Callable[[Form], dict[str, Layout]]) -> dict[str, float]:
    """The families that ``auto`` compares for these features, with their shares of the budget."""
    return _DEEP_SHARES if any(layout.shape for layout in layouts("deep").values()) else _SHARES


def fit(
    model: Model | Literal["auto"],
    rows: Rows,
    task: Task,
    layouts: Callable[[Form], dict[str, Layout]],
    settings: Train,
    *,
    checkpoints: Path | None = None,
    memory: int | None = None,
    tell: Callable[[str], None] = lambda note: None,
    progress: Callable[[float, str], None] = lambda share, note: None,
) -> Fitted:
    """Learns from the training rows; validation rows only stop early and, for ``auto``, choose.

    ``memory``: bytes it may take besides interpreter and libraries (None: no limit); ``tell`` is called with what a family could not do because of it.
    ``auto`` fits linear, trees and mlp (network where there are images) in turn, each within its share of the budget, and keeps the one with the least
    validation loss. Raises
    `ModelError` when a family that was asked for, or every family of ``auto``, cannot learn this.
    """
    start = time.monotonic()
    auto = model == "auto"
    shares = shares_of(layouts) if isinstance(model, str) else {}
    families = [Model.parse(name) for name in shares] if isinstance(model, str) else [model]
    trials: list[Trial] = []
    learned: list[tuple[float, Learned]] = []
    for i, family in enumerate(families):
        left = settings.budget - (time.monotonic() - start)
        share = shares.get(family.type, 1.0)
        effort = Effort(
            seed=settings.seed,
            budget_s=max(left * share, 0.0),
            n_threads=settings.threads,
            checkpoints=_folder(checkpoints, family),
            memory=memory,
            tell=lambda note, name=family.type: tell(f"{name}: {note}"),  # type: ignore[misc]
            progress=_part(progress, i, len(families), family.type),
        )
        trial, one = _try(family, rows, task, layouts, settings, effort, tolerant=auto)
        trials.append(trial)
        if one is not None:
            learned.append((np.inf if trial.loss is None else trial.loss, one))
    if not learned:
        raise ModelError(
            f"No family can learn this: {'; '.join(f'{t.model.type}: {t.note}' for t in trials)}.", fix="Raise `train.budget`, or name features and a model."
        )
    chosen = min(learned, key=lambda pair: pair[0])[1]
    linear = next((one for _, one in learned if one.model.type == "linear"), None)
    return Fitted(chosen, linear, time.monotonic() - start, tuple(trials))


def _try(
    family: Model, rows: Rows, task: Task, layouts: Callable[[Form], dict[str, Layout]], settings: Train, effort: Effort, *, tolerant: bool
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


def _folder(checkpoints: Path | None, family: Model) -> Path | None:
    if checkpoints is None:
        return None
    folder = checkpoints / family.type
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _part(progress: Callable[[float, str], None], i: int, n: int, name: str) -> Callable[[float, str], None]:
    return lambda share, note: progress((i + share) / n, f"{name}: {note}")
