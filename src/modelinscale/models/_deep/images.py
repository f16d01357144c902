"""Encoders of images: what they have in common, and a small residual network that is fast on a processor.

B images of S x S pixels, C channels, W maps of the first layer.

Sources: the nine-layer residual network of Page, How to train your ResNet, 2018, and its successors in Jordan, 94% on CIFAR-10 in 3.29 seconds, 2024.
"""

from abc import abstractmethod
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.graph import Graph
from modelinscale.models._deep.parts import Part, Tensor, array
from modelinscale.models._torch import torch

_LAST_SIDE = 4
"""Sides are halved until they are about this long."""
_LARGE = 80
"""From this side on the first layer halves too: nearly all of the work would be in it otherwise."""


class Images(Part):
    """uint8 (B, S, S, C) to numbers. ``mirrored``: in evaluation those of an image are the mean over it and its mirror image."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: NDArray[np.float32], deviation: NDArray[np.float32], *, mirrored: bool) -> None:
        """``mean``, ``deviation``: (C,) of the training images' pixels, 0 to 255."""
        super().__init__()
        self.mirrored = mirrored
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("deviation", torch.from_numpy(deviation))

    def forward(self, x: Tensor) -> Tensor:
        x = ((x.to(torch.float32) - self.mean) / self.deviation).permute(0, 3, 1, 2)  # (B, C, S, S), channels last in memory
        if self.training or not self.mirrored:
            return self.see(x)
        both = self.see(torch.cat([x, x.flip(3)]))  # (2 B, D)
        return both.view(2, len(x), self.width).mean(0)

    def draw(self, graph: Graph, tensor: str) -> str:
        x = graph.op("Div", graph.op("Sub", tensor, graph.constant(array(self.mean))), graph.constant(array(self.deviation)))
        x = graph.op("Transpose", x, perm=[0, 3, 1, 2])
        if not self.mirrored:
            return self.draw_seen(graph, x)
        last, end, back = (graph.constant([value], np.int64) for value in (-1, np.iinfo(np.int64).min, 3))
        both = self.draw_seen(graph, graph.op("Concat", x, graph.op("Slice", x, last, end, back, last), axis=0))  # (2 N, D)
        both = graph.op("Reshape", both, graph.constant([2, -1, self.width], np.int64))
        return graph.op("ReduceMean", both, graph.constant([0], np.int64), keepdims=0)

    @abstractmethod
    def see(self, x: Tensor) -> Tensor:
        """(B, C, S, S), about standardised, to (B, D)."""

    @abstractmethod
    def draw_seen(self, graph: Graph, tensor: str) -> str:
        """Draws `see`."""


class Convolution(torch.nn.Module):
    """3 x 3 maps, normalised over the batch, negative ones cut to 0. ``halves``: of each 2 x 2 the largest, taken before all that costs by the pixel."""

    def __init__(self, n_in: int, n_out: int, *, stride: int = 1, halves: bool = False) -> None:
        super().__init__()
        self.stride, self.halves = stride, halves
        self.maps = torch.nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maps(x)
        x = torch.nn.functional.max_pool2d(x, 2) if self.halves else x
        if self.training and x.numel() == x.shape[1]:  # one value a map has no spread: what is known so far has to do
            norm = self.norm
            return torch.relu(torch.nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps))
        return torch.relu(self.norm(x))

    def draw(self, graph: Graph, tensor: str) -> str:
        """The normalisation is part of the weights; its factor's sign stays behind the pooling, which looks for the largest."""
        assert self.norm.running_var is not None
        assert self.norm.running_mean is not None
        factor = array(self.norm.weight) / np.sqrt(array(self.norm.running_var) + np.float32(self.norm.eps))
        size, sign = np.abs(factor) if self.halves else factor, np.sign(factor)
        weight = array(self.maps.weight) * size[:, None, None, None]
        bias = array(self.norm.bias) - array(self.norm.running_mean) * factor
        turned = self.halves and bool((sign < 0).any())
        inside = () if turned else (graph.constant(bias),)
        x = graph.op("Conv", tensor, graph.constant(weight), *inside, pads=[1, 1, 1, 1], strides=[self.stride] * 2, kernel_shape=[3, 3])
        x = graph.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]) if self.halves else x
        if turned:
            x = graph.op("Add", graph.op("Mul", x, graph.constant(sign[:, None, None])), graph.constant(bias[:, None, None]))
        return graph.op("Relu", x)


class Stage(torch.nn.Module):
    """Half the side, more maps; with two more convolutions whose result is added where ``deep``."""

    def __init__(self, n_in: int, n_out: int, *, deep: bool, halves: bool = True) -> None:
        super().__init__()
        self.first = Convolution(n_in, n_out, halves=halves)
        self.more = torch.nn.ModuleList([Convolution(n_out, n_out), Convolution(n_out, n_out)] if deep else [])

    def forward(self, x: Tensor) -> Tensor:
        y = x = self.first(x)
        for one in self.more:
            y = one(y)
        return x + y if len(self.more) else x

    def draw(self, graph: Graph, tensor: str) -> str:
        y = x = self.first.draw(graph, tensor)
        for one in self.more:
            assert isinstance(one, Convolution)
            y = one.draw(graph, y)
        return graph.op("Add", x, y) if len(self.more) else x


class Cnn(Images):
    """To 8 W numbers: the largest values of the last maps."""

    def __init__(self, shape: tuple[int, ...], maps: int, mean: NDArray[np.float32], deviation: NDArray[np.float32], *, mirrored: bool) -> None:
        super().__init__(mean, deviation, mirrored=mirrored)
        side, channels = shape[0], shape[2]
        large = side >= _LARGE
        self.first = Convolution(channels, maps, stride=2 if large else 1)
        side = -(-side // 2) if large else side
        n_stages = max(1, int(np.floor(np.log2(max(side, 2) / _LAST_SIDE) + 0.6)))
        widths = [maps * min(8, 2**i) for i in range(n_stages + 1)]
        self.stages = torch.nn.ModuleList([Stage(a, b, deep=i % 2 == 0, halves=side > 1) for i, (a, b) in enumerate(pairwise(widths))])
        self.width = widths[-1]

    def see(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for stage in self.stages:
            x = stage(x)
        return torch.amax(x, dim=(2, 3))

    def draw_seen(self, graph: Graph, tensor: str) -> str:
        x = self.first.draw(graph, tensor)
        for stage in self.stages:
            assert isinstance(stage, Stage)
            x = stage.draw(graph, x)
        return graph.op("ReduceMax", x, graph.constant([2, 3], np.int64), keepdims=0)
