"""Every family in the folder passes the shipped suite."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelinscale.core.errors import ModelError
from modelinscale.core.kinds import names
from modelinscale.models import Model, Weights
from modelinscale.testing import models as suite

QUICK: dict[str, dict[str, Any]] = {
    "trees": {"rounds": 80},
    "catboost": {"rounds": 60, "depth": 4, "learning_rate": 0.2},
    "mlp": {"width": 32, "members": 2, "epochs": 12, "learning_rate": 0.02, "bins": 8},
    "network": {
        "width": 32,
        "members": 2,
        "maps": 8,
        "units": 16,
        "sequence": "tcn",
        "text": "bag",
        "epochs": 12,
        "learning_rate": 0.02,
        "bins": 8,
        "batch_rows": 64,
    },
    "random_convolutions": {"features": 500, "groups": 4},
    "ensemble": {"members": ["linear", {"type": "trees", "rounds": 80}], "shares": [1, 1]},
}
"""Settings that make a family quick on a few hundred rows; others run with their defaults."""

MODELS = [Model.parse({"type": name, **QUICK.get(name, {})}) for name in names("models")]


ALWAYS = {suite.learns_a_planted_signal, suite.graph_equals_python, suite.no_rows_no_scores, suite.weights_come_back_from_disk}
SLOW = ("mlp", "network", "random_convolutions")
"""Families slow to fit: in `make check` they pass these on one kind of task, all other checks in `make test`."""


def cases() -> Iterator[object]:
    for model in MODELS:
        for task in suite.taken(model):
            for check in suite.SUITE:
                slow = model.type in SLOW and not (task == "binary" and check in ALWAYS)
                marks = [pytest.mark.slow] if slow else []
                yield pytest.param(model, task, check, id=f"{model.type}-{task}-{check.__name__}", marks=marks)


@pytest.mark.parametrize(("model", "task", "check"), list(cases()))
def test_every_model(model: Model, task: suite.Case, check: Callable[[Model, suite.Case], None]) -> None:
    check(model, task)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.type)
def test_settings_come_back(model: Model) -> None:
    suite.settings_round_trip(model)


def test_damaged_weights_are_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "weights.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "weights.json").write_text("{}")
    with pytest.raises(ModelError, match="weights cannot be read"):
        Weights.load(tmp_path)
