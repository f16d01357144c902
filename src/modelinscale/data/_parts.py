"""The parts a row may belong to."""

import numpy as np
from numpy.typing import NDArray

Parts = NDArray[np.int8]
"""The part of each row: `TRAIN`, `VALID`, `TEST`, or `UNUSED`."""

TRAIN, VALID, TEST, UNUSED = 0, 1, 2, -1
NAMES = ("train", "valid", "test")
"""The parts by number."""
TO_SAY = 9
"""Of a row whose part is still to be said; never in what `assign` gives."""
