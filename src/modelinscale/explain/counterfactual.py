"""The smallest change found that gives another answer: cells replaced one by one by those of training rows, then put back where they need not be.

Source of the idea: Wachter, Mittelstadt, Russell, Counterfactual Explanations without Opening the Black Box, 2017. N rows.
"""

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.core.encoded import Encoded
from modelinscale.core.errors import UsageError, did_you_mean
from modelinscale.core.seeds import generator
from modelinscale.core.task import Label
from modelinscale.explain import Change, Explained, Explainer, Rows, Subject, swapped


class Counterfactual(Explainer):
    """Any model: which cells would have to be others for another answer."""

    overall: ClassVar[bool] = False

    immutable: tuple[str, ...] = ()
    """Columns that cannot be changed (age, origin)."""
    monotone: dict[str, Literal["up", "down"]] = {}
    """Columns whose number may only rise, or only fall."""
    to: Label | None = None
    """Classes: the answer wanted. Left out: any other."""
    above: float | None = None
    """Numbers: an answer above this is wanted."""
    below: float | None = None
    """Numbers: an answer below this is wanted."""
    most: int = Field(5, ge=1, le=100)
    """Cells changed at most."""
    candidates: int = Field(40, ge=2, le=10_000)
    """Training rows whose cells are tried for each column."""

    def refuses(self, subject: Subject) -> str:
        if subject.task.type == "regression":
            return "" if (self.above is None) != (self.below is None) else "for numbers give `above` or `below`, one of them"
        if self.above is not None or self.below is not None:
            return "`above` and `below` are for numbers"
        if self.to is not None and self.to not in subject.task.labels:
            return f"there is no class {self.to!r}"
        return ""

    def explain(self, subject: Subject, rows: Rows, output: NDArray[np.int64], *, seed: int, overall: bool) -> Explained:
        names = list(subject.features)
        strangers = [name for name in (*self.immutable, *self.monotone) if name not in names]
        if strangers:
            raise UsageError(f"counterfactual: there is no column {strangers[0]!r}.{did_you_mean(strangers[0], names)}", fix=f"Columns: {', '.join(names)}.")
        n = min(self.candidates, len(subject.background))
        others = subject.background.take(np.sort(generator(seed, "counterfactual").permutation(len(subject.background))[:n]))
        return Explained(changes=tuple(self._one(subject, rows.take(np.array([i])), others) for i in range(len(rows))))

    def _one(self, subject: Subject, row: Rows, others: Rows) -> tuple[tuple[Change, ...] | None, str]:
        from modelinscale.explain._about import answers, cell

        first = int(subject.outputs(row.encoded)[0]) if subject.task.n_scores > 1 else 0
        if self._margin(subject, row.encoded, row.encoded, first)[0] > 0:
            return (), answers(subject, subject.scores(row.encoded))[0]
        allowed = {name: self._allowed(name, row, others) for name in subject.features if name not in self.immutable}
        taken: dict[str, int] = {}
        while len(taken) < self.most:
            tries = [(name, int(j)) for name, places in allowed.items() if name not in taken for j in places]
            if not tries:
                return None, ""
            margins = self._margin(subject, row.encoded, self._changed(subject, row, others, [{**taken, name: j} for name, j in tries]), first)
            best = int(margins.argmax())
            taken[tries[best][0]] = tries[best][1]
            if margins[best] > 0:
                break
        else:
            return None, ""
        for name in list(taken):  # what need not change stays
            without = {k: v for k, v in taken.items() if k != name}
            if without and self._margin(subject, row.encoded, self._changed(subject, row, others, [without]), first)[0] > 0:
                taken = without
        changes = tuple(Change(feature=name, was=cell(_cell(row, name, 0)), to=cell(_cell(others, name, j))) for name, j in taken.items())
        return changes, answers(subject, subject.scores(self._changed(subject, row, others, [taken])))[0]

    def _allowed(self, name: str, row: Rows, others: Rows) -> list[int]:
        """Places among the others whose cell differs, each value once, on the allowed side."""
        was, seen, found = _cell(row, name, 0), set(), []
        for j, value in enumerate(others.frame[name].to_list()):
            key = repr(value)
            if value == was or key in seen:
                continue
            seen.add(key)
            way = self.monotone.get(name)
            if way is not None and (value is None or was is None or (value < was if way == "up" else value > was)):
                continue
            found.append(j)
        return found

    def _changed(self, subject: Subject, row: Rows, others: Rows, changes: list[dict[str, int]]) -> Encoded:
        """The row, once for each set of changes."""
        take = {block: np.array([1 + one[name] if name in one else 0 for one in changes]) for name, blocks in subject.features.items() for block in blocks}
        return swapped(row.encoded, others.encoded, take, len(changes))

    def _margin(self, subject: Subject, row: Encoded, rows: Encoded, first: int) -> NDArray[np.float64]:
        """(N,): above 0 where the answer is one that is wanted; grows on the way there."""
        scores, task, decision = subject.scores(rows), subject.task, subject.decision
        if task.type == "regression":
            found = decision.number(scores[:, 0])
            return np.asarray(found - self.above if self.above is not None else float(self.below or 0) - found)
        probability = decision.probability(scores if task.n_scores > 1 else scores[:, 0], task)
        if task.type == "binary":
            now = int(decision.decide(decision.probability(subject.scores(row)[:, 0], task), task)[0])
            wanted = 1 - now if self.to is None else task.labels.index(self.to)
            toward = probability[:, 1] - decision.threshold
            return np.asarray(toward if wanted == 1 else np.where(toward == 0, 1e-12, -toward))
        if self.to is None:
            return np.asarray(np.delete(probability, first, axis=1).max(1) - probability[:, first])
        k = task.labels.index(self.to)
        return np.asarray(probability[:, k] - np.delete(probability, k, axis=1).max(1))


def _cell(rows: Rows, name: str, i: int) -> Any:
    return rows.frame[name][i]
