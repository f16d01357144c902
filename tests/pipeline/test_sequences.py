"""From lines of JSON with sequences and texts to a package that answers them: through the lake, a network, the graph, files, a server and its log."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelinscale.api import Project, predict
from modelinscale.core.errors import RequestError
from modelinscale.core.predictions import folder_of
from modelinscale.core.seeds import generator
from modelinscale.package import Package, open_package
from modelinscale.testing.servers import running

pytestmark = pytest.mark.slow

SPEC = """
name: rides
data: {source: rides.jsonl, split: {type: hash}}
features: {path: {type: sequence, longest: 8}, note: {type: text, in_order: true, at_least: 1}, speed: sequence, size: number}
target: kind
model: {type: network, units: 16, width: 32, epochs: 12, learning_rate: 0.02, batch_rows: 16}
"""
Row = dict[str, Any]


def ride(i: int) -> Row:
    """Two channels over time and one beside; up or down, by the path and by a word of the note."""
    chance = generator(7, "ride", i)
    up, n = i % 2 == 0, int(chance.integers(2, 14))
    path = np.cumsum(chance.normal(0.8 if up else -0.8, 1.0, n))
    steps = [[round(float(p), 3), None if chance.random() < 0.1 else round(float(chance.normal()), 3)] for p in path]
    note = " ".join([*chance.choice(["the", "ride", "was", "long"], int(chance.integers(0, 5))), "climb" if up else "descent"])
    speed = chance.normal(size=int(chance.integers(1, 9))).round(3).tolist()
    return {"path": steps, "speed": speed, "note": note, "size": round(float(chance.normal()), 3), "kind": "up" if up else "down"}


def asked(i: int) -> Row:
    return {name: value for name, value in ride(i).items() if name != "kind"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rides")
    rows = [ride(i) for i in range(200)]
    rows[3]["path"], rows[5]["speed"], rows[7]["path"] = None, [], [[0.5, 1.5]] * 300
    (root / "rides.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "model.yaml").write_text(SPEC)
    Project(root).run()
    return root


@pytest.fixture(scope="module")
def folder(project: Path) -> Path:
    return project / ".mis" / "packages" / "rides" / "1"


@pytest.fixture(scope="module")
def package(folder: Path) -> Package:
    return open_package(folder)


def test_what_was_learned_from_lines_answers_rows_sent_as_json(package: Package) -> None:
    rows = [asked(1000 + i) for i in range(60)]
    answers = package.predict(rows)
    assert np.mean([one["prediction"] == ("down" if i % 2 else "up") for i, one in enumerate(answers)]) > 0.9
    for row, among in zip(rows[:8], answers, strict=False):
        alone = package.predict([row])[0]["probabilities"]
        assert alone == pytest.approx(among["probabilities"], abs=1e-6), "a row answers the same alone and among others of other lengths"


def test_the_columns_are_known_for_what_they_are(package: Package) -> None:
    assert {c.name: (c.input, c.column.width) for c in package.inputs if c.input == "sequence"} == {"path": ("sequence", 2), "speed": ("sequence", 1)}


def test_a_file_is_answered_row_for_row_as_the_server_would(folder: Path, package: Package, tmp_path: Path) -> None:
    rows = [{**asked(2000), "path": []}, {**asked(2001), "path": None}, *(asked(2002 + i) for i in range(9))]
    pl.DataFrame(rows, schema_overrides={"path": pl.List(pl.List(pl.Float64))}).write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    served = [one["probabilities"]["up"] for one in package.predict(rows)]
    for name in ("rows.parquet", "rows.jsonl"):
        predict(str(tmp_path / name), package=folder, out=tmp_path / "out.jsonl")
        found = [json.loads(line)["probability_up"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert found == pytest.approx(served, abs=1e-6), name


def test_no_steps_and_very_many_are_answered(package: Package) -> None:
    many = [[float(i), 0.5] for i in range(10_000)]
    rows = [{**asked(1), "path": path} for path in (None, [], [[None, None]], many)]
    rows += [{**asked(1), "note": note} for note in ("", None, "word " * 10_000, "climb")]
    found = [one["probabilities"]["up"] for one in package.predict(rows)]
    assert np.isfinite(found).all()
    assert found[0] == pytest.approx(found[1], abs=1e-7) == pytest.approx(found[2], abs=1e-7), "missing, empty, and steps without a number are alike"


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ([[1.0]], r"a list of steps, each a list of 2 numbers, not of 1"),
        ([[1.0, "x"]], r"a list of steps, each a list of 2 numbers"),
        ([1.0, 2.0], r"a list of steps, each a list of 2 numbers"),
        ([[1.0, 1e39]], r"a list of steps, each a list of 2 numbers, all of them finite"),
        (5, r"a list of steps"),
        ("1 2 3", r"a list of steps"),
    ],
)
def test_what_is_no_sequence_is_refused_with_its_row_and_what_was_expected(package: Package, cell: object, why: str) -> None:
    with pytest.raises(RequestError, match=rf"row 1, column 'path': found .*expected {why}"):
        package.predict([asked(1), {**asked(2), "path": cell}])


def test_a_server_answers_steps_as_json_and_as_tensors_and_logs_what_it_was_fed(folder: Path, package: Package, tmp_path: Path) -> None:
    rows = [asked(3000 + i) for i in range(3)]
    expected = [one["probabilities"]["up"] for one in package.predict(rows)]
    most = max(len(row["path"]) for row in rows)
    path = [[*row["path"], *[[None, None]] * (most - len(row["path"]))] for row in rows]
    longest = max(len(row["speed"]) for row in rows)
    speed = [v for row in rows for v in [*row["speed"], *[None] * (longest - len(row["speed"]))]]
    tensors = [
        {"name": "path", "shape": [3, most, 2], "datatype": "FP32", "data": path},
        {"name": "speed", "shape": [3, longest, 1], "datatype": "FP32", "data": speed},
        {"name": "note", "shape": [3], "datatype": "BYTES", "data": [row["note"] for row in rows]},
        {"name": "size", "shape": [3], "datatype": "FP64", "data": [row["size"] for row in rows]},
    ]  # fmt: skip
    with running(folder, log={"folder": str(tmp_path)}) as up:
        plain = up.post("/predict", {"rows": rows}).json()["predictions"]
        inferred = up.post("/v2/models/rides/infer", {"inputs": tensors}).json()
        about = up.get("/v2/models/rides").json()["inputs"]
        schema = up.get("/openapi.json").text
        wrong = up.post("/v2/models/rides/infer", {"inputs": [{**tensors[0], "shape": [3, most * 2]}, *tensors[1:]]})
        up.stop()
    assert [one["probabilities"]["up"] for one in plain] == pytest.approx(expected, abs=1e-6)
    shares = np.reshape(next(one["data"] for one in inferred["outputs"] if one["name"] == "probabilities"), (3, 2))
    assert shares[:, 1].tolist() == pytest.approx(expected, abs=1e-6)
    assert next(one for one in about if one["name"] == "path") == {"name": "path", "datatype": "FP32", "shape": [-1, -1, 2]}
    assert "a list of steps, each a list of 2 numbers" in schema
    assert (wrong.status_code, "expected [N, steps, 2]" in wrong.text) == (400, True)
    logged = b"".join(file.read_bytes() for file in folder_of(tmp_path, "rides").rglob("*") if file.is_file())
    assert json.dumps(rows[0]["speed"][0]).encode() in logged
