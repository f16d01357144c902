"""From scores to an answer: calibration, threshold, limits. Plain data, said twice: in NumPy and in the ONNX graph.

Both say it in float64 from the score on, so that what separates them is the model's own rounding and nothing of ours. Every step is continuous and of
bounded steepness: a score that moves by 1e-6 moves a probability by at most 1e-6 (divided by the temperature, where that is below 1).

N rows, C classes, K knots.
"""

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from modelinscale.core.errors import ModelError, SpecError
from modelinscale.core.graph import Graph
from modelinscale.core.settings import Settings
from modelinscale.core.task import Task

MAX_STEEPNESS = 4.0
"""Largest rise of a calibrated logit over a rise of the logit that enters: 4 times the sigmoid's own steepness of 1/4 is 1."""


class Decision(Settings):
    """How scores become probabilities, and probabilities a decision."""

    calibration: Literal["none", "temperature", "isotonic", "conformal"] = "none"
    """none: the model's own probabilities, apart from ``shift`` · temperature: logits divided by a temperature, then shifted by class
    (for two classes that is Platt's sigmoid) · isotonic: that, then a rising piecewise linear map of the logit (two classes only) ·
    conformal: quantiles, each level moved by ``shift``."""
    temperature: float = Field(1.0, gt=0)
    """Logits are divided by it: above 1 the model was too sure."""
    shift: tuple[float, ...] = ()
    """Added to the logits after that: one number for two classes (the positive's logit), one for each of more. Quantiles: added to each level,
    which are then put in order. Empty: nothing."""
    temperatures: tuple[float, ...] = ()
    """Several labels: what the logits of each are divided by, in place of ``temperature``."""
    thresholds: tuple[float, ...] = ()
    """Several labels: each is given when its probability is above this."""
    knots: tuple[float, ...] = ()
    """isotonic: logits at which the map bends, rising."""
    levels: tuple[float, ...] = ()
    """isotonic: calibrated logits at the knots, rising. Beyond the ends the map goes on with steepness 1."""
    threshold: float = Field(0.5, ge=0, le=1)
    """Two classes: the positive one is decided when its probability is above this."""
    low: float | None = None
    """Regression: answers below it are raised to it."""
    high: float | None = None
    """Regression: answers above it are lowered to it."""
    because: str = ""
    """How calibration and threshold were chosen, in words."""

    @model_validator(mode="after")
    def _the_map_rises(self) -> Self:
        if (self.calibration == "isotonic") != bool(self.knots) or len(self.knots) != len(self.levels) or len(self.knots) == 1:
            raise SpecError(f"an isotonic map needs at least two knots with a level each, found {len(self.knots)} and {len(self.levels)}.")
        rise, run = np.diff(self.levels), np.diff(self.knots)
        if (run <= 0).any() or (rise <= 0).any() or (rise > run * MAX_STEEPNESS * (1 + 1e-9)).any():
            raise SpecError(f"an isotonic map must rise from knot to knot, by at most {MAX_STEEPNESS:g} for 1.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise SpecError(f"the lower limit {self.low:g} is above the upper limit {self.high:g}.")
        return self

    def logits(self, scores: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
        """Calibrated logits: (N,) of the positive class for two classes, (N, C) otherwise. Raises `ModelError` if a score is not finite."""
        z = _finite(scores) / (np.asarray(self.temperatures) if self.temperatures else self.temperature)
        if self.shift:
            z = z + (self.shift[0] if task.type == "binary" else np.asarray(self.shift))
        if not self.knots:
            return z
        knots, levels = np.asarray(self.knots), np.asarray(self.levels)
        inside: NDArray[np.float64] = np.interp(z, knots, levels)
        return np.asarray(inside + np.minimum(z - knots[0], 0) + np.maximum(z - knots[-1], 0))

    def probability(self, scores: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
        """(N, C) from scores (N,) for two classes or (N, C) for more; rows sum to 1, those of several labels do not.

        Raises `ModelError` if a score is not finite.
        """
        z = self.logits(scores, task)
        if task.type == "binary":
            positive = sigmoid(z)
            return np.stack([1 - positive, positive], axis=1)
        return sigmoid(z) if task.type == "multilabel" else softmax(z)

    def decide(self, probability: NDArray[np.float64], task: Task) -> NDArray[np.int64]:
        """(N,) class indices from probabilities (N, C); of equally likely classes the first. Several labels: (N, C), 1 where it is given."""
        if task.type == "multilabel":
            return (probability > (np.asarray(self.thresholds) if self.thresholds else self.threshold)).astype(np.int64)
        if task.type == "binary":
            return (probability[:, 1] > self.threshold).astype(np.int64)
        return np.asarray(probability.argmax(1), np.int64)

    def number(self, scores: NDArray[np.float64], task: Task | None = None) -> NDArray[np.float64]:
        """(N,) or (N, W) answers of a regression, or quantiles (N, Q), rising: those that cross are put in order, which never makes the pinball loss worse
        (Chernozhukov, Fernández-Val, Galichon, Quantile and Probability Curves without Crossing, 2010); held inside the limits.

        Raises `ModelError` if a score is not finite.
        """
        found = _finite(scores)
        if task is not None and task.levels:
            found = np.sort(found, axis=1)  # a shift is that of a level, not of a score
            found = np.sort(found + np.asarray(self.shift), axis=1) if self.shift else found
        if self.low is None and self.high is None:
            return found
        return np.clip(found, self.low, self.high)

    def answer(self, scores: NDArray[np.float64], task: Task) -> tuple[NDArray[np.int64] | NDArray[np.float64], NDArray[np.float64] | None]:
        """Decisions (N,) and probabilities (N, C); for a regression numbers, (N,) or (N, W), and None."""
        if task.numbers:
            return self.number(scores, task), None
        probability = self.probability(scores, task)
        return self.decide(probability, task), probability

    def graph(self, graph: Graph, tensor: str, task: Task) -> tuple[str | None, str]:
        """Draws `answer` onto a float32 score tensor, (N,) or (N, C).

        Returns the tensors of the probabilities, float32 (N, C) (None for a regression), and of the decision: int64 (N,) class indices, bool (N, C) labels,
        or float32 numbers, (N,) or (N, W).
        """
        if task.numbers:
            if task.levels:
                tensor = _rising(graph, tensor, len(task.levels))
                if self.shift:
                    tensor = _rising(graph, graph.op("Add", tensor, graph.constant(self.shift, np.float32)), len(task.levels))
            limits = ["" if limit is None else graph.constant(limit, np.float32) for limit in (self.low, self.high)]
            return None, graph.op("Clip", tensor, *limits) if any(limits) else tensor
        z = graph.op("Cast", tensor, to=graph.FLOAT64)
        if self.temperatures or self.temperature != 1.0:
            z = graph.op("Div", z, graph.constant(self.temperatures or self.temperature, np.float64))
        if self.shift:
            z = graph.op("Add", z, graph.constant(np.asarray(self.shift, np.float64) if task.type != "binary" else np.float64(self.shift[0])))
        if self.knots:
            z = self._draw_map(graph, z)
        if task.type == "multiclass":
            probability = graph.op("Softmax", z, axis=-1)
            decision = graph.op("ArgMax", probability, axis=1, keepdims=0)
        elif task.type == "multilabel":
            probability = graph.op("Sigmoid", z)
            decision = graph.op("Greater", probability, graph.constant(self.thresholds or self.threshold, np.float64))
        else:
            positive = graph.op("Sigmoid", z)
            decision = graph.op("Cast", graph.op("Greater", positive, graph.constant(self.threshold, np.float64)), to=graph.INT64)
            last = graph.constant([1], np.int64)
            negative = graph.op("Sub", graph.constant(1.0, np.float64), positive)
            probability = graph.op("Concat", graph.op("Unsqueeze", negative, last), graph.op("Unsqueeze", positive, last), axis=1)
        return graph.op("Cast", probability, to=graph.FLOAT32), decision

    def _draw_map(self, graph: Graph, z: str) -> str:
        """A sum of ramps, one between each two knots, and one beyond either end."""
        knots, levels = np.asarray(self.knots), np.asarray(self.levels)
        run = np.diff(knots)
        zero = graph.constant(0.0, np.float64)
        row = graph.op("Unsqueeze", z, graph.constant([1], np.int64))  # (N, 1)
        ramps = graph.op("Min", graph.op("Max", graph.op("Sub", row, graph.constant(knots[:-1])), zero), graph.constant(run))  # (N, K - 1)
        inside = graph.op("MatMul", ramps, graph.constant(np.diff(levels) / run))  # (N,)
        below = graph.op("Min", graph.op("Sub", z, graph.constant(knots[0])), zero)
        above = graph.op("Max", graph.op("Sub", z, graph.constant(knots[-1])), zero)
        return graph.op("Add", graph.op("Add", inside, graph.constant(levels[0])), graph.op("Add", below, above))


def _rising(graph: Graph, tensor: str, n: int) -> str:
    """Each row's ``n`` numbers in order."""
    found, _ = graph.ops("TopK", tensor, graph.constant([n], np.int64), n_outputs=2, axis=1, largest=0, sorted=1)
    return found


def sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-z)), without overflow."""
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, small) / (1.0 + small)


def softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(z) over its sum along the last axis, without overflow."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def _finite(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = np.asarray(scores, np.float64)
    broken = ~np.isfinite(scores)
    if broken.any():
        n = int(broken.reshape(len(scores), -1).any(1).sum())
        raise ModelError(
            f"the model's answer is not a finite number for {n:,} of {len(scores):,} rows.",
            fix="Look for extreme values in the columns, or use another model family.",
        )
    return scores
