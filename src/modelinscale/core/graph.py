"""An ONNX graph as plain data: what features and models draw themselves into, without importing onnx.

`export` turns it into the real file. Names of tensors are unique by construction.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

TensorType = Literal["float64", "float32", "int64", "string", "bool"]
"""Element types that cross the border of the graph."""


@dataclass(frozen=True)
class Input:
    """One raw column entering: shape (N,) or, for vectors, (N, width)."""

    name: str
    type: TensorType
    width: int | None = None


@dataclass(frozen=True)
class Node:
    """One operator call. ``attributes`` hold ints, floats, strings, lists of them, or NumPy arrays (tensor attributes)."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    domain: str
    attributes: dict[str, Any]


@dataclass
class Graph:
    """A graph under construction: ask for tensors by name, get names back."""

    inputs: list[Input] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    outputs: dict[str, tuple[str, TensorType, tuple[int | str, ...]]] = field(default_factory=dict)
    """Public name -> (tensor, element type, shape with "N" for the batch)."""
    _count: int = 0

    def input(self, name: str, type: TensorType, width: int | None = None) -> str:
        """Declares a raw column; returns its tensor name (the column's own)."""
        if all(i.name != name for i in self.inputs):
            self.inputs.append(Input(name, type, width))
        return name

    def constant(self, value: NDArray[Any] | float | int | list[Any], dtype: Any = None) -> str:
        """A stored tensor. Strings are given as arrays of object or str dtype."""
        array = np.asarray(value, dtype=dtype)
        name = self._fresh("c")
        self.constants[name] = array
        return name

    def op(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Calls an operator with one output; "" for an optional input left out.

        Domain "" is ai.onnx (opset 21), "ai.onnx.ml" is opset 5, "com.microsoft" is 1.
        """
        return self.ops(op, *inputs, n_outputs=1, domain=domain, **attributes)[0]

    def ops(self, op: str, *inputs: str, n_outputs: int, domain: str = "", **attributes: Any) -> tuple[str, ...]:
        """Calls an operator with several outputs."""
        outputs = tuple(self._fresh("t") for _ in range(n_outputs))
        self.nodes.append(Node(op, tuple(inputs), outputs, domain, attributes))
        return outputs

    def output(self, name: str, tensor: str, type: TensorType, shape: tuple[int | str, ...]) -> None:
        """Makes a tensor leave the graph under a public name."""
        self.outputs[name] = (tensor, type, shape)

    def _fresh(self, prefix: str) -> str:
        self._count += 1
        # Two leading underscores keep clear of column names, which are input names as they stand.
        return f"__{prefix}{self._count}"
