"""From lines of JSON whose target is a list of numbers to a package that answers lists: the lake, a model, the graph, files, a server and its log."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelinscale.api import Project, predict
from modelinscale.core.errors import DataError, ModelError
from modelinscale.core.seeds import generator
from modelinscale.data.sources.predictions import Predictions
from modelinscale.package import open_package
from modelinscale.testing.servers import running

SPEC = """
name: tides
data: {{source: tides.jsonl, split: {{type: hash}}}}
target: next
model: {model}
"""
Row = dict[str, Any]


def tide(i: int) -> Row:
    chance = generator(7, "tide", i)
    a, b = (round(float(x), 4) for x in chance.normal(size=2))
    return {"a": a, "b": b, "next": [round(100 * a + float(chance.normal()), 3), round(0.01 * (b - a), 6), round(5 + b, 3)]}


def write(root: Path, model: str, change: Any = None, n: int = 300) -> Project:
    rows = [tide(i) for i in range(n)]
    if change is not None:
        change(rows)
    (root / "tides.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "model.yaml").write_text(SPEC.format(model=model))
    return Project(root)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tides")
    write(root, "linear").run()
    return root


def asked(n: int = 40) -> tuple[list[Row], np.ndarray[Any, Any]]:
    rows = [tide(5000 + i) for i in range(n)]
    return [{"a": row["a"], "b": row["b"]} for row in rows], np.array([row["next"] for row in rows])


def test_answers_are_lists_near_the_truth(project: Path) -> None:
    package = open_package(project / ".mis/packages/tides/1")
    rows, truth = asked()
    said = np.array([one["prediction"] for one in package.predict(rows)])
    assert said.shape == truth.shape == (40, 3)
    assert (np.abs(said - truth).mean(0) < 0.05 * truth.std(0)).all()
    assert package.run({k: v[:0] for k, v in package.tensors(rows).items()}).prediction.shape == (0, 3)


def test_metrics_are_means_over_the_numbers_and_beat_the_mean_vector(project: Path) -> None:
    found = json.loads((project / ".mis/packages/tides/1/manifest.json").read_text())
    assert found["task"]["width"] == 3
    assert found["metrics"]["r2"]["value"] > 0.95
    card = (project / ".mis/packages/tides/1/card.md").read_text()
    assert "3 numbers at once" in card
    assert "none for answers of 3 numbers" in card


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_scored_files_hold_the_lists(project: Path, tmp_path: Path, suffix: str) -> None:
    rows, _ = asked(10)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder, out = project / ".mis/packages/tides/1", tmp_path / f"answers.{suffix}"
    predict(str(tmp_path / "rows.jsonl"), package=folder, out=out)
    read: Any = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}[suffix]
    lists = [json.loads(v) if isinstance(v, str) else v for v in read(out)["prediction"].to_list()]
    expected = [one["prediction"] for one in open_package(folder).predict(rows)]
    assert np.allclose(lists, expected, rtol=1e-6)


def test_a_server_answers_lists_as_json_and_as_a_tensor_and_logs_them(project: Path, tmp_path: Path) -> None:
    rows, _ = asked(5)
    folder = project / ".mis/packages/tides/1"
    expected = [one["prediction"] for one in open_package(folder).predict(rows)]
    tensors = [{"name": name, "shape": [5], "datatype": "FP64", "data": [row[name] for row in rows]} for name in ("a", "b")]
    with running(folder, log={"folder": str(tmp_path)}) as up:
        plain = [one["prediction"] for one in up.post("/predict", {"rows": rows}).json()["predictions"]]
        inferred = up.post("/v2/models/tides/infer", {"inputs": tensors}).json()["outputs"]
        about = up.get("/v2/models/tides").json()["outputs"]
        schema = up.get("/openapi.json").text
        up.stop()
    assert np.allclose(plain, expected, rtol=1e-5)
    assert (inferred[0]["name"], inferred[0]["shape"]) == ("prediction", [5, 3])
    assert np.allclose(np.reshape(inferred[0]["data"], (5, 3)), expected, rtol=1e-5)
    assert about == [{"name": "prediction", "datatype": "FP32", "shape": [-1, 3]}]
    assert '"minItems":3' in schema.replace(" ", "")
    source = Predictions(model="tides", path=tmp_path)
    column = source.columns()["prediction"]
    assert (column.type, column.width) == ("vector", 3)
    logged = [row for chunk in source.read(None, source.columns()) for row in chunk.batch.column("prediction").to_pylist()]
    assert np.allclose(logged[:5], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: rows[17].update(next=[1.0, 2.0]), r"in row 17 \(counted from 0\) its list has 2 numbers, that of row 0 has 3"),
        (lambda rows: [row.update(next=[row["a"], 4.5]) for row in rows], r"are the same in every row \(number 2 is 4.5\)"),
        (lambda rows: [row.update(next=[row["a"]]) for row in rows], r"lists of one number, which are no answer"),
    ],
)
def test_lists_that_are_no_target_are_refused_with_the_row(tmp_path: Path, change: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        write(tmp_path, "linear", change, n=40).check()


def test_a_row_without_a_list_is_not_learned_from(tmp_path: Path) -> None:
    project = write(tmp_path, "linear", lambda rows: rows[3].update(next=None), n=60)
    assert any("1 of 60 rows have no 'next'" in note for note in project.run().notes)


def test_a_list_with_a_hole_is_set_aside(tmp_path: Path) -> None:
    write(tmp_path, "linear", lambda rows: rows[21].update(next=[1.0, None, 2.0]), n=60).run()
    assert "Quarantine: 1 rows" in (tmp_path / ".mis/packages/tides/1/card.md").read_text()


def test_families_of_one_number_say_what_they_cannot(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"trees cannot learn this: it gives one class or one number, not 3 numbers at once"):
        write(tmp_path, "{type: trees, rounds: 5}", n=60).run()
