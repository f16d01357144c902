"""Every cleaner, how they are written in model.yaml, and that a served row meets the same rules."""

import math
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelinscale.core.errors import SpecError
from modelinscale.core.kinds import names
from modelinscale.core.schema import Column, ColumnType, Schema
from modelinscale.data.clean import clean
from modelinscale.data.cleaners import Cleaner
from modelinscale.data.cleaners._treatment import Cleaning, frozen, parse_cleaners
from modelinscale.data.cleaners.cast import Cast
from modelinscale.data.cleaners.dedupe import Dedupe
from modelinscale.data.cleaners.extract import Extract
from modelinscale.data.cleaners.fill import Fill
from modelinscale.data.cleaners.outliers import Outliers
from modelinscale.data.cleaners.replace import Replace
from modelinscale.data.cleaners.trim import Trim
from modelinscale.data.cleaners.units import Units
from modelinscale.testing import cleaners as suite
from modelinscale.testing.cleaners import Case, applied, series, served
from modelinscale.testing.examples import examples

TEXT, FLOAT, INT, BOOL = (Column(name="c", type=kind) for kind in ("string", "float", "int", "bool"))
LB = 0.45359237
CASES = {
    "trim": Case(
        Trim(),
        TEXT,
        (
            (" a ", "a"),
            ("a  b", "a b"),
            ("a\u00a0\u2003b\t", "a b"),
            ("\ufeffx\u200b", "x"),
            ("e\u0301", "é"),
            ("", None),
            (" \u3000", None),
            (None, None),
            ("É", "É"),
        ),
    ),
    "trim outside": Case(Trim(inner=False), TEXT, ((" a  b\n", "a  b"), ("\u00a0a\u00a0b ", "a\u00a0b"), ("  ", None))),
    "trim lower": Case(Trim(case="lower"), TEXT, ((" A B", "a b"), ("STRASSE", "strasse"), ("ÀÉ", "àé"), ("İ", "i̇"), ("ΟΔΟΣ", "οδος"))),
    "trim upper": Case(Trim(case="upper"), TEXT, (("a", "A"), ("straße", "STRASSE"), ("ŉ", "ʼN"))),
    "replace": Case(
        Replace(values=(("n/a", None), ("St.", "Saint"))), TEXT, (("n/a", None), ("N/A", "N/A"), ("St.", "Saint"), ("St. Ives", "St. Ives"), (None, None))
    ),
    "replace any case": Case(Replace(values=(("n/a", None), ("ja", "yes")), ignore_case=True), TEXT, (("N/A", None), ("JA", "yes"), ("jA ", "jA "))),
    "replace within": Case(Replace(values=(("St.", "Saint"), ("  ", " ")), within=True), TEXT, (("St. Ives  x", "Saint Ives x"), ("St.", "Saint"), ("a", "a"))),
    "replace numbers": Case(Replace(values=((-999, None), (7, 8))), INT, ((-999, None), (7, 8), (3, 3), (None, None), (2**62 + 1, 2**62 + 1))),
    "replace decimals": Case(Replace(values=((-1, None), (0.5, 1))), FLOAT, ((-1.0, None), (0.5, 1.0), (2.0, 2.0))),
    "replace flags": Case(Replace(values=((True, False),)), BOOL, ((True, False), (False, False), (None, None))),
    "cast": Case(
        Cast(to="float", decimal=",", thousands="."),
        TEXT,
        (("1.234,5", 1234.5), (" 7 ", 7.0), ("n/a", None), (None, None), ("−3", -3.0), ("1e3", 1000.0)),
        ("1,2,3", "x", "1.2345", "inf"),
    ),
    "cast whole": Case(Cast(to="int"), TEXT, (("3", 3), ("3.0", 3), ("0x1F", 31), ("-9223372036854775808", -(2**63))), ("3.5", "9223372036854775808")),
    "cast flags": Case(Cast(to="bool", true_words=("ja",), false_words=("nein",)), TEXT, (("Ja", True), ("nein", False), ("-", None)), ("yes", "1")),
    "cast moments": Case(
        Cast(to="time", format="%d.%m.%Y"), TEXT, (("31.01.2024", datetime(2024, 1, 31)), ("2024-02-01", datetime(2024, 2, 1)), (None, None)), ("31.02.2024",)
    ),
    "cast iso": Case(Cast(to="time"), TEXT, (("2024-01-31T12:00:00+02:00", datetime(2024, 1, 31, 10)), ("2024-01-31", datetime(2024, 1, 31))), ("soon",)),
    "cast numbers": Case(Cast(to="int"), FLOAT, ((3.0, 3), (None, None)), (3.5, 1e300)),
    "cast to text": Case(Cast(to="string"), FLOAT, ((3.0, "3"), (0.1, "0.1"), (1e-7, "1e-07"), (1e300, "1e+300"), (None, None))),
    "cast flags to numbers": Case(Cast(to="float"), BOOL, ((True, 1.0), (False, 0.0))),
    "fill": Case(Fill(value="none"), TEXT, ((None, "none"), ("a", "a"))),
    "fill from a column": Case(Fill(column=("b",)), TEXT, ((None, None), ("a", "a"))),
    "fill numbers": Case(Fill(value=0), INT, ((None, 0), (5, 5))),
    "outliers": Case(Outliers(low=0, high=10), FLOAT, ((-1.0, 0.0), (11.5, 10.0), (5.0, 5.0), (None, None), (0.0, 0.0))),
    "outliers to null": Case(Outliers(high=10, to="null"), INT, ((11, None), (10, 10), (-(2**63), -(2**63)), (2**63 - 1, None))),
    "outliers whole": Case(Outliers(low=0.5, high=9.5), INT, ((0, 1), (10, 9), (5, 5))),
    "outliers quarantined": Case(Outliers(low=0, to="quarantine"), FLOAT, ((0.0, 0.0), (None, None)), (-1.0,)),
    "units": Case(
        Units(to="kg"),
        TEXT,
        (
            *(("12 kg", 12.0), ("3lb", 3 * LB), ("500 G", 0.5), ("7", 7.0), ("1e3 g", 1.0), ("-2 Kg.", -2.0), ("1 lb 4 oz", LB + LB / 4), (None, None)),
            *(("0.1 kg", 0.1), ("5 µg", 5e-9), ("5 μg", 5e-9), ("１２ kg", 12.0), (".5 t", 500.0), ("2 pounds, 1 oz", 2 * LB + LB / 16)),
        ),
        ("12 km", "kg", "12 kg 3", "1,5 kg", "twelve kg", "1_0 kg", "12 kg/m", "inf kg", "1e400 kg", "3 3 kg"),
    ),
    "units with a bare one": Case(
        Units(to="m", bare="cm", decimal=",", thousands="."), TEXT, (("180", 1.8), ("1,8 m", 1.8), ("1.800 mm", 1.8), ("6 ft", 6 * 0.3048)), ("1.8 m",)
    ),
    "units of length": Case(Units(to="ft"), TEXT, (("5 ft 6 in", 5.5), ("5' 6\"", 5.5), ("6′", 6.0)), ("5 ft -3 in",)),
    "units of temperature": Case(Units(to="°C"), TEXT, (("68 °F", 20.0), ("20 C", 20.0), ("273.15 K", 0.0), ("-40F", -40.0)), ("20 C 3 F",)),
    "units of size": Case(Units(to="MB"), TEXT, (("1 GB", 1000.0), ("1 MiB", 1.048576), ("5 KB", 0.005)), ("3 mbq",)),
    "units of numbers": Case(Units(to="kg", bare="g"), INT, ((500, 0.5), (None, None))),
    "extract": Case(Extract(pattern=r"no\. (\d+)"), TEXT, (("see no. 12, p. 3", "12"), ("12", "12"), ("none", None), (None, None), ("x" * 600, None))),
    "dedupe": Case(Dedupe(columns=("b",)), TEXT, (("a", "a"), (None, None))),
}


