"""``model: auto``: several families and settings within the budget, then the best of them, or a mixture where that is better by more than chance.

In order: the families by themselves, quick settings first (they also tell what a row costs here); where there are rows enough to tell more apart, a portfolio
of further settings, on a part of the rows first where all of them would take too long; then a greedy choice of members on the validation rows.
The same seed gives the same model as long as the budget does not bind.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.compute._crew import Crew
from modelinscale.core.encoded import Form, Layout
from modelinscale.core.errors import ModelError
from modelinscale.core.seeds import derive, generator
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Model, Weights
from modelinscale.models._mixture import Mixture, choose, mixed, row_shares
from modelinscale.models.ensemble import Ensemble, joined
from modelinscale.train import Train
from modelinscale.train._loss import loss
from modelinscale.train._target import Totals, class_factors
from modelinscale.train._trial import Fitted, Learned, Rows, Trial, attempt, folder_of

# M models, N rows.

_TELLING_ROWS = 1_000
"""With fewer validation rows than this more settings would only be compared by chance: the families by themselves do."""
_MANY_ROWS = 20_000
"""Beyond this a part of the rows tells which settings are worth all of them."""
_ETA = 3
_TREE_US, _NUMBER_US = 0.05, 0.0005
"""What one row costs, about: a tree of 31 leaves, and a weight of a network or a linear model."""
_LEAST_S = 1.0
"""With less time than this no further settings are begun."""


@dataclass(frozen=True)
class Candidate:
    """Settings to try."""

    model: Model
    share: float
    """Of what is left of the budget when its turn comes."""
    price: float = 1.0
    """Seconds it takes, about, in those of its family's own settings."""


def families(layouts: Callable[[Form], dict[str, Layout]], *, more: bool, several: bool = False) -> list[Candidate]:
    """The families by themselves. Where a column keeps its shape for deep networks (an image) those first: what the others see of it is little.

    ``more``: further settings come after them, so the last one leaves time for those. ``several``: an answer is more than one class or one number.
    """
    if several:
        shares = {"linear": 0.2, "network": 1.0}
    elif any(layout.shape for layout in layouts("deep").values()):
        shares = {"linear": 0.1, "trees": 0.1, "network": 1.0}
    else:
        shares = {"linear": 0.1, "trees": 0.2, "mlp": 0.3} if more else {"linear": 0.15, "trees": 0.5, "mlp": 1.0}
    return [Candidate(Model.parse(name), share) for name, share in shares.items()]


def portfolio(task: Task) -> list[Candidate]:
    """Further settings, the most promising first. Boosting ones hold leaves back more than their library does: with its defaults rare classes make a model
    worse with more rows (covertype: log loss 0.379 of 120,000 rows, 0.658 of 465,000)."""
    floor = {"min_leaf_weight": 1.0, "l2": 5.0}
    few = 0.5 if task.n_scores > 2 else 1.0  # a round of several classes is as many trees
    settings: list[tuple[float, dict[str, Any]]] = [
        (
            10.0,
            {"type": "trees", "rounds": int(1500 * few), "learning_rate": 0.04, "leaves": 63, "columns_share": 0.6, "rows_share": 0.8, "patience": 60, **floor},
        ),
        (6.0, {"type": "catboost"}),
        (6.0, {"type": "trees", "rounds": int(1000 * few), "learning_rate": 0.08, "leaves": 63, "random_splits": True, "patience": 60, **floor}),
        (
            5.0,
            {"type": "trees", "rounds": int(1000 * few), "learning_rate": 0.06, "leaves": 24, "columns_share": 0.4, "rows_share": 0.7, "patience": 60, **floor},
        ),
        (3.0, {"type": "mlp", "width": 256, "members": 8, "dropout": 0.2, "learning_rate": 2e-3, "bins": 32}),
        (
            20.0,
            {
                "type": "trees",
                "rounds": int(2500 * few),
                "learning_rate": 0.03,
                "leaves": 127,
                "columns_share": 0.5,
                "rows_share": 0.8,
                "patience": 80,
                **floor,
            },
        ),
        (4.0, {"type": "trees", "rounds": int(1500 * few), "learning_rate": 0.1, "leaves": 8, "patience": 60, **floor}),
    ]
    return [Candidate(Model.parse(one), 0.5, price) for price, one in settings if one["type"] != "catboost" or _has_catboost()]


