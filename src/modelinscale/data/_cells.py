"""One column's cells to the lake's types: text by the column's habits, typed cells by value; what does not fit becomes null and a fault.

Whole columns at a time. The usual road (everything fits) is one pass; only the cells that stopped it are looked at again.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from modelinscale.core.schema import Column, ColumnType
from modelinscale.data.arrow import arrow_type, is_bytes, is_list, is_text
from modelinscale.package._cell_moments import DASHED, takes_iso

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    from numpy.typing import NDArray

NULL_WORDS = ("NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "none", "nil", "-", "--", "?", "\\N")
"""Words that mean missing wherever a number, a moment or a flag is expected. In a text column only those that the column names mean missing."""
TRUE_WORDS, FALSE_WORDS = ("true", "1"), ("false", "0")
"""How a flag is written when its column does not say."""
EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1_000}
"""Formats of moments that count since 1970, with the microseconds in one unit."""
FIRST_MOMENT, LAST_MOMENT = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Years 1 to 9999 in microseconds since 1970: what Python, Arrow and the served side all hold."""
YEAR_1000 = -30_610_224_000_000_000
"""A written pattern with ``%Y`` that gives an earlier moment met a year of two digits."""

_NULL_WORDS = frozenset(w.lower() for w in NULL_WORDS)
_LARGEST_WHOLE = 2.0**53


@dataclass(frozen=True)
class Bad:
    """Cells of one column that could not be read, F of them, by row."""

    rows: "pa.Int64Array"  # (F,) ascending positions
    values: "pa.StringArray"  # (F,) as they came
    reason: "pa.StringArray"  # (F,)


def read_cells(array: "pa.Array", column: Column) -> "tuple[pa.Array, Bad | None]":
    """The cells in the column's lake type, as many as came in, and those that could not be read (null in the first). Never raises for a cell."""
    import pyarrow as pa
    import pyarrow.types as t

    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if t.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if t.is_null(kind):
        return pa.nulls(len(array), arrow_type(column)), None
    if column.type == "binary":
        return (array.cast(arrow_type(column)), None) if is_bytes(kind) else _nothing_fits(array, column)
    if is_bytes(kind):
        return _from_bytes(array, column)
    if is_text(kind):
        return _from_text(array if kind == pa.string() else array.cast(pa.string()), column)
    if column.type == "string" and is_list(kind) and is_text(kind.value_type):
        cells = [None if cell is None else json.dumps(cell, ensure_ascii=False, separators=(",", ":")) for cell in array.to_pylist()]
        return _from_text(pa.array(cells, pa.string()), column)
    return _TYPED[column.type](array, column)


# Text


def _from_text(array: "pa.StringArray", column: Column) -> "tuple[pa.Array, Bad | None]":
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.type == "string":
        return _words(array, column)
    cells = pc.utf8_trim_whitespace(array)
    cells = _blanked(cells, is_null_word(cells, column.nulls))
    read = _READERS[column.type]
    found = read(cells, column)
    unread = pc.and_(cells.is_valid(), found.is_null())
    if not pc.any(unread).as_py():
        return _finished(found), None
    # Once more for the cells that stopped it: written with full-width digits, odd spaces, a Unicode minus.
    rows = pc.indices_nonzero(unread).cast(pa.int64())
    again = read(plain(cells.take(rows)), column)
    if again.null_count < len(again):
        found = pc.replace_with_mask(found, unread, again)
    rows = rows.filter(again.is_null())
    if not len(rows):
        return _finished(found), None
    values = array.take(rows)
    return _finished(found), Bad(rows, values, _reasons(values, column))


def _words(array: "pa.StringArray", column: Column) -> "tuple[pa.Array, Bad | None]":
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    gone = pc.equal(pc.binary_length(array), 0)
    if column.nulls:
        gone = pc.or_(gone, pc.is_in(pc.utf8_trim_whitespace(array), value_set=pa.array(column.nulls, pa.string())))
    cells = _blanked(array, gone)
    data = cells.buffers()[2]
    if data is None or np.frombuffer(data, np.uint8).all():
        return cells, None
    # A text tensor of ONNX ends at a NUL, so training and serving would read two different texts.
    nul = pc.fill_null(pc.match_substring(cells, "\0"), False)
    if not pc.any(nul).as_py():
        return cells, None
    rows = pc.indices_nonzero(nul).cast(pa.int64())
    return _blanked(cells, nul), Bad(rows, cells.take(rows), _repeated("text with a NUL character", len(rows)))


