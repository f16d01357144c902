"""One trial: settings fitted to a share of the rows, and their loss on the validation rows. Small to describe, the same wherever it is done."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Form
from modelinscale.core.errors import MisError
from modelinscale.core.seeds import derive, mixed
from modelinscale.core.task import Label, Task
from modelinscale.models import SCORED_ROWS, Effort, Examples, Model
from modelinscale.train import Totals, class_factors, loss, predict
from modelinscale.train._target import check_totals

_CLASS_ROWS = 20
"""Rows of each class that a share of the rows keeps at least, as far as there are."""
_PASSES = ("epochs", "rounds")


@dataclass(frozen=True)
class Job:
    """Settings to fit."""

    number: int
    draw: int
    model: dict[str, Any]
    share: float
    budget_s: float | None = None


@dataclass(frozen=True)
class Done:
    """What came of it."""

    number: int
    loss: float | None
    note: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    lost: bool = False
    """Whether the process was lost rather than the settings bad."""


@dataclass(frozen=True)
class Fitter:
    """Everything a trial needs besides its settings."""

    rows: dict[Form, tuple[Examples, Examples]]
    """Training and validation rows by form; at least one validation row."""
    task: Task
    seed: int
    class_weight: str | dict[Label, float] | None = None
    n_threads: int = 1
    memory: int | None = None
    by: str = "rows"
    _last: dict[tuple[Form, float], tuple[Examples, Examples]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The rows of the last trial: those of the next are mostly the same."""

    def __call__(self, job: Job) -> Done:
        """Fits with a seed of the settings' own number, so that who fits them, and when, makes no difference. Never raises: what failed is noted."""
        start, cpu = time.monotonic(), time.process_time()
        try:
            found, note = self._loss(job), ""
            if not math.isfinite(found):
                return Done(job.number, None, "its loss is not finite", time.monotonic() - start, time.process_time() - cpu)
        except MisError as error:
            found, note = None, error.message
        except MemoryError:
            found, note = None, "it needs more memory than there is"
        except Exception as error:  # noqa: BLE001  # libraries raise what they like on settings they cannot learn with, and the search goes on
            found, note = None, f"{type(error).__name__}: {str(error)[:200]}"
        return Done(job.number, found, note, time.monotonic() - start, time.process_time() - cpu)

    def _loss(self, job: Job) -> float:
        model = Model.parse(job.model)
        why = model.accepts(self.task, self.rows[model.form][0].layouts)
        if why:
            raise MisError(f"{model.type} cannot learn this: {why}.")
        shorter = _shorter(model, job.share) if self.by == "passes" else None
        train, valid = self._weighed(model.form, job.share if shorter is None else 1.0)
        model = shorter or model
        effort = Effort(seed=derive(self.seed, "tune", job.draw), budget_s=job.budget_s, n_threads=self.n_threads, memory=self.memory)
        weights = model.fit(train, valid, self.task, effort)
        scores = predict(model, weights, (block.rows for block in valid.blocks(SCORED_ROWS)))
        return loss(scores, valid.target, valid.weight, self.task)

    def _weighed(self, form: Form, share: float) -> tuple[Examples, Examples]:
        """A share of the training rows, and the validation rows, their classes weighed."""
        found = self._last.get((form, share))
        if found is None:
            train, valid = self.rows[form]
            if share < 1.0:
                train = train.take(chosen_rows(train.target, share, derive(self.seed, "tune rows"), classes=self.task.one_class))
            totals = Totals.of(((block.target, block.weight) for block in train.blocks()), self.task)
            check_totals(totals, self.task)
            factors = class_factors(totals, self.task, self.class_weight)  # type: ignore[arg-type]
            self._last.clear()
            found = self._last[form, share] = (train.weighed(factors), valid.weighed(factors))
        return found


def _shorter(model: Model, share: float) -> Model | None:
    """With this share of its passes; None: its settings do not say how many."""
    for name in _PASSES:
        n = getattr(model, name, None)
        if isinstance(n, int):
            return model.but(**{name: max(1, math.ceil(n * share))})
    return None


def chosen_rows(target: NDArray[Any], share: float, seed: int, *, classes: bool) -> NDArray[np.int64]:
    """A share of the rows, ascending: a smaller share's are among a larger one's, and rare classes keep some."""
    keys = mixed(np.uint64(seed), np.arange(len(target), dtype=np.uint64))
    most = max(1, round(share * len(target)))
    if not classes:
        return np.sort(np.argsort(keys, kind="stable")[:most])
    kept = []
    for one in np.unique(target):
        own = np.flatnonzero(target == one)
        n = min(len(own), max(_CLASS_ROWS, round(share * len(own))))
        kept.append(own[np.argsort(keys[own], kind="stable")[:n]])
    return np.sort(np.concatenate(kept))
