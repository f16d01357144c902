"""Gradients added up on the way from a mean row to the row: what each feature of a network adds to the score.

Numbers and pixels are moved as they are; words, categories, texts and sequences behind their encoder, from the mean of the background rows.
Source: Sundararajan, Taly, Yan, Axiomatic Attribution for Deep Networks, 2017. N rows, S steps.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.explain import Explained, Explainer, Rows, Subject

_BATCH_ROWS = 64


class IntegratedGradients(Explainer):
    """Networks (`mlp`, `network`): what each column adds to a row's score against the mean of training rows; adds up to it, nearly."""

    additive: ClassVar[bool] = True

    steps: int = Field(64, ge=2, le=10_000)
    """Steps of the way: more make the sum of contributions more exact."""

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
            total = {name: torch.zeros_like(piece, dtype=torch.float64) for name, piece in pieces.items()}
            for step in range(self.steps):
                share = (step + 0.5) / self.steps
                between = {name: (mean[name] + share * (piece - mean[name])).detach().requires_grad_() for name, piece in pieces.items()}
                score = path.scores(between).gather(1, which).sum()
                for name, gradient in zip(between, torch.autograd.grad(score, list(between.values()), allow_unused=True), strict=True):
                    if gradient is not None:
                        total[name] += gradient.double() / self.steps
            parts = {name: (total[name] * (piece - mean[name])).numpy() * scale for name, piece in pieces.items()}
            for feature, one in shares.items():
                own = parts[one.piece] if one.columns is None else parts[one.piece][:, one.columns]
                effects[start:stop, names.index(feature)] = own.reshape(stop - start, -1).sum(1)
            with torch.no_grad():
                first = path.scores({name: one.expand(stop - start, *one.shape[1:]) for name, one in mean.items()}).gather(1, which)[:, 0]
            base[start:stop] = first.double().numpy() * scale + center
            for feature, one in shares.items():
                if subject.background.encoded.layouts[feature].role == "image":
                    maps.setdefault(feature, []).append(np.maximum(parts[one.piece].sum(-1), 0))
        return Explained(effects=effects, base=base, maps={} if len(names) > 1 or overall else {name: np.concatenate(m) for name, m in maps.items()})
