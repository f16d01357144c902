"""Evaluation: calibration and threshold fitted on validation rows, then how good the answers are on rows nobody saw, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, field_validator, model_validator

from modelinscale.core.decision import Decision
from modelinscale.core.errors import DataError, SpecError
from modelinscale.core.kinds import load, names
from modelinscale.core.settings import Also, Settings
from modelinscale.core.task import Task, TaskType
from modelinscale.evaluate._facts import Abstention, Bin, Conformal, Confusion, CostFacts, Covered, Estimate, Evaluation, Operating, Slice
from modelinscale.metrics import Answers, Metric

if TYPE_CHECKING:
    import polars as pl

    from modelinscale.evaluate._page import About

__all__ = [
    "Abstention",
    "Answers",
    "Bin",
    "Conformal",
    "Confusion",
    "Cost",
    "CostFacts",
    "Costs",
    "Covered",
    "Estimate",
    "Evaluate",
    "Evaluation",
    "Operating",
    "Slice",
    "answers_of",
    "check",
    "constant_of",
    "costs_of",
    "evaluate",
    "fit_decision",
    "metrics_of",
    "report",
]

USUAL: dict[TaskType, tuple[str, ...]] = {
    "binary": ("roc_auc", "pr_auc", "log_loss", "brier", "calibration_error", "accuracy", "f1"),
    "multiclass": ("accuracy", "f1", "roc_auc", "log_loss", "brier", "calibration_error"),
    "multilabel": ("f1", "micro_f1", "pr_auc", "hamming", "accuracy"),
    "regression": ("rmse", "mae", "r2"),
    "quantiles": ("pinball",),
}
"""The metrics of a task when the user names none; the first is the main one."""

Price = Annotated[float, Field(ge=0)] | Annotated[str, Field(min_length=1)]
"""A cost: a number, or the name of a column that holds it row by row."""


class Cost(Settings):
    """What a wrong decision costs, in any one unit; a right one costs nothing."""

    false_positive: Price = 1.0
    """A negative row called positive: a number, or a column that holds it for each row."""
    false_negative: Price = 1.0
    """A positive row called negative: a number, or a column that holds it for each row (``amount``)."""

    @model_validator(mode="after")
    def _something_costs(self) -> Self:
        if self.false_positive == 0 and self.false_negative == 0:
            raise SpecError("both costs are 0: every threshold would be as good as any other.", fix="Give at least one cost above 0.")
        return self


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, (str, dict)) else value


class Evaluate(Settings):
    """Metrics, slices, costs, calibration."""

    main: Metric | None = None
    """The metric that counts most. Left out: roc_auc for two classes, accuracy for more, f1 for several labels, rmse for numbers, pinball for quantiles."""
    metrics: Annotated[tuple[Metric, ...], BeforeValidator(_one_or_many), Also({"type": ["string", "object"]})] = ()
    """All metrics to report. Left out: the usual ones of the task."""
    slices: Annotated[tuple[str, ...], BeforeValidator(_one_or_many), Also({"type": "string"})] = ()
    """Columns by whose values (numbers: by fifths) the main metric is reported separately."""
    cost: Cost | None = None
    """Two classes: what wrong decisions cost; the threshold is chosen to make the sum small. Left out: both cost the same."""
    threshold: float | None = Field(None, ge=0, le=1)
    """Two classes: the probability above which a row is called positive; several labels: above which each is given. Left out: chosen by
    ``cost``, or for the best ``main`` if that is f1, mcc or balanced_accuracy and no cost is given; of each label for its best f1."""
    calibrate: Literal["auto", "none", "temperature", "isotonic"] = "auto"
    """How scores become honest probabilities. auto: what gives the lowest log loss on validation rows left out, the simpler one when in doubt."""
    clip: tuple[float | None, float | None] | None = None
    """Regression: answers are held inside [lowest, highest]; null leaves a side open (``[0, null]`` for what cannot be negative)."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """How often intervals should cover the true value."""
    coverage: float | None = Field(0.9, gt=0.5, lt=1)
    """How often sets of classes, or intervals of numbers, should hold the truth: they are made on validation rows and tried on test rows. Null: none."""
    sets: Literal["auto", "lac", "aps", "raps"] = "auto"
    """How a set of classes grows. lac: the smallest sets, all classes above one probability · aps: larger ones for harder rows, the likeliest classes up to
    one sum · raps: that, but hardly likely classes stay out. auto: lac for two classes, aps for more."""
    coverage_by_class: bool = False
    """Whether each class (numbers: each fifth of the answers) is covered as often, rather than all rows together; sets grow for it."""
    n_bootstrap: int = Field(200, ge=50, le=10_000)
    """Resamples of the test rows behind every interval."""
    slice_rows: int = Field(50, ge=2)
    """Slices with fewer rows are not reported."""
    seed: int = 7
    """Seed of resamples and of the parts used to choose a calibration."""

    @field_validator("metrics")
    @classmethod
    def _each_once(cls, value: tuple[Metric, ...]) -> tuple[Metric, ...]:
        types = [metric.type for metric in value]
        doubled = sorted({t for t in types if types.count(t) > 1})
        if doubled:
            raise SpecError(f"metrics named twice: {', '.join(doubled)}.", fix="Name each once.")
        return value

    @field_validator("clip")
    @classmethod
    def _clip_rises(cls, value: tuple[float | None, float | None] | None) -> tuple[float | None, float | None] | None:
        if value is not None and None not in value and value[0] >= value[1]:  # type: ignore[operator]
            raise SpecError(f"`clip` must rise, found [{value[0]:g}, {value[1]:g}].", fix="Write [lowest, highest].")
        return value

    @property
    def cost_columns(self) -> tuple[str, ...]:
        """Columns that hold costs."""
        prices = (self.cost.false_positive, self.cost.false_negative) if self.cost else ()
        return tuple(dict.fromkeys(price for price in prices if isinstance(price, str)))


def metrics_of(settings: Evaluate, task: Task) -> tuple[Metric, ...]:
    """The metrics to report, the main one first. Raises `SpecError` for one that is not for this task."""
    usual = tuple(Metric.parse(name) for name in USUAL[task.type])
    wanted = settings.metrics or usual
    main = settings.main or wanted[0]
    chosen = (main, *(m for m in wanted if m.type != main.type))
    strangers = [m.type for m in chosen if task.type not in m.tasks]
    if strangers:
        suited = [n for n in names(Metric.folder) if task.type in cast("type[Metric]", load(Metric.folder, n)).tasks]
        raise SpecError(f"evaluate: {', '.join(strangers)}: not for a {task.type} task.", fix=f"For {task.type}: {', '.join(suited)}.")
    return chosen


def check(settings: Evaluate, task: Task) -> None:
    """Raises `SpecError` for settings that do not suit the task: worth a call as soon as the task is known, long before a model is."""
    metrics_of(settings, task)
    binary, labels, regression = task.type == "binary", task.type == "multilabel", task.numbers
    unsuited = [
        ("cost", settings.cost is not None and not binary, "is for two classes"),
        ("threshold", settings.threshold is not None and not (binary or labels), "is for two classes or several labels"),
        ("calibrate: isotonic", settings.calibrate == "isotonic" and not (binary or task.type == "regression"), "is for two classes"),
        ("sets", settings.sets != "auto" and not task.one_class, "is for classes"),
        ("clip", settings.clip is not None and not regression, "is for numbers"),
    ]
    found = [f"`{name}` {why}" for name, wrong, why in unsuited if wrong]
    if found:
        what = "numbers" if regression else f"{len(task.labels)} {'labels' if labels else 'classes'}"
        raise SpecError(f"evaluate: {', '.join(found)}, and {task.target!r} holds {what}.", fix="Leave it out.")


@dataclass(frozen=True)
class Costs:
    """What a wrong decision on each row costs, both (N,), finite and not negative."""

    false_positive: NDArray[np.float64]
    false_negative: NDArray[np.float64]


def costs_of(settings: Evaluate, columns: "pl.DataFrame | None", n_rows: int) -> Costs | None:
    """The costs of ``n_rows`` rows, or None when the user names none. Raises `DataError` for a missing column and for cells without a usable cost."""
    if settings.cost is None:
        return None
    return Costs(_price(settings.cost.false_positive, columns, n_rows), _price(settings.cost.false_negative, columns, n_rows))


def _price(price: float | str, columns: "pl.DataFrame | None", n_rows: int) -> NDArray[np.float64]:
    if not isinstance(price, str):
        return np.full(n_rows, price)
    import polars as pl

    fix = "Give a number, a column of numbers that is never missing or negative, or add a check for it under `data.checks`."
    if columns is None or price not in columns:
        raise DataError(f"evaluate.cost: there is no column {price!r}.", fix=fix)
    if not columns[price].dtype.is_numeric():
        raise DataError(f"evaluate.cost: column {price!r} holds no numbers ({columns[price].dtype}).", fix=fix)
    values = columns[price].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        first = values[bad][0]
        shown = "missing" if np.isnan(first) else f"{first:g}"
        raise DataError(f"evaluate.cost: column {price!r} gives no usable cost for {int(bad.sum()):,} of {n_rows:,} rows (the first: {shown}).", fix=fix)
    return np.asarray(values, np.float64)


def fit_decision(
    scores: NDArray[np.float64],
    truth: NDArray[np.int64] | NDArray[np.float64],
    task: Task,
    settings: Evaluate,
    *,
    weight: NDArray[np.float64] | None = None,
    costs: Costs | None = None,
    class_weight: Sequence[float] | None = None,
) -> Decision:
    """Calibration and threshold, from validation rows that the model did not learn from.

    ``scores`` (N,) or (N, C) as models give them, ``truth`` (N,), ``weight`` (N,) row weights without class weights. ``class_weight`` (C,) is what training
    multiplied the classes by: probabilities are brought back to the true shares. Raises `SpecError` when settings do not suit the task.
    """
    check(settings, task)
    _check(scores, truth, task, weight)
    from modelinscale.evaluate import _calibrate, _several, _threshold

    if task.levels:
        return _several.fit_levels(np.asarray(scores, np.float64), np.asarray(truth, np.float64), task, settings)
    if task.numbers:
        low, high = settings.clip or (None, None)
        return Decision(low=low, high=high)
    if task.type == "multilabel":
        ones = np.ones(len(truth)) if weight is None else weight
        return _several.fit_labels(np.asarray(scores, np.float64), truth.astype(np.int64), ones, task, settings)
    weight = np.ones(len(truth)) if weight is None else weight
    decision = _calibrate.fit(np.asarray(scores, np.float64), truth.astype(np.int64), weight, task, settings, class_weight)
    if task.type == "multiclass":
        return decision
    return _threshold.choose(decision, np.asarray(scores, np.float64), truth.astype(np.int64), weight, task, settings, costs)


def answers_of(
    decision: Decision, scores: NDArray[np.float64], truth: NDArray[np.int64] | NDArray[np.float64], task: Task, weight: NDArray[np.float64] | None = None
) -> Answers:
    """Truth beside what the decision makes of scores."""
    _check(scores, truth, task, weight)
    decided, probability = decision.answer(scores, task)
    return Answers(truth, decided, probability, weight, task.levels)


def constant_of(truth: NDArray[np.int64] | NDArray[np.float64], task: Task, weight: NDArray[np.float64] | None = None) -> tuple[float, ...]:
    """What is known without any column, from training rows: the share of each class (C,), or the mean (1,), of several numbers (W,), of
    labels the share of each, or the quantiles (Q,)."""
    if task.levels:
        return tuple(float(q) for q in np.quantile(truth, task.levels, weights=weight, method="inverted_cdf"))
    if not task.one_class:
        return tuple(float(m) for m in np.atleast_1d(np.average(truth, axis=0, weights=weight)))
    counts = np.bincount(truth.astype(np.int64), weight, minlength=len(task.labels))
    return tuple(float(c) for c in counts / counts.sum())


def evaluate(
    answers: Answers,
    task: Task,
    settings: Evaluate,
    *,
    decision: Decision,
    constant: Sequence[float],
    baselines: Mapping[str, Answers] | None = None,
    columns: "pl.DataFrame | None" = None,
    costs: Costs | None = None,
    valid: Answers | None = None,
) -> Evaluation:
    """How good answers on test rows are, as plain facts: beside the constant answer and other baselines, all on the same resamples.

    ``constant`` comes from `constant_of` on training rows; ``baselines`` are other answers to the same rows (``{"linear": ...}``); ``columns`` holds the
    test rows' slice columns, ``costs`` their costs; ``valid`` are the answers to validation rows, for conformal sets.
    What cannot be said (one class only, one row) is None, with the reason in ``notes``.
    Raises `DataError` when there is no row or a slice column is missing.
    """
    from modelinscale.evaluate import _report

    if len(answers) == 0:
        raise DataError("there are no test rows with a known target.", fix="Give the split a larger `test`, or bring labelled rows.")
    return _report.evaluate(answers, task, settings, metrics_of(settings, task), decision, constant, dict(baselines or {}), columns, costs, valid)


def report(found: Evaluation, answers: Answers, task: Task, about: "About") -> str:
    """An evaluation of test rows as one HTML page that needs nothing else."""
    from modelinscale.evaluate._curves import curves
    from modelinscale.evaluate._page import html

    labels = [str(label).lower() if isinstance(label, bool) else str(label) for label in task.labels]
    return html(found, task, curves(answers, labels), about)


def _check(scores: NDArray[Any], truth: NDArray[Any], task: Task, weight: NDArray[np.float64] | None) -> None:
    """Shapes are our business, values a user's."""
    expected = (len(truth), task.n_scores) if task.n_scores > 1 else (len(truth),)
    assert scores.shape == expected, f"scores of shape {scores.shape}, expected {expected}"
    assert weight is None or weight.shape == (len(truth),), f"weights of shape {weight.shape}, expected {(len(truth),)}"
    if task.numbers and not np.isfinite(truth).all():
        n = int((~np.isfinite(truth)).reshape(len(truth), -1).any(1).sum())
        raise DataError(
            f"the target {task.target!r} is not a finite number for {n:,} of {len(truth):,} rows.", fix="Send such rows to quarantine with a check."
        )
    if weight is not None and not ((weight >= 0) & np.isfinite(weight)).all():
        raise DataError("row weights must be finite and not negative.", fix="Check the column named by `train.weight`.")
