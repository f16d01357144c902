"""What settings will take, in seconds: measured on a few thousand rows before anything else, then corrected by all that is learned.

N rows, C scores. A family's *work* says how much more one of its settings does than another, for the same row.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from modelinscale.core.encoded import Form
from modelinscale.core.errors import MisError
from modelinscale.core.seeds import derive, generator
from modelinscale.core.task import Task
from modelinscale.core.units import show_seconds
from modelinscale.models import Effort, Examples, Model, Weights
from modelinscale.train._loss import loss

if TYPE_CHECKING:
    from modelinscale.train._trial import Rows

PROBE_ROWS = 5_000
_FEW_ROWS, _WARM_ROWS = 1_250, 300
PROBE_S = 5.0
"""What the probe may take, and no more than a twentieth of the budget."""
_EPOCHS = 25
"""Passes after which a network on a table usually stops by itself."""
_UNKNOWN = {"mlp": 2e-5}
"""Seconds a row and pass, where there was no time to measure it."""
_LEAST_ROUNDS = 40
_LEAST_SHARE = 0.3
"""Settings that would have to do with less of their rounds lose more than they are worth (housing: 161 of 1,000 rounds of CatBoost, loss 0.26, not 0.16)."""
_LARGEST_STEP = 0.25
"""Boosting with larger steps than this, or fewer rounds, is not worth its time."""
_MARGIN = 1.3
"""Rounds are planned for so many times where the family's own settings stopped."""


@dataclass
class Costs:
    """Seconds by family: a fixed part, and one for each unit of work and row."""

    task: Task
    fixed: dict[str, float] = field(default_factory=dict)
    unit: dict[str, float] = field(default_factory=dict)
    reach: float | None = None
    """Steps times rounds at which `trees` stopped by itself here; None: it did not."""
    noise: float | None = None
    """Standard error of the mean validation loss: less than that apart, two settings are as good."""

    def seconds(self, model: Model, n_rows: int) -> float | None:
        """What it will take; None: nothing is known of its family."""
        unit = self.unit.get(model.type)
        return None if unit is None else self.fixed.get(model.type, 0.0) + unit * self.work(model) * n_rows

    def work(self, model: Model) -> float:
        plain = model.plain()
        if model.type == "trees":
            shape = ((plain["leaves"] or 31) / 31) ** 0.5 * (0.4 + 0.6 * plain["columns_share"]) * (0.7 if plain["random_splits"] else 1.0)
            return float(self.rounds(model) * self.task.n_scores * shape)
        if model.type == "catboost":
            return float(plain["rounds"] * (plain["depth"] / 6) ** 1.5)
        if model.type == "mlp":
            return float(min(plain["epochs"], _EPOCHS) * (plain["width"] / 128) ** 0.8 * plain["members"] / 4)
        return float(plain.get("epochs", 1) * (plain.get("maps", 32) / 32) ** 2)

    def rounds(self, model: Model) -> float:
        """Of trees: rounds until it stops, about."""
        plain = model.plain()
        most = float(plain["rounds"] or 200)
        if self.reach is None or plain["learning_rate"] is None:
            return most
        return min(most, _MARGIN * self.reach / float(plain["learning_rate"]) + float(plain["patience"]))

    def learn(self, model: Model, n_rows: int, seconds: float, weights: Weights, *, cut: bool) -> None:
        """Takes in what it took. ``cut``: the budget ended it."""
        if model.type == "trees":
            from modelinscale.models.trees import n_rounds

            plain, n = model.plain(), n_rounds(weights)
            most = plain["rounds"] or 200
            if not cut and plain["learning_rate"] is None and n + plain["patience"] <= most:
                self.reach = n * min(0.3, max(0.1, 20 / most))
            done = min(most, n if cut else n + plain["patience"])
            work = done * self.work(model) / self.rounds(model)
        elif model.type == "catboost":
            from modelinscale.models.catboost import n_rounds as rounds_of

            plain, n = model.plain(), rounds_of(weights)
            work = min(plain["rounds"], n if cut else n + plain["patience"]) * self.work(model) / plain["rounds"]
        elif cut:
            return
        else:
            work = self.work(model)
        fixed = min(self.fixed.get(model.type, 0.0), 0.5 * seconds)
        self.fixed[model.type], self.unit[model.type] = fixed, (seconds - fixed) / max(1.0, work * n_rows)

    def made_to_fit(self, model: Model, n_rows: int, allowed_s: float) -> tuple[Model | None, str]:
        """The settings as they are where they fit, with fewer and larger steps where that makes them fit; None and why where nothing does."""
        seconds = self.seconds(model, n_rows)
        if seconds is None or seconds <= allowed_s:
            return model, ""
        why = f"it would take about {show_seconds(seconds)}, and has {show_seconds(max(0.0, allowed_s))}"
        variable = seconds - (fixed := self.fixed.get(model.type, 0.0))
        share = max(0.0, allowed_s - fixed) / max(variable, 1e-9)
        plain = model.plain()
        if model.type == "trees" and plain["learning_rate"] is None:
            return model.but(rounds=max(20, int(self.rounds(model) * share))), "with larger steps, to fit the budget"
        if model.type == "trees":
            planned = self.rounds(model)
            step, rounds = plain["learning_rate"] / max(share, 1e-9), int(planned * share)
            if rounds < _LEAST_ROUNDS or share < _LEAST_SHARE:
                return None, why
            return model.but(rounds=rounds, learning_rate=min(step, max(_LARGEST_STEP, plain["learning_rate"]))), f"in {rounds} rounds, to fit the budget"
        if model.type == "catboost":
            rounds = int(plain["rounds"] * share)
            return (
                (model.but(rounds=rounds), f"in {rounds} rounds, to fit the budget") if rounds >= 4 * _LEAST_ROUNDS and share >= _LEAST_SHARE else (None, why)
            )
        return (model, "") if model.type == "network" or share > 0.6 else (None, why)  # a network of parts plans its steps by the time it has


