"""The threshold of two classes: where wrong decisions cost least on validation rows, placed in a gap between their probabilities."""

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.decision import Decision
from modelinscale.core.task import Task
from modelinscale.evaluate import Costs, Evaluate, metrics_of
from modelinscale.metrics import Answers, Metric

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NARROW = 1e-4
"""A gap between probabilities narrower than this is worth leaving for a wider one next to it: rounding must not flip rows."""
SLACK = 1e-3
"""What that may cost, relative to the least cost."""
N_ERRORS = 2.0
"""Standard errors that a threshold found on the rows must save against the one that theory gives, to be preferred."""


def choose(decision: Decision, scores: Floats, truth: Ints, weight: Floats, task: Task, settings: Evaluate, costs: Costs | None) -> Decision:
    """The decision with its threshold set, and the reason added to ``because``."""
    if settings.threshold is not None:
        return _with(decision, settings.threshold, "as asked")
    if len(truth) == 0 or weight.sum() == 0:
        return _with(decision, 0.5, "no validation rows")
    ones = np.ones(len(truth))
    ranked = _Ranked(decision.probability(scores, task)[:, 1], truth, weight, costs or Costs(ones, ones))
    main = metrics_of(settings, task)[0]
    if costs is None and main.sets_threshold and 0 < truth.sum() < len(truth):
        values = ranked.values(main)
        best = ranked.near(int(np.nanargmax(values)), -values)
        return _with(decision, ranked.between(best), f"the highest {main.type} on validation rows ({values[best]:.4f})")
    return _cheapest(decision, ranked, "cost" if costs else "number of wrong decisions")


def _cheapest(decision: Decision, ranked: "_Ranked", what: str) -> Decision:
    theory, total = ranked.theory(), ranked.costs()
    start, best = ranked.called_above(theory), int(total.argmin())
    saved, error = ranked.saving(start, best)
    if saved > N_ERRORS * error:
        chosen = ranked.near(best, total)
        why = f"least {what} on validation rows, {saved / total[start]:.1%} below the {theory:.4g} that honest probabilities would ask for"
        return _with(decision, ranked.between(chosen), why)
    chosen = ranked.near(start, total)
    return _with(decision, ranked.between(chosen, wish=theory), f"least {what} if probabilities are honest; no other does clearly better on validation rows")


def _with(decision: Decision, threshold: float, why: str) -> Decision:
    reason = f"threshold {threshold:.4g}: {why}"
    return decision.but(threshold=threshold, because=f"{decision.because}; {reason}" if decision.because else reason)


class _Ranked:
    """Rows by falling probability; a choice is the number k of distinct probabilities that are called positive, 0 … T."""

    def __init__(self, probability: Floats, truth: Ints, weight: Floats, costs: Costs) -> None:
        order = np.argsort(-probability, kind="stable")
        probability, weight, positive = probability[order], weight[order], truth[order] == 1
        self.positive = np.where(positive, weight, 0.0)  # (N,), as the next three
        self.negative = np.where(positive, 0.0, weight)
        self.wrong_yes = costs.false_positive[order] * self.negative
        self.wrong_no = costs.false_negative[order] * self.positive
        starts = np.flatnonzero(np.concatenate([[True], probability[1:] != probability[:-1]]))
        self.distinct = probability[starts]  # (T,)
        self.called = np.concatenate([starts, [len(order)]])  # (T + 1,): rows called positive for each k

    def theory(self) -> float:
        """Where calling a row positive starts to pay if probabilities are honest and costs do not depend on them: FP / (FP + FN), mean costs."""
        n_negative, n_positive = self.negative.sum(), self.positive.sum()
        if n_negative == 0 or n_positive == 0:
            return 0.5
        yes, no = self.wrong_yes.sum() / n_negative, self.wrong_no.sum() / n_positive
        return float(yes / (yes + no)) if yes + no > 0 else 0.5

    def called_above(self, threshold: float) -> int:
        """k for a threshold."""
        return int((self.distinct > threshold).sum())

    def costs(self) -> Floats:
        """(T + 1,): total cost for each k."""
        change = np.concatenate([[0.0], np.cumsum(self.wrong_yes - self.wrong_no)])
        return np.asarray(self.wrong_no.sum() + change[self.called])

    def saving(self, start: int, best: int) -> tuple[float, float]:
        """What k = ``best`` saves in total against k = ``start``, with its standard error."""
        low, high = sorted((int(self.called[start]), int(self.called[best])))
        gain = (self.wrong_yes - self.wrong_no)[low:high] * (1 if best < start else -1)
        return float(gain.sum()), float(np.sqrt((gain**2).sum()))

    def values(self, metric: Metric) -> Floats:
        """(T + 1,): a metric of decisions for each k."""
        found, wrong = (np.concatenate([[0.0], np.cumsum(w)])[self.called] for w in (self.positive, self.negative))
        table = np.stack([wrong[-1] - wrong, wrong, found[-1] - found, found], axis=1)  # truth * 2 + decision
        none = np.zeros(1, np.int64)
        return metric.parts(Answers(none, none, None)).finish(table[:, :, None])

    def near(self, k: int, loss: Floats) -> int:
        """``k``, or a neighbour about as good whose gap is wider, if the gap at ``k`` is narrow."""
        gaps = self.gaps
        if gaps[k] >= NARROW:
            return k
        reach = max(1, len(self.distinct) // 50)
        low, high = max(0, k - reach), min(len(gaps), k + reach + 1)
        steps = np.abs(np.arange(low, high) - k)
        # What so many rows would change by mere chance, each as likely to be of either class, says nothing against a neighbour.
        chance = np.median(np.abs(np.diff(loss[low:high]))) * np.sqrt(steps)
        good = loss[low:high] <= loss[k] + SLACK * abs(loss[k]) + chance
        wide = good & (gaps[low:high] >= NARROW)
        if wide.any():
            return low + int(np.where(wide, steps, len(gaps)).argmin())
        return low + int(np.where(good, gaps[low:high], -1.0).argmax())

    @property
    def gaps(self) -> Floats:
        """(T + 1,): width of the gap a threshold for k would lie in."""
        return np.asarray(-np.diff(np.concatenate([[1.0], self.distinct, [0.0]])))

    def between(self, k: int, *, wish: float | None = None) -> float:
        """A threshold in the middle half of the gap of k: ``wish`` if it lies there, else the roundest number."""
        high = 1.0 if k == 0 else float(self.distinct[k - 1])
        low = 0.0 if k == len(self.distinct) else float(self.distinct[k])
        inner_low, inner_high = low + (high - low) / 4, high - (high - low) / 4
        if wish is not None and inner_low <= wish <= inner_high:
            return wish
        middle = (low + high) / 2
        rounded = (round(middle, digits) for digits in range(1, 17))
        return next((r for r in rounded if inner_low <= r <= inner_high), middle)
