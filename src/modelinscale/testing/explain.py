"""What every explainer must do: rank what was planted, give nothing to a column that does nothing, add up where it promises to, repeat itself.

Each function takes an explainer and a family, and raises `AssertionError`. The planted rows are those of `testing.models`.
"""

from functools import lru_cache

import numpy as np
import polars as pl

from modelinscale.core.decision import Decision
from modelinscale.core.encoded import Encoded, Sparse
from modelinscale.core.task import TaskType
from modelinscale.explain import Explainer, Explanation, Rows, Subject, about
from modelinscale.explain._about import ADDITIVE
from modelinscale.models import Effort, Examples, Model
from modelinscale.testing.models import planted

IDLE = {"noise", "still"}
"""Planted columns that decide nothing; all others do."""
N_EXPLAINED = 40


@lru_cache(maxsize=12)
def subject_of(model: Model, type: TaskType) -> tuple[Subject, Rows]:
    """A family fitted on planted rows, and rows it never saw."""
    given = planted(model.form, type)
    weights = model.fit(given.train, given.valid, given.task, Effort(n_threads=1))
    return Subject(model, weights, given.task, Decision(), _rows(given.train.take(np.arange(200)))), _rows(given.test)


def _rows(examples: Examples) -> Rows:
    return Rows(_frame(examples.rows), examples.rows, examples.target)


def _frame(rows: Encoded) -> pl.DataFrame:
    """A cell for each block of a row, so that cells and blocks are equal together: numbers as they are, others by what they hold."""
    columns = {}
    for name, block in rows.items():
        values = block.dense() if isinstance(block, Sparse) else np.asarray(block)
        flat = values.reshape(len(values), -1)
        columns[name] = pl.Series(flat[:, 0].astype(np.float64) if flat.shape[1] == 1 else [str(row.tobytes()) for row in flat])
    return pl.DataFrame(columns)


_Asked = tuple[int, Model, TaskType, bool]
_told: dict[_Asked, tuple[Explainer, Explanation]] = {}
"""What explainers said, each kept with its explainer so that its id stays its own."""


def explained(explainer: Explainer, model: Model, type: TaskType, *, local: bool) -> Explanation:
    """Of planted rows the model never saw; asked once, and known from then on."""
    asked = (id(explainer), model, type, local)
    if asked not in _told:
        _told[asked] = explainer, _explained(explainer, model, type, local=local)
    return _told[asked][1]


def _explained(explainer: Explainer, model: Model, type: TaskType, *, local: bool) -> Explanation:
    subject, rows = subject_of(model, type)
    return about(explainer, subject, rows.take(np.arange(N_EXPLAINED)) if local else rows, local=local)[0]


def ranks_what_was_planted(explainer: Explainer, model: Model, type: TaskType) -> None:
    """Columns that decide come before those that do not."""
    if not explainer.overall:
        return
    found = [one.feature for one in explained(explainer, model, type, local=False).importance]
    assert set(found[-len(IDLE) :]) == IDLE, f"the order is {found}"


def gives_nothing_to_a_column_that_does_nothing(explainer: Explainer, model: Model, type: TaskType) -> None:
    """``still`` holds the same number everywhere."""
    if explainer.overall:
        still = next(one for one in explained(explainer, model, type, local=False).importance if one.feature == "still")
        assert abs(still.value) < 1e-6, f"still has {still}"
        assert still.high - still.low < 1e-6
    for row in explained(explainer, model, type, local=True).rows:
        assert abs(row.effects.get("still", 0.0)) < 1e-6
        assert "still" not in {change.feature for change in row.changes or ()}


def adds_up_where_it_promises(explainer: Explainer, model: Model, type: TaskType) -> None:
    """Base and contributions give the score."""
    found = explained(explainer, model, type, local=True)
    if not explainer.additive:
        return
    assert found.error is not None
    assert found.error <= ADDITIVE.get(explainer.type, 1e-6), f"contributions miss the score by {found.error:.1e} of its size"


def stands_its_own_check(explainer: Explainer, model: Model, type: TaskType) -> None:
    """Its order of columns moves the score more than random orders do."""
    found = explained(explainer, model, type, local=True)
    assert found.check is None or found.check.better, f"{found.check}"


def repeats_itself(explainer: Explainer, model: Model, type: TaskType) -> None:
    """The same seed gives the same explanation."""
    assert _explained(explainer, model, type, local=True) == explained(explainer, model, type, local=True)


SUITE = (
    ranks_what_was_planted,
    gives_nothing_to_a_column_that_does_nothing,
    adds_up_where_it_promises,
    stands_its_own_check,
    repeats_itself,
)
"""All of them."""


def all_of(explainer: Explainer, model: Model, type: TaskType = "binary") -> None:
    """The whole suite."""
    subject, _ = subject_of(model, type)
    why = explainer.refuses(subject)
    assert not why, why
    for one in SUITE:
        one(explainer, model, type)