def probe(rows: "Rows", models: list[Model], task: Task, seed: int, n_threads: int, most_s: float, tell: Callable[[str], None]) -> Costs:
    """A few quick fits on at most 5,000 rows: what a row costs each family, and how far chance alone moves the validation loss."""
    began, costs = time.monotonic(), Costs(task, unit=dict(_UNKNOWN))
    parts: dict[Form, Examples] = {}
    told: list[str] = []
    for model in models:
        if time.monotonic() - began > most_s:
            break
        if model.form not in parts:
            parts[model.form] = _some(rows("train", model.form), PROBE_ROWS, seed)
        quick, some = _quick(model), parts[model.form]
        if model.accepts(task, some.layouts):
            continue
        took: list[float] = []
        try:
            for n in (len(some),) if model.type == "linear" else (_WARM_ROWS, _FEW_ROWS, len(some)):
                if time.monotonic() - began > most_s:
                    break
                fit_began = time.monotonic()
                weights = quick.fit(_some(some, n, seed), None, task, Effort(seed=seed, budget_s=max(0.1, most_s - (fit_began - began)), n_threads=n_threads))
                took.append(time.monotonic() - fit_began)
        except MisError:
            continue  # it says so when its turn comes
        if len(took) < (1 if model.type == "linear" else 3):
            break
        small, large = took[-2:] if len(took) > 1 else (0.0, took[0])
        per_row = max((large - small) / max(1, len(some) - _FEW_ROWS), 0.3 * large / len(some))
        costs.unit[model.type], costs.fixed[model.type] = per_row / costs.work(quick), max(0.0, large - per_row * len(some))
        if model.type in ("trees", "linear") and len(rows("valid", model.form)):
            value, costs.noise = _judged(quick, weights, _some(rows("valid", model.form), PROBE_ROWS, seed), task)
            told.append(f"{model.type} {value:.4g}")
    if told and costs.noise is not None:
        tell(f"probe: {' and '.join(told)} of {PROBE_ROWS:,} rows, ± {costs.noise:.2g} by chance; {show_seconds(time.monotonic() - began)}")
    return costs


def _quick(model: Model) -> Model:
    if model.type == "mlp":
        return model.but(epochs=1)
    return model.but(rounds=20) if model.type in ("trees", "catboost") else model


def _some(whole: Examples, n: int, seed: int) -> Examples:
    if len(whole) <= n:
        return whole if whole.held else whole.take(np.arange(len(whole)))
    return whole.take(np.sort(generator(derive(seed, "auto"), "probe", n).permutation(len(whole))[:n]))


def _judged(model: Model, weights: Weights, valid: Examples, task: Task) -> tuple[float, float | None]:
    """Mean loss on validation rows, and its standard error over twenty parts of them."""
    scores = model.predict(weights, valid.rows)
    value = loss(scores, valid.target, valid.weight, task)
    parts = [part for part in np.array_split(np.arange(len(valid)), 20) if len(part)]
    if len(parts) < 20:
        return value, None
    each = [loss(scores[at], valid.target[at], None, task) for at in parts]
    return value, float(np.std(each) / len(parts) ** 0.5)
