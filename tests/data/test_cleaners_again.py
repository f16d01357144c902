"""Cleaners attacked: twice is once, three collects are one, and dirty cells mean the same served as collected; for every cleaner, random cells."""

import csv
import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelinscale.core.encoded import InputType
from modelinscale.core.schema import Column, Schema
from modelinscale.data.clean import clean
from modelinscale.data.cleaners import Cleaner
from modelinscale.data.cleaners._treatment import Cleaning, frozen, parse_cleaners
from modelinscale.package import InputColumn
from modelinscale.package._cells import BadCell, Reader
from modelinscale.testing.cleaners import applied, series
from modelinscale.testing.examples import examples

STEPS: dict[str, list[Any]] = {
    "trim": ["trim"],
    "trim lower": [{"trim": {"case": "lower", "inner": False}}],
    "replace": ["trim", {"replace": {"n/a": None, "st.": "saint", "5": "five"}}],
    "replace any case": [{"replace": {"values": {"N/A": None, "ja": "yes"}, "ignore_case": True}}],
    "replace within": [{"replace": {"values": {"st.": "saint", "  ": " "}, "within": True}}],
    "cast int": [{"cast": "int"}],
    "cast float": [{"cast": {"to": "float", "decimal": ",", "thousands": "."}}],
    "cast bool": [{"cast": {"to": "bool", "true_words": ["ja", "1"], "false_words": ["nein", "0"]}}],
    "cast time": [{"cast": {"to": "time", "format": "%d/%m/%Y"}}],
    "cast epoch": [{"cast": {"to": "time", "format": "epoch_s"}}],
    "units": [{"units": "kg"}],
    "units bare": [{"units": {"to": "kg", "bare": "lb"}}],
    "units offset": [{"units": {"to": "°C", "bare": "°F"}}],
    "units marks": [{"units": {"to": "m", "bare": "cm", "decimal": ",", "thousands": "."}}],
    "fill": ["trim", {"fill": "none"}],
    "fill number": [{"replace": {"-999": None}}, {"cast": "float"}, {"fill": -1.5}],
    "outliers": [{"cast": "float"}, {"outliers": [-3.5, 40]}],
    "outliers whole": [{"cast": "int"}, {"outliers": {"low": -3, "high": 40, "to": "null"}}],
    "outliers held": [{"cast": "float"}, {"outliers": {"low": -3, "to": "quarantine"}}],
    "all": [{"trim": {"case": "lower"}}, {"replace": {"unknown": None}}, {"units": {"to": "kg", "bare": "g"}}, {"outliers": [0, 100]}, {"fill": 0.0}],
}
CELLS = st.one_of(
    st.none(),
    st.text(max_size=10).filter(lambda t: "\0" not in t),
    st.text(alphabet=" \t\u00a0\u200b\ufeff\u3000aAßÉe\u0301ıİſΣ.,-+0159", max_size=9),
    st.from_regex(r"[+-]?[0-9]{1,5}([.,][0-9]{0,3}){0,2} ?(kg|lbs?|g|oz|G|t|st|m|cm|°C|F|K|ft|in|\$|€)?( [0-9]{1,2} ?(oz|in))?", fullmatch=True),
    st.floats(allow_nan=False).map(repr),
    st.integers(-(10**20), 10**20).map(str),
    st.datetimes(min_value=datetime(1, 1, 2)).map(lambda at: at.isoformat()),
    st.datetimes(min_value=datetime(1000, 1, 2)).map(lambda at: at.strftime("%d/%m/%Y")),
    st.sampled_from(["n/a", "N/A", "st.", "JA", "nein", "0", "1", "-999", "-0", "−5", "unknown ", "1e5 kg", "0x1F", "2026-03-04T10:00:00Z", "12 USD", "３ kg"]),
)


def column_of(steps: list[Any]) -> tuple[Cleaning, Column, Column, tuple[Cleaner, ...]]:
    raw = Column(name="c", type="string")
    cleaning = Cleaning(parse_cleaners({"c": steps}))
    return cleaning, raw, cleaning.schema(Schema(columns=(raw,)))["c"], cleaning.of(raw)