def _from_bytes(array: "pa.Array", column: Column) -> "tuple[pa.Array, Bad | None]":
    import pyarrow as pa

    try:
        return read_cells(array.cast(pa.binary()).cast(pa.string()), column)
    except pa.ArrowInvalid:
        pass
    texts: list[str | None] = []
    bad: list[int] = []
    for i, cell in enumerate(array.to_pylist()):
        try:
            texts.append(None if cell is None else cell.decode())
        except UnicodeDecodeError:
            texts.append(None)
            bad.append(i)
    found, more = read_cells(pa.array(texts, pa.string()), column)
    rows = pa.array(bad, pa.int64())
    shown = pa.array([repr(array[i].as_py()) for i in bad], pa.string())
    wrong = Bad(rows, shown, _repeated("bytes that are not UTF-8 text", len(bad)))
    return found, wrong if more is None else _joined(wrong, more)


def _joined(a: Bad, b: Bad) -> Bad:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = pa.concat_arrays([a.rows, b.rows])
    order = pc.sort_indices(rows)
    return Bad(rows.take(order), pa.concat_arrays([a.values, b.values]).take(order), pa.concat_arrays([a.reason, b.reason]).take(order))


def is_null_word(cells: "pa.StringArray", more: tuple[str, ...] = ()) -> "pa.BooleanArray":
    """Whether a trimmed cell is empty or a word that means missing where no text is expected; ``more`` adds a column's own."""
    import pyarrow as pa
    import pyarrow.compute as pc

    words = _NULL_WORDS.union(w.lower() for w in more)
    return pc.is_in(pc.utf8_lower(cells), value_set=pa.array(["", *sorted(words)], pa.string()))


def plain(cells: "pa.StringArray") -> "pa.StringArray":
    """Compatibility forms taken apart (full-width digits, no-break spaces), Unicode minus and quotes as ASCII."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = pc.utf8_normalize(cells, "NFKC")
    for odd, usual in (("−", "-"), ("’", "'"), ("\u00ad", ""), ("\ufeff", ""), ("\u200b", "")):
        cells = pc.replace_substring(cells, odd, usual)
    return pc.utf8_trim_whitespace(cells).cast(pa.string())


# A reader takes trimmed cells and returns the lake type, null where a cell does not fit.


def _read_int(cells: "pa.StringArray", column: Column) -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = _bare(cells, column)
    try:
        return cells.cast(pa.int64())
    except pa.ArrowInvalid:
        pass
    found = _tolerant(cells, "int")
    unread = pc.and_(cells.is_valid(), found.is_null())
    if not pc.any(unread).as_py():
        return found
    # What Arrow's reader of whole numbers also takes (0x1F), and whole numbers written as decimals (5.0, 1e3).
    left = cells.filter(unread)
    hexes = pc.match_substring_regex(left, r"^-?0[xX][0-9a-fA-F]{1,15}$")
    whole, _ = _whole(_tolerant(left, "float"))
    again = whole if not pc.any(hexes).as_py() else pc.coalesce(pc.if_else(hexes, left, None).cast(pa.int64()), whole)
    return pc.replace_with_mask(found, unread, again)


def _read_float(cells: "pa.StringArray", column: Column) -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = _bare(cells, column)
    try:
        found = cells.cast(pa.float64())
    except pa.ArrowInvalid:
        found = _tolerant(cells, "float")
    return _blanked(found, pc.is_inf(found))


def _tolerant(cells: "pa.StringArray", type: ColumnType) -> "pa.Array":
    import polars as pl
    import pyarrow as pa

    series = pl.from_arrow(cells)
    assert isinstance(series, pl.Series)
    if type == "int":
        return series.str.strip_prefix("+").cast(pl.Int64, strict=False).to_arrow().cast(pa.int64())
    return series.cast(pl.Float64, strict=False).to_arrow().cast(pa.float64())


def _bare(cells: "pa.StringArray", column: Column) -> "pa.StringArray":
    """Numbers without affixes and thousands marks, with a decimal point; null where the marks stand in impossible places."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.affixes:
        words = affix_pattern(column.affixes)
        cells = pc.replace_substring_regex(cells, rf"(?i)^([+-]?)\s*(?:{words})\s*", r"\1")
        cells = pc.replace_substring_regex(cells, rf"(?i)\s*(?:{words})$", "")
    if column.thousands or column.decimal != ".":
        spaces = column.thousands == " "
        if spaces:
            cells = pc.replace_substring_regex(cells, "[\u00a0\u2009\u202f]", " ")
        fits = pc.match_substring_regex(cells, number_pattern(column.decimal, column.thousands))
        cells = pc.if_else(fits, cells, pa.scalar(None, pa.string()))
        if column.thousands:
            cells = pc.replace_substring(cells, column.thousands, "")
        if column.decimal != ".":
            cells = pc.replace_substring(cells, column.decimal, ".")
    return cells


