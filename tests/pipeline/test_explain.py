"""A finished run is explained over its test rows and row by row of a file, and leaves a page and a JSON file."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modelinscale.api import Project
from modelinscale.core.errors import SourceError, SpecError, UsageError
from modelinscale.pipeline._explain import stratified

SPEC = "data: {source: rows.csv}\ntarget: y\nmodel: {type: trees, rounds: 30}\nfeatures: {x: number, shop: category, noise: number}\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, chance, n = tmp_path_factory.mktemp("explained"), np.random.default_rng(7), 600
    x, shop = chance.normal(size=n).round(3), chance.choice(["a", "b"], n)
    y = np.where(2 * x + 2 * (shop == "a") > 1, "yes", "no")
    pl.DataFrame({"x": x, "shop": shop, "noise": chance.normal(size=n).round(3), "y": y}).write_csv(folder / "rows.csv")
    pl.read_csv(folder / "rows.csv").drop("y").head(5).write_csv(folder / "new.csv")
    (folder / "model.yaml").write_text(SPEC)
    Project(folder).run()
    return folder


def test_test_rows_are_explained_together(project: Path) -> None:
    told = Project(project).explain()
    assert [one.feature for one in told.explanation.importance][-1] == "noise"
    assert json.loads(told.json.read_text())["by"] == "permutation"
    page = told.page.read_text()
    assert "<script" not in page
    assert "What the answers rest on" in page


def test_each_row_of_a_file_is_explained_as_the_package_would_read_it(project: Path) -> None:
    told = Project(project).explain(str(project / "new.csv"), out=project / "here")
    assert told.page == project / "here" / "tree_shap-rows.html"
    assert [row.row for row in told.explanation.rows] == [0, 1, 2, 3, 4]
    assert (told.explanation.error or 0.0) <= 1e-6
    answers = [one["prediction"] for one in Project(project).package().predict(pl.read_csv(project / "new.csv").to_dicts())]
    assert [row.answer for row in told.explanation.rows] == answers


def test_a_counterfactual_gives_another_answer_to_the_package_too(project: Path) -> None:
    told = Project(project).explain(str(project / "new.csv"), by="counterfactual", settings='{"immutable": ["shop", "noise"]}')
    rows = pl.read_csv(project / "new.csv").to_dicts()
    changed = [one for one in told.explanation.rows if one.changes]
    assert changed
    for one in changed:
        row = {**rows[one.row], **{change.feature: float(change.to) for change in one.changes or ()}}
        assert Project(project).package().predict([row])[0]["prediction"] == one.would_be != one.answer


def test_what_cannot_be_explained_says_why(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the model is trees, not a network"):
        Project(project).explain(by="integrated_gradients")
    with pytest.raises(SpecError, match="unknown explain type 'tree_shp'"):
        Project(project).explain(by="tree_shp")
    with pytest.raises(UsageError, match="are no JSON"):
        Project(project).explain(by="permutation", settings="{")
    with pytest.raises(UsageError, match="settings need the name"):
        Project(project).explain(settings={"repeats": 3})
    pl.DataFrame({"x": [1.0]}).write_csv(tmp_path / "short.csv")
    with pytest.raises(SourceError, match=r"lack 2 of the model's columns: (shop, noise|noise, shop)"):
        Project(project).explain(str(tmp_path / "short.csv"))
    (tmp_path / "rows.csv").write_text((project / "rows.csv").read_text())
    (tmp_path / "model.yaml").write_text(SPEC)
    with pytest.raises(UsageError, match="not done yet"):
        Project(tmp_path).explain()


def test_a_report_lies_beside_the_evaluation_and_the_package(project: Path) -> None:
    outcome = Project(project).run()
    assert outcome.report is not None
    assert outcome.report.is_file()
    exported = next(step.folder for step in outcome.steps if step.step == "export")
    assert (exported / "report.html").read_bytes() == outcome.report.read_bytes()
    assert "hold the truth" in Project(project).card() or "hold it for" in Project(project).card()


def test_a_sample_keeps_the_shares_of_classes_and_every_class() -> None:
    truth = np.repeat([0, 1, 2], [9000, 900, 3])
    found = truth[stratified(truth, 1000, 7, classes=True)]
    assert np.bincount(found).tolist() == [909, 91, 1]
    assert len(stratified(truth.astype(float), 1000, 7, classes=False)) == 1000
