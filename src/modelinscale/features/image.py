"""Images: PNG, JPEG and other encoded bytes, as pixels of one size.

N rows, S pixels a side, C channels.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.core import pixels
from modelinscale.core.bins import Bins
from modelinscale.core.encoded import Form, InputType, Layout, Values
from modelinscale.core.graph import Graph
from modelinscale.core.schema import Column
from modelinscale.features import Feature, State
from modelinscale.features._resize import Fit, draw, resize

if TYPE_CHECKING:
    import polars as pl

_SMALL = 8
"""Pixels a side of what families that want plain columns see."""
_SPREAD = 4.0
"""Scaled: 0 to 255 becomes -2 to 2, about unit variance for most pictures."""


class Image(Feature):
    """An encoded image (PNG, JPEG, WebP, BMP, GIF, TIFF).

    deep: its pixels, size x size, grey or colour. plain: means of 8 x 8 fields, 0 to 1. scaled: the same from -2 to 2. A missing image is one grey
    pixel; in training an image that cannot be read counts as missing and is counted, a server refuses it. Python and graph give the same bits.
    """

    input: ClassVar[InputType] = "image"
    deep: ClassVar[bool] = True

    size: int = Field(32, ge=4, le=1024)
    """Pixels a side after resizing. Larger shows more and costs its square."""
    channels: Literal["auto", "grey", "colour"] = "auto"
    """grey: brightness alone · colour: red, green, blue · auto: grey where no training image has a colour."""
    fit: Fit = "stretch"
    """stretch: the whole image, its sides stretched to a square · crop: the square in its middle."""

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type == "binary"

    def empty(self) -> State:
        none = Bins.of(np.zeros(0)).plain()
        return {"n": 0, "missing": 0, "broken": 0, "coloured": 0, "height": none, "width": none, "brightness": none}

    def observe(self, state: State, values: "pl.Series") -> State:
        images: list[pixels.Pixels] = []
        missing = broken = coloured = 0
        for data in values.to_list():
            if data is None:
                missing += 1
                continue
            try:
                found = pixels.decode(data)
            except pixels.ImageError:
                broken += 1
                continue
            images.append(found)
            coloured += bool((found[..., 0] != found[..., 1]).any() or (found[..., 1] != found[..., 2]).any())
        sizes = np.array([one.shape[:2] for one in images], np.float64).reshape(-1, 2)
        brightness = resize(images, _SMALL, self.fit, grey=True).mean(axis=(1, 2, 3), dtype=np.float64) if images else np.zeros(0)
        bins = {name: Bins.of(v).plain() for name, v in (("height", sizes[:, 0]), ("width", sizes[:, 1]), ("brightness", brightness))}
        return self.merge(state, {"n": len(values), "missing": missing, "broken": broken, "coloured": coloured, **bins})

    def merge(self, a: State, b: State) -> State:
        bins = {name: Bins.load(a[name]).merged(Bins.load(b[name])).plain() for name in ("height", "width", "brightness")}
        return {**{name: a[name] + b[name] for name in ("n", "missing", "broken", "coloured")}, **bins}

    def layout(self, state: State, form: Form) -> Layout:
        C = 1 if self._grey(state) else 3
        if form == "deep":
            return Layout("image", self.size * self.size * C, (), (self.size, self.size, C))
        kinds = ("",) if C == 1 else (" red", " green", " blue")
        names = tuple(f"row {i} column {j}{kind}" for i in range(_SMALL) for j in range(_SMALL) for kind in kinds)
        return Layout("dense", len(names), names)

    def encode(self, state: State, values: "pl.Series", form: Form) -> Values:
        S, C = self.size if form == "deep" else _SMALL, 1 if self._grey(state) else 3
        found = resize([_read(data) for data in values.to_list()], S, self.fit, grey=C == 1)
        return found if form == "deep" else _numbers(found.reshape(len(found), S * S * C).astype(np.float32), form)

    def graph(self, state: State, form: Form, graph: Graph, tensor: str) -> str:
        """deep: float32 (N, S, S, C) whole numbers, as `encode` has them in uint8."""
        C = 1 if self._grey(state) else 3
        found = draw(graph, tensor, self.size if form == "deep" else _SMALL, self.fit, grey=C == 1)
        if form == "deep":
            return found
        flat = graph.op("Reshape", found, graph.constant([0, _SMALL * _SMALL * C], np.int64))
        shares = graph.op("Div", flat, graph.constant(np.float32(255)))
        if form == "plain":
            return shares
        return graph.op("Mul", graph.op("Sub", shares, graph.constant(np.float32(0.5))), graph.constant(np.float32(_SPREAD)))

    def examples(self, state: State | None = None) -> list[Any]:
        ramp = np.arange(256, dtype=np.uint8)
        shapes = [(1, 1), (1, 300), (300, 1), (2, 3), (self.size, self.size), (self.size + 1, self.size - 1), (40, 57), (7, 1024)]
        noise = [np.random.Generator(np.random.PCG64(i)).integers(0, 256, (*shape, 3), np.uint8) for i, shape in enumerate(shapes)]
        plain = [np.zeros((9, 9, 3), np.uint8), np.full((9, 9, 3), 255, np.uint8), np.stack([ramp[None].repeat(4, 0)] * 3, axis=2)]
        return [None, *(pixels.png(one) for one in [*plain, *noise])]

    def _grey(self, state: State) -> bool:
        return self.channels == "grey" or (self.channels == "auto" and not state["coloured"])


def _numbers(values: NDArray[np.float32], form: Form) -> NDArray[np.float32]:
    shares = values / np.float32(255)
    return shares if form == "plain" else (shares - np.float32(0.5)) * np.float32(_SPREAD)


def _read(data: bytes | None) -> pixels.Pixels:
    if data is None:
        return pixels.missing()
    try:
        return pixels.decode(data)
    except pixels.ImageError:
        return pixels.missing()
