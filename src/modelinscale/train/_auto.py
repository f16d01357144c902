"""``model: auto``: several families and settings within the budget, then the best of them, or a mixture where that is better by more than chance.

In order: a probe that says what a row costs each family here; the families by themselves, quick settings first; a portfolio of further settings, those that
do not fit into what is left made to fit or left out; variations of the best ones while that helps; a greedy choice of members on rows that they did not
learn from (of small tables all rows, in folds); the members once more on all rows; where asked for a student of the mixture.
The same seed gives the same model as long as the budget does not bind.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.compute._crew import Crew
from modelinscale.core.encoded import Form, Layout
from modelinscale.core.errors import ModelError
from modelinscale.core.seeds import derive, generator
from modelinscale.core.task import Task
from modelinscale.models import Effort, Examples, Model, Scores, Weights
from modelinscale.models._mixture import Mixture, choose, row_shares
from modelinscale.train import Train
from modelinscale.train._costs import PROBE_ROWS, PROBE_S, Costs, probe
from modelinscale.train._end import AGAIN, ended
from modelinscale.train._folds import All, crossed
from modelinscale.train._loss import loss
from modelinscale.train._portfolio import QUICK, Candidate, families, portfolio, variations
from modelinscale.train._target import Totals, class_factors
from modelinscale.train._trial import Fitted, Learned, Rows, Trial, attempt, folder_of

# M models, N rows that tell models apart: those of validation, or of small tables all that are not for the test.

Folds = Callable[[], NDArray[Any] | None]
"""The fold of each row of training, then of validation; None: there can be none."""

_TELLING_ROWS = 1_000
"""With fewer rows to tell by, more settings would only be compared by chance: the families by themselves do."""
_MANY_ROWS = 20_000
"""Beyond this a part of the rows tells which settings are worth all of them; up to this rows tell in folds."""
_ETA = 3
_TREE_US, _NUMBER_US = 0.05, 0.0005
"""What one row costs, about: a tree of 31 leaves, and a weight of a network or a linear model."""
_LEAST_S = 1.0
"""With less time than this no further settings are begun."""
_FOLDED_SHARE = 0.25
"""The families in folds may take no more of what is left; else the validation rows alone tell."""
_KEPT_SHARE = 0.4
"""The most of the budget that is kept for learning from all rows in the end."""
_SHORT_SHARE = 0.85
"""Where each of the portfolio would take more of what is left, so much of it goes to one quick setting."""
_PATIENCE = 5
"""Variations without a better mixture after which no more are tried."""
_MOST_KEPT = 24
"""Models that may be mixed: the best so far."""


@dataclass(frozen=True)
class Found:
    """A model that answers, with what is needed to mix it and to learn it once more from all rows."""

    learned: Learned
    loss: float
    scores: Scores
    """Of the N rows, none of which it learned from."""
    shares: NDArray[np.float64]
    """(N,): `row_shares` of them."""
    weights: tuple[Weights, ...]
    """One, or one a fold."""
    seconds: float
    """Of one learning."""
    cut: bool
    """Whether the budget made it less than it could be."""


@dataclass
class Search:
    """What is given, and what was found so far."""

    rows: Rows
    task: Task
    layouts: Callable[[Form], dict[str, Layout]]
    settings: Train
    effort: Callable[[Model, float], Effort]
    tell: Callable[[str], None]
    costs: Costs
    began: float
    every: All
    n_train: int
    n_valid: int
    fold: NDArray[Any] | None = None
    trials: list[Trial] = field(default_factory=list)
    learned: list[tuple[float, Learned]] = field(default_factory=list)
    """All that were learned from the training rows alone."""
    answered: list[Trial] = field(default_factory=list)
    """The trials of those, whether there were rows to judge them by or not."""
    found: list[Found] = field(default_factory=list)
    """All that answered the N rows, the best first."""
    _mixed: tuple[list[Found], Mixture] | None = None

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.settings.budget - (time.monotonic() - self.began)

    @property
    def free(self) -> float:
        """Seconds that may still be searched in: without those that learning the best from all rows will take."""
        return self.left - self.kept

    @property
    def kept(self) -> float:
        """Seconds for learning the members once more, and where a student is asked for for its teachers."""
        if not self.settings.refit or not self.found or not self.every.held:
            return 0.0
        members = [one for one, share in zip(self.found, self.mixture().shares, strict=True) if share]
        if self.fold is None:  # what the budget cut short gains more from time than from the rows held out
            members = [one for one in members if not one.cut and one.learned.model.without_valid(one.weights, self.task)]
        times = 1 if self.fold is None or not self.settings.student else 2 + int(self.fold.max())
        return min(_KEPT_SHARE * self.settings.budget, AGAIN * times * sum(one.seconds for one in members))

    @property
    def whole(self) -> Examples:
        """The N rows, as they weigh without their classes; their features are not looked at."""
        return self.rows("valid", "scaled") if self.fold is None else self.every.examples("scaled")

    @property
    def factors(self) -> NDArray[np.float64] | None:
        """How much each class counts, (C,): by the training rows, in folds by all."""
        known = self.rows("train", "scaled") if self.fold is None else self.whole
        return class_factors(Totals.of(((block.target, block.weight) for block in known.blocks()), self.task), self.task, self.settings.class_weight)

    @property
    def judged(self) -> Examples:
        return self.whole.weighed(self.factors)

    def loss(self, scores: Scores) -> float:
        """Mean loss of the N rows."""
        judged = self.judged
        return loss(scores, judged.target, judged.weight, self.task)

    def attempt(self, model: Model, budget_s: float, rows: Rows | None = None, *, part: str = "", note: str = "") -> Trial:
        """One model, on all rows or (``part`` says which) on some: what some taught is only told."""
        effort = self.effort(model, max(0.0, budget_s))
        if self.fold is not None and not part:
            return self._crossed(model, effort, note)
        n_rows = len((rows or self.rows)("train", model.form))
        trial, one = attempt(model, rows or self.rows, self.task, self.layouts, self.settings, effort, tolerant=True)
        self.trials.append(replace(trial, note=", ".join(word for word in (trial.note, note, part) if word)))
        if one is not None:
            self.costs.learn(model, n_rows, trial.seconds, one.weights, cut="budget" in trial.note)
        if one is not None and not part:
            self.learned.append((math.inf if trial.loss is None else trial.loss, one))
            self.answered.append(trial)
            self._keep(one, trial.loss, one.valid_scores, (one.weights,), trial.seconds, "budget" in trial.note + note)
        return trial

    def _crossed(self, model: Model, effort: Effort, note: str) -> Trial:
        assert self.fold is not None
        done = crossed(model, self.every, self.fold, self.task, self.layouts, self.settings, effort)
        self.trials.append(replace(done.trial, note=", ".join(word for word in (done.trial.note, note) if word)))
        if done.scores is not None:
            n_folds = len(done.weights)
            one = Learned(model, done.weights[0], np.asarray(done.scores[self.n_train :]) if self.n_valid else None, saw_valid=self.n_valid > 0)
            n_rows = len(self.fold) * (n_folds - 1) // n_folds
            self.costs.learn(model, n_rows, done.trial.seconds / n_folds, done.weights[0], cut="budget" in done.trial.note)
            self._keep(one, done.trial.loss, done.scores, done.weights, done.trial.seconds / n_folds, "budget" in done.trial.note + note)
        return done.trial

    def _keep(self, one: Learned, value: float | None, scores: Scores | None, weights: tuple[Weights, ...], seconds: float, cut: bool) -> None:
        if value is None or scores is None or not math.isfinite(value) or self.task.several:
            return
        shares = row_shares(scores, self.whole.target, self.task)
        self.found = sorted([*self.found, Found(one, value, scores, shares, weights, seconds, cut)], key=lambda each: each.loss)[:_MOST_KEPT]

    def skip(self, model: Model, why: str) -> None:
        self.trials.append(Trial(model, 0.0, note=why))

    def mixture(self) -> Mixture:
        """Which of those found to mix, and how much of each."""
        if self._mixed is None or self._mixed[0] is not self.found:
            judged, found = self.judged, np.stack([one.shares for one in self.found])
            costs = [row_cost_s(one.learned.weights) for one in self.found]
            self._mixed = self.found, choose(found, judged.target, judged.weight, self.task, costs=costs, most=self.settings.latency)
        return self._mixed[1]


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
    folds: Folds = lambda: None,
) -> Fitted:
    """The best of all within the budget; see `train.fit`."""
    began, turns = time.monotonic(), 0
    begun: set[str] = set()

    def effort(model: Model, budget_s: float) -> Effort:
        nonlocal turns
        turns += 1
        own, first_time = f"{model.type}-{turns}", model.type not in begun
        begun.add(model.type)
        share = (time.monotonic() - began) / max(settings.budget, 1e-9)
        return replace(
            settings.effort(),
            budget_s=budget_s,
            crew=crew,
            checkpoints=folder_of(checkpoints, model.type if first_time else own),
            memory=memory,
            tell=lambda note: tell(f"{model.type}: {note}"),
            progress=lambda done, note: progress(min(0.99, share), f"{model.type}: {note}"),
        )

    n_train, n_valid = len(rows("train", "scaled")), len(rows("valid", "scaled"))
    search = Search(rows, task, layouts, settings, effort, tell, Costs(task), began, All(rows), n_train, n_valid)
    shaped = any(layout.shape for layout in layouts("deep").values())
    small = _small(search, n_valid, shaped)
    more = [] if task.several or (n_train + n_valid if small else n_valid) < _TELLING_ROWS else portfolio(task, n_train, layouts)
    first = families(layouts, more=bool(more), several=bool(task.several))
    if n_train > 2 * PROBE_ROWS and not task.several:
        wanted = {one.model.type for one in (*first, *more)} - {"network", "random_convolutions"}
        known = [Model.parse(name) for name in ("trees", "catboost", "mlp", "linear") if name in wanted]
        search.costs = probe(rows, known, task, settings.seed, settings.threads, min(PROBE_S, settings.budget / 20), tell)
    unseen = "network" if shaped else "trees"
    for candidate in first:
        if not n_valid and search.fold is None and candidate.model.type not in ("linear", unseen):
            search.skip(candidate.model, "there are no rows to compare it by")
            continue
        _by_itself(search, candidate, n_train)
        if small and search.fold is None and candidate.model.type == "trees":
            _fold(search, folds)
    if not n_valid and search.fold is None:
        more = []
    elif more and search.fold is None and n_valid < _TELLING_ROWS:
        # There are no folds after all: only families are compared, those too that would have come after the first.
        more, begun_with = [], {candidate.model.type for candidate in first}
        for candidate in families(layouts, more=False, several=bool(task.several)):
            if candidate.model.type not in begun_with:
                _by_itself(search, candidate, n_train)
    if more:
        _try_more(search, more)
    if not search.learned:
        raise ModelError(
            f"No family can learn this: {'; '.join(f'{t.model.type}: {t.note}' for t in search.trials)}.",
            fix="Raise `train.budget`, or name features and a model.",
        )
    chosen = ended(search) if search.found or n_valid else _unseen(search, unseen)
    linear = next((one for _, one in search.learned if one.model.type == "linear"), None)
    return Fitted(chosen, linear, time.monotonic() - began, tuple(search.trials))


def _by_itself(search: Search, candidate: Candidate, n_train: int) -> None:
    """A family within its share of what is left."""
    fits, note = search.costs.made_to_fit(candidate.model, n_train, search.left * candidate.share)
    search.attempt(fits or candidate.model, search.left * candidate.share, note=note if fits else "")


def _unseen(search: Search, preferred: str) -> Learned:
    """The one that usually does best, where no rows tell which does here."""
    learned = [one for _, one in search.learned]
    chosen = next((one for one in learned if one.model.type == preferred), learned[0])
    search.tell(f"there are no validation rows, and no folds: nothing was compared, and {chosen.model.type} taken unseen. Set `data.split.valid` above 0.")
    return chosen


def _small(search: Search, n_valid: int, shaped: bool) -> bool:
    """Whether folds may tell more than the validation rows."""
    n = search.n_train + n_valid
    return search.settings.refit and not search.task.several and not shaped and n < _MANY_ROWS and search.every.held


def _fold(search: Search, folds: Folds) -> None:
    """Goes on in folds where there are any and the budget lets the families be learned in them; those that were learned are learned again."""
    seconds = [trial.seconds for trial in search.answered]
    if not seconds or 4 * (sum(seconds) + 5 * max(seconds)) > _FOLDED_SHARE * search.left:
        return
    search.fold = folds()
    if search.fold is None:
        return
    search.found = []
    for model in [trial.model for trial in search.answered]:
        search.attempt(model, search.left * 0.2)


def _try_more(search: Search, more: list[Candidate]) -> None:
    """The portfolio on all rows, each made to fit its share of what is left, or left out; then variations of the best, while they help."""
    times = 1 if search.fold is None else 5
    n_rows = search.n_train if search.fold is None else len(search.fold) * 4 // 5
    price = [times * (search.costs.seconds(one.model, n_rows) or 3 * _trees_s(search)) for one in more]
    if min(price) > _SHORT_SHARE * search.free and _try(search, Candidate(QUICK), n_rows, times, _SHORT_SHARE * search.free):
        return  # none of it would come far
    if search.n_train > _MANY_ROWS and search.free < sum(price) < 9 * search.free:
        for size in (_ETA**2, _ETA):
            more = _survivors(search, more, size)
    waiting: list[Candidate] = []
    for i, candidate in enumerate(more):
        if not _try(search, candidate, n_rows, times, search.free * max(candidate.share, 1 / (len(more) - i))):
            waiting.append(candidate)
    for candidate in waiting:  # all of what is left for the first of them that it does for
        if not _try(search, candidate, n_rows, times, search.free):
            _, why = search.costs.made_to_fit(candidate.model, n_rows, search.free / times)
            search.skip(candidate.model, why or "the budget was used up before its turn")
    misses, best = 0, search.mixture().loss if search.found else math.inf
    for drawn in variations([one.learned.model for one in search.found], search.task, search.settings.seed):
        if misses == _PATIENCE or search.free < _LEAST_S or not _try(search, drawn, n_rows, times, search.free):
            break
        now = search.mixture().loss
        misses, best = (misses + 1, best) if now >= best * (1 - 1e-3) else (0, now)


def _try(search: Search, candidate: Candidate, n_rows: int, times: int, allowed_s: float) -> bool:
    """One candidate within so many seconds; whether it was tried."""
    fits, note = search.costs.made_to_fit(candidate.model, n_rows, allowed_s / times)
    if fits is None or search.free < _LEAST_S:
        return False
    search.attempt(fits, min(search.free, 1.5 * allowed_s), note=note)
    return True


def _trees_s(search: Search) -> float:
    return max((trial.seconds for trial in search.trials if trial.model.type == "trees"), default=0.0)


def _survivors(search: Search, more: list[Candidate], size: int) -> list[Candidate]:
    """Those that a ``size``-th of the training rows says are best: half of them, in the order of the portfolio; all, where there are few."""
    kept = max(2, math.ceil(len(more) / 2))
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

    # Steps as on all rows, or too few to compare by: then nothing is found out before the time is better spent.
    seconds = [search.costs.seconds(one.model, search.n_train // size) for one in more]
    if sum(one or 0.0 for one in seconds) > search.free / 6:
        return more
    found: list[tuple[float, int]] = []
    for i, candidate in enumerate(more):
        trial = search.attempt(candidate.model, search.free / 4, rows, part=f"learned from 1/{size} of the rows")
        if trial.loss is not None:
            found.append((trial.loss, i))
    return [more[i] for _, i in sorted(sorted(found)[:kept], key=lambda pair: pair[1])]


def row_cost_s(weights: Weights) -> float:
    """Seconds that one row takes in the graph, about, from the size of the weights alone: the same on every machine."""
    us = 0.0
    for name, array in weights.arrays.items():
        n_trees = array.tobytes().count(b"\nTree=") if name == "trees" else 0
        us += n_trees * _TREE_US if n_trees else array.size * _NUMBER_US if array.dtype.kind == "f" else 0.0
    return us / 1e6
