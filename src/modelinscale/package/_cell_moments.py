"""Moments as people write them, in microseconds since 1970: ISO 8601 with its freedoms, patterns, counts since 1970."""

import re
from datetime import date, datetime, timedelta
from functools import cache

from modelinscale.package._cell_words import EPOCHS, Cell, Habits, Unreadable, decimal_in

FIRST_MOMENT, LAST_MOMENT = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Years 1 to 9999 in microseconds since 1970."""
EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = 86_400_000_000
_ISO = re.compile(
    r"^(\d{4})(?:-(\d{1,2})-(\d{1,2})|(\d{2})(\d{2}))"
    r"(?:(?:\s*[Tt]\s*|\s+)(\d{1,2})(?::?(\d{2})(?::?(\d{2})(?:[.,](\d{1,9})\d*)?)?)?)?\s*([Zz]|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?$",
    re.ASCII,
)
DASHED = r"^\d{4}-\d{2}-\d{2}(?:[Tt ]\d|$)"
"""How ISO 8601 starts where it cannot be taken for anything else. JSON clients write moments so, whatever a file looked like."""
_DASHED = re.compile(DASHED, re.ASCII)
_PROBES = [f"{day}{clock}" for day in ("2012-11-10", "2012-03-04", "2001-02-03", "1910-09-08") for clock in ("", "T05:06:07", " 05:06:07", " 05:06", " 05")]


def time_in(cell: Cell, habits: Habits) -> int | None:
    if isinstance(cell, datetime):
        return _microseconds(cell)
    if isinstance(cell, date):
        return _microseconds(datetime(cell.year, cell.month, cell.day))
    form = habits.column.format
    if type(cell) is str and form not in (None, "iso") and _DASHED.match(cell) and takes_iso(form):
        try:
            return _patterned(cell, form) if habits.unit_us is None else _iso(cell)
        except (ValueError, Unreadable):
            return _iso(cell)
    if habits.unit_us is not None:
        number = decimal_in(cell) if type(cell) is str else cell
        if type(number) not in (int, float):
            raise Unreadable
        if number != number:
            return None
        return _in_range(round(float(number) * habits.unit_us))
    if type(cell) is not str:
        raise Unreadable
    return _iso(cell) if form in (None, "iso") else _patterned(cell, form)


@cache
def takes_iso(form: str) -> bool:
    """Whether cells written so may also come as ISO 8601: the pattern reads no such date as another day (``%Y-%d-%m`` would).

    >>> takes_iso("%d/%m/%Y"), takes_iso("epoch_s"), takes_iso("%Y-%d-%m")
    (True, True, False)
    """
    if form in EPOCHS:
        return True
    for probe in _PROBES:
        try:
            if _patterned(probe, form) // _DAY_US != _iso(probe) // _DAY_US:
                return False
        except (ValueError, Unreadable):
            continue
    return True


def _iso(text: str) -> int:
    """ISO 8601 as people write it: a space for T, one-digit months, a comma before the fraction, any zone, or none."""
    found = _ISO.match(text)
    if found is None:
        raise Unreadable
    year, month, day, month2, day2, hour, minute, second, fraction, zone = found.groups()
    part = ((fraction or "")[:6]).ljust(6, "0")
    moment = datetime(int(year), int(month or month2), int(day or day2), int(hour or 0), int(minute or 0), int(second or 0), int(part))
    shift = 0
    if zone and zone[0] in "+-":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        shift = (int(digits[:2]) * 60 + int(digits[2:])) * (-1 if zone[0] == "-" else 1)
    return _in_range(_microseconds(moment) - shift * 60_000_000)


def _patterned(text: str, pattern: str) -> int:
    """A moment by a strptime pattern, as the reader at collection takes it: fractions may be left out or long, months may be cut short."""
    text = re.sub(r"(\.\d{6})\d+", r"\1", text) if ".%f" in pattern else text
    last: ValueError | None = None
    for form in dict.fromkeys((pattern, pattern.replace(".%f", ""), pattern.replace("%B", "%b"), pattern.replace(".%f", "").replace("%B", "%b"))):
        try:
            moment = datetime.strptime(text, form)
        except ValueError as error:
            last = error
            continue
        if "%y" in pattern and moment.year == 1969:  # Python's pivot lies between 68 and 69, the collecting reader's between 69 and 70
            moment = moment.replace(year=2069)
        if "%Y" in pattern and moment.year < 1000:
            raise Unreadable
        return _in_range(_microseconds(moment))
    assert last is not None
    raise last


def _microseconds(moment: datetime) -> int:
    offset = moment.utcoffset()
    found = (moment.replace(tzinfo=None) - EPOCH) // _MICROSECOND
    return found if offset is None else found - offset // _MICROSECOND


def _in_range(moment: int) -> int:
    if not FIRST_MOMENT <= moment <= LAST_MOMENT:
        raise Unreadable("a moment in the years 1 to 9999")
    return moment
