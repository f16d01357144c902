"""An ONNX model that another exporter wrote, as a part of a graph of ours."""

from typing import Any

import numpy as np

from modelinscale.core.errors import ModelError, needs
from modelinscale.core.graph import Graph


def inlined(graph: Graph, model: Any, *tensors: str) -> str:
    """Calls the model (an `onnx.ModelProto` with one output) on tensors, one for each of its inputs in their order; returns what it gives.

    Raises `ModelError` for a model that holds functions, branches or loops of its own.
    """
    onnx = needs("onnx", extra="timm")
    if model.functions:
        raise ModelError(f"This model has functions of its own ({model.functions[0].name}); only plain nodes become part of a graph.")
    made = model.graph
    (wanted,) = made.output
    names = {"": ""} | {given.name: tensor for given, tensor in zip(made.input, tensors, strict=True)}
    for one in made.initializer:
        names[one.name] = graph.constant(np.array(onnx.numpy_helper.to_array(one)))
    for node in made.node:
        attributes = {one.name: _plain(onnx, node.op_type, one) for one in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            names[node.output[0]] = graph.constant(attributes["value"])
            continue
        inputs = [names[name] for name in node.input]
        outputs = graph.ops(node.op_type, *inputs, n_outputs=len(node.output), domain=node.domain, **attributes)
        names.update(zip(node.output, outputs, strict=True))
    answer: str = names[wanted.name]
    return answer


def _plain(onnx: Any, op: str, attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return np.array(onnx.numpy_helper.to_array(value))
    if isinstance(value, onnx.GraphProto):
        raise ModelError(f"This model has a branch or loop ({op}); only plain nodes become part of a graph.")
    return [one.decode() if isinstance(one, bytes) else one for one in value] if not isinstance(value, int | float | str) else value
