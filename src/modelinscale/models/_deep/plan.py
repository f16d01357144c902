"""How large a network is and how it is to learn, every number settled. Without torch, so that settings can say it."""

import math
from dataclasses import dataclass
from typing import Literal

Precision = Literal["auto", "fp32", "bf16"]
"""fp32: 32 bits throughout · bf16: products of 16 bits, sums and weights of 32 · auto: bf16 where the machine has instructions for it and layers that gain."""
Fall = Literal["linear", "cosine", "none"]
"""How the step size goes from its largest to 0: in a line, as half a wave, or not at all."""

LARGE_SIDE = 128
"""Images from this side on are large: `image: auto` is then convnext."""


def batch_rows(n_rows: int, least: int, most: int) -> int:
    """Rows of a step where nothing is said: a power of two, about sixty steps an epoch.

    >>> batch_rows(10_000, 16, 512)
    128
    """
    return int(min(most, max(least, 2 ** round(math.log2(max(n_rows, 1) / 60)))))


@dataclass(frozen=True)
class Shape:
    """The trunk and the head."""

    width: int
    layers: int
    members: int
    dropout: float
    n_scores: int


@dataclass(frozen=True)
class Recipe:
    """How to learn."""

    epochs: int
    batch_rows: int
    """Rows of a step."""
    learning_rate: float
    weight_decay: float
    warm_share: float
    """Of all steps, those over which the step size rises."""
    patience: int
    warm_steps: int | None = None
    """Steps over which it rises, instead of a share of them."""
    fall: Fall = "linear"
    smoothing: float = 0.0
    """Probability that is taken from the true class and spread over all."""
    shift: float = 0.0
    flip: bool = False
    cut_out: float = 0.0
    mix_up: float = 0.0
    swap: float = 0.0
    accumulate: int = 1
    """Pieces that the rows of a step go through the network in; their gradients are added up."""
    precision: Precision = "fp32"

    @property
    def varies(self) -> bool:
        """Whether training rows are changed before they are learned from."""
        return bool(self.shift or self.flip or self.cut_out or self.mix_up or self.swap)

    def rate(self, step: int, n_steps: int) -> float:
        """The step size of one step of so many.

        >>> Recipe(1, 1, 1.0, 0.0, 0.5, 1).rate(9, 10)
        0.2
        """
        warm = max(1.0, self.warm_share * n_steps if self.warm_steps is None else self.warm_steps)
        rising = min(1.0, (step + 1) / warm)
        left = 1.0 if self.fall == "none" else min(1.0, (n_steps - step) / max(1.0, n_steps - warm))
        return self.learning_rate * rising * (left if self.fall != "cosine" else (1 - math.cos(math.pi * left)) / 2)
