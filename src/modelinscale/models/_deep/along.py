"""Encoders along the steps of a sequence or the words of a text: recurrent, convolutions, attention.

B rows, T steps, W numbers a step, H units of a direction or head. Every one takes (B, T, W) with 0 behind each row's end and how many steps a row has,
and gives (B, T, width) with 0 behind the end: what stands behind an end never changes what is before it.

Sources: Cho et al., Learning Phrase Representations, 2014 (gated recurrent units) · Hochreiter, Schmidhuber, Long Short-Term Memory, 1997 (cells with a
memory) · Bai et al., An Empirical Evaluation of Generic Convolutional and Recurrent Networks, 2018 (dilated convolutions) · Vaswani et al., Attention Is All
You Need, 2017; Xiong et al., On Layer Normalization, 2020 (norm first).
"""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.graph import Graph
from modelinscale.models._deep.parts import Tensor, array, draw_linear
from modelinscale.models._torch import torch

_KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_HEADS, _BLOCKS = 4, 2
"""Of the encoder with attention."""
_KERNEL, _MOST_CONVOLUTIONS = 3, 6
_ASKING = 1024
"""Steps of a graph that look at all others at once: of ten thousand, looking at as many, a row would hold 1.6 GB a layer."""
_FAR = -1e9
"""What attention is given for a step that is not there."""


class Along(torch.nn.Module):
    """One encoder along steps."""

    width: int

    @abstractmethod
    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """x: (B, T, W); there: (B, T, 1), 1 for a row's own steps, 0 behind them. Gives (B, T, width)."""

    @abstractmethod
    def draw(self, graph: Graph, tensor: str, there: str) -> str:
        """Draws `forward`; both float32."""


