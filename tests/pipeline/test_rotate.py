"""A rotation that is killed at any moment: no old pseudonym is left once it was given again, and nothing made from old ones is taken for new."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelinscale.api import Project
from modelinscale.core.errors import UsageError
from modelinscale.core.personal import Keys
from modelinscale.data.lake import Table
from modelinscale.testing.traces import traces

ONE, TWO = "a-key-of-more-than-sixteen-letters", "another-key-of-enough-letters"
SPEC = """
name: shop
data:
  source: rows.csv
  key: row
  checks: {x: {between: [0, 50]}}
  personal: {who: pseudonym}
  pseudonym_key: KEYS
target: y
features: {x: number, who: category}
model: linear
"""
KEYS = "['${ENV:ONE}', '${ENV:TWO}']"


class Killed(Exception):
    """In the place of a kill."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of 40 persons under one key, learned from; model.yaml names a second key by now."""
    monkeypatch.setenv("ONE", ONE)
    monkeypatch.setenv("TWO", TWO)
    lines = [f"{i},person-{i % 40},{i % 55},{'yes' if i % 2 else 'no'}" for i in range(400)]
    (tmp_path / "rows.csv").write_text("\n".join(["row,who,x,y", *lines]) + "\n")
    (tmp_path / "model.yaml").write_text(SPEC.replace("KEYS", "${ENV:ONE}"))
    Project(tmp_path).run(until="prepare")
    (tmp_path / "model.yaml").write_text(SPEC.replace("KEYS", KEYS))
    return tmp_path


def kill(monkeypatch: pytest.MonkeyPatch, name: str, after: int, *, before_work: bool) -> None:
    """The ``after``-th call of a table's method is the last that happens; the work of it too unless ``before_work``."""
    real: Callable[..., Any] = getattr(Table, name)
    calls = 0

    def one(self: Table, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        found = None if calls == after and before_work else real(self, *args, **kwargs)
        if calls == after:
            raise Killed
        return found

    monkeypatch.setattr(Table, name, one)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "after", "before_work"), [("reword", 1, False), ("reword", 2, True), ("reword", 2, False), ("drop_past", 1, True)])
def test_a_rotation_killed_anywhere_is_ended_by_the_next_one(project: Path, name: str, after: int, before_work: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill(patch, name, after, before_work=before_work)
        with pytest.raises(Killed):
            Project(project).rotate()
    assert not list((project / ".mis" / "steps" / "prepare").glob("[!.]*")), "nothing made from old pseudonyms outlives the first change of a table"
    rotated = Project(project).rotate()
    assert rotated.key_id == Keys([ONE, TWO]).id
    assert traces(project / ".mis", [Keys([ONE]).id]) == []
    rows = Project(project).describe("rows").facts
    assert rows["n_rows"] == 400 - 28
    assert {row["who"] for row in rows["rows"]} <= {Keys([ONE, TWO]).pseudonym(f"person-{i}") for i in range(40)}
    again = Project(project).run(until="prepare")
    assert again.collected["n_added"] == 0
    words = json.loads(next((project / ".mis" / "steps" / "prepare").rglob("states.json")).read_text()) if again.collected else {}
    assert Keys([ONE]).id not in json.dumps(words)


def test_pseudonyms_of_unknown_keys_stop_a_rotation_before_anything_goes(project: Path) -> None:
    (project / "model.yaml").write_text(SPEC.replace("KEYS", "${ENV:TWO}"))
    with pytest.raises(UsageError, match="which none of these keys makes"):
        Project(project).rotate()
    assert list((project / ".mis" / "steps" / "prepare").glob("[!.]*"))


def test_tables_of_a_model_whose_name_begins_alike_are_left_alone(project: Path) -> None:
    other = project.parent / "other"
    other.mkdir()
    (other / "rows.csv").write_text((project / "rows.csv").read_text())
    spec = SPEC.replace("name: shop", "name: shop-eu").replace("KEYS", "${ENV:ONE}") + f"store: {project / '.mis'}\n"
    (other / "model.yaml").write_text(spec)
    Project(other).run(until="collect")
    rotated = Project(project).rotate()
    assert [name.rpartition("-")[0] for name in rotated.rows] == ["shop"]
    assert Project(other).describe("rows").facts["rows"][-1]["who"].startswith(Keys([ONE]).id)
