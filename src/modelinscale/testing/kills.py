"""Trainings that end in the middle, and whether what went on from there is the same: for tests of families that learn in steps."""

import numpy as np

from modelinscale.models import Effort, Weights


class Killed(BaseException):
    """Stands for the kill: nothing catches it."""


def kill_at(share: float) -> Effort:
    """An effort whose `progress` raises `Killed` once so much is done."""

    def progress(done: float, note: str) -> None:
        if done >= share:
            raise Killed

    return Effort(progress=progress)


def same(a: Weights, b: Weights) -> bool:
    """Whether they are equal to the last bit."""
    return a.meta == b.meta and all(np.array_equal(a.arrays[name], b.arrays[name]) for name in a.arrays)
