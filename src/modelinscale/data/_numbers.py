"""Numbers as people write them: which decimal mark, thousands mark, currency and unit a column of text uses."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from modelinscale.core.schema import Column
from modelinscale.data._cells import number_pattern
from modelinscale.data._words import Words

if TYPE_CHECKING:
    import pyarrow as pa

Decimal = Literal[".", ","]
Thousands = Literal["", ",", ".", " ", "'", "_"]

MARKS: tuple[tuple[Decimal, Thousands], ...] = ((".", ""), (".", ","), (",", ""), (",", "."), (".", " "), (",", " "), (".", "'"), (",", "'"), (".", "_"))
"""Decimal and thousands marks, the likelier first: ``1,234`` alone is read as a thousand."""
_MONEY = "$ € £ ¥ ₹ ₽ ₩ ₺ us$ a$ c$ nz$ r$ hk$ usd eur gbp jpy chf cad aud cny inr sek nok dkk pln czk huf brl zar fr. kr rs rs."
CURRENCIES = frozenset(_MONEY.split())
"""Currencies, lower case; before or after the number."""
UNITS = (
    "% percent pct",
    "oz ounce ounces",
    "kg kgs kilo kilos kilogram kilograms",
    "g gr gram grams",
    "mg milligram milligrams",
    "lb lbs pound pounds",
    "km kms kilometer kilometers kilometre kilometres",
    "m meter meters metre metres",
    "cm centimeter centimeters centimetre centimetres",
    "mm millimeter millimeters millimetre millimetres",
    "mi mile miles",
    "ft feet foot",
    'in inch inches "',
    "l liter liters litre litres",
    "ml milliliter milliliters millilitre millilitres",
    "s sec secs second seconds",
    "ms millisecond milliseconds",
    "min mins minute minutes",
    "h hr hrs hour hours",
    "d day days",
    "y yr yrs year years",
    "kb kib",
    "mb mib",
    "gb gib",
    "hp bhp ps",
    "kw",
    "kwh",
    "cc",
    "km/h kmh kph",
    "mph",
    "mpg",
    "kmpl",
    "°c c° ℃",
    "°f",
    "° deg degree degrees",
    "sqft sq.ft sq.ft. sq. ft. ft²",
    "m² m2 sqm qm",
    "pts points pt",
    "pcs pc pieces piece",
    "x",
)
"""Units by groups of one meaning: within a column, words of two groups do not mix (12 kg, 500 g)."""

_GROUP = {word: i for i, line in enumerate(UNITS) for word in line.split()}
_PARTS = (
    r"^(?P<sign>[+-]?)\s*(?P<before>[^\d\s+\-.,'_()][^\d+\-()]{0,7}?|)\s*"
    r"(?P<number>[+-]?(?:\d[\d.,'_ ]*\d|\d|[.,]\d+)[.,]?(?:[eE][+-]?\d+)?)\s*(?P<after>[^\d\s+\-()][^\d()]{0,15}|)$"
)
MAX_AFFIXES = 12
"""More spellings than this are not a habit."""


@dataclass(frozen=True)
class Number:
    """What was found."""

    whole: bool
    decimal: Decimal
    thousands: Thousands
    affixes: tuple[str, ...]
    nulls: tuple[str, ...]
    codes: bool
    """Whether the digits are names rather than amounts: leading zeros, or more digits than a whole number holds."""
    digits_only: bool
    """Whether there is nothing but digits."""

    def column(self, name: str) -> Column:
        return Column(name=name, type="int" if self.whole else "float", decimal=self.decimal, thousands=self.thousands, affixes=self.affixes, nulls=self.nulls)


def find_number(words: Words, floor: float) -> Number | None:
    """The way of writing numbers that fits most cells, if it fits at least the share ``floor`` of them."""
    import pyarrow.compute as pc

    fits = pc.match_substring_regex(words.text, number_pattern(".", ""))
    share = words.share(fits)
    affixes: tuple[str, ...] = ()
    marks = MARKS[0]
    bodies = words.text
    if share < 1.0:
        words = words.without(words.placeholders(fits))
        bodies, affixes = _bodies(words)
        best = -1.0
        for decimal, thousands in MARKS:
            mask = pc.fill_null(pc.match_substring_regex(bodies, number_pattern(decimal, thousands)), False)
            if (now := words.share(mask)) > best:
                best, marks, fits = now, (decimal, thousands), mask
        share = best
    if share < floor or share == 0.0:
        return None
    return _number(words, bodies.filter(fits), fits, marks, affixes)


def _number(words: Words, bodies: "pa.StringArray", fits: "pa.BooleanArray", marks: tuple[Decimal, Thousands], affixes: tuple[str, ...]) -> Number:
    import pyarrow as pa
    import pyarrow.compute as pc

    decimal, thousands = marks
    count = words.count[fits.to_numpy(zero_copy_only=False)]

    def share(pattern: str) -> float:
        return float(count[pc.match_substring_regex(bodies, pattern).to_numpy(zero_copy_only=False)].sum()) / max(1, int(count.sum()))

    whole = not pc.any(pc.match_substring_regex(bodies, rf"[{re.escape(decimal)}eE]")).as_py()
    zeros = share(r"^0\d+$") if not affixes else 0.0
    long = share(r"^[+-]?\d{19,}$") if whole else 0.0
    signs = pc.any(pc.match_substring_regex(bodies, r"^[+-]")).as_py()
    used = thousands if thousands and pc.any(pc.match_substring(bodies, thousands)).as_py() else ""
    assert isinstance(bodies, pa.StringArray)
    return Number(
        whole=whole,
        decimal=decimal,
        thousands=used,
        affixes=affixes,
        nulls=words.used_nulls,
        codes=whole and not used and (zeros > 0.001 or long > 0.02),
        digits_only=whole and not signs and not affixes and not used,
    )


def _bodies(words: Words) -> "tuple[pa.StringArray, tuple[str, ...]]":
    """The words without their affixes (null where they are no number with one), and the affixes as they were written."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.replace_substring_regex(words.text, "[\u00a0\u2009\u202f]", " ")
    parts = pc.extract_regex(text, _PARTS)
    before, after = parts.field("before"), parts.field("after")
    allowed: dict[str, str] = {}
    for side in (before, after):
        counts = pc.value_counts(side.drop_null())
        spelled = [w for w in counts.field(0).to_pylist() if w]
        allowed |= _allowed(spelled, words, side, is_after=side is after)
    if len(allowed) > MAX_AFFIXES:
        allowed = {}
    known = pa.array(["", *allowed], pa.string())
    good = pc.and_(pc.is_in(before, value_set=known), pc.is_in(after, value_set=known))
    good = pc.and_(pc.fill_null(good, False), parts.is_valid())
    number = pc.binary_join_element_wise(parts.field("sign"), parts.field("number"), "")
    return pc.if_else(good, number, pa.scalar(None, pa.string())), tuple(sorted(allowed))


