"""`target: [a, b]`: several columns predicted together, from the file to a package whose answers name them, to files, a server and its log."""

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
NUMBERS, FLAGS = "[length, weight]", "[wet, cold]"


def row(i: int) -> Row:
    chance = generator(7, "row", i)
    a, b = (round(float(x), 4) for x in chance.normal(size=2))
    numbers = {"length": round(100 * a + float(chance.normal()), 3), "weight": round(0.01 * (b - a), 6)}
    return {"a": a, "b": b, **numbers, "wet": "yes" if a > 0.3 else "no", "cold": "yes" if b < 0 else "no"}


def write(root: Path, target: str, more: str = "", change: Any = None, n: int = 400) -> Project:
    rows = [row(i) for i in range(n)]
    if change is not None:
        change(rows)
    pl.DataFrame(rows, strict=False).write_csv(root / "rows.csv")
    model = "" if "model:" in more else "model: linear\n"
    (root / "model.yaml").write_text(
        f"name: both\ndata: {{source: rows.csv, split: {{type: hash}}}}\ntarget: {target}\nfeatures: {{a: number, b: number}}\n{model}{more}\n"
    )
    return Project(root)


def asked(n: int = 40) -> tuple[list[Row], list[Row]]:
    rows = [row(5000 + i) for i in range(n)]
    return [{"a": one["a"], "b": one["b"]} for one in rows], rows


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("numbers")
    write(root, NUMBERS).run()
    return root / ".mis/packages/both/1"


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("flags")
    write(root, FLAGS).run()
    return root / ".mis/packages/both/1"


def test_answers_say_which_number_is_which(numbers: Path) -> None:
    rows, truth = asked()
    said = [one["prediction"] for one in open_package(numbers).predict(rows)]
    assert list(said[0]) == ["length", "weight"]
    for name in said[0]:
        true = np.array([one[name] for one in truth])
        assert np.abs(np.array([one[name] for one in said]) - true).mean() < 0.05 * true.std()
    card = (numbers / "card.md").read_text()
    assert "predicts `length, weight`, 2 numbers at once" in card
    assert "| `weight` |" in card
    assert json.loads((numbers / "manifest.json").read_text())["task"]["targets"] == ["length", "weight"]


def test_columns_of_flags_are_labels_also_where_they_are_words(flags: Path) -> None:
    rows, truth = asked()
    answers = open_package(flags).predict(rows)
    assert set(answers[0]["probabilities"]) == {"wet", "cold"}
    right = [set(one["prediction"]) == {n for n in ("wet", "cold") if true[n] == "yes"} for one, true in zip(answers, truth, strict=True)]
    assert np.mean(right) > 0.85


def test_several_columns_learn_what_one_list_of_the_same_numbers_does(tmp_path: Path) -> None:
    answers, rows = [], asked(10)[0]
    for target in ("both", NUMBERS):
        root = tmp_path / target
        root.mkdir()
        found = [{"a": one["a"], "b": one["b"], "both": [one["length"], one["weight"]]} if target == "both" else one for one in map(row, range(200))]
        (root / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in found))
        (root / "model.yaml").write_text(
            f"name: both\ndata: {{source: rows.jsonl, split: {{type: random}}}}\ntarget: {target}\nfeatures: {{a: number, b: number}}\nmodel: linear\n"
        )
        Project(root).run()
        answers.append([one["prediction"] for one in Project(root).package().predict(rows)])
    lists, named = answers
    assert np.allclose([list(one.values()) for one in named], lists, rtol=1e-4, atol=1e-6)  # lists are float32 in the table


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_scored_files_have_a_column_for_each_number(numbers: Path, tmp_path: Path, suffix: str) -> None:
    rows, _ = asked(10)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    out = tmp_path / f"out.{suffix}"
    predict(str(tmp_path / "rows.jsonl"), package=numbers, out=out)
    read: Any = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}[suffix]
    frame = read(out)
    assert frame.columns == ["prediction_length", "prediction_weight"]
    expected = [list(one["prediction"].values()) for one in open_package(numbers).predict(rows)]
    assert np.allclose(frame.to_numpy(), expected, rtol=1e-6)


