"""How cells may be written and how they are told of: the words, marks and limits that reading and its errors share."""

import math
import re
import unicodedata
from typing import Any

from modelinscale.core.schema import Column

NULL_WORDS = frozenset(["na", "n/a", "#n/a", "<na>", "nan", "null", "none", "nil", "-", "--", "?", "\\n"])
"""Words, lower case, that mean missing wherever a number, a moment or a flag is expected; in text only those that the column names."""
TRUE_WORDS, FALSE_WORDS = ("true", "1"), ("false", "0")
"""How a flag is written when its column does not say."""
EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1_000}
"""Formats of moments that count since 1970, with the microseconds in one unit."""
LARGEST_INT = 2**63 - 1
LONGEST_INT = 40
EXACT = 2.0**53
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
HEX = re.compile(r"0[xX][0-9a-fA-F]{1,15}")
DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
PLAIN_NUMBERS = {int, float}
LONGEST_CHARS = 500
_SHOWN_CHARS = 80
Cell = Any
"""What JSON holds: None, bool, int, float, str, a list. Python callers may also give datetimes and NumPy scalars."""


class Unreadable(Exception):
    """A cell that cannot be read; holds what was expected."""


def shown(cell: Cell) -> str:
    """A cell as an error message shows it, cut to a bearable length."""
    if cell is None:
        return "null"
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, dict):
        return "a JSON object"
    if isinstance(cell, list):
        return f"a list of {len(cell)}"
    if isinstance(cell, int) and cell.bit_length() > _SHOWN_CHARS * 3:
        return f"a whole number of {cell.bit_length()} bits"
    text = f'"{cell}"' if isinstance(cell, str) else repr(cell)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(text):,} characters)"


class Habits:
    """How the cells of a column are written, ready to be used. Says the same as `data._cells`, a cell at a time."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self._nulls = NULL_WORDS.union(w.lower() for w in column.nulls)
        self.text_nulls = frozenset(column.nulls)
        self.true_words = frozenset(column.true_words or TRUE_WORDS)
        self.false_words = frozenset(column.false_words or FALSE_WORDS)
        self.unit_us = EPOCHS.get(column.format or "")
        words = "|".join(re.escape(a) for a in sorted(column.affixes, key=lambda a: (-len(a), a)))
        self._before = re.compile(rf"^([+-]?)\s*(?:{words})\s*", re.IGNORECASE) if words else None
        self._after = re.compile(rf"\s*(?:{words})$", re.IGNORECASE) if words else None
        marked = column.thousands != "" or column.decimal != "."
        self._marked = re.compile(_marked_number(column.decimal, column.thousands), re.ASCII) if marked else None

    def is_null_word(self, text: str) -> bool:
        """Whether a trimmed cell that is no text column's means missing."""
        return not text or text.lower() in self._nulls

    def number(self, text: str) -> str:
        """A number without affixes and thousands marks, with a decimal point. Raises `Unreadable` where the marks stand in impossible places."""
        if self._before is not None and self._after is not None:
            text = self._after.sub("", self._before.sub(r"\1", text))
        if self._marked is not None:
            thousands = self.column.thousands
            if thousands == " ":
                text = re.sub("[\u00a0\u2009\u202f]", " ", text)
            if not self._marked.match(text):
                raise Unreadable
            if thousands:
                text = text.replace(thousands, "")
            text = text.replace(self.column.decimal, ".")
        return text


def plain(text: str) -> str:
    """Compatibility forms taken apart (full-width digits, no-break spaces), Unicode minus and quotes as ASCII."""
    text = unicodedata.normalize("NFKC", text)
    for odd, usual in (("\u2212", "-"), ("\u2019", "'"), ("\u00ad", ""), ("\ufeff", ""), ("\u200b", "")):
        text = text.replace(odd, usual)
    return text.strip()


def _marked_number(decimal: str, thousands: str) -> str:
    """A pattern for one number with these marks: groups of two or three digits, the last of three."""
    d = re.escape(decimal)
    whole = r"\d+" if not thousands else rf"(?:\d+|\d{{1,3}}(?:{re.escape(thousands)}\d{{2,3}})*{re.escape(thousands)}\d{{3}})"
    return rf"^[+-]?(?:{whole}(?:{d}\d*)?|{d}\d+)(?:[eE][+-]?\d+)?$"


def decimal_in(text: str) -> float:
    if not DECIMAL.fullmatch(text):
        raise Unreadable
    return float(text)


def written_float(value: float) -> str:
    """One float as text: its shortest form, whole ones below 2**53 without ``.0``.

    >>> written_float(3.0), written_float(0.1), written_float(-0.0), written_float(1e300)
    ('3', '0.1', '0', '1e+300')
    """
    if math.isfinite(value) and value == int(value) and abs(value) < EXACT:
        return str(int(value))
    return repr(value)
