"""What is predicted."""

import json

import pytest

from modelinscale.core.errors import DataError
from modelinscale.core.task import Label, Task


@pytest.mark.parametrize(
    ("type_", "labels", "n_scores"),
    [("binary", (False, True), 1), ("binary", ("no", "yes"), 1), ("binary", (0, 1), 1), ("multiclass", (1, 2, 7), 3), ("regression", (), 1)],
)
def test_a_task_knows_its_scores_and_keeps_the_type_of_its_labels(type_: str, labels: tuple[Label, ...], n_scores: int) -> None:
    task = Task.model_validate({"type": type_, "target": "y", "labels": labels})
    assert task.n_scores == n_scores
    again = Task.model_validate(json.loads(json.dumps(task.plain())))
    assert again == task
    assert [type(label) for label in again.labels] == [type(label) for label in labels]


@pytest.mark.parametrize(
    ("type_", "labels"), [("binary", ("a",)), ("binary", ("a", "b", "c")), ("multiclass", ("a", "b")), ("regression", ("a",)), ("multiclass", ())]
)
def test_labels_must_fit_the_task(type_: str, labels: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=f"a {type_} task cannot have {len(labels)} classes"):
        Task.model_validate({"type": type_, "target": "y", "labels": labels})
