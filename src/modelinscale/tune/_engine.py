"""Optuna in our words: imported late, quiet, and with our spans as its distributions."""

from types import ModuleType
from typing import TYPE_CHECKING, Any

from modelinscale.core.space import Range, Span, Value
from modelinscale.tune._space import FAMILY, Point, Space

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_NO_LOSS = 1e30
"""What a settled trial without a loss counts as where a number is needed."""


def optuna() -> ModuleType:
    """The library, which says nothing by itself: what matters is told by us."""
    import optuna

    optuna.logging.disable_default_handler()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def distribution(span: Span) -> "BaseDistribution":
    """The distribution that means the same as a span."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(span, Range):
        return CategoricalDistribution(span.values)
    if span.whole:
        return IntDistribution(int(span.low), int(span.high), log=span.log)
    return FloatDistribution(float(span.low), float(span.high), log=span.log)


def distributions(space: Space) -> "dict[str, BaseDistribution]":
    """Those of all settings there are."""
    return {name: distribution(span) for name, span in space.dimensions.items()}


def suggest(trial: "Trial", name: str, span: Span) -> Value:
    """What a trial takes for one setting."""
    if not isinstance(span, Range):
        found: Any = trial.suggest_categorical(name, span.values)
    elif span.whole:
        found = trial.suggest_int(name, int(span.low), int(span.high), log=span.log)
    else:
        found = trial.suggest_float(name, float(span.low), float(span.high), log=span.log)
    value: Value = found
    return value


def frozen(known: "dict[str, BaseDistribution]", point: Point, loss: float | None, share: float, *, running: bool) -> "FrozenTrial":
    """A trial as Optuna keeps it; one on a share of the rows is one that was stopped there. ``known``: see `distributions`."""
    from optuna.trial import TrialState, create_trial

    at: dict[str, Any] = {"params": dict(point), "distributions": {name: known[name] for name in point}}
    if running:
        return create_trial(state=TrialState.RUNNING, **at)
    value = _NO_LOSS if loss is None else loss
    if share < 1.0:
        return create_trial(state=TrialState.PRUNED, value=value, intermediate_values={step_of(share): value}, **at)
    return create_trial(value=value, **at)


def step_of(share: float) -> int:
    """A share of the rows as the step that Optuna's pruned trials are compared by."""
    return round(1000 * share)


__all__ = ["FAMILY", "distribution", "distributions", "frozen", "optuna", "step_of", "suggest"]