def test_every_cleaner_is_covered() -> None:
    assert sorted({name.split()[0] for name in CASES}) == names("data.cleaners")


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("rule", suite.SUITE, ids=lambda rule: rule.__name__)
def test_a_cleaner(name: str, rule: Callable[[Case], None]) -> None:
    rule(CASES[name])


ODD = st.one_of(
    st.text(max_size=12),
    st.text(alphabet=" \t\u00a0\u200b\ufeff\u3000aAßÉe\u0301ıİſΣ.,-", max_size=8),
    st.from_regex(r"[+-]?[0-9]{1,4}([.,][0-9]{0,3}){0,2} ?(kg|lb|lbs|g|oz|G|KG|t|st|µg|m|°C|F|GB|ft|in|'|\")?( [0-9]{1,2} ?(oz|in))?", fullmatch=True),
    st.sampled_from(
        ["n/a", "St.", "St. St.", "N/A", "1e5 kg", "− 3 kg", "1\u00a0000", "⅓ kg", "٣ kg", "5²", "12 kg²", "nan kg", "0x10 g", "1.5.2024", "Infinity"]
    ),
)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(ODD, min_size=1, max_size=6), st.sampled_from(sorted(n for n, c in CASES.items() if c.column.type == "string" and n != "dedupe")))
@example(["\u1e9e", "ǅ", "ﬁ"], "trim lower")
@example(["\u0345\u0301", "ΐ"], "trim upper")
def test_odd_text_is_cleaned_the_same_when_collected_and_when_served(cells: list[str], name: str) -> None:
    case = CASES[name]
    wanted = [c if "\0" not in c else "0" for c in cells]
    read = [c or None for c in wanted]  # an empty text is missing once it is read
    values, bad = applied(case.cleaner, case.column, read)
    for cell, value, refused in zip(wanted, values, bad, strict=True):
        found, also = served(case.cleaner, case.column, cell)
        assert also == refused, f"{cell!r}"
        expected = value
        if isinstance(value, datetime):
            expected = (value - datetime(1970, 1, 1)) // (datetime(1970, 1, 1, 0, 0, 0, 1) - datetime(1970, 1, 1))
        assert found == expected, f"{cell!r}: {found!r}, {expected!r}"
        if case.cleaner.repeats and case.column.type == case.cleaner.gives(case.column).type:
            assert served(case.cleaner, case.column, value)[0] == value, f"{cell!r} changes again"


