"""How many words of a text or steps of a sequence a network is shown, where nobody says: from the lengths in the training rows."""

from math import ceil

from modelinscale.core.bins import Bins

MOST = 512
"""More than this many only where they are asked for: each costs work and room in every row."""
_NEAR = 1.5


def usual(lengths: Bins) -> int:
    """All of the longest row, or of all but one in a hundred where the longest is far from that; 1 to 512."""
    longest, nearly = (lengths.quantile(share) for share in (1.0, 0.99))
    return int(min(MOST, max(1, ceil(longest if longest <= _NEAR * nearly else nearly))))
