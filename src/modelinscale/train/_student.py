"""A student: one family that learns what a mixture said of rows which its members had not seen, so that one model answers for all of them.

N rows, C classes. Of classes each row comes once for each class that the mixture thinks likely, weighed by how likely: the loss is then the cross entropy
to the mixture's probabilities. Source: Hinton, Vinyals, Dean 2015; out of folds as in Fakoor et al. 2020 (FAST-DAD).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.decision import sigmoid, softmax
from modelinscale.core.task import Task
from modelinscale.models import SCORED_ROWS, Effort, Examples, Model, Scores
from modelinscale.train._rows import predict
from modelinscale.train._trial import Learned

STUDENT = {"type": "trees", "rounds": 600, "learning_rate": 0.06, "leaves": 31, "columns_share": 0.8, "l2": 5.0, "min_leaf_weight": 0.5, "patience": 50}
_LIKELY = 3
"""Classes a row is shown with, at most."""


def softened(examples: Examples, scores: Scores, task: Task) -> Examples:
    """The rows with the mixture's answers, (N,) or (N, C) ``scores``, for their own."""
    if task.type == "regression":
        return Examples(examples.rows, np.asarray(scores, np.float64), examples.weight)
    p = _probabilities(scores, task)  # (N, C)
    k = min(_LIKELY, p.shape[1])
    classes = np.argsort(-p, axis=1, kind="stable")[:, :k]
    likely = np.take_along_axis(p, classes, axis=1)
    weight = (likely / likely.sum(axis=1, keepdims=True)).ravel()
    index = np.repeat(np.arange(len(examples)), k)
    keep = weight > 1e-4
    again = examples.take(index[keep])
    own = weight[keep] if again.weight is None else weight[keep] * again.weight
    return Examples(again.rows, classes.ravel()[keep].astype(np.int64), own)


def taught(train: Examples, valid: Examples, scores: Scores, task: Task, effort: Effort) -> Learned:
    """The student of the ``scores`` of the training rows, which nothing made of the validation rows; these, with their true answers, say when to stop.

    Both weigh as they did for the members: ``scores`` know of the classes' weights, rows weigh by their own class.
    """
    model = Model.parse(STUDENT)
    weights = model.fit(softened(train, scores, task), valid, task, effort)
    own = predict(model, weights, (block.rows for block in valid.blocks(SCORED_ROWS)))
    return Learned(model, weights, own)


def _probabilities(scores: Scores, task: Task) -> NDArray[Any]:
    if task.type == "binary":
        yes = sigmoid(scores)
        return np.stack([1 - yes, yes], axis=1)
    return softmax(scores)
