"""Which columns of sequences are channels of one sequence."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def in_step(blocks: Mapping[str, NDArray[Any]]) -> list[tuple[str, ...]]:
    """Features whose sequences end at the same step in every row: channels of one sequence, though they came as columns of their own."""
    groups: dict[tuple[int, bytes], list[str]] = {}
    for name, block in blocks.items():
        ends = np.isfinite(block).any(2).sum(1)
        groups.setdefault((block.shape[1], ends.tobytes()), []).append(name)
    return [tuple(names) for names in groups.values()]
