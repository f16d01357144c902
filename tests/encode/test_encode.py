"""A whole table through all features: in Python, in partitions, and as one graph."""

import json

import numpy as np
import onnxruntime
import polars as pl
import pytest

from modelinscale.compute.local import Local
from modelinscale.core.encoded import Sparse
from modelinscale.core.errors import DataError
from modelinscale.core.graph import Graph
from modelinscale.data.partitions import rows_of
from modelinscale.data.split import TRAIN, VALID
from modelinscale.encode import draw, empty_all, encode, layouts, merge_all, observe, observe_all, settle_all
from modelinscale.encode.tensors import to_input, to_numpy
from modelinscale.export.proto import to_bytes
from modelinscale.features import Feature

FEATURES = {
    name: Feature.parse(value)
    for name, value in {
        "age": "number",
        "height m": {"type": "number", "scale": "standard", "clip": 3},
        "weight": "number",
        "smokes": "flag",
        "city": {"type": "category", "at_least": 1},
        "zip": {"type": "category", "at_least": 1},
        "joined": "moment",
        "left": "moment",
        "note": {"type": "text", "at_least": 1},
        "t1": {"type": "text", "at_least": 1, "pairs": False},
        "face": "vector",
    }.items()
}


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    chance = np.random.default_rng(7)
    n = 200
    some = chance.random(n) < 0.1
    cells = pl.DataFrame(
        {
            "age": chance.integers(0, 90, n),
            "height m": np.where(some, np.nan, chance.normal(1.7, 0.1, n)),
            "weight": chance.lognormal(4, 1, n),
            "smokes": chance.random(n) < 0.3,
            "city": chance.choice(["Bern", "Zürich", "", "日本"], n),
            "zip": chance.integers(1000, 1010, n),
            "joined": chance.integers(-(10**16), 10**16, n),
            "left": chance.integers(1_700_000_000_000_000, 1_700_100_000_000_000, n),
            "note": chance.choice(["Free entry!", "call me", "", "ΣΑΣ ÉTÉ 😀"], n),
            "t1": chance.choice(["a b", "b c d"], n),
            "face": chance.normal(size=(n, 4)).astype(np.float32),
        }
    )
    times = [pl.col(c).cast(pl.Datetime("us")) for c in ("joined", "left")]
    holes = [pl.when(pl.lit(pl.Series(np.roll(some, i)))).then(None).otherwise(pl.col(c)).alias(c) for i, c in enumerate(("age", "smokes", "city", "joined"))]
    return cells.with_columns(times).with_columns(holes)


def test_one_graph_of_many_features_gives_the_same_bits_as_python(frame: pl.DataFrame) -> None:
    states = settle_all(FEATURES, observe_all(FEATURES, frame[:150]))
    for form in ("plain", "scaled"):
        graph, encoded = Graph(), encode(FEATURES, states, frame, form)
        for name, tensor in draw(FEATURES, states, form, graph).items():
            ids = encoded.layouts[name].role == "ids"
            graph.output(f"{name} encoded", tensor, "int64" if ids else "float32", ("N",) if ids else ("N", encoded.layouts[name].width))
        session = onnxruntime.InferenceSession(to_bytes(graph, name="all"))
        assert [i.name for i in session.get_inputs()] == list(FEATURES)
        fed = {name: to_numpy(to_input(frame[name], feature.input), feature.input) for name, feature in FEATURES.items()}
        for name, found in zip(FEATURES, session.run(None, fed), strict=True):
            block = encoded[name]
            np.testing.assert_array_equal(found, block.dense() if isinstance(block, Sparse) else block, err_msg=f"{name}, {form}")


def test_fifty_number_columns_are_drawn_as_one_matrix() -> None:
    features = {f"x{i}": Feature.parse("number") for i in range(50)}
    frame = pl.DataFrame({name: [1.0 * i, None, 3.0] for i, name in enumerate(features)})
    graph = Graph()
    draw(features, observe_all(features, frame), "scaled", graph)
    assert len(graph.nodes) < 25, [n.op for n in graph.nodes]


def test_states_learned_in_partitions_equal_those_of_all_rows_at_once(frame: pl.DataFrame) -> None:
    parts = np.repeat(np.array([TRAIN, VALID], np.int8), [150, 50])
    whole = observe_all(FEATURES, frame[:150])
    assert observe(FEATURES, rows_of(frame, 40), parts, compute=Local(workers=2)) == whole
    assert observe(FEATURES, rows_of(frame, 7), parts, compute=Local(workers=1)) == whole
    mixed = np.random.default_rng(1).permutation(parts)
    assert observe(FEATURES, rows_of(frame, 7), mixed, compute=Local()) == observe_all(FEATURES, frame.filter(pl.Series(mixed == TRAIN)))
    assert merge_all(FEATURES, empty_all(FEATURES), whole) == whole
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole


def test_no_rows_to_learn_from_give_the_empty_states(frame: pl.DataFrame) -> None:
    assert observe(FEATURES, rows_of(frame, 10), np.full(len(frame), VALID, np.int8), compute=Local()) == empty_all(FEATURES)


def test_columns_are_named_after_their_feature(frame: pl.DataFrame) -> None:
    found = layouts(FEATURES, observe_all(FEATURES, frame), "scaled")
    assert found["age"].names == ("age", "age: missing")
    assert found["weight"].names == ("weight",)
    assert {"note: !", "note: call", "note: free entry"} <= set(found["note"].names)
    assert found["city"].names == ("(missing)", "(other)", *sorted(found["city"].names[2:], key=lambda w: -(frame["city"] == w).sum()))
    assert found["joined"].names[0] == "joined: since"


def test_rows_of_encoded_blocks_are_the_encoded_rows(frame: pl.DataFrame) -> None:
    states = observe_all(FEATURES, frame)
    index = np.array([5, 3, 3, 199], np.int64)
    some, direct = encode(FEATURES, states, frame, "scaled").rows(index), encode(FEATURES, states, frame[index], "scaled")
    assert some.n_rows == direct.n_rows == 4
    for name in FEATURES:
        a, b = some[name], direct[name]
        np.testing.assert_array_equal(a.dense() if isinstance(a, Sparse) else a, b.dense() if isinstance(b, Sparse) else b)


def test_a_missing_column_is_named_with_what_may_have_been_meant(frame: pl.DataFrame) -> None:
    with pytest.raises(DataError, match=r"no column 'weight' for the feature of that name.* Did you mean 'weigt'"):
        encode(FEATURES, observe_all(FEATURES, frame), frame.rename({"weight": "weigt"}), "plain")


def test_equal_columns_of_different_names_share_no_tensor_by_mistake() -> None:
    features = {"a": Feature.parse("number"), "b": Feature.parse("number")}
    frame = pl.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    graph = Graph()
    for name, tensor in draw(features, observe_all(features, frame), "plain", graph).items():
        graph.output(f"{name}!", tensor, "float32", ("N", 1))
    found = onnxruntime.InferenceSession(to_bytes(graph, name="two")).run(None, {c: frame[c].to_numpy() for c in frame.columns})
    assert [f.ravel().tolist() for f in found] == [[1.0, 2.0], [3.0, 4.0]]
