"""Waiting for what happens in another thread, process or server, in tests: however busy the machine is, and no longer than it takes."""

import time
from collections.abc import Callable

LONG_S = 120.0
"""Ends a hang; it measures nothing, so it is far above what anything takes on the slowest machine."""


def until(true: Callable[[], object], what: str = "it", within_s: float = LONG_S) -> None:
    """Returns once ``true()`` holds. Raises `AssertionError` when it does not within the limit."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, f"{what} did not happen within {within_s:g} s"
        time.sleep(0.02)
