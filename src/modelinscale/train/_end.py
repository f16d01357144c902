"""How `model: auto` ends: the best one or a mixture, its members learned once more from all rows where there is time; where asked for, a student of it.

N rows that told models apart. None of this may make an answer to a validation row from weights that saw it: calibration and threshold come from those.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from modelinscale.core.encoded import Form
from modelinscale.core.errors import MisError
from modelinscale.core.task import Task
from modelinscale.models import Examples, Model, Scores
from modelinscale.models._mixture import mixed, row_losses, row_shares
from modelinscale.models.ensemble import Ensemble, joined
from modelinscale.train._folds import All, crossed
from modelinscale.train._loss import loss
from modelinscale.train._student import STUDENT, taught
from modelinscale.train._trial import Learned, Trial, attempt

if TYPE_CHECKING:
    from modelinscale.train._auto import Found, Search

AGAIN = 1.4
"""Seconds that learning once more may take, of those it took before: there are more rows, and a tenth more rounds."""


@dataclass(frozen=True)
class Member:
    """One that was chosen, as it will answer."""

    learned: Learned
    source: Literal["all", "train", "fold"]
    """Whether its weights come from all rows, from those of training, or from all rows but one fold."""


def ended(search: "Search") -> Learned:
    """The one with the least loss, or a mixture; never one that did worse than the best on the N rows."""
    if not search.found:
        return min(search.learned, key=lambda pair: pair[0])[1]
    choice = search.mixture()
    used = [(one, share) for one, share in zip(search.found, choice.shares, strict=True) if share]
    single = search.found[0]
    scores = mixed([one.scores for one, _ in used], [share for _, share in used], search.task)
    value = search.loss(scores)
    if len(used) < 2 or value >= single.loss:
        member = _finished(search, single)
        _tell_sources(search, [member])
        return member.learned
    began, shares = time.monotonic(), [share for _, share in used]
    members = [_finished(search, one, AGAIN * sum(later.seconds for later, _ in used[i + 1 :])) for i, (one, _) in enumerate(used)]
    model = Ensemble(members=tuple(one.learned.model for one, _ in used), shares=tuple(shares))
    note = ", ".join(f"{share:.0%} {one.learned.model.type}" for one, share in used)
    search.trials.append(Trial(model, time.monotonic() - began, value, note=note))
    said = [member.learned.valid_scores for member in members if member.learned.valid_scores is not None]
    mixture = Learned(
        model,
        joined([member.learned.weights for member in members], shares, search.task),
        mixed(said, shares, search.task) if len(said) == len(members) else None,
        saw_valid=any(member.learned.saw_valid for member in members),
    )
    student = _student(search, used, scores) if search.settings.student else None
    if student is None:
        _tell_sources(search, members)
    return student or mixture


def _finished(search: "Search", one: "Found", later_s: float = 0.0) -> Member:
    """A member learned from all rows where it can be and there is time, ``later_s`` kept for those after it; else as it was."""
    folded, kind = search.fold is not None, one.learned.model.type
    stays = Member(one.learned, "fold" if folded else "train")
    if not search.settings.refit or not search.every.held or not (folded or search.n_valid):
        return stays
    again = one.learned.model.without_valid(one.weights, search.task)
    if again is None and not (folded and search.n_valid):
        return stays  # it needs rows held out to know when to stop
    if search.left < AGAIN * one.seconds:
        search.tell(f"{kind}: no time was left to learn once more in the end; it stays as it was.")
        return stays
    effort = search.effort(one.learned.model, max(AGAIN * one.seconds, search.left - later_s))
    rows = search.rows if again is None else search.every.whole
    try:
        trial, anew = attempt(again or one.learned.model, rows, search.task, search.layouts, search.settings, effort, tolerant=False)
    except MisError as error:
        search.tell(f"{kind}: it could not learn once more in the end ({error.message}); it stays as it was.")
        return stays
    assert anew is not None, "what is not tolerated is raised"
    if "budget" in trial.note:
        search.tell(f"{kind}: the budget ended it while it learned once more in the end; it stays as it was.")
        return stays
    if again is None:
        return Member(Learned(one.learned.model, anew.weights, anew.valid_scores), "train")
    return Member(Learned(one.learned.model, anew.weights, one.learned.valid_scores, saw_valid=bool(search.n_valid)), "all")


def _tell_sources(search: "Search", members: Sequence[Member]) -> None:
    """Which rows the answer was learned from, where that is not only those of training."""
    if all(member.source == "train" for member in members):
        return
    n = search.n_train + search.n_valid
    words = {"all": f"all {n:,} rows", "train": f"the {search.n_train:,} rows of training", "fold": f"all {n:,} rows but one fold"}
    found: dict[str, list[str]] = {}
    for member in members:
        found.setdefault(member.source, []).append(member.learned.model.type)
    parts = [f"{', '.join(dict.fromkeys(types))} from {words[source]}" for source, types in found.items()]
    held_out = "; calibration and threshold come from what the same settings said of rows held out" if search.n_valid else ""
    search.tell(f"learned in the end: {'; '.join(parts)}{held_out}.")


def _student(search: "Search", used: "list[tuple[Found, float]]", scores: Scores) -> Learned | None:
    """Trees that learn what the mixture says; None where there are none, or where they are worse by more than chance."""
    if search.fold is None or not search.n_valid:
        search.tell("student: none was taught; that takes folds, so a table of fewer than 20,000 rows that is not split in time, and validation rows.")
        return None
    n_folds = int(search.fold.max()) + 1
    if search.left < AGAIN * n_folds * sum(one.seconds for one, _ in used):
        search.tell("student: none was taught; there was no time left to learn the members in folds of the training rows alone.")
        return None
    began, n, model = time.monotonic(), search.n_train, Model.parse(STUDENT)
    try:
        teacher = _teacher(search, used, n_folds)
        if isinstance(teacher, str):
            search.tell(f"student: none was taught; a member could not learn in folds of the training rows alone: {teacher}")
            return None
        train, judged = (search.rows(part, model.form).weighed(search.factors) for part in ("train", "valid"))
        student = taught(train, judged, teacher, search.task, search.effort(model, search.left))
    except MisError as error:
        search.tell(f"student: it could not be taught ({error.message}); the mixture is kept.")
        return None
    own = np.asarray(student.valid_scores)
    found, there = (loss(one, judged.target, judged.weight, search.task) for one in (own, scores[n:]))
    kept = as_good(own, scores[n:], judged, search.task)
    note = f"student of the mixture, whose loss on the same rows is {there:.4g}; {'kept instead of it' if kept else 'the mixture is kept'}"
    search.trials.append(Trial(student.model, time.monotonic() - began, found, note=note))
    search.tell(f"student: {student.model.type} taught by the mixture: loss {found:.4g}, the mixture {there:.4g}; {'kept' if kept else 'not kept'}.")
    return student if kept else None


def _teacher(search: "Search", used: "list[tuple[Found, float]]", n_folds: int) -> Scores | str:
    """What the mixture says of each training row, (n_train,) or (n_train, C), its members learned from other training rows alone; or why one could not.

    Not what was said while searching: members that answered for a training row then had learned from validation rows, on which the student is judged.
    """
    assert search.fold is not None

    def rows(part: Literal["train", "valid"], form: Form) -> Examples:
        train = search.rows("train", form)
        return train if part == "train" else train.take(np.zeros(0, np.int64))

    only, fold, said = All(rows), search.fold[: search.n_train], []
    for i, (one, _) in enumerate(used):
        later_s = AGAIN * n_folds * sum(later.seconds for later, _ in used[i + 1 :])
        model = one.learned.model
        done = crossed(model, only, fold, search.task, search.layouts, search.settings, search.effort(model, search.left - later_s))
        if done.scores is None:
            return f"{model.type}: {done.trial.note or 'a fold is empty'}"
        said.append(done.scores)
    return mixed(said, [share for _, share in used], search.task)


def as_good(scores: Scores, other: Scores, judged: Examples, task: Task) -> bool:
    """Whether the weighted mean loss of ``scores`` on the rows is higher than that of the ``other`` by no more than its standard error."""
    ours, theirs = (row_losses(row_shares(one, judged.target, task), judged.target, task) for one in (scores, other))
    share = np.full(len(judged), 1.0) if judged.weight is None else judged.weight
    share = share / share.sum()
    gaps = ours - theirs
    mean = float(share @ gaps)
    return mean <= float(np.sqrt(share @ (gaps - mean) ** 2 * (share @ share)))
