import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from modelinscale.core.decision import Decision
from modelinscale.core.errors import ExportError
from modelinscale.core.graph import Graph
from modelinscale.core.schema import Schema
from modelinscale.core.task import Task, TaskType
from modelinscale.encode import encode
from modelinscale.export import Export, Named, Parts, Proving, Story, export
from modelinscale.export._golden import json_rows
from modelinscale.export._parity import tensors_of
from modelinscale.export._settle import margin_of, settled
from modelinscale.features import State
from modelinscale.features.category import Category
from modelinscale.models.linear import Linear
from modelinscale.package import Lineage, Manifest, open_package

if TYPE_CHECKING:
    Make = Callable[[str, TaskType], Any]

MOMENT = datetime(2024, 5, 1, tzinfo=UTC)
FAMILIES = ["linear", "trees", pytest.param("mlp", marks=pytest.mark.slow)]


def go(folder: Path, parts: Parts, frame: pl.DataFrame, schema: Schema, *, story: Story | None = None, **settings: Any) -> Manifest:
    lineage = Lineage(table="t1", table_version=41, spec="s1", code="0.1.0", seed=7, n_rows={"train": 600, "valid": 300, "test": 400})
    named = Named("small", "abcdef0123456789", lineage, MOMENT)
    return export(folder, parts, Proving(frame), named, schema=schema, story=story or Story(), settings=Export(**settings))


