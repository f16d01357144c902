"""From lines of JSON to a package with an encoder learned elsewhere: cut on the host by its tokenizer, answered without its folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelinscale.api import Project, predict
from modelinscale.core.errors import PackageError
from modelinscale.core.files import write_json
from modelinscale.core.seeds import generator
from modelinscale.package import Package, open_package
from modelinscale.testing.encoders import save_encoder

pytest.importorskip("transformers")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow

SPEC = """
name: notes
data: {source: notes.jsonl, split: {type: hash}}
features: {note: {type: text, tokenizer: ./bert, at_least: 1, longest: 12}, size: number}
target: kind
model: {type: network, language: {path: ./bert, share: 0.5}, width: 32, epochs: 10, learning_rate: 0.02, batch_rows: 16}
"""
Row = dict[str, Any]


def note(i: int) -> Row:
    """Happy or not, by its first word."""
    chance = generator(7, "note", i)
    words = ["wonderful" if i % 2 else "broken", *chance.choice(["the", "driver", "was", "late"], int(chance.integers(0, 12)))]
    return {"note": " ".join(words), "size": round(float(chance.normal()), 3), "kind": "good" if i % 2 else "bad"}


def asked(i: int) -> Row:
    return {name: value for name, value in note(i).items() if name != "kind"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("notes")
    save_encoder(root / "bert", "distilbert")
    rows = [note(i) for i in range(160)]
    rows[3]["note"] = None
    (root / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "model.yaml").write_text(SPEC)
    made = Project(root)
    made.run()  # from the folder that the tests run in: paths are those of model.yaml
    (root / "bert").rename(root / "gone")
    return made


@pytest.fixture(scope="module")
def folder(project: Project) -> Path:
    return project.base / ".mis" / "packages" / "notes" / "1"


@pytest.fixture(scope="module")
def package(folder: Path) -> Package:
    return open_package(folder)


def test_what_was_learned_answers_rows_without_the_folder(package: Package) -> None:
    rows = [asked(1000 + i) for i in range(60)]
    answers = package.predict(rows)
    assert np.mean([one["prediction"] == ("good" if i % 2 else "bad") for i, one in enumerate(answers)]) > 0.9
    for row, among in zip(rows[:8], answers, strict=False):
        assert package.predict([row])[0]["probabilities"] == pytest.approx(among["probabilities"], abs=1e-6), "a row alone and among others"
    assert package.predict([{}, {"note": ""}, {"note": "[SEP] " * 40}])


def test_the_manifest_names_the_step_of_the_host_and_where_weights_are_from(package: Package) -> None:
    tokens = {column.name: column.tokens for column in package.inputs}
    assert tokens["size"] is None
    assert tokens["note"] is not None
    assert tokens["note"].longest == 12
    (origin,) = package.manifest.origins
    assert (origin.column, origin.architecture, origin.source, origin.license) == ("note", "distilbert", "bert", "apache-2.0")
    assert "distilbert from bert, license: apache-2.0" in package.card
    assert package.reference["features"]["note"]["settings"]["tokenizer"]["path"] == "bert", "and not where it lay"


def test_a_file_is_answered_as_the_package_does(package: Package, folder: Path, tmp_path: Path) -> None:
    rows = [asked(2000 + i) for i in range(9)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    predict(str(tmp_path / "rows.jsonl"), package=folder, out=tmp_path / "answers.parquet")
    found = pl.read_parquet(tmp_path / "answers.parquet")["probability_good"].to_list()
    assert found == pytest.approx([one["probabilities"]["good"] for one in package.predict(rows)], abs=1e-6)


def test_what_is_served_needs_the_tokenizer_and_neither_torch_nor_transformers(folder: Path) -> None:
    code = f"""
import sys
from modelinscale.package import open_package
print(open_package({str(folder)!r}).predict([{{"note": "wonderful"}}])[0]["prediction"])
assert not {{"torch", "transformers", "polars"}} & set(sys.modules), sorted(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.stdout.strip() in ("good", "bad"), done.stderr


def test_a_note_says_how_many_texts_are_cut(package: Package) -> None:
    assert "are cut to their first 12 tokens; the longest has" in package.card


def test_an_altered_tokenizer_is_noticed(folder: Path, tmp_path: Path) -> None:
    import shutil

    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    reference = json.loads((copied / "reference.json").read_text())
    reference["features"]["note"]["state"]["tokenizer"]["content"] += " "
    write_json(copied / "reference.json", reference)
    with pytest.raises(PackageError, match=r"reference.json"):
        open_package(copied)