def _has_catboost() -> bool:
    from modelinscale.core.kinds import names

    return "catboost" in names("models") and find_spec("catboost") is not None


@dataclass
class _Search:
    """What is given, and what was found so far."""

    rows: Rows
    task: Task
    layouts: Callable[[Form], dict[str, Layout]]
    settings: Train
    effort: Callable[[Model, float, float], Effort]
    """For a model, seconds, and the share of all that is done."""
    began: float
    trials: list[Trial]
    learned: list[tuple[float, Learned]]

    @property
    def left(self) -> float:
        return self.settings.budget - (time.monotonic() - self.began)

    def attempt(self, candidate: Candidate, budget_s: float, done: float, rows: Rows | None = None, *, part: str = "") -> Trial:
        """One candidate, on all rows or (``part`` says which) on some: what some taught is only told."""
        effort = self.effort(candidate.model, max(0.0, budget_s), done)
        trial, one = attempt(candidate.model, rows or self.rows, self.task, self.layouts, self.settings, effort, tolerant=True)
        self.trials.append(replace(trial, note=f"{trial.note}, {part}".strip(", ")) if part else trial)
        if one is not None and not part:
            self.learned.append((math.inf if trial.loss is None else trial.loss, one))
        return trial


def fit(
    rows: Rows,
    task: Task,
    layouts: Callable[[Form], dict[str, Layout]],
    settings: Train,
    *,
    checkpoints: Path | None,
    memory: int | None,
    crew: Crew | None = None,
    tell: Callable[[str], None],
    progress: Callable[[float, str], None],
) -> Fitted:
    """The best of all within the budget; see `train.fit`."""
    n_valid, n_train = len(rows("valid", "scaled")), len(rows("train", "scaled"))
    deep = any(layout.shape for layout in layouts("deep").values())
    more = portfolio(task) if n_valid >= _TELLING_ROWS and not deep and not task.several else []
    turns = 0

    def effort(model: Model, budget_s: float, done: float) -> Effort:
        nonlocal turns
        turns += 1
        own = model.type if turns <= len(first) else f"{model.type}-{turns}"
        return Effort(
            seed=settings.seed,
            budget_s=budget_s,
            n_threads=settings.threads,
            workers=settings.workers,
            compress_above=settings.compress_above,
            crew=crew,
            checkpoints=folder_of(checkpoints, own),
            memory=memory,
            tell=lambda note: tell(f"{model.type}: {note}"),
            progress=lambda share, note: progress(done + share / (len(first) + len(more)), f"{model.type}: {note}"),
        )

    first = families(layouts, more=bool(more), several=bool(task.several))
    search = _Search(rows, task, layouts, settings, effort, time.monotonic(), [], [])
    total = len(first) + len(more)
    for i, candidate in enumerate(first):
        search.attempt(candidate, search.left * candidate.share, i / total)
    if more:
        _try_more(search, more, n_train, len(first) / total, total)
    if not search.learned:
        raise ModelError(
            f"No family can learn this: {'; '.join(f'{t.model.type}: {t.note}' for t in search.trials)}.",
            fix="Raise `train.budget`, or name features and a model.",
        )
    chosen = _best(search)
    linear = next((one for _, one in search.learned if one.model.type == "linear"), None)
    return Fitted(chosen, linear, time.monotonic() - search.began, tuple(search.trials))


