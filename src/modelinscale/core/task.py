"""What is predicted: one of two classes, one of many, or a number."""

from typing import Literal, Self

from pydantic import model_validator

from modelinscale.core.errors import DataError
from modelinscale.core.settings import Settings

TaskType = Literal["binary", "multiclass", "regression"]
Label = bool | int | str


class Task(Settings):
    """The task as found from the target column (or as declared), with the classes in their fixed order."""

    type: TaskType
    target: str
    """The column to predict."""
    labels: tuple[Label, ...] = ()
    """Classes in score order; for binary (negative, positive). Empty for regression."""

    @model_validator(mode="after")
    def _labels_fit(self) -> Self:
        expected = {"binary": len(self.labels) == 2, "multiclass": len(self.labels) > 2, "regression": not self.labels}
        if not expected[self.type]:
            raise DataError(f"a {self.type} task cannot have {len(self.labels)} classes ({self.labels[:5]}).")
        return self

    @property
    def n_scores(self) -> int:
        """Columns of the scores: 1 for binary and regression, the number of classes otherwise."""
        return len(self.labels) if self.type == "multiclass" else 1