STEPS = {
    "w": [{"trim": {"case": "lower"}}, {"replace": {"unknown": None}}, {"units": "kg"}, {"outliers": [0, 100]}, {"fill": 0.0}],
    "p": [{"cast": {"to": "float", "decimal": ",", "thousands": "."}}],
    "t": ["trim", {"replace": {"n/a": None, "st.": "saint"}}],
}


@pytest.mark.slow  # each cleaner is tried so on odd text above
@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.tuples(ODD, ODD, ODD), min_size=1, max_size=8), st.integers(0, 8))
def test_whole_rows_are_cleaned_the_same_in_parts_and_when_served(rows: list[tuple[str, str, str]], cut: int) -> None:
    from modelinscale.package._cell_words import Unreadable
    from modelinscale.package._clean import Chain

    schema = Schema(columns=tuple(Column(name=n, type="string") for n in STEPS))
    cleaning = Cleaning(parse_cleaners(STEPS))
    after = cleaning.schema(schema)
    table = [{n: c.replace("\0", "0") for n, c in zip(STEPS, row, strict=True)} for row in rows]

    def collected(part: list[dict[str, str]]) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
        batch = pa.RecordBatch.from_pylist(part, schema=pa.schema([(n, pa.string()) for n in STEPS]))
        found = cleaning.apply(clean(batch, schema))
        return found.batch.to_pylist(), sorted(zip(found.faults.row.to_pylist(), found.faults.column.to_pylist(), strict=True))

    whole, faults = collected(table)
    one, two = collected(table[:cut]), collected(table[cut:])
    assert one[0] + two[0] == whole
    assert one[1] + [(r + min(cut, len(table)), n) for r, n in two[1]] == faults
    for i, row in enumerate(table):
        for name, cell in row.items():
            try:
                found = Chain(schema[name], [c.step() for c in cleaning.of(schema[name])], after[name])(cell)
            except Unreadable:
                assert (i, name) in faults
                continue
            assert (i, name) not in faults
            assert found == whole[i][name]


