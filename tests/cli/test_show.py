"""What the command line says: how far long work is, and how good a model is beside what it is held against."""

import random
from pathlib import Path

import pytest

from modelinscale.api import Project
from modelinscale.cli import _show
from modelinscale.core.errors import UsageError
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


def test_a_model_no_better_than_always_the_same_answer_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(1)
    rows = [(part, chance.random()) for part in ("train",) * 200 + ("valid",) * 60 + ("test",) * 60]
    turned = [f"{part},{x:.4f},{'yes' if (x > 0.5) == (part != 'test') else 'no'}" for part, x in rows]  # what was learned is wrong where it is tested
    (tmp_path / "rows.csv").write_text("part,x,y\n" + "\n".join(turned) + "\n")
    (tmp_path / "model.yaml").write_text("data: {source: rows.csv, split: {type: column, column: part}}\ntarget: y\nfeatures: {x: number}\nmodel: linear\n")
    found = Project(tmp_path).run()
    assert found.no_better
    assert any(note.startswith("The model is no better than always the same answer: roc_auc 0, and 0.5 for that.") for note in found.notes)
    assert found.aliases == ("challenger",), "one that is worse than that is registered, and not put in use"
    assert found.notes[-1] == (
        "version 1 is challenger: worse than always the same answer: roc_auc 0 against 0.5 for that. `mis promote 1` puts it in use all the same."
    )
    with pytest.raises(UsageError, match=r"has no champion.*`mis promote N`.*There is: 1 \(challenger\)"):
        Project(tmp_path).package()
    assert "no better than always the same answer" in Project(tmp_path).card("1")
    _show.outcome(found, as_json=False)
    assert capsys.readouterr().out.splitlines()[-1].startswith("next: more rows or other features")
    assert Project(tmp_path).promote("1")["champion"] == 1
    assert Project(tmp_path).package().manifest.version == 1
    assert not [note for note in Project(tmp_path).run().notes if "challenger" in note], "what somebody decided is not decided again"
    assert Project(tmp_path).run().aliases == ("challenger", "champion")
