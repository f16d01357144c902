"""JSON cells to graph inputs, a column at a time: the served twin of `data.clean` followed by `encode.tensors`.

A cell is first read as its column's type says (with the habits found at collection: null words, decimal marks, formats), then put in the form the
graph takes. `read_one` is the rule; the vectorised roads beside it give the same for cells that need no thought. N rows.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import MISSING_MOMENT, InputType
from modelinscale.core.schema import Column
from modelinscale.package.manifest import InputColumn

if TYPE_CHECKING:
    from modelinscale.package._clean import Chain

NULL_WORDS = frozenset(["na", "n/a", "#n/a", "<na>", "nan", "null", "none", "nil", "-", "--", "?", "\\n"])
"""Words, lower case, that mean missing wherever a number, a moment or a flag is expected; in text only those that the column names."""
TRUE_WORDS, FALSE_WORDS = ("true", "1"), ("false", "0")
"""How a flag is written when its column does not say."""
EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1_000}
"""Formats of moments that count since 1970, with the microseconds in one unit."""
FIRST_MOMENT, LAST_MOMENT = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Years 1 to 9999 in microseconds since 1970."""
_LARGEST_INT = 2**63 - 1
_LONGEST_INT = 40
_EXACT = 2.0**53
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = 86_400_000_000
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,15}")
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_ISO = re.compile(
    r"^(\d{4})(?:-(\d{1,2})-(\d{1,2})|(\d{2})(\d{2}))"
    r"(?:(?:\s*[Tt]\s*|\s+)(\d{1,2})(?::?(\d{2})(?::?(\d{2})(?:[.,](\d{1,9})\d*)?)?)?)?\s*([Zz]|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?$",
    re.ASCII,
)
DASHED = r"^\d{4}-\d{2}-\d{2}(?:[Tt ]\d|$)"
"""How ISO 8601 starts where it cannot be taken for anything else. JSON clients write moments so, whatever a file looked like."""
_DASHED = re.compile(DASHED, re.ASCII)
_PROBES = [f"{day}{clock}" for day in ("2012-11-10", "2012-03-04", "2001-02-03", "1910-09-08") for clock in ("", "T05:06:07", " 05:06:07", " 05:06", " 05")]
_PLAIN_NUMBERS = {int, float}
_FEW = 4
"""Up to this many cells NumPy costs more than it saves."""
_LONGEST_CHARS = 500
_SHOWN_CHARS = 80
_REMEMBERED = 100_000

Cell = Any
"""What JSON holds: None, bool, int, float, str, a list. Python callers may also give datetimes and NumPy scalars."""


class BadCell(Exception):
    """A cell that cannot be read: its position in the column, what it is, what was expected."""

    def __init__(self, row: int, found: str, expected: str) -> None:
        super().__init__(row, found, expected)
        self.row, self.found, self.expected = row, found, expected


class _Unreadable(Exception):
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


class Reader:
    """Reads one column. Holds no state that changes an answer, so threads may share it."""

    def __init__(self, spec: InputColumn) -> None:
        self.name = spec.name
        self.column = spec.column
        self.input = spec.input
        self.required = spec.required
        self.accepts = spec.accepts
        self.is_personal = spec.personal is not None
        chain = _cleaned(spec) if spec.clean else None
        self.beside = chain.beside if chain is not None else ()
        """Other columns that must be given to `read`: a missing cell is filled from them."""
        self._typed = _treated(spec, chain or _typed(spec.cleaned))
        self._fast = None if spec.clean or self.is_personal else _fast_road(spec.column, spec.input)
        self.cleans = bool(spec.clean) or self.is_personal
        """Whether a cell may become another one: then no short cut past `read` is right."""
        self._nulls = frozenset(spec.column.nulls)

    def read(self, cells: list[Cell], others: Mapping[str, Sequence[Cell]] | None = None) -> NDArray[Any]:
        """(N,) or (N, width) in graph-input form. Raises `BadCell` for the first cell that cannot be read.

        ``others``: the columns `beside`, N cells each; one that is not there has no cells.
        """
        if self._fast is not None and len(cells) > _FEW:
            found = self._fast(cells, self._nulls)
            if found is not None and not (self.required and _any_missing(found, self.input)):
                return found
        if self.beside:
            there = {name: others[name] for name in self.beside if name in others} if others else {}
            return self._array([self._told(row, cell, {name: column[row] for name, column in there.items()}) for row, cell in enumerate(cells)])
        return self._one_by_one(cells)

    def read_one(self, cell: Cell, others: Mapping[str, Cell] | None = None) -> Any:
        """One cell in graph-input form. Raises `_Unreadable` with what was expected."""
        value = self._typed(cell, others) if self.beside else self._typed(cell)
        if value is None and self.required:
            raise _Unreadable(f"{describe(self.accepts)} (this column may not be missing)")
        return _fed(value, self.column, self.input)

    def _one_by_one(self, cells: list[Cell]) -> NDArray[Any]:
        known: dict[Any, Any] = {}
        values: list[Any] = []
        for row, cell in enumerate(cells):
            # True == 1 == 1.0 as dictionary keys, so only text is remembered: it is also what is costly to read.
            remembered = type(cell) is str
            if remembered and cell in known:
                values.append(known[cell])
                continue
            value = self._told(row, cell)
            if remembered and len(known) < _REMEMBERED:
                known[cell] = value
            values.append(value)
        return self._array(values)

    def _told(self, row: int, cell: Cell, others: Mapping[str, Cell] | None = None) -> Any:
        try:
            return self.read_one(cell, others)
        except _Unreadable as error:
            raise BadCell(row, "a value that is not shown" if self.is_personal else shown(cell), str(error)) from None

    def _array(self, values: list[Any]) -> NDArray[Any]:
        if self.input == "vector":
            assert self.column.width is not None
            return np.stack(values) if values else np.zeros((0, self.column.width), np.float32)
        return np.array(values, {"float64": np.float64, "int64": np.int64, "string": object}[self.input])