def reader_of(raw: Column, column: Column, steps: list[dict[str, Any]]) -> Reader:
    form: InputType = "string" if column.type == "string" else "int64" if column.type == "time" else "float64"
    return Reader(InputColumn(column=column, input=form, raw=raw if steps else None, clean=tuple(steps)))


@settings(max_examples=examples(120), deadline=None)
@given(cells=st.lists(CELLS, min_size=1, max_size=6), name=st.sampled_from(sorted(STEPS)), cuts=st.tuples(st.integers(0, 6), st.integers(0, 6)))
@example(cells=["0", "1,5 m"], name="units marks", cuts=(0, 0))
@example(cells=["-0", "-0 lb"], name="units", cuts=(0, 0))
@example(cells=["2026-03-04T10:00:00Z", "0999-01-01"], name="cast time", cuts=(0, 0))
@example(cells=["2243-01-01T00:00:00.000001"], name="cast epoch", cuts=(0, 0))
def test_dirty_cells_are_the_same_in_three_parts_when_served_and_when_cleaned_twice(cells: list[str | None], name: str, cuts: tuple[int, int]) -> None:
    from modelinscale.export._golden import json_rows

    cleaning, raw, column, steps = column_of(STEPS[name])
    plain = [one.step() for one in steps]

    def collected(part: list[str | None]) -> tuple[list[Any], list[int]]:
        found = cleaning.apply(clean(pa.record_batch({"c": pa.array(part, pa.string())}), Schema(columns=(raw,))))
        return found.batch.column(0).to_pylist(), found.faults.row.to_pylist()

    values, bad = collected(cells)
    low, high = sorted(min(cut, len(cells)) for cut in cuts)
    parts = [(start, *collected(cells[start:end])) for start, end in ((0, low), (low, high), (high, len(cells)))]
    assert [v for _, part, _ in parts for v in part] == values
    assert sorted(row + start for start, _, rows in parts for row in rows) == sorted(bad)

    served, straight = reader_of(raw, column, plain), reader_of(column, column, [])
    golden = json_rows(pl.DataFrame(series(column, values)), [column], {"c": plain})
    for i, cell in enumerate(cells):
        [expected] = straight.read([values[i]])
        if i in bad:
            if name != "outliers held":  # a row that is asked about is answered as it is
                with pytest.raises(BadCell):
                    served.read([cell])
            continue
        assert repr(served.read([cell])[0]) == repr(expected), f"{name}: {cell!r} served"
        again = golden[i].get("c")
        assert repr(served.read([again])[0]) == repr(expected), f"{name}: {cell!r} became {again!r}, and changed when it was cleaned again"


@settings(max_examples=examples(40), deadline=None)
@given(
    numbers=st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([-999.0, 0.0, -0.0, 5.0, 2.0**53]), min_size=1, max_size=8),
    steps=st.sampled_from(
        [
            [{"replace": {-999: None, 5: 6}}],
            [{"fill": 0}],
            [{"outliers": [-10, 10]}],
            [{"outliers": {"high": 3, "to": "null"}}, {"fill": 1}],
            [{"units": {"to": "kg", "bare": "lb"}}, {"outliers": [0, 300]}],
            [{"cast": "string"}],
        ]
    ),
)
def test_numbers_are_the_same_collected_and_served(numbers: list[float | None], steps: list[Any]) -> None:
    raw = Column(name="c", type="float")
    cleaning = Cleaning(parse_cleaners({"c": steps}))
    column = cleaning.schema(Schema(columns=(raw,)))["c"]
    found = cleaning.apply(clean(pa.record_batch({"c": pa.array(numbers, pa.float64())}), Schema(columns=(raw,))))
    bad = found.faults.row.to_pylist()
    served, straight = reader_of(raw, column, [one.step() for one in cleaning.of(raw)]), reader_of(column, column, [])
    for i, number in enumerate(numbers):
        if i in bad:
            with pytest.raises(BadCell):
                served.read([number])
            continue
        assert repr(served.read([number])[0]) == repr(straight.read([found.batch.column(0)[i].as_py()])[0]), f"{number!r}"


