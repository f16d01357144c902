"""What a user can get wrong around learning, through model.yaml and `mis run`: a message that says where and what to do, and nothing half made."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from modelinscale.api import Project
from modelinscale.core.errors import MisError

N = 120
NETWORK = {"type": "network", "epochs": 2, "maps": 4, "width": 8, "members": 1}


def picture(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((6, 6), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def columns() -> dict[str, Any]:
    chance = np.random.default_rng(0)
    yes = chance.integers(0, 2, N)
    return {
        "x": chance.normal(size=N) + 2 * yes,
        "colour": [("red", "blue", "green")[i % 3] for i in range(N)],
        "note": [f"{'good' if k else 'bad'} {i}" for i, k in enumerate(yes)],
        "photo": [picture(i % 100 + 100 * int(k)) for i, k in enumerate(yes)],
        "series": [chance.normal(size=3 + i % 3).tolist() for i in range(N)],
        "y": np.where(yes, "yes", "no").tolist(),
        "amount": (chance.normal(size=N) + yes).tolist(),
    }


def project(folder: Path, changed: dict[str, Any], cells: dict[str, Any]) -> Project:
    pq.write_table(pa.table({**columns(), **cells}), folder / "rows.parquet")
    spec = {"data": {"source": "rows.parquet"}, "target": "y", "features": {"x": "number", "colour": "category"}, "model": NETWORK, **changed}
    (folder / "model.yaml").write_text(json.dumps(spec))
    return Project(folder / "model.yaml")


def network(**settings: Any) -> dict[str, Any]:
    return {"model": {**NETWORK, **settings}}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an encoder that is none": (network(sequence="lstmm"), {}, r"model\.sequence: expected .*found 'lstmm'"),
    "no epochs": (network(epochs=0), {}, r"model\.epochs: expected greater than or equal to 1, found 0"),
    "words for a number": (network(maps="many"), {}, r"model\.maps: .*found 'many'"),
    "a misspelt setting": (network(droput=0.1), {}, r"model\.droput: unknown key\. Did you mean 'dropout'"),
    "a family that is none": ({"model": "tress"}, {}, r"'tress'.*trees"),
    "no processes": ({"train": {"workers": 0}}, {}, r"train\.workers: expected greater than or equal to 1"),
    "too many processes": ({"train": {"workers": 640}}, {}, r"train\.workers: expected less than or equal to"),
    "a GPU where none is": ({"train": {"device": "gpu"}}, {}, r"`train\.device` is gpu, and PyTorch sees no GPU here\..*`device: auto`"),
    "a device that is none": ({"train": {"device": "tpu"}}, {}, r"train\.device: expected 'auto', 'cpu' or 'gpu', found 'tpu'"),
    "time that runs backwards": ({"train": {"budget": "-1s"}}, {}, r"'-1s' is not a duration"),
    "an image that is a number": ({"features": {"x": "image"}}, {}, r"features\.x: image cannot read a column of type float"),
    "an image that is text": ({"features": {"note": "image"}}, {}, r"features\.note: image cannot read a column of type string"),
    "a sequence that is text": ({"features": {"note": "sequence"}}, {}, r"features\.note: sequence cannot read a column of type string"),
    "a number that is an image": ({"features": {"photo": "number"}}, {}, r"features\.photo: number cannot read a column of type binary"),
    "a feature that is no column": ({"features": {"colours": "category"}}, {}, r"'colours'.*Did you mean 'colour'"),
    "steps that are no numbers": ({"features": {"series": "sequence"}}, {"series": [[1.0, float("nan")]] * N}, r"120 × series: not .*finite numbers"),
    "lists of lists": ({"features": {"series": "sequence"}}, {"series": [[[1.0, 2.0], [2.0]]] * N}, r"'series' holds nested cells"),
    "one class": ({}, {"y": ["yes"] * N}, "nothing to tell apart"),
    "no answer at all": ({}, {"y": [None] * N}, "no row has a value of 'y'"),
    "as many classes as rows": ({}, {"y": [f"v{i}" for i in range(N)]}, r"leaves no rows to valid and test.*own value, it is no class"),
    "a loss that explodes": (network(learning_rate=1e6), {}, r"the (loss|gradient) of network \w+ .*at step \d+.*Lower `learning_rate`"),
    "a search in a setting that is none": ({"model": "trees", "tune": {"space": {"trees.leafs": [3, 4]}}}, {}, r"leafs.*leaves"),
    "a search in a family that is none": ({"model": "trees", "tune": {"space": {"leaves": [3, 4]}}}, {}, r"there is no family 'leaves'"),
    "members that are none": ({"model": {"type": "ensemble", "parts": []}}, {}, r"model\.parts: unknown key"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_told_and_leaves_no_version(case: str, tmp_path: Path) -> None:
    if case == "a GPU where none is" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    changed, cells, says = CASES[case]
    with pytest.raises(MisError, match=rf"(?s){says}"):
        project(tmp_path, changed, cells).run()
    assert not list(tmp_path.rglob("*.onnx"))