def affix_pattern(affixes: tuple[str, ...]) -> str:
    """The affixes as alternatives of a regular expression, long ones first so that ``oz.`` is not left as ``.``."""
    return "|".join(re.escape(a) for a in sorted(affixes, key=lambda a: (-len(a), a)))


def number_pattern(decimal: str, thousands: str) -> str:
    """A regular expression (RE2) for one number with these marks, groups of two or three digits, the last of three."""
    d = re.escape(decimal)
    whole = r"\d+" if not thousands else rf"(?:\d+|\d{{1,3}}(?:{re.escape(thousands)}\d{{2,3}})*{re.escape(thousands)}\d{{3}})"
    return rf"^[+-]?(?:{whole}(?:{d}\d*)?|{d}\d+)(?:[eE][+-]?\d+)?$"


def _read_bool(cells: "pa.StringArray", column: Column) -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    words = pc.utf8_lower(cells)
    true = pc.is_in(words, value_set=pa.array(column.true_words or TRUE_WORDS, pa.string()))
    false = pc.is_in(words, value_set=pa.array(column.false_words or FALSE_WORDS, pa.string()))
    return pc.if_else(pc.or_(true, false), true, pa.scalar(None, pa.bool_()))


def _read_time(cells: "pa.StringArray", column: Column) -> "pa.Array":
    """As `read_moments`; a cell that is plainly ISO 8601 is taken whatever the column's format, where that cannot mean another day."""
    import pyarrow.compute as pc

    found = read_moments(cells, column)
    if column.format in (None, "iso") or not found.null_count or not takes_iso(column.format):
        return found
    iso = pc.and_(found.is_null(), pc.fill_null(pc.match_substring_regex(cells, DASHED), False))
    return pc.replace_with_mask(found, iso, _iso(cells.filter(iso))) if pc.any(iso).as_py() else found


def read_moments(cells: "pa.StringArray", column: Column) -> "pa.Array":
    """Trimmed cells as moments in the column's format and no other, null where one does not fit."""
    import pyarrow as pa

    if column.format in EPOCHS:
        return _epochs(_tolerant(cells, "float"), column)[0]
    if column.format is not None and column.format != "iso":
        return _patterned(cells, column.format)
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return _in_range(cells.cast(kind).cast(pa.timestamp("us")))
        except pa.ArrowInvalid:
            continue
    return _iso(cells)


