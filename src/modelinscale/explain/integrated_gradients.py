"""Gradients added up on the way from a mean row to the row: what each feature of a network adds to the score.

Numbers and pixels are moved as they are; words, categories, texts and sequences behind their encoder, from the mean of the background rows.
Source: Sundararajan, Taly, Yan, Axiomatic Attribution for Deep Networks, 2017. N rows, S steps.
"""

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.explain import Explained, Explainer, Rows, Subject

if TYPE_CHECKING:
    import torch

    from modelinscale.explain._paths import Path, Pieces

_BATCH_ROWS = 64
_MISSES = 0.01
"""How far contributions may miss the score of their row, of the greatest size of a score (1 at least), before smaller steps are taken."""
_FINER = 4
"""Times as many steps then."""


class IntegratedGradients(Explainer):
    """Networks (`mlp`, `network`): what each column adds to a row's score against the mean of training rows; adds up to it, nearly."""

    additive: ClassVar[bool] = True

    steps: int = Field(64, ge=2, le=10_000)
    """Steps of the way: more make the sum of contributions more exact."""
    most_steps: int = Field(1024, ge=2, le=100_000)
    """Rows whose contributions miss their score by more than a hundredth go again by smaller steps, up to so many: a cell far out (a capital gain of 99,999
    where most have none) crosses the narrow bins near the middle within one step of 64."""

    def refuses(self, subject: Subject) -> str:
        return "" if subject.model.type in ("mlp", "network") else f"the model is {subject.model.type}, not a network"

    def explain(self, subject: Subject, rows: Rows, output: NDArray[np.int64], *, seed: int, overall: bool) -> Explained:
        from modelinscale.explain._paths import Path
        from modelinscale.models._torch import torch

        path = Path(subject.weights)
        scale, center = float(subject.weights.meta["scale"]), float(subject.weights.meta["center"])
        mean = {name: piece.mean(0, keepdim=True) for name, piece in path.pieces(subject.background.encoded).items()}
        shares, names = path.shares(), list(subject.features)
        effects, base = np.zeros((len(rows), len(names))), np.zeros(len(rows))
        maps: dict[str, list[NDArray[np.float64]]] = {}
        for start in range(0, len(rows), _BATCH_ROWS):
            stop = min(start + _BATCH_ROWS, len(rows))
            pieces = path.pieces(rows.encoded.slice(start, stop))
            which = torch.from_numpy(output[start:stop])[:, None]
            total, first = self._total(path, pieces, mean, which)
            parts = {name: one.numpy() * scale for name, one in total.items()}
            for feature, one in shares.items():
                own = parts[one.piece] if one.columns is None else parts[one.piece][:, one.columns]
                effects[start:stop, names.index(feature)] = own.reshape(stop - start, -1).sum(1)
            base[start:stop] = first.numpy() * scale + center
            for feature, one in shares.items():
                if subject.background.encoded.layouts[feature].role == "image":
                    maps.setdefault(feature, []).append(np.maximum(parts[one.piece].sum(-1), 0))
        return Explained(effects=effects, base=base, maps={} if len(names) > 1 or overall else {name: np.concatenate(m) for name, m in maps.items()})

    def _total(self, path: "Path", pieces: "Pieces", mean: "Pieces", which: "torch.Tensor") -> "tuple[Pieces, torch.Tensor]":
        """What each piece adds, as float64, and the score (B,) of the mean, both before the target's scale; by smaller steps where they miss the score."""
        from modelinscale.models._torch import torch

        n_rows, steps = len(which), self.steps
        with torch.no_grad():
            first = path.scores({name: one.expand(n_rows, *one.shape[1:]) for name, one in mean.items()}).gather(1, which)[:, 0].double()
            last = path.scores(pieces).gather(1, which)[:, 0].double()
        total = _along(path, pieces, mean, which, steps)
        near = _MISSES * max(1.0, float(last.abs().max()))
        while True:
            added = torch.stack([one.reshape(n_rows, -1).sum(1) for one in total.values()]).sum(0)
            far = (first + added - last).abs() > near
            steps *= _FINER
            if steps > self.most_steps or not bool(far.any()):
                return total, first
            again = _along(path, {name: piece[far] for name, piece in pieces.items()}, mean, which[far], steps)
            for name, one in again.items():
                total[name][far] = one


def _along(path: "Path", pieces: "Pieces", mean: "Pieces", which: "torch.Tensor", steps: int) -> "Pieces":
    """Gradients added up at the middles of so many steps, times how far each piece goes."""
    from modelinscale.models._torch import torch

    total = {name: torch.zeros_like(piece, dtype=torch.float64) for name, piece in pieces.items()}
    for step in range(steps):
        share = (step + 0.5) / steps
        between = {name: (mean[name] + share * (piece - mean[name])).detach().requires_grad_() for name, piece in pieces.items()}
        score = path.scores(between).gather(1, which).sum()
        for name, gradient in zip(between, torch.autograd.grad(score, list(between.values()), allow_unused=True), strict=True):
            if gradient is not None:
                total[name] += gradient.double() / steps
    return {name: total[name] * (piece - mean[name]) for name, piece in pieces.items()}
