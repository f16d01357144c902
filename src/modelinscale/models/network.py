"""A network of any columns (PyTorch): images through convolutions, numbers through learned bins, categories and words through embeddings, together.

C scores. See `_deep` for its parts and their sources.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, cast

from pydantic import BeforeValidator, Field

from modelinscale.core.elsewhere import short
from modelinscale.core.encoded import Form, Layout, Role
from modelinscale.core.settings import Also
from modelinscale.core.space import Range, Span
from modelinscale.core.task import Task
from modelinscale.models._deep import plan
from modelinscale.models._deep.family import Deep
from modelinscale.models._deep.plan import Fall, Precision, Recipe, Shape
from modelinscale.models._pretrained import Language, Pretrained

_IMAGE_WEIGHTS, _STEP_WEIGHTS = 1_700, 24
"""Weights of an encoder of images (either kind) and of sequences, about, for each product of two maps or units."""


class Network(Deep):
    """A deep network with an encoder for each kind of column; for tables without images or sequences `mlp` is quicker to learn."""

    form: ClassVar[Form] = "deep"
    together: ClassVar[bool] = False
    searched: ClassVar[Mapping[str, Span | None]] = {
        "maps": Range(16, 64, log=True, start=32),
        "image": None,
        "width": Range(32, 512, log=True, start=128),
        "layers": None,
        "members": None,
        "bins": Range(0, 48, start=16),
        "waves": Range(0, 48, start=16),
        "frequency": Range(0.02, 2.0, log=True, start=0.3),
        "swap": Range(0.0, 0.2, start=0.0),
        "dropout": Range(0.0, 0.5, start=0.1),
        "shift": Range(0.0, 0.3, start=0.1),
        "flip": None,  # what an image means is not for a search to say
        "mirror": None,
        "cut_out": Range(0.0, 0.4, start=0.0),
        "mix_up": None,
        "smoothing": Range(0.0, 0.2, start=0.0),
        "warm_share": None,
        "fall": None,
        "accumulate": None,
        "precision": None,
        "epochs": None,
        "patience": None,
    }

    maps: int = Field(32, ge=4, le=512)
    """Maps of an image encoder's first layer; later ones have up to eight times as many. The work grows with its square."""
    image: Literal["auto", "resnet", "convnext"] = "auto"
    """Encoder of images: a small residual network; a network in the manner of ConvNeXt, with less work a pixel; auto: convnext from 128 pixels a side on."""
    pretrained: Pretrained | None = None
    """Instead of `image`: an architecture of timm, with weights from a file or the hub."""
    sequence: Literal["rnn", "lstm", "tcn", "transformer"] = "rnn"
    """Encoder of sequences: gated recurrent units both ways (rnn), cells with a memory of their own (lstm), convolutions that look ever further, attention."""
    text: Literal["bag", "rnn", "lstm", "tcn", "transformer"] = "rnn"
    """Encoder of texts that come as words in their order (`in_order` of the feature); bag: an embedding a word, whatever the order."""
    language: Annotated[Language | None, BeforeValidator(short), Also({"type": "string"})] = None
    """Instead of `text`: an encoder learned elsewhere, a folder as transformers saves it (``./bert``) or ``{hub: NAME, share: 0}``, for texts that are cut by
    its tokenizer (`tokenizer` of the feature)."""
    units: int = Field(64, ge=8, le=1024)
    """Width of the encoders of sequences and texts."""
    noise: float = Field(0.0, ge=0, le=2)
    """Noise added to the steps of training rows, in deviations of their channel; with few rows 0.3 may help to tell classes apart."""
    width: int = Field(128, ge=4, le=4096)
    """Units of a hidden layer behind the encoders."""
    layers: int | None = Field(None, ge=0, le=16)
    """Hidden layers behind the encoders; null: none behind an image alone, else 2."""
    members: int | None = Field(None, ge=1, le=64)
    """Networks of the ensemble behind the encoders; they share nearly all weights; null: 1 with images, else 4."""
    bins: int = Field(16, ge=0, le=128)
    """Bins a number is seen through; 0: none. Beyond 300 columns of numbers there are none."""
    borders: Literal["quantiles", "tree"] = "quantiles"
    """Where bins end: each with as many training rows (quantiles), or where a tree of the column alone would part the answers."""
    waves: int = Field(16, ge=0, le=128)
    """Waves a number is seen through besides, cosines whose frequencies are learned; 0: none. Beyond 300 columns of numbers there are none."""
    frequency: float = Field(0.3, gt=0, le=100)
    """Deviation of the frequencies at first, in waves for each standard deviation of a number; larger ones see finer steps, and learn more by heart."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of hidden units left out at each training step."""
    swap: float = Field(0.0, ge=0, lt=1)
    """Share of a training row's columns that are taken from other rows of the step, so that no answer hangs on one column; texts stay."""
    shift: float = Field(0.1, ge=0, le=0.5)
    """How far training images are moved at most, as a share of their side."""
    flip: bool = False
    """Whether an image with left and right changed means the same (photographs; not letters, not organs)."""
    mirror: bool = True
    """With `flip`: whether answers are the mean over an image and its mirror image. Better by a little, at twice the work of an answer."""
    cut_out: float = Field(0.0, ge=0, le=1)
    """Side of a square that is covered in each training image, as a share of the image's; with many epochs 0.3 to 0.5 may help."""
    mix_up: float = Field(0.0, ge=0, le=4)
    """How much training images are laid over each other, their answers mixed alike (alpha of a beta distribution; 0.2 is usual with many epochs). Only
    where images are all there is to learn from."""
    smoothing: float = Field(0.0, ge=0, lt=1)
    """Probability that is taken from the true class and spread over all, so that the network is less sure."""
    learning_rate: float = Field(3e-3, gt=0)
    """Largest step size of AdamW; it rises to it, then falls to 0 at the end of the last epoch or of the budget."""
    warm_share: float = Field(0.1, ge=0, lt=1)
    """Of all steps, those over which the step size rises."""
    fall: Fall = "linear"
    """How the step size falls: in a line, as half a wave (cosine), or not."""
    weight_decay: float = Field(0.02, ge=0)
    """How fast unused weights shrink, per step and unit of step size."""
    batch_rows: int | None = Field(None, ge=1)
    """Rows a step; null: from the number of rows, 16 to 512."""
    accumulate: int = Field(1, ge=1)
    """Pieces that the rows of a step go through the network in, their gradients added up: the same step in less memory."""
    precision: Precision = "auto"
    """fp32, bf16 (16 bits in products), or auto: bf16 for images, texts and sequences where the machine has instructions for it. Before bf16 is used twenty
    steps are taken both ways; where the losses differ it stays with fp32 and says so."""
    epochs: int = Field(15, ge=1)
    """Passes over the rows; fewer where the budget does not do."""
    patience: int = Field(8, ge=1)
    """Looks at the validation rows (one an epoch) without a better loss after which it stops."""

    def accepts(self, task: Task, layouts: dict[str, Layout]) -> str:
        roles = {layout.role for layout in layouts.values() if layout.width}
        if self.mix_up and roles - {"image"}:
            return "`mix_up` mixes images alone, and there are other features"
        if self.pretrained is not None and "image" not in roles:
            return "`pretrained` is an encoder of images, and there are none: write `features: {photo: image}`, with the name of the column"
        if self.language is not None and not any(layout.role == "tokens" and layout.names for layout in layouts.values()):
            place = json.dumps(self.language.place if self.language.hub else self.language.path)
            column = next((name for name, layout in layouts.items() if layout.role in ("tokens", "sparse")), "message")
            wanted = f"write `features: {{{column}: {{type: text, tokenizer: {place}}}}}`"
            return f"`language` is an encoder of texts that are cut by its own tokenizer, and none is: {wanted}"
        return "" if roles else "there is no feature to learn from"

    def recipe(self, n_rows: int) -> Recipe:
        return Recipe(
            epochs=self.epochs,
            batch_rows=self.batch_rows or plan.batch_rows(n_rows, 16, 512),
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warm_share=self.warm_share,
            patience=self.patience,
            fall=self.fall,
            smoothing=self.smoothing,
            shift=self.shift,
            flip=self.flip,
            cut_out=self.cut_out,
            mix_up=self.mix_up,
            swap=self.swap,
            accumulate=self.accumulate,
            precision=self.precision,
        )

    def shape(self, kinds: Sequence[Role], n_scores: int) -> Shape:
        layers = self.layers if self.layers is not None else 0 if list(kinds) == ["image"] else 2
        members = self.members if self.members is not None else 1 if "image" in kinds else 4
        return Shape(self.width, layers, members, self.dropout, n_scores)

    def step_bytes(self, n_columns: int, sides: Sequence[int] = (), lengths: Sequence[int] = ()) -> int:
        """Of a piece of two rows: a step that does not fit goes through in pieces (`_deep.size`). Of what is pretrained nothing is known before it is read."""
        kinds: list[Role] = []
        for kind, n in (("dense", int(n_columns > 0)), ("image", len(sides)), ("steps", len(lengths))):
            kinds += [cast(Role, kind)] * n
        shape, units = self.shape(kinds or ["dense"], 1), self.units
        n_inputs = n_columns * (17 if self.waves else 9) + len(sides) * 8 * self.maps + len(lengths) * 2 * units
        n_weights = n_inputs * shape.width + shape.width**2 * max(0, shape.layers - 1)
        n_weights += len(sides) * _IMAGE_WEIGHTS * self.maps**2 + len(lengths) * _STEP_WEIGHTS * units**2
        row = 3 * shape.members * (n_inputs + 3 * shape.width * shape.layers) + 6 * n_columns * (self.bins + self.waves)
        row += sum((12 if side < 80 else 4) * side**2 * self.maps for side in sides) + sum(20 * length * units for length in lengths)
        return 4 * (2 * row + 8 * n_weights)
