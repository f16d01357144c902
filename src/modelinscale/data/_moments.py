"""Moments as people write them: which pattern a column of text uses, and whether the day or the month comes first."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelinscale.core.schema import Column
from modelinscale.data._cells import read_moments
from modelinscale.data._words import Words

if TYPE_CHECKING:
    import pyarrow as pa

N_TRIED = 64
"""Words on which every pattern is tried; those that fit best are then tried on all."""

_NUMERIC = ("%d{s}%m{s}%Y", "%m{s}%d{s}%Y", "%Y{s}%m{s}%d", "%d{s}%m{s}%y", "%m{s}%d{s}%y", "%y{s}%m{s}%d")
_NAMED = (
    "%d {b} %Y", "%d-{b}-%Y", "%d/{b}/%Y", "%d. {b} %Y", "{b} %d %Y", "{b} %d, %Y", "{b}-%d-%Y", "%Y-{b}-%d", "%d {b} %y", "%d-{b}-%y", "{b} %d, %y",
    "{a}, %d {b} %Y", "{a} %d {b} %Y", "{a}, {b} %d, %Y", "{b} %d. %Y",
)  # fmt: skip
_WHOLE = ("%a %b %d %H:%M:%S %Y", "%d/%b/%Y:%H:%M:%S %z")
_MONTHS = r"(?i)(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"


@dataclass(frozen=True)
class Moment:
    """What was found."""

    format: str
    nulls: tuple[str, ...]

    def column(self, name: str) -> Column:
        return Column(name=name, type="time", format=self.format, nulls=self.nulls)


def find_moment(words: Words, floor: float, *, day_first: bool | None = None, digits_only: bool = False) -> Moment | None:
    """The pattern (strptime as Python writes it, or ``iso``) that fits most cells, if it fits at least the share ``floor``.

    ``%d/%m`` or ``%m/%d``: whichever fits more cells; where both fit all, as an earlier column did (``day_first``), else month first for
    slashes and day first for dots and dashes. ``digits_only`` also tries dates without any mark between (``19560409``).
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(words.text):
        return None
    tried = words.text.take(pa.array(np.linspace(0, len(words.text) - 1, min(N_TRIED, len(words.text))).astype(np.int64)))
    half = floor * len(tried) / 2

    def many(pattern: str) -> bool:
        n = pc.sum(pc.match_substring_regex(tried, pattern)).as_py() or 0
        return n > 0 and n >= half

    candidates = _candidates(tried) if many(r"\d[-/.: ]\s?\d|\d[T ]\d|" + _MONTHS) else []
    if digits_only and many(r"^(?:1[89]|20|21)\d{6}(?:\d{6})?$"):
        candidates += ["%Y%m%d", "%Y%m%d%H%M%S"]
    best = {format: len(tried) - _read(tried, format).null_count for format in candidates}
    best = {format: n for format, n in best.items() if n and n >= half}
    if not best:
        return None
    shares: dict[str, float] = {}
    nulls: dict[str, tuple[str, ...]] = {}
    for format in sorted(best, key=lambda f: -best[f])[:4]:
        fits = _read(words.text, format).is_valid()
        gone = words.placeholders(fits)
        kept = words.without(gone)
        shares[format] = kept.share(fits.filter(pc.invert(gone)))
        nulls[format] = kept.used_nulls
    top = max(shares.values())
    if top < floor or top == 0.0:
        return None
    chosen = _preferred([f for f, s in shares.items() if s == top], day_first)
    return Moment(chosen, nulls[chosen])


def _preferred(formats: list[str], day_first: bool | None) -> str:
    """One of several patterns that fit the same cells."""
    if len(formats) == 1:
        return formats[0]
    starts = {f[:2]: f for f in reversed(formats)}
    if "%d" in starts and "%m" in starts and "iso" not in formats:
        if day_first is None:
            day_first = "/" not in formats[0]
        return starts["%d" if day_first else "%m"]
    return formats[0]


def _read(text: "pa.StringArray", format: str) -> "pa.Array":
    return read_moments(text, Column(name="x", type="time", format=format))


def _candidates(tried: "pa.StringArray") -> list[str]:
    """Patterns that could fit, told by the marks seen."""
    seen = [w for w in tried.to_pylist() if re.search(r"\d", w)]
    found = ["iso"] if any(re.match(r"\d{4}-\d|\d{8}T", w) for w in seen) else []
    clocks = _clocks(seen)
    named = any(re.search(_MONTHS, w) for w in seen)
    if named:
        full = any(re.search(r"(?i)january|february|march|april|june|july|august|september|october|november|december", w) for w in seen)
        full_day = any(re.search(r"(?i)(mon|tues|wednes|thurs|fri|satur|sun)day", w) for w in seen)
        days = [d.format(b="%B" if full else "%b", a="%A" if full_day else "%a") for d in _NAMED]
        found += _WHOLE
    else:
        marks = [s for s in "/-. " if any(re.search(rf"\d{re.escape(s)} ?\d", w) for w in seen)]
        days = [d.format(s=s) for s in marks for d in _NUMERIC] + [d.format(s=". ") for d in _NUMERIC[:2] if any(re.search(r"\d\. \d", w) for w in seen)]
        if any(re.fullmatch(r"\d{4}-\d\d", w) for w in seen):
            found.append("%Y-%m")
    return found + [day + clock for day in days for clock in clocks]


def _clocks(seen: list[str]) -> list[str]:
    """Ways of writing the time of day after the date."""
    timed = [w for w in seen if ":" in w]
    if len(timed) * 2 < len(seen):
        return [""]
    half = any(re.search(r"(?i)\d ?[ap]m\b", w) for w in timed)
    space = " " if any(re.search(r"(?i)\d [ap]m\b", w) for w in timed) else ""
    link = "T" if any(re.search(r"\dT\d", w) for w in timed) else ", " if any(re.search(r"\d, \d+:", w) for w in timed) else " "
    zone = ""
    if any(re.search(r":\d\d(\.\d+)? ?[+-]\d\d:?\d\d$", w) for w in timed):
        zone = " %z" if any(re.search(r" [+-]\d\d:?\d\d$", w) for w in timed) else "%z"
    hour = "%I" if half else "%H"
    end = (f"{space}%p" if half else "") + zone
    clocks = []
    if any(re.search(r":\d\d:\d\d\.\d", w) for w in timed):
        clocks.append(f"{link}{hour}:%M:%S.%f{end}")
    if any(re.search(r":\d\d:\d\d", w) for w in timed):
        clocks.append(f"{link}{hour}:%M:%S{end}")
    return [*clocks, f"{link}{hour}:%M{end}"]
