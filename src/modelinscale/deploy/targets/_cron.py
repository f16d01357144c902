"""Times of day, as cron writes them, checked and turned into what systemd writes."""

import re
from typing import NamedTuple

from modelinscale.core.errors import SpecError

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
_PART = re.compile(r"(?:\*|(?P<low>\d+)(?:-(?P<high>\d+))?)(?:/(?P<step>\d+))?")
_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class Times(NamedTuple):
    """The five fields of a cron line, as written."""

    minute: str
    hour: str
    day: str
    month: str
    weekday: str

    @property
    def cron(self) -> str:
        return " ".join(self)

    @property
    def calendar(self) -> str:
        """As systemd's ``OnCalendar`` has it. Raises `SpecError` for days given in both ways, of which cron takes either and systemd both."""
        if self.day != "*" and self.weekday != "*":
            raise SpecError(
                f"{self.cron!r} names days of the month and of the week; systemd cannot say `either`.", fix="Name one of the two, or use --as cron."
            )
        day = f"{_weekdays(self.weekday)} " if self.weekday != "*" else ""
        return f"{day}*-{_systemd(self.month, 1)}-{_systemd(self.day, 1)} {_systemd(self.hour, 0)}:{_systemd(self.minute, 0)}:00"


def times(text: str) -> Times:
    """The times that a cron expression names. Raises `SpecError` with the field that is wrong.

    >>> times("*/15 3 * * 1-5").calendar
    'Mon..Fri *-*-* 03:00/15:00'
    """
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise SpecError(f"{text!r} has {len(parts)} fields.", fix="Write five: minute, hour, day of the month, month, day of the week: `0 3 * * *` is at 3:00.")
    for part, (name, low, high) in zip(parts, _FIELDS, strict=True):
        for one in part.split(","):
            found = _PART.fullmatch(one)
            if found is None:
                raise SpecError(f"{one!r} is no {name}.", fix="Write a number, `*`, `1-5`, `*/15`, or several with commas.")
            numbers = [int(found[k]) for k in ("low", "high") if found[k]]
            backwards = len(numbers) == 2 and numbers[0] > numbers[1]
            if backwards or any(not low <= n <= high for n in numbers) or (found["step"] is not None and not 1 <= int(found["step"]) <= high):
                raise SpecError(f"{one!r} is no {name}: {low} to {high}.", fix="See `man 5 crontab`.")
    return Times(*parts)


def every(seconds: float) -> Times:
    """The times of a steady interval. Raises `SpecError` for one that the hours of a day, or their minutes, cannot be cut into.

    >>> every(6 * 3600).cron
    '0 */6 * * *'
    """
    minutes, rest = divmod(round(seconds), 60)
    if not rest and minutes >= 1:
        if minutes == 1:
            return Times("*", "*", "*", "*", "*")
        if minutes < 60 and 60 % minutes == 0:
            return Times(f"*/{minutes}", "*", "*", "*", "*")
        hours, rest = divmod(minutes, 60)
        if not rest and hours in (1, 2, 3, 4, 6, 8, 12):
            return Times("0", "*" if hours == 1 else f"*/{hours}", "*", "*", "*")
        if not rest and hours == 24:
            return Times("0", "0", "*", "*", "*")
        if not rest and hours == 168:
            return Times("0", "0", "*", "*", "0")
    raise SpecError(
        "cron cannot say this interval evenly.", fix="Use a part of an hour or a day (15m, 1h, 6h), 1d or 1w; times by --cron; or --as systemd, which can."
    )


def _systemd(part: str, first: int) -> str:
    """One field: ``1-5`` is ``1..5``, ``*/15`` is ``0/15``."""
    found = []
    for one in part.split(","):
        word, _, step = one.partition("/")
        if word == "*":
            found.append(f"{first:02d}/{step}" if step else "*")
            continue
        low, _, high = word.partition("-")
        found.append(f"{int(low):02d}" + (f"..{int(high):02d}" if high else "") + (f"/{step}" if step else ""))
    return ",".join(found)


def _weekdays(part: str) -> str:
    if "/" in part:
        raise SpecError(f"{part!r}: systemd has no steps of weekdays.", fix="Name the days: `1,3,5`.")
    return ",".join("..".join(_DAYS[int(n)] for n in one.split("-")) for one in part.split(","))