def _patterned(cells: "pa.StringArray", pattern: str) -> "pa.Array":
    """Moments by a strptime pattern as Python writes it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = _moments(_series(cells).str.to_datetime(pattern.replace(".%f", "%.f"), time_unit="us", strict=False))
    if "%Y" not in pattern:
        return found
    return _blanked(found, pc.less(found.cast(pa.int64()), YEAR_1000))


_ISO = (
    r"^(\d{4})(?:-(\d{1,2})-(\d{1,2})|(\d{2})(\d{2}))"
    r"(?:(?:\s*[Tt]\s*|\s+)(\d{1,2})(?::?(\d{2})(?::?(\d{2})(?:[.,](\d{1,9})\d*)?)?)?)?\s*([Zz]|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?$"
)
"""ISO 8601 as people write it: a space for T, one-digit months, a comma before the fraction, any zone, or none."""


def _iso(cells: "pa.StringArray") -> "pa.Array":
    import polars as pl

    parts = _series(cells).str.extract_groups(_ISO).struct.unnest()
    year, month, day, month2, day2, hour, minute, second, fraction, zone = (pl.col(name) for name in parts.columns)
    date = pl.concat_str([year, pl.coalesce(month, month2).str.zfill(2), pl.coalesce(day, day2).str.zfill(2)], separator="-")
    clock = pl.concat_str([hour.fill_null("00").str.zfill(2), minute.fill_null("00"), second.fill_null("00")], separator=":")
    offset = pl.when(zone.str.contains(r"^[+-]")).then(zone.str.replace(":", "").str.pad_end(5, "0")).otherwise(pl.lit("+0000"))
    text = parts.select(text=pl.concat_str([date, pl.lit("T"), clock, pl.lit("."), fraction.fill_null("0"), offset]))["text"]
    return _moments(text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="us", strict=False))


def _series(cells: "pa.StringArray") -> "pl.Series":
    import polars as pl

    series = pl.from_arrow(cells)
    assert isinstance(series, pl.Series)
    return series


def _moments(series: "pl.Series") -> "pa.Array":
    import pyarrow as pa

    return _in_range(series.to_arrow().cast(pa.timestamp("us")))


def _in_range(moments: "pa.Array") -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    ends = pc.min_max(moments.cast(pa.int64())).as_py()
    if ends["min"] is None or (ends["min"] >= FIRST_MOMENT and ends["max"] <= LAST_MOMENT):
        return moments
    count = moments.cast(pa.int64())
    return _blanked(moments, pc.or_(pc.less(count, FIRST_MOMENT), pc.greater(count, LAST_MOMENT)))


def _read_vector(cells: "pa.StringArray", column: Column) -> "pa.Array":
    """Numbers between optional brackets, separated by commas, semicolons or spaces."""
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc

    inner = _series(cells).str.strip_chars("[]() ").str.replace_all(r"\s*[,;\s]\s*", " ")
    parts = inner.str.split(" ").cast(pl.List(pl.Float32), strict=False)
    fits = (
        (parts.list.len() == column.width) & parts.list.eval(pl.element().is_finite()).list.all() & (parts.list.eval(pl.element().is_null()).list.any().not_())
    )
    rows = pc.indices_nonzero(fits.fill_null(False).to_arrow())
    return _vectors(parts.to_arrow().cast(pa.list_(pa.float32())).take(rows), rows, len(cells), column)


def _read_sequence(cells: "pa.StringArray", column: Column) -> "pa.Array":
    """Finite numbers, step after step, whatever stands between them: brackets, commas, semicolons, blanks."""
    import polars as pl

    inner = _series(cells).str.replace_all(r"[\[\](),;\s]+", " ").str.strip_chars()
    parts = inner.str.split(" ").list.eval(pl.element().filter(pl.element() != "")).cast(pl.List(pl.Float32), strict=False)
    width = column.width or 1
    good = (parts.list.len() % width == 0) & parts.list.eval(pl.element().is_finite().fill_null(False)).list.all()
    fits = good.fill_null(False).to_numpy()
    sizes = np.where(fits, parts.list.len().fill_null(0).to_numpy() // width, 0)
    numbers = parts.filter(pl.Series(fits)).explode(empty_as_null=False, keep_nulls=False) if fits.any() else pl.Series([], dtype=pl.Float32)
    return _sequences(numbers.to_numpy(), sizes, fits, column)


_READERS: dict[ColumnType, "Callable[[pa.StringArray, Column], pa.Array]"] = {
    "int": _read_int,
    "float": _read_float,
    "bool": _read_bool,
    "time": _read_time,
    "vector": _read_vector,
    "sequence": _read_sequence,
}

_WORDS_FOR: dict[ColumnType, str] = {
    "int": "not a whole number",
    "float": "not a number",
    "bool": "neither true nor false",
    "time": "not a moment",
    "string": "not a text",
    "vector": "not a vector",
    "sequence": "not a sequence",
    "binary": "not raw bytes",
}


def _reasons(values: "pa.StringArray", column: Column) -> "pa.StringArray":
    """Why each of these cells cannot be read, in words that many cells share."""
    import pyarrow as pa
    import pyarrow.compute as pc

    usual = _WORDS_FOR[column.type]
    if column.type == "bool" and column.true_words:
        usual = f"neither true ({', '.join(column.true_words)}) nor false ({', '.join(column.false_words)})"
    if column.type == "vector":
        usual = f"not {column.width} finite numbers"
    if column.type == "sequence":
        usual = _not_steps(column)
    if column.type == "time" and column.format not in (None, "iso"):
        usual = f"not a moment written as {column.format}"
    reasons = _repeated(usual, len(values))
    usual_form = plain(values)
    if column.type == "int":
        large = pc.match_substring_regex(usual_form, r"^[+-]?\d{19,}$")
        return pc.if_else(pc.fill_null(large, False), pa.scalar("a whole number beyond 64 bits"), reasons)
    if column.type == "float":
        number = _tolerant(_bare(usual_form, column), "float")
        return pc.if_else(pc.fill_null(pc.is_inf(number), False), pa.scalar("an infinite number"), reasons)
    return reasons


# Typed cells


def _typed_int(array: "pa.Array", column: Column) -> "tuple[pa.Array, Bad | None]":
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = array.type
    if t.is_integer(kind):
        if kind != pa.uint64():
            return array.cast(pa.int64()), None
        large = pc.greater(array, pa.scalar(2**63 - 1, pa.uint64()))
        return _blanked(array, large).cast(pa.int64()), _bad(array, large, "a whole number beyond 64 bits")
    if t.is_boolean(kind):
        return array.cast(pa.int64()), None
    if t.is_floating(kind) or t.is_decimal(kind):
        numbers = array.cast(pa.float64(), safe=False)
        found, wrong = _whole(numbers)
        return found, _bad(array, wrong, "not a whole number")
    return _nothing_fits(array, column)


def _whole(numbers: "pa.DoubleArray") -> "tuple[pa.Int64Array, pa.BooleanArray]":
    """Whole numbers as such, with null and True in the second for those with a fraction or beyond what a double counts exactly; NaN is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = _blanked(numbers, pc.is_nan(numbers))
    wrong = pc.fill_null(pc.or_(pc.not_equal(numbers, pc.trunc(numbers)), pc.greater(pc.abs(numbers), _LARGEST_WHOLE)), False)
    return _blanked(numbers, wrong).cast(pa.int64()), wrong