def _cleaned(spec: InputColumn) -> "Chain":
    from modelinscale.package._clean import Chain  # here: it stands on this module

    return Chain(spec.accepts, spec.clean, spec.cleaned)


def _treated(spec: InputColumn, typed: Callable[..., Any]) -> Callable[..., Any]:
    """A personal cell without what is personal; a cell that comes treated already stays."""
    if spec.personal is None:
        return typed
    treat, is_treated = spec.personal.treatment()
    as_text = spec.column.type == "string"

    def read(cell: Cell) -> Any:
        if as_text and type(cell) is str and is_treated(cell):
            return cell
        value = typed(cell)
        return None if value is None else treat(value)

    return read


def describe(column: Column) -> str:
    """What a cell of the column may be, in words for an error."""
    words = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false" + (f" (or {column.true_words[0]!r} / {column.false_words[0]!r})" if column.true_words and column.false_words else ""),
        "string": "text",
        "vector": f"a list of {column.width} numbers",
        "binary": "an image: the bytes of a PNG or JPEG file in base64",
    }
    if column.type != "time":
        return words[column.type]
    if column.format in ("epoch_s", "epoch_ms"):
        return f"a moment as {'seconds' if column.format == 'epoch_s' else 'milliseconds'} since 1970"
    iso = "as ISO 8601 (2024-05-01T13:00:00)"
    if column.format in (None, "iso"):
        return f"a moment {iso}"
    return f"a moment written {column.format}" + (f", or {iso}" if takes_iso(column.format) else "")


# -- cell to typed value: the rule


def _typed(column: Column) -> Callable[[Cell], Any]:
    """Reads one cell of the column as its type: int, float, bool, str, microseconds since 1970, a float32 array; None is missing."""
    habits = Habits(column)
    rule: Callable[[Cell, Habits], Any] = {"int": _int, "float": _float, "bool": _bool, "string": _string, "time": _time, "vector": _vector}[column.type]
    expected = describe(column)
    longest = _LONGEST_CHARS * (column.width or 1)  # no number or moment is longer, and patterns may take long over long text

    def read(cell: Cell) -> Any:
        if isinstance(cell, np.generic):
            cell = cell.item()
        if cell is None:
            return None
        if type(cell) is not str or column.type == "string":
            return tried(cell)
        if len(cell) > longest:
            raise _Unreadable(expected)
        cell = cell.strip()
        if habits.is_null_word(cell):
            return None
        try:
            return tried(cell)
        except _Unreadable:
            return tried(plain(cell))  # written with full-width digits, odd spaces, a Unicode minus

    def tried(cell: Cell) -> Any:
        try:
            return rule(cell, habits)
        except _Unreadable as error:
            raise _Unreadable(str(error) or expected) from None
        except (ValueError, TypeError, OverflowError):
            raise _Unreadable(expected) from None

    return read


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
        """A number without affixes and thousands marks, with a decimal point. Raises `_Unreadable` where the marks stand in impossible places."""
        if self._before is not None and self._after is not None:
            text = self._after.sub("", self._before.sub(r"\1", text))
        if self._marked is not None:
            thousands = self.column.thousands
            if thousands == " ":
                text = re.sub("[\u00a0\u2009\u202f]", " ", text)
            if not self._marked.match(text):
                raise _Unreadable
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


