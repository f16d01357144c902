"""A folder is a registry."""

from importlib.metadata import EntryPoint, EntryPoints

import pytest
from pydantic import ValidationError

from modelinscale.core import kinds
from modelinscale.core.errors import SpecError
from modelinscale.core.kinds import load, names
from modelinscale.core.settings import Settings, field_help
from modelinscale.metrics import Answers, Metric, Parts
from modelinscale.metrics.calibration_error import CalibrationError
from modelinscale.metrics.f1 import F1

FOLDERS = ("data.sources", "data.checks", "features", "models", "metrics", "compute", "store", "track.trackers")


class Holder(Settings):
    """Holds a kind."""

    one: Metric
    """One."""
    some: tuple[Metric, ...] = ()
    """Some."""


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_module_of_a_kind_folder_holds_one_kind_named_like_it(folder: str) -> None:
    assert names(folder)
    for name in names(folder):
        found = load(folder, name)
        assert found.type == name
        assert found.folder == folder
        assert (found.__doc__ or "").strip(), f"{folder}.{name} has no help"
        missing = [field for field in found.model_fields if not field_help(found).get(field)]
        assert not missing, f"{folder}.{name}: fields without a help string: {missing}"


def test_a_name_a_mapping_and_an_instance_mean_the_same() -> None:
    assert Metric.parse("f1") == Metric.parse({"type": "f1"}) == Metric.parse(F1())
    assert Metric.parse({"type": "calibration_error", "n_bins": 5}) == CalibrationError(n_bins=5)


def test_kinds_inside_settings_survive_plain_data() -> None:
    holder = Holder.model_validate({"one": "f1", "some": ["mcc", {"type": "calibration_error", "binning": "width"}]})
    assert holder.plain()["one"] == {"type": "f1"}
    assert Holder.model_validate(holder.plain()) == holder
    assert Holder.model_validate_json(holder.model_dump_json()) == holder


def test_a_changed_copy_stays_of_its_kind() -> None:
    assert CalibrationError().but(n_bins=7) == CalibrationError(n_bins=7)
    assert Holder(one=F1()).but(some=(F1(),)).some == (F1(),)


def test_what_is_planned_is_not_there_yet() -> None:
    for folder, planned in kinds.PLANNED.items():
        assert not planned & set(names(folder))


def test_an_unknown_type_names_the_nearest_and_all() -> None:
    with pytest.raises(SpecError, match=r"unknown metric type 'f11'\. Did you mean 'f1'\?") as caught:
        load("metrics", "f11")
    assert "roc_auc" in caught.value.fix


@pytest.mark.parametrize("name", ["_confusion", "../secret", "__init__", "", "os"])
def test_a_type_never_reaches_beyond_its_folder(name: str) -> None:
    with pytest.raises(SpecError, match="unknown metric type"):
        load("metrics", name)


@pytest.mark.parametrize(
    ("value", "says"), [(3, "found 3"), (None, "found None"), ({}, "`type` is missing"), ({"type": 3}, "`type` is missing"), (["f1"], "expected a metric type")]
)
def test_what_is_no_kind_is_refused(value: object, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Metric.parse(value)


def test_mistakes_in_several_kinds_are_told_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({"one": "roc", "some": ["f1", {"type": "calibration_error", "n_bin": 3}]})
    assert {e["loc"] for e in caught.value.errors()} == {("one",), ("some", 1, "n_bin")}


def test_the_schema_of_a_field_offers_every_kind_with_its_settings() -> None:
    schema = Holder.model_json_schema()["properties"]["one"]
    assert schema["anyOf"][0]["enum"] == names("metrics")
    settings = {choice["title"]: choice for choice in schema["anyOf"][1:]}
    assert set(settings) == set(names("metrics"))
    assert settings["calibration_error"]["properties"]["n_bins"]["default"] == 15
    assert settings["calibration_error"]["properties"]["type"] == {"const": "calibration_error"}
    assert "type" in settings["calibration_error"]["required"]


def test_a_schema_accepts_what_parse_accepts() -> None:
    import jsonschema

    schema = Holder.model_json_schema()
    for good in ({"one": "f1"}, {"one": {"type": "calibration_error", "n_bins": 3}}):
        jsonschema.validate(good, schema)
    for bad in ({"one": "f2"}, {"one": {"type": "f1", "x": 1}}, {"one": {"n_bins": 3}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


def test_other_packages_add_theirs_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Theirs(Metric):
        """Theirs."""

        def parts(self, answers: Answers) -> Parts:
            raise NotImplementedError

    point = EntryPoint("gini", "their_package.metrics:Theirs", "modelinscale.metrics")
    monkeypatch.setattr(EntryPoint, "load", lambda self: Theirs)

    def forget() -> None:
        for function in (names, load, kinds._theirs):
            function.cache_clear()

    forget()
    monkeypatch.setattr(kinds, "entry_points", lambda: EntryPoints([point]))
    try:
        assert "gini" in names("metrics")
        assert load("metrics", "gini") is Theirs
        assert Metric.parse("gini").plain() == {"type": "gini"}
    finally:
        forget()


def test_listing_names_imports_nothing() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from modelinscale.core.kinds import names; names('models'); names('data.sources');"
        "heavy = {'torch', 'lightgbm', 'pyarrow', 'polars', 'lance', 'onnx', 'sklearn', 'mlflow'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