def _typed_float(array: "pa.Array", column: Column) -> "tuple[pa.Array, Bad | None]":
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = array.type
    if t.is_duration(kind):
        per_second = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        return pc.divide(array.cast(pa.int64()).cast(pa.float64(), safe=False), per_second), None
    if not (t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind) or t.is_boolean(kind)):
        return _nothing_fits(array, column)
    found = array.cast(pa.int8()).cast(pa.float64()) if t.is_boolean(kind) else array.cast(pa.float64(), safe=False)
    ends = pc.min_max(found).as_py()
    wrong = None
    if ends["min"] is not None and (ends["min"] == float("-inf") or ends["max"] == float("inf")):
        infinite = pc.is_inf(found)
        wrong = _bad(array, infinite, "an infinite number")
        found = _blanked(found, infinite)
    return _finished(found), wrong


def _typed_bool(array: "pa.Array", column: Column) -> "tuple[pa.Array, Bad | None]":
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = array.type
    if t.is_boolean(kind):
        return array, None
    if not (t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind)):
        return _nothing_fits(array, column)
    numbers = array.cast(pa.float64(), safe=False)
    numbers = _blanked(numbers, pc.is_nan(numbers))
    wrong = pc.fill_null(pc.and_(pc.not_equal(numbers, 0.0), pc.not_equal(numbers, 1.0)), False)
    return pc.equal(_blanked(numbers, wrong), 1.0), _bad(array, wrong, "neither 0 nor 1")


