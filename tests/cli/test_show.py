"""What the command line says: how far long work is, and how good a model is beside what it is held against."""

import pytest

from modelinscale.cli import _show
from modelinscale.pipeline import Outcome


def test_without_a_terminal_each_family_is_told_as_it_begins_and_long_work_every_thirty_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    report = _show._lines(lambda: now)
    report("collect", None, "1,000 rows")
    report("collect", 1.0, "table version 1, 3,000 rows")
    for family in ("trees", "mlp"):
        report("train", 0.0, f"{family}: begins, at most 5 min")
        for i in range(480):
            now += 0.125
            report("train", i / 1000, f"{family}: round {i}")
    report("train", 1.0, "mlp, the best of trees, mlp")
    assert capsys.readouterr().err.splitlines() == [
        "collect   table version 1, 3,000 rows",
        "train     trees: begins, at most 5 min",
        "train     trees: round 239",
        "train     trees: round 479",
        "train     mlp: begins, at most 5 min",
        "train     mlp: round 239",
        "train     mlp: round 479",
        "train     mlp, the best of trees, mlp",
    ]


def test_a_linear_model_is_not_shown_beside_itself(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"value": 0.75}
    found = Outcome(
        "m", (), family="linear", metrics={"roc_auc": {**value, "low": None}}, baselines={n: {"roc_auc": dict(value)} for n in ("constant", "linear")}
    )
    _show._metrics(found)
    assert capsys.readouterr().out.splitlines()[0].split() == ["on", "test", "rows", "linear", "constant"]
