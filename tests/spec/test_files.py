"""Finding and reading model.yaml."""

from pathlib import Path

import pytest

from modelinscale.core.errors import SpecError
from modelinscale.spec import find, json_schema, load, loads


def test_a_missing_file_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no .*model.yaml.*mis init"):
        find(tmp_path)


def test_a_misspelt_file_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "modell.yaml").write_text("")
    with pytest.raises(SpecError, match=r"Did you mean 'modell.yaml'"):
        find(tmp_path)


def test_bytes_that_are_not_utf8_name_their_line(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_bytes(b"data: {source: rows.csv}\ntarget: \xe4\n")
    with pytest.raises(SpecError, match=r"line 2 is not UTF-8 \(byte 0xe4\)"):
        load(tmp_path)


def test_a_data_file_is_not_taken_for_a_model_yaml(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_bytes(b"x" * (5 << 20))
    with pytest.raises(SpecError, match=r"too many for a model.yaml"):
        load(tmp_path)


def test_a_spec_survives_being_written_as_plain_data() -> None:
    import yaml

    spec = loads(
        "data: {source: rows.csv, split: {type: hash, test: 0.3}}\ntarget: y\nfeatures: {a: number, b: {type: category, keep: 50}}\nmodel: {type: trees}\n"
    )
    assert loads(yaml.safe_dump(spec.plain(), sort_keys=False)) == spec


def test_the_json_schema_accepts_what_the_loader_accepts_and_refuses_what_it_refuses() -> None:
    import jsonschema

    validator = jsonschema.Draft202012Validator(json_schema())
    good = {"data": {"source": "rows.csv", "checks": {"a": "present"}}, "target": "y", "features": {"a": "number", "b": {"type": "text"}}, "model": "auto"}
    assert not list(validator.iter_errors(good))
    for change in ({"traget": "y"}, {"features": {"a": "numbr"}}, {"model": "tree"}, {"serve": {"port": 70000}}):
        assert list(validator.iter_errors({**good, **change})), change
