"""What every part of a network is: a module that also draws itself, so that graph and training are one thing in one place.

B rows of a batch, D numbers that a part gives a row.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.graph import Graph
from modelinscale.models._torch import torch

Tensor = torch.Tensor


class Part(torch.nn.Module):
    """From one block of a batch (or several of one role, side by side) to ``width`` numbers a row."""

    width: int
    share: float = 1.0
    """How much of the step size its weights move by."""
    beside: ClassVar[int] = 1
    """Axis along which blocks of several features lie side by side."""

    @abstractmethod
    def forward(self, x: Any) -> Tensor:
        """(B, D)."""

    @abstractmethod
    def draw(self, graph: Graph, tensor: str) -> str:
        """Draws `forward` as it is in evaluation: float32 (N, D) of the block's tensor in the graph."""

    def draw_all(self, graph: Graph, tensors: Sequence[str]) -> str:
        """The same of several features' tensors, side by side."""
        return self.draw(graph, tensors[0] if len(tensors) == 1 else graph.op("Concat", *tensors, axis=self.beside))


def array(tensor: Tensor) -> NDArray[np.float32]:
    """The values of a parameter or buffer, copied."""
    return tensor.detach().to("cpu", torch.float32).numpy().copy()


def draw_linear(graph: Graph, tensor: str, weight: Tensor, bias: Tensor | None = None) -> str:
    """Draws ``x @ weight + bias``."""
    found = graph.op("MatMul", tensor, graph.constant(array(weight)))
    return found if bias is None else graph.op("Add", found, graph.constant(array(bias)))
