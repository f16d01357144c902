"""Other weights or another tokenizer in the same folder are other inputs of the steps that read them; a folder that is gone changes nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from modelinscale.core.elsewhere import digest
from modelinscale.pipeline import _prepare, _train, _tune
from modelinscale.pipeline._place import Place, Result
from modelinscale.spec import loads

SPEC = """
data: {source: a.csv}
target: y
features: {m: {type: text, tokenizer: ./bert}}
model: {type: network, language: {path: ./bert, share: 0.5}, pretrained: {architecture: resnet18, path: w.safetensors}}
tune: {trials: 3}
"""
READ_BY = {
    "bert/tokenizer.json": {"prepare", "tune", "train"},
    "bert/tokenizer_config.json": {"prepare", "tune", "train"},
    "bert/config.json": {"tune", "train"},
    "bert/model.safetensors": {"tune", "train"},
    "w.safetensors": {"tune", "train"},
    "bert/README.md": set(),
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "bert").mkdir()
    for name in READ_BY:
        (tmp_path / name).write_text("as it came")
    return Place.of(loads(SPEC), tmp_path)


def identities(place: Place) -> dict[str, str]:
    """Of the steps that read what was learned elsewhere, with the same results of the steps before."""
    facts = {
        "collect": {"table": "t", "version": 1, "content": "c"},
        "prepare": {},
        "tune": {"model": json.loads(json.dumps(place.spec.model, default=lambda model: model.plain()))},
    }
    done = {step: Result(step, step, {}, one, place.base) for step, one in facts.items()}
    steps: dict[str, Any] = {"prepare": _prepare, "tune": _tune, "train": _train}
    return {step: place.name(step, module.inputs(place, done)) for step, module in steps.items()}


@pytest.mark.parametrize("name", list(READ_BY))
def test_another_content_is_noticed_by_the_steps_that_read_it(place: Place, name: str) -> None:
    before = identities(place)
    assert identities(place) == before
    (place.base / name).write_text("others")
    after = identities(place)
    assert {step for step in after if after[step] != before[step]} == READ_BY[name]


def test_the_same_content_written_again_changes_nothing(place: Place) -> None:
    before = identities(place)
    shutil.copytree(place.base / "bert", place.base / "copy")
    shutil.rmtree(place.base / "bert")
    (place.base / "copy").rename(place.base / "bert")
    assert identities(place) == before


def test_a_folder_that_is_gone_is_taken_to_hold_what_it_held(place: Place) -> None:
    facts = {"table": "t", "version": 1, "content": "c"}
    inputs = _prepare.inputs(place, {"collect": Result("collect", "collect", {}, facts, place.base)})
    place.make("prepare", inputs, lambda folder: {})
    before = identities(place)["prepare"]
    shutil.rmtree(place.base / "bert")
    assert identities(place)["prepare"] == before


def test_projects_without_anything_from_elsewhere_keep_their_identities(tmp_path: Path) -> None:
    spec = loads("data: {source: a.csv}\ntarget: y\nfeatures: {m: text}\nmodel: {type: network}\n")
    facts = {"table": "t", "version": 1, "content": "c"}
    done = {step: Result(step, step, {}, facts, tmp_path) for step in ("collect", "prepare")}
    place = Place.of(spec, tmp_path)
    assert "elsewhere" not in _prepare.inputs(place, done) | _train.inputs(place, done)


def test_a_digest_is_what_sha256sum_says(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"")
    assert digest([tmp_path / "a"]) == "ba7816bf8f01cfea"
    import hashlib

    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in (("a", b"abc"), ("b", b"")))
    assert digest([tmp_path / "a", tmp_path / "b"]) == hashlib.sha256(lines.encode()).hexdigest()[:16]
