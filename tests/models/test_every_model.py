"""Every family in the folder passes the shipped suite."""

from collections.abc import Callable

import pytest

from modelinscale.core.kinds import names
from modelinscale.core.task import TaskType
from modelinscale.models import Model
from modelinscale.testing import models as suite

QUICK = {"trees": {"rounds": 80}, "mlp": {"width": 32, "members": 2, "epochs": 12, "learning_rate": 0.02, "bins": 8}}
"""Settings that make a family quick on a few hundred rows; others run with their defaults."""

MODELS = [Model.parse({"type": name, **QUICK.get(name, {})}) for name in names("models")]


@pytest.mark.parametrize("task", suite.TASKS)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.type)
@pytest.mark.parametrize("check", suite.SUITE, ids=lambda check: check.__name__)
def test_every_model(check: Callable[[Model, TaskType], None], model: Model, task: TaskType) -> None:
    check(model, task)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.type)
def test_settings_come_back(model: Model) -> None:
    suite.settings_round_trip(model)