def _typed_string(array: "pa.Array", column: Column) -> "tuple[pa.Array, Bad | None]":
    return _words(_shown(array), column)


def _typed_time(array: "pa.Array", column: Column) -> "tuple[pa.Array, Bad | None]":
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = array.type
    if t.is_date(kind):
        array = array.cast(pa.timestamp("s") if t.is_date32(kind) else pa.timestamp("ms"))
        kind = array.type
    if t.is_timestamp(kind):
        count = array.cast(pa.int64())
        scale, part = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}[kind.unit]
        ends = pc.min_max(count).as_py()
        first, last = -(-FIRST_MOMENT * part // scale), LAST_MOMENT * part // scale
        wrong = None
        if ends["min"] is not None and not (first <= ends["min"] and ends["max"] <= last):
            outside = pc.fill_null(pc.or_(pc.less(count, first), pc.greater(count, last)), False)
            wrong = _bad(count, outside, "a moment outside the years 1 to 9999")
            array = _blanked(array, outside)
        return array.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.timestamp("us")), wrong
    if column.format in EPOCHS and (t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind)):
        found, outside = _epochs(array.cast(pa.float64(), safe=False), column)
        return found, _bad(array, outside, "a moment outside the years 1 to 9999")
    return _nothing_fits(array, column)


def _epochs(numbers: "pa.DoubleArray", column: Column) -> "tuple[pa.Array, pa.BooleanArray]":
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = _blanked(numbers, pc.is_nan(numbers))
    micros = pc.multiply(numbers, float(EPOCHS[column.format or ""]))
    # The last double below the year 10000 keeps the rounded value inside.
    outside = pc.fill_null(pc.or_(pc.less(micros, float(FIRST_MOMENT)), pc.greater_equal(micros, float(LAST_MOMENT + 1))), False)
    return pc.round(_blanked(micros, outside)).cast(pa.int64(), safe=False).cast(pa.timestamp("us")), outside


def _typed_vector(array: "pa.Array", column: Column) -> "tuple[pa.Array, Bad | None]":
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = array.type
    if not (t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind)):
        return _nothing_fits(array, column)
    try:
        lists = array.cast(pa.list_(pa.float32()), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _nothing_fits(array, column)
    # A row's flags, added up over its numbers: finite and present ones must be as many as the vector is wide.
    good = pc.fill_null(pc.is_finite(lists.flatten()), False).cast(pa.int64())
    import numpy as np

    starts = np.concatenate([[0], np.cumsum(good.to_numpy(zero_copy_only=False))])
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(sizes)
    n_good = starts[ends] - starts[ends - sizes]
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    fits = valid & (sizes == column.width) & (n_good == column.width)
    rows = pa.array(np.flatnonzero(fits))
    wrong = _bad(array, pa.array(valid & ~fits), f"not {column.width} finite numbers")
    return _vectors(lists.take(rows), rows, len(array), column), wrong


def _vectors(lists: "pa.Array", rows: "pa.Array", n_rows: int, column: Column) -> "pa.Array":
    """Fixed-size lists with the given ones at ``rows`` and null elsewhere."""
    import numpy as np
    import pyarrow as pa

    width = column.width or 1
    values = np.zeros((n_rows, width), np.float32)
    index = rows.to_numpy(zero_copy_only=False)
    values[index] = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    missing = np.ones(n_rows, bool)
    missing[index] = False
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width, mask=pa.array(missing))


