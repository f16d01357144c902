"""An encoder of larger images: few, wide looks at each map by itself, then a small network over the maps of every place.

B images of S x S pixels, W maps of the first stage, D maps of a stage.

Source: Liu et al., A ConvNet for the 2020s, 2022, in a small size and without dropped paths.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.graph import Graph
from modelinscale.models._deep.images import Images
from modelinscale.models._deep.parts import Tensor, array, draw_linear
from modelinscale.models._torch import torch

_DEPTHS = (2, 2, 4, 2)
"""Blocks of a stage."""
_LARGE = 96
"""From this side on the first layer makes one place of 4 x 4 pixels, below of 2 x 2."""
_WIDER = 4
"""Units within a block, for each map."""
_SCALE = 0.1
"""What a block's result is multiplied with at first. The paper's 1e-6 is for a hundred times as many steps."""
_SPREAD = 0.02


class Norm(torch.nn.LayerNorm):
    """Over the maps of each place; (B, S, S, D)."""

    def draw(self, graph: Graph, tensor: str) -> str:
        weight, bias = (graph.constant(array(one)) for one in (self.weight, self.bias))
        return graph.op("LayerNormalization", tensor, weight, bias, axis=-1, epsilon=float(self.eps))


class Patches(torch.nn.Module):
    """One place of each p x p, with other maps: (B, S, S, D) to (B, S / p, S / p, E); what is left over at the border is not seen."""

    def __init__(self, n_in: int, n_out: int, size: int) -> None:
        super().__init__()
        self.maps = torch.nn.Conv2d(n_in, n_out, size, stride=size)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.maps(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return found

    def draw(self, graph: Graph, tensor: str) -> str:
        x = graph.op("Transpose", tensor, perm=[0, 3, 1, 2])
        size = list(self.maps.kernel_size)
        x = graph.op("Conv", x, graph.constant(array(self.maps.weight)), *_bias(graph, self.maps), kernel_shape=size, strides=size)
        return graph.op("Transpose", x, perm=[0, 2, 3, 1])


class Block(torch.nn.Module):
    """Something added to every place: 7 x 7 of each map, then four times as many units over all maps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = torch.nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = Norm(width, eps=1e-6)
        self.wide = torch.nn.Linear(width, _WIDER * width)
        self.narrow = torch.nn.Linear(_WIDER * width, width)
        self.scale = torch.nn.Parameter(torch.full((width,), _SCALE))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.look(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        y = self.narrow(torch.nn.functional.gelu(self.wide(y)))  # (B, S, S, D)
        found: Tensor = x + y * self.scale
        return found

    def draw(self, graph: Graph, tensor: str) -> str:
        y = graph.op("Transpose", tensor, perm=[0, 3, 1, 2])
        looks = (graph.constant(array(self.look.weight)), *_bias(graph, self.look))
        y = graph.op("Conv", y, *looks, kernel_shape=[7, 7], pads=[3, 3, 3, 3], group=len(self.scale))
        y = self.norm.draw(graph, graph.op("Transpose", y, perm=[0, 2, 3, 1]))
        y = graph.op("Gelu", draw_linear(graph, y, self.wide.weight.T, self.wide.bias))
        y = draw_linear(graph, y, self.narrow.weight.T, self.narrow.bias)
        return graph.op("Add", tensor, graph.op("Mul", y, graph.constant(array(self.scale))))


class ConvNeXt(Images):
    """To 8 W numbers (fewer of small images): the mean over all places."""

    def __init__(self, shape: tuple[int, ...], maps: int, mean: NDArray[np.float32], deviation: NDArray[np.float32], *, mirrored: bool) -> None:
        super().__init__(mean, deviation, mirrored=mirrored)
        side = shape[0]
        patch = min(side, 4 if side >= _LARGE else 2)
        n_stages = min(len(_DEPTHS), 1 + int(np.log2(max(1, side // patch))))
        widths = [maps * 2**i for i in range(n_stages)]
        parts: list[Patches | Norm | Block] = [Patches(shape[2], maps, patch), Norm(maps, eps=1e-6)]
        parts += [Block(maps) for _ in range(_DEPTHS[0])]
        for (a, b), depth in zip(pairwise(widths), _DEPTHS[1:], strict=False):
            parts += [Norm(a, eps=1e-6), Patches(a, b, 2), *(Block(b) for _ in range(depth))]
        self.parts, self.width = torch.nn.ModuleList(parts), widths[-1]
        self.last = Norm(self.width, eps=1e-6)
        for one in self.modules():
            if isinstance(one, (torch.nn.Conv2d, torch.nn.Linear)):
                torch.nn.init.trunc_normal_(one.weight, std=_SPREAD)
                assert one.bias is not None
                torch.nn.init.zeros_(one.bias)

    def see(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        for part in self.parts:
            x = part(x)  # (B, S, S, D)
        found: Tensor = self.last(x.mean((1, 2)))
        return found

    def draw_seen(self, graph: Graph, tensor: str) -> str:
        x = graph.op("Transpose", tensor, perm=[0, 2, 3, 1])
        for part in self.parts:
            assert isinstance(part, (Patches, Norm, Block))
            x = part.draw(graph, x)
        return self.last.draw(graph, graph.op("ReduceMean", x, graph.constant([1, 2], np.int64), keepdims=0))


def _bias(graph: Graph, layer: torch.nn.Conv2d) -> tuple[str, ...]:
    return () if layer.bias is None else (graph.constant(array(layer.bias)),)
