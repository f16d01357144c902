"""An ONNX graph as plain data: what features and models draw themselves into, without importing onnx.

`export` turns it into the real file. Names of tensors are unique by construction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Layout

TensorType = Literal["float64", "float32", "int64", "string", "bool", "uint8"]
"""Element types that cross the border of the graph."""

_SHARED_BYTES = 256
"""Constants up to this size are kept once, however often they are asked for."""
_SHARED_ITEMS = 16
"""Calls whose attributes are lists up to this length are made once, however often they are asked for."""


@dataclass(frozen=True)
class Input:
    """One raw column entering: shape (N,), for vectors (N, width), for images (N, height, width, 3) with the first two of any size, for sequences
    (N, T, channels) with any T."""

    name: str
    type: TensorType
    width: int | tuple[int | str, ...] | None = None
    """Numbers of a row, or their shape; a text where any size is taken."""

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Sizes; a text where any is taken."""
        if self.type == "uint8":
            return ("N", f"height of {self.name}", f"width of {self.name}", 3)
        return ("N", *(() if self.width is None else (self.width,) if isinstance(self.width, int) else self.width))

    @property
    def tensor(self) -> str:
        """Its tensor while drawing. Column names are anything a user wrote, so they are kept apart from the names made here."""
        return f"column {self.name}"


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

    FLOAT32: ClassVar[int] = 1
    """Element type numbers for ``Cast(to=...)``."""
    INT32: ClassVar[int] = 6
    INT64: ClassVar[int] = 7
    STRING: ClassVar[int] = 8
    FLOAT64: ClassVar[int] = 11

    inputs: list[Input] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    outputs: dict[str, tuple[str, TensorType, tuple[int | str, ...]]] = field(default_factory=dict)
    """Public name -> (tensor, element type, shape with "N" for the batch)."""
    _count: int = 0
    _shared: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)
    _called: dict[tuple[str, tuple[str, ...], int, str, str], tuple[str, ...]] = field(default_factory=dict)

    def input(self, name: str, type: TensorType, width: int | tuple[int | str, ...] | None = None) -> str:
        """Declares a raw column, once however often it is asked for; returns its tensor."""
        column = Input(name, type, width)
        if column not in self.inputs:
            assert all(i.name != name for i in self.inputs), f"column {name!r} enters as two types"
            self.inputs.append(column)
        return column.tensor

    def beside(self, tensor: str, name: Callable[[str], str], type: TensorType, width: int) -> str:
        """Declares what the host makes of a raw column, once more beside it; ``name`` makes its name of the column's. Returns its tensor."""
        column = next(one for one in self.inputs if one.tensor == tensor)
        return self.input(name(column.name), type, width)

    def block(self, name: str, layout: Layout) -> str:
        """Declares an encoded block as an input, as `Feature.graph` would give it: ids and tokens int64, all else float32."""
        if layout.role == "ids":
            return self.input(name, "int64")
        return self.input(name, "int64" if layout.role == "tokens" else "float32", layout.shape or layout.width)

    def constant(self, value: NDArray[Any] | np.generic | float | Sequence[Any], dtype: Any = None) -> str:
        """A stored tensor. Strings are given as arrays of object or str dtype."""
        array = np.asarray(value, dtype=dtype)
        # Small ones are shared: fifty columns draw the same axes and zeros.
        key = (array.dtype.str, array.shape, array.tobytes()) if array.dtype != object and array.nbytes <= _SHARED_BYTES else None
        if key is not None and key in self._shared:
            return self._shared[key]
        name = self._fresh("c")
        self.constants[name] = array
        if key is not None:
            self._shared[key] = name
        return name

    def op(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Calls an operator with one output; "" for an optional input left out.

        Domain "" is ai.onnx (opset 21), "ai.onnx.ml" is opset 4, "com.microsoft" is 1.
        """
        return self.ops(op, *inputs, n_outputs=1, domain=domain, **attributes)[0]

    def ops(self, op: str, *inputs: str, n_outputs: int, domain: str = "", **attributes: Any) -> tuple[str, ...]:
        """Calls an operator with several outputs."""
        # The same call on the same tensors is the same value: parts of a date share their steps, features their masks.
        small = all(isinstance(v, (int, float, str)) or (isinstance(v, list) and len(v) <= _SHARED_ITEMS) for v in attributes.values())
        key = (op, inputs, n_outputs, domain, repr(sorted(attributes.items()))) if small else None
        if key is not None and key in self._called:
            return self._called[key]
        outputs = tuple(self._fresh("t") for _ in range(n_outputs))
        self.nodes.append(Node(op, tuple(inputs), outputs, domain, attributes))
        if key is not None:
            self._called[key] = outputs
        return outputs

    def split(self, tensor: str, widths: Sequence[int]) -> list[str]:
        """A matrix (N, sum of widths) as blocks of columns (N, width)."""
        if len(widths) == 1:
            return [tensor]
        return list(self.ops("Split", tensor, self.constant(list(widths), np.int64), n_outputs=len(widths), axis=1))

    def output(self, name: str, tensor: str, type: TensorType, shape: tuple[int | str, ...]) -> None:
        """Makes a tensor leave the graph under a public name."""
        self.outputs[name] = (tensor, type, shape)

    def _fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"
