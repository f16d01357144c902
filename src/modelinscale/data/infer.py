"""What the columns of a sample are, and the habits of whoever wrote them; and a short profile of typed columns.

A type is found when at least 98 percent of a column's present cells fit it; the few others are faults for quarantine. Otherwise it is text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelinscale.core.errors import DataError, NotSupportedYet, SpecError
from modelinscale.core.schema import NESTED, Column, ColumnType, Schema
from modelinscale.data._moments import find_moment
from modelinscale.data._numbers import find_number
from modelinscale.data._words import BAD_SHARE, Words
from modelinscale.data.arrow import column_of, is_list, is_text

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

FLAGS = (("true", "false"), ("yes", "no"), ("y", "n"), ("t", "f"), ("on", "off"))
"""Pairs of words that make a flag. One of a pair alone is enough for the long ones only."""
TEXT_NULLS = ("NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "?", "-", "--", "\\N")
"""Words that mean missing in text: fewer than for numbers, since ``none`` may well be an answer."""
N_TOP = 5
"""Frequent values that a profile keeps."""

_CODES = re.compile(r"zip|post(al)?_?\s?code|postcode|\bplz\b|phone|\btel\b|\bfax\b|\bssn\b|\bisbn\b|\bean\b|gtin|\bupc\b|iban|fips", re.IGNORECASE)


@dataclass(frozen=True)
class Profile:
    """One typed column of a table at a glance; "" is missing in text. Low, high and top are shown as text."""

    n_rows: int
    n_missing: int
    n_distinct: int
    """Different present values."""
    low: str | None = None
    """Smallest present number or moment."""
    high: str | None = None
    top: tuple[tuple[str, int], ...] = ()
    """The most frequent values with their counts, ties by value; not for vectors and raw bytes."""
    mean: float | None = None
    """Of numbers and flags."""
    mean_words: float = 0.0
    """Words in a present text, on average."""
    mean_chars: float = 0.0
    """Characters in a present text, on average."""
    ascending: bool = False
    """Whether no present number or moment is below the one before it."""

    @property
    def constant(self) -> bool:
        """Whether there is at most one value, missing counted as one."""
        return self.n_distinct + (self.n_missing > 0) <= 1

    @property
    def unique(self) -> bool:
        """Whether every row has a value of its own."""
        return self.n_missing == 0 and self.n_distinct == self.n_rows > 0

    @property
    def missing_share(self) -> float:
        """0 to 1; 0 for a table without rows."""
        return self.n_missing / self.n_rows if self.n_rows else 0.0


def infer(table: "pa.Table", *, force: Mapping[str, ColumnType] | None = None, typed: bool = False) -> Schema:
    """The schema of a sample, text columns looked into.

    ``force`` names types to hold where another would be found; the habits are still found. ``typed`` says that the format declares its types: there
    text stays text, digits and words for missing too, unless its cells are moments. Lists of numbers that all have one length are vectors, others
    sequences, and lists of lists of one length are sequences of several channels.
    Raises `NotSupportedYet` naming every column that no type holds.
    """
    forced = dict(force or {})
    unknown = sorted(set(forced) - set(table.column_names))
    if unknown:
        raise SpecError(f"there is no column {', '.join(map(repr, unknown))} to hold a type for.", fix=f"Columns: {', '.join(table.column_names[:30])}.")
    columns: list[Column] = []
    refused: list[NotSupportedYet] = []
    day_first = None
    for name in table.column_names:
        array = table.column(name)
        try:
            if is_text(array.type):
                column = _text_column(name, array, forced.get(name), typed, day_first)
                if column.format and day_first is None:
                    day_first = {"%d": True, "%m": False}.get(column.format[:2])
            else:
                column = _held(_vector(name, array) or _channels(name, array) or column_of(name, array.type), forced.get(name))
        except NotSupportedYet as error:
            refused.append(error)
        else:
            columns.append(column)
    if len(refused) == 1:
        raise refused[0]
    if refused:
        names = ", ".join(e.message.split("'")[1] for e in refused)
        raise NotSupportedYet("\n".join(e.message for e in refused), fix=f"Leave them out: `without: [{names}]` under the source.")
    return Schema(columns=tuple(columns))


def _vector(name: str, array: "pa.ChunkedArray") -> Column | None:
    """A column of lists of numbers, if all present ones are equally long."""
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = array.type
    if not (t.is_list(kind) or t.is_large_list(kind)) or not (t.is_integer(kind.value_type) or t.is_floating(kind.value_type)):
        return None
    ends = pc.min_max(pc.list_value_length(array)).as_py()
    return Column(name=name, type="vector", width=ends["max"]) if ends["max"] and ends["min"] == ends["max"] else None


def _channels(name: str, array: "pa.ChunkedArray") -> Column | None:
    """A column of lists of steps, each a list of numbers, if all present steps have as many."""
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = array.type
    if not is_list(kind) or not is_list(kind.value_type):
        return None
    numbers = kind.value_type.value_type
    ends = pc.min_max(pc.list_value_length(pc.list_flatten(array))).as_py()
    one = ends["max"] and ends["min"] == ends["max"] and (t.is_integer(numbers) or t.is_floating(numbers))
    return Column(name=name, type="sequence", width=ends["max"]) if one else None


def _text_column(name: str, array: "pa.ChunkedArray", forced: ColumnType | None, typed: bool, day_first: bool | None) -> Column:
    words = Words.of(array)
    if typed and forced is None:
        moment = find_moment(words, 1.0 - BAD_SHARE, day_first=day_first)
        return moment.column(name) if moment else Column(name=name, type="string")
    if forced == "string":
        return Column(name=name, type="string", nulls=() if typed else _text_nulls(words))
    if forced is None:
        return _found(name, words, day_first)
    floor = 0.0
    if forced in ("int", "float"):
        number = find_number(words, floor)
        return number.column(name).but(type=forced) if number else Column(name=name, type=forced)
    if forced == "time":
        moment = find_moment(words, floor, day_first=day_first, digits_only=True)
        return moment.column(name) if moment else Column(name=name, type="time", nulls=words.used_nulls)
    if forced == "bool":
        return _flag(name, words, floor) or Column(name=name, type="bool", nulls=words.used_nulls)
    raise _cannot_hold(name, forced, "text")


def _found(name: str, words: Words, day_first: bool | None) -> Column:
    floor = 1.0 - BAD_SHARE
    if not words.n_present:
        return Column(name=name, type="string", nulls=tuple(w for w in words.used_nulls if w in TEXT_NULLS))
    flag = _flag(name, words, floor)
    if flag:
        return flag
    if words.share_with_digit >= 0.5:
        # Digits alone are dates only where the name says so: 20190412 may as well be an amount.
        dated = bool(_DATES.search(name))
        if dated or words.share_of_numbers < floor:
            moment = find_moment(words, floor, day_first=day_first, digits_only=dated)
            if moment:
                return moment.column(name)
        number = find_number(words, floor)
        if number and not (number.codes or (number.digits_only and _CODES.search(name))):
            return number.column(name)
    return Column(name=name, type="string", nulls=_text_nulls(words))


_DATES = re.compile(r"date|dat(um|a)?$|\bday\b|_day$|birth|\bdob\b|time|moment|_at$|_on$", re.IGNORECASE)


def _flag(name: str, words: Words, floor: float) -> Column | None:
    seen = words.lowered()
    for true, false in FLAGS:
        present = {true, false} & seen.keys()
        if not present or (len(present) == 1 and len(true) == 1):
            continue
        share = sum(seen[w] for w in present) / max(1, words.n_present)
        if share >= max(floor, 0.5):
            return Column(name=name, type="bool", true_words=(true,), false_words=(false,), nulls=words.used_nulls)
    return None


def _text_nulls(words: Words) -> tuple[str, ...]:
    found = tuple(w for w in words.used_nulls if w in TEXT_NULLS)
    if "NA" in found and words.share_of_capital_pairs > 0.9:
        return tuple(w for w in found if w != "NA")  # among country codes NA is Namibia
    return found


def _held(column: Column, forced: ColumnType | None) -> Column:
    """A typed column under another type, where its values can be held by it."""
    if forced is None or forced == column.type:
        return column
    if forced in NESTED or column.type in ("vector", "sequence") or (column.type == "binary" and forced != "string"):
        raise _cannot_hold(column.name, forced, column.type)
    return Column(name=column.name, type=forced)


def _cannot_hold(name: str, forced: str, found: str) -> DataError:
    return DataError(f"column {name!r} holds {found} cells and cannot be held as {forced}.", fix=f"Remove {name!r} from `data.columns`.")


def profile(table: "pa.Table") -> dict[str, Profile]:
    """A profile of every column of a table in the lake's types, by name."""
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return {name: _profile(frame[name]) for name in frame.columns}