def test_a_number_sent_as_a_number_is_not_read_as_text_with_marks() -> None:
    assert served(Cast(to="float", decimal=",", thousands="."), TEXT, 1.125) == (1.125, False)
    assert served(Cast(to="float", decimal=",", thousands="."), TEXT, "1.125") == (1125.0, False)
    assert served(Units(to="kg", bare="g"), TEXT, 500) == (0.5, False)
    assert served(Trim(case="upper"), TEXT, True) == ("TRUE", False)
    assert served(Replace(values=(("3", "three"),)), TEXT, 3) == ("three", False)
    assert served(Units(to="kg"), TEXT, math.nan) == (None, False)
    assert served(Units(to="kg"), TEXT, [1]) == (None, True)


def test_robust_bounds_are_found_once_and_kept() -> None:
    values = [*(float(i % 10) for i in range(1000)), 1e9]
    schema = Schema(columns=(FLOAT,))
    rows = clean(pa.record_batch({"c": values}), schema)
    wanted = parse_cleaners({"c": {"outliers": {"spread": 6, "to": "null"}}})
    (found,) = frozen(wanted, [rows])["c"]
    assert isinstance(found, Outliers)
    assert found.spread is None
    assert [found.low, found.high] == pytest.approx([5 - 6 * 1.4826 * 3, 5 + 6 * 1.4826 * 3])
    assert Cleaning({"c": (found,)}).apply(rows).batch.column(0).null_count == 1
    assert frozen({"c": (found,)}, []) == {"c": (found,)}
    same = frozen(wanted, [clean(pa.record_batch({"c": [1.0, 1.0, 1.0]}), schema)])["c"][0]
    assert same.apply(pl.Series([5.0, -5.0]), FLOAT)[0].to_list() == [5.0, -5.0]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("trim", (Trim(),)),
        (["trim", {"units": "kg"}], (Trim(), Units(to="kg"))),
        ({"units": {"to": "pounds", "bare": "KG"}}, (Units(to="lb", bare="kg"),)),
        ({"replace": {"n/a": None, "St.": "Saint"}}, (Replace(values=(("n/a", None), ("St.", "Saint"))),)),
        ({"replace": {"values": {"a": "b"}, "ignore_case": True}}, (Replace(values=(("a", "b"),), ignore_case=True),)),
        ({"fill": 0}, (Fill(value=0),)),
        ({"fill": {"value": True}}, (Fill(value=True),)),
        ({"fill": False}, (Fill(value=False),)),
        ({"fill": {"column": "b"}}, (Fill(column=("b",)),)),
        ([{"fill": {"column": ["b", "d"]}}, {"fill": 0}], (Fill(column=("b", "d")), Fill(value=0))),
        ({"outliers": [0, 5]}, (Outliers(low=0, high=5),)),
        ({"cast": "int"}, (Cast(to="int"),)),
        ({"dedupe": ["a", "b"]}, (Dedupe(columns=("a", "b")),)),
        ({"dedupe": True}, (Dedupe(),)),
        ([{"replace": {"a": "b"}}, {"replace": {"c": "d"}}], (Replace(values=(("a", "b"),)), Replace(values=(("c", "d"),)))),
    ],
)
def test_cleaners_as_they_are_written(written: Any, expected: tuple[Cleaner, ...]) -> None:
    assert parse_cleaners({"c": written}) == {"c": expected}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("tirm", r"c: unknown cleaner type 'tirm'. Did you mean 'trim'\?"),
        ({"units": "furlong"}, r"there is no unit 'furlong'"),
        ({"units": True}, "c.to: `units` requires this, and it is missing"),
        ({"trim": {"csae": "lower"}}, r"c\.csae: `trim` does not know this key\. Did you mean 'case'\? Known here: "),
        ({"units": "GBP"}, r"`units` converts no currency \(GBP\): rates change"),
        ({"units": {"to": "kg", "bare": "€"}}, r"converts no currency \(€\)"),
        ({"fill": True}, "`fill` needs the value"),
        ({"fill": None}, "`fill` needs the value"),
        ({"fill": {"value": 1, "column": "b"}}, "`fill` needs a value or a column, and not both"),
        ({"fill": {"by": "city", "with": "median"}}, "`fill` learns nothing, so there is no `by`: cleaning is done before rows are split"),
        ({"fill": {"column": "c"}}, "c: it cannot fill itself"),
        ([{"fill": 0}, {"fill": {"column": "b"}}], "c: no cell is missing any more"),
        ([{"fill": {"column": "b"}}, {"fill": {"column": "d"}}], "c: it is filled twice"),
        ([{"fill": {"column": "b"}}, "trim"], "`trim` behind a fill from another column"),
        ([{"fill": {"column": "b"}}, {"outliers": {"low": 0, "to": "null"}}], "`outliers` behind a fill from another column"),
        ({"replace": {"a": "b", "b": "c"}}, "gives 'b' for 'a', and would replace that again"),
        ({"replace": {}}, "`replace` needs old and new values"),
        ({"replace": {"values": {"a": 1}, "within": True}}, "`within` is for pairs of texts"),
        ([{"trim": {"case": "lower"}}, {"replace": {"a": "X"}}], "'X' that `replace` gives would be 'x' once the row is cleaned again"),
        ([{"fill": "zero"}, {"replace": {"zero": None}}, {"fill": "x"}], None),
        ({"cast": {"to": "float", "format": "%d"}}, "`format` is for moments"),
        ({"cast": {"to": "float", "decimal": ",", "thousands": ","}}, "are both ','"),
        ({"outliers": {}}, "`outliers` has no bound"),
        ({"outliers": [5, 1]}, "leaves nothing: 5 is above 1"),
        ({"outliers": 5}, "`outliers` needs bounds, found 5"),
        ({"extract": "a"}, "has 0 groups, and needs one"),
        ({"extract": "("}, "is not a regular expression"),
        ({"extract": "((?:a+)+)"}, "repeats what repeats itself"),
        ({"dedupe": [1]}, "`dedupe` needs names of columns"),
        ({"trim": False}, "`trim: false` does nothing"),
        (None, "no cleaner is named"),
    ],
)
def test_mistakes_in_cleaners_say_where_what_and_what_to_do(written: Any, words: str | None) -> None:
    if words is None:
        parse_cleaners({"c": written})
        return
    with pytest.raises(SpecError, match=words):
        parse_cleaners({"c": written})