@pytest.mark.parametrize(
    ("to", "cell", "expected"),
    [
        ("kg", "10 lb", 4.5359237),
        ("kg", "1 st 2 lb", 16 * 0.45359237),
        ("lb", "1 kg", 1 / 0.45359237),
        ("°C", "212 F", 100.0),
        ("°F", "100 °C", 212.0),
        ("°F", "0 K", -459.67),
        ("K", "-40 F", 233.15),
        ("m", "6 ft 2 in", 74 * 0.0254),
        ("h", "90 min", 1.5),
    ],
)
def test_units_mixed_in_one_column_are_numbers_in_one(to: str, cell: str, expected: float) -> None:
    (cleaner,) = parse_cleaners({"c": {"units": to}})["c"]
    values, bad = applied(cleaner, Column(name="c", type="string"), [cell, "7", None])
    assert values == [pytest.approx(expected, rel=1e-9), 7.0, None]
    assert not any(bad)


@pytest.mark.parametrize("cell", ["5 $", "€5", "5 EUR", "5 m", "5 kg 3 m", "5 kg kg"])
def test_money_and_other_dimensions_are_no_weights(cell: str) -> None:
    (cleaner,) = parse_cleaners({"c": {"units": "kg"}})["c"]
    assert applied(cleaner, Column(name="c", type="string"), [cell]) == ([None], [True])


def test_three_collects_are_one(tmp_path: Path) -> None:
    """Rows in three files, collected one by one and at once, learned bounds among the steps: the bounds are those of the first collect, then kept."""
    from modelinscale.data.collect import collect
    from modelinscale.data.contract import contract
    from modelinscale.data.lake import open_table
    from modelinscale.data.sources.csv import Csv

    wanted = parse_cleaners(
        {
            "w": [{"units": {"to": "kg", "bare": "lb"}}, {"outliers": {"spread": 4}}],
            "city": [{"trim": {"case": "lower"}}, {"fill": {"column": "town"}}, {"fill": "nowhere"}],
            "town": "trim",
            "at": {"cast": {"to": "time", "format": "%d.%m.%Y"}},
        }
    )
    raw = Schema(columns=tuple(Column(name=n, type="string") for n in ("w", "city", "town", "at")))

    def write(part: int) -> list[list[str]]:
        rows = []
        for i in range(200):
            at = datetime(2026, 1, 1) + timedelta(days=i)
            w = [f"{100 + i % 30} lb", f"{45 + i % 12} kg", f"{100 + i % 40}", "", "9 t"][(i + part) % 5]
            rows.append([w, [" Bonn", ""][i % 2], ["Köln ", "", "n"][i % 3], [at.strftime("%d.%m.%Y"), at.isoformat(), ""][i % 3]])
        with (tmp_path / f"rows{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["w", "city", "town", "at"], *rows])
        return rows

    def run(name: str, clean_by: dict[str, tuple[Cleaner, ...]]) -> list[dict[str, Any]]:
        cleaning = Cleaning(clean_by)
        source = Csv(path=(str(tmp_path / "rows*.csv"),))
        lake = str(tmp_path / name)
        collect(source, lake=lake, quarantine=lake + "-bad", contract=contract(cleaning.schema(raw)), reads=raw, treatments=(cleaning,))
        return [row for block in open_table(lake).blocks() for row in block.to_pylist()]

    first = pa.record_batch(dict(zip(raw.names, map(list, zip(*write(0), strict=True)), strict=True)))
    settled = frozen(wanted, [clean(first, raw)])
    high = settled["w"][1].plain()["high"]
    run("parts", settled)
    for part in (1, 2):
        write(part)
        parts = run("parts", settled)
    whole = run("whole", settled)
    key = repr
    assert sorted(parts, key=key) == sorted(whole, key=key)
    assert len(whole) == 600
    assert max(row["w"] for row in whole if row["w"] is not None) == high
    assert math.isfinite(high)
    assert high < 9000
    assert {row["city"] for row in whole} == {"bonn", "köln", "nowhere", "n"}
    assert sum(row["at"] is None for row in whole) == 3 * 66