@pytest.mark.parametrize("type", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_package_answers_as_the_training_code_does(family: str, type: TaskType, make: "Make", fresh: pl.DataFrame, schema: Schema, tmp_path: Path) -> None:
    made = make(family, type)
    manifest = go(tmp_path / "p", made.parts, made.frame, schema)
    package = open_package(tmp_path / "p")
    assert package.manifest == manifest
    parts = made.parts
    scores = parts.model.predict(parts.weights, encode(parts.features, parts.states, fresh, parts.model.form))
    decision, probability = parts.decision.answer(scores, parts.task)
    answers = package.predict(json_rows(fresh, [schema[name] for name in parts.features]))
    if probability is None:
        np.testing.assert_allclose([a["prediction"] for a in answers], decision, rtol=1e-5, atol=1e-2)
    else:
        assert [a["prediction"] for a in answers] == [parts.task.labels[i] for i in decision.astype(int)]
        found = np.array([list(a["probabilities"].values()) for a in answers])
        np.testing.assert_allclose(found, probability, atol=1e-4 if family == "mlp" else 1e-5)
    assert manifest.parity.n_rows == 300
    assert manifest.parity.n_odd > 100
    assert (manifest.parity.n_edges > 0) == (family == "trees")
    assert manifest.parity.largest_difference <= manifest.parity.bound


def test_rows_sent_as_json_are_the_rows_of_the_table(make: "Make", fresh: pl.DataFrame, schema: Schema, tmp_path: Path) -> None:
    parts = make("linear", "binary").parts
    go(tmp_path / "p", parts, fresh, schema)
    rows = json_rows(fresh, [schema[name] for name in parts.features])
    json.dumps(rows, allow_nan=False)
    for name, tensor in open_package(tmp_path / "p").tensors(rows).items():
        np.testing.assert_equal(tensor, tensors_of(parts.features, fresh)[name])


def test_the_manifest_says_what_goes_in_and_where_it_comes_from(make: "Make", schema: Schema, tmp_path: Path) -> None:
    made = make("linear", "binary")
    manifest = go(tmp_path / "p", made.parts, made.frame, schema)
    assert [c.name for c in manifest.inputs] == list(made.parts.features)
    assert [c.name for c in manifest.inputs if c.required] == ["count"]
    assert manifest.ignored == ("id", "target")
    assert manifest.inputs[4].column.format == "%d/%m/%Y %H:%M"
    assert (manifest.lineage.table_version, manifest.lineage.seed, manifest.created) == (41, 7, "2024-05-01T00:00:00+00:00")
    assert sorted(manifest.files) == ["card.md", "golden.json", "model.onnx", "reference.json"]


def test_the_same_model_gives_the_same_bytes(make: "Make", schema: Schema, tmp_path: Path) -> None:
    made = make("trees", "multiclass")
    for name in ("a", "b"):
        go(tmp_path / name, made.parts, made.frame, schema)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_golden_rows_cover_the_range_of_answers_and_nothing_at_all(make: "Make", schema: Schema, tmp_path: Path) -> None:
    made = make("linear", "binary")
    optional = Schema(columns=tuple(c.but(nullable=True) for c in schema.columns))
    go(tmp_path / "p", made.parts, made.frame, optional, golden_rows=12)
    golden = json.loads((tmp_path / "p" / "golden.json").read_text())
    assert len(golden["rows"]) == 13
    assert golden["rows"][-1] == {}
    found = [a["probabilities"]["true"] for a in golden["answers"][:-1]]
    assert found == sorted(found)
    assert {a["prediction"] for a in golden["answers"]} == {True, False}


def test_the_reference_holds_states_and_answers(make: "Make", schema: Schema, tmp_path: Path) -> None:
    made = make("trees", "multiclass")
    go(tmp_path / "p", made.parts, made.frame, schema)
    reference = open_package(tmp_path / "p").reference
    assert set(reference["features"]) == set(made.parts.features)
    assert sum(reference["answers"]["decided"]) == reference["answers"]["n_rows"] == 300
    assert [len(q) for q in reference["answers"]["quantiles"]] == [21, 21, 21]


# -- what must be refused


class Lying(Linear):
    """Its graph is off by a little."""

    def graph(self, weights: Any, task: Task, layouts: Any, graph: Graph, blocks: dict[str, str]) -> str:
        return graph.op("Mul", super().graph(weights, task, layouts, graph, blocks), graph.constant(1.01, np.float32))


class Forgetting(Category):
    """Its graph takes a missing word for an unseen one."""

    def graph(self, state: State, form: Any, graph: Graph, tensor: str) -> str:
        return graph.op("Max", super().graph(state, form, graph, tensor), graph.constant([1], np.int64))


def refused(folder: Path, parts: Parts, frame: pl.DataFrame, schema: Schema, words: str, **settings: Any) -> str:
    with pytest.raises(ExportError, match=words) as found:
        go(folder / "p", parts, frame, schema, **settings)
    assert list(folder.iterdir()) == [], "nothing may be written"
    return str(found.value)


@pytest.mark.parametrize("type", ["binary", "multiclass", "regression"])
def test_a_graph_that_differs_by_a_little_is_refused_with_the_worst_row(type: TaskType, make: "Make", schema: Schema, tmp_path: Path) -> None:
    made = make("linear", type)
    words = refused(tmp_path, replace(made.parts, model=Lying()), made.frame, schema, r"validation row \d+")
    for part in ("Graph:", "training code:", "allowed 1e-05", '"city":', "largest difference"):
        assert part in words


def test_a_graph_that_errs_only_on_missing_words_is_refused_though_no_validation_row_has_one(make: "Make", schema: Schema, tmp_path: Path) -> None:
    made = make("linear", "binary")
    features = {**made.parts.features, "city": Forgetting()}
    known = made.frame.filter(pl.col("city").is_not_null())
    refused(tmp_path, replace(made.parts, features=features), known, schema, "row with odd values")


def test_thresholds_rounded_to_the_nearest_float_are_refused(make: "Make", schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelinscale.models import _forest

    made = make("trees", "regression")
    go(tmp_path / "good" / "p", made.parts, made.frame, schema)
    monkeypatch.setattr(_forest, "floor32", lambda values: np.nextafter(values.astype(np.float32), np.float32(np.inf)))
    (tmp_path / "bad").mkdir()
    refused(tmp_path / "bad", made.parts, made.frame[:0], schema, "on a threshold", odd_rows=0)


def test_a_failure_while_writing_leaves_nothing(make: "Make", schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelinscale.export import _write

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_write, "write_bytes", full)
    made = make("linear", "binary")
    with pytest.raises(Exception, match="No space left"):
        go(tmp_path / "p", made.parts, made.frame, schema)
    assert list(tmp_path.iterdir()) == []


def test_scores_known_already_are_what_the_graph_is_held_against(make: "Make", schema: Schema, tmp_path: Path) -> None:
    made = make("linear", "binary")
    wrong = np.full(len(made.frame), 0.1)
    with pytest.raises(ExportError, match="decided otherwise"):
        export(tmp_path / "p", made.parts, Proving(made.frame, wrong), Named("small", "0", Lineage()), schema=schema, story=Story())


# -- how much is tried


def test_caps_are_kept_and_told_and_every_threshold_is_tried(make: "Make", schema: Schema, tmp_path: Path) -> None:
    made = make("trees", "binary")
    edges = made.parts.model.edges(made.parts.weights)
    most = 3 * max(len(v) for v in edges.values())
    few = go(tmp_path / "few", made.parts, made.frame, schema, edge_rows=0, odd_rows=0).parity
    assert 0 < few.n_edges <= most
    assert few.n_edges_left_out > 0
    every = go(tmp_path / "all", made.parts, made.frame, schema).parity
    assert every.n_edges_left_out == 0
    assert every.n_edges > few.n_edges
    assert every.n_odd > few.n_odd > 0


def test_without_validation_rows_odd_values_and_thresholds_are_still_tried(make: "Make", schema: Schema, tmp_path: Path) -> None:
    made = make("trees", "binary")
    manifest = go(tmp_path / "p", made.parts, made.frame[:0], schema)
    assert manifest.parity.n_rows == 0
    assert manifest.parity.n_odd > 100
    assert manifest.parity.n_edges > 0
    assert len(open_package(tmp_path / "p").predict([{"count": 1}])) == 1


# -- the border of the decision


BINARY = Task(type="binary", target="y", labels=("a", "b"))
THREE = Task(type="multiclass", target="y", labels=("a", "b", "c"))


def test_a_threshold_on_a_validation_row_moves_into_a_gap() -> None:
    scores = np.linspace(-1, 1, 2001)
    moved = settled(Decision(threshold=0.5), scores, BINARY, 1e-6)
    assert 0 < abs(moved.threshold - 0.5) < 1e-3
    assert margin_of(moved.probability(scores, BINARY), BINARY, moved).min() > 0.99e-6
    clear = Decision(threshold=0.5)
    assert settled(clear, scores[scores != 0], BINARY, 1e-6) == clear


@pytest.mark.parametrize("spacing", [1e-6, 1e-7, 1e-8])
def test_a_threshold_moves_by_a_thousandth_at_most_however_crowded_the_rows(spacing: float) -> None:
    probability = 0.5 + spacing * np.arange(-200_000, 200_001)
    scores = np.log(probability / (1 - probability))
    moved = settled(Decision(threshold=0.5), scores, BINARY, 1e-6)
    assert abs(moved.threshold - 0.5) <= 1e-3
    # As far from all rows as is found: a quarter of the spacing or more, where the margin cannot be had.
    clear = margin_of(moved.probability(scores, BINARY), BINARY, moved).min()
    assert clear > 0.2 * spacing


def test_a_threshold_prefers_a_wide_gap_near_it_to_a_narrower_one_nearer() -> None:
    probability = np.concatenate([0.5 + 1e-7 * np.arange(-5000, 5001), [0.9]])
    scores = np.log(probability / (1 - probability))
    moved = settled(Decision(threshold=0.5), scores, BINARY, 1e-6)
    assert 5e-4 < abs(moved.threshold - 0.5) < 5.1e-4
    assert margin_of(moved.probability(scores, BINARY), BINARY, moved).min() > 0.99e-6


def test_tied_classes_are_told_apart_by_a_hair() -> None:
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [3.0, 0.0, 0.0]])
    moved = settled(Decision(), scores, THREE, 1e-7)
    assert margin_of(moved.probability(scores, THREE), THREE, moved).min() >= 1e-7
    np.testing.assert_allclose(moved.probability(scores, THREE), Decision().probability(scores, THREE), atol=1e-5)


def test_a_model_whose_rows_all_lie_on_the_border_exports(make: "Make", schema: Schema, tmp_path: Path) -> None:
    made = make("linear", "binary")
    parts = made.parts
    scores = parts.model.predict(parts.weights, encode(parts.features, parts.states, made.frame, parts.model.form))
    on_a_row = float(Decision().probability(scores, parts.task)[7, 1])
    go(tmp_path / "p", replace(parts, decision=Decision(threshold=on_a_row)), made.frame, schema)
    assert open_package(tmp_path / "p").manifest.parity.n_rows == 300