def _int(cell: Cell, habits: Habits) -> int | None:
    if type(cell) is str:
        cell = _whole_in(habits.number(cell))
    if type(cell) is float:
        if math.isnan(cell):
            return None
        if not abs(cell) <= _EXACT or cell != int(cell):
            raise _Unreadable
        cell = int(cell)
    if type(cell) is not int:
        raise _Unreadable
    if not -_LARGEST_INT - 1 <= cell <= _LARGEST_INT:
        raise _Unreadable("a whole number of at most 64 bits")
    return cell


def _whole_in(text: str) -> int | float:
    if _WHOLE.fullmatch(text):
        return int(text) if len(text) < _LONGEST_INT else 1 << 64
    return int(text, 16) if _HEX.fullmatch(text) else _decimal_in(text)


def _decimal_in(text: str) -> float:
    if not _DECIMAL.fullmatch(text):
        raise _Unreadable
    return float(text)


def _float(cell: Cell, habits: Habits) -> float | None:
    if type(cell) is str:
        cell = _decimal_in(habits.number(cell))
    if type(cell) not in (int, float):
        raise _Unreadable
    try:
        value = float(cell)
    except OverflowError:
        value = math.inf
    if math.isinf(value):
        raise _Unreadable("a finite number")
    return None if math.isnan(value) else value


def _bool(cell: Cell, habits: Habits) -> bool | None:
    if type(cell) is bool:
        return cell
    if type(cell) is str:
        word = cell.lower()
        if word in habits.true_words:
            return True
        if word in habits.false_words:
            return False
    elif type(cell) in (int, float):
        if cell != cell:
            return None
        if cell in (0, 1):
            return bool(cell)
    raise _Unreadable


def _string(cell: Cell, habits: Habits) -> str | None:
    if type(cell) is bool:
        return "true" if cell else "false"
    if type(cell) is int:
        cell = str(cell)
    elif type(cell) is float:
        if math.isnan(cell):
            return None
        cell = written_float(cell)
    elif isinstance(cell, (datetime, date)):
        cell = cell.isoformat()
    elif not isinstance(cell, str):
        raise _Unreadable
    if not cell or cell.strip() in habits.text_nulls:
        return None
    if b"\0" in cell.encode():  # where a text tensor of ONNX would end; a lone surrogate is a ValueError
        raise _Unreadable("text without NUL characters")
    return str(cell)


def _time(cell: Cell, habits: Habits) -> int | None:
    if isinstance(cell, datetime):
        return _microseconds(cell)
    if isinstance(cell, date):
        return _microseconds(datetime(cell.year, cell.month, cell.day))
    form = habits.column.format
    if type(cell) is str and form not in (None, "iso") and _DASHED.match(cell) and takes_iso(form):
        try:
            return _patterned(cell, form) if habits.unit_us is None else _iso(cell)
        except (ValueError, _Unreadable):
            return _iso(cell)
    if habits.unit_us is not None:
        number = _decimal_in(cell) if type(cell) is str else cell
        if type(number) not in (int, float):
            raise _Unreadable
        if number != number:
            return None
        return _in_range(round(float(number) * habits.unit_us))
    if type(cell) is not str:
        raise _Unreadable
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
        except (ValueError, _Unreadable):
            continue
    return True


def _iso(text: str) -> int:
    """ISO 8601 as people write it: a space for T, one-digit months, a comma before the fraction, any zone, or none."""
    found = _ISO.match(text)
    if found is None:
        raise _Unreadable
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
            raise _Unreadable
        return _in_range(_microseconds(moment))
    assert last is not None
    raise last


def _microseconds(moment: datetime) -> int:
    offset = moment.utcoffset()
    found = (moment.replace(tzinfo=None) - _EPOCH) // _MICROSECOND
    return found if offset is None else found - offset // _MICROSECOND


def _in_range(moment: int) -> int:
    if not FIRST_MOMENT <= moment <= LAST_MOMENT:
        raise _Unreadable("a moment in the years 1 to 9999")
    return moment


