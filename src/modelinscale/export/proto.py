"""A drawn graph as an ONNX file: the only place that knows ONNX's own format."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale import __version__
from modelinscale.core.errors import ExportError
from modelinscale.core.graph import Graph

if TYPE_CHECKING:
    import onnx

OPSETS = {"": 21, "ai.onnx.ml": 4, "com.microsoft": 1}
"""Version of each operator set a graph may use; a set is named in the file only when an operator of it occurs (the first one always is).

ai.onnx.ml stays at 4: version 5 deprecates the tree operators that `models` draws.
"""
IR_VERSION = 10
"""The file format that belongs to opset 21; onnxruntime reads it since 1.18."""
MAX_BYTES = (1 << 31) - (1 << 20)
"""A protobuf message ends at 2 GiB; a little is kept for everything but the constants."""


def to_proto(graph: Graph, *, name: str, metadata: Mapping[str, str] | None = None) -> "onnx.ModelProto":
    """The graph as a checked ONNX model: the same graph gives the same bytes, on every machine.

    Public names (inputs, outputs) stay as they are, whatever they are; inner tensors make way for them. ``metadata`` goes into the file's
    properties. Raises `ExportError` when an input and an output share a name, or when the graph is too large for one file.
    """
    import onnx
    from onnx import helper

    _refuse_clashes(graph)
    _refuse_too_large(graph)
    names = _public_names(graph)
    nodes = [
        helper.make_node(
            node.op,
            [names[i] if i else "" for i in node.inputs],
            [names[o] if o else "" for o in node.outputs],
            # Named by what it makes: onnxruntime's profiles and messages then say which node they mean.
            name=f"{node.op} {names[node.outputs[0]]}",
            domain=node.domain,
            **{key: _attribute(value) for key, value in node.attributes.items()},
        )
        for node in graph.nodes
    ]
    outputs = []
    for public, (tensor, kind, shape) in graph.outputs.items():
        if names[tensor] != public:  # a tensor with two public names, a bare input, a constant
            nodes.append(helper.make_node("Identity", [names[tensor]], [public], name=f"Identity {public}"))
        outputs.append(helper.make_tensor_value_info(public, _element(kind), list(shape)))
    used = {i for node in graph.nodes for i in node.inputs} | {tensor for tensor, _, _ in graph.outputs.values()}
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info(i.name, _element(i.type), list(i.shape)) for i in graph.inputs],
            outputs,
            [_tensor(value, names[key]) for key, value in graph.constants.items() if key in used],
        ),
        producer_name="modelinscale",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid(d, v) for d, v in OPSETS.items() if d == "" or any(n.domain == d for n in graph.nodes)],
    )
    helper.set_model_props(proto, dict(sorted((metadata or {}).items())))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def to_bytes(graph: Graph, *, name: str, metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of the ONNX file, the same for the same graph (see `to_proto`)."""
    content: bytes = to_proto(graph, name=name, metadata=metadata).SerializeToString(deterministic=True)
    return content


def _refuse_clashes(graph: Graph) -> None:
    both = [i.name for i in graph.inputs if i.name in graph.outputs]
    if both:
        raise ExportError(
            f"{', '.join(map(repr, both))}: a column has the name of an answer, and a graph cannot hold both.",
            fix="Rename the column in the source, or put it under `data.leave_out`.",
        )


def _refuse_too_large(graph: Graph) -> None:
    sizes = {key: _size_bytes(value) for key, value in graph.constants.items()}
    if sum(sizes.values()) > MAX_BYTES:
        raise ExportError(
            f"The graph holds {sum(sizes.values()) / 2**30:.1f} GiB of constants; one ONNX file ends at 2 GiB.",
            fix="Use a smaller model, or keep fewer words in its category and text features (`keep`).",
        )


def _size_bytes(value: NDArray[Any]) -> int:
    return sum(len(str(word)) + 2 for word in value.flat) if value.dtype.kind in "UO" else value.nbytes


def _public_names(graph: Graph) -> dict[str, str]:
    """Tensor → its name in the file: inputs and outputs get their public names, the others keep clear of those."""
    names = {i.tensor: i.name for i in graph.inputs}
    made = [o for node in graph.nodes for o in node.outputs if o]
    inner = {*made, *graph.constants}
    for public, (tensor, _, _) in graph.outputs.items():
        if tensor in made:
            names.setdefault(tensor, public)
    taken = {i.name for i in graph.inputs} | set(graph.outputs)
    for tensor in inner - set(names):
        names[tensor] = tensor
        while names[tensor] in taken:
            names[tensor] += "_"
    return names


def _element(kind: str) -> int:
    from onnx import TensorProto

    found: int = {
        "float64": TensorProto.DOUBLE,
        "float32": TensorProto.FLOAT,
        "int64": TensorProto.INT64,
        "string": TensorProto.STRING,
        "bool": TensorProto.BOOL,
        "uint8": TensorProto.UINT8,
    }[kind]
    return found


def _attribute(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _tensor(value, "")
    if isinstance(value, (bool, np.generic)):
        return int(value) if isinstance(value, (bool, np.bool_)) else value.item()
    return value


def _tensor(value: NDArray[Any], name: str) -> "onnx.TensorProto":
    from onnx import TensorProto, helper, numpy_helper

    if value.dtype.kind in "UO":
        tensor = TensorProto(data_type=TensorProto.STRING, dims=value.shape, name=name)
        tensor.string_data.extend(str(word).encode("utf-8") for word in value.flat)
        return tensor
    if value.dtype.byteorder == ">":
        value = value.astype(value.dtype.newbyteorder("<"))
    assert helper.np_dtype_to_tensor_dtype(value.dtype), f"constant {name}: no ONNX type for {value.dtype}"
    return numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