def test_a_server_answers_with_names_and_says_so_in_its_schema(numbers: Path, tmp_path: Path) -> None:
    rows, _ = asked(5)
    expected = [one["prediction"] for one in open_package(numbers).predict(rows)]
    tensors = [{"name": name, "shape": [5], "datatype": "FP64", "data": [one[name] for one in rows]} for name in ("a", "b")]
    with running(numbers, log={"folder": str(tmp_path)}) as up:
        plain = [one["prediction"] for one in up.post("/predict", {"rows": rows}).json()["predictions"]]
        inferred = up.post("/v2/models/both/infer", {"inputs": tensors}).json()["outputs"][0]
        sent_with_the_truth = up.post("/predict", {"rows": [{**rows[0], "length": 1.0, "weight": 2.0}]}).status_code
        schema = up.get("/openapi.json").text
        page = up.get("/").status_code
        up.stop()
    assert [list(one) for one in plain] == [["length", "weight"]] * 5
    assert np.allclose([list(one.values()) for one in plain], [list(one.values()) for one in expected], rtol=1e-5)
    assert (inferred["shape"], inferred["datatype"]) == ([5, 2], "FP32")
    assert (page, sent_with_the_truth) == (200, 200)
    assert '"required":["length","weight"]' in schema.replace(" ", "")
    source = Predictions(model="both", path=tmp_path)
    logged = [row for chunk in source.read(None, source.columns()) for row in chunk.batch.column("prediction").to_pylist()]
    assert np.allclose(logged[:5], [list(one.values()) for one in expected], rtol=1e-5), "a log keeps them as a list, in the order of the targets"


def test_rows_that_lack_one_of_the_targets_are_not_learned_from(tmp_path: Path) -> None:
    def change(rows: list[Row]) -> None:
        rows[3]["length"] = rows[5]["weight"] = None

    project = write(tmp_path, NUMBERS, change=change, n=60)
    assert any("2 of 60 rows lack one of length, weight" in note for note in project.run().notes)


def test_no_target_is_a_feature_of_another(tmp_path: Path) -> None:
    project = write(tmp_path, NUMBERS, n=60)
    text = (tmp_path / "model.yaml").read_text()
    (tmp_path / "model.yaml").write_text(text.replace("features: {a: number, b: number}\n", ""))
    found = Project(tmp_path).check()
    assert not {"length", "weight"} & set(found.features)
    assert (found.role("length"), found.role("weight")) == ("target (regression)", "target (regression)")
    assert project.check().target["columns"] == ["length", "weight"]


def test_one_name_in_a_list_is_that_name(tmp_path: Path) -> None:
    assert write(tmp_path, "[length]", n=20).spec.target == "length"


@pytest.mark.parametrize(
    ("target", "more", "error", "said"),
    [
        ("[length, wet]", "", DataError, r"mixes flags \(wet\) and numbers \(length\)"),
        ("[length, wieght]", "", SpecError, "there is no column 'wieght'|target: .*'wieght'"),
        ("[length, length]", "", SpecError, "names a column twice"),
        ("[]", "", SpecError, r"expected a column's name, or a list of names, found \[\]"),
        ("[length, 7]", "", SpecError, r"found \['length', 7\]"),
        ("7", "", SpecError, "list of names, found 7"),
        ("[length, a]", "", SpecError, "the target 'a' is also a feature"),
        (NUMBERS, "task: binary", SpecError, "`task: binary` is for one target, and `target` names 2"),
        (NUMBERS, "task: quantiles", SpecError, "`task: quantiles` is for one target"),
        (NUMBERS, "positive: 1", SpecError, "`positive` is for one target of two classes"),
        (NUMBERS, "train: {class_weight: balanced}", DataError, "makes no sense for 'length, weight'"),
        (NUMBERS, "model: {type: trees, rounds: 5}", ModelError, "trees cannot learn this: .*not 2 numbers at once"),
    ],
)
def test_targets_that_cannot_be_are_told(tmp_path: Path, target: str, more: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=f"(?s){said}"):
        write(tmp_path, target, more, n=60).run()
