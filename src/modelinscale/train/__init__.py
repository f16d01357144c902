"""Training: from a target column to a task, and from encoded rows to weights, for one family or the best of all."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from numpy.typing import NDArray
from pydantic import Field, model_validator

from modelinscale.compute._crew import Crew
from modelinscale.core.encoded import Form, Layout
from modelinscale.core.settings import Settings
from modelinscale.core.task import Label, Task
from modelinscale.core.units import Duration
from modelinscale.models import Device, Effort, Model, Strategy
from modelinscale.train._loss import loss
from modelinscale.train._rows import Maker, predict
from modelinscale.train._scores import Lot, Scorer, lots
from modelinscale.train._target import Seen, Totals, class_factors, encode_target, encode_targets, find_task, row_weights, see
from modelinscale.train._trial import Fitted, Learned, Rows, Trial, attempt, folder_of, part_of

__all__ = [
    "Fitted",
    "Learned",
    "Lot",
    "Maker",
    "Rows",
    "Scorer",
    "Seen",
    "Totals",
    "Train",
    "Trial",
    "class_factors",
    "encode_target",
    "encode_targets",
    "find_task",
    "fit",
    "loss",
    "lots",
    "predict",
    "row_weights",
    "see",
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
    device: Device = "auto"
    """Where networks learn: on a GPU where there is one (auto), never on one (cpu), or only on one (gpu: without one it is an error before the first step).
    Trees and linear models learn on processors."""
    workers: int = Field(1, ge=1, le=32)
    """Processes that `network` and `mlp` learn in, together, here or with `compute: ray` on the nodes of the cluster: each takes its share of every batch.
    Encoded rows of `network` then lie on disk, those of a cluster only where memory does not do; `trees` of many rows learn on its nodes too."""
    strategy: Strategy = "auto"
    """With several workers: each holds all weights of the network (data_parallel) or a part of them, for networks that do not fit one process (fully_sharded);
    auto: parts where a step with all of them needs more than `compute.memory` leaves."""
    compress_above: float | None = Field(None, ge=0, le=1)
    """With several workers: gradients travel in 16 bits where their way took more than this share of the first steps; null: always in full."""
    latency: Duration = 0.001
    """For `model: auto`: how long the members of an ensemble may take for one row, together, by their sizes; a single model is never refused for it."""
    refit: bool = True
    """For `model: auto`: whether what was chosen learns once more from all rows, those that chose included. Calibration and threshold still come from what
    it said of them before."""
    student: bool = False
    """For `model: auto`: whether, in small tables, one family is taught by the ensemble, and kept instead of it where it is no worse by more than chance."""

    @model_validator(mode="after")
    def _parts_for_several(self) -> Self:
        if self.strategy == "fully_sharded" and self.workers == 1:
            raise ValueError("`strategy: fully_sharded` lays parts of the weights on several processes; set `workers: 2` or more, or leave `strategy` out")
        if self.strategy == "fully_sharded" and self.compress_above is not None:
            raise ValueError("`compress_above` is not there for `strategy: fully_sharded`; leave it out: gradients then travel in full")
        return self

    def effort(self) -> Effort:
        """What these settings allow every family; time, place and words are its caller's to say."""
        return Effort(
            seed=self.seed, n_threads=self.threads, device=self.device, workers=self.workers, compress_above=self.compress_above, strategy=self.strategy
        )


def fit(
    model: Model | Literal["auto"],
    rows: Rows,
    task: Task,
    layouts: Callable[[Form], dict[str, Layout]],
    settings: Train,
    *,
    checkpoints: Path | None = None,
    memory: int | None = None,
    crew: Crew | None = None,
    tell: Callable[[str], None] = lambda note: None,
    progress: Callable[[float, str], None] = lambda share, note: None,
    folds: "Callable[[], NDArray[Any] | None]" = lambda: None,
) -> Fitted:
    """Learns from the training rows; validation rows only stop early and, for ``auto``, choose.

    ``memory``: bytes it may take besides interpreter and libraries (None: no limit); ``tell`` is called with what a family could not do because of it.
    ``crew``: where the processes of `Train.workers` are begun (None: on this machine).
    ``auto`` fits several families and settings within the budget and keeps the one with the least loss, or a mixture of some where that is better by more
    than chance (`train._auto`); ``folds`` gives it the fold of each row of training, then of validation. Raises `ModelError` when a family that was asked
    for, or every family of ``auto``, cannot learn this.
    """
    if isinstance(model, str):
        from modelinscale.train import _auto

        found = _auto.fit(rows, task, layouts, settings, checkpoints=checkpoints, memory=memory, crew=crew, tell=tell, progress=progress, folds=folds)
        _tell_of_parts([trial.model for trial in found.trials], settings, tell)
        return found
    _tell_of_parts([model], settings, tell)
    start = time.monotonic()
    effort = replace(
        settings.effort(),
        budget_s=settings.budget,
        crew=crew,
        checkpoints=folder_of(checkpoints, model.type),
        memory=memory,
        tell=lambda note: tell(f"{model.type}: {note}"),
        progress=part_of(progress, 0, 1, model.type),
    )
    trial, one = attempt(model, rows, task, layouts, settings, effort, tolerant=False)
    assert one is not None, "what is not tolerated is raised"
    return Fitted(one, one if model.type == "linear" else None, time.monotonic() - start, (trial,))


def _tell_of_parts(models: list[Model], settings: Train, tell: Callable[[str], None]) -> None:
    """Says so where no network learns whose weights `Train.strategy` could lay anywhere."""
    if settings.strategy == "auto":
        return
    from modelinscale.models._deep.family import Deep

    if not any(isinstance(model, Deep) for model in models):
        names = " and ".join(dict.fromkeys(model.type for model in models))
        tell(f"`train.strategy: {settings.strategy}` is for the weights of a network (`network`, `mlp`); none learned here, so it changes nothing for {names}.")
