"""From rows of the table to examples and scores, partition by partition."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, joined
from modelinscale.core.task import Task
from modelinscale.models import Examples, Model, Scores, Weights
from modelinscale.train._target import encode_targets, row_weights

if TYPE_CHECKING:
    from modelinscale.data.partitions import Chosen
    from modelinscale.encode import Encoder


@dataclass(frozen=True)
class Maker:
    """Makes examples of the chosen rows of a partition: small, and can be sent to where that is done."""

    encoder: "Encoder"
    task: Task
    weight: str | None
    """The column of row weights."""

    def examples(self, piece: "Chosen") -> Examples:
        """Features, target and weight, read together."""
        features = list(self.encoder.features)
        more = [*self.task.columns, *([self.weight] if self.weight else [])]
        frame, coded = piece.read_coded(list(dict.fromkeys([*features, *more])), [name for name in self.encoder.tallied if name not in more])
        weight = row_weights(frame[self.weight], whole=False) if self.weight else None
        return Examples(self.encoder.encode(frame, coded), encode_targets(frame, self.task), weight)

    def answers(self, piece: "Chosen") -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        """Target and weight alone."""
        frame = piece.read(list(dict.fromkeys([*self.task.columns, *([self.weight] if self.weight else [])])))
        weight = row_weights(frame[self.weight], whole=False) if self.weight else None
        return encode_targets(frame, self.task), weight


def together(parts: list[Examples]) -> Examples:
    """One after the other; at least one part."""
    if len(parts) == 1:
        return parts[0]
    weights = [part.weight for part in parts if part.weight is not None]
    return Examples(joined([p.rows for p in parts]), np.concatenate([p.target for p in parts]), np.concatenate(weights) if weights else None)


def predict(model: Model, weights: Weights, blocks: Iterable[Encoded]) -> Scores:
    """Scores of rows that come in blocks: (N,) or (N, C). Blocks of `SCORED_ROWS` or a multiple: the last bits never depend on how rows were read."""
    found = [model.predict(weights, rows) for rows in blocks]
    return found[0] if len(found) == 1 else np.concatenate(found)
