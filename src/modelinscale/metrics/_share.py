"""Division that answers NaN, quietly, where there is nothing to divide by."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def share(above: NDArray[Any], below: NDArray[Any], *, otherwise: float = float("nan")) -> NDArray[np.float64]:
    """``above / below``, element by element; ``otherwise`` where ``below`` is 0."""
    full = np.broadcast_to(np.asarray(otherwise, np.float64), np.broadcast_shapes(above.shape, below.shape)).copy()
    return np.asarray(np.divide(above, below, out=full, where=below != 0))


def mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, C) to (R,): the mean over the classes for which a value is defined; NaN where it is for none."""
    defined = ~np.isnan(values)
    return share(np.where(defined, values, 0.0).sum(1), defined.sum(1).astype(np.float64))