@pytest.mark.parametrize(
    ("steps", "kind", "words"),
    [
        ({"c": "trim"}, "float", "c: `trim` is for text"),
        ({"c": {"outliers": [0, 1]}}, "string", r"c: `outliers` is for numbers, and the column is string \(put `cast`"),
        ({"c": {"replace": {"a": "b"}}}, "int", r"c: 'a' cannot be in a column of type int \(for text put `cast` behind it\)"),
        ({"c": {"replace": {1: 2}}}, "string", r"quote it: '1'"),
        ({"c": {"fill": "x"}}, "int", "c: 'x' cannot be in a column of type int"),
        ({"c": {"units": {"to": "kg", "bare": "m"}}}, "string", "c: m is a unit of length and kg one of mass"),
        ({"c": {"cast": "int"}}, "time", "a column of type time cannot be cast to int"),
        ({"d": "trim"}, "string", "there is no column 'd'"),
        ({"c": {"fill": {"column": "d"}}}, "string", "`fill` names 'd', which is not a column"),
        ({"c": {"fill": {"column": "n"}}}, "string", "'n' is float once it is cleaned, and this column string: `cast` one of them"),
        ({"c": [{"units": "kg"}, {"fill": {"column": "lb"}}]}, "string", "'lb' is not in kg as this column is: give both the same `units`"),
        ({"c": {"outliers": [0.2, 0.8]}}, "int", r"no whole number lies between 0.2 and 0.8"),
    ],
)
def test_a_cleaner_that_does_not_suit_its_column_says_so(steps: dict[str, Any], kind: ColumnType, words: str) -> None:
    others = (Column(name="n", type="float"), Column(name="lb", type="float", affixes=("lb",)))
    with pytest.raises(SpecError, match=words):
        Cleaning(parse_cleaners(steps)).schema(Schema(columns=(Column(name="c", type=kind), *others)))


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ({"a": {"fill": {"column": "b"}}, "b": {"fill": {"column": "c"}}}, "a: 'b', from which it is filled, is itself filled from 'c'"),
        ({"a": {"fill": {"column": "b"}}, "b": [{"fill": {"column": "a"}}, {"fill": 0}]}, "a: 'b', from which it is filled, is changed after"),
        ({"*": {"fill": {"column": "b"}}}, "one column cannot fill all others"),
    ],
)
def test_fills_that_would_not_settle_are_refused(steps: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=re.escape(words)):
        parse_cleaners(steps)


