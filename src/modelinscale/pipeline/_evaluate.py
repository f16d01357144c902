"""Step 4, evaluate: calibration and threshold from the rows kept for choosing, then how good it is on test rows nobody saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.decision import Decision
from modelinscale.core.files import write_array, write_bytes
from modelinscale.pipeline._place import Facts, Place, Result
from modelinscale.pipeline._prepare import HONEST

if TYPE_CHECKING:
    from modelinscale.evaluate import Costs, Evaluation
    from modelinscale.metrics import Answers, Metric
    from modelinscale.pipeline._context import Context
    from modelinscale.train import Learned


REPORT = "report.html"
"""The page for people: in the step's folder, and beside the package."""


def inputs(place: Place, done: dict[str, Result]) -> Facts:
    return {"model": done["train"].identity, "evaluate": place.spec.evaluate}


def work(context: Context, folder: Path) -> Facts:
    from modelinscale.evaluate import evaluate

    spec, task = context.spec, context.task
    context.progress("evaluate", 0.0, "calibration and threshold")
    model = context.learned("model")
    decision, answers, scores, valid = _judge(context, model)
    linear = context.learned("linear")
    baseline = answers if linear is model else _judge(context, linear)[1]
    context.progress("evaluate", 0.5, "intervals")
    found = evaluate(
        answers,
        task,
        spec.evaluate,
        decision=decision,
        constant=context.totals().constant,
        baselines={"linear": baseline},
        columns=context.rows.take(context.index("test"), list(spec.evaluate.slices)) if spec.evaluate.slices else None,
        costs=_costs(context, "test"),
        valid=valid,
    )
    notes = [*context.judged_notes(), *found.notes, *_no_better(found), *_outdone(found, model.model.type)]
    if (context.folder("prepare") / HONEST).is_file():
        context.progress("evaluate", 0.7, "what the forced split hides")
        notes.append(_inflation(context, model, found.main, found.metrics[found.main].value))
    write_bytes(folder / REPORT, _page(context, found, answers, model, notes).encode("utf-8", "replace"))
    write_array(folder / "valid_scores.npy", scores)
    context.valid_scores = scores
    return {"evaluation": found.plain(), "decision": decision.plain(), "notes": notes}


def _page(context: Context, found: Evaluation, answers: Answers, model: Learned, notes: list[str]) -> str:
    from modelinscale.evaluate import report
    from modelinscale.evaluate._page import About

    trained = context.facts("train")
    about = About(
        name=context.spec.name,
        family=model.model.type,
        curve=model.weights.meta.get("curve") or (),
        trials=trained["trials"],
        notes=[*context.facts("prepare")["notes"], *trained.get("notes", ()), *notes],
        n_train=context.facts("prepare")["n_train"],
    )
    return report(found, answers, context.task, about)


def no_better(evaluation: Mapping[str, Any]) -> bool:
    """Whether always the same answer does as well on the test rows, by the main metric of an evaluation as plain data; False where it is not defined."""
    from modelinscale.core.kinds import load

    main = evaluation.get("main", "")
    difference = evaluation.get("differences", {}).get("constant", {}).get(main, {}).get("value")
    if difference is None:
        return False
    higher = cast("type[Metric]", load("metrics", main)).better == "higher"
    return bool(difference <= 0 if higher else difference >= 0)


def _no_better(found: Evaluation) -> list[str]:
    """A note when the model is no better than none."""
    if not no_better(found.plain()):
        return []
    model, constant = found.metrics[found.main].value, found.baselines["constant"][found.main].value
    return [
        f"The model is no better than always the same answer: {found.main} {model:.4g}, and {constant:.4g} for that."
        " Do not rely on it: it needs more rows, or features that say more."
    ]


def _outdone(found: Evaluation, family: str) -> list[str]:
    """A note when the linear baseline is better by more than chance explains."""
    from modelinscale.core.kinds import load

    difference = found.differences.get("linear", {}).get(found.main)
    if difference is None or difference.low is None or difference.high is None:
        return []
    higher = cast("type[Metric]", load("metrics", found.main)).better == "higher"
    if not (difference.high < 0 if higher else difference.low > 0):
        return []
    return [f"The linear baseline is better than {family} by {abs(difference.value or 0.0):.4g} ({found.main}): try `model: auto` or `model: linear`."]


def _judge(context: Context, one: Learned) -> tuple[Decision, Answers, NDArray[np.float64], Answers]:
    """Decision fitted on validation rows, answers to the test rows, scores of the validation rows and answers to them."""
    from modelinscale.evaluate import answers_of, fit_decision

    task, spec = context.task, context.spec
    (truth, weight), (test, test_weight) = context.answers("valid"), context.answers("test")
    known = context.known_scores(one)
    scores = context.scores(one, "valid") if known is None else known
    decision = fit_decision(
        scores,
        truth,
        task,
        spec.evaluate,
        weight=weight,
        costs=_costs(context, "valid"),
        class_weight=_factors(context),
    )
    answers = answers_of(decision, context.scores(one, "test"), test, task, test_weight)
    return decision, answers, scores, answers_of(decision, scores, truth, task, weight)


def _factors(context: Context) -> Sequence[float] | None:
    """What training multiplied the classes by."""
    from modelinscale.train import class_factors

    if context.spec.train.class_weight is None:
        return None
    found = class_factors(context.totals(), context.task, context.spec.train.class_weight)
    return None if found is None else list(found)


def _costs(context: Context, part: str) -> Costs | None:
    from modelinscale.evaluate import costs_of

    columns = list(context.spec.evaluate.cost_columns)
    return costs_of(context.spec.evaluate, context.rows.take(context.index(part), columns) if columns else None, context.n_rows(part))


def _inflation(context: Context, model: Learned, main: str, forced: float | None) -> str:
    """How much the forced split flatters: the same family, learned and tested once more on the split that does not leak."""
    from modelinscale.evaluate import evaluate
    from modelinscale.train import fit

    honest = context.with_parts(np.load(context.folder("prepare") / HONEST, allow_pickle=False))
    settings = honest.spec.evaluate.but(slices=())
    fitted = fit(model.model, honest.examples, honest.task, honest.layouts, honest.spec.train).chosen
    decision, answers, _, _ = _judge(honest, fitted)
    found = evaluate(answers, honest.task, settings, decision=decision, constant=honest.totals().constant)
    true = found.metrics[main].value
    if forced is None or true is None:
        return f"The split was forced although it leaks; what that hides cannot be said, {main} is not defined on these rows."
    return f"The split was forced although it leaks: {main} is {forced:.4f} on it and {true:.4f} on a split that does not leak, {abs(forced - true):.4f} apart."


def words(facts: Facts) -> str:
    metrics: dict[str, Any] = facts["evaluation"]["metrics"]
    return ", ".join(f"{name} {metric['value']:.4g}" for name, metric in list(metrics.items())[:2] if metric["value"] is not None) or "no metric is defined"
