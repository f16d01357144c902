"""Time as an argument: code that needs the hour takes a `Clock`, tests pass a fixed one."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the present moment, with time zone UTC."""


def now() -> datetime:
    """The system's present moment in UTC."""
    return datetime.now(UTC)


def fixed(moment: datetime) -> Clock:
    """A clock that always shows ``moment``."""
    return lambda: moment


class Stopwatch:
    """Seconds since it was made, from the monotonic clock."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._start
