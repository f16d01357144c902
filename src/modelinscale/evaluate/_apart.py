"""Whether test rows are like validation rows: the main metric on both, and a word where it is worse on test by more than chance explains."""

from statistics import NormalDist

import numpy as np

from modelinscale.evaluate._bootstrap import MIN_ROWS, Resamples, Sampled
from modelinscale.metrics import Answers, Metric

_SURE = 0.995
"""How sure it has to be: validation rows chose the model, so that a little is always to be expected."""


def worse_than_valid(main: Metric, test: Sampled, valid: Answers | None, *, n_resamples: int, seed: int) -> tuple[str, ...]:
    """A note when the metric is worse on test rows; both are samples of their own, so the variances of their errors add up."""
    if valid is None or len(valid) < MIN_ROWS:
        return ()
    held = Resamples(len(valid), n_resamples=n_resamples, seed=seed).values(main, valid)
    behind = (held.value - test.value) * (1 if main.better == "higher" else -1)
    error = float(np.hypot(held.error, test.error))
    # An error of exactly 0 (all rows alike) says that resamples cannot tell, not that all is certain.
    if not np.isfinite(behind) or not np.isfinite(error) or not behind > NormalDist().inv_cdf(_SURE) * error > 0:
        return ()
    half = NormalDist().inv_cdf((1 + _SURE) / 2) * error
    return (
        f"{main.type} is {held.value:.4g} on the validation rows and {test.value:.4g} on the test rows, {behind:.3g} worse (from {behind - half:.2g} to"
        f" {behind + half:.2g} with {_SURE:.1%}): the test rows come from somewhere else than those that were learned from (another source or time), or the"
        " validation rows have chosen too much. New rows like the test rows will be answered as badly. Rows that belong together (of one group, windows that"
        " overlap) make this look surer than it is.",
    )
