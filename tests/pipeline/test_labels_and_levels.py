"""Several labels a row, and the quantiles of a number: from lines of JSON to a package that answers them, to files, a server and its log."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelinscale.api import Project, predict
from modelinscale.core.errors import DataError, ModelError, SpecError
from modelinscale.core.seeds import generator
from modelinscale.data.sources.predictions import Predictions
from modelinscale.package import open_package
from modelinscale.testing.servers import running

Row = dict[str, Any]


def row(i: int) -> Row:
    chance = generator(7, "row", i)
    a, b = (round(float(x), 4) for x in chance.normal(size=2))
    tags = [name for name, true in (("wet", a > 0.3), ("cold", b < 0), ("far", a + b > 1.5)) if true]
    return {"a": a, "b": b, "tags": tags, "wait": round(10 + 3 * a + abs(b) * float(chance.normal()), 3)}


def write(root: Path, target: str, more: str = "", change: Any = None, n: int = 900) -> Project:
    rows = [row(i) for i in range(n)]
    if change is not None:
        change(rows)
    other = "wait" if target == "tags" else "tags"
    (root / "rows.jsonl").write_text("".join(json.dumps({k: v for k, v in one.items() if k != other}) + "\n" for one in rows))
    model = "" if "model:" in more else "model: linear\n"
    (root / "model.yaml").write_text(f"name: {target}\ndata: {{source: rows.jsonl, split: {{type: hash}}}}\ntarget: {target}\n{model}{more}\n")
    return Project(root)


def asked(n: int = 200) -> tuple[list[Row], list[Row]]:
    rows = [row(5000 + i) for i in range(n)]
    return [{"a": one["a"], "b": one["b"]} for one in rows], rows


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tags")
    write(root, "tags").run()
    return root / ".mis/packages/tags/1"


@pytest.fixture(scope="module")
def waits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("waits")
    write(root, "wait", "task: quantiles\nlevels: [0.1, 0.5, 0.9]", n=4000).run()
    return root / ".mis/packages/wait/1"


def test_labels_are_given_each_by_itself(tags: Path) -> None:
    package = open_package(tags)
    rows, truth = asked()
    answers = package.predict(rows)
    assert package.task.labels == ("cold", "far", "wet")
    assert set(answers[0]["probabilities"]) == {"cold", "far", "wet"}
    right = [set(one["prediction"]) == set(true["tags"]) for one, true in zip(answers, truth, strict=True)]
    assert np.mean(right) > 0.9
    found = json.loads((tags / "manifest.json").read_text())
    assert found["main"] == "f1"
    assert set(found["metrics"]) == {"f1", "micro_f1", "pr_auc", "hamming", "accuracy"}
    assert "its threshold: `cold`" in (tags / "card.md").read_text()


def test_quantiles_rise_and_hold_the_truth_as_often_as_they_say(waits: Path) -> None:
    rows, truth = asked(600)
    said = [one["prediction"] for one in open_package(waits).predict(rows)]
    assert list(said[0]) == ["0.1", "0.5", "0.9"]
    levels = np.array([list(one.values()) for one in said])
    assert (np.diff(levels, axis=1) >= 0).all()
    below = (np.array([one["wait"] for one in truth])[:, None] <= levels).mean(0)
    assert np.abs(below - [0.1, 0.5, 0.9]).max() < 0.08
    card = (waits / "card.md").read_text()
    assert "the quantiles 0.1, 0.5, 0.9" in card
    assert "conformalized quantile regression" in card
    assert json.loads((waits / "manifest.json").read_text())["main"] == "pinball"


def test_lists_of_words_in_parquet_are_the_same_labels(tags: Path, tmp_path: Path) -> None:
    project = write(tmp_path, "tags")
    pl.read_ndjson(tmp_path / "rows.jsonl").write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "model.yaml").write_text((tmp_path / "model.yaml").read_text().replace("rows.jsonl", "rows.parquet"))
    project.run()
    rows, _ = asked(20)
    assert open_package(tmp_path / ".mis/packages/tags/1").predict(rows) == open_package(tags).predict(rows)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_scored_files_hold_labels_and_levels(tags: Path, waits: Path, tmp_path: Path, suffix: str) -> None:
    rows, _ = asked(12)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    read: Any = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}[suffix]
    out = tmp_path / f"out.{suffix}"
    predict(str(tmp_path / "rows.jsonl"), package=tags, out=out)
    frame = read(out)
    assert frame.columns == ["prediction", "probability_cold", "probability_far", "probability_wet"]
    lists = [json.loads(v) if isinstance(v, str) else v for v in frame["prediction"].to_list()]
    assert lists == [one["prediction"] for one in open_package(tags).predict(rows)]
    predict(str(tmp_path / "rows.jsonl"), package=waits, out=out)
    assert read(out).columns == ["prediction_0.1", "prediction_0.5", "prediction_0.9"]


def test_a_server_answers_both_and_logs_them(tags: Path, waits: Path, tmp_path: Path) -> None:
    rows, _ = asked(6)
    tensors = [{"name": name, "shape": [6], "datatype": "FP64", "data": [one[name] for one in rows]} for name in ("a", "b")]
    for folder, name, shape, kind in ((tags, "tags", [6, 3], "BOOL"), (waits, "wait", [6, 3], "FP32")):
        expected = open_package(folder).predict(rows)
        with running(folder, log={"folder": str(tmp_path)}) as up:
            plain = up.post("/predict", {"rows": rows}).json()["predictions"]
            inferred = up.post(f"/v2/models/{name}/infer", {"inputs": tensors}).json()["outputs"][0]
            schema = up.get("/openapi.json").json()
            page = up.get("/").status_code
            up.stop()
        assert page == 200
        assert "prediction" in json.dumps(schema)
        assert (inferred["shape"], inferred["datatype"]) == (shape, kind)
        source = Predictions(model=name, path=tmp_path)
        logged = [v for chunk in source.read(None, source.columns()) for v in chunk.batch.column("prediction").to_pylist()][:6]
        if name == "tags":
            assert [one["prediction"] for one in plain] == [one["prediction"] for one in expected]
            assert [json.loads(one) for one in logged] == [one["prediction"] for one in expected]
        else:
            assert np.allclose(logged, [list(one["prediction"].values()) for one in expected], rtol=1e-5)
            assert np.allclose(np.reshape(inferred["data"], (6, 3)), logged, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: rows[17].update(tags=["wet", None]), r"row 17 \(counted from 0\) holds .*null.*, which is no list of words"),
        (lambda rows: [one.update(tags=[]) for one in rows], r"no row has any label|nothing to tell apart"),
        (lambda rows: [one.update(tags=["wet"] if one["a"] > 0 else []) for one in rows], r"holds one label only, 'wet'"),
    ],
)
def test_labels_that_are_no_target_are_refused(tmp_path: Path, change: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        write(tmp_path, "tags", "task: multilabel", change, n=60).check()


def test_settings_that_do_not_suit_say_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"`levels` must rise, found \[0.9, 0.1\]"):
        write(tmp_path, "wait", "task: quantiles\nlevels: [0.9, 0.1]", n=60).check()
    with pytest.raises(DataError, match="`task: multilabel` needs lists of words as 'wait'"):
        write(tmp_path, "wait", "task: multilabel", n=60).check()
    with pytest.raises(SpecError, match="not for a quantiles task"):
        write(tmp_path, "wait", "task: quantiles\nevaluate: {metrics: rmse}", n=60).check()
    with pytest.raises(DataError, match=r"`train.class_weight` makes no sense for 'tags', which holds any number of labels"):
        write(tmp_path, "tags", "train: {class_weight: balanced}", n=60).run()
    with pytest.raises(ModelError, match="trees cannot learn this: it gives one class or one number, not any of 3 labels"):
        write(tmp_path, "tags", "model: {type: trees, rounds: 5}", n=60).run()