FILLS: list[dict[str, Any]] = [
    {"a": {"fill": {"column": "b"}}},
    {"a": {"fill": {"column": ["b", "c"]}}, "b": {"fill": {"column": ["c", "a"]}}, "c": "trim"},
    {"a": [{"trim": {"case": "lower"}}, {"replace": {"n/a": None}}, {"fill": {"column": ["c", "b"]}}, {"fill": "none"}], "b": {"trim": {"case": "upper"}}},
    {
        "a": [{"units": {"to": "kg", "bare": "g"}}, {"outliers": {"high": 50, "to": "null"}}, {"fill": {"column": "b"}}, {"outliers": [0, 20]}],
        "b": {"units": "kg"},
    },
    {
        "a": [{"replace": {"0": None}}, {"cast": {"to": "float", "decimal": ","}}, {"fill": {"column": ["b", "c"]}}],
        "b": {"cast": "int"},
        "c": {"cast": "float"},
    },
    {"a": [{"cast": {"to": "time", "format": "%d.%m.%Y"}}, {"fill": {"column": "b"}}], "b": {"cast": "time"}},
    {"a": [{"cast": "bool"}, {"fill": {"column": "b"}}, {"fill": {"value": False}}], "b": {"cast": "bool"}},
]
CELLS = st.none() | ODD | st.sampled_from(["0", "1", "true", "3 kg", "500", "2,5", "2024-05-01", "01.05.2024", " n/a ", "B ", "", "70 kg"])


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6), st.sampled_from(FILLS), st.integers(0, 6))
def test_cells_filled_from_other_columns_are_the_same_in_parts_when_served_and_when_cleaned_again(rows: Any, steps: dict[str, Any], cut: int) -> None:
    from modelinscale.package import InputColumn
    from modelinscale.package._cells import Reader

    schema = Schema(columns=tuple(Column(name=n, type="string") for n in "abc"))
    cleaning = Cleaning(parse_cleaners(steps))
    after = cleaning.schema(schema)
    table = [{n: c if c is None else c.replace("\0", "0") for n, c in zip("abc", row, strict=True)} for row in rows]

    def collected(part: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], set[int]]:
        found = cleaning.apply(clean(pa.RecordBatch.from_pylist(part, schema=pa.schema([(n, pa.string()) for n in "abc"])), schema))
        return found.batch.to_pylist(), set(found.faults.row.to_pylist())

    whole, bad = collected(table)
    assert collected(table[:cut])[0] + collected(table[cut:])[0] == whole
    form = "string" if after["a"].type == "string" else "int64" if after["a"].type == "time" else "float64"
    spec = InputColumn(column=after["a"], input=form, raw=schema["a"], clean=tuple(cleaning.steps(schema["a"], schema)))
    reader, plain = Reader(spec), Reader(InputColumn(column=after["a"], input=form))
    for i, row in enumerate(table):
        if i in bad:
            continue  # the row is in quarantine: the lake says nothing of it
        [expected] = plain.read([whole[i]["a"]])
        [found] = reader.read([row["a"]], {n: [row[n]] for n in reader.beside})
        assert repr(found) == repr(expected), row
        again = {n: sent(whole[i][n], after[n], cleaning.steps(schema[n], schema)) for n in "abc"}
        [same] = reader.read([again["a"]], {n: [again[n]] for n in reader.beside})
        assert repr(same) == repr(expected), (row, again)


