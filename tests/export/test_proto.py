"""The file a graph becomes: same bytes, any names, strings as they are."""

import numpy as np
import onnx
import onnxruntime
import pytest

from modelinscale.core.errors import ExportError
from modelinscale.core.graph import Graph
from modelinscale.export import proto as proto_module
from modelinscale.export.proto import to_bytes, to_proto


def a_graph(*names: str) -> Graph:
    graph = Graph()
    for name in names:
        x = graph.input(name, "float64")
        graph.output(f"{name} + 1", graph.op("Add", x, graph.constant(1.0, np.float64)), "float64", ("N",))
    return graph


def test_the_same_graph_gives_the_same_bytes_whatever_the_order_of_its_metadata() -> None:
    one = to_bytes(a_graph("a", "b"), name="m", metadata={"x": "1", "y": "2"})
    assert one == to_bytes(a_graph("a", "b"), name="m", metadata={"y": "2", "x": "1"})


@pytest.mark.parametrize("names", [("c1", "t1", "t2"), ("a b/c", "été 😀", "nul\x00"), ("Add t1", "N", "column N")])
def test_columns_may_have_any_name(names: tuple[str, ...]) -> None:
    session = onnxruntime.InferenceSession(to_bytes(a_graph(*names), name="m"))
    assert [i.name for i in session.get_inputs()] == list(names)
    found = session.run(None, {name: np.array([float(i)]) for i, name in enumerate(names)})
    assert [float(f[0]) for f in found] == [1.0 + i for i in range(len(names))]


def test_a_tensor_may_leave_twice_and_an_input_may_leave_as_it_came() -> None:
    graph = Graph()
    x = graph.input("x", "string")
    joined = graph.op("StringConcat", x, graph.constant(np.array("é😀", dtype=object)))
    for name, tensor in {"as it came": x, "joined": joined, "again": joined}.items():
        graph.output(name, tensor, "string", ("N",))
    session = onnxruntime.InferenceSession(to_bytes(graph, name="m"))
    assert [f.tolist() for f in session.run(None, {"x": np.array(["a", ""], dtype=object)})] == [["a", ""], ["aé😀", "é😀"], ["aé😀", "é😀"]]


def test_equal_small_constants_are_kept_once_and_unused_ones_not_at_all() -> None:
    graph = a_graph("a", "b", "c")
    graph.constant(np.arange(5.0))
    assert len(to_proto(graph, name="m").graph.initializer) == 1


def test_a_column_named_like_an_answer_is_refused_by_name() -> None:
    graph = Graph()
    x = graph.input("prediction", "float64")
    graph.output("prediction", x, "float64", ("N",))
    with pytest.raises(ExportError, match=r"'prediction': a column has the name of an answer.*Rename"):
        to_proto(graph, name="m")


def test_a_graph_beyond_one_file_is_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proto_module, "MAX_BYTES", 1000)
    graph = Graph()
    graph.output("y", graph.op("Add", graph.input("x", "float64"), graph.constant(np.zeros(200))), "float64", ("N",))
    with pytest.raises(ExportError, match="one ONNX file ends at 2 GiB"):
        to_proto(graph, name="m")


def test_operator_sets_are_the_promised_ones_and_named_only_where_used() -> None:
    graph = Graph()
    x = graph.input("x", "string")
    ids = graph.op("LabelEncoder", x, domain="ai.onnx.ml", keys_strings=["a"], values_int64s=[2], default_int64=1)
    graph.output("ids", ids, "int64", ("N",))
    model = to_proto(graph, name="m", metadata={"k": "v"})
    assert {o.domain: o.version for o in model.opset_import} == {"": 21, "ai.onnx.ml": 4}
    assert {p.key: p.value for p in model.metadata_props} == {"k": "v"}
    assert {o.domain for o in to_proto(a_graph("x"), name="m").opset_import} == {""}


def test_tensor_attributes_of_every_type_survive() -> None:
    graph = Graph()
    x = graph.input("x", "string")
    keys = np.array(["a", "é", ""], dtype=object)
    ids = graph.op(
        "LabelEncoder",
        x,
        domain="ai.onnx.ml",
        keys_tensor=keys,
        values_tensor=np.array([2, 3, 0], ">i8"),
        default_tensor=np.array([1], np.int64),
    )
    graph.output("ids", ids, "int64", ("N",))
    model = to_proto(graph, name="m")
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert session.run(None, {"x": np.array(["é", "b", "", "a"], dtype=object)})[0].tolist() == [3, 1, 0, 2]