def _vector(cell: Cell, habits: Habits) -> NDArray[np.float32] | None:
    width = habits.column.width
    if isinstance(cell, str):
        cell = [_decimal_in(part) for part in re.sub(r"\s*[,;\s]\s*", " ", cell.strip("[]() ")).split(" ")]
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    if not isinstance(cell, (list, tuple)):
        raise _Unreadable
    if len(cell) != width:
        raise _Unreadable(f"a list of {width} numbers, not of {len(cell)}")
    if all(v is None or v != v for v in cell):
        return None
    if not _PLAIN_NUMBERS.issuperset(map(type, cell)):
        raise _Unreadable
    with np.errstate(over="ignore"):
        found = np.array(cell, np.float64).astype(np.float32)
    if not np.isfinite(found).all():
        raise _Unreadable(f"a list of {width} finite numbers")
    return found


# -- typed value to graph input: the twin of encode.tensors


def _fed(value: Any, column: Column, input: InputType) -> Any:
    if input == "vector":
        return np.full(column.width or 0, np.nan, np.float32) if value is None else value
    if input == "float64":
        return math.nan if value is None else _as_float(value, column)
    if input == "string":
        return "" if value is None else _as_text(value, column)
    return MISSING_MOMENT if value is None else _as_int(value)


def _as_float(value: Any, column: Column) -> float:
    if column.type == "string":
        return float(value) if _DECIMAL.fullmatch(value) else math.nan
    return float(value)


def _as_text(value: Any, column: Column) -> str:
    if column.type == "time":
        return (_EPOCH + timedelta(microseconds=value)).isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else written_float(value) if isinstance(value, float) else str(value)


def _as_int(value: Any) -> int:
    if isinstance(value, float):
        return int(value) if abs(value) < 2.0**63 else MISSING_MOMENT
    return int(value)


def written_float(value: float) -> str:
    """One float as text: its shortest form, whole ones below 2**53 without ``.0``.

    >>> written_float(3.0), written_float(0.1), written_float(-0.0), written_float(1e300)
    ('3', '0.1', '0', '1e+300')
    """
    if math.isfinite(value) and value == int(value) and abs(value) < _EXACT:
        return str(int(value))
    return repr(value)


# -- whole columns that need no thought


_Fast = Callable[[list[Cell], frozenset[str]], NDArray[Any] | None]
_NUMBERS = {int, float, type(None)}
_WORDS = {str, type(None)}


def _fast_road(column: Column, input: InputType) -> _Fast | None:
    return {
        ("float", "float64"): _fast_floats,
        ("int", "float64"): _fast_ints,
        ("bool", "float64"): _fast_flags,
        ("string", "string"): _fast_words,
    }.get((column.type, input))


def _fast_floats(cells: list[Cell], nulls: frozenset[str]) -> NDArray[Any] | None:
    found = _numbers(cells)
    return None if found is None or np.isinf(found).any() else found


def _fast_ints(cells: list[Cell], nulls: frozenset[str]) -> NDArray[Any] | None:
    found = _numbers(cells)
    if found is None or (np.abs(found) >= _EXACT).any():  # beyond it a float may have lost digits: the slow road is exact
        return None
    whole = ((np.trunc(found) == found) | np.isnan(found)).all()
    return found + 0.0 if whole else None  # no whole number is -0.0


def _numbers(cells: list[Cell]) -> NDArray[np.float64] | None:
    if not _NUMBERS.issuperset(map(type, cells)):
        return None
    try:
        return np.array(cells, np.float64)
    except OverflowError:  # an integer beyond any float: the slow road names it
        return None


def _fast_flags(cells: list[Cell], nulls: frozenset[str]) -> NDArray[Any] | None:
    return np.array(cells, np.float64) if {bool, type(None)}.issuperset(map(type, cells)) else None


def _fast_words(cells: list[Cell], nulls: frozenset[str]) -> NDArray[Any] | None:
    if not _WORDS.issuperset(map(type, cells)):
        return None
    distinct = set(cells)  # each word is looked at once, however often it stands there
    missing = {c for c in distinct if c is None or (nulls and c.strip() in nulls)}
    try:
        if b"\0" in "".join(distinct - missing).encode():
            return None
    except UnicodeEncodeError:
        return None
    return np.array(["" if c in missing else c for c in cells] if missing else cells, object)


def _any_missing(found: NDArray[Any], input: InputType) -> bool:
    return "" in found.tolist() if input == "string" else bool(np.isnan(found).any())