def _try_more(search: _Search, more: list[Candidate], n_train: int, done: float, total: int) -> None:
    """The portfolio, on all rows where that fits into what is left by what the families took; otherwise a ninth and a third of the rows choose first."""
    seconds = {trial.model.type: trial.seconds for trial in search.trials}
    price = [candidate.price * seconds.get(candidate.model.type, 3 * seconds.get("trees", 0.0)) for candidate in more]
    if n_train > _MANY_ROWS and sum(price) > search.left:
        for size in (_ETA**2, _ETA):
            more = _survivors(search, more, size, done)
    for i, candidate in enumerate(more):
        if search.left < _LEAST_S:
            search.trials.append(Trial(candidate.model, 0.0, note="the budget was used up before its turn"))
            continue
        search.attempt(candidate, search.left / min(3, len(more) - i), done + i / total)


def _survivors(search: _Search, more: list[Candidate], size: int, done: float) -> list[Candidate]:
    """Those that a ``size``-th of the training rows says are best: a third of them, and at least two."""
    kept = max(2, math.ceil(len(more) / _ETA))
    if len(more) <= kept:
        return more
    some: dict[Form, Examples] = {}

    def rows(part: Literal["train", "valid"], form: Form) -> Examples:
        whole = search.rows(part, form)
        if part == "valid":
            return whole
        if form not in some:
            index = generator(derive(search.settings.seed, "auto"), "rows", size).permutation(len(whole))[: len(whole) // size]
            some[form] = whole.take(np.sort(index))
        return some[form]

    found: list[tuple[float, int]] = []
    for i, candidate in enumerate(more):
        # All of them on a part of the rows may take no more than a quarter of what is left.
        trial = search.attempt(candidate, search.left / 4 / (len(more) - i), done, rows, part=f"learned from 1/{size} of the rows")
        if trial.loss is not None:
            found.append((trial.loss, i))
    return [more[i] for _, i in sorted(sorted(found)[:kept], key=lambda pair: pair[1])]


def _best(search: _Search) -> Learned:
    """The one with the least loss, or a mixture; never one whose validation loss is more than that of the best."""
    best = min(search.learned, key=lambda pair: pair[0])[1]
    able = [one for value, one in search.learned if one.valid_scores is not None and math.isfinite(value)]
    if len(able) < 2 or search.task.several:
        return best
    valid, train, task = search.rows("valid", "scaled"), search.rows("train", "scaled"), search.task
    totals = Totals.of(((block.target, block.weight) for block in train.blocks()), task)
    valid = valid.weighed(class_factors(totals, task, search.settings.class_weight))
    target, weight = valid.target, valid.weight
    began = time.monotonic()
    answers = np.stack([row_shares(_scores(one), target, task) for one in able])
    costs = [row_cost_s(one.weights) for one in able]
    found = choose(answers, target, weight, task, costs=costs, most=search.settings.latency)
    if sum(share > 0 for share in found.shares) < 2:
        return best
    return _mixture(search, able, found, target, weight, began, best)


def _mixture(
    search: _Search, able: list[Learned], found: Mixture, target: NDArray[Any], weight: NDArray[np.float64] | None, began: float, best: Learned
) -> Learned:
    used = [(one, share) for one, share in zip(able, found.shares, strict=True) if share]
    shares = [share for _, share in used]
    scores = mixed([_scores(one) for one, _ in used], shares, search.task)
    value = loss(scores, target, weight, search.task)
    if value >= min(one for one, _ in search.learned):
        return best
    model = Ensemble(members=tuple(one.model for one, _ in used), shares=tuple(shares))
    search.trials.append(Trial(model, time.monotonic() - began, value, note=", ".join(f"{share:.0%} {one.model.type}" for one, share in used)))
    return Learned(model, joined([one.weights for one, _ in used], shares, search.task), scores)


def _scores(one: Learned) -> NDArray[np.float64]:
    assert one.valid_scores is not None, "only those that have answered are asked"
    return one.valid_scores


def row_cost_s(weights: Weights) -> float:
    """Seconds that one row takes in the graph, about, from the size of the weights alone: the same on every machine."""
    us = 0.0
    for name, array in weights.arrays.items():
        n_trees = array.tobytes().count(b"\nTree=") if name == "trees" else 0
        us += n_trees * _TREE_US if n_trees else array.size * _NUMBER_US if array.dtype.kind == "f" else 0.0
    return us / 1e6
