"""The demo: its project file, what it shows, and (slow) the whole of it as a user runs it."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from modelinscale.core.errors import UsageError
from modelinscale.data.sources.simulator import Simulator
from modelinscale.demo import TEMPLATE, _begin, _some
from modelinscale.spec import loads

SMALL = "type: simulator, customers: 500, terminals: 300, fraud: 4, days: 70"


def template() -> str:
    return (files("modelinscale") / TEMPLATE).read_text(encoding="utf-8")


def test_a_new_folder_gets_the_projects_file_with_the_days_asked_for(tmp_path: Path) -> None:
    begun = _begin(tmp_path / "new", 90)
    assert (begun.state, begun.days) == ("written", 90)
    source = loads(begun.file.read_text(encoding="utf-8")).data.source
    assert isinstance(source, Simulator)
    assert source.days == 90


def test_a_folder_used_before_is_left_as_it_is(tmp_path: Path) -> None:
    file = _begin(tmp_path, None).file
    edited = file.read_text(encoding="utf-8").replace("rounds: 400", "rounds: 50")
    file.write_text(edited, encoding="utf-8")
    begun = _begin(tmp_path, None)
    assert (begun.state, begun.days) == ("found", 120)
    assert file.read_text(encoding="utf-8") == edited


def test_asking_for_more_days_changes_only_the_days(tmp_path: Path) -> None:
    file = _begin(tmp_path, None).file
    begun = _begin(tmp_path, 127)
    assert (begun.state, begun.days) == ("changed", 127)
    assert file.read_text(encoding="utf-8") == template().replace("days: 120", "days: 127")


def test_another_project_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text("data: {source: rows.csv}\ntarget: y\n", encoding="utf-8")
    with pytest.raises(UsageError, match="is not the demo's"):
        _begin(tmp_path, None)


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="is a file"):
        _begin(tmp_path / "demo", None)


def test_what_is_looked_at_has_frauds_and_honest_payments() -> None:
    newest = Simulator(days=40, customers=500, terminals=300, fraud=4).unsettled()
    chosen = newest.take(_some(newest))
    assert 1 <= sum(chosen["is_fraud"].to_pylist()) <= 8
    assert not all(chosen["is_fraud"].to_pylist())
    assert chosen["paid_at"].to_pylist() == sorted(chosen["paid_at"].to_pylist())


def mis(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "modelinscale.cli", *words], capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.slow
def test_the_demo_goes_the_whole_way_and_the_second_time_does_nothing_again(tmp_path: Path) -> None:
    text = template().replace("type: simulator, days: 120", SMALL).replace("rounds: 400", "rounds: 60")
    (tmp_path / "model.yaml").write_text(text, encoding="utf-8")
    first = mis("demo", str(tmp_path), "--json")
    assert first.returncode == 0, first.stderr
    done: dict[str, Any] = json.loads(first.stdout)
    assert done["begun"]["state"] == "found"
    assert done["built"]["version"] == "1"
    assert all(s["done_now"] for s in done["built"]["steps"])
    asked = done["asked"]
    assert asked["n_payments"] > 1000
    assert 0 < asked["n_caught"] <= asked["n_frauds"]
    assert 0 <= asked["amount_caught"] <= asked["amount_frauds"]
    assert {p["fraud"] for p in asked["some"]} == {True, False}
    assert done["refused"]["status"] == 422
    assert "amount" in done["refused"]["error"]["message"]
    assert done["stopped"]["exit_code"] == 0
    assert f'mis_rows_total{{model="fraud"}} {asked["n_payments"]}' in done["stopped"]["metrics"]
    for name, place in done["places"].items():
        assert Path(place).exists(), name

    second = mis("demo", str(tmp_path))
    assert second.returncode == 0, second.stderr
    assert "nothing to do: everything is up to date." in second.stdout
    assert "Try next:" in second.stdout