def _profile(values: "pl.Series") -> Profile:
    import polars as pl

    n_rows = len(values)
    if isinstance(values.dtype, (pl.Array, pl.List, pl.Binary)):
        present = values.drop_nulls()
        return Profile(n_rows, n_rows - len(present), present.hash().n_unique())
    if values.dtype == pl.String:
        values = values.set(values == "", None) if (values == "").any() else values
    present = values.drop_nulls()
    if present.dtype.is_float():
        present = present.drop_nans()
    if not len(present):
        return Profile(n_rows, n_rows, 0)
    counts = present.alias("value").value_counts(name="n")
    top = counts.top_k(N_TOP, by=["n", "value"], reverse=[False, True])
    shown = tuple((_text(v), n) for v, n in top.iter_rows())
    facts: dict[str, object] = {}
    if present.dtype == pl.String:
        facts = {"mean_words": _mean(present.str.count_matches(r"\S+")), "mean_chars": _mean(present.str.len_chars())}
    elif present.dtype == pl.Boolean:
        facts = {"mean": _mean(present)}
    else:
        facts = {"low": _text(present.min()), "high": _text(present.max()), "ascending": present.is_sorted()}
        if present.dtype.is_numeric():
            facts["mean"] = _mean(present)
    return Profile(n_rows, n_rows - len(present), len(counts), top=shown, **facts)  # type: ignore[arg-type]


def _mean(values: "pl.Series") -> float:
    mean = values.mean()
    assert isinstance(mean, (int, float))
    return float(mean)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