def _unit(stem: str) -> int | None:
    """The group of a unit, a note after it left aside (``oz. can``)."""
    first = stem.split()[0].rstrip(".") if stem else ""
    return _GROUP.get(stem, _GROUP.get(first) if " " in stem else None)


def _allowed(spelled: list[str], words: Words, side: "pa.StringArray", *, is_after: bool) -> dict[str, str]:
    """Which affixes are only spellings of one unit or currency; those beside it that are rare stay faults."""
    import pyarrow as pa
    import pyarrow.compute as pc

    weight: dict[str, float] = {}
    groups: dict[str, list[str]] = {}
    for word in spelled:
        lowered = word.lower().strip()
        stem = lowered.rstrip(".")
        if lowered in CURRENCIES or stem in CURRENCIES:
            group = f"currency {stem}"
        elif is_after and (unit := _unit(stem)) is not None:
            group = f"unit {unit}"
        elif is_after and len(stem) >= 2 and stem.isalpha() and stem not in ("st", "nd", "rd", "th", "bn", "mn", "mio", "tsd", "am", "pm"):
            group = f"word {stem}"
        else:
            continue
        groups.setdefault(group, []).append(word)
        weight[group] = weight.get(group, 0.0) + words.share(pc.equal(side, pa.scalar(word)))
    if not groups:
        return {}
    main = max(groups, key=lambda g: (weight[g], g))
    return dict.fromkeys(groups[main], main)