def _typed_sequence(array: "pa.Array", column: Column) -> "tuple[pa.Array, Bad | None]":
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    def listed(kind: "pa.DataType") -> bool:
        return bool(is_list(kind) or t.is_fixed_size_list(kind))

    kind, width = array.type, column.width or 1
    if not listed(kind):
        return _nothing_fits(array, column)
    nested = listed(kind.value_type)
    try:
        array = array.cast(pa.list_(pa.list_(pa.float32()) if nested else pa.float32()), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _nothing_fits(array, column)
    if not nested and width != 1 and pc.any(pc.greater(pc.list_value_length(array), 0)).as_py():
        return _nothing_fits(array, column)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    sizes = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    steps = array.flatten()
    if nested:
        found = pc.fill_null(pc.list_value_length(steps), width).to_numpy(zero_copy_only=False) == width
        lost, inner = steps.is_null().to_numpy(zero_copy_only=False), pc.list_parent_indices(steps).to_numpy(zero_copy_only=False)
        numbers = np.full((len(steps), width), np.nan, np.float32)
        numbers[found & ~lost] = _floats(steps.flatten())[found[inner]].reshape(-1, width)
    else:
        numbers, found = _floats(steps)[:, None], np.ones(len(steps), bool)
    found &= ~np.isinf(numbers).any(axis=1)
    row = np.repeat(np.arange(len(array)), sizes)
    fits = valid & (np.bincount(row[~found], minlength=len(array)) == 0)
    wrong = _bad(array, pa.array(valid & ~fits), _not_steps(column))
    return _sequences(numbers[fits[row]].reshape(-1), np.where(fits, sizes, 0), fits, column), wrong


def _floats(numbers: "pa.Array") -> "NDArray[np.float32]":
    """NaN where a number is missing."""
    return np.asarray(numbers.to_numpy(zero_copy_only=False), np.float32)


def _not_steps(column: Column) -> str:
    return "not a list of finite numbers" if column.width == 1 else f"not a list of steps of {column.width} finite numbers"


def _sequences(numbers: "NDArray[np.float32]", sizes: "NDArray[np.int64]", fits: "NDArray[np.bool_]", column: Column) -> "pa.Array":
    """Lists of steps: ``sizes`` steps in each row, their numbers row after row, null where a row does not fit."""
    import pyarrow as pa

    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
    flat = pa.array(np.ascontiguousarray(numbers, np.float32))
    values = flat if column.width == 1 else pa.FixedSizeListArray.from_arrays(flat, column.width)
    return pa.ListArray.from_arrays(offsets, values, type=arrow_type(column), mask=pa.array(~fits))


_TYPED: dict[ColumnType, "Callable[[pa.Array, Column], tuple[pa.Array, Bad | None]]"] = {
    "int": _typed_int,
    "float": _typed_float,
    "bool": _typed_bool,
    "string": _typed_string,
    "time": _typed_time,
    "vector": _typed_vector,
    "sequence": _typed_sequence,
}


def _nothing_fits(array: "pa.Array", column: Column) -> "tuple[pa.Array, Bad | None]":
    import pyarrow as pa

    return pa.nulls(len(array), arrow_type(column)), _bad(array, array.is_valid(), f"{_WORDS_FOR[column.type]} ({array.type})")


def _bad(array: "pa.Array", where: "pa.BooleanArray", reason: str) -> Bad | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.any(where).as_py():
        return None
    rows = pc.indices_nonzero(where).cast(pa.int64())
    return Bad(rows, _shown(array.take(rows)), _repeated(reason, len(rows)))


def _shown(array: "pa.Array") -> "pa.StringArray":
    """Typed cells as text: by Arrow where it can, else as Python writes them."""
    import pyarrow as pa

    try:
        return array.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([None if v is None else str(v) for v in array.to_pylist()], pa.string())


def _repeated(word: str, times: int) -> "pa.StringArray":
    import pyarrow as pa

    return pa.repeat(pa.scalar(word, pa.string()), times)


def _blanked(cells: "pa.Array", where: "pa.BooleanArray") -> "pa.Array":
    """The cells with null where ``where`` is true."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.any(where).as_py():
        return cells
    return pc.if_else(pc.fill_null(where, False), pa.scalar(None, cells.type), cells)


def _finished(found: "pa.Array") -> "pa.Array":
    """NaN is missing too: the lake has one way to be missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return _blanked(found, pc.is_nan(found)) if found.type == pa.float64() else found