def sent(value: Any, column: Column, steps: list[dict[str, Any]]) -> Any:
    """A cell of the lake as golden rows hold it."""
    from modelinscale.export._golden import json_rows

    return json_rows(pl.DataFrame(series(column, [value])), [column], {column.name: steps})[0].get(column.name)


def test_a_star_means_every_other_text_column() -> None:
    schema = Schema(columns=(TEXT, Column(name="d", type="string"), Column(name="n", type="int")))
    cleaning = Cleaning(parse_cleaners({"*": {"trim": {"case": "upper"}}, "d": "trim"}))
    found = cleaning.apply(clean(pa.record_batch({"c": [" a", "B"], "d": [" a", "b"], "n": [1, 2]}), schema))
    assert found.batch.to_pydict() == {"c": ["A", "B"], "d": ["a", "b"], "n": [1, 2]}
    assert found.changed == {"c": 1, "d": 1}
    with pytest.raises(SpecError, match=r"`\*` cannot hold `units`"):
        parse_cleaners({"*": {"units": "kg"}})


def test_rows_to_drop_are_told_by_sets_of_columns() -> None:
    schema = Schema(columns=(TEXT, Column(name="d", type="string")))
    assert Cleaning(parse_cleaners({"c": {"dedupe": "d"}, "*": "dedupe"})).dropping(schema) == (("c", "d"),)
    assert Cleaning(parse_cleaners({"c": "dedupe", "*": "dedupe"})).dropping(schema) == (("c",), ("c", "d"))
    with pytest.raises(SpecError, match="`dedupe` names 'e', which is not a column"):
        Cleaning(parse_cleaners({"c": {"dedupe": "e"}})).dropping(schema)


def test_equal_rows_go_without_a_word_also_in_a_later_collect(tmp_path: Path) -> None:
    from modelinscale.data.collect import collect
    from modelinscale.data.contract import contract
    from modelinscale.data.sources.csv import Csv

    schema = Schema(columns=(Column(name="a", type="int"), Column(name="b", type="string")))
    rules = contract(schema, drops=(("a", "b"),))
    lake, quarantine = str(tmp_path / "lake"), str(tmp_path / "bad")
    (tmp_path / "rows1.csv").write_text("a,b\n1,x\n1,x\n,x\n,x\n2,\n")
    source = Csv(path=(str(tmp_path / "rows*.csv"),))
    first = collect(source, lake=lake, quarantine=quarantine, contract=rules)
    assert (first.n_added, first.n_dropped, first.n_quarantined_now) == (3, 2, 0)
    (tmp_path / "rows2.csv").write_text("a,b\n1,x\n,x\n2,\n3,\n")
    second = collect(source, lake=lake, quarantine=quarantine, contract=rules)
    assert (second.n_added, second.n_dropped, second.n_rows) == (1, 3, 4)
