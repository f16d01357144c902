"""What is predicted: one of two classes, one of many, any of several labels, a number or several, or the quantiles of a number."""

from itertools import pairwise
from typing import Literal, Self

from pydantic import model_validator

from modelinscale.core.errors import DataError
from modelinscale.core.settings import Settings

TaskType = Literal["binary", "multiclass", "multilabel", "regression", "quantiles"]
"""binary, multiclass: each row is of one class · multilabel: each row has any number of labels · regression: a number, or a list of as many in each row ·
quantiles: a number, answered by what it stays below with given probabilities."""
Label = bool | int | str
Targets = str | tuple[str, ...]
"""The column to predict, or several."""
LEVELS = (0.05, 0.5, 0.95)
"""The levels of quantiles when none are named."""


def names_of(targets: Targets) -> tuple[str, ...]:
    """The columns to predict, also where it is one."""
    return (targets,) if isinstance(targets, str) else targets


def words_of(targets: Targets) -> str:
    """The columns to predict as they stand in sentences."""
    return ", ".join(names_of(targets))


class Task(Settings):
    """The task as found from the target column (or as declared), with the classes in their fixed order."""

    type: TaskType
    target: str
    """The column to predict; of several their names, as they stand in sentences."""
    targets: tuple[str, ...] = ()
    """Of several target columns their names, in the order of an answer's numbers or labels; empty: the one column ``target``."""
    labels: tuple[Label, ...] = ()
    """Classes in score order; for binary (negative, positive). Empty for numbers."""
    width: int | None = None
    """Regression: the numbers of each answer, where the target holds lists; none: one number."""
    levels: tuple[float, ...] = ()
    """Quantiles: the probabilities, rising."""

    @model_validator(mode="after")
    def _labels_fit(self) -> Self:
        n = len(self.labels)
        expected = {"binary": n == 2, "multiclass": n > 2, "multilabel": n > 1, "regression": not n, "quantiles": not n}
        if not expected[self.type]:
            raise DataError(f"a {self.type} task cannot have {n} classes ({self.labels[:5]}).")
        if self.width is not None and (self.type != "regression" or self.width < 2):
            raise DataError(f"a {self.type} task cannot have answers of {self.width} numbers.")
        if self.targets and len(self.targets) != self.target_width:
            raise DataError(f"a {self.type} task cannot have the {len(self.targets)} target columns {list(self.targets)}.")
        if bool(self.levels) != (self.type == "quantiles") or any(not 0 < q < 1 for q in self.levels) or any(b <= a for a, b in pairwise(self.levels)):
            raise DataError(f"a {self.type} task cannot have the levels {list(self.levels)}.", fix="Levels lie between 0 and 1, rising, and are for quantiles.")
        return self

    @property
    def n_scores(self) -> int:
        """Columns of the scores: 1 for binary and for one number, the number of classes, labels, numbers or levels otherwise."""
        if self.type in ("multiclass", "multilabel"):
            return len(self.labels)
        return self.width or len(self.levels) or 1

    @property
    def numbers(self) -> bool:
        """Whether answers are numbers rather than classes with probabilities."""
        return self.type in ("regression", "quantiles")

    @property
    def one_class(self) -> bool:
        """Whether each row is of one class."""
        return self.type in ("binary", "multiclass")

    @property
    def several(self) -> str:
        """What an answer holds, in words, where that is more than one class or one number; else ""."""
        if self.type == "multilabel":
            return f"any of {len(self.labels)} labels"
        if self.levels:
            return f"the quantiles {', '.join(self.level_keys)}"
        return f"{self.width} numbers at once" if self.width else ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table that hold it."""
        return self.targets or (self.target,)

    @property
    def answer_keys(self) -> tuple[str, ...]:
        """What the numbers of an answer are called, as JSON keys: levels, or target columns; empty where they are a list, or one."""
        return self.level_keys or (self.targets if self.numbers else ())

    @property
    def level_keys(self) -> tuple[str, ...]:
        """The levels as JSON keys."""
        return tuple(str(level) for level in self.levels)

    @property
    def target_width(self) -> int | None:
        """Numbers of a row's target, (N, W): of lists as many as they have, of labels one each; none: (N,)."""
        return len(self.labels) if self.type == "multilabel" else self.width
