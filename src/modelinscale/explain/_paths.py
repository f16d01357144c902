"""Networks as functions of pieces that can be moved a little: numbers and pixels as they are, everything else behind its encoder.

B rows, C scores.
"""

from dataclasses import dataclass

import numpy as np

from modelinscale.core.encoded import Encoded
from modelinscale.models import Weights
from modelinscale.models._deep.learn import built
from modelinscale.models._deep.net import Port
from modelinscale.models._deep.tables import Ids, Words
from modelinscale.models._torch import torch

Pieces = dict[str, torch.Tensor]
"""What the network is a smooth function of, by name; each (B, ...)."""


@dataclass(frozen=True)
class Share:
    """Which part of a piece belongs to a feature: columns of its second axis, or (None) all of it."""

    piece: str
    columns: slice | None


class Path:
    """A network in evaluation."""

    def __init__(self, weights: Weights) -> None:
        self.net = built(weights).eval()
        self.ports = dict(zip(self.net.names, self.net.ports, strict=True))

    def pieces(self, rows: Encoded) -> Pieces:
        """Of encoded rows: an encoder's own input where that is smooth, else what it gives; of several blocks of words what each adds to that."""
        batch, found = self.net.batch(rows), Pieces()
        with torch.no_grad():
            for name, port in self.ports.items():
                part = self.net.parts[name]
                if port.kind in ("dense", "image"):
                    found[name] = batch[name].float()
                elif isinstance(part, Words):
                    found |= dict(zip(_by_feature(name, port), part.apart(batch[name]), strict=True))
                else:
                    found[name] = part(batch[name])
        return found

    def scores(self, pieces: Pieces) -> torch.Tensor:
        """(B, C): the mean over members, before the target's scale."""
        given = []
        for name, port in self.ports.items():
            if port.kind in ("dense", "image"):
                given.append(self.net.parts[name](pieces[name]))
            elif port.kind == "sparse":
                given.append(torch.stack([pieces[one] for one in _by_feature(name, port)]).sum(0))
            else:
                given.append(pieces[name])
        return self.net.trunk(given).mean(0)

    def shares(self) -> dict[str, Share]:
        """By feature."""
        found = {}
        for name, port in self.ports.items():
            part = self.net.parts[name]
            widths = port.widths if port.kind == "dense" else [part.each] * len(port.features) if isinstance(part, Ids) else None
            ends = np.cumsum([0, *widths]).tolist() if widths else []
            for i, feature in enumerate(port.features):
                if port.kind == "sparse":
                    found[feature] = Share(_by_feature(name, port)[i], None)
                else:
                    found[feature] = Share(name, slice(ends[i], ends[i + 1]) if ends else None)
        return found


def _by_feature(name: str, port: Port) -> list[str]:
    return [f"{name}.{feature}" for feature in port.features]