class Rnn(Along):
    """Gated recurrent units, forward and backward."""

    operator: ClassVar[str] = "GRU"
    attributes: ClassVar[dict[str, Any]] = {"linear_before_reset": 1}
    cells: torch.nn.RNNBase

    def __init__(self, n_in: int, width: int, longest: int) -> None:
        super().__init__()
        self.units = max(1, width // 2)
        self.width = 2 * self.units
        self.cells = self.make(n_in)

    def make(self, n_in: int) -> torch.nn.RNNBase:
        return torch.nn.GRU(n_in, self.units, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        sizes = there.sum((1, 2)).to(torch.int64).clamp_min(1).cpu()
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, sizes, batch_first=True, enforce_sorted=False)
        found, _ = torch.nn.utils.rnn.pad_packed_sequence(self.cells(packed)[0], batch_first=True, total_length=x.shape[1])
        return found * there

    def draw(self, graph: Graph, tensor: str, there: str) -> str:
        sizes = graph.op("ReduceSum", there, graph.constant([1, 2], np.int64), keepdims=0)
        # One more row at the end, taken off below: of no rows at all the operator makes an access violation (ONNX Runtime 1.32).
        sizes = graph.op("Max", graph.op("Pad", sizes, graph.constant([0, 1], np.int64)), graph.constant(np.float32(1)))
        rows = graph.op("Pad", tensor, graph.constant([0, 0, 0, 1, 0, 0], np.int64))
        ways = [[self.gates(array(getattr(self.cells, f"{kind}_l0{end}"))) for kind in _KINDS] for end in ("", "_reverse")]
        weight, hidden, bias = [way[0] for way in ways], [way[1] for way in ways], [np.concatenate(way[2:]) for way in ways]
        found = graph.op(
            self.operator,
            graph.op("Transpose", rows, perm=[1, 0, 2]),
            *(graph.constant(np.stack(one)) for one in (weight, hidden, bias)),
            graph.op("Cast", sizes, to=graph.INT32),
            hidden_size=self.units,
            direction="bidirectional",
            **self.attributes,
        )  # (T, 2, N, H)
        zero = graph.constant([0], np.int64)
        found = graph.op("Slice", graph.op("Transpose", found, perm=[2, 0, 1, 3]), zero, graph.constant([-1], np.int64), zero)
        found = graph.op("Reshape", found, graph.constant([0, 0, self.width], np.int64))
        return graph.op("Mul", found, there)

    def gates(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Torch has reset, update, new; ONNX update, reset, new."""
        reset, update, new = np.split(values, 3)
        return np.concatenate([update, reset, new])


class Lstm(Rnn):
    """Cells with a memory of their own, forward and backward: four gates, where gated units have three."""

    operator: ClassVar[str] = "LSTM"
    attributes: ClassVar[dict[str, Any]] = {}

    def make(self, n_in: int) -> torch.nn.RNNBase:
        cells = torch.nn.LSTM(n_in, self.units, batch_first=True, bidirectional=True)
        with torch.no_grad():  # a memory is kept at first (Jozefowicz et al., An Empirical Exploration of Recurrent Network Architectures, 2015)
            for end in ("", "_reverse"):
                bias: Tensor = getattr(cells, f"bias_ih_l0{end}")
                bias[self.units : 2 * self.units] += 1.0
        return cells

    def gates(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Torch has input, forget, new, output; ONNX input, output, forget, new."""
        let_in, forget, new, output = np.split(values, 4)
        return np.concatenate([let_in, output, forget, new])


class Norm(torch.nn.Module):
    """Each step's numbers at mean 0 and deviation 1, then stretched as learned."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(x)
        return found

    def draw(self, graph: Graph, tensor: str) -> str:
        weight, bias = graph.constant(array(self.norm.weight)), graph.constant(array(self.norm.bias))
        return graph.op("LayerNormalization", tensor, weight, bias, axis=-1, epsilon=float(self.norm.eps))


class Linear(torch.nn.Module):
    """A matrix and a bias, kept as (in, out)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(n_in, n_out) / math.sqrt(n_in))
        self.bias = torch.nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias

    def draw(self, graph: Graph, tensor: str) -> str:
        return draw_linear(graph, tensor, self.weight, self.bias)


class Tcn(Along):
    """Convolutions over three steps, each looking twice as far as the one before; what it finds is added to what it saw."""

    def __init__(self, n_in: int, width: int, longest: int) -> None:
        super().__init__()
        self.width = width
        n = min(_MOST_CONVOLUTIONS, max(1, math.ceil(math.log2(max(2, longest)))))
        self.first = Linear(n_in, width)
        self.norms = torch.nn.ModuleList([Norm(width) for _ in range(n)])
        self.maps = torch.nn.ModuleList([torch.nn.Conv1d(width, width, _KERNEL, padding=2**i, dilation=2**i) for i in range(n)])

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        x = self.first(x)
        for norm, maps in zip(self.norms, self.maps, strict=True):
            x = x + torch.relu(maps((norm(x) * there).transpose(1, 2)).transpose(1, 2))
        return x * there

    def draw(self, graph: Graph, tensor: str, there: str) -> str:
        x = self.first.draw(graph, tensor)
        for norm, maps in zip(self.norms, self.maps, strict=True):
            assert isinstance(norm, Norm)
            assert isinstance(maps, torch.nn.Conv1d)
            assert maps.bias is not None
            seen = graph.op("Transpose", graph.op("Mul", norm.draw(graph, x), there), perm=[0, 2, 1])
            far = maps.dilation[0]
            sizes: dict[str, Any] = {"dilations": [far], "pads": [far, far], "kernel_shape": [_KERNEL]}
            found = graph.op("Relu", graph.op("Conv", seen, graph.constant(array(maps.weight)), graph.constant(array(maps.bias)), **sizes))
            x = graph.op("Add", x, graph.op("Transpose", found, perm=[0, 2, 1]))
        return graph.op("Mul", x, there)


class Block(torch.nn.Module):
    """Every step looks at all others, then thinks about it alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = Norm(width), Norm(width)
        self.asked, self.mixed = Linear(width, 3 * width), Linear(width, width)
        self.wide, self.narrow = Linear(width, 2 * width), Linear(2 * width, width)
        self.width = width

    def forward(self, x: Tensor, far: Tensor) -> Tensor:
        """far: (B, 1, 1, T), 0 for a row's own steps, far below it for others."""
        B, T, W = x.shape
        query, key, value = self.asked(self.first(x)).view(B, T, 3, _HEADS, W // _HEADS).permute(2, 0, 3, 1, 4)  # (B, heads, T, H) each
        seen = torch.nn.functional.scaled_dot_product_attention(query, key, value, far)  # T x T numbers are never held
        x = x + self.mixed(seen.transpose(1, 2).reshape(B, T, W))
        found: Tensor = x + self.narrow(torch.relu(self.wide(self.second(x))))
        return found

    def draw(self, graph: Graph, tensor: str, far: str, longest: int) -> str:
        """``longest``: T at most."""
        W, H = self.width, self.width // _HEADS
        asked = graph.op("Reshape", self.asked.draw(graph, self.first.draw(graph, tensor)), graph.constant([0, 0, 3, _HEADS, H], np.int64))
        asked = graph.op("Transpose", asked, perm=[2, 0, 3, 1, 4])
        query, key, value = (graph.op("Gather", asked, graph.constant(i, np.int64), axis=0) for i in range(3))
        key = graph.op("Transpose", key, perm=[0, 1, 3, 2])
        seen = []
        for start in range(0, longest, _ASKING):
            asking, axis = query, graph.constant([2], np.int64)
            if longest > _ASKING:  # of shorter rows the later slices are empty
                asking = graph.op("Slice", query, graph.constant([start], np.int64), graph.constant([start + _ASKING], np.int64), axis)
            likeness = graph.op("Div", graph.op("MatMul", asking, key), graph.constant(np.float32(math.sqrt(H))))
            seen.append(graph.op("MatMul", graph.op("Softmax", graph.op("Add", likeness, far), axis=3), value))
        whole = seen[0] if len(seen) == 1 else graph.op("Concat", *seen, axis=2)
        mixed = graph.op("Reshape", graph.op("Transpose", whole, perm=[0, 2, 1, 3]), graph.constant([0, 0, W], np.int64))
        x = graph.op("Add", tensor, self.mixed.draw(graph, mixed))
        return graph.op("Add", x, self.narrow.draw(graph, graph.op("Relu", self.wide.draw(graph, self.second.draw(graph, x)))))


class Transformer(Along):
    """Attention: every step sees all others at once. Where a step stands is added as waves of many lengths."""

    places: Tensor

    def __init__(self, n_in: int, width: int, longest: int) -> None:
        super().__init__()
        self.width = max(1, width // (2 * _HEADS)) * 2 * _HEADS
        self.first = Linear(n_in, self.width)
        self.blocks = torch.nn.ModuleList([Block(self.width) for _ in range(_BLOCKS)])
        self.last = Norm(self.width)
        speed = np.exp(-math.log(10_000.0) * np.arange(0, self.width, 2) / self.width)
        angle = np.arange(longest)[:, None] * speed
        self.register_buffer("places", torch.from_numpy(np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)), persistent=False)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        x = self.first(x) + self.places[: x.shape[1]]
        far = ((1 - there) * _FAR).transpose(1, 2)[:, None]  # (B, 1, 1, T)
        for block in self.blocks:
            x = block(x, far)
        found: Tensor = self.last(x) * there
        return found

    def draw(self, graph: Graph, tensor: str, there: str) -> str:
        n_steps = graph.op("Shape", tensor, start=1, end=2)
        places = graph.op("Slice", graph.constant(array(self.places)), graph.constant([0], np.int64), n_steps, graph.constant([0], np.int64))
        x = graph.op("Add", self.first.draw(graph, tensor), places)
        far = graph.op("Mul", graph.op("Sub", graph.constant(np.float32(1)), there), graph.constant(np.float32(_FAR)))
        far = graph.op("Unsqueeze", graph.op("Transpose", far, perm=[0, 2, 1]), graph.constant([1], np.int64))
        for block in self.blocks:
            assert isinstance(block, Block)
            x = block.draw(graph, x, far, len(self.places))
        return graph.op("Mul", self.last.draw(graph, x), there)


def looks(T: int, width: int) -> int:
    """About how many numbers a graph holds of a row of T steps while they look at each other."""
    return 2 * _HEADS * min(T, _ASKING) * T + 8 * T * width


ALONG: dict[str, type[Along]] = {"rnn": Rnn, "lstm": Lstm, "tcn": Tcn, "transformer": Transformer}


def pooled(x: Tensor, there: Tensor) -> Tensor:
    """(B, T, W) to (B, 2 W): mean and largest of a row's own steps; 0 for a row without any."""
    n_steps = there.sum(1)  # (B, 1)
    mean = (x * there).sum(1) / n_steps.clamp_min(1)
    most = (x + (1 - there) * _FAR).amax(1)
    return torch.cat([mean, torch.where(n_steps > 0, most, torch.zeros_like(most))], dim=1)


def draw_pooled(graph: Graph, tensor: str, there: str) -> str:
    """Draws `pooled`."""
    one, steps = graph.constant(np.float32(1)), graph.constant([1], np.int64)
    n_steps = graph.op("ReduceSum", there, steps, keepdims=0)
    mean = graph.op("Div", graph.op("ReduceSum", graph.op("Mul", tensor, there), steps, keepdims=0), graph.op("Max", n_steps, one))
    far = graph.op("Mul", graph.op("Sub", one, there), graph.constant(np.float32(_FAR)))
    most = graph.op("ReduceMax", graph.op("Add", tensor, far), steps, keepdims=0)
    none = graph.constant(np.float32(0))
    return graph.op("Concat", mean, graph.op("Where", graph.op("Greater", n_steps, none), most, none), axis=1)
